/* In place of hdf5.c where the build has no HDF5. */
#include "train/snapshot_files.h"

static int refuse(const char *path, struct sac_error *err)
{
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "%s: this program was built without HDF5; snapshot_format: BINARYPROTO does "
                    "without it",
                    path);
}

bool sac_snapshot_has_hdf5(void)
{
    return false;
}

int sac_hdf5_put_weights(struct sac_out *out, const struct sac_weights_view *weights)
{
    (void)weights;
    return out->rc = refuse(out->path, out->err);
}

int sac_hdf5_put_state(struct sac_out *out, const struct sac_snapshot *snapshot,
                       const char *learned_net)
{
    (void)snapshot;
    (void)learned_net;
    return out->rc = refuse(out->path, out->err);
}

int sac_hdf5_load_state(struct sac_solver_state *ret, const char *path, struct sac_error *err)
{
    (void)ret;
    return refuse(path, err);
}
