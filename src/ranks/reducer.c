#include "ranks/reducer.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "ranks/stamps.h"
#include "ranks/thread.h"

struct sac_reducer {
    struct sac_reducer_options options;
    struct sac_bucket *buckets;
    struct sac_reducer_span *spans;
    int sent; /* buckets that were given away; all of them, when none is wanted */

    /* On a device with streams. */
    struct sac_stream *side;
    struct sac_event **ready; /* one a bucket, and one when all is done */
    struct sac_stamps *stamps;

    /* In the host's memory. */
    bool started;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t moved;
    int given, done;
    bool stop;
    int rc;
    struct sac_error failed;
};

static const struct sac_device_table *table_of(const struct sac_reducer *r)
{
    return r->options.device->table;
}

static int sum(struct sac_reducer *r, int index, struct sac_error *err)
{
    const struct sac_bucket *b = &r->buckets[index];

    return sac_comm_all_reduce(r->options.comm, r->side, r->options.values + b->first,
                               b->end - b->first, err);
}

/* ---- On a thread ------------------------------------------------------------- */

/* Under the lock, which it leaves meanwhile. After a failure nothing is summed any more. */
static void sum_one(struct sac_reducer *r)
{
    struct sac_reducer_span *span = &r->spans[r->done];
    struct sac_error err = {0};
    int index = r->done, rc = r->rc;

    pthread_mutex_unlock(&r->lock);
    span->began_ns = sac_clock_ns();
    if (rc == 0)
        rc = sum(r, index, &err);
    span->ended_ns = sac_clock_ns();
    pthread_mutex_lock(&r->lock);
    if (r->rc == 0 && rc != 0)
        r->failed = err;
    r->rc = rc;
    r->done++;
    pthread_cond_broadcast(&r->moved);
}

static void *sum_given(void *argument)
{
    struct sac_reducer *r = argument;

    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        if (r->done < r->given)
            sum_one(r);
        else
            pthread_cond_wait(&r->moved, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void give(struct sac_reducer *r, int count)
{
    pthread_mutex_lock(&r->lock);
    r->given = count;
    pthread_cond_broadcast(&r->moved);
    pthread_mutex_unlock(&r->lock);
}

static int wait_for_thread(struct sac_reducer *r, struct sac_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&r->lock);
    while (r->done < r->given)
        pthread_cond_wait(&r->moved, &r->lock);
    if (r->rc != 0)
        rc = sac_fail(err, r->rc, "%s", r->failed.text);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

/* ---- On a stream ------------------------------------------------------------- */

static int stamp(struct sac_reducer *r, uint64_t *to, struct sac_error *err)
{
    return r->stamps ? sac_stamps_add(r->stamps, to, err) : 0;
}

static int enqueue(struct sac_reducer *r, int index, struct sac_error *err)
{
    int rc = table_of(r)->event_record(r->ready[index], r->options.stream, err);

    if (rc == 0)
        rc = table_of(r)->stream_wait(r->side, r->ready[index], err);
    if (rc == 0)
        rc = stamp(r, &r->spans[index].began_ns, err);
    if (rc == 0)
        rc = sum(r, index, err);
    return rc == 0 ? stamp(r, &r->spans[index].ended_ns, err) : rc;
}

static int wait_on_stream(struct sac_reducer *r, struct sac_error *err)
{
    struct sac_event *all = r->ready[r->options.bucket_count];
    int rc = table_of(r)->event_record(all, r->side, err);

    return rc == 0 ? table_of(r)->stream_wait(r->options.stream, all, err) : rc;
}

/* Sums go before what the way back still computes: others wait for them. */
static int make_stream(struct sac_reducer *r, struct sac_error *err)
{
    struct sac_device *device = r->options.device;
    const struct sac_device_table *table = device->table;
    int rc = table->stream_new_at ? table->stream_new_at(device, -1, &r->side, err)
                                  : table->stream_new(device, &r->side, err);

    r->ready = calloc((size_t)r->options.bucket_count + 1, sizeof *r->ready);
    if (!r->ready)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; i <= r->options.bucket_count && rc == 0; i++)
        rc = table->event_new(device, &r->ready[i], err);
    if (rc == 0 && r->options.timed)
        rc = sac_stamps_new(&r->stamps, device, r->side, 2 * r->options.bucket_count, err);
    return rc;
}

static void free_stream(struct sac_reducer *r)
{
    struct sac_error ignored = {0};

    if (r->side)
        table_of(r)->stream_sync(r->side, &ignored);
    sac_stamps_free(r->stamps);
    for (int i = 0; r->ready && i <= r->options.bucket_count; i++)
        if (r->ready[i])
            table_of(r)->event_free(r->ready[i]);
    free(r->ready);
    if (r->side)
        table_of(r)->stream_free(r->side);
}

/* ---- All --------------------------------------------------------------------- */

static int start(struct sac_reducer *r, struct sac_error *err)
{
    size_t count = (size_t)r->options.bucket_count + 1;

    r->buckets = calloc(count, sizeof *r->buckets);
    r->spans = calloc(count, sizeof *r->spans);
    if (!r->buckets || !r->spans)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    memcpy(r->buckets, r->options.buckets, (count - 1) * sizeof *r->buckets);
    r->options.buckets = r->buckets;
    r->sent = r->options.bucket_count;
    for (size_t i = 0; i + 1 < count; i++)
        r->spans[i].bucket = r->buckets[i];
    if (!r->options.device->info.host_memory)
        return make_stream(r, err);
    int rc = sac_thread_start(&r->thread, sum_given, r, err);
    r->started = rc == 0;
    return rc;
}

int sac_reducer_new(struct sac_reducer **ret, const struct sac_reducer_options *options,
                    struct sac_error *err)
{
    struct sac_reducer *r = calloc(1, sizeof *r);

    if (!r)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    r->options = *options;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->moved, NULL);
    int rc = start(r, err);
    if (rc == 0)
        *ret = r;
    else
        sac_reducer_free(r);
    return rc;
}

