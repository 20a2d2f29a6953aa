#include "device/forms.h"

#include <string.h>

static bool takes_relu(const struct sac_node *node)
{
    switch (node->kind) {
    case SAC_OP_CONV:
    case SAC_OP_DECONV:
    case SAC_OP_INNER:
    case SAC_OP_AFFINE:
        return !node->epilogue.relu;
    case SAC_OP_ELTWISE:
        return !node->epilogue.relu && node->param.eltwise.method == SAC_ELTWISE_SUM;
    default:
        return false;
    }
}

/* `node` now also does what `next` did, and writes its result. */
static void absorb(struct sac_graph *graph, struct sac_node *node, struct sac_node *next)
{
    node->dst[0] = next->dst[0];
    node->name = sac_graph_join_names(graph, node->name, next->name);
    next->kind = SAC_OP_KINDS;
}

static void fuse_relu(struct sac_graph *graph, struct sac_node *relu)
{
    int producer = sac_graph_producer(graph, relu->src[0]);

    if (producer < 0 || sac_graph_use_count(graph, relu->src[0]) != 1)
        return;
    struct sac_node *node = &graph->nodes[producer];
    if (!takes_relu(node))
        return;
    node->epilogue.relu = true;
    node->epilogue.slope = relu->param.relu.slope;
    absorb(graph, node, relu);
}

static bool sums_two_as_they_are(const struct sac_node *node)
{
    const float *coeff = node->param.eltwise.coeff;

    return node->kind == SAC_OP_ELTWISE && node->param.eltwise.method == SAC_ELTWISE_SUM &&
           node->src_count == 2 && node->src[0] != node->src[1] &&
           (!coeff || (coeff[0] == 1 && coeff[1] == 1));
}

/* x + conv(y): the convolution that runs later adds the other value, which is
 * there by then. */
static void fuse_sum(struct sac_graph *graph, struct sac_node *sum)
{
    int first = sac_graph_producer(graph, sum->src[0]);
    int second = sac_graph_producer(graph, sum->src[1]);
    int side = second > first ? 1 : 0;
    int later = second > first ? second : first;

    if (later < 0 || sac_graph_use_count(graph, sum->src[side]) != 1)
        return;
    struct sac_node *node = &graph->nodes[later];
    if (node->kind != SAC_OP_CONV || node->epilogue.relu || node->epilogue.sum >= 0)
        return;
    node->epilogue.sum = sum->src[1 - side];
    node->epilogue.relu = sum->epilogue.relu;
    node->epilogue.slope = sum->epilogue.slope;
    absorb(graph, node, sum);
}

/* The one node that reads what `node` makes, if it is of that kind and takes it as
 * source 0; nobody else sees the value. */
static struct sac_node *only_reader(struct sac_graph *graph, const struct sac_node *node,
                                    enum sac_op_kind kind)
{
    int value = node->dst[0];

    if (sac_graph_use_count(graph, value) != 1)
        return NULL;
    for (int i = 0; i < graph->node_count; i++)
        if (graph->nodes[i].kind == kind && graph->nodes[i].src[0] == value)
            return &graph->nodes[i];
    return NULL;
}

/* One number a channel, as the statistics are. */
static bool scales_channels(const struct sac_graph *graph, const struct sac_node *norm,
                            const struct sac_node *scale)
{
    int64_t channels = graph->values[norm->src[0]].shape.dim[1];

    for (int i = 0; i < scale->weight_count; i++)
        if (sac_shape_count(&graph->constants[scale->weight[i]].shape) != channels)
            return false;
    return scale->src_count == 1 && scale->param.scale.axis == 1 && scale->weight_count > 0;
}

static void fuse_norm(struct sac_graph *graph, struct sac_node *norm)
{
    int rank = graph->values[norm->src[0]].shape.rank;
    struct sac_node *scale = only_reader(graph, norm, SAC_OP_SCALE), *relu;

    if (norm->weight_count != 3 || (rank != 2 && rank != 4))
        return;
    if (scale && scales_channels(graph, norm, scale)) {
        for (int i = 0; i < scale->weight_count; i++) {
            norm->weight[norm->weight_count] = scale->weight[i];
            norm->weight_grad[norm->weight_count++] = scale->weight_grad[i];
        }
        absorb(graph, norm, scale);
    }
    relu = only_reader(graph, norm, SAC_OP_RELU);
    if (relu && relu->param.relu.slope >= 0) {
        norm->epilogue.relu = true;
        norm->epilogue.slope = relu->param.relu.slope;
        absorb(graph, norm, relu);
    }
}

