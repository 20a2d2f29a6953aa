/* Threads as ranks: what they have together, and what happens when one goes. */
#include "support/support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "ranks/abort.h"
#include "ranks/group.h"

enum { WORLD = 4, COUNT = 10007 };

struct part {
    struct sac_comm *comm;
    float *values;
    int rc;
    struct sac_error err;
};

static void each(void *(*run)(void *), struct part parts[WORLD])
{
    pthread_t threads[WORLD];

    for (int i = 0; i < WORLD; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, &parts[i]), 0);
    for (int i = 0; i < WORLD; i++)
        pthread_join(threads[i], NULL);
}

static void open_parts(struct part parts[WORLD])
{
    struct sac_comm *comms[WORLD];
    struct sac_error err = {0};

    assert_ok(sac_group_new(comms, WORLD, &err), err);
    for (int i = 0; i < WORLD; i++) {
        parts[i] = (struct part){.comm = comms[i], .values = calloc(COUNT, sizeof(float))};
        for (int k = 0; k < COUNT; k++)
            parts[i].values[k] = (float)((i + 1) * (k % 101)) / 7;
    }
}

static void close_parts(struct part parts[WORLD])
{
    for (int i = 0; i < WORLD; i++) {
        sac_comm_free(parts[i].comm);
        free(parts[i].values);
    }
}

static void *reduce_often(void *argument)
{
    struct part *p = argument;

    for (int i = 0; i < 50 && p->rc == 0; i++)
        p->rc = sac_comm_all_reduce(p->comm, NULL, p->values + i, COUNT - 50, &p->err);
    return NULL;
}

static void *reduce_once(void *argument)
{
    struct part *p = argument;

    p->rc = sac_comm_all_reduce(p->comm, NULL, p->values, COUNT, &p->err);
    return NULL;
}

/* Rank by rank from the first, in fp32: to the bit. */
static void a_sum_is_made_in_the_order_of_the_ranks(void **state)
{
    struct part parts[WORLD];
    float *expected = calloc(COUNT, sizeof *expected);

    (void)state;
    open_parts(parts);
    for (int k = 0; k < COUNT; k++)
        for (int i = 0; i < WORLD; i++)
            expected[k] = i == 0 ? parts[0].values[k] : expected[k] + parts[i].values[k];
    each(reduce_once, parts);
    for (int i = 0; i < WORLD; i++) {
        assert_ok(parts[i].rc, parts[i].err);
        assert_memory_equal(parts[i].values, expected, COUNT * sizeof *expected);
    }
    close_parts(parts);
    free(expected);
}

static void many_sums_follow_each_other(void **state)
{
    struct part parts[WORLD];

    (void)state;
    open_parts(parts);
    each(reduce_often, parts);
    for (int i = 0; i < WORLD; i++)
        assert_ok(parts[i].rc, parts[i].err);
    for (int i = 1; i < WORLD; i++)
        assert_memory_equal(parts[i].values + 49, parts[0].values + 49, (COUNT - 99) * 4);
    close_parts(parts);
}

static void *take_from_two(void *argument)
{
    struct part *p = argument;

    p->rc = sac_comm_broadcast(p->comm, NULL, p->values, COUNT, 2, &p->err);
    return NULL;
}

static void a_broadcast_gives_all_what_the_root_has(void **state)
{
    struct part parts[WORLD];

    (void)state;
    open_parts(parts);
    each(take_from_two, parts);
    for (int i = 0; i < WORLD; i++) {
        assert_ok(parts[i].rc, parts[i].err);
        assert_float_equal(parts[i].values[100], 3.0F * 100 / 7, 0);
    }
    close_parts(parts);
}

static void *go_or_reduce(void *argument)
{
    struct part *p = argument;

    if (p->comm->rank == 1) {
        usleep(20000);
        sac_comm_abort(p->comm, "rank 1 went away");
        sac_comm_abort(p->comm, "and said so twice");
    }
    return reduce_once(argument);
}

