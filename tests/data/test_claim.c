#include "data/claim.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "support/support.h"

#define MARK ".mark"

static const char *place(const char *name)
{
    static char path[4096];

    snprintf(path, sizeof path, "%s/%s", sac_test_tmpdir(), name);
    return path;
}

static void a_new_folder_is_made_and_taken_up_again(void **state)
{
    struct sac_error err = {0};
    char word[8] = {0};
    int fd = -1;

    (void)state;
    assert_ok(sac_claim(&fd, place("new"), MARK, &err), err);
    assert_int_equal(write(fd, "mine", 4), 4);
    close(fd);
    assert_ok(sac_claim(&fd, place("new"), MARK, &err), err);
    assert_int_equal(read(fd, word, sizeof word), 4);
    assert_string_equal(word, "mine");
    close(fd);
}

static void an_empty_folder_is_taken(void **state)
{
    struct sac_error err = {0};
    int fd = -1;

    (void)state;
    assert_int_equal(mkdir(place("empty"), 0777), 0);
    assert_ok(sac_claim(&fd, place("empty"), MARK, &err), err);
    close(fd);
    assert_true(sac_file_exists(place("empty/" MARK)));
}

static void what_somebody_else_began_is_refused_and_left_as_it_is(void **state)
{
    struct sac_error err = {0};
    int fd = -1;

    (void)state;
    assert_int_equal(mkdir(place("others"), 0777), 0);
    sac_test_write("others/thesis.txt", "x", 1);
    assert_int_equal(sac_claim(&fd, place("others"), MARK, &err), SAC_EINVAL);
    assert_says(err, "was not begun by this command");
    assert_int_equal(fd, -1);
    assert_false(sac_file_exists(place("others/" MARK)));
    sac_test_write("file", "x", 1);
    assert_int_equal(sac_claim(&fd, place("file"), MARK, &err), SAC_EINVAL);
}

/* flock() holds between open files, in one process as in two. */
static void a_second_claim_waits_for_nobody_and_is_refused(void **state)
{
    struct sac_error err = {0};
    int first = -1, second = -1;

    (void)state;
    assert_ok(sac_claim(&first, place("busy"), MARK, &err), err);
    assert_int_equal(sac_claim(&second, place("busy"), MARK, &err), SAC_EBUSY);
    close(first);
    assert_ok(sac_claim(&second, place("busy"), MARK, &err), err);
    close(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_folder_is_made_and_taken_up_again),
        cmocka_unit_test(an_empty_folder_is_taken),
        cmocka_unit_test(what_somebody_else_began_is_refused_and_left_as_it_is),
        cmocka_unit_test(a_second_claim_waits_for_nobody_and_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
