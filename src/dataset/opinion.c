#include "dataset/opinion.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "dataset/pipeline.h"
#include "model/classifier.h"
#include "net/layer.h"
#include "net/plan.h"

enum { WIDTH_MAX = 1024, NEIGHBOURS = 10, CLASS_MIN = 5 };
#define RIDGE 0.3
#define MARGIN 0.3f
#define OWN_MAX 0.3f

struct opinion {
    const struct sac_opinion_item *items;
    int64_t count;
    const struct sac_opinion_options *options;
    struct sac_model *model;
    struct sac_device *device;
    struct sac_store *store;
    const char *blob; /* that describes a picture; NULL: the model's own answer */
    int width;        /* values of a description, or classes */
    float *values;    /* count × width */
    bool *seen;       /* count: those that could be decoded */
};

/* ---- The model looks -------------------------------------------------------- */

struct worker {
    struct opinion *opinion;
    struct sac_stream *stream;
    struct sac_plan *plan;
    struct sac_decoder *decoder;
    struct sac_item item;
    uint8_t *pixels;
    void *out; /* what the plan gives, in staging memory */
    size_t picture_bytes, out_bytes;
};

static void worker_free(void *memory)
{
    struct worker *worker = memory;

    if (!worker)
        return;
    struct sac_device *device = worker->opinion->device;
    sac_plan_free(worker->plan);
    if (worker->pixels)
        device->table->memory_free(device, SAC_MEMORY_STAGING, worker->pixels);
    if (worker->out)
        device->table->memory_free(device, SAC_MEMORY_STAGING, worker->out);
    sac_decoder_free(worker->decoder);
    device->table->stream_free(worker->stream);
    sac_item_done(&worker->item);
    free(worker);
}

static int make_plan(struct worker *worker, struct sac_error *err)
{
    const struct opinion *opinion = worker->opinion;
    const struct sac_preprocess *how = sac_model_preprocess(opinion->model);
    union sac_op_param pixels = sac_model_pixels(opinion->model);
    struct sac_plan_options options = {
        .batch = 1,
        .ops = {.precision = sac_model_precision(opinion->model, opinion->device),
                .ranges = sac_model_ranges(opinion->model)},
        .pixels = &pixels,
        .topk = opinion->blob ? 0 : sac_model_class_count(opinion->model),
        .wanted = &opinion->blob,
        .wanted_count = opinion->blob ? 1 : 0};

    worker->picture_bytes =
        (size_t)how->crop_height * (size_t)how->crop_width * (size_t)how->channels;
    return sac_plan_new(&worker->plan, sac_model_net(opinion->model), opinion->device,
                        opinion->store, worker->stream, &options, err);
}

static int make_worker(struct worker *worker, struct sac_error *err)
{
    struct sac_device *device = worker->opinion->device;
    void *memory = NULL;
    int rc = device->table->stream_new(device, &worker->stream, err);

    if (rc == 0)
        rc = sac_decoder_new(&worker->decoder, err);
    if (rc == 0)
        rc = make_plan(worker, err);
    if (rc < 0)
        return rc;
    const struct sac_tensor *out = sac_plan_output(worker->plan, 0);
    worker->out_bytes = sac_tensor_bytes(&out->shape, out->form.type);
    rc = device->table->memory_new(device, SAC_MEMORY_STAGING, worker->picture_bytes, &memory, err);
    worker->pixels = memory;
    memory = NULL;
    if (rc == 0)
        rc = device->table->memory_new(device, SAC_MEMORY_STAGING, worker->out_bytes, &memory, err);
    worker->out = memory;
    return rc;
}

static int worker_new(void *user, void **ret, struct sac_error *err)
{
    struct worker *worker = calloc(1, sizeof *worker);

    if (!worker)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    worker->opinion = user;
    int rc = make_worker(worker, err);
    if (rc == 0)
        *ret = worker;
    else
        worker_free(worker);
    return rc;
}

/* Means over the picture, roots drawn; wide ones folded by random signs, which keeps
 * angles. */
