/*
 * What the report of `saccade test --net` is about: scores of classes beside the data's
 * labels, as one Accuracy or SoftmaxWithLoss of a prototxt takes them, or the last output
 * of a deploy net. What losses and accuracies come to is the net's own business. Private
 * to it.
 */
#ifndef SAC_CLI_TEST_JUDGE_H
#define SAC_CLI_TEST_JUDGE_H

#include "formats/caffe.h"
#include "net/net.h"
#include "train/evaluate.h"

struct sac_judge {
    const char *scores; /* the blob; borrowed */
    bool is_loss, probabilities, ignores;
    int axis, ignore_label;
    /* Once it is settled: */
    int classes;
    int64_t outer, inner; /* of a whole batch */
};

/* 1: read; 0: the layer judges no classes. SAC_EUNSUPPORTED: it does, by labels that are
 * not the blob `labels` (NULL: there is none), as the data has them. */
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

#endif
