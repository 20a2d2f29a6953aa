/* Plans in int8: which values are in 8 bits, and that the results stay near. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device/ranges.h"
#include "net/rig.h"

/* A stem, two branches that a concatenation joins, a convolution that adds to it. */
static struct sac_graph *branches(int batch, bool all)
{
    struct sac_graph *graph = make_graph();
    int data = make_input(graph, "data", make_shape(4, batch, 3, 16, 16));
    int stem = make_relu(graph, "stem", make_conv(graph, "conv1", data, 16, 3, 1, 1, 1, true));
    int pool = make_pool(graph, "pool1", stem, SAC_POOL_MAX, 2, 2);
    int left = make_relu(graph, "left", make_conv(graph, "conv2", pool, 8, 1, 1, 0, 1, true));
    int right = make_relu(graph, "right", make_conv(graph, "conv3", pool, 24, 3, 1, 1, 1, true));
    int both = make_concat(graph, "both", left, right);
    int conv = make_conv(graph, "conv4", both, 32, 1, 1, 0, 1, true);
    int sum = make_relu(graph, "out", make_sum(graph, "sum", both, conv));
    int mean = make_pool(graph, "mean", sum, SAC_POOL_AVE, 8, 1);
    int scores = make_inner(graph, "scores", mean, 10);

    if (all)
        make_outputs(graph, 8, data, stem, pool, left, right, both, sum, mean);
    else
        make_outputs(graph, 1, scores);
    return graph;
}

static const char *const names[] = {"data",  "stem", "pool1", "left",
                                    "right", "both", "out",   "mean"};
enum { NAMES = sizeof names / sizeof *names };

/* The plain loops' results, whole, are the ranges. */
static struct sac_ranges ranges_of(struct rig *rig)
{
    static struct sac_range blobs[NAMES];
    struct sac_plan_options options = {.ops.reference = true};
    struct sac_plan *plan = rig_plan(rig, branches(2, true), &options);

    rig_run(rig, plan, 5);
    for (int i = 0; i < NAMES; i++) {
        int64_t count;
        const float *x = rig_output(plan, i, &count);
        blobs[i] = (struct sac_range){.name = (char *)names[i]};
        for (int64_t k = 0; k < count; k++) {
            blobs[i].low = fminf(blobs[i].low, x[k]);
            blobs[i].high = fmaxf(blobs[i].high, x[k]);
        }
    }
    sac_plan_free(plan);
    return (struct sac_ranges){blobs, NAMES, NULL, 0};
}

static struct rig open_or_skip(void)
{
    struct rig rig = rig_open();

    if (!(rig.device->info.precisions & 1u << SAC_PRECISION_INT8)) {
        rig_close(&rig);
        print_message("# skipped: no int8 on this CPU\n");
        skip();
    }
    return rig;
}

static struct sac_plan *plan_in_int8(struct rig *rig, int batch, const struct sac_ranges *ranges)
{
    struct sac_plan_options options = {
        .ops = {.precision = SAC_PRECISION_INT8, .ranges = ranges}};

    return rig_plan(rig, branches(batch, false), &options);
}

static struct sac_plan_step step_named(const struct sac_plan *plan, const char *part)
{
    struct sac_plan_step step = {0};

    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        sac_plan_step(plan, i, &step);
        if (strstr(step.name, part))
            return step;
    }
    fail_msg("no step \"%s\"", part);
    return step;
}

static int count_conversions(const struct sac_plan *plan)
{
    struct sac_plan_step step;
    int count = 0;

    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        sac_plan_step(plan, i, &step);
        count += step.kind == SAC_OP_CONVERT;
    }
    return count;
}

static void nothing_is_converted_behind_the_input(void **state)
{
    static const char *const eight[] = {"conv1", "pool1", "conv2", "conv3", "both", "conv4", "mean"};
    struct rig rig = open_or_skip();
    struct sac_ranges ranges = ranges_of(&rig);
    struct sac_plan *plan = plan_in_int8(&rig, 2, &ranges);

    (void)state;
    for (size_t i = 0; i < sizeof eight / sizeof *eight; i++)
        assert_int_equal(step_named(plan, eight[i]).form.type, SAC_U8);
    assert_int_equal(step_named(plan, "scores").form.type, SAC_F32);
    assert_int_equal(count_conversions(plan), 1);
    /* What goes into one concatenation has one scale. */
    assert_true(step_named(plan, "conv2").form.scale == step_named(plan, "conv3").form.scale);
    assert_true(step_named(plan, "conv1").form.scale == step_named(plan, "pool1").form.scale);
    sac_plan_free(plan);
    rig_close(&rig);
}

