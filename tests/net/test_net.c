/* How a net is put together: which layers, which blobs, which weights, which graph. */
#include "net_support.h"

#include <stdio.h>
#include <time.h>

#include "base/buf.h"
#include "caffe.pb-c.h"

#define INPUT(name, dims)                                                                          \
    "layer { name: \"" name "\" type: \"Input\" top: \"" name "\" input_param { shape { " dims     \
    " } } }\n"
#define DATA INPUT("data", "dim: 2 dim: 3 dim: 8 dim: 8")
#define LAYER(name, type, bottom, top)                                                             \
    "layer { name: \"" name "\" type: \"" type "\" bottom: \"" bottom "\" top: \"" top "\" }\n"

/* ---- Rules ---- */

/* Whether a layer with these rules is in a net that says `own` of its state. */
static bool included_in(const char *own, const char *rules, const struct sac_net_options *options)
{
    char text[1024];
    struct sac_net *net = NULL;
    struct sac_error err = {0};
    struct sac_shape shape;

    snprintf(text, sizeof text,
             "state { %s }\n" DATA "layer { name: \"it\" type: \"ReLU\" "
             "bottom: \"data\" top: \"it\" %s }\n",
             own, rules);
    assert_ok(sac_net_parse(&net, "rules", text, strlen(text), options, &err), err);
    bool found = sac_net_blob_shape(net, "it", &shape);
    sac_net_free(net);
    return found;
}

static bool included(const char *rules, const struct sac_net_options *options)
{
    return included_in("stage: \"own\"", rules, options);
}

static void layers_follow_their_rules(void **state)
{
    static const char *const stages[] = {"deploy", "fast"};
    const struct sac_net_options test = {.phase = SAC_PHASE_TEST};
    const struct sac_net_options train = {.phase = SAC_PHASE_TRAIN};
    const struct sac_net_options staged = {
        .phase = SAC_PHASE_TEST, .level = 2, .stages = stages, .stage_count = 2};

    (void)state;
    assert_true(included("", &test));
    assert_true(included("include { phase: TEST }", &test));
    assert_false(included("include { phase: TEST }", &train));
    assert_false(included("exclude { phase: TEST }", &test));
    assert_true(included("exclude { phase: TEST }", &train));
    /* Any one rule is enough. */
    assert_true(included("include { phase: TRAIN } include { stage: \"fast\" }", &staged));
    assert_false(included("exclude { phase: TRAIN } exclude { stage: \"fast\" }", &staged));
    /* All conditions of one rule have to hold. */
    assert_false(included("include { phase: TRAIN stage: \"fast\" }", &staged));
    assert_true(included("include { stage: \"fast\" stage: \"deploy\" }", &staged));
    assert_false(included("include { stage: \"fast\" stage: \"slow\" }", &staged));
    assert_true(included("include { not_stage: \"slow\" }", &staged));
    assert_false(included("include { not_stage: \"slow\" not_stage: \"fast\" }", &staged));
    assert_true(included("include { stage: \"own\" }", &test)); /* the net's own state */
    assert_true(included("include { min_level: 2 max_level: 2 }", &staged));
    assert_false(included("include { min_level: 3 }", &staged));
    assert_false(included("include { max_level: 1 }", &staged));
    assert_false(included("include { min_level: 1 }", &test));
    /* The net's own level counts where the caller says none. */
    assert_true(included_in("level: 3", "include { min_level: 3 }", &test));
    assert_false(included_in("level: 3", "include { min_level: 3 }", &staged));
    assert_refused(DATA "layer { name: \"it\" type: \"ReLU\" bottom: \"data\" top: \"it\" "
                        "include { phase: TEST } exclude { phase: TRAIN } }",
                   SAC_EFORMAT, "layer \"it\"", "not both");
    assert_refused("layer { name: \"it\" type: \"ReLU\" include { phase: TRAIN } }", SAC_EFORMAT,
                   "test.prototxt", "no layers in this phase");
}

/* ---- Blobs ---- */

