#include "train/trainer_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/team.h"

enum { CLEAR_PIECE = 16 };

int sac_trainer_no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory");
}

void sac_trainer_tell(const struct sac_trainer *t, struct sac_train_event event)
{
    event.iteration = t->iteration;
    event.max_iter = t->message->max_iter;
    if (t->options.on_event)
        t->options.on_event(t->options.user, &event);
}

static int read_solver(struct sac_trainer *t, struct sac_error *err)
{
    int rc = sac_caffe_solver_load(&t->file, t->options.solver, err);

    if (rc != 0)
        return rc;
    t->message = t->file.solver;
    if (!t->message->has_max_iter || t->message->max_iter < 1)
        return sac_fail(err, SAC_EINVAL, "%s: max_iter is %s; expected at least 1",
                        t->options.solver, t->message->has_max_iter ? "not above 0" : "not set");
    rc = sac_solver_check(t->message, err);
    if (rc != 0)
        return rc;
    t->prefix = sac_snapshot_prefix(t->message->snapshot_prefix, t->options.solver);
    if (!t->prefix)
        return sac_trainer_no_memory(err);
    if (t->rank == 0)
        rc = sac_snapshot_check_prefix(t->prefix, err);
    return rc == 0 ? sac_loss_mean_init(&t->loss, t->message->average_loss, err) : rc;
}

static int prepare(struct sac_trainer *t, struct sac_error *err)
{
    int rc = sac_trainer_open_device(t, err);

    if (rc == 0)
        rc = read_solver(t, err);
    if (rc == 0)
        rc = sac_trainer_find_snapshot(t, err);
    if (rc == 0)
        rc = sac_trainer_choose_seed(t, err);
    sac_trainer_choose_threads(t);
    if (rc == 0)
        rc = sac_trainer_share_seed(t, err);
    if (rc == 0)
        rc = sac_trainer_open_train(t, err);
    if (rc == 0)
        rc = sac_trainer_open_tests(t, err);
    if (rc == 0)
        rc = sac_net_fill(t->train.net, t->seed, err);
    if (rc == 0)
        rc = sac_trainer_take_arrays(t, err);
    if (rc == 0)
        rc = sac_trainer_make_solver(t, err);
    if (rc == 0)
        rc = sac_trainer_make_view(t, err);
    if (rc == 0)
        rc = sac_trainer_load_start(t, err);
    if (rc == 0)
        rc = sac_trainer_make_plans(t, err);
    if (rc == 0)
        rc = sac_trainer_share_start(t, err);
    if (rc == 0)
        rc = sac_trainer_find_metric(t, err);
    return rc == 0 ? sac_trainer_prepare_out(t, err) : rc;
}

/* Rank 0 reads, tests, tells and writes. */
static void leave_to_rank_0(struct sac_trainer_options *o)
{
    o->weights = o->snapshot = o->out = o->metric = NULL;
    o->keep_best = false;
    o->keep_last = o->patience = 0;
    o->on_event = NULL;
}

int sac_trainer_new(struct sac_trainer **ret, const struct sac_trainer_options *options,
                    struct sac_error *err)
{
    struct sac_trainer *t = calloc(1, sizeof *t);
    int rc = t ? 0 : sac_trainer_no_memory(err);

    if (rc != 0)
        return rc;
    t->options = *options;
    t->options.keep_best |= options->patience > 0 || options->metric;
    t->rank = options->comm ? options->comm->rank : 0;
    t->world = options->comm ? options->comm->world : 1;
    if (t->rank > 0)
        leave_to_rank_0(&t->options);
    t->saved_at = t->tested_at = -1;
    rc = prepare(t, err);
    if (rc == 0) {
        *ret = t;
        return 0;
    }
    sac_trainer_free(t);
    return rc;
}

