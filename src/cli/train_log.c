#include "cli/train_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"

/* ---- Caffe's lines --------------------------------------------------------- */

void sac_train_log_clear(struct sac_train_log *t)
{
    if (t->progress)
        fputs("\r\033[K", stderr);
    t->progress = false;
}

/* As glog begins a line: I0917 22:17:11.646560 67440 solver.cpp:315] */
static void begin_line(struct sac_train_log *t, const char *place)
{
    struct timeval now;
    struct tm tm;

    sac_train_log_clear(t);
    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &tm);
    fprintf(stderr, "I%02d%02d %02d:%02d:%02d.%06ld %5d %s] ", tm.tm_mon + 1, tm.tm_mday,
            tm.tm_hour, tm.tm_min, tm.tm_sec, (long)now.tv_usec, (int)getpid(), place);
}

static void put_values(struct sac_train_log *t, const struct sac_train_event *e, const char *net,
                       const char *place)
{
    for (int i = 0; i < e->value_count; i++) {
        const struct sac_train_value *v = &e->values[i];
        begin_line(t, place);
        fprintf(stderr, "    %s net output #%d: %s = %g", net, i, v->name, v->value);
        if (v->weight != 0)
            fprintf(stderr, " (* %g = %g loss)", v->weight, v->weight * v->value);
        fputc('\n', stderr);
    }
}

static void put_display(struct sac_train_log *t, const struct sac_train_event *e)
{
    double rate = (double)e->iterations / (e->seconds > 0 ? e->seconds : 1);

    begin_line(t, "solver.cpp:218");
    fprintf(stderr, "Iteration %lld (%g iter/s, %gs/%d iters), loss = %g\n",
            (long long)e->iteration, rate, e->seconds, e->display, e->loss);
    put_values(t, e, "Train", "solver.cpp:237");
    begin_line(t, "sgd_solver.cpp:105");
    fprintf(stderr, "Iteration %lld, lr = %g\n", (long long)e->iteration, e->rate);
}

static void put_saving(struct sac_train_log *t, const struct sac_train_event *e)
{
    bool hdf5 = strcmp(e->text, "HDF5") == 0;
    const char *kind = hdf5 ? "HDF5" : "binary proto", *end = hdf5 ? ".h5" : "";

    begin_line(t, "solver.cpp:447");
    fprintf(stderr, "Snapshotting to %s file %s_iter_%lld.caffemodel%s\n", kind, e->name,
            (long long)e->iteration, end);
    begin_line(t, "sgd_solver.cpp:273");
    fprintf(stderr, "Snapshotting solver state to %s file %s_iter_%lld.solverstate%s\n", kind,
            e->name, (long long)e->iteration, end);
}

/* The rate since the start, and when that ends. */
static void put_progress(struct sac_train_log *t, const struct sac_train_event *e)
{
    uint64_t now = sac_clock_ns();
    double seconds = (double)(now - t->start_ns) / 1e9;
    double rate = (double)(e->iteration - t->start_iteration) / (seconds > 0 ? seconds : 1);
    long left = rate > 0 ? (long)((double)(e->max_iter - e->iteration) / rate) : 0;

    if (!t->terminal || now - t->shown_ns < 200000000)
        return;
    t->shown_ns = now;
    t->progress = true;
    fprintf(stderr,
            "\r\033[K%lld of %lld, loss %.4g, %.4g iterations a second, %ld:%02ld:%02ld left",
            (long long)e->iteration, (long long)e->max_iter, e->loss, rate, left / 3600,
            left / 60 % 60, left % 60);
}

static void put_test(struct sac_train_log *t, const struct sac_train_event *e)
{
    if (e->has_loss) {
        begin_line(t, "solver.cpp:402");
        fprintf(stderr, "Test loss: %g\n", e->loss);
    }
    put_values(t, e, "Test", "solver.cpp:398");
}

static void put_line(struct sac_train_log *t, const char *place, const char *before,
                     const char *name, const char *after)
{
    begin_line(t, place);
    fprintf(stderr, "%s%s%s\n", before, name, after);
}

/* Whether the device had to wait for data. */
static void put_feed(struct sac_train_log *t, const struct sac_train_event *e)
{
    double share = e->seconds > 0 ? 100 * e->waited / e->seconds : 0;

    begin_line(t, "trainer");
    fprintf(stderr, "Feed: waited %.3g s of %.4g s (%.2g %%) for batches\n", e->waited, e->seconds,
            share);
    if (e->corrupt > 0) {
        begin_line(t, "trainer");
        fprintf(stderr, "%lld items could not be used\n", (long long)e->corrupt);
    }
}

