/* From a net's graph to the one that runs: every value in the form that its
 * readers take. */
#include "net/plan_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/forms.h"
#include "net/passes.h"

static int out_of_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory for planning a graph");
}

/* ---- What the options add ------------------------------------------------- */

/* A u8 input before the graph's input 0, and the node between them in front. */
static int add_pixels(struct sac_graph *graph, const union sac_op_param *param,
                      struct sac_error *err)
{
    if (graph->input_count < 1 || graph->values[graph->inputs[0]].shape.rank != 4)
        return sac_fail(err, SAC_EINVAL,
                        "pixels need an input of 4 axes (N × C × H × W); input 0 has %d",
                        graph->input_count < 1 ? 0 : graph->values[graph->inputs[0]].shape.rank);
    int blob = graph->inputs[0];
    const int64_t *dim = graph->values[blob].shape.dim;
    struct sac_shape shape = {.rank = 4, .dim = {dim[0], dim[2], dim[3], dim[1]}};
    int pixels = sac_graph_add_value(graph, graph->values[blob].name, &shape);
    struct sac_node *node = sac_graph_add_node(graph, SAC_OP_PIXELS, "pixels", 1, 1);

    if (pixels < 0 || !node)
        return out_of_memory(err);
    graph->values[pixels].form = (struct sac_form){SAC_U8, SAC_PLAIN};
    node->param = *param;
    node->src[0] = pixels;
    node->dst[0] = blob;
    graph->inputs[0] = pixels;
    struct sac_node first = *node;
    memmove(graph->nodes + 1, graph->nodes, (size_t)(graph->node_count - 1) * sizeof first);
    graph->nodes[0] = first;
    return 0;
}

/* The last output's k largest take its place, at the front. */
static int add_topk(struct sac_graph *graph, int k, struct sac_error *err)
{
    if (graph->output_count < 1)
        return sac_fail(err, SAC_EINVAL, "the %d likeliest of a net without outputs", k);
    int last = graph->output_count - 1, source = graph->outputs[last];
    const struct sac_value *value = &graph->values[source];
    const struct sac_shape *from = &value->shape;
    char text[SAC_SHAPE_TEXT];

    if (from->rank < 2 || sac_shape_count_between(from, 2, from->rank) != 1)
        return sac_fail(err, SAC_EINVAL, "top %d of blob %s: expected N × C values, it has %s", k,
                        value->name, sac_shape_text(from, text, sizeof text));
    if (k > from->dim[1])
        return sac_fail(err, SAC_EINVAL, "top %d of blob %s: it has only %lld values a picture", k,
                        value->name, (long long)from->dim[1]);
    struct sac_shape shape = {.rank = 2, .dim = {from->dim[0], k}};
    int pairs = sac_graph_add_value(graph, value->name, &shape);
    struct sac_node *node = sac_graph_add_node(graph, SAC_OP_TOPK, "topk", 1, 1);
    if (pairs < 0 || !node)
        return out_of_memory(err);
    node->param.topk.k = k;
    node->src[0] = source;
    node->dst[0] = pairs;
    memmove(graph->outputs + 1, graph->outputs, (size_t)last * sizeof *graph->outputs);
    graph->outputs[0] = pairs;
    return 0;
}

static int simplify(struct sac_plan_build *build, struct sac_error *err)
{
    const struct sac_op_options *ops = &build->options->ops;
    struct sac_graph *graph = build->graph;
    int rc = 0;

    if (ops->training)
        return sac_plan_find_gradients(build, err);
    sac_pass_remove_dead(graph);
    if (build->options->weights)
        return 0; /* what is folded would not follow its masters */
    if (ops->reference)
        return 0; /* the layers as they stand are what the rest is checked against */
    rc = sac_pass_to_affine(graph, err);
    if (rc == 0)
        rc = sac_pass_fold_affine(graph, err);
    if (rc == 0)
        sac_pass_remove_dead(graph);
    return rc;
}

static int shape_graph(struct sac_plan_build *build, struct sac_error *err)
{
    const struct sac_plan_options *options = build->options;
    int rc = 0;

    if (options->pixels)
        rc = add_pixels(build->graph, options->pixels, err);
    if (rc == 0 && options->topk > 0)
        rc = add_topk(build->graph, options->topk, err);
    if (rc == 0)
        rc = simplify(build, err);
    if (rc == 0 && !options->ops.reference && build->device->table->lower)
        rc = build->device->table->lower(build->device, build->graph, &options->ops, err);
    return rc;
}

/* ---- Forms ---------------------------------------------------------------- */

struct conversion {
    int from, to; /* values */
};

/* The new order of nodes, as conversions are put before those who want them.
 * caps are by the node's index in the graph until the end. */
struct walk {
    struct sac_plan_build *build;
    struct conversion *conversions;
    struct sac_op_caps *caps;
    int *order;
    int conversion_count, count, cap;
};

bool sac_plan_order_is_free(const struct sac_shape *shape)
{
    return shape->rank < 3 || shape->dim[1] == 1 ||
           sac_shape_count_between(shape, 2, shape->rank) == 1;
}

