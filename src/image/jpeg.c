/*
 * JPEG by libjpeg-turbo's libjpeg API.
 *
 * The decompress object and its memory are kept from picture to picture. Such an
 * object would keep the quantisation and Huffman tables of the last picture, too,
 * and a file without its own would be decoded with those of whoever came before:
 * they are forgotten.
 *
 * All of a file is decoded, whatever part of it is wanted, so that damage does not
 * go unseen; but pixels are made only of what is wanted, and of a margin: where a
 * part ends, libjpeg interpolates colours as if the picture did (pixels differ by
 * up to 7).
 *
 * Of libjpeg's warnings four are let pass, since the pixels are whole behind
 * them: extraneous bytes before a marker, an unknown JFIF version, an unknown
 * Adobe transform, and progressive parameters in a sequential file. All others mean that pixels
 * were guessed, and are errors: data that ends early, codes that do not exist, restart markers out
 * of order, progressive scans that do not follow from each other. Bytes behind the end marker are
 * not looked at.
 */
#include "image/decoder.h"

#include <limits.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "image/exif.h"
#include "image/jpeg_huffman.h"
#include "image/jpeg_memory.h"

/* Rows that are read, then placed, together: with 16 a rotated picture is
 * written 48 bytes at a time. */
#define STRIP_ROWS 16

enum {
    MARGIN = 8,                /* around the part that is wanted; 1 would do */
    SKIP_ROWS = 1024,          /* at once, before cancellation is looked at */
    KEPT_MEMORY_MAX = 4 << 20, /* libjpeg's, between pictures */
};

struct span {
    unsigned from, to;
};

struct sac_jpeg {
    struct jpeg_decompress_struct info;
    struct sac_jpeg_memory memory;
    struct sac_jpeg_huffman *huffman;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    int rc;
    struct sac_error *err;

    const uint8_t *bytes;
    size_t size;
    const struct sac_image_limits *limits;
    const struct sac_decode_options *options; /* NULL while probing */
    struct sac_decoder *decoder;
    int orientation;           /* 0: no EXIF seen yet */
    unsigned width, height;    /* scaled, as stored */
    struct span columns, rows; /* of them, those that are wanted */
    struct sac_image_info *ret_info;
    struct sac_image *ret_image;
};

static int code_of(int message)
{
    switch (message) {
    case JERR_OUT_OF_MEMORY:
        return SAC_ENOMEM;
    case JERR_IMAGE_TOO_BIG:
    case JERR_WIDTH_OVERFLOW:
        return SAC_ELIMIT;
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_CCIR601_NOTIMPL:
    case JERR_COMPONENT_COUNT:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_NOT_COMPILED:
    case JERR_NOTIMPL:
    case JERR_SOF_UNSUPPORTED:
        return SAC_EUNSUPPORTED;
    default:
        return SAC_EFORMAT;
    }
}

/* Leaves libjpeg, with err filled already. */
static void leave(struct sac_jpeg *jpeg, int rc) __attribute__((noreturn));
static void leave(struct sac_jpeg *jpeg, int rc)
{
    jpeg->rc = rc;
    longjmp(jpeg->failed, 1);
}

static void on_error(j_common_ptr common) __attribute__((noreturn));
static void on_error(j_common_ptr common)
{
    struct sac_jpeg *jpeg = common->client_data;
    char text[JMSG_LENGTH_MAX];

    if (jpeg->memory.refused.code)
        leave(jpeg,
              sac_fail(jpeg->err, jpeg->memory.refused.code, "%s", jpeg->memory.refused.text));
    jpeg->errors.format_message(common, text);
    leave(jpeg, sac_fail(jpeg->err, code_of(jpeg->errors.msg_code), "JPEG: %s", text));
}

static bool harmless(int message)
{
    return message == JWRN_EXTRANEOUS_DATA || message == JWRN_JFIF_MAJOR ||
           message == JWRN_ADOBE_XFORM || message == JWRN_NOT_SEQUENTIAL;
}

static void on_message(j_common_ptr common, int level)
{
    if (level < 0 && !harmless(common->err->msg_code))
        on_error(common);
}

static void on_output(j_common_ptr common)
{
    (void)common;
}

