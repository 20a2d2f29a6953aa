/*
 * The passes, checked by evaluating graphs before and after them with the plain
 * formulas below, in double precision (reference: Caffe's layer definitions).
 */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "net/make_graph.h"
#include "net/passes.h"

/* ---- A little evaluator --------------------------------------------------- */

enum { VALUES_MAX = 64 };

struct run {
    const struct sac_graph *graph;
    double *data[VALUES_MAX];
};

static int64_t count_of(const struct sac_graph *graph, int value)
{
    return sac_shape_count(&graph->values[value].shape);
}

static const float *weight(const struct run *run, const struct sac_node *node, int index)
{
    return index < node->weight_count ? run->graph->constants[node->weight[index]].data : NULL;
}

static double at(const double *x, const int64_t *dim, int64_t n, int64_t c, int64_t h, int64_t w)
{
    if (h < 0 || w < 0 || h >= dim[2] || w >= dim[3])
        return 0;
    return x[((n * dim[1] + c) * dim[2] + h) * dim[3] + w];
}

static double conv_at(const struct run *run, const struct sac_node *node, const int64_t out[4])
{
    const int64_t *from = run->graph->values[node->src[0]].shape.dim;
    const int64_t *to = run->graph->values[node->dst[0]].shape.dim;
    const struct sac_window *w = &node->param.conv.window;
    int64_t group = node->param.conv.group, inputs = from[1] / group;
    int64_t first = out[1] / (to[1] / group) * inputs;
    const float *filter = weight(run, node, 0), *bias = weight(run, node, 1);
    double sum = bias ? (double)bias[out[1]] : 0;

    for (int64_t i = 0; i < inputs; i++)
        for (int64_t y = 0; y < w->kernel[0]; y++)
            for (int64_t x = 0; x < w->kernel[1]; x++)
                sum +=
                    (double)filter[((out[1] * inputs + i) * w->kernel[0] + y) * w->kernel[1] + x] *
                    at(run->data[node->src[0]], from, out[0], first + i,
                       out[2] * w->stride[0] - w->pad[0] + y,
                       out[3] * w->stride[1] - w->pad[1] + x);
    return sum;
}

/* Stride 1 and no padding: y[o, h + i] gathers x[h] · w[o, i]. */
static double deconv_at(const struct run *run, const struct sac_node *node, const int64_t out[4])
{
    const int64_t *from = run->graph->values[node->src[0]].shape.dim;
    const int64_t *to = run->graph->values[node->dst[0]].shape.dim;
    const struct sac_window *w = &node->param.conv.window;
    int64_t group = node->param.conv.group, inputs = from[1] / group, outputs = to[1] / group;
    int64_t g = out[1] / outputs;
    const float *filter = weight(run, node, 0), *bias = weight(run, node, 1);
    double sum = bias ? (double)bias[out[1]] : 0;

    for (int64_t i = g * inputs; i < (g + 1) * inputs; i++)
        for (int64_t y = 0; y < w->kernel[0]; y++)
            for (int64_t x = 0; x < w->kernel[1]; x++)
                sum += (double)filter[((i * outputs + out[1] % outputs) * w->kernel[0] + y) *
                                          w->kernel[1] +
                                      x] *
                       at(run->data[node->src[0]], from, out[0], i, out[2] - y, out[3] - x);
    return sum;
}

static double inner_at(const struct run *run, const struct sac_node *node, int64_t n, int64_t o)
{
    const struct sac_shape *from = &run->graph->values[node->src[0]].shape;
    int64_t inputs = sac_shape_count_between(from, 1, from->rank);
    int64_t outputs = run->graph->values[node->dst[0]].shape.dim[1];
    const float *filter = weight(run, node, 0), *bias = weight(run, node, 1);
    double sum = bias ? (double)bias[o] : 0;

    for (int64_t i = 0; i < inputs; i++)
        sum += run->data[node->src[0]][n * inputs + i] * (double)(node->param.inner.transpose
                                                                      ? filter[i * outputs + o]
                                                                      : filter[o * inputs + i]);
    return sum;
}

