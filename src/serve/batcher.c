#include "serve/batcher.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "serve/scheduler.h"

struct sac_batcher {
    uint64_t (*clock)(void);
    pthread_mutex_t lock; /* guards all below */
    struct sac_scheduler *scheduler;
    pthread_cond_t conds[SAC_LANES_MAX]; /* one a lane: a submission wakes one */
    int lane_count;
    /* A bit a lane: waits; waits, and is or will be signalled; will be as soon as the lock is
     * let go. */
    uint64_t asleep, woken, to_wake;
    bool stopping;
};

static int conds_init(struct sac_batcher *b)
{
    pthread_condattr_t monotonic;

    if (pthread_condattr_init(&monotonic) != 0)
        return SAC_ENOMEM;
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    for (int l = 0; l < SAC_LANES_MAX; l++)
        pthread_cond_init(&b->conds[l], &monotonic);
    pthread_condattr_destroy(&monotonic);
    return 0;
}

int sac_batcher_new(struct sac_batcher **ret, const struct sac_batcher_options *options,
                    struct sac_error *err)
{
    struct sac_batcher *b = calloc(1, sizeof *b);
    int rc = b ? 0 : sac_fail(err, SAC_ENOMEM, "the batcher: out of memory");

    if (rc == 0)
        rc = sac_scheduler_new(&b->scheduler, options ? options->queue_max : 0, err);
    if (rc == 0 && conds_init(b) != 0)
        rc = sac_fail(err, SAC_ENOMEM, "the batcher: out of memory");
    if (rc == 0) {
        b->clock = options && options->clock ? options->clock : sac_clock_ns;
        pthread_mutex_init(&b->lock, NULL);
        *ret = b;
        return 0;
    }
    if (b)
        sac_scheduler_free(b->scheduler);
    free(b);
    return rc;
}

void sac_batcher_free(struct sac_batcher *b)
{
    if (!b)
        return;
    for (int l = 0; l < SAC_LANES_MAX; l++)
        pthread_cond_destroy(&b->conds[l]);
    pthread_mutex_destroy(&b->lock);
    sac_scheduler_free(b->scheduler);
    free(b);
}

static void lock(struct sac_batcher *b)
{
    pthread_mutex_lock(&b->lock);
}

static void signal_lanes(struct sac_batcher *b, uint64_t lanes)
{
    for (; lanes; lanes &= lanes - 1)
        pthread_cond_signal(&b->conds[__builtin_ctzll(lanes)]);
}

/* Wakes after it lets go: a lane that takes this core at once would want the lock. */
static void unlock(struct sac_batcher *b)
{
    uint64_t to_wake = b->to_wake;

    b->to_wake = 0;
    pthread_mutex_unlock(&b->lock);
    signal_lanes(b, to_wake);
}

/* Without the lock: `dropped` may submit, cancel or answer. */
static void call_dropped(struct sac_scheduler_drops *drops)
{
    while (drops->first) {
        struct sac_job *job = drops->first;
        drops->first = job->next;
        job->next = NULL;
        if (job->dropped)
            job->dropped(job, job->drop_code);
    }
}

/* With the lock, at whose end it happens: one sleeping lane at most. For a new job it is woken
 * even if it should leave the job to a busy lane: it then keeps an eye on that one. */
static void wake_one(struct sac_batcher *b, bool is_new)
{
    uint64_t awake = ~(b->asleep & ~b->woken);
    bool leave = false;
    int lane = sac_scheduler_wake(b->scheduler, awake, b->clock(), &leave);

    if (lane < 0 || (leave && !is_new))
        return;
    b->woken |= 1ull << lane;
    b->to_wake |= 1ull << lane;
}

static void wake_all(struct sac_batcher *b)
{
    b->to_wake |= b->asleep;
}

int sac_batcher_add_model(struct sac_batcher *b, int batch_max, int priority)
{
    lock(b);
    int index = sac_scheduler_add_model(b->scheduler, batch_max, priority);
    unlock(b);
    return index;
}

void sac_batcher_limit(struct sac_batcher *b, int model, int batch_max)
{
    lock(b);
    sac_scheduler_limit(b->scheduler, model, batch_max);
    unlock(b);
}

int sac_batcher_add_lane(struct sac_batcher *b)
{
    lock(b);
    int index = sac_scheduler_add_lane(b->scheduler);
    if (index >= 0)
        b->lane_count = index + 1;
    unlock(b);
    return index;
}

void sac_batcher_note_latency(struct sac_batcher *b, int lane, int model, int count,
                              uint64_t decode_ns, uint64_t compute_ns)
{
    lock(b);
    sac_scheduler_note(b->scheduler, lane, model, count, decode_ns, compute_ns);
    unlock(b);
}

void sac_batcher_lead(struct sac_batcher *b, int lane, int model)
{
    lock(b);
    sac_scheduler_lead(b->scheduler, lane, model);
    unlock(b);
}

bool sac_batcher_join(struct sac_batcher *b, int lane, int model)
{
    lock(b);
    bool joined = sac_scheduler_join(b->scheduler, lane, model, b->clock());
    unlock(b);
    return joined;
}

void sac_batcher_note_together(struct sac_batcher *b, int model, uint64_t decode_ns,
                               uint64_t compute_ns)
{
    lock(b);
    sac_scheduler_note_together(b->scheduler, model, decode_ns, compute_ns);
    unlock(b);
}

uint64_t sac_batcher_latency(struct sac_batcher *b, int lane, int model, int count)
{
    if (count < 1 || count > SAC_BATCH_MAX)
        return 0;
    lock(b);
    uint64_t took =
        sac_scheduler_latency(b->scheduler, lane, model, 31 - __builtin_clz((unsigned)count));
    unlock(b);
    return took;
}

