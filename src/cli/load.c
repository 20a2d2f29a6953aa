#include "cli/load.h"

#include <assert.h>
#include <llhttp.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "cli/arrivals.h"

enum { READ_BYTES = 64 * 1024, SWEEP_MS = 10 };

enum state {
    FREE,       /* no socket */
    CONNECTING, /* with a request that waits for it */
    BUSY,
    IDLE,
    CLOSING,
};

enum outcome { ANSWERED, CONNECT_FAILED, BROKEN, MALFORMED, TIMED_OUT };

struct connection {
    struct load *load;
    enum state state;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    bool writing;
    llhttp_t parser;
    bool complete;      /* the answer is whole */
    bool reusable;      /* and the server keeps the connection */
    uint64_t due_ns;    /* of the request it carries */
    int body;           /* which request it carries */
    uint64_t body_hash; /* of the answer so far (FNV-1a) */
};

/* One request as it goes over the wire, and what its first 2xx answer was. */
struct request {
    struct sac_buf bytes;
    bool answered;
    uint64_t hash;
};

struct load {
    const struct sac_load_options *options;
    struct sac_load_result *result;
    uv_loop_t loop;
    int alarm_fd;
    uv_poll_t alarm;  /* a timerfd: requests are due to the microsecond */
    uv_timer_t sweep; /* time-outs, and the end of a closed loop */
    uv_signal_t interrupt;
    struct sockaddr_storage server;
    struct sockaddr_storage *sources;
    struct request *requests;
    int request_count;
    int next_request;
    bool head_only; /* HEAD: answers have no body */
    struct connection *connections;
    int *idle; /* a stack of indices: the one used last is used next */
    int idle_count;
    int *unconnected;
    int unconnected_count;
    llhttp_settings_t settings;
    /* Two walks over the same times: `coming` is ahead and says when the next
     * request falls due; `begun` follows as they are sent. Between them is the
     * backlog, which so needs no memory. */
    struct sac_arrivals coming, begun;
    uint64_t coming_at, begun_at; /* relative to start_ns */
    uint64_t backlog;
    uint64_t begun_count;
    bool over; /* nothing falls due any more */
    bool finished;
    int in_flight;
    uint64_t start_ns;
    uint64_t last_answer_ns;
    char read_buffer[READ_BYTES];
};

static void dispatch(struct load *load, bool waited);
static void finish_if_done(struct load *load);

/* What is counted: requests that fell due after the warm-up. */
static bool counts(const struct load *load, uint64_t due_ns)
{
    return due_ns >= load->start_ns + load->options->warmup_ns;
}

static void count_answer(struct load *load, const struct connection *connection, uint64_t now)
{
    struct sac_load_result *result = load->result;
    struct request *request = &load->requests[connection->body];
    int status = connection->parser.status_code;
    uint64_t took = now - connection->due_ns;

    result->answered++;
    result->status[status]++;
    if (status == 503) {
        result->refused++;
        sac_histogram_add(&result->refused_latency, took);
    }
    if (status < 200 || status > 299)
        return;
    result->ok++;
    sac_histogram_add(&result->latency, took);
    if (!load->options->slo_ns || took <= load->options->slo_ns)
        result->good++;
    if (!request->answered) {
        request->answered = true;
        request->hash = connection->body_hash;
    } else if (request->hash != connection->body_hash) {
        result->different++;
    }
}

static void count_error(struct sac_load_result *result, enum outcome outcome)
{
    if (outcome == CONNECT_FAILED)
        result->connect_failed++;
    else if (outcome == BROKEN)
        result->broken++;
    else if (outcome == MALFORMED)
        result->malformed++;
    else
        result->timed_out++;
}

static void on_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    struct load *load = connection->load;

    connection->state = FREE;
    load->unconnected[load->unconnected_count++] = (int)(connection - load->connections);
    dispatch(load, true);
}

static void close_connection(struct connection *connection)
{
    assert(connection->state != CLOSING && connection->state != FREE);
    connection->state = CLOSING;
    uv_close((uv_handle_t *)&connection->tcp, on_closed);
}

/* The request's one end: its outcome is counted and the connection is free for
 * the next one, or closed. */
