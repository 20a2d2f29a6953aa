/*
 * Local response normalisation, over local_size channels or a square of a channel.
 *
 * ACROSS_CHANNELS: x · (k + alpha/n · Σx²)^−beta over n = local_size channels.
 * WITHIN_CHANNEL: x · (1 + alpha · avg)^−beta, avg the average pool of x² over
 * n × n; k is ignored. Shapes stay.
 */
#include "net/layer.h"

enum { SIZE_MAX_LRN = 1 << 20 };

struct lrn {
    enum sac_lrn_region region;
    int size;
    float alpha, beta, k;
};

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    static const Caffe__LRNParameter none = CAFFE__LRNPARAMETER__INIT;
    const Caffe__LRNParameter *p = in->message->lrn_param ? in->message->lrn_param : &none;
    struct lrn *lrn = sac_layer_state_new(layer, in, sizeof *lrn, err);

    if (!lrn)
        return SAC_ENOMEM;
    if (p->local_size % 2 == 0 || p->local_size > SIZE_MAX_LRN)
        return sac_fail(err, SAC_EFORMAT, "local_size has to be odd and at most %d, and is %u",
                        SIZE_MAX_LRN, p->local_size);
    lrn->region = p->norm_region == CAFFE__LRNPARAMETER__NORM_REGION__WITHIN_CHANNEL
                      ? SAC_LRN_WITHIN_CHANNEL
                      : SAC_LRN_ACROSS_CHANNELS;
    lrn->size = (int)p->local_size;
    lrn->alpha = p->alpha;
    lrn->beta = p->beta;
    lrn->k = p->k;
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    (void)layer;
    shapes->out[0] = shapes->in[0];
    return sac_layer_expect_rank(&shapes->in[0], 4, err);
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct lrn *lrn = out->layer->state;
    struct sac_node *node = sac_emit_node(out, SAC_OP_LRN, err);

    if (!node)
        return SAC_ENOMEM;
    node->param.lrn.region = lrn->region;
    node->param.lrn.size = lrn->size;
    node->param.lrn.alpha = lrn->alpha;
    node->param.lrn.beta = lrn->beta;
    node->param.lrn.k = lrn->k;
    return 0;
}

const struct sac_layer_type sac_layer_lrn = {
    .name = "LRN",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};
