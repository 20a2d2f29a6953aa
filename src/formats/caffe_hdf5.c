#include "formats/caffe_hdf5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/message.h"

enum { BLOBS_MAX = 1000000, AXES_MAX = 8 };

void sac_hdf5_quiet(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static herr_t take_description(unsigned depth, const H5E_error2_t *error, void *to)
{
    (void)depth;
    snprintf(to, SAC_ERROR_TEXT / 2, "%s", error->desc ? error->desc : "no reason given");
    return 1;
}

int sac_hdf5_fail(struct sac_error *err, int code, const char *what)
{
    char reason[SAC_ERROR_TEXT / 2] = "no reason given";

    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_description, reason);
    return sac_fail(err, code, "%s (HDF5: %s)", what, reason);
}

void sac_hdf5_close(hid_t id)
{
    if (id >= 0)
        H5Idec_ref(id);
}

int sac_hdf5_open(hid_t *ret, const char *path, struct sac_error *err)
{
    sac_hdf5_quiet();
    *ret = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    return *ret < 0 ? sac_hdf5_fail(err, SAC_EFORMAT, "cannot be read; is the file cut short?") : 0;
}

bool sac_hdf5_exists(hid_t at, const char *name)
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

    sac_hdf5_close(create);
    sac_hdf5_close(space);
    if (points < 0 || __builtin_mul_overflow((unsigned long long)points,
                                             (unsigned long long)H5Tget_size(type), &needed))
        return sac_fail(err, SAC_EFORMAT, "%s has a shape that cannot be", name);
    if (plain && stored != needed)
        return sac_fail(err, SAC_EFORMAT, "%s has %llu bytes, and its shape needs %llu", name,
                        stored, needed);
    return 0;
}

int sac_hdf5_dataset(hid_t *ret, hid_t at, const char *name, H5T_class_t expected,
                     struct sac_error *err)
{
    static const char *const names[] = {"whole numbers", "floating-point numbers", "times", "text"};
    hid_t set = sac_hdf5_exists(at, name) ? H5Dopen2(at, name, H5P_DEFAULT) : -1;
    hid_t type = set < 0 ? -1 : H5Dget_type(set);
    H5T_class_t found = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    int rc = found == expected ? check_storage(set, type, name, err) : 0;

    sac_hdf5_close(type);
    if (found == expected && rc == 0) {
        *ret = set;
        return 0;
    }
    sac_hdf5_close(set);
    if (rc < 0)
        return rc;
    return sac_fail(err, SAC_EFORMAT, "expected %s of %s, found %s", name, names[expected],
                    set < 0                             ? "nothing"
                    : found >= 0 && found <= H5T_STRING ? names[found]
                                                        : "something else");
}

static int read_shape(struct sac_caffe_blob *ret, hid_t set, const char *name,
                      struct sac_error *err)
{
    hid_t space = H5Dget_space(set);
    hsize_t dim[H5S_MAX_RANK];
    int rank = space < 0 ? -1 : H5Sget_simple_extent_dims(space, dim, NULL);
    size_t count = 1;

    sac_hdf5_close(space);
    if (rank < 0)
        return sac_hdf5_fail(err, SAC_EFORMAT, name);
    if (rank > AXES_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s has %d axes; the most is %d", name, rank, AXES_MAX);
    for (int i = 0; i < rank; i++) {
        ret->dim[i] = (int64_t)dim[i];
        if (dim[i] > INT64_MAX || __builtin_mul_overflow(count, (size_t)dim[i], &count))
            return sac_fail(err, SAC_EFORMAT, "%s has a shape that cannot be", name);
    }
    ret->rank = rank;
    ret->count = count;
    return 0;
}

static int read_floats(struct sac_caffe_blob *ret, hid_t set, const char *name,
                       struct sac_error *err)
{
    ret->data = malloc(ret->count > 0 ? ret->count * sizeof *ret->data : 1);
    if (!ret->data)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu numbers", name, ret->count);
    if (ret->count > 0 &&
        H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, ret->data) < 0)
        return sac_hdf5_fail(err, SAC_EFORMAT, name);
    return 0;
}

int sac_hdf5_blob(struct sac_caffe_blob *ret, hid_t at, const char *name, size_t file_bytes,
                  struct sac_error *err)
{
    struct sac_caffe_blob blob = {0};
    hid_t set = -1;
    int rc = sac_hdf5_dataset(&set, at, name, H5T_FLOAT, err);

    if (rc == 0)
        rc = read_shape(&blob, set, name, err);
    if (rc == 0 && blob.count > file_bytes)
        rc = sac_fail(err, SAC_EFORMAT, "%s claims %zu numbers in a file of %zu bytes", name,
                      blob.count, file_bytes);
    if (rc == 0)
        rc = read_floats(&blob, set, name, err);
    sac_hdf5_close(set);
    if (rc == 0)
        *ret = blob;
    else
        free(blob.data);
    return rc;
}

int sac_hdf5_count(hid_t group)
{
    char name[32];
    int count = 0;

    for (; count < BLOBS_MAX; count++) {
        snprintf(name, sizeof name, "%d", count);
        if (!sac_hdf5_exists(group, name))
            break;
    }
    return count;
}

