/* Where a plan's values stand: lifetimes, who shares whose memory, one arena. */
#include "net/plan_build.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

/* A value's (and, behind those, its gradient's), and, at a class's root, that of all values that
 * share its memory. */
struct life {
    int first, last; /* steps; first > last: nobody needs it */
    int parent;      /* towards the root of its class; itself at a root */
    bool pinned;     /* an input or output is in it: never overwritten */
    size_t bytes;
};

struct layout {
    struct sac_plan_build *build;
    const struct sac_graph *graph;
    struct life *lives; /* one a value; training: then one a gradient */
    int end;            /* the last step; training: node t goes back at end − t */
    struct sac_block *blocks;
    int *owner; /* a block's root value; below 0: node −1 − owner's saved bytes */
    int block_count;
};

/* ---- Sizes ---------------------------------------------------------------- */

size_t sac_plan_value_bytes(const struct sac_graph *graph, int value)
{
    const struct sac_value *v = &graph->values[value];

    return sac_tensor_bytes(&v->shape, v->form.type);
}

static int check_size(const struct sac_graph *graph, int value, size_t *ret, struct sac_error *err)
{
    const struct sac_value *v = &graph->values[value];
    size_t bytes = sac_plan_value_bytes(graph, value);
    char text[SAC_SHAPE_TEXT];

    if (v->form.layout >= SAC_LAYOUT_OWN)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "blob %s: the device stores it in a layout of its own (%d), whose size a "
                        "plan cannot know",
                        v->name, v->form.layout);
    if (bytes > (size_t)PTRDIFF_MAX)
        return sac_fail(err, SAC_ELIMIT, "blob %s: %s numbers fit no address space", v->name,
                        sac_shape_text(&v->shape, text, sizeof text));
    *ret = bytes;
    return 0;
}

/* ---- Lifetimes ------------------------------------------------------------ */

static void needed(struct layout *layout, int value, int step)
{
    struct life *life = &layout->lives[value];

    life->first = step < life->first ? step : life->first;
    life->last = step > life->last ? step : life->last;
}

static void pin(struct layout *layout, const int *values, int count, int from)
{
    for (int i = 0; i < count; i++) {
        needed(layout, values[i], from);
        needed(layout, values[i], layout->end);
        layout->lives[values[i]].pinned = true;
    }
}

static void need_node(struct layout *layout, const struct sac_node *node, int step)
{
    for (int i = 0; i < node->src_count; i++)
        needed(layout, node->src[i], step);
    for (int i = 0; i < node->dst_count; i++)
        needed(layout, node->dst[i], step);
    if (node->epilogue.sum >= 0)
        needed(layout, node->epilogue.sum, step);
}

static int grad_of(const struct layout *layout, int value)
{
    return layout->graph->value_count + value;
}

/* What the node reads and writes on its way back. Gradients pass through an alias as
 * its values do. */
static void need_backward(struct layout *layout, int t)
{
    const struct sac_node *node = &layout->graph->nodes[t];
    const struct sac_op_caps *caps = &layout->build->caps[t];
    int step = layout->end - t;

    for (int i = 0; caps->backward_src && i < node->src_count; i++)
        needed(layout, node->src[i], step);
    for (int i = 0; caps->backward_dst && i < node->dst_count; i++)
        needed(layout, node->dst[i], step);
    for (int i = 0; i < node->src_count; i++)
        if (node->src_grad[i])
            needed(layout, grad_of(layout, node->src[i]), step);
    for (int i = 0; i < node->dst_count; i++)
        if (layout->build->has_grad[node->dst[i]])
            needed(layout, grad_of(layout, node->dst[i]), step);
}

/* Losses stay to be read, and the gradients that they start with are written once. */
static void need_losses(struct layout *layout)
{
    const struct sac_graph *graph = layout->graph;

    for (int i = 0; i < graph->loss_count; i++)
        pin(layout, &graph->losses[i].value, 1, layout->end);
    for (int i = 0; layout->build->has_grad && i < graph->loss_count; i++) {
        int grad = grad_of(layout, layout->build->seed[i]);
        if (layout->build->seed[i] >= 0)
            pin(layout, &grad, 1, 0);
    }
}

/* Inputs stay whole for the entire run, since a caller may run twice on what it
 * wrote once; outputs from their making to the end. */
