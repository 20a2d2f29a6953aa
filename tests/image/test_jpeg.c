#include "pictures.h"

#include <stdlib.h>

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

static void decode_full(struct bytes file, int channels, struct sac_image *ret)
{
    picture_decode(decoder, file, &(struct sac_decode_options){.channels = channels}, ret);
}

static const uint8_t *pixel(const struct sac_image *image, int x, int y)
{
    return image->pixels + (size_t)y * image->stride + (size_t)(x * image->channels);
}

static void assert_near(int value, int expected, int tolerance)
{
    if (abs(value - expected) > tolerance)
        fail_msg("%d is not within %d of %d", value, tolerance, expected);
}

/* Files of the test data as OpenCV 4.6.0 (libjpeg-turbo 2.1.5) decodes them:
 * FNV-1a of all R, G, B. A libjpeg with another inverse DCT would differ by 1. */
static void real_files_decode_as_opencv_decodes_them(void **state)
{
    static const struct {
        const char *name;
        int width, height;
        uint32_t hash;
    } cases[] = {
        {"cat.jpg", 480, 360, 0x1893f562},
        {"jpeg/testorig.jpg", 227, 149, 0xf29cc190},
        {"jpeg/testimgint.jpg", 227, 149, 0xb5106c06},
        {"jpeg/testimgari.jpg", 227, 149, 0xb5106c06}, /* arithmetic coding */
        {"jpeg/iphoneprogressive.jpg", 1023, 663, 0x7addf575},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes file = picture_read(cases[i].name);
        struct sac_image image;
        decode_full(file, 3, &image);
        assert_int_equal(image.width, cases[i].width);
        assert_int_equal(image.height, cases[i].height);
        assert_int_equal(picture_hash(image.pixels, image.stride * (size_t)image.height),
                         cases[i].hash);
        free(file.data);
    }
}

/* Pixels by OpenCV 4.6.0's imread. */
static void some_pixels_of_larger_files_are_opencvs(void **state)
{
    static const struct {
        const char *name;
        int x, y, rgb[3], tolerance;
    } cases[] = {
        {"jpeg/Landscape_6.jpg", 0, 0, {110, 159, 218}, 1},
        {"jpeg/Landscape_6.jpg", 899, 600, {115, 131, 146}, 1},
        {"jpeg/Landscape_6.jpg", 1799, 1199, {31, 29, 30}, 1},
        {"jpeg/grayscale.jpg", 1632, 1224, {53, 53, 53}, 1},
        {"jpeg/grayscale.jpg", 3263, 2447, {22, 22, 22}, 1},
        /* OpenCV approximates the division by 255 by a shift */
        {"jpeg/Channel_digital_image_CMYK_color.jpg", 0, 0, {201, 229, 255}, 2},
        {"jpeg/Channel_digital_image_CMYK_color.jpg", 250, 166, {163, 214, 119}, 2},
        {"jpeg/Channel_digital_image_CMYK_color.jpg", 499, 332, {36, 56, 16}, 2},
        {"jpeg/Channel_digital_image_CMYK_color_no_profile.jpg", 250, 166, {163, 214, 119}, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes file = picture_read(cases[i].name);
        struct sac_image image;
        decode_full(file, 3, &image);
        for (int c = 0; c < 3; c++)
            assert_near(pixel(&image, cases[i].x, cases[i].y)[c], cases[i].rgb[c],
                        cases[i].tolerance);
        free(file.data);
    }
}

static void grey_is_the_stored_luma(void **state)
{
    struct bytes file = make_rgb_jpeg(45, 31, false);
    struct sac_image image;

    (void)state;
    decode_full(file, 3, &image);
    uint8_t rgb[3];
    memcpy(rgb, pixel(&image, 20, 10), 3);
    decode_full(file, 1, &image);
    assert_int_equal(image.channels, 1);
    assert_int_equal(image.stride, 45);
    /* BT.601, by its definition */
    assert_near(pixel(&image, 20, 10)[0],
                (int)(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] + 0.5), 1);
    free(file.data);
}

