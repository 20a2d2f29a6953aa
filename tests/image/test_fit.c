#include "pictures.h"

#include "image/encode.h"
#include "image/fit.h"

/* Computed by hand from the ratios that DIGITS' resize_image() has: 400 × 200 and
 * 200 × 400 to 100 × 100 (ratios 4 and 2), 333 × 250 to 256 × 256, and extremes. */
static void plans_follow_digits_ratios(void **state)
{
    static const struct {
        enum sac_fit_mode mode;
        int from[2], to[2];
        struct sac_fit_plan plan;
    } cases[] = {
        {SAC_FIT_SQUASH, {400, 200}, {100, 100}, {100, 100, 0, 0, 100, 100, 0, 0}},
        {SAC_FIT_CROP, {400, 200}, {100, 100}, {200, 100, 50, 0, 100, 100, 0, 0}},
        {SAC_FIT_CROP, {200, 400}, {100, 100}, {100, 200, 0, 50, 100, 100, 0, 0}},
        {SAC_FIT_CROP, {333, 250}, {256, 256}, {341, 256, 42, 0, 256, 256, 0, 0}},
        {SAC_FIT_FILL, {400, 200}, {100, 100}, {100, 50, 0, 0, 100, 50, 0, 25}},
        {SAC_FIT_FILL, {200, 400}, {100, 100}, {50, 100, 0, 0, 50, 100, 25, 0}},
        /* 250 / (333 / 256) = 192.19: 192, and 64 are padded */
        {SAC_FIT_FILL, {333, 250}, {256, 256}, {256, 192, 0, 0, 256, 192, 0, 32}},
        /* 100 / 3 = 33.3: 33, where 67 left over are odd: 34 */
        {SAC_FIT_FILL, {300, 100}, {100, 100}, {100, 34, 0, 0, 100, 34, 0, 33}},
        /* by 3: 133.3 and 66.7; 33 left over are odd: 68 */
        {SAC_FIT_HALF_CROP, {400, 200}, {100, 100}, {133, 68, 16, 0, 100, 68, 0, 16}},
        {SAC_FIT_HALF_CROP, {200, 400}, {100, 100}, {68, 133, 0, 16, 68, 100, 16, 0}},
        {SAC_FIT_FILL, {50, 50}, {100, 100}, {100, 100, 0, 0, 100, 100, 0, 0}},
        {SAC_FIT_FILL, {5000, 1}, {10, 10}, {10, 2, 0, 0, 10, 2, 0, 4}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_fit fit = {.mode = cases[i].mode,
                              .width = cases[i].to[0],
                              .height = cases[i].to[1],
                              .channels = 3};
        struct sac_fit_plan plan;
        struct sac_error err = {0};
        assert_ok(sac_fit_plan(&fit, cases[i].from[0], cases[i].from[1], &plan, &err), err);
        assert_memory_equal(&plan, &cases[i].plan, sizeof plan);
    }
}

static void sizes_that_are_none_are_refused(void **state)
{
    struct sac_fit fit = {.mode = SAC_FIT_CROP, .width = 0, .height = 5, .channels = 3};
    struct sac_fit_plan plan;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_fit_plan(&fit, 5, 5, &plan, &err), SAC_EINVAL);
    assert_says(err, "0 × 5");
    err = (struct sac_error){0};
    fit = (struct sac_fit){.mode = SAC_FIT_CROP, .width = 16384, .height = 16384, .channels = 3};
    assert_int_equal(sac_fit_plan(&fit, 16384, 1, &plan, &err), 0);
    fit.channels = 2;
    assert_int_equal(sac_fit_plan(&fit, 5, 5, &plan, &err), SAC_EINVAL);
}

static struct bytes some_jpeg(void)
{
    return make_rgb_jpeg(90, 61, false);
}

