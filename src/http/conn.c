#include "http/internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"

#define SPARE_MAX 256
/* How long bytes of a client are read away after the last answer, so that a
 * reset does not destroy the answer on its way. */
#define LINGER_NS UINT64_C(2000000000)
#define NS_PER_MS UINT64_C(1000000)

static const char continue_line[] = "HTTP/1.1 100 Continue\r\n\r\n";

static void conn_input(struct sac_conn *conn, const char *data, size_t size);
static void conn_flush(struct sac_conn *conn);
static void conn_mark_dirty(struct sac_conn *conn);
static void conn_start_reading(struct sac_conn *conn);

static bool is_listening(const struct sac_conn *conn)
{
    return conn->phase <= SAC_CONN_CHUNKS;
}

static int conn_fd(const struct sac_conn *conn)
{
    uv_os_fd_t fd = -1;

    uv_fileno((const uv_handle_t *)&conn->tcp, &fd);
    return fd;
}

/* Requests of the connection, in order. */

static void enqueue(struct sac_conn *conn, struct sac_http_request *request)
{
    request->conn = conn;
    request->next = NULL;
    if (conn->last)
        conn->last->next = request;
    else
        conn->first = request;
    conn->last = request;
    conn->in_flight++;
    sac_count(conn->server->counters.requests, 1);
    sac_count(conn->server->counters.in_flight, 1);
}

static struct sac_http_request *dequeue(struct sac_conn *conn)
{
    struct sac_http_request *request = conn->first;

    conn->first = request->next;
    if (!conn->first)
        conn->last = NULL;
    conn->in_flight--;
    sac_count(conn->server->counters.in_flight, -1);
    return request;
}

/* The answer is final and nothing more of this connection is parsed. Status 0
 * closes without a word. */
static void refuse(struct sac_conn *conn, int status, const char *headers, const char *text)
{
    struct sac_http_request *request = conn->incoming;

    conn->incoming = NULL;
    conn->continue_owed = false;
    conn->phase = SAC_CONN_DEAF;
    conn->linger = true;
    if (status == 0) {
        sac_request_recycle(request);
        return;
    }
    sac_answer_error(request, status, headers, text);
    request->ready = request->close = true;
    enqueue(conn, request);
}

static bool has_body(const struct sac_http_request *request)
{
    return request->head.chunked || request->head.content_length > 0;
}

/* Answers a request that no handler sees; the connection lives on unless a body
 * would have to be read first. */
static void answer_at_once(struct sac_conn *conn, int status, const char *headers, const char *text)
{
    struct sac_http_request *request = conn->incoming;

    if (has_body(request) || !request->head.keep_alive) {
        refuse(conn, status, headers, text);
        return;
    }
    conn->incoming = NULL;
    sac_answer_error(request, status, headers, text);
    request->ready = true;
    enqueue(conn, request);
}

/* The request is whole: its handler's turn. */
static void dispatch(struct sac_conn *conn)
{
    struct sac_http_request *request = conn->incoming;
    const struct sac_http_route *route = request->route;

    conn->incoming = NULL;
    conn->continue_owed = false;
    conn->phase = request->head.keep_alive ? SAC_CONN_HEAD : SAC_CONN_DEAF;
    request->close = !request->head.keep_alive;
    request->complete_ns = conn->server->now_ns;
    enqueue(conn, request);
    conn->server->unanswered++;
    route->handler(request, route->user);
}

/* What the head must satisfy before a byte of the body is read. */

static struct sac_http_text head_text(const struct sac_http_request *request, struct sac_span span)
{
    return (struct sac_http_text){request->head.bytes + span.at, span.size};
}

static bool check_host(struct sac_conn *conn, struct sac_http_text host)
{
    if (!sac_host_is_valid(host))
        refuse(conn, 400, NULL, "the request's host is malformed");
    else if (!sac_host_is_allowed(conn->server, host))
        refuse(conn, 421, NULL, "this server does not answer to that host name");
    else
        return true;
    return false;
}

