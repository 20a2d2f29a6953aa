/*
 * What signals ask of a training run: Caffe's -sigint_effect and -sighup_effect. One run a
 * process.
 */
#ifndef SAC_CLI_SIGNALS_H
#define SAC_CLI_SIGNALS_H

#include "train/trainer.h"

/* From now on. */
void sac_signals_catch(enum sac_train_request on_sigint, enum sac_train_request on_sighup);
/* What was asked for since the last call: a trainer's `request`. */
enum sac_train_request sac_signals_asked(void *user);

#endif
