#include "formats/caffe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "formats/prototxt.h"
#include "formats/stranger.h"
#include "formats/upgrade.h"
#include "formats/wire.h"

/* What a file may make of its bytes: decoded numbers take what they take in the
 * file, and small messages, most of all texts, take more. */
#define FILE_BYTES_MAX ((size_t)2 << 30)
#define SLACK_BYTES ((size_t)16 << 20)
#define SNIFF_BYTES ((size_t)4096)

static struct sac_arena *new_arena(size_t file_size)
{
    return sac_arena_new(2 * file_size + SLACK_BYTES);
}

/* A binary net has control characters in its first bytes, the tags of its
 * fields; a text has none. */
static bool is_text(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size && i < SNIFF_BYTES; i++) {
        if (bytes[i] < ' ' && (bytes[i] < '\t' || bytes[i] > '\r'))
            return false;
    }
    return true;
}

static int parse(ProtobufCMessage **ret, const ProtobufCMessageDescriptor *descriptor,
                 const char *name, const uint8_t *bytes, size_t size, struct sac_arena *arena,
                 struct sac_error *err)
{
    int rc = sac_stranger_refuse(name, bytes, size, "a prototxt or a caffemodel", err);

    if (rc < 0)
        return rc;
    if (is_text(bytes, size))
        return sac_prototxt_parse(ret, descriptor, name, (const char *)bytes, size, arena, err);
    rc = sac_wire_unpack(ret, descriptor, bytes, size, arena, err);
    if (rc < 0)
        sac_error_prefix(err, "%s", name);
    return rc;
}

int sac_caffe_net_parse(struct sac_caffe_net *ret, const char *name, const void *bytes, size_t size,
                        struct sac_error *err)
{
    struct sac_arena *arena;
    ProtobufCMessage *message = NULL;
    int rc;

    if (size > FILE_BYTES_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: %zu bytes, over the limit of %zu", name, size,
                        FILE_BYTES_MAX);
    arena = new_arena(size);
    if (!arena)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu bytes", name, size);
    rc = parse(&message, &caffe__net_parameter__descriptor, name, bytes, size, arena, err);
    if (rc == 0) {
        rc = sac_caffe_upgrade_net((Caffe__NetParameter *)message, arena, err);
        if (rc < 0)
            sac_error_prefix(err, "%s", name);
    }
    if (rc == 0) {
        *ret = (struct sac_caffe_net){(Caffe__NetParameter *)message, arena};
        arena = NULL;
    }
    sac_arena_free(arena);
    return rc;
}

int sac_caffe_net_load(struct sac_caffe_net *ret, const char *path, struct sac_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    int rc = sac_file_read(path, FILE_BYTES_MAX, &bytes, &size, err);

    if (rc == 0)
        rc = sac_caffe_net_parse(ret, path, bytes, size, err);
    free(bytes);
    return rc;
}

/* NAME of the mean in the folder of `path`; NULL: out of memory. */
static char *beside(struct sac_arena *arena, const char *path, const char *mean)
{
    const char *slash = strrchr(path, '/'), *name = strrchr(mean, '/');
    size_t folder = slash ? (size_t)(slash + 1 - path) : 0;

    name = name ? name + 1 : mean;
    char *found = sac_arena_alloc(arena, folder + strlen(name) + 1);
    if (found) {
        memcpy(found, path, folder);
        strcpy(found + folder, name);
    }
    return found;
}

int sac_caffe_net_find_means(struct sac_caffe_net *net, const char *path, struct sac_error *err)
{
    for (size_t i = 0; i < net->net->n_layer; i++) {
        Caffe__TransformationParameter *transform = net->net->layer[i]->transform_param;
        if (!transform || !transform->mean_file || sac_file_exists(transform->mean_file))
            continue;
        char *found = beside(net->arena, path, transform->mean_file);
        if (!found)
            return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
        if (sac_file_exists(found))
            transform->mean_file = found;
    }
    return 0;
}

void sac_caffe_net_done(struct sac_caffe_net *net)
{
    sac_arena_free(net->arena);
    *net = (struct sac_caffe_net){0};
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

int sac_caffe_weights_load(struct sac_caffe_net *ret, const char *path, struct sac_error *err)
{
    int is_hdf5 = sac_hdf5_is(path, err);

    if (is_hdf5 < 0)
        return is_hdf5;
    return is_hdf5 ? sac_hdf5_weights_load(ret, path, err) : sac_caffe_net_load(ret, path, err);
}

int sac_caffe_net_write(struct sac_buf *out, const Caffe__NetParameter *net)
{
    size_t size = protobuf_c_message_get_packed_size(&net->base);

    if (size == 0)
        return 0;
    if (!sac_buf_reserve(out, size))
        return SAC_ENOMEM;
    if (size > 0) /* nothing is at out->data before the first byte */
        out->len += protobuf_c_message_pack(&net->base, out->data + out->len);
    return 0;
}

int sac_caffe_solver_load(struct sac_caffe_solver *ret, const char *path, struct sac_error *err)
{
    struct sac_arena *arena = NULL;
    ProtobufCMessage *message = NULL;
    uint8_t *bytes = NULL;
    size_t size = 0;
    int rc = sac_file_read(path, FILE_BYTES_MAX, &bytes, &size, err);

    if (rc == 0 && !(arena = new_arena(size)))
        rc = sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu bytes", path, size);
    if (rc == 0)
        rc = parse(&message, &caffe__solver_parameter__descriptor, path, bytes, size, arena, err);
    if (rc == 0) {
        rc = sac_caffe_upgrade_solver((Caffe__SolverParameter *)message, arena, err);
        if (rc < 0)
            sac_error_prefix(err, "%s", path);
    }
    if (rc == 0) {
        *ret = (struct sac_caffe_solver){(Caffe__SolverParameter *)message, arena};
        arena = NULL;
    }
    sac_arena_free(arena);
    free(bytes);
    return rc;
}

void sac_caffe_solver_done(struct sac_caffe_solver *solver)
{
    sac_arena_free(solver->arena);
    *solver = (struct sac_caffe_solver){0};
}
