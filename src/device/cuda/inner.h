/* What both ways through an inner product share. */
#ifndef SAC_DEVICE_CUDA_INNER_H
#define SAC_DEVICE_CUDA_INNER_H

#include "device/cuda/cuda.h"

struct sac_inner_sizes {
    int64_t rows, in, out;
};
struct sac_inner_sizes sac_cuda_inner_sizes(const struct sac_cuda_ask *ask);

/* The weights as [out][in] (or [in][out]), `in` in the order of the source. */
struct sac_cuda_packing sac_cuda_inner_packing(const struct sac_cuda_ask *ask,
                                               struct sac_form source, bool out_last);
/* The bias's gradient, where it is wanted; the workspace holds its sums. */
int sac_cuda_inner_bias_back(struct sac_op *op, const struct sac_inner_sizes *sizes,
                             struct sac_stream *stream, struct sac_error *err);

#endif
