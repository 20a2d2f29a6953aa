#include "device/cpu/loops.h"

#include <stdlib.h>
#include <string.h>

#include "device/cpu/element.h"

/* CONVERT, SPLIT and RESHAPE keep every element. */
static sac_loop *const loops[SAC_OP_KINDS] = {
    [SAC_OP_CONV] = sac_loop_conv,
    [SAC_OP_DECONV] = sac_loop_deconv,
    [SAC_OP_INNER] = sac_loop_inner,
    [SAC_OP_POOL] = sac_loop_pool,
    [SAC_OP_LRN] = sac_loop_lrn,
    [SAC_OP_RELU] = sac_loop_relu,
    [SAC_OP_PRELU] = sac_loop_prelu,
    [SAC_OP_SIGMOID] = sac_loop_sigmoid,
    [SAC_OP_TANH] = sac_loop_tanh,
    [SAC_OP_ELU] = sac_loop_elu,
    [SAC_OP_POWER] = sac_loop_power,
    [SAC_OP_DROPOUT] = sac_loop_dropout,
    [SAC_OP_CONCAT] = sac_loop_concat,
    [SAC_OP_SLICE] = sac_loop_slice,
    [SAC_OP_RESHAPE] = sac_loop_copy,
    [SAC_OP_ELTWISE] = sac_loop_eltwise,
    [SAC_OP_BATCHNORM] = sac_loop_batchnorm,
    [SAC_OP_SCALE] = sac_loop_scale,
    [SAC_OP_BIAS] = sac_loop_bias,
    [SAC_OP_SOFTMAX] = sac_loop_softmax,
    [SAC_OP_SOFTMAX_LOSS] = sac_loop_softmax_loss,
    [SAC_OP_EUCLIDEAN_LOSS] = sac_loop_euclidean_loss,
    [SAC_OP_SIGMOID_LOSS] = sac_loop_sigmoid_loss,
    [SAC_OP_ACCURACY] = sac_loop_accuracy,
    [SAC_OP_SPLIT] = sac_loop_split,
    [SAC_OP_PIXELS] = sac_loop_pixels,
    [SAC_OP_CONVERT] = sac_loop_copy,
    [SAC_OP_AFFINE] = sac_loop_affine,
    [SAC_OP_TOPK] = sac_loop_topk,
};

/* Walks a tensor in the shape's order. */
struct walk {
    const struct sac_tensor *t;
    int64_t index[SAC_AXES_MAX];
    int64_t at; /* offset of the current element */
};

static void walk_next(struct walk *w)
{
    for (int axis = w->t->shape.rank - 1; axis >= 0; axis--) {
        w->at += w->t->stride[axis];
        if (++w->index[axis] < w->t->shape.dim[axis])
            return;
        w->at -= w->t->stride[axis] * w->t->shape.dim[axis];
        w->index[axis] = 0;
    }
}

static void gather(const struct sac_tensor *t, float *out)
{
    int64_t count = sac_shape_count(&t->shape);
    struct walk w = {.t = t};

    for (int64_t i = 0; i < count; i++, walk_next(&w))
        out[i] = sac_element_load(t, w.at);
}

static void scatter_pairs(const struct sac_tensor *t, const struct sac_topk_pair *pairs)
{
    int64_t count = sac_shape_count(&t->shape);
    struct walk w = {.t = t};

    for (int64_t i = 0; i < count; i++, walk_next(&w))
        ((struct sac_topk_pair *)t->data)[w.at] = pairs[i];
}

/* The epilogue is done on the way: first the sum, then the ReLU. */
static void scatter(const struct sac_tensor *t, const float *values, const struct sac_tensor *sum,
                    const struct sac_epilogue *epilogue)
{
    int64_t count = sac_shape_count(&t->shape);
    struct walk w = {.t = t}, s = {.t = sum};

    for (int64_t i = 0; i < count; i++, walk_next(&w)) {
        float value = values[i];
        if (epilogue->sum >= 0) {
            value += sac_element_load(sum, s.at);
            walk_next(&s);
        }
        if (epilogue->relu && value < 0)
            value *= epilogue->slope;
        sac_element_store(t, w.at, value);
    }
}

void sac_loop_convert_tensor(const struct sac_tensor *from, const struct sac_tensor *to)
{
    int64_t count = sac_shape_count(&from->shape);
    struct walk f = {.t = from}, t = {.t = to};

    for (int64_t i = 0; i < count; i++, walk_next(&f), walk_next(&t))
        sac_element_store(to, t.at, sac_element_load(from, f.at));
}

