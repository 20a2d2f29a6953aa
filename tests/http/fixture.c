#include "fixture.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define HELD_MAX 4096

static pthread_t loop_thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sac_http_request *held[HELD_MAX]; /* under lock */
static int held_count;                          /* under lock */
static struct sac_http_request *reversed[4];    /* loop thread */
static int reversed_count;
static char large[FIXTURE_LARGE];
static char odd_path[64];

static void reply_text(struct sac_http_request *request, const char *text)
{
    sac_http_reply(request, &(struct sac_http_response){.status = 200,
                                                        .content_type = "text/plain",
                                                        .body = text,
                                                        .body_size = strlen(text)});
}

static void on_null(struct sac_http_request *request, void *user)
{
    (void)user;
    reply_text(request, "null\n");
}

static void on_canary(struct sac_http_request *request, void *user)
{
    struct fixture *fixture = user;

    atomic_fetch_add(&fixture->canaries, 1);
    reply_text(request, "canary\n");
}

static void on_echo(struct sac_http_request *request, void *user)
{
    struct fixture *fixture = user;
    struct sac_http_text body = sac_http_request_body(request);

    atomic_fetch_add(&fixture->echoes, 1);
    sac_http_reply(request, &(struct sac_http_response){.status = 200,
                                                        .content_type = "application/octet-stream",
                                                        .body = body.at,
                                                        .body_size = body.size});
}

static void on_gone(struct sac_http_request *request, void *user)
{
    struct fixture *fixture = user;

    (void)request;
    atomic_fetch_add(&fixture->gone, 1);
}

static void on_hold(struct sac_http_request *request, void *user)
{
    struct fixture *fixture = user;

    sac_http_request_on_gone(request, on_gone, fixture);
    pthread_mutex_lock(&lock);
    assert_true(held_count < HELD_MAX);
    held[held_count++] = request;
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&fixture->held, 1);
}

void fixture_release(struct fixture *fixture)
{
    struct sac_http_request *mine[HELD_MAX];
    int count;

    pthread_mutex_lock(&lock);
    count = held_count;
    memcpy(mine, held, sizeof(held[0]) * (size_t)count);
    held_count = 0;
    pthread_mutex_unlock(&lock);
    atomic_fetch_sub(&fixture->held, count);
    for (int i = 0; i < count; i++)
        reply_text(mine[i], "held\n");
}

static void *answer_reversed(void *user)
{
    struct sac_http_request **requests = user;

    for (int i = 3; i >= 0; i--) {
        char text[64];
        const struct timespec pause = {0, 5000000};
        snprintf(text, sizeof text, "%s\n", (const char *)sac_http_request_user(requests[i]));
        reply_text(requests[i], text);
        nanosleep(&pause, NULL);
    }
    free(requests);
    return NULL;
}

static void on_reverse(struct sac_http_request *request, void *user)
{
    static const char *const names[4] = {"first", "second", "third", "fourth"};
    pthread_t thread;

    (void)user;
    sac_http_request_set_user(request, (void *)(uintptr_t)names[reversed_count]);
    reversed[reversed_count++] = request;
    if (reversed_count < 4)
        return;
    reversed_count = 0;
    void *copy = malloc(sizeof reversed);
    assert_non_null(copy);
    memcpy(copy, reversed, sizeof reversed);
    assert_int_equal(pthread_create(&thread, NULL, answer_reversed, copy), 0);
    pthread_detach(thread);
}

static void on_large(struct sac_http_request *request, void *user)
{
    (void)user;
    bool is_static = strcmp(sac_http_request_path(request), "/large-static") == 0;
    sac_http_reply(request, &(struct sac_http_response){.status = 200,
                                                        .content_type = "text/plain",
                                                        .body = large,
                                                        .body_size = sizeof large,
                                                        .body_static = is_static,
                                                        .headers = "X-Large: yes\r\n"});
}

