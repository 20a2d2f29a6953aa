/* The way back through windows: pools, LRN and filters. Each thread gathers what
 * comes to its number, so that nothing is added from two sides. */
#include "kernels/element.h"
#include "kernels/training.h"

#include <math.h>

/* ---- Pools ---- */

struct back_span {
    int first, end, divisor;
};

SAC_DEVICE struct back_span span_of(const struct sac_kernel_window &w, int way, int out, int size)
{
    int start = out * w.stride[way] - w.pad[way], end = start + w.kernel[way];
    struct back_span s;

    end = end < size + w.pad[way] ? end : size + w.pad[way];
    s.divisor = end - start;
    s.first = start > 0 ? start : 0;
    s.end = end < size ? end : size;
    return s;
}

/* The windows that reach input position `in`: [first, end). */
SAC_DEVICE struct back_span windows_of(const struct sac_kernel_window &w, int way, int in, int out)
{
    int reach = in + w.pad[way] - w.kernel[way] + 1;
    struct back_span s;

    s.first = reach <= 0 ? 0 : (reach + w.stride[way] - 1) / w.stride[way];
    s.end = (in + w.pad[way]) / w.stride[way] + 1;
    s.end = s.end < out ? s.end : out;
    s.divisor = 1;
    return s;
}

/* Whether no earlier number of the window equals the one at (iy, ix), which is the
 * window's largest: the first of equals has the gradient. */
SAC_DEVICE bool is_first(const struct sac_kernel_window &w, int64_t picture, uint32_t c, int oy,
                         int ox, int iy, int ix, float most)
{
    struct back_span ys = span_of(w, 0, oy, w.x_height), xs = span_of(w, 1, ox, w.x_width);

    for (int y = ys.first; y <= iy; y++)
        for (int x = xs.first; x < xs.end && (y < iy || x < ix); x++)
            if (sac_load(w.x, w.x_type, (picture + (int64_t)y * w.x_width + x) * w.x_pitch + c) ==
                most)
                return false;
    return true;
}

SAC_KERNEL pool_back(struct sac_kernel_window w, bool max, const void *dy, void *dx, uint32_t count)
{
    SAC_EACH(i, count)
    {
        uint32_t c = i % w.x_channels, row = i / w.x_channels;
        int ix = row % w.x_width, iy = row / w.x_width % w.x_height;
        int n = row / w.x_width / w.x_height;
        struct back_span ys = windows_of(w, 0, iy, w.y_height),
                         xs = windows_of(w, 1, ix, w.y_width);
        int64_t picture = (int64_t)n * w.x_height * w.x_width;
        float own = max ? sac_load(w.x, w.x_type, (int64_t)row * w.x_pitch + c) : 0, sum = 0;
        for (int oy = ys.first; oy < ys.end; oy++) {
            for (int ox = xs.first; ox < xs.end; ox++) {
                int64_t out = ((int64_t)n * w.y_height + oy) * w.y_width + ox;
                if (!max) {
                    float area = (float)span_of(w, 0, oy, w.x_height).divisor *
                                 span_of(w, 1, ox, w.x_width).divisor;
                    sum += sac_load(dy, w.y_type, out * w.y_channels + c) / area;
                } else if (own == sac_load(w.y, w.y_type, out * w.y_pitch + c) &&
                           is_first(w, picture, c, oy, ox, iy, ix, own)) {
                    sum += sac_load(dy, w.y_type, out * w.y_channels + c);
                }
            }
        }
        sac_store(dx, w.x_type, i, sum);
    }
}

cudaError_t sac_kernel_pool_back(const struct sac_kernel_window *w, enum sac_pool_method method,
                                 const void *dy, void *dx, cudaStream_t stream)
{
    uint32_t count = (uint32_t)w->batch * w->x_height * w->x_width * w->x_channels;
    bool max = method == SAC_POOL_MAX;

    if (count > 0)
        SAC_LAUNCH(pool_back, sac_blocks(count), SAC_BLOCK, 0, stream, *w, max, dy, dx, count);
    return cudaGetLastError();
}

/* ---- LRN ---- */

/* A thread has up to eight channels side by side, and walks once over all whose
 * windows meet them. */
SAC_KERNEL across_back(struct sac_kernel_lrn p, const void *dy, void *dx, uint32_t count)
{
    enum { MANY = 8 };
    int half = p.size / 2;

    SAC_EACH(unit, count)
    {
        uint32_t units = (p.channels + MANY - 1) / MANY;
        int first = unit % units * MANY,
            end = first + MANY < p.channels ? first + MANY : p.channels;
        int64_t x_row = (int64_t)(unit / units) * p.x_pitch;
        int64_t row = (int64_t)(unit / units) * p.channels;
        float own[MANY] = {}, others[MANY] = {}, squares = 0;
        for (int k = first - 2 * half; k < first; k++) {
            float x = k >= 0 ? sac_load(p.x, p.type, x_row + k) : 0;
            squares += x * x;
        }
        for (int j = first - half; j < end + half; j++) {
            int in = j + half, out = j - half - 1;
            float x = in < p.channels && in >= 0 ? sac_load(p.x, p.type, x_row + in) : 0;
            squares += x * x;
            if (out >= 0 && out >= first - 2 * half) {
                float gone = sac_load(p.x, p.type, x_row + out);
                squares -= gone * gone;
            }
            if (j < 0 || j >= p.channels)
                continue;
            float s = p.k + p.alpha * (squares > 0 ? squares : 0),
                  d = sac_load(dy, p.type, row + j);
            float scaled = d * powf(s, -p.beta);
            float part = scaled * sac_load(p.x, p.type, x_row + j) / s;
            for (int c = 0; c < MANY; c++) {
                int away = first + c - j;
                others[c] += away <= half && away >= -half ? part : 0;
                own[c] = away == 0 ? scaled : own[c];
            }
        }
        for (int c = first; c < end; c++)
            sac_store(dx, p.type, row + c,
                      own[c - first] - 2 * p.beta * p.alpha * sac_load(p.x, p.type, x_row + c) *
                                           others[c - first]);
    }
}

