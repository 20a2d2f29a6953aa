#include "pictures.h"

#include <dirent.h>
#include <malloc.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jerror.h>
#include <png.h>

#include "base/file.h"

struct bytes picture_read_path(const char *path)
{
    struct sac_error err = {0};
    struct bytes file;

    assert_ok(sac_file_read(path, 64u << 20, &file.data, &file.size, &err), err);
    return file;
}

struct bytes picture_read(const char *name)
{
    char path[256];

    snprintf(path, sizeof path, "images/%s", name);
    return picture_read_path(sac_test_data(path));
}

/* malloc'ed to the byte, so that a sanitizer sees a read past the end. */
struct bytes picture_copy(const uint8_t *data, size_t size)
{
    struct bytes copy = {malloc(size ? size : 1), size};

    assert_non_null(copy.data);
    if (size)
        memcpy(copy.data, data, size);
    return copy;
}

struct bytes picture_insert(struct bytes whole, size_t at, const void *piece, size_t size)
{
    struct bytes out = {malloc(whole.size + size), whole.size + size};

    assert_non_null(out.data);
    memcpy(out.data, whole.data, at);
    memcpy(out.data + at, piece, size);
    memcpy(out.data + at + size, whole.data + at, whole.size - at);
    return out;
}

int picture_each(const char *folder, void (*visit)(const char *path, void *context), void *context)
{
    char path[512];
    snprintf(path, sizeof path, "images/%s", folder);
    const char *whole = sac_test_data(path);
    DIR *dir = opendir(whole);
    int count = 0;

    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", whole, entry->d_name);
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            visit(path, context);
            count++;
        }
    }
    closedir(dir);
    return count;
}

uint32_t picture_hash(const uint8_t *pixels, size_t size)
{
    uint32_t hash = 0x811c9dc5;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ pixels[i]) * 0x01000193;
    return hash;
}

uint32_t picture_crc(const uint8_t *bytes, size_t size)
{
    uint32_t crc = ~0u;

    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xedb88320u & -(crc & 1));
    }
    return ~crc;
}

static void choose_sampling(struct jpeg_compress_struct *info, const struct jpeg_recipe *recipe)
{
    for (int c = 0; c < info->num_components; c++)
        info->comp_info[c].h_samp_factor = info->comp_info[c].v_samp_factor = 1;
    if (recipe->subsample)
        info->comp_info[0].h_samp_factor = info->comp_info[0].v_samp_factor = 2;
    if (recipe->h && recipe->v) {
        info->comp_info[0].h_samp_factor = recipe->h;
        info->comp_info[0].v_samp_factor = recipe->v;
    }
}

uint8_t *make_noise(int width, int height, int components)
{
    size_t size = (size_t)width * (size_t)height * (size_t)components;
    uint8_t *pixels = malloc(size);
    uint32_t random = 1;

    assert_non_null(pixels);
    for (size_t i = 0; i < size; i++) {
        random = random * 1664525 + 1013904223; /* Numerical Recipes' generator */
        pixels[i] = (uint8_t)(random >> 24);
    }
    return pixels;
}

struct bytes make_jpeg(const struct jpeg_recipe *recipe, const uint8_t *pixels)
{
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long size = 0;

    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &data, &size);
    info.image_width = (unsigned)recipe->width;
    info.image_height = (unsigned)recipe->height;
    info.input_components = recipe->components;
    info.in_color_space = recipe->in;
    jpeg_set_defaults(&info);
    jpeg_set_colorspace(&info, recipe->stored);
    jpeg_set_quality(&info, recipe->quality ? recipe->quality : 90, TRUE);
    choose_sampling(&info, recipe);
    info.restart_interval = recipe->restart_mcus;
    info.optimize_coding = recipe->optimize;
    if (recipe->no_adobe)
        info.write_Adobe_marker = FALSE;
    if (recipe->progressive)
        jpeg_simple_progression(&info);
    if (recipe->scans) {
        info.scan_info = recipe->scans;
        info.num_scans = recipe->scan_count;
    }
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        size_t stride = (size_t)recipe->width * (size_t)recipe->components;
        JSAMPROW row = (JSAMPROW)(pixels + info.next_scanline * stride);
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    return (struct bytes){data, size};
}

uint8_t *make_pixels(int width, int height, int components)
{
    uint8_t *pixels = malloc((size_t)width * (size_t)height * (size_t)components), *at = pixels;

    assert_non_null(pixels);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < components; c++)
                *at++ = (uint8_t)(20 + 130 * x / width + 80 * y / height + 20 * c * x / width);
    return pixels;
}

struct bytes make_rgb_jpeg(int width, int height, bool progressive)
{
    uint8_t *pixels = make_pixels(width, height, 3);
    struct bytes file = make_jpeg(&(struct jpeg_recipe){.width = width,
                                                        .height = height,
                                                        .components = 3,
                                                        .in = JCS_RGB,
                                                        .stored = JCS_YCbCr,
                                                        .subsample = true,
                                                        .progressive = progressive},
                                  pixels);

    free(pixels);
    return file;
}

struct library {
    struct jpeg_error_mgr errors;
    jmp_buf failed;
};

static void give_up(j_common_ptr info)
{
    longjmp(((struct library *)info->err)->failed, 1);
}

