/*
 * GPU REST Engine's environment file: DEPLOY_PROTEXT (so spelt), CAFFE_MODEL,
 * MEAN and SYNSET_WORDS, as its AMI's /etc/default/gpurestengine sets them.
 *
 * The file is read as a shell would read it: assignments, comments, quotes, and
 * lines that end in a backslash go on. systemd reads such a line differently:
 * with EnvironmentFile=, everything behind the backslash lands in the first
 * variable's value. sac_env_unfold takes such a value apart again, so that the
 * same file serves both ways. One thread.
 */
#ifndef SAC_CLI_ENV_FILE_H
#define SAC_CLI_ENV_FILE_H

#include "base/error.h"

struct sac_env {
    char *deploy, *weights, *mean, *labels; /* owned; NULL when not set */
};

int sac_env_load(struct sac_env *ret, const char *path, struct sac_error *err);
/* `name` stands for the file in sentences. */
int sac_env_parse(struct sac_env *ret, const char *name, const char *text, struct sac_error *err);
/* The four from this process's environment, unfolded. */
int sac_env_from_environment(struct sac_env *ret, struct sac_error *err);
/* Sets `variable` from a value as systemd leaves it: `model.caffemodelMEAN="m"
 * SYNSET_WORDS="s"` sets three. */
int sac_env_unfold(struct sac_env *env, const char *variable, const char *value,
                   struct sac_error *err);
void sac_env_done(struct sac_env *env);

#endif