/* One colour, stored in `stored`, decoded. */
static void assert_flat(const struct jpeg_recipe *recipe, const uint8_t *stored,
                        const int expected[3])
{
    size_t components = (size_t)recipe->components;
    uint8_t pixels[16 * 16 * 4];
    struct sac_image image;

    for (size_t i = 0; i < 16 * 16; i++)
        memcpy(pixels + i * components, stored, components);
    struct bytes file = make_jpeg(recipe, pixels);
    decode_full(file, 3, &image);
    for (int c = 0; c < 3; c++)
        assert_near(pixel(&image, 7, 9)[c], expected[c], 3);
    decode_full(file, 1, &image);
    assert_near(pixel(&image, 7, 9)[0],
                (int)(0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2] + 0.5), 3);
    free(file.data);
}

static void each_colour_space_becomes_rgb(void **state)
{
    struct jpeg_recipe recipe = {.width = 16, .height = 16, .components = 3, .quality = 100};
    const uint8_t rgb[3] = {200, 100, 50}, inks[4] = {200, 100, 50, 180}, grey = 77;

    (void)state;
    recipe.in = JCS_RGB, recipe.stored = JCS_YCbCr;
    assert_flat(&recipe, rgb, (const int[]){200, 100, 50});
    recipe.stored = JCS_RGB;
    assert_flat(&recipe, rgb, (const int[]){200, 100, 50});
    recipe.components = 1, recipe.in = recipe.stored = JCS_GRAYSCALE;
    assert_flat(&recipe, &grey, (const int[]){77, 77, 77});
    /* Adobe stores 255 − ink: R = C · K / 255 of what is stored */
    recipe.components = 4, recipe.in = recipe.stored = JCS_CMYK;
    assert_flat(&recipe, inks, (const int[]){141, 71, 35});
    recipe.stored = JCS_YCCK;
    assert_flat(&recipe, inks, (const int[]){141, 71, 35});
    /* without Adobe's mark ink is ink: (255 − C) (255 − K) / 255 */
    recipe.stored = JCS_CMYK, recipe.no_adobe = true;
    assert_flat(&recipe, inks, (const int[]){16, 46, 60});
}

/* `file` with an EXIF segment that holds `orientation`, behind SOI. */
static struct bytes with_orientation(struct bytes file, int orientation)
{
    uint8_t segment[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,
                         'M',  'M',  0, 42, 0,   0,   0,   8,   0, 1,
                         1,    0x12, 0, 3,  0,   0,   0,   1,   0, (uint8_t)orientation,
                         0,    0,    0, 0,  0,   0};

    return picture_insert(file, 2, segment, sizeof segment);
}

/* TIFF 6.0's definition: where row 0 and column 0 of what is stored are shown.
 * The stored pixel that is shown at (x, y) of a picture stored as w × h. */
static void stored_at(int orientation, int x, int y, int w, int h, int *ret_x, int *ret_y)
{
    bool sides = orientation >= 5; /* row 0 at a side */
    int row = sides ? x : y, column = sides ? y : x;
    bool from_far_row = orientation == 3 || orientation == 4 ||    /* row 0 at the bottom */
                        orientation == 6 || orientation == 7;      /* or at the right */
    bool from_far_column = orientation == 2 || orientation == 3 || /* column 0 at the right */
                           orientation == 7 || orientation == 8;   /* or at the bottom */

    *ret_y = from_far_row ? h - 1 - row : row;
    *ret_x = from_far_column ? w - 1 - column : column;
}

