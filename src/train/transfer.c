#include "train/transfer.h"

#include <string.h>

enum { PIECE = 4 << 20 };

int sac_transfer_open(struct sac_transfer *ret, struct sac_device *device,
                      struct sac_stream *stream, struct sac_error *err)
{
    *ret = (struct sac_transfer){.device = device, .stream = stream};
    return device->info.host_memory
               ? 0
               : device->table->memory_new(device, SAC_MEMORY_STAGING, PIECE, &ret->staging, err);
}

void sac_transfer_done(struct sac_transfer *t)
{
    if (t->staging)
        t->device->table->memory_free(t->device, SAC_MEMORY_STAGING, t->staging);
    *t = (struct sac_transfer){0};
}

static int move(const struct sac_transfer *t, bool in, char *to, const char *from, size_t bytes,
                struct sac_error *err)
{
    const struct sac_device_table *table = t->device->table;
    int rc = 0;

    for (size_t at = 0, count; at < bytes && rc == 0; at += count) {
        count = bytes - at < PIECE ? bytes - at : PIECE;
        if (in)
            memcpy(t->staging, from + at, count);
        rc = in ? table->copy(t->stream, SAC_COPY_TO_DEVICE, to + at, t->staging, count, err)
                : table->copy(t->stream, SAC_COPY_TO_HOST, t->staging, from + at, count, err);
        if (rc == 0)
            rc = table->stream_sync(t->stream, err);
        if (rc == 0 && !in)
            memcpy(to + at, t->staging, count);
    }
    return rc;
}

int sac_transfer_in(const struct sac_transfer *t, void *to, const void *from, size_t bytes,
                    struct sac_error *err)
{
    if (t->staging)
        return move(t, true, to, from, bytes, err);
    memcpy(to, from, bytes);
    return 0;
}

int sac_transfer_out(const struct sac_transfer *t, void *to, const void *from, size_t bytes,
                     struct sac_error *err)
{
    int rc = 0;

    if (t->staging)
        return move(t, false, to, from, bytes, err);
    rc = t->device->table->stream_sync(t->stream, err);
    if (rc == 0)
        memcpy(to, from, bytes);
    return rc;
}
