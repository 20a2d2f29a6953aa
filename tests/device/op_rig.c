#include "device/op_cases.h"

#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/f16.h"

struct sac_op_rig {
    struct sac_device *device;
    struct sac_op_case what;
    struct sac_op_rig_options options;
    struct sac_graph *graph;
    struct sac_store *store, *own_store;
    struct sac_stream *stream;
    struct sac_op *op;
    struct sac_op_caps caps;
    struct sac_tensor src[SAC_CASE_VALUES_MAX], dst[SAC_CASE_VALUES_MAX], sum;
    float *plain[SAC_CASE_VALUES_MAX + 1]; /* the sources; the sum last */
    float *weight[SAC_NODE_WEIGHTS_MAX];
    void *workspace, *saved;
    /* Training. Masters and their gradients as the device sees them: the host's own where
     * its memory is the host's, else copies that are brought there and back by each run. */
    float *master_at[SAC_NODE_WEIGHTS_MAX], *grad_at[SAC_NODE_WEIGHTS_MAX];
    struct sac_tensor src_grad[SAC_CASE_VALUES_MAX], dst_grad[SAC_CASE_VALUES_MAX];
    float *plain_grad[SAC_CASE_VALUES_MAX]; /* of the results */
    float *weight_grad[SAC_NODE_WEIGHTS_MAX];
    uint64_t generation;
    struct sac_op_random random;
};

/* A number of [-1, 1) with 7 bits: exact in bf16. */
static float number(uint32_t seed)
{
    seed ^= seed >> 16;
    seed *= 0x7feb352du;
    seed ^= seed >> 15;
    seed *= 0x846ca68bu;
    seed ^= seed >> 16;
    return (float)(seed >> 24) / 128 - 1;
}

static struct sac_shape batched(const struct sac_op_rig *rig, struct sac_shape shape)
{
    if (shape.rank > 0 && shape.dim[0] == 0)
        shape.dim[0] = rig->options.batch;
    return shape;
}

/* Numbers depend on the place within a picture, and on the picture unless all
 * are the same. Pixels are whole numbers of 0 … 255, statistics positive. */
static float *numbers(const struct sac_op_rig *rig, const struct sac_shape *shape, uint32_t seed,
                      bool weight)
{
    size_t count = (size_t)sac_shape_count(shape);
    size_t picture = weight || shape->dim[0] == 0 ? count : count / (size_t)shape->dim[0];
    float *out = malloc((count ? count : 1) * sizeof *out);

    for (size_t i = 0; out && i < count; i++) {
        size_t at = rig->options.same_pictures && !weight ? i % picture : i;
        out[i] = number((uint32_t)at * 2654435761u + seed * 40503u);
        if (rig->what.kind == SAC_OP_PIXELS && !weight)
            out[i] = (out[i] + 1) * 128;
        if (rig->what.kind == SAC_OP_BATCHNORM && weight)
            out[i] = out[i] < 0 ? .5f - out[i] : .5f + out[i];
    }
    return out;
}

/* Steps of 1/16 in a mixed order, none of them within 1/32 of 0. */
static void spread(float *numbers, size_t count, size_t first)
{
    size_t prime = 1009;

    for (size_t i = 0; i < count; i++)
        numbers[i] = ((float)((i + first) * 389 % prime) - (float)(prime / 2) + .5f) / 16;
}

static void make_special(const struct sac_op_rig *rig, int index, const struct sac_shape *shape)
{
    size_t count = (size_t)sac_shape_count(shape);

    if (rig->what.spread)
        spread(rig->plain[index], count, (size_t)index * count);
    for (size_t i = 0; rig->what.labels > 0 && index == 1 && i < count; i++)
        rig->plain[1][i] = (float)(i * 7 % (size_t)rig->what.labels);
}

static int64_t offset_of(const struct sac_tensor *t, int64_t flat)
{
    int64_t at = 0;

    for (int axis = t->shape.rank - 1; axis >= 0; axis--) {
        at += flat % t->shape.dim[axis] * t->stride[axis];
        flat /= t->shape.dim[axis];
    }
    return at;
}

