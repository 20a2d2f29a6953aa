/*
 * Convolutions by cuDNN, and deconvolutions as the gradient of one. Bias, sum and
 * ReLU are cuDNN's where it takes them, else a pass of our own behind it.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "device/cuda/algorithms.h"
#include "device/cuda/conv.h"

static const size_t workspace_max = (size_t)256 << 20;
enum { ANSWERS = 8 };

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
static cudnnMathType_t math_of(enum sac_precision precision)
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

static bool set_image(cudnnTensorDescriptor_t descriptor, cudnnDataType_t type,
                      const struct sac_shape *shape)
{
    const int64_t *d = shape->dim;

    return cudnnSetTensor4dDescriptor(descriptor, CUDNN_TENSOR_NHWC, type, (int)d[0], (int)d[1],
                                      (int)d[2], (int)d[3]) == CUDNN_STATUS_SUCCESS;
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
           cudnnSetConvolutionMathType(c->conv, math_of(ask->options->precision)) ==
               CUDNN_STATUS_SUCCESS;
}

bool sac_cuda_conv_describe(struct conv *c, const struct sac_cuda_ask *ask)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *y = shape_of(ask, node->dst[0]);
    const int64_t *w = ask->graph->constants[node->weight[0]].shape.dim;
    bool relu = node->epilogue.relu;
    cudnnDataType_t type;

    c->transposed = node->kind == SAC_OP_DECONV;
    c->apart = c->transposed || (relu && node->epilogue.slope != 0);
    return data_type(ask->type, &type) && made(c) && set_window(c, ask) &&
           set_image(c->x, type, shape_of(ask, node->src[0])) && set_image(c->y, type, y) &&
           cudnnSetTensor4dDescriptor(c->bias, CUDNN_TENSOR_NHWC, type, 1, (int)y->dim[1], 1, 1) ==
               CUDNN_STATUS_SUCCESS &&
           cudnnSetFilter4dDescriptor(c->w, type, CUDNN_TENSOR_NHWC, (int)w[0], (int)w[1],
                                      (int)w[2], (int)w[3]) == CUDNN_STATUS_SUCCESS &&
           cudnnSetActivationDescriptor(c->activation,
                                        relu ? CUDNN_ACTIVATION_RELU : CUDNN_ACTIVATION_IDENTITY,
                                        CUDNN_NOT_PROPAGATE_NAN, 0) == CUDNN_STATUS_SUCCESS;
}

/* All that an algorithm's choice depends on. */
static void name_question(const struct sac_cuda_ask *ask, char *text, size_t size)
{
    const struct sac_window *w = &ask->node->param.conv.window;
    const int64_t *x = shape_of(ask, ask->node->src[0])->dim;

    snprintf(text, size,
             "%s %s x %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " out %" PRId64 " k %" PRId64
             " %" PRId64 " s %" PRId64 " %" PRId64 " p %" PRId64 " %" PRId64 " d %" PRId64
             " %" PRId64 " g %" PRId64,
             ask->node->kind == SAC_OP_DECONV ? "deconv" : "conv",
             sac_precision_name(ask->options->precision), x[0], x[1], x[2], x[3],
             shape_of(ask, ask->node->dst[0])->dim[1], w->kernel[0], w->kernel[1], w->stride[0],
             w->stride[1], w->pad[0], w->pad[1], w->dilation[0], w->dilation[1],
             ask->node->param.conv.group);
}

/* ---- Algorithms ----------------------------------------------------------- */

static bool ask_workspace(cudnnHandle_t cudnn, const struct conv *c, int algorithm, size_t *ret)
{
    if (c->transposed)
        return cudnnGetConvolutionBackwardDataWorkspaceSize(
                   cudnn, c->w, c->x, c->conv, c->y, (cudnnConvolutionBwdDataAlgo_t)algorithm,
                   ret) == CUDNN_STATUS_SUCCESS;
    return cudnnGetConvolutionForwardWorkspaceSize(cudnn, c->x, c->w, c->conv, c->y,
                                                   (cudnnConvolutionFwdAlgo_t)algorithm,
                                                   ret) == CUDNN_STATUS_SUCCESS;
}

