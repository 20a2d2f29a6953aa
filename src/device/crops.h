/*
 * Training's pictures on their way to a device: 8-bit crops, of which the device makes
 * plain fp32 values.
 */
#ifndef SAC_DEVICE_CROPS_H
#define SAC_DEVICE_CROPS_H

#include <stdint.h>

/* What training changes in a batch's crops, in this order: colours before the mean is taken
 * off, the others in what would be written. */
enum sac_crop_changes {
    SAC_CROP_BRIGHTNESS = 1,
    SAC_CROP_CONTRAST = 2,
    SAC_CROP_SATURATION = 4, /* this and hue: of three channels */
    SAC_CROP_HUE = 8,
    SAC_CROP_COLORS = 15,
    SAC_CROP_NOISE = 16,
    SAC_CROP_CUTOUT = 32,
};

/* How much, drawn for one crop. What is not among the batch's changes is not read. */
struct sac_crop_change {
    float brightness, contrast, saturation; /* factors */
    float grey;                             /* the picture's mean, which contrast is about */
    float hue;                              /* part of the circle */
    int32_t rgb;                            /* three channels are R, G, B; 0: B, G, R */
    /* Value i of the crop, channels × height × width, has its noise from numbers
     * first + 2 i and the next of the Philox stream whose block `counter` has number 0. */
    uint32_t noise_key[2], noise_counter[4], noise_first;
    int32_t cut_left, cut_top, cut_right, cut_bottom; /* of the crop, to 0; the last two excluded */
};

/* Where a crop is from; what lies outside of the picture is 0. */
struct sac_crop_place {
    int32_t x, y;          /* the crop's corner in the picture; negative inside of padding */
    int32_t width, height; /* the picture's */
    int32_t mirror;        /* left to right, or 0 */
    struct sac_crop_change change;
};

/* Value (c, y, x) of an item's crop is its byte at first + c · plane + y · row + x · pixel. */
struct sac_crop_layout {
    int32_t first, plane, row, pixel;
};

/* to = (from − mean) · scale, mirrored: as data/transform.h has it, bit for bit where nothing
 * is changed. All pointers are the device's. */
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
    unsigned changes;      /* of enum sac_crop_changes */
    float noise_deviation; /* of what is written */
};

#endif
