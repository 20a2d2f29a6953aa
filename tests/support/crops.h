/* What device/crops.h says of a batch's crops, as plain loops over the host's memory. */
#ifndef SAC_TESTS_CROPS_H
#define SAC_TESTS_CROPS_H

#include <stddef.h>

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

static inline float crop_value(const struct sac_crops *p, int n, int c, int y, int x)
{
    const struct sac_crop_place *place = &p->places[n];
    const uint8_t *item = p->from + (size_t)n * (size_t)(p->channels * p->height * p->width);
    int column = place->mirror ? p->width - 1 - x : x;
    int from_y = place->y + y, from_x = place->x + column;
    int at = p->layout.first + c * p->layout.plane + y * p->layout.row + column * p->layout.pixel;

    if (from_y < 0 || from_y >= place->height || from_x < 0 || from_x >= place->width)
        return 0;
    return ((float)item[at] - crop_mean(p, place, c, y, x, from_y, from_x)) * p->scale;
}

static inline void crop_values(const struct sac_crops *p, float *to)
{
    for (int n = 0; n < p->count; n++)
        for (int c = 0; c < p->channels; c++)
            for (int y = 0; y < p->height; y++)
                for (int x = 0; x < p->width; x++)
                    *to++ = crop_value(p, n, c, y, x);
}

#endif
