#include "pictures.h"

#include "image/decoder.h"
#include "image/resize_kernels.h"

/* The pattern that the numbers below were made from: numpy, uint8,
 * (37 x + 61 y + 97 c + 5 x y) mod 256. */
static struct sac_image pattern(int width, int height, int channels)
{
    size_t stride = (size_t)width * (size_t)channels;
    uint8_t *pixels = malloc(stride * (size_t)height);
    struct sac_image image = {
        .width = width, .height = height, .channels = channels, .stride = stride, .pixels = pixels};

    assert_non_null(pixels);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++)
                pixels[(size_t)y * stride + (size_t)(x * channels + c)] =
                    (uint8_t)(37 * x + 61 * y + 97 * c + 5 * x * y);
    return image;
}

static uint8_t *resized(const struct sac_image *src, int width, int height)
{
    size_t stride = (size_t)width * (size_t)src->channels;
    struct sac_resize_scratch scratch = {0};
    struct sac_error err = {0};
    uint8_t *dst = malloc(stride * (size_t)height);

    assert_non_null(dst);
    assert_ok(sac_resize_bilinear(src, width, height, dst, stride, &scratch, &err), err);
    free(scratch.memory);
    return dst;
}

static void assert_resizes(int width, int height, int channels, int to_width, int to_height,
                           const uint8_t *expected)
{
    struct sac_image src = pattern(width, height, channels);
    uint8_t *dst = resized(&src, to_width, to_height);

    assert_memory_equal(dst, expected, (size_t)(to_width * to_height * channels));
    free(dst);
    free((void *)src.pixels);
}

/* Expected: cv2.resize(…, interpolation=cv2.INTER_LINEAR) of OpenCV 4.6.0. */
static void small_pictures_are_opencvs_to_the_bit(void **state)
{
    (void)state;
    assert_resizes(4, 3, 1, 7, 5,
                   (const uint8_t[]){0,   13,  34,  55, 77,  98,  111, 24,  38,  60, 83,  105,
                                     127, 141, 61,  76, 100, 124, 148, 172, 187, 97, 114, 139,
                                     165, 180, 118, 79, 122, 139, 165, 192, 201, 82, 7});
    assert_resizes(5, 4, 3, 3, 2,
                   (const uint8_t[]){44, 141, 195, 110, 207, 48, 175, 144, 113, 169, 95, 107, 124,
                                     93, 190, 78, 175, 144});
    assert_resizes(3, 3, 3, 4, 4,
                   (const uint8_t[]){0,   97,  194, 23,  120, 217, 51,  148, 149, 74,  171, 12,
                                     38,  135, 232, 63,  160, 157, 93,  190, 91,  118, 215, 56,
                                     84,  181, 182, 111, 148, 109, 144, 145, 82,  172, 173, 110,
                                     122, 219, 60,  151, 88,  89,  187, 27,  125, 216, 57,  154});
    assert_resizes(6, 6, 1, 3, 3, (const uint8_t[]){50, 129, 144, 177, 84, 119, 112, 167, 94});
}

static void pictures_one_pixel_wide_or_high_are_opencvs(void **state)
{
    (void)state;
    assert_resizes(1, 4, 3, 3, 2,
                   (const uint8_t[]){31, 128, 225, 31, 128, 225, 31, 128, 225, 153, 122, 91, 153,
                                     122, 91, 153, 122, 91});
    assert_resizes(7, 1, 1, 4, 3,
                   (const uint8_t[]){14, 78, 143, 208, 14, 79, 143, 208, 14, 78, 143, 208});
}

/* FNV-1a of what OpenCV 4.6.0 makes, so each bit must agree. */
static void larger_pictures_are_opencvs_to_the_bit(void **state)
{
    static const struct {
        int width, height, channels, to_width, to_height;
        uint32_t hash;
    } cases[] = {
        {500, 375, 3, 227, 227, 0x8b776a32}, {640, 480, 3, 256, 256, 0x47df7429},
        {100, 80, 3, 227, 227, 0x195b6ebb},  {333, 500, 1, 224, 224, 0x53a71ad7},
        {454, 454, 3, 227, 227, 0xf84d2e3c}, {17, 900, 3, 300, 31, 0xd6b0077e},
        {1, 1, 3, 5, 5, 0xe74ff760},         {2, 2, 3, 64, 64, 0x06d9772a},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_image src = pattern(cases[i].width, cases[i].height, cases[i].channels);
        uint8_t *dst = resized(&src, cases[i].to_width, cases[i].to_height);
        size_t size = (size_t)(cases[i].to_width * cases[i].to_height * cases[i].channels);
        assert_int_equal(picture_hash(dst, size), cases[i].hash);
        free(dst);
        free((void *)src.pixels);
    }
}

