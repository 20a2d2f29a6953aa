/* Answers on their way out: those of a turn leave in one write. */
#include "http/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char continue_line[] = "HTTP/1.1 100 Continue\r\n\r\n";

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
        struct sac_http_request *request = sac_conn_dequeue(conn);
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

void sac_conn_sent(struct sac_conn *conn)
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
    sac_conn_sent(conn);
    if (conn->phase == SAC_CONN_CLOSED)
        return;
    sac_server_look_at_clock(conn->server);
    if (status < 0)
        sac_conn_close(conn);
    else
        sac_conn_flush(conn);
    sac_conn_resume(conn);
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
        conn->write_ns = conn->write_began_ns = conn->server->now_ns;
        conn->queue_size = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);
        conn->write_size = conn->queue_size;
    }
    return rc;
}

/* send() is a point where a thread may be cancelled, which costs two locked operations
 * in a process of several threads; nobody cancels this one. */
static ssize_t send_small(const struct sac_conn *conn, size_t size, int flags)
{
    return syscall(SYS_sendto, conn->fd, conn->server->scratch, size, flags, NULL, 0);
}

/* What the socket took, or a negative errno. libuv has nothing of this connection under
 * way: its own way costs more of a small answer's time than it does. */
static ssize_t send_some(struct sac_conn *conn, size_t small, uv_buf_t large)
{
    struct iovec parts[2] = {{conn->server->scratch, small}, {large.base, large.len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    ssize_t sent;

    do
        sent = large.len > 0 ? sendmsg(conn->fd, &message, flags) : send_small(conn, small, flags);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

static int send_now(struct sac_conn *conn, size_t small, uv_buf_t large)
{
    ssize_t sent = send_some(conn, small, large);
    size_t done = sent > 0 ? (size_t)sent : 0;

    if (sent < 0 && sent != -EAGAIN && sent != -EWOULDBLOCK)
        return (int)sent;
    if (done < small + large.len)
        return send_later(conn, small, large, done);
    sac_conn_sent(conn);
    return 0;
}

/* All is answered, and the connection ends: in two steps while the client may still
 * be sending, for bytes that meet a closed socket reset the answer on its way. */
static void finish(struct sac_conn *conn)
{
    if (conn->eof) {
        sac_conn_close(conn);
        return;
    }
    shutdown(conn->fd, SHUT_WR);
    free(conn->stash);
    conn->stash = NULL;
    conn->phase = SAC_CONN_LINGER;
    conn->since_ns = conn->server->now_ns;
    sac_conn_start_reading(conn);
}

void sac_conn_flush(struct sac_conn *conn)
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

void sac_conn_mark_dirty(struct sac_conn *conn)
{
    struct sac_http_server *server = conn->server;

    if (conn->dirty)
        return;
    conn->dirty = true;
    conn->dirty_next = NULL;
    if (server->dirty)
        server->dirty_last->dirty_next = conn;
    else
        server->dirty = conn;
    server->dirty_last = conn;
}

void sac_conn_flush_dirty(struct sac_http_server *server)
{
    struct sac_conn *conn;

    while ((conn = server->dirty)) {
        server->dirty = conn->dirty_next;
        conn->dirty = false;
        if (conn->phase >= SAC_CONN_LINGER)
            continue;
        sac_conn_flush(conn);
        sac_conn_resume(conn);
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
        sac_conn_mark_dirty(request->conn);
}
