/* The scheduler's decisions on a fake clock; test_traces.c plays whole traces. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "serve/scheduler.h"

enum { LANES = 4, SIZES = 4, JOBS_MAX = 4000 };

#define MS 1000000ull

struct fixture {
    struct sac_scheduler *s;
    struct sac_job jobs[JOBS_MAX];
    struct sac_job *taken[SAC_BATCH_MAX];
    struct sac_scheduler_drops drops;
    struct sac_error err;
    int retry_ms;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    assert_ok(sac_scheduler_new(&f->s, 0, &f->err), f->err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    sac_scheduler_free(f->s);
    free(f);
    return 0;
}

/* compute(1), compute(2), compute(4), compute(8) in milliseconds; typical of a
 * CPU (batching buys 20 %) and of a GPU (it buys a factor of four). */
static const double cpu_ms[SIZES] = {2, 3.6, 6.8, 12.8};
static const double gpu_ms[SIZES] = {1, 1.1, 1.4, 2};
static const double flat_ms[SIZES] = {2, 4, 8, 16};

static void note(struct fixture *f, int lane, int model, const double ms[SIZES], double times)
{
    for (int k = 0; k < SIZES; k++)
        sac_scheduler_note(f->s, lane, model, 1 << k, 0, (uint64_t)(ms[k] * times * 1e6));
}

static int lanes_and_model(struct fixture *f, int lanes, const double ms[SIZES])
{
    int model = sac_scheduler_add_model(f->s, 8, 0);

    for (int l = 0; l < lanes; l++)
        note(f, sac_scheduler_add_lane(f->s), model, ms, 1);
    return model;
}

static struct sac_job *submit(struct fixture *f, int i, int model, uint64_t now, uint64_t deadline)
{
    f->jobs[i] = (struct sac_job){.model = model, .deadline_ns = deadline};
    assert_ok(sac_scheduler_submit(f->s, &f->jobs[i], now, &f->retry_ms, &f->err), f->err);
    return &f->jobs[i];
}

static int take(struct fixture *f, int lane, uint64_t now)
{
    return sac_scheduler_take(f->s, lane, now, f->taken, &f->drops);
}

static int ahead(struct fixture *f, int lane, uint64_t now)
{
    return sac_scheduler_take_ahead(f->s, lane, now, f->taken, &f->drops);
}

static void an_idle_lane_takes_what_waits_at_once(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms);

    struct sac_job *job = submit(f, 0, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 1);
    assert_ptr_equal(f->taken[0], job);
    assert_int_equal(job->started_ns, MS);
    assert_int_equal(take(f, 0, MS), 0);
}

static void the_queue_grows_into_the_next_batch_while_the_lane_is_busy(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms);

    submit(f, 0, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 1);
    for (int i = 1; i <= 7; i++)
        submit(f, i, model, MS + 1, 0);
    sac_scheduler_done(f->s, 0);
    assert_int_equal(take(f, 0, 2 * MS), 4);
    assert_ptr_equal(f->taken[0], &f->jobs[1]);
    assert_ptr_equal(f->taken[3], &f->jobs[4]);
}

static void batches_stay_small_when_larger_ones_buy_nothing(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, flat_ms);

    for (int i = 0; i < 8; i++)
        submit(f, i, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 1);
}

static void batches_are_no_larger_than_what_gains(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms);

    sac_scheduler_limit(f->s, model, 2);
    sac_scheduler_limit(f->s, model, 4); /* from another lane: the smaller holds */
    for (int i = 0; i < 8; i++)
        submit(f, i, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 2);
}

static void the_batch_meets_the_earliest_deadline(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, cpu_ms);

    for (int i = 0; i < 8; i++) /* eight take 12.8 ms, four 6.8: only the second job is urgent */
        submit(f, i, model, MS, i == 1 ? 8 * MS : 0);
    assert_int_equal(take(f, 0, MS), 4);
}

static void idle_lanes_share_what_waits(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, LANES, cpu_ms);

    for (int i = 0; i < 8; i++)
        submit(f, i, model, MS, 0);
    for (int l = 0; l < LANES; l++)
        assert_int_equal(take(f, l, MS), 2);
    assert_int_equal(sac_scheduler_queued(f->s), 0);
}

