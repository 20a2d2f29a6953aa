/* The cores that this process may use, and what they can do. Any thread. */
#ifndef SAC_BASE_CPU_H
#define SAC_BASE_CPU_H

#include <stdbool.h>

/* How many cores the affinity mask allows (and a cgroup quota, rounded up,
 * where one is set); at least 1. */
int sac_cpu_count(void);

/* Pins the calling thread to the `index`-th allowed core (modulo their
 * number). Best effort: a thread that cannot be pinned runs anywhere. */
void sac_cpu_pin(int index);

struct sac_cpu_features {
    bool avx2;
    bool avx512;      /* F, BW, DQ and VL */
    bool avx512_bf16; /* bf16 dot products in AVX-512 */
    bool amx_bf16;    /* bf16 tiles */
};
struct sac_cpu_features sac_cpu_features(void);

#endif
