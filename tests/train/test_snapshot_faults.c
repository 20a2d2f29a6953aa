/*
 * Saves that are killed, and disks that fail at every call of a save. The failing
 * calls are this program's own write, fsync and rename.
 */
#include "support/support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "snapshots.h"

/* Calls left until one fails with `fail_with`, and all after it; -1: none does. */
static int calls_left = -1;
static int fail_with;
static bool killing; /* the call does not fail: the process ends there */

static bool fails(void)
{
    if (calls_left < 0)
        return false;
    if (calls_left > 0) {
        calls_left--;
        return false;
    }
    if (killing)
        kill(getpid(), SIGKILL);
    errno = fail_with;
    return true;
}

__attribute__((visibility("default"))) int fsync(int fd)
{
    return fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *bytes, size_t size)
{
    return fd > 2 && fails() ? -1 : syscall(SYS_write, fd, bytes, size);
}

__attribute__((visibility("default"))) int rename(const char *from, const char *to)
{
    return fails() ? -1 : (int)syscall(SYS_renameat, -100, from, -100, to); /* AT_FDCWD */
}

static enum sac_snapshot_format format_of(int turn)
{
    return turn % 2 && sac_snapshot_has_hdf5() ? SAC_SNAPSHOT_HDF5 : SAC_SNAPSHOT_BINARY;
}

static int64_t newest_whole(const char *prefix)
{
    struct sac_snapshot_files files;
    struct sac_error err = {0};

    assert_ok(sac_snapshot_find_auto(&files, prefix, &err), err);
    assert_made(&files);
    int64_t iteration = files.iteration;
    sac_snapshot_files_done(&files);
    return iteration;
}

/* ---- Kills ---- */

/* Saves iteration after iteration, tells each through the pipe, keeps two. */
static void save_for_ever(const char *prefix, int turn, int64_t from, int to_parent)
{
    struct sac_error err = {0};

    for (int64_t i = from;; i++) {
        if (made_save(prefix, format_of(turn), i, NULL, &err) != 0 ||
            write(to_parent, &i, sizeof i) != sizeof i ||
            sac_snapshot_prune(prefix, i, 2, NULL, 0, &err) != 0)
            _exit(1);
    }
}

/* Starts a child that saves, kills it after `ns`; returns the last save it told of. */
static int64_t kill_a_saver(const char *prefix, int turn, int64_t from, long ns)
{
    struct timespec pause = {0, ns};
    int64_t told = from - 1, last;
    int ends[2], status;

    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        save_for_ever(prefix, turn, from, ends[1]);
    }
    close(ends[1]);
    nanosleep(&pause, NULL);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status)); /* it had not failed by itself */
    while (read(ends[0], &last, sizeof last) == sizeof last)
        told = last;
    close(ends[0]);
    return told;
}

static void a_kill_at_any_moment_loses_nothing_that_was_saved(void **state)
{
    enum { KILLS = 60, PAUSE_NS_MAX = 90000000 };
    struct sac_error err = {0};
    int64_t at = 1;
    unsigned seed = 1;
    char prefix[1024];

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("kill", "net"));
    uint64_t began = sac_clock_ns();
    assert_ok(made_save(prefix, SAC_SNAPSHOT_BINARY, at, NULL, &err), err);
    uint64_t one_save = sac_clock_ns() - began;
    for (int turn = 0; turn < KILLS; turn++) {
        long ns = (long)((double)rand_r(&seed) / RAND_MAX * 3 * (double)one_save);
        int64_t told = kill_a_saver(prefix, turn, at + 1, ns);
        int64_t found = newest_whole(prefix);
        if (found < told || found > told + 1)
            fail_msg("turn %d: saved up to %lld, found %lld", turn, (long long)told,
                     (long long)found);
        if (found == at && one_save < PAUSE_NS_MAX / 3)
            one_save *= 2; /* the disk has become slower */
        at = found;
    }
    print_message("# %d kills over %lld snapshots\n", KILLS, (long long)at);
    assert_true(at > 3); /* they did save */
}

/* The same at each single write, sync and rename of one save. */
static void a_kill_at_every_call_leaves_the_old_or_the_new(void **state)
{
    struct sac_error err = {0};
    char prefix[1024];
    int old = 0, fresh = 0;

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("calls", "net"));
    for (int turn = 0; turn < 2; turn++) {
        int64_t at = 1000 * (turn + 1);
        assert_ok(made_save(prefix, format_of(turn), at, NULL, &err), err);
        for (int call = 0;; call++) {
            int status;
            pid_t child = fork();
            if (child == 0) {
                killing = true;
                calls_left = call;
                _exit(made_save(prefix, format_of(turn), at + 1, NULL, &err) == 0 ? 0 : 1);
            }
            assert_int_equal(waitpid(child, &status, 0), child);
            int64_t found = newest_whole(prefix);
            assert_true(found == at || found == at + 1);
            old += found == at;
            fresh += found != at;
            at = found;
            if (WIFEXITED(status)) {
                assert_int_equal(WEXITSTATUS(status), 0);
                assert_true(call >= 9); /* three files: write, sync, rename */
                break;
            }
        }
    }
    print_message("# killed at %d calls: %d times the old, %d times the new\n", old + fresh, old,
                  fresh);
    assert_true(old > 0 && fresh > 0);
}

