/*
 * Caffe's files: nets and solvers as text or binary, weights, blobs, labels.
 *
 * Messages are structs generated from our schema (caffe.proto here); layer files
 * in net/ read their fields. A message belongs to its sac_caffe_* handle, which
 * holds one arena, and lives until the handle is freed. Blocks; any thread, a
 * handle on one at a time.
 *
 * Whatever the file's age, a net comes out current: V0 and V1 layers upgraded,
 * `input` fields turned into Input layers, data transformations moved into
 * transform_param. That happens in upgrade.c and nowhere else.
 */
#ifndef SAC_FORMATS_CAFFE_H
#define SAC_FORMATS_CAFFE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "caffe.pb-c.h"

struct sac_caffe_net {
    Caffe__NetParameter *net; /* borrowed from the arena */
    struct sac_arena *arena;
};

/* Reads a net from text (prototxt) or binary (caffemodel), whichever the file
 * is, and upgrades it. */
int sac_caffe_net_load(struct sac_caffe_net *ret, const char *path, struct sac_error *err);
/* The same from memory; `name` stands for the file in sentences. */
int sac_caffe_net_parse(struct sac_caffe_net *ret, const char *name, const void *bytes, size_t size,
                        struct sac_error *err);
/* Mean files that are not where the net says, as published nets name paths of another
 * machine, but beside the net's own file, `path`, are taken from there. */
int sac_caffe_net_find_means(struct sac_caffe_net *net, const char *path, struct sac_error *err);
void sac_caffe_net_done(struct sac_caffe_net *net);

/* A net's weights, layers by name with their blobs: as sac_caffe_net_load, or from
 * Caffe's HDF5 (`*.caffemodel.h5`), by the file's first bytes. */
int sac_caffe_weights_load(struct sac_caffe_net *ret, const char *path, struct sac_error *err);
/* By the first bytes: 1 HDF5, 0 not, negative when the file cannot be read. */
int sac_hdf5_is(const char *path, struct sac_error *err);
/* The HDF5 half of it. SAC_EUNSUPPORTED in a build without HDF5. */
int sac_hdf5_weights_load(struct sac_caffe_net *ret, const char *path, struct sac_error *err);

/* A solver.prototxt, likewise upgraded (solver_type enum to string). */
struct sac_caffe_solver {
    Caffe__SolverParameter *solver;
    struct sac_arena *arena;
};
int sac_caffe_solver_load(struct sac_caffe_solver *ret, const char *path, struct sac_error *err);
void sac_caffe_solver_done(struct sac_caffe_solver *solver);

/* A blob as numbers: dim[0..rank), row-major floats, owned. `double_data` and
 * the legacy num/channels/height/width are read too. */
struct sac_caffe_blob {
    int rank; /* at most 8 */
    int64_t dim[8];
    size_t count;
    float *data;
};
/* Only rank, dimensions and count. As in Caffe, the four old fields go before
 * `shape`; without either, a blob is a single number. */
int sac_caffe_blob_shape(struct sac_caffe_blob *ret, const Caffe__BlobProto *blob,
                         struct sac_error *err);
/* The count of values that the message holds must be the product of its shape. */
int sac_caffe_blob_read(struct sac_caffe_blob *ret, const Caffe__BlobProto *blob,
                        struct sac_error *err);
/* A .binaryproto file: one BlobProto. */
int sac_caffe_blob_load(struct sac_caffe_blob *ret, const char *path, struct sac_error *err);
/* Writes one, as Caffe's tools do (the four old fields where rank ≤ 4); the file is
 * there whole or not at all. */
int sac_caffe_blob_save(const struct sac_caffe_blob *blob, const char *path, struct sac_error *err);
void sac_caffe_blob_done(struct sac_caffe_blob *blob);

struct sac_buf;
/* Appends the net as a binary file, a caffemodel. */
int sac_caffe_net_write(struct sac_buf *out, const Caffe__NetParameter *net);

/* The net as prototxt text, in schema order; unset fields are left out. */
int sac_prototxt_print(struct sac_buf *out, const ProtobufCMessage *message);

/* labels.txt, synset_words.txt: one label a line, CR and trailing blanks cut,
 * empty last lines dropped; not UTF-8 or over 1 MiB a line is refused. */
struct sac_labels {
    int count;
    char **text; /* owned */
};
int sac_labels_load(struct sac_labels *ret, const char *path, struct sac_error *err);
void sac_labels_done(struct sac_labels *labels);

#endif
