#include "cli/arrivals.h"

#include <math.h>

void sac_arrivals_init(struct sac_arrivals *arrivals, double rate, bool poisson, uint64_t seed)
{
    *arrivals = (struct sac_arrivals){.rate = rate, .poisson = poisson, .state = seed};
}

static uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* Exponential with mean 1, from a number in (0, 1]. */
static double random_gap(uint64_t *state)
{
    return -log((double)((random_bits(state) >> 11) + 1) * 0x1p-53);
}

uint64_t sac_arrivals_next(struct sac_arrivals *arrivals)
{
    if (arrivals->poisson)
        arrivals->at += (long double)(1e9 * random_gap(&arrivals->state) / arrivals->rate);
    else
        arrivals->at = 1e9L * (long double)arrivals->count / (long double)arrivals->rate;
    arrivals->count++;
    return (uint64_t)arrivals->at;
}
