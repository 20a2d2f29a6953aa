#include "http/multipart.h"

#include <string.h>
#include <strings.h>

/* A part's head, all lines together. */
#define PART_HEAD_MAX 4096
#define BOUNDARY_MAX 70

static struct sac_http_text text_of(const char *at, const char *end)
{
    return (struct sac_http_text){at, (size_t)(end - at)};
}

static struct sac_http_text trim(struct sac_http_text text)
{
    while (text.size > 0 && (*text.at == ' ' || *text.at == '\t'))
        text.at++, text.size--;
    while (text.size > 0 && (text.at[text.size - 1] == ' ' || text.at[text.size - 1] == '\t'))
        text.size--;
    return text;
}

static bool text_is(struct sac_http_text text, const char *other)
{
    return text.size == strlen(other) && strncasecmp(text.at, other, text.size) == 0;
}

/* Where a quoted string ends: its closing quote, or NULL. Browsers escape a
 * quote as %22; a backslash escapes only a quote or itself, for old ones. */
static const char *quoted_end(const char *at, const char *end)
{
    for (; at < end; at++) {
        if (*at == '\\' && at + 1 < end && (at[1] == '"' || at[1] == '\\'))
            at++;
        else if (*at == '"')
            return at;
    }
    return NULL;
}

/* One "; name=value" of a header, at `*at`. 1 and the pair, 0 at the end, -1
 * when malformed. */
static int next_parameter(const char **at, const char *end, struct sac_http_text *name,
                          struct sac_http_text *value)
{
    const char *s = *at;

    while (s < end && (*s == ' ' || *s == '\t' || *s == ';'))
        s++;
    if (s == end)
        return 0;
    const char *equals = memchr(s, '=', (size_t)(end - s));
    const char *stop = memchr(s, ';', (size_t)(end - s));
    if (!equals || (stop && stop < equals))
        return -1;
    *name = trim(text_of(s, equals));
    s = equals + 1;
    if (s < end && *s == '"') {
        stop = quoted_end(s + 1, end);
        if (!stop)
            return -1;
        *value = text_of(s + 1, stop);
        *at = stop + 1;
    } else {
        stop = stop ? stop : end;
        *value = trim(text_of(s, stop));
        *at = stop;
    }
    return 1;
}

/* RFC 2046: bchars, not ending in a space. */
static bool is_boundary(struct sac_http_text boundary)
{
    if (boundary.size == 0 || boundary.size > BOUNDARY_MAX)
        return false;
    for (size_t i = 0; i < boundary.size; i++) {
        char c = boundary.at[i];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
              memchr("'()+_,-./:=? ", c, 13)))
            return false;
    }
    return boundary.at[boundary.size - 1] != ' ';
}

/* Finds the boundary among the parameters after "multipart/form-data". */
static int find_boundary(const char *at, const char *end, struct sac_http_text *ret,
                         struct sac_error *err)
{
    struct sac_http_text name, value;
    bool found = false;
    int more;

    while ((more = next_parameter(&at, end, &name, &value)) == 1) {
        if (!text_is(name, "boundary"))
            continue;
        if (found)
            return sac_fail(err, SAC_EFORMAT, "multipart/form-data has two boundaries");
        found = true;
        *ret = value;
    }
    if (more < 0)
        return sac_fail(err, SAC_EFORMAT, "the parameters of multipart/form-data are malformed");
    if (!found)
        return sac_fail(err, SAC_EFORMAT, "multipart/form-data has no boundary");
    if (!is_boundary(*ret))
        return sac_fail(err, SAC_EFORMAT,
                        "the boundary is malformed: expected 1 to 70 characters of RFC 2046");
    return 0;
}

int sac_multipart_init(struct sac_multipart *multipart, struct sac_http_text content_type,
                       struct sac_http_text body, int parts_max, struct sac_error *err)
{
    const char *at = content_type.at, *end = at + content_type.size;
    const char *semicolon = content_type.size > 0 ? memchr(at, ';', content_type.size) : NULL;
    struct sac_http_text boundary = {0};

    if (content_type.size == 0 ||
        !text_is(trim(text_of(at, semicolon ? semicolon : end)), "multipart/form-data"))
        return sac_fail(err, SAC_EUNSUPPORTED, "the body is not multipart/form-data");
    int rc = find_boundary(semicolon ? semicolon : end, end, &boundary, err);
    if (rc != 0)
        return rc;
    *multipart = (struct sac_multipart){.body = body, .parts_max = parts_max};
    memcpy(multipart->boundary, boundary.at, boundary.size);
    return 0;
}

/* The next delimiter ("--boundary" at the start of a line) at or after `from`:
 * NULL without one. The line's CR LF before it is not the data's. */
static const char *find_delimiter(const struct sac_multipart *multipart, const char *from)
{
    const char *end = multipart->body.at + multipart->body.size;
    char delimiter[BOUNDARY_MAX + 6] = "\r\n--";

    size_t size = strlen(multipart->boundary);
    memcpy(delimiter + 4, multipart->boundary, size);
    return memmem(from, (size_t)(end - from), delimiter, size + 4);
}

