/*
 * A load generator for an HTTP server: requests begin when they are due,
 * whether or not earlier ones have been answered (an open loop), and a latency
 * counts from when its request was due. So a server that stalls is seen by
 * every request that fell due meanwhile, not by one: no coordinated omission.
 * A closed loop (each connection sends when it has its answer) is there to
 * compare with.
 *
 * One thread, which sac_load_run() keeps until all is answered or given up.
 */
#ifndef SAC_CLI_LOAD_H
#define SAC_CLI_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cli/histogram.h"

enum sac_load_pace {
    SAC_LOAD_UNIFORM, /* `rate` a second, evenly spaced */
    SAC_LOAD_POISSON, /* `rate` a second on average, a Poisson process */
    SAC_LOAD_CLOSED,  /* each connection when it has its answer */
};

enum { SAC_LOAD_CONNECTIONS_MAX = 10000 };

struct sac_load_body {
    const uint8_t *bytes;
    size_t size;
};

/* Everything is borrowed during the call. */
struct sac_load_options {
    const char *url;            /* http://HOST[:PORT][/PATH] */
    const char *method;         /* NULL: POST with a body, else GET */
    const char *const *headers; /* "Name: value" */
    int header_count;
    const struct sac_load_body *bodies; /* taken in turn; none: no body */
    int body_count;
    const char *const *sources; /* local addresses, taken in turn by connections */
    int source_count;
    enum sac_load_pace pace;
    double rate;
    uint64_t seed;
    int connections;       /* 1 to SAC_LOAD_CONNECTIONS_MAX: most requests in flight */
    uint64_t duration_ns;  /* requests fall due this long */
    uint64_t warmup_ns;    /* what is due in the first part is sent, not counted */
    uint64_t requests_max; /* 0: as many as the duration has */
    uint64_t timeout_ns;   /* from when a request was due until it is given up */
    uint64_t slo_ns;       /* 0: no objective */
};

/* Counts of requests that were due after the warm-up. */
struct sac_load_result {
    uint64_t due;         /* = answered + the four errors */
    uint64_t waited;      /* found every connection busy when they were due */
    uint64_t answered;    /* any status */
    uint64_t ok;          /* 2xx */
    uint64_t good;        /* 2xx within the objective */
    uint64_t refused;     /* 503 */
    uint64_t different;   /* 2xx whose body is not the first one's for the same request body */
    uint64_t status[600]; /* by status code */
    uint64_t connect_failed, broken, malformed, timed_out;
    uint64_t bytes_in;            /* of everything, the warm-up too */
    uint64_t span_ns;             /* from the end of the warm-up until the last answer, or until
                                   * nothing was due any more if that was later */
    uint64_t due_ns;              /* how long requests fell due after the warm-up */
    struct sac_histogram latency; /* of the 2xx */
    struct sac_histogram refused_latency; /* of the 503 */
};

/* SAC_EINVAL for a URL or an option that cannot be meant, SAC_EIO when no
 * address is found. A server that cannot be reached is in the counts. */
int sac_load_run(struct sac_load_result *ret, const struct sac_load_options *options,
                 struct sac_error *err);

#endif
