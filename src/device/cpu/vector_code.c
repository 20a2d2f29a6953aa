/* Compiled for each instruction set with SAC_VECTOR_TABLE and SAC_VECTOR_NAME
 * set. Loops over blocks of a fixed length are what the compiler turns into
 * vectors; lengths known at compile time get no tails. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "device/cpu/norm.h"
#include "device/cpu/peak.h"
#include "device/cpu/stem.h"
#include "device/cpu/vector_rows.h"
#include "device/cpu/winograd.h"

/* Pooling. */

/* `groups` times 16 channels: sums or largest stay in registers over all taps. */
INLINE void pool_groups(const struct rows *in, const struct rows *out, struct pool_at w,
                        int64_t base, int64_t width, int64_t row, int64_t at, int groups, bool max,
                        enum sac_type type, enum sac_type out_type, float by)
{
    bool scales = type == SAC_U8 || type == SAC_S8 || out_type == SAC_U8 || out_type == SAC_S8;
    floats acc[4];

    for (int g = 0; g < groups; g++)
        acc[g] = (floats){0} + (max ? -FLT_MAX : 0);
    for (int64_t iy = w.y0; iy < w.y1; iy++) {
        for (int64_t ix = w.x0; ix < w.x1; ix++) {
            int64_t from = (base + iy * width + ix) * in->pitch + at;
            for (int g = 0; g < groups; g++) {
                floats x = get(in->data, from + g * LANES, type);
                acc[g] = max ? larger(x, acc[g]) : acc[g] + x;
            }
        }
    }
    for (int g = 0; g < groups; g++) {
        floats y = max ? acc[g] : acc[g] / w.divisor;
        put(out->data, row * out->pitch + at + g * LANES, scales ? y * by : y, out_type);
    }
}

INLINE void pool_one(const struct rows *in, const struct rows *out, struct pool_at w, int64_t base,
                     int64_t width, int64_t row, int64_t at, bool max, enum sac_type type,
                     enum sac_type out_type, float by)
{
    bool scales = type == SAC_U8 || type == SAC_S8 || out_type == SAC_U8 || out_type == SAC_S8;
    float acc = max ? -FLT_MAX : 0;

    for (int64_t iy = w.y0; iy < w.y1; iy++) {
        for (int64_t ix = w.x0; ix < w.x1; ix++) {
            float x = get_one(in->data, (base + iy * width + ix) * in->pitch + at, type);
            acc = max ? (x > acc ? x : acc) : acc + x;
        }
    }
    float y = max ? acc : acc / w.divisor;
    put_one(out->data, row * out->pitch + at, scales ? y * by : y, out_type);
}

/* What one of a tensor's 8 bits is worth; of floats, 1. */
INLINE float step_of(const struct sac_tensor *t)
{
    return t->form.scale != 0 ? t->form.scale : 1;
}

INLINE void pool_as(const struct sac_op *op, bool max, enum sac_type type, enum sac_type out_type)
{
    const int64_t *in_dim = op->src[0].shape.dim, *out_dim = op->dst[0].shape.dim;
    float by = step_of(&op->src[0]) / step_of(&op->dst[0]);
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);
    int64_t row = 0;

    for (int64_t n = 0; n < out_dim[0]; n++) {
        for (int64_t p = 0; p < out_dim[2] * out_dim[3]; p++, row++) {
            struct pool_at w = pool_window(op, p / out_dim[3], p % out_dim[3]);
            int64_t base = n * in_dim[2] * in_dim[3], at = 0, width = in_dim[3];
            for (; at + 4 * LANES <= in.columns; at += 4 * LANES)
                pool_groups(&in, &out, w, base, width, row, at, 4, max, type, out_type, by);
            for (; at + 2 * LANES <= in.columns; at += 2 * LANES)
                pool_groups(&in, &out, w, base, width, row, at, 2, max, type, out_type, by);
            for (; at + LANES <= in.columns; at += LANES)
                pool_groups(&in, &out, w, base, width, row, at, 1, max, type, out_type, by);
            for (; at < in.columns; at++)
                pool_one(&in, &out, w, base, width, row, at, max, type, out_type, by);
        }
    }
}

/* The largest: first of the rows that a run of windows has, along memory and so read ahead
 * by the core, then of what stands side by side in that. */

enum { MAX_RUN = 32 << 10 }; /* bytes, which stay in the first cache */

/* bf16 numbers are compared without making floats of them: with the lower bits of negative
 * ones inverted, they order as whole numbers do. (What is no number counts as above all
 * others, or by its sign below: a net that has such is lost anyway.) */

typedef int16_t keys __attribute__((vector_size(64)));

INLINE keys key_of(keys x)
{
    return x ^ ((x >> 15) & 0x7fff); /* its own inverse */
}

INLINE int16_t key_of_one(int16_t x)
{
    return (int16_t)(x ^ ((x >> 15) & 0x7fff));
}

INLINE keys larger_key(keys a, keys b)
{
#ifdef __AVX512F__
    return (keys)_mm512_max_epi16((__m512i)a, (__m512i)b);
#else
    keys above = a > b;

    return (a & above) | (b & ~above);
#endif
}

/* As max_floats, of numbers that become keys (`second`: of keys that become numbers). */
INLINE void max_keys(const int16_t *from, int64_t step, int64_t terms, int16_t *to, int64_t count,
                     bool second)
{
    const int16_t lowest = key_of_one((int16_t)0xff7f);
    int64_t i = 0;

    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        keys most = (keys){0} + lowest, x;
        for (int64_t r = 0; r < terms; r++) {
            memcpy(&x, from + r * step + i, sizeof x);
            most = larger_key(second ? x : key_of(x), most);
        }
        most = second ? key_of(most) : most;
        memcpy(to + i, &most, sizeof most);
    }
    for (; i < count; i++) {
        int16_t most = lowest;
        for (int64_t r = 0; r < terms; r++) {
            int16_t x = from[r * step + i], key = second ? x : key_of_one(x);
            most = key > most ? key : most;
        }
        to[i] = second ? key_of_one(most) : most;
    }
}

