#include "net/plan.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/plan_build.h"
#include "net/plan_graph.h"

struct step {
    struct sac_op *op;
    bool forward, data, weights; /* which ways it has */
    struct sac_plan_step report;
};

struct ends {
    struct sac_tensor *inputs, *outputs;
    void *memory;
};

struct sac_plan {
    struct sac_device *device;
    struct sac_stream *stream;
    struct sac_arena *arena; /* text, and the tensors that operations are bound to */
    const char *name;        /* the net's */
    int batch;
    struct sac_tensor *inputs, *outputs;
    int input_count, output_count;
    void *memory;
    bool memory_owned;
    size_t memory_bytes; /* what it needs */
    size_t memory_room;  /* what there is, which others may use */
    int slices;          /* 1, or how often the steps run, each time on the next of: */
    struct ends whole;   /* inputs and outputs of the batch; those above are a slice's */
    struct step *steps;
    int step_count;
    struct sac_recording *recording; /* all steps, where the device records */
    bool has_run, records_not;
    bool changes; /* its weights do: runs are not recorded */
    struct sac_plan_loss *losses;
    int loss_count;
    float *loss_values;       /* staging: room for any loss */
    float *seed_values;       /* staging: what the seeds are */
    struct sac_tensor *seeds; /* one a loss: the gradient that it starts; data NULL: none */
    int *last_step;           /* one a parameter: of those that add to its gradient, the first
                                 forward and so the last back; −1: none */
    int param_count;
    struct sac_plan_hook hook;
    uint64_t generation; /* of the weights' masters */
    struct sac_op_random random;
};

static int out_of_memory(const struct sac_plan *plan, struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory for a plan of batch %d", plan->batch);
}

static void *zalloc(struct sac_plan *plan, int count, size_t size)
{
    return sac_arena_zalloc(plan->arena, (size_t)count + 1, size);
}

/* ---- Memory --------------------------------------------------------------- */

static int take_memory(struct sac_plan *plan, const struct sac_plan_build *build,
                       struct sac_error *err)
{
    const struct sac_plan *other = build->options->memory_of;
    size_t bytes = build->memory_bytes > 0 ? build->memory_bytes : 1;
    int rc;

    plan->memory_bytes = build->memory_bytes;
    if (other && other->memory_room >= bytes) {
        plan->memory = other->memory;
        plan->memory_room = other->memory_room;
        return 0;
    }
    rc =
        plan->device->table->memory_new(plan->device, SAC_MEMORY_DEVICE, bytes, &plan->memory, err);
    if (rc != 0) {
        sac_error_prefix(err, "batch %d needs %zu bytes of device memory", plan->batch, bytes);
        return rc;
    }
    plan->memory_owned = true;
    plan->memory_room = bytes;
    return 0;
}

/* ---- Binding -------------------------------------------------------------- */

/* `layout`: what its reader calls it, where the order of its elements is the same
 * in both; else it has the value's own. */
static struct sac_tensor tensor_at(const struct sac_plan *plan, const struct sac_plan_build *build,
                                   int value, int layout)
{
    const struct sac_value *v = &build->graph->values[value];
    struct sac_form form = v->form;

    if (v->shape.rank >= 3 && sac_plan_order_is_free(&v->shape))
        form.layout = layout;
    struct sac_tensor tensor = sac_tensor_of(&v->shape, form);
    if (build->part[value].whole >= 0)
        sac_plan_part_strides(build, value, &tensor);
    tensor.data = (char *)plan->memory + build->value_offset[value];
    return tensor;
}

static struct sac_tensor *tensors_at(struct sac_plan *plan, const struct sac_plan_build *build,
                                     const int *values, int count, int layout,
                                     struct sac_error *err)
{
    struct sac_tensor *tensors = zalloc(plan, count, sizeof *tensors);

    if (!tensors)
        out_of_memory(plan, err);
    for (int i = 0; tensors && i < count; i++)
        tensors[i] = tensor_at(plan, build, values[i], layout);
    return tensors;
}

