#include "device/cpu/onednn.h"

#ifndef SAC_HAVE_ONEDNN

static bool can(const struct sac_cpu_ask *ask)
{
    (void)ask;
    return false;
}

const struct sac_cpu_kernel sac_cpu_onednn = {.name = "oneDNN", .can = can};
const struct sac_cpu_kernel sac_cpu_winograd = {.name = "oneDNN", .can = can};
const struct sac_cpu_backward sac_cpu_backward_onednn = {.name = "oneDNN", .can = can};
const struct sac_cpu_kernel sac_cpu_matmul = {.name = "oneDNN", .can = can};
const struct sac_cpu_backward sac_cpu_backward_matmul = {.name = "oneDNN", .can = can};

const char *sac_cpu_onednn_version(void)
{
    return "no oneDNN";
}

bool sac_cpu_onednn_is_there(void)
{
    return false;
}

#else

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/forms.h"
#include "device/cpu/loops.h"
#include "device/cpu/onednn_problem.h"

/* The layout of packed weights is asked for at this batch, whatever the batch
 * that runs: so all batch sizes of a model share one copy. */
enum { LAYOUT_BATCH = 8 };

dnnl_engine_t sac_onednn_engine;

static void make_engine(void)
{
    if (dnnl_engine_create(&sac_onednn_engine, dnnl_cpu, 0) != dnnl_success)
        sac_onednn_engine = NULL;
}

bool sac_onednn_have_engine(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_engine);
    return sac_onednn_engine != NULL;
}

bool sac_cpu_onednn_is_there(void)
{
    return sac_onednn_have_engine();
}

const char *sac_cpu_onednn_version(void)
{
    static char text[32];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const dnnl_version_t *version = dnnl_version();

    pthread_mutex_lock(&lock);
    if (!text[0]) /* once: others read it */
        snprintf(text, sizeof text, "oneDNN %d.%d.%d", version->major, version->minor,
                 version->patch);
    pthread_mutex_unlock(&lock);
    return text;
}

int sac_onednn_fail(struct sac_error *err, const char *name, const char *what, dnnl_status_t status)
{
    return sac_fail(err, status == dnnl_out_of_memory ? SAC_ENOMEM : SAC_EDEVICE,
                    "%s: oneDNN could not %s (status %d)", name, what, (int)status);
}

/* Names of implementations, kept for reports: there are few, and they live as
 * long as the program. */
