/* The way back through what maps, moves or normalises numbers. */
#include <stdlib.h>

#include "device/cuda/cuda.h"
#include "device/cuda/move.h"
#include "kernels/training.h"

static int no_state(struct sac_op *op, struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
}

static const struct sac_shape *src_shape(const struct sac_cuda_ask *ask, int index)
{
    return &ask->graph->values[ask->node->src[index]].shape;
}

static void raise_workspace(struct sac_op_caps *caps, size_t bytes)
{
    caps->workspace_bytes = bytes > caps->workspace_bytes ? bytes : caps->workspace_bytes;
}

static bool same_forms(const struct sac_op_caps *caps)
{
    return caps->src.type == caps->dst.type && caps->src.layout == caps->dst.layout;
}

/* ---- Activations ----------------------------------------------------------- */

static enum sac_slope slope_of(enum sac_op_kind kind)
{
    switch (kind) {
    case SAC_OP_RELU:
        return SAC_SLOPE_RELU;
    case SAC_OP_PRELU:
        return SAC_SLOPE_PRELU;
    case SAC_OP_SIGMOID:
        return SAC_SLOPE_SIGMOID;
    case SAC_OP_TANH:
        return SAC_SLOPE_TANH;
    case SAC_OP_ELU:
        return SAC_SLOPE_ELU;
    default:
        return SAC_SLOPE_POWER;
    }
}

/* The sign of a ReLU's source shows in its result, but for a negative slope. */
static bool reads_result(enum sac_op_kind kind, const union sac_op_param *param)
{
    return kind == SAC_OP_SIGMOID || kind == SAC_OP_TANH ||
           (kind == SAC_OP_RELU && !(param->relu.slope < 0));
}

static int map_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                     struct sac_error *err)
{
    (void)err;
    caps->backward_dst = reads_result(ask->node->kind, &ask->node->param);
    caps->backward_src = !caps->backward_dst;
    caps->grad_in_place = same_forms(caps);
    if (ask->node->kind == SAC_OP_PRELU)
        raise_workspace(caps, sac_cuda_columns_bytes(src_shape(ask, 0)));
    return 0;
}

/* Factor j of element i of a tensor: one a channel. */
static void by_channel(struct sac_kernel_slope *s, const struct sac_tensor *t)
{
    struct sac_kernel_columns c = sac_cuda_columns_of(t);

    s->inner = c.inner;
    s->factors = c.channels;
}

static struct sac_kernel_slope slope_between(const struct sac_op *op, enum sac_slope slope)
{
    return (struct sac_kernel_slope){
        .slope = slope,
        .dy = op->dst_grad[0].data,
        .dx = op->src_grad[0].data,
        .type = (int)op->src[0].form.type,
        .count = (uint32_t)sac_shape_count(&op->src[0].shape),
        .factor_type = SAC_F32,
    };
}

static int map_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_slope s = slope_between(op, slope_of(op->kind));

    s.v = reads_result(op->kind, &op->param) ? op->dst[0].data : op->src[0].data;
    if (op->kind == SAC_OP_RELU) {
        s.a = op->param.relu.slope;
    } else if (op->kind == SAC_OP_ELU) {
        s.a = op->param.elu.alpha;
    } else if (op->kind == SAC_OP_POWER) {
        s.a = op->param.power.power;
        s.b = op->param.power.scale;
        s.c = op->param.power.shift;
    } else if (op->kind == SAC_OP_PRELU) {
        s.factor = op->weight[0];
        if (sac_shape_count(&op->weight_shape[0]) > 1)
            by_channel(&s, &op->src[0]);
    }
    return sac_cuda_check(op->device, sac_kernel_slope(&s, stream->stream), op->name, err);
}

static int map_weights(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_columns c = sac_cuda_columns_of(&op->dst_grad[0]);

    if (op->kind != SAC_OP_PRELU || !op->weight_grad[0])
        return 0;
    if (sac_shape_count(&op->weight_shape[0]) == 1) {
        c.outer *= c.channels * c.inner;
        c.channels = c.inner = 1;
    }
    c.v = op->src[0].data;
    c.v_type = (int)op->src[0].form.type;
    c.negative = true;
    c.work = op->workspace;
    c.product = op->weight_grad[0];
    c.add = true;
    return sac_cuda_check(op->device, sac_kernel_columns(&c, stream->stream), op->name, err);
}

