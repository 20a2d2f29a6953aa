#include "net/net_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct sac_net_options no_options = {.phase = SAC_PHASE_TEST};

/* What is needed only while a net is built. */
struct build {
    struct sac_net *net;
    const Caffe__NetParameter *message;
    const struct sac_net_options *options;
    const Caffe__LayerParameter **sources; /* of the net's layers */
    struct sac_names keys, param_names;
};

static int no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory");
}

/* ---- Layers: which ones, of what type, between which blobs ---- */

static int select_layers(struct build *build, struct sac_error *err)
{
    const Caffe__NetParameter *message = build->message;
    struct sac_net *net = build->net;

    build->sources = calloc(message->n_layer + 1, sizeof *build->sources);
    if (!build->sources)
        return no_memory(err);
    for (size_t i = 0; i < message->n_layer; i++) {
        bool included;
        int rc =
            sac_layer_included(message->layer[i], message->state, build->options, &included, err);
        if (rc != 0)
            return rc;
        if (!included)
            continue;
        if (net->layer_count == SAC_NET_LAYERS_MAX)
            return sac_fail(err, SAC_ELIMIT, "the net has over %d layers", SAC_NET_LAYERS_MAX);
        build->sources[net->layer_count++] = message->layer[i];
    }
    if (net->layer_count == 0)
        return sac_fail(err, SAC_EFORMAT, "the net has no layers%s",
                        message->n_layer ? " in this phase, level and stage" : "");
    return 0;
}

/* The most bottoms and tops that one layer has, and the memory for all. */
static int make_room(struct build *build, struct sac_error *err)
{
    struct sac_net *net = build->net;
    size_t values = 0, bottoms = 0, tops = 0;

    for (int i = 0; i < net->layer_count; i++) {
        const Caffe__LayerParameter *source = build->sources[i];
        values += source->n_top;
        bottoms = source->n_bottom > bottoms ? source->n_bottom : bottoms;
        tops = source->n_top > tops ? source->n_top : tops;
    }
    if (values > SAC_NET_VALUES_MAX || bottoms > SAC_NET_VALUES_MAX)
        return sac_fail(err, SAC_ELIMIT, "the net's layers have over %d tops or bottoms",
                        SAC_NET_VALUES_MAX);
    net->bottoms_most = (int)bottoms;
    net->tops_most = (int)tops;
    net->layers = sac_arena_zalloc(net->arena, (size_t)net->layer_count, sizeof *net->layers);
    net->values = sac_arena_zalloc(net->arena, values + 1, sizeof *net->values);
    net->shapes = sac_arena_zalloc(net->arena, values + 1, sizeof *net->shapes);
    net->inputs = sac_arena_zalloc(net->arena, values + 1, sizeof *net->inputs);
    net->outputs = sac_arena_zalloc(net->arena, values + 1, sizeof *net->outputs);
    bool all = net->layers && net->values && net->shapes && net->inputs && net->outputs;
    return all ? 0 : no_memory(err);
}

static int check_count(const char *what, size_t count, int least, int most, struct sac_error *err)
{
    if (count >= (size_t)least && count <= (size_t)most)
        return 0;
    if (least == most)
        return sac_fail(err, SAC_EFORMAT, "it takes %d %s%s, and has %zu", least, what,
                        least == 1 ? "" : "s", count);
    return sac_fail(err, SAC_EFORMAT, "it takes %d to %d %ss, and has %zu", least, most, what,
                    count);
}

static int check_counts(const struct sac_layer_type *type, const Caffe__LayerParameter *source,
                        struct sac_error *err)
{
    int rc = check_count("bottom", source->n_bottom, type->bottom_min, type->bottom_max, err);

    if (rc == 0)
        rc = check_count("top", source->n_top, type->top_min, type->top_max, err);
    if (rc == 0 && type->as_many_tops && source->n_top != source->n_bottom)
        rc = sac_fail(err, SAC_EFORMAT, "it takes as many tops as bottoms, and has %zu and %zu",
                      source->n_top, source->n_bottom);
    return rc;
}