void sac_fuse_norms(struct sac_graph *graph)
{
    for (int i = 0; i < graph->node_count; i++)
        if (graph->nodes[i].kind == SAC_OP_BATCHNORM)
            fuse_norm(graph, &graph->nodes[i]);
    sac_graph_compact(graph);
}

void sac_fuse_epilogues(struct sac_graph *graph)
{
    for (int i = 0; i < graph->node_count; i++) {
        struct sac_node *node = &graph->nodes[i];
        if (node->kind == SAC_OP_RELU)
            fuse_relu(graph, node);
        else if (sums_two_as_they_are(node))
            fuse_sum(graph, node);
    }
    sac_graph_compact(graph);
}

/* ---- Pooling before a concatenation ---- */

enum { WHOLE_VECTOR = 16 }; /* channels; parts with a rest would be pooled more slowly */

static bool is_of_channels(const struct sac_graph *graph, const struct sac_node *concat)
{
    bool all = concat->kind == SAC_OP_CONCAT && concat->param.concat.axis == 1 &&
               graph->values[concat->dst[0]].shape.rank == 4;

    for (int i = 0; i < concat->src_count && all; i++)
        all = graph->values[concat->src[i]].shape.dim[1] % WHOLE_VECTOR == 0;
    return all;
}

/* What only scores depend on has a type of its own, which a concatenation has not. */
static bool feeds_weights(const struct sac_graph *graph, int value)
{
    for (int i = 0; i < graph->node_count; i++) {
        const struct sac_node *node = &graph->nodes[i];
        bool by_weights = node->kind == SAC_OP_CONV || node->kind == SAC_OP_INNER;
        if (by_weights && node->src[0] == value)
            return true;
    }
    return false;
}

/* A node at the end that does what `pool` does to `source` alone; its result, or -1. */
static int add_pool(struct sac_graph *graph, int pool, int source)
{
    const struct sac_node like = graph->nodes[pool]; /* the arrays may move */
    const struct sac_value out = graph->values[like.dst[0]];
    struct sac_shape shape = out.shape;

    shape.dim[1] = graph->values[source].shape.dim[1];
    int value = sac_graph_add_value(graph, out.name, &shape);
    struct sac_node *node = sac_graph_add_node(graph, SAC_OP_POOL, like.name, 1, 1);
    if (value < 0 || !node)
        return -1;
    graph->values[value].scale = out.scale;
    graph->values[value].has_sign = out.has_sign;
    node->param = like.param;
    node->eight_bits = like.eight_bits;
    node->src[0] = source;
    node->dst[0] = value;
    return value;
}

/* The last `count` nodes stand before node `at`. */
static bool move_last(struct sac_graph *graph, int count, int at)
{
    size_t behind = (size_t)(graph->node_count - count - at);
    struct sac_node *moved = sac_arena_alloc(graph->arena, (size_t)count * sizeof *moved);

    if (!moved)
        return false;
    memcpy(moved, graph->nodes + graph->node_count - count, (size_t)count * sizeof *moved);
    memmove(graph->nodes + at + count, graph->nodes + at, behind * sizeof *moved);
    memcpy(graph->nodes + at, moved, (size_t)count * sizeof *moved);
    return true;
}

/* pool(a, b, …) = (pool(a), pool(b), …): the concatenation takes the pool's place. */
static bool pool_sources(struct sac_graph *graph, int concat, int pool)
{
    int count = graph->nodes[concat].src_count;
    int *parts = sac_arena_alloc(graph->arena, (size_t)count * sizeof *parts);

    for (int i = 0; parts && i < count; i++) {
        parts[i] = add_pool(graph, pool, graph->nodes[concat].src[i]);
        if (parts[i] < 0)
            return false;
    }
    if (!parts || !move_last(graph, count, pool))
        return false;
    struct sac_node *from = &graph->nodes[concat], *to = &graph->nodes[pool + count];
    from->dst[0] = to->dst[0];
    from->eight_bits = to->eight_bits;
    from->src = parts;
    *to = *from;
    from->kind = SAC_OP_KINDS;
    return true;
}

int sac_pool_before_concat(struct sac_graph *graph, struct sac_error *err)
{
    for (int i = 0; i < graph->node_count; i++) {
        if (graph->nodes[i].kind != SAC_OP_CONCAT || !is_of_channels(graph, &graph->nodes[i]))
            continue;
        const struct sac_node *pool = only_reader(graph, &graph->nodes[i], SAC_OP_POOL);
        if (!pool || pool->epilogue.relu || !feeds_weights(graph, pool->dst[0]))
            continue;
        if (!pool_sources(graph, i, (int)(pool - graph->nodes)))
            return sac_fail(err, SAC_ENOMEM, "layer %s: out of memory for pooling its sources",
                            graph->nodes[i].name);
    }
    sac_graph_compact(graph);
    return 0;
}
