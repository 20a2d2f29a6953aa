/* Inner products: cuBLASLt with bias and ReLU in its epilogue, or our own kernel. */
#include <stdlib.h>

#include "device/cuda/inner.h"
#include "device/cuda/matmul.h"
#include "device/cuda/tune.h"
#include "kernels/kernels.h"

struct sac_inner_sizes sac_cuda_inner_sizes(const struct sac_cuda_ask *ask)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *x = &ask->graph->values[node->src[0]].shape;
    const struct sac_shape *w = &ask->graph->constants[node->weight[0]].shape;
    int axis = node->param.inner.axis;

    return (struct sac_inner_sizes){
        .rows = sac_shape_count_between(x, 0, axis),
        .in = sac_shape_count_between(x, axis, x->rank),
        .out = w->dim[node->param.inner.transpose ? 1 : 0],
    };
}

struct sac_cuda_packing sac_cuda_inner_packing(const struct sac_cuda_ask *ask,
                                               struct sac_form source, bool out_last)
{
    const struct sac_shape *x = &ask->graph->values[ask->node->src[0]].shape;
    bool transpose = ask->node->param.inner.transpose;
    struct sac_inner_sizes s = sac_cuda_inner_sizes(ask);
    bool last = source.layout == SAC_CHANNELS_LAST && x->rank >= 3;
    int64_t channels = last ? x->dim[1] : 1, plane = s.in / (channels > 0 ? channels : 1);
    int64_t out_step = transpose ? 1 : s.in;
    int64_t in_step = transpose ? s.out : 1;
    struct sac_cuda_packing packing = {.type = ask->type};
    const int64_t dim[] = {s.out, plane, channels, 1};
    const int64_t stride[] = {out_step, in_step, plane * in_step, 0};

    for (int i = 0; i < 4; i++) {
        packing.dim[i] = dim[out_last ? (i + 1) % 4 : i];
        packing.stride[i] = stride[out_last ? (i + 1) % 4 : i];
    }
    return packing;
}

static int get_weights(struct sac_op *op, const struct sac_cuda_ask *ask, bool out_last,
                       struct sac_store *store, struct sac_error *err)
{
    struct sac_cuda_packing packing = sac_cuda_inner_packing(ask, op->src[0].form, out_last);
    int rc = sac_cuda_weight_get(op, ask, 0, &packing, store, &op->weight[0], err);
    if (rc == 0 && op->weight_count > 1)
        rc = sac_cuda_weight_plain(op, ask, 1, store, err);
    return rc;
}

/* ---- cuBLASLt ------------------------------------------------------------- */

/* What the epilogue does not have: a slope; a sum, which comes before the ReLU. */
static bool finishes_apart(const struct sac_epilogue *epilogue)
{
    return (epilogue->relu && epilogue->slope != 0) || epilogue->sum >= 0;
}

/* NULL where cuBLAS has nothing for it. The same question finds the same answer. */
static struct sac_matmul *matmul_new(const struct sac_cuda_ask *ask, enum sac_type y_type,
                                     bool first)
{
    struct sac_inner_sizes s = sac_cuda_inner_sizes(ask);
    const struct sac_matmul_shape shape = {
        .rows = s.rows,
        .in = s.in,
        .out = s.out,
        .pitch = s.out,
        .precision = ask->options->precision,
        .type = ask->type,
        .y_type = y_type,
        .bias = ask->node->weight_count > 1,
        .relu = ask->node->epilogue.relu && !finishes_apart(&ask->node->epilogue),
        .first = first || !sac_cuda_may_measure_for(ask->options),
    };

    return sac_matmul_new(ask->device, &shape);
}

static bool has_numbers(const struct sac_cuda_ask *ask)
{
    struct sac_inner_sizes s = sac_cuda_inner_sizes(ask);

    return s.rows > 0 && s.in > 0 && s.out > 0;
}