/* Three roundings to 8 bits one behind the other cost well under a twentieth. */
static void results_stay_near_those_of_f32(void **state)
{
    struct rig rig = open_or_skip();
    struct sac_ranges ranges = ranges_of(&rig);
    struct sac_plan_options plain = {.ops.reference = true};

    (void)state;
    for (int batch = 1; batch <= 5; batch += 2) {
        struct sac_plan *right = rig_plan(&rig, branches(batch, false), &plain);
        struct sac_plan *plan = plan_in_int8(&rig, batch, &ranges);
        int64_t count, other;
        float most = 0;
        rig_run(&rig, right, 5);
        rig_run(&rig, plan, 5);
        const float *x = rig_output(plan, 0, &count), *y = rig_output(right, 0, &other);
        for (int64_t i = 0; i < count; i++)
            most = fmaxf(most, fabsf(y[i]));
        for (int64_t i = 0; i < count; i++)
            if (!(fabsf(x[i] - y[i]) <= .05f * most))
                fail_msg("batch %d: score %lld is %g, in f32 %g", batch, (long long)i, (double)x[i],
                         (double)y[i]);
        sac_plan_free(right);
        sac_plan_free(plan);
    }
    rig_close(&rig);
}

static void a_picture_gives_the_same_bits_in_every_batch(void **state)
{
    struct rig rig = open_or_skip();
    struct sac_ranges ranges = ranges_of(&rig);
    struct sac_plan *one = plan_in_int8(&rig, 1, &ranges), *five = plan_in_int8(&rig, 5, &ranges);
    const struct sac_tensor *to = sac_plan_input(one, 0);
    size_t bytes = sac_tensor_bytes(&to->shape, SAC_F32);
    int64_t count;

    (void)state;
    rig_run(&rig, five, 9);
    for (size_t i = 0; i < 5; i++) {
        memcpy(to->data, (const char *)sac_plan_input(five, 0)->data + i * bytes, bytes);
        rig_forward(&rig, one);
        const float *alone = rig_output(one, 0, &count);
        assert_memory_equal(alone, rig_output(five, 0, &count) + i * 10, 10 * sizeof *alone);
    }
    sac_plan_free(one);
    sac_plan_free(five);
    rig_close(&rig);
}

static void kept_layers_and_blobs_without_a_range_are_in_floats(void **state)
{
    char layer[] = "conv4", another[] = "another", *keep[] = {layer};
    struct rig rig = open_or_skip();
    struct sac_ranges ranges = ranges_of(&rig);

    (void)state;
    ranges.keep = keep;
    ranges.keep_count = 1;
    struct sac_plan *plan = plan_in_int8(&rig, 1, &ranges);
    assert_null(strstr(step_named(plan, "conv4").kernel, "vnni"));
    assert_null(strstr(step_named(plan, "conv4").kernel, "int8"));
    assert_int_not_equal(step_named(plan, "conv4").form.type, SAC_U8);
    assert_int_equal(step_named(plan, "conv1").form.type, SAC_U8);
    sac_plan_free(plan);

    ranges.keep_count = 0;
    ranges.blobs[5].name = another; /* not "both" */
    plan = plan_in_int8(&rig, 1, &ranges);
    assert_int_not_equal(step_named(plan, "both").form.type, SAC_U8);
    assert_int_not_equal(step_named(plan, "conv2").form.type, SAC_U8);
    assert_int_equal(step_named(plan, "conv1").form.type, SAC_U8);
    sac_plan_free(plan);
    rig_close(&rig);
}

static void int8_without_ranges_or_for_training_is_refused(void **state)
{
    struct rig rig = rig_open();
    struct sac_plan_options options = {.ops.precision = SAC_PRECISION_INT8};
    struct sac_error err = {0};
    struct sac_plan *plan = NULL;

    (void)state;
    assert_int_equal(sac_plan_from_graph(&plan, branches(1, false), "toy", rig.device, rig.store,
                                         rig.stream, &options, &err),
                     SAC_EUNSUPPORTED);
    assert_says(err, "int8");
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_converted_behind_the_input),
        cmocka_unit_test(results_stay_near_those_of_f32),
        cmocka_unit_test(a_picture_gives_the_same_bits_in_every_batch),
        cmocka_unit_test(kept_layers_and_blobs_without_a_range_are_in_floats),
        cmocka_unit_test(int8_without_ranges_or_for_training_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
