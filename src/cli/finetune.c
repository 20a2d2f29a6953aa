/* saccade train --finetune: from a folder of pictures to a model, with one command. */
#include "cli/finetune.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/signals.h"
#include "cli/train_log.h"
#include "train/adapt.h"

static const char help[] =
    "Usage: saccade train --finetune MODEL_DIR --data FOLDER --out DIR [options]\n\n"
    "Teaches a model other classes: divides the pictures, chooses how to train and says why,\n"
    "trains, tests, and leaves a model directory with a report in DIR.\n\n"
    "  --data PATH         a folder of a folder a class, a list of pictures, or an LMDB;\n"
    "                      one with train and val or test inside is all of these parts\n"
    "  --out DIR           new, empty, or a run's, which goes on; its train_val.prototxt and\n"
    "                      solver.prototxt may be edited before\n"
    "  --val-data PATH, --test-data PATH   instead of parts of --data\n"
    "  --val X, --test X   those parts of each class (0.1 and 0.2; or 10%)\n"
    "  --labels F          names of the classes, where the data has none\n"
    "  --from-scratch      the model's net, without its weights\n\n"
    "Instead of what would be chosen:\n"
    "  --epochs X, --batch N, --rate X   how long, how many at a time, how fast\n"
    "  --last-mult X, --early-mult X     the new layer's rate over that; the other layers'\n"
    "  --frozen N          layers, from the input on, that stay as they are\n"
    "  --decay X, --smoothing X          of weights; of labels\n"
    "  --scaled-to N       side of the pictures before they are cropped\n"
    "  --area X, --light X, --flip yes|no   random crops, light, mirroring\n"
    "  --patience N        epochs without a better validation before it stops\n\n"
    "  --precision f32|bf16, --threads N, --workers N, --seed N, --device cpu, --log-json\n"
    "                      as without --finetune\n\n"
    "Example: saccade train --finetune models/squeezenet --data flowers/ --out flowers-model\n";

enum {
    FLAG_FINETUNE = SAC_FLAG_OWN,
    FLAG_DATA,
    FLAG_OUT,
    FLAG_VAL_DATA,
    FLAG_TEST_DATA,
    FLAG_VAL,
    FLAG_TEST,
    FLAG_SCRATCH,
    FLAG_EPOCHS,
    FLAG_RATE,
    FLAG_LAST_MULT,
    FLAG_EARLY_MULT,
    FLAG_FROZEN,
    FLAG_DECAY,
    FLAG_SMOOTHING,
    FLAG_SCALED_TO,
    FLAG_AREA,
    FLAG_LIGHT,
    FLAG_FLIP,
    FLAG_PATIENCE,
    FLAG_THREADS,
    FLAG_WORKERS,
    FLAG_SEED,
    FLAG_LOG_JSON,
};

static const struct option long_options[] = {
    {"finetune", required_argument, NULL, FLAG_FINETUNE},
    {"data", required_argument, NULL, FLAG_DATA},
    {"out", required_argument, NULL, FLAG_OUT},
    {"val-data", required_argument, NULL, FLAG_VAL_DATA},
    {"test-data", required_argument, NULL, FLAG_TEST_DATA},
    {"val", required_argument, NULL, FLAG_VAL},
    {"test", required_argument, NULL, FLAG_TEST},
    {"labels", required_argument, NULL, SAC_FLAG_LABELS},
    {"from-scratch", no_argument, NULL, FLAG_SCRATCH},
    {"epochs", required_argument, NULL, FLAG_EPOCHS},
    {"batch", required_argument, NULL, SAC_FLAG_BATCH},
    {"rate", required_argument, NULL, FLAG_RATE},
    {"last-mult", required_argument, NULL, FLAG_LAST_MULT},
    {"early-mult", required_argument, NULL, FLAG_EARLY_MULT},
    {"frozen", required_argument, NULL, FLAG_FROZEN},
    {"decay", required_argument, NULL, FLAG_DECAY},
    {"smoothing", required_argument, NULL, FLAG_SMOOTHING},
    {"scaled-to", required_argument, NULL, FLAG_SCALED_TO},
    {"area", required_argument, NULL, FLAG_AREA},
    {"light", required_argument, NULL, FLAG_LIGHT},
    {"flip", required_argument, NULL, FLAG_FLIP},
    {"patience", required_argument, NULL, FLAG_PATIENCE},
    {"precision", required_argument, NULL, SAC_FLAG_PRECISION},
    {"threads", required_argument, NULL, FLAG_THREADS},
    {"workers", required_argument, NULL, FLAG_WORKERS},
    {"seed", required_argument, NULL, FLAG_SEED},
    {"log-json", no_argument, NULL, FLAG_LOG_JSON},
    {"device", required_argument, NULL, SAC_FLAG_DEVICE},
    {"help", no_argument, NULL, SAC_FLAG_HELP},
    {0}};