/* Called for each row of blocks while the scans of a picture are gathered. */
static void on_progress(j_common_ptr common)
{
    struct sac_jpeg *jpeg = common->client_data;

    if (jpeg->info.input_scan_number > jpeg->limits->scans_max)
        leave(jpeg,
              sac_fail(jpeg->err, SAC_ELIMIT, "JPEG: more than %d scans", jpeg->limits->scans_max));
    int rc = sac_image_canceled_check(jpeg->options, jpeg->err);
    if (rc < 0)
        leave(jpeg, rc);
}

/* All of the file is in memory, so the segment is read where it lies. */
static boolean on_app1(j_decompress_ptr info)
{
    struct sac_jpeg *jpeg = info->client_data;
    struct jpeg_source_mgr *src = info->src;
    const uint8_t *at = src->next_input_byte;
    size_t length = src->bytes_in_buffer >= 2 ? at[0] * 256u + at[1] : 0;

    if (length < 2 || length > src->bytes_in_buffer)
        leave(jpeg, sac_fail(jpeg->err, SAC_EFORMAT, "JPEG: cut short in an APP1 segment"));
    if (jpeg->orientation == 0 && sac_exif_is(at + 2, length - 2))
        jpeg->orientation = sac_exif_orientation(at + 2, length - 2);
    src->next_input_byte += length;
    src->bytes_in_buffer -= length;
    return TRUE;
}

static int create(struct sac_jpeg *jpeg)
{
    jpeg->info.err = jpeg_std_error(&jpeg->errors);
    jpeg->errors.error_exit = on_error;
    jpeg->errors.emit_message = on_message;
    jpeg->errors.output_message = on_output;
    jpeg->info.client_data = jpeg;
    jpeg_create_decompress(&jpeg->info);
    jpeg_set_marker_processor(&jpeg->info, JPEG_APP0 + 1, on_app1);
    sac_jpeg_memory_take(&jpeg->memory, &jpeg->info);
    jpeg->huffman = sac_jpeg_huffman_new();
    return jpeg->huffman ? 0 : sac_fail(jpeg->err, SAC_ENOMEM, "JPEG: out of memory");
}

/* What a picture leaves behind, and memory that is about to be used again. */
static void forget_picture(struct sac_jpeg *jpeg)
{
    struct jpeg_decompress_struct *info = &jpeg->info;

    jpeg_abort_decompress(info);
    info->src = NULL;
    info->progress = NULL;
    for (int i = 0; i < NUM_QUANT_TBLS; i++)
        info->quant_tbl_ptrs[i] = NULL;
    for (int i = 0; i < NUM_HUFF_TBLS; i++)
        info->dc_huff_tbl_ptrs[i] = info->ac_huff_tbl_ptrs[i] = NULL;
    sac_jpeg_memory_reset(&jpeg->memory, KEPT_MEMORY_MAX);
}

static int check_colours(struct sac_jpeg *jpeg)
{
    switch (jpeg->info.jpeg_color_space) {
    case JCS_GRAYSCALE:
    case JCS_RGB:
    case JCS_YCbCr:
    case JCS_CMYK:
    case JCS_YCCK:
        return 0;
    default:
        return sac_fail(jpeg->err, SAC_EUNSUPPORTED,
                        "JPEG: %d channels in an unknown colour space; expected grey, YCbCr, RGB, "
                        "CMYK or YCCK",
                        jpeg->info.num_components);
    }
}

/* Such a file's coefficients are all held in memory, and passed over once a scan. */
static int check_scans(struct sac_jpeg *jpeg)
{
    uint64_t pixels = (uint64_t)jpeg->info.image_width * jpeg->info.image_height;

    if (jpeg_has_multiple_scans(&jpeg->info) && pixels > jpeg->limits->progressive_pixels_max)
        return sac_fail(jpeg->err, SAC_ELIMIT,
                        "JPEG: %u × %u, a progressive picture may have at most %llu pixels",
                        jpeg->info.image_width, jpeg->info.image_height,
                        (unsigned long long)jpeg->limits->progressive_pixels_max);
    return 0;
}