static void give_up_at_damage(j_common_ptr info, int level)
{
    int message = info->err->msg_code;

    if (level < 0 && message != JWRN_EXTRANEOUS_DATA && message != JWRN_JFIF_MAJOR &&
        message != JWRN_ADOBE_XFORM && message != JWRN_NOT_SEQUENTIAL)
        give_up(info);
}

static void read_all(j_decompress_ptr info, uint8_t *pixels)
{
    jpeg_start_decompress(info);
    size_t stride = (size_t)info->output_width * (size_t)info->output_components;
    while (info->output_scanline < info->output_height) {
        JSAMPROW row = pixels + info->output_scanline * stride;
        jpeg_read_scanlines(info, &row, 1);
    }
    jpeg_finish_decompress(info);
}

uint8_t *library_decode(struct bytes file, int channels, unsigned denominator, int *ret_width,
                        int *ret_height)
{
    struct jpeg_decompress_struct info = {0};
    struct library library;
    uint8_t *volatile pixels = NULL;

    info.err = jpeg_std_error(&library.errors);
    library.errors.error_exit = give_up;
    library.errors.emit_message = give_up_at_damage;
    if (setjmp(library.failed) == 0) {
        uint8_t *read = NULL;
        jpeg_create_decompress(&info);
        jpeg_mem_src(&info, file.data, file.size);
        jpeg_read_header(&info, TRUE);
        info.scale_denom = denominator;
        info.out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
        jpeg_calc_output_dimensions(&info);
        *ret_width = (int)info.output_width;
        *ret_height = (int)info.output_height;
        read = malloc((size_t)info.output_width * info.output_height * (size_t)channels);
        pixels = read;
        read_all(&info, read);
    } else {
        free(pixels);
        pixels = NULL;
    }
    jpeg_destroy_decompress(&info);
    return pixels;
}

size_t find_marker(struct bytes jpeg, int code)
{
    for (size_t i = 0; i + 1 < jpeg.size; i++)
        if (jpeg.data[i] == 0xff && jpeg.data[i + 1] == code)
            return i;
    fail_msg("no marker %02x", (unsigned)code);
    return 0;
}

static void append(png_structp png, png_bytep data, size_t size)
{
    struct bytes *to = png_get_io_ptr(png);

    to->data = realloc(to->data, to->size + size);
    assert_non_null(to->data);
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void flush(png_structp png)
{
    (void)png;
}

struct bytes make_grey_png(int width, int height, bool interlaced)
{
    struct bytes file = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    uint8_t *pixels = make_pixels(width, height, 1);
    png_bytep *rows = calloc((size_t)height, sizeof *rows);

    for (int y = 0; y < height; y++)
        rows[y] = pixels + y * width;
    png_set_write_fn(png, &file, append, flush);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_GRAY,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, 0, 0);
    png_set_rows(png, info, rows);
    png_write_png(png, info, 0, NULL);
    png_destroy_write_struct(&png, &info);
    free(rows);
    free(pixels);
    return file;
}

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (24 - 8 * i));
}

void put_chunk(struct bytes *png, const char *type, const void *data, size_t size)
{
    png->data = realloc(png->data, png->size + size + 12);
    assert_non_null(png->data);
    uint8_t *at = png->data + png->size;
    put32(at, (uint32_t)size);
    memcpy(at + 4, type, 4);
    if (size)
        memcpy(at + 8, data, size);
    put32(at + 8 + size, picture_crc(at + 4, size + 4));
    png->size += size + 12;
}

struct bytes make_png_head(uint32_t width, uint32_t height, int depth, int colour)
{
    struct bytes png = picture_copy((const uint8_t *)"\x89PNG\r\n\x1a\n", 8);
    uint8_t head[13] = {0};

    put32(head, width);
    put32(head + 4, height);
    head[8] = (uint8_t)depth;
    head[9] = (uint8_t)colour;
    put_chunk(&png, "IHDR", head, sizeof head);
    return png;
}

void picture_decode(struct sac_decoder *decoder, struct bytes file,
                    const struct sac_decode_options *options, struct sac_image *ret)
{
    struct sac_error err = {0};

    assert_ok(sac_image_decode(decoder, file.data, file.size, options, ret, &err), err);
}

int picture_code(struct bytes file, struct sac_error *err)
{
    struct sac_decode_options options = {.channels = 3};
    struct sac_decoder *decoder;
    struct sac_image image;

    assert_ok(sac_decoder_new(&decoder, err), *err);
    int rc = sac_image_decode(decoder, file.data, file.size, &options, &image, err);
    sac_decoder_free(decoder);
    return rc;
}

/* Large blocks go back to the system when they are freed, from the first on:
 * otherwise what a test once used would be at the disposal of the child. */
__attribute__((constructor)) static void return_freed_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
}

static void bound_memory(size_t memory)
{
    malloc_trim(0);
    FILE *statm = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    if (!statm || fscanf(statm, "%lu", &pages) != 1)
        _exit(99);
    fclose(statm);
    rlim_t most = pages * (rlim_t)sysconf(_SC_PAGESIZE) + memory;
    if (setrlimit(RLIMIT_AS, &(struct rlimit){most, most}) != 0)
        _exit(99);
}

int picture_code_within(struct bytes file, size_t memory)
{
    struct sac_error err = {0};
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        if (!SANITIZED)
            bound_memory(memory);
        _exit(-picture_code(file, &err));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return -WEXITSTATUS(status);
}
