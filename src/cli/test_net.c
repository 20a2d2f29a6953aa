/* `saccade test --net`: a prototxt's TEST phase, as `caffe test` runs it. */
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/log.h"
#include "cli/relay.h"
#include "cli/test.h"
#include "cli/test_judge.h"
#include "net/layer.h"
#include "net/plan.h"

enum { ITERATIONS = 50 };

struct sac_test_net {
    struct sac_test *test;
    struct sac_caffe_net message;
    const Caffe__LayerParameter *input; /* what feeds the net in the TEST phase */
    struct sac_feed *feed;
    struct sac_net *net;
    struct sac_store *store;
    enum sac_precision precision;
    struct sac_judge judges[SAC_TEST_OUTPUTS_MAX];
    int judge_count;
    const char *wanted[2 * SAC_TEST_OUTPUTS_MAX]; /* blobs; the outputs of every plan */
    int wanted_count;
    int shown; /* the judge whose classes the report is about; −1: none has any */
    int label_count, *map;
    int64_t rounds; /* at most; 0: until the data ends */
};

static struct sac_net_options net_options(const struct sac_test *test)
{
    return (struct sac_net_options){.phase = SAC_PHASE_TEST,
                                    .level = test->level,
                                    .stages = test->stages,
                                    .stage_count = test->stage_count};
}

/* ---- Reading the prototxt -------------------------------------------------- */

/* Calls `see` with each layer of the TEST phase. */
typedef int see_layer(struct sac_test_net *run, const Caffe__LayerParameter *layer,
                      struct sac_error *err);

static int each_layer(struct sac_test_net *run, see_layer *see, struct sac_error *err)
{
    const Caffe__NetParameter *net = run->message.net;
    struct sac_net_options options = net_options(run->test);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < net->n_layer; i++) {
        bool included = false;
        rc = sac_layer_included(net->layer[i], net->state, &options, &included, err);
        if (rc == 0 && included)
            rc = see(run, net->layer[i], err);
    }
    return rc;
}

static int find_input(struct sac_test_net *run, const Caffe__LayerParameter *layer,
                      struct sac_error *err)
{
    const struct sac_layer_type *type = layer->type ? sac_layer_type_find(layer->type) : NULL;

    if (!type || !type->feeds)
        return 0;
    if (run->input)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "layers \"%.64s\" and \"%.64s\" both feed the net in its TEST phase; "
                        "expected one",
                        run->input->name, layer->name);
    if (layer->n_top < 1 || layer->n_top > 2)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "layer \"%.64s\" has %zu tops; expected data and perhaps labels",
                        layer->name, layer->n_top);
    run->input = layer;
    return 0;
}

/* The plan's output that a blob is. */
static int want(struct sac_test_net *run, const char *blob)
{
    for (int i = 0; i < run->wanted_count; i++)
        if (strcmp(run->wanted[i], blob) == 0)
            return i;
    run->wanted[run->wanted_count] = blob;
    return run->wanted_count++;
}

/* Of those with classes the report is about the last loss, else the last accuracy. */
static void choose_shown(struct sac_test_net *run, const struct sac_judge *judge)
{
    bool has_loss = run->shown >= 0 && sac_judge_is_loss(&run->judges[run->shown]);

    if (sac_judge_has_classes(judge) && (sac_judge_is_loss(judge) || !has_loss))
        run->shown = run->judge_count;
}

static int add_judge(struct sac_test_net *run, struct sac_judge *judge, const char *name,
                     double weight, struct sac_error *err)
{
    struct sac_test *test = run->test;

    if (run->judge_count == SAC_TEST_OUTPUTS_MAX)
        return sac_fail(err, SAC_ELIMIT, "over %d losses and accuracies", SAC_TEST_OUTPUTS_MAX);
    choose_shown(run, judge);
    judge->at = want(run, judge->scores);
    judge->targets_at = judge->targets ? want(run, judge->targets) : -1;
    run->judges[run->judge_count++] = *judge;
    if (name)
        test->outputs[test->output_count++] =
            (struct sac_test_output){.name = name, .weight = weight};
    return 0;
}

static int find_judge(struct sac_test_net *run, const Caffe__LayerParameter *layer,
                      struct sac_error *err)
{
    const char *labels = run->input->n_top > 1 ? run->input->top[1] : NULL;
    struct sac_judge judge;
    int rc = sac_judge_read(&judge, layer, labels, err);

    if (rc != 1)
        return rc;
    double weight = !sac_judge_is_loss(&judge) ? 0
                    : layer->n_loss_weight     ? (double)layer->loss_weight[0]
                                               : 1;
    return add_judge(run, &judge, layer->n_top ? layer->top[0] : layer->name, weight, err);
}

