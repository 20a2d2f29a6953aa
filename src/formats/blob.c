/* BlobProto as numbers: shapes old and new, values in float, double or bytes. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/durable.h"
#include "base/file.h"
#include "formats/caffe.h"
#include "formats/stranger.h"
#include "formats/wire.h"

enum { RANK_MAX = 8 };

/* Caffe counts with int; nothing that fits in a file comes near. */
#define COUNT_MAX INT64_C(0x7fffffff)
#define FILE_BYTES_MAX ((size_t)2 << 30)
#define SLACK_BYTES ((size_t)1 << 20)

static bool has_legacy_shape(const Caffe__BlobProto *blob)
{
    return blob->has_num || blob->has_channels || blob->has_height || blob->has_width;
}

int sac_caffe_blob_shape(struct sac_caffe_blob *ret, const Caffe__BlobProto *blob,
                         struct sac_error *err)
{
    int64_t legacy[4] = {blob->num, blob->channels, blob->height, blob->width};
    const int64_t *dim = legacy;
    size_t rank = has_legacy_shape(blob) ? 4 : 0;

    if (rank == 0 && blob->shape) {
        dim = blob->shape->dim;
        rank = blob->shape->n_dim;
    }
    if (rank > RANK_MAX)
        return sac_fail(err, SAC_ELIMIT, "a blob of %zu dimensions, over the limit of %d", rank,
                        RANK_MAX);
    int64_t count = 1;
    for (size_t i = 0; i < rank; i++) {
        if (dim[i] < 0 || __builtin_mul_overflow(count, dim[i], &count) || count > COUNT_MAX)
            return sac_fail(err, SAC_EFORMAT, "a blob's dimension %zu of %lld cannot be", i,
                            (long long)dim[i]);
        ret->dim[i] = dim[i];
    }
    ret->rank = (int)rank;
    ret->count = (size_t)count;
    return 0;
}

/* IEEE half precision: 1 sign, 5 exponent and 10 fraction bits. */
static float float_of_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half >> 15) << 31;
    uint32_t exponent = (half >> 10) & 31;
    uint32_t fraction = half & 1023;
    uint32_t bits;
    float out;

    if (exponent == 0) { /* a multiple of 2^-24 */
        out = (float)fraction * 0x1p-24f;
        return sign ? -out : out;
    }
    bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* Bytes a value, 0 for types that hold no weights. */
static size_t raw_value_size(Caffe__Type type)
{
    switch (type) {
    case CAFFE__TYPE__DOUBLE:
        return 8;
    case CAFFE__TYPE__FLOAT:
        return 4;
    case CAFFE__TYPE__FLOAT16:
        return 2;
    default:
        return 0;
    }
}

static size_t held(const Caffe__BlobProto *blob, size_t raw_size)
{
    if (blob->n_data > 0)
        return blob->n_data;
    if (blob->n_double_data > 0)
        return blob->n_double_data;
    return blob->has_raw_data && raw_size ? blob->raw_data.len / raw_size : 0;
}

static float raw_value(const Caffe__BlobProto *blob, size_t raw_size, size_t index)
{
    const uint8_t *at = blob->raw_data.data + index * raw_size;
    uint16_t half;
    double number;
    float out;

    if (raw_size == 2) {
        memcpy(&half, at, sizeof half);
        return float_of_half(half);
    }
    if (raw_size == 4) {
        memcpy(&out, at, sizeof out);
        return out;
    }
    memcpy(&number, at, sizeof number);
    return (float)number;
}

static void copy_values(float *out, const Caffe__BlobProto *blob, size_t count, size_t raw_size)
{
    if (blob->n_data > 0)
        memcpy(out, blob->data, count * sizeof *out);
    else if (blob->n_double_data > 0)
        for (size_t i = 0; i < count; i++)
            out[i] = (float)blob->double_data[i];
    else
        for (size_t i = 0; i < count; i++)
            out[i] = raw_value(blob, raw_size, i);
}

