/*
 * Data parallelism's arithmetic: who a process is among others, which items of a batch
 * it takes, and which gradients travel together. Pure: nothing here talks to anybody.
 * Any thread.
 */
#ifndef SAC_RANKS_RANKS_H
#define SAC_RANKS_RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { SAC_RANKS_MAX = 65536, SAC_RANK_HOST = 256 };

/* One process among `world`; alone: 0 of 1. */
struct sac_ranks {
    int rank, world;
    int local;                  /* its place on its machine: which GPUs are its own */
    int locals;                 /* processes on its machine; 0: it was not said */
    bool mpi;                   /* MPI started it */
    char master[SAC_RANK_HOST]; /* where rank 0 is met; "" when alone */
    int port;
};

/* From RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK and LOCAL_WORLD_SIZE, as
 * torchrun and Kubernetes' training operators set them; where RANK and WORLD_SIZE are not
 * set, from Open MPI's OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK and _LOCAL_SIZE, which need
 * no master, or from Slurm's SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID and
 * SLURM_NTASKS_PER_NODE, if there is more than one of them.
 * Where torchrun keeps a store of its own at MASTER_PORT, the port is the next.
 * None of them: alone. Half a set, or a number that cannot be, is SAC_EINVAL with the
 * variable's name. `get` is getenv(), or a test's. */
int sac_ranks_read(struct sac_ranks *ret, const char *(*get)(const char *name),
                   struct sac_error *err);

/* Cores for each of `count` ranks of a process that may use `usable` of its machine's
 * `online`, which `processes` (0: one) share; at least 1. Where each was given cores of its
 * own these are not shared once more. */
int sac_ranks_cores(int usable, int online, int processes, int count);

/* What a layer's batch size means for `devices` of them in all. */
enum sac_batch_rule {
    SAC_BATCH_PER_DEVICE, /* BVLC Caffe: each device has so many; a step is `devices` times it */
    SAC_BATCH_SPLIT,      /* NVCaffe: all together have so many */
};

/* Items of a step over all devices; a batch that cannot be split evenly is SAC_EINVAL,
 * since each device's loss is the mean of its own items. */
int sac_ranks_batch(int batch, enum sac_batch_rule rule, int devices, int *ret_whole,
                    struct sac_error *err);

/* Gradients that are reduced together: elements [first, end) of the flat array. */
struct sac_bucket {
    size_t first, end;
    int ready_after; /* the step of the way back behind which all of it is there */
};

/* Cuts the flat array, whose part i = [at[i], at[i + 1]) is there after step `ready[i]`
 * (steps count up as the way goes back), into buckets of at least `least` elements but for
 * the one that is there last, in the order in which they are there. Parts that are
 * neighbours in the array are joined; ready[i] < 0: nobody wants it. Writes at most
 * `parts` of them to `ret`, and returns how many. */
int sac_ranks_buckets(struct sac_bucket *ret, const size_t *at, const int *ready, int parts,
                      size_t least);

#endif
