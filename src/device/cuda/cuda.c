/* The device, its streams and events, and what the module exports. */
#include "device/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda/algorithms.h"
#include "device/cuda/widen.h"
#include "device/forms.h"
#include "device/module.h"

struct sac_event {
    struct sac_cuda_device *device;
    cudaEvent_t event;
};

/* ---- Streams -------------------------------------------------------------- */

static void stream_free(struct sac_stream *stream)
{
    if (!stream)
        return;
    if (sac_cuda_use(stream->device, NULL) == 0) {
        if (stream->cudnn)
            cudnnDestroy(stream->cudnn);
        if (stream->stream)
            sac_cuda_check(stream->device, cudaStreamDestroy(stream->stream), "freeing a stream",
                           NULL);
    }
    free(stream);
}

static int make_handles(struct sac_cuda_device *device, int priority, cudaStream_t *stream,
                        cudnnHandle_t *cudnn, struct sac_error *err)
{
    int rc = sac_cuda_use(device, err);

    if (rc == 0)
        rc = sac_cuda_check(device,
                            cudaStreamCreateWithPriority(stream, cudaStreamNonBlocking, priority),
                            "a stream", err);
    if (rc == 0)
        rc = sac_cudnn_check(device, cudnnCreate(cudnn), "starting cuDNN", err);
    if (rc == 0)
        rc = sac_cudnn_check(device, cudnnSetStream(*cudnn, *stream), "starting cuDNN", err);
    return rc;
}

/* CUDA brings a priority that the card does not have to one that it has. */
static int stream_new_at(struct sac_device *device, int priority, struct sac_stream **ret,
                         struct sac_error *err)
{
    struct sac_stream *stream = calloc(1, sizeof *stream);

    if (!stream)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for a stream", device->info.name);
    stream->device = (struct sac_cuda_device *)device;
    int rc = make_handles(stream->device, priority, &stream->stream, &stream->cudnn, err);
    if (rc == 0)
        *ret = stream;
    else
        stream_free(stream);
    return rc;
}

static int stream_new(struct sac_device *device, struct sac_stream **ret, struct sac_error *err)
{
    return stream_new_at(device, 0, ret, err);
}

static int stream_sync(struct sac_stream *stream, struct sac_error *err)
{
    int rc = sac_cuda_use(stream->device, err);

    return rc ? rc
              : sac_cuda_check(stream->device, cudaStreamSynchronize(stream->stream),
                               "waiting for a stream", err);
}

/* ---- Events and copies ---------------------------------------------------- */

static int event_new(struct sac_device *base, struct sac_event **ret, struct sac_error *err)
{
    struct sac_cuda_device *device = (struct sac_cuda_device *)base;
    struct sac_event *event = calloc(1, sizeof *event);
    int rc = event ? 0 : sac_fail(err, SAC_ENOMEM, "%s: no memory for an event", base->info.name);

    if (rc == 0)
        rc = sac_cuda_use(device, err);
    if (rc == 0) {
        event->device = device;
        rc = sac_cuda_check(device, cudaEventCreateWithFlags(&event->event, cudaEventDisableTiming),
                            "an event", err);
    }
    if (rc == 0)
        *ret = event;
    else
        free(event);
    return rc;
}

static void event_free(struct sac_event *event)
{
    if (event && sac_cuda_use(event->device, NULL) == 0)
        sac_cuda_check(event->device, cudaEventDestroy(event->event), "freeing an event", NULL);
    free(event);
}

static int event_record(struct sac_event *event, struct sac_stream *stream, struct sac_error *err)
{
    int rc = sac_cuda_use(stream->device, err);

    return rc ? rc
              : sac_cuda_check(stream->device, cudaEventRecord(event->event, stream->stream),
                               "recording an event", err);
}

static int stream_wait(struct sac_stream *stream, struct sac_event *event, struct sac_error *err)
{
    int rc = sac_cuda_use(stream->device, err);

    return rc ? rc
              : sac_cuda_check(stream->device, cudaStreamWaitEvent(stream->stream, event->event, 0),
                               "waiting for an event", err);
}

/* Spins while there are as few threads as cores: a batch's end is known at once. */
static int event_sync(struct sac_event *event, struct sac_error *err)
{
    int rc = sac_cuda_use(event->device, err);

    return rc ? rc
              : sac_cuda_check(event->device, cudaEventSynchronize(event->event),
                               "waiting for an event", err);
}

