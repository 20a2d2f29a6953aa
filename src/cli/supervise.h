/*
 * A child that does the work, and is started again when it is lost: killed by a signal, or
 * ended with SAC_EXIT_LOST. Before there are threads.
 */
#ifndef SAC_CLI_SUPERVISE_H
#define SAC_CLI_SUPERVISE_H

#include <stdbool.h>

enum { SAC_EXIT_LOST = 3 };

/* False: this is the child, go to work. True: the work is over, with *ret_status. Signals
 * that ask this process to stop go to the child, and then it is not started again. */
bool sac_supervise(int restarts, int *ret_status);

#endif
