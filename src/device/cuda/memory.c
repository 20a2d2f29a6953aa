#include "device/cuda/cuda.h"

#include <string.h>

static double mib(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* Refused with the numbers before CUDA is asked for what is not there. */
static int check_room(struct sac_cuda_device *device, size_t bytes, struct sac_error *err)
{
    size_t free_bytes = 0, total = 0;
    int rc =
        sac_cuda_check(device, cudaMemGetInfo(&free_bytes, &total), "asking for its memory", err);

    if (rc == 0 && bytes > free_bytes)
        rc = sac_fail(err, SAC_ENOMEM, "%s: %.1f MiB are needed, %.1f of %.1f MiB are free",
                      device->base.info.name, mib(bytes), mib(free_bytes), mib(total));
    return rc;
}

int sac_cuda_memory_new(struct sac_device *base, enum sac_memory kind, size_t bytes, void **ret,
                        struct sac_error *err)
{
    struct sac_cuda_device *device = (struct sac_cuda_device *)base;
    int rc = sac_cuda_use(device, err);
    void *memory = NULL;

    bytes = bytes > 0 ? bytes : 64;
    if (rc == 0 && kind == SAC_MEMORY_STAGING)
        rc = sac_cuda_check(device, cudaHostAlloc(&memory, bytes, cudaHostAllocPortable),
                            "pinned memory", err);
    if (rc == 0 && kind == SAC_MEMORY_DEVICE)
        rc = check_room(device, bytes, err);
    if (rc == 0 && kind == SAC_MEMORY_DEVICE)
        rc = sac_cuda_check(device, cudaMalloc(&memory, bytes), "memory", err);
    if (rc == 0)
        *ret = memory;
    else
        sac_error_prefix(err, "%zu bytes", bytes);
    return rc;
}

void sac_cuda_memory_free(struct sac_device *base, enum sac_memory kind, void *memory)
{
    struct sac_cuda_device *device = (struct sac_cuda_device *)base;

    if (!memory || sac_cuda_use(device, NULL) != 0)
        return;
    if (kind == SAC_MEMORY_STAGING)
        sac_cuda_check(device, cudaFreeHost(memory), "freeing pinned memory", NULL);
    else
        sac_cuda_check(device, cudaFree(memory), "freeing memory", NULL);
}

int sac_cuda_upload(struct sac_cuda_device *device, void *to, const void *from, size_t bytes,
                    struct sac_error *err)
{
    void *staging = NULL;
    int rc = sac_cuda_memory_new(&device->base, SAC_MEMORY_STAGING, bytes, &staging, err);

    if (rc != 0)
        return rc;
    memcpy(staging, from, bytes);
    pthread_mutex_lock(&device->lock);
    rc = sac_cuda_check(device,
                        cudaMemcpyAsync(to, staging, bytes, cudaMemcpyHostToDevice, device->stream),
                        "uploading", err);
    if (rc == 0)
        rc = sac_cuda_check(device, cudaStreamSynchronize(device->stream), "uploading", err);
    pthread_mutex_unlock(&device->lock);
    sac_cuda_memory_free(&device->base, SAC_MEMORY_STAGING, staging);
    return rc;
}
