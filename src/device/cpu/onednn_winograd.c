/* 3×3 convolutions by Winograd's way (device/cpu/winograd.h): F(4×4) in fp32, F(2×2) in
 * bf16, whose roundings the larger tile multiplies. The tiles' ways are our own; the
 * products between them are oneDNN's batched matrix products, a chunk of tiles at a time,
 * so that what lies between stays in the core's cache. */
#include "device/cpu/onednn.h"

#ifdef SAC_HAVE_ONEDNN

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/team.h"
#include "device/cpu/onednn_problem.h"
#include "device/cpu/parts.h"
#include "device/cpu/vector.h"
#include "device/cpu/winograd.h"

enum {
    CHANNELS = 16,           /* of a vector */
    CHUNK_BYTES = 640 << 10, /* what a chunk's points take: most of a second cache */
    CHUNK_MIN = 64,          /* tiles for which reading the filter pays */
    ALIGNMENT = 64,
};

/* ---- Which convolutions --------------------------------------------------- */

static bool is_three_by_three(const struct sac_node *node)
{
    const struct sac_window *w = &node->param.conv.window;
    bool all = node->kind == SAC_OP_CONV && node->param.conv.group == 1;

    for (int way = 0; way < 2; way++)
        all &= w->kernel[way] == 3 && w->stride[way] == 1 && w->dilation[way] == 1;
    return all;
}

static bool has_vectors(const struct sac_shape *shape)
{
    return shape->rank == 4 && shape->dim[1] % CHANNELS == 0 && sac_shape_count(shape) > 0;
}

/* Where it was faster. Below 12 pixels the tiles overhang, and the filters of so many
 * channels as nets have there come from memory. */
static bool wins(const struct sac_cpu_ask *ask)
{
    const struct sac_shape *src = sac_cpu_src_shape(ask), *dst = sac_cpu_dst_shape(ask);
    int64_t side = dst->dim[2] < dst->dim[3] ? dst->dim[2] : dst->dim[3];

    return dst->dim[1] >= 64 && side >= 12 && (ask->type == SAC_F32 || src->dim[1] >= 32);
}

static bool has_arithmetic(const struct sac_cpu_ask *ask)
{
    const struct sac_cpu_features *features = &ask->device->features;

    if (ask->type == SAC_BF16) /* AMX multiplies faster than tiles are brought to it */
        return features->avx512_bf16 && !features->amx_bf16;
    return ask->type == SAC_F32 && features->avx512;
}

/* ---- The products --------------------------------------------------------- */

struct products {
    struct sac_winograd tiles;
    int points;
    size_t element; /* bytes of the source's type */
    dnnl_memory_desc_t in, filter, out;
};

static int64_t ceil_of(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Chunks of one size, as large as the cache allows, and all tiles in them. */
static void cut_chunks(struct products *p)
{
    struct sac_winograd *w = &p->tiles;
    int64_t of_tile = p->points * (w->in_channels * (int64_t)p->element +
                                   w->out_channels * (int64_t)sizeof(float));
    int64_t most = CHUNK_BYTES / of_tile;

    if (most < CHUNK_MIN)
        most = CHUNK_MIN;
    w->chunk = ceil_of(w->count, ceil_of(w->count, most));
}

/* One a point. */
static bool matrices(const struct products *p, int64_t rows, int64_t columns, dnnl_data_type_t type,
                     dnnl_format_tag_t tag, dnnl_memory_desc_t *ret)
{
    dnnl_dims_t dims = {p->points, rows, columns};

    return dnnl_memory_desc_init_by_tag(ret, 3, dims, type, tag) == dnnl_success;
}

static bool describe(const struct sac_cpu_ask *ask, struct products *p)
{
    const struct sac_shape *src = sac_cpu_src_shape(ask), *dst = sac_cpu_dst_shape(ask);
    struct sac_winograd *w = &p->tiles;
    dnnl_data_type_t type = ask->type == SAC_BF16 ? dnnl_bf16 : dnnl_f32;

    memset(p, 0, sizeof *p);
    w->tile = ask->type == SAC_BF16 ? 2 : 4;
    w->down = ceil_of(dst->dim[2], w->tile);
    w->across = ceil_of(dst->dim[3], w->tile);
    w->count = dst->dim[0] * w->down * w->across;
    w->in_channels = src->dim[1];
    w->out_channels = dst->dim[1];
    p->points = (w->tile + 2) * (w->tile + 2);
    p->element = sac_type_bytes(ask->type);
    cut_chunks(p);
    return matrices(p, w->chunk, w->in_channels, type, dnnl_abc, &p->in) &&
           matrices(p, w->in_channels, w->out_channels, type, dnnl_format_tag_any, &p->filter) &&
           matrices(p, w->chunk, w->out_channels, dnnl_f32, dnnl_abc, &p->out);
}

/* NULL: oneDNN has no fast one. */
static dnnl_primitive_desc_t find(const struct sac_cpu_ask *ask, struct products *p)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_matmul_desc_t desc;

    if (!sac_onednn_have_engine() || !describe(ask, p) ||
        dnnl_matmul_desc_init(&desc, &p->in, &p->filter, NULL, &p->out) != dnnl_success ||
        dnnl_primitive_attr_create(&attr) != dnnl_success)
        return NULL;
    if (dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) != dnnl_success ||
        dnnl_primitive_desc_create(&pd, &desc, attr, sac_onednn_engine, NULL) != dnnl_success)
        pd = NULL;
    dnnl_primitive_attr_destroy(attr);
    if (pd && strncmp(sac_onednn_impl_of(pd), "brg", 3) != 0) {
        dnnl_primitive_desc_destroy(pd);
        pd = NULL;
    }
    return pd;
}

