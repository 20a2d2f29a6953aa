/* Whether a head is let in, and the requests of a connection in their order. */
#include "http/internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

struct sac_http_request *sac_conn_dequeue(struct sac_conn *conn)
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
void sac_conn_refuse(struct sac_conn *conn, int status, const char *headers, const char *text)
{
    struct sac_http_request *request = conn->incoming;

    conn->incoming = NULL;
    conn->continue_owed = false;
    conn->phase = SAC_CONN_DEAF;
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
        sac_conn_refuse(conn, status, headers, text);
        return;
    }
    conn->incoming = NULL;
    sac_answer_error(request, status, headers, text);
    request->ready = true;
    enqueue(conn, request);
}

/* The request is whole: its handler's turn. */
void sac_conn_dispatch(struct sac_conn *conn)
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

/* Most requests say the same Host as the one before. */
static bool is_known_host(const struct sac_http_server *server, struct sac_http_text host)
{
    return host.size > 0 && host.size == server->host_size &&
           memcmp(host.at, server->host, host.size) == 0;
}

static void remember_host(struct sac_http_server *server, struct sac_http_text host)
{
    if (host.size > sizeof server->host)
        return;
    memcpy(server->host, host.at, host.size);
    server->host_size = host.size;
}

static bool check_host(struct sac_conn *conn, struct sac_http_text host)
{
    if (is_known_host(conn->server, host))
        return true;
    if (!sac_host_is_valid(host)) {
        sac_conn_refuse(conn, 400, NULL, "the request's host is malformed");
        return false;
    }
    if (!sac_host_is_allowed(conn->server, host)) {
        sac_conn_refuse(conn, 421, NULL, "this server does not answer to that host name");
        return false;
    }
    remember_host(conn->server, host);
    return true;
}

/* "http://host/path" names its host itself; what follows is the target. */
static bool check_absolute(struct sac_conn *conn, struct sac_span *target)
{
    struct sac_http_text text = head_text(conn->incoming, *target);

    if (text.size < 7 || strncasecmp(text.at, "http://", 7) != 0) {
        sac_conn_refuse(conn, 400, NULL, "the request's target does not begin with a slash");
        return false;
    }
    const char *host = text.at + 7, *end = text.at + text.size;
    const char *slash = memchr(host, '/', (size_t)(end - host));
    if (!slash) {
        sac_conn_refuse(conn, 400, NULL, "the request's target has no path");
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
        sac_conn_refuse(conn, 400, NULL, "the request has no Host line");
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

/* Looks at one address only when half is gone: nobody can have the other half alone. */
bool sac_conn_charge(struct sac_conn *conn, size_t bytes)
{
    struct sac_http_server *server = conn->server;
    size_t half = server->limits.bodies_bytes_max / 2;

    if (sac_request_charge(conn->incoming, bytes) &&
        (atomic_load_explicit(&server->body_bytes, memory_order_relaxed) <= half ||
         sac_conn_address_bytes(conn) <= half))
        return true;
    sac_conn_refuse(conn, 503, "Retry-After: 1\r\n", "too many bodies are being received");
    return false;
}

/* Takes the room of a body whose size is known; it is counted as it fills. */
static void begin_length(struct sac_conn *conn)
{
    struct sac_http_request *request = conn->incoming;
    size_t size = (size_t)request->head.content_length;

    if (!sac_conn_charge(conn, size < SAC_BODY_STEP ? size : SAC_BODY_STEP))
        return;
    request->body.data = malloc(size);
    if (!request->body.data) {
        sac_conn_refuse(conn, 503, "Retry-After: 1\r\n", "out of memory");
        return;
    }
    request->body.capacity = size;
    conn->phase = SAC_CONN_LENGTH;
}

/* ---- The head that is known ---- */

static void remember_head(const struct sac_http_request *request, struct sac_http_text raw)
{
    struct sac_known_head *known = &request->server->known;
    const char *bytes = request->head.bytes;

    known->size = 0;
    if (raw.size == 0 || raw.size > SAC_KNOWN_HEAD_BYTES || request->head.own)
        return;
    memcpy(known->raw, raw.at, raw.size);
    memcpy(known->bytes, bytes, raw.size);
    known->head = request->head;
    known->route = request->route;
    known->path_at = (size_t)(request->path - bytes);
    known->query_at = *request->query ? (size_t)(request->query - bytes) : 0;
    known->size = raw.size;
}

/* As it was when the handler got it before. */
static void recall_head(struct sac_http_request *request)
{
    const struct sac_known_head *known = &request->server->known;
    char *bytes = request->head.bytes;
    size_t capacity = request->head.capacity;

    request->head = known->head;
    request->head.bytes = request->head.room = bytes;
    request->head.capacity = capacity;
    memcpy(bytes, known->bytes, known->size);
    request->path = bytes + known->path_at;
    if (known->query_at > 0)
        request->query = bytes + known->query_at;
    request->route = known->route;
    request->no_body = request->head.method == HTTP_HEAD;
}

size_t sac_conn_admit_known(struct sac_conn *conn, const char *data, size_t size)
{
    const struct sac_known_head *known = &conn->server->known;
    struct sac_http_request *request = conn->incoming;
    size_t used = known->size;

    if (used == 0 || size < used || memcmp(data, known->raw, used) != 0)
        return 0;
    recall_head(request);
    memcpy(request->peer, conn->peer, sizeof request->peer);
    sac_conn_dispatch(conn);
    return used;
}

/* `raw` as sac_conn_admit has it. */
static void begin_body(struct sac_conn *conn, struct sac_http_text raw)
{
    struct sac_http_request *request = conn->incoming;

    request->body.size_max = body_max(request);
    request->body_ns = conn->server->now_ns;
    if (request->head.content_length > request->body.size_max)
        sac_conn_refuse(conn, 413, NULL, "the body is larger than is taken here");
    else if (request->head.chunked)
        conn->phase = SAC_CONN_CHUNKS;
    else if (request->head.content_length > 0)
        begin_length(conn);
    else {
        remember_head(request, raw);
        sac_conn_dispatch(conn);
    }
}

void sac_conn_admit(struct sac_conn *conn, struct sac_http_text raw)
{
    struct sac_http_request *request = conn->incoming;
    struct sac_span target = request->head.target;
    char allow[256];

    request->no_body = request->head.method == HTTP_HEAD;
    memcpy(request->peer, conn->peer, sizeof request->peer);
    if (request->head.method == HTTP_CONNECT) {
        sac_route_allow(conn->server, NULL, allow, sizeof allow);
        sac_conn_refuse(conn, 405, allow, "this is no proxy");
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
        sac_conn_refuse(conn, 400, NULL, "the request's path is malformed");
    else if (find_route(conn) && check_expect(conn))
        begin_body(conn, raw);
}
