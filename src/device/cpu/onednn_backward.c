/* Backward of convolution, deconvolution and inner product by oneDNN. */
#include "device/cpu/onednn.h"

#ifdef SAC_HAVE_ONEDNN

#include <stdlib.h>
#include <string.h>

#include "device/forms.h"
#include "device/cpu/onednn_problem.h"

union op_desc {
    dnnl_convolution_desc_t conv;
    dnnl_deconvolution_desc_t deconv;
    dnnl_inner_product_desc_t inner;
};

enum way { FORWARD, DATA, WEIGHTS };

static dnnl_status_t make_desc(const struct sac_onednn_problem *p, enum way way,
                               const dnnl_memory_desc_t *weights, union op_desc *desc)
{
    const dnnl_memory_desc_t *bias = p->node->weight_count > 1 ? &p->bias : NULL;
    const dnnl_alg_kind_t direct = dnnl_convolution_direct;

    switch (p->node->kind) {
    case SAC_OP_CONV:
        if (way == FORWARD)
            return dnnl_dilated_convolution_forward_desc_init(
                &desc->conv, dnnl_forward_training, direct, &p->src, weights, bias, &p->dst,
                p->stride, p->dilation, p->pad_before, p->pad_after);
        if (way == DATA)
            return dnnl_dilated_convolution_backward_data_desc_init(
                &desc->conv, direct, &p->src, weights, &p->dst, p->stride, p->dilation,
                p->pad_before, p->pad_after);
        return dnnl_dilated_convolution_backward_weights_desc_init(
            &desc->conv, direct, &p->src, weights, bias, &p->dst, p->stride, p->dilation,
            p->pad_before, p->pad_after);
    case SAC_OP_DECONV:
        if (way == FORWARD)
            return dnnl_dilated_deconvolution_forward_desc_init(
                &desc->deconv, dnnl_forward_training, dnnl_deconvolution_direct, &p->src, weights,
                bias, &p->dst, p->stride, p->dilation, p->pad_before, p->pad_after);
        if (way == DATA)
            return dnnl_dilated_deconvolution_backward_data_desc_init(
                &desc->deconv, dnnl_deconvolution_direct, &p->src, weights, &p->dst, p->stride,
                p->dilation, p->pad_before, p->pad_after);
        return dnnl_dilated_deconvolution_backward_weights_desc_init(
            &desc->deconv, dnnl_deconvolution_direct, &p->src, weights, bias, &p->dst, p->stride,
            p->dilation, p->pad_before, p->pad_after);
    default:
        if (way == FORWARD)
            return dnnl_inner_product_forward_desc_init(&desc->inner, dnnl_forward_training,
                                                        &p->src, weights, bias, &p->dst);
        if (way == DATA)
            return dnnl_inner_product_backward_data_desc_init(&desc->inner, &p->src, weights,
                                                              &p->dst);
        return dnnl_inner_product_backward_weights_desc_init(&desc->inner, &p->src, weights, bias,
                                                             &p->dst);
    }
}

/* References are what our loops are; a forward that is only asked for as a hint may be
 * one. */
static bool is_wanted(const_dnnl_primitive_desc_t pd, enum way way)
{
    const char *name = NULL;

    if (way == FORWARD)
        return true;
    return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           name && !strstr(name, "ref");
}

/* A picture's gradients have to come as a matrix, to be put in Caffe's order; all else
 * in the layout that oneDNN likes. */
static dnnl_format_tag_t order_of(enum way way, bool image)
{
    return way == WEIGHTS && image ? dnnl_ab : dnnl_format_tag_any;
}

