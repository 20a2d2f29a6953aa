#include "formats/caffe.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

void sac_caffe_net_done(struct sac_caffe_net *net)
{
    sac_arena_free(net->arena);
    *net = (struct sac_caffe_net){0};
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