/* How many elements a tensor, or a view, spans. */
static size_t span_of(const struct sac_tensor *t)
{
    int64_t last = 0;

    for (int axis = 0; axis < t->shape.rank; axis++)
        last += (t->shape.dim[axis] - 1) * t->stride[axis];
    return (size_t)last + 1;
}

static void put(const struct sac_tensor *t, char *host, const float *plain)
{
    int64_t elements = sac_shape_count(&t->shape);

    for (int64_t i = 0; i < elements; i++) {
        int64_t at = offset_of(t, i);
        if (t->form.type == SAC_F32)
            ((float *)host)[at] = plain[i];
        else if (t->form.type == SAC_BF16)
            ((uint16_t *)host)[at] = sac_bf16_from_float(plain[i]);
        else if (t->form.type == SAC_F16)
            ((uint16_t *)host)[at] = sac_f16_from_float(plain[i]);
        else
            ((uint8_t *)host)[at] = (uint8_t)plain[i];
    }
}

static int upload(struct sac_op_rig *rig, const struct sac_tensor *t, const float *plain,
                  struct sac_error *err)
{
    const struct sac_device_table *table = rig->device->table;
    size_t bytes = span_of(t) * sac_type_bytes(t->form.type);
    void *host = NULL;
    int rc = table->memory_new(rig->device, SAC_MEMORY_STAGING, bytes, &host, err);

    if (rc == 0) {
        memset(host, 0, bytes);
        put(t, host, plain);
        rc = table->copy(rig->stream, SAC_COPY_TO_DEVICE, t->data, host, bytes, err);
    }
    if (rc == 0)
        rc = table->stream_sync(rig->stream, err);
    table->memory_free(rig->device, SAC_MEMORY_STAGING, host);
    return rc;
}

static int new_tensor(struct sac_op_rig *rig, struct sac_tensor *t, const struct sac_shape *shape,
                      struct sac_form form, bool strided, struct sac_error *err)
{
    *t = sac_tensor_of(shape, form);
    if (strided) { /* as the part of a value with 5 more channels (or columns) */
        struct sac_shape longer = *shape;
        longer.dim[shape->rank > 1 ? 1 : 0] += 5;
        memcpy(t->stride, sac_tensor_of(&longer, form).stride, sizeof t->stride);
    }
    return rig->device->table->memory_new(rig->device, SAC_MEMORY_DEVICE,
                                          span_of(t) * sac_type_bytes(form.type), &t->data, err);
}

static int build_graph(struct sac_op_rig *rig, struct sac_error *err)
{
    const struct sac_op_case *what = &rig->what;
    int rc = sac_graph_new(&rig->graph, err);
    struct sac_node *node;

    if (rc != 0)
        return rc;
    node = sac_graph_add_node(rig->graph, what->kind, what->name, what->src_count, what->dst_count);
    node->param = what->param;
    node->epilogue.relu = what->relu;
    node->epilogue.slope = what->slope;
    for (int i = 0; i < what->src_count; i++) {
        struct sac_shape shape = batched(rig, what->src[i]);
        node->src[i] = sac_graph_add_value(rig->graph, "src", &shape);
        rig->plain[i] = numbers(rig, &shape, (uint32_t)i + 1, false);
        make_special(rig, i, &shape);
    }
    for (int i = 0; i < what->dst_count; i++) {
        struct sac_shape shape = batched(rig, what->dst[i]);
        node->dst[i] = sac_graph_add_value(rig->graph, "dst", &shape);
    }
    if (what->sum) {
        struct sac_shape shape = batched(rig, what->dst[0]);
        node->epilogue.sum = sac_graph_add_value(rig->graph, "sum", &shape);
        rig->plain[SAC_CASE_VALUES_MAX] = numbers(rig, &shape, 77, false);
    }
    node->weight_count = what->weight_count;
    if (rig->options.ops.training) {
        node->src_grad = sac_arena_zalloc(rig->graph->arena, SAC_CASE_VALUES_MAX, sizeof(bool));
        for (int i = 0; i < what->src_count; i++)
            node->src_grad[i] = sac_node_gives_gradient(node, i);
        for (int i = 0; i < what->weight_count; i++)
            node->weight_grad[i] = what->kind != SAC_OP_BATCHNORM || i >= 3;
    }
    for (int i = 0; i < what->weight_count; i++) {
        char name[] = "weight 0";
        name[7] = (char)('0' + i);
        rig->weight[i] = numbers(rig, &what->weight[i], (uint32_t)i + 11, true);
        node->weight[i] =
            sac_graph_add_constant(rig->graph, name, &what->weight[i], rig->weight[i]);
    }
    return 0;
}

