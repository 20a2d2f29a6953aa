#include "support/support.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpu.h"

static void workers_are_pinned_only_where_they_take_every_core(void **state)
{
    cpu_set_t allowed;

    (void)state;
    assert_int_equal(sched_getaffinity(getpid(), sizeof allowed, &allowed), 0);
    assert_true(sac_cpu_is_pinning_wise(CPU_COUNT(&allowed)));
    assert_true(sac_cpu_is_pinning_wise(CPU_COUNT(&allowed) + 1));
    assert_false(sac_cpu_is_pinning_wise(CPU_COUNT(&allowed) - 1));
}

static void a_pinned_thread_has_one_of_the_allowed_cores(void **state)
{
    cpu_set_t allowed, own;

    (void)state;
    assert_int_equal(sched_getaffinity(getpid(), sizeof allowed, &allowed), 0);
    assert_in_range(sac_cpu_count(), 1, CPU_COUNT(&allowed));
    for (int i = 0; i <= CPU_COUNT(&allowed); i++) {
        sac_cpu_pin(i);
        assert_int_equal(sched_getaffinity(0, sizeof own, &own), 0);
        assert_int_equal(CPU_COUNT(&own), 1);
        CPU_AND(&own, &own, &allowed);
        assert_int_equal(CPU_COUNT(&own), 1);
    }
}

/* As sched_getattr(2) has it: size, policy, flags, nice, priority, runtime, … */
static uint64_t slice_of_this_thread(void)
{
    uint64_t words[6] = {0};

    return syscall(SYS_sched_getattr, 0, words, sizeof words, 0) == 0 ? words[3] : 0;
}

static void *be_prompt(void *user)
{
    sac_cpu_be_prompt();
    *(uint64_t *)user = slice_of_this_thread();
    return NULL;
}

static void a_prompt_thread_has_short_slices_and_others_keep_theirs(void **state)
{
    uint64_t before = slice_of_this_thread(), slice = 0;
    pthread_t thread;

    (void)state;
    if (before == 0) /* before Linux 6.12 */
        skip();
    assert_int_equal(pthread_create(&thread, NULL, be_prompt, &slice), 0);
    pthread_join(thread, NULL);
    assert_int_equal(slice, 100000);
    assert_int_equal(slice_of_this_thread(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_are_pinned_only_where_they_take_every_core),
        cmocka_unit_test(a_pinned_thread_has_one_of_the_allowed_cores),
        cmocka_unit_test(a_prompt_thread_has_short_slices_and_others_keep_theirs),
    };
    return cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
}
