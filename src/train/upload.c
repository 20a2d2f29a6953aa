#include "train/upload.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };

static int reserve(size_t *end, size_t bytes, size_t *ret_at, struct sac_error *err)
{
    size_t whole;

    *ret_at = *end;
    if (__builtin_add_overflow(bytes, (size_t)ALIGN - 1, &whole) ||
        __builtin_add_overflow(*end, whole / ALIGN * ALIGN, end))
        return sac_fail(err, SAC_ELIMIT, "a batch is too large to be copied to the device");
    return 0;
}

static int lay_out(struct sac_upload *u, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < u->part_count && rc == 0; i++) {
        struct sac_upload_part *part = &u->parts[i];
        rc = reserve(&u->bytes, part->bytes, &part->at, err);
        part->places_bytes = part->crops ? (size_t)part->how.count * sizeof(*part->how.places) : 0;
        if (rc == 0)
            rc = reserve(&u->bytes, part->places_bytes, &part->places_at, err);
    }
    return rc;
}

/* The host's mean to memory of the device, by way of pinned memory. */
static int send_mean(struct sac_upload *u, struct sac_crops *how, struct sac_error *err)
{
    const struct sac_device_table *table = u->device->table;
    size_t count = how->mean_count > 0
                       ? (size_t)how->mean_count
                       : (size_t)how->channels * (size_t)how->mean_height * (size_t)how->mean_width;
    size_t bytes = count * sizeof(float);
    const float *mean = how->mean;
    void *memory = NULL, *staging = NULL;

    how->mean = NULL;
    int rc = table->memory_new(u->device, SAC_MEMORY_DEVICE, bytes, &memory, err);
    how->mean = memory;
    if (rc == 0)
        rc = table->memory_new(u->device, SAC_MEMORY_STAGING, bytes, &staging, err);
    if (rc == 0) {
        memcpy(staging, mean, bytes);
        rc = table->copy(u->stream, SAC_COPY_TO_DEVICE, memory, staging, bytes, err);
    }
    if (rc == 0)
        rc = table->stream_sync(u->stream, err);
    if (staging)
        table->memory_free(u->device, SAC_MEMORY_STAGING, staging);
    return rc;
}

static int side_open(struct sac_upload *u, struct sac_upload_side *side, struct sac_error *err)
{
    const struct sac_device_table *table = u->device->table;
    void *staging = NULL, *memory = NULL;
    int rc = table->memory_new(u->device, SAC_MEMORY_STAGING, u->bytes, &staging, err);

    side->staging = staging;
    if (rc == 0)
        rc = table->memory_new(u->device, SAC_MEMORY_DEVICE, u->bytes, &memory, err);
    side->memory = memory;
    if (rc == 0)
        rc = table->event_new(u->device, &side->copied, err);
    return rc == 0 ? table->event_new(u->device, &side->used, err) : rc;
}

int sac_upload_open(struct sac_upload *ret, struct sac_device *device,
                    const struct sac_upload_part *parts, int count, struct sac_error *err)
{
    *ret = (struct sac_upload){.device = device, .part_count = count};
    ret->parts = calloc((size_t)count + 1, sizeof *ret->parts);
    if (!ret->parts)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; i < count; i++) {
        ret->parts[i] = parts[i];
        ret->parts[i].how.mean = NULL; /* until it is the device's */
    }
    int rc = lay_out(ret, err);
    if (rc == 0)
        rc = device->table->stream_new(device, &ret->stream, err);
    for (int i = 0; i < count && rc == 0; i++) {
        if (!parts[i].crops || !parts[i].how.mean)
            continue;
        ret->parts[i].how.mean = parts[i].how.mean;
        rc = send_mean(ret, &ret->parts[i].how, err);
    }
    for (int i = 0; i < SAC_UPLOAD_SIDES && rc == 0; i++)
        rc = side_open(ret, &ret->sides[i], err);
    return rc;
}

