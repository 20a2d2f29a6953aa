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

#include <hdf5.h>

enum { HISTORY_MAX = 1000000, TEXT_BYTES_MAX = 65536 };

bool sac_snapshot_has_hdf5(void)
{
    return true;
}

/* Keeps HDF5 from printing; per thread, so at every entry. */
static void be_quiet(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static herr_t take_description(unsigned depth, const H5E_error2_t *error, void *to)
{
    (void)depth;
    snprintf(to, SAC_ERROR_TEXT / 2, "%s", error->desc ? error->desc : "no reason given");
    return 1;
}

/* `what` failed; HDF5's innermost reason is added. */
static int fail_hdf5(struct sac_error *err, int code, const char *what)
{
    char reason[SAC_ERROR_TEXT / 2] = "no reason given";

    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_description, reason);
    return sac_fail(err, code, "%s (HDF5: %s)", what, reason);
}

/* Takes a negative id. */
static void close_id(hid_t id)
{
    if (id >= 0)
        H5Idec_ref(id);
}

/* ---- Writing ---- */

/* A file in memory, under a name that only HDF5 sees. */
static hid_t new_image(const char *name, size_t bytes)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    hid_t file = -1;

    if (H5Pset_fapl_core(access, bytes, 0) >= 0)
        file = H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    close_id(access);
    return file;
}

/* The image's bytes into the file that is being written. */
static int put_image(struct sac_out *out, hid_t file)
{
    if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0)
        return out->rc = fail_hdf5(out->err, SAC_EIO, "the file could not be made");
    ssize_t size = H5Fget_file_image(file, NULL, 0);
    void *image = size > 0 ? malloc((size_t)size) : NULL;
    if (!image || H5Fget_file_image(file, image, (size_t)size) != size)
        out->rc = fail_hdf5(out->err, SAC_ENOMEM, "no memory for the file");
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
    close_id(set);
    close_id(create);
    close_id(link);
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
    close_id(space);
    return rc;
}

static int create_int(hid_t at, const char *name, int value)
{
    hsize_t one = 1;
    hid_t space = H5Screate_simple(1, &one, NULL);
    int rc = create_dataset(at, name, H5T_NATIVE_INT, space, &value);

    close_id(space);
    return rc;
}

static int create_text(hid_t at, const char *name, const char *text)
{
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    int rc =
        H5Tset_size(type, strlen(text) + 1) < 0 ? -1 : create_dataset(at, name, type, space, text);

    close_id(type);
    close_id(space);
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
    close_id(link);
    if (group < 0)
        return -1;
    close_id(group);
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

    be_quiet();
    for (int i = 0; i < weights->layer_count; i++)
        bytes += image_bytes(weights->layers[i].blobs, weights->layers[i].blob_count);
    hid_t file = new_image(out->path, bytes);
    hid_t data =
        file < 0 || create_group(file, "data") < 0 ? -1 : H5Gopen2(file, "data", H5P_DEFAULT);
    if (data < 0)
        out->rc = fail_hdf5(out->err, SAC_EIO, "the file could not be made");
    for (int i = 0; out->rc == 0 && i < weights->layer_count; i++) {
        if (create_layer(data, &weights->layers[i]) < 0) {
            out->rc = fail_hdf5(out->err, SAC_EIO, "the layer could not be written");
            sac_error_prefix(out->err, "layer %s", weights->layers[i].name);
        }
    }
    close_id(data);
    if (out->rc == 0)
        put_image(out, file);
    close_id(file);
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
    be_quiet();
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
        out->rc = fail_hdf5(out->err, SAC_EIO, "the file could not be made");
    if (out->rc == 0)
        put_image(out, file);
    close_id(file);
    return out->rc;
}

/* ---- Reading ---- */

static int open_file(hid_t *ret, const char *path, struct sac_error *err)
{
    be_quiet();
    *ret = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    return *ret < 0 ? fail_hdf5(err, SAC_EFORMAT, "cannot be read; is the file cut short?") : 0;
}

/* Whether `name`, which may be a path, is there. */
static bool exists(hid_t at, const char *name)
{
    char path[1024];
    size_t length = strlen(name);

    if (length >= sizeof path)
        return false;
    memcpy(path, name, length + 1);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool there = H5Lexists(at, path, H5P_DEFAULT) > 0;
        *slash = '/';
        if (!there)
            return false;
    }
    return H5Lexists(at, path, H5P_DEFAULT) > 0;
}

/* HDF5 1.10 reads beyond its buffers where a plain dataset's bytes are not those of
 * its shape and type, so such a file must not get to H5Dread. */
