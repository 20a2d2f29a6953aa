/* What the CPU device fuses, and that fused graphs compute the same. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "device/cpu/kernel.h"
#include "device/device.h"

static struct sac_device *device;
static const struct sac_shape shape = {4, {1, 8, 5, 5}};
static float weights[8 * 8], zeros[8];

static int open_device(void **state)
{
    (void)state;
    for (int i = 0; i < 64; i++)
        weights[i] = (float)(i * 37 % 16 - 8) / 8;
    return sac_device_open(&device, "cpu", NULL);
}

static int close_device(void **state)
{
    (void)state;
    sac_device_close(device);
    return 0;
}

static struct sac_graph *graph_of(int *input)
{
    struct sac_error err = {0};
    struct sac_graph *graph;

    assert_ok(sac_graph_new(&graph, &err), err);
    *input = sac_graph_add_value(graph, "data", &shape);
    sac_graph_set_inputs(graph, input, 1);
    return graph;
}

/* Adds a node of one result and returns the value. */
static int add(struct sac_graph *graph, enum sac_op_kind kind, const char *name, int a, int b)
{
    int value = sac_graph_add_value(graph, name, &shape);
    struct sac_node *node = sac_graph_add_node(graph, kind, name, b < 0 ? 1 : 2, 1);

    node->src[0] = a;
    if (b >= 0)
        node->src[1] = b;
    node->dst[0] = value;
    if (kind == SAC_OP_ELTWISE)
        node->param.eltwise.method = SAC_ELTWISE_SUM;
    if (kind == SAC_OP_BATCHNORM || kind == SAC_OP_SCALE) {
        const struct sac_shape each = {1, {8}}, one = {1, {1}};
        node->weight_count = kind == SAC_OP_SCALE ? 2 : 3;
        for (int i = 0; i < node->weight_count; i++)
            node->weight[i] = sac_graph_add_constant(graph, name, i == 2 ? &one : &each, weights);
        if (kind == SAC_OP_SCALE)
            node->param.scale.axis = node->param.scale.num_axes = 1;
    }
    if (kind == SAC_OP_CONV) {
        const struct sac_shape filter = {4, {8, 8, 1, 1}}, bias = {1, {8}};
        node->param.conv.window = (struct sac_window){{1, 1}, {1, 1}, {0, 0}, {1, 1}};
        node->param.conv.group = 1;
        node->weight_count = 2;
        node->weight[0] = sac_graph_add_constant(graph, "filter", &filter, weights);
        node->weight[1] = sac_graph_add_constant(graph, "bias", &bias, zeros);
    }
    return value;
}

static void lower(struct sac_graph *graph, const int *outputs, int count)
{
    struct sac_op_options options = {0};
    struct sac_error err = {0};

    sac_graph_set_outputs(graph, outputs, count);
    assert_ok(device->table->lower(device, graph, &options, &err), err);
}

static void relu_goes_into_the_convolution_before_it(void **state)
{
    int in;
    struct sac_graph *graph = graph_of(&in);
    int conv = add(graph, SAC_OP_CONV, "conv1", in, -1);
    int relu = add(graph, SAC_OP_RELU, "relu1", conv, -1);

    (void)state;
    graph->nodes[1].param.relu.slope = .25f;
    lower(graph, &relu, 1);
    assert_int_equal(graph->node_count, 1);
    assert_string_equal(graph->nodes[0].name, "conv1+relu1");
    assert_true(graph->nodes[0].epilogue.relu);
    assert_true(graph->nodes[0].epilogue.slope == .25f);
    assert_int_equal(graph->nodes[0].dst[0], relu);
    assert_int_equal(sac_graph_producer(graph, conv), -1);
    sac_graph_free(graph);
}

static void relu_stays_where_its_source_is_used_again(void **state)
{
    int in;
    struct sac_graph *graph = graph_of(&in);
    int conv = add(graph, SAC_OP_CONV, "conv1", in, -1);
    int outputs[] = {add(graph, SAC_OP_RELU, "relu1", conv, -1), conv};

    (void)state;
    lower(graph, outputs, 2);
    assert_int_equal(graph->node_count, 2);
    assert_false(graph->nodes[0].epilogue.relu);
    sac_graph_free(graph);
}

