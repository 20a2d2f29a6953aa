/*
 * The happens-before checker. Each stream counts its operations; a clock says
 * of every stream how much of it has happened before. A stream's clock grows by
 * waiting for events and by what the host has waited for when it enqueues. An
 * access must come after the last writer's, and a write after the readers' too.
 *
 * It judges when the operation is enqueued, not when it runs: what is found does
 * not depend on how fast the threads happen to be.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS_MAX = 1 << 16 }; /* beyond it the whole extent stands for the access */

void sim_clock_join(struct sim_clock *clock, const struct sim_clock *other)
{
    for (int i = 0; i < SIM_STREAMS_MAX; i++)
        if (other->at[i] > clock->at[i])
            clock->at[i] = other->at[i];
}

void sim_history_free(struct sim_history *history)
{
    free(history->range);
    *history = (struct sim_history){0};
}

size_t sim_access_extent(const struct sim_access *access)
{
    size_t extent = access->run;

    for (int d = 0; d < 4; d++)
        if (access->dim[d] > 1)
            extent += (access->dim[d] - 1) * access->stride[d];
    return extent;
}

/* The axes that lead anywhere, the shortest stride first; returns how many. */
static int sort_axes(int rank, const size_t *dim, const size_t *stride, int *order)
{
    int count = 0;

    for (int axis = 0; axis < rank; axis++) {
        int at = count;

        if (dim[axis] == 1 || stride[axis] == 0)
            continue;
        for (; at > 0 && stride[order[at - 1]] > stride[axis]; at--)
            order[at] = order[at - 1];
        order[at] = axis;
        count++;
    }
    return count;
}

struct sim_access sim_access_of(const char *what, const void *data, size_t bytes, int rank,
                                const size_t *dim, const size_t *stride, bool write)
{
    struct sim_access access = {.what = what, .data = data, .run = bytes, .write = write};
    int order[16], count = sort_axes(rank, dim, stride, order), next = 0, left;

    while (next < count && stride[order[next]] * bytes == access.run)
        access.run *= dim[order[next++]];
    left = count - next;
    for (int i = 0; i < left; i++) {
        size_t step = stride[order[next + i]] * bytes, times = dim[order[next + i]];

        if (left > 4) {
            access.run += (times - 1) * step;
            continue;
        }
        access.dim[3 - i] = times;
        access.stride[3 - i] = step;
    }
    return access;
}

struct span {
    size_t from, to;
};

static int later_span(const void *a, const void *b)
{
    const struct span *l = a, *r = b;

    return l->from < r->from ? -1 : l->from > r->from;
}

static size_t merge_spans(struct span *span, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && span[i].from <= span[kept - 1].to)
            span[kept - 1].to = span[i].to > span[kept - 1].to ? span[i].to : span[kept - 1].to;
        else
            span[kept++] = span[i];
    }
    return kept;
}

static size_t dim_of(const struct sim_access *access, int d)
{
    return access->dim[d] > 1 ? access->dim[d] : 1;
}

/* The access's bytes from the allocation's start on, in order, apart. */
static struct span *spans_of(const struct sim_access *access, size_t start, size_t *ret_count)
{
    size_t places = 1, count = 0;
    struct span *span;

    for (int d = 0; d < 4; d++)
        places *= dim_of(access, d);
    if (places > RUNS_MAX || places == 1) {
        span = malloc(sizeof *span);
        *span = (struct span){start, start + sim_access_extent(access)};
        *ret_count = 1;
        return span;
    }
    span = malloc(places * sizeof *span);
    for (size_t a = 0; a < dim_of(access, 0); a++)
        for (size_t b = 0; b < dim_of(access, 1); b++)
            for (size_t c = 0; c < dim_of(access, 2); c++)
                for (size_t d = 0; d < dim_of(access, 3); d++) {
                    size_t at = start + a * access->stride[0] + b * access->stride[1] +
                                c * access->stride[2] + d * access->stride[3];

                    span[count++] = (struct span){at, at + access->run};
                }
    qsort(span, count, sizeof *span, later_span);
    *ret_count = merge_spans(span, count);
    return span;
}

static bool is_before(const struct sim_reader *other, int slot, const struct sim_clock *clock)
{
    return other->slot < 0 || other->slot == slot || clock->at[other->slot] >= other->at;
}

struct judged {
    const struct sim_allocation *allocation;
    const struct sim_access *access;
    const char *call;
    int slot;
    const struct sim_clock *clock;
    bool told; /* one sentence an access is enough */
};

