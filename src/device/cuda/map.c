/* What maps numbers one by one: activations, factors, sums. */
#include <math.h>
#include <stdlib.h>

#include "device/cuda/cuda.h"
#include "kernels/training.h"

static const struct sac_shape *src_shape(const struct sac_cuda_ask *ask)
{
    return &ask->graph->values[ask->node->src[0]].shape;
}

/* ---- Factors and biases --------------------------------------------------- */

/* One number a channel: of axis 1, in any layout. */
static bool by_channel(const struct sac_cuda_ask *ask)
{
    const struct sac_shape *shape = src_shape(ask);
    const struct sac_node *node = ask->node;

    if (node->src_count > 1 || shape->rank < 2)
        return false;
    for (int i = 0; i < node->weight_count; i++)
        if (sac_shape_count(&ask->graph->constants[node->weight[i]].shape) != shape->dim[1])
            return false;
    return (node->kind != SAC_OP_SCALE && node->kind != SAC_OP_BIAS) || node->param.scale.axis == 1;
}

static bool has_factor(enum sac_op_kind kind)
{
    return kind == SAC_OP_SCALE || kind == SAC_OP_BIAS;
}

/* Factors over other axes than the channels are counted in the shape's order. */
static int map_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                     struct sac_error *err)
{
    (void)err;
    if (has_factor(ask->node->kind) && !by_channel(ask))
        caps->src.layout = caps->dst.layout = SAC_PLAIN;
    return 0;
}

/* Numbers from one channel to the next, in the tensor's layout. */
static uint32_t channel_inner(const struct sac_tensor *t)
{
    if (t->shape.rank >= 3 && t->form.layout == SAC_CHANNELS_LAST)
        return 1;
    return (uint32_t)sac_shape_count_between(&t->shape, t->shape.rank > 2 ? 2 : t->shape.rank,
                                             t->shape.rank);
}

static struct sac_kernel_map start(const struct sac_op *op, enum sac_map map)
{
    return (struct sac_kernel_map){
        .map = map,
        .x = op->src[0].data,
        .y = op->dst[0].data,
        .type = (int)op->dst[0].form.type,
        .count = (uint32_t)sac_shape_count(&op->dst[0].shape),
        .factor_type = SAC_F32,
        .relu = op->epilogue.relu,
        .slope = op->epilogue.slope,
        .inner = channel_inner(&op->dst[0]),
        .factors = op->dst[0].shape.rank > 1 ? (uint32_t)op->dst[0].shape.dim[1] : 1,
    };
}

/* SCALE and BIAS: the factor is a source or a weight, the scale's bias a weight. */
static void set_factor(const struct sac_op *op, bool channels, struct sac_kernel_map *map)
{
    bool two = op->src_count > 1;
    const struct sac_shape *shape = two ? &op->src[1].shape : &op->weight_shape[0];
    const void *first = two ? op->src[1].data : op->weight[0];

    map->factor_type = (int)(two ? op->src[1].form.type : SAC_F32);
    if (!channels) {
        map->factors = (uint32_t)sac_shape_count(shape);
        map->inner = (uint32_t)sac_shape_count_between(&op->src[0].shape, op->param.scale.axis,
                                                       op->src[0].shape.rank) /
                     (map->factors > 0 ? map->factors : 1);
    }
    if (op->kind == SAC_OP_SCALE) {
        map->factor = first;
        if (op->param.scale.bias)
            map->bias = op->weight[two ? 0 : 1];
    } else if (two) {
        map->map = SAC_MAP_ADD;
        map->factor = first;
    } else {
        map->bias = first;
    }
}

static struct sac_kernel_map of_op(const struct sac_op *op, bool channels)
{
    struct sac_kernel_map map = start(op, SAC_MAP_LINEAR);

    switch (op->kind) {
    case SAC_OP_RELU:
        map.relu = true;
        map.slope = op->param.relu.slope;
        break;
    case SAC_OP_PRELU:
        map.map = SAC_MAP_PRELU;
        map.factor = op->weight[0];
        if (sac_shape_count(&op->weight_shape[0]) == 1)
            map.factors = 1;
        break;
    case SAC_OP_SIGMOID:
        map.map = SAC_MAP_SIGMOID;
        break;
    case SAC_OP_TANH:
        map.map = SAC_MAP_TANH;
        break;
    case SAC_OP_ELU:
        map.map = SAC_MAP_ELU;
        map.a = op->param.elu.alpha;
        break;
    case SAC_OP_POWER:
        map.map = SAC_MAP_POWER;
        map.a = op->param.power.power;
        map.b = op->param.power.scale;
        map.c = op->param.power.shift;
        break;
    case SAC_OP_AFFINE:
        map.factor = op->weight[0];
        map.bias = op->weight[1];
        break;
    default:
        set_factor(op, channels, &map);
        break;
    }
    return map;
}