void sac_batcher_lane_down(struct sac_batcher *b, int lane, struct sac_job **jobs, int count)
{
    struct sac_scheduler_drops drops = {0};

    lock(b);
    sac_scheduler_lane_down(b->scheduler, lane, jobs, count, &drops);
    if (b->stopping)
        wake_all(b);
    else
        wake_one(b, true);
    unlock(b);
    call_dropped(&drops);
}

void sac_batcher_lane_up(struct sac_batcher *b, int lane)
{
    lock(b);
    sac_scheduler_lane_up(b->scheduler, lane);
    wake_one(b, true);
    unlock(b);
}

int sac_batcher_lanes_up(struct sac_batcher *b)
{
    struct sac_batcher_counters counters;

    sac_batcher_counters(b, &counters);
    return counters.lanes_up;
}

int sac_batcher_submit(struct sac_batcher *b, struct sac_job *job, int *ret_retry_ms,
                       struct sac_error *err)
{
    int rc;

    lock(b);
    if (b->stopping) {
        *ret_retry_ms = 1000;
        rc = sac_fail(err, SAC_EBUSY, "the server is stopping");
    } else {
        rc = sac_scheduler_submit(b->scheduler, job, b->clock(), ret_retry_ms, err);
    }
    if (rc == 0)
        wake_one(b, true);
    unlock(b);
    return rc;
}

int sac_batcher_expect(struct sac_batcher *b, int model, uint64_t *ret_ns, int *ret_retry_ms,
                       struct sac_error *err)
{
    lock(b);
    uint64_t ns = sac_scheduler_expect(b->scheduler, model, b->clock());
    unlock(b);
    if (ns == UINT64_MAX) {
        *ret_retry_ms = 1000;
        return sac_fail(err, SAC_EBUSY, "no device is left to run on");
    }
    *ret_ns = ns;
    return 0;
}

bool sac_batcher_cancel(struct sac_batcher *b, struct sac_job *job)
{
    lock(b);
    atomic_store_explicit(&job->canceled, true, memory_order_relaxed);
    bool removed = sac_scheduler_remove(b->scheduler, job);
    unlock(b);
    if (removed && job->dropped)
        job->dropped(job, SAC_ECANCELED);
    return removed;
}

/* With the lock. A lane that leaves what waits to a faster, busy one looks again
 * when that one should be done: it may be late. */
static void sleep_lane(struct sac_batcher *b, int lane)
{
    uint64_t bit = 1ull << lane;
    struct timespec until;

    signal_lanes(b, b->to_wake); /* now: waiting lets the lock go */
    b->to_wake = 0;
    b->asleep |= bit;
    b->woken &= ~bit;
    if (sac_scheduler_queued(b->scheduler) == 0) {
        pthread_cond_wait(&b->conds[lane], &b->lock);
    } else {
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t ns =
            (uint64_t)until.tv_nsec + sac_scheduler_look_again(b->scheduler, lane, b->clock());
        until.tv_sec += (time_t)(ns / 1000000000);
        until.tv_nsec = (long)(ns % 1000000000);
        pthread_cond_timedwait(&b->conds[lane], &b->lock, &until);
    }
    b->asleep &= ~bit;
    b->woken &= ~bit;
}

/* With the lock, which is let go while dropped jobs are told: what came in between may have
 * found this lane awake, and woken nobody. */
static int try_take(struct sac_batcher *b, int lane, bool ahead, struct sac_job **jobs,
                    bool *ret_let_go)
{
    struct sac_scheduler_drops drops = {0};
    uint64_t now = b->clock();
    int count = ahead ? sac_scheduler_take_ahead(b->scheduler, lane, now, jobs, &drops)
                      : sac_scheduler_take(b->scheduler, lane, now, jobs, &drops);

    if (sac_scheduler_queued(b->scheduler) > 0)
        wake_one(b, false);
    *ret_let_go = drops.first;
    if (drops.first) {
        unlock(b);
        call_dropped(&drops);
        lock(b);
    }
    return count;
}

/* With the lock. What runs is work too: its lane may fail and give it back. */
static bool has_work(const struct sac_batcher *b)
{
    struct sac_batcher_counters counters;

    sac_scheduler_counters(b->scheduler, &counters);
    return counters.queued > 0 || counters.running > 0;
}

int sac_batcher_take(struct sac_batcher *b, int lane, struct sac_job **jobs)
{
    bool let_go;
    int count;

    lock(b);
    assert(lane >= 0 && lane < b->lane_count);
    for (;;) {
        count = try_take(b, lane, false, jobs, &let_go);
        if (count > 0 || (b->stopping && !has_work(b)))
            break;
        if (!let_go)
            sleep_lane(b, lane);
    }
    unlock(b);
    return count;
}

int sac_batcher_take_ahead(struct sac_batcher *b, int lane, struct sac_job **jobs)
{
    bool let_go;

    lock(b);
    int count = try_take(b, lane, true, jobs, &let_go);
    unlock(b);
    return count;
}

void sac_batcher_done(struct sac_batcher *b, int lane)
{
    lock(b);
    sac_scheduler_done(b->scheduler, lane);
    if (b->stopping)
        wake_all(b); /* those that wait for nothing may go */
    unlock(b);
}

void sac_batcher_stop(struct sac_batcher *b)
{
    lock(b);
    b->stopping = true;
    wake_all(b);
    unlock(b);
}

void sac_batcher_counters(struct sac_batcher *b, struct sac_batcher_counters *ret)
{
    lock(b);
    sac_scheduler_counters(b->scheduler, ret);
    unlock(b);
}
