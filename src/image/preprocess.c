#include "image/preprocess.h"

#include <string.h>

#include "image/decoder.h"

#define SIDE_MAX 32768 /* of a crop or a resized picture, as set by a model */

struct sac_preprocess sac_preprocess_default(int channels, int width, int height)
{
    return (struct sac_preprocess){
        .resize = SAC_RESIZE_SQUASH,
        .crop_width = width,
        .crop_height = height,
        .channels = channels,
        .decode = SAC_DECODE_FAST,
        .bgr = true,
        .scale = 1.f,
    };
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

/* The size that is asked for: of the whole resized picture, or (SHORT) both its shorter side. */
static void wanted_size(const struct sac_preprocess *how, int *ret_width, int *ret_height)
{
    if (how->resize == SAC_RESIZE_SHORT) {
        int crop = larger(how->crop_width, how->crop_height);
        *ret_width = *ret_height = how->resize_width ? how->resize_width : crop;
    } else {
        *ret_width = how->resize_width ? how->resize_width : how->crop_width;
        *ret_height = how->resize_height ? how->resize_height : how->crop_height;
    }
}

static bool side_is_sane(int side)
{
    return side >= 1 && side <= SIDE_MAX;
}

static int check(const struct sac_preprocess *how, struct sac_error *err)
{
    int width, height;

    wanted_size(how, &width, &height);
    if (!side_is_sane(how->crop_width) || !side_is_sane(how->crop_height))
        return sac_fail(err, SAC_EINVAL, "preprocess: a crop of %d × %d; sides are 1 to %d",
                        how->crop_width, how->crop_height, SIDE_MAX);
    if (!side_is_sane(width) || !side_is_sane(height))
        return sac_fail(err, SAC_EINVAL, "preprocess: resize to %d × %d; sides are 1 to %d", width,
                        height, SIDE_MAX);
    if (how->resize == SAC_RESIZE_SHORT && how->resize_height != 0 &&
        how->resize_height != how->resize_width)
        return sac_fail(err, SAC_EINVAL,
                        "preprocess: the shorter side cannot become both %d and %d",
                        how->resize_width, how->resize_height);
    return 0;
}

/* floor(longer · target / shorter + 1/2) */
static int64_t keep_aspect(int64_t longer, int64_t shorter, int64_t target)
{
    return (2 * longer * target + shorter) / (2 * shorter);
}

/* The size of the whole resized picture, of which the crop is a window. */
static int resized_size(const struct sac_preprocess *how, int full_width, int full_height,
                        int *ret_width, int *ret_height, struct sac_error *err)
{
    int64_t width = full_width, height = full_height;

    if (how->resize != SAC_RESIZE_NONE)
        wanted_size(how, ret_width, ret_height);
    if (how->resize == SAC_RESIZE_SQUASH)
        return 0;
    if (how->resize == SAC_RESIZE_SHORT) {
        int64_t target = *ret_width;
        width = full_width > full_height ? keep_aspect(full_width, full_height, target) : target;
        height = full_height > full_width ? keep_aspect(full_height, full_width, target) : target;
    }
    if (width > INT32_MAX / 4 || height > INT32_MAX / 4)
        return sac_fail(err, SAC_ELIMIT, "picture: %d × %d is too long and thin to be resized",
                        full_width, full_height);
    *ret_width = (int)width;
    *ret_height = (int)height;
    return 0;
}

static int check_crop(const struct sac_preprocess *how, int width, int height,
                      struct sac_error *err)
{
    if (width >= how->crop_width && height >= how->crop_height)
        return 0;
    return sac_fail(err, SAC_EINVAL,
                    "picture: %d × %d when resized, smaller than the crop, %d × %d", width, height,
                    how->crop_width, how->crop_height);
}

static void copy_window(const struct sac_image *image, const struct sac_resize_window *window,
                        uint8_t *dst)
{
    size_t channels = (size_t)image->channels, row = (size_t)window->width * channels;

    for (int y = 0; y < window->height; y++)
        memcpy(dst + (size_t)y * row,
               image->pixels + (size_t)(window->y + y) * image->stride +
                   (size_t)window->x * channels,
               row);
}

static int decode(const struct sac_preprocess *how, struct sac_decoder *decoder,
                  const uint8_t *bytes, size_t size, const atomic_bool *canceled,
                  const struct sac_resize_window *window, struct sac_image *ret,
                  struct sac_error *err)
{
    struct sac_decode_options options = {
        .channels = how->channels, .limits = how->limits, .window = window, .canceled = canceled};

    memcpy(options.background, how->background, sizeof options.background);
    if (how->decode == SAC_DECODE_FAST && how->resize != SAC_RESIZE_NONE) {
        options.cover_width = window->full_width;
        options.cover_height = window->full_height;
    }
    return sac_image_decode(decoder, bytes, size, &options, ret, err);
}

/* What part of what size the crop is, of the picture that `bytes` hold. */
static int plan_window(const struct sac_preprocess *how, struct sac_decoder *decoder,
                       const uint8_t *bytes, size_t size, struct sac_resize_window *ret,
                       struct sac_error *err)
{
    struct sac_image_info info = {0};
    int width = 0, height = 0, rc = 0;

    if (how->resize != SAC_RESIZE_SQUASH) /* else the picture's own size does not matter */
        rc = sac_image_probe(decoder, bytes, size, &how->limits, &info, err);
    if (rc < 0)
        return rc;
    rc = resized_size(how, info.width, info.height, &width, &height, err);
    if (rc == 0)
        rc = check_crop(how, width, height, err);
    if (rc == 0)
        *ret = (struct sac_resize_window){
            .full_width = width,
            .full_height = height,
            .x = (width - how->crop_width) / 2,
            .y = (height - how->crop_height) / 2,
            .width = how->crop_width,
            .height = how->crop_height,
        };
    return rc;
}

static int fill(const struct sac_preprocess *how, struct sac_decoder *decoder, const uint8_t *bytes,
                size_t size, const atomic_bool *canceled, uint8_t *dst, struct sac_error *err)
{
    struct sac_resize_window window;
    struct sac_image image;
    int rc = check(how, err);

    if (rc == 0)
        rc = plan_window(how, decoder, bytes, size, &window, err);
    if (rc == 0)
        rc = decode(how, decoder, bytes, size, canceled, &window, &image, err);
    if (rc < 0)
        return rc;
    if (image.width == window.full_width && image.height == window.full_height) {
        copy_window(&image, &window, dst);
        return 0;
    }
    return sac_resize_bilinear_window(
        &image, &window, dst, (size_t)window.width * (size_t)image.channels, &decoder->resize, err);
}

int sac_preprocess_pixels(const struct sac_preprocess *how, struct sac_decoder *decoder,
                          const uint8_t *bytes, size_t size, const atomic_bool *canceled,
                          uint8_t *dst, struct sac_error *err)
{
    int rc = fill(how, decoder, bytes, size, canceled, dst, err);

    sac_decoder_trim(decoder);
    return rc;
}
