#include "data/feed.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/source_private.h"

enum {
    THREADS_MAX = 64,
    AHEAD = 3,
    AHEAD_MAX = 64,
    CHUNK_MAX = 16,     /* items that a thread takes at a time */
    CORRUPT_MAX = 1000, /* in a row */
};

#define POSITION_MAX (INT64_MAX / 4)

/* An item that could not be used. */
struct corrupt {
    struct corrupt *next;
    int64_t index;
    char text[];
};

/* One batch of the ring. */
struct slot {
    float *data, *labels;
    uint8_t *crops; /* in place of data */
    struct sac_crop_place *places;
    int64_t *index; /* −1: corrupt, nothing stands in its place */
    int count;      /* items of this shard */
    int done;       /* of those, ready or failed; guarded by the lock, as all below */
    int failed_at;  /* the first item that failed, or `count` */
    struct sac_error error;
    struct corrupt *corrupt;
};

struct sac_feed {
    struct sac_source *source;
    struct sac_transform transform;
    struct sac_feed_options options;
    int shape[3];
    struct sac_feed_picture picture;
    size_t item_count; /* values an item */
    bool crops;        /* items are bytes */
    struct sac_crop_layout layout;
    int first, last;     /* this shard's items of a whole batch */
    int64_t batch_count; /* until the end, or INT64_MAX */

    pthread_mutex_t lock; /* guards the slots' counts and all below */
    pthread_cond_t slot_freed, batch_ready;
    struct slot *slots;
    int slot_count;
    int64_t taken, claimed; /* batches handed out and begun; taken ≤ claimed */
    int claimed_items;      /* of the batch that is being begun */
    bool holds, stop;       /* the consumer holds batch `taken` */

    pthread_t threads[THREADS_MAX];
    int thread_count;

    /* the consumer's */
    struct sac_feed_stats stats;
    uint8_t *known_corrupt; /* a bit an item, made at the first */
};

struct worker {
    struct sac_feed *feed;
    struct sac_item item;
    struct sac_transform_scratch *scratch;
    struct sac_order order;
    int64_t order_epoch; /* −1: none */
};

/* ---- One item ---- */

struct place {
    int64_t epoch, index;
};

static struct place locate(struct worker *worker, int64_t position)
{
    const struct sac_feed *feed = worker->feed;
    int64_t at = position + (feed->options.once ? 0 : feed->options.skip);
    int64_t count = feed->source->count;
    struct place place = {at / count, at % count};

    if (!feed->options.shuffle)
        return place;
    if (worker->order_epoch != place.epoch) {
        worker->order = sac_order_of(feed->options.seed, (uint32_t)place.epoch, (uint64_t)count);
        worker->order_epoch = place.epoch;
    }
    place.index = (int64_t)sac_order_at(&worker->order, (uint64_t)place.index);
    return place;
}

static int check_label(const struct sac_feed *feed, float label, struct sac_error *err)
{
    int classes = feed->options.classes;

    if (classes == 0 || feed->source->label_count != 1 ||
        (label >= 0 && label < (float)classes && label == floorf(label)))
        return 0;
    return sac_fail(err, SAC_EINVAL, "label %g; expected 0 to %d", (double)label, classes - 1);
}

static void prefix_name(const struct sac_feed *feed, int64_t index, struct sac_error *err)
{
    char name[SAC_ERROR_TEXT / 2];

    sac_source_item_name(feed->source, index, name, sizeof name);
    sac_error_prefix(err, "%s", name);
}

static int make_data(struct worker *worker, struct place place, const struct slot *slot, int at,
                     struct sac_error *err)
{
    const struct sac_feed *feed = worker->feed;
    size_t from = (size_t)at * feed->item_count;
    struct sac_random random = sac_random_stream(feed->options.seed, SAC_RANDOM_ITEM,
                                                 (uint32_t)place.epoch, (uint64_t)place.index);

