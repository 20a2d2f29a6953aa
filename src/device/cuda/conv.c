/*
 * Convolutions by cuDNN, and deconvolutions as the gradient of one. Bias, sum and
 * ReLU are cuDNN's where it takes them, else a pass of our own behind it.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "device/cuda/conv.h"

void sac_cuda_conv_done(struct conv *c)
{
    if (c->x)
        cudnnDestroyTensorDescriptor(c->x);
    if (c->y)
        cudnnDestroyTensorDescriptor(c->y);
    if (c->bias)
        cudnnDestroyTensorDescriptor(c->bias);
    if (c->w)
        cudnnDestroyFilterDescriptor(c->w);
    if (c->conv)
        cudnnDestroyConvolutionDescriptor(c->conv);
    if (c->activation)
        cudnnDestroyActivationDescriptor(c->activation);
}

static void conv_free(void *state)
{
    if (state)
        sac_cuda_conv_done(state);
    free(state);
}

/* ---- Descriptions --------------------------------------------------------- */

/* bf16 came with cuDNN 8.1. */
static bool data_type(enum sac_type type, cudnnDataType_t *ret)
{
    *ret = type == SAC_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
    if (type != SAC_BF16)
        return true;
#if CUDNN_VERSION >= 8100
    *ret = CUDNN_DATA_BFLOAT16;
    return true;
#else
    return false;
#endif
}

/* TF32 is what cuDNN 8 does with fp32 unless it is told not to. */
cudnnMathType_t sac_cuda_conv_math(enum sac_precision precision)
{
    if (precision == SAC_PRECISION_F16 || precision == SAC_PRECISION_BF16)
        return CUDNN_TENSOR_OP_MATH;
#if CUDNN_VERSION >= 8000
    if (precision == SAC_PRECISION_F32)
        return CUDNN_FMA_MATH;
#endif
    return CUDNN_DEFAULT_MATH;
}

static const struct sac_shape *shape_of(const struct sac_cuda_ask *ask, int value)
{
    return &ask->graph->values[value].shape;
}

static bool made(struct conv *c)
{
    return cudnnCreateTensorDescriptor(&c->x) == CUDNN_STATUS_SUCCESS &&
           cudnnCreateTensorDescriptor(&c->y) == CUDNN_STATUS_SUCCESS &&
           cudnnCreateTensorDescriptor(&c->bias) == CUDNN_STATUS_SUCCESS &&
           cudnnCreateFilterDescriptor(&c->w) == CUDNN_STATUS_SUCCESS &&
           cudnnCreateConvolutionDescriptor(&c->conv) == CUDNN_STATUS_SUCCESS &&
           cudnnCreateActivationDescriptor(&c->activation) == CUDNN_STATUS_SUCCESS;
}

static bool set_image(cudnnTensorDescriptor_t descriptor, cudnnDataType_t type, int batch,
                      const struct sac_shape *shape)
{
    const int64_t *d = shape->dim;

    return cudnnSetTensor4dDescriptor(descriptor, CUDNN_TENSOR_NHWC, type, batch, (int)d[1],
                                      (int)d[2], (int)d[3]) == CUDNN_STATUS_SUCCESS;
}

static int64_t picture_bytes(const struct sac_shape *shape, enum sac_type type)
{
    return sac_shape_count_between(shape, 1, 4) * (int64_t)sac_type_bytes(type);
}

/* The same bits in every batch and place: one picture after the other, by the algorithm
 * for one; each must stand as the first does. */
static bool goes_alone(const struct sac_cuda_ask *ask)
{
    return ask->options->deterministic && !ask->options->training;
}

static bool may_go_alone(const struct sac_cuda_ask *ask)
{
    enum { ALIGNMENT = 64 };

    return picture_bytes(shape_of(ask, ask->node->src[0]), ask->type) % ALIGNMENT == 0 &&
           picture_bytes(shape_of(ask, ask->node->dst[0]), ask->type) % ALIGNMENT == 0;
}

static bool set_window(struct conv *c, const struct sac_cuda_ask *ask)
{
    const struct sac_window *w = &ask->node->param.conv.window;

    return cudnnSetConvolution2dDescriptor(
               c->conv, (int)w->pad[0], (int)w->pad[1], (int)w->stride[0], (int)w->stride[1],
               (int)w->dilation[0], (int)w->dilation[1], CUDNN_CROSS_CORRELATION,
               CUDNN_DATA_FLOAT) == CUDNN_STATUS_SUCCESS &&
           cudnnSetConvolutionGroupCount(c->conv, (int)ask->node->param.conv.group) ==
               CUDNN_STATUS_SUCCESS &&
           cudnnSetConvolutionMathType(c->conv, sac_cuda_conv_math(ask->options->precision)) ==
               CUDNN_STATUS_SUCCESS;
}

