/* One file of a snapshot in each form; between snapshot*.c, binary.c, hdf5.c, sidecar.c. */
#ifndef SAC_TRAIN_SNAPSHOT_FILES_H
#define SAC_TRAIN_SNAPSHOT_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "base/durable.h"
#include "train/snapshot.h"

/* A file being written. The first failure is kept, later puts do nothing. */
struct sac_out {
    struct sac_durable *file;
    const char *path;
    uint64_t bytes;
    uint32_t crc;
    int rc;
    struct sac_error *err;
};
void sac_out_put(struct sac_out *out, const void *bytes, size_t size);

/* Writes what it is given; 0, or the code that out->rc has too. */
int sac_binary_put_weights(struct sac_out *out, const struct sac_weights_view *weights);
int sac_binary_put_state(struct sac_out *out, const struct sac_snapshot *snapshot,
                         const char *learned_net);
int sac_hdf5_put_weights(struct sac_out *out, const struct sac_weights_view *weights);
int sac_hdf5_put_state(struct sac_out *out, const struct sac_snapshot *snapshot,
                       const char *learned_net);

/* Whether a caffemodel can be read from end to end. */
int sac_weights_check(const char *path, struct sac_error *err);
/* On failure what was read is in *ret, and goes with sac_solver_state_done. */
int sac_binary_load_state(struct sac_solver_state *ret, const char *path, struct sac_error *err);
int sac_hdf5_load_state(struct sac_solver_state *ret, const char *path, struct sac_error *err);

struct sac_shape sac_shape_of_blob(const struct sac_caffe_blob *blob);

/* A file as the sidecar knows it. */
struct sac_file_print {
    const char *name; /* without folder */
    uint64_t bytes;
    uint32_t crc;
};

struct sac_sidecar {
    int64_t iteration;
    struct sac_file_print weights;
    struct sac_file_print state;
    json_t *root; /* owned; names and values are in it */
};
int sac_sidecar_put(struct sac_out *out, int64_t iteration, const struct sac_file_print *weights,
                    const struct sac_file_print *state, const json_t *values);
int sac_sidecar_load(struct sac_sidecar *ret, const char *path, struct sac_error *err);
void sac_sidecar_done(struct sac_sidecar *sidecar);

/* The name behind the last slash. */
const char *sac_path_name(const char *path);
/* FOLDER/NAME, in the folder that `beside` is in; NULL when memory is out. */
char *sac_path_beside(const char *beside, const char *name);

#endif
