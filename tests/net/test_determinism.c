/*
 * Is a picture's answer the same in every batch and place? The raw logits (before
 * softmax) are hashed for batches of 1 to 32 at every position, and compared with
 * those of a batch of one. With options.ops.deterministic they must agree, bit for
 * bit; without, it is reported whether they do.
 */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "net/rig.h"

enum { BATCH_MAX = 32, PICTURES = 2, LOGITS_MAX = 128 };

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
        for (int turn = 0; turn < PICTURES; turn++) {
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

static struct answers ask(enum sac_precision precision, bool deterministic)
{
    const struct sac_op_options ops = {.precision = precision, .deterministic = deterministic};
    struct answers answers = {0};

    ask_graph(&answers, small_areas, &ops);
    ask_graph(&answers, many_channels, &ops);
    print_message("# %s, deterministic %s: %d of %d answers differ from the picture's alone, by "
                  "up to %g\n",
                  sac_precision_name(precision), deterministic ? "on" : "off", answers.different,
                  answers.compared, answers.most);
    return answers;
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
    };
    return cmocka_run_group_tests_name("determinism", tests, NULL, NULL);
}
