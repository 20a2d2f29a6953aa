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

/* An output of the net. */
struct output {
    const char *name;
    double weight;
    int64_t first, count; /* among all outputs' elements */
};

struct sac_test_net {
    struct sac_test *test;
    struct sac_caffe_net message;
    const Caffe__LayerParameter *input; /* what feeds the net in the TEST phase */
    struct sac_feed *feed;
    struct sac_net *net;
    struct sac_store *store;
    enum sac_precision precision;
    struct output *outputs; /* what is printed, in its order */
    int output_count;
    const char **wanted; /* blobs, the outputs of every plan: those, then the report's scores */
    int wanted_count;
    struct sac_judge judge;   /* what the report is about */
    bool judged, reported;    /* whether the net judges classes; whether there is a report */
    struct sac_error why_not; /* why there is no report of classes that are judged */
    int scores_at;            /* among the wanted */
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

/* The report is about the last loss over classes, else the last accuracy. */
static int find_judge(struct sac_test_net *run, const Caffe__LayerParameter *layer,
                      struct sac_error *err)
{
    const char *labels = run->input->n_top > 1 ? run->input->top[1] : NULL;
    struct sac_judge judge;
    int rc = sac_judge_read(&judge, layer, labels, &run->why_not);

    (void)err;
    run->judged |= rc != 0;
    if (rc == 1 && (judge.is_loss || !run->reported || !run->judge.is_loss)) {
        run->judge = judge;
        run->reported = true;
    }
    return 0;
}

static bool has_losses(const struct sac_net *net)
{
    bool any = false;

    for (int i = 0; i < sac_net_layer_count(net); i++) {
        const struct sac_layer *layer = sac_net_layer(net, i);
        int tops = layer->top_count == 0 && layer->type->loss ? 1 : layer->top_count;
        for (int k = 0; k < tops; k++)
            any |= layer->loss_weights[k] != 0;
    }
    return any;
}

/* A net that judges nothing, a deploy net as a rule, ends in the scores. */
static void judge_last_output(struct sac_test_net *run)
{
    int count = sac_net_output_count(run->net);

    if (run->judged || count == 0 || has_losses(run->net))
        return;
    run->judge = sac_judge_of_output(sac_net_output_name(run->net, count - 1));
    run->reported = true;
    run->test->scored = false;
}

/* Scores are printed whether or not there can be a report beside them. */
static int settle_judge(struct sac_test_net *run, struct sac_error *err)
{
    int rc = 0;

    run->test->scored = true;
    judge_last_output(run);
    if (run->reported)
        rc = sac_judge_settle(&run->judge, run->net, sac_feed_batch(run->feed), run->label_count,
                              &run->why_not);
    if (rc != 0 && run->input->n_top < 2)
        return sac_fail(err, run->why_not.code, "%s", run->why_not.text);
    run->reported &= rc == 0;
    run->test->scored |= rc != 0;
    if (!run->reported && run->test->predictions)
        return sac_fail(err, SAC_EINVAL, "--predictions: %s judges no classes", run->test->net);
    if (!run->reported && run->why_not.text[0])
        sac_log(SAC_LOG_WARNING, "%s: no report on classes: %s", run->test->net, run->why_not.text);
    return 0;
}

/* ---- What is printed ------------------------------------------------------- */

static double weight_of(const struct sac_net *net, const char *blob)
{
    double weight = 0;

    for (int i = 0; i < sac_net_layer_count(net); i++) {
        const struct sac_layer *layer = sac_net_layer(net, i);
        for (int k = 0; k < layer->top_count; k++)
            if (strcmp(layer->top_names[k], blob) == 0)
                weight = (double)layer->loss_weights[k];
    }
    return weight;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct output *)a)->name, ((const struct output *)b)->name);
}

/* The elements of all outputs, by name, as Caffe numbers them. */
static int make_elements(struct sac_test_net *run, struct sac_error *err)
{
    struct sac_test *test = run->test;
    int64_t total = 0;

    qsort(run->outputs, (size_t)run->output_count, sizeof *run->outputs, by_name);
    for (int i = 0; i < run->output_count; i++) {
        run->outputs[i].first = total;
        if (__builtin_add_overflow(total, run->outputs[i].count, &total))
            return sac_fail(err, SAC_ELIMIT, "the outputs are too large");
    }
    test->outputs = calloc((size_t)total + 1, sizeof *test->outputs);
    if (!test->outputs)
        return sac_fail(err, SAC_ENOMEM, "out of memory for %lld outputs", (long long)total);
    test->output_count = total;
    for (int i = 0; i < run->output_count; i++)
        for (int64_t k = 0; k < run->outputs[i].count; k++)
            test->outputs[run->outputs[i].first + k] = (struct sac_test_output){
                .name = run->outputs[i].name, .weight = run->outputs[i].weight};
    return 0;
}

