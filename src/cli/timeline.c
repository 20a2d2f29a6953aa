#include "cli/timeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "net/plan.h"
#include "ranks/reducer.h"
#include "ranks/stamps.h"
#include "ranks/thread.h"
#include "train/buckets.h"
#include "train/transfer.h"

enum { WARM = 2, ALIGN = 16, COLUMNS = 48 };

/* When one step's parts were done: its start, forward, each step back, everything. */
struct record {
    uint64_t began_ns, forward_ns, end_ns;
    uint64_t *back_ns;
    struct sac_reducer_span *spans;
};

struct timeline;

struct rank {
    struct timeline *timeline;
    int index;
    struct sac_device *device;
    struct sac_comm *comm, *neighbours; /* on the CPU they are one */
    struct sac_net *net;
    struct sac_stream *stream;
    struct sac_store *store;
    struct sac_transfer transfer;
    float *params, *grads; /* the device's */
    size_t total, *at;
    float **weight_at, **grad_at;
    struct sac_plan *plan;
    struct sac_reducer *reducer;
    struct sac_stamps *stamps;
    struct record *now; /* of the pass under way */
    pthread_t thread;
    struct sac_error err;
    int rc;
};

struct timeline {
    const struct sac_timeline *options;
    unsigned char id[SAC_COMM_ID];
    struct rank ranks[SAC_GROUP_MAX];
    struct record *records; /* of rank 0, one an iteration */
    pthread_mutex_t lock;   /* guards the ranks' comm */
};

static int no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory");
}

/* ---- One rank ---------------------------------------------------------------- */

static int find_places(struct rank *r, struct sac_error *err)
{
    int count = sac_net_param_count(r->net);

    r->at = calloc((size_t)count + 1, sizeof *r->at);
    r->weight_at = calloc((size_t)count + 1, sizeof *r->weight_at);
    r->grad_at = calloc((size_t)count + 1, sizeof *r->grad_at);
    if (!r->at || !r->weight_at || !r->grad_at)
        return no_memory(err);
    for (int i = 0; i < count; i++) {
        struct sac_net_param param;
        sac_net_param(r->net, i, &param);
        r->at[i] = r->total;
        r->total += ((size_t)param.count + ALIGN - 1) / ALIGN * ALIGN;
    }
    r->at[count] = r->total;
    return 0;
}

static int take_arrays(struct rank *r, struct sac_error *err)
{
    size_t bytes = (r->total + 1) * sizeof(float);
    int rc =
        r->device->table->memory_new(r->device, SAC_MEMORY_DEVICE, bytes, (void **)&r->params, err);

    if (rc == 0)
        rc = r->device->table->memory_new(r->device, SAC_MEMORY_DEVICE, bytes, (void **)&r->grads,
                                          err);
    for (int i = 0; rc == 0 && i < sac_net_param_count(r->net); i++) {
        struct sac_net_param param;
        sac_net_param(r->net, i, &param);
        r->weight_at[i] = r->params + r->at[i];
        r->grad_at[i] = param.lr_mult != 0 ? r->grads + r->at[i] : NULL;
        rc = sac_transfer_in(&r->transfer, r->weight_at[i], param.data,
                             (size_t)param.count * sizeof(float), err);
    }
    return rc;
}

static int open_net(struct rank *r, struct sac_error *err)
{
    const struct sac_net_options how = {.phase = SAC_PHASE_TRAIN};
    int rc = sac_net_load(&r->net, r->timeline->options->net, &how, err);

    if (rc == 0)
        rc = sac_net_fill(r->net, 1, err);
    if (rc == 0)
        rc = r->device->table->stream_new(r->device, &r->stream, err);
    if (rc == 0)
        rc = r->device->table->store_new(r->device, &r->store, err);
    if (rc == 0)
        rc = sac_transfer_open(&r->transfer, r->device, r->stream, err);
    if (rc == 0)
        rc = find_places(r, err);
    return rc == 0 ? take_arrays(r, err) : rc;
}