/* A name of its own for the layer's weights, where several layers share one name. */
static int name_layer(struct build *build, struct sac_layer *layer, const char *name,
                      struct sac_error *err)
{
    struct sac_net *net = build->net;
    int index = (int)(layer - net->layers);
    size_t size = strlen(name) + 16;
    char *key = sac_arena_alloc(net->arena, size);

    if (!key)
        return no_memory(err);
    layer->name = sac_arena_strdup(net->arena, name);
    snprintf(key, size, "%s", name);
    for (int i = index; sac_names_find(&build->keys, key) >= 0; i++)
        snprintf(key, size, "%s#%d", name, i);
    layer->key = key;
    bool first = layer->name && sac_names_find(&net->layer_names, name) < 0;
    if (!layer->name || !sac_names_put(&build->keys, key, index) ||
        (first && !sac_names_put(&net->layer_names, layer->name, index)))
        return no_memory(err);
    return 0;
}

static int link_bottoms(struct sac_net *net, struct sac_layer *layer,
                        const Caffe__LayerParameter *source, struct sac_error *err)
{
    layer->bottom_count = (int)source->n_bottom;
    layer->bottoms = sac_arena_zalloc(net->arena, source->n_bottom + 1, sizeof *layer->bottoms);
    if (!layer->bottoms)
        return no_memory(err);
    for (int i = 0; i < layer->bottom_count; i++) {
        int value = sac_names_find(&net->blobs, source->bottom[i]);
        if (value < 0)
            return sac_fail(err, SAC_EFORMAT,
                            "it takes blob \"%.64s\", which no layer before it makes",
                            source->bottom[i]);
        layer->bottoms[i] = value;
        net->values[value].used = true;
    }
    return 0;
}

/* A top may be there already only as the bottom at the same place: in place. */
static bool is_duplicate(const struct sac_net *net, const Caffe__LayerParameter *source, size_t i)
{
    if (sac_names_find(&net->blobs, source->top[i]) < 0)
        return false;
    return i >= source->n_bottom || strcmp(source->top[i], source->bottom[i]) != 0;
}

static int link_tops(struct sac_net *net, struct sac_layer *layer,
                     const Caffe__LayerParameter *source, struct sac_error *err)
{
    layer->top_count = (int)source->n_top;
    layer->tops = sac_arena_zalloc(net->arena, source->n_top + 1, sizeof *layer->tops);
    layer->top_names = sac_arena_zalloc(net->arena, source->n_top + 1, sizeof *layer->top_names);
    if (!layer->tops || !layer->top_names)
        return no_memory(err);
    for (int i = 0; i < layer->top_count; i++) {
        int value = net->value_count;
        const char *name = sac_arena_strdup(net->arena, source->top[i]);
        if (is_duplicate(net, source, (size_t)i))
            return sac_fail(err, SAC_EFORMAT,
                            "it makes blob \"%.64s\", which a layer before it makes too, and is "
                            "not that blob's user in place",
                            source->top[i]);
        if (!name || !sac_names_put(&net->blobs, name, value))
            return no_memory(err);
        net->values[value] =
            (struct sac_net_value){.name = name, .layer = (int)(layer - net->layers)};
        layer->tops[i] = value;
        layer->top_names[i] = name;
        if (layer->type->feeds)
            net->inputs[net->input_count++] = value;
        net->value_count++;
    }
    return 0;
}

