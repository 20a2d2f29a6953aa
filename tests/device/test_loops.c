/* The plain loops against numbers worked out by hand or by an independent
 * formula, stated in each test. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "device/op_cases.h"

static struct sac_device *device;

static int open_device(void **state)
{
    (void)state;
    return sac_device_open(&device, "cpu", NULL);
}

static int close_device(void **state)
{
    (void)state;
    sac_device_close(device);
    return 0;
}

static struct sac_op_rig *rig_of(const struct sac_op_case *what, int batch)
{
    struct sac_op_rig_options options = {.ops = {.reference = true}, .batch = batch};
    struct sac_error err = {0};
    struct sac_op_rig *rig;

    assert_ok(sac_op_rig_new(&rig, device, what, &options, &err), err);
    assert_string_equal(sac_op_rig_caps(rig)->kernel,
                        sac_op_rig_caps(rig)->alias ? "alias" : "loops");
    assert_ok(sac_op_rig_run(rig, &err), err);
    return rig;
}

static const struct sac_op_case *case_named(const char *name)
{
    for (int i = 0; i < sac_op_case_count(); i++)
        if (strcmp(sac_op_case(i)->name, name) == 0)
            return sac_op_case(i);
    fail_msg("no case \"%s\"", name);
    return NULL;
}

/* One node run on given plain numbers, in fp32 on the plain loops. */
struct small {
    struct sac_graph *graph;
    struct sac_node *node;
    struct sac_tensor src[3], dst[3];
    struct sac_store *store;
    int dst_count;
};

static struct small small_of(enum sac_op_kind kind, int sources, const struct sac_shape *src,
                             const float *const *x, const struct sac_shape *dst)
{
    struct small s = {.dst_count = 1};
    struct sac_error err = {0};

    assert_ok(sac_graph_new(&s.graph, &err), err);
    s.node = sac_graph_add_node(s.graph, kind, "small", sources, 1);
    for (int i = 0; i < sources; i++) {
        s.node->src[i] = sac_graph_add_value(s.graph, "x", &src[i]);
        s.src[i] = sac_tensor_of(&src[i], (struct sac_form){SAC_F32, SAC_PLAIN});
        s.src[i].data = (void *)(uintptr_t)x[i];
    }
    s.node->dst[0] = sac_graph_add_value(s.graph, "y", dst);
    s.dst[0] = sac_tensor_of(dst, (struct sac_form){SAC_F32, SAC_PLAIN});
    s.dst[0].data = malloc(sac_tensor_bytes(dst, SAC_TOPK_PAIR));
    return s;
}

static void small_weight(struct small *s, const struct sac_shape *shape, const float *data)
{
    char name[] = "w0";

    name[1] = (char)('0' + s->node->weight_count);
    s->node->weight[s->node->weight_count++] = sac_graph_add_constant(s->graph, name, shape, data);
}

/* Runs it and checks the results; frees all. */
static void small_gives(struct small *s, const float *expected, double tolerance)
{
    const struct sac_device_table *table = device->table;
    struct sac_op_options options = {.reference = true};
    struct sac_op_caps caps;
    struct sac_error err = {0};
    struct sac_op *op;

    assert_ok(table->store_new(device, &s->store, &err), err);
    assert_ok(table->op_query(device, s->graph, s->node, &options, &caps, &err), err);
    void *workspace = malloc(caps.workspace_bytes + 1);
    struct sac_binding binding = {.src = s->src, .dst = s->dst, .workspace = workspace};
    assert_ok(table->op_prepare(device, s->store, s->graph, s->node, &options, &binding, &op, &err),
              err);
    assert_ok(table->op_forward(op, NULL, &err), err);
    const float *y = s->dst[0].data;
    for (int64_t i = 0; i < sac_shape_count(&s->dst[0].shape); i++)
        if (!(fabs(y[i] - expected[i]) <= tolerance))
            fail_msg("element %d is %.9g, expected %.9g", (int)i, y[i], expected[i]);
    table->op_free(op);
    table->store_free(s->store);
    free(workspace);
    free(s->dst[0].data);
    sac_graph_free(s->graph);
}

