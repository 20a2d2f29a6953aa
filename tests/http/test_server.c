/* Answers, order, limits in time and number, and clients that go away. */
#include "fixture.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define HOST "Host: localhost\r\n"

static struct fixture fixture;

static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void expect_answer(int fd, int status, const char *body)
{
    struct answer answer = client_read(fd, false);

    if (answer.status != status)
        fail_msg("expected %d, got: %s%s", status, answer.head, answer.body ? answer.body : "");
    if (body)
        assert_string_equal(answer.body, body);
    answer_done(&answer);
}

static void expect_service(void)
{
    int fd = client_connect(&fixture);

    client_puts(fd, "GET /null HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 200, "null\n");
    close(fd);
}

static void a_handler_sees_what_was_sent(void **state)
{
    int fd;

    (void)state;
    fixture_start(&fixture, NULL);
    fd = client_connect(&fixture);
    client_puts(fd, "POST /t%65ll?x=1&topk=%2b1+%41&topk=2 HTTP/1.1\r\n" HOST
                    "X-WORD:  a b \r\nContent-Length: 5\r\n\r\nhello");
    expect_answer(fd, 200, "POST /tell query=1:+1 A header=a b body=5 peer=127.0.0.1 timed=1\n");
    client_puts(fd, "GET /tell?topkk=1&topk HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 200, "GET /tell query=1: header= body=0 peer=127.0.0.1 timed=1\n");
    client_puts(fd, "GET /tell?topk=0123456789abcdefghi HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 200,
                  "GET /tell query=1:0123456789abcde header= body=0 peer=127.0.0.1 timed=1\n");
    client_puts(fd, "GET /tell?topk=%zz HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 200, "GET /tell query=0:- header= body=0 peer=127.0.0.1 timed=1\n");
    client_puts(fd, "GET /prefix/ HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 200, "null\n");
    client_puts(fd, "GET /prefix/longer/x HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 299, "");
    client_puts(fd, "GET /%c3%A4%20b HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 299, "");
    client_puts(fd, "GET /prefix HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 404, NULL);
    close(fd);
    fixture_stop(&fixture);
}

static void head_is_get_without_the_body(void **state)
{
    struct answer answer;
    int fd;

    (void)state;
    fixture_start(&fixture, NULL);
    fd = client_connect(&fixture);
    for (int i = 0; i < 2; i++) {
        client_puts(fd, i == 0 ? "HEAD /null HTTP/1.1\r\n" HOST "\r\n"
                               : "HEAD /large-static HTTP/1.1\r\n" HOST "\r\n");
        answer = client_read(fd, true);
        assert_int_equal(answer.status, 200);
        assert_non_null(
            strstr(answer.head, i == 0 ? "Content-Length: 5\r\n" : "Content-Length: 4194304\r\n"));
        answer_done(&answer);
    }
    client_puts(fd, "GET /null HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 200, "null\n");
    close(fd);
    fixture_stop(&fixture);
}

/* Not time(): it may be a tick behind the clock that the server reads. */
static time_t seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec;
}

/* RFC 9110, 6.6.1 and 5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT". */
static void answers_say_when_they_were_made(void **state)
{
    time_t before = seconds_now();
    struct tm utc = {0};

    (void)state;
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    client_puts(fd, "GET /null HTTP/1.1\r\n" HOST "\r\n");
    struct answer answer = client_read(fd, false);
    const char *date = strstr(answer.head, "\r\nDate: ");
    assert_non_null(date);
    const char *end = strptime(date + 8, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    assert_true(end && end == date + 8 + 29 && strncmp(end, "\r\n", 2) == 0);
    time_t said = timegm(&utc);
    assert_true(said >= before && said <= seconds_now());
    answer_done(&answer);
    close(fd);
    fixture_stop(&fixture);
}

static void errors_are_json_and_a_503_says_when_to_retry(void **state)
{
    struct answer answer;
    int fd;

    (void)state;
    fixture_start(&fixture, NULL);
    fd = client_connect(&fixture);
    client_puts(fd, "GET /teapot HTTP/1.1\r\n" HOST "\r\n");
    answer = client_read(fd, false);
    assert_int_equal(answer.status, 503);
    assert_non_null(strstr(answer.head, "Retry-After: 1\r\n"));
    assert_null(strstr(answer.head, "Connection: close"));
    assert_string_equal(answer.body, "{\"error\":\"full of \\\"\\u003ctea\\u003e\\\" 7\"}\n");
    answer_done(&answer);
    client_puts(fd, "DELETE /tell HTTP/1.1\r\n" HOST "\r\n");
    answer = client_read(fd, false);
    assert_int_equal(answer.status, 405);
    assert_non_null(strstr(answer.head, "Allow: GET, HEAD, POST, OPTIONS\r\n"));
    answer_done(&answer);
    close(fd);
    fixture_stop(&fixture);
}

static void http_1_0_keeps_alive_when_asked(void **state)
{
    struct answer answer;
    int fd;

    (void)state;
    fixture_start(&fixture, NULL);
    fd = client_connect(&fixture);
    for (int i = 0; i < 2; i++) {
        client_puts(fd, "GET /null HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        answer = client_read(fd, false);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.head, "Connection: keep-alive\r\n"));
        answer_done(&answer);
    }
    close(fd);
    fixture_stop(&fixture);
}

/* Expect. */

static void continue_is_sent_once_the_head_has_passed(void **state)
{
    struct answer answer;
    int fd;

    (void)state;
    fixture_start(&fixture, NULL);
    fd = client_connect(&fixture);
    client_puts(fd,
                "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n");
    answer = client_read(fd, true);
    assert_int_equal(answer.status, 100);
    answer_done(&answer);
    client_puts(fd, "abc");
    expect_answer(fd, 200, "abc");
    client_puts(fd, "POST /echo HTTP/1.1\r\n" HOST
                    "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    answer = client_read(fd, true);
    assert_int_equal(answer.status, 100);
    answer_done(&answer);
    client_puts(fd, "3\r\nabc\r\n0\r\n\r\n");
    expect_answer(fd, 200, "abc");
    /* The body is there already: no interim answer is needed. */
    client_puts(fd, "POST /echo HTTP/1.1\r\n" HOST
                    "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
    expect_answer(fd, 200, "abc");
    close(fd);
    fixture_stop(&fixture);
}

static void continue_is_not_sent_for_a_body_that_is_refused(void **state)
{
    static const struct {
        const char *head;
        int status;
    } cases[] = {
        {"POST /small HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 11\r\n\r\n", 413},
        {"POST /nothing HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n",
         404},
        {"PUT /null HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n", 405},
        {"POST /echo HTTP/1.1\r\nHost: a.b\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
         421},
    };

    (void)state;
    fixture_start(&fixture, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = client_connect(&fixture);
        client_puts(fd, cases[i].head);
        expect_answer(fd, cases[i].status, NULL);
        close(fd);
    }
    assert_int_equal(atomic_load(&fixture.echoes), 0);
    fixture_stop(&fixture);
}

static void continue_waits_for_the_answers_before_it(void **state)
{
    struct answer answer;
    int fd;

    (void)state;
    fixture_start(&fixture, NULL);
    fd = client_connect(&fixture);
    client_puts(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\nPOST /echo HTTP/1.1\r\n" HOST
                    "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_true(fixture_await(&fixture.held, 1));
    fixture_release(&fixture);
    expect_answer(fd, 200, "held\n");
    answer = client_read(fd, true);
    assert_int_equal(answer.status, 100);
    answer_done(&answer);
    client_puts(fd, "abc");
    expect_answer(fd, 200, "abc");
    close(fd);
    fixture_stop(&fixture);
}

/* Bodies. */

static void expect_echo(int fd, const uint8_t *sent, size_t size)
{
    struct answer answer = client_read(fd, false);

    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body_size, size);
    assert_memory_equal(answer.body, sent, size);
    answer_done(&answer);
}

struct sender {
    int fd;
    const void *bytes;
    size_t size;
};

static void *send_all(void *user)
{
    const struct sender *sender = user;

    client_send(sender->fd, sender->bytes, sender->size);
    return NULL;
}

static void large_bodies_arrive_whole(void **state)
{
    size_t size = 5000000;
    uint8_t *bytes = malloc(size);
    uint32_t seed = 1;

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    for (int chunked = 0; chunked < 2; chunked++) {
        char head[256];
        pthread_t thread;
        if (chunked)
            snprintf(head, sizeof head,
                     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n%zx\r\n",
                     size);
        else
            snprintf(head, sizeof head,
                     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", size);
        client_puts(fd, head);
        struct sender sender = {fd, bytes, size};
        assert_int_equal(pthread_create(&thread, NULL, send_all, &sender), 0);
        pthread_join(thread, NULL);
        if (chunked)
            client_puts(fd, "\r\n0\r\n\r\n");
        expect_echo(fd, bytes, size);
    }
    close(fd);
    free(bytes);
    fixture_stop(&fixture);
}

static void many_requests_of_every_kind_are_cut_anywhere(void **state)
{
    static const char text[] =
        "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 7\r\n\r\nseven b"
        "GET /null HTTP/1.1\r\n" HOST "\r\n"
        "POST /echo HTTP/1.1\r\n" HOST
        "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n"
        "GET /null HTTP/1.1\r\n" HOST "\r\n";

    (void)state;
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    for (size_t cut = 1; cut < sizeof text - 1; cut++) {
        client_send(fd, text, cut);
        client_send(fd, text + cut, sizeof text - 1 - cut);
        expect_answer(fd, 200, "seven b");
        expect_answer(fd, 200, "null\n");
        expect_answer(fd, 200, "abcde");
        expect_answer(fd, 200, "null\n");
    }
    close(fd);
    fixture_stop(&fixture);
}

/* Everything that is answered to `blank`, the bytes, and a request that ends the
 * connection, without the lines of the date; malloc. */
static char *answers_to(const char *blank, const char *bytes, size_t size)
{
    static const char last[] = "\r\n\r\nGET /null HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n";
    char message[1024];
    size_t used = strlen(blank);
    int fd = client_connect(&fixture);

    memcpy(message, blank, used);
    memcpy(message + used, bytes, size);
    used += size;
    memcpy(message + used, last, sizeof last - 1);
    client_send(fd, message, used + sizeof last - 1);
    char *text = client_read_all(fd, NULL), *date;
    assert_non_null(text);
    close(fd);
    while ((date = strstr(text, "Date: ")))
        memmove(date, strchr(date, '\n') + 1, strlen(strchr(date, '\n') + 1) + 1);
    return text;
}

/* A head that came whole is remembered and, the second time, not parsed; behind an empty
 * line it always is. */
static void expect_same_answers(const char *bytes, size_t size)
{
    char *parsed = answers_to("\r\n", bytes, size);

    for (int i = 0; i < 2; i++) {
        char *text = answers_to("", bytes, size);
        assert_string_equal(text, parsed);
        free(text);
    }
    free(parsed);
}

static void a_head_that_is_known_lets_no_other_in(void **state)
{
    static const char head[] = "GET /t%65ll?topk=%33&x HTTP/1.1\r\n" HOST "x-word: w%20 \r\n\r\n";
    static const char told[] = "GET /tell query=1:3 header=w%20 body=0 peer=127.0.0.1 timed=1\n";
    const size_t size = sizeof head - 1;
    char other[sizeof head];

    (void)state;
    fixture_start(&fixture, NULL);
    for (size_t at = 0; at < size; at++) {
        const char instead[] = {'\0', '\n', ' ', (char)(head[at] ^ 1), (char)(head[at] ^ 0x20)};
        for (size_t i = 0; i < sizeof instead; i++) {
            memcpy(other, head, sizeof head);
            other[at] = instead[i];
            expect_same_answers(head, size);
            expect_same_answers(other, size);
        }
    }
    char *text = answers_to("", head, size);
    assert_non_null(strstr(text, told));
    free(text);
    fixture_stop(&fixture);
}

static void a_head_that_is_known_may_be_cut_and_pipelined(void **state)
{
    static const char text[] = "GET /null HTTP/1.1\r\n" HOST "\r\n"
                               "GET /null HTTP/1.1\r\n" HOST "\r\n"
                               "HEAD /null HTTP/1.1\r\n" HOST "\r\n"
                               "HEAD /null HTTP/1.1\r\n" HOST "\r\n"
                               "GET /tell?topk=7 HTTP/1.1\r\n" HOST "\r\n"
                               "GET /tell HTTP/1.1\r\n" HOST "\r\n";

    (void)state;
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    for (size_t cut = 0; cut < sizeof text - 1; cut++) {
        client_send(fd, text, cut);
        client_send(fd, text + cut, sizeof text - 1 - cut);
        expect_answer(fd, 200, "null\n");
        expect_answer(fd, 200, "null\n");
        for (int i = 0; i < 2; i++) {
            struct answer answer = client_read(fd, true);
            assert_int_equal(answer.status, 200);
            answer_done(&answer);
        }
        expect_answer(fd, 200, "GET /tell query=1:7 header= body=0 peer=127.0.0.1 timed=1\n");
        expect_answer(fd, 200, "GET /tell query=0:- header= body=0 peer=127.0.0.1 timed=1\n");
    }
    close(fd);
    fixture_stop(&fixture);
}

static void large_answers_leave_whole_behind_small_ones(void **state)
{
    (void)state;
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    client_puts(fd, "GET /null HTTP/1.1\r\n" HOST "\r\nGET /large HTTP/1.1\r\n" HOST
                    "\r\nGET /null HTTP/1.1\r\n" HOST "\r\nGET /large-static HTTP/1.1\r\n" HOST
                    "\r\nGET /null HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
    usleep(50000); /* so that the socket fills up */
    for (int i = 0; i < 5; i++) {
        struct answer answer = client_read(fd, false);
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.body_size, i % 2 ? FIXTURE_LARGE : 5);
        assert_int_equal(strspn(answer.body, "x"), i % 2 ? FIXTURE_LARGE : 0);
        assert_true(!strstr(answer.head, "X-Large: yes\r\n") == !(i % 2));
        answer_done(&answer);
    }
    char *rest = client_read_all(fd, NULL);
    assert_non_null(rest);
    assert_string_equal(rest, "");
    free(rest);
    close(fd);
    fixture_stop(&fixture);
}

static void bodies_held_at_once_are_bounded(void **state)
{
    const struct sac_http_options options = {.limits = {.bodies_bytes_max = 1000}};
    int fds[3];

    (void)state;
    fixture_start(&fixture, &options);
    for (int i = 0; i < 3; i++)
        fds[i] = client_connect(&fixture);
    client_puts(fds[0], "POST /hold HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nab");
    assert_true(fixture_await(&fixture.held, 1));
    client_puts(fds[1], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 999\r\n\r\n");
    expect_answer(fds[1], 503, NULL);
    client_puts(fds[2], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc");
    expect_answer(fds[2], 200, "abc");
    fixture_release(&fixture);
    expect_answer(fds[0], 200, "held\n");
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    fixture_stop(&fixture);
}

/* As client_connect, from an address of the loopback range. */
static int connect_from(const char *source)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)fixture.port)};
    const struct timeval patience = {10, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(inet_pton(AF_INET, source, &from.sin_addr), 1);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* The status of a body of so many bytes, from there. */
static int post_from(const char *source, size_t size)
{
    char head[128], *body = calloc(1, size);
    int fd = connect_from(source);

    assert_non_null(body);
    snprintf(head, sizeof head, "POST /tell HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", size);
    client_puts(fd, head);
    client_send(fd, body, size);
    free(body);
    struct answer answer = client_read(fd, false);
    int status = answer.status;
    answer_done(&answer);
    close(fd);
    return status;
}

static void bodies_that_are_only_declared_deny_nobody(void **state)
{
    const struct sac_http_options options = {.limits = {.bodies_bytes_max = 4 << 20}};
    int fds[10];

    (void)state;
    fixture_start(&fixture, &options);
    for (int i = 0; i < 10; i++) { /* 160 MB in all */
        fds[i] = client_connect(&fixture);
        client_puts(fds[i], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 16000000\r\n"
                            "Expect: 100-continue\r\n\r\n");
        expect_answer(fds[i], 100, NULL); /* its room has been taken */
    }
    assert_int_equal(post_from("127.0.0.1", 100000), 200);
    for (int i = 0; i < 10; i++)
        close(fds[i]);
    fixture_stop(&fixture);
}

static void one_address_has_half_of_the_bodies(void **state)
{
    static const char some[700000];
    const struct sac_http_options options = {.limits = {.bodies_bytes_max = 1 << 20}};
    const uint64_t start = sac_clock_ns();

    (void)state;
    fixture_start(&fixture, &options);
    int fd = connect_from("127.0.0.2");
    client_puts(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 500000\r\n\r\n");
    client_send(fd, some, 499999); /* nearly half */
    while (post_from("127.0.0.2", 100000) == 200 && sac_clock_ns() - start < 5000000000)
        usleep(1000); /* until they have been read */
    assert_int_equal(post_from("127.0.0.2", 100000), 503);
    assert_int_equal(post_from("127.0.0.3", 100000), 200);
    client_send(fd, some, 1);
    expect_answer(fd, 200, NULL); /* what was let in is served */
    close(fd);
    fd = connect_from("127.0.0.2"); /* more than half, while it comes */
    client_puts(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 700000\r\n\r\n");
    client_send(fd, some, sizeof some);
    expect_answer(fd, 503, NULL);
    close(fd);
    fixture_stop(&fixture);
}

/* Order. */

static void answers_keep_the_order_of_the_requests(void **state)
{
    (void)state;
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 4; i++)
            client_puts(fd, "GET /reverse HTTP/1.1\r\n" HOST "\r\n");
        client_puts(fd, "GET /null HTTP/1.1\r\n" HOST "\r\n");
        expect_answer(fd, 200, "first\n");
        expect_answer(fd, 200, "second\n");
        expect_answer(fd, 200, "third\n");
        expect_answer(fd, 200, "fourth\n");
        expect_answer(fd, 200, "null\n");
    }
    close(fd);
    fixture_stop(&fixture);
}

static void a_deep_pipeline_is_bounded_and_answered_in_full(void **state)
{
    static const char request[] = "GET /null HTTP/1.1\r\n" HOST "\r\n";
    const struct sac_http_options options = {.limits = {.pipelined_max = 4}};
    size_t count = 5000, size = sizeof request - 1;
    char *all = malloc(count * size);

    (void)state;
    assert_non_null(all);
    for (size_t i = 0; i < count; i++)
        memcpy(all + i * size, request, size);
    fixture_start(&fixture, &options);
    int fd = client_connect(&fixture);
    client_puts(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    struct sender sender = {fd, all, count * size};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_all, &sender), 0);
    assert_true(fixture_await(&fixture.held, 1));
    usleep(50000);
    struct sac_http_counters counters;
    sac_http_server_counters(fixture.server, &counters);
    assert_int_equal(counters.requests_in_flight, 4);
    fixture_release(&fixture);
    expect_answer(fd, 200, "held\n");
    for (size_t i = 0; i < count; i++)
        expect_answer(fd, 200, "null\n");
    pthread_join(thread, NULL);
    close(fd);
    free(all);
    fixture_stop(&fixture);
}

static void answers_before_a_refusal_are_still_given(void **state)
{
    (void)state;
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    client_puts(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\nGET  / HTTP/1.1\r\n\r\n"
                    "GET /canary HTTP/1.1\r\n" HOST "\r\n");
    assert_true(fixture_await(&fixture.held, 1));
    fixture_release(&fixture);
    expect_answer(fd, 200, "held\n");
    expect_answer(fd, 400, NULL);
    char *rest = client_read_all(fd, NULL);
    assert_non_null(rest);
    assert_string_equal(rest, "");
    free(rest);
    close(fd);
    assert_int_equal(atomic_load(&fixture.canaries), 0);
    fixture_stop(&fixture);
}

/* Time. */

static uint64_t elapsed_ms(uint64_t since_ns)
{
    return (sac_clock_ns() - since_ns) / 1000000;
}

/* Sends `text`, then `drip` every 20 ms; the status that ends it, and when. */
static int wait_for_end(const char *text, const char *drip, uint64_t *ret_ms)
{
    int fd = client_connect(&fixture), status = 0;
    uint64_t start = sac_clock_ns();
    char byte;

    client_puts(fd, text);
    for (int i = 0; i < 400 && drip && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0; i++) {
        client_puts(fd, drip);
        usleep(20000);
    }
    char *all = client_read_all(fd, NULL);
    *ret_ms = elapsed_ms(start);
    close(fd);
    assert_non_null(all);
    sscanf(all, "HTTP/1.1 %d", &status);
    assert_true(count_answers(all) <= 1);
    free(all);
    return status;
}

static void slow_clients_meet_a_deadline(void **state)
{
    const struct sac_http_options options = {.limits = {.header_deadline_ms = 300,
                                                        .body_deadline_ms = 900,
                                                        .body_rate_bytes_min = 100,
                                                        .idle_ms = 500}};
    uint64_t ms;

    (void)state;
    fixture_start(&fixture, &options);
    assert_int_equal(wait_for_end("GET /null HT", NULL, &ms), 408);
    assert_in_range(ms, 290, 2000);
    assert_int_equal(wait_for_end("GET /null HTTP/1.1\r\n", "A: b\r\n", &ms), 408);
    assert_in_range(ms, 290, 2000);
    /* 50 bytes a second are below the rate after a third of 900 ms. */
    assert_int_equal(
        wait_for_end("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5000\r\n\r\n", "b", &ms), 408);
    assert_in_range(ms, 290, 880);
    /* 500 a second are not, and meet the deadline. */
    assert_int_equal(wait_for_end("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5000\r\n\r\n",
                                  "0123456789", &ms),
                     408);
    assert_in_range(ms, 890, 3000);
    assert_int_equal(wait_for_end("POST /echo HTTP/1.1\r\n" HOST
                                  "Transfer-Encoding: chunked\r\n\r\n1000\r\n",
                                  "0123456789", &ms),
                     408);
    assert_in_range(ms, 890, 3000);
    /* Idle: without a word, before and after a request. */
    assert_int_equal(wait_for_end("", NULL, &ms), 0);
    assert_in_range(ms, 490, 2000);
    assert_int_equal(wait_for_end("GET /null HTTP/1.1\r\n" HOST "\r\n", NULL, &ms), 200);
    assert_in_range(ms, 490, 2000);
    /* A handler may take longer than any of these. */
    int fd = client_connect(&fixture);
    client_puts(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    usleep(1200000);
    fixture_release(&fixture);
    expect_answer(fd, 200, "held\n");
    close(fd);
    fixture_stop(&fixture);
}

static void a_client_that_does_not_read_is_closed(void **state)
{
    const struct sac_http_options options = {.limits = {.write_stall_ms = 300}};

    (void)state;
    fixture_start(&fixture, &options);
    int fd = client_connect(&fixture);
    for (int i = 0; i < 8; i++)
        client_puts(fd, "GET /large-static HTTP/1.1\r\n" HOST "\r\n");
    assert_true(fixture_await_quiet(&fixture));
    close(fd);
    fixture_stop(&fixture);
}

/* Numbers. */

static void connections_of_one_address_are_bounded(void **state)
{
    const struct sac_http_options options = {.limits = {.connections_per_address_max = 3}};
    struct sac_http_counters counters;
    int fds[3];

    (void)state;
    fixture_start(&fixture, &options);
    for (int i = 0; i < 3; i++) {
        fds[i] = client_connect(&fixture);
        client_puts(fds[i], "GET /null HTTP/1.1\r\n" HOST "\r\n");
        expect_answer(fds[i], 200, NULL);
    }
    int more = client_connect(&fixture);
    char *text = client_read_all(more, NULL);
    assert_non_null(text);
    assert_non_null(strstr(text, "HTTP/1.1 503 "));
    assert_non_null(strstr(text, "Retry-After: 1\r\n"));
    const char *body = strstr(text, "\r\n\r\n") + 4, *length = strstr(text, "Content-Length: ");
    assert_int_equal(strtoul(length + 16, NULL, 10), strlen(body));
    free(text);
    close(more);
    close(fds[0]);
    usleep(50000);
    more = client_connect(&fixture);
    client_puts(more, "GET /null HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(more, 200, NULL);
    sac_http_server_counters(fixture.server, &counters);
    assert_int_equal(counters.connections_refused, 1);
    assert_int_equal(counters.connections_accepted, 4);
    close(more);
    close(fds[1]);
    close(fds[2]);
    fixture_stop(&fixture);
}

static void connections_in_all_are_bounded(void **state)
{
    const struct sac_http_options options = {.limits = {.connections_max = 2}};
    int fds[2];

    (void)state;
    fixture_start(&fixture, &options);
    for (int i = 0; i < 2; i++)
        fds[i] = client_connect(&fixture);
    int more = client_connect(&fixture);
    char *text = client_read_all(more, NULL);
    assert_non_null(text);
    assert_non_null(strstr(text, "HTTP/1.1 503 "));
    free(text);
    close(more);
    for (int i = 0; i < 2; i++)
        close(fds[i]);
    fixture_stop(&fixture);
}

/* With no descriptor left the listener rests and serves again once there are
 * some, without spinning meanwhile. */
static void running_out_of_descriptors_is_survived(void **state)
{
    struct rlimit before, few;
    int fd;

    (void)state;
    fixture_start(&fixture, NULL);
    expect_service();
    assert_true(fixture_await_quiet(&fixture));
    fd = client_connect(&fixture);
    client_puts(fd, "GET /null HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(fd, 200, NULL);
    int waiting = client_connect(&fixture); /* opened before the limit falls */
    client_puts(waiting, "GET /null HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(waiting, 200, NULL);
    int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(fixture.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = 4;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(connect(late, (struct sockaddr *)&address, sizeof address), 0);
    client_puts(late, "GET /null HTTP/1.1\r\n" HOST "\r\n");
    struct timespec cpu[2];
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[0]);
    usleep(500000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[1]);
    client_puts(fd, "GET /null HTTP/1.1\r\n" HOST "\r\n"); /* others are served */
    expect_answer(fd, 200, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    expect_answer(late, 200, NULL);
    int64_t used_ms =
        (cpu[1].tv_sec - cpu[0].tv_sec) * 1000 + (cpu[1].tv_nsec - cpu[0].tv_nsec) / 1000000;
    assert_in_range(used_ms, 0, 100);
    close(late);
    close(waiting);
    close(fd);
    fixture_stop(&fixture);
}

/* Going away. */

static void a_client_that_goes_away_is_told_once(void **state)
{
    struct sac_http_counters counters;

    (void)state;
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    for (int i = 0; i < 3; i++)
        client_puts(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_true(fixture_await(&fixture.held, 3));
    shutdown(fd, SHUT_WR); /* the writing half is enough */
    assert_true(fixture_await(&fixture.gone, 3));
    char *text = client_read_all(fd, NULL);
    assert_non_null(text);
    assert_string_equal(text, "");
    free(text);
    close(fd);
    assert_true(fixture_await_quiet(&fixture));
    fixture_release(&fixture); /* dropped */
    sac_http_server_counters(fixture.server, &counters);
    assert_int_equal(counters.clients_gone, 3);
    assert_int_equal(atomic_load(&fixture.gone), 3);
    fixture_stop(&fixture);
}

/* Closed connections may still wait to be accepted. */
static void await_accepted(uint64_t count)
{
    struct sac_http_counters counters;

    do
        sac_http_server_counters(fixture.server, &counters);
    while (counters.connections_accepted < count && usleep(1000) == 0);
}

/* A thousand clients that leave at any stage; SO_LINGER 0 makes every other one
 * a reset. */
static void clients_that_leave_anywhere_cost_nothing(void **state)
{
    static const char *const stages[] = {
        "",
        "GET /nu",
        "GET /null HTTP/1.1\r\nHost: local",
        "GET /null HTTP/1.1\r\n" HOST "\r\n",
        "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "GET /hold HTTP/1.1\r\n" HOST "\r\n",
        "GET /hold HTTP/1.1\r\n" HOST "\r\nGET /null HTTP/1.1\r\n" HOST "\r\nGET /nu",
        "GET /large HTTP/1.1\r\n" HOST "\r\nGET /large-static HTTP/1.1\r\n" HOST "\r\n",
        "GET  /null",
        "BAD\r\n\r\n",
    };
    const struct linger reset = {1, 0};

    (void)state;
    fixture_start(&fixture, NULL);
    expect_service(); /* libuv opens its spare descriptor with the first connection */
    assert_true(fixture_await_quiet(&fixture));
    int before = descriptors();
    for (int i = 0; i < 1000; i++) {
        int fd = client_connect(&fixture);
        client_puts(fd, stages[i % 12]);
        if (i % 5 == 0)
            usleep(300);
        if (i / 12 % 2)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
        if (i % 100 == 50)
            fixture_release(&fixture); /* replies race with the closing */
    }
    await_accepted(1001);
    assert_true(fixture_await_quiet(&fixture));
    fixture_release(&fixture);
    assert_int_equal(descriptors(), before);
    expect_service();
    fixture_stop(&fixture);
}

/* Whatever the order of the client's leaving and the reply, on_gone does not
 * run after the reply has returned. The sanitizers see it if it does. */
static void leaving_and_replying_may_meet(void **state)
{
    (void)state;
    fixture_start(&fixture, NULL);
    for (int i = 0; i < 1000; i++) {
        int fd = client_connect(&fixture);
        client_puts(fd, "GET /race HTTP/1.1\r\n" HOST "\r\n");
        client_puts(fd, "GET /race HTTP/1.1\r\n" HOST "\r\n");
        usleep((useconds_t)(i * 7 % 400));
        close(fd);
    }
    await_accepted(1000);
    assert_true(fixture_await_quiet(&fixture));
    assert_true(fixture_await(&fixture.racing, 0));
    assert_true(atomic_load(&fixture.gone) > 0);
    expect_service();
    fixture_stop(&fixture);
}

/* Stopping. */

static void *stop_server(void *user)
{
    sac_http_server_stop(user, 3000);
    return NULL;
}

static void stopping_answers_what_was_accepted(void **state)
{
    struct answer answer;
    int idle, half, held;

    (void)state;
    fixture_start(&fixture, NULL);
    idle = client_connect(&fixture);
    client_puts(idle, "GET /null HTTP/1.1\r\n" HOST "\r\n");
    expect_answer(idle, 200, NULL);
    half = client_connect(&fixture);
    client_puts(half, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\na");
    held = client_connect(&fixture);
    client_puts(held, "GET /hold HTTP/1.1\r\n" HOST "\r\nGET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_true(fixture_await(&fixture.held, 2));
    usleep(20000);
    stop_server(fixture.server);
    stop_server(fixture.server); /* changes nothing */
    char *text = client_read_all(idle, NULL);
    assert_non_null(text);
    assert_string_equal(text, "");
    free(text);
    client_puts(half, "bc");
    answer = client_read(half, false);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.body, "abc");
    assert_non_null(strstr(answer.head, "Connection: close\r\n"));
    answer_done(&answer);
    client_puts(held, "GET /canary HTTP/1.1\r\n" HOST "\r\n"); /* too late */
    usleep(20000);
    fixture_release(&fixture);
    expect_answer(held, 200, "held\n");
    answer = client_read(held, false);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "Connection: close\r\n"));
    answer_done(&answer);
    text = client_read_all(held, NULL);
    assert_non_null(text);
    assert_string_equal(text, "");
    free(text);
    close(idle);
    close(half);
    close(held);
    fixture_stop(&fixture);
    assert_int_equal(atomic_load(&fixture.canaries), 0);
}

static void stopping_ends_at_its_deadline(void **state)
{
    uint64_t start;

    (void)state;
    fixture_start(&fixture, NULL);
    int fd = client_connect(&fixture);
    client_puts(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_true(fixture_await(&fixture.held, 1));
    start = sac_clock_ns();
    sac_http_server_stop(fixture.server, 200);
    assert_true(fixture_await(&fixture.gone, 1));
    assert_in_range(elapsed_ms(start), 190, 2000);
    close(fd);
    fixture_stop(&fixture); /* its release replies when run has returned */
}

static _Atomic int delivered;

static void count_delivery(struct sac_http_mail *mail)
{
    (void)mail;
    atomic_fetch_add(&delivered, 1);
}

/* Sends itself until there have been 500. */
static void deliver_again(struct sac_http_mail *mail)
{
    if (atomic_fetch_add(&delivered, 1) < 499)
        sac_http_server_mail(fixture.server, mail);
}

static void mail_is_delivered_once_and_may_then_be_sent_again(void **state)
{
    static struct sac_http_mail mails[1000], again = {.deliver = deliver_again};

    (void)state;
    atomic_store(&delivered, 0);
    fixture_start(&fixture, NULL);
    for (int i = 0; i < 1000; i++) {
        mails[i].deliver = count_delivery;
        sac_http_server_mail(fixture.server, &mails[i]);
    }
    assert_true(fixture_await(&delivered, 1000));
    atomic_store(&delivered, 0);
    sac_http_server_mail(fixture.server, &again);
    assert_true(fixture_await(&delivered, 500));
    sac_http_server_stop(fixture.server, 0);
    usleep(50000);
    sac_http_server_mail(fixture.server, &mails[0]);
    fixture_stop(&fixture); /* delivers the late one */
    assert_int_equal(atomic_load(&delivered), 501);
}

static void a_host_that_was_good_lets_no_other_in(void **state)
{
    static const struct {
        const char *host;
        int status;
    } hosts[] = {{"localhost", 200}, {"localhosu", 421},  {"localhost", 200}, {"localhost.", 421},
                 {"", 400},          {"local:host", 400}, {"127.0.0.1", 200}, {"127.0.0.1:8", 200}};
    char head[128];

    (void)state;
    fixture_start(&fixture, NULL);
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        int fd = client_connect(&fixture);
        snprintf(head, sizeof head, "GET /tell HTTP/1.1\r\nHost: %s\r\n\r\n", hosts[i].host);
        client_puts(fd, head);
        expect_answer(fd, hosts[i].status, NULL);
        close(fd);
    }
    fixture_stop(&fixture);
}

static void beyond_loopback_any_host_is_answered(void **state)
{
    static const char *const addresses[] = {"0.0.0.0", "::"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        if (i == 1 && access("/proc/net/if_inet6", F_OK) != 0)
            break; /* no IPv6 on this machine */
        const struct sac_http_options options = {.host = addresses[i]};
        fixture_start(&fixture, &options);
        int fd = client_connect(&fixture);
        client_puts(fd, "GET /tell HTTP/1.1\r\nHost: pictures.example\r\n\r\n");
        expect_answer(fd, 200, "GET /tell query=0:- header= body=0 peer=127.0.0.1 timed=1\n");
        close(fd);
        fixture_stop(&fixture);
    }
}

static void an_address_that_cannot_be_bound_is_named(void **state)
{
    struct sac_http_server *server = NULL;
    struct sac_error err = {0};
    struct sac_http_options options = {.host = "192.0.2.1", .port = 80};

    (void)state;
    assert_int_not_equal(sac_http_server_new(&server, &options, &err), 0);
    assert_says(err, "192.0.2.1");
    assert_null(server);
    err = (struct sac_error){0};
    options = (struct sac_http_options){.host = "127.0.0.1", .port = 70000};
    assert_int_equal(sac_http_server_new(&server, &options, &err), SAC_EINVAL);
    assert_says(err, "70000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handler_sees_what_was_sent),
        cmocka_unit_test(head_is_get_without_the_body),
        cmocka_unit_test(answers_say_when_they_were_made),
        cmocka_unit_test(errors_are_json_and_a_503_says_when_to_retry),
        cmocka_unit_test(http_1_0_keeps_alive_when_asked),
        cmocka_unit_test(continue_is_sent_once_the_head_has_passed),
        cmocka_unit_test(continue_is_not_sent_for_a_body_that_is_refused),
        cmocka_unit_test(continue_waits_for_the_answers_before_it),
        cmocka_unit_test(large_bodies_arrive_whole),
        cmocka_unit_test(many_requests_of_every_kind_are_cut_anywhere),
        cmocka_unit_test(a_head_that_is_known_lets_no_other_in),
        cmocka_unit_test(a_head_that_is_known_may_be_cut_and_pipelined),
        cmocka_unit_test(large_answers_leave_whole_behind_small_ones),
        cmocka_unit_test(bodies_held_at_once_are_bounded),
        cmocka_unit_test(bodies_that_are_only_declared_deny_nobody),
        cmocka_unit_test(one_address_has_half_of_the_bodies),
        cmocka_unit_test(answers_keep_the_order_of_the_requests),
        cmocka_unit_test(a_deep_pipeline_is_bounded_and_answered_in_full),
        cmocka_unit_test(answers_before_a_refusal_are_still_given),
        cmocka_unit_test(slow_clients_meet_a_deadline),
        cmocka_unit_test(a_client_that_does_not_read_is_closed),
        cmocka_unit_test(connections_of_one_address_are_bounded),
        cmocka_unit_test(connections_in_all_are_bounded),
        cmocka_unit_test(running_out_of_descriptors_is_survived),
        cmocka_unit_test(a_client_that_goes_away_is_told_once),
        cmocka_unit_test(clients_that_leave_anywhere_cost_nothing),
        cmocka_unit_test(leaving_and_replying_may_meet),
        cmocka_unit_test(stopping_answers_what_was_accepted),
        cmocka_unit_test(stopping_ends_at_its_deadline),
        cmocka_unit_test(mail_is_delivered_once_and_may_then_be_sent_again),
        cmocka_unit_test(a_host_that_was_good_lets_no_other_in),
        cmocka_unit_test(beyond_loopback_any_host_is_answered),
        cmocka_unit_test(an_address_that_cannot_be_bound_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