static double batchnorm(const struct run *run, const struct sac_node *node, double x, int64_t c)
{
    double factor = (double)weight(run, node, 2)[0];
    double unit = factor == 0 ? 0 : 1 / factor;
    double mean = (double)weight(run, node, 0)[c] * unit;
    double variance = (double)weight(run, node, 1)[c] * unit;

    return (x - mean) / sqrt(variance + (double)node->param.batchnorm.eps);
}

static double scale(const struct run *run, const struct sac_node *node, double x, int64_t c)
{
    const float *first = weight(run, node, 0), *second = weight(run, node, 1);

    if (node->kind == SAC_OP_BIAS)
        return x + (double)first[c];
    return x * (double)first[c] + (second ? (double)second[c] : 0);
}

static double element(const struct run *run, const struct sac_node *node, int64_t index)
{
    const struct sac_shape *to = &run->graph->values[node->dst[0]].shape;
    int64_t inner = sac_shape_count_between(to, 2, to->rank);
    int64_t c = index / inner % to->dim[1], n = index / inner / to->dim[1];
    int64_t width = to->rank > 3 ? to->dim[3] : 1;
    int64_t out[4] = {n, c, index % inner / width, index % inner % width};
    double x = run->data[node->src[0]]
                   ? run->data[node->src[0]][index % count_of(run->graph, node->src[0])]
                   : 0;

    switch ((int)node->kind) {
    case SAC_OP_CONV:
        return conv_at(run, node, out);
    case SAC_OP_DECONV:
        return deconv_at(run, node, out);
    case SAC_OP_INNER:
        return inner_at(run, node, n, c);
    case SAC_OP_BATCHNORM:
        return batchnorm(run, node, x, c);
    case SAC_OP_SCALE:
    case SAC_OP_BIAS:
    case SAC_OP_AFFINE:
        return scale(run, node, x, c);
    case SAC_OP_RELU:
        return x > 0 ? x : 0;
    case SAC_OP_DROPOUT:
    case SAC_OP_RESHAPE:
    case SAC_OP_CONCAT: /* of one */
    case SAC_OP_SLICE:
        return x;
    case SAC_OP_ELTWISE:
        return x + run->data[node->src[1]][index];
    default:
        fail_msg("the evaluator has no %s", sac_op_kind_name(node->kind));
        return 0;
    }
}

static double *new_doubles(int64_t count)
{
    double *out = calloc((size_t)count + 1, sizeof *out);

    assert_non_null(out);
    return out;
}

/* All outputs, one behind the other; the caller frees them. */
static float *evaluate(const struct sac_graph *graph, int64_t *ret_count)
{
    struct run run = {.graph = graph};
    int64_t total = 0, done = 0;

    assert_true(graph->value_count <= VALUES_MAX);
    for (int i = 0; i < graph->input_count; i++) {
        int value = graph->inputs[i];
        int64_t count = count_of(graph, value);
        float *numbers = calloc((size_t)count, sizeof *numbers);
        assert_non_null(numbers);
        make_floats(numbers, count, 77 + (uint64_t)i);
        run.data[value] = new_doubles(count);
        for (int64_t j = 0; j < count; j++)
            run.data[value][j] = (double)numbers[j];
        free(numbers);
    }
    for (int i = 0; i < graph->node_count; i++) {
        const struct sac_node *node = &graph->nodes[i];
        int64_t count = count_of(graph, node->dst[0]);
        double *out = new_doubles(count);
        for (int64_t j = 0; j < count; j++)
            out[j] = element(&run, node, j);
        run.data[node->dst[0]] = out;
    }
    for (int i = 0; i < graph->output_count; i++)
        total += count_of(graph, graph->outputs[i]);
    float *result = calloc((size_t)total, sizeof *result);
    assert_non_null(result);
    for (int i = 0; i < graph->output_count; i++)
        for (int64_t j = 0; j < count_of(graph, graph->outputs[i]); j++)
            result[done++] = (float)run.data[graph->outputs[i]][j];
    for (int i = 0; i < VALUES_MAX; i++)
        free(run.data[i]);
    *ret_count = total;
    return result;
}

