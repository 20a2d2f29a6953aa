/* The vector kernels' way back, compiled for each instruction set. All is fp32. */
#include <float.h>

#include "device/cpu/vector_rows.h"

static void relu(const struct sac_op *op)
{
    int64_t count = sac_shape_count(&op->src[0].shape);
    const float *y = op->dst[0].data, *dy = op->dst_grad[0].data;
    float *dx = op->src_grad[0].data, slope = op->param.relu.slope;

    for (int64_t i = 0; i < count; i++)
        dx[i] = y[i] > 0 ? dy[i] : dy[i] * slope;
}

static void dropout(const struct sac_op *op)
{
    mask_rows(op, &op->dst_grad[0], &op->src_grad[0]);
}

static void split(const struct sac_op *op)
{
    int64_t count = sac_shape_count(&op->src[0].shape);
    float *dx = op->src_grad[0].data, sum[BLOCK];

    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = min64(BLOCK, count - at);
        memset(sum, 0, sizeof sum);
        for (int k = 0; k < op->dst_count; k++) {
            const float *dy = op->dst_grad[k].data;
            for (int64_t i = 0; dy && i < n; i++)
                sum[i] += dy[at + i];
        }
        memcpy(dx + at, sum, (size_t)n * sizeof *sum);
    }
}

static void eltwise(const struct sac_op *op)
{
    int64_t count = sac_shape_count(&op->src[0].shape);
    const float *dy = op->dst_grad[0].data;

    for (int k = 0; k < op->src_count; k++) {
        float *dx = op->src_grad[k].data;
        float coeff = op->param.eltwise.coeff ? op->param.eltwise.coeff[k] : 1;
        for (int64_t i = 0; dx && i < count; i++)
            dx[i] = dy[i] * coeff;
    }
}

/* ---- Pooling: 64 channels at a time ---- */

/* The first of the largest, tap by tap, then its gradient. */
INLINE void max_block(const float *x, float *dx, const float *dy, struct pool_at w, int64_t width,
                      int64_t channels, int64_t n)
{
    int32_t best[BLOCK], tap = 0;
    float most[BLOCK];

    for (int64_t i = 0; i < n; i++) {
        most[i] = -FLT_MAX;
        best[i] = -1;
    }
    for (int64_t iy = w.y0; iy < w.y1; iy++) {
        for (int64_t ix = w.x0; ix < w.x1; ix++, tap++) {
            const float *from = x + (iy * width + ix) * channels;
            for (int64_t i = 0; i < n; i++) {
                best[i] = from[i] > most[i] ? tap : best[i];
                most[i] = from[i] > most[i] ? from[i] : most[i];
            }
        }
    }
    tap = 0;
    for (int64_t iy = w.y0; iy < w.y1; iy++) {
        for (int64_t ix = w.x0; ix < w.x1; ix++, tap++) {
            float *to = dx + (iy * width + ix) * channels;
            for (int64_t i = 0; i < n; i++)
                to[i] += best[i] == tap ? dy[i] : 0;
        }
    }
}

INLINE void ave_block(float *dx, const float *dy, struct pool_at w, int64_t width, int64_t channels,
                      int64_t n)
{
    float share[BLOCK];

    for (int64_t i = 0; i < n; i++)
        share[i] = dy[i] / w.divisor;
    for (int64_t iy = w.y0; iy < w.y1; iy++) {
        for (int64_t ix = w.x0; ix < w.x1; ix++) {
            float *to = dx + (iy * width + ix) * channels;
            for (int64_t i = 0; i < n; i++)
                to[i] += share[i];
        }
    }
}

INLINE void pool_as(const struct sac_op *op, bool max)
{
    const int64_t *in = op->src[0].shape.dim, *out = op->dst[0].shape.dim;
    const float *dy = op->dst_grad[0].data;
    int64_t channels = in[1], picture = channels * in[2] * in[3];

    memset(op->src_grad[0].data, 0, sac_tensor_bytes(&op->src[0].shape, SAC_F32));
    for (int64_t n = 0; n < in[0]; n++) {
        const float *x = (const float *)op->src[0].data + n * picture;
        float *dx = (float *)op->src_grad[0].data + n * picture;
        for (int64_t p = 0; p < out[2] * out[3]; p++, dy += channels) {
            struct pool_at w = pool_window(op, p / out[3], p % out[3]);
            EACH_BLOCK(at, count, channels, {
                if (max)
                    max_block(x + at, dx + at, dy + at, w, in[3], channels, count);
                else
                    ave_block(dx + at, dy + at, w, in[3], channels, count);
            });
        }
    }
}

static void pool(const struct sac_op *op)
{
    if (op->param.pool.method == SAC_POOL_MAX)
        pool_as(op, true);
    else
        pool_as(op, false);
}

/* ---- LRN across channels, a position at a time: with s the scale,
 * dx = dy·s^−β − 2β·(α/n)·x · Σ dy·x·s^(−β−1) ---- */

enum { MARGIN = SAC_LRN_SIZE_MAX / 2 + LANES };

struct lrn_position {
    float padded[SAC_LRN_BACK_CHANNELS_MAX + 2 * MARGIN]; /* squares, then the products */
    float scale[SAC_LRN_BACK_CHANNELS_MAX], power[SAC_LRN_BACK_CHANNELS_MAX];
};

