#include "cli/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/file.h"
#include "cli/pictures.h"

enum { WORKERS_MAX = 64, CHUNKS_A_WORKER = 4 };

/* Some consecutive pictures; one stands in the ring from being taken until its
 * results have been given out. */
struct chunk {
    struct sac_pool_picture *pictures;
    int count;
    bool done;
};

struct pool {
    struct sac_engine *engine;
    bool pins; /* each worker has a core of its own */
    char *const *paths;
    size_t path_count;
    int chunk_size;
    size_t chunk_count, ring_size;
    struct chunk *ring; /* chunk i stands at i % ring_size */
    struct sac_topk_pair *pairs;

    pthread_mutex_t lock; /* guards what follows, and every chunk's `done` */
    pthread_cond_t changed;
    size_t next;  /* the chunk to be taken next */
    size_t given; /* chunks given out */
    struct sac_error failure;
};

struct worker {
    struct pool *pool;
    int index;
    pthread_t thread;
};

static void fail_pool(struct pool *pool, const struct sac_error *err)
{
    pthread_mutex_lock(&pool->lock);
    if (!pool->failure.code)
        pool->failure = *err;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

/* The next chunk once the ring has room; NULL at the end or after a failure. */
static struct chunk *take_chunk(struct pool *pool)
{
    struct chunk *chunk = NULL;

    pthread_mutex_lock(&pool->lock);
    while (!pool->failure.code && pool->next < pool->chunk_count &&
           pool->next - pool->given >= pool->ring_size)
        pthread_cond_wait(&pool->changed, &pool->lock);
    if (!pool->failure.code && pool->next < pool->chunk_count) {
        size_t first = pool->next * (size_t)pool->chunk_size;
        size_t left = pool->path_count - first;
        chunk = &pool->ring[pool->next++ % pool->ring_size];
        chunk->count = left < (size_t)pool->chunk_size ? (int)left : pool->chunk_size;
        for (int i = 0; i < chunk->count; i++) {
            chunk->pictures[i].path = pool->paths[first + (size_t)i];
            chunk->pictures[i].err.code = 0;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return chunk;
}

static void finish_chunk(struct pool *pool, struct chunk *chunk)
{
    pthread_mutex_lock(&pool->lock);
    chunk->done = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

static void decode_file(struct sac_classifier *classifier, int slot,
                        struct sac_pool_picture *picture)
{
    uint8_t *bytes = NULL;
    size_t size;

    if (sac_file_read(picture->path, SAC_PICTURE_BYTES_MAX, &bytes, &size, &picture->err) == 0 &&
        sac_classifier_decode(classifier, slot, bytes, size, NULL, &picture->err))
        sac_error_prefix(&picture->err, "%s", picture->path);
    free(bytes);
}

static int classify_chunk(struct sac_classifier *classifier, struct chunk *chunk, int topk,
                          struct sac_error *err)
{
    int good = 0;

    for (int i = 0; i < chunk->count; i++) {
        decode_file(classifier, good, &chunk->pictures[i]);
        good += chunk->pictures[i].err.code == 0;
    }
    int rc = good ? sac_classifier_run(classifier, good, err) : 0;
    for (int i = 0, slot = 0; rc == 0 && i < chunk->count; i++)
        if (chunk->pictures[i].err.code == 0)
            memcpy(chunk->pictures[i].pairs, sac_classifier_result(classifier, slot++),
                   (size_t)topk * sizeof(struct sac_topk_pair));
    return rc;
}

static void *work(void *user)
{
    struct worker *worker = user;
    struct pool *pool = worker->pool;
    struct sac_classifier *classifier = NULL;
    struct sac_error err = {0};
    struct chunk *chunk;

    if (pool->pins)
        sac_cpu_pin(worker->index);
    int rc = sac_classifier_new(&classifier, pool->engine, &err);
    while (rc == 0 && (chunk = take_chunk(pool))) {
        rc = classify_chunk(classifier, chunk, sac_engine_topk(pool->engine), &err);
        if (rc == 0)
            finish_chunk(pool, chunk);
    }
    if (rc)
        fail_pool(pool, &err);
    sac_classifier_free(classifier);
    return NULL;
}

/* Gives the chunks out in order as they are done. */
static void give_out(struct pool *pool, sac_pool_result *result, void *user)
{
    for (size_t i = 0; i < pool->chunk_count; i++) {
        struct chunk *chunk = &pool->ring[i % pool->ring_size];
        pthread_mutex_lock(&pool->lock);
        while (!chunk->done && !pool->failure.code)
            pthread_cond_wait(&pool->changed, &pool->lock);
        bool done = chunk->done;
        pthread_mutex_unlock(&pool->lock);
        if (!done)
            return;
        for (int j = 0; j < chunk->count; j++)
            result(&chunk->pictures[j], user);
        pthread_mutex_lock(&pool->lock);
        chunk->done = false;
        pool->given++;
        pthread_cond_broadcast(&pool->changed);
        pthread_mutex_unlock(&pool->lock);
    }
}

static int make_ring(struct pool *pool, int workers, struct sac_error *err)
{
    size_t topk = (size_t)sac_engine_topk(pool->engine);

    pool->ring_size = (size_t)workers * CHUNKS_A_WORKER;
    size_t pictures = pool->ring_size * (size_t)pool->chunk_size;
    pool->ring = calloc(pool->ring_size, sizeof *pool->ring);
    pool->pairs = calloc(pictures * topk, sizeof *pool->pairs);
    struct sac_pool_picture *all = calloc(pictures, sizeof *all);
    if (!pool->ring || !pool->pairs || !all) {
        free(all);
        return sac_fail(err, SAC_ENOMEM, "out of memory for %zu pictures at once", pictures);
    }
    for (size_t i = 0; i < pictures; i++)
        all[i].pairs = pool->pairs + i * topk;
    for (size_t i = 0; i < pool->ring_size; i++)
        pool->ring[i].pictures = all + i * (size_t)pool->chunk_size;
    return 0;
}

static void free_ring(struct pool *pool)
{
    if (pool->ring)
        free(pool->ring[0].pictures);
    free(pool->ring);
    free(pool->pairs);
}

/* Starts `count` threads; how many started goes to *ret_started. */
static int start(struct worker *workers, int count, struct pool *pool, int *ret_started,
                 struct sac_error *err)
{
    for (int i = 0; i < count; i++) {
        workers[i] = (struct worker){.pool = pool, .index = i};
        int number = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
        if (number)
            return sac_fail_errno(err, number, "a worker could not be started");
        *ret_started = i + 1;
    }
    return 0;
}

int sac_pool_classify(struct sac_engine *engine, int worker_count, char *const *paths, size_t count,
                      sac_pool_result *result, void *user, struct sac_error *err)
{
    struct pool pool = {.engine = engine,
                        .paths = paths,
                        .path_count = count,
                        .chunk_size = sac_engine_batch_max(engine),
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER};
    struct worker workers[WORKERS_MAX];
    int started = 0;

    pool.chunk_count = (count + (size_t)pool.chunk_size - 1) / (size_t)pool.chunk_size;
    if (worker_count > WORKERS_MAX)
        worker_count = WORKERS_MAX;
    if ((size_t)worker_count > pool.chunk_count)
        worker_count = (int)pool.chunk_count;
    if (worker_count == 0)
        return 0;
    pool.pins = sac_cpu_is_pinning_wise(worker_count);
    int rc = make_ring(&pool, worker_count, err);
    if (rc == 0)
        rc = start(workers, worker_count, &pool, &started, err);
    if (rc == 0)
        give_out(&pool, result, user);
    else
        fail_pool(&pool, err);
    for (int i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    if (rc == 0 && pool.failure.code) {
        *err = pool.failure;
        rc = err->code;
    }
    free_ring(&pool);
    return rc;
}
