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