static void wrong_blobs_are_named(void **state)
{
    (void)state;
    assert_refused(DATA LAYER("it", "ReLU", "dat", "it"), SAC_EFORMAT,
                   "test.prototxt: layer \"it\" (ReLU)", "takes blob \"dat\", which no layer");
    assert_refused(DATA LAYER("it", "ReLU", "it", "it"), SAC_EFORMAT, "layer \"it\"",
                   "takes blob \"it\", which no layer before it makes");
    assert_refused(DATA LAYER("a", "ReLU", "b", "a") LAYER("b", "ReLU", "a", "b"), SAC_EFORMAT,
                   "layer \"a\"", "takes blob \"b\"");
    assert_refused(DATA LAYER("a", "ReLU", "data", "x") LAYER("b", "TanH", "data", "x"),
                   SAC_EFORMAT, "layer \"b\" (TanH)", "makes blob \"x\"");
    assert_refused(DATA "layer { name: \"s\" type: \"Split\" bottom: \"data\" top: \"x\" "
                        "top: \"x\" }",
                   SAC_EFORMAT, "layer \"s\"", "makes blob \"x\"");
    assert_refused(DATA LAYER("it", "Rectifier", "data", "it"), SAC_EUNSUPPORTED, "layer \"it\"",
                   "no layer type \"Rectifier\"");
    assert_refused(DATA "layer { name: \"it\" }", SAC_EUNSUPPORTED, "layer \"it\"", "type \"\"");
    assert_refused("name: \"empty\"", SAC_EFORMAT, "test.prototxt", "no layers");
    assert_refused(INPUT("data", "dim: -1 dim: 3"), SAC_EFORMAT, "layer \"data\" (Input)",
                   "-1 × 3");
    assert_refused(INPUT("data", "dim: 0 dim: 3"), SAC_EFORMAT, "layer \"data\" (Input)", "0 × 3");
    assert_refused(INPUT("data", "dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 dim: 1"),
                   SAC_ELIMIT, "layer \"data\" (Input)", "9 axes");
    assert_refused(INPUT("data", "dim: 9223372036854775807 dim: 9223372036854775807"), SAC_ELIMIT,
                   "layer \"data\" (Input)", "the most is");
}

static const char in_place[] = DATA LAYER("before", "TanH", "data", "t")
    LAYER("r1", "ReLU", "t", "t") LAYER("side", "Sigmoid", "t", "s") LAYER("r2", "Power", "t", "t")
        LAYER("pool", "Dropout", "t", "out");

static void in_place_layers_make_new_values(void **state)
{
    struct sac_net *net = net_of(in_place);
    struct sac_graph *graph = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_net_output_count(net), 2);
    assert_string_equal(sac_net_output_name(net, 0), "s");
    assert_string_equal(sac_net_output_name(net, 1), "out");
    assert_ok(sac_net_graph(net, 0, NULL, 0, &graph, &err), err);
    assert_int_equal(graph->node_count, 5);
    /* "side" reads what r1 wrote, and "pool" what r2 wrote, in order. */
    assert_string_equal(graph->nodes[2].name, "side");
    assert_int_equal(graph->nodes[2].src[0], graph->nodes[1].dst[0]);
    assert_int_equal(graph->nodes[3].src[0], graph->nodes[1].dst[0]);
    assert_int_equal(graph->nodes[4].src[0], graph->nodes[3].dst[0]);
    assert_true(graph->nodes[3].dst[0] != graph->nodes[1].dst[0]);
    assert_string_equal(graph->values[graph->nodes[3].dst[0]].name, "t");
    sac_graph_free(graph);
    sac_net_free(net);
}

/* ---- Graphs ---- */

static const char branches[] =
    DATA "layer { name: \"conv\" type: \"Convolution\" bottom: \"data\" top: \"conv\" "
         "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 1 } }\n"
         "layer { name: \"split\" type: \"Split\" bottom: \"conv\" top: \"x\" top: \"y\" }\n" LAYER(
             "rx", "ReLU", "x", "rx")
             LAYER("ry", "TanH", "y",
                   "ry") "layer { name: \"fc\" type: \"InnerProduct\" bottom: \"rx\" top: \"fc\" "
                         "inner_product_param { num_output: 5 } }\n" LAYER("prob", "Softmax", "fc",
                                                                           "prob");

