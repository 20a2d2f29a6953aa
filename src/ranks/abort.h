/* Ends the waits of all communicators of a process. Any thread. */
#ifndef SAC_RANKS_ABORT_H
#define SAC_RANKS_ABORT_H

#include "device/comm.h"

enum { SAC_ABORT_MOST = 128 };

/* sac_comm_abort() of each, NULLs but, at most SAC_ABORT_MOST, side by side: one that takes
 * its time keeps no other waiting. They must stay until it returns. */
void sac_comms_abort(struct sac_comm *const *comms, int count, const char *why);

#endif
