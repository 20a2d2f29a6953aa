#include "train/adapt.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "formats/message.h"

/* What one call builds with. The first failed allocation is remembered: what comes of
 * it is thrown away at the end. */
struct work {
    const struct sac_adapt_options *options;
    struct sac_arena *arena;
    bool failed;
    int last;         /* the index of the layer that is replaced */
    const char *name; /* what it is called now */
    const char *old_top, *new_top;
};

static void *take(struct work *w, size_t count, size_t size)
{
    void *out = sac_arena_zalloc(w->arena, count, size);

    w->failed |= !out;
    return out;
}

static void *message(struct work *w, const ProtobufCMessageDescriptor *descriptor)
{
    void *out = sac_message_new(w->arena, descriptor);

    w->failed |= !out;
    return out;
}

static char *text(struct work *w, const char *from)
{
    char *out = sac_arena_strdup(w->arena, from);

    w->failed |= !out;
    return out;
}

static bool is(const Caffe__LayerParameter *layer, const char *type)
{
    return layer->type && strcmp(layer->type, type) == 0;
}

static bool learns(const Caffe__LayerParameter *layer)
{
    return is(layer, "Convolution") || is(layer, "InnerProduct") || is(layer, "Deconvolution");
}

int sac_adapt_learnable(const Caffe__NetParameter *deploy)
{
    int count = 0;

    for (size_t i = 0; i < deploy->n_layer; i++)
        count += learns(deploy->layer[i]);
    return count;
}

/* ---- Rates ----------------------------------------------------------------- */

static Caffe__ParamSpec *spec(struct work *w, const Caffe__ParamSpec *old, float lr, float decay)
{
    Caffe__ParamSpec *out = message(w, &caffe__param_spec__descriptor);

    if (!out)
        return NULL;
    if (old && old->name)
        out->name = old->name; /* shared parameters stay shared */
    out->has_lr_mult = out->has_decay_mult = 1;
    out->lr_mult = lr;
    out->decay_mult = decay;
    return out;
}

static bool has_bias(const Caffe__LayerParameter *layer)
{
    if (layer->convolution_param)
        return layer->convolution_param->bias_term;
    if (layer->inner_product_param)
        return layer->inner_product_param->bias_term;
    return layer->scale_param ? layer->scale_param->bias_term : !is(layer, "Scale");
}

/* How many parameters a layer has that a solver may change. */
static size_t spec_count(const Caffe__LayerParameter *layer)
{
    if (is(layer, "Bias") || is(layer, "PReLU"))
        return 1;
    return learns(layer) || is(layer, "Scale") ? 1 + (size_t)has_bias(layer) : 0;
}

/* Weights decay; scales, biases and slopes do not. */
static void set_rates(struct work *w, Caffe__LayerParameter *layer, float mult)
{
    size_t count = spec_count(layer);
    Caffe__ParamSpec **specs = take(w, count, sizeof *specs);

    if (count == 0 || !specs)
        return;
    for (size_t i = 0; i < count; i++)
        specs[i] = spec(w, i < layer->n_param ? layer->param[i] : NULL, i ? 2 * mult : mult,
                        learns(layer) && i == 0 ? 1 : 0);
    layer->param = specs;
    layer->n_param = count;
}

static void keep_statistics(struct work *w, Caffe__LayerParameter *layer)
{
    Caffe__BatchNormParameter *p = message(w, &caffe__batch_norm_parameter__descriptor);

    if (!p)
        return;
    if (layer->batch_norm_param)
        *p = *layer->batch_norm_param;
    p->has_use_global_stats = p->use_global_stats = 1;
    layer->batch_norm_param = p;
}

/* A deploy net often says that statistics are stored ones; in training that is for the
 * phase to decide, but where they are frozen. */