/* A deploy net ends in the scores. */
static int judge_last_output(struct sac_test_net *run, struct sac_error *err)
{
    int count = sac_net_output_count(run->net);

    if (count == 0)
        return sac_fail(err, SAC_EINVAL, "the net has no output");
    struct sac_judge judge = sac_judge_of_output(sac_net_output_name(run->net, count - 1));
    return add_judge(run, &judge, NULL, 0, err);
}

static int settle_judges(struct sac_test_net *run, struct sac_error *err)
{
    int rc = run->judge_count == 0 ? judge_last_output(run, err) : 0;

    for (int i = 0; rc == 0 && i < run->judge_count; i++)
        rc = sac_judge_settle(&run->judges[i], run->net, sac_feed_batch(run->feed),
                              run->label_count, err);
    if (rc == 0 && run->shown < 0 && run->test->predictions)
        rc = sac_fail(err, SAC_EINVAL, "--predictions: %s judges no classes", run->test->net);
    return rc;
}

/* ---- Opening --------------------------------------------------------------- */

static int load_net(struct sac_test_net *run, struct sac_error *err)
{
    struct sac_net_options options = net_options(run->test);
    struct sac_net_input inputs[2] = {0}; /* find_input() lets no more tops pass */

    options.inputs = inputs;
    for (size_t i = 0; i < run->input->n_top; i++) {
        struct sac_feed_top top;
        int rc = sac_feed_top(run->feed, (int)i, &top, err);
        if (rc != 0)
            return rc;
        inputs[options.input_count++] =
            (struct sac_net_input){run->input->top[i], {.rank = top.rank}};
        memcpy(inputs[i].shape.dim, top.dim, sizeof top.dim);
    }
    return sac_net_load(&run->net, run->test->net, &options, err);
}

static int load_weights_file(struct sac_test_net *run, const char *path, struct sac_error *err)
{
    struct sac_weights_report report = {0};
    int rc = sac_net_load_weights(run->net, path, &report, err);

    if (rc)
        return rc;
    if (report.layers_copied == 0)
        return sac_fail(err, SAC_EINVAL, "%s: no layer of %s is in it: not this net's weights?",
                        path, run->test->net);
    if (report.layers_missing > 0)
        sac_log(SAC_LOG_WARNING, "%s: %d layers copied; %d of the net are not in it (\"%s\"%s)",
                path, report.layers_copied, report.layers_missing, report.first_missing,
                report.layers_missing > 1 ? " and others" : "");
    return 0;
}

/* "a.caffemodel,b.caffemodel" */
static int load_weights(struct sac_test_net *run, struct sac_error *err)
{
    char *list = strdup(run->test->flags.files.weights), *rest, *path;
    int rc = list ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (path = list ? strtok_r(list, ",", &rest) : NULL; rc == 0 && path;
         path = strtok_r(NULL, ",", &rest))
        rc = load_weights_file(run, path, err);
    free(list);
    return rc;
}

static int name_classes(struct sac_test_net *run, struct sac_error *err)
{
    struct sac_test *test = run->test;
    const struct sac_source *source = sac_feed_source(run->feed);
    const struct sac_labels *own = &source->labels;

    if (!test->flags.files.labels) {
        test->names = (struct sac_class_names){own->text, own->count};
        return 0;
    }
    int rc = sac_labels_load(&test->labels, test->flags.files.labels, err);
    test->names = (struct sac_class_names){test->labels.text, test->labels.count};
    return rc ? rc : sac_test_map_classes(source, &test->names, &run->map, err);
}

static int open_feed(struct sac_test_net *run, struct sac_error *err)
{
    const struct sac_test *test = run->test;
    int rc = sac_test_feed_open(&run->feed, test, run->input, err);

    if (rc)
        return rc;
    run->label_count = sac_feed_source(run->feed)->label_count;
    run->rounds = test->iterations ? test->iterations : test->data ? 0 : ITERATIONS;
    return 0;
}

static int read_net(struct sac_test_net *run, struct sac_error *err)
{
    int rc = sac_caffe_net_load(&run->message, run->test->net, err);

    if (rc)
        return rc;
    rc = each_layer(run, find_input, err);
    if (rc == 0 && !run->input)
        rc = sac_fail(err, SAC_EINVAL, "no layer feeds the net in its TEST phase");
    if (rc == 0)
        rc = each_layer(run, find_judge, err);
    if (rc == 0)
        rc = open_feed(run, err);
    if (rc)
        sac_error_prefix(err, "%s", run->test->net);
    return rc;
}

static int prepare(struct sac_test_net *run, struct sac_error *err)
{
    struct sac_test *test = run->test;
    int rc =
        sac_flag_precision(test->flags.overrides.precision, test->device, &run->precision, err);

    if (rc == 0)
        rc = read_net(run, err);
    if (rc == 0)
        rc = load_net(run, err);
    if (rc == 0)
        rc = load_weights(run, err);
    if (rc == 0)
        rc = settle_judges(run, err);
    if (rc == 0)
        rc = name_classes(run, err);
    if (rc == 0 && run->shown >= 0)
        rc = sac_evaluation_new(&test->evaluation, run->judges[run->shown].classes, err);
    if (rc == 0)
        rc = test->device->table->store_new(test->device, &run->store, err);
    return rc;
}

