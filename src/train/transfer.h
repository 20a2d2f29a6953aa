/* Numbers between the host and a device, through staging memory where the device has
 * memory of its own; each waits until they are there. For what is not done each pass. The
 * staging memory stays: to free any waits for all devices, and so for sums over ranks that
 * may wait for the caller. */
#ifndef SAC_TRAIN_TRANSFER_H
#define SAC_TRAIN_TRANSFER_H

#include "device/device.h"

struct sac_transfer {
    struct sac_device *device;
    struct sac_stream *stream;
    void *staging; /* NULL: device memory is the host's */
};

int sac_transfer_open(struct sac_transfer *ret, struct sac_device *device,
                      struct sac_stream *stream, struct sac_error *err);
void sac_transfer_done(struct sac_transfer *transfer); /* takes zeros */

int sac_transfer_in(const struct sac_transfer *transfer, void *to, const void *from, size_t bytes,
                    struct sac_error *err);
int sac_transfer_out(const struct sac_transfer *transfer, void *to, const void *from, size_t bytes,
                     struct sac_error *err);

#endif
