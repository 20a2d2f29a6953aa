/* Old nets made current. The expected texts follow the rules of Caffe's own
 * upgrade (upgrade_proto.cpp of BVLC/caffe); fields print in the order of their
 * numbers. */
#include "support/support.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "formats/caffe.h"

static void expect_text(const ProtobufCMessage *message, const char *expected)
{
    struct sac_buf out = {0};

    assert_int_equal(sac_prototxt_print(&out, message), 0);
    sac_buf_put(&out, "", 1);
    assert_string_equal((char *)out.data, expected);
    sac_buf_done(&out);
}

/* Both as text and, by way of the binary form, as a caffemodel would say it. */
static void becomes(const char *old, const char *expected)
{
    struct sac_error err = {0};
    struct sac_caffe_net net;

    assert_ok(sac_caffe_net_parse(&net, "old", old, strlen(old), &err), err);
    expect_text(&net.net->base, expected);
    struct sac_buf packed = {0};
    assert_int_equal(sac_caffe_net_write(&packed, net.net), 0);
    sac_caffe_net_done(&net);
    assert_ok(sac_caffe_net_parse(&net, "packed", packed.data, packed.len, &err), err);
    expect_text(&net.net->base, expected);
    sac_caffe_net_done(&net);
    sac_buf_done(&packed);
}

static void refuse(const char *old, int code, const char *sentence)
{
    struct sac_error err = {0};
    struct sac_caffe_net net;

    assert_int_equal(sac_caffe_net_parse(&net, "old", old, strlen(old), &err), code);
    assert_string_equal(err.text, sentence);
}

static void a_current_net_stays_as_it_is(void **state)
{
    (void)state;
    becomes("name: 'n' layer { name: 'a' type: 'ReLU' bottom: 'x' top: 'x' }",
            "name: \"n\"\nlayer {\n  name: \"a\"\n  type: \"ReLU\"\n  bottom: \"x\"\n  top: "
            "\"x\"\n}\n");
}

static void v0_layers_become_current(void **state)
{
    (void)state;
    becomes("name: 'n' force_backward: true\n"
            "layers { layer { name: 'conv' type: 'conv' num_output: 96 kernelsize: 11 stride: 4\n"
            "    group: 2 biasterm: false weight_filler { type: 'gaussian' std: 0.01 }\n"
            "    bias_filler { value: 1 } blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: "
            "0. }\n"
            "  bottom: 'data' top: 'conv' }\n"
            "layers { layer { name: 'pool' type: 'pool' pool: AVE kernelsize: 3 stride: 2 }\n"
            "  bottom: 'conv' top: 'pool' }\n"
            "layers { layer { name: 'norm' type: 'lrn' local_size: 7 alpha: 0.5 beta: 0.25 k: 2 }\n"
            "  bottom: 'pool' top: 'norm' }\n"
            "layers { layer { name: 'ip' type: 'innerproduct' num_output: 10 } bottom: 'norm' top: "
            "'ip' }\n"
            "layers { layer { name: 'drop' type: 'dropout' dropout_ratio: 0.25 } bottom: 'ip' top: "
            "'ip' }\n"
            "layers { layer { name: 'cat' type: 'concat' concat_dim: 2 } bottom: 'ip' bottom: 'ip' "
            "top: 'c' }\n"
            "layers { layer { name: 'loss' type: 'softmax_loss' } bottom: 'c' bottom: 'label' }\n",
            "name: \"n\"\n"
            "force_backward: true\n"
            "layer {\n"
            "  name: \"conv\"\n"
            "  type: \"Convolution\"\n"
            "  bottom: \"data\"\n"
            "  top: \"conv\"\n"
            "  param {\n    lr_mult: 1\n    decay_mult: 1\n  }\n"
            "  param {\n    lr_mult: 2\n    decay_mult: 0\n  }\n"
            "  convolution_param {\n"
            "    num_output: 96\n"
            "    bias_term: false\n"
            "    kernel_size: 11\n"
            "    group: 2\n"
            "    stride: 4\n"
            "    weight_filler {\n      type: \"gaussian\"\n      std: 0.01\n    }\n"
            "    bias_filler {\n      value: 1\n    }\n"
            "  }\n"
            "}\n"
            "layer {\n  name: \"pool\"\n  type: \"Pooling\"\n  bottom: \"conv\"\n  top: \"pool\"\n"
            "  pooling_param {\n    pool: AVE\n    kernel_size: 3\n    stride: 2\n  }\n}\n"
            "layer {\n  name: \"norm\"\n  type: \"LRN\"\n  bottom: \"pool\"\n  top: \"norm\"\n"
            "  lrn_param {\n    local_size: 7\n    alpha: 0.5\n    beta: 0.25\n    k: 2\n  }\n}\n"
            "layer {\n  name: \"ip\"\n  type: \"InnerProduct\"\n  bottom: \"norm\"\n  top: \"ip\"\n"
            "  inner_product_param {\n    num_output: 10\n  }\n}\n"
            "layer {\n  name: \"drop\"\n  type: \"Dropout\"\n  bottom: \"ip\"\n  top: \"ip\"\n"
            "  dropout_param {\n    dropout_ratio: 0.25\n  }\n}\n"
            "layer {\n  name: \"cat\"\n  type: \"Concat\"\n  bottom: \"ip\"\n  bottom: \"ip\"\n"
            "  top: \"c\"\n  concat_param {\n    concat_dim: 2\n  }\n}\n"
            "layer {\n  name: \"loss\"\n  type: \"SoftmaxWithLoss\"\n  bottom: \"c\"\n"
            "  bottom: \"label\"\n}\n");
}

