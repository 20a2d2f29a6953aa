#include "net/memory_plan.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

struct placing {
    struct sac_block *blocks;
    int *order;  /* block indices, largest first; equal sizes by index */
    int *placed; /* block indices, by offset */
    int placed_count;
    size_t end;
};

/* Arenas end below PTRDIFF_MAX, so that sums of an offset and a size fit. */
static bool round_up(size_t bytes, size_t *ret)
{
    if (bytes > (size_t)PTRDIFF_MAX - ALIGNMENT)
        return false;
    *ret = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    return true;
}

static int larger_first(const void *a, const void *b, void *context)
{
    const struct sac_block *blocks = context;
    int i = *(const int *)a, j = *(const int *)b;

    if (blocks[i].bytes != blocks[j].bytes)
        return blocks[i].bytes > blocks[j].bytes ? -1 : 1;
    return i < j ? -1 : i > j;
}

static bool overlap_in_time(const struct sac_block *a, const struct sac_block *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* Walks the placed blocks that live at the same time, from the lowest offset,
 * until a gap is wide enough. */
static size_t lowest_gap(const struct placing *p, const struct sac_block *block, size_t size)
{
    size_t at = 0;

    for (int i = 0; i < p->placed_count; i++) {
        const struct sac_block *other = &p->blocks[p->placed[i]];
        size_t other_size = 0;

        if (!overlap_in_time(block, other))
            continue;
        if (other->offset >= at && other->offset - at >= size)
            break;
        round_up(other->bytes, &other_size);
        if (other->offset + other_size > at)
            at = other->offset + other_size;
    }
    return at;
}

static void insert_by_offset(struct placing *p, int index)
{
    int low = 0, high = p->placed_count;

    while (low < high) {
        int middle = low + (high - low) / 2;
        if (p->blocks[p->placed[middle]].offset <= p->blocks[index].offset)
            low = middle + 1;
        else
            high = middle;
    }
    memmove(p->placed + low + 1, p->placed + low,
            (size_t)(p->placed_count - low) * sizeof *p->placed);
    p->placed[low] = index;
    p->placed_count++;
}

static bool place(struct placing *p, int index)
{
    struct sac_block *block = &p->blocks[index];
    size_t size;

    assert(block->first <= block->last);
    block->offset = 0;
    if (block->bytes == 0)
        return true;
    if (!round_up(block->bytes, &size))
        return false;
    block->offset = lowest_gap(p, block, size);
    if (block->offset > (size_t)PTRDIFF_MAX - size)
        return false;
    insert_by_offset(p, index);
    if (block->offset + size > p->end)
        p->end = block->offset + size;
    return true;
}

int sac_memory_plan(struct sac_block *blocks, int count, size_t *ret_bytes, struct sac_error *err)
{
    struct placing p = {.blocks = blocks};
    size_t slots = count > 0 ? (size_t)count : 1;
    int rc = 0;

    p.order = calloc(slots, sizeof *p.order);
    p.placed = calloc(slots, sizeof *p.placed);
    if (!p.order || !p.placed) {
        rc = sac_fail(err, SAC_ENOMEM, "out of memory for laying out %d blocks", count);
        goto out;
    }
    for (int i = 0; i < count; i++)
        p.order[i] = i;
    qsort_r(p.order, (size_t)count, sizeof *p.order, larger_first, blocks);
    for (int i = 0; i < count && rc == 0; i++)
        if (!place(&p, p.order[i]))
            rc = sac_fail(err, SAC_ELIMIT,
                          "a memory layout of %d blocks, one of %zu bytes, does not fit an address "
                          "space",
                          count, blocks[p.order[i]].bytes);
    if (rc == 0)
        *ret_bytes = p.end;
out:
    free(p.order);
    free(p.placed);
    return rc;
}
