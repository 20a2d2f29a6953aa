/*
 * Convolutions back by cuDNN, and deconvolutions, whose way back is a convolution
 * forward. A filter's gradient is made in the workspace, in cuDNN's layout and type,
 * and added from there to the plain fp32 gradient.
 */
#include <stdio.h>
#include <stdlib.h>

#include "device/cuda/algorithms.h"
#include "device/cuda/conv.h"
#include "device/cuda/tune.h"
#include "kernels/training.h"

static const size_t workspace_max = (size_t)256 << 20;
enum { ANSWERS = 8, TRIED = 4, ALIGNMENT = 256 };

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

/* ---- The two gradients, by one algorithm or another --------------------------- */

/* Where they are made from; of a deconvolution x is the map and y the image. */
struct places {
    const void *x, *weights, *dy;
    void *dx, *dw, *room;
};

static cudnnStatus_t run_data(cudnnHandle_t cudnn, const struct conv *c, int algorithm,
                              const struct places *at, size_t bytes)
{
    const float one = 1, zero = 0;

    return c->transposed
               ? cudnnConvolutionForward(cudnn, &one, c->y, at->dy, c->w, at->weights, c->conv,
                                         (cudnnConvolutionFwdAlgo_t)algorithm, at->room, bytes,
                                         &zero, c->x, at->dx)
               : cudnnConvolutionBackwardData(cudnn, &one, c->w, at->weights, c->y, at->dy, c->conv,
                                              (cudnnConvolutionBwdDataAlgo_t)algorithm, at->room,
                                              bytes, &zero, c->x, at->dx);
}

static cudnnStatus_t run_filter(cudnnHandle_t cudnn, const struct conv *c, int algorithm,
                                const struct places *at, size_t bytes)
{
    const float one = 1, zero = 0;

    return cudnnConvolutionBackwardFilter(
        cudnn, &one, c->transposed ? c->y : c->x, c->transposed ? at->dy : at->x,
        c->transposed ? c->x : c->y, c->transposed ? at->x : at->dy, c->conv,
        (cudnnConvolutionBwdFilterAlgo_t)algorithm, at->room, bytes, &zero, c->w, at->dw);
}

/* ---- Algorithms ------------------------------------------------------------- */

/* What cuDNN expects to be fastest, in that order. */
struct answers {
    int algorithm[ANSWERS], count;
};

/* Those that fit, and repeat themselves where that is asked for. */
#define KEEP(from, given, same, ret)                                                               \
    do {                                                                                           \
        for (int i_ = 0; i_ < (given); i_++)                                                       \
            if ((from)[i_].status == CUDNN_STATUS_SUCCESS && (from)[i_].memory <= workspace_max && \
                (!(same) || (from)[i_].determinism == CUDNN_DETERMINISTIC))                        \
                (ret)->algorithm[(ret)->count++] = (int)(from)[i_].algo;                           \
    } while (0)

static void guess_filter(cudnnHandle_t cudnn, const struct conv *c, bool same, struct answers *ret)
{
    cudnnConvolutionBwdFilterAlgoPerf_t answers[ANSWERS];
    int count = 0;
    cudnnTensorDescriptor_t image = c->transposed ? c->y : c->x;

    if (cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnn, image, c->transposed ? c->x : c->y,
                                                      c->conv, c->w, ANSWERS, &count,
                                                      answers) == CUDNN_STATUS_SUCCESS)
        KEEP(answers, count, same, ret);
}

static void guess_forward(cudnnHandle_t cudnn, const struct conv *c, bool same, struct answers *ret)
{
    cudnnConvolutionFwdAlgoPerf_t answers[ANSWERS];
    int count = 0;

    if (cudnnGetConvolutionForwardAlgorithm_v7(cudnn, c->y, c->w, c->conv, c->x, ANSWERS, &count,
                                               answers) == CUDNN_STATUS_SUCCESS)
        KEEP(answers, count, same, ret);
}

static void guess_data(cudnnHandle_t cudnn, const struct conv *c, bool same, struct answers *ret)
{
    cudnnConvolutionBwdDataAlgoPerf_t answers[ANSWERS];
    int count = 0;

    if (c->transposed)
        guess_forward(cudnn, c, same, ret);
    else if (cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnn, c->w, c->y, c->conv, c->x, ANSWERS,
                                                         &count, answers) == CUDNN_STATUS_SUCCESS)
        KEEP(answers, count, same, ret);
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

/* A gradient, and how its algorithm is found. */
struct way {
    const char *name;
    void (*guess)(cudnnHandle_t cudnn, const struct conv *c, bool same, struct answers *ret);
    bool (*bytes)(cudnnHandle_t cudnn, const struct conv *c, int algorithm, size_t *ret);
    cudnnStatus_t (*run)(cudnnHandle_t cudnn, const struct conv *c, int algorithm,
                         const struct places *at, size_t bytes);
};
static const struct way way_data = {"data", guess_data, data_bytes, run_data};
static const struct way way_filter = {"filter", guess_filter, filter_bytes, run_filter};

struct trial {
    cudnnHandle_t cudnn;
    const struct conv *conv;
    const struct way *way;
    struct places at;
    int algorithm;
    size_t bytes;
};