/* ---- Weights --------------------------------------------------------------- */

struct weights {
    struct sac_arena *arena;
    Caffe__NetParameter *net;
    hid_t data; /* the group /data */
    size_t file_bytes;
    struct sac_error *err;
    int rc;
};

static int no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory");
}

/* A new message at the end of a repeated field of `parent`. */
static void *add_message(struct weights *w, ProtobufCMessage *parent, const char *field,
                         const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = sac_message_new(w->arena, descriptor);
    ProtobufCMessage **at =
        message ? sac_message_add(w->arena, parent, sac_message_field(parent->descriptor, field))
                : NULL;

    if (!at)
        return NULL;
    *at = message;
    return message;
}

static int fill_blob(struct weights *w, Caffe__BlobProto *to, const struct sac_caffe_blob *from)
{
    size_t bytes = from->count * sizeof *from->data, axes = (size_t)from->rank;

    to->shape = (void *)sac_message_new(w->arena, &caffe__blob_shape__descriptor);
    to->data = sac_arena_alloc(w->arena, bytes + 1);
    if (!to->shape || !to->data)
        return no_memory(w->err);
    to->shape->dim = sac_arena_zalloc(w->arena, axes + 1, sizeof *to->shape->dim);
    if (!to->shape->dim)
        return no_memory(w->err);
    to->shape->n_dim = axes;
    memcpy(to->shape->dim, from->dim, axes * sizeof *from->dim);
    to->n_data = from->count;
    memcpy(to->data, from->data, bytes);
    return 0;
}

static int add_blob(struct weights *w, Caffe__LayerParameter *layer, hid_t group, int index)
{
    struct sac_caffe_blob blob = {0};
    Caffe__BlobProto *to = add_message(w, &layer->base, "blobs", &caffe__blob_proto__descriptor);
    char name[32];

    snprintf(name, sizeof name, "%d", index);
    int rc = to ? sac_hdf5_blob(&blob, group, name, w->file_bytes, w->err) : no_memory(w->err);
    if (rc == 0)
        rc = fill_blob(w, to, &blob);
    sac_caffe_blob_done(&blob);
    return rc;
}

static int add_layer(struct weights *w, const char *name)
{
    Caffe__LayerParameter *layer =
        add_message(w, &w->net->base, "layer", &caffe__layer_parameter__descriptor);
    hid_t group = H5Gopen2(w->data, name, H5P_DEFAULT);
    int rc = layer && (layer->name = sac_arena_strdup(w->arena, name)) ? 0 : no_memory(w->err);

    if (rc == 0 && group < 0)
        rc = sac_hdf5_fail(w->err, SAC_EFORMAT, "is no group");
    int count = rc == 0 ? sac_hdf5_count(group) : 0;
    for (int i = 0; rc == 0 && i < count; i++)
        rc = add_blob(w, layer, group, i);
    sac_hdf5_close(group);
    if (rc != 0)
        sac_error_prefix(w->err, "layer %s", name);
    return rc;
}

/* What is called NAME/0 is a layer with blobs. */
static herr_t visit(hid_t at, const char *path, const H5L_info_t *info, void *user)
{
    struct weights *w = user;
    const char *slash = strrchr(path, '/');

    (void)at;
    (void)info;
    if (!slash || strcmp(slash, "/0") != 0)
        return 0;
    char *name = strndup(path, (size_t)(slash - path));
    w->rc = name ? add_layer(w, name) : no_memory(w->err);
    free(name);
    return w->rc != 0;
}

static int read_weights(struct weights *w, hid_t file)
{
    if ((w->data = H5Gopen2(file, "data", H5P_DEFAULT)) < 0)
        return sac_fail(w->err, SAC_EFORMAT, "has no group /data; expected a caffemodel");
    w->net = (void *)sac_message_new(w->arena, &caffe__net_parameter__descriptor);
    if (!w->net)
        return no_memory(w->err);
    if (H5Lvisit(w->data, H5_INDEX_NAME, H5_ITER_INC, visit, w) < 0 && w->rc == 0)
        return sac_hdf5_fail(w->err, SAC_EFORMAT, "the group /data cannot be read");
    return w->rc;
}

int sac_hdf5_weights_load(struct sac_caffe_net *ret, const char *path, struct sac_error *err)
{
    struct weights w = {.data = -1, .err = err};
    struct stat info = {0};
    hid_t file = -1;
    int rc =
        stat(path, &info) < 0 ? sac_fail(err, SAC_EIO, "is gone") : sac_hdf5_open(&file, path, err);

    w.file_bytes = (size_t)info.st_size;
    w.arena = rc == 0 ? sac_arena_new(0) : NULL;
    if (rc == 0)
        rc = w.arena ? read_weights(&w, file) : no_memory(err);
    if (rc == 0) {
        *ret = (struct sac_caffe_net){w.net, w.arena};
        w.arena = NULL;
    } else {
        sac_error_prefix(err, "%s", path);
    }
    sac_arena_free(w.arena);
    sac_hdf5_close(w.data);
    sac_hdf5_close(file);
    return rc;
}
