/*
 * The lane of a device of host memory: one thread takes jobs from decode to answer.
 * It waits only in the batcher, asleep.
 *
 * The first lane's thread has a team, a thread for each other core, which joins on one
 * picture's net where the batcher says that nobody else wants the cores. It is made once
 * the lanes serve, and only for a net whose answers it does not change by a bit. Its
 * threads look for each other some 30 µs before they sleep (base/team.h).
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "base/team.h"
#include "serve/service.h"

static void free_classifiers(struct sac_lane *lane)
{
    for (int m = 0; m < lane->service->options.model_count; m++) {
        sac_classifier_free(lane->classifiers[m]);
        lane->classifiers[m] = NULL;
        lane->has_team[m] = false;
    }
}

static int make_classifiers(struct sac_lane *lane, struct sac_error *err)
{
    int rc = 0;

    for (int m = 0; m < lane->service->options.model_count && rc == 0; m++)
        rc =
            sac_classifier_new(&lane->classifiers[m], lane->service->engines[lane->device][m], err);
    return rc;
}

/* Warming up: every plan runs, its time is known. */

static void fill_pixels(struct sac_lane *lane, int model, int count)
{
    size_t size = sac_preprocess_bytes(sac_model_preprocess(lane->service->served[model].model));

    for (int i = 0; i < count; i++) {
        uint8_t *pixels = sac_classifier_pixels(lane->classifiers[model], i);
        for (size_t p = 0; p < size; p++)
            pixels[p] = (uint8_t)(p * 31 + (size_t)i);
    }
}

static int run_once(void *user, int model, int count, struct sac_error *err)
{
    struct sac_lane *lane = user;

    return sac_classifier_run(lane->classifiers[model], count, err);
}

static int warm_up(struct sac_lane *lane, struct sac_error *err)
{
    int rc = 0;

    for (int m = 0; m < lane->service->options.model_count && rc == 0; m++) {
        int most = sac_classifier_batch_best(lane->classifiers[m]);
        sac_batcher_limit(lane->service->batcher, m, most);
        fill_pixels(lane, m, most);
        for (int count = 1; count <= most && rc == 0; count *= 2)
            rc = sac_lane_measure(lane, m, count, run_once, lane, err);
    }
    return rc;
}

/* The team. */

/* The calling thread, which is the first, stays where it is. */
static void pin_members(void *context, int64_t first, int64_t end)
{
    (void)context;
    (void)end;
    if (first > 0)
        sac_cpu_pin((int)first);
}

static int add_team(struct sac_lane *lane, int model, struct sac_error *err)
{
    struct sac_service *service = lane->service;
    bool same = false;

    fill_pixels(lane, model, 1);
    int rc = sac_classifier_add_team(lane->classifiers[model], lane->team, &same, err);
    if (rc == 0 && !same)
        sac_log(SAC_LOG_INFO, "model %s: a picture a core always: together they round otherwise",
                sac_model_name(service->served[model].model));
    lane->has_team[model] = rc == 0 && same;
    if (lane->has_team[model])
        sac_batcher_lead(service->batcher, lane->index, model);
    return rc;
}

static int add_teams(struct sac_lane *lane, struct sac_error *err)
{
    int rc = 0;

    if (lane->team < 2)
        return 0;
    if (lane->core >= 0)
        sac_team_run(lane->team, lane->team, pin_members, NULL);
    for (int m = 0; m < lane->service->options.model_count && rc == 0; m++)
        rc = add_team(lane, m, err);
    return rc;
}

/* A batch. */

struct batch {
    struct sac_picture *pictures[SAC_BATCH_MAX];
    int count; /* of those still wanted and decoded, in slots 0 … count − 1 */
    struct sac_classifier *classifier;
};

static bool is_canceled(const struct sac_picture *picture)
{
    return atomic_load_explicit(&picture->job.canceled, memory_order_relaxed);
}

/* Into the next slot; a picture that fails is answered at once and leaves the
 * slot to the one after it. */
static void decode_one(struct batch *batch, struct sac_picture *picture)
{
    struct sac_error err = {0};
    uint64_t from = sac_clock_ns();
    int rc = SAC_ECANCELED;

    if (!is_canceled(picture))
        rc = sac_classifier_decode(batch->classifier, batch->count,
                                   (const uint8_t *)picture->bytes.at, picture->bytes.size,
                                   &picture->job.canceled, &err);
    picture->decode_ns = sac_clock_ns() - from;
    if (rc == 0)
        batch->pictures[batch->count++] = picture;
    else
        sac_picture_end(picture, rc, rc == SAC_ECANCELED ? "the client has gone" : err.text);
}