static int after_step(void *user, int step, struct sac_error *err)
{
    struct rank *r = user;
    int rc = r->now ? sac_stamps_add(r->stamps, &r->now->back_ns[step], err) : 0;

    return rc == 0 ? sac_reducer_step(r->reducer, step, err) : rc;
}

static int make_reducer(struct rank *r, struct sac_error *err)
{
    struct sac_reducer_options how = {.comm = r->comm,
                                      .device = r->device,
                                      .stream = r->stream,
                                      .values = r->grads,
                                      .timed = r->index == 0};
    struct sac_bucket *buckets = NULL;
    int rc = sac_buckets_cut(&buckets, &how.bucket_count, r->plan, r->at,
                             sac_net_param_count(r->net), r->timeline->options->bucket_bytes, err);

    how.buckets = buckets;
    if (rc == 0)
        rc = sac_reducer_new(&r->reducer, &how, err);
    free(buckets);
    return rc;
}

static int make_plan(struct rank *r, struct sac_error *err)
{
    const struct sac_timeline *o = r->timeline->options;
    struct sac_plan_options how = {
        .batch = o->batch, .ops = o->ops, .weights = r->weight_at, .weight_grads = r->grad_at};
    int rc;

    how.ops.training = true;
    rc = sac_plan_new(&r->plan, r->net, r->device, r->store, r->stream, &how, err);
    if (rc == 0 && sac_plan_loss_count(r->plan) == 0)
        rc = sac_fail(err, SAC_EINVAL, "%s: no loss to go back from; expected a train_val prototxt",
                      o->net);
    if (rc == 0)
        rc = make_reducer(r, err);
    if (rc == 0)
        rc =
            sac_stamps_new(&r->stamps, r->device, r->stream, sac_plan_step_count(r->plan) + 3, err);
    if (rc == 0)
        sac_plan_set_hook(r->plan, (struct sac_plan_hook){after_step, r});
    return rc;
}

static int clear(struct rank *r, void *memory, size_t bytes, struct sac_error *err)
{
    if (!r->device->info.host_memory)
        return r->device->table->clear(r->stream, memory, bytes, err);
    memset(memory, 0, bytes);
    return 0;
}

static int clear_all(struct rank *r, struct sac_error *err)
{
    int rc = clear(r, r->grads, r->total * sizeof(float), err);

    for (int i = 0; rc == 0 && i < sac_plan_input_count(r->plan); i++) {
        const struct sac_tensor *to = sac_plan_input(r->plan, i);
        rc = clear(r, to->data, sac_tensor_bytes(&to->shape, SAC_F32), err);
    }
    return rc == 0 ? r->device->table->stream_sync(r->stream, err) : rc;
}

static int stamp(struct rank *r, uint64_t *to, struct sac_error *err)
{
    return r->now ? sac_stamps_add(r->stamps, to, err) : 0;
}

/* All begin together: behind a sum. */
static int step(struct rank *r, struct sac_error *err)
{
    struct record none = {0}, *to = r->now ? r->now : &none;
    int rc = clear_all(r, err);

    sac_plan_weights_changed(r->plan);
    if (rc == 0)
        rc = sac_comm_all_reduce(r->comm, r->stream, r->grads, ALIGN, err);
    if (rc == 0)
        rc = r->device->table->stream_sync(r->stream, err);
    if (rc == 0)
        rc = stamp(r, &to->began_ns, err);
    if (rc == 0)
        rc = sac_plan_forward(r->plan, err);
    if (rc == 0)
        rc = stamp(r, &to->forward_ns, err);
    sac_reducer_begin(r->reducer);
    if (rc == 0)
        rc = sac_plan_backward(r->plan, err);
    if (rc == 0)
        rc = sac_reducer_end(r->reducer, err);
    if (rc == 0)
        rc = stamp(r, &to->end_ns, err);
    if (rc == 0)
        rc = r->device->table->stream_sync(r->stream, err);
    return rc == 0 ? sac_comm_check(r->comm, err) : rc;
}

