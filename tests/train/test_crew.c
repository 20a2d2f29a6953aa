/* Several ranks train to what one trains to with the whole batch; what fails on one ends
 * all, by name. */
#include "support/support.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/random.h"
#include "data/sink.h"
#include "formats/caffe.h"
#include "train/crew.h"
#include "train/snapshot.h"

enum { RECORDS = 160, RECORD = 3073, CLASSES = 4, RANKS_MOST = 8 };

/* No dropout and no batch statistics; a frozen parameter, and one that two layers share. */
static const char net_format[] =
    "name: 'tiny'\n"
    "layer { name: 'in' type: 'Data' top: 'data' top: 'label' include { phase: TRAIN }"
    " transform_param { mirror: true crop_size: 28 scale: 0.0078125 mean_value: 128 }"
    " data_param { source: 'none' batch_size: %d backend: LMDB } }\n"
    "layer { name: 'in' type: 'Data' top: 'data' top: 'label' include { phase: TEST }"
    " transform_param { crop_size: 28 scale: 0.0078125 mean_value: 128 }"
    " data_param { source: 'none' batch_size: 16 backend: LMDB } }\n"
    "layer { name: 'c1' type: 'Convolution' bottom: 'data' top: 'c1' param { lr_mult: 1 }"
    " param { lr_mult: 2 decay_mult: 0 } convolution_param { num_output: 8 kernel_size: 5 stride: 2"
    " weight_filler { type: 'xavier' } } }\n"
    "layer { name: 'r1' type: 'ReLU' bottom: 'c1' top: 'c1' }\n"
    "layer { name: 'c2' type: 'Convolution' bottom: 'c1' top: 'c2' param { name: 'w' }"
    " convolution_param { num_output: 8 kernel_size: 3 pad: 1 bias_term: false"
    " weight_filler { type: 'xavier' } } }\n"
    "layer { name: 'c3' type: 'Convolution' bottom: 'c2' top: 'c3' param { name: 'w' }"
    " convolution_param { num_output: 8 kernel_size: 3 pad: 1 bias_term: false"
    " weight_filler { type: 'xavier' } } }\n"
    "layer { name: 'p1' type: 'Pooling' bottom: 'c3' top: 'p1'"
    " pooling_param { kernel_size: 3 stride: 2 } }\n"
    "layer { name: 'fc' type: 'InnerProduct' bottom: 'p1' top: 'fc' param { lr_mult: 1 }"
    " param { lr_mult: 0 } inner_product_param { num_output: 4"
    " weight_filler { type: 'gaussian' std: .01 } } }\n"
    "layer { name: 'acc' type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'acc'"
    " include { phase: TEST } }\n"
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'loss' }\n";

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

/* CIFAR's records: each class has a colour of its own under noise. */
static const char *make_data(int wrong_label)
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
    return sac_test_write("train.bin", bytes, sizeof bytes);
}

struct told {
    int steps, tests;
    int64_t stop_at, iteration, save_at;
    bool stop_in_test, testing;
    double loss;
    char parallel[400];
};

static void on_event(void *user, const struct sac_train_event *e)
{
    struct told *told = user;

    told->steps += e->kind == SAC_TRAIN_STEP;
    told->tests += e->kind == SAC_TRAIN_TESTED;
    told->testing = e->kind == SAC_TRAIN_TESTING;
    if (e->kind == SAC_TRAIN_STEP) {
        told->iteration = e->iteration;
        told->loss = e->loss;
    }
    if (e->kind == SAC_TRAIN_PARALLEL)
        snprintf(told->parallel, sizeof told->parallel, "%s", e->text);
}

/* Asked before the sums of iteration `iteration`, counted from 0. */
static enum sac_train_request request(void *user)
{
    struct told *told = user;

    if (told->testing && told->stop_in_test && told->iteration > 0)
        return SAC_TRAIN_STOP;
    if (told->testing)
        return SAC_TRAIN_GO_ON;
    return told->stop_at == told->iteration + 1   ? SAC_TRAIN_STOP
           : told->save_at == told->iteration + 1 ? SAC_TRAIN_SNAPSHOT
                                                  : SAC_TRAIN_GO_ON;
}

struct run {
    char solver[1200], prefix[1100];
};

