/* Concat, along one axis: the other axes of all bottoms are equal. */
#include "net/layer.h"

struct concat {
    int axis;
};

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    static const Caffe__ConcatParameter none = CAFFE__CONCAT_PARAMETER__INIT;
    const Caffe__ConcatParameter *p = in->message->concat_param ? in->message->concat_param : &none;
    struct concat *concat = sac_layer_state_new(layer, in, sizeof *concat, err);

    if (!concat)
        return SAC_ENOMEM;
    if (p->has_axis && p->has_concat_dim)
        return sac_fail(err, SAC_EFORMAT, "axis and concat_dim are both given");
    if (p->has_concat_dim && p->concat_dim >= SAC_AXES_MAX)
        return sac_fail(err, SAC_EFORMAT, "concat_dim %u is over %d", p->concat_dim,
                        SAC_AXES_MAX - 1);
    concat->axis = p->has_concat_dim ? (int)p->concat_dim : p->axis;
    return 0;
}

static bool equal_but_for(const struct sac_shape *a, const struct sac_shape *b, int axis)
{
    struct sac_shape other = *b;

    if (a->rank != b->rank)
        return false;
    other.dim[axis] = a->dim[axis];
    return sac_shape_equal(a, &other);
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct concat *concat = layer->state;
    struct sac_shape *out = &shapes->out[0];
    int axis;
    int rc = sac_layer_axis(concat->axis, shapes->in[0].rank, &axis, err);

    if (rc != 0)
        return rc;
    *out = shapes->in[0];
    for (int i = 1; i < layer->bottom_count; i++) {
        char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
        if (!equal_but_for(out, &shapes->in[i], axis))
            return sac_fail(err, SAC_EFORMAT,
                            "bottom %d is %s, which cannot be joined to %s along axis %d", i,
                            sac_shape_text(&shapes->in[i], a, sizeof a),
                            sac_shape_text(&shapes->in[0], b, sizeof b), axis);
        out->dim[axis] += shapes->in[i].dim[axis]; /* each at most 2³¹, at most 1,024 of them */
    }
    return 0;
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct concat *concat = out->layer->state;
    struct sac_node *node = sac_emit_node(out, SAC_OP_CONCAT, err);

    if (!node)
        return SAC_ENOMEM;
    return sac_layer_axis(concat->axis, out->in[0].rank, &node->param.concat.axis, err);
}

const struct sac_layer_type sac_layer_concat = {
    .name = "Concat",
    .bottom_min = 1,
    .bottom_max = SAC_ANY_COUNT,
    .top_min = 1,
    .top_max = 1,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};
