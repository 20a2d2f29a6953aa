/* The vector kernels' way back, compiled for each instruction set. */
#include "device/cpu/vector_rows.h"

/* ---- Maps, of all elements in memory's order ---- */

INLINE floats rectified(floats y, floats dy, float slope)
{
    words above = (words)(y > 0);

    return (floats)(((words)dy & above) | ((words)(dy * slope) & ~above));
}

INLINE void relu_as(const struct sac_op *op, enum sac_type type)
{
    int64_t count = sac_shape_count(&op->src[0].shape), i = 0;
    const void *y = op->dst[0].data, *dy = op->dst_grad[0].data;
    void *dx = op->src_grad[0].data;
    float slope = op->param.relu.slope;

    for (; i + LANES <= count; i += LANES)
        put(dx, i, rectified(get(y, i, type), get(dy, i, type), slope), type);
    for (; i < count; i++) {
        float d = get_one(dy, i, type);
        put_one(dx, i, get_one(y, i, type) > 0 ? d : d * slope, type);
    }
}

static void relu(const struct sac_op *op)
{
    if (op->src[0].form.type == SAC_F32)
        relu_as(op, SAC_F32);
    else
        relu_as(op, SAC_BF16);
}

static void dropout(const struct sac_op *op)
{
    mask_rows(op, &op->dst_grad[0], &op->src_grad[0]);
}

INLINE void split_as(const struct sac_op *op, enum sac_type type)
{
    int64_t count = sac_shape_count(&op->src[0].shape), i = 0;
    void *dx = op->src_grad[0].data;

    for (; i + LANES <= count; i += LANES) {
        floats sum = {0};
        for (int k = 0; k < op->dst_count; k++)
            if (op->dst_grad[k].data)
                sum += get(op->dst_grad[k].data, i, type);
        put(dx, i, sum, type);
    }
    for (; i < count; i++) {
        float sum = 0;
        for (int k = 0; k < op->dst_count; k++)
            sum += op->dst_grad[k].data ? get_one(op->dst_grad[k].data, i, type) : 0;
        put_one(dx, i, sum, type);
    }
}

static void split(const struct sac_op *op)
{
    if (op->src[0].form.type == SAC_F32)
        split_as(op, SAC_F32);
    else
        split_as(op, SAC_BF16);
}

INLINE void eltwise_as(const struct sac_op *op, enum sac_type type)
{
    int64_t count = sac_shape_count(&op->src[0].shape);
    const float *coeff = op->param.eltwise.coeff;
    const void *dy = op->dst_grad[0].data;

    for (int64_t i = 0; i < count; i += LANES) {
        int64_t n = min64(LANES, count - i);
        for (int k = 0; k < op->src_count; k++) {
            float by = coeff ? coeff[k] : 1;
            void *dx = op->src_grad[k].data;
            if (!dx)
                continue;
            if (n == LANES)
                put(dx, i, get(dy, i, type) * by, type);
            for (int64_t j = i; n < LANES && j < count; j++)
                put_one(dx, j, get_one(dy, j, type) * by, type);
        }
    }
}

static void eltwise(const struct sac_op *op)
{
    if (op->src[0].form.type == SAC_F32)
        eltwise_as(op, SAC_F32);
    else
        eltwise_as(op, SAC_BF16);
}

/* ---- Pooling: each position of the source takes from the windows that it lies in ---- */

enum { TAKEN_MAX = 256 }; /* a window has fewer elements */

struct takers {
    int64_t first, end; /* windows along one axis */
};

INLINE struct takers takers_of(const struct sac_window *w, int way, int64_t at, int64_t windows)
{
    int64_t from = at + w->pad[way] - w->kernel[way] + 1, stride = w->stride[way];
    int64_t first = from > 0 ? (from + stride - 1) / stride : 0;

    return (struct takers){first, min64((at + w->pad[way]) / stride + 1, windows)};
}

/* A window that a position lies in: its row among the results, which of its elements
 * the position is (as forward counted: those within the source), and an average's share. */
struct taken {
    int64_t row;
    uint32_t tap;
    float share;
};

struct place {
    int64_t y, x, first; /* the picture's first row among the results */
    struct takers ys, xs;
    struct taken from[TAKEN_MAX];
    int count;
};

INLINE void find_windows(const struct sac_op *op, struct place *p)
{
    int64_t width = op->dst[0].shape.dim[3];

    p->count = 0;
    for (int64_t oy = p->ys.first; oy < p->ys.end; oy++) {
        for (int64_t ox = p->xs.first; ox < p->xs.end; ox++) {
            struct pool_at w = pool_window(op, oy, ox);
            p->from[p->count++] = (struct taken){
                p->first + oy * width + ox,
                (uint32_t)((p->y - w.y0) * (w.x1 - w.x0) + p->x - w.x0),
                1 / w.divisor,
            };
        }
    }
}

/* What the windows give: of the largest, to its first only; of the average, a share. */
INLINE void take_groups(const struct sac_op *op, const struct rows *dy, const struct rows *dx,
                        const struct place *p, int64_t row, int64_t at, int groups, bool max,
                        enum sac_type type)
{
    const uint8_t *best = op->saved;
    floats sum[4];
    bytes which;

