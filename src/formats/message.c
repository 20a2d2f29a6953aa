#include "formats/message.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

ProtobufCMessage *sac_message_new(struct sac_arena *arena,
                                  const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = sac_arena_alloc(arena, descriptor->sizeof_message);

    if (message)
        protobuf_c_message_init(descriptor, message);
    return message;
}

const ProtobufCFieldDescriptor *sac_message_field(const ProtobufCMessageDescriptor *descriptor,
                                                  const char *name)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(descriptor, name);
    char reserved[64];

    if (field)
        return field;
    int size = snprintf(reserved, sizeof reserved, "%s_", name);
    if ((size_t)size >= sizeof reserved)
        return NULL;
    return protobuf_c_message_descriptor_get_field_by_name(descriptor, reserved);
}

static void *member(const ProtobufCMessage *message, size_t offset)
{
    return (char *)message + offset;
}

/* Texts and messages are told by their pointers, all else by a has_ flag. */
static bool is_set(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE || field->type == PROTOBUF_C_TYPE_STRING) {
        const void *value = *(void *const *)member(message, field->offset);
        return value && value != field->default_value;
    }
    if (field->label == PROTOBUF_C_LABEL_REQUIRED)
        return true;
    return *(const protobuf_c_boolean *)member(message, field->quantifier_offset);
}

size_t sac_message_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)member(message, field->quantifier_offset);
    return is_set(message, field);
}

size_t sac_message_value_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        return 4;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return 8;
    }
}

void *sac_message_value(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                        size_t index)
{
    void *at = member(message, field->offset);

    if (field->label != PROTOBUF_C_LABEL_REPEATED)
        return at;
    return *(char **)at + index * sac_message_value_size(field);
}

/* Arrays double: their capacity is the least power of two that holds the count. */
static bool grow(struct sac_arena *arena, void **array, size_t count, size_t size)
{
    if ((count & (count - 1)) != 0)
        return true;
    void *larger = sac_arena_zalloc(arena, count ? 2 * count : 1, size);
    if (!larger)
        return false;
    if (count)
        memcpy(larger, *array, count * size);
    *array = larger;
    return true;
}

void *sac_message_add(struct sac_arena *arena, ProtobufCMessage *message,
                      const ProtobufCFieldDescriptor *field)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t *count = member(message, field->quantifier_offset);
        if (!grow(arena, member(message, field->offset), *count, sac_message_value_size(field)))
            return NULL;
        return sac_message_value(message, field, (*count)++);
    }
    if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->type != PROTOBUF_C_TYPE_MESSAGE &&
        field->type != PROTOBUF_C_TYPE_STRING)
        *(protobuf_c_boolean *)member(message, field->quantifier_offset) = 1;
    return member(message, field->offset);
}

void sac_message_clear(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE || field->type == PROTOBUF_C_TYPE_STRING)
        *(const void **)member(message, field->offset) = field->default_value;
    else
        *(protobuf_c_boolean *)member(message, field->quantifier_offset) = 0;
}

void sac_message_share(ProtobufCMessage *to, const ProtobufCMessage *from, const char *name)
{
    const ProtobufCFieldDescriptor *source =
        protobuf_c_message_descriptor_get_field_by_name(from->descriptor, name);
    const ProtobufCFieldDescriptor *target =
        protobuf_c_message_descriptor_get_field_by_name(to->descriptor, name);

    if (!source || !target || source->type != target->type || source->label != target->label ||
        source->descriptor != target->descriptor || sac_message_count(from, source) == 0)
        return;
    if (source->label == PROTOBUF_C_LABEL_REPEATED) {
        *(size_t *)member(to, target->quantifier_offset) = sac_message_count(from, source);
        *(void **)member(to, target->offset) = *(void **)member(from, source->offset);
        return;
    }
    memcpy(sac_message_add(NULL, to, target), member(from, source->offset),
           sac_message_value_size(source));
}
