/* The batcher with real threads: each job ends exactly once, whatever happens. */
#include "support/support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/batcher.h"

enum { LANES = 3, PRODUCERS = 3, JOBS_EACH = 3000 };

struct test_job {
    struct sac_job job;
    atomic_int ended; /* how often: run or dropped */
    atomic_int code;
};

static void on_dropped(struct sac_job *job, int code)
{
    struct test_job *mine = (struct test_job *)job;

    atomic_store(&mine->code, code);
    atomic_fetch_add(&mine->ended, 1);
}

static struct sac_batcher *new_batcher(int lanes, int *ret_model)
{
    struct sac_batcher *batcher;
    struct sac_error err = {0};

    assert_ok(sac_batcher_new(&batcher, NULL, &err), err);
    *ret_model = sac_batcher_add_model(batcher, 8, 0);
    for (int l = 0; l < lanes; l++) {
        int lane = sac_batcher_add_lane(batcher);
        assert_int_equal(lane, l);
        for (int n = 1; n <= 8; n *= 2)
            sac_batcher_note_latency(batcher, lane, *ret_model, n, 0, 5000u + 1000u * (unsigned)n);
    }
    return batcher;
}

struct lane_thread {
    pthread_t thread;
    struct sac_batcher *batcher;
    int lane;
    int fail_every; /* batches; 0: never */
    int taken;
    uint64_t first_taken_ns;
};

static void end_all(struct sac_job **jobs, int count)
{
    for (int i = 0; i < count; i++)
        atomic_fetch_add(&((struct test_job *)jobs[i])->ended, 1);
}

static void *run_lane(void *user)
{
    struct lane_thread *me = user;
    struct sac_job *jobs[SAC_BATCH_MAX];
    int count, batches = 0;

    while ((count = sac_batcher_take(me->batcher, me->lane, jobs)) > 0) {
        if (!me->taken)
            me->first_taken_ns = sac_clock_ns();
        if (me->fail_every && ++batches % me->fail_every == 0) {
            sac_batcher_lane_down(me->batcher, me->lane, jobs, count);
            sac_batcher_lane_up(me->batcher, me->lane);
            continue;
        }
        me->taken += count;
        end_all(jobs, count);
        sac_batcher_note_latency(me->batcher, me->lane, 0, count, 0, 6000);
        sac_batcher_done(me->batcher, me->lane);
    }
    return NULL;
}

static void start_lane(struct lane_thread *lane, struct sac_batcher *batcher, int index)
{
    *lane = (struct lane_thread){.batcher = batcher, .lane = index, .fail_every = lane->fail_every};
    assert_int_equal(pthread_create(&lane->thread, NULL, run_lane, lane), 0);
}

static void batcher_dispatches_at_once_when_a_device_is_idle(void **state)
{
    (void)state;
    int model, retry;
    struct sac_batcher *batcher = new_batcher(1, &model);
    struct lane_thread lane = {0};
    struct test_job job = {.job = {.model = model}};
    struct sac_error err = {0};

    start_lane(&lane, batcher, 0);
    usleep(20000); /* it sleeps by now; if not, the test is only easier */
    uint64_t from = sac_clock_ns();
    assert_ok(sac_batcher_submit(batcher, &job.job, &retry, &err), err);
    while (!atomic_load(&job.ended))
        usleep(100);
    sac_batcher_stop(batcher);
    pthread_join(lane.thread, NULL);
    /* Far below any batching delay, with room for a loaded machine. */
    assert_true(lane.first_taken_ns - from < 200000000);
    sac_batcher_free(batcher);
}