const char *sac_onednn_intern(const char *impl)
{
    enum { NAMES_MAX = 64 };
    static char *names[NAMES_MAX];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const char *out = "oneDNN";
    char full[128];

    snprintf(full, sizeof full, "oneDNN %s", impl);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < NAMES_MAX; i++) {
        if (!names[i])
            names[i] = strdup(full);
        if (names[i] && strcmp(names[i], full) == 0) {
            out = names[i];
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return out;
}

static dnnl_data_type_t type_of(enum sac_type type)
{
    switch (type) {
    case SAC_BF16:
        return dnnl_bf16;
    case SAC_U8:
        return dnnl_u8;
    case SAC_S8:
        return dnnl_s8;
    default:
        return dnnl_f32;
    }
}

/* A row-major descriptor, or with axis 1 innermost. */
static bool image(dnnl_memory_desc_t *md, const struct sac_shape *shape, int64_t batch,
                  enum sac_type type)
{
    dnnl_dims_t dims = {batch, shape->dim[1], shape->dim[2], shape->dim[3]};

    return dnnl_memory_desc_init_by_tag(md, 4, dims, type_of(type), dnnl_nhwc) == dnnl_success;
}

static bool rows(dnnl_memory_desc_t *md, int64_t count, int64_t columns, enum sac_type type)
{
    dnnl_dims_t dims = {count, columns};

    return dnnl_memory_desc_init_by_tag(md, 2, dims, type_of(type), dnnl_nc) == dnnl_success;
}

static bool vector(dnnl_memory_desc_t *md, int64_t count)
{
    dnnl_dims_t dims = {count};

    return dnnl_memory_desc_init_by_tag(md, 1, dims, dnnl_f32, dnnl_a) == dnnl_success;
}

/* oneDNN's filters are [group,] out, in, kh, kw; the last pad may be negative or
 * more than the first where strides leave a rest. */
static bool describe_window(struct sac_onednn_problem *p, const struct sac_shape *src,
                            const struct sac_shape *dst)
{
    const struct sac_window *w = &p->node->param.conv.window;
    int64_t group = p->node->param.conv.group;
    bool deconv = p->node->kind == SAC_OP_DECONV;
    dnnl_format_tag_t tag =
        group > 1 ? (deconv ? dnnl_giohw : dnnl_goihw) : (deconv ? dnnl_iohw : dnnl_oihw);
    int at = 0;

    for (int way = 0; way < 2; way++) {
        const struct sac_shape *large = deconv ? dst : src, *small = deconv ? src : dst;
        int64_t reach = (w->kernel[way] - 1) * w->dilation[way] + 1;
        p->stride[way] = w->stride[way];
        p->dilation[way] = w->dilation[way] - 1;
        p->pad_before[way] = w->pad[way];
        p->pad_after[way] =
            (small->dim[2 + way] - 1) * w->stride[way] + reach - large->dim[2 + way] - w->pad[way];
    }
    if (group > 1)
        p->weight_dims[at++] = group;
    p->weight_dims[at++] = dst->dim[1] / group;
    p->weight_dims[at++] = src->dim[1] / group;
    p->weight_dims[at++] = w->kernel[0];
    p->weight_dims[at++] = w->kernel[1];
    p->weight_rank = at;
    return dnnl_memory_desc_init_by_tag(&p->plain, at, p->weight_dims, dnnl_f32, tag) ==
           dnnl_success;
}

/* A channels-last picture is a row of H · W · C numbers: its weights are put in
 * that order when they are packed. */
bool sac_onednn_inner_of_image(const struct sac_node *node, const struct sac_shape *src)
{
    return node->param.inner.axis == 1 && src->rank == 4 && src->dim[2] * src->dim[3] > 1;
}

static bool describe_inner(struct sac_onednn_problem *p, const struct sac_shape *src, int64_t out)
{
    int axis = p->node->param.inner.axis;
    int64_t in = sac_shape_count_between(src, axis, src->rank);
    bool transpose = p->node->param.inner.transpose && !sac_onednn_inner_of_image(p->node, src);
    dnnl_dims_t strides = {transpose ? 1 : in, transpose ? out : 1};

    p->weight_rank = 2;
    p->weight_dims[0] = out;
    p->weight_dims[1] = in;
    return dnnl_memory_desc_init_by_strides(&p->plain, 2, p->weight_dims, dnnl_f32, strides) ==
           dnnl_success;
}

/* `batch` stands for axis 0 (or for the rows) of source and result. */
bool sac_onednn_describe(struct sac_onednn_problem *p, const struct sac_cpu_ask *ask,
                         enum sac_type dst_type, int64_t batch)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *src = &ask->graph->values[node->src[0]].shape;
    const struct sac_shape *dst = &ask->graph->values[node->dst[0]].shape;
    int64_t out = dst->dim[dst->rank - 1];
    enum sac_type src_type = ask->type;

    *p = (struct sac_onednn_problem){.node = node, .type = type_of(ask->type), .outputs = out};
    if (node->eight_bits) {
        src_type = sac_value_eight(&ask->graph->values[node->src[0]], 0).type;
        p->type = dnnl_s8;
    }
    if (node->epilogue.sum >= 0)
        p->sum_type = type_of(sac_type_is_eight(dst_type)
                                  ? sac_value_eight(&ask->graph->values[node->epilogue.sum], 0).type
                                  : dst_type);
    if (node->kind == SAC_OP_INNER) {
        int64_t in = sac_shape_count_between(src, node->param.inner.axis, src->rank);
        return rows(&p->src, batch, in, src_type) && rows(&p->dst, batch, out, dst_type) &&
               describe_inner(p, src, out) && (node->weight_count < 2 || vector(&p->bias, out));
    }
    if (src->rank != 4)
        return false;
    p->outputs = dst->dim[1];
    return image(&p->src, src, batch, src_type) && image(&p->dst, dst, batch, dst_type) &&
           describe_window(p, src, dst) &&
           (node->weight_count < 2 || vector(&p->bias, dst->dim[1]));
}

