#include "train/evaluate.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct bin {
    int64_t items, correct;
    double confidence; /* their sum */
};

struct sac_evaluation {
    int classes;
    int64_t items, ignored, top1, topk;
    double loss;                         /* the sum */
    int64_t *seen, *predicted, *correct; /* one a class */
    int64_t *confusion;                  /* classes × classes, or NULL */
    struct bin bins[SAC_EVALUATION_BINS];
};

/* ---- Items of a batch ------------------------------------------------------ */

static int64_t item_count(const struct sac_scores *s)
{
    return s->outer * s->inner;
}

/* Class 0's value of an item; the next class's is `inner` further. */
static const float *item_values(const struct sac_scores *s, int64_t item)
{
    return s->values + item / s->inner * s->classes * s->inner + item % s->inner;
}

static bool counts(const struct sac_scores *s, int64_t item)
{
    return !s->ignores || s->labels[item] != (float)s->ignore_label;
}

static int check_item(const struct sac_scores *s, int64_t item, struct sac_error *err)
{
    const float *values = s->values ? item_values(s, item) : NULL;
    float label = s->labels[item];

    if (!(label >= 0 && label < (float)s->classes && label == floorf(label)))
        return sac_fail(err, SAC_EINVAL, "label %g; expected 0 to %d", (double)label,
                        s->classes - 1);
    for (int c = 0; values && c < s->classes; c++) {
        if (!isfinite(values[c * s->inner]))
            return sac_fail(err, SAC_EINVAL, "the net's value of class %d is %g", c,
                            (double)values[c * s->inner]);
    }
    return 0;
}

int sac_scores_check(const struct sac_scores *scores, int64_t *ret_item, struct sac_error *err)
{
    int rc = 0;

    for (int64_t i = 0; rc == 0 && i < item_count(scores); i++) {
        rc = counts(scores, i) ? check_item(scores, i, err) : 0;
        if (rc < 0 && ret_item)
            *ret_item = i;
    }
    return rc;
}

/* Values as large as the label's or larger, but for itself. */
static int64_t better_than_label(const struct sac_scores *s, int64_t item)
{
    const float *values = item_values(s, item);
    float own = values[(int64_t)s->labels[item] * s->inner];
    int64_t better = -1;

    for (int c = 0; c < s->classes; c++)
        better += values[c * s->inner] >= own;
    return better;
}

static int largest(const struct sac_scores *s, int64_t item)
{
    const float *values = item_values(s, item);
    int best = 0;

    for (int c = 1; c < s->classes; c++)
        best = values[c * s->inner] > values[best * s->inner] ? c : best;
    return best;
}

/* p = weight · e^(value − top); `top` and `weight` of one item. */
struct softmax {
    double top, weight;
};

static struct softmax softmax_of(const struct sac_scores *s, int64_t item)
{
    const float *values = item_values(s, item);
    double top = (double)values[largest(s, item) * s->inner], sum = 0;

    for (int c = 0; c < s->classes; c++)
        sum += exp((double)values[c * s->inner] - top);
    return (struct softmax){top, 1 / sum};
}

static double probability(const struct sac_scores *s, int64_t item, const struct softmax *softmax,
                          int class)
{
    double value = (double)item_values(s, item)[class * s->inner];

    return s->probabilities ? value : softmax->weight * exp(value - softmax->top);
}

static struct softmax softmax_if_scores(const struct sac_scores *s, int64_t item)
{
    return s->probabilities ? (struct softmax){0} : softmax_of(s, item);
}

static double loss_of(double p)
{
    return -log(p > (double)FLT_MIN ? p : (double)FLT_MIN);
}

void sac_scores_softmax(const struct sac_scores *scores, int64_t item, float *ret)
{
    struct softmax softmax = softmax_if_scores(scores, item);

    for (int c = 0; c < scores->classes; c++)
        ret[c] = (float)probability(scores, item, &softmax, c);
}

/* ---- Adding up ------------------------------------------------------------- */

int sac_evaluation_new(struct sac_evaluation **ret, int classes, struct sac_error *err)
{
    struct sac_evaluation *e = calloc(1, sizeof *e);
    size_t room = (size_t)classes;

    if (e) {
        e->classes = classes;
        e->seen = calloc(room, sizeof *e->seen);
        e->predicted = calloc(room, sizeof *e->predicted);
        e->correct = calloc(room, sizeof *e->correct);
        if (classes <= SAC_EVALUATION_CONFUSION_MAX)
            e->confusion = calloc(room * room, sizeof *e->confusion);
    }
    if (!e || !e->seen || !e->predicted || !e->correct ||
        (!e->confusion && classes <= SAC_EVALUATION_CONFUSION_MAX)) {
        sac_evaluation_free(e);
        return sac_fail(err, SAC_ENOMEM, "out of memory for the counts of %d classes", classes);
    }
    *ret = e;
    return 0;
}

