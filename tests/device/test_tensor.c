#include "support/support.h"

#include <string.h>

#include "device/tensor.h"

static const struct sac_shape four = {4, {2, 3, 5, 7}};

static void a_plain_tensor_is_row_major(void **state)
{
    struct sac_tensor t = sac_tensor_of(&four, (struct sac_form){SAC_F32, SAC_PLAIN});

    (void)state;
    assert_int_equal(t.stride[3], 1);
    assert_int_equal(t.stride[2], 7);
    assert_int_equal(t.stride[1], 35);
    assert_int_equal(t.stride[0], 105);
    assert_null(t.data);
}

static void channels_last_puts_axis_one_innermost(void **state)
{
    struct sac_tensor t = sac_tensor_of(&four, (struct sac_form){SAC_BF16, SAC_CHANNELS_LAST});

    (void)state;
    assert_int_equal(t.stride[1], 1);
    assert_int_equal(t.stride[3], 3);
    assert_int_equal(t.stride[2], 21);
    assert_int_equal(t.stride[0], 105);
}

static void below_rank_three_the_layouts_are_the_same(void **state)
{
    struct sac_shape two = {2, {4, 9}};
    struct sac_tensor t = sac_tensor_of(&two, (struct sac_form){SAC_F32, SAC_CHANNELS_LAST});

    (void)state;
    assert_int_equal(t.stride[1], 1);
    assert_int_equal(t.stride[0], 9);
}

static void counts_multiply_and_refuse_what_does_not_fit(void **state)
{
    struct sac_shape scalar = {0}, empty = {3, {4, 0, 9}};
    struct sac_shape huge = {2, {INT64_MAX, 2}}, negative = {2, {2, -1}};

    (void)state;
    assert_int_equal(sac_shape_count(&four), 210);
    assert_int_equal(sac_shape_count(&scalar), 1);
    assert_int_equal(sac_shape_count(&empty), 0);
    assert_int_equal(sac_shape_count(&huge), -1);
    assert_int_equal(sac_shape_count(&negative), -1);
    assert_int_equal(sac_shape_count_between(&four, 1, 3), 15);
    assert_int_equal(sac_tensor_bytes(&four, SAC_BF16), 420);
    assert_int_equal(sac_tensor_bytes(&huge, SAC_F32), SIZE_MAX);
}

static void shapes_print_and_compare(void **state)
{
    char text[SAC_SHAPE_TEXT];
    struct sac_shape other = four;
    struct sac_shape scalar = {0};

    (void)state;
    assert_string_equal(sac_shape_text(&four, text, sizeof text), "2 × 3 × 5 × 7");
    assert_string_equal(sac_shape_text(&scalar, text, sizeof text), "scalar");
    sac_shape_text(&four, text, 5);
    assert_true(strlen(text) < 5);
    assert_true(sac_shape_equal(&four, &other));
    other.dim[2] = 6;
    assert_false(sac_shape_equal(&four, &other));
    other = four;
    other.rank = 3;
    assert_false(sac_shape_equal(&four, &other));
}

static void types_have_names_and_sizes(void **state)
{
    (void)state;
    assert_int_equal(sac_type_bytes(SAC_F32), 4);
    assert_int_equal(sac_type_bytes(SAC_BF16), 2);
    assert_int_equal(sac_type_bytes(SAC_U8), 1);
    assert_int_equal(sac_type_bytes(SAC_TOPK_PAIR), 8);
    assert_string_equal(sac_type_name(SAC_BF16), "bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_tensor_is_row_major),
        cmocka_unit_test(channels_last_puts_axis_one_innermost),
        cmocka_unit_test(below_rank_three_the_layouts_are_the_same),
        cmocka_unit_test(counts_multiply_and_refuse_what_does_not_fit),
        cmocka_unit_test(shapes_print_and_compare),
        cmocka_unit_test(types_have_names_and_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
