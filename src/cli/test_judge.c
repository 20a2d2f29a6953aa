#include "cli/test_judge.h"

#include <math.h>
#include <string.h>

#include "net/layer.h"

static bool is_type(const Caffe__LayerParameter *layer, const char *type)
{
    return layer->type && strcmp(layer->type, type) == 0;
}

/* ---- Reading --------------------------------------------------------------- */

static void read_loss(struct sac_judge *judge, const Caffe__LayerParameter *layer,
                      enum sac_loss_norm usual)
{
    static const Caffe__LossParameter none = CAFFE__LOSS_PARAMETER__INIT;
    const Caffe__LossParameter *p = layer->loss_param ? layer->loss_param : &none;

    judge->axis = layer->softmax_param ? layer->softmax_param->axis : 1;
    judge->ignores = p->has_ignore_label;
    judge->ignore_label = p->ignore_label;
    judge->norm = usual;
    if (!p->has_normalization && p->has_normalize)
        judge->norm = p->normalize ? SAC_LOSS_VALID : SAC_LOSS_BATCH_SIZE;
    else if (p->has_normalization)
        judge->norm =
            p->normalization == CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__FULL   ? SAC_LOSS_FULL
            : p->normalization == CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__NONE ? SAC_LOSS_NONE
            : p->normalization == CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__BATCH_SIZE
                ? SAC_LOSS_BATCH_SIZE
                : SAC_LOSS_VALID;
}

static void read_accuracy(struct sac_judge *judge, const Caffe__LayerParameter *layer)
{
    static const Caffe__AccuracyParameter none = CAFFE__ACCURACY_PARAMETER__INIT;
    const Caffe__AccuracyParameter *p = layer->accuracy_param ? layer->accuracy_param : &none;

    judge->axis = p->axis;
    judge->top_k = (int)p->top_k;
    judge->ignores = p->has_ignore_label;
    judge->ignore_label = p->ignore_label;
}

int sac_judge_read(struct sac_judge *ret, const Caffe__LayerParameter *layer, const char *labels,
                   struct sac_error *err)
{
    static const char *const types[] = {
        [SAC_JUDGE_ACCURACY] = "Accuracy",
        [SAC_JUDGE_SOFTMAX] = "SoftmaxWithLoss",
        [SAC_JUDGE_EUCLIDEAN] = "EuclideanLoss",
        [SAC_JUDGE_SIGMOID] = "SigmoidCrossEntropyLoss",
    };
    int kind = 0;

    while (kind <= SAC_JUDGE_SIGMOID && !is_type(layer, types[kind]))
        kind++;
    if (kind > SAC_JUDGE_SIGMOID)
        return 0;
    if (layer->n_bottom < 2)
        return sac_fail(err, SAC_EINVAL, "layer \"%.64s\" (%s): expected two bottoms", layer->name,
                        layer->type);
    *ret = (struct sac_judge){.kind = (enum sac_judge_kind)kind, .scores = layer->bottom[0]};
    if (!labels || strcmp(layer->bottom[1], labels) != 0)
        ret->targets = layer->bottom[1];
    if (sac_judge_has_classes(ret) && ret->targets)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "layer \"%.64s\" (%s): its labels, \"%.64s\", are not those that the data "
                        "layer gives",
                        layer->name, layer->type, ret->targets);
    if (sac_judge_is_loss(ret))
        read_loss(ret, layer, kind == SAC_JUDGE_SIGMOID ? SAC_LOSS_BATCH_SIZE : SAC_LOSS_VALID);
    else
        read_accuracy(ret, layer);
    return 1;
}

struct sac_judge sac_judge_of_output(const char *blob)
{
    return (struct sac_judge){.kind = SAC_JUDGE_ACCURACY, .scores = blob, .axis = 1, .top_k = 1};
}

/* ---- Settling -------------------------------------------------------------- */

/* Whether the last layer that writes the blob is a Softmax. */
static bool is_softmax(const struct sac_net *net, const char *blob)
{
    bool out = false;

    for (int i = 0; i < sac_net_layer_count(net); i++) {
        const struct sac_layer *layer = sac_net_layer(net, i);
        for (int k = 0; k < layer->top_count; k++)
            if (strcmp(layer->top_names[k], blob) == 0)
                out = strcmp(layer->type->name, "Softmax") == 0;
    }
    return out;
}

