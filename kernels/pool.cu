/* Caffe's pooling: a window is clipped to the padded input for the average's
 * divisor, and to the input for what it reads. */
#include "kernels/element.h"
#include "kernels/kernels.h"

#include <float.h>

struct span {
    int first, end, divisor;
};

SAC_DEVICE struct span span_of(const struct sac_kernel_window &w, int way, int out, int size)
{
    int start = out * w.stride[way] - w.pad[way], end = start + w.kernel[way];
    struct span s;

    end = end < size + w.pad[way] ? end : size + w.pad[way];
    s.divisor = end - start;
    s.first = start > 0 ? start : 0;
    s.end = end < size ? end : size;
    return s;
}

template <int V> SAC_KERNEL pool(struct sac_kernel_window w, bool max, uint32_t count)
{
    uint32_t units = w.y_channels / V;

    SAC_EACH(unit, count)
    {
        uint32_t c = unit % units * V, row = unit / units;
        int ox = row % w.y_width, oy = row / w.y_width % w.y_height;
        int n = row / w.y_width / w.y_height;
        struct span y = span_of(w, 0, oy, w.x_height), x = span_of(w, 1, ox, w.x_width);
        sac_vector<V> out;
        for (int k = 0; k < V; k++)
            out.v[k] = max ? -FLT_MAX : 0;
        for (int iy = y.first; iy < y.end; iy++) {
            for (int ix = x.first; ix < x.end; ix++) {
                int64_t at = (((int64_t)n * w.x_height + iy) * w.x_width + ix) * w.x_pitch + c;
                sac_vector<V> in = sac_load_vector<V>(w.x, w.x_type, at);
                for (int k = 0; k < V; k++) {
                    if (!max)
                        out.v[k] += in.v[k];
                    else if (in.v[k] > out.v[k])
                        out.v[k] = in.v[k];
                }
            }
        }
        for (int k = 0; k < V && !max; k++)
            out.v[k] /= (float)y.divisor * x.divisor;
        sac_store_vector<V>(w.y, w.y_type, row * w.y_pitch + c, out);
    }
}

cudaError_t sac_kernel_pool(const struct sac_kernel_window *w, enum sac_pool_method method,
                            cudaStream_t stream)
{
    uint32_t rows = (uint32_t)w->batch * w->y_height * w->y_width;
    bool eights = w->y_channels % 8 == 0 && w->x_pitch % 8 == 0 && w->y_pitch % 8 == 0 &&
                  sac_takes_eights(w->x, w->x_type) && sac_takes_eights(w->y, w->y_type);
    uint32_t count = rows * (w->y_channels / (eights ? 8 : 1));
    bool max = method == SAC_POOL_MAX;

    if (count == 0)
        return cudaSuccess;
    if (eights)
        SAC_LAUNCH(pool<8>, sac_blocks(count), SAC_BLOCK, 0, stream, *w, max, count);
    else
        SAC_LAUNCH(pool<1>, sac_blocks(count), SAC_BLOCK, 0, stream, *w, max, count);
    return cudaGetLastError();
}
