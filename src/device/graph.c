#include "device/graph.h"

#include <stdlib.h>
#include <string.h>

const char *sac_op_kind_name(enum sac_op_kind kind)
{
    static const char *const names[SAC_OP_KINDS] = {
        [SAC_OP_CONV] = "convolution",
        [SAC_OP_DECONV] = "deconvolution",
        [SAC_OP_INNER] = "inner product",
        [SAC_OP_POOL] = "pooling",
        [SAC_OP_LRN] = "LRN",
        [SAC_OP_RELU] = "ReLU",
        [SAC_OP_PRELU] = "PReLU",
        [SAC_OP_SIGMOID] = "sigmoid",
        [SAC_OP_TANH] = "tanh",
        [SAC_OP_ELU] = "ELU",
        [SAC_OP_POWER] = "power",
        [SAC_OP_DROPOUT] = "dropout",
        [SAC_OP_CONCAT] = "concat",
        [SAC_OP_SLICE] = "slice",
        [SAC_OP_RESHAPE] = "reshape",
        [SAC_OP_ELTWISE] = "eltwise",
        [SAC_OP_BATCHNORM] = "batch norm",
        [SAC_OP_SCALE] = "scale",
        [SAC_OP_BIAS] = "bias",
        [SAC_OP_SOFTMAX] = "softmax",
        [SAC_OP_SOFTMAX_LOSS] = "softmax loss",
        [SAC_OP_EUCLIDEAN_LOSS] = "Euclidean loss",
        [SAC_OP_SIGMOID_LOSS] = "sigmoid loss",
        [SAC_OP_ACCURACY] = "accuracy",
        [SAC_OP_SPLIT] = "split",
        [SAC_OP_PIXELS] = "pixels",
        [SAC_OP_CONVERT] = "convert",
        [SAC_OP_AFFINE] = "affine",
        [SAC_OP_TOPK] = "top-k",
    };

    return (unsigned)kind < SAC_OP_KINDS ? names[kind] : "unknown operation";
}

int sac_graph_new(struct sac_graph **ret, struct sac_error *err)
{
    struct sac_arena *arena = sac_arena_new(0);
    struct sac_graph *graph = arena ? sac_arena_zalloc(arena, 1, sizeof *graph) : NULL;

    if (!graph) {
        sac_arena_free(arena);
        return sac_fail(err, SAC_ENOMEM, "a graph: out of memory");
    }
    graph->arena = arena;
    *ret = graph;
    return 0;
}

void sac_graph_free(struct sac_graph *graph)
{
    if (graph)
        sac_arena_free(graph->arena); /* the graph itself is in it */
}

/* The array with room for one more, or NULL. The old one stays in the arena. */
static void *with_room(struct sac_graph *graph, void *items, int count, int *cap, size_t size)
{
    int more = *cap ? *cap * 2 : 32;

    if (count < *cap)
        return items;
    void *out = sac_arena_zalloc(graph->arena, (size_t)more, size);
    if (!out)
        return NULL;
    if (count > 0)
        memcpy(out, items, (size_t)count * size);
    *cap = more;
    return out;
}

int sac_graph_add_value(struct sac_graph *graph, const char *name, const struct sac_shape *shape)
{
    struct sac_value *values =
        with_room(graph, graph->values, graph->value_count, &graph->value_cap, sizeof *values);
    char *copy = sac_arena_strdup(graph->arena, name);

    if (values)
        graph->values = values;
    if (!values || !copy)
        return -1;
    values[graph->value_count] = (struct sac_value){.name = copy, .shape = *shape};
    return graph->value_count++;
}

int sac_graph_add_constant(struct sac_graph *graph, const char *name, const struct sac_shape *shape,
                           const float *data)
{
    struct sac_constant *constants = with_room(graph, graph->constants, graph->constant_count,
                                               &graph->constant_cap, sizeof *constants);
    char *copy = sac_arena_strdup(graph->arena, name);

    if (constants)
        graph->constants = constants;
    if (!constants || !copy)
        return -1;
    constants[graph->constant_count] =
        (struct sac_constant){.name = copy, .shape = *shape, .data = data, .param = -1};
    return graph->constant_count++;
}