static int read_head(struct sac_jpeg *jpeg)
{
    jpeg_mem_src(&jpeg->info, jpeg->bytes, jpeg->size);
    jpeg_read_header(&jpeg->info, TRUE);
    if (jpeg->orientation == 0)
        jpeg->orientation = 1;
    int rc = sac_image_size_check(jpeg->limits, "JPEG", jpeg->info.image_width,
                                  jpeg->info.image_height, jpeg->err);
    if (rc == 0)
        rc = check_colours(jpeg);
    if (rc == 0)
        rc = check_scans(jpeg);
    return rc;
}

static bool transposed(const struct sac_jpeg *jpeg)
{
    return jpeg->orientation >= 5;
}

static int probe(struct sac_jpeg *jpeg)
{
    int rc = read_head(jpeg);

    if (rc == 0) {
        int width = (int)jpeg->info.image_width, height = (int)jpeg->info.image_height;
        *jpeg->ret_info = (struct sac_image_info){
            .kind = SAC_IMAGE_JPEG,
            .width = transposed(jpeg) ? height : width,
            .height = transposed(jpeg) ? width : height,
            .channels = jpeg->info.num_components,
            .orientation = jpeg->orientation,
        };
    }
    return rc;
}

/* The largest of 8, 4, 2 and 1 by which both sides, divided and rounded up as
 * libjpeg does, still cover what was asked for. */
static unsigned choose_shrink(const struct sac_jpeg *jpeg)
{
    int64_t cover_width = jpeg->options->cover_width, cover_height = jpeg->options->cover_height;
    int64_t width = jpeg->info.image_width, height = jpeg->info.image_height;
    int64_t shown_width = transposed(jpeg) ? height : width;
    int64_t shown_height = transposed(jpeg) ? width : height;

    if (cover_width <= 0 || cover_height <= 0)
        return 1;
    for (int shrink = 8; shrink > 1; shrink /= 2)
        if ((shown_width + shrink - 1) / shrink >= cover_width &&
            (shown_height + shrink - 1) / shrink >= cover_height)
            return (unsigned)shrink;
    return 1;
}

static bool four_inks(const struct sac_jpeg *jpeg)
{
    return jpeg->info.jpeg_color_space == JCS_CMYK || jpeg->info.jpeg_color_space == JCS_YCCK;
}

static void choose_output(struct sac_jpeg *jpeg)
{
    jpeg->info.scale_num = 1;
    jpeg->info.scale_denom = choose_shrink(jpeg);
    jpeg->info.dct_method = JDCT_ISLOW; /* OpenCV's and Caffe's: pixels agree to the bit */
    if (four_inks(jpeg))
        jpeg->info.out_color_space = JCS_CMYK;
    else
        jpeg->info.out_color_space = jpeg->options->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg->progress.progress_monitor = on_progress;
    jpeg->info.progress = &jpeg->progress;
}

/* C, M, Y, K of a row to R, G, B or grey, in place. Adobe's files store the
 * paper's white as 255, the standard as 0; both then are ink over ink, R = C · K. */
static void inks_to_pixels(const struct sac_jpeg *jpeg, uint8_t *row, size_t width)
{
    uint8_t flip = jpeg->info.saw_Adobe_marker ? 0 : 255;
    int channels = jpeg->options->channels;

    for (size_t x = 0; x < width; x++) {
        const uint8_t *ink = row + 4 * x;
        uint8_t black = ink[3] ^ flip, rgb[3];
        for (int c = 0; c < 3; c++)
            rgb[c] = sac_image_mul_255(ink[c] ^ flip, black);
        if (channels == 3)
            memcpy(row + 3 * x, rgb, 3);
        else
            row[x] = sac_image_luma(rgb);
    }
}

static struct span mirrored(struct span span, unsigned length)
{
    return (struct span){length - span.to, length - span.from};
}

static struct span with_margin(struct span span, unsigned length)
{
    return (struct span){span.from > MARGIN ? span.from - MARGIN : 0,
                         length - span.to > MARGIN ? span.to + MARGIN : length};
}

static struct span shown_span(int full, int at, int count, unsigned length)
{
    int from, to;

