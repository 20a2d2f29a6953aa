/*
 * Binary messages from files that nobody vouches for: protobuf-c decodes them,
 * but bounds neither nesting nor memory. This does. Any thread; blocks no one.
 */
#ifndef SAC_FORMATS_WIRE_H
#define SAC_FORMATS_WIRE_H

#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/error.h"

#define SAC_WIRE_DEPTH_MAX 64

/* Decodes into `arena`, whose budget bounds what the message may take. The
 * sentence of a failure names the byte and the field, not the file. */
int sac_wire_unpack(ProtobufCMessage **ret, const ProtobufCMessageDescriptor *descriptor,
                    const void *bytes, size_t size, struct sac_arena *arena, struct sac_error *err);

#endif
