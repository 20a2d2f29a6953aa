/* Time. Any thread. */
#ifndef SAC_BASE_CLOCK_H
#define SAC_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds of a clock that never goes back; its zero means nothing. */
uint64_t sac_clock_ns(void);

/* CPU time that this thread has used, in nanoseconds. */
uint64_t sac_clock_thread_cpu_ns(void);

#endif