/* loss_weight, one a top, or what the type has by default. */
static int read_loss_weights(struct sac_net *net, struct sac_layer *layer,
                             const Caffe__LayerParameter *source, struct sac_error *err)
{
    int tops = layer->top_count == 0 && layer->type->loss ? 1 : layer->top_count;
    float *weights = sac_arena_zalloc(net->arena, (size_t)tops + 1, sizeof *weights);

    if (!weights)
        return no_memory(err);
    if (source->n_loss_weight > 0 && source->n_loss_weight != (size_t)tops)
        return sac_fail(err, SAC_EFORMAT, "%d top%s need as many loss_weight, and there are %zu",
                        tops, tops == 1 ? "" : "s", source->n_loss_weight);
    weights[0] = layer->type->loss ? 1 : 0;
    for (size_t i = 0; i < source->n_loss_weight; i++)
        weights[i] = source->loss_weight[i];
    layer->loss_weights = weights;
    return 0;
}

static int read_propagate_down(struct sac_net *net, struct sac_layer *layer,
                               const Caffe__LayerParameter *source, struct sac_error *err)
{
    size_t count = source->n_propagate_down;

    if (count == 0)
        return 0;
    if (count != (size_t)layer->bottom_count)
        return sac_fail(err, SAC_EFORMAT,
                        "%d bottoms need as many propagate_down, and there are %zu",
                        layer->bottom_count, count);
    bool *cut = sac_arena_zalloc(net->arena, count, sizeof *cut);
    if (!cut)
        return no_memory(err);
    for (size_t i = 0; i < count; i++)
        cut[i] = !source->propagate_down[i];
    layer->cut = cut;
    return 0;
}

static int setup_layer(struct build *build, struct sac_layer *layer,
                       const Caffe__LayerParameter *source, struct sac_error *err)
{
    struct sac_net *net = build->net;
    struct sac_layer_setup setup = {
        .message = source, .options = build->options, .arena = net->arena};
    int rc = check_counts(layer->type, source, err);

    if (rc == 0)
        rc = link_bottoms(net, layer, source, err);
    if (rc == 0)
        rc = link_tops(net, layer, source, err);
    if (rc == 0)
        rc = read_loss_weights(net, layer, source, err);
    if (rc == 0)
        rc = read_propagate_down(net, layer, source, err);
    if (rc == 0 && layer->type->setup)
        rc = layer->type->setup(layer, &setup, err);
    return sac_layer_blame(layer, rc, err);
}

static int build_layers(struct build *build, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < build->net->layer_count; i++) {
        const Caffe__LayerParameter *source = build->sources[i];
        struct sac_layer *layer = &build->net->layers[i];
        const char *name = source->name ? source->name : "";
        layer->type = sac_layer_type_find(source->type ? source->type : "");
        if (!layer->type)
            return sac_fail(err, SAC_EUNSUPPORTED,
                            "layer \"%.64s\": there is no layer type \"%.64s\"", name,
                            source->type ? source->type : "");
        rc = name_layer(build, layer, name, err);
        if (rc == 0)
            rc = setup_layer(build, layer, source, err);
    }
    return rc;
}

/* ---- Inputs and outputs ---- */

static int check_given_inputs(const struct build *build, struct sac_error *err)
{
    const struct sac_net *net = build->net;

    for (int i = 0; i < build->options->input_count; i++) {
        const char *name = build->options->inputs[i].name;
        bool found = false;
        for (int k = 0; k < net->input_count; k++)
            found |= strcmp(net->values[net->inputs[k]].name, name) == 0;
        if (!found)
            return sac_fail(err, SAC_EINVAL, "a shape is given for \"%.64s\", which is no input",
                            name);
    }
    return 0;
}

static void find_outputs(struct sac_net *net)
{
    for (int i = 0; i < net->value_count; i++) {
        const struct sac_net_value *value = &net->values[i];
        if (!value->used && !net->layers[value->layer].type->feeds)
            net->outputs[net->output_count++] = i;
    }
}

/* ---- Weights: zero, shared by name, allocated when all sizes are known ---- */

static const Caffe__ParamSpec *spec_of(const Caffe__LayerParameter *source, int index)
{
    return (size_t)index < source->n_param ? source->param[index] : NULL;
}