static void waits_end_with_the_sentence_of_who_aborts(void **state)
{
    struct part parts[WORLD];
    struct sac_error err = {0};

    (void)state;
    open_parts(parts);
    each(go_or_reduce, parts);
    for (int i = 0; i < WORLD; i++) {
        assert_int_equal(parts[i].rc, SAC_EDEVICE);
        assert_string_equal(parts[i].err.text, "rank 1 went away");
        err = (struct sac_error){0};
        assert_int_equal(sac_comm_check(parts[i].comm, &err), SAC_EDEVICE);
        assert_says(err, "rank 1 went away");
    }
    close_parts(parts);
}

/* A sum that is given up: whoever returned owns its values again, and nobody writes them any
 * more. Big ones, so that some are at work when another ends all. */
enum { BIG = 1 << 21, MARK = 77 };

static void *reduce_and_mark(void *argument)
{
    struct part *p = argument;

    p->rc = sac_comm_all_reduce(p->comm, NULL, p->values, BIG, &p->err);
    if (p->rc != 0)
        for (int k = 0; k < BIG; k++)
            p->values[k] = MARK;
    return NULL;
}

static void *end_soon(void *argument)
{
    struct part *p = argument;

    usleep((useconds_t)p->rc); /* here: how long */
    sac_comm_abort(p->comm, "it is over");
    return NULL;
}

static int give_up_after(int us)
{
    struct part parts[WORLD], ender;
    struct sac_comm *comms[WORLD];
    pthread_t threads[WORLD + 1];
    struct sac_error err = {0};
    int failed = 0;

    assert_ok(sac_group_new(comms, WORLD, &err), err);
    for (int i = 0; i < WORLD; i++)
        parts[i] = (struct part){.comm = comms[i], .values = calloc(BIG, sizeof(float))};
    ender = (struct part){.comm = comms[0], .rc = us};
    for (int i = 0; i < WORLD; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reduce_and_mark, &parts[i]), 0);
    assert_int_equal(pthread_create(&threads[WORLD], NULL, end_soon, &ender), 0);
    for (int i = 0; i <= WORLD; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < WORLD; i++) {
        failed += parts[i].rc != 0;
        for (int k = 0; k < BIG && parts[i].rc != 0; k++)
            if (parts[i].values[k] != MARK)
                fail_msg("value %d of rank %d was written after it returned", k, i);
    }
    close_parts(parts);
    return failed;
}

static void a_sum_that_is_given_up_writes_nothing_behind_its_return(void **state)
{
    int failed = 0;

    (void)state;
    for (int us = 0; us < 10000; us += 250)
        failed += give_up_after(us);
    assert_true(failed > 0);
}

/* 300 ms each, as a library that does not answer. */
static void end_slowly(struct sac_comm *comm)
{
    (void)comm;
    usleep(300000);
}

static void many_are_aborted_in_the_time_of_one(void **state)
{
    static const struct sac_comm_table slow = {.kind = "slow", .abort = end_slowly};
    struct sac_comm comms[16], *all[17] = {NULL};
    struct sac_error err = {0};

    (void)state;
    for (int i = 0; i < 16; i++) {
        sac_comm_init(&comms[i], &slow, i, 16);
        all[i + 1] = &comms[i];
    }
    uint64_t began = sac_clock_ns();
    sac_comms_abort(all, 17, "all go");
    assert_true(sac_clock_ns() - began < 2000000000); /* one after the other: 4.8 s */
    for (int i = 0; i < 16; i++) {
        err = (struct sac_error){0};
        assert_int_equal(sac_comm_check(&comms[i], &err), SAC_EDEVICE);
        assert_says(err, "all go");
        sac_comm_done(&comms[i]);
    }
}

static void a_group_has_a_size_that_can_be(void **state)
{
    struct sac_comm *comms[1];
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_group_new(comms, 0, &err), SAC_EINVAL);
    assert_says(err, "0 ranks in one process; expected 1 to 64");
    err = (struct sac_error){0};
    assert_int_equal(sac_group_new(comms, 65, &err), SAC_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sum_is_made_in_the_order_of_the_ranks),
        cmocka_unit_test(many_sums_follow_each_other),
        cmocka_unit_test(a_broadcast_gives_all_what_the_root_has),
        cmocka_unit_test(waits_end_with_the_sentence_of_who_aborts),
        cmocka_unit_test(a_sum_that_is_given_up_writes_nothing_behind_its_return),
        cmocka_unit_test(many_are_aborted_in_the_time_of_one),
        cmocka_unit_test(a_group_has_a_size_that_can_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