static void on_tell(struct sac_http_request *request, void *user)
{
    char text[512], value[16] = "-";
    struct sac_http_text header = sac_http_request_header(request, "x-Word");
    size_t taken;

    (void)user;
    bool has = sac_http_request_query(request, "topk", value, sizeof value);
    free(sac_http_request_take_body(request, &taken));
    snprintf(text, sizeof text, "%s %s query=%d:%s header=%.*s body=%zu peer=%s timed=%d\n",
             sac_http_request_method(request), sac_http_request_path(request), has, value,
             (int)header.size, header.at ? header.at : "", taken, sac_http_request_peer(request),
             sac_http_request_complete_ns(request) >= sac_http_request_started_ns(request) &&
                 sac_http_request_started_ns(request) > 0);
    reply_text(request, text);
}

static void on_teapot(struct sac_http_request *request, void *user)
{
    (void)user;
    sac_http_reply_error(request, 503, "full of \"<tea>\" %d", 7);
}

static void on_odd(struct sac_http_request *request, void *user)
{
    (void)user;
    snprintf(odd_path, sizeof odd_path, "%s", sac_http_request_path(request));
    sac_http_reply(request, &(struct sac_http_response){.status = 299, .body = "", .body_size = 0});
}

struct race {
    struct sac_http_request *request;
    struct fixture *fixture;
    int told;
};

static void race_gone(struct sac_http_request *request, void *user)
{
    struct race *race = user;

    (void)request;
    race->told++; /* freed memory, if this ran after the reply */
    atomic_fetch_add(&race->fixture->gone, 1);
}

static void *race_reply(void *user)
{
    struct race *race = user;
    struct fixture *fixture = race->fixture;
    const struct timespec pause = {0, (long)((uintptr_t)race / 16 % 400 * 1000)};

    nanosleep(&pause, NULL);
    reply_text(race->request, "raced\n");
    assert_in_range(race->told, 0, 1);
    free(race);
    atomic_fetch_sub(&fixture->racing, 1);
    return NULL;
}

static void on_race(struct sac_http_request *request, void *user)
{
    struct fixture *fixture = user;
    struct race *race = malloc(sizeof *race);
    pthread_t thread;

    assert_non_null(race);
    *race = (struct race){request, fixture, 0};
    atomic_fetch_add(&fixture->racing, 1);
    sac_http_request_on_gone(request, race_gone, race);
    assert_int_equal(pthread_create(&thread, NULL, race_reply, race), 0);
    pthread_detach(thread);
}

static void *run(void *user)
{
    struct fixture *fixture = user;
    struct sac_error err = {0};

    return (void *)(intptr_t)sac_http_server_run(fixture->server, &err);
}

void fixture_start(struct fixture *fixture, const struct sac_http_options *options)
{
    static struct sac_http_route routes[20];
    const struct sac_http_route table[] = {
        {"GET", "/null", on_null, fixture, 0},
        {"GET", "/canary", on_canary, fixture, 0},
        {"POST", "/echo", on_echo, fixture, 0},
        {"POST", "/small", on_echo, fixture, 10},
        {"GET", "/hold", on_hold, fixture, 0},
        {"POST", "/hold", on_hold, fixture, 0},
        {"GET", "/reverse", on_reverse, fixture, 0},
        {"GET", "/race", on_race, fixture, 0},
        {"GET", "/large", on_large, fixture, 0},
        {"GET", "/large-static", on_large, fixture, 0},
        {"GET", "/prefix/*", on_null, fixture, 0},
        {"GET", "/prefix/longer/*", on_odd, fixture, 0},
        {"GET", "/tell", on_tell, fixture, 0},
        {"POST", "/tell", on_tell, fixture, 0},
        {"GET", "/teapot", on_teapot, fixture, 0},
        {"GET", "/\xc3\xa4 b", on_odd, fixture, 0},
    };
    struct sac_http_options mine = options ? *options : (struct sac_http_options){0};
    struct sac_error err = {0};

    memcpy(routes, table, sizeof table);
    *fixture = (struct fixture){0};
    held_count = reversed_count = 0;
    memset(large, 'x', sizeof large);
    mine.host = mine.host ? mine.host : "127.0.0.1";
    mine.routes = routes;
    mine.route_count = sizeof table / sizeof *table;
    if (mine.limits.connections_per_address_max == 0)
        mine.limits.connections_per_address_max = 1024;
    assert_ok(sac_http_server_new(&fixture->server, &mine, &err), err);
    fixture->port = sac_http_server_port(fixture->server);
    assert_int_equal(pthread_create(&loop_thread, NULL, run, fixture), 0);
}

