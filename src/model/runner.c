#include "model/runner.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/engine.h"

struct lane { /* a model's */
    struct sac_engine *engine;
    struct sac_stream *stream;
    struct sac_plan *plans[SAC_ENGINE_SIZES];
    size_t picture_bytes;
    int running; /* batches on their way */
};

struct side {
    struct lane *lane; /* NULL: free */
    void *pixels;      /* device memory, for any model's batch */
    struct sac_topk_pair *results;
    int topk; /* of the batch */
    struct sac_event *copied, *done;
};

struct sac_runner {
    struct sac_device *device;
    struct sac_stream *copies;
    struct side sides[SAC_RUNNER_SIDES];
    int lane_count;
    struct lane lanes[];
};

/* ---- Making and freeing --------------------------------------------------- */

/* What other models have taken since the engine was made is not free any more. When a device
 * has come back, it stays as it was. */
static int fit(struct sac_engine *engine, bool first, struct sac_error *err)
{
    int rc = first || engine->placed ? 0 : sac_engine_fit(engine, err);

    engine->placed = true;
    return rc;
}

static int lane_init(struct lane *lane, struct sac_engine *engine, bool first,
                     struct sac_error *err)
{
    const struct sac_device_table *table = engine->device->table;
    int priority = sac_model_priority(engine->model);

    lane->engine = engine;
    lane->picture_bytes = sac_preprocess_bytes(sac_model_preprocess(engine->model));
    int rc = table->stream_new_at
                 ? table->stream_new_at(engine->device, -priority, &lane->stream, err)
                 : table->stream_new(engine->device, &lane->stream, err);
    if (rc == 0)
        rc = fit(engine, first, err);
    return rc ? rc : sac_engine_plans_new(engine, lane->stream, lane->plans, err);
}

static int side_init(struct sac_runner *runner, struct side *side, struct sac_error *err)
{
    struct sac_device *device = runner->device;
    const struct sac_device_table *table = device->table;
    size_t pixels = 0, pairs = 0;
    void *memory = NULL;

    for (int m = 0; m < runner->lane_count; m++) {
        const struct lane *lane = &runner->lanes[m];
        size_t batch = (size_t)lane->engine->batch_max;
        size_t bytes = batch * lane->picture_bytes, count = batch * (size_t)lane->engine->topk;
        pixels = bytes > pixels ? bytes : pixels;
        pairs = count > pairs ? count : pairs;
    }
    int rc = table->memory_new(device, SAC_MEMORY_DEVICE, pixels, &side->pixels, err);
    if (rc == 0)
        rc = table->memory_new(device, SAC_MEMORY_STAGING, pairs * sizeof *side->results, &memory,
                               err);
    side->results = memory;
    if (rc == 0)
        rc = table->event_new(device, &side->copied, err);
    if (rc == 0)
        rc = table->event_new(device, &side->done, err);
    return rc;
}

int sac_runner_new(struct sac_runner **ret, struct sac_engine *const *engines, int count,
                   struct sac_error *err)
{
    struct sac_runner *runner = calloc(1, sizeof *runner + (size_t)count * sizeof *runner->lanes);

    if (!runner)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    runner->device = engines[0]->device;
    runner->lane_count = count;
    int rc = runner->device->table->stream_new(runner->device, &runner->copies, err);
    for (int m = 0; rc == 0 && m < count; m++)
        rc = lane_init(&runner->lanes[m], engines[m], m == 0, err);
    for (int i = 0; rc == 0 && i < SAC_RUNNER_SIDES; i++)
        rc = side_init(runner, &runner->sides[i], err);
    if (rc == 0)
        *ret = runner;
    else
        sac_runner_free(runner);
    return rc;
}

static void side_done(struct sac_device *device, struct side *side)
{
    const struct sac_device_table *table = device->table;

    table->event_free(side->copied);
    table->event_free(side->done);
    if (side->pixels)
        table->memory_free(device, SAC_MEMORY_DEVICE, side->pixels);
    if (side->results)
        table->memory_free(device, SAC_MEMORY_STAGING, side->results);
}

