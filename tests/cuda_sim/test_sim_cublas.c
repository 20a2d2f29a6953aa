#include "cuda_sim/rig.h"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <math.h>

#include "cuda_sim/number.h"

enum { M = 5, N = 4, K = 7, BATCHES = 3, PAD = 2, WORKSPACE = 1 << 20 };

/* One operand: rows × columns as it is stored, ld and batches apart. */
struct operand {
    cudaDataType_t type;
    int rows, columns, ld;
    bool by_rows, transposed;
    int count, batch; /* numbers in all, and from one batch to the next */
    float *host;
    void *device;
};

static size_t bytes_of(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

static void store(void *to, cudaDataType_t type, int i, float value)
{
    if (type == CUDA_R_32F)
        ((float *)to)[i] = value;
    else
        ((uint16_t *)to)[i] = type == CUDA_R_16F ? sim_to_f16(value) : sim_to_bf16(value);
}

static float load(const void *from, cudaDataType_t type, int i)
{
    if (type == CUDA_R_32F)
        return ((const float *)from)[i];
    return type == CUDA_R_16F ? sim_from_f16(((const uint16_t *)from)[i])
                              : sim_from_bf16(((const uint16_t *)from)[i]);
}

static struct operand operand(cudaDataType_t type, int rows, int columns, bool transposed,
                              bool by_rows, unsigned seed)
{
    struct operand o = {.type = type, .transposed = transposed, .by_rows = by_rows};
    void *bytes;

    o.rows = transposed ? columns : rows;
    o.columns = transposed ? rows : columns;
    o.ld = (by_rows ? o.columns : o.rows) + PAD;
    o.batch = o.ld * (by_rows ? o.rows : o.columns);
    o.count = o.batch * BATCHES;
    o.host = malloc((size_t)o.count * sizeof(float));
    bytes = malloc((size_t)o.count * bytes_of(type));
    for (int i = 0; i < o.count; i++) {
        o.host[i] = rig_value((unsigned)i + seed);
        store(bytes, type, i, o.host[i]);
    }
    o.device = rig_upload(bytes, (size_t)o.count * bytes_of(type));
    free(bytes);
    return o;
}

static void drop(struct operand *o)
{
    must(cudaFree(o->device));
    free(o->host);
}

/* op(operand)[i][j] of a batch. */
static int at(const struct operand *o, int batch, int i, int j)
{
    int row = o->transposed ? j : i, column = o->transposed ? i : j;

    return batch * o->batch + (o->by_rows ? row * o->ld + column : row + column * o->ld);
}

struct problem {
    struct operand a, b, d;
    float alpha, beta;
    const float *bias;
    bool relu;
};

/* The formula, in double; what is between the columns must stay as it was. */
static void check(const struct problem *p)
{
    size_t bytes = (size_t)p->d.count * bytes_of(p->d.type);
    double *want = malloc((size_t)p->d.count * sizeof *want), error;
    void *got = malloc(bytes);

    for (int i = 0; i < p->d.count; i++)
        want[i] = p->d.host[i];
    for (int batch = 0; batch < BATCHES; batch++)
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0, *to = &want[at(&p->d, batch, i, j)];

                for (int k = 0; k < K; k++)
                    sum += (double)p->a.host[at(&p->a, batch, i, k)] *
                           p->b.host[at(&p->b, batch, k, j)];
                *to = p->alpha * sum + p->beta * *to + (p->bias ? p->bias[i] : 0);
                *to = p->relu && *to < 0 ? 0 : *to;
            }
    rig_download(got, p->d.device, bytes);
    error = p->d.type == CUDA_R_32F ? 0 : p->d.type == CUDA_R_16F ? 0x1p-11 : 0x1p-8;
    for (int i = 0; i < p->d.count; i++)
        if (!(fabs(load(got, p->d.type, i) - want[i]) <= error * fabs(want[i])))
            fail_msg("number %d: %.9g, not %.9g", i, load(got, p->d.type, i), want[i]);
    free(want);
    free(got);
}