static void a_slow_lane_leaves_a_job_to_a_fast_one_that_ends_sooner(void **state)
{
    struct fixture *f = *state;
    bool leave;
    int model = lanes_and_model(f, 1, cpu_ms);
    int slow = sac_scheduler_add_lane(f->s);

    note(f, slow, model, cpu_ms, 4);
    submit(f, 0, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 1); /* until 3 ms */
    submit(f, 1, model, MS, 0);
    assert_int_equal(take(f, slow, MS), 0); /* 5 ms by the fast lane, 9 by itself */
    assert_int_equal(sac_scheduler_wake(f->s, 0, MS, &leave), slow);
    assert_true(leave);
    submit(f, 2, model, MS, 0);
    submit(f, 3, model, MS, 0);
    submit(f, 4, model, MS, 0);
    submit(f, 5, model, MS, 0); /* five more are too many for the fast lane alone */
    assert_int_equal(sac_scheduler_wake(f->s, 0, MS, &leave), slow);
    assert_false(leave);
    assert_int_equal(take(f, slow, MS), 1);
}

static void idle_lanes_do_not_leave_the_same_jobs_to_each_other(void **state)
{
    struct fixture *f = *state;
    static const double odd_ms[SIZES] = {4, 3, 2, 1}; /* as one bad moment can make it look */
    int model = lanes_and_model(f, 2, odd_ms), taken = 0;

    for (int i = 0; i < 17; i++)
        submit(f, i, model, MS, 0);
    for (int turn = 0; turn < 17 && taken < 17; turn++) {
        int counts[2], before = taken;
        for (int l = 0; l < 2; l++)
            taken += counts[l] = take(f, l, MS);
        assert_true(taken > before);
        for (int l = 0; l < 2; l++)
            if (counts[l])
                sac_scheduler_done(f->s, l);
    }
    assert_int_equal(taken, 17);
}

static void a_lane_that_hangs_is_not_waited_for(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, cpu_ms);
    int slow = sac_scheduler_add_lane(f->s);

    note(f, slow, model, cpu_ms, 4);
    submit(f, 0, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 1);
    submit(f, 1, model, MS, 0);
    assert_int_equal(take(f, slow, MS), 0);
    assert_int_equal(take(f, slow, 30 * MS), 1);
}

static void wake_names_the_fastest_idle_lane(void **state)
{
    struct fixture *f = *state;
    bool leave;
    int model = lanes_and_model(f, 3, cpu_ms);

    note(f, 1, model, cpu_ms, 0.5);
    assert_int_equal(sac_scheduler_wake(f->s, 0, MS, &leave), -1);
    submit(f, 0, model, MS, 0);
    assert_int_equal(sac_scheduler_wake(f->s, 0, MS, &leave), 1);
    submit(f, 1, model, MS, 0);
    submit(f, 2, model, MS, 0);
    int other = sac_scheduler_wake(f->s, 1 << 1, MS, &leave);
    assert_true(other == 0 || other == 2);
}

static void jobs_past_their_deadline_are_dropped_at_take(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, cpu_ms);

    submit(f, 0, model, MS, 20 * MS);
    struct sac_job *live = submit(f, 1, model, MS, 200 * MS);
    assert_int_equal(take(f, 0, 19 * MS), 1); /* one picture takes 2 ms */
    assert_ptr_equal(f->taken[0], live);
    assert_ptr_equal(f->drops.first, &f->jobs[0]);
    assert_int_equal(f->jobs[0].drop_code, SAC_ETIMEDOUT);
    assert_null(f->jobs[0].next);
}

static void what_cannot_be_met_is_refused_at_the_door(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, flat_ms);
    struct sac_job job = {.model = model, .deadline_ns = 2 * MS};

    assert_int_equal(sac_scheduler_submit(f->s, &job, MS, &f->retry_ms, &f->err), SAC_EBUSY);
    assert_says(f->err, "deadline cannot be met");
    for (int i = 0; i < 10; i++)
        submit(f, i, model, MS, 0);
    f->err = (struct sac_error){0};
    job.deadline_ns = 22 * MS; /* 10 × 2 ms ahead, 2 ms of its own: not before 23 ms */
    assert_int_equal(sac_scheduler_submit(f->s, &job, MS, &f->retry_ms, &f->err), SAC_EBUSY);
    assert_int_equal(f->retry_ms, 20);
    job.deadline_ns = 24 * MS;
    assert_int_equal(sac_scheduler_submit(f->s, &job, MS, &f->retry_ms, &f->err), 0);
}