/* Those whose client went away while others were decoded; the last slot closes
 * the hole. */
static void drop_canceled(struct batch *batch)
{
    for (int i = 0; i < batch->count;) {
        struct sac_picture *picture = batch->pictures[i];
        if (!is_canceled(picture)) {
            i++;
            continue;
        }
        int last = --batch->count;
        if (i < last) {
            sac_classifier_move(batch->classifier, i, last);
            batch->pictures[i] = batch->pictures[last];
        }
        sac_picture_end(picture, SAC_ECANCELED, "the client has gone");
    }
}

static void end_with_labels(struct batch *batch, uint64_t compute_ns)
{
    int count = batch->count;

    for (int i = 0; i < count; i++) {
        struct sac_picture *picture = batch->pictures[i];
        memcpy(picture->pairs, sac_classifier_result(batch->classifier, i),
               (size_t)picture->call->served->topk_max * sizeof *picture->pairs);
        picture->compute_ns = compute_ns;
        picture->batch = count;
        picture->leads_batch = i == 0;
        sac_picture_end(picture, 0, NULL);
    }
}

static void note(const struct sac_lane *lane, const struct batch *batch, int model, bool together,
                 uint64_t compute_ns)
{
    struct sac_batcher *batcher = lane->service->batcher;
    uint64_t decode_ns = 0;

    for (int i = 0; i < batch->count; i++)
        decode_ns += batch->pictures[i]->decode_ns;
    if (together)
        sac_batcher_note_together(batcher, model, decode_ns, compute_ns);
    else
        sac_batcher_note_latency(batcher, lane->index, model, batch->count, decode_ns, compute_ns);
}

/* SAC_EDEVICE: the lane has failed and the batch is given back. */
static int run_batch(struct sac_lane *lane, struct batch *batch, int model)
{
    struct sac_error err = {0};
    struct sac_job *jobs[SAC_BATCH_MAX];
    bool together = batch->count == 1 && lane->has_team[model] &&
                    sac_batcher_join(lane->service->batcher, lane->index, model);
    uint64_t from = sac_clock_ns();
    int rc = together ? sac_classifier_run_team(batch->classifier, &err)
                      : sac_classifier_run(batch->classifier, batch->count, &err);
    uint64_t compute_ns = sac_clock_ns() - from;

    if (rc == 0) {
        note(lane, batch, model, together, compute_ns);
        end_with_labels(batch, compute_ns);
        return 0;
    }
    sac_log(SAC_LOG_ERROR, "lane %d: a batch of %d failed: %s", lane->index, batch->count,
            err.text);
    for (int i = 0; i < batch->count; i++) {
        jobs[i] = &batch->pictures[i]->job;
        if (rc != SAC_EDEVICE)
            sac_picture_end(batch->pictures[i], rc, "the net could not be run");
    }
    if (rc == SAC_EDEVICE)
        sac_batcher_lane_down(lane->service->batcher, lane->index, jobs, batch->count);
    return rc;
}

static int work(struct sac_lane *lane, struct sac_job **jobs, int count)
{
    int model = jobs[0]->model, rc = 0;
    struct batch batch = {.classifier = lane->classifiers[model]};

    for (int i = 0; i < count; i++)
        decode_one(&batch, (struct sac_picture *)jobs[i]);
    drop_canceled(&batch);
    if (batch.count > 0)
        rc = run_batch(lane, &batch, model);
    if (rc != SAC_EDEVICE)
        sac_batcher_done(lane->service->batcher, lane->index);
    return rc;
}

static int open_worker(struct sac_lane *lane, struct sac_error *err)
{
    int rc = make_classifiers(lane, err);

    return rc ? rc : warm_up(lane, err);
}

static bool serve(struct sac_lane *lane)
{
    struct sac_job *jobs[SAC_BATCH_MAX];
    int count;

    while ((count = sac_batcher_take(lane->service->batcher, lane->index, jobs)) > 0)
        if (work(lane, jobs, count) == SAC_EDEVICE)
            return true;
    return false;
}

const struct sac_lane_work sac_worker = {open_worker, add_teams, free_classifiers, serve};