static cublasLtMatrixLayout_t layout_of(const struct operand *o)
{
    cublasLtOrder_t order = o->by_rows ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL;
    int64_t stride = o->batch;
    int32_t batches = BATCHES;
    cublasLtMatrixLayout_t layout;

    must(cublasLtMatrixLayoutCreate(&layout, o->type, (uint64_t)o->rows, (uint64_t)o->columns,
                                    o->ld));
    must(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &order,
                                          sizeof order));
    must(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches,
                                          sizeof batches));
    must(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                          &stride, sizeof stride));
    return layout;
}

static cublasLtMatmulDesc_t desc_of(const struct problem *p, cublasComputeType_t compute,
                                    const void *bias)
{
    cublasOperation_t op_a = p->a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t op_b = p->b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = bias && p->relu ? CUBLASLT_EPILOGUE_RELU_BIAS
                                  : bias          ? CUBLASLT_EPILOGUE_BIAS
                                  : p->relu       ? CUBLASLT_EPILOGUE_RELU
                                                  : CUBLASLT_EPILOGUE_DEFAULT;
    cublasLtMatmulDesc_t desc;

    must(cublasLtMatmulDescCreate(&desc, compute, CUDA_R_32F));
    must(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a));
    must(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b));
    must(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                        sizeof epilogue));
    if (bias)
        must(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                            sizeof bias));
    return desc;
}

struct lt {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result[4];
    int results;
    void *workspace;
};

static void lt_open(struct lt *lt, const struct problem *p, cublasComputeType_t compute,
                    const void *bias, uint64_t workspace_bytes)
{
    must(cublasLtCreate(&lt->handle));
    lt->desc = desc_of(p, compute, bias);
    lt->a = layout_of(&p->a);
    lt->b = layout_of(&p->b);
    lt->d = layout_of(&p->d);
    must(cublasLtMatmulPreferenceCreate(&lt->preference));
    must(cublasLtMatmulPreferenceSetAttribute(lt->preference,
                                              CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &workspace_bytes, sizeof workspace_bytes));
    must(cublasLtMatmulAlgoGetHeuristic(lt->handle, lt->desc, lt->a, lt->b, lt->d, lt->d,
                                        lt->preference, 4, lt->result, &lt->results));
    must(cudaMalloc(&lt->workspace, WORKSPACE));
}

static void lt_close(struct lt *lt)
{
    must(cudaFree(lt->workspace));
    must(cublasLtMatmulPreferenceDestroy(lt->preference));
    must(cublasLtMatrixLayoutDestroy(lt->a));
    must(cublasLtMatrixLayoutDestroy(lt->b));
    must(cublasLtMatrixLayoutDestroy(lt->d));
    must(cublasLtMatmulDescDestroy(lt->desc));
    must(cublasLtDestroy(lt->handle));
}

static cublasStatus_t lt_run(const struct lt *lt, const struct problem *p, int result,
                             size_t workspace_bytes)
{
    return cublasLtMatmul(lt->handle, lt->desc, &p->alpha, p->a.device, lt->a, p->b.device, lt->b,
                          &p->beta, p->d.device, lt->d, p->d.device, lt->d,
                          &lt->result[result].algo, lt->workspace, workspace_bytes, NULL);
}

static void open_problem(struct problem *p, cudaDataType_t in, cudaDataType_t out, int form)
{
    *p = (struct problem){.a = operand(in, M, K, form & 1, form & 4, 1),
                          .b = operand(in, K, N, form & 2, form & 8, 2),
                          .d = operand(out, M, N, false, form & 16, 3),
                          .alpha = 0.5f,
                          .beta = form & 1 ? 2 : 0};
}

static void close_problem(struct problem *p)
{
    drop(&p->a);
    drop(&p->b);
    drop(&p->d);
}

static void lt_multiplies_in_every_form(void **state)
{
    (void)state;
    for (int form = 0; form < 32; form++) {
        struct problem p;
        struct lt lt;

        open_problem(&p, CUDA_R_32F, CUDA_R_32F, form);
        lt_open(&lt, &p, CUBLAS_COMPUTE_32F, NULL, WORKSPACE);
        assert_true(lt.results >= 1);
        must(lt_run(&lt, &p, 0, WORKSPACE));
        check(&p);
        lt_close(&lt);
        close_problem(&p);
    }
}

