/* The training loop: runs that are stopped and go on equal runs that are not, nets learn
 * what can be learned, and what goes wrong is said. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "data/random.h"
#include "data/sink.h"
#include "train/snapshot.h"
#include "train/trainer.h"

enum { RECORDS = 96, RECORD = 3073, CLASSES = 4 };

/* Everything with a state of its own: dropout's random numbers, BatchNorm's statistics,
 * the mirror's coin; and a parameter that is frozen. */
static const char net_text[] =
    "name: 'tiny'\n"
    "layer { name: 'in' type: 'Data' top: 'data' top: 'label' include { phase: TRAIN }"
    " transform_param { mirror: true crop_size: 28 scale: 0.0078125 mean_value: 128 }"
    " data_param { source: 'none' batch_size: 8 backend: LMDB } }\n"
    "layer { name: 'in' type: 'Data' top: 'data' top: 'label' include { phase: TEST }"
    " transform_param { crop_size: 28 scale: 0.0078125 mean_value: 128 }"
    " data_param { source: 'none' batch_size: 16 backend: LMDB } }\n"
    "layer { name: 'c1' type: 'Convolution' bottom: 'data' top: 'c1' param { lr_mult: 1 }"
    " param { lr_mult: 2 decay_mult: 0 } convolution_param { num_output: 8 kernel_size: 5 stride: 2"
    " weight_filler { type: 'xavier' } } }\n"
    "layer { name: 'b1' type: 'BatchNorm' bottom: 'c1' top: 'b1' }\n"
    "layer { name: 's1' type: 'Scale' bottom: 'b1' top: 's1' scale_param { bias_term: true } }\n"
    "layer { name: 'r1' type: 'ReLU' bottom: 's1' top: 's1' }\n"
    "layer { name: 'p1' type: 'Pooling' bottom: 's1' top: 'p1'"
    " pooling_param { kernel_size: 3 stride: 2 } }\n"
    "layer { name: 'd1' type: 'Dropout' bottom: 'p1' top: 'p1' dropout_param { dropout_ratio: .3 } "
    "}\n"
    "layer { name: 'fc' type: 'InnerProduct' bottom: 'p1' top: 'fc' param { lr_mult: 1 }"
    " param { lr_mult: 0 } inner_product_param { num_output: 4"
    " weight_filler { type: 'gaussian' std: .01 } } }\n"
    "layer { name: 'acc' type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'acc'"
    " include { phase: TEST } }\n"
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'loss' }\n";

/* What a run told. */
struct told {
    int count[SAC_TRAIN_DONE + 1];
    double first_loss, last_loss, accuracy;
    int64_t tested_at[16];
    double accuracies[16], losses[16]; /* of the same tests */
    char best_by[16];
    int64_t stop_at, best;
    int asked, stop_asked, save_asked; /* how often until now; when to say it */
    double waited;                     /* part of the time */
};

static void on_event(void *user, const struct sac_train_event *e)
{
    struct told *told = user;

    told->count[e->kind]++;
    if (e->kind == SAC_TRAIN_STEP) {
        told->first_loss = told->count[e->kind] == 1 ? e->loss : told->first_loss;
        told->last_loss = e->loss;
    }
    if (e->kind == SAC_TRAIN_TESTED) {
        int at = (told->count[e->kind] - 1) % 16;
        told->tested_at[at] = e->iteration;
        told->accuracies[at] = told->accuracy = e->values[0].value;
        told->losses[at] = e->loss;
    }
    if (e->kind == SAC_TRAIN_BEST) {
        told->best = e->iteration;
        snprintf(told->best_by, sizeof told->best_by, "%s", e->name);
    }
    told->waited = e->kind == SAC_TRAIN_DONE ? e->waited / e->seconds : 0;
    told->stop_at -= e->kind == SAC_TRAIN_STEP;
}

static enum sac_train_request request(void *user)
{
    struct told *told = user;

    told->asked++;
    if (told->asked == told->stop_asked || told->asked == told->save_asked)
        return told->asked == told->stop_asked ? SAC_TRAIN_STOP : SAC_TRAIN_SNAPSHOT;
    return told->stop_at == 0 ? SAC_TRAIN_STOP : SAC_TRAIN_GO_ON;
}