struct sac_node *sac_graph_add_node(struct sac_graph *graph, enum sac_op_kind kind,
                                    const char *name, int src_count, int dst_count)
{
    struct sac_node *nodes =
        with_room(graph, graph->nodes, graph->node_count, &graph->node_cap, sizeof *nodes);
    char *copy = sac_arena_strdup(graph->arena, name);
    int *src = sac_arena_zalloc(graph->arena, (size_t)src_count + 1, sizeof *src);
    int *dst = sac_arena_zalloc(graph->arena, (size_t)dst_count + 1, sizeof *dst);

    if (nodes)
        graph->nodes = nodes;
    if (!nodes || !copy || !src || !dst)
        return NULL;
    struct sac_node *node = &nodes[graph->node_count++];
    *node = (struct sac_node){
        .kind = kind,
        .name = copy,
        .src = src,
        .src_count = src_count,
        .dst = dst,
        .dst_count = dst_count,
        .epilogue = {.sum = -1},
    };
    return node;
}

static int set_list(struct sac_graph *graph, int **list, int *list_count, const int *values,
                    int count)
{
    int *copy = sac_arena_zalloc(graph->arena, (size_t)count + 1, sizeof *copy);

    if (!copy)
        return SAC_ENOMEM;
    if (count > 0)
        memcpy(copy, values, (size_t)count * sizeof *copy);
    *list = copy;
    *list_count = count;
    return 0;
}

int sac_graph_set_inputs(struct sac_graph *graph, const int *values, int count)
{
    return set_list(graph, &graph->inputs, &graph->input_count, values, count);
}

int sac_graph_set_outputs(struct sac_graph *graph, const int *values, int count)
{
    return set_list(graph, &graph->outputs, &graph->output_count, values, count);
}

int sac_graph_add_loss(struct sac_graph *graph, int value, float weight)
{
    struct sac_graph_loss *losses =
        with_room(graph, graph->losses, graph->loss_count, &graph->loss_cap, sizeof *losses);

    if (!losses)
        return -1;
    graph->losses = losses;
    losses[graph->loss_count] = (struct sac_graph_loss){
        .name = graph->values[value].name, .value = value, .weight = weight};
    return graph->loss_count++;
}

bool sac_node_gives_gradient(const struct sac_node *node, int src)
{
    switch ((int)node->kind) {
    case SAC_OP_ACCURACY:
    case SAC_OP_TOPK:
    case SAC_OP_PIXELS:
        return false;
    case SAC_OP_SOFTMAX_LOSS:
    case SAC_OP_SIGMOID_LOSS:
        return src == 0 && !(node->cut && node->cut[0]);
    default:
        return !(node->cut && node->cut[src]);
    }
}

static void replace(int *list, int count, int from, int to)
{
    for (int i = 0; i < count; i++)
        if (list[i] == from)
            list[i] = to;
}

void sac_graph_replace_uses(struct sac_graph *graph, int from, int to)
{
    for (int i = 0; i < graph->node_count; i++) {
        struct sac_node *node = &graph->nodes[i];
        if (node->kind == SAC_OP_KINDS)
            continue;
        replace(node->src, node->src_count, from, to);
        if (node->epilogue.sum == from)
            node->epilogue.sum = to;
    }
    replace(graph->outputs, graph->output_count, from, to);
    for (int i = 0; i < graph->loss_count; i++)
        if (graph->losses[i].value == from)
            graph->losses[i].value = to;
}

static int count_in(const int *list, int count, int value)
{
    int found = 0;

    for (int i = 0; i < count; i++)
        found += list[i] == value;
    return found;
}

int sac_graph_use_count(const struct sac_graph *graph, int value)
{
    int uses = count_in(graph->outputs, graph->output_count, value);

    for (int i = 0; i < graph->node_count; i++) {
        const struct sac_node *node = &graph->nodes[i];
        if (node->kind != SAC_OP_KINDS)
            uses += count_in(node->src, node->src_count, value) + (node->epilogue.sum == value);
    }
    for (int i = 0; i < graph->loss_count; i++)
        uses += graph->losses[i].value == value;
    return uses;
}

int sac_graph_producer(const struct sac_graph *graph, int value)
{
    for (int i = 0; i < graph->node_count; i++) {
        const struct sac_node *node = &graph->nodes[i];
        if (node->kind != SAC_OP_KINDS && count_in(node->dst, node->dst_count, value))
            return i;
    }
    return -1;
}

void sac_graph_compact(struct sac_graph *graph)
{
    int kept = 0;

    for (int i = 0; i < graph->node_count; i++)
        if (graph->nodes[i].kind != SAC_OP_KINDS)
            graph->nodes[kept++] = graph->nodes[i];
    graph->node_count = kept;
}

const char *sac_graph_join_names(struct sac_graph *graph, const char *a, const char *b)
{
    size_t first = strlen(a), second = strlen(b);
    char *out = sac_arena_alloc(graph->arena, first + second + 2);

    if (!out)
        return a; /* a shorter name in a report harms nothing */
    memcpy(out, a, first);
    out[first] = '+';
    memcpy(out + first + 1, b, second + 1);
    return out;
}