const struct sac_cuda_backward sac_cuda_map_back = {
    .name = "map",
    .query = map_query,
    .data = map_data,
    .weights = map_weights,
};

/* ---- Scale and bias -------------------------------------------------------- */

/* The factor as a column of the source: one a channel where it stands so, else in the
 * shape's order. */
static struct sac_kernel_columns factor_columns(const struct sac_tensor *t, int axis, int64_t count)
{
    struct sac_kernel_columns c = sac_cuda_columns_of(t);
    int64_t all = sac_shape_count(&t->shape), rest;

    if (t->form.layout == SAC_CHANNELS_LAST && t->shape.rank >= 3)
        return c;
    rest = sac_shape_count_between(&t->shape, axis, t->shape.rank);
    c.channels = (uint32_t)count;
    c.inner = (uint32_t)(count > 0 ? rest / count : 1);
    c.outer = (uint32_t)(rest > 0 ? all / rest : 0);
    return c;
}

static int64_t factor_count(const struct sac_cuda_ask *ask)
{
    return sac_shape_count(ask->node->src_count > 1
                               ? src_shape(ask, 1)
                               : &ask->graph->constants[ask->node->weight[0]].shape);
}

static int scale_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                       struct sac_error *err)
{
    struct sac_tensor t = {.shape = *src_shape(ask, 0), .form = caps->src};
    int64_t count = factor_count(ask);
    struct sac_kernel_columns c = factor_columns(&t, ask->node->param.scale.axis, count);

    (void)err;
    caps->backward_src = ask->node->kind == SAC_OP_SCALE;
    caps->grad_in_place = same_forms(caps);
    raise_workspace(caps, sac_kernel_columns_bytes(c.outer, c.channels, c.inner) +
                              (size_t)count * sizeof(float));
    return 0;
}

static struct sac_kernel_columns columns_of_op(const struct sac_op *op)
{
    const struct sac_shape *factor = op->src_count > 1 ? &op->src[1].shape : &op->weight_shape[0];
    struct sac_kernel_columns c =
        factor_columns(&op->dst_grad[0], op->param.scale.axis, sac_shape_count(factor));

    c.work = op->workspace;
    if (op->kind == SAC_OP_SCALE) {
        c.v = op->src[0].data;
        c.v_type = (int)op->src[0].form.type;
    }
    return c;
}

/* Source 1's, through fp32 behind the workspace of the sums. */
static int factor_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_columns c = columns_of_op(op);
    float *sums = op->workspace;

    sums += sac_kernel_columns_bytes(c.outer, c.channels, c.inner) / sizeof *sums;
    if (op->kind == SAC_OP_SCALE)
        c.product = sums;
    else
        c.sum = sums;
    struct sac_kernel_copy copy = {
        .from = sums,
        .to = op->src_grad[1].data,
        .from_type = SAC_F32,
        .to_type = (int)op->src_grad[1].form.type,
        .rank = 1,
        .dim = {c.channels},
        .from_stride = {1},
        .to_stride = {1},
    };
    cudaError_t code = sac_kernel_columns(&c, stream->stream);
    if (code == cudaSuccess)
        code = sac_kernel_copy(&copy, stream->stream);
    return sac_cuda_check(op->device, code, op->name, err);
}

/* Source 1's first: source 0's may overwrite what it reads. */
static int scale_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_columns c = columns_of_op(op);
    struct sac_kernel_slope s = slope_between(op, SAC_SLOPE_FACTOR);
    int rc = 0;

    if (op->src_count > 1 && op->src_grad[1].data)
        rc = factor_data(op, stream, err);
    if (rc != 0 || !op->src_grad[0].data)
        return rc;
    if (op->kind == SAC_OP_BIAS)
        return sac_cuda_copy_gradient(op, 0, 0, stream, err);
    s.inner = c.inner;
    s.factors = c.channels;
    s.factor = op->src_count > 1 ? op->src[1].data : op->weight[0];
    s.factor_type = op->src_count > 1 ? (int)op->src[1].form.type : SAC_F32;
    return sac_cuda_check(op->device, sac_kernel_slope(&s, stream->stream), op->name, err);
}

