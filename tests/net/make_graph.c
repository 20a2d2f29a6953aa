#include "net/make_graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void need(bool there)
{
    if (!there)
        abort(); /* memory is out */
}

struct sac_shape make_shape(int rank, ...)
{
    struct sac_shape shape = {.rank = rank};
    va_list args;

    va_start(args, rank);
    for (int i = 0; i < rank; i++)
        shape.dim[i] = va_arg(args, int);
    va_end(args);
    return shape;
}

void make_floats(float *out, int64_t count, uint64_t seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 0x1234567u;

    for (int64_t i = 0; i < count; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out[i] = (float)((double)(state >> 40) / (1 << 23) - 1);
    }
}

struct sac_graph *make_graph(void)
{
    struct sac_graph *graph = NULL;

    need(sac_graph_new(&graph, NULL) == 0);
    return graph;
}

int make_input(struct sac_graph *graph, const char *name, struct sac_shape shape)
{
    int value = sac_graph_add_value(graph, name, &shape);
    int inputs[8];

    need(value >= 0 && graph->input_count < 8);
    for (int i = 0; i < graph->input_count; i++)
        inputs[i] = graph->inputs[i];
    inputs[graph->input_count] = value;
    need(sac_graph_set_inputs(graph, inputs, graph->input_count + 1) == 0);
    return value;
}

int make_op(struct sac_graph *graph, enum sac_op_kind kind, const char *name,
            struct sac_shape shape, int src_count, ...)
{
    int value = sac_graph_add_value(graph, name, &shape);
    struct sac_node *node = sac_graph_add_node(graph, kind, name, src_count, 1);
    va_list args;

    need(value >= 0 && node);
    va_start(args, src_count);
    for (int i = 0; i < src_count; i++)
        node->src[i] = va_arg(args, int);
    va_end(args);
    node->dst[0] = value;
    return value;
}

struct sac_node *make_last(struct sac_graph *graph)
{
    return &graph->nodes[graph->node_count - 1];
}

float *make_weight(struct sac_graph *graph, struct sac_shape shape, uint64_t seed, float scale,
                   float shift)
{
    struct sac_node *node = make_last(graph);
    int64_t count = sac_shape_count(&shape);
    float *data = sac_arena_zalloc(graph->arena, (size_t)count, sizeof *data);
    char name[128];

    need(data && node->weight_count < 4);
    make_floats(data, count, seed);
    for (int64_t i = 0; i < count; i++)
        data[i] = data[i] * scale + shift;
    snprintf(name, sizeof name, "%s/%d", node->name, node->weight_count);
    node->weight[node->weight_count] = sac_graph_add_constant(graph, name, &shape, data);
    need(node->weight[node->weight_count++] >= 0);
    return data;
}

void make_outputs(struct sac_graph *graph, int count, ...)
{
    int outputs[8];
    va_list args;

    need(count <= 8);
    va_start(args, count);
    for (int i = 0; i < count; i++)
        outputs[i] = va_arg(args, int);
    va_end(args);
    need(sac_graph_set_outputs(graph, outputs, count) == 0);
}

static const struct sac_shape *shape_at(const struct sac_graph *graph, int value)
{
    return &graph->values[value].shape;
}

static struct sac_window window_of(int kernel, int stride, int pad)
{
    return (struct sac_window){.kernel = {kernel, kernel},
                               .stride = {stride, stride},
                               .pad = {pad, pad},
                               .dilation = {1, 1}};
}

int make_conv(struct sac_graph *graph, const char *name, int src, int outputs, int kernel,
              int stride, int pad, int group, bool bias)
{
    struct sac_shape from = *shape_at(graph, src), to = from;
    int inputs = (int)from.dim[1] / group;

    to.dim[1] = outputs;
    for (int i = 2; i < 4; i++)
        to.dim[i] = (from.dim[i] + 2 * pad - kernel) / stride + 1;
    int out = make_op(graph, SAC_OP_CONV, name, to, 1, src);
    make_last(graph)->param.conv.window = window_of(kernel, stride, pad);
    make_last(graph)->param.conv.group = group;
    make_weight(graph, make_shape(4, outputs, inputs, kernel, kernel), (uint64_t)out, 0.3f, 0);
    if (bias)
        make_weight(graph, make_shape(1, outputs), (uint64_t)out + 100, 0.5f, 0);
    return out;
}

