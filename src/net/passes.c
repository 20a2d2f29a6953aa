#include "net/passes.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What sac_graph_compact removes. */
static const enum sac_op_kind REMOVED = SAC_OP_KINDS;

static bool plain_epilogue(const struct sac_node *node)
{
    return node->epilogue.sum < 0 && !node->epilogue.relu;
}

/* ---- Nodes without effect ------------------------------------------------ */

static bool is_identity(const struct sac_graph *graph, const struct sac_node *node)
{
    if (!plain_epilogue(node) || node->src_count != 1 || node->dst_count != 1)
        return false;
    switch ((int)node->kind) {
    case SAC_OP_DROPOUT:
    case SAC_OP_CONCAT:
    case SAC_OP_SLICE:
        return true;
    case SAC_OP_RESHAPE:
        return sac_shape_equal(&graph->values[node->src[0]].shape,
                               &graph->values[node->dst[0]].shape);
    default:
        return false;
    }
}

static void remove_identities(struct sac_graph *graph)
{
    for (int i = 0; i < graph->node_count; i++) {
        struct sac_node *node = &graph->nodes[i];
        if (is_identity(graph, node)) {
            node->kind = REMOVED;
            sac_graph_replace_uses(graph, node->dst[0], node->src[0]);
        }
    }
}

static bool any_used(const struct sac_graph *graph, const struct sac_node *node)
{
    for (int i = 0; i < node->dst_count; i++)
        if (sac_graph_use_count(graph, node->dst[i]) > 0)
            return true;
    return false;
}

void sac_pass_remove_dead(struct sac_graph *graph)
{
    remove_identities(graph);
    /* From the end, so that what only dead nodes used is dead in its turn. */
    for (int i = graph->node_count - 1; i >= 0; i--)
        if (graph->nodes[i].kind != REMOVED && !any_used(graph, &graph->nodes[i]))
            graph->nodes[i].kind = REMOVED;
    sac_graph_compact(graph);
}

/* ---- Constants ----------------------------------------------------------- */

/* Names are formulas over the names of what a constant was made of: they do not
 * depend on the batch size, and equal names hold equal numbers. */
__attribute__((format(printf, 2, 3))) static const char *name_of(struct sac_graph *graph,
                                                                 const char *format, ...)
{
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    char *name = length < 0 ? NULL : sac_arena_alloc(graph->arena, (size_t)length + 1);
    if (name)
        vsnprintf(name, (size_t)length + 1, format, again);
    va_end(again);
    va_end(args);
    return name;
}

static int out_of_memory(const char *name, struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "layer %s: out of memory for folding its weights", name);
}

static float *new_floats(struct sac_graph *graph, const struct sac_shape *shape)
{
    int64_t count = sac_shape_count(shape);

    return count < 0 ? NULL : sac_arena_zalloc(graph->arena, (size_t)count, sizeof(float));
}

static struct sac_shape vector_shape(int64_t count)
{
    return (struct sac_shape){.rank = 1, .dim = {count}};
}

/* Adds a constant of `count` floats, whose name and data may be NULL for lack of
 * memory; -1 then. */
static int add_vector(struct sac_graph *graph, const char *name, int64_t count, const float *data)
{
    struct sac_shape shape = vector_shape(count);

    return name && data ? sac_graph_add_constant(graph, name, &shape, data) : -1;
}

static int add_filled(struct sac_graph *graph, const char *name, int64_t count, float value)
{
    struct sac_shape shape = vector_shape(count);
    float *data = new_floats(graph, &shape);

    for (int64_t i = 0; data && i < count; i++)
        data[i] = value;
    return add_vector(graph, name, count, data);
}

static const struct sac_constant *weight_of(const struct sac_graph *graph,
                                            const struct sac_node *node, int index)
{
    return &graph->constants[node->weight[index]];
}

/* ---- BatchNorm, Scale and Bias become AFFINE ------------------------------ */

