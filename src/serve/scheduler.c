#include "serve/scheduler.h"

#include <assert.h>
#include <stdlib.h>

enum {
    QUEUE_MAX = 512,
    QUEUE_MIN = 64,   /* as many clients may come at once; deadlines still bound it */
    FAILURES_MAX = 3, /* batches a job may be lost with before it is given up */
    PRIORITY_MAX = 15,
    SMOOTHING = 8, /* a new measurement weighs 1/8 */
    OVERLAP_SMOOTHING = 16,
    STALE_NOTES = 256, /* a size not used for so long is tried again */
};

static const uint64_t queue_ns_max = 250000000;
static const uint64_t patience_ns = 10000000;
_Static_assert(1 << (SAC_BATCH_SIZES - 1) == SAC_BATCH_MAX,
               "its largest size is the largest batch");

static const uint64_t unknown_ns = 1000000; /* one picture, before anything was measured */
static const double overlap_max = 0.5;
static const uint64_t grace_ns = 200000; /* a lane may be done a little late */
static const uint64_t look_again_ns = 2000000;

/* A time, smoothed, and the best ever seen; best 0: a guess. */
struct cost {
    uint64_t smooth, best;
    uint32_t age; /* notes of other sizes since */
    bool guessed; /* the next note replaces `smooth` */
};

struct table {
    struct cost decode; /* of one picture */
    struct cost compute[SAC_BATCH_SIZES];
    struct cost together; /* one picture on the cores of all lanes; the leader's */
    bool leads;
    int size_best; /* of the best throughput */
    double job_ns; /* what a picture takes at that size */
};

struct model {
    int batch_max, priority;
    int waiting;
    struct sac_job queue; /* the ends of a ring; oldest first */
    double job_ns;        /* what a picture takes all lanes together */
    uint64_t best_ns;     /* the best that a lane has shown for one picture */
    struct table lanes[SAC_LANES_MAX];
};

struct lane {
    bool up;
    int batches, running[2]; /* how many, of how many jobs; oldest first */
    uint64_t until_ns;       /* when the last should end */
};

struct sac_scheduler {
    int queue_max;
    int queued, lanes_up, lane_count, model_count;
    struct lane lanes[SAC_LANES_MAX];
    struct model *models[SAC_MODELS_MAX];
    int leader;             /* −1: none */
    bool lent;              /* the leader runs on the cores of all */
    uint64_t arrived_ns[2]; /* the last submission, and the one before it; 0: none */
    double overlap;         /* what share of submissions found others there, of late */
    struct sac_batcher_counters counters;
};

int sac_scheduler_new(struct sac_scheduler **ret, int queue_max, struct sac_error *err)
{
    struct sac_scheduler *s = calloc(1, sizeof *s);

    if (!s)
        return sac_fail(err, SAC_ENOMEM, "the scheduler: out of memory");
    s->queue_max = queue_max;
    s->leader = -1;
    *ret = s;
    return 0;
}

void sac_scheduler_free(struct sac_scheduler *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->model_count; i++)
        free(s->models[i]);
    free(s);
}

/* The latency tables. */

static uint64_t time_of(const struct table *table, int size)
{
    return table->compute[size].smooth + (table->decode.smooth << size);
}

/* The best that one picture has ever taken. */
static uint64_t best_of(const struct table *table)
{
    const struct cost *one = &table->compute[0];

    return (one->best ? one->best : one->smooth) + table->decode.best;
}

static int sizes(const struct model *model)
{
    int count = 1;

    while (count < SAC_BATCH_SIZES && 1 << count <= model->batch_max)
        count++;
    return count;
}

static void summarise(struct sac_scheduler *s, struct model *model)
{
    double rate = 0;
    uint64_t first = UINT64_MAX;

    for (int l = 0; l < s->lane_count; l++) {
        const struct table *table = &model->lanes[l];
        if (!s->lanes[l].up)
            continue;
        rate += 1 / table->job_ns;
        first = best_of(table) < first ? best_of(table) : first;
    }
    model->best_ns = first == UINT64_MAX ? unknown_ns : first;
    model->job_ns = rate > 0 ? 1 / rate : (double)unknown_ns;
}

