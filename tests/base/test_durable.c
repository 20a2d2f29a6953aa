/* A failing disk is simulated by this program's own fsync. */
#include "support/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/durable.h"
#include "base/file.h"

static int fsyncs_left = -1; /* until one fails; -1: never */

__attribute__((visibility("default"))) int fsync(int fd)
{
    if (fsyncs_left == 0) {
        errno = EIO;
        return -1;
    }
    fsyncs_left -= fsyncs_left > 0;
    return (int)syscall(SYS_fsync, fd);
}

static const char *in_tmpdir(const char *name)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/%s", sac_test_tmpdir(), name);
    return path;
}

static void assert_holds(const char *path, const char *text)
{
    struct sac_error err = {0};
    uint8_t *data;
    size_t size;

    assert_ok(sac_file_read(path, 1 << 20, &data, &size, &err), err);
    assert_string_equal((char *)data, text);
    free(data);
}

static void a_file_appears_whole_at_the_commit(void **state)
{
    struct sac_error err = {0};
    struct sac_durable *file;
    const char *path = in_tmpdir("a");

    (void)state;
    assert_ok(sac_durable_open(&file, path, &err), err);
    assert_ok(sac_durable_put(file, "one ", 4, &err), err);
    assert_ok(sac_durable_put(file, "two", 3, &err), err);
    assert_ok(sac_durable_sync(file, &err), err);
    assert_false(sac_file_exists(path));
    assert_ok(sac_durable_commit(file, &err), err);
    sac_durable_free(file);
    assert_holds(path, "one two");
    assert_false(sac_file_exists(in_tmpdir("a.tmp")));
}

static void large_and_small_puts_keep_their_order(void **state)
{
    enum { BIG = 200000 };
    struct sac_error err = {0};
    struct sac_durable *file;
    char *big = malloc(BIG + 1);
    char *whole = malloc(2 * BIG + 10);

    (void)state;
    memset(big, 'b', BIG);
    big[BIG] = 0;
    snprintf(whole, 2 * BIG + 10, "a%sc%sd", big, big);
    assert_ok(sac_durable_open(&file, in_tmpdir("big"), &err), err);
    assert_ok(sac_durable_put(file, "a", 1, &err), err);
    assert_ok(sac_durable_put(file, big, BIG, &err), err);
    assert_ok(sac_durable_put(file, "c", 1, &err), err);
    assert_ok(sac_durable_put(file, big, BIG, &err), err);
    assert_ok(sac_durable_put(file, "d", 1, &err), err);
    assert_ok(sac_durable_sync(file, &err), err);
    assert_ok(sac_durable_commit(file, &err), err);
    sac_durable_free(file);
    assert_holds(in_tmpdir("big"), whole);
    free(big);
    free(whole);
}

static void without_a_commit_the_old_file_stays(void **state)
{
    struct sac_error err = {0};
    struct sac_durable *file;
    const char *path = sac_test_write("old", "old", 3);

    (void)state;
    assert_ok(sac_durable_open(&file, path, &err), err);
    assert_ok(sac_durable_put(file, "new", 3, &err), err);
    assert_ok(sac_durable_sync(file, &err), err);
    sac_durable_free(file);
    assert_holds(path, "old");
    assert_false(sac_file_exists(in_tmpdir("old.tmp")));
}

static void a_failed_sync_is_final_and_keeps_the_old_file(void **state)
{
    struct sac_error err = {0};
    struct sac_durable *file;
    const char *path = sac_test_write("kept", "old", 3);

    (void)state;
    assert_ok(sac_durable_open(&file, path, &err), err);
    assert_ok(sac_durable_put(file, "new", 3, &err), err);
    fsyncs_left = 0;
    assert_int_equal(sac_durable_sync(file, &err), SAC_EIO);
    fsyncs_left = -1;
    assert_says(err, "kept could not be synced; nothing was replaced");
    sac_durable_free(file);
    assert_holds(path, "old");
    assert_false(sac_file_exists(in_tmpdir("kept.tmp")));
}

static void a_folder_that_is_not_there_is_named(void **state)
{
    struct sac_error err = {0};
    struct sac_durable *file;

    (void)state;
    assert_int_equal(sac_durable_open(&file, "/nowhere/x", &err), SAC_ENOENT);
    assert_says(err, "/nowhere/x cannot be written: No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_appears_whole_at_the_commit),
        cmocka_unit_test(large_and_small_puts_keep_their_order),
        cmocka_unit_test(without_a_commit_the_old_file_stays),
        cmocka_unit_test(a_failed_sync_is_final_and_keeps_the_old_file),
        cmocka_unit_test(a_folder_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests_name("durable", tests, NULL, NULL);
}
