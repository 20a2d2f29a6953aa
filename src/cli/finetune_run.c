/*
 * A fine-tuning run's folder: whose it is, what the run was begun with, and how one that
 * is there goes on. run.json is written first and marks the folder; what it says holds
 * from then on, whatever the data has become.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/durable.h"
#include "base/file.h"
#include "cli/finetune.h"
#include "train/finetune.h"

enum { RUN_VERSION = 1, FILE_BYTES_MAX = 64 << 20 };
static const char mark[] = "saccade train --finetune";
/* All that a run which was killed at once may have left. */
static const char unfinished[] = "run.json.tmp";
static const char *const part_names[PARTS] = {"train", "val", "test"};

/* ---- Settings ------------------------------------------------------------------- */

enum kind { REAL, WHOLE, SEED, YES, PATH };
struct setting {
    const char *flag;
    enum kind kind;
    size_t at;
};
#define AT(field) offsetof(struct finetune, field)

/* What decides the result, and so may not change while a run goes on. */
static const struct setting settings[] = {
    {"data", PATH, AT(data)},
    {"val-data", PATH, AT(validation_data)},
    {"test-data", PATH, AT(test_data)},
    {"labels", PATH, AT(labels)},
    {"val", REAL, AT(shares[PART_VALIDATION])},
    {"test", REAL, AT(shares[PART_TEST])},
    {"seed", SEED, AT(seed)},
    {"from-scratch", YES, AT(scratch)},
    {"epochs", REAL, AT(tuning.epochs)},
    {"batch", WHOLE, AT(tuning.batch)},
    {"rate", REAL, AT(tuning.rate)},
    {"last-mult", REAL, AT(tuning.last_mult)},
    {"early-mult", REAL, AT(tuning.early_mult)},
    {"frozen", WHOLE, AT(tuning.frozen)},
    {"decay", REAL, AT(tuning.decay)},
    {"smoothing", REAL, AT(tuning.smoothing)},
    {"scaled-to", WHOLE, AT(tuning.resize)},
    {"area", REAL, AT(tuning.area_min)},
    {"light", REAL, AT(tuning.color)},
    {"flip", WHOLE, AT(tuning.flip)},
    {"patience", WHOLE, AT(tuning.patience)},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

void sac_finetune_given(struct finetune *f, const char *flag)
{
    for (int i = 0; i < SETTINGS; i++)
        if (strcmp(settings[i].flag, flag) == 0)
            f->given |= UINT64_C(1) << i;
}

static json_t *path_json(const char *path)
{
    char *whole = path ? realpath(path, NULL) : NULL;
    json_t *json = path ? json_string(whole ? whole : path) : json_null();

    free(whole);
    return json;
}

static json_t *setting_json(const struct finetune *f, const struct setting *s)
{
    const char *at = (const char *)f + s->at;

    switch (s->kind) {
    case REAL:
        return json_real(*(const double *)at);
    case WHOLE:
        return json_integer(*(const int *)at);
    case SEED:
        return json_integer((json_int_t) * (const uint64_t *)at);
    case YES:
        return json_boolean(*(const bool *)at);
    default:
        return path_json(*(const char *const *)at);
    }
}

static void setting_take(struct finetune *f, const struct setting *s, const json_t *value)
{
    char *at = (char *)f + s->at;

    if (s->kind == REAL)
        *(double *)at = json_number_value(value);
    else if (s->kind == WHOLE)
        *(int *)at = (int)json_integer_value(value);
    else if (s->kind == SEED)
        *(uint64_t *)at = (uint64_t)json_integer_value(value);
    else if (s->kind == YES)
        *(bool *)at = json_is_true(value);
    else
        *(const char **)at = json_string_value(value); /* lives as long as f->run */
}

static int refuse_setting(const struct finetune *f, const char *flag, const json_t *now,
                          const json_t *before, struct sac_error *err)
{
    char *new = json_dumps(now, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    char *old = json_dumps(before, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    int rc = sac_fail(err, SAC_EINVAL,
                      "--%s is %.200s, but the run in %s was begun with %.200s; leave it out, or "
                      "name another --out",
                      flag, new ? new : "?", f->out, old ? old : "?");

    free(new);
    free(old);
    return rc;
}

/* What was given must be what it was; what was not, is. */
static int take_settings(struct finetune *f, struct sac_error *err)
{
    const json_t *all = json_object_get(f->run, "settings");
    int rc = 0;

    for (int i = 0; rc == 0 && i < SETTINGS; i++) {
        const json_t *before = json_object_get(all, settings[i].flag);
        json_t *now = setting_json(f, &settings[i]);
        if (!before || !now)
            rc = sac_fail(err, SAC_EFORMAT, "%s/run.json: no \"%s\" in its settings", f->out,
                          settings[i].flag);
        else if (f->given >> i & 1 && !json_equal(now, before))
            rc = refuse_setting(f, settings[i].flag, now, before, err);
        json_decref(now);
    }
    for (int i = 0; rc == 0 && i < SETTINGS; i++)
        setting_take(f, &settings[i], json_object_get(all, settings[i].flag));
    return rc;
}

/* ---- The model that it starts from -------------------------------------------------- */

static int weights_sum(const struct finetune *f, json_int_t *ret, struct sac_error *err)
{
    const char *path = sac_model_weights_path(f->model);
    FILE *file = fopen(path, "re");
    static uint8_t bytes[1 << 16];
    uint32_t crc = 0;
    size_t size;

    if (!file)
        return sac_fail_errno(err, errno, "%s", path);
    while ((size = fread(bytes, 1, sizeof bytes, file)) > 0)
        crc = sac_crc32(crc, bytes, size);
    int rc = ferror(file) ? sac_fail_errno(err, errno, "%s", path) : 0;
    fclose(file);
    *ret = crc;
    return rc;
}

static int check_model(const struct finetune *f, struct sac_error *err)
{
    json_int_t before = json_integer_value(json_object_get(f->run, "weights_crc32")), now = 0;
    const char *model = json_string_value(json_object_get(f->run, "model"));
    int rc = weights_sum(f, &now, err);

    if (rc == 0 && now != before)
        rc = sac_fail(err, SAC_EINVAL,
                      "--finetune %s: other weights than those that the run in %s was begun with "
                      "(then in %s)",
                      f->model_dir, f->out, model ? model : "?");
    return rc;
}

/* ---- run.json ------------------------------------------------------------------------ */

int sac_finetune_put_json(const char *path, const json_t *json, int digits, struct sac_error *err)
{
    char *text = json ? json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(digits)) : NULL;
    int rc = text ? sac_durable_write(path, text, strlen(text), err)
                  : sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);

    free(text);
    return rc;
}

static int put_run(const struct finetune *f, struct sac_error *err)
{
    char *path = sac_finetune_path(f, "run.json", err);
    int rc = path ? sac_finetune_put_json(path, f->run, 17, err) : err->code;

    free(path);
    return rc;
}

static json_t *choices_json(const struct sac_tuning_choices *choices)
{
    json_t *all = json_array();

    for (int i = 0; i < choices->count; i++) {
        const struct sac_tuning_choice *c = &choices->choice[i];
        json_array_append_new(all, json_pack("{s:s,s:s,s:s,s:b}", "name", c->name, "value",
                                             c->value, "why", c->why, "given", c->given));
    }
    return all;
}

static void choices_take(struct finetune *f)
{
    const json_t *all = json_object_get(f->run, "choices");

    f->choices.count = 0;
    for (size_t i = 0; i < json_array_size(all) && i < SAC_TUNING_CHOICES_MAX; i++) {
        const json_t *from = json_array_get(all, i);
        struct sac_tuning_choice *c = &f->choices.choice[f->choices.count];
        const char *value = json_string_value(json_object_get(from, "value"));
        const char *why = json_string_value(json_object_get(from, "why"));
        *c = (struct sac_tuning_choice){
            .name = json_string_value(json_object_get(from, "name")),
            .given = json_is_true(json_object_get(from, "given")),
        };
        snprintf(c->value, sizeof c->value, "%s", value ? value : "");
        snprintf(c->why, sizeof c->why, "%s", why ? why : "");
        f->choices.count += c->name != NULL;
    }
}

static json_t *parts_json(const struct finetune *f)
{
    json_t *all = json_object();

    for (int part = 0; part < PARTS; part++)
        json_object_set_new(all, part_names[part],
                            json_pack("{s:s?,s:I}", "database",
                                      f->is_list[part] ? NULL : f->paths[part], "items",
                                      (json_int_t)f->items[part]));
    return all;
}

static int make_json(struct finetune *f, struct sac_error *err)
{
    json_t *all = json_object(), *names = json_array();
    json_int_t sum = 0;
    int rc = weights_sum(f, &sum, err);

    for (int i = 0; i < SETTINGS; i++)
        json_object_set_new(all, settings[i].flag, setting_json(f, &settings[i]));
    for (int i = 0; i < sac_finetune_names(f)->count; i++)
        json_array_append_new(names, json_string(sac_finetune_names(f)->text[i]));
    f->run =
        json_pack("{s:s,s:i,s:s,s:o,s:I,s:o,s:o,s:i,s:o,s:o,s:b}", "program", mark, "version",
                  RUN_VERSION, "folder", f->folder, "model", path_json(f->model_dir),
                  "weights_crc32", sum, "settings", all, "parts", parts_json(f), "classes",
                  f->classes, "names", names, "choices", choices_json(&f->choices), "begun", 0);
    return rc == 0 && !f->run
               ? sac_fail(err, SAC_EINVAL, "%s/run.json cannot be made: a name is no UTF-8", f->out)
               : rc;
}

/* ---- The folder -------------------------------------------------------------------- */

char *sac_finetune_path(const struct finetune *f, const char *name, struct sac_error *err)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", f->folder ? f->folder : f->out, name) >= 0)
        return path;
    sac_fail(err, SAC_ENOMEM, "%s/%s: out of memory", f->out, name);
    return NULL;
}