static int settle_classes(struct sac_judge *judge, const struct sac_net *net, int64_t batch,
                          int label_count, struct sac_error *err)
{
    struct sac_shape shape = {0};
    char text[SAC_SHAPE_TEXT];

    sac_net_blob_shape(net, judge->scores, &shape);
    int axis = judge->axis < 0 ? judge->axis + shape.rank : judge->axis;
    if (axis < 1 || axis >= shape.rank || shape.dim[axis] > INT32_MAX)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "blob \"%.64s\" is %s; expected classes along axis %d, items along 0",
                        judge->scores, sac_shape_text(&shape, text, sizeof text), judge->axis);
    judge->classes = (int)shape.dim[axis];
    judge->outer = sac_shape_count_between(&shape, 0, axis);
    judge->inner = sac_shape_count_between(&shape, axis + 1, shape.rank);
    judge->probabilities = !sac_judge_is_loss(judge) && is_softmax(net, judge->scores);
    if (judge->outer * judge->inner == batch * label_count)
        return 0;
    return sac_fail(
        err, SAC_EINVAL, "blob \"%.64s\" is %s; the data has %d labels for a batch of %lld",
        judge->scores, sac_shape_text(&shape, text, sizeof text), label_count, (long long)batch);
}

static int settle_pairs(struct sac_judge *judge, const struct sac_net *net, int64_t batch,
                        int label_count, struct sac_error *err)
{
    struct sac_shape a = {0}, b = {.rank = 2, .dim = {batch, label_count}};
    char a_text[SAC_SHAPE_TEXT], b_text[SAC_SHAPE_TEXT];

    sac_net_blob_shape(net, judge->scores, &a);
    if (judge->targets)
        sac_net_blob_shape(net, judge->targets, &b);
    if (a.rank < 1 || b.rank < 1 || a.dim[0] != batch || b.dim[0] != batch ||
        sac_shape_count(&a) != sac_shape_count(&b))
        return sac_fail(err, SAC_EINVAL,
                        "blobs \"%.64s\" and \"%.64s\" are %s and %s; expected as many values, in "
                        "%lld items",
                        judge->scores, judge->targets ? judge->targets : "labels",
                        sac_shape_text(&a, a_text, sizeof a_text),
                        sac_shape_text(&b, b_text, sizeof b_text), (long long)batch);
    judge->outer = batch;
    judge->inner = sac_shape_count(&a) / batch;
    return 0;
}

int sac_judge_settle(struct sac_judge *judge, const struct sac_net *net, int64_t batch,
                     int label_count, struct sac_error *err)
{
    return sac_judge_has_classes(judge) ? settle_classes(judge, net, batch, label_count, err)
                                        : settle_pairs(judge, net, batch, label_count, err);
}

/* ---- Judging --------------------------------------------------------------- */

struct sac_scores sac_judge_scores(const struct sac_judge *judge, const float *scores,
                                   const float *labels, int64_t count, int64_t batch)
{
    return (struct sac_scores){
        .values = scores,
        .labels = labels,
        .outer = judge->outer / batch * count,
        .inner = judge->inner,
        .classes = judge->classes,
        .probabilities = judge->probabilities,
        .ignores = judge->ignores,
        .ignore_label = judge->ignore_label,
    };
}

/* −(t·log σ(x) + (1 − t)·log(1 − σ(x))), without an exponential that overflows. */
static double sigmoid_loss(double x, double target)
{
    return log1p(exp(-fabs(x))) + (x > 0 ? x : 0) - x * target;
}

double sac_judge_pairs(const struct sac_judge *judge, const float *scores, const float *targets,
                       int64_t count)
{
    bool sigmoid = judge->kind == SAC_JUDGE_SIGMOID;
    int64_t values = count * judge->inner, valid = 0;
    double sum = 0;

    for (int64_t i = 0; i < values; i++) {
        double difference = (double)scores[i] - (double)targets[i];
        if (sigmoid && judge->ignores && (int)targets[i] == judge->ignore_label)
            continue;
        valid++;
        sum +=
            sigmoid ? sigmoid_loss((double)scores[i], (double)targets[i]) : difference * difference;
    }
    if (!sigmoid)
        return sum / (2 * (double)count);
    double by = judge->norm == SAC_LOSS_FULL         ? (double)values
                : judge->norm == SAC_LOSS_VALID      ? (double)valid
                : judge->norm == SAC_LOSS_BATCH_SIZE ? (double)count
                                                     : 1;
    return sum / (by > 1 ? by : 1);
}
