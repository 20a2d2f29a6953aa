/*
 * Is a picture's answer the same in every batch and place? The raw logits (before
 * softmax) are hashed for batches of 1 to 32 at every position, and compared with
 * those of a batch of one. With options.ops.deterministic they must agree, bit for
 * bit; without, it is reported whether they do.
 */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "net/net.h"
#include "net/rig.h"

enum { BATCH_MAX = 32, PICTURES = 2, LOGITS_MAX = 1000 };

/* Convolutions of several kinds, pools and an inner product, on small areas. */
static struct sac_graph *small_areas(int batch)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, batch, 3, 17, 15));

    x = make_relu(graph, "relu1", make_conv(graph, "conv1", x, 16, 3, 2, 1, 1, true));
    x = make_pool(graph, "pool1", x, SAC_POOL_MAX, 2, 2);
    int y = make_conv(graph, "depthwise", x, 16, 3, 1, 1, 16, true);
    x = make_relu(graph, "sum", make_sum(graph, "add", x, y));
    x = make_relu(graph, "relu2", make_conv(graph, "conv2", x, 24, 3, 1, 1, 2, true));
    x = make_pool(graph, "pool2", x, SAC_POOL_AVE, 2, 2);
    make_outputs(graph, 1, make_inner(graph, "fc", x, 37));
    return graph;
}

/* Many channels on an area of one, as at the end of a classifier. */
static struct sac_graph *many_channels(int batch)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, batch, 64, 3, 3));

    x = make_relu(graph, "relu1", make_conv(graph, "conv1x1", x, 96, 1, 1, 0, 1, true));
    x = make_pool(graph, "global", x, SAC_POOL_AVE, 3, 1);
    x = make_relu(graph, "relu2", make_inner(graph, "fc1", x, 300));
    make_outputs(graph, 1, make_inner(graph, "fc2", x, 101));
    return graph;
}

/* As large as CaffeNet's: weights are the traffic, where a library likes to take
 * other arithmetic for a batch of one. */
static struct sac_graph *large_inner(int batch)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, batch, 256, 6, 6));

    x = make_relu(graph, "relu6", make_inner(graph, "fc6", x, 4096));
    make_outputs(graph, 1, make_inner(graph, "fc8", x, 1000));
    return graph;
}

/* A published net with its weights, up to the logits. */
struct published {
    const char *deploy, *weights, *logits;
    struct sac_net *net;
};

static struct published squeezenet = {"squeezenet_v1.1/deploy.prototxt",
                                      "squeezenet_v1.1/squeezenet_v1.1.caffemodel", "pool10", NULL};
static struct published cifar10_full = {"cifar10_models/cifar10_full.prototxt",
                                        "cifar10_models/cifar10_full_iter_70000.caffemodel", "ip1",
                                        NULL};
static struct published resnet20 = {
    "cifar10_models/resnet20/deploy_cifar10_resnet_20_ljf.prototxt",
    "cifar10_models/resnet20/cifar10_ResNet_20_iter_53500.caffemodel", NULL, NULL};

static struct sac_graph *graph_of(struct published *of, int batch)
{
    const struct sac_net_options options = {.phase = SAC_PHASE_TEST};
    struct sac_error err = {0};
    struct sac_graph *graph;

    if (!of->net) {
        assert_ok(sac_net_load(&of->net, sac_test_data(of->deploy), &options, &err), err);
        assert_ok(sac_net_load_weights(of->net, sac_test_data(of->weights), NULL, &err), err);
    }
    assert_ok(sac_net_graph(of->net, batch, &of->logits, of->logits ? 1 : 0, &graph, &err), err);
    return graph;
}

static struct sac_graph *squeezenet_graph(int batch)
{
    return graph_of(&squeezenet, batch);
}

static struct sac_graph *cifar10_full_graph(int batch)
{
    return graph_of(&cifar10_full, batch);
}

static struct sac_graph *resnet20_graph(int batch)
{
    return graph_of(&resnet20, batch);
}

static int free_published(void **state)
{
    (void)state;
    sac_net_free(squeezenet.net);
    sac_net_free(cifar10_full.net);
    sac_net_free(resnet20.net);
    return 0;
}

/* FNV-1a. */
static uint64_t hash(const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < size; i++)
        h = (h ^ at[i]) * 0x100000001b3u;
    return h;
}

struct answers {
    float logits[PICTURES][LOGITS_MAX]; /* of each picture alone */
    uint64_t hash[PICTURES];
    int64_t count; /* of a picture's logits */
    int compared, different;
    double most; /* the largest difference of a logit */
};

/* Picture (position + turn) % PICTURES stands at each position. */
static const float *run_turn(struct rig *rig, struct sac_plan *plan, int turn)
{
    const struct sac_tensor *input = sac_plan_input(plan, 0);
    int batch = sac_plan_batch(plan);
    int64_t size = sac_shape_count(&input->shape) / batch, count;

    for (int n = 0; n < batch; n++)
        make_floats((float *)input->data + n * size, size,
                    1000 + (uint64_t)((n + turn) % PICTURES));
    rig_forward(rig, plan);
    return rig_output(plan, 0, &count);
}