static struct run make_run(int batch, const char *more)
{
    static int number;
    struct run run;
    char text[4000], name[64];
    int size = snprintf(text, sizeof text, net_format, batch);

    snprintf(name, sizeof name, "tiny%d.prototxt", number);
    const char *net = sac_test_write(name, text, (size_t)size);
    snprintf(name, sizeof name, "solver%d.prototxt", number);
    snprintf(run.prefix, sizeof run.prefix, "%s/tiny%d", sac_test_tmpdir(), number++);
    size = snprintf(text, sizeof text,
                    "net: '%s' %s lr_policy: 'step' stepsize: 20 gamma: .5 "
                    "momentum: .9 weight_decay: .001 snapshot_prefix: '%s' random_seed: 11 %s",
                    net, strstr(more, "base_lr") ? "" : "base_lr: 0.01", run.prefix, more);
    snprintf(run.solver, sizeof run.solver, "%s", sac_test_write(name, text, (size_t)size));
    return run;
}

/* Another net in the place of the run's, whose solver names it. */
static void run_net(const struct run *run, const char *net)
{
    char name[64];

    snprintf(name, sizeof name, "tiny%d.prototxt", atoi(strrchr(run->prefix, 'y') + 1));
    sac_test_write(name, net, strlen(net));
}

static int compute_threads = 1;

static int train(const struct run *run, int ranks, struct sac_trainer_options options,
                 struct told *told, struct sac_error *err)
{
    struct sac_device *devices[RANKS_MOST];
    struct sac_crew_options crew = {.trainer = &options, .devices = devices, .count = ranks};

    for (int i = 0; i < ranks; i++)
        devices[i] = device;
    options.solver = run->solver;
    options.data = options.data ? options.data : make_data(-1);
    options.test_data = options.data;
    options.threads = 1;
    options.compute_threads = compute_threads;
    options.on_event = on_event;
    options.request = request;
    options.user = told;
    return sac_crew_run(&crew, err);
}

/* All weights of a snapshot, one behind the other. */
static size_t weights_of(const struct run *run, int iteration, float **ret)
{
    char path[1300];
    struct sac_caffe_net net = {0};
    struct sac_error err = {0};
    size_t count = 0;

    snprintf(path, sizeof path, "%s_iter_%d.caffemodel", run->prefix, iteration);
    assert_ok(sac_caffe_net_load(&net, path, &err), err);
    for (size_t i = 0; i < net.net->n_layer; i++)
        for (size_t k = 0; k < net.net->layer[i]->n_blobs; k++)
            count += net.net->layer[i]->blobs[k]->n_data;
    float *at = *ret = calloc(count + 1, sizeof **ret);
    for (size_t i = 0; i < net.net->n_layer; i++)
        for (size_t k = 0; k < net.net->layer[i]->n_blobs; k++) {
            const Caffe__BlobProto *blob = net.net->layer[i]->blobs[k];
            memcpy(at, blob->data, blob->n_data * sizeof *at);
            at += blob->n_data;
        }
    sac_caffe_net_done(&net);
    return count;
}

/* |a − b| / |b|, over all weights. */
static double distance(const struct run *a, const struct run *b, int iteration)
{
    float *left, *right;
    size_t count = weights_of(a, iteration, &left);
    double apart = 0, length = 0;

    assert_true(count > 1000);
    assert_int_equal(weights_of(b, iteration, &right), count);
    for (size_t i = 0; i < count; i++) {
        apart += pow((double)left[i] - (double)right[i], 2);
        length += pow((double)right[i], 2);
    }
    free(left);
    free(right);
    return sqrt(apart / length);
}

/* ---- Equal ------------------------------------------------------------------- */

/* As one with the whole batch: clipping on most iterations, two passes each, and buckets of
 * a parameter or two. */
static void equals_one(const char *more)
{
    const struct sac_trainer_options split = {.batch_rule = SAC_BATCH_SPLIT, .bucket_bytes = 512};
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run one = make_run(16, more);

    assert_ok(train(&one, 1, split, &told, &err), err);
    double loss = told.loss;
    for (int ranks = 2; ranks <= RANKS_MOST; ranks *= 2) {
        struct run several = make_run(16, more);
        told = (struct told){.stop_at = -1};
        assert_ok(train(&several, ranks, split, &told, &err), err);
        double apart = distance(&several, &one, 50);
        if (apart > 1e-5)
            fail_msg("%d ranks: %g", ranks, apart);
        assert_int_equal(told.steps, 50);
        assert_true(fabs(told.loss - loss) < 1e-4 * fabs(loss));
        assert_non_null(strstr(told.parallel, "batch rule split"));
    }
}

