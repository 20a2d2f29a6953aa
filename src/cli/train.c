/* saccade train */
#include <errno.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/flags.h"
#include "cli/signals.h"
#include "cli/supervise.h"
#include "cli/train_log.h"
#include "ranks/group.h"
#include "train/crew.h"

static const char help[] =
    "Usage: saccade train --solver PROTOTXT [options]\n"
    "       saccade train --finetune MODEL_DIR --data FOLDER --out DIR (see train --finetune "
    "--help)\n\n"
    "Trains a net as Caffe's solver.prototxt and train_val.prototxt say.\n\n"
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
    "  --out DIR|none      the model directory to end in (PREFIX_model beside the snapshots)\n"
    "  --labels F          its labels, a line a class, where the data does not name them\n"
    "  --keep N            remove older snapshots of this run but for the newest N\n"
    "  --keep-best         keep the snapshot of the best test, and give DIR its weights\n"
    "  --patience N        that, and stop after N tests in a row without a better one\n"
    "  --metric NAME       the test net's output to judge by (its first accuracy, else its loss)\n"
    "  --resize squash|short:SIZE   pictures from files and databases, before the crop\n"
    "  --augment A,B=X,…   of training items: flip, pad=PIXELS, area=LEAST, rotation=DEGREES,\n"
    "                      brightness, contrast, saturation, hue=PART, noise=DEVIATION,\n"
    "                      cutout=SIDE; none unless said\n"
    "  --smoothing X       of labels, in softmax losses: X is shared by all classes\n"
    "  --level N, --stage A[,B]   the training net's state, for its layers' rules\n"
    "  --precision f32|bf16|f16   of values and their gradients; weights stay f32 (f32);\n"
    "                      f16 on a GPU only\n"
    "  --threads N         threads that compute (one a core; a snapshot's own number when\n"
    "                      going on from it)\n"
    "  --workers N         threads that decode (one a core)\n"
    "  --sigint_effect E   stop (after a snapshot), snapshot or none; stop unless said\n"
    "  --sighup_effect E   likewise; snapshot unless said\n"
    "  --log-json          a line of JSON an event, instead of Caffe's log lines\n"
    "  --device NAME       cpu (the default); cuda:0; several together: cuda (all), cuda:0,2\n"
    "  --deterministic     only a GPU's algorithms that give the same bits again\n"
    "  --ranks N           train on the CPU as N devices together would\n"
    "  --batch-rule R      of several devices: per-gpu, each has the layer's batch (BVLC Caffe,\n"
    "                      the default), or split, all together have it (NVCaffe)\n"
    "  --bucket KB         gradients that are summed at once, at least (8192)\n"
    "  --communicator      one device alone sums by NCCL, too: to see what that costs\n"
    "  --restarts N        after a lost device or process, start again from the newest\n"
    "                      snapshot, at most N times; with --snapshot auto\n\n"
    "Several processes train together where RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say\n"
    "so (torchrun, Kubernetes), Slurm's variables, or mpirun. The log goes to standard error.\n"
    "Ends with 0; 1 after an error of any of them, 3 when a device or a process was lost.\n\n"
    "Example: saccade train --solver solver.prototxt --snapshot auto\n";

