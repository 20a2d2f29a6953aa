/* Each check fires where it must, by the words of its sentence, and not where
 * all is well. */
#include "cuda_sim/rig.h"

#include <cudnn.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda_sim/internal.h"

enum { BYTES = 4096 };

struct bench {
    cudaStream_t stream[2];
    cudaEvent_t event;
    char *memory, *pinned;
};

static struct bench b;

static int open_bench(void **state)
{
    (void)state;
    sim_checks_set(SIM_CHECKS_RECORD);
    must(cudaSetDevice(0));
    for (int i = 0; i < 2; i++)
        must(cudaStreamCreateWithPriority(&b.stream[i], cudaStreamNonBlocking, 0));
    must(cudaEventCreateWithFlags(&b.event, cudaEventDisableTiming));
    must(cudaMalloc((void **)&b.memory, BYTES));
    must(cudaHostAlloc((void **)&b.pinned, BYTES, cudaHostAllocDefault));
    return 0;
}

static int close_bench(void **state)
{
    struct sim_live live, none = {0};

    (void)state;
    sim_checks_clear();
    must(cudaSetDevice(0));
    must(cudaDeviceSynchronize());
    for (int i = 0; i < 2; i++)
        must(cudaStreamDestroy(b.stream[i]));
    must(cudaEventDestroy(b.event));
    must(cudaFree(b.memory));
    must(cudaFreeHost(b.pinned));
    assert_int_equal(sim_checks_failed(), 0);
    live = sim_live();
    assert_memory_equal(&live, &none, sizeof live);
    cudaGetLastError();
    return 0;
}

/* Exactly one check failed, and its sentence has these words. */
static void failed_with(const char *words)
{
    assert_int_equal(sim_checks_failed(), 1);
    if (!strstr(sim_checks_last(), words))
        fail_msg("'%s' does not say '%s'", sim_checks_last(), words);
    sim_checks_clear();
}

static cudaError_t fill_on(int stream, size_t from, size_t bytes)
{
    return cudaMemsetAsync(b.memory + from, 0, bytes, b.stream[stream]);
}

static cudaError_t read_on(int stream, size_t from, size_t bytes)
{
    return cudaMemcpyAsync(b.pinned + from, b.memory + from, bytes, cudaMemcpyDeviceToHost,
                           b.stream[stream]);
}

static void a_pageable_copy_is_told(void **state)
{
    char pageable[8] = {5, 5};

    (void)state;
    must(cudaMemcpyAsync(b.memory, pageable, 8, cudaMemcpyHostToDevice, b.stream[0]));
    failed_with("cudaMemcpyAsync: the source is pageable memory");
    must(cudaMemcpyAsync(pageable, b.memory, 8, cudaMemcpyDeviceToHost, b.stream[0]));
    failed_with("cudaMemcpyAsync: the destination is pageable memory");
    sim_pageable_allow(true);
    must(cudaMemcpyAsync(b.memory, pageable, 8, cudaMemcpyHostToDevice, b.stream[0]));
    must(cudaMemcpyAsync(pageable, b.memory, 8, cudaMemcpyDeviceToHost, b.stream[0]));
    sim_pageable_allow(false);
    assert_int_equal(pageable[1], 5); /* such a copy to the host is done when it returns */
    assert_int_equal(sim_checks_failed(), 0);
}

static void a_wrong_direction_is_told(void **state)
{
    (void)state;
    assert_int_equal(cudaMemcpyAsync(b.memory, b.pinned, 8, cudaMemcpyDeviceToHost, b.stream[0]),
                     cudaErrorInvalidValue);
    failed_with("the destination is device memory and the source host");
}

static void use_after_free_is_told(void **state)
{
    char *memory;

    (void)state;
    must(cudaMalloc((void **)&memory, 64));
    must(cudaFree(memory));
    assert_int_equal(cudaMemsetAsync(memory, 0, 8, b.stream[0]), cudaErrorIllegalAddress);
    failed_with("in memory that was freed");
    assert_int_equal(cudaFree(memory), cudaErrorInvalidValue);
    failed_with("was freed before");
}