static void only_what_is_wanted_comes_into_the_graph(void **state)
{
    const char *const wanted[] = {"ry", "conv"};
    struct sac_net *net = net_of(branches);
    struct sac_graph *graph = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_net_graph(net, 7, wanted, 2, &graph, &err), err);
    assert_int_equal(graph->node_count, 2); /* Split is none */
    assert_int_equal(graph->nodes[0].kind, SAC_OP_CONV);
    assert_int_equal(graph->nodes[0].param.conv.window.stride[1], 2);
    assert_int_equal(graph->nodes[0].param.conv.group, 1);
    assert_int_equal(graph->nodes[0].weight_count, 2);
    assert_string_equal(graph->constants[graph->nodes[0].weight[1]].name, "conv/1");
    assert_int_equal(graph->nodes[1].kind, SAC_OP_TANH);
    assert_int_equal(graph->nodes[1].src[0], graph->nodes[0].dst[0]);
    assert_int_equal(graph->output_count, 2);
    assert_int_equal(graph->outputs[0], graph->nodes[1].dst[0]);
    assert_int_equal(graph->outputs[1], graph->nodes[0].dst[0]);
    assert_shape_is(&graph->values[graph->inputs[0]].shape, "input", "7x3x8x8");
    assert_shape_is(&graph->values[graph->outputs[0]].shape, "ry", "7x4x4x4");
    assert_blob_is(net, "ry", "2x4x4x4"); /* the net stays as it was */
    sac_graph_free(graph);
    sac_net_free(net);
}

static void a_graph_that_cannot_be_is_refused(void **state)
{
    const char *const nothing[] = {"nothing"}, *const loss[] = {"loss"};
    struct sac_net *net = net_of(branches);
    struct sac_graph *graph = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_net_graph(net, 0, nothing, 1, &graph, &err), SAC_ENOENT);
    assert_says(err, "no blob \"nothing\"");
    err = (struct sac_error){0};
    assert_int_equal(sac_net_graph(net, -1, NULL, 0, &graph, &err), SAC_EINVAL);
    err = (struct sac_error){0};
    assert_int_equal(sac_net_graph(net, 2147483647, NULL, 0, &graph, &err), SAC_ELIMIT);
    assert_says(err, "with a batch of 2147483647: layer \"data\" (Input)");
    sac_net_free(net);

    net = net_of(
        DATA
        "layer { name: \"fc\" type: \"InnerProduct\" bottom: \"data\" top: \"fc\" "
        "inner_product_param { num_output: 5 } }\n" INPUT(
            "label",
            "dim: 2") "layer { name: \"loss\" type: \"SoftmaxWithLoss\" bottom: \"fc\" bottom: "
                      "\"label\" top: \"loss\" }\n");
    err = (struct sac_error){0};
    assert_ok(sac_net_graph(net, 0, loss, 1, &graph, &err), err);
    assert_string_equal(graph->values[graph->outputs[0]].name, "loss");
    assert_int_equal(graph->loss_count, 0); /* wanted as a value */
    sac_graph_free(graph);
    assert_ok(sac_net_judged_graph(net, 0, NULL, 0, &graph, &err), err);
    assert_int_equal(graph->loss_count, 1);
    assert_true(graph->losses[0].weight == 1);
    sac_graph_free(graph);
    assert_ok(sac_net_graph(net, 0, NULL, 0, &graph, &err), err);
    assert_int_equal(graph->output_count, 1);
    assert_string_equal(graph->values[graph->outputs[0]].name, "fc");
    assert_int_equal(graph->input_count, 2);
    sac_graph_free(graph);
    sac_net_free(net);
}