static void the_same_size_changes_nothing(void **state)
{
    struct sac_image src = pattern(37, 23, 3);
    uint8_t *dst = resized(&src, 37, 23);

    (void)state;
    assert_memory_equal(dst, src.pixels, 37 * 23 * 3);
    free(dst);
    free((void *)src.pixels);
}

static void rows_may_lie_apart_on_both_sides(void **state)
{
    struct sac_image src = pattern(20, 10, 3), part = src;
    struct sac_resize_scratch scratch = {0};
    struct sac_error err = {0};
    uint8_t apart[6 * 40];

    (void)state;
    part.width = 7; /* of the 20, the first 7 columns, as if cut out */
    uint8_t cut[10 * 21];
    for (int y = 0; y < 10; y++)
        memcpy(cut + y * 21, src.pixels + (size_t)y * src.stride, 21);
    struct sac_image packed = {
        .width = 7, .height = 10, .channels = 3, .stride = 21, .pixels = cut};
    uint8_t *expected = resized(&packed, 9, 6);
    memset(apart, 0xee, sizeof apart);
    assert_ok(sac_resize_bilinear(&part, 9, 6, apart, 40, &scratch, &err), err);
    for (int y = 0; y < 6; y++) {
        assert_memory_equal(apart + y * 40, expected + y * 27, 27);
        for (int i = 27; i < 40; i++)
            assert_int_equal(apart[y * 40 + i], 0xee);
    }
    free(expected);
    free(scratch.memory);
    free((void *)src.pixels);
}

static void scratch_memory_is_used_again(void **state)
{
    struct sac_image src = pattern(50, 40, 3);
    struct sac_resize_scratch scratch = {0};
    struct sac_error err = {0};
    uint8_t dst[30 * 30 * 3];

    (void)state;
    assert_ok(sac_resize_bilinear(&src, 30, 30, dst, 90, &scratch, &err), err);
    void *memory = scratch.memory;
    size_t size = scratch.size;
    for (int side = 1; side <= 30; side++)
        assert_ok(sac_resize_bilinear(&src, side, side, dst, 90, &scratch, &err), err);
    assert_ptr_equal(scratch.memory, memory);
    assert_int_equal(scratch.size, size);
    free(scratch.memory);
    free((void *)src.pixels);
}

enum { WIDTH = 229, SOURCE = 613 };

/* Columns with every kind of weights, the last ones at the row's end. */
static struct sac_resize_columns make_columns(int channels, struct sac_resize_tap *taps,
                                              int16_t *weights)
{
    for (int x = 0; x < WIDTH; x++) {
        int at = x * (SOURCE - 2) / (WIDTH - 1), second = x * 2048 / (WIDTH - 1);
        taps[x] = (struct sac_resize_tap){at * channels, (int16_t)(2048 - second), (int16_t)second};
        for (int i = 0; i < SAC_RESIZE_WEIGHTS; i++)
            weights[x * SAC_RESIZE_WEIGHTS + i] = i % 2 ? taps[x].second : taps[x].first;
    }
    return (struct sac_resize_columns){channels, WIDTH,   channels, SOURCE * channels,
                                       taps,     weights, NULL};
}

static void assert_kernels_agree(const struct sac_resize_kernels *a,
                                 const struct sac_resize_kernels *b, int channels)
{
    static struct sac_resize_tap taps[WIDTH];
    static int16_t weights[WIDTH * SAC_RESIZE_WEIGHTS];
    static int16_t sums[4][WIDTH * 3 + SAC_RESIZE_SPARE];
    static struct sac_resize_group groups[WIDTH];
    struct sac_resize_columns columns = make_columns(channels, taps, weights);
    uint8_t *rows = make_noise(SOURCE, 2, channels), out[2][WIDTH * 3];
    struct sac_resize_tap blend = {0, 700, 1348};

    if (a->groups && channels == 3) {
        assert_int_equal(sac_resize_group_count(&columns), (WIDTH + 4) / 5);
        assert_true(sac_resize_group_columns(&columns, groups));
        columns.groups = groups;
    }
    for (int y = 0; y < 2; y++) {
        a->sum(&columns, rows + y * SOURCE * channels, sums[y]);
        b->sum(&columns, rows + y * SOURCE * channels, sums[2 + y]);
        assert_memory_equal(sums[y], sums[2 + y], (size_t)(WIDTH * channels) * 2);
    }
    a->blend(sums[0], sums[1], blend, WIDTH * channels, out[0]);
    b->blend(sums[0], sums[1], blend, WIDTH * channels, out[1]);
    assert_memory_equal(out[0], out[1], (size_t)(WIDTH * channels));
    free(rows);
}

