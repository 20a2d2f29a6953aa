#include "device/forms.h"

struct ask {
    const struct sac_graph *graph;
    const struct sac_node *node;
    enum sac_type type;
    bool training;
};

static const struct sac_value *src_value(const struct ask *ask, int index)
{
    return &ask->graph->values[ask->node->src[index]];
}

static const struct sac_value *dst_value(const struct ask *ask)
{
    return &ask->graph->values[ask->node->dst[0]];
}

static int usual_layout(const struct sac_shape *shape)
{
    return shape->rank == 4 ? SAC_CHANNELS_LAST : SAC_PLAIN;
}

/* Both layouts are the same order of elements. */
static bool order_is_free(const struct sac_shape *shape)
{
    return shape->rank < 3 || shape->dim[1] == 1 ||
           sac_shape_count_between(shape, 2, shape->rank) == 1;
}

static bool is_output(const struct sac_graph *graph, int value)
{
    for (int i = 0; i < graph->output_count; i++)
        if (graph->outputs[i] == value)
            return true;
    return false;
}

static bool takes(const struct sac_node *node, int value)
{
    for (int i = 0; i < node->src_count; i++)
        if (node->src[i] == value)
            return true;
    return false;
}

/* Scores that only softmax, top-k or the caller read are kept in fp32: bf16 would
 * make ties of close ones. A reshape passes them on. */
static bool only_scores(const struct sac_graph *graph, int value, int depth)
{
    bool used = is_output(graph, value);

    for (int i = 0; i < graph->node_count; i++) {
        const struct sac_node *node = &graph->nodes[i];
        if (node->kind == SAC_OP_KINDS)
            continue;
        if (node->epilogue.sum == value)
            return false;
        if (!takes(node, value))
            continue;
        bool passes = node->kind == SAC_OP_SOFTMAX || node->kind == SAC_OP_TOPK ||
                      node->kind == SAC_OP_SOFTMAX_LOSS || node->kind == SAC_OP_ACCURACY ||
                      (node->kind == SAC_OP_CONVERT && is_output(graph, node->dst[0])) ||
                      ((node->kind == SAC_OP_RESHAPE || node->kind == SAC_OP_DROPOUT) &&
                       depth < 4 && only_scores(graph, node->dst[0], depth + 1));
        if (!passes)
            return false;
        used = true;
    }
    return used;
}

static bool is_elementwise(enum sac_op_kind kind)
{
    switch (kind) {
    case SAC_OP_RELU:
    case SAC_OP_PRELU:
    case SAC_OP_SIGMOID:
    case SAC_OP_TANH:
    case SAC_OP_ELU:
    case SAC_OP_POWER:
    case SAC_OP_ELTWISE:
    case SAC_OP_SCALE:
    case SAC_OP_BIAS:
    case SAC_OP_AFFINE:
    case SAC_OP_BATCHNORM:
    case SAC_OP_DROPOUT:
        return true;
    default:
        return false;
    }
}

static bool makes_scores(enum sac_op_kind kind)
{
    return kind == SAC_OP_CONV || kind == SAC_OP_INNER || kind == SAC_OP_POOL;
}

/* The value stays where it is; only its name or shape changes. */
static void alias_forms(const struct ask *ask, struct sac_op_caps *caps)
{
    const struct sac_value *src = src_value(ask, 0), *dst = dst_value(ask);

    caps->alias = true;
    caps->src = src->form;
    if (ask->node->kind != SAC_OP_RESHAPE) {
        caps->dst = src->form;
        return;
    }
    if (!order_is_free(&src->shape))
        caps->src.layout = SAC_PLAIN;
    caps->dst.type = caps->src.type;
    caps->dst.layout = order_is_free(&dst->shape) ? usual_layout(&dst->shape) : SAC_PLAIN;
}

/* What runs in 8 bits (sac_quantize_graph) takes and stores them. */
static void eight_forms(const struct ask *ask, struct sac_op_caps *caps)
{
    const struct sac_node *node = ask->node;
    const struct sac_value *dst = dst_value(ask);
    int sum = node->epilogue.sum;
    bool sums = sum < 0 || ask->graph->values[sum].scale > 0;

    if (node->kind == SAC_OP_POOL && sac_type_is_eight(src_value(ask, 0)->form.type))
        caps->src = src_value(ask, 0)->form;
    if (!node->eight_bits)
        return;
    if (node->kind == SAC_OP_CONV || node->kind == SAC_OP_INNER || node->kind == SAC_OP_CONCAT)
        caps->src = sac_value_eight(src_value(ask, 0), caps->src.layout);
    if (dst->scale > 0 && sums)
        caps->dst = sac_value_eight(dst, caps->dst.layout);
    caps->sum_in_eight = sum >= 0 && sac_type_is_eight(caps->dst.type);
}

