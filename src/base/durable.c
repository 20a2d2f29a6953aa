#include "base/durable.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 * 1024 };

struct sac_durable {
    char *path;
    char *temporary;
    int fd;      /* -1 once closed */
    bool exists; /* the temporary is there, and is ours to remove */
    bool failed; /* some of it was not written */
    bool synced;
    size_t used;
    uint8_t buffer[BUFFER_BYTES];
};

int sac_durable_open(struct sac_durable **ret, const char *path, struct sac_error *err)
{
    struct sac_durable *file = malloc(sizeof *file);

    if (!file)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    *file = (struct sac_durable){.fd = -1};
    file->path = strdup(path);
    if (!file->path || asprintf(&file->temporary, "%s" SAC_DURABLE_SUFFIX, path) < 0) {
        file->temporary = NULL;
        sac_durable_free(file);
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    }
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file->fd < 0) {
        int number = errno;
        sac_durable_free(file);
        return sac_fail_errno(err, number, "%s cannot be written", path);
    }
    file->exists = true;
    *ret = file;
    return 0;
}

static int fail_file(struct sac_durable *file, int number, const char *what, struct sac_error *err)
{
    file->failed = true;
    return sac_fail_errno(err, number, "%s could not be %s; nothing was replaced", file->path,
                          what);
}

static int write_all(struct sac_durable *file, const uint8_t *at, size_t size,
                     struct sac_error *err)
{
    while (size > 0) {
        ssize_t n = write(file->fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail_file(file, n < 0 ? errno : EIO, "written", err);
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static int flush(struct sac_durable *file, struct sac_error *err)
{
    int rc = write_all(file, file->buffer, file->used, err);

    file->used = 0;
    return rc;
}

int sac_durable_put(struct sac_durable *file, const void *bytes, size_t size, struct sac_error *err)
{
    int rc = 0;

    assert(file->fd >= 0);
    if (file->failed)
        return sac_fail(err, SAC_EIO, "%s could not be written", file->path);
    if (size > sizeof file->buffer - file->used)
        rc = flush(file, err);
    if (rc == 0 && size >= sizeof file->buffer)
        return write_all(file, bytes, size, err);
    if (rc == 0 && size > 0) {
        memcpy(file->buffer + file->used, bytes, size);
        file->used += size;
    }
    return rc;
}

int sac_durable_sync(struct sac_durable *file, struct sac_error *err)
{
    int rc = 0;

    assert(file->fd >= 0);
    if (file->failed)
        return sac_fail(err, SAC_EIO, "%s could not be written", file->path);
    rc = flush(file, err);
    if (rc == 0 && fsync(file->fd) < 0)
        rc = fail_file(file, errno, "synced", err);
    if (close(file->fd) < 0 && rc == 0 && errno != EINTR)
        rc = fail_file(file, errno, "closed", err);
    file->fd = -1;
    file->synced = rc == 0;
    return rc;
}

int sac_durable_commit(struct sac_durable *file, struct sac_error *err)
{
    assert(file->synced && file->exists);
    if (rename(file->temporary, file->path) < 0)
        return fail_file(file, errno, "renamed", err);
    file->exists = false;
    return sac_durable_sync_folder(file->path, err);
}

void sac_durable_free(struct sac_durable *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    if (file->exists)
        unlink(file->temporary);
    free(file->temporary);
    free(file->path);
    free(file);
}

int sac_durable_write(const char *path, const void *bytes, size_t size, struct sac_error *err)
{
    struct sac_durable *file = NULL;
    int rc = sac_durable_open(&file, path, err);

    if (rc == 0)
        rc = sac_durable_put(file, bytes, size, err);
    if (rc == 0)
        rc = sac_durable_sync(file, err);
    if (rc == 0)
        rc = sac_durable_commit(file, err);
    sac_durable_free(file);
    return rc;
}

/* "a/b" → "a", "/b" → "/", "b" → "." */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int sac_durable_sync_folder(const char *path, struct sac_error *err)
{
    char *folder = folder_of(path);
    int rc = 0;

    if (!folder)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        rc = sac_fail_errno(err, errno, "%s", folder);
    /* Some file systems cannot sync folders, and say so. */
    else if (fsync(fd) < 0 && errno != EINVAL && errno != EBADF)
        rc = sac_fail_errno(err, errno, "the folder %s could not be synced", folder);
    if (fd >= 0)
        close(fd);
    free(folder);
    return rc;
}