static float at(const float *x, const struct sac_shape *s, int64_t n, int64_t c, int64_t y,
                int64_t w)
{
    if (y < 0 || y >= s->dim[2] || w < 0 || w >= s->dim[3])
        return 0;
    return x[((n * s->dim[1] + c) * s->dim[2] + y) * s->dim[3] + w];
}

/* The definition, element by element: out(n,o,y,x) = b(o) + Σ in(n, c,
 * y·stride − pad + ky·dilation, …) · w(o,c,ky,kx) over the channels of o's group. */
static double conv_at(const struct sac_op_case *what, const float *x, const float *weight,
                      const struct sac_shape *in, int64_t n, int64_t o, int64_t oy, int64_t ox)
{
    const struct sac_window *w = &what->param.conv.window;
    int64_t per = what->src[0].dim[1] / what->param.conv.group;
    int64_t group = o / (what->dst[0].dim[1] / what->param.conv.group);
    double sum = 0;

    for (int64_t c = 0; c < per; c++)
        for (int64_t ky = 0; ky < w->kernel[0]; ky++)
            for (int64_t kx = 0; kx < w->kernel[1]; kx++)
                sum += (double)at(x, in, n, group * per + c,
                                  oy * w->stride[0] - w->pad[0] + ky * w->dilation[0],
                                  ox * w->stride[1] - w->pad[1] + kx * w->dilation[1]) *
                       weight[((o * per + c) * w->kernel[0] + ky) * w->kernel[1] + kx];
    return sum;
}

static void check_conv(const struct sac_op_case *what)
{
    struct sac_op_rig *rig = rig_of(what, 2);
    size_t count;
    float *x = sac_op_rig_source(rig, 0), *y = sac_op_rig_result(rig, 0, &count);
    struct sac_shape in = what->src[0], out = what->dst[0];
    size_t i = 0;

    in.dim[0] = out.dim[0] = 2;
    for (int64_t n = 0; n < 2; n++) {
        for (int64_t o = 0; o < out.dim[1]; o++) {
            for (int64_t p = 0; p < out.dim[2] * out.dim[3]; p++, i++) {
                double want = conv_at(what, x, sac_op_rig_weight(rig, 0), &in, n, o, p / out.dim[3],
                                      p % out.dim[3]);
                want += what->weight_count > 1 ? sac_op_rig_weight(rig, 1)[o] : 0;
                want = what->relu && want < 0 ? want * what->slope : want;
                if (!(fabs(y[i] - want) <= 1e-5 * (1 + fabs(want))))
                    fail_msg("%s: element %zu is %g, expected %g", what->name, i, y[i], want);
            }
        }
    }
    assert_int_equal(i, count);
    free(x);
    free(y);
    sac_op_rig_free(rig);
}

static void convolutions_follow_the_definition(void **state)
{
    int checked = 0;

    (void)state;
    for (int i = 0; i < sac_op_case_count(); i++) {
        const struct sac_op_case *what = sac_op_case(i);
        if (what->kind != SAC_OP_CONV || what->sum)
            continue;
        check_conv(what);
        checked++;
    }
    assert_true(checked >= 18);
}

/* ⟨conv(x), y⟩ = ⟨x, deconv(y)⟩: a deconvolution is the transpose of the
 * convolution with the same weights, so conv_at applied to unit images gives it. */
static void deconvolution_is_the_transpose_of_convolution(void **state)
{
    const struct sac_op_case *what = case_named("deconvolution 4×4/2 padded");
    struct sac_op_case conv = *what;
    struct sac_op_rig *rig = rig_of(what, 1);
    size_t count;
    float *x = sac_op_rig_source(rig, 0), *y = sac_op_rig_result(rig, 0, &count);
    float *unit = calloc(count, sizeof *unit);
    const struct sac_shape *small = &what->src[0];
    struct sac_shape large = what->dst[0];

    (void)state;
    conv.src[0] = what->dst[0];
    conv.dst[0] = what->src[0];
    large.dim[0] = 1;
    for (size_t i = 0; i < count; i += 13) {
        double want = sac_op_rig_weight(rig, 1)[i / (size_t)(large.dim[2] * large.dim[3])];
        unit[i] = 1;
        for (int64_t k = 0; k < small->dim[1] * small->dim[2] * small->dim[3]; k++)
            want += x[k] * conv_at(&conv, unit, sac_op_rig_weight(rig, 0), &large, 0,
                                   k / (small->dim[2] * small->dim[3]),
                                   k / small->dim[3] % small->dim[2], k % small->dim[3]);
        unit[i] = 0;
        assert_true(fabs(y[i] - want) <= 1e-4);
    }
    free(unit);
    free(x);
    free(y);
    sac_op_rig_free(rig);
}

