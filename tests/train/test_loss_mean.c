#include "support/support.h"

#include <math.h>
#include <string.h>

#include "train/loss_mean.h"

/* The definition: the mean of the last `capacity` losses. */
static double mean_of_last(const double *losses, int count, int capacity)
{
    int first = count > capacity ? count - capacity : 0;
    double sum = 0;

    for (int i = first; i < count; i++)
        sum += losses[i];
    return sum / (count - first);
}

static void the_mean_is_that_of_the_last_losses(void **state)
{
    struct sac_error err = {0};
    double losses[50];

    (void)state;
    for (int capacity = 1; capacity <= 40; capacity += 13) {
        struct sac_loss_mean mean;
        assert_ok(sac_loss_mean_init(&mean, capacity, &err), err);
        for (int i = 0; i < 50; i++) {
            losses[i] = 2 + sin(i * 1.7);
            double got = sac_loss_mean_add(&mean, losses[i]);
            assert_true(fabs(got - mean_of_last(losses, i + 1, capacity)) < 1e-12);
        }
        sac_loss_mean_done(&mean);
    }
}

static void an_average_over_nothing_is_refused(void **state)
{
    struct sac_error err = {0};
    struct sac_loss_mean mean;

    (void)state;
    assert_int_equal(sac_loss_mean_init(&mean, 0, &err), SAC_EINVAL);
    assert_says(err, "average_loss is 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mean_is_that_of_the_last_losses),
        cmocka_unit_test(an_average_over_nothing_is_refused),
    };
    return cmocka_run_group_tests_name("loss_mean", tests, NULL, NULL);
}
