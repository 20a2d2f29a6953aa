/*
 * What `saccade test --net` judges by: the losses and accuracies of a prototxt, over
 * what an inference plan gives. Private to it.
 */
#ifndef SAC_CLI_TEST_JUDGE_H
#define SAC_CLI_TEST_JUDGE_H

#include "formats/caffe.h"
#include "net/net.h"
#include "train/evaluate.h"

enum sac_judge_kind {
    SAC_JUDGE_ACCURACY,
    SAC_JUDGE_SOFTMAX,   /* SoftmaxWithLoss */
    SAC_JUDGE_EUCLIDEAN, /* EuclideanLoss */
    SAC_JUDGE_SIGMOID,   /* SigmoidCrossEntropyLoss */
};

struct sac_judge {
    enum sac_judge_kind kind;
    const char *scores;  /* the blob that is judged; borrowed, as all text */
    const char *targets; /* the blob that it ought to be; NULL: the labels */
    int at, targets_at;  /* which outputs of the plan these are; the caller's */
    /* Of classes: */
    bool probabilities, ignores;
    int axis, top_k, ignore_label;
    enum sac_loss_norm norm;
    int classes;
    int64_t outer, inner; /* of a whole batch; of pairs, outer is the batch, inner values each */
};

static inline bool sac_judge_is_loss(const struct sac_judge *judge)
{
    return judge->kind != SAC_JUDGE_ACCURACY;
}
/* Whether it judges classes by labels; else pairs of values. */
static inline bool sac_judge_has_classes(const struct sac_judge *judge)
{
    return judge->kind <= SAC_JUDGE_SOFTMAX;
}

/* 1: read; 0: the layer judges nothing. `labels`: the blob that holds them, or NULL. */
int sac_judge_read(struct sac_judge *ret, const Caffe__LayerParameter *layer, const char *labels,
                   struct sac_error *err);
/* The last output of a deploy net. */
struct sac_judge sac_judge_of_output(const char *blob);

/* Once the net is there; `label_count`: labels an item. */
int sac_judge_settle(struct sac_judge *judge, const struct sac_net *net, int64_t batch,
                     int label_count, struct sac_error *err);

/* What classes are judged by, of `count` items of a batch. */
struct sac_scores sac_judge_scores(const struct sac_judge *judge, const float *scores,
                                   const float *labels, int64_t count, int64_t batch);
/* What pairs come to, of `count` items. */
double sac_judge_pairs(const struct sac_judge *judge, const float *scores, const float *targets,
                       int64_t count);

#endif