static bool shareable(const struct sac_param *param, const struct sac_shape *shape,
                      const Caffe__ParamSpec *spec)
{
    if (spec->share_mode == CAFFE__PARAM_SPEC__DIM_CHECK_MODE__PERMISSIVE)
        return param->count == sac_shape_count(shape);
    return sac_shape_equal(&param->shape, shape);
}

/* Who owns a parameter together says the same of it, or nothing. */
static int set_multiplier(float *value, bool *has, bool given, float wanted, const char *which,
                          struct sac_error *err)
{
    if (!given)
        return 0;
    if (*has && *value != wanted)
        return sac_fail(err, SAC_EFORMAT, "a shared parameter's %s is %g here and %g before", which,
                        (double)wanted, (double)*value);
    *value = wanted;
    *has = true;
    return 0;
}

static int set_multipliers(struct sac_param *param, const struct sac_layer *layer,
                           const Caffe__ParamSpec *spec, struct sac_error *err)
{
    int rc = 0;

    if (layer->type->statistics) {
        param->lr_mult = param->decay_mult = 0;
        return 0;
    }
    if (spec)
        rc = set_multiplier(&param->lr_mult, &param->has_lr_mult, spec->has_lr_mult, spec->lr_mult,
                            "lr_mult", err);
    if (rc == 0 && spec)
        rc = set_multiplier(&param->decay_mult, &param->has_decay_mult, spec->has_decay_mult,
                            spec->decay_mult, "decay_mult", err);
    return rc;
}

static int share_param(const struct build *build, struct sac_layer *layer, int index, int owner,
                       const Caffe__ParamSpec *spec, struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
    struct sac_param *param = build->net->params[owner];
    const struct sac_shape *shape = &layer->weight_shapes[index];

    layer->weights[index] = param;
    if (shareable(param, shape, spec))
        return set_multipliers(param, layer, spec, err);
    return sac_fail(err, SAC_EFORMAT, "parameter \"%.64s\" is shared, and is %s here and %s before",
                    spec->name, sac_shape_text(shape, a, sizeof a),
                    sac_shape_text(&param->shape, b, sizeof b));
}

static const char *param_name(struct sac_net *net, const struct sac_layer *layer, int index)
{
    size_t size = strlen(layer->key) + 16;
    char *name = sac_arena_alloc(net->arena, size);

    if (name)
        snprintf(name, size, "%s/%d", layer->key, index);
    return name;
}

static int new_param(struct build *build, struct sac_layer *layer, int index, const char *name,
                     const Caffe__ParamSpec *spec, struct sac_error *err)
{
    struct sac_net *net = build->net;
    struct sac_param *param = sac_arena_zalloc(net->arena, 1, sizeof *param);

    if (!param || (name && !sac_names_put(&build->param_names, name, net->param_count)))
        return no_memory(err);
    param->name = param_name(net, layer, index);
    if (!param->name)
        return no_memory(err);
    param->index = net->param_count;
    param->lr_mult = param->decay_mult = 1;
    param->filler = layer->fillers[index];
    if (!param->filler.type)
        param->filler = sac_filler_constant(0);
    param->shape = layer->weight_shapes[index];
    param->count = sac_shape_count(&param->shape);
    layer->weights[index] = param;
    net->params[net->param_count++] = param;
    net->weight_count += param->count;
    if (net->weight_count > SAC_NET_WEIGHTS_MAX)
        return sac_fail(err, SAC_ELIMIT, "with it the net's weights are over %lld GiB",
                        (long long)(SAC_NET_WEIGHTS_MAX >> 28));
    return set_multipliers(param, layer, spec, err);
}

static int add_params(struct build *build, struct sac_layer *layer,
                      const Caffe__LayerParameter *source, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < layer->weight_count; i++) {
        const Caffe__ParamSpec *spec = spec_of(source, i);
        const char *name = spec && spec->name && *spec->name ? spec->name : NULL;
        int owner = name ? sac_names_find(&build->param_names, name) : -1;
        rc = owner < 0 ? new_param(build, layer, i, name, spec, err)
                       : share_param(build, layer, i, owner, spec, err);
    }
    return sac_layer_blame(layer, rc, err);
}

