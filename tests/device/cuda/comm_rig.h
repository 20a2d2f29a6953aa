/* Ranks over the CUDA device's communicator: each a thread with a GPU of its own. */
#ifndef SAC_TESTS_COMM_RIG_H
#define SAC_TESTS_COMM_RIG_H

#include "device/device.h"
#include "support/support.h"

enum { COMM_RANKS_MAX = 8, COMM_NUMBERS_MAX = 1 << 16 };

struct comm_rank {
    int rank, world;
    const unsigned char *id;
    struct sac_device *device;
    struct sac_comm *comm;
    struct sac_stream *stream; /* first in line, as reductions are */
    void *staging;             /* freed at last: freeing waits for all GPUs, which wait for ranks */
    const void *user;
    pthread_t thread;
    void (*run)(struct comm_rank *rank);
};

/* As many as there are GPUs, 8 at most. */
int comm_world(void);
/* Runs `run` on each rank of `world`, rank r on cuda:r; without a communicator yet. */
void comm_run(int world, void (*run)(struct comm_rank *rank), const void *user);
void comm_join(struct comm_rank *rank); /* makes it; checked */
void comm_leave(struct comm_rank *rank);

/* Device memory with `count` numbers of the rank's own, and its values as they are. */
float *comm_numbers(struct comm_rank *rank, size_t count);
float comm_number(int rank, size_t i);
void comm_read(struct comm_rank *rank, float *to, const float *from, size_t count);
void comm_drop(struct comm_rank *rank, float *values);
/* Each number is the sum over all ranks, to rounding. */
void comm_check_sums(struct comm_rank *rank, const float *values, size_t count);

#endif
