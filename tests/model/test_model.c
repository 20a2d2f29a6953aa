#include "support/support.h"

#include <stdio.h>
#include <string.h>

#include "model/model.h"
#include "model/squeezenet.h"

static void assert_refused(const struct sac_model_files *files,
                           const struct sac_model_overrides *overrides, int code, const char *part)
{
    struct sac_error err = {0};
    struct sac_model *model = NULL;

    assert_int_equal(sac_model_open(&model, files, overrides, &err), code);
    assert_says(err, part);
    assert_null(model);
}

static void a_directory_opens_with_what_model_json_says(void **state)
{
    struct sac_model_files files = {
        .dir = sac_test_squeezenet("{\"name\":\"s\",\"preprocess\":{\"resize\":\"squash\","
                                   "\"resize_size\":256,\"mean\":[104,117,123]},\"topk\":3}")};
    struct sac_error err = {0};
    struct sac_model *model;

    (void)state;
    assert_ok(sac_model_open(&model, &files, NULL, &err), err);
    const struct sac_preprocess *how = sac_model_preprocess(model);
    assert_string_equal(sac_model_name(model), "s");
    assert_int_equal(sac_model_class_count(model), 1000);
    assert_int_equal(sac_model_topk(model), 3);
    assert_string_equal(sac_model_label(model, 281), "n02123045 tabby, tabby cat");
    assert_int_equal(how->crop_width, 227);
    assert_int_equal(how->resize_height, 256);
    assert_true(how->bgr);
    assert_float_equal(how->mean[2], 123, 0);
    sac_model_unref(model);
}

/* ILSVRC12's mean image averages to 104.00699, 116.66877, 122.67892 (Caffe's
 * classification example publishes these). */
static void a_mean_file_is_averaged_a_channel(void **state)
{
    struct sac_model_files files = {.dir = sac_test_squeezenet("{}"),
                                    .mean = sac_test_data("ilsvrc12/imagenet_mean.binaryproto")};
    struct sac_error err = {0};
    struct sac_model *model;

    (void)state;
    assert_ok(sac_model_open(&model, &files, NULL, &err), err);
    const struct sac_preprocess *how = sac_model_preprocess(model);
    assert_float_equal(how->mean[0], 104.00699, 1e-4);
    assert_float_equal(how->mean[1], 116.66877, 1e-4);
    assert_float_equal(how->mean[2], 122.67892, 1e-4);
    assert_null(how->mean_image);
    sac_model_unref(model);
}

static void the_whole_mean_image_is_cropped_to_the_input(void **state)
{
    struct sac_model_files files = {.dir = sac_test_squeezenet("{}"),
                                    .mean = sac_test_data("ilsvrc12/imagenet_mean.binaryproto")};
    struct sac_model_overrides overrides = SAC_MODEL_OVERRIDES_NONE;
    struct sac_caffe_blob blob = {0};
    struct sac_error err = {0};
    struct sac_model *model;

    (void)state;
    overrides.mean = "image";
    assert_ok(sac_model_open(&model, &files, &overrides, &err), err);
    assert_ok(sac_caffe_blob_load(&blob, files.mean, &err), err);
    const struct sac_preprocess *how = sac_model_preprocess(model);
    assert_non_null(how->mean_image);
    /* (256 − 227) / 2 = 14 rows and columns are left out at the top and left. */
    assert_float_equal(how->mean_image[0], blob.data[14 * 256 + 14], 0);
    assert_float_equal(how->mean_image[2 * 227 * 227 + 226 * 227 + 226],
                       blob.data[2 * 256 * 256 + 240 * 256 + 240], 0);
    sac_caffe_blob_done(&blob);
    sac_model_unref(model);
}

static void what_does_not_fit_together_is_said(void **state)
{
    const char *dir = sac_test_squeezenet("{}");
    struct sac_model_overrides overrides = SAC_MODEL_OVERRIDES_NONE;
    struct sac_model_files files = {.dir = dir};
    struct sac_model_files grey_mean = {
        .dir = dir, .mean = sac_test_data("layers/layer_convolution.caffemodel")};
    char many[8 * 1001 + 1];

    (void)state;
    overrides.crop = "224";
    assert_refused(&files, &overrides, SAC_EINVAL,
                   "crop 224 × 224 does not agree with the net's input, 227 × 227");
    overrides = SAC_MODEL_OVERRIDES_NONE;
    overrides.channels = "grey";
    assert_refused(&files, &overrides, SAC_EINVAL, "does not agree with the net's 3 channels");
    overrides = SAC_MODEL_OVERRIDES_NONE;
    overrides.mean = "image";
    assert_refused(&files, &overrides, SAC_EINVAL, "needs a mean.binaryproto");
    assert_refused(&grey_mean, NULL, SAC_EFORMAT, "layer_convolution.caffemodel");
    for (int i = 0; i < 1001; i++)
        snprintf(many + 8 * i, 9, "lab%04d\n", i);
    files.labels = sac_test_write("many.txt", many, strlen(many));
    assert_refused(&files, NULL, SAC_EINVAL, "many.txt: 1001 labels, but the net has 1000 classes");
}

static void a_class_without_a_line_is_called_by_number(void **state)
{
    struct sac_model_files files = {.dir = sac_test_squeezenet("{}"),
                                    .labels = sac_test_write("two.txt", "a\nb\n", 4)};
    struct sac_error err = {0};
    struct sac_model *model;

    (void)state;
    assert_ok(sac_model_open(&model, &files, NULL, &err), err);
    assert_string_equal(sac_model_label(model, 1), "b");
    assert_string_equal(sac_model_label(model, 2), "class 2");
    assert_string_equal(sac_model_label(model, 999), "class 999");
    sac_model_unref(model);
}

static void missing_files_are_named(void **state)
{
    struct sac_model_files none = {0}, nowhere = {.dir = "/nowhere"},
                           empty = {.dir = sac_test_tmpdir()};
    struct sac_model_files other = {.deploy = sac_test_data("nets/lenet/lenet.prototxt"),
                                    .weights =
                                        sac_test_data("squeezenet_v1.1/squeezenet_v1.1.caffemodel"),
                                    .labels = sac_test_data("ilsvrc12/synset_words.txt")};

    (void)state;
    assert_refused(&none, NULL, SAC_EINVAL, "a model directory, or a deploy prototxt");
    assert_refused(&nowhere, NULL, SAC_ENOENT, "/nowhere: no such folder");
    assert_refused(&empty, NULL, SAC_ENOENT, "no .caffemodel in this folder");
    assert_refused(&other, NULL, SAC_EFORMAT, "conv1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_directory_opens_with_what_model_json_says),
        cmocka_unit_test(a_mean_file_is_averaged_a_channel),
        cmocka_unit_test(the_whole_mean_image_is_cropped_to_the_input),
        cmocka_unit_test(what_does_not_fit_together_is_said),
        cmocka_unit_test(a_class_without_a_line_is_called_by_number),
        cmocka_unit_test(missing_files_are_named),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
