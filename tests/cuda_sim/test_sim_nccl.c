/* NCCL's stand-in: sums in the ring's order, on streams, over threads and processes; what
 * is misused is found; who is gone shows as it does with NCCL. */
#include "nccl_rig.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK = 4096 }; /* numbers that a rank has of a stretch of the ring, at most */

/* Of magnitudes that differ: another order gives another sum. */
static float number(int rank, size_t i)
{
    return rig_value((unsigned)i * 8 + (unsigned)rank) * (rank % 3 == 1 ? 1e7f : 1.0f / 3);
}

/* NCCL's ring: a stretch of world · part numbers at a time, whose part c sums up from rank
 * c + 1 around to rank c. */
static float ring_sum(int world, size_t count, size_t i)
{
    size_t all = (size_t)world * CHUNK, at = i / all * all, left = count - at;
    size_t part = ((left + (size_t)world - 1) / (size_t)world + 3) / 4 * 4;
    int owner = (int)((i - at) / (part < CHUNK ? part : CHUNK));
    float sum = number((owner + 1) % world, i);

    for (int k = 2; k <= world; k++)
        sum += number((owner + k) % world, i);
    return sum;
}

static float *upload_numbers(int rank, size_t count)
{
    float *host = malloc(count * sizeof *host);

    for (size_t i = 0; i < count; i++)
        host[i] = number(rank, i);
    float *device = rig_upload(host, count * sizeof *host);
    free(host);
    return device;
}

static void check_sums(const float *device, int world, size_t count)
{
    float *host = malloc(count * sizeof *host);

    rig_download(host, device, count * sizeof *host);
    for (size_t i = 0; i < count; i++)
        if (host[i] != ring_sum(world, count, i))
            fail_msg("number %zu of %zu, world %d: %g", i, count, world, (double)host[i]);
    free(host);
}

/* ---- What it computes --------------------------------------------------------------- */

static void sum_sizes(struct rig_rank *rank)
{
    static const size_t counts[] = {1, 5, 32, 1000, 4096 * 8 + 7, 50001};

    rig_open(rank);
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        float *values = upload_numbers(rank->rank, counts[k]), *sums = NULL;

        must(cudaMalloc((void **)&sums, counts[k] * sizeof *sums));
        ncclResult_t result =
            ncclAllReduce(values, sums, counts[k], ncclFloat32, ncclSum, rank->comm, rank->stream);
        must(result == ncclInProgress ? rig_state(rank->comm) : result);
        must(rig_all_reduce(rank, values, counts[k]));
        check_sums(sums, rank->world, counts[k]);
        check_sums(values, rank->world, counts[k]);
        must(cudaFree(values));
        must(cudaFree(sums));
    }
    rig_close(rank);
}

static void ranks_sum_in_the_rings_order(void **state)
{
    (void)state;
    for (int world = 1; world <= 8; world = world < 3 ? world + 1 : world == 3 ? 4 : 2 * world)
        rig_ranks(world, sum_sizes, NULL);
}

static void delayed_ranks_sum_alike(void **state)
{
    (void)state;
    sim_seed_set(7);
    rig_ranks(4, sum_sizes, NULL);
    sim_seed_set(0);
}

static void send_from_each(struct rig_rank *rank)
{
    enum { COUNT = 40001 };
    float *host = malloc(COUNT * sizeof *host);

    rig_open(rank);
    for (int root = 0; root < rank->world; root++) {
        float *values = upload_numbers(rank->rank, COUNT);
        ncclResult_t result =
            ncclBroadcast(values, values, COUNT, ncclFloat32, root, rank->comm, rank->stream);

        must(result == ncclInProgress ? rig_state(rank->comm) : result);
        rig_download(host, values, COUNT * sizeof *host);
        for (size_t i = 0; i < COUNT; i++)
            assert_true(host[i] == number(root, i));
        must(cudaFree(values));
    }
    free(host);
    rig_close(rank);
}