/* to[i] = the largest of from[i + r · step], r in [0, terms): of rows, or side by side. */
INLINE void max_floats(const float *from, int64_t step, int64_t terms, float *to, int64_t count)
{
    int64_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        floats most = (floats){0} - FLT_MAX;
        for (int64_t r = 0; r < terms; r++)
            most = larger(get(from + r * step, i, SAC_F32), most);
        put(to, i, most, SAC_F32);
    }
    for (; i < count; i++) {
        float most = -FLT_MAX;
        for (int64_t r = 0; r < terms; r++)
            most = from[r * step + i] > most ? from[r * step + i] : most;
        to[i] = most;
    }
}

/* Windows of 3 are what nets have: the loop over its terms unrolls. */
INLINE void max_of(const void *from, int64_t step, int64_t terms, void *to, int64_t count,
                   enum sac_type type, bool second)
{
    if (type == SAC_BF16 && terms == 3)
        max_keys(from, step, 3, to, count, second);
    else if (type == SAC_BF16)
        max_keys(from, step, terms, to, count, second);
    else if (terms == 3)
        max_floats(from, step, 3, to, count);
    else
        max_floats(from, step, terms, to, count);
}

/* Results first … end − 1 of row oy of picture n. */
INLINE void max_run(const struct sac_op *op, const struct rows *in, const struct rows *out,
                    int64_t n, int64_t oy, int64_t first, int64_t end, enum sac_type type)
{
    const int64_t *in_dim = op->src[0].shape.dim, *out_dim = op->dst[0].shape.dim;
    int64_t size = type == SAC_F32 ? 4 : 2, channels = in->columns;
    struct pool_at w = pool_window(op, oy, first), last = pool_window(op, oy, end - 1);
    const char *from = in->data + ((n * in_dim[2] + w.y0) * in_dim[3] + w.x0) * channels * size;
    union {
        float floats[MAX_RUN / 4];
        int16_t keys[MAX_RUN / 2];
        char bytes[MAX_RUN];
    } run;

    max_of(from, in_dim[3] * channels, w.y1 - w.y0, &run, (last.x1 - w.x0) * channels, type, false);
    for (int64_t ox = first; ox < end; ox++) {
        struct pool_at at = pool_window(op, oy, ox);
        int64_t row = (n * out_dim[2] + oy) * out_dim[3] + ox;
        max_of(run.bytes + (at.x0 - w.x0) * channels * size, channels, at.x1 - at.x0,
               out->data + row * out->pitch * size, channels, type, true);
    }
}

/* How many windows' columns are a run; 0: not even one. */
INLINE int64_t windows_a_run(const struct sac_op *op, int64_t channels, enum sac_type type)
{
    const struct sac_window *w = &op->param.pool.window;
    int64_t columns = channels > 0 ? MAX_RUN / (type == SAC_F32 ? 4 : 2) / channels : 0;

    return columns < w->kernel[1] ? 0 : (columns - w->kernel[1]) / w->stride[1] + 1;
}

/* False: not by runs. */
INLINE bool max_by_runs(const struct sac_op *op, enum sac_type type)
{
    const int64_t *out_dim = op->dst[0].shape.dim;
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);
    int64_t run = windows_a_run(op, in.columns, type);

    if (run == 0 || (in.pitch != in.columns && in.count > 1))
        return false;
    for (int64_t n = 0; n < out_dim[0]; n++)
        for (int64_t oy = 0; oy < out_dim[2]; oy++)
            for (int64_t ox = 0; ox < out_dim[3]; ox += run)
                max_run(op, &in, &out, n, oy, ox, min64(ox + run, out_dim[3]), type);
    return true;
}

/* Training: which tap is the first of the largest, beside it; 255: none is a number. */

INLINE void pool_first(const struct rows *in, const struct rows *out, uint8_t *first,
                       struct pool_at w, int64_t base, int64_t width, int64_t row, int64_t at,
                       int groups, enum sac_type type)
{
    floats most[4];
    words best[4], tap = {0};

    for (int g = 0; g < groups; g++) {
        most[g] = (floats){0} - FLT_MAX;
        best[g] = (words){0} + 255;
    }
    for (int64_t iy = w.y0; iy < w.y1; iy++) {
        for (int64_t ix = w.x0; ix < w.x1; ix++, tap += 1) {
            int64_t from = (base + iy * width + ix) * in->pitch + at;
            for (int g = 0; g < groups; g++) {
                floats x = get(in->data, from + g * LANES, type);
                words above = (words)(x > most[g]);
                most[g] = (floats)(((words)x & above) | ((words)most[g] & ~above));
                best[g] = (tap & above) | (best[g] & ~above);
            }
        }
    }
    for (int g = 0; g < groups; g++) {
        bytes small = bytes_of_words(best[g]);
        put(out->data, row * out->pitch + at + g * LANES, most[g], type);
        memcpy(first + row * in->columns + at + g * LANES, &small, sizeof small);
    }
}

INLINE void pool_first_one(const struct rows *in, const struct rows *out, uint8_t *first,
                           struct pool_at w, int64_t base, int64_t width, int64_t row, int64_t at,
                           enum sac_type type)
{
    float most = -FLT_MAX;
    uint8_t best = 255, tap = 0;

