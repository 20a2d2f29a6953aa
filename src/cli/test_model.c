/* `saccade test --model`: labelled pictures, the way `classify` takes them. */
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/log.h"
#include "cli/relay.h"
#include "cli/test.h"
#include "model/classifier.h"
#include "net/net.h"

struct sac_test_model {
    struct sac_test *test;
    struct sac_model *model;
    struct sac_engine *engine; /* its topk: every class */
    struct sac_source *source;
    int *map; /* the source's class → the model's, or NULL */
    char **names;
    int classes;
    bool probabilities;
};

/* A picture of a round. */
struct picture {
    int64_t index;
    struct sac_error err; /* code 0: it was classified */
};

struct worker {
    struct sac_test_model *run;
    struct sac_classifier *classifier;
    struct sac_item item;
    int64_t first;
    int count, good; /* pictures of the round, and those in a slot */
    struct picture *pictures;
    int64_t *slots; /* what is in each: an index of the source */
    float *values, *labels;
};

static void worker_close(void *argument)
{
    struct worker *w = argument;

    if (!w)
        return;
    sac_classifier_free(w->classifier);
    sac_item_done(&w->item);
    free(w->pictures);
    free(w->slots);
    free(w->values);
    free(w->labels);
    free(w);
}

static int worker_open(void *user, void **ret, struct sac_error *err)
{
    struct sac_test_model *run = user;
    size_t batch = (size_t)sac_engine_batch_max(run->engine);
    struct worker *w = calloc(1, sizeof *w);

    if (!w)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    w->run = run;
    *ret = w;
    w->pictures = calloc(batch, sizeof *w->pictures);
    w->slots = calloc(batch, sizeof *w->slots);
    w->values = calloc(batch * (size_t)run->classes, sizeof *w->values);
    w->labels = calloc(batch, sizeof *w->labels);
    if (!w->pictures || !w->slots || !w->values || !w->labels)
        return sac_fail(err, SAC_ENOMEM, "out of memory for %zu pictures", batch);
    return sac_classifier_new(&w->classifier, run->engine, err);
}

static int take(void *argument, int64_t round, bool *ret_end, struct sac_error *err)
{
    struct worker *w = argument;
    const struct sac_test_model *run = w->run;
    int batch = sac_engine_batch_max(run->engine);
    int64_t left = run->source->count - round * batch;

    (void)err;
    w->first = round * batch;
    w->count = left < batch ? (int)left : batch;
    *ret_end = left <= 0;
    return 0;
}

/* Planes to interleaved R, G, B. */
static int copy_planes(const struct sac_preprocess *how, const struct sac_item *item, uint8_t *to,
                       struct sac_error *err)
{
    size_t plane = (size_t)item->height * (size_t)item->width, channels = (size_t)item->channels;

    if (item->channels != how->channels || item->height != how->crop_height ||
        item->width != how->crop_width)
        return sac_fail(err, SAC_EINVAL, "%d × %d × %d; the model takes planes of %d × %d × %d",
                        item->channels, item->height, item->width, how->channels, how->crop_height,
                        how->crop_width);
    for (size_t c = 0; c < channels; c++) {
        const uint8_t *from = item->bytes + (item->rgb ? c : channels - 1 - c) * plane;
        for (size_t i = 0; i < plane; i++)
            to[i * channels + c] = from[i];
    }
    return 0;
}

int sac_test_decode(struct sac_classifier *classifier, const struct sac_model *model, int slot,
                    const struct sac_item *item, struct sac_error *err)
{
    if (item->kind == SAC_ITEM_ENCODED)
        return sac_classifier_decode(classifier, slot, item->bytes, item->size, NULL, err);
    if (item->kind == SAC_ITEM_BYTES)
        return copy_planes(sac_model_preprocess(model), item,
                           sac_classifier_pixels(classifier, slot), err);
    return sac_fail(err, SAC_EINVAL, "float values; a model takes pictures");
}

static int label_of(const struct worker *w, float *ret, struct sac_error *err)
{
    const struct sac_test_model *run = w->run;

    if (run->source->label_count != 1)
        return sac_fail(err, SAC_EINVAL, "%d values a label; expected one class",
                        run->source->label_count);
    *ret = sac_test_map_label(run->source, run->map, w->item.labels[0]);
    return 0;
}

/* Into the next slot; a corrupt picture is kept for the log. */
static int load_picture(struct worker *w, struct picture *picture, struct sac_error *err)
{
    const struct sac_source *source = w->run->source;
    char name[SAC_ERROR_TEXT / 2];

    picture->err = (struct sac_error){0};
    int rc = sac_source_item(source, picture->index, &w->item, &picture->err);
    if (rc == 0) {
        rc = sac_test_decode(w->classifier, w->run->model, w->good, &w->item, &picture->err);
        if (rc == 0)
            rc = label_of(w, &w->labels[w->good], &picture->err);
        if (rc) {
            sac_source_item_name(source, picture->index, name, sizeof name);
            sac_error_prefix(&picture->err, "%s", name);
        }
    }
    if (rc == 0)
        w->slots[w->good++] = picture->index;
    if (rc == 0 || sac_source_is_corrupt(rc))
        return 0;
    *err = picture->err;
    return rc;
}