/* The pixels are those that serving makes of the same bytes. */
static void squash_and_crop_are_the_preprocessing_of_serving(void **state)
{
    struct bytes file = some_jpeg();
    struct sac_decoder *decoder;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_decoder_new(&decoder, &err), err);
    for (int i = 0; i < 8; i++) {
        uint8_t expected[32 * 32 * 3], got[32 * 32 * 3];
        int channels = i & 4 ? 1 : 3;
        enum sac_decode_mode mode = i & 2 ? SAC_DECODE_EXACT : SAC_DECODE_FAST;
        struct sac_preprocess how = sac_preprocess_default(channels, 32, 32);
        struct sac_fit fit = {.mode = i & 1 ? SAC_FIT_CROP : SAC_FIT_SQUASH,
                              .width = 32,
                              .height = 32,
                              .channels = channels,
                              .decode = mode};
        how.resize = i & 1 ? SAC_RESIZE_SHORT : SAC_RESIZE_SQUASH;
        how.decode = mode;
        size_t size = (size_t)(32 * 32 * channels);
        assert_ok(sac_preprocess_pixels(&how, decoder, file.data, file.size, NULL, expected, &err),
                  err);
        assert_ok(sac_fit_pixels(&fit, decoder, file.data, file.size, 1, got, &err), err);
        assert_memory_equal(got, expected, size);
    }
    sac_decoder_free(decoder);
    free(file.data);
}

static void fill_has_the_picture_in_the_middle_of_noise(void **state)
{
    uint8_t *pixels = make_pixels(40, 20, 3), got[2][40 * 40 * 3], other[40 * 40 * 3];
    struct sac_image image = {
        .width = 40, .height = 20, .channels = 3, .stride = 120, .pixels = pixels};
    struct sac_fit fit = {.mode = SAC_FIT_FILL, .width = 40, .height = 40, .channels = 3};
    struct sac_resize_scratch scratch = {0};
    struct sac_error err = {0};
    int seen[256] = {0}, values = 0;

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_ok(sac_fit_image(&fit, &image, 7, &scratch, got[i], &err), err);
    assert_ok(sac_fit_image(&fit, &image, 8, &scratch, other, &err), err);
    assert_memory_equal(got[0], got[1], sizeof got[0]);
    assert_memory_equal(got[0] + 10 * 120, pixels, 20 * 120);
    assert_memory_equal(other + 10 * 120, pixels, 20 * 120);
    assert_memory_not_equal(got[0], other, 10 * 120);
    for (int i = 0; i < 10 * 120; i++) {
        seen[got[0][i]]++;
        seen[got[0][30 * 120 + i]]++;
    }
    for (int i = 0; i < 256; i++)
        values += seen[i] > 0;
    assert_true(values > 240); /* of 2,400 uniform bytes 256 are expected */
    free(scratch.memory);
    free(pixels);
}

static void half_crop_scales_by_the_mean_ratio(void **state)
{
    uint8_t *pixels = make_pixels(40, 20, 1), got[20 * 20], whole[28 * 14];
    struct sac_image image = {
        .width = 40, .height = 20, .channels = 1, .stride = 40, .pixels = pixels};
    struct sac_fit fit = {.mode = SAC_FIT_HALF_CROP, .width = 20, .height = 20, .channels = 1};
    struct sac_resize_scratch scratch = {0};
    struct sac_error err = {0};

    (void)state; /* by 1.5: 26.7 and 13.3; 7 left over are odd: 14. Columns from 3. */
    assert_ok(sac_fit_image(&fit, &image, 7, &scratch, got, &err), err);
    assert_ok(sac_resize_bilinear(&image, 27, 14, whole, 27, &scratch, &err), err);
    for (int y = 0; y < 14; y++)
        assert_memory_equal(got + (3 + y) * 20, whole + y * 27 + 3, 20);
    free(scratch.memory);
    free(pixels);
}

static void a_damaged_picture_is_refused_as_the_decoder_does(void **state)
{
    struct bytes file = some_jpeg();
    struct sac_fit fit = {.mode = SAC_FIT_FILL, .width = 20, .height = 20, .channels = 3};
    struct sac_decoder *decoder;
    struct sac_error err = {0};
    uint8_t got[20 * 20 * 3];

    (void)state;
    assert_ok(sac_decoder_new(&decoder, &err), err);
    assert_int_equal(sac_fit_pixels(&fit, decoder, file.data, file.size / 2, 1, got, &err),
                     SAC_EFORMAT);
    err = (struct sac_error){0};
    assert_int_equal(sac_fit_pixels(&fit, decoder, (const uint8_t *)"text", 4, 1, got, &err),
                     SAC_EUNSUPPORTED);
    sac_decoder_free(decoder);
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_follow_digits_ratios),
        cmocka_unit_test(sizes_that_are_none_are_refused),
        cmocka_unit_test(squash_and_crop_are_the_preprocessing_of_serving),
        cmocka_unit_test(fill_has_the_picture_in_the_middle_of_noise),
        cmocka_unit_test(half_crop_scales_by_the_mean_ratio),
        cmocka_unit_test(a_damaged_picture_is_refused_as_the_decoder_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