static void one_bad_measurement_refuses_nothing_when_a_lane_is_idle(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, flat_ms);

    for (int i = 0; i < 20; i++)
        sac_scheduler_note(f->s, 0, model, 1, 0, 5000 * MS);
    submit(f, 0, model, MS, 1000 * MS);
    assert_int_equal(take(f, 0, MS), 1);
}

static void the_queue_holds_a_quarter_second_of_capacity(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 2, flat_ms); /* 1,000 pictures a second */
    struct sac_job job = {.model = model};
    int i = 0;

    while (i < JOBS_MAX && sac_scheduler_submit(f->s, (f->jobs[i] = job, &f->jobs[i]), MS,
                                                &f->retry_ms, &f->err) == 0)
        i++;
    assert_in_range(i, 250, 252);
    assert_says(f->err, "queue is full");
    assert_in_range(f->retry_ms, 245, 255);
}

static void the_queue_never_holds_more_than_512(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, LANES, gpu_ms); /* 16,000 pictures a second */
    struct sac_job job = {.model = model};
    int i = 0;

    while (i < JOBS_MAX && sac_scheduler_submit(f->s, (f->jobs[i] = job, &f->jobs[i]), MS,
                                                &f->retry_ms, &f->err) == 0)
        i++;
    assert_int_equal(i, 512);
}

static void a_higher_priority_goes_first_and_a_lower_one_does_not_starve(void **state)
{
    struct fixture *f = *state;
    int low = lanes_and_model(f, 1, flat_ms), high = sac_scheduler_add_model(f->s, 8, 3);
    uint64_t now = MS;
    int i = 0, turn = 0;

    note(f, 0, high, flat_ms, 1);
    struct sac_job *waiting = submit(f, i++, low, now, 0);
    now += MS / 2;
    submit(f, i++, high, now, 0);
    now += MS;
    assert_int_equal(take(f, 0, now), 1);
    assert_int_equal(f->taken[0]->model, high);
    for (;;) { /* the high one's queue always holds three */
        while (i < 4 + turn)
            submit(f, i++, high, now, 0);
        now += 2 * MS;
        sac_scheduler_done(f->s, 0);
        assert_int_equal(take(f, 0, now), 1);
        turn++;
        if (f->taken[0] == waiting)
            break;
        assert_in_range(turn, 1, 20);
    }
    assert_in_range(turn, 2, 20);
}

/* The fast lane has been woken, and its core does not run it. */
static void a_slow_lane_takes_what_an_idle_fast_one_lets_lie(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, cpu_ms);
    int slow = sac_scheduler_add_lane(f->s);

    note(f, slow, model, cpu_ms, 4);
    submit(f, 0, model, MS, 0);
    assert_int_equal(take(f, slow, MS), 0);
    assert_int_equal(take(f, slow, 11 * MS), 0);
    assert_int_equal(take(f, slow, 12 * MS), 1);
}

static void a_canceled_job_leaves_no_hole(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms);

    for (int i = 0; i < 5; i++)
        submit(f, i, model, MS, 0);
    assert_true(sac_scheduler_remove(f->s, &f->jobs[2]));
    assert_false(sac_scheduler_remove(f->s, &f->jobs[2]));
    assert_int_equal(take(f, 0, MS), 4);
    assert_ptr_equal(f->taken[2], &f->jobs[3]);
    assert_false(sac_scheduler_remove(f->s, &f->jobs[3]));
}