struct sac_form sac_value_eight(const struct sac_value *value, int layout)
{
    return (struct sac_form){value->has_sign ? SAC_S8 : SAC_U8, layout, value->scale};
}

static void usual_forms(const struct ask *ask, struct sac_op_caps *caps)
{
    const struct sac_node *node = ask->node;
    const struct sac_value *src = src_value(ask, 0), *dst = dst_value(ask);

    caps->src = (struct sac_form){ask->type, usual_layout(&src->shape)};
    caps->dst = (struct sac_form){ask->type, usual_layout(&dst->shape)};
    switch (node->kind) {
    case SAC_OP_DROPOUT:
    case SAC_OP_RESHAPE:
    case SAC_OP_SPLIT:
        alias_forms(ask, caps);
        if (!(node->kind == SAC_OP_DROPOUT && node->param.dropout.mask && ask->training))
            return;
        caps->alias = false;
        break;
    case SAC_OP_CONVERT:
        caps->src = src->form;
        caps->dst = dst->form;
        return;
    case SAC_OP_PIXELS:
        caps->src = (struct sac_form){SAC_U8, SAC_PLAIN};
        if (dst->scale > 0)
            caps->dst = sac_value_eight(dst, caps->dst.layout);
        return;
    case SAC_OP_INNER:
        /* [N × C × H × W]·axis 1 takes channels-last with its weights permuted;
         * the result is rows either way. */
        if (node->param.inner.axis != 1)
            caps->src.layout = SAC_PLAIN;
        caps->dst.layout = SAC_PLAIN;
        break;
    case SAC_OP_SOFTMAX_LOSS:
    case SAC_OP_EUCLIDEAN_LOSS:
    case SAC_OP_SIGMOID_LOSS:
    case SAC_OP_ACCURACY:
        caps->src.type = SAC_F32; /* labels are whole numbers beyond bf16's */
        caps->dst = (struct sac_form){SAC_F32, SAC_PLAIN};
        break;
    case SAC_OP_SOFTMAX:
    case SAC_OP_TOPK:
        caps->src.type = src->form.type == SAC_F32 ? SAC_F32 : ask->type;
        caps->dst.type = node->kind == SAC_OP_TOPK ? SAC_TOPK_PAIR : SAC_F32;
        break;
    default:
        break;
    }
    /* Going back, what made them takes gradients in the precision. */
    if (!ask->training && makes_scores(node->kind) && only_scores(ask->graph, node->dst[0], 0))
        caps->dst.type = SAC_F32;
    eight_forms(ask, caps);
    caps->in_place = is_elementwise(node->kind) && caps->src.type == caps->dst.type;
}

void sac_usual_forms(const struct sac_graph *graph, const struct sac_node *node, enum sac_type type,
                     bool training, struct sac_op_caps *caps)
{
    usual_forms(&(struct ask){graph, node, type, training}, caps);
}

static double weighted_flops(const struct sac_graph *graph, const struct sac_node *node)
{
    const struct sac_shape *src = &graph->values[node->src[0]].shape;
    const struct sac_shape *dst = &graph->values[node->dst[0]].shape;
    const struct sac_shape *weight = &graph->constants[node->weight[0]].shape;
    double taps = (double)sac_shape_count_between(weight, 1, weight->rank);

    switch (node->kind) {
    case SAC_OP_CONV:
        return 2 * (double)sac_shape_count(dst) * taps;
    case SAC_OP_DECONV:
        return 2 * (double)sac_shape_count(src) * taps;
    case SAC_OP_INNER:
        return 2 * (double)sac_shape_count_between(src, 0, node->param.inner.axis) *
               (double)sac_shape_count(weight);
    default:
        return 2 * (double)sac_shape_count(dst);
    }
}

double sac_op_flops(const struct sac_graph *graph, const struct sac_node *node)
{
    const int64_t *kernel = node->param.pool.window.kernel;
    double out = (double)sac_shape_count(&graph->values[node->dst[0]].shape);

    if (node->weight_count > 0)
        return weighted_flops(graph, node);
    return node->kind == SAC_OP_POOL ? out * (double)(kernel[0] * kernel[1]) : out;
}
