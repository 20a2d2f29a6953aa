/*
 * Inner products back by cuBLASLt. Column-major to cuBLAS: dx [in × rows] = w [in × out] ·
 * dy [out × rows]; dw [in × out] = x [in × rows] · dyᵀ. The weights' gradient is fp32, in
 * the source's order of `in`; where that is the file's, it is added up in place.
 */
#include <stdlib.h>

#include "device/cuda/inner.h"
#include "device/cuda/matmul.h"
#include "device/cuda/move.h"
#include "kernels/training.h"

enum { ALIGNMENT = 256, BLOB_ALIGNMENT = 64 };

struct product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
};

struct back {
    struct product data, filter;
    struct sac_inner_sizes sizes;
    struct sac_cuda_packing packing;
    enum sac_type type;
    bool direct; /* dw stands as the file has it */
    const void *weights;
    size_t dy_bytes, dw_bytes, room_bytes; /* the workspace's parts, in that order */
};

static void product_done(struct product *p)
{
    if (p->desc)
        cublasLtMatmulDescDestroy(p->desc);
    if (p->a)
        cublasLtMatrixLayoutDestroy(p->a);
    if (p->b)
        cublasLtMatrixLayoutDestroy(p->b);
    if (p->c)
        cublasLtMatrixLayoutDestroy(p->c);
    if (p->preference)
        cublasLtMatmulPreferenceDestroy(p->preference);
}

static void back_free(void *state)
{
    struct back *b = state;

    if (b) {
        product_done(&b->data);
        product_done(&b->filter);
    }
    free(b);
}

static bool matrix(cublasLtMatrixLayout_t *ret, enum sac_type type, int64_t rows, int64_t columns)
{
    return cublasLtMatrixLayoutCreate(ret, sac_cuda_data_type(type), (uint64_t)rows,
                                      (uint64_t)columns, rows) == CUBLAS_STATUS_SUCCESS;
}

static bool find(struct product *p, const struct sac_cuda_ask *ask, bool transposed)
{
    bool tf32 = ask->options->precision == SAC_PRECISION_TF32;
    cublasComputeType_t compute = tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t op = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    int found = 0;

    return cublasLtMatmulDescCreate(&p->desc, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &op, sizeof op) ==
               CUBLAS_STATUS_SUCCESS &&
           sac_matmul_preference(&p->preference, BLOB_ALIGNMENT) &&
           cublasLtMatmulAlgoGetHeuristic(ask->device->cublas, p->desc, p->a, p->b, p->c, p->c,
                                          p->preference, 1, &p->found,
                                          &found) == CUBLAS_STATUS_SUCCESS &&
           found > 0;
}

static bool make_products(struct back *b, const struct sac_cuda_ask *ask)
{
    const struct sac_inner_sizes *s = &b->sizes;
    struct product *data = &b->data, *filter = &b->filter;
    enum sac_type type = b->type;

    return matrix(&data->a, type, s->in, s->out) && matrix(&data->b, type, s->out, s->rows) &&
           matrix(&data->c, type, s->in, s->rows) && find(data, ask, false) &&
           matrix(&filter->a, type, s->in, s->rows) && matrix(&filter->b, type, s->out, s->rows) &&
           matrix(&filter->c, SAC_F32, s->in, s->out) && find(filter, ask, true);
}

