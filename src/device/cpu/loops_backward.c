/* Backward by plain loops: values and gradients gathered into plain fp32, as forward. */
#include "device/cpu/loops.h"

#include <stdlib.h>
#include <string.h>

enum { READS_NOTHING, READS_SRC, READS_DST };

static const struct row {
    sac_loop_data *data;
    sac_loop_weights *weights;
    int reads;
} rows[SAC_OP_KINDS] = {
    [SAC_OP_CONV] = {sac_loop_conv_data, sac_loop_conv_weights, READS_SRC},
    [SAC_OP_DECONV] = {sac_loop_deconv_data, sac_loop_deconv_weights, READS_SRC},
    [SAC_OP_INNER] = {sac_loop_inner_data, sac_loop_inner_weights, READS_SRC},
    [SAC_OP_POOL] = {sac_loop_pool_data, NULL, READS_SRC},
    [SAC_OP_LRN] = {sac_loop_lrn_data, NULL, READS_SRC},
    [SAC_OP_RELU] = {sac_loop_relu_data, NULL, READS_DST},
    [SAC_OP_PRELU] = {sac_loop_prelu_data, sac_loop_prelu_weights, READS_SRC},
    [SAC_OP_SIGMOID] = {sac_loop_sigmoid_data, NULL, READS_DST},
    [SAC_OP_TANH] = {sac_loop_tanh_data, NULL, READS_DST},
    [SAC_OP_ELU] = {sac_loop_elu_data, NULL, READS_SRC},
    [SAC_OP_POWER] = {sac_loop_power_data, NULL, READS_SRC},
    [SAC_OP_DROPOUT] = {sac_loop_dropout_data, NULL, READS_NOTHING},
    [SAC_OP_CONCAT] = {sac_loop_concat_data, NULL, READS_NOTHING},
    [SAC_OP_SLICE] = {sac_loop_slice_data, NULL, READS_NOTHING},
    [SAC_OP_RESHAPE] = {sac_loop_copy_data, NULL, READS_NOTHING},
    [SAC_OP_ELTWISE] = {sac_loop_eltwise_data, NULL, READS_SRC},
    [SAC_OP_BATCHNORM] = {sac_loop_batchnorm_data, sac_loop_batchnorm_weights, READS_SRC},
    [SAC_OP_SCALE] = {sac_loop_scale_data, sac_loop_scale_weights, READS_SRC},
    [SAC_OP_BIAS] = {sac_loop_bias_data, sac_loop_bias_weights, READS_NOTHING},
    [SAC_OP_SOFTMAX] = {sac_loop_softmax_data, NULL, READS_DST},
    [SAC_OP_SOFTMAX_LOSS] = {sac_loop_softmax_loss_data, NULL, READS_SRC},
    [SAC_OP_EUCLIDEAN_LOSS] = {sac_loop_euclidean_loss_data, NULL, READS_SRC},
    [SAC_OP_SIGMOID_LOSS] = {sac_loop_sigmoid_loss_data, NULL, READS_SRC},
    [SAC_OP_SPLIT] = {sac_loop_split_data, NULL, READS_NOTHING},
    [SAC_OP_CONVERT] = {sac_loop_copy_data, NULL, READS_NOTHING},
};

/* The sign of a ReLU's source shows in its result, but for a negative slope. */
static int reads_of(enum sac_op_kind kind, const union sac_op_param *param)
{
    if (kind == SAC_OP_RELU && param->relu.slope < 0)
        return READS_SRC;
    if (kind == SAC_OP_ELTWISE && param->eltwise.method == SAC_ELTWISE_SUM)
        return READS_NOTHING;
    return rows[kind].reads;
}

