#include "base/team.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>

/* The thread sanitizer does not see a team's barriers, and is told. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define COME_TO(barrier) __tsan_release(barrier)
#define LEAVE(barrier) __tsan_acquire(barrier)
#else
#define COME_TO(barrier) (void)(barrier)
#define LEAVE(barrier) (void)(barrier)
#endif

void sac_team_run(int threads, int64_t count, sac_team_part *part, void *context)
{
    char barrier;

    if (threads > count)
        threads = (int)count;
    if (threads <= 1) {
        if (count > 0)
            part(context, 0, count);
        return;
    }
    COME_TO(&barrier);
#pragma omp parallel num_threads(threads)
    {
        LEAVE(&barrier);
        int64_t all = omp_get_num_threads(), own = omp_get_thread_num();
        int64_t each = count / all, rest = count % all;
        int64_t first = own * each + (own < rest ? own : rest);
        int64_t end = first + each + (own < rest);
        if (first < end)
            part(context, first, end);
        COME_TO(&barrier);
    }
    LEAVE(&barrier);
}

void sac_team_set(int threads)
{
    static _Thread_local int now;

    if (threads < 1)
        threads = 1;
    if (now != threads)
        omp_set_num_threads(threads);
    now = threads;
}

#else

void sac_team_run(int threads, int64_t count, sac_team_part *part, void *context)
{
    (void)threads;
    if (count > 0)
        part(context, 0, count);
}

void sac_team_set(int threads)
{
    (void)threads;
}

#endif

bool sac_team_is_patient(void)
{
    return getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT");
}

void sac_team_be_patient(int spins)
{
    char text[16];

    snprintf(text, sizeof text, "%d", spins);
    if (spins > 0)
        setenv("GOMP_SPINCOUNT", text, 1);
    else
        setenv("OMP_WAIT_POLICY", "passive", 1);
}
