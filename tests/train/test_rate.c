/* Expected rates: the policies' formulas worked out by hand for round numbers. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/caffe.h"
#include "train/rate.h"

/* A solver from text; lives until the next call. */
static const Caffe__SolverParameter *solver_of(const char *text)
{
    static struct sac_caffe_solver solver;
    struct sac_error err = {0};

    if (solver.solver)
        sac_caffe_solver_done(&solver);
    const char *path = sac_test_write("solver.prototxt", text, strlen(text));
    assert_ok(sac_caffe_solver_load(&solver, path, &err), err);
    return solver.solver;
}

static struct sac_rate rate_of(const char *text)
{
    struct sac_error err = {0};
    struct sac_rate rate;

    assert_ok(sac_rate_init(&rate, solver_of(text), &err), err);
    return rate;
}

static void assert_rate(const struct sac_rate *rate, int64_t iteration, double expected)
{
    double got = sac_rate_at(rate, iteration);

    /* The message holds floats: 0.1 is 0.1f. */
    if (!(fabs(got - expected) <= 1e-6 * fabs(expected) + 1e-12))
        fail_msg("at %lld: %.9g, expected %.9g", (long long)iteration, got, expected);
}

static void fixed_stays(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 0.25 lr_policy: 'fixed'");

    (void)state;
    assert_rate(&rate, 0, 0.25);
    assert_rate(&rate, 1000000, 0.25);
}

static void step_falls_after_every_stepsize(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 1 lr_policy: 'step' gamma: 0.5 stepsize: 10");

    (void)state;
    assert_rate(&rate, 9, 1);
    assert_rate(&rate, 10, 0.5);
    assert_rate(&rate, 39, 0.125);
    assert_int_equal(sac_rate_step_at(&rate, 39), 3);
}

static void exp_falls_at_every_iteration(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 2 lr_policy: 'exp' gamma: 0.5");

    (void)state;
    assert_rate(&rate, 0, 2);
    assert_rate(&rate, 3, 0.25);
}

static void inv_falls_as_a_power(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 1 lr_policy: 'inv' gamma: 0.5 power: 2");

    (void)state;
    assert_rate(&rate, 0, 1);
    assert_rate(&rate, 2, 0.25);     /* (1 + 1)^-2 */
    assert_rate(&rate, 6, 1.0 / 16); /* (1 + 3)^-2 */
    rate = rate_of("base_lr: 0.01 lr_policy: 'inv' gamma: 0.0001 power: 0.75");
    assert_rate(&rate, 100, 0.00992565); /* printed by Caffe's LeNet example */
    assert_rate(&rate, 10000, 0.00594604);
}

static void multistep_counts_the_values_passed(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 0.1 lr_policy: 'multistep' gamma: 0.1 "
                                   "stepvalue: 32000 stepvalue: 48000");

    (void)state;
    assert_rate(&rate, 31999, 0.1);
    assert_rate(&rate, 32000, 0.01);
    assert_rate(&rate, 47999, 0.01);
    assert_rate(&rate, 48000, 0.001);
    assert_rate(&rate, 64000, 0.001);
    assert_int_equal(sac_rate_step_at(&rate, 53500), 2);
}

static void poly_ends_at_zero_or_min_lr(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 1 lr_policy: 'poly' power: 2 max_iter: 100");

    (void)state;
    assert_rate(&rate, 0, 1);
    assert_rate(&rate, 50, 0.25);
    assert_rate(&rate, 99, 0.0001);
    assert_rate(&rate, 100, 0);
    assert_rate(&rate, 101, 0);
    rate = rate_of("base_lr: 1 lr_policy: 'poly' power: 1 max_iter: 100 min_lr: 0.5");
    assert_rate(&rate, 50, 0.75);
}

static void sigmoid_is_half_at_its_step(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 1 lr_policy: 'sigmoid' gamma: -0.5 stepsize: 10");

    (void)state;
    assert_rate(&rate, 10, 0.5);
    assert_rate(&rate, 0, 1 / (1 + exp(-5)));
    assert_rate(&rate, 14, 1 / (1 + exp(2)));
}

static void cosine_falls_from_base_to_min_lr(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 1 lr_policy: 'cosine' max_iter: 100 min_lr: 0.5");

    (void)state;
    assert_rate(&rate, 0, 1);
    assert_rate(&rate, 25, 0.75 + 0.25 * sqrt(0.5));
    assert_rate(&rate, 50, 0.75);
    assert_rate(&rate, 100, 0.5);
    assert_rate(&rate, 200, 0.5);
}

