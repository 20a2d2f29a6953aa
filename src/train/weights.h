/*
 * A net's weights as files see them, without the net: layers by name, each with
 * its blobs. The trainer fills a view from its net (sac_net_layer,
 * sac_layer_weight); saving reads it, loading writes where it points. Any thread.
 */
#ifndef SAC_TRAIN_WEIGHTS_H
#define SAC_TRAIN_WEIGHTS_H

#include <stdbool.h>

#include "base/error.h"
#include "device/tensor.h"
#include "formats/caffe.h"

/* Floats somewhere, row-major. */
struct sac_blob_view {
    struct sac_shape shape;
    float *data;
};

/* All borrowed. */
struct sac_weights_layer {
    const char *name;
    const char *type;
    /* Written whole into a caffemodel, but for its blobs; NULL: name and type alone. */
    const Caffe__LayerParameter *message;
    int blob_count; /* may be 0 */
    struct sac_blob_view *blobs;
};

struct sac_weights_view {
    const char *name; /* of the net */
    int layer_count;
    struct sac_weights_layer *layers;
};

/* What loading did. The names are the first ones, ", " between them. */
enum { SAC_WEIGHTS_NAMES = 160 };
struct sac_weights_loaded {
    int copied;  /* layers of the view that got their blobs */
    int missing; /* layers of the view with blobs that the file does not have */
    int ignored; /* layers of the file with blobs that the view does not have */
    char missing_names[SAC_WEIGHTS_NAMES], ignored_names[SAC_WEIGHTS_NAMES];
};

/* Copies blobs by layer name from a caffemodel, binary or HDF5, whichever the
 * file is. A blob count or shape that does not fit is SAC_EFORMAT; some layers may
 * have been copied by then. `report` may be NULL. */
int sac_weights_load(const struct sac_weights_view *to, const char *path,
                     struct sac_weights_loaded *report, struct sac_error *err);

#endif