/* The batch that a problem has: pictures, or the rows of an inner product. */
int64_t sac_onednn_batch_of(const struct sac_cpu_ask *ask)
{
    const struct sac_shape *src = sac_cpu_src_shape(ask);

    return ask->node->kind == SAC_OP_INNER
               ? sac_shape_count_between(src, 0, ask->node->param.inner.axis)
               : src->dim[0];
}

/* One factor an output; before they are known, as many ones. */
static dnnl_status_t set_scales(const struct sac_onednn_problem *p, dnnl_primitive_attr_t attr)
{
    float *ones = p->scales ? NULL : malloc((size_t)p->outputs * sizeof *ones);
    dnnl_status_t status = dnnl_out_of_memory;

    for (int64_t o = 0; ones && o < p->outputs; o++)
        ones[o] = 1;
    if (ones || p->scales)
        status = dnnl_primitive_attr_set_output_scales(attr, p->outputs, 1 << 1,
                                                       p->scales ? p->scales : ones);
    free(ones);
    return status;
}

dnnl_status_t sac_onednn_make_attr(const struct sac_onednn_problem *p, dnnl_primitive_attr_t *ret)
{
    const struct sac_epilogue *epilogue = &p->node->epilogue;
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);

    if (status != dnnl_success)
        return status;
    status = dnnl_post_ops_create(&ops);
    if (status == dnnl_success && p->node->eight_bits)
        status = set_scales(p, attr);
    if (status == dnnl_success && epilogue->sum >= 0)
        status = dnnl_post_ops_append_sum_v2(ops, p->scales ? p->sum_scale : 1, p->sum_type);
    if (status == dnnl_success && epilogue->relu)
        status = dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, epilogue->slope, 0);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(attr, ops);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    dnnl_post_ops_destroy(ops);
    if (status == dnnl_success)
        *ret = attr;
    else
        dnnl_primitive_attr_destroy(attr);
    return status;
}

union op_desc {
    dnnl_convolution_desc_t conv;
    dnnl_deconvolution_desc_t deconv;
    dnnl_inner_product_desc_t inner;
};

static dnnl_status_t make_desc(const struct sac_onednn_problem *p,
                               const dnnl_memory_desc_t *weights, union op_desc *desc)
{
    const dnnl_memory_desc_t *bias = p->node->weight_count > 1 ? &p->bias : NULL;

    switch (p->node->kind) {
    case SAC_OP_CONV:
        return dnnl_dilated_convolution_forward_desc_init(
            &desc->conv, dnnl_forward_inference, dnnl_convolution_direct, &p->src, weights, bias,
            &p->dst, p->stride, p->dilation, p->pad_before, p->pad_after);
    case SAC_OP_DECONV:
        return dnnl_dilated_deconvolution_forward_desc_init(
            &desc->deconv, dnnl_forward_inference, dnnl_deconvolution_direct, &p->src, weights,
            bias, &p->dst, p->stride, p->dilation, p->pad_before, p->pad_after);
    default:
        return dnnl_inner_product_forward_desc_init(&desc->inner, dnnl_forward_inference, &p->src,
                                                    weights, bias, &p->dst);
    }
}

const char *sac_onednn_impl_of(const_dnnl_primitive_desc_t pd)
{
    const char *name = NULL;

    if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) != dnnl_success || !name)
        return "unknown";
    return name;
}

size_t sac_onednn_scratch_bytes(const_dnnl_primitive_desc_t pd)
{
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
}

const dnnl_memory_desc_t *sac_onednn_weights_of(const_dnnl_primitive_desc_t pd)
{
    return dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
}

