#include "train/transfer.h"

#include <string.h>

enum { PIECE = 8 << 20 };

static int move(struct sac_device *device, struct sac_stream *stream, bool in, char *to,
                const char *from, size_t bytes, struct sac_error *err)
{
    const struct sac_device_table *table = device->table;
    size_t room = bytes < PIECE ? bytes : PIECE, count;
    void *staging = NULL;
    int rc = bytes > 0 ? table->memory_new(device, SAC_MEMORY_STAGING, room, &staging, err) : 0;

    for (size_t at = 0; at < bytes && rc == 0; at += count) {
        count = bytes - at < room ? bytes - at : room;
        if (in)
            memcpy(staging, from + at, count);
        rc = in ? table->copy(stream, SAC_COPY_TO_DEVICE, to + at, staging, count, err)
                : table->copy(stream, SAC_COPY_TO_HOST, staging, from + at, count, err);
        if (rc == 0)
            rc = table->stream_sync(stream, err);
        if (rc == 0 && !in)
            memcpy(to + at, staging, count);
    }
    if (staging)
        table->memory_free(device, SAC_MEMORY_STAGING, staging);
    return rc;
}

int sac_transfer_in(struct sac_device *device, struct sac_stream *stream, void *to,
                    const void *from, size_t bytes, struct sac_error *err)
{
    if (!device->info.host_memory)
        return move(device, stream, true, to, from, bytes, err);
    memcpy(to, from, bytes);
    return 0;
}

int sac_transfer_out(struct sac_device *device, struct sac_stream *stream, void *to,
                     const void *from, size_t bytes, struct sac_error *err)
{
    int rc = 0;

    if (!device->info.host_memory)
        return move(device, stream, false, to, from, bytes, err);
    rc = device->table->stream_sync(stream, err);
    if (rc == 0)
        memcpy(to, from, bytes);
    return rc;
}
