/* Snapshots in Caffe's binary form: NetParameter and SolverState, streamed. */
#include "train/snapshot_files.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "formats/wire.h"

/* protobuf's own limit for one message. */
#define MESSAGE_BYTES_MAX ((size_t)INT32_MAX)
#define FILE_BYTES_MAX ((size_t)2 << 30)
#define SLACK_BYTES ((size_t)1 << 20)

/* ---- Writing ---- */

/* A protobuf-c buffer that is a file: nothing is gathered in memory. */
struct stream {
    ProtobufCBuffer base;
    struct sac_out *out;
};

static void stream_append(ProtobufCBuffer *buffer, size_t size, const uint8_t *bytes)
{
    sac_out_put(((struct stream *)buffer)->out, bytes, size);
}

static int put_message(struct sac_out *out, const ProtobufCMessage *message)
{
    struct stream stream = {{stream_append}, out};
    size_t size = protobuf_c_message_get_packed_size(message);

    if (size > MESSAGE_BYTES_MAX)
        return out->rc = sac_fail(out->err, SAC_ELIMIT,
                                  "%s: %zu bytes, over Caffe's limit of 2 GiB for binary files; "
                                  "snapshot_format: HDF5 has none",
                                  out->path, size);
    protobuf_c_message_pack_to_buffer(message, &stream.base);
    return out->rc;
}

static Caffe__BlobProto *blob_message(struct sac_arena *arena, const struct sac_blob_view *view)
{
    Caffe__BlobProto *blob = sac_arena_alloc(arena, sizeof *blob);
    Caffe__BlobShape *shape = sac_arena_alloc(arena, sizeof *shape);

    if (!blob || !shape)
        return NULL;
    caffe__blob_shape__init(shape);
    shape->n_dim = (size_t)view->shape.rank;
    shape->dim = (int64_t *)view->shape.dim;
    caffe__blob_proto__init(blob);
    blob->shape = shape;
    blob->n_data = (size_t)sac_shape_count(&view->shape);
    blob->data = view->data;
    return blob;
}

/* NULL when memory is out. */
static Caffe__BlobProto **blob_messages(struct sac_arena *arena, const struct sac_blob_view *views,
                                        int count)
{
    Caffe__BlobProto **blobs = sac_arena_zalloc(arena, (size_t)count + 1, sizeof(void *));

    for (int i = 0; blobs && i < count; i++) {
        blobs[i] = blob_message(arena, &views[i]);
        if (!blobs[i])
            return NULL;
    }
    return blobs;
}

static Caffe__LayerParameter *layer_message(struct sac_arena *arena,
                                            const struct sac_weights_layer *layer)
{
    Caffe__LayerParameter *message = sac_arena_alloc(arena, sizeof *message);

    if (!message)
        return NULL;
    if (layer->message)
        *message = *layer->message;
    else
        caffe__layer_parameter__init(message);
    message->name = (char *)layer->name;
    message->type = (char *)layer->type;
    message->blobs = blob_messages(arena, layer->blobs, layer->blob_count);
    message->n_blobs = (size_t)layer->blob_count;
    return message->blobs ? message : NULL;
}

static int fail_memory(struct sac_out *out)
{
    return out->rc = sac_fail(out->err, SAC_ENOMEM, "%s: out of memory", out->path);
}

int sac_binary_put_weights(struct sac_out *out, const struct sac_weights_view *weights)
{
    Caffe__NetParameter net = CAFFE__NET_PARAMETER__INIT;
    struct sac_arena *arena = sac_arena_new(0);
    size_t count = (size_t)weights->layer_count;
    bool built = arena != NULL;

    if (built)
        net.layer = sac_arena_zalloc(arena, count + 1, sizeof *net.layer);
    built = built && net.layer;
    for (size_t i = 0; built && i < count; i++) {
        net.layer[i] = layer_message(arena, &weights->layers[i]);
        built = net.layer[i] != NULL;
    }
    net.name = (char *)weights->name;
    net.n_layer = count;
    int rc = built ? put_message(out, &net.base) : fail_memory(out);
    sac_arena_free(arena);
    return rc;
}

int sac_binary_put_state(struct sac_out *out, const struct sac_snapshot *snapshot,
                         const char *learned_net)
{
    Caffe__SolverState state = CAFFE__SOLVER_STATE__INIT;
    struct sac_arena *arena = sac_arena_new(0);

    state.has_iter = 1;
    state.iter = (int32_t)snapshot->iteration;
    state.learned_net = (char *)learned_net;
    state.has_current_step = 1;
    state.current_step = snapshot->current_step;
    state.n_history = (size_t)snapshot->history_count;
    if (arena)
        state.history = blob_messages(arena, snapshot->history, snapshot->history_count);
    int rc = state.history ? put_message(out, &state.base) : fail_memory(out);
    sac_arena_free(arena);
    return rc;
}

/* ---- Reading ---- */

/* Gives the blob's values to the state. */
static int add_history(struct sac_solver_state *state, const Caffe__BlobProto *message,
                       struct sac_error *err)
{
    struct sac_caffe_blob blob = {0};
    int rc = sac_caffe_blob_read(&blob, message, err);

    if (rc < 0) {
        sac_error_prefix(err, "history blob %d", state->history_count);
        return rc;
    }
    state->history[state->history_count++] =
        (struct sac_blob_view){sac_shape_of_blob(&blob), blob.data};
    return 0;
}

static int read_state(struct sac_solver_state *ret, const Caffe__SolverState *state,
                      struct sac_error *err)
{
    int rc = 0;

    if (!state->has_iter || state->iter < 0)
        return sac_fail(err, SAC_EFORMAT, "no iteration is in it; expected a solverstate");
    ret->iteration = state->iter;
    ret->current_step = state->current_step;
    ret->learned_net = strdup(state->learned_net ? state->learned_net : "");
    ret->history = calloc(state->n_history + 1, sizeof *ret->history);
    if (!ret->learned_net || !ret->history)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (size_t i = 0; rc == 0 && i < state->n_history; i++)
        rc = add_history(ret, state->history[i], err);
    return rc;
}

int sac_binary_load_state(struct sac_solver_state *ret, const char *path, struct sac_error *err)
{
    ProtobufCMessage *message = NULL;
    struct sac_arena *arena = NULL;
    uint8_t *bytes = NULL;
    size_t size = 0;
    int rc = sac_file_read(path, FILE_BYTES_MAX, &bytes, &size, err);

    if (rc < 0)
        return rc;
    arena = sac_arena_new(2 * size + SLACK_BYTES);
    if (!arena)
        rc = sac_fail(err, SAC_ENOMEM, "no memory for %zu bytes", size);
    else if (size == 0)
        rc = sac_fail(err, SAC_EFORMAT, "the file is empty");
    if (rc == 0)
        rc = sac_wire_unpack(&message, &caffe__solver_state__descriptor, bytes, size, arena, err);
    if (rc == 0)
        rc = read_state(ret, (const Caffe__SolverState *)message, err);
    if (rc < 0)
        sac_error_prefix(err, "%s", path);
    sac_arena_free(arena);
    free(bytes);
    return rc;
}