static void summarise_table(const struct model *model, struct table *table)
{
    table->job_ns = (double)time_of(table, 0);
    table->size_best = 0;
    for (int k = 1; k < sizes(model); k++) {
        double each = (double)time_of(table, k) / (1 << k);
        if (each < table->job_ns) {
            table->job_ns = each;
            table->size_best = k;
        }
    }
}

static void table_init(const struct model *model, struct table *table)
{
    for (int k = 0; k < SAC_BATCH_SIZES; k++)
        table->compute[k].smooth = unknown_ns << k;
    summarise_table(model, table);
}

/* A hiccup counts as twice the usual at most: a lane that the system stopped for
 * a second is not slow. */
static void cost_note(struct cost *cost, uint64_t took_ns)
{
    took_ns = took_ns ? took_ns : 1;
    uint64_t counted = took_ns < 2 * cost->smooth ? took_ns : 2 * cost->smooth;
    if (!cost->best || cost->guessed)
        cost->smooth = took_ns;
    else
        cost->smooth += counted / SMOOTHING - cost->smooth / SMOOTHING;
    cost->best = cost->best && cost->best < took_ns ? cost->best : took_ns;
    cost->guessed = false;
    cost->age = 0;
}

/* Sizes never measured follow from the one that was. Sizes long unused go back
 * to their best, larger ones to a little better than in proportion: tried again,
 * so that a bad moment, at warm-up even, does not bar them for ever. */
static void refresh_others(struct table *table, int size)
{
    for (int k = 0; k < SAC_BATCH_SIZES; k++) {
        struct cost *cost = &table->compute[k];
        if (k == size)
            continue;
        uint64_t known = table->compute[size].smooth;
        uint64_t like = (k > size ? known << (k - size) : known >> (size - k)) + 1;
        if (!cost->best) {
            cost->smooth = like;
        } else if (++cost->age >= STALE_NOTES) {
            like -= like / 8;
            cost->smooth = k > size && like < cost->best ? like : cost->best;
            cost->guessed = true;
            cost->age = 0;
        }
    }
}

/* What one picture takes the lane that does it soonest, decoding apart: lanes are cores,
 * and one that was measured badly does not say what they can do together. */
static uint64_t alone_ns(const struct sac_scheduler *s, const struct model *model)
{
    uint64_t first = UINT64_MAX;

    for (int l = 0; l < s->lane_count; l++)
        if (s->lanes[l].up && model->lanes[l].compute[0].smooth < first)
            first = model->lanes[l].compute[0].smooth;
    return first == UINT64_MAX ? unknown_ns : first;
}

/* What was never measured is hoped for, what was long unused hoped for again; measurements
 * then move the hope, one hiccup does not end it. */
static void hope_for_together(const struct sac_scheduler *s, struct model *model)
{
    struct cost *cost = &model->lanes[s->leader].together;

    if (cost->best && ++cost->age < STALE_NOTES)
        return;
    cost->smooth = alone_ns(s, model) / 8 * 5;
    cost->best = cost->smooth;
    cost->age = 0;
}

void sac_scheduler_note(struct sac_scheduler *s, int lane, int model_index, int count,
                        uint64_t decode_ns, uint64_t compute_ns)
{
    struct model *model = s->models[model_index];
    struct table *table = &model->lanes[lane];

    if (count < 1 || count > SAC_BATCH_MAX)
        return;
    if (decode_ns)
        cost_note(&table->decode, decode_ns / (unsigned)count);
    if ((count & (count - 1)) == 0) { /* others arise when a picture failed to decode */
        int size = __builtin_ctz((unsigned)count);
        cost_note(&table->compute[size], compute_ns);
        refresh_others(table, size);
    }
    if (s->leader >= 0 && model->lanes[s->leader].leads)
        hope_for_together(s, model);
    summarise_table(model, table);
    summarise(s, model);
}