static struct sac_tensor grad_at(const struct sac_plan *plan, const struct sac_plan_build *build,
                                 int value, int layout)
{
    struct sac_tensor tensor = tensor_at(plan, build, value, layout);

    tensor.data = (char *)plan->memory + build->grad_offset[value];
    return tensor;
}

static int bind_gradients(struct sac_plan *plan, const struct sac_plan_build *build, int index,
                          struct sac_binding *ret, struct sac_error *err)
{
    const struct sac_node *node = &build->graph->nodes[index];
    const struct sac_op_caps *caps = &build->caps[index];
    struct sac_tensor *dst = zalloc(plan, node->dst_count, sizeof *dst);

    ret->src_grad = zalloc(plan, node->src_count, sizeof *ret->src_grad);
    if (!dst || !ret->src_grad)
        return out_of_memory(plan, err);
    for (int i = 0; i < node->src_count; i++)
        if (node->src_grad[i])
            ret->src_grad[i] = grad_at(plan, build, node->src[i], caps->src.layout);
    for (int i = 0; i < node->dst_count; i++)
        if (build->has_grad[node->dst[i]])
            dst[i] = grad_at(plan, build, node->dst[i], caps->dst.layout);
    ret->dst_grad = dst;
    return 0;
}

/* Where the weights of a node, and their gradients, stand. */
static int bind_masters(struct sac_plan *plan, const struct sac_plan_build *build, int index,
                        struct sac_binding *ret, struct sac_error *err)
{
    const struct sac_node *node = &build->graph->nodes[index];
    const struct sac_plan_options *options = build->options;
    float **weight = zalloc(plan, node->weight_count, sizeof *weight);
    float **grad = zalloc(plan, node->weight_count, sizeof *grad);

    if (!weight || !grad)
        return out_of_memory(plan, err);
    for (int i = 0; i < node->weight_count; i++) {
        int param = build->graph->constants[node->weight[i]].param;
        weight[i] = param >= 0 ? options->weights[param] : NULL;
        if (param >= 0 && options->weight_grads && node->weight_grad[i])
            grad[i] = options->weight_grads[param];
        if (grad[i] && plan->last_step[param] < 0)
            plan->last_step[param] = plan->step_count;
    }
    ret->weight = weight;
    ret->weight_grad = grad;
    ret->generation = &plan->generation;
    return 0;
}

static int bind(struct sac_plan *plan, const struct sac_plan_build *build, int index,
                struct sac_binding *ret, struct sac_error *err)
{
    const struct sac_node *node = &build->graph->nodes[index];
    const struct sac_op_caps *caps = &build->caps[index];

    ret->src = tensors_at(plan, build, node->src, node->src_count, caps->src.layout, err);
    ret->dst = tensors_at(plan, build, node->dst, node->dst_count, caps->dst.layout, err);
    if (!ret->src || !ret->dst)
        return SAC_ENOMEM;
    if (node->epilogue.sum >= 0)
        ret->sum = tensor_at(plan, build, node->epilogue.sum, caps->dst.layout);
    if (caps->workspace_bytes > 0)
        ret->workspace = (char *)plan->memory + build->workspace_offset;
    ret->workspace_bytes = caps->workspace_bytes;
    if (caps->saved_bytes > 0)
        ret->saved = (char *)plan->memory + build->saved_offset[index];
    ret->random = &plan->random;
    int rc = 0;
    if (build->options->weights)
        rc = bind_masters(plan, build, index, ret, err);
    return rc == 0 && build->has_grad ? bind_gradients(plan, build, index, ret, err) : rc;
}

/* ---- Steps ---------------------------------------------------------------- */

