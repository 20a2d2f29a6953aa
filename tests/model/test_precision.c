/* Where ranges end, precision.json, and what a model's precision is by it. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/ranges.h"
#include "model/calibrate.h"
#include "model/classifier.h"
#include "model/precision_file.h"
#include "model/squeezenet.h"

/* ---- Where a range ends ---- */

static struct sac_histogram_of_sizes *count(const float *x, int64_t n)
{
    struct sac_histogram_of_sizes *sizes = calloc(1, sizeof *sizes);

    assert_non_null(sizes);
    sac_sizes_add(sizes, x, n);
    return sizes;
}

/* 0 to 1 in even steps: cutting anything off costs more than it spares, but for the
 * last step or so. With density 1, cutting d off costs d³ / 3 and spares
 * (1 − (1 − d)²) / 12 / 255²: nothing is won from d = 0.003 on. */
static void even_numbers_are_kept_whole(void **state)
{
    enum { N = 100000 };
    float *x = malloc(N * sizeof *x);

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)i / N;
    struct sac_histogram_of_sizes *sizes = count(x, N);
    float end = sac_sizes_end(sizes, SAC_CALIBRATE_MSE);
    assert_true(end >= .997f && end <= 1);
    assert_true(sac_sizes_end(sizes, SAC_CALIBRATE_MAX) == x[N - 1]);
    assert_false(sizes->negative);
    free(sizes);
    free(x);
}

/* A million numbers up to 1 and one of 10: to keep it would cost 10² / 12 / 255² of each
 * of them, 128 in all; to cut it off costs (10 − end)², at most 81. */
static void a_lone_large_number_is_cut_off(void **state)
{
    enum { N = 1000000 };
    float *x = malloc(N * sizeof *x);

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i + 1) / N;
    x[N / 2] = 10;
    struct sac_histogram_of_sizes *sizes = count(x, N);
    float end = sac_sizes_end(sizes, SAC_CALIBRATE_MSE);
    assert_true(end < 9);
    assert_true(sac_sizes_end(sizes, SAC_CALIBRATE_MAX) == 10);
    free(sizes);
    free(x);
}

static void counting_in_parts_widens_the_bins(void **state)
{
    const float small[] = {0, .25f, -.5f, .5f}, large[] = {3, 100, NAN, INFINITY};
    struct sac_histogram_of_sizes sizes = {0};
    uint64_t total = 0;

    (void)state;
    sac_sizes_add(&sizes, small, 1);
    assert_true(sizes.top == 0 && sac_sizes_end(&sizes, SAC_CALIBRATE_MSE) == 0);
    sac_sizes_add(&sizes, small, 4);
    sac_sizes_add(&sizes, large, 4);
    for (int i = 0; i < SAC_CALIBRATION_BINS; i++)
        total += sizes.bins[i];
    assert_int_equal(total, 5); /* no zero, and what is no number */
    assert_true(sizes.negative && sizes.most == 100 && sizes.top > 100);
}

/* ---- precision.json ---- */

static struct sac_precision_report a_report(const char *weights)
{
    static char conv1[] = "conv1", conv2[] = "conv2";
    static struct sac_range blobs[] = {{conv1, 0, 12.5f}, {conv2, -3.25f, 3.25f}};
    static char *keep[] = {conv1};
    struct sac_precision_report report = {.device = "cpu",
                                          .checked = 60,
                                          .labelled = 60,
                                          .calibrated = 20,
                                          .f32 = {true, 60, 40, 50},
                                          .bf16 = {true, 59, 41, 50},
                                          .int8 = {true, 58, 40, 51},
                                          .rule = SAC_CALIBRATE_MAX,
                                          .ranges = {blobs, 2, keep, 1}};
    struct sac_error err = {0};

    assert_ok(sac_precision_identify(&report, weights, &err), err);
    return report;
}

