#include "train/crew.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "ranks/abort.h"
#include "ranks/group.h"
#include "ranks/meet.h"
#include "ranks/mpi_load.h"
#include "ranks/thread.h"

enum { NAME_MS = 2000, WATCH_MS = 200 };

struct crew;

struct member {
    struct crew *crew;
    int index; /* in this process */
    struct sac_comm *comm;
    struct sac_comm *neighbours; /* where comm is a device's */
    pthread_t thread;
};

struct crew {
    const struct sac_crew_options *options;
    struct sac_trainer_options trainer;
    struct sac_ranks process;
    unsigned char id[SAC_COMM_ID];
    struct sac_meet *meet;
    struct member members[SAC_GROUP_MAX];
    pthread_t watch;
    bool watches;
    pthread_mutex_t lock; /* guards what follows, and each member's comm */
    pthread_cond_t moved;
    bool over, through;
    struct sac_error why;  /* of the first failure */
    struct sac_error said; /* to all, when it was over: here or in another process */
};

static int world_of(const struct crew *c)
{
    return c->process.world * c->options->count;
}

static bool is_alone(const struct crew *c)
{
    return world_of(c) == 1 && !c->options->communicates;
}

static int rank_of(const struct member *m)
{
    return m->crew->process.rank * m->crew->options->count + m->index;
}

/* ---- When one fails ---------------------------------------------------------- */

/* True the first time. One of `ours` is then why, before those who are ended by it can say
 * what they have of it. */
static bool end_all(struct crew *c, const struct sac_error *why, bool ours)
{
    struct sac_comm *comms[2 * SAC_GROUP_MAX] = {NULL};

    pthread_mutex_lock(&c->lock);
    bool first = !c->over;
    c->over = true;
    if (first)
        c->said = *why;
    if (first && ours)
        c->why = *why;
    for (int i = 0; first && i < c->options->count; i++) {
        comms[2 * i] = c->members[i].comm;
        comms[2 * i + 1] = c->members[i].neighbours;
    }
    sac_comms_abort(comms, 2 * c->options->count, why->text);
    pthread_mutex_unlock(&c->lock);
    return first;
}

static void on_lost(void *user, const struct sac_error *why)
{
    end_all(user, why, false);
}

/* A library may notice before the meet does that another rank is gone, but not whose. */
static void wait_for_name(struct crew *c)
{
    bool over = false;

    for (int i = 0; i < NAME_MS / 50 && !over; i++) {
        usleep(50000);
        pthread_mutex_lock(&c->lock);
        over = c->over;
        pthread_mutex_unlock(&c->lock);
    }
}

static void fail(struct member *m, const struct sac_error *err)
{
    struct crew *c = m->crew;
    struct sac_error why = *err;

    if (c->meet && err->code == SAC_EDEVICE)
        wait_for_name(c);
    if (world_of(c) > 1) {
        sac_error_prefix(&why, "rank %d (%s)", rank_of(m),
                         c->options->devices[m->index]->info.name);
        bool first = end_all(c, &why, true);
        if (first && c->meet)
            sac_meet_tell(c->meet, &why);
        if (!first) /* it failed for another's sake, and as that one did */
            why = *err;
    }
    pthread_mutex_lock(&c->lock);
    if (c->over)
        why.code = c->said.code;
    if (c->why.code == 0)
        c->why = why;
    pthread_mutex_unlock(&c->lock);
}

/* Who waits for a stream that waits for a rank which is cut off cannot ask for it. Under the
 * lock. */
static struct member *cut_off(struct crew *c, struct sac_error *err)
{
    for (int i = 0; i < c->options->count; i++)
        if (c->members[i].comm && sac_comm_check(c->members[i].comm, err) != 0)
            return &c->members[i];
    return NULL;
}

static void *watch(void *argument)
{
    struct crew *c = argument;
    struct member *found = NULL;
    struct sac_error err = {0};
    struct timespec until;

    pthread_mutex_lock(&c->lock);
    while (!c->through && !c->over && !found) {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += WATCH_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&c->moved, &c->lock, &until);
        if (!c->through && !c->over)
            found = cut_off(c, &err);
    }
    pthread_mutex_unlock(&c->lock);
    if (found)
        fail(found, &err);
    return NULL;
}

static int begin_watch(struct crew *c, struct sac_error *err)
{
    int rc = world_of(c) > 1 ? sac_thread_start(&c->watch, watch, c, err) : 0;

    c->watches = rc == 0 && world_of(c) > 1;
    return rc;
}

static void end_watch(struct crew *c)
{
    if (!c->watches)
        return;
    pthread_mutex_lock(&c->lock);
    c->through = true;
    pthread_cond_broadcast(&c->moved);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->watch, NULL);
}

/* ---- One rank ---------------------------------------------------------------- */