/* Filters are packed in the type of what they meet; vectors stay fp32. */
size_t sac_plan_weight_bytes(const struct sac_graph *graph, const struct sac_node *node,
                             const struct sac_op_caps *caps)
{
    size_t bytes = 0;

    if (caps->weight_bytes > 0)
        return caps->weight_bytes;
    for (int i = 0; i < node->weight_count; i++) {
        const struct sac_shape *shape = &graph->constants[node->weight[i]].shape;
        enum sac_type type = shape->rank >= 2 ? caps->src.type : SAC_F32;
        bytes += sac_tensor_bytes(shape, type);
    }
    return bytes;
}

/* Each source that is not in the result yet, there and back. */
static double copied_bytes(const struct sac_plan_build *build, const struct sac_node *node)
{
    double bytes = 0;

    for (int i = 0; i < node->src_count; i++)
        if (build->part[node->src[i]].whole < 0)
            bytes += 2 * (double)sac_plan_value_bytes(build->graph, node->src[i]);
    return bytes;
}

static double moved_bytes(const struct sac_plan_build *build, int index)
{
    const struct sac_graph *graph = build->graph;
    const struct sac_node *node = &graph->nodes[index];
    const struct sac_op_caps *caps = &build->caps[index];
    double bytes = (double)sac_plan_weight_bytes(graph, node, caps) + caps->extra_bytes;

    if (node->kind == SAC_OP_CONCAT)
        return copied_bytes(build, node);
    for (int i = 0; i < node->src_count; i++)
        bytes += (double)sac_plan_value_bytes(graph, node->src[i]);
    for (int i = 0; i < node->dst_count; i++)
        bytes += (double)sac_plan_value_bytes(graph, node->dst[i]);
    if (node->epilogue.sum >= 0)
        bytes += (double)sac_plan_value_bytes(graph, node->epilogue.sum);
    return bytes;
}

/* What runs the operation, and what of it need not run. */
static const char *kernel_text(struct sac_plan *plan, const struct sac_plan_build *build, int index)
{
    const struct sac_node *node = &build->graph->nodes[index];
    const char *kernel = build->caps[index].kernel ? build->caps[index].kernel : "";
    int copied = node->kind == SAC_OP_CONCAT ? sac_plan_copied_sources(build, index) : 0;
    char text[128];

    if (copied == 0 || copied == node->src_count)
        return sac_arena_strdup(plan->arena, kernel);
    snprintf(text, sizeof text, "%s, %d of %d in place", kernel, node->src_count - copied,
             node->src_count);
    return sac_arena_strdup(plan->arena, text);
}

static int describe(struct sac_plan *plan, const struct sac_plan_build *build, int index,
                    struct sac_plan_step *ret, struct sac_error *err)
{
    const struct sac_graph *graph = build->graph;
    const struct sac_node *node = &graph->nodes[index];
    const struct sac_op_caps *caps = &build->caps[index];

    ret->name = sac_arena_strdup(plan->arena, node->name);
    ret->kernel = kernel_text(plan, build, index);
    if (!ret->name || !ret->kernel)
        return out_of_memory(plan, err);
    ret->kind = node->kind;
    if (node->dst_count > 0) {
        ret->out = graph->values[node->dst[0]].shape;
        ret->form = graph->values[node->dst[0]].form;
    }
    ret->flops = caps->flops;
    ret->bytes = moved_bytes(build, index);
    return 0;
}

static void find_ways(struct step *step, const struct sac_plan_build *build, int index,
                      const struct sac_binding *binding)
{
    const struct sac_node *node = &build->graph->nodes[index];

    step->forward = !build->caps[index].alias;
    for (int i = 0; build->has_grad && i < node->src_count; i++)
        step->data |= node->src_grad[i];
    for (int i = 0; binding->weight_grad && i < node->weight_count; i++)
        step->weights |= binding->weight_grad[i] != NULL;
}

static int prepare_step(struct sac_plan *plan, const struct sac_plan_build *build, int index,
                        struct sac_store *store, struct sac_error *err)
{
    struct step *step = &plan->steps[plan->step_count];
    struct sac_binding binding = {0};
    int rc = bind(plan, build, index, &binding, err);

