/*
 * Our own kernels for channels-last and plain row-major values: what oneDNN has
 * only as references, or that is too small for it. The same C is compiled once
 * for each instruction set; the device takes the best that the machine has.
 * Each function runs one operation whose tensors its kernel's can() accepted.
 * Any thread.
 */
#ifndef SAC_DEVICE_CPU_VECTOR_H
#define SAC_DEVICE_CPU_VECTOR_H

#include "device/cpu/kernel.h"

enum { SAC_LRN_SIZE_MAX = 33 };

struct sac_cpu_vector {
    const char *name; /* "vector AVX-512" */
    void (*run[SAC_OP_KINDS])(const struct sac_op *op);
};

extern const struct sac_cpu_vector sac_cpu_vector_avx512, sac_cpu_vector_avx2, sac_cpu_vector_base;

/* The kernel of every kind for which `run` has an entry. */
extern const struct sac_cpu_kernel sac_cpu_vector;
const struct sac_cpu_vector *sac_cpu_vector_best(const struct sac_cpu_features *features);

#endif
