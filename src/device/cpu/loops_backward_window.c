/* Backward of convolutions, inner products, pooling and LRN. */
#include "device/cpu/loops.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* One pair of channels of a convolution between an image (large) and a map (small). */
struct pair {
    const struct sac_window *window;
    int64_t image[2], map[2];
};

/* Where tap `tap` of map position `at` lies in the image; false: in the padding. */
static bool place_of(const struct pair *p, int way, int64_t at, int64_t tap, int64_t *ret)
{
    *ret = at * p->window->stride[way] - p->window->pad[way] + tap * p->window->dilation[way];
    return *ret >= 0 && *ret < p->image[way];
}

/* Σ over map positions of image · map for one tap: a weight's gradient. */
static double tap_product(const struct pair *p, const float *image, const float *map, int64_t tap)
{
    double sum = 0;
    int64_t iy, ix;

    for (int64_t y = 0; y < p->map[0]; y++) {
        if (!place_of(p, 0, y, tap / p->window->kernel[1], &iy))
            continue;
        for (int64_t x = 0; x < p->map[1]; x++)
            if (place_of(p, 1, x, tap % p->window->kernel[1], &ix))
                sum += (double)image[iy * p->image[1] + ix] * map[y * p->map[1] + x];
    }
    return sum;
}

static void add_to_image(const struct pair *p, double *image, const float *map, const float *weight)
{
    int64_t iy, ix;

    for (int64_t tap = 0; tap < p->window->kernel[0] * p->window->kernel[1]; tap++)
        for (int64_t y = 0; y < p->map[0]; y++)
            for (int64_t x = 0; x < p->map[1]; x++)
                if (place_of(p, 0, y, tap / p->window->kernel[1], &iy) &&
                    place_of(p, 1, x, tap % p->window->kernel[1], &ix))
                    image[iy * p->image[1] + ix] += (double)map[y * p->map[1] + x] * weight[tap];
}

static void add_to_map(const struct pair *p, const float *image, double *map, const float *weight)
{
    int64_t iy, ix;

    for (int64_t tap = 0; tap < p->window->kernel[0] * p->window->kernel[1]; tap++)
        for (int64_t y = 0; y < p->map[0]; y++)
            for (int64_t x = 0; x < p->map[1]; x++)
                if (place_of(p, 0, y, tap / p->window->kernel[1], &iy) &&
                    place_of(p, 1, x, tap % p->window->kernel[1], &ix))
                    map[y * p->map[1] + x] += (double)image[iy * p->image[1] + ix] * weight[tap];
}

/* The geometry of a convolution or deconvolution. */
struct geometry {
    const int64_t *in, *out;
    int64_t in_of, out_of, taps, in_plane, out_plane;
    struct pair pair;
};

static struct geometry geometry_of(const struct sac_op *op)
{
    const int64_t *in = op->src[0].shape.dim, *out = op->dst[0].shape.dim;
    const int64_t *image = op->kind == SAC_OP_CONV ? in : out;
    const int64_t *map = op->kind == SAC_OP_CONV ? out : in;
    const struct sac_window *w = &op->param.conv.window;

    return (struct geometry){
        .in = in,
        .out = out,
        .in_of = in[1] / op->param.conv.group,
        .out_of = out[1] / op->param.conv.group,
        .taps = w->kernel[0] * w->kernel[1],
        .in_plane = in[2] * in[3],
        .out_plane = out[2] * out[3],
        .pair = {w, {image[2], image[3]}, {map[2], map[3]}},
    };
}

/* The filter's taps between input channel c and output channel o of one group. */
static int64_t taps_at(const struct sac_op *op, const struct geometry *geo, int64_t c, int64_t o)
{
    return op->kind == SAC_OP_CONV ? (o * geo->in_of + c % geo->in_of) * geo->taps
                                   : (c * geo->out_of + o % geo->out_of) * geo->taps;
}

static void window_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    struct geometry geo = geometry_of(op);
    double *sums = g->scratch;

    for (int64_t n = 0; n < geo.in[0]; n++) {
        for (int64_t c = 0; c < geo.in[1]; c++) {
            int64_t first = c / geo.in_of * geo.out_of;
            float *dx = g->dx[0] + (n * geo.in[1] + c) * geo.in_plane;
            memset(sums, 0, (size_t)geo.in_plane * sizeof *sums);
            for (int64_t o = first; o < first + geo.out_of; o++) {
                const float *dy = g->dy[0] + (n * geo.out[1] + o) * geo.out_plane;
                const float *weight = op->weight[0] + taps_at(op, &geo, c, o);
                if (op->kind == SAC_OP_CONV)
                    add_to_image(&geo.pair, sums, dy, weight);
                else
                    add_to_map(&geo.pair, dy, sums, weight);
            }
            for (int64_t i = 0; i < geo.in_plane; i++)
                dx[i] = (float)sums[i];
        }
    }
}

