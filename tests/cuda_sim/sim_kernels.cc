/* Kernels of the simulator's own tests, in the words of kernels/launch.h. */
#include "cuda_sim/host_launch.h"

#include "cuda_sim/sim_kernels.h"

enum { BLOCK = 64 };

/* Each block's sum by halving, which needs every barrier. */
SAC_KERNEL block_sums(const float *x, int count, float *sums)
{
    SAC_SHARED(float, part, BLOCK);
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    part[threadIdx.x] = i < count ? x[i] : 0;
    SAC_SYNC();
    for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        SAC_SYNC();
    }
    if (threadIdx.x == 0)
        sums[blockIdx.x] = part[0];
}

SAC_KERNEL places(unsigned *out)
{
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;

    atomicAdd(&out[block * blockDim.x * blockDim.y * blockDim.z + thread], 1 + thread + block);
}

SAC_KERNEL diverging(void *memory)
{
    (void)memory;
    if (threadIdx.x < 2)
        SAC_SYNC();
    else
        SAC_SYNC();
}

/* Threads that return early do not hold the others up. */
SAC_KERNEL returning(float *y)
{
    if (threadIdx.x % 2)
        return;
    SAC_SYNC();
    y[threadIdx.x / 2] = 1;
}

cudaError_t sim_block_sums(const float *x, int count, float *sums, cudaStream_t stream)
{
    int blocks = (count + BLOCK - 1) / BLOCK;

    SAC_READS(x, (size_t)count * sizeof *x);
    SAC_WRITES(sums, (size_t)blocks * sizeof *sums);
    SAC_LAUNCH(block_sums, blocks, BLOCK, 0, stream, x, count, sums);
    return cudaGetLastError();
}

cudaError_t sim_places(unsigned *out, cudaStream_t stream)
{
    SAC_LAUNCH(places, dim3(3, 2, 2), dim3(4, 3, 2), 0, stream, out);
    return cudaGetLastError();
}

cudaError_t sim_diverging(void *memory, cudaStream_t stream)
{
    SAC_LAUNCH(diverging, 1, 4, 0, stream, memory);
    return cudaGetLastError();
}

cudaError_t sim_returning(float *y, cudaStream_t stream)
{
    SAC_LAUNCH(returning, 1, 16, 0, stream, y);
    return cudaGetLastError();
}

cudaError_t sim_too_large(float *y, cudaStream_t stream)
{
    SAC_LAUNCH(returning, 1, 1025, 0, stream, y);
    return cudaGetLastError();
}
