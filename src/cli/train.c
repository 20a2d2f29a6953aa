/* saccade train */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/flags.h"
#include "train/trainer.h"

static const char help[] =
    "Usage: saccade train --solver PROTOTXT [options]\n\n"
    "Trains a net as Caffe's solver.prototxt and train_val.prototxt say, on the CPU.\n\n"
    "  --solver F          the solver; its net is looked for where it says, then beside it\n"
    "  --net F             instead of the solver's net\n"
    "  --weights A[,B]     weights to start from, by layer name\n"
    "  --snapshot F|auto   go on from a .solverstate; auto: from the newest whole one of\n"
    "                      the solver's snapshot_prefix, from the start if there is none\n"
    "  --data PATH         instead of the training layer's source: a CIFAR batch file, a list\n"
    "                      of pictures with labels, a folder of a folder a class, an LMDB, HDF5\n"
    "  --test-data PATH    the same for the test nets\n"
    "  --mean F            instead of the layers' mean: a .binaryproto\n"
    "  --seed N            instead of the solver's random_seed\n"
    "  --keep N            remove older snapshots of this run but for the newest N\n"
    "  --precision f32|bf16  of values and their gradients; weights stay f32 (f32)\n"
    "  --threads N         threads that compute (one a core; a snapshot's own number when\n"
    "                      going on from it)\n"
    "  --workers N         threads that decode (one a core)\n"
    "  --sigint_effect E   stop (after a snapshot), snapshot or none; stop unless said\n"
    "  --sighup_effect E   likewise; snapshot unless said\n"
    "  --log-json          a line of JSON an event, instead of Caffe's log lines\n"
    "  --device cpu        the only one that trains\n\n"
    "The log goes to standard error.\n\n"
    "Example: saccade train --solver solver.prototxt --snapshot auto\n";

enum {
    FLAG_SOLVER = SAC_FLAG_OWN,
    FLAG_NET,
    FLAG_SNAPSHOT,
    FLAG_DATA,
    FLAG_TEST_DATA,
    FLAG_SEED,
    FLAG_KEEP,
    FLAG_THREADS,
    FLAG_WORKERS,
    FLAG_SIGINT,
    FLAG_SIGHUP,
    FLAG_LOG_JSON,
};

static const struct option long_options[] = {
    {"solver", required_argument, NULL, FLAG_SOLVER},
    {"net", required_argument, NULL, FLAG_NET},
    {"weights", required_argument, NULL, SAC_FLAG_WEIGHTS},
    {"snapshot", required_argument, NULL, FLAG_SNAPSHOT},
    {"data", required_argument, NULL, FLAG_DATA},
    {"test-data", required_argument, NULL, FLAG_TEST_DATA},
    {"mean", required_argument, NULL, SAC_FLAG_MEAN},
    {"seed", required_argument, NULL, FLAG_SEED},
    {"keep", required_argument, NULL, FLAG_KEEP},
    {"precision", required_argument, NULL, SAC_FLAG_PRECISION},
    {"threads", required_argument, NULL, FLAG_THREADS},
    {"workers", required_argument, NULL, FLAG_WORKERS},
    {"sigint_effect", required_argument, NULL, FLAG_SIGINT},
    {"sighup_effect", required_argument, NULL, FLAG_SIGHUP},
    {"log-json", no_argument, NULL, FLAG_LOG_JSON},
    {"device", required_argument, NULL, SAC_FLAG_DEVICE},
    {"help", no_argument, NULL, SAC_FLAG_HELP},
    {0}};

struct train {
    struct sac_trainer_options options;
    const char *device, *precision;
    enum sac_train_request on_sigint, on_sighup;
    bool json, terminal, progress;
    uint64_t start_ns, shown_ns;
    int64_t start_iteration;
};

/* ---- The command line ------------------------------------------------------ */

static int read_seed(struct train *t, const char *value, struct sac_error *err)
{
    char *end;

    errno = 0;
    t->options.seed = strtoull(value, &end, 10);
    t->options.has_seed = true;
    if (errno == 0 && end != value && *end == 0 && *value != '-')
        return 0;
    return sac_fail(err, SAC_EINVAL, "--seed: expected a whole number, found \"%.40s\"", value);
}

