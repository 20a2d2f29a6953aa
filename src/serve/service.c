#include "serve/service.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"

static int min_of(int a, int b)
{
    return a < b ? a : b;
}

static int max_of(int a, int b)
{
    return a > b ? a : b;
}

static int add_served(struct sac_service *service, int index, struct sac_error *err)
{
    struct sac_served *served = &service->served[index];
    struct sac_model *model = service->options.models[index];
    int classes = sac_model_class_count(model);

    served->model = model;
    served->topk_max = min_of(classes, max_of(SAC_TOPK_SERVED, sac_model_topk(model)));
    service->pairs_max = max_of(service->pairs_max, served->topk_max);
    for (int i = 0; i < index; i++)
        if (strcmp(sac_model_name(service->served[i].model), sac_model_name(model)) == 0)
            return sac_fail(err, SAC_EINVAL, "two models are called \"%s\": name one otherwise",
                            sac_model_name(model));
    int priority = sac_model_priority(model);
    int most = sac_model_batch_max(model, service->options.devices[0]);
    served->index = sac_batcher_add_model(service->batcher, most, priority);
    if (served->index >= 0 && service->door != service->batcher) /* the same index there */
        served->index = sac_batcher_add_model(service->door, 1, priority);
    if (served->index < 0)
        return sac_fail(err, served->index, "model %s cannot be added", sac_model_name(model));
    return 0;
}

static int add_models(struct sac_service *service, struct sac_error *err)
{
    int count = service->options.model_count, devices = service->options.device_count, rc = 0;

    if (devices < 1 || devices > SAC_LANES_MAX)
        return sac_fail(err, SAC_EINVAL, "%d devices: expected 1 to %d", devices, SAC_LANES_MAX);
    if (count < 1 || count > SAC_MODELS_MAX)
        return sac_fail(err, SAC_EINVAL, "%d models: expected 1 to %d", count, SAC_MODELS_MAX);
    for (int m = 0; m < count && rc == 0; m++)
        rc = add_served(service, m, err);
    return rc;
}

static int add_engines(struct sac_service *service, struct sac_error *err)
{
    const struct sac_service_options *options = &service->options;
    int rc = 0;

    for (int d = 0; d < options->device_count; d++)
        for (int m = 0; m < options->model_count && rc == 0; m++)
            rc = sac_engine_new(&service->engines[d][m], options->models[m], options->devices[d], 0,
                                service->served[m].topk_max, err);
    return rc;
}

int sac_service_workers(const struct sac_service *service)
{
    int workers = service->options.workers > 0 ? service->options.workers : sac_cpu_count();

    return min_of(workers, SAC_LANES_MAX);
}

static int add_lane(struct sac_service *service, int device, int core, struct sac_error *err)
{
    int index = sac_batcher_add_lane(service->batcher);

    if (index < 0)
        return sac_fail(err, SAC_ELIMIT, "more than %d lanes", SAC_LANES_MAX);
    service->lanes[index] =
        (struct sac_lane){.service = service,
                          .work = service->staging ? &sac_submitter : &sac_worker,
                          .index = index,
                          .device = device,
                          .core = core};
    service->lane_count = index + 1;
    return 0;
}

/* How many threads the first lane's team has. */
static int team_of(const struct sac_service *service, int lanes)
{
    int wanted = service->options.together, most = min_of(lanes, SAC_TOGETHER_MAX);

    return service->staging || service->options.device_count > 1 ? 1
           : wanted > 0                                          ? min_of(wanted, most)
                                                                 : most;
}

/* A device of host memory runs on the cores themselves: a lane each. */
static int add_lanes(struct sac_service *service, struct sac_error *err)
{
    int rc = 0;

    for (int d = 0; d < service->options.device_count; d++) {
        const struct sac_device *device = service->options.devices[d];
        int count = service->staging ? 1 : sac_service_workers(service);
        bool pins = device->info.host_memory && sac_cpu_is_pinning_wise(count);
        for (int i = 0; i < count && rc == 0; i++)
            rc = add_lane(service, d, pins ? i : -1, err);
        if (rc == 0 && d == 0)
            service->lanes[0].team = team_of(service, count);
    }
    return rc;
}

/* All lanes prepare and warm up at once, as they will run. */
static int start_lanes(struct sac_service *service, struct sac_error *err)
{
    int rc = 0;

    for (int l = 0; l < service->lane_count && rc == 0; l++)
        rc = sac_lane_start(&service->lanes[l], err);
    pthread_mutex_lock(&service->starting_lock);
    for (int l = 0; l < service->lane_count && rc == 0; l++) {
        struct sac_lane *lane = &service->lanes[l];
        while (lane->state == SAC_LANE_STARTING)
            pthread_cond_wait(&service->starting, &service->starting_lock);
        if (lane->state == SAC_LANE_FAILED)
            rc = sac_fail(err, lane->err.code, "%s", lane->err.text);
    }
    pthread_mutex_unlock(&service->starting_lock);
    return rc;
}

static int start_http(struct sac_service *service, struct sac_error *err)
{
    struct sac_http_options http = service->options.http;
    struct sac_http_route *routes = calloc((size_t)sac_service_route_count, sizeof *routes);

    if (!routes)
        return sac_fail(err, SAC_ENOMEM, "the service: out of memory");
    memcpy(routes, sac_service_routes, (size_t)sac_service_route_count * sizeof *routes);
    for (int i = 0; i < sac_service_route_count; i++)
        routes[i].user = service;
    service->routes = routes;
    http.routes = routes;
    http.route_count = sac_service_route_count;
    return sac_http_server_new(&service->http, &http, err);
}

