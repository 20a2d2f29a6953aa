/*
 * The communicator over NCCL (device/comm.h has the contract).
 *
 * Where NCCL can (2.14), calls do not block: what waits for other ranks is asked again and
 * again, so that it ends in time, and another thread may abort in between. Older ones
 * block when ranks meet and in the first call, which connects them: that cannot be ended,
 * and is for one process's ranks only.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device/cuda/cuda.h"
#include "device/cuda/nccl.h"

enum { FREE_S = 10, ABORT_S = 5 };

struct comm {
    struct sac_comm base;
    struct sac_cuda_device *device;
    const struct sac_nccl *nccl;
    pthread_mutex_t calls;   /* guards `handle`: one call of NCCL's at a time */
    struct ncclComm *handle; /* NULL once it was aborted */
};

static atomic_int live;

bool sac_cuda_comms_live(void)
{
    return atomic_load(&live) > 0;
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* CUDA's failure where there is one, else NCCL's and what it adds. */
static int nccl_fail(struct comm *comm, int result, const char *what, struct sac_error *err)
{
    cudaError_t cause = result == SAC_NCCL_CUDA_ERROR ? cudaPeekAtLastError() : cudaSuccess;
    const char *more = comm->nccl->get_last_error ? comm->nccl->get_last_error(comm->handle) : NULL;

    if (cause != cudaSuccess)
        return sac_cuda_check(comm->device, cause, what, err);
    return sac_fail(err, SAC_EDEVICE, "%s: %s, rank %d of %d: NCCL says %s%s%.160s",
                    comm->device->base.info.name, what, comm->base.rank, comm->base.world,
                    comm->nccl->get_error_string(result), more && *more ? ": " : "",
                    more ? more : "");
}

static int aborted(struct comm *comm, struct sac_error *err)
{
    return sac_fail(err, SAC_EDEVICE, "rank %d of %d has left the others", comm->base.rank,
                    comm->base.world);
}

/* The state as it is now; with the lock held. */
static int state_of(struct comm *comm)
{
    int state = SAC_NCCL_SUCCESS;
    int result = comm->nccl->comm_get_async_error(comm->handle, &state);

    return result != SAC_NCCL_SUCCESS ? result : state;
}

static int too_late(struct comm *comm, const char *what, int limit_s, struct sac_error *err)
{
    return sac_fail(err, SAC_EDEVICE, "%s: rank %d of %d waited %d s for the others", what,
                    comm->base.rank, comm->base.world, limit_s);
}

/* Until what was begun is done. Gives the lock away between two questions. `limit_s` 0: an
 * abort alone ends it before. `place`: of who may end it, too; NULL. */
static int wait_for(struct comm *comm, const char *what, int limit_s,
                    const struct sac_comm_place *place, struct sac_error *err)
{
    double since = now_s();
    long pause_us = 20;

    for (;;) {
        pthread_mutex_lock(&comm->calls);
        int state = comm->handle ? state_of(comm) : SAC_NCCL_SUCCESS;
        int rc = !comm->handle ? aborted(comm, err)
                 : state != SAC_NCCL_SUCCESS && state != SAC_NCCL_IN_PROGRESS
                     ? nccl_fail(comm, state, what, err)
                     : 0;
        pthread_mutex_unlock(&comm->calls);
        if (rc != 0 || state == SAC_NCCL_SUCCESS)
            return rc;
        if (limit_s > 0 && now_s() - since > limit_s)
            return too_late(comm, what, limit_s, err);
        if (place && place->stop && place->stop(place->user))
            return sac_fail(err, SAC_EDEVICE, "%s was stopped", what);
        nanosleep(&(struct timespec){0, pause_us * 1000}, NULL);
        pause_us = pause_us < 1000 ? 2 * pause_us : pause_us;
    }
}

/* NCCL before 2.9 would break the recording, or run at once. */
static int check_recording(struct comm *comm, cudaStream_t stream, struct sac_error *err)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;

    if (comm->nccl->version >= SAC_NCCL_RECORDS)
        return 0;
    int rc = sac_cuda_check(comm->device, cudaStreamIsCapturing(stream, &status),
                            "asking whether a stream is recorded", err);
    if (rc == 0 && status != cudaStreamCaptureStatusNone)
        rc = sac_fail(err, SAC_EUNSUPPORTED, "NCCL before 2.9 cannot be recorded");
    return rc;
}

