/* The way back: chosen, described, made, enqueued. */
#include <stdlib.h>
#include <string.h>

#include "device/cuda/cuda.h"
#include "kernels/training.h"

enum { BACKWARDS_MAX = 2 };

/* The first that can, does; libraries' are left out where kernels check the others. */
static const struct sac_cuda_backward *const backwards[SAC_OP_KINDS][BACKWARDS_MAX] = {
    [SAC_OP_CONV] = {&sac_cuda_conv_back, &sac_cuda_direct_conv_back},
    [SAC_OP_DECONV] = {&sac_cuda_conv_back, &sac_cuda_direct_conv_back},
    [SAC_OP_INNER] = {&sac_cuda_inner_back, &sac_cuda_direct_inner_back},
    [SAC_OP_POOL] = {&sac_cuda_pool_back},
    [SAC_OP_LRN] = {&sac_cuda_lrn_back},
    [SAC_OP_RELU] = {&sac_cuda_map_back},
    [SAC_OP_PRELU] = {&sac_cuda_map_back},
    [SAC_OP_SIGMOID] = {&sac_cuda_map_back},
    [SAC_OP_TANH] = {&sac_cuda_map_back},
    [SAC_OP_ELU] = {&sac_cuda_map_back},
    [SAC_OP_POWER] = {&sac_cuda_map_back},
    [SAC_OP_DROPOUT] = {&sac_cuda_dropout_back, &sac_cuda_copy_back},
    [SAC_OP_CONCAT] = {&sac_cuda_copy_back},
    [SAC_OP_SLICE] = {&sac_cuda_copy_back},
    [SAC_OP_RESHAPE] = {&sac_cuda_copy_back},
    [SAC_OP_CONVERT] = {&sac_cuda_copy_back},
    [SAC_OP_ELTWISE] = {&sac_cuda_eltwise_back},
    [SAC_OP_BATCHNORM] = {&sac_cuda_batchnorm_back},
    [SAC_OP_SCALE] = {&sac_cuda_scale_back},
    [SAC_OP_BIAS] = {&sac_cuda_scale_back},
    [SAC_OP_SOFTMAX] = {&sac_cuda_softmax_back},
    [SAC_OP_SOFTMAX_LOSS] = {&sac_cuda_softmax_loss_back},
    [SAC_OP_EUCLIDEAN_LOSS] = {&sac_cuda_pair_loss_back},
    [SAC_OP_SIGMOID_LOSS] = {&sac_cuda_pair_loss_back},
    [SAC_OP_SPLIT] = {&sac_cuda_split_back},
};

static bool is_librarys(const struct sac_cuda_backward *backward)
{
    return backward == &sac_cuda_conv_back || backward == &sac_cuda_inner_back;
}

/* NULL: it gives no gradient. */
static const struct sac_cuda_backward *choose(const struct sac_cuda_ask *ask, struct sac_form src,
                                              struct sac_form dst)
{
    const struct sac_cuda_backward *const *row = backwards[ask->node->kind];

    for (int i = 0; i < BACKWARDS_MAX && row[i]; i++)
        if (!(is_librarys(row[i]) && ask->options->reference) &&
            (!row[i]->can || row[i]->can(ask, src, dst)))
            return row[i];
    return NULL;
}

int sac_cuda_backward_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                            struct sac_error *err)
{
    const struct sac_cuda_backward *backward = choose(ask, caps->src, caps->dst);

    return backward && backward->query ? backward->query(ask, caps, err) : 0;
}

static int copy_gradients(struct sac_op *op, const struct sac_binding *binding)
{
    size_t src = (size_t)op->src_count, dst = (size_t)op->dst_count;

    op->src_grad = calloc(src, sizeof *op->src_grad);
    op->dst_grad = calloc(dst, sizeof *op->dst_grad);
    if (!op->src_grad || !op->dst_grad)
        return SAC_ENOMEM;
    if (binding->src_grad)
        memcpy(op->src_grad, binding->src_grad, src * sizeof *op->src_grad);
    if (binding->dst_grad)
        memcpy(op->dst_grad, binding->dst_grad, dst * sizeof *op->dst_grad);
    for (int i = 0; i < op->weight_count && binding->weight_grad; i++)
        op->weight_grad[i] = binding->weight_grad[i];
    return 0;
}