void sac_evaluation_free(struct sac_evaluation *evaluation)
{
    if (!evaluation)
        return;
    free(evaluation->seen);
    free(evaluation->predicted);
    free(evaluation->correct);
    free(evaluation->confusion);
    free(evaluation);
}

static void add_to_bin(struct sac_evaluation *e, double confidence, bool correct)
{
    int bin = (int)ceil(confidence * SAC_EVALUATION_BINS) - 1;

    bin = bin < 0 ? 0 : bin;
    bin = bin < SAC_EVALUATION_BINS ? bin : SAC_EVALUATION_BINS - 1;
    e->bins[bin].items++;
    e->bins[bin].correct += correct;
    e->bins[bin].confidence += confidence;
}

static void add_item(struct sac_evaluation *e, const struct sac_scores *scores, int64_t item)
{
    struct softmax softmax = softmax_if_scores(scores, item);
    int label = (int)scores->labels[item], predicted = largest(scores, item);
    int64_t better = better_than_label(scores, item);

    e->items++;
    e->top1 += better < 1;
    e->topk += better < SAC_EVALUATION_TOP_K;
    e->loss += loss_of(probability(scores, item, &softmax, label));
    e->seen[label]++;
    e->predicted[predicted]++;
    e->correct[label] += label == predicted;
    if (e->confusion)
        e->confusion[(size_t)label * (size_t)e->classes + (size_t)predicted]++;
    add_to_bin(e, probability(scores, item, &softmax, predicted), label == predicted);
}

int sac_evaluation_add(struct sac_evaluation *evaluation, const struct sac_scores *scores,
                       struct sac_error *err)
{
    if (scores->classes != evaluation->classes)
        return sac_fail(err, SAC_EINVAL, "scores of %d classes; expected %d", scores->classes,
                        evaluation->classes);
    int rc = sac_scores_check(scores, NULL, err);
    for (int64_t i = 0; rc == 0 && i < item_count(scores); i++) {
        if (counts(scores, i))
            add_item(evaluation, scores, i);
        else
            evaluation->ignored++;
    }
    return rc;
}

/* ---- What it comes to ------------------------------------------------------ */

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

struct sac_class_result sac_evaluation_class(const struct sac_evaluation *e, int index)
{
    struct sac_class_result result = {
        .items = e->seen[index], .predicted = e->predicted[index], .correct = e->correct[index]};

    result.precision = ratio((double)result.correct, (double)result.predicted);
    result.recall = ratio((double)result.correct, (double)result.items);
    result.f1 = ratio(2 * (double)result.correct, (double)(result.items + result.predicted));
    return result;
}

int64_t sac_evaluation_confused(const struct sac_evaluation *e, int label, int predicted)
{
    return e->confusion ? e->confusion[(size_t)label * (size_t)e->classes + (size_t)predicted] : -1;
}

struct sac_calibration_bin sac_evaluation_bin(const struct sac_evaluation *e, int index)
{
    const struct bin *bin = &e->bins[index];

    return (struct sac_calibration_bin){
        .items = bin->items,
        .confidence = ratio(bin->confidence, (double)bin->items),
        .accuracy = ratio((double)bin->correct, (double)bin->items),
    };
}

static void average_classes(const struct sac_evaluation *e, struct sac_evaluation_summary *s)
{
    int classes = 0;

    for (int c = 0; c < e->classes; c++) {
        struct sac_class_result result = sac_evaluation_class(e, c);
        if (result.items == 0)
            continue;
        classes++;
        s->precision += result.precision;
        s->recall += result.recall;
        s->f1 += result.f1;
    }
    s->precision = ratio(s->precision, classes);
    s->recall = ratio(s->recall, classes);
    s->f1 = ratio(s->f1, classes);
}

struct sac_evaluation_summary sac_evaluation_summary(const struct sac_evaluation *e)
{
    double items = (double)e->items;
    struct sac_evaluation_summary s = {
        .items = e->items,
        .ignored = e->ignored,
        .classes = e->classes,
        .top_k = e->classes < SAC_EVALUATION_TOP_K ? e->classes : SAC_EVALUATION_TOP_K,
        .top1 = ratio((double)e->top1, items),
        .topk = ratio((double)e->topk, items),
        .loss = ratio(e->loss, items),
    };

