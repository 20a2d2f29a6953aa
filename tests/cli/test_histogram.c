#include "support/support.h"

#include <math.h>
#include <stdlib.h>

#include "cli/histogram.h"

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Against the nearest rank of the sorted values themselves. */
static void check_against_sorted(uint64_t *values, int count)
{
    static const double fractions[] = {0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    struct sac_histogram *histogram = calloc(1, sizeof *histogram);

    assert_non_null(histogram);
    for (int i = 0; i < count; i++)
        sac_histogram_add(histogram, values[i]);
    qsort(values, (size_t)count, sizeof values[0], compare);
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        double rank = ceil(fractions[i] * count - 1e-9);
        double exact = (double)values[(int)(rank < 1 ? 1 : rank) - 1];
        double got = (double)sac_histogram_percentile(histogram, fractions[i]);
        if (fabs(got - exact) > exact / 64)
            fail_msg("percentile %g: %g, exactly %g", fractions[i], got, exact);
    }
    assert_int_equal(histogram->min, values[0]);
    assert_int_equal(histogram->max, values[count - 1]);
    free(histogram);
}

static void percentiles_are_within_a_64th_of_the_sorted_values(void **state)
{
    enum { COUNT = 20000 };
    uint64_t *values = malloc(COUNT * sizeof *values);

    (void)state;
    assert_non_null(values);
    srand(7);
    for (int i = 0; i < COUNT; i++) /* from 1 ns to about 18 minutes, log-uniform */
        values[i] = (uint64_t)exp2(40.0 * rand() / RAND_MAX);
    check_against_sorted(values, COUNT);
    for (int i = 0; i < COUNT; i++) /* two humps far apart */
        values[i] = (uint64_t)(i % 100 ? 1000000 + rand() % 1000 : 900000000 + rand() % 1000);
    check_against_sorted(values, COUNT);
    free(values);
}

static void small_values_are_exact(void **state)
{
    struct sac_histogram histogram = {0};

    (void)state;
    for (uint64_t v = 1; v <= 100; v++)
        sac_histogram_add(&histogram, v);
    assert_int_equal(sac_histogram_percentile(&histogram, 0.5), 50);
    assert_int_equal(sac_histogram_percentile(&histogram, 0.9), 90);
    assert_int_equal(sac_histogram_percentile(&histogram, 0.99), 99);
    assert_int_equal(sac_histogram_percentile(&histogram, 1), 100);
    assert_int_equal(sac_histogram_percentile(&histogram, 0), 1);
    assert_true(sac_histogram_mean(&histogram) == 50.5);
}

static void the_largest_number_has_a_bucket(void **state)
{
    struct sac_histogram histogram = {0};

    (void)state;
    sac_histogram_add(&histogram, UINT64_MAX);
    sac_histogram_add(&histogram, UINT64_MAX - 1);
    assert_true(sac_histogram_percentile(&histogram, 0.5) >= UINT64_MAX - UINT64_MAX / 64);
    assert_true(sac_histogram_percentile(&histogram, 1) == UINT64_MAX);
}

static void nothing_added_gives_nothing(void **state)
{
    struct sac_histogram histogram = {0};

    (void)state;
    assert_int_equal(sac_histogram_percentile(&histogram, 0.99), 0);
    assert_true(sac_histogram_mean(&histogram) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_within_a_64th_of_the_sorted_values),
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(the_largest_number_has_a_bucket),
        cmocka_unit_test(nothing_added_gives_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
