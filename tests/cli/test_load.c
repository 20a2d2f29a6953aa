#include "support/support.h"

#include <stdio.h>
#include <string.h>

#include "cli/load.h"
#include "cli/peer.h"

static const uint64_t ms = 1000000;
static struct sac_load_result result;

static struct sac_load_options options_for(struct peer *peer, const char *path)
{
    return (struct sac_load_options){.url = peer_url(peer, path),
                                     .pace = SAC_LOAD_UNIFORM,
                                     .rate = 1000,
                                     .requests_max = 50,
                                     .connections = 8,
                                     .duration_ns = 20000 * ms,
                                     .timeout_ns = 10000 * ms};
}

static void load(const struct sac_load_options *options)
{
    struct sac_error err = {0};

    assert_ok(sac_load_run(&result, options, &err), err);
}

/* Everything that fell due ended in one of these. */
static void assert_all_counted(uint64_t due)
{
    assert_int_equal(result.due, due);
    assert_int_equal(result.answered + result.connect_failed + result.broken + result.malformed +
                         result.timed_out,
                     due);
}

static void answers_are_counted_and_connections_kept(void **state)
{
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/ok");

    (void)state;
    load(&options);
    assert_all_counted(50);
    assert_int_equal(result.ok, 50);
    assert_int_equal(result.status[200], 50);
    assert_int_equal(result.latency.count, 50);
    assert_int_equal(result.different, 0);
    assert_int_equal(peer_requests(peer), 50);
    assert_true(peer_connections(peer) <= 8);
    peer_stop(peer);
}

/*
 * One connection, a request due every 10 ms for a second, and a server that
 * takes 400 ms for the first. So the one due at 10·i ms waits 400 − 10·i ms, and
 * sorted, the hundred latencies are 60 of about 0, then 10, 20, … 400 ms: p50
 * about 0, p90 300, p99 390, the largest 400 ms. A generator that waited for the
 * answer before it counted the next request would give a p90 of about 0. No
 * machine answers sooner than this; a busy one may be later.
 */
static void a_stall_is_seen_by_every_request_that_was_due_meanwhile(void **state)
{
    struct peer *peer = peer_start(400);
    struct sac_load_options options = options_for(peer, "/stall");
    const double within = 1 - 1.0 / 64;

    (void)state;
    options.rate = 100;
    options.requests_max = 0;
    options.duration_ns = 1000 * ms;
    options.connections = 1;
    options.slo_ns = 200 * ms;
    load(&options);
    assert_all_counted(100);
    assert_true(result.waited >= 39);
    assert_true((double)sac_histogram_percentile(&result.latency, 0.9) >= 300e6 * within);
    assert_true(sac_histogram_percentile(&result.latency, 0.9) <= 450 * ms);
    assert_true((double)sac_histogram_percentile(&result.latency, 0.99) >= 390e6 * within);
    assert_true(result.latency.max >= 400 * ms);
    /* 400, 390, … 210 miss the objective: 20 of them. */
    assert_true(result.good <= 80);
    assert_true(result.good >= 60);
    peer_stop(peer);
}

static void a_closed_loop_sees_the_stall_once(void **state)
{
    struct peer *peer = peer_start(300);
    struct sac_load_options options = options_for(peer, "/stall");

    (void)state;
    options.pace = SAC_LOAD_CLOSED;
    options.connections = 1;
    options.requests_max = 100;
    load(&options);
    assert_all_counted(100);
    assert_true(result.latency.max >= 300 * ms);
    assert_true(sac_histogram_percentile(&result.latency, 0.9) < 100 * ms);
    peer_stop(peer);
}

static void refusals_are_counted_and_timed_apart(void **state)
{
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/busy");

    (void)state;
    options.pace = SAC_LOAD_POISSON;
    load(&options);
    assert_all_counted(50);
    assert_int_equal(result.refused, 50);
    assert_int_equal(result.status[503], 50);
    assert_int_equal(result.refused_latency.count, 50);
    assert_int_equal(result.ok, 0);
    assert_int_equal(result.good, 0);
    assert_int_equal(result.latency.count, 0);
    peer_stop(peer);
}

static void connections_that_break_are_counted(void **state)
{
    static const char *const paths[] = {"/reset", "/half"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct peer *peer = peer_start(0);
        struct sac_load_options options = options_for(peer, paths[i]);
        load(&options);
        assert_all_counted(50);
        assert_int_equal(result.broken, 50);
        peer_stop(peer);
    }
}

static void what_is_not_http_is_counted(void **state)
{
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/garbage");

    (void)state;
    load(&options);
    assert_all_counted(50);
    assert_int_equal(result.malformed, 50);
    peer_stop(peer);
}

static void a_server_that_is_not_there_is_counted_not_hammered(void **state)
{
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/ok");
    char url[256];

    (void)state;
    snprintf(url, sizeof url, "%s", options.url);
    peer_stop(peer); /* its port is free now */
    options.url = url;
    load(&options);
    assert_all_counted(50);
    assert_int_equal(result.connect_failed, 50);
    options.pace = SAC_LOAD_CLOSED;
    options.requests_max = 0;
    options.duration_ns = 200 * ms;
    load(&options);
    /* Each of the 8 connections rests for a sweep, 10 ms, before it tries again. */
    assert_true(result.connect_failed >= 8);
    assert_true(result.connect_failed <= 8 * 25);
}

static void answers_that_never_come_time_out(void **state)
{
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/never");

    (void)state;
    options.connections = 2; /* most of the others wait in the backlog until their time is up */
    options.timeout_ns = 100 * ms;
    load(&options);
    assert_all_counted(50);
    assert_int_equal(result.timed_out, 50);
    assert_true(peer_requests(peer) < 25);
    peer_stop(peer);
}