/* "http://host/path" names its host itself; what follows is the target. */
static bool check_absolute(struct sac_conn *conn, struct sac_span *target)
{
    struct sac_http_text text = head_text(conn->incoming, *target);

    if (text.size < 7 || strncasecmp(text.at, "http://", 7) != 0) {
        refuse(conn, 400, NULL, "the request's target does not begin with a slash");
        return false;
    }
    const char *host = text.at + 7, *end = text.at + text.size;
    const char *slash = memchr(host, '/', (size_t)(end - host));
    if (!slash) {
        refuse(conn, 400, NULL, "the request's target has no path");
        return false;
    }
    target->at += (uint32_t)(slash - text.at);
    target->size -= (uint32_t)(slash - text.at);
    return check_host(conn, (struct sac_http_text){host, (size_t)(slash - host)});
}

static bool check_hosts(struct sac_conn *conn, struct sac_span *target)
{
    struct sac_http_request *request = conn->incoming;

    if (!request->head.has_host && request->head.minor > 0) {
        refuse(conn, 400, NULL, "the request has no Host line");
        return false;
    }
    if (request->head.has_host && !check_host(conn, head_text(request, request->head.host)))
        return false;
    return request->head.bytes[target->at] == '/' || check_absolute(conn, target);
}

static void answer_options(struct sac_conn *conn, const char *path)
{
    char allow[256];

    sac_route_allow(conn->server, path, allow, sizeof allow);
    answer_at_once(conn, 204, allow, "");
}

static bool find_route(struct sac_conn *conn)
{
    struct sac_http_request *request = conn->incoming;
    const char *method = sac_http_request_method(request);
    char allow[256];

    switch (sac_route_find(conn->server, method, request->path, &request->route)) {
    case SAC_ROUTE_FOUND:
        return true;
    case SAC_ROUTE_NO_PATH:
        answer_at_once(conn, 404, NULL, "there is nothing at this path");
        return false;
    case SAC_ROUTE_NO_METHOD:
        break;
    }
    if (request->head.method == HTTP_OPTIONS) {
        answer_options(conn, request->path);
        return false;
    }
    sac_route_allow(conn->server, request->path, allow, sizeof allow);
    answer_at_once(conn, 405, allow, "this path does not take that method");
    return false;
}

static bool check_expect(struct sac_conn *conn)
{
    struct sac_http_request *request = conn->incoming;
    struct sac_http_text expect = head_text(request, request->head.expect);

    if (!request->head.has_expect || request->head.minor == 0)
        return true;
    if (expect.size != 12 || strncasecmp(expect.at, "100-continue", 12) != 0) {
        answer_at_once(conn, 417, NULL, "the only expectation understood is 100-continue");
        return false;
    }
    conn->continue_owed = has_body(request);
    return true;
}

static size_t body_max(const struct sac_http_request *request)
{
    size_t route = request->route->body_bytes_max;

    return route > 0 ? route : request->server->limits.body_bytes_max;
}

/* Takes the room of a body whose size is known. */
static void begin_length(struct sac_conn *conn)
{
    struct sac_http_request *request = conn->incoming;
    size_t size = (size_t)request->head.content_length;

    if (!sac_request_charge(request, size)) {
        refuse(conn, 503, "Retry-After: 1\r\n", "too many bodies are being received");
        return;
    }
    request->body.data = malloc(size);
    if (!request->body.data) {
        refuse(conn, 503, "Retry-After: 1\r\n", "out of memory");
        return;
    }
    request->body.capacity = size;
    conn->phase = SAC_CONN_LENGTH;
}

static void begin_body(struct sac_conn *conn)
{
    struct sac_http_request *request = conn->incoming;

    request->body.size_max = body_max(request);
    request->body_ns = conn->server->now_ns;
    if (request->head.content_length > request->body.size_max)
        refuse(conn, 413, NULL, "the body is larger than is taken here");
    else if (request->head.chunked)
        conn->phase = SAC_CONN_CHUNKS;
    else if (request->head.content_length > 0)
        begin_length(conn);
    else
        dispatch(conn);
}

static void accept_head(struct sac_conn *conn)
{
    struct sac_http_request *request = conn->incoming;
    struct sac_span target = request->head.target;
    char allow[256];

    request->no_body = request->head.method == HTTP_HEAD;
    memcpy(request->peer, conn->peer, sizeof request->peer);
    if (request->head.method == HTTP_CONNECT) {
        sac_route_allow(conn->server, NULL, allow, sizeof allow);
        refuse(conn, 405, allow, "this is no proxy");
        return;
    }
    bool star = target.size == 1 && request->head.bytes[target.at] == '*' &&
                request->head.method == HTTP_OPTIONS;
    if (star) /* the server as a whole: not to be taken for an absolute target */
        request->head.bytes[target.at] = '/';
    if (!check_hosts(conn, &target))
        return;
    if (star)
        answer_options(conn, NULL);
    else if (!sac_request_split_target(request, target))
        refuse(conn, 400, NULL, "the request's path is malformed");
    else if (find_route(conn) && check_expect(conn))
        begin_body(conn);
}

