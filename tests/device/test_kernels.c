/* The kernels that the CPU device prefers, against its plain loops. */
#include "support/support.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "device/cpu/vector.h"
#include "device/op_cases.h"

static struct sac_device *device;

static int open_device(void **state)
{
    (void)state;
    return sac_device_open(&device, "cpu", NULL);
}

static int close_device(void **state)
{
    (void)state;
    sac_device_close(device);
    return 0;
}

static struct sac_op_rig *run(const struct sac_op_case *what, struct sac_op_rig_options options)
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
    struct sac_op_rig *fast = run(what, options);
    struct sac_op_rig_options plain = {.ops = {.reference = true}, .batch = options.batch};
    struct sac_op_rig *loops = run(what, plain);

    agree(what, fast, loops, tolerance);
    sac_op_rig_free(fast);
    sac_op_rig_free(loops);
}

static void all_cases(struct sac_op_rig_options options, double tolerance)
{
    const int batches[] = {1, 2, 5};

    for (int i = 0; i < sac_op_case_count(); i++) {
        for (int b = 0; b < 3; b++) {
            options.batch = batches[b];
            compare(sac_op_case(i), options, tolerance);
        }
    }
}

static void every_case_agrees_with_the_loops_in_f32(void **state)
{
    (void)state;
    all_cases((struct sac_op_rig_options){0}, 1e-4);
}

static void every_case_agrees_with_the_loops_in_bf16(void **state)
{
    (void)state;
    all_cases((struct sac_op_rig_options){.ops = {.precision = SAC_PRECISION_BF16}}, 1e-2);
}

static int with_view(bool in_place, enum sac_precision precision)
{
    int checked = 0;

    for (int i = 0; i < sac_op_case_count(); i++) {
        struct sac_op_rig_options options = {.ops = {.precision = precision}, .batch = 2};
        struct sac_op_rig *rig = run(sac_op_case(i), options);
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
    assert_true(with_view(true, SAC_PRECISION_BF16) >= 15);
}

static void a_result_may_stand_on_its_sum(void **state)
{
    int checked = 0;

    (void)state;
    for (int i = 0; i < sac_op_case_count(); i++) {
        struct sac_op_rig_options options = {.batch = 2, .sum_in_place = true};
        if (!sac_op_case(i)->sum)
            continue;
        compare(sac_op_case(i), options, 1e-4);
        options.ops.reference = true;
        compare(sac_op_case(i), options, 0);
        checked++;
    }
    assert_true(checked >= 2);
}

/* On a machine without bf16 arithmetic, bf16 is computed and stored as fp32. */
static void bf16_becomes_f32_where_it_would_be_slower(void **state)
{
    struct sac_cpu_device *cpu = (struct sac_cpu_device *)device;
    const struct sac_cpu_features features = cpu->features;
    struct sac_op_rig_options options = {.ops = {.precision = SAC_PRECISION_BF16}, .batch = 1};

    (void)state;
    cpu->features.avx512_bf16 = cpu->features.amx_bf16 = false;
    struct sac_op_rig *rig = run(sac_op_case(0), options);
    assert_int_equal(sac_op_rig_caps(rig)->src.type, SAC_F32);
    assert_int_equal(sac_op_rig_caps(rig)->dst.type, SAC_F32);
    sac_op_rig_free(rig);
    cpu->features = features;
}

static void what_may_write_into_a_view_does(void **state)
{
    (void)state;
    assert_true(with_view(false, SAC_PRECISION_F32) >= 20);
    assert_true(with_view(false, SAC_PRECISION_BF16) >= 20);
}

/* Equal pictures give equal bits: in every batch of 1 to 32, at every place.
 * Returns how many batches break that, naming them. */
static int places_that_differ(const struct sac_op_case *what, enum sac_precision precision)
{
    const int batches[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32};
    size_t one = 0;
    float *first = NULL;
    int broken = 0;

    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        struct sac_op_rig_options options = {
            .ops = {.precision = precision, .deterministic = true},
            .batch = batches[b],
            .same_pictures = true,
        };
        struct sac_op_rig *rig = run(what, options);
        size_t count;
        float *y = sac_op_rig_result(rig, 0, &count);
        one = first ? one : count;
        assert_int_equal(count, one * (size_t)batches[b]);
        int n = 0;
        while (first && n < batches[b] && memcmp(y + (size_t)n * one, first, one * sizeof *y) == 0)
            n++;
        if (first && n < batches[b]) {
            print_message("%s (%s, %s): place %d of a batch of %d differs from a batch of 1\n",
                          what->name, sac_precision_name(precision), sac_op_rig_caps(rig)->kernel,
                          n, batches[b]);
            broken++;
        }
        if (first)
            free(y);
        else
            first = y;
        sac_op_rig_free(rig);
    }
    free(first);
    return broken;
}

