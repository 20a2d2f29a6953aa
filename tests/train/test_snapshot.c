#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "snapshots.h"
#include "train/solver.h"

static void skip_without_hdf5(void)
{
    if (!sac_snapshot_has_hdf5()) {
        print_message("# skipped: built without HDF5\n");
        skip();
    }
}

static void save(const char *prefix, enum sac_snapshot_format format, int64_t iteration)
{
    struct sac_error err = {0};

    assert_ok(made_save(prefix, format, iteration, NULL, &err), err);
}

static const char *path_of(const char *prefix, const char *rest)
{
    static char path[1100];

    snprintf(path, sizeof path, "%s%s", prefix, rest);
    return path;
}

/* Cuts the file to `size` bytes, counted from its end if negative. */
static void cut(const char *path, long size)
{
    struct stat info;

    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, size < 0 ? info.st_size + size : size), 0);
}

/* ---- Round trips ---- */

static void round_trip(const char *folder, enum sac_snapshot_format format)
{
    struct sac_snapshot_files saved, opened;
    struct sac_error err = {0};
    const char *prefix = made_prefix(folder, "net");

    assert_ok(made_save(prefix, format, 1234, &saved, &err), err);
    assert_ok(sac_snapshot_open(&opened, saved.state, &err), err);
    assert_string_equal(opened.state, saved.state);
    assert_string_equal(opened.weights, saved.weights);
    assert_int_equal(opened.iteration, 1234);
    assert_made(&opened);
    sac_snapshot_files_done(&saved);
    sac_snapshot_files_done(&opened);
}

static void a_binary_snapshot_comes_back_bit_for_bit(void **state)
{
    (void)state;
    round_trip("binary", SAC_SNAPSHOT_BINARY);
    assert_true(sac_file_exists(path_of(made_prefix("binary", "net"), "_iter_1234.caffemodel")));
    assert_true(sac_file_exists(path_of(made_prefix("binary", "net"), "_iter_1234.solverstate")));
}

static void an_hdf5_snapshot_comes_back_bit_for_bit(void **state)
{
    (void)state;
    skip_without_hdf5();
    round_trip("hdf5", SAC_SNAPSHOT_HDF5);
    assert_true(sac_file_exists(path_of(made_prefix("hdf5", "net"), "_iter_1234.caffemodel.h5")));
    assert_true(sac_file_exists(path_of(made_prefix("hdf5", "net"), "_iter_1234.solverstate.h5")));
}

static void both_formats_of_one_iteration_stand_side_by_side(void **state)
{
    struct sac_snapshot_files files;
    struct sac_error err = {0};
    char prefix[1024];

    (void)state;
    skip_without_hdf5();
    snprintf(prefix, sizeof prefix, "%s", made_prefix("both", "net"));
    save(prefix, SAC_SNAPSHOT_BINARY, 5);
    save(prefix, SAC_SNAPSHOT_HDF5, 5); /* takes the sidecar over */
    assert_ok(sac_snapshot_open(&files, path_of(prefix, "_iter_5.solverstate.h5"), &err), err);
    assert_non_null(files.sidecar);
    assert_made(&files);
    sac_snapshot_files_done(&files);
    assert_ok(sac_snapshot_open(&files, path_of(prefix, "_iter_5.solverstate"), &err), err);
    assert_null(files.sidecar); /* as if Caffe had saved it */
    assert_int_equal(files.iteration, 5);
    sac_snapshot_files_done(&files);
}

/* What our formats' own reader makes of the file; layers without blobs are there too. */
static void a_caffemodel_has_the_nets_layers(void **state)
{
    struct sac_caffe_net net;
    struct sac_error err = {0};
    char prefix[1024];

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("layers", "net"));
    save(prefix, SAC_SNAPSHOT_BINARY, 3);
    assert_ok(sac_caffe_net_load(&net, path_of(prefix, "_iter_3.caffemodel"), &err), err);
    assert_string_equal(net.net->name, "made");
    assert_int_equal(net.net->n_layer, 3);
    assert_string_equal(net.net->layer[1]->type, "ReLU");
    assert_int_equal(net.net->layer[1]->n_blobs, 0);
    assert_int_equal(net.net->layer[0]->n_blobs, 2);
    assert_int_equal(net.net->layer[0]->blobs[0]->shape->n_dim, 4);
    sac_caffe_net_done(&net);
}

