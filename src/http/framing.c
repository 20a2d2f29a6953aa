#include "http/framing.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What llhttp may spend on one chunk beside its data and extension: the size
 * in hexadecimal and two line ends. More means padding with zeroes. */
#define CHUNK_OVERHEAD 32

static enum sac_framing_result refuse(struct sac_framing *framing, int status, const char *text)
{
    framing->status = status;
    framing->text = text;
    return SAC_FRAMING_ERROR;
}

void sac_framing_head_init(struct sac_framing_head *head, char *room, size_t room_size)
{
    /* The spans are written before they are read: see the has_ flags. */
    head->bytes = head->room = room;
    head->size = head->line_at = 0;
    head->capacity = room_size;
    head->header_count = 0;
    head->own = false;
    head->minor = 0;
    head->chunked = head->keep_alive = head->upgrade = false;
    head->has_host = head->has_length = head->has_encoding = head->has_expect = false;
    head->content_length = 0;
}

void sac_framing_head_done(struct sac_framing_head *head)
{
    if (head->own)
        free(head->bytes);
    head->own = false;
    head->bytes = head->room;
    head->size = 0;
}

void sac_framing_start(struct sac_framing *framing, const struct sac_http_limits *limits)
{
    framing->limits = limits;
    framing->body = NULL;
    framing->status = 0;
    framing->text = NULL;
    framing->blank = framing->raw = framing->extensions = framing->trailers = 0;
    framing->chunks = framing->trailer_count = 0;
    framing->ended = false;
}

/* The head, line by line. */

static bool head_append(struct sac_framing_head *head, const char *data, size_t size)
{
    if (size > head->capacity - head->size) {
        /* The sizes are below header_bytes_max: no overflow. */
        size_t capacity = (head->size + size) * 2;
        char *bytes = malloc(capacity);
        if (!bytes)
            return false;
        memcpy(bytes, head->bytes, head->size);
        if (head->own)
            free(head->bytes);
        head->bytes = bytes;
        head->capacity = capacity;
        head->own = true;
    }
    memcpy(head->bytes + head->size, data, size);
    head->size += size;
    return true;
}

/* Whether one of eight bytes is below 0x20 or is 0x7f. */
static bool has_control(const char *eight)
{
    const uint64_t ones = 0x0101010101010101, tops = ones << 7;
    uint64_t word, other;

    memcpy(&word, eight, sizeof word);
    other = word ^ ones * 0x7f;
    return (((word - ones * 0x20) & ~word) | ((other - ones) & ~other)) & tops;
}

static bool has_no_control(const char *data, size_t size)
{
    size_t i = 0;

    for (; size - i >= 8; i += 8)
        if (has_control(data + i))
            return false;
    return size < 8 ? size == 0 : !has_control(data + size - 8);
}

/* No control bytes in a head, but the tab and the line end. */
static bool is_clean(const char *data, size_t size)
{
    bool ends = size >= 2 && data[size - 2] == '\r' && data[size - 1] == '\n';

    if (has_no_control(data, ends ? size - 2 : size))
        return true;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        if ((c < 0x20 && c != '\t' && c != '\r' && c != '\n') || c == 0x7f)
            return false;
    }
    return true;
}

