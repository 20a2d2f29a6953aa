/*
 * The ranges of a net's blobs, by which their numbers become 8 bits: found by running
 * pictures through the net (model/calibrate.h), kept beside the model
 * (model/range_file.h). Any thread, once they stand.
 */
#ifndef SAC_DEVICE_RANGES_H
#define SAC_DEVICE_RANGES_H

#include <stdbool.h>

/* Of a blob as its last layer leaves it: what lies beyond is clipped. low ≤ 0 ≤ high. */
struct sac_range {
    char *name;
    float low, high;
};

struct sac_ranges {
    struct sac_range *blobs;
    int blob_count;
    char **keep; /* layers that lose too much in 8 bits */
    int keep_count;
};

/* NULL: the blob has none. */
const struct sac_range *sac_ranges_find(const struct sac_ranges *ranges, const char *blob);
/* `name`: a layer, or several that were fused, "conv1+relu1", the first of which counts. */
bool sac_ranges_keeps(const struct sac_ranges *ranges, const char *name);
void sac_ranges_done(struct sac_ranges *ranges); /* takes what was filled in part */

#endif