/* A 2 × 2 map of ones through a 2 × 2 kernel 1 2 3 4 with stride 1: by hand. */
static void a_deconvolution_by_hand(void **state)
{
    const struct sac_shape in = {4, {1, 1, 2, 2}}, out = {4, {1, 1, 3, 3}};
    const float x[] = {1, 1, 1, 1}, w[] = {1, 2, 3, 4};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_DECONV, 1, &in, sources, &out);

    (void)state;
    s.node->param.conv.window = (struct sac_window){{2, 2}, {1, 1}, {0, 0}, {1, 1}};
    s.node->param.conv.group = 1;
    small_weight(&s, &(struct sac_shape){4, {1, 1, 2, 2}}, w);
    small_gives(&s, (float[]){1, 3, 2, 4, 10, 6, 3, 7, 4}, 0);
}

/* 1 2 / 3 4 through 3×3/2 padded by 1. Caffe: out = ⌈(2+2−3)/2⌉+1 = 2. Windows
 * start at −1 and 1; the second is clipped at 2 + 1 = 3, so divisors are 3·3,
 * 3·2, 2·3, 2·2 and every window sums what lies inside the 2×2 input. */
static void average_pooling_counts_the_padding_it_covers(void **state)
{
    const struct sac_shape shape = {4, {1, 1, 2, 2}};
    const float x[] = {1, 2, 3, 4};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_POOL, 1, &shape, sources, &shape);

    (void)state;
    s.node->param.pool.window = (struct sac_window){{3, 3}, {2, 2}, {1, 1}, {1, 1}};
    s.node->param.pool.method = SAC_POOL_AVE;
    small_gives(&s, (float[]){10.f / 9, 6.f / 6, 7.f / 6, 4.f / 4}, 1e-6);
}

/* 4 columns, 3/2: out = ⌈(4−3)/2⌉+1 = 2; the second window overhangs: columns 2
 * and 3 only, divisor 2 (no padding to count). */
static void an_overhanging_window_is_clipped_to_the_input(void **state)
{
    const struct sac_shape in = {4, {1, 1, 1, 4}}, out = {4, {1, 1, 1, 2}};
    const float x[] = {-1, -5, -3, -7};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_POOL, 1, &in, sources, &out);

    (void)state;
    s.node->param.pool.window = (struct sac_window){{1, 3}, {1, 2}, {0, 0}, {1, 1}};
    s.node->param.pool.method = SAC_POOL_AVE;
    small_gives(&s, (float[]){-3, -5}, 1e-6);
    s = small_of(SAC_OP_POOL, 1, &in, sources, &out);
    s.node->param.pool.window = (struct sac_window){{1, 3}, {1, 2}, {0, 0}, {1, 1}};
    s.node->param.pool.method = SAC_POOL_MAX;
    small_gives(&s, (float[]){-1, -3}, 0);
}

/* Channels 1, 2, 3 with n = 3, alpha 3, beta 1, k 1: x / (1 + Σ neighbours²). */
static void lrn_across_channels_by_hand(void **state)
{
    const struct sac_shape shape = {4, {1, 3, 1, 1}};
    const float x[] = {1, 2, 3};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_LRN, 1, &shape, sources, &shape);

    (void)state;
    s.node->param.lrn.region = SAC_LRN_ACROSS_CHANNELS;
    s.node->param.lrn.size = 3;
    s.node->param.lrn.alpha = 3;
    s.node->param.lrn.beta = 1;
    s.node->param.lrn.k = 1;
    small_gives(&s, (float[]){1.f / 6, 2.f / 15, 3.f / 14}, 1e-6);
}

/* 3 × 3 around each of 1 2 / 3 4 holds all four: x / (1 + 9/9 · 30); k = 5 is
 * ignored. */
