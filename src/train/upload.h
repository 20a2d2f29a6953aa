/*
 * Batches on their way to a device with memory of its own: while one is used, the next is
 * copied, through pinned memory and on a stream of its own, to where the plan's inputs are
 * then made from. Two sides take turns. Private to the phase; one thread.
 *
 * Crops (sac_feed_crops()) travel as bytes and become numbers on the device.
 */
#ifndef SAC_TRAIN_UPLOAD_H
#define SAC_TRAIN_UPLOAD_H

#include "data/feed.h"
#include "net/plan.h"

enum { SAC_UPLOAD_SIDES = 2 };

/* One input of the plan. */
struct sac_upload_part {
    bool crops;
    struct sac_crops how; /* of crops; `mean` is the device's, the upload's */
    /* Into a side's memory: numbers or bytes, and crops' places behind them. */
    size_t at, bytes, places_at, places_bytes;
    bool constant; /* the same in every batch: sent once a side */
};

struct sac_upload_side {
    char *staging, *memory;          /* the host's, the device's */
    struct sac_event *copied, *used; /* copied: to `memory`; used: the inputs are made */
    bool sent;                       /* constants are there */
};

struct sac_upload {
    struct sac_device *device;
    struct sac_stream *stream; /* of the copies */
    struct sac_upload_part *parts;
    int part_count;
    size_t bytes; /* of a side */
    struct sac_upload_side sides[SAC_UPLOAD_SIDES];
};

/* `parts` are copied: how[i].crops with the host's mean, bytes, constant; the rest is
 * found. `ret` is zero or half-built after a failure. */
int sac_upload_open(struct sac_upload *ret, struct sac_device *device,
                    const struct sac_upload_part *parts, int count, struct sac_error *err);
/* Zeros are let pass. Waits for what is under way. */
void sac_upload_done(struct sac_upload *upload);

/* Where the host puts part `part` of a side, once sac_upload_begin() has waited for what
 * was there. */
int sac_upload_begin(struct sac_upload *upload, int side, struct sac_error *err);
void *sac_upload_at(const struct sac_upload *upload, int side, int part);
struct sac_crop_place *sac_upload_places(const struct sac_upload *upload, int side, int part);
/* Whether the part must be filled: constants but once. */
bool sac_upload_wants(const struct sac_upload *upload, int side, int part);
/* Begins the copy of a side that is filled. */
int sac_upload_send(struct sac_upload *upload, int side, struct sac_error *err);
/* Makes the inputs of a plan on its stream, from the side that was sent. May be repeated. */
int sac_upload_give(struct sac_upload *upload, int side, struct sac_plan *plan,
                    struct sac_stream *stream, struct sac_error *err);

#endif
