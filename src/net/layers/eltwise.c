/* Eltwise: the product, the sum (each bottom times its coefficient, 1 when none are
 * given) or the maximum of bottoms of one shape. */
#include "net/layer.h"

#include <string.h>

struct eltwise {
    enum sac_eltwise_method method;
    int coeff_count;
    float coeff[];
};

static enum sac_eltwise_method method_of(const Caffe__EltwiseParameter *p)
{
    switch (p->operation) {
    case CAFFE__ELTWISE_PARAMETER__ELTWISE_OP__PROD:
        return SAC_ELTWISE_PROD;
    case CAFFE__ELTWISE_PARAMETER__ELTWISE_OP__MAX:
        return SAC_ELTWISE_MAX;
    default:
        return SAC_ELTWISE_SUM;
    }
}

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    static const Caffe__EltwiseParameter none = CAFFE__ELTWISE_PARAMETER__INIT;
    const Caffe__EltwiseParameter *p =
        in->message->eltwise_param ? in->message->eltwise_param : &none;

    if (p->n_coeff > 0 && p->n_coeff != (size_t)layer->bottom_count)
        return sac_fail(err, SAC_EFORMAT, "%d bottoms need %d coefficients, and there are %zu",
                        layer->bottom_count, layer->bottom_count, p->n_coeff);
    if (p->n_coeff > 0 && method_of(p) == SAC_ELTWISE_PROD)
        return sac_fail(err, SAC_EFORMAT, "only a sum takes coefficients, and this is PROD");
    struct eltwise *eltwise = sac_layer_state_new(
        layer, in, sizeof *eltwise + p->n_coeff * sizeof eltwise->coeff[0], err);
    if (!eltwise)
        return SAC_ENOMEM;
    eltwise->method = method_of(p);
    if (eltwise->method == SAC_ELTWISE_SUM)
        eltwise->coeff_count = (int)p->n_coeff;
    for (int i = 0; i < eltwise->coeff_count; i++)
        eltwise->coeff[i] = p->coeff[i];
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];

    shapes->out[0] = shapes->in[0];
    for (int i = 1; i < layer->bottom_count; i++) {
        if (!sac_shape_equal(&shapes->in[0], &shapes->in[i]))
            return sac_fail(err, SAC_EFORMAT, "bottom 0 is %s and bottom %d is %s",
                            sac_shape_text(&shapes->in[0], a, sizeof a), i,
                            sac_shape_text(&shapes->in[i], b, sizeof b));
    }
    return 0;
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct eltwise *eltwise = out->layer->state;
    struct sac_node *node = sac_emit_node(out, SAC_OP_ELTWISE, err);

    if (!node)
        return SAC_ENOMEM;
    node->param.eltwise.method = eltwise->method;
    if (eltwise->coeff_count == 0)
        return 0;
    size_t bytes = (size_t)eltwise->coeff_count * sizeof(float);
    float *coeff = sac_arena_alloc(out->graph->arena, bytes);
    if (!coeff)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    node->param.eltwise.coeff = memcpy(coeff, eltwise->coeff, bytes);
    return 0;
}

const struct sac_layer_type sac_layer_eltwise = {
    .name = "Eltwise",
    .bottom_min = 2,
    .bottom_max = SAC_ANY_COUNT,
    .top_min = 1,
    .top_max = 1,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};
