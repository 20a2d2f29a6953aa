/*
 * Convolutions of a few channels in bf16, as a net's first is: a row of a window is then
 * one run of numbers, kernel width × channels, which is multiplied two numbers at a time
 * (AVX-512 bf16). Libraries bring each pixel's channels up to a whole vector's step.
 *
 *     y[o] = b[o] + Σ over window rows, pairs: x[2k] · w[o][2k] + x[2k + 1] · w[o][2k + 1]
 *
 * The sum is in fp32, in the same order for every pixel.
 */
#ifndef SAC_DEVICE_CPU_STEM_H
#define SAC_DEVICE_CPU_STEM_H

#include "device/cpu/kernel.h"

enum { SAC_STEM_KERNEL_MAX = 16 };

struct sac_stem {
    int64_t kernel, pairs;  /* a window's rows; two numbers each, of one of its rows */
    int64_t step;           /* numbers from a pixel's window to the next pixel's */
    int64_t width;          /* pixels of a row of results */
    int64_t vectors;        /* of 16 outputs */
    const uint16_t *filter; /* see sac_stem_filter_at() */
    const float *bias;      /* one an output; NULL: 0 */
    bool relu;
    float slope;
};

/* The outputs go through a row together by so many vectors. */
static inline int64_t sac_stem_group(int64_t vectors)
{
    return vectors % 6 == 0 ? 6 : vectors < 4 ? vectors : 4;
}

/* Where a weight is: groups of vectors, each [kernel][pairs][vectors of the group][16][2];
 * `at` counts numbers within a window's row. */
static inline int64_t sac_stem_filter_at(const struct sac_stem *s, int64_t output, int64_t row,
                                         int64_t at)
{
    int64_t most = sac_stem_group(s->vectors), vector = output / 16, first = vector / most * most;
    int64_t group = s->vectors - first < most ? s->vectors - first : most;
    int64_t pair = (first * s->kernel + (row * group)) * s->pairs + at / 2 * group;

    return (pair + vector - first) * 32 + output % 16 * 2 + at % 2;
}

/* A row of results: numbers of `type` (fp32 or bf16), a pixel `pitch` of them from the next.
 * rows[i]: where window row i begins for the first pixel; two bytes behind the last window
 * are read, and do not count. */
struct sac_cpu_stem_code {
    void (*row)(const struct sac_stem *s, const uint16_t *const *rows, void *to, enum sac_type type,
                int64_t pitch);
};

/* Without AVX-512 bf16 there is none: row is NULL. */
extern const struct sac_cpu_stem_code sac_cpu_stem_avx512, sac_cpu_stem_avx2, sac_cpu_stem_base;

extern const struct sac_cpu_kernel sac_cpu_stem;

#endif
