/*
 * What a trained model thinks of labels.
 *
 * Where the model knows the same classes, it is asked: a picture is doubted when it
 * gives its label under 5 % and another class over 80 %.
 *
 * Any other model serves as an eye: what its last layer with weights takes (averaged
 * over the picture, and its root drawn) describes a picture, and a ridge regression from
 * that to the labels is judged on each picture by the others (leave one out, in closed
 * form: the residual over one minus the leverage). A picture is doubted when another
 * class scores higher than its own by 0.3 of the way from "no" (0) to "yes" (1), its own
 * under 0.3, and of the ten pictures that look most like it at most two have its label and
 * at least two that other. (With SqueezeNet v1.1 on flowers17, its doubled pictures gone,
 * that named 33 of 36 wrong labels, 4 at a time, and each time three or four others of
 * 1,294, always of the same four.)
 */
#ifndef SAC_DATASET_OPINION_H
#define SAC_DATASET_OPINION_H

#include "data/source.h"

/* One picture that is to be judged. */
struct sac_opinion_item {
    const struct sac_source *source;
    int64_t index;
    int32_t label;
};

struct sac_doubt {
    int64_t item;
    int32_t other; /* the class that it looks like */
    float own_score, other_score;
};

struct sac_opinion_options {
    const char *model;  /* a model directory */
    const char *device; /* NULL: "auto" */
    int classes;
    const struct sac_labels *labels; /* of the classes, or none */
    int threads;
};

/* Items that cannot be read or decoded are not judged, nor those of classes with fewer
 * than five. `ret` is freed by the caller; ordered by how far the scores differ. Memory:
 * at most 4 KB an item. */
int sac_opinion_of(struct sac_doubt **ret, int64_t *ret_count, const struct sac_opinion_item *items,
                   int64_t count, const struct sac_opinion_options *options, struct sac_error *err);

/* For tests: the closed form alone. x: count × width, row-major, rewritten; scores:
 * count × classes. */
int sac_opinion_leave_one_out(float *x, int64_t count, int width, const int32_t *labels,
                              int classes, float *scores, struct sac_error *err);

#endif
