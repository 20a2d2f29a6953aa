/* Operations in 8 bits against plain loops that do the same arithmetic in whole
 * numbers: sums of products are exact, and only their scaling is in floats. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/random.h"
#include "device/device.h"
#include "device/forms.h"
#include "device/ranges.h"

static struct sac_device *device;
static struct sac_store *store;
static struct sac_stream *stream;

static int open_device(void **state)
{
    (void)state;
    if (sac_device_open(&device, "cpu", NULL) != 0)
        return -1;
    return device->table->store_new(device, &store, NULL) ||
           device->table->stream_new(device, &stream, NULL);
}

static int close_device(void **state)
{
    (void)state;
    device->table->stream_free(stream);
    device->table->store_free(store);
    sac_device_close(device);
    return 0;
}

static void need_int8(void)
{
    if (!(device->info.precisions & 1u << SAC_PRECISION_INT8)) {
        print_message("[  SKIPPED ] int8: this CPU has no 8-bit dot products, or no oneDNN\n");
        skip();
    }
}

/* ---- One operation ---- */

struct what {
    const char *name;
    enum sac_op_kind kind;
    int channels, size, out, kernel, stride, pad, group;
    bool src_sign, bias, sum, sum_sign, relu;
    float slope;
    enum sac_type dst; /* of the result: F32 stands for whatever the device stores */
};

static const struct what multiplications[] = {
    {"1x1", SAC_OP_CONV, 64, 7, 96, 1, 1, 0, 1, false, true, false, false, true, 0, SAC_U8},
    {"1x1 stride 2", SAC_OP_CONV, 32, 9, 48, 1, 2, 0, 1, false, true, false, false, true, 0,
     SAC_U8},
    {"1x1 signed source", SAC_OP_CONV, 64, 7, 32, 1, 1, 0, 1, true, true, false, false, false, 0,
     SAC_S8},
    {"1x1 sum", SAC_OP_CONV, 64, 7, 64, 1, 1, 0, 1, false, true, true, false, true, 0, SAC_U8},
    {"1x1 signed sum", SAC_OP_CONV, 64, 7, 64, 1, 1, 0, 1, false, true, true, true, true, 0,
     SAC_U8},
    {"3x3", SAC_OP_CONV, 16, 8, 32, 3, 1, 1, 1, false, true, false, false, true, 0, SAC_U8},
    {"3x3 no bias", SAC_OP_CONV, 48, 6, 64, 3, 1, 1, 1, false, false, false, false, true, 0,
     SAC_U8},
    {"3x3 few channels", SAC_OP_CONV, 3, 11, 7, 3, 2, 0, 1, false, true, false, false, true, 0,
     SAC_U8},
    {"3x3 signed, leaky", SAC_OP_CONV, 32, 6, 32, 3, 1, 1, 1, true, true, false, false, true, .25f,
     SAC_S8},
    {"5x5 groups", SAC_OP_CONV, 32, 9, 64, 5, 1, 2, 2, false, true, false, false, true, 0, SAC_U8},
    {"7x7", SAC_OP_CONV, 16, 15, 64, 7, 2, 3, 1, true, true, false, false, true, 0, SAC_U8},
    {"3x3 to floats", SAC_OP_CONV, 32, 6, 40, 3, 1, 1, 1, false, true, false, false, true, 0,
     SAC_F32},
    {"inner product", SAC_OP_INNER, 200, 1, 100, 1, 1, 0, 1, false, true, false, false, true, 0,
     SAC_U8},
    {"inner product of an image", SAC_OP_INNER, 24, 5, 60, 1, 1, 0, 1, false, true, false, false,
     true, 0, SAC_U8},
    {"inner product to floats", SAC_OP_INNER, 64, 3, 10, 1, 1, 0, 1, false, true, false, false,
     false, 0, SAC_F32},
};

