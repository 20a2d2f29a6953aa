/*
 * Layers that change each number by itself: ReLU (x < 0: slope · x), Sigmoid,
 * TanH, ELU (x < 0: alpha · (eˣ − 1)), Power ((shift + scale · x)^power), and
 * Dropout, the identity in the test phase. Shapes stay.
 */
#include "net/layer.h"

static int emit_with(struct sac_emit *out, enum sac_op_kind kind, struct sac_error *err)
{
    struct sac_node *node = sac_emit_node(out, kind, err);

    if (!node)
        return SAC_ENOMEM;
    if (out->layer->state)
        node->param = *(const union sac_op_param *)out->layer->state;
    return 0;
}

static int setup_relu(struct sac_layer *layer, const struct sac_layer_setup *in,
                      struct sac_error *err)
{
    union sac_op_param *param = sac_layer_state_new(layer, in, sizeof *param, err);

    if (!param)
        return SAC_ENOMEM;
    if (in->message->relu_param)
        param->relu.slope = in->message->relu_param->negative_slope;
    return 0;
}

static int emit_relu(struct sac_emit *out, struct sac_error *err)
{
    return emit_with(out, SAC_OP_RELU, err);
}

const struct sac_layer_type sac_layer_relu = {
    .name = "ReLU",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup_relu,
    .emit = emit_relu,
};

static int emit_sigmoid(struct sac_emit *out, struct sac_error *err)
{
    return emit_with(out, SAC_OP_SIGMOID, err);
}

const struct sac_layer_type sac_layer_sigmoid = {
    .name = "Sigmoid",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .emit = emit_sigmoid,
};

static int emit_tanh(struct sac_emit *out, struct sac_error *err)
{
    return emit_with(out, SAC_OP_TANH, err);
}

const struct sac_layer_type sac_layer_tanh = {
    .name = "TanH",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .emit = emit_tanh,
};

static int setup_elu(struct sac_layer *layer, const struct sac_layer_setup *in,
                     struct sac_error *err)
{
    union sac_op_param *param = sac_layer_state_new(layer, in, sizeof *param, err);

    if (!param)
        return SAC_ENOMEM;
    param->elu.alpha = in->message->elu_param ? in->message->elu_param->alpha : 1;
    return 0;
}

static int emit_elu(struct sac_emit *out, struct sac_error *err)
{
    return emit_with(out, SAC_OP_ELU, err);
}

const struct sac_layer_type sac_layer_elu = {
    .name = "ELU",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup_elu,
    .emit = emit_elu,
};

static int setup_power(struct sac_layer *layer, const struct sac_layer_setup *in,
                       struct sac_error *err)
{
    static const Caffe__PowerParameter none = CAFFE__POWER_PARAMETER__INIT;
    const Caffe__PowerParameter *p = in->message->power_param ? in->message->power_param : &none;
    union sac_op_param *param = sac_layer_state_new(layer, in, sizeof *param, err);

    if (!param)
        return SAC_ENOMEM;
    param->power.power = p->power;
    param->power.scale = p->scale;
    param->power.shift = p->shift;
    return 0;
}

static int emit_power(struct sac_emit *out, struct sac_error *err)
{
    return emit_with(out, SAC_OP_POWER, err);
}

const struct sac_layer_type sac_layer_power = {
    .name = "Power",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup_power,
    .emit = emit_power,
};

static int setup_dropout(struct sac_layer *layer, const struct sac_layer_setup *in,
                         struct sac_error *err)
{
    static const Caffe__DropoutParameter none = CAFFE__DROPOUT_PARAMETER__INIT;
    const Caffe__DropoutParameter *p =
        in->message->dropout_param ? in->message->dropout_param : &none;
    union sac_op_param *param = sac_layer_state_new(layer, in, sizeof *param, err);

    if (!param)
        return SAC_ENOMEM;
    param->dropout.ratio = p->dropout_ratio;
    param->dropout.mask = in->options->phase == SAC_PHASE_TRAIN && p->dropout_ratio > 0;
    if (!(param->dropout.ratio >= 0 && param->dropout.ratio < 1))
        return sac_fail(err, SAC_EFORMAT,
                        "dropout_ratio has to be at least 0 and less than 1, and is %g",
                        (double)param->dropout.ratio);
    return 0;
}

/* FNV-1a: the same for the same layer in every net and run. */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

static int emit_dropout(struct sac_emit *out, struct sac_error *err)
{
    if (emit_with(out, SAC_OP_DROPOUT, err) != 0)
        return SAC_ENOMEM;
    out->graph->nodes[out->graph->node_count - 1].param.dropout.stream = hash_of(out->layer->key);
    return 0;
}

const struct sac_layer_type sac_layer_dropout = {
    .name = "Dropout",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup_dropout,
    .emit = emit_dropout,
};
