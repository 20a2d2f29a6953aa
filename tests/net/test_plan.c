/*
 * The plan's logic, on a device that computes nothing: it fills each result with
 * the value's tag, checks that every source still holds its own, and wants the
 * forms that a test tells it to want.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/make_graph.h"
#include "net/plan_graph.h"

/* ---- The device ----------------------------------------------------------- */

struct rule {
    struct sac_op_caps caps;
    bool any; /* takes and stores whatever form its first source has */
};

struct fake {
    struct sac_device base;
    struct rule rule[SAC_OP_KINDS];
    int refused;       /* a kind, or -1 */
    size_t memory_max; /* of one allocation */
    int memories, ops; /* alive */
    int prepares_left; /* the one after them fails */
    bool no_convert, fickle;
    int queries;
    int faults;              /* a source was overwritten before it was read */
    struct sac_op *last[64]; /* in the order of their preparation */
    int last_count;
    bool fail_forward;
    int backs; /* gradients written */
};

enum { OPERANDS = 8 };

struct sac_op {
    struct fake *fake;
    const char *kind;
    struct sac_tensor src[OPERANDS], dst[OPERANDS], sum;
    uint8_t src_tag[OPERANDS], dst_tag[OPERANDS], sum_tag;
    int src_count, dst_count;
    uint8_t *workspace, *saved;
    struct sac_op_caps caps;
    struct sac_tensor src_grad[OPERANDS], dst_grad[OPERANDS];
    uint8_t src_grad_tag[OPERANDS], dst_grad_tag[OPERANDS];
};

static int fake_memory_new(struct sac_device *device, enum sac_memory kind, size_t bytes,
                           void **ret, struct sac_error *err)
{
    struct fake *fake = (struct fake *)device;

    assert_true(kind == SAC_MEMORY_DEVICE || kind == SAC_MEMORY_STAGING);
    if (bytes > fake->memory_max)
        return sac_fail(err, SAC_ENOMEM, "the fake has no %zu bytes", bytes);
    *ret = aligned_alloc(256, (bytes + 255) / 256 * 256);
    assert_non_null(*ret);
    memset(*ret, 0xdd, bytes);
    fake->memories++;
    return 0;
}

static void fake_memory_free(struct sac_device *device, enum sac_memory kind, void *memory)
{
    (void)kind;
    ((struct fake *)device)->memories--;
    free(memory);
}

static int fake_query(struct sac_device *device, const struct sac_graph *graph,
                      const struct sac_node *node, const struct sac_op_options *options,
                      struct sac_op_caps *ret, struct sac_error *err)
{
    struct fake *fake = (struct fake *)device;
    struct sac_form present = graph->values[node->src[0]].form;

    (void)options;
    fake->queries++;
    if ((int)node->kind == fake->refused)
        return sac_fail(err, SAC_EUNSUPPORTED, "layer %s: the fake refuses it", node->name);
    *ret = fake->rule[node->kind].caps;
    if (fake->rule[node->kind].any)
        ret->src = ret->dst = present;
    if (node->kind == SAC_OP_CONVERT) {
        ret->src = present;
        ret->dst = fake->no_convert ? present : graph->values[node->dst[0]].form;
    }
    if (fake->fickle && node->kind == SAC_OP_CONV)
        ret->src.type = present.type == SAC_F32 ? SAC_BF16 : SAC_F32;
    ret->kernel = "fake";
    ret->flops = 10;
    return 0;
}

/* An alias's memory holds what its source's did. */
static uint8_t tag_of(struct fake *fake, const struct sac_graph *graph, int value)
{
    int at = sac_graph_producer(graph, value);

    if (at >= 0 && fake->rule[graph->nodes[at].kind].caps.alias)
        return tag_of(fake, graph, graph->nodes[at].src[0]);
    assert_true(value < 250);
    return (uint8_t)(value + 1);
}

/* A gradient passes through an alias as its value does; a split has several. */
static uint8_t grad_tag_of(struct fake *fake, const struct sac_graph *graph, int value)
{
    int at = sac_graph_producer(graph, value);

    if (at >= 0 && fake->rule[graph->nodes[at].kind].caps.alias &&
        graph->nodes[at].kind != SAC_OP_SPLIT)
        return grad_tag_of(fake, graph, graph->nodes[at].src[0]);
    assert_true(value < 250);
    return (uint8_t)(value + 2);
}

static void bind_gradients(struct sac_op *op, const struct sac_graph *graph,
                           const struct sac_node *node, const struct sac_binding *binding)
{
    for (int i = 0; binding->src_grad && i < node->src_count; i++) {
        op->src_grad[i] = binding->src_grad[i];
        op->src_grad_tag[i] = grad_tag_of(op->fake, graph, node->src[i]);
    }
    for (int i = 0; binding->dst_grad && i < node->dst_count; i++) {
        op->dst_grad[i] = binding->dst_grad[i];
        op->dst_grad_tag[i] = grad_tag_of(op->fake, graph, node->dst[i]);
    }
}

static void bind(struct sac_op *op, const struct sac_graph *graph, const struct sac_node *node,
                 const struct sac_binding *binding)
{
    op->src_count = node->src_count;
    op->dst_count = node->dst_count;
    assert_true(node->src_count <= OPERANDS && node->dst_count <= OPERANDS);
    for (int i = 0; i < node->src_count; i++) {
        op->src[i] = binding->src[i];
        op->src_tag[i] = tag_of(op->fake, graph, node->src[i]);
    }
    for (int i = 0; i < node->dst_count; i++) {
        op->dst[i] = binding->dst[i];
        op->dst_tag[i] = tag_of(op->fake, graph, node->dst[i]);
    }
    op->sum = binding->sum;
    if (node->epilogue.sum >= 0)
        op->sum_tag = tag_of(op->fake, graph, node->epilogue.sum);
    op->workspace = binding->workspace;
    op->saved = binding->saved;
    bind_gradients(op, graph, node, binding);
}

