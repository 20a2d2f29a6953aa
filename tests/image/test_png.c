#include "pictures.h"

#include <math.h>

#include <png.h>

static struct sac_decoder *decoder;

static int make_decoder(void **state)
{
    (void)state;
    return sac_decoder_new(&decoder, NULL);
}

static int free_decoder(void **state)
{
    (void)state;
    sac_decoder_free(decoder);
    return 0;
}

/* A PNG as libpng itself expands it, in the file's depth: grey or R, G, B, and
 * alpha; `most` is the largest value of a sample. */
struct reference {
    int width, height, channels;
    double most;
    uint16_t *samples;
};

static struct reference read_reference(const char *path)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    FILE *file = fopen(path, "rb");

    assert_non_null(file);
    png_init_io(png, file);
    png_read_png(png, info, PNG_TRANSFORM_EXPAND, NULL);
    struct reference out = {.width = (int)png_get_image_width(png, info),
                            .height = (int)png_get_image_height(png, info),
                            .channels = png_get_channels(png, info)};
    int bytes = png_get_bit_depth(png, info) / 8;
    size_t row = (size_t)(out.width * out.channels);
    out.most = bytes == 2 ? 65535 : 255;
    out.samples = calloc(row * (size_t)out.height, sizeof *out.samples);
    png_bytepp rows = png_get_rows(png, info);
    for (size_t y = 0; y < (size_t)out.height; y++)
        for (size_t i = 0; i < row; i++) {
            const uint8_t *at = rows[y] + i * (size_t)bytes;
            out.samples[y * row + i] = (uint16_t)(bytes == 2 ? at[0] * 256 + at[1] : at[0]);
        }
    png_destroy_read_struct(&png, &info, NULL);
    fclose(file);
    return out;
}

/* Porter and Duff's "over" of pixel `i`, channel c of R, G, B, in 0 … 255. */
static double composed(const struct reference *r, size_t i, int c, const uint8_t background[3])
{
    const uint16_t *at = r->samples + i * (size_t)r->channels;
    bool alpha = r->channels % 2 == 0;
    double value = at[r->channels >= 3 ? c : 0] / r->most;
    double cover = alpha ? at[r->channels - 1] / r->most : 1;

    return 255 * value * cover + background[c] * (1 - cover);
}

/* 8 bits must be rounded right. Of 16, the low byte is dropped, from the colour
 * and from alpha: at most one step each. */
static void assert_composed(const char *path, const char *reference_path,
                            const uint8_t background[3])
{
    struct sac_decode_options options = {.channels = 3};
    struct reference expected = read_reference(reference_path);
    struct bytes file = picture_read_path(path);
    struct sac_image image;
    double tolerance = expected.most > 255 ? 2 : 0.5 + 1e-9;

    memcpy(options.background, background, 3);
    picture_decode(decoder, file, &options, &image);
    assert_int_equal(image.width, expected.width);
    assert_int_equal(image.height, expected.height);
    for (size_t i = 0; i < (size_t)(image.width * image.height); i++)
        for (int c = 0; c < 3; c++) {
            double want = composed(&expected, i, c, background);
            if (fabs(image.pixels[3 * i + (size_t)c] - want) > tolerance)
                fail_msg("%s: pixel %zu, channel %d is %d instead of %.3f", path, i, c,
                         image.pixels[3 * i + (size_t)c], want);
        }
    free(expected.samples);
    free(file.data);
}

static void over_three_backgrounds(const char *path, const char *reference_path)
{
    assert_composed(path, reference_path, (const uint8_t[]){0, 0, 0});
    assert_composed(path, reference_path, (const uint8_t[]){255, 255, 255});
    assert_composed(path, reference_path, (const uint8_t[]){10, 200, 77});
}

static void check_composition(const char *path, void *context)
{
    (void)context;
    over_three_backgrounds(path, path);
}