static void layers_hand_their_parameters_to_the_graph(void **state)
{
    struct sac_net *net = net_of(
        DATA "layer { name: \"lrn\" type: \"LRN\" bottom: \"data\" top: \"a\" lrn_param { "
             "local_size: 3 alpha: 2 beta: .5 k: 3 norm_region: WITHIN_CHANNEL } }\n"
             "layer { name: \"bn\" type: \"BatchNorm\" bottom: \"a\" top: \"b\" }\n"
             "layer { name: \"sc\" type: \"Scale\" bottom: \"b\" top: \"c\" scale_param { "
             "bias_term: true } }\n"
             "layer { name: \"el\" type: \"Eltwise\" bottom: \"c\" bottom: \"a\" top: \"d\" "
             "eltwise_param { coeff: 2 coeff: -1 } }\n"
             "layer { name: \"pw\" type: \"Power\" bottom: \"d\" top: \"e\" power_param { "
             "power: 2 scale: 3 shift: 4 } }\n"
             "layer { name: \"pool\" type: \"Pooling\" bottom: \"e\" top: \"f\" pooling_param { "
             "pool: AVE global_pooling: true } }\n"
             "layer { name: \"elu\" type: \"ELU\" bottom: \"f\" top: \"g\" }\n"
             "layer { name: \"re\" type: \"ReLU\" bottom: \"g\" top: \"h\" relu_param { "
             "negative_slope: .25 } }\n"
             "layer { name: \"fl\" type: \"Flatten\" bottom: \"h\" top: \"i\" }\n"
             "layer { name: \"sm\" type: \"Softmax\" bottom: \"i\" top: \"j\" softmax_param { "
             "axis: -1 } }\n");
    struct sac_graph *graph = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_net_graph(net, 0, NULL, 0, &graph, &err), err);
    const struct sac_node *n = graph->nodes;
    assert_int_equal(graph->node_count, 10);
    assert_int_equal(n[0].param.lrn.region, SAC_LRN_WITHIN_CHANNEL);
    assert_true(n[0].param.lrn.size == 3 && n[0].param.lrn.alpha == 2 &&
                n[0].param.lrn.beta == .5f && n[0].param.lrn.k == 3);
    assert_true(n[1].param.batchnorm.eps == 1e-5f && n[1].param.batchnorm.fraction == .999f);
    assert_true(n[1].param.batchnorm.global_stats && n[1].weight_count == 3);
    assert_true(n[2].param.scale.axis == 1 && n[2].param.scale.num_axes == 1);
    assert_true(n[2].param.scale.bias && n[2].weight_count == 2);
    assert_true(n[3].param.eltwise.method == SAC_ELTWISE_SUM && n[3].param.eltwise.coeff[0] == 2 &&
                n[3].param.eltwise.coeff[1] == -1);
    assert_true(n[4].param.power.power == 2 && n[4].param.power.scale == 3 &&
                n[4].param.power.shift == 4);
    assert_true(n[5].param.pool.window.kernel[1] == 8 && n[5].param.pool.method == SAC_POOL_AVE);
    assert_true(n[6].param.elu.alpha == 1);
    assert_true(n[7].param.relu.slope == .25f);
    assert_int_equal(n[8].kind, SAC_OP_RESHAPE);
    assert_int_equal(n[9].param.softmax.axis, 1);
    sac_graph_free(graph);
    sac_net_free(net);
}

static void a_scale_by_a_blob_with_a_bias_is_two_operations(void **state)
{
    struct sac_net *net =
        net_of(DATA INPUT("s", "dim: 2 dim: 3") "layer { name: \"sc\" type: \"Scale\" bottom: "
                                                "\"data\" bottom: \"s\" top: \"y\" "
                                                "scale_param { axis: 0 bias_term: true } }\n");
    struct sac_graph *graph = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_net_graph(net, 0, NULL, 0, &graph, &err), err);
    assert_int_equal(graph->node_count, 2);
    assert_int_equal(graph->nodes[0].kind, SAC_OP_SCALE);
    assert_int_equal(graph->nodes[0].src_count, 2);
    assert_int_equal(graph->nodes[0].weight_count, 0);
    assert_int_equal(graph->nodes[1].kind, SAC_OP_BIAS);
    assert_int_equal(graph->nodes[1].weight_count, 1);
    assert_int_equal(graph->nodes[1].src[0], graph->nodes[0].dst[0]);
    assert_int_equal(graph->nodes[1].param.scale.num_axes, 2);
    assert_int_equal(graph->outputs[0], graph->nodes[1].dst[0]);
    sac_graph_free(graph);
    sac_net_free(net);
}

/* ---- New input shapes ---- */

