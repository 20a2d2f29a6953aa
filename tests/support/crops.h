/* What device/crops.h says of a batch's crops, as plain loops over the host's memory; changes
 * as the host makes them. */
#ifndef SAC_TESTS_CROPS_H
#define SAC_TESTS_CROPS_H

#include <stddef.h>
#include <string.h>

#include "data/augment.h"
#include "device/crops.h"

static inline float crop_mean(const struct sac_crops *p, const struct sac_crop_place *place, int c,
                              int y, int x, int from_y, int from_x)
{
    if (!p->mean || p->mean_count > 0)
        return p->mean ? p->mean[p->mean_count > 1 ? c : 0] : 0;
    if (place->width == p->mean_width && place->height == p->mean_height)
        return p->mean[(c * place->height + from_y) * place->width + from_x];
    return p->mean[(c * p->height + y) * p->width + x];
}

/* One value a channel. */
static inline void crop_pixel(const struct sac_crops *p, int n, int y, int x, float *values)
{
    const struct sac_crop_place *place = &p->places[n];
    const uint8_t *item = p->from + (size_t)n * (size_t)(p->channels * p->height * p->width);
    int column = place->mirror ? p->width - 1 - x : x;
    int from_y = place->y + y, from_x = place->x + column;
    int at = p->layout.first + y * p->layout.row + column * p->layout.pixel;

    memset(values, 0, (size_t)p->channels * sizeof *values);
    if (from_y < 0 || from_y >= place->height || from_x < 0 || from_x >= place->width)
        return;
    for (int c = 0; c < p->channels; c++)
        values[c] = (float)item[at + c * p->layout.plane];
    sac_augment_color(p->changes, &place->change, values, p->channels, 1);
    for (int c = 0; c < p->channels; c++)
        values[c] = (values[c] - crop_mean(p, place, c, y, x, from_y, from_x)) * p->scale;
}

static inline void crop_values(const struct sac_crops *p, float *to)
{
    const int shape[3] = {p->channels, p->height, p->width}, area = p->height * p->width;
    float values[SAC_TRANSFORM_MEANS_MAX];

    for (int n = 0; n < p->count; n++, to += p->channels * area) {
        const struct sac_crop_change *change = &p->places[n].change;
        for (int i = 0; i < area; i++) {
            crop_pixel(p, n, i / p->width, i % p->width, values);
            for (int c = 0; c < p->channels; c++)
                to[c * area + i] = values[c];
        }
        if (p->changes & SAC_CROP_NOISE)
            sac_augment_noise(change, to, (size_t)(p->channels * area), p->noise_deviation);
        if (p->changes & SAC_CROP_CUTOUT)
            sac_augment_cutout(change, to, shape);
    }
}

#endif
