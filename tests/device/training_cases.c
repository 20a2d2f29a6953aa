#include "device/training_cases.h"

bool sac_training_goes_back(const struct sac_op_case *what)
{
    return what->kind != SAC_OP_PIXELS && what->kind != SAC_OP_TOPK &&
           what->kind != SAC_OP_AFFINE && what->kind != SAC_OP_ACCURACY;
}

bool sac_training_has_kinks(const struct sac_op_case *what)
{
    switch ((int)what->kind) {
    case SAC_OP_RELU:
    case SAC_OP_PRELU:
    case SAC_OP_ELU:
        return true;
    case SAC_OP_POOL:
        return what->param.pool.method == SAC_POOL_MAX;
    case SAC_OP_ELTWISE:
        return what->param.eltwise.method == SAC_ELTWISE_MAX;
    case SAC_OP_BATCHNORM:
        return what->relu;
    default:
        return false;
    }
}

struct sac_op_case sac_training_case(const struct sac_op_case *from)
{
    struct sac_op_case what = *from;

    what.sum = what.relu = false; /* fused only for inference */
    what.spread = sac_training_has_kinks(from);
    return what;
}

/* Training's own: losses, and what differs from the test phase. */
struct sac_op_case sac_training_loss(const char *name, enum sac_op_kind kind,
                                     struct sac_shape scores, struct sac_shape labels)
{
    struct sac_op_case what = {.name = name, .kind = kind, .src_count = 2, .dst_count = 1};

    what.src[0] = scores;
    what.src[1] = labels;
    what.param.loss.axis = 1;
    what.param.loss.norm = SAC_LOSS_VALID;
    what.labels = kind == SAC_OP_EUCLIDEAN_LOSS ? 0
                  : kind == SAC_OP_SIGMOID_LOSS ? 2
                                                : (int)scores.dim[1];
    return what;
}

/* A batch norm with what stands behind it, as a device fuses them. */
struct sac_op_case sac_training_norm(const char *name, struct sac_shape shape, int weights,
                                     bool relu, bool stored)
{
    struct sac_op_case what = {
        .name = name, .kind = SAC_OP_BATCHNORM, .src_count = 1, .dst_count = 1};

    what.src[0] = what.dst[0] = shape;
    what.weight_count = weights;
    for (int i = 0; i < weights; i++)
        what.weight[i] = (struct sac_shape){1, {i == 2 ? 1 : shape.dim[1]}};
    what.param.batchnorm.fraction = .999f;
    what.param.batchnorm.eps = 1e-5f;
    what.param.batchnorm.global_stats = stored;
    what.relu = relu;
    what.slope = relu ? .25f : 0;
    what.spread = relu;
    return what;
}

int sac_training_own_cases(struct sac_op_case *list)
{
    const struct sac_shape scores = {2, {0, 10}}, labels = {1, {0}};
    const struct sac_shape few = {4, {0, 3, 1, 3}}, wide = {4, {0, 83, 2, 3}};
    const struct sac_shape rows = {4, {0, 16, 14, 21}}; /* in eights, and in parts */
    const struct sac_shape maps = {4, {0, 5, 3, 2}}, map_labels = {3, {0, 3, 2}};
    const enum sac_op_kind softmax = SAC_OP_SOFTMAX_LOSS;
    int n = 0;

    list[n++] = sac_training_loss("softmax loss", softmax, scores, labels);
    list[n++] = sac_training_loss("softmax loss of maps", softmax, maps, map_labels);
    list[n] = sac_training_loss("softmax loss that ignores a label", softmax, maps, map_labels);
    list[n].param.loss.ignores = true;
    list[n++].param.loss.ignored = 2;
    list[n] = sac_training_loss("softmax loss over all places", softmax, maps, map_labels);
    list[n].param.loss.ignores = true;
    list[n++].param.loss.norm = SAC_LOSS_FULL;
    list[n] = sac_training_loss("softmax loss over the batch", softmax, maps, map_labels);
    list[n++].param.loss.norm = SAC_LOSS_BATCH_SIZE;
    list[n] = sac_training_loss("softmax loss as a sum", softmax, scores, labels);
    list[n++].param.loss.norm = SAC_LOSS_NONE;
    list[n] = sac_training_loss("softmax loss with smoothed labels", softmax, scores, labels);
    list[n++].param.loss.smoothing = .1f;
    list[n++] = sac_training_loss("Euclidean loss", SAC_OP_EUCLIDEAN_LOSS, maps, maps);
    list[n] = sac_training_loss("sigmoid loss", SAC_OP_SIGMOID_LOSS, scores, scores);
    list[n++].param.loss.norm = SAC_LOSS_BATCH_SIZE;
    list[n] =
        sac_training_loss("sigmoid loss that ignores a target", SAC_OP_SIGMOID_LOSS, maps, maps);
    list[n].param.loss.ignores = true;
    list[n++].param.loss.ignored = 1;
    list[n++] = sac_training_norm("batch norm of the batch", maps, 3, false, false);
    list[n++] = sac_training_norm("batch norm of rank 2", scores, 3, false, false);
    list[n++] = sac_training_norm("batch norm with its scale", maps, 4, false, false);
    list[n++] = sac_training_norm("batch norm with scale and bias", scores, 5, false, false);
    list[n++] = sac_training_norm("batch norm with scale, bias and ReLU", few, 5, true, false);
    list[n++] = sac_training_norm("batch norm of many channels", wide, 5, false, false);
    list[n++] = sac_training_norm("batch norm of many rows", rows, 5, false, false);
    list[n++] = sac_training_norm("stored batch norm with scale and bias", maps, 5, false, true);
    list[n++] = sac_training_norm("stored batch norm with ReLU", few, 3, true, true);
    list[n] = (struct sac_op_case){
        .name = "dropout in training", .kind = SAC_OP_DROPOUT, .src_count = 1, .dst_count = 1};
    list[n].src[0] = list[n].dst[0] = maps;
    list[n].param.dropout.ratio = .4f;
    list[n++].param.dropout.mask = true;
    list[n] = (struct sac_op_case){
        .name = "split in three", .kind = SAC_OP_SPLIT, .src_count = 1, .dst_count = 3};
    list[n].src[0] = list[n].dst[0] = list[n].dst[1] = list[n].dst[2] = maps;
    n++;
    list[n] = (struct sac_op_case){
        .name = "ReLU with a negative slope", .kind = SAC_OP_RELU, .src_count = 1, .dst_count = 1};
    list[n].src[0] = list[n].dst[0] = maps;
    list[n++].param.relu.slope = -.5f;
    return n;
}
