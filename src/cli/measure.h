/*
 * The bound of serving: how many pictures a second the workers take from bytes
 * to labels when nothing else is to be done. What `time --pictures` prints.
 */
#ifndef SAC_CLI_MEASURE_H
#define SAC_CLI_MEASURE_H

#include "model/classifier.h"

struct sac_measure {
    double pictures_per_second; /* all workers together */
    double median_ms;           /* of one batch on one worker */
    double decode_share;        /* of the time, 0 to 1 */
};

/* `workers` pinned threads (1 to 64) go through the pictures in memory, `batch`
 * (up to the engine's) at a time, for so many seconds, all starting together. A
 * picture that cannot be read or decoded is an error. */
int sac_measure_pictures(struct sac_engine *engine, int workers, int batch, char *const *paths,
                         size_t count, double seconds, struct sac_measure *ret,
                         struct sac_error *err);

/* The median of `count` values, which it sorts. */
double sac_median(double *values, size_t count);

#endif