static bool is_over(void *user)
{
    struct crew *c = user;

    pthread_mutex_lock(&c->lock);
    bool over = c->over;
    pthread_mutex_unlock(&c->lock);
    return over;
}

/* Whoever is lost meanwhile never comes: what was said of it is why. */
static int join(struct member *m, struct sac_error *err)
{
    struct crew *c = m->crew;
    struct sac_device *device = c->options->devices[m->index];
    const struct sac_comm_place place = {.id = c->id,
                                         .rank = rank_of(m),
                                         .world = world_of(c),
                                         .processes = c->process.world,
                                         .stop = is_over,
                                         .user = c};
    struct sac_error why = {0};
    struct sac_comm *comm = NULL;

    if (m->comm || is_alone(c))
        return 0;
    int rc = device->table->comm_new(device, &place, &comm, &why);
    pthread_mutex_lock(&c->lock);
    if (c->over)
        why = c->said;
    if (rc == 0 && c->over)
        sac_comm_abort(comm, why.text);
    m->comm = comm;
    pthread_mutex_unlock(&c->lock);
    return rc ? sac_fail(err, rc, "%s", why.text) : 0;
}

static void part(struct member *m)
{
    pthread_mutex_lock(&m->crew->lock);
    struct sac_comm *comm = m->comm, *neighbours = m->neighbours;
    m->comm = m->neighbours = NULL;
    pthread_mutex_unlock(&m->crew->lock);
    sac_comm_free(comm);
    sac_comm_free(neighbours);
}

/* MPI's farewell waits for rank 0's, and cannot be ended: all take leave of each other
 * before. */
static bool by_mpi(const struct crew *c)
{
    return c->process.world > 1 && c->options->devices[0]->info.host_memory;
}

static void *run_member(void *argument)
{
    struct member *m = argument;
    struct sac_trainer_options options = m->crew->trainer;
    struct sac_trainer *trainer = NULL;
    struct sac_error err = {0};
    int rc = join(m, &err);

    options.device = m->crew->options->devices[m->index];
    options.comm = m->comm;
    options.neighbours = m->neighbours;
    if (m->index > 0) {
        options.on_event = NULL;
        options.request = NULL;
    }
    if (rc == 0)
        rc = sac_trainer_new(&trainer, &options, &err);
    if (rc == 0 && m->index == 0 && m->crew->options->on_begin)
        m->crew->options->on_begin(options.user);
    if (rc == 0)
        rc = sac_trainer_run(trainer, &err);
    if (rc != 0)
        fail(m, &err);
    sac_trainer_free(trainer);
    if (!by_mpi(m->crew))
        part(m);
    return NULL;
}

/* The caller is the first. A thread that cannot be had is a rank that fails. */
static void run_all(struct crew *c)
{
    bool started[SAC_GROUP_MAX] = {false};
    struct sac_error err = {0};

    for (int i = 1; i < c->options->count; i++) {
        started[i] = sac_thread_start(&c->members[i].thread, run_member, &c->members[i], &err) == 0;
        if (!started[i])
            fail(&c->members[i], &err);
    }
    run_member(&c->members[0]);
    for (int i = 1; i < c->options->count; i++) {
        if (started[i])
            pthread_join(c->members[i].thread, NULL);
    }
}

/* ---- How they reach each other ----------------------------------------------- */

static int make_id(struct crew *c, struct sac_error *err)
{
    struct sac_device *device = c->options->devices[0];

    return c->process.rank == 0 ? device->table->comm_id(device, c->id, err) : 0;
}

/* Processes that MPI started have no address from the environment: rank 0 makes one, which
 * MPI brings to the others. Port 0: it could not. */
static int make_address(struct crew *c, struct sac_comm *mpi, struct sac_meet_options *how,
                        struct sac_error *err)
{
    struct {
        char hosts[SAC_RANK_HOST];
        int32_t port;
    } at = {.port = 0};
    int rc = 0, port = 0;

    if (c->process.rank == 0)
        rc = sac_meet_listen(&how->listener, &port, at.hosts, sizeof at.hosts, err);
    how->listens = c->process.rank == 0 && rc == 0;
    at.port = port;
    int sent = sac_comm_broadcast(mpi, NULL, (float *)(void *)&at, sizeof at / sizeof(float), 0,
                                  rc == 0 ? err : NULL);
    rc = rc == 0 ? sent : rc;
    if (rc == 0 && at.port == 0)
        rc = sac_fail(err, SAC_EIO, "rank 0 has no port at which to be met");
    if (rc != 0 && how->listens)
        close(how->listener);
    c->process.port = at.port;
    memcpy(c->process.master, at.hosts, sizeof at.hosts);
    return rc;
}

/* Where all processes meet at rank 0's address, and watch each other. `mpi`: of those that
 * MPI started; NULL. */