struct job {
    const struct what *what;
    int batch, side; /* of the result */
    struct sac_graph *graph;
    struct sac_op_caps caps;
    struct sac_tensor src, dst, sum;
    float *weight, *bias, *steps;
    int8_t *q;
    int64_t run; /* weights an output */
};

static int random_int(uint64_t *at, int least, int most)
{
    return least + (int)(sac_random_mix((*at)++) % (uint64_t)(most - least + 1));
}

static void fill_weights(struct job *j)
{
    const struct what *w = j->what;
    uint64_t at = 77;

    j->run = w->kind == SAC_OP_CONV ? (int64_t)w->channels / w->group * w->kernel * w->kernel
                                    : (int64_t)w->channels * w->size * w->size;
    j->weight = calloc((size_t)(j->run * w->out), sizeof *j->weight);
    j->q = calloc((size_t)(j->run * w->out), 1);
    j->bias = calloc((size_t)w->out, sizeof *j->bias);
    j->steps = calloc((size_t)w->out, sizeof *j->steps);
    for (int o = 0; o < w->out; o++) {
        float most = 0, size = .01f * (float)(1 + o % 7);
        j->bias[o] = (float)random_int(&at, -1000, 1000) / 500;
        for (int64_t i = 0; i < j->run; i++) {
            float *x = &j->weight[o * j->run + i];
            *x = size * (float)random_int(&at, -10000, 10000) / 10000;
            most = fmaxf(most, fabsf(*x));
        }
        j->steps[o] = most / 127;
        for (int64_t i = 0; i < j->run; i++)
            j->q[o * j->run + i] = (int8_t)lrintf(j->weight[o * j->run + i] / j->steps[o]);
    }
}

static void put_scale(struct sac_value *value, bool sign, float scale)
{
    value->scale = scale;
    value->has_sign = sign;
}

static void make_graph(struct job *j)
{
    const struct what *w = j->what;
    bool inner = w->kind == SAC_OP_INNER;
    struct sac_shape src = {4, {j->batch, w->channels, w->size, w->size}};
    struct sac_shape dst = {inner ? 2 : 4, {j->batch, w->out, j->side, j->side}};
    struct sac_shape filter = {
        inner ? 2 : 4, {w->out, inner ? j->run : w->channels / w->group, w->kernel, w->kernel}};
    struct sac_shape each = {1, {w->out}};
    char name[64];

    assert_int_equal(sac_graph_new(&j->graph, NULL), 0);
    int x = sac_graph_add_value(j->graph, "x", &src), s = -1;
    if (w->sum)
        s = sac_graph_add_value(j->graph, "s", &dst);
    int y = sac_graph_add_value(j->graph, "y", &dst);
    struct sac_node *node = sac_graph_add_node(j->graph, w->kind, w->name, 1, 1);
    node->src[0] = x;
    node->dst[0] = y;
    node->eight_bits = true;
    node->epilogue = (struct sac_epilogue){s, w->relu, w->slope};
    node->param.inner.axis = 1;
    if (!inner)
        node->param.conv.window = (struct sac_window){
            {w->kernel, w->kernel}, {w->stride, w->stride}, {w->pad, w->pad}, {1, 1}};
    if (!inner)
        node->param.conv.group = w->group;
    snprintf(name, sizeof name, "%s weights", w->name);
    node->weight[node->weight_count++] = sac_graph_add_constant(j->graph, name, &filter, j->weight);
    snprintf(name, sizeof name, "%s bias", w->name);
    if (w->bias)
        node->weight[node->weight_count++] = sac_graph_add_constant(j->graph, name, &each, j->bias);
    put_scale(&j->graph->values[x], w->src_sign, .02f);
    if (w->sum)
        put_scale(&j->graph->values[s], w->sum_sign, .03f);
    if (w->dst != SAC_F32)
        put_scale(&j->graph->values[y], w->dst == SAC_S8, inner ? .05f : .025f);
}

