/*
 * Training's pictures on their way to a device: 8-bit crops, of which the device makes
 * plain fp32 values.
 */
#ifndef SAC_DEVICE_CROPS_H
#define SAC_DEVICE_CROPS_H

#include <stdint.h>

/* Where a crop is from; what lies outside of the picture is 0. */
struct sac_crop_place {
    int32_t x, y;          /* the crop's corner in the picture; negative inside of padding */
    int32_t width, height; /* the picture's */
    int32_t mirror;        /* left to right, or 0 */
};

/* Value (c, y, x) of an item's crop is its byte at first + c · plane + y · row + x · pixel. */
struct sac_crop_layout {
    int32_t first, plane, row, pixel;
};

/* to = (from − mean) · scale, mirrored: as data/transform.h has it, bit for bit. All
 * pointers are the device's. */
struct sac_crops {
    const uint8_t *from; /* count × channels · height · width bytes */
    const struct sac_crop_place *places;
    float *to; /* count × channels × height × width */
    int count, channels, height, width;
    struct sac_crop_layout layout;
    /* NULL: 0. Values, one or one a channel; or (mean_count 0) an image: of a picture's
     * size it is cropped and mirrored with it, else it is the crop's and laid over it. */
    const float *mean;
    int mean_count, mean_height, mean_width;
    float scale;
};

#endif
