/*
 * The six rules against the same formulas written out in double precision, one
 * parameter at a time, and small steps worked out by hand.
 */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/caffe.h"
#include "train/solver.h"

enum { A = 1500, B = 37, C = 11, TOTAL = A + B + C + 8, STEPS = 25 };

/* Three parameters: the second with other multipliers, the third frozen; a gap between. */
static const struct sac_solver_segment segments[] = {
    {"conv1 blob 0", {2, {30, 50}}, 0, 1, 1},
    {"conv1 blob 1", {1, {B}}, A + 5, 2, 0},
    {"frozen", {1, {C}}, A + 5 + B, 0, 1},
};

static struct sac_caffe_solver load(const char *text)
{
    struct sac_caffe_solver solver;
    struct sac_error err = {0};
    const char *path = sac_test_write("solver.prototxt", text, strlen(text));

    assert_ok(sac_caffe_solver_load(&solver, path, &err), err);
    return solver;
}

/* A counter-based generator: the same numbers in every run. */
static float number(uint64_t seed, uint64_t index)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + index;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)((double)(x >> 11) * 0x1p-53 * 2 - 1);
}

/* What the reference needs to know. */
struct settings {
    const char *type;
    double rate, momentum, second, delta, decay, clip;
    int iter_size;
    bool l1;
};

/* One parameter of the reference. */
struct number_state {
    double w, h, k;
};

static void reference_step(const struct settings *s, struct number_state *n, double g, double rate,
                           int t)
{
    double m = s->momentum, d = s->delta, old = n->h;

    if (strcmp(s->type, "SGD") == 0) {
        n->h = m * n->h + rate * g;
        n->w -= n->h;
    } else if (strcmp(s->type, "Nesterov") == 0) {
        n->h = m * old + rate * g;
        n->w -= (1 + m) * n->h - m * old;
    } else if (strcmp(s->type, "AdaGrad") == 0) {
        n->h += g * g;
        n->w -= rate * g / (sqrt(n->h) + d);
    } else if (strcmp(s->type, "RMSProp") == 0) {
        n->h = s->second * n->h + (1 - s->second) * g * g;
        n->w -= rate * g / (sqrt(n->h) + d);
    } else if (strcmp(s->type, "AdaDelta") == 0) {
        n->h = m * n->h + (1 - m) * g * g;
        double u = g * sqrt((n->k + d) / (n->h + d));
        n->k = m * n->k + (1 - m) * u * u;
        n->w -= rate * u;
    } else {
        n->h = m * n->h + (1 - m) * g;
        n->k = s->second * n->k + (1 - s->second) * g * g;
        rate *= sqrt(1 - pow(s->second, t)) / (1 - pow(m, t));
        n->w -= rate * n->h / (sqrt(n->k) + d);
    }
}

static double sign(double x)
{
    return (x > 0) - (x < 0);
}

static void reference_update(const struct settings *s, struct number_state *numbers,
                             const float *grads, int iteration)
{
    double sum = 0, clip = 1;

    for (int p = 0; p < 2; p++) {
        int64_t count = sac_shape_count(&segments[p].shape);
        for (int64_t i = 0; i < count; i++)
            sum += pow((double)grads[segments[p].offset + (size_t)i], 2);
    }
    if (s->clip >= 0 && sqrt(sum) > s->clip)
        clip = s->clip / sqrt(sum);
    for (int p = 0; p < 2; p++) {
        int64_t count = sac_shape_count(&segments[p].shape);
        for (int64_t i = 0; i < count; i++) {
            size_t at = segments[p].offset + (size_t)i;
            double g = (double)grads[at] * clip / s->iter_size;
            double decay = s->decay * (double)segments[p].decay_mult;
            g += decay * (s->l1 ? sign(numbers[at].w) : numbers[at].w);
            reference_step(s, &numbers[at], g, s->rate * (double)segments[p].lr_mult,
                           iteration + 1);
        }
    }
}

static void write_settings(char *text, size_t size, const struct settings *s)
{
    int used = snprintf(text, size,
                        "type: '%s' base_lr: %g lr_policy: 'fixed' momentum: %g delta: %g "
                        "weight_decay: %g clip_gradients: %g iter_size: %d "
                        "regularization_type: '%s' ",
                        s->type, s->rate, s->momentum, s->delta, s->decay, s->clip, s->iter_size,
                        s->l1 ? "L1" : "L2");
    if (strcmp(s->type, "Adam") == 0)
        snprintf(text + used, size - (size_t)used, "momentum2: %g", s->second);
    else
        snprintf(text + used, size - (size_t)used, "rms_decay: %g", s->second);
}