/* cover < 0: full size. */
static void assert_oriented(struct bytes upright, int orientation, int channels, int cover)
{
    struct sac_decode_options options = {
        .channels = channels, .cover_width = cover, .cover_height = cover};
    struct bytes file = with_orientation(upright, orientation);
    struct sac_image_info info;
    struct sac_image stored, shown;
    struct sac_error err = {0};
    struct sac_decoder *other;

    assert_ok(sac_decoder_new(&other, &err), err);
    picture_decode(other, upright, &options, &stored);
    picture_decode(decoder, file, &options, &shown);
    assert_ok(sac_image_probe(decoder, file.data, file.size, NULL, &info, &err), err);
    assert_int_equal(info.orientation, orientation);
    assert_int_equal(info.width, orientation >= 5 ? stored.full_height : stored.full_width);
    assert_int_equal(shown.full_width, info.width);
    assert_int_equal(shown.full_height, info.height);
    assert_int_equal(shown.width, orientation >= 5 ? stored.height : stored.width);
    assert_int_equal(shown.height, orientation >= 5 ? stored.width : stored.height);
    for (int y = 0; y < shown.height; y++)
        for (int x = 0; x < shown.width; x++) {
            int sx, sy;
            stored_at(orientation, x, y, stored.width, stored.height, &sx, &sy);
            assert_memory_equal(pixel(&shown, x, y), pixel(&stored, sx, sy), (size_t)channels);
        }
    sac_decoder_free(other);
    free(file.data);
}

static void each_orientation_is_shown_as_tiff_defines_it(void **state)
{
    struct bytes upright = make_rgb_jpeg(45, 31, false);

    (void)state;
    for (int orientation = 1; orientation <= 8; orientation++) {
        assert_oriented(upright, orientation, 3, 0);
        assert_oriented(upright, orientation, 1, 0);
        assert_oriented(upright, orientation, 3, 15); /* at half size */
    }
    free(upright.data);
}

static void inks_are_turned_too(void **state)
{
    uint8_t *pixels = make_pixels(21, 37, 4);
    struct jpeg_recipe recipe = {
        .width = 21, .height = 37, .components = 4, .in = JCS_CMYK, .stored = JCS_YCCK};
    struct bytes upright = make_jpeg(&recipe, pixels);

    (void)state;
    for (int orientation = 1; orientation <= 8; orientation++)
        assert_oriented(upright, orientation, 3, 0);
    free(upright.data);
    free(pixels);
}

/* Nine encodings of one photograph, each stored turned another way; 0 is no orientation. */
static void the_landscapes_all_show_the_same_picture(void **state)
{
    struct sac_error err = {0};
    struct sac_decoder *first;
    struct sac_image reference;
    struct bytes file = picture_read("jpeg/Landscape_1.jpg");

    (void)state;
    assert_ok(sac_decoder_new(&first, &err), err);
    picture_decode(first, file, &(struct sac_decode_options){.channels = 3}, &reference);
    free(file.data);
    for (int orientation = 0; orientation <= 8; orientation++) {
        char name[64];
        struct sac_image image;
        snprintf(name, sizeof name, "jpeg/Landscape_%d.jpg", orientation);
        file = picture_read(name);
        decode_full(file, 3, &image);
        assert_int_equal(image.width, 1800);
        assert_int_equal(image.height, 1200);
        size_t size = image.stride * 1200;
        double sum = 0;
        for (size_t i = 0; i < size; i++)
            sum += abs(image.pixels[i] - reference.pixels[i]);
        /* 0 to 3.7 measured with OpenCV; mirrored or upside down, 73 and more */
        if (sum / (double)size > 5)
            fail_msg("%s differs by %.2f on average", name, sum / (double)size);
        free(file.data);
    }
    sac_decoder_free(first);
}

static void assert_covers(struct bytes file, int cover_width, int cover_height, int width,
                          int height)
{
    struct sac_decode_options options = {
        .channels = 3, .cover_width = cover_width, .cover_height = cover_height};
    struct sac_image image;

    picture_decode(decoder, file, &options, &image);
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    assert_int_equal(image.full_width, 100);
    assert_int_equal(image.full_height, 81);
}

static void shrinking_is_by_powers_of_two_that_still_cover(void **state)
{
    struct bytes file = make_rgb_jpeg(100, 81, false);

    (void)state;
    assert_covers(file, 0, 0, 100, 81);
    assert_covers(file, 1, 0, 100, 81); /* both or none */
    assert_covers(file, 1000, 1000, 100, 81);
    assert_covers(file, 100, 1, 100, 81);
    assert_covers(file, 51, 10, 100, 81);
    assert_covers(file, 50, 41, 50, 41); /* rounded up, as libjpeg rounds */
    assert_covers(file, 50, 42, 100, 81);
    assert_covers(file, 26, 1, 50, 41);
    assert_covers(file, 25, 21, 25, 21);
    assert_covers(file, 14, 1, 25, 21);
    assert_covers(file, 13, 11, 13, 11);
    assert_covers(file, 1, 1, 13, 11);
    free(file.data);
}

