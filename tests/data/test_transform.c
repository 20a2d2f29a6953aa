#include "makers.h"

#include <math.h>

enum { W = 11, H = 9, C = 3 };

struct rig {
    struct sac_transform transform;
    struct sac_transform_scratch *scratch;
    struct sac_error err;
};

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);

    *state = rig;
    return rig && sac_transform_scratch_new(&rig->scratch, &rig->err) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    struct rig *rig = *state;

    sac_transform_done(&rig->transform);
    sac_transform_scratch_free(rig->scratch);
    free(rig);
    return 0;
}

/* Planes of made values, as a raw Datum has them. */
static struct sac_item planes_of(uint8_t bytes[C * H * W], int number)
{
    for (int c = 0; c < C; c++)
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                bytes[(c * H + y) * W + x] = made_value(number, c, y, x);
    return (struct sac_item){.kind = SAC_ITEM_BYTES,
                             .channels = C,
                             .height = H,
                             .width = W,
                             .bytes = bytes,
                             .size = C * H * W};
}

static int apply(struct rig *rig, bool train, uint64_t index, const struct sac_item *item,
                 const int shape[3], float *out)
{
    struct sac_random random = sac_random_stream(9, SAC_RANDOM_ITEM, 0, index);

    rig->err = (struct sac_error){0};
    return sac_transform_apply(&rig->transform, train, item, &random, rig->scratch, shape, out,
                               &rig->err);
}

static void apply_ok(struct rig *rig, bool train, uint64_t index, const struct sac_item *item,
                     const int shape[3], float *out)
{
    assert_ok(apply(rig, train, index, item, shape, out), rig->err);
}

static void nothing_set_is_the_pixels_in_their_order(void **state)
{
    static const int shape[3] = {C, H, W};
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 1);
    float out[C * H * W];

    apply_ok(*state, true, 0, &item, shape, out);
    for (int i = 0; i < C * H * W; i++)
        assert_true(out[i] == bytes[i]);
}

/* About the picture's mean luma (BT.601), worked out here from the bytes; the factor is that
 * of the first value. Planes in the other order are the same picture. */
static void contrast_is_about_the_mean_grey_of_the_bytes(void **state)
{
    static const int shape[3] = {C, H, W};
    static const double luma[3] = {.114, .587, .299}; /* B, G, R */
    struct rig *rig = *state;
    uint8_t bytes[C * H * W], reversed[C * H * W];
    struct sac_item item = planes_of(bytes, 3);
    float out[C * H * W], other[C * H * W];
    double grey = 0;

    for (int i = 0; i < C * H * W; i++) {
        bytes[i] = (uint8_t)(90 + bytes[i] % 64); /* nothing is clipped */
        grey += luma[i / (H * W)] * bytes[i] / (H * W);
    }
    for (int c = 0; c < C; c++)
        memcpy(reversed + c * H * W, bytes + (C - 1 - c) * H * W, H * W);
    rig->transform.augment.contrast = .5f;
    for (uint64_t n = 0; n < 8; n++) {
        item.rgb = false;
        item.bytes = bytes;
        apply_ok(rig, true, n, &item, shape, out);
        double factor = (out[0] - grey) / (bytes[0] - grey);
        assert_true(factor > .499 && factor < 1.501);
        for (int i = 0; i < C * H * W; i++)
            assert_true(fabs(out[i] - (grey + (bytes[i] - grey) * factor)) < 2e-3);
        item.rgb = true;
        item.bytes = reversed;
        apply_ok(rig, true, n, &item, shape, other);
        for (int c = 0; c < C; c++)
            assert_memory_equal(other + c * H * W, out + (C - 1 - c) * H * W, H * W * sizeof *out);
    }
}

/* data_transformer.cpp: (x − mean_c) · scale at ((H − 4) / 2, (W − 5) / 2). */
static void a_test_crop_is_at_the_centre_with_mean_values_and_scale(void **state)
{
    static const int shape[3] = {C, 4, 5};
    struct rig *rig = *state;
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 2);
    float out[C * 4 * 5];
    int got[3];

    rig->transform.crop_height = 4;
    rig->transform.crop_width = 5;
    rig->transform.scale = .017f;
    rig->transform.mean_count = 3;
    memcpy(rig->transform.mean, (float[]){104, 117, 123}, 3 * sizeof(float));
    assert_ok(sac_transform_shape(&rig->transform, &item, rig->scratch, got, &rig->err), rig->err);
    assert_memory_equal(got, shape, sizeof got);
    apply_ok(rig, false, 0, &item, shape, out);
    for (int c = 0; c < C; c++)
        for (int y = 0; y < 4; y++)
            for (int x = 0; x < 5; x++)
                assert_true(out[(c * 4 + y) * 5 + x] ==
                            (made_value(2, c, y + 2, x + 3) - rig->transform.mean[c]) * .017f);
    rig->transform.mean_count = 1;
    apply_ok(rig, false, 0, &item, shape, out);
    assert_true(out[40] == (made_value(2, 2, 2, 3) - 104.f) * .017f);
    rig->transform.mean_count = 2;
    assert_int_equal(apply(rig, false, 0, &item, shape, out), SAC_EINVAL);
    assert_says(rig->err, "3 channels and 2 mean values");
}

