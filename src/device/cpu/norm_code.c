/* Compiled for each instruction set, as vector_code.c is. Sums are fp32 over a block of
 * rows, then double. */
#include "device/cpu/norm.h"
#include "device/cpu/vector_rows.h"

enum { ROWS = 64, GROUPS = 4 };

/* What is left of a row behind its last whole vector: apart, for in each tile it would be as
 * long as all that takes the time. */

static __attribute__((noinline)) floats part_get(const void *from, int64_t at, int64_t n,
                                                 enum sac_type type)
{
    float out[LANES] = {0};

    for (int64_t i = 0; i < n; i++)
        out[i] = get_one(from, at + i, type);
    return get(out, 0, SAC_F32);
}

static __attribute__((noinline)) void part_put(void *to, int64_t at, int64_t n, floats values,
                                               enum sac_type type)
{
    float in[LANES];

    put(in, 0, values, SAC_F32);
    for (int64_t i = 0; i < n; i++)
        put_one(to, at + i, in[i], type);
}

INLINE floats row_get(const struct rows *r, int64_t row, int64_t at, int64_t n, enum sac_type type)
{
    if (n == LANES)
        return get(r->data, row * r->pitch + at, type);
    return part_get(r->data, row * r->pitch + at, n, type);
}

INLINE void row_put(const struct rows *r, int64_t row, int64_t at, int64_t n, floats values,
                    enum sac_type type)
{
    if (n == LANES)
        put(r->data, row * r->pitch + at, values, type);
    else
        part_put(r->data, row * r->pitch + at, n, values, type);
}

INLINE floats number_at(const float *numbers, int64_t at)
{
    return get(numbers, at, SAC_F32);
}

/* a where x > 0, else b. */
INLINE floats where_positive(floats x, floats a, floats b)
{
    words above = (words)(x > 0);

    return (floats)(((words)a & above) | ((words)b & ~above));
}

/* Runs `body` for blocks of rows and, in each, for `groups` times LANES channels at
 * `at`; the last group may have n < LANES. */
#define EACH_TILE(columns, body)                                                                   \
    for (int64_t row = first; row < end; row += ROWS) {                                            \
        const int64_t rows_end = min64(row + ROWS, end);                                           \
        int64_t at = 0;                                                                            \
        for (; at + GROUPS * LANES <= (columns); at += GROUPS * LANES) {                           \
            enum { groups = GROUPS, n = LANES };                                                   \
            body;                                                                                  \
        }                                                                                          \
        for (; at + LANES <= (columns); at += LANES) {                                             \
            enum { groups = 1, n = LANES };                                                        \
            body;                                                                                  \
        }                                                                                          \
        if (at < (columns)) {                                                                      \
            enum { groups = 1 };                                                                   \
            const int64_t n = (columns)-at;                                                        \
            body;                                                                                  \
        }                                                                                          \
    }

/* ---- Moments ---- */

/* Joins a block's with those of `before` rows (Chan, Golub and LeVeque, 1979). */
INLINE void join_moments(floats block_mean, floats block_squares, int64_t n, double before,
                         double count, double *mean, double *squares)
{
    double total = before + count;

    for (int64_t i = 0; i < n; i++) {
        double apart = before > 0 ? (double)block_mean[i] - mean[i] : 0;
        if (before == 0)
            mean[i] = block_mean[i];
        mean[i] += apart * count / total;
        squares[i] += (double)block_squares[i] + apart * apart * before * count / total;
    }
}

INLINE void moments_tile(const struct rows *x, int64_t row, int64_t rows_end, int64_t at,
                         int groups, int64_t n, double before, double *mean, double *squares,
                         enum sac_type type)
{
    floats sum[GROUPS] = {0}, square[GROUPS] = {0};
    float count = (float)(rows_end - row);

    for (int64_t r = row; r < rows_end; r++)
        for (int g = 0; g < groups; g++)
            sum[g] += row_get(x, r, at + g * LANES, n, type);
    for (int g = 0; g < groups; g++)
        sum[g] /= count;
    for (int64_t r = row; r < rows_end; r++) {
        for (int g = 0; g < groups; g++) {
            floats apart = row_get(x, r, at + g * LANES, n, type) - sum[g];
            square[g] += apart * apart;
        }
    }
    for (int g = 0; g < groups; g++)
        join_moments(sum[g], square[g], n, before, (double)count, mean + at + g * LANES,
                     squares + at + g * LANES);
}

INLINE void moments_as(const struct sac_op *op, int64_t first, int64_t end, double *mean,
                       double *squares, enum sac_type type)
{
    struct rows x = rows_of(&op->src[0]);

    memset(mean, 0, (size_t)x.columns * sizeof *mean);
    memset(squares, 0, (size_t)x.columns * sizeof *squares);
    EACH_TILE(x.columns, moments_tile(&x, row, rows_end, at, groups, n, (double)(row - first), mean,
                                      squares, type));
}

