#include "matmul.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

/* What the semi-opaque structures of the headers hold here. */
struct layout {
    cudaDataType_t type;
    cublasLtOrder_t order;
    uint64_t rows, columns;
    int64_t ld, batch;
    int32_t batches;
};

struct desc {
    cublasComputeType_t compute;
    cudaDataType_t scale, bias_type;
    cublasOperation_t op_a, op_b;
    cublasLtEpilogue_t epilogue;
    const void *bias;
    int64_t bias_batch;
    int32_t pointer_mode;
    int bias_typed;
};

struct preference {
    uint64_t workspace_bytes;
    uint32_t alignment[4]; /* of A, B, C and D */
};

/* Of the two algorithms there are, the faster needs a workspace, and twice as much for columns
 * that are apart. What one was asked for goes with it: its workspace, and in 16 bits each the
 * alignments. */
enum { ALGO_PLAIN = 1, ALGO_SPLIT = 2, SPLIT_BYTES = 64 << 10 };
enum { WORKSPACE_AT = 1, ALIGNMENT_AT = 2, ALIGNMENT_MOST = 256 };

_Static_assert(sizeof(struct layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "layout");
_Static_assert(sizeof(struct desc) <= sizeof(cublasLtMatmulDescOpaque_t), "desc");
_Static_assert(sizeof(struct preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "pref");

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

size_t cublasLtGetCudartVersion(void)
{
    return CUDART_VERSION;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *ret)
{
    if (!ret)
        return CUBLAS_STATUS_INVALID_VALUE;
    *ret = (cublasLtHandle_t)sim_handle_new();
    return *ret ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    if (!handle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    sim_handle_free("cublasLtDestroy", (struct sim_handle *)handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *ret, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    struct desc *desc;

    if (!ret)
        return CUBLAS_STATUS_INVALID_VALUE;
    *ret = sim_descriptor_new(sizeof **ret);
    desc = (struct desc *)*ret;
    *desc = (struct desc){.compute = compute,
                          .scale = scale,
                          .op_a = CUBLAS_OP_N,
                          .op_b = CUBLAS_OP_N,
                          .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    sim_descriptor_free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t set(void *member, size_t size, const void *value, size_t bytes)
{
    if (!value || bytes != size)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(member, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

#define SET(member) set(&(member), sizeof(member), value, bytes)

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    struct desc *desc = (struct desc *)opaque;

    if (!desc)
        return CUBLAS_STATUS_INVALID_VALUE;
    switch ((int)attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return SET(desc->op_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return SET(desc->op_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return SET(desc->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return SET(desc->bias);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
        return SET(desc->bias_batch);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        desc->bias_typed = 1;
        return SET(desc->bias_type);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return SET(desc->pointer_mode);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *ret, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld)
{
    if (!ret)
        return CUBLAS_STATUS_INVALID_VALUE;
    *ret = sim_descriptor_new(sizeof **ret);
    *(struct layout *)*ret = (struct layout){.type = type,
                                             .order = CUBLASLT_ORDER_COL,
                                             .rows = rows,
                                             .columns = columns,
                                             .ld = ld,
                                             .batches = 1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    sim_descriptor_free(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t opaque,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    struct layout *layout = (struct layout *)opaque;

    if (!layout)
        return CUBLAS_STATUS_INVALID_VALUE;
    switch ((int)attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return SET(layout->type);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return SET(layout->order);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return SET(layout->rows);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        return SET(layout->columns);
    case CUBLASLT_MATRIX_LAYOUT_LD:
        return SET(layout->ld);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return SET(layout->batches);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return SET(layout->batch);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *ret)
{
    if (!ret)
        return CUBLAS_STATUS_INVALID_VALUE;
    *ret = sim_descriptor_new(sizeof **ret);
    struct preference *preference = (struct preference *)*ret;
    for (int i = 0; i < 4; i++)
        preference->alignment[i] = ALIGNMENT_MOST; /* by the manual */
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    sim_descriptor_free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    struct preference *preference = (struct preference *)opaque;
    uint32_t ignored;

    if (!preference)
        return CUBLAS_STATUS_INVALID_VALUE;
    switch ((int)attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return SET(preference->workspace_bytes);
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return SET(ignored);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return SET(preference->alignment[0]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return SET(preference->alignment[1]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return SET(preference->alignment[2]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return SET(preference->alignment[3]);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

/* Layouts and descriptor to one problem. */

static cublasStatus_t matrix_of(const struct layout *layout, cublasOperation_t op,
                                struct sim_matrix *ret)
{
    bool by_rows = layout->order == CUBLASLT_ORDER_ROW;
    int64_t least = (int64_t)(by_rows ? layout->columns : layout->rows);

    *ret = (struct sim_matrix){.rows = layout->rows,
                               .columns = layout->columns,
                               .row = by_rows ? layout->ld : 1,
                               .column = by_rows ? 1 : layout->ld,
                               .batches = layout->batches,
                               .batch = layout->batch};
    if (!sim_matrix_type(layout->type, &ret->type) ||
        (!by_rows && layout->order != CUBLASLT_ORDER_COL))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (layout->ld < least || layout->rows == 0 || layout->columns == 0 || layout->batches < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (op != CUBLAS_OP_N)
        sim_matrix_transpose(ret);
    return CUBLAS_STATUS_SUCCESS;
}

static bool takes(const struct desc *desc, cudaDataType_t a, cudaDataType_t b, cudaDataType_t c,
                  cudaDataType_t d)
{
    bool compute = desc->compute == CUBLAS_COMPUTE_32F ||
                   desc->compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                   desc->compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                   desc->compute == CUBLAS_COMPUTE_32F_FAST_16F ||
                   desc->compute == CUBLAS_COMPUTE_32F_FAST_16BF;
    bool epilogue =
        desc->epilogue == CUBLASLT_EPILOGUE_DEFAULT || desc->epilogue == CUBLASLT_EPILOGUE_RELU ||
        desc->epilogue == CUBLASLT_EPILOGUE_BIAS || desc->epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
    bool bias = !desc->bias_typed || desc->bias_type == d;

    return compute && epilogue && bias && desc->scale == CUDA_R_32F && a == b && c == d &&
           (d == a || d == CUDA_R_32F) && desc->pointer_mode == CUBLASLT_POINTER_MODE_HOST;
}

static cublasStatus_t problem(const struct desc *desc, const struct layout *a,
                              const struct layout *b, const struct layout *c,
                              const struct layout *d, struct sim_matmul *ret)
{
    cublasStatus_t status;

    *ret = (struct sim_matmul){0};
    if (!desc || !a || !b || !c || !d)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!takes(desc, a->type, b->type, c->type, d->type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((status = matrix_of(a, desc->op_a, &ret->a)) != CUBLAS_STATUS_SUCCESS ||
        (status = matrix_of(b, desc->op_b, &ret->b)) != CUBLAS_STATUS_SUCCESS ||
        (status = matrix_of(c, CUBLAS_OP_N, &ret->c)) != CUBLAS_STATUS_SUCCESS ||
        (status = matrix_of(d, CUBLAS_OP_N, &ret->d)) != CUBLAS_STATUS_SUCCESS)
        return status;
    if (ret->a.rows != ret->d.rows || ret->b.columns != ret->d.columns ||
        ret->a.columns != ret->b.rows || ret->c.rows != ret->d.rows ||
        ret->c.columns != ret->d.columns || ret->a.batches != ret->d.batches ||
        ret->b.batches != ret->d.batches || ret->c.batches != ret->d.batches)
        return CUBLAS_STATUS_INVALID_VALUE;
    ret->relu = desc->epilogue & CUBLASLT_EPILOGUE_RELU;
    ret->tf32 =
        ret->a.type == SIM_F32 && sim_arch >= 80 && desc->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (desc->epilogue & CUBLASLT_EPILOGUE_BIAS) {
        ret->bias = desc->bias;
        ret->bias_type = ret->d.type;
        ret->bias_batch = (long)desc->bias_batch;
    }
    return CUBLAS_STATUS_SUCCESS;
}

static cublasLtMatmulHeuristicResult_t result_of(int algo, size_t workspace_bytes,
                                                 const struct preference *wish)
{
    cublasLtMatmulHeuristicResult_t result = {
        .workspaceSize = workspace_bytes, .state = CUBLAS_STATUS_SUCCESS, .wavesCount = 1};

    result.algo.data[0] = (uint64_t)algo;
    result.algo.data[WORKSPACE_AT] = workspace_bytes;
    for (int i = 0; i < 4; i++)
        result.algo.data[ALIGNMENT_AT] |= (uint64_t)wish->alignment[i] << 16 * i;
    return result;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *returned)
{
    const struct preference *wish = (const struct preference *)preference;
    struct sim_matmul p;
    cublasStatus_t status =
        problem((const struct desc *)desc, (const struct layout *)a, (const struct layout *)b,
                (const struct layout *)c, (const struct layout *)d, &p);

    if (!handle || !wish || requested < 1 || !results || !returned)
        return CUBLAS_STATUS_INVALID_VALUE;
    *returned = 0;
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    size_t bytes = p.d.column > (long)p.d.rows ? 2 * SPLIT_BYTES : SPLIT_BYTES;
    if (wish->workspace_bytes >= bytes)
        results[(*returned)++] = result_of(ALGO_SPLIT, bytes, wish);
    if (*returned < requested)
        results[(*returned)++] = result_of(ALGO_PLAIN, 0, wish);
    return CUBLAS_STATUS_SUCCESS;
}

/* An algorithm's workspace must be there, on 256 bytes (cuBLAS' manual), unless none is
 * asked for by name. */
static cublasStatus_t take_workspace(struct sim_matmul *p, const cublasLtMatmulAlgo_t *algo,
                                     void *workspace, size_t bytes)
{
    size_t needed = algo ? (size_t)algo->data[WORKSPACE_AT] : 0;

    if (algo && algo->data[0] != ALGO_PLAIN && algo->data[0] != ALGO_SPLIT)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (needed > bytes || (needed > 0 && (!workspace || (uintptr_t)workspace % 256 != 0)))
        return CUBLAS_STATUS_INVALID_VALUE;
    p->workspace = workspace;
    p->workspace_bytes = needed;
    return CUBLAS_STATUS_SUCCESS;
}

/* A card may take the algorithm, and read or write elsewhere. */
static bool is_aligned(const struct sim_matmul *p, const cublasLtMatmulAlgo_t *algo)
{
    const void *data[] = {p->data_a, p->data_b, p->beta != 0 ? p->data_c : NULL, p->data_d};
    bool good = true;

    for (int i = 0; i < 4 && algo && good; i++) {
        unsigned alignment = algo->data[ALIGNMENT_AT] >> 16 * i & 0xffff;
        good = alignment == 0 || (uintptr_t)data[i] % alignment == 0;
        if (good)
            continue;
        sim_enter();
        sim_report("cublasLtMatmul", "'%c' at %p is not on the %u bytes that were promised",
                   'A' + i, data[i], alignment);
        sim_leave();
    }
    return good;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    struct sim_matmul p;
    struct sim_handle on;
    cublasStatus_t status = problem(
        (const struct desc *)desc, (const struct layout *)a_layout, (const struct layout *)b_layout,
        (const struct layout *)c_layout, (const struct layout *)d_layout, &p);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = take_workspace(&p, algo, workspace, workspace_bytes);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (!handle || !alpha || !beta || !a || !b || !d ||
        ((((const struct desc *)desc)->epilogue & CUBLASLT_EPILOGUE_BIAS) && !p.bias))
        return CUBLAS_STATUS_INVALID_VALUE;
    p.alpha = *(const float *)alpha;
    p.beta = *(const float *)beta;
    p.data_a = a;
    p.data_b = b;
    p.data_c = c;
    p.data_d = d;
    if (!is_aligned(&p, algo))
        return CUBLAS_STATUS_INVALID_VALUE;
    on = *(struct sim_handle *)handle;
    on.stream = stream;
    return sim_matmul_submit("cublasLtMatmul", &on, &p) == cudaSuccess
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}
