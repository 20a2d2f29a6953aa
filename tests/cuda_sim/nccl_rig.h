/* Ranks for the tests of NCCL's stand-in: each a thread with a device of its own, in this
 * process or in several. */
#ifndef SIM_NCCL_RIG_H
#define SIM_NCCL_RIG_H

#include "cuda_sim/rig.h"

#include <nccl.h>

enum { RIG_RANKS_MAX = 8 };

struct rig_rank {
    int rank, world;
    ncclUniqueId id;
    const void *user;
    /* rig_open()'s: a communicator that does not block */
    ncclComm_t comm;
    cudaStream_t stream;
};

/* Runs `run` as ranks [first, first + count) of `world`, each a thread, rank r on device
 * r - first, and joins them. */
void rig_threads(const ncclUniqueId *id, int first, int count, int world,
                 void (*run)(struct rig_rank *rank), const void *user);
/* All of them here. */
void rig_ranks(int world, void (*run)(struct rig_rank *rank), const void *user);

/* Runs this program once more as ranks [first, first + count), with these faults (NULL:
 * none); what it is to run it knows by `name`. Returns its process. */
int rig_process(const char *name, const ncclUniqueId *id, int first, int count, int world,
                const char *faults);
int rig_status(int process); /* as waitpid's, once it ended */

void rig_open(struct rig_rank *rank);
void rig_close(struct rig_rank *rank);

/* The communicator's state once it is no more in progress; once it failed; 20 s at most. */
ncclResult_t rig_state(ncclComm_t comm);
ncclResult_t rig_failure(ncclComm_t comm);
/* Sums in place, on the rank's stream; enqueued when it returns. */
ncclResult_t rig_all_reduce(struct rig_rank *rank, float *values, size_t count);

#endif