static void ranks_that_split_a_batch_train_as_one_with_all_of_it(void **state)
{
    (void)state;
    equals_one("max_iter: 50 test_iter: 2 test_interval: 20");
}

static void clipping_and_iter_size_are_of_the_whole_batch(void **state)
{
    (void)state;
    equals_one("max_iter: 50 iter_size: 2 clip_gradients: .3");
}

static void adam_trains_as_one(void **state)
{
    (void)state;
    equals_one("max_iter: 50 type: 'Adam' base_lr: 0.001 momentum2: .99 delta: .001");
}

/* The loss layer of the net, with more in it. */
static void say_of_loss(const struct run *run, int batch, const char *more)
{
    static char net[6000];

    int size = snprintf(net, sizeof net, net_format, batch);
    char *end = strrchr(net, '}');
    snprintf(end, sizeof net - (size_t)(end - net), "%s }\n", more);
    assert_true((size_t)size + strlen(more) + 4 < sizeof net);
    run_net(run, net);
}

/* Sums over items as well as means, beside a second loss whose weight is said. */
static void losses_of_every_normalization_are_those_of_the_whole_batch(void **state)
{
    static const char *const losses[] = {
        "loss_param { normalization: NONE } loss_weight: .05",
        "loss_param { normalization: BATCH_SIZE }",
        "loss_param { normalization: FULL }",
        "loss_param { normalization: BATCH_SIZE ignore_label: 2 }",
        "loss_param { normalization: NONE ignore_label: 2 } loss_weight: .05 }"
        " layer { name: 'sig' type: 'SigmoidCrossEntropyLoss' bottom: 'fc' bottom: 'fc' top: 'sig'"
        " loss_param { normalization: NONE } loss_weight: .01 propagate_down: true"
        " propagate_down: false",
    };
    const struct sac_trainer_options split = {.batch_rule = SAC_BATCH_SPLIT};

    (void)state;
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        struct run one = make_run(16, "max_iter: 20"), four = make_run(16, "max_iter: 20");
        struct told told = {.stop_at = -1};
        struct sac_error err = {0};
        say_of_loss(&one, 16, losses[i]);
        say_of_loss(&four, 16, losses[i]);
        assert_ok(train(&one, 1, split, &told, &err), err);
        double loss = told.loss;
        told = (struct told){.stop_at = -1};
        assert_ok(train(&four, 4, split, &told, &err), err);
        double apart = distance(&four, &one, 20);
        if (!(apart < 1e-5))
            fail_msg("%s: %g", losses[i], apart);
        assert_true(fabs(told.loss - loss) < 1e-4 * fabs(loss));
    }
}

/* How many labels count differs from rank to rank. */
static void a_mean_over_labels_that_count_is_not_split(void **state)
{
    static const char uneven[] = "loss_param { ignore_label: 2 }";
    const struct sac_trainer_options split = {.batch_rule = SAC_BATCH_SPLIT}, each = {0};
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run run = make_run(16, "max_iter: 3");

    (void)state;
    say_of_loss(&run, 16, uneven);
    assert_int_equal(train(&run, 4, split, &told, &err), SAC_EUNSUPPORTED);
    assert_says(err, "layer \"loss\": its loss is divided by how many labels are not 2, which is "
                     "another number on each of 4 ranks that split a batch; expected --batch-rule "
                     "per-gpu, or a normalization of BATCH_SIZE, FULL or NONE");
    err = (struct sac_error){0};
    assert_ok(train(&run, 4, each, &told, &err), err);
    assert_non_null(strstr(told.parallel, "; each rank divides \"loss\" by its own labels that "
                                          "count, whose means are averaged"));
    assert_ok(train(&run, 1, split, &told, &err), err);
}