static void a_layer_is_written_with_what_its_message_holds(void **state)
{
    static const char text[] = "name: 'n' layer { name: 'ip' type: 'InnerProduct' bottom: 'a' "
                               "top: 'b' inner_product_param { num_output: 2 bias_term: false } }";
    float weights[2] = {1, 2};
    struct sac_blob_view blob = {{2, {2, 1}}, weights};
    struct sac_caffe_net net, back;
    struct sac_error err = {0};
    struct sac_snapshot_files files;

    (void)state;
    assert_ok(sac_caffe_net_parse(&net, "text", text, sizeof text - 1, &err), err);
    struct sac_weights_layer layer = {"ip", "InnerProduct", net.net->layer[0], 1, &blob};
    struct sac_weights_view view = {"n", 1, &layer};
    struct sac_snapshot snapshot = {.prefix = made_prefix("message", "net"), .weights = &view};
    assert_ok(sac_snapshot_save(&snapshot, &files, &err), err);
    assert_ok(sac_caffe_net_load(&back, files.weights, &err), err);
    assert_string_equal(back.net->layer[0]->bottom[0], "a");
    assert_int_equal(back.net->layer[0]->inner_product_param->num_output, 2);
    assert_int_equal(back.net->layer[0]->blobs[0]->n_data, 2);
    sac_caffe_net_done(&back);
    sac_caffe_net_done(&net);
    sac_snapshot_files_done(&files);
}

static void weights_that_do_not_fit_are_refused_by_name(void **state)
{
    static const enum sac_snapshot_format formats[] = {SAC_SNAPSHOT_BINARY, SAC_SNAPSHOT_HDF5};

    (void)state;
    for (int i = 0; i < (sac_snapshot_has_hdf5() ? 2 : 1); i++) {
        struct sac_error err = {0}, shape = {0}, count = {0};
        struct sac_snapshot_files files;
        struct sac_weights_loaded loaded;
        float data[64];
        struct sac_blob_view blobs[2] = {{{1, {9}}, data}, {{1, {4}}, data}};
        struct sac_weights_layer layers[] = {{"conv1", "Convolution", NULL, 2, blobs},
                                             {"other", "Scale", NULL, 1, blobs}};
        struct sac_weights_view view = {"n", 2, layers};
        assert_ok(made_save(made_prefix("fit", "net"), formats[i], 1, &files, &err), err);
        assert_int_equal(sac_weights_load(&view, files.weights, NULL, &shape), SAC_EFORMAT);
        assert_says(shape, "layer conv1: the file's blob 0 is 4 × 3 × 2 × 2, and the net's is 9");
        layers[0].blob_count = 1;
        assert_int_equal(sac_weights_load(&view, files.weights, NULL, &count), SAC_EFORMAT);
        assert_says(count, "layer conv1: the file has 2 blobs for it, and the net 1");
        layers[0].name = "unknown";
        assert_ok(sac_weights_load(&view, files.weights, &loaded, &err), err);
        assert_int_equal(loaded.copied, 0);
        assert_int_equal(loaded.missing, 2);
        assert_string_equal(loaded.missing_names, "unknown, other");
        assert_int_equal(loaded.ignored, 2);
        assert_string_equal(loaded.ignored_names, formats[i] == SAC_SNAPSHOT_HDF5
                                                      ? "block/1x1, conv1"
                                                      : "conv1, block/1x1");
        sac_snapshot_files_done(&files);
    }
}

static void a_file_that_is_no_solverstate_is_refused(void **state)
{
    struct sac_error err = {0}, empty = {0}, text = {0};
    struct sac_solver_state found;
    struct sac_snapshot_files files;
    const char *path = sac_test_write("no.solverstate", "hello, world", 12);

    (void)state;
    assert_true(sac_solver_state_load(&found, path, &text) < 0);
    assert_says(text, "no.solverstate: ");
    path = sac_test_write("empty.solverstate", "", 0);
    assert_int_equal(sac_solver_state_load(&found, path, &empty), SAC_EFORMAT);
    assert_says(empty, "the file is empty");
    if (sac_snapshot_has_hdf5()) {
        struct sac_error h5 = {0};
        assert_ok(made_save(made_prefix("no", "net"), SAC_SNAPSHOT_HDF5, 1, &files, &err), err);
        assert_int_equal(sac_solver_state_load(&found, files.weights, &h5), SAC_EFORMAT);
        assert_says(h5, "expected iter of whole numbers, found nothing");
        sac_snapshot_files_done(&files);
    }
}