/* Where the crop came from, and whether it is mirrored; −1 when from nowhere. */
static int find_crop(const float *out, int height, int width, int number, bool *ret_mirror)
{
    for (int m = 0; m < 2; m++)
        for (int at = 0; at < (H - height + 1) * (W - width + 1); at++) {
            int top = at / (W - width + 1), left = at % (W - width + 1), wrong = 0;
            for (int i = 0; i < C * height * width && !wrong; i++) {
                int c = i / (height * width), y = i / width % height, x = i % width;
                wrong = out[i] != made_value(number, c, top + y, left + (m ? width - 1 - x : x));
            }
            if (!wrong) {
                *ret_mirror = m;
                return at;
            }
        }
    return -1;
}

static void training_crops_everywhere_and_mirrors_half(void **state)
{
    enum { H2 = 6, W2 = 8, PLACES = (H - H2 + 1) * (W - W2 + 1), DRAWS = 3200 };
    static const int shape[3] = {C, H2, W2};
    struct rig *rig = *state;
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 3);
    float out[C * H2 * W2];
    int seen[PLACES] = {0}, mirrored = 0;

    rig->transform.crop_height = H2;
    rig->transform.crop_width = W2;
    rig->transform.mirror = true;
    for (uint64_t i = 0; i < DRAWS; i++) {
        bool mirror = false;
        apply_ok(rig, true, i, &item, shape, out);
        int at = find_crop(out, H2, W2, 3, &mirror);
        assert_true(at >= 0);
        seen[at]++;
        mirrored += mirror;
    }
    for (int i = 0; i < PLACES; i++) /* 200 each, deviation 13.7 */
        assert_true(abs(seen[i] - DRAWS / PLACES) < 60);
    assert_true(abs(mirrored - DRAWS / 2) < 113); /* four deviations of 28.3 */
}

static void a_test_mirrors_by_the_coin_if_mirror_is_set(void **state)
{
    static const int shape[3] = {C, H, W};
    struct rig *rig = *state;
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 4);
    float out[C * H * W];
    int mirrored = 0;

    rig->transform.mirror = true;
    for (uint64_t i = 0; i < 400; i++) {
        bool mirror = false;
        apply_ok(rig, false, i, &item, shape, out);
        assert_int_equal(find_crop(out, H, W, 4, &mirror), 0);
        mirrored += mirror;
    }
    assert_true(abs(mirrored - 200) < 40);
    rig->transform.mirror = false;
    rig->transform.augment.flip = true; /* this one is training's alone */
    for (uint64_t i = 0; i < 50; i++) {
        bool mirror = true;
        apply_ok(rig, false, i, &item, shape, out);
        assert_int_equal(find_crop(out, H, W, 4, &mirror), 0);
        assert_false(mirror);
    }
}

static const char *write_mean(int channels, int height, int width, bool legacy)
{
    Caffe__BlobProto blob = CAFFE__BLOB_PROTO__INIT;
    Caffe__BlobShape shape = CAFFE__BLOB_SHAPE__INIT;
    int64_t dim[3] = {channels, height, width};
    float values[C * H * W];

    blob.n_data = (size_t)(channels * height * width);
    for (size_t i = 0; i < blob.n_data; i++)
        values[i] = (float)(i * i % 251) / 4;
    blob.data = values;
    if (legacy) {
        blob.has_num = blob.has_channels = blob.has_height = blob.has_width = 1;
        blob.num = 1;
        blob.channels = channels;
        blob.height = height;
        blob.width = width;
    } else {
        shape.n_dim = 3;
        shape.dim = dim;
        blob.shape = &shape;
    }
    uint8_t *bytes = malloc(caffe__blob_proto__get_packed_size(&blob));
    assert_non_null(bytes);
    const char *path = sac_test_write(legacy ? "mean.binaryproto" : "small.binaryproto", bytes,
                                      caffe__blob_proto__pack(&blob, bytes));
    free(bytes);
    return path;
}

