/*
 * Plans held ready on a device and timed on request, so that others can be timed in
 * turn with them (bench/forward_gpu). One request a line on standard input, one line of
 * JSON back each; weights and pixels are random, pixels go in and five pairs come out,
 * as when serving.
 *
 *   time_plans [DEVICE]          cuda:0
 *
 *   device                       its name and description
 *   open PATH BATCH PRECISION    the plan takes the number that comes back
 *   run PLAN COUNT               milliseconds a pass, of COUNT enqueued one behind the other
 *   trip PLAN COUNT              microseconds from pixels on the host to pairs on the host:
 *                                copy, pass, copy and wait; the median of COUNT
 *   steps PLAN                   what runs each operation
 *   close PLAN
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "net/plan.h"
#include "net/random_net.h"

enum { PLANS_MAX = 64, WARM_PASSES = 3, COUNT_MAX = 100000 };

struct held {
    struct sac_net *net;
    struct sac_store *store;
    struct sac_stream *stream;
    struct sac_plan *plan;
    void *pixels, *pairs; /* staging */
};

static struct sac_device *device;
static struct held held[PLANS_MAX];

static void held_done(struct held *h)
{
    const struct sac_device_table *table = device->table;

    table->memory_free(device, SAC_MEMORY_STAGING, h->pixels);
    table->memory_free(device, SAC_MEMORY_STAGING, h->pairs);
    sac_plan_free(h->plan);
    table->stream_free(h->stream);
    table->store_free(h->store);
    sac_net_free(h->net);
    *h = (struct held){0};
}

static size_t bytes_of(const struct sac_tensor *t)
{
    return sac_tensor_bytes(&t->shape, t->form.type);
}

static int copy_in(const struct held *h, struct sac_error *err)
{
    const struct sac_tensor *input = sac_plan_input(h->plan, 0);

    return device->table->copy(h->stream, SAC_COPY_TO_DEVICE, input->data, h->pixels,
                               bytes_of(input), err);
}

static int copy_out(const struct held *h, struct sac_error *err)
{
    const struct sac_tensor *output = sac_plan_output(h->plan, 0);

    return device->table->copy(h->stream, SAC_COPY_TO_HOST, h->pairs, output->data,
                               bytes_of(output), err);
}

static int passes(const struct held *h, int count, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < count && rc == 0; i++)
        rc = sac_plan_forward(h->plan, err);
    return rc ? rc : device->table->stream_sync(h->stream, err);
}

/* Five, or as many values as the last output has for a picture. */
static int topk_of(const struct sac_net *net)
{
    struct sac_shape shape = {0};
    int last = sac_net_output_count(net) - 1;

    if (last < 0 || !sac_net_blob_shape(net, sac_net_output_name(net, last), &shape))
        return 5;
    return shape.rank > 1 && shape.dim[1] < 5 ? (int)shape.dim[1] : 5;
}

static int load(struct held *h, const char *path, int batch, enum sac_precision precision,
                struct sac_error *err)
{
    const struct sac_net_options net_options = {.phase = SAC_PHASE_TEST};
    const union sac_op_param pixels = {
        .pixels = {.mean = {104, 117, 123, 0}, .scale = 1.0f / 64, .swap = true}};
    struct sac_plan_options options = {
        .batch = batch, .ops = {.precision = precision}, .pixels = &pixels};
    int rc = sac_net_load(&h->net, path, &net_options, err);

    if (rc != 0)
        return rc;
    sac_random_net_fill(h->net, 1);
    options.topk = topk_of(h->net);
    rc = device->table->store_new(device, &h->store, err);
    if (rc == 0)
        rc = device->table->stream_new(device, &h->stream, err);
    if (rc == 0)
        rc = sac_plan_new(&h->plan, h->net, device, h->store, h->stream, &options, err);
    return rc;
}

/* Pixels that are not all alike, and a first run. */
static int fill_and_run(struct held *h, struct sac_error *err)
{
    size_t bytes = bytes_of(sac_plan_input(h->plan, 0));
    int rc = device->table->memory_new(device, SAC_MEMORY_STAGING, bytes, &h->pixels, err);

    if (rc == 0)
        rc = device->table->memory_new(device, SAC_MEMORY_STAGING,
                                       bytes_of(sac_plan_output(h->plan, 0)), &h->pairs, err);
    for (size_t i = 0; rc == 0 && i < bytes; i++)
        ((uint8_t *)h->pixels)[i] = (uint8_t)((uint32_t)i * 2654435761u >> 24);
    if (rc == 0)
        rc = copy_in(h, err);
    return rc ? rc : passes(h, WARM_PASSES, err);
}

static bool precision_of(const char *name, enum sac_precision *ret)
{
    for (int p = SAC_PRECISION_F32; p <= SAC_PRECISION_TF32; p++)
        if (strcmp(name, sac_precision_name((enum sac_precision)p)) == 0) {
            *ret = (enum sac_precision)p;
            return true;
        }
    return false;
}

