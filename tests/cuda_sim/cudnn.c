/* cuDNN's convolution calls, as versions 8 and 9 have them. */
#include "conv.h"
#include "internal.h"

#include <cudnn.h>
#include <stdlib.h>
#include <string.h>

struct cudnnContext {
    struct sim_handle base;
};

struct cudnnTensorStruct {
    bool set;
    cudnnDataType_t type;
    int rank, dim[8], stride[8];
};

struct cudnnFilterStruct {
    bool set;
    cudnnDataType_t type;
    cudnnTensorFormat_t format;
    int dim[4];
};

struct cudnnConvolutionStruct {
    bool set;
    int pad[2], stride[2], dilation[2], group;
    cudnnConvolutionMode_t mode;
    cudnnDataType_t compute;
    cudnnMathType_t math;
};

struct cudnnActivationStruct {
    bool set;
    cudnnActivationMode_t mode;
    cudnnNanPropagation_t nan;
    double coef;
};

size_t cudnnGetVersion(void)
{
    return CUDNN_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    switch ((int)status) {
    case CUDNN_STATUS_SUCCESS:
        return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED:
        return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM:
        return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_ALLOC_FAILED:
        return "CUDNN_STATUS_ALLOC_FAILED";
    case CUDNN_STATUS_INTERNAL_ERROR:
        return "CUDNN_STATUS_INTERNAL_ERROR";
    case CUDNN_STATUS_EXECUTION_FAILED:
        return "CUDNN_STATUS_EXECUTION_FAILED";
    default:
        return "CUDNN_UNKNOWN_STATUS";
    }
}

/* Handles and descriptors. */

cudnnStatus_t cudnnCreate(cudnnHandle_t *ret)
{
    struct sim_handle *handle = ret ? sim_handle_new() : NULL;

    if (!ret)
        return CUDNN_STATUS_BAD_PARAM;
    *ret = (cudnnHandle_t)handle;
    return handle ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_INITIALIZED;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    if (!handle)
        return CUDNN_STATUS_BAD_PARAM;
    sim_handle_free("cudnnDestroy", &handle->base);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    if (!handle)
        return CUDNN_STATUS_BAD_PARAM;
    handle->base.stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *ret)
{
    if (!handle || !ret)
        return CUDNN_STATUS_BAD_PARAM;
    *ret = handle->base.stream;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t make(void **ret, size_t bytes)
{
    if (!ret)
        return CUDNN_STATUS_BAD_PARAM;
    *ret = sim_descriptor_new(bytes);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *ret)
{
    return make((void **)ret, sizeof **ret);
}

cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t t)
{
    sim_descriptor_free(t);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *ret)
{
    return make((void **)ret, sizeof **ret);
}

cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t w)
{
    sim_descriptor_free(w);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *ret)
{
    return make((void **)ret, sizeof **ret);
}

cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t conv)
{
    sim_descriptor_free(conv);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateActivationDescriptor(cudnnActivationDescriptor_t *ret)
{
    return make((void **)ret, sizeof **ret);
}

cudnnStatus_t cudnnDestroyActivationDescriptor(cudnnActivationDescriptor_t activation)
{
    sim_descriptor_free(activation);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t t, cudnnDataType_t type, int rank,
                                         const int dim[], const int stride[])
{
    if (!t || !dim || !stride)
        return CUDNN_STATUS_BAD_PARAM;
    if (rank < 4 || rank > CUDNN_DIM_MAX)
        return CUDNN_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < rank; i++)
        if (dim[i] < 1 || stride[i] < 1)
            return CUDNN_STATUS_BAD_PARAM;
    *t = (struct cudnnTensorStruct){.set = true, .type = type, .rank = rank};
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    memcpy(t->stride, stride, (size_t)rank * sizeof *stride);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetTensor4dDescriptorEx(cudnnTensorDescriptor_t t, cudnnDataType_t type, int n,
                                           int c, int h, int w, int n_stride, int c_stride,
                                           int h_stride, int w_stride)
{
    int dim[4] = {n, c, h, w}, stride[4] = {n_stride, c_stride, h_stride, w_stride};

    return cudnnSetTensorNdDescriptor(t, type, 4, dim, stride);
}

cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t t, cudnnTensorFormat_t format,
                                         cudnnDataType_t type, int n, int c, int h, int w)
{
    if (format == CUDNN_TENSOR_NHWC)
        return cudnnSetTensor4dDescriptorEx(t, type, n, c, h, w, h * w * c, 1, w * c, c);
    if (format == CUDNN_TENSOR_NCHW)
        return cudnnSetTensor4dDescriptorEx(t, type, n, c, h, w, c * h * w, h * w, w, 1);
    return CUDNN_STATUS_NOT_SUPPORTED;
}

