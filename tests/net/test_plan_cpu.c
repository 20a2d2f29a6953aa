/*
 * Plans on the CPU device. What is expected is what the layers give as they stand,
 * run one by one by the plain loops: no folding, no fusing (options.reference).
 */
#include "support/support.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "net/rig.h"

/* ---- Counting allocations ------------------------------------------------- */

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { COUNTS = 0 }; /* the sanitizers bring an allocator of their own */
static long allocations;
#else
enum { COUNTS = 1 };
static long allocations;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t bytes)
{
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    return __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    return __libc_realloc(old, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **ret, size_t alignment, size_t bytes)
{
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    *ret = __libc_memalign(alignment, bytes);
    return *ret ? 0 : 12; /* ENOMEM */
}
#endif

/* ---- Graphs --------------------------------------------------------------- */

/* Two branches joined, as in an inception module, down to probabilities. */
static struct sac_graph *branches(int batch)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, batch, 3, 13, 11));

    x = make_relu(graph, "relu1", make_conv(graph, "conv1", x, 8, 3, 2, 1, 1, true));
    x = make_pool(graph, "pool1", x, SAC_POOL_MAX, 3, 2);
    int a = make_relu(graph, "relu2a", make_conv(graph, "conv2a", x, 6, 1, 1, 0, 1, true));
    int b = make_relu(graph, "relu2b", make_conv(graph, "conv2b", x, 4, 3, 1, 1, 2, false));
    x = make_concat(graph, "concat", a, b);
    x = make_pool(graph, "pool2", x, SAC_POOL_AVE, 2, 1);
    x = make_softmax(graph, "prob", make_inner(graph, "fc", x, 9));
    make_outputs(graph, 1, x);
    return graph;
}

/* conv, BatchNorm and Scale, with the shortcut around two of them. */
static struct sac_graph *residual(int batch)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, batch, 4, 6, 6));

    for (int i = 0; i < 2; i++) {
        int y = make_conv(graph, i ? "conv2a" : "conv1a", x, 4, 3, 1, 1, 1, false);
        y = make_batchnorm(graph, i ? "bn2a" : "bn1a", y, 0.9f, 1e-5f);
        y = make_relu(graph, i ? "relu2a" : "relu1a",
                      make_scale(graph, i ? "s2a" : "s1a", y, true));
        y = make_conv(graph, i ? "conv2b" : "conv1b", y, 4, 3, 1, 1, 1, false);
        y = make_batchnorm(graph, i ? "bn2b" : "bn1b", y, 0.9f, 1e-5f);
        y = make_scale(graph, i ? "s2b" : "s1b", y, true);
        x = make_relu(graph, i ? "relu2" : "relu1", make_sum(graph, i ? "sum2" : "sum1", x, y));
    }
    make_outputs(graph, 1, make_inner(graph, "fc", x, 5));
    return graph;
}

/* Elementwise operations, each of which may work in place. */
static struct sac_graph *chain(int batch)
{
    struct sac_graph *graph = make_graph();
    struct sac_shape shape = make_shape(4, batch, 3, 5, 4);
    int x = make_input(graph, "data", shape);

    x = make_scale(graph, "scale", make_relu(graph, "relu", x), true);
    x = make_op(graph, SAC_OP_SIGMOID, "sigmoid", shape, 1, x);
    x = make_batchnorm(graph, "bn", x, 1, 1e-5f);
    x = make_op(graph, SAC_OP_POWER, "power", shape, 1, x);
    make_last(graph)->param.power.power = 2;
    make_last(graph)->param.power.scale = 0.5f;
    make_last(graph)->param.power.shift = 1;
    x = make_op(graph, SAC_OP_TANH, "tanh", shape, 1, x);
    x = make_op(graph, SAC_OP_DROPOUT, "drop", shape, 1, x);
    make_outputs(graph, 1, x);
    return graph;
}

/* One value read by several nodes, twice by one; also read after a reshape; an
 * output in the middle. */
static struct sac_graph *reuse(int batch)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, batch, 3, 4, 4));
    int y = make_conv(graph, "conv", x, 3, 3, 1, 1, 1, true);
    int flat = make_op(graph, SAC_OP_RESHAPE, "flat", make_shape(2, batch, 48), 1, y);
    int twice = make_sum(graph, "twice", y, y);
    int z = make_sum(graph, "z", make_relu(graph, "relu", y), twice);

    z = make_sum(graph, "with_input", z, x);
    make_outputs(graph, 4, make_inner(graph, "fc", flat, 4), z, y, x);
    return graph;
}

static struct sac_graph *(*const graphs[])(int batch) = {branches, residual, chain, reuse};
static const char *const graph_names[] = {"branches", "residual", "chain", "reuse"};
enum { GRAPHS = sizeof graphs / sizeof *graphs };