/* Each pixel of a shrunk smooth picture is near the mean of those it stands for. */
static void a_shrunk_picture_is_the_same_picture(void **state)
{
    struct bytes file = make_rgb_jpeg(96, 80, false);
    struct sac_image image;
    uint8_t *full = malloc(96 * 80 * 3);

    (void)state;
    decode_full(file, 3, &image);
    memcpy(full, image.pixels, 96 * 80 * 3);
    for (int shrink = 2; shrink <= 8; shrink *= 2) {
        struct sac_decode_options options = {
            .channels = 3, .cover_width = 96 / shrink, .cover_height = 80 / shrink};
        picture_decode(decoder, file, &options, &image);
        assert_int_equal(image.width, 96 / shrink);
        for (int y = 0; y < image.height; y++)
            for (int x = 0; x < image.width; x++) {
                int sum = 0;
                for (int i = 0; i < shrink * shrink; i++)
                    sum += full[((y * shrink + i / shrink) * 96 + x * shrink + i % shrink) * 3];
                assert_near(pixel(&image, x, y)[0], sum / (shrink * shrink), 4);
            }
    }
    free(full);
    free(file.data);
}

static void bytes_behind_the_end_do_not_matter(void **state)
{
    struct bytes file = make_rgb_jpeg(45, 31, false);
    struct bytes longer = picture_insert(file, file.size, "trailing rubbish \xff\xd8\xff", 20);
    struct sac_error err = {0};

    (void)state;
    assert_ok(picture_code(longer, &err), err);
    free(longer.data);
    free(file.data);
}

static void stray_bytes_before_a_marker_are_let_pass(void **state)
{
    struct bytes file = make_rgb_jpeg(45, 31, false);
    struct bytes stray = picture_insert(file, find_marker(file, 0xc4), "\x01\x02", 2);
    struct sac_error err = {0};

    (void)state;
    assert_ok(picture_code(stray, &err), err);
    free(stray.data);
    free(file.data);
}

/* A whole file whose data end too early: libjpeg would paint the rest grey. */
static void missing_rows_are_an_error(void **state)
{
    struct bytes file = make_rgb_jpeg(45, 31, false);
    struct sac_error err = {0};

    (void)state;
    memmove(file.data + file.size - 102, file.data + file.size - 2, 2);
    file.size -= 100;
    assert_int_equal(picture_code(file, &err), SAC_EFORMAT);
    assert_says(err, "JPEG: Corrupt JPEG data: premature end of data segment");
    free(file.data);
}

static void assert_file_refused(const char *name, int code, const char *sentence)
{
    struct bytes file = picture_read(name);
    struct sac_error err = {0};

    assert_int_equal(picture_code(file, &err), code);
    assert_says(err, sentence);
    free(file.data);
}

static void files_cut_short_and_12_bits_are_refused_in_a_sentence(void **state)
{
    (void)state;
    assert_file_refused("jpeg/singlerowtrunc.jpg", SAC_EFORMAT, "JPEG: Premature end");
    assert_file_refused("jpeg/gray2sf.jpg", SAC_EFORMAT, "JPEG: Premature end"); /* zeros follow */
    assert_file_refused("jpeg/monkey12.jpg", SAC_EUNSUPPORTED, "precision 12");
}

/* libjpeg keeps tables from picture to picture; nobody may be shown through another's. */
static void a_file_without_tables_never_borrows_those_of_the_last(void **state)
{
    struct bytes file = make_rgb_jpeg(45, 31, false), bare = picture_copy(file.data, file.size);
    struct sac_decode_options options = {.channels = 3};
    struct sac_error err = {0};
    struct sac_image image;

    (void)state;
    for (size_t tables = 0; tables < 2; tables++) { /* DQT becomes a comment */
        size_t at = find_marker(bare, 0xdb);
        bare.data[at + 1] = 0xfe;
    }
    picture_decode(decoder, file, &options, &image);
    assert_int_equal(sac_image_decode(decoder, bare.data, bare.size, &options, &image, &err),
                     SAC_EFORMAT);
    assert_says(err, "Quantization table 0x00 was not defined");
    free(bare.data);
    free(file.data);
}

