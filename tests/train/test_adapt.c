/* Fine-tuning's nets: published deploy nets become nets for other classes. */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "net/net.h"
#include "train/adapt.h"

enum { CLASSES = 17 };

/* What feeds the two phases. */
static Caffe__LayerParameter feeds[2] = {CAFFE__LAYER_PARAMETER__INIT,
                                         CAFFE__LAYER_PARAMETER__INIT};
static Caffe__NetStateRule rules[2] = {CAFFE__NET_STATE_RULE__INIT, CAFFE__NET_STATE_RULE__INIT};
static Caffe__NetStateRule *includes[2] = {&rules[0], &rules[1]};
static char data_top[] = "data", label_top[] = "label", data_name[] = "in", data_type[] = "Data";
static char *tops[] = {data_top, label_top};

struct adapted {
    struct sac_caffe_net source;
    struct sac_arena *arena;
    struct sac_adapted nets;
};

static struct sac_adapt_options options_of(int frozen)
{
    for (int i = 0; i < 2; i++) {
        rules[i].has_phase = 1;
        rules[i].phase = i == 0 ? CAFFE__PHASE__TRAIN : CAFFE__PHASE__TEST;
        feeds[i].name = data_name;
        feeds[i].type = data_type;
        feeds[i].top = tops;
        feeds[i].n_top = 2;
        feeds[i].include = &includes[i];
        feeds[i].n_include = 1;
    }
    return (struct sac_adapt_options){.classes = CLASSES,
                                      .suffix = "_new",
                                      .frozen = frozen,
                                      .early_mult = 0.5F,
                                      .last_mult = 10,
                                      .smoothing = 0.1F,
                                      .train_data = &feeds[0],
                                      .test_data = &feeds[1]};
}

static void adapt(struct adapted *a, const char *path, int frozen)
{
    struct sac_adapt_options options = options_of(frozen);
    struct sac_error err = {0};

    *a = (struct adapted){.arena = sac_arena_new(0)};
    assert_non_null(a->arena);
    assert_ok(sac_caffe_net_load(&a->source, path, &err), err);
    assert_ok(sac_adapt(&a->nets, a->source.net, &options, a->arena, &err), err);
}

static void adapted_done(struct adapted *a)
{
    sac_caffe_net_done(&a->source);
    sac_arena_free(a->arena);
}

static Caffe__LayerParameter *layer_of(const Caffe__NetParameter *net, const char *name)
{
    for (size_t i = 0; i < net->n_layer; i++)
        if (strcmp(net->layer[i]->name, name) == 0)
            return net->layer[i];
    fail_msg("no layer \"%s\"", name);
    return NULL;
}

static const char *scores_of(const struct adapted *a)
{
    return layer_of(a->nets.train_val, "loss")->bottom[0];
}

/* The net as a program would read it back. */
static struct sac_net *read_back(const Caffe__NetParameter *message, int64_t side,
                                 enum sac_phase phase)
{
    struct sac_net_input inputs[2] = {{"data", {4, {2, 3, side, side}}}, {"label", {1, {2}}}};
    struct sac_net_options options = {.phase = phase, .inputs = inputs, .input_count = 2};
    struct sac_error err = {0};
    struct sac_buf text = {0};
    struct sac_net *net = NULL;

    assert_int_equal(sac_prototxt_print(&text, &message->base), 0);
    assert_ok(sac_net_parse(&net, "adapted", text.data, text.len, &options, &err), err);
    sac_buf_done(&text);
    return net;
}

