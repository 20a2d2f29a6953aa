#include "model/classifier.h"

#include <stdlib.h>
#include <string.h>

#include "model/engine.h"

struct sac_classifier {
    struct sac_engine *engine;
    struct sac_stream *stream;
    struct sac_decoder *decoder;
    struct sac_plan *plans[SAC_ENGINE_SIZES]; /* plans[i] takes 1 << i pictures; see engine.h */
    struct sac_plan *team;                    /* takes one, on several threads; or NULL */
    uint8_t *pixels;                          /* batch_max pictures, staging memory */
    size_t picture_bytes;
    struct sac_topk_pair *results; /* batch_max × topk, staging memory */
};

static int make_buffers(struct sac_classifier *classifier, struct sac_error *err)
{
    const struct sac_engine *engine = classifier->engine;
    struct sac_device *device = engine->device;
    size_t batch = (size_t)engine->batch_max;
    void *memory = NULL;

    classifier->picture_bytes = sac_preprocess_bytes(sac_model_preprocess(engine->model));
    int rc = device->table->memory_new(device, SAC_MEMORY_STAGING,
                                       batch * classifier->picture_bytes, &memory, err);
    classifier->pixels = memory;
    memory = NULL;
    if (rc == 0)
        rc = device->table->memory_new(device, SAC_MEMORY_STAGING,
                                       batch * (size_t)engine->topk * sizeof *classifier->results,
                                       &memory, err);
    classifier->results = memory;
    return rc;
}

int sac_classifier_new(struct sac_classifier **ret, struct sac_engine *engine,
                       struct sac_error *err)
{
    struct sac_classifier *classifier = calloc(1, sizeof *classifier);

    if (!classifier)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    classifier->engine = engine;
    int rc = engine->device->table->stream_new(engine->device, &classifier->stream, err);
    if (rc == 0)
        rc = sac_decoder_new(&classifier->decoder, err);
    if (rc == 0)
        rc = sac_engine_plans_new(engine, classifier->stream, classifier->plans, err);
    if (rc == 0)
        rc = make_buffers(classifier, err);
    if (rc == 0)
        *ret = classifier;
    else
        sac_classifier_free(classifier);
    return rc;
}

void sac_classifier_free(struct sac_classifier *classifier)
{
    if (!classifier)
        return;
    struct sac_device *device = classifier->engine->device;
    sac_plan_free(classifier->team); /* in the memory of the others */
    sac_engine_plans_free(classifier->plans);
    if (classifier->pixels)
        device->table->memory_free(device, SAC_MEMORY_STAGING, classifier->pixels);
    if (classifier->results)
        device->table->memory_free(device, SAC_MEMORY_STAGING, classifier->results);
    sac_decoder_free(classifier->decoder);
    device->table->stream_free(classifier->stream);
    free(classifier);
}

int sac_classifier_batch_best(const struct sac_classifier *classifier)
{
    int i = SAC_ENGINE_SIZES - 1;

    while (i > 0 && !classifier->plans[i])
        i--;
    return 1 << i;
}

uint8_t *sac_classifier_pixels(struct sac_classifier *classifier, int slot)
{
    return classifier->pixels + (size_t)slot * classifier->picture_bytes;
}

int sac_classifier_decode(struct sac_classifier *classifier, int slot, const uint8_t *bytes,
                          size_t size, const atomic_bool *canceled, struct sac_error *err)
{
    return sac_preprocess_pixels(sac_model_preprocess(classifier->engine->model),
                                 classifier->decoder, bytes, size, canceled,
                                 sac_classifier_pixels(classifier, slot), err);
}

void sac_classifier_move(struct sac_classifier *classifier, int to, int from)
{
    if (to != from)
        memcpy(sac_classifier_pixels(classifier, to), sac_classifier_pixels(classifier, from),
               classifier->picture_bytes);
}

/* As many slots from `first` on as the plan takes. */
static int run_plan(struct sac_classifier *classifier, struct sac_plan *plan, int first,
                    struct sac_error *err)
{
    const struct sac_device_table *table = classifier->engine->device->table;
    size_t count = (size_t)sac_plan_batch(plan), topk = (size_t)classifier->engine->topk;

    int rc = table->copy(classifier->stream, SAC_COPY_TO_DEVICE, sac_plan_input(plan, 0)->data,
                         sac_classifier_pixels(classifier, first),
                         count * classifier->picture_bytes, err);
    if (rc == 0)
        rc = sac_plan_forward(plan, err);
    if (rc == 0)
        rc = table->copy(classifier->stream, SAC_COPY_TO_HOST,
                         classifier->results + (size_t)first * topk, sac_plan_output(plan, 0)->data,
                         count * topk * sizeof *classifier->results, err);
    return rc;
}

int sac_classifier_run(struct sac_classifier *classifier, int count, struct sac_error *err)
{
    int rc = 0;

    for (int first = 0, i = SAC_ENGINE_SIZES - 1; rc == 0 && i >= 0; i--)
        while (rc == 0 && classifier->plans[i] && count - first >= 1 << i) {
            rc = run_plan(classifier, classifier->plans[i], first, err);
            first += 1 << i;
        }
    return rc ? rc : classifier->engine->device->table->stream_sync(classifier->stream, err);
}

int sac_classifier_run_team(struct sac_classifier *classifier, struct sac_error *err)
{
    int rc = run_plan(classifier, classifier->team, 0, err);

    return rc ? rc : classifier->engine->device->table->stream_sync(classifier->stream, err);
}

/* Slot 0 by one thread, kept, then by the team: the same bytes? */
static int compare_team(struct sac_classifier *classifier, struct sac_topk_pair *alone,
                        bool *ret_same, struct sac_error *err)
{
    size_t bytes = (size_t)classifier->engine->topk * sizeof *alone;
    int rc = sac_classifier_run(classifier, 1, err);

    if (rc == 0)
        memcpy(alone, classifier->results, bytes);
    if (rc == 0)
        rc = sac_classifier_run_team(classifier, err);
    if (rc == 0)
        *ret_same = memcmp(alone, classifier->results, bytes) == 0;
    return rc;
}

int sac_classifier_add_team(struct sac_classifier *classifier, int threads, bool *ret_same,
                            struct sac_error *err)
{
    struct sac_engine *engine = classifier->engine;
    struct sac_topk_pair *alone = calloc((size_t)engine->topk, sizeof *alone);
    struct sac_plan *largest = NULL;
    bool same = false;
    int rc = alone ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (int i = 0; i < SAC_ENGINE_SIZES; i++)
        largest = classifier->plans[i] ? classifier->plans[i] : largest;
    if (rc == 0)
        rc = sac_engine_team_plan_new(engine, classifier->stream, threads, largest,
                                      &classifier->team, err);
    if (rc == 0)
        rc = compare_team(classifier, alone, &same, err);
    if (rc == 0)
        *ret_same = same;
    if (!same) {
        sac_plan_free(classifier->team);
        classifier->team = NULL;
    }
    free(alone);
    return rc;
}

const struct sac_topk_pair *sac_classifier_result(const struct sac_classifier *classifier, int slot)
{
    return classifier->results + slot * classifier->engine->topk;
}