static void a_lost_lane_gives_its_batch_back_at_the_head_in_order(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 2, gpu_ms);
    struct sac_job *lost[SAC_BATCH_MAX];

    for (int i = 0; i < 6; i++)
        submit(f, i, model, MS, 0);
    int count = take(f, 0, MS);
    assert_true(count > 0 && count < 6);
    memcpy(lost, f->taken, sizeof lost);
    sac_scheduler_lane_down(f->s, 0, lost, count, &f->drops);
    assert_null(f->drops.first);
    assert_int_equal(take(f, 0, MS), 0);
    int next = take(f, 1, MS);
    for (int i = 0; i < next; i++)
        assert_ptr_equal(f->taken[i], &f->jobs[i]);
    assert_int_equal(sac_scheduler_queued(f->s), 6 - next);
}

static void without_a_lane_nothing_waits_and_nothing_is_accepted(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms), dropped = 0;
    struct sac_job job = {.model = model};

    for (int i = 0; i < 3; i++)
        submit(f, i, model, MS, 0);
    int count = take(f, 0, MS);
    sac_scheduler_lane_down(f->s, 0, f->taken, count, &f->drops);
    for (struct sac_job *at = f->drops.first; at; at = at->next, dropped++)
        assert_int_equal(at->drop_code, SAC_EDEVICE);
    assert_int_equal(dropped, 3);
    assert_int_equal(sac_scheduler_submit(f->s, &job, MS, &f->retry_ms, &f->err), SAC_EBUSY);
    assert_says(f->err, "no device is left");
    sac_scheduler_lane_up(f->s, 0);
    submit(f, 4, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 1);
}

static void a_job_that_takes_lane_after_lane_down_is_given_up(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, LANES, gpu_ms);

    submit(f, 0, model, MS, 0);
    for (int l = 0; l < 3; l++) {
        assert_null(f->drops.first);
        assert_int_equal(take(f, l, MS), 1);
        sac_scheduler_lane_down(f->s, l, f->taken, 1, &f->drops);
    }
    assert_ptr_equal(f->drops.first, &f->jobs[0]);
    assert_int_equal(f->jobs[0].drop_code, SAC_EDEVICE);
}

static void a_size_long_unused_is_tried_again(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms);

    for (int i = 0; i < 40; i++)
        sac_scheduler_note(f->s, 0, model, 8, 0, 100 * MS);
    assert_true(sac_scheduler_latency(f->s, 0, model, 3) > 50 * MS);
    for (int i = 0; i < 256; i++)
        sac_scheduler_note(f->s, 0, model, 1, 0, MS);
    assert_int_equal(sac_scheduler_latency(f->s, 0, model, 3), 2 * MS);
}

static void a_hiccup_does_not_make_a_lane_slow(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, cpu_ms);

    sac_scheduler_note(f->s, 0, model, 1, 0, 1000 * MS);
    assert_in_range(sac_scheduler_latency(f->s, 0, model, 0), 2 * MS, 2.25 * MS);
    for (int i = 0; i < 40; i++) /* one that stays slow is believed */
        sac_scheduler_note(f->s, 0, model, 1, 0, 20 * MS);
    assert_in_range(sac_scheduler_latency(f->s, 0, model, 0), 18 * MS, 20 * MS);
}

static void a_bad_warm_up_is_found_out(void **state)
{
    struct fixture *f = *state;
    static const double bad_ms[SIZES] = {1, 2, 4, 100};
    int model = lanes_and_model(f, 1, bad_ms);

    for (int i = 0; i < 256; i++)
        sac_scheduler_note(f->s, 0, model, 4, 0, 4 * MS);
    for (int i = 0; i < 8; i++)
        submit(f, i, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 8); /* tried again … */
    sac_scheduler_note(f->s, 0, model, 8, 0, 5 * MS);
    assert_int_equal(sac_scheduler_latency(f->s, 0, model, 3), 5 * MS); /* … and believed */
}

static void decoding_counts_for_each_picture_of_a_batch(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms);

    sac_scheduler_note(f->s, 0, model, 2, 6 * MS, 1100000);
    assert_int_equal(sac_scheduler_latency(f->s, 0, model, 0), 4 * MS);
    assert_int_equal(sac_scheduler_latency(f->s, 0, model, 3), 26 * MS);
}

