#include "data/transform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/augment.h"

#define SIDE_MAX 32768

struct floats {
    float *data;
    size_t count;
};

struct sac_transform_scratch {
    struct sac_decoder *decoder;
    struct sac_resize_scratch resize;
    uint8_t *resized;
    size_t resized_size;
    struct floats planes, sampled;
};

/* An item's values, whatever they lie in: value (c, y, x) is at
 * c · plane + y · row + x · pixel, of bytes or of floats. */
struct view {
    const uint8_t *bytes;
    const float *floats; /* or NULL */
    int channels, height, width;
    ptrdiff_t plane, row, pixel;
    bool rgb;
};

int sac_transform_scratch_new(struct sac_transform_scratch **ret, struct sac_error *err)
{
    struct sac_transform_scratch *scratch = calloc(1, sizeof *scratch);

    if (!scratch)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    int rc = sac_decoder_new(&scratch->decoder, err);
    if (rc == 0)
        *ret = scratch;
    else
        free(scratch);
    return rc;
}

void sac_transform_scratch_free(struct sac_transform_scratch *scratch)
{
    if (!scratch)
        return;
    sac_decoder_free(scratch->decoder);
    free(scratch->resize.memory);
    free(scratch->resized);
    free(scratch->planes.data);
    free(scratch->sampled.data);
    free(scratch);
}

void sac_transform_done(struct sac_transform *transform)
{
    sac_caffe_blob_done(&transform->mean_image);
}

/* A mean of 1 × C × H × W or C × H × W, with the first dimension cut. */
static int settle_mean(struct sac_caffe_blob *mean, const char *path, struct sac_error *err)
{
    if (mean->rank == 4 && mean->dim[0] == 1) {
        memmove(mean->dim, mean->dim + 1, 3 * sizeof *mean->dim);
        mean->rank = 3;
    }
    if (mean->rank != 3 || mean->count == 0)
        return sac_fail(err, SAC_EFORMAT, "%s: expected a mean of channels × height × width", path);
    return 0;
}

int sac_transform_load_mean(struct sac_transform *transform, const char *path,
                            struct sac_error *err)
{
    struct sac_caffe_blob mean = {0};
    int rc = sac_caffe_blob_load(&mean, path, err);

    if (rc == 0)
        rc = settle_mean(&mean, path, err);
    if (rc < 0) {
        sac_caffe_blob_done(&mean);
        return rc;
    }
    sac_caffe_blob_done(&transform->mean_image);
    transform->mean_image = mean;
    snprintf(transform->mean_path, sizeof transform->mean_path, "%s", path);
    transform->mean_count = 0;
    return 0;
}

static int read_augment(struct sac_augment *augment, const Caffe__AugmentParameter *message,
                        struct sac_error *err)
{
    if (!message)
        return 0;
    if (message->pad > SIDE_MAX || message->cutout > SIDE_MAX)
        return sac_fail(err, SAC_EINVAL, "transform_param: augment: pad %u, cutout %u; at most %d",
                        message->pad, message->cutout, SIDE_MAX);
    *augment = (struct sac_augment){
        .pad = (int)message->pad,
        .area_min = message->area_min,
        .flip = message->flip,
        .rotation = message->rotation,
        .brightness = message->brightness,
        .contrast = message->contrast,
        .saturation = message->saturation,
        .hue = message->hue,
        .noise = message->noise,
        .cutout = (int)message->cutout,
    };
    return 0;
}

int sac_transform_read(struct sac_transform *transform,
                       const Caffe__TransformationParameter *message, struct sac_error *err)
{
    if (!message)
        return 0;
    if (message->mean_file && message->n_mean_value > 0)
        return sac_fail(err, SAC_EINVAL, "transform_param: mean_file and mean_value are both set");
    if (message->n_mean_value > SAC_TRANSFORM_MEANS_MAX)
        return sac_fail(err, SAC_ELIMIT, "transform_param: %zu values of mean_value; at most %d",
                        message->n_mean_value, SAC_TRANSFORM_MEANS_MAX);
    if (message->crop_size > SIDE_MAX || message->crop_h > SIDE_MAX || message->crop_w > SIDE_MAX)
        return sac_fail(err, SAC_EINVAL, "transform_param: a crop_size over %d", SIDE_MAX);
    transform->scale = message->scale;
    if (message->scale == 0)
        return sac_fail(err, SAC_EINVAL, "transform_param: scale 0 leaves nothing");
    transform->mirror = message->mirror;
    transform->crop_width = (int)(message->crop_w ? message->crop_w : message->crop_size);
    transform->crop_height = (int)(message->crop_h ? message->crop_h : message->crop_size);
    transform->force_color = message->force_color;
    transform->force_gray = message->force_gray;
    transform->rgb = message->rgb;
    transform->mean_count = (int)message->n_mean_value;
    for (int i = 0; i < transform->mean_count; i++)
        transform->mean[i] = message->mean_value[i];
    int rc = read_augment(&transform->augment, message->augment, err);
    return rc == 0 && message->mean_file
               ? sac_transform_load_mean(transform, message->mean_file, err)
               : rc;
}