/* The mean's pixel is the picture's, wherever the crop is and however mirrored
 * (data_transformer.cpp: data_index is both's). */
static void a_mean_file_is_cropped_and_mirrored_with_the_picture(void **state)
{
    enum { H2 = 6, W2 = 8 };
    static const int shape[3] = {C, H2, W2};
    struct rig *rig = *state;
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 5);
    float out[C * H2 * W2], plain[C * H2 * W2];
    const char *path = write_mean(C, H, W, true);

    rig->transform.crop_height = H2;
    rig->transform.crop_width = W2;
    rig->transform.mirror = true;
    for (uint64_t i = 0; i < 40; i++) {
        bool mirror = false;
        sac_caffe_blob_done(&rig->transform.mean_image);
        apply_ok(rig, true, i, &item, shape, plain);
        int at = find_crop(plain, H2, W2, 5, &mirror);
        assert_true(at >= 0);
        assert_ok(sac_transform_load_mean(&rig->transform, path, &rig->err), rig->err);
        apply_ok(rig, true, i, &item, shape, out);
        for (int j = 0; j < C * H2 * W2; j++) {
            int c = j / (H2 * W2), y = j / W2 % H2, x = j % W2;
            int from =
                (c * H + at / (W - W2 + 1) + y) * W + at % (W - W2 + 1) + (mirror ? W2 - 1 - x : x);
            assert_true(out[j] == (float)bytes[from] - (float)(from * from % 251) / 4);
        }
    }
}

static void a_mean_of_the_crops_size_lies_over_the_crop(void **state)
{
    static const int shape[3] = {C, 4, 5};
    struct rig *rig = *state;
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 6);
    float out[C * 4 * 5], plain[C * 4 * 5];

    rig->transform.crop_height = 4;
    rig->transform.crop_width = 5;
    rig->transform.mirror = true;
    for (uint64_t i = 0; i < 8; i++) {
        sac_caffe_blob_done(&rig->transform.mean_image);
        apply_ok(rig, true, i, &item, shape, plain);
        assert_ok(sac_transform_load_mean(&rig->transform, write_mean(C, 4, 5, false), &rig->err),
                  rig->err);
        apply_ok(rig, true, i, &item, shape, out);
        for (int j = 0; j < C * 4 * 5; j++)
            assert_true(out[j] == plain[j] - (float)(j * j % 251) / 4);
    }
    assert_ok(sac_transform_load_mean(&rig->transform, write_mean(C, 5, 5, false), &rig->err),
              rig->err);
    assert_int_equal(apply(rig, true, 0, &item, shape, out), SAC_EINVAL);
    assert_says(rig->err, "3 × 9 × 11, and the mean image is 3 × 5 × 5 (/");
}

static void floats_are_transformed_alike(void **state)
{
    static const int shape[3] = {C, H, W};
    struct rig *rig = *state;
    float values[C * H * W], out[C * H * W];
    struct sac_item item = {
        .kind = SAC_ITEM_FLOATS, .channels = C, .height = H, .width = W, .floats = values};

    for (int i = 0; i < C * H * W; i++)
        values[i] = (float)i / 8;
    rig->transform.scale = 2;
    rig->transform.mean_count = 1;
    rig->transform.mean[0] = 3;
    apply_ok(rig, true, 0, &item, shape, out);
    for (int i = 0; i < C * H * W; i++)
        assert_true(out[i] == ((float)i / 8 - 3) * 2);
    rig->transform.augment.hue = .1f;
    assert_int_equal(apply(rig, true, 0, &item, shape, out), SAC_EINVAL);
    assert_says(rig->err, "8-bit");
}