static void a_busy_lane_takes_a_whole_batch_ahead_and_no_part_of_one(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms), i = 0;

    while (i < 8)
        submit(f, i++, model, MS, 0);
    assert_int_equal(ahead(f, 0, MS), 0); /* it has none running */
    assert_int_equal(take(f, 0, MS), 8);
    while (i < 15)
        submit(f, i++, model, MS, 0);
    assert_int_equal(ahead(f, 0, MS), 0);
    struct sac_job *last = submit(f, i++, model, MS, 0);
    assert_int_equal(ahead(f, 0, MS), 8);
    assert_ptr_equal(f->taken[7], last);
    while (i < 24)
        submit(f, i++, model, MS, 0);
    assert_int_equal(ahead(f, 0, MS), 0); /* two are enough */
    assert_int_equal(take(f, 0, 3 * MS), 0);
    sac_scheduler_done(f->s, 0);
    assert_int_equal(take(f, 0, 3 * MS), 0); /* the other still runs */
    assert_int_equal(ahead(f, 0, 3 * MS), 8);
}

static void what_is_taken_ahead_meets_its_deadline(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms);

    for (int i = 0; i < 16; i++) /* the second eight end 4 ms from now */
        submit(f, i, model, MS, i == 9 ? 5 * MS - 2 : 0);
    assert_int_equal(take(f, 0, MS), 8);
    assert_int_equal(ahead(f, 0, MS), 0);
    sac_scheduler_done(f->s, 0);
    assert_int_equal(take(f, 0, 3 * MS - 1), 4); /* in time with 1.4 ms */
}

static void a_slow_lane_takes_nothing_ahead_that_others_do_sooner(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, gpu_ms), slow = sac_scheduler_add_lane(f->s);

    note(f, slow, model, gpu_ms, 10);
    for (int i = 0; i < 80; i++) /* too many for the fast one alone */
        submit(f, i, model, MS, 0);
    assert_int_equal(take(f, 0, MS), 8);
    assert_true(take(f, slow, MS) > 0); /* 20 ms at most; then ten batches of the fast one's */
    assert_int_equal(ahead(f, slow, MS), 0);
    assert_int_equal(ahead(f, 0, MS), 8);
}

static void a_lane_lost_with_two_batches_gives_both_back_in_order(void **state)
{
    struct fixture *f = *state;
    struct sac_job *lost[2 * SAC_BATCH_MAX];
    int model = lanes_and_model(f, 2, gpu_ms);
    struct sac_batcher_counters counters;

    for (int i = 0; i < 16; i++)
        submit(f, i, model, MS, 0);
    assert_int_equal(take(f, 1, MS), 8);
    assert_int_equal(take(f, 0, MS), 8);
    memcpy(lost, f->taken, 8 * sizeof *lost);
    for (int i = 16; i < 40; i++)
        submit(f, i, model, MS, 0);
    assert_int_equal(ahead(f, 0, MS), 8);
    memcpy(lost + 8, f->taken, 8 * sizeof *lost);
    sac_scheduler_lane_down(f->s, 0, lost, 16, &f->drops);
    sac_scheduler_counters(f->s, &counters);
    assert_int_equal(counters.running, 8);
    assert_int_equal(counters.queued, 32);
    sac_scheduler_done(f->s, 1);
    for (int b = 0; b < 4; b++) {
        assert_int_equal(take(f, 1, 3 * MS), 8);
        for (int i = 0; i < 8; i++)
            assert_ptr_equal(f->taken[i], &f->jobs[8 + b * 8 + i]);
        sac_scheduler_done(f->s, 1);
    }
}

static void what_is_expected_is_the_backlog_and_one_picture(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 1, flat_ms);

    assert_int_equal(sac_scheduler_expect(f->s, model, MS), 2 * MS);
    for (int i = 0; i < 10; i++)
        submit(f, i, model, MS, 0);
    assert_int_equal(sac_scheduler_expect(f->s, model, MS), 22 * MS);
    sac_scheduler_lane_down(f->s, 0, NULL, 0, &f->drops);
    assert_true(sac_scheduler_expect(f->s, model, MS) == UINT64_MAX);
}

