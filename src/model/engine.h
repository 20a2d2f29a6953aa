/*
 * An engine's insides, shared by what runs its plans: the classifier and the
 * runner. Private to model/.
 */
#ifndef SAC_MODEL_ENGINE_H
#define SAC_MODEL_ENGINE_H

#include "model/classifier.h"
#include "net/plan.h"

enum { SAC_ENGINE_SIZES = 9 }; /* batches of 1, 2, 4, … SAC_MODEL_BATCH_MAX */

struct sac_engine {
    struct sac_model *model;
    struct sac_device *device;
    struct sac_store *store;
    enum sac_precision precision;
    const struct sac_ranges *ranges; /* int8; the model's, or the caller's */
    int batch_max, topk;
    bool batch_said; /* a smaller one is not what was asked for */
    bool placed;     /* a runner has had it */
};

/* Before plans are made: their largest batch, batch_max, and the weights are to fit into the
 * device's free memory. Where nobody said which batch, it is halved until they do; else, and
 * where one picture is too much, SAC_ENOMEM with the numbers. A new engine has been fitted. */
int sac_engine_fit(struct sac_engine *engine, struct sac_error *err);

/* plans[i] takes 1 << i pictures, up to batch_max, or up to where the device would compute
 * a batch in parts (then the larger are NULL); they share memory, so one runs
 * at a time. On failure too, sac_engine_plans_free() takes what was made. */
int sac_engine_plans_new(const struct sac_engine *engine, struct sac_stream *stream,
                         struct sac_plan *plans[SAC_ENGINE_SIZES], struct sac_error *err);
/* One picture by a team of threads (base/team.h), in the memory of one of those plans. */
int sac_engine_team_plan_new(const struct sac_engine *engine, struct sac_stream *stream,
                             int threads, struct sac_plan *memory_of, struct sac_plan **ret,
                             struct sac_error *err);
void sac_engine_plans_free(struct sac_plan *plans[SAC_ENGINE_SIZES]);

#endif