/* What cuDNN expects to be best, without trying. */
static bool guess_backward(cudnnHandle_t cudnn, const struct conv *c, int *ret_algorithm,
                           int *ret_math)
{
    cudnnConvolutionBwdDataAlgoPerf_t answers[ANSWERS];
    int count = 0;

    if (cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnn, c->w, c->x, c->conv, c->y, ANSWERS,
                                                    &count, answers) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int i = 0; i < count; i++) {
        if (answers[i].status != CUDNN_STATUS_SUCCESS || answers[i].memory > workspace_max)
            continue;
        *ret_algorithm = (int)answers[i].algo;
        *ret_math = (int)answers[i].mathType;
        return true;
    }
    return false;
}

static bool first_of(const cudnnConvolutionFwdAlgoPerf_t *answers, int count, int *ret_algorithm,
                     int *ret_math)
{
    for (int i = 0; i < count; i++) {
        if (answers[i].status != CUDNN_STATUS_SUCCESS || answers[i].memory > workspace_max)
            continue;
        *ret_algorithm = (int)answers[i].algo;
        *ret_math = (int)answers[i].mathType;
        return true;
    }
    return false;
}

static bool guess_forward(cudnnHandle_t cudnn, const struct conv *c, int *ret_algorithm,
                          int *ret_math)
{
    cudnnConvolutionFwdAlgoPerf_t answers[ANSWERS];
    int count = 0;

    return cudnnGetConvolutionForwardAlgorithm_v7(cudnn, c->x, c->w, c->conv, c->y, ANSWERS, &count,
                                                  answers) == CUDNN_STATUS_SUCCESS &&
           first_of(answers, count, ret_algorithm, ret_math);
}

static size_t value_bytes(const struct sac_cuda_ask *ask, const struct sac_shape *shape)
{
    size_t bytes = sac_tensor_bytes(shape, ask->type);

    return (bytes + 255) & ~(size_t)255;
}

/* What the algorithms that may be tried ask for. */
static size_t workspace_for_trials(cudnnHandle_t cudnn, const struct conv *c)
{
    size_t most = 0, bytes;

    for (int algorithm = 0; algorithm < CUDNN_CONVOLUTION_FWD_ALGO_COUNT; algorithm++)
        if (ask_workspace(cudnn, c, algorithm, &bytes) && bytes <= workspace_max && bytes > most)
            most = bytes;
    return most;
}

/* Tries them all on memory that is given back; false where there is too little. */
static bool measure(const struct sac_cuda_ask *ask, const struct conv *c, int *ret_algorithm,
                    int *ret_math)
{
    struct sac_cuda_device *device = ask->device;
    const struct sac_shape *w = &ask->graph->constants[ask->node->weight[0]].shape;
    size_t x_bytes = value_bytes(ask, shape_of(ask, ask->node->src[0]));
    size_t y_bytes = value_bytes(ask, shape_of(ask, ask->node->dst[0]));
    size_t w_bytes = value_bytes(ask, w), room = workspace_for_trials(device->cudnn, c);
    cudnnConvolutionFwdAlgoPerf_t answers[ANSWERS];
    void *memory = NULL;
    int count = 0;

    if (sac_cuda_memory_new(&device->base, SAC_MEMORY_DEVICE, x_bytes + y_bytes + w_bytes + room,
                            &memory, NULL) != 0)
        return false;
    char *x = memory, *y = x + x_bytes, *filter = y + y_bytes, *workspace = filter + w_bytes;
    bool good =
        cudaMemsetAsync(memory, 0, x_bytes + y_bytes + w_bytes, device->stream) == cudaSuccess &&
        cudnnFindConvolutionForwardAlgorithmEx(device->cudnn, c->x, x, c->w, filter, c->conv, c->y,
                                               y, ANSWERS, &count, answers, workspace,
                                               room) == CUDNN_STATUS_SUCCESS;
    cudaStreamSynchronize(device->stream);
    sac_cuda_memory_free(&device->base, SAC_MEMORY_DEVICE, memory);
    cudaGetLastError();
    return good && first_of(answers, count, ret_algorithm, ret_math);
}