static int meet(struct crew *c, struct sac_comm *mpi, struct sac_error *err)
{
    struct sac_meet_options how = {
        .ranks = &c->process, .local = c->options->count, .on_lost = on_lost, .user = c};
    int rc = mpi ? make_address(c, mpi, &how, err) : 0;

    return rc == 0 ? sac_meet_new(&c->meet, &how, c->id, err) : rc;
}

/* MPI is needed no longer than for that. */
static int reach_processes(struct crew *c, struct sac_error *err)
{
    struct sac_comm *mpi = NULL;
    int rc = c->process.mpi ? sac_mpi_comm_new(&mpi, &c->process, err) : 0;

    if (rc == 0)
        rc = meet(c, mpi, err);
    if (rc != 0 && mpi)
        sac_comm_abort(mpi, err->text);
    sac_comm_free(mpi);
    return rc;
}

static int reach_neighbours(struct crew *c, struct sac_error *err)
{
    struct sac_comm *comms[SAC_GROUP_MAX];
    int rc = sac_group_new(comms, c->options->count, err);

    for (int i = 0; rc == 0 && i < c->options->count; i++)
        c->members[i].neighbours = comms[i];
    return rc;
}

/* Devices with memory of their own join one by one, on their threads. */
static int reach_devices(struct crew *c, struct sac_error *err)
{
    const struct sac_device *device = c->options->devices[0];
    int rc = device->table->comm_id && device->table->comm_new
                 ? make_id(c, err)
                 : sac_fail(err, SAC_EUNSUPPORTED, "device %s trains alone: it has no communicator",
                            device->info.name);

    if (rc == 0 && c->process.world > 1)
        rc = reach_processes(c, err);
    return rc == 0 ? reach_neighbours(c, err) : rc;
}

/* Sums go by MPI, however the processes were started. */
static int reach_by_mpi(struct crew *c, struct sac_error *err)
{
    struct sac_comm *comm = NULL;
    int rc = sac_mpi_comm_new(&comm, &c->process, err);

    c->members[0].comm = comm;
    if (rc == 0)
        rc = meet(c, c->process.mpi ? comm : NULL, err);
    if (rc != 0 && comm) /* without a farewell MPI ends the others */
        sac_comm_abort(comm, err->text);
    return rc;
}

static int reach_hosts(struct crew *c, struct sac_error *err)
{
    struct sac_comm *comms[SAC_GROUP_MAX];
    int count = c->options->count, rc;

    if (c->process.world > 1 && count > 1)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%d ranks on the CPU in each of %d processes: expected one a process",
                        count, c->process.world);
    if (c->process.world > 1)
        return reach_by_mpi(c, err);
    rc = sac_group_new(comms, count, err);
    for (int i = 0; rc == 0 && i < count; i++)
        c->members[i].comm = comms[i];
    return rc;
}

static int reach(struct crew *c, struct sac_error *err)
{
    if (is_alone(c))
        return 0;
    return c->options->devices[0]->info.host_memory ? reach_hosts(c, err) : reach_devices(c, err);
}

/* The cores of a machine are shared by its processes and their ranks. */
static void share_cores(struct crew *c)
{
    int each = sac_ranks_cores(sac_cpu_count(), (int)sysconf(_SC_NPROCESSORS_ONLN),
                               c->process.locals, c->options->count);

    if (c->process.world > 1 || c->options->count > 1)
        c->trainer.cores = each;
    if (c->trainer.threads == 0)
        c->trainer.threads = c->trainer.cores;
}

int sac_crew_run(const struct sac_crew_options *options, struct sac_error *err)
{
    struct crew *c = calloc(1, sizeof *c);
    int rc = c ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0 && (options->count < 1 || options->count > SAC_GROUP_MAX))
        rc = sac_fail(err, SAC_EINVAL, "%d ranks in one process; expected 1 to %d", options->count,
                      SAC_GROUP_MAX);
    if (rc != 0) {
        free(c);
        return rc;
    }
    c->options = options;
    c->trainer = *options->trainer;
    c->process = options->process ? *options->process : (struct sac_ranks){.world = 1};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->moved, NULL);
    for (int i = 0; i < options->count; i++)
        c->members[i] = (struct member){.crew = c, .index = i};
    share_cores(c);
    rc = reach(c, err);
    if (rc == 0)
        rc = begin_watch(c, err);
    if (rc == 0) {
        run_all(c);
        end_watch(c);
        rc = c->why.code ? sac_fail(err, c->why.code, "%s", c->why.text) : 0;
    }
    if (rc == 0 && c->meet)
        rc = sac_meet_leave(c->meet, err);
    for (int i = 0; i < options->count; i++)
        part(&c->members[i]);
    sac_meet_free(c->meet);
    pthread_cond_destroy(&c->moved);
    pthread_mutex_destroy(&c->lock);
    free(c);
    return rc;
}
