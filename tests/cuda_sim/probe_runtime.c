/* The CUDA runtime: devices, memory, streams, events, recordings, errors, a kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_sim/probe.h"
#include "cuda_sim/sim.h"
#include "kernels/kernels.h"

/* The simulator's own; not there on a card. */
#pragma weak sim_checks_set
#pragma weak sim_checks_clear

static const char *status_of(cudaError_t error)
{
    return error == cudaSuccess ? "success" : cudaGetErrorName(error);
}

static void devices(void)
{
    struct cudaDeviceProp properties;
    int count = 0, driver = 0, current = -1;
    cudaError_t error = cudaGetDeviceCount(&count);

    probe_must("cudaGetDeviceCount", count > 0 ? status_of(error) : "none", "there is one");
    error = cudaDriverGetVersion(&driver);
    probe_must("cudaDriverGetVersion", status_of(error), "asked");
    probe_note("cudaDriverGetVersion", status_of(error), "%d for %d", driver, CUDART_VERSION);
    error = cudaGetDeviceProperties(&properties, 0);
    probe_must("cudaGetDeviceProperties", status_of(error), "device 0");
    probe_note("cudaGetDeviceProperties", status_of(error), "%s, %d.%d, %zu bytes", properties.name,
               properties.major, properties.minor, properties.totalGlobalMem);
    probe_must("cudaSetDevice", status_of(cudaSetDevice(10000)), "one that is not there");
    probe_must("cudaPeekAtLastError", status_of(cudaPeekAtLastError()), "after it");
    probe_must("cudaGetLastError", status_of(cudaGetLastError()), "after it");
    probe_must("cudaGetLastError", status_of(cudaGetLastError()), "again");
    probe_must("cudaSetDevice", status_of(cudaSetDevice(0)), "the first");
    error = cudaGetDevice(&current);
    probe_must("cudaGetDevice", current == 0 ? status_of(error) : "another", "after the first");
    probe_must("cudaGetErrorName", cudaGetErrorName(cudaErrorLaunchFailure), "launch failure");
    probe_must("cudaGetErrorString", cudaGetErrorString(cudaErrorMemoryAllocation)[0] ? "text" : "",
               "allocation");
}

static void memory(void)
{
    void *much = NULL, *some = NULL, *host = NULL;
    size_t free_bytes = 0, total = 0;
    cudaError_t error = cudaMalloc(&much, (size_t)1 << 50);

    probe_must("cudaMalloc", status_of(error), "more than there is");
    probe_must("cudaGetLastError", status_of(cudaGetLastError()), "after too much");
    error = cudaMalloc(&some, 1000);
    probe_must("cudaMalloc", status_of(error), "1000 bytes");
    probe_must("cudaMalloc", (uintptr_t)some % 256 == 0 ? "yes" : "no", "stands on 256 bytes");
    error = cudaMemGetInfo(&free_bytes, &total);
    probe_must("cudaMemGetInfo", free_bytes < total ? status_of(error) : "all is free",
               "some used");
    probe_must("cudaFree", status_of(cudaFree(some)), "of it");
    probe_must("cudaFree", status_of(cudaFree(NULL)), "of nothing");
    error = cudaHostAlloc(&host, 1000, cudaHostAllocDefault);
    probe_must("cudaHostAlloc", status_of(error), "1000 bytes");
    probe_must("cudaFreeHost", status_of(cudaFreeHost(host)), "of it");
}

struct bench {
    cudaStream_t one, two;
    cudaEvent_t event;
    float *host, *device;
};

static void open_bench(struct bench *b)
{
    void *host = NULL;

    probe_must("cudaStreamCreateWithPriority",
               status_of(cudaStreamCreateWithPriority(&b->one, cudaStreamNonBlocking, -1)),
               "first in line");
    PROBE_NEED(cudaStreamCreateWithPriority(&b->two, cudaStreamNonBlocking, 0));
    probe_must("cudaEventCreateWithFlags",
               status_of(cudaEventCreateWithFlags(&b->event, cudaEventDisableTiming)),
               "without times");
    PROBE_NEED(cudaHostAlloc(&host, 2048, cudaHostAllocDefault));
    b->host = host;
    b->device = probe_bytes(2048);
}

static void close_bench(struct bench *b)
{
    probe_must("cudaEventDestroy", status_of(cudaEventDestroy(b->event)), "idle");
    probe_must("cudaStreamDestroy", status_of(cudaStreamDestroy(b->one)), "idle");
    PROBE_NEED(cudaStreamDestroy(b->two));
    PROBE_NEED(cudaFreeHost(b->host));
    PROBE_NEED(cudaFree(b->device));
}

static void fill_host(float *host)
{
    for (unsigned i = 0; i < 64; i++)
        host[i] = probe_value(3, i);
}