/* CIFAR's records: each class has a colour of its own under noise. */
static const char *make_data(const char *name, int wrong_label)
{
    static uint8_t bytes[RECORDS * RECORD];
    struct sac_random random = sac_random_stream(5, SAC_RANDOM_ITEM, 0, 0);

    for (int i = 0; i < RECORDS; i++) {
        uint8_t *at = bytes + i * RECORD;
        int label = (int)sac_random_below(&random, CLASSES);
        at[0] = (uint8_t)(i == wrong_label ? 7 : label);
        for (int k = 0; k < RECORD - 1; k++) {
            int bright = k / 1024 == label || label == 3;
            at[1 + k] = (uint8_t)(60 + 70 * bright + (int)sac_random_below(&random, 60));
        }
    }
    return sac_test_write(name, bytes, sizeof bytes);
}

static struct sac_device *device;

static int open_device(void **state)
{
    (void)state;
    return sac_device_open(&device, "cpu", NULL);
}

static int close_device(void **state)
{
    (void)state;
    sac_device_close(device);
    return 0;
}

struct run {
    const char *folder;
    char solver[1200], prefix[1200];
};

static struct run make_run(const char *more)
{
    struct run run = {.folder = sac_test_tmpdir()};
    static int number; /* of runs: each has a prefix of its own */
    char text[4000];

    snprintf(run.prefix, sizeof run.prefix, "%s/tiny%d", run.folder, number++);
    const char *net = sac_test_write("tiny.prototxt", net_text, sizeof net_text - 1);
    int size = snprintf(text, sizeof text,
                        "net: '%s' base_lr: 0.01 lr_policy: 'step' stepsize: 20 gamma: .5 "
                        "momentum: .9 weight_decay: .001 snapshot_prefix: '%s' random_seed: 11 %s",
                        net, run.prefix, more);
    snprintf(run.solver, sizeof run.solver, "%s",
             sac_test_write("solver.prototxt", text, (size_t)size));
    return run;
}

/* How runs compute; a test that changes it puts it back. */
static enum sac_precision precision = SAC_PRECISION_F32;
static int compute_threads = 1;

static int train_as(struct sac_trainer_options options, const struct run *run, const char *snapshot,
                    const char *data, struct told *told, struct sac_error *err)
{
    struct sac_trainer *trainer = NULL;

    options.solver = run->solver;
    options.snapshot = snapshot;
    options.data = options.test_data = data;
    options.threads = 2;
    options.compute_threads = compute_threads;
    options.precision = precision;
    options.device = device;
    options.on_event = on_event;
    options.request = request;
    options.user = told;
    int rc = sac_trainer_new(&trainer, &options, err);

    if (rc == 0)
        rc = sac_trainer_run(trainer, err);
    sac_trainer_free(trainer);
    return rc;
}

static int train(const struct run *run, const char *snapshot, const char *data, struct told *told,
                 struct sac_error *err)
{
    return train_as((struct sac_trainer_options){0}, run, snapshot, data, told, err);
}

static const char *file_of(const struct run *run, int iteration, const char *end)
{
    static char path[2][1300];
    static int turn;

    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s_iter_%d.%s", run->prefix, iteration, end);
    return path[turn];
}

/* A snapshot's numbers, in one text of bytes. */
struct numbers {
    struct sac_solver_state state;
    json_t *values;
    uint8_t *weights;
    size_t weights_size;
};

static struct numbers numbers_of(const struct run *run, int iteration, const char *h5)
{
    struct sac_snapshot_files files = {0};
    struct sac_error err = {0};
    struct numbers out = {0};
    char end[32];