static void v0_data_layers_become_current(void **state)
{
    (void)state;
    becomes(
        "layers { layer { name: 'd' type: 'data' source: 'db' meanfile: 'm' batchsize: 4\n"
        "    cropsize: 227 mirror: true scale: 0.5 rand_skip: 9 } top: 'data' top: 'label' }\n"
        "layers { layer { name: 'i' type: 'images' source: 'l' batchsize: 2 new_height: 8\n"
        "    new_width: 9 shuffle_images: true } top: 'a' top: 'b' }\n"
        "layers { layer { name: 'h' type: 'hdf5_output' hdf5_output_param { file_name: 'f' } }\n"
        "  bottom: 'a' }\n",
        "layer {\n  name: \"d\"\n  type: \"Data\"\n  top: \"data\"\n  top: \"label\"\n"
        "  transform_param {\n    scale: 0.5\n    mirror: true\n    crop_size: 227\n"
        "    mean_file: \"m\"\n  }\n"
        "  data_param {\n    source: \"db\"\n    batch_size: 4\n    rand_skip: 9\n  }\n}\n"
        "layer {\n  name: \"i\"\n  type: \"ImageData\"\n  top: \"a\"\n  top: \"b\"\n"
        "  image_data_param {\n    source: \"l\"\n    batch_size: 2\n    shuffle: true\n"
        "    new_height: 8\n    new_width: 9\n  }\n}\n"
        "layer {\n  name: \"h\"\n  type: \"HDF5Output\"\n  bottom: \"a\"\n"
        "  hdf5_output_param {\n    file_name: \"f\"\n  }\n}\n");
}

static void v0_padding_layers_fold_into_what_they_feed(void **state)
{
    (void)state;
    becomes(
        "layers { layer { name: 'p1' type: 'padding' pad: 2 } bottom: 'data' top: 'pad1' }\n"
        "layers { layer { name: 'c1' type: 'conv' num_output: 8 kernelsize: 5 }\n"
        "  bottom: 'pad1' top: 'c1' }\n"
        "layers { layer { name: 'p2' type: 'padding' pad: 1 } bottom: 'c1' top: 'pad2' }\n"
        "layers { layer { name: 'pool' type: 'pool' kernelsize: 3 } bottom: 'pad2' top: 'o' }\n",
        "layer {\n  name: \"c1\"\n  type: \"Convolution\"\n  bottom: \"data\"\n  top: \"c1\"\n"
        "  convolution_param {\n    num_output: 8\n    pad: 2\n    kernel_size: 5\n  }\n}\n"
        "layer {\n  name: \"pool\"\n  type: \"Pooling\"\n  bottom: \"c1\"\n  top: \"o\"\n"
        "  pooling_param {\n    kernel_size: 3\n    pad: 1\n  }\n}\n");
    refuse("layers { layer { name: 'p' type: 'padding' pad: 2 } bottom: 'data' top: 'pad' }\n"
           "layers { layer { name: 'r' type: 'relu' } bottom: 'pad' top: 'o' }",
           SAC_EUNSUPPORTED,
           "old: layer \"r\": a padding layer may only feed conv and pool layers");
    refuse(
        "layers { layer { name: 'p' type: 'padding' pad: 2 } bottom: 'a' bottom: 'b' top: 'pad' }\n"
        "layers { layer { name: 'c' type: 'conv' } bottom: 'pad' top: 'o' }",
        SAC_EFORMAT, "old: layer \"c\": it and its padding layer must have one input each");
}

/* A blob that a padding layer made may be made again by another layer: what
 * counts is the last one before the reader. */
