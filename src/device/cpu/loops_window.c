/* The plain loops of what slides a window: convolutions, pooling, LRN; and the
 * inner product, a window as large as its input. */
#include "device/cpu/loops.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* The positions of an output row or column for which in = out · stride − pad +
 * tap · dilation lies in [0, size): [first, end). */
struct span {
    int64_t first, end, shift; /* in = out · stride + shift */
};

static struct span span_of(const struct sac_window *w, int way, int64_t tap, int64_t size,
                           int64_t out_size)
{
    int64_t stride = w->stride[way];
    struct span s = {.shift = tap * w->dilation[way] - w->pad[way]};

    s.first = s.shift < 0 ? (-s.shift + stride - 1) / stride : 0;
    s.end = size - s.shift > 0 ? (size - s.shift + stride - 1) / stride : 0;
    s.end = s.end < out_size ? s.end : out_size;
    return s;
}

/* The window of a convolution between an image (large) and a map (small), for
 * one pair of channels: `visit` of each filter tap. */
struct planes {
    const struct sac_window *window;
    const int64_t *image, *map; /* H, W of each */
    int64_t ky, kx;
    struct span y, x;
};

static struct planes planes_at(const struct sac_window *window, const int64_t *image,
                               const int64_t *map, int64_t ky, int64_t kx)
{
    return (struct planes){
        .window = window,
        .image = image,
        .map = map,
        .ky = ky,
        .kx = kx,
        .y = span_of(window, 0, ky, image[0], map[0]),
        .x = span_of(window, 1, kx, image[1], map[1]),
    };
}

/* map[oy][ox] += image[oy·s + …][ox·s + …] · weight */
static void add_to_map(const struct planes *p, const float *image, double *map, float weight)
{
    for (int64_t oy = p->y.first; oy < p->y.end; oy++) {
        const float *in =
            image + (oy * p->window->stride[0] + p->y.shift) * p->image[1] + p->x.shift;
        for (int64_t ox = p->x.first; ox < p->x.end; ox++)
            map[oy * p->map[1] + ox] += (double)in[ox * p->window->stride[1]] * weight;
    }
}

/* The transpose: image[…] += map[oy][ox] · weight */
static void add_to_image(const struct planes *p, double *image, const float *map, float weight)
{
    for (int64_t oy = p->y.first; oy < p->y.end; oy++) {
        double *out = image + (oy * p->window->stride[0] + p->y.shift) * p->image[1] + p->x.shift;
        for (int64_t ox = p->x.first; ox < p->x.end; ox++)
            out[ox * p->window->stride[1]] += (double)map[oy * p->map[1] + ox] * weight;
    }
}

static void start_plane(double *sums, int64_t count, float value)
{
    for (int64_t i = 0; i < count; i++)
        sums[i] = value;
}

static void store_plane(const double *sums, int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)sums[i];
}

/* weight[0]: [out, in/group, kh, kw] */
void sac_loop_conv(const struct sac_op *op, float *const *x, float *const *y, double *sums)
{
    const struct sac_window *w = &op->param.conv.window;
    const int64_t *in = op->src[0].shape.dim, *out = op->dst[0].shape.dim;
    int64_t group = op->param.conv.group, in_of = in[1] / group, out_of = out[1] / group;
    int64_t in_plane = in[2] * in[3], out_plane = out[2] * out[3];

    for (int64_t n = 0; n < out[0]; n++) {
        for (int64_t o = 0; o < out[1]; o++) {
            const float *weight = op->weight[0] + o * in_of * w->kernel[0] * w->kernel[1];
            const float *image = x[0] + (n * in[1] + o / out_of * in_of) * in_plane;
            start_plane(sums, out_plane, op->weight_count > 1 ? op->weight[1][o] : 0);
            for (int64_t c = 0; c < in_of; c++) {
                for (int64_t k = 0; k < w->kernel[0] * w->kernel[1]; k++) {
                    struct planes p =
                        planes_at(w, in + 2, out + 2, k / w->kernel[1], k % w->kernel[1]);
                    add_to_map(&p, image + c * in_plane, sums, *weight++);
                }
            }
            store_plane(sums, out_plane, y[0] + (n * out[1] + o) * out_plane);
        }
    }
}

/* weight[0]: [in, out/group, kh, kw] */
void sac_loop_deconv(const struct sac_op *op, float *const *x, float *const *y, double *sums)
{
    const struct sac_window *w = &op->param.conv.window;
    const int64_t *in = op->src[0].shape.dim, *out = op->dst[0].shape.dim;
    int64_t group = op->param.conv.group, in_of = in[1] / group, out_of = out[1] / group;
    int64_t in_plane = in[2] * in[3], out_plane = out[2] * out[3];
    int64_t taps = w->kernel[0] * w->kernel[1];

    for (int64_t n = 0; n < out[0]; n++) {
        for (int64_t o = 0; o < out[1]; o++) {
            start_plane(sums, out_plane, op->weight_count > 1 ? op->weight[1][o] : 0);
            for (int64_t c = o / out_of * in_of; c < (o / out_of + 1) * in_of; c++) {
                const float *weight = op->weight[0] + (c * out_of + o % out_of) * taps;
                for (int64_t k = 0; k < taps; k++) {
                    struct planes p =
                        planes_at(w, out + 2, in + 2, k / w->kernel[1], k % w->kernel[1]);
                    add_to_image(&p, sums, x[0] + (n * in[1] + c) * in_plane, weight[k]);
                }
            }
            store_plane(sums, out_plane, y[0] + (n * out[1] + o) * out_plane);
        }
    }
}

