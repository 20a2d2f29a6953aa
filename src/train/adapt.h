/*
 * Fine-tuning's part that knows nets: a deploy net becomes a training net for other
 * classes. (deploy.h goes the other way.)
 *
 * The last Convolution or InnerProduct gets as many outputs as there are classes, a
 * new name (weights load by name, so it starts afresh) and a larger rate; of those
 * before it the first `frozen` keep their weights, and the others learn at
 * `early_mult`. Rates and decays are the usual pair: weights 1 and 1, biases 2 and 0.
 * BatchNorm before the frozen line keeps its stored statistics; Scale, Bias and PReLU
 * go with the layer that they follow. Layers that do not say how their weights start
 * get xavier fillers. Pure; any thread, an arena on one at a time.
 */
#ifndef SAC_TRAIN_ADAPT_H
#define SAC_TRAIN_ADAPT_H

#include "base/arena.h"
#include "base/error.h"
#include "formats/caffe.h"

struct sac_adapt_options {
    int classes;
    const char *suffix; /* behind the last layer's name */
    int frozen;
    float early_mult, last_mult;
    float smoothing; /* label smoothing of the loss; 0: none */
    /* What feeds the two phases: layers with tops "data" and "label"; borrowed by the
     * result. */
    Caffe__LayerParameter *train_data, *test_data;
};

struct sac_adapted {
    Caffe__NetParameter *train_val; /* in the arena; shares what the source holds */
    const char *last;               /* the new layer's name */
};

/* How many Convolutions and InnerProducts there are, the last one included. */
int sac_adapt_learnable(const Caffe__NetParameter *deploy);

/* `deploy`: an upgraded net with one Input; it must outlive the result. SAC_EINVAL where
 * there is no layer to replace, or something stands behind it that depends on the number
 * of classes; SAC_EUNSUPPORTED: several inputs. */
int sac_adapt(struct sac_adapted *ret, const Caffe__NetParameter *deploy,
              const struct sac_adapt_options *options, struct sac_arena *arena,
              struct sac_error *err);

#endif