static bool can(const struct sac_cpu_ask *ask)
{
    const struct sac_node *node = ask->node;
    struct products p;

    if (node->eight_bits || ask->options->training || ask->options->masters ||
        ask->options->deterministic || node->epilogue.sum >= 0 || !is_three_by_three(node) ||
        !has_arithmetic(ask) || !has_vectors(sac_cpu_src_shape(ask)) ||
        !has_vectors(sac_cpu_dst_shape(ask)) || !wins(ask))
        return false;
    dnnl_primitive_desc_t pd = find(ask, &p);
    bool found = pd != NULL;
    dnnl_primitive_desc_destroy(pd);
    return found;
}

/* ---- Memory --------------------------------------------------------------- */

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

static size_t in_bytes(const struct products *p)
{
    return round_up(dnnl_memory_desc_get_size(&p->in));
}

static size_t out_bytes(const struct products *p)
{
    return round_up(dnnl_memory_desc_get_size(&p->out));
}

/* Points are written and read on both sides of the products. */
static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    struct products p;
    dnnl_primitive_desc_t pd = find(ask, &p);
    char text[96];

    if (!pd)
        return sac_onednn_fail(err, ask->node->name, "find an implementation again",
                               dnnl_unimplemented);
    caps->workspace_bytes = in_bytes(&p) + out_bytes(&p) + sac_onednn_scratch_bytes(pd);
    caps->weight_bytes = dnnl_memory_desc_get_size(sac_onednn_weights_of(pd)) +
                         (ask->node->weight_count > 1 ? (size_t)p.tiles.out_channels * 4 : 0);
    caps->strided_dst = true;
    caps->extra_bytes =
        2. * (double)(in_bytes(&p) + out_bytes(&p)) * (double)ceil_of(p.tiles.count, p.tiles.chunk);
    snprintf(text, sizeof text, "%s, Winograd %d×%d", sac_onednn_impl_of(pd), p.tiles.tile,
             p.tiles.tile);
    caps->kernel = sac_onednn_intern(text);
    dnnl_primitive_desc_destroy(pd);
    return 0;
}

/* ---- Filters -------------------------------------------------------------- */

struct packing {
    const struct sac_constant *weight; /* [out][in][3][3] */
    const struct products *products;
    const dnnl_memory_desc_t *layout;
    const char *name;
};

/* As [points][in][out] in fp32; then as the products want them. */
static int pack(void *data, void *context, struct sac_error *err)
{
    const struct packing *packing = context;
    const struct products *p = packing->products;
    int64_t in = p->tiles.in_channels, out = p->tiles.out_channels;
    dnnl_memory_desc_t plain;
    float *filters;

    if (!matrices(p, in, out, dnnl_f32, dnnl_abc, &plain))
        return sac_onednn_fail(err, packing->name, "describe its filters", dnnl_invalid_arguments);
    filters = malloc(dnnl_memory_desc_get_size(&plain));
    if (!filters)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for its filters", packing->name);
    for (int64_t i = 0; i < in; i++)
        for (int64_t o = 0; o < out; o++)
            sac_winograd_filter(p->tiles.tile, packing->weight->data + (o * in + i) * 9,
                                filters + i * out + o, in * out);
    int rc = sac_onednn_reorder(&plain, filters, packing->layout, data, packing->name, err);
    free(filters);
    return rc;
}

static int pack_filter(const struct sac_cpu_ask *ask, struct sac_store *store,
                       const struct products *p, const dnnl_memory_desc_t *layout, const void **ret,
                       struct sac_error *err)
{
    const struct sac_constant *weight = &ask->graph->constants[ask->node->weight[0]];
    struct packing packing = {weight, p, layout, ask->node->name};

