#include "support/support.h"

#include <string.h>

#include "cli/dataset.h"

static const struct option options[] = {{"queue", required_argument, NULL, SAC_FLAG_OWN},
                                        {"json", no_argument, NULL, 1},
                                        {"output", required_argument, NULL, 'o'},
                                        {0}};

static void assert_refused(const char *a, const char *b, const char *sentence)
{
    char name[] = "serve", first[32], second[32];
    char *argv[] = {name, strcpy(first, a), strcpy(second, b), NULL};
    struct sac_error err = {0};
    int option;

    optind = 0;
    do
        option = getopt_long(3, argv, SAC_FLAGS_SHORT "o:", options, NULL);
    while (option != -1 && option != '?' && option != ':');
    assert_int_not_equal(option, -1);
    assert_int_equal(sac_flag_refused(option, argv, &err), SAC_EINVAL);
    assert_string_equal(err.text, sentence);
}

static void what_getopt_refuses_is_one_sentence(void **state)
{
    (void)state;
    assert_refused("--bogus", "x", "--bogus is not an option");
    assert_refused("--json", "-x", "-x is not an option");
    assert_refused("--json", "--queue", "--queue: expected a value behind it");
    assert_refused("--json", "-o", "-o: expected a value behind it");
    assert_refused("--json=5", "x", "--json takes no value");
}

static void a_share_is_a_fraction_or_percents(void **state)
{
    static const char *const wrong[] = {"", "%", "0.3x", "25%%", "-0.1", "91%", "nan"};
    double share = 0;

    (void)state;
    assert_int_equal(sac_flag_share("--val", "0.25", 0, .9, &share, NULL), 0);
    assert_float_equal(share, .25, 0);
    assert_int_equal(sac_flag_share("--val", "12.5%", 0, .9, &share, NULL), 0);
    assert_float_equal(share, .125, 1e-15);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct sac_error err = {0};
        assert_int_equal(sac_flag_share("--val", wrong[i], 0, .9, &share, &err), SAC_EINVAL);
        assert_non_null(strstr(err.text, "--val: expected a share of 0 to 0.9, or as 90%"));
    }
    assert_float_equal(share, .125, 1e-15);
}

static void a_part_is_a_share_or_a_count(void **state)
{
    static const struct {
        const char *value;
        double share;
        int64_t count;
    } parts[] = {{"25%", .25, 0}, {"0.25", .25, 0}, {"1.0", 1, 0}, {"100%", 1, 0},
                 {"20", 0, 20},   {"1", 0, 1},      {"0", 0, 0},   {"20.0", 0, 20}};
    static const char *const wrong[] = {"", "%", "101%", "1.5", "-1", "3x", "1e10", "nan", "25%%"};
    double share = 0;
    int64_t count = 0;

    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct sac_error err = {0};
        assert_ok(sac_dataset_part("--val", parts[i].value, &share, &count, &err), err);
        assert_float_equal(share, parts[i].share, 0);
        assert_int_equal(count, parts[i].count);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct sac_error err = {0};
        assert_int_equal(sac_dataset_part("--val", wrong[i], &share, &count, &err), SAC_EINVAL);
        assert_says(err, "--val: expected a part such as 25% or 0.25, or a number of pictures");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_getopt_refuses_is_one_sentence),
        cmocka_unit_test(a_share_is_a_fraction_or_percents),
        cmocka_unit_test(a_part_is_a_share_or_a_count),
    };
    return cmocka_run_group_tests_name("flags", tests, NULL, NULL);
}
