/* The stand-in for NCCL: what its collectives do, on the stream they are enqueued on. */
#include "nccl_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Numbers of a chunk: small, so that tests' arrays have several, and an end that is odd. */
enum { CHUNK = 4096 };

static size_t type_bytes(int type)
{
    static const size_t bytes[] = {
        [ncclInt8] = 1,    [ncclUint8] = 1,   [ncclInt32] = 4,   [ncclUint32] = 4,
        [ncclInt64] = 8,   [ncclUint64] = 8,  [ncclFloat16] = 2, [ncclFloat32] = 4,
        [ncclFloat64] = 8, [ncclBfloat16] = 2};

    return type >= 0 && type < (int)(sizeof bytes / sizeof bytes[0]) ? bytes[type] : 0;
}

static size_t bytes_of(const struct sim_collective_head *head)
{
    return head->count * type_bytes(head->type);
}

static const char *name_of(int kind)
{
    return kind == SIM_ALL_REDUCE ? "ncclAllReduce" : "ncclBroadcast";
}

/* ---- Running ---------------------------------------------------------------------- */

/* In the order of the calls, whatever streams they are on; false when it was stopped. */
static bool take_turn(struct sim_collective *c)
{
    ncclComm_t comm = c->comm;

    sim_enter();
    if (c->captured && comm->ended)
        sim_report(name_of(c->head.kind), "recorded, and the communicator has ended");
    while (!atomic_load(&comm->ring.stop) && !comm->ended &&
           (comm->busy || (!c->captured && comm->turn != c->ticket)))
        pthread_cond_wait(&sim_done, &sim_lock);
    bool mine = !atomic_load(&comm->ring.stop) && !comm->ended;
    if (mine) {
        comm->busy = true;
        c->head.number = comm->number++;
    }
    sim_leave();
    return mine;
}

static void give_turn(struct sim_collective *c)
{
    sim_enter();
    c->comm->busy = false;
    if (!c->captured)
        c->comm->turn = c->ticket + 1;
    c->done = true;
    pthread_cond_broadcast(&sim_done);
    sim_leave();
}

static bool same_head(const struct sim_collective_head *a, const struct sim_collective_head *b)
{
    return a->number == b->number && a->count == b->count && a->kind == b->kind &&
           a->type == b->type && a->op == b->op && a->root == b->root;
}

static enum sim_ring_result misfit(struct sim_ring *ring, const struct sim_collective_head *mine,
                                   const struct sim_collective_head *other)
{
    snprintf(ring->why, sizeof ring->why,
             "operation %llu of rank %d is %s of %llu (type %d, root %d), and rank %d comes with "
             "its operation %llu, %s of %llu (type %d, root %d)",
             (unsigned long long)mine->number, ring->rank, name_of(mine->kind),
             (unsigned long long)mine->count, mine->type, mine->root,
             (ring->rank + ring->world - 1) % ring->world, (unsigned long long)other->number,
             name_of(other->kind), (unsigned long long)other->count, other->type, other->root);
    return SIM_RING_MISFIT;
}

/* The first of a kind, when the previous rank's call is known: until all the others' is,
 * which is that of one more with each turn. */
static enum sim_ring_result connect_all(ncclComm_t comm, const struct sim_collective_head *head)
{
    enum sim_ring_result result = SIM_RING_OK;
    struct sim_collective_head other;

    if (comm->connected[head->kind])
        return SIM_RING_OK;
    for (int i = 2; i < comm->ring.world && result == SIM_RING_OK; i++)
        result = sim_ring_exchange(&comm->ring, head, sizeof *head, &other, sizeof other);
    if (result != SIM_RING_OK)
        return result;
    sim_enter();
    comm->connected[head->kind] = true;
    pthread_cond_broadcast(&sim_done);
    sim_leave();
    return result;
}

static enum sim_ring_result pass(struct sim_collective *c)
{
    struct sim_ring *ring = &c->comm->ring;
    const struct sim_collective_head *head = &c->head;
    struct sim_collective_head other;