void sac_trainer_free(struct sac_trainer *t)
{
    if (!t)
        return;
    for (int i = t->test_count - 1; i >= 0; i--) {
        sac_phase_net_done(&t->tests[i]); /* before the plan whose memory theirs is */
        free(t->test_weight_at[i]);
    }
    sac_reducer_free(t->reducer);
    sac_phase_net_done(&t->train);
    sac_trainer_remote_free(t);
    sac_transfer_done(&t->transfer);
    if (t->stream)
        t->options.device->table->stream_free(t->stream);
    if (t->store)
        t->options.device->table->store_free(t->store);
    sac_solver_free(t->solver);
    sac_loss_mean_done(&t->loss);
    sac_snapshot_files_done(&t->from);
    json_decref(t->restored);
    sac_caffe_solver_done(&t->file);
    free(t->weights.layers);
    free(t->blobs);
    free(t->params);
    free(t->grads_memory);
    free(t->weight_at);
    free(t->grad_at);
    free(t->values);
    free(t->shown);
    free(t->prefix);
    free(t->out);
    sac_caffe_net_done(&t->deploy);
    sac_labels_done(&t->labels);
    free(t);
}

int sac_trainer_show(struct sac_trainer *t, const struct sac_phase_net *net, double share)
{
    for (int i = 0; i < net->output_count; i++) {
        const struct sac_phase_output *o = &net->outputs[i];
        for (int64_t k = 0; k < o->count; k++)
            t->shown[o->first + k] = (struct sac_train_value){
                .name = o->name, .value = t->values[o->first + k] * share, .weight = o->weight};
    }
    return (int)net->value_count;
}

/* What dropout draws from: one number a pass. */
static uint64_t pass_of(const struct sac_trainer *t, int pass)
{
    return (uint64_t)t->iteration * (uint64_t)sac_solver_iter_size(t->solver) + (uint64_t)pass;
}

/* Ranks drop out elements of their own. */
static uint64_t seed_of(const struct sac_trainer *t)
{
    return t->seed + (uint64_t)t->rank * 0x9e3779b97f4a7c15;
}

static int forward(struct sac_trainer *t, int pass, double *ret_loss, struct sac_error *err)
{
    sac_plan_set_random(t->train.plan, seed_of(t), pass_of(t, pass));
    int rc = sac_phase_net_forward(&t->train, err);
    if (rc == 0)
        rc = sac_plan_loss_sum(t->train.plan, ret_loss, err);
    return rc == 0 ? sac_trainer_check_loss(t, *ret_loss, err) : rc;
}

/* Of the last pass, as Caffe shows them; the way back may use their memory. */
static int keep_outputs(struct sac_trainer *t, struct sac_error *err)
{
    memset(t->values, 0, (size_t)t->train.value_count * sizeof *t->values);
    return sac_phase_net_add_outputs(&t->train, t->values, err);
}

static void clear_part(void *context, int64_t first, int64_t end)
{
    memset((float *)context + first * CLEAR_PIECE, 0,
           (size_t)((end - first) * CLEAR_PIECE) * sizeof(float));
}

/* The arrays end behind a whole piece. */
int sac_trainer_begin(struct sac_trainer *t, struct sac_error *err)
{
    if (t->remote)
        return sac_trainer_remote_begin(t, err);
    sac_team_run(t->threads, (int64_t)t->total / CLEAR_PIECE, clear_part, t->grads);
    return 0;
}

int sac_trainer_again(struct sac_trainer *t, struct sac_error *err)
{
    int rc = sac_trainer_begin(t, err);

    if (rc == 0)
        rc = sac_phase_net_give(&t->train, t->train.plan, err);
    if (rc == 0)
        rc = sac_plan_forward(t->train.plan, err);
    if (rc == 0)
        rc = sac_plan_backward(t->train.plan, err);
    return rc == 0 ? t->options.device->table->stream_sync(t->stream, err) : rc;
}

/* Summed over the ranks, finite, and on a device with their norm. */
static int take_gradients(struct sac_trainer *t, struct sac_error *err)
{
    int rc = t->reducer ? sac_reducer_end(t->reducer, err) : 0;

    if (rc == 0)
        rc = t->options.device->table->stream_sync(t->stream, err);
    if (rc == 0 && t->remote)
        return sac_trainer_remote_check(t, err);
    if (rc == 0 && t->reducer)
        rc = sac_trainer_hear(t, err);
    return rc == 0 && t->head[SAC_HEAD_VOID] == 0 ? sac_trainer_check_gradients(t, err) : rc;
}

