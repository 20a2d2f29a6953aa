/* The way back through what slides a window, by our own kernels: pools, LRN, and
 * convolutions and inner products that the libraries are not asked for. */
#include <stdlib.h>

#include "device/cuda/inner.h"
#include "device/cuda/window.h"
#include "kernels/training.h"

static void raise_workspace(struct sac_op_caps *caps, size_t bytes)
{
    caps->workspace_bytes = bytes > caps->workspace_bytes ? bytes : caps->workspace_bytes;
}

static const struct sac_shape *shape_of(const struct sac_cuda_ask *ask, int value)
{
    return &ask->graph->values[value].shape;
}

/* ---- Pools and LRN ----------------------------------------------------------- */

static int pool_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    (void)err;
    caps->backward_src = caps->backward_dst = ask->node->param.pool.method == SAC_POOL_MAX;
    return 0;
}

static int pool_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_window w =
        sac_cuda_window_of(&op->src[0], &op->dst[0], &op->param.pool.window);

    return sac_cuda_check(op->device,
                          sac_kernel_pool_back(&w, op->param.pool.method, op->dst_grad[0].data,
                                               op->src_grad[0].data, stream->stream),
                          op->name, err);
}

const struct sac_cuda_backward sac_cuda_pool_back = {
    .name = "pool",
    .query = pool_query,
    .data = pool_data,
};

static int lrn_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                     struct sac_error *err)
{
    (void)err;
    caps->backward_src = true;
    if (ask->node->param.lrn.region == SAC_LRN_WITHIN_CHANNEL)
        raise_workspace(caps, 2 * sac_tensor_bytes(shape_of(ask, ask->node->src[0]), SAC_F32));
    return 0;
}

static int lrn_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct sac_kernel_lrn *p = op->state; /* the forward's */
    const void *dy = op->dst_grad[0].data;
    void *dx = op->src_grad[0].data;
    cudaError_t code = op->param.lrn.region == SAC_LRN_ACROSS_CHANNELS
                           ? sac_kernel_lrn_across_back(p, dy, dx, stream->stream)
                           : sac_kernel_lrn_within_back(p, dy, dx, op->workspace, stream->stream);

    return sac_cuda_check(op->device, code, op->name, err);
}

const struct sac_cuda_backward sac_cuda_lrn_back = {
    .name = "LRN",
    .query = lrn_query,
    .data = lrn_data,
};

/* ---- Convolutions: a deconvolution goes back as a convolution, and the other way - */

struct direct {
    const void *weights; /* of the result's type, as the other kernel has them */
    struct sac_inner_sizes sizes;
};

static int direct_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                          const struct sac_cuda_packing *packing, struct sac_error *err)
{
    struct direct *d = calloc(1, sizeof *d);

    op->backward_state = d;
    if (!d)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    if (op->kind == SAC_OP_INNER)
        d->sizes = sac_cuda_inner_sizes(ask);
    return sac_cuda_weight_get(op, ask, 0, packing, NULL, &d->weights, err);
}

static bool conv_can(const struct sac_cuda_ask *ask, struct sac_form src, struct sac_form dst)
{
    (void)src;
    (void)dst;
    return shape_of(ask, ask->node->src[0])->rank == 4;
}

static int conv_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    (void)err;
    caps->backward_src = true;
    raise_workspace(caps, sac_cuda_columns_bytes(shape_of(ask, ask->node->dst[0])));
    return 0;
}

static int conv_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_error *err)
{
    static const int orders[2][4] = {{2, 3, 0, 1}, {2, 3, 1, 0}};
    const int *order = orders[op->kind == SAC_OP_DECONV];
    const struct sac_shape *shape = &op->weight_shape[0];
    struct sac_tensor plain = sac_tensor_of(shape, (struct sac_form){SAC_F32, SAC_PLAIN});
    struct sac_cuda_packing packing = {.type = op->dst[0].form.type};

    for (int i = 0; i < 4; i++) {
        packing.dim[i] = shape->dim[order[i]];
        packing.stride[i] = plain.stride[order[i]];
    }
    return direct_prepare(op, ask, &packing, err);
}

static int conv_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct direct *d = op->backward_state;
    struct sac_kernel_window w =
        sac_cuda_window_of(&op->dst_grad[0], &op->src_grad[0], &op->param.conv.window);
    int group = (int)op->param.conv.group;
    cudaError_t code = op->kind == SAC_OP_CONV
                           ? sac_kernel_deconv(&w, d->weights, group, stream->stream)
                           : sac_kernel_conv(&w, d->weights, group, stream->stream);

    return sac_cuda_check(op->device, code, op->name, err);
}

