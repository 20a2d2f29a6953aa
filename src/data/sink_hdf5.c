/* One HDF5 file with the datasets `data` and `label`, in blocks of items. */
#include "data/sink_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef SAC_HAVE_HDF5

#include <hdf5.h>

#include "base/durable.h"
#include "data/source_private.h"

#define BLOCK_BYTES ((size_t)4 << 20)

struct hdf5 {
    struct sac_sink sink;
    char *temporary;
    hid_t file, data, label; /* −1: not open */
    int channels, height, width;
    bool rgb;
    size_t values;   /* of an item; 0 until the first came */
    int block, held; /* items */
    float *items, *labels;
};

static int fail_h5(const struct hdf5 *hdf5, struct sac_error *err)
{
    return sac_fail(err, SAC_EIO, "%s cannot be written; is the disk full?", hdf5->sink.path);
}

/* Grows along the first dimension, a block at a time. */
static hid_t make_set(hid_t file, const char *name, int rank, const hsize_t *item, int block)
{
    hsize_t now[4] = {0}, most[4] = {H5S_UNLIMITED}, chunk[4] = {(hsize_t)block};

    for (int i = 1; i < rank; i++)
        now[i] = most[i] = chunk[i] = item[i - 1];
    hid_t space = H5Screate_simple(rank, now, most), layout = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(layout, rank, chunk);
    hid_t set = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    H5Pclose(layout);
    H5Sclose(space);
    return set;
}

