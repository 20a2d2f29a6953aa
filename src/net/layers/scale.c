/*
 * Scale (x · s, with bias_term + b) and Bias (x + b). The factor covers num_axes of
 * the bottom's axes from `axis` (num_axes −1: to the end; 0: one number). It is a
 * weight, or the second bottom; the b of a Scale is always a weight.
 */
#include "net/layer.h"

struct scale {
    int axis, num_axes;
    bool bias; /* of a Scale */
};

static int setup_scale(struct sac_layer *layer, const struct sac_layer_setup *in,
                       struct sac_error *err)
{
    static const Caffe__ScaleParameter none = CAFFE__SCALE_PARAMETER__INIT;
    const Caffe__ScaleParameter *p = in->message->scale_param ? in->message->scale_param : &none;
    struct scale *scale = sac_layer_state_new(layer, in, sizeof *scale, err);

    if (!scale)
        return SAC_ENOMEM;
    scale->axis = p->axis;
    scale->num_axes = p->num_axes;
    scale->bias = p->bias_term;
    int rc = 0, bias = layer->bottom_count > 1 ? 0 : 1;
    layer->fillers[0] = sac_filler_constant(1);
    if (p->filler && bias == 1)
        rc = sac_layer_set_filler(layer, in, 0, p->filler, err);
    return rc == 0 ? sac_layer_set_filler(layer, in, bias, p->bias_filler, err) : rc;
}

static int setup_bias(struct sac_layer *layer, const struct sac_layer_setup *in,
                      struct sac_error *err)
{
    static const Caffe__BiasParameter none = CAFFE__BIAS_PARAMETER__INIT;
    const Caffe__BiasParameter *p = in->message->bias_param ? in->message->bias_param : &none;
    struct scale *scale = sac_layer_state_new(layer, in, sizeof *scale, err);

    if (!scale)
        return SAC_ENOMEM;
    scale->axis = p->axis;
    scale->num_axes = p->num_axes;
    return sac_layer_set_filler(layer, in, 0, p->filler, err);
}

/* Where the factor's axes start, and its shape. */
static int factor_of(const struct sac_layer *layer, const struct sac_shape *in, int *ret_axis,
                     struct sac_shape *ret, struct sac_error *err)
{
    const struct scale *scale = layer->state;
    bool given = layer->bottom_count > 1;
    int num_axes = given ? in[1].rank : scale->num_axes;
    int axis = 0;

    if (num_axes < -1)
        return sac_fail(err, SAC_EFORMAT, "num_axes has to be at least -1, and is %d", num_axes);
    if (num_axes != 0 || !given) {
        int rc = sac_layer_axis(scale->axis, in[0].rank, &axis, err);
        if (rc != 0)
            return rc;
    }
    if (num_axes == -1)
        num_axes = in[0].rank - axis;
    if (num_axes > in[0].rank - axis)
        return sac_fail(err, SAC_EFORMAT,
                        "a factor of %d axes from axis %d is more than the bottom's %d axes",
                        num_axes, axis, in[0].rank);
    struct sac_shape factor = {.rank = num_axes};
    for (int i = 0; i < num_axes; i++)
        factor.dim[i] = in[0].dim[axis + i];
    *ret_axis = axis;
    *ret = factor;
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct scale *scale = layer->state;
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
    struct sac_shape factor = {0};
    int axis = 0;
    int rc = factor_of(layer, shapes->in, &axis, &factor, err);

    if (rc != 0)
        return rc;
    shapes->out[0] = shapes->in[0];
    if (layer->bottom_count == 1)
        shapes->weights[shapes->weight_count++] = factor;
    else if (!sac_shape_equal(&factor, &shapes->in[1]))
        return sac_fail(err, SAC_EFORMAT,
                        "bottom 1 is %s, and has to be %s, as bottom 0 from "
                        "axis %d on",
                        sac_shape_text(&shapes->in[1], a, sizeof a),
                        sac_shape_text(&factor, b, sizeof b), axis);
    if (scale->bias)
        shapes->weights[shapes->weight_count++] = factor;
    return 0;
}

static int set_param(struct sac_emit *out, struct sac_node *node, struct sac_error *err)
{
    struct sac_shape factor = {0};
    int rc = factor_of(out->layer, out->in, &node->param.scale.axis, &factor, err);

    node->param.scale.num_axes = factor.rank;
    return rc;
}

/* A Scale by the second bottom with a bias of its own: two operations. */
static int emit_scale_then_bias(struct sac_emit *out, struct sac_error *err)
{
    struct sac_node *node = sac_emit_node(out, SAC_OP_SCALE, err);
    int scaled = out->dst[0];

    if (!node)
        return SAC_ENOMEM;
    node->weight_count = 0;
    int rc = set_param(out, node, err);
    if (rc != 0)
        return rc;
    out->src = &scaled;
    node = sac_emit_pair(out, SAC_OP_BIAS, 0, err);
    return node ? set_param(out, node, err) : SAC_ENOMEM;
}

static int emit_scale(struct sac_emit *out, struct sac_error *err)
{
    const struct scale *scale = out->layer->state;

    if (scale->bias && out->layer->bottom_count > 1)
        return emit_scale_then_bias(out, err);
    struct sac_node *node = sac_emit_node(out, SAC_OP_SCALE, err);
    if (!node)
        return SAC_ENOMEM;
    node->param.scale.bias = scale->bias;
    return set_param(out, node, err);
}

static int emit_bias(struct sac_emit *out, struct sac_error *err)
{
    struct sac_node *node = sac_emit_node(out, SAC_OP_BIAS, err);

    return node ? set_param(out, node, err) : SAC_ENOMEM;
}

const struct sac_layer_type sac_layer_scale = {
    .name = "Scale",
    .bottom_min = 1,
    .bottom_max = 2,
    .top_min = 1,
    .top_max = 1,
    .setup = setup_scale,
    .shape = shape,
    .emit = emit_scale,
};

const struct sac_layer_type sac_layer_bias = {
    .name = "Bias",
    .bottom_min = 1,
    .bottom_max = 2,
    .top_min = 1,
    .top_max = 1,
    .setup = setup_bias,
    .shape = shape,
    .emit = emit_bias,
};
