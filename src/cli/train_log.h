/*
 * What a command that trains says on standard error: Caffe's log lines and, on a
 * terminal, a line of progress; or a line of JSON an event. One thread.
 */
#ifndef SAC_CLI_TRAIN_LOG_H
#define SAC_CLI_TRAIN_LOG_H

#include "train/trainer.h"

/* Start it as `{ .json = … }`. */
struct sac_train_log {
    bool json;
    bool terminal; /* a line of progress */
    bool progress; /* it stands there now */
    uint64_t start_ns, shown_ns;
    int64_t start_iteration;
};

void sac_train_log_event(struct sac_train_log *t, const struct sac_train_event *event);
/* Takes the line of progress away, before something else is said. */
void sac_train_log_clear(struct sac_train_log *t);

#endif