static void end_request(struct connection *connection, enum outcome outcome)
{
    struct load *load = connection->load;
    uint64_t now = sac_clock_ns();

    load->in_flight--;
    if (counts(load, connection->due_ns)) {
        load->result->due++;
        load->last_answer_ns = now;
        if (outcome == ANSWERED)
            count_answer(load, connection, now);
        else
            count_error(load->result, outcome);
    }
    if (outcome == ANSWERED && connection->reusable && !connection->writing) {
        connection->state = IDLE;
        load->idle[load->idle_count++] = (int)(connection - load->connections);
        dispatch(load, true);
    } else {
        close_connection(connection);
    }
    finish_if_done(load);
}

static int on_body(llhttp_t *parser, const char *at, size_t size)
{
    struct connection *connection = parser->data;
    uint64_t hash = connection->body_hash;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)at[i]) * UINT64_C(0x100000001b3);
    connection->body_hash = hash;
    return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct connection *connection = parser->data;

    if (parser->status_code < 100 || parser->status_code > 599)
        return -1;
    return connection->load->head_only ? 1 : 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct connection *connection = parser->data;

    if (parser->status_code < 200)
        return 0; /* 100 Continue and the like: the answer is still to come */
    connection->complete = true;
    connection->reusable = llhttp_should_keep_alive(parser) != 0;
    return HPE_PAUSED;
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    struct connection *connection = handle->data;

    (void)size;
    *buf = uv_buf_init(connection->load->read_buffer, READ_BYTES);
}

/* An idle connection that the server closes, or talks on unasked, is dropped
 * without a word: no request was on it. */
static void drop_idle(struct connection *connection)
{
    struct load *load = connection->load;
    int index = (int)(connection - load->connections);

    for (int i = 0; i < load->idle_count; i++) {
        if (load->idle[i] == index) {
            memmove(&load->idle[i], &load->idle[i + 1],
                    (size_t)(load->idle_count - i - 1) * sizeof load->idle[0]);
            load->idle_count--;
            break;
        }
    }
    close_connection(connection);
}

static void take_bytes(struct connection *connection, const char *at, size_t size)
{
    enum llhttp_errno rc = llhttp_execute(&connection->parser, at, size);

    connection->load->result->bytes_in += size;
    if (connection->complete) {
        if (llhttp_get_error_pos(&connection->parser) != at + size)
            connection->reusable = false;
        end_request(connection, ANSWERED);
    } else if (rc != HPE_OK) {
        end_request(connection, MALFORMED);
    }
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct connection *connection = stream->data;

    if (size == 0 || connection->state == CLOSING)
        return;
    if (connection->state == IDLE) {
        drop_idle(connection);
    } else if (size > 0) {
        take_bytes(connection, buf->base, (size_t)size);
    } else {
        if (size == UV_EOF)
            llhttp_finish(&connection->parser); /* an answer may end with the connection */
        connection->reusable = false;
        end_request(connection, connection->complete ? ANSWERED : BROKEN);
    }
}

static void on_written(uv_write_t *write, int status)
{
    struct connection *connection = write->data;

    connection->writing = false;
    if (status < 0 && connection->state == BUSY)
        end_request(connection, BROKEN);
}

static void send_request(struct connection *connection)
{
    struct load *load = connection->load;
    const struct sac_buf *bytes = &load->requests[connection->body].bytes;
    uv_buf_t buf = uv_buf_init((char *)bytes->data, (unsigned)bytes->len);

    connection->state = BUSY;
    connection->complete = false;
    connection->reusable = false;
    connection->body_hash = UINT64_C(0xcbf29ce484222325);
    llhttp_init(&connection->parser, HTTP_RESPONSE, &load->settings);
    connection->parser.data = connection;
    int sent = uv_try_write((uv_stream_t *)&connection->tcp, &buf, 1);
    if (sent == (int)bytes->len)
        return;
    if (sent > 0) {
        buf.base += sent;
        buf.len -= (size_t)sent;
    }
    connection->write.data = connection;
    if ((sent >= 0 || sent == UV_EAGAIN) &&
        uv_write(&connection->write, (uv_stream_t *)&connection->tcp, &buf, 1, on_written) == 0)
        connection->writing = true;
    else
        end_request(connection, BROKEN);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct connection *connection = connect->data;

    if (connection->state != CONNECTING)
        return; /* given up meanwhile */
    if (status < 0) {
        end_request(connection, CONNECT_FAILED);
        return;
    }
    uv_tcp_nodelay(&connection->tcp, 1);
    if (uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read) == 0)
        send_request(connection);
    else
        end_request(connection, BROKEN);
}

