/* Feeds as the data layers of a prototxt describe them. */
#include "data/feed.h"

#include <string.h>

#include "data/source_private.h"

enum { BATCH_MAX = 1 << 24 };

/* What a layer comes to. */
struct plan {
    struct sac_source *source;
    struct sac_transform transform;
    struct sac_feed_options options;
};

/* The message's batch, unless the options have one. */
static int set_batch(struct sac_feed_options *options, uint32_t batch, struct sac_error *err)
{
    if (options->batch > 0)
        return 0;
    if (batch == 0 || batch > BATCH_MAX)
        return sac_fail(err, SAC_EINVAL, "batch_size %u; expected 1 to %d", batch, BATCH_MAX);
    options->batch = (int)batch;
    return 0;
}

static void set_skip(struct sac_feed_options *options, uint32_t rand_skip)
{
    struct sac_random random = sac_random_stream(options->seed, SAC_RANDOM_SKIP, 0, 0);

    if (rand_skip > 0)
        options->skip = sac_random_below(&random, rand_skip);
}

/* Nothing to check where another source takes its place. */
static int check_source(const struct plan *plan, const char *source, struct sac_error *err)
{
    return plan->options.source || (source && *source)
               ? 0
               : sac_fail(err, SAC_EINVAL, "no source is set");
}

static int plan_data(struct plan *plan, const Caffe__LayerParameter *layer, struct sac_error *err)
{
    const Caffe__DataParameter *p = layer->data_param;
    int rc = p ? check_source(plan, p->source, err) : sac_fail(err, SAC_EINVAL, "no data_param");

    if (rc < 0)
        return rc;
    if (!plan->options.source && p->backend != CAFFE__DATA_PARAMETER__DB__LMDB)
        return sac_source_refuse_leveldb(p->source, err);
    plan->transform.force_color |= p->force_encoded_color;
    plan->options.shuffle |= p->shuffle;
    if (plan->options.ahead == 0 && p->prefetch > 0)
        plan->options.ahead = p->prefetch < 16 ? (int)p->prefetch : 16;
    set_skip(&plan->options, p->rand_skip);
    rc = set_batch(&plan->options, p->batch_size, err);
    if (rc < 0 || plan->options.source)
        return rc;
    return sac_source_lmdb_open(&plan->source, p->source, err);
}

static int plan_image_data(struct plan *plan, const Caffe__LayerParameter *layer,
                           struct sac_error *err)
{
    const Caffe__ImageDataParameter *p = layer->image_data_param;
    int rc =
        p ? check_source(plan, p->source, err) : sac_fail(err, SAC_EINVAL, "no image_data_param");

    if (rc < 0)
        return rc;
    if (p->new_height > INT16_MAX || p->new_width > INT16_MAX)
        return sac_fail(err, SAC_EINVAL, "new_height %u, new_width %u; expected at most %d",
                        p->new_height, p->new_width, INT16_MAX);
    plan->transform.force_color = p->is_color;
    plan->transform.force_gray = !p->is_color;
    if (p->new_height > 0 && p->new_width > 0) {
        plan->transform.resize_height = (int)p->new_height;
        plan->transform.resize_width = (int)p->new_width;
    }
    plan->options.shuffle |= p->shuffle;
    set_skip(&plan->options, p->rand_skip);
    rc = set_batch(&plan->options, p->batch_size, err);
    if (rc < 0 || plan->options.source)
        return rc;
    return sac_source_list_open(&plan->source, p->source, p->root_folder, err);
}

static int plan_hdf5_data(struct plan *plan, const Caffe__LayerParameter *layer,
                          struct sac_error *err)
{
    const Caffe__HDF5DataParameter *p = layer->hdf5_data_param;
    int rc =
        p ? check_source(plan, p->source, err) : sac_fail(err, SAC_EINVAL, "no hdf5_data_param");