static void lrn_within_a_channel_ignores_k(void **state)
{
    const struct sac_shape shape = {4, {1, 1, 2, 2}};
    const float x[] = {1, 2, 3, 4};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_LRN, 1, &shape, sources, &shape);

    (void)state;
    s.node->param.lrn.region = SAC_LRN_WITHIN_CHANNEL;
    s.node->param.lrn.size = 3;
    s.node->param.lrn.alpha = 9;
    s.node->param.lrn.beta = 1;
    s.node->param.lrn.k = 5;
    small_gives(&s, (float[]){1.f / 31, 2.f / 31, 3.f / 31, 4.f / 31}, 1e-6);
}

static void an_inner_product_by_hand(void **state)
{
    const struct sac_shape in = {4, {2, 1, 1, 2}}, out = {2, {2, 2}};
    const float x[] = {1, 2, 3, 4}, w[] = {1, 10, 100, 1000}, b[] = {.5f, -.5f};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_INNER, 1, &in, sources, &out);

    (void)state;
    s.node->param.inner.axis = 1;
    small_weight(&s, &(struct sac_shape){2, {2, 2}}, w);
    small_weight(&s, &(struct sac_shape){1, {2}}, b);
    small_gives(&s, (float[]){21.5f, 2099.5f, 43.5f, 4299.5f}, 0);
    s = small_of(SAC_OP_INNER, 1, &in, sources, &out);
    s.node->param.inner.axis = 1;
    s.node->param.inner.transpose = true;
    small_weight(&s, &(struct sac_shape){2, {2, 2}}, w);
    small_gives(&s, (float[]){201, 2010, 403, 4030}, 0);
}

/* mean 4/2, variance 6/2, eps 1: (x − 2) / 2; with a factor of 0 both are 0. */
static void batch_norm_divides_by_its_factor_and_zero_means_zero(void **state)
{
    const struct sac_shape shape = {2, {2, 1}}, one = {1, {1}};
    const float x[] = {6, -2}, mean[] = {4}, variance[] = {6}, two[] = {2}, zero[] = {0};
    const float *const sources[] = {x};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct small s = small_of(SAC_OP_BATCHNORM, 1, &shape, sources, &shape);
        s.node->param.batchnorm.eps = 1;
        s.node->param.batchnorm.global_stats = true;
        small_weight(&s, &one, mean);
        small_weight(&s, &one, variance);
        small_weight(&s, &one, i ? zero : two);
        small_gives(&s, i ? (float[]){6, -2} : (float[]){2, -2}, 1e-6);
    }
}

/* Batch statistics of 6 and −2: mean 2, variance 16; eps 9: (x − 2) / 5. */
static void batch_norm_can_use_the_batch(void **state)
{
    const struct sac_shape shape = {2, {2, 1}};
    const float x[] = {6, -2};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_BATCHNORM, 1, &shape, sources, &shape);

    (void)state;
    s.node->param.batchnorm.eps = 9;
    small_gives(&s, (float[]){.8f, -.8f}, 1e-6);
}

static void scale_and_bias_repeat_over_the_axes_behind(void **state)
{
    const struct sac_shape shape = {3, {1, 2, 2}}, two = {1, {2}};
    const float x[] = {1, 2, 3, 4}, a[] = {10, 100}, b[] = {1, 2};
    const float *const one_source[] = {x}, *const two_sources[] = {x, a};
    const struct sac_shape shapes[] = {shape, two};
    struct small s = small_of(SAC_OP_SCALE, 1, &shape, one_source, &shape);

    (void)state;
    s.node->param.scale.axis = 1;
    s.node->param.scale.num_axes = 1;
    s.node->param.scale.bias = true;
    small_weight(&s, &two, a);
    small_weight(&s, &two, b);
    small_gives(&s, (float[]){11, 21, 302, 402}, 0);
    s = small_of(SAC_OP_SCALE, 2, shapes, two_sources, &shape);
    s.node->param.scale.axis = 2; /* along the last axis */
    s.node->param.scale.num_axes = 1;
    small_gives(&s, (float[]){10, 200, 30, 400}, 0);
    s = small_of(SAC_OP_BIAS, 2, shapes, two_sources, &shape);
    s.node->param.scale.axis = 1;
    small_gives(&s, (float[]){11, 12, 103, 104}, 0);
}

