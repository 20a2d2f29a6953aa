/* GET /api/models and /metrics. */
#include <string.h>

#include "serve/service.h"

static void reply_buf(struct sac_http_request *request, struct sac_buf *buf, const char *type)
{
    const struct sac_http_response response = {.status = 200,
                                               .content_type = type,
                                               .body = buf->data,
                                               .body_size = buf->len,
                                               .headers = "Cache-Control: no-store\r\n"};

    if (buf->failed)
        sac_http_reply_error(request, 503, "out of memory for the answer");
    else
        sac_http_reply(request, &response);
    sac_buf_done(buf);
}

static void put_string(struct sac_buf *buf, const char *text)
{
    sac_buf_put_json(buf, text, strlen(text));
}

/* What a batch of each size is believed to take on the device's first lane. */
static void put_latencies(struct sac_buf *buf, struct sac_service *service, int device, int model)
{
    int lane = 0, most = sac_engine_batch_max(service->engines[device][model]);

    while (lane < service->lane_count - 1 && service->lanes[lane].device != device)
        lane++;
    sac_buf_puts(buf, "{");
    for (int n = 1; n <= most; n *= 2)
        sac_buf_printf(buf, "%s\"%d\":%.3f", n > 1 ? "," : "", n,
                       (double)sac_batcher_latency(service->batcher, lane, model, n) / 1e6);
    sac_buf_puts(buf, "}");
}

static int count_lanes(const struct sac_service *service, int device)
{
    int count = 0;

    for (int l = 0; l < service->lane_count; l++)
        count += service->lanes[l].device == device;
    return count;
}

static void put_devices(struct sac_buf *buf, struct sac_service *service, int model)
{
    for (int d = 0; d < service->options.device_count; d++) {
        const struct sac_engine *engine = service->engines[d][model];
        sac_buf_puts(buf, d ? ",{\"device\":" : "{\"device\":");
        put_string(buf, service->options.devices[d]->info.name);
        sac_buf_puts(buf, ",\"description\":");
        put_string(buf, service->options.devices[d]->info.description);
        sac_buf_printf(buf, ",\"precision\":\"%s\",\"lanes\":%d,\"latency_ms\":",
                       sac_precision_name(sac_engine_precision(engine)), count_lanes(service, d));
        put_latencies(buf, service, d, model);
        sac_buf_puts(buf, "}");
    }
}

static void put_model(struct sac_buf *buf, struct sac_service *service, int index)
{
    const struct sac_served *served = &service->served[index];
    const struct sac_preprocess *how = sac_model_preprocess(served->model);

    sac_buf_puts(buf, "{\"name\":");
    put_string(buf, sac_model_name(served->model));
    sac_buf_printf(buf,
                   ",\"default\":%s,\"classes\":%d,"
                   "\"input\":{\"channels\":%d,\"height\":%d,\"width\":%d},"
                   "\"topk\":%d,\"topk_max\":%d,\"timeout_ms\":%d,\"batch_max\":%d,"
                   "\"priority\":%d,\"devices\":[",
                   index == 0 ? "true" : "false", sac_model_class_count(served->model),
                   how->channels, how->crop_height, how->crop_width, sac_model_topk(served->model),
                   served->topk_max, sac_model_timeout_ms(served->model),
                   sac_engine_batch_max(service->engines[0][index]),
                   sac_model_priority(served->model));
    put_devices(buf, service, index);
    sac_buf_puts(buf, "]}");
}

void sac_route_models(struct sac_http_request *request, void *user)
{
    struct sac_service *service = user;
    struct sac_buf buf = {0};

    sac_buf_puts(&buf, "{\"models\":[");
    for (int m = 0; m < service->options.model_count; m++) {
        sac_buf_puts(&buf, m ? "," : "");
        put_model(&buf, service, m);
    }
    sac_buf_puts(&buf, "]}\n");
    reply_buf(request, &buf, "application/json");
}

static void put_one(struct sac_buf *buf, const char *name, const char *type, const char *help,
                    double value)
{
    sac_metrics_put_head(buf, name, type, help);
    sac_buf_printf(buf, "%s %.15g\n", name, value);
}

static void put_http(struct sac_buf *buf, const struct sac_http_counters *c)
{
    put_one(buf, "saccade_http_connections_total", "counter", "Connections accepted",
            (double)c->connections_accepted);
    put_one(buf, "saccade_http_connections_refused_total", "counter",
            "Connections refused over the limit", (double)c->connections_refused);
    put_one(buf, "saccade_http_connections_open", "gauge", "Connections open",
            (double)c->connections_open);
    put_one(buf, "saccade_http_requests_total", "counter", "Requests read", (double)c->requests);
    put_one(buf, "saccade_http_requests_in_flight", "gauge", "Requests not answered yet",
            (double)c->requests_in_flight);
    put_one(buf, "saccade_http_clients_gone_total", "counter",
            "Clients that left before the answer", (double)c->clients_gone);
    sac_metrics_put_head(buf, "saccade_http_responses_total", "counter", "Answers by status");
    sac_buf_printf(buf,
                   "saccade_http_responses_total{class=\"2xx\"} %llu\n"
                   "saccade_http_responses_total{class=\"4xx\"} %llu\n"
                   "saccade_http_responses_total{class=\"5xx\"} %llu\n",
                   (unsigned long long)c->responses_2xx, (unsigned long long)c->responses_4xx,
                   (unsigned long long)c->responses_5xx);
}

/* Lanes of the device, as `value` counts them. */
static unsigned of_lanes(const struct sac_service *service, int device,
                         unsigned (*value)(const struct sac_lane *lane))
{
    unsigned sum = 0;

    for (int l = 0; l < service->lane_count; l++)
        if (service->lanes[l].device == device)
            sum += value(&service->lanes[l]);
    return sum;
}