static int64_t channels_of(const struct sac_graph *graph, const struct sac_node *node)
{
    const struct sac_shape *shape = &graph->values[node->src[0]].shape;

    return shape->rank >= 2 ? shape->dim[1] : -1;
}

static bool has_channels(const struct sac_graph *graph, const struct sac_node *node, int index)
{
    return sac_shape_count(&weight_of(graph, node, index)->shape) == channels_of(graph, node);
}

static bool stored_statistics(const struct sac_graph *graph, const struct sac_node *node)
{
    return node->kind == SAC_OP_BATCHNORM && node->param.batchnorm.global_stats &&
           node->weight_count == 3 && has_channels(graph, node, 0) && has_channels(graph, node, 1);
}

/* By weights, along axis 1 and no other. */
static bool along_channels(const struct sac_graph *graph, const struct sac_node *node)
{
    const struct sac_shape *shape = &graph->values[node->src[0]].shape;
    int axis = node->param.scale.axis, num_axes = node->param.scale.num_axes;

    if (node->kind != SAC_OP_SCALE && node->kind != SAC_OP_BIAS)
        return false;
    if (node->src_count != 1 || node->weight_count < 1)
        return false;
    axis += axis < 0 ? shape->rank : 0;
    num_axes = num_axes < 0 ? shape->rank - axis : num_axes;
    return axis == 1 && num_axes == 1 && has_channels(graph, node, 0);
}

struct affine {
    int a, b; /* constants; -1: memory is out */
};

static struct affine affine_of_batchnorm(struct sac_graph *graph, const struct sac_node *node)
{
    const struct sac_constant *mean = weight_of(graph, node, 0);
    const struct sac_constant *variance = weight_of(graph, node, 1);
    const struct sac_constant *factor = weight_of(graph, node, 2);
    int64_t channels = channels_of(graph, node);
    struct sac_shape shape = vector_shape(channels);
    double eps = (double)node->param.batchnorm.eps;
    double unit = factor->data[0] == 0 ? 0 : 1 / (double)factor->data[0];
    float *a = new_floats(graph, &shape), *b = new_floats(graph, &shape);

    if (!a || !b)
        return (struct affine){-1, -1};
    for (int64_t c = 0; c < channels; c++) {
        double scale = 1 / sqrt((double)variance->data[c] * unit + eps);
        a[c] = (float)scale;
        b[c] = (float)(-(double)mean->data[c] * unit * scale);
    }
    const char *a_name = name_of(graph, "rsqrt(%s/%s+%.9g)", variance->name, factor->name, eps);
    const char *b_name = name_of(graph, "-%s/%s*rsqrt(%s/%s+%.9g)", mean->name, factor->name,
                                 variance->name, factor->name, eps);
    int a_index = add_vector(graph, a_name, channels, a);
    return (struct affine){a_index, add_vector(graph, b_name, channels, b)};
}

static struct affine affine_of_scale(struct sac_graph *graph, const struct sac_node *node)
{
    const struct sac_constant *first = weight_of(graph, node, 0);
    int64_t channels = channels_of(graph, node);
    int index = add_vector(graph, first->name, channels, first->data);

    if (node->kind == SAC_OP_BIAS)
        return (struct affine){
            add_filled(graph, name_of(graph, "ones[%lld]", (long long)channels), channels, 1),
            index};
    if (node->weight_count > 1) {
        const struct sac_constant *bias = weight_of(graph, node, 1);
        return (struct affine){index, add_vector(graph, bias->name, channels, bias->data)};
    }
    return (struct affine){
        index, add_filled(graph, name_of(graph, "zeros[%lld]", (long long)channels), channels, 0)};
}

