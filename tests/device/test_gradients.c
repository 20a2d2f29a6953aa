/* Every operation's backward against central differences of its forward, and the fast
 * kernels' backward against the plain loops'. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device/training_cases.h"

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

/* And those whose kinks lie too close for differences. */
static int fast_cases(struct sac_op_case *list)
{
    int n = sac_training_own_cases(list);

    list[n] = sac_training_norm("batch norm of many channels and ReLU",
                                (struct sac_shape){4, {0, 83, 7, 8}}, 5, true, false);
    list[n++].spread = false; /* exact in bf16 */
    return n;
}

static struct sac_op_rig *rig_with(const struct sac_op_case *what, bool reference, int batch,
                                   enum sac_precision precision)
{
    struct sac_op_rig_options options = {
        .ops = {.training = true, .reference = reference, .precision = precision}, .batch = batch};
    struct sac_op_rig *rig;
    struct sac_error err = {0};

    assert_ok(sac_op_rig_new(&rig, device, what, &options, &err), err);
    return rig;
}

static struct sac_op_rig *rig_of(const struct sac_op_case *what, bool reference, int batch)
{
    return rig_with(what, reference, batch, SAC_PRECISION_F32);
}

/* The results, weighted by the gradients given to them. */
static double value_of(struct sac_op_rig *rig, const struct sac_op_case *what)
{
    struct sac_error err = {0};
    double sum = 0;

    sac_op_rig_masters_changed(rig);
    assert_ok(sac_op_rig_run(rig, &err), err);
    for (int i = 0; i < what->dst_count; i++) {
        const float *weight = sac_op_rig_result_gradient(rig, i);
        size_t count;
        float *y = sac_op_rig_result(rig, i, &count);
        for (size_t k = 0; k < count; k++)
            sum += (double)weight[k] * y[k];
        free(y);
    }
    return sum;
}

/* The k-th direction: first single elements, then all elements at once. */
static float direction(size_t k, size_t element, size_t count)
{
    if (k < 4)
        return element == k * 7919 % count;
    uint32_t mixed = ((uint32_t)element + 1) * (2654435761u + 2 * (uint32_t)k);
    return (mixed >> 20) % 2 ? 1 : -1;
}

/* Steps that single numbers can make exactly. */
static void check_numbers(struct sac_op_rig *rig, const struct sac_op_case *what, const char *which,
                          float *numbers, const float *gradient, size_t count)
{
    enum { DIRECTIONS = 8 };
    const float step = 1.f / 128;
    double most = 1e-3, norm = 0;

    float *kept = malloc(count * sizeof *kept);
    assert_non_null(kept);
    memcpy(kept, numbers, count * sizeof *kept);
    for (size_t i = 0; i < count; i++) {
        most = fabs(gradient[i]) > most ? fabs(gradient[i]) : most;
        norm += (double)gradient[i] * gradient[i];
    }
    for (size_t k = 0; k < DIRECTIONS; k++) {
        double along = 0, value[2], scale = k < 4 ? most : sqrt(norm) + most;
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < count; i++)
                numbers[i] = kept[i] + (side ? -step : step) * direction(k, i, count);
            value[side] = value_of(rig, what);
        }
        for (size_t i = 0; i < count; i++)
            along += (double)gradient[i] * direction(k, i, count);
        double found = (value[0] - value[1]) / (2 * (double)step);
        if (!(fabs(found - along) <= 1e-3 * scale))
            fail_msg("%s, %s, direction %zu: backward says %g, differences %g (scale %g)",
                     what->name, which, k, along, found, scale);
    }
    memcpy(numbers, kept, count * sizeof *kept);
    free(kept);
}