static void a_broadcast_gives_all_the_roots_numbers(void **state)
{
    (void)state;
    rig_ranks(1, send_from_each, NULL);
    rig_ranks(3, send_from_each, NULL);
}

static void two_processes_of_two_ranks_sum_alike(void **state)
{
    ncclUniqueId id;

    (void)state;
    must(ncclGetUniqueId(&id));
    int a = rig_process("sum", &id, 0, 2, 4, NULL), b = rig_process("sum", &id, 2, 2, 4, NULL);
    assert_int_equal(rig_status(a), 0);
    assert_int_equal(rig_status(b), 0);
}

/* ---- Streams ------------------------------------------------------------------------- */

/* The first of its kind, which waits for all. */
static void connect_ranks(struct rig_rank *rank)
{
    float *values = upload_numbers(rank->rank, 100);

    must(rig_all_reduce(rank, values, 100));
    must(cudaStreamSynchronize(rank->stream));
    must(cudaFree(values));
}

static atomic_int door;

static void sum_behind_a_door(struct rig_rank *rank)
{
    float *values = upload_numbers(rank->rank, 100), *others;
    cudaStream_t other;

    rig_open(rank);
    connect_ranks(rank);
    must(cudaMalloc((void **)&others, 400));
    must(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    while (rank->rank == 1 && !atomic_load(&door))
        usleep(200);
    must(rig_all_reduce(rank, values, 100));
    if (rank->rank == 0) {
        must(cudaMemsetAsync(others, 0, 400, other));
        must(cudaStreamSynchronize(other)); /* would never return, did the device wait */
        assert_int_equal(cudaStreamQuery(rank->stream), cudaErrorNotReady);
        atomic_store(&door, 1);
    }
    check_sums(values, rank->world, 100);
    must(cudaFree(values));
    must(cudaFree(others));
    must(cudaStreamDestroy(other));
    rig_close(rank);
}

static void come_late(struct rig_rank *rank)
{
    float *values = upload_numbers(rank->rank, 100);
    ncclResult_t state = ncclSuccess;

    rig_open(rank);
    while (rank->rank == 1 && !atomic_load(&door))
        usleep(200);
    if (rank->rank == 0) {
        assert_int_equal(
            ncclAllReduce(values, values, 100, ncclFloat32, ncclSum, rank->comm, rank->stream),
            ncclInProgress);
        usleep(50000);
        must(ncclCommGetAsyncError(rank->comm, &state));
        assert_int_equal(state, ncclInProgress);
        atomic_store(&door, 1);
        must(rig_state(rank->comm));
    } else {
        must(rig_all_reduce(rank, values, 100));
    }
    check_sums(values, rank->world, 100);
    must(cudaFree(values));
    rig_close(rank);
}

/* As NCCL from 2.22 on, which connects ranks when a call needs it. */
static void the_first_call_of_a_kind_waits_for_the_others(void **state)
{
    (void)state;
    atomic_store(&door, 0);
    rig_ranks(2, come_late, NULL);
}

static void a_call_only_enqueues_and_other_streams_go_on(void **state)
{
    (void)state;
    atomic_store(&door, 0);
    rig_ranks(2, sum_behind_a_door, NULL);
}

/* The first stream is held up, so the second comes to its operation before. */
static void stand_at_the_door(void *arg)
{
    (void)arg;
    usleep(20000);
}

static void sum_on_two_streams(struct rig_rank *rank)
{
    float *first = upload_numbers(rank->rank, 9000), *second = upload_numbers(rank->rank, 700);
    struct rig_rank other = *rank;

    rig_open(rank);
    other.comm = rank->comm;
    must(cudaStreamCreateWithFlags(&other.stream, cudaStreamNonBlocking));
    must(cudaDeviceSynchronize());
    if (rank->rank == 0)
        must(cudaLaunchHostFunc(rank->stream, stand_at_the_door, NULL));
    must(rig_all_reduce(rank, first, 9000));
    must(rig_all_reduce(&other, second, 700));
    check_sums(first, rank->world, 9000);
    check_sums(second, rank->world, 700);
    must(cudaFree(first));
    must(cudaFree(second));
    must(cudaStreamDestroy(other.stream));
    rig_close(rank);
}

static void calls_keep_their_order_over_streams(void **state)
{
    (void)state;
    rig_ranks(2, sum_on_two_streams, NULL);
}

static void replay_sums(struct rig_rank *rank)
{
    enum { COUNT = 5000 };
    float *values = upload_numbers(rank->rank, COUNT), *kept = upload_numbers(rank->rank, COUNT);
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    rig_open(rank);
    must(cudaStreamBeginCapture(rank->stream, cudaStreamCaptureModeThreadLocal));
    must(cudaMemcpyAsync(values, kept, COUNT * 4, cudaMemcpyDeviceToDevice, rank->stream));
    must(rig_all_reduce(rank, values, COUNT));
    must(cudaStreamEndCapture(rank->stream, &graph));
    must(cudaGraphInstantiate(&exec, graph, 0));
    must(cudaGraphDestroy(graph));
    for (int i = 0; i < 3; i++) {
        must(cudaMemsetAsync(values, 0, COUNT * 4, rank->stream));
        must(cudaGraphLaunch(exec, rank->stream));
        check_sums(values, rank->world, COUNT);
    }
    must(cudaGraphExecDestroy(exec));
    must(cudaFree(values));
    must(cudaFree(kept));
    rig_close(rank);
}

static void a_recorded_sum_can_be_replayed(void **state)
{
    (void)state;
    rig_ranks(3, replay_sums, NULL);
}

/* ---- Misuse -------------------------------------------------------------------------- */

static void assert_found(const char *words)
{
    if (sim_checks_failed() == 0 || !strstr(sim_checks_last(), words))
        fail_msg("expected a failed check with \"%s\", the last is \"%s\"", words,
                 sim_checks_last());
    sim_checks_clear();
}

static void a_missing_wait_is_found(void **state)
{
    ncclUniqueId id;
    struct rig_rank rank = {.world = 1};
    cudaStream_t other;
    float *values;

    (void)state;
    must(ncclGetUniqueId(&id));
    rank.id = id;
    rig_open(&rank);
    must(cudaMalloc((void **)&values, 400));
    must(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    must(cudaMemsetAsync(values, 0, 400, rank.stream));
    must(rig_all_reduce(&rank, values, 100)); /* behind it on its stream: in order */
    must(cudaStreamSynchronize(rank.stream));
    assert_int_equal(sim_checks_failed(), 0);
    sim_checks_set(SIM_CHECKS_RECORD);
    must(cudaMemsetAsync(values, 0, 400, other));
    must(rig_all_reduce(&rank, values, 100));
    assert_found("with no event or wait between");
    must(cudaDeviceSynchronize());
    must(cudaFree(values));
    assert_int_equal(rig_all_reduce(&rank, values, 100), ncclUnhandledCudaError);
    assert_found("memory that was freed");
    sim_checks_set(SIM_CHECKS_ABORT);
    must(ncclCommAbort(rank.comm));
    must(cudaStreamDestroy(other));
    must(cudaStreamDestroy(rank.stream));
}

/* What one of two does otherwise. */
enum otherwise { OTHER_COUNT, OTHER_CALL, OTHER_TYPE, OTHER_ROOT };

static ncclResult_t call_otherwise(struct rig_rank *rank, float *values, enum otherwise way)
{
    bool odd = rank->rank == 1;
    ncclResult_t result;

    if (way == OTHER_ROOT || (way == OTHER_CALL && odd))
        result = ncclBroadcast(values, values, 100, ncclFloat32, odd, rank->comm, rank->stream);
    else if (way == OTHER_TYPE && odd)
        result = ncclAllReduce(values, values, 100, ncclFloat64, ncclSum, rank->comm, rank->stream);
    else
        return rig_all_reduce(rank, values, way == OTHER_COUNT && odd ? 99 : 100);
    return result == ncclInProgress ? rig_state(rank->comm) : result;
}

static void end_by_abort(struct rig_rank *rank)
{
    must(ncclCommAbort(rank->comm));
    must(cudaStreamSynchronize(rank->stream));
    must(cudaStreamDestroy(rank->stream));
}

static void disagree(struct rig_rank *rank)
{
    float *values;

    must(cudaMalloc((void **)&values, 800));
    must(cudaMemsetAsync(values, 0, 800, NULL));
    must(cudaDeviceSynchronize());
    rig_open(rank);
    call_otherwise(rank, values, *(const enum otherwise *)rank->user); /* may tell it already */
    ncclResult_t state = rig_failure(rank->comm);
    assert_true(state == ncclInvalidUsage || state == ncclRemoteError);
    assert_string_not_equal(ncclGetLastError(rank->comm), "");
    end_by_abort(rank);
    must(cudaFree(values));
}

static void calls_that_differ_are_an_error_on_every_rank(void **state)
{
    (void)state;
    sim_checks_set(SIM_CHECKS_RECORD);
    for (enum otherwise way = OTHER_COUNT; way <= OTHER_ROOT; way++) {
        rig_ranks(2, disagree, &way);
        assert_found("comes with its operation 0");
    }
    sim_checks_set(SIM_CHECKS_ABORT);
}

static void what_has_ended_is_no_more_used(void **state)
{
    struct rig_rank rank = {.world = 1};
    ncclResult_t result;

    (void)state;
    must(ncclGetUniqueId(&rank.id));
    rig_open(&rank);
    ncclComm_t comm = rank.comm;
    rig_close(&rank);
    sim_checks_set(SIM_CHECKS_RECORD);
    assert_int_equal(ncclCommDestroy(comm), ncclInvalidArgument);
    assert_found("has ended");
    assert_int_equal(ncclCommAbort(comm), ncclInvalidArgument);
    assert_found("has ended");
    assert_int_equal(ncclCommGetAsyncError(comm, &result), ncclInvalidArgument);
    assert_found("has ended");
    assert_int_equal(ncclAllReduce(&rank, &rank, 1, ncclFloat32, ncclSum, comm, NULL),
                     ncclInvalidArgument);
    assert_found("has ended");
    sim_checks_set(SIM_CHECKS_ABORT);
}

static void a_call_in_progress_must_be_waited_for(void **state)
{
    struct rig_rank rank = {.world = 1};
    float *values;

    (void)state;
    must(ncclGetUniqueId(&rank.id));
    must(cudaMalloc((void **)&values, 400));
    must(cudaMemsetAsync(values, 0, 400, NULL));
    must(cudaDeviceSynchronize());
    rig_open(&rank);
    assert_int_equal(
        ncclAllReduce(values, values, 100, ncclFloat32, ncclSum, rank.comm, rank.stream),
        ncclInProgress);
    sim_checks_set(SIM_CHECKS_RECORD);
    assert_int_equal(
        ncclAllReduce(values, values, 100, ncclFloat32, ncclSum, rank.comm, rank.stream),
        ncclInvalidArgument);
    assert_found("in progress still");
    sim_checks_set(SIM_CHECKS_ABORT);
    must(rig_state(rank.comm));
    must(cudaFree(values));
    rig_close(&rank);
}

static void nonsense_is_refused(void **state)
{
    ncclComm_t comm;
    ncclUniqueId id, other = {"?"};

    (void)state;
    must(ncclGetUniqueId(&id));
    assert_int_equal(ncclCommInitRank(&comm, 2, id, 2), ncclInvalidArgument);
    assert_int_equal(ncclCommInitRank(&comm, 0, id, 0), ncclInvalidArgument);
    assert_int_equal(ncclCommInitRank(&comm, 1, other, 0), ncclInvalidArgument);
    assert_int_equal(ncclCommInitRank(NULL, 1, id, 0), ncclInvalidArgument);
    assert_int_equal(ncclAllReduce(&id, &id, 1, ncclFloat32, ncclSum, NULL, NULL),
                     ncclInvalidArgument);
}

/* ---- Joining -------------------------------------------------------------------------- */

static ncclResult_t begin_to_join(struct rig_rank *rank, int world, int as)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;

    config.blocking = 0;
    return ncclCommInitRankConfig(&rank->comm, world, rank->id, as, &config);
}

static void join_badly(struct rig_rank *rank)
{
    const char *how = rank->user;
    bool odd = rank->rank == 1;

    if (strcmp(how, "one device") == 0)
        must(cudaSetDevice(0));
    assert_int_equal(begin_to_join(rank, odd && strcmp(how, "worlds") == 0 ? 3 : 2, rank->rank),
                     ncclInProgress);
    ncclResult_t state = rig_failure(rank->comm);
    assert_true(state == ncclInvalidUsage || state == ncclRemoteError);
    must(ncclCommAbort(rank->comm));
}

static void ranks_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    rig_ranks(2, join_badly, "worlds");
    rig_ranks(2, join_badly, "one device");
}

