/* Weights: from a caffemodel's blobs, binary or HDF5, into the net's, by layer name. */
#include "net/net_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int message_shape(const Caffe__BlobProto *blob, struct sac_shape *ret, struct sac_error *err)
{
    struct sac_caffe_blob read = {0};
    int rc = sac_caffe_blob_shape(&read, blob, err);

    if (rc != 0)
        return rc;
    *ret = (struct sac_shape){.rank = read.rank};
    memcpy(ret->dim, read.dim, sizeof read.dim);
    return 0;
}
_Static_assert(sizeof((struct sac_shape){0}.dim) == sizeof((struct sac_caffe_blob){0}.dim),
               "a file's blob and a net's have as many axes");

/* Whether the file's blob fits: 1 × 1 × 1 × 64 is 64. */
static int check_blob(const struct sac_layer *layer, int index, const Caffe__BlobProto *blob,
                      struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
    struct sac_shape theirs;
    int rc = message_shape(blob, &theirs, err);

    if (rc != 0)
        return rc;
    if (!sac_shape_matches(&layer->weight_shapes[index], &theirs))
        return sac_fail(err, SAC_EFORMAT, "the file's blob %d is %s, and the net's is %s", index,
                        sac_shape_text(&theirs, b, sizeof b),
                        sac_shape_text(&layer->weight_shapes[index], a, sizeof a));
    int64_t count = layer->weights[index]->count;
    bool other_form = blob->n_double_data > 0 || blob->has_raw_data;
    if (!other_form && blob->n_data != (size_t)count)
        return sac_fail(err, SAC_EFORMAT, "the file's blob %d of %s holds %zu numbers", index,
                        sac_shape_text(&theirs, b, sizeof b), blob->n_data);
    return 0;
}

static int check_layer(const struct sac_layer *layer, const Caffe__LayerParameter *message,
                       struct sac_error *err)
{
    int rc = 0;

    if (message->n_blobs != (size_t)layer->weight_count)
        rc = sac_fail(err, SAC_EFORMAT, "the file has %zu blobs for it, and the net %d",
                      message->n_blobs, layer->weight_count);
    for (int i = 0; rc == 0 && i < layer->weight_count; i++)
        rc = check_blob(layer, i, message->blobs[i], err);
    return sac_layer_blame(layer, rc, err);
}

static int copy_blob(struct sac_param *to, const Caffe__BlobProto *from, struct sac_error *err)
{
    struct sac_caffe_blob blob = {0};
    size_t bytes = (size_t)to->count * sizeof *to->data;

    if (from->n_data > 0 && from->n_data == (size_t)to->count) {
        memcpy(to->data, from->data, bytes);
        return 0;
    }
    int rc = sac_caffe_blob_read(&blob, from, err);
    if (rc == 0 && blob.count != (size_t)to->count)
        rc = sac_fail(err, SAC_EFORMAT, "the file's blob holds %zu numbers, and the net's %lld",
                      blob.count, (long long)to->count);
    if (rc == 0)
        memcpy(to->data, blob.data, bytes);
    sac_caffe_blob_done(&blob);
    return rc;
}

static int copy_layer(struct sac_layer *layer, const Caffe__LayerParameter *message,
                      struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < layer->weight_count; i++)
        rc = copy_blob(layer->weights[i], message->blobs[i], err);
    return sac_layer_blame(layer, rc, err);
}

/* The net's layer that the message's goes to; NULL: none. */
static struct sac_layer *target_of(struct sac_net *net, const Caffe__LayerParameter *message)
{
    int index = sac_names_find(&net->layer_names, message->name ? message->name : "");

    return index < 0 ? NULL : &net->layers[index];
}

/* Two passes, so that a file that does not fit changes nothing. */
static int copy_all(struct sac_net *net, const Caffe__NetParameter *message, bool *copied,
                    struct sac_weights_report *report, struct sac_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < message->n_layer; i++) {
        const struct sac_layer *layer = target_of(net, message->layer[i]);
        if (layer)
            rc = check_layer(layer, message->layer[i], err);
        else
            report->layers_ignored += message->layer[i]->n_blobs > 0;
    }
    for (size_t i = 0; rc == 0 && i < message->n_layer; i++) {
        struct sac_layer *layer = target_of(net, message->layer[i]);
        if (!layer || layer->weight_count == 0)
            continue;
        rc = copy_layer(layer, message->layer[i], err);
        copied[layer - net->layers] = true;
    }
    return rc;
}

int sac_net_copy_weights(struct sac_net *net, const Caffe__NetParameter *message,
                         struct sac_weights_report *report, struct sac_error *err)
{
    struct sac_weights_report count = {0};
    bool *copied = calloc((size_t)net->layer_count + 1, sizeof *copied);
    int rc = copied ? copy_all(net, message, copied, &count, err)
                    : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (int i = 0; rc == 0 && i < net->layer_count; i++) {
        const struct sac_layer *layer = &net->layers[i];
        if (layer->weight_count == 0)
            continue;
        if (!copied[i] && count.layers_missing++ == 0)
            snprintf(count.first_missing, sizeof count.first_missing, "%s", layer->name);
        count.layers_copied += copied[i];
    }
    if (rc == 0 && report)
        *report = count;
    free(copied);
    return rc;
}

int sac_net_load_weights(struct sac_net *net, const char *path, struct sac_weights_report *report,
                         struct sac_error *err)
{
    struct sac_caffe_net file = {0};
    int rc = sac_caffe_weights_load(&file, path, err);

    if (rc != 0)
        return rc;
    rc = sac_net_copy_weights(net, file.net, report, err);
    if (rc != 0)
        sac_error_prefix(err, "%s", path);
    sac_caffe_net_done(&file);
    return rc;
}
