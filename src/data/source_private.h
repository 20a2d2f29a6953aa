/* What the kinds of source share. Private to src/data. */
#ifndef SAC_DATA_SOURCE_PRIVATE_H
#define SAC_DATA_SOURCE_PRIVATE_H

#include "data/source.h"

/* An int label as the item's; SAC_EINVAL where float32 does not hold it. */
int sac_item_set_label(struct sac_item *item, int64_t label, struct sac_error *err);
/* Makes item->memory hold `size` bytes, content undefined. */
int sac_item_reserve(struct sac_item *item, size_t size, struct sac_error *err);

/* Zeroed, `size` bytes, with a copy of the path. */
void *sac_source_new(size_t size, const struct sac_source_type *type, const char *path,
                     struct sac_error *err);

/* A text file's lines in place, byte order mark, CR and blanks at the end cut, NUL-ended. */
struct sac_lines {
    char *text; /* owned */
    char **line;
    int64_t count;
};
int sac_lines_load(struct sac_lines *ret, const char *path, struct sac_error *err);
void sac_lines_done(struct sac_lines *lines);

/* Reads a picture's file into the item. */
int sac_item_read_file(struct sac_item *item, const char *path, struct sac_error *err);

/* Pictures of whatever kind lie in files of their own: a list or a folder. */
bool sac_source_has_files(const struct sac_source *source);

/* The classes' names from a file in the folder that `path` is, or is in; without
 * such a file, or if it is damaged, there are none. */
void sac_source_load_labels(struct sac_source *source, const char *path, const char *name);

/* Each call of the HDF5 library, in whatever thread, stands between these two. */
void sac_hdf5_lock(void);
void sac_hdf5_unlock(void);

/* By its name. */
bool sac_source_is_hdf5(const char *path);

/* LevelDB's folders have these. */
int sac_source_refuse_leveldb(const char *path, struct sac_error *err);

#endif