    if (rc == 0)
        rc = describe(plan, build, index, &step->report, err);
    if (rc == 0)
        rc = plan->device->table->op_prepare(plan->device, store, build->graph,
                                             &build->graph->nodes[index], &build->options->ops,
                                             &binding, &step->op, err);
    if (rc == 0)
        find_ways(step, build, index, &binding);
    if (rc == 0)
        plan->step_count++;
    return rc;
}

static int take_params(struct sac_plan *plan, const struct sac_graph *graph, struct sac_error *err)
{
    for (int i = 0; i < graph->constant_count; i++)
        if (graph->constants[i].param >= plan->param_count)
            plan->param_count = graph->constants[i].param + 1;
    plan->last_step = zalloc(plan, plan->param_count, sizeof *plan->last_step);
    if (!plan->last_step)
        return out_of_memory(plan, err);
    for (int i = 0; i < plan->param_count; i++)
        plan->last_step[i] = -1;
    return 0;
}

static bool needs_a_step(const struct sac_plan_build *build, int index)
{
    enum sac_op_kind kind = build->graph->nodes[index].kind;

    if (build->caps[index].alias)
        return build->has_grad && kind == SAC_OP_SPLIT;
    return kind != SAC_OP_CONCAT || sac_plan_copied_sources(build, index) > 0;
}

static int prepare_steps(struct sac_plan *plan, const struct sac_plan_build *build,
                         struct sac_store *store, struct sac_error *err)
{
    int rc = take_params(plan, build->graph, err);

    plan->steps = zalloc(plan, build->graph->node_count, sizeof *plan->steps);
    if (!plan->steps)
        return out_of_memory(plan, err);
    for (int i = 0; i < build->graph->node_count && rc == 0; i++)
        if (needs_a_step(build, i))
            rc = prepare_step(plan, build, i, store, err);
    return rc;
}

static int bind_ends(struct sac_plan *plan, const struct sac_plan_build *build,
                     struct sac_error *err)
{
    const struct sac_graph *graph = build->graph;

    plan->input_count = graph->input_count;
    plan->output_count = graph->output_count;
    plan->inputs = tensors_at(plan, build, graph->inputs, graph->input_count, SAC_PLAIN, err);
    plan->outputs = tensors_at(plan, build, graph->outputs, graph->output_count, SAC_PLAIN, err);
    return plan->inputs && plan->outputs ? 0 : SAC_ENOMEM;
}

/* ---- Losses --------------------------------------------------------------- */

/* A loss's weight, in each element of the gradient that it starts. Written anew by each way
 * back: plans that use this one's memory know nothing of it. */
static int write_seeds(struct sac_plan *plan, struct sac_error *err)
{
    const float *from = plan->seed_values;
    int rc = 0;

    for (int i = 0; i < plan->loss_count && rc == 0; i++) {
        const struct sac_tensor *grad = &plan->seeds[i];
        size_t count = (size_t)sac_shape_count(&grad->shape);
        if (!grad->data)
            continue;
        rc = plan->device->table->copy(plan->stream, SAC_COPY_TO_DEVICE, grad->data, from,
                                       count * sizeof *from, err);
        from += count;
    }
    return rc;
}

static void fill_seeds(struct sac_plan *plan, float scale)
{
    float *to = plan->seed_values;

    for (int i = 0; i < plan->loss_count; i++)
        for (int64_t k = 0; plan->seeds[i].data && k < sac_shape_count(&plan->seeds[i].shape); k++)
            *to++ = plan->losses[i].weight * scale;
}

static int bind_seeds(struct sac_plan *plan, const struct sac_plan_build *build,
                      struct sac_error *err)
{
    size_t count = 0;

