/*
 * Where blocks stand in one arena. It sees only sizes and lifetimes: two blocks
 * whose lifetimes overlap never share a byte. Any thread.
 */
#ifndef SAC_NET_MEMORY_PLAN_H
#define SAC_NET_MEMORY_PLAN_H

#include <stddef.h>

#include "base/error.h"

struct sac_block {
    size_t bytes;
    int first, last; /* the steps at which it is first and last needed, both included */
    size_t offset;   /* result; a multiple of 64 */
};

/* Greedy by size, largest first, each at the lowest offset that is free for its
 * lifetime. *ret_bytes: the arena's size. */
int sac_memory_plan(struct sac_block *blocks, int count, size_t *ret_bytes, struct sac_error *err);

#endif
