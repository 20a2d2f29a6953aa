#include "net/layer.h"

#include <string.h>

void *sac_layer_state_new(struct sac_layer *layer, const struct sac_layer_setup *setup, size_t size,
                          struct sac_error *err)
{
    void *state = sac_arena_zalloc(setup->arena, 1, size);

    if (!state)
        sac_fail(err, SAC_ENOMEM, "out of memory");
    layer->state = state;
    return state;
}

int sac_layer_set_filler(struct sac_layer *layer, const struct sac_layer_setup *setup, int index,
                         const Caffe__FillerParameter *filler, struct sac_error *err)
{
    struct sac_filler *to = &layer->fillers[index];

    *to = sac_filler_of(filler);
    to->type = sac_arena_strdup(setup->arena, to->type);
    return to->type ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");
}

int sac_layer_axis(int axis, int limit, int *ret, struct sac_error *err)
{
    if (axis < -limit || axis >= limit)
        return sac_fail(err, SAC_EFORMAT, "axis %d is outside %d to %d", axis, -limit, limit - 1);
    *ret = axis < 0 ? axis + limit : axis;
    return 0;
}

int sac_layer_expect_rank(const struct sac_shape *shape, int rank, struct sac_error *err)
{
    char text[SAC_SHAPE_TEXT];

    if (shape->rank == rank)
        return 0;
    return sac_fail(err, SAC_EUNSUPPORTED, "the bottom has to have %d axes, and is %s", rank,
                    sac_shape_text(shape, text, sizeof text));
}

int sac_emit_top(struct sac_emit *emit, int index)
{
    emit->dst[index] =
        sac_graph_add_value(emit->graph, emit->layer->top_names[index], &emit->out[index]);
    return emit->dst[index];
}

static struct sac_node *add_node(struct sac_emit *emit, enum sac_op_kind kind, int src_count,
                                 int dst_count, struct sac_error *err)
{
    struct sac_node *node =
        sac_graph_add_node(emit->graph, kind, emit->layer->name, src_count, dst_count);

    if (!node) {
        sac_fail(err, SAC_ENOMEM, "out of memory");
        return NULL;
    }
    node->weight_count = emit->layer->weight_count;
    memcpy(node->weight, emit->constants, sizeof emit->constants);
    return node;
}

struct sac_node *sac_emit_pair(struct sac_emit *emit, enum sac_op_kind kind, int index,
                               struct sac_error *err)
{
    if (sac_emit_top(emit, index) < 0) {
        sac_fail(err, SAC_ENOMEM, "out of memory");
        return NULL;
    }
    struct sac_node *node = add_node(emit, kind, 1, 1, err);
    if (node) {
        node->src[0] = emit->src[index];
        node->dst[0] = emit->dst[index];
    }
    return node;
}

struct sac_node *sac_emit_node(struct sac_emit *emit, enum sac_op_kind kind, struct sac_error *err)
{
    int src_count = emit->layer->bottom_count;
    int dst_count = emit->layer->top_count;

    for (int i = 0; i < dst_count; i++) {
        if (sac_emit_top(emit, i) < 0) {
            sac_fail(err, SAC_ENOMEM, "out of memory");
            return NULL;
        }
    }
    struct sac_node *node = add_node(emit, kind, src_count, dst_count, err);
    if (node) {
        memcpy(node->src, emit->src, (size_t)src_count * sizeof *node->src);
        memcpy(node->dst, emit->dst, (size_t)dst_count * sizeof *node->dst);
    }
    return node;
}
