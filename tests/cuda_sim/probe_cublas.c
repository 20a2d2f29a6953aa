/* cuBLASLt: inner products and pointwise convolutions, as src/device/cuda asks for them. */
#include <stdio.h>

#include <cublasLt.h>

#include "cuda_sim/probe.h"

enum { ROWS = 12, IN = 64, OUT = 32, PITCH = 48, ALIGNMENT = 64, WORKSPACE = 4 << 20, ANSWERS = 8 };

static const char *status_of(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "invalid value";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "not supported";
    default:
        return "another";
    }
}

struct product {
    const char *name;
    enum probe_type in, out; /* of the factors; of result and bias */
    bool tf32, sum;          /* sum: y = relu(w · x + y + bias), in place */
    cublasLtEpilogue_t epilogue;
    int64_t pitch; /* from one row of the result to the next; more than OUT: its last part */
};

struct made {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulPreference_t preference;
};

static cudaDataType_t data_type(enum probe_type type)
{
    return type == PROBE_F32 ? CUDA_R_32F : type == PROBE_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

static void set_desc(struct made *m, const struct product *p, const void *bias)
{
    cublasOperation_t transposed = CUBLAS_OP_T;

    PROBE_NEED(cublasLtMatmulDescCreate(
        &m->desc, p->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    probe_must("cublasLtMatmulDescCreate", "success", "%s", p->name);
    PROBE_NEED(cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                              sizeof transposed));
    PROBE_NEED(cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &p->epilogue,
                                              sizeof p->epilogue));
    probe_must("cublasLtMatmulDescSetAttribute",
               status_of(cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                        &bias, sizeof bias)),
               "%s", p->name);
}

static void set_layouts(struct made *m, const struct product *p)
{
    cudaDataType_t in = data_type(p->in), out = data_type(p->out);

    probe_must("cublasLtMatrixLayoutCreate",
               status_of(cublasLtMatrixLayoutCreate(&m->w, in, IN, OUT, IN)), "%s", p->name);
    PROBE_NEED(cublasLtMatrixLayoutCreate(&m->x, in, IN, ROWS, IN));
    PROBE_NEED(cublasLtMatrixLayoutCreate(&m->y, out, OUT, ROWS, p->pitch));
}

/* Where the result's first number stands in its memory. */
static size_t first_byte(const struct product *p)
{
    return (size_t)(p->pitch - OUT) * probe_type_bytes(p->out);
}

static uint32_t alignment_of(const struct product *p)
{
    size_t at = first_byte(p) | ALIGNMENT;

    return (uint32_t)(at & -at);
}

static void set_preference(struct made *m, const struct product *p)
{
    size_t most = WORKSPACE;
    uint32_t alignment = alignment_of(p);

    probe_must("cublasLtMatmulPreferenceCreate",
               status_of(cublasLtMatmulPreferenceCreate(&m->preference)), "%s", p->name);
    PROBE_NEED(cublasLtMatmulPreferenceSetAttribute(
        m->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most));
    PROBE_NEED(cublasLtMatmulPreferenceSetAttribute(
        m->preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment));
    probe_must("cublasLtMatmulPreferenceSetAttribute",
               status_of(cublasLtMatmulPreferenceSetAttribute(
                   m->preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment,
                   sizeof alignment)),
               "%s", p->name);
}

static void make(struct made *m, const struct product *p, const void *bias)
{
    probe_must("cublasLtCreate", status_of(cublasLtCreate(&m->handle)), "%s", p->name);
    set_desc(m, p, bias);
    set_layouts(m, p);
    set_preference(m, p);
}

static void destroy(struct made *m, const struct product *p)
{
    probe_must("cublasLtMatmulPreferenceDestroy",
               status_of(cublasLtMatmulPreferenceDestroy(m->preference)), "%s", p->name);
    probe_must("cublasLtMatrixLayoutDestroy", status_of(cublasLtMatrixLayoutDestroy(m->w)), "%s",
               p->name);
    PROBE_NEED(cublasLtMatrixLayoutDestroy(m->x));
    PROBE_NEED(cublasLtMatrixLayoutDestroy(m->y));
    probe_must("cublasLtMatmulDescDestroy", status_of(cublasLtMatmulDescDestroy(m->desc)), "%s",
               p->name);
    probe_must("cublasLtDestroy", status_of(cublasLtDestroy(m->handle)), "%s", p->name);
}