    average_classes(e, &s);
    for (int i = 0; i < SAC_EVALUATION_BINS; i++) {
        struct sac_calibration_bin bin = sac_evaluation_bin(e, i);
        double distance = fabs(bin.accuracy - bin.confidence);
        s.ece += ratio((double)bin.items * distance, items);
        s.mce = distance > s.mce ? distance : s.mce;
    }
    return s;
}

const char *sac_class_name(const struct sac_class_names *names, int index, char *room, size_t size)
{
    if (index < names->count)
        return names->text[index];
    snprintf(room, size, "class %d", index);
    return room;
}

/* ---- The most confused pairs ----------------------------------------------- */

enum { PAIRS_MAX = 10 };

struct pair {
    int label, predicted;
    int64_t items;
};

/* The largest first, of equals the first; returns how many. */
static int most_confused(const struct sac_evaluation *e, struct pair ret[PAIRS_MAX])
{
    int count = 0;

    for (int a = 0; e->confusion && a < e->classes; a++) {
        for (int b = 0; b < e->classes; b++) {
            struct pair pair = {a, b, sac_evaluation_confused(e, a, b)};
            int at = count;
            if (a == b || pair.items == 0)
                continue;
            for (; at > 0 && ret[at - 1].items < pair.items; at--)
                if (at < PAIRS_MAX)
                    ret[at] = ret[at - 1];
            if (at < PAIRS_MAX)
                ret[at] = pair;
            count += count < PAIRS_MAX;
        }
    }
    return count;
}

/* ---- Text ------------------------------------------------------------------ */

enum { MATRIX_TEXT_MAX = 20 }; /* classes: more do not fit a terminal's width */

static void put_classes(struct sac_buf *out, const struct sac_evaluation *e,
                        const struct sac_class_names *names)
{
    char room[32];

    sac_buf_puts(out, "\nprecision  recall      F1    items  class\n");
    for (int c = 0; c < e->classes; c++) {
        struct sac_class_result r = sac_evaluation_class(e, c);
        if (r.items > 0 || r.predicted > 0)
            sac_buf_printf(out, "   %.4f  %.4f  %.4f %8lld  %s\n", r.precision, r.recall, r.f1,
                           (long long)r.items, sac_class_name(names, c, room, sizeof room));
    }
}

static void put_matrix(struct sac_buf *out, const struct sac_evaluation *e,
                       const struct sac_class_names *names)
{
    char room[32];

    sac_buf_puts(out, "\nConfusion, a row a class, a column what it was taken for:\n");
    for (int a = 0; a < e->classes; a++) {
        for (int b = 0; b < e->classes; b++)
            sac_buf_printf(out, "%6lld", (long long)sac_evaluation_confused(e, a, b));
        sac_buf_printf(out, "  %s\n", sac_class_name(names, a, room, sizeof room));
    }
}

static void put_pairs(struct sac_buf *out, const struct sac_evaluation *e,
                      const struct sac_class_names *names)
{
    struct pair pairs[PAIRS_MAX];
    int count = most_confused(e, pairs);
    char a[32], b[32];

    if (count > 0)
        sac_buf_puts(out, "\nMost often taken for another:\n");
    for (int i = 0; i < count; i++)
        sac_buf_printf(out, "%6lld  %s -> %s\n", (long long)pairs[i].items,
                       sac_class_name(names, pairs[i].label, a, sizeof a),
                       sac_class_name(names, pairs[i].predicted, b, sizeof b));
}

static void put_bins(struct sac_buf *out, const struct sac_evaluation *e)
{
    sac_buf_puts(out, "\nconfidence       mean  accuracy    items\n");
    for (int i = 0; i < SAC_EVALUATION_BINS; i++) {
        struct sac_calibration_bin bin = sac_evaluation_bin(e, i);
        if (bin.items > 0)
            sac_buf_printf(out, "%.3f - %.3f  %.4f    %.4f %8lld\n",
                           i / (double)SAC_EVALUATION_BINS, (i + 1) / (double)SAC_EVALUATION_BINS,
                           bin.confidence, bin.accuracy, (long long)bin.items);
    }
}

