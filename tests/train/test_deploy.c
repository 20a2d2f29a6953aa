/*
 * Deploy nets made from training nets, beside the deploy nets that Caffe's own authors
 * published for them: the same layers, with the same bottoms and tops.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "net/layer.h"
#include "train/deploy.h"

struct source {
    struct sac_caffe_net file;
    const Caffe__LayerParameter **layers;
    struct sac_deploy_source deploy;
};

/* The layers of a phase; the first with the input's top feeds the net. */
static struct source source_of(struct sac_caffe_net file, enum sac_phase phase, const int *shape)
{
    const struct sac_net_options options = {.phase = phase};
    struct source out = {.file = file};
    struct sac_error err = {0};

    out.layers = calloc(file.net->n_layer, sizeof *out.layers);
    assert_non_null(out.layers);
    out.deploy = (struct sac_deploy_source){.name = file.net->name, .shape = shape};
    for (size_t i = 0; i < file.net->n_layer; i++) {
        bool included = false;
        assert_ok(sac_layer_included(file.net->layer[i], NULL, &options, &included, &err), err);
        if (!included)
            continue;
        if (out.deploy.layer_count == 0)
            out.deploy.input = file.net->layer[i];
        out.layers[out.deploy.layer_count++] = file.net->layer[i];
    }
    out.deploy.layers = out.layers;
    return out;
}

static void source_done(struct source *source)
{
    free(source->layers);
    sac_caffe_net_done(&source->file);
}

static void assert_same_texts(const char *layer, char *const *a, size_t a_count, char *const *b,
                              size_t b_count)
{
    if (a_count != b_count)
        fail_msg("layer %s: %zu blobs, and published %zu", layer, a_count, b_count);
    for (size_t i = 0; i < a_count; i++)
        if (strcmp(a[i], b[i]) != 0)
            fail_msg("layer %s: blob %s, and published %s", layer, a[i], b[i]);
}

static void assert_published(const Caffe__NetParameter *made, const Caffe__NetParameter *published)
{
    assert_int_equal(made->n_layer, published->n_layer);
    for (size_t i = 0; i < made->n_layer; i++) {
        const Caffe__LayerParameter *a = made->layer[i], *b = published->layer[i];
        assert_string_equal(a->type, b->type);
        if (i > 0)
            assert_string_equal(a->name, b->name);
        assert_same_texts(a->name, a->bottom, a->n_bottom, b->bottom, b->n_bottom);
        assert_same_texts(a->name, a->top, a->n_top, b->top, b->n_top);
    }
}

static void assert_no_training_fields(const Caffe__NetParameter *made)
{
    struct sac_buf text = {0};

    assert_int_equal(sac_prototxt_print(&text, &made->base), 0);
    sac_buf_put(&text, "", 1);
    for (const char *const *word = (const char *const[]){"filler", "lr_mult", "include", "phase",
                                                         "\"label\"", "Loss", "loss_weight", NULL};
         *word; word++) {
        const char *at = strstr((char *)text.data, *word);
        if (at)
            fail_msg("\"%s\" in the deploy net: %.60s", *word, at);
    }
    sac_buf_done(&text);
}

static void check(const char *train, enum sac_phase phase, const char *published, int side,
                  int channels)
{
    const int shape[] = {channels, side, side};
    struct sac_caffe_net file = {0}, expected = {0}, made = {0};
    struct sac_error err = {0};

    assert_ok(sac_caffe_net_load(&file, sac_test_data(train), &err), err);
    assert_ok(sac_caffe_net_load(&expected, sac_test_data(published), &err), err);
    struct source source = source_of(file, phase, shape);
    assert_ok(sac_deploy_make(&made, &source.deploy, &err), err);
    assert_published(made.net, expected.net);
    assert_no_training_fields(made.net);
    const Caffe__BlobShape *input = made.net->layer[0]->input_param->shape[0];
    const int64_t want[] = {1, channels, side, side};
    assert_int_equal(input->n_dim, 4);
    assert_memory_equal(input->dim, want, sizeof want);
    sac_caffe_net_done(&made);
    sac_caffe_net_done(&expected);
    source_done(&source);
}

