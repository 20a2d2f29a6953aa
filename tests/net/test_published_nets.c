/*
 * The nets as they were published, and what is known of them: shapes by Caffe's
 * rules worked out by hand (convolution rounds down, pooling up), parameter counts
 * from the papers or by the formula beside them.
 */
#include "net_support.h"

struct blob {
    const char *name, *shape;
};

struct published {
    const char *path;
    int64_t weights;
    int inputs, outputs;
    struct blob blobs[12];
};

static struct sac_net *load(const char *path)
{
    struct sac_net_options options = {.phase = SAC_PHASE_TEST};
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    assert_ok(sac_net_load(&net, sac_test_data(path), &options, &err), err);
    return net;
}

static void check(const struct published *expected)
{
    struct sac_net *net = load(expected->path);
    struct sac_graph *graph = NULL;
    struct sac_error err = {0};

    if (sac_net_weight_count(net) != expected->weights)
        fail_msg("%s has %lld weights and not %lld", expected->path,
                 (long long)sac_net_weight_count(net), (long long)expected->weights);
    assert_int_equal(sac_net_input_count(net), expected->inputs);
    assert_int_equal(sac_net_output_count(net), expected->outputs);
    for (int i = 0; i < 12 && expected->blobs[i].name; i++)
        assert_blob_is(net, expected->blobs[i].name, expected->blobs[i].shape);
    assert_ok(sac_net_graph(net, 3, NULL, 0, &graph, &err), err);
    assert_int_equal(graph->values[graph->outputs[0]].shape.dim[0], 3);
    sac_graph_free(graph);
    sac_net_free(net);
}

/* 96·3·11² + 96, 256·48·5² + 256, 384·256·3² + 384, 384·192·3² + 384,
 * 256·192·3² + 256, 9216·4096 + 4096, 4096² + 4096, 4096·1000 + 1000:
 * Krizhevsky's "60 million parameters". */
enum { ALEXNET_WEIGHTS = 60965224 };