    for (int64_t iy = w.y0; iy < w.y1; iy++) {
        for (int64_t ix = w.x0; ix < w.x1; ix++, tap++) {
            float x = get_one(in->data, (base + iy * width + ix) * in->pitch + at, type);
            best = x > most ? tap : best;
            most = x > most ? x : most;
        }
    }
    put_one(out->data, row * out->pitch + at, most, type);
    first[row * in->columns + at] = best;
}

INLINE void pool_firsts(const struct sac_op *op, enum sac_type type)
{
    const int64_t *in_dim = op->src[0].shape.dim, *out_dim = op->dst[0].shape.dim;
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);
    int64_t row = 0;

    for (int64_t n = 0; n < out_dim[0]; n++) {
        for (int64_t p = 0; p < out_dim[2] * out_dim[3]; p++, row++) {
            struct pool_at w = pool_window(op, p / out_dim[3], p % out_dim[3]);
            int64_t base = n * in_dim[2] * in_dim[3], at = 0;
            for (; at + 2 * LANES <= in.columns; at += 2 * LANES)
                pool_first(&in, &out, op->saved, w, base, in_dim[3], row, at, 2, type);
            for (; at + LANES <= in.columns; at += LANES)
                pool_first(&in, &out, op->saved, w, base, in_dim[3], row, at, 1, type);
            for (; at < in.columns; at++)
                pool_first_one(&in, &out, op->saved, w, base, in_dim[3], row, at, type);
        }
    }
}

/* The largest of bytes in one scale, 64 at a time. */

typedef uint8_t ubytes __attribute__((vector_size(64)));

INLINE void max_bytes(const struct rows *in, const struct rows *out, struct pool_at w, int64_t base,
                      int64_t width, int64_t row, int64_t at, bool sign)
{
    const char *from = in->data + at;
    uint8_t flip = sign ? 0x80 : 0; /* signed bytes order as these do */
    ubytes most = {0}, x;

    for (int64_t iy = w.y0; iy < w.y1; iy++) {
        for (int64_t ix = w.x0; ix < w.x1; ix++) {
            memcpy(&x, from + (base + iy * width + ix) * in->pitch, sizeof x);
            x ^= flip;
            ubytes above = (ubytes)(x > most);
            most = (x & above) | (most & ~above);
        }
    }
    most ^= flip;
    memcpy(out->data + row * out->pitch + at, &most, sizeof most);
}

INLINE void pool_max_bytes(const struct sac_op *op, enum sac_type type)
{
    const int64_t *in_dim = op->src[0].shape.dim, *out_dim = op->dst[0].shape.dim;
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);
    int64_t row = 0, width = in_dim[3];

    for (int64_t n = 0; n < out_dim[0]; n++) {
        for (int64_t p = 0; p < out_dim[2] * out_dim[3]; p++, row++) {
            struct pool_at w = pool_window(op, p / out_dim[3], p % out_dim[3]);
            int64_t base = n * in_dim[2] * in_dim[3], at = 0;
            for (; at + 64 <= in.columns; at += 64)
                max_bytes(&in, &out, w, base, width, row, at, type == SAC_S8);
            for (; at + LANES <= in.columns; at += LANES)
                pool_groups(&in, &out, w, base, width, row, at, 1, true, type, type, 1);
            for (; at < in.columns; at++)
                pool_one(&in, &out, w, base, width, row, at, true, type, type, 1);
        }
    }
}

INLINE void pool_to(const struct sac_op *op, bool max, enum sac_type type)
{
    enum sac_type to = op->dst[0].form.type;

    if (to == SAC_U8)
        pool_as(op, max, type, SAC_U8);
    else if (to == SAC_S8)
        pool_as(op, max, type, SAC_S8);
    else if (to == SAC_BF16)
        pool_as(op, max, type, SAC_BF16);
    else
        pool_as(op, max, type, SAC_F32);
}

static void pool_eight(const struct sac_op *op)
{
    const struct sac_form *from = &op->src[0].form, *to = &op->dst[0].form;
    bool max = op->param.pool.method == SAC_POOL_MAX;

    if (max && from->type == to->type && from->scale == to->scale) {
        if (from->type == SAC_U8)
            pool_max_bytes(op, SAC_U8);
        else
            pool_max_bytes(op, SAC_S8);
    } else if (from->type == SAC_U8) {
        pool_to(op, max, SAC_U8);
    } else if (from->type == SAC_S8) {
        pool_to(op, max, SAC_S8);
    } else if (from->type == SAC_BF16) {
        pool_to(op, max, SAC_BF16);
    } else {
        pool_to(op, max, SAC_F32);
    }
}

INLINE void pool_by(const struct sac_op *op, bool max)
{
    if (op->src[0].form.type == SAC_F32)
        pool_as(op, max, SAC_F32, SAC_F32);
    else if (op->dst[0].form.type == SAC_F32)
        pool_as(op, max, SAC_BF16, SAC_F32);
    else
        pool_as(op, max, SAC_BF16, SAC_BF16);
}

static void pool_max(const struct sac_op *op)
{
    enum sac_type type = op->src[0].form.type;
    bool same = op->dst[0].form.type == type, done = false;

    if (same && type == SAC_F32)
        done = max_by_runs(op, SAC_F32);
    else if (same && type == SAC_BF16)
        done = max_by_runs(op, SAC_BF16);
    if (!done)
        pool_by(op, true);
}

static void pool(const struct sac_op *op)
{
    if (sac_type_is_eight(op->src[0].form.type) || sac_type_is_eight(op->dst[0].form.type))
        pool_eight(op);
    else if (op->saved && op->src[0].form.type == SAC_F32)
        pool_firsts(op, SAC_F32);
    else if (op->saved)
        pool_firsts(op, SAC_BF16);
    else if (op->param.pool.method == SAC_POOL_MAX)
        pool_max(op);
    else
        pool_by(op, false);
}

