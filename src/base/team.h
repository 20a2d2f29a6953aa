/*
 * A loop's work among the threads of OpenMP's team, which the libraries that we call
 * use too: two teams would fight for the cores. Built without OpenMP, the caller does
 * all. Any thread; each has a team of its own.
 */
#ifndef SAC_BASE_TEAM_H
#define SAC_BASE_TEAM_H

#include <stdbool.h>
#include <stdint.h>

/* Items first … end − 1. Parts of one loop run at the same time. */
typedef void sac_team_part(void *context, int64_t first, int64_t end);

/* Runs parts that together cover items 0 … count − 1, at most `threads` at once, and
 * waits for them. How they are cut depends on the number of threads: results must not. */
void sac_team_run(int threads, int64_t count, sac_team_part *part, void *context);

/* How many threads libraries use that the calling thread calls from now on. */
void sac_team_set(int threads);

/* Teams wait for work by spinning unless this was in the environment when the program
 * began; whoever else wants a core then waits for the spinning to end. */
bool sac_team_is_patient(void);
/* Puts it there; for the program that is started next. `spins`: how often a wait looks
 * before it sleeps, 1,000 being about 15 µs. */
void sac_team_be_patient(int spins);

#endif
