/*
 * What layers compute, from prototxt to numbers, on the plain loops and on the
 * kernels that a device chooses: single layers against the formula in their file,
 * SqueezeNet against the probabilities that Caffe gave. (Caffe's outputs of single
 * layers: test_plan_net.c.)
 */
#include "net/net_support.h"
#include "net/rig.h"

#include <math.h>

#include "base/file.h"
#include "image/preprocess.h"

/* ---- Single layers by formula: 2 × 4 × 3 × 5 in, any shape out ---- */

enum { N = 2, C = 4, H = 3, W = 5, PLANES = N * C, PLANE = H * W, COUNT = PLANES * PLANE };

static float in_value(int64_t i) /* −1.5 to 1.5, no two neighbours alike */
{
    return (float)((i * 37 + 11) % 61) / 20.0f - 1.5f;
}

static float weight_value(int weight, int64_t i)
{
    return 0.25f + (float)((i * 13 + weight * 5) % 17) / 16.0f;
}

static int channel(int64_t i)
{
    return (int)(i / PLANE % C);
}

struct formula_case {
    const char *layers; /* the last makes "y" */
    double (*expected)(int64_t i);
    int64_t count;
};

static double relu(int64_t i)
{
    return in_value(i) < 0 ? 0.25 * in_value(i) : in_value(i);
}

static double prelu(int64_t i)
{
    return in_value(i) < 0 ? weight_value(0, channel(i)) * in_value(i) : in_value(i);
}

static double sigmoid(int64_t i)
{
    return 1 / (1 + exp(-in_value(i)));
}

static double hyperbolic(int64_t i)
{
    return tanh(in_value(i));
}

static double elu(int64_t i)
{
    return in_value(i) < 0 ? 2 * (exp(in_value(i)) - 1) : in_value(i);
}

static double power(int64_t i)
{
    return pow(0.5 * in_value(i) + 3, 2);
}

static double identity(int64_t i)
{
    return in_value(i);
}

static double scale_and_shift(int64_t i)
{
    return in_value(i) * weight_value(0, channel(i)) + weight_value(1, channel(i));
}

static double shift_along_width(int64_t i)
{
    return in_value(i) + weight_value(0, i % W);
}

static double batch_norm(int64_t i)
{
    double s = weight_value(2, 0);

    return (in_value(i) - weight_value(0, channel(i)) / s) /
           sqrt(weight_value(1, channel(i)) / s + 0.5);
}

static double difference_of_powers(int64_t i)
{
    return 2 * in_value(i) - 3 * in_value(i) * in_value(i);
}

static double product(int64_t i)
{
    return pow(in_value(i), 3);
}

static double larger(int64_t i)
{
    return fmax(in_value(i), -in_value(i));
}

/* Channels 1 to 3, then channel 0. */
static double rotated(int64_t i)
{
    int c = (channel(i) + 1) % C;

    return in_value(i - (int64_t)channel(i) * PLANE + (int64_t)c * PLANE);
}

static double inner_product_of_planes(int64_t i) /* N × C planes of H · W, 2 out */
{
    double sum = weight_value(1, i % 2);

    for (int k = 0; k < PLANE; k++)
        sum += (double)in_value(i / 2 * PLANE + k) * weight_value(0, i % 2 * PLANE + k);
    return sum;
}

static double inner_product_transposed(int64_t i) /* the same from [H · W, 2] */
{
    double sum = weight_value(1, i % 2);

    for (int k = 0; k < PLANE; k++)
        sum += (double)in_value(i / 2 * PLANE + k) * weight_value(0, (int64_t)k * 2 + i % 2);
    return sum;
}

static double inner_product_of_rows(int64_t i) /* N × C × H rows of W, 2 out */
{
    double sum = weight_value(1, i % 2);

    for (int k = 0; k < W; k++)
        sum += (double)in_value(i / 2 * W + k) * weight_value(0, i % 2 * W + k);
    return sum;
}

static double softmax_of_rows(int64_t i)
{
    double sum = 0;

    for (int k = 0; k < W; k++)
        sum += exp(in_value(i / W * W + k));
    return exp(in_value(i)) / sum;
}

/* Two groups of two channels to one each, 1 × 1, stride 2 × 2: N × 2 × 2 × 3. */
static double grouped_convolution(int64_t i)
{
    int64_t n = i / 12, o = i / 6 % 2, y = i / 3 % 2, x = i % 3;
    double sum = weight_value(1, o);

    for (int64_t k = 0; k < 2; k++)
        sum += (double)in_value((n * C + o * 2 + k) * PLANE + y * 2 * W + x * 2) *
               weight_value(0, o * 2 + k);
    return sum;
}

/* A filter of 2 × 2 with stride 2 a channel: each number spreads over its square. */
static double deconvolution(int64_t i)
{
    int64_t x = i % (2 * W), y = i / (2 * W) % (2 * H), c = i / (4 * PLANE) % C;
    int64_t n = i / (4 * PLANE * C);

    return (double)in_value((n * C + c) * PLANE + y / 2 * W + x / 2) *
           weight_value(0, c * 4 + y % 2 * 2 + x % 2);
}

