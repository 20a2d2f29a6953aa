/* Numbers between the host and a device, through staging memory where the device has
 * memory of its own; each waits until they are there. For what is not done each pass. */
#ifndef SAC_TRAIN_TRANSFER_H
#define SAC_TRAIN_TRANSFER_H

#include "device/device.h"

int sac_transfer_in(struct sac_device *device, struct sac_stream *stream, void *to,
                    const void *from, size_t bytes, struct sac_error *err);
int sac_transfer_out(struct sac_device *device, struct sac_stream *stream, void *to,
                     const void *from, size_t bytes, struct sac_error *err);

#endif