static int fake_prepare(struct sac_device *device, struct sac_store *store,
                        const struct sac_graph *graph, const struct sac_node *node,
                        const struct sac_op_options *options, const struct sac_binding *binding,
                        struct sac_op **ret, struct sac_error *err)
{
    struct fake *fake = (struct fake *)device;

    (void)store;
    if (fake->prepares_left-- <= 0)
        return sac_fail(err, SAC_EDEVICE, "layer %s: the fake broke", node->name);
    struct sac_op *op = calloc(1, sizeof *op);
    assert_non_null(op);
    op->fake = fake;
    op->kind = sac_op_kind_name(node->kind);
    assert_int_equal(fake_query(device, graph, node, options, &op->caps, err), 0);
    bind(op, graph, node, binding);
    fake->ops++;
    if (fake->last_count < 64)
        fake->last[fake->last_count++] = op;
    *ret = op;
    return 0;
}

static void fake_op_free(struct sac_op *op)
{
    if (op)
        op->fake->ops--;
    free(op);
}

static size_t bytes_of(const struct sac_tensor *tensor)
{
    return sac_tensor_bytes(&tensor->shape, tensor->form.type);
}

static bool holds(const struct sac_tensor *tensor, uint8_t tag)
{
    const uint8_t *data = tensor->data;

    for (size_t i = 0; i < bytes_of(tensor); i++)
        if (data[i] != tag)
            return false;
    return true;
}

static bool overlap(const struct sac_tensor *a, const struct sac_tensor *b)
{
    const char *x = a->data, *y = b->data;

    return x && y && x < y + bytes_of(b) && y < x + bytes_of(a);
}

/* Only what was allowed may share memory with a result. */
static void check_sharing(struct sac_op *op)
{
    for (int d = 0; d < op->dst_count; d++) {
        for (int s = 0; s < op->src_count; s++)
            if (overlap(&op->dst[d], &op->src[s]) &&
                !(d == 0 && s == 0 && op->caps.in_place && op->dst[0].data == op->src[0].data))
                op->fake->faults++;
        if (overlap(&op->dst[d], &op->sum) && !(d == 0 && op->dst[0].data == op->sum.data))
            op->fake->faults++;
    }
}

static int fake_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    (void)stream;
    if (op->fake->fail_forward)
        return sac_fail(err, SAC_EDEVICE, "the fake stopped");
    for (int i = 0; i < op->src_count; i++)
        op->fake->faults += !holds(&op->src[i], op->src_tag[i]);
    if (op->sum.data)
        op->fake->faults += !holds(&op->sum, op->sum_tag);
    check_sharing(op);
    if (op->workspace)
        memset(op->workspace, 0xee, op->caps.workspace_bytes);
    if (op->saved)
        memset(op->saved, 0xef, op->caps.saved_bytes);
    for (int i = 0; i < op->dst_count; i++)
        memset(op->dst[i].data, op->dst_tag[i], bytes_of(&op->dst[i]));
    return 0;
}

static bool all_hold(const struct sac_tensor *tensors, const uint8_t *tags, int count)
{
    for (int i = 0; i < count; i++)
        if (tensors[i].data && !holds(&tensors[i], tags[i]))
            return false;
    return true;
}

/* What it may read is there. */
static int fake_backward_weights(struct sac_op *op, struct sac_stream *stream,
                                 struct sac_error *err)
{
    (void)stream;
    (void)err;
    op->fake->faults += !all_hold(op->dst_grad, op->dst_grad_tag, op->dst_count);
    if (op->caps.backward_src)
        op->fake->faults += !all_hold(op->src, op->src_tag, op->src_count);
    if (op->caps.backward_dst)
        op->fake->faults += !all_hold(op->dst, op->dst_tag, op->dst_count);
    for (size_t i = 0; i < op->caps.saved_bytes; i++)
        op->fake->faults += op->saved[i] != 0xef;
    return 0;
}

static int fake_backward_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    fake_backward_weights(op, stream, err);
    if (op->workspace)
        memset(op->workspace, 0xee, op->caps.workspace_bytes);
    for (int i = 0; i < op->src_count; i++) {
        for (int k = 0; k < op->dst_count; k++)
            if (overlap(&op->src_grad[i], &op->dst_grad[k]) &&
                !(i == 0 && k == 0 && op->caps.grad_in_place))
                op->fake->faults++;
        for (int k = 0; k < i; k++)
            op->fake->faults += overlap(&op->src_grad[i], &op->src_grad[k]);
        if (op->src_grad[i].data)
            memset(op->src_grad[i].data, op->src_grad_tag[i], bytes_of(&op->src_grad[i]));
        op->fake->backs += op->src_grad[i].data != NULL;
    }
    return 0;
}

static int fake_copy(struct sac_stream *stream, enum sac_copy way, void *dst, const void *src,
                     size_t bytes, struct sac_error *err)
{
    (void)stream;
    (void)way;
    (void)err;
    memcpy(dst, src, bytes);
    return 0;
}

static int fake_sync(struct sac_stream *stream, struct sac_error *err)
{
    (void)stream;
    (void)err;
    return 0;
}

static int fake_lower(struct sac_device *device, struct sac_graph *graph,
                      const struct sac_op_options *options, struct sac_error *err)
{
    (void)device;
    (void)graph;
    (void)err;
    assert_false(options->reference); /* the reference runs what the net says */
    return 0;
}

static const struct sac_device_table fake_table = {
    .kind = "fake",
    .memory_new = fake_memory_new,
    .memory_free = fake_memory_free,
    .op_query = fake_query,
    .op_prepare = fake_prepare,
    .op_free = fake_op_free,
    .op_forward = fake_forward,
    .op_backward_data = fake_backward_data,
    .op_backward_weights = fake_backward_weights,
    .copy = fake_copy,
    .stream_sync = fake_sync,
    .lower = fake_lower,
};

