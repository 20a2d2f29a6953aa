/* A folder that was divided is told from a folder of classes. The layouts are those that
 * `saccade dataset` leaves and that public data sets have. */
#include "makers.h"

#include "data/parts.h"

static void put(const char *path)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs("a.png 0\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static const char *base(const char *name)
{
    const char *path = made_path("%s", name);

    make_folder(path);
    return path;
}

static void make_part(const char *of, const char *part)
{
    make_folder(made_path("%s/%s", of, part));
    make_folder(made_path("%s/%s/cat", of, part));
}

static void folders_of_classes_under_the_names_of_parts_are_parts(void **state)
{
    struct sac_data_parts parts = {0};
    struct sac_error err = {0};
    const char *path = base("divided");

    (void)state;
    make_part("divided", "train");
    make_part("divided", "validation");
    assert_int_equal(sac_data_parts_find(&parts, path, &err), 1);
    assert_string_equal(parts.path[SAC_DATA_TRAIN], made_path("divided/train"));
    assert_string_equal(parts.path[SAC_DATA_VAL], made_path("divided/validation"));
    assert_string_equal(parts.name[SAC_DATA_VAL], "validation");
    assert_null(parts.path[SAC_DATA_TEST]);
    sac_data_parts_done(&parts);
}

static void databases_and_lists_are_parts_too(void **state)
{
    struct sac_data_parts parts = {0};
    struct sac_error err = {0};
    const char *path = base("created"), *lists = base("lists");

    (void)state;
    make_folder(made_path("created/train"));
    make_folder(made_path("created/test"));
    put(made_path("created/train/data.mdb"));
    put(made_path("created/test/list.txt"));
    assert_int_equal(sac_data_parts_find(&parts, path, &err), 1);
    assert_string_equal(parts.path[SAC_DATA_TEST], made_path("created/test"));
    sac_data_parts_done(&parts);
    put(made_path("lists/train.txt"));
    put(made_path("lists/val.txt"));
    assert_int_equal(sac_data_parts_find(&parts, lists, &err), 1);
    assert_string_equal(parts.path[SAC_DATA_VAL], made_path("lists/val.txt"));
    sac_data_parts_done(&parts);
}

static void classes_that_are_called_like_parts_stay_classes(void **state)
{
    struct sac_data_parts parts = {0};
    struct sac_error err = {0};
    const char *path = base("classes");

    (void)state;
    make_folder(made_path("classes/train")); /* pictures of trains, not classes */
    make_folder(made_path("classes/test"));
    put(made_path("classes/train/one.png"));
    assert_int_equal(sac_data_parts_find(&parts, path, &err), 0);
    make_folder(made_path("classes/train/steam")); /* one part alone is a class as well */
    assert_int_equal(sac_data_parts_find(&parts, path, &err), 0);
    assert_int_equal(sac_data_parts_find(&parts, made_path("classes/train/one.png"), &err), 0);
    assert_null(parts.path[SAC_DATA_TRAIN]);
}

static void a_class_beside_parts_is_refused_by_name(void **state)
{
    struct sac_data_parts parts = {0};
    struct sac_error err = {0};
    const char *path = base("mixed");

    (void)state;
    make_part("mixed", "train");
    make_part("mixed", "test");
    make_folder(made_path("mixed/bus"));
    assert_int_equal(sac_data_parts_find(&parts, path, &err), SAC_EINVAL);
    assert_non_null(strstr(err.text, "(train, test)"));
    assert_non_null(strstr(err.text, "bus"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_of_classes_under_the_names_of_parts_are_parts),
        cmocka_unit_test(databases_and_lists_are_parts_too),
        cmocka_unit_test(classes_that_are_called_like_parts_stay_classes),
        cmocka_unit_test(a_class_beside_parts_is_refused_by_name),
    };
    return cmocka_run_group_tests_name("data/parts", tests, NULL, NULL);
}
