/* Our own kernels of what slides a window: pooling, LRN, and the convolutions
 * that cuDNN is not asked for. */
#include <stdlib.h>

#include "device/cuda/window.h"

static const struct sac_shape *src_shape(const struct sac_cuda_ask *ask)
{
    return &ask->graph->values[ask->node->src[0]].shape;
}

static bool is_image(const struct sac_cuda_ask *ask)
{
    return src_shape(ask)->rank == 4;
}

struct sac_kernel_window sac_cuda_window_of(const struct sac_tensor *x, const struct sac_tensor *y,
                                            const struct sac_window *from)
{
    struct sac_kernel_window w = {
        .x = x->data,
        .y = y->data,
        .x_type = (int)x->form.type,
        .y_type = (int)y->form.type,
        .batch = (int)x->shape.dim[0],
        .x_height = (int)x->shape.dim[2],
        .x_width = (int)x->shape.dim[3],
        .x_channels = (int)x->shape.dim[1],
        .y_height = (int)y->shape.dim[2],
        .y_width = (int)y->shape.dim[3],
        .y_channels = (int)y->shape.dim[1],
        .x_pitch = x->shape.dim[1],
        .y_pitch = y->shape.dim[1],
    };

    for (int i = 0; i < 2; i++) {
        w.kernel[i] = (int)from->kernel[i];
        w.stride[i] = (int)from->stride[i];
        w.pad[i] = (int)from->pad[i];
        w.dilation[i] = (int)from->dilation[i];
    }
    return w;
}

/* Both may be parts of the channels. */
static int fill_window(const struct sac_op *op, const struct sac_window *from,
                       struct sac_kernel_window *w, struct sac_error *err)
{
    *w = sac_cuda_window_of(&op->src[0], &op->dst[0], from);
    int rc = sac_cuda_need_rows(op, &op->src[0], &w->x_pitch, err);
    return rc ? rc : sac_cuda_need_rows(op, &op->dst[0], &w->y_pitch, err);
}

static int new_window(struct sac_op *op, const struct sac_window *from, struct sac_error *err)
{
    struct sac_kernel_window *w = malloc(sizeof *w);

    op->state = w;
    return w ? fill_window(op, from, w, err)
             : sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
}

/* Results may be part of a value with more channels. */
static int takes_views(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                       struct sac_error *err)
{
    (void)ask;
    (void)err;
    caps->strided_dst = true;
    return 0;
}

/* ---- Pooling -------------------------------------------------------------- */

static int pool_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                        struct sac_error *err)
{
    (void)ask;
    (void)store;
    return new_window(op, &op->param.pool.window, err);
}

static int pool_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    return sac_cuda_check(op->device,
                          sac_kernel_pool(op->state, op->param.pool.method, stream->stream),
                          op->name, err);
}

const struct sac_cuda_kernel sac_cuda_pool = {
    .name = "pool",
    .can = is_image,
    .query = takes_views,
    .prepare = pool_prepare,
    .forward = pool_forward,
    .free_state = free,
};

/* ---- LRN ------------------------------------------------------------------ */

static bool lrn_can(const struct sac_cuda_ask *ask)
{
    bool across = ask->node->param.lrn.region == SAC_LRN_ACROSS_CHANNELS;

    return is_image(ask) || (across && src_shape(ask)->rank == 2);
}

static int lrn_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                       struct sac_error *err)
{
    const struct sac_shape *shape = &op->src[0].shape;
    bool across = op->param.lrn.region == SAC_LRN_ACROSS_CHANNELS;
    int size = op->param.lrn.size;
    struct sac_kernel_lrn *p = malloc(sizeof *p);

    (void)ask;
    (void)store;
    op->state = p;
    if (!p)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    *p = (struct sac_kernel_lrn){
        .x = op->src[0].data,
        .y = op->dst[0].data,
        .type = (int)op->src[0].form.type,
        .batch = (int)shape->dim[0],
        .height = shape->rank == 4 ? (int)shape->dim[2] : 1,
        .width = shape->rank == 4 ? (int)shape->dim[3] : 1,
        .channels = (int)shape->dim[1],
        .size = size,
        .alpha = op->param.lrn.alpha / (float)(across ? size : size * size),
        .beta = op->param.lrn.beta,
        .k = op->param.lrn.k,
    };
    int rc = sac_cuda_need_rows(op, &op->src[0], &p->x_pitch, err);
    return rc ? rc : sac_cuda_need_rows(op, &op->dst[0], &p->y_pitch, err);
}