void sac_scheduler_note_together(struct sac_scheduler *s, int model, uint64_t decode_ns,
                                 uint64_t compute_ns)
{
    struct table *table = &s->models[model]->lanes[s->leader];

    cost_note(&table->decode, decode_ns);
    cost_note(&table->together, compute_ns);
    summarise_table(s->models[model], table);
    summarise(s, s->models[model]);
}

uint64_t sac_scheduler_latency(const struct sac_scheduler *s, int lane, int model, int size)
{
    if (lane < 0 || lane >= s->lane_count || model < 0 || model >= s->model_count || size < 0 ||
        size >= SAC_BATCH_SIZES)
        return 0;
    return time_of(&s->models[model]->lanes[lane], size);
}

/* Models and lanes. */

int sac_scheduler_add_model(struct sac_scheduler *s, int batch_max, int priority)
{
    if (s->model_count == SAC_MODELS_MAX)
        return SAC_ELIMIT;
    struct model *model = calloc(1, sizeof *model);
    if (!model)
        return SAC_ENOMEM;
    model->batch_max = batch_max < 1 ? 1 : batch_max > SAC_BATCH_MAX ? SAC_BATCH_MAX : batch_max;
    model->priority = priority < 0 ? 0 : priority > PRIORITY_MAX ? PRIORITY_MAX : priority;
    model->queue.next = model->queue.prev = &model->queue;
    for (int l = 0; l < SAC_LANES_MAX; l++)
        table_init(model, &model->lanes[l]);
    summarise(s, model);
    s->models[s->model_count] = model;
    return s->model_count++;
}

void sac_scheduler_limit(struct sac_scheduler *s, int model, int batch_max)
{
    if (batch_max >= 1 && batch_max < s->models[model]->batch_max)
        s->models[model]->batch_max = batch_max;
}

static void summarise_all(struct sac_scheduler *s)
{
    for (int m = 0; m < s->model_count; m++)
        summarise(s, s->models[m]);
}

int sac_scheduler_add_lane(struct sac_scheduler *s)
{
    if (s->lane_count == SAC_LANES_MAX)
        return SAC_ELIMIT;
    s->lanes[s->lane_count++] = (struct lane){.up = true};
    s->lanes_up++;
    summarise_all(s);
    return s->lane_count - 1;
}

void sac_scheduler_lead(struct sac_scheduler *s, int lane, int model)
{
    struct table *table = &s->models[model]->lanes[lane];

    assert(s->leader < 0 || s->leader == lane);
    s->leader = lane;
    table->leads = true;
    table->together = (struct cost){0};
    hope_for_together(s, s->models[model]);
}

void sac_scheduler_lane_up(struct sac_scheduler *s, int lane)
{
    s->lanes_up += !s->lanes[lane].up;
    s->lanes[lane].up = true;
    s->lanes[lane].batches = 0;
    summarise_all(s);
}

/* Queues. */

static void link_before(struct sac_job *job, struct sac_job *next)
{
    job->next = next;
    job->prev = next->prev;
    next->prev->next = job;
    next->prev = job;
}

static void enqueue(struct sac_scheduler *s, struct sac_job *job, struct sac_job *next)
{
    link_before(job, next);
    atomic_store_explicit(&job->in, s, memory_order_relaxed);
    s->models[job->model]->waiting++;
    s->queued++;
}

static void unlink_job(struct sac_scheduler *s, struct sac_job *job)
{
    job->prev->next = job->next;
    job->next->prev = job->prev;
    job->next = job->prev = NULL;
    atomic_store_explicit(&job->in, NULL, memory_order_relaxed);
    s->models[job->model]->waiting--;
    s->queued--;
}

/* A job of this list has no `prev`: it is not queued. */
static void drop(struct sac_scheduler_drops *drops, struct sac_job *job, int code)
{
    job->drop_code = code;
    job->next = drops->first;
    drops->first = job;
}

bool sac_scheduler_remove(struct sac_scheduler *s, struct sac_job *job)
{
    if (atomic_load_explicit(&job->in, memory_order_relaxed) != s)
        return false;
    unlink_job(s, job);
    s->counters.canceled++;
    return true;
}

int sac_scheduler_queued(const struct sac_scheduler *s)
{
    return s->queued;
}

