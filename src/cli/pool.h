/*
 * Classifying many pictures on several cores, the results in the pictures' order.
 *
 * One pinned worker a core takes chunks of consecutive pictures from decode to
 * labels; the calling thread gets the chunks in order. At most a few chunks a
 * worker are in memory.
 */
#ifndef SAC_CLI_POOL_H
#define SAC_CLI_POOL_H

#include "model/classifier.h"

struct sac_pool_picture {
    const char *path;
    struct sac_error err;        /* code 0: `pairs` hold the answer */
    struct sac_topk_pair *pairs; /* topk of them */
};

/* Called on the calling thread, in order. */
typedef void sac_pool_result(const struct sac_pool_picture *picture, void *user);

/* `paths` are read as they are needed. Fails only when the pool itself does: a
 * picture that cannot be read or decoded is a result with an error. */
int sac_pool_classify(struct sac_engine *engine, int workers, char *const *paths, size_t count,
                      sac_pool_result *result, void *user, struct sac_error *err);

#endif