static int check_storage(hid_t set, hid_t type, const char *name, struct sac_error *err)
{
    hid_t create = H5Dget_create_plist(set), space = H5Dget_space(set);
    bool plain = create >= 0 && H5Pget_layout(create) != H5D_CHUNKED;
    hssize_t points = H5Sget_simple_extent_npoints(space);
    unsigned long long stored = H5Dget_storage_size(set), needed;

    close_id(create);
    close_id(space);
    if (points < 0 || __builtin_mul_overflow((unsigned long long)points,
                                             (unsigned long long)H5Tget_size(type), &needed))
        return sac_fail(err, SAC_EFORMAT, "%s has a shape that cannot be", name);
    if (plain && stored != needed)
        return sac_fail(err, SAC_EFORMAT, "%s has %llu bytes, and its shape needs %llu", name,
                        stored, needed);
    return 0;
}

static int open_dataset(hid_t *ret, hid_t at, const char *name, H5T_class_t expected,
                        struct sac_error *err)
{
    static const char *const names[] = {"whole numbers", "floating-point numbers", "times", "text"};
    hid_t set = exists(at, name) ? H5Dopen2(at, name, H5P_DEFAULT) : -1;
    hid_t type = set < 0 ? -1 : H5Dget_type(set);
    H5T_class_t found = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    int rc = found == expected ? check_storage(set, type, name, err) : 0;

    close_id(type);
    if (found == expected && rc == 0) {
        *ret = set;
        return 0;
    }
    close_id(set);
    if (rc < 0)
        return rc;
    return sac_fail(err, SAC_EFORMAT, "expected %s of %s, found %s", name, names[expected],
                    set < 0                             ? "nothing"
                    : found >= 0 && found <= H5T_STRING ? names[found]
                                                        : "something else");
}

/* An integer on its own. */
static int read_int(hid_t at, const char *name, int *ret, struct sac_error *err)
{
    hid_t set = -1;
    int rc = open_dataset(&set, at, name, H5T_INTEGER, err);

    if (rc < 0)
        return rc;
    hid_t space = H5Dget_space(set);
    if (H5Sget_simple_extent_npoints(space) != 1)
        rc = sac_fail(err, SAC_EFORMAT, "expected %s to be one number", name);
    else if (H5Dread(set, H5T_NATIVE_INT, H5S_ALL, H5S_ALL, H5P_DEFAULT, ret) < 0)
        rc = fail_hdf5(err, SAC_EFORMAT, name);
    close_id(space);
    close_id(set);
    return rc;
}

/* Text of fixed length, as Caffe has it. The caller frees it. */
static int read_text(hid_t at, const char *name, char **ret, struct sac_error *err)
{
    hid_t set = -1;
    int rc = open_dataset(&set, at, name, H5T_STRING, err);

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
        rc = fail_hdf5(err, SAC_EFORMAT, name);
    if (rc == 0) {
        *ret = text;
        text = NULL;
    }
    free(text);
    close_id(type);
    close_id(space);
    close_id(set);
    return rc;
}

static int read_shape(hid_t set, const char *name, struct sac_shape *ret, struct sac_error *err)
{
    hid_t space = H5Dget_space(set);
    hsize_t dim[H5S_MAX_RANK];
    int rank = space < 0 ? -1 : H5Sget_simple_extent_dims(space, dim, NULL);

    close_id(space);
    if (rank < 0)
        return fail_hdf5(err, SAC_EFORMAT, name);
    if (rank > SAC_AXES_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s has %d axes; the most is %d", name, rank,
                        SAC_AXES_MAX);
    *ret = (struct sac_shape){.rank = rank};
    for (int i = 0; i < rank; i++)
        ret->dim[i] = dim[i] > INT64_MAX ? -1 : (int64_t)dim[i];
    if (sac_shape_count(ret) < 0)
        return sac_fail(err, SAC_EFORMAT, "%s has a shape that cannot be", name);
    return 0;
}

static int read_floats(hid_t set, const char *name, float *to, struct sac_error *err)
{
    if (H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, to) < 0)
        return fail_hdf5(err, SAC_EFORMAT, name);
    return 0;
}

static int load_blob(hid_t group, const struct sac_weights_layer *layer, int index,
                     struct sac_error *err)
{
    struct sac_shape shape;
    char name[32];
    hid_t set = -1;

    snprintf(name, sizeof name, "%d", index);
    int rc = open_dataset(&set, group, name, H5T_FLOAT, err);
    if (rc == 0) {
        rc = read_shape(set, name, &shape, err);
        if (rc == 0)
            rc = sac_weights_fit_shape(layer, index, &shape, err);
        if (rc == 0 && sac_shape_count(&shape) > 0)
            rc = read_floats(set, name, layer->blobs[index].data, err);
        close_id(set);
    }
    return rc;
}

/* Blobs that a layer's group has: its datasets 0, 1, ... */
static int blobs_in(hid_t group)
{
    char name[32];
    int count = 0;

    for (; count < HISTORY_MAX; count++) {
        snprintf(name, sizeof name, "%d", count);
        if (!exists(group, name))
            break;
    }
    return count;
}