    sac_resize_span(full, at, count, (int)length, &from, &to);
    return (struct span){(unsigned)from, (unsigned)to};
}

/* The part of the stored picture that the window is made of. */
static void choose_part(struct sac_jpeg *jpeg)
{
    const struct sac_resize_window *window = jpeg->options->window;
    bool turn = transposed(jpeg);
    int o = jpeg->orientation;

    jpeg->width = jpeg->info.output_width;
    jpeg->height = jpeg->info.output_height;
    jpeg->columns = (struct span){0, jpeg->width};
    jpeg->rows = (struct span){0, jpeg->height};
    if (!window)
        return;
    struct span x =
        shown_span(window->full_width, window->x, window->width, turn ? jpeg->height : jpeg->width);
    struct span y = shown_span(window->full_height, window->y, window->height,
                               turn ? jpeg->width : jpeg->height);
    jpeg->columns = turn ? y : x;
    jpeg->rows = turn ? x : y;
    if (o == 2 || o == 3 || o == 7 || o == 8)
        jpeg->columns = mirrored(jpeg->columns, jpeg->width);
    if (o == 3 || o == 4 || o == 6 || o == 7)
        jpeg->rows = mirrored(jpeg->rows, jpeg->height);
    jpeg->columns = with_margin(jpeg->columns, jpeg->width);
    jpeg->rows = with_margin(jpeg->rows, jpeg->height);
}

/* libjpeg begins where a row of its blocks does: at or before what is wanted. */
static void crop_columns(struct sac_jpeg *jpeg)
{
    JDIMENSION from = jpeg->columns.from, width = jpeg->columns.to - jpeg->columns.from;

    if (width == jpeg->width)
        return;
    jpeg_crop_scanline(&jpeg->info, &from, &width);
    jpeg->columns = (struct span){from, from + width};
}

/* Where a stored pixel (x, y) is shown: origin + x · dx + y · dy. */
struct placement {
    uint8_t *origin;
    ptrdiff_t dx, dy;
};

static struct placement place(const struct sac_jpeg *jpeg, uint8_t *pixels)
{
    ptrdiff_t channels = jpeg->options->channels;
    ptrdiff_t width = jpeg->width, height = jpeg->height;
    ptrdiff_t stride = channels * (transposed(jpeg) ? height : width);
    ptrdiff_t right = stride - channels;
    ptrdiff_t down = ((transposed(jpeg) ? width : height) - 1) * stride;

    switch (jpeg->orientation) {
    case 2: /* mirrored */
        return (struct placement){pixels + right, -channels, stride};
    case 3: /* upside down */
        return (struct placement){pixels + right + down, -channels, -stride};
    case 4: /* upside down and mirrored */
        return (struct placement){pixels + down, channels, -stride};
    case 5: /* transposed */
        return (struct placement){pixels, stride, channels};
    case 6: /* to be turned right */
        return (struct placement){pixels + right, stride, -channels};
    case 7: /* transposed and upside down */
        return (struct placement){pixels + right + down, -stride, -channels};
    case 8: /* to be turned left */
        return (struct placement){pixels + down, -stride, channels};
    default:
        return (struct placement){pixels, channels, stride};
    }
}

/* Columns first, so that a transposed strip is written in runs. */
static inline void put_columns(struct placement to, const uint8_t *rows, size_t stride,
                               size_t width, size_t count, size_t channels)
{
    for (size_t x = 0; x < width; x++) {
        uint8_t *at = to.origin + (ptrdiff_t)x * to.dx;
        const uint8_t *from = rows + x * channels;
        for (size_t y = 0; y < count; y++, at += to.dy, from += stride)
            for (size_t c = 0; c < channels; c++)
                at[c] = from[c];
    }
}

static inline void put_rows(struct placement to, const uint8_t *rows, size_t stride, size_t width,
                            size_t count, size_t channels)
{
    for (size_t y = 0; y < count; y++) {
        uint8_t *at = to.origin + (ptrdiff_t)y * to.dy;
        const uint8_t *from = rows + y * stride;
        for (size_t x = 0; x < width; x++, at += to.dx, from += channels)
            for (size_t c = 0; c < channels; c++)
                at[c] = from[c];
    }
}

