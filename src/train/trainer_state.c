/* What a training run starts from and what it leaves behind. */
#include "train/trainer_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cpu.h"
#include "base/log.h"

int sac_trainer_choose_seed(struct sac_trainer *t, struct sac_error *err)
{
    const char *text = t->restored ? json_string_value(json_object_get(t->restored, "seed")) : NULL;

    if (text) {
        t->seed = strtoull(text, NULL, 10);
        if (t->options.has_seed && t->options.seed != t->seed)
            return sac_fail(
                err, SAC_EINVAL, "%s was made with seed %llu; it cannot go on with seed %llu",
                t->from.state, (unsigned long long)t->seed, (unsigned long long)t->options.seed);
    } else if (t->options.has_seed) {
        t->seed = t->options.seed;
    } else if (t->message->random_seed >= 0) {
        t->seed = (uint64_t)t->message->random_seed;
    } else if (getrandom(&t->seed, sizeof t->seed, 0) != sizeof t->seed) {
        return sac_fail_errno(err, errno, "a random seed");
    }
    return 0;
}

void sac_trainer_choose_threads(struct sac_trainer *t)
{
    const json_t *made_with = json_object_get(t->restored, "threads");

    t->threads = t->options.compute_threads;
    if (t->threads < 1 && json_is_integer(made_with) && json_integer_value(made_with) > 0 &&
        json_integer_value(made_with) <= SAC_TRAIN_THREADS_MAX)
        t->threads = (int)json_integer_value(made_with);
    if (t->threads < 1)
        t->threads = t->options.cores > 0 ? t->options.cores : sac_cpu_count();
    if (t->threads < 1)
        t->threads = 1;
    if (t->threads > SAC_TRAIN_THREADS_MAX)
        t->threads = SAC_TRAIN_THREADS_MAX;
}

int64_t sac_trainer_restored_position(const struct sac_trainer *t, int test)
{
    const json_t *at = NULL;

    if (test < 0)
        at = json_object_get(t->restored, "position");
    else
        at = json_array_get(json_object_get(t->restored, "test_positions"), (size_t)test);
    return json_is_integer(at) && json_integer_value(at) >= 0 ? json_integer_value(at) : 0;
}

static json_t *remember(const struct sac_trainer *t)
{
    char seed[32];
    json_t *root = json_object(), *tests = json_array(), *loss = sac_loss_mean_to_json(&t->loss);
    bool ok = root && tests && loss;

    snprintf(seed, sizeof seed, "%llu", (unsigned long long)t->seed);
    for (int i = 0; ok && i < t->test_count; i++)
        ok = json_array_append_new(tests, json_integer(t->tests[i].position)) == 0;
    ok = ok && json_object_set_new(root, "seed", json_string(seed)) == 0 &&
         json_object_set_new(root, "position", json_integer(t->train.position)) == 0 &&
         json_object_set_new(root, "threads", json_integer(t->threads)) == 0 &&
         json_object_set(root, "test_positions", tests) == 0 &&
         json_object_set(root, "loss", loss) == 0;
    if (ok && t->scale.factor > 0)
        ok = json_object_set_new(root, "loss_scale", json_real((double)t->scale.factor)) == 0 &&
             json_object_set_new(root, "loss_scale_good", json_integer(t->scale.good)) == 0;
    if (ok && t->best.known)
        ok = json_object_set_new(root, "best", sac_trainer_best_json(t)) == 0;
    if (ok && t->tested_at == t->iteration)
        ok = json_object_set_new(root, "tested", json_integer(t->tested_at)) == 0;
    json_decref(tests);
    json_decref(loss);
    if (ok)
        return root;
    json_decref(root);
    return NULL;
}

int sac_trainer_find_snapshot(struct sac_trainer *t, struct sac_error *err)
{
    const char *snapshot = t->options.snapshot;
    struct sac_error none = {0};
    int rc = 0;

    if (!snapshot)
        return 0;
    if (strcmp(snapshot, "auto") != 0) {
        rc = sac_snapshot_open(&t->from, snapshot, err);
    } else {
        rc = sac_snapshot_find_auto(&t->from, t->prefix, &none);
        if (rc == SAC_ENOENT)
            return 0;
        if (rc != 0)
            *err = none;
    }
    if (rc == 0)
        rc = sac_snapshot_values(&t->from, &t->restored, err);
    return rc;
}

static int load_file(struct sac_trainer *t, const char *path, int *copied, struct sac_error *err)
{
    struct sac_weights_loaded report = {0};
    char text[2 * SAC_WEIGHTS_NAMES + 128];
    int rc = sac_weights_load(&t->weights, path, &report, err);

    if (rc != 0)
        return rc;
    *copied += report.copied;
    snprintf(text, sizeof text, "%d layers copied, %d of the net not in it%s%s, %d ignored%s%s",
             report.copied, report.missing, report.missing > 0 ? ": " : "", report.missing_names,
             report.ignored, report.ignored > 0 ? ": " : "", report.ignored_names);
    sac_trainer_tell(
        t, (struct sac_train_event){.kind = SAC_TRAIN_LOADED, .name = path, .text = text});
    return 0;
}

