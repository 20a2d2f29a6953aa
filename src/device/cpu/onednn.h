/*
 * Convolution, deconvolution and inner product by oneDNN. Built without the
 * library, the kernel takes nothing and the loops run. Any thread.
 */
#ifndef SAC_DEVICE_CPU_ONEDNN_H
#define SAC_DEVICE_CPU_ONEDNN_H

#include "device/cpu/kernel.h"

extern const struct sac_cpu_kernel sac_cpu_onednn;
/* 3×3 convolutions by Winograd's way, where that is faster. */
extern const struct sac_cpu_kernel sac_cpu_winograd;
extern const struct sac_cpu_backward sac_cpu_backward_onednn;
/* Inner products in training. */
extern const struct sac_cpu_kernel sac_cpu_matmul;
extern const struct sac_cpu_backward sac_cpu_backward_matmul;

bool sac_cpu_onednn_is_there(void);
/* "oneDNN 2.6.3", or "no oneDNN". */
const char *sac_cpu_onednn_version(void);

#endif
