/*
 * The lane of a device with memory of its own: one thread gathers pictures that are
 * decoded, by pointer, into a batch. Behind the batch that computes it may start one
 * more, whose copies hide; it waits in the batcher and for the oldest batch only.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "model/runner.h"
#include "serve/service.h"

/* A batch on its way. */
struct flight {
    struct sac_picture *pictures[SAC_BATCH_MAX];
    int count; /* 0: all of its clients have gone */
    int model, side;
    uint64_t from_ns;
};

struct submitter {
    struct sac_lane *lane;
    struct flight flights[SAC_RUNNER_SIDES]; /* oldest first */
    int flight_count;
    uint64_t landed_ns; /* when the last batch was done */
};

/* ---- Opening and closing -------------------------------------------------- */

static struct sac_device *device_of(const struct sac_lane *lane)
{
    return lane->service->options.devices[lane->device];
}

static void close_submitter(struct sac_lane *lane)
{
    struct sac_service *service = lane->service;

    sac_staging_retire(service->staging, lane->device);
    sac_runner_free(lane->runner);
    lane->runner = NULL;
    for (int m = 0; m < service->options.model_count; m++)
        sac_engine_unload(service->engines[lane->device][m]);
}

/* Warming up: every plan runs and is recorded, its time is known. */
struct warm_up {
    struct sac_runner *runner;
    const uint8_t *pixels[SAC_BATCH_MAX]; /* the same picture */
};

static int run_once(void *user, int model, int count, struct sac_error *err)
{
    struct warm_up *w = user;
    int rc = sac_runner_start(w->runner, 0, model, w->pixels, count, err);

    return rc ? rc : sac_runner_wait(w->runner, 0, err);
}

static int warm_up_model(struct sac_lane *lane, int model, struct sac_error *err)
{
    struct warm_up w = {.runner = lane->runner};
    struct sac_device *device = device_of(lane);
    int most = sac_engine_batch_max(lane->service->engines[lane->device][model]);
    size_t bytes = sac_preprocess_bytes(sac_model_preprocess(lane->service->served[model].model));
    void *memory = NULL;
    int rc = device->table->memory_new(device, SAC_MEMORY_STAGING, bytes, &memory, err);

    if (rc != 0)
        return rc;
    sac_batcher_limit(lane->service->batcher, model, most);
    memset(memory, 0x55, bytes);
    for (int i = 0; i < most; i++)
        w.pixels[i] = memory;
    for (int n = 1; n <= most && rc == 0; n *= 2)
        rc = sac_lane_measure(lane, model, n, run_once, &w, err);
    device->table->memory_free(device, SAC_MEMORY_STAGING, memory);
    return rc;
}

static int warm_up(struct sac_lane *lane, struct sac_error *err)
{
    int rc = 0;

    for (int m = 0; m < lane->service->options.model_count && rc == 0; m++)
        rc = warm_up_model(lane, m, err);
    return rc;
}

/* A device that was not found to be lost, and fails again and again, is made new as well:
 * no list of what CUDA does not recover from is whole. */
enum { FAILURES_OF_HEALTH = 2 };

/* A lost device is made new; weights go there once for all batch sizes. */
static int load(struct sac_lane *lane, struct sac_error *err)
{
    struct sac_service *service = lane->service;
    struct sac_device *device = device_of(lane);
    struct sac_error why = {0};
    int rc = device->table->health ? device->table->health(device, &why) : 0;

    if (rc == 0 && atomic_load(&lane->attempts) >= FAILURES_OF_HEALTH && device->table->revive)
        rc = device->table->revive(device, err);
    else if (rc != 0)
        rc = device->table->revive ? device->table->revive(device, err)
                                   : sac_fail(err, rc, "%s", why.text);
    for (int m = 0; m < service->options.model_count && rc == 0; m++)
        rc = sac_engine_load(service->engines[lane->device][m], err);
    return rc;
}

/* Two batches on their way, one that gathers, and one a decode worker. */
static int slots_of(const struct sac_lane *lane)
{
    const struct sac_service *service = lane->service;
    int most = 1;

    for (int m = 0; m < service->options.model_count; m++) {
        int batch = sac_engine_batch_max(service->engines[lane->device][m]);
        most = batch > most ? batch : most;
    }
    return (SAC_RUNNER_SIDES + 1) * most + sac_service_workers(service);
}

static int open_submitter(struct sac_lane *lane, struct sac_error *err)
{
    struct sac_service *service = lane->service;
    int rc = load(lane, err);

    if (rc == 0)
        rc = sac_runner_new(&lane->runner, service->engines[lane->device],
                            service->options.model_count, err);
    if (rc == 0)
        rc = warm_up(lane, err);
    if (rc == 0)
        rc = sac_staging_add(service->staging, lane->device, device_of(lane), slots_of(lane), err);
    return rc;
}

/* ---- A batch -------------------------------------------------------------- */

static bool is_canceled(const struct sac_picture *picture)
{
    return atomic_load_explicit(&picture->job.canceled, memory_order_relaxed);
}

