#include "train/deploy.h"

#include <stdio.h>
#include <string.h>

#include "formats/message.h"
#include "net/layer.h"

enum { BLOBS_MAX = 65536, ARENA_BYTES_MAX = 64 << 20 };

/* What a judging layer's scores become; of several the first kind, and of that the last. */
struct ending {
    const char *type, *becomes; /* NULL: they stay as they are */
    bool any_scores;            /* judges also what has become that already */
};

static const struct ending endings[] = {{"SoftmaxWithLoss", "Softmax", false},
                                        {"SigmoidCrossEntropyLoss", "Sigmoid", false},
                                        {"EuclideanLoss", NULL, false},
                                        {"Accuracy", "Softmax", true}};

struct making {
    const struct sac_deploy_source *source;
    struct sac_arena *arena;
    Caffe__NetParameter *net;
    bool *kept;          /* one a layer of the source */
    const char **needed; /* blobs */
    int needed_count;
};

static int no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory for the deploy net");
}

static bool is_type(const Caffe__LayerParameter *layer, const char *type)
{
    return layer->type && strcmp(layer->type, type) == 0;
}

/* ---- Which layers ---------------------------------------------------------- */

static int find_end(const struct sac_deploy_source *source, const struct ending **ret_ending)
{
    for (size_t k = 0; k < sizeof endings / sizeof endings[0]; k++) {
        for (int i = source->layer_count - 1; i >= 0; i--) {
            if (!is_type(source->layers[i], endings[k].type) || source->layers[i]->n_bottom == 0)
                continue;
            *ret_ending = &endings[k];
            return i;
        }
    }
    return -1;
}

static bool is_needed(const struct making *m, const char *blob)
{
    for (int i = 0; i < m->needed_count; i++)
        if (strcmp(m->needed[i], blob) == 0)
            return true;
    return false;
}

static int need(struct making *m, const char *blob, struct sac_error *err)
{
    if (is_needed(m, blob))
        return 0;
    if (m->needed_count == BLOBS_MAX)
        return sac_fail(err, SAC_ELIMIT, "over %d blobs", BLOBS_MAX);
    m->needed[m->needed_count++] = blob;
    return 0;
}

static bool gives_needed(const struct making *m, const Caffe__LayerParameter *layer)
{
    for (size_t i = 0; i < layer->n_top; i++)
        if (is_needed(m, layer->top[i]))
            return true;
    return false;
}

/* Backwards from the scores, which layer `end` judges. */
static int keep_layers(struct making *m, int end, struct sac_error *err)
{
    const struct sac_deploy_source *s = m->source;
    int rc = need(m, s->layers[end]->bottom[0], err);

    for (int i = end - 1; rc == 0 && i >= 0; i--) {
        const Caffe__LayerParameter *layer = s->layers[i];
        if (layer == s->input || !gives_needed(m, layer))
            continue;
        const struct sac_layer_type *type = sac_layer_type_find(layer->type ? layer->type : "");
        if (type && type->feeds)
            return sac_fail(err, SAC_EUNSUPPORTED,
                            "the net's scores depend on \"%.64s\" and on layer \"%.64s\", which "
                            "both feed it: no deploy net can be made of it",
                            s->input->name, layer->name);
        m->kept[i] = true;
        for (size_t k = 0; rc == 0 && k < layer->n_bottom; k++)
            rc = need(m, layer->bottom[k], err);
    }
    if (rc == 0 && s->input->n_top > 1 && is_needed(m, s->input->top[1]))
        rc = sac_fail(err, SAC_EUNSUPPORTED,
                      "the net's scores depend on its labels (\"%.64s\"): no deploy net can be "
                      "made of it",
                      s->input->top[1]);
    if (rc == 0 && !is_needed(m, s->input->top[0]))
        rc =
            sac_fail(err, SAC_EUNSUPPORTED,
                     "the net's scores do not depend on \"%.64s\": no deploy net can be made of it",
                     s->input->top[0]);
    return rc;
}

