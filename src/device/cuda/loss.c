/* Losses and accuracy, and dropout, both ways. */
#include "base/random.h"
#include "device/cuda/cuda.h"
#include "kernels/training.h"

static const struct sac_shape *src_shape(const struct sac_cuda_ask *ask)
{
    return &ask->graph->values[ask->node->src[0]].shape;
}

/* ---- Softmax loss and accuracy ------------------------------------------------- */

static size_t places_of(const struct sac_shape *shape, int axis)
{
    int64_t classes = shape->dim[axis];

    return classes > 0 ? (size_t)(sac_shape_count(shape) / classes) : 0;
}

/* Scores along the channels as they stand; else in the shape's order, as where labels
 * have an axis that would become their last with the scores' channels. */
static void set_layout(const struct sac_cuda_ask *ask, struct sac_op_caps *caps)
{
    const struct sac_shape *labels = &ask->graph->values[ask->node->src[1]].shape;

    if (ask->node->param.loss.axis != 1 || (labels->rank >= 3 && labels->dim[1] != 1))
        caps->src.layout = SAC_PLAIN;
}

static int loss_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    size_t places = places_of(src_shape(ask), ask->node->param.loss.axis);

    (void)err;
    set_layout(ask, caps);
    caps->workspace_bytes = (2 * places + 1) * sizeof(float);
    caps->saved_bytes = ask->options->training ? (places + 1) * sizeof(float) : 0;
    return 0;
}

/* For each place its loss, in the workspace; for each its log of sums, and the divisor
 * behind them: kept in training. */
static struct sac_kernel_loss loss_of(const struct sac_op *op)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int axis = op->param.loss.axis;
    int64_t classes = shape->dim[axis];
    int64_t inner = sac_shape_count_between(shape, axis + 1, shape->rank);
    bool last = op->src[0].form.layout == SAC_CHANNELS_LAST && shape->rank >= 3;
    size_t places = places_of(shape, axis);
    float *losses = op->workspace, *kept = op->saved ? op->saved : losses + places;

    return (struct sac_kernel_loss){
        .x = op->src[0].data,
        .labels = op->src[1].data,
        .outer = (uint32_t)sac_shape_count_between(shape, 0, axis),
        .classes = (uint32_t)classes,
        .inner = (uint32_t)inner,
        .x_class_step = (int)(last ? 1 : inner),
        .x_place_step = (int)(last ? classes : 1),
        .norm = (int)op->param.loss.norm,
        .ignores = op->param.loss.ignores,
        .ignored = op->param.loss.ignored,
        .smoothing = op->param.loss.smoothing,
        .losses = losses,
        .log_sums = kept,
        .divisor = kept + places,
        .loss = op->dst[0].data,
        .softmax = op->dst_count > 1 ? op->dst[1].data : NULL,
    };
}

static int softmax_loss_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_loss p = loss_of(op);

    return sac_cuda_check(op->device, sac_kernel_softmax_loss(&p, stream->stream), op->name, err);
}

const struct sac_cuda_kernel sac_cuda_softmax_loss = {
    .name = "softmax loss",
    .query = loss_query,
    .forward = softmax_loss_forward,
};

static int reads_sources(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                         struct sac_error *err)
{
    (void)ask;
    (void)err;
    caps->backward_src = true;
    return 0;
}

static int softmax_loss_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_loss p = loss_of(op);

    if (!op->dst_grad[0].data)
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: only the loss itself has a gradient", op->name);
    return sac_cuda_check(op->device,
                          sac_kernel_softmax_loss_back(&p, op->dst_grad[0].data,
                                                       op->src_grad[0].data, stream->stream),
                          op->name, err);
}

const struct sac_cuda_backward sac_cuda_softmax_loss_back = {
    .name = "softmax loss",
    .query = reads_sources,
    .data = softmax_loss_data,
};

static int accuracy_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                          struct sac_error *err)
{
    (void)err;
    set_layout(ask, caps);
    caps->workspace_bytes = places_of(src_shape(ask), ask->node->param.loss.axis) * sizeof(float);
    return 0;
}

static int accuracy_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_loss p = loss_of(op);
    float *classes = op->dst_count > 1 ? op->dst[1].data : NULL;

    return sac_cuda_check(op->device,
                          sac_kernel_accuracy(&p, op->param.loss.top_k, classes, stream->stream),
                          op->name, err);
}

const struct sac_cuda_kernel sac_cuda_accuracy = {
    .name = "accuracy",
    .query = accuracy_query,
    .forward = accuracy_forward,
};

/* ---- Losses of pairs ------------------------------------------------------------ */