static int whole_tensors(const struct sac_op *op, struct sac_error *err)
{
    for (int i = 0; i < op->src_count + op->dst_count; i++)
        if (!sac_cuda_is_whole(i < op->src_count ? &op->src[i] : &op->dst[i - op->src_count]))
            return sac_fail(err, SAC_EUNSUPPORTED, "%s: a view where a whole blob is expected",
                            op->name);
    return 0;
}

static int map_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                       struct sac_error *err)
{
    struct sac_kernel_map *map = malloc(sizeof *map);
    int rc = map ? whole_tensors(op, err)
                 : sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);

    op->state = map;
    for (int i = 0; i < ask->node->weight_count && rc == 0; i++)
        rc = sac_cuda_weight_plain(op, ask, i, store, err);
    if (rc == 0)
        *map = of_op(op, by_channel(ask));
    return rc;
}

static int map_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    return sac_cuda_check(op->device, sac_kernel_map(op->state, stream->stream), op->name, err);
}

const struct sac_cuda_kernel sac_cuda_map = {
    .name = "map",
    .query = map_query,
    .prepare = map_prepare,
    .forward = map_forward,
    .free_state = free,
};

int sac_cuda_finish(struct sac_op *op, const float *bias, bool sum, struct sac_stream *stream,
                    struct sac_error *err)
{
    struct sac_kernel_map map = start(op, SAC_MAP_LINEAR);

    if (!bias && !sum && !map.relu)
        return 0;
    map.x = map.y;
    map.bias = bias;
    map.sum = sum ? op->sum.data : NULL;
    return sac_cuda_check(op->device, sac_kernel_map(&map, stream->stream), op->name, err);
}

/* ---- Batch norm ----------------------------------------------------------- */

/* With stored statistics, factors made here on the host, or, of masters, by a kernel;
 * with the batch's own, by a kernel, into the workspace, or kept for the way back. */
struct norm {
    struct sac_kernel_statistics statistics;
    struct sac_kernel_norm_factors factors;
    struct sac_kernel_map map;
    bool global;
};

static int64_t norm_channels(const struct sac_shape *shape)
{
    return shape->rank > 1 ? shape->dim[1] : 1;
}

/* Behind the statistics' factors and biases, those with the scale's: four a channel. */
static size_t factor_bytes(int64_t channels)
{
    return (size_t)channels * 4 * sizeof(float);
}

static int norm_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    size_t bytes = factor_bytes(norm_channels(src_shape(ask)));
    struct sac_tensor x = {.shape = *src_shape(ask), .form = caps->src};
    struct sac_kernel_columns c = sac_cuda_columns_of(&x);

    (void)err;
    if (ask->node->param.batchnorm.global_stats)
        return 0;
    caps->workspace_bytes = sac_kernel_columns_bytes(c.outer, c.channels, c.inner);
    if (ask->options->training)
        caps->saved_bytes = bytes;
    else
        caps->workspace_bytes += bytes;
    return 0;
}

/* What a Scale behind it has (device/fuse.c): its masters, which only training has. */
static const float *norm_gamma(const struct sac_op *op)
{
    return op->weight_count > 3 ? op->master[3] : NULL;
}

static const float *norm_beta(const struct sac_op *op)
{
    return op->weight_count > 4 ? op->master[4] : NULL;
}

/* weights: mean, variance, and the factor that both were summed with. */
static int stored_factors(struct sac_op *op, const struct sac_cuda_ask *ask, struct norm *norm,
                          struct sac_error *err)
{
    const struct sac_constant *constants = ask->graph->constants;
    const int *weight = ask->node->weight;
    int64_t channels = norm_channels(src_shape(ask));
    size_t bytes = (size_t)channels * 2 * sizeof(float);
    double sum = op->weight_count > 2 ? constants[weight[2]].data[0] : 0;
    double unscale = sum == 0 ? 0 : 1 / sum;
    float *factors = malloc(bytes ? bytes : 1);
    int rc = factors ? 0 : sac_fail(err, SAC_ENOMEM, "%s: out of memory", op->name);

    for (int64_t c = 0; c < channels && rc == 0; c++) {
        double root = sqrt(constants[weight[1]].data[c] * unscale + op->param.batchnorm.eps);
        factors[c] = (float)(1 / root);
        factors[channels + c] = (float)(-constants[weight[0]].data[c] * unscale / root);
    }
    if (rc == 0)
        rc = sac_cuda_memory_new(&op->device->base, SAC_MEMORY_DEVICE, bytes, &op->owned, err);
    if (rc == 0)
        rc = sac_cuda_upload(op->device, op->owned, factors, bytes, err);
    norm->map.factor = op->owned;
    norm->map.bias = (const float *)op->owned + channels;
    free(factors);
    return rc;
}