static int scale_weights(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_columns c = columns_of_op(op);
    bool scales = op->kind == SAC_OP_SCALE, two = op->src_count > 1;

    c.add = true;
    if (scales && !two)
        c.product = op->weight_grad[0];
    if (!scales && !two)
        c.sum = op->weight_grad[0];
    else if (op->param.scale.bias)
        c.sum = op->weight_grad[two ? 0 : 1];
    if (!c.sum && !c.product)
        return 0;
    return sac_cuda_check(op->device, sac_kernel_columns(&c, stream->stream), op->name, err);
}

const struct sac_cuda_backward sac_cuda_scale_back = {
    .name = "scale",
    .query = scale_query,
    .data = scale_data,
    .weights = scale_weights,
};

/* ---- Batch norm, with the scale and the ReLU that stand behind it ------------
 * Factors and biases are what the forward kept. The sums that the scale's gradients are
 * made of are those that the source's needs, too. */

struct norm_back {
    bool summed; /* by the weights' part, which comes first, for the data's */
};

static int norm_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    struct sac_tensor t = {.shape = *src_shape(ask, 0)};
    size_t channels = sac_cuda_columns_of(&t).channels;

    (void)err;
    caps->backward_src = !ask->node->param.batchnorm.global_stats || ask->node->weight_count > 3;
    caps->backward_dst = ask->node->epilogue.relu;
    caps->grad_in_place = same_forms(caps);
    raise_workspace(caps, sac_cuda_columns_bytes(&t.shape) + 2 * channels * sizeof(float));
    return 0;
}

static int norm_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_error *err)
{
    (void)ask;
    op->backward_state = calloc(1, sizeof(struct norm_back));
    return op->backward_state ? 0 : no_state(op, err);
}

/* Factors, biases, and both with the scale's. */
static const float *norm_factors(const struct sac_op *op)
{
    return op->param.batchnorm.global_stats ? op->owned : op->saved;
}

/* Σ dz and Σ dz · x̂, behind the room that they are made in. */
static struct sac_kernel_columns norm_columns(const struct sac_op *op)
{
    struct sac_kernel_columns c = sac_cuda_columns_of(&op->dst_grad[0]);
    float *sums = op->workspace;

    sums += sac_kernel_columns_bytes(c.outer, c.channels, c.inner) / sizeof *sums;
    c.v = op->src[0].data;
    c.v_type = (int)op->src[0].form.type;
    c.gate = op->epilogue.relu ? op->dst[0].data : NULL;
    c.slope = op->epilogue.slope;
    c.scale = norm_factors(op);
    c.shift = norm_factors(op) + c.channels;
    c.work = op->workspace;
    c.sum = sums;
    c.product = sums + c.channels;
    return c;
}

static int norm_weights(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct norm_back *back = op->backward_state;
    struct sac_kernel_columns c = norm_columns(op);

    c.product_more = op->weight_count > 3 ? op->weight_grad[3] : NULL;
    c.sum_more = op->weight_count > 4 ? op->weight_grad[4] : NULL;
    if (!c.product_more && !c.sum_more)
        return 0;
    back->summed = true;
    return sac_cuda_check(op->device, sac_kernel_columns(&c, stream->stream), op->name, err);
}

static int norm_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct norm_back *back = op->backward_state;
    struct sac_kernel_columns c = norm_columns(op);
    bool stored = op->param.batchnorm.global_stats;
    struct sac_kernel_norm_back dx = {
        .x = op->src[0].data,
        .dy = op->dst_grad[0].data,
        .gate = c.gate,
        .slope = c.slope,
        .dx = op->src_grad[0].data,
        .type = (int)op->src[0].form.type,
        .outer = c.outer,
        .channels = c.channels,
        .inner = c.inner,
        .factor = c.scale,
        .bias = c.shift,
        .whole = norm_factors(op) + 2 * c.channels,
        .sum = stored ? NULL : c.sum,
        .along = stored ? NULL : c.product,
    };
    cudaError_t code = cudaSuccess;

    if (!stored && !back->summed)
        code = sac_kernel_columns(&c, stream->stream);
    back->summed = false;
    if (code == cudaSuccess)
        code = sac_kernel_norm_back(&dx, stream->stream);
    return sac_cuda_check(op->device, code, op->name, err);
}

