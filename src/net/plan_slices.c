/*
 * Batches in slices: a plan for a few pictures, run over the batch. What one
 * operation has just written is then still in a cache when the next reads it; with
 * all pictures of a batch at once, every blob goes to memory and back. Against that
 * stands that weights are read once a slice.
 */
#include "net/plan_build.h"

/* A picture's result depends on that picture alone. */
static bool keeps_apart(const struct sac_node *node)
{
    switch (node->kind) {
    case SAC_OP_CONV:
    case SAC_OP_DECONV:
    case SAC_OP_POOL:
    case SAC_OP_LRN:
    case SAC_OP_RELU:
    case SAC_OP_PRELU:
    case SAC_OP_SIGMOID:
    case SAC_OP_TANH:
    case SAC_OP_ELU:
    case SAC_OP_POWER:
    case SAC_OP_DROPOUT:
    case SAC_OP_ELTWISE:
    case SAC_OP_RESHAPE: /* the order is the same, and so is the batch, on both sides */
        return true;
    case SAC_OP_INNER:
        return node->param.inner.axis >= 1;
    case SAC_OP_CONCAT:
    case SAC_OP_SLICE:
    case SAC_OP_SOFTMAX:
        return node->param.concat.axis >= 1;
    case SAC_OP_BATCHNORM:
        return node->param.batchnorm.global_stats;
    case SAC_OP_SCALE:
    case SAC_OP_BIAS:
        return node->weight_count > 0 && node->param.scale.axis >= 1;
    default:
        return false;
    }
}

static bool has_batch(const struct sac_graph *graph, int value, int batch)
{
    const struct sac_shape *shape = &graph->values[value].shape;

    return shape->rank >= 1 && shape->dim[0] == batch;
}

static bool node_has_batch(const struct sac_graph *graph, const struct sac_node *node, int batch)
{
    bool has = true;

    for (int i = 0; i < node->src_count; i++)
        has &= has_batch(graph, node->src[i], batch);
    for (int i = 0; i < node->dst_count; i++)
        has &= has_batch(graph, node->dst[i], batch);
    return has;
}

bool sac_plan_can_slice(const struct sac_graph *graph, int batch)
{
    for (int i = 0; i < graph->node_count; i++)
        if (!keeps_apart(&graph->nodes[i]) || !node_has_batch(graph, &graph->nodes[i], batch))
            return false;
    for (int i = 0; i < graph->input_count; i++)
        if (!has_batch(graph, graph->inputs[i], batch))
            return false;
    for (int i = 0; i < graph->output_count; i++)
        if (!has_batch(graph, graph->outputs[i], batch))
            return false;
    return graph->loss_count == 0 && graph->input_count > 0;
}

/* Numbers that are written for a picture by what is not fused into something else. */
static double numbers_a_picture(const struct sac_graph *graph, int batch)
{
    double count = 0;

    for (int i = 0; i < graph->node_count; i++) {
        const struct sac_node *node = &graph->nodes[i];
        switch (node->kind) {
        case SAC_OP_CONV:
        case SAC_OP_DECONV:
        case SAC_OP_INNER:
        case SAC_OP_POOL:
        case SAC_OP_LRN:
        case SAC_OP_CONCAT:
            count += (double)sac_shape_count(&graph->values[node->dst[0]].shape) / batch;
            break;
        default:
            break;
        }
    }
    return count;
}

static double weights_of(const struct sac_graph *graph)
{
    double count = 0;

    for (int i = 0; i < graph->constant_count; i++)
        count += (double)sac_shape_count(&graph->constants[i].shape);
    return count;
}

/* So many that the weights which are read for a slice are no more than what it writes. */
int sac_plan_slice_of(const struct sac_graph *graph, const struct sac_device *device,
                      const struct sac_plan_options *options)
{
    int batch = graph->input_count > 0 ? (int)graph->values[graph->inputs[0]].shape.dim[0] : 0;
    int slice = 1;

    if (!device->info.slices || options->ops.training || options->ops.reference ||
        options->ops.threads > 1 || options->weights || options->judged ||
        !sac_plan_can_slice(graph, batch))
        return batch;
    double written = numbers_a_picture(graph, batch), weights = weights_of(graph);
    while (slice < batch && (weights > written * slice || batch % slice != 0))
        slice++;
    return slice;
}