/* BVLC's rule: 4 ranks of 4 are one of 16. */
static void a_batch_per_rank_is_as_many_times_it(void **state)
{
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run one = make_run(16, "max_iter: 50"), several = make_run(4, "max_iter: 50");

    (void)state;
    assert_ok(train(&one, 1, (struct sac_trainer_options){0}, &told, &err), err);
    assert_ok(train(&several, 4, (struct sac_trainer_options){0}, &told, &err), err);
    assert_true(distance(&several, &one, 50) < 1e-5);
    assert_string_equal(told.parallel,
                        "4 ranks by threads, batch rule per-gpu: 4 items a rank, 16 an iteration, "
                        "1 buckets");
}

/* The sums have an order of their own. */
static void a_run_of_ranks_is_the_same_run_again(void **state)
{
    const struct sac_trainer_options how = {.bucket_bytes = 512};
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run a = make_run(4, "max_iter: 30"), b = make_run(4, "max_iter: 30");

    (void)state;
    assert_ok(train(&a, 3, how, &told, &err), err);
    assert_ok(train(&b, 3, how, &told, &err), err);
    assert_true(distance(&a, &b, 30) == 0);
}

/* ---- Stopping and going on --------------------------------------------------- */

static void a_run_of_ranks_that_goes_on_is_the_same_run(void **state)
{
    const struct sac_trainer_options how = {.bucket_bytes = 512},
                                     on = {.bucket_bytes = 512, .snapshot = "auto"};
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run whole = make_run(4, "max_iter: 30 type: 'Adam' base_lr: .001");
    struct run parts = make_run(4, "max_iter: 30 type: 'Adam' base_lr: .001");

    (void)state;
    assert_ok(train(&whole, 3, how, &told, &err), err);
    double loss = told.loss;
    told = (struct told){.stop_at = 13};
    assert_ok(train(&parts, 3, how, &told, &err), err);
    assert_int_equal(told.steps, 13);
    told = (struct told){.stop_at = -1, .iteration = 13};
    assert_ok(train(&parts, 3, on, &told, &err), err);
    assert_int_equal(told.steps, 17);
    assert_true(distance(&whole, &parts, 30) == 0);
    assert_true(told.loss == loss);
}

/* The snapshot has the number of threads, and rank 0 the snapshot. */
static void ranks_go_on_with_as_many_threads_as_the_snapshot_had(void **state)
{
    const struct sac_trainer_options on = {.snapshot = "auto"}, from_start = {0};
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run whole = make_run(4, "max_iter: 30"), parts = make_run(4, "max_iter: 30");

    (void)state;
    compute_threads = 3;
    assert_ok(train(&whole, 3, from_start, &told, &err), err);
    told = (struct told){.stop_at = 13};
    assert_ok(train(&parts, 3, from_start, &told, &err), err);
    told = (struct told){.stop_at = -1, .iteration = 13};
    compute_threads = 0;
    assert_ok(train(&parts, 3, on, &told, &err), err);
    compute_threads = 1;
    assert_true(distance(&whole, &parts, 30) == 0);
}

/* 60 records of four numbers. */
static const char *make_numbers(void)
{
    static char path[1300];
    struct sac_sink_options options = {.kind = SAC_SINK_LMDB, .path = path};
    struct sac_sink *sink = NULL;
    struct sac_error err = {0};

    snprintf(path, sizeof path, "%s/numbers", sac_test_tmpdir());
    if (access(path, F_OK) == 0)
        return path;
    int rc = sac_sink_open(&sink, &options, &(struct sac_sink_mark){0}, &err);
    if (rc == SAC_EUNSUPPORTED) {
        print_message("# skipped: built without LMDB\n");
        skip();
    }
    assert_ok(rc, err);
    for (int i = 0; i < 60; i++) {
        float values[4] = {sinf((float)i), cosf((float)i), sinf(2.F * (float)i), 1};
        struct sac_record record = {SAC_ITEM_FLOATS, 4, 1, 1, NULL, 0, values, 0, ""};
        assert_ok(sac_sink_put(sink, &record, &err), err);
    }
    assert_ok(sac_sink_finish(sink, &err), err);
    sac_sink_free(sink);
    return path;
}

/* Two layers that feed the same items in the same order: the loss is 0 as long as they stand
 * at the same. */