/* ---- Batches --------------------------------------------------------------- */

struct worker {
    struct sac_test_net *run;
    struct sac_stream *stream;
    struct sac_plan *plan;
    int count; /* items of the round */
    float *labels;
    int64_t *index;
    float *blobs[2 * SAC_TEST_OUTPUTS_MAX]; /* one a wanted */
    double values[SAC_TEST_OUTPUTS_MAX];
    float *item; /* one item's probabilities */
};

static void worker_close(void *argument)
{
    struct worker *w = argument;

    if (!w)
        return;
    sac_plan_free(w->plan);
    w->run->test->device->table->stream_free(w->stream);
    for (int i = 0; i < w->run->wanted_count; i++)
        free(w->blobs[i]);
    free(w->labels);
    free(w->index);
    free(w->item);
    free(w);
}

static int make_buffers(struct worker *w, struct sac_error *err)
{
    const struct sac_test_net *run = w->run;
    size_t batch = (size_t)sac_feed_batch(run->feed);
    bool good = true;

    w->labels = calloc(batch * (size_t)run->label_count, sizeof *w->labels);
    w->index = calloc(batch, sizeof *w->index);
    w->item = calloc(run->shown < 0 ? 1 : (size_t)run->judges[run->shown].classes, sizeof *w->item);
    for (int i = 0; i < run->wanted_count; i++) {
        struct sac_shape shape = {0};
        sac_net_blob_shape(run->net, run->wanted[i], &shape);
        w->blobs[i] = calloc((size_t)sac_shape_count(&shape), sizeof *w->blobs[i]);
        good &= w->blobs[i] != NULL;
    }
    if (!good || !w->labels || !w->index || !w->item)
        return sac_fail(err, SAC_ENOMEM, "out of memory for the scores of a batch of %zu", batch);
    return 0;
}

static int worker_open(void *user, void **ret, struct sac_error *err)
{
    struct sac_test_net *run = user;
    struct sac_device *device = run->test->device;
    struct sac_plan_options options = {
        .ops = {.precision = run->precision,
                .deterministic = run->test->flags.overrides.deterministic > 0},
        .wanted = run->wanted,
        .wanted_count = run->wanted_count,
    };
    struct worker *w = calloc(1, sizeof *w);

    if (!w)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    w->run = run;
    *ret = w;
    int rc = make_buffers(w, err);
    if (rc == 0)
        rc = device->table->stream_new(device, &w->stream, err);
    if (rc == 0)
        rc = sac_plan_new(&w->plan, run->net, device, run->store, w->stream, &options, err);
    return rc;
}

/* The batch's data into the plan's input 0, its labels aside. Rows behind a
 * partial batch keep what they had; nobody reads what becomes of them. */
