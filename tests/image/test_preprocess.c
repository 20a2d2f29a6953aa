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

static int run(const struct sac_preprocess *how, struct bytes file, uint8_t *dst,
               struct sac_error *err)
{
    return sac_preprocess_pixels(how, decoder, file.data, file.size, NULL, dst, err);
}

/* FNV-1a of what `how` makes of a file of the test data. */
static uint32_t hash_of(const struct sac_preprocess *how, const char *name)
{
    struct bytes file = picture_read(name);
    size_t size = (size_t)(how->crop_width * how->crop_height * how->channels);
    uint8_t *dst = malloc(size);
    struct sac_error err = {0};

    assert_non_null(dst);
    assert_ok(run(how, file, dst, &err), err);
    uint32_t hash = picture_hash(dst, size);
    free(dst);
    free(file.data);
    return hash;
}

static void the_default_is_gpu_rest_engines(void **state)
{
    struct sac_preprocess how = sac_preprocess_default(3, 227, 224);

    (void)state;
    assert_int_equal(how.resize, SAC_RESIZE_SQUASH);
    assert_int_equal(how.resize_width, 0);
    assert_int_equal(how.resize_height, 0);
    assert_int_equal(how.crop_width, 227);
    assert_int_equal(how.crop_height, 224);
    assert_int_equal(how.channels, 3);
    assert_int_equal(how.decode, SAC_DECODE_FAST);
    assert_true(how.bgr);
    assert_true(how.scale == 1.f && how.mean[0] == 0 && how.mean[1] == 0 && how.mean[2] == 0);
    assert_null(how.mean_image);
    assert_int_equal(how.background[0] + how.background[1] + how.background[2], 0);
}

/* Hashes of imread, resize (INTER_LINEAR) and slicing by OpenCV 4.6.0, R, G, B. */
static void each_way_gives_what_opencv_gives(void **state)
{
    struct sac_preprocess how = sac_preprocess_default(3, 227, 227);

    (void)state;
    how.decode = SAC_DECODE_EXACT;
    assert_int_equal(hash_of(&how, "cat.jpg"), 0x463f456d);
    assert_int_equal(hash_of(&how, "jpeg/Landscape_6.jpg"), 0xf7dde743); /* turned */
    how.resize_width = how.resize_height = 256; /* rows and columns 14 … 240 */
    assert_int_equal(hash_of(&how, "cat.jpg"), 0x3e14ff06);
    how.resize = SAC_RESIZE_SHORT; /* 480 × 360 becomes 341 × 256: columns 57 …, rows 14 … */
    assert_int_equal(hash_of(&how, "cat.jpg"), 0xc5ae8e8a);
    how.resize = SAC_RESIZE_NONE;
    how.resize_width = how.resize_height = 0;
    assert_int_equal(hash_of(&how, "cat.jpg"), 0x2f691fcb);
    how = sac_preprocess_default(1, 28, 28);
    how.decode = SAC_DECODE_EXACT;
    assert_int_equal(hash_of(&how, "cat.jpg"), 0xfdadb211);
}

/* 480 × 360 at half size is 240 × 180: too low for 227, enough for 180. */
static void fast_decoding_shrinks_only_where_the_picture_still_covers(void **state)
{
    struct sac_preprocess how = sac_preprocess_default(3, 227, 227);

    (void)state;
    assert_int_equal(hash_of(&how, "cat.jpg"), 0x463f456d);
    how = sac_preprocess_default(3, 180, 180);
    uint32_t fast = hash_of(&how, "cat.jpg");
    how.decode = SAC_DECODE_EXACT;
    assert_int_not_equal(hash_of(&how, "cat.jpg"), fast);
    how = sac_preprocess_default(3, 180, 181);
    fast = hash_of(&how, "cat.jpg");
    how.decode = SAC_DECODE_EXACT;
    assert_int_equal(hash_of(&how, "cat.jpg"), fast);
}