/* When a lane can take the next batch. One that is over its time is believed to
 * need as long again as it is late: a lane that hangs is not waited for. */
static uint64_t free_at(const struct sac_scheduler *s, int index, uint64_t now)
{
    const struct lane *lane = &s->lanes[s->lent ? s->leader : index];

    if (!lane->batches)
        return now;
    return lane->until_ns > now ? lane->until_ns : now + (now - lane->until_ns);
}

static bool is_any_busy(const struct sac_scheduler *s)
{
    for (int l = 0; l < s->lane_count; l++)
        if (s->lanes[l].batches)
            return true;
    return false;
}

static double backlog_ns(const struct sac_scheduler *s)
{
    double sum = 0;

    for (int m = 0; m < s->model_count; m++)
        sum += s->models[m]->waiting * s->models[m]->job_ns;
    return sum;
}

static int refuse(int *ret_retry_ms, double wait_ns)
{
    *ret_retry_ms = wait_ns < 1e6 ? 1 : wait_ns > 60e9 ? 60000 : (int)(wait_ns / 1e6);
    return SAC_EBUSY;
}

/* The earliest end of a job behind what is queued: when a lane is free, plus the
 * backlog, plus the best that a lane has shown for one picture. */
static double earliest_end(const struct sac_scheduler *s, const struct model *model, uint64_t now,
                           double backlog)
{
    uint64_t first = UINT64_MAX;

    for (int l = 0; l < s->lane_count; l++) {
        uint64_t wait = free_at(s, l, now) - now;
        if (s->lanes[l].up && wait < first)
            first = wait;
    }
    return (double)first + backlog + (double)model->best_ns;
}

static bool is_full(const struct sac_scheduler *s, double backlog)
{
    if (s->queue_max > 0)
        return s->queued >= s->queue_max;
    return s->queued >= QUEUE_MAX || (s->queued >= QUEUE_MIN && backlog > (double)queue_ns_max);
}

int sac_scheduler_submit(struct sac_scheduler *s, struct sac_job *job, uint64_t now,
                         int *ret_retry_ms, struct sac_error *err)
{
    struct model *model = s->models[job->model];
    double backlog = backlog_ns(s);

    assert(job->model >= 0 && job->model < s->model_count && !job->prev);
    if (s->lanes_up == 0) {
        s->counters.refused_full++;
        sac_fail(err, SAC_EBUSY, "no device is left to run on");
        return refuse(ret_retry_ms, 1e9);
    }
    if (is_full(s, backlog)) {
        s->counters.refused_full++;
        sac_fail(err, SAC_EBUSY, "the queue is full: %d pictures wait", s->queued);
        return refuse(ret_retry_ms, backlog);
    }
    double need = earliest_end(s, model, now, backlog);
    if (job->deadline_ns && (double)now + need > (double)job->deadline_ns) {
        double left = job->deadline_ns > now ? (double)(job->deadline_ns - now) : 0;
        s->counters.refused_late++;
        sac_fail(err, SAC_EBUSY, "the deadline cannot be met: %.1f ms left, %.1f ms needed",
                 left / 1e6, need / 1e6);
        return refuse(ret_retry_ms, backlog);
    }
    job->arrived_ns = now;
    s->arrived_ns[1] = s->arrived_ns[0];
    s->arrived_ns[0] = now;
    s->overlap += ((s->queued > 0 || is_any_busy(s)) - s->overlap) / OVERLAP_SMOOTHING;
    job->failures = 0;
    enqueue(s, job, &model->queue);
    s->counters.submitted++;
    return 0;
}

uint64_t sac_scheduler_expect(const struct sac_scheduler *s, int model, uint64_t now)
{
    return s->lanes_up ? (uint64_t)earliest_end(s, s->models[model], now, backlog_ns(s))
                       : UINT64_MAX;
}

/* What to take. */

/* Takes from the queue's front what no lane can make, even at its best. */
static void drop_late(struct sac_scheduler *s, struct model *model, uint64_t now,
                      struct sac_scheduler_drops *drops)
{
    struct sac_job *job = model->queue.next;