void sac_runner_free(struct sac_runner *runner)
{
    if (!runner)
        return;
    const struct sac_device_table *table = runner->device->table;
    if (runner->copies)
        table->stream_sync(runner->copies, NULL);
    for (int m = 0; m < runner->lane_count; m++)
        if (runner->lanes[m].stream)
            table->stream_sync(runner->lanes[m].stream, NULL);
    for (int i = 0; i < SAC_RUNNER_SIDES; i++)
        side_done(runner->device, &runner->sides[i]);
    for (int m = 0; m < runner->lane_count; m++) {
        sac_engine_plans_free(runner->lanes[m].plans);
        table->stream_free(runner->lanes[m].stream);
    }
    table->stream_free(runner->copies);
    free(runner);
}

/* ---- A batch -------------------------------------------------------------- */

static int copy_pictures(const struct lane *lane, struct sac_stream *stream, void *to,
                         const uint8_t *const *pixels, int count, struct sac_error *err)
{
    const struct sac_device_table *table = lane->engine->device->table;
    int rc = 0;

    for (int i = 0; i < count && rc == 0; i++)
        rc = table->copy(stream, SAC_COPY_TO_DEVICE, (char *)to + (size_t)i * lane->picture_bytes,
                         pixels[i], lane->picture_bytes, err);
    return rc;
}

/* To the side's buffer while the model's last batch computes, then to the input. */
static int copy_ahead(struct sac_runner *runner, struct side *side, struct lane *lane, void *input,
                      const uint8_t *const *pixels, int count, struct sac_error *err)
{
    const struct sac_device_table *table = runner->device->table;
    int rc = copy_pictures(lane, runner->copies, side->pixels, pixels, count, err);

    if (rc == 0)
        rc = table->event_record(side->copied, runner->copies, err);
    if (rc == 0)
        rc = table->stream_wait(lane->stream, side->copied, err);
    if (rc == 0)
        rc = table->copy(lane->stream, SAC_COPY_ON_DEVICE, input, side->pixels,
                         (size_t)count * lane->picture_bytes, err);
    return rc;
}

/* The smallest plan that takes them all; what lies behind them is computed in vain. */
static struct sac_plan *plan_for(const struct lane *lane, int count)
{
    int i = 0;

    while (1 << i < count)
        i++;
    assert(i < SAC_ENGINE_SIZES && lane->plans[i]);
    return lane->plans[i];
}

int sac_runner_start(struct sac_runner *runner, int index, int model, const uint8_t *const *pixels,
                     int count, struct sac_error *err)
{
    const struct sac_device_table *table = runner->device->table;
    struct side *side = &runner->sides[index];
    struct lane *lane = &runner->lanes[model];
    struct sac_plan *plan = plan_for(lane, count);
    void *input = sac_plan_input(plan, 0)->data;

    assert(!side->lane && count > 0);
    int rc = lane->running ? copy_ahead(runner, side, lane, input, pixels, count, err)
                           : copy_pictures(lane, lane->stream, input, pixels, count, err);
    if (rc == 0)
        rc = sac_plan_forward(plan, err);
    if (rc == 0)
        rc = table->copy(lane->stream, SAC_COPY_TO_HOST, side->results,
                         sac_plan_output(plan, 0)->data,
                         (size_t)count * (size_t)lane->engine->topk * sizeof *side->results, err);
    if (rc == 0)
        rc = table->event_record(side->done, lane->stream, err);
    if (rc != 0) { /* nothing may read the pictures any more */
        table->stream_sync(runner->copies, NULL);
        table->stream_sync(lane->stream, NULL);
        return rc;
    }
    side->lane = lane;
    side->topk = lane->engine->topk;
    lane->running++;
    return 0;
}

int sac_runner_wait(struct sac_runner *runner, int index, struct sac_error *err)
{
    struct side *side = &runner->sides[index];
    int rc = runner->device->table->event_sync(side->done, err);

    side->lane->running--;
    side->lane = NULL;
    return rc;
}

const struct sac_topk_pair *sac_runner_result(const struct sac_runner *runner, int index, int i)
{
    const struct side *side = &runner->sides[index];

    return side->results + i * side->topk;
}