const struct sac_cuda_backward sac_cuda_batchnorm_back = {
    .name = "batch norm",
    .query = norm_query,
    .prepare = norm_prepare,
    .data = norm_data,
    .weights = norm_weights,
    .free_state = free,
};

/* ---- Several sources ------------------------------------------------------- */

static int eltwise_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                         struct sac_error *err)
{
    bool sum = ask->node->param.eltwise.method == SAC_ELTWISE_SUM;

    caps->backward_src = !sum;
    caps->grad_in_place = same_forms(caps);
    if (!sum && ask->node->src_count > SAC_ELTWISE_BACK_MAX)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%s: %d sources; cuda trains products and maxima of at most %d",
                        ask->node->name, ask->node->src_count, SAC_ELTWISE_BACK_MAX);
    return 0;
}

static int sum_data(struct sac_op *op, int source, struct sac_stream *stream, struct sac_error *err)
{
    const void *dy = op->dst_grad[0].data;
    struct sac_kernel_eltwise p = {
        .method = SAC_ELTWISE_SUM,
        .x = &dy,
        .coeff = op->param.eltwise.coeff ? op->param.eltwise.coeff + source : NULL,
        .sources = 1,
        .y = op->src_grad[source].data,
        .type = (int)op->src[0].form.type,
        .count = (uint32_t)sac_shape_count(&op->src[0].shape),
    };

    if (!p.coeff && p.y == dy)
        return 0;
    return sac_cuda_check(op->device, sac_kernel_eltwise(&p, stream->stream), op->name, err);
}

static int choice_data(struct sac_op *op, int source, struct sac_stream *stream,
                       struct sac_error *err)
{
    struct sac_kernel_eltwise_back p = {
        .method = op->param.eltwise.method,
        .sources = op->src_count,
        .source = source,
        .dy = op->dst_grad[0].data,
        .dx = op->src_grad[source].data,
        .type = (int)op->src[0].form.type,
        .count = (uint32_t)sac_shape_count(&op->src[0].shape),
    };

    for (int i = 0; i < op->src_count; i++)
        p.x[i] = op->src[i].data;
    return sac_cuda_check(op->device, sac_kernel_eltwise_back(&p, stream->stream), op->name, err);
}

/* Source 0 last: its gradient may overwrite the result's. */
static int eltwise_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    bool sum = op->param.eltwise.method == SAC_ELTWISE_SUM;
    int rc = 0;

    for (int i = op->src_count - 1; i >= 0 && rc == 0; i--)
        if (op->src_grad[i].data)
            rc = (sum ? sum_data : choice_data)(op, i, stream, err);
    return rc;
}

const struct sac_cuda_backward sac_cuda_eltwise_back = {
    .name = "eltwise",
    .query = eltwise_query,
    .data = eltwise_data,
};

/* The gradients of a split's results, added up. */
static int split_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const void **x = op->backward_state;
    struct sac_kernel_eltwise p = {
        .method = SAC_ELTWISE_SUM,
        .x = x,
        .y = op->src_grad[0].data,
        .type = (int)op->src[0].form.type,
        .count = (uint32_t)sac_shape_count(&op->src[0].shape),
    };

    for (int i = 0; i < op->dst_count; i++)
        if (op->dst_grad[i].data)
            x[p.sources++] = op->dst_grad[i].data;
    return sac_cuda_check(op->device, sac_kernel_eltwise(&p, stream->stream), op->name, err);
}

static int split_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_error *err)
{
    (void)ask;
    op->backward_state = calloc((size_t)op->dst_count, sizeof(void *));
    return op->backward_state ? 0 : no_state(op, err);
}

const struct sac_cuda_backward sac_cuda_split_back = {
    .name = "sum",
    .prepare = split_prepare,
    .data = split_data,
    .free_state = free,
};

/* ---- Copies ---------------------------------------------------------------- */

static int copy_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    (void)err;
    caps->grad_in_place = ask->node->kind == SAC_OP_DROPOUT;
    return 0;
}

