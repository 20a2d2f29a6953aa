/* The communicator on simulated GPUs: ranks that go, that fall silent, that never come, and
 * an NCCL of old. */
#include "device/cuda/comm_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cuda_sim/sim.h"

enum { COUNT = 3000 };

/* NCCL is told which it is by the environment. */
static bool is_old(void)
{
    return getenv("SACCADE_SIM_NCCL_VERSION") != NULL;
}

static int nothing_left(void **state)
{
    struct sim_live live = sim_live();

    (void)state;
    assert_true(sim_fault_set(NULL));
    assert_int_equal(sim_checks_failed(), 0);
    assert_int_equal(live.communicators, 0);
    assert_int_equal(live.streams, 0);
    assert_int_equal(live.allocations, 0);
    return 0;
}

static int until_told(struct sac_comm *comm, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < 10000 && rc == 0; i++) {
        rc = sac_comm_check(comm, err);
        usleep(1000);
    }
    return rc;
}

/* Rank 1's connections close in the second sum; the others learn it, and end by abort. */
static void lose_rank_1(struct comm_rank *rank)
{
    struct sac_error err = {0}, later = {0};
    float *values = comm_numbers(rank, COUNT);

    comm_join(rank);
    assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
    comm_check_sums(rank, values, COUNT);
    assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
    assert_int_equal(until_told(rank->comm, &err), SAC_EDEVICE);
    if (rank->rank != 1) {
        assert_non_null(strstr(err.text, "another rank is gone"));
        assert_non_null(strstr(err.text, "remote process exited"));
    }
    sac_comm_abort(rank->comm, "rank 1 is gone");
    assert_ok(rank->device->table->stream_sync(rank->stream, &later), later);
    assert_int_equal(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &later),
                     SAC_EDEVICE);
    assert_string_equal(later.text, "rank 1 is gone");
    comm_leave(rank);
    comm_drop(rank, values);
}

static void a_rank_that_goes_is_told_and_abort_ends_the_wait(void **state)
{
    (void)state;
    assert_true(sim_fault_set("cut:1:1"));
    comm_run(3, lose_rank_1, NULL);
}

static void *abort_later(void *arg)
{
    usleep(500000); /* all have begun to wait */
    sac_comm_abort(arg, "rank 1 has not been heard of for 8 s");
    return NULL;
}

/* Nothing tells it: another thread, which listens to the ranks, aborts while this waits. */
static void wait_for_the_silent(struct comm_rank *rank)
{
    struct sac_error err = {0};
    float *values = comm_numbers(rank, COUNT);
    pthread_t watch;

    comm_join(rank);
    assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
    assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
    assert_int_equal(pthread_create(&watch, NULL, abort_later, rank->comm), 0);
    assert_ok(rank->device->table->stream_sync(rank->stream, &err), err); /* values are not it */
    assert_int_equal(sac_comm_check(rank->comm, &err), SAC_EDEVICE);
    assert_string_equal(err.text, "rank 1 has not been heard of for 8 s");
    pthread_join(watch, NULL);
    comm_leave(rank);
    comm_drop(rank, values);
}

static void abort_wakes_who_waits_for_a_silent_rank(void **state)
{
    (void)state;
    assert_true(sim_fault_set("mute:1:1"));
    comm_run(3, wait_for_the_silent, NULL);
}

/* The first sum connects the ranks: its call waits for them, on the host. */
static void wait_in_the_first_sum(struct comm_rank *rank)
{
    struct sac_error err = {0}, later = {0};
    float *values = comm_numbers(rank, COUNT);
    pthread_t watch;

    comm_join(rank);
    assert_int_equal(pthread_create(&watch, NULL, abort_later, rank->comm), 0);
    int rc = sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err);
    assert_ok(rank->device->table->stream_sync(rank->stream, &later), later);
    if (!is_old()) { /* which enqueues all the same */
        assert_int_equal(rc, SAC_EDEVICE);
        assert_string_equal(err.text, "rank 1 has not been heard of for 8 s");
    }
    pthread_join(watch, NULL);
    comm_leave(rank);
    comm_drop(rank, values);
}

