/* The way back through every operation on the CUDA device, against the CPU's plain loops
 * (whose own check is central differences, tests/device/test_gradients.c). */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda/card.h"
#include "device/training_cases.h"
#include "support/crops.h"

static struct sac_device *cuda, *cpu;

static int open_devices(void **state)
{
    (void)state;
    cuda = card_open();
    return sac_device_open(&cpu, "cpu", NULL);
}

static int close_devices(void **state)
{
    (void)state;
    sac_device_close(cuda);
    sac_device_close(cpu);
    return 0;
}

static struct sac_op_rig *run_on(struct sac_device *device, const struct sac_op_case *what,
                                 struct sac_op_options ops, int batch)
{
    struct sac_op_rig_options options = {.ops = ops, .batch = batch};
    struct sac_error err = {0};
    struct sac_op_rig *rig;

    options.ops.training = true;
    assert_ok(sac_op_rig_new(&rig, device, what, &options, &err), err);
    assert_ok(sac_op_rig_run(rig, &err), err);
    assert_ok(sac_op_rig_backward(rig, &err), err);
    return rig;
}

/* Relative to the largest number. */
static void agree(const struct sac_op_case *what, const char *which, int index, const float *fast,
                  const float *loops, size_t count, double tolerance)
{
    double most = 1e-6;

    for (size_t k = 0; k < count; k++)
        most = fabs(loops[k]) > most ? fabs(loops[k]) : most;
    for (size_t k = 0; k < count; k++)
        if (!(fabs((double)fast[k] - loops[k]) <= tolerance * most))
            fail_msg("%s, %s %d: element %zu is %g, the loops say %g", what->name, which, index, k,
                     fast[k], loops[k]);
}

static void results_agree(const struct sac_op_case *what, struct sac_op_rig *a,
                          struct sac_op_rig *b, double tolerance)
{
    for (int i = 0; i < what->dst_count; i++) {
        size_t count, other;
        float *x = sac_op_rig_result(a, i, &count), *y = sac_op_rig_result(b, i, &other);
        assert_int_equal(count, other);
        agree(what, "result", i, x, y, count, tolerance);
        free(x);
        free(y);
    }
}

static void gradients_agree(const struct sac_op_case *what, struct sac_op_rig *a,
                            struct sac_op_rig *b, double tolerance)
{
    for (int i = 0; i < what->src_count; i++) {
        float *x = sac_op_rig_source_gradient(a, i), *y = sac_op_rig_source_gradient(b, i);
        assert_int_equal(x == NULL, y == NULL);
        if (y)
            agree(what, "gradient of source", i, x, y, sac_op_rig_source_count(a, i), tolerance);
        free(x);
        free(y);
    }
    for (int i = 0; i < what->weight_count; i++) {
        size_t count;
        const float *master = sac_op_rig_master(a, i, &count);
        agree(what, "gradient of weight", i, sac_op_rig_weight_gradient(a, i),
              sac_op_rig_weight_gradient(b, i), count, tolerance);
        agree(what, "master", i, master, sac_op_rig_master(b, i, &count), count, tolerance);
    }
}

static void compare(const struct sac_op_case *what, struct sac_op_options ops, int batch,
                    double tolerance)
{
    struct sac_op_rig *fast = run_on(cuda, what, ops, batch);
    struct sac_op_rig *loops = run_on(cpu, what, (struct sac_op_options){.reference = true}, batch);

    results_agree(what, fast, loops, tolerance);
    gradients_agree(what, fast, loops, tolerance);
    sac_op_rig_free(fast);
    sac_op_rig_free(loops);
}

/* Skipped by name on a card that lacks the precision. */
static void all_cases(struct sac_op_options ops, double tolerance)
{
    struct sac_op_case own[SAC_TRAINING_OWN_MAX];
    int own_count = sac_training_own_cases(own);

    if (!card_does(cuda, ops.precision))
        skip();
    for (int i = 0; i < sac_op_case_count() + own_count; i++) {
        struct sac_op_case what =
            i < own_count ? own[i] : sac_training_case(sac_op_case(i - own_count));
        if (!sac_training_goes_back(&what))
            continue;
        for (int batch = 1; batch <= 3; batch += 2)
            compare(&what, ops, batch, tolerance);
    }
}

static void every_case_goes_back_as_the_loops_do_in_f32(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_F32}, 1e-4);
}

