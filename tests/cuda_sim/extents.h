/* How kernel_extents.c and training_extents.c say what a kernel reads and writes. */
#ifndef SIM_EXTENTS_H
#define SIM_EXTENTS_H

#include "cuda_sim/grid.h"
#include "kernels/kernels.h"

/* The kernel by the name that the linker gives it, and its stand-in here. */
#define WRAP(name, ...)                                                                            \
    cudaError_t __real_sac_kernel_##name(__VA_ARGS__);                                             \
    cudaError_t __wrap_sac_kernel_##name(__VA_ARGS__);                                             \
    cudaError_t __wrap_sac_kernel_##name(__VA_ARGS__)

/* A function with nothing to launch leaves what was said for the next one. */
static inline cudaError_t launched(cudaError_t error)
{
    sim_launch_forget();
    return error;
}

static inline void reads(const char *what, const void *data, size_t count, int type)
{
    sim_launch_touches(what, data, count * sac_type_bytes((enum sac_type)type), 0);
}

static inline void writes(const char *what, const void *data, size_t count, int type)
{
    sim_launch_touches(what, data, count * sac_type_bytes((enum sac_type)type), 1);
}

static inline void rows(const char *what, const void *data, size_t count, int channels,
                        int64_t pitch, int type, int write)
{
    size_t dim[2] = {count, (size_t)channels}, stride[2] = {(size_t)pitch, 1};

    if (count > 0 && channels > 0)
        sim_launch_touches_tensor(what, data, sac_type_bytes((enum sac_type)type), 2, dim, stride,
                                  write);
}

static inline void tensor(const char *what, const void *data, int type, int rank,
                          const int64_t *dim, const int64_t *stride, int write)
{
    size_t dims[SAC_AXES_MAX], strides[SAC_AXES_MAX];

    for (int i = 0; i < rank; i++) {
        dims[i] = (size_t)dim[i];
        strides[i] = (size_t)stride[i];
        if (dim[i] == 0)
            return;
    }
    sim_launch_touches_tensor(what, data, sac_type_bytes((enum sac_type)type), rank, dims, strides,
                              write);
}

#endif
