#include "support/support.h"

#include <errno.h>
#include <string.h>

static void the_first_failure_is_kept(void **state)
{
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_fail(&err, SAC_EFORMAT, "layer %s: first", "conv1"), SAC_EFORMAT);
    assert_int_equal(sac_fail(&err, SAC_EIO, "second"), SAC_EIO);
    assert_int_equal(err.code, SAC_EFORMAT);
    assert_string_equal(err.text, "layer conv1: first");
    assert_int_equal(sac_fail(NULL, SAC_EIO, "nobody listens"), SAC_EIO);
}

static void errno_gives_code_and_text(void **state)
{
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_fail_errno(&err, ENOENT, "a.txt"), SAC_ENOENT);
    assert_string_equal(err.text, "a.txt: No such file or directory");
}

static void a_prefix_goes_before_the_sentence(void **state)
{
    struct sac_error err = {0};

    (void)state;
    sac_error_prefix(&err, "nothing");
    assert_string_equal(err.text, "");
    sac_fail(&err, SAC_EFORMAT, "line 3: expected a number");
    sac_error_prefix(&err, "net.prototxt");
    assert_string_equal(err.text, "net.prototxt: line 3: expected a number");
}

static void a_long_sentence_is_cut_not_overrun(void **state)
{
    struct sac_error err = {0};
    char word[2 * SAC_ERROR_TEXT];

    (void)state;
    memset(word, 'w', sizeof word);
    word[sizeof word - 1] = 0;
    sac_fail(&err, SAC_EINVAL, "%s", word);
    assert_int_equal(strlen(err.text), SAC_ERROR_TEXT - 1);
    sac_error_prefix(&err, "%s", word);
    assert_int_equal(strlen(err.text), SAC_ERROR_TEXT - 1);
}

/* Names come from files: a line break in one must not forge a line of the log. */
static void a_sentence_is_one_line(void **state)
{
    struct sac_error err = {0}, number = {0};

    (void)state;
    sac_fail(&err, SAC_EFORMAT, "layer \"%s\"", "a\nb\x1b[2J\x7f\xC3\xA9");
    assert_string_equal(err.text, "layer \"a?b?[2J?\xC3\xA9\"");
    sac_error_prefix(&err, "a\tb");
    assert_string_equal(err.text, "a?b: layer \"a?b?[2J?\xC3\xA9\"");
    sac_fail_errno(&number, ENOENT, "a\r");
    assert_string_equal(number.text, "a?: No such file or directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_failure_is_kept),
        cmocka_unit_test(errno_gives_code_and_text),
        cmocka_unit_test(a_prefix_goes_before_the_sentence),
        cmocka_unit_test(a_long_sentence_is_cut_not_overrun),
        cmocka_unit_test(a_sentence_is_one_line),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
