/*
 * Layers that feed a net: Input, and the data layers of nets written for training.
 * Here they are inputs of a known shape; reading data is another module's work.
 *
 * A shape comes from the caller (sac_net_options.inputs) first, then from the
 * prototxt: Input and DummyData have shapes; MemoryData has sizes; Data and
 * ImageData have a batch size and either a crop or (ImageData) a new size, with 3
 * channels unless the pictures are forced to grey. Further tops, the labels, are
 * [batch].
 */
#include "net/layer.h"

#include <string.h>

struct feed {
    const struct sac_shape *shapes; /* one a top; rank −1: not known */
};

static const struct sac_shape unknown = {.rank = -1};

static struct sac_shape picture_shape(int64_t batch, int64_t channels, int64_t height,
                                      int64_t width)
{
    return (struct sac_shape){.rank = 4, .dim = {batch, channels, height, width}};
}

static int read_shape(const Caffe__BlobShape *from, struct sac_shape *to, struct sac_error *err)
{
    if (from->n_dim > SAC_AXES_MAX)
        return sac_fail(err, SAC_ELIMIT, "a shape of %zu axes; the most is %d", from->n_dim,
                        SAC_AXES_MAX);
    *to = (struct sac_shape){.rank = (int)from->n_dim};
    for (int i = 0; i < to->rank; i++)
        to->dim[i] = from->dim[i];
    return 0;
}

/* One shape for all tops, or one a top. */
static int read_shapes(size_t count, Caffe__BlobShape *const *from, int top_count,
                       struct sac_shape *to, struct sac_error *err)
{
    int rc = 0;

    if (count > 1 && count != (size_t)top_count)
        return sac_fail(err, SAC_EFORMAT, "%d tops take one shape or %d, and there are %zu",
                        top_count, top_count, count);
    for (int i = 0; rc == 0 && count > 0 && i < top_count; i++)
        rc = read_shape(from[count == 1 ? 0 : i], &to[i], err);
    return rc;
}

static const struct sac_shape *given_shape(const struct sac_net_options *options, const char *name)
{
    for (int i = 0; i < options->input_count; i++) {
        if (strcmp(options->inputs[i].name, name) == 0)
            return &options->inputs[i].shape;
    }
    return NULL;
}

static struct sac_shape *shapes_new(struct sac_layer *layer, const struct sac_layer_setup *in,
                                    struct sac_error *err)
{
    struct feed *feed = sac_layer_state_new(layer, in, sizeof *feed, err);
    struct sac_shape *shapes =
        sac_arena_zalloc(in->arena, (size_t)layer->top_count + 1, sizeof *shapes);

    if (feed && !shapes)
        sac_fail(err, SAC_ENOMEM, "out of memory");
    if (!feed || !shapes)
        return NULL;
    for (int i = 0; i < layer->top_count; i++)
        shapes[i] = unknown;
    feed->shapes = shapes;
    return shapes;
}

/* What the caller gave goes over what the prototxt said. Labels follow the batch
 * of the first top where nobody gave theirs. */
static int settle_shapes(struct sac_layer *layer, const struct sac_layer_setup *in,
                         struct sac_shape *shapes, bool labels, struct sac_error *err)
{
    for (int i = 0; i < layer->top_count; i++) {
        const struct sac_shape *given = given_shape(in->options, layer->top_names[i]);
        if (given)
            shapes[i] = *given;
        else if (labels && i > 0 && shapes[0].rank > 0)
            shapes[i] = (struct sac_shape){.rank = 1, .dim = {shapes[0].dim[0]}};
        if (shapes[i].rank < 0)
            return sac_fail(err, SAC_EINVAL,
                            "the prototxt does not tell the shape of \"%.64s\": the net has to be "
                            "given an input shape",
                            layer->top_names[i]);
    }
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct feed *feed = layer->state;

    (void)err;
    for (int i = 0; i < layer->top_count; i++)
        shapes->out[i] = feed->shapes[i];
    return 0;
}

static int setup_input(struct sac_layer *layer, const struct sac_layer_setup *in,
                       struct sac_error *err)
{
    const Caffe__InputParameter *p = in->message->input_param;
    struct sac_shape *shapes = shapes_new(layer, in, err);

    if (!shapes)
        return SAC_ENOMEM;
    int rc = p ? read_shapes(p->n_shape, p->shape, layer->top_count, shapes, err) : 0;
    return rc == 0 ? settle_shapes(layer, in, shapes, false, err) : rc;
}

static int setup_memory_data(struct sac_layer *layer, const struct sac_layer_setup *in,
                             struct sac_error *err)
{
    const Caffe__MemoryDataParameter *p = in->message->memory_data_param;
    struct sac_shape *shapes = shapes_new(layer, in, err);

    if (!shapes)
        return SAC_ENOMEM;
    if (p)
        shapes[0] = picture_shape(p->batch_size, p->channels, p->height, p->width);
    return settle_shapes(layer, in, shapes, true, err);
}