/* Every prefix of the file, in steps: a sentence each, never a crash or a success. */
static void truncated_files_are_refused(void **state)
{
    static const enum sac_snapshot_format formats[] = {SAC_SNAPSHOT_BINARY, SAC_SNAPSHOT_HDF5};

    (void)state;
    for (int i = 0; i < (sac_snapshot_has_hdf5() ? 2 : 1); i++) {
        struct sac_snapshot_files files;
        struct sac_error err = {0};
        struct stat info;
        assert_ok(made_save(made_prefix("cut", "net"), formats[i], 1, &files, &err), err);
        assert_int_equal(stat(files.state, &info), 0);
        for (long size = info.st_size - 1; size >= 0; size -= 1 + size / 150) {
            struct sac_error why = {0};
            struct sac_snapshot_files opened;
            cut(files.state, size);
            assert_true(sac_snapshot_open(&opened, files.state, &why) < 0);
            assert_says(why, "net_iter_1.solverstate");
        }
        sac_snapshot_files_done(&files);
    }
}

/* Files without a sidecar, one byte changed at a time: read or refused, no crash. HDF5 1.10
 * crashes on some of them unless storage is checked first. */
static void no_changed_byte_crashes(void **state)
{
    static const enum sac_snapshot_format formats[] = {SAC_SNAPSHOT_BINARY, SAC_SNAPSHOT_HDF5};
    int refused = 0, read = 0;

    (void)state;
    for (int i = 0; i < (sac_snapshot_has_hdf5() ? 2 : 1); i++) {
        struct sac_snapshot_files files;
        struct sac_error err = {0};
        uint8_t *bytes;
        size_t size;
        assert_ok(made_save(made_prefix("mutate", "net"), formats[i], 1, &files, &err), err);
        assert_ok(sac_file_read(files.state, 1 << 20, &bytes, &size, &err), err);
        for (size_t at = 0; at < size; at += i == 0 ? 1 : 4) {
            struct sac_solver_state found;
            struct sac_error why = {0};
            bytes[at] ^= at % 8 == 0 ? 5 : 0xff; /* 896: the bytes of /iter, 4 to 1 */
            const char *path = sac_test_write("mutated", bytes, size);
            bytes[at] ^= at % 8 == 0 ? 5 : 0xff;
            if (sac_solver_state_load(&found, path, &why) == 0)
                sac_solver_state_done(&found), read++;
            else
                refused++;
        }
        free(bytes);
        sac_snapshot_files_done(&files);
    }
    print_message("# %d refused, %d read\n", refused, read);
    assert_true(refused > 0 && read > 0);
}

/* ---- Published states ---- */

struct published {
    const char *state, *weights;
    int64_t iteration;
    int histories;
};

static void check_published(const struct published *what)
{
    struct sac_snapshot_files files;
    struct sac_solver_state state;
    struct sac_caffe_net net;
    struct sac_error err = {0};
    int at = 0;

    assert_ok(sac_snapshot_open(&files, sac_test_data(what->state), &err), err);
    assert_string_equal(files.weights, sac_test_data(what->weights));
    assert_null(files.sidecar);
    assert_ok(sac_solver_state_load(&state, files.state, &err), err);
    assert_int_equal(state.iteration, what->iteration);
    assert_int_equal(state.history_count, what->histories);
    assert_ok(sac_caffe_net_load(&net, files.weights, &err), err);
    for (size_t i = 0; i < net.net->n_layer; i++) {
        for (size_t j = 0; j < net.net->layer[i]->n_blobs; j++) {
            struct sac_caffe_blob blob;
            assert_ok(sac_caffe_blob_read(&blob, net.net->layer[i]->blobs[j], &err), err);
            struct sac_shape shape = {.rank = blob.rank};
            memcpy(shape.dim, blob.dim, sizeof shape.dim);
            assert_true(at < state.history_count);
            assert_true(sac_shape_matches(&shape, &state.history[at++].shape));
            sac_caffe_blob_done(&blob);
        }
    }
    assert_int_equal(at, state.history_count);
    sac_caffe_net_done(&net);
    sac_solver_state_done(&state);
    sac_snapshot_files_done(&files);
}

