/*
 * Whether two pictures show the same, whatever their size and compression: a hash that
 * finds candidates cheaply, and a second look at pixels. Any thread.
 */
#ifndef SAC_DATASET_LIKENESS_H
#define SAC_DATASET_LIKENESS_H

#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

enum { SAC_LIKENESS_SIDE = 32 };

/* A picture made small: the mean of each of 32 × 32 parts, R, G, B. */
struct sac_look {
    float rgb[SAC_LIKENESS_SIDE * SAC_LIKENESS_SIDE * 3];
};
/* Of a picture with 3 channels. */
void sac_look_at(struct sac_look *ret, const struct sac_image *image);

/* 64 bits: the low 8 × 8 coefficients of the grey look's cosine transform, each
 * compared with their median (the constant one counts as 0). What differs in few bits
 * may be the same picture. */
uint64_t sac_look_hash(const struct sac_look *look);

/* The mean absolute difference of two looks, 0 … 255. Re-encoding and resizing leave
 * it under SAC_LOOK_SAME. */
double sac_look_difference(const struct sac_look *a, const struct sac_look *b);
#define SAC_LOOK_SAME 4.0

/* Pairs of hashes that differ in at most 7 bits, each once: with 8 bands of 8 bits one
 * band at least is equal in both. A failure of
 * `pair` ends the search. */
enum { SAC_LIKENESS_BITS = 7 };
int sac_likeness_pairs(const uint64_t *hashes, int64_t count,
                       int (*pair)(void *user, int64_t a, int64_t b, struct sac_error *err),
                       void *user, struct sac_error *err);

/* 128 bits of the bytes, to find equal ones; not against malice. */
void sac_likeness_of_bytes(const uint8_t *bytes, size_t size, uint64_t ret[2]);

#endif