static int become_affine(struct sac_graph *graph, struct sac_node *node, struct sac_error *err)
{
    struct affine affine = node->kind == SAC_OP_BATCHNORM ? affine_of_batchnorm(graph, node)
                                                          : affine_of_scale(graph, node);

    if (affine.a < 0 || affine.b < 0)
        return out_of_memory(node->name, err);
    node->kind = SAC_OP_AFFINE;
    memset(&node->param, 0, sizeof node->param);
    node->weight_count = 2;
    node->weight[0] = affine.a;
    node->weight[1] = affine.b;
    return 0;
}

/* The node before, when all that it makes is node's source; else NULL. */
static struct sac_node *sole_producer(const struct sac_graph *graph, const struct sac_node *node)
{
    int at = sac_graph_producer(graph, node->src[0]);

    if (at < 0 || sac_graph_use_count(graph, node->src[0]) != 1)
        return NULL;
    struct sac_node *before = &graph->nodes[at];
    return before->dst_count == 1 && plain_epilogue(before) ? before : NULL;
}

/* a₂(a₁x + b₁) + b₂, in `node`; `before` goes. */
static int merge_affines(struct sac_graph *graph, struct sac_node *before, struct sac_node *node,
                         struct sac_error *err)
{
    const struct sac_constant *a1 = weight_of(graph, before, 0), *b1 = weight_of(graph, before, 1);
    const struct sac_constant *a2 = weight_of(graph, node, 0), *b2 = weight_of(graph, node, 1);
    int64_t channels = channels_of(graph, node);
    struct sac_shape shape = vector_shape(channels);
    const char *a_name = name_of(graph, "(%s)*(%s)", a1->name, a2->name);
    const char *b_name = name_of(graph, "(%s)*(%s)+(%s)", b1->name, a2->name, b2->name);
    float *a = new_floats(graph, &shape), *b = new_floats(graph, &shape);

    for (int64_t c = 0; a && b && c < channels; c++) {
        a[c] = (float)((double)a1->data[c] * (double)a2->data[c]);
        b[c] = (float)((double)b1->data[c] * (double)a2->data[c] + (double)b2->data[c]);
    }
    int a_index = add_vector(graph, a_name, channels, a);
    int b_index = add_vector(graph, b_name, channels, b);
    if (a_index < 0 || b_index < 0)
        return out_of_memory(node->name, err);
    node->weight[0] = a_index;
    node->weight[1] = b_index;
    node->src[0] = before->src[0];
    node->name = sac_graph_join_names(graph, before->name, node->name);
    before->kind = REMOVED;
    return 0;
}

int sac_pass_to_affine(struct sac_graph *graph, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < graph->node_count && rc == 0; i++) {
        struct sac_node *node = &graph->nodes[i];
        if (plain_epilogue(node) && (stored_statistics(graph, node) || along_channels(graph, node)))
            rc = become_affine(graph, node, err);
        if (rc != 0 || node->kind != SAC_OP_AFFINE)
            continue;
        struct sac_node *before = sole_producer(graph, node);
        if (before && before->kind == SAC_OP_AFFINE)
            rc = merge_affines(graph, before, node, err);
    }
    sac_graph_compact(graph);
    return rc;
}

/* ---- AFFINE goes into the weights before it ------------------------------- */

/* A filter as rows of `run` numbers that belong to one output each. */
struct rows {
    int64_t count, run;
    int64_t outputs; /* of the layer */
    int64_t period;  /* rows of one group's inputs (deconvolution); else count */
};