/* Bytes in. */

static void refuse_framing(struct sac_conn *conn)
{
    const struct sac_framing *framing = &conn->framing;

    refuse(conn, framing->status, framing->status == 503 ? "Retry-After: 1\r\n" : NULL,
           framing->text);
}

static bool begin_request(struct sac_conn *conn)
{
    struct sac_http_request *request = sac_request_new(conn->server);

    if (!request) {
        sac_conn_close(conn);
        return false;
    }
    request->started_ns = conn->server->now_ns;
    conn->incoming = request;
    sac_framing_start(&conn->framing, &conn->server->limits);
    return true;
}

static size_t feed_head(struct sac_conn *conn, const char *data, size_t size)
{
    size_t used = 0;

    switch (sac_framing_read_head(&conn->framing, &conn->incoming->head, data, size, &used)) {
    case SAC_FRAMING_DONE:
        accept_head(conn);
        break;
    case SAC_FRAMING_ERROR:
        refuse_framing(conn);
        break;
    case SAC_FRAMING_MORE:
        break;
    }
    return used;
}

static void body_advanced(struct sac_conn *conn, size_t size)
{
    struct sac_framing_body *body = &conn->incoming->body;

    body->size += size;
    conn->continue_owed = false;
    if (body->size == body->capacity)
        dispatch(conn);
}

static size_t feed_length(struct sac_conn *conn, const char *data, size_t size)
{
    struct sac_framing_body *body = &conn->incoming->body;
    size_t room = body->capacity - body->size;
    size_t used = size < room ? size : room;

    memcpy(body->data + body->size, data, used);
    body_advanced(conn, used);
    return used;
}

static size_t feed_chunks(struct sac_conn *conn, const char *data, size_t size)
{
    struct sac_http_request *request = conn->incoming;
    size_t used = 0;

    conn->continue_owed = false;
    enum sac_framing_result result =
        sac_framing_read_chunks(&conn->framing, &request->body, data, size, &used);
    if (result == SAC_FRAMING_ERROR)
        refuse_framing(conn);
    else if (!sac_request_charge(request, request->body.capacity))
        refuse(conn, 503, "Retry-After: 1\r\n", "too many bodies are being received");
    else if (result == SAC_FRAMING_DONE)
        dispatch(conn);
    return used;
}

/* Takes a stretch; 0 when the pipeline is full. */
static size_t feed(struct sac_conn *conn, const char *data, size_t size)
{
    if (!conn->incoming && is_listening(conn)) {
        if (conn->server->draining)
            conn->phase = SAC_CONN_DEAF;
        else if (conn->in_flight >= conn->server->limits.pipelined_max || !begin_request(conn))
            return 0;
    }
    switch (conn->phase) {
    case SAC_CONN_HEAD:
        return feed_head(conn, data, size);
    case SAC_CONN_LENGTH:
        return feed_length(conn, data, size);
    case SAC_CONN_CHUNKS:
        return feed_chunks(conn, data, size);
    default:
        conn->linger = true;
        return size; /* thrown away */
    }
}

static void stash(struct sac_conn *conn, const char *data, size_t size)
{
    conn->stash = malloc(SAC_READ_BYTES);
    if (!conn->stash) {
        sac_conn_close(conn);
        return;
    }
    memcpy(conn->stash, data, size);
    conn->stash_size = size;
}

static void stash_check_full(struct sac_conn *conn)
{
    if (conn->stash_size == SAC_READ_BYTES && conn->reading) {
        uv_read_stop((uv_stream_t *)&conn->tcp);
        conn->reading = false;
    }
}

