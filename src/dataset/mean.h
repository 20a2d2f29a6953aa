/*
 * The mean image of a data set, read through once, in double precision.
 */
#ifndef SAC_DATASET_MEAN_H
#define SAC_DATASET_MEAN_H

#include "dataset/cook.h"

struct sac_mean_options {
    /* Of the recipe only `fit` counts: width 0 leaves pictures as they are, channels 0
     * makes encoded ones colour and leaves others. */
    struct sac_recipe recipe;
    int threads;
    void (*on_progress)(void *user, int64_t done, int64_t total, int64_t skipped);
    void (*on_skip)(void *user, const char *sentence);
    void *user;
};

struct sac_mean {
    int64_t count, skipped;
    int channels, height, width; /* height and width 0: pictures of several sizes */
    /* channels × height × width, in the order of the set's planes, B, G, R of encoded
     * pictures; or NULL; owned */
    double *image;
    double *channel; /* the mean of each, over all pixels; owned */
};
void sac_mean_done(struct sac_mean *mean);

/* SAC_EINVAL: pictures with different numbers of channels; SAC_EFORMAT: not one could
 * be used. */
int sac_mean_of(struct sac_mean *ret, const struct sac_source *source,
                const struct sac_mean_options *options, struct sac_error *err);

/* mean.binaryproto: 1 × channels × height × width. SAC_EINVAL: several sizes. */
int sac_mean_save(const struct sac_mean *mean, const char *path, struct sac_error *err);

#endif
