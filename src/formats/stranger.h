/*
 * Files that stand where another was meant, each seen in practice: web pages,
 * Git LFS pointers, archives. Private to src/formats. Any thread.
 */
#ifndef SAC_FORMATS_STRANGER_H
#define SAC_FORMATS_STRANGER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* 0 where the bytes may be what was meant; else an error whose sentence begins
 * with `name` and says what they are, and what was `expected`. */
int sac_stranger_refuse(const char *name, const uint8_t *bytes, size_t size, const char *expected,
                        struct sac_error *err);

#endif
