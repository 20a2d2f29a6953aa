/*
 * The table that a device fills: memory and streams, operations, lowering.
 *
 * A device is a CPU, a GPU or a stand-in for tests. `net`, `serve` and `train`
 * see only this. What a device can do is asked, never inferred.
 *
 * Addresses are bound when an operation is prepared, not when it runs: a plan
 * lays out its memory first, so that a GPU can record it once as a CUDA graph
 * and oneDNN can make its memory objects once. A plan, its operations and its
 * stream belong to one thread at a time; devices and stores are for any thread.
 *
 * How cuDNN fits: query asks for the algorithm's workspace, prepare makes the
 * tensor, filter and convolution descriptors over bound addresses, forward only
 * enqueues. How training fits: a binding carries the gradients' addresses beside
 * the values', query tells what forward must save, and the two backward entries
 * enqueue; a generation beside the masters' addresses tells packed copies that their
 * masters moved on.
 */
#ifndef SAC_DEVICE_DEVICE_H
#define SAC_DEVICE_DEVICE_H

#include "base/error.h"
#include "device/comm.h"
#include "device/crops.h"
#include "device/graph.h"
#include "device/tensor.h"

struct sac_device;
struct sac_stream;
struct sac_event;
struct sac_op;
struct sac_store;
struct sac_recording;
struct sac_ranges;

enum sac_precision {
    SAC_PRECISION_F32,
    SAC_PRECISION_BF16,
    SAC_PRECISION_F16,
    SAC_PRECISION_TF32,
    SAC_PRECISION_INT8, /* inference only; what has no range is bf16 or f32 */
};
const char *sac_precision_name(enum sac_precision precision);

enum sac_memory {
    SAC_MEMORY_DEVICE,  /* where operations read and write; 64-byte aligned */
    SAC_MEMORY_STAGING, /* host memory that copies fastest to the device (pinned) */
};

enum sac_copy { SAC_COPY_TO_DEVICE, SAC_COPY_TO_HOST, SAC_COPY_ON_DEVICE };

/* How operations are to be chosen. */
struct sac_op_options {
    enum sac_precision precision;
    bool reference;                  /* the plain loops only */
    bool deterministic;              /* the same numbers for a picture in every batch and place */
    bool repeats;                    /* the same numbers for a batch in every run */
    bool training;                   /* keep what backward needs */
    bool sketch;                     /* to be asked about only: nothing is measured for it */
    bool masters;                    /* the binding has the weights, and they change */
    int threads;                     /* of the host, for one operation at a time; 0: one */
    const struct sac_ranges *ranges; /* SAC_PRECISION_INT8: of the blobs (device/ranges.h) */
};

/* In training the batch is always the same: `deterministic` asks for no more there. */
static inline bool sac_op_repeats(const struct sac_op_options *options)
{
    return options->repeats || (options->deterministic && options->training);
}

/* What a device says of one node, given the forms its sources have now. */
struct sac_op_caps {
    struct sac_form src; /* what it wants of all sources; the plan converts where they differ */
    struct sac_form dst; /* what it stores */
    size_t workspace_bytes;
    size_t saved_bytes; /* kept from forward to backward */
    bool in_place;      /* dst 0 may share src 0's memory */
    /* dst may be a view with longer strides. Of a concatenation also: sources may stand in
     * the result where they belong, and are then not copied. */
    bool strided_dst;
    bool alias;        /* nothing to do: dst 0 is src 0's memory */
    bool sum_in_eight; /* takes a sum that is in 8 bits in that one's own scale */
    /* Training. */
    bool backward_src, backward_dst; /* backward reads the sources, the results */
    bool grad_in_place;  /* src_grad 0 may share dst_grad 0's memory; weights come first */
    const char *kernel;  /* what runs it, for the plan's report: "oneDNN brgconv", "loops" */
    double flops;        /* of one forward, for the report */
    double extra_bytes;  /* likewise: moved besides what is read and written: reorders */
    size_t weight_bytes; /* of all its weights, packed; 0: each in the type of what it meets */
};

/* What masks are drawn from, with the operation's stream and the element's index. */
struct sac_op_random {
    uint64_t seed, iteration;
};

/* Where a node's tensors are. Sources in the node's order; sum last is
 * `sum` (data NULL when there is none), whose memory dst 0 may share. Gradients
 * are NULL unless training. */
