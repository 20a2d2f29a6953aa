#include "dataset/cook.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/random.h"
#include "image/decoder.h"

int sac_kitchen_new(struct sac_kitchen **ret, struct sac_error *err)
{
    struct sac_kitchen *kitchen = calloc(1, sizeof *kitchen);
    int rc = kitchen ? sac_decoder_new(&kitchen->decoder, err)
                     : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0)
        *ret = kitchen;
    else
        free(kitchen);
    return rc;
}

void sac_kitchen_free(struct sac_kitchen *kitchen)
{
    if (!kitchen)
        return;
    sac_decoder_free(kitchen->decoder);
    free(kitchen->scratch.memory);
    sac_item_done(&kitchen->item);
    free(kitchen);
}

void sac_dish_done(struct sac_dish *dish)
{
    sac_buf_done(&dish->pixels);
    sac_buf_done(&dish->planes);
    sac_buf_done(&dish->file);
}

/* ---- Pixels ---------------------------------------------------------------- */

/* Room for height × width × channels values of `size` bytes each. */
static int reserve(struct sac_buf *buf, int width, int height, int channels, size_t size,
                   struct sac_error *err)
{
    size_t bytes;

    sac_buf_clear(buf);
    if (__builtin_mul_overflow((size_t)width, (size_t)height, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)channels * size, &bytes) ||
        !sac_buf_reserve(buf, bytes))
        return sac_fail(err, SAC_ENOMEM, "no memory for %d × %d × %d values", width, height,
                        channels);
    buf->len = bytes;
    return 0;
}

static struct sac_image image_of(const struct sac_buf *pixels, int width, int height, int channels)
{
    return (struct sac_image){.width = width,
                              .height = height,
                              .channels = channels,
                              .stride = (size_t)width * (size_t)channels,
                              .pixels = pixels->data,
                              .full_width = width,
                              .full_height = height};
}

/* What other decoders hold is given back soon: the same picture once more. */
static bool wait_for_memory(int rc, int tries)
{
    static const struct timespec moment = {.tv_nsec = 2000000};

    if (rc != SAC_EBUSY || tries >= 30000)
        return false;
    nanosleep(&moment, NULL);
    return true;
}

static int decode_once(const struct sac_recipe *recipe, struct sac_kitchen *kitchen,
                       const struct sac_item *item, uint64_t noise, struct sac_dish *dish,
                       struct sac_error *err)
{
    const struct sac_fit *fit = &recipe->fit;
    struct sac_decode_options options = {.channels = fit->channels, .limits = fit->limits};
    struct sac_image_info info;
    struct sac_image image;
    int rc;

    if (fit->width > 0) {
        rc = reserve(&dish->pixels, fit->width, fit->height, fit->channels, 1, err);
        dish->image = image_of(&dish->pixels, fit->width, fit->height, fit->channels);
        return rc ? rc
                  : sac_fit_pixels(fit, kitchen->decoder, item->bytes, item->size, noise,
                                   dish->pixels.data, err);
    }
    rc = sac_image_probe(kitchen->decoder, item->bytes, item->size, &fit->limits, &info, err);
    if (rc == 0 && options.channels == 0)
        options.channels = info.channels < 3 ? 1 : 3;
    if (rc == 0)
        rc = sac_image_decode(kitchen->decoder, item->bytes, item->size, &options, &image, err);
    if (rc == 0)
        rc = reserve(&dish->pixels, image.width, image.height, image.channels, 1, err);
    if (rc < 0)
        return rc;
    dish->image = image_of(&dish->pixels, image.width, image.height, image.channels);
    for (int y = 0; y < image.height; y++)
        memcpy(dish->pixels.data + (size_t)y * dish->image.stride,
               image.pixels + (size_t)y * image.stride, dish->image.stride);
    sac_decoder_trim(kitchen->decoder);
    return 0;
}

static int decode(const struct sac_recipe *recipe, struct sac_kitchen *kitchen,
                  const struct sac_item *item, uint64_t noise, struct sac_dish *dish,
                  struct sac_error *err)
{
    for (int tries = 0;; tries++) {
        struct sac_error failed = {0};
        int rc = decode_once(recipe, kitchen, item, noise, dish, &failed);
        if (!wait_for_memory(rc, tries))
            return rc ? sac_fail(err, rc, "%s", failed.text) : 0;
    }
}

/* A value as a byte; −1: it is none. */
static int byte_of(const struct sac_item *item, size_t at)
{
    if (item->kind == SAC_ITEM_BYTES)
        return item->bytes[at];
    float value = item->floats[at];
    return value >= 0.f && value <= 255.f && value == rintf(value) ? (int)value : -1;
}

/* Planes, B, G, R or R, G, B, to R, G, B interleaved; one to all or all to one where
 * other channels are wanted. */