static void a_report_reads_as_it_was_written(void **state)
{
    const char *weights = sac_test_write("weights", "123456789", 9);
    const char *path = sac_test_write("roundtrip.json", "", 0);
    struct sac_precision_report report = a_report(weights), back;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(report.weights_bytes, 9);
    assert_true(report.weights_crc32 == 0xcbf43926u); /* CRC-32's check value */
    assert_ok(sac_precision_write(&report, path, &err), err);
    assert_ok(sac_precision_read(&back, path, &err), err);
    assert_int_equal(back.checked, 60);
    assert_int_equal(back.calibrated, 20);
    assert_int_equal(back.bf16.agree, 59);
    assert_int_equal(back.int8.top5, 51);
    assert_int_equal(back.rule, SAC_CALIBRATE_MAX);
    assert_true(back.weights_crc32 == report.weights_crc32 && back.weights_bytes == 9);
    assert_true(sac_ranges_find(&back.ranges, "conv2")->low == -3.25f);
    assert_null(sac_ranges_find(&back.ranges, "conv3"));
    assert_true(sac_ranges_keeps(&back.ranges, "conv1+relu1"));
    assert_false(sac_ranges_keeps(&back.ranges, "conv10"));
    sac_ranges_done(&back.ranges);
}

static void what_is_no_report_is_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{", "bad.json:1"},
        {"{}", "\"weights\""},
        {"{\"weights\":{\"bytes\":1,\"crc32\":2}}", "\"device\""},
        {"{\"weights\":{\"bytes\":1,\"crc32\":2},\"device\":\"cpu\",\"checked\":-1}",
         "\"checked\""},
        {"{\"weights\":{\"bytes\":1,\"crc32\":2},\"device\":\"cpu\",\"checked\":1,\"labelled\":0,"
         "\"int8\":{\"agree\":1,\"calibrated\":1,\"rule\":\"luck\",\"keep\":[],\"ranges\":{}}}",
         "\"rule\""},
        {"{\"weights\":{\"bytes\":1,\"crc32\":2},\"device\":\"cpu\",\"checked\":1,\"labelled\":0,"
         "\"int8\":{\"agree\":1,\"calibrated\":1,\"rule\":\"mse\",\"keep\":[3],\"ranges\":{}}}",
         "\"keep\""},
        {"{\"weights\":{\"bytes\":1,\"crc32\":2},\"device\":\"cpu\",\"checked\":1,\"labelled\":0,"
         "\"int8\":{\"agree\":1,\"calibrated\":1,\"rule\":\"mse\",\"keep\":[\"a\"],"
         "\"ranges\":{\"b\":[1,2]}}}",
         "\"b\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sac_precision_report report;
        struct sac_error err = {0};
        const char *path = sac_test_write("bad.json", bad[i].text, strlen(bad[i].text));
        assert_int_equal(sac_precision_read(&report, path, &err), SAC_EINVAL);
        assert_says(err, bad[i].says);
    }
}

/* 2,048 bins over less than 6e-36 would be narrower than a float's reciprocal can say. */
static void the_smallest_sizes_have_a_bin(void **state)
{
    const float tiny[] = {1e-40f, -3e-39f, 1e-37f, 5e-36f};
    struct sac_histogram_of_sizes sizes = {0};
    uint64_t total = 0;

    (void)state;
    sac_sizes_add(&sizes, tiny, 3);
    sac_sizes_add(&sizes, tiny, 4);
    for (int i = 0; i < SAC_CALIBRATION_BINS; i++)
        total += sizes.bins[i];
    assert_int_equal(total, 7);
    assert_true(sac_sizes_end(&sizes, SAC_CALIBRATE_MAX) == 5e-36f);
}

static void bf16_agrees_from_49_of_50_on(void **state)
{
    struct sac_precision_report report = {.checked = 50, .bf16 = {true, 49, 0, 0}};

    (void)state;
    assert_true(sac_precision_bf16_agrees(&report));
    report.bf16.agree = 48;
    assert_false(sac_precision_bf16_agrees(&report));
    report = (struct sac_precision_report){.checked = 49, .bf16 = {true, 49, 0, 0}};
    assert_false(sac_precision_bf16_agrees(&report)); /* too few to say */
    report = (struct sac_precision_report){
        .checked = 100, .labelled = 100, .f32 = {true, 100, 70, 90}, .bf16 = {true, 99, 67, 90}};
    assert_false(sac_precision_bf16_agrees(&report)); /* three fewer are right */
    report.bf16.top1 = 68;
    assert_true(sac_precision_bf16_agrees(&report));
    report.checked = report.bf16.agree = 1000; /* most of them without a label */
    report.bf16.top1 = 67;
    assert_false(sac_precision_bf16_agrees(&report)); /* three of 100 are none of 1,000 */
}

/* ---- A model's precision ---- */

