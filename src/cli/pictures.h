/*
 * Which pictures a command line means: files, folders (walked), and list files
 * (a path a line, with Caffe's label, a number, behind the last space or
 * without). One thread.
 */
#ifndef SAC_CLI_PICTURES_H
#define SAC_CLI_PICTURES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { SAC_PICTURE_BYTES_MAX = 256 << 20 };

struct sac_pictures {
    char **paths; /* owned */
    size_t count, cap;
};

/* Adds what one word names. A file that is given by name is added whatever it
 * holds; a folder gives its files that begin like a JPEG or PNG, sorted by name,
 * and is SAC_ENOENT without any; a file of text is a list, whose relative paths start from the
 * working folder or else from the list's own. */
int sac_pictures_add(struct sac_pictures *pictures, const char *word, struct sac_error *err);
void sac_pictures_done(struct sac_pictures *pictures);

#endif