/* Each against its formula in double. */
static void maps_follow_their_formulas(void **state)
{
    const struct sac_shape shape = {1, {5}};
    const float x[] = {-2, -.5f, 0, .5f, 3};
    const float *const sources[] = {x};
    const enum sac_op_kind kinds[] = {SAC_OP_RELU, SAC_OP_SIGMOID, SAC_OP_TANH, SAC_OP_ELU,
                                      SAC_OP_POWER};

    (void)state;
    for (int k = 0; k < 5; k++) {
        struct small s = small_of(kinds[k], 1, &shape, sources, &shape);
        float want[5];
        if (kinds[k] == SAC_OP_RELU)
            s.node->param.relu.slope = .25f;
        if (kinds[k] == SAC_OP_ELU)
            s.node->param.elu.alpha = .5f;
        if (kinds[k] == SAC_OP_POWER) {
            s.node->param.power.power = 3;
            s.node->param.power.scale = 2;
            s.node->param.power.shift = 1;
        }
        for (int i = 0; i < 5; i++) {
            const double of[] = {x[i] > 0 ? x[i] : .25 * x[i], 1 / (1 + exp(-x[i])),
                                 (exp(2. * x[i]) - 1) / (exp(2. * x[i]) + 1),
                                 x[i] > 0 ? x[i] : .5 * (exp(x[i]) - 1),
                                 (1 + 2 * x[i]) * (1 + 2 * x[i]) * (1 + 2 * x[i])};
            want[i] = (float)of[k];
        }
        small_gives(&s, want, 1e-5);
    }
}

static void prelu_has_a_slope_for_each_channel_or_one(void **state)
{
    const struct sac_shape shape = {3, {1, 2, 2}}, two = {1, {2}}, one = {1, {1}};
    const float x[] = {-1, 2, -3, 4}, slopes[] = {.5f, 2};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_PRELU, 1, &shape, sources, &shape);

    (void)state;
    small_weight(&s, &two, slopes);
    small_gives(&s, (float[]){-.5f, 2, -6, 4}, 0);
    s = small_of(SAC_OP_PRELU, 1, &shape, sources, &shape);
    small_weight(&s, &one, slopes);
    small_gives(&s, (float[]){-.5f, 2, -1.5f, 4}, 0);
}

static void eltwise_by_hand(void **state)
{
    const struct sac_shape shapes[] = {{1, {2}}, {1, {2}}, {1, {2}}};
    const float a[] = {1, -2}, b[] = {3, 4}, c[] = {-5, 6}, coeff[] = {2, -1, 10};
    const float *const sources[] = {a, b, c};
    const float want[4][2] = {{-15, -48}, {-1, 8}, {3, 6}, {-51, 52}};

    (void)state;
    for (int i = 0; i < 4; i++) {
        const enum sac_eltwise_method methods[] = {SAC_ELTWISE_PROD, SAC_ELTWISE_SUM,
                                                   SAC_ELTWISE_MAX, SAC_ELTWISE_SUM};
        struct small s = small_of(SAC_OP_ELTWISE, 3, shapes, sources, shapes);
        s.node->param.eltwise.method = methods[i];
        s.node->param.eltwise.coeff = i == 3 ? coeff : NULL;
        small_gives(&s, want[i], 0);
    }
}

/* e^0 : e^ln2 : e^ln3 = 1 : 2 : 3, and a large offset changes nothing. */
static void softmax_sums_to_one_and_does_not_overflow(void **state)
{
    const struct sac_shape shape = {2, {2, 3}};
    const float x[] = {0, .69314718f, 1.0986123f, 1000, 1000, -1000};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_SOFTMAX, 1, &shape, sources, &shape);

    (void)state;
    s.node->param.softmax.axis = 1;
    small_gives(&s, (float[]){1.f / 6, 2.f / 6, 3.f / 6, .5f, .5f, 0}, 1e-6);
}

/* Channel by channel: rows of one part follow rows of another. */
static void concat_joins_along_its_axis(void **state)
{
    const struct sac_shape parts[] = {{3, {2, 1, 2}}, {3, {2, 2, 2}}}, whole = {3, {2, 3, 2}};
    const float a[] = {1, 2, 3, 4}, b[] = {5, 6, 7, 8, 9, 10, 11, 12};
    const float *const sources[] = {a, b};
    struct small s = small_of(SAC_OP_CONCAT, 2, parts, sources, &whole);

    (void)state;
    s.node->param.concat.axis = 1;
    small_gives(&s, (float[]){1, 2, 5, 6, 7, 8, 3, 4, 9, 10, 11, 12}, 0);
}

