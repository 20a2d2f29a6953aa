/*
 * What is wrong with a data set, or with the parts of one: damaged pictures, copies
 * (the same bytes), near copies (the same picture in another size or compression), tiny
 * and oddly shaped ones, those whose label a trained model doubts, and those of kinds
 * that are not read.
 */
#ifndef SAC_DATASET_CHECK_H
#define SAC_DATASET_CHECK_H

#include "data/source.h"

enum sac_fault {
    SAC_FAULT_CORRUPT,
    SAC_FAULT_TINY,
    SAC_FAULT_ASPECT,
    SAC_FAULT_DUPLICATE,
    SAC_FAULT_NEAR_DUPLICATE,
    SAC_FAULT_MISLABELLED,
    SAC_FAULT_UNREAD, /* its index is in the source's `unread` */
    SAC_FAULTS,
};
extern const char *const sac_fault_names[SAC_FAULTS];

/* Zero means the default, which stands behind each. */
struct sac_check_options {
    int tiny;      /* the smaller side is under so many pixels: 32 */
    double aspect; /* the longer side over the shorter is above: 3 */
    /* Near copies within one class of one part count too; else only those between
     * parts or classes. With a single part they do anyhow. */
    bool all_pairs;
    const char *model;  /* a model directory that doubts labels, or NULL */
    const char *device; /* that it runs on; "auto" */
    int threads;
    /* `what`: "pictures" that are read or, after that, "asked of the model". */
    void (*on_progress)(void *user, const char *what, int64_t done, int64_t total, int64_t faults);
    void *user;
};

struct sac_finding {
    enum sac_fault fault;
    int part;
    int64_t index;  /* in its part */
    int other_part; /* of a copy, the first of its kind; else −1 */
    int64_t other_index;
    char *why; /* a sentence; owned */
};

struct sac_check {
    int64_t items;
    int64_t counts[SAC_FAULTS];
    struct sac_finding *findings; /* by fault, then in the parts' order; owned */
    int64_t finding_count;
    int classes;
    int64_t *class_counts; /* parts × classes; owned */
};
void sac_check_done(struct sac_check *check);

/* Reads all pictures once, and those that may be copies once more. Memory: some 50
 * bytes a picture, and what a model needs (opinion.h). Fails only where a source does. */
int sac_check_of(struct sac_check *ret, const struct sac_source *const *parts, int part_count,
                 const struct sac_check_options *options, struct sac_error *err);

#endif
