/*
 * What is fastest is measured on the device itself, once a question; the answers are
 * the algorithms' (algorithms.h). Measuring is under the device's lock.
 *
 * SACCADE_ALGORITHMS=guess: nothing is measured, what the libraries expect to be best
 * is taken. Starting takes less time then, and running may take more.
 */
#ifndef SAC_DEVICE_CUDA_TUNE_H
#define SAC_DEVICE_CUDA_TUNE_H

#include <stdbool.h>
#include <stddef.h>

struct sac_cuda_device;
struct sac_op_options;

bool sac_cuda_may_measure(void);
/* Nor where a run must be the same again: another measurement may give another answer. */
bool sac_cuda_may_measure_for(const struct sac_op_options *options);

/* Milliseconds that `enqueue` takes on the device's own stream, the least of a few
 * runs; below 0 where it fails (it returns false) or cannot be timed. */
float sac_cuda_time(struct sac_cuda_device *device, bool (*enqueue)(void *user), void *user);

/* Device memory for a trial, of random small numbers as fp16 or bf16 (and small ones as
 * fp32); NULL where there is too little. */
void *sac_cuda_trial_memory(struct sac_cuda_device *device, size_t bytes);
void sac_cuda_trial_free(struct sac_cuda_device *device, void *memory);

#endif