/* In eights and in parts, behind a ReLU: only in fp32 do both see the same signs. */
static void a_norm_and_its_relu_over_many_rows_go_back_as_the_loops_do(void **state)
{
    const struct sac_shape rows = {4, {0, 24, 14, 21}};
    struct sac_op_case what = sac_training_norm("many rows", rows, 5, true, false);

    (void)state;
    compare(&what, (struct sac_op_options){0}, 5, 1e-4);
    what = sac_training_norm("many rows, stored", rows, 5, true, true);
    compare(&what, (struct sac_op_options){0}, 5, 1e-4);
}

static void every_case_goes_back_as_the_loops_do_in_tf32(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_TF32}, 1e-3);
}

static void every_case_goes_back_as_the_loops_do_in_f16(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_F16}, 1e-2);
}

/* Results and gradients of eight bits; the CPU's bf16 has the same bound. */
static void every_case_goes_back_as_the_loops_do_in_bf16(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_BF16}, 2e-2);
}

static void our_own_kernels_do_every_case_without_libraries(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.reference = true}, 1e-4);
    all_cases((struct sac_op_options){.reference = true, .precision = SAC_PRECISION_F16}, 1e-2);
}

/* Every sum has its order from the shapes, and cuDNN is asked for algorithms that repeat. */
static void the_same_again_gives_the_same_bits(void **state)
{
    struct sac_op_options ops = {.deterministic = true};

    (void)state;
    for (int i = 0; i < sac_op_case_count(); i++) {
        struct sac_op_case what = sac_training_case(sac_op_case(i));
        if (!sac_training_goes_back(&what))
            continue;
        struct sac_op_rig *a = run_on(cuda, &what, ops, 3), *b = run_on(cuda, &what, ops, 3);
        results_agree(&what, a, b, 0);
        gradients_agree(&what, a, b, 0);
        sac_op_rig_free(a);
        sac_op_rig_free(b);
    }
}

static float first_result(struct sac_op_rig *rig)
{
    struct sac_error err = {0};
    size_t count;

    assert_ok(sac_op_rig_run(rig, &err), err);
    float *result = sac_op_rig_result(rig, 0, &count), out = result[0];
    free(result);
    return out;
}

/* 1 · 3 + 0, then with the weight 5, and packed copies of it in fp16. */
static void packed_copies_follow_their_masters(void **state)
{
    const enum sac_precision precisions[] = {SAC_PRECISION_F32, SAC_PRECISION_F16};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sac_op_case what = sac_op_case_inner("ip", 1, 1, 1, 1);
        struct sac_op_options ops = {.precision = precisions[i]};
        size_t count;
        if (!card_does(cuda, ops.precision))
            skip();
        what = sac_training_case(&what);
        struct sac_op_rig *rig = run_on(cuda, &what, ops, 1);
        sac_op_rig_source_numbers(rig, 0)[0] = 1;
        sac_op_rig_master(rig, 1, &count)[0] = 0;
        sac_op_rig_master(rig, 0, &count)[0] = 3;
        sac_op_rig_masters_changed(rig);
        assert_float_equal(first_result(rig), 3, 0);
        sac_op_rig_master(rig, 0, &count)[0] = 5;
        sac_op_rig_masters_changed(rig);
        assert_float_equal(first_result(rig), 5, 0);
        sac_op_rig_free(rig);
    }
}

/* ---- Crops ---------------------------------------------------------------- */

enum {
    ITEMS = 5,
    CHANNELS = 3,
    HEIGHT = 6,
    WIDTH = 7,
    SIDE = 11,
    CROP = CHANNELS * HEIGHT * WIDTH
};

/* Through memory of the device's own; NULL stays NULL. */
static void *on_device(const void *from, size_t bytes)
{
    void *memory = NULL, *staging = NULL;
    struct sac_stream *stream = NULL;
    struct sac_error err = {0};

    if (!from)
        return NULL;
    assert_ok(cuda->table->memory_new(cuda, SAC_MEMORY_DEVICE, bytes, &memory, &err), err);
    assert_ok(cuda->table->memory_new(cuda, SAC_MEMORY_STAGING, bytes, &staging, &err), err);
    assert_ok(cuda->table->stream_new(cuda, &stream, &err), err);
    memcpy(staging, from, bytes);
    assert_ok(cuda->table->copy(stream, SAC_COPY_TO_DEVICE, memory, staging, bytes, &err), err);
    assert_ok(cuda->table->stream_sync(stream, &err), err);
    cuda->table->stream_free(stream);
    cuda->table->memory_free(cuda, SAC_MEMORY_STAGING, staging);
    return memory;
}

