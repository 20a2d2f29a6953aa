#include "dataset/mean.h"

#include <stdlib.h>
#include <string.h>

#include "dataset/pipeline.h"

struct run {
    const struct sac_source *source;
    const struct sac_mean_options *options;
    struct sac_mean mean; /* sums, until the end */
    double pixels;        /* of one channel of all pictures */
    bool sizes_differ;
};

struct slot {
    struct sac_dish dish;
    int skip;
    struct sac_error why;
    bool floats; /* planes in dish.planes, else dish.image */
    bool rgb;    /* the item's planes are */
    int channels, height, width;
};

void sac_mean_done(struct sac_mean *mean)
{
    free(mean->image);
    free(mean->channel);
    *mean = (struct sac_mean){0};
}

static int worker_new(void *user, void **ret, struct sac_error *err)
{
    (void)user;
    return sac_kitchen_new((struct sac_kitchen **)ret, err);
}

static void worker_free(void *worker)
{
    sac_kitchen_free(worker);
}

static int read_floats(const struct sac_item *item, struct slot *slot, struct sac_error *err)
{
    size_t count = (size_t)item->channels * (size_t)item->height * (size_t)item->width;
    struct sac_buf *to = &slot->dish.planes;

    sac_buf_clear(to);
    sac_buf_put(to, item->floats, count * sizeof(float));
    slot->floats = true;
    slot->channels = item->channels;
    slot->height = item->height;
    slot->width = item->width;
    return to->failed ? sac_fail(err, SAC_ENOMEM, "out of memory") : 0;
}

static int read_item(const struct run *run, struct sac_kitchen *kitchen, int64_t index,
                     struct slot *slot, struct sac_error *err)
{
    struct sac_recipe recipe = run->options->recipe;
    const struct sac_item *item = &kitchen->item;
    int rc = sac_source_item(run->source, index, &kitchen->item, err);

    if (rc < 0)
        return rc;
    if (item->kind == SAC_ITEM_FLOATS && recipe.fit.width == 0)
        return read_floats(item, slot, err);
    if (recipe.fit.channels == 0)
        recipe.fit.channels = item->kind == SAC_ITEM_ENCODED ? 3 : item->channels;
    rc = sac_cook_pixels(&recipe, kitchen, item, index, &slot->dish, err);
    slot->floats = false;
    slot->rgb = item->kind != SAC_ITEM_ENCODED && item->rgb;
    slot->channels = slot->dish.image.channels;
    slot->height = slot->dish.image.height;
    slot->width = slot->dish.image.width;
    if (rc < 0) {
        char name[SAC_ERROR_TEXT / 2];
        sac_source_item_name(run->source, index, name, sizeof name);
        sac_error_prefix(err, "%s", name);
    }
    return rc;
}

static int work(void *user, void *worker, int64_t index, void *memory, struct sac_error *err)
{
    struct slot *slot = memory;

    slot->why = (struct sac_error){0};
    slot->skip = read_item(user, worker, index, slot, &slot->why);
    if (slot->skip < 0 && !sac_source_is_corrupt(slot->skip) && slot->skip != SAC_ENOENT)
        return sac_fail(err, slot->skip, "%s", slot->why.text);
    return 0;
}

/* The first picture decides what the mean is of. */
static int settle(struct run *run, const struct slot *slot, struct sac_error *err)
{
    struct sac_mean *mean = &run->mean;
    size_t channels = (size_t)slot->channels;

    mean->channels = slot->channels;
    mean->height = slot->height;
    mean->width = slot->width;
    mean->channel = calloc(channels, sizeof *mean->channel);
    mean->image =
        calloc(channels * (size_t)slot->height * (size_t)slot->width, sizeof *mean->image);
    if (!mean->channel || !mean->image)
        return sac_fail(err, SAC_ENOMEM, "no memory for a mean of %d × %d × %d", slot->channels,
                        slot->height, slot->width);
    return 0;
}

static void forget_image(struct run *run)
{
    free(run->mean.image);
    run->mean.image = NULL;
    run->sizes_differ = true;
}

