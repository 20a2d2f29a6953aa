/*
 * Snapshots in Caffe's HDF5 form: weights in /data/LAYER/INDEX; a state in /iter,
 * /learned_net, /current_step and /history/INDEX.
 *
 * Files are made in memory and written by us, so that a full disk or a crash is
 * handled in one place and HDF5 never sees it. A layer's name with slashes is a
 * path of groups.
 */
#include "train/snapshot_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/caffe_hdf5.h"

enum { TEXT_BYTES_MAX = 65536 };

bool sac_snapshot_has_hdf5(void)
{
    return true;
}

/* ---- Writing ---- */

/* A file in memory, under a name that only HDF5 sees. */
static hid_t new_image(const char *name, size_t bytes)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    hid_t file = -1;

    if (H5Pset_fapl_core(access, bytes, 0) >= 0)
        file = H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    sac_hdf5_close(access);
    return file;
}

/* The image's bytes into the file that is being written. */
static int put_image(struct sac_out *out, hid_t file)
{
    if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0)
        return out->rc = sac_hdf5_fail(out->err, SAC_EIO, "the file could not be made");
    ssize_t size = H5Fget_file_image(file, NULL, 0);
    void *image = size > 0 ? malloc((size_t)size) : NULL;
    if (!image || H5Fget_file_image(file, image, (size_t)size) != size)
        out->rc = sac_hdf5_fail(out->err, SAC_ENOMEM, "no memory for the file");
    else
        sac_out_put(out, image, (size_t)size);
    free(image);
    return out->rc;
}

/* Datasets that make groups on their way and keep no times: the same numbers are
 * the same bytes. */
static int create_dataset(hid_t at, const char *name, hid_t type, hid_t space, const void *values)
{
    hid_t create = H5Pcreate(H5P_DATASET_CREATE), link = H5Pcreate(H5P_LINK_CREATE);
    hid_t set = -1;
    int rc = -1;

    H5Pset_obj_track_times(create, 0);
    H5Pset_create_intermediate_group(link, 1);
    set = H5Dcreate2(at, name, type, space, link, create, H5P_DEFAULT);
    if (set >= 0)
        rc = H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    sac_hdf5_close(set);
    sac_hdf5_close(create);
    sac_hdf5_close(link);
    return rc < 0 ? -1 : 0;
}

static int create_blob(hid_t at, const char *name, const struct sac_blob_view *blob)
{
    static const float none;
    hsize_t dim[SAC_AXES_MAX];

    for (int i = 0; i < blob->shape.rank; i++)
        dim[i] = (hsize_t)blob->shape.dim[i];
    hid_t space = blob->shape.rank > 0 ? H5Screate_simple(blob->shape.rank, dim, NULL)
                                       : H5Screate(H5S_SCALAR);
    int rc = space < 0 ? -1
                       : create_dataset(at, name, H5T_NATIVE_FLOAT, space,
                                        blob->data ? blob->data : &none);
    sac_hdf5_close(space);
    return rc;
}

static int create_int(hid_t at, const char *name, int value)
{
    hsize_t one = 1;
    hid_t space = H5Screate_simple(1, &one, NULL);
    int rc = create_dataset(at, name, H5T_NATIVE_INT, space, &value);

    sac_hdf5_close(space);
    return rc;
}

static int create_text(hid_t at, const char *name, const char *text)
{
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    int rc =
        H5Tset_size(type, strlen(text) + 1) < 0 ? -1 : create_dataset(at, name, type, space, text);

    sac_hdf5_close(type);
    sac_hdf5_close(space);
    return rc;
}

static int create_group(hid_t at, const char *name)
{
    hid_t link = H5Pcreate(H5P_LINK_CREATE);
    hid_t group = -1;

    H5Pset_create_intermediate_group(link, 1);
    /* "a/b" before "a" makes both. */
    if (H5Lexists(at, name, H5P_DEFAULT) <= 0)
        group = H5Gcreate2(at, name, link, H5P_DEFAULT, H5P_DEFAULT);
    else
        group = H5Gopen2(at, name, H5P_DEFAULT);
    sac_hdf5_close(link);
    if (group < 0)
        return -1;
    sac_hdf5_close(group);
    return 0;
}

static int create_layer(hid_t data, const struct sac_weights_layer *layer)
{
    char path[1024];
    int rc = create_group(data, layer->name);

    for (int i = 0; rc == 0 && i < layer->blob_count; i++) {
        int length = snprintf(path, sizeof path, "%s/%d", layer->name, i);
        rc = length < (int)sizeof path ? create_blob(data, path, &layer->blobs[i]) : -1;
    }
    return rc;
}

static size_t image_bytes(const struct sac_blob_view *blobs, int count)
{
    size_t bytes = 0;

    for (int i = 0; i < count; i++)
        bytes += (size_t)sac_shape_count(&blobs[i].shape) * sizeof(float) + 1024;
    return bytes;
}

int sac_hdf5_put_weights(struct sac_out *out, const struct sac_weights_view *weights)
{
    size_t bytes = 65536;

    sac_hdf5_quiet();
    for (int i = 0; i < weights->layer_count; i++)
        bytes += image_bytes(weights->layers[i].blobs, weights->layers[i].blob_count);
    hid_t file = new_image(out->path, bytes);
    hid_t data =
        file < 0 || create_group(file, "data") < 0 ? -1 : H5Gopen2(file, "data", H5P_DEFAULT);
    if (data < 0)
        out->rc = sac_hdf5_fail(out->err, SAC_EIO, "the file could not be made");
    for (int i = 0; out->rc == 0 && i < weights->layer_count; i++) {
        if (create_layer(data, &weights->layers[i]) < 0) {
            out->rc = sac_hdf5_fail(out->err, SAC_EIO, "the layer could not be written");
            sac_error_prefix(out->err, "layer %s", weights->layers[i].name);
        }
    }
    sac_hdf5_close(data);
    if (out->rc == 0)
        put_image(out, file);
    sac_hdf5_close(file);
    return out->rc;
}

