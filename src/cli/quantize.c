/* saccade quantize */
#include "cli/quantize.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/durable.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/flags.h"
#include "net/layer.h"

static const char help[] =
    "Usage: saccade quantize MODEL_DIR --data LIST|FOLDER [options]\n\n"
    "Makes a model ready for --precision int8, and says what int8 and bf16 cost it. Some of\n"
    "the pictures give the range of each blob; the others, which decide nothing, are\n"
    "classified in f32, bf16 and int8. Writes precision.json beside the model; with it,\n"
    "--precision auto takes bf16 where its answers agree. int8 is never taken by itself.\n\n"
    "  --data D          pictures such as the model is to see: a folder, a folder of classes,\n"
    "                    a list with labels or without, an LMDB, CIFAR's files\n"
    "  --out DIR         a new model directory, instead of MODEL_DIR itself\n"
    "  --calibrate N     pictures for the ranges (32; at most a quarter of all)\n"
    "  --check N         pictures to classify (1000; what there is)\n"
    "  --rule mse|max    where a range ends: where cutting off and rounding cost least\n"
    "                    together, or at the largest number (mse)\n"
    "  --keep LAYER,…    layers that are not to be in 8 bits, beside those that lose much\n"
    "  --json            for programs\n"
    "  --device cpu      where to run\n\n";

enum {
    FLAG_DATA = SAC_FLAG_OWN,
    FLAG_OUT,
    FLAG_CALIBRATE,
    FLAG_CHECK,
    FLAG_RULE,
    FLAG_KEEP,
    FLAG_JSON
};

static const struct option long_options[] = {{"data", required_argument, NULL, FLAG_DATA},
                                             {"out", required_argument, NULL, FLAG_OUT},
                                             {"calibrate", required_argument, NULL, FLAG_CALIBRATE},
                                             {"check", required_argument, NULL, FLAG_CHECK},
                                             {"rule", required_argument, NULL, FLAG_RULE},
                                             {"keep", required_argument, NULL, FLAG_KEEP},
                                             {"json", no_argument, NULL, FLAG_JSON},
                                             SAC_MODEL_FLAGS,
                                             {0}};

/* How far int8's probabilities may be from f32's on the calibration pictures, as the
 * share of probability that goes elsewhere; and how many layers may be kept for it. */
static const double DISTANCE_MAX = 0.02;
enum { KEEP_SHARE = 4, KEEP_LISTED_MAX = 256, TRIAL_SHOTS = 8, TOP = 5 };

struct quantize {
    struct sac_model_flags flags;
    const char *dir, *data, *out;
    const char *kept[KEEP_LISTED_MAX];
    int kept_count, calibrate, check;
    enum sac_calibration_rule rule;
    bool json;
    struct sac_device *device;
    struct sac_model *model;
    struct sac_shots shots;
    struct sac_precision_report report;
    double distance;
};

/* ---- Ranges ---- */

static int find_ranges(struct quantize *q, struct sac_error *err)
{
    union sac_op_param pixels = sac_model_pixels(q->model);
    struct sac_calibration *calibration = NULL;
    int rc = sac_calibration_new(&calibration, sac_model_net(q->model), q->device, &pixels, err);

    for (int i = 0; rc == 0 && i < q->report.calibrated; i++)
        rc = sac_calibration_add(calibration, q->shots.pixels + (size_t)i * q->shots.picture_bytes,
                                 err);
    if (rc == 0)
        rc = sac_calibration_ranges(calibration, q->rule, &q->report.ranges, err);
    sac_calibration_free(calibration);
    return rc;
}

/* ---- Layers that lose much ---- */

/* Half the sum of what the probabilities differ by: of pairs that are sorted by size. */
static double distance_of(const struct sac_topk_pair *a, const struct sac_topk_pair *b, int classes,
                          double *scratch)
{
    double sum = 0;

    for (int i = 0; i < classes; i++)
        scratch[i] = 0;
    for (int i = 0; i < classes; i++) {
        if (a[i].index >= 0)
            scratch[a[i].index] += (double)a[i].value;
        if (b[i].index >= 0)
            scratch[b[i].index] -= (double)b[i].value;
    }
    for (int i = 0; i < classes; i++)
        sum += fabs(scratch[i]);
    return sum / 2;
}

/* Trials on the first calibration pictures. */
struct trial {
    struct quantize *q;
    struct sac_topk_pair *right, *found; /* shots × classes */
    double *scratch;
    int shots, classes;
};