/* Sums of whole numbers are exact below 2^53, in any order. */
static void add(struct run *run, const struct slot *slot)
{
    size_t area = (size_t)slot->width * (size_t)slot->height, channels = (size_t)slot->channels;

    for (size_t c = 0; c < channels; c++) {
        size_t from = slot->floats || slot->rgb || channels == 1 ? c : channels - 1 - c;
        double *image = run->mean.image ? run->mean.image + c * area : NULL, sum = 0;
        for (size_t i = 0; i < area; i++) {
            double value = slot->floats
                               ? (double)((const float *)slot->dish.planes.data)[from * area + i]
                               : slot->dish.image.pixels[i * channels + from];
            sum += value;
            if (image)
                image[i] += value;
        }
        run->mean.channel[c] += sum;
    }
    run->pixels += (double)area;
}

static int take(void *user, int64_t index, void *memory, struct sac_error *err)
{
    struct run *run = user;
    struct slot *slot = memory;
    int rc = 0;

    if (slot->skip) {
        run->mean.skipped++;
        if (run->options->on_skip)
            run->options->on_skip(run->options->user, slot->why.text);
    } else {
        if (run->mean.count == 0)
            rc = settle(run, slot, err);
        if (rc == 0 && slot->channels != run->mean.channels)
            rc = sac_fail(err, SAC_EINVAL,
                          "item %lld has %d channels, the first %d; --grey or --color makes them "
                          "alike",
                          (long long)index, slot->channels, run->mean.channels);
        if (rc < 0)
            return rc;
        if (run->mean.image && (slot->height != run->mean.height || slot->width != run->mean.width))
            forget_image(run);
        add(run, slot);
        run->mean.count++;
    }
    if (run->options->on_progress && index % 16 == 0)
        run->options->on_progress(run->options->user, index + 1, run->source->count,
                                  run->mean.skipped);
    return 0;
}

static void slot_done(void *memory)
{
    sac_dish_done(&((struct slot *)memory)->dish);
}

static void divide(struct run *run)
{
    struct sac_mean *mean = &run->mean;
    size_t count = (size_t)mean->channels * (size_t)mean->height * (size_t)mean->width;

    for (int c = 0; c < mean->channels; c++)
        mean->channel[c] /= run->pixels;
    for (size_t i = 0; mean->image && i < count; i++)
        mean->image[i] /= (double)mean->count;
    if (run->sizes_differ)
        mean->height = mean->width = 0;
}

int sac_mean_of(struct sac_mean *ret, const struct sac_source *source,
                const struct sac_mean_options *options, struct sac_error *err)
{
    struct run run = {.source = source, .options = options};
    struct sac_pipeline pipeline = {.end = source->count,
                                    .threads = options->threads,
                                    .slot_size = sizeof(struct slot),
                                    .worker_new = worker_new,
                                    .worker_free = worker_free,
                                    .work = work,
                                    .take = take,
                                    .slot_done = slot_done};
    int rc = sac_pipeline_run(&pipeline, &run, err);

    if (rc == 0 && run.mean.count == 0)
        rc = sac_fail(err, SAC_EFORMAT, "%s: none of its %lld pictures could be used", source->path,
                      (long long)source->count);
    if (rc == 0) {
        divide(&run);
        *ret = run.mean;
    } else {
        sac_mean_done(&run.mean);
    }
    return rc;
}

int sac_mean_save(const struct sac_mean *mean, const char *path, struct sac_error *err)
{
    struct sac_caffe_blob blob = {.rank = 4, .dim = {1, mean->channels, mean->height, mean->width}};

    if (!mean->image)
        return sac_fail(err, SAC_EINVAL,
                        "%s: pictures of several sizes have no mean image; --size makes them alike",
                        path);
    blob.count = (size_t)mean->channels * (size_t)mean->height * (size_t)mean->width;
    blob.data = malloc(blob.count * sizeof *blob.data);
    if (!blob.data)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < blob.count; i++)
        blob.data[i] = (float)mean->image[i];
    int rc = sac_caffe_blob_save(&blob, path, err);
    free(blob.data);
    return rc;
}