/* LRN across channels: squares with a margin on both sides, summed by taps. */

/* As much of a row at a time as fits the stack: squares are written well before
 * their sums read them across the borders of vectors. */
enum { LRN_BLOCK = 1024, LRN_HALF_MAX = SAC_LRN_SIZE_MAX / 2 };

struct lrn_row {
    float x[LRN_BLOCK], sum[LRN_BLOCK];
    float squares[LRN_BLOCK + 2 * LRN_HALF_MAX + 2 * LANES];
};

/* Squares of channels at − half … at + n + half, zero beyond the ends. */
INLINE void squares_of(struct lrn_row *r, const struct rows *in, int64_t row, int64_t at, int64_t n,
                       int64_t half)
{
    int64_t before = min64(half, at), after = min64(half, in->columns - at - n);
    float edge[LRN_HALF_MAX];
    float *squares = r->squares;

    load_row(r->x, in, row, at, n);
    for (int64_t i = 0; i < half; i++)
        squares[i] = squares[half + n + i] = 0;
    for (int64_t i = 0; i < n; i++)
        squares[half + i] = r->x[i] * r->x[i];
    load_row(edge, in, row, at - before, before);
    for (int64_t i = 0; i < before; i++)
        squares[half - before + i] = edge[i] * edge[i];
    load_row(edge, in, row, at + n, after);
    for (int64_t i = 0; i < after; i++)
        squares[half + n + i] = edge[i] * edge[i];
}

INLINE void lrn_block(const struct sac_op *op, struct lrn_row *r, int64_t n, int taps)
{
    float each = op->param.lrn.alpha / (float)op->param.lrn.size, k = op->param.lrn.k;

    for (int64_t i = 0; i < n; i++) {
        float sum = r->squares[i];
        for (int tap = 1; tap < taps; tap++)
            sum += r->squares[i + tap];
        r->sum[i] = k + each * sum;
    }
    to_minus_beta(r->sum, n, op->param.lrn.beta);
    for (int64_t i = 0; i < n; i++)
        r->x[i] *= r->sum[i];
}

static void lrn_within(const struct sac_op *op)
{
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);
    float x[BLOCK], scale[BLOCK];

    for (int64_t row = 0; row < in.count; row++) {
        EACH_BLOCK(at, n, in.columns, {
            scale_within(op, &in, row, at, n, scale);
            to_minus_beta(scale, n, op->param.lrn.beta);
            load_row(x, &in, row, at, n);
            for (int64_t i = 0; i < n; i++)
                x[i] *= scale[i];
            store_row(&out, row, at, x, n);
        });
    }
}

#if defined(__AVX512F__)
/* Five taps and the usual power, in registers: squares that were just stored would be
 * read across the borders of vectors, for which the core waits. The same numbers. */

/* Elements `by` … of `low`, and `high` behind it. */
#define SHIFTED(low, high, by)                                                                     \
    __builtin_shufflevector(low, high, (by), (by) + 1, (by) + 2, (by) + 3, (by) + 4, (by) + 5,     \
                            (by) + 6, (by) + 7, (by) + 8, (by) + 9, (by) + 10, (by) + 11,          \
                            (by) + 12, (by) + 13, (by) + 14, (by) + 15)

INLINE floats vector_to_minus_three_quarters(floats x)
{
    floats y = (floats)(0x6f14e440u - ((words)x >> 2) * 3);

    for (int i = 0; i < 3; i++) {
        floats t = x * y;
        y *= 1.25f - .25f * (t * t) * (t * y);
    }
    return y;
}

INLINE void lrn_five_row(const struct sac_op *op, const char *from, char *to, int64_t columns,
                         enum sac_type in, enum sac_type out)
{
    float each = op->param.lrn.alpha / (float)op->param.lrn.size, k = op->param.lrn.k;
    floats x = get(from, 0, in), before = {0}, now = x * x;

    for (int64_t at = 0; at < columns; at += LANES) {
        bool more = at + LANES < columns;
        floats next_x = more ? get(from, at + LANES, in) : (floats){0};
        floats next = next_x * next_x;
        floats sum = SHIFTED(before, now, 14) + SHIFTED(before, now, 15) + now;
        sum = sum + SHIFTED(now, next, 1) + SHIFTED(now, next, 2);
        put(to, at, x * vector_to_minus_three_quarters(k + each * sum), out);
        before = now;
        now = next;
        x = next_x;
    }
}

INLINE void lrn_five_rows(const struct sac_op *op, enum sac_type type)
{
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);
    int64_t size = (int64_t)sac_type_bytes(type);

    for (int64_t row = 0; row < in.count; row++)
        lrn_five_row(op, in.data + row * in.pitch * size, out.data + row * out.pitch * size,
                     in.columns, type, type);
}

static bool lrn_five(const struct sac_op *op)
{
    enum sac_type in = op->src[0].form.type, out = op->dst[0].form.type;

    if (op->param.lrn.size != 5 || op->param.lrn.beta != .75f || in != out ||
        rows_of(&op->src[0]).columns % LANES != 0)
        return false;
    if (in == SAC_F32)
        lrn_five_rows(op, SAC_F32);
    else
        lrn_five_rows(op, SAC_BF16);
    return true;
}
#else
static bool lrn_five(const struct sac_op *op)
{
    (void)op;
    return false;
}
#endif

