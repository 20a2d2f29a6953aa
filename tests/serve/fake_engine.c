#include "serve/fake_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/classifier.h"
#include "model/runner.h"

enum { SAC_FAKE_BATCH = 8 };

struct sac_model {
    const char *name;
    const char *const *labels;
    int classes;
};

struct sac_engine {
    struct sac_model *model;
    struct sac_device *device;
    int topk;
};

struct sac_classifier {
    struct sac_engine *engine;
    uint8_t pixels[SAC_FAKE_BATCH][64];
    struct sac_topk_pair pairs[SAC_FAKE_BATCH][32];
};

atomic_int fake_run_us, fake_failures, fake_decoded;
atomic_bool fake_team_differs;
atomic_int fake_teams, fake_team_runs;
static const struct sac_device_table cpu_table = {.kind = "fake"};
struct sac_device fake_device = {
    .table = &cpu_table,
    .info = {.name = "cpu", .description = "a stand-in", .host_memory = true}};

/* ---- Devices with memory of their own ------------------------------------- */

static struct fake_gpu_state {
    atomic_int lost, fail_in, run_us;
    atomic_long memories;
} gpu_states[FAKE_GPUS];

static int gpu_of(const struct sac_device *device)
{
    return (int)(device - fake_gpus);
}

static int gpu_health(struct sac_device *device, struct sac_error *err)
{
    return atomic_load(&gpu_states[gpu_of(device)].lost)
               ? sac_fail(err, SAC_EDEVICE, "%s is lost", device->info.name)
               : 0;
}

/* Nothing of it may be left. */
static int gpu_revive(struct sac_device *device, struct sac_error *err)
{
    struct fake_gpu_state *state = &gpu_states[gpu_of(device)];
    int once = FAKE_LOST;

    if (atomic_load(&state->memories) != 0)
        abort();
    atomic_compare_exchange_strong(&state->lost, &once, 0);
    return gpu_health(device, err);
}

static int gpu_memory_new(struct sac_device *device, enum sac_memory kind, size_t bytes, void **ret,
                          struct sac_error *err)
{
    (void)kind;
    if (gpu_health(device, err) != 0)
        return SAC_EDEVICE;
    atomic_fetch_add(&gpu_states[gpu_of(device)].memories, 1);
    *ret = malloc(bytes);
    return 0;
}

static void gpu_memory_free(struct sac_device *device, enum sac_memory kind, void *memory)
{
    (void)kind;
    atomic_fetch_sub(&gpu_states[gpu_of(device)].memories, 1);
    free(memory);
}

static void gpu_gauges(struct sac_device *device, struct sac_device_gauges *ret)
{
    *ret = (struct sac_device_gauges){0.25, 1 << 20, 1 << 30, 40 + gpu_of(device), -1};
}

static const struct sac_device_table gpu_table = {.kind = "fake",
                                                  .memory_new = gpu_memory_new,
                                                  .memory_free = gpu_memory_free,
                                                  .health = gpu_health,
                                                  .revive = gpu_revive,
                                                  .gauges = gpu_gauges};