static void all_of_pngsuite_is_composed_over_the_background(void **state)
{
    (void)state;
    assert_int_equal(picture_each("png/primary", check_composition, NULL), 77);
    assert_int_equal(picture_each("png/16bit", check_composition, NULL), 23);
    assert_int_equal(picture_each("png/unused", check_composition, NULL), 60);
}

/* primary_check holds each file of primary as another decoder's (stb's) R, G, B, A. */
static void check_primary(const char *path, void *context)
{
    char reference[512];

    (void)context;
    snprintf(reference, sizeof reference, "%.*s_check/%s", (int)(strrchr(path, '/') - path), path,
             strrchr(path, '/') + 1);
    over_three_backgrounds(path, reference);
}

static void the_primary_files_are_what_another_decoder_makes_of_them(void **state)
{
    (void)state;
    assert_int_equal(picture_each("png/primary", check_primary, NULL), 77);
}

/* One line of stb's results: name, width, height, channels, error, hash. */
static bool assert_hash(char *line)
{
    char *field[6];

    for (int i = 0; i < 6; i++)
        field[i] = strsep(&line, ",\n");
    assert_non_null(field[5]);
    int channels = atoi(field[3]);
    if (field[4][0] || (channels != 1 && channels != 3) || strstr(field[0], "/corrupt/"))
        return false;
    char name[256];
    snprintf(name, sizeof name, "png/%s", field[0] + strlen("pngsuite/"));
    struct bytes file = picture_read(name);
    struct sac_decode_options options = {.channels = channels};
    struct sac_image image;
    picture_decode(decoder, file, &options, &image);
    if (picture_hash(image.pixels, image.stride * (size_t)image.height) !=
        strtoul(field[5], NULL, 16))
        fail_msg("%s is not what stb decodes", name);
    free(file.data);
    return true;
}

static void opaque_files_have_the_hashes_that_stb_publishes(void **state)
{
    struct bytes csv = picture_read("png/ref_results.csv");
    char *at = malloc(csv.size + 1), *text = at;
    int compared = 0;

    (void)state;
    memcpy(text, csv.data, csv.size);
    text[csv.size] = 0;
    strsep(&at, "\n"); /* the heading */
    for (char *line; (line = strsep(&at, "\n")) && *line;)
        compared += assert_hash(line);
    assert_int_equal(compared, 132);
    free(text);
    free(csv.data);
}

static void colour_becomes_grey_by_luma_over_the_background(void **state)
{
    struct sac_decode_options options = {.channels = 1, .background = {10, 200, 77}};
    struct bytes file = picture_read("png/primary/basn6a08.png");
    struct reference expected = read_reference(sac_test_data("images/png/primary/basn6a08.png"));
    struct sac_image image;

    (void)state;
    picture_decode(decoder, file, &options, &image);
    assert_int_equal(image.channels, 1);
    assert_int_equal(image.stride, 32);
    for (size_t i = 0; i < 32 * 32; i++) {
        double want = 0.299 * composed(&expected, i, 0, options.background) +
                      0.587 * composed(&expected, i, 1, options.background) +
                      0.114 * composed(&expected, i, 2, options.background);
        if (fabs(image.pixels[i] - want) > 1.5)
            fail_msg("pixel %zu is %d instead of %.2f", i, image.pixels[i], want);
    }
    free(expected.samples);
    free(file.data);
}

static void check_refused(const char *path, void *context)
{
    struct bytes file = picture_read_path(path);
    struct sac_error err = {0};
    int rc = picture_code(file, &err);

    if (rc != *(int *)context && rc != SAC_EFORMAT)
        fail_msg("%s gives %d, %s", path, rc, err.text);
    assert_int_equal(err.code, rc);
    free(file.data);
}

static void the_corrupt_files_and_apples_are_refused(void **state)
{
    int unsupported = SAC_EUNSUPPORTED;

    (void)state;
    assert_int_equal(picture_each("png/corrupt", check_refused, &unsupported), 14);
    assert_int_equal(picture_each("png/iphone", check_refused, &unsupported), 7);
}

