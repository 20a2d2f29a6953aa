/* saccade test */
#include "cli/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/command.h"

static const char help[] =
    "Usage: saccade test --net PROTOTXT --weights F[,F2] [--data PATH] [options]\n"
    "       saccade test --model DIR --data PATH [options]\n\n"
    "Says how well a net does on labelled pictures: its own losses and accuracies, confusion,\n"
    "precision, recall and F1 a class, calibration.\n\n"
    "  --net F           a train_val prototxt, whose TEST phase counts, or a deploy prototxt\n"
    "  --data PATH       instead of the net's own source, gone through once: a CIFAR batch\n"
    "                    file, a list of pictures with labels, a folder of a folder a class,\n"
    "                    an LMDB, HDF5\n"
    "  --mean F|B,G,R|none   instead of the net's own mean\n"
    "  --batch N         instead of the net's own batch, to 65536\n"
    "  --iterations N    batches (50; with --data all)\n"
    "  --predictions F   write a line of JSON for each picture there\n"
    "  --level N, --stage A[,B]   the net's state, for its layers' rules\n"
    "  --workers N       threads (one a core)\n"
    "  --json            for programs\n\n"
    "With --net, --mean, --scale and --crop go over the data layer's transform_param;\n"
    "--resize and --channels are for deploy prototxts.\n\n";

enum {
    FLAG_NET = SAC_FLAG_OWN,
    FLAG_DATA,
    FLAG_ITERATIONS,
    FLAG_PREDICTIONS,
    FLAG_LEVEL,
    FLAG_STAGE,
    FLAG_WORKERS,
    FLAG_JSON,
};

static const struct option long_options[] = {
    {"net", required_argument, NULL, FLAG_NET},
    {"data", required_argument, NULL, FLAG_DATA},
    {"iterations", required_argument, NULL, FLAG_ITERATIONS},
    {"predictions", required_argument, NULL, FLAG_PREDICTIONS},
    {"level", required_argument, NULL, FLAG_LEVEL},
    {"stage", required_argument, NULL, FLAG_STAGE},
    {"workers", required_argument, NULL, FLAG_WORKERS},
    {"json", no_argument, NULL, FLAG_JSON},
    SAC_MODEL_FLAGS,
    {0}};

/* ---- The command line ------------------------------------------------------ */

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct sac_test *t = user;
    int rc;

    switch (option) {
    case FLAG_NET:
        t->net = value;
        return 0;
    case FLAG_DATA:
        t->data = value;
        return 0;
    case FLAG_PREDICTIONS:
        t->predictions = value;
        return 0;
    case FLAG_LEVEL:
        return sac_flag_int("--level", value, INT16_MIN, INT16_MAX, &t->level, err);
    case FLAG_STAGE:
        return sac_flag_list("--stage", value, t->stages, SAC_TEST_STAGES_MAX, &t->stage_count,
                             err);
    case FLAG_ITERATIONS:
        return sac_flag_int("--iterations", value, 1, 1000000000, &t->iterations, err);
    case FLAG_WORKERS:
        return sac_flag_int("--workers", value, 1, 64, &t->workers, err);
    case SAC_FLAG_BATCH:
        return sac_flag_int("--batch", value, 1, 65536, &t->batch, err);
    case FLAG_JSON:
        t->json = true;
        return 0;
    default:
        rc = sac_model_flags_take(&t->flags, option, value, err);
        return rc < 0 ? rc : 0;
    }
}

static int check(const struct sac_test *t, struct sac_error *err)
{
    if (!t->net == !t->flags.dir_count || t->flags.dir_count > 1)
        return sac_fail(err, SAC_EINVAL, "expected --net PROTOTXT or one --model DIR");
    if (t->net && !t->flags.files.weights)
        return sac_fail(err, SAC_EINVAL, "--net needs --weights");
    if (!t->net && !t->data)
        return sac_fail(err, SAC_EINVAL, "--model needs --data");
    if (!t->net && t->iterations)
        return sac_fail(err, SAC_EINVAL, "--iterations goes with --net");
    if (!t->net && t->batch > SAC_MODEL_BATCH_MAX)
        return sac_fail(err, SAC_EINVAL, "--batch: at most %d with --model", SAC_MODEL_BATCH_MAX);
    return 0;
}

static int parse(struct sac_test *t, int argc, char **argv, bool *ret_help, struct sac_error *err)
{
    int rc = sac_flags_parse(argc, argv, long_options, take, t, ret_help, err);

    if (*ret_help)
        return 0;
    return rc ? rc : check(t, err);
}

/* ---- Classes --------------------------------------------------------------- */

static bool is_called(const char *name, const char *word)
{
    size_t size = strlen(word);

    return strncmp(name, word, size) == 0 && (name[size] == 0 || name[size] == ' ');
}

