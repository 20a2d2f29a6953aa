#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sac_buf_done(struct sac_buf *buf)
{
    free(buf->data);
    *buf = (struct sac_buf){0};
}

void sac_buf_clear(struct sac_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

bool sac_buf_reserve(struct sac_buf *buf, size_t more)
{
    if (buf->failed)
        return false;
    if (more <= buf->cap - buf->len)
        return true;

    size_t need, cap = buf->cap ? buf->cap : 256;
    if (__builtin_add_overflow(buf->len, more, &need)) {
        buf->failed = true;
        return false;
    }
    while (cap < need && !__builtin_mul_overflow(cap, (size_t)2, &cap))
        ;
    if (cap < need)
        cap = need;
    uint8_t *data = realloc(buf->data, cap);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

void sac_buf_put(struct sac_buf *buf, const void *bytes, size_t size)
{
    if (size == 0 || !sac_buf_reserve(buf, size))
        return;
    memcpy(buf->data + buf->len, bytes, size);
    buf->len += size;
}

void sac_buf_puts(struct sac_buf *buf, const char *text)
{
    sac_buf_put(buf, text, strlen(text));
}

void sac_buf_printf(struct sac_buf *buf, const char *format, ...)
{
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (size < 0)
        buf->failed = true;
    else if (sac_buf_reserve(buf, (size_t)size + 1)) {
        vsnprintf((char *)buf->data + buf->len, (size_t)size + 1, format, again);
        buf->len += (size_t)size;
    }
    va_end(again);
}

/* Length of the valid UTF-8 sequence at `s`, or 0 (RFC 3629, table of
 * well-formed byte sequences). */
static size_t utf8_length(const unsigned char *s, size_t size)
{
    unsigned char c = s[0];
    size_t length = c < 0x80 ? 1 : c >= 0xc2 && c <= 0xdf ? 2 : (c & 0xf0) == 0xe0 ? 3 : 4;

    if (length == 1)
        return 1;
    if (c < 0xc2 || c > 0xf4 || length > size)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) || (c == 0xf0 && s[1] < 0x90) ||
        (c == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

static void put_json_ascii(struct sac_buf *buf, char c)
{
    if (c == '"' || c == '\\') {
        char pair[2] = {'\\', c};
        sac_buf_put(buf, pair, 2);
    } else if ((unsigned char)c < 0x20 || c == 0x7f || c == '<' || c == '>' || c == '&') {
        sac_buf_printf(buf, "\\u%04x", (unsigned)c);
    } else {
        sac_buf_put(buf, &c, 1);
    }
}

void sac_buf_put_json(struct sac_buf *buf, const char *text, size_t size)
{
    sac_buf_put(buf, "\"", 1);
    for (size_t i = 0; i < size;) {
        size_t length = utf8_length((const unsigned char *)text + i, size - i);
        if (length == 0)
            sac_buf_puts(buf, "\xef\xbf\xbd");
        else if (length == 1)
            put_json_ascii(buf, text[i]);
        else
            sac_buf_put(buf, text + i, length);
        i += length ? length : 1;
    }
    sac_buf_put(buf, "\"", 1);
}

void sac_buf_put_html(struct sac_buf *buf, const char *text)
{
    for (; *text; text++) {
        const char *entity = *text == '<'   ? "&lt;"
                             : *text == '>' ? "&gt;"
                             : *text == '&' ? "&amp;"
                             : *text == '"' ? "&quot;"
                                            : NULL;
        if (entity)
            sac_buf_puts(buf, entity);
        else
            sac_buf_put(buf, text, 1);
    }
}
