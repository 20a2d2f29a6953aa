#include "data/source_private.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define PICTURE_BYTES_MAX ((size_t)64 << 20)
#define LIST_BYTES_MAX ((size_t)4 << 30)

void sac_item_done(struct sac_item *item)
{
    free(item->memory);
    *item = (struct sac_item){0};
}

int sac_item_set_label(struct sac_item *item, int64_t label, struct sac_error *err)
{
    if (label < -(1 << 24) || label > 1 << 24)
        return sac_fail(err, SAC_EINVAL, "label %lld; expected -16777216 to 16777216",
                        (long long)label);
    item->label = (float)label;
    item->labels = &item->label;
    return 0;
}

int sac_item_reserve(struct sac_item *item, size_t size, struct sac_error *err)
{
    if (size <= item->memory_size)
        return 0;
    free(item->memory);
    item->memory = malloc(size);
    item->memory_size = item->memory ? size : 0;
    return item->memory ? 0 : sac_fail(err, SAC_ENOMEM, "no memory for %zu bytes", size);
}

void *sac_source_new(size_t size, const struct sac_source_type *type, const char *path,
                     struct sac_error *err)
{
    struct sac_source *source = calloc(1, size);

    if (source)
        source->path = strdup(path);
    if (!source || !source->path) {
        sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
        free(source);
        return NULL;
    }
    source->type = type;
    source->label_count = 1;
    return source;
}

void sac_source_free(struct sac_source *source)
{
    if (!source)
        return;
    char *path = source->path;
    sac_labels_done(&source->labels);
    for (int64_t i = 0; i < source->unread_count; i++)
        free(source->unread[i]);
    free(source->unread);
    source->type->free(source);
    free(path);
}

void sac_source_item_name(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    source->type->name(source, index, text, size);
}

int sac_source_item(const struct sac_source *source, int64_t index, struct sac_item *ret,
                    struct sac_error *err)
{
    int rc = source->type->item(source, index, ret, err);

    if (rc < 0) {
        char name[SAC_ERROR_TEXT / 2];
        sac_source_item_name(source, index, name, sizeof name);
        sac_error_prefix(err, "%s", name);
    }
    return rc;
}

int sac_source_label_of(const struct sac_source *source, int64_t index, const struct sac_item *item,
                        int32_t *ret, struct sac_error *err)
{
    float label = item->labels[0];
    char name[SAC_ERROR_TEXT / 2];

    if (source->label_count == 1 && label == rintf(label) && fabsf(label) <= 1 << 24) {
        *ret = (int32_t)label;
        return 0;
    }
    sac_source_item_name(source, index, name, sizeof name);
    return sac_fail(err, SAC_EINVAL, "%s: expected one whole number as label", name);
}

int sac_source_item_label(const struct sac_source *source, int64_t index, int32_t *ret,
                          struct sac_error *err)
{
    struct sac_item item = {0};

    if (source->type->label)
        return source->type->label(source, index, ret, err);
    int rc = sac_source_item(source, index, &item, err);
    if (rc == 0)
        rc = sac_source_label_of(source, index, &item, ret, err);
    sac_item_done(&item);
    return rc;
}

bool sac_source_item_path(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    return source->type->path && source->type->path(source, index, text, size);
}

static int read_open_file(int fd, struct sac_item *item, struct sac_error *err)
{
    struct stat info;
    size_t got = 0;

    if (fstat(fd, &info) < 0)
        return sac_fail_errno(err, errno, "cannot be read");
    if (!S_ISREG(info.st_mode))
        return sac_fail(err, SAC_EFORMAT, "no plain file");
    if ((uint64_t)info.st_size > PICTURE_BYTES_MAX)
        return sac_fail(err, SAC_ELIMIT, "%lld bytes; a picture has at most %zu",
                        (long long)info.st_size, PICTURE_BYTES_MAX);
    int rc = sac_item_reserve(item, (size_t)info.st_size + 1, err);
    while (rc == 0 && got < (size_t)info.st_size) {
        ssize_t n = read(fd, (char *)item->memory + got, (size_t)info.st_size - got);
        if (n < 0 && errno != EINTR)
            return sac_fail_errno(err, errno, "cannot be read");
        if (n == 0)
            break;
        got += n > 0 ? (size_t)n : 0;
    }
    item->kind = SAC_ITEM_ENCODED;
    item->channels = item->height = item->width = 0;
    item->bytes = item->memory;
    item->size = got;
    return rc;
}

int sac_item_read_file(struct sac_item *item, const char *path, struct sac_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return sac_fail_errno(err, errno, "cannot be read");
    int rc = read_open_file(fd, item, err);
    close(fd);
    return rc;
}

static void cut_end(char *line)
{
    size_t size = strlen(line);

    while (size > 0 && strchr(" \t\r", line[size - 1]))
        line[--size] = 0;
}

