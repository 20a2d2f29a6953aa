#include "http/internal.h"

#include <assert.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"

/* The status line of an answer; an unnamed status gets its number only. */
static const char *status_line(int status)
{
    switch (status) {
    case 200:
        return "HTTP/1.1 200 OK\r\n";
#define NAMED(number, name)                                                                        \
    case number:                                                                                   \
        return "HTTP/1.1 " #number " " name "\r\n";
        NAMED(201, "Created")
        NAMED(202, "Accepted")
        NAMED(204, "No Content")
        NAMED(301, "Moved Permanently")
        NAMED(302, "Found")
        NAMED(303, "See Other")
        NAMED(304, "Not Modified")
        NAMED(307, "Temporary Redirect")
        NAMED(308, "Permanent Redirect")
        NAMED(400, "Bad Request")
        NAMED(401, "Unauthorized")
        NAMED(403, "Forbidden")
        NAMED(404, "Not Found")
        NAMED(405, "Method Not Allowed")
        NAMED(406, "Not Acceptable")
        NAMED(408, "Request Timeout")
        NAMED(409, "Conflict")
        NAMED(410, "Gone")
        NAMED(411, "Length Required")
        NAMED(412, "Precondition Failed")
        NAMED(413, "Content Too Large")
        NAMED(414, "URI Too Long")
        NAMED(415, "Unsupported Media Type")
        NAMED(417, "Expectation Failed")
        NAMED(421, "Misdirected Request")
        NAMED(422, "Unprocessable Content")
        NAMED(429, "Too Many Requests")
        NAMED(431, "Request Header Fields Too Large")
        NAMED(500, "Internal Server Error")
        NAMED(501, "Not Implemented")
        NAMED(502, "Bad Gateway")
        NAMED(503, "Service Unavailable")
        NAMED(504, "Gateway Timeout")
        NAMED(505, "HTTP Version Not Supported")
        NAMED(507, "Insufficient Storage")
#undef NAMED
    default:
        return NULL;
    }
}

static char *put(char *out, const char *text, size_t size)
{
    memcpy(out, text, size);
    return out + size;
}

static char *put_number(char *out, size_t number)
{
    char digits[24];
    int count = 0;

    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *out++ = digits[--count];
    return out;
}

static char *put_status(char *out, int status)
{
    const char *line = status_line(status);

    if (line)
        return put(out, line, strlen(line));
    out = put(out, "HTTP/1.1 ", 9);
    out = put_number(out, (size_t)status);
    return put(out, " \r\n", 3);
}

