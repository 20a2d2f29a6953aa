/*
 * Where the processes of a run meet, and how they notice that one is gone: each keeps a
 * TCP connection to rank 0's, on which both say every second that they are there. A
 * process whose connection ends, or that says nothing for SAC_MEET_SILENCE_S, is lost;
 * rank 0 tells the others who it was. Not encrypted: for networks that one trusts.
 */
#ifndef SAC_RANKS_MEET_H
#define SAC_RANKS_MEET_H

#include "device/comm.h"
#include "ranks/ranks.h"

enum { SAC_MEET_SILENCE_S = 7, SAC_MEET_MOST = 1024 };

struct sac_meet;

struct sac_meet_options {
    /* Of which this process is one; copied. `master` may be several names, with commas: the
     * first of them that answers is rank 0. */
    const struct sac_ranks *ranks;
    bool listens; /* rank 0's socket is there: */
    int listener; /* of sac_meet_listen(), taken */
    int local;    /* ranks of this process, as many as of each other */
    int wait_s;   /* for the others, at most; 0: SAC_COMM_JOIN_S */
    /* At most once, on a thread of the meet's own, until it is freed. `why` has the code of
     * who failed: SAC_EDEVICE where a process is gone. */
    void (*on_lost)(void *user, const struct sac_error *why);
    void *user;
};

/* Rank 0's socket, at any port that is free, and by which names others may find it. */
int sac_meet_listen(int *ret_listener, int *ret_port, char *ret_hosts, size_t size,
                    struct sac_error *err);
/* Waits until all are there; then they have rank 0's id. */
int sac_meet_new(struct sac_meet **ret, const struct sac_meet_options *options,
                 unsigned char id[SAC_COMM_ID], struct sac_error *err);
/* This process fails: on_lost of all others has its sentence and its code. */
void sac_meet_tell(struct sac_meet *meet, const struct sac_error *why);
/* All is well here. Others than rank 0 wait for its being through, or its failure. */
int sac_meet_leave(struct sac_meet *meet, struct sac_error *err);
void sac_meet_free(struct sac_meet *meet); /* takes NULL */

#endif