/* Priority p goes before 0 until the other has waited 1 + p times as long. */
static void a_lower_priority_has_its_turn_after_its_share_of_waiting(void **state)
{
    struct fixture *f = *state;
    int low = lanes_and_model(f, 1, flat_ms), high = sac_scheduler_add_model(f->s, 8, 15);

    note(f, 0, high, flat_ms, 1);
    for (int turn = 0; turn < 2; turn++) {
        uint64_t now = 1000 * MS;
        submit(f, 2 * turn, low, now - (turn ? 17 : 15) * MS, 0);
        submit(f, 2 * turn + 1, high, now - MS, 0);
        assert_int_equal(take(f, 0, now), 1);
        assert_int_equal(f->taken[0]->model, turn ? low : high);
        sac_scheduler_done(f->s, 0);
        assert_int_equal(take(f, 0, now), 1);
        sac_scheduler_done(f->s, 0);
    }
}

/* ---- Together ---- */

/* Two equal lanes, the first of which leads; a picture takes 2 ms, and 5/8 of that is
 * hoped for together. */
static int led_pair(struct fixture *f)
{
    int model = lanes_and_model(f, 2, cpu_ms);

    sac_scheduler_lead(f->s, 0, model);
    return model;
}

static void all_cores_join_on_one_picture_while_nothing_else_is_there(void **state)
{
    struct fixture *f = *state;
    int model = led_pair(f);
    bool leave;

    submit(f, 0, model, 10 * MS, 0);
    assert_int_equal(sac_scheduler_wake(f->s, 0, 10 * MS, &leave), 0);
    assert_int_equal(take(f, 0, 10 * MS), 1);
    assert_true(sac_scheduler_join(f->s, 0, model, 10 * MS));
    submit(f, 1, model, 11 * MS, 0); /* waits for the cores */
    assert_int_equal(sac_scheduler_wake(f->s, 0, 11 * MS, &leave), -1);
    assert_int_equal(take(f, 1, 11 * MS), 0);
    /* what is left of 1.25 ms, the backlog of one by two lanes, and one */
    assert_in_range(sac_scheduler_expect(f->s, model, 11 * MS), 3049990, 3050010);
    sac_scheduler_note_together(f->s, model, 0, MS * 5 / 4);
    sac_scheduler_done(f->s, 0);
    assert_int_equal(take(f, 1, 11 * MS + MS / 4), 1);
    struct sac_batcher_counters counters;
    sac_scheduler_counters(f->s, &counters);
    assert_int_equal(counters.together, 1);
}

static void the_leader_has_the_only_picture_though_another_lane_is_faster_alone(void **state)
{
    struct fixture *f = *state;
    int model = led_pair(f);
    bool leave;

    note(f, 1, model, cpu_ms, 0.8);
    submit(f, 0, model, 10 * MS, 0);
    assert_int_equal(sac_scheduler_wake(f->s, 0, 10 * MS, &leave), 0);
    assert_int_equal(take(f, 0, 10 * MS), 1);
}

static void a_leader_that_was_measured_badly_alone_leads_all_the_same(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 2, cpu_ms);
    bool leave;

    for (int i = 0; i < 100; i++)
        note(f, 0, model, cpu_ms, 1.9);
    sac_scheduler_lead(f->s, 0, model);
    submit(f, 0, model, 10 * MS, 0);
    assert_int_equal(sac_scheduler_wake(f->s, 0, 10 * MS, &leave), 0);
    assert_int_equal(take(f, 0, 10 * MS), 1);
    assert_true(sac_scheduler_join(f->s, 0, model, 10 * MS));
}

static void cores_that_are_about_to_be_wanted_stay_apart(void **state)
{
    struct fixture *f = *state;
    int model = led_pair(f);

    submit(f, 0, model, 10 * MS, 0);
    assert_int_equal(take(f, 0, 10 * MS), 1);
    sac_scheduler_done(f->s, 0);
    submit(f, 1, model, 11 * MS, 0); /* 1 ms later: another may come as soon */
    assert_int_equal(take(f, 0, 11 * MS), 1);
    assert_false(sac_scheduler_join(f->s, 0, model, 11 * MS));
    sac_scheduler_done(f->s, 0);
    submit(f, 2, model, 13 * MS, 0);
    assert_int_equal(take(f, 0, 13 * MS), 1);
    assert_true(sac_scheduler_join(f->s, 0, model, 13 * MS));
}

