/* Pictures in files: by a list, or by folders that are classes. */
#include "data/source_private.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/log.h"

#define FOLDER_DEPTH_MAX 16
#define EMPTY_NAMED_MAX 10
#define PATH_BYTES_MAX 4096

struct picture {
    const char *path; /* as listed, or owned by the folder's source */
    int32_t label;
    uint32_t line; /* 0: not of a list */
};

struct list {
    struct sac_source source;
    char *root;
    bool owns_paths;
    struct sac_lines lines; /* holds the paths of a list */
    struct picture *pictures;
    size_t capacity;
};

static int list_item(const struct sac_source *source, int64_t index, struct sac_item *ret,
                     struct sac_error *err)
{
    const struct list *list = (const struct list *)source;
    const struct picture *picture = &list->pictures[index];
    char path[PATH_BYTES_MAX];

    if (snprintf(path, sizeof path, "%s%s", list->root, picture->path) >= (int)sizeof path)
        return sac_fail(err, SAC_EINVAL, "the path is longer than %d bytes", PATH_BYTES_MAX - 1);
    int rc = sac_item_set_label(ret, picture->label, err);
    ret->rgb = false;
    return rc == 0 ? sac_item_read_file(ret, path, err) : rc;
}

static void list_name(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    const struct list *list = (const struct list *)source;
    const struct picture *picture = &list->pictures[index];

    if (picture->line)
        snprintf(text, size, "%s:%u: %s%s", source->path, picture->line, list->root, picture->path);
    else
        snprintf(text, size, "%s%s", list->root, picture->path);
}

static void list_free(struct sac_source *source)
{
    struct list *list = (struct list *)source;

    for (int64_t i = 0; list->owns_paths && i < source->count; i++)
        free((char *)list->pictures[i].path);
    free(list->pictures);
    sac_lines_done(&list->lines);
    free(list->root);
    free(list);
}

static int list_label(const struct sac_source *source, int64_t index, int32_t *ret,
                      struct sac_error *err)
{
    (void)err;
    *ret = ((const struct list *)source)->pictures[index].label;
    return 0;
}

static bool list_path(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    const struct list *list = (const struct list *)source;

    return snprintf(text, size, "%s%s", list->root, list->pictures[index].path) < (int)size;
}

static const struct sac_source_type list_type = {"list",    list_item,  list_name,
                                                 list_free, list_label, list_path};
static const struct sac_source_type folder_type = {"folder",  list_item,  list_name,
                                                   list_free, list_label, list_path};

bool sac_source_has_files(const struct sac_source *source)
{
    return source->type == &list_type || source->type == &folder_type;
}

static int add(struct list *list, struct picture picture, struct sac_error *err)
{
    size_t count = (size_t)list->source.count;

    if (count == list->capacity) {
        size_t capacity = count ? 2 * count : 256;
        void *larger = reallocarray(list->pictures, capacity, sizeof *list->pictures);
        if (!larger)
            return sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu pictures", list->source.path,
                            capacity);
        list->pictures = larger;
        list->capacity = capacity;
    }
    list->pictures[list->source.count++] = picture;
    return 0;
}

static int read_line(struct list *list, int64_t number, struct sac_error *err)
{
    char *line = list->lines.line[number];
    char *blank = strrchr(line, ' '), *end;
    const char *path = list->source.path;
    long long at = (long long)number + 1;

    if (!*line)
        return 0;
    if (!blank)
        return sac_fail(err, SAC_EFORMAT, "%s:%lld: expected a path, a blank and a label", path,
                        at);
    errno = 0;
    long label = strtol(blank + 1, &end, 10);
    if (end == blank + 1 || *end)
        return sac_fail(err, SAC_EFORMAT,
                        "%s:%lld: expected a whole number as label after the last blank, found "
                        "\"%.40s\"",
                        path, at, blank + 1);
    if (errno == ERANGE || label < -(1 << 24) || label > 1 << 24)
        return sac_fail(err, SAC_EINVAL, "%s:%lld: label %.40s; expected -16777216 to 16777216",
                        path, at, blank + 1);
    *blank = 0;
    return add(list, (struct picture){line, (int32_t)label, (uint32_t)at}, err);
}