static void open_connection(struct connection *connection)
{
    struct load *load = connection->load;
    const struct sac_load_options *options = load->options;
    int rc = uv_tcp_init(&load->loop, &connection->tcp);

    assert(rc == 0); /* it makes no socket yet */
    connection->tcp.data = connection;
    connection->connect.data = connection;
    connection->state = CONNECTING;
    if (options->source_count > 0) {
        int at = (int)(connection - load->connections) % options->source_count;
        rc = uv_tcp_bind(&connection->tcp, (struct sockaddr *)&load->sources[at], 0);
    }
    if (rc == 0)
        rc = uv_tcp_connect(&connection->connect, &connection->tcp,
                            (struct sockaddr *)&load->server, on_connected);
    if (rc != 0)
        end_request(connection, CONNECT_FAILED);
}

/* Sends the next request on `connection`, FREE or IDLE. */
static void begin_request(struct connection *connection, uint64_t due_ns)
{
    struct load *load = connection->load;

    connection->due_ns = due_ns;
    connection->body = load->next_request;
    load->next_request = (load->next_request + 1) % load->request_count;
    load->in_flight++;
    load->begun_count++;
    if (connection->state == IDLE)
        send_request(connection);
    else
        open_connection(connection);
}

static struct connection *take_connection(struct load *load)
{
    if (load->idle_count > 0)
        return &load->connections[load->idle[--load->idle_count]];
    if (load->unconnected_count > 0)
        return &load->connections[load->unconnected[--load->unconnected_count]];
    return NULL;
}

static bool closed_loop_is_over(const struct load *load, uint64_t now)
{
    const struct sac_load_options *options = load->options;

    return now >= load->start_ns + options->duration_ns ||
           (options->requests_max && load->begun_count >= options->requests_max);
}

/* In a closed loop a connection that failed rests until the next sweep, so that
 * a server that is not there is not hammered: only idle ones go on at once. */
static void dispatch_closed(struct load *load)
{
    while (load->idle_count > 0 && !load->over) {
        uint64_t now = sac_clock_ns();
        if (closed_loop_is_over(load, now))
            load->over = true;
        else
            begin_request(take_connection(load), now);
    }
}

static uint64_t take_backlog(struct load *load)
{
    uint64_t due_ns = load->start_ns + load->begun_at;

    load->backlog--;
    load->begun_at = sac_arrivals_next(&load->begun);
    return due_ns;
}

/* Sends what is due as long as there are connections. `waited`: a connection
 * has just become free, so what it takes had to wait. */
static void dispatch(struct load *load, bool waited)
{
    struct connection *connection;

    if (load->finished)
        return;
    if (load->options->pace == SAC_LOAD_CLOSED) {
        dispatch_closed(load);
        return;
    }
    while (load->backlog > 0 && (connection = take_connection(load))) {
        uint64_t due_ns = take_backlog(load);
        if (waited && counts(load, due_ns))
            load->result->waited++;
        begin_request(connection, due_ns);
    }
}

