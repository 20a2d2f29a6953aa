/*
 * A lane's thread: what its work says, and when the device fails, recovery: all is
 * given back, and made anew until it works, at growing distances. Other lanes serve
 * meanwhile; /readyz fails when none is left.
 */
#include <time.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "serve/service.h"

enum { RECOVER_MS_MIN = 100, RECOVER_MS_MAX = 10000 };
enum { HOPELESS = 5 }; /* attempts in vain, which take 3 s at least */

/* Batches are measured again while that takes less: the start waits for it, and what
 * was measured badly is found out later (scheduler.h). */
static const uint64_t warm_up_ns = 6000000;

/* Where a plan is recorded, its first run sets libraries up and its second records: both
 * take many times what the later ones do, and deadlines are judged by what is measured. */
static int set_up(struct sac_lane *lane, int model, int count,
                  int (*run)(void *user, int model, int count, struct sac_error *err), void *user,
                  struct sac_error *err)
{
    bool records = lane->service->options.devices[lane->device]->table->record_begin != NULL;
    int rc = 0;

    for (int i = 0; i < 2 && records && rc == 0; i++)
        rc = run(user, model, count, err);
    return rc;
}

int sac_lane_measure(struct sac_lane *lane, int model, int count,
                     int (*run)(void *user, int model, int count, struct sac_error *err),
                     void *user, struct sac_error *err)
{
    uint64_t best = 0, spent = 0;
    int rc = set_up(lane, model, count, run, user, err);

    if (rc != 0)
        return rc;
    for (int i = 0; i < 3 && spent < warm_up_ns; i++) {
        uint64_t from = sac_clock_ns();
        rc = run(user, model, count, err);
        uint64_t took = sac_clock_ns() - from;
        if (rc != 0)
            return rc;
        best = i == 0 || took < best ? took : best;
        spent += took;
    }
    sac_batcher_note_latency(lane->service->batcher, lane->index, model, count, 0, best);
    return 0;
}

bool sac_service_pause(struct sac_service *service, int ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&service->stopping_lock);
    while (!service->stopping &&
           pthread_cond_timedwait(&service->stopping_cond, &service->stopping_lock, &until) == 0)
        ;
    bool stopping = service->stopping;
    pthread_mutex_unlock(&service->stopping_lock);
    return stopping;
}

static const char *device_name(const struct sac_lane *lane)
{
    return lane->service->options.devices[lane->device]->info.name;
}

static void improve(struct sac_lane *lane)
{
    struct sac_error err = {0};

    if (lane->work->improve && lane->work->improve(lane, &err) != 0)
        sac_log(SAC_LOG_WARNING, "lane %d (%s): serves as it is: %s", lane->index,
                device_name(lane), err.text);
}

/* False when the service stops first. */
static bool recover(struct sac_lane *lane)
{
    atomic_fetch_add(&lane->failures, 1);
    atomic_store(&lane->down, true);
    for (int ms = RECOVER_MS_MIN;; ms = ms * 2 < RECOVER_MS_MAX ? ms * 2 : RECOVER_MS_MAX) {
        struct sac_error err = {0};
        lane->work->close(lane);
        if (sac_service_pause(lane->service, ms))
            return false;
        if (lane->work->open(lane, &err) == 0)
            break;
        atomic_fetch_add(&lane->attempts, 1);
        sac_log(SAC_LOG_WARNING, "lane %d (%s): still down: %s", lane->index, device_name(lane),
                err.text);
    }
    improve(lane);
    sac_log(SAC_LOG_INFO, "lane %d (%s): works again", lane->index, device_name(lane));
    atomic_fetch_add(&lane->recoveries, 1);
    atomic_store(&lane->attempts, 0);
    atomic_store(&lane->down, false);
    sac_batcher_lane_up(lane->service->batcher, lane->index);
    return true;
}

bool sac_service_is_hopeless(const struct sac_service *service)
{
    for (int l = 0; l < service->lane_count; l++)
        if (atomic_load(&service->lanes[l].attempts) < HOPELESS)
            return false;
    return service->lane_count > 0;
}

static void tell_started(struct sac_lane *lane, int rc)
{
    struct sac_service *service = lane->service;

    pthread_mutex_lock(&service->starting_lock);
    lane->state = rc == 0 ? SAC_LANE_READY : SAC_LANE_FAILED;
    pthread_cond_broadcast(&service->starting);
    pthread_mutex_unlock(&service->starting_lock);
}

static void *run_lane(void *user)
{
    struct sac_lane *lane = user;

    if (lane->core >= 0)
        sac_cpu_pin(lane->core);
    int rc = lane->work->open(lane, &lane->err);
    tell_started(lane, rc);
    if (rc == 0)
        improve(lane);
    while (rc == 0 && lane->work->serve(lane) && recover(lane))
        ;
    lane->work->close(lane); /* on the thread that opened it */
    return NULL;
}

int sac_lane_start(struct sac_lane *lane, struct sac_error *err)
{
    int number = pthread_create(&lane->thread, NULL, run_lane, lane);

    if (number != 0)
        return sac_fail_errno(err, number, "lane %d: no thread", lane->index);
    lane->has_thread = true;
    return 0;
}

void sac_lane_join(struct sac_lane *lane)
{
    if (lane->has_thread)
        pthread_join(lane->thread, NULL);
    lane->has_thread = false;
}
