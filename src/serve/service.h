/*
 * The service's insides, shared by its files: served models, lanes, calls and
 * routes. Not for other folders.
 *
 * Two ways lead from a picture to its labels. On a device of host memory (a CPU) a
 * lane is a worker: it takes jobs from decode to answer. On others (GPUs) decoding
 * is a stage of its own: decode workers take pictures from the door's batcher, fill
 * buffers of staging memory, and hand them to the devices' batcher, whose lanes are
 * submitters, one a device.
 *
 * A call is one HTTP request to classify; it has one or several pictures, each a
 * job of the batcher. A picture ends exactly once, on any thread; the last one
 * hands the call back to the loop thread, which answers. So a call is made,
 * cancelled, answered and freed on the loop thread alone, as are all counts.
 */
#ifndef SAC_SERVE_SERVICE_H
#define SAC_SERVE_SERVICE_H

#include <pthread.h>

#include "base/buf.h"
#include "serve/batcher.h"
#include "serve/metrics.h"
#include "serve/server.h"
#include "serve/staging.h"

enum {
    SAC_TOPK_SERVED = 20,  /* what ?topk= may ask for, if the model has as many classes */
    SAC_PICTURES_MAX = 64, /* in one multipart request */
    SAC_TIMEOUT_MS_MAX = 600000,
    SAC_CALLS_SPARE_MAX = 64,
};

struct sac_served {
    struct sac_model *model; /* borrowed */
    int index;               /* the batcher's too */
    int topk_max;
    struct sac_model_metrics metrics; /* loop thread */
};

enum sac_lane_state { SAC_LANE_STARTING, SAC_LANE_READY, SAC_LANE_FAILED };

struct sac_lane;

/* What a kind of lane does, on the lane's own thread. */
struct sac_lane_work {
    /* Makes the lane's part, a lost device new, and warms up. */
    int (*open)(struct sac_lane *lane, struct sac_error *err);
    /* NULL, or what may follow when others serve already; its failure is only told. */
    int (*improve)(struct sac_lane *lane, struct sac_error *err);
    /* Gives all of that back; after a failed open, and twice, too. */
    void (*close)(struct sac_lane *lane);
    /* Serves until the service stops, or the device has failed (true), which has
     * told the batcher then. */
    bool (*serve)(struct sac_lane *lane);
};

struct sac_lane {
    struct sac_service *service;
    const struct sac_lane_work *work;
    int index;  /* the batcher's */
    int device; /* among the service's */
    int core;   /* to pin to; −1: none */
    pthread_t thread;
    bool has_thread;
    enum sac_lane_state state; /* under starting_lock */
    struct sac_error err;      /* of FAILED */
    atomic_bool down;
    atomic_uint failures, recoveries;
    atomic_uint attempts; /* to come back, in vain, since it went down */
    struct sac_classifier *classifiers[SAC_MODELS_MAX]; /* a worker's */
    int team;                      /* a worker's: threads that run one picture together */
    bool has_team[SAC_MODELS_MAX]; /* and whose model it can run so */
    struct sac_runner *runner;     /* a submitter's */
};

/* Fills pictures' buffers, where devices have their own memory. */
struct sac_decode_worker {
    struct sac_service *service;
    int index; /* the door's batcher's lane */
    pthread_t thread;
    bool has_thread;
    struct sac_decoder *decoder;
};

/* What a device's gauges showed last. */
struct sac_monitor {
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* guards shown */
    struct sac_device_gauges shown[SAC_LANES_MAX];
};

enum sac_call_format { SAC_ANSWER_JSON, SAC_ANSWER_JSON_LIST, SAC_ANSWER_LINES };

struct sac_picture {
    struct sac_job job; /* first */
    struct sac_call *call;
    struct sac_http_text bytes, file; /* in the request's body */
    int code;                         /* 0, or how it failed */
    char error[SAC_ERROR_TEXT];
    int retry_ms;
    int batch;        /* how many ran together */
    bool leads_batch; /* the first of them: counts the execution */
    bool was_queued;
    uint64_t deadline_ns; /* of the whole; a stage's is the job's */
    uint64_t waited_ns;   /* in earlier stages' queues */
    uint64_t decode_ns, compute_ns;
    struct sac_slot slot;        /* its pixels, once decoded for a submitter */
    struct sac_topk_pair *pairs; /* topk_max of them */
};