static void the_head_tells_what_is_in_the_file(void **state)
{
    static const struct {
        const char *name;
        int side, channels;
    } cases[] = {{"png/primary/basn0g01.png", 32, 1}, {"png/primary/basn2c08.png", 32, 3},
                 {"png/primary/basn3p08.png", 32, 3}, {"png/primary/basn4a08.png", 32, 2},
                 {"png/primary/basn6a08.png", 32, 4}, {"png/primary/s07i3p02.png", 7, 3}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes file = picture_read(cases[i].name);
        struct sac_image_info info;
        struct sac_error err = {0};
        assert_ok(sac_image_probe(decoder, file.data, file.size, NULL, &info, &err), err);
        assert_int_equal(info.kind, SAC_IMAGE_PNG);
        assert_int_equal(info.width, cases[i].side);
        assert_int_equal(info.height, cases[i].side);
        assert_int_equal(info.channels, cases[i].channels);
        assert_int_equal(info.orientation, 1);
        free(file.data);
    }
}

/* One byte value, over and over, deflated by the format's rules (RFC 1951)
 * 1,032:1: a block whose codes for "258 bytes" and "distance 1" take one bit each. */
struct bits {
    uint8_t *at;
    size_t count;
};

static void put_bits(struct bits *bits, unsigned value, int count)
{
    for (int i = 0; i < count; i++, bits->count++)
        bits->at[bits->count / 8] |= (uint8_t)((value >> i & 1) << bits->count % 8);
}

/* `count` code lengths of zero, by symbol 18, which stands for 11 to 138 of them,
 * and where fewer remain by symbol 0. */
static void put_zero_lengths(struct bits *bits, int count)
{
    while (count > 0) {
        int run = count < 11 ? 1 : count > 138 ? 138 : count;
        put_bits(bits, run == 1 ? 0 : 3, 2);
        if (run > 1)
            put_bits(bits, (unsigned)run - 11, 7);
        count -= run;
    }
}

/* The code lengths of literals 0 … 285 and one distance: `value`, end of block
 * and 285 ("258 bytes") have 2, 2 and 1 bits, the distance 1 bit. Lengths are
 * coded by a code in which 18, 0, 1 and 2 take two bits each: canonical, so
 * 0 → 00, 1 → 01, 2 → 10, 18 → 11, first bit first. */
static void put_code_lengths(struct bits *bits, uint8_t value)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};

    put_bits(bits, 286 - 257, 5);
    put_bits(bits, 1 - 1, 5);
    put_bits(bits, 19 - 4, 4);
    for (int i = 0; i < 19; i++)
        put_bits(bits, order[i] == 18 || order[i] <= 2 ? 2 : 0, 3);
    put_zero_lengths(bits, value);
    put_bits(bits, 1, 2); /* the value: 2 bits */
    put_zero_lengths(bits, 255 - value);
    put_bits(bits, 1, 2); /* 256, the end: 2 bits */
    put_zero_lengths(bits, 28);
    put_bits(bits, 2, 2); /* 285: 1 bit */
    put_bits(bits, 2, 2); /* distance 1: 1 bit */
}

/* RFC 1950's checksum of `count` bytes of `value`. */
static uint32_t adler_of(uint8_t value, uint64_t count)
{
    uint64_t low = (1 + value * count) % 65521;
    uint64_t high = (count + value * (count * (count + 1) / 2 % 65521)) % 65521;

    return (uint32_t)(high << 16 | low);
}

/* One byte and `runs` times 258 more of it. */
static struct bytes make_deflated(uint8_t value, size_t runs)
{
    struct bytes out = {calloc(1, 1000 + runs / 4), 0};
    struct bits bits = {out.data, 16};