struct command {
    struct finetune f;
    const char *precision;
    int threads;
    struct sac_train_log log;
    uint64_t start_ns, shown_ns;
    int64_t start_iteration;
    bool progress; /* a line of it stands on the terminal */
    enum sac_precision how;
};

/* ---- The command line --------------------------------------------------------- */

static int read_flip(const char *value, int *ret, struct sac_error *err)
{
    *ret = strcmp(value, "yes") == 0;
    if (*ret || strcmp(value, "no") == 0)
        return 0;
    return sac_fail(err, SAC_EINVAL, "--flip: expected yes or no, found \"%.40s\"", value);
}

/* What the choices would have been; 1: another option. */
static int take_choice(struct sac_tuning *t, int option, const char *value, struct sac_error *err)
{
    switch (option) {
    case FLAG_EPOCHS:
        return sac_flag_number("--epochs", value, 0.01, 100000, &t->epochs, err);
    case SAC_FLAG_BATCH:
        return sac_flag_int("--batch", value, 1, 65536, &t->batch, err);
    case FLAG_RATE:
        return sac_flag_number("--rate", value, 1e-9, 100, &t->rate, err);
    case FLAG_LAST_MULT:
        return sac_flag_number("--last-mult", value, 1e-6, 1e6, &t->last_mult, err);
    case FLAG_EARLY_MULT:
        return sac_flag_number("--early-mult", value, 1e-6, 1e6, &t->early_mult, err);
    case FLAG_FROZEN:
        return sac_flag_int("--frozen", value, 0, 100000, &t->frozen, err);
    case FLAG_DECAY:
        return sac_flag_number("--decay", value, 0, 1, &t->decay, err);
    case FLAG_SMOOTHING:
        return sac_flag_number("--smoothing", value, 0, 0.999, &t->smoothing, err);
    case FLAG_SCALED_TO:
        return sac_flag_int("--scaled-to", value, 1, 16384, &t->resize, err);
    case FLAG_AREA:
        return sac_flag_number("--area", value, 0, 1, &t->area_min, err);
    case FLAG_LIGHT:
        return sac_flag_number("--light", value, 0, 0.999, &t->color, err);
    case FLAG_FLIP:
        return read_flip(value, &t->flip, err);
    case FLAG_PATIENCE:
        return sac_flag_int("--patience", value, 1, 1000000, &t->patience, err);
    default:
        return 1;
    }
}

static int take_number(struct command *c, int option, const char *value, struct sac_error *err)
{
    struct finetune *f = &c->f;
    int seed = 0, rc;

    switch (option) {
    case FLAG_VAL:
        return sac_flag_share("--val", value, 0.001, 0.9, &f->shares[PART_VALIDATION], err);
    case FLAG_TEST:
        return sac_flag_share("--test", value, 0, 0.9, &f->shares[PART_TEST], err);
    case FLAG_THREADS:
        return sac_flag_int("--threads", value, 1, SAC_TRAIN_THREADS_MAX, &c->threads, err);
    case FLAG_WORKERS:
        return sac_flag_int("--workers", value, 1, 64, &f->workers, err);
    case FLAG_SEED:
        rc = sac_flag_int("--seed", value, 0, INT32_MAX, &seed, err);
        f->seed = (uint64_t)seed;
        return rc;
    case FLAG_LOG_JSON:
        f->json = true;
        return 0;
    case FLAG_SCRATCH:
        f->scratch = true;
        return 0;
    default:
        return 1;
    }
}