static bool rows_of(const struct sac_graph *graph, const struct sac_node *node, struct rows *ret)
{
    const struct sac_shape *filter = &weight_of(graph, node, 0)->shape;
    const struct sac_shape *out = &graph->values[node->dst[0]].shape;
    int64_t count = sac_shape_count(filter);

    if (out->rank < 2 || filter->rank < 2 || count <= 0)
        return false;
    ret->outputs = out->dim[1];
    switch ((int)node->kind) {
    case SAC_OP_CONV:
        ret->count = filter->dim[0];
        break;
    case SAC_OP_DECONV:
        ret->count = filter->dim[0] * filter->dim[1];
        break;
    case SAC_OP_INNER:
        if (out->rank != 2)
            return false; /* axis 1 is no longer the outputs' */
        ret->count = node->param.inner.transpose ? count : out->dim[1];
        break;
    default:
        return false;
    }
    if (ret->count <= 0 || ret->outputs <= 0 || count % ret->count != 0)
        return false;
    if (node->kind == SAC_OP_CONV && ret->count != ret->outputs)
        return false;
    ret->run = count / ret->count;
    ret->period = ret->count;
    if (node->kind == SAC_OP_DECONV && node->param.conv.group > 0)
        ret->period = ret->count / node->param.conv.group;
    return true;
}

/* Which output the r-th row belongs to. */
static int64_t output_of_row(const struct sac_node *node, const struct rows *rows, int64_t r)
{
    int64_t groups = rows->count / rows->period;
    int64_t outputs = rows->outputs / groups;

    if (node->kind == SAC_OP_CONV)
        return r;
    return r / rows->period * outputs + r % rows->period % outputs;
}

static int scaled_filter(struct sac_graph *graph, const struct sac_node *node,
                         const struct rows *rows, const struct sac_constant *a)
{
    const struct sac_constant *filter = weight_of(graph, node, 0);
    const char *name = name_of(graph, "(%s)*(%s)", filter->name, a->name);
    float *data = new_floats(graph, &filter->shape);

    if (!name || !data)
        return -1;
    for (int64_t r = 0; r < rows->count; r++) {
        float scale = a->data[output_of_row(node, rows, r)];
        for (int64_t i = r * rows->run; i < (r + 1) * rows->run; i++)
            data[i] = filter->data[i] * scale;
    }
    struct sac_shape shape = filter->shape; /* adding may move the constants */
    return sac_graph_add_constant(graph, name, &shape, data);
}

static int folded_bias(struct sac_graph *graph, const struct sac_node *node, int64_t outputs,
                       const struct sac_constant *a, const struct sac_constant *b)
{
    struct sac_shape shape = vector_shape(outputs);
    const struct sac_constant *bias = weight_of(graph, node, 1);
    const char *name = name_of(graph, "(%s)*(%s)+(%s)", bias->name, a->name, b->name);
    float *data = new_floats(graph, &shape);

    for (int64_t i = 0; data && i < outputs; i++)
        data[i] = (float)((double)bias->data[i] * (double)a->data[i] + (double)b->data[i]);
    return add_vector(graph, name, outputs, data);
}

static int fold(struct sac_graph *graph, struct sac_node *before, struct sac_node *affine,
                const struct rows *rows, struct sac_error *err)
{
    /* Copies: the array of constants may move. */
    struct sac_constant a = *weight_of(graph, affine, 0), b = *weight_of(graph, affine, 1);
    int filter = scaled_filter(graph, before, rows, &a);
    int bias = affine->weight[1];

    if (before->weight_count > 1)
        bias = folded_bias(graph, before, rows->outputs, &a, &b);
    if (filter < 0 || bias < 0)
        return out_of_memory(before->name, err);
    before->weight[0] = filter;
    before->weight[1] = bias;
    before->weight_count = 2;
    before->dst[0] = affine->dst[0];
    before->name = sac_graph_join_names(graph, before->name, affine->name);
    affine->kind = REMOVED;
    return 0;
}

int sac_pass_fold_affine(struct sac_graph *graph, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < graph->node_count && rc == 0; i++) {
        struct sac_node *node = &graph->nodes[i], *before;
        struct rows rows;

        if (node->kind != SAC_OP_AFFINE || !plain_epilogue(node))
            continue;
        before = sole_producer(graph, node);
        if (before && rows_of(graph, before, &rows))
            rc = fold(graph, before, node, &rows, err);
    }
    sac_graph_compact(graph);
    return rc;
}