static void feed_two(const struct run *run, int batch, int other)
{
    static const char format[] =
        "layer { name: 'in' type: 'Data' top: 'data' top: 'label'"
        " data_param { source: 'none' batch_size: %d backend: LMDB } }\n"
        "layer { name: 'in2' type: 'Data' top: 'side' top: 'label2'"
        " data_param { source: '%s' batch_size: %d backend: LMDB } }\n"
        "layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc' param { name: 'w' }"
        " param { name: 'b' } inner_product_param { num_output: 4"
        " weight_filler { type: 'xavier' } } }\n"
        "layer { name: 'fc2' type: 'InnerProduct' bottom: 'side' top: 'fc2' param { name: 'w' }"
        " param { name: 'b' } inner_product_param { num_output: 4"
        " weight_filler { type: 'xavier' } } }\n"
        "layer { name: 'silence' type: 'Silence' bottom: 'label' bottom: 'label2' }\n"
        "layer { name: 'loss' type: 'EuclideanLoss' bottom: 'fc' bottom: 'fc2' top: 'loss' }\n";
    char net[3000];

    snprintf(net, sizeof net, format, batch, make_numbers(), other);
    run_net(run, net);
}

/* One rank's, with a snapshot behind 5 of its 10 batches of 8. */
static struct run run_of_two_feeds(struct told *ret_told)
{
    const struct sac_trainer_options from_start = {.data = make_numbers()};
    struct sac_error err = {0};
    struct run run = make_run(8, "max_iter: 10");

    *ret_told = (struct told){.stop_at = 6}; /* one rank is asked behind its update */
    feed_two(&run, 8, 8);
    assert_ok(train(&run, 1, from_start, ret_told, &err), err);
    return run;
}

/* 5 batches of 8 are no whole number of batches of 3 ranks. */
static void several_feeds_go_on_together_with_another_world(void **state)
{
    const struct sac_trainer_options on = {.snapshot = "auto", .data = make_numbers()};
    struct told told;
    struct sac_error err = {0};
    struct run run = run_of_two_feeds(&told);

    (void)state;
    assert_true(told.loss == 0);
    told = (struct told){.stop_at = -1, .iteration = 5, .loss = 1};
    assert_ok(train(&run, 3, on, &told, &err), err);
    assert_int_equal(told.steps, 5);
    assert_true(told.loss == 0);
}

/* 40 items by the side of which there would be 17.5. */
static void feeds_that_cannot_go_on_together_are_refused(void **state)
{
    const struct sac_trainer_options on = {.snapshot = "auto", .data = make_numbers()};
    struct told told;
    struct sac_error err = {0};
    struct run run = run_of_two_feeds(&told);

    (void)state;
    feed_two(&run, 16, 7);
    assert_int_equal(train(&run, 1, on, &told, &err), SAC_EINVAL);
    assert_says(err, "layer \"in2\": 40 items of \"in\" were used, beside which this one cannot "
                     "stand at a whole item: its batches are of 7 where those are of 16");
}

/* Rank 0 tests alone, while the others wait in the iteration behind. */
static void a_stop_within_a_test_stops_all(void **state)
{
    struct told told = {.stop_at = -1, .stop_in_test = true};
    struct sac_error err = {0};
    struct run run = make_run(4, "max_iter: 30 test_iter: 4 test_interval: 10");
    float *weights;

    (void)state;
    assert_ok(train(&run, 3, (struct sac_trainer_options){0}, &told, &err), err);
    assert_int_equal(told.steps, 10);
    assert_int_equal(told.tests, 1);
    weights_of(&run, 10, &weights);
    free(weights);
}

static void a_snapshot_that_is_asked_for_is_of_that_iteration(void **state)
{
    struct told told = {.stop_at = -1, .save_at = 7};
    struct sac_error err = {0};
    struct run run = make_run(4, "max_iter: 10");
    float *weights;

    (void)state;
    assert_ok(train(&run, 2, (struct sac_trainer_options){0}, &told, &err), err);
    weights_of(&run, 7, &weights);
    free(weights);
}

/* ---- Failing ----------------------------------------------------------------- */

/* Item 13 of 16 is rank 3's. */
static void what_one_rank_meets_ends_all_with_its_name(void **state)
{
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run run = make_run(4, "max_iter: 30");
    const struct sac_trainer_options how = {.data = make_data(13)};

    (void)state;
    assert_int_equal(train(&run, 4, how, &told, &err), SAC_EINVAL);
    assert_says(err, "rank 3 (cpu): iteration 0: ");
    assert_says(err, "label 7; the net has classes 0 to 3");
    assert_int_equal(told.steps, 0);
}

