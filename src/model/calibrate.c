#include "model/calibrate.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "net/plan.h"

enum { BINS = SAC_CALIBRATION_BINS };

/* ---- Counting ---- */

/* The same bins, over twice the range. */
static void widen(struct sac_histogram_of_sizes *sizes)
{
    for (int i = 0; i < BINS / 2; i++)
        sizes->bins[i] = sizes->bins[2 * i] + sizes->bins[2 * i + 1];
    memset(sizes->bins + BINS / 2, 0, BINS / 2 * sizeof *sizes->bins);
    sizes->top *= 2;
}

/* Zeros cost nothing in any range, and are not counted. */
void sac_sizes_add(struct sac_histogram_of_sizes *sizes, const float *x, int64_t count)
{
    float most = 0;

    for (int64_t i = 0; i < count; i++) {
        float size = fabsf(x[i]);
        most = size > most && size <= 3e38f ? size : most;
        sizes->negative |= x[i] < 0;
    }
    if (most == 0)
        return;
    if (sizes->top == 0) /* a bin's width has a reciprocal */
        sizes->top = fmaxf(most * 1.01f, FLT_MIN * BINS);
    while (most >= sizes->top)
        widen(sizes);
    sizes->most = most > sizes->most ? most : sizes->most;
    float by = BINS / sizes->top;
    for (int64_t i = 0; i < count; i++) {
        float size = fabsf(x[i]);
        if (!(size > 0) || size > most)
            continue;
        int bin = (int)(size * by);
        sizes->bins[bin < BINS ? bin : BINS - 1]++;
    }
}

/* ---- Choosing ---- */

/* What a range that ends behind `bins` bins costs. */
static double cost_of(const struct sac_histogram_of_sizes *sizes, int bins)
{
    double width = (double)sizes->top / BINS, end = bins * width;
    double step = end / (sizes->negative ? 127 : 255), cost = 0;
    double within = 0;

    for (int i = 0; i < bins; i++)
        within += (double)sizes->bins[i];
    for (int i = bins; i < BINS; i++) {
        double beyond = (i + .5) * width - end;
        cost += (double)sizes->bins[i] * beyond * beyond;
    }
    return cost + within * step * step / 12;
}

float sac_sizes_end(const struct sac_histogram_of_sizes *sizes, enum sac_calibration_rule rule)
{
    double least = INFINITY;
    int best = BINS;

    if (rule == SAC_CALIBRATE_MAX || sizes->top == 0)
        return sizes->most;
    for (int bins = BINS / 32; bins <= BINS; bins++) {
        double cost = cost_of(sizes, bins);
        if (cost < least) {
            least = cost;
            best = bins;
        }
    }
    return fminf((float)best * sizes->top / BINS, sizes->most);
}

/* ---- Running ---- */

struct sac_calibration {
    struct sac_device *device;
    struct sac_store *store;
    struct sac_stream *stream;
    struct sac_plan *plan;
    char **names; /* one a blob: the plan's outputs */
    struct sac_histogram_of_sizes *sizes;
    float *host; /* room for the largest blob */
    int count;
};

static int out_of_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory for calibrating a net");
}

/* An input, or what a layer makes, as the last that has its name. */
static bool is_blob(const struct sac_graph *graph, int value)
{
    for (int v = value + 1; v < graph->value_count; v++)
        if (strcmp(graph->values[v].name, graph->values[value].name) == 0)
            return false;
    return true;
}

static int name_blobs(struct sac_calibration *c, const struct sac_net *net, struct sac_error *err)
{
    struct sac_graph *graph = NULL;
    int rc = sac_net_graph(net, 1, NULL, 0, &graph, err);

    if (rc != 0)
        return rc;
    c->names = calloc((size_t)graph->value_count + 1, sizeof *c->names);
    for (int v = 0; v < graph->value_count && c->names; v++) {
        if (!is_blob(graph, v))
            continue;
        c->names[c->count] = strdup(graph->values[v].name);
        if (!c->names[c->count++])
            rc = out_of_memory(err);
    }
    if (!c->names)
        rc = out_of_memory(err);
    else if (rc == 0 && c->count == 0)
        rc = sac_fail(err, SAC_EINVAL, "net %s: no layer to calibrate", sac_net_name(net));
    sac_graph_free(graph);
    return rc;
}