static void simplify(struct sac_graph *graph)
{
    struct sac_error err = {0};

    sac_pass_remove_dead(graph);
    assert_ok(sac_pass_to_affine(graph, &err), err);
    assert_ok(sac_pass_fold_affine(graph, &err), err);
    sac_pass_remove_dead(graph);
}

/* Frees the graph. */
static void assert_same_after_passes(struct sac_graph *graph, int expected_nodes)
{
    int64_t before_count, after_count;
    float *before = evaluate(graph, &before_count);

    simplify(graph);
    float *after = evaluate(graph, &after_count);
    assert_int_equal(before_count, after_count);
    assert_true(sac_test_max_difference(before, after, (size_t)before_count) < 1e-5);
    assert_int_equal(graph->node_count, expected_nodes);
    free(before);
    free(after);
    sac_graph_free(graph);
}

static int count_kind(const struct sac_graph *graph, enum sac_op_kind kind)
{
    int count = 0;

    for (int i = 0; i < graph->node_count; i++)
        count += graph->nodes[i].kind == kind;
    return count;
}

/* ---- Formulas ------------------------------------------------------------- */

static struct sac_graph *lone_batchnorm(float mean, float variance, float factor, float eps)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 1, 1, 1));
    int y = make_batchnorm(graph, "bn", x, factor, eps);
    struct sac_error err = {0};

    ((float *)(uintptr_t)graph->constants[0].data)[0] = mean;
    ((float *)(uintptr_t)graph->constants[1].data)[0] = variance;
    make_outputs(graph, 1, y);
    assert_ok(sac_pass_to_affine(graph, &err), err);
    assert_int_equal(graph->node_count, 1);
    assert_int_equal(graph->nodes[0].kind, SAC_OP_AFFINE);
    return graph;
}

static void assert_affine(const struct sac_graph *graph, double a, double b)
{
    const struct sac_node *node = &graph->nodes[0];

    assert_int_equal(node->weight_count, 2);
    assert_true(fabs((double)graph->constants[node->weight[0]].data[0] - a) < 1e-6 * fabs(a));
    assert_true(fabs((double)graph->constants[node->weight[1]].data[0] - b) <= 1e-6 * fabs(b));
}

/* a = 1/√(v/f + eps), b = −m/f · a. */
static void batchnorm_becomes_the_affine_of_its_formula(void **state)
{
    struct sac_graph *graph = lone_batchnorm(6, 8, 2, 0.5f);

    (void)state;
    assert_affine(graph, 1 / sqrt(8 / 2.0 + 0.5), -6 / 2.0 / sqrt(8 / 2.0 + 0.5));
    sac_graph_free(graph);
    graph = lone_batchnorm(6, 0, 1, 1e-5f);
    assert_affine(graph, 1 / sqrt((double)1e-5f), -6 / sqrt((double)1e-5f));
    sac_graph_free(graph);
}

/* Caffe takes mean and variance as 0 when the scale factor is 0. */
static void a_scale_factor_of_zero_means_no_statistics(void **state)
{
    struct sac_graph *graph = lone_batchnorm(6, 8, 0, 0.25f);

    (void)state;
    assert_affine(graph, 2, 0);
    sac_graph_free(graph);
}

