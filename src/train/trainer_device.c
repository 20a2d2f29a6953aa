/*
 * Parameters, gradients and history in a device's own memory. The host's arrays are then
 * a mirror, which is fetched for snapshots and sentences; updates are the device's.
 *
 * fp16's gradients are scaled by a power of two, so that small ones are not lost: doubled
 * after so many updates, halved, and the update left out, where a gradient overflows.
 */
#include "train/trainer_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/transfer.h"

enum { SCALE_STEPS = 1000 }; /* unless somebody says otherwise, as the next */
static const float scale_first = 1024, scale_most = 16777216;

struct sac_trainer_remote {
    float *params, *grads, *history[2];
    float *grads_memory;          /* a head, and the gradients behind it */
    float **weight_at, **grad_at; /* one a parameter of the training net */
    float **own;                  /* of test nets: parameters that do not train */
    int own_count;
    struct sac_update_chunk *chunks;
    size_t chunk_count;
    double *work, *norm; /* the device's; staging */
    float *head;         /* staging */
    double sum;          /* of the gradients' squares, as they are scaled */
    bool stale;          /* the host's arrays are behind */
};

static struct sac_device *device_of(const struct sac_trainer *t)
{
    return t->options.device;
}

static int take(struct sac_trainer *t, size_t bytes, void *ret, struct sac_error *err)
{
    void *memory = NULL;
    int rc = device_of(t)->table->memory_new(device_of(t), SAC_MEMORY_DEVICE, bytes ? bytes : 1,
                                             &memory, err);

    memcpy(ret, &memory, sizeof memory);
    return rc;
}

static int send(struct sac_trainer *t, void *to, const void *from, size_t bytes,
                struct sac_error *err)
{
    return sac_transfer_in(&t->transfer, to, from, bytes, err);
}

static int take_arrays(struct sac_trainer *t, struct sac_trainer_remote *r, struct sac_error *err)
{
    size_t bytes = t->total * sizeof(float);
    int rc = take(t, bytes, &r->params, err);

    if (rc == 0)
        rc = take(t, bytes + sizeof t->head, &r->grads_memory, err);
    r->grads = r->grads_memory ? r->grads_memory + SAC_HEAD : NULL;
    for (int i = 0; rc == 0 && i < sac_solver_histories(t->solver); i++)
        rc = take(t, bytes, &r->history[i], err);
    if (rc == 0)
        rc = take(t, SAC_SUM_DOUBLES * sizeof(double), &r->work, err);
    if (rc == 0)
        rc = device_of(t)->table->memory_new(device_of(t), SAC_MEMORY_STAGING, sizeof(double),
                                             (void **)&r->norm, err);
    if (rc == 0)
        rc = device_of(t)->table->memory_new(device_of(t), SAC_MEMORY_STAGING, sizeof t->head,
                                             (void **)&r->head, err);
    return rc;
}

static int send_chunks(struct sac_trainer *t, struct sac_trainer_remote *r, struct sac_error *err)
{
    size_t count = sac_solver_device_chunks(t->solver, NULL), bytes = count * sizeof *r->chunks;
    struct sac_update_chunk *chunks = calloc(count + 1, sizeof *chunks);
    int rc = chunks ? take(t, bytes, &r->chunks, err) : sac_trainer_no_memory(err);

    r->chunk_count = count;
    if (rc == 0) {
        sac_solver_device_chunks(t->solver, chunks);
        rc = send(t, r->chunks, chunks, bytes, err);
    }
    free(chunks);
    return rc;
}

static int find_places(const struct sac_trainer *t, struct sac_trainer_remote *r,
                       struct sac_error *err)
{
    int count = sac_net_param_count(t->train.net);

    r->weight_at = calloc((size_t)count + 1, sizeof *r->weight_at);
    r->grad_at = calloc((size_t)count + 1, sizeof *r->grad_at);
    if (!r->weight_at || !r->grad_at)
        return sac_trainer_no_memory(err);
    for (int i = 0; i < count; i++) {
        r->weight_at[i] = r->params + (t->weight_at[i] - t->params);
        r->grad_at[i] = t->grad_at[i] ? r->grads + (t->grad_at[i] - t->grads) : NULL;
    }
    return 0;
}