/* The plain one is OpenCV's to the bit, and so all are. */
static void every_instruction_set_gives_the_same_bits(void **state)
{
    const struct sac_resize_kernels *plain = NULL;
    int count = 0;

    (void)state;
    while (sac_resize_kernels_of(count))
        plain = sac_resize_kernels_of(count++);
    assert_string_equal(plain->name, "plain");
    for (int i = 0; i < count - 1; i++) {
        assert_kernels_agree(sac_resize_kernels_of(i), plain, 3);
        assert_kernels_agree(sac_resize_kernels_of(i), plain, 1);
    }
}

/* The last column's two pixels end 3 · last + 6 bytes behind the first's begin. */
static void columns_far_apart_are_not_grouped(void **state)
{
    struct sac_resize_tap taps[5];
    struct sac_resize_group group;
    int16_t weights[5 * SAC_RESIZE_WEIGHTS] = {0};
    struct sac_resize_columns columns = {3, 5, 3, 3000, taps, weights, NULL};

    (void)state;
    for (int last = 18; last < 22; last++) {
        for (int x = 0; x < 5; x++)
            taps[x] = (struct sac_resize_tap){3 * (x < 4 ? x : last), 2048, 0};
        assert_int_equal(sac_resize_group_columns(&columns, &group), 3 * last + 6 <= 64);
    }
    columns.channels = columns.next = 1;
    assert_int_equal(sac_resize_group_count(&columns), 0);
}

/* The widest and the narrowest cuts, against the plain loop of one column at a time. */
static void steep_pictures_resize_alike_with_and_without_groups(void **state)
{
    struct sac_image src = pattern(640, 8, 3);
    struct sac_resize_scratch scratch = {0};
    struct sac_error err = {0};
    uint8_t all[200 * 4 * 3], part[200 * 4 * 3];

    (void)state;
    for (int width = 20; width <= 200; width += 15) {
        assert_ok(sac_resize_bilinear(&src, width, 4, all, 600, &scratch, &err), err);
        for (int x = 0; x < width; x++) { /* of one column alone, no group holds another */
            struct sac_resize_window window = {width, 4, x, 0, 1, 4};
            assert_ok(sac_resize_bilinear_window(&src, &window, part, 3, &scratch, &err), err);
            for (int y = 0; y < 4; y++)
                assert_memory_equal(part + 3 * y, all + 600 * y + 3 * x, 3);
        }
    }
    free(scratch.memory);
    free((void *)src.pixels);
}

static void sizes_that_make_no_sense_are_refused(void **state)
{
    struct sac_image src = pattern(4, 4, 3), empty = src, four = src;
    struct sac_resize_scratch scratch = {0};
    uint8_t dst[12];

    (void)state;
    empty.width = 0;
    four.channels = 4;
    assert_int_equal(sac_resize_bilinear(&src, 0, 2, dst, 12, &scratch, NULL), SAC_EINVAL);
    assert_int_equal(sac_resize_bilinear(&src, 2, -1, dst, 12, &scratch, NULL), SAC_EINVAL);
    assert_int_equal(sac_resize_bilinear(&empty, 1, 1, dst, 12, &scratch, NULL), SAC_EINVAL);
    assert_int_equal(sac_resize_bilinear(&four, 1, 1, dst, 12, &scratch, NULL), SAC_EINVAL);
    assert_null(scratch.memory);
    free((void *)src.pixels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_pictures_are_opencvs_to_the_bit),
        cmocka_unit_test(pictures_one_pixel_wide_or_high_are_opencvs),
        cmocka_unit_test(larger_pictures_are_opencvs_to_the_bit),
        cmocka_unit_test(the_same_size_changes_nothing),
        cmocka_unit_test(rows_may_lie_apart_on_both_sides),
        cmocka_unit_test(scratch_memory_is_used_again),
        cmocka_unit_test(every_instruction_set_gives_the_same_bits),
        cmocka_unit_test(columns_far_apart_are_not_grouped),
        cmocka_unit_test(steep_pictures_resize_alike_with_and_without_groups),
        cmocka_unit_test(sizes_that_make_no_sense_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
