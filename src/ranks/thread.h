/* A thread that gets no signals: they are for the program's own. */
#ifndef SAC_RANKS_THREAD_H
#define SAC_RANKS_THREAD_H

#include <pthread.h>

#include "base/error.h"

int sac_thread_start(pthread_t *ret, void *(*run)(void *argument), void *argument,
                     struct sac_error *err);

#endif
