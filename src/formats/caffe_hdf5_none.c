/* In place of caffe_hdf5.c where the build has no HDF5. */
#include "formats/caffe.h"

int sac_hdf5_weights_load(struct sac_caffe_net *ret, const char *path, struct sac_error *err)
{
    (void)ret;
    return sac_fail(err, SAC_EUNSUPPORTED, "%s: this program was built without HDF5", path);
}