    snprintf(end, sizeof end, "solverstate%s", h5);
    assert_ok(sac_snapshot_open(&files, file_of(run, iteration, end), &err), err);
    assert_ok(sac_solver_state_load(&out.state, files.state, &err), err);
    assert_ok(sac_snapshot_values(&files, &out.values, &err), err);
    FILE *file = fopen(files.weights, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    out.weights_size = (size_t)ftell(file);
    rewind(file);
    out.weights = malloc(out.weights_size);
    assert_int_equal(fread(out.weights, 1, out.weights_size, file), out.weights_size);
    fclose(file);
    unlink(files.state);
    unlink(files.weights);
    unlink(files.sidecar);
    sac_snapshot_files_done(&files);
    return out;
}

static void numbers_done(struct numbers *n)
{
    sac_solver_state_done(&n->state);
    json_decref(n->values);
    free(n->weights);
}

static void assert_same(const struct numbers *a, const struct numbers *b)
{
    assert_int_equal(a->weights_size, b->weights_size);
    assert_memory_equal(a->weights, b->weights, a->weights_size);
    assert_int_equal(a->state.history_count, b->state.history_count);
    for (int i = 0; i < a->state.history_count; i++)
        assert_memory_equal(a->state.history[i].data, b->state.history[i].data,
                            (size_t)sac_shape_count(&a->state.history[i].shape) * sizeof(float));
    assert_true(json_equal(a->values, b->values));
}

static void goes_on(const char *more, const char *h5)
{
    const char *data = make_data("train.bin", -1);
    struct run run = make_run(more);
    struct sac_error err = {0};
    struct told told = {.stop_at = -1}, first = {.stop_at = 15}, second = {.stop_at = -1};

    assert_ok(train(&run, NULL, data, &told, &err), err);
    struct numbers whole = numbers_of(&run, 30, h5);
    assert_ok(train(&run, NULL, data, &first, &err), err);
    assert_int_equal(first.count[SAC_TRAIN_STEP], 15);
    assert_int_equal(first.count[SAC_TRAIN_STOPPED], 1);
    assert_ok(train(&run, "auto", data, &second, &err), err);
    assert_int_equal(second.count[SAC_TRAIN_STEP], 15);
    assert_int_equal(second.count[SAC_TRAIN_RESTORED], 1);
    struct numbers parts = numbers_of(&run, 30, h5);
    assert_same(&whole, &parts);
    assert_true(told.last_loss == second.last_loss);
    numbers_done(&whole);
    numbers_done(&parts);
}

static void a_run_that_goes_on_from_a_binary_snapshot_is_the_same_run(void **state)
{
    (void)state;
    goes_on("max_iter: 30 average_loss: 7 iter_size: 2 test_iter: 3 test_interval: 10", "");
}

static void a_run_on_two_threads_in_bf16_goes_on_as_the_same_run(void **state)
{
    (void)state;
    precision = SAC_PRECISION_BF16;
    compute_threads = 2;
    goes_on("max_iter: 30 average_loss: 7 test_iter: 3 test_interval: 10", "");
    precision = SAC_PRECISION_F32;
    compute_threads = 1;
}

/* The first run's number is in its snapshot: 30 iterations on three threads. */
static void a_run_goes_on_with_as_many_threads_as_its_snapshot_had(void **state)
{
    const char *data = make_data("train.bin", -1);
    struct run run = make_run("max_iter: 30 average_loss: 7");
    struct sac_error err = {0};
    struct told whole = {.stop_at = -1}, first = {.stop_at = 15}, second = {.stop_at = -1};

    (void)state;
    compute_threads = 3;
    assert_ok(train(&run, NULL, data, &whole, &err), err);
    struct numbers a = numbers_of(&run, 30, "");
    assert_int_equal(json_integer_value(json_object_get(a.values, "threads")), 3);
    assert_ok(train(&run, NULL, data, &first, &err), err);
    compute_threads = 0;
    assert_ok(train(&run, "auto", data, &second, &err), err);
    compute_threads = 1;
    struct numbers b = numbers_of(&run, 30, "");
    assert_same(&a, &b);
    numbers_done(&a);
    numbers_done(&b);
}

static void a_run_that_goes_on_from_an_hdf5_snapshot_is_the_same_run(void **state)
{
    (void)state;
    if (!sac_snapshot_has_hdf5()) {
        print_message("# skipped: built without HDF5\n");
        skip();
    }
    goes_on("max_iter: 30 type: 'Adam' snapshot_format: HDF5 average_loss: 7", ".h5");
}

/* 20 records of four numbers: in another step than the main data's 96. */
static const char *make_side(const char *folder)
{
    static char path[1300];
    struct sac_sink_options options = {.kind = SAC_SINK_LMDB, .path = path};
    struct sac_sink *sink = NULL;
    struct sac_error err = {0};

    snprintf(path, sizeof path, "%s/side", folder);
    int rc = sac_sink_open(&sink, &options, &(struct sac_sink_mark){0}, &err);
    if (rc == SAC_EUNSUPPORTED) {
        print_message("# skipped: built without LMDB\n");
        skip();
    }
    assert_ok(rc, err);
    for (int i = 0; i < 20; i++) {
        float values[4] = {sinf((float)i), cosf((float)i), sinf(2.f * (float)i), 0};
        struct sac_record record = {SAC_ITEM_FLOATS, 4, 1, 1, NULL, 0, values, 0, ""};
        assert_ok(sac_sink_put(sink, &record, &err), err);
    }
    assert_ok(sac_sink_finish(sink, &err), err);
    sac_sink_free(sink);
    return path;
}

/* DummyData, Data over CIFAR's records, Data over an LMDB: all go on where they were. */
static void a_net_that_several_layers_feed_goes_on_as_the_same_run(void **state)
{
    char text[2600];
    struct sac_error err = {0};
    struct told told = {.stop_at = -1}, first = {.stop_at = 7}, second = {.stop_at = -1};
    const char *data = make_data("train.bin", -1);
    struct run run = make_run("max_iter: 15 iter_size: 2");

    (void)state;
    int size = snprintf(
        text, sizeof text,
        "layer { name: 'd' type: 'DummyData' top: 'noise' top: 'two' dummy_data_param {"
        " shape { dim: 8 dim: 4 } shape { dim: 8 dim: 4 }"
        " data_filler { type: 'gaussian' std: .1 } data_filler { value: 2 } } }\n"
        "layer { name: 'in' type: 'Data' top: 'data' top: 'label' transform_param { scale: .01 }"
        " data_param { source: 'none' batch_size: 8 backend: LMDB } }\n"
        "layer { name: 'in2' type: 'Data' top: 'side' data_param { source: '%s' batch_size: 8"
        " backend: LMDB shuffle: true } }\n"
        "layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc' inner_product_param {"
        " num_output: 4 weight_filler { type: 'xavier' } } }\n"
        "layer { name: 'flat' type: 'Flatten' bottom: 'side' top: 'flat' }\n"
        "layer { name: 'sum' type: 'Eltwise' bottom: 'fc' bottom: 'flat' bottom: 'noise'"
        " bottom: 'two' top: 'sum' }\n"
        "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'sum' bottom: 'label' top: 'loss' "
        "}\n",
        make_side(run.folder));
    sac_test_write("tiny.prototxt", text, (size_t)size);
    assert_ok(train(&run, NULL, data, &told, &err), err);
    struct numbers whole = numbers_of(&run, 15, "");
    assert_ok(train(&run, NULL, data, &first, &err), err);
    assert_ok(train(&run, "auto", data, &second, &err), err);
    assert_int_equal(second.count[SAC_TRAIN_STEP], 8);
    struct numbers parts = numbers_of(&run, 15, "");
    assert_same(&whole, &parts);
    assert_true(told.last_loss == second.last_loss);
    numbers_done(&whole);
    numbers_done(&parts);
}

/* Whatever memory they run in. */
static void tests_between_change_no_weight(void **state)
{
    static const char *const tests[] = {"", " test_iter: 3 test_interval: 2",
                                        " test_iter: 1 test_iter: 2 test_interval: 3"};
    const char *data = make_data("train.bin", -1);
    struct numbers first = {0};
    char more[100];

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct told told = {.stop_at = -1};
        struct sac_error err = {0};
        snprintf(more, sizeof more, "max_iter: 8%s", tests[i]);
        struct run run = make_run(more);
        assert_ok(train(&run, NULL, data, &told, &err), err);
        struct numbers numbers = numbers_of(&run, 8, "");
        if (i == 0) {
            first = numbers;
            continue;
        }
        assert_int_equal(numbers.weights_size, first.weights_size);
        assert_memory_equal(numbers.weights, first.weights, first.weights_size);
        numbers_done(&numbers);
    }
    numbers_done(&first);
}

