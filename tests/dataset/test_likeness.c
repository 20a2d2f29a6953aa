#include "pictures.h"

#include <math.h>

#include "base/random.h"
#include "dataset/likeness.h"
#include "image/encode.h"

static double grid(int number, int x, int y, int c)
{
    return (double)(sac_random_key((uint64_t)number, (uint64_t)(y * 16 + x), (uint64_t)c) >> 56);
}

/* Values of a number's own on a coarse grid, and smooth between: of all low
 * frequencies something, as photographs have. */
static uint8_t *drawn(int number, int width, int height)
{
    uint8_t *pixels = malloc((size_t)(width * height * 3));

    assert_non_null(pixels);
    for (int i = 0; i < width * height * 3; i++) {
        double u = 11. * (i / 3 % width + .5) / width, v = 11. * (i / 3 / width + .5) / height;
        int x = (int)u, y = (int)v, c = i % 3;
        u -= x;
        v -= y;
        pixels[i] =
            (uint8_t)((grid(number, x, y, c) * (1 - u) + grid(number, x + 1, y, c) * u) * (1 - v) +
                      (grid(number, x, y + 1, c) * (1 - u) + grid(number, x + 1, y + 1, c) * u) *
                          v);
    }
    return pixels;
}

static struct sac_look look_of(int number, int width, int height, int quality)
{
    uint8_t *pixels = drawn(number, width, height);
    struct sac_image image = {.width = width,
                              .height = height,
                              .channels = 3,
                              .stride = (size_t)width * 3,
                              .pixels = pixels};
    struct sac_decoder *decoder = NULL;
    struct sac_buf file = {0};
    struct sac_error err = {0};
    struct sac_look look;

    assert_ok(sac_decoder_new(&decoder, &err), err);
    if (quality > 0) {
        struct sac_encode_options jpeg = {.kind = SAC_IMAGE_JPEG, .quality = quality};
        struct sac_decode_options options = {.channels = 3};
        assert_ok(sac_image_encode(&image, &jpeg, &file, &err), err);
        assert_ok(sac_image_decode(decoder, file.data, file.len, &options, &image, &err), err);
    }
    sac_look_at(&look, &image);
    sac_decoder_free(decoder);
    sac_buf_done(&file);
    free(pixels);
    return look;
}

static int bits(const struct sac_look *a, const struct sac_look *b)
{
    return __builtin_popcountll(sac_look_hash(a) ^ sac_look_hash(b));
}

static void a_picture_in_another_size_and_compression_looks_the_same(void **state)
{
    (void)state;
    for (int number = 1; number <= 20; number++) {
        struct sac_look whole = look_of(number, 256, 340, 0), small = look_of(number, 181, 97, 50);
        assert_true(bits(&whole, &small) <= SAC_LIKENESS_BITS);
        assert_true(sac_look_difference(&whole, &small) < SAC_LOOK_SAME);
    }
}

static void other_pictures_look_different(void **state)
{
    (void)state;
    for (int number = 1; number < 20; number++) {
        struct sac_look a = look_of(number, 100, 100, 0), b = look_of(number + 1, 100, 100, 0);
        assert_true(sac_look_difference(&a, &b) > 2 * SAC_LOOK_SAME);
    }
}

/* A mean by hand: columns 0 and 1 of 48 by shares of 1 and 1/2. */
static void parts_take_pixels_by_their_share(void **state)
{
    uint8_t pixels[48 * 48 * 3] = {0};
    struct sac_image image = {
        .width = 48, .height = 48, .channels = 3, .stride = 48 * 3, .pixels = pixels};
    struct sac_look look;

    (void)state;
    for (int y = 0; y < 48; y++) {
        pixels[y * 144] = 30;
        pixels[y * 144 + 3] = 90;
    }
    sac_look_at(&look, &image);
    assert_true(fabsf(look.rgb[0] - 50) < 1e-3f); /* (30 + 90 / 2) / 1.5 */
    assert_true(fabsf(look.rgb[3] - 30) < 1e-3f); /* (90 / 2 + 0) / 1.5 */
    assert_true(look.rgb[6] == 0);
}

static void tiny_pictures_have_looks_too(void **state)
{
    struct sac_look one = look_of(3, 1, 1, 0), other = look_of(3, 5, 2, 0);

    (void)state;
    assert_true(one.rgb[0] == one.rgb[3 * 1023]);
    assert_true(other.rgb[0] != other.rgb[3 * 1023]);
}

struct pairs {
    const uint64_t *hashes;
    int64_t count;
    char met[400][400];
};

static int on_pair(void *user, int64_t a, int64_t b, struct sac_error *err)
{
    struct pairs *pairs = user;

    (void)err;
    pairs->count++;
    assert_int_equal(pairs->met[a < b ? a : b][a < b ? b : a]++, 0);
    return 0;
}

/* All pairs by brute force are the other implementation. */
static void each_pair_within_seven_bits_is_found_once(void **state)
{
    static struct pairs pairs;
    static uint64_t hashes[400];
    struct sac_error err = {0};
    uint64_t random = 88172645463325252u;
    int64_t expected = 0;

    (void)state;
    for (int i = 0; i < 400; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        hashes[i] = random;
        for (int flip = 0; i % 4 && flip < i % 13; flip++) /* three of four have relatives */
            hashes[i] = (flip ? hashes[i] : hashes[i - i % 4]) ^ UINT64_C(1)
                                                                     << (i * 7 + flip * 5) % 64;
    }
    for (int i = 0; i < 400; i++) {
        for (int j = 0; j < i; j++)
            expected += __builtin_popcountll(hashes[i] ^ hashes[j]) <= 7;
    }
    pairs.hashes = hashes;
    assert_ok(sac_likeness_pairs(hashes, 400, on_pair, &pairs, &err), err);
    assert_true(expected > 100);
    assert_int_equal(pairs.count, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_picture_in_another_size_and_compression_looks_the_same),
        cmocka_unit_test(other_pictures_look_different),
        cmocka_unit_test(parts_take_pixels_by_their_share),
        cmocka_unit_test(tiny_pictures_have_looks_too),
        cmocka_unit_test(each_pair_within_seven_bits_is_found_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