static void squeezenet_gets_a_new_last_layer_and_the_same_trunk(void **state)
{
    char path[4096];
    struct adapted a;
    struct sac_shape shape;
    struct sac_weights_report report = {0};
    struct sac_error err = {0};

    (void)state;
    snprintf(path, sizeof path, "%s/deploy.prototxt", sac_test_data("squeezenet_v1.1"));
    adapt(&a, path, 6);
    assert_string_equal(a.nets.last, "conv10_new");
    struct sac_net *net = read_back(a.nets.train_val, 227, SAC_PHASE_TEST);
    assert_true(sac_net_blob_shape(net, scores_of(&a), &shape));
    assert_int_equal(shape.dim[1], CLASSES);
    snprintf(path, sizeof path, "%s/squeezenet_v1.1.caffemodel", sac_test_data("squeezenet_v1.1"));
    assert_ok(sac_net_load_weights(net, path, &report, &err), err);
    /* 26 convolutions, as published: 25 come with their weights, conv10 does not. */
    assert_int_equal(report.layers_copied, 25);
    assert_string_equal(report.first_missing, "conv10_new");
    assert_int_equal(sac_adapt_learnable(a.source.net), 26);
    sac_net_free(net);
    adapted_done(&a);
}

static void rates_follow_the_frozen_line(void **state)
{
    char path[4096];
    struct adapted a;

    (void)state;
    snprintf(path, sizeof path, "%s/deploy.prototxt", sac_test_data("squeezenet_v1.1"));
    adapt(&a, path, 4); /* conv1 and fire2's three */
    const Caffe__NetParameter *net = a.nets.train_val;
    const Caffe__LayerParameter *frozen = layer_of(net, "fire2/expand3x3");
    const Caffe__LayerParameter *early = layer_of(net, "fire3/squeeze1x1");
    const Caffe__LayerParameter *last = layer_of(net, "conv10_new");
    assert_int_equal(frozen->n_param, 2);
    assert_float_equal(frozen->param[0]->lr_mult, 0, 0);
    assert_float_equal(frozen->param[1]->lr_mult, 0, 0);
    assert_float_equal(early->param[0]->lr_mult, 0.5, 0);
    assert_float_equal(early->param[1]->lr_mult, 1, 0);
    assert_float_equal(early->param[1]->decay_mult, 0, 0);
    assert_float_equal(last->param[0]->lr_mult, 10, 0);
    assert_float_equal(last->param[1]->lr_mult, 20, 0);
    assert_float_equal(layer_of(net, "loss")->loss_param->label_smoothing, 0.1F, 0);
    adapted_done(&a);
}

/* Caffe's default filler is the constant 0, with which nothing is learnt from scratch. */
static void every_layer_says_how_its_weights_start(void **state)
{
    struct adapted a;

    (void)state;
    adapt(&a, sac_test_data("nets/vgg16/VGG_ILSVRC_16_layers_deploy.prototxt"), 0);
    assert_string_equal(
        layer_of(a.nets.train_val, "conv1_1")->convolution_param->weight_filler->type, "xavier");
    assert_string_equal(layer_of(a.nets.train_val, "fc6")->inner_product_param->weight_filler->type,
                        "xavier");
    assert_string_equal(
        layer_of(a.nets.train_val, "fc8_new")->inner_product_param->weight_filler->type,
        "gaussian");
    adapted_done(&a);
}

/* Counts: GoogLeNet's is from its publication (57 convolutions and one classifier in the
 * deploy net); the others' are what their names say. */
static void published_nets_adapt_and_train(void **state)
{
    static const struct {
        const char *path, *last;
        int learnable, side;
    } nets[] = {
        {"nets/bvlc_alexnet/deploy.prototxt", "fc8_new", 8, 227},
        {"nets/bvlc_reference_caffenet/deploy.prototxt", "fc8_new", 8, 227},
        {"nets/bvlc_googlenet/deploy.prototxt", "loss3/classifier_new", 58, 224},
        {"nets/vgg16/VGG_ILSVRC_16_layers_deploy.prototxt", "fc8_new", 16, 224},
        {"nets/vgg19/VGG_ILSVRC_19_layers_deploy.prototxt", "fc8_new", 19, 224},
        {"nets/vgg_cnn_s/VGG_CNN_S_deploy.prototxt", "fc8_new", 8, 224},
        {"nets/resnet50/ResNet-50-deploy.prototxt", "fc1000_new", 54, 224},
        {"nets/mobilenet/mobilenet_deploy.prototxt", "fc7_new", 28, 224},
    };

    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++) {
        struct adapted a;
        struct sac_shape shape;
        adapt(&a, sac_test_data(nets[i].path), 3);
        assert_string_equal(a.nets.last, nets[i].last);
        assert_int_equal(sac_adapt_learnable(a.source.net), nets[i].learnable);
        struct sac_net *net = read_back(a.nets.train_val, nets[i].side, SAC_PHASE_TRAIN);
        assert_true(sac_net_blob_shape(net, scores_of(&a), &shape));
        assert_int_equal(shape.dim[1], CLASSES);
        sac_net_free(net);
        adapted_done(&a);
    }
}