    for (int g = 0; g < groups; g++)
        sum[g] = (floats){0};
    for (int i = 0; i < p->count; i++) {
        const struct taken *from = &p->from[i];
        for (int g = 0; g < groups; g++) {
            floats d = get(dy->data, from->row * dy->pitch + at + g * LANES, type);
            if (!max) {
                sum[g] += d * from->share;
                continue;
            }
            memcpy(&which, best + from->row * dy->columns + at + g * LANES, sizeof which);
            words is_it = (words)(words_of_bytes(which) == from->tap);
            sum[g] += (floats)((words)d & is_it);
        }
    }
    for (int g = 0; g < groups; g++)
        put(dx->data, row * dx->pitch + at + g * LANES, sum[g], type);
}

INLINE void take_one(const struct sac_op *op, const struct rows *dy, const struct rows *dx,
                     const struct place *p, int64_t row, int64_t at, bool max, enum sac_type type)
{
    const uint8_t *best = op->saved;
    float sum = 0;

    for (int i = 0; i < p->count; i++) {
        const struct taken *from = &p->from[i];
        float d = get_one(dy->data, from->row * dy->pitch + at, type);
        if (!max)
            sum += d * from->share;
        else
            sum += best[from->row * dy->columns + at] == from->tap ? d : 0;
    }
    put_one(dx->data, row * dx->pitch + at, sum, type);
}

INLINE void take(const struct sac_op *op, const struct rows *dy, const struct rows *dx,
                 const struct place *p, int64_t row, bool max, enum sac_type type)
{
    int64_t at = 0;

    for (; at + 4 * LANES <= dx->columns; at += 4 * LANES)
        take_groups(op, dy, dx, p, row, at, 4, max, type);
    if (at + 2 * LANES <= dx->columns) {
        take_groups(op, dy, dx, p, row, at, 2, max, type);
        at += 2 * LANES;
    }
    for (; at + LANES <= dx->columns; at += LANES)
        take_groups(op, dy, dx, p, row, at, 1, max, type);
    for (; at < dx->columns; at++)
        take_one(op, dy, dx, p, row, at, max, type);
}

INLINE void pool_as(const struct sac_op *op, bool max, enum sac_type type)
{
    const int64_t *in = op->src[0].shape.dim, *out = op->dst[0].shape.dim;
    const struct sac_window *w = &op->param.pool.window;
    struct rows dy = rows_of(&op->dst_grad[0]), dx = rows_of(&op->src_grad[0]);
    struct place p;
    int64_t row = 0;

    for (int64_t n = 0; n < in[0]; n++) {
        p.first = n * out[2] * out[3];
        for (p.y = 0; p.y < in[2]; p.y++) {
            p.ys = takers_of(w, 0, p.y, out[2]);
            for (p.x = 0; p.x < in[3]; p.x++, row++) {
                p.xs = takers_of(w, 1, p.x, out[3]);
                find_windows(op, &p);
                take(op, &dy, &dx, &p, row, max, type);
            }
        }
    }
}

/* op->saved of some pictures begins with theirs. */
static void pool_back(const struct sac_op *op)
{
    bool max = op->param.pool.method == SAC_POOL_MAX;

    if (max && op->src[0].form.type == SAC_F32)
        pool_as(op, true, SAC_F32);
    else if (max)
        pool_as(op, true, SAC_BF16);
    else if (op->src[0].form.type == SAC_F32)
        pool_as(op, false, SAC_F32);
    else
        pool_as(op, false, SAC_BF16);
}

/* ---- LRN across channels, a position at a time: with s the scale,
 * dx = dy·s^−β − 2β·(α/n)·x · Σ dy·x·s^(−β−1) ---- */

enum { MARGIN = SAC_LRN_SIZE_MAX / 2 + LANES };

struct lrn_position {
    float padded[SAC_LRN_BACK_CHANNELS_MAX + 2 * MARGIN]; /* squares, then the products */
    float scale[SAC_LRN_BACK_CHANNELS_MAX], power[SAC_LRN_BACK_CHANNELS_MAX];
    float x[SAC_LRN_BACK_CHANNELS_MAX], dy[SAC_LRN_BACK_CHANNELS_MAX];
};

/* The gradient takes dy's place. */
INLINE void lrn_position(const struct sac_op *op, struct lrn_position *p, int64_t n, int taps)
{
    float *x = p->x, *dy = p->dy;
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
        dy[i] = dy[i] * p->power[i] - twice * x[i] * sum;
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
    struct rows x = rows_of(&op->src[0]), dy = rows_of(&op->dst_grad[0]);
    struct rows dx = rows_of(&op->src_grad[0]);
    struct lrn_position p;

    memset(p.padded, 0, sizeof p.padded);
    for (int64_t row = 0; row < x.count; row++) {
        load_row(p.x, &x, row, 0, x.columns);
        load_row(p.dy, &dy, row, 0, x.columns);
        if (op->param.lrn.size == 5)
            lrn_position(op, &p, x.columns, 5);
        else
            lrn_position(op, &p, x.columns, op->param.lrn.size);
        store_row(&dx, row, 0, p.dy, x.columns);
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
            [SAC_OP_POOL] = pool_back,
            [SAC_OP_LRN] = lrn,
        },
};
