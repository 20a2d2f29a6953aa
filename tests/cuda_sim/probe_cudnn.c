/* cuDNN: convolutions forward, fused and back, channels last, as src/device/cuda asks. */
#include <stdio.h>
#include <string.h>

#include <cudnn.h>

#include "cuda_sim/probe.h"

enum { ANSWERS = 8, WORKSPACE = 32 << 20 };

/* cuDNN 9 tells more than 8: what both tell. */
static const char *status_of(cudnnStatus_t status)
{
    int code = (int)status;

    if (code == 0)
        return "success";
    if (code == (int)CUDNN_STATUS_BAD_PARAM || code / 1000 == 2)
        return "bad parameter";
    if (code == (int)CUDNN_STATUS_NOT_SUPPORTED || code / 1000 == 3)
        return "not supported";
    return "another";
}

struct geometry {
    const char *name;
    int n, c, h, w, k, kernel, stride, pad, dilation, group;
};

static const struct geometry geometries[] = {
    {"1x1", 2, 16, 6, 5, 32, 1, 1, 0, 1, 1},
    {"3x3", 2, 8, 7, 7, 16, 3, 1, 1, 1, 1},
    {"7x7/2 of 3", 1, 3, 17, 15, 8, 7, 2, 3, 1, 1},
    {"7x7/2 of 4", 1, 4, 17, 15, 8, 7, 2, 3, 1, 1},
    {"5x5 in 2 groups", 2, 16, 9, 9, 16, 5, 1, 2, 1, 2},
    {"3x3 dilated", 1, 8, 9, 9, 8, 3, 1, 2, 2, 1},
};

static int out_of(int in, const struct geometry *g)
{
    return (in + 2 * g->pad - g->dilation * (g->kernel - 1) - 1) / g->stride + 1;
}

struct problem {
    const struct geometry *g;
    enum probe_type type;
    char name[64];
    cudnnHandle_t handle;
    cudnnTensorDescriptor_t x, y, bias;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t conv;
    cudnnActivationDescriptor_t activation;
    size_t counts[3]; /* of x, w, y */
    void *data[3], *bias_data, *workspace;
};

static void create(struct problem *p)
{
    probe_must("cudnnCreate", status_of(cudnnCreate(&p->handle)), "%s", p->name);
    probe_must("cudnnCreateTensorDescriptor", status_of(cudnnCreateTensorDescriptor(&p->x)), "%s",
               p->name);
    PROBE_NEED(cudnnCreateTensorDescriptor(&p->y));
    PROBE_NEED(cudnnCreateTensorDescriptor(&p->bias));
    probe_must("cudnnCreateFilterDescriptor", status_of(cudnnCreateFilterDescriptor(&p->w)), "%s",
               p->name);
    probe_must("cudnnCreateConvolutionDescriptor",
               status_of(cudnnCreateConvolutionDescriptor(&p->conv)), "%s", p->name);
    probe_must("cudnnCreateActivationDescriptor",
               status_of(cudnnCreateActivationDescriptor(&p->activation)), "%s", p->name);
}

static void describe(struct problem *p, bool tf32)
{
    const struct geometry *g = p->g;
    cudnnDataType_t type = p->type == PROBE_F32   ? CUDNN_DATA_FLOAT
                           : p->type == PROBE_F16 ? CUDNN_DATA_HALF
                                                  : CUDNN_DATA_BFLOAT16;
    cudnnMathType_t math = p->type != PROBE_F32 ? CUDNN_TENSOR_OP_MATH
                           : tf32               ? CUDNN_DEFAULT_MATH
                                                : CUDNN_FMA_MATH;

    probe_must("cudnnSetTensor4dDescriptor",
               status_of(cudnnSetTensor4dDescriptor(p->x, CUDNN_TENSOR_NHWC, type, g->n, g->c, g->h,
                                                    g->w)),
               "%s", p->name);
    PROBE_NEED(cudnnSetTensor4dDescriptor(p->y, CUDNN_TENSOR_NHWC, type, g->n, g->k,
                                          out_of(g->h, g), out_of(g->w, g)));
    PROBE_NEED(cudnnSetTensor4dDescriptor(p->bias, CUDNN_TENSOR_NHWC, type, 1, g->k, 1, 1));
    probe_must("cudnnSetFilter4dDescriptor",
               status_of(cudnnSetFilter4dDescriptor(p->w, type, CUDNN_TENSOR_NHWC, g->k,
                                                    g->c / g->group, g->kernel, g->kernel)),
               "%s", p->name);
    probe_must("cudnnSetConvolution2dDescriptor",
               status_of(cudnnSetConvolution2dDescriptor(
                   p->conv, g->pad, g->pad, g->stride, g->stride, g->dilation, g->dilation,
                   CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT)),
               "%s", p->name);
    probe_must("cudnnSetConvolutionGroupCount",
               status_of(cudnnSetConvolutionGroupCount(p->conv, g->group)), "%s", p->name);
    probe_must("cudnnSetConvolutionMathType", status_of(cudnnSetConvolutionMathType(p->conv, math)),
               "%s", p->name);
}

