#include "ranks/group.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024 };

struct group {
    int world;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t moved;
    int arrived, members;
    int working; /* members that read and write the others' values */
    uint64_t round;
    bool over;
    struct sac_error why;
    float *values[SAC_GROUP_MAX]; /* of the round; read between its two meetings */
    size_t counts[SAC_GROUP_MAX];
};

struct member {
    struct sac_comm base;
    struct group *group;
};

static struct group *group_of(struct sac_comm *comm)
{
    return ((struct member *)comm)->group;
}

/* Under the lock. Until all are here; `work` is how many of them are at work from then on. Who
 * leaves since it is over waits for those that are: his values are theirs. Nobody comes behind the
 * end. */
static int meet_for(struct group *g, int work, struct sac_error *err)
{
    uint64_t round = g->round;
    int rc = 0;

    if (!g->over && ++g->arrived == g->world) {
        g->arrived = 0;
        g->round++;
        g->working = work;
        pthread_cond_broadcast(&g->moved);
    }
    while (g->round == round && !g->over)
        pthread_cond_wait(&g->moved, &g->lock);
    if (g->round == round) {
        rc = sac_fail(err, SAC_EDEVICE, "%s", g->why.text);
        while (g->working > 0)
            pthread_cond_wait(&g->moved, &g->lock);
    }
    return rc;
}

static int begin(struct group *g, struct sac_error *err)
{
    pthread_mutex_lock(&g->lock);
    int rc = meet_for(g, g->world, err);
    pthread_mutex_unlock(&g->lock);
    return rc;
}

/* This one's work is done; until everybody's is. */
static int end(struct group *g, struct sac_error *err)
{
    pthread_mutex_lock(&g->lock);
    g->working--;
    pthread_cond_broadcast(&g->moved);
    int rc = meet_for(g, 0, err);
    pthread_mutex_unlock(&g->lock);
    return rc;
}

static int show(struct sac_comm *comm, float *values, size_t count, struct sac_error *err)
{
    struct group *g = group_of(comm);

    pthread_mutex_lock(&g->lock);
    g->values[comm->rank] = values;
    g->counts[comm->rank] = count;
    pthread_mutex_unlock(&g->lock);
    int rc = begin(g, err);
    for (int i = 0; rc == 0 && i < g->world; i++)
        assert(g->counts[i] == count);
    return rc;
}

/* Elements at … at + count of all: the sum, in all. */
static void sum_block(const struct group *g, size_t at, size_t count)
{
    float sum[BLOCK];

    memcpy(sum, g->values[0] + at, count * sizeof *sum);
    for (int i = 1; i < g->world; i++) {
        const float *from = g->values[i] + at;
        for (size_t k = 0; k < count; k++)
            sum[k] += from[k];
    }
    for (int i = 0; i < g->world; i++)
        memcpy(g->values[i] + at, sum, count * sizeof *sum);
}

/* Each rank sums blocks of its own, everybody's. */
static int all_reduce(struct sac_comm *comm, struct sac_stream *stream, float *values, size_t count,
                      struct sac_error *err)
{
    struct group *g = group_of(comm);
    size_t step = (size_t)comm->world * BLOCK;
    int rc = show(comm, values, count, err);

    (void)stream;
    if (rc != 0)
        return rc;
    for (size_t at = (size_t)comm->rank * BLOCK; at < count; at += step)
        sum_block(g, at, count - at < BLOCK ? count - at : BLOCK);
    return end(g, err);
}

static int broadcast(struct sac_comm *comm, struct sac_stream *stream, float *values, size_t count,
                     int root, struct sac_error *err)
{
    struct group *g = group_of(comm);
    int rc = show(comm, values, count, err);

    (void)stream;
    if (rc != 0)
        return rc;
    if (comm->rank != root)
        memcpy(values, g->values[root], count * sizeof *values);
    return end(g, err);
}

static void end_waits(struct sac_comm *comm)
{
    struct group *g = group_of(comm);

    pthread_mutex_lock(&g->lock);
    if (!g->over)
        g->why = comm->why; /* set before, once */
    g->over = true;
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

static int check(struct sac_comm *comm, struct sac_error *err)
{
    struct group *g = group_of(comm);

    pthread_mutex_lock(&g->lock);
    int rc = g->over ? sac_fail(err, SAC_EDEVICE, "%s", g->why.text) : 0;
    pthread_mutex_unlock(&g->lock);
    return rc;
}

static void group_free(struct group *g)
{
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static void member_free(struct sac_comm *comm)
{
    struct group *g = group_of(comm);

    pthread_mutex_lock(&g->lock);
    bool last = --g->members == 0;
    pthread_mutex_unlock(&g->lock);
    if (last)
        group_free(g);
    sac_comm_done(comm);
    free(comm);
}

static const struct sac_comm_table table = {
    .kind = "threads",
    .all_reduce = all_reduce,
    .broadcast = broadcast,
    .check = check,
    .abort = end_waits,
    .free = member_free,
};

static int add_members(struct group *g, struct sac_comm **ret, struct sac_error *err)
{
    for (int i = 0; i < g->world; i++) {
        struct member *member = calloc(1, sizeof *member);
        if (!member)
            return sac_fail(err, SAC_ENOMEM, "out of memory");
        sac_comm_init(&member->base, &table, i, g->world);
        member->group = g;
        g->members++;
        ret[i] = &member->base;
    }
    return 0;
}

int sac_group_new(struct sac_comm **ret, int world, struct sac_error *err)
{
    struct sac_comm *comms[SAC_GROUP_MAX];
    struct group *g;
    int rc;

    if (world < 1 || world > SAC_GROUP_MAX)
        return sac_fail(err, SAC_EINVAL, "%d ranks in one process; expected 1 to %d", world,
                        SAC_GROUP_MAX);
    g = calloc(1, sizeof *g);
    if (!g)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    g->world = world;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->moved, NULL);
    rc = add_members(g, comms, err);
    if (rc == 0)
        memcpy(ret, comms, (size_t)world * sizeof *comms);
    else if (g->members == 0)
        group_free(g);
    else
        for (int i = g->members; i > 0; i--)
            member_free(comms[i - 1]);
    return rc;
}