static void caffenet_deploys_as_published(void **state)
{
    (void)state;
    for (int phase = SAC_PHASE_TRAIN; phase <= SAC_PHASE_TEST; phase++)
        check("nets/bvlc_reference_caffenet/train_val.prototxt", (enum sac_phase)phase,
              "nets/bvlc_reference_caffenet/deploy.prototxt", 227, 3);
}

/* Its two other heads are for training alone. */
static void googlenet_deploys_as_published(void **state)
{
    (void)state;
    for (int phase = SAC_PHASE_TRAIN; phase <= SAC_PHASE_TEST; phase++)
        check("nets/bvlc_googlenet/train_val.prototxt", (enum sac_phase)phase,
              "nets/bvlc_googlenet/deploy.prototxt", 224, 3);
}

static void squeezenet_deploys_as_published(void **state)
{
    (void)state;
    check("squeezenet_v1.1/train_val.prototxt", SAC_PHASE_TEST, "squeezenet_v1.1/deploy.prototxt",
          227, 3);
}

static void lenet_deploys_as_published(void **state)
{
    (void)state;
    check("nets/lenet/lenet_train_test.prototxt", SAC_PHASE_TRAIN, "nets/lenet/lenet.prototxt", 28,
          1);
}

/* ---- Small nets ---- */

static int make(const char *layers, struct sac_caffe_net *ret, struct sac_error *err)
{
    static const int shape[] = {3, 8, 8};
    struct sac_caffe_net file = {0};
    char text[4000];
    int size = snprintf(text, sizeof text,
                        "layer { name: 'in' type: 'Data' top: 'data' top: 'label' } %s", layers);

    assert_ok(sac_caffe_net_parse(&file, "net", text, (size_t)size, err), *err);
    struct source source = source_of(file, SAC_PHASE_TRAIN, shape);
    int rc = sac_deploy_make(ret, &source.deploy, err);
    /* What was made borrows from the source; these cases look at types alone. */
    if (rc == 0)
        for (size_t i = 0; i < ret->net->n_layer; i++)
            ret->net->layer[i]->type = sac_arena_strdup(ret->arena, ret->net->layer[i]->type);
    source_done(&source);
    return rc;
}

#define FC "layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc' } "

static void losses_become_what_their_scores_mean(void **state)
{
    static const struct {
        const char *loss, *last;
    } cases[] = {
        {"layer { type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'l' }", "Softmax"},
        {"layer { type: 'SigmoidCrossEntropyLoss' bottom: 'fc' bottom: 'label' top: 'l' }",
         "Sigmoid"},
        {"layer { type: 'EuclideanLoss' bottom: 'fc' bottom: 'label' top: 'l' }", "InnerProduct"},
        {"layer { type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'a' }", "Softmax"},
    };
    char text[1000];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sac_caffe_net made = {0};
        struct sac_error err = {0};
        snprintf(text, sizeof text, FC "%s", cases[i].loss);
        assert_ok(make(text, &made, &err), err);
        assert_string_equal(made.net->layer[made.net->n_layer - 1]->type, cases[i].last);
        sac_caffe_net_done(&made);
    }
}

static void a_net_without_a_judge_has_no_deploy_net(void **state)
{
    struct sac_caffe_net made = {0};
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(make(FC, &made, &err), SAC_EUNSUPPORTED);
    assert_says(err, "no loss and no accuracy");
}

static void scores_that_need_labels_have_no_deploy_net(void **state)
{
    struct sac_caffe_net made = {0};
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(
        make("layer { name: 'sum' type: 'Eltwise' bottom: 'data' bottom: 'label' top: 'sum' } "
             "layer { type: 'SoftmaxWithLoss' bottom: 'sum' bottom: 'label' top: 'l' }",
             &made, &err),
        SAC_EUNSUPPORTED);
    assert_says(err, "\"label\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caffenet_deploys_as_published),
        cmocka_unit_test(googlenet_deploys_as_published),
        cmocka_unit_test(squeezenet_deploys_as_published),
        cmocka_unit_test(lenet_deploys_as_published),
        cmocka_unit_test(losses_become_what_their_scores_mean),
        cmocka_unit_test(a_net_without_a_judge_has_no_deploy_net),
        cmocka_unit_test(scores_that_need_labels_have_no_deploy_net),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