static int take_record(struct rank *r, struct record *to, struct sac_error *err)
{
    int buckets = sac_reducer_span_count(r->reducer), rc;

    to->back_ns = calloc((size_t)sac_plan_step_count(r->plan) + 1, sizeof *to->back_ns);
    to->spans = calloc((size_t)buckets + 1, sizeof *to->spans);
    if (!to->back_ns || !to->spans)
        return no_memory(err);
    r->now = to;
    rc = step(r, err);
    r->now = NULL;
    int waited = sac_stamps_wait(r->stamps, err);
    rc = rc ? rc : waited;
    for (int i = 0; i < buckets && rc == 0; i++)
        rc = sac_reducer_span(r->reducer, i, &to->spans[i], err);
    return rc;
}

static int run_steps(struct rank *r, struct sac_error *err)
{
    float none = 0;
    int rc = sac_comm_all_reduce(r->neighbours, NULL, &none, 1, err); /* all have their memory */

    for (int i = 0; rc == 0 && i < WARM; i++)
        rc = step(r, err);
    for (int i = 0; rc == 0 && i < r->timeline->options->iterations; i++)
        rc = r->index == 0 ? take_record(r, &r->timeline->records[i], err) : step(r, err);
    return rc;
}

static void rank_done(struct rank *r)
{
    const struct sac_device_table *table = r->device->table;

    sac_reducer_free(r->reducer);
    sac_stamps_free(r->stamps);
    sac_plan_free(r->plan);
    if (r->params)
        table->memory_free(r->device, SAC_MEMORY_DEVICE, r->params);
    if (r->grads)
        table->memory_free(r->device, SAC_MEMORY_DEVICE, r->grads);
    if (r->stream)
        table->stream_free(r->stream);
    if (r->store)
        table->store_free(r->store);
    sac_net_free(r->net);
    sac_transfer_done(&r->transfer);
    if (r->comm != r->neighbours)
        sac_comm_free(r->comm);
    sac_comm_free(r->neighbours);
    free(r->at);
    free(r->weight_at);
    free(r->grad_at);
}

static int join(struct rank *r, struct sac_error *err)
{
    struct timeline *t = r->timeline;
    struct sac_comm *comm = NULL;
    int rc;

    if (r->comm)
        return 0;
    const struct sac_comm_place place = {.id = t->id, .rank = r->index, .world = t->options->ranks};
    rc = r->device->table->comm_new(r->device, &place, &comm, err);
    pthread_mutex_lock(&t->lock);
    r->comm = comm;
    pthread_mutex_unlock(&t->lock);
    return rc;
}

static void end_all(struct timeline *t, const char *why)
{
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < t->options->ranks; i++) {
        if (t->ranks[i].comm)
            sac_comm_abort(t->ranks[i].comm, why);
        if (t->ranks[i].neighbours)
            sac_comm_abort(t->ranks[i].neighbours, why);
    }
    pthread_mutex_unlock(&t->lock);
}

static void *run_rank(void *argument)
{
    struct rank *r = argument;

    r->rc = join(r, &r->err);
    if (r->rc == 0)
        r->rc = open_net(r, &r->err);
    if (r->rc == 0)
        r->rc = make_plan(r, &r->err);
    if (r->rc == 0)
        r->rc = run_steps(r, &r->err);
    if (r->rc != 0)
        end_all(r->timeline, r->err.text);
    return NULL;
}

/* ---- The report -------------------------------------------------------------- */

struct report {
    struct sac_buf out;
    const struct record *record;
    bool json;
};

static double ms(const struct report *p, uint64_t ns)
{
    return (double)(int64_t)(ns - p->record->began_ns) / 1e6;
}

static void put_bar(struct report *p, uint64_t began_ns, uint64_t ended_ns, char mark)
{
    double whole = ms(p, p->record->end_ns);
    int from = (int)(COLUMNS * ms(p, began_ns) / whole);
    int to = (int)(COLUMNS * ms(p, ended_ns) / whole);
    from = from < 0 ? 0 : from >= COLUMNS ? COLUMNS - 1 : from;
    to = to >= COLUMNS ? COLUMNS - 1 : to;
    for (int i = 0; i < COLUMNS; i++)
        sac_buf_printf(&p->out, "%c", i == from || (i >= from && i <= to) ? mark : ' ');
}

