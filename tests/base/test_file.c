#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

static void a_file_is_read_whole(void **state)
{
    struct sac_error err = {0};
    uint8_t *data;
    size_t size;

    (void)state;
    const char *path = sac_test_write("a.bin", "one\0two", 7);
    assert_ok(sac_file_read(path, 7, &data, &size, &err), err);
    assert_int_equal(size, 7);
    assert_memory_equal(data, "one\0two", 8);
    free(data);
}

static void too_large_missing_and_folder_are_refused(void **state)
{
    struct sac_error large = {0}, missing = {0}, folder = {0};
    uint8_t *data = NULL;
    size_t size;

    (void)state;
    const char *path = sac_test_write("b.bin", "12345678", 8);
    assert_int_equal(sac_file_read(path, 7, &data, &size, &large), SAC_ELIMIT);
    assert_says(large, "b.bin: 8 bytes, over the limit of 7");
    assert_int_equal(sac_file_read("/nowhere/x", 7, &data, &size, &missing), SAC_ENOENT);
    assert_int_equal(sac_file_read(sac_test_tmpdir(), 7, &data, &size, &folder), SAC_EFORMAT);
    assert_says(folder, "expected a file, found a folder");
    assert_null(data);
}

static void a_folder_is_empty_but_for_what_is_let_pass(void **state)
{
    (void)state;
    char path[4096], file[4096 + 16];

    snprintf(path, sizeof path, "%s/hollow", sac_test_tmpdir());
    assert_false(sac_file_folder_is_empty(path, NULL)); /* there is none */
    assert_int_equal(mkdir(path, 0777), 0);
    assert_true(sac_file_folder_is_empty(path, NULL));
    snprintf(file, sizeof file, "%s/left.tmp", path);
    fclose(fopen(file, "w"));
    assert_false(sac_file_folder_is_empty(path, NULL));
    assert_true(sac_file_folder_is_empty(path, "left.tmp"));
    assert_false(sac_file_folder_is_empty(path, "left"));
    assert_false(sac_file_folder_is_empty(file, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_whole),
        cmocka_unit_test(too_large_missing_and_folder_are_refused),
        cmocka_unit_test(a_folder_is_empty_but_for_what_is_let_pass),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
