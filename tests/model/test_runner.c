/*
 * The runner on simulated GPUs: what the classifier says on the CPU, it says, on
 * either side, behind other batches and models; and whatever call fails, its caller
 * is told, all of it can be freed, and the device revived.
 */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_sim/sim.h"
#include "model/runner.h"
#include "model/tiny.h"

enum { MODELS = 2, BATCH = 4, PICTURES = 8 };

static struct sac_model *models[MODELS];
static struct sac_topk_pair expected[MODELS][PICTURES][SAC_TINY_CLASSES];

static void fill_picture(uint8_t *to, int picture)
{
    for (int i = 0; i < SAC_TINY_PIXELS; i++)
        to[i] = (uint8_t)(i * (picture * 2 + 3) + picture * 11);
}

/* The reference: the CPU device, one picture at a time. */
static void expect_from_cpu(int m)
{
    struct sac_error err = {0};
    struct sac_device *cpu;
    struct sac_engine *engine;
    struct sac_classifier *classifier;

    assert_ok(sac_device_open(&cpu, "cpu", &err), err);
    assert_ok(sac_engine_new(&engine, models[m], cpu, 1, 0, &err), err);
    assert_ok(sac_classifier_new(&classifier, engine, &err), err);
    for (int p = 0; p < PICTURES; p++) {
        fill_picture(sac_classifier_pixels(classifier, 0), p);
        assert_ok(sac_classifier_run(classifier, 1, &err), err);
        memcpy(expected[m][p], sac_classifier_result(classifier, 0), sizeof expected[m][p]);
    }
    sac_classifier_free(classifier);
    sac_engine_free(engine);
    sac_device_close(cpu);
}

static int open_models(void **state)
{
    static const char *const json[MODELS] = {
        "{\"topk\":6,\"batch_max\":4,\"preprocess\":{\"mean\":[100,110,120]}}",
        "{\"topk\":6,\"batch_max\":4,\"priority\":3}"};

    (void)state;
    setenv("XDG_CACHE_HOME", sac_test_tmpdir(), 1);
    for (int m = 0; m < MODELS; m++) {
        struct sac_error err = {0};
        char name[16];
        snprintf(name, sizeof name, "tiny%d", m);
        struct sac_model_files files = {.dir = sac_test_tiny(name, (uint64_t)m + 1, json[m])};
        assert_ok(sac_model_open(&models[m], &files, NULL, &err), err);
        expect_from_cpu(m);
    }
    return 0;
}

static int close_models(void **state)
{
    struct sim_live live = sim_live(), none = {0};

    (void)state;
    for (int m = 0; m < MODELS; m++)
        sac_model_unref(models[m]);
    return memcmp(&live, &none, sizeof live) == 0 && sim_checks_failed() == 0 ? 0 : -1;
}

/* A device, its engines and its runner; any of it may be missing. */
struct rig {
    struct sac_device *device;
    struct sac_engine *engines[MODELS];
    struct sac_runner *runner;
    void *memory; /* PICTURES pictures, pinned */
};

static int rig_make(struct rig *rig, struct sac_error *err)
{
    int rc = 0;

    for (int m = 0; m < MODELS && rc == 0; m++)
        rc = rig->engines[m] ? sac_engine_load(rig->engines[m], err)
                             : sac_engine_new(&rig->engines[m], models[m], rig->device, 0, 0, err);
    if (rc == 0)
        rc = rig->device->table->memory_new(rig->device, SAC_MEMORY_STAGING,
                                            PICTURES * SAC_TINY_PIXELS, &rig->memory, err);
    for (int p = 0; p < PICTURES && rc == 0; p++)
        fill_picture((uint8_t *)rig->memory + (size_t)p * SAC_TINY_PIXELS, p);
    return rc ? rc : sac_runner_new(&rig->runner, rig->engines, MODELS, err);
}

static void rig_unmake(struct rig *rig)
{
    sac_runner_free(rig->runner);
    rig->runner = NULL;
    for (int m = 0; m < MODELS; m++)
        if (rig->engines[m])
            sac_engine_unload(rig->engines[m]);
    if (rig->memory)
        rig->device->table->memory_free(rig->device, SAC_MEMORY_STAGING, rig->memory);
    rig->memory = NULL;
}

