/*
 * Losses and Accuracy. A loss is a scalar; the second top of SoftmaxWithLoss and
 * SigmoidCrossEntropyLoss is the softmax or sigmoid of the scores, that of Accuracy
 * one number a class.
 *     SoftmaxWithLoss          −Σ log(max(softmax(x)[label], FLT_MIN)) / n
 *     EuclideanLoss            Σ (a − b)² / 2N
 *     SigmoidCrossEntropyLoss  −Σ (t·log σ(x) + (1 − t)·log(1 − σ(x))) / n
 * n by loss_param.normalization: VALID for a softmax, BATCH_SIZE for a sigmoid when
 * nothing is said.
 */
#include "net/layer.h"

#include <string.h>

/* The state of all: the operation's parameter. */
typedef union sac_op_param param;

static enum sac_loss_norm norm_of(const Caffe__LossParameter *p, enum sac_loss_norm usual)
{
    if (p && p->has_normalization) {
        switch (p->normalization) {
        case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__FULL:
            return SAC_LOSS_FULL;
        case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__BATCH_SIZE:
            return SAC_LOSS_BATCH_SIZE;
        case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__NONE:
            return SAC_LOSS_NONE;
        default:
            return SAC_LOSS_VALID;
        }
    }
    if (p && p->has_normalize)
        return p->normalize ? SAC_LOSS_VALID : SAC_LOSS_BATCH_SIZE;
    return usual;
}

static param *setup_loss(struct sac_layer *layer, const struct sac_layer_setup *in,
                         enum sac_loss_norm usual, struct sac_error *err)
{
    const Caffe__LossParameter *p = in->message->loss_param;
    param *out = sac_layer_state_new(layer, in, sizeof *out, err);

    if (!out)
        return NULL;
    out->loss.norm = norm_of(p, usual);
    out->loss.axis = 1;
    out->loss.ignores = p && p->has_ignore_label;
    out->loss.ignored = p ? p->ignore_label : 0;
    return out;
}

static int setup_softmax(struct sac_layer *layer, const struct sac_layer_setup *in,
                         struct sac_error *err)
{
    const Caffe__LossParameter *p = in->message->loss_param;
    param *out = setup_loss(layer, in, SAC_LOSS_VALID, err);

    if (!out)
        return SAC_ENOMEM;
    out->loss.axis = in->message->softmax_param ? in->message->softmax_param->axis : 1;
    out->loss.smoothing = p ? p->label_smoothing : 0;
    if (!(out->loss.smoothing >= 0 && out->loss.smoothing < 1))
        return sac_fail(err, SAC_EFORMAT,
                        "label_smoothing has to be at least 0 and less than 1, and is %g",
                        (double)out->loss.smoothing);
    return 0;
}

static int setup_sigmoid(struct sac_layer *layer, const struct sac_layer_setup *in,
                         struct sac_error *err)
{
    return setup_loss(layer, in, SAC_LOSS_BATCH_SIZE, err) ? 0 : SAC_ENOMEM;
}

static int setup_accuracy(struct sac_layer *layer, const struct sac_layer_setup *in,
                          struct sac_error *err)
{
    static const Caffe__AccuracyParameter none = CAFFE__ACCURACY_PARAMETER__INIT;
    const Caffe__AccuracyParameter *p =
        in->message->accuracy_param ? in->message->accuracy_param : &none;
    param *out = sac_layer_state_new(layer, in, sizeof *out, err);

    if (!out)
        return SAC_ENOMEM;
    out->loss.axis = p->axis;
    out->loss.top_k = p->top_k > INT32_MAX ? INT32_MAX : (int)p->top_k;
    out->loss.ignores = p->has_ignore_label;
    out->loss.ignored = p->ignore_label;
    return 0;
}