static void fill(struct problem *p)
{
    const struct geometry *g = p->g;

    p->counts[0] = (size_t)(g->n * g->c * g->h * g->w);
    p->counts[1] = (size_t)(g->k * (g->c / g->group) * g->kernel * g->kernel);
    p->counts[2] = (size_t)(g->n * g->k * out_of(g->h, g) * out_of(g->w, g));
    for (unsigned i = 0; i < 3; i++)
        p->data[i] = probe_numbers(p->type, i + 10, p->counts[i]);
    p->bias_data = probe_numbers(p->type, 20, (size_t)g->k);
    p->workspace = probe_bytes(WORKSPACE);
}

static void refill(struct problem *p, unsigned i)
{
    PROBE_NEED(cudaFree(p->data[i]));
    p->data[i] = probe_numbers(p->type, i + 10, p->counts[i]);
}

static void destroy(struct problem *p)
{
    for (int i = 0; i < 3; i++)
        PROBE_NEED(cudaFree(p->data[i]));
    PROBE_NEED(cudaFree(p->bias_data));
    PROBE_NEED(cudaFree(p->workspace));
    probe_must("cudnnDestroyTensorDescriptor", status_of(cudnnDestroyTensorDescriptor(p->x)), "%s",
               p->name);
    PROBE_NEED(cudnnDestroyTensorDescriptor(p->y));
    PROBE_NEED(cudnnDestroyTensorDescriptor(p->bias));
    probe_must("cudnnDestroyFilterDescriptor", status_of(cudnnDestroyFilterDescriptor(p->w)), "%s",
               p->name);
    probe_must("cudnnDestroyConvolutionDescriptor",
               status_of(cudnnDestroyConvolutionDescriptor(p->conv)), "%s", p->name);
    probe_must("cudnnDestroyActivationDescriptor",
               status_of(cudnnDestroyActivationDescriptor(p->activation)), "%s", p->name);
    probe_must("cudnnDestroy", status_of(cudnnDestroy(p->handle)), "%s", p->name);
}

/* ---- Forward -------------------------------------------------------------- */

static double tolerance_of(const struct problem *p)
{
    return p->type == PROBE_F32 ? 1e-4 : p->type == PROBE_F16 ? 2e-3 : 1e-2;
}

static cudnnStatus_t run(struct problem *p, int algorithm)
{
    const float one = 1, zero = 0;

    return cudnnConvolutionForward(p->handle, &one, p->x, p->data[0], p->w, p->data[1], p->conv,
                                   (cudnnConvolutionFwdAlgo_t)algorithm, p->workspace, WORKSPACE,
                                   &zero, p->y, p->data[2]);
}

static void sizes(struct problem *p)
{
    const struct geometry *g = p->g;
    int n = 0, c = 0, h = 0, w = 0;
    cudnnStatus_t status =
        cudnnGetConvolution2dForwardOutputDim(p->conv, p->x, p->w, &n, &c, &h, &w);
    bool same = n == g->n && c == g->k && h == out_of(g->h, g) && w == out_of(g->w, g);

    probe_must("cudnnGetConvolution2dForwardOutputDim", same ? status_of(status) : "other sizes",
               "%s", p->name);
}

/* Which there are differs from card to card; what they compute does not. */
static void each_algorithm(struct problem *p)
{
    for (int i = 0; i < CUDNN_CONVOLUTION_FWD_ALGO_COUNT; i++) {
        size_t bytes = 0;
        cudnnStatus_t asked = cudnnGetConvolutionForwardWorkspaceSize(
            p->handle, p->x, p->w, p->conv, p->y, (cudnnConvolutionFwdAlgo_t)i, &bytes);
        probe_note("cudnnGetConvolutionForwardWorkspaceSize", status_of(asked),
                   "%s, algorithm %d: %zu bytes", p->name, i, bytes);
        if (asked == CUDNN_STATUS_SUCCESS && bytes <= WORKSPACE)
            probe_note("cudnnConvolutionForward", status_of(run(p, i)), "%s, algorithm %d", p->name,
                       i);
    }
}

