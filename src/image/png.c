/*
 * PNG by libpng's row API.
 *
 * Before libpng sees a byte, the chunks are walked: dimensions, truncation, and
 * the number and size of ancillary chunks are checked without any memory. Of
 * the ancillary chunks libpng is then told to skip all but tRNS, so that a text
 * or a profile that would inflate a thousandfold is never inflated. gAMA is
 * thereby ignored, as OpenCV and Caffe ignore it: nets were trained on the
 * stored values. Samples of 16 bits are cut to their high byte, as there.
 */
#include "image/decoder.h"

#include <setjmp.h>
#include <string.h>

#include <png.h>

#define SIGNATURE_BYTES 8
#define HEADER_END 33 /* signature, IHDR's length, type, 13 bytes and CRC */
#define CHUNK_MIN 12  /* length, type, CRC */

struct png {
    png_structp png;
    png_infop info;
    jmp_buf failed;
    int rc;
    struct sac_error *err;

    const uint8_t *bytes;
    size_t size, at;
    const struct sac_image_limits *limits;
    const struct sac_decode_options *options;
    struct sac_decoder *decoder;
    struct sac_image *ret_image;

    /* after expansion: grey, grey + alpha, RGB or RGB + alpha, 8 bits each */
    size_t width, height, channels;
    int passes;
};

