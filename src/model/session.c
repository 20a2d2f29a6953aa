/* The public interface: one model, one device, one worker. */
#include "saccade/saccade.h"

#include <stdlib.h>

#include "model/classifier.h"

struct sac_session {
    struct sac_device *device;
    struct sac_model *model;
    struct sac_engine *engine;
    struct sac_classifier *classifier;
};

int sac_session_open(struct sac_session **ret, const struct sac_session_options *options,
                     struct sac_error *err)
{
    struct sac_session *session = calloc(1, sizeof *session);
    struct sac_model_files files = {.dir = options->model};
    struct sac_model_overrides overrides = SAC_MODEL_OVERRIDES_NONE;
    int rc = session ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    overrides.precision = options->precision;
    if (rc == 0)
        rc = sac_device_open(&session->device, options->device ? options->device : "auto", err);
    if (rc == 0)
        rc = sac_model_open(&session->model, &files, &overrides, err);
    if (rc == 0)
        rc = sac_engine_new(&session->engine, session->model, session->device, 1, 0, err);
    if (rc == 0)
        rc = sac_classifier_new(&session->classifier, session->engine, err);
    if (rc == 0)
        *ret = session;
    else
        sac_session_close(session);
    return rc;
}

void sac_session_close(struct sac_session *session)
{
    if (!session)
        return;
    sac_classifier_free(session->classifier);
    sac_engine_free(session->engine);
    sac_model_unref(session->model);
    sac_device_close(session->device);
    free(session);
}

int sac_session_classify(struct sac_session *session, const void *bytes, size_t size,
                         struct sac_prediction *ret, int room, struct sac_error *err)
{
    int count = sac_engine_topk(session->engine);
    int rc = sac_classifier_decode(session->classifier, 0, bytes, size, NULL, err);

    if (rc == 0)
        rc = sac_classifier_run(session->classifier, 1, err);
    if (rc)
        return rc;
    const struct sac_topk_pair *pairs = sac_classifier_result(session->classifier, 0);
    count = room < count ? room : count;
    for (int i = 0; i < count; i++)
        ret[i] = (struct sac_prediction){.index = pairs[i].index,
                                         .confidence = pairs[i].value,
                                         .label = sac_model_label(session->model, pairs[i].index)};
    return count;
}
