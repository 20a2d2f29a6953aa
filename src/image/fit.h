/*
 * A picture brought to a fixed size, in the four ways that DIGITS offers, for data
 * sets. Decoding and bilinear scaling are those of preprocess.h. Any thread, a
 * decoder or scratch on one at a time.
 */
#ifndef SAC_IMAGE_FIT_H
#define SAC_IMAGE_FIT_H

#include "image/preprocess.h"

enum sac_fit_mode {
    SAC_FIT_SQUASH, /* to the size, aspect not kept */
    SAC_FIT_CROP,   /* aspect kept, large enough to cover the size, centre cropped */
    SAC_FIT_FILL,   /* aspect kept, small enough to lie within, noise around */
    /* Half way: scaled by the mean of the two ratios; the long side is cropped, the
     * short one has noise around. */
    SAC_FIT_HALF_CROP,
};

struct sac_fit {
    enum sac_fit_mode mode;
    int width, height; /* of the result, 1 to 16,384 */
    int channels;      /* 3: R, G, B; 1: grey */
    enum sac_decode_mode decode;
    uint8_t background[3]; /* below alpha */
    struct sac_image_limits limits;
};

/* The picture scaled to full_width × full_height; of it, the window of
 * width × height from (x, y) lands at (left, top) of the result. */
struct sac_fit_plan {
    int full_width, full_height, x, y, width, height, left, top;
};

/* As DIGITS' resize_image(): with rw = w / W and rh = h / H, CROP divides both sides
 * by min(rw, rh), FILL by max, HALF_CROP by (rw + rh) / 2, rounded to whole pixels;
 * what is padded is made even on both ends. Crops start at floor(excess / 2), as
 * those of preprocess.h. SAC_EINVAL: a size that is none; SAC_ELIMIT: a picture too
 * long and thin. */
int sac_fit_plan(const struct sac_fit *fit, int width, int height, struct sac_fit_plan *ret,
                 struct sac_error *err);

/* Pixels to dst[height × width × channels], R, G, B interleaved. Noise is a function
 * of `noise` alone. `src` has the fit's channels. */
int sac_fit_image(const struct sac_fit *fit, const struct sac_image *src, uint64_t noise,
                  struct sac_resize_scratch *scratch, uint8_t *dst, struct sac_error *err);

/* The same from a JPEG or PNG. Errors are sac_image_decode's, and the above. */
int sac_fit_pixels(const struct sac_fit *fit, struct sac_decoder *decoder, const uint8_t *bytes,
                   size_t size, uint64_t noise, uint8_t *dst, struct sac_error *err);

#endif
