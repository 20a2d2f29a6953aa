#include "dataset/pipeline.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cpu.h"

enum { THREADS_MAX = 256, SLOTS_A_THREAD = 8 };

struct place {
    bool done;
    int rc;
    struct sac_error err;
};

struct run {
    const struct sac_pipeline *pipeline;
    void *user;
    int slots;
    struct place *places; /* slots */
    char *memory;         /* slots × slot_size */
    pthread_mutex_t lock; /* guards what follows, and each place's `done` */
    pthread_cond_t work, done;
    int64_t next, taken; /* the items that are begun next, and taken next */
    int failed_workers;  /* that could not begin */
    int threads;
    bool stop;
    struct sac_error failed;
};

static void *slot_of(const struct run *run, int64_t index)
{
    size_t slot = (size_t)((index - run->pipeline->begin) % run->slots);

    return run->memory + slot * run->pipeline->slot_size;
}

static struct place *place_of(const struct run *run, int64_t index)
{
    return &run->places[(index - run->pipeline->begin) % run->slots];
}

/* The next item to work on; −1: no more. */
static int64_t claim(struct run *run)
{
    int64_t index = -1;

    pthread_mutex_lock(&run->lock);
    while (!run->stop && run->next < run->pipeline->end && run->next - run->taken >= run->slots)
        pthread_cond_wait(&run->work, &run->lock);
    if (!run->stop && run->next < run->pipeline->end)
        index = run->next++;
    pthread_mutex_unlock(&run->lock);
    return index;
}

static void work_on(struct run *run, void *worker, int64_t index)
{
    struct place *place = place_of(run, index);

    place->err = (struct sac_error){0};
    place->rc = run->pipeline->work(run->user, worker, index, slot_of(run, index), &place->err);
    pthread_mutex_lock(&run->lock);
    place->done = true;
    if (index == run->taken)
        pthread_cond_signal(&run->done);
    pthread_mutex_unlock(&run->lock);
}

/* A thread that cannot begin is missed only if all are. */
static void give_up(struct run *run, const struct sac_error *err)
{
    pthread_mutex_lock(&run->lock);
    run->failed_workers++;
    run->failed = *err;
    pthread_cond_signal(&run->done);
    pthread_mutex_unlock(&run->lock);
}

static void *work(void *context)
{
    struct run *run = context;
    const struct sac_pipeline *pipeline = run->pipeline;
    struct sac_error err = {0};
    void *worker = NULL;

    if (pipeline->worker_new && pipeline->worker_new(run->user, &worker, &err) < 0) {
        give_up(run, &err);
        return NULL;
    }
    for (int64_t index = claim(run); index >= 0; index = claim(run))
        work_on(run, worker, index);
    if (pipeline->worker_free)
        pipeline->worker_free(worker);
    return NULL;
}

/* Waits for the item that is taken next; false: nobody works. */
static bool await(struct run *run)
{
    struct place *place = place_of(run, run->taken);

    pthread_mutex_lock(&run->lock);
    while (!place->done && run->failed_workers < run->threads)
        pthread_cond_wait(&run->done, &run->lock);
    bool done = place->done;
    pthread_mutex_unlock(&run->lock);
    return done;
}

static int take_all(struct run *run, struct sac_error *err)
{
    while (run->taken < run->pipeline->end) {
        if (!await(run))
            return sac_fail(err, run->failed.code, "%s", run->failed.text);
        struct place *place = place_of(run, run->taken);
        int rc = place->rc;
        if (rc < 0)
            return sac_fail(err, rc, "%s", place->err.text);
        rc = run->pipeline->take(run->user, run->taken, slot_of(run, run->taken), err);
        if (rc < 0)
            return rc;
        pthread_mutex_lock(&run->lock);
        place->done = false;
        run->taken++;
        pthread_cond_signal(&run->work);
        pthread_mutex_unlock(&run->lock);
    }
    return 0;
}

static int run_threads(struct run *run, struct sac_error *err)
{
    pthread_t threads[THREADS_MAX];
    int wanted = run->threads, started = 0, rc = 0;

    while (started < wanted && pthread_create(&threads[started], NULL, work, run) == 0)
        started++;
    pthread_mutex_lock(&run->lock);
    run->threads = started;
    pthread_mutex_unlock(&run->lock);
    rc = started ? take_all(run, err) : sac_fail(err, SAC_ENOMEM, "no thread could be started");
    pthread_mutex_lock(&run->lock);
    run->stop = true;
    pthread_cond_broadcast(&run->work);
    pthread_mutex_unlock(&run->lock);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    return rc;
}

int sac_pipeline_run(const struct sac_pipeline *pipeline, void *user, struct sac_error *err)
{
    int threads = pipeline->threads > 0 ? pipeline->threads : sac_cpu_count();
    struct run run = {
        .pipeline = pipeline, .user = user, .next = pipeline->begin, .taken = pipeline->begin};
    int rc = 0;

    run.threads = threads < THREADS_MAX ? threads : THREADS_MAX;
    run.slots = pipeline->slots > 0 ? pipeline->slots : run.threads * SLOTS_A_THREAD;
    run.places = calloc((size_t)run.slots, sizeof *run.places);
    run.memory = calloc((size_t)run.slots, pipeline->slot_size ? pipeline->slot_size : 1);
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.work, NULL);
    pthread_cond_init(&run.done, NULL);
    if (!run.places || !run.memory)
        rc = sac_fail(err, SAC_ENOMEM, "no memory for %d items", run.slots);
    else if (pipeline->begin < pipeline->end)
        rc = run_threads(&run, err);
    for (int i = 0; run.memory && pipeline->slot_done && i < run.slots; i++)
        pipeline->slot_done(run.memory + (size_t)i * pipeline->slot_size);
    pthread_cond_destroy(&run.done);
    pthread_cond_destroy(&run.work);
    pthread_mutex_destroy(&run.lock);
    free(run.memory);
    free(run.places);
    return rc;
}
