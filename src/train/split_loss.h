/*
 * Losses of a batch that ranks split. Each rank divides a loss by its own items, and
 * gradients are averaged over ranks: that is the loss of the whole batch where the divisor
 * is a number of items. What is a sum over items (normalization NONE, a loss_weight on what
 * is no loss) is averaged too, and has to weigh as many times more as there are ranks. What
 * is divided by how many labels count (VALID with an ignore_label) differs from rank to
 * rank, and the mean of such is another number.
 */
#ifndef SAC_TRAIN_SPLIT_LOSS_H
#define SAC_TRAIN_SPLIT_LOSS_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/error.h"
#include "formats/caffe.h"

/* A layer's loss weights by which `ranks` that split a batch have the gradient of one with
 * all of it, in the message; what is new there is the arena's. SAC_EUNSUPPORTED where there
 * are none. */
int sac_split_loss(Caffe__LayerParameter *layer, int ranks, struct sac_arena *arena,
                   struct sac_error *err);
/* A loss whose divisor is how many labels count; NULL: there is none. */
const Caffe__LayerParameter *sac_split_find_uneven(const Caffe__LayerParameter *const *layers,
                                                   int count);

#endif