/* What the two collectives share: root < 0 sums. */
static int collective(struct comm *comm, struct sac_stream *stream, float *values, size_t count,
                      int root, struct sac_error *err)
{
    const char *what = root < 0 ? "summing over ranks" : "sending to all ranks";
    const struct sac_nccl *nccl = comm->nccl;
    int result = SAC_NCCL_SUCCESS, rc = sac_cuda_use(comm->device, err);

    if (rc == 0)
        rc = check_recording(comm, stream->stream, err);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&comm->calls);
    if (!comm->handle)
        rc = aborted(comm, err);
    else if (root < 0)
        result = nccl->all_reduce(values, values, count, SAC_NCCL_FLOAT32, SAC_NCCL_SUM,
                                  comm->handle, stream->stream);
    else
        result = nccl->broadcast(values, values, count, SAC_NCCL_FLOAT32, root, comm->handle,
                                 stream->stream);
    if (result != SAC_NCCL_SUCCESS && result != SAC_NCCL_IN_PROGRESS)
        rc = nccl_fail(comm, result, what, err);
    pthread_mutex_unlock(&comm->calls);
    /* NCCL connects ranks when they first need it: whoever comes late may be testing. */
    if (rc == 0 && result == SAC_NCCL_IN_PROGRESS)
        rc = wait_for(comm, what, 0, NULL, err);
    return rc;
}

static int all_reduce(struct sac_comm *base, struct sac_stream *stream, float *values, size_t count,
                      struct sac_error *err)
{
    return collective((struct comm *)base, stream, values, count, -1, err);
}

static int broadcast(struct sac_comm *base, struct sac_stream *stream, float *values, size_t count,
                     int root, struct sac_error *err)
{
    return collective((struct comm *)base, stream, values, count, root, err);
}

/* Who is in a call now would notice by itself. */
static int check(struct sac_comm *base, struct sac_error *err)
{
    struct comm *comm = (struct comm *)base;
    int rc = 0;

    if (pthread_mutex_trylock(&comm->calls) != 0)
        return 0;
    int state = comm->handle ? state_of(comm) : SAC_NCCL_SUCCESS;
    if (!comm->handle)
        rc = aborted(comm, err);
    else if (state != SAC_NCCL_SUCCESS && state != SAC_NCCL_IN_PROGRESS)
        rc =
            nccl_fail(comm, state,
                      state == SAC_NCCL_REMOTE_ERROR ? "another rank is gone" : "among ranks", err);
    pthread_mutex_unlock(&comm->calls);
    return rc;
}

/* Holds the lock. Of a lost device as well: its ranks' connections close. */
static void end_now(struct comm *comm)
{
    sac_cuda_use(comm->device, NULL);
    if (comm->handle)
        comm->nccl->comm_abort(comm->handle);
    comm->handle = NULL;
}

/* A call that blocks, in an NCCL that has no other, keeps the lock: it cannot be ended. */
static void abort_comm(struct sac_comm *base)
{
    struct comm *comm = (struct comm *)base;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ABORT_S;
    if (pthread_mutex_timedlock(&comm->calls, &until) != 0)
        return;
    end_now(comm);
    pthread_mutex_unlock(&comm->calls);
}

/* 0 when all that was enqueued is over, and it may be destroyed. */
static int finalize(struct comm *comm)
{
    bool begun = false;

    pthread_mutex_lock(&comm->calls);
    int state = comm->handle ? state_of(comm) : SAC_NCCL_REMOTE_ERROR;
    if (state == SAC_NCCL_SUCCESS && comm->nccl->comm_finalize) {
        state = comm->nccl->comm_finalize(comm->handle);
        begun = state == SAC_NCCL_IN_PROGRESS;
    }
    pthread_mutex_unlock(&comm->calls);
    return begun ? wait_for(comm, "leaving the others", FREE_S, NULL, NULL) : state;
}