static void describe(const struct worker *worker, float *to)
{
    const struct sac_shape *shape = &sac_plan_output(worker->plan, 0)->shape;
    int64_t channels = shape->rank > 1 ? shape->dim[1] : 1;
    int64_t area = sac_shape_count_between(shape, 2, shape->rank);
    const float *from = worker->out;

    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t i = 0; i < area; i++)
            sum += (double)from[c * area + i];
        float mean = (float)(sum / (double)area);
        float value = copysignf(sqrtf(fabsf(mean)), mean);
        bool minus = channels > WIDTH_MAX && (sac_random_mix((uint64_t)c) & 1);
        to[c % worker->opinion->width] += minus ? -value : value;
    }
}

static void answer(const struct worker *worker, float *to)
{
    const struct sac_topk_pair *pairs = worker->out;

    for (int i = 0; i < worker->opinion->width; i++)
        to[pairs[i].index] = pairs[i].value;
}

static int look(struct worker *worker, const struct sac_opinion_item *item, struct sac_error *err)
{
    const struct sac_device_table *table = worker->opinion->device->table;
    int rc = sac_source_item(item->source, item->index, &worker->item, err);

    if (rc == 0 && worker->item.kind != SAC_ITEM_ENCODED)
        rc = sac_fail(err, SAC_EUNSUPPORTED,
                      "a model looks at encoded pictures; convert the set with --encoding png");
    if (rc == 0)
        rc =
            sac_preprocess_pixels(sac_model_preprocess(worker->opinion->model), worker->decoder,
                                  worker->item.bytes, worker->item.size, NULL, worker->pixels, err);
    if (rc == 0)
        rc = table->copy(worker->stream, SAC_COPY_TO_DEVICE, sac_plan_input(worker->plan, 0)->data,
                         worker->pixels, worker->picture_bytes, err);
    if (rc == 0)
        rc = sac_plan_forward(worker->plan, err);
    if (rc == 0)
        rc = table->copy(worker->stream, SAC_COPY_TO_HOST, worker->out,
                         sac_plan_output(worker->plan, 0)->data, worker->out_bytes, err);
    return rc ? rc : table->stream_sync(worker->stream, err);
}

static int work(void *user, void *memory, int64_t index, void *slot, struct sac_error *err)
{
    struct opinion *opinion = user;
    struct worker *worker = memory;
    struct sac_error failed = {0};
    float *to = opinion->values + index * opinion->width;
    int rc = look(worker, &opinion->items[index], &failed);

    (void)slot;
    opinion->seen[index] = rc == 0;
    if (rc == 0 && opinion->blob)
        describe(worker, to);
    else if (rc == 0)
        answer(worker, to);
    else if (worker->item.kind != SAC_ITEM_ENCODED ||
             (!sac_source_is_corrupt(rc) && rc != SAC_ENOENT))
        return sac_fail(err, rc, "%s", failed.text);
    return 0;
}

static int take(void *user, int64_t index, void *slot, struct sac_error *err)
{
    (void)user;
    (void)index;
    (void)slot;
    (void)err;
    return 0;
}

/* ---- Leave one out ---------------------------------------------------------- */

/* L of L·Lᵀ in place of the lower half; false: not positive. */
static bool factor(double *a, int n)
{
    for (int j = 0; j < n; j++) {
        for (int i = j; i < n; i++) {
            double sum = a[i * n + j];
            for (int k = 0; k < j; k++)
                sum -= a[i * n + k] * a[j * n + k];
            if (i == j && !(sum > 0))
                return false;
            a[i * n + j] = i == j ? sqrt(sum) : sum / a[j * n + j];
        }
    }
    return true;
}

static void solve_lower(const double *l, int n, double *x)
{
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++)
            x[i] -= l[i * n + k] * x[k];
        x[i] /= l[i * n + i];
    }
}

static void solve_upper(const double *l, int n, double *x)
{
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++)
            x[i] -= l[k * n + i] * x[k];
        x[i] /= l[i * n + i];
    }
}

