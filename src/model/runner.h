/*
 * Batches through a device that has memory of its own: one runner a device, for
 * all models served there, used by one thread, its submitter.
 *
 * Two batches may be on their way, one a side. While the first computes, the
 * second's pictures are copied on a stream of their own to the side's buffer; a
 * batch whose model is at rest goes straight to the plan's input. Only the top-k
 * pairs come back. Each model computes on a stream of its priority.
 *
 * In the steady state it allocates nothing.
 */
#ifndef SAC_MODEL_RUNNER_H
#define SAC_MODEL_RUNNER_H

#include "model/classifier.h"

struct sac_runner;

enum { SAC_RUNNER_SIDES = 2 };

/* Engines of one device, one a model; borrowed. */
int sac_runner_new(struct sac_runner **ret, struct sac_engine *const *engines, int count,
                   struct sac_error *err);
/* Also on a device that was lost, and with batches on their way. Takes NULL. */
void sac_runner_free(struct sac_runner *runner);

/* Enqueues a batch of the `model`-th engine, 1 to its batch_max pictures, on a side
 * that is free: pixels as sac_preprocess_pixels() leaves them, each in staging
 * memory, untouched until the wait. On failure the side is free again. */
int sac_runner_start(struct sac_runner *runner, int side, int model, const uint8_t *const *pixels,
                     int count, struct sac_error *err);
/* Waits until the side's batch is done; the side is free then. */
int sac_runner_wait(struct sac_runner *runner, int side, struct sac_error *err);
/* The topk pairs of the picture that was `index`-th; valid until the side's next start. */
const struct sac_topk_pair *sac_runner_result(const struct sac_runner *runner, int side, int index);

#endif
