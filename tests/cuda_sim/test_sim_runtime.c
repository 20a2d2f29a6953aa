#include "cuda_sim/rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static cudaStream_t stream_of(int priority)
{
    cudaStream_t stream;

    must(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority));
    return stream;
}

static cudaEvent_t event_of(unsigned flags)
{
    cudaEvent_t event;

    must(cudaEventCreateWithFlags(&event, flags));
    return event;
}

/* A door that an operation waits at. */
static void stand_at(void *arg)
{
    atomic_int *door = arg;

    while (atomic_load(door) == 0)
        usleep(100);
}

static void enqueueing_does_not_wait(void **state)
{
    cudaStream_t stream = stream_of(0);
    atomic_int door = 0;

    (void)state;
    must(cudaLaunchHostFunc(stream, stand_at, &door));
    assert_int_equal(cudaStreamQuery(stream), cudaErrorNotReady);
    assert_int_equal(cudaGetLastError(), cudaSuccess); /* not ready is no error */
    atomic_store(&door, 1);
    must(cudaStreamSynchronize(stream));
    must(cudaStreamQuery(stream));
    must(cudaStreamDestroy(stream));
}

static void streams_run_side_by_side(void **state)
{
    cudaStream_t slow = stream_of(0), quick = stream_of(0);
    atomic_int door = 0;
    char *memory;

    (void)state;
    must(cudaMalloc((void **)&memory, 64));
    must(cudaLaunchHostFunc(slow, stand_at, &door));
    must(cudaMemsetAsync(memory, 7, 64, quick));
    must(cudaStreamSynchronize(quick)); /* would never return, were there one queue */
    assert_int_equal(cudaStreamQuery(slow), cudaErrorNotReady);
    atomic_store(&door, 1);
    must(cudaStreamSynchronize(slow));
    must(cudaFree(memory));
    must(cudaStreamDestroy(slow));
    must(cudaStreamDestroy(quick));
}

static void an_event_orders_two_streams(void **state)
{
    cudaStream_t first = stream_of(0), second = stream_of(0);
    cudaEvent_t event = event_of(cudaEventDisableTiming);
    atomic_int door = 0;
    unsigned char *memory, *host;

    (void)state;
    must(cudaMalloc((void **)&memory, 64));
    must(cudaHostAlloc((void **)&host, 64, cudaHostAllocDefault));
    must(cudaLaunchHostFunc(first, stand_at, &door));
    must(cudaMemsetAsync(memory, 7, 64, first));
    must(cudaEventRecord(event, first));
    assert_int_equal(cudaEventQuery(event), cudaErrorNotReady);
    must(cudaStreamWaitEvent(second, event, 0));
    must(cudaMemcpyAsync(host, memory, 64, cudaMemcpyDeviceToHost, second));
    usleep(2000);
    assert_int_equal(cudaStreamQuery(second), cudaErrorNotReady);
    atomic_store(&door, 1);
    must(cudaStreamSynchronize(second));
    must(cudaEventSynchronize(event));
    assert_int_equal(host[0], 7);
    assert_int_equal(host[63], 7);
    must(cudaFree(memory));
    must(cudaFreeHost(host));
    must(cudaEventDestroy(event));
    must(cudaStreamDestroy(first));
    must(cudaStreamDestroy(second));
}

static void an_event_that_was_never_recorded_has_happened(void **state)
{
    cudaStream_t stream = stream_of(0);
    cudaEvent_t event = event_of(cudaEventDefault);

    (void)state;
    must(cudaStreamWaitEvent(stream, event, 0));
    must(cudaEventQuery(event));
    must(cudaEventSynchronize(event));
    must(cudaEventDestroy(event));
    must(cudaStreamDestroy(stream));
}

