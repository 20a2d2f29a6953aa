#include "device/cuda/tune.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda/cuda.h"

enum { RUNS = 3, PATTERN_BYTES = 1 << 16 };
static const float enough_ms = 2; /* one run that takes as long is told from others */

bool sac_cuda_may_measure(void)
{
    const char *how = getenv("SACCADE_ALGORITHMS");

    return !how || strcmp(how, "guess") != 0;
}

bool sac_cuda_may_measure_for(const struct sac_op_options *options)
{
    return sac_cuda_may_measure() && !options->sketch && !sac_op_repeats(options);
}

static float time_between(struct sac_cuda_device *device, cudaEvent_t first, cudaEvent_t last,
                          bool (*enqueue)(void *user), void *user)
{
    float ms = -1;
    bool good = cudaEventRecord(first, device->stream) == cudaSuccess && enqueue(user) &&
                cudaEventRecord(last, device->stream) == cudaSuccess &&
                cudaEventSynchronize(last) == cudaSuccess &&
                cudaEventElapsedTime(&ms, first, last) == cudaSuccess;

    return good ? ms : -1;
}

float sac_cuda_time(struct sac_cuda_device *device, bool (*enqueue)(void *user), void *user)
{
    cudaEvent_t first = NULL, last = NULL;
    float least = -1;
    bool good = cudaEventCreateWithFlags(&first, cudaEventDefault) == cudaSuccess &&
                cudaEventCreateWithFlags(&last, cudaEventDefault) == cudaSuccess && enqueue(user) &&
                cudaStreamSynchronize(device->stream) == cudaSuccess;

    for (int i = 0; i < RUNS && good && least < enough_ms; i++) {
        float ms = time_between(device, first, last, enqueue, user);
        good = ms >= 0;
        least = i == 0 || ms < least ? ms : least;
    }
    cudaStreamSynchronize(device->stream);
    if (first)
        cudaEventDestroy(first);
    if (last)
        cudaEventDestroy(last);
    cudaGetLastError();
    return good ? least : -1;
}

/* Zeros would be multiplied faster than numbers are. 0x2c00 to 0x2fff: 1/16 to 1/8 in fp16. */
static bool fill(struct sac_cuda_device *device, char *memory, size_t bytes, uint16_t *pattern)
{
    size_t done = bytes < PATTERN_BYTES ? bytes : PATTERN_BYTES;
    uint32_t state = 1;

    for (size_t i = 0; i < PATTERN_BYTES / 2; i++) {
        state = state * 1664525u + 1013904223u;
        pattern[i] = (uint16_t)(0x2c00 | (state >> 20 & 0x3ff) | (state >> 31 << 15));
    }
    bool good = cudaMemcpyAsync(memory, pattern, done, cudaMemcpyHostToDevice, device->stream) ==
                cudaSuccess;
    while (good && done < bytes) {
        size_t more = bytes - done < done ? bytes - done : done;
        good = cudaMemcpyAsync(memory + done, memory, more, cudaMemcpyDeviceToDevice,
                               device->stream) == cudaSuccess;
        done += more;
    }
    return cudaStreamSynchronize(device->stream) == cudaSuccess && good;
}

void *sac_cuda_trial_memory(struct sac_cuda_device *device, size_t bytes)
{
    void *memory = NULL, *pattern = NULL;
    bool good = sac_cuda_memory_new(&device->base, SAC_MEMORY_DEVICE, bytes, &memory, NULL) == 0 &&
                sac_cuda_memory_new(&device->base, SAC_MEMORY_STAGING, PATTERN_BYTES, &pattern,
                                    NULL) == 0 &&
                fill(device, memory, bytes, pattern);

    sac_cuda_memory_free(&device->base, SAC_MEMORY_STAGING, pattern);
    if (good)
        return memory;
    sac_cuda_trial_free(device, memory);
    return NULL;
}

void sac_cuda_trial_free(struct sac_cuda_device *device, void *memory)
{
    cudaStreamSynchronize(device->stream);
    sac_cuda_memory_free(&device->base, SAC_MEMORY_DEVICE, memory);
    cudaGetLastError();
}