static void reshape_infers_again_or_changes_nothing(void **state)
{
    struct sac_net *net = net_of(branches);
    struct sac_error err = {0};
    struct sac_shape wider = {4, {2, 3, 16, 16}}, deeper = {4, {2, 4, 8, 8}};
    struct sac_shape batch = {4, {5, 3, 8, 8}}, none = {4, {5, 3, 0, 8}};

    (void)state;
    assert_int_equal(sac_net_reshape(net, 0, &wider, &err), SAC_EINVAL);
    assert_says(err, "layer \"fc\" (InnerProduct)");
    assert_says(err, "needs weight 0 to be 5 × 256, and it is 5 × 64");
    err = (struct sac_error){0};
    assert_int_equal(sac_net_reshape(net, 0, &deeper, &err), SAC_EINVAL);
    err = (struct sac_error){0};
    assert_int_equal(sac_net_reshape(net, 0, &none, &err), SAC_EFORMAT);
    err = (struct sac_error){0};
    assert_int_equal(sac_net_reshape(net, 1, &batch, &err), SAC_EINVAL);
    assert_blob_is(net, "data", "2x3x8x8");
    assert_blob_is(net, "conv", "2x4x4x4");
    err = (struct sac_error){0};
    assert_ok(sac_net_reshape(net, 0, &batch, &err), err);
    assert_blob_is(net, "data", "5x3x8x8");
    assert_blob_is(net, "prob", "5x5");
    sac_net_free(net);
}

static void labels_follow_the_batch_of_their_data(void **state)
{
    struct sac_net *net = net_of(
        "layer { name: \"d\" type: \"MemoryData\" top: \"data\" top: \"label\" "
        "memory_data_param { batch_size: 4 channels: 3 height: 1 width: 1 } }\n"
        "layer { name: \"loss\" type: \"SoftmaxWithLoss\" bottom: \"data\" bottom: \"label\" "
        "top: \"loss\" softmax_param { axis: 1 } }\n" LAYER("r", "ReLU", "data", "r"));
    struct sac_shape batch = {4, {9, 3, 1, 1}};
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_net_reshape(net, 0, &batch, &err), err);
    assert_blob_is(net, "label", "9");
    sac_net_free(net);
}

/* ---- Weights ---- */

static const char two_layers[] =
    DATA "layer { name: \"conv\" type: \"Convolution\" bottom: \"data\" top: \"conv\" "
         "convolution_param { num_output: 2 kernel_size: 1 } }\n"
         "layer { name: \"fc\" type: \"InnerProduct\" bottom: \"conv\" top: \"fc\" "
         "inner_product_param { num_output: 1 bias_term: false } }\n";

/* A caffemodel of one layer, with up to two blobs. */
struct model {
    const char *layer;
    int blob_count;
    struct sac_shape shape[2]; /* rank −1: the old way, num × channels × height × width */
    size_t count[2];
};

static const char *write_model(const struct model *model)
{
    static float numbers[256];
    Caffe__NetParameter net = CAFFE__NET_PARAMETER__INIT;
    Caffe__LayerParameter layer = CAFFE__LAYER_PARAMETER__INIT, *layers = &layer;
    Caffe__BlobProto blobs[2] = {CAFFE__BLOB_PROTO__INIT, CAFFE__BLOB_PROTO__INIT};
    Caffe__BlobProto *list[2] = {&blobs[0], &blobs[1]};
    Caffe__BlobShape shapes[2] = {CAFFE__BLOB_SHAPE__INIT, CAFFE__BLOB_SHAPE__INIT};

    for (int i = 0; i < 256; i++)
        numbers[i] = (float)(i + 1);
    for (int i = 0; i < model->blob_count; i++) {
        const int64_t *dim = model->shape[i].dim;
        blobs[i].n_data = model->count[i];
        blobs[i].data = numbers;
        if (model->shape[i].rank >= 0) {
            shapes[i].n_dim = (size_t)model->shape[i].rank;
            shapes[i].dim = (int64_t *)dim;
            blobs[i].shape = &shapes[i];
        } else {
            blobs[i].has_num = blobs[i].has_channels = blobs[i].has_height = true;
            blobs[i].has_width = true;
            blobs[i].num = (int32_t)dim[0];
            blobs[i].channels = (int32_t)dim[1];
            blobs[i].height = (int32_t)dim[2];
            blobs[i].width = (int32_t)dim[3];
        }
    }
    layer.name = (char *)model->layer;
    layer.type = (char *)"Convolution";
    layer.n_blobs = (size_t)model->blob_count;
    layer.blobs = list;
    net.n_layer = 1;
    net.layer = &layers;
    size_t size = caffe__net_parameter__get_packed_size(&net);
    uint8_t *bytes = malloc(size);
    caffe__net_parameter__pack(&net, bytes);
    const char *path = sac_test_write("weights.caffemodel", bytes, size);
    free(bytes);
    return path;
}

