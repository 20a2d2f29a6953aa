#include "device/cuda/matmul.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "device/cuda/algorithms.h"
#include "device/cuda/tune.h"

enum { WORKSPACE_MAX = 32 << 20, ALIGNMENT = 64, PROPOSALS = 8 };

void sac_matmul_free(void *matmul)
{
    struct sac_matmul *m = matmul;

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

/* ---- Descriptions --------------------------------------------------------- */

cudaDataType_t sac_cuda_data_type(enum sac_type type)
{
    return type == SAC_F16 ? CUDA_R_16F : type == SAC_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

bool sac_matmul_set_bias(struct sac_matmul *m, const void *bias)
{
    return cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                          sizeof bias) == CUBLAS_STATUS_SUCCESS;
}

/* An algorithm for a bias is looked for with one: any aligned address, until the
 * weights are there. */
static bool set_epilogue(struct sac_matmul *m, const struct sac_matmul_shape *s)
{
    cublasLtEpilogue_t epilogue = s->bias && s->relu ? CUBLASLT_EPILOGUE_RELU_BIAS
                                  : s->bias          ? CUBLASLT_EPILOGUE_BIAS
                                  : s->relu          ? CUBLASLT_EPILOGUE_RELU
                                                     : CUBLASLT_EPILOGUE_DEFAULT;

    return cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                          sizeof epilogue) == CUBLAS_STATUS_SUCCESS &&
           (!s->bias || sac_matmul_set_bias(m, (const void *)(uintptr_t)4096));
}

/* Column-major to cuBLAS: y [out × rows] = wᵀ [in × out]ᵀ · x [in × rows]. */
static bool describe(struct sac_matmul *m, const struct sac_matmul_shape *s)
{
    bool tf32 = s->precision == SAC_PRECISION_TF32;
    cublasComputeType_t compute = tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t transposed = CUBLAS_OP_T;
    uint64_t in = (uint64_t)s->in, out = (uint64_t)s->out, rows = (uint64_t)s->rows;
    cudaDataType_t type = sac_cuda_data_type(s->type);

    return cublasLtMatmulDescCreate(&m->desc, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(m->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                          sizeof transposed) == CUBLAS_STATUS_SUCCESS &&
           set_epilogue(m, s) &&
           cublasLtMatrixLayoutCreate(&m->w, type, in, out, s->in) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&m->x, type, in, rows, s->in) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&m->y, sac_cuda_data_type(s->y_type), out, rows, s->pitch) ==
               CUBLAS_STATUS_SUCCESS;
}

uint32_t sac_matmul_alignment(uint64_t at)
{
    uint64_t with_most = at | ALIGNMENT;

    return (uint32_t)(with_most & -with_most);
}

static uint32_t alignment_of_y(const struct sac_matmul_shape *s)
{
    return s->alignment > 0 ? s->alignment : ALIGNMENT;
}

bool sac_matmul_preference(cublasLtMatmulPreference_t *ret, uint32_t alignment_of_result)
{
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    size_t most = WORKSPACE_MAX;
    bool good = cublasLtMatmulPreferenceCreate(ret) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatmulPreferenceSetAttribute(*ret, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                     &most, sizeof most) == CUBLAS_STATUS_SUCCESS;

    for (int i = 0; i < 4 && good; i++) {
        uint32_t alignment = i < 2 ? ALIGNMENT : alignment_of_result;
        good = cublasLtMatmulPreferenceSetAttribute(*ret, aligned[i], &alignment,
                                                    sizeof alignment) == CUBLAS_STATUS_SUCCESS;
    }
    return good;
}

/* What is proposed depends on where y stands too. */
static void name_question(const struct sac_matmul_shape *s, char *text, size_t size)
{
    char on[24] = "";

    if (alignment_of_y(s) != ALIGNMENT)
        snprintf(on, sizeof on, " on %u", (unsigned)alignment_of_y(s));
    snprintf(text, size,
             "matmul %s to %s rows %" PRId64 " in %" PRId64 " out %" PRId64 " %" PRId64 "%s%s%s%s",
             sac_precision_name(s->precision), sac_type_name(s->y_type), s->rows, s->in, s->out,
             s->pitch, on, s->bias ? " bias" : "", s->relu ? " relu" : "", s->sum ? " sum" : "");
}

/* ---- Which is fastest ----------------------------------------------------- */

struct trial {
    struct sac_matmul *matmul;
    struct sac_cuda_device *device;
    char *w, *x, *y, *workspace;
};