/* ---- Failing disks ---- */

static void count_files(const char *prefix, const char *rest, int64_t iteration, int *count)
{
    char path[1200];

    snprintf(path, sizeof path, "%s_iter_%lld.%s", prefix, (long long)iteration, rest);
    *count += sac_file_exists(path);
}

/* Each write, sync and rename of a save fails in turn, and all after it. */
static void a_failing_disk_is_told_and_the_old_snapshot_stays(void **state)
{
    static const int numbers[] = {ENOSPC, EIO};
    struct sac_error err = {0};
    char prefix[1024];
    int failures = 0;

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("faults", "net"));
    for (int turn = 0; turn < 4; turn++) {
        int64_t at = 1000 * (turn + 1);
        assert_ok(made_save(prefix, format_of(turn), at, NULL, &err), err);
        for (int call = 0;; call++) {
            struct sac_error why = {0};
            fail_with = numbers[turn / 2];
            calls_left = call;
            int rc = made_save(prefix, format_of(turn), at + 1, NULL, &why);
            calls_left = -1;
            if (rc == 0)
                break;
            failures++;
            assert_int_equal(rc, SAC_EIO);
            assert_says(why, strerror(fail_with));
            assert_says(why, sac_test_tmpdir());
            int64_t found = newest_whole(prefix);
            assert_true(found == at || found == at + 1);
            int left = 0;
            count_files(prefix, "solverstate.tmp", at + 1, &left);
            count_files(prefix, "caffemodel.tmp", at + 1, &left);
            count_files(prefix, "saccade.tmp", at + 1, &left);
            assert_int_equal(left, 0);
        }
        assert_int_equal(newest_whole(prefix), at + 1);
    }
    print_message("# %d failing calls\n", failures);
    assert_true(failures >= 4 * 9);
}

/* Until all three files are on the disk, nothing of the old snapshot is touched, even
 * where the new one has the same iteration. */
static void a_full_disk_keeps_the_snapshot_of_the_same_iteration(void **state)
{
    struct rlimit old, small;
    struct sac_error err = {0};
    char prefix[1024];

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("limit", "net"));
    assert_ok(made_save(prefix, SAC_SNAPSHOT_BINARY, 5, NULL, &err), err);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 300; /* less than the weights, more than nothing */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = made_save(prefix, SAC_SNAPSHOT_BINARY, 5, NULL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(rc, SAC_EIO);
    assert_says(err, "net_iter_5.caffemodel could not be written; nothing was replaced: "
                     "File too large");
    assert_int_equal(newest_whole(prefix), 5);
}

static char mounted[1024];

static void unmount(void)
{
    if (mounted[0])
        umount2(mounted, MNT_DETACH);
    mounted[0] = 0;
}

static void a_full_file_system_keeps_the_old_snapshot(void **state)
{
    struct sac_error err = {0};
    char prefix[1024], folder[1024];
    int64_t at = 1;
    int rc = 0;

    (void)state;
    snprintf(folder, sizeof folder, "%s", made_prefix("small", ""));
    folder[strlen(folder) - 1] = 0;
    if (mount("tmpfs", folder, "tmpfs", 0, "size=64k") != 0) {
        print_message("# skipped: a tmpfs cannot be mounted here\n");
        skip();
    }
    snprintf(mounted, sizeof mounted, "%s", folder);
    atexit(unmount); /* should the test fail; before the folder is removed */
    snprintf(prefix, sizeof prefix, "%s/net", folder);
    for (; rc == 0 && at < 100; at++)
        rc = made_save(prefix, SAC_SNAPSHOT_BINARY, at, NULL, &err);
    int64_t found = rc == 0 ? -1 : newest_whole(prefix);
    unmount();
    assert_int_equal(rc, SAC_EIO);
    assert_says(err, "No space left on device");
    assert_int_equal(found, at - 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_moment_loses_nothing_that_was_saved),
        cmocka_unit_test(a_kill_at_every_call_leaves_the_old_or_the_new),
        cmocka_unit_test(a_failing_disk_is_told_and_the_old_snapshot_stays),
        cmocka_unit_test(a_full_disk_keeps_the_snapshot_of_the_same_iteration),
        cmocka_unit_test(a_full_file_system_keeps_the_old_snapshot),
    };
    return cmocka_run_group_tests_name("snapshot_faults", tests, NULL, NULL);
}
