/*
 * When requests of an open loop begin: evenly spaced, or a Poisson process, at
 * a rate, from a seed. The n-th time depends on nothing else, so a copy of the
 * struct gives the same times again. One thread at a time.
 */
#ifndef SAC_CLI_ARRIVALS_H
#define SAC_CLI_ARRIVALS_H

#include <stdbool.h>
#include <stdint.h>

struct sac_arrivals {
    double rate; /* a second */
    bool poisson;
    uint64_t state; /* of the generator (SplitMix64) */
    uint64_t count; /* times given so far */
    long double at; /* the last time, in nanoseconds */
};

void sac_arrivals_init(struct sac_arrivals *arrivals, double rate, bool poisson, uint64_t seed);

/* The next time, in nanoseconds from the start; evenly spaced: the k-th (from
 * 0) is k / rate, Poisson: the gaps are exponential with mean 1 / rate. */
uint64_t sac_arrivals_next(struct sac_arrivals *arrivals);

#endif
