#include "makers.h"

#include "dataset/split.h"

/* A list without pictures: labels are all that a plan needs. */
static struct sac_source *listed(const char *name, const int *counts, int classes)
{
    static char text[200000];
    struct sac_source *source = NULL;
    struct sac_error err = {0};
    size_t size = 0;

    for (int c = 0; c < classes; c++) {
        for (int i = 0; i < counts[c]; i++)
            size += (size_t)snprintf(text + size, sizeof text - size, "/c%d/%d.png %d\n", c, i, c);
    }
    assert_ok(sac_source_list_open(&source, sac_test_write(name, text, size), NULL, &err), err);
    return source;
}

static struct sac_split planned(const struct sac_source *source, struct sac_split_options options)
{
    struct sac_split split = {0};
    struct sac_error err = {0};

    assert_ok(sac_split_plan(&split, source, &options, &err), err);
    return split;
}

static void shares_are_of_each_class_and_no_item_is_twice(void **state)
{
    const int counts[] = {100, 7, 40, 3};
    struct sac_source *source = listed("shares", counts, 4);
    struct sac_split split =
        planned(source, (struct sac_split_options){.share = {.6, .3, .1}, .seed = 5});
    int seen[150] = {0};

    (void)state;
    for (int c = 0; c < 4; c++) {
        const double share[] = {.6, .3, .1};
        int64_t sum = 0;
        for (int part = 0; part < 3; part++) {
            int64_t got = split.class_counts[c][part];
            assert_true(got >= 1 && got > share[part] * counts[c] - 1.01 &&
                        got < share[part] * counts[c] + 1.01);
            sum += got;
        }
        assert_int_equal(sum, counts[c]);
    }
    for (int part = 0; part < 3; part++) {
        for (int64_t i = 0; i < split.counts[part]; i++)
            seen[split.indices[part][i]]++;
    }
    for (int i = 0; i < 150; i++)
        assert_int_equal(seen[i], 1);
    sac_split_done(&split);
    sac_source_free(source);
}

static void a_seed_decides_and_another_decides_otherwise(void **state)
{
    const int counts[] = {50, 50};
    struct sac_source *source = listed("seeds", counts, 2);
    struct sac_split_options options = {.share = {.5, .5, 0}, .seed = 1};
    struct sac_split first = planned(source, options), again = planned(source, options);

    (void)state;
    options.seed = 2;
    struct sac_split other = planned(source, options);
    assert_memory_equal(first.indices[0], again.indices[0], 50 * sizeof(int64_t));
    assert_memory_not_equal(first.indices[0], other.indices[0], 50 * sizeof(int64_t));
    bool sorted = true;
    for (int i = 1; i < 50; i++)
        sorted = sorted && first.indices[0][i - 1] < first.indices[0][i];
    assert_false(sorted);
    sac_split_done(&first);
    sac_split_done(&again);
    sac_split_done(&other);
    sac_source_free(source);
}

/* The Portuguese flora: classes of fewer than 30 go, the others in thirds. */
static void small_classes_go_and_the_others_are_renumbered(void **state)
{
    const int counts[] = {30, 29, 0, 63, 12};
    struct sac_source *source = listed("flora", counts, 5);
    struct sac_split split =
        planned(source, (struct sac_split_options){.share = {1. / 3, 1. / 3, 1. / 3}, .min = 30});
    static const int32_t numbers[] = {0, -1, -1, 1, -1};

    (void)state;
    assert_int_equal(split.classes, 2);
    assert_memory_equal(split.renumber, numbers, sizeof numbers);
    for (int part = 0; part < 3; part++) {
        struct sac_source *view = NULL;
        struct sac_error err = {0};
        assert_int_equal(split.counts[part], 10 + 21);
        assert_ok(sac_split_open(&view, &split, source, part, &err), err);
        int32_t label, sum = 0;
        for (int64_t i = 0; i < view->count; i++) {
            assert_ok(sac_source_item_label(view, i, &label, &err), err);
            sum += label;
        }
        assert_int_equal(sum, 21);
        sac_source_free(view);
    }
    sac_split_done(&split);
    sac_source_free(source);
}

static void counts_and_a_maximum_are_kept(void **state)
{
    const int counts[] = {80, 80};
    struct sac_source *source = listed("counts", counts, 2);
    struct sac_split_options options = {.count = {60, 0, 20}};
    struct sac_split split = planned(source, options);

    (void)state;
    assert_true(split.counts[0] == 120 && split.counts[1] == 0 && split.counts[2] == 40);
    sac_split_done(&split);
    split = planned(source, (struct sac_split_options){.share = {.5, .5, 0}, .max = 10});
    assert_true(split.counts[0] == 10 && split.counts[1] == 10);
    sac_split_done(&split);
    sac_source_free(source);
}

static void what_cannot_be_is_a_sentence(void **state)
{
    const int counts[] = {30, 10};
    static const struct {
        struct sac_split_options options;
        const char *says;
    } cases[] = {
        {{.share = {.8, .3, 0}}, "110 %"},
        {{.share = {-1, 0, 0}}, "train"},
        {{.count = {8, 0, 3}}, "class 1  has 10 pictures"},
        {{.share = {1, 0, 0}, .min = 31}, "no class has 31"},
        {{.share = {1, 0, 0}, .min = 5, .max = 3}, "at most 3"},
    };
    struct sac_source *source = listed("wrong", counts, 2);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_split split = {0};
        struct sac_error err = {0};
        assert_int_equal(sac_split_plan(&split, source, &cases[i].options, &err), SAC_EINVAL);
        assert_says(err, cases[i].says);
    }
    sac_source_free(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_of_each_class_and_no_item_is_twice),
        cmocka_unit_test(a_seed_decides_and_another_decides_otherwise),
        cmocka_unit_test(small_classes_go_and_the_others_are_renumbered),
        cmocka_unit_test(counts_and_a_maximum_are_kept),
        cmocka_unit_test(what_cannot_be_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