static void put_event(struct sac_train_log *t, const struct sac_train_event *e)
{
    switch (e->kind) {
    case SAC_TRAIN_START:
        put_line(t, "solver.cpp:272", "Solving ", e->name, "");
        put_line(t, "solver.cpp:273", "Learning Rate Policy: ", e->text, "");
        break;
    case SAC_TRAIN_PARALLEL:
        put_line(t, "parallel.cpp", "Data parallel: ", e->text, "");
        break;
    case SAC_TRAIN_UNHEEDED:
        begin_line(t, "trainer");
        fprintf(stderr, "The solver's %s is not heeded: %s\n", e->name, e->text);
        break;
    case SAC_TRAIN_LOADED:
        put_line(t, "caffe.cpp:155", "Finetuning from ", e->name, "");
        put_line(t, "caffe.cpp:155", e->text, "", "");
        break;
    case SAC_TRAIN_RESTORED:
        put_line(t, "sgd_solver.cpp:280", "Restoring previous solver status from ", e->name, "");
        break;
    case SAC_TRAIN_TESTING:
        begin_line(t, "solver.cpp:330");
        fprintf(stderr, "Iteration %lld, Testing net (#%d)\n", (long long)e->iteration, e->test);
        break;
    case SAC_TRAIN_TESTED:
        put_test(t, e);
        break;
    case SAC_TRAIN_CUT_SHORT:
        put_line(t, "solver.cpp:371", "Test interrupted.", "", "");
        break;
    case SAC_TRAIN_STEP:
        put_progress(t, e);
        break;
    case SAC_TRAIN_DISPLAY:
        put_display(t, e);
        break;
    case SAC_TRAIN_SAVING:
        put_saving(t, e);
        break;
    case SAC_TRAIN_LAST_LOSS:
        begin_line(t, "solver.cpp:310");
        fprintf(stderr, "Iteration %lld, loss = %g\n", (long long)e->iteration, e->loss);
        break;
    case SAC_TRAIN_BEST:
        begin_line(t, "trainer");
        fprintf(stderr, "Best %s until now: %g\n", e->name, e->loss);
        break;
    case SAC_TRAIN_WRITTEN:
        begin_line(t, "trainer");
        fprintf(stderr, "Model directory %s has the weights of iteration %lld\n", e->name,
                (long long)e->best);
        break;
    case SAC_TRAIN_STOPPED:
        put_feed(t, e);
        if (e->text)
            put_line(t, "trainer", e->text, "", "");
        put_line(t, "solver.cpp:295", "Optimization stopped early.", "", "");
        break;
    case SAC_TRAIN_DONE:
        put_feed(t, e);
        put_line(t, "solver.cpp:315", "Optimization Done.", "", "");
        break;
    }
}

/* ---- For machines ---------------------------------------------------------- */

static void put_json(const struct sac_train_event *e)
{
    static const char *const kinds[] = {
        [SAC_TRAIN_START] = "start",       [SAC_TRAIN_PARALLEL] = "parallel",
        [SAC_TRAIN_UNHEEDED] = "unheeded", [SAC_TRAIN_LOADED] = "loaded",
        [SAC_TRAIN_RESTORED] = "restored", [SAC_TRAIN_TESTING] = "testing",
        [SAC_TRAIN_TESTED] = "test",       [SAC_TRAIN_CUT_SHORT] = "test_interrupted",
        [SAC_TRAIN_STEP] = "step",         [SAC_TRAIN_DISPLAY] = "train",
        [SAC_TRAIN_SAVING] = "saving",     [SAC_TRAIN_LAST_LOSS] = "last_loss",
        [SAC_TRAIN_BEST] = "best",         [SAC_TRAIN_WRITTEN] = "written",
        [SAC_TRAIN_STOPPED] = "stopped",   [SAC_TRAIN_DONE] = "done"};
    json_t *root, *values = json_array();

    if (e->kind == SAC_TRAIN_STEP || e->kind == SAC_TRAIN_TESTING) {
        json_decref(values);
        return;
    }
    root = json_pack("{s:s,s:I,s:I}", "event", kinds[e->kind], "iteration",
                     (json_int_t)e->iteration, "max_iter", (json_int_t)e->max_iter);
    if (e->name)
        json_object_set_new(root, "name", json_string(e->name));
    if (e->text)
        json_object_set_new(root, "text", json_string(e->text));
    if (e->kind == SAC_TRAIN_DISPLAY || e->kind == SAC_TRAIN_LAST_LOSS || e->has_loss)
        json_object_set_new(root, "loss", json_real(e->loss));
    if (e->kind == SAC_TRAIN_DISPLAY) {
        json_object_set_new(root, "rate", json_real(e->rate));
        json_object_set_new(root, "seconds", json_real(e->seconds));
        json_object_set_new(root, "iterations", json_integer(e->iterations));
    }
    if (e->kind == SAC_TRAIN_BEST || e->kind == SAC_TRAIN_WRITTEN)
        json_object_set_new(root, "best", json_integer(e->best));
    if (e->kind == SAC_TRAIN_STOPPED || e->kind == SAC_TRAIN_DONE) {
        json_object_set_new(root, "seconds", json_real(e->seconds));
        json_object_set_new(root, "waited", json_real(e->waited));
        json_object_set_new(root, "corrupt", json_integer(e->corrupt));
    }
    if (e->kind == SAC_TRAIN_TESTED || e->kind == SAC_TRAIN_CUT_SHORT)
        json_object_set_new(root, "test", json_integer(e->test));
    for (int i = 0; i < e->value_count; i++)
        json_array_append_new(values, json_pack("{s:s,s:f,s:f}", "name", e->values[i].name, "value",
                                                e->values[i].value, "weight", e->values[i].weight));
    if (json_array_size(values) > 0)
        json_object_set(root, "outputs", values);
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    fprintf(stderr, "%s\n", text ? text : "{\"event\":\"out of memory\"}");
    free(text);
    json_decref(values);
    json_decref(root);
}

void sac_train_log_event(struct sac_train_log *t, const struct sac_train_event *event)
{
    if (event->kind == SAC_TRAIN_START) {
        t->start_ns = sac_clock_ns();
        t->start_iteration = event->iteration;
    }
    if (t->json)
        put_json(event);
    else
        put_event(t, event);
}
