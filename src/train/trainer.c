#include "train/trainer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "base/team.h"
#include "train/loss_mean.h"
#include "train/phase.h"
#include "train/snapshot.h"
#include "train/solver.h"

enum { TEST_NETS_MAX = 16, CLEAR_PIECE = 16 };

struct sac_trainer {
    struct sac_trainer_options options;
    struct sac_caffe_solver file;
    const Caffe__SolverParameter *message;
    char *prefix;
    uint64_t seed;
    struct sac_stream *stream;
    struct sac_store *store;
    struct sac_phase_net train, tests[TEST_NETS_MAX];
    int test_count;

    /* All parameters that the solver knows, in Caffe's order, in one array each. */
    float *params, *grads;
    size_t total;
    float **weight_at, **grad_at; /* one a parameter of the training net */
    float **test_weight_at[TEST_NETS_MAX];
    struct sac_solver *solver;
    struct sac_weights_view weights;
    struct sac_blob_view *blobs;

    int threads; /* that compute */
    int64_t iteration;
    struct sac_loss_mean loss;
    struct sac_snapshot_files from; /* where it goes on, or empty */
    json_t *restored;               /* its values, or NULL */
    int64_t saved_at;               /* the iteration of the last snapshot; −1: none */
    double *values;                 /* room for any net's outputs */
    struct sac_train_value *shown;
    uint64_t display_ns;
    int64_t display_iteration;
    bool stopped;
};

static int out_of_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory");
}

static void tell(const struct sac_trainer *t, struct sac_train_event event)
{
    event.iteration = t->iteration;
    event.max_iter = t->message->max_iter;
    if (t->options.on_event)
        t->options.on_event(t->options.user, &event);
}

/* ---- Seeds and what a snapshot remembers ----------------------------------- */

static int choose_seed(struct sac_trainer *t, struct sac_error *err)
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

static void choose_threads(struct sac_trainer *t)
{
    const json_t *made_with = json_object_get(t->restored, "threads");

    t->threads = t->options.compute_threads;
    if (t->threads < 1 && json_is_integer(made_with) && json_integer_value(made_with) > 0 &&
        json_integer_value(made_with) <= SAC_TRAIN_THREADS_MAX)
        t->threads = (int)json_integer_value(made_with);
    if (t->threads < 1)
        t->threads = sac_cpu_count();
    if (t->threads > SAC_TRAIN_THREADS_MAX)
        t->threads = SAC_TRAIN_THREADS_MAX;
}

/* Where the feeds of the training net (test < 0) and the test nets go on; without a record
 * (another program's snapshot) they start again, as Caffe's do. */
static int64_t restored_position(const struct sac_trainer *t, int test)
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
    json_decref(tests);
    json_decref(loss);
    if (ok)
        return root;
    json_decref(root);
    return NULL;
}

static int find_snapshot(struct sac_trainer *t, struct sac_error *err)
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

/* ---- Opening --------------------------------------------------------------- */

/* As it stands, else, as published solvers name a path of another machine, that file
 * beside the solver. */
static int resolve(char **ret, const char *solver, const char *path, struct sac_error *err)
{
    const char *slash = strrchr(solver, '/'), *name = strrchr(path, '/');
    int rc;

    name = name ? name + 1 : path;
    if (access(path, F_OK) == 0)
        rc = asprintf(ret, "%s", path);
    else
        rc = asprintf(ret, "%.*s%s", slash ? (int)(slash + 1 - solver) : 0, solver, name);
    if (rc < 0) {
        *ret = NULL;
        return out_of_memory(err);
    }
    if (access(*ret, F_OK) == 0)
        return 0;
    return sac_fail(err, SAC_ENOENT, "%s: there is no net \"%s\", nor \"%s\"", solver, path, *ret);
}

static int open_phase(struct sac_trainer *t, struct sac_phase_net *to, const char *path,
                      const Caffe__NetParameter *message, struct sac_phase_options *how,
                      struct sac_error *err)
{
    char *found = NULL;
    int rc = message ? 0 : resolve(&found, t->options.solver, path, err);

