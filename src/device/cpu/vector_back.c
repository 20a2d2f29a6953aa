/* Which operations the vector kernels take back. */
#include "device/cpu/parts.h"
#include "device/cpu/vector.h"

#include <string.h>

static bool can_lrn(const struct sac_cpu_ask *ask)
{
    const union sac_op_param *param = &ask->node->param;
    const struct sac_shape *shape = sac_cpu_src_shape(ask);

    if (param->lrn.region == SAC_LRN_WITHIN_CHANNEL)
        return param->lrn.size % 2 == 1 && shape->rank == 4;
    return param->lrn.size % 2 == 1 && param->lrn.size <= SAC_LRN_SIZE_MAX &&
           (shape->rank == 2 || shape->rank == 4) && shape->dim[1] <= SAC_LRN_BACK_CHANNELS_MAX;
}

/* 255 stands for none. */
static bool taps_fit_bytes(const struct sac_window *w)
{
    return w->kernel[0] < 256 && w->kernel[1] < 256 && w->kernel[0] * w->kernel[1] < 256;
}

static bool can(const struct sac_cpu_ask *ask)
{
    const struct sac_node *node = ask->node;

    switch ((int)node->kind) {
    case SAC_OP_POOL:
        return sac_cpu_src_shape(ask)->rank == 4 && taps_fit_bytes(&node->param.pool.window);
    case SAC_OP_LRN:
        return can_lrn(ask);
    case SAC_OP_RELU:
        return node->param.relu.slope >= 0;
    case SAC_OP_DROPOUT:
        return (sac_cpu_src_shape(ask)->rank == 2 || sac_cpu_src_shape(ask)->rank == 4) &&
               node->param.dropout.mask;
    case SAC_OP_ELTWISE:
        return node->param.eltwise.method == SAC_ELTWISE_SUM;
    default:
        return true;
    }
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    const struct sac_node *node = ask->node;

    if (node->kind == SAC_OP_LRN && node->param.lrn.region == SAC_LRN_WITHIN_CHANNEL) {
        size_t bytes = sac_tensor_bytes(sac_cpu_src_shape(ask), SAC_F32);
        if (bytes > PTRDIFF_MAX)
            return sac_fail(err, SAC_ELIMIT, "%s: its gradients do not fit in memory", node->name);
        caps->workspace_bytes = bytes > caps->workspace_bytes ? bytes : caps->workspace_bytes;
    }
    caps->backward_src = node->kind == SAC_OP_LRN;
    caps->backward_dst = node->kind == SAC_OP_RELU;
    if (node->kind == SAC_OP_POOL && node->param.pool.method == SAC_POOL_MAX)
        caps->saved_bytes = sac_tensor_bytes(&ask->graph->values[node->dst[0]].shape, SAC_U8);
    caps->grad_in_place =
        node->kind == SAC_OP_RELU || node->kind == SAC_OP_DROPOUT || node->kind == SAC_OP_SPLIT;
    return 0;
}

static bool is_whole(const struct sac_tensor *t)
{
    struct sac_tensor whole = sac_tensor_of(&t->shape, t->form);

    return memcmp(whole.stride, t->stride, sizeof whole.stride) == 0;
}

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_error *err)
{
    op->vector = ask->device->vector;
    for (int i = 0; i < op->src_count + op->dst_count; i++)
        if (!is_whole(i < op->src_count ? &op->src[i] : &op->dst[i - op->src_count]))
            return sac_fail(err, SAC_EUNSUPPORTED, "%s: its way back takes no views", op->name);
    return 0;
}

/* What a concatenation's gradient does is a slice, a slice's a concatenation, and a
 * conversion's a conversion. */
static void run_reversed(const struct sac_op *op, enum sac_op_kind kind)
{
    struct sac_op reversed = *op;

    reversed.kind = kind;
    reversed.src = op->dst_grad;
    reversed.dst = op->src_grad;
    reversed.src_count = op->dst_count;
    reversed.dst_count = op->src_count;
    reversed.src_grad = reversed.dst_grad = NULL;
    sac_cpu_by_pictures(&reversed, op->vector->run[kind]);
}

static int data(struct sac_op *op, struct sac_error *err)
{
    (void)err;
    if (op->kind == SAC_OP_CONCAT)
        run_reversed(op, SAC_OP_SLICE);
    else if (op->kind == SAC_OP_SLICE)
        run_reversed(op, SAC_OP_CONCAT);
    else if (op->kind == SAC_OP_CONVERT)
        run_reversed(op, SAC_OP_CONVERT);
    else
        sac_cpu_by_pictures(op, op->vector->back->run[op->kind]);
    return 0;
}

static int weights(struct sac_op *op, struct sac_error *err)
{
    return sac_fail(err, SAC_EUNSUPPORTED, "%s: the weights of a %s have no gradient", op->name,
                    sac_op_kind_name(op->kind));
}

const struct sac_cpu_backward sac_cpu_backward_vector = {
    .name = "vector",
    .can = can,
    .query = query,
    .prepare = prepare,
    .data = data,
    .weights = weights,
};
