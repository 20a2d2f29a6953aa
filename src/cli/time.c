/* saccade time */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/cpu.h"
#include "cli/command.h"
#include "cli/flags.h"
#include "cli/measure.h"
#include "cli/pictures.h"
#include "cli/time_training.h"
#include "cli/timeline.h"
#include "model/calibrate.h"
#include "net/plan.h"

static const char help[] =
    "Usage: saccade time --net PROTOTXT [--weights F] [options]\n"
    "       saccade time --model DIR --pictures FOLDER|LIST [options]\n\n"
    "Times a net's forward pass, operation by operation and whole, on one worker, and its\n"
    "share of what the core can do; or, with --pictures, everything from a picture's bytes to\n"
    "its labels on all workers at once.\n\n"
    "  --net F           a deploy or train_val prototxt\n"
    "  --backward        its TRAIN phase, forward and back, and an update of SGD\n"
    "  --data PATH       what feeds that; else its data layer's source, or zeros without one\n"
    "  --timeline        that as several devices do it together: when each step back and each\n"
    "                    sum of gradients ran, and what is hidden; with --device cuda:0,1 or\n"
    "  --ranks N         on the CPU (2)\n"
    "  --bucket KB       gradients that are summed at once, at least (8192)\n"
    "  --iterations N    passes to time (50)\n"
    "  --reference       the plain loops instead of the fast kernels\n"
    "  --pictures P      the pictures to go through, in memory\n"
    "  --workers N       threads for --pictures (one a core)\n"
    "  --seconds S       how long --pictures runs (5)\n"
    "  --json            for programs\n\n";

enum {
    FLAG_NET = SAC_FLAG_OWN,
    FLAG_ITERATIONS,
    FLAG_BACKWARD,
    FLAG_DATA,
    FLAG_REFERENCE,
    FLAG_PICTURES,
    FLAG_WORKERS,
    FLAG_SECONDS,
    FLAG_JSON,
    FLAG_TIMELINE,
    FLAG_RANKS,
    FLAG_BUCKET,
};

static const struct option long_options[] = {
    {"net", required_argument, NULL, FLAG_NET},
    {"iterations", required_argument, NULL, FLAG_ITERATIONS},
    {"backward", no_argument, NULL, FLAG_BACKWARD},
    {"data", required_argument, NULL, FLAG_DATA},
    {"reference", no_argument, NULL, FLAG_REFERENCE},
    {"pictures", required_argument, NULL, FLAG_PICTURES},
    {"workers", required_argument, NULL, FLAG_WORKERS},
    {"seconds", required_argument, NULL, FLAG_SECONDS},
    {"json", no_argument, NULL, FLAG_JSON},
    {"timeline", no_argument, NULL, FLAG_TIMELINE},
    {"ranks", required_argument, NULL, FLAG_RANKS},
    {"bucket", required_argument, NULL, FLAG_BUCKET},
    SAC_MODEL_FLAGS,
    {0}};

struct time_command {
    struct sac_model_flags flags;
    const char *net, *pictures, *data;
    int iterations, workers;
    double seconds;
    bool backward, reference, json, timeline;
    int ranks, bucket_kb; /* 0: not said */
    struct sac_device *device;
};

static int take_own(struct time_command *t, int option, const char *value, struct sac_error *err)
{
    switch (option) {
    case FLAG_NET:
        t->net = value;
        return 0;
    case FLAG_PICTURES:
        t->pictures = value;
        return 0;
    case FLAG_ITERATIONS:
        return sac_flag_int("--iterations", value, 1, 1000000, &t->iterations, err);
    case FLAG_WORKERS:
        return sac_flag_int("--workers", value, 1, 64, &t->workers, err);
    case FLAG_SECONDS:
        return sac_flag_number("--seconds", value, 0.01, 86400, &t->seconds, err);
    case FLAG_BACKWARD:
        t->backward = true;
        return 0;
    case FLAG_DATA:
        t->data = value;
        return 0;
    case FLAG_REFERENCE:
        t->reference = true;
        return 0;
    case FLAG_TIMELINE:
        t->timeline = true;
        return 0;
    case FLAG_RANKS:
        return sac_flag_int("--ranks", value, 1, SAC_GROUP_MAX, &t->ranks, err);
    case FLAG_BUCKET:
        return sac_flag_int("--bucket", value, 1, 1 << 20, &t->bucket_kb, err);
    default:
        t->json = true;
        return 0;
    }
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct time_command *t = user;
    int rc = sac_model_flags_take(&t->flags, option, value, err);

    return rc ? rc : take_own(t, option, value, err);
}