#define FAKE_GPU(number)                                                                           \
    {                                                                                              \
        .table = &gpu_table, .info = {.name = "fake:" #number, .description = "a stand-in" }       \
    }
struct sac_device fake_gpus[FAKE_GPUS] = {FAKE_GPU(0), FAKE_GPU(1), FAKE_GPU(2), FAKE_GPU(3)};

void fake_gpu_set(int gpu, enum fake_gpu_fault fault, int in_batches)
{
    atomic_store(&gpu_states[gpu].fail_in, in_batches);
    atomic_store(&gpu_states[gpu].lost, in_batches < 0 ? (int)fault : 0);
}

void fake_gpu_slow(int gpu, int run_us)
{
    atomic_store(&gpu_states[gpu].run_us, run_us);
}

struct sac_runner {
    struct sac_engine *const *engines;
    int gpu;
    struct fake_side {
        int model, count;
        uint8_t class[SAC_FAKE_BATCH];
        struct sac_topk_pair pairs[SAC_FAKE_BATCH][32];
    } sides[SAC_RUNNER_SIDES];
};

struct sac_model *fake_model_new(const char *name, const char *const *labels, int classes)
{
    struct sac_model *model = calloc(1, sizeof *model);

    *model = (struct sac_model){name, labels, classes};
    return model;
}

void fake_model_free(struct sac_model *model)
{
    free(model);
}

const char *sac_model_name(const struct sac_model *model)
{
    return model->name;
}

const struct sac_preprocess *sac_model_preprocess(const struct sac_model *model)
{
    static const struct sac_preprocess how = {.crop_width = 4, .crop_height = 4, .channels = 3};

    (void)model;
    return &how;
}

int sac_model_class_count(const struct sac_model *model)
{
    return model->classes;
}

const char *sac_model_label(const struct sac_model *model, int index)
{
    return model->labels[index];
}

int sac_model_topk(const struct sac_model *model)
{
    return model->classes < 5 ? model->classes : 5;
}

int sac_model_batch_max(const struct sac_model *model, const struct sac_device *device)
{
    (void)model, (void)device;
    return SAC_FAKE_BATCH;
}

int sac_model_priority(const struct sac_model *model)
{
    (void)model;
    return 0;
}

int sac_model_timeout_ms(const struct sac_model *model)
{
    (void)model;
    return 5000;
}

int sac_engine_new(struct sac_engine **ret, struct sac_model *model, struct sac_device *device,
                   int batch_max, int topk, struct sac_error *err)
{
    (void)batch_max, (void)err;
    *ret = calloc(1, sizeof **ret);
    **ret = (struct sac_engine){model, device, topk};
    return 0;
}

void sac_engine_free(struct sac_engine *engine)
{
    free(engine);
}

int sac_engine_load(struct sac_engine *engine, struct sac_error *err)
{
    (void)engine, (void)err;
    return 0;
}

void sac_engine_unload(struct sac_engine *engine)
{
    (void)engine;
}

int sac_engine_batch_max(const struct sac_engine *engine)
{
    return sac_model_batch_max(engine->model, engine->device);
}

enum sac_precision sac_engine_precision(const struct sac_engine *engine)
{
    (void)engine;
    return SAC_PRECISION_F32;
}

int sac_classifier_new(struct sac_classifier **ret, struct sac_engine *engine,
                       struct sac_error *err)
{
    (void)err;
    *ret = calloc(1, sizeof **ret);
    (*ret)->engine = engine;
    return 0;
}

void sac_classifier_free(struct sac_classifier *classifier)
{
    free(classifier);
}

int sac_classifier_batch_best(const struct sac_classifier *classifier)
{
    return sac_engine_batch_max(classifier->engine);
}

uint8_t *sac_classifier_pixels(struct sac_classifier *classifier, int slot)
{
    return classifier->pixels[slot];
}

void sac_classifier_move(struct sac_classifier *classifier, int to, int from)
{
    memcpy(classifier->pixels[to], classifier->pixels[from], sizeof classifier->pixels[0]);
}

/* The class of "picture 3". */
static int read_picture(const uint8_t *bytes, size_t size, const atomic_bool *canceled,
                        struct sac_error *err)
{
    char text[64] = "";
    int ms = 0, class;

    memcpy(text, bytes, size < sizeof text - 1 ? size : sizeof text - 1);
    atomic_fetch_add(&fake_decoded, 1);
    if (size == 0)
        return sac_fail(err, SAC_EFORMAT, "no bytes");
    if (strcmp(text, "damaged") == 0)
        return sac_fail(err, SAC_EFORMAT, "the picture is damaged");
    if (strcmp(text, "huge") == 0)
        return sac_fail(err, SAC_ELIMIT, "the picture is too large");
    if (sscanf(text, "slow %d picture %d", &ms, &class) != 2 &&
        sscanf(text, "picture %d", &class) != 1)
        return sac_fail(err, SAC_EUNSUPPORTED, "neither JPEG nor PNG");
    for (; ms > 0; ms--) {
        if (atomic_load(canceled))
            return SAC_ECANCELED;
        usleep(1000);
    }
    return class;
}

int sac_classifier_decode(struct sac_classifier *classifier, int slot, const uint8_t *bytes,
                          size_t size, const atomic_bool *canceled, struct sac_error *err)
{
    int class = read_picture(bytes, size, canceled, err);

    if (class < 0)
        return class;
    classifier->pixels[slot][0] = (uint8_t) class;
    return 0;
}

int sac_preprocess_pixels(const struct sac_preprocess *how, struct sac_decoder *decoder,
                          const uint8_t *bytes, size_t size, const atomic_bool *canceled,
                          uint8_t *dst, struct sac_error *err)
{
    int class = read_picture(bytes, size, canceled, err);

    (void)how, (void)decoder;
    if (class < 0)
        return class;
    dst[0] = (uint8_t) class;
    return 0;
}

static void fill_pairs(const struct sac_engine *engine, int class, struct sac_topk_pair *pairs)
{
    for (int k = 0; k < engine->topk; k++)
        pairs[k] =
            (struct sac_topk_pair){(class + k) % engine->model->classes, 1.0f / (float)(2u << k)};
}

/* The batch is to fail. */
static bool fails_now(void)
{
    int failures = atomic_load(&fake_failures);

    while (failures > 0)
        if (atomic_compare_exchange_weak(&fake_failures, &failures, failures - 1))
            return true;
    return false;
}

int sac_classifier_run(struct sac_classifier *classifier, int count, struct sac_error *err)
{
    if (atomic_load(&fake_run_us))
        usleep((unsigned)atomic_load(&fake_run_us));
    if (fails_now())
        return sac_fail(err, SAC_EDEVICE, "the stand-in was told to fail");
    for (int i = 0; i < count; i++)
        fill_pairs(classifier->engine, classifier->pixels[i][0], classifier->pairs[i]);
    return 0;
}

int sac_classifier_add_team(struct sac_classifier *classifier, int threads, bool *ret_same,
                            struct sac_error *err)
{
    (void)classifier;
    (void)err;
    atomic_fetch_add(&fake_teams, threads > 1);
    *ret_same = !atomic_load(&fake_team_differs);
    return 0;
}

int sac_classifier_run_team(struct sac_classifier *classifier, struct sac_error *err)
{
    atomic_fetch_add(&fake_team_runs, 1);
    return sac_classifier_run(classifier, 1, err);
}

const struct sac_topk_pair *sac_classifier_result(const struct sac_classifier *classifier, int slot)
{
    return classifier->pairs[slot];
}

/* ---- The runner: a batch computes while it is waited for -------------------- */

int sac_runner_new(struct sac_runner **ret, struct sac_engine *const *engines, int count,
                   struct sac_error *err)
{
    (void)count;
    if (gpu_health(engines[0]->device, err) != 0)
        return SAC_EDEVICE;
    *ret = calloc(1, sizeof **ret);
    (*ret)->engines = engines;
    (*ret)->gpu = gpu_of(engines[0]->device);
    atomic_fetch_add(&gpu_states[(*ret)->gpu].memories, 1);
    return 0;
}

void sac_runner_free(struct sac_runner *runner)
{
    if (runner)
        atomic_fetch_sub(&gpu_states[runner->gpu].memories, 1);
    free(runner);
}

int sac_runner_start(struct sac_runner *runner, int side, int model, const uint8_t *const *pixels,
                     int count, struct sac_error *err)
{
    struct fake_gpu_state *state = &gpu_states[runner->gpu];
    struct fake_side *to = &runner->sides[side];
    int left = atomic_load(&state->fail_in);

    if (left > 0 && atomic_fetch_sub(&state->fail_in, 1) == 1)
        atomic_store(&state->lost, FAKE_LOST);
    if (atomic_load(&state->lost) && left % 2 == 0) /* the others fail while they run */
        return sac_fail(err, SAC_EDEVICE, "the stand-in was told to fail");
    if (to->count != 0)
        abort(); /* the side is not free */
    *to = (struct fake_side){.model = model, .count = count};
    for (int i = 0; i < count; i++)
        to->class[i] = pixels[i][0];
    return 0;
}

int sac_runner_wait(struct sac_runner *runner, int side, struct sac_error *err)
{
    struct fake_gpu_state *state = &gpu_states[runner->gpu];
    struct fake_side *at = &runner->sides[side];

    usleep((unsigned)(atomic_load(&fake_run_us) + atomic_load(&state->run_us)));
    for (int i = 0; i < at->count; i++)
        fill_pairs(runner->engines[at->model], at->class[i], at -> pairs[i]);
    at->count = 0;
    return atomic_load(&state->lost) || fails_now()
               ? sac_fail(err, SAC_EDEVICE, "the stand-in was told to fail")
               : 0;
}

const struct sac_topk_pair *sac_runner_result(const struct sac_runner *runner, int side, int index)
{
    return runner->sides[side].pairs[index];
}