    if (ring->world == 1) {
        connect_all(c->comm, head);
        memmove(c->to, c->from, bytes_of(head));
        return SIM_RING_OK;
    }
    enum sim_ring_result result = sim_ring_exchange(ring, head, sizeof *head, &other, sizeof other);
    if (result == SIM_RING_OK && !same_head(head, &other))
        result = misfit(ring, head, &other);
    if (result == SIM_RING_OK)
        result = connect_all(c->comm, head);
    if (result == SIM_RING_OK && head->kind == SIM_ALL_REDUCE)
        result =
            sim_ring_all_reduce(ring, c->from, c->to, head->count,
                                head->type == ncclFloat64 ? SIM_RING_F64 : SIM_RING_F32, CHUNK);
    else if (result == SIM_RING_OK)
        result = sim_ring_broadcast(ring, c->from, c->to, bytes_of(head), head->root, 4 * CHUNK);
    if (result == SIM_RING_OK && head->kind == SIM_BROADCAST && head->root == ring->rank &&
        c->to != c->from)
        memmove(c->to, c->from, bytes_of(head));
    return result;
}

/* As NCCL's kernels, which wait on after a failure until somebody aborts. */
static void fail_and_stand(ncclComm_t comm, enum sim_ring_result result)
{
    if (result == SIM_RING_STOPPED)
        return;
    sim_enter();
    sim_nccl_fail(comm, sim_nccl_result(result), comm->ring.why);
    if (result != SIM_RING_CLOSED)
        sim_report("NCCL", "%s", comm->ring.why);
    sim_leave();
    if (result == SIM_RING_MISFIT)
        sim_ring_close(&comm->ring); /* the others notice */
    if (result != SIM_RING_LATE)
        sim_ring_stand(&comm->ring);
}

/* Injected: the rank's process is killed, its connections close, or it falls silent. True
 * when it takes part no more. */
static bool fault(struct sim_collective *c)
{
    ncclComm_t comm = c->comm;

    sim_enter();
    const struct sim_device *device = &sim_device[comm->me.device];
    if (c->call == device->kill_at)
        raise(SIGKILL);
    bool cut = c->call == device->cut_at;
    comm->silent = comm->silent || cut || c->call == device->mute_at;
    if (cut)
        sim_nccl_fail(comm, ncclSystemError, "its connections were cut");
    bool silent = comm->silent;
    sim_leave();
    if (cut)
        sim_ring_close(&comm->ring);
    return silent;
}

static void run_collective(void *arg)
{
    struct sim_collective *c = arg;
    enum sim_ring_result result;

    if (!take_turn(c))
        return;
    if (fault(c))
        sim_ring_stand(&c->comm->ring);
    else if ((result = pass(c)) != SIM_RING_OK)
        fail_and_stand(c->comm, result);
    give_turn(c);
}

/* With the lock held. What never ran (its device is lost) leaves the later ones behind. */
static void free_collective(void *arg)
{
    struct sim_collective *c = arg;

    if (!c->done && !c->captured) {
        sim_ring_stop(&c->comm->ring);
        c->comm->turn = c->comm->issued;
        pthread_cond_broadcast(&sim_done);
    }
    sim_nccl_unref(c->comm);
    free(c);
}

/* ---- Enqueueing ------------------------------------------------------------------- */

static struct sim_op op_of(struct sim_collective *c)
{
    const struct sim_collective_head *head = &c->head;
    struct sim_op op = {
        .call = name_of(head->kind), .run = run_collective, .free = free_collective, .arg = c};

    if (head->kind == SIM_ALL_REDUCE || head->root == c->comm->ring.rank)
        op.access[op.accesses++] =
            (struct sim_access){.what = "sendbuff", .data = c->from, .run = bytes_of(head)};
    op.access[op.accesses++] = (struct sim_access){
        .what = "recvbuff", .data = c->to, .run = bytes_of(head), .write = true};
    return op;
}

/* NCCL makes the communicator's device the thread's for the while. */
static ncclResult_t submit(ncclComm_t comm, struct sim_collective *c, cudaStream_t stream)
{
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    struct sim_op op = op_of(c);
    int before = sim_current();

    cudaSetDevice(comm->me.device);
    cudaError_t error = stream ? cudaStreamIsCapturing(stream, &capture) : cudaSuccess;
    c->captured = capture != cudaStreamCaptureStatusNone;
    sim_enter();
    comm->refs++;
    if (!c->captured)
        c->ticket = comm->issued++;
    sim_leave();
    if (error == cudaSuccess)
        error = sim_submit(stream, &op);
    else {
        sim_enter();
        free_collective(c);
        sim_leave();
    }
    cudaSetDevice(before);
    if (error == cudaSuccess)
        return ncclSuccess;
    sim_enter();
    ncclResult_t result = sim_nccl_fail(comm, ncclUnhandledCudaError, cudaGetErrorString(error));
    sim_leave();
    return result;
}