static bool between(float x, float low, float high)
{
    return x >= low && x <= high; /* not of NaN */
}

static int check_augment(const struct sac_augment *a, struct sac_error *err)
{
    if (a->pad < 0 || a->pad > SIDE_MAX || a->cutout < 0 || a->cutout > SIDE_MAX)
        return sac_fail(err, SAC_EINVAL, "augmentation: pad %d, cutout %d; expected 0 to %d",
                        a->pad, a->cutout, SIDE_MAX);
    if (!between(a->area_min, 0, 1))
        return sac_fail(err, SAC_EINVAL, "augmentation: a least area of %g; expected 0 to 1",
                        a->area_min);
    if (!between(a->rotation, 0, 180) || !between(a->hue, 0, .5f))
        return sac_fail(err, SAC_EINVAL,
                        "augmentation: rotation %g, hue %g; expected 0 to 180 degrees, 0 to 0.5",
                        a->rotation, a->hue);
    if (!between(a->brightness, 0, 10) || !between(a->contrast, 0, 10) ||
        !between(a->saturation, 0, 10) || !between(a->noise, 0, 1e6f))
        return sac_fail(err, SAC_EINVAL,
                        "augmentation: brightness %g, contrast %g, saturation %g, noise %g; "
                        "expected 0 to 10, noise 0 to 1000000",
                        a->brightness, a->contrast, a->saturation, a->noise);
    return 0;
}

int sac_transform_check(const struct sac_transform *t, struct sac_error *err)
{
    const int sides[] = {t->crop_width, t->crop_height, t->resize_width, t->resize_height};

    for (int i = 0; i < 4; i++) {
        if (sides[i] < 0 || sides[i] > SIDE_MAX)
            return sac_fail(err, SAC_EINVAL, "a side of %d to crop or resize to; expected 0 to %d",
                            sides[i], SIDE_MAX);
    }
    if ((t->crop_width == 0) != (t->crop_height == 0))
        return sac_fail(err, SAC_EINVAL, "a crop of %d × %d", t->crop_width, t->crop_height);
    if (t->resize == SAC_RESIZE_SQUASH && (t->resize_width == 0) != (t->resize_height == 0))
        return sac_fail(err, SAC_EINVAL, "resize to %d × %d", t->resize_width, t->resize_height);
    if (t->force_color && t->force_gray)
        return sac_fail(err, SAC_EINVAL, "force_color and force_gray are both set");
    if (t->mean_image.data && t->mean_count > 0)
        return sac_fail(err, SAC_EINVAL, "a mean image and mean values are both set");
    if (t->mean_count < 0 || t->mean_count > SAC_TRANSFORM_MEANS_MAX)
        return sac_fail(err, SAC_EINVAL, "%d mean values", t->mean_count);
    return check_augment(&t->augment, err);
}

/* ---- What an item looks like ---- */

bool sac_transform_resizes(const struct sac_transform *t)
{
    return t->resize != SAC_RESIZE_NONE && t->resize_width > 0;
}

/* floor(longer · target / shorter + 1/2), as sac_preprocess_pixels has it. */
static int64_t keep_aspect(int64_t longer, int64_t shorter, int64_t target)
{
    return (2 * longer * target + shorter) / (2 * shorter);
}