static int parse(struct time_command *t, int argc, char **argv, bool *ret_help,
                 struct sac_error *err)
{
    int rc = sac_flags_parse(argc, argv, long_options, take, t, ret_help, err);

    if (rc < 0 || *ret_help)
        return rc;
    if (!t->net == !t->pictures)
        return sac_fail(err, SAC_EINVAL, "expected --net, or --model with --pictures");
    if ((t->backward && !t->net) || (t->data && !t->backward))
        return sac_fail(err, SAC_EINVAL, "--backward goes with --net, and --data with --backward");
    if (t->timeline && (!t->net || t->backward))
        return sac_fail(err, SAC_EINVAL, "--timeline goes with --net, without --backward");
    if ((t->ranks || t->bucket_kb) && !t->timeline)
        return sac_fail(err, SAC_EINVAL, "--ranks and --bucket go with --timeline");
    return 0;
}

/* Pictures: the bound. */

static int time_pictures(struct time_command *t, struct sac_error *err)
{
    struct sac_pictures pictures = {0};
    struct sac_model *models[64] = {0};
    struct sac_engine *engine = NULL;
    struct sac_measure measure = {0};
    int batch = t->flags.overrides.batch_max > 0 ? t->flags.overrides.batch_max : 1;
    int rc = sac_pictures_add(&pictures, t->pictures, err);

    if (rc == 0 && pictures.count == 0)
        rc = sac_fail(err, SAC_ENOENT, "%s: no pictures", t->pictures);
    if (rc == 0)
        rc = sac_model_flags_open(&t->flags, models, err);
    if (rc >= 0)
        rc = sac_engine_new(&engine, models[0], t->device, batch, 0, err);
    if (rc == 0)
        rc = sac_measure_pictures(engine, t->workers, sac_engine_batch_max(engine), pictures.paths,
                                  pictures.count, t->seconds, &measure, err);
    if (rc == 0 && t->json)
        printf("{\"pictures_per_second\":%.2f,\"median_ms\":%.4f,\"decode_share\":%.4f,"
               "\"workers\":%d,\"batch\":%d,\"precision\":\"%s\"}\n",
               measure.pictures_per_second, measure.median_ms, measure.decode_share, t->workers,
               sac_engine_batch_max(engine), sac_precision_name(sac_engine_precision(engine)));
    else if (rc == 0)
        printf("%.1f pictures a second on %d workers, batch %d, %s; a batch takes %.3f ms "
               "(median), %.0f %% of it decoding\n",
               measure.pictures_per_second, t->workers, sac_engine_batch_max(engine),
               sac_precision_name(sac_engine_precision(engine)), measure.median_ms,
               100 * measure.decode_share);
    sac_engine_free(engine);
    sac_model_unref(models[0]);
    sac_pictures_done(&pictures);
    return rc;
}

/* A net: the plan, per operation and whole. */

/* By the clock, and of this thread's CPU time: all of it on a CPU, and what remains the
 * same when other programs want the core. */
struct timing {
    double *step_ms, *step_cpu_ms;   /* steps × iterations */
    double *total_ms, *total_cpu_ms; /* iterations */
    double peak_gflops;              /* of the core; 0: not known */
    const char *peak_how;
};