static void filter_gradient(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    struct geometry geo = geometry_of(op);

    for (int64_t o = 0; o < geo.out[1]; o++) {
        int64_t first = o / geo.out_of * geo.in_of;
        for (int64_t c = first; c < first + geo.in_of; c++) {
            for (int64_t tap = 0; tap < geo.taps; tap++) {
                double sum = 0;
                for (int64_t n = 0; n < geo.in[0]; n++) {
                    const float *x = g->x[0] + (n * geo.in[1] + c) * geo.in_plane;
                    const float *dy = g->dy[0] + (n * geo.out[1] + o) * geo.out_plane;
                    sum += op->kind == SAC_OP_CONV ? tap_product(&geo.pair, x, dy, tap)
                                                   : tap_product(&geo.pair, dy, x, tap);
                }
                op->weight_grad[0][taps_at(op, &geo, c, o) + tap] += (float)sum;
            }
        }
    }
}

static void window_weights(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    struct geometry geo = geometry_of(op);

    if (op->weight_grad[0])
        filter_gradient(op, g);
    for (int64_t o = 0; op->weight_count > 1 && op->weight_grad[1] && o < geo.out[1]; o++) {
        double sum = 0;
        for (int64_t n = 0; n < geo.out[0]; n++)
            for (int64_t i = 0; i < geo.out_plane; i++)
                sum += g->dy[0][(n * geo.out[1] + o) * geo.out_plane + i];
        op->weight_grad[1][o] += (float)sum;
    }
}

void sac_loop_conv_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    window_data(op, g);
}

void sac_loop_deconv_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    window_data(op, g);
}

void sac_loop_conv_weights(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    window_weights(op, g);
}

void sac_loop_deconv_weights(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    window_weights(op, g);
}

/* ---- Inner product ---- */

struct matrix {
    int64_t rows, in, out, out_step, in_step;
};

static struct matrix matrix_of(const struct sac_op *op)
{
    const struct sac_shape *src = &op->src[0].shape;
    bool transpose = op->param.inner.transpose;
    struct matrix m;

    m.rows = sac_shape_count_between(src, 0, op->param.inner.axis);
    m.in = sac_shape_count_between(src, op->param.inner.axis, src->rank);
    m.out = op->weight_shape[0].dim[transpose ? 1 : 0];
    m.out_step = transpose ? 1 : m.in;
    m.in_step = transpose ? m.out : 1;
    return m;
}

void sac_loop_inner_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    struct matrix m = matrix_of(op);

    for (int64_t r = 0; r < m.rows; r++) {
        for (int64_t i = 0; i < m.in; i++) {
            double sum = 0;
            for (int64_t o = 0; o < m.out; o++)
                sum +=
                    (double)g->dy[0][r * m.out + o] * op->weight[0][o * m.out_step + i * m.in_step];
            g->dx[0][r * m.in + i] = (float)sum;
        }
    }
}

void sac_loop_inner_weights(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    struct matrix m = matrix_of(op);

    for (int64_t o = 0; o < m.out; o++) {
        double bias = 0;
        for (int64_t r = 0; r < m.rows; r++)
            bias += g->dy[0][r * m.out + o];
        if (op->weight_count > 1 && op->weight_grad[1])
            op->weight_grad[1][o] += (float)bias;
        for (int64_t i = 0; op->weight_grad[0] && i < m.in; i++) {
            double sum = 0;
            for (int64_t r = 0; r < m.rows; r++)
                sum += (double)g->dy[0][r * m.out + o] * g->x[0][r * m.in + i];
            op->weight_grad[0][o * m.out_step + i * m.in_step] += (float)sum;
        }
    }
}

/* ---- Pooling ---- */

struct span {
    int64_t first, end, divisor;
};

static struct span span_of(const struct sac_window *w, int way, int64_t out, int64_t size)
{
    int64_t start = out * w->stride[way] - w->pad[way], end = start + w->kernel[way];
    struct span s;

    end = end < size + w->pad[way] ? end : size + w->pad[way];
    s.divisor = end - start;
    s.first = start > 0 ? start : 0;
    s.end = end < size ? end : size;
    return s;
}

/* The first of the largest gets all, as Caffe's mask has it. */
static void give_to_largest(const float *x, float *dx, int64_t width, struct span ys,
                            struct span xs, float gradient)
{
    float most = -FLT_MAX;
    int64_t best = -1;

    for (int64_t iy = ys.first; iy < ys.end; iy++) {
        for (int64_t ix = xs.first; ix < xs.end; ix++) {
            if (x[iy * width + ix] > most) {
                best = iy * width + ix;
                most = x[best];
            }
        }
    }
    if (best >= 0)
        dx[best] += gradient;
}