static int resized_size(const struct sac_transform *t, int width, int height, int ret[2],
                        struct sac_error *err)
{
    ret[0] = width;
    ret[1] = height;
    if (!sac_transform_resizes(t))
        return 0;
    ret[0] = t->resize_width;
    ret[1] = t->resize_height;
    if (t->resize == SAC_RESIZE_SQUASH)
        return 0;
    int64_t target = t->resize_width;
    int64_t w = width > height ? keep_aspect(width, height, target) : target;
    int64_t h = height > width ? keep_aspect(height, width, target) : target;
    if (w > SIDE_MAX || h > SIDE_MAX)
        return sac_fail(err, SAC_ELIMIT, "%d × %d is too long and thin to be resized", width,
                        height);
    ret[0] = (int)w;
    ret[1] = (int)h;
    return 0;
}

static int channels_of(const struct sac_transform *t, const struct sac_image_info *info)
{
    if (t->force_color || t->force_gray)
        return t->force_color ? 3 : 1;
    return info->channels < 3 ? 1 : 3;
}

int sac_transform_picture_shape(const struct sac_transform *t, const struct sac_item *item,
                                struct sac_transform_scratch *scratch, int ret[3],
                                struct sac_error *err)
{
    struct sac_image_info info;
    int size[2] = {0};

    ret[0] = item->channels;
    ret[1] = item->height;
    ret[2] = item->width;
    if (item->kind != SAC_ITEM_ENCODED)
        return 0;
    int rc = sac_image_probe(scratch->decoder, item->bytes, item->size, &t->limits, &info, err);
    if (rc == 0)
        rc = resized_size(t, info.width, info.height, size, err);
    if (rc < 0)
        return rc;
    ret[0] = channels_of(t, &info);
    ret[1] = size[1];
    ret[2] = size[0];
    return 0;
}

int sac_transform_shape(const struct sac_transform *transform, const struct sac_item *item,
                        struct sac_transform_scratch *scratch, int ret[3], struct sac_error *err)
{
    int rc = sac_transform_picture_shape(transform, item, scratch, ret, err);

    if (rc == 0 && transform->crop_width > 0) {
        ret[1] = transform->crop_height;
        ret[2] = transform->crop_width;
    }
    return rc;
}

/* ---- From an item to a view ---- */

static int reserve_bytes(struct sac_transform_scratch *scratch, size_t size, struct sac_error *err)
{
    if (size <= scratch->resized_size)
        return 0;
    free(scratch->resized);
    scratch->resized = malloc(size);
    scratch->resized_size = scratch->resized ? size : 0;
    return scratch->resized ? 0 : sac_fail(err, SAC_ENOMEM, "no memory for %zu bytes", size);
}

static int reserve_floats(struct floats *floats, const int shape[3], struct sac_error *err)
{
    size_t count;

    if (__builtin_mul_overflow((size_t)shape[0] * (size_t)shape[1], (size_t)shape[2], &count) ||
        count > SIZE_MAX / sizeof(float))
        return sac_fail(err, SAC_ELIMIT, "an item of %d × %d × %d", shape[0], shape[1], shape[2]);
    if (count <= floats->count)
        return 0;
    free(floats->data);
    floats->data = malloc(count * sizeof(float));
    floats->count = floats->data ? count : 0;
    return floats->data ? 0 : sac_fail(err, SAC_ENOMEM, "no memory for %zu values", count);
}

/* Interleaved R, G, B (or grey) as planes in the wanted order. */
static struct view view_of_pixels(const struct sac_transform *t, const struct sac_image *image)
{
    bool reversed = image->channels == 3 && !t->rgb;

    return (struct view){
        .bytes = image->pixels + (reversed ? 2 : 0),
        .channels = image->channels,
        .height = image->height,
        .width = image->width,
        .plane = reversed ? -1 : 1,
        .row = (ptrdiff_t)image->stride,
        .pixel = image->channels,
        .rgb = t->rgb,
    };
}

static int resize(struct sac_transform_scratch *scratch, struct sac_image *image,
                  const int shape[3], struct sac_error *err)
{
    size_t row = (size_t)shape[2] * (size_t)shape[0];
    int rc = reserve_bytes(scratch, row * (size_t)shape[1], err);

    if (rc == 0)
        rc = sac_resize_bilinear(image, shape[2], shape[1], scratch->resized, row, &scratch->resize,
                                 err);
    image->pixels = scratch->resized;
    image->stride = row;
    image->height = shape[1];
    image->width = shape[2];
    return rc;
}

