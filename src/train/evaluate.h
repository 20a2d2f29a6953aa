/*
 * How well a net does: its scores against the labels, counted.
 *
 * Batches are added up into what a report says: top-1 and top-5 as Caffe's Accuracy has
 * them, the loss of its SoftmaxWithLoss, confusion, precision, recall and F1 a class,
 * calibration. Pure: nothing here knows of nets, files or threads. Any thread, an
 * evaluation on one at a time; the same batches in the same order give the same bits.
 */
#ifndef SAC_TRAIN_EVALUATE_H
#define SAC_TRAIN_EVALUATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

/* A batch: outer × classes × inner values, outer × inner labels (whole numbers).
 * One outer and one inner index make an item. All borrowed. */
struct sac_scores {
    const float *values, *labels;
    int64_t outer, inner;
    int classes;
    bool probabilities; /* behind a softmax; else scores before it */
    bool ignores;       /* items whose label is `ignore_label` do not count */
    int ignore_label;
};

/* SAC_EINVAL: a label that is no whole number of 0 to classes − 1, or a value that
 * is not finite; *ret_item (may be NULL) is the item. Without values it is about the
 * labels alone. The functions below expect
 * scores that passed. */
int sac_scores_check(const struct sac_scores *scores, int64_t *ret_item, struct sac_error *err);

/* The probabilities of one item into ret[classes]. */
void sac_scores_softmax(const struct sac_scores *scores, int64_t item, float *ret);

enum {
    SAC_EVALUATION_TOP_K = 5,
    SAC_EVALUATION_BINS = 15,
    SAC_EVALUATION_CONFUSION_MAX = 4096, /* classes with which there is a matrix */
};

struct sac_evaluation;

int sac_evaluation_new(struct sac_evaluation **ret, int classes, struct sac_error *err);
void sac_evaluation_free(struct sac_evaluation *evaluation); /* takes NULL */

/* Adds a batch of as many classes. */
int sac_evaluation_add(struct sac_evaluation *evaluation, const struct sac_scores *scores,
                       struct sac_error *err);

/* Without items all of it is 0. */
struct sac_evaluation_summary {
    int64_t items, ignored;
    int classes, top_k; /* 5, or as many as there are classes */
    /* Caffe's Accuracy: the part of the items with fewer than 1 or 5 other values that are
     * as large as the label's or larger (ties count against). */
    double top1, topk;
    double loss; /* the mean of −log(max(p, FLT_MIN)), p the label's probability */
    /* The mean over the classes that have items. */
    double precision, recall, f1;
    /* The mean (weighted by items) and the largest distance between confidence and
     * accuracy over the bins: Guo et al., On Calibration of Modern Neural Networks. */
    double ece, mce;
};
struct sac_evaluation_summary sac_evaluation_summary(const struct sac_evaluation *evaluation);

/* What is predicted is the largest value's class, of several the first. A quotient
 * whose divisor is 0 is 0. */
struct sac_class_result {
    int64_t items, predicted, correct;
    double precision, recall, f1;
};
struct sac_class_result sac_evaluation_class(const struct sac_evaluation *evaluation, int index);
/* Items of class `label` that were predicted as `predicted`; −1 without a matrix. */
int64_t sac_evaluation_confused(const struct sac_evaluation *evaluation, int label, int predicted);

/* Items whose confidence is in (index/bins, (index + 1)/bins]. */
struct sac_calibration_bin {
    int64_t items;
    double confidence, accuracy; /* means */
};
struct sac_calibration_bin sac_evaluation_bin(const struct sac_evaluation *evaluation, int index);

/* The classes' names, borrowed; a class without one is "class 17". */
struct sac_class_names {
    char *const *text;
    int count;
};
const char *sac_class_name(const struct sac_class_names *names, int index, char *room, size_t size);

/* The report for people, and for programs (a new reference; NULL: out of memory). */
void sac_evaluation_put_text(struct sac_buf *out, const struct sac_evaluation *evaluation,
                             const struct sac_class_names *names);
json_t *sac_evaluation_json(const struct sac_evaluation *evaluation,
                            const struct sac_class_names *names);

#endif
