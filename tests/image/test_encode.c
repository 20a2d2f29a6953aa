#include "pictures.h"

#include "image/encode.h"

static struct sac_image made(int width, int height, int channels, uint8_t **ret_pixels)
{
    *ret_pixels = make_pixels(width, height, channels);
    return (struct sac_image){.width = width,
                              .height = height,
                              .channels = channels,
                              .stride = (size_t)(width * channels),
                              .pixels = *ret_pixels};
}

static void decode(const struct sac_buf *file, int channels, struct sac_decoder **ret_decoder,
                   struct sac_image *ret)
{
    struct sac_error err = {0};

    assert_ok(sac_decoder_new(ret_decoder, &err), err);
    struct sac_decode_options options = {.channels = channels};
    assert_ok(sac_image_decode(*ret_decoder, file->data, file->len, &options, ret, &err), err);
}

static void a_png_comes_back_to_the_bit(void **state)
{
    static const int sizes[][2] = {{1, 1}, {7, 3}, {64, 300}};

    (void)state;
    for (int i = 0; i < 6; i++) {
        int channels = i % 2 ? 3 : 1;
        struct sac_decoder *decoder;
        struct sac_error err = {0};
        struct sac_buf file = {0};
        struct sac_image back;
        uint8_t *pixels;
        struct sac_image image = made(sizes[i / 2][0], sizes[i / 2][1], channels, &pixels);
        struct sac_encode_options options = {.kind = SAC_IMAGE_PNG, .level = i};
        assert_ok(sac_image_encode(&image, &options, &file, &err), err);
        decode(&file, channels, &decoder, &back);
        assert_true(back.width == image.width && back.height == image.height);
        for (int y = 0; y < image.height; y++)
            assert_memory_equal(back.pixels + (size_t)y * back.stride,
                                pixels + (size_t)y * image.stride, image.stride);
        sac_decoder_free(decoder);
        sac_buf_done(&file);
        free(pixels);
    }
}

/* make_jpeg writes by jpeg_mem_dest; the bytes must not depend on where they go. */
static void a_jpeg_is_what_libjpeg_writes_elsewhere(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        int channels = i % 2 ? 3 : 1, side = i < 2 ? 61 : 700; /* the latter over one chunk */
        J_COLOR_SPACE in = channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
        struct jpeg_recipe recipe = {.width = side,
                                     .height = side,
                                     .components = channels,
                                     .in = in,
                                     .stored = channels == 3 ? JCS_YCbCr : JCS_GRAYSCALE,
                                     .quality = i < 2 ? 90 : 100,
                                     .subsample = channels == 3};
        struct sac_error err = {0};
        struct sac_buf file = {0};
        uint8_t *pixels;
        struct sac_image image = made(side, side, channels, &pixels);
        struct bytes expected = make_jpeg(&recipe, pixels);
        struct sac_encode_options options = {.kind = SAC_IMAGE_JPEG, .quality = i < 2 ? 0 : 100};
        sac_buf_puts(&file, "head");
        assert_ok(sac_image_encode(&image, &options, &file, &err), err);
        assert_int_equal(file.len, expected.size + 4);
        assert_memory_equal(file.data + 4, expected.data, expected.size);
        sac_buf_done(&file);
        free(expected.data);
        free(pixels);
    }
}

static void what_cannot_be_written_is_a_sentence(void **state)
{
    struct sac_encode_options jpeg = {.kind = SAC_IMAGE_JPEG}, wrong = {.quality = 101};
    uint8_t pixel[4] = {0};
    struct sac_image two = {.width = 1, .height = 1, .channels = 2, .stride = 2, .pixels = pixel};
    struct sac_image long_one = {
        .width = 1, .height = 65501, .channels = 1, .stride = 0, .pixels = pixel};
    struct sac_buf file = {0};
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_image_encode(&two, &jpeg, &file, &err), SAC_EINVAL);
    assert_says(err, "1 × 1 × 2");
    err = (struct sac_error){0};
    assert_int_equal(sac_image_encode(&long_one, &jpeg, &file, &err), SAC_EINVAL);
    assert_says(err, "65501");
    err = (struct sac_error){0};
    two.channels = 1;
    assert_int_equal(sac_image_encode(&two, &wrong, &file, &err), SAC_EINVAL);
    assert_says(err, "quality 101");
    assert_int_equal(file.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_png_comes_back_to_the_bit),
        cmocka_unit_test(a_jpeg_is_what_libjpeg_writes_elsewhere),
        cmocka_unit_test(what_cannot_be_written_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
