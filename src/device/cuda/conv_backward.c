/*
 * Convolutions back by cuDNN, and deconvolutions, whose way back is a convolution
 * forward. A filter's gradient is made in the workspace, in cuDNN's layout and type,
 * and added from there to the plain fp32 gradient.
 */
#include <stdlib.h>

#include "device/cuda/conv.h"
#include "kernels/training.h"

static const size_t workspace_max = (size_t)256 << 20;
enum { ANSWERS = 8, ALIGNMENT = 256 };

struct back {
    struct conv conv;
    int data, filter; /* algorithms */
    size_t data_bytes, filter_bytes, dw_bytes;
    const void *weights; /* out, y, x, in */
};

static void back_free(void *state)
{
    struct back *b = state;

    if (b)
        sac_cuda_conv_done(&b->conv);
    free(b);
}

/* ---- Algorithms ------------------------------------------------------------- */

/* The first answer that fits, and repeats itself where that is asked for. */
#define FIRST_OF(answers, count, same, ret)                                                        \
    do {                                                                                           \
        for (int i_ = 0; i_ < (count); i_++) {                                                     \
            if ((answers)[i_].status != CUDNN_STATUS_SUCCESS ||                                    \
                (answers)[i_].memory > workspace_max ||                                            \
                ((same) && (answers)[i_].determinism != CUDNN_DETERMINISTIC))                      \
                continue;                                                                          \
            *(ret) = (int)(answers)[i_].algo;                                                      \
            return true;                                                                           \
        }                                                                                          \
    } while (0)

static bool guess_filter(cudnnHandle_t cudnn, const struct conv *c, bool same, int *ret)
{
    cudnnConvolutionBwdFilterAlgoPerf_t answers[ANSWERS];
    int count = 0;
    cudnnTensorDescriptor_t image = c->transposed ? c->y : c->x;

    if (cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnn, image, c->transposed ? c->x : c->y,
                                                      c->conv, c->w, ANSWERS, &count,
                                                      answers) == CUDNN_STATUS_SUCCESS)
        FIRST_OF(answers, count, same, ret);
    return false;
}

static bool guess_data(cudnnHandle_t cudnn, const struct conv *c, bool same, int *ret)
{
    cudnnConvolutionBwdDataAlgoPerf_t answers[ANSWERS];
    int count = 0;

    if (cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnn, c->w, c->y, c->conv, c->x, ANSWERS,
                                                    &count, answers) == CUDNN_STATUS_SUCCESS)
        FIRST_OF(answers, count, same, ret);
    return false;
}

static bool guess_forward(cudnnHandle_t cudnn, const struct conv *c, bool same, int *ret)
{
    cudnnConvolutionFwdAlgoPerf_t answers[ANSWERS];
    int count = 0;

    if (cudnnGetConvolutionForwardAlgorithm_v7(cudnn, c->y, c->w, c->conv, c->x, ANSWERS, &count,
                                               answers) == CUDNN_STATUS_SUCCESS)
        FIRST_OF(answers, count, same, ret);
    return false;
}

static bool data_bytes(cudnnHandle_t cudnn, const struct conv *c, int algorithm, size_t *ret)
{
    if (c->transposed)
        return cudnnGetConvolutionForwardWorkspaceSize(cudnn, c->y, c->w, c->conv, c->x,
                                                       (cudnnConvolutionFwdAlgo_t)algorithm,
                                                       ret) == CUDNN_STATUS_SUCCESS;
    return cudnnGetConvolutionBackwardDataWorkspaceSize(cudnn, c->w, c->y, c->conv, c->x,
                                                        (cudnnConvolutionBwdDataAlgo_t)algorithm,
                                                        ret) == CUDNN_STATUS_SUCCESS;
}

static bool filter_bytes(cudnnHandle_t cudnn, const struct conv *c, int algorithm, size_t *ret)
{
    return cudnnGetConvolutionBackwardFilterWorkspaceSize(
               cudnn, c->transposed ? c->y : c->x, c->transposed ? c->x : c->y, c->conv, c->w,
               (cudnnConvolutionBwdFilterAlgo_t)algorithm, ret) == CUDNN_STATUS_SUCCESS;
}

typedef bool guess_fn(cudnnHandle_t cudnn, const struct conv *c, bool same, int *ret);
typedef bool bytes_fn(cudnnHandle_t cudnn, const struct conv *c, int algorithm, size_t *ret);

/* Under the device's lock. cuDNN's own guess, which is the same each time. */
static bool find(const struct sac_cuda_ask *ask, const struct conv *c, guess_fn *guess,
                 bytes_fn *bytes, int *ret, size_t *ret_bytes)
{
    cudnnHandle_t cudnn = ask->device->cudnn;

    return guess(cudnn, c, ask->options->deterministic, ret) && bytes(cudnn, c, *ret, ret_bytes);
}