    how->path = message ? t->options.solver : found;
    how->message = message;
    how->mean_file = t->options.mean_file;
    how->seed = t->seed;
    how->threads = t->options.threads;
    if (rc == 0)
        rc = sac_phase_net_open(to, how, err);
    free(found);
    return rc;
}

static int open_train(struct sac_trainer *t, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    const char *path = t->options.net ? t->options.net : m->net ? m->net : m->train_net;
    struct sac_phase_options how = {
        .phase = SAC_PHASE_TRAIN,
        .state = m->train_state,
        .source = t->options.data,
        .position = restored_position(t, -1),
    };
    const Caffe__NetParameter *message = path           ? NULL
                                         : m->net_param ? m->net_param
                                                        : m->train_net_param;

    if (!path && !message)
        return sac_fail(err, SAC_EINVAL, "%s: no net is named (net, train_net)", t->options.solver);
    return open_phase(t, &t->train, path, message, &how, err);
}

/* Caffe's order: test_net_param, test_net, then the common net as often as test_iter
 * has more. */
static int open_test(struct sac_trainer *t, int index, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    size_t i = (size_t)index, inline_count = m->n_test_net_param;
    const char *common = t->options.net ? t->options.net : m->net;
    const char *path = NULL;
    const Caffe__NetParameter *message = NULL;
    struct sac_phase_options how = {
        .phase = SAC_PHASE_TEST,
        .state = i < m->n_test_state ? m->test_state[i] : NULL,
        .source = t->options.test_data,
        .position = restored_position(t, index),
    };

    if (i < inline_count)
        message = m->test_net_param[i];
    else if (i < inline_count + m->n_test_net)
        path = m->test_net[i - inline_count];
    else if (common)
        path = common;
    else
        message = m->net_param;
    if (!path && !message)
        return sac_fail(err, SAC_EINVAL, "%s: test_iter %d has no net", t->options.solver, index);
    return open_phase(t, &t->tests[index], path, message, &how, err);
}

static int open_tests(struct sac_trainer *t, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    int rc = 0;

    if (m->n_test_iter > TEST_NETS_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: %zu test nets; at most %d", t->options.solver,
                        m->n_test_iter, TEST_NETS_MAX);
    if (m->n_test_iter < m->n_test_net + m->n_test_net_param)
        return sac_fail(err, SAC_EINVAL, "%s: %zu test nets and %zu test_iter; expected one each",
                        t->options.solver, m->n_test_net + m->n_test_net_param, m->n_test_iter);
    if (m->n_test_iter > 0 && m->test_interval <= 0)
        return sac_fail(err, SAC_EINVAL, "%s: test_iter without a test_interval",
                        t->options.solver);
    for (size_t i = 0; rc == 0 && i < m->n_test_iter; i++) {
        if (m->test_iter[i] < 1)
            return sac_fail(err, SAC_EINVAL, "%s: test_iter %d; expected at least 1",
                            t->options.solver, m->test_iter[i]);
        t->test_count++;
        rc = open_test(t, (int)i, err);
    }
    return rc;
}

/* ---- Parameters ------------------------------------------------------------ */

static int take_arrays(struct sac_trainer *t, struct sac_error *err)
{
    size_t count = (size_t)sac_net_param_count(t->train.net), most = 0;

    for (size_t i = 0; i < count; i++) {
        struct sac_net_param param;
        sac_net_param(t->train.net, (int)i, &param);
        /* Each on a line of its own. */
        most += ((size_t)param.count + 15) & ~(size_t)15;
    }
    t->total = most;
    t->params = aligned_alloc(64, (most + 16) * sizeof *t->params);
    t->grads = aligned_alloc(64, (most + 16) * sizeof *t->grads);
    t->weight_at = calloc(count + 1, sizeof *t->weight_at);
    t->grad_at = calloc(count + 1, sizeof *t->grad_at);
    if (!t->params || !t->grads || !t->weight_at || !t->grad_at)
        return sac_fail(err, SAC_ENOMEM, "out of memory for %zu parameters", most);
    memset(t->params, 0, (most + 16) * sizeof *t->params);
    memset(t->grads, 0, (most + 16) * sizeof *t->grads);
    return 0;
}

