/* Inner products: cuBLASLt with bias and ReLU in its epilogue, or our own kernel. */
#include <stdlib.h>

#include "device/cuda/inner.h"
#include "kernels/kernels.h"

enum { WORKSPACE_MAX = 32 << 20, ALIGNMENT = 64 };

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

/* Column-major to cuBLAS: y [out × rows] = wᵀ [in × out]ᵀ · x [in × rows]. */
struct matmul {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    bool relu_apart; /* a slope that the epilogue does not have, or a sum */
    size_t workspace_bytes;
};

static void matmul_free(void *state)
{
    struct matmul *m = state;

    if (!m)
        return;
    if (m->desc)
        cublasLtMatmulDescDestroy(m->desc);
    if (m->w)
        cublasLtMatrixLayoutDestroy(m->w);
    if (m->x)
        cublasLtMatrixLayoutDestroy(m->x);
    if (m->y)
        cublasLtMatrixLayoutDestroy(m->y);
    if (m->preference)
        cublasLtMatmulPreferenceDestroy(m->preference);
    free(m);
}

cudaDataType_t sac_cuda_data_type(enum sac_type type)
{
    return type == SAC_F16 ? CUDA_R_16F : type == SAC_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* An algorithm for a bias is looked for with one: any aligned address, until the
 * weights are there. */
static bool set_bias(struct matmul *m, const void *bias)
{
    return cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                          sizeof bias) == CUBLAS_STATUS_SUCCESS;
}

static bool set_epilogue(struct matmul *m, const struct sac_node *node)
{
    bool bias = node->weight_count > 1;
    bool relu = node->epilogue.relu && node->epilogue.slope == 0 && node->epilogue.sum < 0;
    cublasLtEpilogue_t epilogue = bias && relu ? CUBLASLT_EPILOGUE_RELU_BIAS
                                  : bias       ? CUBLASLT_EPILOGUE_BIAS
                                  : relu       ? CUBLASLT_EPILOGUE_RELU
                                               : CUBLASLT_EPILOGUE_DEFAULT;

    m->relu_apart = (node->epilogue.relu && !relu) || node->epilogue.sum >= 0;
    return cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                          sizeof epilogue) == CUBLAS_STATUS_SUCCESS &&
           (!bias || set_bias(m, (const void *)(uintptr_t)4096));
}

static bool describe(struct matmul *m, const struct sac_cuda_ask *ask, enum sac_type y_type)
{
    struct sac_inner_sizes s = sac_cuda_inner_sizes(ask);
    bool tf32 = ask->options->precision == SAC_PRECISION_TF32;
    cublasComputeType_t compute = tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t transposed = CUBLAS_OP_T;
    uint64_t in = (uint64_t)s.in, out = (uint64_t)s.out, rows = (uint64_t)s.rows;
    cudaDataType_t type = sac_cuda_data_type(ask->type);

    return cublasLtMatmulDescCreate(&m->desc, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                          sizeof transposed) == CUBLAS_STATUS_SUCCESS &&
           set_epilogue(m, ask->node) &&
           cublasLtMatrixLayoutCreate(&m->w, type, in, out, s.in) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&m->x, type, in, rows, s.in) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&m->y, sac_cuda_data_type(y_type), out, rows, s.out) ==
               CUBLAS_STATUS_SUCCESS;
}

/* A plan's blobs stand on 64 bytes. */
bool sac_cuda_matmul_preference(cublasLtMatmulPreference_t *ret)
{
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    size_t most = WORKSPACE_MAX;
    uint32_t alignment = ALIGNMENT;
    bool good = cublasLtMatmulPreferenceCreate(ret) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatmulPreferenceSetAttribute(*ret, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                     &most, sizeof most) == CUBLAS_STATUS_SUCCESS;

    for (int i = 0; i < 4 && good; i++)
        good = cublasLtMatmulPreferenceSetAttribute(*ret, aligned[i], &alignment,
                                                    sizeof alignment) == CUBLAS_STATUS_SUCCESS;
    return good;
}

/* NULL where cuBLAS has nothing for it. The same question finds the same answer. */
static struct matmul *matmul_new(const struct sac_cuda_ask *ask, enum sac_type y_type)
{
    struct matmul *m = calloc(1, sizeof *m);
    int found = 0;

    if (m && describe(m, ask, y_type) && sac_cuda_matmul_preference(&m->preference) &&
        cublasLtMatmulAlgoGetHeuristic(ask->device->cublas, m->desc, m->w, m->x, m->y, m->y,
                                       m->preference, 1, &m->found,
                                       &found) == CUBLAS_STATUS_SUCCESS &&
        found > 0)
        return m;
    cudaGetLastError();
    matmul_free(m);
    return NULL;
}

static bool has_numbers(const struct sac_cuda_ask *ask)
{
    struct sac_inner_sizes s = sac_cuda_inner_sizes(ask);

    return s.rows > 0 && s.in > 0 && s.out > 0;
}

/* Whether for 16-bit or 32-bit results is the same to cuBLAS. */
static bool inner_can(const struct sac_cuda_ask *ask)
{
    struct matmul *m = has_numbers(ask) ? matmul_new(ask, SAC_F32) : NULL;
    bool can = m != NULL;

    matmul_free(m);
    if (can && ask->type != SAC_F32) {
        m = matmul_new(ask, ask->type);
        can = m != NULL;
        matmul_free(m);
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
    struct matmul *m = matmul_new(ask, caps->dst.type);

    if (!m)
        return refused(ask, err);
    caps->workspace_bytes = m->found.workspaceSize;
    matmul_free(m);
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
    struct matmul *m = op->state;
    int rc = sac_cuda_weight_get(op, ask, 1, &packing, store, &op->weight[1], err);

    if (rc == 0 && !set_bias(m, op->weight[1]))
        rc = sac_fail(err, SAC_EDEVICE, "%s: cuBLAS refuses its bias", op->name);
    return rc;
}

static int inner_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_store *store,
                         struct sac_error *err)
{
    struct matmul *m = matmul_new(ask, op->dst[0].form.type);
    int rc = m ? get_weights(op, ask, false, store, err) : refused(ask, err);

    op->state = m;
    if (rc == 0 && op->weight_count > 1)
        rc = get_bias(op, ask, store, err);
    if (rc == 0 && m->found.workspaceSize > 0 && !op->workspace)
        rc = sac_fail(err, SAC_EINVAL, "%s: bound without its workspace", op->name);
    return rc;
}

static int inner_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    struct matmul *m = op->state;
    const float one = 1, zero = 0;
    void *y = op->dst[0].data;
    int rc = sac_cublas_check(op->device,
                              cublasLtMatmul(op->device->cublas, m->desc, &one, op->weight[0], m->w,
                                             op->src[0].data, m->x, &zero, y, m->y, y, m->y,
                                             &m->found.algo, op->workspace, m->found.workspaceSize,
                                             stream->stream),
                              op->name, err);

    if (rc == 0 && m->relu_apart)
        rc = sac_cuda_finish(op, NULL, op->epilogue.sum >= 0, stream, err);
    return rc;
}

const struct sac_cuda_kernel sac_cuda_inner = {
    .name = "cuBLASLt",
    .can = inner_can,
    .query = inner_query,
    .prepare = inner_prepare,
    .forward = inner_forward,
    .free_state = matmul_free,
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
