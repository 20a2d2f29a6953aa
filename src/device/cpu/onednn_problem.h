/* What the files that speak to oneDNN share; its types stay in them. Any thread. */
#ifndef SAC_DEVICE_CPU_ONEDNN_PROBLEM_H
#define SAC_DEVICE_CPU_ONEDNN_PROBLEM_H

#include <oneapi/dnnl/dnnl.h>

#include "device/cpu/kernel.h"

/* What an operation is to oneDNN, but for the layout of its weights. */
struct sac_onednn_problem {
    const struct sac_node *node;
    dnnl_memory_desc_t src, dst, bias;
    dnnl_memory_desc_t plain; /* the weights as Caffe has them, fp32 */
    int weight_rank;
    dnnl_dims_t weight_dims;
    dnnl_data_type_t type;
    dnnl_dims_t stride, dilation, pad_before, pad_after;
    /* In 8 bits: what an output's sums are multiplied by (NULL: not known yet), and
     * what is added to them. */
    int64_t outputs;
    const float *scales;
    float sum_scale;
    dnnl_data_type_t sum_type;
};

extern dnnl_engine_t sac_onednn_engine;
bool sac_onednn_have_engine(void);
int sac_onednn_fail(struct sac_error *err, const char *name, const char *what,
                    dnnl_status_t status);
/* The implementation's name; "unknown". */
const char *sac_onednn_impl_of(const_dnnl_primitive_desc_t pd);
size_t sac_onednn_scratch_bytes(const_dnnl_primitive_desc_t pd);
const dnnl_memory_desc_t *sac_onednn_weights_of(const_dnnl_primitive_desc_t pd);
/* "oneDNN " and the text, for as long as the program lives. */
const char *sac_onednn_intern(const char *impl);

/* `batch` stands for axis 0 (or for the rows) of source and result. */
bool sac_onednn_describe(struct sac_onednn_problem *p, const struct sac_cpu_ask *ask,
                         enum sac_type dst_type, int64_t batch);
/* Into another layout, once. */
int sac_onednn_reorder(const dnnl_memory_desc_t *from_layout, const void *from,
                       const dnnl_memory_desc_t *to_layout, void *to, const char *name,
                       struct sac_error *err);
/* The weights of an inner product of a channels-last picture as [out][H · W][C]; NULL:
 * no memory. The caller frees them. */
float *sac_onednn_weights_of_image(const struct sac_node *node, const struct sac_shape *src,
                                   const struct sac_constant *weight);
/* The node's epilogue and scales. The caller destroys it. */
dnnl_status_t sac_onednn_make_attr(const struct sac_onednn_problem *p, dnnl_primitive_attr_t *ret);
/* The node's filter in that layout, made by `pack` unless the store has it, where it is
 * called by the constant's name, `way` and the layout. */
int sac_onednn_pack_by(const struct sac_cpu_ask *ask, struct sac_store *store,
                       const dnnl_memory_desc_t *layout, const char *way,
                       int (*pack)(void *data, void *context, struct sac_error *err), void *context,
                       const void **ret, struct sac_error *err);
/* The node's weights in that layout, from the store. */
int sac_onednn_pack(const struct sac_cpu_ask *ask, struct sac_store *store,
                    const struct sac_onednn_problem *p, const dnnl_memory_desc_t *layout,
                    const void **ret, struct sac_error *err);
int64_t sac_onednn_batch_of(const struct sac_cpu_ask *ask);
/* The weights of an inner product of a channels-last picture are permuted. */
bool sac_onednn_inner_of_image(const struct sac_node *node, const struct sac_shape *src);

/* Numbers of an operation in 8 bits: x ≈ scale(x) · q, weights by output:
 * y = scales[o] · (Σ q(x) · q(w) + bias[o]) (+ sum · sum_scale) in steps of y's scale,
 * with scales[o] = scale(x) · scale(w, o) / scale(y); oneDNN rounds to nearest even. */
struct sac_onednn_eight {
    float *scales, *bias; /* one an output; bias NULL: none */
    float sum_scale;
};
int sac_onednn_eight_new(struct sac_onednn_eight **ret, const struct sac_op *op,
                         const struct sac_cpu_ask *ask, struct sac_store *store,
                         struct sac_error *err);
void sac_onednn_eight_free(struct sac_onednn_eight *eight); /* takes NULL */
/* The filter's largest number by output is ±127. */
int sac_onednn_eight_pack(const struct sac_cpu_ask *ask, struct sac_store *store,
                          const struct sac_onednn_problem *p, const dnnl_memory_desc_t *layout,
                          const char *way, const void **ret, struct sac_error *err);

/* Weights from op->master[0] in `layout`; made again by the run that finds the
 * generation changed. */
struct sac_onednn_repack;
int sac_onednn_repack_new(struct sac_onednn_repack **ret, const struct sac_op *op,
                          const struct sac_onednn_problem *p, const dnnl_memory_desc_t *layout,
                          struct sac_error *err);
void sac_onednn_repack_free(struct sac_onednn_repack *repack); /* takes NULL */
const void *sac_onednn_repack_data(const struct sac_onednn_repack *repack);
int sac_onednn_repack_run(struct sac_onednn_repack *repack, const char *name, dnnl_stream_t stream,
                          struct sac_error *err);

#endif