/* A grey PNG of make_pixels, and the rows and columns from (x, y) on. */
static void assert_cropped(int width, int height, int crop_width, int crop_height, int x, int y)
{
    struct bytes file = make_grey_png(width, height, false);
    struct sac_preprocess how = sac_preprocess_default(3, crop_width, crop_height);
    uint8_t *pixels = make_pixels(width, height, 1), *dst = malloc(3 * 64 * 64);
    struct sac_error err = {0};

    how.resize = SAC_RESIZE_NONE;
    assert_ok(run(&how, file, dst, &err), err);
    for (int row = 0; row < crop_height; row++)
        for (int i = 0; i < crop_width * 3; i++)
            assert_int_equal(dst[row * crop_width * 3 + i], pixels[(y + row) * width + x + i / 3]);
    free(dst);
    free(pixels);
    free(file.data);
}

static void a_crop_begins_at_half_of_what_is_left_rounded_down(void **state)
{
    (void)state;
    assert_cropped(40, 30, 40, 30, 0, 0);
    assert_cropped(40, 30, 39, 27, 0, 1);
    assert_cropped(41, 33, 10, 10, 15, 11);
    assert_cropped(40, 30, 1, 1, 19, 14);
}

/* With a crop as large as what the aspect rule gives, nothing may be left out:
 * the short side 10, the other floor(long · 10 / short + 1/2). */
static void assert_short(int width, int height, int becomes_width, int becomes_height)
{
    struct bytes file = make_grey_png(width, height, false);
    struct sac_preprocess how = sac_preprocess_default(1, becomes_width, becomes_height);
    struct sac_resize_scratch scratch = {0};
    struct sac_error err = {0};
    uint8_t *pixels = make_pixels(width, height, 1), dst[400], expected[400];
    struct sac_image image = {
        .width = width, .height = height, .channels = 1, .stride = (size_t)width, .pixels = pixels};

    how.resize = SAC_RESIZE_SHORT;
    how.resize_width = 10;
    assert_ok(run(&how, file, dst, &err), err);
    assert_ok(sac_resize_bilinear(&image, becomes_width, becomes_height, expected,
                                  (size_t)becomes_width, &scratch, &err),
              err);
    assert_memory_equal(dst, expected, (size_t)(becomes_width * becomes_height));
    /* and one more does not fit */
    how.crop_width += width >= height;
    how.crop_height += height >= width;
    assert_int_equal(run(&how, file, dst, NULL), SAC_EINVAL);
    free(scratch.memory);
    free(pixels);
    free(file.data);
}

static void the_short_side_keeps_the_aspect_rounding_half_up(void **state)
{
    (void)state;
    assert_short(40, 20, 20, 10);
    assert_short(20, 40, 10, 20);
    assert_short(40, 40, 10, 10);
    assert_short(25, 20, 13, 10); /* 12.5 */
    assert_short(20, 25, 10, 13);
    assert_short(31, 25, 12, 10); /* 12.4 */
    assert_short(7, 5, 14, 10);   /* larger */
}

static void a_resized_crop_is_that_part_of_the_whole(void **state)
{
    struct bytes file = make_rgb_jpeg(97, 61, false);
    struct sac_preprocess how = sac_preprocess_default(3, 50, 40);
    uint8_t whole[50 * 40 * 3], part[21 * 17 * 3];
    struct sac_error err = {0};

    (void)state;
    assert_ok(run(&how, file, whole, &err), err);
    how = sac_preprocess_default(3, 21, 17);
    how.resize_width = 50;
    how.resize_height = 40;
    assert_ok(run(&how, file, part, &err), err);
    for (int y = 0; y < 17; y++)
        assert_memory_equal(part + y * 21 * 3, whole + ((11 + y) * 50 + 14) * 3, 21 * 3);
    free(file.data);
}

static void a_picture_smaller_than_the_crop_is_refused_with_both_sizes(void **state)
{
    struct bytes file = make_grey_png(40, 30, false);
    struct sac_preprocess how = sac_preprocess_default(1, 41, 20);
    struct sac_error err = {0};
    uint8_t dst[41 * 20];

    (void)state;
    how.resize = SAC_RESIZE_NONE;
    assert_int_equal(run(&how, file, dst, &err), SAC_EINVAL);
    assert_says(err, "40 × 30");
    assert_says(err, "41 × 20");
    free(file.data);
}