struct moment {
    uint64_t wall_ns, cpu_ns;
};

static struct moment now(void)
{
    return (struct moment){sac_clock_ns(), sac_clock_thread_cpu_ns()};
}

static void note(struct moment began, double *ms, double *cpu_ms)
{
    struct moment end = now();

    *ms = (double)(end.wall_ns - began.wall_ns) / 1e6;
    *cpu_ms = (double)(end.cpu_ns - began.cpu_ns) / 1e6;
}

static int time_once(struct time_command *t, struct sac_plan *plan, struct sac_stream *stream,
                     struct timing *timing, int iteration, struct sac_error *err)
{
    const struct sac_device_table *table = t->device->table;
    int steps = sac_plan_step_count(plan), rc = 0;

    for (int i = 0; rc == 0 && i < steps; i++) {
        int at = i * t->iterations + iteration;
        struct moment began = now();
        rc = sac_plan_forward_step(plan, i, err);
        if (rc == 0)
            rc = table->stream_sync(stream, err);
        note(began, &timing->step_ms[at], &timing->step_cpu_ms[at]);
    }
    struct moment began = now();
    if (rc == 0)
        rc = sac_plan_forward(plan, err);
    if (rc == 0)
        rc = table->stream_sync(stream, err);
    note(began, &timing->total_ms[iteration], &timing->total_cpu_ms[iteration]);
    return rc;
}

static double mean(const double *values, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += values[i];
    return sum / (double)count;
}

/* "81.5" % of the peak, of CPU time, as the peak is; or nothing where it is not known. */
static const char *peak_text(const struct timing *timing, double gflops, char text[16])
{
    snprintf(text, 16, timing->peak_gflops > 0 ? "%.1f" : "", 100 * gflops / timing->peak_gflops);
    return text;
}

static void put_step(struct sac_buf *out, const struct sac_plan_step *step,
                     const struct timing *timing, double ms, double cpu_ms, double share, bool json)
{
    char shape[SAC_SHAPE_TEXT], peak[16];

    sac_shape_text(&step->out, shape, sizeof shape);
    if (!json) {
        sac_buf_printf(out, "%9.4f %5.1f %9.1f %6s %8.2f  %-10s %-22s %-22s %s\n", ms, 100 * share,
                       step->flops / ms / 1e6, peak_text(timing, step->flops / cpu_ms / 1e6, peak),
                       step->bytes / ms / 1e6, sac_op_kind_name(step->kind), shape, step->kernel,
                       step->name);
        return;
    }
    sac_buf_puts(out, "{\"name\":");
    sac_buf_put_json(out, step->name, strlen(step->name));
    sac_buf_printf(out, ",\"op\":\"%s\",\"kernel\":", sac_op_kind_name(step->kind));
    sac_buf_put_json(out, step->kernel, strlen(step->kernel));
    sac_buf_printf(out, ",\"ms\":%.6f,\"cpu_ms\":%.6f,\"flops\":%.0f,\"bytes\":%.0f}", ms, cpu_ms,
                   step->flops, step->bytes);
}

