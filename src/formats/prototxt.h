/*
 * Protobuf's text format, read by the descriptors of whatever message is
 * expected. (sac_prototxt_print, its inverse, is declared in caffe.h.)
 * Any thread.
 *
 * Taken: `name: value`, `name { }`, `name: { }`, `< >`, lists in brackets,
 * comments, `,` and `;` after fields, adjacent strings, decimal, hexadecimal and
 * octal numbers, enums by name or number. Refused, as protobuf does: unknown
 * fields, and a field given twice that is not repeated.
 */
#ifndef SAC_FORMATS_PROTOTXT_H
#define SAC_FORMATS_PROTOTXT_H

#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/error.h"

#define SAC_PROTOTXT_DEPTH_MAX 64

/* Reads `size` bytes of text into a new message in `arena`. Sentences begin
 * with NAME:LINE:COLUMN, both counted from 1. */
int sac_prototxt_parse(ProtobufCMessage **ret, const ProtobufCMessageDescriptor *descriptor,
                       const char *name, const char *text, size_t size, struct sac_arena *arena,
                       struct sac_error *err);

#endif
