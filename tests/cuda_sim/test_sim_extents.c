/* What kernel_extents.c says of each kernel: memory of just that size is enough
 * (under the address sanitizer the kernel itself proves it), one byte less is
 * told, and so is a missing wait. */
#include "cuda_sim/rig.h"

#include "kernels/kernels.h"

enum { ROWS = 12, CHANNELS = 8, PITCH = 11, AREAS_MAX = 6 };

/* The device memory of a call, each of just its size. */
struct areas {
    size_t bytes[AREAS_MAX];
    char *at[AREAS_MAX];
    int count;
};

typedef cudaError_t call_fn(char *const *at, cudaStream_t stream);

static cudaError_t call_copy(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_copy p = {at[0],         at[1],     SAC_F32, SAC_F16, 2, {ROWS, CHANNELS},
                                {CHANNELS, 1}, {PITCH, 1}};

    return sac_kernel_copy(&p, stream);
}

static cudaError_t call_map(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_map p = {.map = SAC_MAP_LINEAR,
                               .x = at[0],
                               .sum = at[1],
                               .y = at[2],
                               .type = SAC_F16,
                               .count = ROWS * CHANNELS,
                               .factor = at[3],
                               .factor_type = SAC_F32,
                               .bias = (float *)at[4],
                               .inner = 1,
                               .factors = CHANNELS};

    return sac_kernel_map(&p, stream);
}

static cudaError_t call_eltwise(char *const *at, cudaStream_t stream)
{
    const void *x[3] = {at[0], at[1], at[2]};
    struct sac_kernel_eltwise p = {.method = SAC_ELTWISE_SUM,
                                   .x = x,
                                   .sources = 3,
                                   .y = at[3],
                                   .type = SAC_BF16,
                                   .count = ROWS * CHANNELS};

    return sac_kernel_eltwise(&p, stream);
}

/* 4 × 3 to 4 × 3 by a 3 × 3 window. */
static struct sac_kernel_window window(char *const *at)
{
    return (struct sac_kernel_window){.x = at[0],
                                      .y = at[1],
                                      .x_type = SAC_F32,
                                      .y_type = SAC_F16,
                                      .batch = 1,
                                      .x_height = 4,
                                      .x_width = 3,
                                      .x_channels = CHANNELS,
                                      .y_height = 4,
                                      .y_width = 3,
                                      .y_channels = CHANNELS,
                                      .x_pitch = CHANNELS,
                                      .y_pitch = PITCH,
                                      .kernel = {3, 3},
                                      .stride = {1, 1},
                                      .pad = {1, 1},
                                      .dilation = {1, 1}};
}

static cudaError_t call_pool(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_window w = window(at);

    return sac_kernel_pool(&w, SAC_POOL_MAX, stream);
}

static cudaError_t call_conv(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_window w = window(at);

    return sac_kernel_conv(&w, at[2], 2, stream);
}

static cudaError_t call_depthwise(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_window w = window(at);

    return sac_kernel_depthwise(&w, at[2], (float *)at[3], true, 0, stream);
}

static cudaError_t call_deconv(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_window w = window(at);

    return sac_kernel_deconv(&w, at[2], 2, stream);
}

static struct sac_kernel_lrn lrn(char *const *at)
{
    return (struct sac_kernel_lrn){.x = at[0],
                                   .y = at[1],
                                   .type = SAC_F32,
                                   .batch = 1,
                                   .height = 4,
                                   .width = 3,
                                   .channels = CHANNELS,
                                   .x_pitch = CHANNELS,
                                   .y_pitch = PITCH,
                                   .size = 5,
                                   .alpha = 1,
                                   .beta = .75f,
                                   .k = 1};
}

static cudaError_t call_lrn_across(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_lrn p = lrn(at);

    return sac_kernel_lrn_across(&p, stream);
}

static cudaError_t call_lrn_within(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_lrn p = lrn(at);

    return sac_kernel_lrn_within(&p, stream);
}

static cudaError_t call_softmax(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_softmax p = {at[0], (float *)at[1], SAC_F16, ROWS, CHANNELS, 1};

    return sac_kernel_softmax(&p, stream);
}

