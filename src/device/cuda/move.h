/* Copies as kernels take them, for both ways. */
#ifndef SAC_DEVICE_CUDA_MOVE_H
#define SAC_DEVICE_CUDA_MOVE_H

#include "device/cuda/cuda.h"
#include "kernels/kernels.h"

/* `part`: the shape of what is copied, from the first element of both. */
struct sac_kernel_copy sac_cuda_copy_of(const struct sac_tensor *from, const struct sac_tensor *to,
                                        const struct sac_shape *part);
/* Where index `offset` of an axis stands. */
void *sac_cuda_advance(const struct sac_tensor *t, int axis, int64_t offset);
/* Makes it one run of `count` elements. */
void sac_cuda_copy_flatten(struct sac_kernel_copy *copy, int64_t count);
/* A result's gradient to a source's, in the source's form. */
int sac_cuda_copy_gradient(struct sac_op *op, int source, int result, struct sac_stream *stream,
                           struct sac_error *err);

#endif
