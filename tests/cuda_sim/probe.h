/*
 * What CUDA's libraries answer to each call in the ways that the CUDA device makes it.
 * The same program runs on a card, whose answers are kept in fixtures/, and on the
 * simulator, whose answers must be those (probe.py compares them).
 *
 * A line an answer: "must" where the device relies on it and cards agree, "note" where
 * they may differ (which algorithms there are, how large a workspace is).
 *
 *     must cudnnConvolutionForward f16 3x3: success ~0.001 1.5 -2.25 …
 *
 * The call, the case, the status by name, and numbers within a tolerance.
 */
#ifndef SIM_PROBE_H
#define SIM_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

/* Ends the program where a call fails that all else depends on. */
#define PROBE_NEED(call) probe_need((int)(call), #call)
void probe_need(int status, const char *call);

__attribute__((format(printf, 3, 4))) void probe_must(const char *call, const char *status,
                                                      const char *format, ...);
__attribute__((format(printf, 3, 4))) void probe_note(const char *call, const char *status,
                                                      const char *format, ...);

/* Numbers on the device, of 4 or 2 bytes each. */
enum probe_type { PROBE_F32, PROBE_F16, PROBE_BF16, PROBE_TYPES };
const char *probe_type_name(enum probe_type type);
size_t probe_type_bytes(enum probe_type type);

/* Multiples of 1/4 in [-1, 1), exact in every type: sums of few products are exact. */
float probe_value(unsigned seed, unsigned i);
/* `count` of them; on the stream's device, for the caller to cudaFree. */
void *probe_numbers(enum probe_type type, unsigned seed, size_t count);
void *probe_bytes(size_t count); /* not 0, for workspaces and results */

/* "must", with the first 48 numbers and the sum of all, within `tolerance` of the largest. */
void probe_result(const char *call, const char *name, const char *status, const void *data,
                  enum probe_type type, size_t count, double tolerance);

void probe_runtime(void);
void probe_cublas(void);
void probe_cudnn(void);
void probe_nccl(void);

#endif