static int copy(struct sac_stream *stream, enum sac_copy way, void *dst, const void *src,
                size_t bytes, struct sac_error *err)
{
    static const enum cudaMemcpyKind kinds[] = {
        [SAC_COPY_TO_DEVICE] = cudaMemcpyHostToDevice,
        [SAC_COPY_TO_HOST] = cudaMemcpyDeviceToHost,
        [SAC_COPY_ON_DEVICE] = cudaMemcpyDeviceToDevice,
    };
    int rc = bytes > 0 ? sac_cuda_use(stream->device, err) : 0;

    if (rc == 0 && bytes > 0)
        rc = sac_cuda_check(stream->device,
                            cudaMemcpyAsync(dst, src, bytes, kinds[way], stream->stream), "a copy",
                            err);
    return rc;
}

/* ---- The device ----------------------------------------------------------- */

static int lower(struct sac_device *device, struct sac_graph *graph,
                 const struct sac_op_options *options, struct sac_error *err)
{
    bool small =
        options->precision == SAC_PRECISION_F16 || options->precision == SAC_PRECISION_BF16;
    struct sac_cuda_device *own = (struct sac_cuda_device *)device;

    if (options->reference)
        return 0;
    if (options->training) {
        sac_fuse_norms(graph);
        return 0;
    }
    sac_fuse_epilogues(graph);
    if (!small || options->deterministic || own->major < 7)
        return 0;
    int rc = sac_cuda_use(own, err);
    return rc ? rc : sac_cuda_widen_pixels(own, graph, options, err);
}

static void free_handles(struct sac_cuda_device *device)
{
    if (sac_cuda_use(device, NULL) == 0) {
        if (device->cublas)
            cublasLtDestroy(device->cublas);
        if (device->cudnn)
            cudnnDestroy(device->cudnn);
        if (device->stream)
            cudaStreamDestroy(device->stream);
    }
    device->cublas = NULL;
    device->cudnn = NULL;
    device->stream = NULL;
}

static int make_own_handles(struct sac_cuda_device *device, struct sac_error *err)
{
    int rc = make_handles(device, 0, &device->stream, &device->cudnn, err);

    if (rc == 0)
        rc = sac_cublas_check(device, cublasLtCreate(&device->cublas), "starting cuBLAS", err);
    return rc;
}

/* The process's context of the device is thrown away; the next call makes a new
 * one. CUDA promises that for no sticky error (driver_types.h: "the process must be
 * terminated and relaunched"): it is tried, and may fail for good. */
static int revive(struct sac_device *base, struct sac_error *err)
{
    struct sac_cuda_device *device = (struct sac_cuda_device *)base;
    int current = -1;

    sac_cuda_unpark(device);
    free_handles(device);
    cudaSetDevice(device->index); /* may tell the old error, as may the reset */
    if (cudaGetDevice(&current) == cudaSuccess && current == device->index)
        cudaDeviceReset();
    cudaGetLastError();
    int rc = make_own_handles(device, err); /* whether it helped */
    if (rc == 0)
        sac_cuda_mark_found(device);
    else
        free_handles(device);
    return rc;
}

static void device_free(struct sac_device *base)
{
    struct sac_cuda_device *device = (struct sac_cuda_device *)base;

    sac_cuda_unpark(device);
    free_handles(device);
    sac_algorithms_free(device->algorithms);
    pthread_mutex_destroy(&device->parked_lock);
    pthread_mutex_destroy(&device->lock);
    pthread_mutex_destroy(&device->down_lock);
    free(device);
}

static const struct sac_device_table table = {
    .kind = "cuda",
    .memory_new = sac_cuda_memory_new,
    .memory_free = sac_cuda_memory_free,
    .stream_new = stream_new,
    .stream_new_at = stream_new_at,
    .stream_free = stream_free,
    .stream_sync = stream_sync,
    .event_new = event_new,
    .event_free = event_free,
    .event_record = event_record,
    .stream_wait = stream_wait,
    .event_sync = event_sync,
    .copy = copy,
    .health = sac_cuda_health,
    .revive = revive,
    .memory_left = sac_cuda_memory_left,
    .gauges = sac_cuda_gauges,
    .record_begin = sac_cuda_record_begin,
    .record_end = sac_cuda_record_end,
    .replay = sac_cuda_replay,
    .recording_free = sac_cuda_recording_free,
    .clear = sac_cuda_clear,
    .sum_of_squares = sac_cuda_sum_of_squares,
    .update = sac_cuda_update,
    .crops = sac_cuda_crops,
    .comm_id = sac_cuda_comm_id,
    .comm_new = sac_cuda_comm_new,
    .comm_library = sac_cuda_comm_library,
    .store_new = sac_cuda_store_new,
    .store_free = sac_cuda_store_free,
    .store_bytes = sac_cuda_store_bytes,
    .op_query = sac_cuda_op_query,
    .op_prepare = sac_cuda_op_prepare,
    .op_free = sac_cuda_op_free,
    .op_forward = sac_cuda_op_forward,
    .op_backward_data = sac_cuda_op_backward_data,
    .op_backward_weights = sac_cuda_op_backward_weights,
    .lower = lower,
    .free = device_free,
};

