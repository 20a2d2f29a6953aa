#include "device/comm.h"

void sac_comm_init(struct sac_comm *comm, const struct sac_comm_table *table, int rank, int world)
{
    *comm = (struct sac_comm){.table = table, .rank = rank, .world = world};
    pthread_mutex_init(&comm->lock, NULL);
}

void sac_comm_done(struct sac_comm *comm)
{
    pthread_mutex_destroy(&comm->lock);
}

static int check_lost(struct sac_comm *comm, struct sac_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&comm->lock);
    if (comm->lost)
        rc = sac_fail(err, SAC_EDEVICE, "%s", comm->why.text);
    pthread_mutex_unlock(&comm->lock);
    return rc;
}

/* What failed because a rank is gone says who is gone. */
static int blame(struct sac_comm *comm, int rc, const struct sac_error *why, struct sac_error *err)
{
    if (rc == 0)
        return 0;
    int lost = check_lost(comm, err);
    return lost ? lost : sac_fail(err, rc, "%s", why->text);
}

int sac_comm_all_reduce(struct sac_comm *comm, struct sac_stream *stream, float *values,
                        size_t count, struct sac_error *err)
{
    struct sac_error why = {0};
    int rc = check_lost(comm, err);

    if (rc == 0)
        rc = blame(comm, comm->table->all_reduce(comm, stream, values, count, &why), &why, err);
    return rc;
}

int sac_comm_broadcast(struct sac_comm *comm, struct sac_stream *stream, float *values,
                       size_t count, int root, struct sac_error *err)
{
    struct sac_error why = {0};
    int rc = check_lost(comm, err);

    if (rc == 0)
        rc =
            blame(comm, comm->table->broadcast(comm, stream, values, count, root, &why), &why, err);
    return rc;
}

int sac_comm_check(struct sac_comm *comm, struct sac_error *err)
{
    struct sac_error why = {0};
    int rc = check_lost(comm, err);

    if (rc == 0 && comm->table->check)
        rc = blame(comm, comm->table->check(comm, &why), &why, err);
    return rc;
}

void sac_comm_abort(struct sac_comm *comm, const char *why)
{
    pthread_mutex_lock(&comm->lock);
    bool first = !comm->lost;
    if (first)
        sac_fail(&comm->why, SAC_EDEVICE, "%s", why);
    comm->lost = true;
    pthread_mutex_unlock(&comm->lock);
    if (first && comm->table->abort)
        comm->table->abort(comm);
}

void sac_comm_free(struct sac_comm *comm)
{
    if (comm)
        comm->table->free(comm);
}
