#include "support/support.h"

#include <string.h>

#include "base/crc32.h"

/* The check value of the polynomial in every catalogue of CRCs. */
static void the_check_value_comes_out(void **state)
{
    (void)state;
    assert_int_equal(sac_crc32(0, "123456789", 9), 0xcbf43926u);
    assert_int_equal(sac_crc32(0, "", 0), 0);
}

static void pieces_give_what_the_whole_gives(void **state)
{
    uint8_t bytes[100];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + 11);
    uint32_t whole = sac_crc32(0, bytes, sizeof bytes);
    for (size_t cut = 0; cut <= sizeof bytes; cut++)
        assert_int_equal(sac_crc32(sac_crc32(0, bytes, cut), bytes + cut, sizeof bytes - cut),
                         whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_check_value_comes_out),
        cmocka_unit_test(pieces_give_what_the_whole_gives),
    };
    return cmocka_run_group_tests_name("crc32", tests, NULL, NULL);
}