static struct sac_tensor tensor_for(const struct sac_graph *graph, int value, struct sac_form form)
{
    const struct sac_shape *shape = &graph->values[value].shape;

    if (shape->rank == 2)
        form.layout = SAC_PLAIN;
    struct sac_tensor t = sac_tensor_of(shape, form);
    assert_int_equal(posix_memalign(&t.data, 64, sac_tensor_bytes(shape, form.type) + 64), 0);
    memset(t.data, 0, sac_tensor_bytes(shape, form.type));
    return t;
}

static void fill_bytes(struct sac_tensor *t, uint64_t seed)
{
    int64_t count = sac_shape_count(&t->shape);

    for (int64_t i = 0; i < count; i++)
        ((uint8_t *)t->data)[i] = (uint8_t)sac_random_mix(seed + (uint64_t)i);
}

static int stored(const struct sac_tensor *t, int64_t at)
{
    return t->form.type == SAC_S8 ? ((const int8_t *)t->data)[at] : ((const uint8_t *)t->data)[at];
}

static int64_t place(const struct sac_tensor *t, int n, int c, int y, int x)
{
    const int64_t *s = t->stride;

    return t->shape.rank == 2 ? n * s[0] + c * s[1] : n * s[0] + c * s[1] + y * s[2] + x * s[3];
}

/* Σ q(x) · q(w), whole. */
static int64_t whole_sum(const struct job *j, int n, int o, int oy, int ox)
{
    const struct what *w = j->what;
    bool inner = w->kind == SAC_OP_INNER;
    int kernel = inner ? w->size : w->kernel, in = inner ? w->channels : w->channels / w->group;
    int first = inner ? 0 : o / (w->out / w->group) * in;
    int64_t sum = 0;

    for (int c = 0; c < in; c++) {
        for (int ky = 0; ky < kernel; ky++) {
            for (int kx = 0; kx < kernel; kx++) {
                int y = oy * w->stride - w->pad + ky, x = ox * w->stride - w->pad + kx;
                if (y < 0 || x < 0 || y >= w->size || x >= w->size)
                    continue;
                int q = j->q[o * j->run + ((int64_t)c * kernel + ky) * kernel + kx];
                sum += (int64_t)q * stored(&j->src, place(&j->src, n, first + c, y, x));
            }
        }
    }
    return sum;
}

/* In steps of the result, before it is rounded. */
static double wanted(const struct job *j, int n, int o, int y, int x, double old)
{
    const struct what *w = j->what;
    double out = w->dst == SAC_F32 ? 1 : (double)j->dst.form.scale;
    double step = (double)j->src.form.scale * (double)j->steps[o];
    double value = step * (double)whole_sum(j, n, o, y, x) + (w->bias ? (double)j->bias[o] : 0);

    value = (value + old) / out;
    return w->relu && value < 0 ? value * (double)w->slope : value;
}

/* The stored number is the rounded one; where that lies between two, either. */
static void check_stored(const struct job *j, int64_t at, double value)
{
    double least = j->dst.form.type == SAC_U8 ? 0 : -128;
    double most = j->dst.form.type == SAC_U8 ? 255 : 127;
    int found = stored(&j->dst, at);
    double low = fmin(fmax(nearbyint(value - 1e-3), least), most);
    double high = fmin(fmax(nearbyint(value + 1e-3), least), most);

    if (found != (int)low && found != (int)high)
        fail_msg("%s (%s), batch %d: element %lld is %d and not %g", j->what->name, j->caps.kernel,
                 j->batch, (long long)at, found, value);
}

static void check_float(const struct job *j, int64_t at, double value)
{
    bool half = j->dst.form.type == SAC_BF16;
    double found = half ? (double)sac_bf16_to_float(((const uint16_t *)j->dst.data)[at])
                        : (double)((const float *)j->dst.data)[at];

    if (!(fabs(found - value) <= (half ? 1. / 256 : 1e-5) * fabs(value) + 1e-4))
        fail_msg("%s (%s): element %lld is %g and not %g", j->what->name, j->caps.kernel,
                 (long long)at, found, value);
}

