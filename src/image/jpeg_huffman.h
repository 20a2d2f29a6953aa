/*
 * Huffman decoding of baseline JPEGs, in the place of libjpeg's own, behind its
 * interface for entropy decoders: half of the time that a JPEG takes. Same
 * coefficients, same sentences for what is wrong. Two things make it faster: one
 * look-up gives a code and its value together, and coefficients that a DCT scale of
 * 1/8, or grey of a colour picture, does not use are passed over several at a time.
 * Belongs to one decoder, and its thread.
 */
#ifndef SAC_IMAGE_JPEG_HUFFMAN_H
#define SAC_IMAGE_JPEG_HUFFMAN_H

#include <stdbool.h>
#include <stdio.h>

#include <jpeglib.h>

struct sac_jpeg_huffman;

/* NULL when memory is out. Keeps its tables from picture to picture: most files
 * have the same ones. */
struct sac_jpeg_huffman *sac_jpeg_huffman_new(void);
void sac_jpeg_huffman_free(struct sac_jpeg_huffman *huffman);

/* Between jpeg_start_decompress and the first row: decodes `info`'s picture from
 * here on, if it is one for it (Huffman codes, one scan); says whether. All bytes of
 * the file must be in the source's buffer. Warnings go to info->err, whose
 * emit_message must not come back from those of damaged data. */
bool sac_jpeg_huffman_take(struct sac_jpeg_huffman *huffman, j_decompress_ptr info);

#endif
