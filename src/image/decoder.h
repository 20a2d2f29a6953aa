/*
 * What the JPEG and PNG readers share with the decoder that owns them. Private
 * to src/image. One thread at a time.
 */
#ifndef SAC_IMAGE_DECODER_H
#define SAC_IMAGE_DECODER_H

#include "image/image.h"
#include "image/preprocess.h"

/* Bytes that are kept for the next picture: they grow, and shrink only in
 * sac_decoder_trim. They count towards sac_image_set_memory_max. */
struct sac_image_bytes {
    uint8_t *data;
    size_t size;
};

struct sac_jpeg;

struct sac_decoder {
    struct sac_jpeg *jpeg;            /* made with the first JPEG */
    struct sac_image_bytes pixels;    /* the picture that is handed out */
    struct sac_image_bytes work;      /* a strip of JPEG rows; PNG rows before alpha is laid */
    struct sac_resize_scratch resize; /* of sac_preprocess_pixels */
};

/* Counts so many bytes more towards sac_image_set_memory_max: SAC_ELIMIT when they are more
 * than all, SAC_EBUSY when they are beside what others hold. `what` is for the sentence. */
int sac_image_memory_take(size_t bytes, const char *what, struct sac_error *err);
void sac_image_memory_give(size_t bytes);

/* Makes room for rows × width × channels bytes, whose content is undefined. */
int sac_image_bytes_reserve(struct sac_image_bytes *bytes, size_t rows, size_t width,
                            size_t channels, struct sac_error *err);

/* Gives buffers back once a picture has been used: large ones, so that one huge
 * picture does not hold its memory from then on, and all while decoders together
 * hold over half of sac_image_set_memory_max, so that those that rest starve none. */
void sac_decoder_trim(struct sac_decoder *decoder);

/* `limits`, or NULL, with the defaults put in. */
struct sac_image_limits sac_image_limits_resolve(const struct sac_image_limits *limits);

/* Refuses what is empty or over the limits on sides and pixels. `name` is the
 * kind, for the sentence. */
int sac_image_size_check(const struct sac_image_limits *limits, const char *name, uint64_t width,
                         uint64_t height, struct sac_error *err);

/* SAC_ECANCELED once the options' flag is set. */
int sac_image_canceled_check(const struct sac_decode_options *options, struct sac_error *err);

/* ITU-R BT.601 luma of 8-bit R, G, B, in OpenCV's 14-bit fixed point. */
static inline uint8_t sac_image_luma(const uint8_t rgb[3])
{
    return (uint8_t)((rgb[0] * 4899u + rgb[1] * 9617u + rgb[2] * 1868u + 8192u) >> 14);
}

/* round(a · b / 255) for a, b in 0 … 255. */
static inline uint8_t sac_image_mul_255(unsigned a, unsigned b)
{
    unsigned product = a * b + 128;

    return (uint8_t)((product + (product >> 8)) >> 8);
}

/* `limits` below are resolved, options valid. */
int sac_jpeg_probe(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                   const struct sac_image_limits *limits, struct sac_image_info *ret,
                   struct sac_error *err);
int sac_jpeg_decode(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                    const struct sac_image_limits *limits, const struct sac_decode_options *options,
                    struct sac_image *ret, struct sac_error *err);

int sac_png_probe(const uint8_t *bytes, size_t size, const struct sac_image_limits *limits,
                  struct sac_image_info *ret, struct sac_error *err);
int sac_png_decode(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                   const struct sac_image_limits *limits, const struct sac_decode_options *options,
                   struct sac_image *ret, struct sac_error *err);

/* NULL, too. */
void sac_jpeg_free(struct sac_jpeg *jpeg);

/* Only what the window needs is computed. */
int sac_resize_bilinear_window(const struct sac_image *src, const struct sac_resize_window *window,
                               uint8_t *dst, size_t dst_stride, struct sac_resize_scratch *scratch,
                               struct sac_error *err);
/* Which pixels of a side of `src` the results `at` … `at` + `count` of `full` are made of:
 * *ret_from … *ret_to. */
void sac_resize_span(int full, int at, int count, int src, int *ret_from, int *ret_to);

#endif