static void a_graph_that_outlives_its_memory_is_told(void **state)
{
    cudaGraphExec_t exec;
    cudaGraph_t graph;
    char *memory;

    (void)state;
    must(cudaMalloc((void **)&memory, 64));
    must(cudaStreamBeginCapture(b.stream[0], cudaStreamCaptureModeThreadLocal));
    must(cudaMemsetAsync(memory, 0, 64, b.stream[0]));
    must(cudaStreamEndCapture(b.stream[0], &graph));
    must(cudaGraphInstantiate(&exec, graph, 0));
    must(cudaGraphDestroy(graph));
    must(cudaFree(memory));
    assert_int_equal(cudaGraphLaunch(exec, b.stream[0]), cudaErrorIllegalAddress);
    failed_with("cudaMemsetAsync: 'destination' at");
    must(cudaGraphExecDestroy(exec));
}

static void bytes_beyond_an_allocation_are_told(void **state)
{
    (void)state;
    must(fill_on(0, BYTES - 8, 8));
    assert_int_equal(fill_on(0, BYTES - 8, 9), cudaErrorIllegalAddress);
    failed_with("takes 9 bytes, of which the allocation of 4096 has 8 left");
}

static void another_devices_memory_is_told(void **state)
{
    cudaStream_t other;

    (void)state;
    must(cudaSetDevice(1));
    must(cudaStreamCreateWithPriority(&other, cudaStreamNonBlocking, 0));
    assert_int_equal(cudaMemsetAsync(b.memory, 0, 8, other), cudaErrorIllegalAddress);
    failed_with("is on device 0, and the stream on device 1");
    must(cudaSetDevice(0));
    assert_int_equal(cudaMemsetAsync(b.memory, 0, 8, other), cudaErrorInvalidResourceHandle);
    failed_with("the stream is of device 1 and the thread's device is 0");
    assert_int_equal(cudaEventRecord(b.event, other), cudaErrorInvalidResourceHandle);
    failed_with("the event is of device 0 and the stream of device 1");
    must(cudaStreamDestroy(other));
}

static void a_read_without_a_wait_is_told(void **state)
{
    (void)state;
    must(fill_on(0, 0, BYTES));
    must(read_on(1, 100, 8));
    failed_with("reads 'source', bytes 100 to 108 of an allocation of 4096 on device 0, which "
                "cudaMemsetAsync on stream");
}

static void a_write_over_what_is_read_is_told(void **state)
{
    (void)state;
    must(read_on(0, 0, 64));
    must(fill_on(1, 32, 64));
    failed_with("reads, with no event or wait between");
}

static void a_write_over_a_write_is_told(void **state)
{
    (void)state;
    must(fill_on(0, 0, 64));
    must(fill_on(1, 63, 64));
    failed_with("bytes 63 to 64");
}

static void an_event_between_is_enough(void **state)
{
    (void)state;
    must(fill_on(0, 0, BYTES));
    must(cudaEventRecord(b.event, b.stream[0]));
    must(cudaStreamWaitEvent(b.stream[1], b.event, 0));
    must(read_on(1, 0, BYTES));
    assert_int_equal(sim_checks_failed(), 0);
    must(fill_on(0, 8, 8)); /* the event is of before this */
    failed_with("stream");
}

/* What is recorded before the write says nothing of the write. */
static void an_event_of_before_is_not_enough(void **state)
{
    (void)state;
    must(cudaEventRecord(b.event, b.stream[0]));
    must(fill_on(0, 0, 64));
    must(cudaStreamWaitEvent(b.stream[1], b.event, 0));
    must(read_on(1, 0, 64));
    failed_with("reads 'source'");
}

static void a_host_wait_between_is_enough(void **state)
{
    (void)state;
    must(fill_on(0, 0, BYTES));
    must(cudaStreamSynchronize(b.stream[0]));
    must(read_on(1, 0, BYTES));
    must(cudaDeviceSynchronize());
    must(fill_on(0, 0, BYTES));
    must(cudaEventRecord(b.event, b.stream[0]));
    must(cudaEventSynchronize(b.event));
    must(fill_on(1, 0, BYTES));
    assert_int_equal(sim_checks_failed(), 0);
}

static void ranges_apart_need_no_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < BYTES; i += 128) {
        must(fill_on(0, i, 64));
        must(fill_on(1, i + 64, 64));
        must(read_on(0, i + 16, 16));
        must(read_on(1, i + 80, 16));
    }
    assert_int_equal(sim_checks_failed(), 0);
}

static void many_may_read_together(void **state)
{
    (void)state;
    must(fill_on(0, 0, BYTES));
    must(cudaEventRecord(b.event, b.stream[0]));
    must(cudaStreamWaitEvent(b.stream[1], b.event, 0));
    must(read_on(0, 0, 64));
    must(cudaMemcpyAsync(b.pinned + 64, b.memory, 64, cudaMemcpyDeviceToHost, b.stream[1]));
    assert_int_equal(sim_checks_failed(), 0);
}

