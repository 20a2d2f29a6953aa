#include "train/snapshot_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "base/file.h"

void sac_out_put(struct sac_out *out, const void *bytes, size_t size)
{
    if (out->rc != 0)
        return;
    out->rc = sac_durable_put(out->file, bytes, size, out->err);
    out->bytes += size;
    out->crc = sac_crc32(out->crc, bytes, size);
}

const char *sac_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

char *sac_path_beside(const char *beside, const char *name)
{
    char *path = NULL;

    if (asprintf(&path, "%.*s%s", (int)(sac_path_name(beside) - beside), beside, name) < 0)
        return NULL;
    return path;
}

void sac_snapshot_files_done(struct sac_snapshot_files *files)
{
    free(files->state);
    free(files->weights);
    free(files->sidecar);
    *files = (struct sac_snapshot_files){0};
}

void sac_solver_state_done(struct sac_solver_state *state)
{
    for (int i = 0; i < state->history_count; i++)
        free(state->history[i].data);
    free(state->history);
    free(state->learned_net);
    *state = (struct sac_solver_state){0};
}

int sac_solver_state_load(struct sac_solver_state *ret, const char *path, struct sac_error *err)
{
    struct sac_solver_state state = {0};
    int rc = sac_hdf5_is(path, err);

    if (rc < 0)
        return rc;
    rc =
        rc == 1 ? sac_hdf5_load_state(&state, path, err) : sac_binary_load_state(&state, path, err);
    if (rc == 0)
        *ret = state;
    else
        sac_solver_state_done(&state);
    return rc;
}

/* ---- Saving ---- */

/* The three files of one snapshot on their way. */
struct saving {
    const struct sac_snapshot *snapshot;
    struct sac_snapshot_files files;
    struct sac_out weights;
    struct sac_out state;
    struct sac_out sidecar;
    struct sac_error *err;
};

static char *path_of(const struct sac_snapshot *snapshot, const char *extension, bool may_be_hdf5)
{
    const char *h5 = may_be_hdf5 && snapshot->format == SAC_SNAPSHOT_HDF5 ? ".h5" : "";
    char *path = NULL;

    if (asprintf(&path, "%s_iter_%lld.%s%s", snapshot->prefix, (long long)snapshot->iteration,
                 extension, h5) < 0)
        return NULL;
    return path;
}

static int name_files(struct saving *saving)
{
    const struct sac_snapshot *snapshot = saving->snapshot;
    struct sac_snapshot_files *files = &saving->files;

    if (snapshot->iteration < 0 || snapshot->iteration > INT32_MAX)
        return sac_fail(saving->err, SAC_EINVAL,
                        "iteration %lld: Caffe's snapshots hold 0 to 2147483647",
                        (long long)snapshot->iteration);
    files->iteration = snapshot->iteration;
    files->weights = path_of(snapshot, "caffemodel", true);
    files->state = path_of(snapshot, "solverstate", true);
    files->sidecar = path_of(snapshot, "saccade", false);
    if (!files->weights || !files->state || !files->sidecar)
        return sac_fail(saving->err, SAC_ENOMEM, "out of memory");
    return 0;
}

static int begin_file(struct sac_out *out, const char *path, struct sac_error *err)
{
    *out = (struct sac_out){.path = path, .err = err};
    return sac_durable_open(&out->file, path, err);
}

static int write_weights(struct saving *saving)
{
    const struct sac_weights_view *view = saving->snapshot->weights;
    struct sac_out *out = &saving->weights;
    int rc = begin_file(out, saving->files.weights, saving->err);

    if (rc == 0)
        rc = saving->snapshot->format == SAC_SNAPSHOT_HDF5 ? sac_hdf5_put_weights(out, view)
                                                           : sac_binary_put_weights(out, view);
    return rc == 0 ? sac_durable_sync(out->file, saving->err) : rc;
}

static int write_state(struct saving *saving)
{
    const char *learned_net = saving->files.weights;
    struct sac_out *out = &saving->state;
    int rc = begin_file(out, saving->files.state, saving->err);

    if (rc == 0)
        rc = saving->snapshot->format == SAC_SNAPSHOT_HDF5
                 ? sac_hdf5_put_state(out, saving->snapshot, learned_net)
                 : sac_binary_put_state(out, saving->snapshot, learned_net);
    return rc == 0 ? sac_durable_sync(out->file, saving->err) : rc;
}

