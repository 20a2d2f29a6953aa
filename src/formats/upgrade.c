#include "formats/upgrade.h"

#include <stdbool.h>
#include <string.h>

#include "formats/message.h"

static int fail_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ELIMIT, "needs more memory than a file of its size may take");
}

/* ---- V0 to V1: all of a layer in `layer`, its type a word in lower case ---- */

static const struct {
    const char *name;
    Caffe__V1LayerParameter__LayerType type;
} v0_types[] = {
    {"accuracy", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__ACCURACY},
    {"bnll", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__BNLL},
    {"concat", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__CONCAT},
    {"conv", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__CONVOLUTION},
    {"data", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__DATA},
    {"dropout", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__DROPOUT},
    {"euclidean_loss", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__EUCLIDEAN_LOSS},
    {"flatten", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__FLATTEN},
    {"hdf5_data", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__HDF5_DATA},
    {"hdf5_output", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__HDF5_OUTPUT},
    {"im2col", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__IM2COL},
    {"images", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__IMAGE_DATA},
    {"infogain_loss", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__INFOGAIN_LOSS},
    {"innerproduct", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__INNER_PRODUCT},
    {"lrn", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__LRN},
    {"multinomial_logistic_loss", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__MULTINOMIAL_LOGISTIC_LOSS},
    {"pool", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__POOLING},
    {"relu", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__RELU},
    {"sigmoid", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SIGMOID},
    {"softmax", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SOFTMAX},
    {"softmax_loss", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SOFTMAX_LOSS},
    {"split", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SPLIT},
    {"tanh", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__TANH},
    {"window_data", CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__WINDOW_DATA},
};

/* Where each V0 field goes, for which type (NULL: every type). */
static const struct v0_rule {
    const char *from;
    const char *type;
    const char *param;
    const char *to;
} v0_rules[] = {
    {"num_output", "conv", "convolution_param", "num_output"},
    {"num_output", "innerproduct", "inner_product_param", "num_output"},
    {"biasterm", "conv", "convolution_param", "bias_term"},
    {"biasterm", "innerproduct", "inner_product_param", "bias_term"},
    {"weight_filler", "conv", "convolution_param", "weight_filler"},
    {"weight_filler", "innerproduct", "inner_product_param", "weight_filler"},
    {"bias_filler", "conv", "convolution_param", "bias_filler"},
    {"bias_filler", "innerproduct", "inner_product_param", "bias_filler"},
    {"pad", "conv", "convolution_param", "pad"},
    {"pad", "pool", "pooling_param", "pad"},
    {"kernelsize", "conv", "convolution_param", "kernel_size"},
    {"kernelsize", "pool", "pooling_param", "kernel_size"},
    {"stride", "conv", "convolution_param", "stride"},
    {"stride", "pool", "pooling_param", "stride"},
    {"group", "conv", "convolution_param", "group"},
    {"pool", "pool", "pooling_param", "pool"},
    {"dropout_ratio", "dropout", "dropout_param", "dropout_ratio"},
    {"local_size", "lrn", "lrn_param", "local_size"},
    {"alpha", "lrn", "lrn_param", "alpha"},
    {"beta", "lrn", "lrn_param", "beta"},
    {"k", "lrn", "lrn_param", "k"},
    {"concat_dim", "concat", "concat_param", "concat_dim"},
    {"source", "data", "data_param", "source"},
    {"source", "hdf5_data", "hdf5_data_param", "source"},
    {"source", "images", "image_data_param", "source"},
    {"source", "window_data", "window_data_param", "source"},
    {"source", "infogain_loss", "infogain_loss_param", "source"},
    {"batchsize", "data", "data_param", "batch_size"},
    {"batchsize", "hdf5_data", "hdf5_data_param", "batch_size"},
    {"batchsize", "images", "image_data_param", "batch_size"},
    {"batchsize", "window_data", "window_data_param", "batch_size"},
    {"rand_skip", "data", "data_param", "rand_skip"},
    {"rand_skip", "images", "image_data_param", "rand_skip"},
    {"shuffle_images", "images", "image_data_param", "shuffle"},
    {"new_height", "images", "image_data_param", "new_height"},
    {"new_width", "images", "image_data_param", "new_width"},
    {"scale", NULL, "transform_param", "scale"},
    {"meanfile", NULL, "transform_param", "mean_file"},
    {"cropsize", NULL, "transform_param", "crop_size"},
    {"mirror", NULL, "transform_param", "mirror"},
    {"det_fg_threshold", "window_data", "window_data_param", "fg_threshold"},
    {"det_bg_threshold", "window_data", "window_data_param", "bg_threshold"},
    {"det_fg_fraction", "window_data", "window_data_param", "fg_fraction"},
    {"det_context_pad", "window_data", "window_data_param", "context_pad"},
    {"det_crop_mode", "window_data", "window_data_param", "crop_mode"},
};