static uint32_t read32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* CRC-32 of ISO 3309, a bit at a time: for the 17 bytes of a head. */
static uint32_t crc32_of(const uint8_t *bytes, size_t size)
{
    uint32_t crc = ~0u;

    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static int channels_of(int colour)
{
    switch (colour) {
    case PNG_COLOR_TYPE_GRAY:
        return 1;
    case PNG_COLOR_TYPE_GRAY_ALPHA:
        return 2;
    case PNG_COLOR_TYPE_RGB:
    case PNG_COLOR_TYPE_PALETTE:
        return 3;
    case PNG_COLOR_TYPE_RGB_ALPHA:
        return 4;
    default:
        return 0;
    }
}

int sac_png_probe(const uint8_t *bytes, size_t size, const struct sac_image_limits *limits,
                  struct sac_image_info *ret, struct sac_error *err)
{
    if (size >= 16 && memcmp(bytes + 12, "CgBI", 4) == 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "PNG: Apple's CgBI variant, which only its own software reads");
    if (size < HEADER_END)
        return sac_fail(err, SAC_EFORMAT, "PNG: cut short in its head, after %zu bytes", size);
    if (read32(bytes + 8) != 13 || memcmp(bytes + 12, "IHDR", 4) != 0)
        return sac_fail(err, SAC_EFORMAT, "PNG: does not begin with IHDR");
    if (crc32_of(bytes + 12, 17) != read32(bytes + 29))
        return sac_fail(err, SAC_EFORMAT, "PNG: IHDR's checksum is wrong");
    int channels = channels_of(bytes[25]);
    if (channels == 0)
        return sac_fail(err, SAC_EFORMAT, "PNG: colour type %d; expected 0, 2, 3, 4 or 6",
                        bytes[25]);
    uint32_t width = read32(bytes + 16), height = read32(bytes + 20);
    int rc = sac_image_size_check(limits, "PNG", width, height, err);
    if (rc == 0)
        *ret = (struct sac_image_info){SAC_IMAGE_PNG, (int)width, (int)height, channels, 1};
    return rc;
}

/* Reads the length of the chunk at `at`, all of which must be in the file. */
static int chunk_length(const uint8_t *bytes, size_t size, size_t at, size_t *ret,
                        struct sac_error *err)
{
    if (size - at < CHUNK_MIN || read32(bytes + at) > size - at - CHUNK_MIN)
        return sac_fail(err, SAC_EFORMAT, "PNG: cut short, at %zu of %zu bytes", at, size);
    *ret = read32(bytes + at);
    return 0;
}

static int walk_chunks(const uint8_t *bytes, size_t size, const struct sac_image_limits *limits,
                       struct sac_error *err)
{
    int ancillary = 0;
    size_t length = 0;

    for (size_t at = SIGNATURE_BYTES; at <= size; at += CHUNK_MIN + length) {
        int rc = chunk_length(bytes, size, at, &length, err);
        if (rc < 0)
            return rc;
        const uint8_t *type = bytes + at + 4;
        if (memcmp(type, "IEND", 4) == 0)
            return 0;
        if (!(type[0] & 0x20))
            continue;
        if (++ancillary > limits->png_chunks_max)
            return sac_fail(err, SAC_ELIMIT, "PNG: more than %d ancillary chunks",
                            limits->png_chunks_max);
        if (length > limits->png_chunk_bytes_max)
            return sac_fail(err, SAC_ELIMIT,
                            "PNG: an ancillary chunk of %zu bytes; it may have at most %zu", length,
                            limits->png_chunk_bytes_max);
    }
    return sac_fail(err, SAC_EFORMAT, "PNG: cut short, without IEND");
}

static void on_error(png_structp lib, png_const_charp text) __attribute__((noreturn));
static void on_error(png_structp lib, png_const_charp text)
{
    struct png *png = png_get_error_ptr(lib);

    png->rc = sac_fail(png->err, SAC_EFORMAT, "PNG: %s", text);
    longjmp(png->failed, 1);
}

static void on_warning(png_structp lib, png_const_charp text)
{
    (void)lib;
    (void)text;
}

static void on_read(png_structp lib, png_bytep to, size_t count)
{
    struct png *png = png_get_io_ptr(lib);

    if (count > png->size - png->at)
        png_error(lib, "cut short");
    memcpy(to, png->bytes + png->at, count);
    png->at += count;
}

static int open_png(struct png *png)
{
    const struct sac_image_limits *limits = png->limits;

    png->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, png, on_error, on_warning);
    png->info = png->png ? png_create_info_struct(png->png) : NULL;
    if (!png->info)
        return sac_fail(png->err, SAC_ENOMEM, "PNG: out of memory");
    png_set_read_fn(png->png, png, on_read);
    /* Checked already; libpng's own limits stand behind, should the walk err. */
    png_set_user_limits(png->png, (png_uint_32)limits->side_max, (png_uint_32)limits->side_max);
    png_set_chunk_malloc_max(png->png, limits->png_chunk_bytes_max);
    png_set_chunk_cache_max(png->png, (png_uint_32)limits->png_chunks_max);
    /* −1: all but IHDR, PLTE, tRNS, IDAT and IEND. */
    png_set_keep_unknown_chunks(png->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    return 0;
}

static void expand_to_8_bits(struct png *png)
{
    png_set_palette_to_rgb(png->png);
    png_set_expand_gray_1_2_4_to_8(png->png);
    png_set_tRNS_to_alpha(png->png);
    png_set_strip_16(png->png);
    png->passes = png_set_interlace_handling(png->png);
    png_read_update_info(png->png, png->info);
    png->width = png_get_image_width(png->png, png->info);
    png->height = png_get_image_height(png->png, png->info);
    png->channels = png_get_channels(png->png, png->info);
}

/* One sample of a pixel of 1 to 4 channels, laid over the background. */
static inline uint8_t over(unsigned value, unsigned alpha, unsigned background)
{
    unsigned sum = value * alpha + background * (255 - alpha) + 128;

    return (uint8_t)((sum + (sum >> 8)) >> 8);
}

/* R, G, B of a row of `in` channels. */
static inline void row_to_rgb(const uint8_t *from, size_t width, size_t in,
                              const uint8_t background[3], uint8_t *to)
{
    size_t colours = in >= 3 ? 3 : 1;
    bool has_alpha = in == 2 || in == 4;

    for (size_t x = 0; x < width; x++, from += in, to += 3)
        for (size_t c = 0; c < 3; c++) {
            uint8_t value = from[colours == 3 ? c : 0];
            to[c] = has_alpha ? over(value, from[colours], background[c]) : value;
        }
}

static inline void row_to_grey(const uint8_t *from, size_t width, size_t in,
                               const uint8_t background[3], uint8_t *to)
{
    uint8_t grey = sac_image_luma(background);

    for (size_t x = 0; x < width; x++, from += in) {
        uint8_t value = in >= 3 ? sac_image_luma(from) : from[0];
        to[x] = in == 2 || in == 4 ? over(value, from[in - 1], grey) : value;
    }
}

/* The constants make four loops of each function, one a number of channels. */
static void convert_row(const struct png *png, const uint8_t *from, uint8_t *to)
{
    const uint8_t *background = png->options->background;
    bool grey = png->options->channels == 1;

    switch (png->channels) {
    case 1:
        grey ? row_to_grey(from, png->width, 1, background, to)
             : row_to_rgb(from, png->width, 1, background, to);
        break;
    case 2:
        grey ? row_to_grey(from, png->width, 2, background, to)
             : row_to_rgb(from, png->width, 2, background, to);
        break;
    case 3:
        grey ? row_to_grey(from, png->width, 3, background, to)
             : row_to_rgb(from, png->width, 3, background, to);
        break;
    default:
        grey ? row_to_grey(from, png->width, 4, background, to)
             : row_to_rgb(from, png->width, 4, background, to);
    }
}

static uint8_t *row_of_image(const struct png *png, size_t y)
{
    return png->decoder->pixels.data + y * png->width * (size_t)png->options->channels;
}

/* Rows arrive once and whole: those that need no conversion land where they stay. */
static int read_straight(struct png *png)
{
    bool as_is = png->channels == (size_t)png->options->channels;
    int rc = 0;

    for (size_t y = 0; rc == 0 && y < png->height; y++) {
        uint8_t *to = row_of_image(png, y);
        png_read_row(png->png, as_is ? to : png->decoder->work.data, NULL);
        if (!as_is)
            convert_row(png, png->decoder->work.data, to);
        rc = sac_image_canceled_check(png->options, png->err);
    }
    return rc;
}

/* Each pass fills in some pixels of each row, so all rows are kept to the end. */
static int read_interlaced(struct png *png)
{
    uint8_t *rows = png->decoder->work.data;
    size_t stride = png->width * png->channels;
    int rc = 0;

    for (int pass = 0; pass < png->passes; pass++)
        for (size_t y = 0; rc == 0 && y < png->height; y++) {
            png_read_row(png->png, rows + y * stride, NULL);
            rc = sac_image_canceled_check(png->options, png->err);
        }
    for (size_t y = 0; rc == 0 && y < png->height; y++)
        convert_row(png, rows + y * stride, row_of_image(png, y));
    return rc;
}

static int reserve(struct png *png)
{
    bool interlaced = png->passes > 1;
    int rc = sac_image_bytes_reserve(&png->decoder->pixels, png->height, png->width,
                                     (size_t)png->options->channels, png->err);

    if (rc == 0)
        rc = sac_image_bytes_reserve(&png->decoder->work, interlaced ? png->height : 1, png->width,
                                     png->channels, png->err);
    return rc;
}

static void hand_out(struct png *png)
{
    *png->ret_image = (struct sac_image){
        .width = (int)png->width,
        .height = (int)png->height,
        .channels = png->options->channels,
        .stride = png->width * (size_t)png->options->channels,
        .pixels = png->decoder->pixels.data,
        .full_width = (int)png->width,
        .full_height = (int)png->height,
    };
}

static int decode(struct png *png)
{
    int rc = open_png(png);

    if (rc < 0)
        return rc;
    png_read_info(png->png, png->info);
    expand_to_8_bits(png);
    rc = reserve(png);
    if (rc == 0)
        rc = png->passes > 1 ? read_interlaced(png) : read_straight(png);
    if (rc == 0) {
        png_read_end(png->png, NULL); /* checks what follows the last row */
        hand_out(png);
    }
    return rc;
}

int sac_png_decode(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                   const struct sac_image_limits *limits, const struct sac_decode_options *options,
                   struct sac_image *ret, struct sac_error *err)
{
    struct sac_image_info head;
    struct png png = {
        .bytes = bytes,
        .size = size,
        .limits = limits,
        .options = options,
        .decoder = decoder,
        .ret_image = ret,
        .err = err,
    };
    int rc = sac_png_probe(bytes, size, limits, &head, err);

    if (rc == 0)
        rc = walk_chunks(bytes, size, limits, err);
    if (rc < 0)
        return rc;
    if (setjmp(png.failed) == 0)
        png.rc = decode(&png);
    png_destroy_read_struct(&png.png, &png.info, NULL);
    return png.rc;
}