/* References are what our loops are. A convolution that oneDNN runs as an inner
 * product is another gemm for each batch size, with other roundings. */
static bool is_wanted(const struct sac_onednn_problem *p, const_dnnl_primitive_desc_t pd)
{
    const char *impl = sac_onednn_impl_of(pd);

    return !strstr(impl, "ref") && !(p->node->kind == SAC_OP_CONV && strncmp(impl, "ip", 2) == 0);
}

static dnnl_primitive_desc_t first_wanted(const struct sac_onednn_problem *p,
                                          const union op_desc *desc,
                                          const_dnnl_primitive_attr_t attr)
{
    dnnl_primitive_desc_iterator_t it;
    dnnl_primitive_desc_t pd = NULL;

    if (dnnl_primitive_desc_iterator_create(&it, desc, attr, sac_onednn_engine, NULL) !=
        dnnl_success)
        return NULL;
    do {
        pd = dnnl_primitive_desc_iterator_fetch(it);
        if (pd && is_wanted(p, pd))
            break;
        dnnl_primitive_desc_destroy(pd);
        pd = NULL;
    } while (dnnl_primitive_desc_iterator_next(it) == dnnl_success);
    dnnl_primitive_desc_iterator_destroy(it);
    return pd;
}

/* oneDNN's best for the problem, or NULL. `weights` NULL: in the layout that it
 * likes. */
static dnnl_primitive_desc_t find(const struct sac_onednn_problem *p,
                                  const dnnl_memory_desc_t *weights)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr;
    dnnl_memory_desc_t any;
    union op_desc desc;

    if (!weights) {
        if (dnnl_memory_desc_init_by_tag(&any, p->weight_rank, p->weight_dims, p->type,
                                         dnnl_format_tag_any) != dnnl_success)
            return NULL;
        weights = &any;
    }
    if (sac_onednn_make_attr(p, &attr) != dnnl_success)
        return NULL;
    if (make_desc(p, weights, &desc) == dnnl_success)
        pd = first_wanted(p, &desc, attr);
    dnnl_primitive_attr_destroy(attr);
    return pd;
}

/* The primitive for the node as it is, with weights in the layout that all
 * batches share where it takes that one. */
static dnnl_primitive_desc_t choose(const struct sac_cpu_ask *ask, enum sac_type dst_type,
                                    const struct sac_onednn_eight *eight,
                                    struct sac_onednn_problem *p)
{
    struct sac_onednn_problem usual;
    dnnl_primitive_desc_t shared = NULL, pd = NULL;

    if (!sac_onednn_have_engine() ||
        !sac_onednn_describe(p, ask, dst_type, sac_onednn_batch_of(ask)))
        return NULL;
    if (eight) {
        p->scales = eight->scales;
        p->sum_scale = eight->sum_scale;
    }
    if (sac_onednn_describe(&usual, ask, dst_type, LAYOUT_BATCH))
        shared = find(&usual, NULL);
    if (shared)
        pd = find(p, sac_onednn_weights_of(shared));
    if (!pd)
        pd = find(p, NULL);
    dnnl_primitive_desc_destroy(shared);
    return pd;
}

static bool can(const struct sac_cpu_ask *ask)
{
    struct sac_onednn_problem p;
    struct sac_op_caps forms = {0};

    sac_usual_forms(ask->graph, ask->node, ask->type, ask->options->training, &forms);
    dnnl_primitive_desc_t pd = choose(ask, forms.dst.type, NULL, &p);
    bool found = pd != NULL;

    dnnl_primitive_desc_destroy(pd);
    return found;
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    struct sac_onednn_problem p;
    dnnl_primitive_desc_t pd = choose(ask, caps->dst.type, NULL, &p);

    if (!pd)
        return sac_onednn_fail(err, ask->node->name, "find an implementation again",
                               dnnl_unimplemented);
    caps->workspace_bytes = sac_onednn_scratch_bytes(pd);
    caps->kernel = sac_onednn_intern(sac_onednn_impl_of(pd));
    dnnl_primitive_desc_destroy(pd);
    return 0;
}