static size_t plain_bytes(const struct sac_shape *shape, bool pairs)
{
    size_t bytes = sac_tensor_bytes(shape, pairs ? SAC_TOPK_PAIR : SAC_F32);

    return bytes > SIZE_MAX / 4 ? SIZE_MAX / 4 : (bytes + 63) & ~(size_t)63;
}

static size_t plane_bytes(const struct sac_shape *shape)
{
    return shape->rank == 4 ? (size_t)(shape->dim[2] * shape->dim[3]) * sizeof(double) : 0;
}

void sac_loop_gather(const struct sac_tensor *t, float *out)
{
    gather(t, out);
}

void sac_loop_scatter(const struct sac_tensor *t, const float *values)
{
    static const struct sac_epilogue none = {.sum = -1};

    scatter(t, values, t, &none);
}

size_t sac_loop_plain_bytes(const struct sac_shape *shape)
{
    return plain_bytes(shape, false);
}

size_t sac_loop_plane_bytes(const struct sac_shape *shape)
{
    return plane_bytes(shape);
}

static bool any(const struct sac_cpu_ask *ask)
{
    (void)ask;
    return true;
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    const struct sac_node *node = ask->node;
    size_t plane = 0;

    if (caps->alias)
        return 0;
    caps->strided_dst = true;
    for (int i = 0; i < node->src_count + node->dst_count; i++) {
        int value = i < node->src_count ? node->src[i] : node->dst[i - node->src_count];
        const struct sac_shape *shape = &ask->graph->values[value].shape;
        size_t bytes = plain_bytes(shape, node->kind == SAC_OP_TOPK);
        if (__builtin_add_overflow(caps->workspace_bytes, bytes, &caps->workspace_bytes) ||
            caps->workspace_bytes > SIZE_MAX / 8)
            return sac_fail(err, SAC_ELIMIT, "%s: its values do not fit in memory", node->name);
        plane = plane_bytes(shape) > plane ? plane_bytes(shape) : plane;
    }
    caps->workspace_bytes += plane;
    return 0;
}

/* Where the gathered values stand in the workspace. */
struct state {
    double *scratch;
    float *values[]; /* sources, then results */
};

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err)
{
    int count = op->src_count + op->dst_count;
    struct state *state = malloc(sizeof *state + (size_t)count * sizeof *state->values);
    char *at = op->workspace;

    if (!state)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    op->state = state;
    for (int i = 0; i < count; i++) {
        const struct sac_tensor *t = i < op->src_count ? &op->src[i] : &op->dst[i - op->src_count];
        state->values[i] = (float *)at;
        at = at ? at + plain_bytes(&t->shape, op->kind == SAC_OP_TOPK) : NULL;
    }
    state->scratch = (double *)at;
    return sac_cpu_weights_plain(op, ask, store, err);
}

/* An alias that is run all the same has no workspace. */
static void move_as_bytes(const struct sac_op *op)
{
    for (int i = 0; i < op->dst_count; i++)
        if (op->dst[i].data != op->src[0].data)
            memmove(op->dst[i].data, op->src[0].data,
                    sac_tensor_bytes(&op->src[0].shape, op->src[0].form.type));
}

static int forward(struct sac_op *op, struct sac_error *err)
{
    struct state *state = op->state;
    float *const *y = state->values + op->src_count;

    bool aliases = op->kind == SAC_OP_RESHAPE || op->kind == SAC_OP_SPLIT ||
                   (op->kind == SAC_OP_DROPOUT && !op->param.dropout.mask);
    int rc = 0;

    if (aliases) {
        move_as_bytes(op);
        return 0;
    }
    for (int i = 0; i < op->src_count; i++)
        gather(&op->src[i], state->values[i]);
    if (op->kind == SAC_OP_SOFTMAX_LOSS || op->kind == SAC_OP_ACCURACY)
        rc = sac_loop_check_labels(op, state->values, err);
    if (rc != 0)
        return rc;
    loops[op->kind](op, state->values, y, state->scratch);
    for (int i = 0; i < op->dst_count; i++) {
        if (op->dst[i].form.type == SAC_TOPK_PAIR)
            scatter_pairs(&op->dst[i], (const struct sac_topk_pair *)y[i]);
        else
            scatter(&op->dst[i], y[i], &op->sum, &op->epilogue);
    }
    return 0;
}

const struct sac_cpu_kernel sac_cpu_loops = {
    .name = "loops",
    .can = any,
    .query = query,
    .prepare = prepare,
    .forward = forward,
    .free_state = free,
};
