/*
 * The libraries' algorithms by the question they answer, found once and kept on disk:
 * $XDG_CACHE_HOME/saccade (or ~/.cache/saccade), a file for each card and version
 * of cuDNN and cuBLAS. A file that cannot be read or written costs time, never an answer.
 *
 * All of a process's devices of one card share one table, so that an answer is the same
 * on each of them, and at every asking: the first that is given stands. Any thread.
 */
#ifndef SAC_DEVICE_CUDA_ALGORITHMS_H
#define SAC_DEVICE_CUDA_ALGORITHMS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct sac_algorithms;

struct sac_algorithm {
    int algorithm, math;
};

/* The process's table for the card; reads what is on disk where it is the first to ask. */
int sac_algorithms_new(struct sac_algorithms **ret, const char *card, struct sac_error *err);
/* Saves, and forgets all but the disk's when it is the last. Takes NULL. */
void sac_algorithms_free(struct sac_algorithms *algorithms);

/* `question` names the shapes, types and all that the answer depends on. */
bool sac_algorithms_find(struct sac_algorithms *algorithms, const char *question,
                         struct sac_algorithm *ret);
/* Remembers an answer in place of one from the disk; one that this process gave before
 * stands, and is put in place of *answer. Only what was measured is kept on disk. */
void sac_algorithms_add(struct sac_algorithms *algorithms, const char *question, bool measured,
                        struct sac_algorithm *answer);
/* Writes what is new, beside what other processes have written meanwhile. */
void sac_algorithms_save(struct sac_algorithms *algorithms);

/* The file's name for a card, in `folder`: letters, digits, '-' only. */
void sac_algorithms_path(char *path, size_t size, const char *folder, const char *card,
                         size_t cudnn, size_t cublas);

#endif