static int refuse_same(const struct finetune *f, const char *flag, const char *path,
                       struct sac_error *err)
{
    struct stat out, other;

    if (!path || stat(f->out, &out) < 0 || stat(path, &other) < 0 || out.st_dev != other.st_dev ||
        out.st_ino != other.st_ino)
        return 0;
    return sac_fail(err, SAC_EINVAL, "--out %s is what %s names; a run needs a folder of its own",
                    f->out, flag);
}

static int lock(struct finetune *f, struct sac_error *err)
{
    if (f->lock < 0)
        f->lock = open(f->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->lock < 0)
        return sac_fail_errno(err, errno, "%s", f->out);
    if (flock(f->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return sac_fail(err, SAC_EINVAL, "%s: another process trains in it", f->out);
    return sac_fail_errno(err, errno, "%s", f->out);
}

static int load_json(struct finetune *f, const char *path, struct sac_error *err)
{
    json_error_t why;
    json_t *run = json_load_file(path, 0, &why);
    const char *program = json_string_value(json_object_get(run, "program"));

    f->run = run;
    if (!run)
        return sac_fail(err, SAC_EFORMAT, "%s:%d: %s", path, why.line, why.text);
    if (!program || strcmp(program, mark) != 0)
        return sac_fail(err, SAC_EINVAL, "%s is none of train --finetune; name another --out",
                        path);
    if (json_integer_value(json_object_get(run, "version")) == RUN_VERSION)
        return 0;
    return sac_fail(err, SAC_EUNSUPPORTED, "%s is of another version of this program", path);
}

int sac_finetune_look(struct finetune *f, struct sac_error *err)
{
    int rc = refuse_same(f, "--finetune", f->model_dir, err);
    char *path = NULL;

    rc = rc ? rc : refuse_same(f, "--data", f->data, err);
    rc = rc ? rc : refuse_same(f, "--val-data", f->validation_data, err);
    rc = rc ? rc : refuse_same(f, "--test-data", f->test_data, err);
    if (rc != 0 || !sac_file_exists(f->out))
        return rc;
    rc = lock(f, err);
    if (rc == 0 && !(path = sac_finetune_path(f, "run.json", err)))
        rc = err->code;
    if (rc == 0 && sac_file_exists(path))
        rc = load_json(f, path, err);
    else if (rc == 0 && !sac_file_folder_is_empty(f->out, unfinished))
        rc = sac_fail(err, SAC_EINVAL,
                      "%s is there and is no run of train --finetune; name another --out", f->out);
    if (rc == 0 && f->run && !json_is_true(json_object_get(f->run, "begun"))) {
        json_decref(f->run); /* killed before it was whole: nothing depends on it yet */
        f->run = NULL;
    }
    free(path);
    return rc;
}

static int make_folder(const char *path, struct sac_error *err)
{
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && sac_file_is_folder(path)))
        return 0;
    return sac_fail_errno(err, errno, "%s", path);
}