/* oneDNN's best; NULL: none. */
static dnnl_primitive_desc_t find(const struct sac_onednn_problem *p, enum way way, bool image,
                                  const_dnnl_primitive_desc_t hint)
{
    dnnl_data_type_t type = way == WEIGHTS ? dnnl_f32 : p->type;
    dnnl_primitive_desc_iterator_t it;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr;
    dnnl_memory_desc_t any;
    union op_desc desc;

    if (dnnl_memory_desc_init_by_tag(&any, p->weight_rank, p->weight_dims, type,
                                     order_of(way, image)) != dnnl_success ||
        make_desc(p, way, &any, &desc) != dnnl_success ||
        dnnl_primitive_attr_create(&attr) != dnnl_success)
        return NULL;
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (dnnl_primitive_desc_iterator_create(&it, &desc, attr, sac_onednn_engine, hint) ==
        dnnl_success) {
        do {
            pd = dnnl_primitive_desc_iterator_fetch(it);
            if (pd && is_wanted(pd, way))
                break;
            dnnl_primitive_desc_destroy(pd);
            pd = NULL;
        } while (dnnl_primitive_desc_iterator_next(it) == dnnl_success);
        dnnl_primitive_desc_iterator_destroy(it);
    }
    dnnl_primitive_attr_destroy(attr);
    return pd;
}

/* The ways that are wanted of a node. */
struct choice {
    struct sac_onednn_problem problem;
    dnnl_primitive_desc_t data, weights; /* NULL: not wanted */
    bool wants_data, wants_weights;
};

static void choice_done(struct choice *c)
{
    dnnl_primitive_desc_destroy(c->data);
    dnnl_primitive_desc_destroy(c->weights);
}

static bool choose(const struct sac_cpu_ask *ask, struct choice *c)
{
    struct sac_op_caps forms = {0};
    const struct sac_node *node = ask->node;
    const struct sac_shape *src = &ask->graph->values[node->src[0]].shape;
    bool image = node->kind == SAC_OP_INNER && sac_onednn_inner_of_image(node, src);
    dnnl_primitive_desc_t hint;

    *c = (struct choice){.wants_data = node->src_grad && node->src_grad[0],
                         .wants_weights = node->weight_grad[0] || node->weight_grad[1]};
    sac_usual_forms(ask->graph, ask->node, ask->type, ask->options->training, &forms);
    if (!sac_onednn_have_engine() ||
        !sac_onednn_describe(&c->problem, ask, forms.dst.type, sac_onednn_batch_of(ask)))
        return false;
    hint = find(&c->problem, FORWARD, image, NULL);
    if (hint && c->wants_data)
        c->data = find(&c->problem, DATA, image, hint);
    if (hint && c->wants_weights)
        c->weights = find(&c->problem, WEIGHTS, image, hint);
    dnnl_primitive_desc_destroy(hint);
    return (!c->wants_data || c->data) && (!c->wants_weights || c->weights);
}

static bool can(const struct sac_cpu_ask *ask)
{
    struct choice c;
    bool found = choose(ask, &c);

    choice_done(&c);
    return found;
}

static const dnnl_memory_desc_t *md_of(const_dnnl_primitive_desc_t pd, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(pd, what, 0);
}