/* 1: copied, 0: the file has no such layer. */
static int load_layer(hid_t data, const struct sac_weights_layer *layer, struct sac_error *err)
{
    hid_t group = exists(data, layer->name) ? H5Gopen2(data, layer->name, H5P_DEFAULT) : -1;
    int count = group < 0 ? 0 : blobs_in(group);
    int rc = count == 0 ? 0 : sac_weights_fit_count(layer, count, err);

    for (int i = 0; rc == 0 && i < count; i++)
        rc = load_blob(group, layer, i, err);
    close_id(group);
    if (rc < 0)
        sac_error_prefix(err, "layer %s", layer->name);
    return rc < 0 ? rc : count > 0;
}

struct visit {
    const struct sac_weights_view *to;
    struct sac_weights_loaded *report;
};

/* What is called NAME/0 is a layer with blobs. */
static herr_t visit_layer(hid_t at, const char *name, const H5L_info_t *info, void *user)
{
    const struct visit *visit = user;
    const char *slash = strrchr(name, '/');
    char layer[SAC_WEIGHTS_NAMES];

    (void)at;
    (void)info;
    if (!slash || strcmp(slash, "/0") != 0 ||
        sac_weights_has(visit->to, name, (size_t)(slash - name)))
        return 0;
    snprintf(layer, sizeof layer, "%.*s", (int)(slash - name), name);
    sac_weights_note_ignored(visit->report, layer);
    return 0;
}

int sac_hdf5_load_weights(const struct sac_weights_view *to, const char *path,
                          struct sac_weights_loaded *report, struct sac_error *err)
{
    hid_t file, data = -1;
    struct visit visit = {to, report};
    int rc = open_file(&file, path, err);

    if (rc == 0 && (data = H5Gopen2(file, "data", H5P_DEFAULT)) < 0)
        rc = sac_fail(err, SAC_EFORMAT, "has no group /data; expected a caffemodel");
    if (rc == 0 && H5Lvisit(data, H5_INDEX_NAME, H5_ITER_INC, visit_layer, &visit) < 0)
        rc = fail_hdf5(err, SAC_EFORMAT, "the group /data cannot be read");
    for (int i = 0; rc >= 0 && i < to->layer_count; i++) {
        if (to->layers[i].blob_count == 0)
            continue;
        rc = load_layer(data, &to->layers[i], err);
        report->copied += rc == 1;
        if (rc == 0)
            sac_weights_note_missing(report, to->layers[i].name);
    }
    if (rc < 0)
        sac_error_prefix(err, "%s", path);
    close_id(data);
    close_id(file);
    return rc < 0 ? rc : 0;
}

/* Memory is taken for what the file can hold, not for what it says. */
static int read_history_blob(struct sac_blob_view *ret, hid_t set, const char *name,
                             int64_t file_bytes, struct sac_error *err)
{
    struct sac_shape shape;
    int rc = read_shape(set, name, &shape, err);

    if (rc < 0)
        return rc;
    int64_t count = sac_shape_count(&shape);
    if (count > file_bytes)
        return sac_fail(err, SAC_EFORMAT, "%s claims %lld numbers in a file of %lld bytes", name,
                        (long long)count, (long long)file_bytes);
    float *data = malloc(count > 0 ? (size_t)count * sizeof *data : 1);
    if (!data)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for %lld numbers", name, (long long)count);
    if (count > 0)
        rc = read_floats(set, name, data, err);
    if (rc < 0) {
        free(data);
        return rc;
    }
    *ret = (struct sac_blob_view){shape, data};
    return 0;
}

static int read_history(struct sac_solver_state *ret, hid_t file, int64_t file_bytes,
                        struct sac_error *err)
{
    char name[64];
    hid_t history = exists(file, "history") ? H5Gopen2(file, "history", H5P_DEFAULT) : -1;
    int count = history < 0 ? 0 : blobs_in(history);
    int rc = 0;

    close_id(history);
    if (history < 0)
        return sac_fail(err, SAC_EFORMAT, "has no group /history; expected a solverstate");
    ret->history = calloc((size_t)count + 1, sizeof *ret->history);
    if (!ret->history)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; rc == 0 && i < count; i++) {
        hid_t set = -1;
        snprintf(name, sizeof name, "history/%d", i);
        rc = open_dataset(&set, file, name, H5T_FLOAT, err);
        if (rc < 0)
            break;
        rc = read_history_blob(&ret->history[i], set, name, file_bytes, err);
        ret->history_count += rc == 0;
        close_id(set);
    }
    return rc;
}

int sac_hdf5_load_state(struct sac_solver_state *ret, const char *path, struct sac_error *err)
{
    struct stat info = {0};
    int iteration = 0;
    hid_t file;
    int rc = open_file(&file, path, err);

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
                                   : read_history(ret, file, (int64_t)info.st_size, err);
    ret->iteration = iteration;
    if (rc < 0)
        sac_error_prefix(err, "%s", path);
    close_id(file);
    return rc;
}