/* The message in field `name`, made if it is not there yet. */
static ProtobufCMessage *submessage(ProtobufCMessage *message, const char *name,
                                    struct sac_arena *arena)
{
    const ProtobufCFieldDescriptor *field = sac_message_field(message->descriptor, name);
    ProtobufCMessage **slot = sac_message_value(message, field, 0);

    if (!*slot)
        *slot = sac_message_new(arena, field->descriptor);
    return *slot;
}

static int apply_rule(Caffe__V1LayerParameter *to, const Caffe__V0LayerParameter *from,
                      const struct v0_rule *rule, struct sac_arena *arena, struct sac_error *err)
{
    const ProtobufCFieldDescriptor *source = sac_message_field(from->base.descriptor, rule->from);

    if (sac_message_count(&from->base, source) == 0)
        return 0;
    ProtobufCMessage *param = submessage(&to->base, rule->param, arena);
    if (!param)
        return fail_memory(err);
    const ProtobufCFieldDescriptor *target = sac_message_field(param->descriptor, rule->to);
    void *slot = sac_message_add(arena, param, target);
    if (!slot)
        return fail_memory(err);
    memcpy(slot, sac_message_value(&from->base, source, 0), sac_message_value_size(target));
    return 0;
}

static int v0_type(Caffe__V1LayerParameter *to, const Caffe__V0LayerParameter *from,
                   struct sac_error *err)
{
    if (!from->type)
        return 0;
    for (size_t i = 0; i < sizeof v0_types / sizeof v0_types[0]; i++) {
        if (strcmp(from->type, v0_types[i].name) == 0) {
            to->has_type = 1;
            to->type = v0_types[i].type;
            return 0;
        }
    }
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "layer \"%.100s\": type \"%.100s\" is none of the V0 format's",
                    from->name ? from->name : "", from->type);
}

static int upgrade_v0_layer(Caffe__V1LayerParameter **layer, struct sac_arena *arena,
                            struct sac_error *err)
{
    static const char *const kept[] = {"name", "blobs", "blobs_lr", "weight_decay",
                                       "hdf5_output_param"};
    const Caffe__V0LayerParameter *from = (*layer)->layer;
    Caffe__V1LayerParameter *to =
        (void *)sac_message_new(arena, &caffe__v1_layer_parameter__descriptor);

    if (!to)
        return fail_memory(err);
    sac_message_share(&to->base, &(*layer)->base, "bottom");
    sac_message_share(&to->base, &(*layer)->base, "top");
    *layer = to;
    if (!from)
        return 0;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        sac_message_share(&to->base, &from->base, kept[i]);
    int rc = v0_type(to, from, err);
    for (size_t i = 0; rc == 0 && i < sizeof v0_rules / sizeof v0_rules[0]; i++) {
        const char *type = v0_rules[i].type;
        if (!type || (from->type && strcmp(from->type, type) == 0))
            rc = apply_rule(to, from, &v0_rules[i], arena, err);
    }
    return rc;
}

static bool has_v0_type(const Caffe__V1LayerParameter *layer, const char *type)
{
    return layer->layer && layer->layer->type && strcmp(layer->layer->type, type) == 0;
}

/* The last layer before `before` whose top is `blob`, or NULL. */
static const Caffe__V1LayerParameter *producer(const Caffe__NetParameter *net, size_t before,
                                               const char *blob)
{
    for (size_t i = before; i-- > 0;) {
        for (size_t j = 0; j < net->layers[i]->n_top; j++) {
            if (strcmp(net->layers[i]->top[j], blob) == 0)
                return net->layers[i];
        }
    }
    return NULL;
}

