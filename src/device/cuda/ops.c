/* What runs an operation: chosen, described, made, enqueued. */
#include "device/cuda/cuda.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda/algorithms.h"
#include "device/forms.h"

enum { KERNELS_MAX = 4 };

/* The kernels of each kind, best first. The first that can, does; those that must
 * not depend on the batch, or are to check the others, come without libraries. */
static const struct sac_cuda_kernel *const kernels[SAC_OP_KINDS][KERNELS_MAX] = {
    [SAC_OP_CONV] = {&sac_cuda_depthwise, &sac_cuda_pointwise, &sac_cuda_conv,
                     &sac_cuda_direct_conv},
    [SAC_OP_DECONV] = {&sac_cuda_deconv, &sac_cuda_direct_deconv},
    [SAC_OP_INNER] = {&sac_cuda_inner, &sac_cuda_direct_inner},
    [SAC_OP_POOL] = {&sac_cuda_pool},
    [SAC_OP_LRN] = {&sac_cuda_lrn},
    [SAC_OP_RELU] = {&sac_cuda_map},
    [SAC_OP_PRELU] = {&sac_cuda_map},
    [SAC_OP_SIGMOID] = {&sac_cuda_map},
    [SAC_OP_TANH] = {&sac_cuda_map},
    [SAC_OP_ELU] = {&sac_cuda_map},
    [SAC_OP_POWER] = {&sac_cuda_map},
    [SAC_OP_DROPOUT] = {&sac_cuda_dropout, &sac_cuda_copy},
    [SAC_OP_CONCAT] = {&sac_cuda_copy},
    [SAC_OP_SLICE] = {&sac_cuda_copy},
    [SAC_OP_RESHAPE] = {&sac_cuda_copy},
    [SAC_OP_ELTWISE] = {&sac_cuda_eltwise},
    [SAC_OP_BATCHNORM] = {&sac_cuda_batchnorm},
    [SAC_OP_SCALE] = {&sac_cuda_map},
    [SAC_OP_BIAS] = {&sac_cuda_map},
    [SAC_OP_SOFTMAX] = {&sac_cuda_softmax},
    [SAC_OP_SOFTMAX_LOSS] = {&sac_cuda_softmax_loss},
    [SAC_OP_EUCLIDEAN_LOSS] = {&sac_cuda_pair_loss},
    [SAC_OP_SIGMOID_LOSS] = {&sac_cuda_pair_loss},
    [SAC_OP_ACCURACY] = {&sac_cuda_accuracy},
    [SAC_OP_SPLIT] = {&sac_cuda_copy},
    [SAC_OP_PIXELS] = {&sac_cuda_pixels},
    [SAC_OP_CONVERT] = {&sac_cuda_copy},
    [SAC_OP_AFFINE] = {&sac_cuda_map},
    [SAC_OP_TOPK] = {&sac_cuda_topk},
};

static enum sac_type type_of(enum sac_precision precision)
{
    return precision == SAC_PRECISION_F16    ? SAC_F16
           : precision == SAC_PRECISION_BF16 ? SAC_BF16
                                             : SAC_F32;
}

/* Kernels count in 32 bits. */
static int check_sizes(const struct sac_cuda_ask *ask, struct sac_error *err)
{
    const struct sac_node *node = ask->node;

    for (int i = 0; i < node->src_count + node->dst_count; i++) {
        int value = i < node->src_count ? node->src[i] : node->dst[i - node->src_count];
        int64_t count = sac_shape_count(&ask->graph->values[value].shape);
        if (count < 0 || count > INT32_MAX)
            return sac_fail(err, SAC_ELIMIT, "%s: more than 2³¹ numbers in a blob", node->name);
    }
    return 0;
}

static int ask_of(struct sac_cuda_ask *ask, struct sac_device *device,
                  const struct sac_graph *graph, const struct sac_node *node,
                  const struct sac_op_options *options, struct sac_error *err)
{
    *ask = (struct sac_cuda_ask){
        .device = (struct sac_cuda_device *)device,
        .graph = graph,
        .node = node,
        .options = options,
        .type = type_of(options->precision),
    };
    if (!(device->info.precisions & 1u << options->precision))
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: %s does not compute in %s", node->name,
                        device->info.name, sac_precision_name(options->precision));
    if ((unsigned)node->kind >= SAC_OP_KINDS || node->src_count < 1 || node->dst_count < 1)
        return sac_fail(err, SAC_EINVAL, "%s: not an operation that can run", node->name);
    return check_sizes(ask, err);
}