/* Nothing of the results depends on these two. */
static void a_field_that_is_not_heeded_is_named(void **state)
{
    const char *data = make_data("train.bin", -1);
    struct sac_error err = {0};

    (void)state;
    struct run run = make_run("max_iter: 1 debug_info: true snapshot_diff: true");
    struct told told = {.stop_at = -1};
    assert_ok(train(&run, NULL, data, &told, &err), err);
    assert_int_equal(told.count[SAC_TRAIN_UNHEEDED], 2);
}

/* As Caffe, which asks before every batch of a test: 4 + 3 of those at iteration 0, 5
 * iterations, and then the sixth batch of the tests at 5, which is the second net's. */
static void what_is_asked_for_during_a_test_is_done_there(void **state)
{
    static const char more[] =
        "max_iter: 10 test_iter: 4 test_iter: 3 test_interval: 5 average_loss: 3";
    const char *data = make_data("train.bin", -1);
    struct sac_error err = {0};

    (void)state;
    struct run run = make_run(more);
    struct told told = {.stop_at = -1, .save_asked = 7 + 5 + 6};
    assert_ok(train(&run, NULL, data, &told, &err), err);
    assert_int_equal(told.count[SAC_TRAIN_SAVING], 2);
    assert_int_equal(told.count[SAC_TRAIN_TESTED], 6);
    struct numbers whole = numbers_of(&run, 10, "");
    struct told again = {.stop_at = -1};
    assert_ok(train(&run, file_of(&run, 5, "solverstate"), data, &again, &err), err);
    assert_int_equal(again.count[SAC_TRAIN_TESTED], 4);
    struct numbers from_saved = numbers_of(&run, 10, "");
    assert_same(&whole, &from_saved);

    struct run other = make_run(more);
    struct told stopped = {.stop_at = -1, .stop_asked = 7 + 5 + 6}, rest = {.stop_at = -1};
    assert_ok(train(&other, NULL, data, &stopped, &err), err);
    assert_int_equal(stopped.asked, stopped.stop_asked);
    assert_int_equal(stopped.count[SAC_TRAIN_CUT_SHORT], 1);
    assert_int_equal(stopped.count[SAC_TRAIN_TESTED], 3);
    assert_int_equal(stopped.count[SAC_TRAIN_STEP], 5);
    assert_int_equal(stopped.count[SAC_TRAIN_SAVING], 1);
    assert_int_equal(stopped.count[SAC_TRAIN_STOPPED], 1);
    assert_ok(train(&other, "auto", data, &rest, &err), err);
    assert_int_equal(rest.count[SAC_TRAIN_TESTED], 4);
    struct numbers from_stopped = numbers_of(&other, 10, "");
    assert_same(&whole, &from_stopped);
    numbers_done(&whole);
    numbers_done(&from_saved);
    numbers_done(&from_stopped);
}

