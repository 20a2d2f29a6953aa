#include "device/forms.h"

#include <stdlib.h>
#include <string.h>

#include "device/ranges.h"

const struct sac_range *sac_ranges_find(const struct sac_ranges *ranges, const char *blob)
{
    for (int i = 0; i < ranges->blob_count; i++)
        if (strcmp(ranges->blobs[i].name, blob) == 0)
            return &ranges->blobs[i];
    return NULL;
}

bool sac_ranges_keeps(const struct sac_ranges *ranges, const char *name)
{
    size_t length = strcspn(name, "+");

    for (int i = 0; i < ranges->keep_count; i++)
        if (strncmp(ranges->keep[i], name, length) == 0 && !ranges->keep[i][length])
            return true;
    return false;
}

void sac_ranges_done(struct sac_ranges *ranges)
{
    for (int i = 0; i < ranges->blob_count; i++)
        free(ranges->blobs[i].name);
    for (int i = 0; i < ranges->keep_count; i++)
        free(ranges->keep[i]);
    free(ranges->blobs);
    free(ranges->keep);
    *ranges = (struct sac_ranges){0};
}

/* ---- Which values have a range ---- */

/* Ranges are of blobs as their last layer leaves them: an in-place layer's source has
 * none, unless that layer is gone (dropout). */
static const struct sac_range *range_of(const struct sac_graph *graph,
                                        const struct sac_ranges *ranges, int value)
{
    const char *name = graph->values[value].name;

    for (int v = value + 1; v < graph->value_count; v++)
        if (strcmp(graph->values[v].name, name) == 0 && sac_graph_producer(graph, v) >= 0)
            return NULL;
    return sac_ranges_find(ranges, name);
}

static void set_scale(struct sac_value *value, float low, float high)
{
    float most = high > -low ? high : -low;

    value->has_sign = low < 0;
    value->scale = most > 0 ? most / (value->has_sign ? 127.f : 255.f) : 1.f;
}

static bool has_scale(const struct sac_graph *graph, int value)
{
    return graph->values[value].scale > 0;
}

/* Gives the value a scale if it has a range. */
static bool want(struct sac_graph *graph, const struct sac_ranges *ranges, int value)
{
    const struct sac_range *range = range_of(graph, ranges, value);

    if (range && !has_scale(graph, value))
        set_scale(&graph->values[value], range->low, range->high);
    return range != NULL;
}

/* ---- Which operations, from the last to the first ---- */

/* Filters with a bias or none, over pictures or rows. */
static bool can_multiply(const struct sac_graph *graph, const struct sac_node *node)
{
    int rank = graph->values[node->src[0]].shape.rank;

    if (node->kind == SAC_OP_INNER)
        return node->param.inner.axis == 1 && (rank == 2 || rank == 4);
    return node->kind == SAC_OP_CONV && rank == 4;
}

static void want_multiply(struct sac_graph *graph, const struct sac_ranges *ranges,
                          struct sac_node *node)
{
    if (!can_multiply(graph, node) || sac_ranges_keeps(ranges, node->name))
        return;
    node->eight_bits = want(graph, ranges, node->src[0]);
    if (node->eight_bits && node->epilogue.sum >= 0 && has_scale(graph, node->dst[0]))
        want(graph, ranges, node->epilogue.sum);
}

static bool passes_on(const struct sac_node *node)
{
    switch ((int)node->kind) {
    case SAC_OP_POOL:
    case SAC_OP_CONCAT:
    case SAC_OP_RESHAPE:
    case SAC_OP_DROPOUT:
        return true;
    default:
        return false;
    }
}

/* A pool may take any type and store 8 bits; the others move what there is. */
static void want_sources(struct sac_graph *graph, const struct sac_ranges *ranges,
                         struct sac_node *node)
{
    bool all = has_scale(graph, node->dst[0]);

    for (int i = 0; i < node->src_count && node->kind != SAC_OP_POOL; i++)
        all &= range_of(graph, ranges, node->src[i]) != NULL;
    node->eight_bits = all;
    for (int i = 0; i < node->src_count && all; i++)
        want(graph, ranges, node->src[i]);
}

/* ---- One scale where 8 bits are passed on ---- */

static bool join(struct sac_value *a, struct sac_value *b)
{
    float most_a = a->scale * (a->has_sign ? 127.f : 255.f);
    float most_b = b->scale * (b->has_sign ? 127.f : 255.f);
    float most = most_a > most_b ? most_a : most_b;
    bool sign = a->has_sign || b->has_sign;
    float scale = most / (sign ? 127.f : 255.f);
    bool changed = a->scale != scale || b->scale != scale;

    a->scale = b->scale = scale;
    a->has_sign = b->has_sign = sign;
    return changed;
}

static bool join_node(struct sac_graph *graph, const struct sac_node *node)
{
    bool mean = node->kind == SAC_OP_POOL && node->param.pool.method == SAC_POOL_AVE;
    bool changed = false;

    for (int i = 0; i < node->src_count && node->eight_bits && passes_on(node) && !mean; i++)
        if (has_scale(graph, node->src[i]))
            changed |= join(&graph->values[node->src[i]], &graph->values[node->dst[0]]);
    return changed;
}

/* Scales only grow, and there are as many as values: it ends. */
static void join_scales(struct sac_graph *graph)
{
    bool changed = true;

    for (int round = 0; changed && round < graph->node_count + 1; round++) {
        changed = false;
        for (int i = 0; i < graph->node_count; i++)
            changed |= join_node(graph, &graph->nodes[i]);
    }
}

void sac_quantize_graph(struct sac_graph *graph, const struct sac_ranges *ranges)
{
    for (int i = graph->node_count - 1; i >= 0; i--) {
        struct sac_node *node = &graph->nodes[i];
        if (node->src_count > 0 && passes_on(node))
            want_sources(graph, ranges, node);
        else if (node->src_count > 0)
            want_multiply(graph, ranges, node);
    }
    join_scales(graph);
}
