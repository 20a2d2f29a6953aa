#include "support/support.h"

#include <stdio.h>
#include <string.h>

#include "device/graph.h"

static const struct sac_shape shape = {2, {1, 4}};

/* in → relu "r" → a; in, a → eltwise "e" → b; outputs: b. */
static struct sac_graph *small(int *in, int *a, int *b)
{
    struct sac_error err = {0};
    struct sac_graph *graph;
    struct sac_node *node;

    assert_ok(sac_graph_new(&graph, &err), err);
    *in = sac_graph_add_value(graph, "in", &shape);
    *a = sac_graph_add_value(graph, "a", &shape);
    *b = sac_graph_add_value(graph, "b", &shape);
    node = sac_graph_add_node(graph, SAC_OP_RELU, "r", 1, 1);
    node->src[0] = *in;
    node->dst[0] = *a;
    node = sac_graph_add_node(graph, SAC_OP_ELTWISE, "e", 2, 1);
    node->src[0] = *in;
    node->src[1] = *a;
    node->dst[0] = *b;
    assert_int_equal(sac_graph_set_inputs(graph, in, 1), 0);
    assert_int_equal(sac_graph_set_outputs(graph, b, 1), 0);
    return graph;
}

static void uses_and_producers_are_counted(void **state)
{
    int in, a, b;
    struct sac_graph *graph = small(&in, &a, &b);

    (void)state;
    assert_int_equal(sac_graph_use_count(graph, in), 2);
    assert_int_equal(sac_graph_use_count(graph, a), 1);
    assert_int_equal(sac_graph_use_count(graph, b), 1);
    assert_int_equal(sac_graph_producer(graph, in), -1);
    assert_int_equal(sac_graph_producer(graph, b), 1);
    graph->nodes[1].epilogue.sum = a;
    assert_int_equal(sac_graph_use_count(graph, a), 2);
    sac_graph_free(graph);
    sac_graph_free(NULL);
}

static void replacing_reaches_sources_sums_and_outputs(void **state)
{
    int in, a, b;
    struct sac_graph *graph = small(&in, &a, &b);

    (void)state;
    graph->nodes[1].epilogue.sum = a;
    sac_graph_replace_uses(graph, a, in);
    assert_int_equal(graph->nodes[1].src[1], in);
    assert_int_equal(graph->nodes[1].epilogue.sum, in);
    sac_graph_replace_uses(graph, b, a);
    assert_int_equal(graph->outputs[0], a);
    assert_int_equal(graph->nodes[1].dst[0], b);
    sac_graph_free(graph);
}

static void compacting_removes_marked_nodes_and_keeps_the_order(void **state)
{
    int in, a, b;
    struct sac_graph *graph = small(&in, &a, &b);

    (void)state;
    graph->nodes[0].kind = SAC_OP_KINDS;
    assert_int_equal(sac_graph_use_count(graph, in), 1);
    assert_int_equal(sac_graph_producer(graph, a), -1);
    sac_graph_compact(graph);
    assert_int_equal(graph->node_count, 1);
    assert_string_equal(graph->nodes[0].name, "e");
    sac_graph_free(graph);
}

static void a_graph_grows_past_its_first_room(void **state)
{
    struct sac_error err = {0};
    struct sac_graph *graph;
    char name[16];

    (void)state;
    assert_ok(sac_graph_new(&graph, &err), err);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "v%d", i);
        assert_int_equal(sac_graph_add_value(graph, name, &shape), i);
        assert_int_equal(sac_graph_add_constant(graph, name, &shape, NULL), i);
        struct sac_node *node = sac_graph_add_node(graph, SAC_OP_RELU, name, 1, 1);
        assert_non_null(node);
        assert_int_equal(node->epilogue.sum, -1);
        node->dst[0] = i;
    }
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "v%d", i);
        assert_string_equal(graph->values[i].name, name);
        assert_string_equal(graph->constants[i].name, name);
        assert_int_equal(sac_graph_producer(graph, i), i);
    }
    sac_graph_free(graph);
}

static void names_are_joined_and_kinds_have_names(void **state)
{
    int in, a, b;
    struct sac_graph *graph = small(&in, &a, &b);

    (void)state;
    assert_string_equal(sac_graph_join_names(graph, "conv1", "relu1"), "conv1+relu1");
    for (int kind = 0; kind < SAC_OP_KINDS; kind++)
        assert_true(strlen(sac_op_kind_name((enum sac_op_kind)kind)) > 0);
    sac_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uses_and_producers_are_counted),
        cmocka_unit_test(replacing_reaches_sources_sums_and_outputs),
        cmocka_unit_test(compacting_removes_marked_nodes_and_keeps_the_order),
        cmocka_unit_test(a_graph_grows_past_its_first_room),
        cmocka_unit_test(names_are_joined_and_kinds_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