static void multiply(struct made *m, const struct product *p, cudaStream_t stream)
{
    const float one = 1, zero = 0;
    cublasLtMatmulHeuristicResult_t found[ANSWERS];
    int count = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        m->handle, m->desc, m->w, m->x, m->y, m->y, m->preference, ANSWERS, found, &count);

    probe_must("cublasLtMatmulAlgoGetHeuristic", count > 0 ? status_of(status) : "none", "%s",
               p->name);
    probe_note("cublasLtMatmulAlgoGetHeuristic", status_of(status), "%s: %d answers", p->name,
               count);
    if (count == 0)
        return;
    void *w = probe_numbers(p->in, 1, IN * OUT), *x = probe_numbers(p->in, 2, IN * ROWS);
    void *y = probe_numbers(p->out, 3, ROWS * PITCH), *workspace = probe_bytes(WORKSPACE);
    void *first = (char *)y + first_byte(p);
    status = cublasLtMatmul(m->handle, m->desc, &one, w, m->w, x, m->x, p->sum ? &one : &zero,
                            first, m->y, first, m->y, &found[0].algo, workspace, WORKSPACE, stream);
    probe_result("cublasLtMatmul", p->name, status_of(status), y, p->out, ROWS * PITCH,
                 p->in == PROBE_F32 ? 1e-5 : 1e-2);
    PROBE_NEED(cudaFree(w));
    PROBE_NEED(cudaFree(x));
    PROBE_NEED(cudaFree(y));
    PROBE_NEED(cudaFree(workspace));
}

/* A result that is not of its factors' sizes. */
static void refusal(struct made *m, const struct product *p)
{
    cublasLtMatrixLayout_t wrong;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;

    PROBE_NEED(cublasLtMatrixLayoutCreate(&wrong, data_type(p->out), OUT + 1, ROWS, OUT + 1));
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(m->handle, m->desc, m->w, m->x, wrong,
                                                           wrong, m->preference, 1, &found, &count);
    probe_must("cublasLtMatmulAlgoGetHeuristic",
               status != CUBLAS_STATUS_SUCCESS || count == 0 ? "refused" : "taken",
               "%s of other sizes", p->name);
    PROBE_NEED(cublasLtMatrixLayoutDestroy(wrong));
}

void probe_cublas(void)
{
    static const struct product products[] = {
        {"f32", PROBE_F32, PROBE_F32, false, false, CUBLASLT_EPILOGUE_BIAS, OUT},
        {"f32 relu", PROBE_F32, PROBE_F32, false, false, CUBLASLT_EPILOGUE_RELU, OUT},
        {"tf32", PROBE_F32, PROBE_F32, true, false, CUBLASLT_EPILOGUE_RELU_BIAS, OUT},
        {"f16", PROBE_F16, PROBE_F16, false, false, CUBLASLT_EPILOGUE_RELU_BIAS, OUT},
        {"f16 bare", PROBE_F16, PROBE_F16, false, false, CUBLASLT_EPILOGUE_DEFAULT, OUT},
        {"f16 to f32", PROBE_F16, PROBE_F32, false, false, CUBLASLT_EPILOGUE_BIAS, OUT},
        {"f16 view", PROBE_F16, PROBE_F16, false, false, CUBLASLT_EPILOGUE_RELU_BIAS, PITCH},
        {"f16 sum", PROBE_F16, PROBE_F16, false, true, CUBLASLT_EPILOGUE_RELU_BIAS, OUT},
        {"f32 view", PROBE_F32, PROBE_F32, false, false, CUBLASLT_EPILOGUE_RELU_BIAS, PITCH},
        {"bf16 view", PROBE_BF16, PROBE_BF16, false, false, CUBLASLT_EPILOGUE_RELU_BIAS, PITCH},
        {"tf32 view", PROBE_F32, PROBE_F32, true, false, CUBLASLT_EPILOGUE_RELU_BIAS, PITCH},
        {"f32 sum", PROBE_F32, PROBE_F32, false, true, CUBLASLT_EPILOGUE_RELU_BIAS, OUT},
        {"bf16", PROBE_BF16, PROBE_BF16, false, false, CUBLASLT_EPILOGUE_RELU_BIAS, OUT},
        {"bf16 to f32", PROBE_BF16, PROBE_F32, false, false, CUBLASLT_EPILOGUE_BIAS, OUT},
        {"bf16 sum", PROBE_BF16, PROBE_BF16, false, true, CUBLASLT_EPILOGUE_RELU_BIAS, OUT},
    };
    cudaStream_t stream;

    PROBE_NEED(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0));
    probe_must("cublasLtGetVersion", cublasLtGetVersion() > 0 ? "a version" : "none", "asked");
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const struct product *p = &products[i];
        struct made m;
        void *bias = probe_numbers(p->out, 4, OUT);
        PROBE_NEED(cudaDeviceSynchronize());
        make(&m, p, bias);
        multiply(&m, p, stream);
        refusal(&m, p);
        destroy(&m, p);
        PROBE_NEED(cudaFree(bias));
    }
    PROBE_NEED(cudaStreamDestroy(stream));
}
