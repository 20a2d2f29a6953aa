/* CIFAR-10's binary version, and its classes' names beside it. */
#include "data/sink_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/durable.h"
#include "base/file.h"

enum { CLASSES = 10, SIDE = 32, PIXELS = 3 * SIDE * SIDE };

struct cifar {
    struct sac_sink sink;
    struct sac_durable *file;
    struct sac_buf names; /* batches.meta.txt, if there are ten */
};

static int cifar_put(struct sac_sink *sink, const struct sac_record *record, struct sac_error *err)
{
    struct cifar *cifar = (struct cifar *)sink;
    uint8_t label = (uint8_t)record->label;

    if (record->kind != SAC_ITEM_BYTES || record->channels != 3 || record->height != SIDE ||
        record->width != SIDE)
        return sac_fail(err, SAC_EINVAL,
                        "%s: %s is %d × %d × %d; CIFAR's are 3 × 32 × 32 bytes (--size 32x32)",
                        sink->path, record->name, record->channels, record->height, record->width);
    if (record->label < 0 || record->label >= CLASSES)
        return sac_fail(err, SAC_EINVAL, "%s: %s has label %d; CIFAR-10 has 0 to %d", sink->path,
                        record->name, record->label, CLASSES - 1);
    int rc = sac_durable_put(cifar->file, &label, 1, err);
    return rc ? rc : sac_durable_put(cifar->file, record->bytes, PIXELS, err);
}

static int cifar_commit(struct sac_sink *sink, struct sac_error *err)
{
    (void)sink; /* the file appears when it is whole */
    (void)err;
    return 0;
}

/* Only where there are none yet: other batches in the folder may go by them. */
static int write_names(const struct cifar *cifar, struct sac_error *err)
{
    const char *slash = strrchr(cifar->sink.path, '/');
    char path[4096];

    if (cifar->names.len == 0 ||
        snprintf(path, sizeof path, "%.*sbatches.meta.txt",
                 slash ? (int)(slash - cifar->sink.path) + 1 : 0,
                 cifar->sink.path) >= (int)sizeof path ||
        sac_file_exists(path))
        return 0;
    return sac_durable_write(path, cifar->names.data, cifar->names.len, err);
}

static int cifar_finish(struct sac_sink *sink, struct sac_error *err)
{
    struct cifar *cifar = (struct cifar *)sink;
    int rc = sac_durable_sync(cifar->file, err);

    if (rc == 0)
        rc = sac_durable_commit(cifar->file, err);
    return rc ? rc : write_names(cifar, err);
}

static void cifar_free(struct sac_sink *sink)
{
    struct cifar *cifar = (struct cifar *)sink;

    sac_durable_free(cifar->file);
    sac_buf_done(&cifar->names);
    free(cifar);
}

static const struct sac_sink_type cifar_type = {cifar_put, cifar_commit, cifar_finish, cifar_free};

int sac_sink_cifar_open(struct sac_sink **ret, const struct sac_sink_options *options,
                        const struct sac_sink_mark *mark, struct sac_error *err)
{
    struct cifar *cifar = sac_sink_new(sizeof *cifar, &cifar_type, options, mark, err);

    if (!cifar)
        return SAC_ENOMEM;
    for (int i = 0; options->labels && options->labels->count == CLASSES && i < CLASSES; i++)
        sac_buf_printf(&cifar->names, "%s\n", options->labels->text[i]);
    int rc = cifar->names.failed ? sac_fail(err, SAC_ENOMEM, "%s: out of memory", options->path)
                                 : sac_durable_open(&cifar->file, options->path, err);
    if (rc == 0)
        *ret = &cifar->sink;
    else
        sac_sink_free(&cifar->sink);
    return rc;
}
