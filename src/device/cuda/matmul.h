/*
 * Products by cuBLASLt: y = relu(x · wᵀ + sum + bias) over rows, each part left out as
 * asked, for inner products and for convolutions of one tap. cuBLASLt proposes; the
 * fastest proposal on the device is found once and remembered. Any thread; what is made
 * belongs to one.
 */
#ifndef SAC_DEVICE_CUDA_MATMUL_H
#define SAC_DEVICE_CUDA_MATMUL_H

#include "device/cuda/cuda.h"

struct sac_matmul_shape {
    int64_t rows, in, out;
    int64_t pitch;      /* numbers from one row of y to the next */
    uint32_t alignment; /* bytes on which y stands, as below; 0: where a blob does */
    enum sac_precision precision;
    enum sac_type type, y_type; /* of x and w; of y, the sum and the bias */
    bool bias, relu, sum;
    bool first; /* what is proposed first: nothing is measured, nor remembered */
};

struct sac_matmul {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    bool sum;
};

/* NULL where cuBLASLt has nothing for it. The same question finds the same answer. */
struct sac_matmul *sac_matmul_new(struct sac_cuda_device *device,
                                  const struct sac_matmul_shape *shape);
void sac_matmul_free(void *matmul); /* takes NULL */
cudaDataType_t sac_cuda_data_type(enum sac_type type);
/* The power of two that an address, or a distance from a blob's start, is a multiple of: at
 * most the 64 that blobs stand on. */
uint32_t sac_matmul_alignment(uint64_t at);
/* What cuBLASLt may count on: blobs stand on 64 bytes, the result on so many. False where it
 * refuses. The caller destroys it. */
bool sac_matmul_preference(cublasLtMatmulPreference_t *ret, uint32_t alignment_of_result);
/* Of y_type, on the device; needed before running where the shape has one. */
bool sac_matmul_set_bias(struct sac_matmul *m, const void *bias);
/* Milliseconds that it takes; below 0 where it cannot be measured. */
float sac_matmul_ms(struct sac_matmul *m, struct sac_cuda_device *device,
                    const struct sac_matmul_shape *shape);
/* The sum is added from `sum`, which may be y. */
cublasStatus_t sac_matmul_run(const struct sac_matmul *m, struct sac_cuda_device *device,
                              cudaStream_t stream, const void *w, const void *x, const void *sum,
                              void *y, void *workspace);

#endif