/* weight[0]: [out, in], or [in, out] when transposed */
void sac_loop_inner(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    const struct sac_shape *src = &op->src[0].shape;
    int axis = op->param.inner.axis;
    bool transpose = op->param.inner.transpose;
    int64_t rows = sac_shape_count_between(src, 0, axis);
    int64_t in = sac_shape_count_between(src, axis, src->rank);
    int64_t out = op->weight_shape[0].dim[transpose ? 1 : 0];
    int64_t out_step = transpose ? 1 : in, in_step = transpose ? out : 1;

    (void)scratch;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = op->weight_count > 1 ? op->weight[1][o] : 0;
            for (int64_t i = 0; i < in; i++)
                sum += (double)x[0][r * in + i] * op->weight[0][o * out_step + i * in_step];
            y[0][r * out + o] = (float)sum;
        }
    }
}

/* A pooling window along one axis: Caffe clips it to the padded input for AVE's
 * divisor, then to the input for what it reads. */
struct pool_span {
    int64_t first, end, divisor;
};

static struct pool_span pool_span_of(const struct sac_window *w, int way, int64_t out, int64_t size)
{
    int64_t start = out * w->stride[way] - w->pad[way];
    int64_t end = start + w->kernel[way];
    struct pool_span s;

    end = end < size + w->pad[way] ? end : size + w->pad[way];
    s.divisor = end - start;
    s.first = start > 0 ? start : 0;
    s.end = end < size ? end : size;
    return s;
}

static float pool_max(const float *plane, int64_t width, struct pool_span y, struct pool_span x)
{
    float most = -FLT_MAX;

    for (int64_t iy = y.first; iy < y.end; iy++)
        for (int64_t ix = x.first; ix < x.end; ix++)
            if (plane[iy * width + ix] > most)
                most = plane[iy * width + ix];
    return most;
}

static float pool_ave(const float *plane, int64_t width, struct pool_span y, struct pool_span x)
{
    double sum = 0;

    for (int64_t iy = y.first; iy < y.end; iy++)
        for (int64_t ix = x.first; ix < x.end; ix++)
            sum += plane[iy * width + ix];
    return (float)(sum / (double)(y.divisor * x.divisor));
}

void sac_loop_pool(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    const struct sac_window *w = &op->param.pool.window;
    const int64_t *in = op->src[0].shape.dim, *out = op->dst[0].shape.dim;
    bool max = op->param.pool.method == SAC_POOL_MAX;
    float *to = y[0];

    (void)scratch;
    for (int64_t plane = 0; plane < in[0] * in[1]; plane++) {
        const float *from = x[0] + plane * in[2] * in[3];
        for (int64_t oy = 0; oy < out[2]; oy++) {
            struct pool_span ys = pool_span_of(w, 0, oy, in[2]);
            for (int64_t ox = 0; ox < out[3]; ox++) {
                struct pool_span xs = pool_span_of(w, 1, ox, in[3]);
                *to++ = max ? pool_max(from, in[3], ys, xs) : pool_ave(from, in[3], ys, xs);
            }
        }
    }
}

/* x · (k + alpha/n · Σ x²)^−beta, the sum over n channels around x's own. */
static void lrn_across(const struct sac_op *op, const float *x, float *y)
{
    const int64_t *dim = op->src[0].shape.dim;
    int64_t plane = sac_shape_count_between(&op->src[0].shape, 2, op->src[0].shape.rank);
    int64_t half = op->param.lrn.size / 2;
    double each = op->param.lrn.alpha / (double)op->param.lrn.size;

    for (int64_t n = 0; n < dim[0]; n++) {
        for (int64_t c = 0; c < dim[1]; c++) {
            int64_t first = c - half > 0 ? c - half : 0;
            int64_t last = c + half < dim[1] - 1 ? c + half : dim[1] - 1;
            for (int64_t i = 0; i < plane; i++) {
                const float *at = x + n * dim[1] * plane + i;
                double sum = 0;
                for (int64_t k = first; k <= last; k++)
                    sum += (double)at[k * plane] * at[k * plane];
                y[(n * dim[1] + c) * plane + i] =
                    (float)(at[c * plane] *
                            pow(op->param.lrn.k + each * sum, -(double)op->param.lrn.beta));
            }
        }
    }
}

static double squares_around(const float *plane, int64_t height, int64_t width, int64_t y,
                             int64_t x, int64_t half)
{
    double sum = 0;

    for (int64_t iy = y - half; iy <= y + half; iy++)
        for (int64_t ix = x - half; ix <= x + half; ix++)
            if (iy >= 0 && iy < height && ix >= 0 && ix < width)
                sum += (double)plane[iy * width + ix] * plane[iy * width + ix];
    return sum;
}

/* x · (1 + alpha · average of x²)^−beta over n × n positions of x's own channel,
 * those outside counted as zeros; k is not used. */
static void lrn_within(const struct sac_op *op, const float *x, float *y)
{
    const int64_t *dim = op->src[0].shape.dim;
    int64_t height = dim[2], width = dim[3], size = op->param.lrn.size;
    double each = op->param.lrn.alpha / (double)(size * size);

    for (int64_t p = 0; p < dim[0] * dim[1]; p++, x += height * width, y += height * width) {
        for (int64_t i = 0; i < height * width; i++) {
            double sum = squares_around(x, height, width, i / width, i % width, size / 2);
            y[i] = (float)(x[i] * pow(1 + each * sum, -(double)op->param.lrn.beta));
        }
    }
}

void sac_loop_lrn(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    (void)scratch;
    if (op->param.lrn.region == SAC_LRN_ACROSS_CHANNELS)
        lrn_across(op, x[0], y[0]);
    else
        lrn_within(op, x[0], y[0]);
}
