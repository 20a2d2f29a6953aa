/* Any bytes as a picture: the head, all pixels in colour and grey, and each
 * preprocessing. Every byte of a result is read, so that what was not written
 * or lies outside is found. Limits are small: large pictures only cost time. */
#include <assert.h>
#include <stdlib.h>

#include "image/preprocess.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const struct sac_image_limits limits = {
    .pixels_max = 1 << 18, .side_max = 4096, .progressive_pixels_max = 1 << 16, .scans_max = 20};
static volatile unsigned sink;

static void read_all(const uint8_t *pixels, size_t count)
{
    unsigned sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += pixels[i];
    sink = sum;
}

static void decode(struct sac_decoder *decoder, const uint8_t *bytes, size_t size, int channels,
                   int cover, const struct sac_image_info *info)
{
    struct sac_decode_options options = {.channels = channels,
                                         .cover_width = cover,
                                         .cover_height = cover,
                                         .background = {10, 200, 30},
                                         .limits = limits};
    struct sac_error err = {0};
    struct sac_image image;
    int rc = sac_image_decode(decoder, bytes, size, &options, &image, &err);

    assert(rc == err.code);
    if (rc < 0)
        return;
    assert(info && image.full_width == info->width && image.full_height == info->height);
    assert(image.stride == (size_t)image.width * (size_t)channels);
    read_all(image.pixels, image.stride * (size_t)image.height);
}

static void preprocess(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                       enum sac_resize resize, int channels)
{
    uint8_t pixels[19 * 23 * 3];
    struct sac_error err = {0};
    struct sac_preprocess how = sac_preprocess_default(channels, 23, 19);

    how.resize = resize;
    how.resize_width = how.resize_height = resize == SAC_RESIZE_NONE ? 0 : 31;
    how.limits = limits;
    if (sac_preprocess_pixels(&how, decoder, bytes, size, NULL, pixels, &err) == 0)
        read_all(pixels, (size_t)(19 * 23 * channels));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct sac_error err = {0};
    struct sac_decoder *decoder;
    struct sac_image_info info;

    if (sac_decoder_new(&decoder, &err) < 0)
        return 0;
    bool known = sac_image_probe(decoder, bytes, size, &limits, &info, &err) == 0;
    decode(decoder, bytes, size, 3, 0, known ? &info : NULL);
    decode(decoder, bytes, size, 1, 8, known ? &info : NULL);
    preprocess(decoder, bytes, size, SAC_RESIZE_SQUASH, 3);
    preprocess(decoder, bytes, size, SAC_RESIZE_SHORT, 1);
    preprocess(decoder, bytes, size, SAC_RESIZE_NONE, 3);
    sac_decoder_free(decoder);
    return 0;
}