static int find_lifetimes(struct layout *layout, struct sac_error *err)
{
    const struct sac_graph *graph = layout->graph;
    bool training = layout->build->options->ops.training;
    int lives = training ? 2 * graph->value_count : graph->value_count, rc = 0;

    for (int v = 0; v < lives; v++)
        layout->lives[v] = (struct life){.first = INT_MAX, .last = -1, .parent = v};
    for (int t = 0; t < graph->node_count; t++)
        need_node(layout, &graph->nodes[t], t);
    for (int t = graph->node_count - 1; training && t >= 0; t--)
        if (sac_plan_goes_back(&graph->nodes[t]))
            need_backward(layout, t);
    pin(layout, graph->inputs, graph->input_count, 0);
    pin(layout, graph->outputs, graph->output_count, layout->end);
    need_losses(layout);
    for (int v = 0; v < lives && rc == 0; v++) {
        struct life *life = &layout->lives[v];
        if (life->first > life->last)
            continue;
        rc = check_size(graph, v % graph->value_count, &life->bytes, err);
    }
    return rc;
}

/* ---- Sharing -------------------------------------------------------------- */

static int root_of(struct layout *layout, int value)
{
    struct life *lives = layout->lives;

    while (lives[value].parent != value) {
        lives[value].parent = lives[lives[value].parent].parent;
        value = lives[value].parent;
    }
    return value;
}

static void share(struct layout *layout, int a, int b)
{
    int to = root_of(layout, a), from = root_of(layout, b);
    struct life *into = &layout->lives[to], *gone = &layout->lives[from];

    if (to == from)
        return;
    into->first = gone->first < into->first ? gone->first : into->first;
    into->last = gone->last > into->last ? gone->last : into->last;
    into->bytes = gone->bytes > into->bytes ? gone->bytes : into->bytes;
    into->pinned |= gone->pinned;
    gone->parent = to;
}

static int uses_by_node(struct layout *layout, const struct sac_node *node, int root)
{
    int uses = node->epilogue.sum >= 0 && root_of(layout, node->epilogue.sum) == root;

    for (int i = 0; i < node->src_count; i++)
        uses += root_of(layout, node->src[i]) == root;
    return uses;
}

/* Nobody reads the value's memory after step t, and the node reads it once. */
static bool may_overwrite(struct layout *layout, const struct sac_node *node, int t, int value)
{
    int root = root_of(layout, value);
    const struct life *life = &layout->lives[root];

    return !life->pinned && life->last == t && life->bytes >= layout->lives[node->dst[0]].bytes &&
           uses_by_node(layout, node, root) == 1;
}

static void share_all(struct layout *layout, const struct sac_node *node)
{
    for (int i = 0; i < node->dst_count; i++)
        share(layout, node->src[0], node->dst[i]);
}

/* Nodes in the order in which they go back; a gradient is read once. */
static void find_grad_sharing(struct layout *layout)
{
    const bool *has_grad = layout->build->has_grad;

    for (int t = layout->graph->node_count - 1; has_grad && t >= 0; t--) {
        const struct sac_node *node = &layout->graph->nodes[t];
        const struct sac_op_caps *caps = &layout->build->caps[t];
        bool alias = caps->alias && node->kind != SAC_OP_SPLIT;
        if (node->src_count < 1 || !node->src_grad[0] || !has_grad[node->dst[0]])
            continue;
        int src = grad_of(layout, node->src[0]), dst = grad_of(layout, node->dst[0]);
        const struct life *life = &layout->lives[root_of(layout, dst)];
        bool over = caps->grad_in_place && !life->pinned && life->last == layout->end - t &&
                    life->bytes >= layout->lives[src].bytes;
        if (alias || over)
            share(layout, dst, src);
    }
}

/* Nodes in order: what a later node shares of a class, it also uses, so that a
 * class's last step is known when it is asked for. */
static void find_sharing(struct layout *layout)
{
    for (int t = 0; t < layout->graph->node_count; t++) {
        const struct sac_node *node = &layout->graph->nodes[t];
        const struct sac_op_caps *caps = &layout->build->caps[t];
        int sum = node->epilogue.sum;

        if (node->dst_count < 1 || node->src_count < 1 ||
            layout->build->part[node->dst[0]].whole >= 0)
            continue;
        if (caps->alias)
            share_all(layout, node);
        else if (sum >= 0 && may_overwrite(layout, node, t, sum))
            share(layout, sum, node->dst[0]);
        else if (caps->in_place && may_overwrite(layout, node, t, node->src[0]))
            share(layout, node->src[0], node->dst[0]);
    }
}

/* Before all other sharing: no root is a part then. */
static void share_wholes(struct layout *layout)
{
    for (int v = 0; v < layout->graph->value_count; v++)
        if (layout->build->part[v].whole >= 0)
            share(layout, layout->build->part[v].whole, v);
}

/* ---- The arena ------------------------------------------------------------ */

static void add_block(struct layout *layout, int owner, int first, int last, size_t bytes)
{
    layout->owner[layout->block_count] = owner;
    layout->blocks[layout->block_count++] =
        (struct sac_block){.bytes = bytes, .first = first, .last = last};
}

