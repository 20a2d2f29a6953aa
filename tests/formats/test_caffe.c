/* Real files: the published nets and weights of the test data. */
#include "support/support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "formats/caffe.h"

static bool ends(const char *text, const char *with)
{
    size_t a = strlen(text), b = strlen(with);

    return a >= b && strcmp(text + a - b, with) == 0;
}

static void load_prototxt(const char *path)
{
    struct sac_error err = {0};

    if (strstr(strrchr(path, '/'), "solver")) {
        struct sac_caffe_solver solver;
        assert_ok(sac_caffe_solver_load(&solver, path, &err), err);
        assert_true(solver.solver->has_base_lr);
        sac_caffe_solver_done(&solver);
        return;
    }
    struct sac_caffe_net net;
    assert_ok(sac_caffe_net_load(&net, path, &err), err);
    if (net.net->n_layer == 0)
        fail_msg("%s has no layers", path);
    assert_int_equal(net.net->n_layers, 0);
    assert_int_equal(net.net->n_input, 0);
    sac_caffe_net_done(&net);
}

/* Loads every prototxt below `folder`; returns how many there were. */
static int load_all(const char *folder)
{
    DIR *dir = opendir(folder);
    int count = 0;

    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[1024];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (sac_file_is_folder(path)) {
            count += load_all(path);
        } else if (ends(path, ".prototxt")) {
            load_prototxt(path);
            count++;
        }
    }
    closedir(dir);
    return count;
}

static void every_published_prototxt_loads(void **state)
{
    (void)state;
    assert_true(load_all(sac_test_data("nets")) >= 29);
    assert_true(load_all(sac_test_data("cifar10_models")) >= 13);
    assert_true(load_all(sac_test_data("layers")) >= 8);
    assert_true(load_all(sac_test_data("squeezenet_v1.1")) >= 3);
}

static const Caffe__LayerParameter *layer_named(const Caffe__NetParameter *net, const char *name)
{
    for (size_t i = 0; i < net->n_layer; i++) {
        if (net->layer[i]->name && strcmp(net->layer[i]->name, name) == 0)
            return net->layer[i];
    }
    fail_msg("no layer %s", name);
    return NULL;
}

static void expect_blob(const Caffe__LayerParameter *layer, size_t index, int64_t a, int64_t b,
                        int64_t c, int64_t d)
{
    struct sac_error err = {0};
    struct sac_caffe_blob blob;
    const int64_t expected[4] = {a, b, c, d};

    assert_true(index < layer->n_blobs);
    assert_ok(sac_caffe_blob_read(&blob, layer->blobs[index], &err), err);
    assert_int_equal(blob.rank, 4);
    assert_memory_equal(blob.dim, expected, sizeof expected);
    assert_int_equal(blob.count, a * b * c * d);
    sac_caffe_blob_done(&blob);
}

/* Shapes as the file's own cifar10_full_train_test.prototxt says: 32 filters of
 * 5×5 over 3 channels, 64 over 32, and 10 × 1024 behind the third pooling. */
static void a_v1_caffemodel_comes_out_current(void **state)
{
    (void)state;
    struct sac_error err = {0};
    struct sac_caffe_net net;
    const char *path = sac_test_data("cifar10_models/cifar10_full_iter_70000.caffemodel");

    assert_ok(sac_caffe_net_load(&net, path, &err), err);
    const Caffe__LayerParameter *conv1 = layer_named(net.net, "conv1");
    assert_string_equal(conv1->type, "Convolution");
    assert_int_equal(conv1->n_blobs, 2);
    expect_blob(conv1, 0, 32, 3, 5, 5);
    expect_blob(conv1, 1, 1, 1, 1, 32);
    expect_blob(layer_named(net.net, "conv3"), 0, 64, 32, 5, 5);
    expect_blob(layer_named(net.net, "ip1"), 0, 1, 1, 10, 1024);
    assert_true(conv1->n_param >= 2);
    assert_true(conv1->param[1]->lr_mult == 2.0f);
    sac_caffe_net_done(&net);
}

static void a_current_caffemodel_loads(void **state)
{
    (void)state;
    struct sac_error err = {0};
    struct sac_caffe_net net;
    const char *path =
        sac_test_data("cifar10_models/resnet20/cifar10_ResNet_20_iter_53500.caffemodel");

    assert_ok(sac_caffe_net_load(&net, path, &err), err);
    int convolutions = 0;
    for (size_t i = 0; i < net.net->n_layer; i++)
        convolutions += strcmp(net.net->layer[i]->type, "Convolution") == 0;
    /* As its deploy net lists: 19, and 2 in the shortcuts where the width changes. */
    assert_int_equal(convolutions, 21);
    sac_caffe_net_done(&net);
}

static void expect_mean(const char *name, int64_t side, double least, double most)
{
    struct sac_error err = {0};
    struct sac_caffe_blob blob;
    const int64_t expected[4] = {1, 3, side, side};

    assert_ok(sac_caffe_blob_load(&blob, sac_test_data(name), &err), err);
    assert_int_equal(blob.rank, 4);
    assert_memory_equal(blob.dim, expected, sizeof expected);
    double sum = 0;
    for (size_t i = 0; i < blob.count; i++)
        sum += blob.data[i];
    assert_true(sum / (double)blob.count > least && sum / (double)blob.count < most);
    sac_caffe_blob_done(&blob);
}

