/* What a simulated device says of itself, error names, and library handles. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

static bool is_device(int device)
{
    bool known;

    sim_enter();
    known = device >= 0 && device < sim_devices;
    sim_leave();
    return known;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    if (!value)
        return sim_error(cudaErrorInvalidValue);
    if (!is_device(device))
        return sim_error(cudaErrorInvalidDevice);
    switch ((int)attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *value = sim_arch / 10;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = sim_arch % 10;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = 4;
        break;
    case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 << 10;
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrAsyncEngineCount:
        *value = 2;
        break;
    case cudaDevAttrPciDeviceId:
        *value = device;
        break;
    case cudaDevAttrPciBusId:
    case cudaDevAttrPciDomainId:
    case cudaDevAttrIntegrated:
    case cudaDevAttrComputeMode:
        *value = 0;
        break;
    default:
        return sim_error(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *ret, int device)
{
    if (!ret)
        return sim_error(cudaErrorInvalidValue);
    if (!is_device(device))
        return sim_error(cudaErrorInvalidDevice);
    *ret = (struct cudaDeviceProp){.totalGlobalMem = sim_device[device].memory_bytes,
                                   .sharedMemPerBlock = 48 << 10,
                                   .warpSize = 32,
                                   .maxThreadsPerBlock = 1024,
                                   .maxThreadsDim = {1024, 1024, 64},
                                   .maxGridSize = {INT32_MAX, 65535, 65535},
                                   .major = sim_arch / 10,
                                   .minor = sim_arch % 10,
                                   .multiProcessorCount = 4,
                                   .concurrentKernels = 1,
                                   .pciDeviceID = device,
                                   .asyncEngineCount = 2,
                                   .unifiedAddressing = 1,
                                   .maxThreadsPerMultiProcessor = 2048,
                                   .streamPrioritiesSupported = 1};
    snprintf(ret->name, sizeof ret->name, "Saccade simulated GPU");
    memset(ret->uuid.bytes, 0x5a, sizeof ret->uuid.bytes);
    ret->uuid.bytes[15] = (char)device;
    return cudaSuccess;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
     "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState",
     "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].error == error)
            return errors[i].name;
    return "cudaErrorUnknown";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].error == error)
            return errors[i].text;
    return "unrecognized error code";
}

/* NULL when the thread's device is lost, or in a capture that forbids allocating. Freed by
 * sim_handle_free. */
struct sim_handle *sim_handle_new(void)
{
    struct sim_handle *handle = NULL;

    sim_enter();
    if (sim_devices > 0 && sim_call(sim_current()) == cudaSuccess &&
        sim_capture_forbids("a library's handle") == cudaSuccess) {
        handle = calloc(1, sizeof *handle);
        handle->device = sim_current();
        sim_counts.handles++;
    }
    sim_leave();
    return handle;
}

/* As the libraries', it waits for the device. */
void sim_handle_free(const char *call, struct sim_handle *handle)
{
    sim_enter();
    if (sim_capture_forbids(call) == cudaSuccess)
        sim_device_drain(handle->device);
    sim_counts.handles--;
    sim_leave();
    free(handle);
}

cudaError_t sim_submit_for(const struct sim_handle *handle, const struct sim_op *op)
{
    if (sim_current() == handle->device)
        return sim_submit(handle->stream, op);
    sim_enter();
    sim_report(op->call, "the handle is of device %d and the thread's device is %d", handle->device,
               sim_current());
    sim_leave();
    if (op->free)
        op->free(op->arg);
    return cudaErrorInvalidResourceHandle;
}

void *sim_descriptor_new(size_t bytes)
{
    sim_enter();
    sim_counts.descriptors++;
    sim_leave();
    return calloc(1, bytes);
}

void sim_descriptor_free(void *descriptor)
{
    sim_enter();
    sim_counts.descriptors -= descriptor != NULL;
    sim_leave();
    free(descriptor);
}
