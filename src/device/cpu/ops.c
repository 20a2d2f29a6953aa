#include "device/cpu/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/team.h"
#include "device/cpu/kernel.h"
#include "device/cpu/norm.h"
#include "device/cpu/onednn.h"
#include "device/cpu/stem.h"
#include "device/cpu/vector.h"
#include "device/forms.h"

enum { KERNELS_MAX = 4 };

/* The kernels of each kind, best first; the plain loops stand behind them all. */
static const struct sac_cpu_kernel *const kernels[SAC_OP_KINDS][KERNELS_MAX] = {
    [SAC_OP_CONV] = {&sac_cpu_stem, &sac_cpu_winograd, &sac_cpu_onednn},
    [SAC_OP_DECONV] = {&sac_cpu_onednn},
    [SAC_OP_INNER] = {&sac_cpu_matmul, &sac_cpu_onednn},
    [SAC_OP_POOL] = {&sac_cpu_vector},
    [SAC_OP_LRN] = {&sac_cpu_vector},
    [SAC_OP_RELU] = {&sac_cpu_vector},
    [SAC_OP_PRELU] = {&sac_cpu_vector},
    [SAC_OP_CONCAT] = {&sac_cpu_vector},
    [SAC_OP_SLICE] = {&sac_cpu_vector},
    [SAC_OP_ELTWISE] = {&sac_cpu_vector},
    [SAC_OP_SCALE] = {&sac_cpu_vector},
    [SAC_OP_BIAS] = {&sac_cpu_vector},
    [SAC_OP_SOFTMAX] = {&sac_cpu_vector},
    [SAC_OP_PIXELS] = {&sac_cpu_vector},
    [SAC_OP_CONVERT] = {&sac_cpu_vector},
    [SAC_OP_AFFINE] = {&sac_cpu_vector},
    [SAC_OP_TOPK] = {&sac_cpu_vector},
    [SAC_OP_DROPOUT] = {&sac_cpu_vector},
    [SAC_OP_BATCHNORM] = {&sac_cpu_norm},
};

static const struct sac_cpu_backward *const backwards[SAC_OP_KINDS][KERNELS_MAX] = {
    [SAC_OP_CONV] = {&sac_cpu_backward_onednn},
    [SAC_OP_DECONV] = {&sac_cpu_backward_onednn},
    [SAC_OP_INNER] = {&sac_cpu_backward_matmul, &sac_cpu_backward_onednn},
    [SAC_OP_POOL] = {&sac_cpu_backward_vector},
    [SAC_OP_LRN] = {&sac_cpu_backward_vector},
    [SAC_OP_RELU] = {&sac_cpu_backward_vector},
    [SAC_OP_DROPOUT] = {&sac_cpu_backward_vector},
    [SAC_OP_SPLIT] = {&sac_cpu_backward_vector},
    [SAC_OP_ELTWISE] = {&sac_cpu_backward_vector},
    [SAC_OP_CONCAT] = {&sac_cpu_backward_vector},
    [SAC_OP_CONVERT] = {&sac_cpu_backward_vector},
    [SAC_OP_SLICE] = {&sac_cpu_backward_vector},
    [SAC_OP_BATCHNORM] = {&sac_cpu_backward_norm},
    [SAC_OP_SCALE] = {&sac_cpu_backward_norm},
    [SAC_OP_BIAS] = {&sac_cpu_backward_norm},
    [SAC_OP_PRELU] = {&sac_cpu_backward_norm},
};

/* Without bf16 arithmetic, bf16 values would make everything slower and less
 * exact: fp32 then does what bf16 was asked for. */
static enum sac_type value_type(const struct sac_cpu_device *device,
                                const struct sac_op_options *options)
{
    bool native = device->features.avx512_bf16 || device->features.amx_bf16;
    bool wanted = options->precision == SAC_PRECISION_BF16 ||
                  options->precision == SAC_PRECISION_INT8; /* what is not in 8 bits */

    return wanted && (native || options->reference) ? SAC_BF16 : SAC_F32;
}

static bool has_precision(const struct sac_op_options *options)
{
    return options->precision == SAC_PRECISION_F32 || options->precision == SAC_PRECISION_BF16 ||
           (options->precision == SAC_PRECISION_INT8 && options->ranges && !options->training);
}

static int ask_of(struct sac_cpu_ask *ask, struct sac_device *device, const struct sac_graph *graph,
                  const struct sac_node *node, const struct sac_op_options *options,
                  struct sac_error *err)
{
    *ask = (struct sac_cpu_ask){
        .device = (struct sac_cpu_device *)device,
        .graph = graph,
        .node = node,
        .options = options,
    };
    ask->type = value_type(ask->device, options);
    sac_team_set(options->threads); /* libraries plan for as many as will run */
    if (!has_precision(options))
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%s: the cpu device computes in f32 and bf16, and without training in "
                        "int8 by the blobs' ranges, not in %s",
                        node->name, sac_precision_name(options->precision));
    if ((unsigned)node->kind >= SAC_OP_KINDS || node->src_count < 1 || node->dst_count < 1)
        return sac_fail(err, SAC_EINVAL, "%s: not an operation that can run", node->name);
    return 0;
}

