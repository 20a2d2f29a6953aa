#include "http/internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"

#define NS_PER_MS UINT64_C(1000000)
/* Connections taken in one turn of the loop, so that others get theirs. */
#define ACCEPT_MAX 64
/* Descriptors left to the rest of the program. */
#define SPARE_DESCRIPTORS 64
#define TICK_MS_MAX 250
#define TICK_MS_MIN 10

/* The server whose loop runs on this thread. */
static _Thread_local const struct sac_http_server *running;

bool sac_server_is_running_here(const struct sac_http_server *server)
{
    return running == server;
}

void sac_server_set_clock(struct sac_http_server *server)
{
    server->now_ns = sac_clock_ns();
    server->now_is_stale = false;
}

void sac_server_look_at_clock(struct sac_http_server *server)
{
    if (server->now_is_stale)
        sac_server_set_clock(server);
}

/* The loop is about to wait. */
static void on_turn(uv_prepare_t *turn)
{
    struct sac_http_server *server = turn->data;

    server->now_is_stale = true;
}

static void on_turned(uv_check_t *turned)
{
    sac_conn_flush_dirty(turned->data);
}

/* Mail for the loop. Not by uv_async_send, which writes to the loop and only then says that
 * it has: a loop that takes the writer's core at once spins until the writer runs again. */

static void wake(const struct sac_http_server *server)
{
    const uint64_t one = 1;
    ssize_t written = write(server->wake_fd, &one, sizeof one);

    (void)written; /* fails only where the count is at its end: the loop has yet to read it */
}

void sac_http_server_mail(struct sac_http_server *server, struct sac_http_mail *mail)
{
    struct sac_http_mail *newest = atomic_load_explicit(&server->mailbox, memory_order_relaxed);

    do
        mail->next = newest;
    while (!atomic_compare_exchange_weak_explicit(&server->mailbox, &newest, mail,
                                                  memory_order_release, memory_order_relaxed));
    if (!newest) /* else somebody has woken the loop already */
        wake(server);
}

static void read_mail(struct sac_http_server *server)
{
    struct sac_http_mail *mail =
        atomic_exchange_explicit(&server->mailbox, NULL, memory_order_acquire);
    struct sac_http_mail *oldest = NULL;

    while (mail) {
        struct sac_http_mail *next = mail->next;
        mail->next = oldest;
        oldest = mail;
        mail = next;
    }
    while (oldest) {
        struct sac_http_mail *next = oldest->next;
        oldest->deliver(oldest); /* may free it */
        oldest = next;
    }
    sac_conn_flush_dirty(server);
}

/* Accepting. */

