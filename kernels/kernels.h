/*
 * Our CUDA kernels, each behind a C function that enqueues it on a stream and
 * returns the launch's error. Pointers are device memory. Types are SAC_F32,
 * SAC_F16 and SAC_BF16 (sums are always fp32); rows are the positions of a
 * channels-last tensor, `pitch` numbers apart. Counts are below 2³¹: the caller
 * has checked. Any thread.
 */
#ifndef SAC_KERNELS_KERNELS_H
#define SAC_KERNELS_KERNELS_H

#include <cuda_runtime_api.h>

#include "device/graph.h"
#include "device/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Copies one strided tensor to another of the same dimensions, or adds it there. */
struct sac_kernel_copy {
    const void *from;
    void *to;
    int from_type, to_type;
    int rank;
    int64_t dim[SAC_AXES_MAX], from_stride[SAC_AXES_MAX], to_stride[SAC_AXES_MAX];
    bool add;
};
cudaError_t sac_kernel_copy(const struct sac_kernel_copy *p, cudaStream_t stream);

/* y[i] = f(x[i]); then + sum[i], then ReLU. y may be x or sum. */
enum sac_map {
    SAC_MAP_LINEAR, /* x · factor[j] + bias[j], each left out when NULL */
    SAC_MAP_ADD,    /* x + factor[j] */
    SAC_MAP_PRELU,  /* x < 0: x · factor[j] */
    SAC_MAP_SIGMOID,
    SAC_MAP_TANH,
    SAC_MAP_ELU,   /* a */
    SAC_MAP_POWER, /* (c + b · x)^a */
};
struct sac_kernel_map {
    enum sac_map map;
    const void *x, *sum; /* sum: NULL for none */
    void *y;
    int type; /* of x, y and sum */
    uint32_t count;
    const void *factor;
    int factor_type;
    const float *bias;
    uint32_t inner, factors; /* j = i / inner % factors */
    float a, b, c;
    bool relu;
    float slope;
};
cudaError_t sac_kernel_map(const struct sac_kernel_map *p, cudaStream_t stream);

/* Element by element over whole tensors; y may be x[0]. */
struct sac_kernel_eltwise {
    enum sac_eltwise_method method;
    const void *const *x;
    const float *coeff; /* host memory; NULL: ones */
    int sources;
    void *y;
    int type;
    uint32_t count;
    bool relu;
    float slope;
};
cudaError_t sac_kernel_eltwise(const struct sac_kernel_eltwise *p, cudaStream_t stream);

/* A convolution-like window over channels-last tensors. */
struct sac_kernel_window {
    const void *x;
    void *y;
    int x_type, y_type;
    int batch, x_height, x_width, x_channels, y_height, y_width, y_channels;
    int64_t x_pitch, y_pitch;
    int kernel[2], stride[2], pad[2], dilation[2];
};
cudaError_t sac_kernel_pool(const struct sac_kernel_window *w, enum sac_pool_method method,
                            cudaStream_t stream);
/* weights: x_type, [kh][kw][in/group][out]; no bias: sac_kernel_map adds it. */
cudaError_t sac_kernel_conv(const struct sac_kernel_window *w, const void *weights, int group,
                            cudaStream_t stream);
/* The same with one channel a group, bias and ReLU. bias: NULL for none. */
cudaError_t sac_kernel_depthwise(const struct sac_kernel_window *w, const void *weights,
                                 const float *bias, bool relu, float slope, cudaStream_t stream);
/* weights: x_type, [kh][kw][in][out/group]. */
cudaError_t sac_kernel_deconv(const struct sac_kernel_window *w, const void *weights, int group,
                              cudaStream_t stream);

struct sac_kernel_lrn {
    const void *x;
    void *y;
    int type;
    int batch, height, width, channels;
    int64_t x_pitch, y_pitch;
    int size;
    float alpha, beta, k; /* alpha is divided already by what was summed */
};
cudaError_t sac_kernel_lrn_across(const struct sac_kernel_lrn *p, cudaStream_t stream);
cudaError_t sac_kernel_lrn_within(const struct sac_kernel_lrn *p, cudaStream_t stream);

/* x: outer × count × inner; along the middle; y is fp32. */
struct sac_kernel_softmax {
    const void *x;
    float *y;
    int type;
    uint32_t outer, count, inner;
};
cudaError_t sac_kernel_softmax(const struct sac_kernel_softmax *p, cudaStream_t stream);

/* x: rows × count; y: rows × k, largest first, ties to the lower index, NaN last;
 * index −1 where there are fewer than k. */
cudaError_t sac_kernel_topk(const void *x, int type, uint32_t rows, uint32_t count, int k,
                            struct sac_topk_pair *y, cudaStream_t stream);

/* u8 → the net's input, channels-last both: (x − mean) · scale, and zeros in what y has
 * more channels. */
struct sac_kernel_pixels {
    const uint8_t *x;
    void *y;
    int type;
    uint32_t batch, plane;   /* pixels a picture */
    int channels, width;     /* of x, of y */
    bool swap;               /* the first and third channel */
    float mean[4];           /* the last is for all channels from the fourth on */
    const float *mean_image; /* plane × channels, or NULL */
    float scale;
};
cudaError_t sac_kernel_pixels(const struct sac_kernel_pixels *p, cudaStream_t stream);

/* The batch's own statistics: factor[c] = 1/√(variance + eps), bias[c] = −mean ·
 * factor. x: outer × channels × inner. */
struct sac_kernel_statistics {
    const void *x;
    int type;
    uint32_t outer, channels, inner;
    float eps;
    float *work; /* sac_kernel_columns_bytes() */
    float *factor, *bias;
    /* With what a scale behind has: gamma · factor and, channels behind, gamma · bias +
     * beta. NULL: ones and zeros; not wanted. */
    const float *gamma, *beta;
    float *whole;
    /* Training: each ← fraction · itself + the mean, the unbiased variance, 1; NULL: none. */
    float *running_mean, *running_variance, *running_count;
    float fraction;
};
cudaError_t sac_kernel_statistics(const struct sac_kernel_statistics *p, cudaStream_t stream);
/* What sums over the channels of outer × channels × inner need in between. */
size_t sac_kernel_columns_bytes(uint32_t outer, uint32_t channels, uint32_t inner);

/* y[r][o] = Σ x[r][i] · w[i][o] + bias[o], then ReLU; every sum in the same order
 * whatever the number of rows. w: type; y: y_type. */
struct sac_kernel_inner {
    const void *x, *weights;
    const float *bias; /* NULL: none */
    void *y;
    int type, y_type;
    uint32_t rows, in, out;
    bool relu;
    float slope;
};
cudaError_t sac_kernel_inner(const struct sac_kernel_inner *p, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