static bool has_content(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

static void set_date(struct sac_http_server *server)
{
    struct timespec now;
    struct tm utc;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(server->date, sizeof server->date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
    server->date_until_ns = server->now_ns + (uint64_t)(1000000000 - now.tv_nsec);
}

/* RFC 9110 wants it of a server with a clock; formatted once a second. */
static char *put_date(char *out, struct sac_http_server *server)
{
    if (server->now_ns >= server->date_until_ns)
        set_date(server);
    return put(out, server->date, strlen(server->date));
}

size_t sac_answer_head(const struct sac_http_request *request, bool close, char *out)
{
    const struct sac_answer *answer = &request->answer;
    char *at = put_date(put_status(out, answer->status), request->server);

    if (has_content(answer->status)) {
        if (answer->content_type) {
            at = put(at, "Content-Type: ", 14);
            at = put(at, answer->content_type, strlen(answer->content_type));
            at = put(at, "\r\n", 2);
        }
        at = put(at, "Content-Length: ", 16);
        at = put_number(at, answer->content_length);
        at = put(at, "\r\n", 2);
    }
    if (close)
        at = put(at, "Connection: close\r\n", 19);
    else if (request->head.minor == 0)
        at = put(at, "Connection: keep-alive\r\n", 24);
    return (size_t)(at - out);
}

void sac_answer_done(struct sac_answer *answer)
{
    if (answer->data != answer->room)
        free(answer->data);
    answer->data = NULL;
}

/* Lays out headers, empty line and the body's copy; false without memory. */
static bool answer_fill(struct sac_http_request *request, const struct sac_http_response *response)
{
    struct sac_answer *answer = &request->answer;
    size_t headers = response->headers ? strlen(response->headers) : 0;
    size_t body = has_content(response->status) ? response->body_size : 0, size;

    answer->status = response->status;
    answer->content_type = response->content_type;
    answer->content_length = body;
    if (request->no_body)
        body = 0;
    answer->body = response->body_static && body > 0 ? response->body : NULL;
    size_t copy = answer->body ? 0 : body;
    if (headers > SAC_EXTRA_HEADERS_MAX || response->body_size > INT_MAX ||
        __builtin_add_overflow(headers + 2, copy, &size))
        return false;
    answer->data = size <= sizeof answer->room ? answer->room : malloc(size);
    if (!answer->data)
        return false;
    char *at = put(answer->data, response->headers ? response->headers : "", headers);
    at = put(at, "\r\n", 2);
    if (copy > 0)
        memcpy(at, response->body, copy);
    answer->data_size = size;
    answer->headers_size = headers + 2;
    return true;
}

static void answer_response(struct sac_http_request *request,
                            const struct sac_http_response *response)
{
    static const char failed[] = "{\"error\":\"the answer could not be built\"}\n";
    const struct sac_http_response last = {500, "application/json", failed, sizeof failed - 1,
                                           .body_static = true};

    assert(response->status >= 200 && response->status <= 999);
    if (!answer_fill(request, response))
        answer_fill(request, &last); /* fits into the room */
}

static void deliver_answer(struct sac_http_mail *mail)
{
    /* mail is the first field. */
    sac_conn_answered((struct sac_http_request *)mail);
}

/* Wins the right to answer, on the loop thread: who else changes the phase runs on this
 * thread, too. False when on_gone is the caller: it takes care of the rest. */
static bool claim_here(struct sac_http_request *request)
{
    int phase = atomic_load_explicit(&request->phase, memory_order_relaxed);

    assert(phase != SAC_REQUEST_ANSWERED && "a request is answered once");
    atomic_store_explicit(&request->phase, SAC_REQUEST_ANSWERED, memory_order_relaxed);
    return phase != SAC_REQUEST_TELLING;
}

/* The same on another thread, which waits while on_gone is running. */
static void claim_elsewhere(struct sac_http_request *request)
{
    for (;;) {
        int phase = SAC_REQUEST_OPEN;
        if (atomic_compare_exchange_strong(&request->phase, &phase, SAC_REQUEST_ANSWERED))
            return;
        assert(phase != SAC_REQUEST_ANSWERED && "a request is answered once");
        if (phase == SAC_REQUEST_GONE) {
            atomic_store(&request->phase, SAC_REQUEST_ANSWERED);
            return;
        }
        sched_yield();
    }
}

void sac_http_reply(struct sac_http_request *request, const struct sac_http_response *response)
{
    struct sac_http_server *server = request->server;
    bool here = sac_server_is_running_here(server);

    if (atomic_load(&request->phase) == SAC_REQUEST_OPEN)
        answer_response(request, response);
    if (here) {
        if (claim_here(request))
            sac_conn_answered(request);
    } else {
        claim_elsewhere(request);
        request->mail.deliver = deliver_answer;
        sac_http_server_mail(server, &request->mail);
    }
}

/* {"error":"…"} in `buf`. */
static void put_error(struct sac_buf *buf, const char *text)
{
    sac_buf_puts(buf, "{\"error\":");
    sac_buf_put_json(buf, text, strlen(text));
    sac_buf_puts(buf, "}\n");
}

void sac_answer_error(struct sac_http_request *request, int status, const char *headers,
                      const char *text)
{
    struct sac_buf buf = {0};

    put_error(&buf, text);
    const struct sac_http_response response = {.status = status,
                                               .content_type = "application/json",
                                               .body = buf.failed ? NULL : buf.data,
                                               .body_size = buf.failed ? 0 : buf.len,
                                               .headers = headers};
    answer_response(request, &response);
    sac_buf_done(&buf);
}

void sac_http_reply_error(struct sac_http_request *request, int status, const char *format, ...)
{
    struct sac_buf buf = {0};
    char text[SAC_ERROR_TEXT];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put_error(&buf, text);
    const struct sac_http_response response = {.status = status,
                                               .content_type = "application/json",
                                               .body = buf.failed ? NULL : buf.data,
                                               .body_size = buf.failed ? 0 : buf.len,
                                               .headers =
                                                   status == 503 ? "Retry-After: 1\r\n" : NULL};
    sac_http_reply(request, &response);
    sac_buf_done(&buf);
}
