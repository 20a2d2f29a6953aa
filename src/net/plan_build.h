/*
 * A plan while it is made, shared by the plan's own files and nobody else. Its
 * stages, in order: plan_forms.c (the graph and its forms; plan_train.c: the gradients
 * that are wanted), plan_memory.c (where each value and gradient stands; plan_parts.c: what
 * stands in a concatenation's result from the start), plan.c (operations prepared over those
 * addresses).
 */
#ifndef SAC_NET_PLAN_BUILD_H
#define SAC_NET_PLAN_BUILD_H

#include "net/memory_plan.h"
#include "net/plan.h"

/* A value that is written where a concatenation's result has it. */
struct sac_plan_part {
    int whole;     /* that result; -1: the value has memory of its own */
    int64_t first; /* its first channel there */
};

struct sac_plan_build {
    struct sac_device *device;
    struct sac_graph *graph;
    const struct sac_plan_options *options;
    struct sac_arena *scratch; /* lives as long as the build */
    struct sac_op_caps *caps;  /* one a node, in the graph's order */

    int *seed;      /* training: one a loss: the value whose gradient it starts; -1: none */
    bool *has_grad; /* training: one a value; else NULL */

    struct sac_plan_part *part; /* one a value */
    size_t *value_offset;       /* one a value: in the plan's memory */
    size_t *grad_offset;        /* training: one a value; where has_grad */
    size_t *saved_offset;       /* one a node; where its saved_bytes > 0 */
    size_t workspace_offset;    /* shared by all nodes */
    size_t memory_bytes;        /* all of it */
};

/* Adds what the options ask for, simplifies, lets the device lower, and gives
 * every value a form; fills caps. */
int sac_plan_choose_forms(struct sac_plan_build *build, struct sac_error *err);

/* Training. Before forms are chosen: marks the gradients that are wanted, and splits
 * the values that get several. After: conversions pass gradients on. */
int sac_plan_find_gradients(struct sac_plan_build *build, struct sac_error *err);
int sac_plan_follow_conversions(struct sac_plan_build *build, struct sac_error *err);
/* Some gradient of the node is wanted. */
bool sac_plan_goes_back(const struct sac_node *node);

/* Gives every value that an input, output or node needs an offset. */
int sac_plan_lay_out(struct sac_plan_build *build, struct sac_error *err);

/* The bytes of a node's weights, packed in the type of what they meet. */
size_t sac_plan_weight_bytes(const struct sac_graph *graph, const struct sac_node *node,
                             const struct sac_op_caps *caps);
/* Finds the parts. */
int sac_plan_place_parts(struct sac_plan_build *build, struct sac_error *err);
/* From where the memory of a part's outermost whole starts; 0 of what is no part. */
size_t sac_plan_part_offset(const struct sac_plan_build *build, int value);
/* The strides of the value, which may be those of a larger one. */
void sac_plan_part_strides(const struct sac_plan_build *build, int value,
                           struct sac_tensor *tensor);
/* How many sources of a concatenation do not stand in its result yet. */
int sac_plan_copied_sources(const struct sac_plan_build *build, int index);

/* How many pictures of the graph's batch are best run at a time: all, or a divisor. */
int sac_plan_slice_of(const struct sac_graph *graph, const struct sac_device *device,
                      const struct sac_plan_options *options);
/* Each picture's results depend on that picture alone, which all values have on axis 0. */
bool sac_plan_can_slice(const struct sac_graph *graph, int batch);
/* Makes a plan that has not run yet one for `slices` times its batch. */
int sac_plan_repeat(struct sac_plan *plan, int slices, struct sac_error *err);

/* Plain and channels-last are the same order of elements: of a shape, and of a
 * value in two forms that differ in no more. */
bool sac_plan_order_is_free(const struct sac_shape *shape);
bool sac_plan_same_form(const struct sac_shape *shape, struct sac_form a, struct sac_form b);

/* The bytes of a value in its form; its size is known to fit after
 * sac_plan_lay_out. */
size_t sac_plan_value_bytes(const struct sac_graph *graph, int value);

#endif
