#include "ranks/thread.h"

#include <signal.h>

int sac_thread_start(pthread_t *ret, void *(*run)(void *argument), void *argument,
                     struct sac_error *err)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(ret, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return number == 0 ? 0 : sac_fail_errno(err, number, "no thread");
}
