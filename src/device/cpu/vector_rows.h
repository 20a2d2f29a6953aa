/*
 * What the vector kernels are made of, compiled with them for each instruction set:
 * rows of channels in either type, windows, powers.
 */
#ifndef SAC_DEVICE_CPU_VECTOR_ROWS_H
#define SAC_DEVICE_CPU_VECTOR_ROWS_H

#include <math.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "base/bf16.h"
#include "base/random.h"
#include "device/cpu/element.h"
#include "device/cpu/vector.h"

#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 64 };

INLINE int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

INLINE int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Sixteen elements of either type, as floats. */

enum { LANES = 16 };
typedef float floats __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));
typedef uint8_t bytes __attribute__((vector_size(16)));

/* gcc 12 converts between widths element by element. */
#ifdef __AVX512F__
INLINE words words_of_halves(halves x)
{
    return (words)_mm512_cvtepu16_epi32((__m256i)x);
}

INLINE halves halves_of_words(words x)
{
    return (halves)_mm512_cvtepi32_epi16((__m512i)x);
}

INLINE words words_of_bytes(bytes x)
{
    return (words)_mm512_cvtepu8_epi32((__m128i)x);
}

INLINE bytes bytes_of_words(words x)
{
    return (bytes)_mm512_cvtepi32_epi8((__m512i)x);
}
#else
INLINE words words_of_halves(halves x)
{
    return __builtin_convertvector(x, words);
}

INLINE halves halves_of_words(words x)
{
    return __builtin_convertvector(x, halves);
}

INLINE words words_of_bytes(bytes x)
{
    return __builtin_convertvector(x, words);
}

INLINE bytes bytes_of_words(words x)
{
    return __builtin_convertvector(x, bytes);
}
#endif

/* 8 bits, of which one is worth 1: to nearest even, clipped. The sum's low byte is the
 * whole number, also below 0. */
INLINE bytes bytes_of_floats(floats x, enum sac_type type)
{
    float least = type == SAC_U8 ? 0 : -128, most = type == SAC_U8 ? 255 : 127;
    words above = (words)(x > least), below;

    x = (floats)(((words)x & above) | ((words)((floats){0} + least) & ~above));
    below = (words)(x < most);
    x = (floats)(((words)x & below) | ((words)((floats){0} + most) & ~below));
    return bytes_of_words((words)(x + 12582912.f)); /* 1.5 · 2^23 */
}

INLINE floats floats_of_bytes(bytes x, enum sac_type type)
{
    words wide = words_of_bytes(x);

    if (type == SAC_S8)
        wide = (words)((ints)(wide << 24) >> 24);
    return __builtin_convertvector((ints)wide, floats);
}

INLINE floats get(const void *from, int64_t at, enum sac_type type)
{
    floats out;
    halves half;
    bytes byte;

    if (type == SAC_U8 || type == SAC_S8) {
        memcpy(&byte, (const uint8_t *)from + at, sizeof byte);
        return floats_of_bytes(byte, type);
    }

    if (type == SAC_F32) {
        memcpy(&out, (const float *)from + at, sizeof out);
        return out;
    }
    memcpy(&half, (const uint16_t *)from + at, sizeof half);
    return (floats)(words_of_halves(half) << 16);
}

/* bf16 as base/bf16.h rounds it. */
INLINE void put(void *to, int64_t at, floats values, enum sac_type type)
{
    if (type == SAC_F32) {
        memcpy((float *)to + at, &values, sizeof values);
        return;
    }
    if (type == SAC_U8 || type == SAC_S8) {
        bytes byte = bytes_of_floats(values, type);
        memcpy((uint8_t *)to + at, &byte, sizeof byte);
        return;
    }
    words bits = (words)values;
    words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    words is_nan = (words)((bits & 0x7fffffffu) > 0x7f800000u);
    rounded = (rounded & ~is_nan) | (((bits >> 16) | 0x40u) & is_nan);
    halves half = halves_of_words(rounded);
    memcpy((uint16_t *)to + at, &half, sizeof half);
}

INLINE float get_one(const void *from, int64_t at, enum sac_type type)
{
    if (type == SAC_U8)
        return ((const uint8_t *)from)[at];
    if (type == SAC_S8)
        return ((const int8_t *)from)[at];
    return type == SAC_F32 ? ((const float *)from)[at]
                           : sac_bf16_to_float(((const uint16_t *)from)[at]);
}

