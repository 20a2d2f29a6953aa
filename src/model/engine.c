#include "model/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/runner.h"

_Static_assert(1 << (SAC_ENGINE_SIZES - 1) == SAC_MODEL_BATCH_MAX, "the largest plan");

static int round_down_to_power_of_two(int value)
{
    int out = 1;

    while (out * 2 <= value && out < 1 << (SAC_ENGINE_SIZES - 1))
        out *= 2;
    return out;
}

static int check_precision(const struct sac_engine *engine, struct sac_error *err)
{
    const struct sac_device_info *info = &engine->device->info;

    if (info->precisions & (1u << engine->precision))
        return 0;
    return sac_fail(err, SAC_EUNSUPPORTED, "device %s does not do %s", info->name,
                    sac_precision_name(engine->precision));
}

int sac_engine_new(struct sac_engine **ret, struct sac_model *model, struct sac_device *device,
                   int batch_max, int topk, struct sac_error *err)
{
    return sac_engine_new_in(ret, model, device, sac_model_precision(model, device),
                             sac_model_ranges(model), batch_max, topk, err);
}

int sac_engine_new_in(struct sac_engine **ret, struct sac_model *model, struct sac_device *device,
                      enum sac_precision precision, const struct sac_ranges *ranges, int batch_max,
                      int topk, struct sac_error *err)
{
    struct sac_engine *engine = calloc(1, sizeof *engine);

    if (!engine)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    int classes = sac_model_class_count(model);
    engine->model = sac_model_ref(model);
    engine->device = device;
    engine->precision = precision;
    engine->ranges = ranges;
    engine->batch_max =
        round_down_to_power_of_two(batch_max > 0 ? batch_max : sac_model_batch_max(model, device));
    engine->batch_said = batch_max > 0 || sac_model_says_batch_max(model);
    engine->topk = topk > 0 ? topk : sac_model_topk(model);
    if (engine->topk > classes)
        engine->topk = classes;

    int rc = check_precision(engine, err);
    if (rc == 0)
        rc = sac_engine_load(engine, err);
    if (rc == 0)
        rc = sac_engine_fit(engine, err);
    if (rc == 0)
        *ret = engine;
    else
        sac_engine_free(engine);
    return rc;
}

int sac_engine_load(struct sac_engine *engine, struct sac_error *err)
{
    return engine->store ? 0
                         : engine->device->table->store_new(engine->device, &engine->store, err);
}

void sac_engine_unload(struct sac_engine *engine)
{
    engine->device->table->store_free(engine->store);
    engine->store = NULL;
}

void sac_engine_free(struct sac_engine *engine)
{
    if (!engine)
        return;
    sac_engine_unload(engine);
    sac_model_unref(engine->model);
    free(engine);
}

struct sac_model *sac_engine_model(const struct sac_engine *engine)
{
    return engine->model;
}

struct sac_device *sac_engine_device(const struct sac_engine *engine)
{
    return engine->device;
}

enum sac_precision sac_engine_precision(const struct sac_engine *engine)
{
    return engine->precision;
}

int sac_engine_batch_max(const struct sac_engine *engine)
{
    return engine->batch_max;
}

int sac_engine_topk(const struct sac_engine *engine)
{
    return engine->topk;
}

static struct sac_plan_options options_of(const struct sac_engine *engine,
                                          const union sac_op_param *pixels, int batch, int threads)
{
    return (struct sac_plan_options){
        .batch = batch,
        .ops = {.precision = engine->precision,
                .ranges = engine->ranges,
                .deterministic = sac_model_deterministic(engine->model),
                .threads = threads},
        .pixels = pixels,
        .topk = engine->topk,
    };
}

static int plan_new(const struct sac_engine *engine, struct sac_stream *stream, int batch,
                    int threads, struct sac_plan *memory_of, struct sac_plan **ret,
                    struct sac_error *err)
{
    union sac_op_param pixels = sac_model_pixels(engine->model);
    struct sac_plan_options options = options_of(engine, &pixels, batch, threads);

