/*
 * The nets of models/ against the prototxts that were published: the same layers
 * by name, shapes, weights, and, as a graph, the same operations with the same
 * numbers. Where no train_val was published, ours is compared with its deploy.
 */
#include "net_support.h"

#include "net/layer.h"

struct pair {
    const char *ours, *published;
    int64_t weights; /* of the deploy; from the papers, or see test_published_nets.c */
    const char *published_train;
};

static const struct pair pairs[] = {
    {"alexnet", "nets/bvlc_alexnet/deploy.prototxt", 60965224,
     "nets/bvlc_alexnet/train_val.prototxt"},
    {"caffenet", "nets/bvlc_reference_caffenet/deploy.prototxt", 60965224,
     "nets/bvlc_reference_caffenet/train_val.prototxt"},
    {"googlenet", "nets/bvlc_googlenet/deploy.prototxt", 6998552,
     "nets/bvlc_googlenet/train_val.prototxt"},
    {"vgg16", "nets/vgg16/VGG_ILSVRC_16_layers_deploy.prototxt", 138357544, NULL},
    {"vgg19", "nets/vgg19/VGG_ILSVRC_19_layers_deploy.prototxt", 143667240, NULL},
    {"vgg_cnn_s", "nets/vgg_cnn_s/VGG_CNN_S_deploy.prototxt", 102908520, NULL},
    {"squeezenet", "squeezenet_v1.1/deploy.prototxt", 1235496,
     "squeezenet_v1.1/train_val.prototxt"},
    {"mobilenet", "nets/mobilenet/mobilenet_deploy.prototxt", 4253891, NULL},
    {"resnet50", "nets/resnet50/ResNet-50-deploy.prototxt", 25610269, NULL},
    {"nin", NULL, 7595176, "nets/nin_imagenet/train_val.prototxt"},
};
enum { PAIRS = sizeof pairs / sizeof *pairs };

static struct sac_net *load(const char *path, enum sac_phase phase)
{
    struct sac_net_options options = {.phase = phase};
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    assert_ok(sac_net_load(&net, path, &options, &err), err);
    return net;
}

static struct sac_net *load_ours(const char *name, const char *file, enum sac_phase phase)
{
    char path[100];

    snprintf(path, sizeof path, "models/%s/%s.prototxt", name, file);
    return load(sac_test_source(path), phase);
}

static void assert_same_shape(const char *what, const struct sac_shape *a,
                              const struct sac_shape *b, int from)
{
    bool same = a->rank == b->rank;

    for (int i = from; same && i < a->rank; i++)
        same = a->dim[i] == b->dim[i];
    if (!same)
        fail_msg("%s: the shapes differ", what);
}

static const struct sac_layer *layer_of(const struct sac_net *net, const char *name)
{
    for (int i = 0; i < sac_net_layer_count(net); i++)
        if (strcmp(sac_layer_name(sac_net_layer(net, i)), name) == 0)
            return sac_net_layer(net, i);
    return NULL;
}

/* Weights load by name: each layer that has some, with the shapes it has. */
static void assert_same_weights(const struct sac_net *ours, const struct sac_net *theirs)
{
    assert_int_equal(sac_net_weight_count(ours), sac_net_weight_count(theirs));
    for (int i = 0; i < sac_net_layer_count(theirs); i++) {
        const struct sac_layer *b = sac_net_layer(theirs, i);
        const struct sac_layer *a = layer_of(ours, b->name);
        if (b->weight_count == 0)
            continue;
        if (!a)
            fail_msg("there is no layer \"%s\"", b->name);
        assert_string_equal(sac_layer_type_name(a), sac_layer_type_name(b));
        assert_int_equal(a->weight_count, b->weight_count);
        for (int w = 0; w < a->weight_count; w++)
            assert_same_shape(b->name, &a->weight_shapes[w], &b->weight_shapes[w], 0);
    }
}