/* Parses what came and sends the answers that are ready, in one write. */
static void conn_input(struct sac_conn *conn, const char *data, size_t size)
{
    size_t used = 1;

    conn->corked = true;
    while (size > 0 && used > 0 && conn->phase != SAC_CONN_CLOSED) {
        used = feed(conn, data, size);
        data += used;
        size -= used;
        if (used == 0 && is_listening(conn)) {
            conn_flush(conn);
            used = conn->in_flight < conn->server->limits.pipelined_max;
        }
    }
    conn->corked = false;
    if (size > 0 && is_listening(conn))
        stash(conn, data, size);
    if (conn->phase != SAC_CONN_CLOSED)
        conn_flush(conn);
}

/* Goes on with what had to wait for room in the pipeline. */
static void conn_resume(struct sac_conn *conn)
{
    if (!conn->stash || conn->corked || !is_listening(conn) ||
        conn->in_flight >= conn->server->limits.pipelined_max)
        return;
    char *data = conn->stash;
    size_t size = conn->stash_size;
    conn->stash = NULL;
    conn->stash_size = 0;
    conn_input(conn, data, size);
    free(data);
    if (conn->phase != SAC_CONN_CLOSED) {
        conn_start_reading(conn);
        stash_check_full(conn);
    }
}

static void on_alloc(uv_handle_t *handle, size_t hint, uv_buf_t *buf)
{
    struct sac_conn *conn = handle->data;

    (void)hint;
    if (conn->stash) {
        *buf = uv_buf_init(conn->stash + conn->stash_size,
                           (unsigned)(SAC_READ_BYTES - conn->stash_size));
    } else if (conn->phase == SAC_CONN_LENGTH) {
        /* Straight to where the handler will find it. */
        struct sac_framing_body *body = &conn->incoming->body;
        size_t room = body->capacity - body->size;
        if (room > 1 << 30)
            room = 1 << 30;
        *buf = uv_buf_init((char *)body->data + body->size, (unsigned)room);
    } else {
        *buf = uv_buf_init(conn->server->read_buffer, SAC_READ_BYTES);
    }
}

static void on_end(struct sac_conn *conn, ssize_t status)
{
    bool owed = conn->incoming || conn->stash;

    conn->eof = true;
    for (struct sac_http_request *request = conn->first; request; request = request->next)
        owed |= !request->ready;
    if (status == UV_EOF && !owed && (conn->writing || conn->first)) {
        /* Everything is answered, and the client may still be listening. */
        uv_read_stop((uv_stream_t *)&conn->tcp);
        conn->reading = false;
        conn->phase = SAC_CONN_DEAF;
    } else {
        sac_conn_close(conn);
    }
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct sac_conn *conn = stream->data;
    struct sac_http_server *server = conn->server;

    if (count == 0)
        return;
    server->now_ns = sac_clock_ns();
    if (count < 0) {
        on_end(conn, count);
    } else if (conn->phase == SAC_CONN_LINGER) {
        /* Read away. */
    } else if (conn->stash) {
        conn->stash_size += (size_t)count;
        stash_check_full(conn);
    } else if (buf->base != server->read_buffer) {
        conn->corked = true;
        body_advanced(conn, (size_t)count);
        conn->corked = false;
        conn_flush(conn);
    } else {
        conn_input(conn, buf->base, (size_t)count);
    }
    sac_conn_flush_dirty(server);
}

static void conn_start_reading(struct sac_conn *conn)
{
    if (!conn->reading && !conn->eof &&
        uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read) == 0)
        conn->reading = true;
}

/* Answers out. */

static void count_answer(struct sac_http_server *server, int status)
{
    if (status < 300)
        sac_count(server->counters.ok, 1);
    else if (status >= 400 && status < 500)
        sac_count(server->counters.client_errors, 1);
    else if (status >= 500)
        sac_count(server->counters.server_errors, 1);
}

/* The part of an answer that is written from where it lies. */
static uv_buf_t large_part(const struct sac_http_request *request)
{
    const struct sac_answer *answer = &request->answer;

    if (request->no_body)
        return uv_buf_init(NULL, 0);
    if (answer->body && answer->content_length > SAC_SMALL_ANSWER)
        return uv_buf_init((char *)answer->body, (unsigned)answer->content_length);
    if (answer->data_size > SAC_SMALL_ANSWER)
        return uv_buf_init(answer->data + answer->headers_size,
                           (unsigned)(answer->data_size - answer->headers_size));
    return uv_buf_init(NULL, 0);
}