static int decode(const struct sac_transform *t, const struct sac_item *item,
                  struct sac_transform_scratch *scratch, struct view *ret, struct sac_error *err)
{
    struct sac_decode_options options = {.limits = t->limits};
    struct sac_image image;
    int shape[3];
    int rc = sac_transform_picture_shape(t, item, scratch, shape, err);

    if (rc < 0)
        return rc;
    options.channels = shape[0];
    memcpy(options.background, t->background, sizeof options.background);
    if (t->decode_fast && sac_transform_resizes(t)) {
        options.cover_height = shape[1];
        options.cover_width = shape[2];
    }
    rc = sac_image_decode(scratch->decoder, item->bytes, item->size, &options, &image, err);
    if (rc == 0 && (image.height != shape[1] || image.width != shape[2]))
        rc = resize(scratch, &image, shape, err);
    if (rc == 0)
        *ret = view_of_pixels(t, &image);
    return rc;
}

static int view_of(const struct sac_transform *t, const struct sac_item *item,
                   struct sac_transform_scratch *scratch, struct view *ret, struct sac_error *err)
{
    if (item->kind == SAC_ITEM_ENCODED)
        return decode(t, item, scratch, ret, err);
    *ret = (struct view){
        .bytes = item->bytes,
        .floats = item->kind == SAC_ITEM_FLOATS ? item->floats : NULL,
        .channels = item->channels,
        .height = item->height,
        .width = item->width,
        .plane = (ptrdiff_t)item->height * item->width,
        .row = item->width,
        .pixel = 1,
        .rgb = item->rgb,
    };
    return 0;
}

/* ---- Colour and geometry, on planes of floats ---- */

static void copy_planes(const struct view *view, float *to)
{
    for (int c = 0; c < view->channels; c++) {
        for (int y = 0; y < view->height; y++) {
            ptrdiff_t at = c * view->plane + y * view->row;
            for (int x = 0; x < view->width; x++, at += view->pixel)
                *to++ = view->floats ? view->floats[at] : (float)view->bytes[at];
        }
    }
}

static void view_planes(struct view *view, const float *planes, int height, int width)
{
    view->floats = planes;
    view->height = height;
    view->width = width;
    view->plane = (ptrdiff_t)height * width;
    view->row = width;
    view->pixel = 1;
}

static int sample(const struct sac_transform *t, struct sac_random *random,
                  struct sac_transform_scratch *scratch, struct view *view, struct sac_error *err)
{
    bool crops = t->augment.area_min > 0 && t->crop_width > 0;
    int to[3] = {view->channels, crops ? t->crop_height : view->height,
                 crops ? t->crop_width : view->width};
    int rc = reserve_floats(&scratch->sampled, to, err);

    if (rc < 0)
        return rc;
    struct sac_augment_window window =
        sac_augment_draw_window(&t->augment, random, view->width, view->height, to[2], to[1]);
    sac_augment_sample(&window, view->floats, view->channels, view->width, view->height,
                       scratch->sampled.data, to[2], to[1]);
    view_planes(view, scratch->sampled.data, to[1], to[2]);
    return 0;
}

static struct sac_augment_histogram count_bytes(const struct view *view)
{
    struct sac_augment_histogram h = {.channels = view->channels == 3 ? 3 : 1, .rgb = view->rgb};

    for (int c = 0; c < h.channels; c++) {
        for (int y = 0; y < view->height; y++) {
            const uint8_t *from = view->bytes + c * view->plane + y * view->row;
            for (int x = 0; x < view->width; x++)
                h.counts[c][from[x * view->pixel]]++;
        }
    }
    return h;
}

static int draw_color(const struct sac_transform *t, unsigned changes, struct sac_random *random,
                      const struct view *view, struct sac_crop_change *ret, struct sac_error *err)
{
    if ((changes & SAC_CROP_COLORS) && view->floats)
        return sac_fail(err, SAC_EINVAL,
                        "augmentation: colours are changed in 8-bit items only, "
                        "and this one is of floats");
    sac_augment_draw_color(&t->augment, changes, random, ret);
    ret->rgb = view->rgb;
    if (changes & SAC_CROP_CONTRAST) {
        struct sac_augment_histogram histogram = count_bytes(view);
        ret->grey =
            sac_augment_grey(&histogram, changes & SAC_CROP_BRIGHTNESS ? ret->brightness : 1);
    }
    return 0;
}

