/* The nets of a training run: which, from where, and their plans. */
#include "train/trainer_private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
        return sac_trainer_no_memory(err);
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
    how->resize = t->options.resize;
    how->resize_width = t->options.resize_width;
    how->resize_height = t->options.resize_height;
    how->crops = t->options.device->table->crops != NULL;
    if (rc == 0)
        rc = sac_phase_net_open(to, how, err);
    free(found);
    return rc;
}

int sac_trainer_open_train(struct sac_trainer *t, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    const char *path = t->options.net ? t->options.net : m->net ? m->net : m->train_net;
    struct sac_phase_options how = {
        .phase = SAC_PHASE_TRAIN,
        .state = m->train_state,
        .level = t->options.level,
        .stages = t->options.stages,
        .stage_count = t->options.stage_count,
        .smoothing = t->options.smoothing,
        .augment = t->options.augment,
        .source = t->options.data,
        .position = t->first_position,
        .rank = t->rank,
        .world = t->world,
        .batch_rule = t->options.batch_rule,
    };
    const Caffe__NetParameter *message = path           ? NULL
                                         : m->net_param ? m->net_param
                                                        : m->train_net_param;

    if (!path && !message)
        return sac_fail(err, SAC_EINVAL, "%s: no net is named (net, train_net)", t->options.solver);
    if (!t->options.net && m->net && m->train_net)
        return sac_fail(err, SAC_EINVAL, "%s: both net and train_net; expected one of them",
                        t->options.solver);
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
        .position = sac_trainer_restored_position(t, index),
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

int sac_trainer_open_tests(struct sac_trainer *t, struct sac_error *err)
{
    const Caffe__SolverParameter *m = t->message;
    int rc = 0;

    if (t->rank > 0)
        return 0;
    if (m->n_test_iter > SAC_TRAIN_TESTS_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: %zu test nets; at most %d", t->options.solver,
                        m->n_test_iter, SAC_TRAIN_TESTS_MAX);
    if (m->n_test_iter < m->n_test_net + m->n_test_net_param)
        return sac_fail(err, SAC_EINVAL, "%s: %zu test nets and %zu test_iter; expected one each",
                        t->options.solver, m->n_test_net + m->n_test_net_param, m->n_test_iter);
    if (m->n_test_state > 0 && m->n_test_state != m->n_test_iter)
        return sac_fail(err, SAC_EINVAL, "%s: %zu test_state and %zu test_iter; expected one each",
                        t->options.solver, m->n_test_state, m->n_test_iter);
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

static int plan_train(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_plan_options how = {
        .ops = {.precision = t->options.precision,
                .training = true,
                .deterministic = t->options.deterministic,
                .threads = t->threads},
        .weights = sac_trainer_plan_weights(t),
        .weight_grads = sac_trainer_plan_grads(t),
    };
    int rc = sac_phase_net_plan(&t->train, t->options.device, t->store, t->stream, &how, err);

    if (rc == 0 && sac_plan_loss_count(t->train.plan) == 0)
        rc =
            sac_fail(err, SAC_EINVAL, "net %s has no loss to train by", sac_net_name(t->train.net));
    return rc;
}

static const struct sac_layer *layer_called(const struct sac_net *net, const char *name)
{
    for (int i = 0; i < sac_net_layer_count(net); i++)
        if (strcmp(sac_layer_name(sac_net_layer(net, i)), name) == 0)
            return sac_net_layer(net, i);
    return NULL;
}

/* Which of the training net's parameters a layer has as its k-th; -1: none. */
static int trained_as(const struct sac_net *train, const char *layer, int k)
{
    const struct sac_layer *theirs = layer_called(train, layer);
    struct sac_shape shape;
    struct sac_net_param param;

    if (!theirs || k >= sac_layer_weight_count(theirs))
        return -1;
    for (int i = 0; i < sac_net_param_count(train); i++) {
        sac_net_param(train, i, &param);
        if (param.data == sac_layer_weight(theirs, k, &shape))
            return i;
    }
    return -1;
}

/* The training net's parameter that the test net's is: that of a layer of the same name,
 * as Caffe has it, since what a layer shares may be another's in the other phase. */
static int trained_param(const struct sac_net *train, const struct sac_net *test, const float *data)
{
    struct sac_shape shape;

    for (int i = 0; i < sac_net_layer_count(test); i++) {
        const struct sac_layer *layer = sac_net_layer(test, i);
        for (int k = 0; k < sac_layer_weight_count(layer); k++) {
            int found = sac_layer_weight(layer, k, &shape) == data
                            ? trained_as(train, sac_layer_name(layer), k)
                            : -1;
            if (found >= 0)
                return found;
        }
    }
    return -1;
}

static int check_count(int index, const struct sac_net_param *mine,
                       const struct sac_net_param *theirs, struct sac_error *err)
{
    if (mine->count == theirs->count)
        return 0;
    return sac_fail(err, SAC_EINVAL,
                    "test net %d: parameter %s has %lld numbers, and %lld in training", index,
                    mine->name, (long long)mine->count, (long long)theirs->count);
}

/* A test net takes the training net's parameters; what it has alone stays as its fillers
 * made it. */
static int share_weights(struct sac_trainer *t, int index, struct sac_error *err)
{
    struct sac_net *net = t->tests[index].net;
    int count = sac_net_param_count(net), rc = 0;
    float **at = calloc((size_t)count + 1, sizeof *at);
    bool filled = false;

    if (!at)
        return sac_trainer_no_memory(err);
    t->test_weight_at[index] = at;
    for (int i = 0; i < count && rc == 0; i++) {
        struct sac_net_param mine, theirs;
        sac_net_param(net, i, &mine);
        int found = trained_param(t->train.net, net, mine.data);
        if (found >= 0) {
            sac_net_param(t->train.net, found, &theirs);
            at[i] = sac_trainer_plan_weights(t)[found];
            rc = check_count(index, &mine, &theirs, err);
            continue;
        }
        at[i] = mine.data;
        rc = filled ? 0 : sac_net_fill(net, t->seed, err);
        filled = true;
        if (rc == 0)
            rc = sac_trainer_remote_own(t, &at[i], mine.count, err);
    }
    return rc;
}

static int plan_test(struct sac_trainer *t, int index, struct sac_error *err)
{
    int rc = share_weights(t, index, err);
    struct sac_plan_options how = {
        .ops = {.precision = t->options.precision,
                .repeats = t->options.deterministic,
                .threads = t->threads},
        .judged = true,
        .weights = t->test_weight_at[index],
        .memory_of = index > 0 ? t->tests[0].plan : NULL,
    };

    if (rc != 0)
        return rc;
    return sac_phase_net_plan(&t->tests[index], t->options.device, t->store, t->stream, &how, err);
}

int sac_trainer_open_device(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_device *device = t->options.device;
    int rc = device->info.host_memory || device->table->update
                 ? 0
                 : sac_fail(err, SAC_EUNSUPPORTED, "device %s cannot train", device->info.name);

    if (rc == 0)
        rc = device->table->stream_new(device, &t->stream, err);
    if (rc == 0)
        rc = device->table->store_new(device, &t->store, err);
    return rc == 0 ? sac_transfer_open(&t->transfer, device, t->stream, err) : rc;
}

int sac_trainer_make_plans(struct sac_trainer *t, struct sac_error *err)
{
    int rc = sac_trainer_remote_open(t, err);
    int64_t most;

    if (rc == 0)
        rc = plan_train(t, err);
    most = t->train.value_count;
    for (int i = 0; rc == 0 && i < t->test_count; i++) {
        rc = plan_test(t, i, err);
        most = t->tests[i].value_count > most ? t->tests[i].value_count : most;
    }
    t->values = calloc((size_t)most + 1, sizeof *t->values);
    t->shown = calloc((size_t)most + 1, sizeof *t->shown);
    return rc == 0 && (!t->values || !t->shown) ? sac_trainer_no_memory(err) : rc;
}
