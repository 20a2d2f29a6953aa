/*
 * From pictures' bytes to labels: a model on a device, as workers use it.
 *
 * An engine is a model made ready on one device: packed weights, shared. A
 * classifier is one worker's part of it: a stream, a decoder, slots for pixels
 * and a plan for each batch size 1, 2, 4, … batch_max. `classify`, the server's
 * workers and the benches all go through it, so all give the same answers.
 *
 * An engine: any thread. A classifier: one thread at a time; in the steady state
 * it allocates nothing.
 */
#ifndef SAC_MODEL_CLASSIFIER_H
#define SAC_MODEL_CLASSIFIER_H

#include <stdatomic.h>

#include "model/model.h"

struct sac_engine;
struct sac_classifier;

/* batch_max: 0 for the model's. topk: 0 for the model's. The engine holds a
 * reference to the model and borrows the device. */
int sac_engine_new(struct sac_engine **ret, struct sac_model *model, struct sac_device *device,
                   int batch_max, int topk, struct sac_error *err);
/* In a precision of the caller's choice; int8 by these ranges, borrowed. */
int sac_engine_new_in(struct sac_engine **ret, struct sac_model *model, struct sac_device *device,
                      enum sac_precision precision, const struct sac_ranges *ranges, int batch_max,
                      int topk, struct sac_error *err);
void sac_engine_free(struct sac_engine *engine); /* after its classifiers; takes NULL */
/* Gives the weights' memory back, and takes it again, if it was given back: between
 * them the device may be revived. No plan of the engine may be left. */
void sac_engine_unload(struct sac_engine *engine);
int sac_engine_load(struct sac_engine *engine, struct sac_error *err);
struct sac_model *sac_engine_model(const struct sac_engine *engine);
struct sac_device *sac_engine_device(const struct sac_engine *engine);
enum sac_precision sac_engine_precision(const struct sac_engine *engine);
int sac_engine_batch_max(const struct sac_engine *engine);
int sac_engine_topk(const struct sac_engine *engine);

/* Call it on the worker's own thread, after the thread is pinned. */
int sac_classifier_new(struct sac_classifier **ret, struct sac_engine *engine,
                       struct sac_error *err);
void sac_classifier_free(struct sac_classifier *classifier); /* takes NULL */

/* The largest batch that is computed together: larger ones gain nothing over several. */
int sac_classifier_batch_best(const struct sac_classifier *classifier);

/* Decodes and preprocesses a picture into slot 0 … batch_max − 1. An error
 * leaves the other slots as they were. */
int sac_classifier_decode(struct sac_classifier *classifier, int slot, const uint8_t *bytes,
                          size_t size, const atomic_bool *canceled, struct sac_error *err);
/* The slot's pixels: crop_height × crop_width × channels, R, G, B; for callers
 * that have pixels already. */
uint8_t *sac_classifier_pixels(struct sac_classifier *classifier, int slot);
/* Copies slot `from` over slot `to`: closes the hole of a picture that failed. */
void sac_classifier_move(struct sac_classifier *classifier, int to, int from);
/* Classifies slots 0 … count − 1 and waits for the end. */
int sac_classifier_run(struct sac_classifier *classifier, int count, struct sac_error *err);
/* Makes the classifier ready to run one picture by a team of `threads` threads
 * (base/team.h), on a device of host memory; it allocates and may be called once.
 * *ret_same: the team's answer to slot 0 is that of one thread, to the bit; if not, no team
 * is kept. The members belong to the calling thread. */
int sac_classifier_add_team(struct sac_classifier *classifier, int threads, bool *ret_same,
                            struct sac_error *err);
/* Classifies slot 0 by the team, and waits for the end. */
int sac_classifier_run_team(struct sac_classifier *classifier, struct sac_error *err);
/* The topk pairs of a slot, largest first; valid until the next run. */
const struct sac_topk_pair *sac_classifier_result(const struct sac_classifier *classifier,
                                                  int slot);

#endif