static int make_solver(struct sac_trainer *t, struct sac_error *err)
{
    int count = sac_net_param_count(t->train.net), rc;
    struct sac_solver_segment *segments = calloc((size_t)count + 1, sizeof *segments);
    size_t at = 0;

    if (!segments)
        return out_of_memory(err);
    for (int i = 0; i < count; i++) {
        struct sac_net_param param;
        sac_net_param(t->train.net, i, &param);
        segments[i] = (struct sac_solver_segment){.name = param.name,
                                                  .shape = param.shape,
                                                  .offset = at,
                                                  .lr_mult = param.lr_mult,
                                                  .decay_mult = param.decay_mult};
        memcpy(t->params + at, param.data, (size_t)param.count * sizeof *param.data);
        t->weight_at[i] = t->params + at;
        t->grad_at[i] = param.lr_mult != 0 ? t->grads + at : NULL;
        at += ((size_t)param.count + 15) & ~(size_t)15;
    }
    rc = sac_solver_new(&t->solver, t->message, segments, count, t->total, err);
    free(segments);
    return rc;
}

/* Where the solver keeps what the net holds at `data`. */
static float *master_of(const struct sac_trainer *t, const float *data)
{
    for (int i = 0; i < sac_net_param_count(t->train.net); i++) {
        struct sac_net_param param;
        sac_net_param(t->train.net, i, &param);
        if (param.data == data)
            return t->weight_at[i];
    }
    return NULL;
}

/* What a snapshot holds: every layer, with its message and its blobs. */
static int make_view(struct sac_trainer *t, struct sac_error *err)
{
    int layers = sac_net_layer_count(t->train.net), blobs = 0;

    for (int i = 0; i < layers; i++)
        blobs += sac_layer_weight_count(sac_net_layer(t->train.net, i));
    t->weights.layers = calloc((size_t)layers + 1, sizeof *t->weights.layers);
    t->blobs = calloc((size_t)blobs + 1, sizeof *t->blobs);
    if (!t->weights.layers || !t->blobs)
        return out_of_memory(err);
    t->weights.name = sac_net_name(t->train.net);
    t->weights.layer_count = layers;
    blobs = 0;
    for (int i = 0; i < layers; i++) {
        const struct sac_layer *layer = sac_net_layer(t->train.net, i);
        t->weights.layers[i] = (struct sac_weights_layer){
            .name = sac_layer_name(layer),
            .type = sac_layer_type_name(layer),
            .message = layers == t->train.layer_count ? t->train.layers[i] : NULL,
            .blob_count = sac_layer_weight_count(layer),
            .blobs = t->blobs + blobs,
        };
        for (int k = 0; k < sac_layer_weight_count(layer); k++) {
            struct sac_blob_view *blob = &t->blobs[blobs++];
            const float *data = sac_layer_weight(layer, k, &blob->shape);
            blob->data = master_of(t, data);
        }
    }
    return 0;
}

static int load_file(struct sac_trainer *t, const char *path, struct sac_error *err)
{
    struct sac_weights_loaded report = {0};
    char text[128];
    int rc = sac_weights_load(&t->weights, path, &report, err);

    if (rc == 0 && report.copied == 0)
        rc = sac_fail(err, SAC_EINVAL, "%s: no layer of the net is in it", path);
    if (rc != 0)
        return rc;
    snprintf(text, sizeof text, "%d layers copied, %d of the net not in it, %d ignored",
             report.copied, report.missing, report.ignored);
    tell(t, (struct sac_train_event){.kind = SAC_TRAIN_LOADED, .name = path, .text = text});
    return 0;
}

static int load_list(struct sac_trainer *t, const char *files, struct sac_error *err)
{
    char *list = strdup(files), *rest, *path;
    int rc = list ? 0 : out_of_memory(err);

    for (path = list ? strtok_r(list, ",", &rest) : NULL; rc == 0 && path;
         path = strtok_r(NULL, ",", &rest))
        rc = load_file(t, path, err);
    free(list);
    return rc;
}

static int restore(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_solver_state state = {0};
    int rc = sac_snapshot_check_iterations(&t->from, t->message->max_iter, err);

    if (rc == 0)
        rc = load_file(t, t->from.weights, err);
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
    sac_solver_state_done(&state);
    if (rc == 0)
        tell(t, (struct sac_train_event){.kind = SAC_TRAIN_RESTORED, .name = t->from.state});
    return rc;
}

