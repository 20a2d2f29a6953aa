/* What the kinds of sink share. Private to src/data. */
#ifndef SAC_DATA_SINK_PRIVATE_H
#define SAC_DATA_SINK_PRIVATE_H

#include "base/buf.h"
#include "data/sink.h"

struct sac_sink_type {
    int (*put)(struct sac_sink *sink, const struct sac_record *record, struct sac_error *err);
    int (*commit)(struct sac_sink *sink, struct sac_error *err);
    int (*finish)(struct sac_sink *sink, struct sac_error *err);
    void (*free)(struct sac_sink *sink);
};

/* The head of each sink. */
struct sac_sink {
    const struct sac_sink_type *type;
    enum sac_sink_kind kind;
    char *path;
    struct sac_sink_mark mark;
};

/* Zeroed, `size` bytes, with a copy of the path. */
void *sac_sink_new(size_t size, const struct sac_sink_type *type,
                   const struct sac_sink_options *options, const struct sac_sink_mark *mark,
                   struct sac_error *err);

/* "00000012_rose": the number of the record that comes next, and its name without
 * what stands before a slash or behind a dot, other bytes than letters, digits,
 * blanks and -_+ as _, at most 80 bytes. */
void sac_sink_record_name(const struct sac_sink *sink, const struct sac_record *record,
                          char text[128]);

int sac_sink_files_open(struct sac_sink **ret, const struct sac_sink_options *options,
                        const struct sac_sink_mark *mark, struct sac_error *err);
int sac_sink_lmdb_open(struct sac_sink **ret, const struct sac_sink_options *options,
                       const struct sac_sink_mark *mark, struct sac_error *err);
int sac_sink_hdf5_open(struct sac_sink **ret, const struct sac_sink_options *options,
                       const struct sac_sink_mark *mark, struct sac_error *err);
int sac_sink_cifar_open(struct sac_sink **ret, const struct sac_sink_options *options,
                        const struct sac_sink_mark *mark, struct sac_error *err);

#endif