/* Puts the answer into the scratch but for its large part. */
static size_t put_answer(const struct sac_http_request *request, bool close, char *out, bool large)
{
    const struct sac_answer *answer = &request->answer;
    size_t used = sac_answer_head(request, close, out);
    bool copied = !answer->body && !large;
    size_t data = copied ? answer->data_size : answer->headers_size;

    memcpy(out + used, answer->data, data);
    used += data;
    if (answer->body && !large && !request->no_body) {
        memcpy(out + used, answer->body, answer->content_length);
        used += answer->content_length;
    }
    return used;
}

static size_t scratch_need(const struct sac_http_request *request)
{
    const char *type = request->answer.content_type;

    return SAC_ANSWER_HEAD + (type ? strlen(type) : 0) + SAC_EXTRA_HEADERS_MAX + SAC_SMALL_ANSWER +
           sizeof continue_line;
}

/* Gathers the answers that are next and ready; the bytes in the scratch. */
static size_t gather(struct sac_conn *conn, uv_buf_t *large)
{
    struct sac_http_server *server = conn->server;
    size_t used = 0;

    *large = uv_buf_init(NULL, 0);
    while (conn->first && conn->first->ready && large->len == 0 &&
           used + scratch_need(conn->first) <= SAC_SCRATCH_BYTES) {
        struct sac_http_request *request = dequeue(conn);
        bool close = request->close || (server->draining && !conn->first && !conn->incoming);
        *large = large_part(request);
        used += put_answer(request, close, server->scratch + used, large->len > 0);
        count_answer(server, request->answer.status);
        if (close)
            conn->phase = SAC_CONN_DEAF;
        if (large->len > 0)
            conn->sending = request;
        else
            sac_request_recycle(request);
    }
    if (!conn->first && conn->continue_owed && large->len == 0) {
        conn->continue_owed = false;
        memcpy(server->scratch + used, continue_line, sizeof continue_line - 1);
        used += sizeof continue_line - 1;
    }
    return used;
}

static void sent(struct sac_conn *conn)
{
    free(conn->spill);
    conn->spill = NULL;
    if (conn->sending)
        sac_request_recycle(conn->sending);
    conn->sending = NULL;
}

static void on_written(uv_write_t *write, int status)
{
    struct sac_conn *conn = write->data;

    conn->writing = false;
    sent(conn);
    if (conn->phase == SAC_CONN_CLOSED)
        return;
    conn->server->now_ns = sac_clock_ns();
    if (status < 0)
        sac_conn_close(conn);
    else
        conn_flush(conn);
    conn_resume(conn);
    sac_conn_flush_dirty(conn->server);
}

/* Leaves to libuv what the socket did not take. */
static int send_later(struct sac_conn *conn, size_t small, uv_buf_t large, size_t done)
{
    uv_buf_t bufs[2];
    unsigned count = 0;

    if (done < small) {
        conn->spill = malloc(small - done);
        if (!conn->spill)
            return UV_ENOMEM;
        memcpy(conn->spill, conn->server->scratch + done, small - done);
        bufs[count++] = uv_buf_init(conn->spill, (unsigned)(small - done));
        done = small;
    }
    if (large.len > 0)
        bufs[count++] =
            uv_buf_init(large.base + (done - small), (unsigned)(large.len - (done - small)));
    conn->write.data = conn;
    int rc = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, bufs, count, on_written);
    if (rc == 0) {
        conn->writing = true;
        conn->write_ns = conn->server->now_ns;
        conn->queue_size = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);
    }
    return rc;
}

static int send_now(struct sac_conn *conn, size_t small, uv_buf_t large)
{
    uv_buf_t bufs[2] = {uv_buf_init(conn->server->scratch, (unsigned)small), large};
    int rc = uv_try_write((uv_stream_t *)&conn->tcp, bufs, large.len > 0 ? 2 : 1);
    size_t done = rc > 0 ? (size_t)rc : 0;

    if (rc < 0 && rc != UV_EAGAIN)
        return rc;
    if (done < small + large.len)
        return send_later(conn, small, large, done);
    sent(conn);
    return 0;
}

