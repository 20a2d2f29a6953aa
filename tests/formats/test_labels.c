/* Label files, as people write them. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "formats/caffe.h"

static struct sac_labels load(const char *bytes, size_t size)
{
    struct sac_error err = {0};
    struct sac_labels labels;

    assert_ok(sac_labels_load(&labels, sac_test_write("labels.txt", bytes, size), &err), err);
    return labels;
}

static void refuse(const char *bytes, size_t size, int code, const char *says)
{
    struct sac_error err = {0};
    struct sac_labels labels;

    assert_int_equal(sac_labels_load(&labels, sac_test_write("labels.txt", bytes, size), &err),
                     code);
    assert_says(err, "labels.txt: ");
    assert_says(err, says);
}

static void one_label_a_line(void **state)
{
    (void)state;
    const char *text = "cat\ndog, hound\n\nfox";
    struct sac_labels labels = load(text, strlen(text));

    assert_int_equal(labels.count, 4);
    assert_string_equal(labels.text[0], "cat");
    assert_string_equal(labels.text[1], "dog, hound");
    assert_string_equal(labels.text[2], ""); /* a line in the middle is a class */
    assert_string_equal(labels.text[3], "fox");
    sac_labels_done(&labels);
    assert_int_equal(labels.count, 0);
}

static void windows_lines_trailing_blanks_and_empty_last_lines_go(void **state)
{
    (void)state;
    const char *text = "\xEF\xBB\xBF  cat \t\r\ndog\r\n\r\n \n\n";
    struct sac_labels labels = load(text, strlen(text));

    assert_int_equal(labels.count, 2);
    assert_string_equal(labels.text[0], "  cat");
    assert_string_equal(labels.text[1], "dog");
    sac_labels_done(&labels);
}

static void every_script_is_kept(void **state)
{
    (void)state;
    const char *text = "caf\xC3\xA9\n\xE7\x8C\xAB\n\xF0\x9F\x90\xB1\n";
    struct sac_labels labels = load(text, strlen(text));

    assert_int_equal(labels.count, 3);
    assert_string_equal(labels.text[2], "\xF0\x9F\x90\xB1");
    sac_labels_done(&labels);
}

/* The invalid forms of RFC 3629: stray, cut, overlong, surrogate, too large. */
static void what_is_not_utf8_is_refused_with_its_line(void **state)
{
    (void)state;
    const char *forms[] = {"ok\n\xE9t\xE9\n",        "ok\n\x80\n",
                           "ok\n\xE7\x8C\n",         "ok\n\xC0\xAF\n",
                           "ok\n\xE0\x80\xAF\n",     "ok\n\xED\xA0\x80\n",
                           "ok\n\xF4\x90\x80\x80\n", "ok\n\xF5\x80\x80\x80\n",
                           "ok\n\xF0\x80\x80\xAF\n"};

    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        refuse(forms[i], strlen(forms[i]), SAC_EFORMAT, "line 2 is not UTF-8 text");
    refuse("a\nb\nc\0d\n", 8, SAC_EFORMAT, "line 3 is not UTF-8 text");
    refuse("\xE7", 1, SAC_EFORMAT, "line 1 is not UTF-8 text");
}

static void a_line_has_a_limit(void **state)
{
    (void)state;
    size_t size = (1 << 20) + 1;
    char *text = malloc(size);

    memset(text, 'a', size);
    refuse(text, size, SAC_ELIMIT, "line 1 has 1048577 bytes, over the limit of 1048576");
    struct sac_labels labels = load(text, size - 1);
    assert_int_equal(labels.count, 1);
    sac_labels_done(&labels);
    free(text);
}

static void a_file_without_labels_is_refused(void **state)
{
    (void)state;
    struct sac_error err = {0};
    struct sac_labels labels;

    refuse("", 0, SAC_EFORMAT, "the file is empty");
    refuse("<!doctype html>\n<p>Not found", 28, SAC_EFORMAT,
           "a web page; expected one label a line");
    refuse("\n \r\n\n", 5, SAC_EFORMAT, "has no labels");
    assert_int_equal(sac_labels_load(&labels, "/nonexistent/labels.txt", &err), SAC_ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_label_a_line),
        cmocka_unit_test(windows_lines_trailing_blanks_and_empty_last_lines_go),
        cmocka_unit_test(every_script_is_kept),
        cmocka_unit_test(what_is_not_utf8_is_refused_with_its_line),
        cmocka_unit_test(a_line_has_a_limit),
        cmocka_unit_test(a_file_without_labels_is_refused),
    };

    return cmocka_run_group_tests_name("formats/labels", tests, NULL, NULL);
}
