#include "makers.h"

#include <math.h>

#include "data/augment.h"

static bool near(float a, float b)
{
    return fabsf(a - b) < 1e-3f;
}

/* Planes R, G, B of two pixels, worked by hand from the formulas in transform.h. */
static void brightness_and_contrast_follow_their_formulas(void **state)
{
    float planes[6] = {100, 0, 50, 0, 200, 10};

    (void)state;
    sac_augment_brightness(planes, 6, 1.5f);
    assert_true(near(planes[0], 150) && near(planes[2], 75) && near(planes[4], 255) &&
                near(planes[5], 15));
    sac_augment_contrast(planes, 6, 59.8275f, .5f);
    assert_true(near(planes[0], (150 + 59.8275f) / 2) && near(planes[3], 59.8275f / 2) &&
                near(planes[4], (255 + 59.8275f) / 2));
}

/* The same two pixels: .299·150 + .587·75 + .114·255 = 117.945 and .114·15 = 1.71. */
static void grey_is_the_mean_luma_of_what_was_made_brighter(void **state)
{
    const uint8_t planes[3][2] = {{100, 0}, {50, 0}, {200, 10}};
    struct sac_augment_histogram h = {.channels = 3, .rgb = true}, grey = {.channels = 1};

    (void)state;
    for (int i = 0; i < 6; i++)
        h.counts[i / 2][planes[i / 2][i % 2]]++;
    assert_true(near(sac_augment_grey(&h, 1.5f), (117.945f + 1.71f) / 2));
    h.rgb = false; /* blue first: .114·150 + .587·75 + .299·255 and .299·15 */
    assert_true(near(sac_augment_grey(&h, 1.5f), (17.1f + 44.025f + 76.245f + 4.485f) / 2));
    grey.counts[0][10] = 3;
    grey.counts[0][250] = 1;
    assert_true(near(sac_augment_grey(&grey, 1), 70));
    assert_true(near(sac_augment_grey(&grey, 2), (60 + 255) / 4.f));
}

static void saturation_zero_is_grey_whatever_the_planes_order(void **state)
{
    float rgb[3] = {200, 100, 50}, bgr[3] = {50, 100, 200};

    (void)state;
    sac_augment_saturation(rgb, 1, true, 0);
    sac_augment_saturation(bgr, 1, false, 0);
    for (int c = 0; c < 3; c++) /* .299·200 + .587·100 + .114·50 = 124.2 */
        assert_true(near(rgb[c], 124.2f) && near(bgr[c], 124.2f));
}

static void hue_turns_red_to_green_to_blue(void **state)
{
    float planes[3] = {255, 0, 0}, any[3] = {10, 60, 200}, bgr[3] = {0, 0, 255};

    (void)state;
    sac_augment_hue(planes, 1, true, 1.f / 3);
    assert_true(near(planes[0], 0) && near(planes[1], 255) && near(planes[2], 0));
    sac_augment_hue(planes, 1, true, 1.f / 3);
    assert_true(near(planes[0], 0) && near(planes[1], 0) && near(planes[2], 255));
    sac_augment_hue(bgr, 1, false, -1.f / 6); /* red to magenta */
    assert_true(near(bgr[0], 255) && near(bgr[1], 0) && near(bgr[2], 255));
    sac_augment_hue(any, 1, true, .37f);
    sac_augment_hue(any, 1, true, -.37f);
    assert_true(near(any[0], 10) && near(any[1], 60) && near(any[2], 200));
}

static void a_turn_of_90_degrees_moves_each_pixel(void **state)
{
    enum { N = 5 };
    float from[2 * N * N], to[2 * N * N];
    struct sac_augment_window window = {N / 2.f, N / 2.f, N, N, (float)(M_PI / 2)};

    (void)state;
    for (int i = 0; i < 2 * N * N; i++)
        from[i] = (float)(i * i % 97);
    sac_augment_sample(&window, from, 2, N, N, to, N, N);
    for (int c = 0; c < 2; c++)
        for (int y = 0; y < N; y++)
            for (int x = 0; x < N; x++) /* what is at (u, v) from the centre came from (−v, u) */
                assert_true(near(to[(c * N + y) * N + x], from[(c * N + x) * N + (N - 1 - y)]));
}

/* Bilinear is exact on a plane a + b·x + c·y, inside of the outer centres. */
static void a_window_is_sampled_where_it_lies(void **state)
{
    float from[20 * 30], to[6 * 4];
    struct sac_augment_window window = {14, 9, 12, 6, 0};

    (void)state;
    for (int y = 0; y < 20; y++)
        for (int x = 0; x < 30; x++)
            from[y * 30 + x] = 3 + .5f * ((float)x + .5f) - 2 * ((float)y + .5f);
    sac_augment_sample(&window, from, 1, 30, 20, to, 6, 4);
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 6; x++)
            assert_true(near(to[y * 6 + x], 3 + .5f * (8 + 2 * ((float)x + .5f)) -
                                                2 * (6 + 1.5f * ((float)y + .5f))));
}