    assert_non_null(out.data);
    memcpy(out.data, "\x78\x9c", 2);
    put_bits(&bits, 1, 1); /* the last block, */
    put_bits(&bits, 2, 2); /* with codes of its own */
    put_code_lengths(&bits, value);
    put_bits(&bits, 1, 2); /* canonical: 285 → 0, the value → 10, end → 11 */
    for (size_t i = 0; i < runs; i++)
        put_bits(&bits, 0, 2);
    put_bits(&bits, 3, 2);
    out.size = (bits.count + 7) / 8;
    uint32_t sum = adler_of(value, runs * 258 + 1);
    for (int i = 0; i < 4; i++)
        out.data[out.size++] = (uint8_t)(sum >> (24 - 8 * i));
    return out;
}

/* 8 × 8, grey, black, with a chunk of `type` whose `prefix` the deflated letters follow. */
static struct bytes make_bomb(const char *type, const char *prefix, size_t prefix_size,
                              struct bytes letters)
{
    struct bytes png = make_png_head(8, 8, 8, 0);
    struct bytes data = picture_insert(letters, 0, prefix, prefix_size);
    struct bytes pixels = make_deflated(0, 1); /* 259 zeros where 72 are due */

    put_chunk(&png, type, data.data, data.size);
    put_chunk(&png, "IDAT", pixels.data, pixels.size);
    put_chunk(&png, "IEND", NULL, 0);
    free(pixels.data);
    free(data.data);
    return png;
}

/* 387,501 runs of 258: 100 MB in 97 KB. The picture itself is whole, and shown;
 * what would inflate never is. */
static void text_and_profiles_that_would_inflate_a_thousandfold_cost_nothing(void **state)
{
    struct bytes letters = make_deflated('a', 387501);
    struct bytes text = make_bomb("zTXt", "Comment\0", 9, letters);
    struct bytes profile = make_bomb("iCCP", "icc\0", 5, letters);
    struct bytes unicode = make_bomb("iTXt", "Comment\0\1\0\0", 12, letters);
    struct sac_error err = {0};

    (void)state;
    assert_true(letters.size * 1000 < 387501u * 258);
    assert_ok(picture_code(text, &err), err);
    assert_int_equal(picture_code_within(text, 2 << 20), 0);
    assert_int_equal(picture_code_within(profile, 2 << 20), 0);
    assert_int_equal(picture_code_within(unicode, 2 << 20), 0);
    free(text.data);
    free(profile.data);
    free(unicode.data);
    free(letters.data);
}

/* What the next test skips does inflate, for libpng as it is by default. */
static void the_bomb_is_one(void **state)
{
    struct bytes letters = make_deflated('a', 20000); /* 5.2 MB: below libpng's own limit */
    struct bytes text = make_bomb("zTXt", "Comment\0", 9, letters);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    FILE *file = fmemopen(text.data, text.size, "rb");
    png_textp found;
    int count = 0;

    (void)state;
    png_init_io(png, file);
    png_read_info(png, info);
    png_get_text(png, info, &found, &count);
    assert_int_equal(count, 1);
    assert_int_equal(found->text_length, 20000 * 258 + 1);
    png_destroy_read_struct(&png, &info, NULL);
    fclose(file);
    free(text.data);
    free(letters.data);
}

