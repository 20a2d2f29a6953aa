#include "support/support.h"

#include <math.h>

#include "cli/arrivals.h"

static void even_arrivals_are_spaced_exactly(void **state)
{
    struct sac_arrivals arrivals;

    (void)state;
    sac_arrivals_init(&arrivals, 1000, false, 1);
    for (uint64_t k = 0; k < 100000; k++)
        assert_int_equal(sac_arrivals_next(&arrivals), k * 1000000);
}

/* Each time is k / rate rounded down: an error that added up would show. */
static void a_rate_that_does_not_divide_does_not_drift(void **state)
{
    struct sac_arrivals arrivals;

    (void)state;
    sac_arrivals_init(&arrivals, 3, false, 1);
    for (uint64_t k = 0; k < 3000000; k++) {
        uint64_t at = sac_arrivals_next(&arrivals);
        uint64_t exact = k * 1000000000 / 3;
        assert_int_equal(at, exact);
    }
}

/* The gaps of a Poisson process of rate r are exponential: mean 1/r, variance
 * 1/r², and e⁻¹ of them are longer than the mean. With 200,000 gaps the mean's
 * standard error is 0.22 %, the variance's 0.63 %, the share's 0.11 %: five of
 * each are allowed. */
static void poisson_gaps_have_the_mean_and_variance_of_exponentials(void **state)
{
    enum { COUNT = 200000 };
    struct sac_arrivals arrivals;
    double sum = 0, squares = 0, before = 0;
    int longer = 0;

    (void)state;
    sac_arrivals_init(&arrivals, 500, true, 42);
    for (int i = 0; i < COUNT; i++) {
        double at = (double)sac_arrivals_next(&arrivals) * 1e-9;
        double gap = (at - before) * 500;
        assert_true(gap >= 0);
        before = at;
        sum += gap;
        squares += gap * gap;
        longer += gap > 1;
    }
    double mean = sum / COUNT;
    assert_true(fabs(mean - 1) < 0.011);
    assert_true(fabs(squares / COUNT - mean * mean - 1) < 0.032);
    assert_true(fabs((double)longer / COUNT - exp(-1)) < 0.0055);
}

static void a_seed_gives_the_same_times_again_and_another_does_not(void **state)
{
    struct sac_arrivals a, b, c;
    int equal = 0;

    (void)state;
    sac_arrivals_init(&a, 100, true, 1);
    sac_arrivals_init(&b, 100, true, 1);
    sac_arrivals_init(&c, 100, true, 2);
    for (int i = 0; i < 1000; i++) {
        uint64_t at = sac_arrivals_next(&a);
        assert_int_equal(at, sac_arrivals_next(&b));
        equal += at == sac_arrivals_next(&c);
    }
    assert_true(equal < 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(even_arrivals_are_spaced_exactly),
        cmocka_unit_test(a_rate_that_does_not_divide_does_not_drift),
        cmocka_unit_test(poisson_gaps_have_the_mean_and_variance_of_exponentials),
        cmocka_unit_test(a_seed_gives_the_same_times_again_and_another_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