static const char plain[] = "{\"preprocess\":{\"mean\":[104,117,123]}}";

static int open_model(struct sac_model **ret, const char *dir, const char *precision,
                      struct sac_error *err)
{
    struct sac_model_files files = {.dir = dir};
    struct sac_model_overrides overrides = SAC_MODEL_OVERRIDES_NONE;

    overrides.precision = precision;
    return sac_model_open(ret, &files, &overrides, err);
}

static const char *put_report(const char *dir, const struct sac_precision_report *report)
{
    static char path[600];
    struct sac_error err = {0};

    snprintf(path, sizeof path, "%s/" SAC_PRECISION_FILE, dir);
    assert_ok(sac_precision_write(report, path, &err), err);
    return path;
}

static void int8_needs_ranges_of_these_weights(void **state)
{
    const char *dir = sac_test_squeezenet(plain), *other = sac_test_write("other", "123456789", 9);
    struct sac_precision_report report = a_report(other);
    struct sac_error err = {0};
    struct sac_model *model = NULL;

    (void)state;
    assert_int_equal(open_model(&model, dir, "int8", &err), SAC_EINVAL);
    assert_says(err, "saccade quantize");
    put_report(dir, &report);
    assert_int_equal(open_model(&model, dir, "int8", &err), SAC_EINVAL);
    assert_says(err, "other weights");
    report = a_report(sac_test_data("squeezenet_v1.1/squeezenet_v1.1.caffemodel"));
    report.int8.measured = false;
    put_report(dir, &report);
    assert_int_equal(open_model(&model, dir, "int8", &err), SAC_EINVAL);
    report.int8.measured = true;
    put_report(dir, &report);
    assert_ok(open_model(&model, dir, "int8", &err), err);
    assert_non_null(sac_ranges_find(sac_model_ranges(model), "conv1"));
    sac_model_unref(model);
}

static enum sac_precision automatic(const char *dir, const struct sac_device *device, char why[160])
{
    struct sac_error err = {0};
    struct sac_model *model;

    assert_ok(open_model(&model, dir, "auto", &err), err);
    enum sac_precision precision = sac_model_precision_why(model, device, why, 160);
    sac_model_unref(model);
    return precision;
}

static void auto_is_f32_until_bf16_has_been_seen_to_agree(void **state)
{
    const char *dir = sac_test_squeezenet(plain);
    struct sac_device_table table = {.kind = "cpu"};
    struct sac_device device = {
        .table = &table,
        .info = {.name = "cpu", .precisions = 1u << SAC_PRECISION_F32 | 1u << SAC_PRECISION_BF16}};
    struct sac_precision_report report =
        a_report(sac_test_data("squeezenet_v1.1/squeezenet_v1.1.caffemodel"));
    char why[160];

    (void)state;
    assert_int_equal(automatic(dir, &device, why), SAC_PRECISION_F32);
    assert_non_null(strstr(why, "saccade quantize"));
    put_report(dir, &report);
    assert_int_equal(automatic(dir, &device, why), SAC_PRECISION_BF16);
    assert_non_null(strstr(why, "59 of 60"));
    table.kind = "cuda";
    assert_int_equal(automatic(dir, &device, why), SAC_PRECISION_F32);
    table.kind = "cpu";
    device.info.precisions = 1u << SAC_PRECISION_F32;
    assert_int_equal(automatic(dir, &device, why), SAC_PRECISION_F32);
    assert_non_null(strstr(why, "no fast bf16"));
    device.info.precisions |= 1u << SAC_PRECISION_BF16;
    report.bf16.agree = 50;
    put_report(dir, &report);
    assert_int_equal(automatic(dir, &device, why), SAC_PRECISION_F32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(even_numbers_are_kept_whole),
        cmocka_unit_test(a_lone_large_number_is_cut_off),
        cmocka_unit_test(counting_in_parts_widens_the_bins),
        cmocka_unit_test(a_report_reads_as_it_was_written),
        cmocka_unit_test(what_is_no_report_is_refused),
        cmocka_unit_test(the_smallest_sizes_have_a_bin),
        cmocka_unit_test(bf16_agrees_from_49_of_50_on),
        cmocka_unit_test(int8_needs_ranges_of_these_weights),
        cmocka_unit_test(auto_is_f32_until_bf16_has_been_seen_to_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
