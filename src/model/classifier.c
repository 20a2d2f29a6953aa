#include "model/classifier.h"

#include <stdlib.h>
#include <string.h>

#include "net/plan.h"

/* Batch sizes 1, 2, 4, … 32. */
enum { SIZES_MAX = 6 };

struct sac_engine {
    struct sac_model *model;
    struct sac_device *device;
    struct sac_store *store;
    enum sac_precision precision;
    int batch_max, topk;
};

struct sac_classifier {
    struct sac_engine *engine;
    struct sac_stream *stream;
    struct sac_decoder *decoder;
    struct sac_plan *plans[SIZES_MAX]; /* plans[i] takes 1 << i pictures */
    uint8_t *pixels;                   /* batch_max pictures, staging memory */
    size_t picture_bytes;
    struct sac_topk_pair *results; /* batch_max × topk, staging memory */
};

static int round_down_to_power_of_two(int value)
{
    int out = 1;

    while (out * 2 <= value && out < 1 << (SIZES_MAX - 1))
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
    struct sac_engine *engine = calloc(1, sizeof *engine);

    if (!engine)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    int classes = sac_model_class_count(model);
    engine->model = sac_model_ref(model);
    engine->device = device;
    engine->precision = sac_model_precision(model, device);
    engine->batch_max =
        round_down_to_power_of_two(batch_max > 0 ? batch_max : sac_model_batch_max(model));
    engine->topk = topk > 0 ? topk : sac_model_topk(model);
    if (engine->topk > classes)
        engine->topk = classes;

    int rc = check_precision(engine, err);
    if (rc == 0)
        rc = device->table->store_new(device, &engine->store, err);
    if (rc == 0)
        *ret = engine;
    else
        sac_engine_free(engine);
    return rc;
}

void sac_engine_free(struct sac_engine *engine)
{
    if (!engine)
        return;
    engine->device->table->store_free(engine->store);
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

/* What the device's first operation does to the pixels. */
static union sac_op_param pixels_param(const struct sac_preprocess *how)
{
    union sac_op_param param = {
        .pixels = {.scale = how->scale, .swap = how->bgr, .mean_image = how->mean_image}};

    memcpy(param.pixels.mean, how->mean, sizeof how->mean);
    return param;
}

/* The largest first: the others use its memory. */
static int make_plans(struct sac_classifier *classifier, struct sac_error *err)
{
    const struct sac_engine *engine = classifier->engine;
    union sac_op_param pixels = pixels_param(sac_model_preprocess(engine->model));
    struct sac_plan *largest = NULL;
    int rc = 0;

    for (int i = SIZES_MAX - 1; rc == 0 && i >= 0; i--) {
        if (1 << i > engine->batch_max)
            continue;
        struct sac_plan_options options = {
            .batch = 1 << i,
            .ops = {.precision = engine->precision,
                    .deterministic = sac_model_deterministic(engine->model)},
            .pixels = &pixels,
            .topk = engine->topk,
            .memory_of = largest,
        };
        rc = sac_plan_new(&classifier->plans[i], sac_model_net(engine->model), engine->device,
                          engine->store, classifier->stream, &options, err);
        if (!largest)
            largest = classifier->plans[i];
    }
    return rc;
}

static int make_buffers(struct sac_classifier *classifier, struct sac_error *err)
{
    const struct sac_engine *engine = classifier->engine;
    const struct sac_preprocess *how = sac_model_preprocess(engine->model);
    struct sac_device *device = engine->device;
    size_t batch = (size_t)engine->batch_max;
    void *memory = NULL;

    classifier->picture_bytes =
        (size_t)how->crop_height * (size_t)how->crop_width * (size_t)how->channels;
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
        rc = make_plans(classifier, err);
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
    for (int i = 0; i < SIZES_MAX; i++) /* the largest lends its memory: it goes last */
        sac_plan_free(classifier->plans[i]);
    if (classifier->pixels)
        device->table->memory_free(device, SAC_MEMORY_STAGING, classifier->pixels);
    if (classifier->results)
        device->table->memory_free(device, SAC_MEMORY_STAGING, classifier->results);
    sac_decoder_free(classifier->decoder);
    device->table->stream_free(classifier->stream);
    free(classifier);
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

/* Slots first … first + (1 << i) − 1 through plan i. */
static int run_plan(struct sac_classifier *classifier, int i, int first, struct sac_error *err)
{
    const struct sac_device_table *table = classifier->engine->device->table;
    struct sac_plan *plan = classifier->plans[i];
    size_t count = (size_t)1 << i, topk = (size_t)classifier->engine->topk;

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

    for (int first = 0, i = SIZES_MAX - 1; rc == 0 && i >= 0; i--)
        while (rc == 0 && classifier->plans[i] && count - first >= 1 << i) {
            rc = run_plan(classifier, i, first, err);
            first += 1 << i;
        }
    return rc ? rc : classifier->engine->device->table->stream_sync(classifier->stream, err);
}

const struct sac_topk_pair *sac_classifier_result(const struct sac_classifier *classifier, int slot)
{
    return classifier->results + slot * classifier->engine->topk;
}