/* Spectral selection and successive approximation as fine as the standard
 * allows: 11 scans a coefficient, `coefficients` of them; then, if any are
 * left, one scan of the rest. */
static int fine_scans(jpeg_scan_info *scans, int components, int coefficients)
{
    int count = 0;

    for (int c = 0; c < components; c++) {
        for (int k = 0; k < coefficients; k++)
            for (int low = 10; low >= 0; low--)
                scans[count++] = (jpeg_scan_info){1, {c}, k, k, low == 10 ? 0 : low + 1, low};
        if (coefficients < 64)
            scans[count++] = (jpeg_scan_info){1, {c}, coefficients, 63, 0, 0};
    }
    return count;
}

static struct bytes make_many_scans(int components, int coefficients, int *ret_scans)
{
    static jpeg_scan_info scans[3 * 64 * 11 + 3];
    uint8_t *pixels = make_pixels(16, 16, components);
    struct jpeg_recipe recipe = {.width = 16, .height = 16, .components = components};

    recipe.in = components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    recipe.stored = components == 1 ? JCS_GRAYSCALE : JCS_YCbCr;
    recipe.scans = scans;
    recipe.scan_count = *ret_scans = fine_scans(scans, components, coefficients);
    struct bytes file = make_jpeg(&recipe, pixels);
    free(pixels);
    return file;
}

static void a_hundred_scans_are_decoded_and_one_more_is_not(void **state)
{
    struct sac_decode_options options = {.channels = 3};
    struct sac_error err = {0};
    struct sac_image image;
    int scans;
    struct bytes file = make_many_scans(1, 9, &scans);

    (void)state;
    assert_int_equal(scans, 100);
    decode_full(file, 3, &image);
    options.limits.scans_max = 99;
    assert_int_equal(sac_image_decode(decoder, file.data, file.size, &options, &image, &err),
                     SAC_ELIMIT);
    assert_says(err, "JPEG: more than 99 scans");
    free(file.data);
}

static void thousands_of_scans_are_refused(void **state)
{
    int scans;
    struct bytes file = make_many_scans(3, 64, &scans);
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(scans, 2112);
    assert_int_equal(picture_code(file, &err), SAC_ELIMIT);
    assert_says(err, "JPEG: more than 100 scans");
    assert_int_equal(picture_code_within(file, 8 << 20), SAC_ELIMIT);
    free(file.data);
}

/* The last scan of a small progressive file, over and over. */
static void a_scan_repeated_80000_times_is_refused(void **state)
{
    struct bytes file = make_rgb_jpeg(16, 16, true);
    size_t last = 0, copies = 80000;

    (void)state;
    for (size_t i = 0; i + 1 < file.size; i++)
        if (file.data[i] == 0xff && file.data[i + 1] == 0xda)
            last = i;
    size_t scan = file.size - 2 - last;
    struct bytes bomb = {malloc(file.size + copies * scan), file.size - 2};
    assert_non_null(bomb.data);
    memcpy(bomb.data, file.data, bomb.size);
    for (size_t i = 0; i < copies; i++, bomb.size += scan)
        memcpy(bomb.data + bomb.size, file.data + last, scan);
    memcpy(bomb.data + bomb.size, "\xff\xd9", 2);
    bomb.size += 2;
    assert_int_equal(picture_code_within(bomb, 8 << 20), SAC_EFORMAT);
    free(bomb.data);
    free(file.data);
}

/* `file` that claims another size. */
static void claim_size(struct bytes file, int marker, unsigned width, unsigned height)
{
    uint8_t *at = file.data + find_marker(file, marker);

    at[5] = (uint8_t)(height >> 8);
    at[6] = (uint8_t)height;
    at[7] = (uint8_t)(width >> 8);
    at[8] = (uint8_t)width;
}