static void a_race_inside_a_capture_is_told(void **state)
{
    cudaGraph_t graph;

    (void)state;
    must(cudaStreamBeginCapture(b.stream[0], cudaStreamCaptureModeThreadLocal));
    must(cudaEventRecord(b.event, b.stream[0]));
    must(cudaStreamWaitEvent(b.stream[1], b.event, 0));
    must(fill_on(0, 0, 64));
    must(fill_on(1, 0, 64));
    failed_with("writes 'destination'");
    must(cudaEventRecord(b.event, b.stream[1]));
    must(cudaStreamWaitEvent(b.stream[0], b.event, 0));
    must(cudaStreamEndCapture(b.stream[0], &graph));
    must(cudaGraphDestroy(graph));
}

static void a_stream_that_was_not_joined_is_told(void **state)
{
    cudaGraph_t graph;

    (void)state;
    must(cudaStreamBeginCapture(b.stream[0], cudaStreamCaptureModeThreadLocal));
    must(cudaEventRecord(b.event, b.stream[0]));
    must(cudaStreamWaitEvent(b.stream[1], b.event, 0));
    must(fill_on(1, 0, 64));
    assert_int_equal(cudaStreamEndCapture(b.stream[0], &graph), cudaErrorStreamCaptureUnjoined);
    failed_with("was not waited for");
    assert_null(graph);
}

static cudaError_t end_broken_capture(void)
{
    cudaGraph_t graph;

    return cudaStreamEndCapture(b.stream[0], &graph);
}

static void what_capture_forbids_is_told(void **state)
{
    cudnnHandle_t handle;
    void *memory;

    (void)state;
    must(cudaStreamBeginCapture(b.stream[0], cudaStreamCaptureModeThreadLocal));
    assert_int_equal(cudnnCreate(&handle), CUDNN_STATUS_NOT_INITIALIZED);
    failed_with("a library's handle: not allowed while a stream is captured");
    assert_int_equal(end_broken_capture(), cudaErrorStreamCaptureInvalidated);
    must(cudaStreamBeginCapture(b.stream[0], cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaMalloc(&memory, 64), cudaErrorStreamCaptureUnsupported);
    failed_with("cudaMalloc: not allowed while a stream is captured");
    assert_int_equal(fill_on(0, 0, 8), cudaErrorStreamCaptureInvalidated);
    assert_int_equal(end_broken_capture(), cudaErrorStreamCaptureInvalidated);
    must(cudaStreamBeginCapture(b.stream[0], cudaStreamCaptureModeRelaxed));
    must(cudaMalloc(&memory, 64));
    must(cudaFree(memory));
    assert_int_equal(cudaStreamSynchronize(b.stream[0]), cudaErrorStreamCaptureUnsupported);
    failed_with("cudaStreamSynchronize: not allowed on a stream that is captured");
    assert_int_equal(end_broken_capture(), cudaErrorStreamCaptureInvalidated);
}

static void waiting_for_outside_in_a_capture_is_told(void **state)
{
    (void)state;
    must(cudaEventRecord(b.event, b.stream[1]));
    must(cudaStreamBeginCapture(b.stream[0], cudaStreamCaptureModeRelaxed));
    assert_int_equal(cudaStreamWaitEvent(b.stream[0], b.event, 0), cudaErrorStreamCaptureIsolation);
    failed_with("a capturing stream waits for an event of outside");
    assert_int_equal(end_broken_capture(), cudaErrorStreamCaptureInvalidated);
}

static void asking_a_captured_event_is_told(void **state)
{
    (void)state;
    must(cudaStreamBeginCapture(b.stream[0], cudaStreamCaptureModeRelaxed));
    must(cudaEventRecord(b.event, b.stream[0]));
    assert_int_equal(cudaEventQuery(b.event), cudaErrorCapturedEvent);
    failed_with("the event was recorded in a capture");
    assert_int_equal(end_broken_capture(), cudaErrorStreamCaptureInvalidated);
}

static void nap(void *arg)
{
    usleep(*(int *)arg);
}

static void destroying_what_is_in_use_is_told(void **state)
{
    cudaStream_t stream;
    cudaEvent_t event;
    int us = 20000;

    (void)state;
    must(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0));
    must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    must(cudaLaunchHostFunc(stream, nap, &us));
    must(cudaEventRecord(event, stream));
    must(cudaEventDestroy(event));
    failed_with("cudaEventDestroy: the event is recorded and has not happened yet");
    must(cudaStreamDestroy(stream));
    failed_with("cudaStreamDestroy: the stream still has 2 operations to do");
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
    failed_with("is no stream, or was destroyed");
}