static void report(struct time_command *t, const struct sac_plan *plan, struct timing *timing)
{
    struct sac_buf out = {0};
    size_t n = (size_t)t->iterations;
    double total = sac_median(timing->total_ms, n), flops = 0;
    double total_cpu = sac_median(timing->total_cpu_ms, n);
    int slices = sac_plan_slices(plan);
    char peak[16];

    if (t->json)
        sac_buf_puts(&out, "{\"steps\":[");
    else
        sac_buf_puts(&out, "       ms     %   GFLOP/s  %peak     GB/s  op         result          "
                           "       kernel                 layers\n");
    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        struct sac_plan_step step;
        sac_plan_step(plan, i, &step);
        double ms = slices * sac_median(timing->step_ms + (size_t)i * n, n);
        double cpu_ms = slices * sac_median(timing->step_cpu_ms + (size_t)i * n, n);
        step.flops *= slices;
        step.bytes *= slices;
        flops += step.flops;
        if (t->json && i)
            sac_buf_puts(&out, ",");
        put_step(&out, &step, timing, ms > 0 ? ms : 1e-6, cpu_ms > 0 ? cpu_ms : 1e-6, ms / total,
                 t->json);
    }
    int batch = sac_plan_batch(plan);
    if (t->json)
        sac_buf_printf(&out,
                       "],\"batch\":%d,\"slices\":%d,\"median_ms\":%.6f,\"cpu_ms\":%.6f,"
                       "\"mean_ms\":%.6f,\"mean_cpu_ms\":%.6f,\"pictures_per_second\":%.3f,"
                       "\"gflop_per_second\":%.2f,\"peak_gflop_per_second\":%.2f,"
                       "\"memory_bytes\":%zu}\n",
                       batch, slices, total, total_cpu, mean(timing->total_ms, n),
                       mean(timing->total_cpu_ms, n), batch * 1e3 / total, flops / total / 1e6,
                       timing->peak_gflops, sac_plan_memory_bytes(plan));
    else
        sac_buf_printf(
            &out,
            "whole: %.3f ms a pass of %d in %d slice%s (median of %d; mean %.3f; %.3f ms of CPU), "
            "%.1f pictures a second, %.1f GFLOP/s, %.1f MB of activations\n",
            total, batch, slices, slices == 1 ? "" : "s", t->iterations, mean(timing->total_ms, n),
            total_cpu, batch * 1e3 / total, flops / total / 1e6,
            (double)sac_plan_memory_bytes(plan) / 1e6);
    if (!t->json && timing->peak_gflops > 0)
        sac_buf_printf(&out,
                       "%s %% of the core's peak, %.1f GFLOP/s: a loop of %s on numbers in "
                       "registers, the best of tries before and after\n",
                       peak_text(timing, flops / total_cpu / 1e6, peak), timing->peak_gflops,
                       timing->peak_how);
    fwrite(out.data, 1, out.len, stdout);
    sac_buf_done(&out);
}

/* What the core can do: the best that was seen. */
static void probe_peak(struct time_command *t, enum sac_precision precision, struct timing *timing)
{
    const struct sac_device_table *table = t->device->table;
    double flops =
        table->peak_flops ? table->peak_flops(t->device, precision, &timing->peak_how) : 0;

    if (flops / 1e9 > timing->peak_gflops)
        timing->peak_gflops = flops / 1e9;
}

/* As the benches' peers do: numbers in [0, 1), none of which is rare. */
static int fill_input(struct time_command *t, const struct sac_tensor *input,
                      struct sac_stream *stream, struct sac_error *err)
{
    const struct sac_device_table *table = t->device->table;
    size_t bytes = sac_tensor_bytes(&input->shape, input->form.type);
    float *numbers = NULL;
    int rc = table->memory_new(t->device, SAC_MEMORY_STAGING, bytes, (void **)&numbers, err);

    for (size_t i = 0; rc == 0 && i < bytes / sizeof *numbers; i++)
        numbers[i] = (float)(i % 251) / 251;
    if (rc == 0)
        rc = table->copy(stream, SAC_COPY_TO_DEVICE, input->data, numbers, bytes, err);
    if (rc == 0)
        rc = table->stream_sync(stream, err);
    if (numbers)
        table->memory_free(t->device, SAC_MEMORY_STAGING, numbers);
    return rc;
}