enum {
    FLAG_SOLVER = SAC_FLAG_OWN,
    FLAG_NET,
    FLAG_SNAPSHOT,
    FLAG_DATA,
    FLAG_TEST_DATA,
    FLAG_SEED,
    FLAG_OUT,
    FLAG_KEEP,
    FLAG_KEEP_BEST,
    FLAG_PATIENCE,
    FLAG_METRIC,
    FLAG_AUGMENT,
    FLAG_SMOOTHING,
    FLAG_LEVEL,
    FLAG_STAGE,
    FLAG_THREADS,
    FLAG_WORKERS,
    FLAG_SIGINT,
    FLAG_SIGHUP,
    FLAG_LOG_JSON,
    FLAG_DETERMINISTIC,
    FLAG_RANKS,
    FLAG_BATCH_RULE,
    FLAG_BUCKET,
    FLAG_COMMUNICATOR,
    FLAG_RESTARTS,
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
    {"out", required_argument, NULL, FLAG_OUT},
    {"labels", required_argument, NULL, SAC_FLAG_LABELS},
    {"keep", required_argument, NULL, FLAG_KEEP},
    {"keep-best", no_argument, NULL, FLAG_KEEP_BEST},
    {"patience", required_argument, NULL, FLAG_PATIENCE},
    {"metric", required_argument, NULL, FLAG_METRIC},
    {"resize", required_argument, NULL, SAC_FLAG_RESIZE},
    {"augment", required_argument, NULL, FLAG_AUGMENT},
    {"smoothing", required_argument, NULL, FLAG_SMOOTHING},
    {"level", required_argument, NULL, FLAG_LEVEL},
    {"stage", required_argument, NULL, FLAG_STAGE},
    {"precision", required_argument, NULL, SAC_FLAG_PRECISION},
    {"threads", required_argument, NULL, FLAG_THREADS},
    {"workers", required_argument, NULL, FLAG_WORKERS},
    {"sigint_effect", required_argument, NULL, FLAG_SIGINT},
    {"sighup_effect", required_argument, NULL, FLAG_SIGHUP},
    {"log-json", no_argument, NULL, FLAG_LOG_JSON},
    {"device", required_argument, NULL, SAC_FLAG_DEVICE},
    {"deterministic", no_argument, NULL, FLAG_DETERMINISTIC},
    {"ranks", required_argument, NULL, FLAG_RANKS},
    {"batch-rule", required_argument, NULL, FLAG_BATCH_RULE},
    {"bucket", required_argument, NULL, FLAG_BUCKET},
    {"communicator", no_argument, NULL, FLAG_COMMUNICATOR},
    {"restarts", required_argument, NULL, FLAG_RESTARTS},
    {"help", no_argument, NULL, SAC_FLAG_HELP},
    {0}};

