#include "device/cpu/vector.h"

#include "device/cpu/parts.h"

#include <stdlib.h>
#include <string.h>

const struct sac_cpu_vector *sac_cpu_vector_best(const struct sac_cpu_features *features)
{
    if (features->avx512)
        return &sac_cpu_vector_avx512;
    return features->avx2 ? &sac_cpu_vector_avx2 : &sac_cpu_vector_base;
}

static bool has_rows(const struct sac_shape *shape)
{
    return shape->rank == 2 || shape->rank == 4;
}

/* Every weight is one number a channel. */
static bool weights_by_channel(const struct sac_cpu_ask *ask)
{
    const struct sac_shape *shape = sac_cpu_src_shape(ask);

    for (int i = 0; i < ask->node->weight_count; i++)
        if (sac_shape_count(&ask->graph->constants[ask->node->weight[i]].shape) != shape->dim[1])
            return false;
    return has_rows(shape) && ask->node->weight_count > 0 && ask->node->src_count == 1;
}

static bool is_number(enum sac_type type)
{
    return type == SAC_F32 || type == SAC_BF16 || sac_type_is_eight(type);
}

static bool is_standard(int layout)
{
    return layout == SAC_PLAIN || layout == SAC_CHANNELS_LAST;
}

static bool can_convert(const struct sac_cpu_ask *ask)
{
    const struct sac_form src = ask->graph->values[ask->node->src[0]].form;
    const struct sac_form dst = ask->graph->values[ask->node->dst[0]].form;

    return is_number(src.type) && is_number(dst.type) && is_standard(src.layout) &&
           is_standard(dst.layout);
}

static bool can_lrn(const struct sac_cpu_ask *ask)
{
    const union sac_op_param *param = &ask->node->param;

    if (param->lrn.region == SAC_LRN_WITHIN_CHANNEL)
        return param->lrn.size % 2 == 1 && sac_cpu_src_shape(ask)->rank == 4;
    return param->lrn.size % 2 == 1 && param->lrn.size <= SAC_LRN_SIZE_MAX &&
           has_rows(sac_cpu_src_shape(ask));
}

static bool can_softmax(const struct sac_cpu_ask *ask)
{
    return ask->node->param.softmax.axis == 1 && has_rows(sac_cpu_src_shape(ask)) &&
           sac_cpu_src_shape(ask)->dim[1] > 0;
}

static bool node_masks(const struct sac_cpu_ask *ask)
{
    return ask->node->param.dropout.mask && ask->options->training;
}

static bool can(const struct sac_cpu_ask *ask)
{
    const struct sac_shape *shape = sac_cpu_src_shape(ask);

    if (ask->node->epilogue.sum >= 0)
        return false;
    switch (ask->node->kind) {
    case SAC_OP_POOL:
        return shape->rank == 4;
    case SAC_OP_LRN:
        return can_lrn(ask);
    case SAC_OP_PRELU:
    case SAC_OP_AFFINE:
        return weights_by_channel(ask);
    case SAC_OP_SCALE:
    case SAC_OP_BIAS:
        return weights_by_channel(ask) && ask->node->param.scale.axis == 1;
    case SAC_OP_SOFTMAX:
        return can_softmax(ask);
    case SAC_OP_TOPK:
        return has_rows(shape) && sac_shape_count_between(shape, 1, shape->rank) == shape->dim[1];
    case SAC_OP_DROPOUT: /* the mask goes by Caffe's order */
        return node_masks(ask) && has_rows(shape);
    case SAC_OP_CONVERT:
        return can_convert(ask);
    default:
        return true;
    }
}

/* Results may be part of a value with more channels. */
static bool takes_views(const struct sac_cpu_ask *ask)
{
    switch (ask->node->kind) {
    case SAC_OP_SOFTMAX:
    case SAC_OP_TOPK:
    case SAC_OP_PIXELS:
    case SAC_OP_CONVERT:
    case SAC_OP_SLICE:
    case SAC_OP_DROPOUT:
        return false;
    case SAC_OP_CONCAT:
        return ask->node->param.concat.axis == 1 && has_rows(sac_cpu_src_shape(ask));
    default:
        return has_rows(sac_cpu_src_shape(ask));
    }
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    (void)err;
    caps->strided_dst = takes_views(ask);
    caps->kernel = ask->device->vector->name;
    return 0;
}

/* Whole, or a view of a part of the channels. */
static bool is_rows(const struct sac_tensor *t)
{
    struct sac_tensor whole = sac_tensor_of(&t->shape, t->form);
    bool last = t->form.layout == SAC_CHANNELS_LAST && t->shape.rank == 4;
    int64_t pitch = 0;

    if (memcmp(whole.stride, t->stride, sizeof whole.stride) == 0)
        return true;
    if (!last)
        return t->shape.rank == 2 && t->stride[1] == 1;
    const int order[] = {3, 2, 0};
    for (int i = 0; i < 3; i++) {
        int axis = order[i];
        if (pitch > 0 && t->shape.dim[axis] > 1 && t->stride[axis] != pitch)
            return false;
        if (pitch == 0 && t->shape.dim[axis] > 1)
            pitch = t->stride[axis];
        pitch *= t->shape.dim[axis];
    }
    return t->shape.dim[1] <= 1 || t->stride[1] == 1;
}

/* The mean image in the order in which pixels come. */
static int permute_mean_image(struct sac_op *op)
{
    const int64_t *dim = op->dst[0].shape.dim;
    int64_t plane = dim[2] * dim[3];
    float *permuted = malloc((size_t)(dim[1] * plane) * sizeof *permuted);

    if (!permuted)
        return SAC_ENOMEM;
    for (int64_t c = 0; c < dim[1]; c++)
        for (int64_t i = 0; i < plane; i++)
            permuted[i * dim[1] + c] = op->floats[c * plane + i];
    free(op->floats);
    op->floats = permuted;
    op->param.pixels.mean_image = permuted;
    return 0;
}

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err)
{
    op->vector = ask->device->vector;
    for (int i = 0; i < op->src_count + op->dst_count; i++)
        if (!is_rows(i < op->src_count ? &op->src[i] : &op->dst[i - op->src_count]))
            return sac_fail(err, SAC_EUNSUPPORTED, "%s: a view that is not a part of the channels",
                            op->name);
    if (op->kind == SAC_OP_PIXELS && op->floats && permute_mean_image(op) != 0)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the mean image", op->name);
    return sac_cpu_weights_plain(op, ask, store, err);
}

static int forward(struct sac_op *op, struct sac_error *err)
{
    (void)err;
    sac_cpu_by_pictures(op, op->vector->run[op->kind]);
    return 0;
}

const struct sac_cpu_kernel sac_cpu_vector = {
    .name = "vector",
    .can = can,
    .query = query,
    .prepare = prepare,
    .forward = forward,
};