static void equal_pictures_give_equal_bits_in_every_batch(void **state)
{
    int broken = 0;

    (void)state;
    for (int i = 0; i < sac_op_case_count(); i++) {
        const struct sac_op_case *what = sac_op_case(i);
        if (what->dst_count > 1)
            continue;
        broken += places_that_differ(what, SAC_PRECISION_F32);
        broken += places_that_differ(what, SAC_PRECISION_BF16);
    }
    assert_int_equal(broken, 0);
}

/* The machine's best build of the vector kernels is what other tests run. */
static void every_build_of_the_vector_kernels_agrees(void **state)
{
    struct sac_cpu_device *cpu = (struct sac_cpu_device *)device;
    const struct sac_cpu_vector *best = cpu->vector;

    (void)state;
    cpu->vector = &sac_cpu_vector_base;
    all_cases((struct sac_op_rig_options){0}, 1e-4);
    all_cases((struct sac_op_rig_options){.ops = {.precision = SAC_PRECISION_BF16}}, 1e-2);
    if (cpu->features.avx2) {
        cpu->vector = &sac_cpu_vector_avx2;
        all_cases((struct sac_op_rig_options){0}, 1e-4);
        all_cases((struct sac_op_rig_options){.ops = {.precision = SAC_PRECISION_BF16}}, 1e-2);
    }
    cpu->vector = best;
}

/* F(4×4, 3×3) multiplies by up to 8 and back: some digits fewer than directly, the same
 * ones by how many threads soever; a picture's place must not show where that is asked.
 * False: this CPU has none. */
static bool winograd_is_near(struct sac_op_case what, enum sac_precision precision,
                             double tolerance)
{
    struct sac_op_rig_options options = {.batch = 3, .ops.precision = precision};
    struct sac_op_rig *one = run(&what, options), *two;
    size_t count, other;

    if (!strstr(sac_op_rig_caps(one)->kernel, "Winograd")) {
        sac_op_rig_free(one);
        return false;
    }
    compare(&what, options, tolerance);
    options.ops.threads = 2;
    two = run(&what, options);
    float *a = sac_op_rig_result(one, 0, &count), *b = sac_op_rig_result(two, 0, &other);
    assert_memory_equal(a, b, count * sizeof *a);
    free(a);
    free(b);
    sac_op_rig_free(one);
    sac_op_rig_free(two);
    options.ops.deterministic = true;
    one = run(&what, options);
    assert_null(strstr(sac_op_rig_caps(one)->kernel, "Winograd"));
    sac_op_rig_free(one);
    return true;
}

/* Whole tiles and overhanging ones, several chunks of them. */
static void winograd_is_near_and_the_same_on_two_threads(void **state)
{
    (void)state;
    if (!winograd_is_near(sac_op_case_conv("winograd", 64, 56, 56, 64, 3, 1, 1, 1, 1),
                          SAC_PRECISION_F32, 2e-5)) {
        print_message("# skipped: no AVX-512, or no oneDNN\n");
        skip();
    }
    assert_true(winograd_is_near(sac_op_case_conv("overhanging", 48, 15, 17, 80, 3, 1, 0, 1, 1),
                                 SAC_PRECISION_F32, 2e-5));
}

static void winograd_in_bf16_is_as_near_as_bf16_is(void **state)
{
    (void)state;
    if (!winograd_is_near(sac_op_case_conv("winograd", 64, 28, 28, 256, 3, 1, 1, 1, 1),
                          SAC_PRECISION_BF16, 1e-2)) {
        print_message("# skipped: no AVX-512 bf16, or AMX, which is faster\n");
        skip();
    }
    assert_true(winograd_is_near(sac_op_case_conv("overhanging", 48, 15, 17, 80, 3, 1, 0, 1, 1),
                                 SAC_PRECISION_BF16, 1e-2));
}

/* Nets' first convolutions, and padding, outputs in several groups, rows shorter than a
 * block, pixels between the windows. */
