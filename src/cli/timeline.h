/* `saccade time --net N --timeline`: which sums over ranks a step's computing hides. */
#ifndef SAC_CLI_TIMELINE_H
#define SAC_CLI_TIMELINE_H

#include "device/device.h"
#include "ranks/group.h"

/* All borrowed. */
struct sac_timeline {
    struct sac_device *const *devices; /* one a rank */
    int ranks;
    const char *net; /* a train_val prototxt, which tells its input's shape */
    int batch;       /* of a rank; 0: the net's own */
    int iterations;  /* of which the median is shown, by its length */
    size_t bucket_bytes;
    struct sac_op_options ops;
    bool json;
};

/* Prints the report. */
int sac_timeline(const struct sac_timeline *options, struct sac_error *err);

#endif
