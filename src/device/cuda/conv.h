/* What cuDNN is told of a convolution or deconvolution, for both ways through it. */
#ifndef SAC_DEVICE_CUDA_CONV_H
#define SAC_DEVICE_CUDA_CONV_H

#include "device/cuda/cuda.h"

struct conv {
    cudnnTensorDescriptor_t x, y, bias;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t conv;
    cudnnActivationDescriptor_t activation;
    bool transposed; /* a deconvolution: y is the image */
    int algorithm;
    size_t workspace_bytes;
    const void *bias_data;  /* of y's type, for cuDNN */
    bool apart;             /* bias, sum and ReLU by our own pass */
    bool never_fused;       /* there is no other way */
    int pictures;           /* > 1: the batch's pictures one by one, */
    int64_t x_step, y_step; /* bytes from one to the next */
};

/* Makes and fills the descriptors; false where cuDNN refuses. sac_cuda_conv_done() frees
 * them in either case. The filter is [out, in/group, kh, kw] of a convolution from image to
 * map, and of the convolution that a deconvolution is the gradient of. */
bool sac_cuda_conv_describe(struct conv *c, const struct sac_cuda_ask *ask);
void sac_cuda_conv_done(struct conv *c);
/* All that an algorithm's choice depends on, in words. */
void sac_cuda_conv_question(const struct sac_cuda_ask *ask, char *text, size_t size);

/* Describes, and takes the fastest algorithm of the device's, measured once a shape
 * (conv_choose.c); false where cuDNN cannot. Takes the device's lock. */
bool sac_cuda_conv_make(struct conv *c, const struct sac_cuda_ask *ask);
/* Milliseconds of the fastest, with its epilogue; below 0 where it cannot be measured. */
float sac_cuda_conv_ms(const struct sac_cuda_ask *ask);
cudnnMathType_t sac_cuda_conv_math(enum sac_precision precision);

#endif