    if (feed->crops)
        return sac_transform_crop(&feed->transform, feed->options.train, &worker->item, &random,
                                  worker->scratch, feed->shape, &feed->layout, slot->crops + from,
                                  &slot->places[at], err);
    return sac_transform_apply(&feed->transform, feed->options.train, &worker->item, &random,
                               worker->scratch, feed->shape, slot->data + from, err);
}

/* Item `at` of the slot. */
static int make_at(struct worker *worker, struct place place, const struct slot *slot, int at,
                   struct sac_error *err)
{
    const struct sac_feed *feed = worker->feed;
    struct sac_item *item = &worker->item;
    int rc = sac_source_item(feed->source, place.index, item, err);

    if (rc < 0)
        return rc;
    size_t labels = (size_t)feed->source->label_count;
    rc = make_data(worker, place, slot, at, err);
    if (rc == 0)
        rc = check_label(feed, item->labels[0], err);
    if (rc == 0)
        memcpy(slot->labels + (size_t)at * labels, item->labels, labels * sizeof *item->labels);
    else
        prefix_name(feed, place.index, err);
    return rc;
}

/* Onto the list, to be told when the batch is taken: in order, whoever found it. */
static int note_corrupt(struct corrupt **list, int64_t index, const struct sac_error *why,
                        struct sac_error *err)
{
    size_t size = strlen(why->text) + 1;
    struct corrupt *corrupt = malloc(sizeof *corrupt + size);

    if (!corrupt)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    corrupt->index = index;
    memcpy(corrupt->text, why->text, size);
    corrupt->next = *list;
    *list = corrupt;
    return 0;
}

/* The item at `position`, or the next that can be used. */
static int make_item(struct worker *worker, int64_t position, const struct slot *slot, int at,
                     struct corrupt **list, struct sac_error *err)
{
    const struct sac_feed *feed = worker->feed;
    int64_t most = feed->source->count < CORRUPT_MAX ? feed->source->count : CORRUPT_MAX;
    int rc = 0;

    for (int64_t i = 0; i < most; i++) {
        struct place place = locate(worker, position + i);
        struct sac_error why = {0};
        slot->index[at] = place.index;
        rc = make_at(worker, place, slot, at, &why);
        if (rc == 0)
            return 0;
        if (!sac_source_is_corrupt(rc)) {
            *err = why;
            return rc;
        }
        slot->index[at] = -1;
        rc = i == 0 ? note_corrupt(list, place.index, &why, err) : 0;
        if (rc < 0 || feed->options.once)
            return rc;
        if (i == most - 1)
            return sac_fail(err, SAC_EFORMAT, "%lld items in a row are corrupt; the last: %s",
                            (long long)most, why.text);
    }
    return rc;
}

/* ---- The ring ---- */

static int64_t batch_start(const struct sac_feed *feed, int64_t batch)
{
    return feed->options.position + batch * feed->options.batch;
}

/* Items of this shard in a batch: fewer in the last when gone through once. */
static int batch_items(const struct sac_feed *feed, int64_t batch)
{
    int64_t last = feed->last;

    if (feed->options.once && feed->source->count - batch_start(feed, batch) < last)
        last = feed->source->count - batch_start(feed, batch);
    return last > feed->first ? (int)(last - feed->first) : 0;
}

struct claim {
    struct slot *slot;
    int64_t position; /* of the slot's item 0 */
    int from, to;
};

static void begin_slot(struct slot *slot, int count)
{
    slot->count = slot->failed_at = count;
    slot->done = 0;
    slot->error = (struct sac_error){0};
}

/* Under the lock: waits for something to do; false at the end. */
static bool claim_items(struct sac_feed *feed, struct claim *ret)
{
    while (!feed->stop && feed->claimed < feed->batch_count &&
           feed->claimed - feed->taken >= feed->slot_count)
        pthread_cond_wait(&feed->slot_freed, &feed->lock);
    if (feed->stop || feed->claimed >= feed->batch_count)
        return false;
    struct slot *slot = &feed->slots[feed->claimed % feed->slot_count];
    if (feed->claimed_items == 0)
        begin_slot(slot, batch_items(feed, feed->claimed));
    *ret = (struct claim){slot, batch_start(feed, feed->claimed) + feed->first, feed->claimed_items,
                          feed->claimed_items + CHUNK_MAX};
    if (ret->to >= slot->count) {
        ret->to = slot->count;
        feed->claimed++;
        feed->claimed_items = 0;
    } else {
        feed->claimed_items = ret->to;
    }
    return true;
}