static void set_statistics(struct work *w, Caffe__LayerParameter *layer, bool frozen)
{
    if (frozen) {
        keep_statistics(w, layer);
        return;
    }
    if (!layer->batch_norm_param || !layer->batch_norm_param->has_use_global_stats)
        return;
    Caffe__BatchNormParameter *p = message(w, &caffe__batch_norm_parameter__descriptor);
    if (!p)
        return;
    *p = *layer->batch_norm_param;
    p->has_use_global_stats = 0;
    layer->batch_norm_param = p;
}

/* ---- The new last layer ---------------------------------------------------- */

static Caffe__FillerParameter *filler_of(struct work *w, const char *type)
{
    Caffe__FillerParameter *filler = message(w, &caffe__filler_parameter__descriptor);

    if (filler)
        filler->type = text(w, type);
    return filler;
}

static Caffe__FillerParameter *small_noise(struct work *w)
{
    Caffe__FillerParameter *filler = filler_of(w, "gaussian");

    if (!filler)
        return NULL;
    filler->has_std = 1;
    filler->std = 0.01F;
    return filler;
}

/* The layer's own parameters, to be changed. */
static Caffe__ConvolutionParameter *own_convolution(struct work *w, Caffe__LayerParameter *layer)
{
    Caffe__ConvolutionParameter *p = message(w, &caffe__convolution_parameter__descriptor);

    if (p) {
        *p = *layer->convolution_param;
        layer->convolution_param = p;
    }
    return p;
}

static Caffe__InnerProductParameter *own_inner(struct work *w, Caffe__LayerParameter *layer)
{
    Caffe__InnerProductParameter *p = message(w, &caffe__inner_product_parameter__descriptor);

    if (p) {
        *p = *layer->inner_product_param;
        layer->inner_product_param = p;
    }
    return p;
}

static void renew(struct work *w, Caffe__LayerParameter *layer)
{
    uint32_t classes = (uint32_t)w->options->classes;

    layer->name = (char *)w->name;
    if (layer->convolution_param) {
        Caffe__ConvolutionParameter *p = own_convolution(w, layer);
        if (!p)
            return;
        p->has_num_output = 1;
        p->num_output = classes;
        p->weight_filler = small_noise(w);
    } else {
        Caffe__InnerProductParameter *p = own_inner(w, layer);
        if (!p)
            return;
        p->has_num_output = 1;
        p->num_output = classes;
        p->weight_filler = small_noise(w);
    }
}

/* Deploy nets seldom say how weights start, and Caffe's default of 0 learns nothing:
 * Glorot and Bengio's, as the published training nets have, for a net that starts without
 * weights. He et al.'s would keep the size of inputs of ±128 up to the scores. */
static void set_filler(struct work *w, Caffe__LayerParameter *layer)
{
    if (layer->convolution_param && !layer->convolution_param->weight_filler) {
        Caffe__ConvolutionParameter *p = own_convolution(w, layer);
        if (p)
            p->weight_filler = filler_of(w, "xavier");
    } else if (layer->inner_product_param && !layer->inner_product_param->weight_filler) {
        Caffe__InnerProductParameter *p = own_inner(w, layer);
        if (p)
            p->weight_filler = filler_of(w, "xavier");
    }
}

/* A net whose last blob is called as its layer gets the new name for both. */
static void rename_blobs(struct work *w, char ***names, size_t count)
{
    char **out = take(w, count, sizeof *out);

    if (count == 0 || !out)
        return;
    for (size_t i = 0; i < count; i++)
        out[i] = strcmp((*names)[i], w->old_top) == 0 ? (char *)w->new_top : (*names)[i];
    *names = out;
}

static Caffe__LayerParameter *copy_of(struct work *w, const Caffe__LayerParameter *layer)
{
    Caffe__LayerParameter *out = message(w, &caffe__layer_parameter__descriptor);

    if (out)
        *out = *layer;
    return out;
}

