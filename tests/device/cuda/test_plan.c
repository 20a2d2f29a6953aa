/* Plans on a GPU, simulated or not, against the layers one by one on the CPU's loops. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda/card.h"
#include "net/rig.h"

static struct rig cuda, cpu;

static int open_rigs(void **state)
{
    struct sac_error err = {0};

    (void)state;
    cpu = rig_open();
    cuda.device = card_open();
    assert_ok(cuda.device->table->store_new(cuda.device, &cuda.store, &err), err);
    assert_ok(cuda.device->table->stream_new(cuda.device, &cuda.stream, &err), err);
    return 0;
}

static int close_rigs(void **state)
{
    (void)state;
    rig_close(&cuda);
    rig_close(&cpu);
    return 0;
}

/* Convolutions with folded norms, a residual sum, a concatenation, pooling, LRN,
 * a classifier. */
static struct sac_graph *residual_net(int batch)
{
    struct sac_graph *graph = make_graph();
    int data = make_input(graph, "data", make_shape(4, batch, 3, 17, 17));
    int conv = make_conv(graph, "conv1", data, 16, 3, 2, 1, 1, true);
    int norm = make_batchnorm(graph, "bn1", conv, 2, 1e-5f);
    int scaled = make_scale(graph, "scale1", norm, true);
    int stem = make_relu(graph, "relu1", scaled);
    int left = make_conv(graph, "left", stem, 16, 3, 1, 1, 1, true);
    int sum = make_sum(graph, "sum", stem, left);
    int relu = make_relu(graph, "relu2", sum);
    int deep = make_conv(graph, "depthwise", relu, 16, 3, 1, 1, 16, false);
    int wide = make_concat(graph, "concat", deep, relu);
    int pool = make_pool(graph, "pool", wide, SAC_POOL_MAX, 3, 2);
    int inner = make_inner(graph, "fc", pool, 10);
    int out = make_softmax(graph, "prob", inner);

    make_outputs(graph, 1, out);
    return graph;
}

static float *fetch(const struct sac_tensor *t, int64_t *ret_count)
{
    const struct sac_device_table *table = cuda.device->table;
    size_t bytes = sac_tensor_bytes(&t->shape, t->form.type);
    struct sac_error err = {0};
    float *out = malloc(bytes);
    void *staging = NULL;

    assert_non_null(out);
    assert_ok(table->memory_new(cuda.device, SAC_MEMORY_STAGING, bytes, &staging, &err), err);
    assert_ok(table->copy(cuda.stream, SAC_COPY_TO_HOST, staging, t->data, bytes, &err), err);
    assert_ok(table->stream_sync(cuda.stream, &err), err);
    memcpy(out, staging, bytes);
    table->memory_free(cuda.device, SAC_MEMORY_STAGING, staging);
    *ret_count = sac_shape_count(&t->shape);
    return out;
}

static float *run_on_cuda(struct sac_plan *plan, uint64_t seed)
{
    const struct sac_device_table *table = cuda.device->table;
    const struct sac_tensor *input = sac_plan_input(plan, 0);
    size_t bytes = sac_tensor_bytes(&input->shape, SAC_F32);
    struct sac_error err = {0};
    void *staging = NULL;
    int64_t count;

    assert_ok(table->memory_new(cuda.device, SAC_MEMORY_STAGING, bytes, &staging, &err), err);
    make_floats(staging, sac_shape_count(&input->shape), seed);
    assert_ok(table->copy(cuda.stream, SAC_COPY_TO_DEVICE, input->data, staging, bytes, &err), err);
    assert_ok(sac_plan_forward(plan, &err), err);
    float *out = fetch(sac_plan_output(plan, 0), &count);
    table->memory_free(cuda.device, SAC_MEMORY_STAGING, staging);
    return out;
}

static struct sac_plan *plan_of(struct rig *rig, int batch, struct sac_op_options ops)
{
    return rig_plan(rig, residual_net(batch), &(struct sac_plan_options){.ops = ops});
}