static int allocate_params(struct sac_net *net, struct sac_error *err)
{
    for (int i = 0; i < net->param_count; i++) {
        struct sac_param *param = net->params[i];
        param->data = calloc((size_t)param->count, sizeof *param->data);
        if (!param->data)
            return sac_fail(err, SAC_ENOMEM, "out of memory for %lld weights",
                            (long long)net->weight_count);
    }
    return 0;
}

static int build_weights(struct build *build, const struct sac_weight_shapes *shapes,
                         struct sac_error *err)
{
    struct sac_net *net = build->net;
    size_t most = (size_t)net->layer_count * SAC_LAYER_WEIGHTS_MAX;
    int rc = 0;

    net->params = sac_arena_zalloc(net->arena, most, sizeof(struct sac_param *));
    if (!net->params)
        return no_memory(err);
    for (int i = 0; rc == 0 && i < net->layer_count; i++) {
        struct sac_layer *layer = &net->layers[i];
        layer->weight_count = shapes[i].count;
        memcpy(layer->weight_shapes, shapes[i].shape, sizeof layer->weight_shapes);
        rc = add_params(build, layer, build->sources[i], err);
    }
    return rc == 0 ? allocate_params(net, err) : rc;
}

static int infer_and_build_weights(struct build *build, struct sac_error *err)
{
    struct sac_net *net = build->net;
    struct sac_weight_shapes *weights = calloc((size_t)net->layer_count, sizeof *weights);
    int rc = weights ? sac_net_infer(net, NULL, net->shapes, weights, err) : no_memory(err);

    if (rc == 0)
        rc = build_weights(build, weights, err);
    free(weights);
    return rc;
}

/* A net that comes out of a binary file may bring its weights. */
static int take_own_weights(struct build *build, struct sac_error *err)
{
    Caffe__NetParameter own = *build->message;
    size_t blobs = 0;

    for (int i = 0; i < build->net->layer_count; i++)
        blobs += build->sources[i]->n_blobs;
    if (blobs == 0)
        return 0;
    own.n_layer = (size_t)build->net->layer_count;
    own.layer = (Caffe__LayerParameter **)build->sources;
    return sac_net_copy_weights(build->net, &own, NULL, err);
}

static int build_net(struct sac_net *net, const Caffe__NetParameter *message,
                     const struct sac_net_options *options, struct sac_error *err)
{
    struct build build = {
        .net = net, .message = message, .options = options ? options : &no_options};
    int rc = select_layers(&build, err);

    net->name = sac_arena_strdup(net->arena, message->name ? message->name : "");
    if (rc == 0 && !net->name)
        rc = no_memory(err);
    if (rc == 0)
        rc = make_room(&build, err);
    if (rc == 0)
        rc = build_layers(&build, err);
    if (rc == 0)
        rc = check_given_inputs(&build, err);
    if (rc == 0)
        rc = infer_and_build_weights(&build, err);
    if (rc == 0)
        rc = take_own_weights(&build, err);
    if (rc == 0)
        find_outputs(net);
    free(build.sources);
    sac_names_done(&build.keys);
    sac_names_done(&build.param_names);
    return rc;
}

static int net_from(struct sac_net **ret, const char *name, const struct sac_caffe_net *file,
                    const struct sac_net_options *options, struct sac_error *err)
{
    struct sac_net *net = calloc(1, sizeof *net);

    if (net)
        net->arena = sac_arena_new(0);
    int rc = net && net->arena ? build_net(net, file->net, options, err) : no_memory(err);
    if (rc != 0)
        sac_error_prefix(err, "%s", name);
    if (rc == 0) {
        *ret = net;
        net = NULL;
    }
    sac_net_free(net);
    return rc;
}