static void warm_up_is_a_straight_line_to_base(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 1 lr_policy: 'cosine' max_iter: 110 "
                                   "rampup_interval: 10 rampup_lr: 0.5");

    (void)state;
    assert_rate(&rate, 0, 0.5);
    assert_rate(&rate, 5, 0.75);
    assert_rate(&rate, 10, 1);
    assert_rate(&rate, 60, 0.5); /* half of what is left */
    rate = rate_of("base_lr: 1 lr_policy: 'step' gamma: 0.5 stepsize: 10 rampup_interval: 4");
    assert_rate(&rate, 0, 0);
    assert_rate(&rate, 1, 0.25);
    assert_rate(&rate, 4, 1);
    assert_rate(&rate, 10, 0.5);
}

static void onecycle_rises_and_falls(void **state)
{
    struct sac_rate rate = rate_of("base_lr: 1 lr_policy: 'onecycle' max_iter: 100 "
                                   "cycle_peak: 0.25 cycle_start_div: 10 cycle_end_div: 5");

    (void)state;
    assert_rate(&rate, 0, 0.1);
    assert_rate(&rate, 25, 1);
    assert_rate(&rate, 100, 0.02);
    assert_rate(&rate, 1000, 0.02);
    double half = 0.02 + 0.98 * (1 + cos(M_PI * 25 / 75)) / 2;
    assert_rate(&rate, 50, half);
    rate = rate_of("base_lr: 1 lr_policy: 'onecycle' max_iter: 100");
    assert_rate(&rate, 0, 1.0 / 25);
    assert_rate(&rate, 30, 1);
    assert_rate(&rate, 100, 1.0 / 250000);
}

static void what_a_policy_lacks_is_named(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"base_lr: 1", "lr_policy is not set"},
        {"base_lr: 1 lr_policy: 'linear'", "\"linear\" is unknown; expected fixed, step"},
        {"lr_policy: 'fixed'", "base_lr is not set"},
        {"base_lr: -1 lr_policy: 'fixed'", "base_lr is -1"},
        {"base_lr: 1 lr_policy: 'step' stepsize: 5", "\"step\" needs gamma"},
        {"base_lr: 1 lr_policy: 'step' gamma: 0.1", "\"step\" needs stepsize"},
        {"base_lr: 1 lr_policy: 'step' gamma: 0.1 stepsize: 0", "stepsize is 0"},
        {"base_lr: 1 lr_policy: 'exp'", "\"exp\" needs gamma"},
        {"base_lr: 1 lr_policy: 'inv' gamma: 1", "\"inv\" needs power"},
        {"base_lr: 1 lr_policy: 'multistep' gamma: 1", "needs stepvalue"},
        {"base_lr: 1 lr_policy: 'poly' power: 1", "needs max_iter above 0; it is 0"},
        {"base_lr: 1 lr_policy: 'sigmoid' gamma: 1", "\"sigmoid\" needs stepsize"},
        {"base_lr: 1 lr_policy: 'cosine'", "needs max_iter"},
        {"base_lr: 1 lr_policy: 'fixed' rampup_interval: -3", "rampup_interval is -3"},
        {"base_lr: 1 lr_policy: 'onecycle' max_iter: 9 rampup_interval: 2", "of its own"},
        {"base_lr: 1 lr_policy: 'onecycle' max_iter: 9 cycle_peak: 1", "cycle_peak is 1"},
        {"base_lr: 1 lr_policy: 'onecycle' max_iter: 9 cycle_end_div: 0", "cycle_end_div 0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sac_error err = {0};
        struct sac_rate rate;
        assert_int_equal(sac_rate_init(&rate, solver_of(cases[i].text), &err), SAC_EINVAL);
        assert_says(err, cases[i].says);
    }
}

/* The log of ResNet-20's own training, in the test data, tells its rate as it goes. */
static void resnet20s_log_has_our_rates(void **state)
{
    struct sac_error err = {0};
    struct sac_caffe_solver solver;
    struct sac_rate rate;
    char line[1024];
    int compared = 0;
    const char *path = sac_test_data("cifar10_models/resnet20/solver.prototxt");

    (void)state;
    assert_ok(sac_caffe_solver_load(&solver, path, &err), err);
    assert_ok(sac_rate_init(&rate, solver.solver, &err), err);
    FILE *log = fopen(sac_test_data("cifar10_models/resnet20/train_ResNet-20.log"), "r");
    assert_non_null(log);
    while (fgets(line, sizeof line, log)) {
        const char *at = strstr(line, "] Iteration ");
        long long iteration;
        double told;
        if (at && sscanf(at, "] Iteration %lld, lr = %lf", &iteration, &told) == 2) {
            assert_rate(&rate, iteration, told);
            compared++;
        }
    }
    fclose(log);
    sac_caffe_solver_done(&solver);
    print_message("# %d rates compared\n", compared);
    assert_true(compared >= 100);
}

