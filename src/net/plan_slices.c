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

static double bytes_of_type(const struct sac_op_options *ops)
{
    switch (ops->precision) {
    case SAC_PRECISION_BF16:
    case SAC_PRECISION_F16:
        return 2;
    case SAC_PRECISION_INT8:
        return 1;
    default:
        return 4;
    }
}

/* Numbers that an operation reads and writes for a picture. */
static double numbers_moved(const struct sac_graph *graph, const struct sac_node *node, int batch)
{
    double count = (double)sac_shape_count(&graph->values[node->dst[0]].shape);

    switch (node->kind) {
    case SAC_OP_ELTWISE: /* fused: one source is read beside the rest */
        return count / batch;
    case SAC_OP_CONV:
    case SAC_OP_POOL:
    case SAC_OP_LRN:
        return (count + (double)sac_shape_count(&graph->values[node->src[0]].shape)) / batch;
    default:
        return 0;
    }
}

/* What of a picture's blobs, in bytes, does not stay in the cache when `slice` pictures go
 * at a time: of each operation, what is beyond a third of it. */
static double spilt(const struct sac_graph *graph, int batch, int slice, double each, size_t cache)
{
    double sum = 0;

    for (int i = 0; i < graph->node_count; i++) {
        double bytes = each * slice * numbers_moved(graph, &graph->nodes[i], batch);
        double beyond = bytes - (double)cache / 3;
        sum += beyond > 0 ? beyond / slice : 0;
    }
    return sum;
}

/* So many that the weights which are read for a slice are no more than what it writes; but
 * no more than what keeps blobs in the cache. A byte that spills cost as much as two
 * or three of weights, which are read ahead (slices of 1 to 8 of ResNet-50 and GoogLeNet, in
 * f32, bf16 and int8). */
int sac_plan_slice_of(const struct sac_graph *graph, const struct sac_device *device,
                      const struct sac_plan_options *options)
{
    int batch = graph->input_count > 0 ? (int)graph->values[graph->inputs[0]].shape.dim[0] : 0;
    double each = bytes_of_type(&options->ops);
    size_t cache = device->info.cache_bytes;
    int slice = 1;

    if (!device->info.slices || options->ops.training || options->ops.reference ||
        options->ops.threads > 1 || options->weights || options->judged ||
        !sac_plan_can_slice(graph, batch))
        return batch;
    double written = numbers_a_picture(graph, batch), weights = weights_of(graph);
    for (int next = 2; next <= batch && weights > written * slice; next++) {
        double spares = weights * each / slice - weights * each / next;
        double spills = spilt(graph, batch, next, each, cache) - //
                        spilt(graph, batch, slice, each, cache);
        if (batch % next != 0)
            continue;
        if (spares < 2.5 * spills)
            break;
        slice = next;
    }
    return slice;
}
