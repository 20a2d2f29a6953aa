/* The machine's memory. Any thread. */
#ifndef SAC_BASE_MEMORY_H
#define SAC_BASE_MEMORY_H

#include <stdint.h>

/* Bytes that this process may still take without pushing others out: what the system
 * says is available, at most the cgroup's limit; where it says nothing, all there is. */
uint64_t sac_memory_available(void);

#endif