static void put_strip(const struct sac_jpeg *jpeg, struct placement to, const uint8_t *rows,
                      size_t stride, size_t count)
{
    size_t width = jpeg->info.output_width;
    bool grey = jpeg->options->channels == 1;

    if (transposed(jpeg))
        grey ? put_columns(to, rows, stride, width, count, 1)
             : put_columns(to, rows, stride, width, count, 3);
    else
        grey ? put_rows(to, rows, stride, width, count, 1)
             : put_rows(to, rows, stride, width, count, 3);
}

/* Reads up to STRIP_ROWS of the wanted rows, `step` bytes apart from `first` on. */
static unsigned read_strip(struct sac_jpeg *jpeg, uint8_t *first, ptrdiff_t step)
{
    unsigned left = jpeg->rows.to - jpeg->info.output_scanline;
    unsigned count = left < STRIP_ROWS ? left : STRIP_ROWS, have = 0;
    JSAMPROW rows[STRIP_ROWS];

    for (unsigned i = 0; i < count; i++)
        rows[i] = first + (ptrdiff_t)i * step;
    while (have < count)
        have += jpeg_read_scanlines(&jpeg->info, rows + have, count - have);
    return have;
}

/* One strip, by way of the work buffer unless its rows can land where they are shown. */
static void move_strip(struct sac_jpeg *jpeg, struct placement to)
{
    size_t components = (size_t)jpeg->info.output_components;
    size_t stride = jpeg->info.output_width * components;
    uint8_t *work = jpeg->decoder->work.data;

    to.origin += (ptrdiff_t)jpeg->info.output_scanline * to.dy;
    if (!four_inks(jpeg) && (jpeg->orientation == 1 || jpeg->orientation == 4)) {
        read_strip(jpeg, to.origin, to.dy);
        return;
    }
    unsigned count = read_strip(jpeg, work, (ptrdiff_t)stride);
    if (four_inks(jpeg))
        for (unsigned y = 0; y < count; y++)
            inks_to_pixels(jpeg, work + y * stride, jpeg->info.output_width);
    put_strip(jpeg, to, work, stride, count);
}

/* Up to row `to`, decoding without making pixels. */
static int skip_rows(struct sac_jpeg *jpeg, unsigned to)
{
    int rc = 0;

    while (rc == 0 && jpeg->info.output_scanline < to) {
        unsigned count = to - jpeg->info.output_scanline;
        rc = sac_image_canceled_check(jpeg->options, jpeg->err);
        if (rc == 0)
            jpeg_skip_scanlines(&jpeg->info, count < SKIP_ROWS ? count : SKIP_ROWS);
    }
    return rc;
}

/* What is behind the part. The last row is read: libjpeg does not decode what is
 * skipped to the very end. */
static int skip_rest(struct sac_jpeg *jpeg)
{
    JSAMPROW row = jpeg->decoder->work.data;
    int rc = skip_rows(jpeg, jpeg->height - 1);

    while (rc == 0 && jpeg->info.output_scanline < jpeg->height)
        jpeg_read_scanlines(&jpeg->info, &row, 1);
    return rc;
}

static int read_pixels(struct sac_jpeg *jpeg)
{
    struct placement to = place(jpeg, jpeg->decoder->pixels.data);
    int rc = skip_rows(jpeg, jpeg->rows.from);

    to.origin += (ptrdiff_t)jpeg->columns.from * to.dx;
    while (rc == 0 && jpeg->info.output_scanline < jpeg->rows.to) {
        rc = sac_image_canceled_check(jpeg->options, jpeg->err);
        if (rc == 0)
            move_strip(jpeg, to);
    }
    if (rc == 0)
        rc = skip_rest(jpeg);
    if (rc == 0)
        jpeg_finish_decompress(&jpeg->info); /* the end marker must be there */
    return rc;
}

