/*
 * The ring of ranks behind the stand-in for NCCL: each rank has a socket to the next one
 * and from the one before, whether they are threads of one process or several processes
 * of one machine. A rank touches its own memory only.
 *
 * One thread at a time, but for sim_ring_stop().
 */
#ifndef SIM_NCCL_RING_H
#define SIM_NCCL_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_RING_RANKS_MAX = 256, SIM_RING_ID = 32, SIM_RING_HOST = 64 };

enum sim_ring_result {
    SIM_RING_OK,
    SIM_RING_STOPPED, /* by sim_ring_stop() */
    SIM_RING_CLOSED,  /* a neighbour closed its end, or its process is gone */
    SIM_RING_LATE,    /* it took longer than SACCADE_SIM_NCCL_WAIT */
    SIM_RING_SYSTEM,  /* the system refused: errno */
    SIM_RING_MISFIT,  /* the ranks do not fit together */
};

/* What a rank tells the others of itself. */
struct sim_ring_rank {
    int32_t rank, world, device;
    char host[SIM_RING_HOST];
};

struct sim_ring {
    int rank, world;
    int listening, next, previous; /* sockets; -1: none */
    atomic_bool stop;
    double wait_s;
    char why[256]; /* of the last failure */
};

/* Joins the ranks that know each other by `id`; `me` goes to all of them, and two of one
 * host must not have one device. */
enum sim_ring_result sim_ring_join(struct sim_ring *ring, const char id[SIM_RING_ID],
                                   const struct sim_ring_rank *me);
void sim_ring_stop(struct sim_ring *ring); /* any thread: what waits ends */
void sim_ring_close(struct sim_ring *ring);
/* Waits until it is stopped. */
enum sim_ring_result sim_ring_stand(struct sim_ring *ring);

/* To the next rank and from the one before, at once. */
enum sim_ring_result sim_ring_exchange(struct sim_ring *ring, const void *out, size_t out_bytes,
                                       void *in, size_t in_bytes);

enum sim_ring_type { SIM_RING_F32, SIM_RING_F64 };

/* The sum over all ranks of `count` numbers, as NCCL's ring has it: cut into chunks of at most
 * `chunk` a rank; that of rank c begins with rank c + 1's numbers and ends with c's own. */
enum sim_ring_result sim_ring_all_reduce(struct sim_ring *ring, const void *from, void *to,
                                         size_t count, enum sim_ring_type type, size_t chunk);
/* The root's bytes, from rank to rank. */
enum sim_ring_result sim_ring_broadcast(struct sim_ring *ring, const void *from, void *to,
                                        size_t bytes, int root, size_t chunk_bytes);

#endif
