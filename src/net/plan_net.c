/* A plan of a net: its graph, then plan_graph.h. */
#include "net/plan.h"

#include <stdlib.h>

#include "net/plan_build.h"
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

static int make_graph(const struct sac_net *net, const struct sac_plan_options *options,
                      struct sac_graph **ret, struct sac_error *err)
{
    if (options->judged || options->ops.training)
        return sac_net_judged_graph(net, options->batch, options->wanted, options->wanted_count,
                                    ret, err);
    if (options->topk > 0)
        return graph_for_topk(net, options, ret, err);
    return sac_net_graph(net, options->batch, options->wanted, options->wanted_count, ret, err);
}

/* The net's graph for a slice of its batch, where that is best; else it stays. Returns
 * how many slices the batch then has. */
static int slice_graph(const struct sac_net *net, const struct sac_device *device,
                       const struct sac_plan_options *options, struct sac_graph **graph)
{
    int slice = sac_plan_slice_of(*graph, device, options);
    struct sac_plan_options part = *options;
    struct sac_graph *small = NULL;
    int batch =
        (*graph)->input_count > 0 ? (int)(*graph)->values[(*graph)->inputs[0]].shape.dim[0] : slice;

    part.batch = slice;
    if (slice == batch || make_graph(net, &part, &small, NULL) != 0)
        return 1;
    if (!sac_plan_can_slice(small, slice)) { /* some shape does not follow the batch */
        sac_graph_free(small);
        return 1;
    }
    sac_graph_free(*graph);
    *graph = small;
    return batch / slice;
}

int sac_plan_new(struct sac_plan **ret, const struct sac_net *net, struct sac_device *device,
                 struct sac_store *store, struct sac_stream *stream,
                 const struct sac_plan_options *options, struct sac_error *err)
{
    struct sac_graph *graph = NULL;
    struct sac_plan *plan = NULL;
    int rc = make_graph(net, options, &graph, err);

    if (rc != 0) {
        sac_error_prefix(err, "net %s", name_of(net));
        return rc;
    }
    int slices = slice_graph(net, device, options, &graph);
    rc = sac_plan_from_graph(&plan, graph, name_of(net), device, store, stream, options, err);
    if (rc == 0 && slices > 1)
        rc = sac_plan_repeat(plan, slices, err);
    if (rc == 0) {
        *ret = plan;
        plan = NULL;
    }
    sac_plan_free(plan);
    return rc;
}

static int needs_of_graph(struct sac_plan_needs *ret, struct sac_plan_build *build,
                          struct sac_error *err)
{
    int rc = build->scratch ? sac_plan_choose_forms(build, err) : out_of_memory(err);

    if (rc == 0)
        rc = sac_plan_lay_out(build, err);
    if (rc != 0)
        return rc;
    *ret = (struct sac_plan_needs){.memory_bytes = build->memory_bytes};
    for (int t = 0; t < build->graph->node_count; t++)
        ret->weight_bytes +=
            sac_plan_weight_bytes(build->graph, &build->graph->nodes[t], &build->caps[t]);
    return 0;
}

int sac_plan_estimate(struct sac_plan_needs *ret, const struct sac_net *net,
                      struct sac_device *device, const struct sac_plan_options *options,
                      struct sac_error *err)
{
    struct sac_plan_options sketch = *options;
    struct sac_plan_build build = {.device = device, .options = &sketch};
    int rc = make_graph(net, options, &build.graph, err);

    sketch.ops.sketch = true;
    sketch.ops.masters = options->weights != NULL;
    if (rc == 0) {
        slice_graph(net, device, options, &build.graph);
        build.scratch = sac_arena_new(0);
        rc = needs_of_graph(ret, &build, err);
    }
    if (rc != 0)
        sac_error_prefix(err, "net %s", name_of(net));
    sac_arena_free(build.scratch);
    sac_graph_free(build.graph);
    return rc;
}
