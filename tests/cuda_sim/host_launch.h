/*
 * What kernels/launch.h includes when kernels are compiled for the host: the
 * same source runs on a simulated stream, a block after another, the threads of
 * a block as fibers that change only at barriers. C++ only; no C++ library is
 * needed at link time.
 *
 * Beyond launch.h's macros, a C function may say what its next launch touches,
 * so that bounds and order are checked as for library calls:
 *   SAC_READS(p, bytes)  SAC_WRITES(p, bytes)
 * Without that, only arguments that are addresses are checked: what lies in
 * device memory must lie in live memory of that device.
 */
#ifndef SACCADE_CUDA_SIM_HOST_LAUNCH_H
#define SACCADE_CUDA_SIM_HOST_LAUNCH_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <type_traits>
#include <vector_functions.h>
#include <vector_types.h>

#include "cuda_sim/grid.h"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __forceinline__
#define __global__
#define __device__
#define __host__
#define __shared__ static thread_local
#define __forceinline__ inline

#define threadIdx sim_thread_index
#define blockIdx sim_block_index
#define blockDim sim_block_size
#define gridDim sim_grid_size

#define SAC_KERNEL static void
#define SAC_DEVICE static inline
#define SAC_SHARED(type, name, count) static thread_local type name[count]
#define SAC_SHARED_DYNAMIC(type, name) type *name = static_cast<type *>(sim_shared())
#define SAC_SYNC() sim_sync(__FILE__, __LINE__)
#define __syncthreads() sim_sync(__FILE__, __LINE__)
#define SAC_READS(data, bytes) sim_launch_touches(#data, data, bytes, 0)
#define SAC_WRITES(data, bytes) sim_launch_touches(#data, data, bytes, 1)
#define SAC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                 \
    sim_launch_kernel(#kernel, grid, block, shared_bytes, stream, kernel, __VA_ARGS__)

template <typename T> static inline void sim_launch_argument(T)
{
}

template <typename T> static inline void sim_launch_argument(T *address)
{
    sim_launch_address(address);
}

template <typename... P, typename... A>
static inline void sim_launch_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
                                     cudaStream_t stream, void (*kernel)(P...), A... args)
{
    auto body = [kernel, args...]() { kernel(args...); };
    unsigned grid_size[3] = {grid.x, grid.y, grid.z}, block_size[3] = {block.x, block.y, block.z};

    int each[] = {0, (sim_launch_argument(args), 0)...};

    (void)each;
    static_assert(std::is_trivially_copyable<decltype(body)>::value,
                  "a kernel's arguments are copied as bytes");
    sim_launch(
        name, grid_size, block_size, shared_bytes, stream,
        [](void *closure) { (*static_cast<decltype(body) *>(closure))(); }, &body, sizeof body);
}

/* Device functions that the host's C library lacks. */
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

/* The C library has functions of its own by these names. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)

static inline float __fdividef(float x, float y)
{
    return x / y;
}

template <typename T> static inline T __ldg(const T *at)
{
    return *at;
}

template <typename A, typename B> static inline typename std::common_type<A, B>::type min(A a, B b)
{
    return b < a ? b : a;
}

template <typename A, typename B> static inline typename std::common_type<A, B>::type max(A a, B b)
{
    return a < b ? b : a;
}

template <typename T> static inline T atomicAdd(T *at, typename std::common_type<T>::type value)
{
    T old, sum;

    __atomic_load(at, &old, __ATOMIC_RELAXED);
    do {
        sum = old + value;
    } while (!__atomic_compare_exchange(at, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

template <typename T> static inline T atomicMax(T *at, typename std::common_type<T>::type value)
{
    T old;

    __atomic_load(at, &old, __ATOMIC_RELAXED);
    while (old < value &&
           !__atomic_compare_exchange(at, &old, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return old;
}

#endif
