/* Tests between, and what they mean for the run: its best iteration, and its end. */
#include "train/trainer_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- The metric ------------------------------------------------------------ */

static const struct sac_phase_output *output_called(const struct sac_phase_net *net,
                                                    const char *name)
{
    for (int i = 0; i < net->output_count; i++)
        if (strcmp(net->outputs[i].name, name) == 0)
            return &net->outputs[i];
    return NULL;
}

/* The layer that an output comes from. */
static const Caffe__LayerParameter *layer_of(const struct sac_phase_net *net, const char *output)
{
    for (int i = net->layer_count - 1; i >= 0; i--)
        for (size_t k = 0; k < net->layers[i]->n_top; k++)
            if (strcmp(net->layers[i]->top[k], output) == 0)
                return net->layers[i];
    return NULL;
}

/* Of the last Accuracy layer, as a net of several heads has its own behind the auxiliary
 * ones'; of the best answer rather than of the best five. */
static const struct sac_phase_output *find_accuracy(const struct sac_phase_net *net)
{
    const struct sac_phase_output *found = NULL;

    for (int i = 0; i < net->layer_count; i++) {
        const Caffe__LayerParameter *layer = net->layers[i];
        const struct sac_phase_output *output =
            strcmp(layer->type, "Accuracy") == 0 && layer->n_top > 0
                ? output_called(net, layer->top[0])
                : NULL;
        bool first = !layer->accuracy_param || layer->accuracy_param->top_k == 1;
        if (output && output->count == 1 && (first || !found))
            found = output;
    }
    return found;
}

static bool is_loss(const struct sac_phase_net *net, const struct sac_phase_output *output)
{
    const Caffe__LayerParameter *layer = layer_of(net, output->name);

    return output->weight != 0 || (layer && strstr(layer->type, "Loss"));
}

/* The output that is asked for, else an accuracy, or else the sum of losses of the first
 * test net. */
int sac_trainer_find_metric(struct sac_trainer *t, struct sac_error *err)
{
    const char *name = t->options.metric;

    if (!t->options.keep_best)
        return 0;
    for (int i = 0; i < t->test_count && !t->metric.known; i++) {
        const struct sac_phase_net *net = &t->tests[i];
        const struct sac_phase_output *output =
            name ? output_called(net, name) : find_accuracy(net);
        if (output)
            t->metric = (struct sac_trainer_metric){.known = true,
                                                    .test = i,
                                                    .name = output->name,
                                                    .value = output->first,
                                                    .lower = is_loss(net, output)};
    }
    if (t->metric.known)
        return 0;
    if (name)
        return sac_fail(err, SAC_EINVAL, "no test net has an output \"%.64s\" to judge by", name);
    if (t->test_count == 0 || sac_plan_loss_count(t->tests[0].plan) == 0)
        return sac_fail(err, SAC_EINVAL,
                        "%s: the best iteration is that of the best test, and there is no test "
                        "net with an accuracy or a loss",
                        t->options.solver);
    t->metric =
        (struct sac_trainer_metric){.name = "loss", .value = -1, .lower = true, .known = true};
    return 0;
}

/* ---- The best -------------------------------------------------------------- */

json_t *sac_trainer_best_json(const struct sac_trainer *t)
{
    const struct sac_trainer_best *b = &t->best;

    return json_pack("{s:f,s:f,s:I,s:i,s:b}", "value", b->value, "loss", b->loss, "iteration",
                     (json_int_t)b->iteration, "since", b->since, "extra", b->extra);
}

void sac_trainer_restore_best(struct sac_trainer *t)
{
    const json_t *best = json_object_get(t->restored, "best");
    const json_t *tested = json_object_get(t->restored, "tested");
    json_int_t iteration = 0;
    int extra = 0;

    t->tested_at = json_is_integer(tested) ? json_integer_value(tested) : -1;
    if (json_unpack((json_t *)best, "{s:F,s:I,s:i,s:b}", "value", &t->best.value, "iteration",
                    &iteration, "since", &t->best.since, "extra", &extra) != 0)
        return;
    t->best.loss = json_number_value(json_object_get(best, "loss"));
    t->best.iteration = iteration;
    t->best.extra = extra != 0;
    t->best.known = true;
}

/* With few pictures many tests are equally right: the surest of them is the best. */
static bool is_better(const struct sac_trainer *t, double value, double loss)
{
    if (!isfinite(value))
        return false;
    if (!t->best.known)
        return true;
    if (value == t->best.value)
        return loss < t->best.loss;
    return t->metric.lower ? value < t->best.value : value > t->best.value;
}

/* A snapshot of its own, unless there is one of this iteration. What was there for the
 * former best alone goes. */