static void rig_open(struct rig *rig)
{
    struct sac_error err = {0};

    *rig = (struct rig){0};
    assert_ok(sac_device_open(&rig->device, "cuda:0", &err), err);
}

static void rig_close(struct rig *rig)
{
    rig_unmake(rig);
    for (int m = 0; m < MODELS; m++)
        sac_engine_free(rig->engines[m]);
    sac_device_close(rig->device);
}

static int start(struct rig *rig, int side, int model, int first, int count, struct sac_error *err)
{
    const uint8_t *pixels[BATCH];

    for (int i = 0; i < count; i++)
        pixels[i] = (uint8_t *)rig->memory + (size_t)((first + i) % PICTURES) * SAC_TINY_PIXELS;
    return sac_runner_start(rig->runner, side, model, pixels, count, err);
}

static void check(const struct rig *rig, int side, int model, int first, int count)
{
    for (int i = 0; i < count; i++) {
        const struct sac_topk_pair *got = sac_runner_result(rig->runner, side, i);
        const struct sac_topk_pair *want = expected[model][(first + i) % PICTURES];
        for (int k = 0; k < SAC_TINY_CLASSES; k++) {
            assert_int_equal(got[k].index, want[k].index);
            assert_true(fabsf(got[k].value - want[k].value) <= 1e-4f * want[k].value + 1e-6f);
        }
    }
}

static void a_batch_of_any_size_is_answered_as_on_the_cpu(void **state)
{
    struct sac_error err = {0};
    struct rig rig;

    (void)state;
    rig_open(&rig);
    assert_ok(rig_make(&rig, &err), err);
    for (int times = 0; times < 3; times++) /* set up, recorded, replayed */
        for (int m = 0; m < MODELS; m++)
            for (int count = 1; count <= BATCH; count++) {
                assert_ok(start(&rig, count % 2, m, times + m, count, &err), err);
                assert_ok(sac_runner_wait(rig.runner, count % 2, &err), err);
                check(&rig, count % 2, m, times + m, count);
            }
    rig_close(&rig);
}

/* Random delays in the simulated streams: a wait that is missing would show. */
static void two_batches_on_their_way_do_not_meet(void **state)
{
    struct sac_error err = {0};
    struct rig rig;

    (void)state;
    rig_open(&rig);
    assert_ok(rig_make(&rig, &err), err);
    sim_seed_set(11);
    assert_ok(start(&rig, 0, 0, 0, BATCH, &err), err);
    for (int turn = 1; turn < 40; turn++) {
        int model = turn % 5 == 0, before = (turn - 1) % 5 == 0;
        int count = 1 + turn % BATCH, last = turn == 1 ? BATCH : 1 + (turn - 1) % BATCH;
        assert_ok(start(&rig, turn % 2, model, turn, count, &err), err);
        assert_ok(sac_runner_wait(rig.runner, 1 - turn % 2, &err), err);
        check(&rig, 1 - turn % 2, turn == 1 ? 0 : before, turn - 1, last);
    }
    sim_seed_set(0);
    rig_close(&rig); /* with one on its way */
}

/* All that a lane does, in a row; the last call's code. */
static int live_once(struct rig *rig, struct sac_error *err)
{
    int rc = rig_make(rig, err);

    for (int turn = 0; turn < 3 && rc == 0; turn++) {
        rc = start(rig, 0, 0, turn, BATCH, err);
        if (rc == 0) {
            rc = start(rig, 1, turn % MODELS, turn, 2, err);
            int waited = sac_runner_wait(rig->runner, 0, err);
            int other = rc == 0 ? sac_runner_wait(rig->runner, 1, err) : 0;
            rc = rc ? rc : waited ? waited : other;
        }
    }
    return rc;
}

