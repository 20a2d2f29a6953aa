/* The training loop on the CUDA device: as the CPU's, and bit for bit as itself. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/random.h"
#include "device/cuda/card.h"
#include "train/crew.h"
#include "train/snapshot.h"
#include "train/trainer.h"

enum { RECORDS = 96, RECORD = 3073, CLASSES = 4, ITERATIONS = 10 };

static const char input_text[] =
    "name: 'tiny'\n"
    "layer { name: 'in' type: 'Data' top: 'data' top: 'label'"
    " transform_param { mirror: true crop_size: 14 scale: 0.0078125 mean_value: 128 }"
    " data_param { source: 'none' batch_size: 4 backend: LMDB } }\n";

/* Two more inputs: what is outside of the padded picture, and numbers of fillers. */
static const char padded_text[] =
    "name: 'padded'\n"
    "layer { name: 'in' type: 'Data' top: 'data' top: 'label'"
    " transform_param { crop_size: 30 scale: 0.0078125 mean_value: 90 mean_value: 128"
    " mean_value: 100 augment { pad: 4 flip: true } }"
    " data_param { source: 'none' batch_size: 4 backend: LMDB } }\n";
static const char dummy_text[] =
    "name: 'dummy'\n"
    "layer { name: 'in' type: 'DummyData' top: 'data' top: 'label' dummy_data_param {"
    " shape { dim: 4 dim: 3 dim: 14 dim: 14 } shape { dim: 4 }"
    " data_filler { type: 'gaussian' std: 1 } data_filler { type: 'constant' value: 2 } } }\n";
static const char *input = input_text;

/* The layers of Caffe's CIFAR nets. */
static const char plain_text[] =
    "layer { name: 'c1' type: 'Convolution' bottom: 'data' top: 'c1' param { lr_mult: 1 }"
    " param { lr_mult: 2 decay_mult: 0 } convolution_param { num_output: 8 kernel_size: 5 pad: 2"
    " weight_filler { type: 'gaussian' std: 0.02 } } }\n"
    "layer { name: 'p1' type: 'Pooling' bottom: 'c1' top: 'p1'"
    " pooling_param { kernel_size: 3 stride: 2 } }\n"
    "layer { name: 'r1' type: 'ReLU' bottom: 'p1' top: 'p1' }\n"
    "layer { name: 'n1' type: 'LRN' bottom: 'p1' top: 'n1' lrn_param { local_size: 3"
    " alpha: 0.00005 beta: 0.75 norm_region: WITHIN_CHANNEL } }\n"
    "layer { name: 'c2' type: 'Convolution' bottom: 'n1' top: 'c2' param { lr_mult: 1 }"
    " param { lr_mult: 2 } convolution_param { num_output: 8 kernel_size: 3 pad: 1"
    " weight_filler { type: 'xavier' } } }\n"
    "layer { name: 'r2' type: 'ReLU' bottom: 'c2' top: 'c2' }\n"
    "layer { name: 'p2' type: 'Pooling' bottom: 'c2' top: 'p2'"
    " pooling_param { pool: AVE kernel_size: 3 stride: 2 } }\n"
    "layer { name: 'fc' type: 'InnerProduct' bottom: 'p2' top: 'fc' param { lr_mult: 1 }"
    " param { lr_mult: 0 } inner_product_param { num_output: 4"
    " weight_filler { type: 'gaussian' std: .05 } } }\n"
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'loss' }\n";

/* Everything with a state of its own. */
static const char norm_text[] =
    "layer { name: 'c1' type: 'Convolution' bottom: 'data' top: 'c1'"
    " convolution_param { num_output: 8 kernel_size: 5 stride: 2"
    " weight_filler { type: 'xavier' } } }\n"
    "layer { name: 'b1' type: 'BatchNorm' bottom: 'c1' top: 'b1' }\n"
    "layer { name: 's1' type: 'Scale' bottom: 'b1' top: 's1' scale_param { bias_term: true } }\n"
    "layer { name: 'r1' type: 'ReLU' bottom: 's1' top: 's1' }\n"
    "layer { name: 'd1' type: 'Dropout' bottom: 's1' top: 's1' dropout_param { dropout_ratio: .3 } "
    "}\n"
    "layer { name: 'fc' type: 'InnerProduct' bottom: 's1' top: 'fc'"
    " inner_product_param { num_output: 4 weight_filler { type: 'gaussian' std: .05 } } }\n"
    "layer { name: 'acc' type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'acc'"
    " include { phase: TEST } }\n"
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'loss' }\n";