static void agree(enum sac_precision precision, double tolerance)
{
    if (!card_does(cuda.device, precision)) {
        print_message("%s: not on this card\n", sac_precision_name(precision));
        return;
    }
    for (int batch = 1; batch <= 4; batch += 3) {
        struct sac_plan *fast =
            plan_of(&cuda, batch, (struct sac_op_options){.precision = precision});
        struct sac_plan *plain = plan_of(&cpu, batch, (struct sac_op_options){.reference = true});
        for (uint64_t seed = 1; seed <= 4; seed++) { /* the first run, the recorded, two replays */
            int64_t count;
            rig_run(&cpu, plain, seed);
            const float *expected = rig_output(plain, 0, &count);
            float *got = run_on_cuda(fast, seed);
            assert_int_equal(count, batch * 10);
            for (int64_t i = 0; i < count; i++)
                if (!(fabs((double)got[i] - expected[i]) <= tolerance))
                    fail_msg("%s, batch %d, run %d: number %d is %g, expected %g",
                             sac_precision_name(precision), batch, (int)seed, (int)i, got[i],
                             expected[i]);
            free(got);
        }
        sac_plan_free(fast);
        sac_plan_free(plain);
    }
}

/* Probabilities, absolute; a TF32 product is within 2⁻¹⁰, and five follow one another. */
static void a_net_agrees_with_its_layers_in_every_precision(void **state)
{
    (void)state;
    agree(SAC_PRECISION_F32, 1e-5);
    agree(SAC_PRECISION_TF32, 3e-3);
    agree(SAC_PRECISION_F16, 1e-2);
    agree(SAC_PRECISION_BF16, 2e-2);
}

static void batch_norm_sum_and_relu_ride_on_convolutions(void **state)
{
    struct sac_plan *plan = plan_of(&cuda, 2, (struct sac_op_options){0});
    int convolutions = 0;

    (void)state;
    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        struct sac_plan_step step;
        sac_plan_step(plan, i, &step);
        convolutions += step.kind == SAC_OP_CONV;
        assert_int_not_equal(step.kind, SAC_OP_RELU);
        assert_int_not_equal(step.kind, SAC_OP_ELTWISE);
        assert_int_not_equal(step.kind, SAC_OP_BATCHNORM);
    }
    assert_int_equal(convolutions, 3);
    sac_plan_free(plan);
}

static void later_runs_repeat_the_first_bit_for_bit(void **state)
{
    struct sac_plan *plan = plan_of(&cuda, 2, (struct sac_op_options){0});
    float *first = run_on_cuda(plan, 5);

    (void)state;
    for (int i = 0; i < 3; i++) {
        free(run_on_cuda(plan, 6));
        float *again = run_on_cuda(plan, 5);
        assert_memory_equal(again, first, 20 * sizeof *first);
        free(again);
    }
    free(first);
    sac_plan_free(plan);
}

/* Two pools, alone or with all that they make kept as outputs. */
static struct sac_graph *pooled_twice(bool kept)
{
    struct sac_graph *graph = make_graph();
    int data = make_input(graph, "data", make_shape(4, 3, 24, 11, 9));
    int a = make_pool(graph, "a", data, SAC_POOL_MAX, 3, 2);
    int b = make_pool(graph, "b", data, SAC_POOL_AVE, 3, 2);
    int c = make_relu(graph, "c", b);
    int inner = make_concat(graph, "inner", a, b);
    int all = make_concat(graph, "all", c, inner);
    int out = make_conv(graph, "conv", all, 16, 1, 1, 0, 1, true);

    if (kept)
        make_outputs(graph, 6, out, a, b, c, inner, all);
    else
        make_outputs(graph, 1, out);
    return graph;
}

/* b is read twice and c made by what takes no views: they are copied, the rest is not. */
static void what_stands_in_a_concatenation_is_not_copied(void **state)
{
    static const enum sac_precision precisions[] = {SAC_PRECISION_F32, SAC_PRECISION_F16};

    (void)state;
    for (int p = 0; p < 2; p++) {
        struct sac_plan_options options = {.ops = {.precision = precisions[p]}};
        struct sac_plan *copies = rig_plan(&cuda, pooled_twice(true), &options);
        struct sac_plan *plan = rig_plan(&cuda, pooled_twice(false), &options);
        int partial = 0;
        for (int i = 0; i < sac_plan_step_count(plan); i++) {
            struct sac_plan_step step;
            sac_plan_step(plan, i, &step);
            partial += step.kind == SAC_OP_CONCAT && strstr(step.kernel, "1 of 2 in place");
        }
        assert_int_equal(partial, 2);
        for (uint64_t seed = 1; seed <= 3; seed++) { /* recorded, then replayed */
            float *expected = run_on_cuda(copies, seed), *got = run_on_cuda(plan, seed);
            assert_memory_equal(got, expected, 3 * 16 * 5 * 4 * sizeof *got);
            free(expected);
            free(got);
        }
        sac_plan_free(plan);
        sac_plan_free(copies);
    }
}