/* w' = w·a, bias' = bias·a + b, with a = s/√(v + eps) and b = t − m·a. */
static void batchnorm_and_scale_go_into_the_convolution_before(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 1, 1));
    int y = make_conv(graph, "conv", x, 3, 1, 1, 0, 1, true);
    const float *w = graph->constants[0].data, *c = graph->constants[1].data;
    int z = make_batchnorm(graph, "bn", y, 1, 1e-3f);
    const float *m = graph->constants[2].data, *v = graph->constants[3].data;

    (void)state;
    z = make_scale(graph, "scale", z, true);
    const float *s = graph->constants[5].data, *t = graph->constants[6].data;
    make_outputs(graph, 1, z);
    simplify(graph);
    assert_int_equal(graph->node_count, 1);
    const struct sac_node *node = &graph->nodes[0];
    assert_int_equal(node->kind, SAC_OP_CONV);
    assert_string_equal(node->name, "conv+bn+scale");
    assert_int_equal(node->dst[0], graph->outputs[0]);
    assert_int_equal(node->weight_count, 2);
    for (int o = 0; o < 3; o++) {
        double a = (double)s[o] / sqrt((double)v[o] + (double)1e-3f);
        double b = (double)t[o] - (double)m[o] * a;
        for (int i = 0; i < 2; i++)
            assert_true(fabs((double)graph->constants[node->weight[0]].data[2 * o + i] -
                             (double)w[2 * o + i] * a) < 1e-6);
        assert_true(fabs((double)graph->constants[node->weight[1]].data[o] -
                         ((double)c[o] * a + b)) < 1e-6);
    }
    sac_graph_free(graph);
}

/* ---- The same numbers before and after ------------------------------------ */

static void folding_keeps_what_a_convolution_computes(void **state)
{
    (void)state;
    for (int group = 1; group <= 2; group++)
        for (int bias = 0; bias <= 1; bias++) {
            struct sac_graph *graph = make_graph();
            int x = make_input(graph, "data", make_shape(4, 2, 4, 5, 6));
            x = make_conv(graph, "conv1", x, 6, 3, 2, 1, group, bias);
            x = make_batchnorm(graph, "bn1", x, 0.5f, 1e-5f);
            x = make_scale(graph, "scale1", x, bias);
            x = make_relu(graph, "relu1", x);
            make_outputs(graph, 1, x);
            assert_same_after_passes(graph, 2);
        }
}

static int make_deconv(struct sac_graph *graph, int src, int outputs, int group)
{
    const int64_t *from = graph->values[src].shape.dim;
    struct sac_shape to = make_shape(4, (int)from[0], outputs, (int)from[2] + 1, (int)from[3] + 1);
    int inputs = (int)from[1];
    int out = make_op(graph, SAC_OP_DECONV, "deconv", to, 1, src);

    make_last(graph)->param.conv.window =
        (struct sac_window){.kernel = {2, 2}, .stride = {1, 1}, .dilation = {1, 1}};
    make_last(graph)->param.conv.group = group;
    make_weight(graph, make_shape(4, inputs, outputs / group, 2, 2), 5, 0.4f, 0);
    return out;
}

static void folding_keeps_what_a_deconvolution_computes(void **state)
{
    (void)state;
    for (int group = 1; group <= 2; group++) {
        struct sac_graph *graph = make_graph();
        int x = make_input(graph, "data", make_shape(4, 2, 4, 3, 3));
        x = make_deconv(graph, x, 6, group);
        x = make_batchnorm(graph, "bn", x, 1, 1e-5f);
        make_outputs(graph, 1, x);
        assert_same_after_passes(graph, 1);
    }
}

static void folding_keeps_what_an_inner_product_computes(void **state)
{
    (void)state;
    for (int transpose = 0; transpose <= 1; transpose++) {
        struct sac_graph *graph = make_graph();
        int x = make_input(graph, "data", make_shape(2, 3, 5));
        x = make_inner(graph, "fc", x, 7);
        make_last(graph)->param.inner.transpose = transpose;
        if (transpose)
            graph->constants[0].shape = make_shape(2, 5, 7);
        x = make_batchnorm(graph, "bn", x, 1, 1e-5f);
        x = make_scale(graph, "scale", x, true);
        make_outputs(graph, 1, x);
        assert_same_after_passes(graph, 1);
    }
}

