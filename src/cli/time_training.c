#include "cli/time_training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli/measure.h"
#include "net/layer.h"
#include "net/plan.h"
#include "train/phase.h"
#include "train/solver.h"
#include "train/transfer.h"

enum { WARM = 2, ALIGN = 16 };

/* On a device with memory of its own: what stands there for the host's arrays. */
struct remote {
    float *params, *grads, *history;
    struct sac_update_chunk *chunks;
    size_t chunk_count;
    double *work, *norm; /* the device's; staging */
};

struct run {
    const struct sac_time_training *options;
    struct sac_phase_net phase; /* fed; else of it the net and the plan alone */
    bool fed;                   /* from a source; else by zeros */
    struct sac_store *store;
    struct sac_stream *stream;
    struct sac_transfer transfer;
    /* Every parameter, one behind the other. */
    float *params, *grads;
    size_t total;
    struct remote remote;
    float **weight_at, **grad_at;
    Caffe__SolverParameter message;
    struct sac_solver *solver;
    /* Milliseconds: steps × iterations, and iterations. */
    double *forward_ms, *backward_ms;
    double *whole_ms[3]; /* forward, backward, update */
};

enum { FORWARD, BACKWARD, UPDATE };

static int no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory");
}

/* ---- Opening --------------------------------------------------------------- */

/* Whether a layer of the TRAIN phase reads a source of its own. */
static int reads_source(const Caffe__NetParameter *net, bool *ret, struct sac_error *err)
{
    static const char *const types[] = {"Data", "ImageData", "HDF5Data"};
    const struct sac_net_options train = {.phase = SAC_PHASE_TRAIN};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < net->n_layer; i++) {
        const Caffe__LayerParameter *layer = net->layer[i];
        bool included = false;
        rc = sac_layer_included(layer, net->state, &train, &included, err);
        for (size_t k = 0; included && k < sizeof types / sizeof *types; k++)
            *ret |= layer->type && strcmp(layer->type, types[k]) == 0;
    }
    return rc;
}

static int find_feed(struct run *run, struct sac_error *err)
{
    struct sac_caffe_net file = {0};
    int rc = 0;

    run->fed = run->options->data != NULL;
    if (run->fed)
        return 0;
    rc = sac_caffe_net_load(&file, run->options->net, err);
    if (rc == 0)
        rc = reads_source(file.net, &run->fed, err);
    sac_caffe_net_done(&file);
    return rc;
}

static int open_net(struct run *run, struct sac_error *err)
{
    const struct sac_time_training *o = run->options;
    const struct sac_net_options plain = {.phase = SAC_PHASE_TRAIN};
    const struct sac_phase_options fed = {.phase = SAC_PHASE_TRAIN,
                                          .path = o->net,
                                          .source = o->data,
                                          .mean_file = o->mean,
                                          .batch = o->batch,
                                          .seed = 1};
    int rc = find_feed(run, err);

    if (rc != 0)
        return rc;
    if (!run->fed)
        return sac_net_load(&run->phase.net, o->net, &plain, err);
    rc = sac_phase_net_open(&run->phase, &fed, err);
    if (rc != 0 && !o->data)
        sac_error_prefix(err, "the net's own data cannot be read (--data and --mean name other)");
    return rc;
}

static size_t room_of(const struct sac_net_param *param)
{
    return ((size_t)param->count + ALIGN - 1) / ALIGN * ALIGN;
}

static int take_arrays(struct run *run, struct sac_error *err)
{
    const struct sac_net *net = run->phase.net;
    int count = sac_net_param_count(net);
    size_t at = 0;

    for (int i = 0; i < count; i++) {
        struct sac_net_param param;
        sac_net_param(net, i, &param);
        run->total += room_of(&param);
    }
    run->params = calloc(run->total + 1, sizeof *run->params);
    run->grads = calloc(run->total + 1, sizeof *run->grads);
    run->weight_at = calloc((size_t)count + 1, sizeof *run->weight_at);
    run->grad_at = calloc((size_t)count + 1, sizeof *run->grad_at);
    if (!run->params || !run->grads || !run->weight_at || !run->grad_at)
        return no_memory(err);
    for (int i = 0; i < count; i++) {
        struct sac_net_param param;
        sac_net_param(net, i, &param);
        memcpy(run->params + at, param.data, (size_t)param.count * sizeof *param.data);
        run->weight_at[i] = run->params + at;
        run->grad_at[i] = param.lr_mult != 0 ? run->grads + at : NULL;
        at += room_of(&param);
    }
    return 0;
}

