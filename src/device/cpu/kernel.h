/*
 * What a kernel of the CPU device is, and what an operation made with one holds.
 * The device asks the kernels of an operation's kind in their table's order and
 * takes the first that can do it; the plain loops can do everything and stand
 * last.
 */
#ifndef SAC_DEVICE_CPU_KERNEL_H
#define SAC_DEVICE_CPU_KERNEL_H

#include "base/cpu.h"
#include "device/cpu/store.h"
#include "device/device.h"

struct sac_cpu_vector;

struct sac_cpu_device {
    struct sac_device base;
    struct sac_cpu_features features;
    const struct sac_cpu_vector *vector; /* our own kernels for this machine */
};

/* A node, and how it is to be run. `type`: what the precision stores. */
struct sac_cpu_ask {
    struct sac_cpu_device *device;
    const struct sac_graph *graph;
    const struct sac_node *node;
    const struct sac_op_options *options;
    enum sac_type type;
};

static inline const struct sac_shape *sac_cpu_src_shape(const struct sac_cpu_ask *ask)
{
    return &ask->graph->values[ask->node->src[0]].shape;
}

static inline const struct sac_shape *sac_cpu_dst_shape(const struct sac_cpu_ask *ask)
{
    return &ask->graph->values[ask->node->dst[0]].shape;
}

struct sac_cpu_kernel {
    const char *name;
    bool (*can)(const struct sac_cpu_ask *ask);
    /* Completes caps, which come with forms, flops and name filled; NULL: done. */
    int (*query)(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err);
    /* Makes op->state from op's tensors; NULL: nothing to make. */
    int (*prepare)(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err);
    int (*forward)(struct sac_op *op, struct sac_error *err);
    void (*free_state)(void *state);
};

/* Training: the other way through an operation whose forward any kernel did. Chosen
 * likewise, the plain loops last. */
struct sac_cpu_backward {
    const char *name;
    bool (*can)(const struct sac_cpu_ask *ask);
    /* Raises caps->workspace_bytes to what it needs, and says what it reads. */
    int (*query)(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err);
    int (*prepare)(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_error *err);
    int (*data)(struct sac_op *op, struct sac_error *err);
    int (*weights)(struct sac_op *op, struct sac_error *err);
    void (*free_state)(void *state);
};

/* An operation ready to run. It borrows nothing of the graph. */
struct sac_op {
    const struct sac_cpu_kernel *kernel;
    const struct sac_cpu_vector *vector;
    char *name;
    enum sac_op_kind kind;
    union sac_op_param param; /* its pointers lead into `floats` */
    struct sac_epilogue epilogue;
    int src_count, dst_count, weight_count;
    struct sac_tensor *src, *dst, sum;
    struct sac_shape weight_shape[SAC_NODE_WEIGHTS_MAX];
    const float
        *weight[SAC_NODE_WEIGHTS_MAX]; /* plain, of the store; for kernels that asked for them */
    float *floats;
    void *workspace;
    void *saved; /* of max pooling: for each result, which of its window's elements it is */
    void *state;

    int threads;                         /* that it may use */
    int64_t first;                       /* of a part of it: the picture that comes first */
    float *master[SAC_NODE_WEIGHTS_MAX]; /* NULL: the numbers come from the store */
    const uint64_t *generation;          /* of the masters */
    const struct sac_op_random *random;
    bool training;
    const struct sac_cpu_backward *backward; /* NULL: none */
    void *backward_state;
    struct sac_tensor *src_grad, *dst_grad;   /* data NULL: not wanted; zeros */
    float *weight_grad[SAC_NODE_WEIGHTS_MAX]; /* NULL: not wanted */
};

/* Puts plain fp32 copies of the node's weights (one, or all), from the store, into
 * op->weight. */
int sac_cpu_weight_plain(struct sac_op *op, const struct sac_cpu_ask *ask, int index,
                         struct sac_store *store, struct sac_error *err);
int sac_cpu_weights_plain(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                          struct sac_error *err);

extern const struct sac_cpu_kernel sac_cpu_loops;
extern const struct sac_cpu_backward sac_cpu_backward_loops;

#endif