    if (rc < 0)
        return rc;
    if (layer->transform_param)
        return sac_fail(err, SAC_EINVAL,
                        "HDF5Data does not transform data: transform_param is "
                        "set, and would not be heeded");
    if (layer->n_top < 1 || layer->n_top > SAC_SOURCE_SETS_MAX)
        return sac_fail(err, SAC_EUNSUPPORTED, "HDF5Data with %zu tops; expected 1 to %d",
                        layer->n_top, SAC_SOURCE_SETS_MAX);
    plan->options.sets = true;
    plan->options.shuffle |= p->shuffle;
    rc = set_batch(&plan->options, p->batch_size, err);
    if (rc < 0 || plan->options.source)
        return rc;
    return sac_source_hdf5_open_sets(&plan->source, p->source, layer->top, (int)layer->n_top, err);
}

/* A mean file of the options' takes the place of whatever mean the layer has. */
static int plan_transform(struct plan *plan, const Caffe__TransformationParameter *message,
                          struct sac_error *err)
{
    const char *mean_file = plan->options.mean_file;
    Caffe__TransformationParameter copy = CAFFE__TRANSFORMATION_PARAMETER__INIT;

    if (message)
        copy = *message;
    if (mean_file) {
        copy.mean_file = NULL;
        copy.n_mean_value = 0;
    }
    int rc = sac_transform_read(&plan->transform, &copy, err);
    if (plan->options.augment)
        plan->transform.augment = *plan->options.augment;
    return rc == 0 && mean_file ? sac_transform_load_mean(&plan->transform, mean_file, err) : rc;
}

static int plan_type(struct plan *plan, const Caffe__LayerParameter *layer, struct sac_error *err)
{
    const char *type = layer->type ? layer->type : "";

    if (strcmp(type, "Data") == 0)
        return plan_data(plan, layer, err);
    if (strcmp(type, "ImageData") == 0)
        return plan_image_data(plan, layer, err);
    if (strcmp(type, "HDF5Data") == 0)
        return plan_hdf5_data(plan, layer, err);
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "type %.40s is fed by nobody here: a program that embeds the net fills it; "
                    "expected Data, ImageData or HDF5Data",
                    type);
}

/* The options' size goes before the layer's. */
static void plan_resize(struct plan *plan)
{
    if (plan->options.resize_width == 0)
        return;
    plan->transform.resize = plan->options.resize;
    plan->transform.resize_width = plan->options.resize_width;
    plan->transform.resize_height = plan->options.resize_height;
}

static int plan_layer(struct plan *plan, const Caffe__LayerParameter *layer, struct sac_error *err)
{
    int rc = plan_transform(plan, layer->transform_param, err);

    if (rc == 0)
        rc = plan_type(plan, layer, err);
    plan_resize(plan);
    if (rc < 0 || !plan->options.source)
        return rc;
    if (plan->options.sets && sac_source_is_hdf5(plan->options.source))
        return sac_source_hdf5_open_sets(&plan->source, plan->options.source, layer->top,
                                         (int)layer->n_top, err);
    rc = sac_source_open(&plan->source, plan->options.source, err);
    if (rc == 0 && sac_source_has_files(plan->source) && !plan->transform.force_gray)
        plan->transform.force_color = true;
    return rc;
}

int sac_feed_layer_batch(const Caffe__LayerParameter *layer)
{
    const char *type = layer->type ? layer->type : "";
    uint32_t batch = 0;

    if (strcmp(type, "Data") == 0 && layer->data_param)
        batch = layer->data_param->batch_size;
    else if (strcmp(type, "ImageData") == 0 && layer->image_data_param)
        batch = layer->image_data_param->batch_size;
    else if (strcmp(type, "HDF5Data") == 0 && layer->hdf5_data_param)
        batch = layer->hdf5_data_param->batch_size;
    return batch > BATCH_MAX ? 0 : (int)batch;
}

int sac_feed_from_layer(struct sac_feed **ret, const Caffe__LayerParameter *layer,
                        const struct sac_feed_options *options, struct sac_error *err)
{
    struct plan plan = {.options = *options};
    int rc = plan_layer(&plan, layer, err);

    if (rc == 0)
        rc = sac_feed_open(ret, plan.source, &plan.transform, &plan.options, err);
    if (rc < 0) {
        sac_error_prefix(err, "layer \"%.64s\"", layer->name ? layer->name : "");
        sac_source_free(plan.source);
        sac_transform_done(&plan.transform);
    }
    return rc;
}
