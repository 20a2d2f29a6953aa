#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/resume.h"

static struct sac_pictures list(const char *a, const char *b, const char *c)
{
    struct sac_pictures pictures = {calloc(3, sizeof(char *)), 3, 3};
    const char *const paths[] = {a, b, c};

    for (int i = 0; i < 3; i++)
        pictures.paths[i] = strdup(paths[i]);
    return pictures;
}

/* What the file holds after it was opened and one more line was written. */
static void assert_goes_on(const char *path, const char *head, struct sac_pictures *pictures,
                           const char *expected)
{
    struct sac_error err = {0};
    uint8_t *text;
    size_t size;
    FILE *file;

    assert_ok(sac_resume_open(&file, path, head, pictures, &err), err);
    fputs("more\n", file);
    fclose(file);
    assert_ok(sac_file_read(path, 1 << 20, &text, &size, &err), err);
    assert_string_equal((char *)text, expected);
    free(text);
}

static void a_json_line_cut_short_is_cut_off_and_its_picture_done_again(void **state)
{
    static const char text[] = "{\"file\":\"a \\\"b\\\".jpg\",\"error\":\"e\"}\n{\"file\":\"c.jp";
    const char *path = sac_test_write("cut.jsonl", text, sizeof text - 1);
    struct sac_pictures pictures = list("a \"b\".jpg", "c.jpg", "d.jpg");

    (void)state;
    assert_goes_on(path, NULL, &pictures, "{\"file\":\"a \\\"b\\\".jpg\",\"error\":\"e\"}\nmore\n");
    assert_int_equal(pictures.count, 2);
    assert_string_equal(pictures.paths[0], "c.jpg");
    assert_string_equal(pictures.paths[1], "d.jpg");
    sac_pictures_done(&pictures);
}

/* Its bytes are no UTF-8, so the line has U+FFFD in their place. */
static void a_name_that_json_cannot_hold_is_known_again(void **state)
{
    static const char text[] = "{\"file\":\"\xef\xbf\xbd.jpg\",\"error\":\"e\"}\n";
    const char *path = sac_test_write("latin.jsonl", text, sizeof text - 1);
    struct sac_pictures pictures = list("\xe9.jpg", "b", "c");

    (void)state;
    assert_goes_on(path, NULL, &pictures,
                   "{\"file\":\"\xef\xbf\xbd.jpg\",\"error\":\"e\"}\nmore\n");
    assert_int_equal(pictures.count, 2);
    sac_pictures_done(&pictures);
}

/* RFC 4180: a line end within quotes is part of the field. */
static void a_csv_record_may_go_over_several_lines(void **state)
{
    static const char text[] = "head\n\"a\nb\",,\"x \"\"y\"\"\"\n\"c\"\"d\",\"half";
    const char *path = sac_test_write("lines.csv", text, sizeof text - 1);
    struct sac_pictures pictures = list("a\nb", "c\"d", "e");

    (void)state;
    assert_goes_on(path, "head\n", &pictures, "head\n\"a\nb\",,\"x \"\"y\"\"\"\nmore\n");
    assert_int_equal(pictures.count, 2);
    assert_string_equal(pictures.paths[0], "c\"d");
    sac_pictures_done(&pictures);
}

static void a_new_csv_gets_its_head_and_half_a_head_is_made_whole(void **state)
{
    struct sac_pictures pictures = list("a", "b", "c");
    char path[512];

    (void)state;
    snprintf(path, sizeof path, "%s/new.csv", sac_test_tmpdir());
    assert_goes_on(path, "head\n", &pictures, "head\nmore\n");
    assert_goes_on(sac_test_write("half.csv", "he", 2), "head\n", &pictures, "head\nmore\n");
    assert_int_equal(pictures.count, 3);
    sac_pictures_done(&pictures);
}

static void assert_refused(const char *name, const char *text, size_t size, const char *head)
{
    const char *path = sac_test_write(name, text, size);
    struct sac_pictures pictures = list("a", "b", "c");
    struct sac_error err = {0};
    FILE *file = NULL;
    uint8_t *after;
    size_t size_after;

    assert_int_equal(sac_resume_open(&file, path, head, &pictures, &err), SAC_EFORMAT);
    assert_says(err, head ? "other than the CSV" : "other than the JSON lines");
    assert_null(file);
    assert_ok(sac_file_read(path, 1 << 20, &after, &size_after, &err), err);
    assert_int_equal(size_after, size);
    assert_memory_equal(after, text, size);
    free(after);
    sac_pictures_done(&pictures);
}

/* `classify --csv -o *.jpg` names a picture as the file to write. */
static void a_file_that_is_not_an_output_is_left_as_it_is(void **state)
{
    (void)state;
    assert_refused("picture.jpg", "\xff\xd8\xff\xe0\0\x10JFIF", 10, "head\n");
    assert_refused("picture2.jpg", "\xff\xd8\xff\xe0\0\x10JFIF", 10, NULL);
    assert_refused("notes.txt", "first\nsecond without end", 24, NULL);
    assert_refused("other.csv", "another head\n\"a\",\n", 18, "head\n");
    assert_refused("lines.jsonl", "{\"file\":\"a\",\"error\":\"\"}\n", 24, "head\n");
    assert_refused("mixed.jsonl", "{\"file\":\"a\",\"error\":\"\"}\n\"b\",,\n", 30, NULL);
    assert_refused("number.jsonl", "{\"file\":1}\n", 11, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_json_line_cut_short_is_cut_off_and_its_picture_done_again),
        cmocka_unit_test(a_name_that_json_cannot_hold_is_known_again),
        cmocka_unit_test(a_csv_record_may_go_over_several_lines),
        cmocka_unit_test(a_new_csv_gets_its_head_and_half_a_head_is_made_whole),
        cmocka_unit_test(a_file_that_is_not_an_output_is_left_as_it_is),
    };
    return cmocka_run_group_tests_name("resume", tests, NULL, NULL);
}
