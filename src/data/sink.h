/*
 * Where items go: a list of pictures, a folder a class, an LMDB of Caffe's Datums,
 * an HDF5 file, CIFAR-10's binary file. What a sink writes, the source of its kind
 * reads (source.h).
 *
 * Lists, folders and LMDBs can be gone on with: a commit makes all that was put a
 * part of the files, a mark says how far that is, and a sink that is opened at a mark
 * drops what lies behind it. The files depend on what was put and where it was
 * committed, not on how often the program was killed between. HDF5 and CIFAR files
 * appear whole when they are closed.
 *
 * One thread at a time; blocks.
 */
#ifndef SAC_DATA_SINK_H
#define SAC_DATA_SINK_H

#include "data/source.h"

enum sac_sink_kind {
    SAC_SINK_LIST = 1, /* PATH/images/000/00000000_NAME.jpg …, PATH/list.txt */
    SAC_SINK_FOLDER,   /* PATH/CLASS/00000000_NAME.jpg … */
    SAC_SINK_LMDB,     /* PATH/data.mdb, keys 00000000_NAME */
    SAC_SINK_HDF5,     /* PATH: datasets data and label, float32 */
    SAC_SINK_CIFAR,    /* PATH: records of 3,073 bytes; PATH's folder/batches.meta.txt */
};

/* "list", "folder", "lmdb", "hdf5", "cifar"; SAC_EINVAL for others. */
int sac_sink_kind_of(const char *name, enum sac_sink_kind *ret, struct sac_error *err);
const char *sac_sink_kind_name(enum sac_sink_kind kind);

/* What a sink takes as an item; what is pointed to is borrowed. Lists and folders
 * take encoded ones; LMDBs all; HDF5 files floats of one shape; CIFAR files bytes,
 * planes R, G, B, 3 × 32 × 32. Planes of LMDBs and HDF5 files are as the options say. */
struct sac_record {
    enum sac_item_kind kind;
    int channels, height, width; /* 0 of an encoded one: not known */
    const uint8_t *bytes;
    size_t size;
    const float *floats; /* channels × height × width */
    int32_t label;
    const char *name; /* of its file, to be recognised by; or "" */
};

struct sac_sink_options {
    enum sac_sink_kind kind;
    const char *path;
    const struct sac_labels *labels; /* names of classes; of a folder they are its folders' */
    int classes;                     /* of a folder: as many folders, though some be empty */
    bool rgb; /* three planes of LMDBs and HDF5 files are R, G, B, and are marked so; else B, G,
               * R, as Caffe takes them */
};

/* Start it as `= {0}`: nothing was put. */
struct sac_sink_mark {
    int64_t records;
    uint64_t list_bytes; /* of list.txt */
};

struct sac_sink;

/* Goes on behind the mark; SAC_EFORMAT: what is there does not reach that far, or
 * cannot have come to it. Folders on the way to PATH are there. */
int sac_sink_open(struct sac_sink **ret, const struct sac_sink_options *options,
                  const struct sac_sink_mark *mark, struct sac_error *err);
int sac_sink_put(struct sac_sink *sink, const struct sac_record *record, struct sac_error *err);
/* Where a commit now would be. */
struct sac_sink_mark sac_sink_mark(const struct sac_sink *sink);
int sac_sink_commit(struct sac_sink *sink, struct sac_error *err);
/* Commits, and gives HDF5 and CIFAR files their names. */
int sac_sink_finish(struct sac_sink *sink, struct sac_error *err);
/* Takes NULL. Without sac_sink_finish() what was not committed is lost. */
void sac_sink_free(struct sac_sink *sink);

/* Whether commits and marks mean something for the kind. */
bool sac_sink_resumes(enum sac_sink_kind kind);

#endif