static void alexnet_and_caffenet(void **state)
{
    static const struct published nets[] = {
        {"nets/bvlc_reference_caffenet/deploy.prototxt",
         ALEXNET_WEIGHTS,
         1,
         1,
         {{"data", "10x3x227x227"},
          {"conv1", "10x96x55x55"},
          {"pool1", "10x96x27x27"},
          {"conv2", "10x256x27x27"},
          {"pool2", "10x256x13x13"},
          {"conv4", "10x384x13x13"},
          {"pool5", "10x256x6x6"},
          {"fc6", "10x4096"},
          {"fc8", "10x1000"},
          {"prob", "10x1000"}}},
        {"nets/bvlc_alexnet/deploy.prototxt",
         ALEXNET_WEIGHTS,
         1,
         1,
         {{"norm1", "10x96x55x55"}, {"pool1", "10x96x27x27"}, {"prob", "10x1000"}}},
        {"nets/bvlc_reference_caffenet/train_val.prototxt",
         ALEXNET_WEIGHTS,
         2,
         2,
         {{"data", "50x3x227x227"},
          {"label", "50"},
          {"pool5", "50x256x6x6"},
          {"fc8", "50x1000"},
          {"accuracy", ""},
          {"loss", ""}}},
        {"nets/bvlc_alexnet/train_val.prototxt",
         ALEXNET_WEIGHTS,
         2,
         2,
         {{"pool5", "50x256x6x6"}, {"fc8", "50x1000"}}},
        /* 102 classes: 60965224 − 4097·1000 + 4097·102 */
        {"nets/oxford102_alexnet/deploy.prototxt",
         57286118,
         1,
         1,
         {{"data", "10x3x227x227"}, {"fc8_oxford_102", "10x102"}, {"prob", "10x102"}}},
        {"nets/oxford102_alexnet/train_val.prototxt",
         57286118,
         2,
         1,
         {{"data", "50x3x227x227"}, {"label", "50"}, {"fc8_oxford_102", "50x102"}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        check(&nets[i]);
}

/* Convolutions of one inception module (Szegedy et al., table 1), with biases. */
static int64_t inception(int64_t in, int64_t n1, int64_t r3, int64_t n3, int64_t r5, int64_t n5,
                         int64_t pool)
{
    return (in + 1) * n1 + (in + 1) * r3 + (9 * r3 + 1) * n3 + (in + 1) * r5 + (25 * r5 + 1) * n5 +
           (in + 1) * pool;
}

static int64_t googlenet_weights(void)
{
    int64_t stem = (147 + 1) * 64 + (64 + 1) * 64 + (9 * 64 + 1) * 192;

    return stem + inception(192, 64, 96, 128, 16, 32, 32) +
           inception(256, 128, 128, 192, 32, 96, 64) + inception(480, 192, 96, 208, 16, 48, 64) +
           inception(512, 160, 112, 224, 24, 64, 64) + inception(512, 128, 128, 256, 24, 64, 64) +
           inception(512, 112, 144, 288, 32, 64, 64) + inception(528, 256, 160, 320, 32, 128, 128) +
           inception(832, 256, 160, 320, 32, 128, 128) +
           inception(832, 384, 192, 384, 48, 128, 128) + 1025 * 1000;
}

/* The two heads on the side, over 512 and 528 channels. */
static int64_t googlenet_heads(void)
{
    int64_t tail = (2048 + 1) * 1024 + 1025 * 1000;

    return (512 + 1) * 128 + tail + (528 + 1) * 128 + tail;
}

static void googlenet(void **state)
{
    const struct published deploy = {"nets/bvlc_googlenet/deploy.prototxt",
                                     googlenet_weights(),
                                     1,
                                     1,
                                     {{"conv1/7x7_s2", "10x64x112x112"},
                                      {"pool1/3x3_s2", "10x64x56x56"},
                                      {"conv2/3x3", "10x192x56x56"},
                                      {"inception_3a/output", "10x256x28x28"},
                                      {"inception_3b/output", "10x480x28x28"},
                                      {"inception_4a/output", "10x512x14x14"},
                                      {"inception_4d/output", "10x528x14x14"},
                                      {"inception_4e/output", "10x832x14x14"},
                                      {"pool4/3x3_s2", "10x832x7x7"},
                                      {"inception_5b/output", "10x1024x7x7"},
                                      {"pool5/7x7_s1", "10x1024x1x1"},
                                      {"prob", "10x1000"}}};
    const struct published train_val = {"nets/bvlc_googlenet/train_val.prototxt",
                                        googlenet_weights() + googlenet_heads(),
                                        2,
                                        9,
                                        {{"data", "50x3x224x224"},
                                         {"loss1/ave_pool", "50x512x4x4"},
                                         {"loss2/ave_pool", "50x528x4x4"},
                                         {"loss1/classifier", "50x1000"},
                                         {"loss3/classifier", "50x1000"},
                                         {"loss3/top-5", ""}}};

    (void)state;
    /* The counts that other frameworks print for this file. */
    assert_int_equal(googlenet_weights(), 6998552);
    assert_int_equal(googlenet_weights() + googlenet_heads(), 13378280);
    check(&deploy);
    check(&train_val);
}

static void vgg(void **state)
{
    /* Simonyan and Zisserman, table 2: 138 and 144 million. */
    static const struct published nets[] = {
        {"nets/vgg16/VGG_ILSVRC_16_layers_deploy.prototxt",
         138357544,
         1,
         1,
         {{"data", "10x3x224x224"},
          {"conv1_2", "10x64x224x224"},
          {"pool1", "10x64x112x112"},
          {"pool3", "10x256x28x28"},
          {"conv5_3", "10x512x14x14"},
          {"pool5", "10x512x7x7"},
          {"fc6", "10x4096"},
          {"prob", "10x1000"}}},
        {"nets/vgg19/VGG_ILSVRC_19_layers_deploy.prototxt",
         143667240,
         1,
         1,
         {{"conv5_4", "10x512x14x14"}, {"pool5", "10x512x7x7"}, {"prob", "10x1000"}}},
        /* CNN-S: (147+1)·96, (96·25+1)·256, (256·9+1)·512, twice (512·9+1)·512,
         * (512·36+1)·4096, 4097·4096, 4097·1000. Its pools round up: 109 by 3 over 3
         * to 37, 33 by 2 to 17, 17 by 3 over 3 to 6. */
        {"nets/vgg_cnn_s/VGG_CNN_S_deploy.prototxt",
         102908520,
         1,
         1,
         {{"conv1", "10x96x109x109"},
          {"pool1", "10x96x37x37"},
          {"conv2", "10x256x33x33"},
          {"pool2", "10x256x17x17"},
          {"conv5", "10x512x17x17"},
          {"pool5", "10x512x6x6"},
          {"prob", "10x1000"}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        check(&nets[i]);
}

static void network_in_network(void **state)
{
    /* (363+1)·96, twice 97·96; (96·25+1)·256, twice 257·256; (256·9+1)·384, twice
     * 385·384; (384·9+1)·1024, 1025·1024, 1025·1000: "7.6 million". */
    static const struct published net = {"nets/nin_imagenet/train_val.prototxt",
                                         7595176,
                                         2,
                                         1,
                                         {{"data", "89x3x224x224"},
                                          {"conv1", "89x96x54x54"},
                                          {"pool0", "89x96x27x27"},
                                          {"pool2", "89x256x13x13"},
                                          {"pool3", "89x384x6x6"},
                                          {"cccp8", "89x1000x6x6"},
                                          {"pool4", "89x1000x1x1"},
                                          {"accuracy", ""}}};

    (void)state;
    check(&net);
}

static void resnet_and_mobilenet(void **state)
{
    /* He et al.'s ResNet-50 has 25,557,032 with the factors and shifts of 26,560
     * normalised channels; Caffe's file has 64 biases more, and for those channels
     * a mean and a variance, and a number for each of 53 layers. MobileNet: 4,253,864
     * with means and variances (as Keras counts them), and 27. */
    static const struct published nets[] = {
        {"nets/resnet50/ResNet-50-deploy.prototxt",
         25557032 + 64 + 2 * 26560 + 53,
         1,
         1,
         {{"conv1", "1x64x112x112"},
          {"pool1", "1x64x56x56"},
          {"res2c", "1x256x56x56"},
          {"res3d", "1x512x28x28"},
          {"res4f", "1x1024x14x14"},
          {"res5c", "1x2048x7x7"},
          {"pool5", "1x2048x1x1"},
          {"fc1000", "1x1000"},
          {"prob", "1x1000"}}},
        {"nets/mobilenet/mobilenet_deploy.prototxt",
         4253864 + 27,
         1,
         1,
         {{"conv1", "1x32x112x112"},
          {"conv2_1/dw", "1x32x112x112"},
          {"conv2_2/sep", "1x128x56x56"},
          {"conv6/sep", "1x1024x7x7"},
          {"pool6", "1x1024x1x1"},
          {"fc7", "1x1000x1x1"},
          {"prob", "1x1000x1x1"}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        check(&nets[i]);
}

static void squeezenet(void **state)
{
    /* Iandola et al.: 1,235,496. */
    static const struct published nets[] = {
        {"squeezenet_v1.1/deploy.prototxt",
         1235496,
         1,
         1,
         {{"conv1", "10x64x113x113"},
          {"pool1", "10x64x56x56"},
          {"fire2/concat", "10x128x56x56"},
          {"pool3", "10x128x28x28"},
          {"fire5/concat", "10x256x28x28"},
          {"pool5", "10x256x14x14"},
          {"fire9/concat", "10x512x14x14"},
          {"conv10", "10x1000x14x14"},
          {"pool10", "10x1000x1x1"},
          {"prob", "10x1000x1x1"}}},
        {"squeezenet_v1.1/train_val.prototxt",
         1235496,
         2,
         3,
         {{"data", "25x3x227x227"}, {"label", "25"}, {"pool10", "25x1000x1x1"}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        check(&nets[i]);
}

static void lenet_and_cifar10(void **state)
{
    static const struct published nets[] = {
        /* LeCun et al. by way of Caffe: 520 + 25050 + 400500 + 5010. */
        {"nets/lenet/lenet.prototxt",
         431080,
         1,
         1,
         {{"data", "64x1x28x28"},
          {"conv1", "64x20x24x24"},
          {"pool1", "64x20x12x12"},
          {"conv2", "64x50x8x8"},
          {"pool2", "64x50x4x4"},
          {"ip1", "64x500"},
          {"prob", "64x10"}}},
        /* 76·32, 801·32, 801·64, 1025·10; quick: 1025·64 and 65·10 instead. */
        {"cifar10_models/cifar10_full.prototxt",
         89578,
         1,
         1,
         {{"conv1", "1x32x32x32"},
          {"pool1", "1x32x16x16"},
          {"norm2", "1x32x8x8"},
          {"pool3", "1x64x4x4"},
          {"prob", "1x10"}}},
        {"cifar10_models/cifar10_quick.prototxt",
         145578,
         1,
         1,
         {{"pool3", "1x64x4x4"}, {"ip1", "1x64"}, {"prob", "1x10"}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        check(&nets[i]);
}

static void a_net_over_a_database_takes_its_shape_from_the_caller(void **state)
{
    static const struct sac_net_input data = {"data", {4, {100, 1, 28, 28}}};
    struct sac_net_options options = {.phase = SAC_PHASE_TEST};
    const char *path = sac_test_data("nets/lenet/lenet_train_test.prototxt");
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_net_load(&net, path, &options, &err), SAC_EINVAL);
    assert_says(err, "layer \"mnist\" (Data)");
    assert_says(err, "has to be given an input shape");
    err = (struct sac_error){0};
    options.inputs = &data;
    options.input_count = 1;
    assert_ok(sac_net_load(&net, path, &options, &err), err);
    assert_blob_is(net, "label", "100");
    assert_blob_is(net, "ip2", "100x10");
    assert_int_equal(sac_net_weight_count(net), 431080);
    sac_net_free(net);
}

static void check_weights(const char *net_path, const char *weights_path, int copied, int missing,
                          int ignored, const char *layer, float first, float last)
{
    struct sac_net *net = load(net_path);
    struct sac_weights_report report = {0};
    struct sac_error err = {0};
    bool found = false;

    assert_ok(sac_net_load_weights(net, sac_test_data(weights_path), &report, &err), err);
    assert_int_equal(report.layers_copied, copied);
    assert_int_equal(report.layers_missing, missing);
    assert_int_equal(report.layers_ignored, ignored);
    for (int i = 0; i < sac_net_layer_count(net); i++) {
        const struct sac_layer *one = sac_net_layer(net, i);
        if (strcmp(sac_layer_name(one), layer) != 0)
            continue;
        struct sac_shape shape;
        const float *data = sac_layer_weight(one, 0, &shape);
        assert_true(data[0] == first);
        assert_true(data[sac_shape_count(&shape) - 1] == last);
        found = true;
    }
    assert_true(found);
    sac_net_free(net);
}

/* First and last numbers as OpenCV 4.6's cv2.dnn.readNetFromCaffe().getParam() gives
 * them. */
static void weights_of_v1_and_current_files_are_copied(void **state)
{
    (void)state;
    check_weights("cifar10_models/cifar10_quick.prototxt",
                  "cifar10_models/cifar10_quick_iter_5000.caffemodel", 5, 0, 0, "ip2",
                  -0.0812060684f, 0.104745299f);
    check_weights("cifar10_models/cifar10_full.prototxt",
                  "cifar10_models/cifar10_full_iter_70000.caffemodel", 4, 0, 0, "ip1",
                  0.00783703011f, -0.000549778924f);
    check_weights("squeezenet_v1.1/deploy.prototxt", "squeezenet_v1.1/squeezenet_v1.1.caffemodel",
                  26, 0, 0, "conv10", -0.0358581543f, -0.0211029053f);
}

static void resnet20_takes_its_weights(void **state)
{
    struct sac_net *net = load("cifar10_models/resnet20/deploy_cifar10_resnet_20_ljf.prototxt");
    const char *path =
        sac_test_data("cifar10_models/resnet20/cifar10_ResNet_20_iter_53500.caffemodel");
    struct sac_weights_report report = {0};
    struct sac_error err = {0};

    (void)state;
    assert_blob_is(net, "conv2_Eltwise_3", "1x16x32x32");
    assert_blob_is(net, "conv3_Eltwise_3", "1x32x16x16");
    assert_blob_is(net, "conv4_Eltwise_3", "1x64x8x8");
    assert_blob_is(net, "fc1", "1x10");
    assert_ok(sac_net_load_weights(net, path, &report, &err), err);
    assert_int_equal(report.layers_copied, 21 + 21 + 21 + 1);
    assert_int_equal(report.layers_missing, 0);
    sac_net_free(net);
}

static void weights_of_another_net_are_refused_and_change_nothing(void **state)
{
    struct sac_net *net = load("cifar10_models/cifar10_quick.prototxt");
    const char *path = sac_test_data("cifar10_models/cifar10_full_iter_70000.caffemodel");
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_net_load_weights(net, path, NULL, &err), SAC_EFORMAT);
    assert_says(err, "cifar10_full_iter_70000.caffemodel: layer \"ip1\" (InnerProduct)");
    assert_says(err, "10 × 1024");
    assert_says(err, "64 × 1024");
    for (int i = 0; i < sac_net_layer_count(net); i++) {
        const struct sac_layer *layer = sac_net_layer(net, i);
        struct sac_shape shape;
        for (int k = 0; k < sac_layer_weight_count(layer); k++)
            assert_true(sac_layer_weight(layer, k, &shape)[0] == 0);
    }
    sac_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alexnet_and_caffenet),
        cmocka_unit_test(googlenet),
        cmocka_unit_test(vgg),
        cmocka_unit_test(network_in_network),
        cmocka_unit_test(resnet_and_mobilenet),
        cmocka_unit_test(squeezenet),
        cmocka_unit_test(lenet_and_cifar10),
        cmocka_unit_test(a_net_over_a_database_takes_its_shape_from_the_caller),
        cmocka_unit_test(weights_of_v1_and_current_files_are_copied),
        cmocka_unit_test(resnet20_takes_its_weights),
        cmocka_unit_test(weights_of_another_net_are_refused_and_change_nothing),
    };
    return cmocka_run_group_tests_name("published nets", tests, NULL, NULL);
}
