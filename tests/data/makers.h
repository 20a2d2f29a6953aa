/* Data sets made on the spot: what the tests of src/data share. */
#ifndef SAC_TESTS_MAKERS_H
#define SAC_TESTS_MAKERS_H

#include "pictures.h"

#include "caffe.pb-c.h"
#include "data/feed.h"

/* Pixel (x, y), channel c of made picture `number`. */
uint8_t made_value(int number, int c, int y, int x);
/* A PNG file of made values, R, G, B (or grey); NULL on failure never. */
struct bytes make_png(int number, int width, int height, int channels);
/* A Datum with planes of made values, in protobuf-c's own packing. `floats`: as
 * float_data, each value and a half. */
struct bytes make_datum(int number, int width, int height, int channels, int label, bool floats);
struct bytes make_encoded_datum(struct bytes file, int label);

/* A path in the test's folder, good until the program ends. */
const char *made_path(const char *format, ...) __attribute__((format(printf, 1, 2)));
void make_folder(const char *path);

/* An LMDB in a new folder, of Datums under keys 00000000 … ; frees them. Skips the
 * test where LMDB was not built in, as make_hdf5 does. */
void make_lmdb(const char *path, struct bytes *datums, int count);
/* data [count × channels × height × width] and label [count × labels]. */
void make_hdf5(const char *path, const float *data, const int shape[4], const float *labels,
               int label_count);

#endif