static int create_history(hid_t file, const struct sac_snapshot *snapshot)
{
    char path[64];
    int rc = create_group(file, "history");

    for (int i = 0; rc == 0 && i < snapshot->history_count; i++) {
        snprintf(path, sizeof path, "history/%d", i);
        rc = create_blob(file, path, &snapshot->history[i]);
    }
    return rc;
}

int sac_hdf5_put_state(struct sac_out *out, const struct sac_snapshot *snapshot,
                       const char *learned_net)
{
    sac_hdf5_quiet();
    hid_t file =
        new_image(out->path, 65536 + image_bytes(snapshot->history, snapshot->history_count));
    int rc = file < 0 ? -1 : create_int(file, "iter", (int)snapshot->iteration);

    if (rc == 0)
        rc = create_text(file, "learned_net", learned_net);
    if (rc == 0)
        rc = create_int(file, "current_step", snapshot->current_step);
    if (rc == 0)
        rc = create_history(file, snapshot);
    if (rc < 0)
        out->rc = sac_hdf5_fail(out->err, SAC_EIO, "the file could not be made");
    if (out->rc == 0)
        put_image(out, file);
    sac_hdf5_close(file);
    return out->rc;
}

/* ---- Reading ---- */

/* An integer on its own. */
static int read_int(hid_t at, const char *name, int *ret, struct sac_error *err)
{
    hid_t set = -1;
    int rc = sac_hdf5_dataset(&set, at, name, H5T_INTEGER, err);

    if (rc < 0)
        return rc;
    hid_t space = H5Dget_space(set);
    if (H5Sget_simple_extent_npoints(space) != 1)
        rc = sac_fail(err, SAC_EFORMAT, "expected %s to be one number", name);
    else if (H5Dread(set, H5T_NATIVE_INT, H5S_ALL, H5S_ALL, H5P_DEFAULT, ret) < 0)
        rc = sac_hdf5_fail(err, SAC_EFORMAT, name);
    sac_hdf5_close(space);
    sac_hdf5_close(set);
    return rc;
}

/* Text of fixed length, as Caffe has it. The caller frees it. */
static int read_text(hid_t at, const char *name, char **ret, struct sac_error *err)
{
    hid_t set = -1;
    int rc = sac_hdf5_dataset(&set, at, name, H5T_STRING, err);

    if (rc < 0)
        return rc;
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    size_t size = H5Tget_size(type);
    char *text = NULL;
    if (H5Tis_variable_str(type) || H5Sget_simple_extent_npoints(space) != 1 ||
        size > TEXT_BYTES_MAX)
        rc = sac_fail(err, SAC_EFORMAT, "expected %s to be one text of fixed length", name);
    else if (!(text = calloc(1, size + 1)))
        rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    else if (H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)
        rc = sac_hdf5_fail(err, SAC_EFORMAT, name);
    if (rc == 0) {
        *ret = text;
        text = NULL;
    }
    free(text);
    sac_hdf5_close(type);
    sac_hdf5_close(space);
    sac_hdf5_close(set);
    return rc;
}

static int read_history(struct sac_solver_state *ret, hid_t file, size_t file_bytes,
                        struct sac_error *err)
{
    char name[64];
    hid_t history = sac_hdf5_exists(file, "history") ? H5Gopen2(file, "history", H5P_DEFAULT) : -1;
    int count = history < 0 ? 0 : sac_hdf5_count(history);
    int rc = 0;

    sac_hdf5_close(history);
    if (history < 0)
        return sac_fail(err, SAC_EFORMAT, "has no group /history; expected a solverstate");
    ret->history = calloc((size_t)count + 1, sizeof *ret->history);
    if (!ret->history)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; rc == 0 && i < count; i++) {
        struct sac_caffe_blob blob = {0};
        snprintf(name, sizeof name, "history/%d", i);
        rc = sac_hdf5_blob(&blob, file, name, file_bytes, err);
        if (rc == 0)
            ret->history[ret->history_count++] =
                (struct sac_blob_view){sac_shape_of_blob(&blob), blob.data};
    }
    return rc;
}

int sac_hdf5_load_state(struct sac_solver_state *ret, const char *path, struct sac_error *err)
{
    struct stat info = {0};
    int iteration = 0;
    hid_t file;
    int rc = sac_hdf5_open(&file, path, err);

    if (rc == 0)
        rc = read_int(file, "iter", &iteration, err);
    if (rc == 0 && iteration < 0)
        rc = sac_fail(err, SAC_EFORMAT, "the iteration is %d", iteration);
    if (rc == 0)
        rc = read_text(file, "learned_net", &ret->learned_net, err);
    if (rc == 0)
        rc = read_int(file, "current_step", &ret->current_step, err);
    if (rc == 0)
        rc = stat(path, &info) < 0 ? sac_fail(err, SAC_EIO, "is gone")
                                   : read_history(ret, file, (size_t)info.st_size, err);
    ret->iteration = iteration;
    if (rc < 0)
        sac_error_prefix(err, "%s", path);
    sac_hdf5_close(file);
    return rc;
}