static void padding_counts_only_for_the_blob_it_made(void **state)
{
    (void)state;
    becomes("layers { layer { name: 'p' type: 'padding' pad: 2 } bottom: 'data' top: 'x' }\n"
            "layers { layer { name: 'c' type: 'conv' } bottom: 'x' top: 'x' }\n"
            "layers { layer { name: 'r' type: 'relu' } bottom: 'x' top: 'x' }\n",
            "layer {\n  name: \"c\"\n  type: \"Convolution\"\n  bottom: \"data\"\n  top: \"x\"\n"
            "  convolution_param {\n    pad: 2\n  }\n}\n"
            "layer {\n  name: \"r\"\n  type: \"ReLU\"\n  bottom: \"x\"\n  top: \"x\"\n}\n");
}

static void an_unknown_v0_type_names_its_layer(void **state)
{
    (void)state;
    refuse("layers { layer { name: 'a' type: 'magic' } }", SAC_EUNSUPPORTED,
           "old: layer \"a\": type \"magic\" is none of the V0 format's");
}

/* Weights in a V0 file are in `layer` too. */
static void v0_weights_come_along(void **state)
{
    (void)state;
    becomes("layers { layer { name: 'ip' type: 'innerproduct' num_output: 1\n"
            "    blobs { num: 1 channels: 1 height: 1 width: 2 data: [0.5, -1] } } }",
            "layer {\n  name: \"ip\"\n  type: \"InnerProduct\"\n"
            "  blobs {\n    num: 1\n    channels: 1\n    height: 1\n    width: 2\n    data: 0.5\n"
            "    data: -1\n  }\n"
            "  inner_product_param {\n    num_output: 1\n  }\n}\n");
}

static void v1_layers_become_current(void **state)
{
    (void)state;
    becomes("layers { name: 'c' type: CONVOLUTION bottom: 'a' top: 'b' param: 'w' param: 'b'\n"
            "  blob_share_mode: PERMISSIVE blobs_lr: 1 blobs_lr: 2 weight_decay: 1\n"
            "  loss_weight: 0.5 include { phase: TRAIN } exclude { stage: 's' }\n"
            "  convolution_param { num_output: 3 } }\n",
            "layer {\n  name: \"c\"\n  type: \"Convolution\"\n  bottom: \"a\"\n  top: \"b\"\n"
            "  loss_weight: 0.5\n"
            "  param {\n    name: \"w\"\n    share_mode: PERMISSIVE\n    lr_mult: 1\n"
            "    decay_mult: 1\n  }\n"
            "  param {\n    name: \"b\"\n    lr_mult: 2\n  }\n"
            "  include {\n    phase: TRAIN\n  }\n  exclude {\n    stage: \"s\"\n  }\n"
            "  convolution_param {\n    num_output: 3\n  }\n}\n");
}

/* Every type of the enum, and what upgrade_proto.cpp calls it. */
static void every_v1_type_has_its_name(void **state)
{
    (void)state;
    static const char *const types[][2] = {
        {"NONE", ""},
        {"ACCURACY", "Accuracy"},
        {"BNLL", "BNLL"},
        {"CONCAT", "Concat"},
        {"CONVOLUTION", "Convolution"},
        {"DATA", "Data"},
        {"DROPOUT", "Dropout"},
        {"EUCLIDEAN_LOSS", "EuclideanLoss"},
        {"FLATTEN", "Flatten"},
        {"HDF5_DATA", "HDF5Data"},
        {"HDF5_OUTPUT", "HDF5Output"},
        {"IM2COL", "Im2col"},
        {"IMAGE_DATA", "ImageData"},
        {"INFOGAIN_LOSS", "InfogainLoss"},
        {"INNER_PRODUCT", "InnerProduct"},
        {"LRN", "LRN"},
        {"MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"},
        {"POOLING", "Pooling"},
        {"RELU", "ReLU"},
        {"SIGMOID", "Sigmoid"},
        {"SOFTMAX", "Softmax"},
        {"SOFTMAX_LOSS", "SoftmaxWithLoss"},
        {"SPLIT", "Split"},
        {"TANH", "TanH"},
        {"WINDOW_DATA", "WindowData"},
        {"ELTWISE", "Eltwise"},
        {"POWER", "Power"},
        {"SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"},
        {"HINGE_LOSS", "HingeLoss"},
        {"MEMORY_DATA", "MemoryData"},
        {"ARGMAX", "ArgMax"},
        {"THRESHOLD", "Threshold"},
        {"DUMMY_DATA", "DummyData"},
        {"SLICE", "Slice"},
        {"MVN", "MVN"},
        {"ABSVAL", "AbsVal"},
        {"SILENCE", "Silence"},
        {"CONTRASTIVE_LOSS", "ContrastiveLoss"},
        {"EXP", "Exp"},
        {"DECONVOLUTION", "Deconvolution"},
    };

    assert_int_equal(sizeof types / sizeof types[0], 40);
    for (size_t i = 0; i < 40; i++) {
        struct sac_error err = {0};
        struct sac_caffe_net net;
        char text[80];
        snprintf(text, sizeof text, "layers { type: %s }", types[i][0]);
        assert_ok(sac_caffe_net_parse(&net, "old", text, strlen(text), &err), err);
        assert_string_equal(net.net->layer[0]->type, types[i][1]);
        sac_caffe_net_done(&net);
    }
}

