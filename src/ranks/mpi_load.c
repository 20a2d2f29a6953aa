#include "ranks/mpi_load.h"

#include "device/module.h"

int sac_mpi_comm_new(struct sac_comm **ret, const struct sac_ranks *process, struct sac_error *err)
{
    const struct sac_mpi_module *module;
    const void *found = NULL;
    struct sac_comm *comm = NULL;
    int rc = sac_module_load("saccade_mpi.so", "sac_mpi_module", SAC_MPI_MODULE_VERSION,
                             "src/ranks", NULL, &found, err);

    if (rc != 0) {
        sac_error_prefix(err, "%d processes on the CPU need MPI", process->world);
        return rc;
    }
    module = found;
    rc = module->comm_new(&comm, err);
    if (rc == 0 && (comm->rank != process->rank || comm->world != process->world))
        rc = sac_fail(err, SAC_EINVAL,
                      "the environment says rank %d of %d, and MPI rank %d of %d; expected to be "
                      "started by mpirun, or by srun --mpi=pmix",
                      process->rank, process->world, comm->rank, comm->world);
    if (rc == 0)
        *ret = comm;
    else
        sac_comm_free(comm);
    return rc;
}