static void the_second_of_a_rank_is_refused_and_the_first_can_be_aborted(void **state)
{
    struct rig_rank first = {0}, second;
    ncclResult_t result;

    (void)state;
    must(ncclGetUniqueId(&first.id));
    second = first;
    assert_int_equal(begin_to_join(&first, 2, 0), ncclInProgress);
    usleep(20000);
    assert_int_equal(begin_to_join(&second, 2, 0), ncclInProgress);
    assert_int_equal(rig_failure(second.comm), ncclInvalidUsage);
    assert_non_null(strstr(ncclGetLastError(second.comm), "two of rank 0"));
    must(ncclCommGetAsyncError(first.comm, &result));
    assert_int_equal(result, ncclInProgress); /* rank 1 never comes */
    must(ncclCommAbort(first.comm));
    must(ncclCommAbort(second.comm));
}

/* ---- Ranks that are gone -------------------------------------------------------------- */

/* The first sum is whole; in the second, rank 1 is gone. */
static void lose_rank_1(struct rig_rank *rank)
{
    const char *how = rank->user;
    float *values = upload_numbers(rank->rank, 3000);

    rig_open(rank);
    must(rig_all_reduce(rank, values, 3000));
    check_sums(values, rank->world, 3000);
    must(rig_all_reduce(rank, values, 3000));
    if (strcmp(how, "cut") == 0) {
        ncclResult_t expected = rank->rank == 1 ? ncclSystemError : ncclRemoteError;

        assert_int_equal(rig_failure(rank->comm), expected);
    } else
        usleep(100000);
    assert_int_equal(cudaStreamQuery(rank->stream), cudaErrorNotReady); /* as with NCCL */
    end_by_abort(rank);
    must(cudaFree(values));
}