static bool mark_rgb(hid_t set)
{
    const int yes = 1;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t mark = H5Acreate2(set, SAC_SOURCE_RGB, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t rc = mark < 0 ? -1 : H5Awrite(mark, H5T_NATIVE_INT, &yes);

    if (mark >= 0)
        H5Aclose(mark);
    H5Sclose(space);
    return rc >= 0;
}

static int settle(struct hdf5 *hdf5, const struct sac_record *record, struct sac_error *err)
{
    hsize_t item[3] = {(hsize_t)record->channels, (hsize_t)record->height, (hsize_t)record->width};
    size_t bytes;

    hdf5->channels = record->channels;
    hdf5->height = record->height;
    hdf5->width = record->width;
    hdf5->values = (size_t)record->channels * (size_t)record->height * (size_t)record->width;
    if (hdf5->values == 0 || hdf5->values > INT32_MAX / sizeof(float))
        return sac_fail(err, SAC_ELIMIT, "%s: items of %d × %d × %d", hdf5->sink.path,
                        record->channels, record->height, record->width);
    bytes = hdf5->values * sizeof(float);
    hdf5->block = bytes < BLOCK_BYTES ? (int)(BLOCK_BYTES / bytes) : 1;
    hdf5->block = hdf5->block < 256 ? hdf5->block : 256;
    hdf5->items = calloc((size_t)hdf5->block, bytes);
    hdf5->labels = calloc((size_t)hdf5->block, sizeof(float));
    if (!hdf5->items || !hdf5->labels)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", hdf5->sink.path);
    sac_hdf5_lock();
    hdf5->file = H5Fcreate(hdf5->temporary, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (hdf5->file >= 0) {
        hdf5->data = make_set(hdf5->file, "data", 4, item, hdf5->block);
        hdf5->label = make_set(hdf5->file, "label", 1, NULL, hdf5->block);
    }
    bool made = hdf5->data >= 0 && hdf5->label >= 0 && (!hdf5->rgb || mark_rgb(hdf5->data));
    sac_hdf5_unlock();
    return made ? 0 : fail_h5(hdf5, err);
}

static bool append(hid_t set, int rank, const hsize_t *item, int64_t at, int count,
                   const float *values)
{
    hsize_t size[4] = {(hsize_t)at + (hsize_t)count}, start[4] = {(hsize_t)at},
            part[4] = {(hsize_t)count};

    for (int i = 1; i < rank; i++)
        size[i] = part[i] = item[i - 1];
    if (H5Dset_extent(set, size) < 0)
        return false;
    hid_t space = H5Dget_space(set), memory = H5Screate_simple(rank, part, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, part, NULL);
    herr_t rc = H5Dwrite(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, values);
    H5Sclose(memory);
    H5Sclose(space);
    return rc >= 0;
}

static int flush(struct hdf5 *hdf5, int64_t records, struct sac_error *err)
{
    hsize_t item[3] = {(hsize_t)hdf5->channels, (hsize_t)hdf5->height, (hsize_t)hdf5->width};
    int64_t at = records - hdf5->held;

    if (hdf5->held == 0)
        return 0;
    sac_hdf5_lock();
    bool done = append(hdf5->data, 4, item, at, hdf5->held, hdf5->items) &&
                append(hdf5->label, 1, NULL, at, hdf5->held, hdf5->labels);
    sac_hdf5_unlock();
    hdf5->held = 0;
    return done ? 0 : fail_h5(hdf5, err);
}

static int hdf5_put(struct sac_sink *sink, const struct sac_record *record, struct sac_error *err)
{
    struct hdf5 *hdf5 = (struct hdf5 *)sink;
    int rc = 0;

    if (record->kind != SAC_ITEM_FLOATS)
        return sac_fail(err, SAC_EINVAL, "%s: %s is not in floats", sink->path, record->name);
    if (hdf5->values == 0)
        rc = settle(hdf5, record, err);
    if (rc < 0)
        return rc;
    if (record->channels != hdf5->channels || record->height != hdf5->height ||
        record->width != hdf5->width)
        return sac_fail(err, SAC_EINVAL,
                        "%s: %s is %d × %d × %d, the first item %d × %d × %d; --size makes them "
                        "alike",
                        sink->path, record->name, record->channels, record->height, record->width,
                        hdf5->channels, hdf5->height, hdf5->width);
    memcpy(hdf5->items + (size_t)hdf5->held * hdf5->values, record->floats,
           hdf5->values * sizeof(float));
    hdf5->labels[hdf5->held++] = (float)record->label;
    return hdf5->held == hdf5->block ? flush(hdf5, sink->mark.records + 1, err) : 0;
}

static int hdf5_commit(struct sac_sink *sink, struct sac_error *err)
{
    (void)sink; /* the file appears when it is whole */
    (void)err;
    return 0;
}

static bool close_ids(struct hdf5 *hdf5)
{
    herr_t rc = 0;

    sac_hdf5_lock();
    if (hdf5->data >= 0)
        rc |= H5Dclose(hdf5->data);
    if (hdf5->label >= 0)
        rc |= H5Dclose(hdf5->label);
    if (hdf5->file >= 0)
        rc |= H5Fclose(hdf5->file);
    sac_hdf5_unlock();
    hdf5->data = hdf5->label = hdf5->file = -1;
    return rc >= 0;
}

static int hdf5_finish(struct sac_sink *sink, struct sac_error *err)
{
    struct hdf5 *hdf5 = (struct hdf5 *)sink;
    int rc = flush(hdf5, sink->mark.records, err);

    if (rc == 0 && hdf5->file < 0)
        rc = sac_fail(err, SAC_EINVAL, "%s: no items", sink->path);
    if (rc == 0 && !close_ids(hdf5))
        rc = fail_h5(hdf5, err);
    if (rc == 0 && rename(hdf5->temporary, sink->path) < 0)
        rc = sac_fail_errno(err, errno, "%s cannot be written", sink->path);
    return rc ? rc : sac_durable_sync_folder(sink->path, err);
}

static void hdf5_free(struct sac_sink *sink)
{
    struct hdf5 *hdf5 = (struct hdf5 *)sink;

    close_ids(hdf5);
    if (hdf5->temporary)
        unlink(hdf5->temporary); /* gone by now, if the file was finished */
    free(hdf5->temporary);
    free(hdf5->items);
    free(hdf5->labels);
    free(hdf5);
}

static const struct sac_sink_type hdf5_type = {hdf5_put, hdf5_commit, hdf5_finish, hdf5_free};

int sac_sink_hdf5_open(struct sac_sink **ret, const struct sac_sink_options *options,
                       const struct sac_sink_mark *mark, struct sac_error *err)
{
    struct hdf5 *hdf5 = sac_sink_new(sizeof *hdf5, &hdf5_type, options, mark, err);

    if (!hdf5)
        return SAC_ENOMEM;
    hdf5->file = hdf5->data = hdf5->label = -1;
    hdf5->rgb = options->rgb;
    if (asprintf(&hdf5->temporary, "%s" SAC_DURABLE_SUFFIX, options->path) < 0) {
        hdf5->temporary = NULL;
        sac_sink_free(&hdf5->sink);
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", options->path);
    }
    *ret = &hdf5->sink;
    return 0;
}

#else

int sac_sink_hdf5_open(struct sac_sink **ret, const struct sac_sink_options *options,
                       const struct sac_sink_mark *mark, struct sac_error *err)
{
    (void)ret;
    (void)mark;
    return sac_fail(err, SAC_EUNSUPPORTED, "%s: HDF5, and this program was built without libhdf5",
                    options->path);
}

#endif