/* Packing: a reorder from Caffe's order, whatever the types. */

struct packing {
    const struct sac_onednn_problem *problem;
    const dnnl_memory_desc_t *to;
    const float *from;
};

int sac_onednn_reorder(const dnnl_memory_desc_t *from_layout, const void *from_data,
                       const dnnl_memory_desc_t *to_layout, void *to_data, const char *name,
                       struct sac_error *err)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&pd, from_layout, sac_onednn_engine,
                                                              to_layout, sac_onednn_engine, NULL);

    if (status == dnnl_success)
        status = dnnl_primitive_create(&primitive, pd);
    if (status == dnnl_success)
        status =
            dnnl_memory_create(&from, from_layout, sac_onednn_engine, (void *)(uintptr_t)from_data);
    if (status == dnnl_success)
        status = dnnl_memory_create(&to, to_layout, sac_onednn_engine, to_data);
    if (status == dnnl_success)
        status = dnnl_stream_create(&stream, sac_onednn_engine, dnnl_stream_default_flags);
    if (status == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        status = dnnl_primitive_execute(primitive, stream, 2, args);
    }
    if (status == dnnl_success)
        status = dnnl_stream_wait(stream);
    dnnl_stream_destroy(stream);
    dnnl_memory_destroy(from);
    dnnl_memory_destroy(to);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(pd);
    return status == dnnl_success ? 0 : sac_onednn_fail(err, name, "pack the weights", status);
}

static int reorder(void *data, void *context, struct sac_error *err)
{
    const struct packing *packing = context;

    return sac_onednn_reorder(&packing->problem->plain, packing->from, packing->to, data,
                              packing->problem->node->name, err);
}

/* [out][C][H · W], or transposed [C][H · W][out], to [out][H · W][C]. */
float *sac_onednn_weights_of_image(const struct sac_node *node, const struct sac_shape *src,
                                   const struct sac_constant *weight)
{
    int64_t plane = src->dim[2] * src->dim[3], channels = src->dim[1], in = plane * channels;
    int64_t out = sac_shape_count(&weight->shape) / in;
    bool transpose = node->param.inner.transpose;
    int64_t out_step = transpose ? 1 : in, in_step = transpose ? out : 1;
    float *to = malloc(sac_tensor_bytes(&weight->shape, SAC_F32));

    for (int64_t o = 0; to && o < out; o++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < plane; i++)
                to[o * in + i * channels + c] =
                    weight->data[o * out_step + (c * plane + i) * in_step];
    return to;
}

/* The context of reorder_image: the weights come through a permuted copy. */
struct image_packing {
    struct packing packing;
    const struct sac_shape *src;
    const struct sac_constant *weight;
};

static int reorder_image(void *data, void *context, struct sac_error *err)
{
    struct image_packing *image_packing = context;
    const struct sac_node *node = image_packing->packing.problem->node;
    float *permuted = sac_onednn_weights_of_image(node, image_packing->src, image_packing->weight);
    int rc;

    if (!permuted)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory to permute its weights", node->name);
    image_packing->packing.from = permuted;
    rc = reorder(data, &image_packing->packing, err);
    free(permuted);
    return rc;
}