/* The snapshot of the best test was saved behind that test, which is not made again: what
 * the test net's feed is at, and how often no better one came, are as if it went on. */
static void a_run_that_goes_on_from_its_best_snapshot_is_the_same_run(void **state)
{
    const struct sac_trainer_options how = {.keep_best = true};
    const char *data = make_data("train.bin", -1);
    struct run run = make_run("max_iter: 30 test_iter: 1 test_interval: 2 snapshot: 15");
    struct told told = {.stop_at = -1}, again = {.stop_at = -1};
    struct sac_error err = {0};

    (void)state;
    assert_ok(train_as(how, &run, NULL, data, &told, &err), err);
    assert_in_range(told.best, 2, 28);
    struct numbers whole = numbers_of(&run, 30, "");
    assert_ok(train_as(how, &run, file_of(&run, (int)told.best, "solverstate"), data, &again, &err),
              err);
    assert_int_equal(again.count[SAC_TRAIN_BEST], 0);
    assert_int_equal(again.count[SAC_TRAIN_TESTED] + (int)told.best / 2 + 1,
                     told.count[SAC_TRAIN_TESTED]);
    struct numbers parts = numbers_of(&run, 30, "");
    assert_same(&whole, &parts);
    numbers_done(&whole);
    numbers_done(&parts);
}

/* A run of this net with layers of its own behind, or instead of it. */
static struct run make_run_of(const char *more_layers, const char *more)
{
    struct run run = make_run(more);
    char text[4 * sizeof net_text];
    int size = snprintf(text, sizeof text, "%s%s", net_text, more_layers);

    sac_test_write("tiny.prototxt", text, (size_t)size);
    return run;
}

/* The rule: the higher accuracy; of equal ones the lower loss; never iteration 0. */
static void of_tests_that_are_as_right_the_surest_is_the_best(void **state)
{
    struct run run = make_run("max_iter: 60 test_iter: 2 test_interval: 5");
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    int best = 1;

    (void)state;
    assert_ok(train_as((struct sac_trainer_options){.keep_best = true}, &run, NULL,
                       make_data("train.bin", -1), &told, &err),
              err);
    assert_int_equal(told.count[SAC_TRAIN_TESTED], 13);
    for (int i = 2; i < 13; i++)
        if (told.accuracies[i] > told.accuracies[best] ||
            (told.accuracies[i] == told.accuracies[best] && told.losses[i] < told.losses[best]))
            best = i;
    assert_int_equal(told.best, told.tested_at[best]);
}