void fixture_stop(struct fixture *fixture)
{
    void *rc;

    fixture_release(fixture);
    sac_http_server_stop(fixture->server, 5000);
    pthread_join(loop_thread, &rc);
    assert_null(rc);
    fixture_release(fixture);
    sac_http_server_free(fixture->server);
}

static void pause_ms(int ms)
{
    const struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};

    nanosleep(&pause, NULL);
}

bool fixture_await(_Atomic int *value, int wanted)
{
    for (int i = 0; i < 1000 && atomic_load(value) != wanted; i++)
        pause_ms(5);
    return atomic_load(value) == wanted;
}

bool fixture_await_quiet(struct fixture *fixture)
{
    struct sac_http_counters counters;

    for (int i = 0; i < 1000; i++) {
        sac_http_server_counters(fixture->server, &counters);
        if (counters.connections_open == 0 && counters.requests_in_flight == 0)
            return true;
        pause_ms(5);
    }
    return false;
}

int client_connect(const struct fixture *fixture)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(fixture->port)};
    const struct timeval patience = {10, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    assert_true(fd >= 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

void client_send(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;

    while (size > 0) {
        ssize_t count = send(fd, at, size, MSG_NOSIGNAL);
        if (count <= 0)
            return; /* refused early: the answer tells */
        at += count;
        size -= (size_t)count;
    }
}

void client_puts(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

void client_drip(int fd, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        client_send(fd, (const char *)bytes + i, 1);
}

struct answer client_read(int fd, bool head_only)
{
    struct answer answer = {0};
    size_t used = 0;

    while (used + 1 < sizeof answer.head && recv(fd, answer.head + used, 1, 0) == 1) {
        answer.head[++used] = '\0';
        if (used >= 4 && strcmp(answer.head + used - 4, "\r\n\r\n") == 0)
            break;
    }
    if (sscanf(answer.head, "HTTP/1.1 %d", &answer.status) != 1)
        return answer;
    const char *length = strstr(answer.head, "Content-Length: ");
    answer.body_size = length && !head_only ? strtoul(length + 16, NULL, 10) : 0;
    answer.body = calloc(1, answer.body_size + 1);
    assert_non_null(answer.body);
    if (answer.body_size > 0 &&
        recv(fd, answer.body, answer.body_size, MSG_WAITALL) != (ssize_t)answer.body_size)
        answer.status = 0;
    return answer;
}

void answer_done(struct answer *answer)
{
    free(answer->body);
    answer->body = NULL;
}

char *client_read_all(int fd, size_t *ret_size)
{
    size_t used = 0, capacity = 65536;
    char *text = malloc(capacity);
    ssize_t count;

    assert_non_null(text);
    while ((count = recv(fd, text + used, capacity - used - 1, 0)) > 0) {
        used += (size_t)count;
        if (capacity - used < 2) {
            text = realloc(text, capacity *= 2);
            assert_non_null(text);
        }
    }
    text[used] = '\0';
    if (ret_size)
        *ret_size = used;
    if (count < 0) {
        free(text);
        return NULL;
    }
    return text;
}

int count_answers(const char *text)
{
    int count = 0;

    for (const char *at = text; (at = strstr(at, "HTTP/1.1 ")); at++)
        count += at[9] >= '1' && at[9] <= '5'; /* a sentence may name the version */
    return count;
}