/* SGD with momentum and decay, as most solvers have it, and a rate that changes little. */
static int make_solver(struct run *run, struct sac_error *err)
{
    int count = sac_net_param_count(run->phase.net);
    struct sac_solver_segment *segments = calloc((size_t)count + 1, sizeof *segments);

    if (!segments)
        return no_memory(err);
    for (int i = 0; i < count; i++) {
        struct sac_net_param param;
        sac_net_param(run->phase.net, i, &param);
        segments[i] =
            (struct sac_solver_segment){.name = param.name,
                                        .shape = param.shape,
                                        .offset = (size_t)(run->weight_at[i] - run->params),
                                        .lr_mult = param.lr_mult,
                                        .decay_mult = param.decay_mult};
    }
    caffe__solver_parameter__init(&run->message);
    run->message.has_base_lr = run->message.has_momentum = run->message.has_weight_decay = 1;
    run->message.base_lr = 1e-9f;
    run->message.momentum = .9f;
    run->message.weight_decay = 5e-4f;
    run->message.lr_policy = (char *)"fixed";
    int rc = sac_solver_new(&run->solver, &run->message, segments, count, run->total, err);
    free(segments);
    return rc;
}

/* ---- A device with memory of its own ----------------------------------------- */

static bool is_remote(const struct run *run)
{
    return !run->options->device->info.host_memory;
}

static int open_device(struct run *run, struct sac_error *err)
{
    struct sac_device *device = run->options->device;
    int rc = device->table->store_new(device, &run->store, err);

    if (rc == 0)
        rc = device->table->stream_new(device, &run->stream, err);
    return rc == 0 ? sac_transfer_open(&run->transfer, device, run->stream, err) : rc;
}

static int take_memory(struct run *run, struct remote *r, struct sac_error *err)
{
    struct sac_device *device = run->options->device;
    const struct {
        void **to;
        size_t bytes;
        enum sac_memory kind;
    } wanted[] = {
        {(void **)&r->params, run->total * sizeof(float), SAC_MEMORY_DEVICE},
        {(void **)&r->grads, run->total * sizeof(float), SAC_MEMORY_DEVICE},
        {(void **)&r->history, run->total * sizeof(float), SAC_MEMORY_DEVICE},
        {(void **)&r->chunks, r->chunk_count * sizeof *r->chunks, SAC_MEMORY_DEVICE},
        {(void **)&r->work, SAC_SUM_DOUBLES * sizeof(double), SAC_MEMORY_DEVICE},
        {(void **)&r->norm, sizeof(double), SAC_MEMORY_STAGING},
    };
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof wanted / sizeof *wanted; i++)
        rc = device->table->memory_new(device, wanted[i].kind, wanted[i].bytes + 1, wanted[i].to,
                                       err);
    return rc;
}

static void free_memory(struct run *run)
{
    struct sac_device *device = run->options->device;
    const struct remote *r = &run->remote;
    void *memory[] = {r->params, r->grads, r->history, r->chunks, r->work};

    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i])
            device->table->memory_free(device, SAC_MEMORY_DEVICE, memory[i]);
    if (r->norm)
        device->table->memory_free(device, SAC_MEMORY_STAGING, r->norm);
}

static int send_chunks(struct run *run, struct remote *r, struct sac_error *err)
{
    struct sac_update_chunk *chunks = calloc(r->chunk_count + 1, sizeof *chunks);

    if (!chunks)
        return no_memory(err);
    sac_solver_device_chunks(run->solver, chunks);
    int rc =
        sac_transfer_in(&run->transfer, r->chunks, chunks, r->chunk_count * sizeof *chunks, err);
    free(chunks);
    return rc;
}

