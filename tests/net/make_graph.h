/* Small graphs by hand, with weights that are the same on every run. */
#ifndef SAC_TESTS_NET_MAKE_GRAPH_H
#define SAC_TESTS_NET_MAKE_GRAPH_H

#include "device/graph.h"

struct sac_shape make_shape(int rank, ...); /* that many ints */
/* Numbers in [-1, 1), by a fixed generator. */
void make_floats(float *out, int64_t count, uint64_t seed);

struct sac_graph *make_graph(void);
int make_input(struct sac_graph *graph, const char *name, struct sac_shape shape);
/* Appends a node; returns its (only) result. make_last() is the node. */
int make_op(struct sac_graph *graph, enum sac_op_kind kind, const char *name,
            struct sac_shape shape, int src_count, ...);
struct sac_node *make_last(struct sac_graph *graph);
/* Gives the last node a weight: of its next index, named "<node>/<index>", filled
 * by make_floats times `scale` plus `shift`. The numbers may be changed. */
float *make_weight(struct sac_graph *graph, struct sac_shape shape, uint64_t seed, float scale,
                   float shift);
void make_outputs(struct sac_graph *graph, int count, ...);

/* Square windows; a bias unless bias is false. The shapes follow from the source. */
int make_conv(struct sac_graph *graph, const char *name, int src, int outputs, int kernel,
              int stride, int pad, int group, bool bias);
int make_inner(struct sac_graph *graph, const char *name, int src, int outputs);
int make_pool(struct sac_graph *graph, const char *name, int src, enum sac_pool_method method,
              int kernel, int stride);
int make_relu(struct sac_graph *graph, const char *name, int src);
int make_softmax(struct sac_graph *graph, const char *name, int src);
int make_sum(struct sac_graph *graph, const char *name, int a, int b);
int make_concat(struct sac_graph *graph, const char *name, int a, int b);
int make_batchnorm(struct sac_graph *graph, const char *name, int src, float factor, float eps);
int make_scale(struct sac_graph *graph, const char *name, int src, bool bias);

#endif