/* Columns around 0, all values together of deviation 1; the last column is 1. */
static int standardise(float *x, int64_t count, int width, struct sac_error *err)
{
    double *mean = calloc((size_t)width, sizeof *mean), square = 0;

    if (!mean)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int64_t i = 0; i < count; i++) {
        for (int j = 0; j < width; j++)
            mean[j] += (double)x[i * width + j] / (double)count;
    }
    for (int64_t i = 0; i < count; i++) {
        for (int j = 0; j < width; j++) {
            x[i * width + j] -= (float)mean[j];
            square += (double)x[i * width + j] * (double)x[i * width + j];
        }
    }
    float scale = (float)(1 / (sqrt(square / ((double)count * width)) + 1e-9));
    for (int64_t i = 0; i < count * width; i++)
        x[i] *= scale;
    free(mean);
    return 0;
}

/* XᵀX with the ridge, and XᵀY; X has a column of ones behind it. */
static void gather(const float *x, int64_t count, int width, const int32_t *labels, double *gram,
                   double *weights)
{
    int n = width + 1;

    for (int64_t i = 0; i < count; i++) {
        const float *row = x + i * width;
        for (int j = 0; j < n; j++) {
            double value = j < width ? (double)row[j] : 1;
            for (int k = 0; k <= j; k++)
                gram[j * n + k] += value * (k < width ? (double)row[k] : 1);
            weights[(int64_t)labels[i] * n + j] += value;
        }
    }
    for (int j = 0; j < n; j++)
        gram[j * n + j] += RIDGE * (double)count;
}

static void score(const float *x, int64_t count, int width, const int32_t *labels, int classes,
                  const double *l, const double *weights, double *row, float *scores)
{
    int n = width + 1;

    for (int64_t i = 0; i < count; i++) {
        double leverage = 0;
        for (int j = 0; j < n; j++)
            row[j] = j < width ? (double)x[i * width + j] : 1;
        for (int c = 0; c < classes; c++) {
            double sum = 0;
            for (int j = 0; j < n; j++)
                sum += row[j] * weights[(int64_t)c * n + j];
            scores[i * classes + c] = (float)sum;
        }
        solve_lower(l, n, row);
        for (int j = 0; j < n; j++)
            leverage += row[j] * row[j];
        for (int c = 0; c < classes; c++) {
            double truth = c == labels[i];
            scores[i * classes + c] =
                (float)(((double)scores[i * classes + c] - leverage * truth) / (1 - leverage));
        }
    }
}

int sac_opinion_leave_one_out(float *x, int64_t count, int width, const int32_t *labels,
                              int classes, float *scores, struct sac_error *err)
{
    size_t n = (size_t)width + 1;
    double *gram = calloc(n * n, sizeof *gram), *row = calloc(n, sizeof *row);
    double *weights = calloc((size_t)classes * n, sizeof *weights);
    int rc = gram && row && weights ? standardise(x, count, width, err)
                                    : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0) {
        gather(x, count, width, labels, gram, weights);
        if (!factor(gram, (int)n))
            rc = sac_fail(err, SAC_EINVAL, "the model's description of the pictures is no number");
    }
    for (int c = 0; rc == 0 && c < classes; c++) {
        solve_lower(gram, (int)n, weights + (size_t)c * n);
        solve_upper(gram, (int)n, weights + (size_t)c * n);
    }
    if (rc == 0)
        score(x, count, width, labels, classes, gram, weights, row, scores);
    free(weights);
    free(row);
    free(gram);
    return rc;
}

/* ---- Doubts ----------------------------------------------------------------- */

struct doubts {
    struct sac_doubt *all;
    int64_t count, cap;
};

static int add_doubt(struct doubts *doubts, struct sac_doubt doubt, struct sac_error *err)
{
    if (doubts->count == doubts->cap) {
        int64_t cap = doubts->cap ? 2 * doubts->cap : 64;
        struct sac_doubt *all = reallocarray(doubts->all, (size_t)cap, sizeof *all);
        if (!all)
            return sac_fail(err, SAC_ENOMEM, "out of memory");
        doubts->all = all;
        doubts->cap = cap;
    }
    doubts->all[doubts->count++] = doubt;
    return 0;
}

