/*
 * A model directory from a net that has been trained: deploy.prototxt, NAME.caffemodel,
 * model.json, and labels.txt and mean.binaryproto where there are any. All files are
 * written and synced under temporary names before the first gets its own, the weights'
 * last. One writer a folder; blocks.
 */
#ifndef SAC_TRAIN_MODEL_DIR_H
#define SAC_TRAIN_MODEL_DIR_H

#include "data/feed.h"
#include "train/weights.h"

/* All borrowed. */
struct sac_model_dir {
    const char *path;
    const Caffe__NetParameter *deploy;      /* as sac_deploy_make() makes it */
    const struct sac_weights_view *weights; /* of its layers, and perhaps of others */
    const struct sac_feed *feed;            /* what pictures are made into the input like */
    const struct sac_labels *labels;        /* none: no file */
};

/* Makes the folder and sees whether files can be made there and whether it is free for
 * this net: a model directory has one .caffemodel. Before hours of training. */
int sac_model_dir_check(const struct sac_model_dir *dir, struct sac_error *err);
int sac_model_dir_write(const struct sac_model_dir *dir, struct sac_error *err);

#endif
