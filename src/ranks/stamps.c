#include "ranks/stamps.h"

#include <stdlib.h>

#include "base/clock.h"
#include "ranks/thread.h"

struct sac_stamps {
    struct sac_device *device;
    struct sac_stream *stream;
    struct sac_event **events; /* NULL: all is done when it is enqueued */
    uint64_t **to;
    int most;
    bool started;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t moved;
    int added, known; /* since the last wait */
    bool stop;
    struct sac_error failed;
};

/* Under the lock, which it leaves while it waits for the event. */
static void take_one(struct sac_stamps *s)
{
    struct sac_error err = {0};
    int index = s->known;

    pthread_mutex_unlock(&s->lock);
    int rc = s->device->table->event_sync(s->events[index], &err);
    *s->to[index] = sac_clock_ns();
    pthread_mutex_lock(&s->lock);
    if (rc != 0)
        sac_fail(&s->failed, rc, "%s", err.text);
    s->known++;
    pthread_cond_broadcast(&s->moved);
}

static void *watch(void *argument)
{
    struct sac_stamps *s = argument;

    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        if (s->known < s->added)
            take_one(s);
        else
            pthread_cond_wait(&s->moved, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int make_events(struct sac_stamps *s, struct sac_error *err)
{
    const struct sac_device_table *table = s->device->table;
    int rc = 0;

    s->to = calloc((size_t)s->most + 1, sizeof *s->to);
    s->events = calloc((size_t)s->most + 1, sizeof *s->events);
    if (!s->to || !s->events)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; i < s->most && rc == 0; i++)
        rc = table->event_new(s->device, &s->events[i], err);
    if (rc == 0)
        rc = sac_thread_start(&s->thread, watch, s, err);
    s->started = rc == 0;
    return rc;
}

int sac_stamps_new(struct sac_stamps **ret, struct sac_device *device, struct sac_stream *stream,
                   int most, struct sac_error *err)
{
    struct sac_stamps *s = calloc(1, sizeof *s);
    int rc = 0;

    if (!s)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    s->device = device;
    s->stream = stream;
    s->most = most;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    if (!device->info.host_memory && device->table->event_sync)
        rc = make_events(s, err);
    if (rc == 0)
        *ret = s;
    else
        sac_stamps_free(s);
    return rc;
}

void sac_stamps_free(struct sac_stamps *s)
{
    if (!s)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_broadcast(&s->moved);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    for (int i = 0; s->events && i < s->most; i++)
        if (s->events[i])
            s->device->table->event_free(s->events[i]);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    free(s->events);
    free(s->to);
    free(s);
}

int sac_stamps_add(struct sac_stamps *s, uint64_t *to, struct sac_error *err)
{
    if (!s->events) {
        *to = sac_clock_ns();
        return 0;
    }
    if (s->added == s->most)
        return sac_fail(err, SAC_ELIMIT, "more than %d stamps", s->most);
    int rc = s->device->table->event_record(s->events[s->added], s->stream, err);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&s->lock);
    s->to[s->added++] = to;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int sac_stamps_wait(struct sac_stamps *s, struct sac_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    while (s->known < s->added)
        pthread_cond_wait(&s->moved, &s->lock);
    s->known = s->added = 0;
    if (s->failed.code != 0)
        rc = sac_fail(err, s->failed.code, "%s", s->failed.text);
    pthread_mutex_unlock(&s->lock);
    return rc;
}