bool sac_cuda_conv_describe(struct conv *c, const struct sac_cuda_ask *ask)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *y = shape_of(ask, node->dst[0]);
    const int64_t *w = ask->graph->constants[node->weight[0]].shape.dim;
    const struct sac_shape *x = shape_of(ask, node->src[0]);
    bool relu = node->epilogue.relu;
    bool bare = node->weight_count < 2 && node->epilogue.sum < 0 && !relu;
    int batch = goes_alone(ask) ? 1 : (int)x->dim[0];
    cudnnDataType_t type;

    c->transposed = node->kind == SAC_OP_DECONV;
    c->never_fused = c->transposed || bare || (relu && node->epilogue.slope != 0);
    c->apart = c->never_fused;
    c->pictures = batch > 0 ? (int)x->dim[0] / batch : 0;
    c->x_step = picture_bytes(x, ask->type);
    c->y_step = picture_bytes(y, ask->type);
    return data_type(ask->type, &type) && made(c) && set_window(c, ask) &&
           set_image(c->x, type, batch, x) && set_image(c->y, type, batch, y) &&
           cudnnSetTensor4dDescriptor(c->bias, CUDNN_TENSOR_NHWC, type, 1, (int)y->dim[1], 1, 1) ==
               CUDNN_STATUS_SUCCESS &&
           cudnnSetFilter4dDescriptor(c->w, type, CUDNN_TENSOR_NHWC, (int)w[0], (int)w[1],
                                      (int)w[2], (int)w[3]) == CUDNN_STATUS_SUCCESS &&
           cudnnSetActivationDescriptor(c->activation,
                                        relu ? CUDNN_ACTIVATION_RELU : CUDNN_ACTIVATION_IDENTITY,
                                        CUDNN_NOT_PROPAGATE_NAN, 0) == CUDNN_STATUS_SUCCESS;
}

/* All that an algorithm's choice depends on. */
void sac_cuda_conv_question(const struct sac_cuda_ask *ask, char *text, size_t size)
{
    const struct sac_window *w = &ask->node->param.conv.window;
    const int64_t *x = shape_of(ask, ask->node->src[0])->dim;

    snprintf(text, size,
             "%s%s %s x %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " out %" PRId64 " k %" PRId64
             " %" PRId64 " s %" PRId64 " %" PRId64 " p %" PRId64 " %" PRId64 " d %" PRId64
             " %" PRId64 " g %" PRId64,
             ask->node->kind == SAC_OP_DECONV ? "deconv" : "conv", goes_alone(ask) ? " alone" : "",
             sac_precision_name(ask->options->precision), goes_alone(ask) ? 1 : x[0], x[1], x[2],
             x[3], shape_of(ask, ask->node->dst[0])->dim[1], w->kernel[0], w->kernel[1],
             w->stride[0], w->stride[1], w->pad[0], w->pad[1], w->dilation[0], w->dilation[1],
             ask->node->param.conv.group);
}

/* ---- The kernel ----------------------------------------------------------- */

static bool conv_can(const struct sac_cuda_ask *ask)
{
    const struct sac_shape *x = shape_of(ask, ask->node->src[0]);
    struct conv c = {0};

    if (x->rank != 4 || sac_shape_count(x) == 0 || (goes_alone(ask) && !may_go_alone(ask)))
        return false;
    bool can = sac_cuda_conv_make(&c, ask);
    sac_cuda_conv_done(&c);
    return can;
}

static int refused(const struct sac_cuda_ask *ask, struct sac_error *err)
{
    return sac_fail(err, SAC_EDEVICE, "%s: cuDNN has no algorithm for what it had one for",
                    ask->node->name);
}

static int conv_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    struct conv c = {0};
    bool good = sac_cuda_conv_make(&c, ask);

    caps->workspace_bytes = c.workspace_bytes;
    caps->dst.type = ask->type; /* cuDNN stores what it reads */
    sac_cuda_conv_done(&c);
    return good ? 0 : refused(ask, err);
}

/* ---- Running -------------------------------------------------------------- */