/* One that was remembered counts only while cuDNN still takes it. */
static bool remembered(const struct sac_cuda_ask *ask, struct conv *c, const char *question)
{
    int algorithm, math;

    return sac_algorithms_find(ask->device->algorithms, question, &algorithm, &math) &&
           cudnnSetConvolutionMathType(c->conv, (cudnnMathType_t)math) == CUDNN_STATUS_SUCCESS &&
           ask_workspace(ask->device->cudnn, c, algorithm, &c->workspace_bytes) &&
           c->workspace_bytes <= workspace_max && (c->algorithm = algorithm, true);
}

/* The math that an answer was measured with; plain fp32 keeps what was asked. */
static bool adopt(const struct sac_cuda_ask *ask, struct conv *c, int algorithm, int math)
{
    if (ask->options->precision == SAC_PRECISION_F32)
        math = (int)math_of(SAC_PRECISION_F32);
    c->algorithm = algorithm;
    return cudnnSetConvolutionMathType(c->conv, (cudnnMathType_t)math) == CUDNN_STATUS_SUCCESS &&
           ask_workspace(ask->device->cudnn, c, algorithm, &c->workspace_bytes);
}

/* Under the device's lock. */
static bool find_algorithm(const struct sac_cuda_ask *ask, struct conv *c)
{
    cudnnHandle_t cudnn = ask->device->cudnn;
    int algorithm = 0, math = 0;
    char question[160];
    bool found;

    name_question(ask, question, sizeof question);
    bool same = ask->options->deterministic; /* what was measured may differ next time */

    if (!same && remembered(ask, c, question))
        return true;
    cudnnSetConvolutionMathType(c->conv, math_of(ask->options->precision));
    if (c->transposed)
        found = guess_backward(cudnn, c, &algorithm, &math);
    else
        found = (!same && measure(ask, c, &algorithm, &math)) ||
                guess_forward(cudnn, c, &algorithm, &math);
    found = found && adopt(ask, c, algorithm, math);
    if (found && !same) {
        math =
            ask->options->precision == SAC_PRECISION_F32 ? (int)math_of(SAC_PRECISION_F32) : math;
        sac_algorithms_add(ask->device->algorithms, question, algorithm, math);
    }
    return found;
}

/* cuDNN tells whether it takes the geometry. */
static bool has_output_of(const struct conv *c, const struct sac_shape *y)
{
    int n, channels, height, width;

    if (c->transposed)
        return true;
    return cudnnGetConvolution2dForwardOutputDim(c->conv, c->x, c->w, &n, &channels, &height,
                                                 &width) == CUDNN_STATUS_SUCCESS &&
           n == y->dim[0] && channels == y->dim[1] && height == y->dim[2] && width == y->dim[3];
}

static bool make(struct conv *c, const struct sac_cuda_ask *ask)
{
    struct sac_cuda_device *device = ask->device;

    pthread_mutex_lock(&device->lock);
    bool good = sac_cuda_conv_describe(c, ask) &&
                has_output_of(c, shape_of(ask, ask->node->dst[0])) && find_algorithm(ask, c);
    pthread_mutex_unlock(&device->lock);
    if (!good)
        cudaGetLastError();
    return good;
}

static bool conv_can(const struct sac_cuda_ask *ask)
{
    const struct sac_shape *x = shape_of(ask, ask->node->src[0]);
    struct conv c = {0};

    if (x->rank != 4 || sac_shape_count(x) == 0)
        return false;
    bool can = make(&c, ask);
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
    bool good = make(&c, ask);

    caps->workspace_bytes = c.workspace_bytes;
    caps->dst.type = ask->type; /* cuDNN stores what it reads */
    sac_cuda_conv_done(&c);
    return good ? 0 : refused(ask, err);
}