static void hand_out(struct sac_jpeg *jpeg)
{
    const struct jpeg_decompress_struct *info = &jpeg->info;
    bool turn = transposed(jpeg);
    int width = (int)(turn ? jpeg->height : jpeg->width);

    *jpeg->ret_image = (struct sac_image){
        .width = width,
        .height = (int)(turn ? jpeg->width : jpeg->height),
        .channels = jpeg->options->channels,
        .stride = (size_t)width * (size_t)jpeg->options->channels,
        .pixels = jpeg->decoder->pixels.data,
        .full_width = (int)(turn ? info->image_height : info->image_width),
        .full_height = (int)(turn ? info->image_width : info->image_height),
    };
}

static int decode(struct sac_jpeg *jpeg)
{
    struct sac_decoder *decoder = jpeg->decoder;
    int rc = read_head(jpeg);

    if (rc < 0)
        return rc;
    choose_output(jpeg);
    jpeg_calc_output_dimensions(&jpeg->info);
    choose_part(jpeg);
    rc = sac_image_bytes_reserve(&decoder->pixels, jpeg->height, jpeg->width,
                                 (size_t)jpeg->options->channels, jpeg->err);
    if (rc == 0)
        rc = sac_image_bytes_reserve(&decoder->work, STRIP_ROWS, jpeg->width, 4, jpeg->err);
    if (rc == 0) {
        jpeg_start_decompress(&jpeg->info);
        sac_jpeg_huffman_take(jpeg->huffman, &jpeg->info);
        crop_columns(jpeg);
        rc = read_pixels(jpeg);
    }
    if (rc == 0)
        hand_out(jpeg);
    return rc;
}

void sac_jpeg_free(struct sac_jpeg *jpeg)
{
    if (!jpeg)
        return;
    sac_jpeg_huffman_free(jpeg->huffman);
    jpeg_destroy_decompress(&jpeg->info); /* harmless before it was made: all zero */
    free(jpeg);
}

/* Runs `work`, which libjpeg may leave by longjmp, and clears up behind it. */
static int guard(struct sac_jpeg *jpeg, int (*work)(struct sac_jpeg *))
{
    jpeg->rc = 0;
    if (setjmp(jpeg->failed) == 0)
        jpeg->rc = work(jpeg);
    return jpeg->rc;
}

/* The decoder's own, made now if it has none. */
static int own_jpeg(struct sac_decoder *decoder, struct sac_jpeg **ret, struct sac_error *err)
{
    struct sac_jpeg *jpeg = decoder->jpeg;

    if (!jpeg) {
        jpeg = calloc(1, sizeof *jpeg);
        if (!jpeg)
            return sac_fail(err, SAC_ENOMEM, "JPEG: out of memory");
        jpeg->err = err;
        int rc = guard(jpeg, create);
        if (rc < 0) {
            sac_jpeg_free(jpeg);
            return rc;
        }
        decoder->jpeg = jpeg;
    }
    *ret = jpeg;
    return 0;
}

/* Begins with a file; what the last one left is gone. */
static int take_file(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                     const struct sac_image_limits *limits, struct sac_jpeg **ret,
                     struct sac_error *err)
{
    int rc = own_jpeg(decoder, ret, err);

    if (rc < 0)
        return rc;
    struct sac_jpeg *jpeg = *ret;
    jpeg->bytes = bytes;
    jpeg->size = size;
    jpeg->limits = limits;
    jpeg->options = NULL;
    jpeg->decoder = decoder;
    jpeg->orientation = 0;
    jpeg->err = err;
    return 0;
}

int sac_jpeg_probe(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                   const struct sac_image_limits *limits, struct sac_image_info *ret,
                   struct sac_error *err)
{
    struct sac_jpeg *jpeg = NULL;
    int rc = take_file(decoder, bytes, size, limits, &jpeg, err);

    if (rc < 0)
        return rc;
    jpeg->ret_info = ret;
    rc = guard(jpeg, probe);
    forget_picture(jpeg);
    return rc;
}

int sac_jpeg_decode(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                    const struct sac_image_limits *limits, const struct sac_decode_options *options,
                    struct sac_image *ret, struct sac_error *err)
{
    struct sac_jpeg *jpeg = NULL;
    int rc = take_file(decoder, bytes, size, limits, &jpeg, err);

    if (rc < 0)
        return rc;
    jpeg->options = options;
    jpeg->ret_image = ret;
    rc = guard(jpeg, decode);
    forget_picture(jpeg);
    return rc;
}