/* `layer` reads what `padding` pads: it pads by itself instead. */
static int fold_padding(Caffe__V1LayerParameter *layer, const Caffe__V1LayerParameter *padding,
                        struct sac_error *err)
{
    const char *name = layer->layer && layer->layer->name ? layer->layer->name : "";

    if (!has_v0_type(layer, "conv") && !has_v0_type(layer, "pool"))
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "layer \"%.100s\": a padding layer may only feed conv and pool layers",
                        name);
    if (layer->n_bottom != 1 || padding->n_bottom != 1 || padding->n_top != 1)
        return sac_fail(err, SAC_EFORMAT,
                        "layer \"%.100s\": it and its padding layer must have one input each",
                        name);
    layer->layer->has_pad = 1;
    layer->layer->pad = padding->layer->pad;
    layer->bottom[0] = padding->bottom[0];
    return 0;
}

/* Padding layers go; what they feed pads by itself. */
static int fold_paddings(Caffe__NetParameter *net, struct sac_error *err)
{
    size_t kept = 0;
    int rc = 0;
    bool any = false;

    for (size_t i = 0; i < net->n_layers && !any; i++)
        any = has_v0_type(net->layers[i], "padding");
    for (size_t i = net->n_layers; any && i-- > 0 && rc == 0;) {
        for (size_t j = 0; j < net->layers[i]->n_bottom && rc == 0; j++) {
            const Caffe__V1LayerParameter *from = producer(net, i, net->layers[i]->bottom[j]);
            if (from && has_v0_type(from, "padding"))
                rc = fold_padding(net->layers[i], from, err);
        }
    }
    for (size_t i = 0; rc == 0 && i < net->n_layers; i++) {
        if (!has_v0_type(net->layers[i], "padding"))
            net->layers[kept++] = net->layers[i];
    }
    if (rc == 0)
        net->n_layers = kept;
    return rc;
}

static int upgrade_v0(Caffe__NetParameter *net, struct sac_arena *arena, struct sac_error *err)
{
    bool any = false;

    for (size_t i = 0; i < net->n_layers && !any; i++)
        any = net->layers[i]->layer;
    if (!any)
        return 0;
    int rc = fold_paddings(net, err);
    for (size_t i = 0; rc == 0 && i < net->n_layers; i++)
        rc = upgrade_v0_layer(&net->layers[i], arena, err);
    return rc;
}

/* ---- V1 to current: types by number, learning rates beside the blobs ---- */

static const char *const v1_types[] = {
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__NONE] = "",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__ABSVAL] = "AbsVal",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__ACCURACY] = "Accuracy",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__ARGMAX] = "ArgMax",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__BNLL] = "BNLL",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__CONCAT] = "Concat",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__CONTRASTIVE_LOSS] = "ContrastiveLoss",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__CONVOLUTION] = "Convolution",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__DATA] = "Data",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__DECONVOLUTION] = "Deconvolution",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__DROPOUT] = "Dropout",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__DUMMY_DATA] = "DummyData",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__ELTWISE] = "Eltwise",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__EUCLIDEAN_LOSS] = "EuclideanLoss",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__EXP] = "Exp",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__FLATTEN] = "Flatten",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__HDF5_DATA] = "HDF5Data",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__HDF5_OUTPUT] = "HDF5Output",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__HINGE_LOSS] = "HingeLoss",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__IM2COL] = "Im2col",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__IMAGE_DATA] = "ImageData",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__INFOGAIN_LOSS] = "InfogainLoss",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__INNER_PRODUCT] = "InnerProduct",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__LRN] = "LRN",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__MEMORY_DATA] = "MemoryData",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__MULTINOMIAL_LOGISTIC_LOSS] = "MultinomialLogisticLoss",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__MVN] = "MVN",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__POOLING] = "Pooling",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__POWER] = "Power",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__RELU] = "ReLU",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SIGMOID] = "Sigmoid",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SIGMOID_CROSS_ENTROPY_LOSS] = "SigmoidCrossEntropyLoss",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SILENCE] = "Silence",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SLICE] = "Slice",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SOFTMAX] = "Softmax",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SOFTMAX_LOSS] = "SoftmaxWithLoss",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__SPLIT] = "Split",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__TANH] = "TanH",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__THRESHOLD] = "Threshold",
    [CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__WINDOW_DATA] = "WindowData",
};