static bool enqueue(void *user)
{
    const struct trial *t = user;

    return sac_matmul_run(t->matmul, t->device, t->device->stream, t->w, t->x, t->y, t->y,
                          t->workspace) == CUBLAS_STATUS_SUCCESS;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

/* False where there is no room. */
static bool begin_trial(struct trial *t, struct sac_matmul *m, struct sac_cuda_device *device,
                        const struct sac_matmul_shape *s)
{
    size_t type = sac_type_bytes(s->type), w = aligned((size_t)(s->in * s->out) * type);
    size_t x = aligned((size_t)(s->in * s->rows) * type);
    size_t y = aligned((size_t)(s->pitch * s->rows) * sac_type_bytes(s->y_type));
    size_t bias = aligned((size_t)s->out * sizeof(float));
    char *memory = sac_cuda_trial_memory(device, w + x + y + bias + WORKSPACE_MAX);

    if (!memory)
        return false;
    *t = (struct trial){m, device, memory, memory + w, memory + w + x, memory + w + x + y + bias};
    return !s->bias || sac_matmul_set_bias(m, memory + w + x + y);
}

/* The proposal that runs fastest; the first where they cannot be run. */
static int measure(struct sac_matmul *m, struct sac_cuda_device *device,
                   const struct sac_matmul_shape *s,
                   const cublasLtMatmulHeuristicResult_t *proposals, int count)
{
    struct trial trial;
    float least = -1;
    int best = 0;

    if (!begin_trial(&trial, m, device, s))
        return 0;
    for (int i = 0; i < count; i++) {
        m->found = proposals[i];
        float ms = sac_cuda_time(device, enqueue, &trial);
        if (ms >= 0 && (least < 0 || ms < least)) {
            least = ms;
            best = i;
        }
    }
    sac_cuda_trial_free(device, trial.w);
    return best;
}

float sac_matmul_ms(struct sac_matmul *m, struct sac_cuda_device *device,
                    const struct sac_matmul_shape *shape)
{
    struct trial trial;
    float ms = -1;

    pthread_mutex_lock(&device->lock);
    if (begin_trial(&trial, m, device, shape)) {
        ms = sac_cuda_time(device, enqueue, &trial);
        sac_cuda_trial_free(device, trial.w);
    }
    pthread_mutex_unlock(&device->lock);
    return ms;
}

/* Under the device's lock. */
static bool choose(struct sac_matmul *m, struct sac_cuda_device *device,
                   const struct sac_matmul_shape *s)
{
    cublasLtMatmulHeuristicResult_t proposals[PROPOSALS];
    int count = 0, most = s->first ? 1 : PROPOSALS;
    struct sac_algorithm best = {0};
    char question[160];

    if (cublasLtMatmulAlgoGetHeuristic(device->cublas, m->desc, m->w, m->x, m->y, m->y,
                                       m->preference, most, proposals,
                                       &count) != CUBLAS_STATUS_SUCCESS ||
        count < 1)
        return false;
    name_question(s, question, sizeof question);
    if (!s->first &&
        (!sac_algorithms_find(device->algorithms, question, &best) || best.algorithm >= count)) {
        best = (struct sac_algorithm){0};
        if (sac_cuda_may_measure()) {
            best.algorithm = measure(m, device, s, proposals, count);
            sac_algorithms_add(device->algorithms, question, true, &best);
        }
    }
    m->found = proposals[best.algorithm < count ? best.algorithm : 0];
    return true;
}

struct sac_matmul *sac_matmul_new(struct sac_cuda_device *device,
                                  const struct sac_matmul_shape *shape)
{
    struct sac_matmul *m = calloc(1, sizeof *m);

    if (!m)
        return NULL;
    m->sum = shape->sum;
    pthread_mutex_lock(&device->lock);
    bool good = describe(m, shape) &&
                sac_matmul_preference(&m->preference, alignment_of_y(shape)) &&
                choose(m, device, shape);
    pthread_mutex_unlock(&device->lock);
    if (good)
        return m;
    cudaGetLastError();
    sac_matmul_free(m);
    return NULL;
}

cublasStatus_t sac_matmul_run(const struct sac_matmul *m, struct sac_cuda_device *device,
                              cudaStream_t stream, const void *w, const void *x, const void *sum,
                              void *y, void *workspace)
{
    const float one = 1, zero = 0;

    return cublasLtMatmul(device->cublas, m->desc, &one, w, m->w, x, m->x, m->sum ? &one : &zero,
                          m->sum ? sum : y, m->y, y, m->y, &m->found.algo, workspace,
                          m->found.workspaceSize, stream);
}