static int read_effect(const char *flag, const char *value, enum sac_train_request *ret,
                       struct sac_error *err)
{
    static const char *const words[] = {"none", "snapshot", "stop"};

    for (int i = 0; i < 3; i++) {
        if (strcmp(value, words[i]) != 0)
            continue;
        *ret = (enum sac_train_request)i;
        return 0;
    }
    return sac_fail(err, SAC_EINVAL, "%s: expected stop, snapshot or none, found \"%.40s\"", flag,
                    value);
}

static int take(struct train *t, int option, const char *value, struct sac_error *err)
{
    struct sac_trainer_options *o = &t->options;

    switch (option) {
    case FLAG_SEED:
        return read_seed(t, value, err);
    case FLAG_KEEP:
        return sac_flag_int("--keep", value, 1, 1000000, &o->keep_last, err);
    case FLAG_THREADS:
        return sac_flag_int("--threads", value, 1, SAC_TRAIN_THREADS_MAX, &o->compute_threads, err);
    case FLAG_WORKERS:
        return sac_flag_int("--workers", value, 1, 64, &o->threads, err);
    case FLAG_SIGINT:
        return read_effect("--sigint_effect", value, &t->on_sigint, err);
    case FLAG_SIGHUP:
        return read_effect("--sighup_effect", value, &t->on_sighup, err);
    case FLAG_LOG_JSON:
        t->json = true;
        return 0;
    default:
        break;
    }
    *(option == FLAG_SOLVER        ? &o->solver
      : option == FLAG_NET         ? &o->net
      : option == SAC_FLAG_WEIGHTS ? &o->weights
      : option == FLAG_SNAPSHOT    ? &o->snapshot
      : option == FLAG_DATA        ? &o->data
      : option == FLAG_TEST_DATA   ? &o->test_data
      : option == SAC_FLAG_MEAN    ? &o->mean_file
      : option == SAC_FLAG_DEVICE  ? &t->device
                                   : &t->precision) = value;
    return 0;
}

static int parse(struct train *t, int argc, char **argv, bool *ret_help, struct sac_error *err)
{
    int option, rc = 0;

    while (rc == 0 &&
           (option = getopt_long(argc, argv, SAC_FLAGS_SHORT, long_options, NULL)) != -1) {
        *ret_help = option == SAC_FLAG_HELP;
        if (*ret_help)
            return 0;
        if (option == '?' || option == ':')
            return sac_flag_refused(option, argv, err);
        rc = take(t, option, optarg, err);
    }
    if (rc == 0 && optind < argc)
        return sac_fail(err, SAC_EINVAL, "\"%s\" is not understood", argv[optind]);
    if (rc == 0 && !t->options.solver)
        return sac_fail(err, SAC_EINVAL, "expected --solver PROTOTXT");
    if (rc == 0 && t->options.weights && t->options.snapshot &&
        strcmp(t->options.snapshot, "auto") != 0)
        return sac_fail(err, SAC_EINVAL, "--snapshot has weights of its own; leave --weights out");
    return rc;
}

/* ---- Signals --------------------------------------------------------------- */

static volatile sig_atomic_t had_sigint, had_sighup;

static void on_signal(int number)
{
    if (number == SIGINT)
        had_sigint = 1;
    else
        had_sighup = 1;
}

static enum sac_train_request asked(void *user)
{
    const struct train *t = user;
    enum sac_train_request out = SAC_TRAIN_GO_ON;

    if (had_sighup)
        out = t->on_sighup;
    if (had_sigint && t->on_sigint > out)
        out = t->on_sigint;
    had_sigint = had_sighup = 0;
    return out;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

/* ---- Caffe's lines --------------------------------------------------------- */

static void clear_progress(struct train *t)
{
    if (t->progress)
        fputs("\r\033[K", stderr);
    t->progress = false;
}

/* As glog begins a line: I0917 22:17:11.646560 67440 solver.cpp:315] */
static void begin_line(struct train *t, const char *place)
{
    struct timeval now;
    struct tm tm;

    clear_progress(t);
    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &tm);
    fprintf(stderr, "I%02d%02d %02d:%02d:%02d.%06ld %5d %s] ", tm.tm_mon + 1, tm.tm_mday,
            tm.tm_hour, tm.tm_min, tm.tm_sec, (long)now.tv_usec, (int)getpid(), place);
}

