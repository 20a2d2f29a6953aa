/*
 * What the tests of src/image share: pictures from the test data, pictures made
 * on the spot, and pieces of files put together by hand. Everything returned is
 * freed by the caller with free(.data).
 */
#ifndef SAC_TESTS_PICTURES_H
#define SAC_TESTS_PICTURES_H

#include "support/support.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "image/image.h"
#include "image/preprocess.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

struct bytes {
    uint8_t *data;
    size_t size;
};

/* A file under images/ of the test data; skips the test without it. */
struct bytes picture_read(const char *name);
struct bytes picture_read_path(const char *path);
struct bytes picture_copy(const uint8_t *data, size_t size);
/* `whole` with `piece` put in before byte `at`. */
struct bytes picture_insert(struct bytes whole, size_t at, const void *piece, size_t size);

/* Calls `visit` for each plain file of a folder under images/; how many. */
int picture_each(const char *folder, void (*visit)(const char *path, void *context), void *context);

/* FNV-1a, 32 bits: what stb's PngSuite results are hashed with. */
uint32_t picture_hash(const uint8_t *pixels, size_t size);
uint32_t picture_crc(const uint8_t *bytes, size_t size);

/* How make_jpeg compresses. */
struct jpeg_recipe {
    int width, height, components;
    J_COLOR_SPACE in, stored;
    int quality;    /* 0: 90 */
    bool subsample; /* 4:2:0; else no component is */
    int h, v;       /* or the first component's sampling factors, the others' being 1 */
    unsigned restart_mcus;
    bool optimize; /* Huffman tables of its own */
    bool no_adobe;
    bool progressive;
    const jpeg_scan_info *scans; /* or NULL */
    int scan_count;
};
struct bytes make_jpeg(const struct jpeg_recipe *recipe, const uint8_t *pixels);
/* Smooth, and no two corners alike. */
uint8_t *make_pixels(int width, int height, int components);
/* Any byte anywhere. */
uint8_t *make_noise(int width, int height, int components);
/* make_pixels, compressed: R, G, B, 4:2:0. */
struct bytes make_rgb_jpeg(int width, int height, bool progressive);
/* `file` as libjpeg alone decodes it, without anything of ours, at 1/denominator of its
 * size: grey or R, G, B, rows packed. NULL where it gives up, or warns of what makes a
 * picture damaged. */
uint8_t *library_decode(struct bytes file, int channels, unsigned denominator, int *ret_width,
                        int *ret_height);
/* Where marker `ff code` begins. */
size_t find_marker(struct bytes jpeg, int code);

/* A grey 8-bit PNG of make_pixels with what libpng writes, rows filtered. */
struct bytes make_grey_png(int width, int height, bool interlaced);
/* length, type, data and checksum behind `png`, whose memory moves. */
void put_chunk(struct bytes *png, const char *type, const void *data, size_t size);
/* The signature and a head of these values; its checksum is right. */
struct bytes make_png_head(uint32_t width, uint32_t height, int depth, int colour);

/* Decodes into `ret`, borrowed from `decoder`, and fails the test if that fails. */
void picture_decode(struct sac_decoder *decoder, struct bytes file,
                    const struct sac_decode_options *options, struct sac_image *ret);
/* The code that decoding in full colour gives with default limits, and its sentence. */
int picture_code(struct bytes file, struct sac_error *err);
/* The same in a child that may have `memory` bytes more than it has now;
 * without that bound where a sanitizer needs the address space. */
int picture_code_within(struct bytes file, size_t memory);

#endif
