#include "train/model_dir.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "train/snapshot_files.h"

enum { DEPLOY, LABELS, MEAN, JSON, WEIGHTS, FILES };

/* A directory on its way. */
struct writing {
    const struct sac_model_dir *dir;
    char *paths[FILES];
    struct sac_out files[FILES];
    struct sac_error *err;
};

static int no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory for the model directory");
}

/* ---- Names ----------------------------------------------------------------- */

/* The net's name as far as it can stand in a file's. */
static void weights_name(const struct sac_model_dir *dir, char *name, size_t size)
{
    const char *from = dir->deploy->name ? dir->deploy->name : "";
    size_t used = 0;

    for (; *from && used + sizeof ".caffemodel" < size && used < 100; from++) {
        bool plain = (*from >= 'a' && *from <= 'z') || (*from >= 'A' && *from <= 'Z') ||
                     (*from >= '0' && *from <= '9') || *from == '-' || (*from == '.' && used > 0);
        name[used++] = plain ? *from : '_';
    }
    snprintf(name + used, size - used, "%s.caffemodel", used ? "" : "model");
}

static int name_files(struct writing *w)
{
    char weights[128];
    const char *names[FILES] = {"deploy.prototxt", "labels.txt", "mean.binaryproto", "model.json",
                                weights};

    weights_name(w->dir, weights, sizeof weights);
    for (int i = 0; i < FILES; i++)
        if (asprintf(&w->paths[i], "%s/%s", w->dir->path, names[i]) < 0) {
            w->paths[i] = NULL;
            return no_memory(w->err);
        }
    return 0;
}

static void writing_done(struct writing *w)
{
    for (int i = 0; i < FILES; i++) {
        sac_durable_free(w->files[i].file);
        free(w->paths[i]);
    }
}

/* ---- Before ---------------------------------------------------------------- */

static bool is_weights(const char *name)
{
    size_t size = strlen(name), end = strlen(".caffemodel");

    return size > end && strcmp(name + size - end, ".caffemodel") == 0;
}

/* Weights of another name would make it two models. */
static int check_alone(const struct sac_model_dir *dir, struct sac_error *err)
{
    DIR *folder = opendir(dir->path);
    struct dirent *entry;
    char own[128];
    int rc = 0;

    if (!folder)
        return sac_fail_errno(err, errno, "%s", dir->path);
    weights_name(dir, own, sizeof own);
    while (rc == 0 && (entry = readdir(folder)))
        if (is_weights(entry->d_name) && strcmp(entry->d_name, own) != 0)
            rc = sac_fail(err, SAC_EINVAL,
                          "%s has %.100s already, and a model directory has one .caffemodel (here "
                          "it would be %s); remove it or name another folder",
                          dir->path, entry->d_name, own);
    closedir(folder);
    return rc;
}

int sac_model_dir_check(const struct sac_model_dir *dir, struct sac_error *err)
{
    struct sac_durable *file = NULL;
    char *path = NULL;
    int rc = 0;

    if (mkdir(dir->path, 0777) < 0 && errno != EEXIST)
        return sac_fail_errno(err, errno, "%s cannot be made", dir->path);
    if (!sac_file_is_folder(dir->path))
        return sac_fail(err, SAC_EINVAL, "%s is not a folder", dir->path);
    if (asprintf(&path, "%s/check", dir->path) < 0)
        return no_memory(err);
    rc = sac_durable_open(&file, path, err);
    if (rc == 0)
        rc = sac_durable_sync(file, err);
    sac_durable_free(file);
    free(path);
    return rc == 0 ? check_alone(dir, err) : rc;
}

/* ---- model.json ------------------------------------------------------------ */

static json_t *size_json(int width, int height)
{
    return json_pack("[i,i]", width, height);
}

/* How a picture of any size becomes what the net was trained on. */
static void put_resize(json_t *to, const struct sac_feed *feed)
{
    const struct sac_transform *t = sac_feed_transform(feed);
    const struct sac_feed_picture *picture = sac_feed_picture(feed);
    const int *shape = sac_feed_shape(feed);
    int width = picture->width > shape[2] ? picture->width : shape[2];
    int height = picture->height > shape[1] ? picture->height : shape[1];

    if (sac_transform_resizes(t) && t->resize == SAC_RESIZE_SHORT) {
        json_object_set_new(to, "resize", json_string("short"));
        json_object_set_new(
            to, "resize_size",
            size_json(t->resize_width, t->resize_height ? t->resize_height : t->resize_width));
    } else if (!sac_transform_resizes(t) && picture->files && t->crop_width > 0) {
        json_object_set_new(to, "resize", json_string("none"));
    } else {
        json_object_set_new(to, "resize", json_string("squash"));
        json_object_set_new(to, "resize_size", size_json(width, height));
    }
}

static json_t *mean_json(const struct sac_transform *t)
{
    json_t *mean;

    if (t->mean_image.data)
        return json_string("image");
    if (t->mean_count == 0)
        return json_string("none");
    mean = json_array();
    for (int i = 0; mean && i < t->mean_count; i++)
        json_array_append_new(mean, json_real((double)t->mean[i]));
    return mean;
}

