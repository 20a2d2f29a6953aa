/* Inner products in training, by oneDNN's matrix products over weights as they stand:
 * each iteration changes them, and to pack them twice costs more than to multiply by
 * them. Gradients are added to the flat ones by the product itself. */
#include "device/cpu/onednn.h"

#ifdef SAC_HAVE_ONEDNN

#include <stdlib.h>
#include <string.h>

#include "base/team.h"
#include "device/cpu/element.h"
#include "device/cpu/onednn_problem.h"
#include "device/cpu/vector.h"

/* y[rows × out] = x[rows × in] · w, and w lies [out, in], or [in, out] if transposed. */
struct product {
    int64_t rows, in, out;
    bool transpose, has_bias;
    dnnl_data_type_t type;
};

static struct product product_of(const struct sac_cpu_ask *ask)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *src = &ask->graph->values[node->src[0]].shape;
    const struct sac_shape *dst = &ask->graph->values[node->dst[0]].shape;
    int axis = node->param.inner.axis;

    return (struct product){
        .rows = sac_shape_count_between(src, 0, axis),
        .in = sac_shape_count_between(src, axis, src->rank),
        .out = dst->dim[dst->rank - 1],
        .transpose = node->param.inner.transpose,
        .has_bias = node->weight_count > 1,
        .type = ask->type == SAC_BF16 ? dnnl_bf16 : dnnl_f32,
    };
}

static bool matrix(dnnl_memory_desc_t *md, int64_t rows, int64_t columns, bool transpose,
                   dnnl_data_type_t type)
{
    dnnl_dims_t dims = {rows, columns}, strides = {transpose ? 1 : columns, transpose ? rows : 1};

    return dnnl_memory_desc_init_by_strides(md, 2, dims, type, strides) == dnnl_success;
}

enum way { FORWARD, DATA, WEIGHTS };

/* left · right → result, and the bias. */
struct matrices {
    dnnl_memory_desc_t left, right, result, bias;
    bool has_bias;
};

static bool describe(const struct product *p, enum way way, struct matrices *m)
{
    m->has_bias = way == FORWARD && p->has_bias;
    switch (way) {
    case FORWARD:
        return matrix(&m->left, p->rows, p->in, false, p->type) &&
               matrix(&m->right, p->in, p->out, !p->transpose, p->type) &&
               matrix(&m->result, p->rows, p->out, false, p->type) &&
               matrix(&m->bias, 1, p->out, false, dnnl_f32);
    case DATA:
        return matrix(&m->left, p->rows, p->out, false, p->type) &&
               matrix(&m->right, p->out, p->in, p->transpose, p->type) &&
               matrix(&m->result, p->rows, p->in, false, p->type);
    default:
        if (p->transpose)
            return matrix(&m->left, p->in, p->rows, true, p->type) &&
                   matrix(&m->right, p->rows, p->out, false, p->type) &&
                   matrix(&m->result, p->in, p->out, false, dnnl_f32);
        return matrix(&m->left, p->out, p->rows, true, p->type) &&
               matrix(&m->right, p->rows, p->in, false, p->type) &&
               matrix(&m->result, p->out, p->in, false, dnnl_f32);
    }
}

static dnnl_status_t make_attr(enum way way, dnnl_primitive_attr_t *ret)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_attr_t attr;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);

    if (status != dnnl_success)
        return status;
    status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_post_ops_create(&ops);
    if (status == dnnl_success && way == WEIGHTS)
        status = dnnl_post_ops_append_sum(ops, 1);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(attr, ops);
    dnnl_post_ops_destroy(ops);
    if (status == dnnl_success)
        *ret = attr;
    else
        dnnl_primitive_attr_destroy(attr);
    return status;
}

/* Forward the first, which packs as it goes; going back, where an operand lies the
 * other way, its plain gemm was a third faster than that (fc6 of CaffeNet, batch 32). */
static dnnl_primitive_desc_t best_of(dnnl_primitive_desc_iterator_t it, enum way way)
{
    dnnl_primitive_desc_t best = NULL;

    do {
        dnnl_primitive_desc_t pd = dnnl_primitive_desc_iterator_fetch(it);
        const char *name = NULL;
        if (!pd)
            break;
        dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
        bool wanted = name && !strstr(name, "ref");
        bool gemm = wanted && strncmp(name, "gemm", 4) == 0;
        if (wanted && (!best || (gemm && way != FORWARD))) {
            dnnl_primitive_desc_destroy(best);
            best = pd;
            pd = NULL;
        }
        dnnl_primitive_desc_destroy(pd);
        if (best && (gemm || way == FORWARD))
            break;
    } while (dnnl_primitive_desc_iterator_next(it) == dnnl_success);
    return best;
}