static int read_list(struct list *list, struct sac_error *err)
{
    int rc = sac_lines_load(&list->lines, list->source.path, err);

    for (int64_t i = 0; rc == 0 && i < list->lines.count; i++)
        rc = read_line(list, i, err);
    if (rc == 0 && list->source.count == 0)
        rc = sac_fail(err, SAC_EFORMAT, "%s: a list without pictures", list->source.path);
    return rc;
}

static struct list *list_new(const struct sac_source_type *type, const char *path, const char *root,
                             struct sac_error *err)
{
    struct list *list = sac_source_new(sizeof *list, type, path, err);

    if (list && !(list->root = strdup(root))) {
        sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
        sac_source_free(&list->source);
        return NULL;
    }
    return list;
}

int sac_source_list_open(struct sac_source **ret, const char *path, const char *root,
                         struct sac_error *err)
{
    struct list *list = list_new(&list_type, path, root ? root : "", err);

    if (!list)
        return SAC_ENOMEM;
    int rc = read_list(list, err);
    if (rc == 0)
        *ret = &list->source;
    else
        sac_source_free(&list->source);
    return rc;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static const char *const read_kinds[] = {".jpg", ".jpeg", ".png", NULL};
static const char *const unread_kinds[] = {
    ".heic", ".heif", ".avif", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".jp2", ".jxl",
    ".jfif", ".dng",  ".cr2",  ".cr3", ".nef",  ".arw",  ".orf", ".rw2", ".raf", NULL};

static int kind_of(const char *name, const char *const *kinds)
{
    const char *dot = strrchr(name, '.');

    for (int i = 0; dot && kinds[i]; i++) {
        if (strcasecmp(dot, kinds[i]) == 0)
            return i;
    }
    return -1;
}

bool sac_source_is_read_kind(const char *name)
{
    return kind_of(name, read_kinds) >= 0;
}

bool sac_source_is_unread_kind(const char *name)
{
    return kind_of(name, unread_kinds) >= 0;
}

/* A visit to each entry of a folder, in order; folders and files told apart. */
typedef int visit_fn(struct list *list, const char *path, const char *name, bool folder, int depth,
                     int label, struct sac_error *err);

static int visit_entry(struct list *list, const char *folder, const char *name, visit_fn *visit,
                       int depth, int label, struct sac_error *err)
{
    char path[PATH_BYTES_MAX];
    struct stat info;

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return sac_fail(err, SAC_ELIMIT, "%.200s…: a path longer than %d bytes", folder,
                        PATH_BYTES_MAX - 1);
    if (strpbrk(name, "\n\r"))
        return sac_fail(err, SAC_EINVAL,
                        "%s: a name in it has a line break, which no list and no labels.txt can "
                        "hold; rename \"%.*s…\"",
                        folder, (int)strcspn(name, "\n\r"), name);
    bool leads = stat(path, &info) == 0; /* a link to nowhere is a file that is not there */
    if (!leads && errno != ENOENT && errno != ELOOP)
        return sac_fail_errno(err, errno, "%s", path);
    return visit(list, path, name, leads && S_ISDIR(info.st_mode), depth, label, err);
}

static int each_entry(struct list *list, const char *folder, visit_fn *visit, int depth, int label,
                      struct sac_error *err)
{
    struct dirent **entries;
    int rc = 0, count = scandir(folder, &entries, not_hidden, by_bytes);