/* What the host's arrays hold, and the plan's pointers into them, to the device. */
static int send_arrays(struct run *run, struct sac_error *err)
{
    const struct sac_device_table *table = run->options->device->table;
    size_t bytes = run->total * sizeof(float);
    struct remote *r = &run->remote;

    if (!is_remote(run))
        return 0;
    r->chunk_count = sac_solver_device_chunks(run->solver, NULL);
    int rc = take_memory(run, r, err);
    if (rc == 0)
        rc = send_chunks(run, r, err);
    if (rc == 0)
        rc = sac_transfer_in(&run->transfer, r->params, run->params, bytes, err);
    if (rc == 0)
        rc = table->clear(run->stream, r->grads, bytes, err);
    if (rc == 0)
        rc = table->clear(run->stream, r->history, bytes, err);
    for (int i = 0; rc == 0 && i < sac_net_param_count(run->phase.net); i++) {
        run->weight_at[i] = r->params + (run->weight_at[i] - run->params);
        if (run->grad_at[i])
            run->grad_at[i] = r->grads + (run->grad_at[i] - run->grads);
    }
    return rc;
}

static int clear(struct run *run, void *memory, size_t bytes, struct sac_error *err)
{
    if (is_remote(run))
        return run->options->device->table->clear(run->stream, memory, bytes, err);
    memset(memory, 0, bytes);
    return 0;
}

/* As the trainer does it: the gradients' norm comes to the host before they are used. */
static int update_remote(struct run *run, int iteration, struct sac_error *err)
{
    const struct sac_device_table *table = run->options->device->table;
    struct remote *r = &run->remote;
    int rc = table->sum_of_squares(run->stream, r->grads, run->total, r->work, err);

    if (rc == 0)
        rc = table->copy(run->stream, SAC_COPY_TO_HOST, r->norm, r->work, sizeof *r->norm, err);
    if (rc == 0)
        rc = table->stream_sync(run->stream, err);
    if (rc != 0)
        return rc;
    struct sac_solver_step step = sac_solver_begin_norm(run->solver, sqrt(*r->norm), iteration);
    struct sac_update update = sac_solver_device_update(run->solver, &step);
    update.chunks = r->chunks;
    update.chunk_count = r->chunk_count;
    update.g = r->grads;
    update.w = r->params;
    update.h = r->history;
    return table->update(run->stream, &update, err);
}

/* ---- The plan ---------------------------------------------------------------- */

static int make_plan(struct run *run, struct sac_error *err)
{
    const struct sac_time_training *o = run->options;
    struct sac_plan_options how = {.batch = run->fed ? 0 : o->batch,
                                   .ops = o->ops,
                                   .weights = run->weight_at,
                                   .weight_grads = run->grad_at};
    int rc;

    how.ops.training = true;
    if (run->fed)
        rc = sac_phase_net_plan(&run->phase, o->device, run->store, run->stream, &how, err);
    else
        rc = sac_plan_new(&run->phase.plan, run->phase.net, o->device, run->store, run->stream,
                          &how, err);
    if (rc == 0 && sac_plan_loss_count(run->phase.plan) == 0)
        rc = sac_fail(err, SAC_EINVAL, "%s: no loss to go back from; expected a train_val prototxt",
                      o->net);
    return rc;
}

static int take_samples(struct run *run, struct sac_error *err)
{
    size_t n = (size_t)run->options->iterations;
    size_t steps = (size_t)sac_plan_step_count(run->phase.plan);

    run->forward_ms = calloc(steps * n + 1, sizeof(double));
    run->backward_ms = calloc(steps * n + 1, sizeof(double));
    bool good = run->forward_ms && run->backward_ms;
    for (int i = 0; i < 3; i++) {
        run->whole_ms[i] = calloc(n, sizeof(double));
        good &= run->whole_ms[i] != NULL;
    }
    return good ? 0 : no_memory(err);
}

