/* What feeds the net of `saccade test --net`. */
#include <stdlib.h>
#include <string.h>

#include "cli/test.h"

enum { DEPLOY_BATCH = 32, SIDE_MAX = 16384 };

/* The layer's transform_param with the flags over it. */
struct transform {
    Caffe__TransformationParameter message;
    float mean[SAC_TRANSFORM_MEANS_MAX];
    bool changed; /* by a flag */
};

/* "104,117,123" */
static int read_numbers(const char *text, float *ret, size_t *ret_count, struct sac_error *err)
{
    size_t count = 0;
    const char *at = text;
    char *end;

    for (;; at = end + 1) {
        float value = strtof(at, &end);
        if (end == at || (*end && *end != ',') || count == SAC_TRANSFORM_MEANS_MAX)
            return sac_fail(err, SAC_EINVAL,
                            "--mean: expected a file, \"none\" or one number a channel, found "
                            "\"%.80s\"",
                            text);
        ret[count++] = value;
        if (!*end)
            break;
    }
    *ret_count = count;
    return 0;
}

static int set_mean(struct transform *t, const char *mean, struct sac_error *err)
{
    t->changed = true;
    t->message.mean_file = NULL;
    t->message.n_mean_value = 0;
    t->message.mean_value = t->mean;
    return strcmp(mean, "none") == 0 ? 0
                                     : read_numbers(mean, t->mean, &t->message.n_mean_value, err);
}

static int set_crop(struct transform *t, const char *crop, struct sac_error *err)
{
    int side = 0;
    int rc = sac_flag_int("--crop", crop, 0, SIDE_MAX, &side, err);

    t->changed = true;
    t->message.has_crop_size = true;
    t->message.crop_size = (uint32_t)side;
    t->message.crop_h = t->message.crop_w = 0;
    return rc;
}

static int lay_flags_over(struct transform *t, const Caffe__TransformationParameter *own,
                          const struct sac_model_overrides *flags, struct sac_error *err)
{
    static const Caffe__TransformationParameter none = CAFFE__TRANSFORMATION_PARAMETER__INIT;
    int rc = 0;

    *t = (struct transform){.message = own ? *own : none};
    if (flags->mean)
        rc = set_mean(t, flags->mean, err);
    if (rc == 0 && flags->crop)
        rc = set_crop(t, flags->crop, err);
    if (flags->scale != 0) {
        t->changed = true;
        t->message.has_scale = true;
        t->message.scale = (float)flags->scale;
    }
    return rc;
}

static struct sac_feed_options options_of(const struct sac_test *test)
{
    return (struct sac_feed_options){
        .batch = test->batch,
        .threads = test->workers,
        .once = test->data != NULL,
        .source = test->data,
        .mean_file = test->flags.files.mean,
    };
}

/* A data layer as it stands, but for the flags. */
static int open_layer(struct sac_feed **ret, const struct sac_test *test,
                      const Caffe__LayerParameter *layer, struct sac_error *err)
{
    const struct sac_model_overrides *flags = &test->flags.overrides;
    struct sac_feed_options options = options_of(test);
    Caffe__LayerParameter copy = *layer;
    struct transform transform;

    if (flags->resize || flags->channels || flags->decode)
        return sac_fail(err, SAC_EINVAL,
                        "--resize, --channels and --decode are for deploy prototxts and models; "
                        "this net's data layer says what is done");
    int rc = lay_flags_over(&transform, layer->transform_param, flags, err);
    if (transform.changed)
        copy.transform_param = &transform.message;
    return rc ? rc : sac_feed_from_layer(ret, &copy, &options, err);
}

/* ---- Input and MemoryData -------------------------------------------------- */

/* Batch, channels, height and width, as far as the layer tells; else 0. */
struct sizes {
    int64_t batch, channels, height, width;
};

static struct sizes sizes_of(const Caffe__LayerParameter *layer)
{
    const Caffe__MemoryDataParameter *memory = layer->memory_data_param;
    const Caffe__InputParameter *input = layer->input_param;