static bool is_method(const char *at, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((at[i] < 'A' || at[i] > 'Z') && at[i] != '-' && at[i] != '_')
            return false;
    return size > 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1" or "HTTP/1.0"; `size` bytes follow the second space. */
static enum sac_framing_result check_version(struct sac_framing *framing,
                                             struct sac_framing_head *head, const char *at,
                                             size_t size)
{
    if (size != 8 || memcmp(at, "HTTP/", 5) != 0 || !is_digit(at[5]) || at[6] != '.' ||
        !is_digit(at[7]))
        return refuse(framing, 400, "the request line does not end in HTTP/1.1");
    if (at[5] != '1' || at[7] > '1') {
        /* The preface of HTTP/2 is no request: nobody would read the answer. */
        bool preface = at[5] == '2' && memcmp(head->bytes, "PRI ", 4) == 0;
        return refuse(framing, preface ? 0 : 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    head->minor = at[7] - '0';
    return SAC_FRAMING_MORE;
}

static bool is_target(const char *at, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (at[i] <= ' ' || at[i] > '~' || at[i] == '#')
            return false;
    return size > 0;
}

/* The first line, without its end: method SP target SP version. */
static enum sac_framing_result check_request_line(struct sac_framing *framing,
                                                  struct sac_framing_head *head, size_t size)
{
    const char *line = head->bytes, *end = line + size;
    const char *space = memchr(line, ' ', size);

    if (!space || !is_method(line, (size_t)(space - line)))
        return refuse(framing, 400, "the request line does not begin with a method and one space");
    const char *target = space + 1;
    space = memchr(target, ' ', (size_t)(end - target));
    if (!space)
        return target == end ? refuse(framing, 400, "the request line has no target")
                             : refuse(framing, 505, "HTTP/0.9 is not spoken here");
    if (!is_target(target, (size_t)(space - target)))
        return refuse(framing, 400,
                      "the request's target is empty or holds a byte that must be encoded");
    head->target = (struct sac_span){(uint32_t)(target - line), (uint32_t)(space - target)};
    return check_version(framing, head, space + 1, (size_t)(end - space - 1));
}

static bool is_name(const char *at, size_t size, const char *name, size_t name_size)
{
    return size == name_size && strncasecmp(at, name, size) == 0;
}

/* Keeps where the value of a header stands that may come once only. */
static enum sac_framing_result keep_once(struct sac_framing *framing, bool *has,
                                         struct sac_span *keep, struct sac_span value,
                                         const char *twice)
{
    if (*has)
        return refuse(framing, 400, twice);
    *has = true;
    *keep = value;
    return SAC_FRAMING_MORE;
}

static enum sac_framing_result keep_header(struct sac_framing *framing,
                                           struct sac_framing_head *head, const char *name,
                                           size_t name_size, struct sac_span value)
{
    if (is_name(name, name_size, "host", 4))
        return keep_once(framing, &head->has_host, &head->host, value, "there are two Host lines");
    if (is_name(name, name_size, "content-length", 14))
        return keep_once(framing, &head->has_length, &head->length, value,
                         "there are two Content-Length lines");
    if (is_name(name, name_size, "transfer-encoding", 17))
        return keep_once(framing, &head->has_encoding, &head->encoding, value,
                         "there are two Transfer-Encoding lines");
    if (is_name(name, name_size, "expect", 6))
        return keep_once(framing, &head->has_expect, &head->expect, value,
                         "there are two Expect lines");
    if (is_name(name, name_size, "upgrade", 7))
        head->upgrade = true;
    return SAC_FRAMING_MORE;
}

static struct sac_span trim(const char *bytes, size_t at, size_t end)
{
    while (at < end && (bytes[at] == ' ' || bytes[at] == '\t'))
        at++;
    while (end > at && (bytes[end - 1] == ' ' || bytes[end - 1] == '\t'))
        end--;
    return (struct sac_span){(uint32_t)at, (uint32_t)(end - at)};
}

/* A header's line, without its end. */
static enum sac_framing_result check_header_line(struct sac_framing *framing,
                                                 struct sac_framing_head *head, size_t size)
{
    const char *line = head->bytes + head->line_at;

    if (++head->header_count > framing->limits->header_count_max)
        return refuse(framing, 431, "the request has too many headers");
    if (*line == ' ' || *line == '\t')
        return refuse(framing, 400, "a header is continued on a second line");
    const char *colon = memchr(line, ':', size);
    if (!colon || colon == line)
        return refuse(framing, 400, "a header line has no name or no colon");
    size_t name_size = (size_t)(colon - line);
    if (line[name_size - 1] == ' ' || line[name_size - 1] == '\t')
        return refuse(framing, 400, "a header's name ends in a space");
    struct sac_span value = trim(head->bytes, head->line_at + name_size + 1, head->line_at + size);
    return keep_header(framing, head, line, name_size, value);
}

/* Transfer-Encoding is "chunked" alone, or refused. */
static enum sac_framing_result check_encoding(struct sac_framing *framing,
                                              const struct sac_framing_head *head)
{
    const char *at = head->bytes + head->encoding.at, *end = at + head->encoding.size;

    if (head->minor == 0)
        return refuse(framing, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (head->has_length)
        return refuse(framing, 400, "Content-Length and Transfer-Encoding exclude each other");
    if (is_name(at, head->encoding.size, "chunked", 7))
        return SAC_FRAMING_MORE;
    bool others = false;
    while (at <= end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        struct sac_span coding = trim(at, 0, (size_t)((comma ? comma : end) - at));
        bool chunked = is_name(at + coding.at, coding.size, "chunked", 7);
        if (coding.size == 0 || chunked == (comma != NULL))
            return refuse(framing, 400, "Transfer-Encoding does not end in one \"chunked\"");
        others |= !chunked;
        at = (comma ? comma : end) + 1;
    }
    return others ? refuse(framing, 501, "only the transfer coding \"chunked\" is understood")
                  : refuse(framing, 400, "Transfer-Encoding is malformed");
}

static enum sac_framing_result check_length(struct sac_framing *framing,
                                            const struct sac_framing_head *head)
{
    const char *at = head->bytes + head->length.at;

    for (size_t i = 0; i < head->length.size; i++)
        if (!is_digit(at[i]))
            return refuse(framing, 400, "Content-Length is not a number");
    if (head->length.size == 0)
        return refuse(framing, 400, "Content-Length is empty");
    return SAC_FRAMING_MORE;
}

static int on_pause(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

static const llhttp_settings_t head_settings = {.on_headers_complete = on_pause};

/* The whole head is there: llhttp's judgement, then what it lets through. */
static enum sac_framing_result judge_head(struct sac_framing *framing,
                                          struct sac_framing_head *head)
{
    enum sac_framing_result result = SAC_FRAMING_MORE;

    /* First, because a coding that we lack is 501 and llhttp says 400. */
    if (head->has_encoding)
        result = check_encoding(framing, head);
    if (result == SAC_FRAMING_MORE && head->has_length)
        result = check_length(framing, head);
    if (result != SAC_FRAMING_MORE)
        return result;

    llhttp_t *parser = &framing->parser;
    llhttp_init(parser, HTTP_REQUEST, &head_settings);
    if (llhttp_execute(parser, head->bytes, head->size) != HPE_PAUSED)
        return refuse(framing, 400, "the request's head is malformed");
    head->method = (llhttp_method_t)llhttp_get_method(parser);
    head->keep_alive = llhttp_should_keep_alive(parser) && !head->upgrade;
    head->chunked = head->has_encoding;
    head->content_length = head->has_length ? parser->content_length : 0;
    /* The two readings of one head must agree on where its body ends. */
    if (!(parser->flags & F_CHUNKED) != !head->chunked ||
        !(parser->flags & F_CONTENT_LENGTH) != !head->has_length)
        return refuse(framing, 400, "the request's framing is ambiguous");
    return SAC_FRAMING_DONE;
}

/* The line from line_at to the end has come whole. */
static enum sac_framing_result check_line(struct sac_framing *framing,
                                          struct sac_framing_head *head)
{
    const char *line = head->bytes + head->line_at;
    size_t size = head->size - head->line_at;
    enum sac_framing_result result;

    if (size < 2 || memchr(line, '\r', size) != line + size - 2)
        return refuse(framing, 400, "a line of the head does not end in CR LF");
    if (head->line_at == 0)
        result = check_request_line(framing, head, size - 2);
    else if (size == 2)
        result = judge_head(framing, head);
    else
        result = check_header_line(framing, head, size - 2);
    head->line_at = head->size;
    return result;
}

/* Takes one line, or what there is of it. */
static enum sac_framing_result take_line(struct sac_framing *framing, struct sac_framing_head *head,
                                         const char *data, size_t size, size_t *used)
{
    const struct sac_http_limits *limits = framing->limits;
    const char *end = memchr(data, '\n', size);
    size_t take = end ? (size_t)(end - data) + 1 : size;

    *used += take;
    if (head->size - head->line_at + take > limits->line_bytes_max)
        return refuse(framing, 431, "a line of the request's head is too long");
    if (framing->blank + head->size + take > limits->header_bytes_max)
        return refuse(framing, 431, "the request's head is too large");
    if (!is_clean(data, take))
        return refuse(framing, 400, "the request's head holds a control byte");
    if (!head_append(head, data, take))
        return refuse(framing, 503, "out of memory");
    return end ? check_line(framing, head) : SAC_FRAMING_MORE;
}

/* Some clients send an empty line after a body: at most a few are skipped. */
static size_t skip_blank(struct sac_framing *framing, const char *data, size_t size)
{
    size_t used = 0;

    while (used < size && framing->blank < 8 &&
           data[used] == (framing->blank % 2 == 0 ? '\r' : '\n')) {
        framing->blank++;
        used++;
    }
    return used;
}

enum sac_framing_result sac_framing_read_head(struct sac_framing *framing,
                                              struct sac_framing_head *head, const char *data,
                                              size_t size, size_t *ret_used)
{
    size_t used = head->size == 0 ? skip_blank(framing, data, size) : 0;
    enum sac_framing_result result = SAC_FRAMING_MORE;

    if (head->size == 0 && used < size && framing->blank % 2 != 0)
        result = refuse(framing, 400, "a bare CR stands before the request");
    while (result == SAC_FRAMING_MORE && used < size)
        result = take_line(framing, head, data + used, size - used, &used);
    *ret_used = used;
    return result;
}

/* Chunked bodies. */

static int refuse_chunks(struct sac_framing *framing, int status, const char *text)
{
    refuse(framing, status, text);
    return HPE_USER;
}

/* What a body within the limits can hold beside its data; more is a size padded
 * with zeroes, which llhttp lets go on for ever. */
static size_t overhead_max(const struct sac_framing *framing)
{
    return (size_t)framing->chunks * CHUNK_OVERHEAD + CHUNK_OVERHEAD +
           framing->limits->chunk_extension_bytes_max + framing->limits->header_bytes_max;
}

static int on_chunk_header(llhttp_t *parser)
{
    struct sac_framing *framing = parser->data;
    struct sac_framing_body *body = framing->body;

    if (++framing->chunks > framing->limits->chunk_count_max)
        return refuse_chunks(framing, 400, "the body has too many chunks");
    if (parser->content_length > body->size_max - body->size)
        return refuse_chunks(framing, 413, "the body is larger than is taken here");
    return 0;
}

static int on_extension(llhttp_t *parser, const char *at, size_t size)
{
    struct sac_framing *framing = parser->data;

    (void)at;
    framing->extensions += size;
    if (framing->extensions > framing->limits->chunk_extension_bytes_max)
        return refuse_chunks(framing, 400, "the body's chunk extensions are too long");
    return 0;
}

static int on_trailer(llhttp_t *parser, const char *at, size_t size)
{
    struct sac_framing *framing = parser->data;

    (void)at;
    framing->trailers += size;
    if (framing->trailers > framing->limits->header_bytes_max)
        return refuse_chunks(framing, 431, "the body's trailers are too large");
    return 0;
}

static int on_trailer_complete(llhttp_t *parser)
{
    struct sac_framing *framing = parser->data;

    if (++framing->trailer_count > framing->limits->header_count_max)
        return refuse_chunks(framing, 431, "the body has too many trailers");
    return 0;
}

static bool body_reserve(struct sac_framing_body *body, size_t more)
{
    if (more <= body->capacity - body->size)
        return true;
    /* more was checked against size_max: no overflow before that. */
    size_t need = body->size + more, capacity = body->capacity ? body->capacity : 4096;
    while (capacity < need)
        capacity *= 2;
    if (capacity > body->size_max)
        capacity = body->size_max;
    uint8_t *data = realloc(body->data, capacity);
    if (!data)
        return false;
    body->data = data;
    body->capacity = capacity;
    return true;
}

static int on_chunk_data(llhttp_t *parser, const char *at, size_t size)
{
    struct sac_framing *framing = parser->data;
    struct sac_framing_body *body = framing->body;

    if (size > body->size_max - body->size)
        return refuse_chunks(framing, 413, "the body is larger than is taken here");
    if (!body_reserve(body, size))
        return refuse_chunks(framing, 503, "out of memory");
    memcpy(body->data + body->size, at, size);
    body->size += size;
    return 0;
}

static int on_chunks_end(llhttp_t *parser)
{
    struct sac_framing *framing = parser->data;

    framing->ended = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t chunk_settings = {
    .on_chunk_header = on_chunk_header,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_header_field = on_trailer,
    .on_header_value = on_trailer,
    .on_header_value_complete = on_trailer_complete,
    .on_body = on_chunk_data,
    .on_message_complete = on_chunks_end,
};

enum sac_framing_result sac_framing_read_chunks(struct sac_framing *framing,
                                                struct sac_framing_body *body, const char *data,
                                                size_t size, size_t *ret_used)
{
    llhttp_t *parser = &framing->parser;

    if (!framing->body) {
        framing->body = body;
        parser->data = framing;
        parser->settings = (void *)&chunk_settings;
        llhttp_resume(parser);
    }
    llhttp_errno_t error = llhttp_execute(parser, data, size);
    size_t used = framing->ended ? (size_t)(llhttp_get_error_pos(parser) - data) : size;

    framing->raw += used;
    *ret_used = used;
    if (framing->status != 0)
        return SAC_FRAMING_ERROR;
    if (framing->raw - body->size > overhead_max(framing))
        return refuse(framing, 400, "the body's chunks are padded");
    if (framing->ended)
        return SAC_FRAMING_DONE;
    return error == HPE_OK ? SAC_FRAMING_MORE
                           : refuse(framing, 400, "the body's chunks are malformed");
}

struct sac_http_text sac_framing_header(const struct sac_framing_head *head, const char *name)
{
    size_t name_size = strlen(name);
    const char *line = memchr(head->bytes, '\n', head->size), *end = head->bytes + head->size;

    while (line && ++line < end - 2) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if ((size_t)(stop - line) > name_size && line[name_size] == ':' &&
            strncasecmp(line, name, name_size) == 0) {
            struct sac_span value = trim(line, name_size + 1, (size_t)(stop - line) - 1);
            return (struct sac_http_text){line + value.at, value.size};
        }
        line = stop;
    }
    return (struct sac_http_text){NULL, 0};
}
