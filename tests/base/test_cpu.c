#include "support/support.h"

#include <sched.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_are_pinned_only_where_they_take_every_core),
        cmocka_unit_test(a_pinned_thread_has_one_of_the_allowed_cores),
    };
    return cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
}