static int check_raw(const Caffe__BlobProto *blob, size_t raw_size, struct sac_error *err)
{
    if (!blob->has_raw_data || blob->n_data > 0 || blob->n_double_data > 0)
        return 0;
    if (!blob->has_raw_data_type)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "a blob with raw values of no stated type; expected DOUBLE, FLOAT or "
                        "FLOAT16");
    if (raw_size == 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "a blob with raw values of type %d; expected DOUBLE, FLOAT or FLOAT16",
                        (int)blob->raw_data_type);
    if (blob->raw_data.len % raw_size != 0)
        return sac_fail(err, SAC_EFORMAT, "a blob with %zu raw bytes, no multiple of %zu",
                        blob->raw_data.len, raw_size);
    return 0;
}

int sac_caffe_blob_read(struct sac_caffe_blob *ret, const Caffe__BlobProto *blob,
                        struct sac_error *err)
{
    struct sac_caffe_blob out = {0};
    size_t raw_size = blob->has_raw_data_type ? raw_value_size(blob->raw_data_type) : 0;
    int rc = sac_caffe_blob_shape(&out, blob, err);

    if (rc == 0)
        rc = check_raw(blob, raw_size, err);
    if (rc < 0)
        return rc;
    size_t values = held(blob, raw_size);
    if (values == 0 && out.count > 0 && blob->base.n_unknown_fields > 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "a blob with its values in field %u, which Caffe does not have; "
                        "expected them as float or double",
                        blob->base.unknown_fields[0].tag);
    if (values != out.count)
        return sac_fail(err, SAC_EFORMAT, "a blob with %zu values for a shape of %zu", values,
                        out.count);
    out.data = malloc(out.count ? out.count * sizeof *out.data : 1);
    if (!out.data)
        return sac_fail(err, SAC_ENOMEM, "no memory for a blob of %zu values", out.count);
    copy_values(out.data, blob, out.count, raw_size);
    *ret = out;
    return 0;
}

static int read_file(struct sac_caffe_blob *ret, const char *path, const uint8_t *bytes,
                     size_t size, struct sac_error *err)
{
    struct sac_arena *arena = sac_arena_new(2 * size + SLACK_BYTES);
    ProtobufCMessage *message = NULL;
    int rc = arena ? 0 : sac_fail(err, SAC_ENOMEM, "no memory for %zu bytes", size);

    if (rc == 0)
        rc = sac_wire_unpack(&message, &caffe__blob_proto__descriptor, bytes, size, arena, err);
    if (rc == 0)
        rc = sac_caffe_blob_read(ret, (const Caffe__BlobProto *)message, err);
    if (rc < 0)
        sac_error_prefix(err, "%s", path);
    sac_arena_free(arena);
    return rc;
}

int sac_caffe_blob_load(struct sac_caffe_blob *ret, const char *path, struct sac_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    int rc = sac_file_read(path, FILE_BYTES_MAX, &bytes, &size, err);

    if (rc < 0)
        return rc;
    rc = sac_stranger_refuse(path, bytes, size, "a binaryproto", err);
    if (rc == 0)
        rc = read_file(ret, path, bytes, size, err);
    free(bytes);
    return rc;
}

void sac_caffe_blob_done(struct sac_caffe_blob *blob)
{
    free(blob->data);
    *blob = (struct sac_caffe_blob){0};
}

static void set_shape(Caffe__BlobProto *message, Caffe__BlobShape *shape,
                      const struct sac_caffe_blob *blob)
{
    int32_t *old[4] = {&message->num, &message->channels, &message->height, &message->width};

    if (blob->rank > 4) {
        shape->n_dim = (size_t)blob->rank;
        shape->dim = (int64_t *)blob->dim;
        message->shape = shape;
        return;
    }
    message->has_num = message->has_channels = message->has_height = message->has_width = 1;
    for (int i = 0; i < 4; i++) {
        int from = blob->rank - 4 + i;
        *old[i] = from < 0 ? 1 : (int32_t)blob->dim[from];
    }
}

int sac_caffe_blob_save(const struct sac_caffe_blob *blob, const char *path, struct sac_error *err)
{
    Caffe__BlobProto message = CAFFE__BLOB_PROTO__INIT;
    Caffe__BlobShape shape = CAFFE__BLOB_SHAPE__INIT;

    set_shape(&message, &shape, blob);
    message.n_data = blob->count;
    message.data = blob->data;
    size_t size = caffe__blob_proto__get_packed_size(&message);
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu bytes", path, size);
    caffe__blob_proto__pack(&message, bytes);
    int rc = sac_durable_write(path, bytes, size, err);
    free(bytes);
    return rc;
}
