/* 3×3 convolutions in fp32 by Winograd's F(2×2, 3×3), 64 products for what takes 144
 * directly, or F(4×4, 3×3), 36 and more additions. oneDNN has them for values in blocks of 16
 * channels, so that pictures are brought there and back: a source of one block is there already,
 * and the way back may lead into a part of a value with more channels. */
#include "device/cpu/onednn.h"

#ifdef SAC_HAVE_ONEDNN

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/cpu/onednn_problem.h"

enum { BLOCK = 16 };

static bool is_three_by_three(const struct sac_node *node)
{
    const struct sac_window *w = &node->param.conv.window;
    bool all = node->kind == SAC_OP_CONV && node->param.conv.group == 1;

    for (int way = 0; way < 2; way++)
        all &= w->kernel[way] == 3 && w->stride[way] == 1 && w->dilation[way] == 1;
    return all;
}

static bool has_blocks(const struct sac_shape *shape)
{
    return shape->rank == 4 && shape->dim[1] % BLOCK == 0;
}

/* Where it was faster, reordering included: 1.5 to 1.8 times at 28 pixels and above; at 14,
 * where tiles overhang, 1.1 to 1.2 times with up to 96 channels, and slower from 128 on. */
static bool wins(const struct sac_shape *src, const struct sac_shape *dst)
{
    int64_t side = dst->dim[2] < dst->dim[3] ? dst->dim[2] : dst->dim[3];

    return dst->dim[1] >= 64 && (side >= 28 || (side >= 12 && src->dim[1] <= 96));
}

/* Of oneDNN's two. The larger tile was 1.1 to 1.3 times as fast with 16 and 32 channels at
 * 28 and 56 pixels, in batches of 1 and 8; the same with 64, and slower at 14, or with 128. */
static const char *tile_of(const struct sac_shape *src, const struct sac_shape *dst)
{
    int64_t side = dst->dim[2] < dst->dim[3] ? dst->dim[2] : dst->dim[3];

    return side >= 28 && src->dim[1] <= 32 ? "wino_4x3" : "wino_2x3";
}

/* The first whose name has `tile` in it; NULL: there is none. */
static dnnl_primitive_desc_t first_of(const dnnl_convolution_desc_t *desc,
                                      const_dnnl_primitive_attr_t attr, const char *tile)
{
    dnnl_primitive_desc_iterator_t it;
    dnnl_primitive_desc_t pd = NULL;
    const char *name = NULL;

    if (dnnl_primitive_desc_iterator_create(&it, desc, attr, sac_onednn_engine, NULL) !=
        dnnl_success)
        return NULL;
    do {
        dnnl_primitive_desc_destroy(pd);
        pd = dnnl_primitive_desc_iterator_fetch(it);
        dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
        if (name && strstr(name, tile))
            break;
        dnnl_primitive_desc_destroy(pd);
        pd = NULL;
    } while (dnnl_primitive_desc_iterator_next(it) == dnnl_success);
    dnnl_primitive_desc_iterator_destroy(it);
    return pd;
}

static bool blocked(dnnl_memory_desc_t *md, const struct sac_shape *shape)
{
    dnnl_dims_t dims = {shape->dim[0], shape->dim[1], shape->dim[2], shape->dim[3]};

    return dnnl_memory_desc_init_by_tag(md, 4, dims, dnnl_f32, dnnl_nChw16c) == dnnl_success;
}

struct blocks {
    dnnl_memory_desc_t src, dst;
};

/* NULL: oneDNN has none. */
static dnnl_primitive_desc_t find(const struct sac_cpu_ask *ask, struct sac_onednn_problem *p,
                                  struct blocks *blocks)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *src = &ask->graph->values[node->src[0]].shape;
    const struct sac_shape *dst = &ask->graph->values[node->dst[0]].shape;
    dnnl_primitive_attr_t attr;
    dnnl_convolution_desc_t desc;
    dnnl_memory_desc_t any;

    if (!sac_onednn_have_engine() ||
        !sac_onednn_describe(p, ask, SAC_F32, sac_onednn_batch_of(ask)) ||
        !blocked(&blocks->src, src) || !blocked(&blocks->dst, dst) ||
        dnnl_memory_desc_init_by_tag(&any, p->weight_rank, p->weight_dims, dnnl_f32,
                                     dnnl_format_tag_any) != dnnl_success ||
        dnnl_dilated_convolution_forward_desc_init(
            &desc, dnnl_forward_inference, dnnl_convolution_winograd, &blocks->src, &any,
            node->weight_count > 1 ? &p->bias : NULL, &blocks->dst, p->stride, p->dilation,
            p->pad_before, p->pad_after) != dnnl_success ||
        sac_onednn_make_attr(p, &attr) != dnnl_success)
        return NULL;
    dnnl_primitive_desc_t pd = first_of(&desc, attr, tile_of(src, dst));
    if (!pd)
        pd = first_of(&desc, attr, "wino");
    dnnl_primitive_attr_destroy(attr);
    return pd;
}

