/*
 * The plain loops: what every operation means, as straightforward C over plain
 * fp32. They are what faster kernels are checked against, so they aim to be
 * right by inspection. Sources of any type, layout or stride are first gathered
 * into plain fp32, and results are scattered to where and what they should be,
 * so no loop sees a layout.
 */
#ifndef SAC_DEVICE_CPU_LOOPS_H
#define SAC_DEVICE_CPU_LOOPS_H

#include "device/cpu/kernel.h"

/* x[i], y[i]: the sources and results, plain. scratch: as many doubles as the
 * elements of the largest plane (H × W) among them. */
typedef void sac_loop(const struct sac_op *op, float *const *x, float *const *y, double *scratch);

sac_loop sac_loop_conv, sac_loop_deconv, sac_loop_inner, sac_loop_pool, sac_loop_lrn;
sac_loop sac_loop_relu, sac_loop_prelu, sac_loop_sigmoid, sac_loop_tanh, sac_loop_elu;
sac_loop sac_loop_power, sac_loop_copy, sac_loop_concat, sac_loop_slice, sac_loop_eltwise;
sac_loop sac_loop_batchnorm, sac_loop_scale, sac_loop_bias, sac_loop_softmax, sac_loop_pixels;
sac_loop sac_loop_affine, sac_loop_topk, sac_loop_dropout, sac_loop_split;
sac_loop sac_loop_softmax_loss, sac_loop_euclidean_loss, sac_loop_sigmoid_loss, sac_loop_accuracy;

/* A label that is no class is refused. */
int sac_loop_check_labels(const struct sac_op *op, float *const *x, struct sac_error *err);

/* Backward, all plain: x and y where the loop's row in loops_backward.c says that it
 * reads them; dy[i] zeros where nobody gave a gradient; dx[i] NULL where none is
 * wanted, else written. */
struct sac_loop_gradient {
    float *const *x, *const *y, *const *dy, *const *dx;
    double *scratch; /* as a sac_loop's */
};

/* Writes dx. */
typedef void sac_loop_data(const struct sac_op *op, const struct sac_loop_gradient *gradient);
/* Adds to op->weight_grad[i] where it is not NULL. */
typedef void sac_loop_weights(const struct sac_op *op, const struct sac_loop_gradient *gradient);

sac_loop_data sac_loop_conv_data, sac_loop_deconv_data, sac_loop_inner_data, sac_loop_pool_data;
sac_loop_data sac_loop_lrn_data, sac_loop_relu_data, sac_loop_prelu_data, sac_loop_sigmoid_data;
sac_loop_data sac_loop_tanh_data, sac_loop_elu_data, sac_loop_power_data, sac_loop_copy_data;
sac_loop_data sac_loop_concat_data, sac_loop_slice_data, sac_loop_eltwise_data;
sac_loop_data sac_loop_batchnorm_data, sac_loop_scale_data, sac_loop_bias_data;
sac_loop_data sac_loop_softmax_data, sac_loop_dropout_data, sac_loop_split_data;
sac_loop_data sac_loop_softmax_loss_data, sac_loop_euclidean_loss_data, sac_loop_sigmoid_loss_data;
sac_loop_weights sac_loop_conv_weights, sac_loop_deconv_weights, sac_loop_inner_weights;
sac_loop_weights sac_loop_batchnorm_weights, sac_loop_prelu_weights, sac_loop_scale_weights,
    sac_loop_bias_weights;

/* Between any tensor and plain fp32. */
void sac_loop_gather(const struct sac_tensor *t, float *out);
void sac_loop_scatter(const struct sac_tensor *t, const float *values);
size_t sac_loop_plain_bytes(const struct sac_shape *shape);
size_t sac_loop_plane_bytes(const struct sac_shape *shape);

/* Copies a tensor into another of the same shape, whatever the forms. */
void sac_loop_convert_tensor(const struct sac_tensor *from, const struct sac_tensor *to);

#endif
