/* The rows of device/cpu/stem.h, compiled for each instruction set with SAC_STEM_TABLE set. */
#include "device/cpu/stem.h"

#ifdef __AVX512F__

#include <immintrin.h>
#include <string.h>

#define CODE __attribute__((target("avx512bf16")))
#define INLINE CODE static inline __attribute__((always_inline))

enum { SUMS = 24, GROUP_MAX = 6 }; /* in registers, beside a group's weights and a pixel's pair */

INLINE void store(const struct sac_stem *s, __m512 y, void *to, enum sac_type type, int64_t at)
{
    const __m512 zero = _mm512_setzero_ps();

    if (s->relu && s->slope == 0)
        y = _mm512_max_ps(zero, y);
    else if (s->relu)
        y = _mm512_mask_mul_ps(y, _mm512_cmp_ps_mask(y, zero, _CMP_LT_OQ), y,
                               _mm512_set1_ps(s->slope));
    if (type == SAC_F32)
        _mm512_storeu_ps((float *)to + at, y);
    else
        _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)to + at),
                            (__m256i)_mm512_cvtneps_pbh(y));
}

/* `pixels` pixels from pixel x, `group` vectors of outputs from vector `first`: constants
 * where it is called, so that the sums are in registers. */
INLINE void block(const struct sac_stem *s, const uint16_t *const *rows, int64_t x, int64_t first,
                  int group, int pixels, void *to, enum sac_type type, int64_t pitch)
{
    const uint16_t *w = s->filter + first * s->kernel * s->pairs * 32;
    __m512 sum[SUMS], part[GROUP_MAX];

#pragma GCC unroll 6
    for (int v = 0; v < group; v++)
        part[v] = s->bias ? _mm512_loadu_ps(s->bias + (first + v) * 16) : _mm512_setzero_ps();
#pragma GCC unroll 24
    for (int i = 0; i < pixels * group; i++)
        sum[i] = part[i % group];
    for (int64_t row = 0; row < s->kernel; row++) {
        const uint16_t *from = rows[row] + x * s->step;
        for (int64_t k = 0; k < s->pairs; k++, w += group * 32) {
#pragma GCC unroll 6
            for (int v = 0; v < group; v++)
                part[v] = _mm512_loadu_ps((const float *)(const void *)(w + v * 32));
#pragma GCC unroll 24
            for (int p = 0; p < pixels; p++) {
                int pair;
                memcpy(&pair, from + p * s->step + 2 * k, sizeof pair);
                __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 6
                for (int v = 0; v < group; v++)
                    sum[p * group + v] =
                        _mm512_dpbf16_ps(sum[p * group + v], both, (__m512bh)part[v]);
            }
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < pixels * group; i++)
        store(s, sum[i], to, type, (x + i / group) * pitch + (first + i % group) * 16);
}

/* Blocks of pixels; the last one ends with the row, and does some pixels again. */
INLINE void group_row(const struct sac_stem *s, const uint16_t *const *rows, int64_t first,
                      int group, void *to, enum sac_type type, int64_t pitch)
{
    const int pixels = SUMS / group;
    int64_t x = 0;

    if (s->width < pixels) {
        for (; x < s->width; x++)
            block(s, rows, x, first, group, 1, to, type, pitch);
        return;
    }
    for (; x < s->width; x += pixels)
        block(s, rows, x + pixels <= s->width ? x : s->width - pixels, first, group, pixels, to,
              type, pitch);
}

#define GROUP(count)                                                                               \
    CODE static void group_row_##count(const struct sac_stem *s, const uint16_t *const *rows,      \
                                       int64_t first, void *to, enum sac_type type, int64_t pitch) \
    {                                                                                              \
        if (type == SAC_F32)                                                                       \
            group_row(s, rows, first, count, to, SAC_F32, pitch);                                  \
        else                                                                                       \
            group_row(s, rows, first, count, to, SAC_BF16, pitch);                                 \
    }
GROUP(1)
GROUP(2)
GROUP(3)
GROUP(4)
GROUP(6)

static void row(const struct sac_stem *s, const uint16_t *const *rows, void *to, enum sac_type type,
                int64_t pitch)
{
    static void (*const of[])(const struct sac_stem *, const uint16_t *const *, int64_t, void *,
                              enum sac_type, int64_t) = {
        NULL, group_row_1, group_row_2, group_row_3, group_row_4, NULL, group_row_6};
    int64_t most = sac_stem_group(s->vectors);

    for (int64_t first = 0; first < s->vectors; first += most)
        of[s->vectors - first < most ? s->vectors - first : most](s, rows, first, to, type, pitch);
}

const struct sac_cpu_stem_code SAC_STEM_TABLE = {row};

#else

const struct sac_cpu_stem_code SAC_STEM_TABLE = {NULL};

#endif