/* Whether for 16-bit or 32-bit results is the same to cuBLAS. */
static bool inner_can(const struct sac_cuda_ask *ask)
{
    struct sac_matmul *m = has_numbers(ask) ? matmul_new(ask, SAC_F32, true) : NULL;
    bool can = m != NULL;

    sac_matmul_free(m);
    if (can && ask->type != SAC_F32) {
        m = matmul_new(ask, ask->type, true);
        can = m != NULL;
        sac_matmul_free(m);
    }
    return can;
}

static int refused(const struct sac_cuda_ask *ask, struct sac_error *err)
{
    return sac_fail(err, SAC_EDEVICE, "%s: cuBLAS has no algorithm for what it had one for",
                    ask->node->name);
}

static int inner_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                       struct sac_error *err)
{
    struct sac_matmul *m = matmul_new(ask, caps->dst.type, false);

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
    const struct sac_constant *constant = &ask->graph->constants[ask->node->weight[1]];
    struct sac_cuda_packing packing = {
        .type = op->dst[0].form.type,
        .dim = {1, 1, 1, sac_shape_count(&constant->shape)},
        .stride = {0, 0, 0, 1},
    };
    int rc = sac_cuda_weight_get(op, ask, 1, &packing, store, &op->weight[1], err);

    if (rc == 0 && !sac_matmul_set_bias(op->state, op->weight[1]))
        rc = sac_fail(err, SAC_EDEVICE, "%s: cuBLAS refuses its bias", op->name);
    return rc;
}

static int inner_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                         struct sac_error *err)
{
    struct sac_matmul *m = matmul_new(ask, op->dst[0].form.type, false);
    int rc = m ? get_weights(op, ask, false, store, err) : refused(ask, err);

    op->state = m;
    if (rc == 0 && op->weight_count > 1)
        rc = get_bias(op, ask, store, err);
    if (rc == 0)
        rc = sac_cuda_check_workspace(op, m->found.workspaceSize, err);
    return rc;
}

static int inner_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    void *y = op->dst[0].data;
    int rc = sac_cublas_check(op->device,
                              sac_matmul_run(op->state, op->device, stream->stream, op->weight[0],
                                             op->src[0].data, y, y, op->workspace),
                              op->name, err);

    if (rc == 0 && finishes_apart(&op->epilogue))
        rc = sac_cuda_finish(op, NULL, op->epilogue.sum >= 0, stream, err);
    return rc;
}

const struct sac_cuda_kernel sac_cuda_inner = {
    .name = "cuBLASLt",
    .can = inner_can,
    .query = inner_query,
    .prepare = inner_prepare,
    .forward = inner_forward,
    .free_state = sac_matmul_free,
};

/* ---- Our own -------------------------------------------------------------- */

static int direct_prepare(struct sac_op *op, const struct sac_cuda_ask *ask,
                          struct sac_store *store, struct sac_error *err)
{
    struct sac_inner_sizes s = sac_cuda_inner_sizes(ask);
    struct sac_kernel_inner *p = malloc(sizeof *p);
    int rc = p ? get_weights(op, ask, true, store, err)
               : sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);

    op->state = p;
    if (rc != 0)
        return rc;
    *p = (struct sac_kernel_inner){
        .x = op->src[0].data,
        .weights = op->weight[0],
        .bias = op->weight[1],
        .y = op->dst[0].data,
        .type = (int)ask->type,
        .y_type = (int)op->dst[0].form.type,
        .rows = (uint32_t)s.rows,
        .in = (uint32_t)s.in,
        .out = (uint32_t)s.out,
        .relu = op->epilogue.relu && op->epilogue.sum < 0,
        .slope = op->epilogue.slope,
    };
    return 0;
}

static int direct_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    int rc = sac_cuda_check(op->device, sac_kernel_inner(op->state, stream->stream), op->name, err);

    if (rc == 0 && op->epilogue.sum >= 0)
        rc = sac_cuda_finish(op, NULL, true, stream, err);
    return rc;
}

const struct sac_cuda_kernel sac_cuda_direct_inner = {
    .name = "direct",
    .prepare = direct_prepare,
    .forward = direct_forward,
    .free_state = free,
};
