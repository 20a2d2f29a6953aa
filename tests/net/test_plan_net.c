/*
 * Plans of nets from files, on the CPU device: against what Caffe itself gave for
 * single layers, and against the layers as they stand for whole nets.
 */
#include "net/net_support.h"
#include "net/rig.h"

#include <math.h>

static struct sac_plan *plan_net(struct rig *rig, const struct sac_net *net,
                                 const struct sac_plan_options *options)
{
    struct sac_plan *plan = NULL;
    struct sac_error err = {0};

    assert_ok(sac_plan_new(&plan, net, rig->device, rig->store, rig->stream, options, &err), err);
    return plan;
}

static struct sac_net *load_net(const char *prototxt, const char *weights)
{
    struct sac_net_options options = {.phase = SAC_PHASE_TEST};
    struct sac_weights_report report;
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    assert_ok(sac_net_load(&net, sac_test_data(prototxt), &options, &err), err);
    if (weights) {
        assert_ok(sac_net_load_weights(net, sac_test_data(weights), &report, &err), err);
        assert_int_equal(report.layers_missing, 0);
    }
    return net;
}

/* ---- Single layers, by Caffe ---------------------------------------------- */

static void check_layer(const char *name, bool weights, bool reference)
{
    char prototxt[128], caffemodel[128], npy[128];
    struct rig rig = rig_open();
    struct sac_plan_options options = {.ops.reference = reference};
    int64_t dim[8], count, expected_count = 1;
    struct sac_error err = {0};
    int rank;

    snprintf(prototxt, sizeof prototxt, "layers/layer_%s.prototxt", name);
    snprintf(caffemodel, sizeof caffemodel, "layers/layer_%s.caffemodel", name);
    snprintf(npy, sizeof npy, "layers/layer_%s.npy", name);
    struct sac_net *net = load_net(prototxt, weights ? caffemodel : NULL);
    float *blob = sac_test_load_npy(sac_test_data("layers/blob.npy"), dim, &rank);
    struct sac_shape shape = {.rank = rank};
    memcpy(shape.dim, dim, sizeof dim);
    assert_ok(sac_net_reshape(net, 0, &shape, &err), err);
    struct sac_plan *plan = plan_net(&rig, net, &options);
    assert_true(sac_shape_equal(&sac_plan_input(plan, 0)->shape, &shape));
    memcpy(sac_plan_input(plan, 0)->data, blob, (size_t)sac_shape_count(&shape) * sizeof *blob);
    rig_forward(&rig, plan);
    float *expected = sac_test_load_npy(sac_test_data(npy), dim, &rank);
    for (int i = 0; i < rank; i++)
        expected_count *= dim[i];
    const float *got = rig_output(plan, 0, &count);
    assert_int_equal(count, expected_count);
    double d = sac_test_max_difference(got, expected, (size_t)count);
    if (!(d < 1e-4)) /* the data's own tolerance */
        fail_msg("layer %s, reference %d: off by %g", name, reference, d);
    free(expected);
    free(blob);
    sac_plan_free(plan);
    sac_net_free(net);
    rig_close(&rig);
}