static const struct sac_cpu_kernel *choose(const struct sac_cpu_ask *ask)
{
    const struct sac_cpu_kernel *const *row = kernels[ask->node->kind];

    for (int i = 0; i < KERNELS_MAX && row[i] && !ask->options->reference; i++)
        if (row[i]->can(ask))
            return row[i];
    return &sac_cpu_loops;
}

static const struct sac_cpu_backward *choose_backward(const struct sac_cpu_ask *ask)
{
    const struct sac_cpu_backward *const *row = backwards[ask->node->kind];

    for (int i = 0; i < KERNELS_MAX && row[i] && !ask->options->reference; i++)
        if (row[i]->can(ask))
            return row[i];
    return &sac_cpu_backward_loops;
}

int sac_cpu_op_query(struct sac_device *device, const struct sac_graph *graph,
                     const struct sac_node *node, const struct sac_op_options *options,
                     struct sac_op_caps *ret, struct sac_error *err)
{
    struct sac_cpu_ask ask;
    struct sac_op_caps caps = {0};
    int rc = ask_of(&ask, device, graph, node, options, err);

    if (rc != 0)
        return rc;
    const struct sac_cpu_kernel *kernel = choose(&ask);
    sac_usual_forms(graph, node, ask.type, options->training, &caps);
    caps.kernel = caps.alias ? "alias" : kernel->name;
    caps.flops = caps.alias ? 0 : sac_op_flops(graph, node);
    if (kernel->query)
        rc = kernel->query(&ask, &caps, err);
    if (rc == 0 && options->training)
        rc = choose_backward(&ask)->query(&ask, &caps, err);
    if (rc == 0)
        *ret = caps;
    return rc;
}

/* The arrays that a node's parameters point to, copied. */
static int copy_param(struct sac_op *op, const struct sac_cpu_ask *ask)
{
    const struct sac_node *node = ask->node;
    const float *from = NULL;
    int64_t count = 0;

    op->param = node->param;
    if (node->kind == SAC_OP_DROPOUT && !ask->options->training)
        op->param.dropout.mask = false;
    if (node->kind == SAC_OP_ELTWISE && node->param.eltwise.coeff) {
        from = node->param.eltwise.coeff;
        count = node->src_count;
    } else if (node->kind == SAC_OP_PIXELS && node->param.pixels.mean_image) {
        from = node->param.pixels.mean_image;
        count = sac_shape_count_between(&op->dst[0].shape, 1, op->dst[0].shape.rank);
    }
    if (!from)
        return 0;
    op->floats = malloc((size_t)count * sizeof *op->floats);
    if (!op->floats)
        return SAC_ENOMEM;
    memcpy(op->floats, from, (size_t)count * sizeof *op->floats);
    if (node->kind == SAC_OP_ELTWISE)
        op->param.eltwise.coeff = op->floats;
    else
        op->param.pixels.mean_image = op->floats;
    return 0;
}

static int copy_node(struct sac_op *op, const struct sac_cpu_ask *ask,
                     const struct sac_binding *binding)
{
    const struct sac_node *node = ask->node;

    op->name = strdup(node->name);
    op->kind = node->kind;
    op->threads = ask->options->threads;
    op->epilogue = node->epilogue;
    op->src_count = node->src_count;
    op->dst_count = node->dst_count;
    op->weight_count = node->weight_count;
    op->src = calloc((size_t)node->src_count, sizeof *op->src);
    op->dst = calloc((size_t)node->dst_count, sizeof *op->dst);
    op->sum = binding->sum;
    op->workspace = binding->workspace;
    op->saved = binding->saved;
    if (!op->name || !op->src || !op->dst)
        return SAC_ENOMEM;
    memcpy(op->src, binding->src, (size_t)node->src_count * sizeof *op->src);
    memcpy(op->dst, binding->dst, (size_t)node->dst_count * sizeof *op->dst);
    for (int i = 0; i < node->weight_count; i++)
        op->weight_shape[i] = ask->graph->constants[node->weight[i]].shape;
    return copy_param(op, ask);
}

/* What is not wanted, or zeros, has the shape of its value all the same. */
static void shape_gradients(struct sac_tensor *gradients, const struct sac_tensor *values,
                            int count)
{
    for (int i = 0; i < count; i++) {
        if (gradients[i].data)
            continue;
        gradients[i] = values[i];
        gradients[i].data = NULL;
    }
}