static void crops_on_device(const struct sac_crops *host, size_t mean_count, float *ret)
{
    struct sac_crops p = *host;
    size_t bytes = ITEMS * CROP * sizeof(float);
    void *memory[] = {on_device(host->from, ITEMS * CROP),
                      on_device(host->places, ITEMS * sizeof *host->places),
                      on_device(host->mean, mean_count * sizeof(float)), on_device(ret, bytes)};
    struct sac_stream *stream = NULL;
    struct sac_error err = {0};
    void *staging = NULL;

    p.from = memory[0];
    p.places = memory[1];
    p.mean = memory[2];
    p.to = memory[3];
    assert_ok(cuda->table->memory_new(cuda, SAC_MEMORY_STAGING, bytes, &staging, &err), err);
    assert_ok(cuda->table->stream_new(cuda, &stream, &err), err);
    assert_ok(cuda->table->crops(stream, &p, &err), err);
    assert_ok(cuda->table->copy(stream, SAC_COPY_TO_HOST, staging, p.to, bytes, &err), err);
    assert_ok(cuda->table->stream_sync(stream, &err), err);
    memcpy(ret, staging, bytes);
    cuda->table->stream_free(stream);
    cuda->table->memory_free(cuda, SAC_MEMORY_STAGING, staging);
    for (int i = 0; i < 4; i++)
        if (memory[i])
            cuda->table->memory_free(cuda, SAC_MEMORY_DEVICE, memory[i]);
}

/* Against plain loops over device/crops.h's formula: padding, mirrors, both layouts, no
 * mean, one, three, an image of the picture's and of the crop's size. */
static void crops_of_bytes_become_the_numbers_of_the_formula(void **state)
{
    static const struct sac_crop_layout layouts[] = {{0, HEIGHT * WIDTH, WIDTH, 1},
                                                     {2, -1, WIDTH * CHANNELS, CHANNELS}};
    static const struct sac_crop_place places[ITEMS] = {{0, 0, SIDE, SIDE, 0},
                                                        {-2, 3, SIDE, SIDE, 1},
                                                        {4, 5, SIDE, SIDE, 1},
                                                        {6, -4, SIDE, SIDE, 0},
                                                        {-3, -3, SIDE, SIDE, 1}};
    static const int mean_counts[] = {0, 1, 3, 0, 0},
                     mean_sides[][2] = {{0, 0}, {0, 0}, {0, 0}, {SIDE, SIDE}, {HEIGHT, WIDTH}};
    static uint8_t bytes[ITEMS * CROP];
    static float mean[CHANNELS * SIDE * SIDE], wanted[ITEMS * CROP], got[ITEMS * CROP];

    (void)state;
    for (int i = 0; i < ITEMS * CROP; i++)
        bytes[i] = (uint8_t)(i * 37 + i / 11);
    for (int i = 0; i < CHANNELS * SIDE * SIDE; i++)
        mean[i] = (float)(i % 101) * 1.25f;
    for (int i = 0; i < 10; i++) {
        struct sac_crops p = {.from = bytes,
                              .places = places,
                              .count = ITEMS,
                              .channels = CHANNELS,
                              .height = HEIGHT,
                              .width = WIDTH,
                              .layout = layouts[i / 5],
                              .mean = i % 5 == 0 ? NULL : mean,
                              .mean_count = mean_counts[i % 5],
                              .mean_height = mean_sides[i % 5][0],
                              .mean_width = mean_sides[i % 5][1],
                              .scale = .017f};
        crop_values(&p, wanted);
        memset(got, 0xff, sizeof got);
        crops_on_device(&p, sizeof mean / sizeof *mean, got);
        assert_memory_equal(got, wanted, sizeof got);
    }
}

/* Against what the host does to floats; each change alone and all at once, with one to three
 * channels, of either order. A card may add and multiply in one rounding. */