static int resolve(struct finetune *f, struct sac_error *err)
{
    f->folder = realpath(f->out, NULL);
    return f->folder ? 0 : sac_fail_errno(err, errno, "%s", f->out);
}

/* ---- A new run ------------------------------------------------------------------------ */

static int name_lists(struct finetune *f, struct sac_error *err)
{
    char name[16];

    for (int part = 0; part < PARTS; part++) {
        snprintf(name, sizeof name, "%s.txt", part_names[part]);
        if (f->is_list[part] && !(f->paths[part] = sac_finetune_path(f, name, err)))
            return err->code;
    }
    if (f->no_test && !(f->paths[PART_TEST] = strdup(f->paths[PART_VALIDATION])))
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", f->out);
    if (sac_finetune_names(f)->count > 0 &&
        !(f->labels_path = sac_finetune_path(f, "classes.txt", err)))
        return err->code;
    return 0;
}

static int put_text(const char *path, const struct sac_buf *text, struct sac_error *err)
{
    return text->failed ? sac_fail(err, SAC_ENOMEM, "%s: out of memory", path)
                        : sac_durable_write(path, text->data, text->len, err);
}

static int put_lists(struct finetune *f, struct sac_error *err)
{
    const struct sac_labels *names = sac_finetune_names(f);
    struct sac_buf text = {0};
    int rc = 0;

    for (int part = 0; rc == 0 && part < PARTS; part++)
        if (f->is_list[part])
            rc = put_text(f->paths[part], &f->lists[part], err);
    for (int i = 0; i < names->count; i++)
        sac_buf_printf(&text, "%s\n", names->text[i]);
    if (rc == 0 && f->labels_path)
        rc = put_text(f->labels_path, &text, err);
    sac_buf_done(&text);
    return rc;
}