/* fp16 storage pays from P100 on, tensor cores with it from 7.0, the rest from 8.0. */
static unsigned precisions_of(const struct sac_cuda_device *device)
{
    unsigned out = 1u << SAC_PRECISION_F32;

    if (device->major >= 7 || (device->major == 6 && device->minor == 0))
        out |= 1u << SAC_PRECISION_F16;
    if (device->major >= 8)
        out |= 1u << SAC_PRECISION_TF32 | 1u << SAC_PRECISION_BF16;
    return out;
}

static int describe(struct sac_cuda_device *device, struct sac_error *err)
{
    struct sac_device_info *info = &device->base.info;
    struct cudaDeviceProp properties;
    int rc = sac_cuda_check(device, cudaGetDeviceProperties(&properties, device->index),
                            "asking what it is", err);

    if (rc != 0)
        return rc;
    device->major = properties.major;
    device->minor = properties.minor;
    snprintf(device->card, sizeof device->card, "%.95s", properties.name);
    snprintf(info->description, sizeof info->description,
             "%.48s, %.0f GiB, compute %d.%d, CUDA %d.%d, cuDNN %zu", device->card,
             (double)properties.totalGlobalMem / (1 << 30), device->major, device->minor,
             CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100, cudnnGetVersion());
    info->memory_bytes = properties.totalGlobalMem;
    info->streams = 2; /* one computes while the other's copies run */
    snprintf(device->bus_id, sizeof device->bus_id, "%08x:%02x:%02x.0",
             (unsigned)properties.pciDomainID, (unsigned)properties.pciBusID,
             (unsigned)properties.pciDeviceID);
    info->precisions = precisions_of(device);
    return 0;
}

static int device_open(struct sac_device **ret, int index, struct sac_error *err)
{
    struct sac_cuda_device *device = calloc(1, sizeof *device);
    int rc;

    if (!device)
        return sac_fail(err, SAC_ENOMEM, "cuda:%d: out of memory", index);
    device->base.table = &table;
    device->index = index;
    snprintf(device->base.info.name, sizeof device->base.info.name, "cuda:%d", index);
    pthread_mutex_init(&device->lock, NULL);
    pthread_mutex_init(&device->parked_lock, NULL);
    pthread_mutex_init(&device->down_lock, NULL);
    rc = describe(device, err);
    if (rc == 0)
        rc = make_own_handles(device, err);
    if (rc == 0)
        rc = sac_algorithms_new(&device->algorithms, device->card, err);
    if (rc == 0)
        *ret = &device->base;
    else
        device_free(&device->base);
    return rc;
}

static int count(int *ret, struct sac_error *err)
{
    int devices = 0, driver = 0;
    cudaError_t code = cudaGetDeviceCount(&devices);

    if (code == cudaSuccess && devices > 0) {
        *ret = devices;
        return 0;
    }
    cudaGetLastError();
    if (code == cudaSuccess || code == cudaErrorNoDevice)
        return sac_fail(err, SAC_EDEVICE, "there is no CUDA device");
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        return sac_fail(err, SAC_EDEVICE, "there is no CUDA driver");
    if (code == cudaErrorInsufficientDriver)
        return sac_fail(err, SAC_EDEVICE, "the driver is for CUDA %d.%d, this build needs %d.%d",
                        driver / 1000, driver / 10 % 100, CUDART_VERSION / 1000,
                        CUDART_VERSION / 10 % 100);
    return sac_fail(err, SAC_EDEVICE, "%s (%s)", cudaGetErrorString(code), cudaGetErrorName(code));
}

__attribute__((visibility("default"))) extern const struct sac_module sac_cuda_module;
const struct sac_module sac_cuda_module = {SAC_MODULE_VERSION, count, device_open};