/* Jobs 5 ms apart, each of which finds the one before it running, or gone. */
static void come_and_go(struct fixture *f, int model, int count, bool overlap, uint64_t *now)
{
    for (int i = 0; i < count; i++) {
        *now += 5 * MS;
        submit(f, i % 8, model, *now, 0);
        if (overlap && i > 0)
            sac_scheduler_done(f->s, 1);
        assert_int_equal(take(f, 1, *now), 1);
        if (!overlap)
            sac_scheduler_done(f->s, 1);
    }
    if (overlap)
        sac_scheduler_done(f->s, 1);
    *now += 5 * MS;
}

static bool joins(struct fixture *f, int model, uint64_t now)
{
    submit(f, 9, model, now, 0);
    assert_int_equal(take(f, 0, now), 1);
    bool joined = sac_scheduler_join(f->s, 0, model, now);
    sac_scheduler_done(f->s, 0);
    return joined;
}

static void cores_stay_apart_while_most_jobs_find_others_there(void **state)
{
    struct fixture *f = *state;
    int model = led_pair(f);
    uint64_t now = 10 * MS;

    come_and_go(f, model, 20, false, &now);
    assert_true(joins(f, model, now)); /* one client, again and again */
    come_and_go(f, model, 8, true, &now);
    assert_true(joins(f, model, now)); /* 1 − (15/16)⁷ = 0.36 of them */
    come_and_go(f, model, 16, true, &now);
    assert_false(joins(f, model, now));
    come_and_go(f, model, 16, false, &now);
    assert_true(joins(f, model, now));
}

static void a_lane_that_leaves_a_job_looks_again_when_the_other_should_be_done(void **state)
{
    struct fixture *f = *state;
    int model = lanes_and_model(f, 2, cpu_ms);

    assert_int_equal(sac_scheduler_look_again(f->s, 1, 10 * MS), 2 * MS);
    submit(f, 0, model, 10 * MS, 0);
    assert_int_equal(take(f, 0, 10 * MS), 1); /* until 12 ms */
    assert_int_equal(sac_scheduler_look_again(f->s, 1, 11 * MS), MS + MS / 5);
    /* 1 ms late: as long again is what it may need */
    assert_int_equal(sac_scheduler_look_again(f->s, 1, 13 * MS), MS + MS / 5);
    assert_int_equal(sac_scheduler_look_again(f->s, 0, 13 * MS), 2 * MS);
}

static void nobody_joins_while_something_runs_or_waits_elsewhere(void **state)
{
    struct fixture *f = *state;
    int model = led_pair(f);

    submit(f, 0, model, 10 * MS, 0);
    assert_int_equal(take(f, 1, 10 * MS), 1);
    submit(f, 1, model, 20 * MS, 0);
    assert_int_equal(take(f, 0, 20 * MS), 1);
    assert_false(sac_scheduler_join(f->s, 0, model, 30 * MS)); /* lane 1 runs */
    assert_false(sac_scheduler_join(f->s, 1, model, 30 * MS)); /* and leads none */
    sac_scheduler_done(f->s, 1);
    submit(f, 2, model, 40 * MS, 0);
    assert_false(sac_scheduler_join(f->s, 0, model, 60 * MS)); /* a picture waits */
    assert_int_equal(take(f, 1, 60 * MS), 1);
    sac_scheduler_done(f->s, 1);
    assert_true(sac_scheduler_join(f->s, 0, model, 80 * MS));
}

