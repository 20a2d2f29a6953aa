/*
 * The graph that a device is asked to run: operations over values, in order.
 *
 * A net emits one for a given batch size (net/net.h); passes that know no device
 * simplify it (net/passes.h); the device lowers it into what it runs best; the
 * plan (net/plan.h) gives it memory. Every value is written once: an in-place
 * layer of Caffe's makes a new value here, and sharing memory again is the
 * planner's business.
 *
 * A graph owns everything it points to, from one arena, except constants' data
 * that it borrows from the net. One thread at a time.
 */
#ifndef SAC_DEVICE_GRAPH_H
#define SAC_DEVICE_GRAPH_H

#include "base/arena.h"
#include "base/error.h"
#include "device/tensor.h"

enum sac_op_kind {
    /* What layers mean. */
    SAC_OP_CONV,   /* weights: filter [out, in/group, kh, kw], bias [out] or none */
    SAC_OP_DECONV, /* weights: filter [in, out/group, kh, kw], bias [out] or none */
    SAC_OP_INNER,  /* weights: [out, in] (or [in, out] if transpose), bias [out] or none */
    SAC_OP_POOL,
    SAC_OP_LRN,
    SAC_OP_RELU,
    SAC_OP_PRELU, /* weights: slope [C] or [1] */
    SAC_OP_SIGMOID,
    SAC_OP_TANH,
    SAC_OP_ELU,
    SAC_OP_POWER,   /* (shift + scale · x)^power */
    SAC_OP_DROPOUT, /* the identity in the test phase */
    SAC_OP_CONCAT,
    SAC_OP_SLICE,
    SAC_OP_RESHAPE, /* the same elements in the same (plain) order, another shape */
    SAC_OP_ELTWISE,
    SAC_OP_BATCHNORM, /* weights: mean [C], variance [C], scale factor [1]; a device may add
                       * what a Scale behind it has: s [C] (, b [C]) */
    SAC_OP_SCALE,     /* y = x · s (+ b); s, b from weights, or src 1 when there are none */
    SAC_OP_BIAS,      /* y = x + b; likewise */
    SAC_OP_SOFTMAX,
    SAC_OP_SOFTMAX_LOSS,   /* scores, labels → loss (, softmax of the scores) */
    SAC_OP_EUCLIDEAN_LOSS, /* a, b → Σ(a − b)² / 2N */
    SAC_OP_SIGMOID_LOSS,   /* logits, targets → loss (, sigmoid of the logits) */
    SAC_OP_ACCURACY,       /* scores, labels → share of hits (, one a class); no gradient */
    /* What passes and plans add. */
    SAC_OP_SPLIT,  /* the source, several times: where several uses give it gradients */
    SAC_OP_PIXELS, /* u8 N × H × W × C interleaved → N × C × H × W, mean and scale applied */
    SAC_OP_CONVERT, /* another type or layout */
    SAC_OP_AFFINE,  /* y = x · a[c] + b[c] over axis 1; weights: a [C], b [C] */
    SAC_OP_TOPK, /* N × C (× 1 × 1) → N × k pairs, largest first, ties to the lower index */
    SAC_OP_KINDS
};

struct sac_window { /* of a convolution or pool; [0] is vertical, [1] horizontal */
    int64_t kernel[2], stride[2], pad[2], dilation[2];
};

enum sac_pool_method { SAC_POOL_MAX, SAC_POOL_AVE };
enum sac_lrn_region { SAC_LRN_ACROSS_CHANNELS, SAC_LRN_WITHIN_CHANNEL };
/* What a sum of losses is divided by: all places, those that count, the batch, 1. */
enum sac_loss_norm { SAC_LOSS_FULL, SAC_LOSS_VALID, SAC_LOSS_BATCH_SIZE, SAC_LOSS_NONE };
enum sac_eltwise_method { SAC_ELTWISE_PROD, SAC_ELTWISE_SUM, SAC_ELTWISE_MAX };

/* Which member counts is the node's kind. Formulas and Caffe's defaults: the
 * layer files of net/. */
union sac_op_param {
    struct {
        struct sac_window window;
        int64_t group;
    } conv; /* CONV, DECONV */
    struct {
        int axis; /* dims before it are the batch */
        bool transpose;
    } inner;
    struct {
        /* The output's shape holds the rounding; a window is clipped to the
         * padded input for AVE's divisor, to the input for what is summed. */
        struct sac_window window;
        enum sac_pool_method method;
    } pool;
    struct {
        enum sac_lrn_region region;
        int size;
        float alpha, beta, k;
    } lrn;
    struct {
        float slope; /* for x < 0 */
    } relu;
    struct {
        float alpha;
    } elu;
    struct {
        float power, scale, shift;
    } power;
    struct {
        float ratio;
        bool mask;       /* training: zero this share and scale the rest by 1 / (1 − ratio) */
        uint64_t stream; /* tells one layer's mask from another's */
    } dropout;
    struct {
        int axis;
    } concat, slice, softmax;
    struct {
        enum sac_eltwise_method method;
        const float *coeff; /* one a source, or NULL for ones; SUM only */
    } eltwise;
    struct {
        float eps;
        float fraction;    /* of the moving average, when training */
        bool global_stats; /* use the stored mean and variance */
    } batchnorm;
    struct {
        int axis;     /* where the factor's axes start in x */
        int num_axes; /* how many axes it has */
        bool bias;
    } scale; /* SCALE, BIAS */
    struct {
        float mean[4]; /* in the net's channel order */
        float scale;
        bool swap;               /* R, G, B → B, G, R */
        const float *mean_image; /* C × H × W in the net's order, or NULL */
    } pixels;
    struct {
        int axis; /* of the classes; softmax and accuracy */
        enum sac_loss_norm norm;
        bool ignores; /* places whose label is `ignored` do not count */
        int ignored;
        float smoothing; /* the label gets 1 − this, and all classes share the rest */
        int top_k;       /* accuracy */
    } loss;              /* SOFTMAX_LOSS, SIGMOID_LOSS, ACCURACY */
    struct {
        int k;
    } topk;
};

