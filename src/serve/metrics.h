/*
 * What the service counts, and the Prometheus text of it. One thread (the loop).
 */
#ifndef SAC_SERVE_METRICS_H
#define SAC_SERVE_METRICS_H

#include <stdint.h>

#include "base/buf.h"

enum { SAC_BUCKETS = 16 };

/* Bucket i counts what is ≤ first × 2^i; the last one everything. */
struct sac_metrics_histogram {
    uint64_t counts[SAC_BUCKETS];
    uint64_t count;
    double sum;
};

enum sac_failure {
    SAC_FAILURE_REJECTED, /* at the door, or its deadline passed */
    SAC_FAILURE_CANCELED, /* the client went away */
    SAC_FAILURE_BACKEND,  /* the device */
    SAC_FAILURE_OTHER,    /* not a picture, damaged, over a limit */
    SAC_FAILURES,
};

/* Of one model; a request is a picture, as in Triton's names. */
struct sac_model_metrics {
    uint64_t success, failures[SAC_FAILURES];
    uint64_t inferences, executions;
    uint64_t request_us, queue_us, decode_us, compute_us;
    int64_t pending;
    struct sac_metrics_histogram queue, decode, compute; /* seconds, from 50 µs */
    struct sac_metrics_histogram batch;                  /* pictures, from 1 */
};

void sac_metrics_histogram_add(struct sac_metrics_histogram *histogram, double first, double value);

/* A label's value, escaped, without quotes. */
void sac_metrics_put_label(struct sac_buf *buf, const char *text);
/* "# HELP …" and "# TYPE …". */
void sac_metrics_put_head(struct sac_buf *buf, const char *name, const char *type,
                          const char *help);
/* All that is known of `count` models, each metric's lines together. */
void sac_metrics_put_models(struct sac_buf *buf, const struct sac_model_metrics *const *models,
                            const char *const *names, int count);

#define SAC_HISTOGRAM_SECONDS 50e-6

#endif
