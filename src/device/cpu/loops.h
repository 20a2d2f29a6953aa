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
sac_loop sac_loop_affine, sac_loop_topk;

/* Copies a tensor into another of the same shape, whatever the forms. */
void sac_loop_convert_tensor(const struct sac_tensor *from, const struct sac_tensor *to);

#endif