static bool has_geometry(const struct sac_augment *augment)
{
    return augment->area_min > 0 || augment->rotation > 0;
}

/* The picture as floats, where colours or geometry change it. */
static int change_picture(const struct sac_transform *t, unsigned changes,
                          const struct sac_crop_change *change, struct sac_random *random,
                          struct sac_transform_scratch *scratch, struct view *view,
                          struct sac_error *err)
{
    int shape[3] = {view->channels, view->height, view->width};

    if (!has_geometry(&t->augment) && !(changes & SAC_CROP_COLORS))
        return 0;
    int rc = reserve_floats(&scratch->planes, shape, err);
    if (rc < 0)
        return rc;
    copy_planes(view, scratch->planes.data);
    view_planes(view, scratch->planes.data, view->height, view->width);
    sac_augment_color(changes, change, scratch->planes.data, view->channels,
                      (size_t)view->height * (size_t)view->width);
    return has_geometry(&t->augment) ? sample(t, random, scratch, view, err) : 0;
}

/* ---- Crop, mirror, mean, scale ---- */

struct crop {
    int x, y, width, height; /* x and y are negative inside of padding */
    bool mirror;
};

static int draw_offset(struct sac_random *random, bool train, int room, int pad)
{
    return train ? (int)sac_random_below(random, (uint32_t)(room + 2 * pad + 1)) - pad : room / 2;
}

static int draw_crop(const struct sac_transform *t, bool train, struct sac_random *random,
                     const struct view *view, struct crop *ret, struct sac_error *err)
{
    int pad = train ? t->augment.pad : 0;

    ret->mirror = t->mirror && sac_random_below(random, 2);
    ret->mirror ^= train && t->augment.flip && sac_random_below(random, 2);
    ret->width = t->crop_width ? t->crop_width : view->width;
    ret->height = t->crop_height ? t->crop_height : view->height;
    if (view->width + 2 * pad < ret->width || view->height + 2 * pad < ret->height)
        return sac_fail(err, SAC_EINVAL, "%d × %d, smaller than the crop, %d × %d", view->width,
                        view->height, ret->width, ret->height);
    ret->y = draw_offset(random, train, view->height - ret->height, pad);
    ret->x = draw_offset(random, train, view->width - ret->width, pad);
    return 0;
}

/* The mean of each value of the crop: an image of the picture's size is cropped
 * with it (and mirrored with it), one of the crop's size is laid over the result
 * as it is, as a net's first layer would. */
struct mean {
    const float *image; /* or NULL */
    bool of_crop;
    const float *values;
    int value_count;
};

static int settle_means(const struct sac_transform *t, const struct view *view,
                        const struct crop *crop, struct mean *ret, struct sac_error *err)
{
    const struct sac_caffe_blob *image = &t->mean_image;

    *ret = (struct mean){image->data, false, t->mean, t->mean_count};
    if (t->mean_count > 1 && t->mean_count != view->channels)
        return sac_fail(err, SAC_EINVAL, "%d channels and %d mean values; expected 1 or %d",
                        view->channels, t->mean_count, view->channels);
    if (!image->data)
        return 0;
    bool whole = image->dim[1] == view->height && image->dim[2] == view->width;
    ret->of_crop = !whole;
    if (image->dim[0] != view->channels ||
        (!whole && (image->dim[1] != crop->height || image->dim[2] != crop->width)))
        return sac_fail(err, SAC_EINVAL,
                        "%d × %d × %d, and the mean image is %lld × %lld × %lld (%s); expected "
                        "the same",
                        view->channels, view->height, view->width, (long long)image->dim[0],
                        (long long)image->dim[1], (long long)image->dim[2],
                        t->mean_path[0] ? t->mean_path : "of no file");
    return 0;
}

/* One row of the crop: `count` values from column `x`, all inside the picture. */
static void write_row(const struct view *view, ptrdiff_t at, const float *mean, int mean_step,
                      float scale, int count, float *to, int step)
{
    const ptrdiff_t pixel = view->pixel;

    if (view->floats) {
        const float *from = view->floats + at;
        for (int i = 0; i < count; i++)
            to[i * step] = (from[i * pixel] - mean[i * mean_step]) * scale;
        return;
    }
    const uint8_t *from = view->bytes + at;
    for (int i = 0; i < count; i++)
        to[i * step] = ((float)from[i * pixel] - mean[i * mean_step]) * scale;
}