static void refuse_connection(struct sac_http_server *server, int fd)
{
    static const char busy[] = "HTTP/1.1 503 Service Unavailable\r\n"
                               "Content-Type: application/json\r\n"
                               "Content-Length: 34\r\n"
                               "Connection: close\r\n"
                               "Retry-After: 1\r\n"
                               "\r\n"
                               "{\"error\":\"too many connections\"}\r\n";

    /* Best effort: what the client has sent already would reset the answer. */
    while (recv(fd, server->read_buffer, SAC_READ_BYTES, MSG_DONTWAIT) == SAC_READ_BYTES)
        ;
    if (send(fd, busy, sizeof busy - 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        shutdown(fd, SHUT_WR);
    close(fd);
    sac_count(server->counters.refused, 1);
}

static int count_of_address(const struct sac_http_server *server, uint64_t address)
{
    int count = 0;
    uint32_t index = (uint32_t)(address * UINT64_C(0x9e3779b97f4a7c15) >> 32);

    for (const struct sac_conn *conn = server->buckets[index & server->bucket_mask]; conn;
         conn = conn->bucket_next)
        count += conn->address == address;
    return count;
}

static void take_connection(struct sac_http_server *server, int fd, const struct sockaddr *address)
{
    const struct sac_http_limits *limits = &server->limits;

    if (server->conn_count >= limits->connections_max ||
        count_of_address(server, sac_address_key(address)) >= limits->connections_per_address_max) {
        refuse_connection(server, fd);
        return;
    }
    sac_count(server->counters.accepted, 1);
    sac_conn_open(server, fd, address);
}

/* Without descriptors the listener would be ready for ever: it rests until the
 * next tick. */
static void pause_accepting(struct sac_http_server *server)
{
    uv_poll_stop(&server->listener);
    server->accept_paused = true;
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct sac_http_server *server = poll->data;

    (void)status, (void)events;
    sac_server_look_at_clock(server);
    for (int i = 0; i < ACCEPT_MAX; i++) {
        struct sockaddr_storage address = {0};
        socklen_t size = sizeof address;
        int fd = accept4(server->listen_fd, (struct sockaddr *)&address, &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_connection(server, fd, (const struct sockaddr *)&address);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(server);
            break;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            break;
        }
    }
    sac_server_set_tick(server);
}

static void resume_accepting(struct sac_http_server *server)
{
    if (!server->accept_paused || server->draining)
        return;
    server->accept_paused = false;
    uv_poll_start(&server->listener, UV_READABLE, on_connection);
}

/* Time. */

static void on_tick(uv_timer_t *timer)
{
    struct sac_http_server *server = timer->data;
    struct sac_conn *next;

    sac_server_set_clock(server);
    bool over = server->draining && server->now_ns >= server->drain_until_ns;
    for (struct sac_conn *conn = server->conns; conn; conn = next) {
        next = conn->next;
        if (over)
            sac_conn_close(conn);
        else
            sac_conn_check(conn);
    }
    sac_conn_flush_dirty(server);
    resume_accepting(server);
    sac_server_set_tick(server);
}

void sac_server_set_tick(struct sac_http_server *server)
{
    bool needed = server->conn_count > 0 || server->accept_paused;

    if (needed == server->ticking)
        return;
    server->ticking = needed;
    if (needed)
        uv_timer_start(&server->tick, on_tick, server->tick_ms, server->tick_ms);
    else
        uv_timer_stop(&server->tick);
}

/* Stopping. */

static void stop_when_empty(struct sac_http_server *server)
{
    if (server->draining && server->conn_count == 0)
        uv_stop(&server->loop);
}

void sac_server_conn_closed(struct sac_http_server *server)
{
    server->conn_count--;
    sac_count(server->counters.open, -1);
    stop_when_empty(server);
}

static void close_listener(struct sac_http_server *server)
{
    if (server->listen_fd < 0)
        return;
    uv_poll_stop(&server->listener);
    close(server->listen_fd);
    server->listen_fd = -1;
    server->accept_paused = false;
}

static void begin_drain(struct sac_http_server *server)
{
    struct sac_conn *next;
    int drain_ms = atomic_load(&server->drain_ms);

    server->draining = true;
    sac_server_set_clock(server);
    server->drain_until_ns = server->now_ns + (uint64_t)(drain_ms > 0 ? drain_ms : 0) * NS_PER_MS;
    close_listener(server);
    for (struct sac_conn *conn = server->conns; conn; conn = next) {
        next = conn->next;
        sac_conn_drain(conn);
    }
    stop_when_empty(server);
}

static void on_wake(uv_poll_t *woken, int status, int events)
{
    struct sac_http_server *server = woken->data;
    uint64_t times;

    (void)status;
    (void)events;
    if (read(server->wake_fd, &times, sizeof times) < 0)
        return; /* nobody has written since */
    sac_server_look_at_clock(server);
    read_mail(server);
    if (atomic_load(&server->stop_requested) && !server->draining)
        begin_drain(server);
    sac_conn_flush_dirty(server);
}

void sac_http_server_stop(struct sac_http_server *server, int drain_ms)
{
    int expected = 0;

    if (atomic_load(&server->stop_requested))
        return;
    atomic_compare_exchange_strong(&server->drain_ms, &expected, drain_ms);
    atomic_store(&server->stop_requested, 1);
    wake(server);
}

/* Making. */

static int limit_or(int value, int otherwise)
{
    return value > 0 ? value : otherwise;
}

static size_t size_or(size_t value, size_t otherwise)
{
    return value > 0 ? value : otherwise;
}

static int descriptors_max(int wanted)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return wanted;
    rlim_t spare = limit.rlim_cur >= 2 * SPARE_DESCRIPTORS ? SPARE_DESCRIPTORS : limit.rlim_cur / 2;
    rlim_t most = limit.rlim_cur > spare ? limit.rlim_cur - spare : 1;
    return (rlim_t)wanted < most ? wanted : (int)most;
}

static void set_limits(struct sac_http_server *server)
{
    struct sac_http_limits *limits = &server->limits;

    *limits = server->options.limits;
    limits->body_bytes_max = size_or(limits->body_bytes_max, 16 << 20);
    limits->bodies_bytes_max = size_or(limits->bodies_bytes_max, 1 << 30);
    limits->header_bytes_max = size_or(limits->header_bytes_max, 16 << 10);
    limits->header_count_max = limit_or(limits->header_count_max, 100);
    limits->line_bytes_max = size_or(limits->line_bytes_max, 8 << 10);
    limits->chunk_count_max = limit_or(limits->chunk_count_max, 65536);
    limits->chunk_extension_bytes_max = size_or(limits->chunk_extension_bytes_max, 16 << 10);
    limits->header_deadline_ms = limit_or(limits->header_deadline_ms, 10000);
    limits->body_deadline_ms = limit_or(limits->body_deadline_ms, 30000);
    limits->body_rate_bytes_min = limit_or(limits->body_rate_bytes_min, 1000);
    limits->write_stall_ms = limit_or(limits->write_stall_ms, 30000);
    limits->idle_ms = limit_or(limits->idle_ms, 15000);
    limits->connections_max = descriptors_max(limit_or(limits->connections_max, 1024));
    limits->connections_per_address_max = limit_or(limits->connections_per_address_max, 128);
    limits->pipelined_max = limit_or(limits->pipelined_max, 16);
}

static int min_of(int a, int b)
{
    return a < b ? a : b;
}

/* A quarter of the shortest wait, so that none is missed by much. */
static uint64_t tick_of(const struct sac_http_limits *limits)
{
    int wait = min_of(min_of(limits->header_deadline_ms, limits->body_deadline_ms),
                      min_of(limits->write_stall_ms, limits->idle_ms));

    return (uint64_t)(wait / 4 < TICK_MS_MIN   ? TICK_MS_MIN
                      : wait / 4 > TICK_MS_MAX ? TICK_MS_MAX
                                               : wait / 4);
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

static int open_socket(const struct addrinfo *info)
{
    int one = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, 1024) == 0)
        return fd;
    int number = errno;
    close(fd);
    errno = number;
    return -1;
}