/* A convolution's extents come from its descriptors; channels side by side are
 * no race, however they are interleaved. */
static void forward(cudnnHandle_t handle, int c_stride_extra, char *y, cudnnStatus_t status)
{
    cudnnTensorDescriptor_t x_desc, y_desc;
    cudnnFilterDescriptor_t w_desc;
    cudnnConvolutionDescriptor_t conv;
    const float one = 1, zero = 0;
    int pitch = 4 + c_stride_extra;

    must(cudnnCreateTensorDescriptor(&x_desc));
    must(cudnnCreateTensorDescriptor(&y_desc));
    must(cudnnCreateFilterDescriptor(&w_desc));
    must(cudnnCreateConvolutionDescriptor(&conv));
    must(cudnnSetTensor4dDescriptor(x_desc, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 1, 3, 3));
    must(cudnnSetTensor4dDescriptorEx(y_desc, CUDNN_DATA_FLOAT, 1, 4, 3, 3, 9 * pitch, 1, 3 * pitch,
                                      pitch));
    must(cudnnSetFilter4dDescriptor(w_desc, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, 4, 1, 1, 1));
    must(cudnnSetConvolution2dDescriptor(conv, 0, 0, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION,
                                         CUDNN_DATA_FLOAT));
    assert_int_equal(cudnnConvolutionForward(handle, &one, x_desc, b.memory, w_desc, b.memory + 256,
                                             conv, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, NULL,
                                             0, &zero, y_desc, y),
                     status);
    must(cudnnDestroyTensorDescriptor(x_desc));
    must(cudnnDestroyTensorDescriptor(y_desc));
    must(cudnnDestroyFilterDescriptor(w_desc));
    must(cudnnDestroyConvolutionDescriptor(conv));
}

static void tensors_are_checked_by_their_descriptors(void **state)
{
    cudnnHandle_t handle[2];
    char *y = b.memory + 1024;

    (void)state;
    for (int i = 0; i < 2; i++) {
        must(cudnnCreate(&handle[i]));
        must(cudnnSetStream(handle[i], b.stream[i]));
    }
    must(fill_on(0, 0, BYTES));
    must(cudaDeviceSynchronize());
    forward(handle[0], 4, y, CUDNN_STATUS_SUCCESS);
    forward(handle[1], 4, y + 16, CUDNN_STATUS_SUCCESS); /* the other four of eight channels */
    assert_int_equal(sim_checks_failed(), 0);
    forward(handle[1], 4, y + 12, CUDNN_STATUS_SUCCESS); /* one too low */
    failed_with("writes 'output', bytes 1036 to 1040");
    /* The last place of the view ends at ((3·3 − 1)·8 + 4)·4 = 272 bytes. */
    forward(handle[0], 4, b.memory + BYTES - 272, CUDNN_STATUS_SUCCESS);
    assert_int_equal(sim_checks_failed(), 0);
    forward(handle[0], 4, b.memory + BYTES - 268, CUDNN_STATUS_EXECUTION_FAILED);
    failed_with("'output' takes 272 bytes, of which the allocation of 4096 has 268 left");
    must(cudaDeviceSynchronize());
    must(cudnnDestroy(handle[0]));
    must(cudnnDestroy(handle[1]));
}

static void a_handle_on_the_wrong_device_is_told(void **state)
{
    cudnnHandle_t handle;

    (void)state;
    must(cudnnCreate(&handle));
    must(cudaSetDevice(1));
    forward(handle, 0, b.memory, CUDNN_STATUS_EXECUTION_FAILED);
    failed_with("the handle is of device 0 and the thread's device is 1");
    must(cudnnDestroy(handle));
}

