/*
 * Whether a folder is one set of pictures or one that was divided: what lies in it under
 * the names of parts, as `saccade dataset create --val` and `dataset split` leave it, and
 * as public data sets come. Blocks; any thread.
 */
#ifndef SAC_DATA_PARTS_H
#define SAC_DATA_PARTS_H

#include "base/error.h"

enum sac_data_part { SAC_DATA_TRAIN, SAC_DATA_VAL, SAC_DATA_TEST, SAC_DATA_PARTS };

struct sac_data_parts {
    char *path[SAC_DATA_PARTS];       /* owned; NULL: there is none */
    const char *name[SAC_DATA_PARTS]; /* as it is called there; static */
};
/* Takes one that is all zero. */
void sac_data_parts_done(struct sac_data_parts *parts);

/* 1: `path` is a folder with a train and a val (valid, validation) or a test, each a
 * folder of folders, a database, or a folder with list.txt; or with such lists, train.txt
 * and so on, and no folder. 0: it is a set of its own, or no folder; *ret is all zero.
 * SAC_EINVAL: it has such parts and other folders beside them, so that nobody can tell
 * parts from classes; the sentence names both. Each part is to be opened by
 * sac_source_open(). */
int sac_data_parts_find(struct sac_data_parts *ret, const char *path, struct sac_error *err);

#endif
