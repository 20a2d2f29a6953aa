/*
 * A plan while it is made, shared by the plan's own files and nobody else. Its
 * stages, in order: plan_forms.c (the graph and its forms), plan_memory.c (where
 * each value stands), plan.c (operations prepared over those addresses).
 */
#ifndef SAC_NET_PLAN_BUILD_H
#define SAC_NET_PLAN_BUILD_H

#include "net/memory_plan.h"
#include "net/plan.h"

struct sac_plan_build {
    struct sac_device *device;
    struct sac_graph *graph;
    const struct sac_plan_options *options;
    struct sac_arena *scratch; /* lives as long as the build */
    struct sac_op_caps *caps;  /* one a node, in the graph's order */

    size_t *value_offset;    /* one a value: in the plan's memory */
    size_t *saved_offset;    /* one a node; where its saved_bytes > 0 */
    size_t workspace_offset; /* shared by all nodes */
    size_t memory_bytes;     /* all of it */
};

/* Adds what the options ask for, simplifies, lets the device lower, and gives
 * every value a form; fills caps. */
int sac_plan_choose_forms(struct sac_plan_build *build, struct sac_error *err);

/* Gives every value that an input, output or node needs an offset. */
int sac_plan_lay_out(struct sac_plan_build *build, struct sac_error *err);

/* Plain and channels-last are the same order of elements: of a shape, and of a
 * value in two forms that differ in no more. */
bool sac_plan_order_is_free(const struct sac_shape *shape);
bool sac_plan_same_form(const struct sac_shape *shape, struct sac_form a, struct sac_form b);

/* The bytes of a value in its form; its size is known to fit after
 * sac_plan_lay_out. */
size_t sac_plan_value_bytes(const struct sac_graph *graph, int value);

#endif