/* Wakes the loop at `at_ns` on the monotonic clock. */
static void set_alarm(struct load *load, uint64_t at_ns)
{
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at_ns / 1000000000),
                                           .tv_nsec = (long)(at_ns % 1000000000)}};

    timerfd_settime(load->alarm_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void on_alarm(uv_poll_t *alarm, int status, int events)
{
    struct load *load = alarm->data;
    const struct sac_load_options *options = load->options;
    uint64_t fired;
    uint64_t now = sac_clock_ns() - load->start_ns;

    (void)status;
    (void)events;
    if (read(load->alarm_fd, &fired, sizeof fired) != sizeof fired || load->over)
        return;
    while (!load->over && load->coming_at <= now) {
        load->backlog++;
        load->coming_at = sac_arrivals_next(&load->coming);
        load->over = load->coming_at >= options->duration_ns ||
                     (options->requests_max && load->coming.count > options->requests_max);
    }
    dispatch(load, false);
    if (!load->over)
        set_alarm(load, load->start_ns + load->coming_at);
    finish_if_done(load);
}

/* Requests that waited for a connection longer than they may. */
static void expire_backlog(struct load *load, uint64_t now)
{
    while (load->backlog > 0 &&
           load->start_ns + load->begun_at + load->options->timeout_ns <= now) {
        uint64_t due_ns = take_backlog(load);
        if (counts(load, due_ns)) {
            load->result->due++;
            load->result->waited++;
            load->result->timed_out++;
            load->last_answer_ns = now;
        }
    }
}

static void on_sweep(uv_timer_t *sweep)
{
    struct load *load = sweep->data;
    const struct sac_load_options *options = load->options;
    uint64_t now = sac_clock_ns();

    for (int i = 0; i < options->connections; i++) {
        struct connection *connection = &load->connections[i];
        bool in_flight = connection->state == BUSY || connection->state == CONNECTING;
        if (in_flight && connection->due_ns + options->timeout_ns <= now)
            end_request(connection, TIMED_OUT);
    }
    if (load->finished)
        return;
    expire_backlog(load, now);
    if (options->pace == SAC_LOAD_CLOSED) {
        load->over = load->over || closed_loop_is_over(load, now);
        for (int i = load->unconnected_count; i > 0 && !load->over; i--) {
            begin_request(take_connection(load), now);
            load->over = closed_loop_is_over(load, now);
        }
    }
    finish_if_done(load);
}

/* What has been measured so far is still worth its report. */
static void on_interrupt(uv_signal_t *interrupt, int number)
{
    struct load *load = interrupt->data;

    (void)number;
    load->over = true;
    load->backlog = 0;
    finish_if_done(load);
}

static void finish_if_done(struct load *load)
{
    if (!load->over || load->in_flight > 0 || load->backlog > 0 || load->finished)
        return;
    load->finished = true;
    uv_close((uv_handle_t *)&load->sweep, NULL);
    uv_close((uv_handle_t *)&load->interrupt, NULL);
    if (load->options->pace != SAC_LOAD_CLOSED)
        uv_close((uv_handle_t *)&load->alarm, NULL);
    for (int i = 0; i < load->options->connections; i++)
        if (load->connections[i].state == IDLE)
            close_connection(&load->connections[i]);
}

/* "http://HOST[:PORT][/PATH]" in parts; `host` without the brackets of IPv6. */
struct url {
    char host[256];
    char port[8];
    const char *authority;
    size_t authority_size;
    const char *path;
};

static int copy_part(char *to, size_t room, const char *at, size_t size)
{
    if (size == 0 || size >= room)
        return SAC_EINVAL;
    memcpy(to, at, size);
    to[size] = 0;
    return 0;
}

static int parse_url(struct url *ret, const char *text, struct sac_error *err)
{
    const char *at = text + strlen("http://");

    if (strncmp(text, "http://", strlen("http://")) != 0)
        return sac_fail(err, SAC_EINVAL, "\"%s\": expected http://HOST[:PORT][/PATH]", text);
    const char *end = at + strcspn(at, "/?#");
    const char *host = *at == '[' ? at + 1 : at;
    const char *host_end = host + strcspn(host, *at == '[' ? "]" : ":/?#");
    const char *port = *at == '[' && *host_end == ']' ? host_end + 1 : host_end;
    int rc = host_end <= end
                 ? copy_part(ret->host, sizeof ret->host, host, (size_t)(host_end - host))
                 : SAC_EINVAL;
    if (rc == 0 && port == end)
        rc = copy_part(ret->port, sizeof ret->port, "80", 2);
    else if (rc == 0 && *port == ':' && strspn(port + 1, "0123456789") == (size_t)(end - port - 1))
        rc = copy_part(ret->port, sizeof ret->port, port + 1, (size_t)(end - port - 1));
    else
        rc = SAC_EINVAL;
    if (rc != 0 || (*end && *end != '/') || strpbrk(end, " #\r\n"))
        return sac_fail(err, SAC_EINVAL, "\"%s\": expected http://HOST[:PORT][/PATH]", text);
    ret->authority = at;
    ret->authority_size = (size_t)(end - at);
    ret->path = *end ? end : "/";
    return 0;
}

static int resolve(struct sockaddr_storage *ret, const char *host, const char *port,
                   struct sac_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, port, &hints, &found);

    if (rc != 0)
        return sac_fail(err, SAC_EIO, "%s: %s", host, gai_strerror(rc));
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static bool header_is_set(const struct sac_load_options *options, const char *name)
{
    for (int i = 0; i < options->header_count; i++)
        if (strncasecmp(options->headers[i], name, strlen(name)) == 0 &&
            options->headers[i][strlen(name)] == ':')
            return true;
    return false;
}

static void build_request(struct sac_buf *out, const struct url *url, const char *method,
                          const struct sac_load_options *options, const struct sac_load_body *body)
{
    sac_buf_printf(out, "%s %s HTTP/1.1\r\n", method, url->path);
    if (!header_is_set(options, "Host"))
        sac_buf_printf(out, "Host: %.*s\r\n", (int)url->authority_size, url->authority);
    for (int i = 0; i < options->header_count; i++)
        sac_buf_printf(out, "%s\r\n", options->headers[i]);
    if (body && !header_is_set(options, "Content-Type"))
        sac_buf_puts(out, "Content-Type: application/octet-stream\r\n");
    if (body)
        sac_buf_printf(out, "Content-Length: %zu\r\n", body->size);
    sac_buf_puts(out, "\r\n");
    if (body)
        sac_buf_put(out, body->bytes, body->size);
}

static int build_requests(struct load *load, const struct url *url, struct sac_error *err)
{
    const struct sac_load_options *options = load->options;
    const char *method = options->method;
    bool failed;

    if (!method)
        method = options->body_count > 0 ? "POST" : "GET";
    load->head_only = strcmp(method, "HEAD") == 0;
    load->request_count = options->body_count > 0 ? options->body_count : 1;
    load->requests = calloc((size_t)load->request_count, sizeof *load->requests);
    failed = !load->requests;
    for (int i = 0; i < load->request_count && !failed; i++) {
        build_request(&load->requests[i].bytes, url, method, options,
                      options->body_count > 0 ? &options->bodies[i] : NULL);
        failed = load->requests[i].bytes.failed;
    }
    return failed ? sac_fail(err, SAC_ENOMEM, "out of memory for the requests") : 0;
}

static int resolve_all(struct load *load, const struct url *url, struct sac_error *err)
{
    const struct sac_load_options *options = load->options;
    int rc = resolve(&load->server, url->host, url->port, err);

    load->sources = calloc((size_t)options->source_count + 1, sizeof *load->sources);
    if (rc == 0 && !load->sources)
        rc = sac_fail(err, SAC_ENOMEM, "out of memory for the addresses");
    for (int i = 0; i < options->source_count && rc == 0; i++)
        rc = resolve(&load->sources[i], options->sources[i], "0", err);
    return rc;
}

static int build_connections(struct load *load, struct sac_error *err)
{
    int count = load->options->connections;

    load->connections = calloc((size_t)count, sizeof *load->connections);
    load->idle = calloc((size_t)count, sizeof *load->idle);
    load->unconnected = calloc((size_t)count, sizeof *load->unconnected);
    if (!load->connections || !load->idle || !load->unconnected)
        return sac_fail(err, SAC_ENOMEM, "out of memory for %d connections", count);
    for (int i = 0; i < count; i++) {
        load->connections[i].load = load;
        load->unconnected[i] = count - 1 - i;
    }
    load->unconnected_count = count;
    return 0;
}

static int check(const struct sac_load_options *options, struct sac_error *err)
{
    bool paced = options->pace != SAC_LOAD_CLOSED;

    if (paced && !(options->rate > 0 && options->rate <= 1e7))
        return sac_fail(err, SAC_EINVAL, "a rate of %g a second: expected above 0, at most 1e7",
                        options->rate);
    if (options->connections < 1 || options->connections > SAC_LOAD_CONNECTIONS_MAX)
        return sac_fail(err, SAC_EINVAL, "%d connections: expected 1 to %d", options->connections,
                        SAC_LOAD_CONNECTIONS_MAX);
    if (options->warmup_ns >= options->duration_ns)
        return sac_fail(err, SAC_EINVAL, "the warm-up leaves nothing of the duration to measure");
    if (options->timeout_ns == 0)
        return sac_fail(err, SAC_EINVAL, "a time-out of 0");
    return 0;
}

/* The handles that every run has. Nothing here fails but for want of
 * descriptors or memory. */
static int start_handles(struct load *load, struct sac_error *err)
{
    int rc = uv_timer_init(&load->loop, &load->sweep);

    load->sweep.data = load->interrupt.data = load->alarm.data = load;
    if (rc == 0)
        rc = uv_timer_start(&load->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    if (rc == 0)
        rc = uv_signal_init(&load->loop, &load->interrupt);
    if (rc == 0)
        rc = uv_signal_start(&load->interrupt, on_interrupt, SIGINT);
    if (rc == 0 && load->options->pace != SAC_LOAD_CLOSED) {
        load->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        rc = load->alarm_fd < 0 ? UV_EMFILE
                                : uv_poll_init(&load->loop, &load->alarm, load->alarm_fd);
        if (rc == 0)
            rc = uv_poll_start(&load->alarm, UV_READABLE, on_alarm);
    }
    return rc == 0 ? 0 : sac_fail(err, SAC_EIO, "the event loop: %s", uv_strerror(rc));
}

static void close_handle(uv_handle_t *handle, void *user)
{
    (void)user;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void start_requests(struct load *load)
{
    const struct sac_load_options *options = load->options;
    bool poisson = options->pace == SAC_LOAD_POISSON;

    load->start_ns = sac_clock_ns();
    if (options->pace == SAC_LOAD_CLOSED) {
        for (int i = 0; i < options->connections; i++)
            if (!closed_loop_is_over(load, load->start_ns))
                begin_request(take_connection(load), load->start_ns);
        return;
    }
    sac_arrivals_init(&load->coming, options->rate, poisson, options->seed);
    sac_arrivals_init(&load->begun, options->rate, poisson, options->seed);
    load->coming_at = sac_arrivals_next(&load->coming);
    load->begun_at = sac_arrivals_next(&load->begun);
    load->over = load->coming_at >= options->duration_ns;
    if (load->over)
        finish_if_done(load);
    else
        set_alarm(load, load->start_ns + load->coming_at);
}

static void run_loop(struct load *load)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    uint64_t measured_from, measured_to;

    sigaction(SIGPIPE, &ignore, &before); /* a server that hangs up is counted, not fatal */
    sac_cpu_be_prompt();                  /* what it sends late is the server's delay otherwise */
    start_requests(load);
    uv_run(&load->loop, UV_RUN_DEFAULT);
    sigaction(SIGPIPE, &before, NULL);
    measured_from = load->start_ns + load->options->warmup_ns;
    measured_to = load->start_ns + load->options->duration_ns;
    if (load->options->requests_max || load->last_answer_ns > measured_to)
        measured_to = load->last_answer_ns;
    load->result->due_ns = load->options->duration_ns - load->options->warmup_ns;
    load->result->span_ns = measured_to > measured_from ? measured_to - measured_from : 0;
}

static void done(struct load *load)
{
    for (int i = 0; load->requests && i < load->request_count; i++)
        sac_buf_done(&load->requests[i].bytes);
    free(load->requests);
    free(load->sources);
    free(load->connections);
    free(load->idle);
    free(load->unconnected);
    if (load->alarm_fd >= 0)
        close(load->alarm_fd);
}

static int run(struct load *load, struct sac_error *err)
{
    int rc = uv_loop_init(&load->loop);

    if (rc != 0)
        return sac_fail(err, SAC_EIO, "the event loop: %s", uv_strerror(rc));
    rc = start_handles(load, err);
    if (rc == 0) {
        run_loop(load);
    } else {
        uv_walk(&load->loop, close_handle, NULL);
        uv_run(&load->loop, UV_RUN_DEFAULT);
    }
    uv_loop_close(&load->loop);
    return rc;
}

int sac_load_run(struct sac_load_result *ret, const struct sac_load_options *options,
                 struct sac_error *err)
{
    struct load *load = calloc(1, sizeof *load);
    struct url url = {0};
    int rc = load ? check(options, err) : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (!load)
        return rc;
    load->options = options;
    load->result = ret;
    load->alarm_fd = -1;
    llhttp_settings_init(&load->settings);
    load->settings.on_body = on_body;
    load->settings.on_headers_complete = on_headers_complete;
    load->settings.on_message_complete = on_message_complete;
    if (rc == 0)
        rc = parse_url(&url, options->url, err);
    if (rc == 0)
        rc = resolve_all(load, &url, err);
    if (rc == 0)
        rc = build_requests(load, &url, err);
    if (rc == 0)
        rc = build_connections(load, err);
    if (rc == 0) {
        memset(ret, 0, sizeof *ret);
        rc = run(load, err);
    }
    done(load);
    free(load);
    return rc;
}