static void moments(const struct sac_op *op, int64_t first, int64_t end, double *mean,
                    double *squares)
{
    if (op->src[0].form.type == SAC_F32)
        moments_as(op, first, end, mean, squares, SAC_F32);
    else
        moments_as(op, first, end, mean, squares, SAC_BF16);
}

/* ---- Forward ---- */

INLINE void forward_tile(const struct rows *x, const struct rows *y,
                         const struct sac_norm_numbers *numbers, int64_t row, int64_t rows_end,
                         int64_t at, int groups, int64_t n, bool relu, float slope,
                         enum sac_type type)
{
    floats mean[GROUPS], scale[GROUPS], shift[GROUPS];

    for (int g = 0; g < groups; g++) {
        mean[g] = number_at(numbers->mean, at + g * LANES);
        scale[g] = number_at(numbers->scale, at + g * LANES);
        shift[g] = number_at(numbers->shift, at + g * LANES);
    }
    for (int64_t r = row; r < rows_end; r++) {
        for (int g = 0; g < groups; g++) {
            floats v = row_get(x, r, at + g * LANES, n, type);
            v = (v - mean[g]) * scale[g] + shift[g];
            if (relu)
                v = where_positive(v, v, v * slope);
            row_put(y, r, at + g * LANES, n, v, type);
        }
    }
}

INLINE void forward_as(const struct sac_op *op, const struct sac_norm_numbers *numbers,
                       int64_t first, int64_t end, bool relu, enum sac_type type)
{
    struct rows x = rows_of(&op->src[0]), y = rows_of(&op->dst[0]);
    float slope = op->epilogue.slope;

    EACH_TILE(x.columns,
              forward_tile(&x, &y, numbers, row, rows_end, at, groups, n, relu, slope, type));
}

static void forward(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                    int64_t end)
{
    bool relu = op->epilogue.relu;

    if (op->src[0].form.type == SAC_F32 && relu)
        forward_as(op, numbers, first, end, true, SAC_F32);
    else if (op->src[0].form.type == SAC_F32)
        forward_as(op, numbers, first, end, false, SAC_F32);
    else if (relu)
        forward_as(op, numbers, first, end, true, SAC_BF16);
    else
        forward_as(op, numbers, first, end, false, SAC_BF16);
}

/* ---- Backward ---- */

enum way { PLAIN, RECTIFIED, PARAMETRIC };

/* dy as it comes to the sum: behind a ReLU, whose sign is computed again as forward
 * did. `apart` is x − mean. */
INLINE floats gradient_at(enum way way, floats dy, floats apart, floats scale, floats shift,
                          float slope)
{
    if (way == RECTIFIED)
        return where_positive(apart * scale + shift, dy, dy * slope);
    return dy;
}

INLINE void sums_tile(const struct rows *x, const struct rows *dy,
                      const struct sac_norm_numbers *numbers, int64_t row, int64_t rows_end,
                      int64_t at, int groups, int64_t n, enum way way, float slope, double *sum,
                      double *along, enum sac_type type)
{
    floats sums[GROUPS] = {0}, alongs[GROUPS] = {0}, mean[GROUPS], scale[GROUPS], shift[GROUPS];

    for (int g = 0; g < groups; g++) {
        mean[g] = number_at(numbers->mean, at + g * LANES);
        scale[g] = number_at(numbers->scale, at + g * LANES);
        shift[g] = number_at(numbers->shift, at + g * LANES);
    }
    for (int64_t r = row; r < rows_end; r++) {
        for (int g = 0; g < groups; g++) {
            floats apart = row_get(x, r, at + g * LANES, n, type) - mean[g];
            floats d = row_get(dy, r, at + g * LANES, n, type);
            d = gradient_at(way, d, apart, scale[g], shift[g], slope);
            sums[g] += d;
            d *= apart;
            alongs[g] += way == PARAMETRIC ? where_positive(apart, (floats){0}, d) : d;
        }
    }
    for (int g = 0; g < groups; g++) {
        for (int64_t i = 0; i < n; i++) {
            sum[at + g * LANES + i] += (double)sums[g][i];
            along[at + g * LANES + i] += (double)alongs[g][i];
        }
    }
}

INLINE void sums_as(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                    int64_t end, double *sum, double *along, enum way way, enum sac_type type)
{
    struct rows x = rows_of(&op->src[0]), dy = rows_of(&op->dst_grad[0]);
    float slope = op->epilogue.slope;

    memset(sum, 0, (size_t)x.columns * sizeof *sum);
    memset(along, 0, (size_t)x.columns * sizeof *along);
    EACH_TILE(x.columns, sums_tile(&x, &dy, numbers, row, rows_end, at, groups, n, way, slope, sum,
                                   along, type));
}