static size_t rounded(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static size_t rounded_scratch_bytes(const_dnnl_primitive_desc_t pd)
{
    return pd ? rounded(sac_onednn_scratch_bytes(pd)) : 0;
}

/* The weights' gradients in oneDNN's layout and the bias's, before they are added to
 * the plain ones; behind the scratchpad in the workspace. */
static size_t gradient_bytes(const struct choice *c)
{
    if (!c->weights)
        return 0;
    return rounded(dnnl_memory_desc_get_size(md_of(c->weights, dnnl_query_diff_weights_md))) +
           rounded(c->problem.node->weight_count > 1 ? dnnl_memory_desc_get_size(&c->problem.bias)
                                                     : 0);
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    struct choice c;
    size_t bytes = 0;

    if (!choose(ask, &c)) {
        choice_done(&c);
        return sac_onednn_fail(err, ask->node->name, "find a way back again", dnnl_unimplemented);
    }
    bytes = rounded_scratch_bytes(c.weights) + gradient_bytes(&c);
    bytes = rounded_scratch_bytes(c.data) > bytes ? rounded_scratch_bytes(c.data) : bytes;
    caps->workspace_bytes = bytes > caps->workspace_bytes ? bytes : caps->workspace_bytes;
    caps->backward_src = c.wants_weights;
    choice_done(&c);
    return 0;
}

enum { ARGS_MAX = 5 };

struct call {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[ARGS_MAX];
    int arg_count;
};

struct state {
    dnnl_stream_t stream;
    struct call data, weights, add;
    struct sac_onednn_repack *repack;
    const float *packed_gradient, *bias_gradient; /* in the workspace */
    bool image;                                   /* the gradient is [out][H · W][C] */
};

static void call_done(struct call *call)
{
    for (int i = 0; i < call->arg_count; i++)
        dnnl_memory_destroy(call->args[i].memory);
    dnnl_primitive_destroy(call->primitive);
}

static void free_state(void *memory)
{
    struct state *state = memory;

    call_done(&state->data);
    call_done(&state->weights);
    call_done(&state->add);
    sac_onednn_repack_free(state->repack);
    dnnl_stream_destroy(state->stream);
    free(state);
}

static dnnl_status_t add_arg(struct call *call, int arg, const dnnl_memory_desc_t *md,
                             const void *data)
{
    dnnl_memory_t memory;
    dnnl_status_t status =
        dnnl_memory_create(&memory, md, sac_onednn_engine, (void *)(uintptr_t)data);

    if (status == dnnl_success)
        call->args[call->arg_count++] = (dnnl_exec_arg_t){arg, memory};
    return status;
}

static dnnl_status_t bind_data(struct state *state, const struct sac_op *op, const struct choice *c)
{
    struct call *call = &state->data;
    dnnl_status_t status = dnnl_primitive_create(&call->primitive, c->data);

    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_DIFF_SRC, &c->problem.src, op->src_grad[0].data);
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_DIFF_DST, &c->problem.dst, op->dst_grad[0].data);
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_WEIGHTS, md_of(c->data, dnnl_query_weights_md),
                         sac_onednn_repack_data(state->repack));
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_SCRATCHPAD, md_of(c->data, dnnl_query_scratchpad_md),
                         op->workspace);
    return status;
}

/* plain += packed: a reorder that adds. */
static dnnl_status_t bind_add(struct state *state, const struct sac_op *op, const struct choice *c)
{
    const dnnl_memory_desc_t *packed = md_of(c->weights, dnnl_query_diff_weights_md);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);

    if (status != dnnl_success)
        return status;
    status = dnnl_post_ops_create(&ops);
    if (status == dnnl_success)
        status = dnnl_post_ops_append_sum(ops, 1);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(attr, ops);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&pd, packed, sac_onednn_engine,
                                                    &c->problem.plain, sac_onednn_engine, attr);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&state->add.primitive, pd);
    if (status == dnnl_success)
        status = add_arg(&state->add, DNNL_ARG_FROM, packed, state->packed_gradient);
    if (status == dnnl_success)
        status = add_arg(&state->add, DNNL_ARG_TO, &c->problem.plain, op->weight_grad[0]);
    dnnl_primitive_desc_destroy(pd);
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static dnnl_status_t bind_weights(struct state *state, const struct sac_op *op,
                                  const struct choice *c)
{
    const dnnl_memory_desc_t *packed = md_of(c->weights, dnnl_query_diff_weights_md);
    char *at = (char *)op->workspace + rounded_scratch_bytes(c->weights);
    struct call *call = &state->weights;
    dnnl_status_t status = dnnl_primitive_create(&call->primitive, c->weights);

    state->packed_gradient = (const float *)(const void *)at;
    state->bias_gradient =
        (const float *)(const void *)(at + rounded(dnnl_memory_desc_get_size(packed)));
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_SRC, &c->problem.src, op->src[0].data);
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_DIFF_DST, &c->problem.dst, op->dst_grad[0].data);
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_DIFF_WEIGHTS, packed, state->packed_gradient);
    if (status == dnnl_success && op->weight_count > 1)
        status = add_arg(call, DNNL_ARG_DIFF_BIAS, &c->problem.bias, state->bias_gradient);
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_SCRATCHPAD, md_of(c->weights, dnnl_query_scratchpad_md),
                         op->workspace);
    if (status == dnnl_success && op->weight_grad[0] && !state->image)
        status = bind_add(state, op, c);
    return status;
}

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_error *err)
{
    struct state *state = calloc(1, sizeof *state);
    struct choice c = {0};
    dnnl_status_t status = dnnl_out_of_memory;
    int rc = 0;

    op->backward_state = state;
    if (state)
        status = choose(ask, &c) ? dnnl_success : dnnl_unimplemented;
    if (status == dnnl_success && !op->master[0])
        rc = sac_fail(err, SAC_EINVAL, "%s: training needs the masters of its weights", op->name);
    if (status == dnnl_success && rc == 0) {
        state->image =
            op->kind == SAC_OP_INNER && sac_onednn_inner_of_image(ask->node, &op->src[0].shape);
        status = dnnl_stream_create(&state->stream, sac_onednn_engine, dnnl_stream_default_flags);
    }
    if (status == dnnl_success && rc == 0 && c.data && op->src_grad[0].data)
        rc = sac_onednn_repack_new(&state->repack, op, &c.problem,
                                   md_of(c.data, dnnl_query_weights_md), err);
    if (status == dnnl_success && rc == 0 && state->repack)
        status = bind_data(state, op, &c);
    if (status == dnnl_success && rc == 0 && c.weights)
        status = bind_weights(state, op, &c);
    choice_done(&c);
    if (rc == 0 && status != dnnl_success)
        rc = sac_onednn_fail(err, op->name, "prepare its way back", status);
    return rc;
}

