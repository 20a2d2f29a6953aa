/* Label files: one name a line, the line's number is the class. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "formats/caffe.h"
#include "formats/stranger.h"

#define FILE_BYTES_MAX ((size_t)256 << 20)
#define LINE_BYTES_MAX ((size_t)1 << 20)

/* Length of the UTF-8 character at `s`, 0 where there is none (RFC 3629: no
 * overlong forms, no surrogates, nothing over U+10FFFF). */
static size_t utf8_length(const uint8_t *s, size_t left)
{
    size_t size = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint8_t low = 0x80, high = 0xbf;

    if (size == 0 || size > left || s[0] > 0xf4)
        return 0;
    if (s[0] == 0xe0)
        low = 0xa0;
    else if (s[0] == 0xed)
        high = 0x9f;
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < size; i++) {
        if (s[i] < (i == 1 ? low : 0x80) || s[i] > (i == 1 ? high : 0xbf))
            return 0;
    }
    return size;
}

/* Text has no zero bytes and is UTF-8 throughout. */
static bool is_text(const uint8_t *line, size_t size)
{
    for (size_t i = 0; i < size;) {
        size_t step = utf8_length(line + i, size - i);
        if (step == 0 || line[i] == 0)
            return false;
        i += step;
    }
    return true;
}

static int add_label(struct sac_labels *out, const uint8_t *line, size_t size, int number,
                     struct sac_error *err)
{
    if (size > LINE_BYTES_MAX)
        return sac_fail(err, SAC_ELIMIT, "line %d has %zu bytes, over the limit of %zu", number,
                        size, LINE_BYTES_MAX);
    if (!is_text(line, size))
        return sac_fail(err, SAC_EFORMAT, "line %d is not UTF-8 text", number);
    while (size > 0 && (line[size - 1] == ' ' || line[size - 1] == '\t' || line[size - 1] == '\r'))
        size--;
    if ((out->count & (out->count - 1)) == 0) {
        size_t room = out->count ? 2 * (size_t)out->count : 1;
        char **larger = realloc(out->text, room * sizeof *larger);
        if (!larger)
            return sac_fail(err, SAC_ENOMEM, "no memory for %zu labels", room);
        out->text = larger;
    }
    char *copy = strndup((const char *)line, size);
    if (!copy)
        return sac_fail(err, SAC_ENOMEM, "no memory for label %d", number);
    out->text[out->count++] = copy;
    return 0;
}

static int split(struct sac_labels *out, const uint8_t *at, const uint8_t *end,
                 struct sac_error *err)
{
    int rc = 0;

    for (int number = 1; rc == 0 && at < end; number++) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        const uint8_t *stop = newline ? newline : end;
        rc = add_label(out, at, (size_t)(stop - at), number, err);
        at = newline ? newline + 1 : end;
    }
    while (out->count > 0 && !out->text[out->count - 1][0])
        free(out->text[--out->count]);
    return rc;
}

static int read_labels(struct sac_labels *out, const char *path, const uint8_t *bytes, size_t size,
                       struct sac_error *err)
{
    size_t mark = size >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    int rc = split(out, bytes + mark, bytes + size, err);

    if (rc == 0 && out->count == 0)
        rc = sac_fail(err, SAC_EFORMAT, "has no labels");
    if (rc < 0)
        sac_error_prefix(err, "%s", path);
    return rc;
}

int sac_labels_load(struct sac_labels *ret, const char *path, struct sac_error *err)
{
    struct sac_labels out = {0};
    uint8_t *bytes = NULL;
    size_t size = 0;
    int rc = sac_file_read(path, FILE_BYTES_MAX, &bytes, &size, err);

    if (rc < 0)
        return rc;
    rc = sac_stranger_refuse(path, bytes, size, "one label a line", err);
    if (rc == 0)
        rc = read_labels(&out, path, bytes, size, err);
    if (rc == 0) {
        *ret = out;
        out = (struct sac_labels){0};
    }
    sac_labels_done(&out);
    free(bytes);
    return rc;
}
void sac_labels_done(struct sac_labels *labels)
{
    for (int i = 0; i < labels->count; i++)
        free(labels->text[i]);
    free(labels->text);
    *labels = (struct sac_labels){0};
}
