/* A net as a graph: the layers that the outputs need, in order. */
#include "net/net_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct emission {
    const struct sac_net *net;
    struct sac_graph *graph;
    struct sac_shape *shapes; /* one a value */
    bool *needed;             /* one a value */
    int *place;               /* one a value: its value in the graph */
    int *outputs;             /* the net's values */
    int output_count;
    bool judged;                /* with losses and accuracies */
    struct sac_shape *in, *out; /* one layer's */
    int *src, *dst;
};

static int no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory");
}

static void emission_done(struct emission *e)
{
    free(e->shapes);
    free(e->needed);
    free(e->place);
    free(e->outputs);
    free(e->in);
    free(e->out);
    free(e->src);
    free(e->dst);
    sac_graph_free(e->graph);
}

static int emission_init(struct emission *e, const struct sac_net *net, int wanted_count,
                         struct sac_error *err)
{
    size_t values = (size_t)net->value_count + 1;
    size_t bottoms = (size_t)net->bottoms_most + 1;
    size_t tops = (size_t)net->tops_most + 1;

    *e = (struct emission){.net = net};
    e->shapes = malloc(values * sizeof *e->shapes);
    e->needed = calloc(values, sizeof *e->needed);
    e->place = calloc(values, sizeof *e->place);
    e->outputs = calloc(values + (size_t)wanted_count, sizeof *e->outputs);
    e->in = calloc(bottoms, sizeof *e->in);
    e->out = calloc(tops, sizeof *e->out);
    e->src = calloc(bottoms, sizeof *e->src);
    e->dst = calloc(tops, sizeof *e->dst);
    if (!e->shapes || !e->needed || !e->place || !e->outputs || !e->in || !e->out || !e->src ||
        !e->dst)
        return no_memory(err);
    return sac_graph_new(&e->graph, err);
}

static int shapes_for_batch(struct emission *e, int batch, struct sac_error *err)
{
    const struct sac_net *net = e->net;

    memcpy(e->shapes, net->shapes, (size_t)net->value_count * sizeof *e->shapes);
    if (batch == 0)
        return 0;
    struct sac_shape *inputs = calloc((size_t)net->input_count + 1, sizeof *inputs);
    if (!inputs)
        return no_memory(err);
    for (int i = 0; i < net->input_count; i++) {
        inputs[i] = net->shapes[net->inputs[i]];
        if (inputs[i].rank > 0)
            inputs[i].dim[0] = batch;
    }
    int rc = sac_net_infer(net, inputs, e->shapes, NULL, err);
    if (rc != 0)
        sac_error_prefix(err, "with a batch of %d", batch);
    free(inputs);
    return rc;
}

static bool is_run(const struct emission *e, const struct sac_layer *layer)
{
    return layer->type->emit && (e->judged || !layer->type->judges);
}

/* Values that operations make and no operation takes. */
static void default_outputs(struct emission *e)
{
    const struct sac_net *net = e->net;

    for (int i = 0; i < net->layer_count; i++) {
        const struct sac_layer *layer = &net->layers[i];
        for (int k = 0; is_run(e, layer) && k < layer->bottom_count; k++)
            e->needed[layer->bottoms[k]] = true; /* borrowed here for "taken" */
    }
    for (int i = 0; i < net->value_count; i++) {
        if (!e->needed[i] && is_run(e, &net->layers[net->values[i].layer]))
            e->outputs[e->output_count++] = i;
        e->needed[i] = false;
    }
}

static int choose_outputs(struct emission *e, const char *const *wanted, int wanted_count,
                          struct sac_error *err)
{
    const struct sac_net *net = e->net;

    for (int i = 0; i < wanted_count; i++) {
        int value = sac_names_find(&net->blobs, wanted[i]);
        if (value < 0)
            return sac_fail(err, SAC_ENOENT, "the net has no blob \"%.64s\"", wanted[i]);
        e->outputs[e->output_count++] = value;
    }
    if (!wanted)
        default_outputs(e);
    return e->output_count > 0 || e->judged
               ? 0
               : sac_fail(err, SAC_EINVAL, "the net has nothing to compute");
}

/* By an output, or for its loss. */
static bool is_needed(const struct emission *e, const struct sac_layer *layer)
{
    int tops = layer->top_count == 0 && layer->type->loss ? 1 : layer->top_count;
    bool needed = false;

    for (int k = 0; k < layer->top_count; k++)
        needed |= e->needed[layer->tops[k]];
    for (int k = 0; e->judged && k < tops; k++)
        needed |= layer->loss_weights[k] != 0;
    return needed && !layer->type->feeds;
}

/* From the outputs back to the inputs. */
static void mark_needed(struct emission *e)
{
    const struct sac_net *net = e->net;

    for (int i = 0; i < e->output_count; i++)
        e->needed[e->outputs[i]] = true;
    for (int i = net->layer_count - 1; i >= 0; i--) {
        const struct sac_layer *layer = &net->layers[i];
        for (int k = 0; is_needed(e, layer) && k < layer->bottom_count; k++)
            e->needed[layer->bottoms[k]] = true;
    }
}

static int add_inputs(struct emission *e, struct sac_error *err)
{
    const struct sac_net *net = e->net;
    int *inputs = calloc((size_t)net->input_count + 1, sizeof *inputs);
    int rc = inputs ? 0 : no_memory(err);

    for (int i = 0; rc == 0 && i < net->input_count; i++) {
        int value = net->inputs[i];
        inputs[i] = sac_graph_add_value(e->graph, net->values[value].name, &e->shapes[value]);
        e->place[value] = inputs[i];
        rc = inputs[i] < 0 ? no_memory(err) : 0;
    }
    if (rc == 0 && sac_graph_set_inputs(e->graph, inputs, net->input_count) != 0)
        rc = no_memory(err);
    free(inputs);
    return rc;
}

