/* The communicator over NCCL, one rank a GPU, as many as there are: on a card alone this is
 * NCCL with one rank. */
#include "device/cuda/comm_rig.h"

#include <stdlib.h>
#include <string.h>

#include "device/cuda/card.h"

enum { COUNT = 30001 };

static void the_library_is_named(void **state)
{
    struct sac_error err = {0};
    struct sac_device *device;
    char text[64];

    (void)state;
    assert_ok(sac_device_open(&device, "cuda:0", &err), err);
    assert_ok(device->table->comm_library(text, sizeof text, &err), err);
    assert_true(strncmp(text, "NCCL 2.", 7) == 0);
    sac_device_close(device);
}

static void sum(struct comm_rank *rank)
{
    static const size_t counts[] = {1, 33, COUNT};
    struct sac_error err = {0};

    comm_join(rank);
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        float *values = comm_numbers(rank, counts[k]);

        assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, counts[k], &err), err);
        comm_check_sums(rank, values, counts[k]);
        comm_drop(rank, values);
    }
    assert_ok(sac_comm_check(rank->comm, &err), err);
    comm_leave(rank);
}

static void ranks_sum(void **state)
{
    (void)state;
    for (int world = 1; world <= comm_world(); world *= 2)
        comm_run(world, sum, NULL);
}

static void send(struct comm_rank *rank)
{
    float *host = malloc(COUNT * sizeof *host);
    struct sac_error err = {0};

    comm_join(rank);
    for (int root = 0; root < rank->world; root++) {
        float *values = comm_numbers(rank, COUNT);

        assert_ok(sac_comm_broadcast(rank->comm, rank->stream, values, COUNT, root, &err), err);
        comm_read(rank, host, values, COUNT);
        for (size_t i = 0; i < COUNT; i++)
            assert_true(host[i] == comm_number(root, i));
        comm_drop(rank, values);
    }
    free(host);
    comm_leave(rank);
}

static void all_have_the_roots_numbers(void **state)
{
    (void)state;
    comm_run(comm_world() < 3 ? comm_world() : 3, send, NULL);
}

/* A step whose gradients come from one stream and are summed on another. */
static void sum_behind_an_event(struct comm_rank *rank)
{
    const struct sac_device_table *table = rank->device->table;
    float *values = comm_numbers(rank, COUNT), *made = comm_numbers(rank, COUNT);
    struct sac_error err = {0};
    struct sac_stream *compute;
    struct sac_event *ready;

    comm_join(rank);
    assert_ok(table->stream_new(rank->device, &compute, &err), err);
    assert_ok(table->event_new(rank->device, &ready, &err), err);
    for (int step = 0; step < 5; step++) {
        assert_ok(
            table->copy(compute, SAC_COPY_ON_DEVICE, values, made, COUNT * sizeof *made, &err),
            err);
        assert_ok(table->event_record(ready, compute, &err), err);
        assert_ok(table->stream_wait(rank->stream, ready, &err), err);
        assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
        assert_ok(table->event_record(ready, rank->stream, &err), err);
        assert_ok(table->stream_wait(compute, ready, &err), err);
    }
    assert_ok(table->stream_sync(compute, &err), err);
    comm_check_sums(rank, values, COUNT);
    comm_leave(rank);
    table->event_free(ready);
    table->stream_free(compute);
    comm_drop(rank, values);
    comm_drop(rank, made);
}

static void sums_follow_what_made_the_numbers(void **state)
{
    (void)state;
    comm_run(comm_world(), sum_behind_an_event, NULL);
}

static void replay(struct comm_rank *rank)
{
    const struct sac_device_table *table = rank->device->table;
    float *values = comm_numbers(rank, COUNT), *made = comm_numbers(rank, COUNT);
    size_t bytes = COUNT * sizeof *made;
    struct sac_error err = {0};
    struct sac_recording *recording = NULL;

    comm_join(rank);
    assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
    assert_ok(table->record_begin(rank->stream, &err), err);
    assert_ok(table->copy(rank->stream, SAC_COPY_ON_DEVICE, values, made, bytes, &err), err);
    assert_ok(sac_comm_all_reduce(rank->comm, rank->stream, values, COUNT, &err), err);
    assert_ok(table->record_end(rank->stream, &recording, &err), err);
    for (int i = 0; i < 3; i++) {
        assert_ok(table->clear(rank->stream, values, bytes, &err), err);
        assert_ok(table->replay(recording, rank->stream, &err), err);
        comm_check_sums(rank, values, COUNT);
    }
    table->recording_free(recording);
    comm_leave(rank);
    comm_drop(rank, values);
    comm_drop(rank, made);
}

static void sums_can_be_recorded(void **state)
{
    (void)state;
    comm_run(comm_world() < 4 ? comm_world() : 4, replay, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_is_named),
        cmocka_unit_test(ranks_sum),
        cmocka_unit_test(all_have_the_roots_numbers),
        cmocka_unit_test(sums_follow_what_made_the_numbers),
        cmocka_unit_test(sums_can_be_recorded),
    };

    setenv("SACCADE_SIM_DEVICES", "8", 0); /* of the simulator, where that is what there is */
    card_or_skip();
    return cmocka_run_group_tests_name("cuda_comm", tests, NULL, NULL);
}