/* Until the others have come to their first of the kind, or nobody can. */
static ncclResult_t wait_for_others(ncclComm_t comm, int kind)
{
    struct timespec until;
    int late = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += sim_nccl_connect_s();
    sim_enter();
    while (!comm->connected[kind] && !atomic_load(&comm->ring.stop) && !comm->ended &&
           comm->state == ncclInProgress && !late)
        late = pthread_cond_timedwait(&sim_done, &sim_lock, &until) == ETIMEDOUT;
    if (late && !comm->connected[kind])
        sim_nccl_fail(comm, ncclSystemError, "the others did not connect");
    sim_leave();
    return ncclSuccess;
}

static bool is_recorded(cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;

    return stream && cudaStreamIsCapturing(stream, &status) == cudaSuccess &&
           status != cudaStreamCaptureStatusNone;
}

/* What is recorded does not run yet. */
static ncclResult_t submit_pending(ncclComm_t comm)
{
    struct sim_collective *c = comm->pending;
    int kind = c->head.kind;
    bool waits = comm->pending_waits && !is_recorded(comm->pending_stream);

    usleep(1000); /* whoever enqueues without waiting comes first */
    ncclResult_t result = submit(comm, c, comm->pending_stream);
    return result == ncclSuccess && waits ? wait_for_others(comm, kind) : result;
}

/* What the call refuses at once; the live communicator otherwise. Holds the lock. */
static ncclResult_t refuse(const struct sim_collective *c, ncclComm_t comm)
{
    const char *call = name_of(c->head.kind);
    ncclComm_t found = comm ? sim_nccl_find_ready(call, comm) : NULL;

    if (!found || !c->from || !c->to || type_bytes(c->head.type) == 0 || c->head.root < 0 ||
        c->head.root >= found->ring.world)
        return ncclInvalidArgument;
    if (found->calling || found->finalized) {
        sim_report(call, "%s",
                   found->calling ? "two threads use the communicator at once"
                                  : "the communicator was finalized");
        return ncclInvalidUsage;
    }
    return found->state == ncclInProgress ? ncclInvalidUsage : found->state;
}

/* A kind's first call connects the ranks for it, and waits for all of them; later ones may
 * find something to do as well. */
static bool goes_on_after(ncclComm_t comm, int kind)
{
    comm->pending_waits = !comm->called[kind];
    comm->called[kind] = true;
    return !comm->blocking && (comm->pending_waits || sim_delay_us() > 200);
}

static ncclResult_t collective(ncclComm_t comm, const struct sim_collective *asked,
                               cudaStream_t stream)
{
    struct sim_collective *c = NULL;
    ncclResult_t result;
    bool now = false;

    sim_enter();
    result = refuse(asked, comm);
    if (result == ncclSuccess && asked->head.count > 0) {
        c = malloc(sizeof *c);
        *c = *asked;
        c->comm = comm;
        c->call = (long)sim_device[comm->me.device].collectives++;
        now = !goes_on_after(comm, asked->head.kind);
        comm->calling = now;
    }
    if (c && !now) {
        comm->pending = c;
        comm->pending_stream = stream;
        result = sim_nccl_job(comm, submit_pending);
    }
    sim_leave();
    if (now) {
        result = submit(comm, c, stream);
        sim_enter();
        comm->calling = false;
        sim_leave();
    }
    return result;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    struct sim_collective c = {
        .head = {.count = count, .kind = SIM_ALL_REDUCE, .type = (int32_t)type, .op = (int32_t)op},
        .from = from,
        .to = to};

    if (op != ncclSum || (type != ncclFloat32 && type != ncclFloat64))
        return ncclInvalidArgument; /* nothing else is simulated */
    return collective(comm, &c, stream);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    struct sim_collective c = {
        .head = {.count = count, .kind = SIM_BROADCAST, .type = (int32_t)type, .root = root},
        .from = from,
        .to = to};

    return collective(comm, &c, stream);
}