static void crops_are_changed_as_the_host_changes_pictures(void **state)
{
    static const struct sac_crop_layout pixels = {2, -1, WIDTH * CHANNELS, CHANNELS},
                                        planes = {0, HEIGHT * WIDTH, WIDTH, 1};
    static const float mean[CHANNELS] = {104, 117, 123};
    static uint8_t bytes[ITEMS * CROP];
    static float wanted[ITEMS * CROP], got[ITEMS * CROP];
    struct sac_crop_place places[ITEMS];

    (void)state;
    for (int i = 0; i < ITEMS * CROP; i++)
        bytes[i] = (uint8_t)(i * 37 + i / 11);
    for (int n = 0; n < ITEMS; n++)
        places[n] = (struct sac_crop_place){n - 2,
                                            n,
                                            SIDE,
                                            SIDE,
                                            n % 2,
                                            {.brightness = .7f + .2f * (float)n,
                                             .contrast = 1.6f - .3f * (float)n,
                                             .saturation = .4f * (float)n,
                                             .grey = 90.f + (float)n,
                                             .hue = .11f * (float)n - .2f,
                                             .rgb = n % 3 == 0,
                                             .noise_key = {7, 9},
                                             .noise_counter = {5, (uint32_t)n, 1, 2},
                                             .noise_first = (uint32_t)n % 4,
                                             .cut_left = n,
                                             .cut_top = 1,
                                             .cut_right = n + 2,
                                             .cut_bottom = 1 + n}};
    for (int i = 0; i < 7 * CHANNELS; i++) {
        int channels = 1 + i / 7,
            all = channels == 3 ? 63 : 63 - SAC_CROP_SATURATION - SAC_CROP_HUE;
        struct sac_crops p = {.from = bytes,
                              .places = places,
                              .count = ITEMS,
                              .channels = channels,
                              .height = HEIGHT,
                              .width = WIDTH,
                              .layout = channels == 3 ? pixels : planes,
                              .mean = mean,
                              .mean_count = channels,
                              .scale = .017f,
                              .changes = (unsigned)(i % 7 < 6 ? 1 << i % 7 & all : all),
                              .noise_deviation = .3f};
        crop_values(&p, wanted);
        memset(got, 0xff, sizeof got);
        crops_on_device(&p, CHANNELS, got);
        for (int k = 0; k < ITEMS * channels * HEIGHT * WIDTH; k++)
            assert_true(fabsf(got[k] - wanted[k]) < 1e-4f);
    }
}

/* Where the CPU refuses, a loss that is no number stops the training with a sentence. */
static void a_label_that_is_no_class_makes_the_loss_nan(void **state)
{
    const float wrong[] = {10, -1, .5f, NAN};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct sac_op_case what =
            sac_training_loss("loss", SAC_OP_SOFTMAX_LOSS, (struct sac_shape){2, {0, 10}},
                              (struct sac_shape){1, {0}});
        struct sac_op_rig *rig = run_on(cuda, &what, (struct sac_op_options){0}, 3);
        assert_true(isfinite(first_result(rig)));
        sac_op_rig_source_numbers(rig, 1)[2] = wrong[i];
        assert_true(isnan(first_result(rig)));
        sac_op_rig_free(rig);
    }
}

/* Worked by hand: rows hit at top 1, tied for the top, and third. */
static void accuracy_counts_ties_against_the_label(void **state)
{
    const float scores[] = {1, 5, 2, 3, 7, 0, 7, 1, 4, 3, 2, 1}, labels[] = {1, 0, 2};
    const float expected[] = {1 / 3.f, 2 / 3.f, 1};

    (void)state;
    for (int k = 1; k <= 3; k++) {
        struct sac_op_case what = sac_training_loss(
            "accuracy", SAC_OP_ACCURACY, (struct sac_shape){2, {0, 4}}, (struct sac_shape){1, {0}});
        struct sac_op_rig_options options = {.batch = 3};
        struct sac_error err = {0};
        struct sac_op_rig *rig;
        what.param.loss.top_k = k;
        assert_ok(sac_op_rig_new(&rig, cuda, &what, &options, &err), err);
        memcpy(sac_op_rig_source_numbers(rig, 0), scores, sizeof scores);
        memcpy(sac_op_rig_source_numbers(rig, 1), labels, sizeof labels);
        assert_float_equal(first_result(rig), expected[k - 1], 1e-6);
        sac_op_rig_free(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_goes_back_as_the_loops_do_in_f32),
        cmocka_unit_test(a_norm_and_its_relu_over_many_rows_go_back_as_the_loops_do),
        cmocka_unit_test(every_case_goes_back_as_the_loops_do_in_tf32),
        cmocka_unit_test(every_case_goes_back_as_the_loops_do_in_f16),
        cmocka_unit_test(every_case_goes_back_as_the_loops_do_in_bf16),
        cmocka_unit_test(our_own_kernels_do_every_case_without_libraries),
        cmocka_unit_test(the_same_again_gives_the_same_bits),
        cmocka_unit_test(packed_copies_follow_their_masters),
        cmocka_unit_test(crops_of_bytes_become_the_numbers_of_the_formula),
        cmocka_unit_test(crops_are_changed_as_the_host_changes_pictures),
        cmocka_unit_test(a_label_that_is_no_class_makes_the_loss_nan),
        cmocka_unit_test(accuracy_counts_ties_against_the_label),
    };

    card_or_skip();
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
