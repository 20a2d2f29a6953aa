/*
 * Reading Caffe's HDF5 files: weights in /data/LAYER/INDEX, and what a state is read by.
 * Private to formats and train. A layer's name with slashes is a path of groups.
 * Any thread: HDF5 is the thread-safe build; what it prints is off per thread.
 */
#ifndef SAC_FORMATS_CAFFE_HDF5_H
#define SAC_FORMATS_CAFFE_HDF5_H

#include <hdf5.h>
#include <stdbool.h>

#include "formats/caffe.h"

/* Keeps HDF5 from printing; per thread, so at every entry. */
void sac_hdf5_quiet(void);
/* `what` failed; HDF5's innermost reason is added. */
int sac_hdf5_fail(struct sac_error *err, int code, const char *what);
/* Takes a negative id. */
void sac_hdf5_close(hid_t id);

int sac_hdf5_open(hid_t *ret, const char *path, struct sac_error *err);
/* Whether `name`, which may be a path, is there. */
bool sac_hdf5_exists(hid_t at, const char *name);
/* How many datasets 0, 1, ... a group has. */
int sac_hdf5_count(hid_t group);
/* A dataset of that class of numbers, whose storage holds what its shape says. */
int sac_hdf5_dataset(hid_t *ret, hid_t at, const char *name, H5T_class_t expected,
                     struct sac_error *err);
/* A dataset of floats. Memory is taken for what a file of `file_bytes` can hold, not for
 * what it says. */
int sac_hdf5_blob(struct sac_caffe_blob *ret, hid_t at, const char *name, size_t file_bytes,
                  struct sac_error *err);

#endif
