/* What a kernel is told of a window that slides. Any thread. */
#ifndef SAC_DEVICE_CUDA_WINDOW_H
#define SAC_DEVICE_CUDA_WINDOW_H

#include "device/cuda/cuda.h"
#include "kernels/kernels.h"

/* Over x, N × C × H × W, to y, both channels-last; the rows are those of whole blobs. */
struct sac_kernel_window sac_cuda_window_of(const struct sac_tensor *x, const struct sac_tensor *y,
                                            const struct sac_window *from);

#endif
