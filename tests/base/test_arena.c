#include "support/support.h"

#include <string.h>

#include "base/arena.h"

static void allocations_are_aligned_and_do_not_overlap(void **state)
{
    struct sac_arena *arena = sac_arena_new(0);
    uint8_t *blocks[200];

    (void)state;
    for (size_t i = 0; i < 200; i++) {
        blocks[i] = sac_arena_alloc(arena, 1 + i * 97);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        memset(blocks[i], (int)i, 1 + i * 97);
    }
    for (size_t i = 0; i < 200; i++) {
        assert_int_equal(blocks[i][0], i);
        assert_int_equal(blocks[i][i * 97], i);
    }
    sac_arena_free(arena);
}

static void the_budget_bounds_what_is_given_out(void **state)
{
    struct sac_arena *arena = sac_arena_new(1000);

    (void)state;
    assert_null(sac_arena_alloc(arena, 1001));
    assert_non_null(sac_arena_alloc(arena, 600));
    assert_null(sac_arena_alloc(arena, 600));
    assert_non_null(sac_arena_alloc(arena, 300));
    assert_true(sac_arena_used(arena) <= 1000);
    assert_null(sac_arena_zalloc(arena, SIZE_MAX / 2, 4));
    sac_arena_free(arena);
    sac_arena_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_aligned_and_do_not_overlap),
        cmocka_unit_test(the_budget_bounds_what_is_given_out),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