static float scale_of(const struct sac_transform *t)
{
    return t->scale != 0 ? t->scale : 1.f;
}

static void write_crop_row(const struct sac_transform *t, const struct view *view,
                           const struct crop *crop, const struct mean *mean, int c, int y,
                           float *to)
{
    static const float zero;
    float scale = scale_of(t);
    int source_y = crop->y + y;
    int from = crop->x < 0 ? -crop->x : 0; /* columns of the crop inside the picture */
    int until = crop->x + crop->width > view->width ? view->width - crop->x : crop->width;
    const float *row_mean = &zero;
    int mean_step = 0, step = crop->mirror ? -1 : 1;

    if (source_y < 0 || source_y >= view->height || from >= until) {
        memset(to, 0, (size_t)crop->width * sizeof *to);
        return;
    }
    if (until - from < crop->width)
        memset(to, 0, (size_t)crop->width * sizeof *to);
    float *first = crop->mirror ? to + crop->width - 1 - from : to + from;
    if (mean->value_count > 0) {
        row_mean = &mean->values[mean->value_count > 1 ? c : 0];
    } else if (mean->image && mean->of_crop) {
        row_mean = mean->image + ((ptrdiff_t)c * crop->height + y) * crop->width + (first - to);
        mean_step = step;
    } else if (mean->image) {
        row_mean =
            mean->image + ((ptrdiff_t)c * view->height + source_y) * view->width + crop->x + from;
        mean_step = 1;
    }
    write_row(view, c * view->plane + source_y * view->row + (crop->x + from) * view->pixel,
              row_mean, mean_step, scale, until - from, first, step);
}

static int check_shape(const struct view *view, const struct crop *crop, const int shape[3],
                       struct sac_error *err)
{
    if (view->channels == shape[0] && crop->height == shape[1] && crop->width == shape[2])
        return 0;
    return sac_fail(err, SAC_EINVAL,
                    "%d × %d × %d, where the first item gave %d × %d × %d; expected one size (a "
                    "crop or a new size sees to it)",
                    view->channels, crop->height, crop->width, shape[0], shape[1], shape[2]);
}

/* What is cropped, where, its mean, and what else was drawn. */
struct cut {
    struct view view;
    struct crop crop;
    struct mean mean;
    unsigned changes; /* of enum sac_crop_changes */
    struct sac_crop_change change;
};

/* `as_bytes`: what changes the picture is drawn only. */
static int draw_cut(const struct sac_transform *t, bool train, bool as_bytes,
                    const struct sac_item *item, struct sac_random *random,
                    struct sac_transform_scratch *scratch, const int shape[3], struct cut *ret,
                    struct sac_error *err)
{
    int rc = view_of(t, item, scratch, &ret->view, err);

    if (rc == 0 && train) {
        ret->changes = sac_augment_changes(&t->augment, ret->view.channels);
        rc = draw_color(t, ret->changes, random, &ret->view, &ret->change, err);
    }
    if (rc == 0 && train && !as_bytes)
        rc = change_picture(t, ret->changes, &ret->change, random, scratch, &ret->view, err);
    if (rc == 0)
        rc = draw_crop(t, train, random, &ret->view, &ret->crop, err);
    if (rc == 0)
        rc = check_shape(&ret->view, &ret->crop, shape, err);
    if (rc == 0 && (ret->changes & SAC_CROP_NOISE))
        sac_augment_draw_noise(random, (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2],
                               &ret->change);
    if (rc == 0 && (ret->changes & SAC_CROP_CUTOUT))
        sac_augment_draw_cutout(random, shape, t->augment.cutout, &ret->change);
    return rc == 0 ? settle_means(t, &ret->view, &ret->crop, &ret->mean, err) : rc;
}

int sac_transform_apply(const struct sac_transform *t, bool train, const struct sac_item *item,
                        struct sac_random *random, struct sac_transform_scratch *scratch,
                        const int shape[3], float *out, struct sac_error *err)
{
    struct cut cut = {0};
    int rc = draw_cut(t, train, false, item, random, scratch, shape, &cut, err);

    if (rc < 0)
        return rc;
    for (int c = 0; c < shape[0]; c++) {
        for (int y = 0; y < shape[1]; y++)
            write_crop_row(t, &cut.view, &cut.crop, &cut.mean, c, y,
                           out + ((size_t)c * (size_t)shape[1] + (size_t)y) * (size_t)shape[2]);
    }
    if (cut.changes & SAC_CROP_NOISE)
        sac_augment_noise(&cut.change, out, (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2],
                          t->augment.noise * scale_of(t));
    if (cut.changes & SAC_CROP_CUTOUT)
        sac_augment_cutout(&cut.change, out, shape);
    return 0;
}