static int load_start(struct sac_trainer *t, struct sac_error *err)
{
    int rc = 0;

    if (t->from.state)
        return restore(t, err);
    for (size_t i = 0; rc == 0 && !t->options.weights && i < t->message->n_weights; i++)
        rc = load_list(t, t->message->weights[i], err);
    return rc == 0 && t->options.weights ? load_list(t, t->options.weights, err) : rc;
}

/* ---- Plans ----------------------------------------------------------------- */

static int plan_train(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_plan_options how = {
        .ops = {.precision = t->options.precision, .training = true, .threads = t->threads},
        .weights = t->weight_at,
        .weight_grads = t->grad_at,
    };
    int rc = sac_phase_net_plan(&t->train, t->options.device, t->store, t->stream, &how, err);

    if (rc == 0 && sac_plan_loss_count(t->train.plan) == 0)
        rc =
            sac_fail(err, SAC_EINVAL, "net %s has no loss to train by", sac_net_name(t->train.net));
    return rc;
}

/* A test net takes the training net's parameters by their names. */
static int share_weights(struct sac_trainer *t, int index, struct sac_error *err)
{
    const struct sac_net *net = t->tests[index].net;
    int count = sac_net_param_count(net);
    float **at = calloc((size_t)count + 1, sizeof *at);

    if (!at)
        return out_of_memory(err);
    t->test_weight_at[index] = at;
    for (int i = 0; i < count; i++) {
        struct sac_net_param mine, theirs;
        sac_net_param(net, i, &mine);
        at[i] = mine.data;
        for (int k = 0; k < sac_net_param_count(t->train.net); k++) {
            sac_net_param(t->train.net, k, &theirs);
            if (strcmp(mine.name, theirs.name) != 0)
                continue;
            if (mine.count != theirs.count)
                return sac_fail(err, SAC_EINVAL,
                                "test net %d: parameter %s has %lld numbers, and %lld in training",
                                index, mine.name, (long long)mine.count, (long long)theirs.count);
            at[i] = t->weight_at[k];
        }
    }
    return 0;
}

static int plan_test(struct sac_trainer *t, int index, struct sac_error *err)
{
    int rc = share_weights(t, index, err);
    struct sac_plan_options how = {
        .ops = {.precision = t->options.precision, .threads = t->threads},
        .judged = true,
        .weights = t->test_weight_at[index],
        .memory_of = t->train.plan,
    };

    if (rc != 0)
        return rc;
    return sac_phase_net_plan(&t->tests[index], t->options.device, t->store, t->stream, &how, err);
}

static int make_plans(struct sac_trainer *t, struct sac_error *err)
{
    int rc = t->options.device->table->stream_new(t->options.device, &t->stream, err);
    int64_t most;

    if (rc == 0)
        rc = t->options.device->table->store_new(t->options.device, &t->store, err);
    if (rc == 0)
        rc = plan_train(t, err);
    most = t->train.value_count;
    for (int i = 0; rc == 0 && i < t->test_count; i++) {
        rc = plan_test(t, i, err);
        most = t->tests[i].value_count > most ? t->tests[i].value_count : most;
    }
    t->values = calloc((size_t)most + 1, sizeof *t->values);
    t->shown = calloc((size_t)most + 1, sizeof *t->shown);
    return rc == 0 && (!t->values || !t->shown) ? out_of_memory(err) : rc;
}

static int read_solver(struct sac_trainer *t, struct sac_error *err)
{
    int rc = sac_caffe_solver_load(&t->file, t->options.solver, err);

    if (rc != 0)
        return rc;
    t->message = t->file.solver;
    if (!t->message->has_max_iter || t->message->max_iter < 1)
        return sac_fail(err, SAC_EINVAL, "%s: max_iter is not set", t->options.solver);
    t->prefix = sac_snapshot_prefix(t->message->snapshot_prefix, t->options.solver);
    if (!t->prefix)
        return out_of_memory(err);
    rc = sac_snapshot_check_prefix(t->prefix, err);
    return rc == 0 ? sac_loss_mean_init(&t->loss, t->message->average_loss, err) : rc;
}