struct sac_call {
    struct sac_service *service;
    struct sac_served *served;
    struct sac_http_request *request;
    enum sac_call_format format;
    int topk;
    int count;
    atomic_int left;           /* pictures not ended, and one for the submission */
    struct sac_http_mail done; /* to the loop, which answers */
    struct sac_call *spare_next;
    struct sac_call *live_next, *live_prev;
    struct sac_picture pictures[]; /* behind them the pairs */
};

struct sac_service {
    struct sac_service_options options;
    struct sac_http_server *http;
    struct sac_http_route *routes; /* owned */
    struct sac_batcher *batcher;   /* of the devices */
    struct sac_batcher *door;      /* where pictures come in: the same, or the decode workers' */
    struct sac_staging *staging;   /* NULL where the devices' memory is the host's */
    struct sac_decode_worker decode_workers[SAC_LANES_MAX];
    int decode_worker_count;
    struct sac_monitor monitor;
    struct sac_served served[SAC_MODELS_MAX];
    struct sac_engine *engines[SAC_LANES_MAX][SAC_MODELS_MAX]; /* by device */
    struct sac_lane lanes[SAC_LANES_MAX];
    int lane_count;
    int pairs_max; /* the largest topk_max */
    atomic_bool draining;

    pthread_mutex_t starting_lock; /* guards the lanes' state */
    pthread_cond_t starting;
    pthread_mutex_t stopping_lock; /* guards stopping */
    pthread_cond_t stopping_cond;
    bool stopping;

    /* The loop thread's. */
    struct sac_call live; /* the ends of a ring */
    struct sac_call *spare;
    int spare_count;
    struct sac_buf scratch; /* for answers */
};

/* service.c */
int sac_service_workers(const struct sac_service *service); /* on cores: 1 to SAC_LANES_MAX */

/* lane.c: a lane's thread, and its recovery. */
int sac_lane_start(struct sac_lane *lane, struct sac_error *err);
void sac_lane_join(struct sac_lane *lane);
/* Waits so long; true as soon as the service is stopping. */
bool sac_service_pause(struct sac_service *service, int ms);
/* Every lane is down and has tried in vain to come back, several times: a new process may
 * do what this one cannot. */
bool sac_service_is_hopeless(const struct sac_service *service);
/* The best of up to three runs: a batch's time at warm-up. One, if that is long. Behind
 * two that are not counted where the device records. */
int sac_lane_measure(struct sac_lane *lane, int model, int count,
                     int (*run)(void *user, int model, int count, struct sac_error *err),
                     void *user, struct sac_error *err);

extern const struct sac_lane_work sac_worker;    /* worker.c */
extern const struct sac_lane_work sac_submitter; /* submitter.c */

/* decode.c */
int sac_decode_start(struct sac_service *service, struct sac_error *err);
void sac_decode_join(struct sac_service *service);

/* monitor.c: looks at the gauges every second; nothing where no device has any. */
int sac_monitor_start(struct sac_service *service, struct sac_error *err);
void sac_monitor_join(struct sac_service *service);
void sac_monitor_show(struct sac_service *service, int device, struct sac_device_gauges *ret);

/* call.c */
struct sac_call *sac_call_new(struct sac_service *service, struct sac_served *served,
                              struct sac_http_request *request, int count);
/* Submits each picture, with one deadline; the answer follows by itself. */
void sac_call_submit(struct sac_call *call, int timeout_ms);
/* Frees a call that was never submitted. */
void sac_call_free(struct sac_call *call);
/* Ends a picture: code 0 and its pairs filled, or a code and a sentence. Gives its
 * slot back. */
void sac_picture_end(struct sac_picture *picture, int code, const char *sentence);
void sac_calls_cancel(struct sac_service *service);
void sac_calls_free_spares(struct sac_service *service);

/* reply.c: what a call that is done answers. */
void sac_call_reply(struct sac_call *call);
int sac_status_of(int code);

/* routes.c */
extern const struct sac_http_route sac_service_routes[];
extern const int sac_service_route_count;
void sac_route_classify(struct sac_http_request *request, void *user);
void sac_route_classify_model(struct sac_http_request *request, void *user);
void sac_route_singa(struct sac_http_request *request, void *user);
void sac_route_models(struct sac_http_request *request, void *user);
void sac_route_metrics(struct sac_http_request *request, void *user);

#endif
