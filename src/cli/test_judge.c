#include "cli/test_judge.h"

#include <string.h>

#include "net/layer.h"

static bool is_type(const Caffe__LayerParameter *layer, const char *type)
{
    return layer->type && strcmp(layer->type, type) == 0;
}

/* ---- Reading --------------------------------------------------------------- */

static void read_loss(struct sac_judge *judge, const Caffe__LayerParameter *layer)
{
    const Caffe__LossParameter *p = layer->loss_param;

    judge->is_loss = true;
    judge->axis = layer->softmax_param ? layer->softmax_param->axis : 1;
    judge->ignores = p && p->has_ignore_label;
    judge->ignore_label = p ? p->ignore_label : 0;
}

static void read_accuracy(struct sac_judge *judge, const Caffe__LayerParameter *layer)
{
    const Caffe__AccuracyParameter *p = layer->accuracy_param;

    judge->axis = p ? p->axis : 1;
    judge->ignores = p && p->has_ignore_label;
    judge->ignore_label = p ? p->ignore_label : 0;
}

int sac_judge_read(struct sac_judge *ret, const Caffe__LayerParameter *layer, const char *labels,
                   struct sac_error *err)
{
    bool is_loss = is_type(layer, "SoftmaxWithLoss");

    if ((!is_loss && !is_type(layer, "Accuracy")) || layer->n_bottom < 2)
        return 0;
    if (!labels || strcmp(layer->bottom[1], labels) != 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "layer \"%.64s\" (%s): its labels, \"%.64s\", are not those that the data "
                        "layer gives",
                        layer->name, layer->type, layer->bottom[1]);
    *ret = (struct sac_judge){.scores = layer->bottom[0]};
    if (is_loss)
        read_loss(ret, layer);
    else
        read_accuracy(ret, layer);
    return 1;
}

struct sac_judge sac_judge_of_output(const char *blob)
{
    return (struct sac_judge){.scores = blob, .axis = 1};
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

int sac_judge_settle(struct sac_judge *judge, const struct sac_net *net, int64_t batch,
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
    judge->probabilities = !judge->is_loss && is_softmax(net, judge->scores);
    if (judge->outer % batch == 0 && judge->outer * judge->inner == batch * label_count)
        return 0;
    return sac_fail(
        err, SAC_EINVAL, "blob \"%.64s\" is %s; the data has %d labels for a batch of %lld",
        judge->scores, sac_shape_text(&shape, text, sizeof text), label_count, (long long)batch);
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