int sac_net_load(struct sac_net **ret, const char *path, const struct sac_net_options *options,
                 struct sac_error *err)
{
    struct sac_caffe_net file = {0};
    int rc = sac_caffe_net_load(&file, path, err);

    if (rc != 0)
        return rc;
    rc = net_from(ret, path, &file, options, err);
    sac_caffe_net_done(&file);
    return rc;
}

int sac_net_parse(struct sac_net **ret, const char *name, const void *bytes, size_t size,
                  const struct sac_net_options *options, struct sac_error *err)
{
    struct sac_caffe_net file = {0};
    int rc = sac_caffe_net_parse(&file, name, bytes, size, err);

    if (rc != 0)
        return rc;
    rc = net_from(ret, name, &file, options, err);
    sac_caffe_net_done(&file);
    return rc;
}

void sac_net_free(struct sac_net *net)
{
    if (!net)
        return;
    for (int i = 0; i < net->param_count; i++)
        free(net->params[i]->data);
    sac_names_done(&net->blobs);
    sac_names_done(&net->layer_names);
    sac_arena_free(net->arena);
    free(net);
}

/* ---- What there is ---- */

const char *sac_net_name(const struct sac_net *net)
{
    return net->name;
}

int sac_net_input_count(const struct sac_net *net)
{
    return net->input_count;
}

const char *sac_net_input_name(const struct sac_net *net, int index)
{
    return net->values[net->inputs[index]].name;
}

int sac_net_output_count(const struct sac_net *net)
{
    return net->output_count;
}

const char *sac_net_output_name(const struct sac_net *net, int index)
{
    return net->values[net->outputs[index]].name;
}

bool sac_net_blob_shape(const struct sac_net *net, const char *blob, struct sac_shape *ret)
{
    int value = sac_names_find(&net->blobs, blob);

    if (value >= 0)
        *ret = net->shapes[value];
    return value >= 0;
}

const char *sac_net_last_features(const struct sac_net *net)
{
    for (int i = net->layer_count - 1; i >= 0; i--) {
        const struct sac_layer *layer = &net->layers[i];
        const char *type = layer->type->name;
        if (layer->bottom_count > 0 &&
            (strcmp(type, "Convolution") == 0 || strcmp(type, "InnerProduct") == 0))
            return net->values[layer->bottoms[0]].name;
    }
    return NULL;
}

int64_t sac_net_weight_count(const struct sac_net *net)
{
    return net->weight_count;
}

int sac_net_param_count(const struct sac_net *net)
{
    return net->param_count;
}

void sac_net_param(const struct sac_net *net, int index, struct sac_net_param *ret)
{
    const struct sac_param *param = net->params[index];

    *ret = (struct sac_net_param){
        .name = param->name,
        .shape = param->shape,
        .count = param->count,
        .data = param->data,
        .lr_mult = param->lr_mult,
        .decay_mult = param->decay_mult,
    };
}

int sac_net_fill(struct sac_net *net, uint64_t seed, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < net->param_count; i++) {
        struct sac_param *param = net->params[i];
        rc = sac_filler_fill(&param->filler, param->name, &param->shape, seed, param->data, err);
    }
    return rc;
}

int sac_net_layer_count(const struct sac_net *net)
{
    return net->layer_count;
}

const struct sac_layer *sac_net_layer(const struct sac_net *net, int index)
{
    return &net->layers[index];
}

const char *sac_layer_name(const struct sac_layer *layer)
{
    return layer->name;
}

const char *sac_layer_type_name(const struct sac_layer *layer)
{
    return layer->type->name;
}

int sac_layer_weight_count(const struct sac_layer *layer)
{
    return layer->weight_count;
}

const float *sac_layer_weight(const struct sac_layer *layer, int index, struct sac_shape *ret)
{
    if (ret)
        *ret = layer->weight_shapes[index];
    return layer->weights[index]->data;
}
