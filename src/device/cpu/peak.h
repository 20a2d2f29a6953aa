/*
 * What a core can do at most: a short loop of multiply-adds on numbers in registers,
 * compiled with our own kernels for each instruction set. Each function does `rounds`
 * times the same and returns how many operations that were, a multiply-add being two;
 * NULL: the set has none. Any thread.
 */
#ifndef SAC_DEVICE_CPU_PEAK_H
#define SAC_DEVICE_CPU_PEAK_H

#include "device/device.h"

struct sac_cpu_peak_code {
    const char *how; /* "AVX-512 FMAs" */
    double (*f32)(int64_t rounds);
    double (*bf16)(int64_t rounds); /* for machines with AVX-512 bf16 */
    double (*int8)(int64_t rounds); /* for machines with AVX-512 VNNI */
};

extern const struct sac_cpu_peak_code sac_cpu_peak_avx512, sac_cpu_peak_avx2, sac_cpu_peak_base;

/* sac_device_table.peak_flops */
double sac_cpu_peak_flops(struct sac_device *device, enum sac_precision precision,
                          const char **ret_how);

#endif
