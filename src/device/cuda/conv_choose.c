/* Which of cuDNN's algorithms: the fastest for the shape, with its bias, sum and ReLU. */
#include <stdio.h>
#include <stdlib.h>

#include "device/cuda/algorithms.h"
#include "device/cuda/conv.h"
#include "device/cuda/tune.h"
#include "kernels/kernels.h"

static const size_t workspace_max = (size_t)256 << 20;
enum { ANSWERS = 8, TRIED = 3, APART = 0x100 }; /* APART marks a remembered algorithm */

static const struct sac_shape *shape_of(const struct sac_cuda_ask *ask, int value)
{
    return &ask->graph->values[value].shape;
}

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

/* The math that an answer was measured with; plain fp32 keeps what was asked. */
static bool adopt(const struct sac_cuda_ask *ask, struct conv *c, int algorithm, int math)
{
    if (ask->options->precision == SAC_PRECISION_F32)
        math = (int)sac_cuda_conv_math(SAC_PRECISION_F32);
    c->algorithm = algorithm;
    return cudnnSetConvolutionMathType(c->conv, (cudnnMathType_t)math) == CUDNN_STATUS_SUCCESS &&
           ask_workspace(ask->device->cudnn, c, algorithm, &c->workspace_bytes) &&
           c->workspace_bytes <= workspace_max;
}

/* ---- What cuDNN expects, without trying ----------------------------------- */

static bool guess_backward(const struct sac_cuda_ask *ask, struct conv *c, int *ret_math)
{
    cudnnConvolutionBwdDataAlgoPerf_t answers[ANSWERS];
    int count = 0;

    if (cudnnGetConvolutionBackwardDataAlgorithm_v7(ask->device->cudnn, c->w, c->x, c->conv, c->y,
                                                    ANSWERS, &count,
                                                    answers) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int i = 0; i < count; i++) {
        *ret_math = (int)answers[i].mathType;
        if (answers[i].status == CUDNN_STATUS_SUCCESS &&
            adopt(ask, c, (int)answers[i].algo, *ret_math))
            return true;
    }
    return false;
}

/* The same bits each time are asked of some. */
static bool may_take(const struct sac_cuda_ask *ask, const cudnnConvolutionFwdAlgoPerf_t *answer)
{
    return answer->status == CUDNN_STATUS_SUCCESS && answer->memory <= workspace_max &&
           ((!ask->options->deterministic && !ask->options->repeats) ||
            answer->determinism == CUDNN_DETERMINISTIC);
}

static bool take_first(const struct sac_cuda_ask *ask, struct conv *c,
                       const cudnnConvolutionFwdAlgoPerf_t *answers, int count, int *ret_math)
{
    for (int i = 0; i < count; i++) {
        *ret_math = (int)answers[i].mathType;
        if (may_take(ask, &answers[i]) && adopt(ask, c, (int)answers[i].algo, *ret_math))
            return true;
    }
    return false;
}

static bool guess_forward(const struct sac_cuda_ask *ask, struct conv *c, int *ret_math)
{
    cudnnConvolutionFwdAlgoPerf_t answers[ANSWERS];
    int count = 0;

    return cudnnGetConvolutionForwardAlgorithm_v7(ask->device->cudnn, c->x, c->w, c->conv, c->y,
                                                  ANSWERS, &count,
                                                  answers) == CUDNN_STATUS_SUCCESS &&
           take_first(ask, c, answers, count, ret_math);
}

/* ---- Trials --------------------------------------------------------------- */

struct trial {
    const struct sac_cuda_ask *ask;
    struct conv *conv;
    char *x, *y, *filter, *bias, *workspace;
    size_t room;
};