static void a_device_lost_at_any_call_is_told_and_can_be_revived(void **state)
{
    struct sac_error err = {0};
    struct rig rig;
    unsigned long calls;
    int lost = 0;

    (void)state;
    rig_open(&rig);
    assert_ok(live_once(&rig, &err), err); /* how many calls it takes, algorithms known */
    rig_unmake(&rig);
    assert_true(sim_fault_set(NULL));
    assert_ok(live_once(&rig, &err), err);
    calls = sim_device_calls(0);
    rig_unmake(&rig);
    assert_in_range(calls, 100, 10000);
    for (unsigned long k = 0; k < calls; k += 3 + k / 40) {
        char fault[32];
        struct sac_error first = {0}, after = {0};
        snprintf(fault, sizeof fault, "lost:0:%lu", k);
        assert_true(sim_fault_set(fault));
        int rc = live_once(&rig, &first);
        if (rc != 0 && rc != SAC_EDEVICE)
            fail_msg("lost at call %lu: %d: %s", k, rc, first.text);
        lost += rc != 0;
        rig_unmake(&rig);
        assert_true(sim_fault_set(NULL));
        if (rc != 0)
            assert_ok(rig.device->table->revive(rig.device, &after), after);
        assert_int_equal(rig.device->table->health(rig.device, NULL), 0);
        assert_ok(live_once(&rig, &after), after);
        check(&rig, 0, 0, 2, BATCH);
        rig_unmake(&rig);
    }
    print_message("# %d losses within %lu calls\n", lost, calls);
    assert_true(lost > 25);
    rig_close(&rig);
}

static void a_device_that_is_gone_cannot_be_revived_until_it_is_back(void **state)
{
    struct sac_error err = {0};
    struct rig rig;

    (void)state;
    rig_open(&rig);
    assert_true(sim_fault_set("gone:0:50"));
    assert_int_equal(live_once(&rig, &err), SAC_EDEVICE);
    rig_unmake(&rig);
    for (int i = 0; i < 3; i++) {
        struct sac_error why = {0};
        assert_int_equal(rig.device->table->revive(rig.device, &why), SAC_EDEVICE);
        assert_says(why, "cuda:0");
        assert_int_equal(rig.device->table->health(rig.device, NULL), SAC_EDEVICE);
    }
    sim_device_restore(0);
    assert_true(sim_fault_set(NULL));
    err = (struct sac_error){0};
    assert_ok(rig.device->table->revive(rig.device, &err), err);
    assert_ok(live_once(&rig, &err), err);
    rig_close(&rig);
}

static void memory_that_runs_out_at_any_allocation_is_told_and_the_device_lives(void **state)
{
    struct rig rig;
    int failed = 0;

    (void)state;
    rig_open(&rig);
    for (int k = 0;; k++) {
        char fault[32];
        struct sac_error err = {0};
        snprintf(fault, sizeof fault, "oom:0:%d", k);
        assert_true(sim_fault_set(fault));
        int rc = live_once(&rig, &err);
        if (rc == 0)
            break;
        assert_int_equal(rc, SAC_ENOMEM);
        assert_true(strlen(err.text) > 20);
        failed++;
        rig_unmake(&rig);
        assert_int_equal(rig.device->table->health(rig.device, NULL), 0);
    }
    assert_true(failed >= 4); /* weights, plans' memory, the sides' */
    assert_true(sim_fault_set(NULL));
    rig_close(&rig);
}

/* ---- How large a batch ---- */

static struct sac_model *tiny_of(const char *name, const char *json)
{
    struct sac_model_files files = {.dir = sac_test_tiny(name, 1, json)};
    struct sac_error err = {0};
    struct sac_model *model;

    assert_ok(sac_model_open(&model, &files, NULL, &err), err);
    return model;
}

static int batch_on(const char *name, struct sac_model *model)
{
    struct sac_error err = {0};
    struct sac_device *device;
    struct sac_engine *engine;

    assert_ok(sac_device_open(&device, name, &err), err);
    assert_ok(sac_engine_new(&engine, model, device, 0, 0, &err), err);
    int most = sac_engine_batch_max(engine);
    sac_engine_free(engine);
    sac_device_close(device);
    return most;
}