/* ---- Their messages -------------------------------------------------------- */

/* A parameter's name shares it; rates are the solver's business. */
static bool set_params(struct making *m, Caffe__LayerParameter *layer)
{
    bool named = false;

    for (size_t i = 0; i < layer->n_param; i++)
        named |= layer->param[i]->name && *layer->param[i]->name;
    if (!named) {
        layer->n_param = 0;
        return true;
    }
    Caffe__ParamSpec **params = sac_arena_zalloc(m->arena, layer->n_param, sizeof *params);
    for (size_t i = 0; params && i < layer->n_param; i++) {
        params[i] = (void *)sac_message_new(m->arena, &caffe__param_spec__descriptor);
        if (!params[i])
            return false;
        params[i]->name = layer->param[i]->name;
    }
    layer->param = params;
    return params != NULL;
}

static bool is_message(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_MESSAGE && field->label != PROTOBUF_C_LABEL_REPEATED;
}

/* A copy of a layer's own part without the fillers in it. */
static ProtobufCMessage *without_fillers(struct making *m, const ProtobufCMessage *part)
{
    ProtobufCMessage *copy = sac_arena_alloc(m->arena, part->descriptor->sizeof_message);

    if (!copy)
        return NULL;
    memcpy(copy, part, part->descriptor->sizeof_message);
    for (unsigned i = 0; i < part->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &part->descriptor->fields[i];
        if (is_message(field) && field->descriptor == &caffe__filler_parameter__descriptor)
            sac_message_clear(copy, field);
    }
    return copy;
}

static bool drop_fillers(struct making *m, Caffe__LayerParameter *layer)
{
    const ProtobufCMessageDescriptor *descriptor = layer->base.descriptor;

    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        if (!is_message(field) || sac_message_count(&layer->base, field) == 0)
            continue;
        ProtobufCMessage **part = sac_message_value(&layer->base, field, 0);
        ProtobufCMessage *copy = without_fillers(m, *part);
        if (!copy)
            return false;
        *part = copy;
    }
    return true;
}

/* Statistics of the batch are for training; a net that is served uses what was kept. */
static void use_kept_statistics(Caffe__LayerParameter *layer)
{
    if (layer->batch_norm_param) /* a copy, by drop_fillers() */
        layer->batch_norm_param->has_use_global_stats = 0;
}

static Caffe__LayerParameter *copy_layer(struct making *m, const Caffe__LayerParameter *from)
{
    Caffe__LayerParameter *layer = sac_arena_alloc(m->arena, sizeof *layer);

    if (!layer)
        return NULL;
    *layer = *from;
    layer->n_blobs = layer->n_include = layer->n_exclude = 0;
    layer->n_loss_weight = layer->n_propagate_down = 0;
    layer->has_phase = 0;
    if (!set_params(m, layer) || !drop_fillers(m, layer))
        return NULL;
    use_kept_statistics(layer);
    return layer;
}

static Caffe__LayerParameter *new_layer(struct making *m, const char *type, char *name)
{
    Caffe__LayerParameter *layer =
        (void *)sac_message_new(m->arena, &caffe__layer_parameter__descriptor);
    char **top = sac_arena_alloc(m->arena, sizeof *top);

    if (!layer || !top)
        return NULL;
    *top = name;
    layer->name = name;
    layer->type = (char *)type;
    layer->top = top;
    layer->n_top = 1;
    return layer;
}

static Caffe__LayerParameter *input_layer(struct making *m)
{
    const struct sac_deploy_source *s = m->source;
    Caffe__LayerParameter *layer = new_layer(m, "Input", s->input->top[0]);
    Caffe__InputParameter *param =
        (void *)sac_message_new(m->arena, &caffe__input_parameter__descriptor);
    Caffe__BlobShape *shape = (void *)sac_message_new(m->arena, &caffe__blob_shape__descriptor);
    Caffe__BlobShape **shapes = sac_arena_alloc(m->arena, sizeof *shapes);
    int64_t *dim = sac_arena_alloc(m->arena, 4 * sizeof *dim);

    if (!layer || !param || !shape || !shapes || !dim)
        return NULL;
    dim[0] = 1;
    for (int i = 0; i < 3; i++)
        dim[1 + i] = s->shape[i];
    *shape = (Caffe__BlobShape){.base = shape->base, .n_dim = 4, .dim = dim};
    *shapes = shape;
    param->n_shape = 1;
    param->shape = shapes;
    layer->input_param = param;
    return layer;
}