static void a_cut_connection_is_told_and_what_waits_ends_by_abort(void **state)
{
    (void)state;
    assert_true(sim_fault_set("cut:1:1"));
    rig_ranks(3, lose_rank_1, "cut");
    assert_true(sim_fault_set(NULL));
}

static void a_silent_rank_is_not_told_and_what_waits_ends_by_abort(void **state)
{
    (void)state;
    assert_true(sim_fault_set("mute:1:1"));
    rig_ranks(3, lose_rank_1, "mute");
    assert_true(sim_fault_set(NULL));
}

/* In a process of its own: an error in the end. */
static void sum_until_somebody_is_gone(struct rig_rank *rank)
{
    float *values = upload_numbers(rank->rank, 3000);

    rig_open(rank);
    for (int i = 0; i < 3; i++)
        must(rig_all_reduce(rank, values, 3000));
    assert_int_equal(rig_failure(rank->comm), ncclRemoteError);
    end_by_abort(rank);
    must(cudaFree(values));
}

static void a_killed_process_is_told_to_the_others(void **state)
{
    ncclUniqueId id;

    (void)state;
    must(ncclGetUniqueId(&id));
    int a = rig_process("gone", &id, 0, 1, 3, NULL);
    int b = rig_process("gone", &id, 1, 1, 3, "kill:0:2");
    int c = rig_process("gone", &id, 2, 1, 3, NULL);
    int status = rig_status(b);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(rig_status(a), 0);
    assert_int_equal(rig_status(c), 0);
}