/* Caffe's GoogLeNet: auxiliary heads come first, in the net and by name. */
static void the_best_is_judged_by_the_last_heads_accuracy(void **state)
{
    static const char heads[] =
        "layer { name: 'm1' type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'main'"
        " include { phase: TEST } }\n"
        "layer { name: 'm3' type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'main3'"
        " include { phase: TEST } accuracy_param { top_k: 3 } }\n"
        "layer { name: 'off' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'a'"
        " loss_weight: 0 include { phase: TEST } }\n";
    struct run run = make_run_of(heads, "max_iter: 4 test_iter: 1 test_interval: 2");
    struct sac_trainer_options how = {.keep_best = true};
    struct told told = {.stop_at = -1}, by_loss = {.stop_at = -1};
    struct sac_error err = {0};
    const char *data = make_data("train.bin", -1);

    (void)state;
    assert_ok(train_as(how, &run, NULL, data, &told, &err), err);
    assert_string_equal(told.best_by, "main");
    /* A loss counts as one whatever its weight: what falls is better. */
    how.metric = "a";
    run = make_run_of(heads, "max_iter: 60 test_iter: 2 test_interval: 30");
    assert_ok(train_as(how, &run, NULL, data, &by_loss, &err), err);
    assert_int_equal(by_loss.best, 60);
}

/* Caffe shares by layers' names: of "fc", whose owner is in the training net alone. */
static void a_test_net_takes_a_parameter_whose_owner_it_does_not_have(void **state)
{
    struct run run = make_run("max_iter: 60 test_iter: 6 test_interval: 60");
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    char text[2 * sizeof net_text];

    (void)state;
    const char *fc = strstr(net_text, "layer { name: 'fc'"),
               *acc = strstr(net_text, "layer { name: 'acc'");
    int size = snprintf(
        text, sizeof text,
        "%.*s"
        "layer { name: 'owner' type: 'InnerProduct' bottom: 'p1' top: 'own' param { name: 'w' }"
        " inner_product_param { num_output: 4 bias_term: false weight_filler { type: 'gaussian'"
        " std: .01 } } include { phase: TRAIN } }\n"
        "layer { name: 'fc' type: 'InnerProduct' bottom: 'p1' top: 'fc' param { name: 'w' }"
        " inner_product_param { num_output: 4 bias_term: false weight_filler { type: 'gaussian'"
        " std: .01 } } }\n"
        "layer { name: 'quiet' type: 'Silence' bottom: 'own' include { phase: TRAIN } }\n%s",
        (int)(fc - net_text), net_text, acc);
    sac_test_write("tiny.prototxt", text, (size_t)size);
    assert_ok(train(&run, NULL, make_data("train.bin", -1), &told, &err), err);
    assert_true(told.accuracy > .9);
}

/* As Caffe: no step, but the last test, and all that a killed run may owe. */
static void a_run_that_stands_at_its_end_is_finished(void **state)
{
    const char *data = make_data("train.bin", -1);
    struct run run = make_run("max_iter: 4 test_iter: 1 test_interval: 2");
    struct told told = {.stop_at = -1}, again = {.stop_at = -1};
    struct sac_error err = {0};

    (void)state;
    assert_ok(train(&run, NULL, data, &told, &err), err);
    assert_ok(train(&run, "auto", data, &again, &err), err);
    assert_int_equal(again.count[SAC_TRAIN_STEP], 0);
    assert_int_equal(again.count[SAC_TRAIN_TESTED], 1);
    assert_int_equal(again.tested_at[0], 4);
    assert_int_equal(again.count[SAC_TRAIN_DONE], 1);
    assert_float_equal(again.accuracy, told.accuracy, 0);
}