static void an_encoded_picture_becomes_planes_b_g_r(void **state)
{
    static const int shape[3] = {C, H, W}, grey_shape[3] = {1, H, W};
    struct rig *rig = *state;
    struct bytes png = make_png(7, W, H, 3), grey = make_png(7, W, H, 1);
    struct sac_item item = {.kind = SAC_ITEM_ENCODED, .bytes = png.data, .size = png.size};
    struct sac_item grey_item = {.kind = SAC_ITEM_ENCODED, .bytes = grey.data, .size = grey.size};
    float out[C * H * W];
    int got[3];

    apply_ok(rig, false, 0, &item, shape, out);
    for (int c = 0; c < C; c++)
        assert_true(out[(c * H + 2) * W + 3] == made_value(7, 2 - c, 2, 3));
    rig->transform.rgb = true;
    apply_ok(rig, false, 0, &item, shape, out);
    assert_true(out[2 * W + 3] == made_value(7, 0, 2, 3));
    rig->transform.rgb = false;
    rig->transform.force_gray = true; /* BT.601: .299 R + .587 G + .114 B */
    apply_ok(rig, false, 0, &item, grey_shape, out);
    double luma = .299 * made_value(7, 0, 2, 3) + .587 * made_value(7, 1, 2, 3) +
                  .114 * made_value(7, 2, 2, 3);
    assert_true(fabs((double)out[2 * W + 3] - luma) <= .51);
    rig->transform.force_gray = false;
    assert_ok(sac_transform_shape(&rig->transform, &grey_item, rig->scratch, got, &rig->err),
              rig->err);
    assert_memory_equal(got, grey_shape, sizeof got);
    rig->transform.force_color = true;
    apply_ok(rig, false, 0, &grey_item, shape, out);
    assert_true(out[5] == made_value(7, 0, 0, 5) && out[2 * H * W + 5] == out[5]);
    free(png.data);
    free(grey.data);
}

/* One preprocessing with serving: the same 8-bit pixels, to the bit. */
static void pictures_are_resized_as_serving_resizes_them(void **state)
{
    static const struct {
        enum sac_resize resize;
        int width, height;
        bool fast;
    } ways[] = {{SAC_RESIZE_SQUASH, 64, 64, false},
                {SAC_RESIZE_SQUASH, 71, 60, true},
                {SAC_RESIZE_SHORT, 64, 0, false},
                {SAC_RESIZE_SHORT, 64, 0, true}};
    static const int shape[3] = {3, 56, 56};
    static float out[3 * 56 * 56];
    static uint8_t pixels[56 * 56 * 3];
    struct rig *rig = *state;
    struct bytes jpeg = picture_read("cat.jpg");
    struct sac_item item = {.kind = SAC_ITEM_ENCODED, .bytes = jpeg.data, .size = jpeg.size};
    struct sac_decoder *decoder;

    assert_ok(sac_decoder_new(&decoder, &rig->err), rig->err);
    rig->transform.crop_height = rig->transform.crop_width = 56;
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct sac_preprocess how = sac_preprocess_default(3, 56, 56);
        how.resize = rig->transform.resize = ways[w].resize;
        how.resize_width = rig->transform.resize_width = ways[w].width;
        how.resize_height = rig->transform.resize_height = ways[w].height;
        rig->transform.decode_fast = ways[w].fast;
        how.decode = ways[w].fast ? SAC_DECODE_FAST : SAC_DECODE_EXACT;
        apply_ok(rig, false, 0, &item, shape, out);
        assert_ok(
            sac_preprocess_pixels(&how, decoder, jpeg.data, jpeg.size, NULL, pixels, &rig->err),
            rig->err);
        for (int i = 0; i < 3 * 56 * 56; i++)
            assert_true(out[i] == pixels[i % (56 * 56) * 3 + 2 - i / (56 * 56)]);
    }
    sac_decoder_free(decoder);
    free(jpeg.data);
}

/* Pixels from around the picture are 0 after mean and scale. */
static void a_padded_crop_takes_in_what_is_around(void **state)
{
    static const int shape[3] = {C, H, W};
    struct rig *rig = *state;
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 8);
    float out[C * H * W];
    bool seen[5][5] = {{false}};

    rig->transform.augment.pad = 2;
    rig->transform.mean_count = 1;
    rig->transform.mean[0] = 300; /* so that no pixel of the picture becomes 0 */
    for (uint64_t i = 0; i < 300; i++) {
        int places = 0;
        apply_ok(rig, true, i, &item, shape, out);
        for (int at = 0; at < 25; at++) {
            int top = at / 5 - 2, left = at % 5 - 2, wrong = 0;
            for (int j = 0; j < C * H * W && !wrong; j++) {
                int c = j / (H * W), y = j / W % H + top, x = j % W + left;
                bool inside = y >= 0 && y < H && x >= 0 && x < W;
                wrong = out[j] != (inside ? made_value(8, c, y, x) - 300.f : 0);
            }
            places += !wrong;
            seen[at / 5][at % 5] |= !wrong;
        }
        assert_int_equal(places, 1);
    }
    for (int at = 0; at < 25; at++)
        assert_true(seen[at / 5][at % 5]);
    apply_ok(rig, false, 0, &item, shape, out); /* testing pads nothing */
    assert_true(out[0] == made_value(8, 0, 0, 0) - 300.f);
}

