/* Buckets are summed while the way back goes on, and all are there at its end. */
#include "support/support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "ranks/group.h"
#include "ranks/reducer.h"

enum { WORLD = 2, COUNT = 300, STEPS = 6 };

static const struct sac_bucket buckets[] = {{200, 300, 1}, {100, 200, 3}, {0, 100, 5}};

struct part {
    struct sac_comm *comm;
    float values[COUNT];
    bool fails;
    int rc;
    uint64_t step_ns[STEPS];
    struct sac_reducer_span spans[3];
    struct sac_error err;
};

/* What a way back does: each step writes what is there after it. */
static int go_back(struct part *p, struct sac_reducer *r)
{
    int rc = 0;

    sac_reducer_begin(r);
    for (int step = 0; step < STEPS && rc == 0; step++) {
        for (int k = 0; k < 50; k++)
            p->values[COUNT - 50 * (step + 1) + k] = (float)(step + 10 * p->comm->rank);
        usleep(5000);
        p->step_ns[step] = sac_clock_ns();
        if (p->fails && step == 2) {
            sac_comm_abort(p->comm, "rank 1 lost its head");
            return SAC_EINVAL;
        }
        rc = sac_reducer_step(r, step, &p->err);
    }
    return rc == 0 ? sac_reducer_end(r, &p->err) : rc;
}

static void *run(void *argument)
{
    struct part *p = argument;
    struct sac_device *device = NULL;
    struct sac_reducer *r = NULL;

    p->rc = sac_device_open(&device, "cpu", &p->err);
    struct sac_reducer_options how = {.comm = p->comm,
                                      .device = device,
                                      .values = p->values,
                                      .buckets = buckets,
                                      .bucket_count = 3,
                                      .timed = true};
    if (p->rc == 0)
        p->rc = sac_reducer_new(&r, &how, &p->err);
    for (int i = 0; i < 3 && p->rc == 0; i++)
        p->rc = go_back(p, r);
    for (int i = 0; i < 3 && p->rc == 0; i++)
        p->rc = sac_reducer_span(r, i, &p->spans[i], &p->err);
    sac_reducer_free(r);
    sac_device_close(device);
    return NULL;
}

static void run_both(struct part parts[WORLD], bool one_fails)
{
    struct sac_comm *comms[WORLD];
    struct sac_error err = {0};
    pthread_t threads[WORLD];

    assert_ok(sac_group_new(comms, WORLD, &err), err);
    for (int i = 0; i < WORLD; i++) {
        parts[i] = (struct part){.comm = comms[i], .fails = one_fails && i == 1};
        assert_int_equal(pthread_create(&threads[i], NULL, run, &parts[i]), 0);
    }
    for (int i = 0; i < WORLD; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < WORLD; i++)
        sac_comm_free(comms[i]);
}

static void every_bucket_is_summed_once_by_the_end(void **state)
{
    struct part parts[WORLD];

    (void)state;
    run_both(parts, false);
    for (int i = 0; i < WORLD; i++) {
        assert_ok(parts[i].rc, parts[i].err);
        for (int k = 0; k < COUNT; k++)
            assert_float_equal(parts[i].values[k], 2 * ((COUNT - 1 - k) / 50) + 10, 0);
    }
}

/* The first bucket is there before the way back is over. */
static void sums_are_made_while_the_way_back_goes_on(void **state)
{
    struct part parts[WORLD];

    (void)state;
    run_both(parts, false);
    for (int i = 0; i < WORLD; i++) {
        assert_ok(parts[i].rc, parts[i].err);
        assert_true(parts[i].spans[0].began_ns >= parts[i].step_ns[1]);
        assert_true(parts[i].spans[0].began_ns < parts[i].step_ns[STEPS - 1]);
        assert_true(parts[i].spans[2].began_ns >= parts[i].step_ns[STEPS - 1]);
        assert_true(parts[i].spans[2].ended_ns >= parts[i].spans[2].began_ns);
        assert_int_equal(parts[i].spans[1].bucket.first, 100);
    }
}

static void a_rank_that_fails_ends_the_others_with_its_sentence(void **state)
{
    struct part parts[WORLD];

    (void)state;
    run_both(parts, true);
    assert_int_equal(parts[0].rc, SAC_EDEVICE);
    assert_string_equal(parts[0].err.text, "rank 1 lost its head");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bucket_is_summed_once_by_the_end),
        cmocka_unit_test(sums_are_made_while_the_way_back_goes_on),
        cmocka_unit_test(a_rank_that_fails_ends_the_others_with_its_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