static void assert_same_node(const struct sac_node *x, const struct sac_graph *a,
                             const struct sac_node *y, const struct sac_graph *b)
{
    assert_string_equal(x->name, y->name);
    assert_int_equal(x->kind, y->kind);
    assert_int_equal(x->src_count, y->src_count);
    assert_int_equal(x->dst_count, y->dst_count);
    for (int i = 0; i < x->src_count; i++)
        assert_string_equal(a->values[x->src[i]].name, b->values[y->src[i]].name);
    for (int i = 0; i < x->dst_count; i++)
        assert_same_shape(x->name, &a->values[x->dst[i]].shape, &b->values[y->dst[i]].shape, 0);
    if (memcmp(&x->param, &y->param, sizeof x->param) != 0)
        fail_msg("%s: strides, paddings, exponents or the like differ", x->name);
}

static struct sac_graph *graph_of(const struct sac_net *net, bool judged)
{
    struct sac_graph *graph = NULL;
    struct sac_error err = {0};
    int rc = judged ? sac_net_judged_graph(net, 2, NULL, 0, &graph, &err)
                    : sac_net_graph(net, 2, NULL, 0, &graph, &err);

    assert_ok(rc, err);
    return graph;
}

/* The next operation that is no accuracy: SqueezeNet's published net measures while
 * it trains, which changes nothing. */
static int next_node(const struct sac_graph *graph, int index)
{
    while (index < graph->node_count && graph->nodes[index].kind == SAC_OP_ACCURACY)
        index++;
    return index;
}

static void assert_same_graph(const struct sac_net *ours, const struct sac_net *theirs, bool judged)
{
    struct sac_graph *a = graph_of(ours, judged), *b = graph_of(theirs, judged);
    int i = next_node(a, 0), j = next_node(b, 0);

    for (; i < a->node_count && j < b->node_count; i = next_node(a, i + 1), j = next_node(b, j + 1))
        assert_same_node(&a->nodes[i], a, &b->nodes[j], b);
    assert_int_equal(i, a->node_count);
    assert_int_equal(j, b->node_count);
    assert_int_equal(a->loss_count, b->loss_count);
    for (i = 0; i < a->loss_count; i++)
        assert_true(a->losses[i].weight == b->losses[i].weight);
    sac_graph_free(a);
    sac_graph_free(b);
}

static void deploys_are_the_published_nets(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        if (!pairs[i].published)
            continue;
        print_message("# %s\n", pairs[i].ours);
        struct sac_net *ours = load_ours(pairs[i].ours, "deploy", SAC_PHASE_TEST);
        struct sac_net *theirs = load(sac_test_data(pairs[i].published), SAC_PHASE_TEST);
        assert_int_equal(sac_net_layer_count(ours), sac_net_layer_count(theirs));
        assert_same_weights(ours, theirs);
        assert_same_graph(ours, theirs, false);
        sac_net_free(ours);
        sac_net_free(theirs);
    }
}

static const char *filler_type(const struct sac_filler *filler)
{
    return filler->type ? filler->type : "constant";
}

/* By what the type heeds. */
static bool same_filler(const struct sac_filler *a, const struct sac_filler *b)
{
    const char *type = filler_type(a);

    if (strcmp(type, filler_type(b)) != 0)
        return false;
    if (strcmp(type, "constant") == 0)
        return a->value == b->value;
    return strcmp(type, "gaussian") != 0 || (a->mean == b->mean && a->std == b->std);
}

/* Fillers and multipliers, which a graph does not show, as a solver sees them. */
static void assert_same_params(const struct sac_net *ours, const struct sac_net *theirs)
{
    assert_int_equal(sac_net_param_count(ours), sac_net_param_count(theirs));
    for (int i = 0; i < sac_net_param_count(ours); i++) {
        struct sac_net_param a, b;
        sac_net_param(ours, i, &a);
        sac_net_param(theirs, i, &b);
        assert_string_equal(a.name, b.name);
        if (a.lr_mult != b.lr_mult || a.decay_mult != b.decay_mult)
            fail_msg("%s: the multipliers differ", a.name);
    }
    for (int i = 0; i < sac_net_layer_count(theirs); i++) {
        const struct sac_layer *b = sac_net_layer(theirs, i), *a = layer_of(ours, b->name);
        for (int w = 0; w < b->weight_count; w++) {
            const struct sac_filler *x = &a->fillers[w], *y = &b->fillers[w];
            if (!same_filler(x, y))
                fail_msg("%s: the fillers differ", b->name);
        }
    }
}