static void lrn_across(const struct sac_op *op)
{
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);
    int64_t half = op->param.lrn.size / 2;
    struct lrn_row r;

    for (int64_t row = 0; row < in.count; row++) {
        for (int64_t at = 0; at < in.columns; at += LRN_BLOCK) {
            int64_t n = min64(LRN_BLOCK, in.columns - at);
            squares_of(&r, &in, row, at, n, half);
            if (half == 2)
                lrn_block(op, &r, n, 5);
            else
                lrn_block(op, &r, n, (int)(2 * half + 1));
            store_row(&out, row, at, r.x, n);
        }
    }
}

static void lrn(const struct sac_op *op)
{
    if (op->param.lrn.region == SAC_LRN_WITHIN_CHANNEL)
        lrn_within(op);
    else if (!lrn_five(op))
        lrn_across(op);
}

/* Maps over rows, with numbers for each channel. */

enum map { MAP_RELU, MAP_PRELU, MAP_AFFINE, MAP_SCALE, MAP_BIAS };

INLINE void map_block(enum map what, float *x, int64_t n, const float *a, const float *b,
                      float slope)
{
    for (int64_t i = 0; i < n; i++) {
        if (what == MAP_RELU)
            x[i] = x[i] < 0 ? x[i] * slope : x[i];
        else if (what == MAP_PRELU)
            x[i] = x[i] < 0 ? x[i] * a[i] : x[i];
        else if (what == MAP_AFFINE)
            x[i] = x[i] * a[i] + b[i];
        else if (what == MAP_SCALE)
            x[i] = x[i] * a[i];
        else
            x[i] = x[i] + a[i];
    }
}

INLINE void map_rows(const struct sac_op *op, enum map what, const float *a, const float *b)
{
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);
    float slope = what == MAP_RELU ? op->param.relu.slope : 0;
    float x[BLOCK];

    for (int64_t row = 0; row < in.count; row++) {
        EACH_BLOCK(at, n, in.columns, {
            load_row(x, &in, row, at, n);
            map_block(what, x, n, a ? a + at : NULL, b ? b + at : NULL, slope);
            if (op->epilogue.relu)
                rectify(x, n, op->epilogue.slope);
            store_row(&out, row, at, x, n);
        });
    }
}

static void relu(const struct sac_op *op)
{
    map_rows(op, MAP_RELU, NULL, NULL);
}

static void prelu(const struct sac_op *op)
{
    map_rows(op, MAP_PRELU, op->weight[0], NULL);
}

static void affine(const struct sac_op *op)
{
    map_rows(op, MAP_AFFINE, op->weight[0], op->weight[1]);
}

static void scale(const struct sac_op *op)
{
    if (op->param.scale.bias)
        map_rows(op, MAP_AFFINE, op->weight[0], op->weight[1]);
    else
        map_rows(op, MAP_SCALE, op->weight[0], NULL);
}

static void bias(const struct sac_op *op)
{
    map_rows(op, MAP_BIAS, op->weight[0], NULL);
}

INLINE void join(enum sac_eltwise_method method, float *acc, const float *x, int64_t n, float by)
{
    for (int64_t i = 0; i < n; i++) {
        if (method == SAC_ELTWISE_SUM)
            acc[i] += x[i] * by;
        else if (method == SAC_ELTWISE_PROD)
            acc[i] *= x[i];
        else
            acc[i] = x[i] > acc[i] ? x[i] : acc[i];
    }
}

INLINE void eltwise_as(const struct sac_op *op, enum sac_eltwise_method method)
{
    const float *coeff = method == SAC_ELTWISE_SUM ? op->param.eltwise.coeff : NULL;
    struct rows out = rows_of(&op->dst[0]);
    float acc[BLOCK], x[BLOCK];

    for (int64_t row = 0; row < out.count; row++) {
        EACH_BLOCK(at, n, out.columns, {
            for (int k = 0; k < op->src_count; k++) {
                struct rows in = rows_of(&op->src[k]);
                load_row(k ? x : acc, &in, row, at, n);
                if (k > 0)
                    join(method, acc, x, n, coeff ? coeff[k] : 1);
                for (int64_t i = 0; k == 0 && coeff && i < n; i++)
                    acc[i] *= coeff[0];
            }
            if (op->epilogue.relu)
                rectify(acc, n, op->epilogue.slope);
            store_row(&out, row, at, acc, n);
        });
    }
}

static void eltwise(const struct sac_op *op)
{
    if (op->param.eltwise.method == SAC_ELTWISE_SUM)
        eltwise_as(op, SAC_ELTWISE_SUM);
    else if (op->param.eltwise.method == SAC_ELTWISE_PROD)
        eltwise_as(op, SAC_ELTWISE_PROD);
    else
        eltwise_as(op, SAC_ELTWISE_MAX);
}

/* Softmax. e^x = 2^n · e^r with n = round(x / ln 2), |r| ≤ ln 2 / 2, and the
 * Taylor series of e^r to the 7th power: relative error below 2^-22. */
