/*
 * The decisions of the batcher: which lane takes which jobs, how many, and what
 * is refused. No thread, no lock and no clock of its own: a function of the
 * state and `now_ns`. One thread at a time (the batcher's lock sees to it).
 *
 * A lane asks for work. The model comes first whose oldest job has the largest
 * (1 + priority) × time waited: priority 15 goes before 0 until that has waited 16
 * times as long, so each has its turn. Of its jobs the lane takes the largest power
 * of two
 *  - that ends before the earliest deadline among them,
 *  - that the lanes together, each from when it is free, could not do sooner (so
 *    idle lanes share what waits, and a slow lane leaves a job to a fast one that
 *    is about to be free),
 *  - and that raises the throughput over a smaller batch by 5 % or more.
 * A lane that has one batch running may take the next ahead, when that is whole (of
 * the size of the best throughput) and the first two points hold for its end.
 *
 * One lane, the leader, may be able to run a picture on the cores of all lanes
 * ("together"). It may while nothing else runs or waits, when that is believed to be
 * sooner by a sixteenth, when nothing came in the time that it takes before, and while at
 * most half of the jobs, of late, found others there when they came: cores that are about
 * to be wanted do more with a picture each. (The rate of arrivals would not do: one client
 * that sends as soon as it has its answer keeps the cores busy, and gains most.) The other
 * lanes take nothing until it is done.
 *
 * What a batch of n takes on a lane is n × decode + compute(n), both smoothed.
 * The best ever seen of each is kept beside them: what could not be met even at
 * the best is refused or dropped, so that one bad measurement refuses nothing.
 */
#ifndef SAC_SERVE_SCHEDULER_H
#define SAC_SERVE_SCHEDULER_H

#include "serve/batcher.h"

enum { SAC_BATCH_SIZES = 9 }; /* 1, 2, 4 … SAC_BATCH_MAX */

struct sac_scheduler;

/* What leaves the queue without having run; the caller calls `dropped` on each,
 * outside its lock. */
struct sac_scheduler_drops {
    struct sac_job *first; /* linked by `next` */
};

int sac_scheduler_new(struct sac_scheduler **ret, int queue_max, struct sac_error *err);
void sac_scheduler_free(struct sac_scheduler *scheduler); /* takes NULL */

/* The index, or SAC_ELIMIT. */
int sac_scheduler_add_model(struct sac_scheduler *scheduler, int batch_max, int priority);
/* Larger batches of the model gain nothing. */
void sac_scheduler_limit(struct sac_scheduler *scheduler, int model, int batch_max);
int sac_scheduler_add_lane(struct sac_scheduler *scheduler);
void sac_scheduler_note(struct sac_scheduler *scheduler, int lane, int model, int count,
                        uint64_t decode_ns, uint64_t compute_ns);
/* What a batch of 2^size is believed to take; 0 without such a lane or model. */
uint64_t sac_scheduler_latency(const struct sac_scheduler *scheduler, int lane, int model,
                               int size);

/* The lane can run pictures of the model together; one lane, for all models. */
void sac_scheduler_lead(struct sac_scheduler *scheduler, int lane, int model);
/* The leader has one picture of the model, decoded: may it run it together? */
bool sac_scheduler_join(struct sac_scheduler *scheduler, int lane, int model, uint64_t now_ns);
/* What the leader's picture took, run together. */
void sac_scheduler_note_together(struct sac_scheduler *scheduler, int model, uint64_t decode_ns,
                                 uint64_t compute_ns);

int sac_scheduler_submit(struct sac_scheduler *scheduler, struct sac_job *job, uint64_t now_ns,
                         int *ret_retry_ms, struct sac_error *err);
/* When a job submitted now would end, from now on; UINT64_MAX: no lane is up. */
uint64_t sac_scheduler_expect(const struct sac_scheduler *scheduler, int model, uint64_t now_ns);
/* True: it was queued here and is not any more. */
bool sac_scheduler_remove(struct sac_scheduler *scheduler, struct sac_job *job);
/* How many jobs the idle lane takes now; 0: none, or none that it should. */
int sac_scheduler_take(struct sac_scheduler *scheduler, int lane, uint64_t now_ns,
                       struct sac_job **jobs, struct sac_scheduler_drops *drops);
/* The same for a lane with one batch running. */
int sac_scheduler_take_ahead(struct sac_scheduler *scheduler, int lane, uint64_t now_ns,
                             struct sac_job **jobs, struct sac_scheduler_drops *drops);
/* The oldest batch of the lane is done. */
void sac_scheduler_done(struct sac_scheduler *scheduler, int lane);
void sac_scheduler_lane_down(struct sac_scheduler *scheduler, int lane, struct sac_job **jobs,
                             int count, struct sac_scheduler_drops *drops);
void sac_scheduler_lane_up(struct sac_scheduler *scheduler, int lane);

/* The idle lane to wake for what waits: the one that would finish first; −1:
 * none. Lanes in the mask `but` are passed over (they have been woken already).
 * *ret_leave: it should leave the job to a busy lane, if that one is in time. */
int sac_scheduler_wake(const struct sac_scheduler *scheduler, uint64_t but, uint64_t now_ns,
                       bool *ret_leave);

/* How long a lane that was offered no job waits before it asks again: another was to be
 * done sooner, and may be late by then. */
uint64_t sac_scheduler_look_again(const struct sac_scheduler *scheduler, int lane, uint64_t now_ns);

int sac_scheduler_queued(const struct sac_scheduler *scheduler);
/* The counters, all but those that only the caller knows. */
void sac_scheduler_counters(const struct sac_scheduler *scheduler,
                            struct sac_batcher_counters *ret);

#endif
