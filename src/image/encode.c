#include "image/encode.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

enum { CHUNK_BYTES = 32 * 1024, JPEG_SIDE_MAX = 65500 };

/* ---- JPEG ------------------------------------------------------------------ */

struct jpeg {
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_destination_mgr destination;
    struct sac_buf *out;
    jmp_buf failed;
    int rc;
    char text[JMSG_LENGTH_MAX];
};

static void on_error(j_common_ptr info)
{
    struct jpeg *jpeg = (struct jpeg *)info;

    info->err->format_message(info, jpeg->text);
    longjmp(jpeg->failed, 1);
}

static void on_message(j_common_ptr info)
{
    (void)info; /* warnings are for readers */
}

/* libjpeg writes straight behind what `out` holds. */
static void make_room(j_compress_ptr info)
{
    struct jpeg *jpeg = (struct jpeg *)info;

    if (!sac_buf_reserve(jpeg->out, CHUNK_BYTES)) {
        snprintf(jpeg->text, sizeof jpeg->text, "out of memory");
        longjmp(jpeg->failed, 1);
    }
    jpeg->destination.next_output_byte = jpeg->out->data + jpeg->out->len;
    jpeg->destination.free_in_buffer = jpeg->out->cap - jpeg->out->len;
}

/* All of the room was used, whatever the library says is left. */
static boolean on_full(j_compress_ptr info)
{
    struct jpeg *jpeg = (struct jpeg *)info;

    jpeg->out->len = jpeg->out->cap;
    make_room(info);
    return TRUE;
}

static void on_end(j_compress_ptr info)
{
    struct jpeg *jpeg = (struct jpeg *)info;

    jpeg->out->len = jpeg->out->cap - jpeg->destination.free_in_buffer;
}

static void write_jpeg(struct jpeg *jpeg, const struct sac_image *image, int quality)
{
    struct jpeg_compress_struct *info = &jpeg->info;

    info->image_width = (JDIMENSION)image->width;
    info->image_height = (JDIMENSION)image->height;
    info->input_components = image->channels;
    info->in_color_space = image->channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
    jpeg_set_defaults(info);
    jpeg_set_quality(info, quality, TRUE);
    jpeg_start_compress(info, TRUE);
    while (info->next_scanline < info->image_height) {
        JSAMPROW row = (JSAMPROW)(image->pixels + info->next_scanline * image->stride);
        jpeg_write_scanlines(info, &row, 1);
    }
    jpeg_finish_compress(info);
}

static int encode_jpeg(const struct sac_image *image, int quality, struct sac_buf *out,
                       struct sac_error *err)
{
    struct jpeg jpeg = {.out = out};

    jpeg.info.err = jpeg_std_error(&jpeg.errors);
    jpeg.errors.error_exit = on_error;
    jpeg.errors.output_message = on_message;
    if (setjmp(jpeg.failed) == 0) {
        jpeg_create_compress(&jpeg.info);
        jpeg.destination = (struct jpeg_destination_mgr){.init_destination = make_room,
                                                         .empty_output_buffer = on_full,
                                                         .term_destination = on_end};
        jpeg.info.dest = &jpeg.destination;
        write_jpeg(&jpeg, image, quality);
    } else {
        jpeg.rc = sac_fail(err, SAC_ENOMEM, "JPEG: a picture of %d × %d cannot be written: %s",
                           image->width, image->height, jpeg.text);
    }
    jpeg_destroy_compress(&jpeg.info);
    return jpeg.rc;
}

/* ---- PNG ------------------------------------------------------------------- */

struct png {
    png_structp png;
    png_infop info;
    struct sac_buf *out;
    jmp_buf failed;
    int rc;
};

static void on_png_error(png_structp png, png_const_charp text)
{
    struct png *self = png_get_error_ptr(png);

    (void)text; /* all that can fail here is memory */
    longjmp(self->failed, 1);
}

static void on_png_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void put_bytes(png_structp png, png_bytep bytes, size_t size)
{
    struct png *self = png_get_io_ptr(png);

    sac_buf_put(self->out, bytes, size);
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

/* One filter, as OpenCV: rows of photographs gain little by trying all. */
static void write_png(struct png *self, const struct sac_image *image, int level)
{
    png_set_write_fn(self->png, self, put_bytes, flush_bytes);
    png_set_compression_level(self->png, level);
    png_set_filter(self->png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
    png_set_IHDR(self->png, self->info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 image->channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(self->png, self->info);
    for (int y = 0; y < image->height; y++)
        png_write_row(self->png, image->pixels + (size_t)y * image->stride);
    png_write_end(self->png, NULL);
}

static int encode_png(const struct sac_image *image, int level, struct sac_buf *out,
                      struct sac_error *err)
{
    struct png self = {.out = out};

    if (setjmp(self.failed) == 0) {
        self.png =
            png_create_write_struct(PNG_LIBPNG_VER_STRING, &self, on_png_error, on_png_warning);
        self.info = self.png ? png_create_info_struct(self.png) : NULL;
        if (self.info)
            write_png(&self, image, level);
        else
            self.rc = SAC_ENOMEM;
    } else {
        self.rc = SAC_ENOMEM;
    }
    png_destroy_write_struct(&self.png, &self.info);
    if (self.rc < 0)
        sac_fail(err, self.rc, "PNG: a picture of %d × %d cannot be written: out of memory",
                 image->width, image->height);
    return self.rc;
}

/* ---- both ------------------------------------------------------------------ */

static int check(const struct sac_image *image, const struct sac_encode_options *options,
                 struct sac_error *err)
{
    if (image->width < 1 || image->height < 1 || image->width > JPEG_SIDE_MAX ||
        image->height > JPEG_SIDE_MAX || (image->channels != 1 && image->channels != 3))
        return sac_fail(err, SAC_EINVAL,
                        "picture: %d × %d × %d cannot be written; sides are 1 to %d, channels 1 "
                        "or 3",
                        image->width, image->height, image->channels, JPEG_SIDE_MAX);
    if (options->quality < 0 || options->quality > 100 || options->level < 0 || options->level > 9)
        return sac_fail(err, SAC_EINVAL,
                        "picture: quality %d, level %d; expected 1 to 100 and 1 to 9",
                        options->quality, options->level);
    return 0;
}

int sac_image_encode(const struct sac_image *image, const struct sac_encode_options *options,
                     struct sac_buf *out, struct sac_error *err)
{
    size_t before = out->len;
    int rc = check(image, options, err);

    if (rc < 0)
        return rc;
    rc = options->kind == SAC_IMAGE_JPEG
             ? encode_jpeg(image, options->quality ? options->quality : 90, out, err)
             : encode_png(image, options->level ? options->level : 3, out, err);
    if (rc == 0 && out->failed)
        rc = sac_fail(err, SAC_ENOMEM, "picture: out of memory for its file");
    if (rc < 0)
        out->len = before;
    return rc;
}