static void events_tell_the_time_between(void **state)
{
    cudaStream_t stream = stream_of(0);
    cudaEvent_t from = event_of(cudaEventDefault), to = event_of(cudaEventDefault);
    cudaEvent_t untimed = event_of(cudaEventDisableTiming);
    float ms = -1;

    (void)state;
    assert_true(sim_fault_set("slow:0:5"));
    must(cudaEventRecord(from, stream));
    must(cudaLaunchHostFunc(stream, stand_at, &(atomic_int){1}));
    must(cudaEventRecord(to, stream));
    must(cudaEventRecord(untimed, stream));
    must(cudaStreamSynchronize(stream));
    must(cudaEventElapsedTime(&ms, from, to));
    assert_true(ms >= 5);
    assert_int_equal(cudaEventElapsedTime(&ms, from, untimed), cudaErrorInvalidResourceHandle);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidResourceHandle);
    assert_true(sim_fault_set(NULL));
    must(cudaEventDestroy(from));
    must(cudaEventDestroy(to));
    must(cudaEventDestroy(untimed));
    must(cudaStreamDestroy(stream));
}

static void fresh_memory_is_nan(void **state)
{
    float *memory, got[4];

    (void)state;
    must(cudaMalloc((void **)&memory, sizeof got));
    rig_download(got, memory, sizeof got);
    for (int i = 0; i < 4; i++)
        assert_true(got[i] != got[i]);
    must(cudaFree(memory));
}

static void memory_has_an_end(void **state)
{
    size_t left, total, after;
    void *memory, *more = NULL;

    (void)state;
    must(cudaMemGetInfo(&left, &total));
    assert_int_equal(left, total);
    must(cudaMalloc(&memory, 1000));
    must(cudaMemGetInfo(&after, &total));
    assert_int_equal(after, left - 1000);
    assert_int_equal(cudaMalloc(&more, total), cudaErrorMemoryAllocation);
    assert_null(more);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess); /* asked for, gone */
    must(cudaFree(memory));
}

static void devices_are_as_many_as_said(void **state)
{
    struct cudaDeviceProp properties;
    int count, major, minor;

    (void)state;
    must(cudaGetDeviceCount(&count));
    assert_int_equal(count, 3); /* SACCADE_SIM_DEVICES of this test */
    must(cudaGetDeviceProperties(&properties, 2));
    must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 2));
    must(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 2));
    assert_int_equal(properties.major, major);
    assert_int_equal(properties.minor, minor);
    assert_int_equal(cudaSetDevice(3), cudaErrorInvalidDevice);
    assert_string_equal(cudaGetErrorName(cudaGetLastError()), "cudaErrorInvalidDevice");
}

/* Captures on two streams, joined: host += 1 device side by a copy chain. */
static cudaGraphExec_t capture(cudaStream_t main, cudaStream_t side, char *from, char *middle,
                               char *to, size_t bytes)
{
    cudaEvent_t fork_ = event_of(cudaEventDisableTiming), join = event_of(cudaEventDisableTiming);
    cudaGraphExec_t exec;
    cudaGraph_t graph;

    must(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal));
    must(cudaMemcpyAsync(middle, from, bytes, cudaMemcpyHostToDevice, main));
    must(cudaEventRecord(fork_, main));
    must(cudaStreamWaitEvent(side, fork_, 0));
    must(cudaMemcpyAsync(to, middle, bytes, cudaMemcpyDeviceToHost, side));
    must(cudaEventRecord(join, side));
    must(cudaStreamWaitEvent(main, join, 0));
    must(cudaMemsetAsync(middle, 9, bytes, main));
    must(cudaStreamEndCapture(main, &graph));
    must(cudaGraphInstantiate(&exec, graph, 0));
    must(cudaGraphDestroy(graph));
    must(cudaEventDestroy(fork_));
    must(cudaEventDestroy(join));
    return exec;
}

