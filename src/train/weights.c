#include "train/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

void sac_weights_note_missing(struct sac_weights_loaded *report, const char *name)
{
    report->missing++;
    add_name(report->missing_names, name);
}

void sac_weights_note_ignored(struct sac_weights_loaded *report, const char *name)
{
    report->ignored++;
    add_name(report->ignored_names, name);
}

bool sac_weights_has(const struct sac_weights_view *view, const char *name, size_t length)
{
    for (int i = 0; i < view->layer_count; i++) {
        const struct sac_weights_layer *layer = &view->layers[i];
        if (layer->blob_count > 0 && strlen(layer->name) == length &&
            memcmp(layer->name, name, length) == 0)
            return true;
    }
    return false;
}

int sac_weights_fit_count(const struct sac_weights_layer *layer, int count, struct sac_error *err)
{
    if (count == layer->blob_count)
        return 0;
    return sac_fail(err, SAC_EFORMAT, "layer %s: the file has %d blobs for it, and the net %d",
                    layer->name, count, layer->blob_count);
}

int sac_weights_fit_shape(const struct sac_weights_layer *layer, int index,
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

int sac_hdf5_is(const char *path, struct sac_error *err)
{
    char head[6] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return sac_fail_errno(err, errno, "%s", path);
    ssize_t got = read(fd, head, sizeof head);
    int number = errno;
    close(fd);
    if (got < 0)
        return sac_fail_errno(err, number, "%s", path);
    return memcmp(head, "\x89HDF\r\n", sizeof head) == 0;
}

int sac_weights_load(const struct sac_weights_view *to, const char *path,
                     struct sac_weights_loaded *report, struct sac_error *err)
{
    struct sac_weights_loaded loaded = {0};
    int rc = sac_hdf5_is(path, err);

    if (rc < 0)
        return rc;
    rc = rc == 1 ? sac_hdf5_load_weights(to, path, &loaded, err)
                 : sac_binary_load_weights(to, path, &loaded, err);
    if (rc == 0 && report)
        *report = loaded;
    return rc;
}

int sac_weights_check(const char *path, struct sac_error *err)
{
    const struct sac_weights_view nothing = {.name = ""};

    return sac_weights_load(&nothing, path, NULL, err);
}