/* ---- Products that write where a concatenation has them ---------------------- */

enum { WIDTH = 16, SMALL = 16, MIDDLE = 24, LARGE = 40, OUT = 12 }; /* channels */

/* What keeps the last product, of MIDDLE channels, from standing in its concatenation. */
enum obstacle { NONE, IS_OUTPUT, TWICE, SUM, UNALIGNED, ANOTHER_AXIS };

struct joined {
    int batch, height, width;
    enum obstacle obstacle;
};

static int one_tap(struct sac_graph *graph, const char *name, int src, int outputs)
{
    return make_relu(graph, "relu", make_conv(graph, name, src, outputs, 1, 1, 0, 1, true));
}

/* A concatenation in one in one; beside products, what cuDNN makes. */
static struct sac_graph *nested(struct joined how)
{
    struct sac_graph *graph = make_graph();
    int data = make_input(graph, "data", make_shape(4, how.batch, WIDTH, how.height, how.width));
    int a = one_tap(graph, "a", data, MIDDLE), b = one_tap(graph, "b", data, LARGE);
    int inner = make_concat(graph, "inner", a, b);
    int c = make_conv(graph, "c", data, SMALL, 1, 1, 0, 1, false);
    int all = make_concat(graph, "all", c, inner);
    int around = make_conv(graph, "around", data, SMALL, 3, 1, 1, 1, true);
    int outer = make_concat(graph, "outer", all, around);

    make_outputs(graph, 1, make_conv(graph, "out", outer, OUT, 1, 1, 0, 1, true));
    return graph;
}

static int on_another_axis(struct sac_graph *graph, int a, int b)
{
    struct sac_shape shape = graph->values[a].shape;

    shape.dim[2] += graph->values[b].shape.dim[2];
    int out = make_op(graph, SAC_OP_CONCAT, "below", shape, 2, a, b);
    make_last(graph)->param.concat.axis = 2;
    return out;
}

static struct sac_graph *hindered(struct joined how)
{
    struct sac_graph *graph = make_graph();
    int data = make_input(graph, "data", make_shape(4, how.batch, WIDTH, how.height, how.width));
    int other = how.obstacle == SUM ? make_conv(graph, "other", data, MIDDLE, 3, 1, 1, 1, true)
                : how.obstacle == UNALIGNED    ? one_tap(graph, "three", data, 3)
                : how.obstacle == ANOTHER_AXIS ? one_tap(graph, "many", data, MIDDLE)
                                               : data;
    int a = make_conv(graph, "a", data, MIDDLE, 1, 1, 0, 1, true), all;

    if (how.obstacle == SUM)
        a = make_relu(graph, "relu", make_sum(graph, "sum", other, a));
    if (how.obstacle == ANOTHER_AXIS)
        all = on_another_axis(graph, other, a);
    else
        all = make_concat(graph, "all", how.obstacle == TWICE ? a : other, a);
    int out = make_conv(graph, "out", all, OUT, 1, 1, 0, 1, true);
    if (how.obstacle == IS_OUTPUT)
        make_outputs(graph, 2, out, a);
    else
        make_outputs(graph, 1, out);
    return graph;
}

/* Channels that concatenations copy. */
static double copied_channels(const struct sac_plan *plan, struct joined how,
                              enum sac_precision precision)
{
    bool small = precision == SAC_PRECISION_F16 || precision == SAC_PRECISION_BF16;
    double bytes = 0;

    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        struct sac_plan_step step;
        sac_plan_step(plan, i, &step);
        bytes += step.kind == SAC_OP_CONCAT ? step.bytes : 0; /* there and back */
    }
    return bytes / (2. * (small ? 2 : 4) * how.batch * how.height * how.width);
}

static void compare_outputs(struct sac_plan *fast, struct sac_plan *plain, uint64_t seed,
                            double tolerance)
{
    double most = 1e-6;
    int64_t count;

    rig_run(&cpu, plain, seed);
    const float *expected = rig_output(plain, 0, &count);
    float *got = run_on_cuda(fast, seed);
    for (int64_t i = 0; i < count; i++)
        most = fabs(expected[i]) > most ? fabs(expected[i]) : most;
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)got[i] - expected[i]) <= tolerance * most))
            fail_msg("run %d: number %d is %g, the loops say %g", (int)seed, (int)i, got[i],
                     expected[i]);
    free(got);
}

