/* PReLU: x < 0 becomes slope · x; a slope a channel (axis 1), or one for all. */
#include "net/layer.h"

struct prelu {
    bool shared;
};

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    struct prelu *prelu = sac_layer_state_new(layer, in, sizeof *prelu, err);

    if (!prelu)
        return SAC_ENOMEM;
    prelu->shared = in->message->prelu_param && in->message->prelu_param->channel_shared;
    layer->fillers[0] = sac_filler_constant(.25f);
    if (in->message->prelu_param && in->message->prelu_param->filler)
        return sac_layer_set_filler(layer, in, 0, in->message->prelu_param->filler, err);
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct prelu *prelu = layer->state;

    if (shapes->in[0].rank < 2)
        return sac_fail(err, SAC_EFORMAT, "the bottom has to have at least 2 axes, and has %d",
                        shapes->in[0].rank);
    shapes->out[0] = shapes->in[0];
    if (!prelu->shared)
        shapes->weights[0] = (struct sac_shape){.rank = 1, .dim = {shapes->in[0].dim[1]}};
    shapes->weight_count = 1;
    return 0;
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    return sac_emit_node(out, SAC_OP_PRELU, err) ? 0 : SAC_ENOMEM;
}

const struct sac_layer_type sac_layer_prelu = {
    .name = "PReLU",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};