static bool enqueue(void *user)
{
    const struct trial *t = user;

    return t->way->run(t->cudnn, t->conv, t->algorithm, &t->at, t->bytes) == CUDNN_STATUS_SUCCESS;
}

/* Room for all that a gradient reads and writes, and the workspace behind it. */
static void *trial_memory(const struct sac_cuda_ask *ask, const struct trial *t,
                          const struct answers *answers, struct places *ret)
{
    const struct sac_shape *shapes[] = {&ask->graph->values[ask->node->src[0]].shape,
                                        &ask->graph->values[ask->node->dst[0]].shape,
                                        &ask->graph->constants[ask->node->weight[0]].shape};
    size_t at[4] = {0}, room = 0, bytes;

    for (int i = 0; i < 3; i++)
        at[i + 1] = at[i] + (sac_tensor_bytes(shapes[i], ask->type) + ALIGNMENT - 1) / ALIGNMENT *
                                ALIGNMENT;
    for (int i = 0; i < answers->count; i++)
        if (t->way->bytes(t->cudnn, t->conv, answers->algorithm[i], &bytes) && bytes > room)
            room = bytes;
    char *memory = sac_cuda_trial_memory(ask->device, at[3] + room);
    if (memory)
        *ret = (struct places){.x = memory,
                               .dx = memory,
                               .dy = memory + at[1],
                               .weights = memory + at[2],
                               .dw = memory + at[2],
                               .room = memory + at[3]};
    return memory;
}

/* The fastest of the first few answers; false where none could be timed. */
static bool measure(const struct sac_cuda_ask *ask, const struct conv *c, const struct way *way,
                    const struct answers *answers, int *ret)
{
    struct trial t = {ask->device->cudnn, c, way};
    void *memory = trial_memory(ask, &t, answers, &t.at);
    float least = -1;

    for (int i = 0; memory && i < answers->count && i < TRIED; i++) {
        t.algorithm = answers->algorithm[i];
        if (!way->bytes(t.cudnn, c, t.algorithm, &t.bytes))
            continue;
        float ms = sac_cuda_time(ask->device, enqueue, &t);
        if (ms < 0 || (least >= 0 && ms >= least))
            continue;
        least = ms;
        *ret = t.algorithm;
    }
    if (memory)
        sac_cuda_trial_free(ask->device, memory);
    return least >= 0;
}

/* Under the device's lock. What was measured is remembered; a run that must be the same
 * again has cuDNN's own guess, which is the same each time. */
static bool find(const struct sac_cuda_ask *ask, const struct conv *c, const struct way *way,
                 int *ret, size_t *ret_bytes)
{
    cudnnHandle_t cudnn = ask->device->cudnn;
    bool may = sac_cuda_may_measure_for(ask->options);
    struct answers answers = {.count = 0};
    struct sac_algorithm answer = {0};
    char conv[160], question[192];

    sac_cuda_conv_question(ask, conv, sizeof conv);
    snprintf(question, sizeof question, "%s back %s", conv, way->name);
    if (may && sac_algorithms_find(ask->device->algorithms, question, &answer) &&
        way->bytes(cudnn, c, answer.algorithm, ret_bytes) && *ret_bytes <= workspace_max) {
        *ret = answer.algorithm;
        return true;
    }
    way->guess(cudnn, c, ask->options->deterministic, &answers);
    if (answers.count == 0)
        return false;
    answer = (struct sac_algorithm){.algorithm = answers.algorithm[0]};
    bool measured = may && measure(ask, c, way, &answers, &answer.algorithm);
    if (may) /* a guess stands too: the next asking must not find another one */
        sac_algorithms_add(ask->device->algorithms, question, measured, &answer);
    *ret = answer.algorithm;
    return way->bytes(cudnn, c, *ret, ret_bytes);
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
                find(ask, c, &way_data, &b->data, &b->data_bytes) &&
                find(ask, c, &way_filter, &b->filter, &b->filter_bytes);
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

/* A card that is lost has none either: that is no reason to give up for good. */
static int refused(const struct sac_cuda_ask *ask, struct sac_error *err)
{
    int rc = sac_cuda_check(ask->device, cudaGetLastError(), ask->node->name, err);

    return rc ? rc
              : sac_fail(err, SAC_EUNSUPPORTED, "%s: cuDNN has no way back for what it had one for",
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
    const struct places at = {.weights = b->weights,
                              .dy = op->dst_grad[0].data,
                              .dx = op->src_grad[0].data,
                              .room = op->workspace};

    return sac_cudnn_check(
        op->device, run_data(stream->cudnn, &b->conv, b->data, &at, b->data_bytes), op->name, err);
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
    const struct places at = {.x = op->src[0].data,
                              .dy = op->dst_grad[0].data,
                              .dw = op->workspace,
                              .room = (char *)op->workspace + b->dw_bytes};
    int rc = sac_cudnn_check(op->device,
                             run_filter(stream->cudnn, &b->conv, b->filter, &at, b->filter_bytes),
                             op->name, err);

    return rc ? rc : add_filter(op, at.dw, stream, err);
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
