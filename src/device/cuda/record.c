/* CUDA graphs: a plan's run as one thing to launch. */
#include "device/cuda/cuda.h"

#include <stdlib.h>

struct sac_recording {
    struct sac_cuda_device *device;
    cudaGraphExec_t exec;
};

int sac_cuda_record_begin(struct sac_stream *stream, struct sac_error *err)
{
    int rc = sac_cuda_use(stream->device, err);

    if (rc == 0)
        rc =
            sac_cuda_check(stream->device,
                           cudaStreamBeginCapture(stream->stream, cudaStreamCaptureModeThreadLocal),
                           "beginning a recording", err);
    return rc;
}

static cudaError_t instantiate(cudaGraphExec_t *ret, cudaGraph_t graph)
{
#if CUDART_VERSION >= 12000
    return cudaGraphInstantiate(ret, graph, 0);
#else
    return cudaGraphInstantiate(ret, graph, NULL, NULL, 0);
#endif
}

int sac_cuda_record_end(struct sac_stream *stream, struct sac_recording **ret,
                        struct sac_error *err)
{
    struct sac_recording *recording = calloc(1, sizeof *recording);
    cudaGraph_t graph = NULL;
    int rc = sac_cuda_check(stream->device, cudaStreamEndCapture(stream->stream, &graph),
                            "ending a recording", err);

    if (rc == 0 && !recording)
        rc = sac_fail(err, SAC_ENOMEM, "a recording: out of memory");
    if (rc == 0)
        rc = sac_cuda_check(stream->device, instantiate(&recording->exec, graph),
                            "making a recording runnable", err);
    if (graph)
        cudaGraphDestroy(graph);
    if (rc == 0) {
        recording->device = stream->device;
        *ret = recording;
        recording = NULL;
    }
    free(recording);
    return rc;
}

int sac_cuda_replay(struct sac_recording *recording, struct sac_stream *stream,
                    struct sac_error *err)
{
    int rc = sac_cuda_use(stream->device, err);

    if (rc == 0)
        rc = sac_cuda_check(stream->device, cudaGraphLaunch(recording->exec, stream->stream),
                            "launching a recording", err);
    return rc;
}

void sac_cuda_recording_free(struct sac_recording *recording)
{
    if (recording && sac_cuda_use(recording->device, NULL) == 0)
        sac_cuda_check(recording->device, cudaGraphExecDestroy(recording->exec),
                       "freeing a recording", NULL);
    free(recording);
}