static uint64_t hash_of(const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

int sac_onednn_pack_by(const struct sac_cpu_ask *ask, struct sac_store *store,
                       const dnnl_memory_desc_t *layout, const char *way,
                       int (*pack)(void *data, void *context, struct sac_error *err), void *context,
                       const void **ret, struct sac_error *err)
{
    struct sac_packer packer = {
        .bytes = dnnl_memory_desc_get_size(layout),
        .note = layout,
        .note_bytes = sizeof *layout,
        .pack = pack,
        .context = context,
    };
    const struct sac_packed *packed;
    char name[48];

    snprintf(name, sizeof name, "oneDNN %s%016llx", way,
             (unsigned long long)hash_of(layout, sizeof *layout));
    int rc = sac_cpu_store_pack(store, ask->graph->constants[ask->node->weight[0]].name, name,
                                &packer, &packed, err);
    if (rc == 0 && !dnnl_memory_desc_equal(packed->note, layout))
        rc = sac_fail(err, SAC_EDEVICE, "%s: two layouts of its weights look alike",
                      ask->node->name);
    if (rc == 0)
        *ret = packed->data;
    return rc;
}

int sac_onednn_pack(const struct sac_cpu_ask *ask, struct sac_store *store,
                    const struct sac_onednn_problem *p, const dnnl_memory_desc_t *layout,
                    const void **ret, struct sac_error *err)
{
    const struct sac_node *node = ask->node;
    const struct sac_shape *src = &ask->graph->values[node->src[0]].shape;
    const struct sac_constant *weight = &ask->graph->constants[node->weight[0]];
    bool is_image = node->kind == SAC_OP_INNER && sac_onednn_inner_of_image(node, src);
    struct image_packing packing = {{p, layout, weight->data}, src, weight};
    const char *way = is_image ? "HWC " : "";

    if (node->eight_bits)
        return sac_onednn_eight_pack(ask, store, p, layout, way, ret, err);
    return sac_onednn_pack_by(ask, store, layout, way, is_image ? reorder_image : reorder,
                              is_image ? (void *)&packing : &packing.packing, ret, err);
}

/* ---- Masters: packed again when they changed ---- */

struct sac_onednn_repack {
    dnnl_primitive_t reorder; /* NULL: the master is as it should be */
    dnnl_memory_t from, to;
    const float *master;
    void *packed;
    const uint64_t *current;
    uint64_t made;
    bool is_made;
    float *permuted; /* [out][H · W][C]; NULL: not of an image */
    int64_t plane, channels, out, out_step, in_step;
};

void sac_onednn_repack_free(struct sac_onednn_repack *repack)
{
    if (!repack)
        return;
    dnnl_memory_destroy(repack->from);
    dnnl_memory_destroy(repack->to);
    dnnl_primitive_destroy(repack->reorder);
    free(repack->permuted);
    if (repack->packed != repack->master)
        free(repack->packed);
    free(repack);
}

static bool make_permuted(struct sac_onednn_repack *repack, const struct sac_onednn_problem *p,
                          const struct sac_shape *src, int64_t count)
{
    int64_t in = src->dim[1] * src->dim[2] * src->dim[3];
    bool transpose = p->node->param.inner.transpose;

    repack->plane = src->dim[2] * src->dim[3];
    repack->channels = src->dim[1];
    repack->out = count / in;
    repack->out_step = transpose ? 1 : in;
    repack->in_step = transpose ? repack->out : 1;
    repack->permuted = malloc((size_t)count * sizeof(float));
    return repack->permuted;
}

static dnnl_status_t make_reorder(struct sac_onednn_repack *repack,
                                  const struct sac_onednn_problem *p,
                                  const dnnl_memory_desc_t *layout)
{
    const float *from = repack->permuted ? repack->permuted : repack->master;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&pd, &p->plain, sac_onednn_engine,
                                                              layout, sac_onednn_engine, NULL);

    if (status == dnnl_success)
        status = dnnl_primitive_create(&repack->reorder, pd);
    if (status == dnnl_success)
        status = dnnl_memory_create(&repack->from, &p->plain, sac_onednn_engine,
                                    (void *)(uintptr_t)from);
    if (status == dnnl_success)
        status = dnnl_memory_create(&repack->to, layout, sac_onednn_engine, repack->packed);
    dnnl_primitive_desc_destroy(pd);
    return status;
}

int sac_onednn_repack_new(struct sac_onednn_repack **ret, const struct sac_op *op,
                          const struct sac_onednn_problem *p, const dnnl_memory_desc_t *layout,
                          struct sac_error *err)
{
    const struct sac_shape *src = &op->src[0].shape;
    bool image = p->node->kind == SAC_OP_INNER && sac_onednn_inner_of_image(p->node, src);
    struct sac_onednn_repack *repack = calloc(1, sizeof *repack);
    dnnl_status_t status = dnnl_out_of_memory;

