/* The op cases on the CUDA device, against the CPU's plain loops. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda/card.h"
#include "device/op_cases.h"

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
                                 struct sac_op_rig_options options)
{
    struct sac_error err = {0};
    struct sac_op_rig *rig;

    assert_ok(sac_op_rig_new(&rig, device, what, &options, &err), err);
    assert_ok(sac_op_rig_run(rig, &err), err);
    return rig;
}

/* Relative to the largest number of the result. */
static void agree(const struct sac_op_case *what, struct sac_op_rig *a, struct sac_op_rig *b,
                  double tolerance)
{
    for (int i = 0; i < what->dst_count; i++) {
        size_t count, other;
        float *x = sac_op_rig_result(a, i, &count), *y = sac_op_rig_result(b, i, &other);
        double most = 1e-6;
        assert_int_equal(count, other);
        for (size_t k = 0; k < count; k++)
            most = fabs(y[k]) > most ? fabs(y[k]) : most;
        for (size_t k = 0; k < count; k++)
            if (!(fabs((double)x[k] - y[k]) <= tolerance * most))
                fail_msg("%s (%s): element %zu is %g, the loops say %g", what->name,
                         sac_op_rig_caps(a)->kernel, k, x[k], y[k]);
        free(x);
        free(y);
    }
}

static void compare(const struct sac_op_case *what, struct sac_op_rig_options options,
                    double tolerance)
{
    struct sac_op_rig *fast = run_on(cuda, what, options);
    struct sac_op_rig_options plain = {.ops = {.reference = true}, .batch = options.batch};
    struct sac_op_rig *loops = run_on(cpu, what, plain);

    agree(what, fast, loops, tolerance);
    sac_op_rig_free(fast);
    sac_op_rig_free(loops);
}

/* Skipped by name on a card that lacks the precision. */
static void all_cases(struct sac_op_options ops, double tolerance)
{
    if (!card_does(cuda, ops.precision))
        skip();
    for (int i = 0; i < sac_op_case_count(); i++)
        for (int batch = 1; batch <= 3; batch += 2)
            compare(sac_op_case(i), (struct sac_op_rig_options){.ops = ops, .batch = batch},
                    tolerance);
}

static void every_case_agrees_with_the_loops_in_f32(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_F32}, 1e-4);
}

static void every_case_agrees_with_the_loops_in_tf32(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_TF32}, 1e-3);
}

static void every_case_agrees_with_the_loops_in_f16(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_F16}, 1e-2);
}

static void every_case_agrees_with_the_loops_in_bf16(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_BF16}, 1e-2);
}

static void our_own_kernels_do_every_case_without_libraries(void **state)
{
    (void)state;
    all_cases((struct sac_op_options){.reference = true}, 1e-4);
    all_cases((struct sac_op_options){.reference = true, .precision = SAC_PRECISION_F16}, 1e-2);
}

static const char *kernel_of(const char *name, struct sac_op_options ops)
{
    for (int i = 0; i < sac_op_case_count(); i++) {
        if (strcmp(sac_op_case(i)->name, name) != 0)
            continue;
        struct sac_op_rig *rig =
            run_on(cuda, sac_op_case(i), (struct sac_op_rig_options){.ops = ops, .batch = 1});
        const char *kernel = sac_op_rig_caps(rig)->kernel;
        sac_op_rig_free(rig);
        return kernel;
    }
    fail_msg("there is no case %s", name);
    return NULL;
}

static void libraries_do_what_they_are_for(void **state)
{
    const struct sac_op_options fast = {0}, same = {.deterministic = true};
    const char *before = getenv("SACCADE_ALGORITHMS");

    (void)state;
    card_guess_or_measure("guess");
    assert_string_equal(kernel_of("3×3 padded", fast), "cuDNN");
    assert_string_equal(kernel_of("5×5 in 2 groups", fast), "cuDNN");
    assert_string_equal(kernel_of("deconvolution 4×4/2 padded", fast), "cuDNN");
    assert_string_equal(kernel_of("inner product of an image", fast), "cuBLASLt");
    assert_string_equal(kernel_of("depthwise 3×3", fast), "depthwise");
    assert_string_equal(kernel_of("3×3 padded", same), "cuDNN"); /* a picture at a time */
    assert_string_equal(kernel_of("1×1 to 1000 classes", same), "direct");
    assert_string_equal(kernel_of("inner product of an image", same), "direct");
    card_guess_or_measure(before);
}

/* cuBLASLt's first proposal for it asks for some, in the simulator and mostly on cards. */
static void an_operation_with_too_little_workspace_is_refused(void **state)
{
    const struct sac_op_case what = sac_op_case_inner("short", 64, 3, 3, 40);
    struct sac_op_rig_options options = {.batch = 2};
    struct sac_op_rig *rig = run_on(cuda, &what, options);
    struct sac_error err = {0};
    bool has_any = sac_op_rig_caps(rig)->workspace_bytes > 0;

    (void)state;
    sac_op_rig_free(rig);
    if (!has_any)
        skip();
    options.workspace_short = 1;
    assert_int_equal(sac_op_rig_new(&rig, cuda, &what, &options, &err), SAC_EINVAL);
    assert_says(err, "bytes of workspace and is bound to");
}

