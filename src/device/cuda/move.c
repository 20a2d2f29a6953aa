/* What moves numbers: copies into other shapes and forms, pixels in, answers out. */
#include <stdlib.h>
#include <string.h>

#include "device/cuda/move.h"

static const struct sac_shape *src_shape(const struct sac_cuda_ask *ask)
{
    return &ask->graph->values[ask->node->src[0]].shape;
}

static int no_state(struct sac_op *op, struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
}

/* ---- Copies --------------------------------------------------------------- */

struct copies {
    int count;
    struct sac_kernel_copy copy[];
};

static int copy_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    enum sac_op_kind kind = ask->node->kind;

    (void)err;
    caps->strided_dst = kind == SAC_OP_CONCAT || kind == SAC_OP_SLICE;
    return 0;
}

struct sac_kernel_copy sac_cuda_copy_of(const struct sac_tensor *from, const struct sac_tensor *to,
                                        const struct sac_shape *part)
{
    struct sac_kernel_copy copy = {
        .from = from->data,
        .to = to->data,
        .from_type = (int)from->form.type,
        .to_type = (int)to->form.type,
        .rank = part->rank,
    };

    memcpy(copy.dim, part->dim, sizeof copy.dim);
    memcpy(copy.from_stride, from->stride, sizeof copy.from_stride);
    memcpy(copy.to_stride, to->stride, sizeof copy.to_stride);
    return copy;
}

void *sac_cuda_advance(const struct sac_tensor *t, int axis, int64_t offset)
{
    return (char *)t->data + offset * t->stride[axis] * (int64_t)sac_type_bytes(t->form.type);
}

static void fill_copies(const struct sac_op *op, struct copies *copies)
{
    int axis = op->param.concat.axis; /* slice's is the same member */
    int64_t offset = 0;

    for (int i = 0; i < copies->count; i++) {
        if (op->kind == SAC_OP_CONCAT) {
            copies->copy[i] = sac_cuda_copy_of(&op->src[i], &op->dst[0], &op->src[i].shape);
            copies->copy[i].to = sac_cuda_advance(&op->dst[0], axis, offset);
            offset += op->src[i].shape.dim[axis];
        } else if (op->kind == SAC_OP_SLICE) {
            copies->copy[i] = sac_cuda_copy_of(&op->src[0], &op->dst[i], &op->dst[i].shape);
            copies->copy[i].from = sac_cuda_advance(&op->src[0], axis, offset);
            offset += op->dst[i].shape.dim[axis];
        } else { /* a split has several results */
            copies->copy[i] = sac_cuda_copy_of(&op->src[0], &op->dst[i], &op->src[0].shape);
        }
    }
}

/* A reshape keeps the elements in their order and type: one run. */
void sac_cuda_copy_flatten(struct sac_kernel_copy *copy, int64_t count)
{
    copy->rank = 1;
    copy->dim[0] = count;
    copy->from_stride[0] = copy->to_stride[0] = 1;
}

static int copy_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                        struct sac_error *err)
{
    bool many = op->kind == SAC_OP_SLICE || op->kind == SAC_OP_SPLIT;
    int count = many ? op->dst_count : op->src_count;
    struct copies *copies = calloc(1, sizeof *copies + (size_t)count * sizeof *copies->copy);

    (void)ask;
    (void)store;
    op->state = copies;
    if (!copies)
        return no_state(op, err);
    copies->count = count;
    fill_copies(op, copies);
    if (op->kind == SAC_OP_RESHAPE)
        sac_cuda_copy_flatten(&copies->copy[0], sac_shape_count(&op->src[0].shape));
    return 0;
}

static int copy_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct copies *copies = op->state;
    cudaError_t code = cudaSuccess;

    for (int i = 0; i < copies->count && code == cudaSuccess; i++)
        if (copies->copy[i].from != copies->copy[i].to)
            code = sac_kernel_copy(&copies->copy[i], stream->stream);
    return sac_cuda_check(op->device, code, op->name, err);
}

const struct sac_cuda_kernel sac_cuda_copy = {
    .name = "copy",
    .query = copy_query,
    .prepare = copy_prepare,
    .forward = copy_forward,
    .free_state = free,
};

/* ---- Softmax -------------------------------------------------------------- */