static void only_frozen_statistics_are_kept(void **state)
{
    struct adapted a;

    (void)state;
    adapt(&a, sac_test_data("nets/resnet50/ResNet-50-deploy.prototxt"), 1);
    assert_true(layer_of(a.nets.train_val, "bn_conv1")->batch_norm_param->use_global_stats);
    assert_float_equal(layer_of(a.nets.train_val, "scale_conv1")->param[0]->lr_mult, 0, 0);
    assert_false(
        layer_of(a.nets.train_val, "bn2a_branch1")->batch_norm_param->has_use_global_stats);
    assert_float_equal(layer_of(a.nets.train_val, "scale2a_branch1")->param[0]->decay_mult, 0, 0);
    adapted_done(&a);
}

static void a_net_that_cannot_be_adapted_is_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } nets[] = {
        {"layer{name:'r' type:'ReLU' bottom:'data' top:'r'}", "no Input"},
        {"input:'data' input_dim:1 input_dim:3 input_dim:8 input_dim:8 "
         "layer{name:'r' type:'ReLU' bottom:'data' top:'r'}",
         "to replace"},
        {"input:'picture' input_dim:1 input_dim:3 input_dim:8 input_dim:8 "
         "layer{name:'f' type:'InnerProduct' bottom:'picture' top:'f' "
         "inner_product_param{num_output:4}}",
         "\"picture\""},
        {"input:'data' input_dim:1 input_dim:3 input_dim:8 input_dim:8 "
         "layer{name:'f' type:'InnerProduct' bottom:'data' top:'f' "
         "inner_product_param{num_output:4}} layer{name:'s' type:'Scale' bottom:'f' top:'f'}",
         "\"s\" (Scale) stands behind"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++) {
        struct sac_adapt_options options = options_of(0);
        struct sac_caffe_net source;
        struct sac_adapted out;
        struct sac_error err = {0};
        struct sac_arena *arena = sac_arena_new(0);
        assert_ok(sac_caffe_net_parse(&source, "net", nets[i].text, strlen(nets[i].text), &err),
                  err);
        assert_true(sac_adapt(&out, source.net, &options, arena, &err) < 0);
        assert_says(err, nets[i].says);
        sac_caffe_net_done(&source);
        sac_arena_free(arena);
    }
}

static void too_little_memory_is_an_error(void **state)
{
    struct sac_adapt_options options = options_of(0);
    struct sac_caffe_net source;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_caffe_net_load(&source, sac_test_data("nets/bvlc_alexnet/deploy.prototxt"), &err),
              err);
    for (size_t bytes = 64; bytes < 8192; bytes += 256) {
        struct sac_arena *arena = sac_arena_new(bytes);
        struct sac_adapted out;
        err = (struct sac_error){0};
        int rc = sac_adapt(&out, source.net, &options, arena, &err);
        assert_true(rc == 0 || rc == SAC_ENOMEM);
        sac_arena_free(arena);
    }
    sac_caffe_net_done(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(squeezenet_gets_a_new_last_layer_and_the_same_trunk),
        cmocka_unit_test(rates_follow_the_frozen_line),
        cmocka_unit_test(every_layer_says_how_its_weights_start),
        cmocka_unit_test(published_nets_adapt_and_train),
        cmocka_unit_test(only_frozen_statistics_are_kept),
        cmocka_unit_test(a_net_that_cannot_be_adapted_is_refused),
        cmocka_unit_test(too_little_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