INLINE void put_one(void *to, int64_t at, float value, enum sac_type type)
{
    if (type == SAC_F32)
        ((float *)to)[at] = value;
    else if (type == SAC_U8)
        ((uint8_t *)to)[at] = (uint8_t)sac_element_round(value, 0, 255);
    else if (type == SAC_S8)
        ((int8_t *)to)[at] = (int8_t)sac_element_round(value, -128, 127);
    else
        ((uint16_t *)to)[at] = sac_bf16_from_float(value);
}

/* a > b ? a : b, also where one is no number. */
INLINE floats larger(floats a, floats b)
{
#ifdef __AVX512F__
    return (floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
    words above = (words)(a > b);

    return (floats)(((words)a & above) | ((words)b & ~above));
#endif
}

/* Blocks of elements of either type, as floats. */

INLINE void load(float *out, const void *from, int64_t at, int64_t n, enum sac_type type)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        put(out, i, get(from, at + i, type), SAC_F32);
    for (; i < n; i++)
        out[i] = get_one(from, at + i, type);
}

INLINE void store(void *to, int64_t at, const float *from, int64_t n, enum sac_type type)
{
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        put(to, at + i, get(from, i, SAC_F32), type);
    for (; i < n; i++)
        put_one(to, at + i, from[i], type);
}

/* A tensor as rows of channels: a row a picture (rank 2) or a position (rank 4);
 * of another rank, one row of everything. */
struct rows {
    char *data;
    int64_t count, columns, pitch; /* in elements */
    enum sac_type type;
};

INLINE struct rows rows_of(const struct sac_tensor *t)
{
    const int64_t *dim = t->shape.dim;
    struct rows r = {.data = t->data, .type = t->form.type, .count = 1};

    r.columns = t->shape.rank == 4 || t->shape.rank == 2 ? dim[1] : sac_shape_count(&t->shape);
    if (t->shape.rank == 4) {
        r.count = dim[0] * dim[2] * dim[3];
        r.pitch = dim[3] > 1 ? t->stride[3] : dim[2] > 1 ? t->stride[2] : t->stride[0];
    } else if (t->shape.rank == 2) {
        r.count = dim[0];
        r.pitch = t->stride[0];
    }
    return r;
}

INLINE void load_row(float *out, const struct rows *r, int64_t row, int64_t at, int64_t n)
{
    if (r->type == SAC_F32)
        load(out, r->data, row * r->pitch + at, n, SAC_F32);
    else
        load(out, r->data, row * r->pitch + at, n, SAC_BF16);
}

INLINE void store_row(const struct rows *r, int64_t row, int64_t at, const float *from, int64_t n)
{
    if (r->type == SAC_F32)
        store(r->data, row * r->pitch + at, from, n, SAC_F32);
    else
        store(r->data, row * r->pitch + at, from, n, SAC_BF16);
}

INLINE void rectify(float *x, int64_t n, float slope)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] < 0 ? x[i] * slope : x[i];
}

/* Runs `body` for whole blocks with n a constant, then for the rest. */
#define EACH_BLOCK(at, n, count, body)                                                             \
    do {                                                                                           \
        int64_t at = 0;                                                                            \
        for (; at + BLOCK <= (count); at += BLOCK) {                                               \
            enum { n = BLOCK };                                                                    \
            body;                                                                                  \
        }                                                                                          \
        if (at < (count)) {                                                                        \
            const int64_t n = (count)-at;                                                          \
            body;                                                                                  \
        }                                                                                          \
    } while (0)

/* Pooling windows. */

struct pool_at {
    int64_t y0, y1, x0, x1; /* what lies in the input */
    float divisor;
};

INLINE struct pool_at pool_window(const struct sac_op *op, int64_t oy, int64_t ox)
{
    const struct sac_window *w = &op->param.pool.window;
    int64_t height = op->src[0].shape.dim[2], width = op->src[0].shape.dim[3];
    int64_t y = oy * w->stride[0] - w->pad[0], x = ox * w->stride[1] - w->pad[1];
    int64_t y_end = min64(y + w->kernel[0], height + w->pad[0]);
    int64_t x_end = min64(x + w->kernel[1], width + w->pad[1]);

    return (struct pool_at){max64(y, 0), min64(y_end, height), max64(x, 0), min64(x_end, width),
                            (float)((y_end - y) * (x_end - x))};
}

/* x^-¾ by Newton's method on y^-4 = x³: y ← y · (5 − x³y⁴) / 4, from a first guess
 * by the exponent's bits. The largest relative errors, measured from 1e-3 to 1e6:
 * 4.4e-2, then 4.9e-3, 6e-5, 1.5e-7. Faster than two roots and a division. */