    for (int live = 0; live < model->batch_max && job != &model->queue;) {
        struct sac_job *next = job->next;
        if (job->deadline_ns && now + model->best_ns > job->deadline_ns) {
            unlink_job(s, job);
            drop(drops, job, SAC_ETIMEDOUT);
            s->counters.timed_out++;
        } else {
            live++;
        }
        job = next;
    }
}

/* How many pictures a lane gets done in `span`, at most `enough`, in batches of
 * fewer than 2^sizes. */
static int capacity(const struct table *table, int sizes_max, uint64_t span, int enough)
{
    int done = 0, most = table->size_best < sizes_max ? table->size_best : sizes_max - 1;

    for (int k = most; k >= 0 && done < enough; k--) {
        uint64_t each = time_of(table, k), times = span / each;
        if (1 << k > enough - done)
            continue;
        if (times >= (uint64_t)(enough - done))
            return enough;
        done += (int)times << k;
        span -= times * each;
    }
    return done < enough ? done : enough;
}

/* Whether the lane's cores and those of the others do one picture sooner together. */
static bool is_sooner_together(const struct sac_scheduler *s, const struct model *model, int lane)
{
    const struct table *table = &model->lanes[lane];

    if (!table->leads || s->lanes_up < 2)
        return false;
    uint64_t alone = alone_ns(s, model);
    return table->together.smooth < alone - alone / 16;
}

/* What one picture takes on the lane, as things are. */
static uint64_t time_of_one(const struct sac_scheduler *s, const struct model *model, int lane)
{
    const struct table *table = &model->lanes[lane];

    if (model->waiting == 1 && !is_any_busy(s) && is_sooner_together(s, model, lane))
        return table->decode.smooth + table->together.smooth;
    return time_of(table, 0);
}

bool sac_scheduler_join(struct sac_scheduler *s, int lane, int model_index, uint64_t now)
{
    const struct model *model = s->models[model_index];
    uint64_t took = model->lanes[lane].together.smooth, before = s->arrived_ns[1];

    if (lane != s->leader || s->queued > 0 || !is_sooner_together(s, model, lane) ||
        (before && now - before < took) || s->overlap > overlap_max)
        return false;
    for (int l = 0; l < s->lane_count; l++)
        if (l == lane ? s->lanes[l].batches != 1 : s->lanes[l].batches > 0)
            return false;
    s->lanes[lane].until_ns = now + took;
    s->lent = true;
    s->counters.together++;
    return true;
}

/* An idle lane that has let a picture wait so long gets no core: it is not to be
 * counted on, however fast it has been. */
static bool is_stuck(const struct lane *lane, const struct model *model, uint64_t now)
{
    uint64_t arrived = model->queue.next->arrived_ns;

    return !lane->batches && now > arrived && now - arrived > patience_ns;
}

/* Would all lanes together have `work` pictures done before this lane has done
 * its batch, from when it is free? Others must be sooner by a sixteenth, lest noise
 * in equal lanes' tables leave one idle. */
static bool others_sooner(const struct sac_scheduler *s, const struct model *model, int lane,
                          int size, uint64_t now, int work)
{
    uint64_t took = size == 0 ? time_of_one(s, model, lane) : time_of(&model->lanes[lane], size);
    uint64_t end = free_at(s, lane, now) + took - took / 16;
    int done = capacity(&model->lanes[lane], size, took - 1, work);

    for (int l = 0; l < s->lane_count && done < work; l++) {
        uint64_t from = free_at(s, l, now);
        if (l != lane && s->lanes[l].up && end > from && !is_stuck(&s->lanes[l], model, now))
            done += capacity(&model->lanes[l], SAC_BATCH_SIZES, end - from, work - done);
    }
    return done >= work;
}

/* All that waits, counted in pictures of this model. */
static int work_of(const struct sac_scheduler *s, const struct model *model)
{
    double work = model->waiting + (backlog_ns(s) - model->waiting * model->job_ns) / model->job_ns;

    return work > 1e6 ? 1000000 : (int)work < model->waiting ? model->waiting : (int)work;
}