/* The older way: num, channels, height and width, each once or once a top. */
static int read_sizes(const Caffe__DummyDataParameter *p, int top_count, struct sac_shape *shapes,
                      struct sac_error *err)
{
    const uint32_t *const lists[4] = {p->num, p->channels, p->height, p->width};
    const size_t counts[4] = {p->n_num, p->n_channels, p->n_height, p->n_width};

    for (int k = 0; k < 4; k++) {
        if (counts[k] != 1 && counts[k] != (size_t)top_count)
            return sac_fail(err, SAC_EFORMAT,
                            "%d tops take num, channels, height and width once or %d times each",
                            top_count, top_count);
        for (int i = 0; i < top_count; i++) {
            shapes[i].rank = 4;
            shapes[i].dim[k] = lists[k][counts[k] == 1 ? 0 : i];
        }
    }
    return 0;
}

static int setup_dummy_data(struct sac_layer *layer, const struct sac_layer_setup *in,
                            struct sac_error *err)
{
    const Caffe__DummyDataParameter *p = in->message->dummy_data_param;
    struct sac_shape *shapes = shapes_new(layer, in, err);
    int rc = 0;

    if (!shapes)
        return SAC_ENOMEM;
    if (p && p->n_num > 0)
        rc = read_sizes(p, layer->top_count, shapes, err);
    else if (p)
        rc = read_shapes(p->n_shape, p->shape, layer->top_count, shapes, err);
    return rc == 0 ? settle_shapes(layer, in, shapes, false, err) : rc;
}

static int64_t channels_of(const Caffe__TransformationParameter *transform)
{
    return transform && transform->force_gray ? 1 : 3;
}

static int64_t crop_of(const Caffe__TransformationParameter *transform)
{
    return transform ? transform->crop_size : 0;
}

static int setup_data(struct sac_layer *layer, const struct sac_layer_setup *in,
                      struct sac_error *err)
{
    const Caffe__TransformationParameter *transform = in->message->transform_param;
    int64_t crop = crop_of(transform);
    struct sac_shape *shapes = shapes_new(layer, in, err);

    if (!shapes)
        return SAC_ENOMEM;
    if (in->message->data_param && crop > 0)
        shapes[0] =
            picture_shape(in->message->data_param->batch_size, channels_of(transform), crop, crop);
    return settle_shapes(layer, in, shapes, true, err);
}

static int setup_image_data(struct sac_layer *layer, const struct sac_layer_setup *in,
                            struct sac_error *err)
{
    const Caffe__ImageDataParameter *p = in->message->image_data_param;
    const Caffe__TransformationParameter *transform = in->message->transform_param;
    int64_t crop = crop_of(transform);
    struct sac_shape *shapes = shapes_new(layer, in, err);

    if (!shapes)
        return SAC_ENOMEM;
    int64_t channels = p && !p->is_color ? 1 : channels_of(transform);
    if (p && crop > 0)
        shapes[0] = picture_shape(p->batch_size, channels, crop, crop);
    else if (p && p->new_height > 0 && p->new_width > 0)
        shapes[0] = picture_shape(p->batch_size, channels, p->new_height, p->new_width);
    return settle_shapes(layer, in, shapes, true, err);
}

static int setup_hdf5_data(struct sac_layer *layer, const struct sac_layer_setup *in,
                           struct sac_error *err)
{
    struct sac_shape *shapes = shapes_new(layer, in, err);

    return shapes ? settle_shapes(layer, in, shapes, true, err) : SAC_ENOMEM;
}

const struct sac_layer_type sac_layer_input = {
    .name = "Input",
    .top_min = 1,
    .top_max = SAC_ANY_COUNT,
    .feeds = true,
    .setup = setup_input,
    .shape = shape,
};

const struct sac_layer_type sac_layer_memory_data = {
    .name = "MemoryData",
    .top_min = 1,
    .top_max = 2,
    .feeds = true,
    .labels = true,
    .setup = setup_memory_data,
    .shape = shape,
};

const struct sac_layer_type sac_layer_dummy_data = {
    .name = "DummyData",
    .top_min = 1,
    .top_max = SAC_ANY_COUNT,
    .feeds = true,
    .setup = setup_dummy_data,
    .shape = shape,
};

const struct sac_layer_type sac_layer_data = {
    .name = "Data",
    .top_min = 1,
    .top_max = 2,
    .feeds = true,
    .labels = true,
    .setup = setup_data,
    .shape = shape,
};

const struct sac_layer_type sac_layer_image_data = {
    .name = "ImageData",
    .top_min = 1,
    .top_max = 2,
    .feeds = true,
    .labels = true,
    .setup = setup_image_data,
    .shape = shape,
};

const struct sac_layer_type sac_layer_hdf5_data = {
    .name = "HDF5Data",
    .top_min = 1,
    .top_max = SAC_ANY_COUNT,
    .feeds = true,
    .labels = true,
    .setup = setup_hdf5_data,
    .shape = shape,
};