/* ---- The solvers of models/ ---- */

static void load_solver(struct sac_caffe_solver *ret, struct sac_rate *rate, const char *path)
{
    struct sac_error err = {0};

    assert_ok(sac_caffe_solver_load(ret, path, &err), err);
    assert_ok(sac_rate_init(rate, ret->solver, &err), err);
}

static void load_own(struct sac_caffe_solver *ret, struct sac_rate *rate, const char *name)
{
    char path[100];

    snprintf(path, sizeof path, "models/%s/solver.prototxt", name);
    load_solver(ret, rate, sac_test_source(path));
    assert_string_equal(ret->solver->net, "train_val.prototxt");
    assert_true(ret->solver->max_iter > 0 && ret->solver->n_test_iter == 1);
}

static void published_recipes_are_kept(void **state)
{
    static const char *const pairs[][2] = {
        {"alexnet", "nets/bvlc_alexnet/solver.prototxt"},
        {"caffenet", "nets/bvlc_reference_caffenet/solver.prototxt"},
        {"googlenet", "nets/bvlc_googlenet/quick_solver.prototxt"},
        {"nin", "nets/nin_imagenet/solver.prototxt"},
        {"squeezenet", "squeezenet_v1.1/solver.prototxt"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct sac_caffe_solver own, published;
        struct sac_rate a, b;
        load_own(&own, &a, pairs[i][0]);
        load_solver(&published, &b, sac_test_data(pairs[i][1]));
        const Caffe__SolverParameter *x = own.solver, *y = published.solver;
        assert_int_equal(x->max_iter, y->max_iter);
        assert_int_equal(x->iter_size, y->iter_size);
        assert_true(x->momentum == y->momentum && x->weight_decay == y->weight_decay);
        for (int k = 0; k <= 16; k++) {
            int64_t at = (int64_t)x->max_iter * k / 16;
            assert_true(sac_rate_at(&a, at) == sac_rate_at(&b, at));
        }
        sac_caffe_solver_done(&own);
        sac_caffe_solver_done(&published);
    }
}

/* 40 epochs of 50,000 in batches of 128, as the file says; up from a tenth of 0.2 in a
 * fifth of them, down to a thousandth of that tenth. */
static void the_other_solvers_have_rates(void **state)
{
    static const char *const names[] = {"vgg16", "vgg19", "vgg_cnn_s", "resnet50", "mobilenet"};
    struct sac_caffe_solver own;
    struct sac_rate rate;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        load_own(&own, &rate, names[i]);
        assert_true(sac_rate_at(&rate, 0) > sac_rate_at(&rate, own.solver->max_iter - 1));
        sac_caffe_solver_done(&own);
    }
    load_own(&own, &rate, "cifar10");
    assert_int_equal(own.solver->max_iter, 40 * 50000 / 128);
    assert_float_equal(sac_rate_at(&rate, 0), 0.02, 1e-8);
    assert_float_equal(sac_rate_at(&rate, own.solver->max_iter / 5), 0.2, 1e-8);
    assert_float_equal(sac_rate_at(&rate, own.solver->max_iter), 0.00002, 1e-8);
    sac_caffe_solver_done(&own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_stays),
        cmocka_unit_test(step_falls_after_every_stepsize),
        cmocka_unit_test(exp_falls_at_every_iteration),
        cmocka_unit_test(inv_falls_as_a_power),
        cmocka_unit_test(multistep_counts_the_values_passed),
        cmocka_unit_test(poly_ends_at_zero_or_min_lr),
        cmocka_unit_test(sigmoid_is_half_at_its_step),
        cmocka_unit_test(cosine_falls_from_base_to_min_lr),
        cmocka_unit_test(warm_up_is_a_straight_line_to_base),
        cmocka_unit_test(onecycle_rises_and_falls),
        cmocka_unit_test(what_a_policy_lacks_is_named),
        cmocka_unit_test(resnet20s_log_has_our_rates),
        cmocka_unit_test(published_recipes_are_kept),
        cmocka_unit_test(the_other_solvers_have_rates),
    };
    return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
