/*
 * Decode workers: the first stage before devices with memory of their own. Each
 * takes a picture from the door, decodes it into a slot and hands it to the
 * devices' batcher. The door's latencies count the wait for a slot, so it knows
 * when devices are the bottleneck.
 */
#include "base/clock.h"
#include "serve/service.h"

static int decode_into_slot(struct sac_decode_worker *worker, struct sac_picture *picture,
                            struct sac_error *err)
{
    if (!sac_staging_take(worker->service->staging, &picture->slot))
        return sac_fail(err, SAC_EBUSY, "no device is left to run on");
    uint64_t from = sac_clock_ns();
    int rc =
        sac_preprocess_pixels(sac_model_preprocess(picture->call->served->model), worker->decoder,
                              (const uint8_t *)picture->bytes.at, picture->bytes.size,
                              &picture->job.canceled, picture->slot.pixels, err);
    picture->decode_ns = sac_clock_ns() - from;
    return rc;
}

/* Into the second stage; what it waited in the first is kept. */
static int hand_on(struct sac_service *service, struct sac_picture *picture, struct sac_error *err)
{
    picture->waited_ns = picture->job.started_ns - picture->job.arrived_ns;
    picture->job.arrived_ns = picture->job.started_ns = 0;
    picture->job.deadline_ns = picture->deadline_ns;
    return sac_batcher_submit(service->batcher, &picture->job, &picture->retry_ms, err);
}

static void work(struct sac_decode_worker *worker, struct sac_picture *picture)
{
    struct sac_service *service = worker->service;
    struct sac_error err = {0};
    uint64_t from = sac_clock_ns();
    int model = picture->job.model, rc = SAC_ECANCELED;

    if (!atomic_load_explicit(&picture->job.canceled, memory_order_relaxed))
        rc = decode_into_slot(worker, picture, &err);
    if (rc == 0)
        sac_batcher_note_latency(service->door, worker->index, model, 1, 0, sac_clock_ns() - from);
    if (rc == 0)
        rc = hand_on(service, picture, &err); /* it may have been answered when this returns */
    if (rc != 0)
        sac_picture_end(picture, rc, rc == SAC_ECANCELED ? "the client has gone" : err.text);
    sac_batcher_done(service->door, worker->index);
}

static void *run_worker(void *user)
{
    struct sac_decode_worker *worker = user;
    struct sac_job *jobs[SAC_BATCH_MAX];

    while (sac_batcher_take(worker->service->door, worker->index, jobs) > 0)
        work(worker, (struct sac_picture *)jobs[0]);
    return NULL;
}

static int start_worker(struct sac_service *service, struct sac_error *err)
{
    struct sac_decode_worker *worker = &service->decode_workers[service->decode_worker_count++];

    worker->service = service;
    worker->index = sac_batcher_add_lane(service->door);
    if (worker->index < 0)
        return sac_fail(err, SAC_ELIMIT, "more than %d decode workers", SAC_LANES_MAX);
    int rc = sac_decoder_new(&worker->decoder, err);
    if (rc != 0)
        return rc;
    int number = pthread_create(&worker->thread, NULL, run_worker, worker);
    worker->has_thread = number == 0;
    return number ? sac_fail_errno(err, number, "a decode worker") : 0;
}

int sac_decode_start(struct sac_service *service, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < sac_service_workers(service) && rc == 0; i++)
        rc = start_worker(service, err);
    return rc;
}

void sac_decode_join(struct sac_service *service)
{
    for (int i = 0; i < service->decode_worker_count; i++) {
        struct sac_decode_worker *worker = &service->decode_workers[i];
        if (worker->has_thread)
            pthread_join(worker->thread, NULL);
        worker->has_thread = false;
        sac_decoder_free(worker->decoder);
        worker->decoder = NULL;
    }
}