static bool can(const struct sac_cpu_ask *ask)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *src = &ask->graph->values[node->src[0]].shape;
    const struct sac_shape *dst = &ask->graph->values[node->dst[0]].shape;
    struct sac_onednn_problem p;
    struct blocks blocks;

    if (ask->type != SAC_F32 || node->eight_bits || ask->options->training ||
        ask->options->deterministic || node->epilogue.sum >= 0 || !is_three_by_three(node) ||
        !has_blocks(src) || !has_blocks(dst) || !wins(src, dst))
        return false;
    dnnl_primitive_desc_t pd = find(ask, &p, &blocks);
    bool found = pd != NULL;
    dnnl_primitive_desc_destroy(pd);
    return found;
}

static size_t scratch_bytes(const_dnnl_primitive_desc_t pd)
{
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
}

static size_t round_up(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Channels last, and 16 of them: the order is that of one block. */
static bool is_one_block(const struct sac_shape *src)
{
    return src->dim[1] == BLOCK;
}

static size_t src_block_bytes(const struct blocks *blocks, const struct sac_shape *src)
{
    return is_one_block(src) ? 0 : round_up(dnnl_memory_desc_get_size(&blocks->src));
}

/* The implementation, and which ends are reordered: as much traffic again. */
static void describe_kernel(struct sac_op_caps *caps, const_dnnl_primitive_desc_t pd,
                            const struct blocks *blocks, const struct sac_shape *src)
{
    const char *name = NULL;
    char text[96];

    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    snprintf(text, sizeof text, "%s, %sout reordered", name ? name : "unknown",
             is_one_block(src) ? "" : "in and ");
    caps->kernel = sac_onednn_intern(text);
    caps->extra_bytes = 2. * (double)dnnl_memory_desc_get_size(&blocks->dst);
    if (!is_one_block(src))
        caps->extra_bytes += 2. * (double)dnnl_memory_desc_get_size(&blocks->src);
}

/* Both ends in blocks, then oneDNN's own. */
static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    const struct sac_shape *src = &ask->graph->values[ask->node->src[0]].shape;
    struct sac_onednn_problem p;
    struct blocks blocks;
    dnnl_primitive_desc_t pd = find(ask, &p, &blocks);

    if (!pd)
        return sac_onednn_fail(err, ask->node->name, "find an implementation again",
                               dnnl_unimplemented);
    caps->workspace_bytes = src_block_bytes(&blocks, src) +
                            round_up(dnnl_memory_desc_get_size(&blocks.dst)) + scratch_bytes(pd);
    caps->strided_dst = true;
    describe_kernel(caps, pd, &blocks, src);
    dnnl_primitive_desc_destroy(pd);
    return 0;
}

enum { SRC, SRC_BLOCKS, DST_BLOCKS, DST, WEIGHTS, BIAS, SCRATCH, MEMORIES };

struct state {
    dnnl_primitive_t in, conv, out; /* in: NULL where the source is one block */
    dnnl_stream_t stream;
    dnnl_memory_t memory[MEMORIES];
};

static void free_state(void *memory)
{
    struct state *state = memory;

    for (int i = 0; i < MEMORIES; i++)
        dnnl_memory_destroy(state->memory[i]);
    dnnl_primitive_destroy(state->in);
    dnnl_primitive_destroy(state->conv);
    dnnl_primitive_destroy(state->out);
    dnnl_stream_destroy(state->stream);
    free(state);
}

static dnnl_status_t reorder(const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                             dnnl_primitive_t *ret)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&pd, from, sac_onednn_engine, to,
                                                              sac_onednn_engine, NULL);

    if (status == dnnl_success)
        status = dnnl_primitive_create(ret, pd);
    dnnl_primitive_desc_destroy(pd);
    return status;
}