/* Along the channels as they stand; else in the shape's order. */
static int softmax_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                         struct sac_error *err)
{
    (void)err;
    if (ask->node->param.softmax.axis != 1)
        caps->src.layout = caps->dst.layout = SAC_PLAIN;
    return 0;
}

static int softmax_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int axis = op->param.softmax.axis;
    int64_t outer = sac_shape_count_between(shape, 0, axis);
    int64_t inner = sac_shape_count_between(shape, axis + 1, shape->rank);
    bool last = op->src[0].form.layout == SAC_CHANNELS_LAST && shape->rank >= 3;
    struct sac_kernel_softmax p = {
        .x = op->src[0].data,
        .y = op->dst[0].data,
        .type = (int)op->src[0].form.type,
        .outer = (uint32_t)(last ? outer * inner : outer),
        .count = (uint32_t)shape->dim[axis],
        .inner = (uint32_t)(last ? 1 : inner),
    };

    return sac_cuda_check(op->device, sac_kernel_softmax(&p, stream->stream), op->name, err);
}

const struct sac_cuda_kernel sac_cuda_softmax = {
    .name = "softmax",
    .query = softmax_query,
    .forward = softmax_forward,
};

/* ---- Top-k ---------------------------------------------------------------- */

static bool topk_can(const struct sac_cuda_ask *ask)
{
    const struct sac_shape *shape = src_shape(ask);

    return shape->rank >= 2 && sac_shape_count_between(shape, 2, shape->rank) == 1;
}

static int topk_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct sac_shape *shape = &op->src[0].shape;

    return sac_cuda_check(op->device,
                          sac_kernel_topk(op->src[0].data, (int)op->src[0].form.type,
                                          (uint32_t)shape->dim[0], (uint32_t)shape->dim[1],
                                          (int)op->dst[0].shape.dim[1], op->dst[0].data,
                                          stream->stream),
                          op->name, err);
}

const struct sac_cuda_kernel sac_cuda_topk = {
    .name = "top-k",
    .can = topk_can,
    .forward = topk_forward,
};

/* ---- Pixels --------------------------------------------------------------- */

static bool pixels_can(const struct sac_cuda_ask *ask)
{
    return src_shape(ask)->rank == 4;
}

/* C × H × W, as the mean was trained, to H × W × C, as pixels come. */
static int upload_mean(struct sac_op *op, const float *image, struct sac_error *err)
{
    const int64_t *dim = op->src[0].shape.dim; /* N × H × W × C */
    int64_t plane = dim[1] * dim[2], channels = dim[3];
    size_t bytes = (size_t)(channels * plane) * sizeof(float);
    float *permuted = malloc(bytes ? bytes : 1);
    int rc = permuted ? 0 : no_state(op, err);

    for (int64_t c = 0; c < channels && rc == 0; c++)
        for (int64_t i = 0; i < plane; i++)
            permuted[i * channels + c] = image[c * plane + i];
    if (rc == 0)
        rc = sac_cuda_memory_new(&op->device->base, SAC_MEMORY_DEVICE, bytes, &op->owned, err);
    if (rc == 0)
        rc = sac_cuda_upload(op->device, op->owned, permuted, bytes, err);
    free(permuted);
    return rc;
}

static int pixels_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                          struct sac_store *store, struct sac_error *err)
{
    const float *image = op->param.pixels.mean_image;

    (void)ask;
    (void)store;
    op->param.pixels.mean_image = NULL;
    return image ? upload_mean(op, image, err) : 0;
}

static int pixels_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const int64_t *dim = op->dst[0].shape.dim;
    struct sac_kernel_pixels p = {
        .x = op->src[0].data,
        .y = op->dst[0].data,
        .type = (int)op->dst[0].form.type,
        .batch = (uint32_t)dim[0],
        .plane = (uint32_t)(dim[2] * dim[3]),
        .channels = (int)op->src[0].shape.dim[3],
        .width = (int)dim[1],
        .swap = op->param.pixels.swap,
        .mean_image = op->owned,
        .scale = op->param.pixels.scale,
    };

    memcpy(p.mean, op->param.pixels.mean, sizeof p.mean);
    return sac_cuda_check(op->device, sac_kernel_pixels(&p, stream->stream), op->name, err);
}

const struct sac_cuda_kernel sac_cuda_pixels = {
    .name = "pixels",
    .can = pixels_can,
    .prepare = pixels_prepare,
    .forward = pixels_forward,
};