static void a_lost_device_is_an_error_of_cudas(void **state)
{
    struct rig_rank rank = {.world = 1};
    float *values;

    (void)state;
    must(ncclGetUniqueId(&rank.id));
    must(cudaMalloc((void **)&values, 400));
    must(cudaMemsetAsync(values, 0, 400, NULL));
    must(cudaDeviceSynchronize());
    rig_open(&rank);
    assert_true(sim_fault_set("lost:0:0"));
    assert_int_equal(rig_all_reduce(&rank, values, 100), ncclUnhandledCudaError);
    must(ncclCommAbort(rank.comm));
    assert_true(sim_fault_set(NULL));
    assert_int_equal(cudaDeviceReset(), cudaSuccess);
}

/* ---- As a rank's process ---------------------------------------------------------------- */

static int run_process(char **argv)
{
    ncclUniqueId id = {{0}};
    int count = atoi(argv[4]);

    snprintf(id.internal, sizeof id.internal, "%s", argv[2]);
    rig_threads(&id, atoi(argv[3]), count, atoi(argv[5]),
                strcmp(argv[1], "sum") == 0 ? sum_sizes : sum_until_somebody_is_gone, NULL);
    return rig_nothing_left(NULL);
}

int main(int argc, char **argv)
{
    setenv("SACCADE_SIM_DEVICES", "8", 0);
    if (argc == 6)
        return run_process(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(ranks_sum_in_the_rings_order, rig_nothing_left),
        cmocka_unit_test_teardown(delayed_ranks_sum_alike, rig_nothing_left),
        cmocka_unit_test_teardown(a_broadcast_gives_all_the_roots_numbers, rig_nothing_left),
        cmocka_unit_test_teardown(two_processes_of_two_ranks_sum_alike, rig_nothing_left),
        cmocka_unit_test_teardown(the_first_call_of_a_kind_waits_for_the_others, rig_nothing_left),
        cmocka_unit_test_teardown(a_call_only_enqueues_and_other_streams_go_on, rig_nothing_left),
        cmocka_unit_test_teardown(calls_keep_their_order_over_streams, rig_nothing_left),
        cmocka_unit_test_teardown(a_recorded_sum_can_be_replayed, rig_nothing_left),
        cmocka_unit_test_teardown(a_missing_wait_is_found, rig_nothing_left),
        cmocka_unit_test_teardown(calls_that_differ_are_an_error_on_every_rank, rig_nothing_left),
        cmocka_unit_test_teardown(what_has_ended_is_no_more_used, rig_nothing_left),
        cmocka_unit_test_teardown(a_call_in_progress_must_be_waited_for, rig_nothing_left),
        cmocka_unit_test_teardown(nonsense_is_refused, rig_nothing_left),
        cmocka_unit_test_teardown(ranks_that_do_not_fit_are_refused, rig_nothing_left),
        cmocka_unit_test_teardown(the_second_of_a_rank_is_refused_and_the_first_can_be_aborted,
                                  rig_nothing_left),
        cmocka_unit_test_teardown(a_cut_connection_is_told_and_what_waits_ends_by_abort,
                                  rig_nothing_left),
        cmocka_unit_test_teardown(a_silent_rank_is_not_told_and_what_waits_ends_by_abort,
                                  rig_nothing_left),
        cmocka_unit_test_teardown(a_killed_process_is_told_to_the_others, rig_nothing_left),
        cmocka_unit_test_teardown(a_lost_device_is_an_error_of_cudas, rig_nothing_left),
    };

    return cmocka_run_group_tests_name("sim_nccl", tests, NULL, NULL);
}
