/*
 * Ranks that MPI started, on the CPU: a communicator over MPI_COMM_WORLD, from a module
 * that is loaded at run time (saccade_mpi.so), so that the program starts without MPI.
 * MPI itself stops all when one of its processes dies, and says which; one that stands
 * still it does not notice (ranks/meet.h does).
 */
#ifndef SAC_RANKS_MPI_LOAD_H
#define SAC_RANKS_MPI_LOAD_H

#include "device/comm.h"
#include "ranks/ranks.h"

/* Changes with this struct and with struct sac_comm. */
enum { SAC_MPI_MODULE_VERSION = 1 };

/* What the module exports, by the name sac_mpi_module. */
struct sac_mpi_module {
    int version; /* the first member, for ever */
    int (*comm_new)(struct sac_comm **ret, struct sac_error *err);
};

/* `process` says who this one has to be: SAC_EINVAL where MPI knows otherwise. */
int sac_mpi_comm_new(struct sac_comm **ret, const struct sac_ranks *process, struct sac_error *err);

#endif