static void joining_that_is_no_sooner_is_given_up_and_tried_again_later(void **state)
{
    struct fixture *f = *state;
    int model = led_pair(f);

    submit(f, 0, model, 10 * MS, 0);
    assert_int_equal(take(f, 0, 10 * MS), 1);
    sac_scheduler_note_together(f->s, model, 0, 50 * MS); /* a hiccup */
    assert_true(sac_scheduler_join(f->s, 0, model, 10 * MS));
    for (int i = 0; i < 40; i++)
        sac_scheduler_note_together(f->s, model, 0, MS * 19 / 10); /* not by a sixteenth */
    assert_false(sac_scheduler_join(f->s, 0, model, 10 * MS));
    for (int i = 0; i < 255; i++)
        sac_scheduler_note(f->s, 0, model, 1, 0, 2 * MS);
    assert_false(sac_scheduler_join(f->s, 0, model, 10 * MS));
    sac_scheduler_note(f->s, 0, model, 1, 0, 2 * MS);
    assert_true(sac_scheduler_join(f->s, 0, model, 10 * MS));
}

static void a_leader_that_fails_gives_the_cores_and_the_picture_back(void **state)
{
    struct fixture *f = *state;
    int model = led_pair(f);
    struct sac_job *job = submit(f, 0, model, 10 * MS, 0);

    assert_int_equal(take(f, 0, 10 * MS), 1);
    assert_true(sac_scheduler_join(f->s, 0, model, 10 * MS));
    sac_scheduler_lane_down(f->s, 0, &job, 1, &f->drops);
    assert_int_equal(take(f, 1, 11 * MS), 1);
    assert_ptr_equal(f->taken[0], job);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(an_idle_lane_takes_what_waits_at_once),
        CASE(the_queue_grows_into_the_next_batch_while_the_lane_is_busy),
        CASE(batches_stay_small_when_larger_ones_buy_nothing),
        CASE(batches_are_no_larger_than_what_gains),
        CASE(the_batch_meets_the_earliest_deadline),
        CASE(idle_lanes_share_what_waits),
        CASE(a_slow_lane_leaves_a_job_to_a_fast_one_that_ends_sooner),
        CASE(a_slow_lane_takes_what_an_idle_fast_one_lets_lie),
        CASE(idle_lanes_do_not_leave_the_same_jobs_to_each_other),
        CASE(a_lane_that_hangs_is_not_waited_for),
        CASE(wake_names_the_fastest_idle_lane),
        CASE(jobs_past_their_deadline_are_dropped_at_take),
        CASE(what_cannot_be_met_is_refused_at_the_door),
        CASE(one_bad_measurement_refuses_nothing_when_a_lane_is_idle),
        CASE(the_queue_holds_a_quarter_second_of_capacity),
        CASE(the_queue_never_holds_more_than_512),
        CASE(a_higher_priority_goes_first_and_a_lower_one_does_not_starve),
        CASE(a_canceled_job_leaves_no_hole),
        CASE(a_lost_lane_gives_its_batch_back_at_the_head_in_order),
        CASE(without_a_lane_nothing_waits_and_nothing_is_accepted),
        CASE(a_job_that_takes_lane_after_lane_down_is_given_up),
        CASE(a_size_long_unused_is_tried_again),
        CASE(a_hiccup_does_not_make_a_lane_slow),
        CASE(a_bad_warm_up_is_found_out),
        CASE(decoding_counts_for_each_picture_of_a_batch),
        CASE(a_busy_lane_takes_a_whole_batch_ahead_and_no_part_of_one),
        CASE(what_is_taken_ahead_meets_its_deadline),
        CASE(a_slow_lane_takes_nothing_ahead_that_others_do_sooner),
        CASE(a_lane_lost_with_two_batches_gives_both_back_in_order),
        CASE(what_is_expected_is_the_backlog_and_one_picture),
        CASE(a_lower_priority_has_its_turn_after_its_share_of_waiting),
        CASE(all_cores_join_on_one_picture_while_nothing_else_is_there),
        CASE(the_leader_has_the_only_picture_though_another_lane_is_faster_alone),
        CASE(a_leader_that_was_measured_badly_alone_leads_all_the_same),
        CASE(cores_that_are_about_to_be_wanted_stay_apart),
        CASE(cores_stay_apart_while_most_jobs_find_others_there),
        CASE(a_lane_that_leaves_a_job_looks_again_when_the_other_should_be_done),
        CASE(nobody_joins_while_something_runs_or_waits_elsewhere),
        CASE(joining_that_is_no_sooner_is_given_up_and_tried_again_later),
        CASE(a_leader_that_fails_gives_the_cores_and_the_picture_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
