/*
 * A stand-in for NCCL over simulated devices: communicators from their beginning to their
 * end. As with NCCL, one that does not block goes on in the background after a call
 * returned, and a rank that is gone shows as its neighbours' asynchronous error while
 * what is enqueued waits until somebody aborts.
 */
#include "nccl_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static struct ncclComm *comms;
static char last_why[300]; /* of a communicator that was never made */
static const char id_mark[] = "sim-nccl";

static long number_of(const char *name, long otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

int sim_nccl_version(void)
{
    static int version;

    if (version == 0)
        version = (int)number_of("SACCADE_SIM_NCCL_VERSION", NCCL_VERSION_CODE);
    return version;
}

long sim_nccl_connect_s(void)
{
    return number_of("SACCADE_SIM_NCCL_CONNECT", 600);
}

/* A call that the library of that version does not have. Holds the lock. */
static void came_with(const char *call, int version)
{
    if (sim_nccl_version() < version)
        sim_report(call, "came with NCCL %d, and this is %d", version, sim_nccl_version());
}

ncclResult_t ncclGetVersion(int *ret)
{
    if (!ret)
        return ncclInvalidArgument;
    sim_enter();
    *ret = sim_nccl_version();
    sim_leave();
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const text[] = {
        [ncclSuccess] = "no error",
        [ncclUnhandledCudaError] = "unhandled cuda error",
        [ncclSystemError] = "unhandled system error",
        [ncclInternalError] = "internal error",
        [ncclInvalidArgument] = "invalid argument",
        [ncclInvalidUsage] = "invalid usage",
        [ncclRemoteError] = "remote process exited or there was a network error",
        [ncclInProgress] = "NCCL operation in progress",
    };

    return (unsigned)result < ncclNumResults ? text[result] : "unknown result code";
}

ncclResult_t sim_nccl_result(enum sim_ring_result result)
{
    switch (result) {
    case SIM_RING_OK:
        return ncclSuccess;
    case SIM_RING_CLOSED:
        return ncclRemoteError;
    case SIM_RING_MISFIT:
        return ncclInvalidUsage;
    case SIM_RING_STOPPED:
        return ncclInternalError;
    default:
        return ncclSystemError;
    }
}

static bool is_failure(ncclResult_t state)
{
    return state != ncclSuccess && state != ncclInProgress;
}

ncclResult_t sim_nccl_fail(ncclComm_t comm, ncclResult_t state, const char *why)
{
    if (is_failure(comm->state))
        return comm->state;
    snprintf(comm->why, sizeof comm->why, "%s", why);
    memcpy(last_why, comm->why, sizeof last_why);
    pthread_cond_broadcast(&sim_done);
    return comm->state = state;
}

const char *ncclGetLastError(ncclComm_t comm)
{
    static __thread char copy[sizeof last_why];

    sim_enter();
    came_with("ncclGetLastError", 21300);
    ncclComm_t c = comm ? sim_nccl_find("ncclGetLastError", comm) : NULL;
    memcpy(copy, c ? c->why : last_why, sizeof copy);
    sim_leave();
    return copy;
}

ncclComm_t sim_nccl_find(const char *call, ncclComm_t comm)
{
    for (struct ncclComm *c = comms; c; c = c->next)
        if (c == comm)
            return c;
    sim_report(call, "%p is no communicator, or has ended", (void *)comm);
    return NULL;
}

ncclComm_t sim_nccl_find_ready(const char *call, ncclComm_t comm)
{
    ncclComm_t c = sim_nccl_find(call, comm);

    if (c && c->job_running) {
        sim_report(call, "the communicator's last call is in progress still");
        return NULL;
    }
    return c;
}

void sim_nccl_unref(ncclComm_t comm)
{
    if (--comm->refs == 0)
        free(comm);
}

/* ---- What goes on in the background --------------------------------------------- */

static void *job_main(void *arg)
{
    ncclComm_t comm = arg;
    ncclResult_t result = comm->job_run(comm);

    sim_enter();
    if (comm->state == ncclInProgress)
        comm->state = result;
    comm->job_running = false;
    pthread_cond_broadcast(&sim_done);
    sim_leave();
    return NULL;
}

/* Gives the lock away meanwhile. */
static void join_job(ncclComm_t comm)
{
    while (comm->job_running)
        pthread_cond_wait(&sim_done, &sim_lock);
    if (!comm->has_job)
        return;
    comm->has_job = false;
    sim_leave();
    pthread_join(comm->job, NULL);
    sim_enter();
}

ncclResult_t sim_nccl_job(ncclComm_t comm, ncclResult_t (*run)(ncclComm_t comm))
{
    join_job(comm);
    comm->job_run = run;
    if (pthread_create(&comm->job, NULL, job_main, comm) != 0)
        return sim_nccl_fail(comm, ncclSystemError, "no thread");
    comm->has_job = comm->job_running = true;
    if (comm->state == ncclSuccess)
        comm->state = ncclInProgress;
    return ncclInProgress;
}

/* ---- The beginning -------------------------------------------------------------- */

ncclResult_t ncclGetUniqueId(ncclUniqueId *ret)
{
    unsigned char random[8];

    if (!ret)
        return ncclInvalidArgument;
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return ncclSystemError;
    memset(ret, 0, sizeof *ret);
    int at = snprintf(ret->internal, sizeof ret->internal, "%s", id_mark);
    for (size_t i = 0; i < sizeof random; i++)
        at += snprintf(ret->internal + at, sizeof ret->internal - (size_t)at, "%02x", random[i]);
    return ncclSuccess;
}

static ncclResult_t join(ncclComm_t comm)
{
    enum sim_ring_result result = sim_ring_join(&comm->ring, comm->id, &comm->me);
    ncclResult_t state = sim_nccl_result(result);

    sim_enter();
    if (result != SIM_RING_OK) {
        sim_ring_close(&comm->ring); /* so that the others learn it */
        state = sim_nccl_fail(comm, state, comm->ring.why);
    }
    sim_leave();
    return state;
}

static ncclComm_t comm_new(int world, const ncclUniqueId *id, int rank, bool blocking)
{
    ncclComm_t comm = calloc(1, sizeof *comm);
    const char *host = getenv("SACCADE_SIM_HOST");

    if (!comm)
        return NULL;
    comm->refs = 1;
    comm->blocking = blocking;
    comm->ring = (struct sim_ring){.rank = rank,
                                   .world = world,
                                   .listening = -1,
                                   .next = -1,
                                   .previous = -1,
                                   .wait_s = (double)number_of("SACCADE_SIM_NCCL_WAIT", 120)};
    comm->me = (struct sim_ring_rank){.rank = rank, .world = world, .device = sim_current()};
    if (host)
        snprintf(comm->me.host, sizeof comm->me.host, "%.60s", host);
    else
        snprintf(comm->me.host, sizeof comm->me.host, "process %d", (int)getpid());
    memcpy(comm->id, id->internal, sizeof comm->id);
    comm->next = comms;
    comms = comm;
    sim_counts.communicators++;
    return comm;
}

/* Takes it out of the list; its memory stays while something refers to it. Holds the lock. */
static void comm_end(ncclComm_t comm)
{
    struct ncclComm **at = &comms;

    while (comm->busy)
        pthread_cond_wait(&sim_done, &sim_lock);
    join_job(comm);
    while (*at != comm)
        at = &(*at)->next;
    *at = comm->next;
    comm->ended = true;
    sim_ring_close(&comm->ring);
    sim_counts.communicators--;
    sim_nccl_unref(comm);
}

static ncclResult_t begin(const char *call, ncclComm_t *ret, int world, const ncclUniqueId *id,
                          int rank, bool blocking)
{
    ncclComm_t comm = NULL;
    ncclResult_t result = ncclSuccess;

    if (!ret || world < 1 || world > SIM_RING_RANKS_MAX || rank < 0 || rank >= world ||
        memcmp(id->internal, id_mark, sizeof id_mark - 1) != 0)
        return ncclInvalidArgument;
    sim_enter();
    *ret = NULL;
    if (sim_call(sim_current()) != cudaSuccess || sim_capture_forbids(call) != cudaSuccess)
        result = ncclUnhandledCudaError;
    else if (!(comm = comm_new(world, id, rank, blocking)))
        result = ncclSystemError;
    if (comm && !blocking) {
        *ret = comm;
        result = sim_nccl_job(comm, join);
    }
    sim_leave();
    if (!comm || !blocking)
        return result;
    result = join(comm);
    sim_enter();
    if (result != ncclSuccess)
        comm_end(comm);
    else
        *ret = comm;
    sim_leave();
    return result;
}

ncclResult_t ncclCommInitRank(ncclComm_t *ret, int world, ncclUniqueId id, int rank)
{
    return begin("ncclCommInitRank", ret, world, &id, rank, true);
}

/* Knows of the configuration what NCCL 2.14 did; later fields may follow. */
ncclResult_t ncclCommInitRankConfig(ncclComm_t *ret, int world, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    sim_enter();
    came_with("ncclCommInitRankConfig", 21400);
    sim_leave();
    if (config && (config->size < offsetof(ncclConfig_t, cgaClusterSize) ||
                   config->magic != 0xcafebeef || config->version < 21400 ||
                   (config->blocking != 0 && config->blocking != 1 &&
                    config->blocking != NCCL_CONFIG_UNDEF_INT)))
        return ncclInvalidArgument;
    return begin("ncclCommInitRankConfig", ret, world, &id, rank, !config || config->blocking != 0);
}

/* ---- Its state, and the end ------------------------------------------------------ */

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *ret)
{
    sim_enter();
    ncclComm_t c = ret ? sim_nccl_find("ncclCommGetAsyncError", comm) : NULL;
    if (c)
        *ret = c->state;
    sim_leave();
    return c ? ncclSuccess : ncclInvalidArgument;
}