static int best_other(const float *scores, int classes, int own)
{
    int best = own == 0;

    for (int c = 0; c < classes; c++) {
        if (c != own && scores[c] > scores[best])
            best = c;
    }
    return best;
}

/* The cosine of two descriptions, which are around 0. */
static float likeness(const float *a, const float *b, int width)
{
    float product = 0, aa = 0, bb = 0;

    for (int i = 0; i < width; i++) {
        product += a[i] * b[i];
        aa += a[i] * a[i];
        bb += b[i] * b[i];
    }
    return product / (sqrtf(aa * bb) + 1e-9f);
}

/* How many of the most alike have the one label, and the other. */
static void count_neighbours(const float *x, int64_t count, int width, const int32_t *labels,
                             int64_t item, int32_t other, int *ret_own, int *ret_other)
{
    float best[NEIGHBOURS];
    int32_t near[NEIGHBOURS];
    int held = 0;

    for (int64_t i = 0; i < count; i++) {
        float value = i == item ? -2 : likeness(x + item * width, x + i * width, width);
        int at = held < NEIGHBOURS ? held++ : NEIGHBOURS;
        for (; at > 0 && best[at - 1] < value; at--) {
            if (at < NEIGHBOURS) {
                best[at] = best[at - 1];
                near[at] = near[at - 1];
            }
        }
        if (at < NEIGHBOURS) {
            best[at] = value;
            near[at] = labels[i];
        }
    }
    *ret_own = *ret_other = 0;
    for (int i = 0; i < held; i++) {
        *ret_own += near[i] == labels[item];
        *ret_other += near[i] == other;
    }
}

/* Rows of pictures that were seen, of classes that have enough, close up. */
static int64_t close_up(struct opinion *opinion, int32_t *labels, int64_t *from)
{
    int *sizes = calloc((size_t)opinion->options->classes, sizeof *sizes);
    int64_t count = 0;

    for (int64_t i = 0; sizes && i < opinion->count; i++)
        sizes[opinion->items[i].label] += opinion->seen[i];
    for (int64_t i = 0; sizes && i < opinion->count; i++) {
        if (!opinion->seen[i] || sizes[opinion->items[i].label] < CLASS_MIN)
            continue;
        memmove(opinion->values + count * opinion->width, opinion->values + i * opinion->width,
                (size_t)opinion->width * sizeof(float));
        labels[count] = opinion->items[i].label;
        from[count++] = i;
    }
    free(sizes);
    return count;
}

static int doubt_by_looks(struct opinion *opinion, struct doubts *doubts, struct sac_error *err)
{
    int classes = opinion->options->classes, width = opinion->width;
    int32_t *labels = calloc((size_t)opinion->count, sizeof *labels);
    int64_t *from = calloc((size_t)opinion->count, sizeof *from);
    int64_t count = labels && from ? close_up(opinion, labels, from) : 0;
    float *scores = calloc((size_t)count * (size_t)classes + 1, sizeof *scores);
    int rc = labels && from && scores ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0 && count > 0)
        rc = sac_opinion_leave_one_out(opinion->values, count, width, labels, classes, scores, err);
    for (int64_t i = 0; rc == 0 && i < count; i++) {
        const float *row = scores + i * classes;
        int other = best_other(row, classes, labels[i]), own_near, other_near;
        if (row[other] - row[labels[i]] <= MARGIN || row[labels[i]] >= OWN_MAX)
            continue;
        count_neighbours(opinion->values, count, width, labels, i, other, &own_near, &other_near);
        if (own_near <= 2 && other_near >= 2)
            rc = add_doubt(doubts, (struct sac_doubt){from[i], other, row[labels[i]], row[other]},
                           err);
    }
    free(scores);
    free(from);
    free(labels);
    return rc;
}

static int doubt_by_answers(struct opinion *opinion, struct doubts *doubts, struct sac_error *err)
{
    int rc = 0;

    for (int64_t i = 0; rc == 0 && i < opinion->count; i++) {
        const float *row = opinion->values + i * opinion->width;
        int own = opinion->items[i].label, other = best_other(row, opinion->width, own);
        if (opinion->seen[i] && row[own] < .05f && row[other] > .8f)
            rc = add_doubt(doubts, (struct sac_doubt){i, other, row[own], row[other]}, err);
    }
    return rc;
}