/* As a plan does: sources have the forms that the operation asked for. */
static int query(struct sac_op_rig *rig, struct sac_error *err)
{
    const struct sac_node *node = &rig->graph->nodes[0];
    enum sac_precision precision = rig->options.ops.precision;
    enum sac_type type = precision == SAC_PRECISION_BF16  ? SAC_BF16
                         : precision == SAC_PRECISION_F16 ? SAC_F16
                                                          : SAC_F32;
    int rc;

    for (int i = 0; i < node->src_count; i++)
        rig->graph->values[node->src[i]].form.type = type;
    if (node->kind == SAC_OP_CONVERT)
        rig->graph->values[node->dst[0]].form = (struct sac_form){type, SAC_CHANNELS_LAST};
    rc = rig->device->table->op_query(rig->device, rig->graph, node, &rig->options.ops, &rig->caps,
                                      err);
    if (rc == 0 && rig->options.in_place && !rig->caps.in_place)
        rc = sac_fail(err, SAC_EUNSUPPORTED, "%s: not in place", node->name);
    if (rc == 0 && rig->options.strided_dst && !rig->caps.strided_dst)
        rc = sac_fail(err, SAC_EUNSUPPORTED, "%s: no strided results", node->name);
    return rc;
}

static size_t weight_bytes(const struct sac_op_rig *rig, int index)
{
    return (size_t)sac_shape_count(&rig->what.weight[index]) * sizeof(float);
}

static int make_master(struct sac_op_rig *rig, int index, struct sac_error *err)
{
    const struct sac_device_table *table = rig->device->table;
    size_t bytes = weight_bytes(rig, index);

    rig->master_at[index] = rig->weight[index];
    rig->grad_at[index] = rig->weight_grad[index];
    if (rig->device->info.host_memory)
        return 0;
    rig->master_at[index] = rig->grad_at[index] = NULL;
    int rc = table->memory_new(rig->device, SAC_MEMORY_DEVICE, bytes,
                               (void **)&rig->master_at[index], err);
    return rc ? rc
              : table->memory_new(rig->device, SAC_MEMORY_DEVICE, bytes,
                                  (void **)&rig->grad_at[index], err);
}

/* A weight's numbers to the device, or back. */
static int move_numbers(struct sac_op_rig *rig, float *device, float *host, size_t bytes, bool to,
                        struct sac_error *err)
{
    const struct sac_device_table *table = rig->device->table;
    void *staging = NULL;
    int rc = 0;

    if (device == host)
        return 0;
    rc = table->memory_new(rig->device, SAC_MEMORY_STAGING, bytes, &staging, err);
    if (rc == 0 && to)
        memcpy(staging, host, bytes);
    if (rc == 0)
        rc = to ? table->copy(rig->stream, SAC_COPY_TO_DEVICE, device, staging, bytes, err)
                : table->copy(rig->stream, SAC_COPY_TO_HOST, staging, device, bytes, err);
    if (rc == 0)
        rc = table->stream_sync(rig->stream, err);
    if (rc == 0 && !to)
        memcpy(host, staging, bytes);
    table->memory_free(rig->device, SAC_MEMORY_STAGING, staging);
    return rc;
}

