/*
 * A data set divided into parts for training, validation and test, class by class: a
 * plan that is a function of the labels and a seed. Any thread.
 */
#ifndef SAC_DATASET_SPLIT_H
#define SAC_DATASET_SPLIT_H

#include "data/source.h"

enum { SAC_SPLIT_PARTS = 3 }; /* train, val, test */
extern const char *const sac_split_names[SAC_SPLIT_PARTS];

/* Of each class, shares of all it has, or counts. */
struct sac_split_options {
    /* Parts of 1, in sum at most 1; what is left over is in no part. A part that is
     * more than 0 has at least one picture of each class that has enough. */
    double share[SAC_SPLIT_PARTS];
    int64_t count[SAC_SPLIT_PARTS]; /* instead, where one of them is more than 0 */
    int64_t min;                    /* classes of fewer pictures are dropped; 0: 1 */
    int64_t max;                    /* of larger classes so many, by chance; 0: all */
    uint64_t seed;
};

struct sac_split {
    int64_t *indices[SAC_SPLIT_PARTS]; /* of the source's items; shuffled; owned */
    int64_t counts[SAC_SPLIT_PARTS];
    int32_t *renumber; /* of each class of the source its number here; −1: dropped */
    int classes_before;
    struct sac_labels labels; /* of those that are left, if the source has names */
    int classes;
    int64_t (*class_counts)[SAC_SPLIT_PARTS]; /* of each class that is left */
};
void sac_split_done(struct sac_split *split);

/* SAC_EINVAL: shares or counts that cannot be, labels below 0 or not whole; a class
 * with fewer pictures than the counts ask for; no class left. */
int sac_split_plan(struct sac_split *ret, const struct sac_source *source,
                   const struct sac_split_options *options, struct sac_error *err);

/* One part as a source, classes renumbered. */
int sac_split_open(struct sac_source **ret, const struct sac_split *split,
                   const struct sac_source *source, int part, struct sac_error *err);

#endif
