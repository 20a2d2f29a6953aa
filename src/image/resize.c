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

#include "image/resize_kernels.h"

#define WEIGHT_ONE 2048

struct resizer {
    const struct sac_image *src;
    const struct sac_resize_kernels *kernels;
    struct sac_resize_columns columns;
    int16_t *sums[2]; /* two source rows, summed horizontally */
    int row[2];       /* which; −1: none */
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

static int clamp(int value, int most)
{
    return value < 0 ? 0 : value > most ? most : value;
}

static struct sac_resize_tap tap_of(int at, float fraction)
{
    return (struct sac_resize_tap){at, (int16_t)lrintf((1.f - fraction) * WEIGHT_ONE),
                                   (int16_t)lrintf(fraction * WEIGHT_ONE)};
}

/* Columns are kept inside the source, so that both pixels can be read. */
static struct sac_resize_tap column_tap(int i, int src, int dst)
{
    float fraction;
    int at = locate(i, src, dst, &fraction);

    if (at < 0)
        return tap_of(0, 0.f);
    if (at < src - 1)
        return tap_of(at, fraction);
    return src > 1 ? tap_of(src - 2, 1.f) : tap_of(0, 0.f);
}

/* The sums of source row y; `keep` is another row that must stay. */
static const int16_t *summed_row(struct resizer *r, int y, int keep)
{
    int slot = r->row[0] == y ? 0 : 1;

    if (r->row[slot] != y) {
        slot = r->row[0] == keep ? 1 : 0;
        r->kernels->sum(&r->columns, r->src->pixels + (size_t)y * r->src->stride, r->sums[slot]);
        r->row[slot] = y;
    }
    return r->sums[slot];
}

static void resize_row(struct resizer *r, int y, int full_height, uint8_t *dst)
{
    int last = r->src->height - 1;
    float fraction;
    int at = locate(y, r->src->height, full_height, &fraction);
    int upper = clamp(at, last), lower = clamp(at + 1, last);

    const int16_t *above = summed_row(r, upper, lower);
    const int16_t *below = summed_row(r, lower, upper);
    r->kernels->blend(above, below, tap_of(at, fraction), r->columns.width * r->columns.channels,
                      dst);
}

struct tables {
    struct sac_resize_group *groups;
    struct sac_resize_tap *taps;
    int16_t *weights;
};

/* The columns' groups, taps and weights, then two rows of sums. */
static int reserve(struct resizer *r, struct sac_resize_scratch *scratch, struct tables *ret,
                   struct sac_error *err)
{
    size_t width = (size_t)r->columns.width;
    size_t groups =
        r->kernels->groups ? (size_t)sac_resize_group_count(&r->columns) * sizeof *ret->groups : 0;
    size_t taps = width * sizeof *ret->taps;
    size_t weights = width * SAC_RESIZE_WEIGHTS * sizeof *ret->weights;
    size_t row = (width * (size_t)r->columns.channels + SAC_RESIZE_SPARE) * sizeof *r->sums[0];
    size_t need = groups + taps + weights + 2 * row;

    if (need > scratch->size) {
        free(scratch->memory);
        scratch->memory = malloc(need);
        scratch->size = scratch->memory ? need : 0;
    }
    if (!scratch->memory)
        return sac_fail(err, SAC_ENOMEM, "resize: no memory for %zu bytes", need);
    char *memory = scratch->memory;
    ret->groups = groups ? (struct sac_resize_group *)memory : NULL;
    memory += groups;
    ret->taps = (struct sac_resize_tap *)memory;
    ret->weights = (int16_t *)(memory + taps);
    r->sums[0] = (int16_t *)(memory + taps + weights);
    r->sums[1] = (int16_t *)(memory + taps + weights + row);
    return 0;
}

static int set_columns(struct resizer *r, const struct sac_resize_window *window,
                       struct sac_resize_scratch *scratch, struct sac_error *err)
{
    struct tables to = {0};
    int rc = reserve(r, scratch, &to, err);

    for (int x = 0; rc == 0 && x < window->width; x++) {
        struct sac_resize_tap tap = column_tap(window->x + x, r->src->width, window->full_width);
        tap.at *= r->src->channels;
        to.taps[x] = tap;
        for (int i = 0; i < SAC_RESIZE_WEIGHTS; i++)
            to.weights[x * SAC_RESIZE_WEIGHTS + i] = i % 2 ? tap.second : tap.first;
    }
    if (rc < 0)
        return rc;
    r->columns.taps = to.taps;
    r->columns.weights = to.weights;
    if (to.groups && sac_resize_group_columns(&r->columns, to.groups))
        r->columns.groups = to.groups;
    return 0;
}

/* Of a last pixel alone, its left neighbour is read, too: column_tap. */
void sac_resize_span(int full, int at, int count, int src, int *ret_from, int *ret_to)
{
    float fraction;

    *ret_from = clamp(locate(at, src, full, &fraction), src > 1 ? src - 2 : 0);
    *ret_to = clamp(locate(at + count - 1, src, full, &fraction) + 1, src - 1) + 1;
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
        .kernels = sac_resize_kernels_of(0),
        .columns = {.channels = src->channels,
                    .width = window->width,
                    .next = src->width > 1 ? src->channels : 0,
                    .row_bytes = src->width * src->channels},
        .row = {-1, -1},
    };
    int rc = set_columns(&r, window, scratch, err);
    if (rc < 0)
        return rc;
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