/* Moves scale, mean_file, crop_size and mirror of a data layer's own parameter
 * into transform_param. */
static int move_transform(Caffe__V1LayerParameter *layer, const char *param,
                          struct sac_arena *arena, struct sac_error *err)
{
    static const char *const fields[] = {"scale", "mean_file", "crop_size", "mirror"};
    const ProtobufCFieldDescriptor *field = sac_message_field(layer->base.descriptor, param);
    ProtobufCMessage *from = *(ProtobufCMessage **)sac_message_value(&layer->base, field, 0);

    for (int i = 0; from && i < 4; i++) {
        const ProtobufCFieldDescriptor *old = sac_message_field(from->descriptor, fields[i]);
        if (sac_message_count(from, old) == 0)
            continue;
        ProtobufCMessage *to = submessage(&layer->base, "transform_param", arena);
        if (!to)
            return fail_memory(err);
        sac_message_share(to, from, fields[i]);
        sac_message_clear(from, old);
    }
    return 0;
}

static int upgrade_transform(Caffe__V1LayerParameter *layer, struct sac_arena *arena,
                             struct sac_error *err)
{
    switch (layer->type) {
    case CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__DATA:
        return move_transform(layer, "data_param", arena, err);
    case CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__IMAGE_DATA:
        return move_transform(layer, "image_data_param", arena, err);
    case CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__WINDOW_DATA:
        return move_transform(layer, "window_data_param", arena, err);
    default:
        return 0;
    }
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Names, sharing, learning rates and decays, each a list, become one message a
 * parameter. */
static int upgrade_params(Caffe__LayerParameter *to, const Caffe__V1LayerParameter *from,
                          struct sac_arena *arena, struct sac_error *err)
{
    size_t count = most(most(from->n_param, from->n_blob_share_mode),
                        most(from->n_blobs_lr, from->n_weight_decay));
    const ProtobufCFieldDescriptor *field = sac_message_field(to->base.descriptor, "param");

    for (size_t i = 0; i < count; i++) {
        Caffe__ParamSpec *spec = (void *)sac_message_new(arena, &caffe__param_spec__descriptor);
        Caffe__ParamSpec **slot = spec ? sac_message_add(arena, &to->base, field) : NULL;
        if (!slot)
            return fail_memory(err);
        *slot = spec;
        if (i < from->n_param)
            spec->name = from->param[i];
        spec->has_share_mode = i < from->n_blob_share_mode;
        if (spec->has_share_mode)
            spec->share_mode = (Caffe__ParamSpec__DimCheckMode)from->blob_share_mode[i];
        spec->has_lr_mult = i < from->n_blobs_lr;
        if (spec->has_lr_mult)
            spec->lr_mult = from->blobs_lr[i];
        spec->has_decay_mult = i < from->n_weight_decay;
        if (spec->has_decay_mult)
            spec->decay_mult = from->weight_decay[i];
    }
    return 0;
}

static int upgrade_type(Caffe__LayerParameter *to, const Caffe__V1LayerParameter *from,
                        struct sac_arena *arena, struct sac_error *err)
{
    unsigned type = (unsigned)from->type;

    if (!from->has_type)
        return 0;
    if (type >= sizeof v1_types / sizeof v1_types[0] || !v1_types[type])
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "layer \"%.100s\": type %d is none of the V1 format's",
                        from->name ? from->name : "", from->type);
    to->type = sac_arena_strdup(arena, v1_types[type]);
    return to->type ? 0 : fail_memory(err);
}

static int upgrade_v1_layer(Caffe__LayerParameter **ret, Caffe__V1LayerParameter *from,
                            struct sac_arena *arena, struct sac_error *err)
{
    static const char *const elsewhere[] = {"layer", "type", "param"};
    const ProtobufCMessageDescriptor *descriptor = from->base.descriptor;
    Caffe__LayerParameter *to = (void *)sac_message_new(arena, &caffe__layer_parameter__descriptor);
    int rc = to ? upgrade_transform(from, arena, err) : fail_memory(err);

