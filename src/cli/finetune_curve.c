/* Fine-tuning's curves: a line of JSON a test, beside the run. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/finetune.h"

static void add(struct finetune_curve *c, const struct sac_report_point *point)
{
    if (c->count == c->room) {
        int room = c->room ? 2 * c->room : 64;
        struct sac_report_point *more = realloc(c->points, (size_t)room * sizeof *more);
        if (!more)
            return; /* a curve with a gap is better than no model */
        c->points = more;
        c->room = room;
    }
    c->points[c->count++] = *point;
}

static double number(const json_t *json, const char *name)
{
    const json_t *value = json_object_get(json, name);

    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* A last line that was cut short is left out. */
static void read_back(struct finetune_curve *c)
{
    json_t *line;

    rewind(c->file);
    while ((line = json_loadf(c->file, JSON_DISABLE_EOF_CHECK, NULL))) {
        struct sac_report_point point = {
            .iteration = json_integer_value(json_object_get(line, "iteration")),
            .rate = number(line, "rate"),
            .train_loss = number(line, "train_loss"),
            .loss = number(line, "loss"),
            .accuracy = number(line, "accuracy"),
            .seconds = number(line, "seconds"),
        };
        add(c, &point);
        json_decref(line);
    }
}

static void put_number(FILE *file, const char *name, double value)
{
    if (isfinite(value))
        fprintf(file, ",\"%s\":%.9g", name, value);
}

static void write_point(FILE *file, const struct sac_report_point *p)
{
    fprintf(file, "{\"iteration\":%lld", (long long)p->iteration);
    put_number(file, "rate", p->rate);
    put_number(file, "train_loss", p->train_loss);
    put_number(file, "loss", p->loss);
    put_number(file, "accuracy", p->accuracy);
    put_number(file, "seconds", p->seconds);
    fputs("}\n", file);
    fflush(file);
}

int sac_finetune_curve_open(struct finetune *f, struct sac_error *err)
{
    struct finetune_curve *c = &f->curve;
    char *path = sac_finetune_path(f, "curve.jsonl", err);

    if (!path)
        return err->code;
    c->loss = c->rate = NAN;
    c->file = fopen(path, "a+e");
    int rc = c->file ? 0 : sac_fail_errno(err, errno, "%s", path);
    if (rc == 0)
        read_back(c);
    free(path);
    return rc;
}

void sac_finetune_curve_done(struct finetune_curve *c)
{
    if (c->file)
        fclose(c->file);
    free(c->points);
    *c = (struct finetune_curve){0};
}

void sac_finetune_curve_cut(struct finetune_curve *c, int64_t iteration)
{
    int count = 0;

    for (int i = 0; i < c->count; i++)
        if (c->points[i].iteration <= iteration)
            c->points[count++] = c->points[i];
    c->count = count;
    c->seconds = count > 0 && c->points[count - 1].seconds > 0 ? c->points[count - 1].seconds : 0;
    c->start_ns = sac_clock_ns();
    if (!c->file || ftruncate(fileno(c->file), 0) != 0)
        return;
    for (int i = 0; i < count; i++)
        write_point(c->file, &c->points[i]);
}

double sac_finetune_curve_seconds(const struct finetune_curve *c)
{
    double now = c->start_ns ? (double)(sac_clock_ns() - c->start_ns) / 1e9 : 0;

    return c->seconds + now;
}

void sac_finetune_curve_event(struct finetune_curve *c, const struct sac_train_event *event)
{
    struct sac_report_point point = {.iteration = event->iteration,
                                     .rate = c->rate,
                                     .train_loss = c->loss,
                                     .loss = NAN,
                                     .accuracy = NAN,
                                     .seconds = sac_finetune_curve_seconds(c)};

    if (event->kind == SAC_TRAIN_START)
        sac_finetune_curve_cut(c, event->iteration);
    if (event->kind == SAC_TRAIN_DISPLAY) {
        c->loss = event->loss;
        c->rate = event->rate;
    }
    if (event->kind != SAC_TRAIN_TESTED || event->test != 0)
        return;
    for (int i = 0; i < event->value_count; i++) {
        const struct sac_train_value *v = &event->values[i];
        if (v->weight != 0 && isnan(point.loss))
            point.loss = v->value;
        else if (v->weight == 0 && isnan(point.accuracy))
            point.accuracy = v->value;
    }
    add(c, &point);
    if (c->file)
        write_point(c->file, &point);
}
