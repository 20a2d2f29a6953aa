/* A small net's snapshot whose every number follows from the iteration. */
#ifndef SAC_TESTS_TRAIN_SNAPSHOTS_H
#define SAC_TESTS_TRAIN_SNAPSHOTS_H

#include "train/snapshot.h"

/* Saves the snapshot of that iteration under the prefix. */
int made_save(const char *prefix, enum sac_snapshot_format format, int64_t iteration,
              struct sac_snapshot_files *ret, struct sac_error *err);

/* Loads the files and fails the test unless every bit is that of files->iteration. */
void assert_made(const struct sac_snapshot_files *files);

/* A fresh folder within the test's own; the path of `name` in it. */
const char *made_prefix(const char *folder, const char *name);

#endif