static void few_channels_in_bf16_are_near_and_the_same_on_two_threads(void **state)
{
    const struct sac_op_case cases[] = {
        sac_op_case_conv("SqueezeNet's first", 3, 135, 139, 64, 3, 2, 0, 1, 1),
        sac_op_case_conv("ResNet's first", 3, 60, 56, 64, 7, 2, 3, 1, 1),
        sac_op_case_conv("CaffeNet's first", 3, 43, 47, 96, 11, 4, 0, 1, 1),
        sac_op_case_conv("one channel", 1, 12, 9, 32, 5, 1, 2, 1, 1),
        sac_op_case_conv("two groups", 4, 11, 13, 80, 3, 1, 1, 1, 1),
        sac_op_case_conv("short rows", 3, 9, 7, 48, 3, 2, 1, 1, 1),
        sac_op_case_conv("windows apart", 2, 17, 19, 16, 2, 5, 0, 1, 1),
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_op_rig_options options = {.batch = 3, .ops.precision = SAC_PRECISION_BF16};
        struct sac_op_rig *one = run(&cases[i], options);
        if (!strstr(sac_op_rig_caps(one)->kernel, "window rows")) {
            assert_int_equal(i, 0);
            sac_op_rig_free(one);
            print_message("# skipped: no AVX-512 bf16, or AMX, which is faster\n");
            skip();
        }
        options.ops.threads = 2;
        struct sac_op_rig *two = run(&cases[i], options);
        agree(&cases[i], two, one, 0);
        sac_op_rig_free(one);
        sac_op_rig_free(two);
        compare(&cases[i], options, 4e-3); /* a rounding to bf16 */
        options.strided_dst = true;
        compare(&cases[i], options, 4e-3);
    }
}

/* Two threads prepare and run the same operation with one store, at once. */
struct thread_case {
    const struct sac_op_case *what;
    struct sac_store *store;
    bool failed;
};

static void *run_in_thread(void *context)
{
    struct thread_case *c = context;
    struct sac_op_rig_options options = {.batch = 2, .store = c->store};
    struct sac_op_rig *rig = NULL;

    c->failed = sac_op_rig_new(&rig, device, c->what, &options, NULL) != 0 ||
                sac_op_rig_run(rig, NULL) != 0;
    sac_op_rig_free(rig);
    return NULL;
}

static void threads_share_a_device_and_a_store(void **state)
{
    (void)state;
    for (int i = 0; i < sac_op_case_count(); i++) {
        struct thread_case cases[2] = {{.what = sac_op_case(i)}, {.what = sac_op_case(i)}};
        struct sac_store *store;
        pthread_t threads[2];
        assert_int_equal(device->table->store_new(device, &store, NULL), 0);
        for (int t = 0; t < 2; t++) {
            cases[t].store = store;
            assert_int_equal(pthread_create(&threads[t], NULL, run_in_thread, &cases[t]), 0);
        }
        for (int t = 0; t < 2; t++)
            pthread_join(threads[t], NULL);
        device->table->store_free(store);
        if (cases[0].failed || cases[1].failed)
            fail_msg("%s failed", sac_op_case(i)->name);
    }
}

/* One copy of the weights serves every batch size. */
static void batches_share_one_packed_copy(void **state)
{
    (void)state;
    for (int i = 0; i < sac_op_case_count(); i++) {
        const struct sac_op_case *what = sac_op_case(i);
        struct sac_error err = {0};
        struct sac_store *store;
        size_t bytes = 0;
        if (what->weight_count == 0)
            continue;
        assert_ok(device->table->store_new(device, &store, &err), err);
        for (int batch = 1; batch <= 32; batch *= 2) {
            struct sac_op_rig_options options = {
                .ops = {.precision = SAC_PRECISION_BF16}, .batch = batch, .store = store};
            sac_op_rig_free(run(what, options));
            if (batch == 1)
                bytes = device->table->store_bytes(store);
            if (device->table->store_bytes(store) != bytes)
                fail_msg("%s: a batch of %d packed its weights again", what->name, batch);
        }
        device->table->store_free(store);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_agrees_with_the_loops_in_f32),
        cmocka_unit_test(every_case_agrees_with_the_loops_in_bf16),
        cmocka_unit_test(what_may_run_in_place_does),
        cmocka_unit_test(a_result_may_stand_on_its_sum),
        cmocka_unit_test(bf16_becomes_f32_where_it_would_be_slower),
        cmocka_unit_test(what_may_write_into_a_view_does),
        cmocka_unit_test(equal_pictures_give_equal_bits_in_every_batch),
        cmocka_unit_test(every_build_of_the_vector_kernels_agrees),
        cmocka_unit_test(winograd_is_near_and_the_same_on_two_threads),
        cmocka_unit_test(winograd_in_bf16_is_as_near_as_bf16_is),
        cmocka_unit_test(few_channels_in_bf16_are_near_and_the_same_on_two_threads),
        cmocka_unit_test(threads_share_a_device_and_a_store),
        cmocka_unit_test(batches_share_one_packed_copy),
    };

    return cmocka_run_group_tests(tests, open_device, close_device);
}
