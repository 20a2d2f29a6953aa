/*
 * From a picture's bytes to a net's input, the same way everywhere: serving,
 * classify, test and training share this. Pixels stay 8-bit; mean, scale and
 * layout are the device's first operation.
 */
#ifndef SAC_IMAGE_PREPROCESS_H
#define SAC_IMAGE_PREPROCESS_H

#include "image/image.h"

enum sac_resize {
    SAC_RESIZE_SQUASH, /* bilinear to width × height, aspect not kept: GPU REST Engine's way */
    SAC_RESIZE_SHORT,  /* the shorter side to `width` (= height), aspect kept, centre crop follows */
    SAC_RESIZE_NONE,   /* the picture must be large enough for the crop */
};

enum sac_decode_mode {
    SAC_DECODE_FAST, /* JPEG may be scaled by a power of two while it is decoded */
    SAC_DECODE_EXACT,
};

/* What is done before the device's first operation, and what that operation
 * does. Start from sac_preprocess_default(). */
struct sac_preprocess {
    enum sac_resize resize;
    int resize_width, resize_height; /* 0: the crop's size */
    int crop_width, crop_height;     /* what the net takes; centred */
    int channels;                    /* 3 or 1 */
    enum sac_decode_mode decode;
    uint8_t background[3];
    /* The device's part: y = (x − mean[c]) · scale, x in 0 … 255, then the
     * channel order. */
    bool bgr;         /* planes B, G, R (Caffe, OpenCV) or R, G, B */
    float mean[3];    /* in the net's channel order */
    float scale;
    /* A whole mean image instead of `mean`: channels × crop_height × crop_width
     * in the net's order, or NULL. Borrowed. */
    const float *mean_image;
    struct sac_image_limits limits;
};

/* GPU REST Engine's: squash to width × height, B, G, R, mean 0, scale 1, fast
 * decoding, background black. */
struct sac_preprocess sac_preprocess_default(int channels, int width, int height);

/* Decodes, resizes and crops into dst: crop_height × crop_width × channels,
 * interleaved R, G, B (the device swaps to B, G, R), rows packed. */
int sac_preprocess_pixels(const struct sac_preprocess *how, struct sac_decoder *decoder,
                          const uint8_t *bytes, size_t size, const atomic_bool *canceled,
                          uint8_t *dst, struct sac_error *err);

/* Bilinear, half-pixel centres, edges repeated, 8-bit in and out: what OpenCV's
 * INTER_LINEAR computes (11-bit fixed-point weights, both axes, rounded once).
 * `scratch` grows as needed and is reused; start it as NULL/0, free() at the end. */
struct sac_resize_scratch {
    void *memory;
    size_t size;
};
int sac_resize_bilinear(const struct sac_image *src, int width, int height, uint8_t *dst,
                        size_t dst_stride, struct sac_resize_scratch *scratch,
                        struct sac_error *err);

#endif
