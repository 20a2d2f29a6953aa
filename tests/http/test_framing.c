/*
 * What is one request, and what is none. Every line of the corpus is sent
 * whole, byte by byte, and pipelined before a canary that nobody may answer.
 * The statuses are those of RFC 9110 and 9112, and of the list in our limits.
 */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOST "Host: localhost\r\n"
#define CANARY "GET /canary HTTP/1.1\r\n" HOST "\r\n"

struct line {
    const char *name;
    const char *bytes;
    int status;  /* 0: closed without a word */
    size_t size; /* 0: strlen */
};

static struct fixture fixture;

static const struct line refused[] = {
    {"empty Transfer-Encoding", "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n\r\n", 400,
     0},
    {"empty Transfer-Encoding with Content-Length",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: \r\nContent-Length: 3\r\n\r\nabc", 400, 0},
    {"Transfer-Encoding on HTTP/1.0",
     "POST /echo HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, 0},
    {"an empty coding before chunked",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", 400, 0},
    {"an empty coding after chunked",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400, 0},
    {"gzip before chunked",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, 0},
    {"gzip after chunked",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, 0},
    {"gzip alone", "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n\r\n", 400, 0},
    {"chunked twice",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, 0},
    {"two lines of Transfer-Encoding",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400, 0},
    {"a coding that begins like chunked",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 400, 0},
    {"no Host", "GET /null HTTP/1.1\r\n\r\n", 400, 0},
    {"two Hosts", "GET /null HTTP/1.1\r\n" HOST HOST "\r\n", 400, 0},
    {"a Host with userinfo", "GET /null HTTP/1.1\r\nHost: me@localhost\r\n\r\n", 400, 0},
    {"a Host with a path", "GET /null HTTP/1.1\r\nHost: localhost/x\r\n\r\n", 400, 0},
    {"a Host with a bad port", "GET /null HTTP/1.1\r\nHost: localhost:8x\r\n\r\n", 400, 0},
    {"an empty Host", "GET /null HTTP/1.1\r\nHost:\r\n\r\n", 400, 0},
    {"an unclosed bracket in Host", "GET /null HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, 0},
    {"a foreign Host", "GET /null HTTP/1.1\r\nHost: example.com\r\n\r\n", 421, 0},
    {"a Host that begins like ours", "GET /null HTTP/1.1\r\nHost: localhost.example\r\n\r\n", 421,
     0},
    {"a Host that begins like loopback", "GET /null HTTP/1.1\r\nHost: 127.0.0.1.example\r\n\r\n",
     421, 0},
    {"a foreign absolute target", "GET http://example.com/null HTTP/1.1\r\n" HOST "\r\n", 421, 0},
    {"an absolute target with userinfo", "GET http://a@localhost/null HTTP/1.1\r\n" HOST "\r\n",
     400, 0},
    {"an absolute target of another scheme", "GET ftp://localhost/null HTTP/1.1\r\n" HOST "\r\n",
     400, 0},
    {"a target without a slash", "GET null HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"a star for GET", "GET * HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"HTTP/0.9 in full", "GET /null HTTP/0.9\r\n" HOST "\r\n", 505, 0},
    {"HTTP/0.9 as it was", "GET /null\r\n", 505, 0},
    {"HTTP/2.0", "GET /null HTTP/2.0\r\n" HOST "\r\n", 505, 0},
    {"HTTP/1.2", "GET /null HTTP/1.2\r\n" HOST "\r\n", 505, 0},
    {"HTTP/11", "GET /null HTTP/11\r\n" HOST "\r\n", 400, 0},
    {"http in small letters", "GET /null http/1.1\r\n" HOST "\r\n", 400, 0},
    {"RTSP", "SETUP /null RTSP/1.0\r\n" HOST "\r\n", 400, 0},
    {"two spaces before the target", "GET  /null HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"two spaces before the version", "GET /null  HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"a space after the version", "GET /null HTTP/1.1 \r\n" HOST "\r\n", 400, 0},
    {"a space before the method", " GET /null HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"a tab in the request line", "GET\t/null HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"a fragment", "GET /null#x HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"a target byte beyond ASCII", "GET /n\xc3\xbcll HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"a broken escape in the path", "GET /nu%4 HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"an escaped NUL in the path", "GET /null%00 HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"Content-Length of 2^64-1",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551615\r\n\r\n", 413, 0},
    {"Content-Length of 2^64",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551616\r\n\r\n", 400, 0},
    {"Content-Length above the route's limit",
     "POST /small HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\nabcdefghijk", 413, 0},
    {"chunks above the route's limit",
     "POST /small HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n",
     413, 0},
    {"a huge chunk",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", 413,
     0},
    {"CONNECT", "CONNECT localhost:80 HTTP/1.1\r\n" HOST "\r\n", 405, 0},
    {"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, 0},
    {"both framings",
     "POST /echo HTTP/1.1\r\n" HOST
     "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400, 0},
    {"both framings, the other way",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
     400, 0},
    {"two Content-Lengths",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, 0},
    {"a list of Content-Lengths", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3, 3\r\n\r\nabc",
     400, 0},
    {"a signed Content-Length", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: +3\r\n\r\nabc", 400,
     0},
    {"a negative Content-Length", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: -3\r\n\r\nabc",
     400, 0},
    {"a hexadecimal Content-Length",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 0x3\r\n\r\nabc", 400, 0},
    {"an empty Content-Length", "POST /echo HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", 400, 0},
    {"a Content-Length in two words",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3 3\r\n\r\nabc", 400, 0},
    {"a space before the colon", "GET /null HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, 0},
    {"a header without a colon", "GET /null HTTP/1.1\r\n" HOST "Word\r\n\r\n", 400, 0},
    {"a header without a name", "GET /null HTTP/1.1\r\n" HOST ": x\r\n\r\n", 400, 0},
    {"a header's name with a bracket", "GET /null HTTP/1.1\r\n" HOST "A(b: x\r\n\r\n", 400, 0},
    {"a continued header", "GET /null HTTP/1.1\r\n" HOST "A: b\r\n c\r\n\r\n", 400, 0},
    {"a continued first header", "GET /null HTTP/1.1\r\n A: b\r\n" HOST "\r\n", 400, 0},
    {"bare LF everywhere", "GET /null HTTP/1.1\nHost: localhost\n\n", 400, 0},
    {"bare LF after a header", "GET /null HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n", 400, 0},
    {"bare LF at the end", "GET /null HTTP/1.1\r\nHost: localhost\r\n\n", 400, 0},
    {"bare CR in a header", "GET /null HTTP/1.1\r\n" HOST "A: b\rc\r\n\r\n", 400, 0},
    {"bare CR in the request line", "GET /nu\rll HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"bare CR before the request", "\rGET /null HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"CR CR LF", "GET /null HTTP/1.1\r\r\n" HOST "\r\n", 400, 0},
    {"a NUL in a header", "GET /null HTTP/1.1\r\nHost: local\0host\r\n\r\n", 400, 40},
    {"a NUL in the target", "GET /nu\0ll HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 40},
    {"a control byte in a header", "GET /null HTTP/1.1\r\n" HOST "A: \x01\r\n\r\n", 400, 0},
    {"DEL in a header", "GET /null HTTP/1.1\r\n" HOST "A: \x7f\r\n\r\n", 400, 0},
    {"an unknown method", "BREW /null HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"a method in small letters", "get /null HTTP/1.1\r\n" HOST "\r\n", 400, 0},
    {"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 abc\r\n", 400, 17},
    {"a chunk size that is no number",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, 0},
    {"an empty chunk size", "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n\r\n",
     400, 0},
    {"a negative chunk size",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400, 0},
    {"a chunk size with 0x",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400,
     0},
    {"a chunk size beyond 64 bits",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n",
     400, 0},
    {"a space before the chunk size",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n", 400,
     0},
    {"a chunk longer than its size",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400,
     0},
    {"bare LF after a chunk's size",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400, 0},
    {"bare LF after a chunk's data",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n", 400, 0},
    {"bare CR after a chunk's size",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\rXa\r\n0\r\n\r\n", 400, 0},
    {"bare LF in a chunk extension",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1;a\na\r\n0\r\n\r\n", 400,
     0},
    {"an expectation that we lack",
     "POST /echo HTTP/1.1\r\n" HOST "Expect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417, 0},
    {"a body for a path that is not there",
     "POST /nothing HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\na", 404, 0},
    {"a body for a method that is not there",
     "PUT /null HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\na", 405, 0},
};

/* Longer ones: `head`, then `piece` so many times, then `tail`. */
static const struct built {
    const char *name, *head, *piece;
    int times;
    const char *tail;
    int status;
} built[] = {
    {"a request line over the limit", "GET /", "a", 8192, " HTTP/1.1\r\n" HOST "\r\n", 431},
    {"a header line over the limit", "GET /null HTTP/1.1\r\n" HOST "A: ", "b", 8192, "\r\n\r\n",
     431},
    {"spaces before a value over the limit", "GET /null HTTP/1.1\r\n" HOST "A: ", " ", 8192,
     "\r\n\r\n", 431},
    {"a head over the limit", "GET /null HTTP/1.1\r\n" HOST,
     "A: 0123456789012345678901234567890123456789012345678901234567890123456789"
     "0123456789012345678901234567890123456789012345678901234567890123456789"
     "0123456789012345678901234567890123456789012345678901234567890123456789\r\n",
     90, "\r\n", 431},
    {"101 headers", "GET /null HTTP/1.1\r\n" HOST, "A: b\r\n", 100, "\r\n", 431},
    {"chunks over the count", "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n",
     "1\r\na\r\n", 1001, "0\r\n\r\n", 400},
    {"one chunk extension over the limit",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1;", "e", 17000,
     "\r\na\r\n0\r\n\r\n", 400},
    {"many chunk extensions over the limit",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n",
     "1;abcdefghijklmnopqrstuvwxyz=12345678901234\r\na\r\n", 500, "0\r\n\r\n", 400},
    {"a chunk size padded with zeroes",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", "0", 40000,
     "1\r\na\r\n0\r\n\r\n", 400},
    {"trailers over the limit",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\nA: ", "b", 17000,
     "\r\n\r\n", 431},
    {"trailers over the count",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n", 101,
     "\r\n", 431},
    {"empty lines without end", "", "\r\n", 10, "", 400},
};

static const struct line accepted[] = {
    {"plain", "GET /null HTTP/1.1\r\n" HOST "\r\n", 200, 0},
    {"an empty line before", "\r\nGET /null HTTP/1.1\r\n" HOST "\r\n", 200, 0},
    {"Host with a port", "GET /null HTTP/1.1\r\nHost: localhost:8000\r\n\r\n", 200, 0},
    {"Host in capitals", "GET /null HTTP/1.1\r\nHOST:LOCALHOST\r\n\r\n", 200, 0},
    {"Host 127.1.2.3", "GET /null HTTP/1.1\r\nHost: 127.1.2.3:1\r\n\r\n", 200, 0},
    {"Host [::1]", "GET /null HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", 200, 0},
    {"a Host on the list", "GET /null HTTP/1.1\r\nHost: pictures.example:80\r\n\r\n", 200, 0},
    {"an absolute target", "GET http://localhost/null HTTP/1.1\r\n" HOST "\r\n", 200, 0},
    {"spaces around a value", "GET /null HTTP/1.1\r\nHost: \t localhost \t\r\n\r\n", 200, 0},
    {"100 headers at most", "GET /null HTTP/1.1\r\n" HOST "A: b\r\nC:\r\n\r\n", 200, 0},
    {"a body", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", 200, 0},
    {"a Content-Length with zeroes",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 0003\r\n\r\nabc", 200, 0},
    {"an empty body", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", 200, 0},
    {"no body", "POST /echo HTTP/1.1\r\n" HOST "\r\n", 200, 0},
    {"chunks",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nT: u\r\n\r\n",
     200, 0},
    {"no chunks", "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200,
     0},
    {"nothing there", "GET /nothing HTTP/1.1\r\n" HOST "\r\n", 404, 0},
    {"not that method", "PUT /null HTTP/1.1\r\n" HOST "\r\n", 405, 0},
    {"options", "OPTIONS /null HTTP/1.1\r\n" HOST "\r\n", 204, 0},
    {"options of all", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 204, 0},
    {"an expectation that we lack, without a body",
     "GET /null HTTP/1.1\r\n" HOST "Expect: tea\r\n\r\n", 417, 0},
};

/* Answered, and the connection ends: the canary is not. */
static const struct line last[] = {
    {"Connection: close", "GET /null HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", 200, 0},
    {"Upgrade", "GET /null HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
     200, 0},
    {"Upgrade with a body",
     "POST /echo HTTP/1.1\r\n" HOST
     "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
     200, 0},
    {"Upgrade with chunks",
     "POST /echo HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: h2c\r\n"
     "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     200, 0},
    {"HTTP/1.0", "GET /null HTTP/1.0\r\n" HOST "\r\n", 200, 0},
    {"HTTP/1.0 without a Host", "GET /null HTTP/1.0\r\n\r\n", 200, 0},
};

enum feed { WHOLE, BYTES, CANARY_AFTER, CANARY_BYTES, FEEDS };

/* Sends in one of the ways, reads to the end; the caller frees. */
static char *exchange(const void *bytes, size_t size, enum feed feed)
{
    int fd = client_connect(&fixture);
    char *all = malloc(size + sizeof CANARY);

    assert_non_null(all);
    memcpy(all, bytes, size);
    memcpy(all + size, CANARY, sizeof CANARY);
    if (feed == CANARY_AFTER || feed == CANARY_BYTES)
        size += sizeof CANARY - 1;
    if (feed == BYTES || feed == CANARY_BYTES)
        client_drip(fd, all, size);
    else
        client_send(fd, all, size);
    free(all);
    char *text = client_read_all(fd, NULL);
    close(fd);
    return text;
}

static void check_ending(const char *name, const void *bytes, size_t size, int status)
{
    for (int feed = 0; feed < FEEDS; feed++) {
        int got = 0, before = atomic_load(&fixture.canaries);
        char *text = exchange(bytes, size, (enum feed)feed);
        if (!text)
            fail_msg("%s (feed %d): the connection stays open", name, feed);
        sscanf(text, "HTTP/1.1 %d", &got);
        if (got != status || count_answers(text) != (status != 0))
            fail_msg("%s (feed %d): expected one %d, got: %s", name, feed, status, text);
        if (status != 0 && !strstr(text, "\r\nConnection: close\r\n"))
            fail_msg("%s (feed %d): no Connection: close in: %s", name, feed, text);
        if (status >= 400 && !strstr(text, "\r\n\r\n{\"error\":\""))
            fail_msg("%s (feed %d): no sentence in: %s", name, feed, text);
        free(text);
        if (atomic_load(&fixture.canaries) != before)
            fail_msg("%s (feed %d): the canary was answered", name, feed);
    }
}

static void what_is_no_request_is_refused_once_and_ends_the_connection(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        check_ending(refused[i].name, refused[i].bytes,
                     refused[i].size ? refused[i].size : strlen(refused[i].bytes),
                     refused[i].status);
}

/* Lines are looked at eight bytes at a time; RFC 9110, 5.5: 0x80 and above are let pass. */
static void a_control_byte_is_refused_wherever_it_stands(void **state)
{
    static const struct {
        char byte;
        int status;
    } bytes[] = {{0, 400},    {1, 400},    {0x1f, 400},       {0x7f, 400},      {'\t', 200},
                 {0x20, 200}, {0x7e, 200}, {(char)0x80, 200}, {(char)0xff, 200}};
    static const char head[] =
        "GET /null HTTP/1.1\r\n" HOST "Connection: close\r\nA: 0123456789abcdef\r\n\r\n";
    const size_t value = sizeof head - 1 - 4 - 16;

    (void)state;
    for (size_t at = 0; at < 16; at++)
        for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
            char text[sizeof head], status[16];
            memcpy(text, head, sizeof head);
            text[value + at] = bytes[i].byte;
            char *answer = exchange(text, sizeof head - 1, WHOLE);
            snprintf(status, sizeof status, "HTTP/1.1 %d ", bytes[i].status);
            if (strncmp(answer, status, strlen(status)) != 0)
                fail_msg("byte %02x at %zu: %.20s", (unsigned)bytes[i].byte & 255, at, answer);
            free(answer);
        }
}

static void what_is_over_a_limit_is_refused_once_and_ends_the_connection(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof built / sizeof *built; i++) {
        const struct built *line = &built[i];
        size_t head = strlen(line->head), piece = strlen(line->piece), at = head;
        char *bytes = malloc(head + piece * (size_t)line->times + strlen(line->tail) + 1);
        assert_non_null(bytes);
        memcpy(bytes, line->head, head);
        for (int j = 0; j < line->times; j++, at += piece)
            memcpy(bytes + at, line->piece, piece);
        strcpy(bytes + at, line->tail);
        check_ending(line->name, bytes, strlen(bytes), line->status);
        free(bytes);
    }
}

static void a_last_request_is_answered_and_nothing_after_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof last / sizeof *last; i++)
        check_ending(last[i].name, last[i].bytes, strlen(last[i].bytes), last[i].status);
}

/* The counterpart of the canary test: after a good request it is answered. */
static void a_good_request_is_answered_and_so_is_the_next(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        for (int feed = 0; feed < 2; feed++) {
            int fd = client_connect(&fixture), before = atomic_load(&fixture.canaries);
            size_t size = strlen(accepted[i].bytes);
            if (feed == BYTES)
                client_drip(fd, accepted[i].bytes, size);
            else
                client_send(fd, accepted[i].bytes, size);
            client_puts(fd, CANARY);
            struct answer first = client_read(fd, false), second = client_read(fd, false);
            if (first.status != accepted[i].status)
                fail_msg("%s (feed %d): expected %d, got %s %s", accepted[i].name, feed,
                         accepted[i].status, first.head, first.body);
            if (second.status != 200 || atomic_load(&fixture.canaries) != before + 1)
                fail_msg("%s (feed %d): the canary got %d", accepted[i].name, feed, second.status);
            answer_done(&first);
            answer_done(&second);
            close(fd);
        }
    }
}

static int start(void **state)
{
    static const char *const hosts[] = {"pictures.example"};
    const struct sac_http_options options = {
        .limits = {.chunk_count_max = 1000}, .hosts_allowed = hosts, .hosts_allowed_count = 1};

    (void)state;
    fixture_start(&fixture, &options);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fixture_stop(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_request_is_refused_once_and_ends_the_connection),
        cmocka_unit_test(a_control_byte_is_refused_wherever_it_stands),
        cmocka_unit_test(what_is_over_a_limit_is_refused_once_and_ends_the_connection),
        cmocka_unit_test(a_last_request_is_answered_and_nothing_after_it),
        cmocka_unit_test(a_good_request_is_answered_and_so_is_the_next),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