    for (unsigned i = 0; rc == 0 && i < descriptor->n_fields; i++) {
        const char *name = descriptor->fields[i].name;
        bool skip = false;
        for (int j = 0; j < 3; j++)
            skip |= strcmp(name, elsewhere[j]) == 0;
        if (!skip)
            sac_message_share(&to->base, &from->base, name);
    }
    if (rc == 0)
        rc = upgrade_type(to, from, arena, err);
    if (rc == 0)
        rc = upgrade_params(to, from, arena, err);
    *ret = to;
    return rc;
}

static int upgrade_v1(Caffe__NetParameter *net, struct sac_arena *arena, struct sac_error *err)
{
    int rc = 0;

    if (net->n_layers == 0)
        return 0;
    if (net->n_layer > 0)
        return sac_fail(err, SAC_EFORMAT,
                        "has both \"layers\" (%zu, old) and \"layer\" (%zu, current); use one",
                        net->n_layers, net->n_layer);
    Caffe__LayerParameter **layer = sac_arena_zalloc(arena, net->n_layers, sizeof *layer);
    if (!layer)
        return fail_memory(err);
    for (size_t i = 0; rc == 0 && i < net->n_layers; i++)
        rc = upgrade_v1_layer(&layer[i], net->layers[i], arena, err);
    if (rc == 0) {
        net->n_layer = net->n_layers;
        net->layer = layer;
        net->n_layers = 0;
        net->layers = NULL;
    }
    return rc;
}

/* ---- Inputs of the net become tops of a first layer ---- */

static int check_inputs(const Caffe__NetParameter *net, struct sac_error *err)
{
    if (net->n_input_shape > 0 && net->n_input_shape != net->n_input)
        return sac_fail(err, SAC_EFORMAT,
                        "expected an \"input_shape\" for each of %zu inputs, found %zu",
                        net->n_input, net->n_input_shape);
    if (net->n_input_shape == 0 && net->n_input_dim % 4 != 0)
        return sac_fail(err, SAC_EFORMAT,
                        "expected 4 \"input_dim\" an input, found %zu for %zu inputs",
                        net->n_input_dim, net->n_input);
    if (net->n_input_shape == 0 && net->n_input_dim / 4 != net->n_input)
        return sac_fail(err, SAC_EFORMAT,
                        "expected 4 \"input_dim\" an input, found %zu for %zu inputs",
                        net->n_input_dim, net->n_input);
    return 0;
}

static Caffe__BlobShape *shape_of_dims(struct sac_arena *arena, const int32_t dim[4])
{
    Caffe__BlobShape *shape = (void *)sac_message_new(arena, &caffe__blob_shape__descriptor);
    int64_t *dims = sac_arena_alloc(arena, 4 * sizeof *dims);

    if (!shape || !dims)
        return NULL;
    for (int i = 0; i < 4; i++)
        dims[i] = dim[i];
    shape->n_dim = 4;
    shape->dim = dims;
    return shape;
}

static int fill_input_layer(Caffe__LayerParameter *layer, Caffe__NetParameter *net,
                            struct sac_arena *arena, struct sac_error *err)
{
    Caffe__InputParameter *param =
        (void *)sac_message_new(arena, &caffe__input_parameter__descriptor);
    Caffe__BlobShape **shape = sac_arena_zalloc(arena, net->n_input, sizeof *shape);

    if (!param || !shape)
        return fail_memory(err);
    for (size_t i = 0; i < net->n_input; i++) {
        shape[i] = net->n_input_shape > 0 ? net->input_shape[i]
                                          : shape_of_dims(arena, net->input_dim + 4 * i);
        if (!shape[i])
            return fail_memory(err);
    }
    layer->name = sac_arena_strdup(arena, "input");
    layer->type = sac_arena_strdup(arena, "Input");
    if (!layer->name || !layer->type)
        return fail_memory(err);
    layer->n_top = net->n_input;
    layer->top = net->input;
    param->n_shape = net->n_input;
    param->shape = shape;
    layer->input_param = param;
    return 0;
}

static int prepend_input_layer(Caffe__NetParameter *net, struct sac_arena *arena,
                               struct sac_error *err)
{
    Caffe__LayerParameter *input =
        (void *)sac_message_new(arena, &caffe__layer_parameter__descriptor);
    Caffe__LayerParameter **layer = sac_arena_zalloc(arena, net->n_layer + 1, sizeof *layer);

