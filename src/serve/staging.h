/*
 * Buffers for decoded pictures, in the memory that copies fastest to GPUs: filled
 * by decode workers, read by whichever device takes the picture, given back when it
 * is answered. How many there are bounds what is decoded ahead.
 *
 * Each device brings a share of its own, as its context owns the pages: before that
 * is thrown away the share is retired. Any thread.
 */
#ifndef SAC_SERVE_STAGING_H
#define SAC_SERVE_STAGING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/device.h"

struct sac_staging;

enum { SAC_STAGING_SHARES_MAX = 64 };

struct sac_slot {
    uint8_t *pixels; /* NULL: none */
    int share;
};

/* Every slot holds `bytes`. */
int sac_staging_new(struct sac_staging **ret, size_t bytes, struct sac_error *err);
void sac_staging_free(struct sac_staging *staging); /* its shares are retired; takes NULL */

/* `count` slots of the device's, as share 0 … SAC_STAGING_SHARES_MAX − 1. */
int sac_staging_add(struct sac_staging *staging, int share, struct sac_device *device, int count,
                    struct sac_error *err);
/* No slot of it is handed out any more; waits for those that are, and frees it.
 * Nothing where there is no such share. */
void sac_staging_retire(struct sac_staging *staging, int share);

/* Waits for a slot; false: no share is left. */
bool sac_staging_take(struct sac_staging *staging, struct sac_slot *ret);
void sac_staging_give(struct sac_staging *staging, struct sac_slot *slot); /* empties it */

#endif