static void check_all(const struct job *j, const uint8_t *old)
{
    const struct what *w = j->what;
    struct sac_tensor before = j->sum;

    before.data = (void *)(uintptr_t)old;
    for (int n = 0; n < j->batch; n++) {
        for (int o = 0; o < w->out; o++) {
            for (int y = 0; y < j->side; y++) {
                for (int x = 0; x < j->side; x++) {
                    int64_t at = place(&j->dst, n, o, y, x);
                    double added = w->sum ? (double)j->sum.form.scale * stored(&before, at) : 0;
                    double value = wanted(j, n, o, y, x, added);
                    if (w->dst == SAC_F32)
                        check_float(j, at, value);
                    else
                        check_stored(j, at, value);
                }
            }
        }
    }
}

static void job_done(struct job *j)
{
    if (j->sum.data != j->dst.data)
        free(j->sum.data);
    free(j->src.data);
    free(j->dst.data);
    free(j->weight);
    free(j->bias);
    free(j->steps);
    free(j->q);
    sac_graph_free(j->graph);
}

/* Runs and checks; the sum's memory is the result's, or one of its own. */
static void run_job(struct job *j, bool in_place)
{
    static const struct sac_ranges none = {0};
    const struct sac_op_options options = {.precision = SAC_PRECISION_INT8, .ranges = &none};
    const struct sac_device_table *table = device->table;
    const struct sac_node *node = &j->graph->nodes[0];
    struct sac_error err = {0};
    struct sac_op *op = NULL;
    void *workspace = NULL;
    uint8_t *old = NULL;

    assert_ok(table->op_query(device, j->graph, node, &options, &j->caps, &err), err);
    assert_non_null(strstr(j->caps.kernel, "oneDNN"));
    j->src = tensor_for(j->graph, node->src[0], j->caps.src);
    j->dst = tensor_for(j->graph, node->dst[0], j->caps.dst);
    fill_bytes(&j->src, 1);
    if (j->what->sum) {
        assert_true(j->caps.sum_in_eight);
        const struct sac_value *sum = &j->graph->values[node->epilogue.sum];
        j->sum = tensor_for(j->graph, node->epilogue.sum, sac_value_eight(sum, j->dst.form.layout));
        if (in_place) {
            free(j->sum.data);
            j->sum.data = j->dst.data;
        }
        size_t bytes = sac_tensor_bytes(&j->sum.shape, SAC_U8);
        fill_bytes(&j->sum, 1000);
        old = malloc(bytes);
        memcpy(old, j->sum.data, bytes);
    }
    assert_int_equal(posix_memalign(&workspace, 64, j->caps.workspace_bytes + 64), 0);
    struct sac_binding binding = {
        .src = &j->src, .dst = &j->dst, .sum = j->sum, .workspace = workspace};
    assert_ok(table->op_prepare(device, store, j->graph, node, &options, &binding, &op, &err), err);
    assert_ok(table->op_forward(op, stream, &err), err);
    check_all(j, old);
    table->op_free(op);
    free(workspace);
    free(old);
}

static void products_are_summed_as_whole_numbers(void **state)
{
    const int batches[] = {1, 3};

    (void)state;
    need_int8();
    for (size_t i = 0; i < sizeof multiplications / sizeof *multiplications; i++) {
        for (int b = 0; b < 4; b++) {
            const struct what *w = &multiplications[i];
            struct job j = {.what = w, .batch = batches[b % 2]};
            j.side =
                w->kind == SAC_OP_INNER ? 1 : (w->size + 2 * w->pad - w->kernel) / w->stride + 1;
            fill_weights(&j);
            make_graph(&j);
            run_job(&j, b < 2);
            job_done(&j);
        }
    }
}

