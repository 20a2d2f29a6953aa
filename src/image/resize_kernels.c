#include "image/resize_kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static void sum_from(const struct sac_resize_columns *columns, const uint8_t *row, int from,
                     int16_t *sums)
{
    int channels = columns->channels;

    for (int x = from; x < columns->width; x++) {
        struct sac_resize_tap tap = columns->taps[x];
        for (int c = 0; c < channels; c++) {
            const uint8_t *pixel = row + tap.at + c;
            sums[x * channels + c] =
                (int16_t)((pixel[0] * tap.first + pixel[columns->next] * tap.second) >> 4);
        }
    }
}

static void blend_from(const int16_t *above, const int16_t *below, struct sac_resize_tap tap,
                       int from, int count, uint8_t *dst)
{
    for (int i = from; i < count; i++)
        dst[i] = (uint8_t)(((above[i] * tap.first >> 16) + (below[i] * tap.second >> 16) + 2) >> 2);
}

static void sum_plain(const struct sac_resize_columns *columns, const uint8_t *row, int16_t *sums)
{
    sum_from(columns, row, 0, sums);
}

static void blend_plain(const int16_t *above, const int16_t *below, struct sac_resize_tap tap,
                        int count, uint8_t *dst)
{
    blend_from(above, below, tap, 0, count, dst);
}

static const struct sac_resize_kernels plain = {"plain", false, sum_plain, blend_plain};

/* ---- Groups ---- */

int sac_resize_group_count(const struct sac_resize_columns *columns)
{
    return columns->channels == 3 && columns->next == 3
               ? (columns->width + SAC_RESIZE_GROUP - 1) / SAC_RESIZE_GROUP
               : 0;
}

static uint64_t lowest_bits(int count)
{
    return count >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
}

static bool fill_group(const struct sac_resize_columns *columns, int first,
                       struct sac_resize_group *group)
{
    int left = columns->width - first, count = left < SAC_RESIZE_GROUP ? left : SAC_RESIZE_GROUP;
    const struct sac_resize_tap *taps = columns->taps + first;

    if (taps[count - 1].at + 6 - taps[0].at > 64)
        return false;
    memset(group, 0, sizeof *group);
    group->at = taps[0].at;
    group->bytes = lowest_bits(columns->row_bytes - taps[0].at);
    for (int i = 0; i < count; i++)
        for (int c = 0; c < 3; c++) {
            int lane = 2 * (3 * i + c), offset = taps[i].at - taps[0].at + c;
            group->from[2 * lane] = (uint8_t)offset;
            group->from[2 * lane + 2] = (uint8_t)(offset + 3);
            group->weights[lane] = taps[i].first;
            group->weights[lane + 1] = taps[i].second;
        }
    return true;
}

bool sac_resize_group_columns(const struct sac_resize_columns *columns,
                              struct sac_resize_group *groups)
{
    for (int x = 0; x < columns->width; x += SAC_RESIZE_GROUP)
        if (!fill_group(columns, x, groups++))
            return false;
    return true;
}

#if defined(__x86_64__)
/*
 * Three channels with a right neighbour only: a pixel and its neighbour are 6 bytes,
 * of the 8 that are loaded, so columns whose load would end behind the row are left
 * to the plain loop. Stores of 3 sums a column are wider, and the next one covers that.
 */
static bool is_rgb(const struct sac_resize_columns *columns)
{
    return columns->channels == 3 && columns->next == 3;
}

static bool fits(const struct sac_resize_columns *columns, int x)
{
    return x < columns->width && columns->taps[x].at + 8 <= columns->row_bytes;
}

static inline __m128i load_pixels(const struct sac_resize_columns *columns, const uint8_t *row,
                                  int x)
{
    return _mm_loadl_epi64((const __m128i *)(row + columns->taps[x].at));
}

static inline const void *weights_at(const struct sac_resize_columns *columns, int x)
{
    return columns->weights + SAC_RESIZE_WEIGHTS * x;
}

