/* saccade model */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/flags.h"
#include "data/model_get.h"
#include "model/model.h"

static const char help[] =
    "Usage: saccade model list [--json]\n"
    "       saccade model get NAME|ARCHIVE [options]\n\n"
    "list: the public models that are known, with what their makers say of them.\n"
    "get: fetches one, checks it against its published sum and leaves a model directory.\n"
    "ARCHIVE is the address or path of a packed model (.tar.gz, .tar, .zip), such as DIGITS'\n"
    "download archive.\n"
    "A broken connection is resumed, also by the next run; a wrong sum is refused.\n\n"
    "  --out DIR      the model directory to be; ./NAME unless said\n"
    "  --from F       weights from this address or file instead of the published\n"
    "  --sha256 HEX   what those weights' sum is, instead of the published one\n"
    "  --labels F     a file of labels instead of ImageNet's, which are fetched\n"
    "  --tries N      in a row without a new byte (5)\n"
    "  --json         list as JSON\n\n"
    "Example: saccade model get squeezenet && saccade serve --model squeezenet\n";

enum {
    FLAG_OUT = SAC_FLAG_OWN,
    FLAG_FROM,
    FLAG_SHA256,
    FLAG_TRIES,
    FLAG_JSON,
};

static const struct option long_options[] = {{"out", required_argument, NULL, FLAG_OUT},
                                             {"from", required_argument, NULL, FLAG_FROM},
                                             {"sha256", required_argument, NULL, FLAG_SHA256},
                                             {"labels", required_argument, NULL, SAC_FLAG_LABELS},
                                             {"tries", required_argument, NULL, FLAG_TRIES},
                                             {"json", no_argument, NULL, FLAG_JSON},
                                             {"help", no_argument, NULL, SAC_FLAG_HELP},
                                             {0}};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* ---- list ------------------------------------------------------------------ */

static double megabytes(const struct sac_known_model *model)
{
    return (double)model->weights * 4 / 1e6;
}

static void put_percent(char *to, size_t size, double percent)
{
    if (percent > 0)
        snprintf(to, size, "%.1f", percent);
    else
        snprintf(to, size, "-");
}

static void list_plainly(void)
{
    printf("%-11s %7s  %5s %5s  %s\n", "name", "MB", "top-1", "top-5", "what, licence");
    for (const struct sac_known_model *m = sac_known_models; m->name; m++) {
        char top1[16], top5[16];
        put_percent(top1, sizeof top1, m->top1);
        put_percent(top5, sizeof top5, m->top5);
        printf("%-11s %7.1f  %5s %5s  %s; %s%s%s\n", m->name, megabytes(m), top1, top5, m->title,
               m->license, m->measured ? "; measured " : "", m->measured ? m->measured : "");
    }
    printf("\nAccuracy in percent on ImageNet's validation set, as published.\n");
}

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, text ? json_string(text) : json_null());
}

static json_t *describe(const struct sac_known_model *m)
{
    const struct sac_model_definition *own = sac_model_definition_of(m->name);
    json_t *object = json_object(), *settings = json_loads(own->settings, 0, NULL);

    set_text(object, "name", m->name);
    set_text(object, "title", m->title);
    json_object_set_new(object, "weights", json_integer(m->weights));
    set_text(object, "file", m->file);
    set_text(object, "url", m->url);
    set_text(object, "page", m->page);
    set_text(object, "sha1", m->sha1);
    set_text(object, "sha256", m->sha256);
    set_text(object, "sum_from", m->sum_from);
    set_text(object, "license", m->license);
    json_object_set_new(object, "top1", m->top1 > 0 ? json_real(m->top1) : json_null());
    json_object_set_new(object, "top5", m->top5 > 0 ? json_real(m->top5) : json_null());
    set_text(object, "measured", m->measured);
    set_text(object, "mean_url", m->mean_url);
    json_object_set(object, "preprocess", json_object_get(settings, "preprocess"));
    json_decref(settings);
    return object;
}

static int list(bool json)
{
    if (!json) {
        list_plainly();
        return 0;
    }
    json_t *all = json_array();
    for (const struct sac_known_model *m = sac_known_models; m->name; m++)
        json_array_append_new(all, describe(m));
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
    return 0;
}

/* ---- get ------------------------------------------------------------------- */

struct shown {
    bool terminal;
    const char *file;
    uint64_t start_ns, last_ns;
    int64_t first; /* bytes that were there at the start; -1: not known yet */
};

static void begins(void *context, const char *file, const char *from)
{
    struct shown *shown = context;

    *shown = (struct shown){
        .terminal = shown->terminal, .file = file, .start_ns = sac_clock_ns(), .first = -1};
    fprintf(stderr, "%s from %s\n", file, from);
}

static void draw(const struct shown *shown, uint64_t now, int64_t have, int64_t total)
{
    double seconds = (double)(now - shown->start_ns) / 1e9;
    double rate = seconds > 0 ? (double)(have - shown->first) / 1e6 / seconds : 0;

    fprintf(stderr, "\r%s: %.1f", shown->file, (double)have / 1e6);
    if (total > 0)
        fprintf(stderr, " of %.1f MB, %d %%", (double)total / 1e6, (int)(100 * have / total));
    else
        fprintf(stderr, " MB");
    fprintf(stderr, ", %.1f MB/s\033[K", rate);
}