static int make_plan(struct sac_calibration *c, const struct sac_net *net,
                     const union sac_op_param *pixels, struct sac_error *err)
{
    const struct sac_device_table *table = c->device->table;
    struct sac_plan_options options = {.batch = 1,
                                       .pixels = pixels,
                                       .wanted = (const char *const *)c->names,
                                       .wanted_count = c->count};
    int rc = table->store_new(c->device, &c->store, err);

    if (rc == 0)
        rc = table->stream_new(c->device, &c->stream, err);
    if (rc == 0)
        rc = sac_plan_new(&c->plan, net, c->device, c->store, c->stream, &options, err);
    return rc;
}

static int make_room(struct sac_calibration *c, struct sac_error *err)
{
    int64_t most = 1;

    for (int i = 0; i < c->count; i++) {
        int64_t count = sac_shape_count(&sac_plan_output(c->plan, i)->shape);
        most = count > most ? count : most;
    }
    c->host = reallocarray(NULL, (size_t)most, sizeof *c->host);
    c->sizes = calloc((size_t)c->count, sizeof *c->sizes);
    return c->host && c->sizes ? 0 : out_of_memory(err);
}

int sac_calibration_new(struct sac_calibration **ret, const struct sac_net *net,
                        struct sac_device *device, const union sac_op_param *pixels,
                        struct sac_error *err)
{
    struct sac_calibration *c = calloc(1, sizeof *c);

    if (!c)
        return out_of_memory(err);
    c->device = device;
    int rc = name_blobs(c, net, err);
    if (rc == 0)
        rc = make_plan(c, net, pixels, err);
    if (rc == 0)
        rc = make_room(c, err);
    if (rc == 0)
        *ret = c;
    else
        sac_calibration_free(c);
    return rc;
}

void sac_calibration_free(struct sac_calibration *c)
{
    if (!c)
        return;
    sac_plan_free(c->plan);
    if (c->stream)
        c->device->table->stream_free(c->stream);
    c->device->table->store_free(c->store);
    for (int i = 0; i < c->count; i++)
        free(c->names[i]);
    free(c->names);
    free(c->sizes);
    free(c->host);
    free(c);
}

static int count_blob(struct sac_calibration *c, int index, struct sac_error *err)
{
    const struct sac_device_table *table = c->device->table;
    const struct sac_tensor *value = sac_plan_output(c->plan, index);
    int64_t count = sac_shape_count(&value->shape);
    int rc = table->copy(c->stream, SAC_COPY_TO_HOST, c->host, value->data,
                         (size_t)count * sizeof *c->host, err);

    if (rc == 0)
        rc = table->stream_sync(c->stream, err);
    if (rc == 0)
        sac_sizes_add(&c->sizes[index], c->host, count);
    return rc;
}

int sac_calibration_add(struct sac_calibration *c, const void *input, struct sac_error *err)
{
    const struct sac_tensor *to = sac_plan_input(c->plan, 0);
    int rc = c->device->table->copy(c->stream, SAC_COPY_TO_DEVICE, to->data, input,
                                    sac_tensor_bytes(&to->shape, to->form.type), err);

    if (rc == 0)
        rc = sac_plan_forward(c->plan, err);
    for (int i = 0; i < c->count && rc == 0; i++)
        rc = count_blob(c, i, err);
    return rc;
}

int sac_calibration_ranges(const struct sac_calibration *c, enum sac_calibration_rule rule,
                           struct sac_ranges *ret, struct sac_error *err)
{
    struct sac_ranges ranges = {0};

    ranges.blobs = calloc((size_t)c->count, sizeof *ranges.blobs);
    if (!ranges.blobs)
        return out_of_memory(err);
    for (int i = 0; i < c->count; i++) {
        float end = sac_sizes_end(&c->sizes[i], rule);
        struct sac_range *range = &ranges.blobs[ranges.blob_count];
        if (!(end > 0))
            continue;
        *range = (struct sac_range){strdup(c->names[i]), c->sizes[i].negative ? -end : 0, end};
        if (!range->name) {
            sac_ranges_done(&ranges);
            return out_of_memory(err);
        }
        ranges.blob_count++;
    }
    *ret = ranges;
    return 0;
}