/* Done to an operation's result before it is stored; put there by a device's
 * lower(), never by nets. First the sum, then the ReLU. */
struct sac_epilogue {
    int sum; /* a value to add, of the result's shape; -1: none */
    bool relu;
    float slope;
};

struct sac_value {
    const char *name; /* the blob's; several values may share one (in-place layers) */
    struct sac_shape shape;
    struct sac_form form; /* as the producer stores it; chosen by the plan */
    /* Put there by sac_quantize_graph: some reader takes the value in 8 bits, of which
     * one is worth `scale`, with a sign or from 0 on. 0: nobody does. */
    float scale;
    bool has_sign;
};

/* A weight blob. `name` identifies it across graphs of one net (other batch
 * sizes): equal names hold equal numbers, so packed copies are shared by name. */
struct sac_constant {
    const char *name;
    struct sac_shape shape;
    const float *data; /* host, plain; borrowed from the net or from the graph's arena */
    int param;         /* which of the net's parameters it is; -1: none */
    bool trains;       /* its gradient is wanted when training */
};

enum { SAC_NODE_WEIGHTS_MAX = 5 };

struct sac_node {
    enum sac_op_kind kind;
    const char *name; /* the layer's; "conv1+bn1+relu1" after fusion */
    union sac_op_param param;
    int src_count, dst_count, weight_count;
    int *src, *dst;                   /* value indices */
    int weight[SAC_NODE_WEIGHTS_MAX]; /* constant indices */
    struct sac_epilogue epilogue;
    bool eight_bits; /* takes source 0 and its weights in 8 bits; by sac_quantize_graph */
    /* Training. `cut`: no gradient goes to this source (propagate_down); NULL: none
     * is cut. The other two are what the plan found to be wanted. */
    bool *cut;
    bool *src_grad; /* one a source; NULL: none */
    bool weight_grad[SAC_NODE_WEIGHTS_MAX];
};

/* A value that is to become small, as a sum of its elements times a weight. */
struct sac_graph_loss {
    const char *name;
    int value;
    float weight;
};

struct sac_graph {
    struct sac_arena *arena;
    struct sac_value *values;
    struct sac_constant *constants;
    struct sac_node *nodes; /* in an order in which they can run */
    int value_count, constant_count, node_count;
    int value_cap, constant_cap, node_cap;
    int *inputs, *outputs; /* value indices, in the net's order */
    int input_count, output_count;
    struct sac_graph_loss *losses;
    int loss_count, loss_cap;
};

int sac_graph_new(struct sac_graph **ret, struct sac_error *err);
void sac_graph_free(struct sac_graph *graph);

/* Each returns an index, or -1 when memory is out. Text is copied. */
int sac_graph_add_value(struct sac_graph *graph, const char *name, const struct sac_shape *shape);
int sac_graph_add_constant(struct sac_graph *graph, const char *name, const struct sac_shape *shape,
                           const float *data);
/* A node with room for its sources and results, zeroed (epilogue.sum = -1). The
 * pointer is valid until the next addition. */
struct sac_node *sac_graph_add_node(struct sac_graph *graph, enum sac_op_kind kind,
                                    const char *name, int src_count, int dst_count);
int sac_graph_set_inputs(struct sac_graph *graph, const int *values, int count);
int sac_graph_add_loss(struct sac_graph *graph, int value, float weight);
int sac_graph_set_outputs(struct sac_graph *graph, const int *values, int count);

/* A gradient can flow from the node to its source: labels and accuracies give none. */
bool sac_node_gives_gradient(const struct sac_node *node, int src);

/* Makes every use of `from` (sources, sums, outputs, losses) a use of `to`. */
void sac_graph_replace_uses(struct sac_graph *graph, int from, int to);
/* How often a value is used: by nodes' sources and sums, as an output and as a loss. */
int sac_graph_use_count(const struct sac_graph *graph, int value);
/* The node that writes the value; -1 for an input. */
int sac_graph_producer(const struct sac_graph *graph, int value);
/* Nodes with kind SAC_OP_KINDS are marked for removal; this removes them. */
void sac_graph_compact(struct sac_graph *graph);
/* Joins two names with "+", in the arena. */
const char *sac_graph_join_names(struct sac_graph *graph, const char *a, const char *b);

const char *sac_op_kind_name(enum sac_op_kind kind);

#endif
