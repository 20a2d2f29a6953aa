#include "train/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Text ------------------------------------------------------------------- */

static void put_base64(struct sac_buf *out, const uint8_t *bytes, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t bits = (uint32_t)bytes[i] << 16;
        bits |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        bits |= left > 2 ? bytes[i + 2] : 0;
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                        left > 1 ? digits[bits >> 6 & 63] : '=',
                        left > 2 ? digits[bits & 63] : '='};
        sac_buf_put(out, four, 4);
    }
}

static const char *class_name(const struct sac_report *r, int index, char room[32])
{
    return sac_class_name(r->names, index, room, 32);
}

static void put_class(struct sac_buf *out, const struct sac_report *r, int index)
{
    char room[32];

    sac_buf_put_html(out, class_name(r, index, room));
}

/* ---- Curves ----------------------------------------------------------------- */

enum { WIDTH = 640, HEIGHT = 240, LEFT = 48, RIGHT = 12, TOP = 12, BOTTOM = 30 };

typedef double value_of(const struct sac_report_point *point);

static double train_loss(const struct sac_report_point *p)
{
    return p->train_loss;
}

static double validation_loss(const struct sac_report_point *p)
{
    return p->loss;
}

static double validation_accuracy(const struct sac_report_point *p)
{
    return 100 * p->accuracy;
}

/* What a chart shows: x runs from 0 to the last iteration, y from low to high. */
struct axes {
    int64_t last;
    double low, high;
};

static double x_at(const struct axes *a, int64_t iteration)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * (double)iteration / (double)(a->last > 0 ? a->last : 1);
}

static double y_at(const struct axes *a, double value)
{
    double part = (value - a->low) / (a->high - a->low);

    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * fmin(fmax(part, 0), 1);
}