static size_t dw_bytes(const struct sac_cuda_ask *ask)
{
    size_t bytes = sac_tensor_bytes(&ask->graph->constants[ask->node->weight[0]].shape, ask->type);

    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static bool make(struct back *b, const struct sac_cuda_ask *ask)
{
    struct sac_cuda_device *device = ask->device;
    struct conv *c = &b->conv;

    pthread_mutex_lock(&device->lock);
    bool good = sac_cuda_conv_describe(c, ask) &&
                find(ask, c, c->transposed ? guess_forward : guess_data, data_bytes, &b->data,
                     &b->data_bytes) &&
                find(ask, c, guess_filter, filter_bytes, &b->filter, &b->filter_bytes);
    pthread_mutex_unlock(&device->lock);
    if (!good)
        cudaGetLastError();
    b->dw_bytes = dw_bytes(ask);
    return good;
}

/* ---- What the table asks ------------------------------------------------------ */

static bool conv_can(const struct sac_cuda_ask *ask, struct sac_form src, struct sac_form dst)
{
    const struct sac_shape *x = &ask->graph->values[ask->node->src[0]].shape;
    struct back b = {0};

    if (x->rank != 4 || sac_shape_count(x) == 0 || src.type != ask->type || dst.type != ask->type)
        return false;
    bool can = make(&b, ask);
    sac_cuda_conv_done(&b.conv);
    return can;
}

static int refused(const struct sac_cuda_ask *ask, struct sac_error *err)
{
    return sac_fail(err, SAC_EDEVICE, "%s: cuDNN has no way back for what it had one for",
                    ask->node->name);
}

static int conv_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    struct back b = {0};
    bool good = make(&b, ask);
    size_t bytes = b.dw_bytes + (b.data_bytes > b.filter_bytes ? b.data_bytes : b.filter_bytes);
    size_t bias = sac_cuda_columns_bytes(&ask->graph->values[ask->node->dst[0]].shape);

    sac_cuda_conv_done(&b.conv);
    bytes = bias > bytes ? bias : bytes;
    caps->workspace_bytes = bytes > caps->workspace_bytes ? bytes : caps->workspace_bytes;
    caps->backward_src = true;
    return good ? 0 : refused(ask, err);
}

static int get_weights(struct sac_op *op, const struct sac_cuda_ask *ask, const void **ret,
                       struct sac_error *err)
{
    static const int order[] = {0, 2, 3, 1};
    const struct sac_shape *shape = &op->weight_shape[0];
    struct sac_tensor plain = sac_tensor_of(shape, (struct sac_form){SAC_F32, SAC_PLAIN});
    struct sac_cuda_packing packing = {.type = ask->type};

    for (int i = 0; i < 4; i++) {
        packing.dim[i] = shape->dim[order[i]];
        packing.stride[i] = plain.stride[order[i]];
    }
    return sac_cuda_weight_get(op, ask, 0, &packing, NULL, ret, err);
}

static int conv_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_error *err)
{
    struct back *b = calloc(1, sizeof *b);

    op->backward_state = b;
    if (!b)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    if (!make(b, ask))
        return refused(ask, err);
    size_t room = b->data_bytes > b->dw_bytes + b->filter_bytes ? b->data_bytes
                                                                : b->dw_bytes + b->filter_bytes;
    int rc = sac_cuda_check_workspace(op, room, err);
    return rc ? rc : get_weights(op, ask, &b->weights, err);
}

/* ---- Running ---------------------------------------------------------------- */

static int conv_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct back *b = op->backward_state;
    const struct conv *c = &b->conv;
    const float one = 1, zero = 0;
    const void *dy = op->dst_grad[0].data;
    void *dx = op->src_grad[0].data;

    return sac_cudnn_check(
        op->device,
        c->transposed
            ? cudnnConvolutionForward(stream->cudnn, &one, c->y, dy, c->w, b->weights, c->conv,
                                      (cudnnConvolutionFwdAlgo_t)b->data, op->workspace,
                                      b->data_bytes, &zero, c->x, dx)
            : cudnnConvolutionBackwardData(stream->cudnn, &one, c->w, b->weights, c->y, dy, c->conv,
                                           (cudnnConvolutionBwdDataAlgo_t)b->data, op->workspace,
                                           b->data_bytes, &zero, c->x, dx),
        op->name, err);
}

/* out, y, x, in as cuDNN left it → out, in, y, x. */
static int add_filter(struct sac_op *op, const void *dw, struct sac_stream *stream,
                      struct sac_error *err)
{
    const int64_t *d = op->weight_shape[0].dim;
    struct sac_kernel_copy copy = {
        .from = dw,
        .to = op->weight_grad[0],
        .from_type = (int)op->src[0].form.type,
        .to_type = SAC_F32,
        .rank = 4,
        .dim = {d[0], d[1], d[2], d[3]},
        .from_stride = {d[1] * d[2] * d[3], 1, d[3] * d[1], d[1]},
        .to_stride = {d[1] * d[2] * d[3], d[2] * d[3], d[3], 1},
        .add = true,
    };

    return sac_cuda_check(op->device, sac_kernel_copy(&copy, stream->stream), op->name, err);
}

static int filter_gradient(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct back *b = op->backward_state;
    const struct conv *c = &b->conv;
    const struct sac_tensor *image = c->transposed ? &op->dst_grad[0] : &op->src[0];
    const struct sac_tensor *map = c->transposed ? &op->src[0] : &op->dst_grad[0];
    const float one = 1, zero = 0;
    char *dw = op->workspace, *room = dw + b->dw_bytes;
    int rc = sac_cudnn_check(
        op->device,
        cudnnConvolutionBackwardFilter(stream->cudnn, &one, c->transposed ? c->y : c->x,
                                       image->data, c->transposed ? c->x : c->y, map->data, c->conv,
                                       (cudnnConvolutionBwdFilterAlgo_t)b->filter, room,
                                       b->filter_bytes, &zero, c->w, dw),
        op->name, err);

    return rc ? rc : add_filter(op, dw, stream, err);
}

static int conv_weights(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    int rc = op->weight_grad[0] ? filter_gradient(op, stream, err) : 0;

    return rc == 0 && op->weight_count > 1 ? sac_cuda_bias_back(op, op->weight_grad[1], stream, err)
                                           : rc;
}

const struct sac_cuda_backward sac_cuda_conv_back = {
    .name = "cuDNN",
    .can = conv_can,
    .query = conv_query,
    .prepare = conv_prepare,
    .data = conv_data,
    .weights = conv_weights,
    .free_state = back_free,
};