static int master_factors(struct sac_op *op, int64_t channels, struct norm *norm,
                          struct sac_error *err)
{
    int rc = sac_cuda_memory_new(&op->device->base, SAC_MEMORY_DEVICE, factor_bytes(channels),
                                 &op->owned, err);
    float *factors = op->owned;

    if (rc != 0)
        return rc;
    norm->factors = (struct sac_kernel_norm_factors){
        .mean = op->master[0],
        .variance = op->master[1],
        .s = op->master[2],
        .channels = (uint32_t)channels,
        .eps = op->param.batchnorm.eps,
        .factor = factors,
        .bias = factors + channels,
        .gamma = norm_gamma(op),
        .beta = norm_beta(op),
        .whole = factors + 2 * channels,
    };
    norm->map.factor = factors + 2 * channels;
    norm->map.bias = factors + 3 * channels;
    return 0;
}

static void own_factors(const struct sac_op *op, struct norm *norm)
{
    const struct sac_tensor *x = &op->src[0];
    bool last = x->shape.rank >= 3 && x->form.layout == SAC_CHANNELS_LAST;
    uint32_t channels = (uint32_t)norm_channels(&x->shape);
    uint32_t positions =
        (uint32_t)sac_shape_count_between(&x->shape, x->shape.rank > 1 ? 2 : 1, x->shape.rank);
    uint32_t batch = (uint32_t)x->shape.dim[0];
    size_t work =
        sac_kernel_columns_bytes(last ? batch * positions : batch, channels, last ? 1 : positions);
    float *factors = op->training ? op->saved : (float *)op->workspace + work / sizeof *factors;

    norm->statistics = (struct sac_kernel_statistics){
        .x = x->data,
        .type = (int)x->form.type,
        .outer = last ? batch * positions : batch,
        .channels = channels,
        .inner = last ? 1 : positions,
        .eps = op->param.batchnorm.eps,
        .work = op->workspace,
        .factor = factors,
        .bias = factors + channels,
        .gamma = norm_gamma(op),
        .beta = norm_beta(op),
        .whole = factors + 2 * channels,
    };
    if (op->training && op->master[0]) {
        norm->statistics.running_mean = op->master[0];
        norm->statistics.running_variance = op->master[1];
        norm->statistics.running_count = op->master[2];
        norm->statistics.fraction = op->param.batchnorm.fraction;
    }
    norm->map.factor = factors + 2 * channels;
    norm->map.bias = factors + 3 * channels;
}

static int norm_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                        struct sac_error *err)
{
    struct norm *norm = calloc(1, sizeof *norm);
    int rc = norm ? whole_tensors(op, err)
                  : sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);

    (void)store;
    op->state = norm;
    if (rc != 0)
        return rc;
    norm->global = op->param.batchnorm.global_stats;
    norm->map = start(op, SAC_MAP_LINEAR);
    if (norm->global && op->master[0] && op->weight_count > 2)
        return master_factors(op, norm_channels(src_shape(ask)), norm, err);
    if (norm->global)
        return stored_factors(op, ask, norm, err);
    own_factors(op, norm);
    return 0;
}

static int norm_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct norm *norm = op->state;
    cudaError_t code = cudaSuccess;

    if (!norm->global)
        code = sac_kernel_statistics(&norm->statistics, stream->stream);
    else if (norm->factors.factor)
        code = sac_kernel_norm_factors(&norm->factors, stream->stream);
    if (code == cudaSuccess)
        code = sac_kernel_map(&norm->map, stream->stream);
    return sac_cuda_check(op->device, code, op->name, err);
}

const struct sac_cuda_kernel sac_cuda_batchnorm = {
    .name = "batch norm",
    .query = norm_query,
    .prepare = norm_prepare,
    .forward = norm_forward,
    .free_state = free,
};

/* ---- Several sources ------------------------------------------------------ */

static int eltwise_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                           struct sac_store *store, struct sac_error *err)
{
    const void **x = calloc((size_t)op->src_count, sizeof *x);

    (void)ask;
    (void)store;
    op->state = x;
    for (int i = 0; x && i < op->src_count; i++)
        x[i] = op->src[i].data;
    return x ? whole_tensors(op, err)
             : sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
}

static int eltwise_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_eltwise p = {
        .method = op->param.eltwise.method,
        .x = op->state,
        .coeff = op->param.eltwise.coeff,
        .sources = op->src_count,
        .y = op->dst[0].data,
        .type = (int)op->dst[0].form.type,
        .count = (uint32_t)sac_shape_count(&op->dst[0].shape),
        .relu = op->epilogue.relu,
        .slope = op->epilogue.slope,
    };

    return sac_cuda_check(op->device, sac_kernel_eltwise(&p, stream->stream), op->name, err);
}

const struct sac_cuda_kernel sac_cuda_eltwise = {
    .name = "eltwise",
    .prepare = eltwise_prepare,
    .forward = eltwise_forward,
    .free_state = free,
};