/* ---- Running -------------------------------------------------------------- */

/* cuDNN's own bias is of the result's type, and is always there. */
static int get_bias(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                    struct sac_error *err)
{
    struct conv *c = op->state;
    struct sac_constant none = {.name = "(zeros)", .shape = {1, {op->dst[0].shape.dim[1]}}};
    bool has = op->weight_count > 1;
    struct sac_cuda_packing packing = {
        .type = c->apart ? SAC_F32 : ask->type,
        .dim = {1, 1, 1, op->dst[0].shape.dim[1]},
        .stride = {0, 0, 0, 1},
    };

    if (c->apart)
        return has ? sac_cuda_weight_plain(op, ask, 1, store, err) : 0;
    if (has)
        return sac_cuda_weight_get(op, ask, 1, &packing, store, &c->bias_data, err);
    return sac_cuda_store_get(store, &none, &packing, &c->bias_data, err);
}

/* What cuDNN fuses: the identity only with one algorithm, by its manual; a bare
 * convolution needs no epilogue. */
static void decide_epilogue(const struct sac_op *op, struct conv *c)
{
    bool bare = op->weight_count < 2 && op->epilogue.sum < 0 && !op->epilogue.relu;
    bool precomputed = c->algorithm == (int)CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;

    c->apart |= bare || (!op->epilogue.relu && !precomputed);
}

static int conv_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                        struct sac_error *err)
{
    static const int channels_last[] = {0, 2, 3, 1};
    struct conv *c = calloc(1, sizeof *c);
    int rc = c ? 0 : sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);

    op->state = c;
    if (rc == 0 && !make(c, ask))
        rc = refused(ask, err);
    if (rc == 0 && c->workspace_bytes > 0 && !op->workspace)
        rc = sac_fail(err, SAC_EINVAL, "%s: bound without its workspace", op->name);
    if (rc == 0) {
        decide_epilogue(op, c);
        rc = sac_cuda_weight_filter(op, ask, channels_last, store, err);
    }
    if (rc == 0)
        rc = get_bias(op, ask, store, err);
    return rc;
}

static int run_apart(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct conv *c = op->state;
    const float one = 1, zero = 0;
    void *x = op->src[0].data, *y = op->dst[0].data;
    bool in_place = op->epilogue.sum >= 0 && op->sum.data == y;
    const float *blend = in_place ? &one : &zero; /* the sum stands in y already */
    int rc = sac_cudnn_check(
        op->device,
        c->transposed
            ? cudnnConvolutionBackwardData(stream->cudnn, &one, c->w, op->weight[0], c->x, x,
                                           c->conv, (cudnnConvolutionBwdDataAlgo_t)c->algorithm,
                                           op->workspace, c->workspace_bytes, blend, c->y, y)
            : cudnnConvolutionForward(stream->cudnn, &one, c->x, x, c->w, op->weight[0], c->conv,
                                      (cudnnConvolutionFwdAlgo_t)c->algorithm, op->workspace,
                                      c->workspace_bytes, blend, c->y, y),
        op->name, err);

    if (rc == 0)
        rc = sac_cuda_finish(op, op->weight[1], op->epilogue.sum >= 0 && !in_place, stream, err);
    return rc;
}

static int run_fused(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct conv *c = op->state;
    bool sum = op->epilogue.sum >= 0;
    const float one = 1, other = sum ? 1 : 0;
    void *y = op->dst[0].data;

    return sac_cudnn_check(op->device,
                           cudnnConvolutionBiasActivationForward(
                               stream->cudnn, &one, c->x, op->src[0].data, c->w, op->weight[0],
                               c->conv, (cudnnConvolutionFwdAlgo_t)c->algorithm, op->workspace,
                               c->workspace_bytes, &other, c->y, sum ? op->sum.data : y, c->bias,
                               c->bias_data, c->activation, c->y, y),
                           op->name, err);
}

static int conv_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct conv *c = op->state;

    return c->apart ? run_apart(op, stream, err) : run_fused(op, stream, err);
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
