/*
 * A data set that lies divided into train, val and test (data/parts.h), opened as one
 * source a part. One thread.
 */
#ifndef SAC_DATASET_DIVIDED_H
#define SAC_DATASET_DIVIDED_H

#include "data/parts.h"
#include "data/source.h"

struct sac_divided {
    struct sac_source *part[SAC_DATA_PARTS];   /* owned; NULL: there is none */
    struct sac_source *opened[SAC_DATA_PARTS]; /* what a renumbered part is a view of; owned */
};
/* Takes one that is all zero. */
void sac_divided_done(struct sac_divided *divided);

/* 1: opened. Where classes have names, each part's are numbered as train's are. 0: `path`
 * is not divided. SAC_EINVAL: as sac_data_parts_find() says; a part has a class with
 * pictures that train has not. */
int sac_divided_open(struct sac_divided *ret, const char *path, struct sac_error *err);

/* Refuses, where one set is wanted, a path that is divided: SAC_EINVAL. */
int sac_divided_refuse(const char *path, struct sac_error *err);

#endif