    if (memory)
        return (struct sizes){memory->batch_size, memory->channels, memory->height, memory->width};
    if (input && input->n_shape > 0 && input->shape[0]->n_dim == 4) {
        const int64_t *dim = input->shape[0]->dim;
        return (struct sizes){DEPLOY_BATCH, dim[1], dim[2], dim[3]};
    }
    return (struct sizes){.batch = DEPLOY_BATCH};
}

/* Encoded pictures are squashed to the net's input, as `classify` does, unless
 * --resize says otherwise: a word of model.json's, then perhaps ":SIZE". */
static int set_resize(struct sac_transform *t, const char *word, const struct sizes *sizes,
                      struct sac_error *err)
{
    const char *colon = word ? strchr(word, ':') : NULL;
    size_t size = colon ? (size_t)(colon - word) : word ? strlen(word) : 0;
    int side = 0, rc = 0;

    t->resize_width = (int)sizes->width;
    t->resize_height = (int)sizes->height;
    t->resize = SAC_RESIZE_SQUASH;
    if (!word)
        return 0;
    if (size == 4 && strncmp(word, "none", size) == 0)
        t->resize = SAC_RESIZE_NONE;
    else if (size == 5 && strncmp(word, "short", size) == 0)
        t->resize = SAC_RESIZE_SHORT;
    else if (size != 6 || strncmp(word, "squash", size) != 0)
        return sac_fail(err, SAC_EINVAL, "--resize: expected squash, short or none, found \"%s\"",
                        word);
    if (colon) {
        rc = sac_flag_int("--resize", colon + 1, 1, SIDE_MAX, &side, err);
        t->resize_width = t->resize_height = side;
    }
    return rc;
}

static int set_transform(struct sac_transform *t, const struct sac_test *test,
                         const Caffe__LayerParameter *layer, const struct sizes *sizes,
                         struct sac_error *err)
{
    const struct sac_model_overrides *flags = &test->flags.overrides;
    struct transform transform;
    int rc = lay_flags_over(&transform, layer->transform_param, flags, err);

    if (rc == 0)
        rc = sac_transform_read(t, &transform.message, err);
    if (rc == 0 && test->flags.files.mean)
        rc = sac_transform_load_mean(t, test->flags.files.mean, err);
    if (rc)
        return rc;
    t->force_gray |= sizes->channels == 1;
    t->force_color |= sizes->channels == 3;
    t->rgb = flags->channels && strcmp(flags->channels, "rgb") == 0;
    t->decode_fast = !flags->decode || strcmp(flags->decode, "exact") != 0;
    if (t->crop_width == 0) {
        t->crop_width = (int)sizes->width;
        t->crop_height = (int)sizes->height;
    }
    return set_resize(t, flags->resize, sizes, err);
}

static int open_input(struct sac_feed **ret, const struct sac_test *test,
                      const Caffe__LayerParameter *layer, struct sac_error *err)
{
    struct sizes sizes = sizes_of(layer);
    struct sac_feed_options options = options_of(test);
    struct sac_transform transform = {0};
    struct sac_source *source = NULL;

    if (!test->data)
        return sac_fail(err, SAC_EINVAL, "the net names no source of data; give one by --data");
    if (sizes.height > SIDE_MAX || sizes.width > SIDE_MAX)
        return sac_fail(err, SAC_ELIMIT, "an input of %lld × %lld; at most %d",
                        (long long)sizes.height, (long long)sizes.width, SIDE_MAX);
    if (options.batch == 0)
        options.batch = (int)sizes.batch;
    int rc = set_transform(&transform, test, layer, &sizes, err);
    if (rc == 0)
        rc = sac_source_open(&source, test->data, err);
    if (rc == 0)
        rc = sac_feed_open(ret, source, &transform, &options, err);
    if (rc) {
        sac_source_free(source);
        sac_transform_done(&transform);
    }
    return rc;
}

int sac_test_feed_open(struct sac_feed **ret, const struct sac_test *test,
                       const Caffe__LayerParameter *layer, struct sac_error *err)
{
    const char *type = layer->type ? layer->type : "";

    if (strcmp(type, "Input") == 0 || strcmp(type, "MemoryData") == 0)
        return open_input(ret, test, layer, err);
    return open_layer(ret, test, layer, err);
}