static int interleave(const struct sac_item *item, int channels, uint8_t *to)
{
    size_t area = (size_t)item->width * (size_t)item->height;

    for (size_t i = 0; i < area; i++) {
        uint8_t rgb[3];
        for (int c = 0; c < 3; c++) {
            size_t plane = item->channels == 1 ? 0 : (size_t)(item->rgb ? c : 2 - c);
            int value = byte_of(item, plane * area + i);
            if (value < 0)
                return SAC_EUNSUPPORTED;
            rgb[c] = (uint8_t)value;
        }
        if (channels == 3)
            memcpy(to + 3 * i, rgb, 3);
        else
            to[i] = item->channels == 1 ? rgb[0] : sac_image_luma(rgb);
    }
    return 0;
}

static int unpack(const struct sac_recipe *recipe, struct sac_kitchen *kitchen,
                  const struct sac_item *item, uint64_t noise, struct sac_dish *dish,
                  struct sac_error *err)
{
    const struct sac_fit *fit = &recipe->fit;
    int channels = fit->channels ? fit->channels : item->channels;
    struct sac_buf *whole = fit->width > 0 ? &dish->planes : &dish->pixels;

    if (item->channels != 1 && item->channels != 3)
        return sac_fail(err, SAC_EUNSUPPORTED, "%d channels; pictures have 1 or 3", item->channels);
    int rc = reserve(whole, item->width, item->height, channels, 1, err);
    if (rc == 0 && interleave(item, channels, whole->data) < 0)
        rc = sac_fail(err, SAC_EUNSUPPORTED,
                      "floats that are no whole numbers of 0 to 255 are no picture");
    if (rc < 0)
        return rc;
    dish->image = image_of(whole, item->width, item->height, channels);
    if (fit->width == 0)
        return 0;
    rc = reserve(&dish->pixels, fit->width, fit->height, channels, 1, err);
    if (rc == 0)
        rc = sac_fit_image(fit, &dish->image, noise, &kitchen->scratch, dish->pixels.data, err);
    dish->image = image_of(&dish->pixels, fit->width, fit->height, channels);
    return rc;
}

int sac_cook_pixels(const struct sac_recipe *recipe, struct sac_kitchen *kitchen,
                    const struct sac_item *item, int64_t index, struct sac_dish *dish,
                    struct sac_error *err)
{
    uint64_t noise = sac_random_key(recipe->seed, 1, (uint64_t)index);

    if (item->kind == SAC_ITEM_ENCODED)
        return decode(recipe, kitchen, item, noise, dish, err);
    return unpack(recipe, kitchen, item, noise, dish, err);
}

/* ---- What the sink takes --------------------------------------------------- */

/* Which plane channel c goes to. */
static size_t plane_of(const struct sac_image *image, int c, bool rgb)
{
    return (size_t)(image->channels == 3 && !rgb ? 2 - c : c);
}

static int put_planes(const struct sac_image *image, bool rgb, struct sac_dish *dish,
                      struct sac_error *err)
{
    size_t area = (size_t)image->width * (size_t)image->height, channels = (size_t)image->channels;
    int rc = reserve(&dish->planes, image->width, image->height, image->channels, 1, err);

    for (int c = 0; rc == 0 && c < image->channels; c++) {
        uint8_t *to = dish->planes.data + plane_of(image, c, rgb) * area;
        for (size_t i = 0; i < area; i++)
            to[i] = image->pixels[i * channels + (size_t)c];
    }
    dish->record.kind = SAC_ITEM_BYTES;
    dish->record.bytes = dish->planes.data;
    dish->record.size = dish->planes.len;
    return rc;
}

static int put_floats(const struct sac_image *image, bool rgb, struct sac_dish *dish,
                      struct sac_error *err)
{
    size_t area = (size_t)image->width * (size_t)image->height, channels = (size_t)image->channels;
    int rc =
        reserve(&dish->planes, image->width, image->height, image->channels, sizeof(float), err);

    for (int c = 0; rc == 0 && c < image->channels; c++) {
        float *to = (float *)dish->planes.data + plane_of(image, c, rgb) * area;
        for (size_t i = 0; i < area; i++)
            to[i] = image->pixels[i * channels + (size_t)c];
    }
    dish->record.kind = SAC_ITEM_FLOATS;
    dish->record.floats = (const float *)dish->planes.data;
    return rc;
}

static int put_file(const struct sac_recipe *recipe, struct sac_dish *dish, struct sac_error *err)
{
    bool jpeg = recipe->encoding == SAC_ENCODING_JPEG;
    struct sac_encode_options options = {.kind = jpeg ? SAC_IMAGE_JPEG : SAC_IMAGE_PNG,
                                         .quality = recipe->quality};

    sac_buf_clear(&dish->file);
    int rc = sac_image_encode(&dish->image, &options, &dish->file, err);
    dish->record.kind = SAC_ITEM_ENCODED;
    dish->record.bytes = dish->file.data;
    dish->record.size = dish->file.len;
    return rc;
}