static struct fake fake_new(void)
{
    struct fake fake = {.base.table = &fake_table, .refused = -1};

    fake.memory_max = SIZE_MAX;
    fake.prepares_left = 1000;
    fake.rule[SAC_OP_RELU].any = true;
    fake.rule[SAC_OP_SPLIT] = (struct rule){.caps.alias = true, .any = true};
    fake.rule[SAC_OP_PIXELS].caps.src.type = SAC_U8;
    fake.rule[SAC_OP_TOPK].caps.dst.type = SAC_TOPK_PAIR;
    return fake;
}

static struct sac_plan *plan_of(struct fake *fake, struct sac_graph *graph,
                                const struct sac_plan_options *options)
{
    const struct sac_plan_options none = {0};
    struct sac_error err = {0};
    struct sac_plan *plan = NULL;

    fake->last_count = 0;
    assert_ok(sac_plan_from_graph(&plan, graph, "toy", &fake->base, NULL, NULL,
                                  options ? options : &none, &err),
              err);
    return plan;
}

static void run_and_free(struct fake *fake, struct sac_plan *plan)
{
    struct sac_error err = {0};

    for (int i = 0; i < sac_plan_input_count(plan); i++) {
        const struct sac_tensor *input = sac_plan_input(plan, i);
        /* Inputs are the first values of these graphs; pixels make a later one. */
        memset(input->data, input->form.type == SAC_U8 ? fake->last[0]->src_tag[0] : i + 1,
               bytes_of(input));
    }
    for (int run = 0; run < 2; run++) /* twice on what was written once */
        assert_ok(sac_plan_forward(plan, &err), err);
    assert_int_equal(fake->faults, 0);
    sac_plan_free(plan);
    assert_int_equal(fake->ops, 0);
    assert_int_equal(fake->memories, 0);
}

/* The prepared operations' kinds, in order. */
static void assert_kinds(const struct fake *fake, const char *expected)
{
    char text[1024] = "";

    for (int i = 0; i < fake->last_count; i++) {
        if (i > 0)
            strcat(text, ", ");
        strcat(text, fake->last[i]->kind);
    }
    assert_string_equal(text, expected);
}

static const struct sac_form BF16_LAST = {SAC_BF16, SAC_CHANNELS_LAST};

/* ---- Forms ---------------------------------------------------------------- */

static void two_readers_of_one_form_share_one_conversion(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
    int a = make_conv(graph, "a", x, 3, 3, 1, 1, 1, true);
    int b = make_conv(graph, "b", x, 3, 3, 1, 1, 1, true);

    (void)state;
    fake.rule[SAC_OP_CONV].caps.src = fake.rule[SAC_OP_CONV].caps.dst = BF16_LAST;
    fake.rule[SAC_OP_ELTWISE].caps.src = fake.rule[SAC_OP_ELTWISE].caps.dst = BF16_LAST;
    make_outputs(graph, 1, make_sum(graph, "sum", a, b));
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_kinds(&fake, "convert, convolution, convolution, eltwise, convert");
    assert_ptr_equal(fake.last[1]->src[0].data, fake.last[2]->src[0].data);
    assert_int_equal(fake.last[1]->src[0].form.type, SAC_BF16);
    assert_int_equal(fake.last[1]->src[0].stride[1], 1); /* channels innermost */
    assert_int_equal(sac_plan_output(plan, 0)->form.type, SAC_F32);
    assert_int_equal(sac_plan_output(plan, 0)->form.layout, SAC_PLAIN);
    run_and_free(&fake, plan);
}

static void forms_that_agree_need_no_conversion(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));

    (void)state;
    x = make_relu(graph, "relu", make_conv(graph, "conv", x, 3, 3, 1, 1, 1, true));
    make_outputs(graph, 1, x);
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_kinds(&fake, "convolution, ReLU");
    assert_int_equal(fake.queries, 2 + 2); /* each once, and once as prepared here */
    run_and_free(&fake, plan);
}

/* N × C × 1 × 1 and N × C stand the same in both layouts: only types differ. */
static void values_without_an_area_are_never_rearranged(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 2, 8, 1, 1));

    (void)state;
    fake.rule[SAC_OP_CONV].caps.src.layout = SAC_CHANNELS_LAST;
    fake.rule[SAC_OP_CONV].caps.dst.layout = SAC_CHANNELS_LAST;
    fake.rule[SAC_OP_INNER].caps.src.layout = SAC_CHANNELS_LAST;
    fake.rule[SAC_OP_INNER].caps.dst.layout = SAC_CHANNELS_LAST;
    int y = make_conv(graph, "conv", x, 3, 1, 1, 0, 1, true);
    int z = make_inner(graph, "fc", make_inner(graph, "fc0", y, 4), 3);
    make_outputs(graph, 2, z, y);
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_kinds(&fake, "convolution, inner product, inner product");
    assert_int_equal(fake.last[0]->src[0].form.layout, SAC_CHANNELS_LAST); /* as it asked */
    assert_int_equal(fake.last[2]->src[0].form.layout, SAC_PLAIN);         /* rank 2 */
    assert_int_equal(sac_plan_output(plan, 1)->form.layout, SAC_PLAIN);
    run_and_free(&fake, plan);
}

static void a_sum_is_brought_into_the_results_form(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
    int y = make_conv(graph, "conv", x, 2, 3, 1, 1, 1, true);

    (void)state;
    make_last(graph)->epilogue.sum = x;
    fake.rule[SAC_OP_CONV].caps.dst = BF16_LAST;
    make_outputs(graph, 1, y);
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_kinds(&fake, "convert, convolution, convert");
    assert_int_equal(fake.last[1]->sum.form.type, SAC_BF16);
    assert_ptr_equal(fake.last[1]->sum.data, fake.last[1]->dst[0].data);
    run_and_free(&fake, plan);
}