/* Which of the two is faster is measured, or guessed. */
static void convolutions_of_one_tap_are_products_unless_cudnn_is_faster(void **state)
{
    const struct sac_op_options fast = {0};
    const char *before = getenv("SACCADE_ALGORITHMS");

    (void)state;
    card_guess_or_measure("guess");
    assert_string_equal(kernel_of("1×1, 64 to 16", fast), "cuBLASLt");
    assert_string_equal(kernel_of("1×1 with stride 2", fast), "cuDNN");
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_F32}, 1e-4);
    all_cases((struct sac_op_options){.precision = SAC_PRECISION_F16}, 1e-2);
    card_guess_or_measure(before);
}

static int with_view(bool in_place, enum sac_precision precision)
{
    int checked = 0;

    for (int i = 0; i < sac_op_case_count(); i++) {
        struct sac_op_rig_options options = {.ops = {.precision = precision}, .batch = 2};
        struct sac_op_rig *rig = run_on(cuda, sac_op_case(i), options);
        const struct sac_op_caps caps = *sac_op_rig_caps(rig);
        sac_op_rig_free(rig);
        if (!(in_place ? caps.in_place : caps.strided_dst))
            continue;
        options.in_place = in_place;
        options.strided_dst = !in_place;
        compare(sac_op_case(i), options, precision == SAC_PRECISION_F32 ? 1e-4 : 1e-2);
        checked++;
    }
    return checked;
}

static void what_may_run_in_place_does(void **state)
{
    (void)state;
    assert_true(with_view(true, SAC_PRECISION_F32) >= 15);
    assert_true(with_view(true, SAC_PRECISION_F16) >= 15);
}

static void what_may_write_into_a_view_does(void **state)
{
    (void)state;
    assert_true(with_view(false, SAC_PRECISION_F32) >= 20);
    assert_true(with_view(false, SAC_PRECISION_F16) >= 20);
}

static float *result_of(const struct sac_op_case *what, struct sac_op_rig_options options,
                        size_t *ret_count)
{
    struct sac_op_rig *rig = run_on(cuda, what, options);
    float *out = sac_op_rig_result(rig, 0, ret_count);

    sac_op_rig_free(rig);
    return out;
}

static void check_places(const struct sac_op_case *what, enum sac_precision precision)
{
    const int batches[] = {2, 5, 8};
    struct sac_op_rig_options options = {
        .ops = {.precision = precision, .deterministic = true}, .batch = 1, .same_pictures = true};
    size_t one, count;
    float *first = result_of(what, options, &one);

    for (int b = 0; b < 3; b++) {
        options.batch = batches[b];
        float *all = result_of(what, options, &count);
        assert_int_equal(count, one * (size_t)batches[b]);
        for (int n = 0; n < batches[b]; n++)
            if (memcmp(all + (size_t)n * one, first, one * sizeof *all) != 0)
                fail_msg("%s: place %d of a batch of %d differs from a batch of 1", what->name, n,
                         batches[b]);
        free(all);
    }
    free(first);
}

static void equal_pictures_give_equal_bits_when_asked(void **state)
{
    (void)state;
    for (int i = 0; i < sac_op_case_count(); i++) {
        if (sac_op_case(i)->dst_count > 1)
            continue;
        check_places(sac_op_case(i), SAC_PRECISION_F32);
        check_places(sac_op_case(i), SAC_PRECISION_F16);
    }
}

/* One copy of the weights serves every batch size. */
static void batches_share_one_packed_copy(void **state)
{
    const char *before = getenv("SACCADE_ALGORITHMS");

    (void)state;
    card_guess_or_measure("guess"); /* so that all batches have the same kernel */
    for (int i = 0; i < sac_op_case_count(); i++) {
        const struct sac_op_case *what = sac_op_case(i);
        struct sac_error err = {0};
        struct sac_store *store;
        size_t bytes = 0;
        if (what->weight_count == 0)
            continue;
        assert_ok(cuda->table->store_new(cuda, &store, &err), err);
        for (int batch = 1; batch <= 4; batch *= 2) {
            struct sac_op_rig_options options = {
                .ops = {.precision = SAC_PRECISION_F16}, .batch = batch, .store = store};
            sac_op_rig_free(run_on(cuda, what, options));
            if (batch == 1)
                bytes = cuda->table->store_bytes(store);
            if (cuda->table->store_bytes(store) != bytes)
                fail_msg("%s: a batch of %d packed its weights again", what->name, batch);
        }
        cuda->table->store_free(store);
    }
    card_guess_or_measure(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_agrees_with_the_loops_in_f32),
        cmocka_unit_test(every_case_agrees_with_the_loops_in_tf32),
        cmocka_unit_test(every_case_agrees_with_the_loops_in_f16),
        cmocka_unit_test(every_case_agrees_with_the_loops_in_bf16),
        cmocka_unit_test(our_own_kernels_do_every_case_without_libraries),
        cmocka_unit_test(an_operation_with_too_little_workspace_is_refused),
        cmocka_unit_test(libraries_do_what_they_are_for),
        cmocka_unit_test(convolutions_of_one_tap_are_products_unless_cudnn_is_faster),
        cmocka_unit_test(what_may_run_in_place_does),
        cmocka_unit_test(what_may_write_into_a_view_does),
        cmocka_unit_test(equal_pictures_give_equal_bits_when_asked),
        cmocka_unit_test(batches_share_one_packed_copy),
    };

    card_or_skip();
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
