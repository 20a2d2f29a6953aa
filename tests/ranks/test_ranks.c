/* Who a process is, what it takes, and which gradients travel together. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "ranks/ranks.h"

static const char *const *environment; /* name, value, …, NULL */

static const char *get(const char *name)
{
    for (int i = 0; environment[i]; i += 2)
        if (strcmp(environment[i], name) == 0)
            return environment[i + 1];
    return NULL;
}

static int read_from(const char *const *from, struct sac_ranks *ret, struct sac_error *err)
{
    environment = from;
    return sac_ranks_read(ret, get, err);
}

static void without_variables_a_process_is_alone(void **state)
{
    const char *const none[] = {"PATH", "/bin", NULL};
    const char *const one_task[] = {"SLURM_NTASKS", "1", "SLURM_PROCID", "0", NULL};
    struct sac_ranks r = {.rank = 7};
    struct sac_error err = {0};

    (void)state;
    assert_ok(read_from(none, &r, &err), err);
    assert_int_equal(r.rank, 0);
    assert_int_equal(r.world, 1);
    assert_ok(read_from(one_task, &r, &err), err);
    assert_int_equal(r.world, 1);
}

static void torchrun_and_slurm_say_who_is_who(void **state)
{
    const char *const torchrun[] = {
        "RANK",        "5",     "WORLD_SIZE",       "8", "LOCAL_RANK", "1", "MASTER_ADDR", "node0",
        "MASTER_PORT", "29500", "LOCAL_WORLD_SIZE", "4", NULL};
    const char *const slurm[] = {
        "SLURM_NTASKS", "4",           "SLURM_PROCID", "3", "SLURM_LOCALID", "1", "MASTER_ADDR",
        "10.0.0.1",     "MASTER_PORT", "1234",         NULL};
    struct sac_ranks r;
    struct sac_error err = {0};

    (void)state;
    assert_ok(read_from(torchrun, &r, &err), err);
    assert_int_equal(r.rank, 5);
    assert_int_equal(r.world, 8);
    assert_int_equal(r.local, 1);
    assert_string_equal(r.master, "node0");
    assert_int_equal(r.port, 29500);
    assert_int_equal(r.locals, 4);
    assert_ok(read_from(slurm, &r, &err), err);
    assert_int_equal(r.rank, 3);
    assert_int_equal(r.world, 4);
    assert_string_equal(r.master, "10.0.0.1");
}

/* torchrun's agent has MASTER_PORT itself; Open MPI needs no master. */
static void open_mpi_and_a_torchrun_with_a_store_are_known(void **state)
{
    const char *const agent[] = {"RANK",        "1",           "WORLD_SIZE",
                                 "2",           "MASTER_ADDR", "node0",
                                 "MASTER_PORT", "29500",       "TORCHELASTIC_USE_AGENT_STORE",
                                 "True",        NULL};
    const char *const mpi[] = {"OMPI_COMM_WORLD_RANK",
                               "2",
                               "OMPI_COMM_WORLD_SIZE",
                               "3",
                               "OMPI_COMM_WORLD_LOCAL_RANK",
                               "1",
                               "OMPI_COMM_WORLD_LOCAL_SIZE",
                               "2",
                               NULL};
    struct sac_ranks r;
    struct sac_error err = {0};

    (void)state;
    assert_ok(read_from(agent, &r, &err), err);
    assert_int_equal(r.port, 29501);
    assert_false(r.mpi);
    assert_ok(read_from(mpi, &r, &err), err);
    assert_int_equal(r.rank, 2);
    assert_int_equal(r.world, 3);
    assert_int_equal(r.local, 1);
    assert_int_equal(r.locals, 2);
    assert_true(r.mpi);
}

/* 16 cores; the last two: mpirun gave each process 4 or 16 of 32 for its own. */
static void cores_are_shared_by_a_machines_processes_and_their_ranks(void **state)
{
    (void)state;
    assert_int_equal(sac_ranks_cores(16, 16, 0, 1), 16);
    assert_int_equal(sac_ranks_cores(16, 16, 4, 1), 4);
    assert_int_equal(sac_ranks_cores(16, 16, 2, 4), 2);
    assert_int_equal(sac_ranks_cores(2, 2, 8, 1), 1);
    assert_int_equal(sac_ranks_cores(4, 32, 8, 1), 4);
    assert_int_equal(sac_ranks_cores(16, 32, 4, 1), 8);
}

