/* Fillers against the moments and formulas of Caffe's. */
#include "net/net_support.h"

#include <math.h>

#include "net/fillers.h"

enum { OUT = 200, IN = 500, COUNT = OUT * IN };

static float numbers[COUNT];
static const struct sac_shape matrix = {2, {OUT, IN}};

struct moments {
    double mean, variance, least, most, zeros;
};

static struct moments moments_of(const struct sac_filler *filler)
{
    struct sac_error err = {0};
    struct moments m = {.least = INFINITY, .most = -INFINITY};

    assert_ok(sac_filler_fill(filler, "fc/0", &matrix, 1, numbers, &err), err);
    for (int i = 0; i < COUNT; i++) {
        m.mean += numbers[i] / (double)COUNT;
        m.least = fmin(m.least, numbers[i]);
        m.most = fmax(m.most, numbers[i]);
        m.zeros += numbers[i] == 0;
    }
    for (int i = 0; i < COUNT; i++)
        m.variance += (numbers[i] - m.mean) * (numbers[i] - m.mean) / COUNT;
    return m;
}

/* Within five standard errors of 100,000 draws: of a mean σ/316, of a variance less
 * than 1.5 %  (σ²·√(2/n) for a normal, less for a uniform). */
static void has_moments(const struct moments *m, double mean, double variance)
{
    assert_float_equal(m->mean, mean, 5 * sqrt(variance / COUNT));
    assert_float_equal(m->variance, variance, .025 * variance);
}

static void xavier_is_uniform_with_variance_one_by_fan(void **state)
{
    struct sac_filler filler = {.type = "xavier"};
    const double fan[] = {IN, OUT, (IN + OUT) / 2.};

    (void)state;
    for (int norm = 0; norm < 3; norm++) {
        filler.norm = (Caffe__FillerParameter__VarianceNorm)norm;
        struct moments m = moments_of(&filler);
        has_moments(&m, 0, 1 / fan[norm]);
        assert_true(m.most <= sqrt(3 / fan[norm]) && m.most > .999 * sqrt(3 / fan[norm]));
        assert_true(m.least >= -sqrt(3 / fan[norm]) && m.least < -.999 * sqrt(3 / fan[norm]));
    }
}

static void msra_is_normal_with_variance_two_by_fan(void **state)
{
    struct sac_filler filler = {.type = "msra"};
    struct moments m = moments_of(&filler);

    (void)state;
    has_moments(&m, 0, 2. / IN);
    assert_true(m.most > 3.5 * sqrt(2. / IN)); /* it has tails */
}

static void gaussian_has_its_mean_and_deviation(void **state)
{
    struct sac_filler filler = {.type = "gaussian", .mean = .5f, .std = .01f, .sparse = -1};
    struct moments m = moments_of(&filler);

    (void)state;
    has_moments(&m, .5, 1e-4);
}

/* Each weight stays with probability sparse / outputs: 10 / 200. */
static void sparse_gaussians_keep_their_share(void **state)
{
    struct sac_filler filler = {.type = "gaussian", .std = 1, .sparse = 10};
    struct moments m = moments_of(&filler);

    (void)state;
    assert_float_equal(m.zeros / COUNT, .95, .005);
    assert_float_equal(m.variance, .05, .005);
}

static void uniform_and_constant_are_as_told(void **state)
{
    struct sac_filler filler = {.type = "uniform", .min = 2, .max = 5};
    struct moments m = moments_of(&filler);

    (void)state;
    has_moments(&m, 3.5, 9 / 12.);
    filler = sac_filler_constant(.1f);
    m = moments_of(&filler);
    assert_true(m.least == .1f && m.most == .1f);
}

static void unitball_rows_are_positive_and_add_up_to_one(void **state)
{
    struct sac_filler filler = {.type = "positive_unitball"};
    struct moments m = moments_of(&filler);

    (void)state;
    assert_true(m.least >= 0);
    for (int row = 0; row < OUT; row++) {
        double sum = 0;
        for (int i = 0; i < IN; i++)
            sum += numbers[row * IN + i];
        assert_float_equal(sum, 1, 1e-5);
    }
}