static void huge_dimensions_are_refused_before_memory_is_taken(void **state)
{
    struct bytes file = make_rgb_jpeg(16, 16, false);
    struct sac_error err = {0};

    (void)state;
    claim_size(file, 0xc0, 65500, 65500);
    assert_int_equal(picture_code(file, &err), SAC_ELIMIT);
    assert_says(err, "JPEG: 65500 × 65500, a side may have at most 16384 pixels");
    assert_int_equal(picture_code_within(file, 8 << 20), SAC_ELIMIT);
    claim_size(file, 0xc0, 8000, 5001);
    err = (struct sac_error){0};
    assert_int_equal(picture_code(file, &err), SAC_ELIMIT);
    assert_says(err, "at most 40000000 pixels");
    assert_int_equal(picture_code_within(file, 8 << 20), SAC_ELIMIT);
    claim_size(file, 0xc0, 16, 0);
    assert_int_not_equal(picture_code(file, &err), 0);
    free(file.data);
}

static void progressive_pictures_have_a_lower_limit(void **state)
{
    struct bytes file = make_rgb_jpeg(16, 16, true);
    struct sac_error err = {0};

    (void)state;
    claim_size(file, 0xc2, 4001, 4000);
    assert_int_equal(picture_code(file, &err), SAC_ELIMIT);
    assert_says(err, "progressive picture may have at most 16000000 pixels");
    assert_int_equal(picture_code_within(file, 8 << 20), SAC_ELIMIT);
    free(file.data);
}

/* Sequential, but a scan a component: held in memory like a progressive one. */
static void several_scans_count_as_progressive(void **state)
{
    const jpeg_scan_info scans[3] = {
        {1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
    uint8_t *pixels = make_pixels(20, 10, 3);
    struct jpeg_recipe recipe = {.width = 20,
                                 .height = 10,
                                 .components = 3,
                                 .in = JCS_RGB,
                                 .stored = JCS_YCbCr,
                                 .scans = scans,
                                 .scan_count = 3};
    struct bytes file = make_jpeg(&recipe, pixels);
    struct sac_decode_options options = {.channels = 3, .limits.scans_max = 2};
    struct sac_error err = {0};
    struct sac_image image;

    (void)state;
    decode_full(file, 3, &image);
    assert_int_equal(sac_image_decode(decoder, file.data, file.size, &options, &image, &err),
                     SAC_ELIMIT);
    claim_size(file, 0xc0, 4001, 4000);
    assert_int_equal(picture_code(file, &err), SAC_ELIMIT);
    free(file.data);
    free(pixels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_files_decode_as_opencv_decodes_them),
        cmocka_unit_test(some_pixels_of_larger_files_are_opencvs),
        cmocka_unit_test(grey_is_the_stored_luma),
        cmocka_unit_test(each_colour_space_becomes_rgb),
        cmocka_unit_test(each_orientation_is_shown_as_tiff_defines_it),
        cmocka_unit_test(inks_are_turned_too),
        cmocka_unit_test(the_landscapes_all_show_the_same_picture),
        cmocka_unit_test(shrinking_is_by_powers_of_two_that_still_cover),
        cmocka_unit_test(a_shrunk_picture_is_the_same_picture),
        cmocka_unit_test(bytes_behind_the_end_do_not_matter),
        cmocka_unit_test(stray_bytes_before_a_marker_are_let_pass),
        cmocka_unit_test(missing_rows_are_an_error),
        cmocka_unit_test(files_cut_short_and_12_bits_are_refused_in_a_sentence),
        cmocka_unit_test(a_file_without_tables_never_borrows_those_of_the_last),
        cmocka_unit_test(a_hundred_scans_are_decoded_and_one_more_is_not),
        cmocka_unit_test(thousands_of_scans_are_refused),
        cmocka_unit_test(a_scan_repeated_80000_times_is_refused),
        cmocka_unit_test(huge_dimensions_are_refused_before_memory_is_taken),
        cmocka_unit_test(progressive_pictures_have_a_lower_limit),
        cmocka_unit_test(several_scans_count_as_progressive),
    };

    return cmocka_run_group_tests(tests, make_decoder, free_decoder);
}
