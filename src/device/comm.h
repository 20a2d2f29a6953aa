/*
 * A communicator: what ranks that train one net together say to each other. Each rank
 * has one, and calls its functions from one thread at a time, in the same order and with
 * the same counts as every other rank; sums come out the same on all of them, bit for bit.
 *
 * Of a device with memory of its own, values are in that memory and calls only enqueue
 * on the stream. Else values are the host's, the stream is NULL, and calls return when
 * all is done.
 *
 * Whoever learns that a rank is gone calls sac_comm_abort(): from then on each call
 * fails with its sentence, and what waits for the others ends, what is enqueued too. A
 * caller who synchronized a stream asks sac_comm_check() before it believes the values.
 */
#ifndef SAC_DEVICE_COMM_H
#define SAC_DEVICE_COMM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct sac_comm;
struct sac_stream;

enum {
    SAC_COMM_ID = 128,     /* bytes of what ranks of one group know each other by */
    SAC_COMM_JOIN_S = 120, /* how long ranks wait for each other to begin */
};

struct sac_comm_table {
    const char *kind; /* "threads", "MPI", "NCCL" */
    /* In place: the sum over all ranks. */
    int (*all_reduce)(struct sac_comm *comm, struct sac_stream *stream, float *values, size_t count,
                      struct sac_error *err);
    /* In place: those of rank `root`. */
    int (*broadcast)(struct sac_comm *comm, struct sac_stream *stream, float *values, size_t count,
                     int root, struct sac_error *err);
    /* Asks the library whether it noticed a failure; NULL: there is nobody to ask. */
    int (*check)(struct sac_comm *comm, struct sac_error *err);
    /* Once, from any thread, after comm->lost is set: ends all waits; NULL: none need it. */
    void (*abort)(struct sac_comm *comm);
    /* By the thread that calls the others, which waits for no other rank. */
    void (*free)(struct sac_comm *comm);
};

/* The first member of every communicator. */
struct sac_comm {
    const struct sac_comm_table *table;
    int rank, world;
    pthread_mutex_t lock; /* guards those below */
    bool lost;
    struct sac_error why;
};

/* Which rank to be, of those who have one id. */
struct sac_comm_place {
    const unsigned char *id; /* SAC_COMM_ID of them, borrowed */
    int rank, world;
    int processes; /* among which the ranks are; 0: one */
    /* Asked while it waits for the others, by the thread that does: true ends that. NULL:
     * nothing does. */
    bool (*stop)(void *user);
    void *user;
};

/* For those who make one, and for their `free`. */
void sac_comm_init(struct sac_comm *comm, const struct sac_comm_table *table, int rank, int world);
void sac_comm_done(struct sac_comm *comm);

int sac_comm_all_reduce(struct sac_comm *comm, struct sac_stream *stream, float *values,
                        size_t count, struct sac_error *err);
int sac_comm_broadcast(struct sac_comm *comm, struct sac_stream *stream, float *values,
                       size_t count, int root, struct sac_error *err);
/* 0 while all ranks are there; else SAC_EDEVICE with the sentence that names the one that
 * is not. Cheap; any thread. */
int sac_comm_check(struct sac_comm *comm, struct sac_error *err);
/* Any thread, any number of times: the first sentence stays. */
void sac_comm_abort(struct sac_comm *comm, const char *why);
void sac_comm_free(struct sac_comm *comm); /* takes NULL */

#endif
