/*
 * Concatenations without a copy: a source that one operation makes and only the
 * concatenation reads is written where it belongs in the result, by an operation that
 * takes views (strided_dst). What stands there already is not copied.
 */
#include <string.h>

#include "net/plan_build.h"

/* A part of the channels is a view with longer strides in these. */
static bool has_rows(const struct sac_value *value)
{
    return value->shape.rank == 2 ||
           (value->shape.rank == 4 && value->form.layout == SAC_CHANNELS_LAST);
}

static bool same_form(struct sac_form a, struct sac_form b)
{
    return a.type == b.type && a.layout == b.layout && a.scale == b.scale;
}

/* The operation stores the value as it stands in the graph, not only in the same order. */
static bool stores_as_is(const struct sac_value *value, const struct sac_op_caps *caps)
{
    return value->shape.rank == 2 || caps->dst.layout == value->form.layout;
}

static bool can_stand(const struct sac_plan_build *build, int concat, int source)
{
    const struct sac_graph *graph = build->graph;
    const struct sac_value *part = &graph->values[source];
    const struct sac_value *whole = &graph->values[graph->nodes[concat].dst[0]];
    int producer = sac_graph_producer(graph, source);

    if (producer < 0 || sac_graph_use_count(graph, source) != 1)
        return false;
    const struct sac_op_caps *from = &build->caps[producer], *to = &build->caps[concat];
    return from->strided_dst && !from->alias && has_rows(part) &&
           same_form(part->form, whole->form) && stores_as_is(part, from) &&
           stores_as_is(part, &(struct sac_op_caps){.dst = to->src}) && stores_as_is(whole, to);
}

static void place_sources(struct sac_plan_build *build, int concat)
{
    const struct sac_node *node = &build->graph->nodes[concat];
    int64_t first = 0;

    for (int i = 0; i < node->src_count; i++) {
        if (can_stand(build, concat, node->src[i]))
            build->part[node->src[i]] = (struct sac_plan_part){node->dst[0], first};
        first += build->graph->values[node->src[i]].shape.dim[1];
    }
}

int sac_plan_place_parts(struct sac_plan_build *build, struct sac_error *err)
{
    const struct sac_graph *graph = build->graph;
    const struct sac_op_options *ops = &build->options->ops;

    build->part =
        sac_arena_zalloc(build->scratch, (size_t)graph->value_count + 1, sizeof *build->part);
    if (!build->part)
        return sac_fail(err, SAC_ENOMEM, "out of memory for laying out a plan");
    for (int v = 0; v < graph->value_count; v++)
        build->part[v].whole = -1;
    if (ops->training || ops->reference)
        return 0; /* the way back reads wholes; the reference does as the layers say */
    for (int t = 0; t < graph->node_count; t++)
        if (graph->nodes[t].kind == SAC_OP_CONCAT && graph->nodes[t].param.concat.axis == 1 &&
            build->caps[t].strided_dst)
            place_sources(build, t);
    return 0;
}

/* A concatenation's result may itself stand in another's. */
static int outermost(const struct sac_plan_build *build, int value, int64_t *ret_first)
{
    *ret_first = 0;
    for (; build->part[value].whole >= 0; value = build->part[value].whole)
        *ret_first += build->part[value].first;
    return value;
}

size_t sac_plan_part_offset(const struct sac_plan_build *build, int value)
{
    int64_t first;

    outermost(build, value, &first);
    return (size_t)first * sac_type_bytes(build->graph->values[value].form.type);
}

void sac_plan_part_strides(const struct sac_plan_build *build, int value, struct sac_tensor *tensor)
{
    int64_t first;
    const struct sac_value *whole = &build->graph->values[outermost(build, value, &first)];
    struct sac_tensor all = sac_tensor_of(&whole->shape, whole->form);

    memcpy(tensor->stride, all.stride, sizeof all.stride);
}

int sac_plan_copied_sources(const struct sac_plan_build *build, int index)
{
    const struct sac_node *node = &build->graph->nodes[index];
    int copied = 0;

    for (int i = 0; i < node->src_count; i++)
        copied += build->part[node->src[i]].whole < 0;
    return copied;
}
