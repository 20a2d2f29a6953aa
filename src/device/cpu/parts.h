/* An operation among threads, some pictures each. Any thread. */
#ifndef SAC_DEVICE_CPU_PARTS_H
#define SAC_DEVICE_CPU_PARTS_H

#include "device/cpu/kernel.h"

/* How many of its threads are worth waking for so many elements. */
int sac_cpu_threads_for(const struct sac_op *op, int64_t elements);

/* Runs `run` of operations that are `op` for some of its pictures, which together are
 * all of it. Each result, or gradient, of a picture has to depend on that picture. */
void sac_cpu_by_pictures(const struct sac_op *op, void (*run)(const struct sac_op *part));

#endif