struct train {
    struct sac_trainer_options options;
    const char *device, *precision;
    int ranks, restarts; /* 0: not said */
    bool communicates;
    struct sac_ranks process;
    struct sac_device *devices[SAC_GROUP_MAX];
    int device_count;
    bool running;
    enum sac_train_request on_sigint, on_sighup;
    struct sac_augment augment;
    const char *stages[16];
    struct sac_train_log log;
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

static int read_smoothing(struct train *t, const char *value, struct sac_error *err)
{
    double smoothing = 0;
    int rc = sac_flag_number("--smoothing", value, 0, .999, &smoothing, err);

    t->options.smoothing = (float)smoothing;
    return rc;
}

static int read_augment(struct train *t, const char *value, struct sac_error *err)
{
    t->options.augment = &t->augment;
    return sac_flag_augment("--augment", value, &t->augment, err);
}

static int read_batch_rule(const char *value, enum sac_batch_rule *ret, struct sac_error *err)
{
    bool split = strcmp(value, "split") == 0;

    if (!split && strcmp(value, "per-gpu") != 0)
        return sac_fail(err, SAC_EINVAL, "--batch-rule: expected per-gpu or split, found \"%.40s\"",
                        value);
    *ret = split ? SAC_BATCH_SPLIT : SAC_BATCH_PER_DEVICE;
    return 0;
}

static int read_bucket(struct train *t, const char *value, struct sac_error *err)
{
    int kilobytes = 0;
    int rc = sac_flag_int("--bucket", value, 1, 1 << 20, &kilobytes, err);

    t->options.bucket_bytes = (size_t)kilobytes << 10;
    return rc;
}

/* Of several devices. */
static int take_parallel(struct train *t, int option, const char *value, struct sac_error *err)
{
    switch (option) {
    case FLAG_RANKS:
        return sac_flag_int("--ranks", value, 1, SAC_GROUP_MAX, &t->ranks, err);
    case FLAG_RESTARTS:
        return sac_flag_int("--restarts", value, 1, 1000, &t->restarts, err);
    case FLAG_BUCKET:
        return read_bucket(t, value, err);
    case FLAG_COMMUNICATOR:
        t->communicates = true;
        return 0;
    case FLAG_BATCH_RULE:
        return read_batch_rule(value, &t->options.batch_rule, err);
    default:
        return 1;
    }
}

/* Numbers, and what is more than a word. */
static int take_read(struct train *t, int option, const char *value, struct sac_error *err)
{
    struct sac_trainer_options *o = &t->options;

    switch (option) {
    case FLAG_PATIENCE:
        return sac_flag_int("--patience", value, 1, 1000000, &o->patience, err);
    case FLAG_AUGMENT:
        return read_augment(t, value, err);
    case FLAG_SMOOTHING:
        return read_smoothing(t, value, err);
    case FLAG_LEVEL:
        return sac_flag_int("--level", value, INT16_MIN, INT16_MAX, &o->level, err);
    case FLAG_STAGE:
        return sac_flag_list("--stage", value, t->stages, sizeof t->stages / sizeof *t->stages,
                             &o->stage_count, err);
    case SAC_FLAG_RESIZE:
        return sac_flag_resize("--resize", value, &o->resize, &o->resize_width, &o->resize_height,
                               err);
    case FLAG_KEEP_BEST:
        o->keep_best = true;
        return 0;
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
    case FLAG_DETERMINISTIC:
        o->deterministic = true;
        return 0;
    case FLAG_LOG_JSON:
        t->log.json = true;
        return 0;
    default:
        return take_parallel(t, option, value, err);
    }
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct train *t = user;
    struct sac_trainer_options *o = &t->options;
    int rc = take_read(t, option, value, err);

    if (rc != 1)
        return rc;
    *(option == FLAG_SOLVER        ? &o->solver
      : option == FLAG_OUT         ? &o->out
      : option == FLAG_METRIC      ? &o->metric
      : option == SAC_FLAG_LABELS  ? &o->labels
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
    int rc = sac_flags_parse(argc, argv, long_options, take, t, ret_help, err);

    if (*ret_help)
        return 0;
    if (rc == 0 && !t->options.solver)
        return sac_fail(err, SAC_EINVAL, "expected --solver PROTOTXT");
    if (rc == 0 && t->options.weights && t->options.snapshot &&
        strcmp(t->options.snapshot, "auto") != 0)
        return sac_fail(err, SAC_EINVAL, "--snapshot has weights of its own; leave --weights out");
    if (rc == 0 && t->restarts > 0 &&
        (!t->options.snapshot || strcmp(t->options.snapshot, "auto") != 0))
        return sac_fail(err, SAC_EINVAL,
                        "--restarts goes on from the newest snapshot: expected --snapshot auto");
    if (rc == 0 && t->ranks > 0 && strcmp(t->device, "cpu") != 0)
        return sac_fail(err, SAC_EINVAL, "--ranks is for the CPU; several GPUs: --device cuda:0,1");
    if (t->options.out && strcmp(t->options.out, "none") == 0)
        t->options.out = NULL;
    t->options.stages = t->stages;
    return rc;
}

/* ---- The command ----------------------------------------------------------- */

static const char *environment(const char *name)
{
    return getenv(name);
}

static void on_event(void *user, const struct sac_train_event *event)
{
    struct train *t = user;

    sac_train_log_event(&t->log, event);
}

/* Events are rank 0's; signals come to each process. Until now they end it. */
static void on_begin(void *user)
{
    const struct train *t = user;

    sac_signals_catch(t->on_sigint, t->on_sighup);
}

/* The GPU of a process's place on its machine, of those that it is shown: some launchers
 * show each process its own alone. */
static int name_own(const struct train *t, char *ret, size_t size, struct sac_error *err)
{
    int count = 0, rc = sac_device_cuda_count(&count, err);

    if (rc == 0 && count == 0)
        rc = sac_fail(err, SAC_ENOENT, "--device cuda: there is no GPU");
    if (rc == 0)
        snprintf(ret, size, "cuda:%d", t->process.local % count);
    return rc;
}

/* One device for each rank of this process. "cuda" among several processes is one GPU. */
static int open_devices(struct train *t, struct sac_error *err)
{
    char own[32];
    int rc = 0;

    if (t->process.world > 1 && strcmp(t->device, "cuda") == 0) {
        rc = name_own(t, own, sizeof own, err);
        t->device = own;
    }
    if (rc != 0)
        return rc;
    if (strncmp(t->device, "cuda", 4) == 0)
        return sac_devices_open(t->devices, SAC_GROUP_MAX, &t->device_count, t->device, err);
    rc = sac_device_open(&t->devices[0], t->device, err);
    t->device_count = rc == 0;
    return rc;
}

static void close_devices(struct train *t)
{
    while (t->device_count > 0)
        sac_device_close(t->devices[--t->device_count]);
}

/* The CPU is one device, for any number of ranks. */
static int run_crew(struct train *t, struct sac_error *err)
{
    struct sac_device *devices[SAC_GROUP_MAX];
    struct sac_crew_options crew = {.trainer = &t->options,
                                    .devices = devices,
                                    .count = t->ranks > 0 ? t->ranks : t->device_count,
                                    .process = &t->process,
                                    .communicates = t->communicates,
                                    .on_begin = on_begin};

    for (int i = 0; i < crew.count; i++)
        devices[i] = t->devices[t->ranks > 0 ? 0 : i];
    int rc = sac_crew_run(&crew, err);
    sac_train_log_clear(&t->log);
    return rc;
}

static int run(struct train *t, struct sac_error *err)
{
    int rc = open_devices(t, err);

    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a sentence, as a full disk is */
    if (rc == 0)
        rc = sac_flag_precision(t->precision, t->devices[0], &t->options.precision, err);
    t->running = rc == 0;
    if (rc == 0)
        rc = run_crew(t, err);
    close_devices(t);
    return rc;
}

static int read_process(struct train *t, struct sac_error *err)
{
    int rc = sac_ranks_read(&t->process, environment, err);

    if (rc == 0 && t->process.mpi && t->process.world > 1 && t->restarts > 0)
        rc = sac_fail(err, SAC_EINVAL,
                      "--restarts: mpirun ends with the first process that is lost, and has to be "
                      "started again itself");
    return rc;
}

/* --finetune is a command of its own that shares this one's name. */
static bool is_finetune(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--finetune") == 0 || strncmp(argv[i], "--finetune=", 11) == 0)
            return true;
    return false;
}

int sac_command_train(int argc, char **argv)
{
    if (is_finetune(argc, argv))
        return sac_command_finetune(argc, argv);
    struct train t = {
        .options = {.out = "auto"},
        .device = "cpu",
        .on_sigint = SAC_TRAIN_STOP,
        .on_sighup = SAC_TRAIN_SNAPSHOT,
    };
    struct sac_error err = {0};
    bool wants_help = false;
    int rc = parse(&t, argc, argv, &wants_help, &err);

    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    if (rc)
        return sac_usage_error("train", "%s", err.text);
    if (read_process(&t, &err) != 0)
        return sac_command_failed(&err);
    if (t.restarts > 0 && sac_supervise(t.restarts, &rc))
        return rc;
    t.options.on_event = on_event;
    t.options.request = sac_signals_asked;
    t.options.user = &t;
    t.log.terminal = isatty(STDERR_FILENO) && !t.log.json;
    rc = run(&t, &err);
    if (rc != 0)
        sac_command_failed(&err);
    return rc == 0 ? 0 : rc == SAC_EDEVICE && t.running ? SAC_EXIT_LOST : 1;
}