/* Both cifar10 states name weights in examples/, which is not here. full has 3
 * convolutions and a classifier, quick one classifier more, two blobs each. */
static void published_states_are_read_and_fit_the_weights_beside_them(void **state)
{
    static const struct published all[] = {
        {"cifar10_models/cifar10_full_iter_70000.solverstate",
         "cifar10_models/cifar10_full_iter_70000.caffemodel", 70000, 8},
        {"cifar10_models/cifar10_quick_iter_5000.solverstate",
         "cifar10_models/cifar10_quick_iter_5000.caffemodel", 5000, 10},
    };

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        check_published(&all[i]);
}

/* BatchNorm's three blobs, which are not trained, have history too. */
static void resnet20s_state_fits_its_weights(void **state)
{
    static const char path[] = "cifar10_models/resnet20/cifar10_ResNet_20_iter_53500";
    char a[128], b[128];
    struct sac_solver_state found;
    struct sac_error err = {0};

    (void)state;
    snprintf(a, sizeof a, "%s.solverstate", path);
    snprintf(b, sizeof b, "%s.caffemodel", path);
    assert_ok(sac_solver_state_load(&found, sac_test_data(a), &err), err);
    assert_int_equal(found.current_step, 2); /* 53,500 is past 32,000 and 48,000 */
    int histories = found.history_count;
    sac_solver_state_done(&found);
    check_published(&(struct published){a, b, 53500, histories});
    print_message("# %d history blobs\n", histories);
}

/* Segments as the weights have them take the state's history; training can go on. */
static void a_published_history_goes_into_a_solver(void **state)
{
    struct sac_solver_segment segments[8];
    struct sac_caffe_solver message;
    struct sac_solver_state found;
    struct sac_solver *solver;
    struct sac_error err = {0};
    size_t total = 0;

    (void)state;
    assert_ok(sac_caffe_solver_load(
                  &message, sac_test_data("cifar10_models/cifar10_full_solver_lr2.prototxt"), &err),
              err);
    assert_ok(
        sac_solver_state_load(
            &found, sac_test_data("cifar10_models/cifar10_full_iter_70000.solverstate"), &err),
        err);
    for (int i = 0; i < 8; i++) {
        segments[i] = (struct sac_solver_segment){"p", found.history[i].shape, total, 1, 1};
        total += (size_t)sac_shape_count(&found.history[i].shape);
    }
    /* 32·3·25 + 32 + 32·32·25 + 32 + 64·32·25 + 64 + 10·1024 + 10, as the prototxt says. */
    assert_int_equal(total, 89578);
    assert_ok(sac_solver_new(&solver, message.solver, segments, 8, total, &err), err);
    assert_ok(sac_solver_history_load(solver, found.history, found.history_count, &err), err);
    for (int i = 0; i < 8; i++)
        assert_memory_equal(sac_solver_history(solver, i).data, found.history[i].data,
                            (size_t)sac_shape_count(&found.history[i].shape) * sizeof(float));
    sac_solver_free(solver);
    sac_solver_state_done(&found);
    sac_caffe_solver_done(&message);
}

static void a_snapshot_at_max_iter_says_how_to_go_on(void **state)
{
    struct sac_snapshot_files files = {.iteration = 70000, .state = (char *)"s.solverstate"};
    struct sac_error err = {0}, fine = {0};

    (void)state;
    assert_ok(sac_snapshot_check_iterations(&files, 70001, &fine), fine);
    assert_int_equal(sac_snapshot_check_iterations(&files, 70000, &err), SAC_EINVAL);
    assert_says(err, "s.solverstate stands at iteration 70000, and max_iter is 70000");
    assert_says(err, "set max_iter in the solver above 70000");
}

static void weights_that_are_nowhere_are_named(void **state)
{
    struct sac_snapshot_files files;
    struct sac_error err = {0};
    char prefix[1024];

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("nowhere", "net"));
    save(prefix, SAC_SNAPSHOT_BINARY, 5);
    unlink(path_of(prefix, "_iter_5.saccade"));
    unlink(path_of(prefix, "_iter_5.caffemodel"));
    assert_int_equal(sac_snapshot_open(&files, path_of(prefix, "_iter_5.solverstate"), &err),
                     SAC_ENOENT);
    assert_says(err, "net_iter_5.caffemodel, are neither there nor beside it");
}