static int take(void *argument, int64_t round, bool *ret_end, struct sac_error *err)
{
    struct worker *w = argument;
    const struct sac_test_net *run = w->run;
    const struct sac_device_table *table = run->test->device->table;
    const struct sac_source *source = sac_feed_source(run->feed);
    const int *shape = sac_feed_shape(run->feed);
    struct sac_batch batch;
    int rc = 0;

    *ret_end = run->rounds > 0 && round >= run->rounds;
    if (!*ret_end)
        rc = sac_feed_next(run->feed, &batch, err);
    if (rc || *ret_end || batch.end) {
        *ret_end |= rc == 0;
        return rc;
    }
    size_t items = (size_t)batch.count, labels = items * (size_t)run->label_count;
    size_t bytes = items * (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * sizeof(float);
    w->count = batch.count;
    memcpy(w->index, batch.index, items * sizeof *w->index);
    for (size_t i = 0; i < labels; i++)
        w->labels[i] = sac_test_map_label(source, run->map, batch.labels[i]);
    rc = table->copy(w->stream, SAC_COPY_TO_DEVICE, sac_plan_input(w->plan, 0)->data, batch.data,
                     bytes, err);
    return rc ? rc : table->stream_sync(w->stream, err); /* the batch is the feed's again */
}

static struct sac_scores scores_of(const struct worker *w, int index)
{
    const struct sac_judge *judge = &w->run->judges[index];

    return sac_judge_scores(judge, w->blobs[judge->at], w->labels, w->count,
                            sac_feed_batch(w->run->feed));
}

static int64_t source_index(const struct worker *w, int64_t item)
{
    return w->index[item / w->run->label_count];
}

static int judge_classes(struct worker *w, int index, struct sac_error *err)
{
    const struct sac_judge *judge = &w->run->judges[index];
    struct sac_scores scores = scores_of(w, index);
    char name[SAC_ERROR_TEXT / 2];
    int64_t item = 0;
    int rc = sac_scores_check(&scores, &item, err);

    if (rc) {
        sac_source_item_name(sac_feed_source(w->run->feed), source_index(w, item), name,
                             sizeof name);
        sac_error_prefix(err, "%s", name);
        return rc;
    }
    w->values[index] = sac_judge_is_loss(judge) ? sac_scores_softmax_loss(&scores, judge->norm)
                                                : sac_scores_accuracy(&scores, judge->top_k);
    return 0;
}

static int judge_batch(struct worker *w, int index, struct sac_error *err)
{
    const struct sac_judge *judge = &w->run->judges[index];

    if (sac_judge_has_classes(judge))
        return judge_classes(w, index, err);
    w->values[index] =
        sac_judge_pairs(judge, w->blobs[judge->at],
                        judge->targets ? w->blobs[judge->targets_at] : w->labels, w->count);
    return 0;
}

static int work(void *argument, struct sac_error *err)
{
    struct worker *w = argument;
    const struct sac_device_table *table = w->run->test->device->table;
    int rc = sac_plan_forward(w->plan, err);

    for (int i = 0; rc == 0 && i < w->run->wanted_count; i++) {
        const struct sac_tensor *out = sac_plan_output(w->plan, i);
        rc = table->copy(w->stream, SAC_COPY_TO_HOST, w->blobs[i], out->data,
                         sac_tensor_bytes(&out->shape, SAC_F32), err);
    }
    if (rc == 0)
        rc = table->stream_sync(w->stream, err);
    for (int i = 0; rc == 0 && i < w->run->judge_count; i++)
        rc = judge_batch(w, i, err);
    return rc;
}

/* The likeliest classes of an item, of equals the first. */
static int likeliest(const float *values, int classes, struct sac_topk_pair *ret, int most)
{
    int count = 0;

    for (int c = 0; c < classes; c++) {
        int at = count;
        for (; at > 0 && ret[at - 1].value < values[c]; at--)
            if (at < most)
                ret[at] = ret[at - 1];
        if (at < most)
            ret[at] = (struct sac_topk_pair){c, values[c]};
        count += count < most;
    }
    return count;
}

static void put_predictions(struct worker *w, const struct sac_scores *scores)
{
    struct sac_test *test = w->run->test;
    struct sac_topk_pair pairs[SAC_EVALUATION_TOP_K];
    int64_t items = test->lines ? scores->outer * scores->inner : 0;

    for (int64_t i = 0; i < items; i++) {
        sac_scores_softmax(scores, i, w->item);
        int count = likeliest(w->item, scores->classes, pairs, SAC_EVALUATION_TOP_K);
        sac_test_put_prediction(test, sac_feed_source(w->run->feed), source_index(w, i),
                                (int)scores->labels[i], pairs, count);
    }
}

static int give(void *argument, int64_t round, struct sac_error *err)
{
    struct worker *w = argument;
    struct sac_test *test = w->run->test;

    test->batches++;
    test->items += w->count;
    for (int i = 0; i < test->output_count; i++) {
        struct sac_test_output *o = &test->outputs[i];
        o->sum += w->values[i] * w->count;
        o->count += w->count;
        if (!test->json)
            printf("Batch %lld, %s = %g\n", (long long)round, o->name, w->values[i]);
    }
    if (w->run->shown < 0)
        return 0;
    struct sac_scores scores = scores_of(w, w->run->shown);
    put_predictions(w, &scores);
    return sac_evaluation_add(test->evaluation, &scores, err);
}

static const struct sac_relay relay = {worker_open, worker_close, take, work, give};

/* As many as the device runs at once with profit. */
static int worker_count(const struct sac_test *test)
{
    int streams = test->device->info.streams > 0 ? test->device->info.streams : 1;

    if (test->workers > 0)
        return test->workers;
    return streams < sac_cpu_count() ? streams : sac_cpu_count();
}

int sac_test_net_run(struct sac_test_net **ret, struct sac_test *test, struct sac_error *err)
{
    struct sac_test_net *run = calloc(1, sizeof *run);

    if (!run)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    *ret = run;
    run->test = test;
    run->shown = -1;
    int rc = prepare(run, err);
    if (rc == 0)
        rc = sac_relay_run(&relay, worker_count(test), run, err);
    if (rc == 0)
        test->corrupt = sac_feed_stats(run->feed).corrupt;
    return rc;
}

void sac_test_net_free(struct sac_test_net *run)
{
    if (!run)
        return;
    run->test->device->table->store_free(run->store);
    sac_net_free(run->net);
    sac_feed_free(run->feed);
    sac_caffe_net_done(&run->message);
    free(run->map);
    free(run);
}