cudaError_t sac_kernel_lrn_across_back(const struct sac_kernel_lrn *p, const void *dy, void *dx,
                                       cudaStream_t stream)
{
    uint32_t count = (uint32_t)p->batch * p->height * p->width * ((p->channels + 7) / 8);

    if (count > 0)
        SAC_LAUNCH(across_back, sac_blocks(count), SAC_BLOCK, 0, stream, *p, dy, dx, count);
    return cudaGetLastError();
}

/* work[i] = dy·s^−β, work[count + i] = dy·x·s^(−β−1). */
SAC_KERNEL within_parts(struct sac_kernel_lrn p, const void *dy, float *work, uint32_t count)
{
    SAC_EACH(unit, count)
    {
        int c = unit % p.channels, half = p.size / 2;
        int64_t row = unit / p.channels;
        int x = row % p.width, y = row / p.width % p.height;
        float sum = 0;
        for (int dy_ = -half; dy_ <= half; dy_++) {
            for (int dx_ = -half; dx_ <= half; dx_++) {
                if (y + dy_ < 0 || y + dy_ >= p.height || x + dx_ < 0 || x + dx_ >= p.width)
                    continue;
                float near = sac_load(p.x, p.type, (row + dy_ * p.width + dx_) * p.x_pitch + c);
                sum += near * near;
            }
        }
        float s = 1 + p.alpha * sum;
        float scaled = sac_load(dy, p.type, unit) * powf(s, -p.beta);
        work[unit] = scaled;
        work[count + unit] = scaled * sac_load(p.x, p.type, row * p.x_pitch + c) / s;
    }
}

SAC_KERNEL within_back(struct sac_kernel_lrn p, const float *work, void *dx, uint32_t count)
{
    SAC_EACH(unit, count)
    {
        int c = unit % p.channels, half = p.size / 2;
        int64_t row = unit / p.channels;
        int x = row % p.width, y = row / p.width % p.height;
        float others = 0;
        for (int v = -half; v <= half; v++)
            for (int h = -half; h <= half; h++)
                if (y + v >= 0 && y + v < p.height && x + h >= 0 && x + h < p.width)
                    others += work[count + (row + v * p.width + h) * p.channels + c];
        sac_store(dx, p.type, unit,
                  work[unit] -
                      2 * p.beta * p.alpha * sac_load(p.x, p.type, row * p.x_pitch + c) * others);
    }
}

cudaError_t sac_kernel_lrn_within_back(const struct sac_kernel_lrn *p, const void *dy, void *dx,
                                       float *work, cudaStream_t stream)
{
    uint32_t count = (uint32_t)p->batch * p->height * p->width * p->channels;

    if (count == 0)
        return cudaSuccess;
    SAC_LAUNCH(within_parts, sac_blocks(count), SAC_BLOCK, 0, stream, *p, dy, work, count);
    SAC_LAUNCH(within_back, sac_blocks(count), SAC_BLOCK, 0, stream, *p, work, dx, count);
    return cudaGetLastError();
}

/* ---- Filters: a thread a number. What cuDNN and cuBLAS are checked by. ---- */

SAC_KERNEL filter_back(struct sac_kernel_filter_back p, uint32_t count)
{
    const struct sac_kernel_window &w = p.window;
    uint32_t in = w.x_channels / p.group, out = w.y_channels / p.group;

    SAC_EACH(number, count)
    {
        uint32_t o = number % w.y_channels, i = number / w.y_channels % in;
        int tap = number / w.y_channels / in, ky = tap / w.kernel[1], kx = tap % w.kernel[1];
        uint32_t c = o / out * in + i;
        float sum = 0;
        for (int64_t row = 0; row < (int64_t)w.batch * w.y_height; row++) {
            int iy = (int)(row % w.y_height) * w.stride[0] - w.pad[0] + ky * w.dilation[0];
            if (iy < 0 || iy >= w.x_height)
                continue;
            int64_t x_row = (row / w.y_height * w.x_height + iy) * w.x_width;
            float part = 0; /* a row at a time: sums of sums lose less */
            for (int ox = 0; ox < w.y_width; ox++) {
                int ix = ox * w.stride[1] - w.pad[1] + kx * w.dilation[1];
                if (ix >= 0 && ix < w.x_width)
                    part += sac_load(w.x, w.x_type, (x_row + ix) * w.x_pitch + c) *
                            sac_load(w.y, w.y_type, (row * w.y_width + ox) * w.y_pitch + o);
            }
            sum += part;
        }
        p.dw[o * p.out_stride + i * p.in_stride + tap * p.tap_stride] += sum;
    }
}

cudaError_t sac_kernel_filter_back(const struct sac_kernel_filter_back *p, cudaStream_t stream)
{
    const struct sac_kernel_window *w = &p->window;
    uint32_t count =
        (uint32_t)w->y_channels * (w->x_channels / p->group) * w->kernel[0] * w->kernel[1];

    if (count > 0)
        SAC_LAUNCH(filter_back, sac_blocks(count), SAC_BLOCK, 0, stream, *p, count);
    return cudaGetLastError();
}