static void check_case(const struct sac_op_case *what, int batch)
{
    struct sac_op_rig *rig = rig_of(what, true, batch);
    struct sac_error err = {0};
    float *weight_gradient[SAC_NODE_WEIGHTS_MAX] = {0};

    value_of(rig, what);
    assert_ok(sac_op_rig_backward(rig, &err), err);
    for (int i = 0; i < what->weight_count; i++) {
        size_t count;
        sac_op_rig_master(rig, i, &count);
        weight_gradient[i] = malloc(count * sizeof(float));
        memcpy(weight_gradient[i], sac_op_rig_weight_gradient(rig, i), count * sizeof(float));
    }
    for (int i = 0; i < what->src_count; i++) {
        float *gradient = sac_op_rig_source_gradient(rig, i);
        if (gradient)
            check_numbers(rig, what, i ? "source 1" : "source 0", sac_op_rig_source_numbers(rig, i),
                          gradient, sac_op_rig_source_count(rig, i));
        free(gradient);
    }
    for (int i = 0; i < what->weight_count; i++) {
        size_t count;
        float *master = sac_op_rig_master(rig, i, &count);
        if (what->kind != SAC_OP_BATCHNORM || i >= 3)
            check_numbers(rig, what, i ? "weight 1" : "weight 0", master, weight_gradient[i],
                          count);
        free(weight_gradient[i]);
    }
    sac_op_rig_free(rig);
}

static void backward_is_what_central_differences_say(void **state)
{
    (void)state;
    for (int i = 0; i < sac_op_case_count(); i++) {
        struct sac_op_case what = sac_training_case(sac_op_case(i));
        if (sac_training_goes_back(&what))
            check_case(&what, 2);
    }
}

static void losses_and_training_layers_are_what_central_differences_say(void **state)
{
    struct sac_op_case list[SAC_TRAINING_OWN_MAX];
    int count = sac_training_own_cases(list);

    (void)state;
    for (int i = 0; i < count; i++) {
        list[i].spread = sac_training_has_kinks(&list[i]);
        check_case(&list[i], 5);
    }
}

static void agree(const struct sac_op_case *what, const char *which, const float *fast,
                  const float *loops, size_t count, double tolerance)
{
    double most = 1e-6;

    for (size_t k = 0; k < count; k++)
        most = fabs(loops[k]) > most ? fabs(loops[k]) : most;
    for (size_t k = 0; k < count; k++)
        if (!(fabs((double)fast[k] - loops[k]) <= tolerance * most))
            fail_msg("%s, %s: element %zu is %g, the loops say %g", what->name, which, k, fast[k],
                     loops[k]);
}

static void compare(const struct sac_op_case *what, int batch, enum sac_precision precision)
{
    struct sac_op_rig *rigs[] = {rig_with(what, false, batch, precision),
                                 rig_of(what, true, batch)};
    double tolerance = precision == SAC_PRECISION_F32 ? 1e-4 : 2e-2;
    struct sac_error err = {0};

    for (int i = 0; i < 2; i++) {
        assert_ok(sac_op_rig_run(rigs[i], &err), err);
        assert_ok(sac_op_rig_backward(rigs[i], &err), err);
    }
    for (int i = 0; i < what->src_count; i++) {
        float *fast = sac_op_rig_source_gradient(rigs[0], i);
        float *loops = sac_op_rig_source_gradient(rigs[1], i);
        if (loops)
            agree(what, "source", fast, loops, sac_op_rig_source_count(rigs[0], i), tolerance);
        free(fast);
        free(loops);
    }
    for (int i = 0; i < what->weight_count; i++) {
        size_t count;
        sac_op_rig_master(rigs[0], i, &count);
        agree(what, "weight", sac_op_rig_weight_gradient(rigs[0], i),
              sac_op_rig_weight_gradient(rigs[1], i), count, tolerance);
    }
    sac_op_rig_free(rigs[0]);
    sac_op_rig_free(rigs[1]);
}