/* Binary: layers { name: "a" type: 99 }, as no text can say. */
static void an_unknown_v1_type_names_its_layer(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x12, 5, 0x22, 1, 'a', 0x28, 99};
    struct sac_error err = {0};
    struct sac_caffe_net net;

    assert_int_equal(sac_caffe_net_parse(&net, "old", bytes, sizeof bytes, &err), SAC_EUNSUPPORTED);
    assert_string_equal(err.text, "old: layer \"a\": type 99 is none of the V1 format's");
}

static void v1_data_layers_hand_over_their_transformation(void **state)
{
    (void)state;
    becomes("layers { type: DATA data_param { source: 's' scale: 0.25 mean_file: 'm' crop_size: 3\n"
            "  mirror: true batch_size: 2 backend: LMDB } }\n"
            "layers { type: IMAGE_DATA image_data_param { mirror: false } }\n"
            "layers { type: WINDOW_DATA window_data_param { crop_size: 4 fg_fraction: 0.5 } }\n"
            "layers { type: RELU }\n",
            "layer {\n  type: \"Data\"\n  transform_param {\n    scale: 0.25\n    mirror: true\n"
            "    crop_size: 3\n    mean_file: \"m\"\n  }\n"
            "  data_param {\n    source: \"s\"\n    batch_size: 2\n    backend: LMDB\n  }\n}\n"
            "layer {\n  type: \"ImageData\"\n  transform_param {\n    mirror: false\n  }\n"
            "  image_data_param {\n  }\n}\n"
            "layer {\n  type: \"WindowData\"\n  transform_param {\n    crop_size: 4\n  }\n"
            "  window_data_param {\n    fg_fraction: 0.5\n  }\n}\n"
            "layer {\n  type: \"ReLU\"\n}\n");
}

static void both_kinds_of_layers_are_refused(void **state)
{
    (void)state;
    refuse("layers { type: RELU } layer { type: 'ReLU' } layer { type: 'ReLU' }", SAC_EFORMAT,
           "old: has both \"layers\" (1, old) and \"layer\" (2, current); use one");
}

static void inputs_become_a_first_layer(void **state)
{
    (void)state;
    const char *expected =
        "layer {\n  name: \"input\"\n  type: \"Input\"\n  top: \"a\"\n  top: \"b\"\n"
        "  input_param {\n"
        "    shape {\n      dim: 1\n      dim: 3\n      dim: 4\n      dim: 5\n    }\n"
        "    shape {\n      dim: 6\n      dim: 7\n      dim: 8\n      dim: 9\n    }\n  }\n}\n"
        "layer {\n  type: \"ReLU\"\n}\n";

    becomes(
        "input: 'a' input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 5 layer { type: 'ReLU' }\n"
        "input: 'b' input_dim: 6 input_dim: 7 input_dim: 8 input_dim: 9",
        expected);
    becomes("input: 'a' input_shape { dim: [1, 3, 4, 5] } input: 'b'\n"
            "input_shape { dim: 6 dim: 7 dim: 8 dim: 9 } layers { type: RELU }",
            expected);
    becomes("input: 'a' layer { type: 'ReLU' }", "layer {\n  type: \"ReLU\"\n}\n");
}

static void inputs_without_as_many_shapes_are_refused(void **state)
{
    (void)state;
    refuse("input: 'a' input_dim: 1 input_dim: 2", SAC_EFORMAT,
           "old: expected 4 \"input_dim\" an input, found 2 for 1 inputs");
    refuse("input: 'a' input: 'b' input_dim: [1, 2, 3, 4]", SAC_EFORMAT,
           "old: expected 4 \"input_dim\" an input, found 4 for 2 inputs");
    refuse("input: 'a' input: 'b' input_shape {}", SAC_EFORMAT,
           "old: expected an \"input_shape\" for each of 2 inputs, found 1");
}