static void every_framing_of_an_answer_is_read(void **state)
{
    static const char *const paths[] = {"/chunked", "/until-close", "/close"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct peer *peer = peer_start(0);
        struct sac_load_options options = options_for(peer, paths[i]);
        load(&options);
        assert_all_counted(50);
        assert_int_equal(result.ok, 50);
        assert_int_equal(result.different, 0);
        peer_stop(peer);
    }
}

static void answers_that_differ_from_the_first_are_counted(void **state)
{
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/count");

    (void)state;
    load(&options);
    assert_int_equal(result.ok, 50);
    assert_int_equal(result.different, 49);
    peer_stop(peer);
}

/* Three bodies, each answered with itself: were they not taken in turn, or
 * compared with each other's answers, some would differ. */
static void bodies_are_taken_in_turn_and_sent_whole(void **state)
{
    static uint8_t bytes[40000];
    const struct sac_load_body bodies[] = {{bytes, 1}, {bytes, 20000}, {bytes, sizeof bytes}};
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/echo");

    (void)state;
    memset(bytes, 'x', sizeof bytes);
    options.bodies = bodies;
    options.body_count = 3;
    options.connections = 1;
    options.requests_max = 30;
    load(&options);
    assert_all_counted(30);
    assert_int_equal(result.ok, 30);
    assert_int_equal(result.different, 0);
    assert_true(result.bytes_in > 10 * (1 + 20000 + 40000));
    assert_true(result.bytes_in < 10 * (1 + 20000 + 40000) + 30 * 100);
    peer_stop(peer);
}

static void the_request_is_what_was_asked_for(void **state)
{
    static const char *const headers[] = {"X-Timeout-Ms: 50", "Content-Type: image/jpeg"};
    const struct sac_load_body body = {(const uint8_t *)"abc", 3};
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/echo");
    char expected[400];

    (void)state;
    options.headers = headers;
    options.header_count = 2;
    options.bodies = &body;
    options.body_count = 1;
    options.requests_max = 1;
    options.method = "PUT";
    load(&options);
    snprintf(expected, sizeof expected,
             "PUT /echo HTTP/1.1\r\nHost: %.*s\r\nX-Timeout-Ms: 50\r\nContent-Type: image/jpeg\r\n"
             "Content-Length: 3\r\n\r\n",
             (int)strcspn(options.url + 7, "/"), options.url + 7);
    assert_string_equal(peer_first_head(peer), expected);
    peer_stop(peer);
}

static void the_warm_up_is_sent_and_not_counted(void **state)
{
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/ok");

    (void)state;
    options.requests_max = 0;
    options.duration_ns = 200 * ms;
    options.warmup_ns = 100 * ms;
    load(&options);
    assert_all_counted(100); /* due at 100, 101, … 199 ms */
    assert_int_equal(peer_requests(peer), 200);
    assert_int_equal(result.due_ns, 100 * ms);
    peer_stop(peer);
}

static void connections_come_from_the_addresses_given(void **state)
{
    static const char *const sources[] = {"127.0.0.2", "127.0.0.3"};
    struct peer *peer = peer_start(0);
    struct sac_load_options options = options_for(peer, "/ok");

    (void)state;
    options.sources = sources;
    options.source_count = 2;
    load(&options);
    assert_int_equal(result.ok, 50);
    peer_stop(peer);
}

static void assert_refused(const char *url, double rate, int connections, const char *sentence)
{
    struct sac_load_options options = {.url = url,
                                       .rate = rate,
                                       .connections = connections,
                                       .duration_ns = 1000 * ms,
                                       .timeout_ns = 1000 * ms};
    struct sac_error err = {0};

    assert_int_equal(sac_load_run(&result, &options, &err), SAC_EINVAL);
    assert_says(err, sentence);
}

static void what_cannot_be_meant_is_refused_in_a_sentence(void **state)
{
    (void)state;
    assert_refused("https://127.0.0.1/", 1, 1, "expected http://HOST[:PORT][/PATH]");
    assert_refused("http://", 1, 1, "expected http://HOST[:PORT][/PATH]");
    assert_refused("http://127.0.0.1:80x/", 1, 1, "expected http://HOST[:PORT][/PATH]");
    assert_refused("http://[::1/", 1, 1, "expected http://HOST[:PORT][/PATH]");
    assert_refused("http://127.0.0.1/a b", 1, 1, "expected http://HOST[:PORT][/PATH]");
    assert_refused("http://127.0.0.1/", 0, 1, "a rate of 0");
    assert_refused("http://127.0.0.1/", 1, 0, "0 connections");
    assert_refused("http://127.0.0.1/", 1, 1000000, "expected 1 to 10000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_counted_and_connections_kept),
        cmocka_unit_test(a_stall_is_seen_by_every_request_that_was_due_meanwhile),
        cmocka_unit_test(a_closed_loop_sees_the_stall_once),
        cmocka_unit_test(refusals_are_counted_and_timed_apart),
        cmocka_unit_test(connections_that_break_are_counted),
        cmocka_unit_test(what_is_not_http_is_counted),
        cmocka_unit_test(a_server_that_is_not_there_is_counted_not_hammered),
        cmocka_unit_test(answers_that_never_come_time_out),
        cmocka_unit_test(every_framing_of_an_answer_is_read),
        cmocka_unit_test(answers_that_differ_from_the_first_are_counted),
        cmocka_unit_test(bodies_are_taken_in_turn_and_sent_whole),
        cmocka_unit_test(the_request_is_what_was_asked_for),
        cmocka_unit_test(the_warm_up_is_sent_and_not_counted),
        cmocka_unit_test(connections_come_from_the_addresses_given),
        cmocka_unit_test(what_cannot_be_meant_is_refused_in_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