static dnnl_status_t make(struct state *state, const struct sac_op *op,
                          const struct sac_onednn_problem *p, const struct blocks *blocks,
                          const_dnnl_primitive_desc_t pd, const void *weights)
{
    bool as_is = is_one_block(&op->src[0].shape);
    char *src_blocks = as_is ? op->src[0].data : op->workspace;
    char *dst_blocks = (char *)op->workspace + src_block_bytes(blocks, &op->src[0].shape);
    char *scratch = dst_blocks + round_up(dnnl_memory_desc_get_size(&blocks->dst));
    const dnnl_memory_desc_t *layout[MEMORIES] = {
        &p->src,
        &blocks->src,
        &blocks->dst,
        &p->dst,
        dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0),
        &p->bias,
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0)};
    const void *data[MEMORIES] = {op->src[0].data, src_blocks,    dst_blocks, op->dst[0].data,
                                  weights,         op->weight[1], scratch};
    dnnl_status_t status = dnnl_primitive_create(&state->conv, pd);

    if (status == dnnl_success)
        status = dnnl_stream_create(&state->stream, sac_onednn_engine, dnnl_stream_default_flags);
    if (status == dnnl_success && !as_is)
        status = reorder(&p->src, &blocks->src, &state->in);
    if (status == dnnl_success)
        status = reorder(&blocks->dst, &p->dst, &state->out);
    for (int i = 0; status == dnnl_success && i < MEMORIES; i++)
        if (i != BIAS || op->weight_count > 1)
            status = dnnl_memory_create(&state->memory[i], layout[i], sac_onednn_engine,
                                        (void *)(uintptr_t)data[i]);
    return status;
}

static bool is_whole(const struct sac_tensor *t)
{
    struct sac_tensor whole = sac_tensor_of(&t->shape, t->form);

    return memcmp(whole.stride, t->stride, sizeof whole.stride) == 0;
}

/* As the result stands: whole, or with longer strides. */
static bool describe_result(struct sac_onednn_problem *p, const struct sac_tensor *t)
{
    dnnl_dims_t dims = {t->shape.dim[0], t->shape.dim[1], t->shape.dim[2], t->shape.dim[3]};
    dnnl_dims_t strides = {t->stride[0], t->stride[1], t->stride[2], t->stride[3]};

    return dnnl_memory_desc_init_by_strides(&p->dst, 4, dims, dnnl_f32, strides) == dnnl_success;
}

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err)
{
    struct sac_onednn_problem p;
    struct blocks blocks;
    struct state *state = calloc(1, sizeof *state);
    const void *weights = NULL;
    int rc = 0;

    if (!state)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    op->state = state;
    dnnl_primitive_desc_t pd = find(ask, &p, &blocks);
    if (!is_whole(&op->src[0]))
        rc = sac_fail(err, SAC_EUNSUPPORTED, "%s: its kernel reads no views", op->name);
    else if (!pd || !describe_result(&p, &op->dst[0]))
        rc = sac_onednn_fail(err, op->name, "find an implementation again", dnnl_unimplemented);
    if (rc == 0)
        rc = sac_onednn_pack(ask, store, &p,
                             dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), &weights,
                             err);
    if (rc == 0 && op->weight_count > 1)
        rc = sac_cpu_weight_plain(op, ask, 1, store, err);
    if (rc == 0) {
        dnnl_status_t status = make(state, op, &p, &blocks, pd, weights);
        rc = status == dnnl_success ? 0
                                    : sac_onednn_fail(err, op->name, "make the primitive", status);
    }
    dnnl_primitive_desc_destroy(pd);
    return rc;
}

static int forward(struct sac_op *op, struct sac_error *err)
{
    const struct state *state = op->state;
    const dnnl_memory_t *m = state->memory;
    dnnl_exec_arg_t in[] = {{DNNL_ARG_FROM, m[SRC]}, {DNNL_ARG_TO, m[SRC_BLOCKS]}};
    dnnl_exec_arg_t out[] = {{DNNL_ARG_FROM, m[DST_BLOCKS]}, {DNNL_ARG_TO, m[DST]}};
    dnnl_exec_arg_t conv[] = {{DNNL_ARG_SRC, m[SRC_BLOCKS]},
                              {DNNL_ARG_DST, m[DST_BLOCKS]},
                              {DNNL_ARG_WEIGHTS, m[WEIGHTS]},
                              {DNNL_ARG_SCRATCHPAD, m[SCRATCH]},
                              {DNNL_ARG_BIAS, m[BIAS]}};
    dnnl_status_t status = dnnl_success;

    if (state->in)
        status = dnnl_primitive_execute(state->in, state->stream, 2, in);
    if (status == dnnl_success)
        status = dnnl_primitive_execute(state->conv, state->stream, m[BIAS] ? 5 : 4, conv);
    if (status == dnnl_success)
        status = dnnl_primitive_execute(state->out, state->stream, 2, out);
    return status == dnnl_success ? 0 : sac_onednn_fail(err, op->name, "run", status);
}

const struct sac_cpu_kernel sac_cpu_winograd = {
    .name = "oneDNN",
    .can = can,
    .query = query,
    .prepare = prepare,
    .forward = forward,
    .free_state = free_state,
};

#endif
