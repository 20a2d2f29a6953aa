/*
 * Bilinear resizing to the bit as OpenCV's INTER_LINEAR for 8-bit pictures:
 * weights are fixed point with 11 bits, made from float32 fractions; the
 * horizontal sum drops 4 bits, each vertical product 16, and 2 remain to be
 * rounded. No smoothing where the picture becomes smaller: nets were trained on
 * pictures made this way.
 *
 * A row of the source is summed horizontally once, into 16 bits, and used by
 * each row of the result that lies next to it.
 */
#include "image/decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define WEIGHT_ONE 2048
#define ROW_SPARE 16 /* sums behind a row's end, which wide stores may touch */

/* Of one column or row of the result: the first of the two source pixels, as an
 * index (columns: times channels), and the weights of both. */
struct tap {
    int32_t at;
    int16_t first, second;
};

struct resizer {
    const struct sac_image *src;
    int channels, width; /* of the window */
    int next;            /* from a pixel to its right neighbour: channels, or 0 if there is none */
    struct tap *columns;
    int16_t *sums[2]; /* two source rows, summed horizontally */
    int row[2];       /* which; −1: none */
    bool avx2;
};

/* Where the centre of result pixel `i` falls in a source of `src` pixels that
 * becomes `dst` pixels, and how far past that pixel's own centre. */
static int locate(int i, int src, int dst, float *ret_fraction)
{
    double scale = 1.0 / ((double)dst / src);
    float position = (float)((i + 0.5) * scale - 0.5);
    int at = (int)floorf(position);

    *ret_fraction = position - (float)at;
    return at;
}

static struct tap tap_of(int at, float fraction)
{
    return (struct tap){at, (int16_t)lrintf((1.f - fraction) * WEIGHT_ONE),
                        (int16_t)lrintf(fraction * WEIGHT_ONE)};
}

/* Columns are kept inside the source, so that both pixels can be read. */
static struct tap column_tap(int i, int src, int dst)
{
    float fraction;
    int at = locate(i, src, dst, &fraction);

    if (at < 0)
        return tap_of(0, 0.f);
    if (at < src - 1)
        return tap_of(at, fraction);
    return src > 1 ? tap_of(src - 2, 1.f) : tap_of(0, 0.f);
}

static void sum_columns(const struct resizer *r, const uint8_t *row, int from, int16_t *sums)
{
    for (int x = from; x < r->width; x++) {
        struct tap tap = r->columns[x];
        for (int c = 0; c < r->channels; c++) {
            const uint8_t *pixel = row + tap.at + c;
            sums[x * r->channels + c] =
                (int16_t)((pixel[0] * tap.first + pixel[r->next] * tap.second) >> 4);
        }
    }
}

static inline uint8_t blend(int16_t above, int16_t below, struct tap tap)
{
    return (uint8_t)(((above * tap.first >> 16) + (below * tap.second >> 16) + 2) >> 2);
}

static void blend_rows(const int16_t *above, const int16_t *below, struct tap tap, int from,
                       int count, uint8_t *dst)
{
    for (int i = from; i < count; i++)
        dst[i] = blend(above[i], below[i], tap);
}

#if defined(__x86_64__)
/* Two pixels of three channels at a time; returns how many columns it did. A
 * load takes 8 bytes where 6 are used: columns whose load would end behind the
 * row are left to the plain loop. Stores of 4 sums overlap by one. */
__attribute__((target("avx2"))) static int sum_columns_avx2(const struct resizer *r,
                                                            const uint8_t *row, int16_t *sums)
{
    const __m256i pairs =
        _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 0, -1, 3, -1, 1,
                         -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    int last = 3 * r->src->width - 8;
    int x = 0;

    for (; x + 1 < r->width && r->columns[x + 1].at <= last; x += 2) {
        struct tap a = r->columns[x], b = r->columns[x + 1];
        int32_t a_weights, b_weights;
        memcpy(&a_weights, &a.first, 4);
        memcpy(&b_weights, &b.first, 4);
        __m256i pixels = _mm256_set_m128i(_mm_loadl_epi64((const __m128i *)(row + b.at)),
                                          _mm_loadl_epi64((const __m128i *)(row + a.at)));
        __m256i weights = _mm256_set_m128i(_mm_set1_epi32(b_weights), _mm_set1_epi32(a_weights));
        __m256i sum = _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, pairs), weights);
        __m256i packed = _mm256_srai_epi32(sum, 4);
        packed = _mm256_packs_epi32(packed, packed);
        _mm_storel_epi64((__m128i *)(sums + 3 * x), _mm256_castsi256_si128(packed));
        _mm_storel_epi64((__m128i *)(sums + 3 * x + 3), _mm256_extracti128_si256(packed, 1));
    }
    return x;
}

