/*
 * InnerProduct: the axes before `axis` are the batch, the others one vector of K.
 * Weights [N, K], or [K, N] when transposed; bias [N].
 */
#include "net/layer.h"

struct inner_product {
    int64_t num_output;
    int axis;
    bool bias, transpose;
};

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    static const Caffe__InnerProductParameter none = CAFFE__INNER_PRODUCT_PARAMETER__INIT;
    const Caffe__InnerProductParameter *p =
        in->message->inner_product_param ? in->message->inner_product_param : &none;
    struct inner_product *inner = sac_layer_state_new(layer, in, sizeof *inner, err);

    if (!inner)
        return SAC_ENOMEM;
    if (p->num_output < 1)
        return sac_fail(err, SAC_EFORMAT, "num_output has to be at least 1, and is 0");
    inner->num_output = p->num_output;
    inner->axis = p->axis;
    inner->bias = p->bias_term;
    inner->transpose = p->transpose;
    int rc = sac_layer_set_filler(layer, in, 0, p->weight_filler, err);
    return rc == 0 ? sac_layer_set_filler(layer, in, 1, p->bias_filler, err) : rc;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct inner_product *inner = layer->state;
    const struct sac_shape *in = &shapes->in[0];
    int axis;
    int rc = sac_layer_axis(inner->axis, in->rank, &axis, err);

    if (rc != 0)
        return rc;
    int64_t n = inner->num_output;
    int64_t k = sac_shape_count_between(in, axis, in->rank);
    shapes->out[0] = *in;
    shapes->out[0].rank = axis + 1;
    shapes->out[0].dim[axis] = n;
    shapes->weights[0] =
        (struct sac_shape){.rank = 2, .dim = {inner->transpose ? k : n, inner->transpose ? n : k}};
    shapes->weights[1] = (struct sac_shape){.rank = 1, .dim = {n}};
    shapes->weight_count = inner->bias ? 2 : 1;
    return 0;
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct inner_product *inner = out->layer->state;
    struct sac_node *node = sac_emit_node(out, SAC_OP_INNER, err);

    if (!node)
        return SAC_ENOMEM;
    node->param.inner.transpose = inner->transpose;
    return sac_layer_axis(inner->axis, out->in[0].rank, &node->param.inner.axis, err);
}

const struct sac_layer_type sac_layer_inner_product = {
    .name = "InnerProduct",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};