static int fails(struct fake *fake, struct sac_graph *graph, const struct sac_plan_options *options,
                 struct sac_error *err)
{
    struct sac_plan *plan = (struct sac_plan *)fake; /* untouched on failure */
    const struct sac_plan_options none = {0};
    int rc = sac_plan_from_graph(&plan, graph, "toy", &fake->base, NULL, NULL,
                                 options ? options : &none, err);

    assert_ptr_equal(plan, fake);
    assert_int_equal(fake->ops, 0);
    assert_int_equal(fake->memories, 0);
    return rc;
}

static struct sac_graph *small_graph(void)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 3, 2, 4, 4));

    x = make_conv(graph, "conv", x, 3, 3, 1, 1, 1, true);
    x = make_relu(graph, "relu", x);
    make_outputs(graph, 1, make_softmax(graph, "prob", make_inner(graph, "fc", x, 5)));
    return graph;
}

static void what_the_device_refuses_is_told_with_the_nets_name(void **state)
{
    struct fake fake = fake_new();
    struct sac_error err = {0};

    (void)state;
    fake.refused = SAC_OP_SOFTMAX;
    assert_int_equal(fails(&fake, small_graph(), NULL, &err), SAC_EUNSUPPORTED);
    assert_string_equal(err.text, "net toy: layer prob: the fake refuses it");
}

static void a_device_without_the_conversion_it_wants_is_an_error(void **state)
{
    struct fake fake = fake_new();
    struct sac_error err = {0};

    (void)state;
    fake.no_convert = true;
    fake.rule[SAC_OP_CONV].caps.src = BF16_LAST;
    assert_int_equal(fails(&fake, small_graph(), NULL, &err), SAC_EDEVICE);
    assert_says(err, "blob data: the device cannot convert it from f32 plain to bf16 "
                     "channels-last");
}

static void a_device_that_changes_its_mind_is_an_error(void **state)
{
    struct fake fake = fake_new();
    struct sac_error err = {0};

    (void)state;
    fake.fickle = true;
    assert_int_equal(fails(&fake, small_graph(), NULL, &err), SAC_EDEVICE);
    assert_says(err, "layer conv: the device asks for other forms");
}

static void a_layout_of_unknown_size_is_an_error(void **state)
{
    struct fake fake = fake_new();
    struct sac_error err = {0};

    (void)state;
    fake.rule[SAC_OP_CONV].caps.dst.layout = SAC_LAYOUT_OWN;
    fake.rule[SAC_OP_RELU].any = true;
    fake.rule[SAC_OP_INNER].caps.src.layout = SAC_LAYOUT_OWN;
    assert_int_equal(fails(&fake, small_graph(), NULL, &err), SAC_EUNSUPPORTED);
    assert_says(err, "layout of its own");
}

/* ---- Memory --------------------------------------------------------------- */

static void an_operation_works_in_place_on_what_nobody_reads_later(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
    int y = make_conv(graph, "conv", x, 2, 3, 1, 1, 1, true);

    (void)state;
    fake.rule[SAC_OP_RELU].caps.in_place = true;
    int z = make_relu(graph, "relu1", y); /* in place: conv's result ends here */
    int w = make_relu(graph, "relu2", z); /* not: the sum reads relu1 again */
    make_outputs(graph, 1, make_sum(graph, "sum", z, w));
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_kinds(&fake, "convolution, ReLU, ReLU, eltwise");
    assert_ptr_equal(fake.last[1]->dst[0].data, fake.last[0]->dst[0].data);
    assert_ptr_not_equal(fake.last[2]->dst[0].data, fake.last[1]->dst[0].data);
    run_and_free(&fake, plan);
}

static void inputs_and_outputs_are_never_overwritten(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
    int y = make_relu(graph, "relu1", x);
    int z = make_relu(graph, "relu2", y); /* the last step reads an output */

    (void)state;
    fake.rule[SAC_OP_RELU].caps.in_place = true;
    make_outputs(graph, 2, y, z);
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_ptr_not_equal(sac_plan_output(plan, 0)->data, sac_plan_input(plan, 0)->data);
    assert_ptr_not_equal(sac_plan_output(plan, 0)->data, sac_plan_output(plan, 1)->data);
    assert_int_equal(sac_plan_memory_bytes(plan), 3 * 128);
    run_and_free(&fake, plan);
}

static void a_result_that_is_larger_takes_memory_of_its_own(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));

    (void)state;
    fake.rule[SAC_OP_CONV].caps.dst = BF16_LAST;
    fake.rule[SAC_OP_RELU] =
        (struct rule){.caps = {.src = BF16_LAST, .dst = {SAC_F32, SAC_PLAIN}, .in_place = true}};
    x = make_relu(graph, "relu", make_conv(graph, "conv", x, 2, 3, 1, 1, 1, true));
    make_outputs(graph, 1, x);
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_kinds(&fake, "convolution, ReLU");
    assert_ptr_not_equal(fake.last[1]->dst[0].data, fake.last[0]->dst[0].data);
    run_and_free(&fake, plan);
}

static void a_source_that_is_read_twice_by_one_node_is_not_overwritten(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
    int y = make_conv(graph, "conv", x, 2, 3, 1, 1, 1, true);

    (void)state;
    fake.rule[SAC_OP_ELTWISE].caps.in_place = true;
    make_outputs(graph, 1, make_sum(graph, "twice", y, y));
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_ptr_not_equal(fake.last[1]->dst[0].data, fake.last[0]->dst[0].data);
    run_and_free(&fake, plan);
}