static void init_locks(struct sac_service *service)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&service->starting_lock, NULL);
    pthread_cond_init(&service->starting, NULL);
    pthread_mutex_init(&service->stopping_lock, NULL);
    pthread_cond_init(&service->stopping_cond, &monotonic);
    pthread_mutex_init(&service->monitor.lock, NULL);
    pthread_condattr_destroy(&monotonic);
}

/* Where devices have memory of their own, pictures are decoded by a stage of its
 * own, whose batcher is the door. Its slots bound what waits in the other one. */
static int make_batchers(struct sac_service *service, struct sac_error *err)
{
    const struct sac_service_options *options = &service->options;
    struct sac_batcher_options door = {.queue_max = options->queue_max};
    struct sac_batcher_options devices = {.queue_max = INT_MAX};
    bool own = options->device_count > 0 && !options->devices[0]->info.host_memory;

    for (int d = 1; d < options->device_count; d++)
        if (options->devices[d]->info.host_memory == own)
            return sac_fail(err, SAC_EUNSUPPORTED,
                            "devices %s and %s cannot serve together: one has its own memory",
                            options->devices[0]->info.name, options->devices[d]->info.name);
    int rc = sac_batcher_new(&service->batcher, own ? &devices : &door, err);
    service->door = service->batcher;
    if (rc == 0 && own)
        rc = sac_batcher_new(&service->door, &door, err);
    return rc;
}

static int make_staging(struct sac_service *service, struct sac_error *err)
{
    size_t most = 1;

    if (service->door == service->batcher)
        return 0;
    for (int m = 0; m < service->options.model_count; m++) {
        size_t bytes = sac_preprocess_bytes(sac_model_preprocess(service->options.models[m]));
        most = bytes > most ? bytes : most;
    }
    return sac_staging_new(&service->staging, most, err);
}

int sac_service_new(struct sac_service **ret, const struct sac_service_options *options,
                    struct sac_error *err)
{
    struct sac_service *service = calloc(1, sizeof *service);

    if (!service)
        return sac_fail(err, SAC_ENOMEM, "the service: out of memory");
    service->options = *options;
    service->live.live_next = service->live.live_prev = &service->live;
    init_locks(service);
    for (int d = 0; d < SAC_LANES_MAX; d++)
        service->monitor.shown[d] = (struct sac_device_gauges){-1, -1, -1, -1, -1};
    int rc = make_batchers(service, err);
    if (rc == 0)
        rc = add_models(service, err);
    if (rc == 0)
        rc = make_staging(service, err);
    if (rc == 0) /* a port that is taken is told before the long part */
        rc = start_http(service, err);
    if (rc == 0)
        rc = add_engines(service, err);
    if (rc == 0)
        rc = add_lanes(service, err);
    if (rc == 0)
        rc = start_lanes(service, err);
    if (rc == 0 && service->staging)
        rc = sac_decode_start(service, err);
    if (rc == 0)
        rc = sac_monitor_start(service, err);
    if (rc == 0) {
        *ret = service;
        service = NULL;
    }
    sac_service_free(service);
    return rc;
}

int sac_service_port(const struct sac_service *service)
{
    return sac_http_server_port(service->http);
}

/* After the loop: what has not been answered by now is given up. */
static void stop_lanes(struct sac_service *service)
{
    sac_calls_cancel(service);
    if (service->staging) { /* first what comes from there */
        sac_batcher_stop(service->door);
        sac_decode_join(service);
    }
    if (service->batcher)
        sac_batcher_stop(service->batcher);
    pthread_mutex_lock(&service->stopping_lock);
    service->stopping = true;
    pthread_cond_broadcast(&service->stopping_cond);
    pthread_mutex_unlock(&service->stopping_lock);
    for (int l = 0; l < service->lane_count; l++)
        sac_lane_join(&service->lanes[l]);
    sac_monitor_join(service);
}

int sac_service_run(struct sac_service *service, struct sac_error *err)
{
    /* Not with short slices (sac_cpu_be_prompt()): at saturation they cost 4 % of what is
     * served, and nothing was sooner. */
    int rc = sac_http_server_run(service->http, err);

    stop_lanes(service);
    return rc;
}

void sac_service_stop(struct sac_service *service)
{
    int drain_ms = service->options.drain_ms;

    atomic_store(&service->draining, true);
    sac_http_server_stop(service->http, drain_ms > 0 ? drain_ms : 30000);
}

static void free_engines(struct sac_service *service)
{
    for (int d = 0; d < SAC_LANES_MAX; d++)
        for (int m = 0; m < SAC_MODELS_MAX; m++)
            sac_engine_free(service->engines[d][m]);
}

void sac_service_free(struct sac_service *service)
{
    if (!service)
        return;
    stop_lanes(service);
    sac_http_server_free(service->http);
    free_engines(service);
    sac_calls_free_spares(service);
    sac_buf_done(&service->scratch);
    if (service->door != service->batcher)
        sac_batcher_free(service->door);
    sac_batcher_free(service->batcher);
    sac_staging_free(service->staging);
    pthread_mutex_destroy(&service->monitor.lock);
    pthread_mutex_destroy(&service->starting_lock);
    pthread_cond_destroy(&service->starting);
    pthread_mutex_destroy(&service->stopping_lock);
    pthread_cond_destroy(&service->stopping_cond);
    free(service->routes);
    free(service);
}
