#include "device/cpu/stem.h"

#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/team.h"
#include "device/cpu/parts.h"
#include "device/cpu/vector.h"

enum {
    CHANNELS_MAX = 4,
    ROW_MAX = 1 << 20,
};

/* ---- Which convolutions --------------------------------------------------- */

static bool has_window(const struct sac_node *node)
{
    const struct sac_window *w = &node->param.conv.window;
    bool all = node->kind == SAC_OP_CONV && node->param.conv.group == 1;

    for (int way = 0; way < 2; way++)
        all &= w->dilation[way] == 1 && w->kernel[way] <= SAC_STEM_KERNEL_MAX;
    return all;
}

static bool has_shapes(const struct sac_shape *src, const struct sac_shape *dst)
{
    return src->rank == 4 && dst->rank == 4 && src->dim[1] <= CHANNELS_MAX &&
           dst->dim[1] % 16 == 0 && sac_shape_count(dst) > 0 && src->dim[3] < ROW_MAX;
}

static bool can(const struct sac_cpu_ask *ask)
{
    const struct sac_cpu_features *features = &ask->device->features;
    const struct sac_node *node = ask->node;

    return ask->type == SAC_BF16 && ask->device->vector->stem->row && features->avx512_bf16 &&
           !features->amx_bf16 && !node->eight_bits && !ask->options->training &&
           !ask->options->masters && node->epilogue.sum < 0 && has_window(node) &&
           has_shapes(sac_cpu_src_shape(ask), sac_cpu_dst_shape(ask));
}

/* ---- Sizes ---------------------------------------------------------------- */

static struct sac_stem stem_of(const struct sac_cpu_ask *ask)
{
    const struct sac_window *w = &ask->node->param.conv.window;
    const struct sac_shape *src = sac_cpu_src_shape(ask), *dst = sac_cpu_dst_shape(ask);

    return (struct sac_stem){
        .kernel = w->kernel[0],
        .pairs = (w->kernel[1] * src->dim[1] + 1) / 2,
        .step = w->stride[1] * src->dim[1],
        .width = dst->dim[3],
        .vectors = dst->dim[1] / 16,
        .relu = ask->node->epilogue.relu,
        .slope = ask->node->epilogue.slope,
    };
}

static size_t filter_bytes(const struct sac_stem *s)
{
    return (size_t)(s->kernel * s->pairs * s->vectors) * 32 * sizeof(uint16_t);
}

/* Numbers of a row with its padding, and with what windows reach beyond it. */
static int64_t padded_width(const struct sac_shape *src, const struct sac_stem *s,
                            const struct sac_window *w)
{
    int64_t whole = (src->dim[3] + 2 * w->pad[1]) * src->dim[1];
    int64_t reached = (s->width - 1) * s->step + 2 * s->pairs;

    return whole > reached ? whole : reached;
}

static int threads_of(const struct sac_cpu_ask *ask)
{
    return ask->options->threads > 1 ? ask->options->threads : 1;
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    struct sac_stem s = stem_of(ask);
    int64_t width = padded_width(sac_cpu_src_shape(ask), &s, &ask->node->param.conv.window);

    (void)err;
    caps->workspace_bytes = (size_t)threads_of(ask) * (size_t)(s.kernel * width) * sizeof(uint16_t);
    caps->weight_bytes =
        filter_bytes(&s) + (ask->node->weight_count > 1 ? (size_t)s.vectors * 16 * 4 : 0);
    caps->strided_dst = true;
    caps->kernel = "AVX-512 bf16, window rows";
    return 0;
}

/* ---- The filter ----------------------------------------------------------- */

struct packing {
    const struct sac_constant *weight; /* [out][in][kernel][kernel] */
    struct sac_stem stem;
};

static int pack(void *data, void *context, struct sac_error *err)
{
    const struct packing *packing = context;
    const struct sac_stem *s = &packing->stem;
    const int64_t *dim = packing->weight->shape.dim;
    const float *from = packing->weight->data;

    (void)err;
    memset(data, 0, filter_bytes(s));
    for (int64_t o = 0; o < dim[0]; o++)
        for (int64_t c = 0; c < dim[1]; c++)
            for (int64_t y = 0; y < dim[2]; y++)
                for (int64_t x = 0; x < dim[3]; x++)
                    ((uint16_t *)data)[sac_stem_filter_at(s, o, y, x * dim[1] + c)] =
                        sac_bf16_from_float(*from++);
    return 0;
}

/* ---- Running -------------------------------------------------------------- */