static void an_alias_shares_memory_and_runs_nothing(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
    int y = make_conv(graph, "conv", x, 2, 3, 1, 1, 1, true);
    int flat = make_op(graph, SAC_OP_RESHAPE, "flat", make_shape(2, 1, 32), 1, y);
    int z = make_relu(graph, "relu", y); /* y is read here last, flat later */

    (void)state;
    fake.rule[SAC_OP_RELU].caps.in_place = true;
    fake.rule[SAC_OP_RESHAPE] = (struct rule){.caps.alias = true, .any = true};
    make_outputs(graph, 2, make_inner(graph, "fc", flat, 3), z);
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_kinds(&fake, "convolution, ReLU, inner product");
    assert_int_equal(sac_plan_step_count(plan), 3);
    assert_ptr_equal(fake.last[2]->src[0].data, fake.last[0]->dst[0].data);
    assert_ptr_not_equal(fake.last[1]->dst[0].data, fake.last[0]->dst[0].data);
    run_and_free(&fake, plan);
}

static void what_an_output_is_an_alias_of_is_not_overwritten(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
    int y = make_conv(graph, "conv", x, 2, 3, 1, 1, 1, true);
    int flat = make_op(graph, SAC_OP_RESHAPE, "flat", make_shape(2, 1, 32), 1, y);
    int z = make_relu(graph, "relu", y); /* the last step, and the last to read y */

    (void)state;
    fake.rule[SAC_OP_RELU].caps.in_place = true;
    fake.rule[SAC_OP_RESHAPE] = (struct rule){.caps.alias = true, .any = true};
    make_outputs(graph, 2, flat, z);
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_ptr_equal(sac_plan_output(plan, 0)->data, fake.last[0]->dst[0].data);
    assert_ptr_not_equal(sac_plan_output(plan, 1)->data, sac_plan_output(plan, 0)->data);
    run_and_free(&fake, plan);
}

static void a_result_shares_the_memory_of_a_sum_that_ends_there(void **state)
{
    (void)state;
    for (int later = 0; later <= 1; later++) {
        struct fake fake = fake_new();
        struct sac_graph *graph = make_graph();
        int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
        int a = make_conv(graph, "a", x, 2, 3, 1, 1, 1, true);
        int b = make_conv(graph, "b", x, 2, 3, 1, 1, 1, true);
        make_last(graph)->epilogue.sum = a;
        make_outputs(graph, 1, later ? make_sum(graph, "again", a, b) : b);
        struct sac_plan *plan = plan_of(&fake, graph, NULL);
        bool shared = fake.last[1]->dst[0].data == fake.last[0]->dst[0].data;
        assert_int_equal(shared, !later);
        run_and_free(&fake, plan);
    }
}

static void an_input_may_be_an_output(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(2, 3, 5));
    struct sac_error err = {0};

    (void)state;
    make_outputs(graph, 2, x, x);
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_int_equal(sac_plan_step_count(plan), 0);
    assert_ptr_equal(sac_plan_output(plan, 0)->data, sac_plan_input(plan, 0)->data);
    assert_int_equal(sac_plan_memory_bytes(plan), 64); /* 3 · 5 · 4 bytes, rounded */
    assert_ok(sac_plan_forward(plan, &err), err);
    run_and_free(&fake, plan);
}

static void one_workspace_serves_all_behind_the_blobs(void **state)
{
    struct fake fake = fake_new();

    (void)state;
    fake.rule[SAC_OP_CONV].caps.workspace_bytes = 1000;
    fake.rule[SAC_OP_INNER].caps.workspace_bytes = 5000;
    struct sac_plan *plan = plan_of(&fake, small_graph(), NULL);
    assert_kinds(&fake, "convolution, ReLU, inner product, softmax");
    assert_ptr_equal(fake.last[0]->workspace, fake.last[2]->workspace);
    assert_null(fake.last[1]->workspace);
    const char *base = sac_plan_input(plan, 0)->data;
    assert_true(fake.last[0]->workspace + 5000 <= (uint8_t *)base + sac_plan_memory_bytes(plan));
    run_and_free(&fake, plan);
}

/* As cuBLASLt wants it, in memory that stands so, whatever the blobs need. */
static void the_workspace_stands_on_256_bytes(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));

    (void)state;
    fake.rule[SAC_OP_CONV].caps.workspace_bytes = 1000;
    make_outputs(graph, 1, make_conv(graph, "conv", x, 3, 3, 1, 1, 1, true)); /* 128 + 192 bytes */
    struct sac_plan *plan = plan_of(&fake, graph, NULL);
    assert_int_equal((uintptr_t)fake.last[0]->workspace % 256, 0);
    assert_int_equal(sac_plan_memory_bytes(plan), 512 + 1000);
    run_and_free(&fake, plan);
}

/* A loss at the end of the small graph, behind weights that train. */
static struct sac_graph *small_loss_graph(void)
{
    struct sac_graph *graph = small_graph();

    for (int i = 0; i < graph->constant_count; i++)
        graph->constants[i].trains = true;
    sac_graph_add_loss(graph, graph->outputs[0], 1);
    return graph;
}

static size_t training_bytes(bool reads)
{
    struct fake fake = fake_new();
    struct sac_plan_options options = {.ops.training = true};

    fake.rule[SAC_OP_RELU].caps.in_place = true;
    fake.rule[SAC_OP_RELU].caps.saved_bytes = 100;
    fake.rule[SAC_OP_CONV].caps.saved_bytes = 100;
    fake.rule[SAC_OP_RELU].caps.backward_src = reads;
    struct sac_plan *plan = plan_of(&fake, small_loss_graph(), &options);
    assert_non_null(fake.last[0]->saved);
    assert_null(fake.last[2]->saved);
    assert_true(labs(fake.last[0]->saved - fake.last[1]->saved) >= 100);
    assert_int_equal(fake.last[1]->dst[0].data == fake.last[1]->src[0].data, !reads);
    size_t bytes = sac_plan_memory_bytes(plan);
    run_and_free(&fake, plan);
    return bytes;
}

static void training_keeps_what_backward_reads_and_what_is_saved(void **state)
{
    (void)state;
    /* What the ReLU reads again is not overwritten, and kept until it was read: conv's
     * 3·3·4·4 floats are beside relu's. */
    assert_true(training_bytes(true) > training_bytes(false));
}

