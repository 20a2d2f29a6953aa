#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/service.h"

static void finish(struct sac_http_mail *done);

static void picture_dropped(struct sac_job *job, int code)
{
    const char *sentence = code == SAC_ETIMEDOUT   ? "the deadline passed in the queue"
                           : code == SAC_ECANCELED ? "the client has gone"
                                                   : "no device was left to run on";

    sac_picture_end((struct sac_picture *)job, code, sentence);
}

static void link_pictures(struct sac_call *call, int pairs_max)
{
    struct sac_topk_pair *pairs = (struct sac_topk_pair *)(call->pictures + call->count);

    for (int i = 0; i < call->count; i++) {
        call->pictures[i].call = call;
        call->pictures[i].pairs = pairs + (size_t)i * (size_t)pairs_max;
    }
}

static size_t call_bytes(const struct sac_service *service, int count)
{
    return sizeof(struct sac_call) +
           (size_t)count * (sizeof(struct sac_picture) +
                            (size_t)service->pairs_max * sizeof(struct sac_topk_pair));
}

/* Those of one picture are kept and reused. */
static struct sac_call *call_memory(struct sac_service *service, int count)
{
    struct sac_call *call = service->spare;

    if (count != 1 || !call)
        return malloc(call_bytes(service, count));
    service->spare = call->spare_next;
    service->spare_count--;
    return call;
}

struct sac_call *sac_call_new(struct sac_service *service, struct sac_served *served,
                              struct sac_http_request *request, int count)
{
    struct sac_call *call = call_memory(service, count);

    if (!call)
        return NULL;
    memset(call, 0, sizeof *call + (size_t)count * sizeof *call->pictures);
    call->service = service;
    call->served = served;
    call->request = request;
    call->count = count;
    call->done.deliver = finish;
    link_pictures(call, service->pairs_max);
    call->live_next = &service->live;
    call->live_prev = service->live.live_prev;
    call->live_prev->live_next = call;
    service->live.live_prev = call;
    return call;
}

void sac_call_free(struct sac_call *call)
{
    struct sac_service *service = call->service;

    call->live_prev->live_next = call->live_next;
    call->live_next->live_prev = call->live_prev;
    if (call->count != 1 || service->spare_count == SAC_CALLS_SPARE_MAX) {
        free(call);
        return;
    }
    call->spare_next = service->spare;
    service->spare = call;
    service->spare_count++;
}

void sac_calls_free_spares(struct sac_service *service)
{
    while (service->spare) {
        struct sac_call *call = service->spare;
        service->spare = call->spare_next;
        free(call);
    }
}

/* Loop thread. */
static void cancel_call(struct sac_call *call)
{
    struct sac_service *service = call->service;

    for (int i = 0; i < call->count; i++)
        if (!sac_batcher_cancel(service->door, &call->pictures[i].job) &&
            service->door != service->batcher)
            sac_batcher_cancel(service->batcher, &call->pictures[i].job);
}

static void client_gone(struct sac_http_request *request, void *user)
{
    (void)request;
    cancel_call(user);
}

void sac_calls_cancel(struct sac_service *service)
{
    struct sac_call *next;

    for (struct sac_call *call = service->live.live_next; call != &service->live; call = next) {
        next = call->live_next;
        cancel_call(call);
    }
}

/* Any thread. */
static void call_part_done(struct sac_call *call)
{
    if (atomic_fetch_sub_explicit(&call->left, 1, memory_order_acq_rel) == 1)
        sac_http_server_mail(call->service->http, &call->done);
}

void sac_picture_end(struct sac_picture *picture, int code, const char *sentence)
{
    if (picture->slot.pixels)
        sac_staging_give(picture->call->service->staging, &picture->slot);
    picture->code = code;
    if (code != 0)
        snprintf(picture->error, sizeof picture->error, "%s", sentence);
    call_part_done(picture->call);
}