static void give_to_all(float *dx, int64_t width, struct span ys, struct span xs, float gradient)
{
    for (int64_t iy = ys.first; iy < ys.end; iy++)
        for (int64_t ix = xs.first; ix < xs.end; ix++)
            dx[iy * width + ix] += gradient / (float)(ys.divisor * xs.divisor);
}

void sac_loop_pool_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    const struct sac_window *w = &op->param.pool.window;
    const int64_t *in = op->src[0].shape.dim, *out = op->dst[0].shape.dim;
    const float *dy = g->dy[0];

    memset(g->dx[0], 0, sac_tensor_bytes(&op->src[0].shape, SAC_F32));
    for (int64_t plane = 0; plane < in[0] * in[1]; plane++) {
        int64_t first = plane * in[2] * in[3];
        for (int64_t i = 0; i < out[2] * out[3]; i++, dy++) {
            struct span ys = span_of(w, 0, i / out[3], in[2]),
                        xs = span_of(w, 1, i % out[3], in[3]);
            if (op->param.pool.method == SAC_POOL_MAX)
                give_to_largest(g->x[0] + first, g->dx[0] + first, in[3], ys, xs, *dy);
            else
                give_to_all(g->dx[0] + first, in[3], ys, xs, *dy);
        }
    }
}

/* ---- LRN: with s the scale, dx = dy·s^−β − 2β·a·x · Σ dy·x·s^(−β−1) over the
 * elements in whose windows x lies; a = α/n, or α/n² ---- */

static double square(double x)
{
    return x * x;
}

static void across(const struct sac_op *op, const float *x, const float *dy, float *dx)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int64_t channels = shape->dim[1], step = sac_shape_count_between(shape, 2, shape->rank);
    int64_t half = op->param.lrn.size / 2;
    double beta = op->param.lrn.beta, a = op->param.lrn.alpha / (double)op->param.lrn.size;

    for (int64_t c = 0; c < channels; c++) {
        double own = 0, others = 0;
        for (int64_t j = c - half; j <= c + half; j++) {
            double s = op->param.lrn.k;
            if (j < 0 || j >= channels)
                continue;
            for (int64_t k = j - half; k <= j + half; k++)
                s += k >= 0 && k < channels ? a * square(x[k * step]) : 0;
            others += dy[j * step] * x[j * step] * pow(s, -beta - 1);
            if (j == c)
                own = dy[c * step] * pow(s, -beta);
        }
        dx[c * step] = (float)(own - 2 * beta * a * x[c * step] * others);
    }
}

/* The scale at a position of a plane. */
static double scale_at(const struct sac_op *op, const float *x, int64_t y, int64_t col)
{
    const int64_t *dim = op->src[0].shape.dim;
    int64_t half = op->param.lrn.size / 2;
    double sum = 0;

    for (int64_t iy = y - half; iy <= y + half; iy++)
        for (int64_t ix = col - half; ix <= col + half; ix++)
            if (iy >= 0 && iy < dim[2] && ix >= 0 && ix < dim[3])
                sum += square(x[iy * dim[3] + ix]);
    return 1 + op->param.lrn.alpha / (double)(op->param.lrn.size * op->param.lrn.size) * sum;
}

static void within(const struct sac_op *op, const float *x, const float *dy, float *dx)
{
    const int64_t *dim = op->src[0].shape.dim;
    int64_t half = op->param.lrn.size / 2, width = dim[3];
    double beta = op->param.lrn.beta;
    double a = op->param.lrn.alpha / (double)(op->param.lrn.size * op->param.lrn.size);

    for (int64_t i = 0; i < dim[2] * width; i++) {
        double others = 0;
        for (int64_t y = i / width - half; y <= i / width + half; y++)
            for (int64_t col = i % width - half; col <= i % width + half; col++)
                if (y >= 0 && y < dim[2] && col >= 0 && col < width)
                    others += dy[y * width + col] * x[y * width + col] *
                              pow(scale_at(op, x, y, col), -beta - 1);
        double own = dy[i] * pow(scale_at(op, x, i / width, i % width), -beta);
        dx[i] = (float)(own - 2 * beta * a * x[i] * others);
    }
}

void sac_loop_lrn_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int64_t plane = sac_shape_count_between(shape, 2, shape->rank), channels = shape->dim[1];
    bool by_channel = op->param.lrn.region == SAC_LRN_WITHIN_CHANNEL;

    for (int64_t i = 0; i < shape->dim[0] * (by_channel ? channels : plane); i++) {
        int64_t at = by_channel ? i * plane : i / plane * channels * plane + i % plane;
        (by_channel ? within : across)(op, g->x[0] + at, g->dy[0] + at, g->dx[0] + at);
    }
}