/* A label for each place but along the class axis. */
static int check_labels(const param *loss, const struct sac_shape *in, int *ret_axis,
                        struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
    int rc = sac_layer_axis(loss->loss.axis, in[0].rank, ret_axis, err);

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
    const param *loss = layer->state;
    int axis;
    int rc = check_labels(loss, shapes->in, &axis, err);

    if (rc != 0)
        return rc;
    int64_t classes = shapes->in[0].dim[axis];
    if (loss->loss.top_k < 1 || loss->loss.top_k > classes)
        return sac_fail(err, SAC_EFORMAT, "top_k has to be 1 to %lld, the classes, and is %lld",
                        (long long)classes, (long long)loss->loss.top_k);
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

/* A loss that declares no top has a value all the same, named after it. */
static int add_results(struct sac_emit *out)
{
    if (out->layer->top_count == 0)
        out->dst[0] = sac_graph_add_value(out->graph, out->layer->name, &(struct sac_shape){0});
    for (int i = 0; i < out->layer->top_count; i++)
        sac_emit_top(out, i);
    for (int i = 0; i < out->layer->top_count || i == 0; i++)
        if (out->dst[i] < 0)
            return SAC_ENOMEM;
    return 0;
}

static int emit(struct sac_emit *out, enum sac_op_kind kind, struct sac_error *err)
{
    int tops = out->layer->top_count > 0 ? out->layer->top_count : 1;
    struct sac_node *node = add_results(out) == 0
                                ? sac_graph_add_node(out->graph, kind, out->layer->name, 2, tops)
                                : NULL;

    if (!node)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    if (out->layer->state)
        node->param = *(const param *)out->layer->state;
    if (node->param.loss.axis < 0)
        node->param.loss.axis += out->in[0].rank;
    memcpy(node->src, out->src, 2 * sizeof *node->src);
    memcpy(node->dst, out->dst, (size_t)tops * sizeof *node->dst);
    return 0;
}

static int emit_softmax(struct sac_emit *out, struct sac_error *err)
{
    return emit(out, SAC_OP_SOFTMAX_LOSS, err);
}

static int emit_euclidean(struct sac_emit *out, struct sac_error *err)
{
    return emit(out, SAC_OP_EUCLIDEAN_LOSS, err);
}

static int emit_sigmoid(struct sac_emit *out, struct sac_error *err)
{
    return emit(out, SAC_OP_SIGMOID_LOSS, err);
}

static int emit_accuracy(struct sac_emit *out, struct sac_error *err)
{
    return emit(out, SAC_OP_ACCURACY, err);
}

const struct sac_layer_type sac_layer_softmax_with_loss = {
    .name = "SoftmaxWithLoss",
    .bottom_min = 2,
    .bottom_max = 2,
    .top_min = 0,
    .top_max = 2,
    .setup = setup_softmax,
    .judges = true,
    .loss = true,
    .shape = shape_softmax,
    .emit = emit_softmax,
};

const struct sac_layer_type sac_layer_accuracy = {
    .name = "Accuracy",
    .bottom_min = 2,
    .bottom_max = 2,
    .top_min = 1,
    .top_max = 2,
    .setup = setup_accuracy,
    .judges = true,
    .shape = shape_accuracy,
    .emit = emit_accuracy,
};

const struct sac_layer_type sac_layer_euclidean_loss = {
    .name = "EuclideanLoss",
    .bottom_min = 2,
    .bottom_max = 2,
    .top_min = 0,
    .top_max = 1,
    .judges = true,
    .loss = true,
    .shape = shape_pairwise,
    .emit = emit_euclidean,
};

const struct sac_layer_type sac_layer_sigmoid_cross_entropy_loss = {
    .name = "SigmoidCrossEntropyLoss",
    .bottom_min = 2,
    .bottom_max = 2,
    .top_min = 0,
    .top_max = 2,
    .judges = true,
    .loss = true,
    .setup = setup_sigmoid,
    .shape = shape_pairwise,
    .emit = emit_sigmoid,
};