bool sac_plan_same_form(const struct sac_shape *shape, struct sac_form a, struct sac_form b)
{
    bool both_usual = a.layout < SAC_LAYOUT_OWN && b.layout < SAC_LAYOUT_OWN;

    return a.type == b.type && (!sac_type_is_eight(a.type) || a.scale == b.scale) &&
           (a.layout == b.layout || (both_usual && sac_plan_order_is_free(shape)));
}

static bool has_form(const struct sac_graph *graph, int value, struct sac_form form)
{
    const struct sac_value *v = &graph->values[value];

    return sac_plan_same_form(&v->shape, v->form, form);
}

/* Below rank 3 there is one layout. */
static struct sac_form form_for(const struct sac_graph *graph, int value, struct sac_form form)
{
    if (graph->values[value].shape.rank <= 2)
        form.layout = SAC_PLAIN;
    return form;
}

static const char *form_text(struct sac_form form, char text[32])
{
    const char *layout = form.layout == SAC_PLAIN           ? "plain"
                         : form.layout == SAC_CHANNELS_LAST ? "channels-last"
                                                            : "own";

    snprintf(text, 32, "%s %s", sac_type_name(form.type), layout);
    return text;
}

static bool grow(struct walk *walk)
{
    int cap = walk->cap ? walk->cap * 2 : 64;

    if (walk->count < walk->cap && walk->build->graph->node_count < walk->cap &&
        walk->conversion_count < walk->cap)
        return true;
    while (cap <= walk->build->graph->node_count + 1)
        cap *= 2;
    void *order = reallocarray(walk->order, (size_t)cap, sizeof *walk->order);
    walk->order = order ? order : walk->order;
    void *caps = reallocarray(walk->caps, (size_t)cap, sizeof *walk->caps);
    walk->caps = caps ? caps : walk->caps;
    void *list = reallocarray(walk->conversions, (size_t)cap, sizeof *walk->conversions);
    walk->conversions = list ? list : walk->conversions;
    walk->cap = order && caps && list ? cap : walk->cap;
    return order && caps && list;
}

static int query(struct walk *walk, int index, struct sac_error *err)
{
    struct sac_plan_build *build = walk->build;

    walk->caps[index] = (struct sac_op_caps){0};
    return build->device->table->op_query(build->device, build->graph, &build->graph->nodes[index],
                                          &build->options->ops, &walk->caps[index], err);
}

static int append(struct walk *walk, int index, struct sac_error *err)
{
    if (!grow(walk))
        return out_of_memory(err);
    walk->order[walk->count++] = index;
    return 0;
}

static int refuse_conversion(const struct sac_graph *graph, int from, struct sac_form to,
                             struct sac_error *err)
{
    char a[32], b[32];

    return sac_fail(err, SAC_EDEVICE, "blob %s: the device cannot convert it from %s to %s",
                    graph->values[from].name, form_text(graph->values[from].form, a),
                    form_text(to, b));
}

/* A node that makes `from` in another form; in the graph, not yet in the order. */
static int add_conversion(struct walk *walk, int from, struct sac_form form, int *ret_index,
                          struct sac_error *err)
{
    struct sac_graph *graph = walk->build->graph;
    struct sac_shape shape = graph->values[from].shape;
    int to = sac_graph_add_value(graph, graph->values[from].name, &shape);
    struct sac_node *node =
        sac_graph_add_node(graph, SAC_OP_CONVERT, graph->values[from].name, 1, 1);

    if (to < 0 || !node)
        return out_of_memory(err);
    graph->values[to].form = form;
    graph->values[to].scale = graph->values[from].scale;
    graph->values[to].has_sign = graph->values[from].has_sign;
    node->src[0] = from;
    node->dst[0] = to;
    *ret_index = graph->node_count - 1;
    return 0;
}

static int convert(struct walk *walk, int from, struct sac_form form, int *ret_value,
                   struct sac_error *err)
{
    struct sac_graph *graph = walk->build->graph;
    int index = 0, rc;

    for (int i = 0; i < walk->conversion_count; i++) {
        const struct conversion *made = &walk->conversions[i];
        if (made->from == from && has_form(graph, made->to, form)) {
            *ret_value = made->to;
            return 0;
        }
    }
    rc = add_conversion(walk, from, form, &index, err);
    if (rc == 0)
        rc = append(walk, index, err);
    if (rc == 0)
        rc = query(walk, index, err);
    if (rc != 0)
        return rc;
    struct sac_form takes = form_for(graph, from, walk->caps[index].src);
    struct sac_form stores = form_for(graph, from, walk->caps[index].dst);
    if (!has_form(graph, from, takes) ||
        !sac_plan_same_form(&graph->values[from].shape, stores, form))
        return refuse_conversion(graph, from, form, err);
    *ret_value = graph->nodes[index].dst[0];
    walk->conversions[walk->conversion_count++] = (struct conversion){from, *ret_value};
    return 0;
}

/* Makes *value one in the form that `wanted` means for it; tells whether it
 * changed. */