/* ---- Crops of bytes, for a device to finish ---- */

bool sac_transform_keeps_bytes(const struct sac_transform *t, bool train)
{
    return !train || !has_geometry(&t->augment);
}

void sac_transform_crops(const struct sac_transform *t, bool train, const int shape[3],
                         struct sac_crops *ret)
{
    const struct sac_caffe_blob *image = &t->mean_image;

    ret->channels = shape[0];
    ret->height = shape[1];
    ret->width = shape[2];
    ret->mean = image->data ? image->data : t->mean_count > 0 ? t->mean : NULL;
    ret->mean_count = image->data ? 0 : t->mean_count;
    ret->mean_height = image->data ? (int)image->dim[1] : 0;
    ret->mean_width = image->data ? (int)image->dim[2] : 0;
    ret->scale = scale_of(t);
    ret->changes = train ? sac_augment_changes(&t->augment, shape[0]) : 0;
    ret->noise_deviation = t->augment.noise * ret->scale;
}

struct sac_crop_layout sac_transform_layout(const struct sac_transform *t, bool encoded,
                                            const int shape[3])
{
    bool reversed = shape[0] == 3 && !t->rgb;

    if (!encoded)
        return (struct sac_crop_layout){0, shape[1] * shape[2], shape[2], 1};
    return (struct sac_crop_layout){reversed ? 2 : 0, reversed ? -1 : 1, shape[2] * shape[0],
                                    shape[0]};
}

/* One row of the crop, `count` pixels from column `x`: whole where both lie alike. */
static void copy_row(const struct view *view, ptrdiff_t from, const struct sac_crop_layout *layout,
                     int channels, int count, uint8_t *out, ptrdiff_t to)
{
    if (view->pixel == channels && layout->pixel == channels && view->plane == layout->plane) {
        ptrdiff_t low = view->plane < 0 ? view->plane * (channels - 1) : 0;
        memcpy(out + to + low, view->bytes + from + low, (size_t)count * (size_t)channels);
        return;
    }
    for (int c = 0; c < channels; c++, from += view->plane, to += layout->plane) {
        if (view->pixel == 1 && layout->pixel == 1) {
            memcpy(out + to, view->bytes + from, (size_t)count);
            continue;
        }
        for (int x = 0; x < count; x++)
            out[to + x * layout->pixel] = view->bytes[from + x * view->pixel];
    }
}

static void copy_crop(const struct cut *cut, const struct sac_crop_layout *layout, uint8_t *out)
{
    const struct view *view = &cut->view;
    const struct crop *crop = &cut->crop;
    int from = crop->x < 0 ? -crop->x : 0;
    int until = crop->x + crop->width > view->width ? view->width - crop->x : crop->width;

    for (int y = 0; y < crop->height && from < until; y++) {
        int source_y = crop->y + y;
        if (source_y >= 0 && source_y < view->height)
            copy_row(view, source_y * view->row + (crop->x + from) * view->pixel, layout,
                     view->channels, until - from, out,
                     layout->first + y * layout->row + from * layout->pixel);
    }
}

int sac_transform_crop(const struct sac_transform *t, bool train, const struct sac_item *item,
                       struct sac_random *random, struct sac_transform_scratch *scratch,
                       const int shape[3], const struct sac_crop_layout *layout, uint8_t *out,
                       struct sac_crop_place *ret, struct sac_error *err)
{
    struct cut cut = {0};
    int rc = draw_cut(t, train, true, item, random, scratch, shape, &cut, err);

    if (rc == 0 && cut.view.floats)
        rc = sac_fail(err, SAC_EINVAL, "values of floats, where the first item had bytes");
    if (rc < 0)
        return rc;
    copy_crop(&cut, layout, out);
    *ret = (struct sac_crop_place){cut.crop.x,      cut.crop.y,      cut.view.width,
                                   cut.view.height, cut.crop.mirror, cut.change};
    return 0;
}