/* A step of 1, 2 or 5 times a power of ten that cuts the span in about five. */
static double tick(double span)
{
    double power = pow(10, floor(log10(span / 5))), part = span / 5 / power;

    return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static void put_axes(struct sac_buf *out, const struct axes *a, double epoch)
{
    double step = tick(a->high - a->low);
    double unit = epoch > 0 ? epoch : 1, across = tick((double)a->last / unit + 1e-9);

    for (double y = ceil(a->low / step) * step; y <= a->high + 1e-9; y += step)
        sac_buf_printf(out,
                       "<path class=\"grid\" d=\"M%d %.1fH%d\"/>"
                       "<text class=\"y\" x=\"%d\" y=\"%.1f\">%g</text>\n",
                       LEFT, y_at(a, y), WIDTH - RIGHT, LEFT - 6, y_at(a, y) + 4, y);
    for (double x = 0; x * unit <= (double)a->last + 1e-9; x += across)
        sac_buf_printf(out, "<text class=\"x\" x=\"%.1f\" y=\"%d\">%g</text>\n",
                       x_at(a, (int64_t)(x * unit)), HEIGHT - BOTTOM + 16, x);
    sac_buf_printf(out, "<text class=\"x\" x=\"%d\" y=\"%d\">%s</text>\n", WIDTH / 2, HEIGHT - 2,
                   epoch > 0 ? "epoch" : "iteration");
}

static void put_line(struct sac_buf *out, const struct sac_report *r, const struct axes *a,
                     value_of *value, const char *kind)
{
    bool pen = false;

    sac_buf_printf(out, "<path class=\"%s\" d=\"", kind);
    for (int i = 0; i < r->point_count; i++) {
        double y = value(&r->points[i]);
        if (!isfinite(y))
            continue;
        sac_buf_printf(out, "%c%.1f %.1f", pen ? 'L' : 'M', x_at(a, r->points[i].iteration),
                       y_at(a, y));
        pen = true;
    }
    sac_buf_puts(out, "\"/>\n");
}

static void widen(struct axes *a, const struct sac_report *r, value_of *value)
{
    for (int i = 0; i < r->point_count; i++) {
        double y = value(&r->points[i]);
        if (!isfinite(y))
            continue;
        a->low = fmin(a->low, y);
        a->high = fmax(a->high, y);
    }
}

static struct axes axes_of(const struct sac_report *r, value_of *first, value_of *second)
{
    struct axes a = {.low = INFINITY, .high = -INFINITY};

    if (r->point_count > 0)
        a.last = r->points[r->point_count - 1].iteration;
    widen(&a, r, first);
    if (second)
        widen(&a, r, second);
    if (!(a.low < a.high))
        a = (struct axes){a.last, isfinite(a.low) ? a.low - 1 : 0, isfinite(a.low) ? a.low + 1 : 1};
    return a;
}

static void put_chart(struct sac_buf *out, const struct sac_report *r, const char *title,
                      value_of *first, const char *first_name, value_of *second,
                      const char *second_name)
{
    struct axes a = axes_of(r, first, second);

    sac_buf_printf(out, "<figure><figcaption>%s: <b class=\"a\">%s</b>", title, first_name);
    if (second)
        sac_buf_printf(out, ", <b class=\"b\">%s</b>", second_name);
    sac_buf_printf(out, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH, HEIGHT);
    put_axes(out, &a, r->epoch_iterations);
    if (r->best_iteration >= 0)
        sac_buf_printf(out, "<path class=\"best\" d=\"M%.1f %dV%d\"><title>kept</title></path>\n",
                       x_at(&a, r->best_iteration), TOP, HEIGHT - BOTTOM);
    put_line(out, r, &a, first, "a");
    if (second)
        put_line(out, r, &a, second, "b");
    sac_buf_puts(out, "</svg></figure>\n");
}

/* ---- Tables ----------------------------------------------------------------- */

static void put_choices(struct sac_buf *out, const struct sac_tuning_choices *choices)
{
    if (!choices)
        return;
    sac_buf_puts(out, "<h2>What was chosen, and why</h2>\n<table>\n");
    for (int i = 0; i < choices->count; i++) {
        sac_buf_puts(out, "<tr><th>");
        sac_buf_put_html(out, choices->choice[i].name);
        sac_buf_puts(out, "</th><td>");
        sac_buf_put_html(out, choices->choice[i].value);
        sac_buf_puts(out, "</td><td>");
        sac_buf_put_html(out, choices->choice[i].why);
        sac_buf_puts(out, "</td></tr>\n");
    }
    sac_buf_puts(out, "</table>\n");
}

static void put_classes(struct sac_buf *out, const struct sac_report *r, int classes)
{
    sac_buf_puts(out, "<h2>Classes</h2>\n<table class=\"numbers\"><tr><th>class</th>"
                      "<th>pictures</th><th>precision</th><th>recall</th><th>F1</th></tr>\n");
    for (int i = 0; i < classes; i++) {
        struct sac_class_result c = sac_evaluation_class(r->test, i);
        sac_buf_puts(out, "<tr><th>");
        put_class(out, r, i);
        sac_buf_printf(out, "</th><td>%lld</td><td>%.3f</td><td>%.3f</td><td>%.3f</td></tr>\n",
                       (long long)c.items, c.precision, c.recall, c.f1);
    }
    sac_buf_puts(out, "</table>\n");
}

enum { MATRIX_CLASSES_MAX = 200, NAME_MARGIN = 150 };

/* Each class's name beside its row and over its column. */
static void put_matrix_names(struct sac_buf *out, const struct sac_report *r, int classes, int cell)
{
    for (int i = 0; i < classes; i++) {
        int middle = NAME_MARGIN + i * cell + cell / 2;
        sac_buf_printf(out, "<text class=\"row\" x=\"%d\" y=\"%d\">", NAME_MARGIN - 5, middle + 4);
        put_class(out, r, i);
        sac_buf_printf(out,
                       "</text>\n<text class=\"column\" transform=\"translate(%d %d) "
                       "rotate(-90)\">",
                       middle + 4, NAME_MARGIN - 5);
        put_class(out, r, i);
        sac_buf_puts(out, "</text>\n");
    }
}

static void put_square(struct sac_buf *out, const struct sac_report *r, int truth, int said,
                       int cell)
{
    struct sac_class_result c = sac_evaluation_class(r->test, truth);
    int64_t n = sac_evaluation_confused(r->test, truth, said);
    int x = NAME_MARGIN + said * cell, y = NAME_MARGIN + truth * cell;

    if (n == 0)
        return;
    sac_buf_printf(out,
                   "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" "
                   "fill-opacity=\"%.2f\"><title>",
                   truth == said ? "good" : "bad", x, y, cell, cell,
                   0.15 + 0.85 * (double)n / (double)(c.items ? c.items : 1));
    put_class(out, r, truth);
    sac_buf_puts(out, truth == said ? ": right, " : " taken for ");
    if (truth != said) {
        put_class(out, r, said);
        sac_buf_puts(out, ": ");
    }
    sac_buf_printf(out, "%lld of %lld</title></rect>\n<text x=\"%d\" y=\"%d\">%lld</text>\n",
                   (long long)n, (long long)c.items, x + cell / 2, y + cell / 2 + 4, (long long)n);
}

/* A square a pair of classes: the row is what it is, the column what the model said. */
static void put_matrix(struct sac_buf *out, const struct sac_report *r, int classes)
{
    int cell = classes > 40 ? 16 : 24, side = NAME_MARGIN + classes * cell;

    if (classes > MATRIX_CLASSES_MAX || sac_evaluation_confused(r->test, 0, 0) < 0)
        return;
    sac_buf_printf(out,
                   "<h2>Confusion</h2>\n<p>Rows: what it is. Columns: what the model says. "
                   "Off the diagonal, darker is more often wrong.</p>\n<div class=\"wide\">"
                   "<svg class=\"matrix\" style=\"width:%dpx\" viewBox=\"0 0 %d %d\">\n",
                   side, side, side);
    put_matrix_names(out, r, classes, cell);
    for (int i = 0; i < classes; i++)
        for (int k = 0; k < classes; k++)
            put_square(out, r, i, k, cell);
    sac_buf_puts(out, "</svg></div>\n");
}

static void put_worst(struct sac_buf *out, const struct sac_report *r)
{
    if (r->worst_count == 0)
        return;
    sac_buf_puts(out, "<h2>The worst pictures</h2>\n<p>Wrong, and the surer the earlier. Look "
                      "whether the label is right.</p>\n<div class=\"worst\">\n");
    for (int i = 0; i < r->worst_count; i++) {
        const struct sac_report_picture *p = &r->worst[i];
        sac_buf_puts(out, "<figure>");
        if (p->jpeg) {
            sac_buf_puts(out, "<img alt=\"\" src=\"data:image/jpeg;base64,");
            put_base64(out, p->jpeg, p->jpeg_size);
            sac_buf_puts(out, "\">");
        }
        sac_buf_puts(out, "<figcaption><b>");
        put_class(out, r, p->predicted);
        sac_buf_printf(out, "</b> %.0f %%<br>is ", 100 * p->confidence);
        put_class(out, r, p->label);
        sac_buf_puts(out, "<br><small>");
        sac_buf_put_html(out, p->file);
        sac_buf_puts(out, "</small></figcaption></figure>\n");
    }
    sac_buf_puts(out, "</div>\n");
}

/* ---- The page --------------------------------------------------------------- */

static const char style[] =
    "<style>:root{color-scheme:light dark;--a:#2563a8;--b:#c2571a;--line:#8884}"
    "@media(prefers-color-scheme:dark){:root{--a:#7fb3ea;--b:#f0a06a}}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;"
    "border-bottom:1px solid var(--line);font-weight:normal}"
    ".numbers td{text-align:right;font-variant-numeric:tabular-nums}"
    ".figures{display:flex;flex-wrap:wrap;gap:2rem;margin:1rem 0}.figures b{display:block;"
    "font-size:2rem;line-height:1.1}figure{margin:1rem 0}svg{width:100%;height:auto}"
    "svg text{font-size:11px;fill:currentColor}.y{text-anchor:end}.x,.matrix text"
    "{text-anchor:middle}.matrix .row{text-anchor:end}.matrix .column{text-anchor:start}"
    ".wide{overflow-x:auto}.grid{stroke:var(--line);fill:none}path.a,path.b{fill:none;"
    "stroke-width:2}path.a{stroke:var(--a)}path.b{stroke:var(--b)}b.a{color:var(--a)}"
    "b.b{color:var(--b)}.best{stroke:currentColor;stroke-dasharray:3 3;opacity:.6}"
    ".good{fill:var(--a)}.bad{fill:var(--b)}.worst{display:grid;gap:1rem;"
    "grid-template-columns:repeat(auto-fill,minmax(9rem,1fr))}.worst figure{margin:0}"
    ".worst img{width:100%}small{overflow-wrap:anywhere;opacity:.7}</style>\n";

static void put_figure(struct sac_buf *out, const char *name, const char *format, double value)
{
    sac_buf_puts(out, "<div><b>");
    sac_buf_printf(out, format, value);
    sac_buf_printf(out, "</b>%s</div>", name);
}

static void put_figures(struct sac_buf *out, const struct sac_report *r,
                        const struct sac_evaluation_summary *s)
{
    char name[32];

    sac_buf_puts(out, "<div class=\"figures\">");
    put_figure(out,
               r->on_validation
                   ? "right on the validation pictures, by which the model was chosen; "
                     "none was kept to test with"
                   : "right on the test pictures",
               "%.2f&nbsp;%%", 100 * s->top1);
    if (s->top_k > 1 && s->top_k < s->classes) {
        snprintf(name, sizeof name, "among the first %d", s->top_k);
        put_figure(out, name, "%.2f&nbsp;%%", 100 * s->topk);
    }
    put_figure(out, "mean F1", "%.3f", s->f1);
    put_figure(out, "calibration error", "%.3f", s->ece);
    sac_buf_printf(
        out, "</div>\n<p>%lld pictures to train with, %lld to validate, %lld to test.</p>\n",
        (long long)r->train_items, (long long)r->validation_items, (long long)r->test_items);
}

/* A mean over classes says nothing of those that it has no pictures of. */
static void put_untested(struct sac_buf *out, const struct sac_report *r, int classes)
{
    int count = 0;

    for (int i = 0; i < classes; i++) {
        if (sac_evaluation_class(r->test, i).items > 0)
            continue;
        sac_buf_puts(out, count++ ? ", " : "<p>No picture to judge by: ");
        put_class(out, r, i);
    }
    if (count)
        sac_buf_puts(out, ".</p>\n");
}

void sac_report_html(struct sac_buf *out, const struct sac_report *r)
{
    struct sac_evaluation_summary s = sac_evaluation_summary(r->test);

    sac_buf_puts(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                      "<meta name=\"viewport\" content=\"width=device-width\">"
                      "<link rel=\"icon\" href=\"data:,\"><title>");
    sac_buf_put_html(out, r->title);
    sac_buf_puts(out, "</title>\n");
    sac_buf_puts(out, style);
    sac_buf_puts(out, "</head><body>\n<h1>");
    sac_buf_put_html(out, r->title);
    sac_buf_puts(out, "</h1>\n<p>");
    sac_buf_put_html(out, r->summary);
    sac_buf_puts(out, "</p>\n");
    put_figures(out, r, &s);
    put_untested(out, r, s.classes);
    put_chart(out, r, "Loss", train_loss, "training", validation_loss, "validation");
    put_chart(out, r, "Right in the validation, %", validation_accuracy, "accuracy", NULL, NULL);
    put_matrix(out, r, s.classes);
    put_worst(out, r);
    put_classes(out, r, s.classes);
    put_choices(out, r->choices);
    sac_buf_puts(out, "</body></html>\n");
}

/* ---- For programs ----------------------------------------------------------- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *points_json(const struct sac_report *r)
{
    json_t *out = json_array();

    for (int i = 0; i < r->point_count; i++) {
        const struct sac_report_point *p = &r->points[i];
        json_array_append_new(out, json_pack("{s:I,s:o,s:o,s:o,s:o,s:o}", "iteration",
                                             (json_int_t)p->iteration, "rate", number(p->rate),
                                             "train_loss", number(p->train_loss), "loss",
                                             number(p->loss), "accuracy", number(p->accuracy),
                                             "seconds", number(p->seconds)));
    }
    return out;
}

static json_t *choices_json(const struct sac_tuning_choices *choices)
{
    json_t *out = json_array();

    for (int i = 0; choices && i < choices->count; i++)
        json_array_append_new(out,
                              json_pack("{s:s,s:s,s:s,s:b}", "name", choices->choice[i].name,
                                        "value", choices->choice[i].value, "why",
                                        choices->choice[i].why, "given", choices->choice[i].given));
    return out;
}

static json_t *worst_json(const struct sac_report *r)
{
    char truth[32], said[32];
    json_t *out = json_array();

    for (int i = 0; i < r->worst_count; i++)
        json_array_append_new(out, json_pack("{s:s,s:s,s:s,s:f}", "file", r->worst[i].file, "label",
                                             class_name(r, r->worst[i].label, truth), "predicted",
                                             class_name(r, r->worst[i].predicted, said),
                                             "confidence", r->worst[i].confidence));
    return out;
}

json_t *sac_report_json(const struct sac_report *r)
{
    return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o}", "title", r->title, "summary",
                     r->summary, "tested_on", r->on_validation ? "validation" : "test",
                     "train_items", (json_int_t)r->train_items, "validation_items",
                     (json_int_t)r->validation_items, "test_items", (json_int_t)r->test_items,
                     "best_iteration", (json_int_t)r->best_iteration, "choices",
                     choices_json(r->choices), "curve", points_json(r), "worst", worst_json(r),
                     "test", sac_evaluation_json(r->test, r->names));
}
