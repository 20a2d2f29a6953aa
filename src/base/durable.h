/*
 * Files that are there whole or not at all, also after a crash or a power cut:
 * written beside their place as PATH.tmp, synced, renamed, the folder synced.
 *
 *     open → put … → sync → commit → free
 *
 * Several files that belong together are all synced before the first of them is
 * committed, so that a full disk changes nothing. One thread at a time; blocks.
 */
#ifndef SAC_BASE_DURABLE_H
#define SAC_BASE_DURABLE_H

#include <stddef.h>

#include "base/error.h"

struct sac_durable;

#define SAC_DURABLE_SUFFIX ".tmp"

/* Creates PATH.tmp; one left behind by a crash is overwritten. */
int sac_durable_open(struct sac_durable **ret, const char *path, struct sac_error *err);
int sac_durable_put(struct sac_durable *file, const void *bytes, size_t size,
                    struct sac_error *err);
/* What was put is on the disk, under its temporary name. A failure is final: the
 * system may have dropped what it could not write, and a second sync that
 * succeeds would prove nothing. */
int sac_durable_sync(struct sac_durable *file, struct sac_error *err);
/* Gives the synced file its name, in place of what had it. */
int sac_durable_commit(struct sac_durable *file, struct sac_error *err);
/* Takes NULL. Without a commit the temporary is removed and the old file stays. */
void sac_durable_free(struct sac_durable *file);

/* All of it, for a file that is in memory. */
int sac_durable_write(const char *path, const void *bytes, size_t size, struct sac_error *err);

/* Syncs the folder that PATH is in: renames and removals there are on the disk. */
int sac_durable_sync_folder(const char *path, struct sac_error *err);

#endif