/* "prob", as Caffe's own deploy nets call it, or what nothing else is called. */
static char *free_name(struct making *m)
{
    char name[64] = "prob";

    for (int i = 2; i < BLOBS_MAX; i++) {
        bool taken = is_needed(m, name);
        for (size_t k = 0; k < m->net->n_layer; k++)
            taken |= m->net->layer[k]->name && strcmp(m->net->layer[k]->name, name) == 0;
        if (!taken)
            break;
        snprintf(name, sizeof name, "prob%d", i);
    }
    return sac_arena_strdup(m->arena, name);
}

static Caffe__LayerParameter *last_layer(struct making *m, const Caffe__LayerParameter *end,
                                         const char *type)
{
    char *name = free_name(m);
    Caffe__LayerParameter *layer = name ? new_layer(m, type, name) : NULL;

    if (!layer)
        return NULL;
    layer->bottom = end->bottom;
    layer->n_bottom = 1;
    if (strcmp(type, "Softmax") == 0)
        layer->softmax_param = end->softmax_param;
    return layer;
}

/* Whether scores are what `type` gives already. */
static bool ends_in(const struct making *m, const char *type)
{
    const Caffe__NetParameter *net = m->net;

    return is_type(net->layer[net->n_layer - 1], type);
}

static bool add(struct making *m, Caffe__LayerParameter *layer)
{
    if (layer)
        m->net->layer[m->net->n_layer++] = layer;
    return layer != NULL;
}

static int build(struct making *m, int end, const struct ending *ending, struct sac_error *err)
{
    const struct sac_deploy_source *s = m->source;
    bool good = add(m, input_layer(m));

    m->net->name = (char *)s->name;
    for (int i = 0; good && i < end; i++)
        if (m->kept[i])
            good = add(m, copy_layer(m, s->layers[i]));
    bool there = good && ending->any_scores && ends_in(m, ending->becomes);
    if (good && ending->becomes && !there)
        good = add(m, last_layer(m, s->layers[end], ending->becomes));
    return good ? 0 : no_memory(err);
}

static int start(struct making *m, struct sac_error *err)
{
    size_t count = (size_t)m->source->layer_count;

    m->arena = sac_arena_new(ARENA_BYTES_MAX);
    if (!m->arena)
        return no_memory(err);
    m->net = (void *)sac_message_new(m->arena, &caffe__net_parameter__descriptor);
    m->kept = sac_arena_zalloc(m->arena, count + 1, sizeof *m->kept);
    m->needed = sac_arena_zalloc(m->arena, BLOBS_MAX, sizeof *m->needed);
    if (!m->net || !m->kept || !m->needed)
        return no_memory(err);
    m->net->layer = sac_arena_zalloc(m->arena, count + 2, sizeof *m->net->layer);
    return m->net->layer ? 0 : no_memory(err);
}

int sac_deploy_make(struct sac_caffe_net *ret, const struct sac_deploy_source *source,
                    struct sac_error *err)
{
    const struct ending *ending = NULL;
    struct making m = {.source = source};
    int end = find_end(source, &ending), rc;

    if (end < 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "the net has no loss and no accuracy, so what it answers is not known: "
                        "no deploy net can be made of it");
    rc = start(&m, err);
    if (rc == 0)
        rc = keep_layers(&m, end, err);
    if (rc == 0)
        rc = build(&m, end, ending, err);
    if (rc == 0)
        *ret = (struct sac_caffe_net){m.net, m.arena};
    else
        sac_arena_free(m.arena);
    return rc;
}
