/*
 * Where items come from: an LMDB of Caffe's Datums, a list of pictures, HDF5
 * files, CIFAR-10's batches, a folder of folders. A source answers for any item
 * by its number, so that what feeds from it may go in any order.
 *
 * Opening blocks, on one thread; sac_source_item() may be called by any number
 * of threads at a time, each with an item of its own.
 */
#ifndef SAC_DATA_SOURCE_H
#define SAC_DATA_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "formats/caffe.h"

enum sac_item_kind {
    SAC_ITEM_ENCODED, /* a JPEG or PNG */
    SAC_ITEM_BYTES,   /* channels × height × width, one byte each */
    SAC_ITEM_FLOATS,  /* the same in float32 */
};

/* One a thread, started as `= {0}`; what it points to is good until the next
 * item is read into it or the source is closed. */
struct sac_item {
    enum sac_item_kind kind;
    int channels, height, width; /* 0 of an encoded one */
    bool rgb;                    /* three planes are R, G, B, else B, G, R */
    const uint8_t *bytes;        /* size bytes, of the first two kinds */
    size_t size;
    const float *floats;
    const float *labels; /* the source's label_count */
    float label;         /* where `labels` points when there is one */
    void *memory;        /* owned: for what is not in the source's own memory */
    size_t memory_size;
};
void sac_item_done(struct sac_item *item);

struct sac_source;

struct sac_source_type {
    const char *kind; /* "LMDB", for sentences */
    int (*item)(const struct sac_source *source, int64_t index, struct sac_item *ret,
                struct sac_error *err);
    /* What the item is called: a path with its line, a key. */
    void (*name)(const struct sac_source *source, int64_t index, char *text, size_t size);
    void (*free)(struct sac_source *source);
    /* May be NULL: the label without the item; the path of the item's own file. */
    int (*label)(const struct sac_source *source, int64_t index, int32_t *ret,
                 struct sac_error *err);
    bool (*path)(const struct sac_source *source, int64_t index, char *text, size_t size);
};

enum { SAC_SOURCE_AXES_MAX = 7, SAC_SOURCE_SETS_MAX = 32 };

/* A dataset of an HDF5 file: what of it belongs to one item. */
struct sac_source_set {
    int rank;
    int64_t dim[SAC_SOURCE_AXES_MAX];
    int64_t count;
};

/* The head of each source; read-only once open. */
struct sac_source {
    const struct sac_source_type *type;
    char *path;
    int64_t count;   /* at least 1 */
    int label_count; /* values a label: 1 but of HDF5 */
    /* Of HDF5, else NULL: the items' set, then those whose values are the label, one
     * after another. */
    const struct sac_source_set *sets;
    int set_count;
    bool rgb;                 /* three planes that are not encoded are R, G, B, else B, G, R */
    struct sac_labels labels; /* the classes' names, or none */
    char **unread;            /* of folders: pictures of kinds that are not read; owned */
    int64_t unread_count;
};

/* SAC_EFORMAT, SAC_EUNSUPPORTED and SAC_ELIMIT: this item is corrupt, others may
 * be well. Anything else (a file that is missing, a label out of range) concerns
 * the source. Sentences name the item. */
int sac_source_item(const struct sac_source *source, int64_t index, struct sac_item *ret,
                    struct sac_error *err);
void sac_source_item_name(const struct sac_source *source, int64_t index, char *text, size_t size);
/* The item's label as a whole number, its pixels unread where the source can. SAC_EINVAL:
 * it is none, or one of several. */
int sac_source_item_label(const struct sac_source *source, int64_t index, int32_t *ret,
                          struct sac_error *err);
/* The same of an item that was read. */
int sac_source_label_of(const struct sac_source *source, int64_t index, const struct sac_item *item,
                        int32_t *ret, struct sac_error *err);
/* Where the item's own file is; false where it has none (an LMDB's, say). */
bool sac_source_item_path(const struct sac_source *source, int64_t index, char *text, size_t size);
/* Takes NULL. */
void sac_source_free(struct sac_source *source);

/* Whether a file's extension is that of a picture that is read; of one of a kind that is not. */
bool sac_source_is_read_kind(const char *name);
bool sac_source_is_unread_kind(const char *name);

/* Whether a code means a corrupt item (see sac_source_item). */
static inline bool sac_source_is_corrupt(int code)
{
    return code == SAC_EFORMAT || code == SAC_EUNSUPPORTED || code == SAC_ELIMIT;
}

/* The file that tells the planes of the LMDB in whose folder it lies: "rgb" or "bgr".
 * Caffe's have none and are taken for B, G, R. */
#define SAC_SOURCE_CHANNELS "channels.txt"
/* The attribute of an HDF5 file's dataset of items that tells the same, a number. */
#define SAC_SOURCE_RGB "rgb"

/* A folder with data.mdb, or the file itself; items in the order of their keys.
 * The file's length is compared with what its head says before it is mapped: a
 * truncated one would end the program. */
int sac_source_lmdb_open(struct sac_source **ret, const char *path, struct sac_error *err);

/* A text file: a line has a path, a blank and a label, a whole number; the label
 * stands after the last blank. `root` is put before each path as it is (NULL:
 * nothing). Empty lines do not count. */
int sac_source_list_open(struct sac_source **ret, const char *path, const char *root,
                         struct sac_error *err);

/* Each sub-folder is a class, in the order of their names' bytes, and holds JPEG
 * and PNG files (by extension), also in folders below; hidden ones do not count. What
 * else is a picture by its extension (HEIC, TIFF, WebP …) stands in `unread`; of these
 * and of folders without pictures a line is logged. */
int sac_source_folder_open(struct sac_source **ret, const char *path, struct sac_error *err);

/* A text file that lists .h5 files, one a line; or a .h5 file. Of each, the
 * datasets `data` (items first) and `label` (NULL: none) are read as float32. All
 * files agree in what an item is. Items of more than three dimensions are so many
 * channels as the first has, and rows of the last. */
int sac_source_hdf5_open(struct sac_source **ret, const char *path, const char *data,
                         const char *label, struct sac_error *err);
/* The same of the named datasets, 1 to SAC_SOURCE_SETS_MAX, data first. */
int sac_source_hdf5_open_sets(struct sac_source **ret, const char *path, char *const *names,
                              int count, struct sac_error *err);

/* CIFAR-10's binary files: records of a label and 3 × 32 × 32 bytes, planes R, G,
 * B. Names of classes come from batches.meta.txt or class_names.txt beside the
 * first. */
int sac_source_cifar_open(struct sac_source **ret, const char *const *paths, int count,
                          struct sac_error *err);

/* Items of another source, in an order of their own; `indices` may name an item
 * more than once. Classes: `renumber` has the new number of each old label (−1: none
 * of the items has it) and `labels` the new names; both may be NULL. Copies what it
 * is given, but for `of`, which it borrows. */
int sac_source_view_open(struct sac_source **ret, const struct sac_source *of,
                         const int64_t *indices, int64_t count, const int32_t *renumber,
                         int renumber_count, const struct sac_labels *labels,
                         struct sac_error *err);

/* Whichever of these the path is, told by what is there: a folder with data.mdb,
 * with list.txt or with folders; a file of CIFAR records (.bin), HDF5 (its
 * signature) or a list. A list's paths hold from the working folder, or else from
 * the list's own. Names of an LMDB's and a list's classes come from labels.txt
 * beside the data. */
int sac_source_open(struct sac_source **ret, const char *path, struct sac_error *err);

#endif
