/*
 * What the simulator's files share. One lock guards all of the state below; an
 * operation runs on its stream's thread without it.
 */
#ifndef SIM_INTERNAL_H
#define SIM_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cuda_runtime_api.h>

#include "sim.h"

enum { SIM_DEVICES_MAX = 16, SIM_STREAMS_MAX = 256, SIM_ACCESS_MAX = 10, SIM_READERS_MAX = 8 };

/* state.c */

struct sim_device {
    size_t memory_bytes, used_bytes;
    unsigned long calls, operations, allocations, collectives;
    long lost_at, oom_at, cut_at, mute_at, kill_at; /* -1: never */
    double slow_ms, cold_ms, room_kib;              /* room_kib > 0: in place of memory_bytes */
    bool lost, gone;                                /* gone: not brought back by a reset */
    cudaError_t lost_as;                            /* what a lost one answers */
    struct CUstream_st *null_stream;                /* made when it is first used */
};

extern pthread_mutex_t sim_lock;
extern pthread_cond_t sim_done; /* some operation is done */
extern struct sim_device sim_device[SIM_DEVICES_MAX];
extern int sim_devices, sim_arch;
extern bool sim_pageable;
extern struct sim_live sim_counts;

void sim_enter(void); /* takes the lock, after the first call's set-up */
void sim_leave(void);

