/* The cores that this process may use, and what they can do. Any thread. */
#ifndef SAC_BASE_CPU_H
#define SAC_BASE_CPU_H

#include <stdbool.h>

/* How many cores the affinity mask allows (and a cgroup quota, rounded up,
 * where one is set); at least 1. */
int sac_cpu_count(void);

/* Whether `workers` threads of this process take every core that it may use.
 * Fewer are better spread by the system: other processes with few workers, or
 * with a quota below the machine's cores, would pin theirs to the same first ones. */
bool sac_cpu_is_pinning_wise(int workers);

/* Pins the calling thread to the `index`-th allowed core (modulo their
 * number). Best effort: a thread that cannot be pinned runs anywhere. */
void sac_cpu_pin(int index);

/* For a thread that waits for events and answers them at once, beside others that compute:
 * its slices of a core become short, 0.1 ms, so that it gets one before theirs are over.
 * Best effort: the system must let a thread choose (Linux 6.12 and later). (To make those
 * that compute nicer instead would give the machine's other programs their cores.) */
void sac_cpu_be_prompt(void);

struct sac_cpu_features {
    bool avx2;
    bool avx512;      /* F, BW, DQ and VL */
    bool avx512_bf16; /* bf16 dot products in AVX-512 */
    bool amx_bf16;    /* bf16 tiles */
    bool avx512_vnni; /* 8-bit dot products in AVX-512 */
    bool amx_int8;    /* 8-bit tiles */
};
struct sac_cpu_features sac_cpu_features(void);

#endif
