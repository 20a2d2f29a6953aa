/* A trainer among ranks: what they start from, and what they tell each other. */
#include "train/trainer_private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/buckets.h"
#include "train/split_loss.h"

enum { BLAME_MS = 10000 };

/* ---- The start --------------------------------------------------------------- */

/* Ranks of one process come together before they enqueue what waits for all: until then
 * some of them take memory, which may wait for what is enqueued on any device. */
static int gather(struct sac_trainer *t, struct sac_error *err)
{
    float none = 0;

    return t->options.neighbours ? sac_comm_all_reduce(t->options.neighbours, NULL, &none, 1, err)
                                 : 0;
}

/* Rank 0's bytes, to all; a communicator carries floats, as they are. */
static int share_bytes(struct sac_trainer *t, void *bytes, size_t size, struct sac_error *err)
{
    struct sac_device *device = t->options.device;
    size_t count = (size + sizeof(float) - 1) / sizeof(float);
    float *values = NULL;
    int rc = device->table->memory_new(device, SAC_MEMORY_DEVICE, count * sizeof(float),
                                       (void **)&values, err);

    if (rc != 0)
        return rc;
    rc = sac_transfer_in(&t->transfer, values, bytes, size, err);
    if (rc == 0)
        rc = gather(t, err);
    if (rc == 0)
        rc = sac_comm_broadcast(t->options.comm, device->info.host_memory ? NULL : t->stream,
                                values, count, 0, err);
    if (rc == 0)
        rc = sac_transfer_out(&t->transfer, bytes, values, size, err);
    if (rc == 0)
        rc = sac_comm_check(t->options.comm, err);
    device->table->memory_free(device, SAC_MEMORY_DEVICE, values);
    return rc;
}

int sac_trainer_share_seed(struct sac_trainer *t, struct sac_error *err)
{
    struct {
        uint64_t seed;
        int64_t position, threads;
    } start = {t->seed, sac_trainer_restored_position(t, -1), t->threads};
    int rc = t->options.comm ? share_bytes(t, &start, sizeof start, err) : 0;

    t->seed = start.seed;
    t->first_position = start.position;
    if (t->options.compute_threads < 1) /* a snapshot has one number for all */
        t->threads = (int)start.threads;
    return rc;
}

static int share_array(struct sac_trainer *t, float *values, struct sac_error *err)
{
    return sac_comm_broadcast(t->options.comm, t->remote ? t->stream : NULL, values, t->total, 0,
                              err);
}

static int share_arrays(struct sac_trainer *t, struct sac_error *err)
{
    int rc = gather(t, err);

    if (rc == 0)
        rc = share_array(t, t->remote ? sac_trainer_remote_params(t) : t->params, err);
    for (int i = 0; i < sac_solver_histories(t->solver) && rc == 0; i++)
        rc = share_array(
            t, t->remote ? sac_trainer_remote_history(t, i) : sac_solver_history_flat(t->solver, i),
            err);
    if (rc == 0)
        rc = t->options.device->table->stream_sync(t->stream, err);
    return rc == 0 ? sac_comm_check(t->options.comm, err) : rc;
}

static int share_place(struct sac_trainer *t, struct sac_error *err)
{
    struct {
        int64_t iteration;
        float scale;
        int scale_good;
    } place = {t->iteration, t->scale.factor, t->scale.good};
    int rc = share_bytes(t, &place, sizeof place, err);

    t->iteration = place.iteration;
    t->scale.factor = place.scale;
    t->scale.good = place.scale_good;
    return rc;
}

/* ---- Buckets ----------------------------------------------------------------- */

static int after_step(void *user, int step, struct sac_error *err)
{
    return sac_reducer_step(user, step, err);
}

static int cut(const struct sac_trainer *t, struct sac_bucket **ret, int *ret_count,
               struct sac_error *err)
{
    int params = sac_net_param_count(t->train.net);
    size_t *at = calloc((size_t)params + 1, sizeof *at);

    if (!at)
        return sac_trainer_no_memory(err);
    for (int i = 0; i < params; i++)
        at[i] = SAC_HEAD + (size_t)(t->weight_at[i] - t->params);
    at[params] = SAC_HEAD + t->total;
    int rc =
        sac_buckets_cut(ret, ret_count, t->train.plan, at, params, t->options.bucket_bytes, err);
    free(at);
    return rc;
}

static int make_reducer(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_bucket *buckets = NULL;
    struct sac_reducer_options how = {
        .comm = t->options.comm,
        .device = t->options.device,
        .stream = t->stream,
        .values = t->remote ? sac_trainer_remote_head(t) : t->grads_memory,
    };
    int rc = cut(t, &buckets, &how.bucket_count, err);

    how.buckets = buckets;
    if (rc == 0)
        rc = sac_reducer_new(&t->reducer, &how, err);
    if (rc == 0)
        sac_plan_set_hook(t->train.plan, (struct sac_plan_hook){after_step, t->reducer});
    free(buckets);
    return rc;
}

/* Every sum once, over zeros: a library connects ranks for each kind and size when it first
 * meets it, and rank 0 may test for long before the first iteration's. */