static void lt_has_four_epilogues_in_every_type(void **state)
{
    static const cudaDataType_t in[] = {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF, CUDA_R_16F};
    static const cudaDataType_t out[] = {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF, CUDA_R_32F};

    (void)state;
    for (int i = 0; i < 16; i++) {
        cudaDataType_t type = out[i / 4];
        float bias[M];
        char stored[M * 4];
        void *device;
        struct problem p;
        struct lt lt;

        for (int j = 0; j < M; j++) {
            bias[j] = rig_value((unsigned)j + 99);
            store(stored, type, j, bias[j]);
        }
        device = rig_upload(stored, M * bytes_of(type));
        open_problem(&p, in[i / 4], type, 1);
        p.relu = i & 1;
        p.bias = i & 2 ? bias : NULL;
        lt_open(&lt, &p, CUBLAS_COMPUTE_32F, i & 2 ? device : NULL, 0);
        must(lt_run(&lt, &p, 0, 0));
        check(&p);
        lt_close(&lt);
        close_problem(&p);
        must(cudaFree(device));
    }
}

static void lt_algorithms_keep_to_the_workspace(void **state)
{
    struct problem p;
    struct lt lt;

    (void)state;
    open_problem(&p, CUDA_R_32F, CUDA_R_32F, 0);
    lt_open(&lt, &p, CUBLAS_COMPUTE_32F, NULL, 0);
    assert_int_equal(lt.results, 1);
    assert_int_equal(lt.result[0].workspaceSize, 0);
    lt_close(&lt);
    lt_open(&lt, &p, CUBLAS_COMPUTE_32F, NULL, WORKSPACE);
    assert_true(lt.result[0].workspaceSize > 0);
    assert_int_equal(lt_run(&lt, &p, 0, lt.result[0].workspaceSize - 1),
                     CUBLAS_STATUS_INVALID_VALUE);
    must(lt_run(&lt, &p, 0, lt.result[0].workspaceSize));
    check(&p);
    lt_close(&lt);
    close_problem(&p);
}

static void lt_refuses_what_does_not_fit(void **state)
{
    struct problem p;
    struct lt lt;
    uint64_t columns = N + 1;
    cudaDataType_t half = CUDA_R_16F;

    (void)state;
    open_problem(&p, CUDA_R_32F, CUDA_R_32F, 0);
    lt_open(&lt, &p, CUBLAS_COMPUTE_32F, NULL, 0);
    must(cublasLtMatrixLayoutSetAttribute(lt.b, CUBLASLT_MATRIX_LAYOUT_COLS, &columns,
                                          sizeof columns));
    assert_int_equal(lt_run(&lt, &p, 0, 0), CUBLAS_STATUS_INVALID_VALUE);
    must(cublasLtMatrixLayoutSetAttribute(lt.b, CUBLASLT_MATRIX_LAYOUT_TYPE, &half, sizeof half));
    assert_int_equal(lt_run(&lt, &p, 0, 0), CUBLAS_STATUS_NOT_SUPPORTED);
    lt_close(&lt);
    close_problem(&p);
}

/* Asks again, for results that stand on so many bytes. */
static void promise(struct lt *lt, uint32_t bytes)
{
    must(cublasLtMatmulPreferenceSetAttribute(
        lt->preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &bytes, sizeof bytes));
    must(cublasLtMatmulPreferenceSetAttribute(
        lt->preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &bytes, sizeof bytes));
    must(cublasLtMatmulAlgoGetHeuristic(lt->handle, lt->desc, lt->a, lt->b, lt->d, lt->d,
                                        lt->preference, 4, lt->result, &lt->results));
}