/* ---- Numbers -------------------------------------------------------------- */

static double output_difference(const struct sac_plan *a, const struct sac_plan *b)
{
    double most = 0;

    assert_int_equal(sac_plan_output_count(a), sac_plan_output_count(b));
    for (int i = 0; i < sac_plan_output_count(a); i++) {
        int64_t count, other;
        const float *x = rig_output(a, i, &count), *y = rig_output(b, i, &other);
        assert_int_equal(count, other);
        double d = sac_test_max_difference(x, y, (size_t)count);
        most = d > most ? d : most;
    }
    return most;
}

static void assert_graph_near_reference(int g, int batch, enum sac_precision precision,
                                        double tolerance)
{
    struct rig rig = rig_open(); /* one net, one store: constants go by their names */
    struct sac_plan_options fast = {.ops.precision = precision}, slow = {.ops.reference = true};
    struct sac_plan *a = rig_plan(&rig, graphs[g](batch), &fast);
    struct sac_plan *b = rig_plan(&rig, graphs[g](batch), &slow);

    rig_run(&rig, a, 5);
    rig_run(&rig, b, 5);
    double d = output_difference(a, b);
    if (!(d < tolerance))
        fail_msg("%s, batch %d: off by %g", graph_names[g], batch, d);
    rig_forward(&rig, a); /* again, on what was written once */
    assert_true(output_difference(a, b) < tolerance);
    sac_plan_free(a);
    sac_plan_free(b);
    rig_close(&rig);
}

static void assert_near_reference(enum sac_precision precision, double tolerance)
{
    for (int g = 0; g < GRAPHS; g++)
        for (int batch = 1; batch <= 3; batch += 2)
            assert_graph_near_reference(g, batch, precision, tolerance);
}

static void plans_give_what_the_layers_give_one_by_one(void **state)
{
    (void)state;
    assert_near_reference(SAC_PRECISION_F32, 1e-4);
}

/* bf16 has 8 bits: values of up to about 4 here, rounded at each layer. */
static void plans_in_bf16_stay_near(void **state)
{
    (void)state;
    assert_near_reference(SAC_PRECISION_BF16, 0.1);
}

static void folding_and_lowering_leave_fewer_steps(void **state)
{
    struct rig rig = rig_open();
    struct sac_plan_options fast = {0}, slow = {.ops.reference = true};
    struct sac_plan *a = rig_plan(&rig, residual(1), &fast);
    struct sac_plan *b = rig_plan(&rig, residual(1), &slow);
    struct sac_plan_step step;
    int convolutions = 0;

    (void)state;
    for (int i = 0; i < sac_plan_step_count(a); i++) {
        sac_plan_step(a, i, &step);
        convolutions += step.kind == SAC_OP_CONV;
        assert_int_not_equal(step.kind, SAC_OP_BATCHNORM);
        assert_int_not_equal(step.kind, SAC_OP_SCALE);
        assert_true(step.bytes > 0);
    }
    assert_int_equal(convolutions, 4);
    assert_true(sac_plan_step_count(a) + 8 < sac_plan_step_count(b));
    sac_plan_free(a);
    sac_plan_free(b);
    rig_close(&rig);
}

/* The k largest of the probabilities that the same plan gives without top-k. */
static void topk_picks_the_largest_of_each_picture(void **state)
{
    struct rig rig = rig_open();
    struct sac_plan_options none = {0}, three = {.topk = 3};
    struct sac_plan *whole = rig_plan(&rig, branches(2), &none);
    struct sac_plan *top = rig_plan(&rig, branches(2), &three);
    int64_t count;

    (void)state;
    rig_run(&rig, whole, 3);
    rig_run(&rig, top, 3);
    const float *p = rig_output(whole, 0, &count);
    const struct sac_topk_pair *pairs = sac_plan_output(top, 0)->data;
    for (int n = 0; n < 2; n++)
        for (int k = 0; k < 3; k++) {
            const struct sac_topk_pair *pair = &pairs[n * 3 + k];
            int larger = 0;
            for (int i = 0; i < 9; i++)
                larger += p[n * 9 + i] > p[n * 9 + pair->index];
            assert_int_equal(larger, k);
            assert_true(pair->value == p[n * 9 + pair->index]);
        }
    sac_plan_free(whole);
    sac_plan_free(top);
    rig_close(&rig);
}

