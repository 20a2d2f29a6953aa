/*
 * A data set made of another: pictures decoded, fitted, encoded and written, by all
 * cores, in an order that a seed decides. `saccade dataset create` and `convert`.
 *
 * Whether it is the same data set is told by the options and by the pictures' names,
 * labels, sizes and times of change; one that is complete is looked through.
 *
 * Lists, folders and LMDBs are gone on with where a killed run left off: what was
 * committed is not done again, and the result is, bit for bit, that of a run that was
 * not killed. Memory does not grow with the number of pictures (but for some bytes an
 * item that sources keep).
 *
 * Beside the data: labels.txt, mean.binaryproto (where sizes are fixed), skipped.txt
 * (a line a picture that could not be used) and, last of all, dataset.json.
 */
#ifndef SAC_DATASET_BUILD_H
#define SAC_DATASET_BUILD_H

#include "dataset/cook.h"

struct sac_build_options {
    struct sac_recipe recipe; /* its seed decides the order as well */
    const char *out;
    bool shuffle;
    bool mean; /* mean.binaryproto; the recipe has a size */
    int threads;
    /* On the calling thread, now and then and at the end; may be NULL. */
    void (*on_progress)(void *user, int64_t done, int64_t total, int64_t skipped);
    /* A picture that cannot be used; likewise. */
    void (*on_skip)(void *user, const char *sentence);
    void *user;
};

struct sac_build_report {
    int64_t items;   /* of the source */
    int64_t resumed; /* of these, done by an earlier run */
    int64_t written, skipped;
    int classes;
    bool complete_before; /* there was nothing left to do */
};

/* SAC_EINVAL: options that contradict each other, or a place where something else is;
 * SAC_EFORMAT: not one picture could be used. */
int sac_build(const struct sac_source *source, const struct sac_build_options *options,
              struct sac_build_report *ret, struct sac_error *err);

#endif
