/*
 * Fetching, from a server in Python (fetch_server.py) that breaks, lies and
 * changes its mind.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "fetch_rig.h"
#include "support/support.h"

static struct sac_fetcher *fetcher;

static int start(void **state)
{
    struct sac_error err = {0};

    return server_start(state) == 0 ? sac_fetcher_new(&fetcher, &err) : -1;
}

static int stop(void **state)
{
    sac_fetcher_free(fetcher);
    return server_stop(state);
}

/* A folder of its own a case, so that what is left behind can be counted. */
static const char *place(const char *name)
{
    char path[300];

    mkdir(path_in_tmp(name), 0777);
    snprintf(path, sizeof path, "%s/file", name);
    return path_in_tmp(path);
}

static struct sac_fetch_options quick(void)
{
    struct sac_fetch_options options = impatient();

    options.sha256 = SERVED_SHA256;
    return options;
}

static int fetch(const char *path, struct sac_fetch_options options, struct sac_fetch_result *ret,
                 struct sac_error *err)
{
    *err = (struct sac_error){0};
    return sac_fetch_file(fetcher, server_url(path), place(path + 1), &options, ret, err);
}

static void assert_whole(const char *path)
{
    uint8_t *bytes = NULL;
    size_t size;
    struct sac_error err = {0};

    assert_ok(sac_file_read(place(path + 1), SERVED_SIZE * 2, &bytes, &size, &err), err);
    assert_int_equal(size, SERVED_SIZE);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(bytes[i], (uint8_t)(i * 7 + i / 256));
    free(bytes);
    assert_int_equal(files_in_tmp(path + 1), 1); /* and nothing beside it */
}

static struct sac_fetch_result fetch_whole(const char *path, struct sac_fetch_options options)
{
    struct sac_fetch_result result = {0};
    struct sac_error err;

    assert_ok(fetch(path, options, &result, &err), err);
    assert_int_equal(result.bytes, SERVED_SIZE);
    assert_string_equal(result.sha256, SERVED_SHA256);
    assert_whole(path);
    return result;
}

static void a_file_comes_whole_with_its_sums(void **state)
{
    struct sac_fetch_options options = quick();

    (void)state;
    options.sha1 = SERVED_SHA1;
    assert_int_equal(fetch_whole("/whole", options).resumes, 0);
    fetch_whole("/no-length", quick());
    /* Redirects are followed, as far as is bounded. */
    place("hop");
    fetch_whole("/hop/4", quick());
}

static void a_broken_connection_is_resumed_where_it_broke(void **state)
{
    struct sac_buf log = {0};
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(fetch_whole("/breaks", quick()).resumes, 3); /* 30,000 a piece */
    assert_ok(sac_fetch_page(fetcher, server_url("/log"), NULL, &log, &err), err);
    sac_buf_put(&log, "", 1);
    assert_non_null(strstr((char *)log.data, "/breaks bytes=30000- \"one\"\n"));
    assert_non_null(strstr((char *)log.data, "/breaks bytes=90000- \"one\"\n"));
    sac_buf_done(&log);
}

static void a_server_without_ranges_sends_the_whole_again(void **state)
{
    (void)state;
    assert_int_equal(fetch_whole("/no-ranges", quick()).resumes, 0);
}

static void without_a_validator_only_a_sum_allows_going_on(void **state)
{
    struct sac_fetch_options options = quick();

    (void)state;
    assert_int_equal(fetch_whole("/no-validator", options).resumes, 1);
    /* The count of requests goes on: break again by another name. */
    options.sha256 = NULL;
    assert_int_equal(fetch_whole("/no-validator?again", options).resumes, 0);
}

static void a_file_that_changed_meanwhile_is_not_mixed(void **state)
{
    struct sac_fetch_options options = quick();
    struct sac_fetch_result result;
    struct sac_error err;

    (void)state;
    options.sha256 = NULL;
    assert_ok(fetch("/changes", options, &result, &err), err);
    assert_int_equal(result.resumes, 0);
    assert_int_equal(result.bytes, SERVED_SIZE);
    /* A server that mixes without saying so is found out by the sum. */
    assert_int_equal(fetch_whole("/mixes", quick()).resumes, 0);
}