static int connect_all(struct sac_trainer *t, struct sac_error *err)
{
    size_t bytes = sizeof t->head + t->total * sizeof(float);
    int rc = 0;

    if (t->remote)
        rc = t->options.device->table->clear(t->stream, sac_trainer_remote_head(t), bytes, err);
    if (rc == 0)
        rc = gather(t, err);
    if (rc == 0) {
        sac_reducer_begin(t->reducer);
        rc = sac_reducer_end(t->reducer, err);
    }
    if (rc == 0)
        rc = t->options.device->table->stream_sync(t->stream, err);
    return rc == 0 ? sac_comm_check(t->options.comm, err) : rc;
}

int sac_trainer_share_start(struct sac_trainer *t, struct sac_error *err)
{
    int rc = t->options.comm ? share_place(t, err) : 0;

    if (rc == 0 && t->options.comm)
        rc = share_arrays(t, err);
    if (rc == 0 && t->options.comm)
        rc = make_reducer(t, err);
    if (rc == 0 && t->options.comm)
        rc = connect_all(t, err);
    return rc == 0 ? gather(t, err) : rc;
}

/* ---- An iteration ------------------------------------------------------------ */

static int offer(struct sac_trainer *t, struct sac_error *err)
{
    int rc = 0;

    if (t->remote)
        rc = sac_trainer_remote_offer(t, err);
    else
        memcpy(t->grads_memory, t->head, sizeof t->head);
    sac_reducer_begin(t->reducer);
    return rc;
}

int sac_trainer_offer(struct sac_trainer *t, double loss, struct sac_error *err)
{
    enum sac_train_request request = sac_trainer_asked(t);

    memset(t->head, 0, sizeof t->head);
    t->head[SAC_HEAD_LOSS] = (float)loss;
    t->head[SAC_HEAD_STOP] = request == SAC_TRAIN_STOP;
    t->head[SAC_HEAD_SNAPSHOT] = request == SAC_TRAIN_SNAPSHOT;
    return offer(t, err);
}

int sac_trainer_leave(struct sac_trainer *t, struct sac_error *err)
{
    memset(t->head, 0, sizeof t->head);
    t->head[SAC_HEAD_VOID] = 1;
    int rc = offer(t, err);
    if (rc == 0)
        rc = sac_reducer_end(t->reducer, err);
    if (rc == 0)
        rc = t->options.device->table->stream_sync(t->stream, err);
    return rc == 0 ? sac_comm_check(t->options.comm, err) : rc;
}

static int own_gradients(struct sac_trainer *t, bool *ret_finite, struct sac_error *err)
{
    struct sac_error found = {0};
    int rc = sac_trainer_again(t, err);

    if (rc == 0 && t->remote)
        rc = sac_transfer_out(&t->transfer, t->grads, sac_trainer_remote_head(t) + SAC_HEAD,
                              t->total * sizeof(float), err);
    *ret_finite = rc == 0 && sac_solver_check_finite(t->solver, t->grads, "", &found) == 0;
    return rc;
}

int sac_trainer_leave_blame(struct sac_trainer *t, struct sac_error *err)
{
    bool finite = false;
    int rc = own_gradients(t, &finite, err);

    for (int ms = 0; rc == 0 && finite && ms < BLAME_MS; ms += 20) {
        usleep(20000);
        rc = sac_comm_check(t->options.comm, err);
    }
    return rc;
}

int sac_trainer_hear(struct sac_trainer *t, struct sac_error *err)
{
    if (!t->remote)
        memcpy(t->head, t->grads_memory, sizeof t->head);
    return sac_comm_check(t->options.comm, err);
}

enum sac_train_request sac_trainer_agreed(const struct sac_trainer *t)
{
    return t->head[SAC_HEAD_STOP] > 0       ? SAC_TRAIN_STOP
           : t->head[SAC_HEAD_SNAPSHOT] > 0 ? SAC_TRAIN_SNAPSHOT
                                            : SAC_TRAIN_GO_ON;
}

void sac_trainer_tell_ranks(const struct sac_trainer *t)
{
    int own = sac_plan_batch(t->train.plan), passes = sac_solver_iter_size(t->solver);
    const Caffe__LayerParameter *uneven =
        sac_split_find_uneven(t->train.layers, t->train.layer_count);
    char text[320];

    int size =
        snprintf(text, sizeof text,
                 "%d ranks by %s, batch rule %s: %d items a rank, %lld an iteration, %d buckets",
                 t->world, t->options.comm->table->kind,
                 t->options.batch_rule == SAC_BATCH_SPLIT ? "split" : "per-gpu", own * passes,
                 (long long)own * t->world * passes, sac_reducer_span_count(t->reducer));
    if (uneven)
        snprintf(text + size, sizeof text - (size_t)size,
                 "; each rank divides \"%.64s\" by its own labels that count, whose means are "
                 "averaged",
                 uneven->name);
    sac_trainer_tell(t, (struct sac_train_event){.kind = SAC_TRAIN_PARALLEL, .text = text});
}