/* Those that are still wanted. */
static void gather(struct flight *flight, struct sac_job *const *jobs, int count)
{
    flight->count = 0;
    flight->model = jobs[0]->model;
    for (int i = 0; i < count; i++) {
        struct sac_picture *picture = (struct sac_picture *)jobs[i];
        if (is_canceled(picture))
            sac_picture_end(picture, SAC_ECANCELED, "the client has gone");
        else
            flight->pictures[flight->count++] = picture;
    }
}

static void end_with_error(const struct sac_lane *lane, struct flight *flight, int code,
                           const char *why)
{
    sac_log(SAC_LOG_ERROR, "lane %d: a batch of %d failed: %s", lane->index, flight->count, why);
    for (int i = 0; i < flight->count; i++)
        sac_picture_end(flight->pictures[i], code, "the net could not be run");
    flight->count = 0;
}

static int take_off(struct submitter *s, struct sac_job *const *jobs, int count,
                    struct sac_error *err)
{
    struct flight *flight = &s->flights[s->flight_count];
    const uint8_t *pixels[SAC_BATCH_MAX];

    flight->side = s->flight_count == 0 ? 0 : !s->flights[0].side;
    gather(flight, jobs, count);
    s->flight_count++;
    for (int i = 0; i < flight->count; i++)
        pixels[i] = flight->pictures[i]->slot.pixels;
    flight->from_ns = sac_clock_ns();
    if (flight->count == 0)
        return 0;
    int rc =
        sac_runner_start(s->lane->runner, flight->side, flight->model, pixels, flight->count, err);
    if (rc != 0 && rc != SAC_EDEVICE)
        end_with_error(s->lane, flight, rc, err->text);
    return rc == SAC_EDEVICE ? rc : 0;
}

static void end_with_labels(struct submitter *s, struct flight *flight, uint64_t compute_ns)
{
    for (int i = 0; i < flight->count; i++) {
        struct sac_picture *picture = flight->pictures[i];
        memcpy(picture->pairs, sac_runner_result(s->lane->runner, flight->side, i),
               (size_t)picture->call->served->topk_max * sizeof *picture->pairs);
        picture->compute_ns = compute_ns;
        picture->batch = flight->count;
        picture->leads_batch = i == 0;
        sac_picture_end(picture, 0, NULL);
    }
}

/* It ran as the next power of two; behind another, from when that was done. */
static void note(struct submitter *s, const struct flight *flight, uint64_t compute_ns)
{
    int ran = 1;

    while (ran < flight->count)
        ran *= 2;
    sac_batcher_note_latency(s->lane->service->batcher, s->lane->index, flight->model, ran, 0,
                             compute_ns);
}

static int land_oldest(struct submitter *s, struct sac_error *err)
{
    struct flight *flight = &s->flights[0];
    uint64_t from = flight->from_ns > s->landed_ns ? flight->from_ns : s->landed_ns;
    int rc = flight->count ? sac_runner_wait(s->lane->runner, flight->side, err) : 0;

    if (rc == SAC_EDEVICE)
        return rc;
    if (rc != 0)
        end_with_error(s->lane, flight, rc, err->text);
    if (flight->count > 0) {
        s->landed_ns = sac_clock_ns();
        note(s, flight, s->landed_ns - from);
        end_with_labels(s, flight, s->landed_ns - from);
    }
    s->flights[0] = s->flights[1];
    s->flight_count--;
    sac_batcher_done(s->lane->service->batcher, s->lane->index);
    return 0;
}

/* The device has failed: what was on its way goes to others, in its order. */
static void give_back(struct submitter *s, const struct sac_error *err)
{
    struct sac_job *jobs[SAC_RUNNER_SIDES * SAC_BATCH_MAX];
    int count = 0;

    for (int f = 0; f < s->flight_count; f++)
        for (int i = 0; i < s->flights[f].count; i++)
            jobs[count++] = &s->flights[f].pictures[i]->job;
    sac_log(SAC_LOG_ERROR, "device %s is down, %d pictures go to others: %s",
            device_of(s->lane)->info.name, count, err->text);
    sac_batcher_lane_down(s->lane->service->batcher, s->lane->index, jobs, count);
}

/* Sleeps only with nothing on its way. */
static int take(struct submitter *s, struct sac_job **jobs)
{
    struct sac_batcher *batcher = s->lane->service->batcher;

    if (s->flight_count == SAC_RUNNER_SIDES)
        return 0;
    return s->flight_count ? sac_batcher_take_ahead(batcher, s->lane->index, jobs)
                           : sac_batcher_take(batcher, s->lane->index, jobs);
}

static bool serve(struct sac_lane *lane)
{
    struct submitter s = {.lane = lane};
    struct sac_job *jobs[SAC_BATCH_MAX];

    for (;;) {
        struct sac_error err = {0};
        int count = take(&s, jobs);
        if (count == 0 && s.flight_count == 0)
            return false;
        int rc = count ? take_off(&s, jobs, count, &err) : land_oldest(&s, &err);
        if (rc == SAC_EDEVICE) {
            give_back(&s, &err);
            return true;
        }
    }
}

const struct sac_lane_work sac_submitter = {open_submitter, NULL, close_submitter, serve};
