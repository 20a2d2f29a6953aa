/*
 * Concatenations whose sources are written where they belong, and pools moved before
 * them. What is expected, bit for bit, is what the same graph gives when every value is
 * also an output: then nothing but copying is left.
 */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "net/net_support.h"
#include "net/rig.h"

/* ---- What was done --------------------------------------------------------- */

struct done {
    int concats, pools; /* steps */
    int in_place;       /* concatenations of which only some sources are copied */
    double copied;      /* bytes, there and back */
};

static struct done look(const struct sac_plan *plan)
{
    struct done done = {0};

    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        struct sac_plan_step step;
        sac_plan_step(plan, i, &step);
        done.pools += step.kind == SAC_OP_POOL;
        done.concats += step.kind == SAC_OP_CONCAT;
        done.in_place += strstr(step.kernel, "in place") != NULL;
        done.copied += step.kind == SAC_OP_CONCAT ? step.bytes : 0;
    }
    return done;
}

static bool same_bits(const struct sac_plan *a, const struct sac_plan *b)
{
    int64_t count, other;
    const float *x = rig_output(a, 0, &count), *y = rig_output(b, 0, &other);

    assert_int_equal(count, other);
    return memcmp(x, y, (size_t)count * sizeof *x) == 0;
}

/* Every value an output, the graph's own first. */
static void keep_all(struct sac_graph *graph)
{
    int *all = calloc((size_t)graph->value_count, sizeof *all), count = 1;

    assert_non_null(all);
    all[0] = graph->outputs[0];
    for (int v = 0; v < graph->value_count; v++)
        if (v != all[0])
            all[count++] = v;
    assert_int_equal(sac_graph_set_outputs(graph, all, count), 0);
    free(all);
}

/* Runs the graph both ways, twice; what the first did. A store of their own: constants go
 * by their names. */
static struct done both_ways(struct sac_graph *(*make)(uint64_t seed), uint64_t seed,
                             enum sac_precision precision)
{
    const struct sac_plan_options options = {.ops.precision = precision};
    struct sac_graph *kept = make(seed);
    struct rig rig = rig_open();

    keep_all(kept);
    struct sac_plan *a = rig_plan(&rig, make(seed), &options);
    struct sac_plan *b = rig_plan(&rig, kept, &options);
    for (uint64_t run = 1; run <= 2; run++) {
        rig_run(&rig, a, run);
        rig_run(&rig, b, run);
        if (!same_bits(a, b))
            fail_msg("seed %d, %s: other numbers", (int)seed, sac_precision_name(precision));
    }
    assert_int_equal(look(b).in_place, 0);
    struct done done = look(a);
    sac_plan_free(a);
    sac_plan_free(b);
    rig_close(&rig);
    return done;
}

/* ---- Graphs ---------------------------------------------------------------- */

/* 3 × 3, and the area stays. */
static int pool_around(struct sac_graph *graph, int src, enum sac_pool_method method)
{
    int out = make_op(graph, SAC_OP_POOL, "pool", graph->values[src].shape, 1, src);

    make_last(graph)->param.pool.window = (struct sac_window){{3, 3}, {1, 1}, {1, 1}, {1, 1}};
    make_last(graph)->param.pool.method = method;
    return out;
}

static struct sac_graph *two_pools(uint64_t batch)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, (int)batch, 24, 9, 7));
    int a = pool_around(graph, x, SAC_POOL_MAX), b = pool_around(graph, x, SAC_POOL_AVE);
    int both = make_concat(graph, "concat", a, b);

    make_outputs(graph, 1, make_conv(graph, "conv", both, 8, 1, 1, 0, 1, true));
    return graph;
}

static void what_pools_write_is_not_copied(void **state)
{
    (void)state;
    for (uint64_t batch = 1; batch <= 3; batch += 2) {
        struct done done = both_ways(two_pools, batch, SAC_PRECISION_F32);
        assert_int_equal(done.concats, 0);
        assert_int_equal(both_ways(two_pools, batch, SAC_PRECISION_BF16).concats, 0);
    }
}

