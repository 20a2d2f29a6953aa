/* Our Huffman decoding against libjpeg's own: the same pixels, the same verdict. */
#include "pictures.h"

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

/* At 1/1, 1/2, 1/4 and 1/8 of its size: whether libjpeg could decode it at all. */
static bool assert_same(struct bytes file, int channels)
{
    for (unsigned denominator = 1; denominator <= 8; denominator *= 2) {
        int width, height;
        struct sac_image image;
        uint8_t *expected = library_decode(file, channels, denominator, &width, &height);
        if (!expected)
            return false;
        struct sac_decode_options options = {
            .channels = channels, .cover_width = width, .cover_height = height};
        picture_decode(decoder, file, &options, &image);
        /* a very small picture may be scaled further, and still cover */
        if (image.width == width && image.height == height && width > 8 && height > 8)
            assert_memory_equal(image.pixels, expected, image.stride * (size_t)height);
        free(expected);
    }
    return true;
}

static struct bytes make(int width, int height, struct jpeg_recipe recipe, bool noise)
{
    recipe.width = width;
    recipe.height = height;
    recipe.components = recipe.stored == JCS_GRAYSCALE ? 1 : 3;
    recipe.in = recipe.stored == JCS_GRAYSCALE ? JCS_GRAYSCALE : JCS_RGB;
    uint8_t *pixels = noise ? make_noise(width, height, recipe.components)
                            : make_pixels(width, height, recipe.components);
    struct bytes file = make_jpeg(&recipe, pixels);

    free(pixels);
    return file;
}

static void assert_recipe_same(struct jpeg_recipe recipe)
{
    static const int qualities[] = {1, 30, 75, 95, 100};

    for (size_t i = 0; i < sizeof qualities / sizeof *qualities; i++)
        for (int noise = 0; noise < 2; noise++) {
            recipe.quality = qualities[i];
            struct bytes file = make(133, 91, recipe, noise);
            assert_true(assert_same(file, 3));
            assert_true(assert_same(file, 1));
            free(file.data);
        }
}

/* Flat and noisy ones: from a block that ends at once to one of 63 long codes. */
static void each_quality_and_sampling_gives_libjpegs_pixels(void **state)
{
    static const int sampling[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}, {4, 2}};

    (void)state;
    for (size_t i = 0; i < sizeof sampling / sizeof *sampling; i++)
        assert_recipe_same(
            (struct jpeg_recipe){.stored = JCS_YCbCr, .h = sampling[i][0], .v = sampling[i][1]});
    assert_recipe_same((struct jpeg_recipe){.stored = JCS_GRAYSCALE});
}

static void tables_of_their_own_and_restarts_give_libjpegs_pixels(void **state)
{
    (void)state;
    assert_recipe_same(
        (struct jpeg_recipe){.stored = JCS_YCbCr, .subsample = true, .optimize = true});
    assert_recipe_same(
        (struct jpeg_recipe){.stored = JCS_YCbCr, .subsample = true, .restart_mcus = 1});
    assert_recipe_same((struct jpeg_recipe){.stored = JCS_YCbCr, .restart_mcus = 7});
}

static int same_files;

static void compare_file(const char *path, void *context)
{
    struct bytes file = picture_read_path(path);
    int width, height;
    uint8_t *stored = library_decode(file, 3, 1, &width, &height);
    struct sac_image_info info = {0};

    (void)context;
    /* EXIF's turns are not libjpeg's */
    if (stored && sac_image_probe(decoder, file.data, file.size, NULL, &info, NULL) == 0 &&
        info.orientation == 1)
        same_files += assert_same(file, 3);
    free(stored);
    free(file.data);
}

static void real_files_give_libjpegs_pixels(void **state)
{
    (void)state;
    same_files = 0;
    picture_each("jpeg", compare_file, NULL);
    assert_true(same_files >= 8);
}

/* Whatever one wrong byte does to the codes, and wherever they end. */
static void assert_same_verdict(struct bytes file)
{
    struct sac_decode_options options = {.channels = 3};
    struct sac_image image;
    int width, height;
    uint8_t *expected = library_decode(file, 3, 1, &width, &height);
    int rc = sac_image_decode(decoder, file.data, file.size, &options, &image, NULL);

    assert_int_equal(rc, expected ? 0 : SAC_EFORMAT);
    if (expected)
        assert_memory_equal(image.pixels, expected, image.stride * (size_t)height);
    free(expected);
}

static void damaged_codes_are_judged_as_libjpeg_does(void **state)
{
    static const uint8_t values[] = {0, 1, 0x7f, 0xd0, 0xd9, 0xfe, 0xff};

    (void)state;
    for (unsigned restart = 0; restart < 3; restart += 2) {
        struct jpeg_recipe recipe = {
            .stored = JCS_YCbCr, .subsample = true, .quality = 60, .restart_mcus = restart};
        struct bytes file = make(40, 40, recipe, true);
        for (size_t at = find_marker(file, 0xda) + 14; at < file.size; at++) {
            uint8_t right = file.data[at];
            for (size_t i = 0; i < sizeof values; i++) {
                file.data[at] = values[i];
                assert_same_verdict(file);
            }
            file.data[at] = right;
            assert_same_verdict((struct bytes){file.data, at});
        }
        free(file.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_quality_and_sampling_gives_libjpegs_pixels),
        cmocka_unit_test(tables_of_their_own_and_restarts_give_libjpegs_pixels),
        cmocka_unit_test(real_files_give_libjpegs_pixels),
        cmocka_unit_test(damaged_codes_are_judged_as_libjpeg_does),
    };

    return cmocka_run_group_tests(tests, make_decoder, free_decoder);
}