static void a_captured_graph_runs_at_each_launch_and_not_before(void **state)
{
    cudaStream_t main = stream_of(0), side = stream_of(0);
    cudaGraphExec_t exec;
    char *from, *middle, *to;

    (void)state;
    must(cudaHostAlloc((void **)&from, 16, cudaHostAllocDefault));
    must(cudaHostAlloc((void **)&to, 16, cudaHostAllocDefault));
    must(cudaMalloc((void **)&middle, 16));
    memset(to, 1, 16);
    memset(from, 2, 16);
    exec = capture(main, side, from, middle, to, 16);
    must(cudaDeviceSynchronize());
    assert_int_equal(to[0], 1); /* recording ran nothing */
    for (char i = 3; i < 6; i++) {
        memset(from, i, 16);
        must(cudaGraphLaunch(exec, main));
        must(cudaStreamSynchronize(main));
        assert_int_equal(to[15], i);
    }
    must(cudaGraphExecDestroy(exec));
    must(cudaFree(middle));
    must(cudaFreeHost(from));
    must(cudaFreeHost(to));
    must(cudaStreamDestroy(main));
    must(cudaStreamDestroy(side));
}

/* CUDA orders the launches of one graph, on whatever streams. */
static void launches_of_one_graph_come_one_after_the_other(void **state)
{
    cudaStream_t stream[2] = {stream_of(0), stream_of(0)};
    atomic_int door = 0;
    cudaGraphExec_t exec;
    cudaGraph_t graph;
    char *memory;

    (void)state;
    must(cudaMalloc((void **)&memory, 64));
    must(cudaStreamBeginCapture(stream[0], cudaStreamCaptureModeThreadLocal));
    must(cudaLaunchHostFunc(stream[0], stand_at, &door));
    must(cudaMemsetAsync(memory, 0, 64, stream[0]));
    must(cudaStreamEndCapture(stream[0], &graph));
    must(cudaGraphInstantiate(&exec, graph, 0));
    must(cudaGraphDestroy(graph));
    for (int i = 0; i < 20; i++)
        must(cudaGraphLaunch(exec, stream[i % 2]));
    usleep(2000);
    assert_int_equal(cudaStreamQuery(stream[1]), cudaErrorNotReady);
    atomic_store(&door, 1);
    must(cudaDeviceSynchronize());
    must(cudaGraphExecDestroy(exec));
    must(cudaFree(memory));
    must(cudaStreamDestroy(stream[0]));
    must(cudaStreamDestroy(stream[1]));
}

static void a_lost_device_fails_from_then_on_and_the_others_do_not(void **state)
{
    cudaStream_t stream = stream_of(0), other;
    void *memory, *others;
    int calls = 0;

    (void)state;
    must(cudaMalloc(&memory, 64));
    assert_true(sim_fault_set("lost:0:2"));
    while (cudaMemsetAsync(memory, 0, 64, stream) == cudaSuccess)
        calls++;
    assert_int_equal(calls, 2);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure); /* it stays */
    must(cudaSetDevice(1));
    must(cudaGetLastError());
    must(cudaStreamCreateWithPriority(&other, cudaStreamNonBlocking, 0));
    must(cudaMalloc(&others, 64));
    must(cudaMemsetAsync(others, 0, 64, other));
    must(cudaStreamSynchronize(other));
    must(cudaFree(others));
    must(cudaStreamDestroy(other));
    must(cudaSetDevice(0));
    must(cudaStreamDestroy(stream));
    must(cudaDeviceReset()); /* takes the memory with it */
    must(cudaMalloc(&memory, 64));
    must(cudaFree(memory));
    assert_true(sim_fault_set(NULL));
}