/* There in one stream, back in another that waits for the first's event. */
static void streams(struct bench *b)
{
    fill_host(b->host);
    probe_must("cudaMemsetAsync", status_of(cudaMemsetAsync(b->device, 0, 2048, b->one)), "zeros");
    probe_must("cudaMemcpyAsync",
               status_of(cudaMemcpyAsync(b->device, b->host, 256, cudaMemcpyHostToDevice, b->one)),
               "to the device");
    probe_must("cudaEventRecord", status_of(cudaEventRecord(b->event, b->one)), "behind it");
    probe_must("cudaStreamWaitEvent", status_of(cudaStreamWaitEvent(b->two, b->event, 0)),
               "another stream");
    PROBE_NEED(cudaMemcpyAsync(b->host + 100, b->device, 512, cudaMemcpyDeviceToHost, b->two));
    probe_must("cudaStreamSynchronize", status_of(cudaStreamSynchronize(b->two)), "the other");
    bool same = memcmp(b->host, b->host + 100, 256) == 0 && b->host[100 + 127] == 0;
    probe_must("cudaMemcpyAsync", same ? "as it was" : "other bytes", "there and back");
}

static void times(struct bench *b)
{
    cudaEvent_t first, last;
    float ms = -1;

    PROBE_NEED(cudaEventCreateWithFlags(&first, cudaEventDefault));
    PROBE_NEED(cudaEventCreateWithFlags(&last, cudaEventDefault));
    PROBE_NEED(cudaEventRecord(first, b->one));
    PROBE_NEED(cudaMemsetAsync(b->device, 0, 2048, b->one));
    PROBE_NEED(cudaEventRecord(last, b->one));
    probe_must("cudaEventSynchronize", status_of(cudaEventSynchronize(last)), "recorded");
    cudaError_t error = cudaEventElapsedTime(&ms, first, last);
    probe_must("cudaEventElapsedTime", ms >= 0 ? status_of(error) : "below 0", "between two");
    PROBE_NEED(cudaEventDestroy(first));
    PROBE_NEED(cudaEventDestroy(last));
}

/* y = relu(a · x + b), by our own kernel. */
static cudaError_t launch(float *data, cudaStream_t stream)
{
    struct sac_kernel_map map = {
        .map = SAC_MAP_POWER,
        .x = data,
        .y = data,
        .type = SAC_F32,
        .count = 64,
        .factor_type = SAC_F32,
        .relu = true,
        .inner = 1,
        .factors = 1,
        .a = 1,
        .b = 2,
        .c = 1,
    };

    return sac_kernel_map(&map, stream);
}

static cudaError_t instantiate(cudaGraphExec_t *ret, cudaGraph_t graph)
{
#if CUDART_VERSION >= 12000
    return cudaGraphInstantiate(ret, graph, 0);
#else
    return cudaGraphInstantiate(ret, graph, NULL, NULL, 0);
#endif
}

/* Recorded once, launched twice: numbers go in, through the kernel, and out. */
static void recordings(struct bench *b)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;

    PROBE_NEED(launch(b->device, b->one)); /* once before */
    PROBE_NEED(cudaStreamSynchronize(b->one));
    probe_must("cudaStreamBeginCapture",
               status_of(cudaStreamBeginCapture(b->one, cudaStreamCaptureModeThreadLocal)),
               "of this thread");
    PROBE_NEED(cudaMemcpyAsync(b->device, b->host, 256, cudaMemcpyHostToDevice, b->one));
    probe_must("cudaLaunchKernel", status_of(launch(b->device, b->one)), "recorded");
    probe_must("cudaStreamEndCapture", status_of(cudaStreamEndCapture(b->one, &graph)), "whole");
    probe_must("cudaGraphInstantiate", status_of(instantiate(&exec, graph)), "whole");
    probe_must("cudaGraphDestroy", status_of(cudaGraphDestroy(graph)), "before its runs");
    for (int i = 0; i < 2; i++) {
        fill_host(b->host);
        b->host[0] = (float)i;
        probe_must("cudaGraphLaunch", status_of(cudaGraphLaunch(exec, b->one)), "run %d", i);
        PROBE_NEED(cudaStreamSynchronize(b->one));
        probe_result("cudaGraphLaunch", i ? "second result" : "first result", "success", b->device,
                     PROBE_F32, 64, 1e-6);
    }
    probe_must("cudaGraphExecDestroy", status_of(cudaGraphExecDestroy(exec)), "idle");
}

/* Waiting for a stream that records is refused, and spoils the recording. */
static void spoilt_recording(struct bench *b)
{
    cudaGraph_t graph = NULL;

    if (sim_checks_set)
        sim_checks_set(SIM_CHECKS_RECORD);
    PROBE_NEED(cudaStreamBeginCapture(b->one, cudaStreamCaptureModeThreadLocal));
    probe_must("cudaStreamSynchronize", status_of(cudaStreamSynchronize(b->one)),
               "while it records");
    probe_must("cudaStreamEndCapture", status_of(cudaStreamEndCapture(b->one, &graph)), "spoilt");
    cudaGetLastError();
    if (sim_checks_set) {
        sim_checks_clear();
        sim_checks_set(SIM_CHECKS_ABORT);
    }
    probe_must("cudaStreamSynchronize", status_of(cudaStreamSynchronize(b->one)), "afterwards");
}

void probe_runtime(void)
{
    struct bench b = {0};

    devices();
    memory();
    open_bench(&b);
    streams(&b);
    times(&b);
    probe_must("cudaLaunchKernel", status_of(launch(b.device, b.one)), "a map");
    PROBE_NEED(cudaStreamSynchronize(b.one));
    probe_result("cudaLaunchKernel", "result of a map", "success", b.device, PROBE_F32, 64, 1e-6);
    recordings(&b);
    spoilt_recording(&b);
    close_bench(&b);
}