static int try_ranges(struct trial *t, const struct sac_ranges *ranges, double *ret,
                      struct sac_error *err)
{
    struct quantize *q = t->q;
    double sum = 0;
    int rc = sac_shots_answer(&q->shots, 0, t->shots, q->model, q->device, SAC_PRECISION_INT8,
                              ranges, t->classes, t->found, err);

    for (int i = 0; rc == 0 && i < t->shots; i++) {
        size_t at = (size_t)i * (size_t)t->classes;
        sum += distance_of(t->right + at, t->found + at, t->classes, t->scratch);
    }
    if (rc == 0)
        *ret = sum / t->shots;
    return rc;
}

struct loss {
    const char *layer;
    double distance; /* with this layer alone in 8 bits */
};

static int by_distance(const void *a, const void *b)
{
    double left = ((const struct loss *)a)->distance, right = ((const struct loss *)b)->distance;

    return (left < right) - (left > right);
}

static bool is_multiplied(const struct sac_layer *layer)
{
    return strcmp(layer->type->name, "Convolution") == 0 ||
           strcmp(layer->type->name, "InnerProduct") == 0;
}

static int list_layers(const struct quantize *q, struct loss **ret, int *ret_count,
                       struct sac_error *err)
{
    const struct sac_net *net = sac_model_net(q->model);
    int layers = sac_net_layer_count(net);
    struct loss *losses = calloc((size_t)layers + 1, sizeof *losses);

    if (!losses)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    *ret_count = 0;
    for (int i = 0; i < layers; i++)
        if (is_multiplied(sac_net_layer(net, i)))
            losses[(*ret_count)++].layer = sac_net_layer(net, i)->name;
    *ret = losses;
    return 0;
}

/* Each layer alone in 8 bits: all the others are kept. */
static int rank_layers(struct trial *t, struct loss *losses, int count, struct sac_error *err)
{
    struct sac_ranges alone = t->q->report.ranges;
    char **others = calloc((size_t)count + 1, sizeof *others);
    int rc = others ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (int i = 0; rc == 0 && i < count; i++) {
        alone.keep = others;
        alone.keep_count = 0;
        for (int k = 0; k < count; k++)
            if (k != i)
                others[alone.keep_count++] = (char *)losses[k].layer;
        rc = try_ranges(t, &alone, &losses[i].distance, err);
    }
    free(others);
    if (rc == 0)
        qsort(losses, (size_t)count, sizeof *losses, by_distance);
    return rc;
}

static int keep(struct sac_ranges *ranges, const char *layer, struct sac_error *err)
{
    char **list = reallocarray(ranges->keep, (size_t)ranges->keep_count + 1, sizeof *ranges->keep);

    if (!list)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    ranges->keep = list;
    list[ranges->keep_count] = strdup(layer);
    return list[ranges->keep_count++] ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");
}

/* Those that lose most, until the rest loses little or a quarter of them is kept. */
static int keep_losers(struct trial *t, struct sac_error *err)
{
    struct quantize *q = t->q;
    struct sac_ranges *ranges = &q->report.ranges;
    struct loss *losses = NULL;
    int count = 0, rc = try_ranges(t, ranges, &q->distance, err);

    if (rc != 0 || q->distance <= DISTANCE_MAX)
        return rc;
    rc = list_layers(q, &losses, &count, err);
    if (rc == 0)
        rc = rank_layers(t, losses, count, err);
    for (int i = 0; rc == 0 && i < count / KEEP_SHARE && q->distance > DISTANCE_MAX; i++) {
        if (sac_ranges_keeps(ranges, losses[i].layer))
            continue;
        rc = keep(ranges, losses[i].layer, err);
        if (rc == 0)
            rc = try_ranges(t, ranges, &q->distance, err);
    }
    free(losses);
    return rc;
}