static char *model_json(const struct sac_feed *feed)
{
    const struct sac_transform *t = sac_feed_transform(feed);
    const struct sac_feed_picture *picture = sac_feed_picture(feed);
    json_t *how = json_object(), *root = json_object();
    bool good = how && root;

    if (good) {
        put_resize(how, feed);
        json_object_set_new(how, "mean", mean_json(t));
        json_object_set_new(how, "scale", json_real(t->scale != 0 ? (double)t->scale : 1));
        json_object_set_new(how, "decode", json_string(t->decode_fast ? "fast" : "exact"));
        json_object_set_new(how, "channels",
                            json_string(picture->channels != 3 ? "grey"
                                        : picture->rgb         ? "rgb"
                                                               : "bgr"));
        good = json_object_set(root, "preprocess", how) == 0;
    }
    char *text = good ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(how);
    json_decref(root);
    return text;
}

/* ---- The files ------------------------------------------------------------- */

static int begin(struct writing *w, int which)
{
    w->files[which] = (struct sac_out){.path = w->paths[which], .err = w->err};
    return sac_durable_open(&w->files[which].file, w->paths[which], w->err);
}

static int end(struct writing *w, int which, int rc)
{
    if (rc == 0)
        rc = w->files[which].rc;
    return rc == 0 ? sac_durable_sync(w->files[which].file, w->err) : rc;
}

static int write_buf(struct writing *w, int which, struct sac_buf *bytes)
{
    int rc = bytes->failed ? no_memory(w->err) : begin(w, which);

    if (rc == 0)
        sac_out_put(&w->files[which], bytes->data, bytes->len);
    rc = rc == 0 ? end(w, which, rc) : rc;
    sac_buf_done(bytes);
    return rc;
}

static int write_deploy(struct writing *w)
{
    struct sac_buf text = {0};

    if (sac_prototxt_print(&text, &w->dir->deploy->base) != 0)
        text.failed = true;
    return write_buf(w, DEPLOY, &text);
}

static int write_labels(struct writing *w)
{
    const struct sac_labels *labels = w->dir->labels;
    struct sac_buf text = {0};

    for (int i = 0; i < labels->count; i++)
        sac_buf_printf(&text, "%s\n", labels->text[i]);
    return labels->count > 0 ? write_buf(w, LABELS, &text) : 0;
}

static int write_json(struct writing *w)
{
    char *json = model_json(w->dir->feed);
    struct sac_buf text = {.failed = json == NULL};

    if (json)
        sac_buf_printf(&text, "%s\n", json);
    free(json);
    return write_buf(w, JSON, &text);
}

/* One BlobProto of 1 × C × H × W, as compute_image_mean writes it. */
static int write_mean(struct writing *w)
{
    const struct sac_caffe_blob *mean = &sac_feed_transform(w->dir->feed)->mean_image;
    Caffe__BlobProto blob = CAFFE__BLOB_PROTO__INIT;
    struct sac_buf bytes = {0};

    if (!mean->data)
        return 0;
    blob.has_num = blob.has_channels = blob.has_height = blob.has_width = 1;
    blob.num = 1;
    blob.channels = (int32_t)mean->dim[0];
    blob.height = (int32_t)mean->dim[1];
    blob.width = (int32_t)mean->dim[2];
    blob.n_data = mean->count;
    blob.data = mean->data;
    if (sac_buf_reserve(&bytes, protobuf_c_message_get_packed_size(&blob.base)))
        bytes.len = protobuf_c_message_pack(&blob.base, bytes.data);
    return write_buf(w, MEAN, &bytes);
}

static bool is_deployed(const Caffe__NetParameter *deploy, const struct sac_weights_layer *layer)
{
    for (size_t i = 0; i < deploy->n_layer; i++)
        if (strcmp(deploy->layer[i]->name, layer->name) == 0)
            return layer->blob_count > 0;
    return false;
}

/* Only what the deploy net has, by name and type alone. */
static int write_weights(struct writing *w)
{
    const struct sac_weights_view *all = w->dir->weights;
    struct sac_weights_view view = {.name = all->name};
    int rc = begin(w, WEIGHTS);

    view.layers = calloc((size_t)all->layer_count + 1, sizeof *view.layers);
    if (!view.layers)
        return no_memory(w->err);
    for (int i = 0; i < all->layer_count; i++) {
        if (!is_deployed(w->dir->deploy, &all->layers[i]))
            continue;
        view.layers[view.layer_count] = all->layers[i];
        view.layers[view.layer_count++].message = NULL;
    }
    if (rc == 0)
        rc = sac_binary_put_weights(&w->files[WEIGHTS], &view);
    free(view.layers);
    return rc == 0 ? end(w, WEIGHTS, rc) : rc;
}

/* Files of an older model that this one has not would be taken for its own. */
static int remove_stale(struct writing *w)
{
    for (int i = 0; i < FILES; i++)
        if (!w->files[i].file && unlink(w->paths[i]) < 0 && errno != ENOENT)
            return sac_fail_errno(w->err, errno, "%s cannot be removed", w->paths[i]);
    return 0;
}

static int publish(struct writing *w)
{
    int rc = remove_stale(w);

    for (int i = 0; rc == 0 && i < FILES; i++)
        if (w->files[i].file)
            rc = sac_durable_commit(w->files[i].file, w->err);
    return rc;
}

int sac_model_dir_write(const struct sac_model_dir *dir, struct sac_error *err)
{
    struct writing w = {.dir = dir, .err = err};
    int rc = name_files(&w);

    if (rc == 0)
        rc = write_deploy(&w);
    if (rc == 0)
        rc = write_labels(&w);
    if (rc == 0)
        rc = write_mean(&w);
    if (rc == 0)
        rc = write_json(&w);
    if (rc == 0)
        rc = write_weights(&w);
    if (rc == 0)
        rc = publish(&w);
    writing_done(&w);
    return rc;
}