static bool any(const struct sac_cpu_ask *ask)
{
    (void)ask;
    return true;
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    const struct sac_node *node = ask->node;
    size_t bytes = 0, plane = 0;

    for (int i = 0; i < node->src_count + node->dst_count; i++) {
        int value = i < node->src_count ? node->src[i] : node->dst[i - node->src_count];
        const struct sac_shape *shape = &ask->graph->values[value].shape;
        size_t plain = sac_loop_plain_bytes(shape); /* twice: the value and its gradient */
        if (__builtin_add_overflow(bytes, 2 * plain, &bytes) || bytes > SIZE_MAX / 8)
            return sac_fail(err, SAC_ELIMIT, "%s: its gradients do not fit in memory", node->name);
        plane = sac_loop_plane_bytes(shape) > plane ? sac_loop_plane_bytes(shape) : plane;
    }
    bytes += plane;
    caps->workspace_bytes = bytes > caps->workspace_bytes ? bytes : caps->workspace_bytes;
    caps->grad_in_place = true; /* all is gathered before anything is written */
    caps->backward_src = reads_of(node->kind, &node->param) == READS_SRC;
    caps->backward_dst = reads_of(node->kind, &node->param) == READS_DST;
    return 0;
}

struct state {
    double *scratch;
    int reads;
    float **x, **y, **dx, **dy; /* into `all` */
    float **wanted;             /* dx, or NULL where none is wanted */
    float *all[];
};

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_error *err)
{
    int count = op->src_count + op->dst_count;
    struct state *state =
        calloc(1, sizeof *state + (size_t)(2 * count + op->src_count) * sizeof *state->all);
    char *at = op->workspace;

    (void)ask;
    op->backward_state = state;
    if (!state)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    state->reads = reads_of(op->kind, &op->param);
    state->x = state->all;
    state->y = state->x + op->src_count;
    state->dx = state->y + op->dst_count;
    state->dy = state->dx + op->src_count;
    state->wanted = state->dy + op->dst_count;
    for (int i = 0; at && i < 2 * count; i++) {
        int k = i % count;
        const struct sac_tensor *t = k < op->src_count ? &op->src[k] : &op->dst[k - op->src_count];
        state->all[i] = (float *)at;
        at += sac_loop_plain_bytes(&t->shape);
    }
    state->scratch = (double *)at;
    for (int i = 0; i < op->src_count; i++)
        state->wanted[i] = op->src_grad[i].data ? state->dx[i] : NULL;
    for (int i = 0; i < op->weight_count; i++) {
        if (!op->master[i])
            return sac_fail(err, SAC_EINVAL, "%s: training needs the masters of its weights",
                            op->name);
        op->weight[i] = op->master[i];
    }
    return 0;
}

static struct sac_loop_gradient gather_all(const struct sac_op *op, const struct state *state)
{
    for (int i = 0; i < op->src_count && state->reads == READS_SRC; i++)
        sac_loop_gather(&op->src[i], state->x[i]);
    for (int i = 0; i < op->dst_count; i++) {
        if (state->reads == READS_DST)
            sac_loop_gather(&op->dst[i], state->y[i]);
        if (op->dst_grad[i].data)
            sac_loop_gather(&op->dst_grad[i], state->dy[i]);
        else
            memset(state->dy[i], 0, sac_tensor_bytes(&op->dst[i].shape, SAC_F32));
    }
    return (struct sac_loop_gradient){
        .x = state->x,
        .y = state->y,
        .dy = state->dy,
        .dx = state->wanted,
        .scratch = state->scratch,
    };
}

static int data(struct sac_op *op, struct sac_error *err)
{
    const struct state *state = op->backward_state;

    if (!rows[op->kind].data)
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: %s gives no gradient", op->name,
                        sac_op_kind_name(op->kind));
    struct sac_loop_gradient gradient = gather_all(op, state);
    rows[op->kind].data(op, &gradient);
    for (int i = 0; i < op->src_count; i++)
        if (state->wanted[i])
            sac_loop_scatter(&op->src_grad[i], state->dx[i]);
    return 0;
}

static int weights(struct sac_op *op, struct sac_error *err)
{
    if (!rows[op->kind].weights)
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: the weights of a %s have no gradient", op->name,
                        sac_op_kind_name(op->kind));
    struct sac_loop_gradient gradient = gather_all(op, op->backward_state);
    rows[op->kind].weights(op, &gradient);
    return 0;
}

const struct sac_cpu_backward sac_cpu_backward_loops = {
    .name = "loops",
    .can = any,
    .query = query,
    .prepare = prepare,
    .data = data,
    .weights = weights,
    .free_state = free,
};
