#include "cli/relay.h"

#include <pthread.h>

#include "base/cpu.h"

enum { WORKERS_MAX = 64 };

struct race {
    const struct sac_relay *relay;
    void *user;
    bool pins;                 /* each worker has a core of its own */
    pthread_mutex_t take_lock; /* guards `next`; held while a round is taken */
    int64_t next;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    int64_t given;
    bool over; /* no round is taken any more */
    struct sac_error failure;
};

struct runner {
    struct race *race;
    int index;
    pthread_t thread;
};

static bool is_over(struct race *race)
{
    pthread_mutex_lock(&race->lock);
    bool over = race->over;
    pthread_mutex_unlock(&race->lock);
    return over;
}

static void end(struct race *race, const struct sac_error *failure)
{
    pthread_mutex_lock(&race->lock);
    race->over = true;
    if (failure && !race->failure.code)
        race->failure = *failure;
    pthread_mutex_unlock(&race->lock);
}

/* False: there is no round for this worker. A round that could not be taken is
 * one all the same, so that those before it are given first. */
static bool take(struct race *race, void *worker, int64_t *ret_round, int *ret_rc,
                 struct sac_error *err)
{
    bool over;

    pthread_mutex_lock(&race->take_lock);
    over = is_over(race);
    if (!over) {
        *ret_round = race->next;
        *ret_rc = race->relay->take(worker, race->next, &over, err);
        if (over || *ret_rc)
            end(race, NULL);
        race->next += !over;
    }
    pthread_mutex_unlock(&race->take_lock);
    return !over;
}

static void give(struct race *race, void *worker, int64_t round, int rc, struct sac_error *err)
{
    pthread_mutex_lock(&race->lock);
    while (race->given != round)
        pthread_cond_wait(&race->changed, &race->lock);
    bool failed = race->failure.code != 0;
    pthread_mutex_unlock(&race->lock);
    if (rc == 0 && !failed)
        rc = race->relay->give(worker, round, err);
    if (rc)
        end(race, err);
    pthread_mutex_lock(&race->lock);
    race->given++;
    pthread_cond_broadcast(&race->changed);
    pthread_mutex_unlock(&race->lock);
}

static void *run(void *argument)
{
    struct runner *runner = argument;
    struct race *race = runner->race;
    struct sac_error err = {0};
    void *worker = NULL;
    int64_t round = 0;

    if (race->pins)
        sac_cpu_pin(runner->index);
    int rc = race->relay->open(race->user, &worker, &err);
    if (rc)
        end(race, &err);
    while (rc == 0 && take(race, worker, &round, &rc, &err)) {
        if (rc == 0)
            rc = race->relay->work(worker, &err);
        give(race, worker, round, rc, &err);
    }
    race->relay->close(worker);
    return NULL;
}

int sac_relay_run(const struct sac_relay *relay, int workers, void *user, struct sac_error *err)
{
    struct race race = {.relay = relay,
                        .user = user,
                        .pins = sac_cpu_is_pinning_wise(workers),
                        .take_lock = PTHREAD_MUTEX_INITIALIZER,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER};
    struct runner runners[WORKERS_MAX];
    int started = 0, number = 0;

    while (number == 0 && started < workers && started < WORKERS_MAX) {
        struct runner *runner = &runners[started];
        *runner = (struct runner){.race = &race, .index = started};
        number = pthread_create(&runner->thread, NULL, run, runner);
        started += number == 0;
    }
    if (number) {
        struct sac_error why = {0};
        sac_fail_errno(&why, number, "a worker could not be started");
        end(&race, &why);
    }
    for (int i = 0; i < started; i++)
        pthread_join(runners[i].thread, NULL);
    if (race.failure.code)
        *err = race.failure;
    return race.failure.code;
}
