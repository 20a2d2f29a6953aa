/* What the files of a net share: net.c builds it, shapes.c infers, weights.c loads,
 * emit.c makes graphs. */
#ifndef SAC_NET_PRIVATE_H
#define SAC_NET_PRIVATE_H

#include "net/layer.h"
#include "net/names.h"

enum { SAC_NET_LAYERS_MAX = 16384, SAC_NET_VALUES_MAX = 65536 };

/* All weights of a net together, in numbers: 16 GiB. */
#define SAC_NET_WEIGHTS_MAX (INT64_C(4) << 30)

/* A blob as one layer writes it; an in-place layer writes a new one of that name. */
struct sac_net_value {
    const char *name;
    int layer; /* that writes it */
    bool used; /* some layer takes it */
};

struct sac_net {
    struct sac_arena *arena; /* of everything but the tables and the numbers */
    const char *name;
    struct sac_layer *layers;
    struct sac_net_value *values;
    struct sac_shape *shapes; /* one a value */
    struct sac_param **params;
    int *inputs, *outputs; /* values */
    int layer_count, value_count, param_count, input_count, output_count;
    int bottoms_most, tops_most; /* of one layer */
    int64_t weight_count;
    struct sac_names blobs;       /* name → the value that holds it last */
    struct sac_names layer_names; /* name → the first layer of that name */
};

/* Infers every value's shape into `shapes`. Inputs take theirs from `inputs` (one an
 * input), or from their layers when it is NULL. Weights' shapes are checked against
 * the net's, or set when `weights` is not NULL: SAC_LAYER_WEIGHTS_MAX a layer. */
struct sac_weight_shapes {
    struct sac_shape shape[SAC_LAYER_WEIGHTS_MAX];
    int count;
};
int sac_net_infer(const struct sac_net *net, const struct sac_shape *inputs,
                  struct sac_shape *shapes, struct sac_weight_shapes *weights,
                  struct sac_error *err);

/* Copies the message's blobs into the net by layer name. */
int sac_net_copy_weights(struct sac_net *net, const Caffe__NetParameter *message,
                         struct sac_weights_report *report, struct sac_error *err);

/* Puts `layer "name" (Type)` before the sentence; returns rc. */
int sac_layer_blame(const struct sac_layer *layer, int rc, struct sac_error *err);

#endif
