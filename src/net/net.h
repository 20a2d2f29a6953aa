/*
 * A Caffe net: layers, blobs, shapes and weights, from prototxt and caffemodel.
 *
 * Loading follows Caffe's rules: layers filtered by phase, level and stage, blobs
 * matched by name, in-place tops, weights copied by layer name. Shapes are known
 * after loading and change only with sac_net_reshape. The net owns its weights
 * (fp32, plain). One thread while it changes; any thread afterwards.
 */
#ifndef SAC_NET_NET_H
#define SAC_NET_NET_H

#include "base/error.h"
#include "device/graph.h"
#include "device/tensor.h"

enum sac_phase { SAC_PHASE_TRAIN, SAC_PHASE_TEST };

struct sac_net;
struct sac_layer;

/* A shape for one input. */
struct sac_net_input {
    const char *name;
    struct sac_shape shape;
};

/* All borrowed during the call. */
struct sac_net_options {
    enum sac_phase phase;
    int level;
    const char *const *stages;
    int stage_count;
    /* Inputs whose shape the prototxt does not tell (a data layer over a database),
     * or tells otherwise. */
    const struct sac_net_input *inputs;
    int input_count;
};

/* A net for which no weights were loaded has weights of zero. */
int sac_net_load(struct sac_net **ret, const char *path, const struct sac_net_options *options,
                 struct sac_error *err);
int sac_net_parse(struct sac_net **ret, const char *name, const void *bytes, size_t size,
                  const struct sac_net_options *options, struct sac_error *err);
void sac_net_free(struct sac_net *net); /* takes NULL */

/* What loading weights did, layer by layer. */
struct sac_weights_report {
    int layers_copied;  /* layers of the net that got their weights */
    int layers_missing; /* layers with weights that the file does not have */
    int layers_ignored; /* layers of the file that the net does not have */
    char first_missing[128];
};

/* Copies weights by layer name, from a caffemodel in either form. A wrong blob count or shape is an
 * error that names the layer and both shapes (legacy 4-axis shapes with leading ones are equal to
 * shorter ones, as in Caffe). May be called for several files. */
int sac_net_load_weights(struct sac_net *net, const char *path, struct sac_weights_report *report,
                         struct sac_error *err);

const char *sac_net_name(const struct sac_net *net);
int sac_net_input_count(const struct sac_net *net);
const char *sac_net_input_name(const struct sac_net *net, int index);
int sac_net_output_count(const struct sac_net *net); /* tops that no layer takes, inputs aside */
const char *sac_net_output_name(const struct sac_net *net, int index);
/* The shape of the blob as the last layer that writes it leaves it; false when
 * there is no such blob. */
bool sac_net_blob_shape(const struct sac_net *net, const char *blob, struct sac_shape *ret);
/* What the last convolution or inner product takes: the blob that describes an input
 * best before it is put into classes. NULL: there is none. */
const char *sac_net_last_features(const struct sac_net *net);
int64_t sac_net_weight_count(const struct sac_net *net); /* numbers, all layers */

int sac_net_layer_count(const struct sac_net *net);
const struct sac_layer *sac_net_layer(const struct sac_net *net, int index);
const char *sac_layer_name(const struct sac_layer *layer);
const char *sac_layer_type_name(const struct sac_layer *layer);
int sac_layer_weight_count(const struct sac_layer *layer);
/* fp32, plain; borrowed from the net. */
const float *sac_layer_weight(const struct sac_layer *layer, int index, struct sac_shape *ret);

/* What a solver updates, in Caffe's order; shared ones once. */
struct sac_net_param {
    const char *name; /* "conv1/0", of its first owner */
    struct sac_shape shape;
    int64_t count;
    float *data;               /* fp32, plain; the net's own */
    float lr_mult, decay_mult; /* 0 and 0 for BatchNorm's statistics */
};
int sac_net_param_count(const struct sac_net *net);
void sac_net_param(const struct sac_net *net, int index, struct sac_net_param *ret);

/* Fills all weights as their layers' fillers say, from the seed: training starts so. */
int sac_net_fill(struct sac_net *net, uint64_t seed, struct sac_error *err);

/* Gives input `index` a new shape and infers all others again; on failure the
 * net keeps its old shapes. */
int sac_net_reshape(struct sac_net *net, int index, const struct sac_shape *shape,
                    struct sac_error *err);

/* The net as a graph, with axis 0 of every input set to `batch` (0: as it is).
 * The graph borrows the net's weights. `wanted`: blob names that become the
 * outputs, in this order; none: the net's outputs, with what losses and accuracies
 * take in their place. Layers that no output
 * needs are left out; inputs all stay. The net itself does not change; any
 * thread. */
int sac_net_graph(const struct sac_net *net, int batch, const char *const *wanted, int wanted_count,
                  struct sac_graph **ret, struct sac_error *err);

/* The same with losses and accuracies: what has a loss weight is among the graph's losses.
 * `wanted` NULL: the net's outputs are the graph's. For training and tests. */
int sac_net_judged_graph(const struct sac_net *net, int batch, const char *const *wanted,
                         int wanted_count, struct sac_graph **ret, struct sac_error *err);

#endif