/* Against the CPU's loops, with stores of their own; the channels that are copied. */
static double join(struct sac_graph *(*make)(struct joined how), struct joined how,
                   enum sac_precision precision, double tolerance)
{
    struct rig on = cuda, loops = cpu;
    struct sac_error err = {0};

    assert_ok(cuda.device->table->store_new(cuda.device, &on.store, &err), err);
    assert_ok(cpu.device->table->store_new(cpu.device, &loops.store, &err), err);
    struct sac_plan *fast =
        rig_plan(&on, make(how), &(struct sac_plan_options){.ops = {.precision = precision}});
    struct sac_plan *plain =
        rig_plan(&loops, make(how), &(struct sac_plan_options){.ops = {.reference = true}});
    for (uint64_t seed = 1; seed <= 3; seed++) /* the first run, the recorded, a replay */
        compare_outputs(fast, plain, seed, tolerance);
    double copied = copied_channels(fast, how, precision);
    sac_plan_free(fast);
    sac_plan_free(plain);
    cuda.device->table->store_free(on.store);
    cpu.device->table->store_free(loops.store);
    return copied;
}

static const struct {
    enum sac_precision precision;
    double tolerance; /* of one operation; tf32's and bf16's twice that: two follow one another */
} within[] = {{SAC_PRECISION_F32, 1e-4},
              {SAC_PRECISION_TF32, 2e-3},
              {SAC_PRECISION_F16, 1e-2},
              {SAC_PRECISION_BF16, 2e-2}};
enum { PRECISIONS = sizeof within / sizeof *within };

/* Guessed, products are cuBLASLt's; measured, some are cuDNN's, which are copied. */
static void products_write_where_concatenations_have_them(void **state)
{
    static const struct joined shapes[] = {
        {1, 9, 7, NONE}, {3, 9, 7, NONE}, {3, 1, 1, NONE}, {1, 1, 1, NONE}};
    const char *before = getenv("SACCADE_ALGORITHMS");

    (void)state;
    for (int i = 0; i < PRECISIONS * 4; i++) {
        enum sac_precision precision = within[i / 4].precision;
        if (!card_does(cuda.device, precision))
            continue;
        card_guess_or_measure("guess");
        double copied = join(nested, shapes[i % 4], precision, within[i / 4].tolerance);
        assert_true(copied == SMALL); /* cuDNN's */
        card_guess_or_measure(NULL);
        join(nested, shapes[i % 4], precision, within[i / 4].tolerance);
    }
    card_guess_or_measure(before);
}

static void products_that_cannot_stand_in_a_concatenation_are_copied(void **state)
{
    static const struct {
        enum obstacle obstacle;
        int copied; /* channels, or, on another axis, half of the whole's rows */
    } cases[] = {{NONE, WIDTH},
                 {IS_OUTPUT, WIDTH + MIDDLE},
                 {TWICE, 2 * MIDDLE},
                 {SUM, MIDDLE + MIDDLE},
                 {UNALIGNED, MIDDLE}, /* three numbers stand no worse there than anywhere */
                 {ANOTHER_AXIS, MIDDLE + MIDDLE}};
    const char *before = getenv("SACCADE_ALGORITHMS");

    (void)state;
    card_guess_or_measure("guess");
    for (int p = 0; p < PRECISIONS; p++) {
        if (!card_does(cuda.device, within[p].precision))
            continue;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct joined how = {2, 5, 6, cases[i].obstacle};
            double copied = join(hindered, how, within[p].precision, within[p].tolerance);
            if (copied != cases[i].copied)
                fail_msg("obstacle %d, %s: %g channels are copied, expected %d",
                         (int)cases[i].obstacle, sac_precision_name(within[p].precision), copied,
                         cases[i].copied);
        }
    }
    card_guess_or_measure(before);
}

