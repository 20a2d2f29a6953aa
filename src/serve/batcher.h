/*
 * The micro-batcher: jobs in, batches out, work-conserving and bounded.
 *
 * Lanes (a CPU core's worker, a GPU's submitter) pull. An idle lane takes what
 * waits, at once; while all are busy the queue grows into the next batch. Each
 * (lane, model) has a latency table by batch size, measured at warm-up and kept
 * current; from it follow the batch size that meets the oldest deadline, the
 * lane that finishes first, and the refusal at the door of what cannot be met.
 *
 * Work of two stages (decoding on cores, then a GPU) has a batcher a stage: a job
 * is in one of them at a time.
 *
 * Decisions are pure functions of the state and `now_ns` (scheduler.h), so that
 * tests run them on a fake clock and recorded traces; this file adds the lock
 * and the waiting. Submit and cancel: any thread. Take: the lane's thread.
 */
#ifndef SAC_SERVE_BATCHER_H
#define SAC_SERVE_BATCHER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct sac_batcher;

enum { SAC_BATCH_MAX = 256, SAC_MODELS_MAX = 64, SAC_LANES_MAX = 64 };

/* Embedded in the caller's own job. */
struct sac_job {
    int model;            /* index given by sac_batcher_add_model */
    uint64_t arrived_ns;  /* set by submit */
    uint64_t deadline_ns; /* absolute; set by the caller; 0: none */
    uint64_t started_ns;  /* set by take */
    atomic_bool canceled; /* true: nobody wants the answer; looked at while decoding */
    /* Called once, on the thread that takes, cancels or takes a lane down, when
     * the job leaves the queue without having run: SAC_ETIMEDOUT, SAC_ECANCELED,
     * or SAC_EDEVICE when no lane is left or the job was in several batches that
     * took their lanes down. No lock is held; the job is the caller's again. */
    void (*dropped)(struct sac_job *job, int code);
    struct sac_job *next, *prev; /* the batcher's, as is the rest */
    _Atomic(const void *) in;    /* whose queue it is in; NULL: in none */
    int drop_code, failures;
};

struct sac_batcher_options {
    int queue_max;           /* jobs in all; 0: a quarter second of capacity, at most 512 */
    uint64_t (*clock)(void); /* NULL: sac_clock_ns */
};

int sac_batcher_new(struct sac_batcher **ret, const struct sac_batcher_options *options,
                    struct sac_error *err);
void sac_batcher_free(struct sac_batcher *batcher);

/* Before lanes start, or while they run (a model that is loaded later). The
 * index, or SAC_ELIMIT. A higher priority (0 to 15) is served sooner, a lower
 * one still in its turn. */
int sac_batcher_add_model(struct sac_batcher *batcher, int batch_max, int priority);
/* Larger batches of the model gain nothing, so none is made; before it is warmed up. */
void sac_batcher_limit(struct sac_batcher *batcher, int model, int batch_max);
int sac_batcher_add_lane(struct sac_batcher *batcher);
/* What a batch of `count` took on the lane: decoding all its pictures (0 where
 * that is not known, or not the lane's work) and computing; from warm-up and
 * after every batch (smoothed). */
void sac_batcher_note_latency(struct sac_batcher *batcher, int lane, int model, int count,
                              uint64_t decode_ns, uint64_t compute_ns);
/* The lane's worker can run a picture of the model on the cores of all lanes: see
 * sac_batcher_join. One lane, for all models; once it has measured itself. */
void sac_batcher_lead(struct sac_batcher *batcher, int lane, int model);
/* What a batch of 1, 2, 4 … `count` is believed to take on the lane. */
uint64_t sac_batcher_latency(struct sac_batcher *batcher, int lane, int model, int count);
/* A lane that failed is taken out; what it had (one batch or two, oldest first) is
 * given back at the head. When it
 * was the last one, what is queued is dropped. */
void sac_batcher_lane_down(struct sac_batcher *batcher, int lane, struct sac_job **jobs, int count);
void sac_batcher_lane_up(struct sac_batcher *batcher, int lane);
int sac_batcher_lanes_up(struct sac_batcher *batcher);

/* SAC_EBUSY: the queue is full, no lane is left, or the deadline cannot be met
 * (the sentence says which); *ret_retry_ms then says when to try again. */
int sac_batcher_submit(struct sac_batcher *batcher, struct sac_job *job, int *ret_retry_ms,
                       struct sac_error *err);
/* When a job that is submitted now would be done at the earliest, from now on:
 * what waits, and the best that a lane has shown. SAC_EBUSY: no lane is left. */
int sac_batcher_expect(struct sac_batcher *batcher, int model, uint64_t *ret_ns, int *ret_retry_ms,
                       struct sac_error *err);
/* Marks the job canceled. True: it was still queued here, has been removed and
 * `dropped` was called. False: a lane has it and will finish it. */
bool sac_batcher_cancel(struct sac_batcher *batcher, struct sac_job *job);

/* Waits for work for this lane: fills jobs (SAC_BATCH_MAX of them), all of one
 * model, and returns how many; 0 after sac_batcher_stop when nothing is left. */
int sac_batcher_take(struct sac_batcher *batcher, int lane, struct sac_job **jobs);
/* For a lane that has one batch running and can prepare the next: takes a batch of
 * its best size if one waits whole and nobody would have it done sooner, so that
 * nothing is lost by taking it early. Does not wait; 0: nothing now. */
int sac_batcher_take_ahead(struct sac_batcher *batcher, int lane, struct sac_job **jobs);
/* The lane has one picture of the model and has decoded it: may it use the cores of all
 * lanes for the rest? If so nobody else takes work until it is done, and what that took
 * is told by sac_batcher_note_together instead of sac_batcher_note_latency. */
bool sac_batcher_join(struct sac_batcher *batcher, int lane, int model);
void sac_batcher_note_together(struct sac_batcher *batcher, int model, uint64_t decode_ns,
                               uint64_t compute_ns);
/* The lane is done with the oldest batch that it has. */
void sac_batcher_done(struct sac_batcher *batcher, int lane);
/* No more submissions; what is queued is still worked off. */
void sac_batcher_stop(struct sac_batcher *batcher);

struct sac_batcher_counters {
    int queued, running, lanes_up;
    uint64_t submitted, refused_full, refused_late, timed_out, canceled, lost, completed, batches;
    uint64_t together; /* pictures that ran on the cores of all lanes */
    uint64_t batch_sizes[SAC_BATCH_MAX + 1];
};
void sac_batcher_counters(struct sac_batcher *batcher, struct sac_batcher_counters *ret);

#endif
