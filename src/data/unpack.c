#include "data/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16 };

struct unpacking {
    const char *path; /* for sentences */
    struct archive *archive;
    int folder;         /* a descriptor */
    int64_t bytes_left; /* of all files */
    int files;
};

static int fail_archive(const struct unpacking *u, struct sac_error *err)
{
    const char *why = archive_error_string(u->archive);

    return sac_fail(err, SAC_EFORMAT, "%s cannot be unpacked: %s", u->path,
                    why ? why : "it is no archive");
}

static int too_much(const struct unpacking *u, struct sac_error *err)
{
    return sac_fail(err, SAC_ELIMIT, "%s: it unpacks to more than is allowed", u->path);
}

/* The last part of the name; NULL: a file to be left out. */
static const char *name_of(struct archive_entry *entry)
{
    const char *path = archive_entry_pathname(entry);
    const char *slash = path ? strrchr(path, '/') : NULL;
    const char *name = slash ? slash + 1 : path;

    return name && *name && *name != '.' && strlen(name) <= NAME_MAX ? name : NULL;
}

static int write_all(int fd, const char *at, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static int copy_data(struct unpacking *u, int fd, const char *name, struct sac_error *err)
{
    char buffer[READ_BYTES];
    la_ssize_t got;

    while ((got = archive_read_data(u->archive, buffer, sizeof buffer)) > 0) {
        u->bytes_left -= got;
        if (u->bytes_left < 0)
            return too_much(u, err);
        if (write_all(fd, buffer, (size_t)got) < 0)
            return sac_fail_errno(err, errno, "%s cannot be written", name);
    }
    if (got < 0)
        return fail_archive(u, err);
    return fsync(fd) < 0 ? sac_fail_errno(err, errno, "%s cannot be written", name) : 0;
}

static int unpack_file(struct unpacking *u, struct archive_entry *entry, struct sac_error *err)
{
    const char *name = name_of(entry);

    if (!name)
        return 0;
    if (++u->files > SAC_UNPACK_FILES_MAX ||
        (archive_entry_size_is_set(entry) && archive_entry_size(entry) > u->bytes_left))
        return too_much(u, err);
    int fd = openat(u->folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST)
        return sac_fail(err, SAC_EFORMAT, "%s: it has two files %s, or one that is there already",
                        u->path, name);
    if (fd < 0)
        return sac_fail_errno(err, errno, "%s cannot be written", name);
    int rc = copy_data(u, fd, name, err);
    if (close(fd) < 0 && rc == 0)
        rc = sac_fail_errno(err, errno, "%s cannot be written", name);
    return rc;
}

static int unpack_entry(struct unpacking *u, struct archive_entry *entry, struct sac_error *err)
{
    if (archive_entry_hardlink(entry) || archive_entry_symlink(entry))
        return sac_fail(err, SAC_EFORMAT, "%s: it has links in it, which a model has no use for",
                        u->path);
    if (archive_entry_filetype(entry) == AE_IFDIR)
        return 0;
    if (archive_entry_filetype(entry) != AE_IFREG)
        return sac_fail(err, SAC_EFORMAT, "%s: it has something in it that is no file", u->path);
    return unpack_file(u, entry, err);
}

static int unpack_all(struct unpacking *u, struct sac_error *err)
{
    struct archive_entry *entry;
    int rc = 0, status = ARCHIVE_OK, seen = 0;

    while (rc == 0 && (status = archive_read_next_header(u->archive, &entry)) == ARCHIVE_OK)
        rc = ++seen > 10 * SAC_UNPACK_FILES_MAX ? too_much(u, err) : unpack_entry(u, entry, err);
    return rc == 0 && status != ARCHIVE_EOF ? fail_archive(u, err) : rc;
}

int sac_unpack(const char *archive, const char *name, const char *folder, int64_t bytes_max,
               struct sac_error *err)
{
    struct unpacking u = {.path = name, .bytes_left = bytes_max};
    int rc = 0;

    u.folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (u.folder < 0)
        return sac_fail_errno(err, errno, "%s", folder);
    u.archive = archive_read_new();
    if (!u.archive)
        rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    if (rc == 0 && (archive_read_support_filter_gzip(u.archive) != ARCHIVE_OK ||
                    archive_read_support_format_tar(u.archive) != ARCHIVE_OK ||
                    archive_read_support_format_zip(u.archive) != ARCHIVE_OK ||
                    archive_read_open_filename(u.archive, archive, READ_BYTES) != ARCHIVE_OK))
        rc = fail_archive(&u, err);
    if (rc == 0)
        rc = unpack_all(&u, err);
    archive_read_free(u.archive);
    close(u.folder);
    return rc;
}