/* SqueezeNet's: 1 × 1 by one kernel and 3 × 3 by another, side by side. */
static struct sac_graph *fire(uint64_t squeezed)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 2, 24, 29, 30));
    int s = make_relu(graph, "relu", make_conv(graph, "s", x, (int)squeezed, 1, 1, 0, 1, true));
    int a = make_relu(graph, "relu_a", make_conv(graph, "a", s, 64, 1, 1, 0, 1, true));
    int b = make_relu(graph, "relu_b", make_conv(graph, "b", s, 64, 3, 1, 1, 1, true));
    int both = make_concat(graph, "concat", a, b);

    make_outputs(graph, 1, make_conv(graph, "conv", both, 16, 1, 1, 0, 1, true));
    return graph;
}

static bool has_winograd(void)
{
    const struct sac_plan_options none = {0};
    struct rig rig = rig_open();
    struct sac_plan *plan = rig_plan(&rig, fire(16), &none);
    bool found = false;

    for (int i = 0; i < sac_plan_step_count(plan); i++) {
        struct sac_plan_step step;
        sac_plan_step(plan, i, &step);
        found |= strstr(step.kernel, "Winograd") != NULL;
    }
    sac_plan_free(plan);
    rig_close(&rig);
    return found;
}

static void winograd_writes_its_part(void **state)
{
    (void)state;
    if (!has_winograd()) {
        print_message("# skipped: no AVX-512, or no oneDNN\n");
        skip();
    }
    struct done done = both_ways(fire, 16, SAC_PRECISION_F32);
    assert_int_equal(done.in_place, 1);
    assert_true(done.copied == 2. * 4 * 2 * 64 * 29 * 30); /* the other part */
}

/* A concatenation in a concatenation; a source that is an input, one that is read twice,
 * and one that is there twice. */
static struct sac_graph *nested(uint64_t seed)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 2, 16, 6, 6));
    int a = pool_around(graph, x, SAC_POOL_MAX), b = pool_around(graph, a, SAC_POOL_AVE);
    int inner = make_concat(graph, "inner", b, pool_around(graph, x, SAC_POOL_AVE));
    int c = pool_around(graph, a, SAC_POOL_AVE);
    int outer = make_concat(graph, "outer", c, inner);
    int twice = make_concat(graph, "twice", c, c);
    int all = make_concat(graph, "all", make_concat(graph, "most", outer, x), twice);

    (void)seed;
    make_outputs(graph, 1, make_conv(graph, "conv", all, 8, 1, 1, 0, 1, true));
    return graph;
}

static void parts_of_parts_stand_where_they_belong(void **state)
{
    (void)state;
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        struct done done = both_ways(nested, 0, bf16 ? SAC_PRECISION_BF16 : SAC_PRECISION_F32);
        assert_int_equal(done.concats, 3); /* outer: c; most: the input; twice */
        assert_int_equal(done.in_place, 2);
    }
}

/* Max and mean; into one convolution. */
static struct sac_graph *pooled_concat(uint64_t method)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 2, 16, 11, 11));
    int a = make_conv(graph, "a", x, 32, 1, 1, 0, 1, true);
    int b = make_conv(graph, "b", x, 48, 1, 1, 0, 1, true);
    int both = make_concat(graph, "concat", a, b);
    int pooled = make_pool(graph, "pool", both, (enum sac_pool_method)method, 3, 2);

    make_outputs(graph, 1, make_conv(graph, "conv", pooled, 8, 1, 1, 0, 1, true));
    return graph;
}

static void a_pool_behind_a_concatenation_goes_before_it(void **state)
{
    static const enum sac_pool_method methods[] = {SAC_POOL_MAX, SAC_POOL_AVE};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct done done = both_ways(pooled_concat, (uint64_t)methods[i % 2],
                                     i < 2 ? SAC_PRECISION_F32 : SAC_PRECISION_BF16);
        assert_int_equal(done.concats, 0);
        assert_int_equal(done.pools, 2);
    }
}

/* ---- Random graphs --------------------------------------------------------- */

static int some(uint64_t *seed, int count)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((*seed >> 33) % (uint64_t)count);
}

static int random_op(struct sac_graph *graph, uint64_t *seed)
{
    int near = graph->value_count > 4 ? graph->value_count - 4 : 0; /* mostly of late */
    int a = near + some(seed, graph->value_count - near), b = some(seed, graph->value_count);

    switch (some(seed, 8)) {
    case 0:
        return make_relu(graph, "relu", a);
    case 1:
        return pool_around(graph, a, SAC_POOL_MAX);
    case 2:
        return pool_around(graph, a, SAC_POOL_AVE);
    case 3:
        return make_conv(graph, "conv1", a, 16 + 8 * some(seed, 3), 1, 1, 0, 1, true);
    case 4:
        return make_conv(graph, "conv3", a, 64, 3, 1, 1, 1, true);
    default:
        if (graph->values[a].shape.dim[1] + graph->values[b].shape.dim[1] > 400)
            return make_relu(graph, "relu", a);
        return make_concat(graph, "concat", a, b);
    }
}

