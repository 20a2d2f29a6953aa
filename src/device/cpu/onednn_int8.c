/* Weights, biases and factors of operations in 8 bits. */
#include "device/cpu/onednn.h"

#ifdef SAC_HAVE_ONEDNN

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device/cpu/element.h"
#include "device/cpu/onednn_problem.h"

/* A filter as outputs of `run` numbers: number j of output o at o · step + j · next. */
struct filter {
    const float *data;
    int64_t outputs, run, step, next;
};

static struct filter filter_of(const struct sac_node *node, const struct sac_constant *weight,
                               int64_t outputs)
{
    bool transpose = node->kind == SAC_OP_INNER && node->param.inner.transpose;
    int64_t run = sac_shape_count(&weight->shape) / outputs;

    return (struct filter){weight->data, outputs, run, transpose ? 1 : run,
                           transpose ? outputs : 1};
}

static int64_t outputs_of(const struct sac_cpu_ask *ask)
{
    const struct sac_shape *dst = sac_cpu_dst_shape(ask);

    return ask->node->kind == SAC_OP_CONV ? dst->dim[1] : dst->dim[dst->rank - 1];
}

static struct sac_constant *weight_of(const struct sac_cpu_ask *ask)
{
    return &ask->graph->constants[ask->node->weight[0]];
}

/* ---- What a step of each output's weights is worth ---- */

static int find_steps(void *data, void *context, struct sac_error *err)
{
    const struct filter *f = context;
    float *steps = data;

    (void)err;
    for (int64_t o = 0; o < f->outputs; o++) {
        float most = 0;
        for (int64_t j = 0; j < f->run; j++)
            most = fmaxf(most, fabsf(f->data[o * f->step + j * f->next]));
        steps[o] = most > 0 ? most / 127 : 1;
    }
    return 0;
}

static int steps_of(const struct sac_cpu_ask *ask, struct sac_store *store, const float **ret,
                    struct sac_error *err)
{
    struct filter filter = filter_of(ask->node, weight_of(ask), outputs_of(ask));
    struct sac_packer packer = {
        .bytes = (size_t)filter.outputs * sizeof(float), .pack = find_steps, .context = &filter};
    const struct sac_packed *packed;
    int rc = sac_cpu_store_pack(store, weight_of(ask)->name, "int8 steps", &packer, &packed, err);

    if (rc == 0)
        *ret = packed->data;
    return rc;
}

/* ---- Weights ---- */

struct packing {
    const struct sac_cpu_ask *ask;
    const struct sac_onednn_problem *problem;
    const dnnl_memory_desc_t *to;
    const float *steps;
};

static void quantize(const struct filter *f, const float *steps, int8_t *to)
{
    for (int64_t o = 0; o < f->outputs; o++) {
        for (int64_t j = 0; j < f->run; j++) {
            int64_t at = o * f->step + j * f->next;
            to[at] = (int8_t)sac_element_round(f->data[at] / steps[o], -127, 127);
        }
    }
}

static int pack_filter(void *data, void *context, struct sac_error *err)
{
    const struct packing *packing = context;
    const struct sac_node *node = packing->ask->node;
    const struct sac_shape *src = &packing->ask->graph->values[node->src[0]].shape;
    const struct sac_constant *weight = weight_of(packing->ask);
    bool image = node->kind == SAC_OP_INNER && sac_onednn_inner_of_image(node, src);
    struct filter filter = filter_of(node, weight, packing->problem->outputs);
    float *permuted = image ? sac_onednn_weights_of_image(node, src, weight) : NULL;
    int8_t *plain = malloc((size_t)(filter.outputs * filter.run));
    dnnl_memory_desc_t layout = packing->problem->plain;
    int rc = 0;

    if (!plain || (image && !permuted))
        rc = sac_fail(err, SAC_ENOMEM, "%s: no memory to pack its weights", node->name);
    if (permuted)
        filter = (struct filter){permuted, filter.outputs, filter.run, filter.run, 1};
    if (rc == 0) {
        quantize(&filter, packing->steps, plain);
        layout.data_type = dnnl_s8;
        rc = sac_onednn_reorder(&layout, plain, packing->to, data, node->name, err);
    }
    free(permuted);
    free(plain);
    return rc;
}

int sac_onednn_eight_pack(const struct sac_cpu_ask *ask, struct sac_store *store,
                          const struct sac_onednn_problem *p, const dnnl_memory_desc_t *layout,
                          const char *way, const void **ret, struct sac_error *err)
{
    struct packing packing = {.ask = ask, .problem = p, .to = layout};
    int rc = steps_of(ask, store, &packing.steps, err);

    return rc ? rc : sac_onednn_pack_by(ask, store, layout, way, pack_filter, &packing, ret, err);
}

/* ---- Factors and biases ---- */

static float scale_of(const struct sac_tensor *t)
{
    return t->form.scale != 0 ? t->form.scale : 1;
}

static void fill(struct sac_onednn_eight *eight, const struct sac_op *op, const float *steps,
                 const float *bias, int64_t outputs)
{
    float in = scale_of(&op->src[0]), out = scale_of(&op->dst[0]);

    for (int64_t o = 0; o < outputs; o++) {
        eight->scales[o] = in * steps[o] / out;
        if (bias)
            eight->bias[o] = bias[o] / (in * steps[o]);
    }
    eight->sum_scale = op->epilogue.sum >= 0 ? scale_of(&op->sum) / out : 0;
}

int sac_onednn_eight_new(struct sac_onednn_eight **ret, const struct sac_op *op,
                         const struct sac_cpu_ask *ask, struct sac_store *store,
                         struct sac_error *err)
{
    struct sac_onednn_eight *eight = calloc(1, sizeof *eight);
    int64_t outputs = outputs_of(ask);
    bool has_bias = op->weight_count > 1;
    const float *steps = NULL;
    int rc = 0;

    if (op->master[0])
        rc = sac_fail(err, SAC_EUNSUPPORTED, "%s: weights that may change have no int8", op->name);
    if (rc == 0)
        rc = steps_of(ask, store, &steps, err);
    if (rc == 0 && eight) {
        eight->scales = malloc((size_t)outputs * sizeof *eight->scales);
        eight->bias = has_bias ? malloc((size_t)outputs * sizeof *eight->bias) : NULL;
    }
    if (rc == 0 && (!eight || !eight->scales || (has_bias && !eight->bias)))
        rc = sac_fail(err, SAC_ENOMEM, "%s: no memory for the operation", op->name);
    if (rc == 0) {
        fill(eight, op, steps, has_bias ? ask->graph->constants[ask->node->weight[1]].data : NULL,
             outputs);
        *ret = eight;
        return 0;
    }
    sac_onednn_eight_free(eight);
    return rc;
}

void sac_onednn_eight_free(struct sac_onednn_eight *eight)
{
    if (!eight)
        return;
    free(eight->scales);
    free(eight->bias);
    free(eight);
}

#endif