static void note_given(struct finetune *f, int option)
{
    for (const struct option *o = long_options; o->name; o++)
        if (o->val == option)
            sac_finetune_given(f, o->name);
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct command *c = user;
    struct finetune *f = &c->f;
    int rc = take_choice(&f->tuning, option, value, err);

    note_given(f, option);
    if (rc == 1)
        rc = take_number(c, option, value, err);
    if (rc != 1)
        return rc;
    *(option == FLAG_FINETUNE     ? &f->model_dir
      : option == FLAG_DATA       ? &f->data
      : option == FLAG_OUT        ? &f->out
      : option == FLAG_VAL_DATA   ? &f->validation_data
      : option == FLAG_TEST_DATA  ? &f->test_data
      : option == SAC_FLAG_LABELS ? &f->labels
      : option == SAC_FLAG_DEVICE ? &f->device_name
                                  : &c->precision) = value;
    return 0;
}

static int parse(struct command *c, int argc, char **argv, bool *ret_help, struct sac_error *err)
{
    const struct finetune *f = &c->f;
    int rc = sac_flags_parse(argc, argv, long_options, take, c, ret_help, err);

    if (rc != 0 || *ret_help)
        return rc;
    if (!f->model_dir || !f->data || !f->out)
        return sac_fail(err, SAC_EINVAL, "--finetune MODEL_DIR needs --data and --out");
    if (f->shares[PART_VALIDATION] + f->shares[PART_TEST] > 0.95)
        return sac_fail(err, SAC_EINVAL, "--val and --test leave nothing to train with");
    return 0;
}

/* ---- What training says ---------------------------------------------------------- */

static void clear_line(struct command *c)
{
    if (c->progress)
        fputs("\r\033[K", stderr);
    c->progress = false;
}

static void put_progress(struct command *c, const struct sac_train_event *e)
{
    uint64_t now = sac_clock_ns();
    double seconds = (double)(now - c->start_ns) / 1e9;
    double rate = (double)(e->iteration - c->start_iteration) / (seconds > 0 ? seconds : 1);
    long left = rate > 0 ? (long)((double)(e->max_iter - e->iteration) / rate) : 0;

    if (!c->log.terminal || now - c->shown_ns < 200000000)
        return;
    c->shown_ns = now;
    c->progress = true;
    fprintf(stderr, "\r\033[K%lld of %lld, loss %.4g, %ld:%02ld:%02ld left",
            (long long)e->iteration, (long long)e->max_iter, e->loss, left / 3600, left / 60 % 60,
            left % 60);
}

double sac_finetune_epoch(const struct finetune *f)
{
    return (double)f->items[PART_TRAIN] / f->tuning.batch;
}

static void put_tested(struct command *c)
{
    const struct finetune_curve *curve = &c->f.curve;
    double epoch = sac_finetune_epoch(&c->f);

    if (curve->count == 0)
        return;
    const struct sac_report_point *p = &curve->points[curve->count - 1];
    clear_line(c);
    fprintf(stderr, "epoch %.3g: loss %.4g, validation %.4g, %.2f %% right\n",
            (double)p->iteration / epoch, p->train_loss, p->loss, 100 * p->accuracy);
}

static void put_event(struct command *c, const struct sac_train_event *e)
{
    switch (e->kind) {
    case SAC_TRAIN_LOADED:
        fprintf(stderr, "%s: %s\n", e->name, e->text);
        break;
    case SAC_TRAIN_RESTORED:
        fprintf(stderr, "going on from %s\n", e->name);
        break;
    case SAC_TRAIN_TESTED:
        put_tested(c);
        break;
    case SAC_TRAIN_STEP:
        put_progress(c, e);
        break;
    case SAC_TRAIN_STOPPED:
        clear_line(c);
        fprintf(stderr, "stopped early%s%s\n", e->text ? ": " : "", e->text ? e->text : "");
        break;
    default:
        break;
    }
}