/* While none works, the fastest lane leaves nothing to others: they may reckon
 * likewise, and nobody would take it. */
static bool must_take(const struct sac_scheduler *s, const struct model *model, int lane,
                      uint64_t now)
{
    uint64_t one = time_of_one(s, model, lane);

    for (int l = 0; l < s->lane_count; l++)
        if (s->lanes[l].up && l != lane && time_of_one(s, model, l) < one &&
            !is_stuck(&s->lanes[l], model, now))
            return false;
    return !is_any_busy(s);
}

/* log2 of the batch, or −1 when the lane should leave the jobs to others. */
static int choose_size(const struct sac_scheduler *s, const struct model *model, int lane,
                       uint64_t now)
{
    const struct table *table = &model->lanes[lane];
    const struct sac_job *job = model->queue.next;
    uint64_t earliest = UINT64_MAX;
    int work = work_of(s, model), best = -1, seen = 0;

    for (int k = 0; k < sizes(model) && 1 << k <= model->waiting; k++) {
        uint64_t took = time_of(table, k);
        for (; seen < 1 << k; seen++, job = job->next)
            if (job->deadline_ns && job->deadline_ns < earliest)
                earliest = job->deadline_ns;
        if (k > 0 && now + took > earliest)
            break;
        if (others_sooner(s, model, lane, k, now, work))
            continue; /* a larger batch may take no longer */
        if (best < 0 ||
            (double)time_of(table, best) * (1 << k) >= 1.05 * (double)took * (1 << best))
            best = k;
    }
    return best < 0 && must_take(s, model, lane, now) ? 0 : best;
}

/* log2 of the batch to take while another runs, or −1. */
static int choose_ahead(const struct sac_scheduler *s, const struct model *model, int lane,
                        uint64_t now)
{
    const struct table *table = &model->lanes[lane];
    const struct sac_job *job = model->queue.next;
    uint64_t end = free_at(s, lane, now) + time_of(table, table->size_best);

    if (model->waiting < 1 << table->size_best)
        return -1;
    for (int i = 0; i < 1 << table->size_best; i++, job = job->next)
        if (job->deadline_ns && job->deadline_ns < end)
            return -1; /* a smaller one may meet it, later */
    return others_sooner(s, model, lane, table->size_best, now, work_of(s, model))
               ? -1
               : table->size_best;
}

/* The model to serve next, but for those in the mask; −1: none has work. */
static int choose_model(const struct sac_scheduler *s, uint64_t but, uint64_t now)
{
    double most = -1;
    int best = -1;

    for (int m = 0; m < s->model_count; m++) {
        const struct model *model = s->models[m];
        if (!model->waiting || (but >> m & 1))
            continue;
        uint64_t arrived = model->queue.next->arrived_ns;
        double waited = (double)(now > arrived ? now - arrived : 0) + 1;
        if (waited * (1 + model->priority) > most) {
            most = waited * (1 + model->priority);
            best = m;
        }
    }
    return best;
}

static int start(struct sac_scheduler *s, int lane_index, struct model *model, int size,
                 uint64_t now, struct sac_job **jobs)
{
    struct lane *lane = &s->lanes[lane_index];
    int count = 1 << size;

    for (int i = 0; i < count; i++) {
        jobs[i] = model->queue.next;
        unlink_job(s, jobs[i]);
        jobs[i]->started_ns = now;
    }
    lane->until_ns = free_at(s, lane_index, now) + time_of(&model->lanes[lane_index], size);
    lane->running[lane->batches++] = count;
    s->counters.running += count;
    s->counters.batches++;
    s->counters.batch_sizes[count]++;
    return count;
}

static int take(struct sac_scheduler *s, int lane, uint64_t now, struct sac_job **jobs,
                struct sac_scheduler_drops *drops)
{
    bool ahead = s->lanes[lane].batches > 0;
    uint64_t declined = 0;
    int m;