static dnnl_primitive_desc_t find(const struct product *p, enum way way, struct matrices *m)
{
    dnnl_primitive_desc_iterator_t it;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr;
    dnnl_matmul_desc_t desc;

    if (!describe(p, way, m) ||
        dnnl_matmul_desc_init(&desc, &m->left, &m->right, m->has_bias ? &m->bias : NULL,
                              &m->result) != dnnl_success ||
        make_attr(way, &attr) != dnnl_success)
        return NULL;
    if (dnnl_primitive_desc_iterator_create(&it, &desc, attr, sac_onednn_engine, NULL) ==
        dnnl_success) {
        pd = best_of(it, way);
        dnnl_primitive_desc_iterator_destroy(it);
    }
    dnnl_primitive_attr_destroy(attr);
    return pd;
}

/* All three ways, or none: the same answer for forward and backward. */
static bool can(const struct sac_cpu_ask *ask)
{
    struct product p;
    bool all = true;

    if (!ask->options->training || ask->node->epilogue.relu || ask->node->epilogue.sum >= 0 ||
        !sac_onednn_have_engine())
        return false;
    p = product_of(ask);
    if (p.rows < 1 || p.in < 1 || p.out < 1)
        return false;
    for (enum way way = FORWARD; way <= WEIGHTS && all; way++) {
        struct matrices m;
        dnnl_primitive_desc_t pd = find(&p, way, &m);
        all = pd != NULL;
        dnnl_primitive_desc_destroy(pd);
    }
    return all;
}

static int raise_workspace(const struct sac_cpu_ask *ask, enum way first, enum way last,
                           struct sac_op_caps *caps, struct sac_error *err)
{
    struct product p = product_of(ask);

    for (enum way way = first; way <= last; way++) {
        struct matrices m;
        dnnl_primitive_desc_t pd = find(&p, way, &m);
        if (!pd)
            return sac_onednn_fail(err, ask->node->name, "find an implementation again",
                                   dnnl_unimplemented);
        if (sac_onednn_scratch_bytes(pd) > caps->workspace_bytes)
            caps->workspace_bytes = sac_onednn_scratch_bytes(pd);
        if (way == FORWARD) {
            const char *name = NULL;
            dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
            caps->kernel = sac_onednn_intern(name ? name : "unknown");
        }
        dnnl_primitive_desc_destroy(pd);
    }
    return 0;
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    caps->src.layout = SAC_PLAIN; /* weights lie in Caffe's order */
    return raise_workspace(ask, FORWARD, FORWARD, caps, err);
}

/* ---- Running --------------------------------------------------------------- */

enum { ARGS_MAX = 5 };

struct call {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[ARGS_MAX];
    int arg_count;
};

static void call_done(struct call *call)
{
    for (int i = 0; i < call->arg_count; i++)
        dnnl_memory_destroy(call->args[i].memory);
    dnnl_primitive_destroy(call->primitive);
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

static dnnl_status_t call_make(struct call *call, const struct product *p, enum way way,
                               const void *left, const void *right, const void *bias,
                               const void *result, void *workspace)
{
    struct matrices m;
    dnnl_primitive_desc_t pd = find(p, way, &m);
    dnnl_status_t status = pd ? dnnl_primitive_create(&call->primitive, pd) : dnnl_unimplemented;

    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_SRC, &m.left, left);
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_WEIGHTS, &m.right, right);
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_DST, &m.result, result);
    if (status == dnnl_success && m.has_bias)
        status = add_arg(call, DNNL_ARG_BIAS, &m.bias, bias);
    if (status == dnnl_success)
        status = add_arg(call, DNNL_ARG_SCRATCHPAD,
                         dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0), workspace);
    dnnl_primitive_desc_destroy(pd);
    return status;
}

struct state {
    dnnl_stream_t stream;
    struct call forward;
    void *halves; /* the master in bf16; NULL: it is used as it is */
    uint64_t made;
    bool is_made;
    struct product product;
};

static void free_state(void *memory)
{
    struct state *state = memory;

    call_done(&state->forward);
    dnnl_stream_destroy(state->stream);
    free(state->halves);
    free(state);
}

static int run(const struct state *state, const struct sac_op *op, const struct call *call,
               struct sac_error *err)
{
    dnnl_status_t status =
        dnnl_primitive_execute(call->primitive, state->stream, call->arg_count, call->args);

    return status == dnnl_success ? 0 : sac_onednn_fail(err, op->name, "multiply", status);
}

