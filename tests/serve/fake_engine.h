/*
 * An engine for tests of the service: it stands in for src/model and knows a
 * picture by its bytes, so that a test says what is to happen.
 *
 *   "picture 3"            class 3 is the likeliest
 *   "slow 30 picture 3"    the same, after 30 ms of decoding
 *   "damaged", "huge"      SAC_EFORMAT, SAC_ELIMIT
 *   anything else          SAC_EUNSUPPORTED
 *
 * The i-th answer of class c is class (c + i) mod classes with 1/2^(i+1).
 */
#ifndef SAC_TESTS_FAKE_ENGINE_H
#define SAC_TESTS_FAKE_ENGINE_H

#include <stdatomic.h>

#include "model/model.h"

struct sac_model *fake_model_new(const char *name, const char *const *labels, int classes);
void fake_model_free(struct sac_model *model);
extern struct sac_device fake_device; /* called "cpu" */

/* How long a batch takes, and how many of the next ones fail with SAC_EDEVICE. */
extern atomic_int fake_run_us, fake_failures;
extern atomic_int fake_decoded; /* pictures decoded so far */
/* Teams: whether they round otherwise than one thread, how many were asked for, and what
 * they ran. */
extern atomic_bool fake_team_differs;
extern atomic_int fake_teams, fake_team_runs;

/* Devices with memory of their own, each of which serves by a runner. */
enum { FAKE_GPUS = 4 };
extern struct sac_device fake_gpus[FAKE_GPUS];

/* LOST: until it is revived, for which nothing of it may be left (or the program
 * aborts). GONE: for good. In so many batches from now (LOST only), at once (−1);
 * 0 takes all faults away. */
enum fake_gpu_fault { FAKE_LOST = 1, FAKE_GONE };
void fake_gpu_set(int gpu, enum fake_gpu_fault fault, int in_batches);
void fake_gpu_slow(int gpu, int run_us);

#endif
