/* Softmax along one axis: e^(x − max) / Σ. */
#include "net/layer.h"

struct softmax {
    int axis;
};

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    struct softmax *softmax = sac_layer_state_new(layer, in, sizeof *softmax, err);

    if (!softmax)
        return SAC_ENOMEM;
    softmax->axis = in->message->softmax_param ? in->message->softmax_param->axis : 1;
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct softmax *softmax = layer->state;
    int axis;

    shapes->out[0] = shapes->in[0];
    return sac_layer_axis(softmax->axis, shapes->in[0].rank, &axis, err);
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct softmax *softmax = out->layer->state;
    struct sac_node *node = sac_emit_node(out, SAC_OP_SOFTMAX, err);

    if (!node)
        return SAC_ENOMEM;
    return sac_layer_axis(softmax->axis, out->in[0].rank, &node->param.softmax.axis, err);
}

const struct sac_layer_type sac_layer_softmax = {
    .name = "Softmax",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};
