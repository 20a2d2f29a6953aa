/*
 * Training by several ranks: a thread each for those of this process, which may be one
 * process of many. Blocks until all of its ranks are through.
 *
 * When a rank fails or is lost, here or in another process, all others end with a
 * sentence that names it.
 */
#ifndef SAC_TRAIN_CREW_H
#define SAC_TRAIN_CREW_H

#include "ranks/ranks.h"
#include "train/trainer.h"

struct sac_crew_options {
    /* Of every rank; device and comm are the crew's. on_event and request are called on
     * the caller's thread, which is this process's first rank. */
    const struct sac_trainer_options *trainer;
    /* One a rank of this process. They need a communicator of their own kind, or the
     * host's memory. */
    struct sac_device *const *devices;
    int count;
    const struct sac_ranks *process; /* this one among others; NULL: alone */
    /* A rank that is alone sums through its communicator, too: to see what that costs. */
    bool communicates;
    /* With the trainer's `user`, on the caller's thread, in each process, whatever its ranks:
     * from now on `request` is asked. NULL: nobody wants to know. */
    void (*on_begin)(void *user);
};

/* The code of who failed first, in every process: a rank that was lost is SAC_EDEVICE. */
int sac_crew_run(const struct sac_crew_options *options, struct sac_error *err);

#endif