static int keep_best(struct sac_trainer *t, double value, double loss, struct sac_error *err)
{
    struct sac_trainer_best former = t->best;
    int rc = 0;

    t->best = (struct sac_trainer_best){
        .known = true,
        .value = value,
        .loss = loss,
        .iteration = t->iteration,
        .extra = t->saved_at != t->iteration,
    };
    sac_trainer_tell(t, (struct sac_train_event){.kind = SAC_TRAIN_BEST,
                                                 .name = t->metric.name,
                                                 .loss = value,
                                                 .has_loss = true,
                                                 .best = t->iteration});
    if (t->best.extra)
        rc = sac_trainer_save(t, err);
    if (rc == 0 && former.known && former.extra && former.iteration != t->iteration)
        rc = sac_snapshot_remove(t->prefix, former.iteration, err);
    return rc;
}

static int judge(struct sac_trainer *t, double value, double loss, struct sac_error *err)
{
    if (is_better(t, value, loss))
        return keep_best(t, value, loss, err);
    t->best.since++;
    t->stopped |= t->options.patience > 0 && t->best.since >= t->options.patience;
    return 0;
}

/* ---- Tests ----------------------------------------------------------------- */

/* With what the feeds of the test nets are at. */
static void swap_positions(struct sac_trainer *t, int64_t *positions)
{
    for (int i = 0; i < t->test_count; i++) {
        int64_t position = t->tests[i].position;
        t->tests[i].position = positions[i];
        positions[i] = position;
    }
}

/* Caffe asks before every batch of a test. A snapshot of here has the feeds where the tests
 * began, as who goes on from it makes them all. */
static int heed(struct sac_trainer *t, int index, int64_t *began, struct sac_error *err)
{
    enum sac_train_request request = sac_trainer_asked(t);
    int rc = 0;

    if (request == SAC_TRAIN_GO_ON)
        return 0;
    swap_positions(t, began);
    if (request == SAC_TRAIN_STOP) {
        t->stopped = true;
        sac_trainer_tell(t, (struct sac_train_event){.kind = SAC_TRAIN_CUT_SHORT, .test = index});
        return 0;
    }
    if (t->saved_at != t->iteration)
        rc = sac_trainer_save(t, err);
    swap_positions(t, began);
    return rc;
}

static int test_batch(struct sac_trainer *t, struct sac_phase_net *net, double *loss,
                      struct sac_error *err)
{
    double one = 0;
    int rc = sac_phase_net_forward(net, err);

    if (rc == 0) {
        sac_phase_net_ahead(net);
        rc = sac_plan_loss_sum(net->plan, &one, err);
    }
    if (rc == 0)
        rc = t->options.device->table->stream_sync(t->stream, err);
    if (rc == 0)
        rc = sac_phase_net_add_outputs(net, t->values, err);
    *loss += one;
    return rc;
}

static int test_one(struct sac_trainer *t, int index, int64_t *began, double *ret_metric,
                    double *ret_loss, struct sac_error *err)
{
    struct sac_phase_net *net = &t->tests[index];
    int rounds = t->message->test_iter[index], rc = 0;
    double loss = 0;

    sac_trainer_tell(t, (struct sac_train_event){.kind = SAC_TRAIN_TESTING, .test = index});
    sac_plan_weights_changed(net->plan);
    memset(t->values, 0, (size_t)net->value_count * sizeof *t->values);
    for (int i = 0; rc == 0 && i < rounds; i++) {
        rc = heed(t, index, began, err);
        if (rc != 0 || t->stopped)
            return rc;
        rc = test_batch(t, net, &loss, err);
    }
    if (rc != 0)
        return rc;
    int count = sac_trainer_show(t, net, 1.0 / rounds);
    if (t->metric.known && t->metric.test == index) {
        *ret_loss = loss / rounds;
        *ret_metric = t->metric.value < 0 ? *ret_loss : t->shown[t->metric.value].value;
    }
    sac_trainer_tell(t, (struct sac_train_event){.kind = SAC_TRAIN_TESTED,
                                                 .test = index,
                                                 .loss = loss / rounds,
                                                 .has_loss = t->message->test_compute_loss,
                                                 .values = t->shown,
                                                 .value_count = count});
    return 0;
}

int sac_trainer_test(struct sac_trainer *t, struct sac_error *err)
{
    int64_t began[SAC_TRAIN_TESTS_MAX];
    double metric = NAN, loss = NAN;
    int rc = 0;

    if (t->tested_at == t->iteration) /* before the snapshot that the run goes on from */
        return 0;
    for (int i = 0; i < t->test_count; i++)
        began[i] = t->tests[i].position;
    for (int i = 0; rc == 0 && !t->stopped && i < t->test_count; i++)
        rc = test_one(t, i, began, &metric, &loss, err);
    if (t->stopped)
        return rc;
    t->tested_at = t->iteration;
    /* What was not trained yet is not kept. */
    return rc == 0 && t->metric.known && t->iteration > 0 ? judge(t, metric, loss, err) : rc;
}
