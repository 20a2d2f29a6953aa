#include "train/split_loss.h"

#include <string.h>

#define MODE(name) CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__##name

static bool is(const Caffe__LayerParameter *layer, const char *type)
{
    return layer->type && strcmp(layer->type, type) == 0;
}

static bool is_loss(const Caffe__LayerParameter *layer)
{
    return is(layer, "SoftmaxWithLoss") || is(layer, "SigmoidCrossEntropyLoss") ||
           is(layer, "EuclideanLoss");
}

/* EuclideanLoss has items for its divisor, whatever is said. */
static bool has_mode(const Caffe__LayerParameter *layer)
{
    return is(layer, "SoftmaxWithLoss") || is(layer, "SigmoidCrossEntropyLoss");
}

/* As src/net/layers/loss.c reads it. */
static bool is_valid_mode(const Caffe__LayerParameter *layer)
{
    const Caffe__LossParameter *p = layer->loss_param;

    if (p && p->has_normalization)
        return p->normalization == MODE(VALID);
    if (p && p->has_normalize)
        return p->normalize;
    return is(layer, "SoftmaxWithLoss");
}

static bool is_sum(const Caffe__LayerParameter *layer)
{
    const Caffe__LossParameter *p = layer->loss_param;

    return has_mode(layer) && p && p->has_normalization && p->normalization == MODE(NONE);
}

static float weight_of(const Caffe__LayerParameter *layer, size_t top)
{
    if (top < layer->n_loss_weight)
        return layer->loss_weight[top];
    return layer->n_loss_weight == 0 && top == 0 && is_loss(layer) ? 1 : 0;
}

static bool is_uneven(const Caffe__LayerParameter *layer)
{
    return has_mode(layer) && is_valid_mode(layer) && layer->loss_param &&
           layer->loss_param->has_ignore_label && weight_of(layer, 0) != 0;
}

const Caffe__LayerParameter *sac_split_find_uneven(const Caffe__LayerParameter *const *layers,
                                                   int count)
{
    for (int i = 0; i < count; i++)
        if (is_uneven(layers[i]))
            return layers[i];
    return NULL;
}

/* Further tops of a loss, and those of other layers, are summed over items. */
static int weigh(Caffe__LayerParameter *layer, int ranks, struct sac_arena *arena,
                 struct sac_error *err)
{
    size_t tops = layer->n_top > 0 ? layer->n_top : 1;
    float *weights = sac_arena_zalloc(arena, tops, sizeof *weights);
    bool changed = false;

    if (!weights)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (size_t i = 0; i < tops; i++) {
        bool sum = i > 0 || !is_loss(layer) || is_sum(layer);
        weights[i] = weight_of(layer, i) * (sum ? (float)ranks : 1);
        changed |= weights[i] != weight_of(layer, i);
    }
    if (!changed)
        return 0;
    layer->loss_weight = weights;
    layer->n_loss_weight = tops;
    return 0;
}

int sac_split_loss(Caffe__LayerParameter *layer, int ranks, struct sac_arena *arena,
                   struct sac_error *err)
{
    if (is_uneven(layer))
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "layer \"%.64s\": its loss is divided by how many labels are not %d, which "
                        "is another number on each of %d ranks that split a batch; expected "
                        "--batch-rule per-gpu, or a normalization of BATCH_SIZE, FULL or NONE",
                        layer->name, layer->loss_param->ignore_label, ranks);
    if (layer->n_loss_weight > (layer->n_top > 0 ? layer->n_top : 1))
        return 0; /* refused later, by its name */
    return weigh(layer, ranks, arena, err);
}
