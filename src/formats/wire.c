#include "formats/wire.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct scan {
    const uint8_t *start;
    struct sac_error *err;
};

/* One message on the way down, for the sentence and the depth. */
struct level {
    const struct level *above;
    const ProtobufCMessageDescriptor *descriptor;
    const char *field; /* being read, or NULL */
    int depth;
};

/* "NetParameter.layer.blobs"; of a deep path, only the end. */
static void write_path(char *path, size_t size, const struct level *level)
{
    const struct level *chain[5];
    int count = 0;
    size_t used = 0;

    for (; level && count < 5; level = level->above)
        chain[count++] = level;
    used = (size_t)snprintf(path, size, "%s", chain[count - 1]->descriptor->short_name);
    while (count-- > 0 && used < size && chain[count]->field)
        used += (size_t)snprintf(path + used, size - used, ".%s", chain[count]->field);
}

__attribute__((format(printf, 5, 6))) static int fail_at(struct scan *scan, const uint8_t *at,
                                                         const struct level *level, int code,
                                                         const char *format, ...)
{
    char path[160];
    char what[200];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    write_path(path, sizeof path, level);
    return sac_fail(scan->err, code, "byte %zu, in %s: %s", (size_t)(at - scan->start), path, what);
}

/* Reads a varint of at most `bytes_max` bytes; false past the end. */
static bool read_varint(const uint8_t **at, const uint8_t *end, int bytes_max, uint64_t *ret)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes_max && *at < end; i++) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
    }
    return false;
}

static int wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* A wire type in words. */
static const char *wire_name(int wire)
{
    static const char *const names[] = {"a number", "8 bytes",       "a length",
                                        "a group",  "a group's end", "4 bytes"};

    return wire < 6 ? names[wire] : "nothing known";
}

/* Several numbers in one length-delimited field. */
static int scan_packed(struct scan *scan, const struct level *level,
                       const ProtobufCFieldDescriptor *field, const uint8_t *at, const uint8_t *end)
{
    int wire = wire_of(field->type);
    size_t size = (size_t)(end - at);
    uint64_t value;

    if ((wire == PROTOBUF_C_WIRE_TYPE_32BIT && size % 4) ||
        (wire == PROTOBUF_C_WIRE_TYPE_64BIT && size % 8))
        return fail_at(scan, at, level, SAC_EFORMAT, "%zu bytes are no whole number of values",
                       size);
    if (wire != PROTOBUF_C_WIRE_TYPE_VARINT)
        return 0;
    while (at < end) {
        if (!read_varint(&at, end, 10, &value))
            return fail_at(scan, at, level, SAC_EFORMAT, "a number does not end");
    }
    return 0;
}

static int scan_message(struct scan *scan, const struct level *above,
                        const ProtobufCMessageDescriptor *descriptor, const uint8_t *at,
                        const uint8_t *end);

static int scan_delimited(struct scan *scan, const struct level *level,
                          const ProtobufCFieldDescriptor *field, const uint8_t **at,
                          const uint8_t *end)
{
    uint64_t size;
    const uint8_t *start = *at;

    if (!read_varint(at, end, 10, &size))
        return fail_at(scan, start, level, SAC_EFORMAT, "the file ends inside a length");
    if (size > (uint64_t)(end - *at))
        return fail_at(scan, start, level, SAC_EFORMAT,
                       "a length of %llu bytes where %zu are left%s", (unsigned long long)size,
                       (size_t)(end - *at), level->above ? "" : "; is the file cut short?");
    const uint8_t *body = *at;
    *at += size;
    if (!field || field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES)
        return 0;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return scan_message(scan, level, field->descriptor, body, *at);
    return scan_packed(scan, level, field, body, *at);
}

static int scan_value(struct scan *scan, const struct level *level,
                      const ProtobufCFieldDescriptor *field, int wire, const uint8_t **at,
                      const uint8_t *end)
{
    uint64_t value;
    size_t size;

    switch (wire) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        if (!read_varint(at, end, 10, &value))
            return fail_at(scan, *at, level, SAC_EFORMAT, "the file ends inside a number");
        return 0;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        size = wire == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8;
        if ((size_t)(end - *at) < size)
            return fail_at(scan, *at, level, SAC_EFORMAT, "the file ends inside a number");
        *at += size;
        return 0;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        return scan_delimited(scan, level, field, at, end);
    default:
        return fail_at(scan, *at, level, SAC_EFORMAT, "found %s, which no such file has",
                       wire_name(wire));
    }
}

static bool fits(const ProtobufCFieldDescriptor *field, int wire)
{
    int expected = wire_of(field->type);

    return wire == expected || (field->label == PROTOBUF_C_LABEL_REPEATED &&
                                wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
}

static int scan_field(struct scan *scan, struct level *level, const uint8_t **at,
                      const uint8_t *end)
{
    const uint8_t *start = *at;
    uint64_t tag;

    level->field = NULL;
    if (!read_varint(at, end, 5, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return fail_at(scan, start, level, SAC_EFORMAT, "expected a field, found something else");
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(level->descriptor, (unsigned)(tag >> 3));
    int wire = (int)(tag & 7);
    level->field = field ? field->name : "(unknown)";
    if (field && !fits(field, wire))
        return fail_at(scan, start, level, SAC_EFORMAT, "expected %s, found %s",
                       wire_name(wire_of(field->type)), wire_name(wire));
    return scan_value(scan, level, field, wire, at, end);
}

static int scan_message(struct scan *scan, const struct level *above,
                        const ProtobufCMessageDescriptor *descriptor, const uint8_t *at,
                        const uint8_t *end)
{
    struct level level = {above, descriptor, NULL, above ? above->depth + 1 : 1};
    int rc = 0;

    if (level.depth > SAC_WIRE_DEPTH_MAX)
        return fail_at(scan, at, &level, SAC_ELIMIT, "nested more than %d deep",
                       SAC_WIRE_DEPTH_MAX);
    while (rc == 0 && at < end)
        rc = scan_field(scan, &level, &at, end);
    return rc;
}

struct budget {
    struct sac_arena *arena;
    bool exhausted;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    void *out = sac_arena_alloc(budget->arena, size);

    budget->exhausted |= !out;
    return out;
}

static void budget_free(void *data, void *pointer)
{
    (void)data;
    (void)pointer; /* the arena goes as a whole */
}

int sac_wire_unpack(ProtobufCMessage **ret, const ProtobufCMessageDescriptor *descriptor,
                    const void *bytes, size_t size, struct sac_arena *arena, struct sac_error *err)
{
    struct scan scan = {bytes, err};
    struct budget budget = {arena, false};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    int rc = scan_message(&scan, NULL, descriptor, bytes, (const uint8_t *)bytes + size);

    if (rc < 0)
        return rc;
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, size, bytes);
    if (!message && budget.exhausted)
        return sac_fail(err, SAC_ELIMIT,
                        "needs more memory than a %s of %zu bytes may take (%zu bytes)",
                        descriptor->short_name, size, sac_arena_used(arena));
    if (!message)
        return sac_fail(err, SAC_EFORMAT, "not a valid %s: a required field is missing",
                        descriptor->short_name);
    *ret = message;
    return 0;
}