cudnnStatus_t cudnnGetTensor4dDescriptor(const cudnnTensorDescriptor_t t, cudnnDataType_t *type,
                                         int *n, int *c, int *h, int *w, int *n_stride,
                                         int *c_stride, int *h_stride, int *w_stride)
{
    int *dim[4] = {n, c, h, w}, *stride[4] = {n_stride, c_stride, h_stride, w_stride};

    if (!t || !t->set || t->rank != 4)
        return CUDNN_STATUS_BAD_PARAM;
    *type = t->type;
    for (int i = 0; i < 4; i++) {
        *dim[i] = t->dim[i];
        *stride[i] = t->stride[i];
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t w, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int k, int c, int r, int s)
{
    if (!w || k < 1 || c < 1 || r < 1 || s < 1)
        return CUDNN_STATUS_BAD_PARAM;
    if (format != CUDNN_TENSOR_NCHW && format != CUDNN_TENSOR_NHWC)
        return CUDNN_STATUS_NOT_SUPPORTED;
    *w = (struct cudnnFilterStruct){true, type, format, {k, c, r, s}};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t w, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int rank, const int dim[])
{
    if (rank != 4)
        return CUDNN_STATUS_NOT_SUPPORTED;
    return cudnnSetFilter4dDescriptor(w, type, format, dim[0], dim[1], dim[2], dim[3]);
}

cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t conv, int pad_h,
                                              int pad_w, int u, int v, int dilation_h,
                                              int dilation_w, cudnnConvolutionMode_t mode,
                                              cudnnDataType_t compute)
{
    if (!conv || pad_h < 0 || pad_w < 0 || u < 1 || v < 1 || dilation_h < 1 || dilation_w < 1)
        return CUDNN_STATUS_BAD_PARAM;
    *conv = (struct cudnnConvolutionStruct){.set = true,
                                            .pad = {pad_h, pad_w},
                                            .stride = {u, v},
                                            .dilation = {dilation_h, dilation_w},
                                            .group = conv->group ? conv->group : 1,
                                            .mode = mode,
                                            .compute = compute,
                                            .math = conv->math};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t conv, int group)
{
    if (!conv || group < 1)
        return CUDNN_STATUS_BAD_PARAM;
    conv->group = group;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t conv, cudnnMathType_t math)
{
    if (!conv)
        return CUDNN_STATUS_BAD_PARAM;
    conv->math = math;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetActivationDescriptor(cudnnActivationDescriptor_t activation,
                                           cudnnActivationMode_t mode, cudnnNanPropagation_t nan,
                                           double coef)
{
    if (!activation)
        return CUDNN_STATUS_BAD_PARAM;
    *activation = (struct cudnnActivationStruct){true, mode, nan, coef};
    return CUDNN_STATUS_SUCCESS;
}

static int out_size(const struct cudnnConvolutionStruct *conv, int i, int in, int kernel)
{
    int span = conv->dilation[i] * (kernel - 1) + 1;

    return in + 2 * conv->pad[i] < span ? 0 : 1 + (in + 2 * conv->pad[i] - span) / conv->stride[i];
}

cudnnStatus_t cudnnGetConvolution2dForwardOutputDim(const cudnnConvolutionDescriptor_t conv,
                                                    const cudnnTensorDescriptor_t x,
                                                    const cudnnFilterDescriptor_t w, int *n, int *c,
                                                    int *h, int *width)
{
    if (!conv || !x || !w || !conv->set || !x->set || !w->set ||
        x->dim[1] != w->dim[1] * conv->group)
        return CUDNN_STATUS_BAD_PARAM;
    *n = x->dim[0];
    *c = w->dim[0];
    *h = out_size(conv, 0, x->dim[2], w->dim[2]);
    *width = out_size(conv, 1, x->dim[3], w->dim[3]);
    return CUDNN_STATUS_SUCCESS;
}

/* Descriptors to one problem. */

static bool type_of(cudnnDataType_t type, enum sim_type *ret)
{
    if (type == CUDNN_DATA_FLOAT)
        *ret = SIM_F32;
    else if (type == CUDNN_DATA_HALF)
        *ret = SIM_F16;
    else if (type == CUDNN_DATA_BFLOAT16 && sim_arch >= 80)
        *ret = SIM_BF16;
    else
        return false;
    return true;
}

static bool tensor_of(const struct cudnnTensorStruct *t, struct sim_tensor *ret)
{
    if (t->rank != 4 || !type_of(t->type, &ret->type))
        return false;
    for (int i = 0; i < 4; i++) {
        ret->dim[i] = t->dim[i];
        ret->stride[i] = t->stride[i];
    }
    return true;
}

static bool filter_of(const struct cudnnFilterStruct *w, struct sim_tensor *ret)
{
    const int *d = w->dim;

    memcpy(ret->dim, d, sizeof w->dim);
    ret->stride[0] = (long)d[1] * d[2] * d[3];
    ret->stride[1] = w->format == CUDNN_TENSOR_NHWC ? 1 : (long)d[2] * d[3];
    ret->stride[2] = w->format == CUDNN_TENSOR_NHWC ? (long)d[3] * d[1] : d[3];
    ret->stride[3] = w->format == CUDNN_TENSOR_NHWC ? d[1] : 1;
    return type_of(w->type, &ret->type);
}

static bool is_hwc_packed(const struct sim_tensor *t)
{
    long c = t->dim[1], w = t->dim[3];

    return (t->stride[1] == 1 || c == 1) && (t->stride[3] == c || w == 1) &&
           (t->stride[2] == c * w || t->dim[2] == 1);
}

static bool fits(const struct cudnnTensorStruct *x, const struct cudnnFilterStruct *w,
                 const struct cudnnConvolutionStruct *conv, const struct cudnnTensorStruct *y)
{
    return x->dim[0] == y->dim[0] && x->dim[1] == w->dim[1] * conv->group &&
           w->dim[0] % conv->group == 0 && y->dim[1] == w->dim[0] &&
           y->dim[2] == out_size(conv, 0, x->dim[2], w->dim[2]) &&
           y->dim[3] == out_size(conv, 1, x->dim[3], w->dim[3]);
}

static cudnnStatus_t problem(enum sim_pass pass, const struct cudnnTensorStruct *x,
                             const struct cudnnFilterStruct *w,
                             const struct cudnnConvolutionStruct *conv,
                             const struct cudnnTensorStruct *y, struct sim_conv *ret)
{
    *ret = (struct sim_conv){.pass = pass, .alpha = 1};
    if (!x || !w || !conv || !y || !x->set || !w->set || !conv->set || !y->set)
        return CUDNN_STATUS_BAD_PARAM;
    if (!tensor_of(x, &ret->x) || !filter_of(w, &ret->w) || !tensor_of(y, &ret->y) ||
        conv->compute != CUDNN_DATA_FLOAT)
        return CUDNN_STATUS_NOT_SUPPORTED;
    if (x->type != w->type || x->type != y->type || !fits(x, w, conv, y))
        return CUDNN_STATUS_BAD_PARAM;
    if (w->format == CUDNN_TENSOR_NHWC && (!is_hwc_packed(&ret->x) || !is_hwc_packed(&ret->y)))
        return CUDNN_STATUS_NOT_SUPPORTED;
    ret->group = conv->group;
    memcpy(ret->pad, conv->pad, sizeof ret->pad);
    memcpy(ret->stride, conv->stride, sizeof ret->stride);
    memcpy(ret->dilation, conv->dilation, sizeof ret->dilation);
    ret->flip = conv->mode == CUDNN_CONVOLUTION;
    ret->tf32 = ret->x.type == SIM_F32 && conv->math != CUDNN_FMA_MATH && sim_arch >= 80;
    return CUDNN_STATUS_SUCCESS;
}

/* Algorithms. What one needs and can do is made up, in the libraries' spirit:
 * there is one with no workspace, one with a little, and some with a lot that
 * take only some shapes. */

static size_t round_up(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static size_t patches_bytes(const struct sim_conv *p)
{
    return round_up((size_t)p->x.dim[1] * (size_t)p->w.dim[2] * (size_t)p->w.dim[3] *
                    (size_t)p->y.dim[2] * (size_t)p->y.dim[3] * sim_type_bytes(p->x.type));
}

static size_t table_bytes(const struct sim_conv *p)
{
    return round_up((size_t)p->w.dim[1] * (size_t)p->w.dim[2] * (size_t)p->w.dim[3] * 8);
}

static bool is_winograd(const struct sim_conv *p)
{
    return p->w.dim[2] == 3 && p->w.dim[3] == 3 && p->stride[0] == 1 && p->stride[1] == 1 &&
           p->dilation[0] == 1 && p->dilation[1] == 1 && p->group == 1 &&
           (p->w.stride[1] != 1 || p->w.dim[1] == 1);
}

static bool is_planar(const struct sim_conv *p)
{
    return p->w.stride[1] != 1 && p->group == 1;
}

static cudnnStatus_t forward_needs(const struct sim_conv *p, int algo, size_t *ret)
{
    bool good = true;

    *ret = 0;
    if (algo < 0 || algo >= CUDNN_CONVOLUTION_FWD_ALGO_COUNT)
        return CUDNN_STATUS_BAD_PARAM;
    if (algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM)
        *ret = table_bytes(p);
    else if (algo == CUDNN_CONVOLUTION_FWD_ALGO_GEMM && (good = is_planar(p)))
        *ret = patches_bytes(p);
    else if (algo == CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD)
        good = is_winograd(p);
    else if (algo == CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED && (good = is_winograd(p)))
        *ret = 4 * patches_bytes(p);
    else if (algo != CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM)
        good = false;
    return good ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

static cudnnStatus_t data_needs(const struct sim_conv *p, int algo, size_t *ret)
{
    *ret = 0;
    if (algo < 0 || algo >= CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT)
        return CUDNN_STATUS_BAD_PARAM;
    if (algo == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1)
        *ret = table_bytes(p);
    return algo == CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 || algo == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1
               ? CUDNN_STATUS_SUCCESS
               : CUDNN_STATUS_NOT_SUPPORTED;
}

static cudnnStatus_t filter_needs(const struct sim_conv *p, int algo, size_t *ret)
{
    *ret = 0;
    if (algo < 0 || algo >= CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT)
        return CUDNN_STATUS_BAD_PARAM;
    if (algo == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1)
        *ret = table_bytes(p);
    else if (algo == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3)
        *ret = patches_bytes(p);
    else if (algo != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0)
        return CUDNN_STATUS_NOT_SUPPORTED;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t needs(const struct sim_conv *p, int algo, size_t *ret)
{
    return p->pass == SIM_FORWARD         ? forward_needs(p, algo, ret)
           : p->pass == SIM_BACKWARD_DATA ? data_needs(p, algo, ret)
                                          : filter_needs(p, algo, ret);
}

/* One line of an answer, before it takes the shape of its pass. */
struct perf {
    int algo;
    cudnnStatus_t status;
    float time;
    size_t memory;
    cudnnDeterminism_t determinism;
    cudnnMathType_t math;
};

static bool is_deterministic(enum sim_pass pass, int algo)
{
    return pass == SIM_FORWARD ||
           (pass == SIM_BACKWARD_DATA ? algo != CUDNN_CONVOLUTION_BWD_DATA_ALGO_0
                                      : algo != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 &&
                                            algo != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3);
}

/* Best first: those that work and have their workspace, then the others. The
 * second of each pass (with a small workspace) is the best. */
static int rank_algos(const struct sim_conv *p, const struct cudnnConvolutionStruct *conv,
                      size_t workspace_bytes, struct perf perf[8])
{
    int counts[3] = {CUDNN_CONVOLUTION_FWD_ALGO_COUNT, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT,
                     CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT};
    int count = counts[p->pass], at = 0;

    for (int good = 1; good >= 0; good--)
        for (int i = 0; i < count; i++) {
            int algo = i < 2 ? 1 - i : i;
            size_t memory;
            cudnnStatus_t status = needs(p, algo, &memory);

            if (status == CUDNN_STATUS_SUCCESS && memory > workspace_bytes)
                status = CUDNN_STATUS_ALLOC_FAILED;
            if ((status == CUDNN_STATUS_SUCCESS) != good)
                continue;
            perf[at] = (struct perf){algo,
                                     status,
                                     good ? 0.1f * (float)(at + 1) : -1,
                                     memory,
                                     is_deterministic(p->pass, algo) ? CUDNN_DETERMINISTIC
                                                                     : CUDNN_NON_DETERMINISTIC,
                                     p->x.type == SIM_F32 ? conv->math : CUDNN_TENSOR_OP_MATH};
            at++;
        }
    return count;
}

/* The three kinds of answer have the same members. */
#define ANSWER(results, requested, returned, perf, count, algo_type)                               \
    do {                                                                                           \
        int most_ = (requested) < (count) ? (requested) : (count);                                 \
        for (int i_ = 0; i_ < most_; i_++) {                                                       \
            memset(&(results)[i_], 0, sizeof(results)[i_]);                                        \
            (results)[i_].algo = (algo_type)(perf)[i_].algo;                                       \
            (results)[i_].status = (perf)[i_].status;                                              \
            (results)[i_].time = (perf)[i_].time;                                                  \
            (results)[i_].memory = (perf)[i_].memory;                                              \
            (results)[i_].determinism = (perf)[i_].determinism;                                    \
            (results)[i_].mathType = (perf)[i_].math;                                              \
        }                                                                                          \
        *(returned) = most_;                                                                       \
    } while (0)

cudnnStatus_t cudnnGetConvolutionForwardAlgorithmMaxCount(cudnnHandle_t handle, int *count)
{
    (void)handle;
    *count = CUDNN_CONVOLUTION_FWD_ALGO_COUNT;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t x, const cudnnFilterDescriptor_t w,
    const cudnnConvolutionDescriptor_t conv, const cudnnTensorDescriptor_t y, const int requested,
    int *returned, cudnnConvolutionFwdAlgoPerf_t *results)
{
    struct sim_conv p;
    struct perf perf[8];
    cudnnStatus_t status = problem(SIM_FORWARD, x, w, conv, y, &p);

    if (!handle || requested < 1 || !returned || !results)
        return CUDNN_STATUS_BAD_PARAM;
    if (status == CUDNN_STATUS_SUCCESS) {
        int count = rank_algos(&p, conv, SIZE_MAX, perf);

        ANSWER(results, requested, returned, perf, count, cudnnConvolutionFwdAlgo_t);
    }
    return status;
}

cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(
    cudnnHandle_t handle, const cudnnFilterDescriptor_t w, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t conv, const cudnnTensorDescriptor_t dx, const int requested,
    int *returned, cudnnConvolutionBwdDataAlgoPerf_t *results)
{
    struct sim_conv p;
    struct perf perf[8];
    cudnnStatus_t status = problem(SIM_BACKWARD_DATA, dx, w, conv, dy, &p);

    if (!handle || requested < 1 || !returned || !results)
        return CUDNN_STATUS_BAD_PARAM;
    if (status == CUDNN_STATUS_SUCCESS) {
        int count = rank_algos(&p, conv, SIZE_MAX, perf);

        ANSWER(results, requested, returned, perf, count, cudnnConvolutionBwdDataAlgo_t);
    }
    return status;
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t x, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t conv, const cudnnFilterDescriptor_t dw, const int requested,
    int *returned, cudnnConvolutionBwdFilterAlgoPerf_t *results)
{
    struct sim_conv p;
    struct perf perf[8];
    cudnnStatus_t status = problem(SIM_BACKWARD_FILTER, x, dw, conv, dy, &p);

    if (!handle || requested < 1 || !returned || !results)
        return CUDNN_STATUS_BAD_PARAM;
    if (status == CUDNN_STATUS_SUCCESS) {
        int count = rank_algos(&p, conv, SIZE_MAX, perf);

        ANSWER(results, requested, returned, perf, count, cudnnConvolutionBwdFilterAlgo_t);
    }
    return status;
}

static cudnnStatus_t workspace_size(cudnnStatus_t status, const struct sim_conv *p, int algo,
                                    size_t *ret)
{
    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    return ret ? needs(p, algo, ret) : CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t handle,
                                                      const cudnnTensorDescriptor_t x,
                                                      const cudnnFilterDescriptor_t w,
                                                      const cudnnConvolutionDescriptor_t conv,
                                                      const cudnnTensorDescriptor_t y,
                                                      cudnnConvolutionFwdAlgo_t algo, size_t *ret)
{
    struct sim_conv p;

    (void)handle;
    return workspace_size(problem(SIM_FORWARD, x, w, conv, y, &p), &p, (int)algo, ret);
}

cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(
    cudnnHandle_t handle, const cudnnFilterDescriptor_t w, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t conv, const cudnnTensorDescriptor_t dx,
    cudnnConvolutionBwdDataAlgo_t algo, size_t *ret)
{
    struct sim_conv p;

    (void)handle;
    return workspace_size(problem(SIM_BACKWARD_DATA, dx, w, conv, dy, &p), &p, (int)algo, ret);
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t x, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t conv, const cudnnFilterDescriptor_t dw,
    cudnnConvolutionBwdFilterAlgo_t algo, size_t *ret)
{
    struct sim_conv p;

    (void)handle;
    return workspace_size(problem(SIM_BACKWARD_FILTER, x, dw, conv, dy, &p), &p, (int)algo, ret);
}

/* Work. */

static void run_conv(void *arg)
{
    sim_conv_run(arg);
}

static void touch(struct sim_op *op, const char *what, const void *data, const struct sim_tensor *t,
                  bool write)
{
    size_t dim[4], stride[4];

    for (int i = 0; i < 4; i++) {
        dim[i] = (size_t)t->dim[i];
        stride[i] = (size_t)t->stride[i];
    }
    if (data)
        op->access[op->accesses++] =
            sim_access_of(what, data, sim_type_bytes(t->type), 4, dim, stride, write);
}

static void touch_all(struct sim_op *op, const struct sim_conv *p)
{
    const struct sim_tensor bias = {p->y.type, {1, p->y.dim[1], 1, 1}, {p->y.dim[1], 1, 1, 1}};
    const struct sim_tensor *out = p->pass == SIM_FORWARD         ? &p->y
                                   : p->pass == SIM_BACKWARD_DATA ? &p->x
                                                                  : &p->w;

    touch(op, "x", p->in_x, &p->x, false);
    touch(op, "filter", p->in_w, &p->w, false);
    touch(op, "y", p->in_y, &p->y, false);
    touch(op, "bias", p->bias, &bias, false);
    touch(op, "z", p->beta != 0 ? p->data_z : NULL, &p->z, false);
    if (p->beta != 0 && !p->data_z)
        touch(op, "output", p->out, out, false);
    touch(op, "output", p->out, out, true);
    if (p->workspace_bytes > 0)
        op->access[op->accesses++] = (struct sim_access){
            .what = "workspace", .data = p->workspace, .run = p->workspace_bytes, .write = true};
}

/* The problem is complete but for the workspace. */
static cudnnStatus_t enqueue(const char *call, cudnnHandle_t handle, struct sim_conv *p, int algo,
                             void *workspace, size_t workspace_bytes)
{
    struct sim_op op = {.call = call, .run = run_conv, .free = free};
    cudnnStatus_t status = needs(p, algo, &p->workspace_bytes);
    cudaError_t error;

    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    if (!handle || !p->out || (p->pass != SIM_BACKWARD_DATA && !p->in_x) ||
        (p->pass != SIM_BACKWARD_FILTER && !p->in_w) || (p->pass != SIM_FORWARD && !p->in_y) ||
        p->workspace_bytes > workspace_bytes || (p->workspace_bytes > 0 && !workspace))
        return CUDNN_STATUS_BAD_PARAM;
    p->workspace = workspace;
    op.arg = malloc(sizeof *p);
    memcpy(op.arg, p, sizeof *p);
    touch_all(&op, p);
    error = sim_submit_for(&handle->base, &op);
    return error == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

static bool scales(struct sim_conv *p, const void *alpha, const void *beta)
{
    if (!alpha || !beta)
        return false;
    p->alpha = *(const float *)alpha;
    p->beta = *(const float *)beta;
    return true;
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void *alpha,
                                      const cudnnTensorDescriptor_t x_desc, const void *x,
                                      const cudnnFilterDescriptor_t w_desc, const void *w,
                                      const cudnnConvolutionDescriptor_t conv,
                                      cudnnConvolutionFwdAlgo_t algo, void *workspace,
                                      size_t workspace_bytes, const void *beta,
                                      const cudnnTensorDescriptor_t y_desc, void *y)
{
    struct sim_conv p;
    cudnnStatus_t status = problem(SIM_FORWARD, x_desc, w_desc, conv, y_desc, &p);

    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    if (!scales(&p, alpha, beta))
        return CUDNN_STATUS_BAD_PARAM;
    p.in_x = x;
    p.in_w = w;
    p.out = y;
    return enqueue("cudnnConvolutionForward", handle, &p, (int)algo, workspace, workspace_bytes);
}

static cudnnStatus_t fused_checks(const struct sim_conv *p, int algo,
                                  const struct cudnnTensorStruct *z,
                                  const struct cudnnTensorStruct *y,
                                  const struct cudnnTensorStruct *bias,
                                  const struct cudnnActivationStruct *activation)
{
    if (!z || !bias || !activation || !z->set || !bias->set || !activation->set)
        return CUDNN_STATUS_BAD_PARAM;
    if (bias->dim[0] != 1 || bias->dim[1] != p->y.dim[1] || bias->dim[2] != 1 ||
        bias->dim[3] != 1 || z->type != y->type || memcmp(z->dim, y->dim, sizeof z->dim) != 0)
        return CUDNN_STATUS_BAD_PARAM;
    if (bias->type != y->type || bias->stride[1] != 1 ||
        activation->nan != CUDNN_NOT_PROPAGATE_NAN ||
        (activation->mode != CUDNN_ACTIVATION_RELU &&
         activation->mode != CUDNN_ACTIVATION_IDENTITY))
        return CUDNN_STATUS_NOT_SUPPORTED;
    return activation->mode == CUDNN_ACTIVATION_IDENTITY &&
                   algo != CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM
               ? CUDNN_STATUS_NOT_SUPPORTED
               : CUDNN_STATUS_SUCCESS;
}

/* y = activation(alpha1 · conv(x) + alpha2 · z + bias); z may be y. */
cudnnStatus_t cudnnConvolutionBiasActivationForward(
    cudnnHandle_t handle, const void *alpha1, const cudnnTensorDescriptor_t x_desc, const void *x,
    const cudnnFilterDescriptor_t w_desc, const void *w, const cudnnConvolutionDescriptor_t conv,
    cudnnConvolutionFwdAlgo_t algo, void *workspace, size_t workspace_bytes, const void *alpha2,
    const cudnnTensorDescriptor_t z_desc, const void *z, const cudnnTensorDescriptor_t bias_desc,
    const void *bias, const cudnnActivationDescriptor_t activation,
    const cudnnTensorDescriptor_t y_desc, void *y)
{
    struct sim_conv p;
    cudnnStatus_t status = problem(SIM_FORWARD, x_desc, w_desc, conv, y_desc, &p);

    if (status == CUDNN_STATUS_SUCCESS)
        status = fused_checks(&p, (int)algo, z_desc, y_desc, bias_desc, activation);
    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    if (!scales(&p, alpha1, alpha2) || !bias || !z || x == y)
        return CUDNN_STATUS_BAD_PARAM;
    tensor_of(z_desc, &p.z);
    p.in_x = x;
    p.in_w = w;
    p.out = y;
    p.bias = bias;
    p.data_z = z;
    p.relu = activation->mode == CUDNN_ACTIVATION_RELU;
    return enqueue("cudnnConvolutionBiasActivationForward", handle, &p, (int)algo, workspace,
                   workspace_bytes);
}

cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void *alpha,
                                           const cudnnFilterDescriptor_t w_desc, const void *w,
                                           const cudnnTensorDescriptor_t dy_desc, const void *dy,
                                           const cudnnConvolutionDescriptor_t conv,
                                           cudnnConvolutionBwdDataAlgo_t algo, void *workspace,
                                           size_t workspace_bytes, const void *beta,
                                           const cudnnTensorDescriptor_t dx_desc, void *dx)
{
    struct sim_conv p;
    cudnnStatus_t status = problem(SIM_BACKWARD_DATA, dx_desc, w_desc, conv, dy_desc, &p);

    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    if (!scales(&p, alpha, beta))
        return CUDNN_STATUS_BAD_PARAM;
    p.in_w = w;
    p.in_y = dy;
    p.out = dx;
    return enqueue("cudnnConvolutionBackwardData", handle, &p, (int)algo, workspace,
                   workspace_bytes);
}

cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void *alpha,
                                             const cudnnTensorDescriptor_t x_desc, const void *x,
                                             const cudnnTensorDescriptor_t dy_desc, const void *dy,
                                             const cudnnConvolutionDescriptor_t conv,
                                             cudnnConvolutionBwdFilterAlgo_t algo, void *workspace,
                                             size_t workspace_bytes, const void *beta,
                                             const cudnnFilterDescriptor_t dw_desc, void *dw)
{
    struct sim_conv p;
    cudnnStatus_t status = problem(SIM_BACKWARD_FILTER, x_desc, dw_desc, conv, dy_desc, &p);

    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    if (!scales(&p, alpha, beta))
        return CUDNN_STATUS_BAD_PARAM;
    p.in_x = x;
    p.in_y = dy;
    p.out = dw;
    return enqueue("cudnnConvolutionBackwardFilter", handle, &p, (int)algo, workspace,
                   workspace_bytes);
}

/* Trying algorithms out runs them: the output is overwritten, the workspace is
 * used, and the host waits. */
cudnnStatus_t cudnnFindConvolutionForwardAlgorithmEx(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t x_desc, const void *x,
    const cudnnFilterDescriptor_t w_desc, const void *w, const cudnnConvolutionDescriptor_t conv,
    const cudnnTensorDescriptor_t y_desc, void *y, const int requested, int *returned,
    cudnnConvolutionFwdAlgoPerf_t *results, void *workspace, size_t workspace_bytes)
{
    const float one = 1, zero = 0;
    struct sim_conv p;
    struct perf perf[8];
    int count;
    cudnnStatus_t status = problem(SIM_FORWARD, x_desc, w_desc, conv, y_desc, &p);

    if (status != CUDNN_STATUS_SUCCESS)
        return status;
    if (!handle || requested < 1 || !returned || !results)
        return CUDNN_STATUS_BAD_PARAM;
    count = rank_algos(&p, conv, workspace ? workspace_bytes : 0, perf);
    status = cudnnConvolutionForward(handle, &one, x_desc, x, w_desc, w, conv,
                                     (cudnnConvolutionFwdAlgo_t)perf[0].algo, workspace,
                                     workspace_bytes, &zero, y_desc, y);
    if (status == CUDNN_STATUS_SUCCESS && cudaStreamSynchronize(handle->base.stream) != cudaSuccess)
        status = CUDNN_STATUS_EXECUTION_FAILED;
    if (status == CUDNN_STATUS_SUCCESS)
        ANSWER(results, requested, returned, perf, count, cudnnConvolutionFwdAlgo_t);
    return status;
}
