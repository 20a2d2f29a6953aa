/* Pictures' slots: bounded, waited for, and given back before their device goes. */
#include "support/support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/staging.h"

static atomic_int memories;

static int memory_new(struct sac_device *device, enum sac_memory kind, size_t bytes, void **ret,
                      struct sac_error *err)
{
    (void)device, (void)err;
    assert_int_equal(kind, SAC_MEMORY_STAGING);
    *ret = malloc(bytes);
    atomic_fetch_add(&memories, 1);
    return 0;
}

static void memory_free(struct sac_device *device, enum sac_memory kind, void *memory)
{
    (void)device, (void)kind;
    atomic_fetch_sub(&memories, 1);
    free(memory);
}

static const struct sac_device_table table = {.memory_new = memory_new, .memory_free = memory_free};
static struct sac_device devices[2] = {{.table = &table}, {.table = &table}};

static struct sac_staging *make(int shares, int count)
{
    struct sac_staging *staging;
    struct sac_error err = {0};

    assert_ok(sac_staging_new(&staging, 1000, &err), err);
    for (int i = 0; i < shares; i++)
        assert_ok(sac_staging_add(staging, i, &devices[i], count, &err), err);
    return staging;
}

static void each_slot_is_handed_out_once_and_is_as_large_as_said(void **state)
{
    struct sac_staging *staging = make(2, 3);
    struct sac_slot slots[6];
    int of_share[2] = {0};

    (void)state;
    for (int i = 0; i < 6; i++) {
        assert_true(sac_staging_take(staging, &slots[i]));
        memset(slots[i].pixels, i + 1, 1000); /* the sanitizer sees what is too small */
        of_share[slots[i].share]++;
    }
    for (int i = 0; i < 6; i++) {
        assert_int_equal(slots[i].pixels[0], i + 1);
        assert_int_equal(slots[i].pixels[999], i + 1);
        sac_staging_give(staging, &slots[i]);
        assert_null(slots[i].pixels);
    }
    assert_int_equal(of_share[0], 3);
    assert_int_equal(of_share[1], 3);
    sac_staging_retire(staging, 0);
    sac_staging_retire(staging, 1);
    sac_staging_retire(staging, 1); /* there is none: nothing */
    assert_int_equal(atomic_load(&memories), 0);
    sac_staging_free(staging);
}

struct waiter {
    pthread_t thread;
    struct sac_staging *staging;
    struct sac_slot slot;
    bool got;
    atomic_bool done;
};

static void *wait_for_slot(void *user)
{
    struct waiter *w = user;

    w->got = sac_staging_take(w->staging, &w->slot);
    atomic_store(&w->done, true);
    return NULL;
}

static void who_finds_none_waits_until_one_is_given_back(void **state)
{
    struct waiter w = {.staging = make(1, 1)};
    struct sac_slot slot;

    (void)state;
    assert_true(sac_staging_take(w.staging, &slot));
    pthread_create(&w.thread, NULL, wait_for_slot, &w);
    usleep(20000);
    assert_false(atomic_load(&w.done));
    sac_staging_give(w.staging, &slot);
    pthread_join(w.thread, NULL);
    assert_true(w.got);
    sac_staging_give(w.staging, &w.slot);
    sac_staging_retire(w.staging, 0);
    sac_staging_free(w.staging);
}

static void *retire_first(void *user)
{
    struct waiter *w = user;

    sac_staging_retire(w->staging, 0);
    atomic_store(&w->done, true);
    return NULL;
}

/* Retiring waits for the slot that is out; who waits for a slot is told at once. */
static void who_waits_is_told_when_no_share_is_left(void **state)
{
    struct waiter w = {.staging = make(1, 1)}, retiring = {.staging = w.staging};
    struct sac_slot slot;

    (void)state;
    assert_true(sac_staging_take(w.staging, &slot));
    pthread_create(&w.thread, NULL, wait_for_slot, &w);
    usleep(20000);
    pthread_create(&retiring.thread, NULL, retire_first, &retiring);
    pthread_join(w.thread, NULL);
    assert_false(w.got);
    assert_null(w.slot.pixels);
    assert_false(atomic_load(&retiring.done));
    sac_staging_give(w.staging, &slot);
    pthread_join(retiring.thread, NULL);
    sac_staging_free(w.staging);
}

static void a_share_is_freed_only_when_all_of_it_is_back(void **state)
{
    struct waiter w = {.staging = make(2, 2)};
    struct sac_slot slots[4], other;

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_true(sac_staging_take(w.staging, &slots[i]));
    pthread_create(&w.thread, NULL, retire_first, &w);
    usleep(20000);
    for (int i = 0; i < 4; i++)
        if (slots[i].share == 1)
            sac_staging_give(w.staging, &slots[i]);
    usleep(20000);
    assert_false(atomic_load(&w.done));
    assert_true(sac_staging_take(w.staging, &other)); /* from the one that is left */
    assert_int_equal(other.share, 1);
    for (int i = 0; i < 4; i++)
        if (slots[i].pixels) {
            slots[i].pixels[0] = 1; /* still there */
            sac_staging_give(w.staging, &slots[i]);
        }
    pthread_join(w.thread, NULL);
    assert_int_equal(atomic_load(&memories), 1);
    sac_staging_give(w.staging, &other);
    sac_staging_retire(w.staging, 1);
    sac_staging_free(w.staging);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_slot_is_handed_out_once_and_is_as_large_as_said),
        cmocka_unit_test(who_finds_none_waits_until_one_is_given_back),
        cmocka_unit_test(who_waits_is_told_when_no_share_is_left),
        cmocka_unit_test(a_share_is_freed_only_when_all_of_it_is_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