static void put_line(struct report *p, const char *name, uint64_t began_ns, uint64_t ended_ns,
                     char mark)
{
    if (p->json) {
        sac_buf_puts(&p->out, "{\"name\":");
        sac_buf_put_json(&p->out, name, strlen(name));
        sac_buf_printf(&p->out, ",\"began_ms\":%.6f,\"ended_ms\":%.6f}", ms(p, began_ns),
                       ms(p, ended_ns));
        return;
    }
    sac_buf_printf(&p->out, "%9.3f %9.3f |", ms(p, began_ns), ms(p, ended_ns));
    put_bar(p, began_ns, ended_ns, mark);
    sac_buf_printf(&p->out, "| %s\n", name);
}

static void put_computing(struct report *p, const struct sac_plan *plan)
{
    int steps = sac_plan_step_count(plan);
    uint64_t before = p->record->forward_ns;

    sac_buf_puts(&p->out, p->json ? "\"computing\":[" : "    began     ended\n");
    put_line(p, "forward", p->record->began_ns, p->record->forward_ns, '#');
    for (int i = 0; i < steps; i++) {
        struct sac_plan_step step;
        char name[160];
        sac_plan_step(plan, steps - 1 - i, &step);
        snprintf(name, sizeof name, "back: %.150s", step.name);
        sac_buf_puts(&p->out, p->json ? "," : "");
        put_line(p, name, before, p->record->back_ns[i], '#');
        before = p->record->back_ns[i];
    }
    sac_buf_puts(&p->out, p->json ? "]," : "");
}

static void put_sums(struct report *p, int count)
{
    sac_buf_puts(&p->out, p->json ? "\"sums\":[" : "");
    for (int i = 0; i < count; i++) {
        const struct sac_reducer_span *s = &p->record->spans[i];
        char name[64];
        snprintf(name, sizeof name, "sum: bucket %d, %.3f MB", i,
                 (double)(s->bucket.end - s->bucket.first) * sizeof(float) / 1e6);
        sac_buf_puts(&p->out, p->json && i ? "," : "");
        put_line(p, name, s->began_ns, s->ended_ns, '=');
    }
    sac_buf_puts(&p->out, p->json ? "]," : "");
}

/* What lies before the end of the way back is hidden. */
static void put_whole(struct report *p, const struct timeline *t, int steps, int count)
{
    const struct record *r = p->record;
    uint64_t back_ns = steps > 0 ? r->back_ns[steps - 1] : r->forward_ns;
    double sums = 0, shown = 0;
    int hidden = 0;

    for (int i = 0; i < count; i++) {
        const struct sac_reducer_span *s = &r->spans[i];
        uint64_t from = s->began_ns > back_ns ? s->began_ns : back_ns;
        sums += (double)(s->ended_ns - s->began_ns) / 1e6;
        shown += s->ended_ns > from ? (double)(s->ended_ns - from) / 1e6 : 0;
        hidden += s->ended_ns <= back_ns;
    }
    if (p->json)
        sac_buf_printf(&p->out,
                       "\"ranks\":%d,\"by\":\"%s\",\"forward_ms\":%.6f,\"backward_ms\":%.6f,"
                       "\"step_ms\":%.6f,\"sums_ms\":%.6f,\"exposed_ms\":%.6f,\"hidden\":%d}\n",
                       t->options->ranks, t->ranks[0].comm->table->kind, ms(p, r->forward_ns),
                       ms(p, back_ns) - ms(p, r->forward_ns), ms(p, r->end_ns), sums, shown,
                       hidden);
    else
        sac_buf_printf(&p->out,
                       "%d ranks by %s, batch %d each: %.3f ms forward, %.3f ms back, %.3f ms of "
                       "sums, of which %.3f ms (%.1f %%) are hidden; %d of %d buckets wholly\n",
                       t->options->ranks, t->ranks[0].comm->table->kind,
                       sac_plan_batch(t->ranks[0].plan), ms(p, r->forward_ns),
                       ms(p, back_ns) - ms(p, r->forward_ns), sums, sums - shown,
                       sums > 0 ? 100 * (sums - shown) / sums : 100, hidden, count);
}