static void compare_all(enum sac_precision precision)
{
    struct sac_op_case own[SAC_TRAINING_OWN_MAX];
    int own_count = fast_cases(own);

    for (int i = 0; i < sac_op_case_count() + own_count; i++) {
        struct sac_op_case what =
            i < own_count ? own[i] : sac_training_case(sac_op_case(i - own_count));
        if (!sac_training_goes_back(&what))
            continue;
        compare(&what, 1, precision);
        compare(&what, 5, precision);
    }
}

static void fast_kernels_go_back_as_the_loops_do(void **state)
{
    (void)state;
    compare_all(SAC_PRECISION_F32);
}

/* What one thread makes, and what three make, to the bit. */
static void compare_threads(const struct sac_op_case *what, enum sac_precision precision)
{
    struct sac_op_rig *rigs[2];
    struct sac_error err = {0};

    for (int i = 0; i < 2; i++) {
        struct sac_op_rig_options options = {
            .ops = {.training = true, .precision = precision, .threads = i ? 3 : 1}, .batch = 37};
        assert_ok(sac_op_rig_new(&rigs[i], device, what, &options, &err), err);
        assert_ok(sac_op_rig_run(rigs[i], &err), err);
        assert_ok(sac_op_rig_backward(rigs[i], &err), err);
    }
    for (int i = 0; i < what->src_count; i++) {
        float *one = sac_op_rig_source_gradient(rigs[0], i);
        float *three = sac_op_rig_source_gradient(rigs[1], i);
        if (one)
            agree(what, "source", three, one, sac_op_rig_source_count(rigs[0], i), 0);
        free(one);
        free(three);
    }
    for (int i = 0; i < what->dst_count; i++) {
        size_t count;
        float *one = sac_op_rig_result(rigs[0], i, &count);
        float *three = sac_op_rig_result(rigs[1], i, &count);
        agree(what, "result", three, one, count, 0);
        free(one);
        free(three);
    }
    for (int i = 0; i < what->weight_count; i++) {
        size_t count;
        sac_op_rig_master(rigs[0], i, &count);
        agree(what, "weight", sac_op_rig_weight_gradient(rigs[1], i),
              sac_op_rig_weight_gradient(rigs[0], i), count, 0);
    }
    sac_op_rig_free(rigs[0]);
    sac_op_rig_free(rigs[1]);
}

static bool is_oneDNN(enum sac_op_kind kind)
{
    return kind == SAC_OP_CONV || kind == SAC_OP_DECONV || kind == SAC_OP_INNER;
}

static void threads_change_no_bit_of_our_own_kernels(void **state)
{
    struct sac_op_case own[SAC_TRAINING_OWN_MAX];
    int own_count = fast_cases(own);

    (void)state;
    for (int i = 0; i < sac_op_case_count() + own_count; i++) {
        struct sac_op_case what =
            i < own_count ? own[i] : sac_training_case(sac_op_case(i - own_count));
        if (!sac_training_goes_back(&what) || is_oneDNN(what.kind))
            continue;
        compare_threads(&what, SAC_PRECISION_F32);
        compare_threads(&what, SAC_PRECISION_BF16);
    }
}

/* Gradients of the weights stay fp32, of the values go through bf16. */
static void bf16_goes_back_as_the_loops_do_in_f32(void **state)
{
    (void)state;
    compare_all(SAC_PRECISION_BF16);
}

