/*
 * A histogram of times, log-linear: each power of two in 64 equal buckets, so
 * that a percentile is within 1/64 of the true one at any size, in 30 KB and
 * without keeping the values. One thread at a time.
 */
#ifndef SAC_CLI_HISTOGRAM_H
#define SAC_CLI_HISTOGRAM_H

#include <stdint.h>

enum { SAC_HISTOGRAM_BUCKETS = 64 * 59 };

/* Start it as `= {0}`. */
struct sac_histogram {
    uint64_t count;
    uint64_t min, max; /* exact; of nothing while count is 0 */
    double sum;
    uint64_t bucket[SAC_HISTOGRAM_BUCKETS];
};

void sac_histogram_add(struct sac_histogram *histogram, uint64_t value);

/* The smallest value that at least `fraction` (0 to 1) of those added do not
 * exceed (the nearest rank), as its bucket's middle, within [min, max]; 0 when
 * nothing was added. */
uint64_t sac_histogram_percentile(const struct sac_histogram *histogram, double fraction);

double sac_histogram_mean(const struct sac_histogram *histogram);

#endif