static void keep(struct answers *answers, int picture, const float *logits)
{
    size_t bytes = (size_t)answers->count * sizeof *logits;

    memcpy(answers->logits[picture], logits, bytes);
    answers->hash[picture] = hash(logits, bytes);
}

static void compare(struct answers *answers, int picture, const float *logits)
{
    size_t count = (size_t)answers->count;
    double d = sac_test_max_difference(logits, answers->logits[picture], count);

    answers->compared++;
    answers->different += hash(logits, count * sizeof *logits) != answers->hash[picture];
    answers->most = d > answers->most ? d : answers->most;
}

static void ask_graph(struct answers *answers, struct sac_graph *(*make)(int),
                      const struct sac_op_options *ops)
{
    struct rig rig = rig_open();
    struct sac_plan_options options = {.ops = *ops};

    for (int batch = 1; batch <= BATCH_MAX; batch++) {
        struct sac_plan *plan = rig_plan(&rig, make(batch), &options);
        answers->count = sac_plan_output(plan, 0)->shape.dim[1];
        assert_true(answers->count <= LOGITS_MAX);
        /* Alone each picture; else one turn, so that both come to every position. */
        for (int i = 0; i < (batch == 1 ? PICTURES : 1); i++) {
            int turn = (batch + i) % PICTURES;
            const float *logits = run_turn(&rig, plan, turn);
            if (batch == 1)
                keep(answers, turn, logits);
            for (int n = 0; n < batch && batch > 1; n++)
                compare(answers, (n + turn) % PICTURES, logits + n * answers->count);
        }
        sac_plan_free(plan);
    }
    assert_true(answers->hash[0] != answers->hash[1]); /* the hash tells pictures apart */
    rig_close(&rig);
}

static void ask_and_tell(struct answers *answers, const char *name, struct sac_graph *(*make)(int),
                         enum sac_precision precision, bool deterministic)
{
    const struct sac_op_options ops = {.precision = precision, .deterministic = deterministic};

    ask_graph(answers, make, &ops);
    print_message("# %s, %s, deterministic %s: %d of %d answers differ from the picture's alone, "
                  "by up to %g\n",
                  name, sac_precision_name(precision), deterministic ? "on" : "off",
                  answers->different, answers->compared, answers->most);
}

static struct answers ask(enum sac_precision precision, bool deterministic)
{
    struct answers answers = {0};

    ask_and_tell(&answers, "small graphs", small_areas, precision, deterministic);
    ask_and_tell(&answers, "small graphs", many_channels, precision, deterministic);
    return answers;
}

static void assert_one_answer(const char *name, struct sac_graph *(*make)(int))
{
    struct answers f32 = {0}, bf16 = {0};

    ask_and_tell(&f32, name, make, SAC_PRECISION_F32, true);
    ask_and_tell(&bf16, name, make, SAC_PRECISION_BF16, true);
    assert_int_equal(f32.different, 0);
    assert_int_equal(bf16.different, 0);
}

static void a_large_inner_product_gives_one_answer(void **state)
{
    (void)state;
    assert_one_answer("9216 × 4096 × 1000", large_inner);
}

static void squeezenet_gives_one_answer(void **state)
{
    (void)state;
    assert_one_answer("SqueezeNet", squeezenet_graph);
}

static void cifar10_full_gives_one_answer(void **state)
{
    (void)state;
    assert_one_answer("cifar10_full", cifar10_full_graph);
}

static void resnet20_gives_one_answer(void **state)
{
    (void)state;
    assert_one_answer("ResNet-20", resnet20_graph);
}

static void deterministic_f32_gives_one_answer_in_every_batch_and_place(void **state)
{
    (void)state;
    assert_int_equal(ask(SAC_PRECISION_F32, true).different, 0);
}

static void deterministic_bf16_gives_one_answer_in_every_batch_and_place(void **state)
{
    (void)state;
    assert_int_equal(ask(SAC_PRECISION_BF16, true).different, 0);
}

/* Logits are of size 1 here: f32 has 24 bits and bf16 8, over four layers. */
static void without_the_option_the_answers_are_near(void **state)
{
    (void)state;
    assert_true(ask(SAC_PRECISION_F32, false).most < 1e-5);
    assert_true(ask(SAC_PRECISION_BF16, false).most < 0.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deterministic_f32_gives_one_answer_in_every_batch_and_place),
        cmocka_unit_test(deterministic_bf16_gives_one_answer_in_every_batch_and_place),
        cmocka_unit_test(without_the_option_the_answers_are_near),
        cmocka_unit_test(a_large_inner_product_gives_one_answer),
        cmocka_unit_test(squeezenet_gives_one_answer),
        cmocka_unit_test(cifar10_full_gives_one_answer),
        cmocka_unit_test(resnet20_gives_one_answer),
    };
    return cmocka_run_group_tests_name("determinism", tests, NULL, free_published);
}
