/* A file that is not whole yet: PATH.part, and PATH.part.from that says of what. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/durable.h"
#include "base/file.h"
#include "data/fetch_private.h"

enum { FROM_BYTES_MAX = 16384 };

static int fail_written(const struct sac_part *part, int number, struct sac_error *err)
{
    return sac_fail_errno(err, number, "%s cannot be written", part->path);
}

static int restart(struct sac_sink *sink, struct sac_error *err)
{
    struct sac_part *part = (struct sac_part *)sink;

    if (ftruncate(part->fd, 0) < 0 || lseek(part->fd, 0, SEEK_SET) < 0)
        return fail_written(part, errno, err);
    sink->have = 0;
    return 0;
}

static int put(struct sac_sink *sink, const void *bytes, size_t size, struct sac_error *err)
{
    struct sac_part *part = (struct sac_part *)sink;
    const char *at = bytes;

    while (size > 0) {
        ssize_t n = write(part->fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail_written(part, n < 0 ? errno : EIO, err);
        at += n;
        size -= (size_t)n;
        sink->have += n;
    }
    return 0;
}

/* Two lines: the address and the validator. Losing it costs a fetch from the start. */
static int began(struct sac_sink *sink, const char *validator, struct sac_error *err)
{
    struct sac_part *part = (struct sac_part *)sink;
    FILE *file = fopen(part->from, "we");

    if (!file)
        return fail_written(part, errno, err);
    fprintf(file, "%s\n%s\n", part->url, validator);
    return fclose(file) == 0 ? 0 : fail_written(part, errno, err);
}

/* The file's validator; false: it is of another address, or unreadable. */
static bool read_from(const struct sac_part *part, char validator[SAC_VALIDATOR_MAX])
{
    uint8_t *bytes = NULL;
    size_t size, url = strlen(part->url);
    struct sac_error ignored = {0};

    if (sac_file_read(part->from, FROM_BYTES_MAX, &bytes, &size, &ignored) < 0)
        return false;
    char *text = (char *)bytes, *second = text + url + 1;
    bool same = size > url + 1 && memcmp(text, part->url, url) == 0 && text[url] == '\n';
    size_t length = same ? strcspn(second, "\n") : 0;
    same = same && length < SAC_VALIDATOR_MAX;
    if (same) {
        memcpy(validator, second, length);
        validator[length] = 0;
    }
    free(bytes);
    return same;
}

static int take_up(struct sac_part *part, struct sac_transfer_state *state, struct sac_error *err)
{
    struct stat info;

    if (fstat(part->fd, &info) < 0)
        return fail_written(part, errno, err);
    part->sink.have = info.st_size;
    if (info.st_size == 0)
        return 0;
    if (!read_from(part, state->validator))
        return restart(&part->sink, err);
    return lseek(part->fd, 0, SEEK_END) < 0 ? fail_written(part, errno, err) : 0;
}

/* Between the opening and the lock, whoever had it may have given it its name. */
static bool still_there(const struct sac_part *part)
{
    struct stat mine, there;

    return fstat(part->fd, &mine) == 0 && lstat(part->part, &there) == 0 &&
           mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
}

static int open_locked(struct sac_part *part, struct sac_error *err)
{
    part->fd = open(part->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (part->fd < 0)
        return fail_written(part, errno, err);
    if (flock(part->fd, LOCK_EX | LOCK_NB) == 0 && still_there(part))
        return 0;
    close(part->fd);
    part->fd = -1;
    return sac_fail(err, SAC_EBUSY, "%s is being fetched by another process", part->path);
}

int sac_part_open(struct sac_part *part, const char *path, const char *url,
                  struct sac_transfer_state *state, struct sac_error *err)
{
    *part = (struct sac_part){
        .sink = {.restart = restart, .put = put, .began = began}, .fd = -1, .url = url};
    part->path = strdup(path);
    if (asprintf(&part->part, "%s.part", path) < 0)
        part->part = NULL;
    if (asprintf(&part->from, "%s.part.from", path) < 0)
        part->from = NULL;
    int rc = part->path && part->part && part->from ? open_locked(part, err)
                                                    : sac_fail(err, SAC_ENOMEM, "out of memory");
    if (rc == 0)
        rc = take_up(part, state, err);
    if (rc < 0)
        sac_part_close(part);
    return rc;
}

static int compare(const struct sac_part *part, enum sac_sha_kind kind, const char *expected,
                   char ret[SAC_SHA_HEX], struct sac_error *err)
{
    int rc = lseek(part->fd, 0, SEEK_SET) < 0 ? sac_fail_errno(err, errno, "%s", part->part)
                                              : sac_sha_of_fd(part->fd, kind, ret, err);

    if (rc < 0 || !expected || strncasecmp(ret, expected, strlen(expected)) == 0)
        return rc;
    return sac_fail(err, SAC_EFORMAT, "%s: its %s is %s and not %s; nothing was kept", part->url,
                    kind == SAC_SHA1 ? "SHA-1" : "SHA-256", ret, expected);
}

int sac_part_check(struct sac_part *part, const char *sha256, const char *sha1,
                   char ret_sha256[SAC_SHA_HEX], struct sac_error *err)
{
    char hex[SAC_SHA_HEX];
    int rc = compare(part, SAC_SHA256, sha256, ret_sha256, err);

    return rc == 0 && sha1 ? compare(part, SAC_SHA1, sha1, hex, err) : rc;
}

int sac_part_commit(struct sac_part *part, struct sac_error *err)
{
    if (fsync(part->fd) < 0 || rename(part->part, part->path) < 0)
        return fail_written(part, errno, err);
    unlink(part->from);
    close(part->fd);
    part->fd = -1;
    return sac_durable_sync_folder(part->path, err);
}

void sac_part_close(struct sac_part *part)
{
    if (part->fd >= 0) {
        if (!part->keep || part->sink.have == 0) {
            unlink(part->part);
            unlink(part->from);
        }
        close(part->fd);
    }
    free(part->path);
    free(part->part);
    free(part->from);
    *part = (struct sac_part){.fd = -1};
}