static size_t padded_bytes(const struct sac_shape *shape, enum sac_type type)
{
    return (sac_tensor_bytes(shape, type) + 255) & ~(size_t)255;
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

/* Memory that is given back; false where there is too little. */
static bool begin(struct trial *t, const struct sac_cuda_ask *ask, struct conv *c)
{
    const struct sac_shape *y = shape_of(ask, ask->node->dst[0]);
    const struct sac_shape bias = {1, {y->dim[1]}};
    size_t x_bytes = padded_bytes(shape_of(ask, ask->node->src[0]), ask->type);
    size_t y_bytes = padded_bytes(y, ask->type), bias_bytes = padded_bytes(&bias, SAC_F32);
    size_t w_bytes = padded_bytes(&ask->graph->constants[ask->node->weight[0]].shape, ask->type);
    size_t room = workspace_for_trials(ask->device->cudnn, c);
    char *memory =
        sac_cuda_trial_memory(ask->device, x_bytes + y_bytes + w_bytes + bias_bytes + room);

    if (!memory)
        return false;
    *t = (struct trial){ask, c, .x = memory, .room = room};
    t->y = t->x + x_bytes;
    t->filter = t->y + y_bytes;
    t->bias = t->filter + w_bytes;
    t->workspace = t->bias + bias_bytes;
    return true;
}

static bool enqueue_apart(const struct trial *t)
{
    const struct conv *c = t->conv;
    const struct sac_node *node = t->ask->node;
    const struct sac_shape *y = shape_of(t->ask, node->dst[0]);
    const float one = 1, zero = 0;
    struct sac_kernel_map map = {
        .map = SAC_MAP_LINEAR,
        .x = t->y,
        .y = t->y,
        .sum = node->epilogue.sum >= 0 ? t->y : NULL,
        .type = (int)t->ask->type,
        .count = (uint32_t)sac_shape_count(y),
        .factor_type = SAC_F32,
        .bias = node->weight_count > 1 ? (const float *)t->bias : NULL,
        .inner = 1,
        .factors = (uint32_t)y->dim[1],
        .relu = node->epilogue.relu,
        .slope = node->epilogue.slope,
    };

    if (cudnnConvolutionForward(t->ask->device->cudnn, &one, c->x, t->x, c->w, t->filter, c->conv,
                                (cudnnConvolutionFwdAlgo_t)c->algorithm, t->workspace,
                                c->workspace_bytes, &zero, c->y, t->y) != CUDNN_STATUS_SUCCESS)
        return false;
    return (!map.bias && !map.sum && !map.relu) ||
           sac_kernel_map(&map, t->ask->device->stream) == cudaSuccess;
}

static bool enqueue(void *user)
{
    const struct trial *t = user;
    const struct conv *c = t->conv;
    const float one = 1, other = t->ask->node->epilogue.sum >= 0 ? 1 : 0;

    if (c->apart)
        return enqueue_apart(t);
    return cudnnConvolutionBiasActivationForward(
               t->ask->device->cudnn, &one, c->x, t->x, c->w, t->filter, c->conv,
               (cudnnConvolutionFwdAlgo_t)c->algorithm, t->workspace, c->workspace_bytes, &other,
               c->y, t->y, c->bias, t->bias, c->activation, c->y, t->y) == CUDNN_STATUS_SUCCESS;
}

/* The best of the first few answers, each fused and apart; some are not to be had fused. */
static float try_answers(struct trial *t, const cudnnConvolutionFwdAlgoPerf_t *answers, int count,
                         int *ret_math)
{
    struct conv *c = t->conv;
    bool always_apart = c->apart, best_apart = c->apart;
    int best = -1, tried = 0;
    float least = -1;

    for (int i = 0; i < count && tried < TRIED; i++) {
        if (!may_take(t->ask, &answers[i]) ||
            !adopt(t->ask, c, (int)answers[i].algo, (int)answers[i].mathType))
            continue;
        tried++;
        for (int apart = always_apart; apart < 2; apart++) {
            c->apart = apart;
            float ms = sac_cuda_time(t->ask->device, enqueue, t);
            if (ms < 0 || (least >= 0 && ms >= least))
                continue;
            least = ms;
            best = i;
            best_apart = c->apart;
        }
    }
    c->apart = best_apart;
    if (best < 0)
        return -1;
    *ret_math = (int)answers[best].mathType;
    return adopt(t->ask, c, (int)answers[best].algo, *ret_math) ? least : -1;
}

static bool measure(const struct sac_cuda_ask *ask, struct conv *c, int *ret_math)
{
    cudnnConvolutionFwdAlgoPerf_t answers[ANSWERS];
    struct trial t;
    int count = 0;

    if (!begin(&t, ask, c))
        return false;
    bool found = cudnnFindConvolutionForwardAlgorithmEx(
                     ask->device->cudnn, c->x, t.x, c->w, t.filter, c->conv, c->y, t.y, ANSWERS,
                     &count, answers, t.workspace, t.room) == CUDNN_STATUS_SUCCESS &&
                 try_answers(&t, answers, count, ret_math) >= 0;
    sac_cuda_trial_free(ask->device, t.x);
    return found;
}

/* ---- The choice ----------------------------------------------------------- */

/* The algorithm's choice depends on the epilogue too. */
static void name_question(const struct sac_cuda_ask *ask, const struct conv *c, char *text,
                          size_t size)
{
    const struct sac_epilogue *epilogue = &ask->node->epilogue;
    char conv[160];

    sac_cuda_conv_question(ask, conv, sizeof conv);
    snprintf(text, size, "%s%s%s%s%s", conv, ask->node->weight_count > 1 ? " bias" : "",
             epilogue->sum >= 0 ? " sum" : "", epilogue->relu ? " relu" : "",
             c->apart ? " apart" : "");
}

/* One that was remembered counts only while cuDNN still takes it. */
static bool remembered(const struct sac_cuda_ask *ask, struct conv *c, const char *question)
{
    struct sac_algorithm answer;

    if (!sac_algorithms_find(ask->device->algorithms, question, &answer) ||
        !adopt(ask, c, answer.algorithm & ~APART, answer.math))
        return false;
    c->apart |= (answer.algorithm & APART) != 0;
    return true;
}

/* For the next asking too, which must not find another one: its workspace is planned by
 * what the first found. */
static bool remember(const struct sac_cuda_ask *ask, struct conv *c, const char *question,
                     bool measured, int math)
{
    const struct sac_algorithm found = {c->algorithm | (c->apart ? APART : 0), math};
    struct sac_algorithm stands = found;

    sac_algorithms_add(ask->device->algorithms, question, measured, &stands);
    if (stands.algorithm == found.algorithm && stands.math == found.math)
        return true;
    c->apart = (stands.algorithm & APART) != 0 || c->never_fused;
    return adopt(ask, c, stands.algorithm & ~APART, stands.math);
}

/* Under the device's lock. */
static bool find_algorithm(const struct sac_cuda_ask *ask, struct conv *c)
{
    /* What was measured may differ next time, and a run that goes on with it. */
    bool same = sac_op_repeats(ask->options);
    bool measured = sac_cuda_may_measure_for(ask->options) && !c->transposed;
    int math = 0;
    char question[192];

    name_question(ask, c, question, sizeof question);
    if (!same && remembered(ask, c, question))
        return true;
    cudnnSetConvolutionMathType(c->conv, sac_cuda_conv_math(ask->options->precision));
    measured = measured && measure(ask, c, &math);
    if (!measured &&
        !(c->transposed ? guess_backward(ask, c, &math) : guess_forward(ask, c, &math)))
        return false;
    if (ask->options->precision == SAC_PRECISION_F32)
        math = (int)sac_cuda_conv_math(SAC_PRECISION_F32);
    if (!measured) /* by its manual cuDNN fuses no ReLU with one algorithm only */
        c->apart |= !ask->node->epilogue.relu &&
                    c->algorithm != (int)CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    return same || ask->options->sketch || remember(ask, c, question, measured, math);
}

/* cuDNN tells whether it takes the geometry. */
static bool has_output_of(const struct conv *c, const struct sac_shape *y)
{
    int n, channels, height, width;

    if (c->transposed)
        return true;
    return cudnnGetConvolution2dForwardOutputDim(c->conv, c->x, c->w, &n, &channels, &height,
                                                 &width) == CUDNN_STATUS_SUCCESS &&
           n * c->pictures == y->dim[0] && channels == y->dim[1] && height == y->dim[2] &&
           width == y->dim[3];
}

bool sac_cuda_conv_make(struct conv *c, const struct sac_cuda_ask *ask)
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

float sac_cuda_conv_ms(const struct sac_cuda_ask *ask)
{
    struct conv c = {0};
    struct trial t;
    float ms = -1;

    if (sac_cuda_conv_make(&c, ask)) {
        pthread_mutex_lock(&ask->device->lock);
        if (begin(&t, ask, &c)) {
            ms = sac_cuda_time(ask->device, enqueue, &t);
            sac_cuda_trial_free(ask->device, t.x);
        }
        pthread_mutex_unlock(&ask->device->lock);
    }
    sac_cuda_conv_done(&c);
    return ms;
}