/* The gradients' addresses, where there are any. */
static int copy_gradients(struct sac_op *op, const struct sac_node *node,
                          const struct sac_binding *binding)
{
    op->training = true;
    op->src_grad = calloc((size_t)node->src_count, sizeof *op->src_grad);
    op->dst_grad = calloc((size_t)node->dst_count, sizeof *op->dst_grad);
    if (!op->src_grad || !op->dst_grad)
        return SAC_ENOMEM;
    if (binding->src_grad)
        memcpy(op->src_grad, binding->src_grad, (size_t)node->src_count * sizeof *op->src_grad);
    if (binding->dst_grad)
        memcpy(op->dst_grad, binding->dst_grad, (size_t)node->dst_count * sizeof *op->dst_grad);
    shape_gradients(op->src_grad, op->src, node->src_count);
    shape_gradients(op->dst_grad, op->dst, node->dst_count);
    for (int i = 0; i < node->weight_count && binding->weight_grad; i++)
        op->weight_grad[i] = binding->weight_grad[i];
    return 0;
}

static void take_masters(struct sac_op *op, const struct sac_binding *binding)
{
    op->random = binding->random;
    op->generation = binding->generation;
    for (int i = 0; i < op->weight_count && binding->weight; i++)
        op->master[i] = binding->weight[i];
}

int sac_cpu_op_prepare(struct sac_device *device, struct sac_store *store,
                       const struct sac_graph *graph, const struct sac_node *node,
                       const struct sac_op_options *options, const struct sac_binding *binding,
                       struct sac_op **ret, struct sac_error *err)
{
    struct sac_cpu_ask ask;
    struct sac_op *op = NULL;
    int rc = ask_of(&ask, device, graph, node, options, err);

    if (rc == 0) {
        op = calloc(1, sizeof *op);
        if (!op || copy_node(op, &ask, binding) != 0 ||
            (options->training && copy_gradients(op, node, binding) != 0))
            rc = sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", node->name);
    }
    if (rc == 0) {
        take_masters(op, binding);
        op->kernel = choose(&ask);
        if (op->kernel->prepare)
            rc = op->kernel->prepare(op, &ask, store, err);
    }
    if (rc == 0 && options->training) {
        op->backward = choose_backward(&ask);
        if (op->backward->prepare)
            rc = op->backward->prepare(op, &ask, err);
    }
    if (rc == 0) {
        *ret = op;
        op = NULL;
    }
    sac_cpu_op_free(op);
    return rc;
}

void sac_cpu_op_free(struct sac_op *op)
{
    if (!op)
        return;
    if (op->kernel && op->kernel->free_state && op->state)
        op->kernel->free_state(op->state);
    if (op->backward && op->backward->free_state && op->backward_state)
        op->backward->free_state(op->backward_state);
    free(op->src_grad);
    free(op->dst_grad);
    free(op->name);
    free(op->src);
    free(op->dst);
    free(op->floats);
    free(op);
}

int sac_cpu_op_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    (void)stream;
    sac_team_set(op->threads);
    return op->kernel->forward(op, err);
}

int sac_cpu_lower(struct sac_device *device, struct sac_graph *graph,
                  const struct sac_op_options *options, struct sac_error *err)
{
    (void)device;
    if (options->reference)
        return 0;
    sac_fuse_norms(graph);
    if (!options->training)
        sac_fuse_epilogues(graph);
    if (options->precision == SAC_PRECISION_INT8 && options->ranges)
        sac_quantize_graph(graph, options->ranges);
    return options->training ? 0 : sac_pool_before_concat(graph, err);
}

static int refuse_backward(const struct sac_op *op, struct sac_error *err)
{
    return sac_fail(err, SAC_EINVAL, "%s: it was not prepared for training", op->name);
}

int sac_cpu_op_backward_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    (void)stream;
    sac_team_set(op->threads);
    return op->backward ? op->backward->data(op, err) : refuse_backward(op, err);
}

int sac_cpu_op_backward_weights(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    (void)stream;
    sac_team_set(op->threads);
    return op->backward ? op->backward->weights(op, err) : refuse_backward(op, err);
}

/* Plain copies of weights. */

static int copy_plain(void *data, void *context, struct sac_error *err)
{
    const struct sac_constant *constant = context;

    (void)err;
    memcpy(data, constant->data, sac_tensor_bytes(&constant->shape, SAC_F32));
    return 0;
}

int sac_cpu_weight_plain(struct sac_op *op, const struct sac_cpu_ask *ask, int index,
                         struct sac_store *store, struct sac_error *err)
{
    struct sac_constant *constant = &ask->graph->constants[ask->node->weight[index]];
    struct sac_packer packer = {
        .bytes = sac_tensor_bytes(&constant->shape, SAC_F32),
        .pack = copy_plain,
        .context = constant,
    };
    const struct sac_packed *packed;

    if (op->master[index]) {
        op->weight[index] = op->master[index];
        return 0;
    }
    int rc = sac_cpu_store_pack(store, constant->name, "plain f32", &packer, &packed, err);

    if (rc == 0)
        op->weight[index] = packed->data;
    return rc;
}

int sac_cpu_weights_plain(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                          struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < ask->node->weight_count; i++)
        rc = sac_cpu_weight_plain(op, ask, i, store, err);
    return rc;
}