INLINE void lrn_position(const struct sac_op *op, struct lrn_position *p, const float *x,
                         const float *dy, float *dx, int64_t n, int taps)
{
    float each = op->param.lrn.alpha / (float)op->param.lrn.size;
    float twice = 2 * op->param.lrn.beta * each, *middle = p->padded + MARGIN;
    const float *first = middle - taps / 2;

    for (int64_t i = 0; i < n; i++)
        middle[i] = x[i] * x[i];
    for (int64_t i = 0; i < n; i++) {
        float sum = first[i];
        for (int tap = 1; tap < taps; tap++)
            sum += first[i + tap];
        p->scale[i] = p->power[i] = op->param.lrn.k + each * sum;
    }
    to_minus_beta(p->power, n, op->param.lrn.beta);
    for (int64_t i = 0; i < n; i++)
        middle[i] = dy[i] * x[i] * p->power[i] / p->scale[i];
    for (int64_t i = 0; i < n; i++) {
        float sum = first[i];
        for (int tap = 1; tap < taps; tap++)
            sum += first[i + tap];
        dx[i] = dy[i] * p->power[i] - twice * x[i] * sum;
    }
}

/* Within a channel: first what each position gives to those around it, of one picture
 * after another, then the sums of it. */

INLINE void give_around(const struct sac_op *op, const struct rows *x, const struct rows *dy,
                        const struct rows *given, int64_t row, int64_t at, int64_t n)
{
    float scale[BLOCK], power[BLOCK], a[BLOCK], b[BLOCK];

    scale_within(op, x, row, at, n, scale);
    memcpy(power, scale, sizeof power);
    to_minus_beta(power, n, op->param.lrn.beta);
    load_row(a, x, row, at, n);
    load_row(b, dy, row, at, n);
    for (int64_t i = 0; i < n; i++)
        a[i] *= b[i] * power[i] / scale[i];
    store_row(given, row, at, a, n);
}

INLINE void take_around(const struct sac_op *op, const struct rows *x, const struct rows *dy,
                        const struct rows *dx, const struct rows *given, int64_t row, int64_t at,
                        int64_t n)
{
    const int64_t *dim = op->src[0].shape.dim;
    int64_t plane = dim[2] * dim[3], size = op->param.lrn.size;
    float twice = 2 * op->param.lrn.beta * op->param.lrn.alpha / (float)(size * size);
    float power[BLOCK], sum[BLOCK], a[BLOCK], b[BLOCK];

    scale_within(op, x, row, at, n, power);
    to_minus_beta(power, n, op->param.lrn.beta);
    sum_around(given, row / plane, dim, row % plane / dim[3], row % dim[3], size / 2, at, n, false,
               sum);
    load_row(a, x, row, at, n);
    load_row(b, dy, row, at, n);
    for (int64_t i = 0; i < n; i++)
        a[i] = b[i] * power[i] - twice * a[i] * sum[i];
    store_row(dx, row, at, a, n);
}

static void lrn_within(const struct sac_op *op)
{
    struct rows x = rows_of(&op->src[0]), dy = rows_of(&op->dst_grad[0]);
    struct rows dx = rows_of(&op->src_grad[0]), given = x;

    given.type = SAC_F32;
    given.pitch = given.columns;
    given.data =
        (char *)op->workspace +
        (size_t)op->first * (size_t)(x.count / op->src[0].shape.dim[0] * x.columns) * sizeof(float);
    for (int64_t row = 0; row < x.count; row++)
        EACH_BLOCK(at, n, x.columns, give_around(op, &x, &dy, &given, row, at, n));
    for (int64_t row = 0; row < x.count; row++)
        EACH_BLOCK(at, n, x.columns, take_around(op, &x, &dy, &dx, &given, row, at, n));
}

static void lrn_across(const struct sac_op *op)
{
    struct rows rows = rows_of(&op->src[0]);
    struct lrn_position p;
    const float *x = op->src[0].data, *dy = op->dst_grad[0].data;
    float *dx = op->src_grad[0].data;

    memset(p.padded, 0, sizeof p.padded);
    for (int64_t row = 0; row < rows.count; row++) {
        int64_t at = row * rows.columns;
        if (op->param.lrn.size == 5)
            lrn_position(op, &p, x + at, dy + at, dx + at, rows.columns, 5);
        else
            lrn_position(op, &p, x + at, dy + at, dx + at, rows.columns, op->param.lrn.size);
    }
}

static void lrn(const struct sac_op *op)
{
    if (op->param.lrn.region == SAC_LRN_WITHIN_CHANNEL)
        lrn_within(op);
    else
        lrn_across(op);
}

const struct sac_cpu_vector_back SAC_VECTOR_BACK_TABLE = {
    .run =
        {
            [SAC_OP_RELU] = relu,
            [SAC_OP_DROPOUT] = dropout,
            [SAC_OP_SPLIT] = split,
            [SAC_OP_ELTWISE] = eltwise,
            [SAC_OP_POOL] = pool,
            [SAC_OP_LRN] = lrn,
        },
};