/* As in ResNet: the shortcut is there first, the branch's last convolution adds it. */
static void a_sum_and_its_relu_go_into_the_later_convolution(void **state)
{
    int in;
    struct sac_graph *graph = graph_of(&in);
    int shortcut = add(graph, SAC_OP_CONV, "branch1", in, -1);
    int branch = add(graph, SAC_OP_CONV, "branch2", in, -1);
    int sum = add(graph, SAC_OP_ELTWISE, "sum", shortcut, branch);
    int relu = add(graph, SAC_OP_RELU, "relu", sum, -1);

    (void)state;
    lower(graph, &relu, 1);
    assert_int_equal(graph->node_count, 2);
    assert_string_equal(graph->nodes[0].name, "branch1");
    assert_int_equal(graph->nodes[0].epilogue.sum, -1);
    assert_string_equal(graph->nodes[1].name, "branch2+sum+relu");
    assert_int_equal(graph->nodes[1].epilogue.sum, shortcut);
    assert_true(graph->nodes[1].epilogue.relu);
    assert_int_equal(graph->nodes[1].dst[0], relu);
    sac_graph_free(graph);
}

static void lower_for_training(struct sac_graph *graph, const int *outputs, int count)
{
    struct sac_op_options options = {.training = true};
    struct sac_error err = {0};

    sac_graph_set_outputs(graph, outputs, count);
    assert_ok(device->table->lower(device, graph, &options, &err), err);
}

static void a_batch_norm_does_its_scale_and_relu_in_training(void **state)
{
    int in;
    struct sac_graph *graph = graph_of(&in);
    int norm = add(graph, SAC_OP_BATCHNORM, "bn", in, -1);
    int scale = add(graph, SAC_OP_SCALE, "scale", norm, -1);
    int relu = add(graph, SAC_OP_RELU, "relu", scale, -1);

    (void)state;
    graph->nodes[1].weight_grad[1] = true;
    lower_for_training(graph, &relu, 1);
    assert_int_equal(graph->node_count, 1);
    assert_string_equal(graph->nodes[0].name, "bn+scale+relu");
    assert_int_equal(graph->nodes[0].weight_count, 5);
    assert_false(graph->nodes[0].weight_grad[3]);
    assert_true(graph->nodes[0].weight_grad[4]);
    assert_true(graph->nodes[0].epilogue.relu);
    assert_int_equal(graph->nodes[0].dst[0], relu);
    sac_graph_free(graph);
}

/* What is normalised is a loss, or read by others too: it has to be there. */
static void a_batch_norm_that_others_see_stays_alone(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        int in;
        struct sac_graph *graph = graph_of(&in);
        int norm = add(graph, SAC_OP_BATCHNORM, "bn", in, -1);
        int outputs[] = {add(graph, SAC_OP_SCALE, "scale", norm, -1), norm};
        if (i == 0)
            assert_int_equal(sac_graph_add_loss(graph, norm, 1), 0);
        lower_for_training(graph, outputs, i + 1);
        assert_int_equal(graph->node_count, 2);
        assert_int_equal(graph->nodes[0].weight_count, 3);
        sac_graph_free(graph);
    }
}

static void sums_that_are_not_plain_are_left_alone(void **state)
{
    static const float coeff[] = {1, -1};

    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        int in;
        struct sac_graph *graph = graph_of(&in);
        int conv = add(graph, SAC_OP_CONV, "conv", in, -1);
        if (variant == 2) /* a ReLU of the convolution's own comes before the sum */
            conv = add(graph, SAC_OP_RELU, "relu", conv, -1);
        int outputs[] = {add(graph, SAC_OP_ELTWISE, "e", variant == 3 ? conv : in, conv), conv};
        struct sac_node *node = &graph->nodes[graph->node_count - 1];
        if (variant == 0)
            node->param.eltwise.method = SAC_ELTWISE_MAX;
        if (variant == 1)
            node->param.eltwise.coeff = coeff;
        lower(graph, outputs, 1);
        assert_int_equal(graph->node_count, 2);
        assert_int_equal(graph->nodes[0].epilogue.sum, -1);
        assert_int_equal(graph->nodes[1].kind, SAC_OP_ELTWISE);
        sac_graph_free(graph);
    }
}

static void nothing_is_fused_for_the_reference(void **state)
{
    struct sac_op_options options = {.reference = true};
    struct sac_error err = {0};
    int in;
    struct sac_graph *graph = graph_of(&in);
    int conv = add(graph, SAC_OP_CONV, "conv1", in, -1);
    int relu = add(graph, SAC_OP_RELU, "relu1", conv, -1);

    (void)state;
    sac_graph_set_outputs(graph, &relu, 1);
    assert_ok(device->table->lower(device, graph, &options, &err), err);
    assert_int_equal(graph->node_count, 2);
    sac_graph_free(graph);
}

