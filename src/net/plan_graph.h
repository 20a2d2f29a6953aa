/*
 * A plan of any graph, without a net: what sac_plan_new does after the net has
 * given its graph. For the op cases and tests, which build graphs by hand. The
 * threads are sac_plan_new's.
 */
#ifndef SAC_NET_PLAN_GRAPH_H
#define SAC_NET_PLAN_GRAPH_H

#include "net/plan.h"

/*
 * `name` is the net's, for sentences and the report. Takes the graph, on failure
 * too; what it borrows (constants, pointers in parameters) need not outlive the
 * call. Of the options, batch and wanted are the net's business and ignored here;
 * with topk, the graph's last output becomes its k largest and comes first.
 */
int sac_plan_from_graph(struct sac_plan **ret, struct sac_graph *graph, const char *name,
                        struct sac_device *device, struct sac_store *store,
                        struct sac_stream *stream, const struct sac_plan_options *options,
                        struct sac_error *err);

#endif