static void abort_ends_the_first_sum(void **state)
{
    (void)state;
    assert_true(sim_fault_set("mute:1:0"));
    comm_run(3, wait_in_the_first_sum, NULL);
}

static void join_as_one_of_two_processes(struct comm_rank *rank)
{
    const struct sac_comm_place place = {
        .id = rank->id, .rank = rank->rank, .world = rank->world, .processes = 2};
    struct sac_error err = {0};
    int rc = rank->device->table->comm_new(rank->device, &place, &rank->comm, &err);

    assert_int_equal(rc, is_old() ? SAC_EUNSUPPORTED : 0);
    if (is_old())
        assert_string_equal(err.text, "2 processes: NCCL 2.4.3 waits for others without an end "
                                      "when one is lost; 2.14 is the oldest for more than one "
                                      "process");
    sac_comm_free(rank->comm);
    rank->comm = NULL;
}

static void an_nccl_that_cannot_be_ended_is_for_one_process(void **state)
{
    (void)state;
    comm_run(2, join_as_one_of_two_processes, NULL);
}

/* Freed with nothing told: it waits for nobody, and ends what is enqueued. */
static void leave_at_once(struct comm_rank *rank)
{
    struct sac_error err = {0};
    float *values = comm_numbers(rank, COUNT);

    comm_join(rank);
    assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
    comm_check_sums(rank, values, COUNT);
    if (rank->rank == 1)
        usleep(100000); /* the others do not wait for it */
    comm_leave(rank);
    comm_drop(rank, values);
}

static void leaving_waits_for_nobody(void **state)
{
    (void)state;
    comm_run(3, leave_at_once, NULL);
}

/* Rank 0 waits for the others in a sum, while they free pinned memory, for which CUDA would
 * wait for rank 0's GPU. */
static void free_before_the_sum(struct comm_rank *rank)
{
    const struct sac_device_table *table = rank->device->table;
    struct sac_error err = {0};
    float *values = comm_numbers(rank, COUNT);
    void *first = NULL, *second = NULL;

    comm_join(rank);
    if (rank->rank > 0)
        usleep(50000); /* rank 0 is there before */
    for (size_t bytes = 100; rank->rank > 0 && bytes < 1000; bytes += 300) {
        assert_ok(table->memory_new(rank->device, SAC_MEMORY_STAGING, bytes, &first, &err), err);
        memset(first, 1, bytes);
        table->memory_free(rank->device, SAC_MEMORY_STAGING, first);
        assert_ok(table->memory_new(rank->device, SAC_MEMORY_STAGING, bytes, &second, &err), err);
        assert_ptr_equal(first, second); /* used again */
        table->memory_free(rank->device, SAC_MEMORY_STAGING, second);
    }
    assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
    comm_check_sums(rank, values, COUNT);
    comm_leave(rank);
    comm_drop(rank, values);
}

static void freeing_pinned_memory_waits_for_no_other_rank(void **state)
{
    (void)state;
    comm_run(3, free_before_the_sum, NULL);
    assert_int_equal(sim_live().pinned, 0); /* nor is any kept for ever */
}

static void join_as_rank_0(struct comm_rank *rank)
{
    struct sac_error err = {0};

    if (rank->rank == 1)
        usleep(50000);
    const struct sac_comm_place place = {.id = rank->id, .world = 2};
    int rc = rank->device->table->comm_new(rank->device, &place, &rank->comm, &err);
    assert_int_equal(rc, SAC_EDEVICE); /* the first ends when it waited for long enough */
    assert_null(rank->comm);
    if (!is_old()) /* which tells no more than the kind */
        assert_non_null(strstr(err.text, rank->rank == 1 ? "there are two of rank 0" : "waited"));
}

static void two_of_one_rank_are_refused(void **state)
{
    (void)state;
    comm_run(2, join_as_rank_0, NULL);
}

static void join_with_another_world(struct comm_rank *rank)
{
    struct sac_error err = {0};
    int world = rank->rank == 1 ? 3 : 2;

    const struct sac_comm_place place = {.id = rank->id, .rank = rank->rank, .world = world};
    assert_int_equal(rank->device->table->comm_new(rank->device, &place, &rank->comm, &err),
                     SAC_EDEVICE);
    assert_non_null(strstr(err.text, "joining the ranks"));
}