/* Values are copied: the item's memory is the worker's. */
static int keep(const struct sac_item *item, struct sac_dish *dish, struct sac_error *err)
{
    struct sac_record *record = &dish->record;
    struct sac_buf *buf = &dish->file;
    bool floats = item->kind == SAC_ITEM_FLOATS;
    size_t count = (size_t)item->channels * (size_t)item->height * (size_t)item->width;

    sac_buf_clear(buf);
    sac_buf_put(buf, floats ? (const void *)item->floats : item->bytes,
                floats ? count * sizeof(float) : item->size);
    if (buf->failed)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    record->kind = item->kind;
    record->channels = item->channels;
    record->height = item->height;
    record->width = item->width;
    record->bytes = floats ? NULL : buf->data;
    record->size = floats ? 0 : buf->len;
    record->floats = floats ? (const float *)buf->data : NULL;
    return 0;
}

static bool holds_pictures(const struct sac_recipe *recipe)
{
    if (recipe->to == SAC_SINK_LMDB)
        return recipe->encoding > SAC_ENCODING_RAW;
    return recipe->to == SAC_SINK_LIST || recipe->to == SAC_SINK_FOLDER;
}

bool sac_recipe_rgb(const struct sac_recipe *recipe, const struct sac_source *source)
{
    if (recipe->to == SAC_SINK_CIFAR)
        return true;
    if (holds_pictures(recipe))
        return false;
    return recipe->planes == SAC_PLANES_KEEP ? source->rgb : recipe->planes == SAC_PLANES_RGB;
}

bool sac_recipe_turns(const struct sac_recipe *recipe, const struct sac_source *source)
{
    return source->rgb && recipe->fit.channels != 1 && holds_pictures(recipe);
}

/* Whether the sink, of planes R, G, B or B, G, R, takes the item as it is. */
static bool is_kept(const struct sac_recipe *recipe, const struct sac_item *item, bool rgb)
{
    bool alike = item->channels != 3 || item->rgb == rgb;

    if (recipe->fit.width > 0 || recipe->fit.channels > 0)
        return false;
    if (recipe->to == SAC_SINK_HDF5)
        return item->kind == SAC_ITEM_FLOATS && alike;
    if (recipe->to == SAC_SINK_CIFAR)
        return item->kind == SAC_ITEM_BYTES && alike;
    if (item->kind == SAC_ITEM_ENCODED)
        return recipe->encoding == SAC_ENCODING_KEEP;
    return recipe->to == SAC_SINK_LMDB && recipe->encoding <= SAC_ENCODING_RAW && alike;
}

static int serve(const struct sac_recipe *recipe, bool rgb, struct sac_dish *dish,
                 struct sac_error *err)
{
    const struct sac_image *image = &dish->image;

    dish->record.channels = image->channels;
    dish->record.height = image->height;
    dish->record.width = image->width;
    if (recipe->to == SAC_SINK_HDF5)
        return put_floats(image, rgb, dish, err);
    if (recipe->to == SAC_SINK_CIFAR ||
        (recipe->to == SAC_SINK_LMDB && recipe->encoding <= SAC_ENCODING_RAW))
        return put_planes(image, rgb, dish, err);
    return put_file(recipe, dish, err);
}

static int prepare(const struct sac_recipe *recipe, struct sac_kitchen *kitchen, bool rgb,
                   int64_t index, struct sac_dish *dish, struct sac_error *err)
{
    const struct sac_item *item = &kitchen->item;
    bool kept = is_kept(recipe, item, rgb);
    int rc = 0;

    /* A picture that is kept is decoded all the same: a damaged one goes no further. */
    if (!kept || item->kind == SAC_ITEM_ENCODED)
        rc = sac_cook_pixels(recipe, kitchen, item, index, dish, err);
    if (rc == 0)
        rc = kept ? keep(item, dish, err) : serve(recipe, rgb, dish, err);
    return rc;
}

int sac_cook(const struct sac_recipe *recipe, struct sac_kitchen *kitchen,
             const struct sac_source *source, int64_t index, struct sac_dish *dish,
             struct sac_error *err)
{
    char path[4096];
    int32_t label = 0;
    int rc = sac_source_item(source, index, &kitchen->item, err);

    if (rc == 0)
        rc = sac_source_label_of(source, index, &kitchen->item, &label, err);
    if (rc < 0)
        return rc;
    dish->name[0] = 0;
    if (sac_source_item_path(source, index, path, sizeof path)) {
        const char *slash = strrchr(path, '/');
        snprintf(dish->name, sizeof dish->name, "%.250s", slash ? slash + 1 : path);
    }
    dish->record = (struct sac_record){.label = label, .name = dish->name};
    rc = prepare(recipe, kitchen, sac_recipe_rgb(recipe, source), index, dish, err);
    if (rc < 0) {
        sac_source_item_name(source, index, path, sizeof path);
        sac_error_prefix(err, "%.300s", path);
    }
    return rc;
}
