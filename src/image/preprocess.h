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
    /* The shorter side to `width` (= height, or that 0), aspect kept, centre crop follows. The
     * longer becomes floor(longer · width / shorter + 1/2). */
    SAC_RESIZE_SHORT,
    SAC_RESIZE_NONE, /* the picture must be large enough for the crop; always decoded exactly */
};

enum sac_decode_mode {
    SAC_DECODE_FAST, /* JPEG may be scaled by a power of two while it is decoded */
    SAC_DECODE_EXACT,
};

/* What is done before the device's first operation, and what that operation
 * does. Start from sac_preprocess_default(). */
struct sac_preprocess {
    enum sac_resize resize;
    int resize_width, resize_height; /* 0: the crop's size (SHORT: its larger side) */
    /* What the net takes: centred, from floor((height − crop_height) / 2), as Caffe's test phase.
     */
    int crop_width, crop_height;
    int channels; /* 3 or 1 */
    enum sac_decode_mode decode;
    uint8_t background[3];
    /* The device's part: y = (x − mean[c]) · scale, x in 0 … 255, then the
     * channel order. */
    bool bgr;      /* planes B, G, R (Caffe, OpenCV) or R, G, B */
    float mean[3]; /* in the net's channel order */
    float scale;
    /* A whole mean image instead of `mean`: channels × crop_height × crop_width
     * in the net's order, or NULL. Borrowed. */
    const float *mean_image;
    struct sac_image_limits limits;
};

/* What sac_preprocess_pixels() writes. */
static inline size_t sac_preprocess_bytes(const struct sac_preprocess *how)
{
    return (size_t)how->crop_height * (size_t)how->crop_width * (size_t)how->channels;
}

/* GPU REST Engine's: squash to width × height, B, G, R, mean 0, scale 1, fast
 * decoding, background black. */
struct sac_preprocess sac_preprocess_default(int channels, int width, int height);

/* Decodes, resizes and crops into dst: crop_height × crop_width × channels,
 * interleaved R, G, B (the device swaps to B, G, R), rows packed. Only what the
 * crop shows is resized. Errors are sac_image_decode's, and SAC_EINVAL for sizes
 * that make no sense, or a picture that is smaller than the crop. */
int sac_preprocess_pixels(const struct sac_preprocess *how, struct sac_decoder *decoder,
                          const uint8_t *bytes, size_t size, const atomic_bool *canceled,
                          uint8_t *dst, struct sac_error *err);

/* Bilinear, half-pixel centres, edges repeated, 8-bit in and out: to the bit what
 * OpenCV's INTER_LINEAR computes (11-bit fixed-point weights on both axes). `src`
 * has 1 or 3 channels.
 * `scratch` grows as needed and is reused; start it as NULL/0, free() at the end. */
struct sac_resize_scratch {
    void *memory;
    size_t size;
};
int sac_resize_bilinear(const struct sac_image *src, int width, int height, uint8_t *dst,
                        size_t dst_stride, struct sac_resize_scratch *scratch,
                        struct sac_error *err);

#endif
