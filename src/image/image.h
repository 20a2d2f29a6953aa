/*
 * JPEG and PNG to 8-bit pixels. The kind is told by content, never by name.
 *
 * A decoder holds all that it works with and belongs to one thread: decoding the
 * next JPEG with it takes no memory at all once it has seen the largest, the next
 * PNG only what libpng and zlib work with. Dimensions are checked against the limits before memory
 * is taken.
 */
#ifndef SAC_IMAGE_IMAGE_H
#define SAC_IMAGE_IMAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum sac_image_kind { SAC_IMAGE_JPEG = 1, SAC_IMAGE_PNG };

struct sac_image_info {
    enum sac_image_kind kind;
    int width, height; /* as shown: after the EXIF orientation */
    int channels;      /* in the file, 1 to 4: a palette's are 3, tRNS is not counted */
    int orientation;   /* EXIF's of a JPEG, 1 to 8; 1 when there is none */
};

/* Zero means the default, which stands behind each. */
struct sac_image_limits {
    uint64_t pixels_max;             /* 40 million */
    int side_max;                    /* 16,384 */
    uint64_t progressive_pixels_max; /* 16 million, of a JPEG of several scans */
    int scans_max;                   /* 100, of a JPEG of several scans */
    size_t png_chunk_bytes_max;      /* 1 MB, of an ancillary chunk as stored; none is inflated */
    int png_chunks_max;              /* 64 ancillary chunks */
};

/* Columns x … x + width of rows y … y + height of a picture resized to
 * full_width × full_height. */
struct sac_resize_window {
    int full_width, full_height;
    int x, y, width, height;
};

struct sac_decode_options {
    int channels; /* 3: R, G, B; 1: grey (ITU-R BT.601 luma) */
    /* Where decoding may shrink by a power of two (JPEG's DCT scaling): the
     * shown picture stays at least this large on both sides. 0: full size. */
    int cover_width, cover_height;
    uint8_t background[3]; /* what alpha is laid over: R, G, B; gamma is not regarded */
    struct sac_image_limits limits;
    /* What will be made of the picture, by sac_resize_bilinear_window or by copying; NULL:
     * anything. Pixels that it does not need may be left undefined. Borrowed. */
    const struct sac_resize_window *window;
    const atomic_bool *canceled; /* looked at between rows; may be NULL */
};

/* Interleaved, rows `stride` bytes apart. Borrowed from the decoder, until its
 * next picture. */
struct sac_image {
    int width, height, channels;
    size_t stride;
    const uint8_t *pixels;
    int full_width, full_height; /* before DCT scaling, as shown */
};

struct sac_decoder;

/* What the pixels of all pictures that are being decoded at one time may take,
 * over all decoders; 512 MB unless said. What libjpeg keeps of a progressive
 * picture counts, at most 6 bytes a pixel; its rows do not. A picture that does
 * not fit beside the others is SAC_EBUSY: it may fit a moment later. Before
 * decoders are used; 0 for the default. */
void sac_image_set_memory_max(size_t bytes);

int sac_decoder_new(struct sac_decoder **ret, struct sac_error *err);
void sac_decoder_free(struct sac_decoder *decoder);

/* Reads only the head. SAC_EUNSUPPORTED: neither JPEG nor PNG; SAC_EFORMAT:
 * damaged; SAC_ELIMIT: over the limits. */
int sac_image_probe(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                    const struct sac_image_limits *limits, struct sac_image_info *ret,
                    struct sac_error *err);

/* As sac_image_probe, then decodes; SAC_ECANCELED when `canceled` became true.
 * A JPEG cut short, if only by its end marker, or damaged is an error, not a
 * half-grey picture; bytes behind its end are not looked at. SAC_EUNSUPPORTED:
 * JPEG with 12 bits, lossless or of unknown colours; PNG of Apple's variant. */
int sac_image_decode(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                     const struct sac_decode_options *options, struct sac_image *ret,
                     struct sac_error *err);

#endif