    while ((m = choose_model(s, declined, now)) >= 0) {
        struct model *model = s->models[m];
        drop_late(s, model, now, drops);
        int size = !model->waiting ? -1
                   : ahead         ? choose_ahead(s, model, lane, now)
                                   : choose_size(s, model, lane, now);
        if (size >= 0)
            return start(s, lane, model, size, now, jobs);
        declined |= 1ull << m;
    }
    return 0;
}

int sac_scheduler_take(struct sac_scheduler *s, int lane, uint64_t now, struct sac_job **jobs,
                       struct sac_scheduler_drops *drops)
{
    if (!s->lanes[lane].up || s->lanes[lane].batches > 0 || s->lent)
        return 0;
    return take(s, lane, now, jobs, drops);
}

int sac_scheduler_take_ahead(struct sac_scheduler *s, int lane, uint64_t now, struct sac_job **jobs,
                             struct sac_scheduler_drops *drops)
{
    return s->lanes[lane].up && s->lanes[lane].batches == 1 ? take(s, lane, now, jobs, drops) : 0;
}

int sac_scheduler_wake(const struct sac_scheduler *s, uint64_t but, uint64_t now, bool *ret_leave)
{
    uint64_t first = UINT64_MAX;
    int m = choose_model(s, 0, now), best = -1;

    if (m < 0 || s->lent)
        return -1;
    for (int l = 0; l < s->lane_count; l++) {
        uint64_t one = time_of_one(s, s->models[m], l);
        if (s->lanes[l].up && !s->lanes[l].batches && !(but >> l & 1) && one < first) {
            first = one;
            best = l;
        }
    }
    *ret_leave = best >= 0 && is_any_busy(s) &&
                 others_sooner(s, s->models[m], best, 0, now, work_of(s, s->models[m]));
    return best;
}

uint64_t sac_scheduler_look_again(const struct sac_scheduler *s, int lane, uint64_t now)
{
    uint64_t first = UINT64_MAX;

    for (int l = 0; l < s->lane_count; l++) {
        const struct lane *other = &s->lanes[l];
        if (l != lane && other->up && other->batches && free_at(s, l, now) < first)
            first = free_at(s, l, now);
    }
    return first == UINT64_MAX ? look_again_ns : first - now + grace_ns;
}

void sac_scheduler_done(struct sac_scheduler *s, int index)
{
    struct lane *lane = &s->lanes[index];

    assert(lane->batches > 0);
    s->counters.running -= lane->running[0];
    s->counters.completed += (uint64_t)lane->running[0];
    lane->running[0] = lane->running[1];
    lane->batches--;
    if (index == s->leader)
        s->lent = false;
}

static void drop_all(struct sac_scheduler *s, struct sac_scheduler_drops *drops)
{
    for (int m = 0; m < s->model_count; m++) {
        struct sac_job *end = &s->models[m]->queue;
        while (end->next != end) {
            struct sac_job *job = end->next;
            unlink_job(s, job);
            drop(drops, job, SAC_EDEVICE);
            s->counters.lost++;
        }
    }
}

void sac_scheduler_lane_down(struct sac_scheduler *s, int index, struct sac_job **jobs, int count,
                             struct sac_scheduler_drops *drops)
{
    struct lane *lane = &s->lanes[index];
    int running = 0;

    for (int i = 0; i < lane->batches; i++)
        running += lane->running[i];
    s->lanes_up -= lane->up;
    s->counters.running -= running;
    s->counters.completed += (uint64_t)(running > count ? running - count : 0);
    *lane = (struct lane){0};
    if (index == s->leader)
        s->lent = false;
    summarise_all(s);
    while (count-- > 0) { /* from the last, each to the head: the order stays */
        struct sac_job *job = jobs[count];
        struct model *model = s->models[job->model];
        if (++job->failures >= FAILURES_MAX) {
            drop(drops, job, SAC_EDEVICE);
            s->counters.lost++;
            continue;
        }
        enqueue(s, job, model->queue.next);
    }
    if (s->lanes_up == 0)
        drop_all(s, drops);
}

void sac_scheduler_counters(const struct sac_scheduler *s, struct sac_batcher_counters *ret)
{
    *ret = s->counters;
    ret->queued = s->queued;
    ret->lanes_up = s->lanes_up;
}