static int by_length(const void *a, const void *b)
{
    const struct record *left = a, *right = b;
    uint64_t l = left->end_ns - left->began_ns, r = right->end_ns - right->began_ns;

    return l < r ? -1 : l > r;
}

static int report(struct timeline *t, int buckets, struct sac_error *err)
{
    const struct sac_plan *plan = t->ranks[0].plan;
    int rc = 0;

    qsort(t->records, (size_t)t->options->iterations, sizeof *t->records, by_length);
    struct report p = {.record = &t->records[t->options->iterations / 2], .json = t->options->json};
    sac_buf_puts(&p.out, p.json ? "{" : "");
    put_computing(&p, plan);
    put_sums(&p, buckets);
    put_whole(&p, t, sac_plan_step_count(plan), buckets);
    if (p.out.failed)
        rc = no_memory(err);
    else
        fwrite(p.out.data, 1, p.out.len, stdout);
    sac_buf_done(&p.out);
    return rc;
}

/* ---- All ranks --------------------------------------------------------------- */

static int reach(struct timeline *t, struct sac_error *err)
{
    struct sac_device *first = t->options->devices[0];
    struct sac_comm *comms[SAC_GROUP_MAX];
    bool host = first->info.host_memory;
    int rc = sac_group_new(comms, t->options->ranks, err);

    for (int i = 0; rc == 0 && i < t->options->ranks; i++) {
        t->ranks[i].neighbours = comms[i];
        t->ranks[i].comm = host ? comms[i] : NULL;
    }
    if (rc != 0 || host)
        return rc;
    return first->table->comm_id
               ? first->table->comm_id(first, t->id, err)
               : sac_fail(err, SAC_EUNSUPPORTED, "device %s has no communicator", first->info.name);
}

static int run_all(struct timeline *t, struct sac_error *err)
{
    int started = 1, rc = 0;

    while (rc == 0 && started < t->options->ranks) {
        rc = sac_thread_start(&t->ranks[started].thread, run_rank, &t->ranks[started], err);
        started += rc == 0;
    }
    if (rc == 0)
        run_rank(&t->ranks[0]);
    else
        end_all(t, err->text);
    for (int i = 1; i < started; i++)
        pthread_join(t->ranks[i].thread, NULL);
    for (int i = 0; i < started && rc == 0; i++)
        if (t->ranks[i].rc != 0)
            rc = sac_fail(err, t->ranks[i].rc, "%s", t->ranks[i].err.text);
    return rc;
}

static void timeline_free(struct timeline *t)
{
    for (int i = 0; i < t->options->ranks; i++)
        rank_done(&t->ranks[i]);
    for (int i = 0; t->records && i < t->options->iterations; i++) {
        free(t->records[i].back_ns);
        free(t->records[i].spans);
    }
    pthread_mutex_destroy(&t->lock);
    free(t->records);
    free(t);
}

int sac_timeline(const struct sac_timeline *options, struct sac_error *err)
{
    struct timeline *t = calloc(1, sizeof *t);
    int rc;

    if (!t)
        return no_memory(err);
    t->options = options;
    pthread_mutex_init(&t->lock, NULL);
    for (int i = 0; i < options->ranks; i++)
        t->ranks[i] = (struct rank){.timeline = t, .index = i, .device = options->devices[i]};
    t->records = calloc((size_t)options->iterations, sizeof *t->records);
    rc = t->records ? reach(t, err) : no_memory(err);
    if (rc == 0)
        rc = run_all(t, err);
    if (rc == 0)
        rc = report(t, sac_reducer_span_count(t->ranks[0].reducer), err);
    timeline_free(t);
    return rc;
}
