/*
 * Work on numbered items by several threads, the results taken in order. At most a
 * fixed number of results wait at a time, in slots that are used again and again: what
 * they hold stays as large as the largest item, whatever their number.
 */
#ifndef SAC_DATASET_PIPELINE_H
#define SAC_DATASET_PIPELINE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct sac_pipeline {
    int64_t begin, end; /* the items' numbers */
    int threads;        /* 0: as many as the process has cores */
    int slots;          /* results that wait or are being worked on; 0: 8 a thread */
    size_t slot_size;   /* bytes, zeroed at the start and then left alone */
    /* A thread's own; on that thread. NULL and no failure: nothing is needed. */
    int (*worker_new)(void *user, void **ret, struct sac_error *err);
    void (*worker_free)(void *worker);
    /* On a worker's thread. A failure ends the run when its turn to be taken comes. */
    int (*work)(void *user, void *worker, int64_t index, void *slot, struct sac_error *err);
    /* On the calling thread, in order. */
    int (*take)(void *user, int64_t index, void *slot, struct sac_error *err);
    void (*slot_done)(void *slot); /* at the end; may be NULL */
};

/* Blocks until all items are taken or one has failed: of failures the first in order. */
int sac_pipeline_run(const struct sac_pipeline *pipeline, void *user, struct sac_error *err);

#endif
