/*
 * Communicators for the threads of one process, over values in the host's memory. Sums
 * are made in the order of the ranks, so that they are the same in every run.
 */
#ifndef SAC_RANKS_GROUP_H
#define SAC_RANKS_GROUP_H

#include "device/comm.h"

enum { SAC_GROUP_MAX = 64 };

/* One a rank, ret[0 .. world); all or, on failure, none. Aborting one aborts all. */
int sac_group_new(struct sac_comm **ret, int world, struct sac_error *err);

#endif