static void half_a_set_is_refused_by_name(void **state)
{
    const struct {
        const char *env[11], *says;
    } cases[] = {
        {{"RANK", "0", NULL}, "RANK is set, and WORLD_SIZE is not"},
        {{"WORLD_SIZE", "2", NULL}, "WORLD_SIZE is set, and RANK is not"},
        {{"RANK", "0", "WORLD_SIZE", "2", NULL}, "MASTER_ADDR is not"},
        {{"RANK", "0", "WORLD_SIZE", "2", "MASTER_ADDR", "a", NULL}, "MASTER_PORT is not"},
        {{"RANK", "2", "WORLD_SIZE", "2", NULL},
         "RANK is \"2\"; expected a whole number of 0 to 1"},
        {{"RANK", "0", "WORLD_SIZE", "two", NULL}, "WORLD_SIZE is \"two\""},
        {{"RANK", "0", "WORLD_SIZE", "2", "MASTER_ADDR", "a", "MASTER_PORT", "70000", NULL},
         "MASTER_PORT is \"70000\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_ranks r = {.rank = 7};
        struct sac_error err = {0};
        assert_int_equal(read_from(cases[i].env, &r, &err), SAC_EINVAL);
        assert_says(err, cases[i].says);
        assert_int_equal(r.rank, 7);
    }
}

static void a_batch_is_per_device_or_split(void **state)
{
    struct sac_error err = {0};
    int whole = 0;

    (void)state;
    assert_ok(sac_ranks_batch(64, SAC_BATCH_PER_DEVICE, 8, &whole, &err), err);
    assert_int_equal(whole, 512);
    assert_ok(sac_ranks_batch(64, SAC_BATCH_SPLIT, 8, &whole, &err), err);
    assert_int_equal(whole, 64);
    assert_int_equal(sac_ranks_batch(100, SAC_BATCH_SPLIT, 8, &whole, &err), SAC_EINVAL);
    assert_says(err, "a batch of 100 cannot be split evenly over 8 devices");
    err = (struct sac_error){0};
    assert_int_equal(sac_ranks_batch(1 << 30, SAC_BATCH_PER_DEVICE, 2, &whole, &err), SAC_ELIMIT);
}

/* A net goes back from its last parameters to its first. */
static void buckets_are_in_the_order_of_the_way_back(void **state)
{
    const size_t at[] = {0, 100, 110, 500, 520, 600};
    const int ready[] = {9, 9, 5, 5, 1};
    struct sac_bucket b[5];

    (void)state;
    assert_int_equal(sac_ranks_buckets(b, at, ready, 5, 300), 2);
    assert_int_equal(b[0].first, 110);
    assert_int_equal(b[0].end, 600);
    assert_int_equal(b[0].ready_after, 5);
    assert_int_equal(b[1].first, 0);
    assert_int_equal(b[1].end, 110);
    assert_int_equal(b[1].ready_after, 9);
}

static void what_nobody_wants_is_in_no_bucket(void **state)
{
    const size_t at[] = {0, 100, 200, 300};
    const int ready[] = {3, -1, 1}, none[] = {-1, -1, -1};
    struct sac_bucket b[3];

    (void)state;
    assert_int_equal(sac_ranks_buckets(b, at, ready, 3, 1000), 2);
    assert_int_equal(b[0].first, 200);
    assert_int_equal(b[1].end, 100);
    assert_int_equal(sac_ranks_buckets(b, at, none, 3, 1000), 0);
}

/* Of a thousand drawn nets: every wanted element once, none before it is there. */
static void buckets_cover_what_is_wanted_once(void **state)
{
    enum { PARTS = 12 };

    (void)state;
    srand(3);
    for (int round = 0; round < 1000; round++) {
        size_t at[PARTS + 1] = {0};
        int ready[PARTS], parts = 1 + rand() % PARTS, seen[PARTS] = {0};
        struct sac_bucket b[PARTS];
        for (int i = 0; i < parts; i++) {
            at[i + 1] = at[i] + 1 + (size_t)rand() % 50;
            ready[i] = rand() % 8 - 1;
        }
        int count = sac_ranks_buckets(b, at, ready, parts, 60);
        for (int k = 0; k < count; k++) {
            assert_true(k == 0 || b[k].ready_after >= b[k - 1].ready_after);
            for (int i = 0; i < parts; i++) {
                if (at[i] < b[k].first || at[i + 1] > b[k].end)
                    continue;
                seen[i]++;
                assert_true(ready[i] >= 0 && ready[i] <= b[k].ready_after);
            }
        }
        for (int i = 0; i < parts; i++)
            assert_int_equal(seen[i], ready[i] >= 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_variables_a_process_is_alone),
        cmocka_unit_test(torchrun_and_slurm_say_who_is_who),
        cmocka_unit_test(open_mpi_and_a_torchrun_with_a_store_are_known),
        cmocka_unit_test(cores_are_shared_by_a_machines_processes_and_their_ranks),
        cmocka_unit_test(half_a_set_is_refused_by_name),
        cmocka_unit_test(a_batch_is_per_device_or_split),
        cmocka_unit_test(buckets_are_in_the_order_of_the_way_back),
        cmocka_unit_test(what_nobody_wants_is_in_no_bucket),
        cmocka_unit_test(buckets_cover_what_is_wanted_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