static void memory_that_cannot_be_had_is_told_in_bytes_with_net_and_batch(void **state)
{
    struct fake fake = fake_new();
    struct sac_error err = {0};

    (void)state;
    fake.memory_max = 100;
    assert_int_equal(fails(&fake, small_graph(), NULL, &err), SAC_ENOMEM);
    /* data 384 beside conv and relu, 576 each; fc and prob fit into what ends. */
    assert_string_equal(err.text, "net toy: batch 3 needs 1536 bytes of device memory: the fake "
                                  "has no 1536 bytes");
}

static void sizes_that_fit_no_address_space_are_refused(void **state)
{
    struct fake fake = fake_new();
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 1 << 20, 1 << 20, 1 << 20, 1 << 20));
    struct sac_error err = {0};

    (void)state;
    make_outputs(graph, 1, make_relu(graph, "relu", x));
    assert_int_equal(fails(&fake, graph, NULL, &err), SAC_ELIMIT);
    assert_says(err, "blob data: 1048576 × 1048576");
    graph = small_graph();
    fake.rule[SAC_OP_CONV].caps.workspace_bytes = SIZE_MAX - 10;
    err = (struct sac_error){0};
    assert_int_equal(fails(&fake, graph, NULL, &err), SAC_ELIMIT);
    assert_says(err, "workspace");
}

static void a_failure_half_way_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int n = 0; n < 4; n++) {
        struct fake fake = fake_new();
        struct sac_error err = {0};
        fake.prepares_left = n;
        assert_int_equal(fails(&fake, small_graph(), NULL, &err), SAC_EDEVICE);
        assert_says(err, "the fake broke");
    }
}

static struct sac_graph *conv_of_batch(int batch)
{
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, batch, 2, 4, 4));

    make_outputs(graph, 1, make_conv(graph, "conv", x, 2, 3, 1, 1, 1, true));
    return graph;
}

static void smaller_plans_live_in_the_memory_of_a_larger_one(void **state)
{
    struct fake fake = fake_new();
    struct sac_plan *eight = plan_of(&fake, conv_of_batch(8), NULL);
    struct sac_plan_options in_eight = {.memory_of = eight};
    struct sac_plan *one = plan_of(&fake, conv_of_batch(1), &in_eight);
    struct sac_plan_options in_one = {.memory_of = one};
    struct sac_plan *four = plan_of(&fake, conv_of_batch(4), &in_one);
    struct sac_plan *sixteen = plan_of(&fake, conv_of_batch(16), &in_eight);

    (void)state;
    assert_int_equal(fake.memories, 2);
    assert_int_equal(sac_plan_batch(four), 4);
    assert_int_equal(sac_plan_memory_bytes(one), 2 * 128);
    assert_int_equal(sac_plan_memory_bytes(eight), 8 * 2 * 128);
    assert_ptr_equal(sac_plan_input(one, 0)->data, sac_plan_input(four, 0)->data);
    sac_plan_free(sixteen);
    sac_plan_free(four);
    sac_plan_free(one);
    assert_int_equal(fake.memories, 1);
    sac_plan_free(eight);
    assert_int_equal(fake.memories, 0);
    sac_plan_free(NULL);
}

/* ---- Random graphs -------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state >> 11;
}

static int some(uint64_t *seed, int count)
{
    return (int)(next_random(seed) % (uint64_t)count);
}

static struct fake fake_of_many_tastes(void)
{
    struct fake fake = fake_new();
    const struct sac_form plain = {SAC_F32, SAC_PLAIN}, half = {SAC_BF16, SAC_PLAIN};

    fake.rule[SAC_OP_RELU].caps.in_place = true;
    fake.rule[SAC_OP_RESHAPE] = (struct rule){.caps.alias = true, .any = true};
    fake.rule[SAC_OP_CONV].caps =
        (struct sac_op_caps){.src = BF16_LAST, .dst = BF16_LAST, .workspace_bytes = 777};
    fake.rule[SAC_OP_ELTWISE].caps =
        (struct sac_op_caps){.src = plain, .dst = plain, .in_place = true};
    fake.rule[SAC_OP_SIGMOID].caps =
        (struct sac_op_caps){.src = half, .dst = plain, .in_place = true};
    fake.rule[SAC_OP_TANH].caps = (struct sac_op_caps){.src = plain, .dst = half, .in_place = true};
    return fake;
}

static struct sac_graph *random_graph(uint64_t *seed)
{
    static const enum sac_op_kind kinds[] = {SAC_OP_CONV, SAC_OP_RELU,    SAC_OP_SIGMOID,
                                             SAC_OP_TANH, SAC_OP_RESHAPE, SAC_OP_ELTWISE,
                                             SAC_OP_CONV, SAC_OP_RELU};
    const struct sac_shape shape = make_shape(4, 1, 2, 5, 7);
    struct sac_graph *graph = make_graph();
    int values = 2;

    make_input(graph, "data", shape);
    make_input(graph, "data2", shape);
    for (int i = 0; i < 30; i++) {
        enum sac_op_kind kind = kinds[some(seed, 8)];
        int near = values > 5 ? values - 5 : 0; /* mostly of late */
        int a = some(seed, 4) ? near + some(seed, values - near) : some(seed, values);
        int b = near + some(seed, values - near);
        struct sac_shape to = graph->values[a].shape;
        if (kind == SAC_OP_RESHAPE) { /* to another shape, or it would go as idle */
            to.dim[2] = graph->values[a].shape.dim[3];
            to.dim[3] = graph->values[a].shape.dim[2];
        }
        if (kind == SAC_OP_ELTWISE)
            make_op(graph, kind, "sum", to, 2, a, b);
        else
            make_op(graph, kind, "one", to, 1, a);
        if (kind == SAC_OP_CONV && some(seed, 2))
            make_last(graph)->epilogue.sum = b;
        values++;
    }
    make_outputs(graph, 3, values - 1, some(seed, values), some(seed, values));
    return graph;
}