INLINE float to_minus_three_quarters(float x)
{
    uint32_t bits;
    float y;

    memcpy(&bits, &x, sizeof bits);
    bits = 0x6f14e440u - (bits >> 2) * 3;
    memcpy(&y, &bits, sizeof y);
    for (int i = 0; i < 3; i++) {
        float t = x * y;
        y *= 1.25f - .25f * (t * t) * (t * y);
    }
    return y;
}

INLINE void to_minus_beta(float *x, int64_t n, float beta)
{
    if (beta == .75f) {
        for (int64_t i = 0; i < n; i++)
            x[i] = to_minus_three_quarters(x[i]);
    } else if (beta == .5f) {
        for (int64_t i = 0; i < n; i++)
            x[i] = 1 / sqrtf(x[i]);
    } else {
        for (int64_t i = 0; i < n; i++)
            x[i] = powf(x[i], -beta);
    }
}

/* Dropout's mask, drawn as the loops draw it: by an element's place in Caffe's order,
 * where channel c of a position stands c · `step` behind the first. */
INLINE void mask_row(const struct rows *from, const struct rows *to, int64_t row, uint64_t place,
                     uint64_t step, float ratio)
{
    float scale = 1 / (1 - ratio), x[BLOCK];

    EACH_BLOCK(at, n, from->columns, {
        load_row(x, from, row, at, n);
        for (int64_t i = 0; i < n; i++) {
            uint64_t bits = sac_random_mix(place + (uint64_t)(at + i) * step);
            float kept = x[i] * scale;
            x[i] = sac_random_unit(bits) < ratio ? 0 : kept;
        }
        store_row(to, row, at, x, n);
    });
}

/* A row a picture, all that it has in memory's order. */
INLINE struct rows plain_rows_of(const struct sac_tensor *t)
{
    struct rows r = {.data = t->data, .type = t->form.type, .count = t->shape.dim[0]};

    r.pitch = r.columns = sac_shape_count_between(&t->shape, 1, t->shape.rank);
    return r;
}

INLINE void mask_rows(const struct sac_op *op, const struct sac_tensor *from,
                      const struct sac_tensor *to)
{
    const struct sac_shape *shape = &op->src[0].shape;
    bool last = from->form.layout == SAC_CHANNELS_LAST && shape->rank == 4;
    struct rows in = last ? rows_of(from) : plain_rows_of(from);
    struct rows out = last ? rows_of(to) : plain_rows_of(to);
    uint64_t positions = last ? (uint64_t)(shape->dim[2] * shape->dim[3]) : 1;
    uint64_t key = sac_random_key(op->random ? op->random->seed : 0, op->param.dropout.stream,
                                  op->random ? op->random->iteration : 0);

    for (int64_t row = 0; row < in.count; row++) {
        uint64_t at = (uint64_t)op->first * positions + (uint64_t)row;
        uint64_t place = at / positions * positions * (uint64_t)in.columns + at % positions;
        mask_row(&in, &out, row, key + place, positions, op->param.dropout.ratio);
    }
}

/* ---- LRN within a channel: 1 + alpha/n² · Σ x² over n × n positions ---- */

/* Σ of `map` of what stands around a position, for n channels at `at`; what is outside
 * counts nothing. Rows of `values` are positions of one picture. */
INLINE void sum_around(const struct rows *values, int64_t picture, const int64_t *dim, int64_t y,
                       int64_t x, int64_t half, int64_t at, int64_t n, bool squares, float *sum)
{
    float v[BLOCK];

    for (int64_t i = 0; i < n; i++)
        sum[i] = 0;
    for (int64_t iy = max64(y - half, 0); iy <= min64(y + half, dim[2] - 1); iy++) {
        for (int64_t ix = max64(x - half, 0); ix <= min64(x + half, dim[3] - 1); ix++) {
            load_row(v, values, (picture * dim[2] + iy) * dim[3] + ix, at, n);
            for (int64_t i = 0; i < n; i++)
                sum[i] += squares ? v[i] * v[i] : v[i];
        }
    }
}

INLINE void scale_within(const struct sac_op *op, const struct rows *x, int64_t row, int64_t at,
                         int64_t n, float *scale)
{
    const int64_t *dim = op->src[0].shape.dim;
    int64_t plane = dim[2] * dim[3], size = op->param.lrn.size;
    float each = op->param.lrn.alpha / (float)(size * size);

    sum_around(x, row / plane, dim, row % plane / dim[3], row % dim[3], size / 2, at, n, true,
               scale);
    for (int64_t i = 0; i < n; i++)
        scale[i] = 1 + each * scale[i];
}

#endif