/* As the plain net's, but pixels of ±127. */
static const char loud_text[] =
    "layer { name: 'big' type: 'Power' bottom: 'data' top: 'big' power_param { scale: 128 } }\n"
    "layer { name: 'c1' type: 'Convolution' bottom: 'big' top: 'c1'"
    " convolution_param { num_output: 8 kernel_size: 5 pad: 2 bias_term: false"
    " weight_filler { type: 'gaussian' std: 0.01 } } }\n"
    "layer { name: 'r1' type: 'ReLU' bottom: 'c1' top: 'c1' }\n"
    "layer { name: 'fc' type: 'InnerProduct' bottom: 'c1' top: 'fc'"
    " inner_product_param { num_output: 4 bias_term: false"
    " weight_filler { type: 'gaussian' std: .01 } } }\n"
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'loss' }\n";

static struct sac_device *cuda, *cpu;

static int open_devices(void **state)
{
    (void)state;
    cuda = card_open();
    return sac_device_open(&cpu, "cpu", NULL);
}

static int close_devices(void **state)
{
    (void)state;
    sac_device_close(cuda);
    sac_device_close(cpu);
    return 0;
}

/* CIFAR's records: each class has a colour of its own under noise. */
static const char *make_data(void)
{
    static uint8_t bytes[RECORDS * RECORD];
    struct sac_random random = sac_random_stream(5, SAC_RANDOM_ITEM, 0, 0);

    for (int i = 0; i < RECORDS; i++) {
        uint8_t *at = bytes + i * RECORD;
        int label = (int)sac_random_below(&random, CLASSES);
        at[0] = (uint8_t)label;
        for (int k = 0; k < RECORD - 1; k++) {
            int bright = k / 1024 == label || label == 3;
            at[1 + k] = (uint8_t)(60 + 70 * bright + (int)sac_random_below(&random, 60));
        }
    }
    return sac_test_write("train.bin", bytes, sizeof bytes);
}

struct run {
    char solver[1200], prefix[1200];
};

static struct run make_run(const char *layers, const char *more)
{
    static int number; /* of runs: each has a prefix of its own */
    struct run run;
    char text[6000], name[32];

    snprintf(name, sizeof name, "solver%d.prototxt", number);
    snprintf(run.prefix, sizeof run.prefix, "%s/gpu%d", sac_test_tmpdir(), number++);
    int size = snprintf(text, sizeof text, "%s%s", input, layers);
    const char *net = sac_test_write(strcmp(layers, norm_text) == 0   ? "norm.prototxt"
                                     : strcmp(layers, loud_text) == 0 ? "loud.prototxt"
                                                                      : "net.prototxt",
                                     text, (size_t)size);
    size =
        snprintf(text, sizeof text,
                 "net: '%s' lr_policy: 'step' stepsize: 6 "
                 "weight_decay: .001 snapshot_prefix: '%s' random_seed: 11 %s %s",
                 net, run.prefix, strstr(more, "base_lr") ? "" : "base_lr: 0.01 gamma: .5", more);
    snprintf(run.solver, sizeof run.solver, "%s", sac_test_write(name, text, (size_t)size));
    return run;
}

struct told {
    double first_loss, last_loss;
    int steps, stop_at, tested;
};

static void on_event(void *user, const struct sac_train_event *e)
{
    struct told *told = user;

    told->tested += e->kind == SAC_TRAIN_TESTED;
    if (e->kind != SAC_TRAIN_STEP)
        return;
    told->first_loss = told->steps++ == 0 ? e->loss : told->first_loss;
    told->last_loss = e->loss;
}

static enum sac_train_request request(void *user)
{
    const struct told *told = user;

    return told->steps == told->stop_at ? SAC_TRAIN_STOP : SAC_TRAIN_GO_ON;
}

/* Of f16's losses; 0: as the trainer has them. */
static float scale_first;
static int scale_steps;

static struct told train(const struct run *run, struct sac_device *device, const char *snapshot,
                         int stop_at, enum sac_precision precision)
{
    struct told told = {.stop_at = stop_at};
    const char *data = make_data();
    struct sac_trainer_options options = {.solver = run->solver,
                                          .snapshot = snapshot,
                                          .data = data,
                                          .test_data = data,
                                          .threads = 2,
                                          .compute_threads = 1,
                                          .precision = precision,
                                          .scale_first = scale_first,
                                          .scale_steps = scale_steps,
                                          .deterministic = true,
                                          .device = device,
                                          .on_event = on_event,
                                          .request = request,
                                          .user = &told};
    struct sac_trainer *trainer = NULL;
    struct sac_error err = {0};

    assert_ok(sac_trainer_new(&trainer, &options, &err), err);
    assert_ok(sac_trainer_run(trainer, &err), err);
    sac_trainer_free(trainer);
    return told;
}