/* The sigmoid's result is plain, and so are its sources then. */
static int pair_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    (void)err;
    if (ask->node->dst_count > 1)
        caps->src.layout = SAC_PLAIN;
    caps->workspace_bytes = sac_kernel_pair_loss_bytes() + sizeof(float);
    caps->saved_bytes = ask->options->training ? sizeof(float) : 0;
    return 0;
}

static struct sac_kernel_pair_loss pair_of(const struct sac_op *op)
{
    float *room = op->workspace;

    return (struct sac_kernel_pair_loss){
        .x = op->src[0].data,
        .t = op->src[1].data,
        .count = (uint32_t)sac_shape_count(&op->src[0].shape),
        .batch = (uint32_t)op->src[0].shape.dim[0],
        .norm = (int)op->param.loss.norm,
        .ignores = op->param.loss.ignores,
        .ignored = op->param.loss.ignored,
        .work = room,
        .divisor = op->saved ? op->saved : room + sac_kernel_pair_loss_bytes() / sizeof *room,
        .loss = op->dst[0].data,
        .sigmoid = op->dst_count > 1 ? op->dst[1].data : NULL,
    };
}

static int pair_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_pair_loss p = pair_of(op);
    cudaError_t code = op->kind == SAC_OP_SIGMOID_LOSS
                           ? sac_kernel_sigmoid_loss(&p, stream->stream)
                           : sac_kernel_euclidean_loss(&p, stream->stream);

    return sac_cuda_check(op->device, code, op->name, err);
}

const struct sac_cuda_kernel sac_cuda_pair_loss = {
    .name = "loss",
    .query = pair_query,
    .forward = pair_forward,
};

static int pair_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_pair_loss p = pair_of(op);
    const float *dy = op->dst_grad[0].data;

    if (!dy)
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: only the loss itself has a gradient", op->name);
    cudaError_t code =
        op->kind == SAC_OP_SIGMOID_LOSS
            ? sac_kernel_sigmoid_loss_back(&p, dy, op->src_grad[0].data, stream->stream)
            : sac_kernel_euclidean_loss_back(&p, dy, op->src_grad[0].data, op->src_grad[1].data,
                                             stream->stream);
    return sac_cuda_check(op->device, code, op->name, err);
}

const struct sac_cuda_backward sac_cuda_pair_loss_back = {
    .name = "loss",
    .query = reads_sources,
    .data = pair_data,
};

/* ---- Dropout: the same mask both ways, drawn again -------------------------------- */

static bool dropout_can(const struct sac_cuda_ask *ask)
{
    return ask->options->training && ask->node->param.dropout.mask;
}

static int drop(struct sac_op *op, const struct sac_tensor *from, const struct sac_tensor *to,
                struct sac_stream *stream, struct sac_error *err)
{
    const struct sac_shape *shape = &from->shape;
    struct sac_kernel_dropout p = {
        .x = from->data,
        .y = to->data,
        .type = (int)from->form.type,
        .outer = (uint32_t)(shape->rank > 0 ? shape->dim[0] : 1),
        .channels = (uint32_t)(shape->rank > 1 ? shape->dim[1] : 1),
        .inner = (uint32_t)(shape->rank > 2 ? sac_shape_count_between(shape, 2, shape->rank) : 1),
        .last = from->form.layout == SAC_CHANNELS_LAST && shape->rank >= 3,
        .ratio = op->param.dropout.ratio,
        .key = sac_random_key(op->random ? op->random->seed : 0, op->param.dropout.stream,
                              op->random ? op->random->iteration : 0),
    };

    return sac_cuda_check(op->device, sac_kernel_dropout(&p, stream->stream), op->name, err);
}

static int dropout_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    return drop(op, &op->src[0], &op->dst[0], stream, err);
}

const struct sac_cuda_kernel sac_cuda_dropout = {
    .name = "dropout",
    .can = dropout_can,
    .forward = dropout_forward,
};

static bool dropout_back_can(const struct sac_cuda_ask *ask, struct sac_form src,
                             struct sac_form dst)
{
    return dropout_can(ask) && src.type == dst.type && src.layout == dst.layout;
}

static int dropout_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                         struct sac_error *err)
{
    (void)ask;
    (void)err;
    caps->grad_in_place = true;
    return 0;
}

static int dropout_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    return drop(op, &op->dst_grad[0], &op->src_grad[0], stream, err);
}

const struct sac_cuda_backward sac_cuda_dropout_back = {
    .name = "dropout",
    .can = dropout_back_can,
    .query = dropout_query,
    .data = dropout_data,
};
