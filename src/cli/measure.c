#include "cli/measure.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/file.h"
#include "cli/pictures.h"

enum { WORKERS_MAX = 64, SAMPLES_MAX = 1 << 16 };

struct bytes {
    uint8_t *at;
    size_t size;
};

struct race {
    struct sac_engine *engine;
    const struct bytes *pictures;
    size_t count;
    int batch;
    uint64_t run_ns;
    pthread_mutex_t lock; /* guards ready and go */
    pthread_cond_t changed;
    int ready;
    bool go;
};

struct runner {
    struct race *race;
    int index;
    pthread_t thread;
    struct sac_error err;
    double *samples; /* milliseconds a batch; the first SAMPLES_MAX */
    size_t batches;
    uint64_t took_ns, decode_ns;
};

static int run_batch(struct runner *runner, struct sac_classifier *classifier, size_t first)
{
    const struct race *race = runner->race;
    uint64_t began_ns = sac_clock_ns();
    int rc = 0;

    for (int i = 0; rc == 0 && i < race->batch; i++) {
        const struct bytes *picture = &race->pictures[(first + (size_t)i) % race->count];
        rc = sac_classifier_decode(classifier, i, picture->at, picture->size, NULL, &runner->err);
    }
    uint64_t decoded_ns = sac_clock_ns();
    if (rc == 0)
        rc = sac_classifier_run(classifier, race->batch, &runner->err);
    runner->decode_ns += decoded_ns - began_ns;
    if (runner->batches < SAMPLES_MAX)
        runner->samples[runner->batches] = (double)(sac_clock_ns() - began_ns) / 1e6;
    runner->batches++;
    return rc;
}

static void wait_for_go(struct race *race)
{
    pthread_mutex_lock(&race->lock);
    race->ready++;
    pthread_cond_broadcast(&race->changed);
    while (!race->go)
        pthread_cond_wait(&race->changed, &race->lock);
    pthread_mutex_unlock(&race->lock);
}

static void *run(void *user)
{
    struct runner *runner = user;
    struct race *race = runner->race;
    struct sac_classifier *classifier = NULL;
    size_t at = (size_t)runner->index * 7; /* not all at the same picture */

    sac_cpu_pin(runner->index);
    int rc = sac_classifier_new(&classifier, race->engine, &runner->err);
    for (int i = 0; rc == 0 && i < 3; i++) /* warm */
        rc = run_batch(runner, classifier, at);
    runner->batches = 0;
    runner->decode_ns = 0;
    wait_for_go(race);
    uint64_t began_ns = sac_clock_ns();
    while (rc == 0 && (runner->took_ns = sac_clock_ns() - began_ns) < race->run_ns) {
        rc = run_batch(runner, classifier, at);
        at += (size_t)race->batch;
    }
    sac_classifier_free(classifier);
    return NULL;
}

/* Waits until all that were started are warm, then lets them go. */
static void race_start(struct race *race, int started)
{
    pthread_mutex_lock(&race->lock);
    while (race->ready < started)
        pthread_cond_wait(&race->changed, &race->lock);
    race->go = true;
    pthread_cond_broadcast(&race->changed);
    pthread_mutex_unlock(&race->lock);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double sac_median(double *values, size_t count)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void sum_up(struct runner *runners, int count, int batch, struct sac_measure *ret)
{
    double decode_ns = 0, took_ns = 0;

    *ret = (struct sac_measure){0};
    for (int i = 0; i < count; i++) {
        struct runner *runner = &runners[i];
        ret->pictures_per_second += (double)runner->batches * batch * 1e9 / (double)runner->took_ns;
        decode_ns += (double)runner->decode_ns;
        took_ns += (double)runner->took_ns;
    }
    ret->decode_share = decode_ns / took_ns;
    ret->median_ms = sac_median(
        runners[0].samples, runners[0].batches < SAMPLES_MAX ? runners[0].batches : SAMPLES_MAX);
}

static int race_run(struct race *race, int workers, struct sac_measure *ret, struct sac_error *err)
{
    struct runner *runners = calloc((size_t)workers, sizeof *runners);
    int started = 0, rc = runners ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    while (rc == 0 && started < workers) {
        struct runner *runner = &runners[started];
        *runner = (struct runner){.race = race, .index = started};
        runner->samples = malloc(SAMPLES_MAX * sizeof *runner->samples);
        if (!runner->samples)
            rc = sac_fail(err, SAC_ENOMEM, "out of memory");
        else if (pthread_create(&runner->thread, NULL, run, runner))
            rc = sac_fail(err, SAC_EIO, "a worker could not be started");
        started += rc == 0;
    }
    race_start(race, started);
    for (int i = 0; i < started; i++) {
        pthread_join(runners[i].thread, NULL);
        if (rc == 0 && runners[i].err.code) {
            *err = runners[i].err;
            rc = err->code;
        }
    }
    if (rc == 0)
        sum_up(runners, workers, race->batch, ret);
    for (int i = 0; runners && i < workers; i++)
        free(runners[i].samples);
    free(runners);
    return rc;
}

static int read_all(char *const *paths, size_t count, struct bytes *pictures, struct sac_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < count; i++)
        rc =
            sac_file_read(paths[i], SAC_PICTURE_BYTES_MAX, &pictures[i].at, &pictures[i].size, err);
    return rc;
}

int sac_measure_pictures(struct sac_engine *engine, int workers, int batch, char *const *paths,
                         size_t count, double seconds, struct sac_measure *ret,
                         struct sac_error *err)
{
    struct bytes *pictures = calloc(count, sizeof *pictures);
    struct race race = {.engine = engine,
                        .pictures = pictures,
                        .count = count,
                        .batch = batch,
                        .run_ns = (uint64_t)(seconds * 1e9),
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER};
    int rc = pictures ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0)
        rc = read_all(paths, count, pictures, err);
    if (rc == 0)
        rc = race_run(&race, workers < WORKERS_MAX ? workers : WORKERS_MAX, ret, err);
    for (size_t i = 0; pictures && i < count; i++)
        free(pictures[i].at);
    free(pictures);
    return rc;
}