static int find_outputs(struct sac_test_net *run, struct sac_error *err)
{
    int count = run->test->scored ? sac_net_output_count(run->net) : 0;

    run->outputs = calloc((size_t)count + 1, sizeof *run->outputs);
    run->wanted = calloc((size_t)count + 1, sizeof *run->wanted);
    if (!run->outputs || !run->wanted)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; i < count; i++) {
        const char *name = sac_net_output_name(run->net, i);
        struct sac_shape shape = {0};
        sac_net_blob_shape(run->net, name, &shape);
        run->outputs[i] = (struct output){
            .name = name, .weight = weight_of(run->net, name), .count = sac_shape_count(&shape)};
    }
    run->output_count = count;
    int rc = make_elements(run, err);
    for (int i = 0; i < count; i++)
        run->wanted[run->wanted_count++] = run->outputs[i].name;
    if (run->reported) {
        run->scores_at = run->wanted_count;
        run->wanted[run->wanted_count++] = run->judge.scores;
    }
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

static int load_weights_file(struct sac_test_net *run, const char *path, int *copied,
                             struct sac_error *err)
{
    struct sac_weights_report report = {0};
    int rc = sac_net_load_weights(run->net, path, &report, err);

    if (rc)
        return rc;
    *copied += report.layers_copied;
    if (report.layers_copied == 0 && strchr(run->test->flags.files.weights, ','))
        sac_log(SAC_LOG_WARNING, "%s: no layer of %s is in it", path, run->test->net);
    else if (report.layers_copied > 0 && report.layers_missing > 0)
        sac_log(SAC_LOG_WARNING, "%s: %d layers copied; %d of the net are not in it (\"%s\"%s)",
                path, report.layers_copied, report.layers_missing, report.first_missing,
                report.layers_missing > 1 ? " and others" : "");
    return 0;
}

/* "a.caffemodel,b.caffemodel" */
static int load_weights(struct sac_test_net *run, struct sac_error *err)
{
    const char *weights = run->test->flags.files.weights;
    char *list = strdup(weights), *rest, *path;
    int rc = list ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory"), copied = 0;

    for (path = list ? strtok_r(list, ",", &rest) : NULL; rc == 0 && path;
         path = strtok_r(NULL, ",", &rest))
        rc = load_weights_file(run, path, &copied, err);
    if (rc == 0 && copied == 0 && sac_net_weight_count(run->net) > 0)
        rc = sac_fail(err, SAC_EINVAL, "%s: no layer of %s is in it: not this net's weights?",
                      weights, run->test->net);
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
    rc = sac_caffe_net_find_means(&run->message, run->test->net, err);
    if (rc == 0)
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
        rc = settle_judge(run, err);
    if (rc == 0)
        rc = find_outputs(run, err);
    if (rc == 0)
        rc = name_classes(run, err);
    if (rc == 0 && run->reported)
        rc = sac_evaluation_new(&test->evaluation, run->judge.classes, err);
    if (rc == 0)
        rc = test->device->table->store_new(test->device, &run->store, err);
    return rc;
}

/* ---- Batches --------------------------------------------------------------- */

struct worker {
    struct sac_test_net *run;
    struct sac_stream *stream;
    struct sac_plan *whole, *part; /* of a whole batch; of the last one, where it is smaller */
    struct sac_plan *plan;         /* of the round */
    int count;                     /* items of the round */
    float *labels;
    int64_t *index;
    float **blobs; /* one a wanted */
    double loss;
    float *item; /* one item's probabilities */
};

static void worker_close(void *argument)
{
    struct worker *w = argument;

    if (!w)
        return;
    sac_plan_free(w->part);
    sac_plan_free(w->whole);
    w->run->test->device->table->stream_free(w->stream);
    for (int i = 0; w->blobs && i < w->run->wanted_count; i++)
        free(w->blobs[i]);
    free(w->blobs);
    free(w->labels);
    free(w->index);
    free(w->item);
    free(w);
}

static int make_buffers(struct worker *w, struct sac_error *err)
{
    const struct sac_test_net *run = w->run;
    size_t batch = (size_t)sac_feed_batch(run->feed);

    w->labels = calloc(batch * (size_t)run->label_count + 1, sizeof *w->labels);
    w->index = calloc(batch, sizeof *w->index);
    w->item = calloc((size_t)run->judge.classes + 1, sizeof *w->item);
    w->blobs = calloc((size_t)run->wanted_count + 1, sizeof *w->blobs);
    bool good = w->labels && w->index && w->item && w->blobs;
    for (int i = 0; good && i < run->wanted_count; i++) {
        struct sac_shape shape = {0};
        sac_net_blob_shape(run->net, run->wanted[i], &shape);
        w->blobs[i] = calloc((size_t)sac_shape_count(&shape) + 1, sizeof *w->blobs[i]);
        good = w->blobs[i] != NULL;
    }
    return good
               ? 0
               : sac_fail(err, SAC_ENOMEM, "out of memory for the scores of a batch of %zu", batch);
}

