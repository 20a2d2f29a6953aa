/*
 * From a net as it trains to the net that is served: an Input layer instead of the
 * data layer, without labels, accuracies, and heads that only helped in training; the
 * last loss becomes what its scores mean (a softmax's, Softmax; a sigmoid's, Sigmoid).
 * Any thread.
 */
#ifndef SAC_TRAIN_DEPLOY_H
#define SAC_TRAIN_DEPLOY_H

#include "base/error.h"
#include "formats/caffe.h"

/* All borrowed. */
struct sac_deploy_source {
    const char *name;                           /* of the net; NULL: none */
    const Caffe__LayerParameter *const *layers; /* those of one phase, in order */
    int layer_count;
    const Caffe__LayerParameter *input; /* the one of them that feeds it */
    const int *shape;                   /* channels, height, width of an item */
};

/* The result shares texts and messages with the source and goes before it; free it with
 * sac_caffe_net_done(). SAC_EUNSUPPORTED for a net that such a net cannot be made of. */
int sac_deploy_make(struct sac_caffe_net *ret, const struct sac_deploy_source *source,
                    struct sac_error *err);

#endif