static void sizes_that_make_no_sense_are_refused(void **state)
{
    struct bytes file = make_grey_png(40, 30, false);
    struct sac_preprocess how = sac_preprocess_default(1, 0, 20);
    uint8_t dst[20 * 20];

    (void)state;
    assert_int_equal(run(&how, file, dst, NULL), SAC_EINVAL);
    how = sac_preprocess_default(1, 20, -20);
    assert_int_equal(run(&how, file, dst, NULL), SAC_EINVAL);
    how = sac_preprocess_default(1, 20, 20);
    how.resize_width = 1 << 30;
    assert_int_equal(run(&how, file, dst, NULL), SAC_EINVAL);
    how.resize_width = 19; /* less than the crop */
    assert_int_equal(run(&how, file, dst, NULL), SAC_EINVAL);
    how.resize = SAC_RESIZE_SHORT;
    how.resize_width = 30;
    how.resize_height = 31;
    assert_int_equal(run(&how, file, dst, NULL), SAC_EINVAL);
    how = sac_preprocess_default(2, 20, 20);
    assert_int_equal(run(&how, file, dst, NULL), SAC_EINVAL);
    free(file.data);
}

/* 1 × 16384 with the short side to 20,000 is 327,680,000 high, of which 4 rows are made. */
static void thin_pictures_do_not_balloon(void **state)
{
    struct bytes file = make_grey_png(1, 16384, false);
    struct sac_preprocess how = sac_preprocess_default(1, 4, 4);
    struct sac_error err = {0};
    uint8_t dst[16];

    (void)state;
    how.resize = SAC_RESIZE_SHORT;
    how.resize_width = 20000;
    assert_ok(run(&how, file, dst, &err), err);
    uint8_t *pixels = make_pixels(1, 16384, 1);
    for (int i = 0; i < 16; i++)
        assert_in_range(dst[i], pixels[8191] - 1, pixels[8192] + 1);
    how.resize_width = 32768; /* 536,870,912: the bound is INT32_MAX / 4 */
    assert_int_equal(run(&how, file, dst, &err), SAC_ELIMIT);
    assert_says(err, "1 × 16384 is too long and thin");
    free(pixels);
    free(file.data);
}

static void limits_background_and_cancellation_reach_the_decoder(void **state)
{
    struct bytes file = picture_read("png/primary/tbbn0g04.png"); /* transparent corner */
    struct sac_preprocess how = sac_preprocess_default(3, 32, 32);
    atomic_bool canceled = true;
    struct sac_error err = {0};
    uint8_t black[32 * 32 * 3], blue[32 * 32 * 3];

    (void)state;
    assert_ok(run(&how, file, black, &err), err);
    how.background[2] = 255;
    assert_ok(run(&how, file, blue, &err), err);
    assert_memory_equal(black, ((uint8_t[]){0, 0, 0}), 3);
    assert_memory_equal(blue, ((uint8_t[]){0, 0, 255}), 3);
    how.limits.side_max = 31;
    assert_int_equal(run(&how, file, black, NULL), SAC_ELIMIT);
    how.limits.side_max = 0;
    assert_int_equal(
        sac_preprocess_pixels(&how, decoder, file.data, file.size, &canceled, black, NULL),
        SAC_ECANCELED);
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_is_gpu_rest_engines),
        cmocka_unit_test(each_way_gives_what_opencv_gives),
        cmocka_unit_test(fast_decoding_shrinks_only_where_the_picture_still_covers),
        cmocka_unit_test(a_crop_begins_at_half_of_what_is_left_rounded_down),
        cmocka_unit_test(the_short_side_keeps_the_aspect_rounding_half_up),
        cmocka_unit_test(a_resized_crop_is_that_part_of_the_whole),
        cmocka_unit_test(a_picture_smaller_than_the_crop_is_refused_with_both_sizes),
        cmocka_unit_test(sizes_that_make_no_sense_are_refused),
        cmocka_unit_test(thin_pictures_do_not_balloon),
        cmocka_unit_test(limits_background_and_cancellation_reach_the_decoder),
    };

    return cmocka_run_group_tests(tests, make_decoder, free_decoder);
}