static int conv_weights(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    bool conv = op->kind == SAC_OP_CONV;
    const struct sac_tensor *image = conv ? &op->src[0] : &op->dst_grad[0];
    const struct sac_tensor *map = conv ? &op->dst_grad[0] : &op->src[0];
    const int64_t *dim = op->weight_shape[0].dim;
    struct sac_kernel_filter_back p = {
        .window = sac_cuda_window_of(image, map, &op->param.conv.window),
        .group = (int)op->param.conv.group,
        .dw = op->weight_grad[0],
        .out_stride = dim[1] * dim[2] * dim[3],
        .in_stride = dim[2] * dim[3],
        .tap_stride = 1,
    };
    int rc = 0;

    if (p.dw)
        rc = sac_cuda_check(op->device, sac_kernel_filter_back(&p, stream->stream), op->name, err);
    return rc == 0 && op->weight_count > 1 ? sac_cuda_bias_back(op, op->weight_grad[1], stream, err)
                                           : rc;
}

const struct sac_cuda_backward sac_cuda_direct_conv_back = {
    .name = "direct",
    .can = conv_can,
    .query = conv_query,
    .prepare = conv_prepare,
    .data = conv_data,
    .weights = conv_weights,
    .free_state = free,
};

/* ---- Inner products: a window over the whole image ----------------------------- */

static int inner_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                       struct sac_error *err)
{
    struct sac_inner_sizes s = sac_cuda_inner_sizes(ask);

    (void)err;
    caps->backward_src = true;
    raise_workspace(caps, sac_kernel_columns_bytes((uint32_t)s.rows, (uint32_t)s.out, 1));
    return 0;
}

static int inner_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_error *err)
{
    struct sac_cuda_packing packing = sac_cuda_inner_packing(ask, op->src[0].form, false);

    packing.type = op->dst[0].form.type;
    return direct_prepare(op, ask, &packing, err);
}

static int inner_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct direct *d = op->backward_state;
    struct sac_kernel_inner p = {
        .x = op->dst_grad[0].data,
        .weights = d->weights,
        .y = op->src_grad[0].data,
        .type = (int)op->dst_grad[0].form.type,
        .y_type = (int)op->src_grad[0].form.type,
        .rows = (uint32_t)d->sizes.rows,
        .in = (uint32_t)d->sizes.out,
        .out = (uint32_t)d->sizes.in,
    };

    return sac_cuda_check(op->device, sac_kernel_inner(&p, stream->stream), op->name, err);
}

static int inner_weights(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct sac_inner_sizes *s = &((const struct direct *)op->backward_state)->sizes;
    const struct sac_tensor *x = &op->src[0];
    bool last = x->form.layout == SAC_CHANNELS_LAST && x->shape.rank == 4;
    int height = last ? (int)x->shape.dim[2] : 1, width = last ? (int)x->shape.dim[3] : 1;
    int64_t plane = (int64_t)height * width, channels = s->in / (plane > 0 ? plane : 1);
    int64_t step = op->param.inner.transpose ? s->out : 1;
    struct sac_kernel_filter_back p = {
        .window = {.x = x->data,
                   .y = (void *)op->dst_grad[0].data,
                   .x_type = (int)x->form.type,
                   .y_type = (int)op->dst_grad[0].form.type,
                   .batch = (int)s->rows,
                   .x_height = height,
                   .x_width = width,
                   .x_channels = (int)channels,
                   .y_height = 1,
                   .y_width = 1,
                   .y_channels = (int)s->out,
                   .x_pitch = channels,
                   .y_pitch = s->out,
                   .kernel = {height, width},
                   .stride = {1, 1},
                   .dilation = {1, 1}},
        .group = 1,
        .dw = op->weight_grad[0],
        .out_stride = op->param.inner.transpose ? 1 : s->in,
        .in_stride = plane * step,
        .tap_stride = step,
    };
    int rc = 0;

    if (p.dw)
        rc = sac_cuda_check(op->device, sac_kernel_filter_back(&p, stream->stream), op->name, err);
    return rc ? rc : sac_cuda_inner_bias_back(op, s, stream, err);
}

const struct sac_cuda_backward sac_cuda_direct_inner_back = {
    .name = "direct",
    .query = inner_query,
    .prepare = inner_prepare,
    .data = inner_data,
    .weights = inner_weights,
    .free_state = free,
};