/* A snapshot's weights as the file has them, and its history. */
struct numbers {
    struct sac_caffe_net weights;
    struct sac_solver_state state;
    double scale; /* of f16's losses; 0: none */
};

static struct numbers numbers_of(const struct run *run, int iteration)
{
    struct sac_snapshot_files files = {0};
    struct sac_error err = {0};
    struct numbers out = {0};
    char path[1300];

    snprintf(path, sizeof path, "%s_iter_%d.solverstate", run->prefix, iteration);
    assert_ok(sac_snapshot_open(&files, path, &err), err);
    assert_ok(sac_solver_state_load(&out.state, files.state, &err), err);
    assert_ok(sac_caffe_net_load(&out.weights, files.weights, &err), err);
    json_t *values = NULL;
    assert_ok(sac_snapshot_values(&files, &values, &err), err);
    out.scale = json_number_value(json_object_get(values, "loss_scale"));
    json_decref(values);
    sac_snapshot_files_done(&files);
    return out;
}

static void numbers_done(struct numbers *n)
{
    sac_caffe_net_done(&n->weights);
    sac_solver_state_done(&n->state);
}

/* ‖a − b‖ / ‖b‖ over all weights. */
static double distance(const struct numbers *a, const struct numbers *b)
{
    double apart = 0, all = 0;

    assert_int_equal(a->weights.net->n_layer, b->weights.net->n_layer);
    for (size_t i = 0; i < a->weights.net->n_layer; i++) {
        const Caffe__LayerParameter *x = a->weights.net->layer[i], *y = b->weights.net->layer[i];
        assert_int_equal(x->n_blobs, y->n_blobs);
        for (size_t k = 0; k < x->n_blobs; k++) {
            assert_int_equal(x->blobs[k]->n_data, y->blobs[k]->n_data);
            for (size_t n = 0; n < x->blobs[k]->n_data; n++) {
                double d = (double)x->blobs[k]->data[n] - y->blobs[k]->data[n];
                apart += d * d;
                all += (double)y->blobs[k]->data[n] * y->blobs[k]->data[n];
            }
        }
    }
    assert_true(all > 0);
    return sqrt(apart / all);
}

static void assert_same(const struct numbers *a, const struct numbers *b)
{
    assert_true(distance(a, b) == 0);
    assert_int_equal(a->state.history_count, b->state.history_count);
    for (int i = 0; i < a->state.history_count; i++)
        assert_memory_equal(a->state.history[i].data, b->state.history[i].data,
                            (size_t)sac_shape_count(&a->state.history[i].shape) * sizeof(float));
}

static void trains_as_the_cpu(const char *layers, const char *solver, double tolerance)
{
    struct run here = make_run(layers, solver), there = make_run(layers, solver);

    train(&here, cpu, NULL, -1, SAC_PRECISION_F32);
    struct told told = train(&there, cuda, NULL, -1, SAC_PRECISION_F32);
    struct numbers a = numbers_of(&there, ITERATIONS), b = numbers_of(&here, ITERATIONS);
    double apart = distance(&a, &b);
    if (!(apart <= tolerance))
        fail_msg("%s: %g from the CPU's weights", solver, apart);
    assert_true(told.last_loss < told.first_loss);
    numbers_done(&a);
    numbers_done(&b);
}

#define SHORT "max_iter: 10 "

static void the_six_solvers_end_where_the_cpus_do(void **state)
{
    static const char *const solvers[] = {
        SHORT "momentum: .9 clip_gradients: .5",
        SHORT "type: 'Nesterov' momentum: .9 iter_size: 2 regularization_type: 'L1'",
        SHORT "type: 'AdaGrad'",
        SHORT "type: 'RMSProp' rms_decay: .9",
        SHORT "type: 'AdaDelta' momentum: .9 delta: 1e-6 base_lr: 1 gamma: .5",
        SHORT "type: 'Adam' momentum: .9 momentum2: .999 base_lr: 0.001 gamma: .5",
    };

    (void)state;
    for (size_t i = 0; i < sizeof solvers / sizeof *solvers; i++)
        trains_as_the_cpu(plain_text, solvers[i], 1e-4);
}

/* Dropout's masks are the same; batch statistics are summed in another order. */
static void nets_with_dropout_and_batch_norm_end_where_the_cpus_do(void **state)
{
    (void)state;
    trains_as_the_cpu(norm_text, SHORT "momentum: .9 test_iter: 1 test_interval: 5", 1e-3);
}

