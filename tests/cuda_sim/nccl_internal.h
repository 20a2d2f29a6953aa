/* What the stand-in for NCCL keeps of a communicator. The simulator's lock guards all of it
 * but the ring, which belongs to whoever has its turn. */
#ifndef SIM_NCCL_INTERNAL_H
#define SIM_NCCL_INTERNAL_H

#include <nccl.h>

#include "internal.h"
#include "nccl_ring.h"

/* What a call asks of all ranks alike; they compare it before they begin. */
struct sim_collective_head {
    uint64_t number, count;
    int32_t kind, type, op, root;
};
enum { SIM_ALL_REDUCE, SIM_BROADCAST, SIM_COLLECTIVES };

struct sim_collective {
    ncclComm_t comm;
    struct sim_collective_head head;
    const void *from;
    void *to;
    uint64_t ticket;
    long call; /* the how many-th of its device, for faults */
    bool captured, done;
};

struct ncclComm {
    struct ncclComm *next;
    int refs; /* the handle, and what is queued or recorded */
    struct sim_ring ring;
    struct sim_ring_rank me;
    char id[SIM_RING_ID];
    bool blocking, finalized, ended;
    bool calling;              /* a thread is in a collective's call */
    bool silent;               /* takes part in nothing any more: an injected fault */
    ncclResult_t state;        /* as ncclCommGetAsyncError tells it */
    char why[300];             /* of the last failure */
    uint64_t issued, turn;     /* of the calls that are not captured */
    uint64_t number;           /* of what ran, captured or not */
    bool busy;                 /* one of them is at it */
    pthread_t job;             /* what a call goes on with after it returned */
    bool has_job, job_running; /* a thread to join; it is not done */
    ncclResult_t (*job_run)(ncclComm_t comm);
    struct sim_collective *pending; /* the job's */
    cudaStream_t pending_stream;
    bool pending_waits;
    bool called[SIM_COLLECTIVES];    /* before: each kind connects the ranks for itself */
    bool connected[SIM_COLLECTIVES]; /* the others came to the first of the kind, too */
};

int sim_nccl_version(void); /* holds the lock */
long sim_nccl_connect_s(void);
/* The live communicator; NULL, and a failed check, where it is none, or where its last call
 * goes on still. Holds the lock. */
ncclComm_t sim_nccl_find(const char *call, ncclComm_t comm);
ncclComm_t sim_nccl_find_ready(const char *call, ncclComm_t comm);
void sim_nccl_unref(ncclComm_t comm); /* holds the lock */
/* Keeps the first failure. Holds the lock. */
ncclResult_t sim_nccl_fail(ncclComm_t comm, ncclResult_t state, const char *why);
/* Goes on with `run` in a thread; ncclInProgress. Holds the lock. */
ncclResult_t sim_nccl_job(ncclComm_t comm, ncclResult_t (*run)(ncclComm_t comm));
ncclResult_t sim_nccl_result(enum sim_ring_result result);

#endif