    return sac_onednn_pack_by(ask, store, layout, "Winograd ", pack, &packing, ret, err);
}

/* ---- Running -------------------------------------------------------------- */

enum { IN, FILTER, OUT, SCRATCH, MEMORIES };

struct state {
    struct sac_winograd tiles;
    const struct sac_cpu_winograd_code *code;
    dnnl_primitive_t product;
    dnnl_stream_t stream;
    dnnl_memory_t memory[MEMORIES];
};

static void free_state(void *memory)
{
    struct state *state = memory;

    for (int i = 0; i < MEMORIES; i++)
        dnnl_memory_destroy(state->memory[i]);
    dnnl_primitive_destroy(state->product);
    dnnl_stream_destroy(state->stream);
    free(state);
}

static dnnl_status_t bind(struct state *state, const struct sac_op *op, const struct products *p,
                          const_dnnl_primitive_desc_t pd, const void *filter)
{
    char *in = op->workspace, *out = in + in_bytes(p), *scratch = out + out_bytes(p);
    const dnnl_memory_desc_t *layout[MEMORIES] = {
        &p->in, sac_onednn_weights_of(pd), &p->out,
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0)};
    const void *data[MEMORIES] = {in, filter, out, scratch};
    dnnl_status_t status = dnnl_primitive_create(&state->product, pd);

    state->tiles = p->tiles;
    state->tiles.in = in;
    state->tiles.out = (float *)(void *)out;
    if (status == dnnl_success)
        status = dnnl_stream_create(&state->stream, sac_onednn_engine, dnnl_stream_default_flags);
    for (int i = 0; status == dnnl_success && i < MEMORIES; i++)
        status = dnnl_memory_create(&state->memory[i], layout[i], sac_onednn_engine,
                                    (void *)(uintptr_t)data[i]);
    return status;
}

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err)
{
    struct products p;
    struct state *state = calloc(1, sizeof *state);
    const void *filter = NULL;
    int rc = 0;

    if (!state)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    op->state = state;
    state->code = ask->device->vector->winograd;
    dnnl_primitive_desc_t pd = find(ask, &p);
    if (!pd)
        rc = sac_onednn_fail(err, op->name, "find an implementation again", dnnl_unimplemented);
    else if (op->master[0])
        rc = sac_fail(err, SAC_EUNSUPPORTED, "%s: its filter is packed once", op->name);
    if (rc == 0)
        rc = pack_filter(ask, store, &p, sac_onednn_weights_of(pd), &filter, err);
    if (rc == 0 && op->weight_count > 1)
        rc = sac_cpu_weight_plain(op, ask, 1, store, err);
    if (rc == 0) {
        dnnl_status_t status = bind(state, op, &p, pd, filter);
        rc = status == dnnl_success ? 0
                                    : sac_onednn_fail(err, op->name, "make the primitive", status);
    }
    dnnl_primitive_desc_destroy(pd);
    return rc;
}

struct chunk {
    const struct sac_op *op;
    int64_t start;
};

static void transform(void *context, int64_t first, int64_t end)
{
    const struct chunk *chunk = context;
    const struct state *state = chunk->op->state;

    state->code->transform(chunk->op, &state->tiles, chunk->start, first, end);
}

static void restore(void *context, int64_t first, int64_t end)
{
    const struct chunk *chunk = context;
    const struct state *state = chunk->op->state;

    state->code->restore(chunk->op, &state->tiles, chunk->start, first, end);
}

/* Of the last chunk some tiles may be left from the one before: their products are not read. */
static int forward(struct sac_op *op, struct sac_error *err)
{
    const struct state *state = op->state;
    const struct sac_winograd *w = &state->tiles;
    const dnnl_memory_t *m = state->memory;
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, m[IN]},
                                    {DNNL_ARG_WEIGHTS, m[FILTER]},
                                    {DNNL_ARG_DST, m[OUT]},
                                    {DNNL_ARG_SCRATCHPAD, m[SCRATCH]}};
    int threads = sac_cpu_threads_for(op, w->chunk * w->in_channels * w->tile * w->tile);
    dnnl_status_t status = dnnl_success;

    for (int64_t start = 0; start < w->count && status == dnnl_success; start += w->chunk) {
        int64_t count = w->count - start < w->chunk ? w->count - start : w->chunk;
        struct chunk chunk = {op, start};
        sac_team_run(threads, count, transform, &chunk);
        status = dnnl_primitive_execute(state->product, state->stream, 4, args);
        if (status == dnnl_success)
            sac_team_run(threads, count, restore, &chunk);
    }
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
