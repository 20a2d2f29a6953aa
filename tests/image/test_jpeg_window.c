/* Decoding only what a crop needs: the crop is the same to the bit. */
#include "pictures.h"

#include "image/decoder.h"

static struct sac_decoder *decoder, *whole_decoder;

static int make_decoders(void **state)
{
    (void)state;
    return sac_decoder_new(&decoder, NULL) | sac_decoder_new(&whole_decoder, NULL);
}

static int free_decoders(void **state)
{
    (void)state;
    sac_decoder_free(decoder);
    sac_decoder_free(whole_decoder);
    return 0;
}

/* `file` as if its EXIF said `orientation`. */
static struct bytes turned(struct bytes file, int orientation)
{
    uint8_t segment[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,
                         'M',  'M',  0, 42, 0,   0,   0,   8,   0, 1,
                         1,    0x12, 0, 3,  0,   0,   0,   1,   0, (uint8_t)orientation,
                         0,    0,    0, 0,  0,   0};

    return picture_insert(file, 2, segment, sizeof segment);
}

static void assert_window(struct bytes file, struct sac_resize_window window, bool scale)
{
    struct sac_decode_options options = {.channels = 3};
    struct sac_image whole, part;
    struct sac_resize_scratch scratch = {0};
    size_t row = (size_t)window.width * 3, size = row * (size_t)window.height;
    uint8_t *expected = malloc(size), *got = malloc(size);
    struct sac_error err = {0};

    if (scale) {
        options.cover_width = window.full_width;
        options.cover_height = window.full_height;
    }
    picture_decode(whole_decoder, file, &options, &whole);
    options.window = &window;
    picture_decode(decoder, file, &options, &part);
    assert_int_equal(part.width, whole.width);
    assert_int_equal(part.height, whole.height);
    assert_ok(sac_resize_bilinear_window(&whole, &window, expected, row, &scratch, &err), err);
    assert_ok(sac_resize_bilinear_window(&part, &window, got, row, &scratch, &err), err);
    assert_memory_equal(got, expected, size);
    free(scratch.memory);
    free(expected);
    free(got);
}

/* Windows in the middle, at each edge and of one pixel. */
static void assert_windows(struct bytes file, int full_width, int full_height)
{
    const int w = full_width, h = full_height;
    const struct sac_resize_window windows[] = {
        {w, h, w / 3, h / 3, w / 3, h / 3},
        {w, h, 0, 0, w / 4, h / 4},
        {w, h, w - 3, h - 3, 3, 3},
        {w, h, w / 2, 0, 1, h},
        {w, h, 0, h / 2, w, 1},
        {w, h, w / 2, h / 2, 1, 1},
        {w, h, 0, 0, w, h},
        {w, h, w / 5, h / 2, w / 2, h / 2},
    };

    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        assert_window(file, windows[i], true);
        assert_window(file, windows[i], false);
    }
}

static struct bytes make_noisy(int width, int height, int h, int v, bool progressive)
{
    uint8_t *pixels = make_noise(width, height, 3);
    struct bytes file = make_jpeg(&(struct jpeg_recipe){.width = width,
                                                        .height = height,
                                                        .components = 3,
                                                        .in = JCS_RGB,
                                                        .stored = JCS_YCbCr,
                                                        .h = h,
                                                        .v = v,
                                                        .progressive = progressive},
                                  pixels);

    free(pixels);
    return file;
}

/* 1/8 to full size, noise: any pixel that was interpolated otherwise would show. */
static void every_sampling_and_scale_gives_the_same_crop(void **state)
{
    static const int sampling[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof sampling / sizeof *sampling; i++)
        for (int progressive = 0; progressive < 2; progressive++) {
            struct bytes file = make_noisy(397, 283, sampling[i][0], sampling[i][1], progressive);
            assert_windows(file, 397, 283); /* as it is */
            assert_windows(file, 199, 142); /* 1/2 */
            assert_windows(file, 90, 60);   /* 1/4, then smaller */
            assert_windows(file, 40, 30);   /* 1/8 */
            assert_windows(file, 500, 400); /* larger */
            free(file.data);
        }
}

static void every_orientation_gives_the_same_crop(void **state)
{
    struct bytes upright = make_noisy(301, 203, 2, 2, false);

    (void)state;
    for (int orientation = 1; orientation <= 8; orientation++) {
        struct bytes file = turned(upright, orientation);
        assert_windows(file, 120, 100);
        assert_windows(file, 70, 110);
        free(file.data);
    }
    free(upright.data);
}

static void thin_pictures_give_the_same_crop(void **state)
{
    static const int sizes[][2] = {{1, 200}, {200, 1}, {2, 90}, {17, 5}, {3000, 20}, {20, 3000}};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct bytes file = make_noisy(sizes[i][0], sizes[i][1], 2, 2, false);
        assert_windows(file, 40, 50);
        free(file.data);
    }
}

/* What is left of a white picture where the next one was not decoded. */
static void what_is_far_from_the_crop_is_not_made(void **state)
{
    struct sac_resize_window window = {640, 480, 300, 200, 64, 64};
    struct sac_decode_options options = {.channels = 3, .window = &window};
    struct bytes file = make_rgb_jpeg(640, 480, false);
    struct sac_image image;
    uint8_t *white = malloc(640 * 480);

    (void)state;
    memset(white, 255, 640 * 480);
    struct jpeg_recipe recipe = {
        .width = 640, .height = 480, .components = 1, .in = JCS_GRAYSCALE, .stored = JCS_GRAYSCALE};
    struct bytes blank = make_jpeg(&recipe, white);
    picture_decode(decoder, blank, &(struct sac_decode_options){.channels = 3}, &image);
    picture_decode(decoder, file, &options, &image);
    int64_t made = 0;
    for (int i = 0; i < 640 * 480; i++)
        made += memcmp(image.pixels + 3 * i, "\xff\xff\xff", 3) != 0;
    assert_in_range(made, 64 * 64, 112 * 80); /* whole blocks, and a margin */
    free(white);
    free(blank.data);
    free(file.data);
}

/* The last row of blocks, which nothing is made of. */
static void damage_outside_the_crop_is_still_an_error(void **state)
{
    struct sac_resize_window window = {200, 160, 90, 20, 8, 8};
    struct sac_decode_options options = {.channels = 3, .window = &window};
    struct bytes file = make_noisy(200, 160, 2, 2, false);
    struct sac_image image;

    (void)state;
    for (size_t cut = 1; cut < file.size / 2; cut += 97)
        assert_int_equal(
            sac_image_decode(decoder, file.data, file.size - cut, &options, &image, NULL),
            SAC_EFORMAT);
    file.data[file.size - 200] = 0xff;
    file.data[file.size - 199] = 0xd9;
    assert_int_equal(sac_image_decode(decoder, file.data, file.size, &options, &image, NULL),
                     SAC_EFORMAT);
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sampling_and_scale_gives_the_same_crop),
        cmocka_unit_test(every_orientation_gives_the_same_crop),
        cmocka_unit_test(thin_pictures_give_the_same_crop),
        cmocka_unit_test(what_is_far_from_the_crop_is_not_made),
        cmocka_unit_test(damage_outside_the_crop_is_still_an_error),
    };

    return cmocka_run_group_tests(tests, make_decoders, free_decoders);
}
