/* CIFAR-10's binary version: records of 3,073 bytes, read one by one. */
#include "data/source_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { CLASSES = 10, SIDE = 32, PIXELS = 3 * SIDE * SIDE, RECORD = 1 + PIXELS, FILES_MAX = 64 };

struct batch_file {
    char *path;
    int fd;
    int64_t first, count; /* records */
};

struct cifar {
    struct sac_source source;
    int file_count;
    struct batch_file files[FILES_MAX];
};

static const struct batch_file *file_of(const struct cifar *cifar, int64_t index)
{
    int i = 0;

    while (index >= cifar->files[i].first + cifar->files[i].count)
        i++;
    return &cifar->files[i];
}

static int cifar_item(const struct sac_source *source, int64_t index, struct sac_item *ret,
                      struct sac_error *err)
{
    const struct batch_file *file = file_of((const struct cifar *)source, index);
    int rc = sac_item_reserve(ret, RECORD, err);
    ssize_t got;

    if (rc < 0)
        return rc;
    do
        got = pread(file->fd, ret->memory, RECORD, (off_t)((index - file->first) * RECORD));
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return sac_fail_errno(err, errno, "cannot be read");
    if (got != RECORD)
        return sac_fail(err, SAC_EIO, "the file became shorter while it was used");
    const uint8_t *record = ret->memory;
    if (record[0] >= CLASSES)
        return sac_fail(err, SAC_EINVAL, "label %u; CIFAR-10 has 0 to %d", record[0], CLASSES - 1);
    ret->kind = SAC_ITEM_BYTES;
    ret->channels = 3;
    ret->height = ret->width = SIDE;
    ret->rgb = source->rgb;
    ret->bytes = record + 1;
    ret->size = PIXELS;
    return sac_item_set_label(ret, record[0], err);
}

static void cifar_name(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    const struct batch_file *file = file_of((const struct cifar *)source, index);

    snprintf(text, size, "%s: record %lld", file->path, (long long)(index - file->first));
}

static void cifar_free(struct sac_source *source)
{
    struct cifar *cifar = (struct cifar *)source;

    for (int i = 0; i < cifar->file_count; i++) {
        if (cifar->files[i].fd >= 0)
            close(cifar->files[i].fd);
        free(cifar->files[i].path);
    }
    free(cifar);
}

static const struct sac_source_type cifar_type = {"CIFAR",    cifar_item, cifar_name,
                                                  cifar_free, NULL,       NULL};

static int open_file(struct cifar *cifar, const char *path, struct sac_error *err)
{
    struct batch_file *file = &cifar->files[cifar->file_count];
    struct stat info;

    *file = (struct batch_file){.path = strdup(path), .fd = open(path, O_RDONLY | O_CLOEXEC)};
    cifar->file_count++;
    if (!file->path)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    if (file->fd < 0 || fstat(file->fd, &info) < 0)
        return sac_fail_errno(err, errno, "%s", path);
    if (!S_ISREG(info.st_mode) || info.st_size == 0 || info.st_size % RECORD != 0)
        return sac_fail(err, SAC_EFORMAT,
                        "%s: %lld bytes; expected CIFAR-10's binary version, records of %d", path,
                        (long long)info.st_size, RECORD);
    file->first = cifar->source.count;
    file->count = info.st_size / RECORD;
    cifar->source.count += file->count;
    return 0;
}

/* Names are a courtesy: without them classes have numbers. */
static void load_names(struct sac_source *source)
{
    static const char *const names[] = {"batches.meta.txt", "class_names.txt"};

    for (int i = 0; i < 2 && source->labels.count == 0; i++) {
        sac_source_load_labels(source, source->path, names[i]);
        if (source->labels.count != CLASSES)
            sac_labels_done(&source->labels);
    }
}

int sac_source_cifar_open(struct sac_source **ret, const char *const *paths, int count,
                          struct sac_error *err)
{
    if (count < 1 || count > FILES_MAX)
        return sac_fail(err, SAC_EINVAL, "%d CIFAR files; expected 1 to %d", count, FILES_MAX);
    struct cifar *cifar = sac_source_new(sizeof *cifar, &cifar_type, paths[0], err);
    if (!cifar)
        return SAC_ENOMEM;
    int rc = 0;
    cifar->source.rgb = true;
    for (int i = 0; rc == 0 && i < count; i++)
        rc = open_file(cifar, paths[i], err);
    if (rc == 0) {
        load_names(&cifar->source);
        *ret = &cifar->source;
    } else {
        sac_source_free(&cifar->source);
    }
    return rc;
}