static int send_all(struct sac_trainer *t, struct sac_trainer_remote *r, struct sac_error *err)
{
    size_t bytes = t->total * sizeof(float);
    int rc = send(t, r->params, t->params, bytes, err);

    for (int i = 0; rc == 0 && i < sac_solver_histories(t->solver); i++)
        rc = send(t, r->history[i], sac_solver_history_flat(t->solver, i), bytes, err);
    return rc;
}

int sac_trainer_remote_open(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_trainer_remote *r;
    int rc;

    if (device_of(t)->info.host_memory)
        return 0;
    r = t->remote = calloc(1, sizeof *r);
    if (!r)
        return sac_trainer_no_memory(err);
    rc = take_arrays(t, r, err);
    if (rc == 0)
        rc = send_chunks(t, r, err);
    if (rc == 0)
        rc = find_places(t, r, err);
    return rc == 0 ? send_all(t, r, err) : rc;
}

void sac_trainer_remote_free(struct sac_trainer *t)
{
    struct sac_trainer_remote *r = t->remote;

    if (!r)
        return;
    void *memory[] = {r->params, r->grads_memory, r->history[0], r->history[1], r->chunks, r->work};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i])
            device_of(t)->table->memory_free(device_of(t), SAC_MEMORY_DEVICE, memory[i]);
    for (int i = 0; i < r->own_count; i++)
        device_of(t)->table->memory_free(device_of(t), SAC_MEMORY_DEVICE, r->own[i]);
    if (r->norm)
        device_of(t)->table->memory_free(device_of(t), SAC_MEMORY_STAGING, r->norm);
    if (r->head)
        device_of(t)->table->memory_free(device_of(t), SAC_MEMORY_STAGING, r->head);
    free(r->own);
    free(r->weight_at);
    free(r->grad_at);
    free(r);
    t->remote = NULL;
}

float *const *sac_trainer_plan_weights(const struct sac_trainer *t)
{
    return t->remote ? t->remote->weight_at : t->weight_at;
}

float *sac_trainer_remote_params(const struct sac_trainer *t)
{
    return t->remote->params;
}

float *sac_trainer_remote_history(const struct sac_trainer *t, int index)
{
    return t->remote->history[index];
}

float *sac_trainer_remote_head(const struct sac_trainer *t)
{
    return t->remote->grads_memory;
}

float *const *sac_trainer_plan_grads(const struct sac_trainer *t)
{
    return t->remote ? t->remote->grad_at : t->grad_at;
}

int sac_trainer_remote_own(struct sac_trainer *t, float **weight, int64_t count,
                           struct sac_error *err)
{
    struct sac_trainer_remote *r = t->remote;
    size_t bytes = (size_t)count * sizeof(float);
    float *memory = NULL, **grown;
    int rc;

    if (!r)
        return 0;
    grown = reallocarray(r->own, (size_t)r->own_count + 1, sizeof *grown);
    if (!grown)
        return sac_trainer_no_memory(err);
    r->own = grown;
    rc = take(t, bytes, &memory, err);
    if (rc != 0)
        return rc;
    r->own[r->own_count++] = memory;
    rc = send(t, memory, *weight, bytes, err);
    *weight = memory;
    return rc;
}

int sac_trainer_remote_fetch(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_trainer_remote *r = t->remote;
    size_t bytes = t->total * sizeof(float);
    int rc;

    if (!r || !r->stale)
        return 0;
    rc = sac_transfer_out(&t->transfer, t->params, r->params, bytes, err);
    for (int i = 0; rc == 0 && i < sac_solver_histories(t->solver); i++)
        rc = sac_transfer_out(&t->transfer, sac_solver_history_flat(t->solver, i), r->history[i],
                              bytes, err);
    r->stale = rc != 0;
    return rc;
}

/* ---- An iteration ------------------------------------------------------------ */