static void too_many_and_too_long_ancillary_chunks_are_refused(void **state)
{
    uint8_t *long_text = calloc(1, 1000001);
    struct bytes png = make_png_head(8, 8, 8, 0), pixels = make_deflated(0, 1);
    struct sac_error err = {0};

    (void)state;
    for (int i = 0; i < 64; i++)
        put_chunk(&png, "tEXt", "k\0v", 3);
    struct bytes more = picture_copy(png.data, png.size);
    put_chunk(&png, "IDAT", pixels.data, pixels.size);
    put_chunk(&png, "IEND", NULL, 0);
    assert_ok(picture_code(png, &err), err);
    put_chunk(&more, "prIv", NULL, 0);
    put_chunk(&more, "IDAT", pixels.data, pixels.size);
    put_chunk(&more, "IEND", NULL, 0);
    assert_int_equal(picture_code(more, &err), SAC_ELIMIT);
    assert_says(err, "PNG: more than 64 ancillary chunks");
    struct bytes longer = make_png_head(8, 8, 8, 0);
    put_chunk(&longer, "tEXt", long_text, 1000001);
    put_chunk(&longer, "IDAT", pixels.data, pixels.size);
    put_chunk(&longer, "IEND", NULL, 0);
    err = (struct sac_error){0};
    assert_int_equal(picture_code(longer, &err), SAC_ELIMIT);
    assert_says(err, "PNG: an ancillary chunk of 1000001 bytes; it may have at most 1000000");
    free(longer.data);
    free(more.data);
    free(png.data);
    free(pixels.data);
    free(long_text);
}

static void huge_dimensions_are_refused_before_memory_is_taken(void **state)
{
    struct bytes png = make_png_head(50000, 50000, 8, 6), wide = make_png_head(8000, 5001, 1, 0);
    struct sac_error err = {0};

    (void)state;
    put_chunk(&png, "IDAT", "x", 1);
    put_chunk(&png, "IEND", NULL, 0);
    assert_int_equal(picture_code(png, &err), SAC_ELIMIT);
    assert_says(err, "PNG: 50000 × 50000, a side may have at most 16384 pixels");
    assert_int_equal(picture_code_within(png, 1 << 20), SAC_ELIMIT);
    err = (struct sac_error){0};
    assert_int_equal(picture_code(wide, &err), SAC_ELIMIT);
    assert_says(err, "at most 40000000 pixels");
    free(png.data);
    free(wide.data);
}

/* 100 MB of zeros behind an IDAT that should hold 72 bytes. */
static void data_behind_the_last_row_are_not_kept(void **state)
{
    struct bytes png = make_png_head(8, 8, 8, 0), zeros = make_deflated(0, 387501);

    (void)state;
    put_chunk(&png, "IDAT", zeros.data, zeros.size);
    put_chunk(&png, "IEND", NULL, 0);
    assert_int_equal(picture_code_within(png, 2 << 20), 0);
    free(png.data);
    free(zeros.data);
}

static void a_wrong_checksum_is_an_error(void **state)
{
    struct bytes png = make_grey_png(16, 12, false);
    struct sac_error err = {0};

    (void)state;
    png.data[31] ^= 1; /* in IHDR's */
    assert_int_equal(picture_code(png, &err), SAC_EFORMAT);
    assert_says(err, "PNG: IHDR's checksum is wrong");
    png.data[31] ^= 1;
    png.data[png.size - 14] ^= 1; /* in IDAT's, the one before IEND's 12 bytes */
    err = (struct sac_error){0};
    assert_int_equal(picture_code(png, &err), SAC_EFORMAT);
    assert_says(err, "CRC");
    free(png.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_pngsuite_is_composed_over_the_background),
        cmocka_unit_test(the_primary_files_are_what_another_decoder_makes_of_them),
        cmocka_unit_test(opaque_files_have_the_hashes_that_stb_publishes),
        cmocka_unit_test(colour_becomes_grey_by_luma_over_the_background),
        cmocka_unit_test(the_corrupt_files_and_apples_are_refused),
        cmocka_unit_test(the_head_tells_what_is_in_the_file),
        cmocka_unit_test(the_bomb_is_one),
        cmocka_unit_test(text_and_profiles_that_would_inflate_a_thousandfold_cost_nothing),
        cmocka_unit_test(too_many_and_too_long_ancillary_chunks_are_refused),
        cmocka_unit_test(huge_dimensions_are_refused_before_memory_is_taken),
        cmocka_unit_test(data_behind_the_last_row_are_not_kept),
        cmocka_unit_test(a_wrong_checksum_is_an_error),
    };

    return cmocka_run_group_tests(tests, make_decoder, free_decoder);
}
