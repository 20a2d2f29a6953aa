/* How a plan's gradients are cut into what is summed over ranks together. */
#ifndef SAC_TRAIN_BUCKETS_H
#define SAC_TRAIN_BUCKETS_H

#include "net/plan.h"
#include "ranks/ranks.h"

enum { SAC_BUCKET_BYTES = 8 << 20 }; /* unless somebody says otherwise */

/* `at`: where each of `params` parameters stands in the flat array, and its end; the
 * elements before the first are there at the end of the way back. Buckets have at least
 * `bytes` (0: SAC_BUCKET_BYTES) but for some; the caller frees them. */
int sac_buckets_cut(struct sac_bucket **ret, int *ret_count, const struct sac_plan *plan,
                    const size_t *at, int params, size_t bytes, struct sac_error *err);

#endif