/* STEPS updates by both; the largest difference of parameters over their movement. */
static void compare(const struct settings *s)
{
    static float params[TOTAL], grads[TOTAL];
    static struct number_state numbers[TOTAL];
    struct sac_error err = {0};
    struct sac_solver *solver;
    char text[512];

    write_settings(text, sizeof text, s);
    struct sac_caffe_solver message = load(text);
    assert_ok(sac_solver_new(&solver, message.solver, segments, 3, TOTAL, &err), err);
    for (size_t i = 0; i < TOTAL; i++) {
        params[i] = number(1, i);
        numbers[i] = (struct number_state){.w = (double)params[i]};
    }
    for (int step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < TOTAL; i++)
            grads[i] = number(2 + (uint64_t)step, i) * 3;
        sac_solver_update(solver, params, grads, step);
        reference_update(s, numbers, grads, step);
    }
    double worst = 0, moved = 0;
    for (size_t i = 0; i < TOTAL; i++) {
        worst = fmax(worst, fabs((double)params[i] - numbers[i].w));
        moved = fmax(moved, fabs(numbers[i].w - (double)number(1, i)));
    }
    if (!(worst <= 2e-5 * fmax(moved, 0.1)) || moved == 0)
        fail_msg("%s: off by %g after moves of %g", s->type, worst, moved);
    for (size_t i = segments[2].offset; i < TOTAL; i++)
        assert_true(params[i] == number(1, i)); /* frozen and gaps */
    sac_solver_free(solver);
    sac_caffe_solver_done(&message);
}

static const struct settings plain[] = {
    {"SGD", 0.1, 0.9, 0.99, 1e-8, 0.01, -1, 1, false},
    {"Nesterov", 0.1, 0.9, 0.99, 1e-8, 0.01, -1, 1, false},
    {"AdaGrad", 0.1, 0, 0.99, 1e-8, 0.01, -1, 1, false},
    {"RMSProp", 0.01, 0, 0.98, 1e-8, 0.01, -1, 1, false},
    {"AdaDelta", 1, 0.95, 0.99, 1e-6, 0.01, -1, 1, false},
    {"Adam", 0.01, 0.9, 0.999, 1e-8, 0.01, -1, 1, false},
};

static void the_six_rules_follow_their_formulas(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        compare(&plain[i]);
}

static void clipping_iter_size_and_decay_keep_their_order_in_all_six(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        struct settings s = plain[i];
        s.clip = 20; /* the norm is about 68 */
        s.iter_size = 4;
        s.decay = 0.05;
        compare(&s);
        s.l1 = true;
        compare(&s);
    }
}

/* One parameter of value 2, gradients 1 and 1, and the result after two steps. */
static void two_steps(const char *text, float first, float second)
{
    static const struct sac_solver_segment one = {"w", {1, {1}}, 0, 1, 1};
    struct sac_caffe_solver message = load(text);
    struct sac_error err = {0};
    struct sac_solver *solver;
    float w = 2, g = 1;

    assert_ok(sac_solver_new(&solver, message.solver, &one, 1, 1, &err), err);
    sac_solver_update(solver, &w, &g, 0);
    if (fabsf(w - first) > 1e-6f)
        fail_msg("%s: %.9g, expected %.9g", text, (double)w, (double)first);
    sac_solver_update(solver, &w, &g, 1);
    if (fabsf(w - second) > 1e-6f)
        fail_msg("%s: %.9g, expected %.9g", text, (double)w, (double)second);
    sac_solver_free(solver);
    sac_caffe_solver_done(&message);
}

static void two_steps_come_out_as_by_hand(void **state)
{
    (void)state;
    /* h = .1, .15 */
    two_steps("base_lr: .1 lr_policy: 'fixed' momentum: .5", 1.9f, 1.75f);
    /* h = .1, .15; 1.5·.1 − 0 = .15; 1.5·.15 − .5·.1 = .175 */
    two_steps("type: 'Nesterov' base_lr: .1 lr_policy: 'fixed' momentum: .5", 1.85f, 1.675f);
    /* g/√1, g/√2 */
    two_steps("type: 'AdaGrad' base_lr: .1 lr_policy: 'fixed'", 1.9f, 1.9f - 0.0707106781f);
    /* h = .25, .4375: .1/.5, .1/.661438 */
    two_steps("type: 'RMSProp' base_lr: .1 lr_policy: 'fixed' rms_decay: .75", 1.8f,
              1.8f - 0.151185789f);
    /* δ = 1: h = .5, .75; u = √(1/1.5), k = 1/3; u = √((4/3)/1.75) */
    two_steps("type: 'AdaDelta' base_lr: 1 lr_policy: 'fixed' momentum: .5 delta: 1",
              2 - 0.816496581f, 2 - 0.816496581f - 0.872871561f);
    /* A constant gradient: the bias correction makes every step the rate. */
    two_steps("type: 'Adam' base_lr: .1 lr_policy: 'fixed' momentum: .9", 1.9f, 1.8f);
    /* Clipped to .5, halved by iter_size, decayed by .25·w: g = .25 + .5, then .25 + .48125. */
    two_steps("base_lr: .1 lr_policy: 'fixed' clip_gradients: .5 iter_size: 2 weight_decay: .25",
              1.925f, 1.851875f);
    /* L1: g = 1 + .25 */
    two_steps("base_lr: .1 lr_policy: 'fixed' weight_decay: .25 regularization_type: 'L1'", 1.875f,
              1.75f);
}