    if (!repack)
        return sac_onednn_fail(err, op->name, "pack the weights", status);
    repack->master = op->master[0];
    repack->current = op->generation;
    if (!image && dnnl_memory_desc_equal(&p->plain, layout)) {
        repack->packed = op->master[0];
        *ret = repack;
        return 0;
    }
    bool all = posix_memalign(&repack->packed, 64, dnnl_memory_desc_get_size(layout)) == 0;
    if (!all)
        repack->packed = NULL;
    if (all && (!image || make_permuted(repack, p, src, sac_shape_count(&op->weight_shape[0]))))
        status = make_reorder(repack, p, layout);
    if (status != dnnl_success) {
        sac_onednn_repack_free(repack);
        return sac_onednn_fail(err, op->name, "pack the weights", status);
    }
    *ret = repack;
    return 0;
}

const void *sac_onednn_repack_data(const struct sac_onednn_repack *repack)
{
    return repack->packed;
}

static void permute(const struct sac_onednn_repack *r)
{
    int64_t in = r->plane * r->channels;

    for (int64_t o = 0; o < r->out; o++)
        for (int64_t c = 0; c < r->channels; c++)
            for (int64_t i = 0; i < r->plane; i++)
                r->permuted[o * in + i * r->channels + c] =
                    r->master[o * r->out_step + (c * r->plane + i) * r->in_step];
}

int sac_onednn_repack_run(struct sac_onednn_repack *repack, const char *name, dnnl_stream_t stream,
                          struct sac_error *err)
{
    uint64_t current = repack->current ? *repack->current : 0;

    if (!repack->reorder || (repack->is_made && repack->made == current))
        return 0;
    if (repack->permuted)
        permute(repack);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, repack->from}, {DNNL_ARG_TO, repack->to}};
    dnnl_status_t status = dnnl_primitive_execute(repack->reorder, stream, 2, args);
    if (status != dnnl_success)
        return sac_onednn_fail(err, name, "pack the weights", status);
    repack->is_made = true;
    repack->made = current;
    return 0;
}

enum { ARGS_MAX = 5 };

struct state {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    dnnl_exec_arg_t args[ARGS_MAX];
    int arg_count;
    struct sac_onednn_repack *repack; /* of masters; NULL: the weights are the store's */
    struct sac_onednn_eight *eight;   /* NULL: not in 8 bits */
};

static void free_state(void *memory)
{
    struct state *state = memory;

    if (!state)
        return;

    for (int i = 0; i < state->arg_count; i++)
        dnnl_memory_destroy(state->args[i].memory);
    sac_onednn_repack_free(state->repack);
    sac_onednn_eight_free(state->eight);
    dnnl_stream_destroy(state->stream);
    dnnl_primitive_destroy(state->primitive);
    free(state);
}

static dnnl_status_t add_arg(struct state *state, int arg, const dnnl_memory_desc_t *md,
                             const void *data)
{
    dnnl_memory_t memory;
    dnnl_status_t status =
        dnnl_memory_create(&memory, md, sac_onednn_engine, (void *)(uintptr_t)data);

    if (status == dnnl_success)
        state->args[state->arg_count++] = (dnnl_exec_arg_t){arg, memory};
    return status;
}

static dnnl_status_t bind(struct state *state, const struct sac_op *op,
                          const struct sac_onednn_problem *p, const_dnnl_primitive_desc_t pd,
                          const void *weights)
{
    dnnl_status_t status = dnnl_primitive_create(&state->primitive, pd);

    if (status == dnnl_success)
        status = dnnl_stream_create(&state->stream, sac_onednn_engine, dnnl_stream_default_flags);
    if (status == dnnl_success)
        status = add_arg(state, DNNL_ARG_SRC, &p->src, op->src[0].data);
    if (status == dnnl_success)
        status = add_arg(state, DNNL_ARG_DST, &p->dst, op->dst[0].data);
    if (status == dnnl_success)
        status = add_arg(state, DNNL_ARG_WEIGHTS, sac_onednn_weights_of(pd), weights);
    if (status == dnnl_success && op->weight_count > 1)
        status = add_arg(state, DNNL_ARG_BIAS, &p->bias,
                         state->eight ? state->eight->bias : op->weight[1]);
    if (status == dnnl_success)
        status =
            add_arg(state, DNNL_ARG_SCRATCHPAD,
                    dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0), op->workspace);
    return status;
}

