/*
 * HTTP/1.x framing of one connection's bytes, within limits; no sockets. Our
 * own scan takes the head line by line and refuses what llhttp lets through;
 * llhttp then judges the whole head and decodes chunked bodies. What comes out
 * does not depend on how the bytes were cut. One thread at a time.
 */
#ifndef SAC_HTTP_FRAMING_H
#define SAC_HTTP_FRAMING_H

#include <stdint.h>

#include <llhttp.h>

#include "http/server.h"

/* A stretch of the head, by offset: the head may move while it grows. */
struct sac_span {
    uint32_t at, size;
};

struct sac_framing_head {
    char *bytes; /* the caller's first room, or memory of our own */
    char *room;  /* the caller's */
    size_t size, capacity;
    size_t line_at; /* where the line that is being read begins */
    int header_count;
    bool own; /* bytes was allocated */

    /* Valid once the head is complete. */
    llhttp_method_t method;
    int minor; /* of HTTP/1.x */
    bool chunked, keep_alive, upgrade;
    bool has_host, has_length, has_encoding, has_expect;
    uint64_t content_length;
    struct sac_span target, host, expect, length, encoding;
};

/* A body that arrives in chunks. */
struct sac_framing_body {
    uint8_t *data; /* malloc */
    size_t size, capacity;
    size_t size_max;
};

enum sac_framing_result {
    SAC_FRAMING_MORE,  /* all bytes used, the message goes on */
    SAC_FRAMING_DONE,  /* the head, or the chunked body, is complete */
    SAC_FRAMING_ERROR, /* see status and text; nothing may be parsed after it */
};

struct sac_framing {
    llhttp_t parser;
    const struct sac_http_limits *limits; /* borrowed, no zeroes */
    struct sac_framing_body *body;
    int status;       /* of the refusal; 0: close without a word */
    const char *text; /* static storage */
    size_t blank;     /* bytes of empty lines before the head */
    size_t raw;       /* of a chunked body, framing included */
    size_t extensions, trailers;
    int chunks, trailer_count;
    bool ended;
};

/* `room` (room_size bytes) is borrowed for heads that fit into it. */
void sac_framing_head_init(struct sac_framing_head *head, char *room, size_t room_size);
void sac_framing_head_done(struct sac_framing_head *head);

/* Forgets the message before; the framing must have no error. */
void sac_framing_start(struct sac_framing *framing, const struct sac_http_limits *limits);
enum sac_framing_result sac_framing_read_head(struct sac_framing *framing,
                                              struct sac_framing_head *head, const char *data,
                                              size_t size, size_t *ret_used);
/* After a complete head whose `chunked` is set; appends to body. */
enum sac_framing_result sac_framing_read_chunks(struct sac_framing *framing,
                                                struct sac_framing_body *body, const char *data,
                                                size_t size, size_t *ret_used);

/* The value of the header, of a complete head. */
struct sac_http_text sac_framing_header(const struct sac_framing_head *head, const char *name);

#endif