static void free_comm(struct sac_comm *base)
{
    struct comm *comm = (struct comm *)base;
    bool whole = sac_cuda_use(comm->device, NULL) == 0 && finalize(comm) == 0;

    pthread_mutex_lock(&comm->calls);
    if (whole && comm->handle) {
        comm->nccl->comm_destroy(comm->handle);
        comm->handle = NULL;
    }
    end_now(comm);
    pthread_mutex_unlock(&comm->calls);
    pthread_mutex_destroy(&comm->calls);
    sac_comm_done(&comm->base);
    free(comm);
    atomic_fetch_sub(&live, 1);
}

static const struct sac_comm_table table = {
    .kind = "NCCL",
    .all_reduce = all_reduce,
    .broadcast = broadcast,
    .check = check,
    .abort = abort_comm,
    .free = free_comm,
};

int sac_cuda_comm_id(struct sac_device *device, unsigned char ret[SAC_COMM_ID],
                     struct sac_error *err)
{
    const struct sac_nccl *nccl = NULL;
    struct sac_nccl_id id;
    int rc = sac_nccl_get(&nccl, err);

    if (rc == 0)
        rc = sac_cuda_use((struct sac_cuda_device *)device, err);
    if (rc == 0 && nccl->get_unique_id(&id) != SAC_NCCL_SUCCESS)
        rc =
            sac_fail(err, SAC_EDEVICE, "NCCL makes no id%s%.160s", nccl->get_last_error ? ": " : "",
                     nccl->get_last_error ? nccl->get_last_error(NULL) : "");
    if (rc == 0)
        memcpy(ret, id.bytes, SAC_COMM_ID);
    return rc;
}

static int check_old(const struct sac_nccl *nccl, const struct sac_comm_place *place,
                     struct sac_error *err)
{
    char text[32];

    if (place->processes <= 1 || nccl->version >= SAC_NCCL_NONBLOCKING)
        return 0;
    sac_nccl_describe(nccl, text, sizeof text);
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "%d processes: %s waits for others without an end when one is lost; 2.14 is "
                    "the oldest for more than one process",
                    place->processes, text);
}

static int join(struct comm *comm, const struct sac_comm_place *place, struct sac_error *err)
{
    const struct sac_nccl *nccl = comm->nccl;
    struct sac_nccl_config config = {sizeof config, (unsigned)SAC_NCCL_MAGIC, SAC_NCCL_NONBLOCKING,
                                     0, SAC_NCCL_NOT_SET};
    static const char what[] = "joining the ranks";
    struct sac_nccl_id id;
    int result;

    memcpy(id.bytes, place->id, sizeof id.bytes);
    if (nccl->comm_init_rank_config)
        result = nccl->comm_init_rank_config(&comm->handle, comm->base.world, id, comm->base.rank,
                                             &config);
    else
        result = nccl->comm_init_rank(&comm->handle, comm->base.world, id, comm->base.rank);
    if (result == SAC_NCCL_IN_PROGRESS)
        return wait_for(comm, what, SAC_COMM_JOIN_S, place, err);
    return result == SAC_NCCL_SUCCESS ? 0 : nccl_fail(comm, result, what, err);
}

int sac_cuda_comm_new(struct sac_device *device, const struct sac_comm_place *place,
                      struct sac_comm **ret, struct sac_error *err)
{
    struct comm *comm = NULL;
    const struct sac_nccl *nccl;
    int rc = sac_nccl_get(&nccl, err);

    if (rc == 0)
        rc = check_old(nccl, place, err);
    if (rc == 0)
        rc = sac_cuda_use((struct sac_cuda_device *)device, err);
    if (rc == 0 && !(comm = calloc(1, sizeof *comm)))
        rc = sac_fail(err, SAC_ENOMEM, "%s: no memory for a communicator", device->info.name);
    if (rc != 0)
        return rc;
    sac_comm_init(&comm->base, &table, place->rank, place->world);
    pthread_mutex_init(&comm->calls, NULL);
    comm->device = (struct sac_cuda_device *)device;
    comm->nccl = nccl;
    atomic_fetch_add(&live, 1);
    rc = join(comm, place, err);
    if (rc == 0)
        *ret = &comm->base;
    else
        free_comm(&comm->base);
    return rc;
}

int sac_cuda_comm_library(char *ret, size_t size, struct sac_error *err)
{
    const struct sac_nccl *nccl;
    int rc = sac_nccl_get(&nccl, err);

    if (rc == 0)
        sac_nccl_describe(nccl, ret, size);
    return rc;
}
