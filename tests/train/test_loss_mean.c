#include "support/support.h"

#include <math.h>
#include <stdlib.h>
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

/* Both go on alike, to the bit, from before and from after the ring is full. */
static void it_comes_back_from_json_bit_for_bit(void **state)
{
    struct sac_error err = {0};

    (void)state;
    for (int taken = 0; taken < 23; taken++) {
        struct sac_loss_mean straight, resumed;
        assert_ok(sac_loss_mean_init(&straight, 7, &err), err);
        assert_ok(sac_loss_mean_init(&resumed, 7, &err), err);
        for (int i = 0; i < taken; i++)
            sac_loss_mean_add(&straight, 2 + sin(i * 1.7));
        json_t *json = sac_loss_mean_to_json(&straight);
        char *text = json_dumps(json, 0);
        json_t *back = json_loads(text, 0, NULL);
        assert_ok(sac_loss_mean_from_json(&resumed, back, &err), err);
        for (int i = taken; i < taken + 20; i++)
            assert_true(sac_loss_mean_add(&straight, 2 + sin(i * 1.7)) ==
                        sac_loss_mean_add(&resumed, 2 + sin(i * 1.7)));
        json_decref(json);
        json_decref(back);
        free(text);
        sac_loss_mean_done(&straight);
        sac_loss_mean_done(&resumed);
    }
}

static void a_lower_average_loss_keeps_the_newest(void **state)
{
    struct sac_error err = {0}, bad = {0};
    struct sac_loss_mean mean;
    json_t *json = json_pack("{s:f, s:[f, f, f]}", "mean", 2.0, "losses", 1.0, 2.0, 3.0);
    json_t *other = json_pack("{s:f, s:[s]}", "mean", 2.0, "losses", "x");

    (void)state;
    assert_ok(sac_loss_mean_init(&mean, 2, &err), err);
    assert_ok(sac_loss_mean_from_json(&mean, json, &err), err);
    assert_true(mean.mean == 2.5);
    assert_true(sac_loss_mean_add(&mean, 5) == 4);
    assert_int_equal(sac_loss_mean_from_json(&mean, other, &bad), SAC_EFORMAT);
    assert_says(bad, "expected loss 0 to be a number");
    json_decref(json);
    json_decref(other);
    sac_loss_mean_done(&mean);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mean_is_that_of_the_last_losses),
        cmocka_unit_test(it_comes_back_from_json_bit_for_bit),
        cmocka_unit_test(a_lower_average_loss_keeps_the_newest),
        cmocka_unit_test(an_average_over_nothing_is_refused),
    };
    return cmocka_run_group_tests_name("loss_mean", tests, NULL, NULL);
}