/* Returns the item that failed, or claim->to. */
static int make_items(struct worker *worker, const struct claim *claim, struct corrupt **list,
                      struct sac_error *err)
{
    for (int i = claim->from; i < claim->to; i++)
        if (make_item(worker, claim->position + i, claim->slot, i, list, err) < 0)
            return i;
    return claim->to;
}

/* Of several failures in a batch the first item's counts: no race decides. */
static void finish_items(struct sac_feed *feed, const struct claim *claim, int failed_at,
                         const struct sac_error *err, struct corrupt *list)
{
    struct slot *slot = claim->slot;

    if (failed_at < claim->to && failed_at < slot->failed_at) {
        slot->failed_at = failed_at;
        slot->error = *err;
    }
    while (list) {
        struct corrupt *next = list->next;
        list->next = slot->corrupt;
        slot->corrupt = list;
        list = next;
    }
    slot->done += claim->to - claim->from;
    if (slot->done == slot->count)
        pthread_cond_signal(&feed->batch_ready);
}

static void work(struct worker *worker)
{
    struct sac_feed *feed = worker->feed;
    struct claim claim;

    pthread_mutex_lock(&feed->lock);
    while (claim_items(feed, &claim)) {
        struct corrupt *list = NULL;
        struct sac_error err = {0};
        pthread_mutex_unlock(&feed->lock);
        int failed_at = make_items(worker, &claim, &list, &err);
        pthread_mutex_lock(&feed->lock);
        finish_items(feed, &claim, failed_at, &err, list);
    }
    pthread_mutex_unlock(&feed->lock);
}

static void worker_free(struct worker *worker)
{
    if (!worker)
        return;
    sac_item_done(&worker->item);
    sac_transform_scratch_free(worker->scratch);
    free(worker);
}

static int worker_new(struct worker **ret, struct sac_feed *feed, struct sac_error *err)
{
    struct worker *worker = calloc(1, sizeof *worker);

    if (!worker)
        return sac_fail(err, SAC_ENOMEM, "feed: out of memory");
    worker->feed = feed;
    worker->order_epoch = -1;
    int rc = sac_transform_scratch_new(&worker->scratch, err);
    if (rc == 0)
        *ret = worker;
    else
        worker_free(worker);
    return rc;
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;

    work(worker);
    worker_free(worker);
    return NULL;
}