    for (int i = 0; i < plan->loss_count && build->has_grad; i++) {
        if (build->seed[i] < 0)
            continue;
        plan->seeds[i] = grad_at(plan, build, build->seed[i], SAC_PLAIN);
        if (plan->seeds[i].form.type != SAC_F32)
            return sac_fail(err, SAC_EUNSUPPORTED, "loss %s: it is %s, and losses have to be f32",
                            plan->losses[i].name, sac_type_name(plan->seeds[i].form.type));
        count += (size_t)sac_shape_count(&plan->seeds[i].shape);
    }
    int rc = count == 0 ? 0
                        : plan->device->table->memory_new(plan->device, SAC_MEMORY_STAGING,
                                                          count * sizeof(float),
                                                          (void **)&plan->seed_values, err);
    if (rc == 0)
        fill_seeds(plan, 1);
    return rc;
}

static int bind_losses(struct sac_plan *plan, const struct sac_plan_build *build,
                       struct sac_error *err)
{
    const struct sac_graph *graph = build->graph;
    int64_t most = 1;
    int rc = 0;

    for (int i = 0; i < graph->loss_count; i++) {
        int64_t count = sac_shape_count(&graph->values[graph->losses[i].value].shape);
        most = count > most ? count : most;
    }
    plan->losses = zalloc(plan, graph->loss_count, sizeof *plan->losses);
    plan->seeds = zalloc(plan, graph->loss_count, sizeof *plan->seeds);
    if (!plan->losses || !plan->seeds)
        return out_of_memory(plan, err);
    plan->loss_count = graph->loss_count;
    if (graph->loss_count > 0)
        rc = plan->device->table->memory_new(plan->device, SAC_MEMORY_STAGING,
                                             (size_t)most * sizeof(float),
                                             (void **)&plan->loss_values, err);
    for (int i = 0; i < graph->loss_count && rc == 0; i++) {
        const struct sac_graph_loss *loss = &graph->losses[i];
        struct sac_plan_loss *to = &plan->losses[i];
        to->name = sac_arena_strdup(plan->arena, loss->name);
        to->weight = loss->weight;
        to->value = tensor_at(plan, build, loss->value, SAC_PLAIN);
        if (!to->name)
            rc = out_of_memory(plan, err);
    }
    return rc == 0 ? bind_seeds(plan, build, err) : rc;
}

/* ---- Making and freeing --------------------------------------------------- */

static int batch_of(const struct sac_graph *graph)
{
    const struct sac_shape *shape;

    if (graph->input_count < 1)
        return 1;
    shape = &graph->values[graph->inputs[0]].shape;
    return shape->rank > 0 ? (int)shape->dim[0] : 1;
}

/* What training asks of the device and the caller. */
static int check_training(const struct sac_plan_build *build, struct sac_error *err)
{
    if (!build->options->ops.training)
        return 0;
    if (!build->device->table->op_backward_data || !build->device->table->op_backward_weights)
        return sac_fail(err, SAC_EUNSUPPORTED, "device %s cannot train", build->device->info.name);
    return 0;
}

static int init(struct sac_plan *plan, const char *name, const struct sac_plan_build *build,
                struct sac_stream *stream, struct sac_error *err)
{
    plan->device = build->device;
    plan->stream = stream;
    plan->batch = batch_of(build->graph);
    plan->slices = 1;
    plan->changes = build->options->weights != NULL;
    plan->arena = sac_arena_new(0);
    plan->name = plan->arena ? sac_arena_strdup(plan->arena, name) : NULL;
    return plan->name && build->scratch ? 0 : out_of_memory(plan, err);
}

static int build_plan(struct sac_plan *plan, struct sac_plan_build *build, struct sac_store *store,
                      struct sac_error *err)
{
    int rc = check_training(build, err);

    if (rc == 0)
        rc = sac_plan_choose_forms(build, err);

    if (rc == 0)
        rc = sac_plan_lay_out(build, err);
    if (rc == 0)
        rc = take_memory(plan, build, err);
    if (rc == 0)
        rc = bind_ends(plan, build, err);
    if (rc == 0)
        rc = bind_losses(plan, build, err);
    if (rc == 0)
        rc = prepare_steps(plan, build, store, err);
    return rc;
}

