#include "support/support.h"

#include <string.h>

#include "model/settings.h"

static int read(struct sac_settings *settings, const char *json, struct sac_error *err)
{
    *settings = sac_settings_default();
    return sac_settings_read_json(settings, sac_test_write("model.json", json, strlen(json)), err);
}

static void every_field_is_read(void **state)
{
    struct sac_settings s;
    struct sac_error err = {0};

    (void)state;
    assert_ok(read(&s,
                   "{\"name\":\"cat_2\",\"preprocess\":{\"resize\":\"short\",\"resize_size\":256,"
                   "\"crop\":[227,224],\"mean\":[1,2.5,3],\"scale\":0.017,\"channels\":\"rgb\","
                   "\"decode\":\"exact\",\"background\":[1,2,255]},\"precision\":\"bf16\","
                   "\"topk\":3,\"batch_max\":16,\"timeout_ms\":50,\"priority\":15,"
                   "\"deterministic\":true}",
                   &err),
              err);
    assert_string_equal(s.name, "cat_2");
    assert_int_equal(s.resize, SAC_RESIZE_SHORT);
    assert_int_equal(s.resize_width, 256);
    assert_int_equal(s.resize_height, 256);
    assert_int_equal(s.crop_width, 227);
    assert_int_equal(s.crop_height, 224);
    assert_int_equal(s.mean_kind, SAC_MEAN_VALUES);
    assert_int_equal(s.mean_count, 3);
    assert_float_equal(s.mean[1], 2.5, 0);
    assert_float_equal(s.scale, 0.017, 1e-7);
    assert_int_equal(s.channels, SAC_CHANNELS_RGB);
    assert_int_equal(s.decode, SAC_DECODE_EXACT);
    assert_int_equal(s.background[2], 255);
    assert_int_equal(s.precision, SAC_PRECISION_BF16);
    assert_int_equal(s.topk, 3);
    assert_int_equal(s.batch_max, 16);
    assert_int_equal(s.timeout_ms, 50);
    assert_int_equal(s.priority, 15);
    assert_true(s.deterministic);
}

static void assert_refused(const char *json, const char *part)
{
    struct sac_settings s;
    struct sac_error err = {0};

    assert_true(read(&s, json, &err) < 0);
    assert_says(err, "model.json: ");
    assert_says(err, part);
    assert_int_equal(s.topk, 5); /* nothing of a bad file is kept */
}

static void a_bad_field_is_named(void **state)
{
    (void)state;
    assert_refused("{\"topk\":7,\"labels\":3}", "\"labels\": no such field");
    assert_refused("{\"preprocess\":{\"resize\":\"stretch\"}}",
                   "\"preprocess\" \"resize\": expected one of squash, short, none, found "
                   "\"stretch\"");
    assert_refused("{\"topk\":0}", "\"topk\": expected 1 to 1000, found 0");
    assert_refused("{\"topk\":2.5}", "\"topk\": expected a whole number");
    assert_refused("{\"name\":\"a/b\"}", "\"name\": expected 1 to 63 letters");
    assert_refused("{\n\"topk\":}", "line 2");
    assert_refused("[1]", "expected an object");
    assert_refused("{\"preprocess\":{\"mean\":[1,2,3,4]}}", "a list of 1 to 3 numbers");
    assert_refused("{\"preprocess\":{\"background\":[300]}}", "expected 0 to 255, found 300");
}

static void flags_go_over_the_file(void **state)
{
    struct sac_settings s = sac_settings_default();
    struct sac_model_overrides flags = SAC_MODEL_OVERRIDES_NONE;
    struct sac_error err = {0};

    (void)state;
    flags.resize = "short:256";
    flags.mean = "104,117,123";
    flags.precision = "bf16";
    flags.topk = 2;
    assert_ok(sac_settings_override(&s, &flags, &err), err);
    assert_int_equal(s.resize, SAC_RESIZE_SHORT);
    assert_int_equal(s.resize_height, 256);
    assert_int_equal(s.mean_count, 3);
    assert_float_equal(s.mean[2], 123, 0);
    assert_int_equal(s.precision, SAC_PRECISION_BF16);
    assert_int_equal(s.topk, 2);
    assert_int_equal(s.batch_max, 0); /* 8 on cores, 64 on a GPU */
}

static void a_bad_flag_is_named(void **state)
{
    struct sac_settings s = sac_settings_default();
    struct sac_model_overrides flags = SAC_MODEL_OVERRIDES_NONE;
    struct sac_error mean = {0}, size = {0};

    (void)state;
    flags.mean = "104,x";
    assert_int_equal(sac_settings_override(&s, &flags, &mean), SAC_EINVAL);
    assert_says(mean, "--mean: expected 1 to 3 numbers such as 104,117,123, found \"104,x\"");
    flags.mean = NULL;
    flags.resize = "squash:0x9";
    assert_int_equal(sac_settings_override(&s, &flags, &size), SAC_EINVAL);
    assert_says(size, "--resize: expected a size such as 227 or 320x240");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_is_read),
        cmocka_unit_test(a_bad_field_is_named),
        cmocka_unit_test(flags_go_over_the_file),
        cmocka_unit_test(a_bad_flag_is_named),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