static void stop_works_off_the_queue_and_then_lets_the_lanes_go(void **state)
{
    (void)state;
    int model, retry;
    struct sac_batcher *batcher = new_batcher(2, &model);
    struct lane_thread lanes[2] = {0};
    struct test_job jobs[100];
    struct sac_error err = {0};

    memset(jobs, 0, sizeof jobs);
    for (int i = 0; i < 100; i++) {
        jobs[i].job.model = model;
        assert_ok(sac_batcher_submit(batcher, &jobs[i].job, &retry, &err), err);
    }
    sac_batcher_stop(batcher);
    struct test_job late = {.job = {.model = model}};
    assert_int_equal(sac_batcher_submit(batcher, &late.job, &retry, &err), SAC_EBUSY);
    assert_says(err, "stopping");
    for (int l = 0; l < 2; l++)
        start_lane(&lanes[l], batcher, l);
    for (int l = 0; l < 2; l++)
        pthread_join(lanes[l].thread, NULL);
    for (int i = 0; i < 100; i++)
        assert_int_equal(atomic_load(&jobs[i].ended), 1);
    struct sac_batcher_counters counters;
    sac_batcher_counters(batcher, &counters);
    assert_int_equal(counters.completed, 100);
    assert_int_equal(counters.queued, 0);
    assert_int_equal(counters.running, 0);
    sac_batcher_free(batcher);
}

static void cancel_tells_at_once_while_queued_and_marks_while_running(void **state)
{
    (void)state;
    int model, retry;
    struct sac_batcher *batcher = new_batcher(1, &model);
    struct test_job jobs[2] = {{.job = {.model = model, .dropped = on_dropped}},
                               {.job = {.model = model, .dropped = on_dropped}}};
    struct sac_job *taken[SAC_BATCH_MAX];
    struct sac_error err = {0};

    assert_ok(sac_batcher_submit(batcher, &jobs[0].job, &retry, &err), err);
    assert_int_equal(sac_batcher_take(batcher, 0, taken), 1);
    assert_ok(sac_batcher_submit(batcher, &jobs[1].job, &retry, &err), err);
    assert_false(sac_batcher_cancel(batcher, &jobs[0].job));
    assert_true(atomic_load(&jobs[0].job.canceled));
    assert_int_equal(atomic_load(&jobs[0].ended), 0);
    assert_true(sac_batcher_cancel(batcher, &jobs[1].job));
    assert_int_equal(atomic_load(&jobs[1].ended), 1);
    assert_int_equal(atomic_load(&jobs[1].code), SAC_ECANCELED);
    assert_false(sac_batcher_cancel(batcher, &jobs[1].job));
    sac_batcher_free(batcher);
}

static uint64_t fake_now = 1000000;

static uint64_t fake_clock(void)
{
    return fake_now;
}

static void what_lapsed_in_the_queue_is_told_so(void **state)
{
    (void)state;
    struct sac_batcher_options options = {.clock = fake_clock};
    struct sac_batcher *batcher;
    struct sac_error err = {0};
    struct sac_job *taken[SAC_BATCH_MAX];
    int retry;

    assert_ok(sac_batcher_new(&batcher, &options, &err), err);
    int model = sac_batcher_add_model(batcher, 8, 0), lane = sac_batcher_add_lane(batcher);
    sac_batcher_note_latency(batcher, lane, model, 1, 0, 1000000);
    struct test_job late = {
        .job = {.model = model, .dropped = on_dropped, .deadline_ns = fake_now + 5000000}};
    struct test_job live = {.job = {.model = model, .dropped = on_dropped}};
    assert_ok(sac_batcher_submit(batcher, &late.job, &retry, &err), err);
    assert_ok(sac_batcher_submit(batcher, &live.job, &retry, &err), err);
    fake_now += 6000000;
    assert_int_equal(sac_batcher_take(batcher, lane, taken), 1);
    assert_ptr_equal(taken[0], &live.job);
    assert_int_equal(atomic_load(&late.ended), 1);
    assert_int_equal(atomic_load(&late.code), SAC_ETIMEDOUT);
    sac_batcher_free(batcher);
}

struct producer {
    pthread_t thread;
    struct sac_batcher *batcher;
    struct test_job *jobs;
    uint64_t seed;
    int refused;
};