int sac_plan_from_graph(struct sac_plan **ret, struct sac_graph *graph, const char *name,
                        struct sac_device *device, struct sac_store *store,
                        struct sac_stream *stream, const struct sac_plan_options *options,
                        struct sac_error *err)
{
    struct sac_plan_options whole = *options;
    struct sac_plan_build build = {.device = device, .graph = graph, .options = &whole};
    struct sac_plan *plan = calloc(1, sizeof *plan);
    int rc = plan ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory for a plan");

    whole.ops.masters = options->weights != NULL;
    build.scratch = sac_arena_new(0);
    if (rc == 0)
        rc = init(plan, name, &build, stream, err);
    if (rc == 0)
        rc = build_plan(plan, &build, store, err);
    if (rc == 0) {
        *ret = plan;
        plan = NULL;
    } else {
        sac_error_prefix(err, "net %s", name);
    }
    sac_plan_free(plan);
    sac_arena_free(build.scratch);
    sac_graph_free(graph);
    return rc;
}

/* The tensors of the whole batch, one behind the other from `at` on; returns the end.
 * With memory NULL only that is found out. */
static size_t place_whole(const struct sac_plan *plan, const struct sac_tensor *parts, int count,
                          struct sac_tensor *wholes, void *memory, size_t at)
{
    for (int i = 0; i < count; i++) {
        struct sac_shape shape = parts[i].shape;
        shape.dim[0] *= plan->slices;
        wholes[i] = sac_tensor_of(&shape, parts[i].form);
        wholes[i].data = memory ? (char *)memory + at : NULL;
        at += (sac_tensor_bytes(&shape, parts[i].form.type) + 63) & ~(size_t)63;
    }
    return at;
}

static size_t place_ends(struct sac_plan *plan, void *memory)
{
    size_t at = place_whole(plan, plan->inputs, plan->input_count, plan->whole.inputs, memory, 0);

    return place_whole(plan, plan->outputs, plan->output_count, plan->whole.outputs, memory, at);
}

/* Far from where sizes could wrap, padding and all. */
static bool ends_fit(const struct sac_tensor *parts, int count, int slices)
{
    size_t bytes, total = 0;

    for (int i = 0; i < count; i++)
        if (__builtin_mul_overflow(sac_tensor_bytes(&parts[i].shape, parts[i].form.type) + 63,
                                   (size_t)slices, &bytes) ||
            __builtin_add_overflow(total, bytes, &total) || total > (size_t)PTRDIFF_MAX / 4)
            return false;
    return true;
}

int sac_plan_repeat(struct sac_plan *plan, int slices, struct sac_error *err)
{
    if (!ends_fit(plan->inputs, plan->input_count, slices) ||
        !ends_fit(plan->outputs, plan->output_count, slices))
        return sac_fail(err, SAC_ELIMIT, "a batch of %d slices of %d fits no address space", slices,
                        plan->batch);
    plan->slices = slices;
    plan->batch *= slices;
    plan->whole.inputs = zalloc(plan, plan->input_count, sizeof *plan->whole.inputs);
    plan->whole.outputs = zalloc(plan, plan->output_count, sizeof *plan->whole.outputs);
    if (!plan->whole.inputs || !plan->whole.outputs)
        return out_of_memory(plan, err);
    size_t bytes = place_ends(plan, NULL);
    int rc = plan->device->table->memory_new(plan->device, SAC_MEMORY_DEVICE, bytes,
                                             &plan->whole.memory, err);
    if (rc == 0) {
        place_ends(plan, plan->whole.memory);
        plan->memory_bytes += bytes;
    }
    return rc;
}

void sac_plan_free(struct sac_plan *plan)
{
    if (!plan)
        return;
    if (plan->recording)
        plan->device->table->recording_free(plan->recording);
    for (int i = 0; i < plan->step_count; i++)
        plan->device->table->op_free(plan->steps[i].op);
    if (plan->seed_values)
        plan->device->table->memory_free(plan->device, SAC_MEMORY_STAGING, plan->seed_values);
    if (plan->loss_values)
        plan->device->table->memory_free(plan->device, SAC_MEMORY_STAGING, plan->loss_values);
    if (plan->whole.memory)
        plan->device->table->memory_free(plan->device, SAC_MEMORY_DEVICE, plan->whole.memory);
    if (plan->memory_owned)
        plan->device->table->memory_free(plan->device, SAC_MEMORY_DEVICE, plan->memory);
    sac_arena_free(plan->arena);
    free(plan);
}