/* All is answered, and the connection ends. */
static void finish(struct sac_conn *conn)
{
    if (conn->eof || (!conn->linger && !conn->stash)) {
        sac_conn_close(conn);
        return;
    }
    shutdown(conn_fd(conn), SHUT_WR);
    free(conn->stash);
    conn->stash = NULL;
    conn->phase = SAC_CONN_LINGER;
    conn->since_ns = conn->server->now_ns;
    conn_start_reading(conn);
}

static void conn_flush(struct sac_conn *conn)
{
    while (!conn->writing && conn->phase < SAC_CONN_LINGER) {
        uv_buf_t large;
        size_t small = gather(conn, &large);
        if (small == 0)
            break;
        if (send_now(conn, small, large) < 0) {
            sac_conn_close(conn);
            return;
        }
    }
    if (conn->writing || conn->first || conn->phase >= SAC_CONN_LINGER)
        return;
    conn->since_ns = conn->server->now_ns;
    if (conn->phase == SAC_CONN_DEAF || (conn->server->draining && !conn->incoming))
        finish(conn);
}

static void conn_mark_dirty(struct sac_conn *conn)
{
    if (conn->dirty)
        return;
    conn->dirty = true;
    conn->dirty_next = conn->server->dirty;
    conn->server->dirty = conn;
}

void sac_conn_flush_dirty(struct sac_http_server *server)
{
    struct sac_conn *conn;

    while ((conn = server->dirty)) {
        server->dirty = conn->dirty_next;
        conn->dirty = false;
        if (conn->phase >= SAC_CONN_LINGER)
            continue;
        conn_flush(conn);
        conn_resume(conn);
    }
}

void sac_conn_answered(struct sac_http_request *request)
{
    request->server->unanswered--;
    if (!request->conn) {
        sac_request_recycle(request);
        return;
    }
    request->ready = true;
    if (!request->conn->corked)
        conn_mark_dirty(request->conn);
}

/* Deadlines. */

static bool body_is_late(const struct sac_conn *conn, uint64_t now)
{
    const struct sac_http_limits *limits = &conn->server->limits;
    const struct sac_http_request *request = conn->incoming;
    uint64_t age_ms = (now - request->body_ns) / NS_PER_MS;
    uint64_t grace_ms = (uint64_t)limits->body_deadline_ms / 3;

    return age_ms > (uint64_t)limits->body_deadline_ms ||
           (age_ms > grace_ms &&
            request->body.size < age_ms * (uint64_t)limits->body_rate_bytes_min / 1000);
}

static void check_incoming(struct sac_conn *conn, uint64_t now)
{
    uint64_t head_ns = (uint64_t)conn->server->limits.header_deadline_ms * NS_PER_MS;

    if (conn->phase == SAC_CONN_HEAD) {
        if (now - conn->incoming->started_ns <= head_ns)
            return;
        refuse(conn, 408, NULL, "the request's head took too long");
    } else {
        if (!body_is_late(conn, now))
            return;
        refuse(conn, 408, NULL, "the request's body took too long");
    }
    conn_flush(conn);
}

static bool write_is_stalled(struct sac_conn *conn, uint64_t now)
{
    size_t queued = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);

    if (!conn->writing)
        return false;
    if (queued != conn->queue_size) {
        conn->queue_size = queued;
        conn->write_ns = now;
    }
    return now - conn->write_ns > (uint64_t)conn->server->limits.write_stall_ms * NS_PER_MS;
}

void sac_conn_check(struct sac_conn *conn)
{
    uint64_t now = conn->server->now_ns;
    uint64_t idle_ns = (uint64_t)conn->server->limits.idle_ms * NS_PER_MS;

    if (conn->phase == SAC_CONN_LINGER) {
        if (now - conn->since_ns > LINGER_NS)
            sac_conn_close(conn);
    } else if (write_is_stalled(conn, now)) {
        sac_conn_close(conn);
    } else if (conn->incoming) {
        check_incoming(conn, now);
    } else if (!conn->first && !conn->writing && now - conn->since_ns > idle_ns) {
        sac_conn_close(conn);
    }
}

void sac_conn_drain(struct sac_conn *conn)
{
    if (conn->phase < SAC_CONN_LINGER)
        conn_flush(conn); /* closes what is idle */
}

/* Opening and closing. */

static void set_peer(struct sac_conn *conn, const struct sockaddr *address)
{
    conn->peer[0] = '\0';
    if (address->sa_family == AF_INET)
        uv_ip4_name((const struct sockaddr_in *)address, conn->peer, sizeof conn->peer);
    else if (address->sa_family == AF_INET6)
        uv_ip6_name((const struct sockaddr_in6 *)address, conn->peer, sizeof conn->peer);
}

