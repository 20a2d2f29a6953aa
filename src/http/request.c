#include "http/internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Requests kept for the next ones; more are freed. */
#define SPARE_MAX 1024

struct sac_http_request *sac_request_new(struct sac_http_server *server)
{
    struct sac_http_request *request = server->spare_requests;

    if (request) {
        server->spare_requests = request->next;
        server->spare_request_count--;
    } else {
        request = malloc(sizeof *request);
        if (!request)
            return NULL;
    }
    request->server = server;
    request->conn = NULL;
    request->next = NULL;
    atomic_store_explicit(&request->phase, SAC_REQUEST_OPEN, memory_order_relaxed);
    request->ready = request->close = request->no_body = false;
    request->path = NULL;
    request->query = "";
    request->route = NULL;
    request->body = (struct sac_framing_body){0};
    atomic_store_explicit(&request->charged, 0, memory_order_relaxed);
    request->started_ns = request->complete_ns = request->body_ns = 0;
    request->gone = NULL;
    request->gone_user = request->user = NULL;
    request->answer.data = NULL;
    request->answer.body = NULL;
    sac_framing_head_init(&request->head, request->room, sizeof request->room);
    return request;
}

void sac_request_recycle(struct sac_http_request *request)
{
    struct sac_http_server *server = request->server;

    free(request->body.data);
    request->body.data = NULL;
    sac_request_charge(request, 0);
    sac_answer_done(&request->answer);
    sac_framing_head_done(&request->head);
    if (server->spare_request_count >= SPARE_MAX) {
        free(request);
        return;
    }
    request->next = server->spare_requests;
    server->spare_requests = request;
    server->spare_request_count++;
}

bool sac_request_charge(struct sac_http_request *request, size_t bytes)
{
    struct sac_http_server *server = request->server;
    size_t before = atomic_load_explicit(&request->charged, memory_order_relaxed);

    if (bytes == before)
        return true;
    /* Modulo arithmetic: a smaller body subtracts. */
    size_t total =
        atomic_fetch_add_explicit(&server->body_bytes, bytes - before, memory_order_relaxed) +
        (bytes - before);
    atomic_store_explicit(&request->charged, bytes, memory_order_relaxed);
    return bytes < before || total <= server->limits.bodies_bytes_max;
}

void sac_request_tell_gone(struct sac_http_request *request)
{
    int phase = SAC_REQUEST_OPEN;

    request->conn = NULL;
    /* Whoever has answered already is no longer interested; the answer lies in
     * the mailbox and the request is recycled when it comes out. */
    if (!atomic_compare_exchange_strong(&request->phase, &phase, SAC_REQUEST_TELLING))
        return;
    if (request->gone)
        request->gone(request, request->gone_user);
    phase = SAC_REQUEST_TELLING;
    if (!atomic_compare_exchange_strong(&request->phase, &phase, SAC_REQUEST_GONE))
        sac_conn_answered(request); /* on_gone itself has replied */
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One byte of percent-encoded text; -1 when malformed. */
static int decode_byte(const char **at, const char *end)
{
    const char *s = *at;

    if (*s != '%') {
        *at = s + 1;
        return (unsigned char)*s;
    }
    if (end - s < 3 || hex_value(s[1]) < 0 || hex_value(s[2]) < 0)
        return -1;
    *at = s + 3;
    return hex_value(s[1]) * 16 + hex_value(s[2]);
}

bool sac_request_split_target(struct sac_http_request *request, struct sac_span target)
{
    char *path = request->head.bytes + target.at, *out = path;
    char *end = path + target.size; /* a space: room for the NUL */
    const char *question = memchr(path, '?', target.size);
    const char *path_end = question ? question : end;

    *end = '\0';
    for (const char *at = path; at < path_end;) {
        int c = decode_byte(&at, path_end);
        if (c <= 0)
            return false;
        *out++ = (char)c;
    }
    if (question)
        request->query = question + 1;
    *out = '\0';
    request->path = path;
    return true;
}

const char *sac_http_request_method(const struct sac_http_request *request)
{
    return llhttp_method_name(request->head.method);
}

const char *sac_http_request_path(const struct sac_http_request *request)
{
    return request->path;
}

/* Decodes [at, end) into value, cut to size; false when malformed. */
static bool decode_value(const char *at, const char *end, char *value, size_t size)
{
    size_t used = 0;

    while (at < end) {
        int c = *at == '+' ? (at++, ' ') : decode_byte(&at, end);
        if (c <= 0)
            return false;
        if (used + 1 < size)
            value[used++] = (char)c;
    }
    if (size > 0)
        value[used] = '\0';
    return true;
}

bool sac_http_request_query(const struct sac_http_request *request, const char *name, char *value,
                            size_t size)
{
    size_t name_size = strlen(name);

    for (const char *at = request->query; *at;) {
        const char *end = strchrnul(at, '&');
        if ((size_t)(end - at) >= name_size && memcmp(at, name, name_size) == 0) {
            const char *from = at + name_size;
            if (from == end || *from == '=')
                return decode_value(from == end ? end : from + 1, end, value, size);
        }
        at = *end ? end + 1 : end;
    }
    return false;
}

struct sac_http_text sac_http_request_header(const struct sac_http_request *request,
                                             const char *name)
{
    return sac_framing_header(&request->head, name);
}

struct sac_http_text sac_http_request_body(const struct sac_http_request *request)
{
    return (struct sac_http_text){(const char *)request->body.data, request->body.size};
}

uint8_t *sac_http_request_take_body(struct sac_http_request *request, size_t *ret_size)
{
    uint8_t *data = request->body.data;

    *ret_size = request->body.size;
    request->body = (struct sac_framing_body){0};
    sac_request_charge(request, 0);
    return data;
}

uint64_t sac_http_request_started_ns(const struct sac_http_request *request)
{
    return request->started_ns;
}

uint64_t sac_http_request_complete_ns(const struct sac_http_request *request)
{
    return request->complete_ns;
}

const char *sac_http_request_peer(const struct sac_http_request *request)
{
    return request->peer;
}

void sac_http_request_set_user(struct sac_http_request *request, void *user)
{
    request->user = user;
}

void *sac_http_request_user(const struct sac_http_request *request)
{
    return request->user;
}

void sac_http_request_on_gone(struct sac_http_request *request, sac_http_gone *gone, void *user)
{
    assert(sac_server_is_running_here(request->server));
    request->gone = gone;
    request->gone_user = user;
}