void sac_evaluation_put_text(struct sac_buf *out, const struct sac_evaluation *evaluation,
                             const struct sac_class_names *names)
{
    struct sac_evaluation_summary s = sac_evaluation_summary(evaluation);

    sac_buf_printf(out, "%lld items, %d classes", (long long)s.items, s.classes);
    if (s.ignored > 0)
        sac_buf_printf(out, ", %lld ignored", (long long)s.ignored);
    sac_buf_printf(out, "\ntop-1 %.4f, top-%d %.4f, loss %.4f\n", s.top1, s.top_k, s.topk, s.loss);
    sac_buf_printf(out, "mean over classes: precision %.4f, recall %.4f, F1 %.4f\n", s.precision,
                   s.recall, s.f1);
    sac_buf_printf(out, "calibration: expected error %.4f, largest %.4f (%d bins)\n", s.ece, s.mce,
                   SAC_EVALUATION_BINS);
    put_classes(out, evaluation, names);
    if (evaluation->classes <= MATRIX_TEXT_MAX)
        put_matrix(out, evaluation, names);
    put_pairs(out, evaluation, names);
    put_bins(out, evaluation);
}

/* ---- JSON ------------------------------------------------------------------ */

enum { MATRIX_JSON_MAX = 1000 };

/* A folder's name may be no UTF-8: the class is called by its number then. */
static json_t *name_json(const struct sac_class_names *names, int index)
{
    static const struct sac_class_names none;
    char room[32];
    json_t *name = json_string(sac_class_name(names, index, room, sizeof room));

    return name ? name : json_string(sac_class_name(&none, index, room, sizeof room));
}

static json_t *classes_json(const struct sac_evaluation *e, const struct sac_class_names *names)
{
    json_t *list = json_array();

    for (int c = 0; list && c < e->classes; c++) {
        struct sac_class_result r = sac_evaluation_class(e, c);
        json_array_append_new(list, json_pack("{s:o, s:I, s:I, s:I, s:f, s:f, s:f}", "name",
                                              name_json(names, c), "items", (json_int_t)r.items,
                                              "predicted", (json_int_t)r.predicted, "correct",
                                              (json_int_t)r.correct, "precision", r.precision,
                                              "recall", r.recall, "f1", r.f1));
    }
    return list;
}

static json_t *matrix_json(const struct sac_evaluation *e)
{
    json_t *rows = e->classes <= MATRIX_JSON_MAX ? json_array() : json_null();

    for (int a = 0; json_is_array(rows) && a < e->classes; a++) {
        json_t *row = json_array();
        for (int b = 0; row && b < e->classes; b++)
            json_array_append_new(row, json_integer(sac_evaluation_confused(e, a, b)));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *pairs_json(const struct sac_evaluation *e)
{
    struct pair pairs[PAIRS_MAX];
    int count = most_confused(e, pairs);
    json_t *list = json_array();

    for (int i = 0; list && i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:i, s:i, s:I}", "class", pairs[i].label, "predicted",
                                        pairs[i].predicted, "items", (json_int_t)pairs[i].items));
    return list;
}

static json_t *bins_json(const struct sac_evaluation *e)
{
    json_t *list = json_array();

    for (int i = 0; list && i < SAC_EVALUATION_BINS; i++) {
        struct sac_calibration_bin bin = sac_evaluation_bin(e, i);
        json_array_append_new(list, json_pack("{s:f, s:f, s:I, s:f, s:f}", "from",
                                              i / (double)SAC_EVALUATION_BINS, "to",
                                              (i + 1) / (double)SAC_EVALUATION_BINS, "items",
                                              (json_int_t)bin.items, "confidence", bin.confidence,
                                              "accuracy", bin.accuracy));
    }
    return list;
}

json_t *sac_evaluation_json(const struct sac_evaluation *evaluation,
                            const struct sac_class_names *names)
{
    struct sac_evaluation_summary s = sac_evaluation_summary(evaluation);

    return json_pack("{s:I, s:I, s:f, s:i, s:f, s:f, s:f, s:f, s:f,"
                     " s:{s:f, s:f, s:o}, s:o, s:o, s:o}",
                     "items", (json_int_t)s.items, "ignored", (json_int_t)s.ignored, "top1", s.top1,
                     "top_k", s.top_k, "topk", s.topk, "loss", s.loss, "precision", s.precision,
                     "recall", s.recall, "f1", s.f1, "calibration", "ece", s.ece, "mce", s.mce,
                     "bins", bins_json(evaluation), "classes", classes_json(evaluation, names),
                     "confusion", matrix_json(evaluation), "most_confused", pairs_json(evaluation));
}