/* The usual filter of upsampling by 2: 1/4, 3/4, 3/4, 1/4 both ways. */
static void bilinear_is_a_tent(void **state)
{
    const struct sac_shape shape = {4, {2, 1, 4, 4}};
    const float row[] = {.25f, .75f, .75f, .25f};
    struct sac_filler filler = {.type = "bilinear"};
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_filler_fill(&filler, "up/0", &shape, 1, numbers, &err), err);
    for (int i = 0; i < 32; i++)
        assert_float_equal(numbers[i], row[i % 4] * row[i / 4 % 4], 1e-6);
    assert_int_equal(sac_filler_fill(&filler, "fc/0", &matrix, 1, numbers, &err), SAC_EFORMAT);
    assert_says(err, "fc/0");
}

static void numbers_depend_on_seed_name_and_place_only(void **state)
{
    const struct sac_shape few = {2, {2, IN}};
    struct sac_filler filler = {.type = "gaussian", .std = 1, .sparse = -1};
    struct sac_error err = {0};
    float other[2 * IN];

    (void)state;
    moments_of(&filler);
    assert_ok(sac_filler_fill(&filler, "fc/0", &few, 1, other, &err), err);
    assert_memory_equal(other, numbers, sizeof other);
    assert_ok(sac_filler_fill(&filler, "fc/0", &few, 2, other, &err), err);
    assert_true(memcmp(other, numbers, sizeof other) != 0);
    assert_ok(sac_filler_fill(&filler, "fd/0", &few, 1, other, &err), err);
    assert_true(memcmp(other, numbers, sizeof other) != 0);
}

static void an_unknown_filler_is_refused_with_its_parameter(void **state)
{
    struct sac_filler filler = {.type = "magic"};
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_filler_fill(&filler, "fc/0", &matrix, 1, numbers, &err), SAC_EUNSUPPORTED);
    assert_says(err, "fc/0");
    assert_says(err, "magic");
    assert_says(err, "xavier");
}

static const float *weight(struct sac_net *net, int layer, int index)
{
    return sac_layer_weight(sac_net_layer(net, layer), index, NULL);
}

static void a_net_is_filled_as_its_layers_say(void **state)
{
    struct sac_net *net = net_of(
        "layer { name: 'd' type: 'Input' top: 'd' input_param { shape { dim: 1 dim: 3 dim: 4 "
        "dim: 4 } } }\n"
        "layer { name: 'c' type: 'Convolution' bottom: 'd' top: 'c' convolution_param { "
        "num_output: 2 kernel_size: 1 weight_filler { type: 'uniform' min: 7 max: 8 } "
        "bias_filler { value: .5 } } }\n"
        "layer { name: 'b' type: 'BatchNorm' bottom: 'c' top: 'b' }\n"
        "layer { name: 's' type: 'Scale' bottom: 'b' top: 's' scale_param { bias_term: true } }\n"
        "layer { name: 'p' type: 'PReLU' bottom: 's' top: 'p' }\n"
        "layer { name: 'f' type: 'InnerProduct' bottom: 'p' top: 'f' inner_product_param { "
        "num_output: 2 bias_filler { value: 3 } } }\n");
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_net_fill(net, 1, &err), err);
    for (int i = 0; i < 6; i++)
        assert_true(weight(net, 1, 0)[i] >= 7 && weight(net, 1, 0)[i] <= 8);
    assert_true(weight(net, 1, 1)[1] == .5f);
    assert_true(weight(net, 2, 0)[1] == 0 && weight(net, 2, 1)[1] == 0);
    assert_true(weight(net, 3, 0)[1] == 1 && weight(net, 3, 1)[1] == 0);
    assert_true(weight(net, 4, 0)[1] == .25f);
    assert_true(weight(net, 5, 0)[3] == 0 && weight(net, 5, 1)[1] == 3);
    sac_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xavier_is_uniform_with_variance_one_by_fan),
        cmocka_unit_test(msra_is_normal_with_variance_two_by_fan),
        cmocka_unit_test(gaussian_has_its_mean_and_deviation),
        cmocka_unit_test(sparse_gaussians_keep_their_share),
        cmocka_unit_test(uniform_and_constant_are_as_told),
        cmocka_unit_test(unitball_rows_are_positive_and_add_up_to_one),
        cmocka_unit_test(bilinear_is_a_tent),
        cmocka_unit_test(numbers_depend_on_seed_name_and_place_only),
        cmocka_unit_test(an_unknown_filler_is_refused_with_its_parameter),
        cmocka_unit_test(a_net_is_filled_as_its_layers_say),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