/* `batch` 0: the feed's. */
static int make_plan(struct worker *w, int batch, struct sac_plan **ret, struct sac_error *err)
{
    struct sac_test_net *run = w->run;
    struct sac_plan_options options = {
        .batch = batch,
        .ops = {.precision = run->precision,
                .deterministic = run->test->flags.overrides.deterministic > 0},
        .judged = run->test->scored,
        .wanted = run->wanted,
        .wanted_count = run->wanted_count,
        .memory_of = w->whole,
    };

    return sac_plan_new(ret, run->net, run->test->device, run->store, w->stream, &options, err);
}

static int worker_open(void *user, void **ret, struct sac_error *err)
{
    struct sac_test_net *run = user;
    struct sac_device *device = run->test->device;
    struct worker *w = calloc(1, sizeof *w);

    if (!w)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    w->run = run;
    *ret = w;
    int rc = make_buffers(w, err);
    if (rc == 0)
        rc = device->table->stream_new(device, &w->stream, err);
    return rc == 0 ? make_plan(w, 0, &w->whole, err) : rc;
}

static struct sac_scores scores_of(const struct worker *w, const float *values)
{
    return sac_judge_scores(&w->run->judge, values, w->labels, w->count,
                            sac_feed_batch(w->run->feed));
}

static int64_t source_index(const struct worker *w, int64_t item)
{
    return w->index[item / w->run->label_count];
}

/* Of labels and, unless `values` is NULL, the report's scores: what is wrong names its item. */
static int check_scores(const struct worker *w, const float *values, struct sac_error *err)
{
    struct sac_scores scores = scores_of(w, values);
    char name[SAC_ERROR_TEXT / 2];
    int64_t item = 0;
    int rc = w->run->reported ? sac_scores_check(&scores, &item, err) : 0;

    if (rc) {
        sac_source_item_name(sac_feed_source(w->run->feed), source_index(w, item), name,
                             sizeof name);
        sac_error_prefix(err, "%s", name);
    }
    return rc;
}

/* The plan of a batch of that size: the net's own numbers are over what is there. */
static int choose_plan(struct worker *w, struct sac_error *err)
{
    w->plan = w->whole;
    if (w->count == sac_feed_batch(w->run->feed))
        return 0;
    sac_plan_free(w->part);
    w->part = NULL;
    int rc = make_plan(w, w->count, &w->part, err);
    w->plan = w->part;
    if (rc)
        sac_error_prefix(err,
                         "the last %d items are no whole batch, and the net takes no smaller one "
                         "(--batch gives another size)",
                         w->count);
    return rc;
}

static int upload(struct worker *w, const float *data, struct sac_error *err)
{
    const struct sac_device_table *table = w->run->test->device->table;
    int rc = 0;

    for (int i = 0; rc == 0 && i < sac_plan_input_count(w->plan); i++) {
        const struct sac_tensor *to = sac_plan_input(w->plan, i);
        rc = table->copy(w->stream, SAC_COPY_TO_DEVICE, to->data, i == 0 ? data : w->labels,
                         sac_tensor_bytes(&to->shape, SAC_F32), err);
    }
    return rc ? rc : table->stream_sync(w->stream, err); /* the batch is the feed's again */
}

static int take(void *argument, int64_t round, bool *ret_end, struct sac_error *err)
{
    struct worker *w = argument;
    const struct sac_test_net *run = w->run;
    const struct sac_source *source = sac_feed_source(run->feed);
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
    w->count = batch.count;
    memcpy(w->index, batch.index, items * sizeof *w->index);
    for (size_t i = 0; i < labels; i++)
        w->labels[i] = sac_test_map_label(source, run->map, batch.labels[i]);
    rc = check_scores(w, NULL, err);
    if (rc == 0)
        rc = choose_plan(w, err);
    return rc == 0 ? upload(w, batch.data, err) : rc;
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
    if (rc == 0 && w->run->test->scored)
        rc = sac_plan_loss_sum(w->plan, &w->loss, err);
    return rc == 0 ? check_scores(w, w->blobs[w->run->scores_at], err) : rc;
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

/* A smaller batch has fewer elements where they follow the items. */
static void give_output(const struct worker *w, int index, int64_t round)
{
    struct sac_test *test = w->run->test;
    const struct output *output = &w->run->outputs[index];
    int64_t count = sac_shape_count(&sac_plan_output(w->plan, index)->shape);

    for (int64_t k = 0; k < count; k++) {
        struct sac_test_output *o = &test->outputs[output->first + k];
        double value = (double)w->blobs[index][k];
        o->sum += value * w->count;
        o->count += w->count;
        if (!test->json)
            printf("Batch %lld, %s = %g\n", (long long)round, o->name, value);
    }
}

static int give(void *argument, int64_t round, struct sac_error *err)
{
    struct worker *w = argument;
    struct sac_test *test = w->run->test;

    test->batches++;
    test->items += w->count;
    test->loss += w->loss * w->count;
    for (int i = 0; i < w->run->output_count; i++)
        give_output(w, i, round);
    if (!w->run->reported)
        return 0;
    struct sac_scores scores = scores_of(w, w->blobs[w->run->scores_at]);
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
    free(run->test->outputs);
    free(run->outputs);
    free(run->wanted);
    free(run->map);
    free(run);
}