static bool progress(void *context, int64_t have, int64_t total)
{
    struct shown *shown = context;
    uint64_t now = sac_clock_ns();

    if (shown->first < 0)
        shown->first = have;
    if (shown->terminal && have > 0 && now - shown->last_ns > 200000000) {
        draw(shown, now, have, total);
        shown->last_ns = now;
    }
    return !stopped;
}

/* It opens as a model: the net stands, the weights fit by name. */
static int check(void *context, const char *folder, struct sac_error *err)
{
    struct sac_model_files files = {.dir = folder};
    struct sac_model_overrides none = SAC_MODEL_OVERRIDES_NONE;
    struct sac_model *model = NULL;
    int rc = sac_model_open(&model, &files, &none, err);

    (void)context;
    sac_model_unref(model);
    return rc;
}

static bool is_archive(const char *name)
{
    return strchr(name, '/') || strstr(name, ".tar") || strstr(name, ".tgz") ||
           strstr(name, ".zip");
}

/* "http://x/flowers.tar.gz?epoch=3" → "flowers" */
static int folder_for(const char *name, char **ret, struct sac_error *err)
{
    const char *path = strstr(name, "://") ? strstr(name, "://") + 3 : name;
    size_t size = strcspn(path, "?#");
    const char *start = memrchr(path, '/', size);

    start = start ? start + 1 : path;
    size = strcspn(start, ".?#");
    if (size == 0)
        return sac_fail(err, SAC_EINVAL, "--out must say what \"%.80s\" is to be called", name);
    *ret = strndup(start, size);
    return *ret ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");
}

static void print_got(const struct sac_model_get_options *options,
                      const struct sac_known_model *model,
                      const struct sac_model_get_result *result)
{
    printf("%s: %s, %.1f MB, SHA-256 %s%s\n", options->out, model ? model->title : options->from,
           (double)result->bytes / 1e6, result->sha256, result->resumes ? ", resumed" : "");
    if (model && !options->sha256)
        printf("The sum agrees with %s. Licence: %s.\n", model->sum_from, model->license);
}

/* What is said as NAME: a known model, or NULL for an archive. */
static int settle(const char *name, struct sac_model_get_options *options, char **folder,
                  const struct sac_known_model **ret, struct sac_error *err)
{
    *ret = sac_known_model_find(name);
    if (!*ret && !is_archive(name))
        return sac_fail(err, SAC_ENOENT,
                        "no model \"%.40s\" is known; \"saccade model list\" shows those that are",
                        name);
    if (!*ret && options->from)
        return sac_fail(err, SAC_EINVAL, "--from goes with a known model's name");
    if (!*ret)
        options->from = name;
    if (options->out)
        return 0;
    int rc = folder_for(name, folder, err);
    options->out = *folder;
    return rc;
}

static int get(const char *name, struct sac_model_get_options *options, struct sac_error *err)
{
    const struct sac_known_model *model;
    struct shown shown = {.terminal = isatty(STDERR_FILENO)};
    struct sac_model_get_result result;
    struct sigaction action = {.sa_handler = on_signal};
    char *folder = NULL;
    int rc = settle(name, options, &folder, &model, err);

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    options->begins = begins;
    options->check = check;
    options->context = &shown;
    options->fetch.progress = progress;
    options->fetch.context = &shown;
    if (rc == 0)
        rc = model ? sac_model_get(model, options, &result, err)
                   : sac_model_get_archive(options, &result, err);
    fputs(shown.terminal && shown.last_ns ? "\n" : "", stderr);
    if (rc == 0)
        print_got(options, model, &result);
    free(folder);
    return rc;
}

/* ---- The command line ------------------------------------------------------ */

static int take_sha256(const char *value, const char **ret, struct sac_error *err)
{
    if (strlen(value) != 64 || strspn(value, "0123456789abcdefABCDEF") != 64)
        return sac_fail(err, SAC_EINVAL,
                        "--sha256: expected 64 hexadecimal digits, found \"%.80s\"", value);
    *ret = value;
    return 0;
}

struct model_command {
    struct sac_model_get_options options;
    bool json;
};

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct model_command *command = user;
    struct sac_model_get_options *options = &command->options;

    switch (option) {
    case FLAG_OUT:
        options->out = value;
        return 0;
    case FLAG_FROM:
        options->from = value;
        return 0;
    case FLAG_SHA256:
        return take_sha256(value, &options->sha256, err);
    case SAC_FLAG_LABELS:
        options->labels = value;
        return 0;
    case FLAG_TRIES:
        return sac_flag_int("--tries", value, 1, 100, &options->fetch.tries, err);
    default:
        command->json = true;
        return 0;
    }
}

int sac_command_model(int argc, char **argv)
{
    struct model_command command = {0};
    struct sac_error err = {0};
    bool wants_help;
    int rc = sac_flags_options(argc, argv, SAC_FLAGS_SHORT, long_options, take, &command,
                               &wants_help, &err);

    if (rc < 0)
        return sac_usage_error("model", "%s", err.text);
    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    const char *what = optind < argc ? argv[optind] : "";
    if (strcmp(what, "list") == 0 && argc - optind == 1)
        return list(command.json);
    if (strcmp(what, "get") == 0 && argc - optind == 2)
        return get(argv[optind + 1], &command.options, &err) < 0 ? sac_command_failed(&err) : 0;
    return sac_usage_error("model", "expected \"list\", \"get NAME\" or \"get ARCHIVE\"");
}