/* Signals are for the program's own threads. */
static int start_threads(struct sac_feed *feed, struct sac_error *err)
{
    sigset_t all, before;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (rc == 0 && feed->thread_count < feed->options.threads) {
        struct worker *worker = NULL;
        rc = worker_new(&worker, feed, err);
        if (rc < 0)
            break;
        int number = pthread_create(&feed->threads[feed->thread_count], NULL, worker_main, worker);
        if (number == 0) {
            feed->thread_count++;
        } else {
            worker_free(worker);
            rc = sac_fail_errno(err, number, "feed: no thread");
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* ---- Opening ---- */

static int check_options(struct sac_feed_options *o, int64_t count, struct sac_error *err)
{
    o->shards = o->shards ? o->shards : 1;
    o->ahead = o->ahead ? o->ahead : AHEAD;
    if (o->threads == 0)
        o->threads = sac_cpu_count() < THREADS_MAX ? sac_cpu_count() : THREADS_MAX;
    if (o->batch < 1)
        return sac_fail(err, SAC_EINVAL, "feed: a batch of %d; expected at least 1", o->batch);
    if (o->threads < 1 || o->threads > THREADS_MAX || o->ahead < 1 || o->ahead > AHEAD_MAX)
        return sac_fail(err, SAC_EINVAL,
                        "feed: %d threads, %d batches ahead; expected 1 to %d, 1 to %d", o->threads,
                        o->ahead, THREADS_MAX, AHEAD_MAX);
    if (o->shards < 1 || o->shard < 0 || o->shard >= o->shards || o->batch < o->shards)
        return sac_fail(err, SAC_EINVAL, "feed: part %d of %d of a batch of %d", o->shard,
                        o->shards, o->batch);
    if (o->position < 0 || o->position > POSITION_MAX || o->skip < 0 || o->skip > POSITION_MAX ||
        o->classes < 0)
        return sac_fail(err, SAC_EINVAL, "feed: position %lld, skip %lld, %d classes",
                        (long long)o->position, (long long)o->skip, o->classes);
    if (o->once && o->position > count)
        return sac_fail(err, SAC_EINVAL, "feed: position %lld of %lld items, gone through once",
                        (long long)o->position, (long long)count);
    return 0;
}

static int note_shapes(struct sac_feed *feed, const struct sac_item *item,
                       struct sac_transform_scratch *scratch, struct sac_error *err)
{
    const struct sac_transform *t = &feed->transform;
    int shape[3];
    int rc = sac_transform_shape(t, item, scratch, feed->shape, err);

    if (rc == 0)
        rc = sac_transform_picture_shape(t, item, scratch, shape, err);
    if (rc == 0)
        feed->picture = (struct sac_feed_picture){
            .kind = item->kind,
            .channels = shape[0],
            .height = shape[1],
            .width = shape[2],
            .rgb = item->kind == SAC_ITEM_ENCODED ? t->rgb : item->rgb,
            .files = sac_source_has_files(feed->source),
        };
    feed->crops = feed->options.crops && item->kind != SAC_ITEM_FLOATS &&
                  sac_transform_keeps_bytes(t, feed->options.train);
    if (rc == 0)
        feed->layout = sac_transform_layout(t, item->kind == SAC_ITEM_ENCODED, feed->shape);
    return rc;
}

/* The first item that is not corrupt tells the shape, as Caffe has it. */
static int settle_shape(struct sac_feed *feed, struct sac_error *err)
{
    struct sac_transform_scratch *scratch = NULL;
    struct sac_item item = {0};
    int rc = sac_transform_scratch_new(&scratch, err), found = SAC_EFORMAT;
    struct sac_error why = {0};

    if (rc < 0)
        return rc;
    for (int64_t i = 0; sac_source_is_corrupt(found) && i < feed->source->count && i < CORRUPT_MAX;
         i++) {
        why = (struct sac_error){0};
        found = sac_source_item(feed->source, i, &item, &why);
        if (found < 0)
            continue;
        found = note_shapes(feed, &item, scratch, &why);
        if (found < 0)
            prefix_name(feed, i, &why);
    }
    sac_item_done(&item);
    sac_transform_scratch_free(scratch);
    if (found == 0)
        return 0;
    if (!sac_source_is_corrupt(found))
        return sac_fail(err, found, "%s", why.text);
    return sac_fail(err, found, "%s: none of the first items can be used; the last: %s",
                    feed->source->path, why.text);
}

static size_t value_bytes(const struct sac_feed *feed)
{
    return feed->crops ? sizeof(uint8_t) : sizeof(float);
}

static int settle_memory(struct sac_feed *feed, size_t *ret_slot, struct sac_error *err)
{
    struct sac_feed_options *o = &feed->options;
    uint64_t most = o->bytes_max ? o->bytes_max : sac_memory_available() / 8 * 7;
    uint64_t item = (uint64_t)feed->shape[0] * (uint64_t)feed->shape[1], slot = UINT64_MAX;
    int items = feed->last - feed->first;
    bool over =
        __builtin_mul_overflow(item, (uint64_t)feed->shape[2], &item) || item > INT64_MAX / 8;

    feed->item_count = (size_t)item;
    if (!over) {
        item = item * value_bytes(feed) + (uint64_t)feed->source->label_count * sizeof(float) +
               sizeof(int64_t) + (feed->crops ? sizeof(struct sac_crop_place) : 0);
        over = __builtin_mul_overflow(item, (uint64_t)items, &slot);
    }
    if (over || slot > most / 2)
        return sac_fail(err, SAC_ELIMIT,
                        "%s: a batch of %d items of %d × %d × %d takes %.0f MB, and two are held; "
                        "there is room for %.0f MB",
                        feed->source->path, items, feed->shape[0], feed->shape[1], feed->shape[2],
                        over ? INFINITY : (double)slot / 1e6, (double)most / 1e6);
    feed->slot_count = o->ahead + 1; /* one is the consumer's */
    if ((uint64_t)feed->slot_count > most / slot)
        feed->slot_count = (int)(most / slot);
    *ret_slot = (size_t)slot;
    return 0;
}

static int make_slots(struct sac_feed *feed, struct sac_error *err)
{
    size_t items = (size_t)(feed->last - feed->first), slot_bytes = 0;
    size_t labels = items * (size_t)feed->source->label_count;
    int rc = settle_memory(feed, &slot_bytes, err);

    if (rc < 0)
        return rc;
    feed->slots = calloc((size_t)feed->slot_count, sizeof *feed->slots);
    for (int i = 0; feed->slots && i < feed->slot_count; i++) {
        struct slot *slot = &feed->slots[i];
        void *data =
            aligned_alloc(64, (items * feed->item_count * value_bytes(feed) + 63) / 64 * 64);
        slot->data = feed->crops ? NULL : data;
        slot->crops = feed->crops ? data : NULL;
        slot->places = feed->crops ? calloc(items, sizeof *slot->places) : NULL;
        slot->labels = calloc(labels, sizeof *slot->labels);
        slot->index = calloc(items, sizeof *slot->index);
        if (!data || !slot->labels || !slot->index || (feed->crops && !slot->places))
            rc = SAC_ENOMEM;
    }
    if (!feed->slots || rc < 0)
        return sac_fail(err, SAC_ENOMEM, "feed: no memory for %d batches of %zu bytes",
                        feed->slot_count, slot_bytes);
    return 0;
}

static int build(struct sac_feed *feed, struct sac_error *err)
{
    struct sac_feed_options *o = &feed->options;
    int rc = check_options(o, feed->source->count, err);

    if (rc == 0)
        rc = sac_transform_check(&feed->transform, err);
    if (rc == 0)
        rc = settle_shape(feed, err);
    if (rc < 0)
        return rc;
    feed->first = (int)((int64_t)o->batch * o->shard / o->shards);
    feed->last = (int)((int64_t)o->batch * (o->shard + 1) / o->shards);
    feed->batch_count = INT64_MAX;
    if (o->once)
        feed->batch_count = (feed->source->count - o->position + o->batch - 1) / o->batch;
    rc = make_slots(feed, err);
    return rc == 0 ? start_threads(feed, err) : rc;
}

static void feed_done(struct sac_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    feed->stop = true;
    pthread_cond_broadcast(&feed->slot_freed);
    pthread_mutex_unlock(&feed->lock);
    for (int i = 0; i < feed->thread_count; i++)
        pthread_join(feed->threads[i], NULL);
    for (int i = 0; feed->slots && i < feed->slot_count; i++) {
        struct slot *slot = &feed->slots[i];
        while (slot->corrupt) {
            struct corrupt *next = slot->corrupt->next;
            free(slot->corrupt);
            slot->corrupt = next;
        }
        free(slot->data);
        free(slot->crops);
        free(slot->places);
        free(slot->labels);
        free(slot->index);
    }
    free(feed->slots);
    free(feed->known_corrupt);
    pthread_cond_destroy(&feed->slot_freed);
    pthread_cond_destroy(&feed->batch_ready);
    pthread_mutex_destroy(&feed->lock);
}

int sac_feed_open(struct sac_feed **ret, struct sac_source *source,
                  const struct sac_transform *transform, const struct sac_feed_options *options,
                  struct sac_error *err)
{
    struct sac_feed *feed = calloc(1, sizeof *feed);

    if (!feed)
        return sac_fail(err, SAC_ENOMEM, "feed: out of memory");
    feed->source = source;
    feed->transform = *transform;
    feed->options = *options;
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->slot_freed, NULL);
    pthread_cond_init(&feed->batch_ready, NULL);
    int rc = build(feed, err);
    if (rc == 0) {
        *ret = feed;
    } else { /* source and transform stay the caller's */
        feed_done(feed);
        free(feed);
    }
    return rc;
}

void sac_feed_free(struct sac_feed *feed)
{
    if (!feed)
        return;
    feed_done(feed);
    sac_source_free(feed->source);
    sac_transform_done(&feed->transform);
    free(feed);
}

/* ---- Taking ---- */

/* Under the lock: the batch held until now is given back. */
static void give_back(struct sac_feed *feed)
{
    if (!feed->holds)
        return;
    feed->holds = false;
    feed->taken++;
    pthread_cond_broadcast(&feed->slot_freed);
}

/* Under the lock. */
static bool is_ready(const struct sac_feed *feed, const struct slot *slot)
{
    return feed->claimed > feed->taken && slot->done == slot->count;
}

/* Under the lock: counts the time, but for the first batch, for which there was
 * none to make it ahead. */
static void wait_for(struct sac_feed *feed, const struct slot *slot)
{
    if (is_ready(feed, slot))
        return;
    uint64_t start = sac_clock_ns();
    while (!is_ready(feed, slot))
        pthread_cond_wait(&feed->batch_ready, &feed->lock);
    uint64_t waited = sac_clock_ns() - start;
    if (feed->stats.batches == 0) {
        feed->stats.first_wait_ns = waited;
    } else {
        feed->stats.waits++;
        feed->stats.wait_ns += waited;
    }
}

/* True the first time. */
static bool mark_corrupt(struct sac_feed *feed, int64_t index)
{
    uint8_t bit = (uint8_t)(1u << (index & 7));

    if (!feed->known_corrupt)
        feed->known_corrupt = calloc((size_t)feed->source->count / 8 + 1, 1);
    if (!feed->known_corrupt)
        return true; /* counted again, rather than not at all */
    bool known = feed->known_corrupt[index / 8] & bit;
    feed->known_corrupt[index / 8] |= bit;
    return !known;
}

static void tell_corrupt(struct sac_feed *feed, struct slot *slot)
{
    while (slot->corrupt) {
        struct corrupt *corrupt = slot->corrupt;
        slot->corrupt = corrupt->next;
        if (mark_corrupt(feed, corrupt->index)) {
            feed->stats.corrupt++;
            sac_log(SAC_LOG_WARNING, "skipped: %s", corrupt->text);
        }
        free(corrupt);
    }
}

static void move_item(const struct sac_feed *feed, struct slot *slot, size_t to, size_t from)
{
    size_t labels = (size_t)feed->source->label_count, count = feed->item_count;

    if (feed->crops) {
        memcpy(slot->crops + to * count, slot->crops + from * count, count);
        slot->places[to] = slot->places[from];
    } else {
        memcpy(slot->data + to * count, slot->data + from * count, count * sizeof(float));
    }
    memcpy(slot->labels + to * labels, slot->labels + from * labels, labels * sizeof(float));
    slot->index[to] = slot->index[from];
}

/* Closes the gaps that corrupt items left. */
static int close_gaps(const struct sac_feed *feed, struct slot *slot)
{
    int count = 0;

    for (int i = 0; i < slot->count; i++) {
        if (slot->index[i] < 0)
            continue;
        if (count < i)
            move_item(feed, slot, (size_t)count, (size_t)i);
        count++;
    }
    return count;
}

static int64_t position_after(const struct sac_feed *feed, int64_t batch)
{
    int64_t position = batch_start(feed, batch + 1);

    return feed->options.once && position > feed->source->count ? feed->source->count : position;
}

int sac_feed_next(struct sac_feed *feed, struct sac_batch *ret, struct sac_error *err)
{
    pthread_mutex_lock(&feed->lock);
    give_back(feed);
    int64_t batch = feed->taken;
    struct slot *slot = &feed->slots[batch % feed->slot_count];
    bool end = batch >= feed->batch_count;
    if (!end)
        wait_for(feed, slot);
    bool failed = !end && slot->failed_at < slot->count;
    feed->holds = !end && !failed;
    pthread_mutex_unlock(&feed->lock);
    if (end) {
        *ret = (struct sac_batch){.position = position_after(feed, batch), .end = true};
        return 0;
    }
    tell_corrupt(feed, slot);
    if (failed)
        return sac_fail(err, slot->error.code, "%s", slot->error.text);
    *ret = (struct sac_batch){
        .count = close_gaps(feed, slot),
        .data = slot->data,
        .crops = slot->crops,
        .places = slot->places,
        .labels = slot->labels,
        .index = slot->index,
        .position = position_after(feed, batch),
    };
    feed->stats.batches++;
    feed->stats.items += ret->count;
    return 0;
}

const int *sac_feed_shape(const struct sac_feed *feed)
{
    return feed->shape;
}

int sac_feed_top(const struct sac_feed *feed, int top, struct sac_feed_top *ret,
                 struct sac_error *err)
{
    const struct sac_source *source = feed->source;
    bool sets = feed->options.sets && source->sets;
    int tops = sets ? source->set_count : 2, rank = 0;
    int64_t labels = source->label_count;

    if (top < 0 || top >= tops)
        return sac_fail(err, SAC_EUNSUPPORTED, "%s gives %d tops; the layer has more", source->path,
                        tops);
    *ret = (struct sac_feed_top){.dim = {sac_feed_batch(feed)}, .count = labels};
    if (sets) {
        rank = source->sets[top].rank;
        memcpy(ret->dim + 1, source->sets[top].dim, (size_t)rank * sizeof *ret->dim);
        ret->count = source->sets[top].count;
    } else if (top == 0) {
        for (rank = 0; rank < 3; rank++)
            ret->dim[1 + rank] = feed->shape[rank];
        ret->count = (int64_t)feed->item_count;
    } else if (labels > 1) {
        ret->dim[1] = labels;
        rank = 1;
    }
    ret->rank = 1 + rank;
    return 0;
}

void sac_feed_copy_top(const struct sac_feed *feed, const struct sac_batch *batch, int top,
                       float *to)
{
    const struct sac_source *source = feed->source;
    bool sets = feed->options.sets && source->sets;
    size_t all = (size_t)source->label_count, part = all, from = 0;

    if (top == 0) {
        memcpy(to, batch->data, (size_t)batch->count * feed->item_count * sizeof *to);
        return;
    }
    if (sets)
        part = (size_t)source->sets[top].count;
    for (int i = 1; sets && i < top; i++)
        from += (size_t)source->sets[i].count;
    for (int i = 0; i < batch->count; i++)
        memcpy(to + (size_t)i * part, batch->labels + (size_t)i * all + from, part * sizeof *to);
}

bool sac_feed_crops(const struct sac_feed *feed, struct sac_crops *ret)
{
    if (!feed->crops)
        return false;
    *ret = (struct sac_crops){.count = sac_feed_batch(feed), .layout = feed->layout};
    sac_transform_crops(&feed->transform, feed->options.train, feed->shape, ret);
    return true;
}

int sac_feed_batch(const struct sac_feed *feed)
{
    return feed->last - feed->first;
}

const struct sac_source *sac_feed_source(const struct sac_feed *feed)
{
    return feed->source;
}

const struct sac_transform *sac_feed_transform(const struct sac_feed *feed)
{
    return &feed->transform;
}

const struct sac_feed_picture *sac_feed_picture(const struct sac_feed *feed)
{
    return &feed->picture;
}

struct sac_feed_stats sac_feed_stats(const struct sac_feed *feed)
{
    return feed->stats;
}