static int load_model(const struct model *model, struct sac_net **net,
                      struct sac_weights_report *report, struct sac_error *err)
{
    *net = net_of(two_layers);
    *err = (struct sac_error){0};
    return sac_net_load_weights(*net, write_model(model), report, err);
}

static void weights_are_copied_by_name_and_shape(void **state)
{
    static const struct model models[] = {
        {"conv", 2, {{4, {2, 3, 1, 1}}, {1, {2}}}, {6, 2}},
        {"conv", 2, {{-1, {2, 3, 1, 1}}, {-1, {1, 1, 1, 2}}}, {6, 2}}, /* as before `shape` */
    };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sac_net *net;
        struct sac_weights_report report = {0};
        struct sac_error err;
        struct sac_shape shape;
        assert_ok(load_model(&models[i], &net, &report, &err), err);
        assert_int_equal(report.layers_copied, 1);
        assert_int_equal(report.layers_missing, 1);
        assert_int_equal(report.layers_ignored, 0);
        assert_string_equal(report.first_missing, "fc");
        const struct sac_layer *conv = sac_net_layer(net, 1);
        assert_true(sac_layer_weight(conv, 0, &shape)[5] == 6);
        assert_true(sac_layer_weight(conv, 1, &shape)[1] == 2);
        assert_true(sac_layer_weight(sac_net_layer(net, 2), 0, &shape)[0] == 0);
        sac_net_free(net);
    }
}

static void layers_of_the_file_that_the_net_lacks_are_ignored(void **state)
{
    static const struct model other = {"other", 1, {{1, {2}}}, {2}};
    struct sac_net *net;
    struct sac_weights_report report = {0};
    struct sac_error err;

    (void)state;
    assert_ok(load_model(&other, &net, &report, &err), err);
    assert_int_equal(report.layers_copied, 0);
    assert_int_equal(report.layers_missing, 2);
    assert_int_equal(report.layers_ignored, 1);
    sac_net_free(net);
}

static void weights_that_do_not_fit_are_refused(void **state)
{
    static const struct {
        struct model model;
        const char *says;
    } cases[] = {
        {{"conv", 1, {{4, {2, 3, 1, 1}}}, {6}}, "the file has 1 blobs for it, and the net 2"},
        {{"conv", 2, {{4, {2, 3, 1, 1}}, {1, {3}}}, {6, 3}}, "blob 1 is 3, and the net's is 2"},
        {{"conv", 2, {{4, {3, 2, 1, 1}}, {1, {2}}}, {6, 2}},
         "blob 0 is 3 × 2 × 1 × 1, and the net's is 2 × 3 × 1 × 1"},
        {{"conv", 2, {{-1, {2, 1, 3, 1}}, {1, {2}}}, {6, 2}}, "blob 0 is 2 × 1 × 3 × 1"},
        {{"conv", 2, {{4, {2, 3, 1, 1}}, {1, {2}}}, {5, 2}}, "holds 5 numbers"},
        {{"conv", 2, {{4, {2, 3, 1, 1}}, {1, {2}}}, {6, 0}}, "holds 0 numbers"},
        {{"data", 1, {{1, {2}}}, {2}}, "the file has 1 blobs for it, and the net 0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_net *net;
        struct sac_error err;
        struct sac_shape shape;
        assert_int_equal(load_model(&cases[i].model, &net, NULL, &err), SAC_EFORMAT);
        assert_says(err, "weights.caffemodel: layer \"");
        assert_says(err, cases[i].says);
        assert_true(sac_layer_weight(sac_net_layer(net, 1), 0, &shape)[0] == 0);
        sac_net_free(net);
    }
}

#define SHARED(name, out, mode)                                                                    \
    "layer { name: \"" name "\" type: \"InnerProduct\" bottom: \"x\" top: \"" name                 \
    "\" param { name: \"w\" " mode "} inner_product_param { num_output: " out                      \
    " bias_term: false } }\n"

static void parameters_of_one_name_are_one(void **state)
{
    struct sac_net *net =
        net_of(INPUT("x", "dim: 2 dim: 6") SHARED("a", "4", "") SHARED("b", "4", ""));
    struct sac_graph *graph = NULL;
    struct sac_shape shape;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_net_weight_count(net), 24);
    assert_ptr_equal(sac_layer_weight(sac_net_layer(net, 1), 0, &shape),
                     sac_layer_weight(sac_net_layer(net, 2), 0, &shape));
    assert_ok(sac_net_graph(net, 0, NULL, 0, &graph, &err), err);
    assert_ptr_equal(graph->constants[0].data, graph->constants[1].data);
    sac_graph_free(graph);
    sac_net_free(net);
    assert_refused(INPUT("x", "dim: 2 dim: 6") SHARED("a", "4", "") SHARED("b", "5", ""),
                   SAC_EFORMAT, "layer \"b\" (InnerProduct)", "parameter \"w\" is shared");
    assert_refused(INPUT("x", "dim: 2 dim: 6") SHARED("a", "4", "")
                       SHARED("b", "5", "share_mode: PERMISSIVE "),
                   SAC_EFORMAT, "is 5 × 6 here and 4 × 6 before", "");
}

