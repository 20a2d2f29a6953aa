#include "support/support.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/memory_plan.h"

/* xorshift64: the same blocks on every run. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void make_blocks(struct sac_block *blocks, int count, int steps, uint64_t seed)
{
    for (int i = 0; i < count; i++) {
        int a = (int)(next_random(&seed) % (uint64_t)steps);
        int length = (int)(next_random(&seed) % 8);
        blocks[i] = (struct sac_block){
            .bytes = next_random(&seed) % 100000, .first = a, .last = a + length};
        if (next_random(&seed) % 16 == 0)
            blocks[i].bytes = 0;
    }
}

static size_t rounded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* No arena can be smaller than what lives at one step. */
static size_t most_live(const struct sac_block *blocks, int count, int steps)
{
    size_t most = 0;

    for (int t = 0; t < steps; t++) {
        size_t live = 0;
        for (int i = 0; i < count; i++)
            if (blocks[i].first <= t && t <= blocks[i].last)
                live += rounded(blocks[i].bytes);
        most = live > most ? live : most;
    }
    return most;
}

static bool collide(const struct sac_block *a, const struct sac_block *b)
{
    bool in_time = a->first <= b->last && b->first <= a->last;
    bool in_space = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;

    return in_time && in_space && a->bytes > 0 && b->bytes > 0;
}

static void assert_valid(const struct sac_block *blocks, int count, size_t arena)
{
    size_t end = 0;

    for (int i = 0; i < count; i++) {
        assert_int_equal(blocks[i].offset % 64, 0);
        assert_true(blocks[i].offset + blocks[i].bytes <= arena);
        if (blocks[i].offset + rounded(blocks[i].bytes) > end)
            end = blocks[i].offset + rounded(blocks[i].bytes);
        for (int j = 0; j < i; j++)
            if (collide(&blocks[i], &blocks[j]))
                fail_msg("blocks %d and %d share bytes while both live", i, j);
    }
    assert_int_equal(end, arena);
}

static void blocks_that_live_together_never_share_a_byte(void **state)
{
    enum { COUNT = 200, STEPS = 60 };
    struct sac_block blocks[COUNT];

    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct sac_error err = {0};
        size_t arena = 0;

        make_blocks(blocks, COUNT, STEPS, seed * 0x9e3779b97f4a7c15u);
        assert_ok(sac_memory_plan(blocks, COUNT, &arena, &err), err);
        assert_valid(blocks, COUNT, arena);
        size_t bound = most_live(blocks, COUNT, STEPS + 8);
        assert_true(arena >= bound);
        /* Measured over these seeds: at most 1.16 times the bound. */
        assert_true((double)arena <= 1.3 * (double)bound);
    }
}

/* A chain a → b → c → d: two live at a time, so that the optimum is the largest
 * neighbouring pair, 4096 + 2048. */
static void a_chain_takes_its_largest_neighbouring_pair(void **state)
{
    struct sac_block blocks[] = {
        {.bytes = 1024, .first = 0, .last = 1}, {.bytes = 4096, .first = 1, .last = 2},
        {.bytes = 2048, .first = 2, .last = 3}, {.bytes = 4096, .first = 3, .last = 4},
        {.bytes = 640, .first = 4, .last = 5},
    };
    struct sac_error err = {0};
    size_t arena = 0;

    (void)state;
    assert_ok(sac_memory_plan(blocks, 5, &arena, &err), err);
    assert_valid(blocks, 5, arena);
    assert_int_equal(arena, 4096 + 2048);
}

static void a_block_takes_the_lowest_gap_that_holds_it(void **state)
{
    struct sac_block blocks[] = {
        {.bytes = 1000, .first = 0, .last = 9}, /* 0: rounded to 1024 */
        {.bytes = 512, .first = 0, .last = 2},  /* 1024 */
        {.bytes = 256, .first = 0, .last = 9},  /* 1536 */
        {.bytes = 128, .first = 3, .last = 5},  /* the gap that the second left: 1024 */
        {.bytes = 128, .first = 4, .last = 5},  /* 1152 */
    };
    struct sac_error err = {0};
    size_t arena = 0;

    (void)state;
    assert_ok(sac_memory_plan(blocks, 5, &arena, &err), err);
    assert_int_equal(blocks[0].offset, 0);
    assert_int_equal(blocks[1].offset, 1024);
    assert_int_equal(blocks[2].offset, 1536);
    assert_int_equal(blocks[3].offset, 1024);
    assert_int_equal(blocks[4].offset, 1152);
    assert_int_equal(arena, 1792);
}

static void nothing_and_empty_blocks_take_no_memory(void **state)
{
    struct sac_block blocks[] = {
        {.bytes = 0, .first = 0, .last = 0, .offset = 77},
        {.bytes = 0, .first = 0, .last = 0, .offset = 77},
    };
    struct sac_error err = {0};
    size_t arena = 1;

    (void)state;
    assert_ok(sac_memory_plan(NULL, 0, &arena, &err), err);
    assert_int_equal(arena, 0);
    arena = 1;
    assert_ok(sac_memory_plan(blocks, 2, &arena, &err), err);
    assert_int_equal(arena, 0);
    assert_int_equal(blocks[0].offset, 0);
    assert_int_equal(blocks[1].offset, 0);
}

static void what_fits_no_address_space_is_refused(void **state)
{
    struct sac_block one[] = {{.bytes = SIZE_MAX - 3, .first = 0, .last = 0}};
    struct sac_block two[] = {
        {.bytes = (size_t)PTRDIFF_MAX - 4096, .first = 0, .last = 1},
        {.bytes = (size_t)PTRDIFF_MAX - 8192, .first = 1, .last = 2},
    };
    struct sac_error err = {0};
    size_t arena = 5;

    (void)state;
    assert_int_equal(sac_memory_plan(one, 1, &arena, &err), SAC_ELIMIT);
    assert_int_equal(sac_memory_plan(two, 2, &arena, NULL), SAC_ELIMIT);
    assert_int_equal(arena, 5); /* untouched */
    assert_says(err, "address space");
}

static void ten_thousand_blocks_are_placed_in_reasonable_time(void **state)
{
    enum { COUNT = 10000 };
    struct sac_block *blocks = calloc(COUNT, sizeof *blocks);
    struct sac_error err = {0};
    size_t arena = 0;

    (void)state;
    assert_non_null(blocks);
    make_blocks(blocks, COUNT, COUNT, 7);
    uint64_t start = sac_clock_thread_cpu_ns();
    assert_ok(sac_memory_plan(blocks, COUNT, &arena, &err), err);
    double seconds = (double)(sac_clock_thread_cpu_ns() - start) / 1e9;
    assert_valid(blocks, COUNT, arena);
    print_message("# 10,000 blocks: %.3f s of CPU\n", seconds);
    assert_true(seconds < 10); /* 0.08 s measured; a sanitizer build takes several times more */
    free(blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_that_live_together_never_share_a_byte),
        cmocka_unit_test(a_chain_takes_its_largest_neighbouring_pair),
        cmocka_unit_test(a_block_takes_the_lowest_gap_that_holds_it),
        cmocka_unit_test(nothing_and_empty_blocks_take_no_memory),
        cmocka_unit_test(what_fits_no_address_space_is_refused),
        cmocka_unit_test(ten_thousand_blocks_are_placed_in_reasonable_time),
    };
    return cmocka_run_group_tests_name("memory_plan", tests, NULL, NULL);
}