/* ---- Pools and conversions ---- */

static struct sac_tensor run_map(struct sac_graph *graph, struct sac_tensor *src,
                                 struct sac_form dst_form)
{
    static const struct sac_ranges none = {0};
    const struct sac_op_options options = {.precision = SAC_PRECISION_INT8, .ranges = &none};
    const struct sac_node *node = &graph->nodes[0];
    struct sac_tensor dst = tensor_for(graph, node->dst[0], dst_form);
    struct sac_binding binding = {.src = src, .dst = &dst};
    struct sac_op_caps caps;
    struct sac_error err = {0};
    struct sac_op *op = NULL;
    void *workspace = NULL;

    graph->values[node->src[0]].form = src->form;
    graph->values[node->dst[0]].form = dst_form;
    assert_ok(device->table->op_query(device, graph, node, &options, &caps, &err), err);
    assert_int_equal(posix_memalign(&workspace, 64, caps.workspace_bytes + 64), 0);
    binding.workspace = workspace;
    assert_ok(device->table->op_prepare(device, store, graph, node, &options, &binding, &op, &err),
              err);
    assert_ok(device->table->op_forward(op, stream, &err), err);
    device->table->op_free(op);
    free(workspace);
    return dst;
}

static double real(const struct sac_tensor *t, int64_t at)
{
    double scale = t->form.scale != 0 ? (double)t->form.scale : 1;

    if (t->form.type == SAC_F32)
        return (double)((const float *)t->data)[at];
    if (t->form.type == SAC_BF16)
        return (double)sac_bf16_to_float(((const uint16_t *)t->data)[at]);
    return scale * stored(t, at);
}

static const struct sac_form eights[] = {{SAC_U8, SAC_CHANNELS_LAST, .5f},
                                         {SAC_U8, SAC_CHANNELS_LAST, .125f},
                                         {SAC_S8, SAC_CHANNELS_LAST, .5f},
                                         {SAC_F32, SAC_CHANNELS_LAST, 0},
                                         {SAC_BF16, SAC_CHANNELS_LAST, 0}};
enum { EIGHTS = sizeof eights / sizeof *eights };

/* What the form can hold that is nearest. */
static void check_nearest(const struct sac_tensor *t, int64_t at, double value, const char *what)
{
    double scale = t->form.scale != 0 ? (double)t->form.scale : 1, found = real(t, at);
    double slack = scale * (.5 + 1e-4);

    if (t->form.type == SAC_U8)
        value = fmin(fmax(value, 0), 255 * scale);
    else if (t->form.type == SAC_S8)
        value = fmin(fmax(value, -128 * scale), 127 * scale);
    else
        slack = fabs(value) / (t->form.type == SAC_BF16 ? 256 : 1e6) + 1e-6;
    if (!(fabs(found - value) <= slack))
        fail_msg("%s, %s to: element %lld is %g and not %g", what, sac_type_name(t->form.type),
                 (long long)at, found, value);
}

static struct sac_tensor random_tensor(const struct sac_graph *graph, struct sac_form form)
{
    struct sac_tensor t = tensor_for(graph, 0, form);
    int64_t count = sac_shape_count(&t.shape);

    if (sac_type_is_eight(form.type))
        fill_bytes(&t, 5);
    for (int64_t i = 0; i < count && !sac_type_is_eight(form.type); i++) {
        float value = (float)(sac_random_mix((uint64_t)i) % 1000) / 4 - 100;
        if (form.type == SAC_F32)
            ((float *)t.data)[i] = value;
        else
            ((uint16_t *)t.data)[i] = sac_bf16_from_float(value);
    }
    return t;
}

