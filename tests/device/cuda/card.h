/*
 * The GPU that a test runs on: a simulated one, or a card. Which, says the module
 * that SACCADE_MODULE_DIR leads to. Where SACCADE_TEST_CARD is set there may be
 * none: the program is then skipped, with the reason.
 */
#ifndef SAC_TESTS_CARD_H
#define SAC_TESTS_CARD_H

#include <stdio.h>
#include <stdlib.h>

#include "device/device.h"
#include "support/support.h"

static inline void card_or_skip(void)
{
    struct sac_error why = {0};
    int count;

    if (!getenv("SACCADE_TEST_CARD") || sac_device_cuda_count(&count, &why) == 0)
        return;
    printf("1..0 # SKIP %s\n", why.text);
    exit(0);
}

static inline bool card_does(const struct sac_device *device, enum sac_precision precision)
{
    return (device->info.precisions & 1u << precision) != 0;
}

/* SACCADE_ALGORITHMS: "guess"; NULL: measured. */
static inline void card_guess_or_measure(const char *how)
{
    if (how)
        setenv("SACCADE_ALGORITHMS", how, 1);
    else
        unsetenv("SACCADE_ALGORITHMS");
}

/* With a cache of its own, so that algorithms are chosen anew. */
static inline struct sac_device *card_open(void)
{
    struct sac_error err = {0};
    struct sac_device *device = NULL;

    setenv("XDG_CACHE_HOME", sac_test_tmpdir(), 1);
    assert_ok(sac_device_open(&device, "cuda:0", &err), err);
    return device;
}

#endif