static void a_model_that_does_not_fit_is_refused_before_anything_runs(void **state)
{
    struct sac_error err = {0};
    struct sac_engine *engine;
    struct rig rig;

    (void)state;
    rig_open(&rig);
    assert_true(sim_fault_set("room:0:64"));
    unsigned long before = sim_device_operations(0);
    assert_int_equal(sac_engine_new(&engine, models[0], rig.device, 0, 0, &err), SAC_ENOMEM);
    assert_int_equal(sim_device_operations(0), before);
    assert_says(err, "model tiny0: a batch of 4 needs ");
    assert_says(err, " of them for weights and ");
    assert_says(err, "cuda:0 has 0.1 of 0.1 MiB free");
    assert_true(sim_fault_set(NULL));
    rig_close(&rig);
}

static void what_other_models_have_taken_is_not_free_any_more(void **state)
{
    struct sac_error err = {0};
    struct rig rig;
    void *taken;

    (void)state;
    rig_open(&rig);
    for (int m = 0; m < MODELS; m++)
        assert_ok(sac_engine_new(&rig.engines[m], models[m], rig.device, 0, 0, &err), err);
    assert_true(sim_fault_set("room:0:4096"));
    assert_ok(
        rig.device->table->memory_new(rig.device, SAC_MEMORY_DEVICE, 3896 << 10, &taken, &err),
        err);
    assert_int_equal(rig_make(&rig, &err), SAC_ENOMEM);
    assert_says(err, "model tiny1: a batch of 4 needs ");
    rig.device->table->memory_free(rig.device, SAC_MEMORY_DEVICE, taken);
    assert_true(sim_fault_set(NULL));
    rig_close(&rig);
}

static void a_batch_that_nobody_asked_for_is_as_large_as_fits(void **state)
{
    struct sac_error err = {0};
    struct sac_model *model = tiny_of("unsaid", "{}");
    struct sac_runner *runner;
    struct rig rig;

    (void)state;
    assert_int_equal(batch_on("cpu", model), 8);
    assert_int_equal(batch_on("cuda:0", model), 64);
    rig_open(&rig);
    assert_true(sim_fault_set("room:0:512"));
    assert_ok(sac_engine_new(&rig.engines[0], model, rig.device, 0, 0, &err), err);
    int most = sac_engine_batch_max(rig.engines[0]);
    print_message("# %d pictures fit into 512 KiB\n", most);
    assert_in_range(most, 2, 32);
    assert_ok(sac_runner_new(&runner, rig.engines, 1, &err), err);
    sac_runner_free(runner);
    assert_true(sim_fault_set(NULL));
    rig_close(&rig);
    sac_model_unref(model);
}

static void batches_go_up_to_256(void **state)
{
    enum { COUNT = 200 };
    struct sac_error err = {0};
    const uint8_t *pixels[COUNT];
    struct rig rig;

    (void)state;
    rig_open(&rig);
    assert_ok(sac_engine_new(&rig.engines[0], models[0], rig.device, 300, 0, &err), err);
    assert_int_equal(sac_engine_batch_max(rig.engines[0]), 256);
    assert_ok(rig_make(&rig, &err), err);
    for (int i = 0; i < COUNT; i++)
        pixels[i] = (uint8_t *)rig.memory + (size_t)(i % PICTURES) * SAC_TINY_PIXELS;
    assert_ok(sac_runner_start(rig.runner, 0, 0, pixels, COUNT, &err), err);
    assert_ok(sac_runner_wait(rig.runner, 0, &err), err);
    check(&rig, 0, 0, 0, COUNT);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_of_any_size_is_answered_as_on_the_cpu),
        cmocka_unit_test(two_batches_on_their_way_do_not_meet),
        cmocka_unit_test(a_device_lost_at_any_call_is_told_and_can_be_revived),
        cmocka_unit_test(a_device_that_is_gone_cannot_be_revived_until_it_is_back),
        cmocka_unit_test(memory_that_runs_out_at_any_allocation_is_told_and_the_device_lives),
        cmocka_unit_test(a_model_that_does_not_fit_is_refused_before_anything_runs),
        cmocka_unit_test(what_other_models_have_taken_is_not_free_any_more),
        cmocka_unit_test(a_batch_that_nobody_asked_for_is_as_large_as_fits),
        cmocka_unit_test(batches_go_up_to_256),
    };

    return cmocka_run_group_tests(tests, open_models, close_models);
}
