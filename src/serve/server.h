/*
 * The service: models, lanes and routes put together over src/http. Built by
 * `saccade serve`, and by tests with a device of their own.
 */
#ifndef SAC_SERVE_SERVER_H
#define SAC_SERVE_SERVER_H

#include "http/server.h"
#include "model/classifier.h"

struct sac_service;

enum { SAC_TOGETHER_MAX = 16 };

struct sac_service_options {
    struct sac_http_options http;    /* routes are the service's own */
    struct sac_model *const *models; /* borrowed; the first is the default of /api/classify */
    int model_count;
    struct sac_device *const *devices; /* borrowed */
    int device_count;
    int workers; /* lanes on a CPU device; 0: one a core */
    /* Cores of a CPU device that join on one picture while nothing else is there; 0: all
     * workers', up to SAC_TOGETHER_MAX; 1: none do. */
    int together;
    int queue_max; /* 0: as the batcher has it */
    int drain_ms;  /* 30,000 */
};

/* Prepares every model on every device and warms up (the latency tables); then
 * /readyz is true once the loop runs. */
int sac_service_new(struct sac_service **ret, const struct sac_service_options *options,
                    struct sac_error *err);
int sac_service_port(const struct sac_service *service);
/* Runs until sac_service_stop: the loop on this thread, lanes on their own. */
int sac_service_run(struct sac_service *service, struct sac_error *err);
/* Any thread: not ready at once, finish what was accepted, then return from run. */
void sac_service_stop(struct sac_service *service);
void sac_service_free(struct sac_service *service);

#endif