__attribute__((target("avx2"))) static int
blend_rows_avx2(const int16_t *above, const int16_t *below, struct tap tap, int count, uint8_t *dst)
{
    __m256i first = _mm256_set1_epi16(tap.first), second = _mm256_set1_epi16(tap.second);
    __m256i half = _mm256_set1_epi16(2);
    int i = 0;

    for (; i + 16 <= count; i += 16) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(above + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(below + i));
        __m256i sum = _mm256_add_epi16(_mm256_mulhi_epi16(a, first), _mm256_mulhi_epi16(b, second));
        sum = _mm256_srai_epi16(_mm256_add_epi16(sum, half), 2);
        __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(sum, sum), 0x08);
        _mm_storeu_si128((__m128i *)(dst + i), _mm256_castsi256_si128(bytes));
    }
    return i;
}
#endif

static void sum_row(const struct resizer *r, int y, int16_t *sums)
{
    const uint8_t *row = r->src->pixels + (size_t)y * r->src->stride;
    int done = 0;

#if defined(__x86_64__)
    if (r->avx2 && r->channels == 3 && r->next == 3)
        done = sum_columns_avx2(r, row, sums);
#endif
    sum_columns(r, row, done, sums);
}

static void blend_row(const struct resizer *r, const int16_t *above, const int16_t *below,
                      struct tap tap, uint8_t *dst)
{
    int count = r->width * r->channels, done = 0;

#if defined(__x86_64__)
    if (r->avx2)
        done = blend_rows_avx2(above, below, tap, count, dst);
#endif
    blend_rows(above, below, tap, done, count, dst);
}

/* The sums of source row y; `keep` is another row that must stay. */
static const int16_t *summed_row(struct resizer *r, int y, int keep)
{
    int slot = r->row[0] == y ? 0 : 1;

    if (r->row[slot] != y) {
        slot = r->row[0] == keep ? 1 : 0;
        sum_row(r, y, r->sums[slot]);
        r->row[slot] = y;
    }
    return r->sums[slot];
}

static int clamp(int value, int most)
{
    return value < 0 ? 0 : value > most ? most : value;
}

static void resize_row(struct resizer *r, int y, int full_height, uint8_t *dst)
{
    int last = r->src->height - 1;
    float fraction;
    int at = locate(y, r->src->height, full_height, &fraction);
    int upper = clamp(at, last), lower = clamp(at + 1, last);

    const int16_t *above = summed_row(r, upper, lower);
    const int16_t *below = summed_row(r, lower, upper);
    blend_row(r, above, below, tap_of(at, fraction), dst);
}

/* The columns' taps, then two rows of sums. */
static int reserve(struct resizer *r, struct sac_resize_scratch *scratch, struct sac_error *err)
{
    size_t width = (size_t)r->width;
    size_t taps = width * sizeof *r->columns;
    size_t row = width * (size_t)r->channels + ROW_SPARE;
    size_t need = taps + 2 * row * sizeof *r->sums[0];

    if (need > scratch->size) {
        free(scratch->memory);
        scratch->memory = malloc(need);
        scratch->size = scratch->memory ? need : 0;
    }
    if (!scratch->memory)
        return sac_fail(err, SAC_ENOMEM, "resize: no memory for %zu bytes", need);
    r->columns = scratch->memory;
    r->sums[0] = (int16_t *)((char *)scratch->memory + taps);
    r->sums[1] = r->sums[0] + row;
    return 0;
}

/* Not sac_cpu_features(): cpuid is slow where a hypervisor answers it. */
static bool has_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

static bool sane(const struct sac_image *src, const struct sac_resize_window *window)
{
    return src->width > 0 && src->height > 0 && src->width <= INT32_MAX / 16 &&
           (src->channels == 1 || src->channels == 3) && window->x >= 0 && window->y >= 0 &&
           window->width > 0 && window->height > 0 &&
           window->width <= window->full_width - window->x &&
           window->height <= window->full_height - window->y;
}

int sac_resize_bilinear_window(const struct sac_image *src, const struct sac_resize_window *window,
                               uint8_t *dst, size_t dst_stride, struct sac_resize_scratch *scratch,
                               struct sac_error *err)
{
    if (!sane(src, window))
        return sac_fail(err, SAC_EINVAL, "resize: %d × %d × %d cannot become %d × %d", src->width,
                        src->height, src->channels, window->full_width, window->full_height);
    struct resizer r = {
        .src = src,
        .channels = src->channels,
        .width = window->width,
        .next = src->width > 1 ? src->channels : 0,
        .row = {-1, -1},
        .avx2 = has_avx2(),
    };
    int rc = reserve(&r, scratch, err);
    if (rc < 0)
        return rc;
    for (int x = 0; x < window->width; x++) {
        r.columns[x] = column_tap(window->x + x, src->width, window->full_width);
        r.columns[x].at *= src->channels;
    }
    for (int y = 0; y < window->height; y++)
        resize_row(&r, window->y + y, window->full_height, dst + (size_t)y * dst_stride);
    return 0;
}

int sac_resize_bilinear(const struct sac_image *src, int width, int height, uint8_t *dst,
                        size_t dst_stride, struct sac_resize_scratch *scratch,
                        struct sac_error *err)
{
    struct sac_resize_window all = {width, height, 0, 0, width, height};

    return sac_resize_bilinear_window(src, &all, dst, dst_stride, scratch, err);
}