static void tell(struct judged *j, const struct sim_reader *other, const char *did,
                 const struct sim_range *range)
{
    char where[32] = "pinned memory";

    if (j->told)
        return;
    j->told = true;
    if (j->allocation->device >= 0)
        snprintf(where, sizeof where, "device %d", j->allocation->device);
    sim_report(j->call,
               "stream %d %s '%s', bytes %zu to %zu of an allocation of %zu on %s, which %s on "
               "stream %d %s, with no event or wait between",
               j->slot, j->access->write ? "writes" : "reads", j->access->what, range->from,
               range->to, j->allocation->bytes, where, other->call, other->slot, did);
}

static void judge(struct judged *j, const struct sim_range *range)
{
    if (!is_before(&range->writer, j->slot, j->clock))
        tell(j, &range->writer, "writes", range);
    if (j->access->write)
        for (int i = 0; i < range->readers; i++)
            if (!is_before(&range->reader[i], j->slot, j->clock))
                tell(j, &range->reader[i], "reads", range);
}

/* When there are more readers than places the oldest is forgotten: a race may
 * be missed then, none is invented. */
static void remember(const struct judged *j, struct sim_range *range)
{
    struct sim_reader me = {j->slot, j->clock->at[j->slot], j->call};

    if (j->access->write) {
        range->writer = me;
        range->readers = 0;
        return;
    }
    for (int i = 0; i < range->readers; i++)
        if (range->reader[i].slot == j->slot) {
            range->reader[i] = me;
            return;
        }
    if (range->readers == SIM_READERS_MAX) {
        memmove(range->reader, range->reader + 1, (SIM_READERS_MAX - 1) * sizeof me);
        range->readers--;
    }
    range->reader[range->readers++] = me;
}

static bool same_history(const struct sim_range *a, const struct sim_range *b)
{
    return a->writer.slot == b->writer.slot && a->writer.at == b->writer.at &&
           a->readers == b->readers &&
           memcmp(a->reader, b->reader, (size_t)a->readers * sizeof a->reader[0]) == 0;
}

static void push(struct sim_history *history, const struct sim_range *range)
{
    struct sim_range *last = history->count ? &history->range[history->count - 1] : NULL;

    if (last && last->to == range->from && same_history(last, range))
        last->to = range->to;
    else
        history->range[history->count++] = *range;
}

/* What of `old` lies in [from, to) is judged and remembered, with blank history
 * where it has none. */
static void touch(struct sim_history *out, struct judged *j, const struct sim_range *old,
                  size_t from, size_t to)
{
    struct sim_range range = {.writer.slot = -1};

    if (from >= to)
        return;
    if (old)
        range = *old;
    range.from = from;
    range.to = to;
    if (old)
        judge(j, &range);
    remember(j, &range);
    push(out, &range);
}

static void keep(struct sim_history *out, const struct sim_range *old, size_t from, size_t to)
{
    struct sim_range range = *old;

    range.from = from;
    range.to = to;
    if (from < to)
        push(out, &range);
}

/* One sweep over the old ranges and the spans, both in order. */
static void sweep(struct sim_history *out, const struct sim_history *in, struct judged *j,
                  const struct span *span, size_t spans)
{
    size_t r = 0, at = 0;

    for (size_t s = 0; s < spans; s++) {
        size_t from = span[s].from;

        while (r < in->count && in->range[r].from < span[s].to) {
            const struct sim_range *old = &in->range[r];
            size_t begin = old->from > at ? old->from : at;
            size_t end = old->to < span[s].to ? old->to : span[s].to;

            keep(out, old, begin, old->to < from ? old->to : from);
            if (begin < from)
                begin = from < old->to ? from : old->to;
            if (old->to > from) {
                touch(out, j, NULL, from, begin);
                touch(out, j, old, begin, end);
                from = end;
            }
            at = end;
            if (old->to > span[s].to)
                break;
            r++;
        }
        touch(out, j, NULL, from, span[s].to);
        at = span[s].to;
    }
    for (; r < in->count; r++)
        keep(out, &in->range[r], in->range[r].from > at ? in->range[r].from : at, in->range[r].to);
}

bool sim_order_access(struct sim_history *history, const struct sim_allocation *allocation,
                      const char *call, const struct sim_access *access, int slot,
                      const struct sim_clock *clock)
{
    struct judged j = {allocation, access, call, slot, clock, false};
    struct sim_history out = {0};
    size_t spans;
    struct span *span =
        spans_of(access, (size_t)((const char *)access->data - allocation->data), &spans);

    out.range = malloc((2 * history->count + 3 * spans + 2) * sizeof *out.range);
    sweep(&out, history, &j, span, spans);
    free(span);
    free(history->range);
    out.range = realloc(out.range, (out.count ? out.count : 1) * sizeof *out.range);
    *history = out;
    return !j.told;
}