static struct sac_finetune files_of(const struct finetune *f)
{
    return (struct sac_finetune){
        .folder = f->folder,
        .deploy = f->deploy.net,
        .how = sac_model_preprocess(f->model),
        .recipe = &f->tuning,
        .train = f->paths[PART_TRAIN] ? f->paths[PART_TRAIN] : "train.txt",
        .validation = f->paths[PART_VALIDATION] ? f->paths[PART_VALIDATION] : "val.txt",
        .classes = f->classes,
        .seed = f->seed,
    };
}

int sac_finetune_begin(struct finetune *f, struct sac_error *err)
{
    struct sac_finetune files = files_of(f);
    char *snapshots = NULL, *run = NULL;
    int rc = sac_finetune_check(&files, err);

    if (rc == 0)
        rc = make_folder(f->out, err);
    if (rc == 0)
        rc = resolve(f, err);
    if (rc == 0 && f->lock < 0) { /* it was not there a moment ago */
        rc = lock(f, err);
        run = rc == 0 ? sac_finetune_path(f, "run.json", err) : NULL;
        if (rc == 0 && run && sac_file_exists(run))
            rc = sac_fail(err, SAC_EINVAL, "%s: another process has begun a run in it", f->out);
    }
    free(run);
    if (rc == 0)
        rc = name_lists(f, err);
    if (rc == 0)
        rc = make_json(f, err);
    if (rc == 0)
        rc = put_run(f, err);
    snapshots = rc == 0 ? sac_finetune_path(f, "snapshots", err) : NULL;
    if (rc == 0)
        rc = snapshots ? make_folder(snapshots, err) : err->code;
    free(snapshots);
    if (rc == 0)
        rc = put_lists(f, err);
    files = files_of(f);
    if (rc == 0)
        rc = sac_finetune_write(&files, &f->solver, err);
    if (rc == 0)
        rc = json_object_set_new(f->run, "begun", json_true());
    return rc == 0 ? put_run(f, err) : rc;
}

/* ---- A run that is there ----------------------------------------------------------------- */

/* Puts `to` where the text has `from` as the start of a quoted path. */
static void replace(struct sac_buf *out, const char *text, const char *from, const char *to)
{
    size_t size = strlen(from);
    const char *at;

    while ((at = strstr(text, from))) {
        bool path = at > text && at[-1] == '"' && at[size] == '/';
        sac_buf_put(out, text, (size_t)(at - text));
        sac_buf_puts(out, path ? to : from);
        text = at + size;
    }
    sac_buf_puts(out, text);
}

static int move_file(const struct finetune *f, const char *name, const char *from,
                     struct sac_error *err)
{
    char *path = sac_finetune_path(f, name, err);
    struct sac_buf out = {0};
    uint8_t *text = NULL;
    size_t size;
    int rc = path ? sac_file_read(path, FILE_BYTES_MAX, &text, &size, err) : err->code;

    if (rc == 0) {
        replace(&out, (const char *)text, from, f->folder);
        rc = put_text(path, &out, err);
    }
    sac_buf_done(&out);
    free(text);
    free(path);
    return rc;
}

/* The files name each other by whole paths, as Caffe needs it. */
static int follow_move(struct finetune *f, struct sac_error *err)
{
    const char *from = json_string_value(json_object_get(f->run, "folder"));
    int rc;

    if (!from || strcmp(from, f->folder) == 0)
        return 0;
    sac_finetune_say(f, "the run was in %s: its files now say %s", from, f->folder);
    rc = move_file(f, "solver.prototxt", from, err);
    if (rc == 0)
        rc = move_file(f, "train_val.prototxt", from, err);
    if (rc == 0)
        rc = json_object_set_new(f->run, "folder", json_string(f->folder));
    return rc == 0 ? put_run(f, err) : rc;
}