static void a_server_that_lies_about_ranges_is_asked_for_the_whole(void **state)
{
    static const char *const paths[] = {"/lies", "/grows", "/garbage-range"};

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(fetch_whole(paths[i], quick()).resumes, 0);
}

static void a_stalled_connection_is_tried_again(void **state)
{
    (void)state;
    assert_int_equal(fetch_whole("/stalls", quick()).resumes, 1);
}

static void a_busy_server_is_tried_again(void **state)
{
    (void)state;
    fetch_whole("/busy", quick());
}

static void a_wrong_sum_refuses_and_leaves_nothing(void **state)
{
    struct sac_fetch_options options = quick();
    struct sac_error err;

    (void)state;
    assert_int_equal(fetch("/wrong", options, NULL, &err), SAC_EFORMAT);
    assert_says(err, "its SHA-256 is ");
    assert_says(err, "not " SERVED_SHA256 "; nothing was kept");
    assert_int_equal(files_in_tmp("wrong"), 0);
    options.sha256 = NULL;
    options.sha1 = SERVED_SHA1;
    assert_int_equal(fetch("/wrong", options, NULL, &err), SAC_EFORMAT);
    assert_says(err, "its SHA-1 is ");
    assert_int_equal(files_in_tmp("wrong"), 0);
}

static void what_was_there_before_stays_when_a_fetch_fails(void **state)
{
    struct sac_error err;
    FILE *file = fopen(place("wrong"), "w");

    (void)state;
    fputs("old", file);
    fclose(file);
    assert_int_equal(fetch("/wrong", quick(), NULL, &err), SAC_EFORMAT);
    assert_int_equal(files_in_tmp("wrong"), 1);
    struct stat info;
    assert_int_equal(stat(place("wrong"), &info), 0);
    assert_int_equal(info.st_size, 3);
}

static void a_dead_server_leaves_the_part_for_the_next_run(void **state)
{
    struct sac_fetch_result result;
    struct sac_error err;
    struct stat info;

    (void)state;
    assert_int_equal(fetch("/dies", quick(), NULL, &err), SAC_EIO);
    assert_says(err, "given up after 4 tries"); /* one with bytes, three without */
    assert_int_equal(files_in_tmp("dies"), 2);  /* file.part, file.part.from */

    /* The next run finds it; another address starts anew. */
    const char *path = place("dies");
    char part[420];
    snprintf(part, sizeof part, "%s.part", path);
    assert_int_equal(stat(part, &info), 0);
    assert_int_equal(info.st_size, 50000);
    struct sac_fetch_options options = quick();
    assert_ok(sac_fetch_file(fetcher, server_url("/whole"), path, &options, &result, &err), err);
    assert_int_equal(result.resumes, 0);
    assert_int_equal(files_in_tmp("dies"), 1);
}

static bool stop_after_half(void *context, int64_t have, int64_t total)
{
    (void)context, (void)total;
    return have < SERVED_SIZE / 4;
}

static void a_stop_keeps_the_part_and_the_next_run_resumes(void **state)
{
    struct sac_fetch_options options = quick();
    struct sac_error err;

    (void)state;
    options.progress = stop_after_half;
    assert_int_equal(fetch("/breaks-once", options, NULL, &err), SAC_ECANCELED);
    assert_int_equal(files_in_tmp("breaks-once"), 2);
    assert_int_equal(fetch_whole("/breaks-once", quick()).resumes, 1);
}

static void what_is_too_large_is_refused_before_it_comes(void **state)
{
    struct sac_fetch_options options = quick();
    struct sac_error err;

    (void)state;
    assert_int_equal(fetch("/huge", options, NULL, &err), SAC_ELIMIT);
    options.bytes_max = 250000;
    assert_int_equal(fetch("/endless", options, NULL, &err), SAC_ELIMIT);
    assert_says(err, "more than the 250000 bytes");
    assert_int_equal(files_in_tmp("huge") + files_in_tmp("endless"), 0);
}

