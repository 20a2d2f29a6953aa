/*
 * Stand-ins on host memory for the CUDA runtime, cuDNN, cuBLAS, cublasLt and NCCL
 * calls that the CUDA device uses, so that its logic can be tested without a
 * GPU: N devices, truly asynchronous streams, events, graph capture, ranks in one
 * process or several, and checks that a card does not make. It proves logic, never
 * speed.
 *
 * This header is what tests may ask beyond CUDA's own API. Any thread.
 *
 * The environment, read at the first call:
 *   SACCADE_SIM_DEVICES   how many devices there are (1)
 *   SACCADE_SIM_MEMORY    bytes of each device (8 GiB)
 *   SACCADE_SIM_ARCH      compute capability, 60 to 120 (90); TF32 and bf16 from 80
 *   SACCADE_SIM_SEED      random delays before operations, so that missing waits show (none)
 *   SACCADE_SIM_CHECKS    abort (default), record or off: what a failed check does
 *   SACCADE_SIM_PAGEABLE  1: asynchronous copies of pageable memory are no failed check
 *   SACCADE_SIM_NCCL_VERSION  what NCCL says that it is: 20403 … (the header's)
 *   SACCADE_SIM_NCCL_WAIT how many seconds a rank waits for others before that is a failed
 *                         check (120)
 *   SACCADE_SIM_NCCL_CONNECT  how many seconds a communicator's first call of a kind, which
 *                         connects the ranks for it, waits for the others' before it fails (600)
 *   SACCADE_SIM_RINGS     a folder where ranks of several hosts (network namespaces) find each
 *                         other; without it they are all of one
 *   SACCADE_SIM_HOST      the machine's name: ranks of one machine must not share a device
 *                         (a process is a machine of its own)
 *   SACCADE_SIM_FAULT     sim_fault_set's words
 *   SACCADE_SIM_FAULT_FILE  a file that may come to hold such words: the next call after
 *                         sets them and removes it (for tests of a whole program)
 */
#ifndef SACCADE_CUDA_SIM_H
#define SACCADE_CUDA_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum sim_checks { SIM_CHECKS_ABORT, SIM_CHECKS_RECORD, SIM_CHECKS_OFF };

/* What a failed check does: one sentence on stderr and abort(), or recorded. */
void sim_checks_set(enum sim_checks checks);

/* How many checks failed since the last sim_checks_clear(), and the last one's sentence. */
int sim_checks_failed(void);
const char *sim_checks_last(void); /* valid until the thread asks again; "" when there is none */
void sim_checks_clear(void);

void sim_pageable_allow(bool allow);

/* Random delays from here on; 0 turns them off. */
void sim_seed_set(uint64_t seed);

/*
 * Faults, comma separated; device and k are counted from 0, replacing earlier ones:
 *   lost:DEVICE:K   the K-th call to that device fails with cudaErrorLaunchFailure,
 *                   and all later ones do; what is queued there does not run
 *   gone:DEVICE:K   likewise, and cudaDeviceReset does not bring it back
 *   oom:DEVICE:K    the K-th allocation of that device fails
 *   code:DEVICE:N   what a lost device answers: cudaError_t N in place of 719
 *   cold:DEVICE:MS  the first run of each kernel on the shapes that it has takes MS
 *                   milliseconds longer, and that of a graph as much for each of its kernels
 *   room:DEVICE:KIB  the device has so much memory in all
 *   slow:DEVICE:MS  every operation of that device, a whole graph too, takes MS
 *                   milliseconds longer
 *   cut:DEVICE:K    at the K-th collective of that device its rank's connections close:
 *                   its neighbours have an asynchronous error, and wait until they abort
 *   mute:DEVICE:K   likewise, and nobody is told
 *   kill:DEVICE:K   likewise, by the end of the whole process (SIGKILL)
 * Counts start anew. NULL or "" removes all faults but does not bring a lost
 * device back: sim_device_restore does, as cudaDeviceReset. Returns false, and
 * changes nothing, when the words cannot be read.
 */
bool sim_fault_set(const char *faults);
void sim_device_restore(int device);

/* Anything that the caller has not given back. */
struct sim_live {
    int allocations, pinned, streams, events, graphs, handles, descriptors, communicators;
};
struct sim_live sim_live(void);

/* Calls counted for `lost`, and operations that ran, of one device. */
unsigned long sim_device_calls(int device);
unsigned long sim_device_operations(int device);

#ifdef __cplusplus
}
#endif
#endif
