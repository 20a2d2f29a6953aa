/*
 * BatchNorm over axis 1: (x − mean) / √(variance + eps). Weights: mean [C] and
 * variance [C], both to be divided by the scale factor [1] (by nothing when it is 0).
 * The stored statistics are used unless use_global_stats says otherwise; its default
 * is whether the phase is TEST.
 */
#include "net/layer.h"

struct batch_norm {
    float eps, fraction;
    bool global_stats;
};

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    static const Caffe__BatchNormParameter none = CAFFE__BATCH_NORM_PARAMETER__INIT;
    const Caffe__BatchNormParameter *p =
        in->message->batch_norm_param ? in->message->batch_norm_param : &none;
    struct batch_norm *norm = sac_layer_state_new(layer, in, sizeof *norm, err);

    if (!norm)
        return SAC_ENOMEM;
    if (p->scale_bias)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "scale_bias is not supported; a Scale layer behind does the same");
    norm->eps = p->eps;
    norm->fraction = p->moving_average_fraction;
    norm->global_stats =
        p->has_use_global_stats ? p->use_global_stats : in->options->phase == SAC_PHASE_TEST;
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    (void)layer;
    if (shapes->in[0].rank < 2)
        return sac_fail(err, SAC_EUNSUPPORTED, "the bottom has to have at least 2 axes, and has %d",
                        shapes->in[0].rank);
    shapes->out[0] = shapes->in[0];
    struct sac_shape channels = {.rank = 1, .dim = {shapes->in[0].dim[1]}};
    shapes->weights[0] = channels;
    shapes->weights[1] = channels;
    shapes->weights[2] = (struct sac_shape){.rank = 1, .dim = {1}};
    shapes->weight_count = 3;
    return 0;
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct batch_norm *norm = out->layer->state;
    struct sac_node *node = sac_emit_node(out, SAC_OP_BATCHNORM, err);

    if (!node)
        return SAC_ENOMEM;
    node->param.batchnorm.eps = norm->eps;
    node->param.batchnorm.fraction = norm->fraction;
    node->param.batchnorm.global_stats = norm->global_stats;
    return 0;
}

const struct sac_layer_type sac_layer_batch_norm = {
    .name = "BatchNorm",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .statistics = true,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};