/* Forms as the device gives them when asked, without running anything. */
static struct sac_op_caps caps_of(struct sac_graph *graph, int node, enum sac_precision precision)
{
    struct sac_op_options options = {.precision = precision};
    struct sac_op_caps caps;
    struct sac_error err = {0};

    assert_ok(device->table->op_query(device, graph, &graph->nodes[node], &options, &caps, &err),
              err);
    return caps;
}

static void scores_stay_in_f32_and_other_values_take_the_precision(void **state)
{
    ((struct sac_cpu_device *)device)->features.avx512_bf16 = true; /* only asked, not run */
    int in;
    struct sac_graph *graph = graph_of(&in);
    int conv = add(graph, SAC_OP_CONV, "conv1", in, -1);
    int last = add(graph, SAC_OP_CONV, "conv2", conv, -1);
    int prob = add(graph, SAC_OP_SOFTMAX, "prob", last, -1);

    (void)state;
    graph->nodes[2].param.softmax.axis = 1;
    sac_graph_set_outputs(graph, &prob, 1);
    struct sac_op_caps caps = caps_of(graph, 0, SAC_PRECISION_BF16);
    assert_int_equal(caps.src.type, SAC_BF16);
    assert_int_equal(caps.src.layout, SAC_CHANNELS_LAST);
    assert_int_equal(caps.dst.type, SAC_BF16);
    assert_int_equal(caps.dst.layout, SAC_CHANNELS_LAST);
    assert_true(caps.flops == 2. * 8 * 8 * 25);
    assert_int_equal(caps_of(graph, 1, SAC_PRECISION_BF16).dst.type, SAC_F32);
    assert_int_equal(caps_of(graph, 2, SAC_PRECISION_BF16).dst.type, SAC_F32);
    assert_int_equal(caps_of(graph, 0, SAC_PRECISION_F32).dst.type, SAC_F32);
    sac_graph_free(graph);
}

static void a_reshape_wants_plain_order_only_where_that_differs(void **state)
{
    const struct sac_shape image = {4, {2, 3, 4, 5}}, flat = {2, {2, 60}};
    const struct sac_shape column = {4, {2, 60, 1, 1}};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sac_error err = {0};
        struct sac_graph *graph;
        assert_ok(sac_graph_new(&graph, &err), err);
        struct sac_node *node = sac_graph_add_node(graph, SAC_OP_RESHAPE, "flatten", 1, 1);
        node->src[0] = sac_graph_add_value(graph, "x", i ? &column : &image);
        node->dst[0] = sac_graph_add_value(graph, "y", &flat);
        graph->values[0].form.layout = SAC_CHANNELS_LAST;
        struct sac_op_caps caps = caps_of(graph, 0, SAC_PRECISION_F32);
        assert_true(caps.alias);
        assert_int_equal(caps.src.layout, i ? SAC_CHANNELS_LAST : SAC_PLAIN);
        assert_int_equal(caps.dst.layout, SAC_PLAIN);
        sac_graph_free(graph);
    }
}

static void precisions_that_the_cpu_has_not_are_refused(void **state)
{
    struct sac_op_options options = {.precision = SAC_PRECISION_F16};
    struct sac_op_caps caps;
    struct sac_error err = {0};
    int in;
    struct sac_graph *graph = graph_of(&in);

    (void)state;
    add(graph, SAC_OP_RELU, "relu1", in, -1);
    assert_int_equal(
        device->table->op_query(device, graph, &graph->nodes[0], &options, &caps, &err),
        SAC_EUNSUPPORTED);
    assert_says(err, "relu1");
    assert_says(err, "f16");
    sac_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relu_goes_into_the_convolution_before_it),
        cmocka_unit_test(relu_stays_where_its_source_is_used_again),
        cmocka_unit_test(a_sum_and_its_relu_go_into_the_later_convolution),
        cmocka_unit_test(a_batch_norm_does_its_scale_and_relu_in_training),
        cmocka_unit_test(a_batch_norm_that_others_see_stays_alone),
        cmocka_unit_test(sums_that_are_not_plain_are_left_alone),
        cmocka_unit_test(nothing_is_fused_for_the_reference),
        cmocka_unit_test(scores_stay_in_f32_and_other_values_take_the_precision),
        cmocka_unit_test(a_reshape_wants_plain_order_only_where_that_differs),
        cmocka_unit_test(precisions_that_the_cpu_has_not_are_refused),
    };

    return cmocka_run_group_tests(tests, open_device, close_device);
}