static void a_solver_that_cannot_be_is_named_before_data_is_looked_for(void **state)
{
    static const char *const wrong[][2] = {
        {"lr_policy: 'stpe'", "stpe"},
        {"max_iter: 0", "max_iter is not above 0"},
        {"max_iter: 1 train_net: 'other.prototxt'", "both net and train_net"},
        {"max_iter: 1 test_iter: 1 test_interval: 1 test_state {} test_state {}",
         "2 test_state and 1 test_iter"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct run run = make_run(i == 0 ? "max_iter: 1" : wrong[i][0]);
        struct told told = {.stop_at = -1};
        struct sac_error err = {0};
        char text[1200];
        if (i == 0) {
            int size =
                snprintf(text, sizeof text, "net: '%s/tiny.prototxt' base_lr: 1 max_iter: 1 %s",
                         run.folder, wrong[i][0]);
            sac_test_write("solver.prototxt", text, (size_t)size);
        }
        assert_int_equal(
            train(&run, NULL, i < 2 ? "/nowhere" : make_data("train.bin", -1), &told, &err),
            SAC_EINVAL);
        assert_says(err, wrong[i][1]);
    }
}

static void the_end_tells_what_was_waited_for_the_feed(void **state)
{
    struct run run = make_run("max_iter: 5");
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};

    (void)state;
    assert_ok(train(&run, NULL, make_data("train.bin", -1), &told, &err), err);
    assert_true(told.waited >= 0 && told.waited <= 1);
}

static void the_best_needs_a_test_that_can_tell_it(void **state)
{
    const struct sac_trainer_options best = {.keep_best = true}, named = {.metric = "nothing"};
    const char *data = make_data("train.bin", -1);
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};

    (void)state;
    struct run run = make_run("max_iter: 5");
    assert_int_equal(train_as(best, &run, NULL, data, &told, &err), SAC_EINVAL);
    assert_says(err, "there is no test net");
    err = (struct sac_error){0};
    run = make_run("max_iter: 5 test_iter: 1 test_interval: 2");
    assert_int_equal(train_as(named, &run, NULL, data, &told, &err), SAC_EINVAL);
    assert_says(err, "no test net has an output \"nothing\"");
}

/* The same run in both: rounding is noise of 2^-9 to each value, not another way. */
static void bf16_learns_as_f32_does(void **state)
{
    const char *data = make_data("train.bin", -1);
    struct run run = make_run("max_iter: 40 average_loss: 10 snapshot_after_train: false");
    struct told told[2] = {{.stop_at = -1}, {.stop_at = -1}};
    struct sac_error err = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        precision = i ? SAC_PRECISION_BF16 : SAC_PRECISION_F32;
        assert_ok(train(&run, NULL, data, &told[i], &err), err);
    }
    precision = SAC_PRECISION_F32;
    assert_true(fabs(told[1].first_loss - told[0].first_loss) < .01);
    assert_true(fabs(told[1].last_loss - told[0].last_loss) < .1 * told[0].first_loss);
}

/* Four colours: by chance 0.25 and a loss of ln 4 = 1.386. */
static void a_net_learns_what_can_be_learned(void **state)
{
    (void)state;
    struct run run = make_run("max_iter: 60 average_loss: 5 test_iter: 6 test_interval: 60");
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};

    assert_ok(train(&run, NULL, make_data("train.bin", -1), &told, &err), err);
    assert_true(told.last_loss < .3 && told.first_loss > 1);
    assert_true(told.accuracy > .9);
}

/* Caffe: iteration 0 and every test_interval, and after max_iter where it falls on one. */
static void tests_run_when_caffe_runs_them(void **state)
{
    (void)state;
    struct run run = make_run("max_iter: 20 test_iter: 1 test_interval: 5 display: 10");
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};

    assert_ok(train(&run, NULL, make_data("train.bin", -1), &told, &err), err);
    assert_int_equal(told.count[SAC_TRAIN_TESTED], 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(told.tested_at[i], 5 * i);
    assert_int_equal(told.count[SAC_TRAIN_DISPLAY], 2);
    assert_int_equal(told.count[SAC_TRAIN_LAST_LOSS], 1);
    assert_int_equal(told.count[SAC_TRAIN_SAVING], 1);
    assert_int_equal(told.count[SAC_TRAIN_DONE], 1);
}

/* A layer of the test net alone is filled as it says: without weights, its bias. Outputs are
 * numbered by their names, as Caffe does: a3, which is the last layer's, before acc. */
static void a_layer_for_tests_alone_has_its_fillers_numbers(void **state)
{
    static const char more[] = "layer { name: 'alone' type: 'InnerProduct' bottom: 'data' top: 'a3'"
                               " include { phase: TEST } inner_product_param { num_output: 1"
                               " bias_filler { type: 'constant' value: 3 } } }\n";
    struct run run = make_run_of(more, "max_iter: 2 test_iter: 2 test_interval: 2");
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};

    (void)state;
    assert_ok(train(&run, NULL, make_data("train.bin", -1), &told, &err), err);
    assert_true(told.accuracy == 3);
}