static void sum_sse2(const struct sac_resize_columns *columns, const uint8_t *row, int16_t *sums)
{
    int x = 0;

    for (; is_rgb(columns) && fits(columns, x); x++) {
        __m128i pixels = load_pixels(columns, row, x);
        __m128i pairs = _mm_unpacklo_epi8(pixels, _mm_srli_si128(pixels, 3));
        __m128i words = _mm_unpacklo_epi8(pairs, _mm_setzero_si128());
        __m128i sum = _mm_madd_epi16(words, _mm_loadu_si128(weights_at(columns, x)));
        __m128i packed = _mm_packs_epi32(_mm_srai_epi32(sum, 4), sum);
        _mm_storel_epi64((__m128i *)(sums + 3 * x), packed);
    }
    sum_from(columns, row, x, sums);
}

static void blend_sse2(const int16_t *above, const int16_t *below, struct sac_resize_tap tap,
                       int count, uint8_t *dst)
{
    __m128i first = _mm_set1_epi16(tap.first), second = _mm_set1_epi16(tap.second);
    __m128i half = _mm_set1_epi16(2);
    int i = 0;

    for (; i + 8 <= count; i += 8) {
        __m128i a = _mm_mulhi_epi16(_mm_loadu_si128((const __m128i *)(above + i)), first);
        __m128i b = _mm_mulhi_epi16(_mm_loadu_si128((const __m128i *)(below + i)), second);
        __m128i sum = _mm_srai_epi16(_mm_add_epi16(_mm_add_epi16(a, b), half), 2);
        _mm_storel_epi64((__m128i *)(dst + i), _mm_packus_epi16(sum, sum));
    }
    blend_from(above, below, tap, i, count, dst);
}

__attribute__((target("avx2"))) static void sum_avx2(const struct sac_resize_columns *columns,
                                                     const uint8_t *row, int16_t *sums)
{
    const __m256i pairs =
        _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 0, -1, 3, -1, 1,
                         -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    int x = 0;

    for (; is_rgb(columns) && fits(columns, x + 1); x += 2) {
        __m256i pixels =
            _mm256_set_m128i(load_pixels(columns, row, x + 1), load_pixels(columns, row, x));
        __m256i weights = _mm256_loadu_si256(weights_at(columns, x));
        __m256i sum = _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, pairs), weights);
        __m256i packed = _mm256_srai_epi32(sum, 4);
        packed = _mm256_packs_epi32(packed, packed);
        _mm_storel_epi64((__m128i *)(sums + 3 * x), _mm256_castsi256_si128(packed));
        _mm_storel_epi64((__m128i *)(sums + 3 * x + 3), _mm256_extracti128_si256(packed, 1));
    }
    sum_from(columns, row, x, sums);
}

__attribute__((target("avx2"))) static void blend_avx2(const int16_t *above, const int16_t *below,
                                                       struct sac_resize_tap tap, int count,
                                                       uint8_t *dst)
{
    __m256i first = _mm256_set1_epi16(tap.first), second = _mm256_set1_epi16(tap.second);
    __m256i half = _mm256_set1_epi16(2);
    int i = 0;

    for (; i + 16 <= count; i += 16) {
        __m256i a = _mm256_mulhi_epi16(_mm256_loadu_si256((const __m256i *)(above + i)), first);
        __m256i b = _mm256_mulhi_epi16(_mm256_loadu_si256((const __m256i *)(below + i)), second);
        __m256i sum = _mm256_srai_epi16(_mm256_add_epi16(_mm256_add_epi16(a, b), half), 2);
        __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(sum, sum), 0x08);
        _mm_storeu_si128((__m128i *)(dst + i), _mm256_castsi256_si128(bytes));
    }
    blend_from(above, below, tap, i, count, dst);
}

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

