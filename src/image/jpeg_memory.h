/*
 * libjpeg's working memory, kept from picture to picture: its own manager frees and
 * takes some 200 KB with each. Belongs to one decoder, and its thread.
 */
#ifndef SAC_IMAGE_JPEG_MEMORY_H
#define SAC_IMAGE_JPEG_MEMORY_H

#include <stddef.h>
#include <stdio.h>

#include <jpeglib.h>

#include "base/error.h"

struct sac_jpeg_memory {
    struct jpeg_memory_mgr manager;  /* first: what libjpeg sees */
    struct jpeg_memory_mgr *library; /* the one that jpeg_create_decompress made */
    struct sac_jpeg_block *blocks;   /* the one that is being filled first */
    jvirt_barray_ptr whole;          /* of a progressive picture, since the last reset */
    size_t bytes;                    /* of all blocks */
    size_t counted;                  /* towards sac_image_set_memory_max: of `whole` */
    struct sac_error refused;        /* why memory was not given, but for want of it */
};

/* Behind jpeg_create_decompress: what that took stays with libjpeg's own manager,
 * which jpeg_destroy_decompress gets back; all that follows comes from here, out of
 * memory being libjpeg's error; `refused` says why, where the bound on all decoders does. */
void sac_jpeg_memory_take(struct sac_jpeg_memory *memory, j_decompress_ptr info);
/* Between two pictures: all that `info` got from here is gone, but the memory stays,
 * in one block, if it is at most bytes_max. The caller forgets what points there. */
void sac_jpeg_memory_reset(struct sac_jpeg_memory *memory, size_t bytes_max);

#endif
