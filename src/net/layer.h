/*
 * What a layer type is to a net: how its message is read, how shapes follow, and
 * what it becomes in a graph. A type lives in one file under layers/ and has one
 * row in layer_table.c; nothing else knows it.
 *
 * Sentences of these functions name the field and what was expected; the net puts
 * the file and the layer before them.
 */
#ifndef SAC_NET_LAYER_H
#define SAC_NET_LAYER_H

#include "base/arena.h"
#include "base/error.h"
#include "device/graph.h"
#include "device/tensor.h"
#include "formats/caffe.h"
#include "net/fillers.h"
#include "net/net.h"

enum { SAC_LAYER_WEIGHTS_MAX = 4, SAC_ANY_COUNT = 1024 };

/* The most numbers a blob or a weight may have, as in Caffe. */
#define SAC_BLOB_COUNT_MAX INT64_C(0x7fffffff)

/* Numbers that one layer owns, or several share by ParamSpec's name. */
struct sac_param {
    struct sac_shape shape;
    int64_t count;
    float *data;              /* calloc'ed: pages that are never read or written cost nothing */
    const char *name;         /* "layer/0", of its first owner */
    int index;                /* among the net's */
    struct sac_filler filler; /* its first owner's */
    float lr_mult, decay_mult;
    bool has_lr_mult, has_decay_mult; /* some owner said so */
};

struct sac_layer {
    const struct sac_layer_type *type;
    const char *name;
    const char *key;   /* unique among the net's layers; constants are named after it */
    const void *state; /* the type's own, made by setup */
    int bottom_count, top_count;
    int *bottoms, *tops; /* value indices in the net */
    const char **top_names;
    int weight_count;
    struct sac_shape weight_shapes[SAC_LAYER_WEIGHTS_MAX];
    struct sac_param *weights[SAC_LAYER_WEIGHTS_MAX];
    struct sac_filler fillers[SAC_LAYER_WEIGHTS_MAX]; /* set by setup; zeros without type */
    const float *loss_weights;                        /* one a top; one for a loss without tops */
    const bool *cut; /* bottoms that no gradient goes to; NULL: none */
};

struct sac_layer_setup {
    const Caffe__LayerParameter *message; /* valid during setup only */
    const struct sac_net_options *options;
    struct sac_arena *arena;
};

struct sac_layer_shapes {
    const struct sac_shape *in;
    struct sac_shape *out; /* zeroed before the call */
    struct sac_shape weights[SAC_LAYER_WEIGHTS_MAX];
    int weight_count;
};

struct sac_emit {
    struct sac_graph *graph;
    const struct sac_layer *layer;
    const struct sac_shape *in, *out;
    const int *src; /* the bottoms' values in the graph */
    int *dst;       /* the tops', to be filled */
    int constants[SAC_LAYER_WEIGHTS_MAX];
};

struct sac_layer_type {
    const char *name; /* as in a prototxt */
    int bottom_min, bottom_max;
    int top_min, top_max;
    bool as_many_tops; /* as bottoms */
    bool feeds;        /* its tops are the net's inputs */
    bool labels;       /* and those after the first share its batch */
    bool judges;       /* a loss or an accuracy: in a graph only where that is wanted */
    bool loss;         /* its first top is a loss, of weight 1 unless told otherwise */
    bool statistics;   /* its weights are no solver's business */
    /* Reads and checks the message; NULL: nothing to read. */
    int (*setup)(struct sac_layer *layer, const struct sac_layer_setup *setup,
                 struct sac_error *err);
    /* Pure: tops' and weights' shapes from bottoms'. NULL: tops have the shape of
     * bottom 0. Dimensions and sizes of the result are checked by the net. */
    int (*shape)(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err);
    /* Adds the layer's operations and fills emit->dst (its first for a loss without
     * tops too). NULL: the net adds its inputs itself. */
    int (*emit)(struct sac_emit *emit, struct sac_error *err);
};

/* NULL when there is none. */
const struct sac_layer_type *sac_layer_type_find(const char *name);

/* Whether a layer's include and exclude rules let it into a net of that state. */
int sac_layer_included(const Caffe__LayerParameter *layer, const Caffe__NetState *state,
                       const struct sac_net_options *options, bool *ret, struct sac_error *err);

/* Zeroed memory for layer->state; NULL when memory is out, with the sentence. */
void *sac_layer_state_new(struct sac_layer *layer, const struct sac_layer_setup *setup, size_t size,
                          struct sac_error *err);
/* What weight `index` starts as in training; copies the message. */
int sac_layer_set_filler(struct sac_layer *layer, const struct sac_layer_setup *setup, int index,
                         const Caffe__FillerParameter *filler, struct sac_error *err);
/* -1 is the last axis, and so on. `limit`: the rank, or the rank + 1. */
int sac_layer_axis(int axis, int limit, int *ret, struct sac_error *err);
int sac_layer_expect_rank(const struct sac_shape *shape, int rank, struct sac_error *err);

/* A value for top `index`. -1 when memory is out. */
int sac_emit_top(struct sac_emit *emit, int index);
/* One node from bottom `index` to top `index`, with all weights. */
struct sac_node *sac_emit_pair(struct sac_emit *emit, enum sac_op_kind kind, int index,
                               struct sac_error *err);
/* One node from all bottoms to all tops, with all weights. */
struct sac_node *sac_emit_node(struct sac_emit *emit, enum sac_op_kind kind, struct sac_error *err);

#endif