static void ranks_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    comm_run(2, join_with_another_world, NULL);
}

static bool after_a_while(void *user)
{
    struct timespec *until = user, now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > until->tv_sec ||
           (now.tv_sec == until->tv_sec && now.tv_nsec > until->tv_nsec);
}

/* The second never comes, and somebody says so. */
static void join_alone(struct comm_rank *rank)
{
    struct sac_error err = {0};
    struct timespec began, until;
    const struct sac_comm_place place = {
        .id = rank->id, .world = 2, .stop = after_a_while, .user = &until};

    clock_gettime(CLOCK_MONOTONIC, &began);
    until = began;
    until.tv_nsec += until.tv_nsec < 900000000 ? 100000000 : 0;
    assert_int_equal(rank->device->table->comm_new(rank->device, &place, &rank->comm, &err),
                     SAC_EDEVICE);
    assert_null(rank->comm);
    if (!is_old()) /* which cannot be stopped */
        assert_string_equal(err.text, "joining the ranks was stopped");
}

static void joining_can_be_stopped(void **state)
{
    (void)state;
    comm_run(1, join_alone, NULL);
}

static void record(struct comm_rank *rank)
{
    struct sac_error err = {0};
    struct sac_recording *recording = NULL;
    float *values = comm_numbers(rank, COUNT);

    comm_join(rank);
    assert_ok(rank->device->table->record_begin(rank->stream, &err), err);
    int rc = sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err);
    assert_int_equal(rc, is_old() ? SAC_EUNSUPPORTED : 0);
    assert_string_equal(err.text, is_old() ? "NCCL before 2.9 cannot be recorded" : "");
    assert_ok(rank->device->table->record_end(rank->stream, &recording, &err), err);
    rank->device->table->recording_free(recording);
    comm_leave(rank);
    comm_drop(rank, values);
}

static void only_an_old_nccl_refuses_to_be_recorded(void **state)
{
    (void)state;
    comm_run(1, record, NULL);
}

static void lose_the_card(struct comm_rank *rank)
{
    struct sac_error err = {0};
    float *values = comm_numbers(rank, COUNT);

    comm_join(rank);
    assert_true(sim_fault_set("lost:0:0"));
    assert_int_equal(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err),
                     SAC_EDEVICE);
    assert_non_null(strstr(err.text, "cuda:0"));
    comm_leave(rank);
    assert_true(sim_fault_set(NULL));
    sim_device_restore(0);
    comm_drop(rank, values);
}

static void a_lost_card_is_named(void **state)
{
    (void)state;
    comm_run(1, lose_the_card, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_rank_that_goes_is_told_and_abort_ends_the_wait, nothing_left),
        cmocka_unit_test_teardown(abort_wakes_who_waits_for_a_silent_rank, nothing_left),
        cmocka_unit_test_teardown(abort_ends_the_first_sum, nothing_left),
        cmocka_unit_test_teardown(an_nccl_that_cannot_be_ended_is_for_one_process, nothing_left),
        cmocka_unit_test_teardown(leaving_waits_for_nobody, nothing_left),
        cmocka_unit_test_teardown(freeing_pinned_memory_waits_for_no_other_rank, nothing_left),
        cmocka_unit_test_teardown(two_of_one_rank_are_refused, nothing_left),
        cmocka_unit_test_teardown(ranks_that_do_not_fit_are_refused, nothing_left),
        cmocka_unit_test_teardown(joining_can_be_stopped, nothing_left),
        cmocka_unit_test_teardown(only_an_old_nccl_refuses_to_be_recorded, nothing_left),
        cmocka_unit_test_teardown(a_lost_card_is_named, nothing_left),
    };

    setenv("SACCADE_SIM_DEVICES", "3", 1);
    setenv("SACCADE_SIM_NCCL_WAIT", "3", 1);
    return cmocka_run_group_tests_name("cuda_comm_faults", tests, NULL, NULL);
}