/* Constants "layer/0", "layer/1". */
static int add_constants(struct sac_graph *graph, const struct sac_layer *layer, int *constants,
                         struct sac_error *err)
{
    size_t size = strlen(layer->key) + 8;
    char *name = malloc(size);
    int rc = name ? 0 : no_memory(err);

    for (int i = 0; rc == 0 && i < layer->weight_count; i++) {
        snprintf(name, size, "%s/%d", layer->key, i);
        constants[i] =
            sac_graph_add_constant(graph, name, &layer->weight_shapes[i], layer->weights[i]->data);
        rc = constants[i] < 0 ? no_memory(err) : 0;
        if (rc != 0)
            break;
        graph->constants[constants[i]].param = layer->weights[i]->index;
        graph->constants[constants[i]].trains = layer->weights[i]->lr_mult != 0;
    }
    free(name);
    return rc;
}

/* The layer's nodes, from `first` on, give no gradient to bottoms that are cut off. */
static int cut_bottoms(struct emission *e, const struct sac_layer *layer, int first,
                       struct sac_error *err)
{
    struct sac_graph *graph = e->graph;

    for (int t = first; layer->cut && t < graph->node_count; t++) {
        struct sac_node *node = &graph->nodes[t];
        node->cut = sac_arena_zalloc(graph->arena, (size_t)node->src_count + 1, sizeof *node->cut);
        if (!node->cut)
            return no_memory(err);
        for (int i = 0; i < node->src_count; i++)
            for (int k = 0; k < layer->bottom_count; k++)
                node->cut[i] |= layer->cut[k] && e->src[k] == node->src[i];
    }
    return 0;
}

static int add_losses(struct emission *e, const struct sac_layer *layer, struct sac_error *err)
{
    int tops = layer->top_count == 0 && layer->type->loss ? 1 : layer->top_count;

    for (int k = 0; e->judged && k < tops; k++)
        if (layer->loss_weights[k] != 0 &&
            sac_graph_add_loss(e->graph, e->dst[k], layer->loss_weights[k]) < 0)
            return no_memory(err);
    return 0;
}

static int emit_layer(struct emission *e, const struct sac_layer *layer, struct sac_error *err)
{
    struct sac_emit emit = {.graph = e->graph,
                            .layer = layer,
                            .in = e->in,
                            .out = e->out,
                            .src = e->src,
                            .dst = e->dst};
    int rc = add_constants(e->graph, layer, emit.constants, err), first = e->graph->node_count;

    for (int i = 0; i < layer->bottom_count; i++) {
        e->in[i] = e->shapes[layer->bottoms[i]];
        e->src[i] = e->place[layer->bottoms[i]];
    }
    for (int i = 0; i < layer->top_count; i++)
        e->out[i] = e->shapes[layer->tops[i]];
    if (rc == 0)
        rc = layer->type->emit(&emit, err);
    if (rc == 0)
        rc = cut_bottoms(e, layer, first, err);
    if (rc == 0)
        rc = add_losses(e, layer, err);
    for (int i = 0; i < layer->top_count; i++)
        e->place[layer->tops[i]] = e->dst[i];
    return sac_layer_blame(layer, rc, err);
}

static int emit_layers(struct emission *e, struct sac_error *err)
{
    const struct sac_net *net = e->net;
    int rc = 0;

    for (int i = 0; rc == 0 && i < net->layer_count; i++) {
        const struct sac_layer *layer = &net->layers[i];
        if (is_needed(e, layer))
            rc = emit_layer(e, layer, err);
    }
    return rc;
}

static int set_outputs(struct emission *e, struct sac_error *err)
{
    for (int i = 0; i < e->output_count; i++)
        e->outputs[i] = e->place[e->outputs[i]];
    if (sac_graph_set_outputs(e->graph, e->outputs, e->output_count) != 0)
        return no_memory(err);
    return 0;
}

static int make_graph(const struct sac_net *net, int batch, bool judged, const char *const *wanted,
                      int wanted_count, struct sac_graph **ret, struct sac_error *err)
{
    struct emission e = {0};

    if (batch < 0)
        return sac_fail(err, SAC_EINVAL, "a batch of %d; it has to be at least 1", batch);
    int rc = emission_init(&e, net, wanted_count, err);
    e.judged = judged;
    if (rc == 0)
        rc = shapes_for_batch(&e, batch, err);
    if (rc == 0)
        rc = choose_outputs(&e, wanted, wanted_count, err);
    if (rc == 0)
        mark_needed(&e);
    if (rc == 0)
        rc = add_inputs(&e, err);
    if (rc == 0)
        rc = emit_layers(&e, err);
    if (rc == 0)
        rc = set_outputs(&e, err);
    if (rc == 0) {
        *ret = e.graph;
        e.graph = NULL;
    }
    emission_done(&e);
    return rc;
}

int sac_net_graph(const struct sac_net *net, int batch, const char *const *wanted, int wanted_count,
                  struct sac_graph **ret, struct sac_error *err)
{
    return make_graph(net, batch, false, wanted_count > 0 ? wanted : NULL, wanted_count, ret, err);
}

int sac_net_judged_graph(const struct sac_net *net, int batch, const char *const *wanted,
                         int wanted_count, struct sac_graph **ret, struct sac_error *err)
{
    return make_graph(net, batch, true, wanted, wanted_count, ret, err);
}