static double pooled(const struct sac_tensor *t, enum sac_pool_method method, int c, int oy, int ox)
{
    double most = -INFINITY, sum = 0;
    int size = (int)t->shape.dim[2], count = 0;

    for (int y = 2 * oy - 1; y < 2 * oy + 2; y++) {
        for (int x = 2 * ox - 1; x < 2 * ox + 2; x++) {
            count +=
                y < size + 1 && x < size + 1; /* Caffe's divisor: clipped to the padded input */
            if (y < 0 || x < 0 || y >= size || x >= size)
                continue;
            double value = real(t, place(t, 0, c, y, x));
            most = value > most ? value : most;
            sum += value;
        }
    }
    return method == SAC_POOL_MAX ? most : sum / count;
}

static void pool_between(struct sac_form from, struct sac_form to, enum sac_pool_method method,
                         int channels)
{
    struct sac_shape src = {4, {1, channels, 7, 7}}, dst = {4, {1, channels, 4, 4}};
    struct sac_graph *graph;

    assert_int_equal(sac_graph_new(&graph, NULL), 0);
    int x = sac_graph_add_value(graph, "x", &src), y = sac_graph_add_value(graph, "y", &dst);
    struct sac_node *node = sac_graph_add_node(graph, SAC_OP_POOL, "pool", 1, 1);
    node->src[0] = x;
    node->dst[0] = y;
    node->param.pool.method = method;
    node->param.pool.window = (struct sac_window){{3, 3}, {2, 2}, {1, 1}, {1, 1}};
    struct sac_tensor in = random_tensor(graph, from), out = run_map(graph, &in, to);
    for (int c = 0; c < channels; c++)
        for (int p = 0; p < 16; p++)
            check_nearest(&out, place(&out, 0, c, p / 4, p % 4),
                          pooled(&in, method, c, p / 4, p % 4),
                          method == SAC_POOL_MAX ? "max" : "mean");
    free(in.data);
    free(out.data);
    sac_graph_free(graph);
}

static void pools_take_and_store_8_bits(void **state)
{
    const int channels[] = {3, 16, 150};

    (void)state;
    for (int from = 0; from < EIGHTS; from++)
        for (int to = 0; to < EIGHTS; to++)
            for (int c = 0; c < 3; c++)
                for (int m = 0; m < 2 && (eights[from].scale > 0 || eights[to].scale > 0); m++)
                    pool_between(eights[from], eights[to], m ? SAC_POOL_AVE : SAC_POOL_MAX,
                                 channels[c]);
}

static void convert_between(struct sac_form from, struct sac_form to, int channels)
{
    struct sac_shape shape = {4, {2, channels, 3, 5}};
    struct sac_graph *graph;

    assert_int_equal(sac_graph_new(&graph, NULL), 0);
    int x = sac_graph_add_value(graph, "x", &shape), y = sac_graph_add_value(graph, "y", &shape);
    struct sac_node *node = sac_graph_add_node(graph, SAC_OP_CONVERT, "convert", 1, 1);
    node->src[0] = x;
    node->dst[0] = y;
    struct sac_tensor in = random_tensor(graph, from), out = run_map(graph, &in, to);
    for (int c = 0; c < channels; c++)
        for (int p = 0; p < 30; p++)
            check_nearest(&out, place(&out, p / 15, c, p / 5 % 3, p % 5),
                          real(&in, place(&in, p / 15, c, p / 5 % 3, p % 5)), "convert");
    free(in.data);
    free(out.data);
    sac_graph_free(graph);
}

static void conversions_round_to_the_nearest_and_clip(void **state)
{
    (void)state;
    for (int from = 0; from < EIGHTS; from++) {
        for (int to = 0; to < EIGHTS; to++) {
            struct sac_form plain = eights[to];
            plain.layout = SAC_PLAIN;
            convert_between(eights[from], eights[to], 5);
            convert_between(eights[from], plain, 21);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_summed_as_whole_numbers),
        cmocka_unit_test(pools_take_and_store_8_bits),
        cmocka_unit_test(conversions_round_to_the_nearest_and_clip),
    };

    return cmocka_run_group_tests(tests, open_device, close_device);
}