    options.memory_of = memory_of;
    return sac_plan_new(ret, sac_model_net(engine->model), engine->device, engine->store, stream,
                        &options, err);
}

static double mib(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* Whether a batch of batch_max and the weights fit into what is free. */
static int check_memory(const struct sac_engine *engine, struct sac_error *err)
{
    union sac_op_param pixels = sac_model_pixels(engine->model);
    struct sac_plan_options options = options_of(engine, &pixels, engine->batch_max, 1);
    struct sac_plan_needs needs;
    size_t left = 0, total = 0;
    int rc = sac_plan_estimate(&needs, sac_model_net(engine->model), engine->device, &options, err);

    if (rc == 0) /* and each side's pictures, of a runner (runner.h) */
        needs.memory_bytes += SAC_RUNNER_SIDES * (size_t)engine->batch_max *
                              sac_preprocess_bytes(sac_model_preprocess(engine->model));
    if (rc == 0)
        rc = engine->device->table->memory_left(engine->device, &left, &total, err);
    if (rc == 0 && (needs.weight_bytes > left || needs.memory_bytes > left - needs.weight_bytes))
        rc = sac_fail(err, SAC_ENOMEM,
                      "model %s: a batch of %d needs %.1f MiB, %.1f of them for weights and %.1f "
                      "for blobs and workspace; %s has %.1f of %.1f MiB free",
                      sac_model_name(engine->model), engine->batch_max,
                      mib(needs.weight_bytes) + mib(needs.memory_bytes), mib(needs.weight_bytes),
                      mib(needs.memory_bytes), engine->device->info.name, mib(left), mib(total));
    return rc;
}

int sac_engine_fit(struct sac_engine *engine, struct sac_error *err)
{
    struct sac_error why = {0};
    int asked = engine->batch_max;

    if (!engine->device->table->memory_left)
        return 0;
    int rc = check_memory(engine, &why);
    while (rc == SAC_ENOMEM && !engine->batch_said && engine->batch_max > 1) {
        why = (struct sac_error){0};
        engine->batch_max /= 2;
        rc = check_memory(engine, &why);
    }
    if (rc != 0)
        return sac_fail(err, rc, "%s", why.text);
    if (engine->batch_max < asked)
        sac_log(SAC_LOG_INFO, "model %s: batches of %d at most: %d do not fit into %s",
                sac_model_name(engine->model), engine->batch_max, asked, engine->device->info.name);
    return 0;
}

/* log2 of the pictures that the plan computes together. */
static int size_together(const struct sac_plan *plan)
{
    return __builtin_ctz((unsigned)(sac_plan_batch(plan) / sac_plan_slices(plan)));
}

/* A plan that computes its batch in parts gives way to that of such a part. */
int sac_engine_plans_new(const struct sac_engine *engine, struct sac_stream *stream,
                         struct sac_plan *plans[SAC_ENGINE_SIZES], struct sac_error *err)
{
    struct sac_plan *largest = NULL;
    int rc = 0;

    for (int i = SAC_ENGINE_SIZES - 1; rc == 0 && i >= 0; i--) {
        if (1 << i > engine->batch_max)
            continue;
        rc = plan_new(engine, stream, 1 << i, 1, largest, &plans[i], err);
        if (rc == 0 && !largest && size_together(plans[i]) < i) {
            int together = size_together(plans[i]);
            sac_plan_free(plans[i]);
            plans[i] = NULL;
            i = together + 1;
        } else if (!largest) {
            largest = plans[i];
        }
    }
    return rc;
}

int sac_engine_team_plan_new(const struct sac_engine *engine, struct sac_stream *stream,
                             int threads, struct sac_plan *memory_of, struct sac_plan **ret,
                             struct sac_error *err)
{
    return plan_new(engine, stream, 1, threads, memory_of, ret, err);
}

void sac_engine_plans_free(struct sac_plan *plans[SAC_ENGINE_SIZES])
{
    for (int i = 0; i < SAC_ENGINE_SIZES; i++) { /* the largest lends its memory: it goes last */
        sac_plan_free(plans[i]);
        plans[i] = NULL;
    }
}