static void on_event(void *user, const struct sac_train_event *e)
{
    struct command *c = user;

    if (e->kind == SAC_TRAIN_START) {
        c->start_ns = sac_clock_ns();
        c->start_iteration = e->iteration;
    }
    if (e->kind == SAC_TRAIN_WRITTEN)
        c->f.best = e->best;
    if (e->kind == SAC_TRAIN_DONE || (e->kind == SAC_TRAIN_STOPPED && e->text))
        c->f.trained = true;
    c->f.iterations = e->iteration;
    c->f.max_iter = e->max_iter;
    sac_finetune_curve_event(&c->f.curve, e);
    if (c->f.json)
        sac_train_log_event(&c->log, e);
    else
        put_event(c, e);
}

static void put_note(enum sac_log_level level, const char *line)
{
    struct sac_buf out = {0};

    (void)level;
    sac_buf_puts(&out, "{\"event\":\"note\",\"text\":");
    sac_buf_put_json(&out, line, strlen(line));
    sac_buf_puts(&out, "}\n");
    if (!out.failed)
        fwrite(out.data, 1, out.len, stderr);
    sac_buf_done(&out);
}

void sac_finetune_say(const struct finetune *f, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (f->json)
        put_note(SAC_LOG_INFO, text);
    else
        fprintf(stderr, "%s\n", text);
}

/* On the stream of JSON nothing else may stand. */
static void put_choices_json(const struct finetune *f)
{
    struct sac_buf out = {0};
    const struct sac_tuning_choice *c;

    sac_buf_printf(&out,
                   "{\"event\":\"data\",\"classes\":%d,\"train\":%lld,\"validation\":%lld,"
                   "\"test\":%lld}\n",
                   f->classes, (long long)f->items[PART_TRAIN],
                   (long long)f->items[PART_VALIDATION], (long long)f->items[PART_TEST]);
    for (int i = 0; i < f->choices.count; i++) {
        c = &f->choices.choice[i];
        const char *const texts[] = {c->name, c->value, c->why};
        static const char *const names[] = {"name", "value", "why"};
        sac_buf_puts(&out, "{\"event\":\"choice\"");
        for (int k = 0; k < 3; k++) {
            sac_buf_printf(&out, ",\"%s\":", names[k]);
            sac_buf_put_json(&out, texts[k], strlen(texts[k]));
        }
        sac_buf_puts(&out, "}\n");
    }
    if (!out.failed)
        fwrite(out.data, 1, out.len, stderr);
    sac_buf_done(&out);
}

static void put_choices(const struct finetune *f)
{
    if (f->json) {
        put_choices_json(f);
        return;
    }
    fprintf(stderr, "%d classes; %lld pictures to train with, %lld to validate, %lld to test\n",
            f->classes, (long long)f->items[PART_TRAIN], (long long)f->items[PART_VALIDATION],
            (long long)f->items[PART_TEST]);
    for (int i = 0; i < f->choices.count; i++)
        fprintf(stderr, "  %-16s %-18s %s\n", f->choices.choice[i].name, f->choices.choice[i].value,
                f->choices.choice[i].why);
}

/* ---- The steps -------------------------------------------------------------------- */

static int open_model(struct finetune *f, struct sac_error *err)
{
    const struct sac_model_files files = {.dir = f->model_dir};
    int rc = sac_model_open(&f->model, &files, NULL, err);

    if (rc == 0)
        rc = sac_caffe_net_load(&f->deploy, sac_model_deploy_path(f->model), err);
    return rc;
}

static int choose(struct finetune *f, struct sac_error *err)
{
    const struct sac_preprocess *how = sac_model_preprocess(f->model);
    const struct sac_tuning_facts facts = {
        .classes = f->classes,
        .train_items = f->items[PART_TRAIN],
        .validation_items = f->items[PART_VALIDATION],
        .least = f->least,
        .learnable = sac_adapt_learnable(f->deploy.net),
        .side = how->crop_width < how->crop_height ? how->crop_width : how->crop_height,
        .scratch = f->scratch,
    };

    return sac_tuning_choose(&f->tuning, &facts, &f->choices, err);
}