static void a_run_that_explodes_stops_with_a_name(void **state)
{
    (void)state;
    struct run run = make_run("max_iter: 60 clip_gradients: 1e30");
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    char text[4000];

    int size = snprintf(text, sizeof text,
                        "net: '%s/tiny.prototxt' base_lr: 1e30 lr_policy: 'fixed' momentum: .9 "
                        "snapshot_prefix: '%s' max_iter: 60 random_seed: 11",
                        run.folder, run.prefix);
    snprintf(run.solver, sizeof run.solver, "%s",
             sac_test_write("solver.prototxt", text, (size_t)size));
    assert_int_equal(train(&run, NULL, make_data("train.bin", -1), &told, &err), SAC_EINVAL);
    assert_says(err, "iteration ");
    /* Parameters of 1e28 after one step are finite; what they are multiplied with is not. */
    assert_says(err, "blob \"fc\" of layer \"fc\" is the first that is infinite");
    assert_int_equal(told.count[SAC_TRAIN_SAVING], 0);
}

static void a_label_out_of_range_is_named(void **state)
{
    (void)state;
    struct run run = make_run("max_iter: 60");
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};

    assert_int_equal(train(&run, NULL, make_data("wrong.bin", 40), &told, &err), SAC_EINVAL);
    assert_says(err, "wrong.bin");
    assert_says(err, "label 7; the net has classes 0 to 3");
}

static void another_seed_does_not_go_on_with_a_snapshot(void **state)
{
    (void)state;
    struct run run = make_run("max_iter: 10");
    struct told told = {.stop_at = 5};
    struct sac_error err = {0};
    struct sac_trainer *trainer = NULL;
    const char *data = make_data("train.bin", -1);

    assert_ok(train(&run, NULL, data, &told, &err), err);
    struct sac_trainer_options options = {.solver = run.solver,
                                          .snapshot = file_of(&run, 5, "solverstate"),
                                          .data = data,
                                          .has_seed = true,
                                          .seed = 12,
                                          .device = device};
    assert_int_equal(sac_trainer_new(&trainer, &options, &err), SAC_EINVAL);
    assert_says(err, "seed 11");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_that_goes_on_from_a_binary_snapshot_is_the_same_run),
        cmocka_unit_test(a_run_that_goes_on_from_an_hdf5_snapshot_is_the_same_run),
        cmocka_unit_test(a_net_that_several_layers_feed_goes_on_as_the_same_run),
        cmocka_unit_test(tests_between_change_no_weight),
        cmocka_unit_test(a_field_that_is_not_heeded_is_named),
        cmocka_unit_test(what_is_asked_for_during_a_test_is_done_there),
        cmocka_unit_test(a_run_that_goes_on_from_its_best_snapshot_is_the_same_run),
        cmocka_unit_test(of_tests_that_are_as_right_the_surest_is_the_best),
        cmocka_unit_test(the_best_is_judged_by_the_last_heads_accuracy),
        cmocka_unit_test(a_test_net_takes_a_parameter_whose_owner_it_does_not_have),
        cmocka_unit_test(a_run_that_stands_at_its_end_is_finished),
        cmocka_unit_test(a_solver_that_cannot_be_is_named_before_data_is_looked_for),
        cmocka_unit_test(the_end_tells_what_was_waited_for_the_feed),
        cmocka_unit_test(the_best_needs_a_test_that_can_tell_it),
        cmocka_unit_test(a_run_on_two_threads_in_bf16_goes_on_as_the_same_run),
        cmocka_unit_test(a_run_goes_on_with_as_many_threads_as_its_snapshot_had),
        cmocka_unit_test(bf16_learns_as_f32_does),
        cmocka_unit_test(a_net_learns_what_can_be_learned),
        cmocka_unit_test(tests_run_when_caffe_runs_them),
        cmocka_unit_test(a_layer_for_tests_alone_has_its_fillers_numbers),
        cmocka_unit_test(a_run_that_explodes_stops_with_a_name),
        cmocka_unit_test(a_label_out_of_range_is_named),
        cmocka_unit_test(another_seed_does_not_go_on_with_a_snapshot),
    };

    return cmocka_run_group_tests(tests, open_device, close_device);
}
