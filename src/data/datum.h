/*
 * Caffe's Datum, one record of an LMDB, read in place: no memory is taken, and
 * what is found points into the record. Any thread.
 */
#ifndef SAC_DATA_DATUM_H
#define SAC_DATA_DATUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct sac_datum {
    int32_t channels, height, width, label;
    bool encoded;
    const uint8_t *bytes; /* `data`: planes of bytes, or an encoded picture */
    size_t size;
    size_t floats; /* how many float_data has */
};

/* The shape is checked against what the record holds, unless it is encoded.
 * SAC_EFORMAT for what is no Datum. */
int sac_datum_read(struct sac_datum *ret, const uint8_t *record, size_t size,
                   struct sac_error *err);

/* Appends the record: the shape (where it has one), `bytes`, or else `values` as
 * float_data, the label, and whether it is encoded. Caffe reads it. */
void sac_datum_write(struct sac_buf *out, const struct sac_datum *datum, const float *values);

/* float_data of a record that sac_datum_read took; to[0 … floats). */
void sac_datum_floats(const uint8_t *record, size_t size, float *to);

#endif