static void pixels_go_in_and_only_pairs_come_out(void **state)
{
    union sac_op_param pixels = {
        .pixels = {.mean = {104, 117, 123}, .scale = 1.0f / 64, .swap = true}};
    struct sac_plan_options options = {
        .ops = {.precision = SAC_PRECISION_F16}, .pixels = &pixels, .topk = 3};
    const struct sac_device_table *table = cuda.device->table;
    struct sac_plan *plan = rig_plan(&cuda, residual_net(2), &options);
    struct sac_plan *plain;
    struct sac_error err = {0};
    int64_t count;
    void *staging = NULL;

    (void)state;
    options.ops = (struct sac_op_options){.reference = true};
    plain = rig_plan(&cpu, residual_net(2), &options);
    const struct sac_tensor *input = sac_plan_input(plan, 0);
    size_t bytes = sac_tensor_bytes(&input->shape, SAC_U8);
    assert_int_equal(input->form.type, SAC_U8);
    assert_ok(table->memory_new(cuda.device, SAC_MEMORY_STAGING, bytes, &staging, &err), err);
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)staging)[i] = (uint8_t)(i * 2654435761u >> 24);
    memcpy(sac_plan_input(plain, 0)->data, staging, bytes);
    assert_ok(table->copy(cuda.stream, SAC_COPY_TO_DEVICE, input->data, staging, bytes, &err), err);
    assert_ok(sac_plan_forward(plan, &err), err);
    rig_forward(&cpu, plain);
    float *got = fetch(sac_plan_output(plan, 0), &count);
    const struct sac_topk_pair *pairs = (const struct sac_topk_pair *)got;
    const struct sac_topk_pair *expected = sac_plan_output(plain, 0)->data;
    assert_int_equal(count, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(pairs[i].index, expected[i].index);
        assert_true(fabsf(pairs[i].value - expected[i].value) < 1e-2f);
    }
    free(got);
    table->memory_free(cuda.device, SAC_MEMORY_STAGING, staging);
    sac_plan_free(plan);
    sac_plan_free(plain);
}

static struct sac_plan_step first_step(struct sac_op_options ops)
{
    union sac_op_param pixels = {.pixels = {.scale = 1}};
    struct sac_plan_options options = {.ops = ops, .pixels = &pixels};
    struct sac_plan *plan = rig_plan(&cuda, residual_net(1), &options);
    struct sac_plan_step step;

    sac_plan_step(plan, 0, &step);
    sac_plan_free(plan);
    return step;
}

/* Guessed, as tensor cores count in fours; measured, it may be 3, 4 or 8. */
static void pictures_get_a_fourth_channel_for_tensor_cores(void **state)
{
    const char *before = getenv("SACCADE_ALGORITHMS");

    (void)state;
    card_guess_or_measure("guess");
    struct sac_plan_step small = first_step((struct sac_op_options){SAC_PRECISION_F16});
    struct sac_plan_step plain = first_step((struct sac_op_options){SAC_PRECISION_F32});
    assert_int_equal(small.kind, SAC_OP_PIXELS);
    assert_int_equal(small.out.dim[1], 4);
    assert_int_equal(plain.out.dim[1], 3);
    card_guess_or_measure(before);
}

/* As MobileNet's classifier is: 1×1, and only softmax reads it. */
static void scores_of_a_convolution_are_fp32_in_fp16(void **state)
{
    struct sac_graph *graph = make_graph();
    int data = make_input(graph, "data", make_shape(4, 2, 32, 1, 1));
    struct sac_plan_step step;

    (void)state;
    make_outputs(graph, 1,
                 make_softmax(graph, "prob", make_conv(graph, "fc", data, 24, 1, 1, 0, 1, true)));
    struct sac_plan_options options = {.ops = {.precision = SAC_PRECISION_F16}};
    struct sac_plan *plan = rig_plan(&cuda, graph, &options);
    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        sac_plan_step(plan, i, &step);
        if (step.kind == SAC_OP_CONV)
            break;
    }
    assert_int_equal(step.kind, SAC_OP_CONV);
    assert_string_equal(step.kernel, "cuBLASLt");
    assert_int_equal(step.form.type, SAC_F32);
    sac_plan_free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_net_agrees_with_its_layers_in_every_precision),
        cmocka_unit_test(batch_norm_sum_and_relu_ride_on_convolutions),
        cmocka_unit_test(later_runs_repeat_the_first_bit_for_bit),
        cmocka_unit_test(what_stands_in_a_concatenation_is_not_copied),
        cmocka_unit_test(products_write_where_concatenations_have_them),
        cmocka_unit_test(products_that_cannot_stand_in_a_concatenation_are_copied),
        cmocka_unit_test(pixels_go_in_and_only_pairs_come_out),
        cmocka_unit_test(pictures_get_a_fourth_channel_for_tensor_cores),
        cmocka_unit_test(scores_of_a_convolution_are_fp32_in_fp16),
    };

    card_or_skip();
    return cmocka_run_group_tests(tests, open_rigs, close_rigs);
}