static int split_lines(struct sac_lines *lines, const char *path, struct sac_error *err)
{
    size_t count = 1;

    for (const char *at = lines->text; *at; at++)
        count += *at == '\n';
    lines->line = calloc(count, sizeof *lines->line);
    if (!lines->line)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu lines", path, count);
    size_t mark = strncmp(lines->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* Windows' */
    for (char *at = lines->text + mark; at;) {
        char *end = strchr(at, '\n');
        if (end)
            *end = 0;
        cut_end(at);
        lines->line[lines->count++] = at;
        at = end ? end + 1 : NULL;
    }
    return 0;
}

int sac_lines_load(struct sac_lines *ret, const char *path, struct sac_error *err)
{
    struct sac_lines lines = {0};
    uint8_t *bytes = NULL;
    size_t size;
    int rc = sac_file_read(path, LIST_BYTES_MAX, &bytes, &size, err);

    lines.text = (char *)bytes;
    if (rc == 0 && memchr(bytes, 0, size))
        rc = sac_fail(err, SAC_EFORMAT, "%s: expected lines of text, found a binary file", path);
    if (rc == 0)
        rc = split_lines(&lines, path, err);
    if (rc == 0)
        *ret = lines;
    else
        sac_lines_done(&lines);
    return rc;
}

void sac_lines_done(struct sac_lines *lines)
{
    free(lines->line);
    free(lines->text);
    *lines = (struct sac_lines){0};
}

static bool has(const char *folder, const char *name)
{
    char path[4096];
    int size = snprintf(path, sizeof path, "%s/%s", folder, name);

    return size < (int)sizeof path && sac_file_exists(path);
}

int sac_source_refuse_leveldb(const char *path, struct sac_error *err)
{
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "%s: a LEVELDB, which is not read here; convert it to an LMDB "
                    "(backend: LMDB)",
                    path);
}

static bool ends_in(const char *path, const char *end)
{
    size_t size = strlen(path), tail = strlen(end);

    return size >= tail && strcasecmp(path + size - tail, end) == 0;
}

void sac_source_load_labels(struct sac_source *source, const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char file[4096];
    int size;

    if (source->labels.count > 0)
        return;
    if (sac_file_is_folder(path))
        size = snprintf(file, sizeof file, "%s/%s", path, name);
    else
        size =
            snprintf(file, sizeof file, "%.*s%s", slash ? (int)(slash - path) + 1 : 0, path, name);
    if (size < (int)sizeof file)
        sac_labels_load(&source->labels, file, NULL);
}

/* Where the first picture is: under the working folder or under the list's. */
static int open_list(struct sac_source **ret, const char *path, struct sac_error *err)
{
    const char *slash = strrchr(path, '/');
    char file[4096], *folder = NULL;
    int rc = sac_source_list_open(ret, path, NULL, err);

    if (rc < 0 || !slash)
        return rc;
    if (!sac_source_item_path(*ret, 0, file, sizeof file) || file[0] == '/' ||
        sac_file_exists(file))
        return 0;
    sac_source_free(*ret);
    folder = strndup(path, (size_t)(slash - path) + 1);
    if (!folder)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    rc = sac_source_list_open(ret, path, folder, err);
    free(folder);
    return rc;
}

static int open_folder(struct sac_source **ret, const char *path, struct sac_error *err)
{
    char list[4096];

    if (has(path, "data.mdb"))
        return sac_source_lmdb_open(ret, path, err);
    if (has(path, "CURRENT"))
        return sac_source_refuse_leveldb(path, err);
    if (has(path, "list.txt") && snprintf(list, sizeof list, "%s/list.txt", path) < 4096)
        return open_list(ret, list, err);
    return sac_source_folder_open(ret, path, err);
}

bool sac_source_is_hdf5(const char *path)
{
    return ends_in(path, ".h5") || ends_in(path, ".hdf5");
}

static int open_named(struct sac_source **ret, const char *path, struct sac_error *err)
{
    if (sac_file_is_folder(path))
        return open_folder(ret, path, err);
    if (ends_in(path, ".mdb"))
        return sac_source_lmdb_open(ret, path, err);
    if (ends_in(path, ".bin"))
        return sac_source_cifar_open(ret, &path, 1, err);
    if (sac_source_is_hdf5(path))
        return sac_source_hdf5_open(ret, path, "data", "label", err);
    return open_list(ret, path, err);
}

int sac_source_open(struct sac_source **ret, const char *path, struct sac_error *err)
{
    struct sac_source *source = NULL;

    if (!sac_file_exists(path))
        return sac_fail(err, SAC_ENOENT, "%s: no such file or folder", path);
    int rc = open_named(&source, path, err);
    if (rc == 0) {
        sac_source_load_labels(source, path, "labels.txt");
        *ret = source;
    }
    return rc;
}