/* Holds the lock. */
static void wait_for_all(ncclComm_t comm)
{
    while (comm->turn < comm->issued || comm->busy)
        pthread_cond_wait(&sim_done, &sim_lock);
}

static ncclResult_t flush(ncclComm_t comm)
{
    sim_enter();
    wait_for_all(comm);
    ncclResult_t state = is_failure(comm->state) ? comm->state : ncclSuccess;
    sim_leave();
    return state;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    ncclResult_t result = ncclInvalidArgument;

    sim_enter();
    came_with("ncclCommFinalize", 21400);
    ncclComm_t c = sim_nccl_find_ready("ncclCommFinalize", comm);
    if (c && c->finalized) {
        sim_report("ncclCommFinalize", "it was finalized before");
        result = ncclInvalidUsage;
    } else if (c) {
        c->finalized = true;
        if (c->blocking)
            wait_for_all(c);
        result = c->blocking ? c->state : sim_nccl_job(c, flush);
    }
    sim_leave();
    return result;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (!comm)
        return ncclSuccess;
    sim_enter();
    ncclComm_t c = sim_nccl_find_ready("ncclCommDestroy", comm);
    if (c && is_failure(c->state))
        sim_report("ncclCommDestroy", "after its failure (%s) it might wait for ever: abort it",
                   c->why);
    if (c) {
        wait_for_all(c);
        comm_end(c);
    }
    sim_leave();
    return c ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    if (!comm)
        return ncclSuccess;
    sim_enter();
    ncclComm_t c = sim_nccl_find("ncclCommAbort", comm);
    if (c) {
        sim_ring_stop(&c->ring);
        pthread_cond_broadcast(&sim_done); /* those that wait for their turn */
        comm_end(c);
    }
    sim_leave();
    return c ? ncclSuccess : ncclInvalidArgument;
}