static int find_class(const struct sac_class_names *names, const char *word)
{
    for (int i = 0; i < names->count; i++)
        if (strcmp(names->text[i], word) == 0)
            return i;
    for (int i = 0; i < names->count; i++)
        if (is_called(names->text[i], word))
            return i;
    return -1;
}

int sac_test_map_classes(const struct sac_source *source, const struct sac_class_names *names,
                         int **ret, struct sac_error *err)
{
    int count = source->labels.count, found = 0, stranger = 0;

    if (count == 0 || names->count == 0)
        return 0;
    int *map = calloc((size_t)count, sizeof *map);
    if (!map)
        return sac_fail(err, SAC_ENOMEM, "out of memory for %d classes", count);
    for (int i = 0; i < count; i++) {
        map[i] = find_class(names, source->labels.text[i]);
        stranger = map[i] < 0 ? i : stranger;
        found += map[i] >= 0;
    }
    if (found == count) {
        *ret = map;
        return 0;
    }
    free(map);
    return found == 0 && count == names->count
               ? 0
               : sac_fail(err, SAC_EINVAL,
                          "%s: the model has no class that is called \"%.80s\", as a class of the "
                          "data is",
                          source->path, source->labels.text[stranger]);
}

float sac_test_map_label(const struct sac_source *source, const int *map, float label)
{
    if (!map)
        return label;
    return label >= 0 && label < (float)source->labels.count ? (float)map[(int)label] : -1;
}

/* ---- Predictions ----------------------------------------------------------- */

/* "list.txt:17: a.jpg" is a.jpg: as classify calls it. */
static const char *file_of(const struct sac_source *source, const char *name)
{
    size_t size = strlen(source->path);
    const char *at = name + size;

    if (strncmp(name, source->path, size) != 0 || *at != ':')
        return name;
    at += 1 + strspn(at + 1, "0123456789");
    return at[0] == ':' && at[1] == ' ' ? at + 2 : name;
}

void sac_test_put_prediction(struct sac_test *test, const struct sac_source *source, int64_t index,
                             int label, const struct sac_topk_pair *pairs, int count)
{
    char name[5000], room[32];
    struct sac_buf *line = &test->line;

    if (!test->lines)
        return;
    sac_source_item_name(source, index, name, sizeof name);
    const char *file = file_of(source, name);
    sac_buf_clear(line);
    sac_buf_puts(line, "{\"file\":");
    sac_buf_put_json(line, file, strlen(file));
    sac_buf_printf(line, ",\"index\":%lld,\"class\":%d,\"predicted\":%d,\"predictions\":[",
                   (long long)index, label, count > 0 ? pairs[0].index : -1);
    for (int i = 0; i < count; i++) {
        const char *text = sac_class_name(&test->names, pairs[i].index, room, sizeof room);
        sac_buf_printf(line, "%s{\"confidence\":%.4f,\"label\":", i ? "," : "",
                       (double)pairs[i].value);
        sac_buf_put_json(line, text, strlen(text));
        sac_buf_puts(line, "}");
    }
    sac_buf_puts(line, "]}\n");
    fwrite(line->data, 1, line->len, test->lines); /* a failure shows when it is closed */
}

static int open_predictions(struct sac_test *t, struct sac_error *err)
{
    if (t->predictions && !(t->lines = fopen(t->predictions, "we")))
        return sac_fail_errno(err, errno, "%s", t->predictions);
    return 0;
}

static int close_predictions(struct sac_test *t, struct sac_error *err)
{
    if (!t->lines)
        return 0;
    bool failed = ferror(t->lines) != 0;
    failed |= fclose(t->lines) != 0;
    t->lines = NULL;
    if (failed || t->line.failed)
        return sac_fail_errno(err, errno ? errno : EIO, "%s", t->predictions);
    return 0;
}

/* ---- The report ------------------------------------------------------------ */

static double mean_of(const struct sac_test_output *output)
{
    return output->count > 0 ? output->sum / output->count : 0;
}

static double loss_of(const struct sac_test *t)
{
    return t->items > 0 ? t->loss / (double)t->items : 0;
}

/* As `caffe test` ends. */
static void put_outputs(struct sac_buf *out, const struct sac_test *t)
{
    sac_buf_printf(out, "Loss: %g\n", loss_of(t));
    for (int64_t i = 0; i < t->output_count; i++) {
        const struct sac_test_output *o = &t->outputs[i];
        sac_buf_printf(out, "%s = %g", o->name, mean_of(o));
        if (o->weight != 0)
            sac_buf_printf(out, " (* %g = %g loss)", o->weight, o->weight * mean_of(o));
        sac_buf_puts(out, "\n");
    }
}