/* Runs with the result so many numbers further; the failed check's words, NULL: none. */
static void run_shifted(const struct lt *lt, const struct problem *p, int numbers,
                        const char *words)
{
    struct problem shifted = *p;

    shifted.d.device = (float *)p->d.device + numbers;
    sim_checks_set(SIM_CHECKS_RECORD);
    cublasStatus_t status = lt_run(lt, &shifted, 0, 0);
    must(cudaDeviceSynchronize());
    sim_checks_set(SIM_CHECKS_ABORT);
    assert_int_equal(status == CUBLAS_STATUS_SUCCESS, words == NULL);
    assert_int_equal(sim_checks_failed(), words != NULL);
    if (words && !strstr(sim_checks_last(), words))
        fail_msg("'%s' does not say '%s'", sim_checks_last(), words);
    sim_checks_clear();
}

/* Behind the last column nothing need be there, and its numbers must. */
static void lt_checks_each_column_of_a_result_with_a_pitch(void **state)
{
    struct problem p;
    struct lt lt;

    (void)state;
    open_problem(&p, CUDA_R_32F, CUDA_R_32F, 0);
    lt_open(&lt, &p, CUBLAS_COMPUTE_32F, NULL, 0);
    promise(&lt, sizeof(float));
    run_shifted(&lt, &p, PAD, NULL);
    run_shifted(&lt, &p, PAD + 1, "'D' takes");
    lt_close(&lt);
    close_problem(&p);
}

static void lt_checks_the_alignment_that_was_promised(void **state)
{
    struct problem p;
    struct lt lt;

    (void)state;
    open_problem(&p, CUDA_R_32F, CUDA_R_32F, 0);
    lt_open(&lt, &p, CUBLAS_COMPUTE_32F, NULL, 0);
    run_shifted(&lt, &p, 2, "not on the 256 bytes"); /* what the manual has where none is given */
    promise(&lt, 8);
    run_shifted(&lt, &p, 2, NULL);
    run_shifted(&lt, &p, 1, "'D' at");
    lt_close(&lt);
    close_problem(&p);
}

static void gemm_is_the_formula(void **state)
{
    cublasHandle_t handle;

    (void)state;
    must(cublasCreate_v2(&handle));
    for (int form = 0; form < 4; form++) {
        struct problem p;

        open_problem(&p, CUDA_R_16F, CUDA_R_32F, form);
        must(cublasGemmStridedBatchedEx(
            handle, p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
            p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, M, N, K, &p.alpha, p.a.device, p.a.type,
            p.a.ld, p.a.batch, p.b.device, p.b.type, p.b.ld, p.b.batch, &p.beta, p.d.device,
            p.d.type, p.d.ld, p.d.batch, BATCHES, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
        check(&p);
        close_problem(&p);
    }
    must(cublasDestroy_v2(handle));
}

/* 1 + 2⁻¹¹ rounds to 1 + 2⁻¹⁰ in TF32, ties away from zero. */
static void gemm_rounds_to_tf32_where_it_is_told_to(void **state)
{
    const float one = 1, zero = 0, x = 1 + 0x1p-11f;
    float got, *a = rig_upload(&x, 4), *b = rig_upload(&one, 4), *c = rig_upload(&zero, 4);
    cublasHandle_t handle;

    (void)state;
    must(cublasCreate_v2(&handle));
    for (int tf32 = 0; tf32 < 2; tf32++) {
        must(cublasSetMathMode(handle, tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH));
        must(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a, CUDA_R_32F, 1, b,
                          CUDA_R_32F, 1, &zero, c, CUDA_R_32F, 1, CUBLAS_COMPUTE_32F,
                          CUBLAS_GEMM_DEFAULT));
        rig_download(&got, c, 4);
        assert_true(got == (tf32 ? 1 + 0x1p-10f : x));
    }
    must(cublasDestroy_v2(handle));
    must(cudaFree(a));
    must(cudaFree(b));
    must(cudaFree(c));
}

#define CASE(name) cmocka_unit_test_teardown(name, rig_nothing_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(lt_multiplies_in_every_form),
        CASE(lt_has_four_epilogues_in_every_type),
        CASE(lt_algorithms_keep_to_the_workspace),
        CASE(lt_refuses_what_does_not_fit),
        CASE(lt_checks_each_column_of_a_result_with_a_pitch),
        CASE(lt_checks_the_alignment_that_was_promised),
        CASE(gemm_is_the_formula),
        CASE(gemm_rounds_to_tf32_where_it_is_told_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