static void put_values(struct train *t, const struct sac_train_event *e, const char *net,
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

static void put_display(struct train *t, const struct sac_train_event *e)
{
    double rate = (double)e->iterations / (e->seconds > 0 ? e->seconds : 1);

    begin_line(t, "solver.cpp:218");
    fprintf(stderr, "Iteration %lld (%g iter/s, %gs/%d iters), loss = %g\n",
            (long long)e->iteration, rate, e->seconds, e->display, e->loss);
    put_values(t, e, "Train", "solver.cpp:237");
    begin_line(t, "sgd_solver.cpp:105");
    fprintf(stderr, "Iteration %lld, lr = %g\n", (long long)e->iteration, e->rate);
}

static void put_saving(struct train *t, const struct sac_train_event *e)
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
static void put_progress(struct train *t, const struct sac_train_event *e)
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

static void put_test(struct train *t, const struct sac_train_event *e)
{
    if (e->has_loss) {
        begin_line(t, "solver.cpp:402");
        fprintf(stderr, "Test loss: %g\n", e->loss);
    }
    put_values(t, e, "Test", "solver.cpp:398");
}

static void put_line(struct train *t, const char *place, const char *before, const char *name,
                     const char *after)
{
    begin_line(t, place);
    fprintf(stderr, "%s%s%s\n", before, name, after);
}

static void put_event(struct train *t, const struct sac_train_event *e)
{
    switch (e->kind) {
    case SAC_TRAIN_START:
        put_line(t, "solver.cpp:272", "Solving ", e->name, "");
        put_line(t, "solver.cpp:273", "Learning Rate Policy: ", e->text, "");
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
    case SAC_TRAIN_STOPPED:
        put_line(t, "solver.cpp:295", "Optimization stopped early.", "", "");
        break;
    case SAC_TRAIN_DONE:
        put_line(t, "solver.cpp:315", "Optimization Done.", "", "");
        break;
    }
}

/* ---- For machines ---------------------------------------------------------- */

static void put_json(const struct sac_train_event *e)
{
    static const char *const kinds[] = {"start", "loaded", "restored",  "testing", "test", "step",
                                        "train", "saving", "last_loss", "stopped", "done"};
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
    if (e->kind == SAC_TRAIN_TESTED)
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

static void on_event(void *user, const struct sac_train_event *event)
{
    struct train *t = user;

    if (event->kind == SAC_TRAIN_START) {
        t->start_ns = sac_clock_ns();
        t->start_iteration = event->iteration;
    }
    if (t->json)
        put_json(event);
    else
        put_event(t, event);
}

/* ---- The command ----------------------------------------------------------- */

static int run(struct train *t, struct sac_error *err)
{
    struct sac_trainer *trainer = NULL;
    int rc = sac_device_open(&t->options.device, t->device, err);

    if (rc == 0)
        rc = sac_flag_precision(t->precision, t->options.device, &t->options.precision, err);
    if (rc == 0)
        rc = sac_trainer_new(&trainer, &t->options, err);
    if (rc == 0) {
        catch_signals();
        rc = sac_trainer_run(trainer, err);
        clear_progress(t);
    }
    sac_trainer_free(trainer);
    sac_device_close(t->options.device);
    return rc;
}

int sac_command_train(int argc, char **argv)
{
    struct train t = {
        .device = "cpu", .on_sigint = SAC_TRAIN_STOP, .on_sighup = SAC_TRAIN_SNAPSHOT};
    struct sac_error err = {0};
    bool wants_help = false;
    int rc = parse(&t, argc, argv, &wants_help, &err);

    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    if (rc)
        return sac_usage_error("train", "%s", err.text);
    t.options.on_event = on_event;
    t.options.request = asked;
    t.options.user = &t;
    t.terminal = isatty(STDERR_FILENO) && !t.json;
    rc = run(&t, &err);
    return rc ? sac_command_failed(&err) : 0;
}
