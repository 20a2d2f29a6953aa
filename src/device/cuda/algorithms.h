/*
 * cuDNN's algorithms by the question they answer, found once and kept on disk:
 * $XDG_CACHE_HOME/saccade (or ~/.cache/saccade), a file for each card and version
 * of cuDNN. A file that cannot be read or written costs time, never an answer.
 * One thread at a time: the device's lock.
 */
#ifndef SAC_DEVICE_CUDA_ALGORITHMS_H
#define SAC_DEVICE_CUDA_ALGORITHMS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct sac_algorithms;

/* Reads what is on disk. */
int sac_algorithms_new(struct sac_algorithms **ret, const char *card, struct sac_error *err);
void sac_algorithms_free(struct sac_algorithms *algorithms); /* takes NULL */

/* `question` names the shapes, types and all that the answer depends on. */
bool sac_algorithms_find(const struct sac_algorithms *algorithms, const char *question,
                         int *ret_algorithm, int *ret_math);
/* Remembers an answer in place of an earlier one, and writes the file. */
void sac_algorithms_add(struct sac_algorithms *algorithms, const char *question, int algorithm,
                        int math);

/* The file's name for a card, in `folder`: letters, digits, '-' only. */
void sac_algorithms_path(char *path, size_t size, const char *folder, const char *card,
                         size_t version);

#endif
