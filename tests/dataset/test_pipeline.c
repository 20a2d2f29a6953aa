#include "support/support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "dataset/pipeline.h"

struct trial {
    int64_t taken, fail_work_at, fail_take_at;
    int fail_makes;
    atomic_int working, most, made_any;
};

static int worker_new(void *user, void **ret, struct sac_error *err)
{
    struct trial *trial = user;

    if (atomic_fetch_add(&trial->made_any, 1) < trial->fail_makes)
        return sac_fail(err, SAC_ENOMEM, "no worker");
    *ret = trial;
    return 0;
}

static void worker_free(void *worker)
{
    assert_non_null(worker);
}

static int work(void *user, void *worker, int64_t index, void *slot, struct sac_error *err)
{
    struct trial *trial = user;
    int now = atomic_fetch_add(&trial->working, 1) + 1, most = atomic_load(&trial->most);

    assert_ptr_equal(worker, trial);
    while (now > most && !atomic_compare_exchange_weak(&trial->most, &most, now))
        ;
    if (index % 7 == 0)
        usleep(200); /* late ones are waited for */
    *(int64_t *)slot = index * index;
    atomic_fetch_sub(&trial->working, 1);
    if (index == trial->fail_work_at)
        return sac_fail(err, SAC_EIO, "item %d failed", (int)index);
    return 0;
}

static int take(void *user, int64_t index, void *slot, struct sac_error *err)
{
    struct trial *trial = user;

    assert_int_equal(index, trial->taken);
    assert_int_equal(*(int64_t *)slot, index * index);
    trial->taken++;
    return index == trial->fail_take_at ? sac_fail(err, SAC_EINVAL, "not taken") : 0;
}

static void slot_done(void *slot)
{
    memset(slot, 0, sizeof(int64_t));
}

static struct sac_pipeline pipeline_of(int threads, int slots)
{
    return (struct sac_pipeline){.end = 500,
                                 .threads = threads,
                                 .slots = slots,
                                 .slot_size = sizeof(int64_t),
                                 .worker_new = worker_new,
                                 .worker_free = worker_free,
                                 .work = work,
                                 .take = take,
                                 .slot_done = slot_done};
}

static void results_come_in_order_however_many_threads_there_are(void **state)
{
    static const int shapes[][2] = {{1, 1}, {1, 0}, {3, 1}, {3, 4}, {8, 0}, {2, 1000}};

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct trial trial = {.fail_work_at = -1, .fail_take_at = -1};
        struct sac_pipeline pipeline = pipeline_of(shapes[i][0], shapes[i][1]);
        struct sac_error err = {0};
        assert_ok(sac_pipeline_run(&pipeline, &trial, &err), err);
        assert_int_equal(trial.taken, 500);
        assert_true(trial.most <= shapes[i][0]);
    }
}

static void a_run_may_begin_anywhere_and_be_empty(void **state)
{
    struct trial trial = {.taken = 490, .fail_work_at = -1, .fail_take_at = -1};
    struct sac_pipeline pipeline = pipeline_of(2, 3);
    struct sac_error err = {0};

    (void)state;
    pipeline.begin = 490;
    assert_ok(sac_pipeline_run(&pipeline, &trial, &err), err);
    assert_int_equal(trial.taken, 500);
    pipeline.begin = 500;
    assert_ok(sac_pipeline_run(&pipeline, &trial, &err), err);
}

static void the_first_failure_in_order_is_told_and_what_is_before_it_taken(void **state)
{
    struct sac_pipeline pipeline = pipeline_of(4, 0);

    (void)state;
    for (int i = 0; i < 20; i++) {
        struct trial trial = {.fail_work_at = 100 + i, .fail_take_at = -1};
        struct sac_error err = {0};
        char says[40];
        snprintf(says, sizeof says, "item %d failed", 100 + i);
        assert_int_equal(sac_pipeline_run(&pipeline, &trial, &err), SAC_EIO);
        assert_string_equal(err.text, says);
        assert_int_equal(trial.taken, 100 + i);
    }
    struct trial trial = {.fail_work_at = -1, .fail_take_at = 7};
    struct sac_error err = {0};
    assert_int_equal(sac_pipeline_run(&pipeline, &trial, &err), SAC_EINVAL);
    assert_int_equal(trial.taken, 8);
}

static void workers_that_cannot_begin_are_missed_only_if_all_are(void **state)
{
    struct sac_pipeline pipeline = pipeline_of(3, 0);

    (void)state;
    for (int failing = 0; failing <= 3; failing++) {
        struct trial trial = {.fail_work_at = -1, .fail_take_at = -1, .fail_makes = failing};
        struct sac_error err = {0};
        assert_int_equal(sac_pipeline_run(&pipeline, &trial, &err), failing < 3 ? 0 : SAC_ENOMEM);
        if (failing == 3)
            assert_string_equal(err.text, "no worker");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_come_in_order_however_many_threads_there_are),
        cmocka_unit_test(a_run_may_begin_anywhere_and_be_empty),
        cmocka_unit_test(the_first_failure_in_order_is_told_and_what_is_before_it_taken),
        cmocka_unit_test(workers_that_cannot_begin_are_missed_only_if_all_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