static int prepare(struct sac_trainer *t, struct sac_error *err)
{
    int rc = t->options.device->info.host_memory
                 ? 0
                 : sac_fail(err, SAC_EUNSUPPORTED, "training runs on the CPU; device %s is not",
                            t->options.device->info.name);

    if (rc == 0)
        rc = read_solver(t, err);
    if (rc == 0)
        rc = find_snapshot(t, err);
    if (rc == 0)
        rc = choose_seed(t, err);
    choose_threads(t);
    if (rc == 0)
        rc = open_train(t, err);
    if (rc == 0)
        rc = open_tests(t, err);
    if (rc == 0)
        rc = sac_net_fill(t->train.net, t->seed, err);
    if (rc == 0)
        rc = take_arrays(t, err);
    if (rc == 0)
        rc = make_solver(t, err);
    if (rc == 0)
        sac_solver_set_threads(t->solver, t->threads);
    if (rc == 0)
        rc = make_view(t, err);
    if (rc == 0)
        rc = load_start(t, err);
    return rc == 0 ? make_plans(t, err) : rc;
}

int sac_trainer_new(struct sac_trainer **ret, const struct sac_trainer_options *options,
                    struct sac_error *err)
{
    struct sac_trainer *t = calloc(1, sizeof *t);
    int rc = t ? 0 : out_of_memory(err);

    if (rc != 0)
        return rc;
    t->options = *options;
    t->saved_at = -1;
    rc = prepare(t, err);
    if (rc == 0) {
        *ret = t;
        return 0;
    }
    sac_trainer_free(t);
    return rc;
}

void sac_trainer_free(struct sac_trainer *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->test_count; i++) {
        sac_phase_net_done(&t->tests[i]); /* before the plan whose memory theirs is */
        free(t->test_weight_at[i]);
    }
    sac_phase_net_done(&t->train);
    if (t->stream)
        t->options.device->table->stream_free(t->stream);
    if (t->store)
        t->options.device->table->store_free(t->store);
    sac_solver_free(t->solver);
    sac_loss_mean_done(&t->loss);
    sac_snapshot_files_done(&t->from);
    json_decref(t->restored);
    sac_caffe_solver_done(&t->file);
    free(t->weights.layers);
    free(t->blobs);
    free(t->params);
    free(t->grads);
    free(t->weight_at);
    free(t->grad_at);
    free(t->values);
    free(t->shown);
    free(t->prefix);
    free(t);
}

/* ---- Snapshots ------------------------------------------------------------- */

static int save_history(struct sac_trainer *t, struct sac_snapshot *snapshot, struct sac_error *err)
{
    int count = sac_solver_history_count(t->solver);
    struct sac_blob_view *history = calloc((size_t)count + 1, sizeof *history);
    int rc = history ? 0 : out_of_memory(err);

    for (int i = 0; rc == 0 && i < count; i++)
        history[i] = sac_solver_history(t->solver, i);
    snapshot->history = history;
    snapshot->history_count = count;
    if (rc == 0)
        rc = sac_snapshot_save(snapshot, NULL, err);
    free(history);
    return rc;
}

static int save(struct sac_trainer *t, struct sac_error *err)
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
    int rc = values ? 0 : out_of_memory(err);

    tell(t, (struct sac_train_event){.kind = SAC_TRAIN_SAVING,
                                     .name = t->prefix,
                                     .text =
                                         snapshot.format == SAC_SNAPSHOT_HDF5 ? "HDF5" : "binary"});
    if (rc == 0)
        rc = sac_solver_check_finite(t->solver, t->params, "parameter", err);
    if (rc == 0)
        rc = save_history(t, &snapshot, err);
    if (rc == 0)
        t->saved_at = t->iteration;
    if (rc == 0 && t->options.keep_last > 0)
        rc = sac_snapshot_prune(t->prefix, t->iteration, t->options.keep_last, NULL, 0, err);
    json_decref(values);
    return rc;
}

/* ---- The loop -------------------------------------------------------------- */