static void padded_crops_and_dummy_data_train_as_on_the_cpu(void **state)
{
    static const char *const inputs[] = {padded_text, dummy_text};

    (void)state;
    for (int i = 0; i < 2; i++) {
        input = inputs[i];
        trains_as_the_cpu(plain_text, SHORT "momentum: .9 iter_size: 2", 1e-4);
    }
    input = input_text;
}

static void goes_on(enum sac_precision precision)
{
    struct run run = make_run(norm_text, SHORT "momentum: .9 test_iter: 1 test_interval: 4");

    if (!card_does(cuda, precision))
        skip();
    struct told whole = train(&run, cuda, NULL, -1, precision);
    struct numbers a = numbers_of(&run, ITERATIONS);
    assert_true(whole.tested > 0);
    struct run again = make_run(norm_text, SHORT "momentum: .9 test_iter: 1 test_interval: 4");
    train(&again, cuda, NULL, 5, precision);
    struct told rest = train(&again, cuda, "auto", -1, precision);
    assert_int_equal(rest.steps, ITERATIONS - 5);
    struct numbers b = numbers_of(&again, ITERATIONS);
    assert_same(&a, &b);
    assert_true(whole.last_loss == rest.last_loss);
    numbers_done(&a);
    numbers_done(&b);
}

static void a_run_that_goes_on_is_the_same_run(void **state)
{
    (void)state;
    goes_on(SAC_PRECISION_F32);
}

static void a_run_in_f16_that_goes_on_is_the_same_run(void **state)
{
    (void)state;
    goes_on(SAC_PRECISION_F16);
}

/* ---- The scale of f16's losses ------------------------------------------------ */

static double scale_after(const struct run *run, int iteration)
{
    struct numbers n = numbers_of(run, iteration);
    double scale = n.scale;

    numbers_done(&n);
    return scale;
}

static void scale_as_usual(void)
{
    scale_first = 0;
    scale_steps = 0;
}

/* 64 · 2³ after 7 updates, of which each second is followed by twice the scale. */
static void the_scale_doubles_after_so_many_updates(void **state)
{
    struct run run = make_run(plain_text, "max_iter: 7 momentum: .9");

    (void)state;
    if (!card_does(cuda, SAC_PRECISION_F16))
        skip();
    train(&run, cuda, NULL, -1, SAC_PRECISION_F16);
    assert_true(scale_after(&run, 7) == 1024);
    run = make_run(plain_text, "max_iter: 7 momentum: .9");
    scale_first = 64;
    scale_steps = 2;
    train(&run, cuda, NULL, -1, SAC_PRECISION_F16);
    scale_as_usual();
    assert_true(scale_after(&run, 7) == 512);
}

/* Gradients times 2⁴⁰ are no halves: nothing changes until they are, and each time the scale
 * is halved. */
static void an_overflow_halves_the_scale_and_leaves_the_update_out(void **state)
{
    struct run run = make_run(plain_text, "max_iter: 60 momentum: .9 snapshot: 1");

    (void)state;
    if (!card_does(cuda, SAC_PRECISION_F16))
        skip();
    scale_first = 1099511627776;
    train(&run, cuda, NULL, -1, SAC_PRECISION_F16);
    scale_as_usual();
    struct numbers first = numbers_of(&run, 1), before = numbers_of(&run, 1);
    assert_true(first.scale == ldexp(1, 39));
    for (int i = 2; i <= 60; i++) {
        struct numbers n = numbers_of(&run, i);
        bool left_out = distance(&n, &before) == 0;
        assert_true(n.scale == (left_out ? before.scale / 2 : before.scale));
        numbers_done(&before);
        before = n;
    }
    assert_true(before.scale < ldexp(1, 30) && before.scale >= 1);
    assert_true(distance(&before, &first) > 0);
    numbers_done(&first);
    numbers_done(&before);
}

/* Where it overflows now and then, and doubles in between. */
static void a_run_whose_scale_changed_goes_on_as_the_same_run(void **state)
{
    (void)state;
    scale_first = 4194304;
    scale_steps = 3;
    goes_on(SAC_PRECISION_F16);
    scale_as_usual();
}

/* Grey pictures, whose filters have no gradient, and in the second half of each eight loud
 * ones, whose filters have a large one. */
static const char *make_loud(const char *name, bool first, bool second)
{
    static uint8_t bytes[RECORDS * RECORD];
    struct sac_random random = sac_random_stream(5, SAC_RANDOM_ITEM, 0, 0);

    for (int i = 0; i < RECORDS; i++) {
        uint8_t *at = bytes + i * RECORD;
        bool loud = i % 8 < 4 ? first : second;
        at[0] = (uint8_t)(i % CLASSES);
        for (int k = 1; k < RECORD; k++)
            at[k] = loud ? (uint8_t)(254 * sac_random_below(&random, 2)) : 128;
    }
    return sac_test_write(name, bytes, sizeof bytes);
}