static cudaError_t call_topk(char *const *at, cudaStream_t stream)
{
    return sac_kernel_topk(at[0], SAC_F32, ROWS, CHANNELS, 5, (struct sac_topk_pair *)at[1],
                           stream);
}

static cudaError_t call_pixels(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_pixels p = {.x = (uint8_t *)at[0],
                                  .y = at[1],
                                  .type = SAC_F16,
                                  .batch = 2,
                                  .plane = ROWS,
                                  .channels = 3,
                                  .width = 3,
                                  .mean_image = (float *)at[2],
                                  .scale = 1};

    return sac_kernel_pixels(&p, stream);
}

static cudaError_t call_statistics(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_statistics p = {.x = at[0],
                                      .type = SAC_F32,
                                      .outer = 2,
                                      .channels = CHANNELS,
                                      .inner = ROWS,
                                      .eps = 1e-5f,
                                      .work = (float *)at[3],
                                      .factor = (float *)at[1],
                                      .bias = (float *)at[2],
                                      .whole = (float *)at[4]};

    return sac_kernel_statistics(&p, stream);
}

static cudaError_t call_inner(char *const *at, cudaStream_t stream)
{
    struct sac_kernel_inner p = {.x = at[0],
                                 .weights = at[1],
                                 .bias = (float *)at[2],
                                 .y = at[3],
                                 .type = SAC_F16,
                                 .y_type = SAC_F32,
                                 .rows = 3,
                                 .in = 7,
                                 .out = 5};

    return sac_kernel_inner(&p, stream);
}

/* Bytes that a strided result spans: all rows but the last have their whole pitch. */
enum { SPAN = (ROWS - 1) * PITCH + CHANNELS, FULL = ROWS * CHANNELS };

static const struct {
    const char *name;
    call_fn *call;
    size_t bytes[AREAS_MAX]; /* by the formula: numbers × their bytes */
    unsigned written;        /* bit (1 << area) */
} kernels[] = {
    {"copy", call_copy, {FULL * 4, SPAN * 2}, 1 << 1},
    {"map", call_map, {FULL * 2, FULL * 2, FULL * 2, CHANNELS * 4, CHANNELS * 4}, 1 << 2},
    {"eltwise", call_eltwise, {FULL * 2, FULL * 2, FULL * 2, FULL * 2}, 1 << 3},
    {"pool", call_pool, {FULL * 4, SPAN * 2}, 1 << 1},
    {"conv", call_conv, {FULL * 4, SPAN * 2, 9 * 4 * 8 * 4}, 1 << 1},
    {"depthwise", call_depthwise, {FULL * 4, SPAN * 2, 9 * 8 * 4, 8 * 4}, 1 << 1},
    {"deconv", call_deconv, {FULL * 4, SPAN * 2, 9 * 8 * 4 * 4}, 1 << 1},
    {"lrn across", call_lrn_across, {FULL * 4, SPAN * 4}, 1 << 1},
    {"lrn within", call_lrn_within, {FULL * 4, SPAN * 4}, 1 << 1},
    {"softmax", call_softmax, {FULL * 2, FULL * 4}, 1 << 1},
    {"topk", call_topk, {FULL * 4, ROWS * 5 * 8}, 1 << 1},
    {"pixels", call_pixels, {2 * ROWS * 3, 2 * ROWS * 3 * 2, ROWS * 3 * 4}, 1 << 1},
    {"statistics",
     call_statistics,
     {2 * FULL * 4, CHANNELS * 4, CHANNELS * 4, 2 * CHANNELS * 4, 2 * CHANNELS * 4},
     1 << 1 | 1 << 2 | 1 << 3 | 1 << 4},
    {"inner", call_inner, {21 * 2, 35 * 2, 5 * 4, 15 * 4}, 1 << 3},
};

enum { KERNELS = sizeof kernels / sizeof kernels[0] };

static void take(struct areas *a, const size_t *bytes, int shorter)
{
    *a = (struct areas){0};
    for (; a->count < AREAS_MAX && bytes[a->count] > 0; a->count++) {
        a->bytes[a->count] = bytes[a->count] - (a->count == shorter);
        must(cudaMalloc((void **)&a->at[a->count], a->bytes[a->count]));
        must(cudaMemsetAsync(a->at[a->count], 0, a->bytes[a->count], NULL));
    }
    must(cudaDeviceSynchronize());
}

