#include "train/buckets.h"

#include <stdlib.h>
#include <string.h>

enum { BRIDGE = 1 << 14 };

/* Zeros that nobody wants go along, where they are few and stand between what is wanted:
 * batch norm's statistics would cut every bucket. */
static void bridge(const size_t *at, int *ready, int parts)
{
    for (int i = parts - 2; i > 0; i--)
        if (ready[i] < 0 && at[i + 1] - at[i] <= BRIDGE)
            ready[i] = ready[i + 1];
}

int sac_buckets_cut(struct sac_bucket **ret, int *ret_count, const struct sac_plan *plan,
                    const size_t *at, int params, size_t bytes, struct sac_error *err)
{
    size_t parts = (size_t)params + 1;
    struct sac_bucket *buckets = calloc(parts + 1, sizeof *buckets);
    size_t *all = calloc(parts + 1, sizeof *all);
    int *ready = calloc(parts + 1, sizeof *ready);

    if (buckets && all && ready) {
        memcpy(all + 1, at, parts * sizeof *at);
        ready[0] = sac_plan_step_count(plan) - 1; /* what stands before the first */
        for (int i = 0; i < params; i++)
            ready[i + 1] = sac_plan_gradient_step(plan, i);
        bridge(all, ready, params + 1);
        if (at[0] == 0) /* there is nothing */
            ready[0] = -1;
        *ret_count = sac_ranks_buckets(buckets, all, ready, params + 1,
                                       (bytes ? bytes : SAC_BUCKET_BYTES) / sizeof(float));
        *ret = buckets;
        buckets = NULL;
    }
    bool good = all && ready && !buckets;
    free(buckets);
    free(all);
    free(ready);
    return good ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");
}