/* Four columns: each in 16 bytes of its own, then their 12 sums side by side. */
AVX512 static void sum_avx512(const struct sac_resize_columns *columns, const uint8_t *row,
                              int16_t *sums)
{
    const __m512i pairs = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m512i spread = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
    const __m512i lower_halves = _mm512_castsi256_si512(
        _mm256_setr_epi16(0, 2, 4, 8, 10, 12, 16, 18, 20, 24, 26, 28, 0, 0, 0, 0));
    int x = 0;

    for (; is_rgb(columns) && fits(columns, x + 3); x += 4) {
        __m128i low =
            _mm_unpacklo_epi64(load_pixels(columns, row, x), load_pixels(columns, row, x + 1));
        __m128i high =
            _mm_unpacklo_epi64(load_pixels(columns, row, x + 2), load_pixels(columns, row, x + 3));
        __m512i pixels = _mm512_castsi256_si512(_mm256_set_m128i(high, low));
        pixels = _mm512_shuffle_epi8(_mm512_permutexvar_epi64(spread, pixels), pairs);
        __m512i sum = _mm512_madd_epi16(pixels, _mm512_loadu_si512(weights_at(columns, x)));
        sum = _mm512_permutexvar_epi16(lower_halves, _mm512_srai_epi32(sum, 4));
        _mm256_storeu_si256((__m256i *)(sums + 3 * x), _mm512_castsi512_si256(sum));
    }
    sum_from(columns, row, x, sums);
}

AVX512 static void blend_avx512(const int16_t *above, const int16_t *below,
                                struct sac_resize_tap tap, int count, uint8_t *dst)
{
    __m512i first = _mm512_set1_epi16(tap.first), second = _mm512_set1_epi16(tap.second);
    __m512i half = _mm512_set1_epi16(2);

    for (int i = 0; i < count; i += 32) {
        __mmask32 mask = count - i >= 32 ? ~0u : (1u << (count - i)) - 1;
        __m512i a = _mm512_mulhi_epi16(_mm512_maskz_loadu_epi16(mask, above + i), first);
        __m512i b = _mm512_mulhi_epi16(_mm512_maskz_loadu_epi16(mask, below + i), second);
        __m512i sum = _mm512_srai_epi16(_mm512_add_epi16(_mm512_add_epi16(a, b), half), 2);
        _mm256_mask_storeu_epi8(dst + i, mask, _mm512_cvtepi16_epi8(sum));
    }
}

/* A group: one load, its bytes to their places, 15 sums and a store that the next one covers. */
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi"))) static void
sum_vbmi(const struct sac_resize_columns *columns, const uint8_t *row, int16_t *sums)
{
    const __mmask64 lower_bytes = 0x5555555555555555;
    int count = columns->groups ? sac_resize_group_count(columns) : 0;

    if (count == 0) {
        sum_avx512(columns, row, sums);
        return;
    }
    for (int i = 0; i < count; i++) {
        const struct sac_resize_group *group = &columns->groups[i];
        __m512i pixels = _mm512_maskz_loadu_epi8(group->bytes, row + group->at);
        pixels =
            _mm512_maskz_permutexvar_epi8(lower_bytes, _mm512_loadu_si512(group->from), pixels);
        __m512i sum = _mm512_madd_epi16(pixels, _mm512_loadu_si512(group->weights));
        _mm256_storeu_si256((__m256i *)(sums + 3 * SAC_RESIZE_GROUP * i),
                            _mm512_cvtepi32_epi16(_mm512_srai_epi32(sum, 4)));
    }
}

static const struct sac_resize_kernels vbmi = {"AVX-512 VBMI", true, sum_vbmi, blend_avx512};
static const struct sac_resize_kernels avx512 = {"AVX-512", false, sum_avx512, blend_avx512};
static const struct sac_resize_kernels avx2 = {"AVX2", false, sum_avx2, blend_avx2};
static const struct sac_resize_kernels sse2 = {"SSE2", false, sum_sse2, blend_sse2};
#endif

/* Not sac_cpu_features(): cpuid is slow where a hypervisor answers it. */
const struct sac_resize_kernels *sac_resize_kernels_of(int index)
{
    const struct sac_resize_kernels *found[6] = {NULL};
    int count = 0;

#if defined(__x86_64__)
    bool wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq");
    if (wide && __builtin_cpu_supports("avx512vbmi"))
        found[count++] = &vbmi;
    if (wide)
        found[count++] = &avx512;
    if (__builtin_cpu_supports("avx2"))
        found[count++] = &avx2;
    found[count++] = &sse2;
#endif
    found[count++] = &plain;
    return index < count ? found[index] : NULL;
}