/* A gradient no longer than the limit is left as it is. */
static void a_short_gradient_is_not_clipped(void **state)
{
    (void)state;
    two_steps("base_lr: .1 lr_policy: 'fixed' clip_gradients: 1", 1.9f, 1.8f);
}

static void an_update_in_pieces_is_the_same_bit_for_bit(void **state)
{
    static const size_t cuts[] = {0, 1, 777, 1023, 1024, 1500, 1510, 1511, SIZE_MAX};
    static float whole[TOTAL], pieces[TOTAL], grads[TOTAL];
    struct sac_caffe_solver message =
        load("type: 'Adam' base_lr: .01 lr_policy: 'fixed' momentum: .9 clip_gradients: 3");
    struct sac_solver *a, *b;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_solver_new(&a, message.solver, segments, 3, TOTAL, &err), err);
    assert_ok(sac_solver_new(&b, message.solver, segments, 3, TOTAL, &err), err);
    for (size_t i = 0; i < TOTAL; i++)
        whole[i] = pieces[i] = number(1, i);
    for (int step = 0; step < 3; step++) {
        for (size_t i = 0; i < TOTAL; i++)
            grads[i] = number(5 + (uint64_t)step, i);
        sac_solver_update(a, whole, grads, step);
        struct sac_solver_step begun = sac_solver_begin(b, grads, step);
        for (size_t i = sizeof cuts / sizeof cuts[0] - 1; i > 0; i--)
            sac_solver_apply(b, &begun, pieces, grads, cuts[i - 1], cuts[i]);
    }
    assert_memory_equal(whole, pieces, sizeof whole);
    sac_solver_free(a);
    sac_solver_free(b);
    sac_caffe_solver_done(&message);
}

static void history_goes_out_and_in_and_training_goes_on_bit_for_bit(void **state)
{
    static float straight[TOTAL], resumed[TOTAL], grads[TOTAL];
    struct sac_caffe_solver message =
        load("type: 'AdaDelta' base_lr: 1 lr_policy: 'fixed' momentum: .9 delta: 1e-6");
    struct sac_solver *a, *b;
    struct sac_error err = {0};
    struct sac_blob_view history[6];

    (void)state;
    assert_ok(sac_solver_new(&a, message.solver, segments, 3, TOTAL, &err), err);
    assert_ok(sac_solver_new(&b, message.solver, segments, 3, TOTAL, &err), err);
    for (size_t i = 0; i < TOTAL; i++) {
        straight[i] = number(1, i);
        grads[i] = number(2, i);
    }
    for (int step = 0; step < 5; step++)
        sac_solver_update(a, straight, grads, step);
    memcpy(resumed, straight, sizeof resumed);
    assert_int_equal(sac_solver_history_count(a), 6);
    for (int i = 0; i < 6; i++)
        history[i] = sac_solver_history(a, i);
    assert_ok(sac_solver_history_load(b, history, 6, &err), err);
    for (int step = 5; step < 10; step++) {
        sac_solver_update(a, straight, grads, step);
        sac_solver_update(b, resumed, grads, step);
    }
    assert_memory_equal(straight, resumed, sizeof straight);
    sac_solver_free(a);
    sac_solver_free(b);
    sac_caffe_solver_done(&message);
}

static void history_of_another_net_is_refused(void **state)
{
    struct sac_caffe_solver message = load("base_lr: 1 lr_policy: 'fixed'");
    struct sac_solver *solver;
    struct sac_error err = {0}, count = {0}, shape = {0};
    float value = 0;
    struct sac_blob_view history[3] = {
        {{2, {30, 51}}, &value}, {{1, {B}}, &value}, {{1, {C}}, &value}};

    (void)state;
    assert_ok(sac_solver_new(&solver, message.solver, segments, 3, TOTAL, &err), err);
    assert_int_equal(sac_solver_history_load(solver, history, 2, &count), SAC_EFORMAT);
    assert_says(count, "2 history blobs, and SGD over 3 parameters has 3");
    assert_int_equal(sac_solver_history_load(solver, history, 3, &shape), SAC_EFORMAT);
    assert_says(shape, "history blob 0 is 30 × 51, and conv1 blob 0 is 30 × 50");
    sac_solver_free(solver);
    sac_caffe_solver_done(&message);
}

