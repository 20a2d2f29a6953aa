/*
 * How a kernel is written so that nvcc compiles it for GPUs and g++ for the host
 * (-x c++ -DSAC_HOST_KERNELS): launches, shared memory and barriers only by these
 * macros, no warp intrinsics. For kernels' own sources only.
 *
 *   SAC_KERNEL             in place of __global__ void
 *   SAC_DEVICE             in place of __device__ inline
 *   SAC_SHARED(T, x, n)    T x[n], one a block; n is a constant
 *   SAC_SYNC()             __syncthreads()
 *   SAC_LAUNCH(kernel, grid, block, shared_bytes, stream, …)
 *   SAC_EACH(i, count)     a loop over [0, count) spread over the grid's x
 *
 * threadIdx, blockIdx, blockDim and gridDim are as CUDA has them (x only).
 */
#ifndef SAC_KERNELS_LAUNCH_H
#define SAC_KERNELS_LAUNCH_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#ifdef SAC_HOST_KERNELS
#include "cuda_sim/host_launch.h"
#else
#define SAC_KERNEL static __global__ void
#define SAC_DEVICE static __device__ __forceinline__
#define SAC_SHARED(type, name, count) __shared__ type name[count]
#define SAC_SYNC() __syncthreads()
#define SAC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                 \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#endif

#define SAC_EACH(i, count)                                                                         \
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < (count);                          \
         i += gridDim.x * blockDim.x)

enum { SAC_BLOCK = 256 };

/* Blocks for SAC_EACH; a count is below 2³¹, and so is every index with its step. */
static inline unsigned sac_blocks(uint32_t count)
{
    unsigned blocks = (count + SAC_BLOCK - 1) / SAC_BLOCK;

    return blocks < 1 ? 1 : blocks < (1u << 20) ? blocks : 1u << 20;
}

#endif