/* Gradients are whole, and stand as their values do. */
static int check_gradients(const struct sac_op *op, struct sac_error *err)
{
    for (int i = 0; i < op->src_count + op->dst_count; i++) {
        bool src = i < op->src_count;
        const struct sac_tensor *t = src ? &op->src[i] : &op->dst[i - op->src_count];
        const struct sac_tensor *grad = src ? &op->src_grad[i] : &op->dst_grad[i - op->src_count];
        if (grad->data && (!sac_cuda_is_whole(t) || !sac_cuda_is_whole(grad) ||
                           t->form.type != grad->form.type || t->form.layout != grad->form.layout))
            return sac_fail(err, SAC_EUNSUPPORTED, "%s: a gradient in another form than its blob",
                            op->name);
    }
    for (int i = 0; i < op->weight_count; i++)
        if (!op->master[i] || !op->generation)
            return sac_fail(err, SAC_EINVAL, "%s: training needs the masters of its weights",
                            op->name);
    return 0;
}

int sac_cuda_backward_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                              const struct sac_binding *binding, struct sac_error *err)
{
    int rc = copy_gradients(op, binding) == 0
                 ? check_gradients(op, err)
                 : sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);

    if (rc != 0)
        return rc;
    op->backward = choose(ask, op->src[0].form, op->dst[0].form);
    return op->backward && op->backward->prepare ? op->backward->prepare(op, ask, err) : 0;
}

void sac_cuda_backward_free(struct sac_op *op)
{
    if (op->backward && op->backward->free_state && op->backward_state)
        op->backward->free_state(op->backward_state);
    free(op->src_grad);
    free(op->dst_grad);
}

static int refuse(const struct sac_op *op, struct sac_error *err)
{
    return sac_fail(err, op->training ? SAC_EUNSUPPORTED : SAC_EINVAL, "%s: %s", op->name,
                    op->training ? "no gradient goes back through it"
                                 : "it was not prepared for training");
}

static bool has_result_gradient(const struct sac_op *op)
{
    for (int i = 0; i < op->dst_count; i++)
        if (op->dst_grad[i].data)
            return true;
    return false;
}

static int write_zeros(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < op->src_count; i++)
        if (op->src_grad[i].data)
            rc = sac_cuda_check(
                op->device,
                cudaMemsetAsync(op->src_grad[i].data, 0,
                                sac_tensor_bytes(&op->src_grad[i].shape, op->src_grad[i].form.type),
                                stream->stream),
                op->name, err);
    return rc;
}

int sac_cuda_op_backward_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    int rc = sac_cuda_use(op->device, err);

    if (rc != 0)
        return rc;
    if (!op->backward || !op->backward->data)
        return refuse(op, err);
    if (!has_result_gradient(op))
        return write_zeros(op, stream, err);
    return op->backward->data(op, stream, err);
}

int sac_cuda_op_backward_weights(struct sac_op *op, struct sac_stream *stream,
                                 struct sac_error *err)
{
    int rc = sac_cuda_use(op->device, err);

    if (rc != 0)
        return rc;
    if (!op->backward || !op->backward->weights)
        return refuse(op, err);
    return has_result_gradient(op) ? op->backward->weights(op, stream, err) : 0;
}

/* ---- Columns --------------------------------------------------------------- */

struct sac_kernel_columns sac_cuda_columns_of(const struct sac_tensor *t)
{
    const struct sac_shape *shape = &t->shape;
    int64_t positions = sac_shape_count_between(shape, shape->rank > 1 ? 2 : 1, shape->rank);
    int64_t outer = shape->rank > 0 ? shape->dim[0] : 1;
    bool last = t->form.layout == SAC_CHANNELS_LAST && shape->rank >= 3;

    return (struct sac_kernel_columns){
        .u = t->data,
        .u_type = (int)t->form.type,
        .outer = (uint32_t)(last ? outer * positions : outer),
        .channels = (uint32_t)(shape->rank > 1 ? shape->dim[1] : 1),
        .inner = (uint32_t)(last ? 1 : positions),
    };
}

size_t sac_cuda_columns_bytes(const struct sac_shape *shape)
{
    struct sac_tensor t = {.shape = *shape};
    struct sac_kernel_columns c = sac_cuda_columns_of(&t);

    return sac_kernel_columns_bytes(c.outer, c.channels, c.inner);
}

int sac_cuda_bias_back(struct sac_op *op, float *bias_grad, struct sac_stream *stream,
                       struct sac_error *err)
{
    struct sac_kernel_columns c = sac_cuda_columns_of(&op->dst_grad[0]);

    if (!bias_grad)
        return 0;
    c.work = op->workspace;
    c.sum = bias_grad;
    c.add = true;
    return sac_cuda_check(op->device, sac_kernel_columns(&c, stream->stream), op->name, err);
}