static bool is_librarys(const struct sac_cuda_kernel *kernel)
{
    return kernel == &sac_cuda_conv || kernel == &sac_cuda_deconv || kernel == &sac_cuda_inner ||
           kernel == &sac_cuda_pointwise;
}

static const struct sac_cuda_kernel *choose(const struct sac_cuda_ask *ask, struct sac_error *err)
{
    const struct sac_cuda_kernel *const *row = kernels[ask->node->kind];
    const struct sac_op_options *options = ask->options;
    char text[SAC_SHAPE_TEXT];

    /* In training the batch is always the same, and a library's numbers with it. */
    bool plain = options->reference || (options->deterministic && !options->training);

    for (int i = 0; i < KERNELS_MAX && row[i]; i++) {
        bool alone = row[i] == &sac_cuda_conv && !options->reference; /* a picture at a time */
        bool skip = (is_librarys(row[i]) && plain && !alone) ||
                    (row[i] == &sac_cuda_depthwise && options->reference);
        if (!skip && (!row[i]->can || row[i]->can(ask)))
            return row[i];
    }
    sac_fail(err, SAC_EUNSUPPORTED, "%s: the cuda device has no %s for %s", ask->node->name,
             sac_op_kind_name(ask->node->kind),
             sac_shape_text(&ask->graph->values[ask->node->src[0]].shape, text, sizeof text));
    return NULL;
}

int sac_cuda_op_query(struct sac_device *device, const struct sac_graph *graph,
                      const struct sac_node *node, const struct sac_op_options *options,
                      struct sac_op_caps *ret, struct sac_error *err)
{
    struct sac_cuda_ask ask;
    struct sac_op_caps caps = {0};
    int rc = ask_of(&ask, device, graph, node, options, err);

    if (rc == 0)
        rc = sac_cuda_use(ask.device, err);
    if (rc != 0)
        return rc;
    const struct sac_cuda_kernel *kernel = choose(&ask, err);
    if (!kernel)
        return SAC_EUNSUPPORTED;
    sac_usual_forms(graph, node, ask.type, options->training, &caps);
    caps.kernel = caps.alias ? "alias" : kernel->name;
    caps.flops = caps.alias ? 0 : sac_op_flops(graph, node);
    if (kernel->query)
        rc = kernel->query(&ask, &caps, err);
    if (rc == 0 && options->training)
        rc = sac_cuda_backward_query(&ask, &caps, err);
    if (rc == 0)
        *ret = caps;
    return rc;
}

static int copy_coefficients(struct sac_op *op)
{
    const float *coeff = op->param.eltwise.coeff;
    size_t bytes = (size_t)op->src_count * sizeof *coeff;

    if (op->kind != SAC_OP_ELTWISE || !coeff)
        return 0;
    op->floats = malloc(bytes);
    if (!op->floats)
        return SAC_ENOMEM;
    op->param.eltwise.coeff = memcpy(op->floats, coeff, bytes);
    return 0;
}

static int copy_node(struct sac_op *op, const struct sac_cuda_ask *ask,
                     const struct sac_binding *binding)
{
    const struct sac_node *node = ask->node;

    op->device = ask->device;
    op->precision = ask->options->precision;
    op->name = strdup(node->name);
    op->kind = node->kind;
    op->param = node->param;
    op->epilogue = node->epilogue;
    op->src_count = node->src_count;
    op->dst_count = node->dst_count;
    op->weight_count = node->weight_count;
    op->src = calloc((size_t)node->src_count, sizeof *op->src);
    op->dst = calloc((size_t)node->dst_count, sizeof *op->dst);
    op->sum = binding->sum;
    op->workspace = binding->workspace;
    op->workspace_bytes = binding->workspace ? binding->workspace_bytes : 0;
    op->saved = binding->saved;
    op->training = ask->options->training;
    op->random = binding->random;
    op->generation = binding->generation;
    for (int i = 0; i < node->weight_count && binding->weight; i++)
        op->master[i] = binding->weight[i];
    if (!op->name || !op->src || !op->dst)
        return SAC_ENOMEM;
    memcpy(op->src, binding->src, (size_t)node->src_count * sizeof *op->src);
    memcpy(op->dst, binding->dst, (size_t)node->dst_count * sizeof *op->dst);
    for (int i = 0; i < node->weight_count; i++)
        op->weight_shape[i] = ask->graph->constants[node->weight[i]].shape;
    return copy_coefficients(op);
}

