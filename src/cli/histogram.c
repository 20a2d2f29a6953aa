#include "cli/histogram.h"

#include <math.h>

enum { SUB_BITS = 6, SUB = 1 << SUB_BITS };

/* Values below 64 have a bucket each; above, the highest set bit chooses 64
 * buckets and the six bits below it one of them. */
static unsigned index_of(uint64_t value)
{
    if (value < SUB)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return (shift + 1) * SUB + (unsigned)((value >> shift) - SUB);
}

static uint64_t middle_of(unsigned index)
{
    if (index < SUB)
        return index;
    unsigned shift = index / SUB - 1;
    uint64_t low = (uint64_t)(index % SUB + SUB) << shift;
    return low + ((UINT64_C(1) << shift) >> 1);
}

void sac_histogram_add(struct sac_histogram *histogram, uint64_t value)
{
    if (histogram->count == 0 || value < histogram->min)
        histogram->min = value;
    if (value > histogram->max)
        histogram->max = value;
    histogram->count++;
    histogram->sum += (double)value;
    histogram->bucket[index_of(value)]++;
}

uint64_t sac_histogram_percentile(const struct sac_histogram *histogram, double fraction)
{
    /* 0.99 × 100 is 99.00000000000001: a rank must not move by rounding. */
    uint64_t rank = (uint64_t)ceil(fraction * (double)histogram->count - 1e-9);
    uint64_t seen = 0;

    if (histogram->count == 0)
        return 0;
    if (rank < 1)
        return histogram->min;
    if (rank >= histogram->count)
        return histogram->max;
    for (unsigned i = 0; i < SAC_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->bucket[i];
        if (seen >= rank) {
            uint64_t value = middle_of(i);
            value = value < histogram->min ? histogram->min : value;
            return value > histogram->max ? histogram->max : value;
        }
    }
    return histogram->max;
}

double sac_histogram_mean(const struct sac_histogram *histogram)
{
    return histogram->count ? histogram->sum / (double)histogram->count : 0;
}