static int lrn_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    bool across = op->param.lrn.region == SAC_LRN_ACROSS_CHANNELS;
    cudaError_t code = across ? sac_kernel_lrn_across(op->state, stream->stream)
                              : sac_kernel_lrn_within(op->state, stream->stream);

    return sac_cuda_check(op->device, code, op->name, err);
}

const struct sac_cuda_kernel sac_cuda_lrn = {
    .name = "LRN",
    .can = lrn_can,
    .query = takes_views,
    .prepare = lrn_prepare,
    .forward = lrn_forward,
    .free_state = free,
};

/* ---- Convolutions --------------------------------------------------------- */

static int prepare_conv(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                        const int order[4], struct sac_error *err)
{
    int rc = new_window(op, &op->param.conv.window, err);

    if (rc == 0 && op->src[0].form.type != ask->type)
        rc = sac_fail(err, SAC_EINVAL, "%s: its source is not in %s", op->name,
                      sac_type_name(ask->type));
    if (rc == 0)
        rc = sac_cuda_weight_filter(op, ask, order, store, err);
    if (rc == 0 && op->weight_count > 1)
        rc = sac_cuda_weight_plain(op, ask, 1, store, err);
    return rc;
}

static const int filter_last[] = {2, 3, 1, 0}; /* out, in, y, x → y, x, in, out */

static int conv_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                        struct sac_error *err)
{
    return prepare_conv(op, ask, store, filter_last, err);
}

static int conv_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    cudaError_t code =
        sac_kernel_conv(op->state, op->weight[0], (int)op->param.conv.group, stream->stream);
    int rc = sac_cuda_check(op->device, code, op->name, err);

    return rc ? rc : sac_cuda_finish(op, op->weight[1], op->epilogue.sum >= 0, stream, err);
}

const struct sac_cuda_kernel sac_cuda_direct_conv = {
    .name = "direct",
    .can = is_image,
    .prepare = conv_prepare,
    .forward = conv_forward,
    .free_state = free,
};

static bool depthwise_can(const struct sac_cuda_ask *ask)
{
    int64_t group = ask->node->param.conv.group;

    return is_image(ask) && ask->node->epilogue.sum < 0 && group > 1 &&
           group == src_shape(ask)->dim[1] &&
           group == ask->graph->values[ask->node->dst[0]].shape.dim[1] &&
           sac_cuda_depthwise_wins(ask);
}

static int depthwise_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    return sac_cuda_check(op->device,
                          sac_kernel_depthwise(op->state, op->weight[0], op->weight[1],
                                               op->epilogue.relu, op->epilogue.slope,
                                               stream->stream),
                          op->name, err);
}

const struct sac_cuda_kernel sac_cuda_depthwise = {
    .name = "depthwise",
    .can = depthwise_can,
    .query = takes_views,
    .prepare = conv_prepare,
    .forward = depthwise_forward,
    .free_state = free,
};

static int deconv_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                          struct sac_store *store, struct sac_error *err)
{
    static const int order[] = {2, 3, 0, 1}; /* in, out, y, x → y, x, in, out */

    return prepare_conv(op, ask, store, order, err);
}

static int deconv_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    cudaError_t code =
        sac_kernel_deconv(op->state, op->weight[0], (int)op->param.conv.group, stream->stream);
    int rc = sac_cuda_check(op->device, code, op->name, err);

    return rc ? rc : sac_cuda_finish(op, op->weight[1], op->epilogue.sum >= 0, stream, err);
}

const struct sac_cuda_kernel sac_cuda_direct_deconv = {
    .name = "direct",
    .can = is_image,
    .prepare = deconv_prepare,
    .forward = deconv_forward,
    .free_state = free,
};