static void sums(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                 int64_t end, double *sum, double *along)
{
    bool f32 = op->src[0].form.type == SAC_F32;

    if (op->kind == SAC_OP_PRELU && f32)
        sums_as(op, numbers, first, end, sum, along, PARAMETRIC, SAC_F32);
    else if (op->kind == SAC_OP_PRELU)
        sums_as(op, numbers, first, end, sum, along, PARAMETRIC, SAC_BF16);
    else if (op->epilogue.relu && f32)
        sums_as(op, numbers, first, end, sum, along, RECTIFIED, SAC_F32);
    else if (op->epilogue.relu)
        sums_as(op, numbers, first, end, sum, along, RECTIFIED, SAC_BF16);
    else if (f32)
        sums_as(op, numbers, first, end, sum, along, PLAIN, SAC_F32);
    else
        sums_as(op, numbers, first, end, sum, along, PLAIN, SAC_BF16);
}

INLINE void data_tile(const struct rows *x, const struct rows *dy, const struct rows *dx,
                      const struct sac_norm_numbers *numbers, int64_t row, int64_t rows_end,
                      int64_t at, int groups, int64_t n, bool relu, float slope, enum sac_type type)
{
    floats mean[GROUPS], scale[GROUPS], shift[GROUPS], level[GROUPS], along[GROUPS];

    for (int g = 0; g < groups; g++) {
        mean[g] = number_at(numbers->mean, at + g * LANES);
        scale[g] = number_at(numbers->scale, at + g * LANES);
        shift[g] = number_at(numbers->shift, at + g * LANES);
        level[g] = number_at(numbers->level, at + g * LANES);
        along[g] = number_at(numbers->along, at + g * LANES);
    }
    for (int64_t r = row; r < rows_end; r++) {
        for (int g = 0; g < groups; g++) {
            floats apart = row_get(x, r, at + g * LANES, n, type) - mean[g];
            floats d = row_get(dy, r, at + g * LANES, n, type);
            d = gradient_at(relu ? RECTIFIED : PLAIN, d, apart, scale[g], shift[g], slope);
            d = (d - level[g] - apart * along[g]) * scale[g];
            row_put(dx, r, at + g * LANES, n, d, type);
        }
    }
}

INLINE void data_as(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                    int64_t end, bool relu, enum sac_type type)
{
    struct rows x = rows_of(&op->src[0]), dy = rows_of(&op->dst_grad[0]);
    struct rows dx = rows_of(&op->src_grad[0]);
    float slope = op->epilogue.slope;

    EACH_TILE(x.columns,
              data_tile(&x, &dy, &dx, numbers, row, rows_end, at, groups, n, relu, slope, type));
}

/* What has no statistics: dx = dy · scale, where x > 0 dy for a PReLU. */

INLINE void factor_tile(const struct rows *x, const struct rows *dy, const struct rows *dx,
                        const float *factor, int64_t row, int64_t rows_end, int64_t at, int groups,
                        int64_t n, bool parametric, enum sac_type type)
{
    for (int64_t r = row; r < rows_end; r++) {
        for (int g = 0; g < groups; g++) {
            floats d = row_get(dy, r, at + g * LANES, n, type);
            floats scaled = d * number_at(factor, at + g * LANES);
            if (parametric)
                scaled = where_positive(row_get(x, r, at + g * LANES, n, type), d, scaled);
            row_put(dx, r, at + g * LANES, n, scaled, type);
        }
    }
}

INLINE void factor_as(const struct sac_op *op, const float *factor, int64_t first, int64_t end,
                      bool parametric, enum sac_type type)
{
    struct rows x = rows_of(&op->src[0]), dy = rows_of(&op->dst_grad[0]);
    struct rows dx = rows_of(&op->src_grad[0]);

    EACH_TILE(x.columns,
              factor_tile(&x, &dy, &dx, factor, row, rows_end, at, groups, n, parametric, type));
}

static void data(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                 int64_t end)
{
    bool f32 = op->src[0].form.type == SAC_F32, relu = op->epilogue.relu;

    if (op->kind == SAC_OP_PRELU && f32)
        factor_as(op, numbers->scale, first, end, true, SAC_F32);
    else if (op->kind == SAC_OP_PRELU)
        factor_as(op, numbers->scale, first, end, true, SAC_BF16);
    else if (op->kind != SAC_OP_BATCHNORM && f32)
        factor_as(op, numbers->scale, first, end, false, SAC_F32);
    else if (op->kind != SAC_OP_BATCHNORM)
        factor_as(op, numbers->scale, first, end, false, SAC_BF16);
    else if (relu && f32)
        data_as(op, numbers, first, end, true, SAC_F32);
    else if (relu)
        data_as(op, numbers, first, end, true, SAC_BF16);
    else if (f32)
        data_as(op, numbers, first, end, false, SAC_F32);
    else
        data_as(op, numbers, first, end, false, SAC_BF16);
}

const struct sac_cpu_norm_code SAC_NORM_TABLE = {
    .moments = moments,
    .forward = forward,
    .sums = sums,
    .data = data,
};