/* The answers, from the likeliest down, back to one value a class. */
static int spread(struct worker *w, struct sac_error *err)
{
    int classes = w->run->classes;

    for (int slot = 0; slot < w->good; slot++) {
        const struct sac_topk_pair *pairs = sac_classifier_result(w->classifier, slot);
        float *values = w->values + (size_t)slot * (size_t)classes;
        for (int i = 0; i < classes; i++) {
            if (pairs[i].index < 0)
                return sac_fail(err, SAC_EINVAL, "the net gives values that are not numbers");
            values[pairs[i].index] = pairs[i].value;
        }
    }
    return 0;
}

static struct sac_scores scores_of(const struct worker *w)
{
    return (struct sac_scores){.values = w->values,
                               .labels = w->labels,
                               .outer = w->good,
                               .inner = 1,
                               .classes = w->run->classes,
                               .probabilities = w->run->probabilities};
}

static int work(void *argument, struct sac_error *err)
{
    struct worker *w = argument;
    int64_t item = 0;
    int rc = 0;

    w->good = 0;
    for (int i = 0; rc == 0 && i < w->count; i++) {
        w->pictures[i].index = w->first + i;
        rc = load_picture(w, &w->pictures[i], err);
    }
    if (rc == 0 && w->good > 0)
        rc = sac_classifier_run(w->classifier, w->good, err);
    if (rc == 0)
        rc = spread(w, err);
    struct sac_scores scores = scores_of(w);
    if (rc == 0 && (rc = sac_scores_check(&scores, &item, err)) < 0) {
        char name[SAC_ERROR_TEXT / 2];
        sac_source_item_name(w->run->source, w->slots[item], name, sizeof name);
        sac_error_prefix(err, "%s", name);
    }
    return rc;
}

static int give(void *argument, int64_t round, struct sac_error *err)
{
    struct worker *w = argument;
    struct sac_test *test = w->run->test;
    struct sac_scores scores = scores_of(w);

    (void)round;
    test->batches++;
    for (int i = 0; i < w->count; i++) {
        if (w->pictures[i].err.code == 0)
            continue;
        test->corrupt++;
        sac_log(SAC_LOG_WARNING, "skipped: %s", w->pictures[i].err.text);
    }
    for (int slot = 0; slot < w->good; slot++)
        sac_test_put_prediction(test, w->run->source, w->slots[slot], (int)w->labels[slot],
                                sac_classifier_result(w->classifier, slot),
                                sac_model_topk(w->run->model));
    return sac_evaluation_add(test->evaluation, &scores, err);
}

static const struct sac_relay relay = {worker_open, worker_close, take, work, give};

static int name_classes(struct sac_test_model *run, struct sac_error *err)
{
    run->names = calloc((size_t)run->classes, sizeof *run->names);
    if (!run->names)
        return sac_fail(err, SAC_ENOMEM, "out of memory for %d labels", run->classes);
    for (int i = 0; i < run->classes; i++)
        run->names[i] = (char *)sac_model_label(run->model, i);
    run->test->names = (struct sac_class_names){run->names, run->classes};
    return sac_test_map_classes(run->source, &run->test->names, &run->map, err);
}

static int prepare(struct sac_test_model *run, struct sac_error *err)
{
    struct sac_test *test = run->test;
    int rc = sac_source_open(&run->source, test->data, err);

    if (rc == 0)
        rc = sac_model_flags_open(&test->flags, &run->model, err);
    if (rc < 0)
        return rc;
    const struct sac_net *net = sac_model_net(run->model);
    const struct sac_layer *last = sac_net_layer(net, sac_net_layer_count(net) - 1);
    run->classes = sac_model_class_count(run->model);
    run->probabilities = strcmp(sac_layer_type_name(last), "Softmax") == 0;
    rc = name_classes(run, err);
    if (rc == 0)
        rc = sac_evaluation_new(&test->evaluation, run->classes, err);
    if (rc == 0)
        rc = sac_engine_new(&run->engine, run->model, test->device, test->batch, run->classes, err);
    return rc;
}

int sac_test_model_run(struct sac_test_model **ret, struct sac_test *test, struct sac_error *err)
{
    struct sac_test_model *run = calloc(1, sizeof *run);

    if (!run)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    *ret = run; /* the caller frees it, whatever happens */
    run->test = test;
    int rc = prepare(run, err), workers = test->workers > 0 ? test->workers : sac_cpu_count();
    return rc ? rc : sac_relay_run(&relay, workers, run, err);
}

void sac_test_model_free(struct sac_test_model *run)
{
    if (!run)
        return;
    sac_engine_free(run->engine);
    sac_model_unref(run->model);
    sac_source_free(run->source);
    free(run->map);
    free(run->names);
    free(run);
}