static Caffe__LayerParameter *adapt_layer(struct work *w, const Caffe__LayerParameter *layer,
                                          int index, int learnable)
{
    const struct sac_adapt_options *o = w->options;
    Caffe__LayerParameter *out = copy_of(w, layer);
    bool frozen = learnable <= o->frozen;

    if (!out)
        return NULL;
    out->n_blobs = 0;
    if (index >= w->last) {
        rename_blobs(w, &out->bottom, out->n_bottom);
        rename_blobs(w, &out->top, out->n_top);
    }
    if (index == w->last)
        renew(w, out);
    else
        set_filler(w, out);
    set_rates(w, out, index == w->last ? o->last_mult : frozen ? 0 : o->early_mult);
    if (is(out, "BatchNorm"))
        set_statistics(w, out, frozen);
    return out;
}

/* ---- Losses ---------------------------------------------------------------- */

static char **pair(struct work *w, const char *first, const char *second)
{
    char **out = take(w, 2, sizeof *out);

    if (out) {
        out[0] = text(w, first);
        if (second)
            out[1] = text(w, second);
    }
    return out;
}

static Caffe__LayerParameter *judge(struct work *w, const char *type, const char *name,
                                    const char *scores)
{
    Caffe__LayerParameter *out = message(w, &caffe__layer_parameter__descriptor);

    if (!out)
        return NULL;
    out->type = text(w, type);
    out->name = text(w, name);
    out->n_bottom = 2;
    out->bottom = pair(w, scores, "label");
    out->n_top = 1;
    out->top = pair(w, name, NULL);
    return out;
}

static Caffe__LayerParameter *loss(struct work *w, const char *scores)
{
    Caffe__LayerParameter *out = judge(w, "SoftmaxWithLoss", "loss", scores);

    if (!out || w->options->smoothing <= 0)
        return out;
    out->loss_param = message(w, &caffe__loss_parameter__descriptor);
    if (!out->loss_param)
        return out;
    out->loss_param->has_label_smoothing = 1;
    out->loss_param->label_smoothing = w->options->smoothing;
    return out;
}

static Caffe__LayerParameter *accuracy(struct work *w, const char *scores, unsigned top_k)
{
    Caffe__LayerParameter *out =
        judge(w, "Accuracy", top_k == 1 ? "accuracy" : "accuracy_top5", scores);
    Caffe__NetStateRule *rule = message(w, &caffe__net_state_rule__descriptor);
    Caffe__NetStateRule **rules = take(w, 1, sizeof *rules);

    if (!out || !rule || !rules)
        return out;
    rule->has_phase = 1;
    rule->phase = CAFFE__PHASE__TEST;
    rules[0] = rule;
    out->include = rules;
    out->n_include = 1;
    if (top_k > 1 && (out->accuracy_param = message(w, &caffe__accuracy_parameter__descriptor))) {
        out->accuracy_param->has_top_k = 1;
        out->accuracy_param->top_k = top_k;
    }
    return out;
}

/* ---- The whole ------------------------------------------------------------- */

static int find_last(struct work *w, const Caffe__NetParameter *deploy, struct sac_error *err)
{
    char name[256];

    w->last = -1;
    for (size_t i = 0; i < deploy->n_layer; i++)
        if (learns(deploy->layer[i]))
            w->last = (int)i;
    if (w->last < 0)
        return sac_fail(err, SAC_EINVAL, "no Convolution or InnerProduct to replace");
    const Caffe__LayerParameter *layer = deploy->layer[w->last];
    if (is(layer, "Deconvolution") || layer->n_top != 1 ||
        (!layer->convolution_param && !layer->inner_product_param))
        return sac_fail(err, SAC_EINVAL,
                        "layer \"%.64s\" (%s) cannot be replaced; a Convolution or InnerProduct "
                        "with one top was expected to be the last that learns",
                        layer->name, layer->type);
    for (size_t i = (size_t)w->last + 1; i < deploy->n_layer; i++)
        if (is(deploy->layer[i], "BatchNorm") || is(deploy->layer[i], "Scale"))
            return sac_fail(err, SAC_EINVAL,
                            "layer \"%.64s\" (%s) stands behind the last layer, \"%.64s\", and has "
                            "weights for each of its outputs",
                            deploy->layer[i]->name, deploy->layer[i]->type, layer->name);
    snprintf(name, sizeof name, "%.200s%s", layer->name, w->options->suffix);
    w->name = text(w, name);
    w->old_top = layer->top[0];
    w->new_top = strcmp(layer->top[0], layer->name) == 0 ? w->name : layer->top[0];
    return 0;
}

