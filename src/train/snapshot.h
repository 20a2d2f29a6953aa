/*
 * Snapshots of a training run, in Caffe's files and safe against crashes:
 *
 *     PREFIX_iter_N.caffemodel[.h5]    weights
 *     PREFIX_iter_N.solverstate[.h5]   iteration and history
 *     PREFIX_iter_N.saccade            what Caffe's files do not hold and a bit-exact
 *                                      resume needs, and both files' sizes and CRCs
 *
 * All three are written and synced under temporary names before the first gets its
 * own; the solverstate gets its own last. So a full disk changes nothing, and a
 * solverstate that is there has its caffemodel. Saving over a snapshot of the
 * same iteration can lose that one, and only that, if the machine stops between two
 * renames; it is then not taken for whole. One writer a prefix. Blocks.
 */
#ifndef SAC_TRAIN_SNAPSHOT_H
#define SAC_TRAIN_SNAPSHOT_H

#include <jansson.h>
#include <stdint.h>

#include "train/weights.h"

enum sac_snapshot_format { SAC_SNAPSHOT_BINARY, SAC_SNAPSHOT_HDF5 };

/* Whether this build has HDF5; without it, reading and writing it is
 * SAC_EUNSUPPORTED. */
bool sac_snapshot_has_hdf5(void);

/* What to save; all borrowed. */
struct sac_snapshot {
    const char *prefix;
    enum sac_snapshot_format format;
    int64_t iteration;
    int current_step;
    const struct sac_weights_view *weights;
    const struct sac_blob_view *history; /* in Caffe's order */
    int history_count;
    const json_t *values; /* an object of the caller's, or NULL */
};

/* A snapshot on the disk. */
struct sac_snapshot_files {
    int64_t iteration;
    char *state;
    char *weights;
    char *sidecar; /* NULL: another program's snapshot */
};
void sac_snapshot_files_done(struct sac_snapshot_files *files);

/* `ret` may be NULL. On failure nothing of an older snapshot has changed, but
 * see above for one of the same iteration. */
int sac_snapshot_save(const struct sac_snapshot *snapshot, struct sac_snapshot_files *ret,
                      struct sac_error *err);

/* The snapshot that a solverstate belongs to, checked to be whole: by sizes and
 * CRCs, or without a sidecar by reading both files. The weights are those that the
 * state names or, if they are not there, of that name or of the state's own name
 * beside it. */
int sac_snapshot_open(struct sac_snapshot_files *ret, const char *state, struct sac_error *err);

/* The newest whole snapshot of the prefix. Broken ones are logged and passed over;
 * with none left, SAC_ENOENT. */
int sac_snapshot_find_auto(struct sac_snapshot_files *ret, const char *prefix,
                           struct sac_error *err);

/* The caller's object, a new reference; NULL (and 0) without a sidecar. */
int sac_snapshot_values(const struct sac_snapshot_files *files, json_t **ret,
                        struct sac_error *err);

/* A snapshot at or past max_iter leaves nothing to train: SAC_EINVAL, and the
 * sentence says how to go on. */
int sac_snapshot_check_iterations(const struct sac_snapshot_files *files, int64_t max_iter,
                                  struct sac_error *err);

/* Removes snapshots that this program saved under the prefix, up to iteration `now`
 * (later ones are another run's), but for the newest `keep_last` and the iterations
 * in keep[]. What interrupted saves left goes too. */
int sac_snapshot_prune(const char *prefix, int64_t now, int keep_last, const int64_t *keep,
                       int keep_count, struct sac_error *err);

/* Removes the one of that iteration, if this program saved it; none is no failure. */
int sac_snapshot_remove(const char *prefix, int64_t iteration, struct sac_error *err);

/* The prefix as Caffe makes it from the solver's field (NULL: not set) and file:
 * not set, it is the solver's path without its extension; a folder gets that file
 * name appended. The caller frees it; NULL when memory is out. */
char *sac_snapshot_prefix(const char *snapshot_prefix, const char *solver_path);

/* Whether files can be made there; before hours of training, not after. */
int sac_snapshot_check_prefix(const char *prefix, struct sac_error *err);

/* A solverstate. */
struct sac_solver_state {
    int64_t iteration;
    int current_step;
    char *learned_net; /* as the file has it; "" if not */
    int history_count;
    struct sac_blob_view *history; /* owned, data included */
};
/* Binary or HDF5, whichever the file is. */
int sac_solver_state_load(struct sac_solver_state *ret, const char *path, struct sac_error *err);
void sac_solver_state_done(struct sac_solver_state *state);

#endif