struct sac_binding {
    const struct sac_tensor *src, *dst;
    struct sac_tensor sum;
    void *workspace, *saved;     /* the workspace as memory_new's own, or on 256 bytes in that */
    size_t workspace_bytes;      /* what there is, at least what query asked for */
    struct sac_tensor *src_grad; /* written by backward_data; data NULL: not wanted */
    const struct sac_tensor *dst_grad; /* data NULL: zeros */
    float *const *weight_grad;         /* added to by backward_weights; NULL: not wanted */
    /* The weights' masters, plain fp32 on the device, one a weight of the node; NULL:
     * the numbers of the constants, through the store. Copies packed from masters are
     * made again by the forward that finds *generation changed. */
    float *const *weight;
    const uint64_t *generation;
    const struct sac_op_random *random; /* read by each forward and its backward */
};

struct sac_device_info {
    char name[64];         /* "cpu", "cuda:0" */
    char description[128]; /* "AMD EPYC, 2 cores, AVX-512 bf16, oneDNN 2.6.3" */
    uint64_t memory_bytes; /* 0: the host's */
    int streams;           /* how many plans run at once with profit */
    bool host_memory;      /* device memory is host memory: no copies needed */
    unsigned precisions;   /* bit (1 << sac_precision) where it is fast */
    bool slices;           /* a batch is faster a few pictures at a time, which stay in a cache */
    size_t cache_bytes;    /* of that: a core's share */
};

/* Negative: not known. */
struct sac_device_gauges {
    double utilization; /* 0 to 1 */
    double memory_used_bytes, memory_total_bytes;
    double temperature_celsius, power_watts;
};

/* ---- Updates: Caffe's rules over flat fp32 arrays in device memory ----------- */

/* train/solver.h has the formulas. */
enum sac_update_rule {
    SAC_UPDATE_SGD,
    SAC_UPDATE_NESTEROV,
    SAC_UPDATE_ADA_GRAD,
    SAC_UPDATE_RMS_PROP,
    SAC_UPDATE_ADA_DELTA,
    SAC_UPDATE_ADAM,
};

/* Elements [at, at + count) of the flat arrays, all of one parameter. */
struct sac_update_chunk {
    uint64_t at;
    uint32_t count;
    float lr_mult, decay;
};
enum { SAC_UPDATE_CHUNK = 1024 }; /* the most that one has */

/* g · clip · share, decayed, then the rule. All pointers are the device's. */
struct sac_update {
    enum sac_update_rule rule;
    const struct sac_update_chunk *chunks;
    size_t chunk_count;
    const float *g;
    float *w, *h, *k; /* k: NULL where the rule has one history */
    float rate, correction, momentum, second, delta, clip, share;
    bool l1;
};

enum { SAC_SUM_DOUBLES = 257 }; /* the sum, and room for its parts */

struct sac_device_table {
    const char *kind; /* "cpu", "cuda" */

    /* Memory, streams, events, copies. */
    int (*memory_new)(struct sac_device *device, enum sac_memory kind, size_t bytes, void **ret,
                      struct sac_error *err);
    void (*memory_free)(struct sac_device *device, enum sac_memory kind, void *memory);
    int (*stream_new)(struct sac_device *device, struct sac_stream **ret, struct sac_error *err);
    void (*stream_free)(struct sac_stream *stream); /* takes NULL */
    /* Waits until all that was enqueued is done, and tells its first failure. */
    int (*stream_sync)(struct sac_stream *stream, struct sac_error *err);
    int (*event_new)(struct sac_device *device, struct sac_event **ret, struct sac_error *err);
    void (*event_free)(struct sac_event *event);
    int (*event_record)(struct sac_event *event, struct sac_stream *stream, struct sac_error *err);
    int (*stream_wait)(struct sac_stream *stream, struct sac_event *event, struct sac_error *err);
    /* The caller waits until what was recorded last is done, and tells a failure of
     * the device; NULL where device memory is the host's. */
    int (*event_sync)(struct sac_event *event, struct sac_error *err);
    int (*copy)(struct sac_stream *stream, enum sac_copy way, void *dst, const void *src,
                size_t bytes, struct sac_error *err);

    /* As stream_new, first in line where the device orders streams: the lower,
     * the sooner; 0 is usual. NULL: all are equal. */
    int (*stream_new_at)(struct sac_device *device, int priority, struct sac_stream **ret,
                         struct sac_error *err);

    /* 0 while the device works; once it is lost, SAC_EDEVICE with the sentence of
     * what it was lost to. Any thread, and cheap. NULL: it cannot be lost. */
    int (*health)(struct sac_device *device, struct sac_error *err);

    /* Makes a lost device work again, where its maker's libraries can: with a new
     * context. All that was made on it has been freed, staging memory too, and
     * nobody else uses it meanwhile. NULL: it cannot. */
    int (*revive)(struct sac_device *device, struct sac_error *err);

    /* How much device memory is free now, and how much there is; NULL: the host's. */
    int (*memory_left)(struct sac_device *device, size_t *ret_free, size_t *ret_total,
                       struct sac_error *err);

