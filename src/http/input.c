/* Bytes of a connection on their way in. */
#include "http/internal.h"

#include <stdlib.h>
#include <string.h>

/* Reading more bytes at once than this has taken time itself. */
enum { READ_LONG = 16384 };

static void refuse_framing(struct sac_conn *conn)
{
    const struct sac_framing *framing = &conn->framing;

    sac_conn_refuse(conn, framing->status, framing->status == 503 ? "Retry-After: 1\r\n" : NULL,
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
    bool begins = conn->incoming->head.size == 0 && conn->framing.blank == 0;
    size_t used = begins ? sac_conn_admit_known(conn, data, size) : 0;

    if (used > 0)
        return used;
    switch (sac_framing_read_head(&conn->framing, &conn->incoming->head, data, size, &used)) {
    case SAC_FRAMING_DONE:
        begins &= conn->framing.blank == 0;
        sac_conn_admit(conn, (struct sac_http_text){data, begins ? used : 0});
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
    size_t counted = (body->size + SAC_BODY_STEP - 1) / SAC_BODY_STEP * SAC_BODY_STEP;
    if (!sac_conn_charge(conn, counted < body->capacity ? counted : body->capacity))
        return;
    if (body->size == body->capacity)
        sac_conn_dispatch(conn);
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
    else if (sac_conn_charge(conn, request->body.capacity) && result == SAC_FRAMING_DONE)
        sac_conn_dispatch(conn);
    return used;
}

/* Takes a stretch; 0 when the pipeline is full. */
static size_t feed(struct sac_conn *conn, const char *data, size_t size)
{
    if (!conn->incoming && sac_conn_is_listening(conn)) {
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
        if (used == 0 && sac_conn_is_listening(conn)) {
            sac_conn_flush(conn);
            used = conn->in_flight < conn->server->limits.pipelined_max;
        }
    }
    conn->corked = false;
    if (size > 0 && sac_conn_is_listening(conn))
        stash(conn, data, size);
    if (conn->phase != SAC_CONN_CLOSED)
        sac_conn_mark_dirty(conn);
}

/* Goes on with what had to wait for room in the pipeline. */
void sac_conn_resume(struct sac_conn *conn)
{
    if (!conn->stash || conn->corked || !sac_conn_is_listening(conn) ||
        conn->in_flight >= conn->server->limits.pipelined_max)
        return;
    char *data = conn->stash;
    size_t size = conn->stash_size;
    conn->stash = NULL;
    conn->stash_size = 0;
    conn_input(conn, data, size);
    free(data);
    if (conn->phase != SAC_CONN_CLOSED) {
        sac_conn_start_reading(conn);
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
    if (count > READ_LONG)
        sac_server_set_clock(server);
    else
        sac_server_look_at_clock(server);
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
        sac_conn_mark_dirty(conn);
    } else {
        conn_input(conn, buf->base, (size_t)count);
    }
}

void sac_conn_start_reading(struct sac_conn *conn)
{
    if (!conn->reading && !conn->eof &&
        uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read) == 0)
        conn->reading = true;
}