static void each_augmentation_is_a_function_of_the_stream(void **state)
{
    static const struct sac_augment augments[] = {
        {.pad = 3},
        {.area_min = .3f},
        {.flip = true},
        {.rotation = 20},
        {.brightness = 1},
        {.contrast = 1},
        {.saturation = 1},
        {.hue = .5f},
        {.noise = 4},
        {.cutout = 4},
        {.pad = 2,
         .area_min = .5f,
         .flip = true,
         .rotation = 5,
         .brightness = .2f,
         .contrast = .2f,
         .saturation = .2f,
         .hue = .1f,
         .noise = 1,
         .cutout = 3},
    };
    static const int shape[3] = {C, 7, 7};
    struct rig *rig = *state;
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 9);
    float a[C * 49], b[C * 49];

    for (size_t n = 0; n < sizeof augments / sizeof *augments; n++) {
        int differing = 0;
        rig->transform.crop_height = rig->transform.crop_width = 7;
        rig->transform.augment = augments[n];
        for (uint64_t i = 0; i < 8; i++) {
            apply_ok(rig, true, i, &item, shape, a);
            apply_ok(rig, true, 100 + i, &item, shape, b);
            differing += memcmp(a, b, sizeof a) != 0;
            apply_ok(rig, true, i, &item, shape, b);
            assert_memory_equal(a, b, sizeof a);
        }
        assert_true(differing > 0);
        apply_ok(rig, false, 0, &item, shape, a);
        rig->transform.augment = (struct sac_augment){0};
        apply_ok(rig, false, 0, &item, shape, b);
        assert_memory_equal(a, b, sizeof a); /* testing does none of it */
    }
}

static void what_does_not_fit_is_told(void **state)
{
    static const int shape[3] = {C, 4, 5}, large[3] = {C, 12, 12};
    struct rig *rig = *state;
    uint8_t bytes[C * H * W];
    struct sac_item item = planes_of(bytes, 10);
    float out[C * 144];

    assert_int_equal(apply(rig, false, 0, &item, shape, out), SAC_EINVAL);
    assert_says(rig->err, "3 × 9 × 11, where the first item gave 3 × 4 × 5");
    rig->transform.crop_height = rig->transform.crop_width = 12;
    assert_int_equal(apply(rig, true, 0, &item, large, out), SAC_EINVAL);
    assert_says(rig->err, "11 × 9, smaller than the crop, 12 × 12");
    item = (struct sac_item){.kind = SAC_ITEM_ENCODED, .bytes = (const uint8_t *)"x", .size = 1};
    assert_true(sac_source_is_corrupt(apply(rig, true, 0, &item, large, out)));
}

static void contradictions_are_refused(void **state)
{
    static const struct sac_transform bad[] = {
        {.force_color = true, .force_gray = true},
        {.crop_width = 5},
        {.resize_width = 5},
        {.crop_width = -1, .crop_height = -1},
        {.augment = {.hue = .6f}},
        {.augment = {.area_min = 1.5f}},
        {.augment = {.pad = -1}},
        {.augment = {.noise = NAN}},
        {.mean_count = 65},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sac_error err = {0};
        assert_int_equal(sac_transform_check(&bad[i], &err), SAC_EINVAL);
        assert_true(err.text[0] != 0);
    }
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(nothing_set_is_the_pixels_in_their_order),
        CASE(contrast_is_about_the_mean_grey_of_the_bytes),
        CASE(a_test_crop_is_at_the_centre_with_mean_values_and_scale),
        CASE(training_crops_everywhere_and_mirrors_half),
        CASE(a_test_mirrors_by_the_coin_if_mirror_is_set),
        CASE(a_mean_file_is_cropped_and_mirrored_with_the_picture),
        CASE(a_mean_of_the_crops_size_lies_over_the_crop),
        CASE(floats_are_transformed_alike),
        CASE(an_encoded_picture_becomes_planes_b_g_r),
        CASE(pictures_are_resized_as_serving_resizes_them),
        CASE(a_padded_crop_takes_in_what_is_around),
        CASE(each_augmentation_is_a_function_of_the_stream),
        CASE(what_does_not_fit_is_told),
        CASE(contradictions_are_refused),
    };

    return cmocka_run_group_tests_name("data/transform", tests, NULL, NULL);
}