static int found(struct problem *p)
{
    cudnnConvolutionFwdAlgoPerf_t answers[ANSWERS];
    size_t bytes = 0;
    int count = 0;
    cudnnStatus_t status = cudnnGetConvolutionForwardAlgorithm_v7(p->handle, p->x, p->w, p->conv,
                                                                  p->y, ANSWERS, &count, answers);

    probe_must("cudnnGetConvolutionForwardAlgorithm_v7", count > 0 ? status_of(status) : "none",
               "%s", p->name);
    status = cudnnFindConvolutionForwardAlgorithmEx(p->handle, p->x, p->data[0], p->w, p->data[1],
                                                    p->conv, p->y, p->data[2], ANSWERS, &count,
                                                    answers, p->workspace, WORKSPACE);
    probe_must("cudnnFindConvolutionForwardAlgorithmEx",
               count > 0 && status == CUDNN_STATUS_SUCCESS ? status_of(answers[0].status) : "none",
               "%s", p->name);
    if (count == 0 || status != CUDNN_STATUS_SUCCESS)
        return -1;
    for (int i = 0; i < count; i++)
        probe_note("cudnnFindConvolutionForwardAlgorithmEx", status_of(answers[i].status),
                   "%s: algorithm %d, math %d, %zu bytes, %.4f ms", p->name, (int)answers[i].algo,
                   (int)answers[i].mathType, answers[i].memory, (double)answers[i].time);
    PROBE_NEED(cudnnSetConvolutionMathType(p->conv, answers[0].mathType));
    status = cudnnGetConvolutionForwardWorkspaceSize(p->handle, p->x, p->w, p->conv, p->y,
                                                     answers[0].algo, &bytes);
    probe_must("cudnnGetConvolutionForwardWorkspaceSize",
               bytes <= WORKSPACE ? status_of(status) : "more", "%s, the best", p->name);
    return (int)answers[0].algo;
}

static cudnnStatus_t fuse(struct problem *p, int algorithm, bool relu, bool sum)
{
    const float one = 1, other = sum ? 1 : 0;

    probe_must("cudnnSetActivationDescriptor",
               status_of(cudnnSetActivationDescriptor(
                   p->activation, relu ? CUDNN_ACTIVATION_RELU : CUDNN_ACTIVATION_IDENTITY,
                   CUDNN_NOT_PROPAGATE_NAN, 0)),
               "%s", p->name);
    return cudnnConvolutionBiasActivationForward(
        p->handle, &one, p->x, p->data[0], p->w, p->data[1], p->conv,
        (cudnnConvolutionFwdAlgo_t)algorithm, p->workspace, WORKSPACE, &other, p->y, p->data[2],
        p->bias, p->bias_data, p->activation, p->y, p->data[2]);
}

/* The best algorithm may refuse an epilogue: the device then adds it apart. */
static void fused(struct problem *p, int best)
{
    static const char *const names[] = {"bias", "bias, sum", "bias, relu", "bias, sum, relu"};
    const int general = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    char name[96];

    for (int i = 0; i < 4; i++) {
        refill(p, 2);
        probe_note("cudnnConvolutionBiasActivationForward", status_of(fuse(p, best, i & 2, i & 1)),
                   "%s: %s, the best", p->name, names[i]);
        PROBE_NEED(cudaDeviceSynchronize());
        refill(p, 2);
        cudnnStatus_t status = fuse(p, general, i & 2, i & 1);
        snprintf(name, sizeof name, "%s: %s", p->name, names[i]);
        probe_result("cudnnConvolutionBiasActivationForward", name, status_of(status), p->data[2],
                     p->type, p->counts[2], tolerance_of(p));
    }
}

/* ---- Back ----------------------------------------------------------------- */

static void back_to_source(struct problem *p)
{
    const float one = 1, zero = 0;
    cudnnConvolutionBwdDataAlgoPerf_t answers[ANSWERS];
    size_t bytes = 0;
    int count = 0;
    cudnnStatus_t status = cudnnGetConvolutionBackwardDataAlgorithm_v7(
        p->handle, p->w, p->y, p->conv, p->x, ANSWERS, &count, answers);

    probe_must("cudnnGetConvolutionBackwardDataAlgorithm_v7",
               count > 0 ? status_of(status) : "none", "%s", p->name);
    if (count == 0 || status != CUDNN_STATUS_SUCCESS)
        return;
    PROBE_NEED(cudnnSetConvolutionMathType(p->conv, answers[0].mathType));
    status = cudnnGetConvolutionBackwardDataWorkspaceSize(p->handle, p->w, p->y, p->conv, p->x,
                                                          answers[0].algo, &bytes);
    probe_must("cudnnGetConvolutionBackwardDataWorkspaceSize",
               bytes <= WORKSPACE ? status_of(status) : "more", "%s, the best", p->name);
    refill(p, 2);
    status = cudnnConvolutionBackwardData(p->handle, &one, p->w, p->data[1], p->y, p->data[2],
                                          p->conv, answers[0].algo, p->workspace, WORKSPACE, &zero,
                                          p->x, p->data[0]);
    probe_result("cudnnConvolutionBackwardData", p->name, status_of(status), p->data[0], p->type,
                 p->counts[0], 2 * tolerance_of(p));
    refill(p, 0);
}