    if (count < 0)
        return sac_fail_errno(err, errno, "%s", folder);
    for (int i = 0; i < count; i++) {
        if (rc == 0)
            rc = visit_entry(list, folder, entries[i]->d_name, visit, depth, label, err);
        free(entries[i]);
    }
    free(entries);
    return rc;
}

static int add_unread(struct sac_source *source, const char *path, struct sac_error *err)
{
    int64_t count = source->unread_count;

    if ((count & (count - 1)) == 0) { /* a power of two is full */
        size_t capacity = count ? 2 * (size_t)count : 1;
        char **larger = reallocarray(source->unread, capacity, sizeof *larger);
        if (!larger)
            return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
        source->unread = larger;
    }
    char *copy = strdup(path);
    if (!copy)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    source->unread[source->unread_count++] = copy;
    return 0;
}

static int visit_below(struct list *list, const char *path, const char *name, bool folder,
                       int depth, int label, struct sac_error *err)
{
    if (folder && depth >= FOLDER_DEPTH_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: folders more than %d deep", path, FOLDER_DEPTH_MAX);
    if (folder)
        return each_entry(list, path, visit_below, depth + 1, label, err);
    if (sac_source_is_unread_kind(name))
        return add_unread(&list->source, path, err);
    if (!sac_source_is_read_kind(name))
        return 0;
    char *copy = strdup(path);
    if (!copy)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    int rc = add(list, (struct picture){copy, label, 0}, err);
    if (rc < 0)
        free(copy);
    return rc;
}

static int visit_class(struct list *list, const char *path, const char *name, bool folder,
                       int depth, int label, struct sac_error *err)
{
    struct sac_labels *labels = &list->source.labels;

    (void)label;
    if (!folder)
        return 0;
    char **larger = reallocarray(labels->text, (size_t)labels->count + 1, sizeof *larger);
    char *copy = strdup(name);
    if (larger)
        labels->text = larger;
    if (!larger || !copy) {
        free(copy);
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    }
    labels->text[labels->count++] = copy;
    return each_entry(list, path, visit_below, depth + 1, labels->count - 1, err);
}

/* "photographs: 7 pictures are left out, of kinds that are not read (5 .heic, 2 .tif)" */
static void tell_unread(const struct sac_source *source)
{
    int64_t counts[sizeof unread_kinds / sizeof *unread_kinds] = {0};
    struct sac_buf kinds = {0};

    for (int64_t i = 0; i < source->unread_count; i++)
        counts[kind_of(source->unread[i], unread_kinds)]++;
    for (int i = 0; unread_kinds[i]; i++) {
        if (counts[i] > 0)
            sac_buf_printf(&kinds, "%s%lld %s", kinds.len ? ", " : "", (long long)counts[i],
                           unread_kinds[i]);
    }
    if (source->unread_count > 0 && !kinds.failed)
        sac_log(SAC_LOG_WARNING,
                "%s: %lld pictures are left out, of kinds that are not read (%.*s); make JPEG or "
                "PNG files of them",
                source->path, (long long)source->unread_count, (int)kinds.len, kinds.data);
    sac_buf_done(&kinds);
}

/* Classes are the folders; the pictures lie class by class. */
static void tell_empty(const struct list *list)
{
    const struct sac_labels *labels = &list->source.labels;
    struct sac_buf names = {0};
    int64_t at = 0;
    int empty = 0;

    for (int label = 0; label < labels->count; label++) {
        int64_t first = at;
        while (at < list->source.count && list->pictures[at].label == label)
            at++;
        if (at > first)
            continue;
        if (++empty <= EMPTY_NAMED_MAX)
            sac_buf_printf(&names, "%s%.80s", empty > 1 ? ", " : "", labels->text[label]);
    }
    if (empty > 0 && !names.failed)
        sac_log(SAC_LOG_WARNING, "%s: %d of %d folders have no JPEG or PNG files: %.*s%s",
                list->source.path, empty, labels->count, (int)names.len, names.data,
                empty > EMPTY_NAMED_MAX ? " …" : "");
    sac_buf_done(&names);
}

int sac_source_folder_open(struct sac_source **ret, const char *path, struct sac_error *err)
{
    struct list *list = list_new(&folder_type, path, "", err);

    if (!list)
        return SAC_ENOMEM;
    list->owns_paths = true;
    int rc = each_entry(list, path, visit_class, 0, 0, err);
    if (rc == 0) {
        tell_unread(&list->source);
        tell_empty(list);
    }
    if (rc == 0 && list->source.count == 0)
        rc = sac_fail(err, SAC_EFORMAT,
                      "%s: no pictures; expected a folder a class with JPEG or PNG files", path);
    if (rc == 0)
        *ret = &list->source;
    else
        sac_source_free(&list->source);
    return rc;
}