void sac_reducer_free(struct sac_reducer *r)
{
    if (!r)
        return;
    if (r->started) {
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_broadcast(&r->moved);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    free_stream(r);
    pthread_cond_destroy(&r->moved);
    pthread_mutex_destroy(&r->lock);
    free(r->buckets);
    free(r->spans);
    free(r);
}

void sac_reducer_begin(struct sac_reducer *r)
{
    struct sac_error later = {0}; /* a failure stays, and is told with the spans */

    if (r->stamps)
        sac_stamps_wait(r->stamps, &later);
    r->sent = 0;
    pthread_mutex_lock(&r->lock);
    r->given = r->done = 0;
    pthread_mutex_unlock(&r->lock);
}

static int send_until(struct sac_reducer *r, int count, struct sac_error *err)
{
    int rc = 0;

    if (r->started) {
        give(r, count);
        r->sent = count;
    }
    while (rc == 0 && r->sent < count)
        rc = enqueue(r, r->sent++, err);
    return rc;
}

int sac_reducer_step(struct sac_reducer *r, int step, struct sac_error *err)
{
    int count = r->sent;

    while (count < r->options.bucket_count && r->buckets[count].ready_after <= step)
        count++;
    return count > r->sent ? send_until(r, count, err) : 0;
}

int sac_reducer_end(struct sac_reducer *r, struct sac_error *err)
{
    int rc = send_until(r, r->options.bucket_count, err);

    if (rc == 0)
        rc = r->started ? wait_for_thread(r, err) : wait_on_stream(r, err);
    return rc;
}

int sac_reducer_span_count(const struct sac_reducer *r)
{
    return r->options.bucket_count;
}

int sac_reducer_span(struct sac_reducer *r, int index, struct sac_reducer_span *ret,
                     struct sac_error *err)
{
    int rc = r->stamps ? sac_stamps_wait(r->stamps, err) : 0;

    if (rc == 0)
        *ret = r->spans[index];
    return rc;
}