static void a_loss_that_is_not_finite_ends_all(void **state)
{
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run run = make_run(4, "max_iter: 30 base_lr: 1e30");
    const struct sac_trainer_options how = {.bucket_bytes = 512};

    (void)state;
    assert_int_equal(train(&run, 4, how, &told, &err), SAC_EINVAL);
    assert_says(err, "rank ");
    assert_true(strstr(err.text, "NaN") || strstr(err.text, "infinite"));
}

/* |c1|, whose way back is 0 · ∞ where c1 is 0: in a blank picture, which only rank 2 has. The
 * sum is wild on all ranks; the one that made it so is named. */
static void a_gradient_that_is_not_finite_is_its_rank_s(void **state)
{
    static const char wild[] =
        "layer { name: 'q' type: 'Power' bottom: 'c1' top: 'q' power_param { power: 2 } }\n"
        "layer { name: 'r' type: 'Power' bottom: 'q' top: 'c2' power_param { power: .5 } }\n"
        "layer { name: 'p1'";
    static char net[6000];
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run run = make_run(4, "max_iter: 30");
    const struct sac_trainer_options how = {.data = make_data(-1), .bucket_bytes = 512};
    uint8_t blank[RECORD - 1];

    (void)state;
    int size = snprintf(net, sizeof net, net_format, 4);
    char *from = strstr(net, "layer { name: 'r1'"), *to = strstr(net, "layer { name: 'p1'");
    memmove(from + sizeof wild - 1, to + strlen("layer { name: 'p1'"),
            (size_t)size + 1 - (size_t)(to - net) - strlen("layer { name: 'p1'"));
    memcpy(from, wild, sizeof wild - 1);
    char *bottom = strstr(net, "bottom: 'c3'");
    memcpy(bottom, "bottom: 'c2'", 12);
    run_net(&run, net);
    memset(blank, 128, sizeof blank);
    FILE *file = fopen(how.data, "r+b");
    assert_non_null(file);
    fseek(file, 9 * RECORD + 1, SEEK_SET);
    fwrite(blank, 1, sizeof blank, file);
    fclose(file);
    assert_int_equal(train(&run, 4, how, &told, &err), SAC_EINVAL);
    assert_says(err, "rank 2 (cpu): iteration 0: the gradient of c1/0 is NaN");
}

static void a_batch_that_cannot_be_split_is_refused(void **state)
{
    struct told told = {.stop_at = -1};
    struct sac_error err = {0};
    struct run run = make_run(10, "max_iter: 30");
    const struct sac_trainer_options how = {.batch_rule = SAC_BATCH_SPLIT};

    (void)state;
    assert_int_equal(train(&run, 4, how, &told, &err), SAC_EINVAL);
    assert_says(err, "a batch of 10 cannot be split evenly over 4 devices");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_that_split_a_batch_train_as_one_with_all_of_it),
        cmocka_unit_test(clipping_and_iter_size_are_of_the_whole_batch),
        cmocka_unit_test(adam_trains_as_one),
        cmocka_unit_test(losses_of_every_normalization_are_those_of_the_whole_batch),
        cmocka_unit_test(a_mean_over_labels_that_count_is_not_split),
        cmocka_unit_test(a_batch_per_rank_is_as_many_times_it),
        cmocka_unit_test(a_run_of_ranks_is_the_same_run_again),
        cmocka_unit_test(a_run_of_ranks_that_goes_on_is_the_same_run),
        cmocka_unit_test(ranks_go_on_with_as_many_threads_as_the_snapshot_had),
        cmocka_unit_test(several_feeds_go_on_together_with_another_world),
        cmocka_unit_test(feeds_that_cannot_go_on_together_are_refused),
        cmocka_unit_test(a_stop_within_a_test_stops_all),
        cmocka_unit_test(a_snapshot_that_is_asked_for_is_of_that_iteration),
        cmocka_unit_test(what_one_rank_meets_ends_all_with_its_name),
        cmocka_unit_test(a_loss_that_is_not_finite_ends_all),
        cmocka_unit_test(a_gradient_that_is_not_finite_is_its_rank_s),
        cmocka_unit_test(a_batch_that_cannot_be_split_is_refused),
    };

    return cmocka_run_group_tests(tests, open_device, close_device);
}
