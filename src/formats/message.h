/*
 * Messages by their descriptors: what the text parser, the printer and the
 * upgrades of old files have in common. Everything is allocated from an arena.
 * Any thread, a message on one at a time.
 */
#ifndef SAC_FORMATS_MESSAGE_H
#define SAC_FORMATS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"

/* All fields at their defaults. NULL when the arena is exhausted. */
ProtobufCMessage *sac_message_new(struct sac_arena *arena,
                                  const ProtobufCMessageDescriptor *descriptor);

/* By the name that text files use (see caffe.proto on names that end in `_`). */
const ProtobufCFieldDescriptor *sac_message_field(const ProtobufCMessageDescriptor *descriptor,
                                                  const char *name);

/* Values that the field holds: 0 or 1 where it is not repeated. */
size_t sac_message_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

/* Bytes that one value takes in the C struct (a pointer for texts and messages). */
size_t sac_message_value_size(const ProtobufCFieldDescriptor *field);

/* Where value `index` is; it must exist (but see sac_message_add). */
void *sac_message_value(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                        size_t index);

/* Marks the field as set, with one value more where it is repeated, and returns
 * where that value goes. NULL when the arena is exhausted. A repeated field must
 * have been filled by this function alone: its capacity follows from its count. */
void *sac_message_add(struct sac_arena *arena, ProtobufCMessage *message,
                      const ProtobufCFieldDescriptor *field);

/* Back to the default; not for repeated fields. */
void sac_message_clear(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

/* Gives `to` what `from` holds in its field of that name, whole; both share what
 * it points to. Nothing happens when `to` has no field of that name and type. */
void sac_message_share(ProtobufCMessage *to, const ProtobufCMessage *from, const char *name);

#endif