/* ---- Using ---------------------------------------------------------------- */

int sac_plan_input_count(const struct sac_plan *plan)
{
    return plan->input_count;
}

const struct sac_tensor *sac_plan_input(const struct sac_plan *plan, int index)
{
    assert(index >= 0 && index < plan->input_count);
    return plan->whole.inputs ? &plan->whole.inputs[index] : &plan->inputs[index];
}

int sac_plan_output_count(const struct sac_plan *plan)
{
    return plan->output_count;
}

const struct sac_tensor *sac_plan_output(const struct sac_plan *plan, int index)
{
    assert(index >= 0 && index < plan->output_count);
    return plan->whole.outputs ? &plan->whole.outputs[index] : &plan->outputs[index];
}

int sac_plan_batch(const struct sac_plan *plan)
{
    return plan->batch;
}

int sac_plan_slices(const struct sac_plan *plan)
{
    return plan->slices;
}

size_t sac_plan_memory_bytes(const struct sac_plan *plan)
{
    return plan->memory_bytes;
}

int sac_plan_forward_step(struct sac_plan *plan, int index, struct sac_error *err)
{
    assert(index >= 0 && index < plan->step_count);
    int rc = 0;

    if (plan->steps[index].forward)
        rc = plan->device->table->op_forward(plan->steps[index].op, plan->stream, err);

    if (rc != 0)
        sac_error_prefix(err, "net %s, layer %s", plan->name, plan->steps[index].report.name);
    return rc;
}

static int forward_steps(struct sac_plan *plan, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < plan->step_count && rc == 0; i++)
        rc = sac_plan_forward_step(plan, i, err);
    return rc;
}

static int copy_slice(struct sac_plan *plan, const struct sac_tensor *part,
                      const struct sac_tensor *whole, int slice, bool in, struct sac_error *err)
{
    size_t bytes = sac_tensor_bytes(&part->shape, part->form.type);
    char *there = (char *)whole->data + (size_t)slice * bytes;

    return plan->device->table->copy(plan->stream, SAC_COPY_ON_DEVICE, in ? part->data : there,
                                     in ? there : part->data, bytes, err);
}

static int forward_slices(struct sac_plan *plan, struct sac_error *err)
{
    int rc = 0;

    for (int s = 0; s < plan->slices && rc == 0; s++) {
        for (int i = 0; i < plan->input_count && rc == 0; i++)
            rc = copy_slice(plan, &plan->inputs[i], &plan->whole.inputs[i], s, true, err);
        if (rc == 0)
            rc = forward_steps(plan, err);
        for (int i = 0; i < plan->output_count && rc == 0; i++)
            rc = copy_slice(plan, &plan->outputs[i], &plan->whole.outputs[i], s, false, err);
    }
    return rc;
}

/* What cannot be recorded runs step by step, and the log says so. */
static void record(struct sac_plan *plan)
{
    const struct sac_device_table *table = plan->device->table;
    struct sac_error why = {0};
    int rc = table->record_begin(plan->stream, &why);

    if (rc == 0) {
        int enqueued = forward_steps(plan, &why);
        rc = table->record_end(plan->stream, &plan->recording, &why);
        rc = enqueued ? enqueued : rc;
    }
    if (rc == 0)
        return;
    table->recording_free(plan->recording);
    plan->recording = NULL;
    plan->records_not = true;
    sac_log(SAC_LOG_WARNING, "net %s, batch %d: runs step by step, recording failed: %s",
            plan->name, plan->batch, why.text);
}