/* A failed check: aborts, or records. Holds the lock. */
void sim_report(const char *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Sets the thread's last error and returns it. */
cudaError_t sim_error(cudaError_t error);

/* One more call to a device: 0, or its sticky error. Holds the lock. */
cudaError_t sim_call(int device);
/* The sticky error of a lost device, or 0. Holds the lock. */
cudaError_t sim_lost(int device);

int sim_current(void);       /* the thread's device */
uint64_t sim_delay_us(void); /* drawn from the seed; holds the lock */

/* order.c: what happens before what. */

struct sim_clock {
    uint32_t at[SIM_STREAMS_MAX];
};
void sim_clock_join(struct sim_clock *clock, const struct sim_clock *other);

/* Bytes that an operation touches: `run` bytes at each of dim[0] × … × dim[3]
 * places, stride bytes apart. */
struct sim_access {
    const char *what; /* "x", "workspace" */
    const void *data;
    size_t run, dim[4], stride[4];
    bool write;
    bool any_device; /* copies may touch other devices' memory */
};

/* A strided tensor's; strides in numbers of `bytes`. With more than four axes that do not
 * join, all that lies between its first and last byte. */
struct sim_access sim_access_of(const char *what, const void *data, size_t bytes, int rank,
                                const size_t *dim, const size_t *stride, bool write);

struct sim_reader {
    int slot;
    uint32_t at;
    const char *call;
};

/* A range of bytes with one history: its last writer and who read since. */
struct sim_range {
    size_t from, to;
    struct sim_reader writer; /* slot < 0: nobody */
    struct sim_reader reader[SIM_READERS_MAX];
    int readers;
};
struct sim_history {
    struct sim_range *range;
    size_t count;
};
void sim_history_free(struct sim_history *history);

struct sim_allocation {
    struct sim_allocation *next;
    char *data;
    size_t bytes;
    uint64_t serial;
    int device; /* -1: pinned host memory */
    int owner;  /* whose context owns it */
    bool freed; /* kept a while, so that use after free shows */
    struct sim_history history;
};

/* Checks an access of `call` by the stream `slot` at `clock` against what came
 * before, and remembers it; false when it races. Holds the lock. */
bool sim_order_access(struct sim_history *history, const struct sim_allocation *allocation,
                      const char *call, const struct sim_access *access, int slot,
                      const struct sim_clock *clock);
size_t sim_access_extent(const struct sim_access *access);

/* memory.c */

struct sim_allocation *sim_memory_find(const void *data);
/* The allocation that holds the whole access and that `device` may touch; a failed check and
 * NULL otherwise. */
struct sim_allocation *sim_memory_check(const char *call, const struct sim_access *access,
                                        int device);
void sim_memory_reset(int device);

/* stream.c */

/* One operation. It may run several times when it is in a graph. */
struct sim_op {
    const char *call;
    void (*run)(void *arg);
    void (*free)(void *arg); /* may be NULL */
    void *arg;
    struct sim_access access[SIM_ACCESS_MAX];
    int accesses;
    size_t firsts; /* how many of its kernels no launch came before */
};

void sim_skip(void *arg); /* runs nothing */

struct sim_item {
    struct sim_item *next;
    struct sim_op op;
    bool always; /* also on a lost device: markers */
};

struct CUstream_st {
    struct CUstream_st *next;
    pthread_t thread;
    pthread_cond_t wake;
    struct sim_item *head, **tail;
    uint64_t queued, done;
    int device, slot, priority;
    bool stop, is_null;
    struct sim_clock clock;
    struct sim_capture *capture; /* not NULL: its operations are recorded */
    struct sim_clock capture_clock;
};

struct CUevent_st {
    struct CUevent_st *next;
    int device, refs; /* the handle and what is queued */
    unsigned flags;
    bool destroyed;
    uint64_t recorded, done;
    double time_ms;
    struct sim_clock clock;
    uint64_t capture_serial; /* 0: not recorded in a capture last */
    struct sim_clock capture_clock;
};

/* Hands an operation to a stream, or to the graph that it captures. Takes
 * `op->arg` in every case. NULL is the current device's null stream. */
cudaError_t sim_submit(cudaStream_t stream, const struct sim_op *op);

/* With the lock held: the stream itself, made when it is the null stream; NULL, and a failed
 * check, when it is none. */
cudaStream_t sim_stream_find(const char *call, cudaStream_t stream);
cudaError_t sim_stream_enqueue(cudaStream_t stream, const struct sim_op *op, bool always);
/* What a check in recording mode leads to: a race would harm only this program, so
 * the call succeeds as CUDA's does, and nothing runs; what is not there cannot be touched. */
enum sim_verdict { SIM_RUN, SIM_SKIP, SIM_FAIL };
/* Steps the stream's clock and judges what the operations touch. */
enum sim_verdict sim_stream_checks(cudaStream_t stream, const struct sim_op *op, size_t count);
/* Waits for all that a stream has now; the host's later work comes after it. */
void sim_stream_drain(cudaStream_t stream);
void sim_device_drain(int device);
void sim_stream_reset(int device);
extern struct CUstream_st *sim_streams;

/* graph.c */

struct sim_capture {
    struct sim_capture *next;
    uint64_t serial;
    enum cudaStreamCaptureMode mode;
    pthread_t thread;
    cudaStream_t origin;
    bool invalid;
    struct CUgraph_st *graph;
    struct sim_memory_history {
        uint64_t serial;
        struct sim_history history;
    } * memory;
    size_t memories;
};
cudaError_t sim_capture_add(cudaStream_t stream, const struct sim_op *op);
/* An error when a call that may wait or allocate is made while a capture
 * forbids it; the capture is invalid then. Holds the lock. */
cudaError_t sim_capture_forbids(const char *call);
cudaError_t sim_capture_refuse(const char *call, cudaStream_t stream);
struct sim_capture *sim_capture_find(uint64_t serial);

/* A handle's device and stream, as cuDNN and cuBLAS keep them. */
struct sim_handle {
    int device;
    cudaStream_t stream;
    void *workspace;
    size_t workspace_bytes;
    int math;
};

/* Work of a library on a handle's stream: checks that the stream is of the
 * handle's device. Takes op->arg in every case. */
cudaError_t sim_submit_for(const struct sim_handle *handle, const struct sim_op *op);
struct sim_handle *sim_handle_new(void);
void sim_handle_free(const char *call, struct sim_handle *handle);
void *sim_descriptor_new(size_t bytes);
void sim_descriptor_free(void *descriptor);

#endif