static void put_summary(struct sac_buf *out, const struct sac_test *t)
{
    struct sac_evaluation_summary s = sac_evaluation_summary(t->evaluation);

    sac_buf_printf(out, "accuracy = %g\nloss = %g\n", s.top1, s.loss);
}

static void put_text(struct sac_buf *out, const struct sac_test *t, double seconds)
{
    double items = (double)t->items;

    if (t->scored)
        put_outputs(out, t);
    else
        put_summary(out, t);
    sac_buf_puts(out, "\n");
    if (t->evaluation) {
        sac_evaluation_put_text(out, t->evaluation, &t->names);
        items = (double)sac_evaluation_summary(t->evaluation).items;
        sac_buf_puts(out, "\n");
    }
    sac_buf_printf(out, "%.2f s, %.0f items a second\n", seconds, items / seconds);
    if (t->corrupt > 0)
        sac_buf_printf(out, "%lld items could not be used\n", (long long)t->corrupt);
}

/* A number, or a list of an output's elements. */
static json_t *outputs_json(const struct sac_test *t)
{
    json_t *outputs = json_object();

    for (int64_t i = 0, end; outputs && i < t->output_count; i = end) {
        const char *name = t->outputs[i].name;
        json_t *list = json_array();
        for (end = i; end < t->output_count && t->outputs[end].name == name; end++)
            json_array_append_new(list, json_real(mean_of(&t->outputs[end])));
        json_object_set(outputs, name, end == i + 1 ? json_array_get(list, 0) : list);
        json_decref(list);
    }
    return outputs;
}

static int put_json(struct sac_buf *out, const struct sac_test *t, double seconds,
                    struct sac_error *err)
{
    json_t *root = t->evaluation ? sac_evaluation_json(t->evaluation, &t->names)
                                 : json_pack("{s:I}", "items", (json_int_t)t->items);
    json_t *outputs = outputs_json(t);
    char *text = NULL;

    if (root && t->scored)
        json_object_set_new(root, "weighted_loss", json_real(loss_of(t)));
    if (root && outputs) {
        json_object_set_new(root, "outputs", json_incref(outputs));
        json_object_set_new(root, "batches", json_integer(t->batches));
        json_object_set_new(root, "corrupt", json_integer(t->corrupt));
        json_object_set_new(root, "seconds", json_real(seconds));
        text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    }
    if (text) {
        sac_buf_puts(out, text);
        sac_buf_puts(out, "\n");
    }
    free(text);
    json_decref(outputs);
    json_decref(root);
    return text ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory for the report");
}

static int report(const struct sac_test *t, double seconds, struct sac_error *err)
{
    struct sac_buf out = {0};
    int rc = 0;

    if (t->json)
        rc = put_json(&out, t, seconds, err);
    else
        put_text(&out, t, seconds);
    if (rc == 0 && out.failed)
        rc = sac_fail(err, SAC_ENOMEM, "out of memory for the report");
    if (rc == 0 && (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0))
        rc = sac_fail_errno(err, errno, "standard output");
    sac_buf_done(&out);
    return rc;
}

/* ---- The command ----------------------------------------------------------- */

static int run(struct sac_test *t, struct sac_error *err)
{
    struct sac_test_net *net = NULL;
    struct sac_test_model *model = NULL;
    uint64_t start = sac_clock_ns();
    int rc = sac_device_open(&t->device, t->flags.device, err);

    if (rc == 0)
        rc = open_predictions(t, err);
    if (rc == 0)
        rc = t->net ? sac_test_net_run(&net, t, err) : sac_test_model_run(&model, t, err);
    if (rc == 0)
        rc = close_predictions(t, err);
    if (rc == 0)
        rc = report(t, (double)(sac_clock_ns() - start) / 1e9, err);
    if (t->lines)
        fclose(t->lines);
    sac_evaluation_free(t->evaluation);
    sac_test_net_free(net);
    sac_test_model_free(model);
    sac_labels_done(&t->labels);
    sac_buf_done(&t->line);
    sac_device_close(t->device);
    return rc;
}

int sac_command_test(int argc, char **argv)
{
    struct sac_test t = {.flags = sac_model_flags_none()};
    struct sac_error err = {0};
    bool wants_help = false;
    int rc = parse(&t, argc, argv, &wants_help, &err);

    if (wants_help) {
        printf("%s%s\nExample: saccade test --net train_val.prototxt --weights net.caffemodel "
               "--data test.bin\n",
               help, sac_model_flags_help);
        return 0;
    }
    if (rc)
        return sac_usage_error("test", "%s", err.text);
    rc = run(&t, &err);
    return rc ? sac_command_failed(&err) : 0;
}
