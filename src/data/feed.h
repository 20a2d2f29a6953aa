/*
 * Batches of a source, transformed, ahead of who takes them.
 *
 * What stands at a position (items since the start of training, counted over all
 * shards) is a function of the options' seed and of nothing else: the number of
 * threads does not matter, and a feed that is opened at a position gives, bit for
 * bit, what another gives from there on. Epochs follow each other without a
 * partial batch, as with Caffe; each has its own order where the feed shuffles.
 *
 * A corrupt picture is counted, named in the log and skipped: the next of the
 * order stands in its place (so it comes twice), or, gone through once, nothing
 * does. Opening and closing block; one thread at a time takes batches.
 */
#ifndef SAC_DATA_FEED_H
#define SAC_DATA_FEED_H

#include "data/transform.h"

/* Zero is the default, which stands behind each. */
struct sac_feed_options {
    int batch;  /* items of the whole batch, over all shards; no default */
    bool train; /* the transform's random crop and augmentation; else test */
    uint64_t seed;
    bool shuffle;
    bool once;        /* one epoch: the last batch is partial, and then there are no more */
    int threads;      /* that decode; as many as the process has cores, at most 64 */
    int ahead;        /* batches that are made ahead; 3, fewer where memory asks for it */
    int64_t position; /* where to start: items that are behind; 0 */
    int64_t skip;     /* the first epoch begins at this item of its order; not with `once` */
    /* Of each batch, part `shard` of `shards` (1), split where it is contiguous. */
    int shard, shards;
    int classes;      /* labels are whole numbers in [0, classes); 0: any */
    size_t bytes_max; /* for the batches; what memory is available now, less an eighth */
    /* Of sac_feed_from_layer() alone, borrowed; NULL: as the layer says. A source of
     * any kind that sac_source_open() knows; of a list or folder, pictures become
     * colour unless the layer forces grey. A mean image's file. */
    const char *source, *mean_file;
    const struct sac_augment *augment; /* what training does besides; NULL: nothing */
    enum sac_resize resize;            /* of encoded pictures; width 0: as the layer says */
    int resize_width, resize_height;
    bool sets; /* by sac_feed_from_layer(): tops are as the source's sets are */
    /* Batches are 8-bit crops (sac_batch.crops) where the first item and the transform
     * allow it; all others are then of bytes, too. */
    bool crops;
};

struct sac_feed;

/* Takes the source and what the transform owns, on success. A batch that is
 * larger than memory is SAC_ELIMIT, before memory is taken. */
int sac_feed_open(struct sac_feed **ret, struct sac_source *source,
                  const struct sac_transform *transform, const struct sac_feed_options *options,
                  struct sac_error *err);
/* As a Data, ImageData or HDF5Data layer says (an upgraded net's): source, batch
 * (unless the options have one), shuffle, rand_skip, prefetch, transform_param. */
int sac_feed_from_layer(struct sac_feed **ret, const Caffe__LayerParameter *layer,
                        const struct sac_feed_options *options, struct sac_error *err);
/* The batch that such a layer says; 0: none. */
int sac_feed_layer_batch(const Caffe__LayerParameter *layer);
/* Takes NULL; waits for the threads. */
void sac_feed_free(struct sac_feed *feed);

/* Good until the next call of sac_feed_next() or sac_feed_free(). */
struct sac_batch {
    int count;            /* items; fewer than asked for only when gone through once */
    const float *data;    /* count × shape; NULL: crops */
    const uint8_t *crops; /* count × shape, as sac_feed_crops() says; NULL: data */
    const struct sac_crop_place *places; /* count */
    const float *labels;                 /* count × the source's label_count */
    const int64_t *index;                /* count: which items of the source they are */
    int64_t position;                    /* after this batch */
    bool end;                            /* gone through once, and this is no batch any more */
};

/* The next batch; waits for it. After a failure each call fails alike. The
 * sentence names the file and, of a list, its line. */
int sac_feed_next(struct sac_feed *feed, struct sac_batch *ret, struct sac_error *err);

/* channels, height, width of an item. */
const int *sac_feed_shape(const struct sac_feed *feed);
/* What the feed gives a layer's tops, one after another: data, then labels. */
struct sac_feed_top {
    int rank;
    int64_t dim[SAC_SOURCE_AXES_MAX + 1]; /* of a full batch of this shard, axis 0 */
    int64_t count;                        /* values an item */
};
/* N × C × H × W and, of labels, N or N × count; of an HDF5Data layer over HDF5 each top as
 * its dataset is. SAC_EUNSUPPORTED: there is no such top. */
int sac_feed_top(const struct sac_feed *feed, int top, struct sac_feed_top *ret,
                 struct sac_error *err);
/* A batch's values of one top, item after item; not of crops. */
void sac_feed_copy_top(const struct sac_feed *feed, const struct sac_batch *batch, int top,
                       float *to);
/* Whether batches are crops, and then of struct sac_crops all but pointers into the
 * device's memory: `mean` is the transform's. */
bool sac_feed_crops(const struct sac_feed *feed, struct sac_crops *ret);
/* Items of this shard in a full batch. */
int sac_feed_batch(const struct sac_feed *feed);
const struct sac_source *sac_feed_source(const struct sac_feed *feed);
const struct sac_transform *sac_feed_transform(const struct sac_feed *feed);

/* What the first item that can be used is before the crop, for who has to make others
 * like it. */
struct sac_feed_picture {
    enum sac_item_kind kind;
    int channels, height, width; /* decoded and resized */
    bool rgb;                    /* the order of three channels in the batch */
    bool files;                  /* items are files, each of a size of its own */
};
const struct sac_feed_picture *sac_feed_picture(const struct sac_feed *feed);

struct sac_feed_stats {
    int64_t batches, items; /* that were taken */
    int64_t corrupt;        /* different items of those that could not be used */
    int64_t waits;          /* batches that were not ready when asked for, but for the first */
    uint64_t wait_ns;       /* time spent waiting for them, likewise */
    uint64_t first_wait_ns;
};
/* By the thread that takes batches. */
struct sac_feed_stats sac_feed_stats(const struct sac_feed *feed);

#endif