/* ImageNet's mean over all channels is that of 104, 117 and 123, published with
 * the models; CIFAR-10's that of 125.3, 122.9 and 113.8. */
static void means_load(void **state)
{
    (void)state;
    expect_mean("cifar10_models/cifar10_mean.binaryproto", 32, 118, 124);
    expect_mean("ilsvrc12/imagenet_mean.binaryproto", 256, 112, 117);
}

static void labels_of_imagenet_load(void **state)
{
    (void)state;
    struct sac_error err = {0};
    struct sac_labels labels;

    assert_ok(sac_labels_load(&labels, sac_test_data("ilsvrc12/synset_words.txt"), &err), err);
    assert_int_equal(labels.count, 1000);
    assert_string_equal(labels.text[0], "n01440764 tench, Tinca tinca");
    sac_labels_done(&labels);
}

/* Printing and reading back changes nothing: the second printing is the same. */
static void a_published_net_prints_and_reads_back(void **state)
{
    (void)state;
    struct sac_error err = {0};
    struct sac_caffe_net net, again;
    struct sac_buf first = {0}, second = {0}, packed = {0}, repacked = {0};
    const char *path = sac_test_data("cifar10_models/cifar10_full_iter_70000.caffemodel");

    assert_ok(sac_caffe_net_load(&net, path, &err), err);
    assert_int_equal(sac_prototxt_print(&first, &net.net->base), 0);
    assert_ok(sac_caffe_net_parse(&again, "printed", first.data, first.len, &err), err);
    assert_int_equal(sac_prototxt_print(&second, &again.net->base), 0);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    assert_int_equal(sac_caffe_net_write(&packed, net.net), 0);
    assert_int_equal(sac_caffe_net_write(&repacked, again.net), 0);
    assert_int_equal(packed.len, repacked.len);
    assert_memory_equal(packed.data, repacked.data, packed.len);
    sac_buf_done(&first);
    sac_buf_done(&second);
    sac_buf_done(&packed);
    sac_buf_done(&repacked);
    sac_caffe_net_done(&net);
    sac_caffe_net_done(&again);
}

/* Cut anywhere, a file of weights is refused with a sentence, or is a valid
 * shorter one (cut between two fields). */
static void a_caffemodel_cut_anywhere_is_refused_or_shorter(void **state)
{
    (void)state;
    struct sac_error err = {0};
    const char *path = sac_test_data("layers/layer_convolution.caffemodel");
    uint8_t *bytes;
    size_t size, refused = 0;

    assert_ok(sac_file_read(path, 1u << 20, &bytes, &size, &err), err);
    for (size_t cut = 0; cut < size; cut++) {
        struct sac_error why = {0};
        struct sac_caffe_net net;
        uint8_t *exact = malloc(cut ? cut : 1); /* so that a sanitizer sees an overrun */
        memcpy(exact, bytes, cut);
        int rc = sac_caffe_net_parse(&net, "cut", exact, cut, &why);
        if (rc == 0) {
            sac_caffe_net_done(&net);
        } else {
            assert_int_equal(why.code, rc);
            assert_true(strncmp(why.text, "cut:", 4) == 0);
            refused++;
        }
        free(exact);
    }
    assert_true(refused > size - 16);
    free(bytes);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct sac_error err = {0};
    struct sac_caffe_net net;

    assert_int_equal(sac_caffe_net_load(&net, "/nonexistent/net.prototxt", &err), SAC_ENOENT);
    assert_says(err, "/nonexistent/net.prototxt");
}

static void expect_stranger(const char *bytes, size_t size, const char *says)
{
    struct sac_error err = {0};
    struct sac_caffe_net net;

    assert_true(sac_caffe_net_parse(&net, "file", bytes, size, &err) < 0);
    assert_says(err, says);
}

static void what_is_no_net_at_all_is_told(void **state)
{
    (void)state;
    expect_stranger("", 0, "file: the file is empty");
    expect_stranger("version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS pointer");
    expect_stranger("<!DOCTYPE html>\n<p>Not found", 28, "a web page");
    expect_stranger("\x89HDF\r\n\x1a\n", 8, "an HDF5 file");
    expect_stranger("\x1f\x8b\x08\0\0\0", 6, "a compressed archive");
    expect_stranger("\xff\xfen\0a\0", 6, "UTF-16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_published_prototxt_loads),
        cmocka_unit_test(a_v1_caffemodel_comes_out_current),
        cmocka_unit_test(a_current_caffemodel_loads),
        cmocka_unit_test(means_load),
        cmocka_unit_test(labels_of_imagenet_load),
        cmocka_unit_test(a_published_net_prints_and_reads_back),
        cmocka_unit_test(a_caffemodel_cut_anywhere_is_refused_or_shorter),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(what_is_no_net_at_all_is_told),
    };

    return cmocka_run_group_tests_name("formats/caffe", tests, NULL, NULL);
}
