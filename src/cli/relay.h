/*
 * Work in rounds on several cores, with an answer that does not depend on how
 * many: a round is taken, worked on and given, and rounds are taken in order, one
 * at a time, and given in order, one at a time; only the work between overlaps. At
 * most one round a worker is under way.
 */
#ifndef SAC_CLI_RELAY_H
#define SAC_CLI_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Each on the worker's own thread, pinned where that is wise. */
struct sac_relay {
    int (*open)(void *user, void **ret_worker, struct sac_error *err);
    void (*close)(void *worker); /* takes NULL */
    /* Round 0, 1, 2 …; *ret_end, which is false before, ends the rounds. */
    int (*take)(void *worker, int64_t round, bool *ret_end, struct sac_error *err);
    int (*work)(void *worker, struct sac_error *err);
    int (*give)(void *worker, int64_t round, struct sac_error *err);
};

/* Returns when all is done; of several failures the first round's counts, and
 * rounds before it are given. */
int sac_relay_run(const struct sac_relay *relay, int workers, void *user, struct sac_error *err);

#endif
