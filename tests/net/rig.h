/* Plans of hand-made graphs on the CPU device. */
#ifndef SAC_TESTS_NET_RIG_H
#define SAC_TESTS_NET_RIG_H

#include "net/make_graph.h"
#include "net/plan_graph.h"

struct rig {
    struct sac_device *device;
    struct sac_store *store;
    struct sac_stream *stream;
};

struct rig rig_open(void);
void rig_close(struct rig *rig);
/* Takes the graph. */
struct sac_plan *rig_plan(struct rig *rig, struct sac_graph *graph,
                          const struct sac_plan_options *options);
/* Fills each fp32 input by make_floats with `seed` and its index, and runs. */
void rig_run(struct rig *rig, struct sac_plan *plan, uint64_t seed);
void rig_forward(struct rig *rig, struct sac_plan *plan);
const float *rig_output(const struct sac_plan *plan, int index, int64_t *ret_count);

#endif