/* s ← .9 s + 1 = 1.9; mean ← .9 · 10 + 2.5; var ← .9 · 20 + 4/3 · 1.25. */
static void batch_norm_keeps_running_sums_as_caffe_does(void **state)
{
    struct sac_op_case what = {.name = "bn", .kind = SAC_OP_BATCHNORM};
    size_t count;
    struct sac_error err = {0};

    (void)state;
    what.src_count = what.dst_count = 1;
    what.weight_count = 3;
    what.src[0] = what.dst[0] = (struct sac_shape){2, {0, 1}};
    for (int i = 0; i < 3; i++)
        what.weight[i] = (struct sac_shape){1, {1}};
    what.param.batchnorm.fraction = .9f;
    struct sac_op_rig *rig = rig_of(&what, false, 4);
    for (int i = 0; i < 4; i++)
        sac_op_rig_source_numbers(rig, 0)[i] = (float)(i + 1);
    sac_op_rig_master(rig, 0, &count)[0] = 10;
    sac_op_rig_master(rig, 1, &count)[0] = 20;
    sac_op_rig_master(rig, 2, &count)[0] = 1;
    assert_ok(sac_op_rig_run(rig, &err), err);
    assert_float_equal(sac_op_rig_master(rig, 0, &count)[0], 11.5, 1e-5);
    assert_float_equal(sac_op_rig_master(rig, 1, &count)[0], 18 + 4 / 3. * 1.25, 1e-5);
    assert_float_equal(sac_op_rig_master(rig, 2, &count)[0], 1.9, 1e-6);
    sac_op_rig_free(rig);
}

static float accuracy_of(const float *scores, const float *labels, int top_k, int ignored)
{
    struct sac_op_case what = sac_training_loss(
        "accuracy", SAC_OP_ACCURACY, (struct sac_shape){2, {0, 4}}, (struct sac_shape){1, {0}});
    struct sac_error err = {0};
    size_t count;

    what.param.loss.top_k = top_k;
    what.param.loss.ignores = ignored >= 0;
    what.param.loss.ignored = ignored;
    struct sac_op_rig *rig = rig_of(&what, false, 3);
    memcpy(sac_op_rig_source_numbers(rig, 0), scores, 12 * sizeof *scores);
    memcpy(sac_op_rig_source_numbers(rig, 1), labels, 3 * sizeof *labels);
    assert_ok(sac_op_rig_run(rig, &err), err);
    float *result = sac_op_rig_result(rig, 0, &count), out = result[0];
    free(result);
    sac_op_rig_free(rig);
    return out;
}

/* Worked by hand: rows hit at top 1, tied for the top, and third. */
static void accuracy_counts_ties_against_the_label(void **state)
{
    const float scores[] = {1, 5, 2, 3, 7, 0, 7, 1, 4, 3, 2, 1}, labels[] = {1, 0, 2};

    (void)state;
    assert_float_equal(accuracy_of(scores, labels, 1, -1), 1 / 3., 1e-6);
    assert_float_equal(accuracy_of(scores, labels, 2, -1), 2 / 3., 1e-6);
    assert_float_equal(accuracy_of(scores, labels, 3, -1), 1, 1e-6);
    assert_float_equal(accuracy_of(scores, labels, 1, 0), 1 / 2., 1e-6);
}

static void a_label_that_is_no_class_is_refused(void **state)
{
    const float wrong[] = {10, -1, .5f, NAN};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct sac_op_case what =
            sac_training_loss("loss1", SAC_OP_SOFTMAX_LOSS, (struct sac_shape){2, {0, 10}},
                              (struct sac_shape){1, {0}});
        struct sac_op_rig *rig = rig_of(&what, false, 3);
        struct sac_error err = {0};
        sac_op_rig_source_numbers(rig, 1)[2] = wrong[i];
        assert_int_equal(sac_op_rig_run(rig, &err), SAC_EINVAL);
        assert_says(err, "loss1");
        assert_says(err, "place 2");
        assert_says(err, "0 to 9");
        sac_op_rig_free(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backward_is_what_central_differences_say),
        cmocka_unit_test(losses_and_training_layers_are_what_central_differences_say),
        cmocka_unit_test(fast_kernels_go_back_as_the_loops_do),
        cmocka_unit_test(threads_change_no_bit_of_our_own_kernels),
        cmocka_unit_test(bf16_goes_back_as_the_loops_do_in_f32),
        cmocka_unit_test(batch_norm_keeps_running_sums_as_caffe_does),
        cmocka_unit_test(accuracy_counts_ties_against_the_label),
        cmocka_unit_test(a_label_that_is_no_class_is_refused),
    };

    return cmocka_run_group_tests(tests, open_device, close_device);
}
