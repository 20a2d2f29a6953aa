/*
 * A plan: a net made ready for one device, stream, batch size and precision.
 * Shapes are fixed, dead layers gone, BatchNorm and Scale folded, what the device
 * can fuse fused, every address bound in one arena with reuse.
 *
 * A plan belongs to one thread at a time; plans of several threads share the
 * packed weights through the store, which must outlive them. Running a plan
 * allocates nothing.
 */
#ifndef SAC_NET_PLAN_H
#define SAC_NET_PLAN_H

#include "device/device.h"
#include "net/net.h"

struct sac_plan;

struct sac_plan_options {
    int batch; /* axis 0 of the inputs; 0: the net's own */
    struct sac_op_options ops;
    /* Pixels instead of a float blob as input 0: u8, N × H × W × C interleaved
     * R, G, B (or grey). Its parameters; NULL: a float blob in Caffe's layout. */
    const union sac_op_param *pixels;
    /* > 0: output 0 is the k largest of each picture's values of the net's last
     * output, N × k sac_topk_pair, softmax left as the net has it. */
    int topk;
    /* Masters of the net's weights in device memory, plain fp32, one pointer a parameter
     * (sac_net_param), borrowed; they may change between runs. NULL: the net's numbers
     * as they are now. Training needs them. */
    float *const *weights;
    /* ops.training: where sac_plan_backward adds gradients, likewise; NULL where a
     * parameter's is not wanted. Parameters with lr_mult 0 get none. */
    float *const *weight_grads;
    /* The net with its losses and accuracies; training has them. `wanted` that is not NULL
     * may then be empty: the losses alone. */
    bool judged;
    const char *const *wanted; /* blob names to keep as outputs; none: the net's */
    int wanted_count;
    /* Use the memory of this plan (of the same thread, which never runs both at
     * once) where it is large enough; NULL: own memory. Must outlive this one. Not of
     * one that trains: what its way back begins with lies there from the start. */
    struct sac_plan *memory_of;
};

int sac_plan_new(struct sac_plan **ret, const struct sac_net *net, struct sac_device *device,
                 struct sac_store *store, struct sac_stream *stream,
                 const struct sac_plan_options *options, struct sac_error *err);
void sac_plan_free(struct sac_plan *plan); /* takes NULL */
/* What it would need of the device's memory: its arena and ends, and the packed weights.
 * Nothing is measured and nothing taken, so that workspaces are as the libraries expect. */
struct sac_plan_needs {
    size_t memory_bytes, weight_bytes;
};
int sac_plan_estimate(struct sac_plan_needs *ret, const struct sac_net *net,
                      struct sac_device *device, const struct sac_plan_options *options,
                      struct sac_error *err);

/* Input and output tensors, in device memory. Inputs: plain fp32 (or u8 pixels,
 * shape N × H × W × C); written by the caller before each run. Outputs: plain
 * fp32 (or top-k pairs); valid until the next run. */
int sac_plan_input_count(const struct sac_plan *plan);
const struct sac_tensor *sac_plan_input(const struct sac_plan *plan, int index);
int sac_plan_output_count(const struct sac_plan *plan);
const struct sac_tensor *sac_plan_output(const struct sac_plan *plan, int index);

int sac_plan_batch(const struct sac_plan *plan);
/* In how many slices the batch is run; each step below is one slice's. */
int sac_plan_slices(const struct sac_plan *plan);
size_t sac_plan_memory_bytes(const struct sac_plan *plan); /* its arena and ends */

/* Enqueues one forward pass on the plan's stream. */
int sac_plan_forward(struct sac_plan *plan, struct sac_error *err);

/* ---- Training ---- */

/* Masters were written: packed copies are made again by the next run. */
void sac_plan_weights_changed(struct sac_plan *plan);
/* What the next forward's dropout draws from, and its backward too. */
void sac_plan_set_random(struct sac_plan *plan, uint64_t seed, uint64_t iteration);

/* Enqueues one backward pass, of the forward pass before it: adds to the weights'
 * gradients. */
int sac_plan_backward(struct sac_plan *plan, struct sac_error *err);

/* The step of the way back behind which a parameter's gradient is whole, counted from the
 * way's first, 0; −1: it has none. */
int sac_plan_gradient_step(const struct sac_plan *plan, int param);
/* Called by sac_plan_backward behind each step that was enqueued; what it returns counts. */
struct sac_plan_hook {
    int (*after)(void *user, int step, struct sac_error *err);
    void *user;
};
void sac_plan_set_hook(struct sac_plan *plan, struct sac_plan_hook hook);

/* All gradients are `scale` times what they are without; waits for the stream. */
int sac_plan_set_loss_scale(struct sac_plan *plan, float scale, struct sac_error *err);

/* Losses, of training and judged plans. */
struct sac_plan_loss {
    const char *name;
    float weight;
    struct sac_tensor value; /* in device memory; a loss is the sum of its elements */
};
int sac_plan_loss_count(const struct sac_plan *plan);
void sac_plan_loss(const struct sac_plan *plan, int index, struct sac_plan_loss *ret);
/* Waits for the stream, and adds all losses up by their weights. */
int sac_plan_loss_sum(struct sac_plan *plan, double *ret, struct sac_error *err);

/* The report: one row an operation that runs. */
struct sac_plan_step {
    const char *name; /* "conv1+relu1" */
    enum sac_op_kind kind;
    const char *kernel;
    struct sac_shape out;
    struct sac_form form;
    double flops;
    double bytes; /* read and written, weights included */
};
int sac_plan_step_count(const struct sac_plan *plan);
void sac_plan_step(const struct sac_plan *plan, int index, struct sac_plan_step *ret);
/* Enqueues one operation only, for timing it; nothing where it has no such way. */
int sac_plan_forward_step(struct sac_plan *plan, int index, struct sac_error *err);
int sac_plan_backward_step(struct sac_plan *plan, int index, struct sac_error *err);

#endif