static int prepare(struct run *run, struct sac_error *err)
{
    int rc = open_net(run, err);

    if (rc == 0)
        rc = sac_net_fill(run->phase.net, 1, err);
    if (rc == 0)
        rc = take_arrays(run, err);
    if (rc == 0)
        rc = make_solver(run, err);
    if (rc == 0)
        rc = open_device(run, err);
    if (rc == 0)
        rc = send_arrays(run, err);
    if (rc == 0)
        rc = make_plan(run, err);
    return rc == 0 ? take_samples(run, err) : rc;
}

static void run_done(struct run *run)
{
    const struct sac_device_table *table = run->options->device->table;

    sac_phase_net_done(&run->phase);
    free_memory(run);
    sac_transfer_done(&run->transfer);
    if (run->stream)
        table->stream_free(run->stream);
    if (run->store)
        table->store_free(run->store);
    sac_solver_free(run->solver);
    free(run->params);
    free(run->grads);
    free(run->weight_at);
    free(run->grad_at);
    free(run->forward_ms);
    free(run->backward_ms);
    for (int i = 0; i < 3; i++)
        free(run->whole_ms[i]);
}

/* ---- Timing ---------------------------------------------------------------- */

static double since(uint64_t began_ns)
{
    return (double)(sac_clock_ns() - began_ns) / 1e6;
}

static int synced(struct run *run, int rc, struct sac_error *err)
{
    return rc == 0 ? run->options->device->table->stream_sync(run->stream, err) : rc;
}

/* Outside of what is timed: a pass may use its inputs' memory once they are done with. */
static int fill_inputs(struct run *run, struct sac_error *err)
{
    if (run->fed)
        return sac_phase_net_take(&run->phase, err);
    int rc = 0;
    for (int i = 0; rc == 0 && i < sac_plan_input_count(run->phase.plan); i++) {
        const struct sac_tensor *to = sac_plan_input(run->phase.plan, i);
        rc = clear(run, to->data, sac_tensor_bytes(&to->shape, SAC_F32), err);
    }
    return synced(run, rc, err);
}

/* Operation by operation, so that each is waited for. */
static int time_steps(struct run *run, int iteration, struct sac_error *err)
{
    int steps = sac_plan_step_count(run->phase.plan), n = run->options->iterations;
    int rc = fill_inputs(run, err);

    for (int i = 0; rc == 0 && i < steps; i++) {
        uint64_t began_ns = sac_clock_ns();
        rc = synced(run, sac_plan_forward_step(run->phase.plan, i, err), err);
        run->forward_ms[i * n + iteration] = since(began_ns);
    }
    for (int i = steps - 1; rc == 0 && i >= 0; i--) {
        uint64_t began_ns = sac_clock_ns();
        rc = synced(run, sac_plan_backward_step(run->phase.plan, i, err), err);
        run->backward_ms[i * n + iteration] = since(began_ns);
    }
    return rc;
}

/* As training goes: packed copies of the weights are made again. */
static int time_whole(struct run *run, int iteration, struct sac_error *err)
{
    int rc = fill_inputs(run, err);
    uint64_t began_ns = sac_clock_ns();

    sac_plan_weights_changed(run->phase.plan);
    if (rc == 0)
        rc = synced(run, sac_plan_forward(run->phase.plan, err), err);
    run->whole_ms[FORWARD][iteration] = since(began_ns);
    began_ns = sac_clock_ns();
    if (rc == 0)
        rc = clear(run, is_remote(run) ? run->remote.grads : run->grads,
                   run->total * sizeof *run->grads, err);
    if (rc == 0)
        rc = synced(run, sac_plan_backward(run->phase.plan, err), err);
    run->whole_ms[BACKWARD][iteration] = since(began_ns);
    began_ns = sac_clock_ns();
    if (rc == 0 && is_remote(run))
        rc = synced(run, update_remote(run, iteration, err), err);
    else if (rc == 0)
        sac_solver_update(run->solver, run->params, run->grads, iteration);
    run->whole_ms[UPDATE][iteration] = since(began_ns);
    return rc;
}