static int forward_backward(struct sac_trainer *t, double *ret_loss, struct sac_error *err)
{
    int passes = sac_solver_iter_size(t->solver), rc = sac_trainer_begin(t, err);
    double sum = 0;

    sac_plan_weights_changed(t->train.plan);
    for (int i = 0; rc == 0 && i < passes; i++) {
        double loss = 0;
        rc = forward(t, i, &loss, err);
        if (rc == 0)
            rc = keep_outputs(t, err);
        sum += loss;
        if (rc == 0 && t->reducer && i == passes - 1)
            rc = sac_trainer_offer(t, sum, err);
        if (rc == 0)
            rc = sac_plan_backward(t->train.plan, err);
        if (rc == 0)
            sac_phase_net_ahead(&t->train);
    }
    if (rc == 0)
        rc = take_gradients(t, err);
    if (t->reducer)
        sum = (double)t->head[SAC_HEAD_LOSS] / t->world;
    *ret_loss = sum / passes;
    return rc;
}

static void display(struct sac_trainer *t)
{
    uint64_t now = sac_clock_ns();

    int count = sac_trainer_show(t, &t->train, 1);
    sac_trainer_tell(t, (struct sac_train_event){
                            .kind = SAC_TRAIN_DISPLAY,
                            .loss = t->loss.mean,
                            .rate = sac_rate_at(sac_solver_rate(t->solver), t->iteration),
                            .seconds = (double)(now - t->display_ns) / 1e9,
                            .iterations = t->iteration - t->display_iteration,
                            .display = t->message->display,
                            .values = t->shown,
                            .value_count = count,
                        });
    t->display_ns = now;
    t->display_iteration = t->iteration;
}

enum sac_train_request sac_trainer_asked(const struct sac_trainer *t)
{
    return t->options.request ? t->options.request(t->options.user) : SAC_TRAIN_GO_ON;
}

static bool falls_on(int64_t iteration, int interval)
{
    return interval > 0 && iteration % interval == 0;
}

static int step(struct sac_trainer *t, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    double loss = 0;
    int rc = 0;

    if (falls_on(t->iteration, m->test_interval) && (t->iteration > 0 || m->test_initialization))
        rc = sac_trainer_test(t, err);
    if (rc == 0 && t->stopped && t->reducer)
        rc = sac_trainer_leave(t, err);
    if (rc != 0 || t->stopped)
        return rc;
    rc = forward_backward(t, &loss, err);
    t->stopped = t->head[SAC_HEAD_VOID] > 0;
    if (rc != 0 || t->stopped)
        return rc;
    sac_loss_mean_add(&t->loss, loss);
    if (falls_on(t->iteration, m->display))
        display(t);
    if (t->remote)
        rc = sac_trainer_remote_update(t, err);
    else
        sac_solver_update(t->solver, t->params, t->grads, t->iteration);
    if (rc != 0)
        return rc;
    t->iteration++;
    sac_trainer_tell(t, (struct sac_train_event){
                            .kind = SAC_TRAIN_STEP,
                            .loss = t->loss.mean,
                            .rate = sac_rate_at(sac_solver_rate(t->solver), t->iteration - 1)});
    enum sac_train_request request = t->reducer ? sac_trainer_agreed(t) : sac_trainer_asked(t);
    if (t->rank == 0 && (falls_on(t->iteration, m->snapshot) || request == SAC_TRAIN_SNAPSHOT))
        rc = sac_trainer_save(t, err);
    t->stopped |= request == SAC_TRAIN_STOP;
    return rc;
}

