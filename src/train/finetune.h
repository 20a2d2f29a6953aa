/*
 * A fine-tuning run as files: train_val.prototxt and solver.prototxt as an expert would
 * write them, in the run's folder, to be run by the trainer, and to be edited and run
 * again. One thread; blocks.
 */
#ifndef SAC_TRAIN_FINETUNE_H
#define SAC_TRAIN_FINETUNE_H

#include "base/error.h"
#include "formats/caffe.h"
#include "image/preprocess.h"
#include "train/tuning.h"

/* All borrowed. */
struct sac_finetune {
    const char *folder;                /* must exist; paths in the files are absolute */
    const Caffe__NetParameter *deploy; /* upgraded; its input is `how`'s crop */
    const struct sac_preprocess *how;  /* as the model takes pictures */
    const struct sac_tuning *recipe;   /* complete */
    const char *train, *validation;    /* lists of pictures, or LMDBs */
    int classes;
    uint64_t seed;
};

/* Whether sac_finetune_write() would refuse it; nothing is made, and `folder` and the data
 * need not be there. */
int sac_finetune_check(const struct sac_finetune *run, struct sac_error *err);

/* Both files are there, whole, or what was there before. ret_solver: the solver's path;
 * the caller frees it. */
int sac_finetune_write(const struct sac_finetune *run, char **ret_solver, struct sac_error *err);

#endif
