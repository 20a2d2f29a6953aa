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

enum { SAC_LRN_SIZE_MAX = 33, SAC_LRN_BACK_CHANNELS_MAX = 2048 };

/* Training: each writes src_grad, of fp32 tensors in one form. */
struct sac_cpu_vector_back {
    void (*run[SAC_OP_KINDS])(const struct sac_op *op);
};

struct sac_cpu_norm_code;
struct sac_cpu_peak_code;
struct sac_cpu_stem_code;
struct sac_cpu_winograd_code;

struct sac_cpu_vector {
    const struct sac_cpu_vector_back *back;
    const struct sac_cpu_norm_code *norm;
    const struct sac_cpu_peak_code *peak;
    const struct sac_cpu_stem_code *stem;
    const struct sac_cpu_winograd_code *winograd;
    const char *name; /* "vector AVX-512" */
    void (*run[SAC_OP_KINDS])(const struct sac_op *op);
};

extern const struct sac_cpu_vector sac_cpu_vector_avx512, sac_cpu_vector_avx2, sac_cpu_vector_base;

extern const struct sac_cpu_vector_back sac_cpu_vector_back_avx512, sac_cpu_vector_back_avx2,
    sac_cpu_vector_back_base;

/* The kernel of every kind for which `run` has an entry. */
extern const struct sac_cpu_kernel sac_cpu_vector;
extern const struct sac_cpu_backward sac_cpu_backward_vector;
const struct sac_cpu_vector *sac_cpu_vector_best(const struct sac_cpu_features *features);

#endif
