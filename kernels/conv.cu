/* Convolutions that take any geometry, for what cuDNN refuses and for results
 * that must not depend on the batch; and the depthwise one, which is fast. */
#include "kernels/element.h"
#include "kernels/kernels.h"

/* Where an output position stands. */
struct place {
    uint32_t row;
    int n, y, x;
};

SAC_DEVICE struct place place_of(const struct sac_kernel_window &w, uint32_t row)
{
    struct place at;

    at.row = row;
    at.x = row % w.y_width;
    at.y = row / w.y_width % w.y_height;
    at.n = row / w.y_width / w.y_height;
    return at;
}

SAC_DEVICE int64_t input_at(const struct sac_kernel_window &w, int n, int y, int x)
{
    return (((int64_t)n * w.x_height + y) * w.x_width + x) * w.x_pitch;
}

SAC_KERNEL conv(struct sac_kernel_window w, const void *weights, int group, uint32_t count)
{
    int in_of = w.x_channels / group, out_of = w.y_channels / group;

    SAC_EACH(unit, count)
    {
        int o = unit % w.y_channels;
        struct place at = place_of(w, unit / w.y_channels);
        float sum = 0;
        for (int tap = 0; tap < w.kernel[0] * w.kernel[1]; tap++) {
            int iy = at.y * w.stride[0] - w.pad[0] + tap / w.kernel[1] * w.dilation[0];
            int ix = at.x * w.stride[1] - w.pad[1] + tap % w.kernel[1] * w.dilation[1];
            if (iy < 0 || iy >= w.x_height || ix < 0 || ix >= w.x_width)
                continue;
            int64_t from = input_at(w, at.n, iy, ix) + o / out_of * in_of;
            int64_t filter = (int64_t)tap * in_of * w.y_channels + o;
            for (int c = 0; c < in_of; c++, filter += w.y_channels)
                sum += sac_load(w.x, w.x_type, from + c) * sac_load(weights, w.x_type, filter);
        }
        sac_store(w.y, w.y_type, at.row * w.y_pitch + o, sum);
    }
}

cudaError_t sac_kernel_conv(const struct sac_kernel_window *w, const void *weights, int group,
                            cudaStream_t stream)
{
    uint32_t count = (uint32_t)w->batch * w->y_height * w->y_width * w->y_channels;

    if (count > 0)
        SAC_LAUNCH(conv, sac_blocks(count), SAC_BLOCK, 0, stream, *w, weights, group, count);
    return cudaGetLastError();
}

template <int V>
SAC_KERNEL depthwise(struct sac_kernel_window w, const void *weights, const float *bias, bool relu,
                     float slope, uint32_t count)
{
    uint32_t units = w.y_channels / V;

    SAC_EACH(unit, count)
    {
        uint32_t c = unit % units * V;
        struct place at = place_of(w, unit / units);
        sac_vector<V> sum;
        for (int k = 0; k < V; k++)
            sum.v[k] = bias ? bias[c + k] : 0;
        for (int ky = 0; ky < w.kernel[0]; ky++) {
            int iy = at.y * w.stride[0] - w.pad[0] + ky * w.dilation[0];
            if (iy < 0 || iy >= w.x_height)
                continue;
            for (int kx = 0; kx < w.kernel[1]; kx++) {
                int ix = at.x * w.stride[1] - w.pad[1] + kx * w.dilation[1];
                if (ix < 0 || ix >= w.x_width)
                    continue;
                sac_vector<V> x = sac_load_vector<V>(w.x, w.x_type, input_at(w, at.n, iy, ix) + c);
                sac_vector<V> filter = sac_load_vector<V>(
                    weights, w.x_type, (int64_t)(ky * w.kernel[1] + kx) * w.y_channels + c);
                for (int k = 0; k < V; k++)
                    sum.v[k] += x.v[k] * filter.v[k];
            }
        }
        for (int k = 0; k < V; k++)
            sum.v[k] = relu && sum.v[k] < 0 ? sum.v[k] * slope : sum.v[k];
        sac_store_vector<V>(w.y, w.y_type, at.row * w.y_pitch + c, sum);
    }
}

cudaError_t sac_kernel_depthwise(const struct sac_kernel_window *w, const void *weights,
                                 const float *bias, bool relu, float slope, cudaStream_t stream)
{
    bool eights = w->y_channels % 8 == 0 && w->x_pitch % 8 == 0 && w->y_pitch % 8 == 0 &&
                  sac_takes_eights(w->x, w->x_type) && sac_takes_eights(w->y, w->y_type) &&
                  sac_takes_eights(weights, w->x_type);
    uint32_t rows = (uint32_t)w->batch * w->y_height * w->y_width;
    uint32_t count = rows * (w->y_channels / (eights ? 8 : 1));

    if (count == 0)
        return cudaSuccess;
    if (eights)
        SAC_LAUNCH(depthwise<8>, sac_blocks(count), SAC_BLOCK, 0, stream, *w, weights, bias, relu,
                   slope, count);
    else
        SAC_LAUNCH(depthwise<1>, sac_blocks(count), SAC_BLOCK, 0, stream, *w, weights, bias, relu,
                   slope, count);
    return cudaGetLastError();
}

/* The input position that reaches `out` through the tap; −1: none does. */
SAC_DEVICE int reached_from(const struct sac_kernel_window &w, int way, int out, int tap, int size)
{
    int at = out + w.pad[way] - tap * w.dilation[way];

    if (at < 0 || at % w.stride[way] != 0)
        return -1;
    at /= w.stride[way];
    return at < size ? at : -1;
}

SAC_KERNEL deconv(struct sac_kernel_window w, const void *weights, int group, uint32_t count)
{
    int in_of = w.x_channels / group, out_of = w.y_channels / group;

    SAC_EACH(unit, count)
    {
        int o = unit % w.y_channels;
        struct place at = place_of(w, unit / w.y_channels);
        float sum = 0;
        for (int tap = 0; tap < w.kernel[0] * w.kernel[1]; tap++) {
            int iy = reached_from(w, 0, at.y, tap / w.kernel[1], w.x_height);
            int ix = reached_from(w, 1, at.x, tap % w.kernel[1], w.x_width);
            if (iy < 0 || ix < 0)
                continue;
            int first = o / out_of * in_of;
            int64_t from = input_at(w, at.n, iy, ix);
            for (int c = first; c < first + in_of; c++) {
                int64_t filter = ((int64_t)tap * w.x_channels + c) * out_of + o % out_of;
                sum += sac_load(w.x, w.x_type, from + c) * sac_load(weights, w.x_type, filter);
            }
        }
        sac_store(w.y, w.y_type, at.row * w.y_pitch + o, sum);
    }
}

cudaError_t sac_kernel_deconv(const struct sac_kernel_window *w, const void *weights, int group,
                              cudaStream_t stream)
{
    uint32_t count = (uint32_t)w->batch * w->y_height * w->y_width * w->y_channels;

    if (count > 0)
        SAC_LAUNCH(deconv, sac_blocks(count), SAC_BLOCK, 0, stream, *w, weights, group, count);
    return cudaGetLastError();
}