/* Every source holds its value when it is read, twice over, whatever is shared. */
static void no_value_is_overwritten_while_somebody_needs_it(void **state)
{
    uint64_t seed = 88172645463325252u;
    int shared = 0;

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct fake fake = fake_of_many_tastes();
        struct sac_graph *graph = random_graph(&seed);
        struct sac_plan *plan = plan_of(&fake, graph, NULL);
        for (int j = 0; j < fake.last_count; j++)
            shared += fake.last[j]->dst[0].data == fake.last[j]->src[0].data ||
                      fake.last[j]->dst[0].data == fake.last[j]->sum.data;
        run_and_free(&fake, plan);
    }
    assert_true(shared > 300); /* it does happen */
}

/* Some weights that train, and a loss of each output; its weight is the tag of the
 * gradient that it starts. */
static void add_losses(struct sac_graph *graph, uint64_t *seed)
{
    static const float weight[] = {1};
    const struct sac_shape one = {.rank = 1, .dim = {1}}, scalar = {0};
    int w = sac_graph_add_constant(graph, "w", &one, weight);
    int outputs = graph->output_count;

    graph->constants[w].trains = true;
    for (int t = 0; t < graph->node_count; t++) {
        graph->nodes[t].epilogue.sum = -1;
        if (graph->nodes[t].kind == SAC_OP_CONV && some(seed, 3) == 0) {
            graph->nodes[t].weight_count = 1;
            graph->nodes[t].weight[0] = w;
        }
    }
    for (int i = 0; i < outputs; i++) {
        int loss = make_op(graph, SAC_OP_SOFTMAX_LOSS, "loss", scalar, 1, graph->outputs[i]);
        float seed_weight;
        memset(&seed_weight, loss + 2, sizeof seed_weight);
        sac_graph_add_loss(graph, loss, seed_weight);
    }
}

static struct fake fake_that_trains(uint64_t *seed)
{
    struct fake fake = fake_of_many_tastes();

    for (int kind = 0; kind < SAC_OP_KINDS; kind++) {
        struct sac_op_caps *caps = &fake.rule[kind].caps;
        if (caps->alias)
            continue;
        caps->backward_src = some(seed, 2);
        caps->backward_dst = some(seed, 2);
        caps->grad_in_place = some(seed, 2);
        caps->saved_bytes = some(seed, 2) ? 200 : 0;
    }
    fake.rule[SAC_OP_SPLIT].caps.grad_in_place = some(seed, 2);
    return fake;
}

static void nothing_that_backward_reads_is_overwritten_before_it(void **state)
{
    uint64_t seed = 88172645463325252u;
    int backs = 0;

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct fake fake = fake_that_trains(&seed);
        struct sac_plan_options options = {.ops.training = true};
        struct sac_graph *graph = random_graph(&seed);
        float grad, *grads[] = {&grad}, *weights[] = {&grad};
        struct sac_error err = {0};
        add_losses(graph, &seed);
        graph->constants[graph->constant_count - 1].param = 0;
        options.weights = weights;
        options.weight_grads = grads;
        struct sac_plan *plan = plan_of(&fake, graph, &options);
        for (int k = 0; k < sac_plan_input_count(plan); k++)
            memset(sac_plan_input(plan, k)->data, k + 1, bytes_of(sac_plan_input(plan, k)));
        for (int k = 0; k < 2; k++) {
            assert_ok(sac_plan_forward(plan, &err), err);
            assert_ok(sac_plan_backward(plan, &err), err);
        }
        assert_int_equal(fake.faults, 0);
        backs += fake.backs;
        run_and_free(&fake, plan);
    }
    assert_true(backs > 3000); /* there are gradients */
}

/* ---- Ends and reports ----------------------------------------------------- */

static void pixels_come_first_and_the_largest_come_out(void **state)
{
    struct fake fake = fake_new();
    union sac_op_param pixels = {.pixels = {.scale = 1}};
    struct sac_plan_options options = {.pixels = &pixels, .topk = 2};
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(4, 3, 2, 4, 5));
    int y = make_relu(graph, "relu", x);

    (void)state;
    make_outputs(graph, 2, y, make_inner(graph, "fc", y, 6));
    struct sac_plan *plan = plan_of(&fake, graph, &options);
    assert_kinds(&fake, "pixels, ReLU, inner product, top-k");
    const struct sac_tensor *in = sac_plan_input(plan, 0), *out = sac_plan_output(plan, 0);
    struct sac_shape in_shape = make_shape(4, 3, 4, 5, 2), out_shape = make_shape(2, 3, 2);
    assert_true(sac_shape_equal(&in->shape, &in_shape));
    assert_int_equal(in->form.type, SAC_U8);
    assert_true(sac_shape_equal(&out->shape, &out_shape));
    assert_int_equal(out->form.type, SAC_TOPK_PAIR);
    assert_int_equal(sac_plan_output_count(plan), 2);
    assert_int_equal(sac_plan_output(plan, 1)->shape.dim[3], 5); /* relu's, behind */
    assert_int_equal(sac_plan_batch(plan), 3);
    run_and_free(&fake, plan);
}

static void pixels_and_topk_that_cannot_be_meant_are_refused(void **state)
{
    union sac_op_param pixels = {.pixels = {.scale = 1}};
    struct sac_plan_options of_matrix = {.pixels = &pixels}, of_area = {.topk = 2};
    struct sac_plan_options too_many = {.topk = 6};
    struct fake fake = fake_new();
    struct sac_error err = {0};
    struct sac_graph *graph = make_graph();
    int x = make_input(graph, "data", make_shape(2, 3, 5));

    (void)state;
    make_outputs(graph, 1, make_relu(graph, "relu", x));
    assert_int_equal(fails(&fake, graph, &of_matrix, &err), SAC_EINVAL);
    assert_says(err, "net toy: pixels need an input of 4 axes");
    err = (struct sac_error){0};
    assert_int_equal(fails(&fake, conv_of_batch(1), &of_area, &err), SAC_EINVAL);
    assert_says(err, "expected N × C values, it has 1 × 2 × 4 × 4");
    err = (struct sac_error){0};
    assert_int_equal(fails(&fake, small_graph(), &too_many, &err), SAC_EINVAL);
    assert_says(err, "it has only 5 values");
}