static int check_copied(const char *files, int copied, struct sac_error *err)
{
    return copied > 0 ? 0 : sac_fail(err, SAC_EINVAL, "%s: no layer of the net is in it", files);
}

/* As Caffe, one of several may have nothing for the net. */
static int load_list(struct sac_trainer *t, const char *files, struct sac_error *err)
{
    char *list = strdup(files), *rest, *path;
    int rc = list ? 0 : sac_trainer_no_memory(err), copied = 0;

    for (path = list ? strtok_r(list, ",", &rest) : NULL; rc == 0 && path;
         path = strtok_r(NULL, ",", &rest))
        rc = load_file(t, path, &copied, err);
    free(list);
    return rc == 0 ? check_copied(files, copied, err) : rc;
}

static int restore(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_solver_state state = {0};
    struct sac_error nothing = {0};
    int copied = 0, rc = load_file(t, t->from.weights, &copied, err);

    if (rc == 0)
        rc = check_copied(t->from.weights, copied, err);
    /* What comes after the last iteration may be what a killed run still owes. */
    if (sac_snapshot_check_iterations(&t->from, t->message->max_iter, &nothing) < 0)
        sac_log(SAC_LOG_WARNING, "%s", nothing.text);
    if (rc == 0)
        rc = sac_solver_state_load(&state, t->from.state, err);
    if (rc == 0) {
        rc = sac_solver_history_load(t->solver, state.history, state.history_count, err);
        if (rc != 0)
            sac_error_prefix(err, "%s", t->from.state);
    }
    if (rc == 0 && t->restored && json_object_get(t->restored, "loss"))
        rc = sac_loss_mean_from_json(&t->loss, json_object_get(t->restored, "loss"), err);
    t->iteration = state.iteration;
    t->scale.factor = (float)json_number_value(json_object_get(t->restored, "loss_scale"));
    t->scale.good = (int)json_integer_value(json_object_get(t->restored, "loss_scale_good"));
    sac_trainer_restore_best(t);
    if (strncmp(t->from.state, t->prefix, strlen(t->prefix)) == 0)
        t->saved_at = t->iteration; /* one of this run's own */
    sac_solver_state_done(&state);
    if (rc == 0)
        sac_trainer_tell(
            t, (struct sac_train_event){.kind = SAC_TRAIN_RESTORED, .name = t->from.state});
    return rc;
}

int sac_trainer_load_start(struct sac_trainer *t, struct sac_error *err)
{
    int rc = 0;

    if (t->rank > 0) /* from rank 0, later */
        return 0;
    if (t->from.state)
        return restore(t, err);
    for (size_t i = 0; rc == 0 && !t->options.weights && i < t->message->n_weights; i++)
        rc = load_list(t, t->message->weights[i], err);
    return rc == 0 && t->options.weights ? load_list(t, t->options.weights, err) : rc;
}

static int save_history(struct sac_trainer *t, struct sac_snapshot *snapshot, struct sac_error *err)
{
    int count = sac_solver_history_count(t->solver);
    struct sac_blob_view *history = calloc((size_t)count + 1, sizeof *history);
    int rc = history ? 0 : sac_trainer_no_memory(err);

    for (int i = 0; rc == 0 && i < count; i++)
        history[i] = sac_solver_history(t->solver, i);
    snapshot->history = history;
    snapshot->history_count = count;
    if (rc == 0)
        rc = sac_snapshot_save(snapshot, NULL, err);
    free(history);
    return rc;
}

int sac_trainer_save(struct sac_trainer *t, struct sac_error *err)
{
    json_t *values = remember(t);
    struct sac_snapshot snapshot = {
        .prefix = t->prefix,
        .format = t->message->snapshot_format == CAFFE__SOLVER_PARAMETER__SNAPSHOT_FORMAT__HDF5
                      ? SAC_SNAPSHOT_HDF5
                      : SAC_SNAPSHOT_BINARY,
        .iteration = t->iteration,
        .current_step = sac_rate_step_at(sac_solver_rate(t->solver), t->iteration),
        .weights = &t->weights,
        .values = values,
    };
    int rc = values ? sac_trainer_remote_fetch(t, err) : sac_trainer_no_memory(err);

    sac_trainer_tell(t, (struct sac_train_event){
                            .kind = SAC_TRAIN_SAVING,
                            .name = t->prefix,
                            .text = snapshot.format == SAC_SNAPSHOT_HDF5 ? "HDF5" : "binary"});
    if (rc == 0)
        rc = sac_trainer_check_params(t, err);
    if (rc == 0)
        rc = save_history(t, &snapshot, err);
    if (rc == 0)
        t->saved_at = t->iteration;
    if (rc == 0 && t->options.keep_last > 0)
        rc = sac_snapshot_prune(t->prefix, t->iteration, t->options.keep_last, &t->best.iteration,
                                t->options.keep_best && t->best.known, err);
    json_decref(values);
    return rc;
}