static void *produce(void *user)
{
    struct producer *me = user;
    struct sac_error err = {0};
    int retry;

    for (int i = 0; i < JOBS_EACH; i++) {
        me->seed = me->seed * 6364136223846793005ull + 1442695040888963407ull;
        unsigned dice = (unsigned)(me->seed >> 40);
        struct test_job *job = &me->jobs[i];
        job->job.dropped = on_dropped;
        job->job.deadline_ns = dice % 5 == 0 ? sac_clock_ns() + dice % 100000 : 0;
        if (sac_batcher_submit(me->batcher, &job->job, &retry, &err) != 0) {
            atomic_fetch_add(&job->ended, 1);
            me->refused++;
            usleep(50);
        } else if (dice % 7 == 0) {
            sac_batcher_cancel(me->batcher, &me->jobs[i - (int)(dice % 3) * (i > 3)].job);
        }
    }
    return NULL;
}

static void each_job_ends_once_under_threads_cancels_deadlines_and_failing_lanes(void **state)
{
    (void)state;
    int model;
    struct sac_batcher *batcher = new_batcher(LANES, &model);
    struct lane_thread lanes[LANES] = {{0}, {.fail_every = 50}, {.fail_every = 7}};
    struct producer producers[PRODUCERS];

    for (int l = 0; l < LANES; l++)
        start_lane(&lanes[l], batcher, l);
    for (int p = 0; p < PRODUCERS; p++) {
        producers[p] = (struct producer){.batcher = batcher, .seed = (uint64_t)p + 1};
        producers[p].jobs = calloc(JOBS_EACH, sizeof *producers[p].jobs);
        assert_non_null(producers[p].jobs);
        assert_int_equal(pthread_create(&producers[p].thread, NULL, produce, &producers[p]), 0);
    }
    for (int p = 0; p < PRODUCERS; p++)
        pthread_join(producers[p].thread, NULL);
    sac_batcher_stop(batcher);
    for (int l = 0; l < LANES; l++)
        pthread_join(lanes[l].thread, NULL);
    struct sac_batcher_counters c;
    sac_batcher_counters(batcher, &c);
    assert_int_equal(c.queued, 0);
    assert_int_equal(c.running, 0);
    assert_int_equal(c.submitted, c.completed + c.canceled + c.timed_out + c.lost);
    for (int p = 0; p < PRODUCERS; p++) {
        for (int i = 0; i < JOBS_EACH; i++)
            assert_int_equal(atomic_load(&producers[p].jobs[i].ended), 1);
        free(producers[p].jobs);
    }
    sac_batcher_free(batcher);
}

static void a_job_costs_little(void **state)
{
    (void)state;
    int model, retry;
    struct sac_batcher *batcher = new_batcher(1, &model);
    struct sac_job *taken[SAC_BATCH_MAX];
    struct test_job job = {.job = {.model = model}};
    struct sac_error err = {0};
    enum { TIMES = 100000 };

    uint64_t from = sac_clock_thread_cpu_ns();
    for (int i = 0; i < TIMES; i++) {
        assert_ok(sac_batcher_submit(batcher, &job.job, &retry, &err), err);
        assert_int_equal(sac_batcher_take(batcher, 0, taken), 1);
        sac_batcher_note_latency(batcher, 0, model, 1, 100, 6000);
        sac_batcher_done(batcher, 0);
    }
    double each = (double)(sac_clock_thread_cpu_ns() - from) / TIMES;
    print_message("# submit, take, note and done: %.0f ns of CPU a job\n", each);
    assert_true(each < 50000); /* a sanitizer's build included */
    sac_batcher_free(batcher);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batcher_dispatches_at_once_when_a_device_is_idle),
        cmocka_unit_test(stop_works_off_the_queue_and_then_lets_the_lanes_go),
        cmocka_unit_test(cancel_tells_at_once_while_queued_and_marks_while_running),
        cmocka_unit_test(what_lapsed_in_the_queue_is_told_so),
        cmocka_unit_test(each_job_ends_once_under_threads_cancels_deadlines_and_failing_lanes),
        cmocka_unit_test(a_job_costs_little),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