static int want(struct walk *walk, int *value, struct sac_form wanted, bool *changed,
                struct sac_error *err)
{
    struct sac_graph *graph = walk->build->graph;
    struct sac_form form = form_for(graph, *value, wanted);

    if (has_form(graph, *value, form))
        return 0;
    *changed = true;
    return convert(walk, *value, form, value, err);
}

static struct sac_form sum_form(const struct sac_graph *graph, int sum,
                                const struct sac_op_caps *caps)
{
    return caps->sum_in_eight ? sac_value_eight(&graph->values[sum], caps->dst.layout) : caps->dst;
}

/* The sources and the sum as the device wants them. */
static int bring_forms(struct walk *walk, int index, bool *changed, struct sac_error *err)
{
    struct sac_graph *graph = walk->build->graph;
    struct sac_op_caps caps = walk->caps[index]; /* the array may move */
    int *src = graph->nodes[index].src;          /* in the arena: stays when the nodes move */
    int count = graph->nodes[index].src_count, sum = graph->nodes[index].epilogue.sum, rc = 0;

    for (int i = 0; i < count && rc == 0; i++)
        rc = want(walk, &src[i], caps.src, changed, err);
    if (rc == 0 && sum >= 0) {
        rc = want(walk, &sum, sum_form(graph, sum, &caps), changed, err);
        graph->nodes[index].epilogue.sum = sum;
    }
    return rc;
}

static int visit(struct walk *walk, int index, struct sac_error *err)
{
    struct sac_graph *graph = walk->build->graph;
    bool changed = false, again = false;
    int rc = grow(walk) ? query(walk, index, err) : out_of_memory(err);

    if (rc == 0 && graph->nodes[index].kind != SAC_OP_CONVERT)
        rc = bring_forms(walk, index, &changed, err);
    if (rc == 0 && changed) {
        rc = query(walk, index, err);
        if (rc == 0)
            rc = bring_forms(walk, index, &again, err);
    }
    if (rc == 0 && again)
        return sac_fail(err, SAC_EDEVICE,
                        "layer %s: the device asks for other forms once it has what it asked for",
                        graph->nodes[index].name);
    if (rc != 0)
        return rc;
    const struct sac_node *node = &graph->nodes[index];
    for (int i = 0; i < node->dst_count; i++)
        graph->values[node->dst[i]].form = form_for(graph, node->dst[i], walk->caps[index].dst);
    return append(walk, index, err);
}

/* Callers read plain fp32, or top-k pairs. */
static int bring_outputs(struct walk *walk, struct sac_error *err)
{
    struct sac_graph *graph = walk->build->graph;
    struct sac_form plain = {SAC_F32, SAC_PLAIN};
    bool changed = false;
    int rc = 0;

    for (int i = 0; i < graph->output_count && rc == 0; i++)
        if (graph->values[graph->outputs[i]].form.type != SAC_TOPK_PAIR)
            rc = want(walk, &graph->outputs[i], plain, &changed, err);
    return rc;
}

/* A loss is the sum of its elements, in any order, as floats. Training has its seeds where
 * its losses are, and says itself what they have to be. */
static int bring_losses(struct walk *walk, struct sac_error *err)
{
    struct sac_graph *graph = walk->build->graph;
    bool changed = false;
    int rc = 0;

    for (int i = 0; i < graph->loss_count && rc == 0; i++) {
        int *value = &graph->losses[i].value;
        struct sac_form form = {SAC_F32, graph->values[*value].form.layout};
        rc = want(walk, value, form, &changed, err);
    }
    return rc;
}

/* Nodes and caps in the new order. */
static int adopt_order(struct walk *walk, struct sac_error *err)
{
    struct sac_plan_build *build = walk->build;
    struct sac_graph *graph = build->graph;
    size_t count = (size_t)walk->count;
    struct sac_node *nodes = sac_arena_zalloc(graph->arena, count + 1, sizeof *nodes);

    build->caps = sac_arena_zalloc(build->scratch, count + 1, sizeof *build->caps);
    if (!nodes || !build->caps)
        return out_of_memory(err);
    for (int i = 0; i < walk->count; i++) {
        nodes[i] = graph->nodes[walk->order[i]];
        build->caps[i] = walk->caps[walk->order[i]];
    }
    graph->nodes = nodes;
    graph->node_count = walk->count;
    graph->node_cap = walk->count;
    return 0;
}

int sac_plan_choose_forms(struct sac_plan_build *build, struct sac_error *err)
{
    struct walk walk = {.build = build};
    int rc = shape_graph(build, err);
    int count = build->graph->node_count; /* conversions come behind */

    for (int i = 0; i < count && rc == 0; i++)
        rc = visit(&walk, i, err);
    if (rc == 0)
        rc = bring_outputs(&walk, err);
    if (rc == 0 && !build->options->ops.training)
        rc = bring_losses(&walk, err);
    if (rc == 0)
        rc = adopt_order(&walk, err);
    if (rc == 0 && build->options->ops.training)
        rc = sac_plan_follow_conversions(build, err);
    free(walk.order);
    free(walk.caps);
    free(walk.conversions);
    return rc;
}