static int show(struct sac_trainer *t, const struct sac_phase_net *net, double share)
{
    for (int i = 0; i < net->output_count; i++) {
        const struct sac_phase_output *o = &net->outputs[i];
        for (int64_t k = 0; k < o->count; k++)
            t->shown[o->first + k] = (struct sac_train_value){
                .name = o->name, .value = t->values[o->first + k] * share, .weight = o->weight};
    }
    return (int)net->value_count;
}

static int test_one(struct sac_trainer *t, int index, struct sac_error *err)
{
    struct sac_phase_net *net = &t->tests[index];
    int rounds = t->message->test_iter[index], rc = 0;
    double loss = 0;

    tell(t, (struct sac_train_event){.kind = SAC_TRAIN_TESTING, .test = index});
    sac_plan_weights_changed(net->plan);
    memset(t->values, 0, (size_t)net->value_count * sizeof *t->values);
    for (int i = 0; rc == 0 && i < rounds; i++) {
        double one = 0;
        rc = sac_phase_net_forward(net, err);
        if (rc == 0)
            rc = sac_plan_loss_sum(net->plan, &one, err);
        if (rc == 0)
            rc = t->options.device->table->stream_sync(t->stream, err);
        if (rc == 0)
            sac_phase_net_add_outputs(net, t->values);
        loss += one;
    }
    if (rc != 0)
        return rc;
    int count = show(t, net, 1.0 / rounds);
    tell(t, (struct sac_train_event){.kind = SAC_TRAIN_TESTED,
                                     .test = index,
                                     .loss = loss / rounds,
                                     .has_loss = t->message->test_compute_loss,
                                     .values = t->shown,
                                     .value_count = count});
    return 0;
}

static int test_all(struct sac_trainer *t, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < t->test_count; i++)
        rc = test_one(t, i, err);
    return rc;
}

static int check_loss(const struct sac_trainer *t, double loss, struct sac_error *err)
{
    if (isfinite(loss))
        return 0;
    int rc = sac_solver_check_finite(t->solver, t->params, "parameter", err);
    for (int i = 0; rc == 0 && i < sac_plan_loss_count(t->train.plan); i++) {
        struct sac_plan_loss part;
        sac_plan_loss(t->train.plan, i, &part);
        const float *value = part.value.data;
        for (int64_t k = 0; rc == 0 && k < sac_shape_count(&part.value.shape); k++)
            if (!isfinite(value[k]))
                rc = sac_fail(err, SAC_EINVAL,
                              "loss \"%.64s\" is %g; all parameters are finite, so its input or "
                              "the net's activations are too large",
                              part.name, (double)value[k]);
    }
    return rc ? rc : sac_fail(err, SAC_EINVAL, "the loss is %g", loss);
}

/* What dropout draws from: one number a pass. */
static uint64_t pass_of(const struct sac_trainer *t, int pass)
{
    return (uint64_t)t->iteration * (uint64_t)sac_solver_iter_size(t->solver) + (uint64_t)pass;
}

static int forward(struct sac_trainer *t, int pass, double *ret_loss, struct sac_error *err)
{
    sac_plan_set_random(t->train.plan, t->seed, pass_of(t, pass));
    int rc = sac_phase_net_forward(&t->train, err);
    if (rc == 0)
        rc = sac_plan_loss_sum(t->train.plan, ret_loss, err);
    return rc == 0 ? check_loss(t, *ret_loss, err) : rc;
}

/* Of the last pass, as Caffe shows them; the way back may use their memory. */
static void keep_outputs(struct sac_trainer *t)
{
    memset(t->values, 0, (size_t)t->train.value_count * sizeof *t->values);
    sac_phase_net_add_outputs(&t->train, t->values);
}

static void clear_part(void *context, int64_t first, int64_t end)
{
    memset((float *)context + first * CLEAR_PIECE, 0,
           (size_t)((end - first) * CLEAR_PIECE) * sizeof(float));
}

/* The arrays end behind a whole piece. */
static void clear_gradients(struct sac_trainer *t)
{
    sac_team_run(t->threads, (int64_t)t->total / CLEAR_PIECE, clear_part, t->grads);
}

