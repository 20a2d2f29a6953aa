/*
 * Saccade inside another program: name what is in a picture, without a server.
 *
 *     struct sac_session *session;
 *     struct sac_error err = {0};
 *     struct sac_prediction best[5];
 *     if (sac_session_open(&session, &(struct sac_session_options){.model = "dir"}, &err) == 0) {
 *         int n = sac_session_classify(session, bytes, size, best, 5, &err);
 *         …
 *         sac_session_close(session);
 *     }
 *
 * A session belongs to one thread at a time; open one for each thread that
 * classifies. Sessions answer exactly what `saccade classify` prints and what the
 * server sends.
 */
#ifndef SACCADE_SACCADE_H
#define SACCADE_SACCADE_H

#include <stddef.h>

#include "saccade/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SAC_API __attribute__((visibility("default")))
#else
#define SAC_API
#endif

struct sac_session;

/* Text is borrowed during the call. */
struct sac_session_options {
    const char *model;     /* a model directory */
    const char *device;    /* NULL: "auto" */
    const char *precision; /* NULL: as the model says */
};

/* SAC_ENOENT, SAC_EFORMAT, SAC_EINVAL, SAC_EUNSUPPORTED or SAC_ENOMEM, and the
 * sentence that says which file, layer or field. */
SAC_API int sac_session_open(struct sac_session **ret, const struct sac_session_options *options,
                             struct sac_error *err);
SAC_API void sac_session_close(struct sac_session *session); /* takes NULL */

struct sac_prediction {
    int index;         /* the class, from 0 */
    float confidence;  /* as the net's last layer gives it: 0 … 1 behind a softmax */
    const char *label; /* borrowed from the session */
};

/* bytes: a JPEG or PNG. Fills up to `room` predictions, the likeliest first, and
 * returns how many (the model's topk, 5 unless it says otherwise, at most). An
 * error (SAC_EUNSUPPORTED: neither JPEG nor PNG; SAC_EFORMAT: damaged;
 * SAC_ELIMIT: too large) leaves `ret` untouched. */
SAC_API int sac_session_classify(struct sac_session *session, const void *bytes, size_t size,
                                 struct sac_prediction *ret, int room, struct sac_error *err);

#ifdef __cplusplus
}
#endif
#endif