/* Caffe takes one more batch for the last line, and tests once more. */
static int finish(struct sac_trainer *t, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    double loss = 0;
    int rc = 0;

    if (falls_on(t->iteration, m->display)) {
        sac_plan_weights_changed(t->train.plan);
        rc = forward(t, 0, &loss, err);
        if (rc == 0)
            sac_trainer_tell(t,
                             (struct sac_train_event){.kind = SAC_TRAIN_LAST_LOSS,
                                                      .loss = sac_loss_mean_add(&t->loss, loss)});
    }
    if (rc == 0 && falls_on(t->iteration, m->test_interval))
        rc = sac_trainer_test(t, err);
    return rc;
}

/* The first batch of a feed could not be made ahead, but was waited for. */
static void add_waits(struct sac_train_event *event, const struct sac_phase_net *net)
{
    for (int i = 0; i < net->feed_count; i++) {
        if (!net->feeds[i].feed)
            continue;
        struct sac_feed_stats stats = sac_feed_stats(net->feeds[i].feed);
        event->waited += (double)(stats.wait_ns + stats.first_wait_ns) / 1e9;
        event->corrupt += stats.corrupt;
    }
}

static void tell_end(struct sac_trainer *t)
{
    bool done = t->iteration >= t->message->max_iter;
    struct sac_train_event event = {
        .kind = done ? SAC_TRAIN_DONE : SAC_TRAIN_STOPPED,
        .seconds = (double)(sac_clock_ns() - t->start_ns) / 1e9,
    };
    const struct sac_trainer_best *b = &t->best;
    char text[160];

    add_waits(&event, &t->train);
    for (int i = 0; i < t->test_count; i++)
        add_waits(&event, &t->tests[i]);
    snprintf(text, sizeof text, "%d tests without a better %.40s than %g, of iteration %lld",
             b->since, t->metric.known ? t->metric.name : "", b->value, (long long)b->iteration);
    if (!done && t->options.patience > 0 && b->since >= t->options.patience)
        event.text = text;
    sac_trainer_tell(t, event);
}

static void tell_unheeded(const struct sac_trainer *t, const char *name, const char *why)
{
    sac_trainer_tell(
        t, (struct sac_train_event){.kind = SAC_TRAIN_UNHEEDED, .name = name, .text = why});
}

/* Fields that change no result, and that are not heeded. */
static void tell_what_is_unheeded(const struct sac_trainer *t)
{
    const Caffe__SolverParameter *m = t->message;
    bool on_host = t->options.device->info.host_memory;

    if (m->debug_info)
        tell_unheeded(t, "debug_info", "no layer's mean values are shown");
    if (m->snapshot_diff)
        tell_unheeded(t, "snapshot_diff", "snapshots hold no gradients");
    if (on_host && m->has_solver_mode &&
        m->solver_mode == CAFFE__SOLVER_PARAMETER__SOLVER_MODE__GPU)
        tell_unheeded(t, "solver_mode: GPU", "this runs on the CPU; --device cuda takes a GPU");
    if (!on_host && m->solver_mode == CAFFE__SOLVER_PARAMETER__SOLVER_MODE__CPU)
        tell_unheeded(t, "solver_mode: CPU", "--device says where this runs");
}

int sac_trainer_run(struct sac_trainer *t, struct sac_error *err)
{
    int rc = 0;

    sac_trainer_tell(t, (struct sac_train_event){.kind = SAC_TRAIN_START,
                                                 .name = sac_net_name(t->train.net),
                                                 .text = t->message->lr_policy});
    if (t->reducer)
        sac_trainer_tell_ranks(t);
    tell_what_is_unheeded(t);
    t->start_ns = t->display_ns = sac_clock_ns();
    t->display_iteration = t->iteration;
    while (rc == 0 && !t->stopped && t->iteration < t->message->max_iter)
        rc = step(t, err);
    if (rc != 0) {
        sac_error_prefix(err, "iteration %lld", (long long)t->iteration);
        return rc;
    }
    if (t->rank > 0)
        return 0;
    if (t->message->snapshot_after_train && t->saved_at != t->iteration)
        rc = sac_trainer_save(t, err);
    if (rc == 0 && !t->stopped)
        rc = finish(t, err);
    if (rc == 0)
        rc = sac_trainer_write_out(t, err);
    if (rc == 0)
        tell_end(t);
    return rc;
}
