/*
 * Pictures of three channels for tensor cores, which count channels in fours and eights:
 * the pixels' operation writes channels of zeros beside them, and the convolution that
 * reads them has filters of zeros for those. How many is measured.
 */
#include <stdio.h>
#include <string.h>

#include "device/cuda/algorithms.h"
#include "device/cuda/conv.h"
#include "device/cuda/tune.h"
#include "device/cuda/widen.h"

enum { THREE = 3 };

/* The convolution that alone reads the pixels; NULL: none. */
static struct sac_node *only_reader(struct sac_graph *graph, int value)
{
    struct sac_node *found = NULL;

    if (sac_graph_use_count(graph, value) != 1)
        return NULL;
    for (int i = 0; i < graph->node_count; i++)
        if (graph->nodes[i].kind == SAC_OP_CONV && graph->nodes[i].src[0] == value)
            found = &graph->nodes[i];
    return found && found->param.conv.group == 1 ? found : NULL;
}

/* The filter [out, 3, kh, kw] with `width` channels; below 0: no memory. */
static int widened(struct sac_graph *graph, int filter, int64_t width)
{
    const struct sac_constant from = graph->constants[filter];
    struct sac_shape shape = from.shape;
    int64_t taps = shape.dim[2] * shape.dim[3];
    char name[256];

    shape.dim[1] = width;
    float *data = sac_arena_zalloc(graph->arena, (size_t)sac_shape_count(&shape), sizeof *data);
    snprintf(name, sizeof name, "%s (%d channels)", from.name, (int)width);
    if (!data)
        return -1;
    for (int64_t o = 0; o < shape.dim[0]; o++)
        memcpy(data + o * width * taps, from.data + o * THREE * taps,
               (size_t)(THREE * taps) * sizeof *data);
    return sac_graph_add_constant(graph, name, &shape, data);
}

/* The convolution as it would be: for timing, and then for good. */
static int set_width(struct sac_graph *graph, struct sac_node *conv, int filter, int64_t width)
{
    int constant = width == THREE ? filter : widened(graph, filter, width);

    if (constant < 0)
        return SAC_ENOMEM;
    conv->weight[0] = constant;
    graph->values[conv->src[0]].shape.dim[1] = width;
    return 0;
}

static int64_t fastest(const struct sac_cuda_ask *ask, struct sac_graph *graph,
                       struct sac_node *conv, int filter)
{
    static const int64_t widths[] = {THREE, 4, 8};
    int64_t best = THREE;
    float least = -1;

    for (int i = 0; i < 3; i++) {
        if (set_width(graph, conv, filter, widths[i]) != 0)
            continue;
        float ms = sac_cuda_conv_ms(ask);
        if (ms < 0 || (least >= 0 && ms >= least))
            continue;
        least = ms;
        best = widths[i];
    }
    return best;
}

static int64_t choose_width(const struct sac_cuda_ask *ask, struct sac_graph *graph,
                            struct sac_node *conv, int filter)
{
    struct sac_algorithms *algorithms = ask->device->algorithms;
    struct sac_algorithm width = {.algorithm = 4};
    char conv_text[160], question[192];

    if (!sac_cuda_may_measure() || ask->options->sketch)
        return width.algorithm;
    sac_cuda_conv_question(ask, conv_text, sizeof conv_text);
    snprintf(question, sizeof question, "width %s", conv_text);
    if (sac_algorithms_find(algorithms, question, &width) &&
        (width.algorithm == THREE || width.algorithm == 4 || width.algorithm == 8))
        return width.algorithm;
    width = (struct sac_algorithm){.algorithm = (int)fastest(ask, graph, conv, filter)};
    sac_algorithms_add(algorithms, question, true, &width);
    return width.algorithm;
}

int sac_cuda_widen_pixels(struct sac_cuda_device *device, struct sac_graph *graph,
                          const struct sac_op_options *options, struct sac_error *err)
{
    for (int i = 0; i < graph->node_count; i++) {
        const struct sac_node *pixels = &graph->nodes[i];
        if (pixels->kind != SAC_OP_PIXELS || graph->values[pixels->dst[0]].shape.dim[1] != THREE)
            continue;
        struct sac_node *conv = only_reader(graph, pixels->dst[0]);
        struct sac_cuda_ask ask = {device, graph, conv, options, SAC_F16};
        if (!conv)
            continue;
        ask.type = options->precision == SAC_PRECISION_BF16 ? SAC_BF16 : SAC_F16;
        int filter = conv->weight[0];
        if (set_width(graph, conv, filter, choose_width(&ask, graph, conv, filter)) != 0)
            return sac_fail(err, SAC_ENOMEM, "out of memory for a filter");
    }
    return 0;
}