uint64_t sac_address_key(const struct sockaddr *address)
{
    uint64_t key = 0;

    if (address->sa_family == AF_INET) {
        key = ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr);
    } else if (address->sa_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
        const uint8_t *bytes = v6->s6_addr;
        bool mapped = IN6_IS_ADDR_V4MAPPED(v6);
        for (int i = 0; i < (mapped ? 4 : 8); i++)
            key = key << 8 | bytes[(mapped ? 12 : 0) + i];
    }
    return key;
}

static struct sac_conn **bucket(struct sac_http_server *server, uint64_t address)
{
    return &server->buckets[(address * UINT64_C(0x9e3779b97f4a7c15) >> 32) & server->bucket_mask];
}

static void link_conn(struct sac_conn *conn)
{
    struct sac_http_server *server = conn->server;
    struct sac_conn **head = bucket(server, conn->address);

    conn->next = server->conns;
    if (conn->next)
        conn->next->prev = conn;
    server->conns = conn;
    conn->bucket_next = *head;
    if (conn->bucket_next)
        conn->bucket_next->bucket_prev = conn;
    *head = conn;
    server->conn_count++;
    sac_count(server->counters.open, 1);
}

static void unlink_conn(struct sac_conn *conn)
{
    struct sac_http_server *server = conn->server;

    if (conn->prev)
        conn->prev->next = conn->next;
    else
        server->conns = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    if (conn->bucket_prev)
        conn->bucket_prev->bucket_next = conn->bucket_next;
    else
        *bucket(server, conn->address) = conn->bucket_next;
    if (conn->bucket_next)
        conn->bucket_next->bucket_prev = conn->bucket_prev;
}

static void on_closed(uv_handle_t *handle)
{
    struct sac_conn *conn = handle->data;
    struct sac_http_server *server = conn->server;

    sent(conn);
    if (server->spare_conn_count < SPARE_MAX) {
        conn->next = server->spare_conns;
        server->spare_conns = conn;
        server->spare_conn_count++;
    } else {
        free(conn);
    }
    sac_server_conn_closed(server);
}

static void abandon_requests(struct sac_conn *conn)
{
    struct sac_http_server *server = conn->server;

    if (conn->incoming) {
        sac_count(server->counters.gone, conn->incoming->head.size > 0);
        sac_request_recycle(conn->incoming);
        conn->incoming = NULL;
    }
    while (conn->first) {
        struct sac_http_request *request = dequeue(conn);
        sac_count(server->counters.gone, 1);
        if (request->ready)
            sac_request_recycle(request);
        else
            sac_request_tell_gone(request);
    }
}

void sac_conn_close(struct sac_conn *conn)
{
    if (conn->phase == SAC_CONN_CLOSED)
        return;
    conn->phase = SAC_CONN_CLOSED;
    unlink_conn(conn);
    uv_close((uv_handle_t *)&conn->tcp, on_closed);
    abandon_requests(conn);
    free(conn->stash);
    conn->stash = NULL;
}

static struct sac_conn *conn_new(struct sac_http_server *server)
{
    struct sac_conn *conn = server->spare_conns;

    if (conn) {
        server->spare_conns = conn->next;
        server->spare_conn_count--;
    } else {
        conn = malloc(sizeof *conn);
    }
    if (conn)
        memset(conn, 0, sizeof *conn);
    return conn;
}

void sac_conn_open(struct sac_http_server *server, int fd, const struct sockaddr *address)
{
    struct sac_conn *conn = conn_new(server);

    if (!conn) {
        close(fd);
        return;
    }
    conn->server = server;
    conn->since_ns = server->now_ns;
    conn->address = sac_address_key(address);
    set_peer(conn, address);
    uv_tcp_init(&server->loop, &conn->tcp);
    conn->tcp.data = conn;
    link_conn(conn);
    if (uv_tcp_open(&conn->tcp, fd) != 0) {
        close(fd);
        sac_conn_close(conn);
        return;
    }
    uv_tcp_nodelay(&conn->tcp, 1);
    conn_start_reading(conn);
    if (!conn->reading)
        sac_conn_close(conn);
}
