/* Whole files in memory. Any thread; blocks: never on the loop thread. */
#ifndef SAC_BASE_FILE_H
#define SAC_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Reads the file whole. *ret gets `*ret_size` bytes and a NUL behind them; the
 * caller frees it. A file over bytes_max is SAC_ELIMIT and nothing is
 * allocated; a folder or device is SAC_EFORMAT. */
int sac_file_read(const char *path, size_t bytes_max, uint8_t **ret, size_t *ret_size,
                  struct sac_error *err);

bool sac_file_exists(const char *path);
bool sac_file_is_folder(const char *path);
/* A folder that can be read and holds nothing, or no more than an entry called `but` (NULL:
 * none is let pass). */
bool sac_file_folder_is_empty(const char *path, const char *but);

#endif