/* (x − mean)·scale by hand, channels swapped, against the device's operation. */
static void pixels_give_what_a_prepared_blob_gives(void **state)
{
    enum { H = 13, W = 11, N = 2 };
    struct rig rig = rig_open();
    union sac_op_param pixels = {
        .pixels = {.mean = {104, 117, 123}, .scale = 0.017f, .swap = true}};
    struct sac_plan_options by_pixels = {.pixels = &pixels}, by_blob = {0};
    struct sac_plan *a = rig_plan(&rig, branches(N), &by_pixels);
    struct sac_plan *b = rig_plan(&rig, branches(N), &by_blob);
    uint8_t *bytes = sac_plan_input(a, 0)->data;
    float *blob = sac_plan_input(b, 0)->data;

    (void)state;
    assert_int_equal(sac_plan_input(a, 0)->shape.dim[3], 3);
    for (int i = 0; i < N * H * W * 3; i++)
        bytes[i] = (uint8_t)(i * 37 % 256);
    for (int n = 0; n < N; n++)
        for (int c = 0; c < 3; c++)
            for (int i = 0; i < H * W; i++)
                blob[(n * 3 + c) * H * W + i] =
                    ((float)bytes[(n * H * W + i) * 3 + (2 - c)] - pixels.pixels.mean[c]) * 0.017f;
    rig_forward(&rig, a);
    rig_forward(&rig, b);
    assert_true(output_difference(a, b) < 1e-5);
    sac_plan_free(a);
    sac_plan_free(b);
    rig_close(&rig);
}

/* ---- Memory --------------------------------------------------------------- */

static void take_turns(int g)
{
    struct rig rig = rig_open();
    struct sac_plan_options none = {0};
    struct sac_plan *four = rig_plan(&rig, graphs[g](4), &none);
    struct sac_plan_options inside = {.memory_of = four};
    struct sac_plan *one = rig_plan(&rig, graphs[g](1), &inside);
    struct sac_plan *alone = rig_plan(&rig, graphs[g](1), &none);

    assert_true(sac_plan_memory_bytes(one) <= sac_plan_memory_bytes(four));
    for (uint64_t seed = 1; seed <= 2; seed++) {
        rig_run(&rig, four, seed + 50);
        rig_run(&rig, one, seed);
        rig_run(&rig, alone, seed);
        assert_true(output_difference(one, alone) == 0);
    }
    sac_plan_free(alone);
    sac_plan_free(one);
    sac_plan_free(four);
    rig_close(&rig);
}

static void plans_of_two_batch_sizes_take_turns_in_one_memory(void **state)
{
    (void)state;
    for (int g = 0; g < GRAPHS; g++)
        take_turns(g);
}

static void packed_weights_are_shared_across_batch_sizes(void **state)
{
    struct rig rig = rig_open();
    struct sac_plan_options none = {0};
    struct sac_plan *one = rig_plan(&rig, residual(1), &none);
    size_t bytes = rig.device->table->store_bytes(rig.store);
    struct sac_plan *again = rig_plan(&rig, residual(8), &none);

    (void)state;
    assert_true(bytes > 0);
    assert_int_equal(rig.device->table->store_bytes(rig.store), bytes);
    sac_plan_free(again);
    sac_plan_free(one);
    rig_close(&rig);
}

static void running_a_plan_allocates_nothing(void **state)
{
    static const enum sac_precision precisions[] = {SAC_PRECISION_F32, SAC_PRECISION_BF16};

    (void)state;
    if (!COUNTS) {
        print_message("# skipped: allocations are the sanitizer's here\n");
        skip();
    }
    free(strdup("the counter counts"));
    assert_true(allocations > 0);
    for (int p = 0; p < 2; p++)
        for (int g = 0; g < GRAPHS; g++) {
            struct rig rig = rig_open();
            struct sac_plan_options options = {.ops.precision = precisions[p]};
            struct sac_plan *plan = rig_plan(&rig, graphs[g](2), &options);
            rig_run(&rig, plan, 1); /* a library may set itself up once */
            long before = allocations;
            for (int i = 0; i < 3; i++)
                rig_forward(&rig, plan);
            assert_int_equal(allocations, before);
            sac_plan_free(plan);
            rig_close(&rig);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_give_what_the_layers_give_one_by_one),
        cmocka_unit_test(plans_in_bf16_stay_near),
        cmocka_unit_test(folding_and_lowering_leave_fewer_steps),
        cmocka_unit_test(topk_picks_the_largest_of_each_picture),
        cmocka_unit_test(pixels_give_what_a_prepared_blob_gives),
        cmocka_unit_test(plans_of_two_batch_sizes_take_turns_in_one_memory),
        cmocka_unit_test(packed_weights_are_shared_across_batch_sizes),
        cmocka_unit_test(running_a_plan_allocates_nothing),
    };
    return cmocka_run_group_tests_name("plan_cpu", tests, NULL, NULL);
}
