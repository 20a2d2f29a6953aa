/*
 * Rate, update, history, snapshot and loss mean together: 2N iterations are N, a
 * snapshot, a start from its files alone, and N again, bit for bit. The gradient is a
 * function of the parameters and the iteration, as in training.
 */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/loss_mean.h"
#include "train/snapshot.h"
#include "train/solver.h"

enum { A = 1100, B = 7, TOTAL = A + B, HALF = 15 };

static const struct sac_solver_segment segments[] = {
    {"ip blob 0", {2, {50, 22}}, 0, 1, 1},
    {"ip blob 1", {1, {B}}, A, 2, 0},
};

struct run {
    struct sac_caffe_solver message;
    struct sac_solver *solver;
    struct sac_loss_mean loss;
    float params[TOTAL];
    struct sac_blob_view blobs[2];
    struct sac_weights_layer layer;
    struct sac_weights_view view;
};

static void start(struct run *run, const char *text)
{
    struct sac_error err = {0};
    const char *path = sac_test_write("solver.prototxt", text, strlen(text));

    memset(run, 0, sizeof *run);
    assert_ok(sac_caffe_solver_load(&run->message, path, &err), err);
    assert_ok(sac_solver_new(&run->solver, run->message.solver, segments, 2, TOTAL, &err), err);
    assert_ok(sac_loss_mean_init(&run->loss, 6, &err), err);
    for (int i = 0; i < TOTAL; i++)
        run->params[i] = sinf((float)i);
    for (int i = 0; i < 2; i++)
        run->blobs[i] = (struct sac_blob_view){segments[i].shape, run->params + segments[i].offset};
    run->layer = (struct sac_weights_layer){"ip", "InnerProduct", NULL, 2, run->blobs};
    run->view = (struct sac_weights_view){"n", 1, &run->layer};
}

static void stop(struct run *run)
{
    sac_solver_free(run->solver);
    sac_loss_mean_done(&run->loss);
    sac_caffe_solver_done(&run->message);
}

/* Half the squared distance from a target that moves with the iteration. */
static void train(struct run *run, int64_t from, int64_t end)
{
    static float grads[TOTAL];

    for (int64_t iteration = from; iteration < end; iteration++) {
        double loss = 0;
        for (int i = 0; i < TOTAL; i++) {
            grads[i] = run->params[i] - cosf((float)(i + iteration));
            loss += 0.5 * (double)grads[i] * (double)grads[i];
        }
        sac_loss_mean_add(&run->loss, loss);
        sac_solver_update(run->solver, run->params, grads, iteration);
    }
}

static void save(struct run *run, enum sac_snapshot_format format, const char *prefix,
                 struct sac_snapshot_files *ret)
{
    struct sac_blob_view history[4];
    struct sac_error err = {0};
    json_t *values = json_pack("{s:o}", "loss", sac_loss_mean_to_json(&run->loss));
    int count = sac_solver_history_count(run->solver);

    for (int i = 0; i < count; i++)
        history[i] = sac_solver_history(run->solver, i);
    assert_ok(sac_snapshot_save(&(struct sac_snapshot){.prefix = prefix,
                                                       .format = format,
                                                       .iteration = HALF,
                                                       .current_step = sac_rate_step_at(
                                                           sac_solver_rate(run->solver), HALF),
                                                       .weights = &run->view,
                                                       .history = history,
                                                       .history_count = count,
                                                       .values = values},
                                ret, &err),
              err);
    json_decref(values);
}

/* From the files alone; returns the iteration. */
static int64_t resume(struct run *run, const struct sac_snapshot_files *files)
{
    struct sac_solver_state state;
    struct sac_error err = {0};
    json_t *values;

    assert_ok(sac_weights_load(&run->view, files->weights, NULL, &err), err);
    assert_ok(sac_solver_state_load(&state, files->state, &err), err);
    assert_ok(sac_solver_history_load(run->solver, state.history, state.history_count, &err), err);
    assert_ok(sac_snapshot_values(files, &values, &err), err);
    assert_ok(sac_loss_mean_from_json(&run->loss, json_object_get(values, "loss"), &err), err);
    int64_t iteration = state.iteration;
    sac_solver_state_done(&state);
    json_decref(values);
    return iteration;
}

static void assert_resumes(const char *text, enum sac_snapshot_format format)
{
    struct sac_snapshot_files saved, found;
    struct run straight, first, second;
    struct sac_error err = {0};
    char prefix[600];

    snprintf(prefix, sizeof prefix, "%s/resume", sac_test_tmpdir());
    start(&straight, text);
    start(&first, text);
    start(&second, text);
    train(&straight, 0, 2 * HALF);
    train(&first, 0, HALF);
    save(&first, format, prefix, &saved);
    assert_ok(sac_snapshot_open(&found, saved.state, &err), err);
    train(&second, resume(&second, &found), 2 * HALF);
    assert_memory_equal(straight.params, second.params, sizeof straight.params);
    assert_true(straight.loss.mean == second.loss.mean);
    sac_snapshot_files_done(&saved);
    sac_snapshot_files_done(&found);
    stop(&straight);
    stop(&first);
    stop(&second);
}

static const char *const solvers[] = {
    "base_lr: .1 momentum: .9 weight_decay: .01 lr_policy: 'multistep' gamma: .5 stepvalue: 9 "
    "stepvalue: 20",
    "type: 'Nesterov' base_lr: .1 momentum: .9 lr_policy: 'cosine' max_iter: 30 rampup_interval: 5",
    "type: 'AdaGrad' base_lr: .1 lr_policy: 'inv' gamma: .1 power: .5",
    "type: 'RMSProp' base_lr: .01 lr_policy: 'onecycle' max_iter: 30",
    "type: 'AdaDelta' base_lr: 1 momentum: .9 delta: 1e-6 lr_policy: 'fixed' clip_gradients: 5",
    "type: 'Adam' base_lr: .01 momentum: .9 lr_policy: 'poly' power: 2 max_iter: 30",
};

static void all_six_resume_bit_for_bit_from_caffes_binary_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof solvers / sizeof solvers[0]; i++)
        assert_resumes(solvers[i], SAC_SNAPSHOT_BINARY);
}

static void all_six_resume_bit_for_bit_from_hdf5(void **state)
{
    (void)state;
    if (!sac_snapshot_has_hdf5()) {
        print_message("# skipped: built without HDF5\n");
        skip();
    }
    for (size_t i = 0; i < sizeof solvers / sizeof solvers[0]; i++)
        assert_resumes(solvers[i], SAC_SNAPSHOT_HDF5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_six_resume_bit_for_bit_from_caffes_binary_files),
        cmocka_unit_test(all_six_resume_bit_for_bit_from_hdf5),
    };
    return cmocka_run_group_tests_name("resume", tests, NULL, NULL);
}