/* ---- Finding and removing ---- */

static int warnings;

static void count_warnings(enum sac_log_level level, const char *line)
{
    warnings += level == SAC_LOG_WARNING && strstr(line, "passed over") != NULL;
}

static int64_t find(const char *prefix)
{
    struct sac_snapshot_files files;
    struct sac_error err = {0};

    assert_ok(sac_snapshot_find_auto(&files, prefix, &err), err);
    int64_t iteration = files.iteration;
    if (files.sidecar)
        assert_made(&files);
    sac_snapshot_files_done(&files);
    return iteration;
}

static void auto_finds_the_newest_whole_one(void **state)
{
    char prefix[1024];

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("auto", "net"));
    for (int i = 8; i <= 12; i++)
        save(prefix, SAC_SNAPSHOT_BINARY, i);
    save(made_prefix("auto", "net_iter_7"), SAC_SNAPSHOT_BINARY, 90); /* another prefix */
    assert_int_equal(find(prefix), 12);
    sac_log_set_sink(count_warnings, SAC_LOG_WARNING);
    cut(path_of(prefix, "_iter_12.solverstate"), -1);
    assert_int_equal(find(prefix), 11);
    cut(path_of(prefix, "_iter_11.caffemodel"), -1);
    assert_int_equal(find(prefix), 10);
    cut(path_of(prefix, "_iter_10.saccade"), 10);
    assert_int_equal(find(prefix), 9);
    unlink(path_of(prefix, "_iter_9.caffemodel"));
    assert_int_equal(find(prefix), 8);
    sac_log_set_sink(NULL, SAC_LOG_ERROR);
    assert_int_equal(warnings, 1 + 2 + 3 + 4);
}

static void one_changed_byte_is_noticed(void **state)
{
    struct sac_snapshot_files files;
    struct sac_error err = {0};
    char prefix[1024];

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("byte", "net"));
    save(prefix, SAC_SNAPSHOT_BINARY, 1);
    FILE *file = fopen(path_of(prefix, "_iter_1.caffemodel"), "r+b");
    assert_non_null(file);
    fseek(file, -3, SEEK_END);
    int byte = fgetc(file);
    fseek(file, -3, SEEK_END);
    fputc(byte ^ 1, file);
    fclose(file);
    assert_int_equal(sac_snapshot_find_auto(&files, prefix, &err), SAC_ENOENT);
    assert_says(err, "none of 1 snapshots is whole; the newest: ");
    assert_says(err, "not the bytes that were saved");
}

static void auto_takes_caffes_own_snapshots_too(void **state)
{
    char prefix[1024];

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("foreign", "net"));
    save(prefix, SAC_SNAPSHOT_BINARY, 20);
    unlink(path_of(prefix, "_iter_20.saccade"));
    assert_int_equal(find(prefix), 20);
    save(prefix, SAC_SNAPSHOT_BINARY, 30);
    unlink(path_of(prefix, "_iter_30.saccade"));
    cut(path_of(prefix, "_iter_30.caffemodel"), -1);
    assert_int_equal(find(prefix), 20);
}

static void auto_without_snapshots_says_so(void **state)
{
    struct sac_snapshot_files files;
    struct sac_error err = {0}, nowhere = {0};

    (void)state;
    assert_int_equal(sac_snapshot_find_auto(&files, made_prefix("none", "net"), &err), SAC_ENOENT);
    assert_says(err, "there is no net_iter_N.solverstate");
    assert_int_equal(sac_snapshot_find_auto(&files, "/nowhere/net", &nowhere), SAC_ENOENT);
    assert_says(nowhere, "the folder of /nowhere/net");
}