static void note_address(struct sac_http_server *server)
{
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;

    getsockname(server->listen_fd, (struct sockaddr *)&bound, &size);
    server->loopback = is_loopback((struct sockaddr *)&bound);
    /* The port stands at one place in both families. */
    server->port = ntohs(((struct sockaddr_in *)&bound)->sin_port);
}

static int bind_server(struct sac_http_server *server, struct sac_error *err)
{
    const struct sac_http_options *options = &server->options;
    const char *host = options->host ? options->host : "127.0.0.1";
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE},
                    *infos = NULL;
    char port[16];

    if (options->port < 0 || options->port > 65535)
        return sac_fail(err, SAC_EINVAL, "port %d: expected 0 to 65535", options->port);
    snprintf(port, sizeof port, "%d", options->port);
    int rc = getaddrinfo(host, port, &hints, &infos);
    if (rc != 0)
        return sac_fail(err, SAC_EINVAL, "%s: not an address to listen on: %s", host,
                        gai_strerror(rc));
    for (const struct addrinfo *info = infos; info && server->listen_fd < 0; info = info->ai_next)
        server->listen_fd = open_socket(info);
    int number = errno;
    freeaddrinfo(infos);
    if (server->listen_fd < 0)
        return sac_fail_errno(err, number, "cannot listen on %s port %s", host, port);
    note_address(server);
    return 0;
}

static int make_handles(struct sac_http_server *server, struct sac_error *err)
{
    server->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (server->wake_fd < 0)
        return sac_fail_errno(err, errno, "cannot make the event loop");
    int rc = uv_loop_init(&server->loop);
    server->loop_made = rc == 0;
    if (rc == 0 && (rc = uv_poll_init(&server->loop, &server->wake, server->wake_fd)) == 0)
        server->handles = 1;
    if (rc == 0 && (rc = uv_timer_init(&server->loop, &server->tick)) == 0)
        server->handles = 2;
    if (rc == 0 && (rc = uv_poll_init(&server->loop, &server->listener, server->listen_fd)) == 0)
        server->handles = 3;
    if (rc == 0 && (rc = uv_prepare_init(&server->loop, &server->turn)) == 0)
        server->handles = 4;
    if (rc == 0 && (rc = uv_check_init(&server->loop, &server->turned)) == 0)
        server->handles = 5;
    if (rc != 0)
        return sac_fail(err, SAC_EIO, "cannot make the event loop: %s", uv_strerror(rc));
    server->wake.data = server->tick.data = server->listener.data = server->turn.data =
        server->turned.data = server;
    return 0;
}

static int make_buckets(struct sac_http_server *server, struct sac_error *err)
{
    uint32_t count = 64;

    while (count < (uint32_t)server->limits.connections_max && count < 1u << 20)
        count *= 2;
    server->buckets = calloc(count, sizeof *server->buckets);
    server->bucket_mask = count - 1;
    return server->buckets ? 0 : sac_fail(err, SAC_ENOMEM, "the HTTP server: out of memory");
}