static int time_plan(struct time_command *t, struct sac_plan *plan, struct sac_stream *stream,
                     enum sac_precision precision, struct sac_error *err)
{
    size_t steps = (size_t)sac_plan_step_count(plan), n = (size_t)t->iterations;
    double *all = calloc(2 * (steps + 1) * n, sizeof *all);
    struct timing timing = {.step_ms = all,
                            .step_cpu_ms = all + steps * n,
                            .total_ms = all + 2 * steps * n,
                            .total_cpu_ms = all + (2 * steps + 1) * n};
    int rc = all ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (int i = 0; rc == 0 && i < sac_plan_input_count(plan); i++)
        rc = fill_input(t, sac_plan_input(plan, i), stream, err);
    for (int i = 0; rc == 0 && i < 3; i++) /* warm */
        rc = sac_plan_forward(plan, err);
    if (rc == 0)
        probe_peak(t, precision, &timing);
    for (int i = 0; rc == 0 && i < t->iterations; i++)
        rc = time_once(t, plan, stream, &timing, i, err);
    if (rc == 0)
        probe_peak(t, precision, &timing);
    if (rc == 0)
        report(t, plan, &timing);
    free(all);
    return rc;
}

/* A net without a model has no ranges. Its input is made up here; so are they, by what
 * that input gives: the arithmetic is the same. */
static int make_ranges(struct time_command *t, struct sac_net *net, struct sac_ranges *ret,
                       struct sac_error *err)
{
    struct sac_calibration *calibration = NULL;
    struct sac_shape shape = {0};
    float *input = NULL;
    int rc = t->flags.files.weights ? 0 : sac_net_fill(net, 1, err);

    if (rc == 0)
        rc = sac_calibration_new(&calibration, net, t->device, NULL, err);

    if (rc == 0) {
        sac_net_blob_shape(net, sac_net_input_name(net, 0), &shape);
        shape.dim[0] = 1;
        input = calloc(1, sac_tensor_bytes(&shape, SAC_F32));
        if (!input)
            rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    }
    for (int64_t i = 0; input && i < sac_shape_count(&shape); i++)
        input[i] = (float)(sac_random_mix((uint64_t)i) & 255) - 127.5f;
    if (rc == 0)
        rc = sac_calibration_add(calibration, input, err);
    if (rc == 0)
        rc = sac_calibration_ranges(calibration, SAC_CALIBRATE_MSE, ret, err);
    if (rc == 0 && ret->blob_count <= sac_net_output_count(net))
        rc = sac_fail(err, SAC_EINVAL,
                      "%s: all its numbers are 0, from which no ranges come; name --weights, or "
                      "give its layers weight fillers",
                      t->net);
    free(input);
    sac_calibration_free(calibration);
    return rc;
}

static int take_precision(struct time_command *t, enum sac_precision *ret, struct sac_error *err)
{
    const char *value = t->flags.overrides.precision;

    if (!value || strcmp(value, sac_precision_name(SAC_PRECISION_INT8)) != 0)
        return sac_flag_precision(value, t->device, ret, err);
    *ret = SAC_PRECISION_INT8;
    if (t->device->info.precisions & 1u << SAC_PRECISION_INT8)
        return 0;
    return sac_fail(err, SAC_EUNSUPPORTED, "--precision: device %s does not do int8",
                    t->device->info.name);
}

static int time_net(struct time_command *t, struct sac_error *err)
{
    const struct sac_net_options net_options = {.phase = SAC_PHASE_TEST};
    const struct sac_device_table *table = t->device->table;
    int batch = t->flags.overrides.batch_max;
    struct sac_plan_options options = {
        .batch = batch > 0 ? batch : 0,
        .ops = {.reference = t->reference, .deterministic = t->flags.overrides.deterministic > 0}};
    struct sac_net *net = NULL;
    struct sac_store *store = NULL;
    struct sac_stream *stream = NULL;
    struct sac_plan *plan = NULL;
    struct sac_ranges ranges = {0};

    int rc = take_precision(t, &options.ops.precision, err);
    sac_cpu_pin(0);
    if (rc == 0)
        rc = sac_net_load(&net, t->net, &net_options, err);
    if (rc == 0 && t->flags.files.weights)
        rc = sac_net_load_weights(net, t->flags.files.weights, NULL, err);
    if (rc == 0 && options.ops.precision == SAC_PRECISION_INT8) {
        rc = make_ranges(t, net, &ranges, err);
        options.ops.ranges = &ranges;
    }
    if (rc == 0)
        rc = table->store_new(t->device, &store, err);
    if (rc == 0)
        rc = table->stream_new(t->device, &stream, err);
    if (rc == 0)
        rc = sac_plan_new(&plan, net, t->device, store, stream, &options, err);
    if (rc == 0)
        rc = time_plan(t, plan, stream, options.ops.precision, err);
    sac_plan_free(plan);
    table->stream_free(stream);
    table->store_free(store);
    sac_net_free(net);
    sac_ranges_done(&ranges);
    return rc;
}