#define LAYER(name, weights)                                                                       \
    static void name##_gives_what_caffe_gave(void **state)                                         \
    {                                                                                              \
        (void)state;                                                                               \
        check_layer(#name, weights, true);                                                         \
        check_layer(#name, weights, false);                                                        \
    }

LAYER(convolution, true)
LAYER(inner_product, true)
LAYER(lrn_channels, false)
LAYER(lrn_spatial, false)
LAYER(pooling_ave, false)
LAYER(pooling_max, false)
LAYER(relu, false)
LAYER(softmax, false)

/* ---- Whole nets ----------------------------------------------------------- */

/* ret: the largest difference of an output between two ways to run a net. */
static double net_difference(const struct sac_net *net, int batch, const char *wanted,
                             enum sac_precision precision)
{
    struct rig rig = rig_open();
    struct sac_plan_options slow = {
        .batch = batch, .ops.reference = true, .wanted = &wanted, .wanted_count = 1};
    struct sac_plan_options fast = slow;
    int64_t count, other;

    fast.ops = (struct sac_op_options){.precision = precision};
    struct sac_plan *a = plan_net(&rig, net, &fast), *b = plan_net(&rig, net, &slow);
    assert_int_equal(sac_plan_batch(a), batch);
    rig_run(&rig, a, 9);
    rig_run(&rig, b, 9);
    const float *x = rig_output(a, 0, &count), *y = rig_output(b, 0, &other);
    assert_int_equal(count, other);
    double d = sac_test_max_difference(x, y, (size_t)count);
    print_message("# %s, %s, %s: %d steps for %d, arena %zu for %zu bytes, off by %g\n",
                  sac_net_name(net), wanted, sac_precision_name(precision), sac_plan_step_count(a),
                  sac_plan_step_count(b), sac_plan_memory_bytes(a), sac_plan_memory_bytes(b), d);
    sac_plan_free(a);
    sac_plan_free(b);
    rig_close(&rig);
    return d;
}

/* 19 convolutions with BatchNorm and Scale, and shortcuts; trained weights. */
static void a_folded_resnet_gives_what_its_layers_give(void **state)
{
    const char *folder = "cifar10_models/resnet20/";
    char prototxt[128], weights[128];

    (void)state;
    snprintf(prototxt, sizeof prototxt, "%sdeploy_cifar10_resnet_20_ljf.prototxt", folder);
    snprintf(weights, sizeof weights, "%scifar10_ResNet_20_iter_53500.caffemodel", folder);
    struct sac_net *net = load_net(prototxt, weights);
    const char *last = sac_net_output_name(net, sac_net_output_count(net) - 1);
    assert_true(net_difference(net, 2, last, SAC_PRECISION_F32) < 1e-4);
    assert_true(net_difference(net, 2, last, SAC_PRECISION_BF16) < 0.1);
    sac_net_free(net);
}

static void cifar10_quick_gives_what_its_layers_give(void **state)
{
    struct sac_net *net = load_net("cifar10_models/cifar10_quick.prototxt",
                                   "cifar10_models/cifar10_quick_iter_5000.caffemodel");

    (void)state;
    assert_true(net_difference(net, 3, "ip2", SAC_PRECISION_F32) < 1e-4);
    sac_net_free(net);
}

static void squeezenet_gives_what_its_layers_give(void **state)
{
    struct sac_net *net =
        load_net("squeezenet_v1.1/deploy.prototxt", "squeezenet_v1.1/squeezenet_v1.1.caffemodel");

    (void)state;
    assert_true(net_difference(net, 1, "pool10", SAC_PRECISION_F32) < 1e-4);
    sac_net_free(net);
}

/* ---- What the options ask of a net ---------------------------------------- */

/* Many published nets have no name. */
static void a_net_without_a_name_is_told_as_such(void **state)
{
    struct sac_net *net = net_of("input: 'data' input_shape { dim: 1 dim: 3 }"
                                 "layer { name: 'relu' type: 'ReLU' bottom: 'data' top: 'x' }");
    struct sac_plan_options options = {.topk = 4};
    struct rig rig = rig_open();
    struct sac_plan *plan = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_plan_new(&plan, net, rig.device, rig.store, rig.stream, &options, &err),
                     SAC_EINVAL);
    assert_string_equal(err.text, "net (no name): top 4 of blob x: it has only 3 values a picture");
    sac_net_free(net);
    rig_close(&rig);
}

static const char two_ends[] =
    "name: 'ends'"
    "input: 'data' input_shape { dim: 4 dim: 3 }"
    "input: 'label' input_shape { dim: 4 }"
    "layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc'"
    "  inner_product_param { num_output: 5 } }"
    "layer { name: 'relu' type: 'ReLU' bottom: 'fc' top: 'fc' }"
    "layer { name: 'aside' type: 'Sigmoid' bottom: 'data' top: 'aside' }"
    "layer { name: 'prob' type: 'Softmax' bottom: 'fc' top: 'prob' }"
    "layer { name: 'accuracy' type: 'Accuracy' bottom: 'prob' bottom: 'label' top: 'accuracy' }";

static void topk_comes_first_and_wanted_blobs_behind(void **state)
{
    const char *wanted[] = {"fc", "aside"};
    struct sac_plan_options options = {.batch = 2, .topk = 3, .wanted = wanted, .wanted_count = 2};
    struct sac_net *net = net_of(two_ends);
    struct rig rig = rig_open();
    struct sac_plan *plan = plan_net(&rig, net, &options);

    (void)state;
    assert_int_equal(sac_plan_output_count(plan), 3);
    assert_int_equal(sac_plan_output(plan, 0)->form.type, SAC_TOPK_PAIR);
    assert_int_equal(sac_plan_output(plan, 0)->shape.dim[1], 3);
    assert_int_equal(sac_plan_output(plan, 1)->shape.dim[1], 5);
    assert_int_equal(sac_plan_output(plan, 2)->shape.dim[1], 3);
    rig_run(&rig, plan, 4);
    /* Weights of zero: five equal probabilities, ties to the lower index. */
    const struct sac_topk_pair *pairs = sac_plan_output(plan, 0)->data;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pairs[i].index, i);
        assert_true(fabsf(pairs[i].value - 0.2f) < 1e-6f);
    }
    sac_plan_free(plan);
    sac_net_free(net);
    rig_close(&rig);
}

