/*
 * Losses and Accuracy: their shapes, so that a net written for training loads. A
 * graph has no operation for them.
 */
#include "net/layer.h"

struct loss {
    int axis;
    int64_t top_k;
};

static int setup_softmax(struct sac_layer *layer, const struct sac_layer_setup *in,
                         struct sac_error *err)
{
    struct loss *loss = sac_layer_state_new(layer, in, sizeof *loss, err);

    if (!loss)
        return SAC_ENOMEM;
    loss->axis = in->message->softmax_param ? in->message->softmax_param->axis : 1;
    return 0;
}

static int setup_accuracy(struct sac_layer *layer, const struct sac_layer_setup *in,
                          struct sac_error *err)
{
    static const Caffe__AccuracyParameter none = CAFFE__ACCURACY_PARAMETER__INIT;
    const Caffe__AccuracyParameter *p =
        in->message->accuracy_param ? in->message->accuracy_param : &none;
    struct loss *loss = sac_layer_state_new(layer, in, sizeof *loss, err);

    if (!loss)
        return SAC_ENOMEM;
    loss->axis = p->axis;
    loss->top_k = p->top_k;
    return 0;
}

/* A label for each place but along the class axis. */
static int check_labels(const struct loss *loss, const struct sac_shape *in, int *ret_axis,
                        struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
    int rc = sac_layer_axis(loss->axis, in[0].rank, ret_axis, err);

    if (rc != 0)
        return rc;
    if (sac_shape_count(&in[0]) / in[0].dim[*ret_axis] == sac_shape_count(&in[1]))
        return 0;
    return sac_fail(err, SAC_EFORMAT,
                    "the labels are %s, and scores of %s with classes along axis %d need one a "
                    "place",
                    sac_shape_text(&in[1], b, sizeof b), sac_shape_text(&in[0], a, sizeof a),
                    *ret_axis);
}

static int shape_softmax(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                         struct sac_error *err)
{
    int axis;
    int rc = check_labels(layer->state, shapes->in, &axis, err);

    if (rc == 0 && layer->top_count > 1)
        shapes->out[1] = shapes->in[0];
    return rc;
}

static int shape_accuracy(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                          struct sac_error *err)
{
    const struct loss *loss = layer->state;
    int axis;
    int rc = check_labels(loss, shapes->in, &axis, err);

    if (rc != 0)
        return rc;
    int64_t classes = shapes->in[0].dim[axis];
    if (loss->top_k < 1 || loss->top_k > classes)
        return sac_fail(err, SAC_EFORMAT, "top_k has to be 1 to %lld, the classes, and is %lld",
                        (long long)classes, (long long)loss->top_k);
    if (layer->top_count > 1)
        shapes->out[1] = (struct sac_shape){.rank = 1, .dim = {classes}};
    return 0;
}

static int shape_pairwise(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                          struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
    const struct sac_shape *in = shapes->in;

    if (sac_shape_count(&in[0]) != sac_shape_count(&in[1]))
        return sac_fail(err, SAC_EFORMAT, "its bottoms differ in count: %s and %s",
                        sac_shape_text(&in[0], a, sizeof a), sac_shape_text(&in[1], b, sizeof b));
    if (layer->top_count > 1)
        shapes->out[1] = in[0];
    return 0;
}

const struct sac_layer_type sac_layer_softmax_with_loss = {
    .name = "SoftmaxWithLoss",
    .bottom_min = 2,
    .bottom_max = 2,
    .top_min = 0,
    .top_max = 2,
    .setup = setup_softmax,
    .shape = shape_softmax,
};

const struct sac_layer_type sac_layer_accuracy = {
    .name = "Accuracy",
    .bottom_min = 2,
    .bottom_max = 2,
    .top_min = 1,
    .top_max = 2,
    .setup = setup_accuracy,
    .shape = shape_accuracy,
};

const struct sac_layer_type sac_layer_euclidean_loss = {
    .name = "EuclideanLoss",
    .bottom_min = 2,
    .bottom_max = 2,
    .top_min = 0,
    .top_max = 1,
    .shape = shape_pairwise,
};

const struct sac_layer_type sac_layer_sigmoid_cross_entropy_loss = {
    .name = "SigmoidCrossEntropyLoss",
    .bottom_min = 2,
    .bottom_max = 2,
    .top_min = 0,
    .top_max = 2,
    .shape = shape_pairwise,
};