/* [2 × 3 × 5] · axis 2: axis 1 is not the outputs'. */
static void an_inner_product_along_a_later_axis_is_left_alone(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(3, 2, 7, 5));
    int y = make_op(graph, SAC_OP_INNER, "fc", make_shape(3, 2, 7, 7), 1, x);
    struct sac_error err = {0};

    (void)state;
    make_last(graph)->param.inner.axis = 2;
    make_weight(graph, make_shape(2, 7, 5), 1, 1, 0);
    y = make_scale(graph, "scale", y, false);
    make_outputs(graph, 1, y);
    assert_ok(sac_pass_to_affine(graph, &err), err);
    assert_ok(sac_pass_fold_affine(graph, &err), err);
    assert_int_equal(graph->node_count, 2);
    sac_graph_free(graph);
}

static void a_chain_of_batchnorms_and_scales_becomes_one_affine(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 2, 3, 2, 2));

    (void)state;
    x = make_batchnorm(graph, "bn1", x, 1, 1e-5f);
    x = make_scale(graph, "scale", x, true);
    x = make_batchnorm(graph, "bn2", x, 2, 1e-5f);
    x = make_op(graph, SAC_OP_BIAS, "bias", make_shape(4, 2, 3, 2, 2), 1, x);
    make_last(graph)->param.scale.axis = 1;
    make_last(graph)->param.scale.num_axes = 1;
    make_weight(graph, make_shape(1, 3), 9, 1, 0);
    make_outputs(graph, 1, x);
    assert_same_after_passes(graph, 1);
}

static void a_lone_scale_or_batchnorm_becomes_an_affine(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct sac_graph *graph = make_graph();
        int x = make_input(graph, "data", make_shape(4, 2, 3, 2, 2));
        x = make_relu(graph, "relu", x);
        x = kind == 0 ? make_batchnorm(graph, "bn", x, 3, 1e-5f)
                      : make_scale(graph, "scale", x, kind == 2);
        make_outputs(graph, 1, x);
        assert_same_after_passes(graph, 2);
    }
}

/* ---- What must stay ------------------------------------------------------- */

static void a_result_that_another_node_reads_is_not_folded(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 3, 3));
    int y = make_conv(graph, "conv", x, 2, 1, 1, 0, 1, true);
    int z = make_batchnorm(graph, "bn", y, 1, 1e-5f);

    (void)state;
    make_outputs(graph, 1, make_sum(graph, "sum", y, z));
    assert_same_after_passes(graph, 3);
}

static void a_result_that_is_an_output_is_not_folded(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 3, 3));
    int y = make_conv(graph, "conv", x, 2, 1, 1, 0, 1, true);
    int z = make_batchnorm(graph, "bn", y, 1, 1e-5f);
    int w = make_scale(graph, "scale", z, true);

    (void)state;
    make_outputs(graph, 3, y, z, w);
    assert_same_after_passes(graph, 3);
}

static void an_operation_with_an_epilogue_is_not_folded_into(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 3, 3));
    int y = make_conv(graph, "conv", x, 2, 1, 1, 0, 1, true);

    (void)state;
    make_last(graph)->epilogue.relu = true;
    y = make_batchnorm(graph, "bn", y, 1, 1e-5f);
    make_outputs(graph, 1, y);
    simplify(graph);
    assert_int_equal(graph->node_count, 2);
    sac_graph_free(graph);
}

static void batch_statistics_and_other_axes_are_left_to_the_device(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 2, 2));
    int y = make_batchnorm(graph, "bn", x, 1, 1e-5f);

    (void)state;
    make_last(graph)->param.batchnorm.global_stats = false;
    y = make_scale(graph, "scale", y, false);
    make_last(graph)->param.scale.axis = 2;
    y = make_op(graph, SAC_OP_SCALE, "by_blob", make_shape(4, 1, 2, 2, 2), 2, y, x);
    make_outputs(graph, 1, y);
    simplify(graph);
    assert_int_equal(count_kind(graph, SAC_OP_BATCHNORM), 1);
    assert_int_equal(count_kind(graph, SAC_OP_SCALE), 2);
    sac_graph_free(graph);
}

/* ---- Dead nodes ----------------------------------------------------------- */

