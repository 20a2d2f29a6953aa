/*
 * Convolutions of one tap as products over the positions, by cuBLASLt: bias, sum and ReLU
 * are its epilogue. Taken where it is faster than cuDNN, which is measured once a shape.
 */
#include <stdio.h>
#include <stdlib.h>

#include "device/cuda/algorithms.h"
#include "device/cuda/conv.h"
#include "device/cuda/matmul.h"
#include "device/cuda/tune.h"
#include "device/forms.h"

/* What is stored: scores that only softmax or the caller read are fp32 in every precision. */
static enum sac_type result_type(const struct sac_cuda_ask *ask)
{
    struct sac_op_caps caps = {0};

    sac_usual_forms(ask->graph, ask->node, ask->type, ask->options->training, &caps);
    return caps.dst.type;
}

static struct sac_matmul_shape shape_of(const struct sac_cuda_ask *ask)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *x = &ask->graph->values[node->src[0]].shape;
    int64_t out = ask->graph->values[node->dst[0]].shape.dim[1];

    return (struct sac_matmul_shape){
        .rows = x->dim[0] * x->dim[2] * x->dim[3],
        .in = x->dim[1],
        .out = out,
        .pitch = out,
        .precision = ask->options->precision,
        .type = ask->type,
        .y_type = result_type(ask),
        .bias = node->weight_count > 1,
        .relu = node->epilogue.relu,
        .sum = node->epilogue.sum >= 0,
        .first = !sac_cuda_may_measure_for(ask->options),
    };
}

static bool is_one_tap(const struct sac_cuda_ask *ask)
{
    const struct sac_node *node = ask->node;
    const struct sac_window *w = &node->param.conv.window;
    const struct sac_shape *x = &ask->graph->values[node->src[0]].shape;

    return x->rank == 4 && sac_shape_count(x) > 0 && node->param.conv.group == 1 &&
           w->kernel[0] == 1 && w->kernel[1] == 1 && w->stride[0] == 1 && w->stride[1] == 1 &&
           w->pad[0] == 0 && w->pad[1] == 0 && node->epilogue.slope == 0;
}

/* By running both. */
static bool is_faster(const struct sac_cuda_ask *ask, struct sac_matmul *m)
{
    const struct sac_matmul_shape shape = shape_of(ask);
    float own = sac_matmul_ms(m, ask->device, &shape), cudnn = sac_cuda_conv_ms(ask);

    return own >= 0 && (cudnn < 0 || own <= cudnn);
}

static bool wins(const struct sac_cuda_ask *ask, struct sac_matmul *m)
{
    struct sac_algorithms *algorithms = ask->device->algorithms;
    struct sac_algorithm answer;
    char conv[160], question[192];

    if (!sac_cuda_may_measure_for(ask->options) ||
        result_type(ask) != ask->type) /* cuDNN stores what it reads */
        return true;
    sac_cuda_conv_question(ask, conv, sizeof conv);
    snprintf(question, sizeof question, "pointwise %s%s%s", conv,
             ask->node->epilogue.relu ? " relu" : "", ask->node->epilogue.sum >= 0 ? " sum" : "");
    if (!sac_algorithms_find(algorithms, question, &answer)) {
        answer = (struct sac_algorithm){.algorithm = is_faster(ask, m)};
        sac_algorithms_add(algorithms, question, true, &answer);
    }
    return answer.algorithm != 0; /* the same at every asking */
}

static bool pointwise_can(const struct sac_cuda_ask *ask)
{
    if (!is_one_tap(ask))
        return false;
    const struct sac_matmul_shape shape = shape_of(ask);
    struct sac_matmul *m = sac_matmul_new(ask->device, &shape);
    bool can = m && wins(ask, m);

    sac_matmul_free(m);
    return can;
}

static int refused(const struct sac_cuda_ask *ask, struct sac_error *err)
{
    return sac_fail(err, SAC_EDEVICE, "%s: cuBLAS has no algorithm for what it had one for",
                    ask->node->name);
}

static int pointwise_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                           struct sac_error *err)
{
    const struct sac_matmul_shape shape = shape_of(ask);
    struct sac_matmul *m = sac_matmul_new(ask->device, &shape);

    if (!m)
        return refused(ask, err);
    caps->workspace_bytes = m->found.workspaceSize;
    sac_matmul_free(m);
    return 0;
}

/* cuBLAS takes a bias of the result's type. */
static int get_bias(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                    struct sac_error *err)
{
    struct sac_cuda_packing packing = {
        .type = op->dst[0].form.type,
        .dim = {1, 1, 1, op->dst[0].shape.dim[1]},
        .stride = {0, 0, 0, 1},
    };
    int rc = sac_cuda_weight_get(op, ask, 1, &packing, store, &op->weight[1], err);

    if (rc == 0 && !sac_matmul_set_bias(op->state, op->weight[1]))
        rc = sac_fail(err, SAC_EDEVICE, "%s: cuBLAS refuses its bias", op->name);
    return rc;
}

static int pointwise_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                             struct sac_store *store, struct sac_error *err)
{
    static const int channels_last[] = {0, 2, 3, 1};
    const struct sac_matmul_shape shape = shape_of(ask);
    struct sac_matmul *m = sac_matmul_new(ask->device, &shape);
    int rc = m ? sac_cuda_weight_filter(op, ask, channels_last, store, err) : refused(ask, err);

    op->state = m;
    if (rc == 0 && op->weight_count > 1)
        rc = get_bias(op, ask, store, err);
    if (rc == 0)
        rc = sac_cuda_check_workspace(op, m->found.workspaceSize, err);
    return rc;
}

static int pointwise_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    return sac_cublas_check(op->device,
                            sac_matmul_run(op->state, op->device, stream->stream, op->weight[0],
                                           op->src[0].data, op->sum.data, op->dst[0].data,
                                           op->workspace),
                            op->name, err);
}

const struct sac_cuda_kernel sac_cuda_pointwise = {
    .name = "cuBLASLt",
    .can = pointwise_can,
    .query = pointwise_query,
    .prepare = pointwise_prepare,
    .forward = pointwise_forward,
    .free_state = sac_matmul_free,
};