static void back_to_weights(struct problem *p)
{
    const float one = 1, zero = 0;
    cudnnConvolutionBwdFilterAlgoPerf_t answers[ANSWERS];
    size_t bytes = 0;
    int count = 0;
    cudnnStatus_t status = cudnnGetConvolutionBackwardFilterAlgorithm_v7(
        p->handle, p->x, p->y, p->conv, p->w, ANSWERS, &count, answers);

    probe_must("cudnnGetConvolutionBackwardFilterAlgorithm_v7",
               count > 0 ? status_of(status) : "none", "%s", p->name);
    if (count == 0 || status != CUDNN_STATUS_SUCCESS)
        return;
    PROBE_NEED(cudnnSetConvolutionMathType(p->conv, answers[0].mathType));
    status = cudnnGetConvolutionBackwardFilterWorkspaceSize(p->handle, p->x, p->y, p->conv, p->w,
                                                            answers[0].algo, &bytes);
    probe_must("cudnnGetConvolutionBackwardFilterWorkspaceSize",
               bytes <= WORKSPACE ? status_of(status) : "more", "%s, the best", p->name);
    status = cudnnConvolutionBackwardFilter(p->handle, &one, p->x, p->data[0], p->y, p->data[2],
                                            p->conv, answers[0].algo, p->workspace, WORKSPACE,
                                            &zero, p->w, p->data[1]);
    probe_result("cudnnConvolutionBackwardFilter", p->name, status_of(status), p->data[1], p->type,
                 p->counts[1], 4 * tolerance_of(p));
}

/* ---- All ------------------------------------------------------------------ */

static void refusal(struct problem *p)
{
    size_t bytes;

    PROBE_NEED(cudnnSetTensor4dDescriptor(p->y, CUDNN_TENSOR_NHWC,
                                          p->type == PROBE_F32 ? CUDNN_DATA_FLOAT : CUDNN_DATA_HALF,
                                          p->g->n, p->g->k + 1, 1, 1));
    probe_must("cudnnGetConvolutionForwardWorkspaceSize",
               status_of(cudnnGetConvolutionForwardWorkspaceSize(
                   p->handle, p->x, p->w, p->conv, p->y, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
                   &bytes)),
               "%s to other sizes", p->name);
    probe_must("cudnnGetErrorString",
               cudnnGetErrorString(CUDNN_STATUS_NOT_SUPPORTED)[0] ? "text" : "", "%s", p->name);
}

static void probe(const struct geometry *g, enum probe_type type, bool tf32, cudaStream_t stream)
{
    struct problem p = {.g = g, .type = type};

    snprintf(p.name, sizeof p.name, "%s %s", tf32 ? "tf32" : probe_type_name(type), g->name);
    create(&p);
    probe_must("cudnnSetStream", status_of(cudnnSetStream(p.handle, stream)), "%s", p.name);
    describe(&p, tf32);
    fill(&p);
    PROBE_NEED(cudaDeviceSynchronize());
    sizes(&p);
    each_algorithm(&p);
    int best = found(&p);
    if (best >= 0) {
        cudnnStatus_t status = run(&p, best);
        probe_result("cudnnConvolutionForward", p.name, status_of(status), p.data[2], p.type,
                     p.counts[2], tolerance_of(&p));
        fused(&p, best);
    }
    back_to_source(&p);
    back_to_weights(&p);
    PROBE_NEED(cudaDeviceSynchronize());
    refusal(&p);
    destroy(&p);
}

void probe_cudnn(void)
{
    cudaStream_t stream;

    probe_must("cudnnGetVersion", cudnnGetVersion() / 1000 >= 8 ? "8 or later" : "older", "asked");
    probe_note("cudnnGetVersion", "success", "%zu", cudnnGetVersion());
    PROBE_NEED(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0));
    for (size_t i = 0; i < sizeof geometries / sizeof *geometries; i++) {
        for (int type = 0; type < PROBE_TYPES; type++)
            probe(&geometries[i], (enum probe_type)type, false, stream);
        probe(&geometries[i], PROBE_F32, true, stream);
    }
    PROBE_NEED(cudaStreamDestroy(stream));
}
