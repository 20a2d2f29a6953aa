#include "device/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static double mib(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

int sac_cuda_memory_left(struct sac_device *base, size_t *ret_free, size_t *ret_total,
                         struct sac_error *err)
{
    struct sac_cuda_device *device = (struct sac_cuda_device *)base;
    int rc = sac_cuda_use(device, err);

    return rc ? rc
              : sac_cuda_check(device, cudaMemGetInfo(ret_free, ret_total), "asking for its memory",
                               err);
}

/* Refused with the numbers before CUDA is asked for what is not there. */
static int check_room(struct sac_cuda_device *device, size_t bytes, struct sac_error *err)
{
    size_t free_bytes = 0, total = 0;
    int rc = sac_cuda_memory_left(&device->base, &free_bytes, &total, err);

    if (rc == 0 && bytes > free_bytes)
        rc = sac_fail(err, SAC_ENOMEM, "%s: %.1f MiB are needed, %.1f of %.1f MiB are free",
                      device->base.info.name, mib(bytes), mib(free_bytes), mib(total));
    return rc;
}

/* ---- Pinned memory ----------------------------------------------------------- */

/* At the front of what is pinned, whose user sees what comes behind. */
struct sac_cuda_parked {
    struct sac_cuda_parked *next;
    size_t bytes; /* of the user's */
};
enum { HEAD = 256 };

/* The smallest that will do; NULL: none. */
static struct sac_cuda_parked *take_parked(struct sac_cuda_device *device, size_t bytes)
{
    struct sac_cuda_parked **best = NULL, *taken = NULL;

    pthread_mutex_lock(&device->parked_lock);
    for (struct sac_cuda_parked **at = &device->parked; *at; at = &(*at)->next)
        if ((*at)->bytes >= bytes && (!best || (*at)->bytes < (*best)->bytes))
            best = at;
    if (best) {
        taken = *best;
        *best = taken->next;
    }
    pthread_mutex_unlock(&device->parked_lock);
    return taken;
}

static int pin(struct sac_cuda_device *device, size_t bytes, void **ret, struct sac_error *err)
{
    struct sac_cuda_parked *head = take_parked(device, bytes);
    int rc = 0;

    if (!head) {
        rc = bytes > SIZE_MAX - HEAD
                 ? sac_fail(err, SAC_ENOMEM, "%s: too much", device->base.info.name)
                 : sac_cuda_check(
                       device, cudaHostAlloc((void **)&head, HEAD + bytes, cudaHostAllocPortable),
                       "pinned memory", err);
        if (rc == 0)
            head->bytes = bytes;
    }
    if (rc == 0)
        *ret = (char *)head + HEAD;
    return rc;
}

static void unpin(struct sac_cuda_device *device, struct sac_cuda_parked *head)
{
    sac_cuda_check(device, cudaFreeHost(head), "freeing pinned memory", NULL);
}

void sac_cuda_unpark(struct sac_cuda_device *device)
{
    pthread_mutex_lock(&device->parked_lock);
    struct sac_cuda_parked *head = device->parked;
    device->parked = NULL;
    pthread_mutex_unlock(&device->parked_lock);
    if (!head || sac_cuda_use(device, NULL) != 0)
        return;
    while (head) {
        struct sac_cuda_parked *next = head->next;

        unpin(device, head);
        head = next;
    }
}

static void park(struct sac_cuda_device *device, void *memory)
{
    struct sac_cuda_parked *head = (struct sac_cuda_parked *)((char *)memory - HEAD);

    if (!sac_cuda_comms_live()) {
        unpin(device, head);
        return;
    }
    pthread_mutex_lock(&device->parked_lock);
    head->next = device->parked;
    device->parked = head;
    pthread_mutex_unlock(&device->parked_lock);
}

/* ---- All ----------------------------------------------------------------------- */

int sac_cuda_memory_new(struct sac_device *base, enum sac_memory kind, size_t bytes, void **ret,
                        struct sac_error *err)
{
    struct sac_cuda_device *device = (struct sac_cuda_device *)base;
    int rc = sac_cuda_use(device, err);
    void *memory = NULL;

    bytes = bytes > 0 ? bytes : 64;
    if (rc == 0 && kind == SAC_MEMORY_STAGING)
        rc = pin(device, bytes, &memory, err);
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
        park(device, memory);
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