static int do_open(const char *words, struct sac_buf *out, struct sac_error *err)
{
    char path[1024], name[16];
    int batch, slot = 0, rc;
    enum sac_precision precision;
    uint64_t began_ns = sac_clock_ns();

    if (sscanf(words, "%1023s %9d %15s", path, &batch, name) != 3 || batch < 1 ||
        !precision_of(name, &precision))
        return sac_fail(err, SAC_EINVAL, "expected open PATH BATCH PRECISION");
    while (slot < PLANS_MAX && held[slot].net)
        slot++;
    if (slot == PLANS_MAX)
        return sac_fail(err, SAC_ELIMIT, "%d plans are open", PLANS_MAX);
    rc = load(&held[slot], path, batch, precision, err);
    if (rc == 0)
        rc = fill_and_run(&held[slot], err);
    if (rc != 0) {
        held_done(&held[slot]);
        return rc;
    }
    sac_buf_printf(out, "{\"plan\":%d,\"prepare_s\":%.3f,\"memory_bytes\":%zu,\"weight_bytes\":%zu",
                   slot, (double)(sac_clock_ns() - began_ns) / 1e9,
                   sac_plan_memory_bytes(held[slot].plan),
                   device->table->store_bytes(held[slot].store));
    const struct sac_topk_pair *pair = held[slot].pairs;
    rc = copy_out(&held[slot], err);
    if (rc == 0)
        rc = device->table->stream_sync(held[slot].stream, err);
    sac_buf_printf(out, ",\"likeliest\":[%d,%.6g]}", (int)pair->index, (double)pair->value);
    return rc;
}

static int do_run(const struct held *h, int count, struct sac_buf *out, struct sac_error *err)
{
    uint64_t began_ns = sac_clock_ns();
    int rc = passes(h, count, err);

    sac_buf_printf(out, "{\"ms\":%.6f}", (double)(sac_clock_ns() - began_ns) / 1e6 / count);
    return rc;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int do_trip(const struct held *h, int count, struct sac_buf *out, struct sac_error *err)
{
    double *us = malloc((size_t)count * sizeof *us);
    int rc = us ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (int i = 0; i < count && rc == 0; i++) {
        uint64_t began_ns = sac_clock_ns();
        rc = copy_in(h, err);
        if (rc == 0)
            rc = sac_plan_forward(h->plan, err);
        if (rc == 0)
            rc = copy_out(h, err);
        if (rc == 0)
            rc = device->table->stream_sync(h->stream, err);
        us[i] = (double)(sac_clock_ns() - began_ns) / 1e3;
    }
    if (rc == 0) {
        qsort(us, (size_t)count, sizeof *us, compare_doubles);
        sac_buf_printf(out, "{\"us\":%.3f,\"least_us\":%.3f}", us[count / 2], us[0]);
    }
    free(us);
    return rc;
}

static void do_steps(const struct held *h, struct sac_buf *out)
{
    sac_buf_puts(out, "{\"steps\":[");
    for (int i = 0; i < sac_plan_step_count(h->plan); i++) {
        struct sac_plan_step step;
        sac_plan_step(h->plan, i, &step);
        sac_buf_puts(out, i ? ",[" : "[");
        sac_buf_put_json(out, step.name, strlen(step.name));
        sac_buf_puts(out, ",");
        sac_buf_put_json(out, step.kernel, strlen(step.kernel));
        sac_buf_puts(out, "]");
    }
    sac_buf_puts(out, "]}");
}

/* What is asked of a plan that is open. */
static int do_held(const char *what, const char *words, struct sac_buf *out, struct sac_error *err)
{
    int slot, count = 1;

    if (sscanf(words, "%9d %9d", &slot, &count) < 1 || slot < 0 || slot >= PLANS_MAX ||
        !held[slot].net || count < 1 || count > COUNT_MAX)
        return sac_fail(err, SAC_EINVAL, "expected the number of an open plan, and a count");
    if (strcmp(what, "run") == 0)
        return do_run(&held[slot], count, out, err);
    if (strcmp(what, "trip") == 0)
        return do_trip(&held[slot], count, out, err);
    if (strcmp(what, "steps") == 0) {
        do_steps(&held[slot], out);
        return 0;
    }
    if (strcmp(what, "close") != 0)
        return sac_fail(err, SAC_EINVAL, "\"%s\" is not understood", what);
    held_done(&held[slot]);
    sac_buf_puts(out, "{}");
    return 0;
}

static void answer(const char *line)
{
    struct sac_error err = {0};
    struct sac_buf out = {0};
    char what[16] = "";
    int at = 0, rc = 0;

    sscanf(line, "%15s %n", what, &at);
    if (strcmp(what, "device") == 0)
        sac_buf_printf(&out, "{\"name\":\"%s\",\"description\":\"%s\"}", device->info.name,
                       device->info.description);
    else if (strcmp(what, "open") == 0)
        rc = do_open(line + at, &out, &err);
    else
        rc = do_held(what, line + at, &out, &err);
    if (rc != 0) {
        out.len = 0;
        sac_buf_puts(&out, "{\"error\":");
        sac_buf_put_json(&out, err.text, strlen(err.text));
        sac_buf_puts(&out, "}");
    }
    printf("%.*s\n", (int)out.len, (const char *)out.data);
    fflush(stdout);
    sac_buf_done(&out);
}

int main(int argc, char **argv)
{
    struct sac_error err = {0};
    char line[2048];

    if (sac_device_open(&device, argc > 1 ? argv[1] : "cuda:0", &err) != 0) {
        fprintf(stderr, "time_plans: %s\n", err.text);
        return 1;
    }
    while (fgets(line, sizeof line, stdin))
        answer(line);
    for (int i = 0; i < PLANS_MAX; i++)
        if (held[i].net)
            held_done(&held[i]);
    sac_device_close(device);
    return 0;
}