static void topk_alone_leaves_out_what_it_does_not_need(void **state)
{
    struct sac_plan_options options = {.batch = 2, .topk = 1};
    struct sac_net *net = net_of(two_ends);
    struct rig rig = rig_open();
    struct sac_plan *plan = plan_net(&rig, net, &options);
    struct sac_plan_step step;

    (void)state;
    assert_int_equal(sac_plan_output_count(plan), 1);
    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        sac_plan_step(plan, i, &step);
        assert_int_not_equal(step.kind, SAC_OP_SIGMOID);
    }
    assert_int_equal(sac_plan_batch(plan), 2);
    sac_plan_free(plan);
    sac_net_free(net);
    rig_close(&rig);
}

static void a_wanted_blob_that_is_not_there_is_told_with_the_nets_name(void **state)
{
    const char *wanted = "nonesuch";
    struct sac_net *net = net_of(two_ends);
    struct rig rig = rig_open();

    (void)state;
    for (int topk = 0; topk <= 1; topk++) {
        struct sac_plan_options options = {.topk = topk, .wanted = &wanted, .wanted_count = 1};
        struct sac_plan *plan = NULL;
        struct sac_error err = {0};
        assert_int_equal(
            sac_plan_new(&plan, net, rig.device, rig.store, rig.stream, &options, &err),
            SAC_ENOENT);
        assert_null(plan);
        assert_says(err, "net ends");
        assert_says(err, "nonesuch");
    }
    sac_net_free(net);
    rig_close(&rig);
}

/* ---- Losses of judged plans ------------------------------------------------ */

/* Inputs of zeros: labels are class 0, and products are their biases. */
static double loss_of(const char *text, enum sac_precision precision)
{
    struct sac_plan_options options = {.judged = true, .ops.precision = precision};
    struct sac_net *net = net_of(text);
    struct rig rig = rig_open();
    struct sac_error err = {0};
    double loss = 0;

    assert_ok(sac_net_fill(net, 1, &err), err);
    struct sac_plan *plan = plan_net(&rig, net, &options);
    for (int i = 0; i < sac_plan_input_count(plan); i++) {
        const struct sac_tensor *input = sac_plan_input(plan, i);
        memset(input->data, 0, sac_tensor_bytes(&input->shape, input->form.type));
    }
    rig_forward(&rig, plan);
    assert_ok(sac_plan_loss_sum(plan, &loss, &err), err);
    sac_plan_free(plan);
    sac_net_free(net);
    rig_close(&rig);
    return loss;
}

static void assert_loss(const char *text, double expected)
{
    double f32 = loss_of(text, SAC_PRECISION_F32), bf16 = loss_of(text, SAC_PRECISION_BF16);

    if (!(fabs(f32 - expected) < 1e-4) || !(fabs(bf16 - expected) < 1e-2 * fabs(expected)))
        fail_msg("%s: %g in f32, %g in bf16, expected %g", text, f32, bf16, expected);
}

/* Weights of zero: all of 5 classes are as likely, −ln(1/5). */
static void a_loss_that_has_no_top_is_computed(void **state)
{
    (void)state;
    assert_loss("input: 'data' input_shape { dim: 4 dim: 3 } input: 'label' input_shape { dim: 4 }"
                "layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc'"
                "  inner_product_param { num_output: 5 } }"
                "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' }",
                log(5));
}