static double maximum_of_overhanging_windows(int64_t i) /* 2 × 2 over 2: N × C × 2 × 3 */
{
    int64_t plane = i / 6, y = i / 3 % 2 * 2, x = i % 3 * 2;
    double most = -INFINITY;

    for (int64_t v = y; v < y + 2 && v < H; v++)
        for (int64_t u = x; u < x + 2 && u < W; u++)
            most = fmax(most, in_value(plane * PLANE + v * W + u));
    return most;
}

#define ONE(type, rest) "layer { name: 'it' type: '" type "' bottom: 'x' top: 'y' " rest " }"

static const struct formula_case cases[] = {
    {ONE("ReLU", "relu_param { negative_slope: .25 }"), relu, COUNT},
    {ONE("PReLU", ""), prelu, COUNT},
    {ONE("Sigmoid", ""), sigmoid, COUNT},
    {ONE("TanH", ""), hyperbolic, COUNT},
    {ONE("ELU", "elu_param { alpha: 2 }"), elu, COUNT},
    {ONE("Power", "power_param { power: 2 scale: .5 shift: 3 }"), power, COUNT},
    {ONE("Dropout", "dropout_param { dropout_ratio: .9 }"), identity, COUNT},
    {ONE("Flatten", "flatten_param { axis: 2 }"), identity, COUNT},
    {ONE("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 10 } }"), identity, COUNT},
    {ONE("Scale", "scale_param { bias_term: true }"), scale_and_shift, COUNT},
    {ONE("Bias", "bias_param { axis: -1 }"), shift_along_width, COUNT},
    {ONE("BatchNorm", "batch_norm_param { eps: .5 }"), batch_norm, COUNT},
    {"layer { name: 'p' type: 'Power' bottom: 'x' top: 'p' power_param { power: 2 } }"
     "layer { name: 'it' type: 'Eltwise' bottom: 'x' bottom: 'p' top: 'y' "
     "eltwise_param { coeff: 2 coeff: -3 } }",
     difference_of_powers, COUNT},
    {"layer { name: 'it' type: 'Eltwise' bottom: 'x' bottom: 'x' bottom: 'x' top: 'y' "
     "eltwise_param { operation: PROD } }",
     product, COUNT},
    {"layer { name: 'm' type: 'Power' bottom: 'x' top: 'm' power_param { scale: -1 } }"
     "layer { name: 'it' type: 'Eltwise' bottom: 'x' bottom: 'm' top: 'y' "
     "eltwise_param { operation: MAX } }",
     larger, COUNT},
    {"layer { name: 's' type: 'Slice' bottom: 'x' top: 'a' top: 'b' slice_param { slice_point: 1 } "
     "}"
     "layer { name: 'it' type: 'Concat' bottom: 'b' bottom: 'a' top: 'y' "
     "concat_param { axis: -3 } }",
     rotated, COUNT},
    {"layer { name: 's' type: 'Split' bottom: 'x' top: 'a' top: 'b' }"
     "layer { name: 't' type: 'Power' bottom: 'a' top: 'a' power_param { power: 2 } }"
     "layer { name: 'it' type: 'Eltwise' bottom: 'b' bottom: 'a' top: 'y' "
     "eltwise_param { coeff: 2 coeff: -3 } }",
     difference_of_powers, COUNT},
    {ONE("InnerProduct", "inner_product_param { num_output: 2 axis: 2 }"), inner_product_of_planes,
     PLANES * 2},
    {ONE("InnerProduct", "inner_product_param { num_output: 2 axis: -2 transpose: true }"),
     inner_product_transposed, PLANES * 2},
    {ONE("InnerProduct", "inner_product_param { num_output: 2 axis: -1 }"), inner_product_of_rows,
     PLANES *H * 2},
    {ONE("Softmax", "softmax_param { axis: -1 }"), softmax_of_rows, COUNT},
    {ONE("Convolution", "convolution_param { num_output: 2 group: 2 kernel_size: 1 stride: 2 }"),
     grouped_convolution, N * 2 * 2 * 3},
    {ONE("Deconvolution", "convolution_param { num_output: 4 group: 4 kernel_size: 2 stride: 2 "
                          "bias_term: false }"),
     deconvolution, COUNT * 4},
    {ONE("Pooling", "pooling_param { kernel_size: 2 stride: 2 }"), maximum_of_overhanging_windows,
     PLANES * 2 * 3},
};

/* The net's memory is calloc'ed: a test may write to it. */
static void fill_weights(const struct sac_net *net)
{
    const struct sac_layer *it = sac_net_layer(net, sac_net_layer_count(net) - 1);

    for (int k = 0; k < sac_layer_weight_count(it); k++) {
        struct sac_shape shape;
        float *data = (float *)(uintptr_t)sac_layer_weight(it, k, &shape);
        for (int64_t i = 0; i < sac_shape_count(&shape); i++)
            data[i] = weight_value(k, i);
    }
}