static int take_parts(struct finetune *f, struct sac_error *err)
{
    const json_t *all = json_object_get(f->run, "parts");

    for (int part = 0; part < PARTS; part++) {
        const json_t *one = json_object_get(all, part_names[part]);
        const char *database = json_string_value(json_object_get(one, "database"));
        f->items[part] = json_integer_value(json_object_get(one, "items"));
        f->is_list[part] = f->items[part] > 0 && !database;
        if (database && !(f->paths[part] = strdup(database)))
            return sac_fail(err, SAC_ENOMEM, "%s: out of memory", f->out);
    }
    f->no_test = f->items[PART_TEST] == 0;
    f->classes = (int)json_integer_value(json_object_get(f->run, "classes"));
    if (!f->is_list[PART_VALIDATION] && !f->paths[PART_VALIDATION])
        return sac_fail(err, SAC_EFORMAT, "%s/run.json: nothing to validate with", f->out);
    return 0;
}

static int take_names(struct finetune *f, struct sac_error *err)
{
    const json_t *all = json_object_get(f->run, "names");
    size_t count = json_array_size(all);

    f->names.text = calloc(count + 1, sizeof *f->names.text);
    for (size_t i = 0; f->names.text && i < count; i++) {
        const char *name = json_string_value(json_array_get(all, i));
        if ((f->names.text[i] = strdup(name ? name : "")))
            f->names.count++;
    }
    if (f->names.text && f->names.count == (int)count)
        return 0;
    return sac_fail(err, SAC_ENOMEM, "%s: out of memory", f->out);
}

/* The two choices that an edited solver changes are told as it has them. */
static void correct(struct finetune *f, const char *name, double was, double is)
{
    for (int i = 0; i < f->choices.count; i++) {
        struct sac_tuning_choice *c = &f->choices.choice[i];
        if (strcmp(c->name, name) != 0 || fabs(was - is) <= 1e-5 * fabs(was))
            continue;
        snprintf(c->value, sizeof c->value, "%g", is);
        snprintf(c->why, sizeof c->why, "as edited in solver.prototxt");
    }
}

static int read_solver(struct finetune *f, struct sac_error *err)
{
    struct sac_caffe_solver solver;
    int rc = sac_caffe_solver_load(&solver, f->solver, err);

    if (rc)
        return rc;
    const Caffe__SolverParameter *s = solver.solver;
    const json_t *trained = json_object_get(f->run, "trained");
    correct(f, "rate", f->tuning.rate, s->base_lr);
    correct(f, "weight decay", f->tuning.decay, s->weight_decay);
    f->trained = trained && json_integer_value(json_object_get(trained, "max_iter")) == s->max_iter;
    f->best = json_integer_value(json_object_get(trained, "best"));
    f->iterations = json_integer_value(json_object_get(trained, "iterations"));
    f->seconds = json_number_value(json_object_get(trained, "seconds"));
    sac_caffe_solver_done(&solver);
    return 0;
}

int sac_finetune_resume(struct finetune *f, struct sac_error *err)
{
    int rc = take_settings(f, err);

    if (rc == 0)
        rc = check_model(f, err);
    if (rc == 0)
        rc = resolve(f, err);
    if (rc == 0)
        rc = follow_move(f, err);
    if (rc == 0)
        rc = take_parts(f, err);
    if (rc == 0)
        rc = take_names(f, err);
    if (rc == 0)
        rc = name_lists(f, err);
    choices_take(f);
    if (rc == 0 && !(f->solver = sac_finetune_path(f, "solver.prototxt", err)))
        rc = err->code;
    return rc == 0 ? read_solver(f, err) : rc;
}

int sac_finetune_trained(struct finetune *f, struct sac_error *err)
{
    if (!f->trained)
        return 0;
    json_object_set_new(f->run, "trained",
                        json_pack("{s:I,s:I,s:I,s:f}", "max_iter", (json_int_t)f->max_iter,
                                  "iterations", (json_int_t)f->iterations, "best",
                                  (json_int_t)f->best, "seconds", f->seconds));
    return put_run(f, err);
}

void sac_finetune_run_done(struct finetune *f)
{
    json_decref(f->run);
    if (f->lock >= 0)
        close(f->lock);
    free(f->folder);
}