static void statistics_of_batch_norm_are_not_trained(void **state)
{
    (void)state;
    becomes("layer { type: 'BatchNorm' param { lr_mult: 1 name: 'm' } param {} param { decay_mult: "
            "3 } }\n"
            "layer { type: 'BatchNorm' param { lr_mult: 1 } }\n",
            "layer {\n  type: \"BatchNorm\"\n"
            "  param {\n    name: \"m\"\n    lr_mult: 0\n    decay_mult: 0\n  }\n"
            "  param {\n    lr_mult: 0\n    decay_mult: 0\n  }\n"
            "  param {\n    lr_mult: 0\n    decay_mult: 0\n  }\n}\n"
            "layer {\n  type: \"BatchNorm\"\n  param {\n    lr_mult: 1\n  }\n}\n");
}

static struct sac_caffe_solver solver_of(const char *text)
{
    struct sac_error err = {0};
    struct sac_caffe_solver solver;
    const char *path = sac_test_write("solver.prototxt", text, strlen(text));

    assert_ok(sac_caffe_solver_load(&solver, path, &err), err);
    return solver;
}

static void a_solver_type_becomes_its_name(void **state)
{
    (void)state;
    static const char *const types[][2] = {{"SGD", "SGD"},           {"NESTEROV", "Nesterov"},
                                           {"ADAGRAD", "AdaGrad"},   {"RMSPROP", "RMSProp"},
                                           {"ADADELTA", "AdaDelta"}, {"ADAM", "Adam"}};

    for (int i = 0; i < 6; i++) {
        char text[64];
        snprintf(text, sizeof text, "solver_type: %s", types[i][0]);
        struct sac_caffe_solver solver = solver_of(text);
        assert_string_equal(solver.solver->type, types[i][1]);
        assert_false(solver.solver->has_solver_type);
        sac_caffe_solver_done(&solver);
    }
    struct sac_caffe_solver plain = solver_of("base_lr: 0.01");
    assert_string_equal(plain.solver->type, "SGD");
    sac_caffe_solver_done(&plain);
}

static void both_kinds_of_solver_type_are_refused(void **state)
{
    (void)state;
    struct sac_error err = {0};
    struct sac_caffe_solver solver;
    const char *text = "type: 'Adam'\nsolver_type: ADAM";

    assert_int_equal(
        sac_caffe_solver_load(&solver, sac_test_write("two.prototxt", text, strlen(text)), &err),
        SAC_EFORMAT);
    assert_says(err,
                "two.prototxt: has both \"solver_type\" (old) and \"type\" (current); use one");
}

static void nets_inside_a_solver_are_upgraded_too(void **state)
{
    (void)state;
    struct sac_caffe_solver solver = solver_of(
        "net_param { layers { type: RELU } } train_net_param { layers { type: LRN } }\n"
        "test_net_param { layers { type: MVN } } test_net_param { layers { type: BNLL } }");

    assert_string_equal(solver.solver->net_param->layer[0]->type, "ReLU");
    assert_string_equal(solver.solver->train_net_param->layer[0]->type, "LRN");
    assert_string_equal(solver.solver->test_net_param[0]->layer[0]->type, "MVN");
    assert_string_equal(solver.solver->test_net_param[1]->layer[0]->type, "BNLL");
    sac_caffe_solver_done(&solver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_current_net_stays_as_it_is),
        cmocka_unit_test(v0_layers_become_current),
        cmocka_unit_test(v0_data_layers_become_current),
        cmocka_unit_test(v0_padding_layers_fold_into_what_they_feed),
        cmocka_unit_test(padding_counts_only_for_the_blob_it_made),
        cmocka_unit_test(an_unknown_v0_type_names_its_layer),
        cmocka_unit_test(v0_weights_come_along),
        cmocka_unit_test(v1_layers_become_current),
        cmocka_unit_test(every_v1_type_has_its_name),
        cmocka_unit_test(an_unknown_v1_type_names_its_layer),
        cmocka_unit_test(v1_data_layers_hand_over_their_transformation),
        cmocka_unit_test(both_kinds_of_layers_are_refused),
        cmocka_unit_test(inputs_become_a_first_layer),
        cmocka_unit_test(inputs_without_as_many_shapes_are_refused),
        cmocka_unit_test(statistics_of_batch_norm_are_not_trained),
        cmocka_unit_test(a_solver_type_becomes_its_name),
        cmocka_unit_test(both_kinds_of_solver_type_are_refused),
        cmocka_unit_test(nets_inside_a_solver_are_upgraded_too),
    };

    return cmocka_run_group_tests_name("formats/upgrade", tests, NULL, NULL);
}