static void layers_of_one_name_keep_their_own_constants(void **state)
{
    struct sac_net *net =
        net_of(DATA "layer { name: \"same\" type: \"Scale\" bottom: \"data\" top: \"a\" }\n"
                    "layer { name: \"same\" type: \"Scale\" bottom: \"a\" top: \"b\" }\n"
                    "layer { name: \"same#2\" type: \"Scale\" bottom: \"b\" top: \"c\" }\n");
    struct sac_graph *graph = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_net_graph(net, 0, NULL, 0, &graph, &err), err);
    assert_int_equal(graph->constant_count, 3);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(graph->constants[i].name, graph->constants[k].name);
    sac_graph_free(graph);
    sac_net_free(net);
}

/* ---- Nets made to hurt ---- */

static void puts_layers(struct sac_buf *text, int count)
{
    sac_buf_puts(text, INPUT("b0", "dim: 1 dim: 1"));
    for (int i = 1; i < count; i++)
        sac_buf_printf(text, "layer{name:\"l%d\"type:\"ReLU\"bottom:\"b%d\"top:\"b%d\"}\n", i,
                       i - 1, i);
}

static double seconds_of(const struct sac_buf *text, int code, const char *says)
{
    struct sac_net *net = NULL;
    struct sac_error err = {0};
    clock_t start = clock();
    int rc = sac_net_parse(&net, "many", text->data, text->len, NULL, &err);

    if (rc != code)
        fail_msg("%d: %s", rc, err.text);
    if (says)
        assert_says(err, says);
    sac_net_free(net);
    return (double)(clock() - start) / CLOCKS_PER_SEC;
}

static void many_layers_are_quick_and_too_many_refused(void **state)
{
    struct sac_buf text = {0};

    (void)state;
    puts_layers(&text, 16384);
    assert_true(seconds_of(&text, 0, NULL) < 2);
    sac_buf_clear(&text);
    puts_layers(&text, 20000);
    assert_true(seconds_of(&text, SAC_ELIMIT, "16384") < 2);
    sac_buf_clear(&text);
    puts_layers(&text, 100000); /* stopped there or in the parser */
    assert_true(seconds_of(&text, SAC_ELIMIT, "many") < 4);
    sac_buf_done(&text);
}

static void many_tops_and_bottoms_are_refused(void **state)
{
    struct sac_buf text = {0};

    (void)state;
    sac_buf_puts(&text, "layer { name: \"in\" type: \"Input\" input_param { shape { dim: 1 } } ");
    for (int i = 0; i < 70000; i++)
        sac_buf_printf(&text, "top:\"%d\" ", i);
    sac_buf_puts(&text, "}");
    seconds_of(&text, SAC_ELIMIT, "over 65536 tops");
    sac_buf_clear(&text);
    sac_buf_puts(&text, DATA "layer { name: \"s\" type: \"Silence\" ");
    for (int i = 0; i < 2000; i++)
        sac_buf_puts(&text, "bottom: \"data\" ");
    sac_buf_puts(&text, "}");
    seconds_of(&text, SAC_EFORMAT, "1 to 1024 bottoms, and has 2000");
    sac_buf_done(&text);
}