int sac_http_server_new(struct sac_http_server **ret, const struct sac_http_options *options,
                        struct sac_error *err)
{
    struct sac_http_server *server = calloc(1, sizeof *server);
    int rc;

    if (!server)
        return sac_fail(err, SAC_ENOMEM, "the HTTP server: out of memory");
    server->options = *options;
    server->listen_fd = server->wake_fd = -1;
    set_limits(server);
    server->tick_ms = tick_of(&server->limits);
    rc = make_buckets(server, err);
    if (rc == 0)
        rc = sac_routes_make(server, err);
    if (rc == 0)
        rc = bind_server(server, err);
    if (rc == 0)
        rc = make_handles(server, err);
    if (rc == 0) {
        *ret = server;
        server = NULL;
    }
    sac_http_server_free(server);
    return rc;
}

int sac_http_server_port(const struct sac_http_server *server)
{
    return server->port;
}

/* libuv writes without MSG_NOSIGNAL: the signal stays blocked on this thread. */
static void block_sigpipe(sigset_t *ret_before)
{
    sigset_t pipe_only;

    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, ret_before);
}

static void restore_sigpipe(const sigset_t *before)
{
    sigset_t pipe_only;
    const struct timespec now = {0, 0};

    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    if (!sigismember(before, SIGPIPE))
        while (sigtimedwait(&pipe_only, NULL, &now) == SIGPIPE)
            ;
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

int sac_http_server_run(struct sac_http_server *server, struct sac_error *err)
{
    sigset_t before;

    if (server->listen_fd < 0)
        return sac_fail(err, SAC_EINVAL, "the HTTP server has run already");
    int rc = uv_poll_start(&server->wake, UV_READABLE, on_wake);
    if (rc == 0)
        rc = uv_poll_start(&server->listener, UV_READABLE, on_connection);
    if (rc == 0)
        rc = uv_prepare_start(&server->turn, on_turn);
    if (rc == 0)
        rc = uv_check_start(&server->turned, on_turned);
    if (rc != 0)
        return sac_fail(err, SAC_EIO, "cannot listen: %s", uv_strerror(rc));
    block_sigpipe(&before);
    running = server;
    uv_run(&server->loop, UV_RUN_DEFAULT);
    running = NULL;
    restore_sigpipe(&before);
    return 0;
}

void sac_http_server_counters(const struct sac_http_server *server, struct sac_http_counters *ret)
{
#define READ(counter) atomic_load_explicit(&server->counters.counter, memory_order_relaxed)
    *ret = (struct sac_http_counters){
        .connections_accepted = READ(accepted),
        .connections_refused = READ(refused),
        .connections_open = READ(open),
        .requests_in_flight = READ(in_flight),
        .requests = READ(requests),
        .responses_2xx = READ(ok),
        .responses_4xx = READ(client_errors),
        .responses_5xx = READ(server_errors),
        .clients_gone = READ(gone),
    };
#undef READ
}

/* Freeing. */

static void close_handles(struct sac_http_server *server)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&server->wake, (uv_handle_t *)&server->tick,
                              (uv_handle_t *)&server->listener, (uv_handle_t *)&server->turn,
                              (uv_handle_t *)&server->turned};

    for (int i = 0; i < server->handles; i++)
        uv_close(handles[i], NULL);
    if (server->loop_made) {
        uv_run(&server->loop, UV_RUN_DEFAULT);
        uv_loop_close(&server->loop);
    }
}

static void free_spares(struct sac_http_server *server)
{
    while (server->spare_conns) {
        struct sac_conn *conn = server->spare_conns;
        server->spare_conns = conn->next;
        free(conn);
    }
    while (server->spare_requests) {
        struct sac_http_request *request = server->spare_requests;
        server->spare_requests = request->next;
        free(request);
    }
}

void sac_http_server_free(struct sac_http_server *server)
{
    if (!server)
        return;
    running = server; /* what is posted may reply */
    while (server->handles > 0 && atomic_load(&server->mailbox))
        read_mail(server);
    running = NULL;
    /* A late answer would find no server: then its memory is left to it. */
    if (server->unanswered > 0)
        return;
    if (server->listen_fd >= 0 && server->handles >= 3)
        uv_poll_stop(&server->listener);
    close_handles(server);
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    if (server->wake_fd >= 0)
        close(server->wake_fd);
    free_spares(server);
    free(server->buckets);
    free(server->routes);
    free(server);
}