/* By default a failed check ends the program, with its sentence on stderr. */
static void a_failed_check_aborts(void **state)
{
    char said[512] = "";
    int pipes[2], status = 0;
    ssize_t length;
    pid_t child;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    child = fork();
    if (child == 0) {
        dup2(pipes[1], 2);
        sim_checks_set(SIM_CHECKS_ABORT);
        cudaFree(b.memory + 1); /* needs no thread: fork leaves them behind */
        _exit(0);
    }
    close(pipes[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    length = read(pipes[0], said, sizeof said - 1);
    close(pipes[0]);
    assert_true(length > 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(said, "cuda_sim: cudaFree: "));
    assert_non_null(strstr(said, "is inside an allocation, not its start\n"));
}

/* Random accesses against a history kept byte by byte. */
enum { SIZE = 64, SLOTS = 3 };

struct byte {
    int writer, readers[SLOTS];
    uint32_t at, read_at[SLOTS];
};

static bool races(struct byte *bytes, const struct sim_access *access, const char *base, int slot,
                  const struct sim_clock *clock)
{
    size_t start = (size_t)((const char *)access->data - base);
    bool found = false;

    for (size_t p = 0; p < access->dim[3]; p++)
        for (size_t i = 0; i < access->run; i++) {
            struct byte *byte = &bytes[start + p * access->stride[3] + i];

            found |=
                byte->writer >= 0 && byte->writer != slot && clock->at[byte->writer] < byte->at;
            for (int s = 0; s < SLOTS && access->write; s++)
                found |= byte->readers[s] && s != slot && clock->at[s] < byte->read_at[s];
            if (access->write) {
                *byte = (struct byte){.writer = slot, .at = clock->at[slot]};
            } else {
                byte->readers[slot] = 1;
                byte->read_at[slot] = clock->at[slot];
            }
        }
    return found;
}

static void histories_by_range_are_those_by_byte(void **state)
{
    static char base[SIZE];
    struct sim_allocation allocation = {.data = base, .bytes = SIZE};
    struct sim_history history = {0};
    struct sim_clock clock[SLOTS] = {0};
    struct byte bytes[SIZE];
    int told = 0;

    (void)state;
    for (int i = 0; i < SIZE; i++)
        bytes[i] = (struct byte){.writer = -1};
    srand(7);
    for (int i = 0; i < 20000; i++) {
        int slot = rand() % SLOTS, other = rand() % SLOTS;
        size_t places = 1 + (size_t)rand() % 3, run = 1 + (size_t)rand() % 8;
        size_t stride = run + (size_t)rand() % 8, extent = (places - 1) * stride + run;
        struct sim_access access = {.what = "it",
                                    .data = base + (size_t)rand() % (SIZE - extent + 1),
                                    .run = run,
                                    .dim = {1, 1, 1, places},
                                    .stride = {0, 0, 0, stride},
                                    .write = rand() % 2};
        bool want;

        if (rand() % 2)
            sim_clock_join(&clock[slot], &clock[other]);
        clock[slot].at[slot]++;
        want = races(bytes, &access, base, slot, &clock[slot]);
        sim_checks_clear();
        sim_enter();
        sim_order_access(&history, &allocation, "call", &access, slot, &clock[slot]);
        sim_leave();
        assert_int_equal(sim_checks_failed(), want);
        told += want;
    }
    assert_in_range(told, 1000, 19000); /* both answers were tried */
    sim_history_free(&history);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_bench, close_bench)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_pageable_copy_is_told),
        CASE(a_wrong_direction_is_told),
        CASE(use_after_free_is_told),
        CASE(a_graph_that_outlives_its_memory_is_told),
        CASE(bytes_beyond_an_allocation_are_told),
        CASE(another_devices_memory_is_told),
        CASE(a_read_without_a_wait_is_told),
        CASE(a_write_over_what_is_read_is_told),
        CASE(a_write_over_a_write_is_told),
        CASE(an_event_between_is_enough),
        CASE(an_event_of_before_is_not_enough),
        CASE(a_host_wait_between_is_enough),
        CASE(ranges_apart_need_no_order),
        CASE(many_may_read_together),
        CASE(a_race_inside_a_capture_is_told),
        CASE(a_stream_that_was_not_joined_is_told),
        CASE(what_capture_forbids_is_told),
        CASE(waiting_for_outside_in_a_capture_is_told),
        CASE(asking_a_captured_event_is_told),
        CASE(destroying_what_is_in_use_is_told),
        CASE(tensors_are_checked_by_their_descriptors),
        CASE(a_handle_on_the_wrong_device_is_told),
        CASE(a_failed_check_aborts),
        CASE(histories_by_range_are_those_by_byte),
    };

    setenv("SACCADE_SIM_DEVICES", "2", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
