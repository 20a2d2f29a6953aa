/* Which gradients a plan computes: those that some weight needs, and no others. Each
 * value gets its gradient from one use; where several uses give one, a split before
 * them adds theirs up. */
#include <string.h>

#include "net/plan_build.h"

struct search {
    struct sac_graph *graph;
    bool *needs;  /* one a value: weights that train lie behind it */
    bool *useful; /* one a value: a loss depends on it */
};

static int out_of_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory for planning gradients");
}

static bool trains(const struct sac_graph *graph, const struct sac_node *node)
{
    for (int i = 0; i < node->weight_count; i++)
        if (graph->constants[node->weight[i]].trains)
            return true;
    return false;
}

static bool any_of(const bool *flags, const int *values, int count)
{
    for (int i = 0; i < count; i++)
        if (flags[values[i]])
            return true;
    return false;
}

static void find_needs(struct search *s)
{
    for (int t = 0; t < s->graph->node_count; t++) {
        const struct sac_node *node = &s->graph->nodes[t];
        bool needs = trains(s->graph, node);
        for (int i = 0; i < node->src_count; i++)
            needs |= s->needs[node->src[i]] && sac_node_gives_gradient(node, i);
        for (int i = 0; i < node->dst_count; i++)
            s->needs[node->dst[i]] = needs;
    }
}

static void find_useful(struct search *s)
{
    for (int i = 0; i < s->graph->loss_count; i++)
        s->useful[s->graph->losses[i].value] |= s->graph->losses[i].weight != 0;
    for (int t = s->graph->node_count - 1; t >= 0; t--) {
        const struct sac_node *node = &s->graph->nodes[t];
        bool useful = any_of(s->useful, node->dst, node->dst_count);
        for (int i = 0; useful && i < node->src_count; i++)
            s->useful[node->src[i]] |= sac_node_gives_gradient(node, i);
    }
}

static int mark_node(struct search *s, struct sac_node *node, struct sac_error *err)
{
    bool useful = any_of(s->useful, node->dst, node->dst_count);

    node->src_grad =
        sac_arena_zalloc(s->graph->arena, (size_t)node->src_count + 1, sizeof *node->src_grad);
    if (!node->src_grad)
        return out_of_memory(err);
    for (int i = 0; useful && i < node->src_count; i++)
        node->src_grad[i] = s->needs[node->src[i]] && sac_node_gives_gradient(node, i);
    for (int i = 0; i < node->weight_count; i++)
        node->weight_grad[i] = useful && s->graph->constants[node->weight[i]].trains;
    return 0;
}

/* ---- Splits --------------------------------------------------------------- */

struct splits {
    struct sac_graph *graph;
    int *uses;  /* one a value: how many give it a gradient, losses included */
    int *split; /* one a value: the node that splits it; below 0: none */
    int *next;  /* one a value: the result of its split to be used next */
    int *seed;  /* one a loss */
};

static void count_uses(struct splits *s, const struct search *search)
{
    const struct sac_graph *graph = s->graph;

    for (int t = 0; t < graph->node_count; t++)
        for (int i = 0; i < graph->nodes[t].src_count; i++)
            s->uses[graph->nodes[t].src[i]] += graph->nodes[t].src_grad[i];
    for (int i = 0; i < graph->loss_count; i++) {
        int value = graph->losses[i].value;
        s->seed[i] = graph->losses[i].weight != 0 && search->needs[value] ? value : -1;
        if (s->seed[i] >= 0)
            s->uses[value]++;
    }
}

static int add_split(struct splits *s, int value, struct sac_error *err)
{
    struct sac_graph *graph = s->graph;
    const struct sac_value from = graph->values[value];
    struct sac_node *node = sac_graph_add_node(graph, SAC_OP_SPLIT, from.name, 1, s->uses[value]);

    if (!node)
        return out_of_memory(err);
    s->split[value] = graph->node_count - 1;
    node->src[0] = value;
    node->src_grad = sac_arena_zalloc(graph->arena, 1, sizeof *node->src_grad);
    if (!node->src_grad)
        return out_of_memory(err);
    node->src_grad[0] = true;
    for (int i = 0; i < s->uses[value]; i++) {
        node->dst[i] = sac_graph_add_value(graph, from.name, &from.shape);
        if (node->dst[i] < 0)
            return out_of_memory(err);
    }
    return 0;
}

/* The value that this use takes. */
static int next_of(struct splits *s, int value)
{
    return s->split[value] < 0 ? value : s->graph->nodes[s->split[value]].dst[s->next[value]++];
}