    /* What its gauges show now; any thread, may take milliseconds. NULL: none. */
    void (*gauges)(struct sac_device *device, struct sac_device_gauges *ret);

    /* Records what is enqueued on the stream in between, without running it, to
     * be enqueued whole. All four are NULL where nothing is won by it. What is
     * recorded has run once before (libraries set themselves up in a first run),
     * and is valid while its operations and their memory are. */
    int (*record_begin)(struct sac_stream *stream, struct sac_error *err);
    int (*record_end)(struct sac_stream *stream, struct sac_recording **ret, struct sac_error *err);
    int (*replay)(struct sac_recording *recording, struct sac_stream *stream,
                  struct sac_error *err);
    void (*recording_free)(struct sac_recording *recording); /* takes NULL */

    /* Training with parameters in the device's own memory; NULL where that is the host's.
     * sum_of_squares: of values, in a fixed order, to work[0]; not finite where a value
     * is not. Counts of values are multiples of 16. */
    int (*clear)(struct sac_stream *stream, void *memory, size_t bytes, struct sac_error *err);
    int (*sum_of_squares)(struct sac_stream *stream, const float *values, size_t count,
                          double work[SAC_SUM_DOUBLES], struct sac_error *err);
    int (*update)(struct sac_stream *stream, const struct sac_update *update,
                  struct sac_error *err);
    int (*crops)(struct sac_stream *stream, const struct sac_crops *crops, struct sac_error *err);

    /* A communicator of the device's own (device/comm.h); both NULL where it has none.
     * comm_id makes, on one rank, what all of them then give to comm_new, which waits for
     * the others, at most SAC_COMM_JOIN_S. */
    int (*comm_id)(struct sac_device *device, unsigned char ret[SAC_COMM_ID],
                   struct sac_error *err);
    int (*comm_new)(struct sac_device *device, const struct sac_comm_place *place,
                    struct sac_comm **ret, struct sac_error *err);
    /* What comm_new goes through: "NCCL 2.28.9"; SAC_EUNSUPPORTED with why there is none. */
    int (*comm_library)(char *ret, size_t size, struct sac_error *err);

    /* Weights on the device, packed once and shared by every plan of a model. A
     * constant is known by its name. */
    int (*store_new)(struct sac_device *device, struct sac_store **ret, struct sac_error *err);
    void (*store_free)(struct sac_store *store); /* takes NULL; after its plans */
    size_t (*store_bytes)(const struct sac_store *store);

    /* Operations. */
    int (*op_query)(struct sac_device *device, const struct sac_graph *graph,
                    const struct sac_node *node, const struct sac_op_options *options,
                    struct sac_op_caps *ret, struct sac_error *err);
    int (*op_prepare)(struct sac_device *device, struct sac_store *store,
                      const struct sac_graph *graph, const struct sac_node *node,
                      const struct sac_op_options *options, const struct sac_binding *binding,
                      struct sac_op **ret, struct sac_error *err);
    void (*op_free)(struct sac_op *op); /* takes NULL */
    int (*op_forward)(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
    /* After the op's forward, with dst_grad there; NULL where a device cannot train. */
    int (*op_backward_data)(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
    int (*op_backward_weights)(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);

    /* Rewrites the graph into what the device runs best: fusion is its business. */
    int (*lower)(struct sac_device *device, struct sac_graph *graph,
                 const struct sac_op_options *options, struct sac_error *err);

    /* How many operations a second a stream can do at most in the precision, a multiply-add
     * being two: measured now, in some 20 ms, by the calling thread, and how. 0: not known;
     * NULL: never. */
    double (*peak_flops)(struct sac_device *device, enum sac_precision precision,
                         const char **ret_how);

    void (*free)(struct sac_device *device);
};

/* The first member of every device. */
struct sac_device {
    const struct sac_device_table *table;
    struct sac_device_info info;
};

/* One device: "cpu", "cuda:0", "cuda" (the first), "auto" (the best there is: CUDA
 * if a device works, else the CPU; the caller says which it is). A device that is
 * asked for and not there is an error, never a fallback. */
int sac_device_open(struct sac_device **ret, const char *name, struct sac_error *err);
/* All that `--device` says, for those who use several: "cuda" is every CUDA device,
 * "cuda:0,2" these two, "auto" every CUDA device that works, else the CPU. Opens at
 * most `most`, into ret[0 .. *ret_count); all or, on failure, none. */
int sac_devices_open(struct sac_device **ret, int most, int *ret_count, const char *names,
                     struct sac_error *err);
/* How many CUDA devices there are; a failure says why they cannot be used. */
int sac_device_cuda_count(int *ret, struct sac_error *err);
void sac_device_close(struct sac_device *device); /* takes NULL */

#endif
