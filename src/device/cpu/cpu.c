#include "device/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/cpu/kernel.h"
#include "device/cpu/onednn.h"
#include "device/cpu/ops.h"
#include "device/cpu/peak.h"
#include "device/cpu/store.h"
#include "device/cpu/vector.h"

/* Memory and copies: device memory is host memory, and all is done at once. */

static int memory_new(struct sac_device *device, enum sac_memory kind, size_t bytes, void **ret,
                      struct sac_error *err)
{
    void *memory;

    (void)device;
    (void)kind;
    if (posix_memalign(&memory, 64, bytes ? bytes : 64) != 0)
        return sac_fail(err, SAC_ENOMEM, "cpu: no memory for %zu bytes", bytes);
    *ret = memory;
    return 0;
}

static void memory_free(struct sac_device *device, enum sac_memory kind, void *memory)
{
    (void)device;
    (void)kind;
    free(memory);
}

struct sac_stream {
    struct sac_device *device;
};

struct sac_event {
    struct sac_device *device;
};

static int stream_new(struct sac_device *device, struct sac_stream **ret, struct sac_error *err)
{
    struct sac_stream *stream = calloc(1, sizeof *stream);

    if (!stream)
        return sac_fail(err, SAC_ENOMEM, "cpu: no memory for a stream");
    stream->device = device;
    *ret = stream;
    return 0;
}

static void stream_free(struct sac_stream *stream)
{
    free(stream);
}

static int stream_sync(struct sac_stream *stream, struct sac_error *err)
{
    (void)stream;
    (void)err;
    return 0;
}

static int event_new(struct sac_device *device, struct sac_event **ret, struct sac_error *err)
{
    struct sac_event *event = calloc(1, sizeof *event);

    if (!event)
        return sac_fail(err, SAC_ENOMEM, "cpu: no memory for an event");
    event->device = device;
    *ret = event;
    return 0;
}

static void event_free(struct sac_event *event)
{
    free(event);
}

static int event_record(struct sac_event *event, struct sac_stream *stream, struct sac_error *err)
{
    (void)event;
    (void)stream;
    (void)err;
    return 0;
}

static int stream_wait(struct sac_stream *stream, struct sac_event *event, struct sac_error *err)
{
    (void)event;
    (void)stream;
    (void)err;
    return 0;
}

static int copy(struct sac_stream *stream, enum sac_copy way, void *dst, const void *src,
                size_t bytes, struct sac_error *err)
{
    (void)stream;
    (void)way;
    (void)err;
    if (bytes > 0)
        memcpy(dst, src, bytes);
    return 0;
}

static void device_free(struct sac_device *device)
{
    free(device);
}

static const struct sac_device_table table = {
    .kind = "cpu",
    .memory_new = memory_new,
    .memory_free = memory_free,
    .stream_new = stream_new,
    .stream_free = stream_free,
    .stream_sync = stream_sync,
    .event_new = event_new,
    .event_free = event_free,
    .event_record = event_record,
    .stream_wait = stream_wait,
    .copy = copy,
    .store_new = sac_cpu_store_new,
    .store_free = sac_cpu_store_free,
    .store_bytes = sac_cpu_store_bytes,
    .op_query = sac_cpu_op_query,
    .op_prepare = sac_cpu_op_prepare,
    .op_free = sac_cpu_op_free,
    .op_forward = sac_cpu_op_forward,
    .op_backward_data = sac_cpu_op_backward_data,
    .op_backward_weights = sac_cpu_op_backward_weights,
    .lower = sac_cpu_lower,
    .peak_flops = sac_cpu_peak_flops,
    .free = device_free,
};

/* "model name : AMD EPYC" of /proc/cpuinfo. */
static void read_model(char *text, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");

    snprintf(text, size, "CPU");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(text, size, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    if (file)
        fclose(file);
}

/* Of the last cache; no more than what others on the machine are likely to leave. */
static size_t cache_share(int cores)
{
    const size_t most = 16 << 20;
    long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);

    if (bytes <= 0)
        return most;
    size_t share = (size_t)bytes / (size_t)(cores > 0 ? cores : 1);
    return share < most ? share : most;
}

static void describe(struct sac_cpu_device *device)
{
    const struct sac_cpu_features *can = &device->features;
    struct sac_device_info *info = &device->base.info;
    int cores = sac_cpu_count();
    char model[64];

    read_model(model, sizeof model);
    snprintf(info->name, sizeof info->name, "cpu");
    snprintf(info->description, sizeof info->description, "%.48s, %d core%s, %s, %s", model, cores,
             cores == 1 ? "" : "s",
             can->amx_bf16      ? "AMX bf16"
             : can->avx512_bf16 ? "AVX-512 bf16"
             : can->avx512      ? "AVX-512"
             : can->avx2        ? "AVX2"
                                : "SSE2",
             sac_cpu_onednn_version());
    info->streams = cores;
    info->host_memory = true;
    info->slices = true;
    info->cache_bytes = cache_share(cores);
    info->precisions = 1u << SAC_PRECISION_F32;
    if (can->avx512_bf16)
        info->precisions |= 1u << SAC_PRECISION_BF16;
    if (sac_cpu_onednn_is_there() && (can->avx512_vnni || can->amx_int8))
        info->precisions |= 1u << SAC_PRECISION_INT8;
}

int sac_cpu_device_open(struct sac_device **ret, const char *name, struct sac_error *err)
{
    struct sac_cpu_device *device;

    if (strcmp(name, "cpu") != 0)
        return sac_fail(err, SAC_EINVAL, "device %s: there is one cpu device; expected cpu", name);
    device = calloc(1, sizeof *device);
    if (!device)
        return sac_fail(err, SAC_ENOMEM, "device %s: out of memory", name);
    device->base.table = &table;
    device->features = sac_cpu_features();
    device->vector = sac_cpu_vector_best(&device->features);
    describe(device);
    *ret = &device->base;
    return 0;
}
