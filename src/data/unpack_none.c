/* Without libarchive, nothing is unpacked, and a sentence says so. */
#include "data/unpack.h"

int sac_unpack(const char *archive, const char *name, const char *folder, int64_t bytes_max,
               struct sac_error *err)
{
    (void)archive, (void)folder, (void)bytes_max;
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "%s: this program was built without libarchive and cannot unpack it", name);
}