static struct sac_graph *random_graph(uint64_t seed)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1 + (int)(seed % 3), 16, 12, 13));

    for (int i = 0; i < 14; i++)
        x = random_op(graph, &seed);
    x = make_concat(graph, "last", x, x - 1);
    x = make_pool(graph, "small", x, SAC_POOL_MAX, 3, 2);
    make_outputs(graph, 1, make_conv(graph, "end", x, 5, 1, 1, 0, 1, true));
    /* Each constant is named by its layer: make the names of one graph differ. */
    for (int i = 0; i < graph->constant_count; i++) {
        char *name = sac_arena_alloc(graph->arena, 24);
        snprintf(name, 24, "constant %d", i);
        graph->constants[i].name = name;
    }
    return graph;
}

static void random_graphs_give_the_same_bits(void **state)
{
    int in_place = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct done done =
            both_ways(random_graph, seed * 977, seed % 2 ? SAC_PRECISION_F32 : SAC_PRECISION_BF16);
        in_place += done.in_place + (done.concats == 0);
    }
    assert_true(in_place > 30); /* it does happen */
}

/* ---- A published net -------------------------------------------------------- */

static struct sac_plan *plan_net(struct rig *rig, const struct sac_net *net,
                                 struct sac_plan_options options)
{
    struct sac_plan *plan = NULL;
    struct sac_error err = {0};

    assert_ok(sac_plan_new(&plan, net, rig->device, rig->store, rig->stream, &options, &err), err);
    return plan;
}

/* Eight fires join two convolutions each; two of them are pooled at once. */
static void squeezenet_gives_the_same_bits_with_fewer_copies(void **state)
{
    static const char *const kept[] = {"prob",
                                       "fire2/expand1x1",
                                       "fire2/expand3x3",
                                       "fire3/expand1x1",
                                       "fire3/expand3x3",
                                       "fire4/expand1x1",
                                       "fire4/expand3x3",
                                       "fire5/expand1x1",
                                       "fire5/expand3x3",
                                       "fire3/concat",
                                       "fire5/concat"};
    const struct sac_net_options options = {.phase = SAC_PHASE_TEST};
    struct sac_net *net = NULL;
    struct rig rig = rig_open();
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_net_load(&net, sac_test_data("squeezenet_v1.1/deploy.prototxt"), &options, &err),
              err);
    assert_ok(sac_net_load_weights(net, sac_test_data("squeezenet_v1.1/squeezenet_v1.1.caffemodel"),
                                   NULL, &err),
              err);
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        struct sac_plan_options how = {
            .batch = 2, .ops.precision = bf16 ? SAC_PRECISION_BF16 : SAC_PRECISION_F32};
        struct sac_plan *a = plan_net(&rig, net, how);
        how.wanted = kept;
        how.wanted_count = sizeof kept / sizeof *kept;
        struct sac_plan *b = plan_net(&rig, net, how);
        rig_run(&rig, a, 3);
        rig_run(&rig, b, 3);
        assert_true(same_bits(a, b));
        struct done less = look(a), more = look(b);
        print_message("# %s: %.1f MB copied, %.1f with all blobs kept\n", bf16 ? "bf16" : "f32",
                      less.copied / 1e6, more.copied / 1e6);
        assert_true(less.copied < .8 * more.copied);
        sac_plan_free(a);
        sac_plan_free(b);
    }
    sac_net_free(net);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_pools_write_is_not_copied),
        cmocka_unit_test(winograd_writes_its_part),
        cmocka_unit_test(parts_of_parts_stand_where_they_belong),
        cmocka_unit_test(a_pool_behind_a_concatenation_goes_before_it),
        cmocka_unit_test(random_graphs_give_the_same_bits),
        cmocka_unit_test(squeezenet_gives_the_same_bits_with_fewer_copies),
    };
    return cmocka_run_group_tests_name("plan_parts", tests, NULL, NULL);
}
