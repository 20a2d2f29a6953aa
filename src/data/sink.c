#include "data/sink_private.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {[SAC_SINK_LIST] = "list",
                                    [SAC_SINK_FOLDER] = "folder",
                                    [SAC_SINK_LMDB] = "lmdb",
                                    [SAC_SINK_HDF5] = "hdf5",
                                    [SAC_SINK_CIFAR] = "cifar"};

int sac_sink_kind_of(const char *name, enum sac_sink_kind *ret, struct sac_error *err)
{
    for (int i = SAC_SINK_LIST; i <= SAC_SINK_CIFAR; i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum sac_sink_kind)i;
            return 0;
        }
    }
    return sac_fail(err, SAC_EINVAL, "expected list, folder, lmdb, hdf5 or cifar, found \"%.40s\"",
                    name);
}

const char *sac_sink_kind_name(enum sac_sink_kind kind)
{
    return names[kind];
}

bool sac_sink_resumes(enum sac_sink_kind kind)
{
    return kind == SAC_SINK_LIST || kind == SAC_SINK_FOLDER || kind == SAC_SINK_LMDB;
}

void *sac_sink_new(size_t size, const struct sac_sink_type *type,
                   const struct sac_sink_options *options, const struct sac_sink_mark *mark,
                   struct sac_error *err)
{
    struct sac_sink *sink = calloc(1, size);

    if (sink)
        sink->path = strdup(options->path);
    if (!sink || !sink->path) {
        sac_fail(err, SAC_ENOMEM, "%s: out of memory", options->path);
        free(sink);
        return NULL;
    }
    sink->type = type;
    sink->kind = options->kind;
    sink->mark = *mark;
    return sink;
}

void sac_sink_record_name(const struct sac_sink *sink, const struct sac_record *record,
                          char text[128])
{
    const char *slash = strrchr(record->name, '/');
    const char *stem = slash ? slash + 1 : record->name, *dot = strrchr(stem, '.');
    size_t size = dot && dot > stem ? (size_t)(dot - stem) : strlen(stem);
    int at = snprintf(text, 24, "%08lld%s", (long long)sink->mark.records, size ? "_" : "");

    for (size_t i = 0; i < size && i < 80; i++) {
        unsigned char byte = (unsigned char)stem[i];
        text[at++] = isalnum(byte) || strchr("-+ ", byte) ? (char)byte : '_';
    }
    text[at] = 0;
}

int sac_sink_open(struct sac_sink **ret, const struct sac_sink_options *options,
                  const struct sac_sink_mark *mark, struct sac_error *err)
{
    switch (options->kind) {
    case SAC_SINK_LMDB:
        return sac_sink_lmdb_open(ret, options, mark, err);
    case SAC_SINK_HDF5:
        return sac_sink_hdf5_open(ret, options, mark, err);
    case SAC_SINK_CIFAR:
        return sac_sink_cifar_open(ret, options, mark, err);
    default:
        return sac_sink_files_open(ret, options, mark, err);
    }
}

int sac_sink_put(struct sac_sink *sink, const struct sac_record *record, struct sac_error *err)
{
    int rc = sink->type->put(sink, record, err);

    if (rc == 0)
        sink->mark.records++;
    return rc;
}

struct sac_sink_mark sac_sink_mark(const struct sac_sink *sink)
{
    return sink->mark;
}

int sac_sink_commit(struct sac_sink *sink, struct sac_error *err)
{
    return sink->type->commit(sink, err);
}

int sac_sink_finish(struct sac_sink *sink, struct sac_error *err)
{
    return sink->type->finish(sink, err);
}

void sac_sink_free(struct sac_sink *sink)
{
    if (!sink)
        return;
    char *path = sink->path;
    sink->type->free(sink);
    free(path);
}