static int choose_layers(struct quantize *q, struct sac_error *err)
{
    struct trial t = {.q = q, .classes = sac_model_class_count(q->model)};
    int rc = 0;

    t.shots = q->report.calibrated < TRIAL_SHOTS ? q->report.calibrated : TRIAL_SHOTS;
    t.right = calloc((size_t)t.shots * (size_t)t.classes, sizeof *t.right);
    t.found = calloc((size_t)t.shots * (size_t)t.classes, sizeof *t.found);
    t.scratch = calloc((size_t)t.classes, sizeof *t.scratch);
    if (!t.right || !t.found || !t.scratch)
        rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; rc == 0 && i < q->kept_count; i++)
        rc = keep(&q->report.ranges, q->kept[i], err);
    if (rc == 0)
        rc = sac_shots_answer(&q->shots, 0, t.shots, q->model, q->device, SAC_PRECISION_F32, NULL,
                              t.classes, t.right, err);
    if (rc == 0)
        rc = keep_losers(&t, err);
    free(t.right);
    free(t.found);
    free(t.scratch);
    return rc;
}

/* ---- What it costs ---- */

static void score(const struct quantize *q, const struct sac_topk_pair *right,
                  const struct sac_topk_pair *found, int topk, struct sac_precision_score *ret)
{
    const int *labels = q->shots.labels + q->report.calibrated;

    ret->measured = true;
    for (int i = 0; i < q->report.checked; i++) {
        const struct sac_topk_pair *pairs = found + (size_t)i * (size_t)topk;
        ret->agree += pairs[0].index == right[(size_t)i * (size_t)topk].index;
        for (int k = 0; k < topk && labels[i] >= 0; k++) {
            ret->top1 += k == 0 && pairs[k].index == labels[i];
            ret->top5 += pairs[k].index == labels[i];
        }
    }
}

static int check_one(struct quantize *q, enum sac_precision precision,
                     const struct sac_topk_pair *right, struct sac_topk_pair *found, int topk,
                     struct sac_precision_score *ret, struct sac_error *err)
{
    if (!(q->device->info.precisions & 1u << precision))
        return 0;
    int rc = sac_shots_answer(&q->shots, q->report.calibrated, q->report.checked, q->model,
                              q->device, precision, &q->report.ranges, topk, found, err);
    if (rc == 0)
        score(q, right, found, topk, ret);
    return rc;
}

static int check(struct quantize *q, struct sac_error *err)
{
    int classes = sac_model_class_count(q->model), topk = classes < TOP ? classes : TOP;
    size_t count = (size_t)q->report.checked * (size_t)topk;
    struct sac_topk_pair *right = calloc(count, sizeof *right),
                         *found = calloc(count, sizeof *found);
    int rc = right && found ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (int i = 0; i < q->report.checked; i++)
        q->report.labelled += q->shots.labels[q->report.calibrated + i] >= 0;
    if (rc == 0)
        rc = check_one(q, SAC_PRECISION_F32, right, right, topk, &q->report.f32, err);
    if (rc == 0)
        rc = check_one(q, SAC_PRECISION_BF16, right, found, topk, &q->report.bf16, err);
    if (rc == 0)
        rc = check_one(q, SAC_PRECISION_INT8, right, found, topk, &q->report.int8, err);
    free(right);
    free(found);
    return rc;
}

/* ---- Writing ---- */

static int copy_file(const char *from, const char *dir, const char *name, struct sac_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    char *to = NULL;
    int rc = sac_file_read(from, (size_t)4 << 30, &bytes, &size, err);

    if (rc == 0 && asprintf(&to, "%s/%s", dir, name) < 0) {
        to = NULL;
        rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    }
    if (rc == 0)
        rc = sac_durable_write(to, bytes, size, err);
    free(to);
    free(bytes);
    return rc;
}

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Of the files that a model directory may have, those that this one has. */
static int copy_others(const struct quantize *q, struct sac_error *err)
{
    static const char *const names[] = {"labels.txt", "synset_words.txt", "mean.binaryproto",
                                        "model.json"};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        char *from = NULL;
        if (asprintf(&from, "%s/%s", q->dir, names[i]) < 0)
            return sac_fail(err, SAC_ENOMEM, "out of memory");
        if (sac_file_exists(from))
            rc = copy_file(from, q->out, names[i], err);
        free(from);
    }
    return rc;
}

static int copy_model(const struct quantize *q, struct sac_error *err)
{
    const char *weights = sac_model_weights_path(q->model);
    int rc = 0;

    if (mkdir(q->out, 0777) < 0 && errno != EEXIST)
        return sac_fail_errno(err, errno, "%s", q->out);
    rc = copy_file(sac_model_deploy_path(q->model), q->out, "deploy.prototxt", err);
    if (rc == 0)
        rc = copy_file(weights, q->out, base_of(weights), err);
    return rc == 0 ? copy_others(q, err) : rc;
}