static int forward_backward(struct sac_trainer *t, double *ret_loss, struct sac_error *err)
{
    int passes = sac_solver_iter_size(t->solver), rc = 0;
    double sum = 0;

    clear_gradients(t);
    sac_plan_weights_changed(t->train.plan);
    for (int i = 0; rc == 0 && i < passes; i++) {
        double loss = 0;
        rc = forward(t, i, &loss, err);
        if (rc == 0)
            keep_outputs(t);
        if (rc == 0)
            rc = sac_plan_backward(t->train.plan, err);
        sum += loss;
    }
    if (rc == 0)
        rc = t->options.device->table->stream_sync(t->stream, err);
    if (rc == 0)
        rc = sac_solver_check_finite(t->solver, t->grads, "gradient", err);
    *ret_loss = sum / passes;
    return rc;
}

static void display(struct sac_trainer *t)
{
    uint64_t now = sac_clock_ns();

    int count = show(t, &t->train, 1);
    tell(t, (struct sac_train_event){
                .kind = SAC_TRAIN_DISPLAY,
                .loss = t->loss.mean,
                .rate = sac_rate_at(sac_solver_rate(t->solver), t->iteration),
                .seconds = (double)(now - t->display_ns) / 1e9,
                .iterations = t->iteration - t->display_iteration,
                .display = t->message->display,
                .values = t->shown,
                .value_count = count,
            });
    t->display_ns = now;
    t->display_iteration = t->iteration;
}

static bool falls_on(int64_t iteration, int interval)
{
    return interval > 0 && iteration % interval == 0;
}

static int step(struct sac_trainer *t, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    double loss = 0;
    int rc = 0;

    if (falls_on(t->iteration, m->test_interval) && (t->iteration > 0 || m->test_initialization))
        rc = test_all(t, err);
    if (rc == 0)
        rc = forward_backward(t, &loss, err);
    if (rc != 0)
        return rc;
    sac_loss_mean_add(&t->loss, loss);
    if (falls_on(t->iteration, m->display))
        display(t);
    sac_solver_update(t->solver, t->params, t->grads, t->iteration);
    t->iteration++;
    tell(t, (struct sac_train_event){
                .kind = SAC_TRAIN_STEP,
                .loss = t->loss.mean,
                .rate = sac_rate_at(sac_solver_rate(t->solver), t->iteration - 1)});
    enum sac_train_request request =
        t->options.request ? t->options.request(t->options.user) : SAC_TRAIN_GO_ON;
    if (falls_on(t->iteration, m->snapshot) || request == SAC_TRAIN_SNAPSHOT)
        rc = save(t, err);
    t->stopped = request == SAC_TRAIN_STOP;
    return rc;
}

/* Caffe takes one more batch for the last line, and tests once more. */
static int finish(struct sac_trainer *t, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    double loss = 0;
    int rc = 0;

    if (falls_on(t->iteration, m->display)) {
        sac_plan_weights_changed(t->train.plan);
        rc = forward(t, 0, &loss, err);
        if (rc == 0)
            tell(t, (struct sac_train_event){.kind = SAC_TRAIN_LAST_LOSS,
                                             .loss = sac_loss_mean_add(&t->loss, loss)});
    }
    if (rc == 0 && falls_on(t->iteration, m->test_interval))
        rc = test_all(t, err);
    if (rc == 0)
        tell(t, (struct sac_train_event){.kind = SAC_TRAIN_DONE});
    return rc;
}

int sac_trainer_run(struct sac_trainer *t, struct sac_error *err)
{
    int rc = 0;

    tell(t, (struct sac_train_event){.kind = SAC_TRAIN_START,
                                     .name = sac_net_name(t->train.net),
                                     .text = t->message->lr_policy});
    t->display_ns = sac_clock_ns();
    t->display_iteration = t->iteration;
    while (rc == 0 && !t->stopped && t->iteration < t->message->max_iter)
        rc = step(t, err);
    if (rc != 0) {
        sac_error_prefix(err, "iteration %lld", (long long)t->iteration);
        return rc;
    }
    if (t->message->snapshot_after_train && t->saved_at != t->iteration)
        rc = save(t, err);
    if (rc != 0 || !t->stopped)
        return rc ? rc : finish(t, err);
    tell(t, (struct sac_train_event){.kind = SAC_TRAIN_STOPPED});
    return 0;
}
