/* NCCL with one rank, as src/device/cuda asks for it; nothing where there is none. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cuda_sim/probe.h"
#include "device/cuda/nccl.h"

enum { COUNT = 1000 };

static const struct sac_nccl *nccl;

static const char *status_of(int result)
{
    static const char *const names[] = {"success",           "a CUDA error",     "a system error",
                                        "an internal error", "invalid argument", "invalid usage",
                                        "a remote error",    "in progress"};

    return result >= 0 && result < (int)(sizeof names / sizeof names[0]) ? names[result]
                                                                         : "another";
}

/* Success, or in progress: which, may differ. */
static const char *begun(int result)
{
    return result == SAC_NCCL_IN_PROGRESS ? "success" : status_of(result);
}

/* The communicator's state, once it is no more in progress: 20 s at most. */
static int state_of(struct ncclComm *comm)
{
    int state = SAC_NCCL_IN_PROGRESS;

    for (int i = 0; i < 20000 && state == SAC_NCCL_IN_PROGRESS; i++) {
        PROBE_NEED(nccl->comm_get_async_error(comm, &state));
        if (state == SAC_NCCL_IN_PROGRESS)
            usleep(1000);
    }
    return state;
}

static struct ncclComm *join(const struct sac_nccl_id *id)
{
    struct sac_nccl_config config = {sizeof config, SAC_NCCL_MAGIC, SAC_NCCL_NONBLOCKING, 0,
                                     SAC_NCCL_NOT_SET};
    struct ncclComm *comm = NULL;
    int result = nccl->comm_init_rank_config(&comm, 1, *id, 0, &config);

    probe_must("ncclCommInitRankConfig", begun(result), "of one rank, not blocking");
    probe_note("ncclCommInitRankConfig", status_of(result), "at once");
    probe_must("ncclCommGetAsyncError", status_of(state_of(comm)), "joined");
    return comm;
}

static void collectives(struct ncclComm *comm, float *values, cudaStream_t stream)
{
    int result =
        nccl->all_reduce(values, values, COUNT, SAC_NCCL_FLOAT32, SAC_NCCL_SUM, comm, stream);

    probe_must("ncclAllReduce", begun(result), "the first");
    probe_note("ncclAllReduce", status_of(result), "the first, at once");
    probe_must("ncclCommGetAsyncError", status_of(state_of(comm)), "after it");
    result = nccl->all_reduce(values, values, COUNT, SAC_NCCL_FLOAT32, SAC_NCCL_SUM, comm, stream);
    probe_note("ncclAllReduce", status_of(result), "the second, at once");
    PROBE_NEED(state_of(comm));
    PROBE_NEED(cudaStreamSynchronize(stream));
    probe_result("ncclAllReduce", "in place", "success", values, PROBE_F32, COUNT, 0);
    result = nccl->broadcast(values, values, COUNT, SAC_NCCL_FLOAT32, 0, comm, stream);
    probe_must("ncclBroadcast", begun(result), "of rank 0");
    PROBE_NEED(state_of(comm));
    PROBE_NEED(cudaStreamSynchronize(stream));
    probe_result("ncclBroadcast", "in place", "success", values, PROBE_F32, COUNT, 0);
    result = nccl->all_reduce(values, values, 0, SAC_NCCL_FLOAT32, SAC_NCCL_SUM, comm, stream);
    probe_must("ncclAllReduce", begun(result), "of nothing");
    PROBE_NEED(state_of(comm));
}

static cudaError_t instantiate(cudaGraphExec_t *ret, cudaGraph_t graph)
{
#if CUDART_VERSION >= 12000
    return cudaGraphInstantiate(ret, graph, 0);
#else
    return cudaGraphInstantiate(ret, graph, NULL, NULL, 0);
#endif
}

static void recorded(struct ncclComm *comm, float *values, cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;

    PROBE_NEED(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    probe_must("cudaStreamIsCapturing",
               cudaStreamIsCapturing(stream, &status) == cudaSuccess &&
                       status == cudaStreamCaptureStatusActive
                   ? "yes"
                   : "no",
               "while it records");
    int result =
        nccl->all_reduce(values, values, COUNT, SAC_NCCL_FLOAT32, SAC_NCCL_SUM, comm, stream);
    probe_must("ncclAllReduce", begun(result), "recorded");
    probe_must("ncclCommGetAsyncError", status_of(state_of(comm)), "recorded");
    PROBE_NEED(cudaStreamEndCapture(stream, &graph));
    PROBE_NEED(instantiate(&exec, graph));
    for (int i = 0; i < 2; i++)
        PROBE_NEED(cudaGraphLaunch(exec, stream));
    PROBE_NEED(cudaStreamSynchronize(stream));
    probe_result("ncclAllReduce", "replayed twice", "success", values, PROBE_F32, COUNT, 0);
    PROBE_NEED(cudaGraphExecDestroy(exec));
    PROBE_NEED(cudaGraphDestroy(graph));
}

static void refusals(const struct sac_nccl_id *id, float *values, cudaStream_t stream)
{
    struct ncclComm *comm = NULL;

    probe_must("ncclCommInitRank", status_of(nccl->comm_init_rank(&comm, 1, *id, 1)),
               "rank 1 of 1");
    probe_must("ncclAllReduce",
               status_of(nccl->all_reduce(values, values, COUNT, SAC_NCCL_FLOAT32, SAC_NCCL_SUM,
                                          NULL, stream)),
               "of no communicator");
}

static void ends(struct ncclComm *first)
{
    struct sac_nccl_id id;
    struct ncclComm *second = NULL;

    probe_must("ncclCommFinalize", begun(nccl->comm_finalize(first)), "nothing under way");
    probe_must("ncclCommGetAsyncError", status_of(state_of(first)), "finalized");
    probe_must("ncclCommDestroy", begun(nccl->comm_destroy(first)), "finalized");
    PROBE_NEED(nccl->get_unique_id(&id));
    probe_must("ncclCommInitRank", status_of(nccl->comm_init_rank(&second, 1, id, 0)),
               "of one rank");
    probe_must("ncclCommAbort", begun(nccl->comm_abort(second)), "nothing under way");
}

void probe_nccl(void)
{
    struct sac_error err = {0};
    struct sac_nccl_id id;
    cudaStream_t stream;

    if (sac_nccl_get(&nccl, &err) != 0 || !nccl->comm_init_rank_config) {
        probe_note("ncclGetVersion", nccl ? "too old" : err.text, "asked");
        return;
    }
    probe_must("ncclGetVersion", "success", "asked");
    probe_note("ncclGetVersion", "success", "%d", nccl->version);
    probe_must("ncclGetErrorString", *nccl->get_error_string(SAC_NCCL_REMOTE_ERROR) ? "text" : "",
               "a remote error");
    probe_must("ncclGetLastError", nccl->get_last_error(NULL) ? "text" : "nothing",
               "of no communicator");
    float *values = probe_numbers(PROBE_F32, 3, COUNT);
    PROBE_NEED(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, -1));
    probe_must("ncclGetUniqueId", status_of(nccl->get_unique_id(&id)), "the first");
    struct ncclComm *comm = join(&id);
    collectives(comm, values, stream);
    recorded(comm, values, stream);
    refusals(&id, values, stream);
    ends(comm);
    PROBE_NEED(cudaStreamDestroy(stream));
    PROBE_NEED(cudaFree(values));
}