static int write_all(struct quantize *q, struct sac_error *err)
{
    char *path = NULL;
    int rc = sac_precision_identify(&q->report, sac_model_weights_path(q->model), err);

    if (rc == 0 && q->out)
        rc = copy_model(q, err);
    if (rc == 0 && asprintf(&path, "%s/%s", q->out ? q->out : q->dir, SAC_PRECISION_FILE) < 0) {
        path = NULL;
        rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    }
    if (rc == 0)
        rc = sac_precision_write(&q->report, path, err);
    free(path);
    return rc;
}

/* ---- Telling ---- */

static void tell_score(const struct quantize *q, const char *name,
                       const struct sac_precision_score *s)
{
    const struct sac_precision_report *r = &q->report;

    if (!s->measured)
        return;
    printf("%-5s %4d of %d", name, s->agree, r->checked);
    if (r->labelled > 0)
        printf("   %6.2f %%   %6.2f %%", 100. * s->top1 / r->labelled,
               100. * s->top5 / r->labelled);
    printf("\n");
}

static void tell(const struct quantize *q)
{
    const struct sac_precision_report *r = &q->report;

    printf("%s: ranges of %d blobs from %d pictures (%s); checked with %d others, %d with labels\n"
           "      like f32%s\n",
           sac_model_name(q->model), r->ranges.blob_count, r->calibrated,
           q->rule == SAC_CALIBRATE_MSE ? "mse" : "max", r->checked, r->labelled,
           r->labelled > 0 ? "      top 1      top 5" : "");
    tell_score(q, "f32", &r->f32);
    tell_score(q, "bf16", &r->bf16);
    tell_score(q, "int8", &r->int8);
    printf("on %d calibration pictures int8 moves %.2f %% of the probability\n",
           r->calibrated < TRIAL_SHOTS ? r->calibrated : TRIAL_SHOTS, 100 * q->distance);
    for (int i = 0; i < r->ranges.keep_count; i++)
        printf("%s%s", i ? ", " : "not in 8 bits: ", r->ranges.keep[i]);
    printf("%s--precision auto takes %s\n", r->ranges.keep_count ? "\n" : "",
           sac_precision_bf16_agrees(r) ? "bf16 where it is fast" : "f32");
}

static void put_score(struct sac_buf *out, const char *name, const struct sac_precision_score *s)
{
    if (s->measured)
        sac_buf_printf(out, ",\"%s\":{\"agree\":%d,\"top1\":%d,\"top5\":%d}", name, s->agree,
                       s->top1, s->top5);
}

static void tell_json(const struct quantize *q)
{
    const struct sac_precision_report *r = &q->report;
    struct sac_buf out = {0};

    sac_buf_printf(&out, "{\"calibrated\":%d,\"checked\":%d,\"labelled\":%d,\"distance\":%.6f",
                   r->calibrated, r->checked, r->labelled, q->distance);
    put_score(&out, "f32", &r->f32);
    put_score(&out, "bf16", &r->bf16);
    put_score(&out, "int8", &r->int8);
    sac_buf_puts(&out, ",\"keep\":[");
    for (int i = 0; i < r->ranges.keep_count; i++) {
        sac_buf_puts(&out, i ? "," : "");
        sac_buf_put_json(&out, r->ranges.keep[i], strlen(r->ranges.keep[i]));
    }
    sac_buf_printf(&out, "],\"auto\":\"%s\"}\n", sac_precision_bf16_agrees(r) ? "bf16" : "f32");
    fwrite(out.data, 1, out.len, stdout);
    sac_buf_done(&out);
}

/* ---- The command ---- */

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct quantize *q = user;

    switch (option) {
    case FLAG_DATA:
        q->data = value;
        return 0;
    case FLAG_OUT:
        q->out = value;
        return 0;
    case FLAG_CALIBRATE:
        return sac_flag_int("--calibrate", value, 1, 4096, &q->calibrate, err);
    case FLAG_CHECK:
        return sac_flag_int("--check", value, 1, 4096, &q->check, err);
    case FLAG_KEEP:
        return sac_flag_list("--keep", value, q->kept, KEEP_LISTED_MAX, &q->kept_count, err);
    case FLAG_JSON:
        q->json = true;
        return 0;
    case FLAG_RULE:
        if (strcmp(value, "mse") != 0 && strcmp(value, "max") != 0)
            return sac_fail(err, SAC_EINVAL, "--rule: expected mse or max, found \"%s\"", value);
        q->rule = strcmp(value, "max") == 0 ? SAC_CALIBRATE_MAX : SAC_CALIBRATE_MSE;
        return 0;
    default:
        return sac_model_flags_take(&q->flags, option, value, err);
    }
}

