/*
 * The CUDA device, for its own files only; CUDA's headers stay here and in
 * kernels/.
 *
 * Everything is channels-last and enqueued on the caller's stream. A stream has
 * a cuDNN handle of its own, as a handle serves one thread; cuBLASLt's is the
 * device's. `lock` guards what asks and measures: the device's own stream and
 * cuDNN handle.
 */
#ifndef SAC_DEVICE_CUDA_CUDA_H
#define SAC_DEVICE_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <pthread.h>
#include <stdatomic.h>

#include "device/device.h"

struct sac_algorithms;
struct sac_cuda_parked;

struct sac_cuda_device {
    struct sac_device base;
    int index;
    int major, minor; /* the compute capability */
    char card[96];    /* its name */
    char bus_id[24];  /* as NVML has it */
    atomic_bool down; /* set after `lost_to` is whole, until it is revived */
    pthread_mutex_t down_lock;
    struct sac_error lost_to;
    cublasLtHandle_t cublas;
    pthread_mutex_t lock;
    cudaStream_t stream;
    cudnnHandle_t cudnn;
    struct sac_algorithms *algorithms;
    pthread_mutex_t parked_lock;
    struct sac_cuda_parked *parked; /* memory.c */
};

struct sac_stream {
    struct sac_cuda_device *device;
    cudaStream_t stream;
    cudnnHandle_t cudnn;
};

/* A node, and how it is to be run. `type`: what the precision stores. */
struct sac_cuda_ask {
    struct sac_cuda_device *device;
    const struct sac_graph *graph;
    const struct sac_node *node;
    const struct sac_op_options *options;
    enum sac_type type;
};

