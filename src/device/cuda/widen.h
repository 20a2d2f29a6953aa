/* Pictures of three channels with more of them, where that is faster. */
#ifndef SAC_DEVICE_CUDA_WIDEN_H
#define SAC_DEVICE_CUDA_WIDEN_H

#include "device/cuda/cuda.h"

/* For fp16 and bf16; of graphs whose weights stay as they are. Under no lock. */
int sac_cuda_widen_pixels(struct sac_cuda_device *device, struct sac_graph *graph,
                          const struct sac_op_options *options, struct sac_error *err);

#endif