static int time_all(struct run *run, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < WARM; i++)
        rc = time_whole(run, 0, err);
    for (int i = 0; rc == 0 && i < run->options->iterations; i++) {
        rc = time_steps(run, i, err);
        if (rc == 0)
            rc = time_whole(run, i, err);
    }
    return rc;
}

/* ---- The report ------------------------------------------------------------ */

static void put_step(struct sac_buf *out, const struct sac_plan_step *step, double forward,
                     double backward, bool json)
{
    char shape[SAC_SHAPE_TEXT];

    sac_shape_text(&step->out, shape, sizeof shape);
    if (!json) {
        sac_buf_printf(out, "%9.4f %9.4f  %-14s %-22s %-22s %s\n", forward, backward,
                       sac_op_kind_name(step->kind), shape, step->kernel, step->name);
        return;
    }
    sac_buf_puts(out, "{\"name\":");
    sac_buf_put_json(out, step->name, strlen(step->name));
    sac_buf_printf(out, ",\"op\":\"%s\",\"kernel\":", sac_op_kind_name(step->kind));
    sac_buf_put_json(out, step->kernel, strlen(step->kernel));
    sac_buf_printf(out, ",\"forward_ms\":%.6f,\"backward_ms\":%.6f}", forward, backward);
}

static void put_whole(struct sac_buf *out, struct run *run)
{
    size_t n = (size_t)run->options->iterations;
    int batch = sac_plan_batch(run->phase.plan);
    double ms[3], sum = 0;

    for (int i = 0; i < 3; i++) {
        ms[i] = sac_median(run->whole_ms[i], n);
        sum += ms[i];
    }
    if (run->options->json)
        sac_buf_printf(out,
                       "],\"batch\":%d,\"forward_ms\":%.6f,\"backward_ms\":%.6f,"
                       "\"update_ms\":%.6f,\"pictures_per_second\":%.3f,\"memory_bytes\":%zu}\n",
                       batch, ms[FORWARD], ms[BACKWARD], ms[UPDATE], batch * 1e3 / sum,
                       sac_plan_memory_bytes(run->phase.plan));
    else
        sac_buf_printf(out,
                       "whole: forward %.3f ms, backward %.3f ms, update %.3f ms for a batch of "
                       "%d (medians of %zu); %.1f pictures a second, %.1f MB of activations\n",
                       ms[FORWARD], ms[BACKWARD], ms[UPDATE], batch, n, batch * 1e3 / sum,
                       (double)sac_plan_memory_bytes(run->phase.plan) / 1e6);
}

static int report(struct run *run, struct sac_error *err)
{
    size_t n = (size_t)run->options->iterations;
    bool json = run->options->json;
    struct sac_buf out = {0};
    int rc = 0;

    sac_buf_puts(&out, json ? "{\"steps\":["
                            : "  forward  backward  op             result                 kernel "
                              "                layers\n");
    for (int i = 0; i < sac_plan_step_count(run->phase.plan); i++) {
        struct sac_plan_step step;
        sac_plan_step(run->phase.plan, i, &step);
        sac_buf_puts(&out, json && i ? "," : "");
        put_step(&out, &step, sac_median(run->forward_ms + (size_t)i * n, n),
                 sac_median(run->backward_ms + (size_t)i * n, n), json);
    }
    put_whole(&out, run);
    if (out.failed)
        rc = no_memory(err);
    else
        fwrite(out.data, 1, out.len, stdout);
    sac_buf_done(&out);
    return rc;
}

int sac_time_training(const struct sac_time_training *options, struct sac_error *err)
{
    struct run run = {.options = options};
    int rc = prepare(&run, err);

    if (rc == 0)
        rc = time_all(&run, err);
    if (rc == 0)
        rc = report(&run, err);
    run_done(&run);
    return rc;
}