static int zero_gradient(struct sac_op *op, int source, struct sac_stream *stream,
                         struct sac_error *err)
{
    const struct sac_tensor *t = &op->src_grad[source];

    return sac_cuda_check(
        op->device,
        cudaMemsetAsync(t->data, 0, sac_tensor_bytes(&t->shape, t->form.type), stream->stream),
        op->name, err);
}

static int concat_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    int axis = op->param.concat.axis;
    int64_t offset = 0;
    cudaError_t code = cudaSuccess;

    for (int i = 0; i < op->src_count && code == cudaSuccess; i++) {
        const struct sac_tensor *to = &op->src_grad[i];
        struct sac_kernel_copy copy = sac_cuda_copy_of(&op->dst_grad[0], to, &op->src[i].shape);
        copy.from = sac_cuda_advance(&op->dst_grad[0], axis, offset);
        if (to->data)
            code = sac_kernel_copy(&copy, stream->stream);
        offset += op->src[i].shape.dim[axis];
    }
    return sac_cuda_check(op->device, code, op->name, err);
}

/* Parts whose gradient is not there are zeros. */
static int slice_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    int axis = op->param.slice.axis, rc = 0;
    int64_t offset = 0;
    bool all = true;

    for (int i = 0; i < op->dst_count; i++)
        all &= op->dst_grad[i].data != NULL;
    if (!all)
        rc = zero_gradient(op, 0, stream, err);
    for (int i = 0; i < op->dst_count && rc == 0; i++) {
        const struct sac_tensor *from = &op->dst_grad[i];
        struct sac_kernel_copy copy = sac_cuda_copy_of(from, &op->src_grad[0], &op->dst[i].shape);
        copy.to = sac_cuda_advance(&op->src_grad[0], axis, offset);
        if (from->data)
            rc = sac_cuda_check(op->device, sac_kernel_copy(&copy, stream->stream), op->name, err);
        offset += op->dst[i].shape.dim[axis];
    }
    return rc;
}

int sac_cuda_copy_gradient(struct sac_op *op, int source, int result, struct sac_stream *stream,
                           struct sac_error *err)
{
    const struct sac_tensor *from = &op->dst_grad[result], *to = &op->src_grad[source];
    struct sac_kernel_copy copy = sac_cuda_copy_of(from, to, &op->src[source].shape);

    if (op->kind == SAC_OP_RESHAPE)
        sac_cuda_copy_flatten(&copy, sac_shape_count(&from->shape));
    if (copy.from == copy.to)
        return 0;
    return sac_cuda_check(op->device, sac_kernel_copy(&copy, stream->stream), op->name, err);
}

static int copy_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    if (op->kind == SAC_OP_CONCAT)
        return concat_data(op, stream, err);
    if (op->kind == SAC_OP_SLICE)
        return slice_data(op, stream, err);
    return sac_cuda_copy_gradient(op, 0, 0, stream, err);
}

const struct sac_cuda_backward sac_cuda_copy_back = {
    .name = "copy",
    .query = copy_query,
    .data = copy_data,
};

/* ---- Softmax --------------------------------------------------------------- */

static int softmax_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                         struct sac_error *err)
{
    (void)ask;
    (void)err;
    caps->backward_dst = true;
    caps->grad_in_place = same_forms(caps);
    return 0;
}

static int softmax_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int axis = op->param.softmax.axis;
    int64_t outer = sac_shape_count_between(shape, 0, axis);
    int64_t inner = sac_shape_count_between(shape, axis + 1, shape->rank);
    bool last = op->src[0].form.layout == SAC_CHANNELS_LAST && shape->rank >= 3;
    struct sac_kernel_softmax_back p = {
        .y = op->dst[0].data,
        .dy = op->dst_grad[0].data,
        .dx = op->src_grad[0].data,
        .type = (int)op->src[0].form.type,
        .outer = (uint32_t)(last ? outer * inner : outer),
        .count = (uint32_t)shape->dim[axis],
        .inner = (uint32_t)(last ? 1 : inner),
    };

    return sac_cuda_check(op->device, sac_kernel_softmax_back(&p, stream->stream), op->name, err);
}

const struct sac_cuda_backward sac_cuda_softmax_back = {
    .name = "softmax",
    .query = softmax_query,
    .data = softmax_data,
};