/* Input and Softmax come and go; the trunk is what both nets have. */
static bool is_trunk(const Caffe__LayerParameter *layer)
{
    return !is(layer, "Input") && !is(layer, "Softmax");
}

static size_t adapt_trunk(struct work *w, const Caffe__NetParameter *deploy,
                          Caffe__LayerParameter **out, const char **ret_scores)
{
    size_t count = 0;
    int learnable = 0;

    for (size_t i = 0; i < deploy->n_layer; i++) {
        if (!is_trunk(deploy->layer[i]))
            continue;
        learnable += learns(deploy->layer[i]);
        out[count] = adapt_layer(w, deploy->layer[i], (int)i, learnable);
        if (out[count] && out[count]->n_top > 0)
            *ret_scores = out[count]->top[0];
        count++;
    }
    return count;
}

static Caffe__NetParameter *new_net(struct work *w, const Caffe__NetParameter *from)
{
    Caffe__NetParameter *out = message(w, &caffe__net_parameter__descriptor);

    if (out) {
        out->name = from->name;
        out->layer = take(w, from->n_layer + 8, sizeof(Caffe__LayerParameter *));
    }
    return out;
}

static void train_val(struct work *w, struct sac_adapted *ret, Caffe__LayerParameter **trunk,
                      size_t count, const char *scores)
{
    Caffe__NetParameter *net = ret->train_val;
    size_t n = 0;

    net->layer[n++] = w->options->train_data;
    net->layer[n++] = w->options->test_data;
    memcpy(net->layer + n, trunk, count * sizeof *trunk);
    n += count;
    net->layer[n++] = loss(w, scores);
    net->layer[n++] = accuracy(w, scores, 1);
    if (w->options->classes > 5)
        net->layer[n++] = accuracy(w, scores, 5);
    net->n_layer = n;
}

static int check_input(const Caffe__NetParameter *deploy, struct sac_error *err)
{
    const Caffe__LayerParameter *input = NULL;

    for (size_t i = 0; i < deploy->n_layer; i++) {
        if (!is(deploy->layer[i], "Input"))
            continue;
        if (input || deploy->layer[i]->n_top != 1)
            return sac_fail(err, SAC_EUNSUPPORTED, "the net has several inputs; expected one");
        input = deploy->layer[i];
    }
    if (!input)
        return sac_fail(err, SAC_EINVAL, "the net has no Input; a deploy net was expected");
    if (strcmp(input->top[0], "data") != 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "the net's input is called \"%.64s\"; expected \"data\"", input->top[0]);
    return 0;
}

int sac_adapt(struct sac_adapted *ret, const Caffe__NetParameter *deploy,
              const struct sac_adapt_options *options, struct sac_arena *arena,
              struct sac_error *err)
{
    struct work w = {.options = options, .arena = arena};
    struct sac_adapted out = {0};
    const char *scores = NULL;
    int rc = check_input(deploy, err);

    if (rc == 0)
        rc = find_last(&w, deploy, err);
    if (rc)
        return rc;
    Caffe__LayerParameter **trunk = take(&w, deploy->n_layer, sizeof *trunk);
    out.train_val = new_net(&w, deploy);
    out.last = w.name;
    if (!w.failed) {
        size_t count = adapt_trunk(&w, deploy, trunk, &scores);
        if (!w.failed)
            train_val(&w, &out, trunk, count, scores);
    }
    if (w.failed)
        return sac_fail(err, SAC_ENOMEM, "out of memory for the net");
    *ret = out;
    return 0;
}