static void what_a_lost_device_had_queued_does_not_run(void **state)
{
    cudaStream_t stream = stream_of(0);
    atomic_int door = 0;
    char *memory;

    (void)state;
    must(cudaHostAlloc((void **)&memory, 8, cudaHostAllocDefault));
    memset(memory, 1, 8);
    must(cudaLaunchHostFunc(stream, stand_at, &door));
    must(cudaMemsetAsync(memory, 2, 8, stream));
    assert_true(sim_fault_set("lost:0:0"));
    assert_int_equal(cudaMemsetAsync(memory, 3, 8, stream), cudaErrorLaunchFailure);
    atomic_store(&door, 1);
    must(cudaStreamDestroy(stream));
    assert_int_equal(memory[0], 1);
    sim_device_restore(0);
    assert_true(sim_fault_set(NULL));
    must(cudaFreeHost(memory));
}

static void the_kth_allocation_fails(void **state)
{
    void *first, *second = NULL;

    (void)state;
    assert_true(sim_fault_set("oom:0:1"));
    must(cudaMalloc(&first, 64));
    assert_int_equal(cudaMalloc(&second, 64), cudaErrorMemoryAllocation);
    cudaGetLastError();
    must(cudaMalloc(&second, 64));
    must(cudaFree(first));
    must(cudaFree(second));
    assert_true(sim_fault_set(NULL));
}

static void faults_that_cannot_be_read_are_refused(void **state)
{
    (void)state;
    assert_false(sim_fault_set("lost"));
    assert_false(sim_fault_set("lost:0"));
    assert_false(sim_fault_set("lost:3:1")); /* there are three devices */
    assert_false(sim_fault_set("lost:0:1,"
                               "melt:0:1"));
    assert_false(sim_fault_set("lost:0:1x"));
    assert_true(sim_fault_set("lost:0:100,oom:1:2,slow:2:0.5"));
    assert_true(sim_fault_set(""));
}

/* Many streams from many threads, delayed at random, each chain in order. */
static void *chain(void *arg)
{
    cudaStream_t stream;
    cudaEvent_t event;
    int *host, *memory;

    must(cudaSetDevice((int)(intptr_t)arg % 3));
    stream = stream_of(0);
    event = event_of(cudaEventDisableTiming);
    must(cudaHostAlloc((void **)&host, 64, cudaHostAllocDefault));
    must(cudaMalloc((void **)&memory, 64));
    for (int i = 0; i < 30; i++) {
        host[0] = i;
        must(cudaMemcpyAsync(memory, host, 4, cudaMemcpyHostToDevice, stream));
        must(cudaMemcpyAsync(host + 1, memory, 4, cudaMemcpyDeviceToHost, stream));
        must(cudaEventRecord(event, stream));
        must(cudaEventSynchronize(event));
        assert_int_equal(host[1], i);
    }
    must(cudaFree(memory));
    must(cudaFreeHost(host));
    must(cudaEventDestroy(event));
    must(cudaStreamDestroy(stream));
    return NULL;
}

static void threads_with_delays_keep_their_order(void **state)
{
    pthread_t thread[6];

    (void)state;
    sim_seed_set(42);
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, chain, (void *)(intptr_t)i), 0);
    for (int i = 0; i < 6; i++)
        pthread_join(thread[i], NULL);
    sim_seed_set(0);
}

#define CASE(name) cmocka_unit_test_teardown(name, rig_nothing_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(enqueueing_does_not_wait),
        CASE(streams_run_side_by_side),
        CASE(an_event_orders_two_streams),
        CASE(an_event_that_was_never_recorded_has_happened),
        CASE(events_tell_the_time_between),
        CASE(fresh_memory_is_nan),
        CASE(memory_has_an_end),
        CASE(devices_are_as_many_as_said),
        CASE(a_captured_graph_runs_at_each_launch_and_not_before),
        CASE(launches_of_one_graph_come_one_after_the_other),
        CASE(a_lost_device_fails_from_then_on_and_the_others_do_not),
        CASE(what_a_lost_device_had_queued_does_not_run),
        CASE(the_kth_allocation_fails),
        CASE(faults_that_cannot_be_read_are_refused),
        CASE(threads_with_delays_keep_their_order),
    };

    setenv("SACCADE_SIM_DEVICES", "3", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
