#include "data/datum.h"

#include <string.h>

/* Datum's fields, by number. */
enum { CHANNELS = 1, HEIGHT, WIDTH, DATA, LABEL, FLOAT_DATA, ENCODED };

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

struct field {
    unsigned number;
    int wire;
    uint64_t value;       /* of a varint */
    const uint8_t *bytes; /* of the others, with their size */
    size_t size;
};

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret)
{
    uint64_t value = 0;

    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
    }
    return false;
}

/* The next field; false where the record ends inside it or is no message. */
static bool read_field(const uint8_t **at, const uint8_t *end, struct field *ret)
{
    uint64_t tag, size = 0;

    if (!read_varint(at, end, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
        return false;
    *ret = (struct field){.number = (unsigned)(tag >> 3), .wire = (int)(tag & 7)};
    if (ret->wire == VARINT)
        return read_varint(at, end, &ret->value);
    if (ret->wire == BYTES && !read_varint(at, end, &size))
        return false;
    if (ret->wire == FIXED32 || ret->wire == FIXED64)
        size = ret->wire == FIXED32 ? 4 : 8;
    else if (ret->wire != BYTES)
        return false;
    if (size > (uint64_t)(end - *at))
        return false;
    ret->bytes = *at;
    ret->size = (size_t)size;
    *at += size;
    return true;
}

/* One value a field, or several packed. */
static bool is_floats(const struct field *field)
{
    return field->number == FLOAT_DATA &&
           (field->wire == FIXED32 || (field->wire == BYTES && field->size % 4 == 0));
}

static bool take(struct sac_datum *datum, const struct field *field)
{
    static const int wires[] = {[CHANNELS] = VARINT, [HEIGHT] = VARINT, [WIDTH] = VARINT,
                                [DATA] = BYTES,      [LABEL] = VARINT,  [ENCODED] = VARINT};

    if (field->number > ENCODED)
        return true; /* another fork's: passed over, as protobuf does */
    if (field->number == FLOAT_DATA) {
        datum->floats += field->size / 4;
        return is_floats(field);
    }
    if (field->wire != wires[field->number])
        return false;
    int32_t number = (int32_t)(uint32_t)field->value;
    switch (field->number) {
    case CHANNELS:
        datum->channels = number;
        break;
    case HEIGHT:
        datum->height = number;
        break;
    case WIDTH:
        datum->width = number;
        break;
    case DATA:
        datum->bytes = field->bytes;
        datum->size = field->size;
        break;
    case LABEL:
        datum->label = number;
        break;
    default:
        datum->encoded = field->value != 0;
    }
    return true;
}

/* Bytes if there are any, else floats, as many as the shape says. */
static int check(const struct sac_datum *datum, struct sac_error *err)
{
    size_t count, held = datum->size ? datum->size : datum->floats;

    if (datum->encoded)
        return datum->size ? 0 : sac_fail(err, SAC_EFORMAT, "an encoded picture of no bytes");
    if (datum->channels <= 0 || datum->height <= 0 || datum->width <= 0)
        return sac_fail(err, SAC_EFORMAT, "a Datum of %d × %d × %d values", datum->channels,
                        datum->height, datum->width);
    if (__builtin_mul_overflow((size_t)datum->channels, (size_t)datum->height, &count) ||
        __builtin_mul_overflow(count, (size_t)datum->width, &count) || count != held)
        return sac_fail(err, SAC_EFORMAT, "a Datum of %d × %d × %d that holds %zu values",
                        datum->channels, datum->height, datum->width, held);
    return 0;
}

int sac_datum_read(struct sac_datum *ret, const uint8_t *record, size_t size, struct sac_error *err)
{
    struct sac_datum datum = {0};
    const uint8_t *at = record, *end = record + size;
    struct field field;

    while (at < end) {
        size_t start = (size_t)(at - record);
        if (!read_field(&at, end, &field) || !take(&datum, &field))
            return sac_fail(err, SAC_EFORMAT, "not a Datum: byte %zu of %zu makes no sense", start,
                            size);
    }
    int rc = check(&datum, err);
    if (rc == 0)
        *ret = datum;
    return rc;
}

void sac_datum_floats(const uint8_t *record, size_t size, float *to)
{
    const uint8_t *at = record, *end = record + size;
    struct field field;

    while (at < end && read_field(&at, end, &field)) {
        if (!is_floats(&field))
            continue;
        memcpy(to, field.bytes, field.size);
        to += field.size / 4;
    }
}

static void put_varint(struct sac_buf *out, uint64_t value)
{
    uint8_t bytes[10];
    size_t size = 0;

    for (; value >= 0x80; value >>= 7)
        bytes[size++] = (uint8_t)(value | 0x80);
    bytes[size++] = (uint8_t)value;
    sac_buf_put(out, bytes, size);
}

static void put_number(struct sac_buf *out, unsigned field, int64_t value)
{
    put_varint(out, field << 3 | VARINT);
    put_varint(out, (uint64_t)value); /* negative ones take ten bytes, as protobuf has it */
}

static void put_floats(struct sac_buf *out, const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put_varint(out, FLOAT_DATA << 3 | FIXED32);
        sac_buf_put(out, &values[i], sizeof values[i]);
    }
}

void sac_datum_write(struct sac_buf *out, const struct sac_datum *datum, const float *values)
{
    if (datum->channels > 0) {
        put_number(out, CHANNELS, datum->channels);
        put_number(out, HEIGHT, datum->height);
        put_number(out, WIDTH, datum->width);
    }
    if (datum->size > 0) {
        put_varint(out, DATA << 3 | BYTES);
        put_varint(out, datum->size);
        sac_buf_put(out, datum->bytes, datum->size);
    }
    put_number(out, LABEL, datum->label);
    put_floats(out, values, datum->size > 0 ? 0 : datum->floats);
    if (datum->encoded)
        put_number(out, ENCODED, 1);
}
