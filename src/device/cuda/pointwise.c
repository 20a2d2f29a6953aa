/*
 * Convolutions of one tap as products over the positions, by cuBLASLt: bias, sum and ReLU
 * are its epilogue. Taken where it is faster than cuDNN, which is measured once a shape.
 * What only a concatenation reads may be written where it belongs there.
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

/* ---- Parts of concatenations ------------------------------------------------ */

static int64_t channels_of(const struct sac_cuda_ask *ask, int value)
{
    return ask->graph->values[value].shape.dim[1];
}

/* The concatenation of channels that alone reads the value; NULL: none. */
static const struct sac_node *concat_of(const struct sac_cuda_ask *ask, int value,
                                        int64_t *ret_first)
{
    if (sac_graph_use_count(ask->graph, value) != 1)
        return NULL;
    for (int t = 0; t < ask->graph->node_count; t++) {
        const struct sac_node *node = &ask->graph->nodes[t];
        if (node->kind != SAC_OP_CONCAT || node->param.concat.axis != 1)
            continue;
        *ret_first = 0;
        for (int i = 0; i < node->src_count; i++) {
            if (node->src[i] == value)
                return node;
            *ret_first += channels_of(ask, node->src[i]);
        }
    }
    return NULL;
}

/* By what a product's rows are apart and where the first stands: what it may store at once. */
static uint32_t vector_bytes(int64_t pitch, int64_t first, enum sac_type type)
{
    enum { MOST = 16 };
    uint32_t aligned = sac_matmul_alignment((uint64_t)(pitch | first) * sac_type_bytes(type));

    return aligned < MOST ? aligned : MOST;
}

/* Raises *workspace_bytes to what the product needs there; false where it cannot be had, or
 * where writing number by number would cost more than the copy. */
static bool can_stand_at(const struct sac_cuda_ask *ask, int64_t pitch, int64_t first,
                         size_t *workspace_bytes)
{
    struct sac_matmul_shape shape = shape_of(ask);
    size_t type = sac_type_bytes(shape.y_type);

    if (vector_bytes(pitch, first, shape.y_type) < vector_bytes(shape.out, 0, shape.y_type))
        return false;
    shape.alignment = sac_matmul_alignment((uint64_t)first * type);
    if (shape.rows > 1) /* one row is as it always is */
        shape.pitch = pitch;
    struct sac_matmul *m = sac_matmul_new(ask->device, &shape);
    if (m && m->found.workspaceSize > *workspace_bytes)
        *workspace_bytes = m->found.workspaceSize;
    sac_matmul_free(m);
    return m != NULL;
}

/* The plan may let it stand in any of the concatenations that are in one another, so that
 * all must do. A sum is read by the rows of the result, and has its own. */
static bool takes_views(const struct sac_cuda_ask *ask, size_t *workspace_bytes)
{
    int value = ask->node->dst[0];
    int64_t first = 0, before;
    size_t most = *workspace_bytes;
    const struct sac_node *concat;
    bool takes = false;

    if (ask->options->training || ask->node->epilogue.sum >= 0 || result_type(ask) != ask->type)
        return false;
    while ((concat = concat_of(ask, value, &before))) {
        value = concat->dst[0];
        first += before;
        takes = can_stand_at(ask, channels_of(ask, value), first, &most);
        if (!takes)
            return false;
    }
    *workspace_bytes = most;
    return takes;
}

/* ---- The kernel ------------------------------------------------------------- */

static int pointwise_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                           struct sac_error *err)
{
    const struct sac_matmul_shape shape = shape_of(ask);
    struct sac_matmul *m = sac_matmul_new(ask->device, &shape);

    if (!m)
        return refused(ask, err);
    caps->workspace_bytes = m->found.workspaceSize;
    caps->strided_dst = takes_views(ask, &caps->workspace_bytes);
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

/* Where the result really stands; the sum is read by the same rows. */
static int place_result(const struct sac_op *op, struct sac_matmul_shape *shape,
                        struct sac_error *err)
{
    int rc = sac_cuda_need_rows(op, &op->dst[0], &shape->pitch, err);
    int64_t pitch = shape->pitch;

    shape->alignment = sac_matmul_alignment((uintptr_t)op->dst[0].data);
    if (rc == 0 && shape->sum)
        rc = sac_cuda_need_rows(op, &op->sum, &pitch, err);
    if (rc == 0 && pitch != shape->pitch)
        rc = sac_fail(err, SAC_EUNSUPPORTED, "%s: a sum whose rows are not apart as the result's",
                      op->name);
    return rc;
}

static int pointwise_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                             struct sac_store *store, struct sac_error *err)
{
    static const int channels_last[] = {0, 2, 3, 1};
    struct sac_matmul_shape shape = shape_of(ask);
    struct sac_matmul *m = NULL;
    int rc = place_result(op, &shape, err);

    if (rc == 0 && !(op->state = m = sac_matmul_new(ask->device, &shape)))
        rc = refused(ask, err);
    if (rc == 0)
        rc = sac_cuda_weight_filter(op, ask, channels_last, store, err);
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
