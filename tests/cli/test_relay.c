#include "support/support.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/relay.h"

/* What a run does, and what came of it. */
struct log {
    int64_t rounds;                             /* there are */
    int64_t take_fails, work_fails, also_fails; /* rounds; −1: none */
    int open_fails;                             /* the worker of that number */
    atomic_int opened, closed, taking, giving, working, most;
    int64_t taken, given; /* in order, so far */
    atomic_bool disorder; /* told by takers and givers */
};

struct worker {
    struct log *log;
    int64_t round;
};

static int open_worker(void *user, void **ret, struct sac_error *err)
{
    struct log *log = user;
    struct worker *w = calloc(1, sizeof *w);
    int number = atomic_fetch_add(&log->opened, 1);

    assert_non_null(w);
    w->log = log;
    *ret = w;
    return number == log->open_fails ? sac_fail(err, SAC_ENOMEM, "worker %d", number) : 0;
}

static void close_worker(void *argument)
{
    struct worker *w = argument;

    atomic_fetch_add(&w->log->closed, 1);
    free(w);
}

static int take(void *argument, int64_t round, bool *ret_end, struct sac_error *err)
{
    struct worker *w = argument;
    struct log *log = w->log;

    log->disorder |= atomic_fetch_add(&log->taking, 1) != 0 || round != log->taken;
    atomic_fetch_sub(&log->taking, 1);
    *ret_end = round == log->rounds;
    w->round = round;
    log->taken++;
    return round == log->take_fails ? sac_fail(err, SAC_EIO, "take %lld", (long long)round) : 0;
}

/* Early rounds take longer than late ones. */
static int work(void *argument, struct sac_error *err)
{
    struct worker *w = argument;
    struct log *log = w->log;
    int now = atomic_fetch_add(&log->working, 1) + 1, most = atomic_load(&log->most);
    const struct timespec while_ = {0, w->round % 4 == 0 ? 3000000 : 100000};

    while (now > most && !atomic_compare_exchange_weak(&log->most, &most, now))
        ;
    nanosleep(&while_, NULL);
    atomic_fetch_sub(&log->working, 1);
    if (w->round == log->work_fails || w->round == log->also_fails)
        return sac_fail(err, SAC_EIO, "work %lld", (long long)w->round);
    return 0;
}

static int give(void *argument, int64_t round, struct sac_error *err)
{
    struct worker *w = argument;
    struct log *log = w->log;

    (void)err;
    log->disorder |=
        atomic_fetch_add(&log->giving, 1) != 0 || round != log->given || round != w->round;
    atomic_fetch_sub(&log->giving, 1);
    log->given++;
    return 0;
}

static const struct sac_relay relay = {open_worker, close_worker, take, work, give};

static struct log log_of(int64_t rounds)
{
    return (struct log){
        .rounds = rounds, .take_fails = -1, .work_fails = -1, .also_fails = -1, .open_fails = -1};
}

static void rounds_are_taken_and_given_in_order(void **state)
{
    struct log log = log_of(50);
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_relay_run(&relay, 4, &log, &err), err);
    assert_false(log.disorder);
    assert_int_equal(log.given, 50);
    assert_int_equal(log.opened, 4);
    assert_int_equal(log.closed, 4);
    assert_true(log.most > 1); /* work overlaps */
}

static void no_rounds_are_no_failure(void **state)
{
    struct log log = log_of(0);
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_relay_run(&relay, 3, &log, &err), err);
    assert_int_equal(log.given, 0);
    assert_int_equal(log.closed, 3);
}

/* Round 8 takes longest, so that round 9 fails before it does. */
static void the_first_round_that_fails_is_told_and_those_before_it_are_given(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct log log = log_of(50);
        struct sac_error err = {0};
        log.work_fails = 8;
        log.also_fails = 9;
        assert_int_equal(sac_relay_run(&relay, 4, &log, &err), SAC_EIO);
        assert_string_equal(err.text, "work 8");
        assert_int_equal(log.given, 8);
        assert_false(log.disorder);
    }
}

static void a_round_that_cannot_be_taken_ends_the_rounds(void **state)
{
    struct log log = log_of(50);
    struct sac_error err = {0};

    (void)state;
    log.take_fails = 5;
    assert_int_equal(sac_relay_run(&relay, 4, &log, &err), SAC_EIO);
    assert_string_equal(err.text, "take 5");
    assert_int_equal(log.given, 5);
    assert_int_equal(log.taken, 6);
    assert_int_equal(log.closed, 4);
}

static void a_worker_that_cannot_be_opened_is_told(void **state)
{
    struct log log = log_of(1000);
    struct sac_error err = {0};

    (void)state;
    log.open_fails = 1;
    assert_int_equal(sac_relay_run(&relay, 2, &log, &err), SAC_ENOMEM);
    assert_string_equal(err.text, "worker 1");
    assert_int_equal(log.closed, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_are_taken_and_given_in_order),
        cmocka_unit_test(no_rounds_are_no_failure),
        cmocka_unit_test(the_first_round_that_fails_is_told_and_those_before_it_are_given),
        cmocka_unit_test(a_round_that_cannot_be_taken_ends_the_rounds),
        cmocka_unit_test(a_worker_that_cannot_be_opened_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
