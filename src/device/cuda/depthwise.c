/*
 * A convolution of a channel a group: our kernel, or cuDNN's grouped one, whichever is
 * faster, which is measured once a shape.
 */
#include <stdio.h>

#include "device/cuda/algorithms.h"
#include "device/cuda/conv.h"
#include "device/cuda/tune.h"
#include "device/cuda/window.h"

struct trial {
    struct sac_kernel_window window;
    struct sac_cuda_device *device;
    const char *filter;
    const float *bias;
    bool relu;
    float slope;
};

static bool enqueue(void *user)
{
    const struct trial *t = user;

    return sac_kernel_depthwise(&t->window, t->filter, t->bias, t->relu, t->slope,
                                t->device->stream) == cudaSuccess;
}

static size_t padded_bytes(const struct sac_shape *shape, enum sac_type type)
{
    return (sac_tensor_bytes(shape, type) + 255) & ~(size_t)255;
}

static struct sac_kernel_window window_at(const struct sac_cuda_ask *ask, char *x, char *y)
{
    const struct sac_value *values = ask->graph->values;
    const struct sac_form form = {ask->type, SAC_CHANNELS_LAST};
    struct sac_tensor from = sac_tensor_of(&values[ask->node->src[0]].shape, form);
    struct sac_tensor to = sac_tensor_of(&values[ask->node->dst[0]].shape, form);

    from.data = x;
    to.data = y;
    return sac_cuda_window_of(&from, &to, &ask->node->param.conv.window);
}

/* Milliseconds of our kernel; below 0 where there is no room to try. */
static float own_ms(const struct sac_cuda_ask *ask)
{
    const struct sac_graph *graph = ask->graph;
    const struct sac_node *node = ask->node;
    const struct sac_shape *y = &graph->values[node->dst[0]].shape, bias = {1, {y->dim[1]}};
    size_t x_bytes = padded_bytes(&graph->values[node->src[0]].shape, ask->type);
    size_t y_bytes = padded_bytes(y, ask->type);
    size_t w_bytes = padded_bytes(&graph->constants[node->weight[0]].shape, ask->type);
    struct sac_cuda_device *device = ask->device;
    float ms = -1;

    pthread_mutex_lock(&device->lock);
    char *memory =
        sac_cuda_trial_memory(device, x_bytes + y_bytes + w_bytes + padded_bytes(&bias, SAC_F32));
    if (memory) {
        struct trial t = {
            .window = window_at(ask, memory, memory + x_bytes),
            .device = device,
            .filter = memory + x_bytes + y_bytes,
            .bias = node->weight_count > 1 ? (float *)(memory + x_bytes + y_bytes + w_bytes) : NULL,
            .relu = node->epilogue.relu,
            .slope = node->epilogue.slope,
        };
        ms = sac_cuda_time(device, enqueue, &t);
        sac_cuda_trial_free(device, memory);
    }
    pthread_mutex_unlock(&device->lock);
    return ms;
}

/* By running both. */
static bool is_faster(const struct sac_cuda_ask *ask)
{
    float own = own_ms(ask), cudnn = own >= 0 ? sac_cuda_conv_ms(ask) : -1;

    return cudnn < 0 || own <= cudnn;
}

bool sac_cuda_depthwise_wins(const struct sac_cuda_ask *ask)
{
    struct sac_algorithms *algorithms = ask->device->algorithms;
    struct sac_algorithm answer;
    char conv[160], question[192];

    /* Where the batch must not show, no library is asked. */
    if (ask->options->deterministic || !sac_cuda_may_measure_for(ask->options))
        return true;
    sac_cuda_conv_question(ask, conv, sizeof conv);
    snprintf(question, sizeof question, "depthwise %s%s%s", conv,
             ask->node->weight_count > 1 ? " bias" : "", ask->node->epilogue.relu ? " relu" : "");
    if (!sac_algorithms_find(algorithms, question, &answer)) {
        answer = (struct sac_algorithm){.algorithm = is_faster(ask)};
        sac_algorithms_add(algorithms, question, true, &answer);
    }
    return answer.algorithm != 0; /* the same at every asking */
}
