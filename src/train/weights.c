#include "train/weights.h"

#include <stdio.h>
#include <string.h>

#include "train/snapshot_files.h"

/* Once the first does not fit, none does: an end that says so stays. */
static void add_name(char *names, const char *name)
{
    static const char more[] = ", …";
    size_t used = strlen(names), room = SAC_WEIGHTS_NAMES - used - sizeof more;

    if (used >= sizeof more - 1 && strcmp(names + used - (sizeof more - 1), more) == 0)
        return;
    if (strlen(name) + 2 > room)
        memcpy(names + used, more, sizeof more);
    else
        snprintf(names + used, SAC_WEIGHTS_NAMES - used, "%s%s", used > 0 ? ", " : "", name);
}

static bool has_layer(const struct sac_weights_view *view, const char *name)
{
    for (int i = 0; i < view->layer_count; i++)
        if (view->layers[i].blob_count > 0 && strcmp(view->layers[i].name, name) == 0)
            return true;
    return false;
}

static int fit_count(const struct sac_weights_layer *layer, int count, struct sac_error *err)
{
    if (count == layer->blob_count)
        return 0;
    return sac_fail(err, SAC_EFORMAT, "layer %s: the file has %d blobs for it, and the net %d",
                    layer->name, count, layer->blob_count);
}

static int fit_shape(const struct sac_weights_layer *layer, int index,
                     const struct sac_shape *theirs, struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
    const struct sac_shape *ours = &layer->blobs[index].shape;

    if (sac_shape_matches(ours, theirs))
        return 0;
    return sac_fail(err, SAC_EFORMAT, "layer %s: the file's blob %d is %s, and the net's is %s",
                    layer->name, index, sac_shape_text(theirs, a, sizeof a),
                    sac_shape_text(ours, b, sizeof b));
}

struct sac_shape sac_shape_of_blob(const struct sac_caffe_blob *blob)
{
    struct sac_shape shape = {.rank = blob->rank};

    memcpy(shape.dim, blob->dim, sizeof shape.dim);
    return shape;
}

static int copy_blob(const struct sac_weights_layer *layer, int index,
                     const Caffe__BlobProto *message, struct sac_error *err)
{
    struct sac_caffe_blob blob = {0};
    int rc = sac_caffe_blob_read(&blob, message, err);

    if (rc < 0) {
        sac_error_prefix(err, "layer %s, blob %d", layer->name, index);
        return rc;
    }
    struct sac_shape shape = sac_shape_of_blob(&blob);
    rc = fit_shape(layer, index, &shape, err);
    if (rc == 0 && blob.count > 0)
        memcpy(layer->blobs[index].data, blob.data, blob.count * sizeof(float));
    sac_caffe_blob_done(&blob);
    return rc;
}

static int copy_layer(const struct sac_weights_layer *layer, const Caffe__LayerParameter *message,
                      struct sac_error *err)
{
    int rc = fit_count(layer, (int)message->n_blobs, err);

    for (int i = 0; rc == 0 && i < layer->blob_count; i++)
        rc = copy_blob(layer, i, message->blobs[i], err);
    return rc;
}

static const Caffe__LayerParameter *find_layer(const Caffe__NetParameter *net, const char *name)
{
    for (size_t i = 0; i < net->n_layer; i++) {
        const Caffe__LayerParameter *layer = net->layer[i];
        if (layer->n_blobs > 0 && layer->name && strcmp(layer->name, name) == 0)
            return layer;
    }
    return NULL;
}

static void note_ignored(const struct sac_weights_view *to, const Caffe__NetParameter *net,
                         struct sac_weights_loaded *report)
{
    for (size_t i = 0; i < net->n_layer; i++) {
        const char *name = net->layer[i]->name ? net->layer[i]->name : "";
        if (net->layer[i]->n_blobs == 0 || has_layer(to, name))
            continue;
        report->ignored++;
        add_name(report->ignored_names, name);
    }
}

static int copy_all(const struct sac_weights_view *to, const Caffe__NetParameter *net,
                    struct sac_weights_loaded *report, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < to->layer_count; i++) {
        const struct sac_weights_layer *layer = &to->layers[i];
        const Caffe__LayerParameter *message = find_layer(net, layer->name);
        if (message) {
            rc = copy_layer(layer, message, err);
            report->copied++;
        } else if (layer->blob_count > 0) {
            report->missing++;
            add_name(report->missing_names, layer->name);
        }
    }
    return rc;
}

int sac_weights_load(const struct sac_weights_view *to, const char *path,
                     struct sac_weights_loaded *report, struct sac_error *err)
{
    struct sac_weights_loaded loaded = {0};
    struct sac_caffe_net file = {0};
    int rc = sac_caffe_weights_load(&file, path, err);

    if (rc < 0)
        return rc;
    note_ignored(to, file.net, &loaded);
    rc = copy_all(to, file.net, &loaded, err);
    if (rc < 0)
        sac_error_prefix(err, "%s", path);
    else if (report)
        *report = loaded;
    sac_caffe_net_done(&file);
    return rc;
}

int sac_weights_check(const char *path, struct sac_error *err)
{
    const struct sac_weights_view nothing = {.name = ""};

    return sac_weights_load(&nothing, path, NULL, err);
}