/* oneDNN's fast kernels take no views. */
static bool all_whole(const struct sac_op *op)
{
    const struct sac_tensor *both[] = {&op->src[0], &op->dst[0]};

    for (int i = 0; i < 2; i++) {
        struct sac_tensor whole = sac_tensor_of(&both[i]->shape, both[i]->form);
        if (memcmp(whole.stride, both[i]->stride, sizeof whole.stride) != 0)
            return false;
    }
    return true;
}

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err)
{
    struct state *state = calloc(1, sizeof *state);
    struct sac_onednn_problem p;
    dnnl_primitive_desc_t pd = NULL;
    const void *weights = NULL;
    int rc = 0;

    op->state = state;
    if (!state)
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    if (ask->node->eight_bits)
        rc = sac_onednn_eight_new(&state->eight, op, ask, store, err);
    if (rc != 0)
        return rc;
    pd = choose(ask, op->dst[0].form.type, state->eight, &p);
    if (!all_whole(op))
        rc = sac_fail(err, SAC_EUNSUPPORTED, "%s: its kernel reads and writes no views", op->name);
    else if (!pd)
        rc = sac_onednn_fail(err, op->name, "find an implementation again", dnnl_unimplemented);
    if (rc == 0 && op->master[0]) {
        rc = sac_onednn_repack_new(&state->repack, op, &p, sac_onednn_weights_of(pd), err);
        weights = rc == 0 ? sac_onednn_repack_data(state->repack) : NULL;
    } else if (rc == 0) {
        rc = sac_onednn_pack(ask, store, &p, sac_onednn_weights_of(pd), &weights, err);
    }
    if (rc == 0 && op->weight_count > 1 && !state->eight)
        rc = sac_cpu_weight_plain(op, ask, 1, store, err);
    if (rc == 0) {
        dnnl_status_t status = bind(state, op, &p, pd, weights);
        rc = status == dnnl_success ? 0
                                    : sac_onednn_fail(err, op->name, "make the primitive", status);
    }
    dnnl_primitive_desc_destroy(pd);
    return rc;
}

/* oneDNN adds to what the result's memory holds. */
static void put_sum(const struct sac_op *op)
{
    const struct sac_tensor *sum = &op->sum, *dst = &op->dst[0];

    if (sum->data == dst->data)
        return;
    bool same = sum->form.type == dst->form.type ||
                (sac_type_is_eight(sum->form.type) && sac_type_is_eight(dst->form.type));
    if (same &&
        memcmp(sum->stride, dst->stride, (size_t)dst->shape.rank * sizeof *dst->stride) == 0)
        memcpy(dst->data, sum->data, sac_tensor_bytes(&dst->shape, dst->form.type));
    else
        sac_loop_convert_tensor(sum, dst);
}

static int forward(struct sac_op *op, struct sac_error *err)
{
    struct state *state = op->state;

    if (state->repack) {
        int rc = sac_onednn_repack_run(state->repack, op->name, state->stream, err);
        if (rc != 0)
            return rc;
    }
    if (op->epilogue.sum >= 0)
        put_sum(op);
    dnnl_status_t status =
        dnnl_primitive_execute(state->primitive, state->stream, state->arg_count, state->args);
    return status == dnnl_success ? 0 : sac_onednn_fail(err, op->name, "run", status);
}

const struct sac_cpu_kernel sac_cpu_onednn = {
    .name = "oneDNN",
    .can = can,
    .query = query,
    .prepare = prepare,
    .forward = forward,
    .free_state = free_state,
};

#endif