int sac_cuda_op_prepare(struct sac_device *device, struct sac_store *store,
                        const struct sac_graph *graph, const struct sac_node *node,
                        const struct sac_op_options *options, const struct sac_binding *binding,
                        struct sac_op **ret, struct sac_error *err)
{
    struct sac_cuda_ask ask;
    struct sac_op *op = NULL;
    int rc = ask_of(&ask, device, graph, node, options, err);

    if (rc == 0)
        rc = sac_cuda_use(ask.device, err);
    if (rc == 0) /* all of a plan's questions were asked: once a plan */
        sac_algorithms_save(ask.device->algorithms);
    if (rc == 0) {
        op = calloc(1, sizeof *op);
        if (!op || copy_node(op, &ask, binding) != 0)
            rc = sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", node->name);
    }
    if (rc == 0) {
        op->kernel = choose(&ask, err);
        rc = op->kernel ? 0 : SAC_EUNSUPPORTED;
    }
    if (rc == 0 && op->kernel->prepare)
        rc = op->kernel->prepare(op, &ask, store, err);
    if (rc == 0 && options->training)
        rc = sac_cuda_backward_prepare(op, &ask, binding, err);
    if (rc == 0) {
        *ret = op;
        op = NULL;
    }
    sac_cuda_op_free(op);
    return rc;
}

int sac_cuda_check_workspace(const struct sac_op *op, size_t bytes, struct sac_error *err)
{
    if (bytes <= op->workspace_bytes)
        return 0;
    return sac_fail(err, SAC_EINVAL, "%s: it needs %zu bytes of workspace and is bound to %zu",
                    op->name, bytes, op->workspace_bytes);
}

void sac_cuda_op_free(struct sac_op *op)
{
    if (!op)
        return;
    if (op->kernel && op->kernel->free_state && op->state)
        op->kernel->free_state(op->state);
    sac_cuda_backward_free(op);
    sac_cuda_follows_free(op);
    if (op->owned)
        sac_cuda_memory_free(&op->device->base, SAC_MEMORY_DEVICE, op->owned);
    free(op->name);
    free(op->src);
    free(op->dst);
    free(op->floats);
    free(op);
}

int sac_cuda_op_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    int rc = sac_cuda_use(op->device, err);

    if (rc == 0)
        rc = sac_cuda_follow_masters(op, stream, err);
    return rc ? rc : op->kernel->forward(op, stream, err);
}

bool sac_cuda_is_whole(const struct sac_tensor *t)
{
    struct sac_tensor whole = sac_tensor_of(&t->shape, t->form);

    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dim[i] > 1 && whole.stride[i] != t->stride[i])
            return false;
    return true;
}

bool sac_cuda_is_rows(const struct sac_tensor *t, int64_t *ret_pitch)
{
    const int order[] = {3, 2, 0}; /* the rows' axes, innermost first */
    int64_t pitch = 0, next = 0;

    if (t->shape.rank == 2) {
        *ret_pitch = t->shape.dim[0] > 1 ? t->stride[0] : t->shape.dim[1];
        return t->stride[1] == 1 || t->shape.dim[1] == 1;
    }
    if (t->shape.rank != 4 || t->form.layout != SAC_CHANNELS_LAST)
        return false;
    for (int i = 0; i < 3; i++) {
        int64_t dim = t->shape.dim[order[i]], stride = t->stride[order[i]];
        if (dim == 1)
            continue;
        if (pitch == 0)
            next = pitch = stride;
        if (stride != next)
            return false;
        next *= dim;
    }
    *ret_pitch = pitch > 0 ? pitch : t->shape.dim[1];
    return t->shape.dim[1] <= 1 || t->stride[1] == 1;
}

int sac_cuda_need_rows(const struct sac_op *op, const struct sac_tensor *t, int64_t *ret_pitch,
                       struct sac_error *err)
{
    if (sac_cuda_is_rows(t, ret_pitch))
        return 0;
    return sac_fail(err, SAC_EUNSUPPORTED, "%s: a view that is not a part of the channels",
                    op->name);
}