/* In fp32 for our own pass; cuDNN's own is of the result's type, and is always there. */
static int get_bias(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                    struct sac_error *err)
{
    struct conv *c = op->state;
    struct sac_constant none = {.name = "(zeros)", .shape = {1, {op->dst[0].shape.dim[1]}}};
    bool has = op->weight_count > 1;
    struct sac_cuda_packing packing = {
        .type = ask->type,
        .dim = {1, 1, 1, op->dst[0].shape.dim[1]},
        .stride = {0, 0, 0, 1},
    };
    int rc = has ? sac_cuda_weight_plain(op, ask, 1, store, err) : 0;

    if (rc != 0 || c->never_fused)
        return rc;
    if (has)
        return sac_cuda_weight_get(op, ask, 1, &packing, store, &c->bias_data, err);
    return sac_cuda_store_get(store, &none, &packing, &c->bias_data, err);
}

static int conv_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                        struct sac_error *err)
{
    static const int channels_last[] = {0, 2, 3, 1};
    struct conv *c = calloc(1, sizeof *c);
    int rc = c ? 0 : sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);

    op->state = c;
    if (rc == 0 && !sac_cuda_conv_make(c, ask))
        rc = refused(ask, err);
    if (rc == 0)
        rc = sac_cuda_check_workspace(op, c->workspace_bytes, err);
    if (rc == 0)
        rc = sac_cuda_weight_filter(op, ask, channels_last, store, err);
    if (rc == 0)
        rc = get_bias(op, ask, store, err);
    return rc;
}

static const char *picture(const void *data, int64_t step, int index)
{
    return (const char *)data + step * index;
}

static cudnnStatus_t run_bare(const struct sac_op *op, const struct conv *c,
                              struct sac_stream *stream, const float *blend, int index)
{
    const float one = 1;
    const void *x = picture(op->src[0].data, c->x_step, index);
    void *y = (void *)picture(op->dst[0].data, c->y_step, index);

    return c->transposed
               ? cudnnConvolutionBackwardData(stream->cudnn, &one, c->w, op->weight[0], c->x, x,
                                              c->conv, (cudnnConvolutionBwdDataAlgo_t)c->algorithm,
                                              op->workspace, c->workspace_bytes, blend, c->y, y)
               : cudnnConvolutionForward(stream->cudnn, &one, c->x, x, c->w, op->weight[0], c->conv,
                                         (cudnnConvolutionFwdAlgo_t)c->algorithm, op->workspace,
                                         c->workspace_bytes, blend, c->y, y);
}

static int run_apart(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct conv *c = op->state;
    const float one = 1, zero = 0;
    bool in_place = op->epilogue.sum >= 0 && op->sum.data == op->dst[0].data;
    const float *blend = in_place ? &one : &zero; /* the sum stands in y already */
    int rc = 0;

    for (int i = 0; i < c->pictures && rc == 0; i++)
        rc = sac_cudnn_check(op->device, run_bare(op, c, stream, blend, i), op->name, err);
    if (rc == 0)
        rc = sac_cuda_finish(op, op->weight[1], op->epilogue.sum >= 0 && !in_place, stream, err);
    return rc;
}

static cudnnStatus_t run_fused(const struct sac_op *op, const struct conv *c,
                               struct sac_stream *stream, int index)
{
    bool sum = op->epilogue.sum >= 0;
    const float one = 1, other = sum ? 1 : 0;
    void *y = (void *)picture(op->dst[0].data, c->y_step, index);

    return cudnnConvolutionBiasActivationForward(
        stream->cudnn, &one, c->x, picture(op->src[0].data, c->x_step, index), c->w, op->weight[0],
        c->conv, (cudnnConvolutionFwdAlgo_t)c->algorithm, op->workspace, c->workspace_bytes, &other,
        c->y, sum ? picture(op->sum.data, c->y_step, index) : y, c->bias, c->bias_data,
        c->activation, c->y, y);
}

/* What was only guessed may not be had fused: found out by the first run. */
static bool is_refusal(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_NOT_SUPPORTED || (int)status / 1000 == 3;
}

static int conv_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct conv *c = op->state;
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;

    if (c->apart)
        return run_apart(op, stream, err);
    for (int i = 0; i < c->pictures && status == CUDNN_STATUS_SUCCESS; i++) {
        status = run_fused(op, c, stream, i);
        if (i == 0 && is_refusal(status)) {
            cudaGetLastError();
            c->apart = true;
            return run_apart(op, stream, err);
        }
    }
    return sac_cudnn_check(op->device, status, op->name, err);
}

const struct sac_cuda_kernel sac_cuda_conv = {
    .name = "cuDNN",
    .can = conv_can,
    .query = conv_query,
    .prepare = conv_prepare,
    .forward = conv_forward,
    .free_state = conv_free,
};

const struct sac_cuda_kernel sac_cuda_deconv = {
    .name = "cuDNN",
    .can = conv_can,
    .query = conv_query,
    .prepare = conv_prepare,
    .forward = conv_forward,
    .free_state = conv_free,
};