static int move_masters(struct sac_op_rig *rig, bool to, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && rig->options.ops.training && i < rig->what.weight_count; i++)
        rc = move_numbers(rig, rig->master_at[i], rig->weight[i], weight_bytes(rig, i), to, err);
    return rc;
}

static int make_gradients(struct sac_op_rig *rig, struct sac_error *err)
{
    const struct sac_node *node = &rig->graph->nodes[0];
    int rc = 0;

    for (int i = 0; rc == 0 && i < node->src_count; i++)
        if (sac_node_gives_gradient(node, i))
            rc = new_tensor(rig, &rig->src_grad[i], &rig->src[i].shape, rig->caps.src, false, err);
    for (int i = 0; rc == 0 && i < node->dst_count; i++) {
        rig->plain_grad[i] = numbers(rig, &rig->dst[i].shape, (uint32_t)i + 31, true);
        rc = new_tensor(rig, &rig->dst_grad[i], &rig->dst[i].shape, rig->caps.dst, false, err);
        if (rc == 0)
            rc = upload(rig, &rig->dst_grad[i], rig->plain_grad[i], err);
    }
    for (int i = 0; rc == 0 && i < node->weight_count; i++) {
        rig->weight_grad[i] = calloc((size_t)sac_shape_count(&rig->what.weight[i]), sizeof(float));
        rc = make_master(rig, i, err);
    }
    return rc;
}

static int make_tensors(struct sac_op_rig *rig, struct sac_error *err)
{
    const struct sac_node *node = &rig->graph->nodes[0];
    int rc = 0;

    for (int i = 0; rc == 0 && i < node->src_count; i++)
        rc = new_tensor(rig, &rig->src[i], &rig->graph->values[node->src[i]].shape, rig->caps.src,
                        false, err);
    for (int i = 0; rc == 0 && i < node->dst_count; i++) {
        const struct sac_shape *shape = &rig->graph->values[node->dst[i]].shape;
        rc = new_tensor(rig, &rig->dst[i], shape, rig->caps.dst, rig->options.strided_dst, err);
        if (rc == 0 && rig->options.in_place && i == 0) {
            rig->device->table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->dst[0].data);
            rig->dst[0].data = rig->src[0].data;
        }
    }
    if (rc == 0 && rig->what.sum && rig->options.sum_in_place)
        rig->sum = rig->dst[0];
    else if (rc == 0 && rig->what.sum)
        rc = new_tensor(rig, &rig->sum, &rig->graph->values[node->epilogue.sum].shape,
                        rig->caps.dst, false, err);
    if (rc == 0 && rig->options.ops.training)
        rc = make_gradients(rig, err);
    if (rc == 0 && rig->caps.saved_bytes > 0)
        rc = rig->device->table->memory_new(rig->device, SAC_MEMORY_DEVICE, rig->caps.saved_bytes,
                                            &rig->saved, err);
    if (rc == 0 && rig->caps.workspace_bytes > 0)
        rc = rig->device->table->memory_new(rig->device, SAC_MEMORY_DEVICE,
                                            rig->caps.workspace_bytes, &rig->workspace, err);
    return rc;
}

static int prepare(struct sac_op_rig *rig, struct sac_error *err)
{
    struct sac_binding binding = {.src = rig->src,
                                  .dst = rig->dst,
                                  .sum = rig->sum,
                                  .workspace = rig->workspace,
                                  .workspace_bytes =
                                      rig->caps.workspace_bytes - rig->options.workspace_short};
    int rc = 0;

    if (rig->options.ops.training) {
        binding.saved = rig->saved;
        binding.src_grad = rig->src_grad;
        binding.dst_grad = rig->dst_grad;
        binding.weight_grad = rig->grad_at;
        binding.weight = rig->master_at;
        binding.generation = &rig->generation;
        binding.random = &rig->random;
    }
    if (!rig->options.store)
        rc = rig->device->table->store_new(rig->device, &rig->own_store, err);
    rig->store = rig->options.store ? rig->options.store : rig->own_store;
    if (rc == 0)
        rc = rig->device->table->op_prepare(rig->device, rig->store, rig->graph,
                                            &rig->graph->nodes[0], &rig->options.ops, &binding,
                                            &rig->op, err);
    return rc;
}

