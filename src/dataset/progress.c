#include "dataset/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/durable.h"
#include "base/file.h"

#define MAGIC UINT64_C(0x31535041434341) /* "ACCAPS1" */
#define BYTES_MAX ((size_t)8 << 30)

/* What stands before the sums; a checksum over all of it stands behind them. */
struct head {
    uint64_t magic, fingerprint;
    int64_t position, records, skipped;
    uint64_t list_bytes, skipped_bytes, sum_count;
};

static int path_of(const char *folder, int number, char path[4096], struct sac_error *err)
{
    if (snprintf(path, 4096, "%s/.progress.%d", folder, number) < 4096)
        return 0;
    return sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", folder);
}

void sac_progress_done(struct sac_progress *progress)
{
    free(progress->sums);
    *progress = (struct sac_progress){0};
}

static int parse(struct sac_progress *ret, const uint8_t *bytes, size_t size, const char *path,
                 struct sac_error *err)
{
    struct head head;
    uint32_t crc;

    if (size < sizeof head + sizeof crc)
        return sac_fail(err, SAC_EFORMAT, "%s: cut short", path);
    memcpy(&head, bytes, sizeof head);
    memcpy(&crc, bytes + size - sizeof crc, sizeof crc);
    size_t rest = size - sizeof head - sizeof crc;
    if (head.magic != MAGIC || crc != sac_crc32(0, bytes, size - sizeof crc) ||
        rest % sizeof(uint64_t) != 0 || head.sum_count != rest / sizeof(uint64_t))
        return sac_fail(err, SAC_EFORMAT, "%s: damaged", path);
    *ret = (struct sac_progress){.fingerprint = head.fingerprint,
                                 .position = head.position,
                                 .mark = {head.records, head.list_bytes},
                                 .skipped = head.skipped,
                                 .skipped_bytes = head.skipped_bytes,
                                 .sum_count = head.sum_count};
    ret->sums = malloc(rest + 1);
    if (!ret->sums)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu bytes", path, rest);
    memcpy(ret->sums, bytes + sizeof head, rest);
    return 0;
}

int sac_progress_load(struct sac_progress *ret, const char *folder, int number,
                      struct sac_error *err)
{
    uint8_t *bytes = NULL;
    char path[4096];
    size_t size = 0;
    int rc = path_of(folder, number, path, err);

    if (rc == 0)
        rc = sac_file_read(path, BYTES_MAX, &bytes, &size, err);
    if (rc == 0)
        rc = parse(ret, bytes, size, path, err);
    free(bytes);
    return rc;
}

static int write_parts(struct sac_durable *file, const struct sac_progress *progress,
                       struct sac_error *err)
{
    struct head head = {.magic = MAGIC,
                        .fingerprint = progress->fingerprint,
                        .position = progress->position,
                        .records = progress->mark.records,
                        .skipped = progress->skipped,
                        .list_bytes = progress->mark.list_bytes,
                        .skipped_bytes = progress->skipped_bytes,
                        .sum_count = progress->sum_count};
    size_t sums = progress->sum_count * sizeof *progress->sums;
    uint32_t crc = sac_crc32(sac_crc32(0, &head, sizeof head), progress->sums, sums);
    int rc = sac_durable_put(file, &head, sizeof head, err);

    if (rc == 0)
        rc = sac_durable_put(file, progress->sums, sums, err);
    return rc ? rc : sac_durable_put(file, &crc, sizeof crc, err);
}

int sac_progress_save(const struct sac_progress *progress, const char *folder, int number,
                      struct sac_error *err)
{
    struct sac_durable *file = NULL;
    char path[4096];
    int rc = path_of(folder, number, path, err);

    if (rc == 0)
        rc = sac_durable_open(&file, path, err);
    if (rc == 0)
        rc = write_parts(file, progress, err);
    if (rc == 0)
        rc = sac_durable_sync(file, err);
    if (rc == 0)
        rc = sac_durable_commit(file, err);
    sac_durable_free(file);
    return rc;
}

void sac_progress_remove(const char *folder)
{
    char path[4096];

    for (int i = 0; i < SAC_PROGRESS_FILES; i++) {
        if (path_of(folder, i, path, NULL) == 0)
            unlink(path);
    }
}
