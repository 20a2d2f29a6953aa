/*
 * A folder that a command fills over several runs: a mark in it tells it from anybody
 * else's, and a lock on the mark keeps a second process out. Any thread.
 */
#ifndef SAC_DATA_CLAIM_H
#define SAC_DATA_CLAIM_H

#include "base/error.h"

/* Makes `folder`, or takes up an empty one or one with a file called `mark` in it. What
 * `*ret` becomes is open for reading and writing on the mark, which is empty when it is
 * new, and holds the lock until it is closed.
 *
 * SAC_EINVAL: there, and not begun so; it is left as it is. SAC_EBUSY: another process
 * has it. */
int sac_claim(int *ret, const char *folder, const char *mark, struct sac_error *err);

#endif