INLINE float exp_of(float x)
{
    const float magic = 12582912; /* 1.5 · 2^23: adding it rounds to a whole number */
    x = x > -87 ? x : -87;
    float n = x * 1.44269504f + magic - magic;
    float r = x - n * .693145752f - n * 1.42860677e-6f;
    float p = 1.f / 5040;
    p = p * r + 1.f / 720;
    p = p * r + 1.f / 120;
    p = p * r + 1.f / 24;
    p = p * r + 1.f / 6;
    p = p * r + .5f;
    p = p * r + 1;
    p = p * r + 1;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

static void softmax_row(const struct rows *in, const struct rows *out, int64_t row)
{
    float *y = (float *)(void *)out->data + row * out->pitch;
    float most[16], sums[16], x[BLOCK];
    int64_t count = in->columns;

    for (int i = 0; i < 16; i++) {
        most[i] = -FLT_MAX;
        sums[i] = 0;
    }
    EACH_BLOCK(at, n, count, {
        load_row(x, in, row, at, n);
        memcpy(y + at, x, (size_t)n * sizeof *x);
        for (int64_t i = 0; i < n; i++)
            most[i % 16] = x[i] > most[i % 16] ? x[i] : most[i % 16];
    });
    for (int i = 1; i < 16; i++)
        most[0] = most[i] > most[0] ? most[i] : most[0];
    for (int64_t i = 0; i < count; i++)
        y[i] = exp_of(y[i] - most[0]);
    EACH_BLOCK(at, n, count, {
        for (int64_t i = 0; i < n; i++)
            sums[i % 16] += y[at + i];
    });
    for (int i = 1; i < 16; i++)
        sums[0] += sums[i];
    for (int64_t i = 0; i < count; i++)
        y[i] /= sums[0];
}

static void softmax(const struct sac_op *op)
{
    struct rows in = rows_of(&op->src[0]), out = rows_of(&op->dst[0]);

    for (int64_t row = 0; row < in.count; row++)
        softmax_row(&in, &out, row);
}

/* Top k: most values lose against the k-th at once. NaN ranks below all. */

static bool ranks_above(float a, float b)
{
    return b != b ? a == a : a > b;
}

static void insert(struct sac_topk_pair *out, int64_t *found, int64_t k, int32_t index, float value)
{
    int64_t at = *found < k ? (*found)++ : k;

    for (; at > 0 && ranks_above(value, out[at - 1].value); at--)
        if (at < k)
            out[at] = out[at - 1];
    if (at < k)
        out[at] = (struct sac_topk_pair){index, value};
}

static void topk(const struct sac_op *op)
{
    struct rows in = rows_of(&op->src[0]);
    int64_t k = op->dst[0].shape.dim[1];
    struct sac_topk_pair *out = op->dst[0].data;
    float x[BLOCK];

    for (int64_t row = 0; row < in.count; row++, out += k) {
        int64_t found = 0;
        EACH_BLOCK(at, n, in.columns, {
            load_row(x, &in, row, at, n);
            for (int64_t i = 0; i < n; i++)
                if (found < k || !(x[i] <= out[k - 1].value))
                    insert(out, &found, k, (int32_t)(at + i), x[i]);
        });
        for (; found < k; found++)
            out[found] = (struct sac_topk_pair){-1, 0};
    }
}

/* Pixels. Five pixels of three channels at a time: 15 bytes in an order, centred
 * and scaled as 16 floats, of which the last is overwritten by the next five. */

INLINE float pixel_mean(const struct sac_op *op, int64_t c, int64_t position, int64_t channels)
{
    const float *image = op->param.pixels.mean_image; /* H × W × C by now */

    return image ? image[position * channels + c] : op->param.pixels.mean[c < 4 ? c : 3];
}

/* Any channel count, positions first … end of one picture. */
INLINE void pixels_plainly(const struct sac_op *op, const uint8_t *from, void *to, int64_t first,
                           int64_t end, int64_t channels, enum sac_type type)
{
    bool swap = op->param.pixels.swap && channels >= 3;
    float by = op->param.pixels.scale / step_of(&op->dst[0]);

    for (int64_t p = first; p < end; p++) {
        for (int64_t c = 0; c < channels; c++) {
            float x = from[p * channels + (swap && c < 3 ? 2 - c : c)];
            x = (x - pixel_mean(op, c, p, channels)) * by;
            put_one(to, p * channels + c, x, type);
        }
    }
}

INLINE int64_t pixels_by_five(const struct sac_op *op, const uint8_t *from, void *to, int64_t count,
                              enum sac_type type)
{
    const float *image = op->param.pixels.mean_image;
    float by = op->param.pixels.scale / step_of(&op->dst[0]);
    floats mean;
    int64_t p = 0;

    for (int i = 0; i < 16; i++)
        mean[i] = op->param.pixels.mean[i % 3];
    for (; p + 6 <= count; p += 5) { /* the 16th byte is the next pixel's */
        bytes raw;
        memcpy(&raw, from + p * 3, sizeof raw);
        if (image)
            memcpy(&mean, image + p * 3, sizeof mean);
        if (op->param.pixels.swap)
            raw = __builtin_shufflevector(raw, raw, 2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9, 14, 13,
                                          12, 15);
        ints whole = __builtin_convertvector(raw, ints);
        floats x = __builtin_convertvector(whole, floats);
        put(to, p * 3, (x - mean) * by, type);
    }
    return p;
}

INLINE void pixels_as(const struct sac_op *op, enum sac_type type)
{
    const int64_t *dim = op->dst[0].shape.dim;
    int64_t positions = dim[2] * dim[3], channels = dim[1], picture = positions * channels;

    for (int64_t n = 0; n < dim[0]; n++) {
        const uint8_t *from = (const uint8_t *)op->src[0].data + n * picture;
        char *to = (char *)op->dst[0].data + (size_t)(n * picture) * sac_type_bytes(type);
        int64_t done = channels == 3 ? pixels_by_five(op, from, to, positions, type) : 0;
        pixels_plainly(op, from, to, done, positions, channels, type);
    }
}

static void pixels(const struct sac_op *op)
{
    enum sac_type type = op->dst[0].form.type;

    if (type == SAC_BF16)
        pixels_as(op, SAC_BF16);
    else if (type == SAC_U8)
        pixels_as(op, SAC_U8);
    else if (type == SAC_S8)
        pixels_as(op, SAC_S8);
    else
        pixels_as(op, SAC_F32);
}

/* Conversions: of type along memory, or between plain and channels-last. */

INLINE void convert_flat(const struct sac_op *op, enum sac_type from, enum sac_type to)
{
    int64_t count = sac_shape_count(&op->src[0].shape);
    float x[BLOCK];

    EACH_BLOCK(at, n, count, {
        load(x, op->src[0].data, at, n, from);
        store(op->dst[0].data, at, x, n, to);
    });
}

/* to[j · to_step] = from[i]: a run of plain memory becomes every to_step-th, or
 * the other way round, in tiles that stay in cache. */
INLINE void transpose(const void *from, void *to, int64_t base, int64_t rows_in, int64_t columns,
                      enum sac_type from_type, enum sac_type to_type)
{
    enum { TILE = 16 };

    for (int64_t r0 = 0; r0 < rows_in; r0 += TILE) {
        for (int64_t c0 = 0; c0 < columns; c0 += TILE) {
            for (int64_t r = r0; r < min64(r0 + TILE, rows_in); r++) {
                for (int64_t c = c0; c < min64(c0 + TILE, columns); c++) {
                    float x = get_one(from, base + r * columns + c, from_type);
                    put_one(to, base + c * rows_in + r, x, to_type);
                }
            }
        }
    }
}

#if defined(__AVX512F__)
/* Three planes, position by position: 16 of each make three vectors. */
INLINE void interleave_sixteen(floats r, floats g, floats b, void *to, int64_t at,
                               enum sac_type type)
{
    floats low =
        __builtin_shufflevector(r, g, 0, 16, -1, 1, 17, -1, 2, 18, -1, 3, 19, -1, 4, 20, -1, 5);
    floats middle =
        __builtin_shufflevector(r, g, 21, -1, 6, 22, -1, 7, 23, -1, 8, 24, -1, 9, 25, -1, 10, 26);
    floats high = __builtin_shufflevector(r, g, -1, 11, 27, -1, 12, 28, -1, 13, 29, -1, 14, 30, -1,
                                          15, 31, -1);

    low = __builtin_shufflevector(low, b, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15);
    middle =
        __builtin_shufflevector(middle, b, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15);
    high =
        __builtin_shufflevector(high, b, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31);
    put(to, at, low, type);
    put(to, at + LANES, middle, type);
    put(to, at + 2 * LANES, high, type);
}

/* Returns how many positions it did. */
INLINE int64_t interleave_three(const void *from, void *to, int64_t base, int64_t positions,
                                enum sac_type from_type, enum sac_type to_type)
{
    int64_t p = 0;

    for (; p + LANES <= positions; p += LANES)
        interleave_sixteen(
            get(from, base + p, from_type), get(from, base + positions + p, from_type),
            get(from, base + 2 * positions + p, from_type), to, base + 3 * p, to_type);
    return p;
}
#else
INLINE int64_t interleave_three(const void *from, void *to, int64_t base, int64_t positions,
                                enum sac_type from_type, enum sac_type to_type)
{
    (void)from;
    (void)to;
    (void)base;
    (void)positions;
    (void)from_type;
    (void)to_type;
    return 0;
}
#endif

/* A picture of three channels, plain to channels-last. */
INLINE void transpose_three(const void *from, void *to, int64_t base, int64_t positions,
                            enum sac_type from_type, enum sac_type to_type)
{
    int64_t p = interleave_three(from, to, base, positions, from_type, to_type);

    for (; p < positions; p++)
        for (int c = 0; c < 3; c++)
            put_one(to, base + 3 * p + c, get_one(from, base + c * positions + p, from_type),
                    to_type);
}

INLINE void convert_as(const struct sac_op *op, enum sac_type from, enum sac_type to)
{
    const struct sac_tensor *src = &op->src[0], *dst = &op->dst[0];
    const int64_t *dim = src->shape.dim;

    if (src->shape.rank < 3 || src->form.layout == dst->form.layout) {
        convert_flat(op, from, to);
        return;
    }
    int64_t positions = sac_shape_count_between(&src->shape, 2, src->shape.rank);
    bool to_last = dst->form.layout == SAC_CHANNELS_LAST;
    for (int64_t n = 0; n < dim[0]; n++) {
        int64_t base = n * dim[1] * positions;
        if (to_last && dim[1] == 3)
            transpose_three(src->data, dst->data, base, positions, from, to);
        else
            transpose(src->data, dst->data, base, to_last ? dim[1] : positions,
                      to_last ? positions : dim[1], from, to);
    }
}

/* transpose() to or from 8 bits: rounded by vectors, then spread. */
INLINE void transpose_scaled(const struct sac_op *op, int64_t base, int64_t rows_in,
                             int64_t columns, enum sac_type from, enum sac_type to, float by)
{
    const int64_t size = to == SAC_F32 ? 4 : to == SAC_BF16 ? 2 : 1;
    const void *data = op->src[0].data;
    char tile[LANES * sizeof(float)];

    for (int64_t c = 0; c < columns; c += LANES) {
        int64_t n = min64(LANES, columns - c);
        for (int64_t r = 0; r < rows_in; r++) {
            int64_t at = base + r * columns + c;
            char *out = (char *)op->dst[0].data + (base + c * rows_in + r) * size;
            if (n == LANES)
                put(tile, 0, get(data, at, from) * by, to);
            for (int64_t i = 0; i < n && n < LANES; i++)
                put_one(tile, i, get_one(data, at + i, from) * by, to);
            for (int64_t i = 0; i < n; i++)
                memcpy(out + i * rows_in * size, tile + i * size, (size_t)size);
        }
    }
}

/* To or from 8 bits. */
INLINE void convert_scaled(const struct sac_op *op, enum sac_type from, enum sac_type to)
{
    const struct sac_tensor *src = &op->src[0], *dst = &op->dst[0];
    float by = step_of(src) / step_of(dst);
    int64_t count = sac_shape_count(&src->shape), i = 0;

    if (src->shape.rank >= 3 && src->form.layout != dst->form.layout) {
        int64_t channels = src->shape.dim[1], picture = count / src->shape.dim[0];
        bool to_last = dst->form.layout == SAC_CHANNELS_LAST;
        for (int64_t n = 0; n < src->shape.dim[0] && picture > 0; n++)
            transpose_scaled(op, n * picture, to_last ? channels : picture / channels,
                             to_last ? picture / channels : channels, from, to, by);
        return;
    }
    for (; i + LANES <= count; i += LANES)
        put(dst->data, i, get(src->data, i, from) * by, to);
    for (; i < count; i++)
        put_one(dst->data, i, get_one(src->data, i, from) * by, to);
}

INLINE void convert_to(const struct sac_op *op, enum sac_type from)
{
    enum sac_type to = op->dst[0].form.type;

    if (to == SAC_U8)
        convert_scaled(op, from, SAC_U8);
    else if (to == SAC_S8)
        convert_scaled(op, from, SAC_S8);
    else if (to == SAC_BF16)
        convert_scaled(op, from, SAC_BF16);
    else
        convert_scaled(op, from, SAC_F32);
}

static void convert_eight(const struct sac_op *op)
{
    enum sac_type from = op->src[0].form.type;

    if (from == SAC_U8)
        convert_to(op, SAC_U8);
    else if (from == SAC_S8)
        convert_to(op, SAC_S8);
    else if (from == SAC_BF16)
        convert_to(op, SAC_BF16);
    else
        convert_to(op, SAC_F32);
}

static void convert(const struct sac_op *op)
{
    enum sac_type from = op->src[0].form.type, to = op->dst[0].form.type;

    if (sac_type_is_eight(from) || sac_type_is_eight(to)) {
        convert_eight(op);
        return;
    }
    if (from == SAC_F32 && to == SAC_F32)
        convert_as(op, SAC_F32, SAC_F32);
    else if (from == SAC_F32)
        convert_as(op, SAC_F32, SAC_BF16);
    else if (to == SAC_F32)
        convert_as(op, SAC_BF16, SAC_F32);
    else
        convert_as(op, SAC_BF16, SAC_BF16);
}

/* Concatenation and slices: runs of memory, between one part and the whole. */

/* Where an axis stands in memory, from the outermost. */
static int place_of(const struct sac_tensor *t, int axis)
{
    if (t->form.layout != SAC_CHANNELS_LAST || t->shape.rank < 3 || axis == 0)
        return axis;
    return axis == 1 ? t->shape.rank - 1 : axis - 1;
}

static void move_runs(const struct sac_tensor *whole, const struct sac_tensor *part, int axis,
                      int64_t offset, bool out)
{
    int64_t inner = 1, outer = 1, size = (int64_t)sac_type_bytes(part->form.type);

    if (!part->data && out)
        return; /* a gradient that nobody wants */

    for (int i = 0; i < part->shape.rank; i++) {
        if (place_of(part, i) > place_of(part, axis))
            inner *= part->shape.dim[i];
        else if (i != axis)
            outer *= part->shape.dim[i];
    }
    int64_t step = whole->shape.dim[axis] * inner, run = part->shape.dim[axis] * inner;
    if (axis == 1 && inner == 1 && (whole->shape.rank == 4 || whole->shape.rank == 2))
        step = rows_of(whole).pitch; /* the whole may itself be a view */
    char *at = (char *)whole->data + offset * inner * size, *own = part->data;
    if (own == at)
        return; /* it was written there */
    for (int64_t i = 0; i < outer; i++, at += step * size) {
        if (own)
            memcpy(out ? own : at, out ? at : own, (size_t)(run * size));
        else
            memset(at, 0, (size_t)(run * size)); /* a gradient that nobody gave */
        own = own ? own + run * size : NULL;
    }
}

static void concat(const struct sac_op *op)
{
    int axis = op->param.concat.axis;
    int64_t offset = 0;

    for (int i = 0; i < op->src_count; i++) {
        move_runs(&op->dst[0], &op->src[i], axis, offset, false);
        offset += op->src[i].shape.dim[axis];
    }
}

static void slice(const struct sac_op *op)
{
    int axis = op->param.slice.axis;
    int64_t offset = 0;

    for (int i = 0; i < op->dst_count; i++) {
        move_runs(&op->src[0], &op->dst[i], axis, offset, true);
        offset += op->dst[i].shape.dim[axis];
    }
}

static void dropout(const struct sac_op *op)
{
    mask_rows(op, &op->src[0], &op->dst[0]);
}

const struct sac_cpu_vector SAC_VECTOR_TABLE = {
    .name = SAC_VECTOR_NAME,
    .back = &SAC_VECTOR_BACK_TABLE,
    .norm = &SAC_NORM_TABLE,
    .peak = &SAC_PEAK_TABLE,
    .stem = &SAC_STEM_TABLE,
    .winograd = &SAC_WINOGRAD_TABLE,
    .run =
        {
            [SAC_OP_POOL] = pool,
            [SAC_OP_LRN] = lrn,
            [SAC_OP_RELU] = relu,
            [SAC_OP_PRELU] = prelu,
            [SAC_OP_AFFINE] = affine,
            [SAC_OP_SCALE] = scale,
            [SAC_OP_BIAS] = bias,
            [SAC_OP_ELTWISE] = eltwise,
            [SAC_OP_SOFTMAX] = softmax,
            [SAC_OP_TOPK] = topk,
            [SAC_OP_DROPOUT] = dropout,
            [SAC_OP_PIXELS] = pixels,
            [SAC_OP_CONVERT] = convert,
            [SAC_OP_CONCAT] = concat,
            [SAC_OP_SLICE] = slice,
        },
};
