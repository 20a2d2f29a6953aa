/* PREFIX_iter_N.saccade: JSON beside Caffe's two files. */
#include "train/snapshot_files.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { VERSION = 1 };
#define SIDECAR_BYTES_MAX ((size_t)64 << 20)

static json_t *print_to_json(const struct sac_file_print *print)
{
    return json_pack("{s:s, s:I, s:I}", "file", print->name, "bytes", (json_int_t)print->bytes,
                     "crc32", (json_int_t)print->crc);
}

int sac_sidecar_put(struct sac_out *out, int64_t iteration, const struct sac_file_print *weights,
                    const struct sac_file_print *state, const json_t *values)
{
    json_t *copy = values ? json_deep_copy(values) : json_object();
    json_t *root = json_pack("{s:i, s:I, s:o, s:o, s:o}", "saccade_snapshot", VERSION, "iteration",
                             (json_int_t)iteration, "weights", print_to_json(weights), "state",
                             print_to_json(state), "values", copy);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;

    if (text) {
        sac_out_put(out, text, strlen(text));
        sac_out_put(out, "\n", 1);
    } else {
        out->rc = sac_fail(out->err, SAC_ENOMEM, "%s: out of memory", out->path);
    }
    free(text);
    json_decref(root);
    return out->rc;
}

/* A file name alone: what stands elsewhere is none of the sidecar's business. */
static bool is_plain_name(const char *name)
{
    return name[0] && !strchr(name, '/');
}

static int read_print(struct sac_file_print *ret, const json_t *root, const char *key,
                      struct sac_error *err)
{
    json_int_t bytes, crc;

    if (json_unpack(json_object_get(root, key), "{s:s, s:I, s:I}", "file", &ret->name, "bytes",
                    &bytes, "crc32", &crc) != 0 ||
        !is_plain_name(ret->name) || bytes < 0 || crc < 0 || crc > (json_int_t)UINT32_MAX)
        return sac_fail(err, SAC_EFORMAT,
                        "expected \"%s\" to be an object with file, bytes and crc32", key);
    ret->bytes = (uint64_t)bytes;
    ret->crc = (uint32_t)crc;
    return 0;
}

static int read_root(struct sac_sidecar *sidecar, struct sac_error *err)
{
    json_int_t iteration;
    int version;

    if (json_unpack(sidecar->root, "{s:i}", "saccade_snapshot", &version) != 0)
        return sac_fail(err, SAC_EFORMAT, "expected \"saccade_snapshot\" and its version");
    if (version != VERSION)
        return sac_fail(err, SAC_EUNSUPPORTED, "written as version %d; this program reads %d",
                        version, VERSION);
    if (json_unpack(sidecar->root, "{s:I}", "iteration", &iteration) != 0 || iteration < 0)
        return sac_fail(err, SAC_EFORMAT, "expected \"iteration\" from 0 up");
    sidecar->iteration = iteration;
    int rc = read_print(&sidecar->weights, sidecar->root, "weights", err);
    return rc == 0 ? read_print(&sidecar->state, sidecar->root, "state", err) : rc;
}

int sac_sidecar_load(struct sac_sidecar *ret, const char *path, struct sac_error *err)
{
    struct sac_sidecar sidecar = {0};
    json_error_t where;
    uint8_t *text = NULL;
    size_t size = 0;
    int rc = sac_file_read(path, SIDECAR_BYTES_MAX, &text, &size, err);

    if (rc < 0)
        return rc;
    sidecar.root = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, &where);
    if (!sidecar.root)
        rc = sac_fail(err, SAC_EFORMAT, "line %d: %s", where.line, where.text);
    if (rc == 0)
        rc = read_root(&sidecar, err);
    if (rc == 0)
        *ret = sidecar;
    else
        json_decref(sidecar.root);
    if (rc < 0)
        sac_error_prefix(err, "%s", path);
    free(text);
    return rc;
}

void sac_sidecar_done(struct sac_sidecar *sidecar)
{
    json_decref(sidecar->root);
    *sidecar = (struct sac_sidecar){0};
}