    if (!input || !layer)
        return fail_memory(err);
    int rc = fill_input_layer(input, net, arena, err);
    if (rc < 0)
        return rc;
    layer[0] = input;
    if (net->n_layer > 0)
        memcpy(layer + 1, net->layer, net->n_layer * sizeof *layer);
    net->layer = layer;
    net->n_layer++;
    return 0;
}

/* Names without a shape are dropped, as Caffe does: files of weights have them. */
static int upgrade_inputs(Caffe__NetParameter *net, struct sac_arena *arena, struct sac_error *err)
{
    int rc = 0;

    if (net->n_input > 0 && (net->n_input_shape > 0 || net->n_input_dim > 0)) {
        rc = check_inputs(net, err);
        if (rc == 0)
            rc = prepend_input_layer(net, arena, err);
    }
    if (rc == 0) {
        net->n_input = net->n_input_dim = net->n_input_shape = 0;
        net->input = NULL;
        net->input_dim = NULL;
        net->input_shape = NULL;
    }
    return rc;
}

/* ---- The rest ---- */

/* Once, BatchNorm's three statistics had to be kept from training by hand. */
static void upgrade_batch_norm(Caffe__LayerParameter *layer)
{
    if (!layer->type || strcmp(layer->type, "BatchNorm") != 0 || layer->n_param != 3)
        return;
    for (size_t i = 0; i < layer->n_param; i++) {
        layer->param[i]->has_lr_mult = layer->param[i]->has_decay_mult = 1;
        layer->param[i]->lr_mult = layer->param[i]->decay_mult = 0;
    }
}

int sac_caffe_upgrade_net(Caffe__NetParameter *net, struct sac_arena *arena, struct sac_error *err)
{
    int rc = 0;

    if (net->n_layers > SAC_CAFFE_LAYERS_MAX || net->n_layer > SAC_CAFFE_LAYERS_MAX)
        return sac_fail(err, SAC_ELIMIT, "%zu layers, over the limit of %d",
                        most(net->n_layers, net->n_layer), SAC_CAFFE_LAYERS_MAX);
    rc = upgrade_v0(net, arena, err);
    if (rc == 0)
        rc = upgrade_v1(net, arena, err);
    if (rc == 0)
        rc = upgrade_inputs(net, arena, err);
    for (size_t i = 0; rc == 0 && i < net->n_layer; i++)
        upgrade_batch_norm(net->layer[i]);
    return rc;
}

static int upgrade_solver_type(Caffe__SolverParameter *solver, struct sac_arena *arena,
                               struct sac_error *err)
{
    static const char *const types[] = {"SGD",     "Nesterov", "AdaGrad",
                                        "RMSProp", "AdaDelta", "Adam"};
    const ProtobufCFieldDescriptor *type = sac_message_field(solver->base.descriptor, "type");

    if (!solver->has_solver_type)
        return 0;
    if (sac_message_count(&solver->base, type) > 0)
        return sac_fail(err, SAC_EFORMAT,
                        "has both \"solver_type\" (old) and \"type\" (current); use one");
    if ((unsigned)solver->solver_type >= sizeof types / sizeof types[0])
        return sac_fail(err, SAC_EFORMAT, "solver_type %d is unknown", solver->solver_type);
    solver->type = sac_arena_strdup(arena, types[solver->solver_type]);
    solver->has_solver_type = 0;
    return solver->type ? 0 : fail_memory(err);
}

int sac_caffe_upgrade_solver(Caffe__SolverParameter *solver, struct sac_arena *arena,
                             struct sac_error *err)
{
    int rc = upgrade_solver_type(solver, arena, err);

    if (rc == 0 && solver->net_param)
        rc = sac_caffe_upgrade_net(solver->net_param, arena, err);
    if (rc == 0 && solver->train_net_param)
        rc = sac_caffe_upgrade_net(solver->train_net_param, arena, err);
    for (size_t i = 0; rc == 0 && i < solver->n_test_net_param; i++)
        rc = sac_caffe_upgrade_net(solver->test_net_param[i], arena, err);
    return rc;
}
