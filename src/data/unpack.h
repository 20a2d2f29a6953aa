/*
 * The files of a .tar.gz, .tar or .zip, by libarchive, into a folder that is there.
 * Archives come from strangers: folders inside are dropped (only the last part of
 * a name counts), links and devices refused, names that start with a dot skipped,
 * two files of one name refused, and sizes and counts bounded before they are
 * written. Any thread; blocks.
 */
#ifndef SAC_DATA_UNPACK_H
#define SAC_DATA_UNPACK_H

#include <stdint.h>

#include "base/error.h"

#define SAC_UNPACK_FILES_MAX 200

/* `name` is what sentences call it. On failure, what was written before stays. SAC_ELIMIT: more
 * than bytes_max, or files. SAC_EUNSUPPORTED: built without libarchive. */
int sac_unpack(const char *archive, const char *name, const char *folder, int64_t bytes_max,
               struct sac_error *err);

#endif