static void give_back(struct areas *a)
{
    for (int i = 0; i < a->count; i++)
        must(cudaFree(a->at[i]));
}

static void memory_of_just_the_size_is_enough(void **state)
{
    (void)state;
    for (int k = 0; k < KERNELS; k++) {
        struct areas a;

        take(&a, kernels[k].bytes, -1);
        must(kernels[k].call(a.at, NULL));
        give_back(&a);
    }
}

static void a_byte_less_is_told(void **state)
{
    (void)state;
    sim_checks_set(SIM_CHECKS_RECORD);
    for (int k = 0; k < KERNELS; k++)
        for (int shorter = 0; kernels[k].bytes[shorter] > 0; shorter++) {
            struct areas a;

            take(&a, kernels[k].bytes, shorter);
            assert_int_equal(kernels[k].call(a.at, NULL), cudaErrorIllegalAddress);
            if (sim_checks_failed() == 0)
                fail_msg("%s: area %d is not checked", kernels[k].name, shorter);
            sim_checks_clear();
            give_back(&a);
        }
    sim_checks_set(SIM_CHECKS_ABORT);
}

/* Each area is filled on one stream and the kernel runs on another. */
static void a_missing_wait_is_told(void **state)
{
    cudaStream_t first, second;

    (void)state;
    must(cudaStreamCreateWithPriority(&first, cudaStreamNonBlocking, 0));
    must(cudaStreamCreateWithPriority(&second, cudaStreamNonBlocking, 0));
    sim_checks_set(SIM_CHECKS_RECORD);
    for (int k = 0; k < KERNELS; k++)
        for (int i = 0; kernels[k].bytes[i] > 0; i++) {
            const char *words = kernels[k].written >> i & 1 ? "writes '" : "reads '";
            struct areas a;

            take(&a, kernels[k].bytes, -1);
            must(cudaMemsetAsync(a.at[i], 0, a.bytes[i], first));
            must(kernels[k].call(a.at, second));
            if (sim_checks_failed() != 1)
                fail_msg("%s: area %d: %d checks failed", kernels[k].name, i, sim_checks_failed());
            if (!strstr(sim_checks_last(), words))
                fail_msg("%s: %s", kernels[k].name, sim_checks_last());
            must(cudaDeviceSynchronize());
            sim_checks_clear();
            give_back(&a);
        }
    sim_checks_set(SIM_CHECKS_ABORT);
    must(cudaStreamDestroy(first));
    must(cudaStreamDestroy(second));
}

/* Two streams that fill the parts of one value, side by side in each row. */
static void parts_side_by_side_are_no_race(void **state)
{
    cudaStream_t stream[2];
    char *x, *y;

    (void)state;
    must(cudaMalloc((void **)&x, FULL * 4));
    must(cudaMalloc((void **)&y, ROWS * 2 * CHANNELS * 4));
    must(cudaMemsetAsync(x, 0, FULL * 4, NULL));
    must(cudaDeviceSynchronize());
    for (int i = 0; i < 2; i++) {
        struct sac_kernel_copy p = {x,
                                    y + i * CHANNELS * 4,
                                    SAC_F32,
                                    SAC_F32,
                                    3,
                                    {2, ROWS / 2, CHANNELS},
                                    {FULL / 2, CHANNELS, 1},
                                    {FULL, 2 * CHANNELS, 1}};

        must(cudaStreamCreateWithPriority(&stream[i], cudaStreamNonBlocking, 0));
        must(sac_kernel_copy(&p, stream[i]));
    }
    must(cudaDeviceSynchronize());
    for (int i = 0; i < 2; i++)
        must(cudaStreamDestroy(stream[i]));
    must(cudaFree(x));
    must(cudaFree(y));
}

#define CASE(name) cmocka_unit_test_teardown(name, rig_nothing_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(memory_of_just_the_size_is_enough),
        CASE(a_byte_less_is_told),
        CASE(a_missing_wait_is_told),
        CASE(parts_side_by_side_are_no_race),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
