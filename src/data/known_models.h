/*
 * The public models that `saccade model get` knows: where their weights are, what
 * proves them, what may be done with them. Constant; any thread.
 */
#ifndef SAC_DATA_KNOWN_MODELS_H
#define SAC_DATA_KNOWN_MODELS_H

#include <stdint.h>

/* Of models/NAME, built in. */
struct sac_model_definition {
    const char *name, *deploy, *settings; /* deploy.prototxt, model.json */
};
extern const struct sac_model_definition sac_model_definitions[]; /* a NULL name ends it */

struct sac_known_model {
    const char *name;  /* the folder in models/ */
    const char *title; /* and who trained it */
    int64_t weights;   /* numbers; times 4 is the file's size, about */
    const char *file;
    const char *url;    /* NULL: by hand, from `page` */
    const char *page;   /* where it was published, and `url` with it */
    const char *sha1;   /* NULL: not published */
    const char *sha256; /* NULL, or as many digits as are published */
    const char *sum_from;
    const char *license;
    /* What its makers found on ImageNet's validation set, percent; 0: not published.
     * One centre crop unless `measured` says otherwise. */
    double top1, top5;
    const char *measured;
    const char *mean_url; /* of mean.binaryproto, where the mean is a picture; NULL */
};

extern const struct sac_known_model sac_known_models[];               /* a NULL name ends it */
const struct sac_known_model *sac_known_model_find(const char *name); /* NULL */
const struct sac_model_definition *sac_model_definition_of(const char *name); /* NULL */

/* ImageNet's 1,000 labels, "n01440764 tench, Tinca tinca" a line, in the order of all
 * these models; addresses to be tried in turn. */
extern const char *const sac_imagenet_labels_urls[]; /* NULL ends it */
extern const char sac_imagenet_labels_sha256[];

#endif