static void the_report_tells_what_runs(void **state)
{
    struct fake fake = fake_new();
    struct sac_plan_step step;

    (void)state;
    fake.rule[SAC_OP_CONV].caps.src = fake.rule[SAC_OP_CONV].caps.dst = BF16_LAST;
    struct sac_plan *plan = plan_of(&fake, small_graph(), NULL);
    assert_int_equal(sac_plan_step_count(plan), 6);
    sac_plan_step(plan, 1, &step);
    assert_string_equal(step.name, "conv");
    assert_string_equal(step.kernel, "fake");
    assert_int_equal(step.kind, SAC_OP_CONV);
    assert_int_equal(step.out.dim[1], 3);
    assert_int_equal(step.form.type, SAC_BF16);
    assert_true(step.flops == 10);
    /* In bf16: 3·2·4·4 in, 3·3·4·4 out, a filter of 3·2·3·3; a bias of 3 floats. */
    assert_true(step.bytes == 2 * (96 + 144 + 54) + 4 * 3);
    sac_plan_step(plan, 0, &step);
    assert_int_equal(step.kind, SAC_OP_CONVERT);
    assert_true(step.bytes == 96 * 4 + 96 * 2);
    run_and_free(&fake, plan);
}

static void one_step_runs_alone_and_a_failure_names_it(void **state)
{
    struct fake fake = fake_new();
    struct sac_error err = {0};
    struct sac_plan *plan = plan_of(&fake, small_graph(), NULL);

    (void)state;
    memset(sac_plan_input(plan, 0)->data, 1, bytes_of(sac_plan_input(plan, 0)));
    for (int i = 0; i < sac_plan_step_count(plan); i++)
        assert_ok(sac_plan_forward_step(plan, i, &err), err);
    assert_int_equal(fake.faults, 0);
    fake.fail_forward = true;
    assert_int_equal(sac_plan_forward(plan, &err), SAC_EDEVICE);
    assert_string_equal(err.text, "net toy, layer conv: the fake stopped");
    sac_plan_free(plan);
}

static void the_reference_runs_the_layers_as_they_stand(void **state)
{
    struct fake fake = fake_new();
    struct sac_plan_options options = {.ops.reference = true};

    (void)state;
    for (int reference = 0; reference <= 1; reference++) {
        struct sac_graph *graph = make_graph();
        int x = make_input(graph, "data", make_shape(4, 1, 2, 4, 4));
        x = make_conv(graph, "conv", x, 2, 3, 1, 1, 1, true);
        x = make_scale(graph, "scale", make_batchnorm(graph, "bn", x, 1, 1e-5f), true);
        make_outputs(graph, 1, x);
        struct sac_plan *plan = plan_of(&fake, graph, reference ? &options : NULL);
        assert_kinds(&fake, reference ? "convolution, batch norm, scale" : "convolution");
        run_and_free(&fake, plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_readers_of_one_form_share_one_conversion),
        cmocka_unit_test(forms_that_agree_need_no_conversion),
        cmocka_unit_test(values_without_an_area_are_never_rearranged),
        cmocka_unit_test(a_sum_is_brought_into_the_results_form),
        cmocka_unit_test(what_the_device_refuses_is_told_with_the_nets_name),
        cmocka_unit_test(a_device_without_the_conversion_it_wants_is_an_error),
        cmocka_unit_test(a_device_that_changes_its_mind_is_an_error),
        cmocka_unit_test(a_layout_of_unknown_size_is_an_error),
        cmocka_unit_test(an_operation_works_in_place_on_what_nobody_reads_later),
        cmocka_unit_test(inputs_and_outputs_are_never_overwritten),
        cmocka_unit_test(a_result_that_is_larger_takes_memory_of_its_own),
        cmocka_unit_test(a_source_that_is_read_twice_by_one_node_is_not_overwritten),
        cmocka_unit_test(an_alias_shares_memory_and_runs_nothing),
        cmocka_unit_test(what_an_output_is_an_alias_of_is_not_overwritten),
        cmocka_unit_test(a_result_shares_the_memory_of_a_sum_that_ends_there),
        cmocka_unit_test(an_input_may_be_an_output),
        cmocka_unit_test(one_workspace_serves_all_behind_the_blobs),
        cmocka_unit_test(the_workspace_stands_on_256_bytes),
        cmocka_unit_test(training_keeps_what_backward_reads_and_what_is_saved),
        cmocka_unit_test(memory_that_cannot_be_had_is_told_in_bytes_with_net_and_batch),
        cmocka_unit_test(sizes_that_fit_no_address_space_are_refused),
        cmocka_unit_test(a_failure_half_way_leaves_nothing_behind),
        cmocka_unit_test(smaller_plans_live_in_the_memory_of_a_larger_one),
        cmocka_unit_test(no_value_is_overwritten_while_somebody_needs_it),
        cmocka_unit_test(nothing_that_backward_reads_is_overwritten_before_it),
        cmocka_unit_test(pixels_come_first_and_the_largest_come_out),
        cmocka_unit_test(pixels_and_topk_that_cannot_be_meant_are_refused),
        cmocka_unit_test(the_report_tells_what_runs),
        cmocka_unit_test(one_step_runs_alone_and_a_failure_names_it),
        cmocka_unit_test(the_reference_runs_the_layers_as_they_stand),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
