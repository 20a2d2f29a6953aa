/*
 * Random bits as a function of counters: the same for the same place, whatever was
 * drawn before, on any thread. The mixing is splitmix64's finaliser (Steele, Lea and
 * Flood, 2014), once for every counter.
 */
#ifndef SAC_BASE_RANDOM_H
#define SAC_BASE_RANDOM_H

#include <stdint.h>

static inline uint64_t sac_random_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* A key for a stream of numbers; sac_random_mix(key + index) is its index-th. */
static inline uint64_t sac_random_key(uint64_t seed, uint64_t stream, uint64_t iteration)
{
    return sac_random_mix(sac_random_mix(sac_random_mix(seed) ^ stream) ^ iteration);
}

/* [0, 1), with 24 bits. */
static inline float sac_random_unit(uint64_t bits)
{
    return (float)(bits >> 40) * 0x1p-24f;
}

#endif