int sac_op_rig_new(struct sac_op_rig **ret, struct sac_device *device,
                   const struct sac_op_case *what, const struct sac_op_rig_options *options,
                   struct sac_error *err)
{
    struct sac_op_rig *rig = calloc(1, sizeof *rig);
    int rc = rig ? 0 : sac_fail(err, SAC_ENOMEM, "a rig: out of memory");

    if (rc == 0) {
        rig->device = device;
        rig->what = *what;
        rig->options = *options;
        rc = device->table->stream_new(device, &rig->stream, err);
    }
    if (rc == 0)
        rc = build_graph(rig, err);
    if (rc == 0)
        rc = query(rig, err);
    if (rc == 0)
        rc = make_tensors(rig, err);
    if (rc == 0)
        rc = prepare(rig, err);
    if (rc == 0) {
        *ret = rig;
        rig = NULL;
    }
    sac_op_rig_free(rig);
    return rc;
}

void sac_op_rig_free(struct sac_op_rig *rig)
{
    const struct sac_device_table *table = rig ? rig->device->table : NULL;

    if (!rig)
        return;
    table->op_free(rig->op);
    table->store_free(rig->own_store);
    if (rig->options.in_place)
        rig->dst[0].data = NULL;
    if (rig->options.sum_in_place)
        rig->sum.data = NULL;
    for (int i = 0; i < SAC_CASE_VALUES_MAX; i++) {
        table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->src[i].data);
        table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->dst[i].data);
        table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->src_grad[i].data);
        table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->dst_grad[i].data);
        free(rig->plain_grad[i]);
    }
    for (int i = 0; i < SAC_NODE_WEIGHTS_MAX; i++) {
        if (rig->master_at[i] != rig->weight[i])
            table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->master_at[i]);
        if (rig->grad_at[i] != rig->weight_grad[i])
            table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->grad_at[i]);
        free(rig->weight_grad[i]);
    }
    table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->saved);
    table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->sum.data);
    table->memory_free(rig->device, SAC_MEMORY_DEVICE, rig->workspace);
    for (int i = 0; i <= SAC_CASE_VALUES_MAX; i++)
        free(rig->plain[i]);
    for (int i = 0; i < SAC_NODE_WEIGHTS_MAX; i++)
        free(rig->weight[i]);
    sac_graph_free(rig->graph);
    table->stream_free(rig->stream);
    free(rig);
}

const struct sac_op_caps *sac_op_rig_caps(const struct sac_op_rig *rig)
{
    return &rig->caps;
}

int sac_op_rig_forward(struct sac_op_rig *rig, struct sac_error *err)
{
    int rc = rig->device->table->op_forward(rig->op, rig->stream, err);

    return rc ? rc : rig->device->table->stream_sync(rig->stream, err);
}

int sac_op_rig_run(struct sac_op_rig *rig, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < rig->what.src_count; i++)
        rc = upload(rig, &rig->src[i], rig->plain[i], err);
    if (rc == 0 && rig->what.sum)
        rc = upload(rig, &rig->sum, rig->plain[SAC_CASE_VALUES_MAX], err);
    if (rc == 0)
        rc = move_masters(rig, true, err);
    if (rc == 0)
        rc = sac_op_rig_forward(rig, err);
    return rc ? rc : move_masters(rig, false, err); /* batch norm keeps running sums there */
}

static void fetch(const struct sac_tensor *t, const char *host, int64_t i, float *out)
{
    int64_t at = offset_of(t, i);

    if (t->form.type == SAC_TOPK_PAIR) {
        out[2 * i] = (float)((const struct sac_topk_pair *)host)[at].index;
        out[2 * i + 1] = ((const struct sac_topk_pair *)host)[at].value;
    } else if (t->form.type == SAC_F32) {
        out[i] = ((const float *)host)[at];
    } else if (t->form.type == SAC_F16) {
        out[i] = sac_f16_to_float(((const uint16_t *)host)[at]);
    } else {
        out[i] = sac_bf16_to_float(((const uint16_t *)host)[at]);
    }
}