/* After a delimiter: 1 and the position of the part's head, 0 when it closes. */
static int after_delimiter(const char *at, const char *end, const char **ret, struct sac_error *err)
{
    if (end - at >= 2 && at[0] == '-' && at[1] == '-')
        return 0;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n')
        return sac_fail(err, SAC_EFORMAT, "a boundary is not followed by a line end");
    *ret = at + 2;
    return 1;
}

/* name and filename of Content-Disposition. */
static int read_disposition(struct sac_http_text value, struct sac_multipart_part *part,
                            struct sac_error *err)
{
    const char *at = value.at, *end = at + value.size;
    const char *semicolon = value.size > 0 ? memchr(at, ';', value.size) : NULL;
    struct sac_http_text name, text;
    int more;

    if (!text_is(trim(text_of(at, semicolon ? semicolon : end)), "form-data"))
        return sac_fail(err, SAC_EFORMAT, "a part's Content-Disposition is not form-data");
    at = semicolon ? semicolon : end;
    while ((more = next_parameter(&at, end, &name, &text)) == 1) {
        if (text_is(name, "name"))
            part->name = text;
        else if (text_is(name, "filename"))
            part->filename = text;
    }
    return more < 0 ? sac_fail(err, SAC_EFORMAT, "a part's Content-Disposition is malformed") : 0;
}

static int read_part_line(struct sac_http_text line, struct sac_multipart_part *part,
                          struct sac_error *err)
{
    const char *colon = memchr(line.at, ':', line.size), *end = line.at + line.size;

    if (!colon)
        return sac_fail(err, SAC_EFORMAT, "a part's header has no colon");
    struct sac_http_text name = text_of(line.at, colon), value = trim(text_of(colon + 1, end));
    if (text_is(name, "content-disposition"))
        return read_disposition(value, part, err);
    if (text_is(name, "content-type"))
        part->content_type = value;
    return 0;
}

/* Reads the lines up to the empty one; *ret is where the part's bytes begin. */
static int read_part_head(const char *at, const char *end, struct sac_multipart_part *part,
                          const char **ret, struct sac_error *err)
{
    const char *start = at;

    for (;;) {
        const char *stop = memmem(at, (size_t)(end - at), "\r\n", 2);
        if ((stop ? stop : end) - start > PART_HEAD_MAX)
            return sac_fail(err, SAC_ELIMIT, "a part's headers are larger than %d bytes",
                            PART_HEAD_MAX);
        if (!stop)
            return sac_fail(err, SAC_EFORMAT, "the body ends within a part's headers");
        if (stop == at) {
            *ret = at + 2;
            return 0;
        }
        int rc = read_part_line(text_of(at, stop), part, err);
        if (rc != 0)
            return rc;
        at = stop + 2;
    }
}

/* The first delimiter may begin the body; before it a preamble may stand. */
static const char *first_delimiter(const struct sac_multipart *multipart)
{
    const char *body = multipart->body.at;
    size_t size = strlen(multipart->boundary);

    if (multipart->body.size >= size + 2 && memcmp(body, "--", 2) == 0 &&
        memcmp(body + 2, multipart->boundary, size) == 0)
        return body + 2 + size;
    const char *found = multipart->body.size > 0 ? find_delimiter(multipart, body) : NULL;
    return found ? found + 4 + size : NULL;
}

int sac_multipart_next(struct sac_multipart *multipart, struct sac_multipart_part *ret,
                       struct sac_error *err)
{
    const char *end = multipart->body.at + multipart->body.size, *bytes = NULL;
    struct sac_multipart_part part = {0};
    const char *at =
        multipart->at > 0 ? multipart->body.at + multipart->at : first_delimiter(multipart);

    if (!at)
        return sac_fail(err, SAC_EFORMAT, "the body does not hold the boundary that was announced");
    int rc = after_delimiter(at, end, &at, err);
    if (rc <= 0)
        return rc;
    if (multipart->parts >= multipart->parts_max)
        return sac_fail(err, SAC_ELIMIT, "the body has more than %d parts", multipart->parts_max);
    rc = read_part_head(at, end, &part, &bytes, err);
    if (rc != 0)
        return rc;
    if (!part.name.at)
        return sac_fail(err, SAC_EFORMAT, "part %d has no name", multipart->parts + 1);
    /* An empty part's delimiter shares the line end of the empty line. */
    const char *stop = find_delimiter(multipart, bytes - 2);
    if (!stop)
        return sac_fail(err, SAC_EFORMAT, "the last part is not closed by the boundary");
    part.bytes = text_of(bytes, stop < bytes ? bytes : stop);
    multipart->at = (size_t)(stop + 4 + strlen(multipart->boundary) - multipart->body.at);
    multipart->parts++;
    *ret = part;
    return 1;
}
