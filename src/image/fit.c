#include "image/fit.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "image/decoder.h"

enum { SIDE_MAX = 16384, FULL_MAX = INT32_MAX / 4 };

static int check(const struct sac_fit *fit, struct sac_error *err)
{
    if (fit->width < 1 || fit->height < 1 || fit->width > SIDE_MAX || fit->height > SIDE_MAX)
        return sac_fail(err, SAC_EINVAL, "size: %d × %d; sides are 1 to %d", fit->width,
                        fit->height, SIDE_MAX);
    if (fit->channels != 1 && fit->channels != 3)
        return sac_fail(err, SAC_EINVAL, "size: %d channels; expected 1 or 3", fit->channels);
    return 0;
}

/* What both sides of the picture are divided by. */
static double ratio_of(enum sac_fit_mode mode, double across, double down)
{
    if (mode == SAC_FIT_CROP)
        return fmin(across, down);
    return mode == SAC_FIT_FILL ? fmax(across, down) : (across + down) / 2;
}

/* At least one pixel of even the thinnest picture is kept. */
static double scaled(int side, double ratio)
{
    return fmax(1, floor(side / ratio + .5));
}

/* One dimension: a scaled side is cropped to the wanted one, or lies within it. */
static void place(int full, int wanted, int *ret_from, int *ret_size, int *ret_to)
{
    *ret_from = full > wanted ? (full - wanted) / 2 : 0;
    *ret_size = full > wanted ? wanted : full;
    *ret_to = (wanted - *ret_size) / 2;
}

int sac_fit_plan(const struct sac_fit *fit, int width, int height, struct sac_fit_plan *ret,
                 struct sac_error *err)
{
    double across = (double)width / fit->width, down = (double)height / fit->height;
    double full_width = fit->width, full_height = fit->height;
    int rc = check(fit, err);

    if (rc < 0)
        return rc;
    if (fit->mode != SAC_FIT_SQUASH && across != down) {
        double ratio = ratio_of(fit->mode, across, down);
        full_width = scaled(width, ratio);
        full_height = scaled(height, ratio);
        if (fit->mode != SAC_FIT_CROP && across > down && full_height < fit->height)
            full_height += fmod(fit->height - full_height, 2);
        if (fit->mode != SAC_FIT_CROP && across < down && full_width < fit->width)
            full_width += fmod(fit->width - full_width, 2);
    }
    if (full_width > FULL_MAX || full_height > FULL_MAX)
        return sac_fail(err, SAC_ELIMIT, "picture: %d × %d is too long and thin to be resized",
                        width, height);
    ret->full_width = (int)full_width;
    ret->full_height = (int)full_height;
    place(ret->full_width, fit->width, &ret->x, &ret->width, &ret->left);
    place(ret->full_height, fit->height, &ret->y, &ret->height, &ret->top);
    return 0;
}

static void fill_noise(uint8_t *dst, size_t size, uint64_t noise)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t bits = sac_random_mix(noise + i);
        memcpy(dst + i, &bits, size - i < 8 ? size - i : 8);
    }
}

static void copy_window(const struct sac_image *src, const struct sac_fit_plan *plan, uint8_t *dst,
                        size_t stride)
{
    size_t channels = (size_t)src->channels;

    for (int y = 0; y < plan->height; y++)
        memcpy(dst + (size_t)y * stride,
               src->pixels + (size_t)(plan->y + y) * src->stride + (size_t)plan->x * channels,
               (size_t)plan->width * channels);
}

static int draw(const struct sac_fit *fit, const struct sac_fit_plan *plan,
                const struct sac_image *src, uint64_t noise, struct sac_resize_scratch *scratch,
                uint8_t *dst, struct sac_error *err)
{
    size_t channels = (size_t)fit->channels, stride = (size_t)fit->width * channels;
    uint8_t *at = dst + (size_t)plan->top * stride + (size_t)plan->left * channels;
    struct sac_resize_window window = {plan->full_width, plan->full_height, plan->x,
                                       plan->y,          plan->width,       plan->height};

    if (plan->width < fit->width || plan->height < fit->height)
        fill_noise(dst, (size_t)fit->height * stride, noise);
    if (src->width == plan->full_width && src->height == plan->full_height) {
        copy_window(src, plan, at, stride);
        return 0;
    }
    return sac_resize_bilinear_window(src, &window, at, stride, scratch, err);
}

int sac_fit_image(const struct sac_fit *fit, const struct sac_image *src, uint64_t noise,
                  struct sac_resize_scratch *scratch, uint8_t *dst, struct sac_error *err)
{
    struct sac_fit_plan plan;

    if (src->channels != fit->channels)
        return sac_fail(err, SAC_EINVAL, "picture: %d channels where %d were expected",
                        src->channels, fit->channels);
    int rc = sac_fit_plan(fit, src->width, src->height, &plan, err);
    return rc ? rc : draw(fit, &plan, src, noise, scratch, dst, err);
}

int sac_fit_pixels(const struct sac_fit *fit, struct sac_decoder *decoder, const uint8_t *bytes,
                   size_t size, uint64_t noise, uint8_t *dst, struct sac_error *err)
{
    struct sac_decode_options options = {.channels = fit->channels, .limits = fit->limits};
    struct sac_image_info info;
    struct sac_fit_plan plan;
    struct sac_image image;
    int rc = sac_image_probe(decoder, bytes, size, &fit->limits, &info, err);

    if (rc == 0)
        rc = sac_fit_plan(fit, info.width, info.height, &plan, err);
    if (rc < 0)
        return rc;
    memcpy(options.background, fit->background, sizeof options.background);
    if (fit->decode == SAC_DECODE_FAST) {
        options.cover_width = plan.full_width;
        options.cover_height = plan.full_height;
    }
    rc = sac_image_decode(decoder, bytes, size, &options, &image, err);
    if (rc == 0)
        rc = draw(fit, &plan, &image, noise, &decoder->resize, dst, err);
    sac_decoder_trim(decoder);
    return rc;
}
