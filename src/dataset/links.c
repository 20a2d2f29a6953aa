#include "dataset/links.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BLANKS " \t\r\n\f"

/* ---- HTML ------------------------------------------------------------------- */

static size_t put_utf8(char *to, unsigned long code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char)(0xc0 | code >> 6);
        to[1] = (char)(0x80 | (code & 63));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = (char)(0xe0 | code >> 12);
        to[1] = (char)(0x80 | (code >> 6 & 63));
        to[2] = (char)(0x80 | (code & 63));
        return 3;
    }
    to[0] = (char)(0xf0 | code >> 18);
    to[1] = (char)(0x80 | (code >> 12 & 63));
    to[2] = (char)(0x80 | (code >> 6 & 63));
    to[3] = (char)(0x80 | (code & 63));
    return 4;
}

/* "&#38;", "&#x26;": never longer as UTF-8. 0: it is none. */
static size_t decode_number(const char *at, char *to, size_t *ret_put)
{
    bool is_hex = (at[2] | 32) == 'x';
    const char *digits = at + 2 + is_hex;
    size_t count = strspn(digits, is_hex ? "0123456789abcdefABCDEF" : "0123456789");
    unsigned long code = count > 0 && count < 9 ? strtoul(digits, NULL, is_hex ? 16 : 10) : 0;

    if (code == 0 || code > 0x10ffff || digits[count] != ';')
        return 0;
    *ret_put = put_utf8(to, code);
    return (size_t)(digits - at) + count + 1;
}

/* The bytes that the entity at `at` takes; 0: it is none. */
static size_t decode_entity(const char *at, char *to, size_t *ret_put)
{
    static const struct {
        const char *text;
        char c;
    } named[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};

    if (at[1] == '#')
        return decode_number(at, to, ret_put);
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        size_t size = strlen(named[i].text);
        if (strncmp(at, named[i].text, size) == 0) {
            *to = named[i].c;
            *ret_put = 1;
            return size;
        }
    }
    return 0;
}

static void decode_entities(char *text)
{
    char *to = text, *from = text;

    while (*from) {
        size_t put = 0, took = *from == '&' ? decode_entity(from, to, &put) : 0;
        if (took == 0)
            *to = *from;
        from += took ? took : 1;
        to += took ? put : 1;
    }
    *to = 0;
}

char *sac_link_next(char **at)
{
    for (char *href; (href = strcasestr(*at, "href")) != NULL;) {
        char *value = href + 4 + strspn(href + 4, BLANKS);
        *at = value;
        if (*value != '=')
            continue;
        value += 1 + strspn(value + 1, BLANKS);
        bool quoted = *value == '"' || *value == '\'';
        char *end = quoted ? strchr(value + 1, *value) : value + strcspn(value, BLANKS ">");
        if (!end) /* a quote that is never closed */
            continue;
        *at = end + (*end != 0);
        *end = 0;
        value += quoted;
        decode_entities(value);
        return value;
    }
    return NULL;
}

/* ---- Addresses -------------------------------------------------------------- */

/* "http://host/a/b/" → "/a/b/" */
static const char *path_of_url(const char *url)
{
    const char *host = strstr(url, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;

    return path ? path : "/";
}

bool sac_link_base(const char *url, char *base, size_t size)
{
    size_t length = strcspn(url, "?#");
    const char *host = strstr(url, "://");
    size_t least = host ? (size_t)(host + 3 - url) : 0, cut = length;

    while (cut > least && url[cut - 1] != '/')
        cut--;
    bool has_path = cut > least;
    length = has_path ? cut : length;
    if (length + 2 > size)
        return false;
    memcpy(base, url, length);
    strcpy(base + length, has_path ? "" : "/");
    return true;
}

static int hex(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 32) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* Percent escapes decoded. */
static bool decode(const char *from, size_t size, char *to, size_t room)
{
    size_t used = 0;

    for (size_t i = 0; i < size; i++) {
        char c = from[i];
        if (c == '%' && i + 2 < size && hex(from[i + 1]) >= 0 && hex(from[i + 2]) >= 0) {
            c = (char)(hex(from[i + 1]) * 16 + hex(from[i + 2]));
            i += 2;
        }
        if (used + 1 >= room)
            return false;
        to[used++] = c;
    }
    to[used] = 0;
    return strlen(to) == used;
}

bool sac_link_name(const char *base, const char *link, char *name, size_t size, bool *ret_folder)
{
    const char *path = path_of_url(base);

    if (strncmp(link, base, strlen(base)) == 0)
        link += strlen(base);
    else if (link[0] == '/' && strncmp(link, path, strlen(path)) == 0)
        link += strlen(path);
    if (strncmp(link, "./", 2) == 0)
        link += 2;
    size_t length = strlen(link);
    *ret_folder = length > 0 && link[length - 1] == '/';
    length -= *ret_folder;
    if (length == 0 || strpbrk(link, "?#:") || memchr(link, '/', length) ||
        !decode(link, length, name, size))
        return false;
    for (const char *at = name; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 127 || *at == '/')
            return false;
    }
    return name[0] != '.' && strlen(name) < 240;
}

bool sac_link_url(const char *base, const char *link, char *url, size_t size)
{
    const char *last = link + strlen(link) - (*link != 0); /* before a folder's slash */
    size_t used = strlen(base);

    while (last > link && last[-1] != '/')
        last--;
    if (used + 3 * strlen(last) + 1 > size)
        return false;
    memcpy(url, base, used);
    for (; *last; last++) {
        unsigned char c = (unsigned char)*last;
        if (c <= ' ' || c >= 127 || strchr("\"<>\\^`{|}", c))
            used += (size_t)snprintf(url + used, size - used, "%%%02X", c);
        else
            url[used++] = (char)c;
    }
    url[used] = 0;
    return true;
}