static unsigned is_up(const struct sac_lane *lane)
{
    return !atomic_load(&lane->down);
}

static unsigned failures(const struct sac_lane *lane)
{
    return atomic_load(&lane->failures);
}

static unsigned recoveries(const struct sac_lane *lane)
{
    return atomic_load(&lane->recoveries);
}

static void put_device_value(struct sac_buf *buf, const struct sac_service *service, int device,
                             const char *name, double value)
{
    sac_buf_printf(buf, "%s{device=\"", name);
    sac_metrics_put_label(buf, service->options.devices[device]->info.name);
    sac_buf_printf(buf, "\"} %.15g\n", value);
}

static void put_device_health(struct sac_buf *buf, const struct sac_service *service)
{
    static const struct {
        const char *name, *type, *help;
        unsigned (*value)(const struct sac_lane *lane);
    } rows[] = {
        {"saccade_device_lanes_up", "gauge", "Lanes of the device that work", is_up},
        {"saccade_device_failures_total", "counter", "Times that it took a lane down", failures},
        {"saccade_device_recoveries_total", "counter", "Times that a lane came back", recoveries},
    };

    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        sac_metrics_put_head(buf, rows[r].name, rows[r].type, rows[r].help);
        for (int d = 0; d < service->options.device_count; d++)
            put_device_value(buf, service, d, rows[r].name, of_lanes(service, d, rows[r].value));
    }
}

/* Triton's names where it has one; what is not known has no line. */
static void put_gauges(struct sac_buf *buf, struct sac_service *service)
{
#define AT(field) offsetof(struct sac_device_gauges, field)
    static const struct {
        const char *name, *help;
        size_t offset;
    } rows[] = {
        {"nv_gpu_utilization", "Share of time that the GPU computed, 0 to 1", AT(utilization)},
        {"nv_gpu_memory_used_bytes", "Memory in use", AT(memory_used_bytes)},
        {"nv_gpu_memory_total_bytes", "Memory in all", AT(memory_total_bytes)},
        {"nv_gpu_power_usage", "Watts", AT(power_watts)},
        {"saccade_gpu_temperature_celsius", "Temperature", AT(temperature_celsius)},
    };
#undef AT

    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        bool headed = false;
        for (int d = 0; d < service->options.device_count; d++) {
            struct sac_device_gauges gauges;
            double value;
            sac_monitor_show(service, d, &gauges);
            memcpy(&value, (const char *)&gauges + rows[r].offset, sizeof value);
            if (value < 0)
                continue;
            if (!headed)
                sac_metrics_put_head(buf, rows[r].name, "gauge", rows[r].help);
            headed = true;
            put_device_value(buf, service, d, rows[r].name, value);
        }
    }
}

static void put_batcher(struct sac_buf *buf, const struct sac_service *service,
                        const struct sac_batcher_counters *c)
{
    put_one(buf, "saccade_lanes", "gauge", "Lanes in all", service->lane_count);
    put_one(buf, "saccade_lanes_up", "gauge", "Lanes that work", c->lanes_up);
    put_one(buf, "saccade_queue_pictures", "gauge", "Pictures that wait", c->queued);
    put_one(buf, "saccade_running_pictures", "gauge", "Pictures that a lane has", c->running);
    put_one(buf, "saccade_together_total", "counter", "Pictures that all cores joined on",
            (double)c->together);
    put_one(buf, "saccade_refused_full_total", "counter", "Refused at the door: no room",
            (double)c->refused_full);
    put_one(buf, "saccade_refused_late_total", "counter",
            "Refused at the door: the deadline cannot be met", (double)c->refused_late);
    put_one(buf, "saccade_timed_out_total", "counter", "Deadlines passed in the queue",
            (double)c->timed_out);
    put_one(buf, "saccade_canceled_total", "counter", "Left the queue because the client went away",
            (double)c->canceled);
    put_one(buf, "saccade_lost_total", "counter", "Given up because devices failed",
            (double)c->lost);
}

/* What waits for, and is in, decoding, with what the devices have. */
static void add_door(const struct sac_service *service, struct sac_batcher_counters *to)
{
    struct sac_batcher_counters door;

    sac_batcher_counters(service->door, &door);
    to->queued += door.queued;
    to->running += door.running;
    to->refused_full += door.refused_full;
    to->refused_late += door.refused_late;
    to->timed_out += door.timed_out;
    to->canceled += door.canceled;
}

static void put_served(struct sac_buf *buf, const struct sac_service *service)
{
    const struct sac_model_metrics *metrics[SAC_MODELS_MAX];
    const char *names[SAC_MODELS_MAX];

    for (int m = 0; m < service->options.model_count; m++) {
        metrics[m] = &service->served[m].metrics;
        names[m] = sac_model_name(service->served[m].model);
    }
    sac_metrics_put_models(buf, metrics, names, service->options.model_count);
}

void sac_route_metrics(struct sac_http_request *request, void *user)
{
    struct sac_service *service = user;
    struct sac_batcher_counters batcher;
    struct sac_http_counters http;
    struct sac_buf buf = {0};

    sac_batcher_counters(service->batcher, &batcher);
    if (service->door != service->batcher)
        add_door(service, &batcher);
    sac_http_server_counters(service->http, &http);
    sac_metrics_put_head(&buf, "saccade_info", "gauge", "The program's version");
    sac_buf_puts(&buf, "saccade_info{version=\"" SACCADE_VERSION "\"} 1\n");
    put_served(&buf, service);
    put_batcher(&buf, service, &batcher);
    put_device_health(&buf, service);
    put_gauges(&buf, service);
    put_http(&buf, &http);
    reply_buf(request, &buf, "text/plain; version=0.0.4; charset=utf-8");
}