static void weights_over_the_limit_are_refused_before_they_are_taken(void **state)
{
    struct sac_buf text = {0};

    (void)state;
    /* Five of 1.6·10⁹ numbers each: 30 GiB. */
    sac_buf_puts(&text, INPUT("b0", "dim: 1 dim: 40000"));
    for (int i = 1; i <= 5; i++)
        sac_buf_printf(&text,
                       "layer { name: \"fc%d\" type: \"InnerProduct\" bottom: \"b0\" top: \"b%d\" "
                       "inner_product_param { num_output: 40000 } }\n",
                       i, i);
    seconds_of(&text, SAC_ELIMIT,
               "layer \"fc3\" (InnerProduct): with it the net's weights are "
               "over 16 GiB");
    sac_buf_done(&text);
}

/* Concatenating a blob with itself doubles it: 2³¹ is reached soon. */
static void blobs_that_grow_are_stopped(void **state)
{
    struct sac_buf text = {0};

    (void)state;
    sac_buf_puts(&text, INPUT("b0", "dim: 1 dim: 2"));
    for (int i = 1; i <= 80; i++)
        sac_buf_printf(&text,
                       "layer { name: \"c%d\" type: \"Concat\" bottom: \"b%d\" bottom: \"b%d\" "
                       "top: \"b%d\" }\n",
                       i, i - 1, i - 1, i);
    seconds_of(&text, SAC_ELIMIT, "layer \"c30\" (Concat): top b30 is 1 × 2147483648");
    sac_buf_done(&text);
}

static void every_truncation_of_a_net_is_an_answer(void **state)
{
    size_t size = strlen(branches);

    (void)state;
    for (size_t i = 0; i < size; i++) {
        struct sac_net *net = NULL;
        struct sac_error err = {0};
        int rc = sac_net_parse(&net, "cut", branches, i, NULL, &err);
        assert_true(rc == 0 ? net != NULL : net == NULL && err.text[0] != 0);
        sac_net_free(net);
    }
}

static void shapes_for_blobs_that_are_no_inputs_are_refused(void **state)
{
    static const struct sac_net_input input = {"dat", {4, {1, 3, 8, 8}}};
    const struct sac_net_options options = {
        .phase = SAC_PHASE_TEST, .inputs = &input, .input_count = 1};
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_net_parse(&net, "x", DATA, strlen(DATA), &options, &err), SAC_EINVAL);
    assert_says(err, "\"dat\", which is no input");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_follow_their_rules),
        cmocka_unit_test(wrong_blobs_are_named),
        cmocka_unit_test(in_place_layers_make_new_values),
        cmocka_unit_test(only_what_is_wanted_comes_into_the_graph),
        cmocka_unit_test(a_graph_that_cannot_be_is_refused),
        cmocka_unit_test(layers_hand_their_parameters_to_the_graph),
        cmocka_unit_test(a_scale_by_a_blob_with_a_bias_is_two_operations),
        cmocka_unit_test(reshape_infers_again_or_changes_nothing),
        cmocka_unit_test(labels_follow_the_batch_of_their_data),
        cmocka_unit_test(weights_are_copied_by_name_and_shape),
        cmocka_unit_test(layers_of_the_file_that_the_net_lacks_are_ignored),
        cmocka_unit_test(weights_that_do_not_fit_are_refused),
        cmocka_unit_test(parameters_of_one_name_are_one),
        cmocka_unit_test(layers_of_one_name_keep_their_own_constants),
        cmocka_unit_test(many_layers_are_quick_and_too_many_refused),
        cmocka_unit_test(many_tops_and_bottoms_are_refused),
        cmocka_unit_test(weights_over_the_limit_are_refused_before_they_are_taken),
        cmocka_unit_test(blobs_that_grow_are_stopped),
        cmocka_unit_test(every_truncation_of_a_net_is_an_answer),
        cmocka_unit_test(shapes_for_blobs_that_are_no_inputs_are_refused),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