static const void *weights_of(const struct sac_op *op, const struct state *state)
{
    return state->halves ? state->halves : op->master[0];
}

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err)
{
    struct state *state = calloc(1, sizeof *state);
    dnnl_status_t status = dnnl_out_of_memory;

    (void)store;
    op->state = state;
    op->vector = ask->device->vector;
    if (!op->master[0])
        return sac_fail(err, SAC_EINVAL, "%s: training needs the masters of its weights", op->name);
    if (state) {
        state->product = product_of(ask);
        status = dnnl_stream_create(&state->stream, sac_onednn_engine, dnnl_stream_default_flags);
    }
    if (status == dnnl_success && ask->type == SAC_BF16 &&
        posix_memalign(&state->halves, 64, sac_tensor_bytes(&op->weight_shape[0], SAC_BF16)) != 0) {
        state->halves = NULL;
        status = dnnl_out_of_memory;
    }
    if (status == dnnl_success)
        status = call_make(&state->forward, &state->product, FORWARD, op->src[0].data,
                           weights_of(op, state), op->master[1], op->dst[0].data, op->workspace);
    return status == dnnl_success ? 0 : sac_onednn_fail(err, op->name, "make the product", status);
}

enum { PIECE = 1 << 14 };

static void round_pieces(void *context, int64_t first, int64_t end)
{
    const struct sac_op *op = context;
    const struct state *state = op->state;
    int64_t count = sac_shape_count(&op->weight_shape[0]), from = first * PIECE, to = end * PIECE;
    struct sac_shape shape = {1, {(to < count ? to : count) - from}};
    struct sac_tensor master = sac_tensor_of(&shape, (struct sac_form){SAC_F32, SAC_PLAIN});
    struct sac_tensor half = sac_tensor_of(&shape, (struct sac_form){SAC_BF16, SAC_PLAIN});
    struct sac_op part = {.kind = SAC_OP_CONVERT, .src = &master, .dst = &half};

    part.src_count = part.dst_count = 1;
    master.data = op->master[0] + from;
    half.data = (uint16_t *)state->halves + from;
    op->vector->run[SAC_OP_CONVERT](&part);
}

static int forward(struct sac_op *op, struct sac_error *err)
{
    struct state *state = op->state;
    uint64_t current = op->generation ? *op->generation : 0;

    if (state->halves && !(state->is_made && state->made == current)) {
        int64_t pieces = (sac_shape_count(&op->weight_shape[0]) + PIECE - 1) / PIECE;
        sac_team_run(op->threads, pieces, round_pieces, op);
        state->is_made = true;
        state->made = current;
    }
    return run(state, op, &state->forward, err);
}

const struct sac_cpu_kernel sac_cpu_matmul = {
    .name = "oneDNN",
    .can = can,
    .query = query,
    .prepare = prepare,
    .forward = forward,
    .free_state = free_state,
};

/* ---- Backward -------------------------------------------------------------- */

struct back {
    struct call data, weights;
    float sums[]; /* of the results' gradients, for the bias */
};

static void free_back(void *memory)
{
    struct back *back = memory;

    call_done(&back->data);
    call_done(&back->weights);
    free(back);
}

static int query_back(const struct sac_cpu_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    caps->backward_src = ask->node->weight_grad[0];
    return raise_workspace(ask, DATA, WEIGHTS, caps, err);
}

static int prepare_back(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_error *err)
{
    struct product p = product_of(ask);
    struct back *back = calloc(1, sizeof *back + (size_t)p.out * sizeof *back->sums);
    const void *x = op->src[0].data, *dy = op->dst_grad[0].data;
    dnnl_status_t status = back ? dnnl_success : dnnl_out_of_memory;

    op->backward_state = back;
    if (status == dnnl_success && op->src_grad[0].data)
        status = call_make(&back->data, &p, DATA, dy, weights_of(op, op->state), NULL,
                           op->src_grad[0].data, op->workspace);
    if (status == dnnl_success && op->weight_grad[0])
        status = call_make(&back->weights, &p, WEIGHTS, p.transpose ? x : dy, p.transpose ? dy : x,
                           NULL, op->weight_grad[0], op->workspace);
    return status == dnnl_success ? 0
                                  : sac_onednn_fail(err, op->name, "prepare its way back", status);
}

static int data(struct sac_op *op, struct sac_error *err)
{
    const struct back *back = op->backward_state;

    return run(op->state, op, &back->data, err);
}

static void add_bias(const struct sac_op *op, struct back *back, const struct product *p)
{
    memset(back->sums, 0, (size_t)p->out * sizeof *back->sums);
    for (int64_t row = 0; row < p->rows; row++)
        for (int64_t c = 0; c < p->out; c++)
            back->sums[c] += sac_element_load(&op->dst_grad[0], row * p->out + c);
    for (int64_t c = 0; c < p->out; c++)
        op->weight_grad[1][c] += back->sums[c];
}

static int weights(struct sac_op *op, struct sac_error *err)
{
    const struct state *state = op->state;
    struct back *back = op->backward_state;

    if (op->weight_grad[1])
        add_bias(op, back, &state->product);
    return op->weight_grad[0] ? run(state, op, &back->weights, err) : 0;
}

const struct sac_cpu_backward sac_cpu_backward_matmul = {
    .name = "oneDNN",
    .can = can,
    .query = query_back,
    .prepare = prepare_back,
    .data = data,
    .weights = weights,
    .free_state = free_back,
};

#endif
