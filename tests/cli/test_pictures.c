#include "support/support.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/pictures.h"

static const char jpeg_head[] = "\xff\xd8\xff\xe0 and so on";
static const char png_head[] = "\x89PNG\r\n\x1a\n and so on";

static void make_folder(const char *name)
{
    char path[512];

    snprintf(path, sizeof path, "%s/%s", sac_test_tmpdir(), name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void assert_path(const struct sac_pictures *pictures, size_t index, const char *tail)
{
    const char *path = pictures->paths[index];

    assert_true(strlen(path) >= strlen(tail));
    assert_string_equal(path + strlen(path) - strlen(tail), tail);
}

static void a_folder_gives_its_pictures_sorted_whatever_they_are_called(void **state)
{
    struct sac_pictures pictures = {0};
    struct sac_error err = {0};
    char folder[512];

    (void)state;
    make_folder("walk");
    make_folder("walk/b");
    sac_test_write("walk/c.txt", png_head, sizeof png_head);
    sac_test_write("walk/a.jpg", jpeg_head, sizeof jpeg_head);
    sac_test_write("walk/b/z", jpeg_head, sizeof jpeg_head);
    sac_test_write("walk/notes.jpg", "no picture", 10);
    sac_test_write("walk/.hidden.jpg", jpeg_head, sizeof jpeg_head);
    snprintf(folder, sizeof folder, "%s/walk", sac_test_tmpdir());
    assert_ok(sac_pictures_add(&pictures, folder, &err), err);
    assert_int_equal(pictures.count, 3);
    assert_path(&pictures, 0, "/walk/a.jpg");
    assert_path(&pictures, 1, "/walk/b/z");
    assert_path(&pictures, 2, "/walk/c.txt");
    sac_pictures_done(&pictures);
}

/* Caffe's ImageData list: the label stands behind the last space. */
static void a_list_gives_its_lines_with_or_without_labels(void **state)
{
    struct sac_pictures pictures = {0};
    struct sac_error err = {0};

    (void)state;
    make_folder("list");
    sac_test_write("list/a b.jpg", jpeg_head, sizeof jpeg_head);
    sac_test_write("list/c.jpg", jpeg_head, sizeof jpeg_head);
    const char *list =
        sac_test_write("list/l.txt", "a b.jpg 3\r\nc.jpg\n\ngone.jpg 1\nnot here.jpg\n", 42);
    assert_ok(sac_pictures_add(&pictures, list, &err), err);
    assert_int_equal(pictures.count, 4);
    assert_path(&pictures, 0, "/list/a b.jpg");
    assert_path(&pictures, 1, "/list/c.jpg");
    assert_string_equal(pictures.paths[2], "gone.jpg");
    assert_string_equal(pictures.paths[3], "not here.jpg"); /* so that the error names it whole */
    sac_pictures_done(&pictures);
}

static void what_is_not_there_is_said(void **state)
{
    struct sac_pictures pictures = {0};
    struct sac_error err = {0};
    char folder[512];

    (void)state;
    assert_int_equal(sac_pictures_add(&pictures, "/nowhere.jpg", &err), SAC_ENOENT);
    assert_string_equal(err.text, "/nowhere.jpg: no such file or folder");
    make_folder("bare");
    snprintf(folder, sizeof folder, "%s/bare", sac_test_tmpdir());
    err.code = 0;
    assert_int_equal(sac_pictures_add(&pictures, folder, &err), SAC_ENOENT);
    assert_says(err, "/bare: no JPEG or PNG in this folder");
    sac_pictures_done(&pictures);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_gives_its_pictures_sorted_whatever_they_are_called),
        cmocka_unit_test(a_list_gives_its_lines_with_or_without_labels),
        cmocka_unit_test(what_is_not_there_is_said),
    };
    return cmocka_run_group_tests_name("pictures", tests, NULL, NULL);
}