static void drawn_windows_keep_to_their_bounds(void **state)
{
    struct sac_augment augment = {.area_min = .2f, .rotation = 30};
    float least = 1, most = 0, left = 1e9f;

    (void)state;
    for (uint64_t i = 0; i < 2000; i++) {
        struct sac_random random = sac_random_stream(1, SAC_RANDOM_ITEM, 0, i);
        struct sac_augment_window w = sac_augment_draw_window(&augment, &random, 80, 60, 32, 32);
        float area = w.width * w.height / 4800, sides = w.width / w.height;
        assert_true(area > .1999f && area < 1.0001f && sides > .7499f && sides < 1.3334f);
        assert_true(w.center_x - w.width / 2 > -.001f && w.center_x + w.width / 2 < 80.001f);
        assert_true(w.center_y - w.height / 2 > -.001f && w.center_y + w.height / 2 < 60.001f);
        assert_true(fabsf(w.angle) <= (float)(M_PI / 6) + 1e-5f);
        least = fminf(least, area);
        most = fmaxf(most, area);
        left = fminf(left, w.center_x - w.width / 2);
    }
    assert_true(least < .21f && most > .9f && left < 1);
}

static void noise_has_its_deviation(void **state)
{
    static float values[40000];
    struct sac_random random = sac_random_stream(1, SAC_RANDOM_ITEM, 0, 0);
    struct sac_crop_change change;
    double sum = 0, squares = 0;

    (void)state;
    sac_augment_draw_noise(&random, 40000, &change);
    sac_augment_noise(&change, values, 40000, 3);
    for (int i = 0; i < 40000; i++) {
        sum += (double)values[i] / 40000;
        squares += (double)values[i] * (double)values[i] / 40000;
    }
    assert_true(fabs(sum) < .06 && fabs(squares - 9) < .3);
}

/* Wherever in a block of the stream it begins: as if the numbers were taken one by one. */
static void noise_is_of_the_numbers_that_come_next(void **state)
{
    (void)state;
    for (int before = 0; before < 9; before++) {
        struct sac_random random = sac_random_stream(7, SAC_RANDOM_ITEM, 1, 2), same = random;
        struct sac_crop_change change;
        float values[11] = {0};
        for (int i = 0; i < before; i++)
            assert_int_equal(sac_random_u32(&random), sac_random_u32(&same));
        sac_augment_draw_noise(&random, 11, &change);
        sac_augment_noise(&change, values, 11, 1);
        for (int i = 0; i < 11; i++)
            assert_true(values[i] == sac_random_normal(&same));
        assert_int_equal(sac_random_u32(&random), sac_random_u32(&same));
    }
}

static void cutout_clears_one_clipped_square_in_all_planes(void **state)
{
    int most = 0, least = 1000;

    (void)state;
    for (uint64_t n = 0; n < 500; n++) {
        float planes[2 * 10 * 12];
        int shape[3] = {2, 10, 12}, zeros[2] = {0}, top = 99, bottom = -1, left = 99, right = -1;
        struct sac_random random = sac_random_stream(1, SAC_RANDOM_ITEM, 0, n);
        struct sac_crop_change change;
        for (int i = 0; i < 240; i++)
            planes[i] = 1;
        sac_augment_draw_cutout(&random, shape, 4, &change);
        sac_augment_cutout(&change, planes, shape);
        for (int i = 0; i < 240; i++) {
            if (planes[i] != 0)
                continue;
            zeros[i / 120]++;
            int y = i % 120 / 12, x = i % 12;
            top = y < top ? y : top;
            bottom = y > bottom ? y : bottom;
            left = x < left ? x : left;
            right = x > right ? x : right;
        }
        assert_int_equal(zeros[0], zeros[1]);
        assert_int_equal(zeros[0], (bottom - top + 1) * (right - left + 1));
        assert_true(bottom - top < 4 && right - left < 4);
        most = zeros[0] > most ? zeros[0] : most;
        least = zeros[0] < least ? zeros[0] : least;
    }
    assert_int_equal(most, 16);
    assert_int_equal(least, 4); /* a corner: the centre is inside */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brightness_and_contrast_follow_their_formulas),
        cmocka_unit_test(grey_is_the_mean_luma_of_what_was_made_brighter),
        cmocka_unit_test(saturation_zero_is_grey_whatever_the_planes_order),
        cmocka_unit_test(hue_turns_red_to_green_to_blue),
        cmocka_unit_test(a_turn_of_90_degrees_moves_each_pixel),
        cmocka_unit_test(a_window_is_sampled_where_it_lies),
        cmocka_unit_test(drawn_windows_keep_to_their_bounds),
        cmocka_unit_test(noise_has_its_deviation),
        cmocka_unit_test(noise_is_of_the_numbers_that_come_next),
        cmocka_unit_test(cutout_clears_one_clipped_square_in_all_planes),
    };

    return cmocka_run_group_tests_name("data/augment", tests, NULL, NULL);
}
