/* Kernels of the simulator's own tests; each enqueues and returns the launch's error. */
#ifndef SIM_KERNELS_H
#define SIM_KERNELS_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* sums: one for each 64 of x. Says what it touches. */
cudaError_t sim_block_sums(const float *x, int count, float *sums, cudaStream_t stream);
/* out: 12 blocks × 24 threads; each adds one and its two numbers to its place. */
cudaError_t sim_places(unsigned *out, cudaStream_t stream);
cudaError_t sim_diverging(void *memory, cudaStream_t stream);
cudaError_t sim_returning(float *y, cudaStream_t stream); /* y: 8 */
cudaError_t sim_too_large(float *y, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
