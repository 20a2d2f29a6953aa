/*
 * Sums gradients over all ranks, bucket by bucket, while the way back goes on: on a
 * stream of its own where the device has streams, else on a thread of its own. Used by
 * the thread that trains.
 */
#ifndef SAC_RANKS_REDUCER_H
#define SAC_RANKS_REDUCER_H

#include "device/device.h"
#include "ranks/ranks.h"

/* All borrowed, but for the buckets, which are copied. */
struct sac_reducer_options {
    struct sac_comm *comm;
    struct sac_device *device;
    struct sac_stream *stream; /* of the way back */
    float *values;             /* the flat array, in device memory */
    const struct sac_bucket *buckets;
    int bucket_count;
    bool timed;
};

struct sac_reducer;

int sac_reducer_new(struct sac_reducer **ret, const struct sac_reducer_options *options,
                    struct sac_error *err);
/* Takes NULL. What is under way must be over or aborted. */
void sac_reducer_free(struct sac_reducer *reducer);

/* Each iteration: begin, before the last way back; step, behind each of its steps (none
 * needs to be told, and outside of begin and end none matters); end: the rest, and the
 * stream, or the caller, waits for all. */
void sac_reducer_begin(struct sac_reducer *reducer);
int sac_reducer_step(struct sac_reducer *reducer, int step, struct sac_error *err);
int sac_reducer_end(struct sac_reducer *reducer, struct sac_error *err);

/* When a bucket of the last iteration was summed; of `timed` ones, once the stream was
 * waited for. Times of sac_clock_ns(). */
struct sac_reducer_span {
    struct sac_bucket bucket;
    uint64_t began_ns, ended_ns;
};
int sac_reducer_span_count(const struct sac_reducer *reducer);
int sac_reducer_span(struct sac_reducer *reducer, int index, struct sac_reducer_span *ret,
                     struct sac_error *err);

#endif