static void take_splits(struct splits *s, int node_count)
{
    for (int t = 0; t < node_count; t++) {
        struct sac_node *node = &s->graph->nodes[t];
        for (int i = 0; i < node->src_count; i++)
            if (node->src_grad[i])
                node->src[i] = next_of(s, node->src[i]);
    }
    for (int i = 0; i < s->graph->loss_count; i++)
        if (s->seed[i] >= 0)
            s->seed[i] = next_of(s, s->seed[i]);
}

/* Each split right behind the node that makes its value. */
static int order_nodes(struct splits *s, int node_count, struct sac_error *err)
{
    struct sac_graph *graph = s->graph;
    struct sac_node *nodes =
        sac_arena_zalloc(graph->arena, (size_t)graph->node_count + 1, sizeof *nodes);
    int count = 0;

    if (!nodes)
        return out_of_memory(err);
    for (int t = 0; t < node_count; t++) {
        nodes[count++] = graph->nodes[t];
        for (int i = 0; i < graph->nodes[t].dst_count; i++) {
            int split = s->split[graph->nodes[t].dst[i]];
            if (split >= 0)
                nodes[count++] = graph->nodes[split];
        }
    }
    graph->nodes = nodes;
    graph->node_cap = graph->node_count;
    return 0;
}

static int insert_splits(struct sac_plan_build *build, const struct search *search,
                         struct sac_error *err)
{
    struct sac_graph *graph = build->graph;
    size_t values = (size_t)graph->value_count + 1;
    int value_count = graph->value_count, node_count = graph->node_count, rc = 0;
    struct splits s = {.graph = graph};

    s.uses = sac_arena_zalloc(build->scratch, values, sizeof *s.uses);
    s.split = sac_arena_zalloc(build->scratch, values, sizeof *s.split);
    s.next = sac_arena_zalloc(build->scratch, values, sizeof *s.next);
    s.seed = sac_arena_zalloc(build->scratch, (size_t)graph->loss_count + 1, sizeof *s.seed);
    if (!s.uses || !s.split || !s.next || !s.seed)
        return out_of_memory(err);
    count_uses(&s, search);
    for (int v = 0; v < value_count && rc == 0; v++) {
        s.split[v] = -1;
        if (s.uses[v] > 1)
            rc = add_split(&s, v, err);
    }
    if (rc != 0)
        return rc;
    take_splits(&s, node_count);
    build->seed = s.seed;
    return order_nodes(&s, node_count, err);
}

int sac_plan_find_gradients(struct sac_plan_build *build, struct sac_error *err)
{
    struct sac_graph *graph = build->graph;
    struct search s = {.graph = graph};
    int rc = 0;

    s.needs = sac_arena_zalloc(build->scratch, (size_t)graph->value_count + 1, sizeof *s.needs);
    s.useful = sac_arena_zalloc(build->scratch, (size_t)graph->value_count + 1, sizeof *s.useful);
    if (!s.needs || !s.useful)
        return out_of_memory(err);
    find_needs(&s);
    find_useful(&s);
    for (int t = 0; t < graph->node_count && rc == 0; t++)
        rc = mark_node(&s, &graph->nodes[t], err);
    return rc == 0 ? insert_splits(build, &s, err) : rc;
}

int sac_plan_follow_conversions(struct sac_plan_build *build, struct sac_error *err)
{
    struct sac_graph *graph = build->graph;
    bool *has = sac_arena_zalloc(build->scratch, (size_t)graph->value_count + 1, sizeof *has);

    if (!has)
        return out_of_memory(err);
    for (int i = 0; i < graph->loss_count; i++)
        if (build->seed[i] >= 0)
            has[build->seed[i]] = true;
    for (int t = graph->node_count - 1; t >= 0; t--) {
        struct sac_node *node = &graph->nodes[t];
        if (!node->src_grad) { /* a conversion, added for the forms */
            node->src_grad =
                sac_arena_zalloc(graph->arena, (size_t)node->src_count + 1, sizeof(bool));
            if (!node->src_grad)
                return out_of_memory(err);
            node->src_grad[0] = has[node->dst[0]];
        }
        for (int i = 0; i < node->src_count; i++)
            has[node->src[i]] |= node->src_grad[i];
    }
    build->has_grad = has;
    return 0;
}

bool sac_plan_goes_back(const struct sac_node *node)
{
    for (int i = 0; node->src_grad && i < node->src_count; i++)
        if (node->src_grad[i])
            return true;
    for (int i = 0; i < node->weight_count; i++)
        if (node->weight_grad[i])
            return true;
    return false;
}