static int parse(struct quantize *q, int argc, char **argv, bool *ret_help, struct sac_error *err)
{
    int option, rc = 0;

    while (rc >= 0 &&
           (option = getopt_long(argc, argv, SAC_FLAGS_SHORT, long_options, NULL)) != -1) {
        *ret_help = option == SAC_FLAG_HELP;
        if (*ret_help)
            return 0;
        if (option == '?' || option == ':')
            return sac_flag_refused(option, argv, err);
        rc = take(q, option, optarg, err);
    }
    if (rc < 0)
        return rc;
    if (optind < argc && q->flags.dir_count == 0)
        q->flags.dirs[q->flags.dir_count++] = argv[optind++];
    if (optind < argc)
        return sac_fail(err, SAC_EINVAL, "\"%s\" is not understood", argv[optind]);
    if (q->flags.dir_count != 1)
        return sac_fail(err, SAC_EINVAL, "expected one model directory");
    if (!q->data)
        return sac_fail(err, SAC_EINVAL, "expected --data");
    if (q->flags.overrides.precision)
        return sac_fail(err, SAC_EINVAL, "--precision: all that the device has are compared");
    q->dir = q->flags.dirs[0];
    return 0;
}

/* A quarter of few pictures calibrates: most are to check. */
static int divide(struct quantize *q, struct sac_error *err)
{
    struct sac_precision_report *r = &q->report;
    int count = q->shots.count;

    if (count < 2)
        return sac_fail(err, SAC_EINVAL,
                        "%s: %d picture%s; expected one to calibrate and one to check at least",
                        q->data, count, count == 1 ? "" : "s");
    r->calibrated = q->calibrate < count / 4 ? q->calibrate : count / 4;
    r->calibrated = r->calibrated > 0 ? r->calibrated : 1;
    r->checked = count - r->calibrated < q->check ? count - r->calibrated : q->check;
    r->rule = q->rule;
    snprintf(r->device, sizeof r->device, "%s", q->device->table->kind);
    return 0;
}

static int open_all(struct quantize *q, struct sac_error *err)
{
    int rc = sac_device_open(&q->device, q->flags.device, err);

    q->flags.overrides.precision = "f32";
    if (rc == 0 && !(q->device->info.precisions & 1u << SAC_PRECISION_INT8))
        rc = sac_fail(err, SAC_EUNSUPPORTED,
                      "device %s has no fast int8: nothing can be measured here",
                      q->device->info.name);
    if (rc == 0)
        rc = sac_model_flags_open(&q->flags, &q->model, err);
    return rc < 0 ? rc : 0;
}

static int run(struct quantize *q, struct sac_error *err)
{
    int rc = open_all(q, err);

    if (rc == 0)
        rc = sac_shots_load(&q->shots, q->model, q->device, q->data, q->calibrate + q->check, err);
    if (rc == 0)
        rc = divide(q, err);
    if (rc == 0)
        rc = find_ranges(q, err);
    if (rc == 0)
        rc = choose_layers(q, err);
    if (rc == 0)
        rc = check(q, err);
    if (rc == 0)
        rc = write_all(q, err);
    if (rc == 0)
        (q->json ? tell_json : tell)(q);
    sac_ranges_done(&q->report.ranges);
    sac_shots_done(&q->shots);
    sac_model_unref(q->model);
    sac_device_close(q->device);
    return rc;
}

int sac_command_quantize(int argc, char **argv)
{
    struct quantize q = {.flags = sac_model_flags_none(), .calibrate = 32, .check = 1000};
    struct sac_error err = {0};
    bool wants_help = false;

    q.flags.device = "cpu";
    int rc = parse(&q, argc, argv, &wants_help, &err);
    if (wants_help) {
        printf("%s%s\nExample: saccade quantize models/squeezenet --data photographs/\n", help,
               sac_model_flags_help);
        return 0;
    }
    if (rc)
        return sac_usage_error("quantize", "%s", err.text);
    rc = run(&q, &err);
    return rc ? sac_command_failed(&err) : 0;
}