static int train(struct command *c, struct sac_error *err)
{
    struct finetune *f = &c->f;
    struct sac_trainer *trainer = NULL;
    struct sac_trainer_options options = {
        .solver = f->solver,
        .weights = f->scratch ? NULL : sac_model_weights_path(f->model),
        .snapshot = "auto",
        .out = f->out,
        .labels = f->labels_path,
        .keep_last = 1,
        .keep_best = true,
        .patience = f->tuning.patience,
        .metric = "accuracy",
        .threads = f->workers,
        .compute_threads = c->threads,
        .precision = c->how,
        .device = f->device,
        .on_event = on_event,
        .request = sac_signals_asked,
        .user = c,
    };
    int rc = sac_finetune_curve_open(f, err);

    if (rc == 0)
        rc = sac_trainer_new(&trainer, &options, err);
    if (rc == 0) {
        sac_signals_catch(SAC_TRAIN_STOP, SAC_TRAIN_SNAPSHOT);
        rc = sac_trainer_run(trainer, err);
        clear_line(c);
        sac_train_log_clear(&c->log);
    }
    sac_trainer_free(trainer);
    f->seconds = sac_finetune_curve_seconds(&f->curve);
    return rc == 0 ? sac_finetune_trained(f, err) : rc;
}

/* All that can be refused is refused before anything is made. */
static int begin(struct finetune *f, struct sac_error *err)
{
    int rc = sac_finetune_plan(f, err);

    if (rc == 0)
        rc = choose(f, err);
    return rc == 0 ? sac_finetune_begin(f, err) : rc;
}

static int run(struct command *c, struct sac_error *err)
{
    struct finetune *f = &c->f;
    int rc = sac_device_open(&f->device, f->device_name, err);

    if (rc == 0)
        rc = sac_flag_precision(c->precision, f->device, &c->how, err);
    if (rc == 0)
        rc = open_model(f, err);
    if (rc == 0)
        rc = sac_finetune_look(f, err);
    if (rc == 0)
        rc = f->run ? sac_finetune_resume(f, err) : begin(f, err);
    if (rc == 0)
        put_choices(f);
    if (rc == 0)
        rc = f->trained ? sac_finetune_curve_open(f, err) : train(c, err);
    return rc == 0 ? sac_finetune_report(f, err) : rc;
}

static void done(struct finetune *f)
{
    sac_finetune_curve_done(&f->curve);
    sac_caffe_net_done(&f->deploy);
    sac_model_unref(f->model);
    sac_device_close(f->device);
    for (int part = 0; part < PARTS; part++) {
        free(f->paths[part]);
        sac_buf_done(&f->lists[part]);
    }
    sac_data_parts_done(&f->parts);
    sac_labels_done(&f->names);
    sac_labels_done(&f->given_names);
    free(f->renumber);
    sac_finetune_run_done(f);
    free(f->labels_path);
    free(f->solver);
}

/* "train --finetune --help" is no model called --help. */
static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0)
            return true;
    return false;
}

int sac_command_finetune(int argc, char **argv)
{
    struct command c = {
        .f = {.device_name = "cpu",
              .tuning = SAC_TUNING_OPEN,
              .shares = {[PART_VALIDATION] = 0.1, [PART_TEST] = 0.2},
              .seed = 1,
              .lock = -1,
              .best = -1},
    };
    struct sac_error err = {0};
    bool wants_help = false;
    int rc = asks_for_help(argc, argv) ? 0 : parse(&c, argc, argv, &wants_help, &err);

    if (wants_help || asks_for_help(argc, argv)) {
        fputs(help, stdout);
        return 0;
    }
    if (rc)
        return sac_usage_error("train --finetune", "%s", err.text);
    c.log.json = c.f.json;
    if (c.f.json)
        sac_log_set_sink(put_note, SAC_LOG_INFO);
    c.log.terminal = isatty(STDERR_FILENO) && !c.f.json;
    rc = run(&c, &err);
    done(&c.f);
    return rc ? sac_command_failed(&err) : 0;
}