static void a_nan_is_named_with_its_parameter(void **state)
{
    static float grads[TOTAL];
    struct sac_caffe_solver message = load("base_lr: 1 lr_policy: 'fixed'");
    struct sac_solver *solver;
    struct sac_error err = {0}, frozen = {0};

    (void)state;
    assert_ok(sac_solver_new(&solver, message.solver, segments, 3, TOTAL, &err), err);
    grads[segments[2].offset] = NAN; /* frozen: nobody's business */
    assert_ok(sac_solver_check_finite(solver, grads, "gradient", &frozen), frozen);
    grads[segments[1].offset + 7] = INFINITY;
    assert_int_equal(sac_solver_check_finite(solver, grads, "gradient", &err), SAC_EINVAL);
    assert_says(err, "the gradient of conv1 blob 1 is infinite at index 7 of 37");
    sac_solver_free(solver);
    sac_caffe_solver_done(&message);
}

static void settings_that_cannot_be_meant_are_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"type: 'sgd' base_lr: 1 lr_policy: 'fixed'", "solver type \"sgd\" is unknown"},
        {"type: 'AdaGrad' momentum: .9 base_lr: 1 lr_policy: 'fixed'", "momentum is 0.9"},
        {"type: 'RMSProp' momentum: .9 base_lr: 1 lr_policy: 'fixed'", "RMSProp has none"},
        {"type: 'RMSProp' rms_decay: 1 base_lr: 1 lr_policy: 'fixed'", "rms_decay is 1"},
        {"iter_size: 0 base_lr: 1 lr_policy: 'fixed'", "iter_size is 0"},
        {"regularization_type: 'L3' base_lr: 1 lr_policy: 'fixed'", "expected L1 or L2"},
        {"momentum_policy: 'poly' base_lr: 1 lr_policy: 'fixed'", "momentum_policy \"poly\""},
        {"eval_type: 'detection' base_lr: 1 lr_policy: 'fixed'", "eval_type \"detection\""},
        {"local_lr_auto: true base_lr: 1 lr_policy: 'fixed'", "local_lr_auto"},
        {"base_lr: 1 lr_policy: 'step'", "needs gamma"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sac_caffe_solver message = load(cases[i].text);
        struct sac_solver *solver = NULL;
        struct sac_error err = {0};
        assert_true(sac_solver_new(&solver, message.solver, segments, 3, TOTAL, &err) < 0);
        assert_says(err, cases[i].says);
        sac_caffe_solver_done(&message);
    }
}

static void segments_that_overlap_or_overrun_are_refused(void **state)
{
    struct sac_caffe_solver message = load("base_lr: 1 lr_policy: 'fixed'");
    struct sac_solver *solver;
    struct sac_error overrun = {0}, overlap = {0};
    struct sac_solver_segment two[] = {{"a", {1, {4}}, 0, 1, 1}, {"b", {1, {4}}, 3, 1, 1}};

    (void)state;
    assert_int_equal(sac_solver_new(&solver, message.solver, two, 2, 8, &overlap), SAC_EINVAL);
    assert_says(overlap, "parameter b");
    two[1].offset = 4;
    assert_int_equal(sac_solver_new(&solver, message.solver, two, 2, 7, &overrun), SAC_EINVAL);
    assert_says(overrun, "do not fit between 4 and 7");
    sac_caffe_solver_done(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_six_rules_follow_their_formulas),
        cmocka_unit_test(clipping_iter_size_and_decay_keep_their_order_in_all_six),
        cmocka_unit_test(two_steps_come_out_as_by_hand),
        cmocka_unit_test(a_short_gradient_is_not_clipped),
        cmocka_unit_test(an_update_in_pieces_is_the_same_bit_for_bit),
        cmocka_unit_test(history_goes_out_and_in_and_training_goes_on_bit_for_bit),
        cmocka_unit_test(history_of_another_net_is_refused),
        cmocka_unit_test(a_nan_is_named_with_its_parameter),
        cmocka_unit_test(settings_that_cannot_be_meant_are_refused),
        cmocka_unit_test(segments_that_overlap_or_overrun_are_refused),
    };
    return cmocka_run_group_tests_name("solver", tests, NULL, NULL);
}
