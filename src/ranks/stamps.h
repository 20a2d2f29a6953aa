/*
 * When what was enqueued on a stream was done, as the host's clock has it: a thread of its
 * own waits for one event after the other. One caller; exact to what waking a thread takes.
 */
#ifndef SAC_RANKS_STAMPS_H
#define SAC_RANKS_STAMPS_H

#include <stdint.h>

#include "device/device.h"

struct sac_stamps;

/* At most `most` stamps between two waits. */
int sac_stamps_new(struct sac_stamps **ret, struct sac_device *device, struct sac_stream *stream,
                   int most, struct sac_error *err);
/* *to becomes the time at which all that was enqueued until now is done. */
int sac_stamps_add(struct sac_stamps *stamps, uint64_t *to, struct sac_error *err);
/* Until all are known; what failed is told here. */
int sac_stamps_wait(struct sac_stamps *stamps, struct sac_error *err);
void sac_stamps_free(struct sac_stamps *stamps); /* takes NULL */

#endif
