#include "support/support.h"

#include <math.h>

#include "base/f16.h"

/* From IEEE 754: 1 bit of sign, 5 of exponent (bias 15), 10 of fraction. */
static void every_half_is_what_its_bits_say(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        int exponent = half >> 10 & 31, fraction = half & 1023;
        double value = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
        float got = sac_f16_to_float((uint16_t)half);
        if (exponent == 31 && fraction)
            assert_true(isnan(got));
        else if (exponent == 31)
            assert_true(isinf(got));
        else if ((double)got != (half & 0x8000 ? -value : value))
            fail_msg("%#x is %g, expected %g", half, got, value);
        assert_true(!signbit(got) == !(half & 0x8000) || isnan(got));
    }
}

static void every_half_comes_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        float value = sac_f16_to_float((uint16_t)half);
        if (!isnan(value))
            assert_int_equal(sac_f16_from_float(value), half);
    }
    assert_true(isnan(sac_f16_to_float(sac_f16_from_float(NAN))));
}

static void what_lies_between_two_goes_to_the_nearer_or_the_even(void **state)
{
    (void)state;
    for (uint16_t half = 0; half < 0x7bff; half++) {
        double low = sac_f16_to_float(half), high = sac_f16_to_float((uint16_t)(half + 1));
        float middle = (float)((low + high) / 2);
        assert_int_equal(sac_f16_from_float(middle), half + (half & 1));
        assert_int_equal(sac_f16_from_float(nextafterf(middle, 0)), half);
        assert_int_equal(sac_f16_from_float(nextafterf(middle, INFINITY)), half + 1);
    }
    assert_int_equal(sac_f16_from_float(65519.99f), 0x7bff);
    assert_int_equal(sac_f16_from_float(65520), 0x7c00);
    assert_int_equal(sac_f16_from_float(-1e30f), 0xfc00);
    assert_int_equal(sac_f16_from_float(1e-30f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_what_its_bits_say),
        cmocka_unit_test(every_half_comes_back),
        cmocka_unit_test(what_lies_between_two_goes_to_the_nearer_or_the_even),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