static void collect_blocks(struct layout *layout)
{
    const struct sac_graph *graph = layout->graph;

    int lives = layout->build->has_grad ? 2 * graph->value_count : graph->value_count;

    for (int v = 0; v < lives; v++) {
        const struct life *life = &layout->lives[v];
        if (life->parent == v && life->first <= life->last)
            add_block(layout, v, life->first, life->last, life->bytes);
    }
    for (int t = 0; t < graph->node_count; t++)
        if (layout->build->caps[t].saved_bytes > 0)
            add_block(layout, -1 - t, t, layout->end - (layout->build->has_grad ? t : 0),
                      layout->build->caps[t].saved_bytes);
}

static void spread_offsets(struct layout *layout)
{
    struct sac_plan_build *build = layout->build;
    int values = layout->graph->value_count;

    for (int i = 0; i < layout->block_count; i++) {
        int owner = layout->owner[i];
        if (owner >= values)
            build->grad_offset[owner - values] = layout->blocks[i].offset;
        else if (owner >= 0)
            build->value_offset[owner] = layout->blocks[i].offset;
        else
            build->saved_offset[-1 - layout->owner[i]] = layout->blocks[i].offset;
    }
    for (int v = 0; v < layout->graph->value_count; v++)
        build->value_offset[v] =
            build->value_offset[root_of(layout, v)] + sac_plan_part_offset(build, v);
    for (int v = 0; build->has_grad && v < values; v++)
        build->grad_offset[v] = build->grad_offset[root_of(layout, grad_of(layout, v)) - values];
}

/* What cuBLASLt asks of its workspace. */
enum { WORKSPACE_ALIGNMENT = 256 };

/* One workspace for all nodes, behind the arena: they run one after another, and
 * the same lines stay in the caches. */
static int add_workspace(struct layout *layout, size_t arena, struct sac_error *err)
{
    struct sac_plan_build *build = layout->build;
    size_t most = 0, total;

    for (int t = 0; t < layout->graph->node_count; t++)
        if (build->caps[t].workspace_bytes > most)
            most = build->caps[t].workspace_bytes;
    if (most > 0 && arena <= (size_t)PTRDIFF_MAX - WORKSPACE_ALIGNMENT)
        arena = (arena + WORKSPACE_ALIGNMENT - 1) & ~(size_t)(WORKSPACE_ALIGNMENT - 1);
    if (__builtin_add_overflow(arena, most, &total) || total > (size_t)PTRDIFF_MAX)
        return sac_fail(err, SAC_ELIMIT,
                        "%zu bytes of blobs and %zu of workspace fit no address space", arena,
                        most);
    build->workspace_offset = arena;
    build->memory_bytes = total;
    return 0;
}

int sac_plan_lay_out(struct sac_plan_build *build, struct sac_error *err)
{
    const struct sac_graph *graph = build->graph;
    size_t values = (size_t)graph->value_count + 1, nodes = (size_t)graph->node_count + 1;
    struct layout layout = {.build = build, .graph = graph};
    struct sac_arena *scratch = build->scratch;
    size_t arena = 0;
    int rc;

    layout.end = graph->node_count > 0 ? graph->node_count - 1 : 0;
    if (build->has_grad)
        layout.end = 2 * graph->node_count - 1;
    layout.lives = sac_arena_zalloc(scratch, 2 * values, sizeof *layout.lives);
    layout.blocks = sac_arena_zalloc(scratch, 2 * values + nodes, sizeof *layout.blocks);
    layout.owner = sac_arena_zalloc(scratch, 2 * values + nodes, sizeof *layout.owner);
    build->grad_offset = sac_arena_zalloc(scratch, values, sizeof *build->grad_offset);
    build->value_offset = sac_arena_zalloc(scratch, values, sizeof *build->value_offset);
    build->saved_offset = sac_arena_zalloc(scratch, nodes, sizeof *build->saved_offset);
    if (!layout.lives || !build->grad_offset || !layout.blocks || !layout.owner ||
        !build->value_offset || !build->saved_offset)
        return sac_fail(err, SAC_ENOMEM, "out of memory for laying out a plan");
    rc = sac_plan_place_parts(build, err);
    if (rc == 0)
        rc = find_lifetimes(&layout, err);
    if (rc != 0)
        return rc;
    share_wholes(&layout);
    find_sharing(&layout);
    find_grad_sharing(&layout);
    collect_blocks(&layout);
    rc = sac_memory_plan(layout.blocks, layout.block_count, &arena, err);
    if (rc == 0)
        rc = add_workspace(&layout, arena, err);
    if (rc == 0)
        spread_offsets(&layout);
    return rc;
}