static int by_margin(const void *a, const void *b)
{
    const struct sac_doubt *x = a, *y = b;
    float first = x->other_score - x->own_score, second = y->other_score - y->own_score;

    return (first < second) - (first > second);
}

/* ---- Put together ----------------------------------------------------------- */

/* The model was trained for these classes. */
static bool knows_classes(const struct opinion *opinion)
{
    const struct sac_labels *labels = opinion->options->labels;
    int count = sac_model_class_count(opinion->model);

    if (count != opinion->options->classes || !labels || labels->count != count)
        return false;
    for (int i = 0; i < count; i++) {
        if (strcmp(labels->text[i], sac_model_label(opinion->model, i)) != 0)
            return false;
    }
    return true;
}

static int settle(struct opinion *opinion, struct sac_error *err)
{
    const struct sac_net *net = sac_model_net(opinion->model);
    struct sac_shape shape;

    opinion->width = opinion->options->classes;
    if (knows_classes(opinion))
        return 0;
    opinion->blob = sac_net_last_features(net);
    if (!opinion->blob || !sac_net_blob_shape(net, opinion->blob, &shape))
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%s: no layer with weights, whose input would describe a picture",
                        opinion->options->model);
    int64_t channels = shape.rank > 1 ? shape.dim[1] : 1;
    opinion->width = channels < WIDTH_MAX ? (int)channels : WIDTH_MAX;
    return 0;
}

static int prepare(struct opinion *opinion, struct sac_error *err)
{
    struct sac_model_files files = {.dir = opinion->options->model};
    struct sac_model_overrides none = SAC_MODEL_OVERRIDES_NONE;
    const char *device = opinion->options->device ? opinion->options->device : "auto";
    int rc = sac_model_open(&opinion->model, &files, &none, err);

    if (rc == 0)
        rc = sac_device_open(&opinion->device, device, err);
    if (rc == 0)
        rc = opinion->device->table->store_new(opinion->device, &opinion->store, err);
    if (rc == 0)
        rc = settle(opinion, err);
    if (rc < 0)
        return rc;
    opinion->values =
        calloc((size_t)opinion->count * (size_t)opinion->width + 1, sizeof *opinion->values);
    opinion->seen = calloc((size_t)opinion->count + 1, sizeof *opinion->seen);
    if (!opinion->values || !opinion->seen)
        return sac_fail(err, SAC_ENOMEM, "no memory to judge %lld pictures",
                        (long long)opinion->count);
    return 0;
}

int sac_opinion_of(struct sac_doubt **ret, int64_t *ret_count, const struct sac_opinion_item *items,
                   int64_t count, const struct sac_opinion_options *options, struct sac_error *err)
{
    struct opinion opinion = {.items = items, .count = count, .options = options};
    struct doubts doubts = {0};
    struct sac_pipeline pipeline = {.end = count,
                                    .threads = options->threads,
                                    .slots = 1024,
                                    .worker_new = worker_new,
                                    .worker_free = worker_free,
                                    .work = work,
                                    .take = take};
    int rc = prepare(&opinion, err);

    if (rc == 0)
        rc = sac_pipeline_run(&pipeline, &opinion, err);
    if (rc == 0)
        rc = opinion.blob ? doubt_by_looks(&opinion, &doubts, err)
                          : doubt_by_answers(&opinion, &doubts, err);
    if (opinion.device)
        opinion.device->table->store_free(opinion.store);
    sac_model_unref(opinion.model);
    sac_device_close(opinion.device);
    free(opinion.values);
    free(opinion.seen);
    if (rc == 0) {
        if (doubts.count > 0)
            qsort(doubts.all, (size_t)doubts.count, sizeof *doubts.all, by_margin);
        *ret = doubts.all;
        *ret_count = doubts.count;
    } else {
        free(doubts.all);
    }
    return rc;
}
