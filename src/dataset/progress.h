/*
 * How far a data set has come, in two files that take turns: one of them is whole
 * whenever the program is killed. Private to src/dataset.
 */
#ifndef SAC_DATASET_PROGRESS_H
#define SAC_DATASET_PROGRESS_H

#include "data/sink.h"

struct sac_progress {
    uint64_t fingerprint; /* of what is made of what */
    int64_t position;     /* items of the source that are behind */
    struct sac_sink_mark mark;
    int64_t skipped;
    uint64_t skipped_bytes; /* of skipped.txt */
    size_t sum_count;
    uint64_t *sums; /* of pixels; owned */
};
void sac_progress_done(struct sac_progress *progress);

/* The files' numbers. */
enum { SAC_PROGRESS_FILES = 2 };

/* SAC_ENOENT: not there; SAC_EFORMAT: not whole. */
int sac_progress_load(struct sac_progress *ret, const char *folder, int number,
                      struct sac_error *err);
int sac_progress_save(const struct sac_progress *progress, const char *folder, int number,
                      struct sac_error *err);
void sac_progress_remove(const char *folder);

#endif
