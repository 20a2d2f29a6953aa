#include "cuda_sim/rig.h"

#include "cuda_sim/sim_kernels.h"

static void barriers_hold_a_block_together(void **state)
{
    enum { COUNT = 1000, BLOCKS = 16 };
    float x[COUNT], sums[BLOCKS], *device_x, *device_sums;

    (void)state;
    for (int i = 0; i < COUNT; i++)
        x[i] = rig_value((unsigned)i);
    device_x = rig_upload(x, sizeof x);
    must(cudaMalloc((void **)&device_sums, sizeof sums));
    must(sim_block_sums(device_x, COUNT, device_sums, NULL));
    rig_download(sums, device_sums, sizeof sums);
    for (int b = 0; b < BLOCKS; b++) {
        float sum = 0;

        for (int i = 64 * b; i < 64 * (b + 1) && i < COUNT; i++)
            sum += x[i];
        assert_true(sums[b] == sum);
    }
    must(cudaFree(device_x));
    must(cudaFree(device_sums));
}

static void every_thread_runs_once_at_its_place(void **state)
{
    unsigned out[12 * 24], *device;

    (void)state;
    memset(out, 0, sizeof out);
    device = rig_upload(out, sizeof out);
    must(sim_places(device, NULL));
    rig_download(out, device, sizeof out);
    for (unsigned i = 0; i < 12 * 24; i++)
        assert_int_equal(out[i], 1 + i % 24 + i / 24);
    must(cudaFree(device));
}

static void threads_that_returned_hold_nobody_up(void **state)
{
    float y[8] = {0}, *device = rig_upload(y, sizeof y);

    (void)state;
    must(sim_returning(device, NULL));
    rig_download(y, device, sizeof y);
    for (int i = 0; i < 8; i++)
        assert_true(y[i] == 1);
    must(cudaFree(device));
}

static void a_block_that_is_too_large_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(sim_too_large(NULL, NULL), cudaErrorInvalidConfiguration);
}

static void failed_with(const char *words)
{
    assert_int_equal(sim_checks_failed(), 1);
    if (!strstr(sim_checks_last(), words))
        fail_msg("'%s' does not say '%s'", sim_checks_last(), words);
    sim_checks_clear();
    sim_checks_set(SIM_CHECKS_ABORT);
}

static void barriers_that_diverge_are_told(void **state)
{
    void *memory;

    (void)state;
    must(cudaMalloc(&memory, 8));
    sim_checks_set(SIM_CHECKS_RECORD);
    must(sim_diverging(memory, NULL));
    must(cudaDeviceSynchronize());
    failed_with("diverging: threads of a block wait at different barriers");
    must(cudaFree(memory));
}

static void an_argument_that_was_freed_is_told(void **state)
{
    void *memory;

    (void)state;
    must(cudaMalloc(&memory, 2048));
    must(cudaFree(memory));
    sim_checks_set(SIM_CHECKS_RECORD);
    assert_int_equal(sim_places(memory, NULL), cudaErrorIllegalAddress);
    failed_with("places: 'an argument' at");
    must(cudaDeviceSynchronize());
}

static void what_a_launch_says_it_touches_is_checked(void **state)
{
    float *x, *sums;

    (void)state;
    must(cudaMalloc((void **)&x, 64 * 4));
    must(cudaMalloc((void **)&sums, 4));
    sim_checks_set(SIM_CHECKS_RECORD);
    assert_int_equal(sim_block_sums(x, 65, sums, NULL), cudaErrorIllegalAddress);
    assert_int_equal(sim_checks_failed(), 2); /* x and sums are each too short by one */
    sim_checks_clear();
    sim_checks_set(SIM_CHECKS_ABORT);
    must(cudaFree(x));
    must(cudaFree(sums));
}

#define CASE(name) cmocka_unit_test_teardown(name, rig_nothing_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(barriers_hold_a_block_together),           CASE(every_thread_runs_once_at_its_place),
        CASE(threads_that_returned_hold_nobody_up),     CASE(a_block_that_is_too_large_is_an_error),
        CASE(barriers_that_diverge_are_told),           CASE(an_argument_that_was_freed_is_told),
        CASE(what_a_launch_says_it_touches_is_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
