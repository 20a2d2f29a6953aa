#include "serve/fake_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/classifier.h"

enum { SAC_FAKE_BATCH = 8 };

struct sac_model {
    const char *name;
    const char *const *labels;
    int classes;
};

struct sac_engine {
    struct sac_model *model;
    int topk;
};

struct sac_classifier {
    struct sac_engine *engine;
    uint8_t pixels[SAC_FAKE_BATCH][64];
    struct sac_topk_pair pairs[SAC_FAKE_BATCH][32];
};

atomic_int fake_run_us, fake_failures, fake_decoded;
struct sac_device fake_device = {
    .info = {.name = "cpu", .description = "a stand-in", .host_memory = true}};

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

int sac_model_batch_max(const struct sac_model *model)
{
    (void)model;
    return SAC_FAKE_BATCH;
}

int sac_model_timeout_ms(const struct sac_model *model)
{
    (void)model;
    return 5000;
}

int sac_engine_new(struct sac_engine **ret, struct sac_model *model, struct sac_device *device,
                   int batch_max, int topk, struct sac_error *err)
{
    (void)device, (void)batch_max, (void)err;
    *ret = calloc(1, sizeof **ret);
    **ret = (struct sac_engine){model, topk};
    return 0;
}

void sac_engine_free(struct sac_engine *engine)
{
    free(engine);
}

int sac_engine_batch_max(const struct sac_engine *engine)
{
    return sac_model_batch_max(engine->model);
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

uint8_t *sac_classifier_pixels(struct sac_classifier *classifier, int slot)
{
    return classifier->pixels[slot];
}

void sac_classifier_move(struct sac_classifier *classifier, int to, int from)
{
    memcpy(classifier->pixels[to], classifier->pixels[from], sizeof classifier->pixels[0]);
}

int sac_classifier_decode(struct sac_classifier *classifier, int slot, const uint8_t *bytes,
                          size_t size, const atomic_bool *canceled, struct sac_error *err)
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
    classifier->pixels[slot][0] = (uint8_t) class;
    return 0;
}

int sac_classifier_run(struct sac_classifier *classifier, int count, struct sac_error *err)
{
    int classes = classifier->engine->model->classes;

    if (atomic_load(&fake_run_us))
        usleep((unsigned)atomic_load(&fake_run_us));
    int failures = atomic_load(&fake_failures);
    while (failures > 0)
        if (atomic_compare_exchange_weak(&fake_failures, &failures, failures - 1))
            return sac_fail(err, SAC_EDEVICE, "the stand-in was told to fail");
    for (int i = 0; i < count; i++)
        for (int k = 0; k < classifier->engine->topk; k++)
            classifier->pairs[i][k] = (struct sac_topk_pair){
                (classifier->pixels[i][0] + k) % classes, 1.0f / (float)(2u << k)};
    return 0;
}

const struct sac_topk_pair *sac_classifier_result(const struct sac_classifier *classifier, int slot)
{
    return classifier->pairs[slot];
}