static struct sac_file_print print_of(const struct sac_out *out)
{
    return (struct sac_file_print){sac_path_name(out->path), out->bytes, out->crc};
}

static int write_sidecar(struct saving *saving)
{
    struct sac_file_print weights = print_of(&saving->weights), state = print_of(&saving->state);
    struct sac_out *out = &saving->sidecar;
    int rc = begin_file(out, saving->files.sidecar, saving->err);

    if (rc == 0)
        rc = sac_sidecar_put(out, saving->snapshot->iteration, &weights, &state,
                             saving->snapshot->values);
    return rc == 0 ? sac_durable_sync(out->file, saving->err) : rc;
}

/* The solverstate last: where it is, the others are. */
static int publish(struct saving *saving)
{
    int rc = sac_durable_commit(saving->weights.file, saving->err);

    if (rc == 0)
        rc = sac_durable_commit(saving->sidecar.file, saving->err);
    if (rc == 0)
        rc = sac_durable_commit(saving->state.file, saving->err);
    return rc;
}

int sac_snapshot_save(const struct sac_snapshot *snapshot, struct sac_snapshot_files *ret,
                      struct sac_error *err)
{
    struct saving saving = {.snapshot = snapshot, .err = err};
    int rc = name_files(&saving);

    if (rc == 0)
        rc = write_weights(&saving);
    if (rc == 0)
        rc = write_state(&saving);
    if (rc == 0)
        rc = write_sidecar(&saving);
    if (rc == 0)
        rc = publish(&saving);
    if (rc == 0 && ret) {
        *ret = saving.files;
        saving.files = (struct sac_snapshot_files){0};
    }
    sac_durable_free(saving.weights.file);
    sac_durable_free(saving.state.file);
    sac_durable_free(saving.sidecar.file);
    sac_snapshot_files_done(&saving.files);
    return rc;
}

/* ---- Around a run ---- */

/* The name without its extension: of "a/s.prototxt", s. */
static int stem_length(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot && dot > name ? (int)(dot - name) : (int)strlen(name);
}

char *sac_snapshot_prefix(const char *snapshot_prefix, const char *solver_path)
{
    const char *name = sac_path_name(solver_path);
    char *prefix = NULL;
    int rc;

    if (!snapshot_prefix) {
        rc = asprintf(&prefix, "%.*s%.*s", (int)(name - solver_path), solver_path,
                      stem_length(name), name);
        return rc < 0 ? NULL : prefix;
    }
    if (!sac_file_is_folder(snapshot_prefix))
        return strdup(snapshot_prefix);
    size_t length = strlen(snapshot_prefix);
    const char *slash = length > 0 && snapshot_prefix[length - 1] == '/' ? "" : "/";
    rc = asprintf(&prefix, "%s%s%.*s", snapshot_prefix, slash, stem_length(name), name);
    return rc < 0 ? NULL : prefix;
}

static int check_folder(const char *prefix, struct sac_error *err)
{
    const char *slash = strrchr(prefix, '/');
    char *folder = slash && slash > prefix ? strndup(prefix, (size_t)(slash - prefix)) : NULL;
    int rc = !folder || sac_file_is_folder(folder)
                 ? 0
                 : sac_fail(err, SAC_ENOENT, "there is no folder %s", folder);

    free(folder);
    return rc;
}

int sac_snapshot_check_prefix(const char *prefix, struct sac_error *err)
{
    struct sac_durable *file = NULL;
    char *path = NULL;

    if (asprintf(&path, "%s_iter_0.check", prefix) < 0)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    int rc = check_folder(prefix, err);
    if (rc == 0)
        rc = sac_durable_open(&file, path, err);
    if (rc == 0)
        rc = sac_durable_sync(file, err);
    if (rc < 0)
        sac_error_prefix(err, "snapshots cannot be saved (snapshot_prefix: \"%s\")", prefix);
    sac_durable_free(file);
    free(path);
    return rc;
}

int sac_snapshot_check_iterations(const struct sac_snapshot_files *files, int64_t max_iter,
                                  struct sac_error *err)
{
    if (files->iteration < max_iter)
        return 0;
    return sac_fail(err, SAC_EINVAL,
                    "%s stands at iteration %lld, and max_iter is %lld: nothing is left to train. "
                    "To go on, set max_iter in the solver above %lld",
                    files->state, (long long)files->iteration, (long long)max_iter,
                    (long long)files->iteration);
}