static struct sac_plan *plan_of(struct rig *rig, const struct sac_net *net,
                                const struct sac_plan_options *options)
{
    struct sac_plan *plan = NULL;
    struct sac_error err = {0};

    assert_ok(sac_plan_new(&plan, net, rig->device, rig->store, rig->stream, options, &err), err);
    return plan;
}

static void check_formula(const struct formula_case *one, bool reference)
{
    struct sac_plan_options options = {.ops.reference = reference};
    struct rig rig = rig_open();
    char text[1024];
    int64_t count;

    snprintf(text, sizeof text,
             "layer { name: 'x' type: 'Input' top: 'x' input_param { shape { dim: %d dim: %d "
             "dim: %d dim: %d } } } %s",
             N, C, H, W, one->layers);
    struct sac_net *net = net_of(text);
    fill_weights(net);
    struct sac_plan *plan = plan_of(&rig, net, &options);
    float *input = sac_plan_input(plan, 0)->data;
    for (int64_t i = 0; i < COUNT; i++)
        input[i] = in_value(i);
    rig_forward(&rig, plan);
    const float *output = rig_output(plan, 0, &count);
    assert_int_equal(count, one->count);
    for (int64_t i = 0; i < count; i++) {
        double expected = one->expected(i);
        if (!(fabs(output[i] - expected) < 1e-5))
            fail_msg("%s, reference %d: number %lld is %.7g and not %.7g", one->layers, reference,
                     (long long)i, (double)output[i], expected);
    }
    sac_plan_free(plan);
    sac_net_free(net);
    rig_close(&rig);
}

static void layers_compute_their_formulas(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_formula(&cases[i], true);
        check_formula(&cases[i], false);
    }
}

/* ---- SqueezeNet as Caffe computed it ---- */

static struct sac_net *squeezenet(void)
{
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    assert_ok(sac_net_load(&net, sac_test_data("squeezenet_v1.1/deploy.prototxt"), NULL, &err),
              err);
    assert_ok(sac_net_load_weights(net, sac_test_data("squeezenet_v1.1/squeezenet_v1.1.caffemodel"),
                                   NULL, &err),
              err);
    return net;
}

static void put_picture(uint8_t *pixels)
{
    struct sac_preprocess how = sac_preprocess_default(3, 227, 227);
    struct sac_decoder *decoder = NULL;
    struct sac_error err = {0};
    uint8_t *bytes = NULL;
    size_t size = 0;

    assert_ok(sac_file_read(sac_test_data("layers/squeezenet_v1.1/googlenet_0.png"), 1 << 24,
                            &bytes, &size, &err),
              err);
    assert_ok(sac_decoder_new(&decoder, &err), err);
    assert_ok(sac_preprocess_pixels(&how, decoder, bytes, size, NULL, pixels, &err), err);
    sac_decoder_free(decoder);
    free(bytes);
}

static void check_probabilities(const struct sac_net *net, bool reference)
{
    static const union sac_op_param pixels = {.pixels = {.scale = 1}}; /* R, G, B, no mean */
    struct sac_plan_options options = {.batch = 1, .ops.reference = reference, .pixels = &pixels};
    struct rig rig = rig_open();
    struct sac_plan *plan = plan_of(&rig, net, &options);
    int64_t dim[8], count;
    double sum = 0;
    int rank;

    put_picture(sac_plan_input(plan, 0)->data);
    rig_forward(&rig, plan);
    float *expected = sac_test_load_npy(
        sac_test_data("layers/squeezenet_v1.1/squeezenet_v1.1_prob.npy"), dim, &rank);
    const float *output = rig_output(plan, 0, &count);
    assert_int_equal(count, 1000);
    for (int64_t i = 0; i < count; i++)
        sum += fabs((double)output[i] - expected[i]);
    double most = sac_test_max_difference(output, expected, (size_t)count);
    /* The tolerance that comes with the data. */
    if (!(sum / 1000 < 1e-5 && most < 4e-3))
        fail_msg("reference %d: off by %g in the mean and %g at most", reference, sum / 1000, most);
    print_message("# reference %d: off by %g in the mean and %g at most\n", reference, sum / 1000,
                  most);
    free(expected);
    sac_plan_free(plan);
    rig_close(&rig);
}

static void squeezenet_gives_caffes_probabilities(void **state)
{
    struct sac_net *net = squeezenet();

    (void)state;
    check_probabilities(net, true);
    check_probabilities(net, false);
    sac_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_compute_their_formulas),
        cmocka_unit_test(squeezenet_gives_caffes_probabilities),
    };
    return cmocka_run_group_tests_name("layer outputs", tests, NULL, NULL);
}