static bool scales(const struct sac_trainer *t)
{
    return t->options.precision == SAC_PRECISION_F16;
}

int sac_trainer_remote_begin(struct sac_trainer *t, struct sac_error *err)
{
    int rc = device_of(t)->table->clear(t->stream, t->remote->grads, t->total * sizeof(float), err);

    t->remote->stale = true; /* batch norm's statistics are parameters, too */
    if (!scales(t) || t->scale.set)
        return rc;
    if (t->scale.factor <= 0)
        t->scale.factor = t->options.scale_first > 0 ? t->options.scale_first : scale_first;
    t->scale.set = true;
    return rc == 0 ? sac_plan_set_loss_scale(t->train.plan, t->scale.factor, err) : rc;
}

/* The staging is free: the iteration before was waited for. */
int sac_trainer_remote_offer(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_trainer_remote *r = t->remote;

    memcpy(r->head, t->head, sizeof t->head);
    return device_of(t)->table->copy(t->stream, SAC_COPY_TO_DEVICE, r->grads_memory, r->head,
                                     sizeof t->head, err);
}

static int sum_gradients(struct sac_trainer *t, struct sac_error *err)
{
    const struct sac_device_table *table = device_of(t)->table;
    struct sac_trainer_remote *r = t->remote;
    int rc = table->sum_of_squares(t->stream, r->grads, t->total, r->work, err);

    if (rc == 0)
        rc = table->copy(t->stream, SAC_COPY_TO_HOST, r->norm, r->work, sizeof *r->norm, err);
    if (rc == 0 && t->reducer)
        rc =
            table->copy(t->stream, SAC_COPY_TO_HOST, r->head, r->grads_memory, sizeof t->head, err);
    if (rc == 0)
        rc = table->stream_sync(t->stream, err);
    if (rc == 0 && t->reducer) {
        memcpy(t->head, r->head, sizeof t->head);
        rc = sac_trainer_hear(t, err);
    }
    r->sum = rc == 0 ? *r->norm : 0;
    return rc;
}

int sac_trainer_remote_check(struct sac_trainer *t, struct sac_error *err)
{
    int rc = sum_gradients(t, err);

    if (rc != 0 || t->head[SAC_HEAD_VOID] > 0 || isfinite(t->remote->sum) ||
        (scales(t) && t->scale.factor > 1))
        return rc;
    rc = sac_transfer_out(&t->transfer, t->grads, t->remote->grads, t->total * sizeof(float), err);
    if (rc == 0)
        rc = sac_trainer_remote_fetch(t, err);
    if (rc == 0)
        rc = sac_trainer_check_gradients(t, err);
    return rc ? rc : sac_fail(err, SAC_EINVAL, "the gradients' squares are too large to add up");
}

/* Whether this iteration has an update. */
static bool scale_allows(struct sac_trainer *t)
{
    int steps = t->options.scale_steps > 0 ? t->options.scale_steps : SCALE_STEPS;
    bool good = isfinite(t->remote->sum);
    float before = t->scale.factor;

    if (!scales(t))
        return true;
    t->scale.good = good ? t->scale.good + 1 : 0;
    if (!good)
        t->scale.factor /= 2;
    else if (t->scale.good % steps == 0 && before < scale_most)
        t->scale.factor *= 2;
    t->scale.set = t->scale.factor == before;
    return good;
}

int sac_trainer_remote_update(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_trainer_remote *r = t->remote;
    double scale = scales(t) ? (double)t->scale.factor : 1;
    struct sac_solver_step step =
        sac_solver_begin_norm(t->solver, sqrt(r->sum) / scale, t->iteration);
    struct sac_update update = sac_solver_device_update(t->solver, &step);

    if (!scale_allows(t))
        return 0;
    update.share /= (float)scale;
    update.chunks = r->chunks;
    update.chunk_count = r->chunk_count;
    update.g = r->grads;
    update.w = r->params;
    update.h = r->history[0];
    update.k = r->history[1];
    return device_of(t)->table->update(t->stream, &update, err);
}