/* The first run sets libraries up, the second is recorded, then replayed. */
int sac_plan_forward(struct sac_plan *plan, struct sac_error *err)
{
    if (plan->slices > 1)
        return forward_slices(plan, err);
    if (plan->device->table->record_begin && !plan->changes && plan->has_run &&
        !plan->records_not && !plan->recording)
        record(plan);
    if (plan->recording)
        return plan->device->table->replay(plan->recording, plan->stream, err);
    int rc = forward_steps(plan, err);
    plan->has_run |= rc == 0;
    return rc;
}

/* Weights first: a source's gradient may overwrite the result's. */
int sac_plan_backward_step(struct sac_plan *plan, int index, struct sac_error *err)
{
    assert(index >= 0 && index < plan->step_count);
    const struct sac_device_table *table = plan->device->table;
    const struct step *step = &plan->steps[index];
    int rc = 0;

    if (step->weights)
        rc = table->op_backward_weights(step->op, plan->stream, err);
    if (rc == 0 && step->data)
        rc = table->op_backward_data(step->op, plan->stream, err);
    if (rc != 0)
        sac_error_prefix(err, "net %s, layer %s, backward", plan->name, step->report.name);
    return rc;
}

int sac_plan_backward(struct sac_plan *plan, struct sac_error *err)
{
    int rc = plan->seed_values ? write_seeds(plan, err) : 0;

    for (int i = plan->step_count - 1; i >= 0 && rc == 0; i--) {
        rc = sac_plan_backward_step(plan, i, err);
        if (rc == 0 && plan->hook.after)
            rc = plan->hook.after(plan->hook.user, plan->step_count - 1 - i, err);
    }
    return rc;
}

int sac_plan_gradient_step(const struct sac_plan *plan, int param)
{
    int step = param < plan->param_count ? plan->last_step[param] : -1;

    return step < 0 ? -1 : plan->step_count - 1 - step;
}

void sac_plan_set_hook(struct sac_plan *plan, struct sac_plan_hook hook)
{
    plan->hook = hook;
}

void sac_plan_weights_changed(struct sac_plan *plan)
{
    plan->generation++;
}

void sac_plan_set_random(struct sac_plan *plan, uint64_t seed, uint64_t iteration)
{
    plan->random = (struct sac_op_random){seed, iteration};
}

int sac_plan_set_loss_scale(struct sac_plan *plan, float scale, struct sac_error *err)
{
    int rc = plan->device->table->stream_sync(plan->stream, err);

    if (rc == 0 && plan->seed_values)
        fill_seeds(plan, scale);
    return rc;
}

int sac_plan_loss_count(const struct sac_plan *plan)
{
    return plan->loss_count;
}

void sac_plan_loss(const struct sac_plan *plan, int index, struct sac_plan_loss *ret)
{
    assert(index >= 0 && index < plan->loss_count);
    *ret = plan->losses[index];
}

int sac_plan_loss_sum(struct sac_plan *plan, double *ret, struct sac_error *err)
{
    const struct sac_device_table *table = plan->device->table;
    double total = 0;
    int rc = 0;

    for (int i = 0; i < plan->loss_count && rc == 0; i++) {
        const struct sac_plan_loss *loss = &plan->losses[i];
        size_t count = (size_t)sac_shape_count(&loss->value.shape);
        double sum = 0;
        rc = table->copy(plan->stream, SAC_COPY_TO_HOST, plan->loss_values, loss->value.data,
                         count * sizeof(float), err);
        if (rc == 0)
            rc = table->stream_sync(plan->stream, err);
        for (size_t k = 0; k < count && rc == 0; k++)
            sum += plan->loss_values[k];
        total += sum * (double)loss->weight;
    }
    if (rc == 0)
        *ret = total;
    return rc;
}

int sac_plan_step_count(const struct sac_plan *plan)
{
    return plan->step_count;
}

void sac_plan_step(const struct sac_plan *plan, int index, struct sac_plan_step *ret)
{
    assert(index >= 0 && index < plan->step_count);
    *ret = plan->steps[index].report;
}
