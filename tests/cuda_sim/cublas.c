#include "matmul.h"

#include <cublas_v2.h>
#include <stdlib.h>

struct cublasContext {
    struct sim_handle base;
};

const char *cublasGetStatusName(cublasStatus_t status)
{
    switch ((int)status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    return cublasGetStatusName(status);
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *ret)
{
    struct sim_handle *handle = ret ? sim_handle_new() : NULL;

    if (!ret)
        return CUBLAS_STATUS_INVALID_VALUE;
    *ret = (cublasHandle_t)handle;
    return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    if (!handle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    sim_handle_free("cublasDestroy", &handle->base);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t handle, int *version)
{
    (void)handle;
    *version = CUBLAS_VERSION;
    return CUBLAS_STATUS_SUCCESS;
}

/* Setting the stream takes a workspace of the caller's away, as cuBLAS does. */
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    if (!handle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->base.stream = stream;
    handle->base.workspace = NULL;
    handle->base.workspace_bytes = 0;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    if (!handle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if ((uintptr_t)workspace % 256 != 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    handle->base.workspace = workspace;
    handle->base.workspace_bytes = workspace ? bytes : 0;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode)
{
    if (!handle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->base.math = (int)mode;
    return CUBLAS_STATUS_SUCCESS;
}

/* One column-major operand, as it is stored and then as it is meant. */
static bool operand(struct sim_matrix *ret, cudaDataType_t type, cublasOperation_t op, int rows,
                    int columns, int ld, long long stride, int batches)
{
    bool transposed = op != CUBLAS_OP_N;

    *ret = (struct sim_matrix){.rows = (uint64_t)(transposed ? columns : rows),
                               .columns = (uint64_t)(transposed ? rows : columns),
                               .row = 1,
                               .column = ld,
                               .batches = batches,
                               .batch = (long)stride};
    if (!sim_matrix_type(type, &ret->type))
        return false;
    if (transposed)
        sim_matrix_transpose(ret);
    return true;
}

static bool takes(cublasComputeType_t compute)
{
    return compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
           compute == CUBLAS_COMPUTE_32F_FAST_TF32 || compute == CUBLAS_COMPUTE_32F_FAST_16F ||
           compute == CUBLAS_COMPUTE_32F_FAST_16BF;
}

static bool is_tf32(const struct sim_handle *handle, cublasComputeType_t compute,
                    cudaDataType_t type)
{
    return type == CUDA_R_32F && sim_arch >= 80 &&
           (compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
            (compute == CUBLAS_COMPUTE_32F && handle->math == CUBLAS_TF32_TENSOR_OP_MATH));
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t op_a,
                                          cublasOperation_t op_b, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType type_a,
                                          int lda, long long stride_a, const void *b,
                                          cudaDataType type_b, int ldb, long long stride_b,
                                          const void *beta, void *c, cudaDataType type_c, int ldc,
                                          long long stride_c, int batches,
                                          cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
    struct sim_matmul p = {.data_a = a, .data_b = b, .data_c = c, .data_d = c};

    (void)algo;
    if (!handle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (m < 0 || n < 0 || k < 0 || batches < 0 || lda < (op_a == CUBLAS_OP_N ? m : k) ||
        ldb < (op_b == CUBLAS_OP_N ? k : n) || ldc < m || lda < 1 || ldb < 1 || ldc < 1 || !alpha ||
        !beta)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!takes(compute) || type_a != type_b || (type_c != type_a && type_c != CUDA_R_32F) ||
        !operand(&p.a, type_a, op_a, m, k, lda, stride_a, batches) ||
        !operand(&p.b, type_b, op_b, k, n, ldb, stride_b, batches) ||
        !operand(&p.c, type_c, CUBLAS_OP_N, m, n, ldc, stride_c, batches))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (m == 0 || n == 0 || batches == 0)
        return CUBLAS_STATUS_SUCCESS;
    p.d = p.c;
    p.alpha = *(const float *)alpha;
    p.beta = *(const float *)beta;
    p.tf32 = is_tf32(&handle->base, compute, type_a);
    p.workspace = handle->base.workspace;
    p.workspace_bytes = handle->base.workspace_bytes;
    return sim_matmul_submit("cublasGemmEx", &handle->base, &p) == cudaSuccess
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                            int m, int n, int k, const void *alpha, const void *a,
                            cudaDataType type_a, int lda, const void *b, cudaDataType type_b,
                            int ldb, const void *beta, void *c, cudaDataType type_c, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, type_a, lda, 0, b,
                                      type_b, ldb, 0, beta, c, type_c, ldc, 0, 1, compute, algo);
}