static float *download(struct sac_op_rig *rig, const struct sac_tensor *t, size_t *ret_count)
{
    const struct sac_device_table *table = rig->device->table;
    int64_t elements = sac_shape_count(&t->shape);
    size_t bytes = span_of(t) * sac_type_bytes(t->form.type);
    float *out = malloc((size_t)elements * 2 * sizeof *out);
    void *host = NULL;

    if (!out || table->memory_new(rig->device, SAC_MEMORY_STAGING, bytes, &host, NULL) != 0 ||
        table->copy(rig->stream, SAC_COPY_TO_HOST, host, t->data, bytes, NULL) != 0 ||
        table->stream_sync(rig->stream, NULL) != 0)
        abort();
    for (int64_t i = 0; i < elements; i++)
        fetch(t, host, i, out);
    *ret_count = (size_t)elements * (t->form.type == SAC_TOPK_PAIR ? 2 : 1);
    table->memory_free(rig->device, SAC_MEMORY_STAGING, host);
    return out;
}

float *sac_op_rig_result(struct sac_op_rig *rig, int index, size_t *ret_count)
{
    return download(rig, &rig->dst[index], ret_count);
}

float *sac_op_rig_source_numbers(struct sac_op_rig *rig, int index)
{
    return rig->plain[index];
}

size_t sac_op_rig_source_count(const struct sac_op_rig *rig, int index)
{
    return (size_t)sac_shape_count(&rig->src[index].shape);
}

float *sac_op_rig_master(struct sac_op_rig *rig, int index, size_t *ret_count)
{
    *ret_count = (size_t)sac_shape_count(&rig->what.weight[index]);
    return rig->weight[index];
}

void sac_op_rig_masters_changed(struct sac_op_rig *rig)
{
    rig->generation++;
}

const float *sac_op_rig_result_gradient(const struct sac_op_rig *rig, int index)
{
    return rig->plain_grad[index];
}

int sac_op_rig_backward(struct sac_op_rig *rig, struct sac_error *err)
{
    const struct sac_device_table *table = rig->device->table;
    const struct sac_node *node = &rig->graph->nodes[0];
    bool gives = node->weight_count > (node->kind == SAC_OP_BATCHNORM ? 3 : 0);
    int rc = 0;

    for (int i = 0; rc == 0 && i < node->weight_count; i++) {
        memset(rig->weight_grad[i], 0, weight_bytes(rig, i));
        rc = move_numbers(rig, rig->grad_at[i], rig->weight_grad[i], weight_bytes(rig, i), true,
                          err);
    }
    if (rc == 0 && gives)
        rc = table->op_backward_weights(rig->op, rig->stream, err);
    if (rc == 0)
        rc = table->op_backward_data(rig->op, rig->stream, err);
    if (rc == 0)
        rc = table->stream_sync(rig->stream, err);
    for (int i = 0; rc == 0 && i < node->weight_count; i++)
        rc = move_numbers(rig, rig->grad_at[i], rig->weight_grad[i], weight_bytes(rig, i), false,
                          err);
    return rc;
}

float *sac_op_rig_source_gradient(struct sac_op_rig *rig, int index)
{
    size_t count;

    return rig->src_grad[index].data ? download(rig, &rig->src_grad[index], &count) : NULL;
}

const float *sac_op_rig_weight_gradient(struct sac_op_rig *rig, int index)
{
    return rig->weight_grad[index];
}

float *sac_op_rig_source(const struct sac_op_rig *rig, int index)
{
    size_t bytes = (size_t)sac_shape_count(&rig->src[index].shape) * sizeof(float);
    float *out = malloc(bytes);

    if (!out)
        abort();
    return memcpy(out, rig->plain[index], bytes);
}

const float *sac_op_rig_weight(const struct sac_op_rig *rig, int index)
{
    return rig->weight[index];
}
