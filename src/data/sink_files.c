/* Pictures in files of their own, with a list or in a folder a class. */
#include "data/sink_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { PATH_BYTES_MAX = 4096, FILES_A_FOLDER = 1000 };

struct files {
    struct sac_sink sink;
    char **folders; /* of classes; NULL of a list */
    int folder_count;
    int list;             /* list.txt, or −1 */
    struct sac_buf lines; /* that are not in list.txt yet */
};

static int make_folder(const char *path, struct sac_error *err)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST)
        return 0;
    return sac_fail_errno(err, errno, "the folder %s cannot be made", path);
}

/* ---- Names of a folder's classes ------------------------------------------- */

/* A name as a folder's: no slash, and not hidden. */
static char *folder_name(const struct sac_labels *labels, int index, bool numbered)
{
    const char *text = index < labels->count ? labels->text[index] : "";
    char *name = NULL;
    int size = text[0] && !numbered ? asprintf(&name, "%s", text)
                                    : asprintf(&name, "%04d%s%s", index, text[0] ? "_" : "", text);

    if (size < 0)
        return NULL;
    for (char *at = name; *at; at++) {
        if (*at == '/')
            *at = '_';
    }
    if (*name == '.')
        *name = '_';
    if (strlen(name) > 200)
        name[200] = 0;
    return name;
}

/* A folder's classes are numbered by their names' order. Where the names have
 * another, numbers before them bring it back. */
static int name_folders(struct files *files, const struct sac_labels *labels, bool numbered)
{
    for (int i = 0; i < files->folder_count; i++) {
        free(files->folders[i]);
        files->folders[i] = folder_name(labels, i, numbered);
        if (!files->folders[i])
            return SAC_ENOMEM;
    }
    return 0;
}

static bool in_order(const struct files *files)
{
    for (int i = 1; i < files->folder_count; i++) {
        if (strcmp(files->folders[i - 1], files->folders[i]) >= 0)
            return false;
    }
    return true;
}

static int make_classes(struct files *files, const struct sac_sink_options *options,
                        struct sac_error *err)
{
    static const struct sac_labels none;
    const struct sac_labels *labels = options->labels ? options->labels : &none;
    char path[PATH_BYTES_MAX];
    int count = options->classes > labels->count ? options->classes : labels->count;

    files->folders = calloc((size_t)count + 1, sizeof *files->folders);
    files->folder_count = files->folders ? count : 0;
    int rc = files->folders ? name_folders(files, labels, false) : SAC_ENOMEM;
    if (rc == 0 && !in_order(files))
        rc = name_folders(files, labels, true);
    if (rc < 0)
        return sac_fail(err, rc, "%s: out of memory", options->path);
    for (int i = 0; rc == 0 && i < count; i++) {
        if (snprintf(path, sizeof path, "%s/%s", options->path, files->folders[i]) >=
            (int)sizeof path)
            return sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", options->path);
        rc = make_folder(path, err);
    }
    return rc;
}

/* ---- Writing --------------------------------------------------------------- */