/* Into the first stage; the devices must have their time after it. */
static int enter(struct sac_picture *picture, int *ret_retry_ms, struct sac_error *err)
{
    struct sac_service *service = picture->call->service;
    uint64_t after_ns = 0;
    int rc = 0;

    if (service->door != service->batcher)
        rc = sac_batcher_expect(service->batcher, picture->job.model, &after_ns, ret_retry_ms, err);
    if (rc != 0)
        return rc;
    picture->job.deadline_ns =
        picture->deadline_ns > after_ns ? picture->deadline_ns - after_ns : 1;
    return sac_batcher_submit(service->door, &picture->job, ret_retry_ms, err);
}

static void submit_picture(struct sac_picture *picture, uint64_t deadline_ns)
{
    struct sac_call *call = picture->call;
    struct sac_error err = {0};
    int retry_ms = 0;

    picture->job.model = call->served->index;
    picture->deadline_ns = deadline_ns;
    picture->job.dropped = picture_dropped;
    picture->was_queued = true;
    call->served->metrics.pending++;
    int rc = enter(picture, &retry_ms, &err);
    if (rc != 0) {
        picture->was_queued = false;
        picture->retry_ms = retry_ms;
        sac_picture_end(picture, rc, err.text);
    }
}

void sac_call_submit(struct sac_call *call, int timeout_ms)
{
    uint64_t deadline_ns =
        sac_http_request_complete_ns(call->request) + (uint64_t)timeout_ms * 1000000;

    atomic_store_explicit(&call->left, call->count + 1, memory_order_relaxed);
    sac_http_request_on_gone(call->request, client_gone, call);
    for (int i = 0; i < call->count; i++)
        submit_picture(&call->pictures[i], deadline_ns);
    call_part_done(call);
}

static enum sac_failure failure_of(int code)
{
    switch (code) {
    case SAC_EBUSY:
    case SAC_ETIMEDOUT:
        return SAC_FAILURE_REJECTED;
    case SAC_ECANCELED:
        return SAC_FAILURE_CANCELED;
    case SAC_EDEVICE:
    case SAC_ENOMEM:
        return SAC_FAILURE_BACKEND;
    default:
        return SAC_FAILURE_OTHER;
    }
}

static uint64_t since(uint64_t from, uint64_t to)
{
    return to > from ? to - from : 0;
}

static void count_run(struct sac_model_metrics *metrics, const struct sac_picture *picture)
{
    uint64_t queue_ns =
        picture->waited_ns + since(picture->job.arrived_ns, picture->job.started_ns);

    metrics->inferences++;
    metrics->queue_us += queue_ns / 1000;
    metrics->decode_us += picture->decode_ns / 1000;
    metrics->compute_us += picture->compute_ns / 1000;
    sac_metrics_histogram_add(&metrics->queue, SAC_HISTOGRAM_SECONDS, (double)queue_ns / 1e9);
    sac_metrics_histogram_add(&metrics->decode, SAC_HISTOGRAM_SECONDS,
                              (double)picture->decode_ns / 1e9);
    sac_metrics_histogram_add(&metrics->compute, SAC_HISTOGRAM_SECONDS,
                              (double)picture->compute_ns / 1e9);
    if (picture->leads_batch) {
        metrics->executions++;
        sac_metrics_histogram_add(&metrics->batch, 1, picture->batch);
    }
}

static void count_picture(const struct sac_picture *picture, uint64_t now)
{
    struct sac_model_metrics *metrics = &picture->call->served->metrics;

    metrics->pending--;
    metrics->request_us += since(sac_http_request_complete_ns(picture->call->request), now) / 1000;
    if (picture->code == 0) {
        metrics->success++;
        count_run(metrics, picture);
    } else {
        metrics->failures[failure_of(picture->code)]++;
    }
}

/* Loop thread, or after the loop has ended. */
static void finish(struct sac_http_mail *done)
{
    struct sac_call *call = (struct sac_call *)((char *)done - offsetof(struct sac_call, done));
    uint64_t now = sac_clock_ns();

    for (int i = 0; i < call->count; i++)
        count_picture(&call->pictures[i], now);
    sac_call_reply(call); /* the request is gone after this */
    sac_call_free(call);
}