int make_inner(struct sac_graph *graph, const char *name, int src, int outputs)
{
    const struct sac_shape *from = shape_at(graph, src);
    int64_t inputs = sac_shape_count_between(from, 1, from->rank);
    int out = make_op(graph, SAC_OP_INNER, name, make_shape(2, (int)from->dim[0], outputs), 1, src);

    make_last(graph)->param.inner.axis = 1;
    make_weight(graph, make_shape(2, outputs, (int)inputs), (uint64_t)out, 0.2f, 0);
    make_weight(graph, make_shape(1, outputs), (uint64_t)out + 100, 0.5f, 0);
    return out;
}

/* Rounded up, as Caffe does. */
int make_pool(struct sac_graph *graph, const char *name, int src, enum sac_pool_method method,
              int kernel, int stride)
{
    struct sac_shape to = *shape_at(graph, src);

    for (int i = 2; i < 4; i++)
        to.dim[i] = (to.dim[i] - kernel + stride - 1) / stride + 1;
    int out = make_op(graph, SAC_OP_POOL, name, to, 1, src);
    make_last(graph)->param.pool.window = window_of(kernel, stride, 0);
    make_last(graph)->param.pool.method = method;
    return out;
}

int make_relu(struct sac_graph *graph, const char *name, int src)
{
    return make_op(graph, SAC_OP_RELU, name, *shape_at(graph, src), 1, src);
}

int make_softmax(struct sac_graph *graph, const char *name, int src)
{
    int out = make_op(graph, SAC_OP_SOFTMAX, name, *shape_at(graph, src), 1, src);

    make_last(graph)->param.softmax.axis = 1;
    return out;
}

int make_sum(struct sac_graph *graph, const char *name, int a, int b)
{
    int out = make_op(graph, SAC_OP_ELTWISE, name, *shape_at(graph, a), 2, a, b);

    make_last(graph)->param.eltwise.method = SAC_ELTWISE_SUM;
    return out;
}

int make_concat(struct sac_graph *graph, const char *name, int a, int b)
{
    struct sac_shape to = *shape_at(graph, a);

    to.dim[1] += shape_at(graph, b)->dim[1];
    int out = make_op(graph, SAC_OP_CONCAT, name, to, 2, a, b);
    make_last(graph)->param.concat.axis = 1;
    return out;
}

int make_batchnorm(struct sac_graph *graph, const char *name, int src, float factor, float eps)
{
    int channels = (int)shape_at(graph, src)->dim[1];
    int out = make_op(graph, SAC_OP_BATCHNORM, name, *shape_at(graph, src), 1, src);

    make_last(graph)->param.batchnorm.eps = eps;
    make_last(graph)->param.batchnorm.global_stats = true;
    make_weight(graph, make_shape(1, channels), (uint64_t)out + 1, 1, 0);
    make_weight(graph, make_shape(1, channels), (uint64_t)out + 2, 0.4f, 0.6f); /* > 0 */
    make_weight(graph, make_shape(1, 1), 1, 0, factor);
    return out;
}

int make_scale(struct sac_graph *graph, const char *name, int src, bool bias)
{
    int channels = (int)shape_at(graph, src)->dim[1];
    int out = make_op(graph, SAC_OP_SCALE, name, *shape_at(graph, src), 1, src);

    make_last(graph)->param.scale.axis = 1;
    make_last(graph)->param.scale.num_axes = 1;
    make_last(graph)->param.scale.bias = bias;
    make_weight(graph, make_shape(1, channels), (uint64_t)out + 3, 1, 0);
    if (bias)
        make_weight(graph, make_shape(1, channels), (uint64_t)out + 4, 1, 0);
    return out;
}
