#include "device/forms.h"

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
