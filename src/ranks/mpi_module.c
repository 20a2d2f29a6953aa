/*
 * MPI's side, in a module of its own. MPI waits by spinning: calls here are begun and then
 * asked about, with a sleep between, which also lets an abort end them. One thread at a
 * time, as communicators have it.
 */
#include <dlfcn.h>
#include <mpi.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "ranks/mpi_load.h"

enum { COUNT_MOST = 1 << 28, SLEEP_US_MOST = 200 };

struct mpi_comm {
    struct sac_comm base;
    atomic_bool over;
};

static int told(int number, const char *call, struct sac_error *err)
{
    char text[MPI_MAX_ERROR_STRING];
    int size;

    if (number == MPI_SUCCESS)
        return 0;
    MPI_Error_string(number, text, &size);
    return sac_fail(err, SAC_EDEVICE, "%s: %s", call, text);
}

static int wait_for(struct mpi_comm *comm, MPI_Request *request, const char *call,
                    struct sac_error *err)
{
    struct timespec pause = {0};
    int done = 0, number = MPI_SUCCESS;

    for (long us = 0; number == MPI_SUCCESS; us = us < SLEEP_US_MOST ? us + 5 : us) {
        number = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (number != MPI_SUCCESS || done)
            break;
        if (atomic_load(&comm->over))
            return sac_fail(err, SAC_EDEVICE, "%s was given up", call);
        pause.tv_nsec = us * 1000;
        nanosleep(&pause, NULL);
    }
    return told(number, call, err);
}

/* Begins a call on `count` values, which MPI counts with an int. */
typedef int begin_fn(float *values, int count, int root, MPI_Request *request);

static int in_parts(struct sac_comm *base, float *values, size_t count, int root, begin_fn *begin,
                    const char *call, struct sac_error *err)
{
    struct mpi_comm *comm = (struct mpi_comm *)base;
    int rc = 0;

    for (size_t at = 0, part; at < count && rc == 0; at += part) {
        MPI_Request request;
        part = count - at < COUNT_MOST ? count - at : COUNT_MOST;
        rc = told(begin(values + at, (int)part, root, &request), call, err);
        if (rc == 0)
            rc = wait_for(comm, &request, call, err);
    }
    return rc;
}

static int begin_sum(float *values, int count, int root, MPI_Request *request)
{
    (void)root;
    return MPI_Iallreduce(MPI_IN_PLACE, values, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, request);
}

static int begin_broadcast(float *values, int count, int root, MPI_Request *request)
{
    return MPI_Ibcast(values, count, MPI_FLOAT, root, MPI_COMM_WORLD, request);
}

static int all_reduce(struct sac_comm *base, struct sac_stream *stream, float *values, size_t count,
                      struct sac_error *err)
{
    (void)stream;
    return in_parts(base, values, count, 0, begin_sum, "MPI_Iallreduce", err);
}

static int broadcast(struct sac_comm *base, struct sac_stream *stream, float *values, size_t count,
                     int root, struct sac_error *err)
{
    (void)stream;
    return in_parts(base, values, count, root, begin_broadcast, "MPI_Ibcast", err);
}

static void end_waits(struct sac_comm *base)
{
    atomic_store(&((struct mpi_comm *)base)->over, true);
}

/* A process that ends without a farewell makes MPI end the others. */
static void comm_free(struct sac_comm *base)
{
    if (!base->lost)
        MPI_Finalize();
    sac_comm_done(base);
    free(base);
}

static const struct sac_comm_table table = {
    .kind = "MPI",
    .all_reduce = all_reduce,
    .broadcast = broadcast,
    .abort = end_waits,
    .free = comm_free,
};

/* Its plugins look for MPI's own symbols among everybody's. */
static void show_symbols(void)
{
    Dl_info info;

    if (dladdr((void *)(size_t)MPI_Init_thread, &info) != 0)
        dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
}

static int start(struct sac_error *err)
{
    int was = 0, level = 0, rc;

    MPI_Initialized(&was);
    if (was)
        return sac_fail(err, SAC_EINVAL,
                        "MPI was started before; once a process is what it allows");
    show_symbols();
    rc = told(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level), "MPI_Init_thread", err);
    if (rc == 0 && level < MPI_THREAD_SERIALIZED)
        rc = sac_fail(err, SAC_EUNSUPPORTED, "this MPI is for one thread only");
    if (rc == 0)
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    return rc;
}

static int comm_new(struct sac_comm **ret, struct sac_error *err)
{
    struct mpi_comm *comm = calloc(1, sizeof *comm);
    int rank = 0, world = 1, rc = comm ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0)
        rc = start(err);
    if (rc != 0) {
        free(comm);
        return rc;
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world);
    sac_comm_init(&comm->base, &table, rank, world);
    *ret = &comm->base;
    return 0;
}

extern const struct sac_mpi_module sac_mpi_module;
__attribute__((visibility("default")))
const struct sac_mpi_module sac_mpi_module = {SAC_MPI_MODULE_VERSION, comm_new};