static void refusals_are_one_sentence_and_leave_nothing(void **state)
{
    static const struct {
        const char *url, *says;
        int code;
    } cases[] = {
        {"/none", "the server answers 404", SAC_ENOENT},
        {"/hop/9", "Maximum (5) redirects", SAC_EIO},
        {"/to-file", "file", SAC_EIO},
    };
    struct sac_error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_fetch_options options = quick();
        err = (struct sac_error){0};
        assert_int_equal(sac_fetch_file(fetcher, server_url(cases[i].url), place("refused"),
                                        &options, NULL, &err),
                         cases[i].code);
        assert_says(err, cases[i].says);
        assert_int_equal(files_in_tmp("refused"), 0);
    }
    struct sac_fetch_options options = quick();
    static const char *const urls[] = {"file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense://x"};
    for (int i = 0; i < 3; i++) {
        err = (struct sac_error){0};
        assert_true(sac_fetch_file(fetcher, urls[i], place("refused"), &options, NULL, &err) < 0);
        assert_int_equal(files_in_tmp("refused"), 0);
    }
    err = (struct sac_error){0};
    assert_int_equal(
        sac_fetch_file(fetcher, server_url("/whole"), "/none/file", &options, NULL, &err),
        SAC_ENOENT);
    assert_says(err, "/none/file cannot be written");
}

/* RLIMIT_FSIZE stands in for a full disk: write() fails in the middle. */
static void a_full_disk_is_one_sentence_and_leaves_nothing(void **state)
{
    struct sac_error err;
    struct rlimit before, small;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small = (struct rlimit){.rlim_cur = 50000, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    int rc = fetch("/whole", quick(), NULL, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(rc, SAC_EIO);
    assert_says(err, "cannot be written: ");
}

static void two_fetches_to_one_place_do_not_meet(void **state)
{
    struct sac_error err;
    char part[420];

    (void)state;
    snprintf(part, sizeof part, "%s.part", place("breaks-once"));
    int fd = open(part, O_RDWR | O_CREAT, 0666);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(fetch("/breaks-once", quick(), NULL, &err), SAC_EBUSY);
    close(fd);
    unlink(part);
}

static void a_page_comes_into_memory(void **state)
{
    struct sac_buf page = {0};
    struct sac_error err = {0};
    struct sac_fetch_options options = quick();

    (void)state;
    sac_buf_puts(&page, "before");
    assert_ok(sac_fetch_page(fetcher, server_url("/no-ranges?page"), &options, &page, &err), err);
    assert_int_equal(page.len, 6 + SERVED_SIZE);
    assert_memory_equal(page.data, "before\x00\x07\x0e", 9);
    sac_buf_clear(&page);
    assert_ok(sac_fetch_page(fetcher, server_url("/empty"), &options, &page, &err), err);
    assert_int_equal(page.len, 0);
    options.bytes_max = 1000;
    assert_int_equal(sac_fetch_page(fetcher, server_url("/whole"), &options, &page, &err),
                     SAC_ELIMIT);
    sac_buf_done(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_comes_whole_with_its_sums),
        cmocka_unit_test(a_broken_connection_is_resumed_where_it_broke),
        cmocka_unit_test(a_server_without_ranges_sends_the_whole_again),
        cmocka_unit_test(without_a_validator_only_a_sum_allows_going_on),
        cmocka_unit_test(a_file_that_changed_meanwhile_is_not_mixed),
        cmocka_unit_test(a_server_that_lies_about_ranges_is_asked_for_the_whole),
        cmocka_unit_test(a_stalled_connection_is_tried_again),
        cmocka_unit_test(a_busy_server_is_tried_again),
        cmocka_unit_test(a_wrong_sum_refuses_and_leaves_nothing),
        cmocka_unit_test(what_was_there_before_stays_when_a_fetch_fails),
        cmocka_unit_test(a_dead_server_leaves_the_part_for_the_next_run),
        cmocka_unit_test(a_stop_keeps_the_part_and_the_next_run_resumes),
        cmocka_unit_test(what_is_too_large_is_refused_before_it_comes),
        cmocka_unit_test(refusals_are_one_sentence_and_leave_nothing),
        cmocka_unit_test(a_full_disk_is_one_sentence_and_leaves_nothing),
        cmocka_unit_test(two_fetches_to_one_place_do_not_meet),
        cmocka_unit_test(a_page_comes_into_memory),
    };

    return cmocka_run_group_tests_name("data/fetch", tests, start, stop);
}
