#include "cli/resume.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#define FILE_BYTES_MAX ((size_t)1 << 32)

static const char json_head[] = "{\"file\":";

void sac_csv_put(struct sac_buf *out, const char *text)
{
    sac_buf_puts(out, "\"");
    for (; *text; text++)
        sac_buf_put(out, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
    sac_buf_puts(out, "\"");
}

/* A quoted path as it stands in a record, or is about to. */
struct key {
    const char *at;
    size_t size;
};

struct done {
    const char *name; /* of the file, for sentences */
    bool csv;
    struct key *keys;
    size_t count, cap;
};

static int compare_keys(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    int order = memcmp(x->at, y->at, x->size < y->size ? x->size : y->size);

    return order ? order : (x->size > y->size) - (x->size < y->size);
}

/* Behind the closing quote of what is quoted at `at`; NULL without one. A CSV's
 * doubled quote is as good as two quoted texts side by side. */
static const char *quoted_end(const char *at, const char *end, bool csv)
{
    for (at++; at < end; at++) {
        if (!csv && *at == '\\')
            at++;
        else if (*at == '"' && csv && at + 1 < end && at[1] == '"')
            at++;
        else if (*at == '"')
            return at + 1;
    }
    return NULL;
}

/* Behind the record's line end, which is none within a CSV's quotes; NULL when it
 * was cut short. */
static const char *record_end(const char *at, const char *end, bool csv)
{
    while (at && at < end && *at != '\n')
        at = csv && *at == '"' ? quoted_end(at, end, csv) : at + 1;
    return at && at < end ? at + 1 : NULL;
}

static int add_key(struct done *done, const char *at, const char *end, struct sac_error *err)
{
    if (done->count == done->cap) {
        size_t cap = done->cap ? done->cap * 2 : 256;
        struct key *keys = realloc(done->keys, cap * sizeof *keys);
        if (!keys)
            return sac_fail(err, SAC_ENOMEM, "%s: out of memory for %zu records", done->name, cap);
        done->keys = keys;
        done->cap = cap;
    }
    done->keys[done->count++] = (struct key){at, (size_t)(end - at)};
    return 0;
}

static int refuse(const struct done *done, struct sac_error *err)
{
    return sac_fail(err, SAC_EFORMAT,
                    "%s: has other than the %s that this command writes; expected its own output, "
                    "or no such file",
                    done->name, done->csv ? "CSV" : "JSON lines");
}

/* Takes the head off, as far as it goes; NULL when the text begins otherwise. */
static const char *skip_head(const char *at, const char *end, const char *head)
{
    size_t size = strlen(head), have = (size_t)(end - at);

    if (memcmp(at, head, have < size ? have : size) != 0)
        return NULL;
    return at + (have < size ? have : size);
}

/* Gathers the keys of whole records; *ret_whole: where the last of them ends. */
static int read_records(struct done *done, const char *text, const char *at, const char *end,
                        size_t *ret_whole, struct sac_error *err)
{
    int rc = 0;

    for (const char *next; rc == 0 && at < end; at = next) {
        const char *key = done->csv ? at : skip_head(at, end, json_head);
        if (!key || (key < end && *key != '"'))
            return refuse(done, err);
        next = record_end(at, end, done->csv);
        if (!next)
            break;
        const char *key_end = quoted_end(key, next, done->csv);
        rc = key_end ? add_key(done, key, key_end, err) : refuse(done, err);
    }
    *ret_whole = (size_t)(at - text);
    return rc;
}

/* Without a whole head a CSV has nothing that is worth keeping. */
static int read_done(struct done *done, const char *text, size_t size, const char *csv_head,
                     size_t *ret_whole, struct sac_error *err)
{
    const char *at = text, *end = text + size;

    if (csv_head) {
        at = skip_head(text, end, csv_head);
        if (!at)
            return refuse(done, err);
        if (size < strlen(csv_head))
            at = end = text;
    }
    int rc = read_records(done, text, at, end, ret_whole, err);
    if (rc == 0 && done->count)
        qsort(done->keys, done->count, sizeof *done->keys, compare_keys);
    return rc;
}

static void drop_done(struct sac_pictures *pictures, const struct done *done)
{
    struct sac_buf text = {0};
    size_t kept = 0;

    for (size_t i = 0; i < pictures->count; i++) {
        char *path = pictures->paths[i];
        sac_buf_clear(&text);
        if (done->csv)
            sac_csv_put(&text, path);
        else
            sac_buf_put_json(&text, path, strlen(path));
        struct key key = {(const char *)text.data, text.len};
        if (!text.failed && bsearch(&key, done->keys, done->count, sizeof key, compare_keys))
            free(path);
        else
            pictures->paths[kept++] = path;
    }
    pictures->count = kept;
    sac_buf_done(&text);
}

static int open_for_more(FILE **ret, const char *path, size_t size, size_t whole,
                         const char *csv_head, struct sac_error *err)
{
    FILE *file = fopen(path, "ae");

    if (!file)
        return sac_fail_errno(err, errno, "%s", path);
    if ((whole < size && ftruncate(fileno(file), (off_t)whole) < 0) ||
        (whole == 0 && csv_head && fputs(csv_head, file) < 0)) {
        int number = errno;
        fclose(file);
        return sac_fail_errno(err, number, "%s", path);
    }
    *ret = file;
    return 0;
}

int sac_resume_open(FILE **ret, const char *path, const char *csv_head,
                    struct sac_pictures *pictures, struct sac_error *err)
{
    struct done done = {.name = path, .csv = csv_head != NULL};
    uint8_t *text = NULL;
    size_t size = 0, whole = 0;
    int rc = 0;

    if (sac_file_exists(path))
        rc = sac_file_read(path, FILE_BYTES_MAX, &text, &size, err);
    if (rc == 0 && size)
        rc = read_done(&done, (const char *)text, size, csv_head, &whole, err);
    if (rc == 0)
        rc = open_for_more(ret, path, size, whole, csv_head, err);
    if (rc == 0 && done.count)
        drop_done(pictures, &done);
    free(done.keys);
    free(text);
    return rc;
}