static void the_last_and_the_best_are_kept(void **state)
{
    struct sac_error err = {0};
    const int64_t best = 3;
    char prefix[1024];

    (void)state;
    snprintf(prefix, sizeof prefix, "%s", made_prefix("prune", "net"));
    for (int i = 0; i <= 7; i++)
        save(prefix, SAC_SNAPSHOT_BINARY, i);
    cut(path_of(prefix, "_iter_0.saccade"), 10);    /* broken: stays, and stops nobody */
    unlink(path_of(prefix, "_iter_2.saccade"));     /* not ours: stays */
    unlink(path_of(prefix, "_iter_6.solverstate")); /* a save that was interrupted */
    sac_test_write("prune/net_iter_9.caffemodel.tmp", "x", 1);
    sac_test_write("prune/net_iter_9.notes.tmp", "x", 1);
    save(prefix, SAC_SNAPSHOT_BINARY, 100); /* another run's */
    assert_ok(sac_snapshot_prune(prefix, 7, 2, &best, 1, &err), err);
    static const struct {
        const char *file;
        bool kept;
    } files[] = {
        {"_iter_0.solverstate", true},     {"_iter_1.solverstate", false},
        {"_iter_1.caffemodel", false},     {"_iter_1.saccade", false},
        {"_iter_2.solverstate", true},     {"_iter_2.caffemodel", true},
        {"_iter_3.solverstate", true},     {"_iter_3.caffemodel", true},
        {"_iter_4.solverstate", false},    {"_iter_5.solverstate", true},
        {"_iter_5.caffemodel", true},      {"_iter_6.caffemodel", false},
        {"_iter_6.saccade", false},        {"_iter_7.solverstate", true},
        {"_iter_7.caffemodel", true},      {"_iter_100.solverstate", true},
        {"_iter_9.caffemodel.tmp", false}, {"_iter_9.notes.tmp", true},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (sac_file_exists(path_of(prefix, files[i].file)) != files[i].kept)
            fail_msg("%s was %s", files[i].file, files[i].kept ? "removed" : "kept");
    }
}

/* ---- Prefixes ---- */

static void assert_prefix(const char *field, const char *solver, const char *expected)
{
    char *prefix = sac_snapshot_prefix(field, solver);

    assert_string_equal(prefix, expected);
    free(prefix);
}

/* As Caffe's UpgradeSnapshotPrefixProperty has it. */
static void a_prefix_is_made_as_in_caffe(void **state)
{
    char expected[1024];

    (void)state;
    assert_prefix("a/b", "x/solver.prototxt", "a/b");
    assert_prefix(NULL, "x/solver.prototxt", "x/solver");
    assert_prefix(NULL, "solver", "solver");
    snprintf(expected, sizeof expected, "%s/lenet_solver", sac_test_tmpdir());
    assert_prefix(sac_test_tmpdir(), "x.y/lenet_solver.prototxt", expected);
}

static void a_prefix_where_nothing_can_be_written_is_refused_at_once(void **state)
{
    struct sac_error err = {0}, fine = {0};

    (void)state;
    assert_ok(sac_snapshot_check_prefix(made_prefix("check", "net"), &fine), fine);
    assert_int_equal(rmdir(made_prefix("check", "")), 0); /* left empty */
    assert_int_equal(sac_snapshot_check_prefix("/nowhere/net", &err), SAC_ENOENT);
    assert_says(err, "snapshots cannot be saved (snapshot_prefix: \"/nowhere/net\")");
    assert_says(err, "there is no folder /nowhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_binary_snapshot_comes_back_bit_for_bit),
        cmocka_unit_test(an_hdf5_snapshot_comes_back_bit_for_bit),
        cmocka_unit_test(both_formats_of_one_iteration_stand_side_by_side),
        cmocka_unit_test(a_caffemodel_has_the_nets_layers),
        cmocka_unit_test(a_layer_is_written_with_what_its_message_holds),
        cmocka_unit_test(weights_that_do_not_fit_are_refused_by_name),
        cmocka_unit_test(a_file_that_is_no_solverstate_is_refused),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(no_changed_byte_crashes),
        cmocka_unit_test(published_states_are_read_and_fit_the_weights_beside_them),
        cmocka_unit_test(resnet20s_state_fits_its_weights),
        cmocka_unit_test(a_published_history_goes_into_a_solver),
        cmocka_unit_test(a_snapshot_at_max_iter_says_how_to_go_on),
        cmocka_unit_test(weights_that_are_nowhere_are_named),
        cmocka_unit_test(auto_finds_the_newest_whole_one),
        cmocka_unit_test(one_changed_byte_is_noticed),
        cmocka_unit_test(auto_takes_caffes_own_snapshots_too),
        cmocka_unit_test(auto_without_snapshots_says_so),
        cmocka_unit_test(the_last_and_the_best_are_kept),
        cmocka_unit_test(a_prefix_is_made_as_in_caffe),
        cmocka_unit_test(a_prefix_where_nothing_can_be_written_is_refused_at_once),
    };
    return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