static int time_training(struct time_command *t, struct sac_error *err)
{
    int batch = t->flags.overrides.batch_max;
    struct sac_time_training how = {
        .device = t->device,
        .net = t->net,
        .data = t->data,
        .mean = t->flags.files.mean,
        .batch = batch > 0 ? batch : 0,
        .iterations = t->iterations,
        .ops = {.reference = t->reference, .deterministic = t->flags.overrides.deterministic > 0},
        .json = t->json,
    };
    int rc = sac_flag_precision(t->flags.overrides.precision, t->device, &how.ops.precision, err);

    return rc == 0 ? sac_time_training(&how, err) : rc;
}

/* A rank for each device; on the CPU, for each that was asked for. */
static int run_timeline(struct time_command *t, struct sac_device **devices, int count,
                        struct sac_error *err)
{
    int batch = t->flags.overrides.batch_max;
    struct sac_timeline how = {
        .devices = devices,
        .ranks = count,
        .net = t->net,
        .batch = batch > 0 ? batch : 0,
        .iterations = t->iterations,
        .bucket_bytes = (size_t)t->bucket_kb << 10,
        .ops = {.reference = t->reference, .deterministic = t->flags.overrides.deterministic > 0},
        .json = t->json,
    };
    int rc = sac_flag_precision(t->flags.overrides.precision, devices[0], &how.ops.precision, err);

    if (rc == 0 && t->ranks && !devices[0]->info.host_memory)
        return sac_fail(err, SAC_EINVAL, "--ranks is for the CPU; several GPUs: --device cuda:0,1");
    if (rc == 0 && devices[0]->info.host_memory) {
        how.ranks = t->ranks ? t->ranks : 2;
        for (int i = 1; i < how.ranks; i++)
            devices[i] = devices[0];
    }
    return rc == 0 ? sac_timeline(&how, err) : rc;
}

static int time_timeline(struct time_command *t, struct sac_error *err)
{
    struct sac_device *devices[SAC_GROUP_MAX];
    int count = 0;
    int rc = sac_devices_open(devices, SAC_GROUP_MAX, &count, t->flags.device, err);

    if (rc == 0)
        rc = run_timeline(t, devices, count, err);
    while (count > 0)
        sac_device_close(devices[--count]);
    return rc;
}

int sac_command_time(int argc, char **argv)
{
    struct time_command t = {.flags = sac_model_flags_none(),
                             .iterations = 50,
                             .workers = sac_cpu_count(),
                             .seconds = 5};
    struct sac_error err = {0};
    bool wants_help = false;
    int rc = parse(&t, argc, argv, &wants_help, &err);

    if (wants_help) {
        printf("%s%s\nExample: saccade time --net deploy.prototxt --batch 8 --precision bf16\n",
               help, sac_model_flags_help);
        return 0;
    }
    if (rc)
        return sac_usage_error("time", "%s", err.text);
    if (t.timeline)
        return time_timeline(&t, &err) ? sac_command_failed(&err) : 0;
    rc = sac_device_open(&t.device, t.flags.device, &err);
    if (rc == 0)
        rc = t.backward ? time_training(&t, &err)
             : t.net    ? time_net(&t, &err)
                        : time_pictures(&t, &err);
    sac_device_close(t.device);
    return rc ? sac_command_failed(&err) : 0;
}
