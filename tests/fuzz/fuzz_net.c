/* Any bytes as a net, for testing and for training: layers set up, shapes
 * inferred, the graph made. What is refused must say why. */
#include <assert.h>

#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void try_phase(enum sac_phase phase, const uint8_t *bytes, size_t size)
{
    struct sac_net_options options = {.phase = phase};
    struct sac_error err = {0}, graph_err = {0};
    struct sac_graph *graph = NULL;
    struct sac_net *net = NULL;
    int rc = sac_net_parse(&net, "fuzz", bytes, size, &options, &err);

    assert(rc == err.code && (rc == 0 || err.text[0]));
    if (rc != 0)
        return;
    rc = sac_net_graph(net, 2, NULL, 0, &graph, &graph_err);
    assert(rc == graph_err.code && (rc == 0 || graph_err.text[0]));
    if (rc == 0)
        sac_graph_free(graph);
    sac_net_free(net);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    try_phase(SAC_PHASE_TEST, bytes, size);
    try_phase(SAC_PHASE_TRAIN, bytes, size);
    return 0;
}