static void side_done(struct sac_upload *u, struct sac_upload_side *side)
{
    const struct sac_device_table *table = u->device->table;

    if (side->copied)
        table->event_free(side->copied);
    if (side->used)
        table->event_free(side->used);
    if (side->memory)
        table->memory_free(u->device, SAC_MEMORY_DEVICE, side->memory);
    if (side->staging)
        table->memory_free(u->device, SAC_MEMORY_STAGING, side->staging);
}

void sac_upload_done(struct sac_upload *u)
{
    struct sac_error nobody = {0};

    if (!u->device)
        return;
    if (u->stream)
        u->device->table->stream_sync(u->stream, &nobody);
    for (int i = 0; i < SAC_UPLOAD_SIDES; i++)
        side_done(u, &u->sides[i]);
    for (int i = 0; u->parts && i < u->part_count; i++)
        if (u->parts[i].how.mean)
            u->device->table->memory_free(u->device, SAC_MEMORY_DEVICE,
                                          (void *)(uintptr_t)u->parts[i].how.mean);
    if (u->stream)
        u->device->table->stream_free(u->stream);
    free(u->parts);
    *u = (struct sac_upload){0};
}

int sac_upload_begin(struct sac_upload *u, int side, struct sac_error *err)
{
    return u->sides[side].sent ? u->device->table->event_sync(u->sides[side].copied, err) : 0;
}

void *sac_upload_at(const struct sac_upload *u, int side, int part)
{
    return u->sides[side].staging + u->parts[part].at;
}

struct sac_crop_place *sac_upload_places(const struct sac_upload *u, int side, int part)
{
    return (struct sac_crop_place *)(void *)(u->sides[side].staging + u->parts[part].places_at);
}

bool sac_upload_wants(const struct sac_upload *u, int side, int part)
{
    return !u->parts[part].constant || !u->sides[side].sent;
}

static int send_part(struct sac_upload *u, const struct sac_upload_side *side, size_t at,
                     size_t bytes, struct sac_error *err)
{
    return bytes == 0 ? 0
                      : u->device->table->copy(u->stream, SAC_COPY_TO_DEVICE, side->memory + at,
                                               side->staging + at, bytes, err);
}

int sac_upload_send(struct sac_upload *u, int side, struct sac_error *err)
{
    struct sac_upload_side *s = &u->sides[side];
    int rc = s->sent ? u->device->table->stream_wait(u->stream, s->used, err) : 0;

    for (int i = 0; i < u->part_count && rc == 0; i++) {
        const struct sac_upload_part *part = &u->parts[i];
        if (!sac_upload_wants(u, side, i))
            continue;
        rc = send_part(u, s, part->at, part->bytes, err);
        if (rc == 0)
            rc = send_part(u, s, part->places_at, part->places_bytes, err);
    }
    if (rc == 0)
        rc = u->device->table->event_record(s->copied, u->stream, err);
    s->sent |= rc == 0;
    return rc;
}

static int make_input(const struct sac_upload *u, const struct sac_upload_side *side, int index,
                      const struct sac_tensor *to, struct sac_stream *stream, struct sac_error *err)
{
    const struct sac_upload_part *part = &u->parts[index];
    struct sac_crops how = part->how;

    if (!part->crops)
        return u->device->table->copy(stream, SAC_COPY_ON_DEVICE, to->data, side->memory + part->at,
                                      part->bytes, err);
    how.from = (const uint8_t *)side->memory + part->at;
    how.places = (const struct sac_crop_place *)(const void *)(side->memory + part->places_at);
    how.to = to->data;
    return u->device->table->crops(stream, &how, err);
}

int sac_upload_give(struct sac_upload *u, int side, struct sac_plan *plan,
                    struct sac_stream *stream, struct sac_error *err)
{
    struct sac_upload_side *s = &u->sides[side];
    int rc = u->device->table->stream_wait(stream, s->copied, err);

    for (int i = 0; i < u->part_count && rc == 0; i++)
        rc = make_input(u, s, i, sac_plan_input(plan, i), stream, err);
    return rc == 0 ? u->device->table->event_record(s->used, stream, err) : rc;
}
