/*
 * The CPU device: plain loops for every operation, oneDNN and vector kernels
 * where they are faster. Rank-4 values are channels-last, in fp32 and bf16.
 */
#ifndef SAC_DEVICE_CPU_CPU_H
#define SAC_DEVICE_CPU_CPU_H

#include "device/device.h"

/* `name`: "cpu". */
int sac_cpu_device_open(struct sac_device **ret, const char *name, struct sac_error *err);

#endif
