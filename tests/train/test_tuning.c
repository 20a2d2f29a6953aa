/* What fine-tuning chooses, and that what is given stays. */
#include "support/support.h"

#include <math.h>
#include <string.h>

#include "train/tuning.h"

static const struct sac_tuning_facts flowers = {.classes = 17,
                                                .train_items = 1020,
                                                .validation_items = 170,
                                                .least = 60,
                                                .learnable = 26,
                                                .side = 227};

static struct sac_tuning choose(const struct sac_tuning_facts *facts, struct sac_tuning recipe)
{
    struct sac_tuning_choices choices;
    struct sac_error err = {0};

    assert_ok(sac_tuning_choose(&recipe, facts, &choices, &err), err);
    assert_true(choices.count > 0 && choices.count <= SAC_TUNING_CHOICES_MAX);
    for (int i = 0; i < choices.count; i++) {
        assert_true(choices.choice[i].value[0] != 0);
        assert_true(choices.choice[i].why[0] != 0);
    }
    return recipe;
}

static void fewer_pictures_freeze_more_and_go_round_more_often(void **state)
{
    struct sac_tuning_facts few = flowers, many = flowers;

    (void)state;
    few.train_items = 170;
    few.least = 10;
    many.train_items = 34000;
    many.least = 2000;
    struct sac_tuning a = choose(&few, SAC_TUNING_OPEN);
    struct sac_tuning b = choose(&flowers, SAC_TUNING_OPEN);
    struct sac_tuning c = choose(&many, SAC_TUNING_OPEN);
    assert_true(a.frozen > b.frozen && b.frozen > c.frozen && c.frozen == 0);
    assert_true(a.epochs > b.epochs && b.epochs > c.epochs);
    assert_true(a.early_mult < b.early_mult);
    assert_float_equal(b.last_mult, 10, 0);
}

static void from_scratch_nothing_is_frozen(void **state)
{
    struct sac_tuning_facts facts = flowers;

    (void)state;
    facts.scratch = true;
    struct sac_tuning r = choose(&facts, SAC_TUNING_OPEN);
    assert_int_equal(r.frozen, 0);
    assert_float_equal(r.last_mult, 1, 0);
    assert_true(r.epochs > choose(&flowers, SAC_TUNING_OPEN).epochs);
}

static void what_is_given_stays(void **state)
{
    struct sac_tuning given = {.batch = 20,
                               .epochs = 2,
                               .rate = 0.5,
                               .last_mult = 3,
                               .early_mult = 0.25,
                               .frozen = 0,
                               .decay = 0.1,
                               .smoothing = 0,
                               .area_min = 0,
                               .color = 0,
                               .flip = 0,
                               .resize = 300,
                               .patience = 4};
    struct sac_tuning r = choose(&flowers, given);

    (void)state;
    assert_int_equal(r.batch, 20);
    assert_float_equal(r.rate, 0.5, 0);
    assert_float_equal(r.last_mult, 3, 0);
    assert_float_equal(r.early_mult, 0.25, 0);
    assert_int_equal(r.frozen, 0);
    assert_float_equal(r.smoothing, 0, 0);
    assert_float_equal(r.area_min, 0, 0);
    assert_int_equal(r.flip, 0);
    assert_int_equal(r.resize, 300);
    /* 1,020 / 20 = 51 iterations an epoch. */
    assert_int_equal(r.iterations, 102);
    assert_int_equal(r.test_interval, 51);
}

static void no_decay_can_be_asked_for(void **state)
{
    struct sac_tuning given = SAC_TUNING_OPEN;

    (void)state;
    given.decay = 0;
    assert_float_equal(choose(&flowers, given).decay, 0, 0);
    assert_float_equal(choose(&flowers, SAC_TUNING_OPEN).decay, 5e-4, 0);
}

static void the_batch_that_is_told_is_the_one_that_is_used(void **state)
{
    struct sac_tuning_facts few = flowers;
    struct sac_tuning_choices choices;
    struct sac_tuning r = SAC_TUNING_OPEN;
    struct sac_error err = {0};

    (void)state;
    few.classes = 2;
    few.train_items = 6;
    few.least = 3;
    assert_ok(sac_tuning_choose(&r, &few, &choices, &err), err);
    assert_int_equal(r.batch, 6);
    assert_string_equal(choices.choice[0].name, "batch");
    assert_string_equal(choices.choice[0].value, "6");
}

/* Caffe tests after the last iteration where the interval divides it. */
static void the_last_iteration_is_tested(void **state)
{
    static const double epochs[] = {0.01, 0.3, 1, 2.5, 7};

    (void)state;
    for (size_t i = 0; i < sizeof epochs / sizeof epochs[0]; i++) {
        struct sac_tuning given = SAC_TUNING_OPEN;
        given.epochs = epochs[i];
        struct sac_tuning r = choose(&flowers, given);
        assert_int_equal(r.iterations % r.test_interval, 0);
        assert_true((double)r.iterations >= epochs[i] * 1020 / 32);
    }
}

static void a_test_goes_through_all_of_the_validation(void **state)
{
    struct sac_tuning_facts facts = flowers;

    (void)state;
    for (facts.validation_items = 1; facts.validation_items < 500; facts.validation_items++) {
        struct sac_tuning r = choose(&facts, SAC_TUNING_OPEN);
        assert_true(r.test_batch >= 1 && r.test_batch <= 32);
        assert_true(r.test_batch * r.test_batches >= facts.validation_items);
        assert_true(r.test_batch * r.test_batches < facts.validation_items + r.test_batch);
    }
}

static void refuse(const struct sac_tuning_facts *facts, struct sac_tuning recipe, const char *says)
{
    struct sac_tuning_choices choices;
    struct sac_error err = {0};

    assert_true(sac_tuning_choose(&recipe, facts, &choices, &err) < 0);
    assert_says(err, says);
}

static void what_makes_no_sense_is_refused(void **state)
{
    struct sac_tuning_facts none = flowers, one = flowers;
    struct sac_tuning frozen = SAC_TUNING_OPEN, small = SAC_TUNING_OPEN, large = SAC_TUNING_OPEN;

    (void)state;
    none.validation_items = 0;
    one.classes = 1;
    frozen.frozen = 26;
    small.resize = 100;
    large.batch = 2000;
    refuse(&none, SAC_TUNING_OPEN, "0 to validate");
    refuse(&one, SAC_TUNING_OPEN, "at least 2");
    refuse(&flowers, frozen, "26 frozen layers");
    refuse(&flowers, small, "the net takes 227");
    refuse(&flowers, large, "only 1020");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fewer_pictures_freeze_more_and_go_round_more_often),
        cmocka_unit_test(from_scratch_nothing_is_frozen),
        cmocka_unit_test(what_is_given_stays),
        cmocka_unit_test(no_decay_can_be_asked_for),
        cmocka_unit_test(the_batch_that_is_told_is_the_one_that_is_used),
        cmocka_unit_test(the_last_iteration_is_tested),
        cmocka_unit_test(a_test_goes_through_all_of_the_validation),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
