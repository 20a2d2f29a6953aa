/*
 * Batch normalisation, and the gradients of what has numbers for each channel, over
 * rows of channels. The code is compiled once for each instruction set; norm.c divides
 * the rows among threads, in chunks that do not depend on how many there are.
 */
#ifndef SAC_DEVICE_CPU_NORM_H
#define SAC_DEVICE_CPU_NORM_H

#include "device/cpu/kernel.h"

/* One of each for a channel, with room for whole vectors behind the last. */
struct sac_norm_numbers {
    float *mean, *scale, *shift; /* y = (x − mean) · scale + shift */
    float *level, *along;        /* dx = (dy − level − (x − mean) · along) · scale */
};

/* All over rows first … end − 1. */
struct sac_cpu_norm_code {
    /* Means, and sums of the squares of what differs from them. */
    void (*moments)(const struct sac_op *op, int64_t first, int64_t end, double *mean,
                    double *squares);
    void (*forward)(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                    int64_t end);
    /* Σ dy, and Σ dy · (x − mean); of a PReLU Σ dy · x over x ≤ 0. */
    void (*sums)(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                 int64_t end, double *sum, double *along);
    void (*data)(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                 int64_t end);
};

extern const struct sac_cpu_norm_code sac_cpu_norm_avx512, sac_cpu_norm_avx2, sac_cpu_norm_base;

extern const struct sac_cpu_kernel sac_cpu_norm;            /* BATCHNORM */
extern const struct sac_cpu_backward sac_cpu_backward_norm; /* and SCALE, BIAS, PRELU */

#endif