static int write_all(int fd, const uint8_t *at, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static int write_file(const char *path, const struct sac_record *record, struct sac_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    int number = fd < 0 ? errno : write_all(fd, record->bytes, record->size);

    if (fd >= 0 && close(fd) < 0 && number == 0)
        number = errno;
    return number ? sac_fail_errno(err, number, "%s cannot be written", path) : 0;
}

/* By its first bytes: PNGs begin with 0x89, JPEGs with 0xff. */
static const char *ending_of(const struct sac_record *record)
{
    return record->size > 0 && record->bytes[0] == 0x89 ? "png" : "jpg";
}

/* The record's path behind the sink's, its folder made. */
static int place(struct files *files, const struct sac_record *record, char *ret, size_t size,
                 struct sac_error *err)
{
    char name[128], path[PATH_BYTES_MAX];
    long long number = files->sink.mark.records;
    int used;

    sac_sink_record_name(&files->sink, record, name);
    if (files->folders && (record->label < 0 || record->label >= files->folder_count))
        return sac_fail(err, SAC_EINVAL, "%s: label %d of %s; the classes are 0 to %d",
                        files->sink.path, record->label, record->name, files->folder_count - 1);
    if (files->folders)
        used =
            snprintf(ret, size, "%s/%s.%s", files->folders[record->label], name, ending_of(record));
    else
        used = snprintf(ret, size, "images/%03lld/%s.%s", number / FILES_A_FOLDER, name,
                        ending_of(record));
    if (used >= (int)size)
        return sac_fail(err, SAC_EINVAL, "%s: the path is too long", ret);
    if (files->folders || number % FILES_A_FOLDER != 0)
        return 0;
    snprintf(path, sizeof path, "%s/images/%03lld", files->sink.path, number / FILES_A_FOLDER);
    return make_folder(path, err);
}

static int files_put(struct sac_sink *sink, const struct sac_record *record, struct sac_error *err)
{
    struct files *files = (struct files *)sink;
    char name[512], path[PATH_BYTES_MAX];

    if (record->kind != SAC_ITEM_ENCODED)
        return sac_fail(err, SAC_EINVAL, "%s: %s is no encoded picture", sink->path, record->name);
    int rc = place(files, record, name, sizeof name, err);
    if (rc == 0 && snprintf(path, sizeof path, "%s/%s", sink->path, name) >= (int)sizeof path)
        rc = sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", sink->path);
    if (rc == 0)
        rc = write_file(path, record, err);
    if (rc < 0 || files->folders)
        return rc;
    size_t before = files->lines.len;
    sac_buf_printf(&files->lines, "%s %d\n", name, record->label);
    sink->mark.list_bytes += files->lines.len - before;
    return files->lines.failed ? sac_fail(err, SAC_ENOMEM, "%s: out of memory", sink->path) : 0;
}

static int files_commit(struct sac_sink *sink, struct sac_error *err)
{
    struct files *files = (struct files *)sink;

    if (files->list < 0)
        return 0;
    int number = write_all(files->list, files->lines.data, files->lines.len);
    sac_buf_clear(&files->lines);
    return number ? sac_fail_errno(err, number, "%s/list.txt cannot be written", sink->path) : 0;
}

static void files_free(struct sac_sink *sink)
{
    struct files *files = (struct files *)sink;

    for (int i = 0; i < files->folder_count; i++)
        free(files->folders[i]);
    free(files->folders);
    if (files->list >= 0)
        close(files->list);
    sac_buf_done(&files->lines);
    free(files);
}

static const struct sac_sink_type files_type = {files_put, files_commit, files_commit, files_free};

static int open_list(struct files *files, struct sac_error *err)
{
    const char *folder = files->sink.path;
    uint64_t bytes = files->sink.mark.list_bytes;
    char path[PATH_BYTES_MAX];
    struct stat info;

    if (snprintf(path, sizeof path, "%s/images", folder) >= (int)sizeof path)
        return sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", folder);
    int rc = make_folder(path, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "%s/list.txt", folder);
    files->list = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (files->list < 0 || fstat(files->list, &info) < 0)
        return sac_fail_errno(err, errno, "%s cannot be written", path);
    if ((uint64_t)info.st_size < bytes)
        return sac_fail(err, SAC_EFORMAT, "%s: %lld bytes, fewer than the %llu that were written",
                        path, (long long)info.st_size, (unsigned long long)bytes);
    if (ftruncate(files->list, (off_t)bytes) < 0 || lseek(files->list, 0, SEEK_END) < 0)
        return sac_fail_errno(err, errno, "%s cannot be written", path);
    return 0;
}

int sac_sink_files_open(struct sac_sink **ret, const struct sac_sink_options *options,
                        const struct sac_sink_mark *mark, struct sac_error *err)
{
    struct files *files = sac_sink_new(sizeof *files, &files_type, options, mark, err);

    if (!files)
        return SAC_ENOMEM;
    files->list = -1;
    int rc = make_folder(options->path, err);
    if (rc == 0)
        rc = options->kind == SAC_SINK_LIST ? open_list(files, err)
                                            : make_classes(files, options, err);
    if (rc == 0)
        *ret = &files->sink;
    else
        sac_sink_free(&files->sink);
    return rc;
}