static size_t rounded(int64_t count, size_t size)
{
    return ((size_t)count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* NULL where cuBLAS has nothing for it. */
static struct back *back_new(const struct sac_cuda_ask *ask, struct sac_form src,
                             struct sac_form dst)
{
    struct back *b = calloc(1, sizeof *b);

    if (!b)
        return NULL;
    b->sizes = sac_cuda_inner_sizes(ask);
    b->type = ask->type;
    b->packing = sac_cuda_inner_packing(ask, src, false);
    b->direct =
        !ask->node->param.inner.transpose && (b->packing.dim[1] == 1 || b->packing.dim[2] == 1);
    if (b->sizes.rows > 0 && b->sizes.in > 0 && b->sizes.out > 0 && src.type == ask->type &&
        make_products(b, ask)) {
        if (dst.type != ask->type)
            b->dy_bytes = rounded(b->sizes.rows * b->sizes.out, sac_type_bytes(ask->type));
        if (!b->direct)
            b->dw_bytes = rounded(b->sizes.in * b->sizes.out, sizeof(float));
        b->room_bytes = b->data.found.workspaceSize > b->filter.found.workspaceSize
                            ? b->data.found.workspaceSize
                            : b->filter.found.workspaceSize;
        return b;
    }
    cudaGetLastError();
    back_free(b);
    return NULL;
}

static bool inner_can(const struct sac_cuda_ask *ask, struct sac_form src, struct sac_form dst)
{
    struct back *b = back_new(ask, src, dst);
    bool can = b != NULL;

    back_free(b);
    return can;
}

/* A card that is lost has none either: that is no reason to give up for good. */
static int refused(const struct sac_cuda_ask *ask, struct sac_error *err)
{
    int rc = sac_cuda_check(ask->device, cudaGetLastError(), ask->node->name, err);

    return rc ? rc
              : sac_fail(err, SAC_EUNSUPPORTED,
                         "%s: cuBLAS has no way back for what it had one for", ask->node->name);
}

static int inner_query(const struct sac_cuda_ask *ask, struct sac_op_caps *caps,
                       struct sac_error *err)
{
    struct back *b = back_new(ask, caps->src, caps->dst);
    size_t bytes, bias;

    if (!b)
        return refused(ask, err);
    bytes = b->dy_bytes + b->dw_bytes + b->room_bytes;
    bias = sac_kernel_columns_bytes((uint32_t)b->sizes.rows, (uint32_t)b->sizes.out, 1);
    bytes = bias > bytes ? bias : bytes;
    caps->workspace_bytes = bytes > caps->workspace_bytes ? bytes : caps->workspace_bytes;
    caps->backward_src = true;
    back_free(b);
    return 0;
}

static int inner_prepare(struct sac_op *op, const struct sac_cuda_ask *ask, struct sac_error *err)
{
    struct back *b = back_new(ask, op->src[0].form, op->dst[0].form);

    op->backward_state = b;
    if (!b)
        return refused(ask, err);
    int rc = sac_cuda_check_workspace(op, b->dy_bytes + b->dw_bytes + b->room_bytes, err);
    return rc ? rc : sac_cuda_weight_get(op, ask, 0, &b->packing, NULL, &b->weights, err);
}

/* The result's gradient in the type of what it is multiplied with. */
static int get_dy(struct sac_op *op, const void **ret, struct sac_stream *stream,
                  struct sac_error *err)
{
    const struct back *b = op->backward_state;
    struct sac_tensor to = op->dst_grad[0];

    *ret = to.data;
    if (b->dy_bytes == 0)
        return 0;
    to.data = op->workspace;
    to.form.type = b->type;
    struct sac_kernel_copy copy = sac_cuda_copy_of(&op->dst_grad[0], &to, &to.shape);
    *ret = to.data;
    return sac_cuda_check(op->device, sac_kernel_copy(&copy, stream->stream), op->name, err);
}

static int multiply(struct sac_op *op, const struct product *p, const void *a, const void *b,
                    float blend, void *c, struct sac_stream *stream, struct sac_error *err)
{
    const struct back *back = op->backward_state;
    const float one = 1;
    char *room = (char *)op->workspace + back->dy_bytes + back->dw_bytes;

    return sac_cublas_check(op->device,
                            cublasLtMatmul(op->device->cublas, p->desc, &one, a, p->a, b, p->b,
                                           &blend, c, p->c, c, p->c, &p->found.algo, room,
                                           p->found.workspaceSize, stream->stream),
                            op->name, err);
}

static int inner_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct back *b = op->backward_state;
    const void *dy;
    int rc = get_dy(op, &dy, stream, err);

    return rc ? rc : multiply(op, &b->data, b->weights, dy, 0, op->src_grad[0].data, stream, err);
}

/* [out][in] in the source's order → as the file has it. */
static int add_weights(struct sac_op *op, const float *dw, struct sac_stream *stream,
                       struct sac_error *err)
{
    const struct back *b = op->backward_state;
    struct sac_kernel_copy copy = {
        .from = dw,
        .to = op->weight_grad[0],
        .from_type = SAC_F32,
        .to_type = SAC_F32,
        .rank = 4,
        .add = true,
    };
    int64_t at = 1;

    for (int i = 3; i >= 0; i--) {
        copy.dim[i] = b->packing.dim[i];
        copy.to_stride[i] = b->packing.stride[i];
        copy.from_stride[i] = at;
        at *= b->packing.dim[i];
    }
    return sac_cuda_check(op->device, sac_kernel_copy(&copy, stream->stream), op->name, err);
}

static int weight_gradient(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct back *b = op->backward_state;
    float *dw = b->direct ? op->weight_grad[0] : (float *)((char *)op->workspace + b->dy_bytes);
    const void *dy;
    int rc = get_dy(op, &dy, stream, err);

    if (rc == 0)
        rc = multiply(op, &b->filter, op->src[0].data, dy, b->direct ? 1 : 0, dw, stream, err);
    return rc == 0 && !b->direct ? add_weights(op, dw, stream, err) : rc;
}

int sac_cuda_inner_bias_back(struct sac_op *op, const struct sac_inner_sizes *sizes,
                             struct sac_stream *stream, struct sac_error *err)
{
    struct sac_kernel_columns c = {
        .u = op->dst_grad[0].data,
        .u_type = (int)op->dst_grad[0].form.type,
        .outer = (uint32_t)sizes->rows,
        .channels = (uint32_t)sizes->out,
        .inner = 1,
        .work = op->workspace,
        .sum = op->weight_count > 1 ? op->weight_grad[1] : NULL,
        .add = true,
    };

    if (!c.sum)
        return 0;
    return sac_cuda_check(op->device, sac_kernel_columns(&c, stream->stream), op->name, err);
}

static int inner_weights(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    const struct back *b = op->backward_state;
    int rc = op->weight_grad[0] ? weight_gradient(op, stream, err) : 0;

    return rc ? rc : sac_cuda_inner_bias_back(op, &b->sizes, stream, err);
}

const struct sac_cuda_backward sac_cuda_inner_back = {
    .name = "cuBLASLt",
    .can = inner_can,
    .query = inner_query,
    .prepare = inner_prepare,
    .data = inner_data,
    .weights = inner_weights,
    .free_state = back_free,
};
