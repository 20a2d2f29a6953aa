#include "cli/quantize.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "cli/pictures.h"
#include "cli/test.h"

/* Where the pictures come from: one of the two. */
struct origin {
    struct sac_source *source;
    struct sac_pictures pictures;
    int *map;      /* the source's class → the model's, or NULL */
    bool labelled; /* by classes of the model's */
    int64_t count;
};

struct load {
    struct sac_shots *shots;
    struct sac_model *model;
    struct sac_engine *engine;
    struct sac_classifier *classifier;
    struct origin origin;
    struct sac_item item;
};

static int out_of_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory for the pictures");
}

static int map_classes(struct load *load, struct sac_error *err)
{
    int classes = sac_model_class_count(load->model);
    char **names = calloc((size_t)classes, sizeof *names);
    struct sac_class_names all = {names, classes};

    if (!names)
        return out_of_memory(err);
    for (int i = 0; i < classes; i++)
        names[i] = (char *)sac_model_label(load->model, i);
    struct sac_error why = {0};
    load->origin.labelled =
        sac_test_map_classes(load->origin.source, &all, &load->origin.map, &why) == 0;
    if (!load->origin.labelled)
        sac_log(SAC_LOG_WARNING, "labels are left out of account: %s", why.text);
    free(names);
    return 0;
}

static int open_origin(struct load *load, const char *data, struct sac_error *err)
{
    struct origin *origin = &load->origin;
    struct sac_error why = {0};

    if (sac_source_open(&origin->source, data, &why) == 0 && origin->source->label_count == 1) {
        origin->count = origin->source->count;
        return map_classes(load, err);
    }
    sac_source_free(origin->source);
    origin->source = NULL;
    int rc = sac_pictures_add(&origin->pictures, data, err);
    origin->count = (int64_t)origin->pictures.count;
    return rc;
}

static int load_file(struct load *load, const char *path, struct sac_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    int rc = sac_file_read(path, SAC_PICTURE_BYTES_MAX, &bytes, &size, err);

    if (rc == 0)
        rc = sac_classifier_decode(load->classifier, 0, bytes, size, NULL, err);
    free(bytes);
    return rc;
}

/* Picture `index` into slot 0. */
static int load_one(struct load *load, int64_t index, int *ret_label, struct sac_error *err)
{
    const struct origin *origin = &load->origin;

    *ret_label = -1;
    if (!origin->source)
        return load_file(load, origin->pictures.paths[index], err);
    int rc = sac_source_item(origin->source, index, &load->item, err);
    if (rc == 0)
        rc = sac_test_decode(load->classifier, load->model, 0, &load->item, err);
    if (rc == 0 && origin->labelled)
        *ret_label = (int)sac_test_map_label(origin->source, origin->map, load->item.labels[0]);
    return rc;
}

/* Which pictures, in which order: Fisher and Yates' shuffle. */
static int64_t *shuffled(int64_t count)
{
    int64_t *order = calloc((size_t)count, sizeof *order);

    for (int64_t i = 0; order && i < count; i++) {
        int64_t other = (int64_t)(sac_random_mix((uint64_t)i) % (uint64_t)(i + 1));
        order[i] = order[other];
        order[other] = i;
    }
    return order;
}

static int load_all(struct load *load, int most, struct sac_error *err)
{
    struct sac_shots *shots = load->shots;
    int64_t *order = shuffled(load->origin.count);
    int rc = 0;

    if (!order)
        return out_of_memory(err);
    for (int64_t i = 0; rc == 0 && i < load->origin.count && shots->count < most; i++) {
        struct sac_error why = {0};
        int label = -1;
        if (load_one(load, order[i], &label, &why) != 0) {
            sac_log(SAC_LOG_WARNING, "left out: %s", why.text);
            continue;
        }
        memcpy(shots->pixels + (size_t)shots->count * shots->picture_bytes,
               sac_classifier_pixels(load->classifier, 0), shots->picture_bytes);
        shots->labels[shots->count++] = label;
        shots->labelled += label >= 0;
    }
    free(order);
    return rc;
}

static int make_room(struct sac_shots *shots, const struct load *load, int most,
                     struct sac_error *err)
{
    int64_t count = load->origin.count < most ? load->origin.count : most;

    shots->picture_bytes = sac_preprocess_bytes(sac_model_preprocess(load->model));
    shots->pixels = reallocarray(NULL, (size_t)count, shots->picture_bytes);
    shots->labels = calloc((size_t)count, sizeof *shots->labels);
    return shots->pixels && shots->labels ? 0 : out_of_memory(err);
}

int sac_shots_load(struct sac_shots *ret, struct sac_model *model, struct sac_device *device,
                   const char *data, int most, struct sac_error *err)
{
    struct sac_shots shots = {0};
    struct load load = {.shots = &shots, .model = model};
    int rc = open_origin(&load, data, err);

    if (rc == 0)
        rc = make_room(&shots, &load, most, err);
    if (rc == 0)
        rc = sac_engine_new_in(&load.engine, model, device, SAC_PRECISION_F32, NULL, 1, 1, err);
    if (rc == 0)
        rc = sac_classifier_new(&load.classifier, load.engine, err);
    if (rc == 0)
        rc = load_all(&load, most, err);
    sac_classifier_free(load.classifier);
    sac_engine_free(load.engine);
    sac_item_done(&load.item);
    sac_source_free(load.origin.source);
    sac_pictures_done(&load.origin.pictures);
    free(load.origin.map);
    if (rc == 0)
        *ret = shots;
    else
        sac_shots_done(&shots);
    return rc;
}

void sac_shots_done(struct sac_shots *shots)
{
    free(shots->pixels);
    free(shots->labels);
    *shots = (struct sac_shots){0};
}

static int answer_batch(const struct sac_shots *shots, int first, int count,
                        struct sac_classifier *classifier, int topk, struct sac_topk_pair *ret,
                        struct sac_error *err)
{
    for (int i = 0; i < count; i++)
        memcpy(sac_classifier_pixels(classifier, i),
               shots->pixels + (size_t)(first + i) * shots->picture_bytes, shots->picture_bytes);
    int rc = sac_classifier_run(classifier, count, err);
    for (int i = 0; rc == 0 && i < count; i++)
        memcpy(ret + (size_t)i * (size_t)topk, sac_classifier_result(classifier, i),
               (size_t)topk * sizeof *ret);
    return rc;
}

int sac_shots_answer(const struct sac_shots *shots, int first, int count, struct sac_model *model,
                     struct sac_device *device, enum sac_precision precision,
                     const struct sac_ranges *ranges, int topk, struct sac_topk_pair *ret,
                     struct sac_error *err)
{
    struct sac_engine *engine = NULL;
    struct sac_classifier *classifier = NULL;
    int batch = 4;
    int rc = sac_engine_new_in(&engine, model, device, precision, ranges, batch, topk, err);

    if (rc == 0)
        rc = sac_classifier_new(&classifier, engine, err);
    for (int at = 0; rc == 0 && at < count; at += batch) {
        int part = count - at < batch ? count - at : batch;
        rc = answer_batch(shots, first + at, part, classifier, topk,
                          ret + (size_t)at * (size_t)topk, err);
    }
    sac_classifier_free(classifier);
    sac_engine_free(engine);
    return rc;
}