/* What concat joins, slice takes apart: both run on the same numbers. */
static void slice_takes_apart_along_its_axis(void **state)
{
    struct sac_op_rig *rig = rig_of(case_named("slice of channels"), 2);
    float *x = sac_op_rig_source(rig, 0);
    int64_t offset = 0;

    (void)state;
    for (int part = 0; part < 3; part++) {
        const int64_t channels[] = {16, 3, 29};
        size_t count;
        float *y = sac_op_rig_result(rig, part, &count);
        for (size_t i = 0; i < count; i++) {
            int64_t n = (int64_t)i / (channels[part] * 35),
                    rest = (int64_t)i % (channels[part] * 35);
            assert_true(y[i] == x[(n * 48 + offset) * 35 + rest]);
        }
        offset += channels[part];
        free(y);
    }
    free(x);
    sac_op_rig_free(rig);
}

static void pixels_are_swapped_centred_and_scaled(void **state)
{
    const struct sac_op_case *what = case_named("pixels swapped");
    struct sac_op_rig *rig = rig_of(what, 1);
    size_t count;
    float *x = sac_op_rig_source(rig, 0), *y = sac_op_rig_result(rig, 0, &count);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        size_t c = i / (13 * 11), p = i % (13 * 11);
        assert_true(y[i] == (x[p * 3 + (2 - c)] - what->param.pixels.mean[c]) / 128);
    }
    free(x);
    free(y);
    sac_op_rig_free(rig);
}

static void topk_orders_and_breaks_ties_to_the_lower_index(void **state)
{
    const struct sac_shape in = {2, {1, 6}}, out = {2, {1, 4}};
    const float x[] = {1, 7, NAN, 7, -2, 9};
    const float *const sources[] = {x};
    struct small s = small_of(SAC_OP_TOPK, 1, &in, sources, &out);
    const struct sac_topk_pair want[] = {{5, 9}, {1, 7}, {3, 7}, {0, 1}};
    float as_floats[4];

    (void)state;
    s.dst[0].form.type = SAC_TOPK_PAIR;
    s.node->param.topk.k = 4;
    memcpy(as_floats, want, sizeof as_floats); /* the first two pairs' bits */
    small_gives(&s, as_floats, 0);
    struct sac_op_rig *rig = rig_of(case_named("all of 7"), 1);
    size_t count;
    float *y = sac_op_rig_result(rig, 0, &count);
    assert_int_equal(count, 14);
    for (size_t i = 2; i < count; i += 2)
        assert_true(y[i - 1] > y[i + 1] || (y[i - 1] == y[i + 1] && y[i - 2] < y[i]));
    free(y);
    sac_op_rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_follow_the_definition),
        cmocka_unit_test(deconvolution_is_the_transpose_of_convolution),
        cmocka_unit_test(a_deconvolution_by_hand),
        cmocka_unit_test(average_pooling_counts_the_padding_it_covers),
        cmocka_unit_test(an_overhanging_window_is_clipped_to_the_input),
        cmocka_unit_test(lrn_across_channels_by_hand),
        cmocka_unit_test(lrn_within_a_channel_ignores_k),
        cmocka_unit_test(an_inner_product_by_hand),
        cmocka_unit_test(batch_norm_divides_by_its_factor_and_zero_means_zero),
        cmocka_unit_test(batch_norm_can_use_the_batch),
        cmocka_unit_test(scale_and_bias_repeat_over_the_axes_behind),
        cmocka_unit_test(maps_follow_their_formulas),
        cmocka_unit_test(prelu_has_a_slope_for_each_channel_or_one),
        cmocka_unit_test(eltwise_by_hand),
        cmocka_unit_test(softmax_sums_to_one_and_does_not_overflow),
        cmocka_unit_test(concat_joins_along_its_axis),
        cmocka_unit_test(slice_takes_apart_along_its_axis),
        cmocka_unit_test(pixels_are_swapped_centred_and_scaled),
        cmocka_unit_test(topk_orders_and_breaks_ties_to_the_lower_index),
    };

    return cmocka_run_group_tests(tests, open_device, close_device);
}
