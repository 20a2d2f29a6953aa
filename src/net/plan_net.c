/* A plan of a net: its graph, then plan_graph.h. */
#include "net/plan.h"

#include <stdlib.h>

#include "net/plan_graph.h"

/* With topk the net's last output is asked for by name, behind the wanted ones:
 * the graph's last output is what top-k reads. */
static const char **names_with_last(const struct sac_net *net,
                                    const struct sac_plan_options *options)
{
    const char **names = calloc((size_t)options->wanted_count + 1, sizeof *names);

    for (int i = 0; names && i < options->wanted_count; i++)
        names[i] = options->wanted[i];
    if (names)
        names[options->wanted_count] = sac_net_output_name(net, sac_net_output_count(net) - 1);
    return names;
}

static int graph_of(const struct sac_net *net, const struct sac_plan_options *options,
                    struct sac_graph **ret, struct sac_error *err)
{
    if (options->topk <= 0)
        return sac_net_graph(net, options->batch, options->wanted, options->wanted_count, ret, err);
    if (sac_net_output_count(net) < 1)
        return sac_fail(err, SAC_EINVAL, "net %s: it has no output to take the top %d of",
                        sac_net_name(net), options->topk);
    const char **names = names_with_last(net, options);
    if (!names)
        return sac_fail(err, SAC_ENOMEM, "net %s: out of memory for its plan", sac_net_name(net));
    int rc = sac_net_graph(net, options->batch, names, options->wanted_count + 1, ret, err);
    free(names);
    return rc;
}

int sac_plan_new(struct sac_plan **ret, const struct sac_net *net, struct sac_device *device,
                 struct sac_store *store, struct sac_stream *stream,
                 const struct sac_plan_options *options, struct sac_error *err)
{
    struct sac_graph *graph = NULL;
    int rc = graph_of(net, options, &graph, err);

    return rc != 0 ? rc
                   : sac_plan_from_graph(ret, graph, sac_net_name(net), device, store, stream,
                                         options, err);
}