static int run(const struct state *state, const struct sac_op *op, const struct call *call,
               struct sac_error *err)
{
    dnnl_status_t status =
        dnnl_primitive_execute(call->primitive, state->stream, call->arg_count, call->args);

    return status == dnnl_success ? 0 : sac_onednn_fail(err, op->name, "run backward", status);
}

static int data(struct sac_op *op, struct sac_error *err)
{
    struct state *state = op->backward_state;

    int rc = sac_onednn_repack_run(state->repack, op->name, state->stream, err);
    return rc == 0 ? run(state, op, &state->data, err) : rc;
}

/* [out][H · W][C], added to Caffe's order. */
static void add_image(const struct sac_op *op, const struct state *state)
{
    const int64_t *dim = op->src[0].shape.dim;
    int64_t plane = dim[2] * dim[3], channels = dim[1], in = plane * channels;
    int64_t out = sac_shape_count(&op->weight_shape[0]) / in;
    bool transpose = op->param.inner.transpose;
    int64_t out_step = transpose ? 1 : in, in_step = transpose ? out : 1;

    for (int64_t o = 0; o < out; o++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < plane; i++)
                op->weight_grad[0][o * out_step + (c * plane + i) * in_step] +=
                    state->packed_gradient[o * in + i * channels + c];
}

static int weights(struct sac_op *op, struct sac_error *err)
{
    struct state *state = op->backward_state;

    int rc = run(state, op, &state->weights, err);
    if (rc == 0 && op->weight_grad[0] && state->image)
        add_image(op, state);
    else if (rc == 0 && op->weight_grad[0])
        rc = run(state, op, &state->add, err);
    int64_t biases = op->weight_count > 1 ? sac_shape_count(&op->weight_shape[1]) : 0;
    for (int64_t i = 0; rc == 0 && op->weight_grad[1] && i < biases; i++)
        op->weight_grad[1][i] += state->bias_gradient[i];
    return rc;
}

const struct sac_cpu_backward sac_cpu_backward_onednn = {
    .name = "oneDNN",
    .can = can,
    .query = query,
    .prepare = prepare,
    .data = data,
    .weights = weights,
    .free_state = free_state,
};

#endif
