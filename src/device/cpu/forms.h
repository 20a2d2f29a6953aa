/* What forms an operation's values have on the CPU device. Any thread. */
#ifndef SAC_DEVICE_CPU_FORMS_H
#define SAC_DEVICE_CPU_FORMS_H

#include "device/cpu/kernel.h"

/* Fills caps' src, dst, alias and in_place. */
void sac_cpu_forms(const struct sac_cpu_ask *ask, struct sac_op_caps *caps);
/* Arithmetic of one forward, for the report. */
double sac_cpu_flops(const struct sac_cpu_ask *ask);

#endif