#define DATA "input: 'data' input_shape { dim: 2 dim: 16 dim: 3 dim: 3 }"
#define CONV(name, bottom, more)                                                                   \
    "layer { name: '" name "' type: 'Convolution' bottom: '" bottom "' top: '" name "' " more      \
    "  convolution_param { num_output: 4 kernel_size: 1"                                           \
    "    bias_filler { type: 'constant' value: -1.5 } } }"

/* 2 · 4 · 3 · 3 numbers of the bias, −1.5, each weighing 2. */
enum { NUMBERS = 2 * 4 * 3 * 3 };

static void a_loss_on_what_a_relu_reads_is_of_what_it_reads(void **state)
{
    (void)state;
    assert_loss(
        DATA CONV(
            "conv", "data",
            "loss_weight: 2") "layer { name: 'relu' type: 'ReLU' bottom: 'conv' top: 'conv' }",
        2 * -1.5 * NUMBERS);
    assert_loss("input: 'data' input_shape { dim: 2 dim: 3 }"
                "layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc' loss_weight: 2"
                "  inner_product_param { num_output: 5 bias_filler { type: 'constant' value: -1.5 }"
                "  } }"
                "layer { name: 'relu' type: 'ReLU' bottom: 'fc' top: 'fc' }",
                2 * -1.5 * 2 * 5);
}

static void a_loss_on_what_is_summed_or_scaled_is_of_what_went_in(void **state)
{
    (void)state;
    assert_loss(DATA CONV("a", "data", "")
                    CONV("b", "data", "loss_weight: 2") "layer { name: 'sum' type: 'Eltwise' "
                                                        "bottom: 'a' bottom: 'b' top: 'sum' }",
                2 * -1.5 * NUMBERS);
    assert_loss(
        DATA CONV("conv", "data",
                  "loss_weight: 2") "layer { name: 'scale' type: 'Scale' bottom: 'conv' top: 'conv'"
                                    "  scale_param { filler { type: 'constant' value: 3 } } }",
        2 * -1.5 * NUMBERS);
}

static void a_loss_on_a_dropout_is_of_what_goes_through_it(void **state)
{
    (void)state;
    assert_loss(
        DATA CONV(
            "conv", "data",
            "") "layer { name: 'drop' type: 'Dropout' bottom: 'conv' top: 'drop' loss_weight: 2 }",
        2 * -1.5 * NUMBERS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution_gives_what_caffe_gave),
        cmocka_unit_test(inner_product_gives_what_caffe_gave),
        cmocka_unit_test(lrn_channels_gives_what_caffe_gave),
        cmocka_unit_test(lrn_spatial_gives_what_caffe_gave),
        cmocka_unit_test(pooling_ave_gives_what_caffe_gave),
        cmocka_unit_test(pooling_max_gives_what_caffe_gave),
        cmocka_unit_test(relu_gives_what_caffe_gave),
        cmocka_unit_test(softmax_gives_what_caffe_gave),
        cmocka_unit_test(a_folded_resnet_gives_what_its_layers_give),
        cmocka_unit_test(cifar10_quick_gives_what_its_layers_give),
        cmocka_unit_test(squeezenet_gives_what_its_layers_give),
        cmocka_unit_test(a_net_without_a_name_is_told_as_such),
        cmocka_unit_test(topk_comes_first_and_wanted_blobs_behind),
        cmocka_unit_test(topk_alone_leaves_out_what_it_does_not_need),
        cmocka_unit_test(a_wanted_blob_that_is_not_there_is_told_with_the_nets_name),
        cmocka_unit_test(a_loss_that_has_no_top_is_computed),
        cmocka_unit_test(a_loss_on_what_a_relu_reads_is_of_what_it_reads),
        cmocka_unit_test(a_loss_on_what_is_summed_or_scaled_is_of_what_went_in),
        cmocka_unit_test(a_loss_on_a_dropout_is_of_what_goes_through_it),
    };
    return cmocka_run_group_tests_name("plan_net", tests, NULL, NULL);
}