struct state {
    const struct sac_cpu_stem_code *code;
    struct sac_stem stem;
    int64_t row; /* numbers of a padded row */
    int parts;   /* for which there is memory */
};

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err)
{
    struct state *state = calloc(1, sizeof *state);
    const struct sac_packed *packed;

    if (!state)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    op->state = state;
    state->code = ask->device->vector->stem;
    state->stem = stem_of(ask);
    state->row = padded_width(sac_cpu_src_shape(ask), &state->stem, &ask->node->param.conv.window);
    state->parts = threads_of(ask);
    if (op->master[0])
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: its filter is packed once", op->name);
    struct packing packing = {&ask->graph->constants[ask->node->weight[0]], state->stem};
    struct sac_packer packer = {
        .bytes = filter_bytes(&state->stem), .pack = pack, .context = &packing};
    int rc =
        sac_cpu_store_pack(store, packing.weight->name, "window rows bf16", &packer, &packed, err);
    if (rc == 0 && op->weight_count > 1)
        rc = sac_cpu_weight_plain(op, ask, 1, store, err);
    if (rc == 0) {
        state->stem.filter = packed->data;
        state->stem.bias = op->weight_count > 1 ? op->weight[1] : NULL;
    }
    return rc;
}

/* Row y of a picture, between its padding; outside of the picture all is 0. */
static void fill_row(const struct sac_op *op, int64_t picture, int64_t y, uint16_t *to, int64_t row)
{
    const struct sac_tensor *src = &op->src[0];
    const int64_t *dim = src->shape.dim, channels = dim[1], pitch = src->stride[3];
    int64_t before = op->param.conv.window.pad[1] * channels, count = dim[3] * channels;

    if (y < 0 || y >= dim[2]) {
        memset(to, 0, (size_t)row * sizeof *to);
        return;
    }
    memset(to, 0, (size_t)before * sizeof *to);
    memset(to + before + count, 0, (size_t)(row - before - count) * sizeof *to);
    const uint16_t *from =
        (const uint16_t *)src->data + picture * src->stride[0] + y * src->stride[2];
    if (pitch == channels)
        memcpy(to + before, from, (size_t)count * sizeof *to);
    else
        for (int64_t x = 0; x < dim[3]; x++)
            memcpy(to + before + x * channels, from + x * pitch, (size_t)channels * sizeof *to);
}

/* Rows first … end − 1 of the results of all pictures. The window's rows are a ring: those
 * that the next window shares stay. */
static void run_rows(const struct sac_op *op, int64_t first, int64_t end, uint16_t *ring)
{
    const struct state *state = op->state;
    const struct sac_window *w = &op->param.conv.window;
    const struct sac_tensor *dst = &op->dst[0];
    int64_t kernel = state->stem.kernel, height = dst->shape.dim[2], filled = 0;
    const uint16_t *rows[SAC_STEM_KERNEL_MAX];

    for (int64_t at = first; at < end; at++) {
        int64_t picture = at / height, y = at % height, top = y * w->stride[0] - w->pad[0];
        if (at == first || y == 0 || filled < top)
            filled = top;
        for (; filled < top + kernel; filled++)
            fill_row(op, picture, filled, ring + (filled + w->pad[0]) % kernel * state->row,
                     state->row);
        for (int64_t i = 0; i < kernel; i++)
            rows[i] = ring + (top + i + w->pad[0]) % kernel * state->row;
        state->code->row(&state->stem, rows,
                         (char *)dst->data + (picture * dst->stride[0] + y * dst->stride[2]) *
                                                 (int64_t)sac_type_bytes(dst->form.type),
                         dst->form.type, dst->stride[3]);
    }
}

struct job {
    const struct sac_op *op;
    int64_t rows, parts;
};

static void run_parts(void *context, int64_t first, int64_t end)
{
    const struct job *job = context;
    const struct state *state = job->op->state;
    int64_t ring = state->stem.kernel * state->row;

    for (int64_t i = first; i < end; i++)
        run_rows(job->op, job->rows * i / job->parts, job->rows * (i + 1) / job->parts,
                 (uint16_t *)job->op->workspace + i * ring);
}

static int forward(struct sac_op *op, struct sac_error *err)
{
    const struct state *state = op->state;
    const int64_t *dim = op->dst[0].shape.dim;
    int threads = sac_cpu_threads_for(op, sac_shape_count(&op->dst[0].shape));
    struct job job = {op, dim[0] * dim[2], threads < state->parts ? threads : state->parts};

    (void)err;
    sac_team_run((int)job.parts, job.parts, run_parts, &job);
    return 0;
}

const struct sac_cpu_kernel sac_cpu_stem = {
    .name = "vector",
    .can = can,
    .query = query,
    .prepare = prepare,
    .forward = forward,
    .free_state = free,
};