static void nodes_without_effect_or_use_go(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 2, 2, 2, 2));
    int y = make_relu(graph, "relu", x);
    int z = make_op(graph, SAC_OP_DROPOUT, "drop", make_shape(4, 2, 2, 2, 2), 1, y);

    (void)state;
    z = make_op(graph, SAC_OP_RESHAPE, "same", make_shape(4, 2, 2, 2, 2), 1, z);
    z = make_op(graph, SAC_OP_CONCAT, "one", make_shape(4, 2, 2, 2, 2), 1, z);
    z = make_op(graph, SAC_OP_SLICE, "whole", make_shape(4, 2, 2, 2, 2), 1, z);
    z = make_op(graph, SAC_OP_RESHAPE, "flat", make_shape(2, 2, 8), 1, z);
    make_relu(graph, "unused2", make_relu(graph, "unused1", y));
    make_outputs(graph, 1, z);
    assert_same_after_passes(graph, 2); /* relu, flat */
}

static void an_output_that_dropout_makes_of_an_input_is_the_input(void **state)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(2, 2, 2));
    int y = make_op(graph, SAC_OP_DROPOUT, "drop", make_shape(2, 2, 2), 1, x);

    (void)state;
    make_outputs(graph, 1, y);
    sac_pass_remove_dead(graph);
    assert_int_equal(graph->node_count, 0);
    assert_int_equal(graph->outputs[0], x);
    sac_graph_free(graph);
}

/* ---- Names ---------------------------------------------------------------- */

static struct sac_graph *folded_net(int batch, float eps)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, batch, 2, 4, 4));

    x = make_conv(graph, "conv", x, 3, 3, 1, 0, 1, true);
    x = make_batchnorm(graph, "bn", x, 1, eps);
    x = make_scale(graph, "scale", x, true);
    make_outputs(graph, 1, x);
    simplify(graph);
    return graph;
}

static const char *weight_name(const struct sac_graph *graph, int index)
{
    return graph->constants[graph->nodes[0].weight[index]].name;
}

static void folded_constants_have_one_name_at_every_batch_size(void **state)
{
    struct sac_graph *one = folded_net(1, 1e-5f), *eight = folded_net(8, 1e-5f);
    struct sac_graph *other = folded_net(1, 2e-5f);

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_string_equal(weight_name(one, i), weight_name(eight, i));
        assert_string_not_equal(weight_name(one, i), weight_name(other, i)); /* other numbers */
    }
    assert_string_not_equal(weight_name(one, 0), weight_name(one, 1));
    assert_string_not_equal(weight_name(one, 0), "conv/0");
    sac_graph_free(one);
    sac_graph_free(eight);
    sac_graph_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batchnorm_becomes_the_affine_of_its_formula),
        cmocka_unit_test(a_scale_factor_of_zero_means_no_statistics),
        cmocka_unit_test(batchnorm_and_scale_go_into_the_convolution_before),
        cmocka_unit_test(folding_keeps_what_a_convolution_computes),
        cmocka_unit_test(folding_keeps_what_a_deconvolution_computes),
        cmocka_unit_test(folding_keeps_what_an_inner_product_computes),
        cmocka_unit_test(an_inner_product_along_a_later_axis_is_left_alone),
        cmocka_unit_test(a_chain_of_batchnorms_and_scales_becomes_one_affine),
        cmocka_unit_test(a_lone_scale_or_batchnorm_becomes_an_affine),
        cmocka_unit_test(a_result_that_another_node_reads_is_not_folded),
        cmocka_unit_test(a_result_that_is_an_output_is_not_folded),
        cmocka_unit_test(an_operation_with_an_epilogue_is_not_folded_into),
        cmocka_unit_test(batch_statistics_and_other_axes_are_left_to_the_device),
        cmocka_unit_test(nodes_without_effect_or_use_go),
        cmocka_unit_test(an_output_that_dropout_makes_of_an_input_is_the_input),
        cmocka_unit_test(folded_constants_have_one_name_at_every_batch_size),
    };
    return cmocka_run_group_tests_name("passes", tests, NULL, NULL);
}