static void train_vals_train_what_was_published(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        if (!pairs[i].published_train)
            continue;
        print_message("# %s\n", pairs[i].ours);
        struct sac_net *ours = load_ours(pairs[i].ours, "train_val", SAC_PHASE_TRAIN);
        struct sac_net *theirs = load(sac_test_data(pairs[i].published_train), SAC_PHASE_TRAIN);
        assert_same_weights(ours, theirs);
        assert_same_graph(ours, theirs, true);
        assert_same_params(ours, theirs);
        sac_net_free(ours);
        sac_net_free(theirs);
    }
}

/* The scores that the loss takes are those that the deploy's softmax takes, of the
 * same weights: what is trained can be served. */
static void check_train_val(const char *name, int64_t weights)
{
    struct sac_net *deploy = load_ours(name, "deploy", SAC_PHASE_TEST);

    assert_int_equal(sac_net_weight_count(deploy), weights);
    for (int phase = 0; phase < 2; phase++) {
        struct sac_net *net = load_ours(name, "train_val", (enum sac_phase)phase);
        for (int i = 0; i < sac_net_layer_count(deploy); i++) {
            const struct sac_layer *a = sac_net_layer(deploy, i), *b = layer_of(net, a->name);
            if (strcmp(a->name, "prob") == 0)
                continue;
            if (!b)
                fail_msg("%s: train_val has no layer \"%s\"", name, a->name);
            assert_int_equal(a->weight_count, b->weight_count);
            for (int w = 0; w < a->weight_count; w++)
                assert_same_shape(a->name, &a->weight_shapes[w], &b->weight_shapes[w], 0);
        }
        struct sac_graph *graph = graph_of(net, true);
        assert_int_equal(graph->values[graph->inputs[0]].shape.dim[0], 2);
        assert_true(graph->loss_count > 0);
        sac_graph_free(graph);
        sac_net_free(net);
    }
    sac_net_free(deploy);
}

static void train_vals_stand_and_have_the_deploys_weights(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        print_message("# %s\n", pairs[i].ours);
        check_train_val(pairs[i].ours, pairs[i].weights);
    }
}

/* The sum of the convolutions' 9·in·out, of 3·channels + 1 a BatchNorm, 2·channels a
 * Scale, and 256·10 + 10; under 8 MB. Multiplications: 9·in·out·side² each. */
static void the_default_model_is_as_large_as_it_says(void **state)
{
    static const int convolutions[8][3] = {{3, 32, 32},   {32, 64, 32},  {64, 64, 16},
                                           {64, 64, 16},  {64, 128, 16}, {128, 256, 8},
                                           {256, 256, 4}, {256, 256, 4}};
    int64_t weights = 2570, multiplications = 2560;
    struct sac_net *net = load_ours("cifar10", "deploy", SAC_PHASE_TEST);

    (void)state;
    for (int i = 0; i < 8; i++) {
        const int *c = convolutions[i];
        weights += 9 * c[0] * c[1] + 2 * c[1] + 1 + 2 * c[1];
        multiplications += (int64_t)9 * c[0] * c[1] * c[2] * c[2];
    }
    assert_int_equal(sac_net_weight_count(net), weights);
    assert_in_range(weights * 4, 6500000, 8000000);
    assert_in_range(multiplications, 94500000, 95500000);
    assert_blob_is(net, "prob", "1x10");
    sac_net_free(net);
    struct sac_net_input inputs[] = {{"data", {.rank = 4, .dim = {128, 3, 32, 32}}},
                                     {"label", {.rank = 1, .dim = {128}}}};
    for (int phase = 0; phase < 2; phase++) {
        struct sac_net_options options = {
            .phase = (enum sac_phase)phase, .inputs = inputs, .input_count = 2};
        struct sac_error err = {0};
        assert_ok(sac_net_load(&net, sac_test_source("models/cifar10/train_val.prototxt"), &options,
                               &err),
                  err);
        assert_int_equal(sac_net_weight_count(net), weights);
        sac_net_free(net);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deploys_are_the_published_nets),
        cmocka_unit_test(train_vals_train_what_was_published),
        cmocka_unit_test(train_vals_stand_and_have_the_deploys_weights),
        cmocka_unit_test(the_default_model_is_as_large_as_it_says),
    };

    return cmocka_run_group_tests_name("net/models", tests, NULL, NULL);
}