/* By as many GPUs; false: there are not so many, or no NCCL. */
static bool train_on(int count, const struct run *run, const char *data)
{
    struct sac_device *devices[2] = {NULL};
    struct told told = {.stop_at = -1};
    struct sac_trainer_options options = {.solver = run->solver,
                                          .data = data,
                                          .threads = 1,
                                          .compute_threads = 1,
                                          .precision = SAC_PRECISION_F16,
                                          .scale_first = scale_first,
                                          .scale_steps = scale_steps,
                                          .deterministic = true,
                                          .on_event = on_event,
                                          .request = request,
                                          .user = &told};
    struct sac_crew_options crew = {.trainer = &options, .devices = devices, .count = count};
    struct sac_error err = {0};
    int opened = 0;

    int rc = sac_devices_open(devices, 2, &opened, count == 2 ? "cuda:0,1" : "cuda:0", &err);
    if (rc == 0)
        rc = sac_crew_run(&crew, &err);
    while (opened > 0)
        sac_device_close(devices[--opened]);
    if (count == 2 && (rc == SAC_ENOENT || rc == SAC_EUNSUPPORTED))
        return false;
    assert_ok(rc, err);
    return true;
}

/* 2¹⁷ is too much for loud pictures and not for grey ones. What rank 1 has of its own makes
 * both leave the update out; were it rank 0 alone, rank 1's parameters would not be finite. */
static void an_overflow_on_one_rank_is_all_ranks(void **state)
{
    struct run grey = make_run(loud_text, "max_iter: 1"), loud = make_run(loud_text, "max_iter: 1");
    struct run both = make_run(loud_text, "max_iter: 40 snapshot: 1");

    (void)state;
    if (!card_does(cuda, SAC_PRECISION_F16))
        skip();
    scale_first = 131072;
    scale_steps = 7;
    train_on(1, &grey, make_loud("grey.bin", false, false));
    train_on(1, &loud, make_loud("loud.bin", true, true));
    bool done = train_on(2, &both, make_loud("both.bin", false, true));
    scale_as_usual();
    if (!done)
        skip();
    struct numbers start = numbers_of(&loud, 1), first = numbers_of(&both, 1);
    struct numbers last = numbers_of(&both, 40);
    assert_true(scale_after(&grey, 1) == 131072);
    assert_true(start.scale == 65536);
    assert_true(first.scale == 65536);
    assert_true(distance(&first, &start) == 0); /* as the fillers made them */
    assert_true(distance(&last, &start) > 0);
    numbers_done(&start);
    numbers_done(&first);
    numbers_done(&last);
}

static void learns_in(enum sac_precision precision)
{
    struct run run =
        make_run(plain_text, "max_iter: 30 momentum: .9 average_loss: 10 base_lr: 0.05 gamma: 1");

    if (!card_does(cuda, precision))
        skip();
    struct told told = train(&run, cuda, NULL, -1, precision);
    if (!(told.last_loss < 1 && told.first_loss > 1))
        fail_msg("in %s the loss went from %g to %g", sac_precision_name(precision),
                 told.first_loss, told.last_loss);
}

/* Four colours: by chance a loss of ln 4 = 1.386. */
static void a_net_learns_in_every_precision(void **state)
{
    (void)state;
    learns_in(SAC_PRECISION_F32);
    learns_in(SAC_PRECISION_F16);
    learns_in(SAC_PRECISION_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_six_solvers_end_where_the_cpus_do),
        cmocka_unit_test(nets_with_dropout_and_batch_norm_end_where_the_cpus_do),
        cmocka_unit_test(padded_crops_and_dummy_data_train_as_on_the_cpu),
        cmocka_unit_test(a_run_that_goes_on_is_the_same_run),
        cmocka_unit_test(a_run_in_f16_that_goes_on_is_the_same_run),
        cmocka_unit_test(the_scale_doubles_after_so_many_updates),
        cmocka_unit_test(an_overflow_halves_the_scale_and_leaves_the_update_out),
        cmocka_unit_test(a_run_whose_scale_changed_goes_on_as_the_same_run),
        cmocka_unit_test(an_overflow_on_one_rank_is_all_ranks),
        cmocka_unit_test(a_net_learns_in_every_precision),
    };

    setenv("SACCADE_SIM_DEVICES", "2", 0); /* of a simulated card */
    card_or_skip();
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
