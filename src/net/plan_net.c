/* A plan of a net: its graph, then plan_graph.h. */
#include "net/plan.h"

#include <stdlib.h>

#include "net/plan_graph.h"

static int out_of_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory for the graph of a net");
}

/* The graph's outputs: the wanted ones, and behind them the net's last, which
 * top-k reads. `whole` is the net's graph with the outputs of its own. */
static int graph_with_wanted(const struct sac_net *net, const struct sac_plan_options *options,
                             const struct sac_graph *whole, struct sac_graph **ret,
                             struct sac_error *err)
{
    const char **names = calloc((size_t)options->wanted_count + 1, sizeof *names);

    if (!names)
        return out_of_memory(err);
    for (int i = 0; i < options->wanted_count; i++)
        names[i] = options->wanted[i];
    names[options->wanted_count] = whole->values[whole->outputs[whole->output_count - 1]].name;
    int rc = sac_net_graph(net, options->batch, names, options->wanted_count + 1, ret, err);
    free(names);
    return rc;
}

static int graph_for_topk(const struct sac_net *net, const struct sac_plan_options *options,
                          struct sac_graph **ret, struct sac_error *err)
{
    struct sac_graph *whole = NULL, *graph = NULL;
    int rc = sac_net_graph(net, options->batch, NULL, 0, &whole, err);

    if (rc == 0 && whole->output_count < 1)
        rc = sac_fail(err, SAC_EINVAL, "no output to take the top %d of", options->topk);
    if (rc == 0 && options->wanted_count > 0) {
        rc = graph_with_wanted(net, options, whole, &graph, err);
    } else if (rc == 0) {
        graph = whole;
        whole = NULL;
        int last = graph->outputs[graph->output_count - 1];
        if (sac_graph_set_outputs(graph, &last, 1) != 0)
            rc = out_of_memory(err);
    }
    if (rc == 0) {
        *ret = graph;
        graph = NULL;
    }
    sac_graph_free(graph);
    sac_graph_free(whole);
    return rc;
}

static const char *name_of(const struct sac_net *net)
{
    const char *name = sac_net_name(net);

    return name && name[0] ? name : "(no name)";
}

int sac_plan_new(struct sac_plan **ret, const struct sac_net *net, struct sac_device *device,
                 struct sac_store *store, struct sac_stream *stream,
                 const struct sac_plan_options *options, struct sac_error *err)
{
    struct sac_graph *graph = NULL;
    int rc;

    if (options->judged || options->ops.training)
        rc = sac_net_judged_graph(net, options->batch, &graph, err);
    else if (options->topk > 0)
        rc = graph_for_topk(net, options, &graph, err);
    else
        rc =
            sac_net_graph(net, options->batch, options->wanted, options->wanted_count, &graph, err);
    if (rc != 0) {
        sac_error_prefix(err, "net %s", name_of(net));
        return rc;
    }
    return sac_plan_from_graph(ret, graph, name_of(net), device, store, stream, options, err);
}