struct sac_cuda_kernel {
    const char *name;
    bool (*can)(const struct sac_cuda_ask *ask);
    /* Completes caps, which come with forms and flops filled; NULL: done. */
    int (*query)(const struct sac_cuda_ask *ask, struct sac_op_caps *caps, struct sac_error *err);
    /* Makes op->state from op's tensors; NULL: nothing to make. */
    int (*prepare)(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                   struct sac_error *err);
    int (*forward)(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
    void (*free_state)(void *state);
};

/* Training: the other way through an operation whose forward any kernel did. Chosen as
 * kernels are, for the forms that the forward has. */
struct sac_cuda_backward {
    const char *name;
    bool (*can)(const struct sac_cuda_ask *ask, struct sac_form src, struct sac_form dst);
    /* Says what it reads, and raises caps->workspace_bytes to what it needs. */
    int (*query)(const struct sac_cuda_ask *ask, struct sac_op_caps *caps, struct sac_error *err);
    int (*prepare)(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_error *err);
    int (*data)(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
    int (*weights)(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
    void (*free_state)(void *state);
};

struct sac_cuda_follow;

/* An operation ready to run. It borrows nothing of the graph. */
struct sac_op {
    struct sac_cuda_device *device;
    const struct sac_cuda_kernel *kernel;
    char *name;
    enum sac_op_kind kind;
    enum sac_precision precision;
    union sac_op_param param; /* its pointers lead into `floats`, or are gone */
    struct sac_epilogue epilogue;
    int src_count, dst_count, weight_count;
    struct sac_tensor *src, *dst, sum;
    struct sac_shape weight_shape[SAC_NODE_WEIGHTS_MAX];
    const void *weight[SAC_NODE_WEIGHTS_MAX]; /* device memory, of the store */
    float *floats;                            /* host: coefficients */
    void *owned;                              /* device memory */
    void *workspace, *saved;
    size_t workspace_bytes; /* what there is */
    void *state;

    /* Masters, and the copies that follow them (masters.c). NULL: the store's numbers. */
    float *master[SAC_NODE_WEIGHTS_MAX];
    const uint64_t *generation;
    uint64_t followed; /* the generation that the copies are of */
    struct sac_cuda_follow *follows;
    const struct sac_op_random *random;
    bool training;
    const struct sac_cuda_backward *backward; /* NULL: none */
    void *backward_state;
    struct sac_tensor *src_grad, *dst_grad;   /* data NULL: not wanted; zeros */
    float *weight_grad[SAC_NODE_WEIGHTS_MAX]; /* NULL: not wanted */
};

/* ---- Errors (error.c) ------------------------------------------------------
 * Each returns 0 for success; else the code, and the sentence of the first
 * failure. What a device does not recover from marks it as lost. */
int sac_cuda_check(struct sac_cuda_device *device, cudaError_t code, const char *what,
                   struct sac_error *err);
int sac_cudnn_check(struct sac_cuda_device *device, cudnnStatus_t code, const char *what,
                    struct sac_error *err);
int sac_cublas_check(struct sac_cuda_device *device, cublasStatus_t code, const char *what,
                     struct sac_error *err);
int sac_cuda_health(struct sac_device *device, struct sac_error *err);
void sac_cuda_mark_found(struct sac_cuda_device *device); /* it works again */

/* Makes the device the calling thread's. */
int sac_cuda_use(struct sac_cuda_device *device, struct sac_error *err);

/* ---- Gauges (nvml.c): through NVML, where it can be loaded ------------------- */
void sac_cuda_gauges(struct sac_device *device, struct sac_device_gauges *ret);

/* ---- Memory (memory.c) ----------------------------------------------------- */
int sac_cuda_memory_new(struct sac_device *device, enum sac_memory kind, size_t bytes, void **ret,
                        struct sac_error *err);
void sac_cuda_memory_free(struct sac_device *device, enum sac_memory kind, void *memory);
int sac_cuda_memory_left(struct sac_device *device, size_t *ret_free, size_t *ret_total,
                         struct sac_error *err);
/* Freeing pinned memory waits for all GPUs, which wait for each other in a sum over ranks:
 * while there are communicators it is parked, and used again. This frees it. */
void sac_cuda_unpark(struct sac_cuda_device *device);
/* Through pinned memory, and waits until it is there. */
int sac_cuda_upload(struct sac_cuda_device *device, void *to, const void *from, size_t bytes,
                    struct sac_error *err);

/* ---- Weights (store.c) ----------------------------------------------------- */
/* A packed copy: elements in the order of `dim`, element i at Σ index · stride of
 * the constant's. A constant without data is zeros. */
struct sac_cuda_packing {
    enum sac_type type;
    int64_t dim[4], stride[4];
};
int sac_cuda_store_new(struct sac_device *device, struct sac_store **ret, struct sac_error *err);
void sac_cuda_store_free(struct sac_store *store);
size_t sac_cuda_store_bytes(const struct sac_store *store);
/* The copy's device memory, made if nobody has made it yet; the store's. */
int sac_cuda_store_get(struct sac_store *store, const struct sac_constant *constant,
                       const struct sac_cuda_packing *packing, const void **ret,
                       struct sac_error *err);
/* The same of weight `index` of the node: of its master where it has one, and then made
 * again by the forward that finds the masters changed; else of the store (masters.c). */
int sac_cuda_weight_get(struct sac_op *op, const struct sac_cuda_ask *ask, int index,
                        const struct sac_cuda_packing *packing, struct sac_store *store,
                        const void **ret, struct sac_error *err);
int sac_cuda_follow_masters(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
void sac_cuda_follows_free(struct sac_op *op);
/* Weight `index` of the node as it stands, in fp32, to op->weight. */
int sac_cuda_weight_plain(struct sac_op *op, const struct sac_cuda_ask *ask, int index,
                          struct sac_store *store, struct sac_error *err);
/* A 4-axis filter with its axes in that order; likewise. */
int sac_cuda_weight_filter(struct sac_op *op, const struct sac_cuda_ask *ask, const int order[4],
                           struct sac_store *store, struct sac_error *err);

/* ---- Updates (update.c): device.h has the contracts ------------------------ */
int sac_cuda_clear(struct sac_stream *stream, void *memory, size_t bytes, struct sac_error *err);
int sac_cuda_sum_of_squares(struct sac_stream *stream, const float *values, size_t count,
                            double work[SAC_SUM_DOUBLES], struct sac_error *err);
int sac_cuda_update(struct sac_stream *stream, const struct sac_update *update,
                    struct sac_error *err);
int sac_cuda_crops(struct sac_stream *stream, const struct sac_crops *crops, struct sac_error *err);

/* ---- Ranks (comm.c): device.h has the contracts ---------------------------- */
int sac_cuda_comm_id(struct sac_device *device, unsigned char ret[SAC_COMM_ID],
                     struct sac_error *err);
int sac_cuda_comm_new(struct sac_device *device, const struct sac_comm_place *place,
                      struct sac_comm **ret, struct sac_error *err);
bool sac_cuda_comms_live(void); /* this process has a communicator */
int sac_cuda_comm_library(char *ret, size_t size, struct sac_error *err);

/* ---- Recording (record.c) -------------------------------------------------- */
int sac_cuda_record_begin(struct sac_stream *stream, struct sac_error *err);
int sac_cuda_record_end(struct sac_stream *stream, struct sac_recording **ret,
                        struct sac_error *err);
int sac_cuda_replay(struct sac_recording *recording, struct sac_stream *stream,
                    struct sac_error *err);
void sac_cuda_recording_free(struct sac_recording *recording);

/* ---- Operations (ops.c and a file a library) ------------------------------- */
int sac_cuda_op_query(struct sac_device *device, const struct sac_graph *graph,
                      const struct sac_node *node, const struct sac_op_options *options,
                      struct sac_op_caps *ret, struct sac_error *err);
int sac_cuda_op_prepare(struct sac_device *device, struct sac_store *store,
                        const struct sac_graph *graph, const struct sac_node *node,
                        const struct sac_op_options *options, const struct sac_binding *binding,
                        struct sac_op **ret, struct sac_error *err);
void sac_cuda_op_free(struct sac_op *op);
int sac_cuda_op_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);

int sac_cuda_op_backward_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
int sac_cuda_op_backward_weights(struct sac_op *op, struct sac_stream *stream,
                                 struct sac_error *err);
/* Training's part of a query and of a preparation (backward.c). */
int sac_cuda_backward_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                            struct sac_error *err);
int sac_cuda_backward_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                              const struct sac_binding *binding, struct sac_error *err);
void sac_cuda_backward_free(struct sac_op *op);

/* Our kernel is faster than cuDNN's for this convolution of a channel a group
 * (depthwise.c). */
bool sac_cuda_depthwise_wins(const struct sac_cuda_ask *ask);

extern const struct sac_cuda_kernel sac_cuda_conv, sac_cuda_deconv; /* cuDNN: conv.c */
extern const struct sac_cuda_kernel sac_cuda_pointwise;             /* cuBLASLt: pointwise.c */
extern const struct sac_cuda_kernel sac_cuda_direct_conv, sac_cuda_depthwise,
    sac_cuda_direct_deconv;                                                /* window.c */
extern const struct sac_cuda_kernel sac_cuda_pool, sac_cuda_lrn;           /* window.c */
extern const struct sac_cuda_kernel sac_cuda_inner, sac_cuda_direct_inner; /* inner.c */
extern const struct sac_cuda_kernel sac_cuda_map, sac_cuda_batchnorm, sac_cuda_eltwise; /* map.c */
extern const struct sac_cuda_kernel sac_cuda_copy, sac_cuda_softmax, sac_cuda_topk,
    sac_cuda_pixels; /* move.c */
extern const struct sac_cuda_kernel sac_cuda_dropout, sac_cuda_softmax_loss, sac_cuda_pair_loss,
    sac_cuda_accuracy; /* loss.c */

extern const struct sac_cuda_backward sac_cuda_conv_back;        /* cuDNN: conv_backward.c */
extern const struct sac_cuda_backward sac_cuda_inner_back;       /* inner_backward.c */
extern const struct sac_cuda_backward sac_cuda_direct_conv_back, /* window_backward.c */
    sac_cuda_direct_inner_back, sac_cuda_pool_back, sac_cuda_lrn_back;
extern const struct sac_cuda_backward sac_cuda_map_back, sac_cuda_scale_back, /* map_backward.c */
    sac_cuda_batchnorm_back, sac_cuda_eltwise_back, sac_cuda_copy_back, sac_cuda_split_back,
    sac_cuda_softmax_back;
extern const struct sac_cuda_backward sac_cuda_dropout_back, sac_cuda_softmax_loss_back,
    sac_cuda_pair_loss_back; /* loss.c */

/* For the files of the way back. The columns of a tensor, as sums over a channel see it. */
struct sac_kernel_columns;
struct sac_kernel_columns sac_cuda_columns_of(const struct sac_tensor *t);
/* bias_grad += the sums of dst_grad's channels, where both are wanted. */
int sac_cuda_bias_back(struct sac_op *op, float *bias_grad, struct sac_stream *stream,
                       struct sac_error *err);
size_t sac_cuda_columns_bytes(const struct sac_shape *shape);

/* An operation that was bound to less workspace than it needs is refused. */
int sac_cuda_check_workspace(const struct sac_op *op, size_t bytes, struct sac_error *err);
/* A channels-last tensor, or rank 2, whole or a view of a part of the channels:
 * the distance of its rows to *ret_pitch. */
bool sac_cuda_is_rows(const struct sac_tensor *t, int64_t *ret_pitch);
int sac_cuda_need_rows(const struct sac_op *op, const struct sac_tensor *t, int64_t *ret_pitch,
                       struct sac_error *err);
bool sac_cuda_is_whole(const struct sac_tensor *t);
/* y = relu(y + bias + sum) over op->dst[0], as the epilogue says; bias may be NULL. */
int sac_cuda_finish(struct sac_op *op, const float *bias, bool sum, struct sac_stream *stream,
                    struct sac_error *err);

#endif
