#include "serve/metrics.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

void sac_metrics_histogram_add(struct sac_metrics_histogram *histogram, double first, double value)
{
    int bucket = 0;

    for (double most = first; value > most && bucket < SAC_BUCKETS - 1; most *= 2)
        bucket++;
    histogram->counts[bucket]++;
    histogram->count++;
    histogram->sum += value;
}

void sac_metrics_put_label(struct sac_buf *buf, const char *text)
{
    for (; *text; text++) {
        if (*text == '\\' || *text == '"')
            sac_buf_puts(buf, "\\");
        if (*text == '\n')
            sac_buf_puts(buf, "\\n");
        else
            sac_buf_put(buf, text, 1);
    }
}

void sac_metrics_put_head(struct sac_buf *buf, const char *name, const char *type, const char *help)
{
    sac_buf_printf(buf, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_labels(struct sac_buf *buf, const char *metric, const char *suffix,
                       const char *model)
{
    sac_buf_printf(buf, "%s%s{model=\"", metric, suffix);
    sac_metrics_put_label(buf, model);
    sac_buf_puts(buf, "\",version=\"1\"");
}

struct simple {
    const char *name, *type, *help;
    size_t offset;
};

enum { BATCH_BUCKETS = 10 }; /* 1, 2, 4 … SAC_BATCH_MAX, and more */

#define AT(field) offsetof(struct sac_model_metrics, field)
static const struct simple simples[] = {
    {"nv_inference_request_success", "counter", "Pictures answered with labels", AT(success)},
    {"nv_inference_count", "counter", "Pictures that a device has classified", AT(inferences)},
    {"nv_inference_exec_count", "counter", "Batches that a device has run", AT(executions)},
    {"nv_inference_request_duration_us", "counter",
     "From a picture's last byte to its answer, summed", AT(request_us)},
    {"nv_inference_queue_duration_us", "counter", "Waiting for a device, summed", AT(queue_us)},
    {"nv_inference_compute_input_duration_us", "counter", "Decoding and resizing, summed",
     AT(decode_us)},
    {"nv_inference_compute_infer_duration_us", "counter", "Running the net, summed over pictures",
     AT(compute_us)},
    {"nv_inference_pending_request_count", "gauge", "Pictures accepted and not yet answered",
     AT(pending)},
};

static const struct simple histograms[] = {
    {"saccade_queue_seconds", "histogram", "Waiting for a device", AT(queue)},
    {"saccade_decode_seconds", "histogram", "Decoding and resizing a picture", AT(decode)},
    {"saccade_compute_seconds", "histogram", "Running the net on a picture's batch", AT(compute)},
    {"saccade_batch_size", "histogram", "Pictures in a batch", AT(batch)},
};
#undef AT

static void put_histogram(struct sac_buf *buf, const char *name, const char *model,
                          const struct sac_metrics_histogram *histogram, double first, int buckets)
{
    uint64_t below = 0;
    double most = first;

    for (int i = 0; i < buckets - 1; i++, most *= 2) {
        below += histogram->counts[i];
        put_labels(buf, name, "_bucket", model);
        sac_buf_printf(buf, ",le=\"%.6g\"} %llu\n", most, (unsigned long long)below);
    }
    put_labels(buf, name, "_bucket", model);
    sac_buf_printf(buf, ",le=\"+Inf\"} %llu\n", (unsigned long long)histogram->count);
    put_labels(buf, name, "_sum", model);
    sac_buf_printf(buf, "} %.9g\n", histogram->sum);
    put_labels(buf, name, "_count", model);
    sac_buf_printf(buf, "} %llu\n", (unsigned long long)histogram->count);
}

static void put_failures(struct sac_buf *buf, const struct sac_model_metrics *const *models,
                         const char *const *names, int count)
{
    static const char *const reasons[SAC_FAILURES] = {"REJECTED", "CANCELED", "BACKEND", "OTHER"};
    static const char name[] = "nv_inference_request_failure";

    sac_metrics_put_head(buf, name, "counter", "Pictures not answered with labels");
    for (int m = 0; m < count; m++) {
        for (int r = 0; r < SAC_FAILURES; r++) {
            put_labels(buf, name, "", names[m]);
            sac_buf_printf(buf, ",reason=\"%s\"} %llu\n", reasons[r],
                           (unsigned long long)models[m]->failures[r]);
        }
    }
}

void sac_metrics_put_models(struct sac_buf *buf, const struct sac_model_metrics *const *models,
                            const char *const *names, int count)
{
    for (size_t i = 0; i < sizeof simples / sizeof *simples; i++) {
        sac_metrics_put_head(buf, simples[i].name, simples[i].type, simples[i].help);
        for (int m = 0; m < count; m++) {
            uint64_t value; /* pending is signed, but never negative */
            memcpy(&value, (const char *)models[m] + simples[i].offset, sizeof value);
            put_labels(buf, simples[i].name, "", names[m]);
            sac_buf_printf(buf, "} %llu\n", (unsigned long long)value);
        }
    }
    put_failures(buf, models, names, count);
    for (size_t i = 0; i < sizeof histograms / sizeof *histograms; i++) {
        bool batch = histograms[i].offset == offsetof(struct sac_model_metrics, batch);
        sac_metrics_put_head(buf, histograms[i].name, histograms[i].type, histograms[i].help);
        for (int m = 0; m < count; m++)
            put_histogram(buf, histograms[i].name, names[m],
                          (const struct sac_metrics_histogram *)((const char *)models[m] +
                                                                 histograms[i].offset),
                          batch ? 1 : SAC_HISTOGRAM_SECONDS, batch ? BATCH_BUCKETS : SAC_BUCKETS);
    }
}
