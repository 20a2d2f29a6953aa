/*
 * Our CUDA kernels that only training needs, under the same rules as kernels.h.
 * Gradients of values have the values' types; gradients of weights are plain fp32
 * and are added to. Every sum is made in an order that depends on the shapes alone,
 * so that a run can be repeated bit for bit.
 */
#ifndef SAC_KERNELS_TRAINING_H
#define SAC_KERNELS_TRAINING_H

#include "device/device.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dx[i] = dy[i] · f'(…), from the source or the result. dx may be dy. */
enum sac_slope {
    SAC_SLOPE_FACTOR,  /* factor[j] */
    SAC_SLOPE_RELU,    /* v > 0 ? 1 : a */
    SAC_SLOPE_PRELU,   /* v > 0 ? 1 : factor[j]; v the source */
    SAC_SLOPE_SIGMOID, /* v · (1 − v); v the result */
    SAC_SLOPE_TANH,    /* 1 − v²; v the result */
    SAC_SLOPE_ELU,     /* v > 0 ? 1 : a · exp(v); v the source */
    SAC_SLOPE_POWER,   /* a · b · (c + b · v)^(a − 1); v the source */
};
struct sac_kernel_slope {
    enum sac_slope slope;
    const void *v, *dy; /* v: the source or the result; NULL where it is not read */
    void *dx;
    int type; /* of v, dy and dx */
    uint32_t count;
    const void *factor;
    int factor_type;
    uint32_t inner, factors; /* j = i / inner % factors */
    float a, b, c;
};
cudaError_t sac_kernel_slope(const struct sac_kernel_slope *p, cudaStream_t stream);

/* The gradient of one source of a product or maximum of at most 8 sources. Equals of a
 * maximum: the second of the first two has it, else the earliest, as in Caffe. */
enum { SAC_ELTWISE_BACK_MAX = 8 };
struct sac_kernel_eltwise_back {
    enum sac_eltwise_method method;
    const void *x[SAC_ELTWISE_BACK_MAX];
    int sources, source;
    const void *dy;
    void *dx;
    int type;
    uint32_t count;
};
cudaError_t sac_kernel_eltwise_back(const struct sac_kernel_eltwise_back *p, cudaStream_t stream);

/* y = x / (1 − ratio), or 0 where the counter's number is below the ratio. Counters are
 * places in the plain order of x: outer × channels × inner; `last`: x has its channels
 * last. y may be x. */
struct sac_kernel_dropout {
    const void *x;
    void *y;
    int type;
    uint32_t outer, channels, inner;
    bool last;
    float ratio;
    uint64_t key; /* sac_random_key() */
};
cudaError_t sac_kernel_dropout(const struct sac_kernel_dropout *p, cudaStream_t stream);

/* dx of a pool; w.x and w.y are its source and result. */
cudaError_t sac_kernel_pool_back(const struct sac_kernel_window *w, enum sac_pool_method method,
                                 const void *dy, void *dx, cudaStream_t stream);

/* dx of LRN: dy·s^−β − 2β·alpha·x · Σ dy·x·s^(−β−1). p.y is not read, pitches are
 * those of whole tensors. `work` (within): two floats an element. */
cudaError_t sac_kernel_lrn_across_back(const struct sac_kernel_lrn *p, const void *dy, void *dx,
                                       cudaStream_t stream);
cudaError_t sac_kernel_lrn_within_back(const struct sac_kernel_lrn *p, const void *dy, void *dx,
                                       float *work, cudaStream_t stream);

/* dw[o][i][tap] += Σ image · map, of a convolution's filter (or, with the image and the
 * map exchanged by the caller, a deconvolution's): image w.x (in channels), map w.y (out
 * channels). The strides are dw's, in floats. */
struct sac_kernel_filter_back {
    struct sac_kernel_window window;
    int group;
    float *dw;
    int64_t out_stride, in_stride, tap_stride;
};
cudaError_t sac_kernel_filter_back(const struct sac_kernel_filter_back *p, cudaStream_t stream);

/* Over outer × channels × inner numbers: sum[c] = Σ u, product[c] = Σ u · v. */
struct sac_kernel_columns {
    const void *u, *v; /* v: NULL without product */
    const void *gate;  /* a ReLU's result, as u: u counts by `slope` where it is not > 0; or NULL */
    float slope;
    int u_type, v_type;
    uint32_t outer, channels, inner;
    const float *scale, *shift;     /* v is v · scale[c] + shift[c]; NULL: as it is */
    bool negative;                  /* only places where v ≤ 0 count in the product */
    float *work;                    /* sac_kernel_columns_bytes() */
    float *sum, *product;           /* NULL: not wanted */
    bool add;                       /* to what is there */
    float *sum_more, *product_more; /* to which they are added besides; NULL: none */
};
cudaError_t sac_kernel_columns(const struct sac_kernel_columns *p, cudaStream_t stream);

/* From stored sums: factor[c] = 1/√(variance/s + eps), bias[c] = −mean/s · factor; zeros
 * for both statistics where s is 0. */
struct sac_kernel_norm_factors {
    const float *mean, *variance, *s;
    uint32_t channels;
    float eps;
    float *factor, *bias;
    const float *gamma, *beta; /* as in struct sac_kernel_statistics */
    float *whole;
};
cudaError_t sac_kernel_norm_factors(const struct sac_kernel_norm_factors *p, cudaStream_t stream);

/* dx = whole · (dz − sum/n − x̂ · along/n), x̂ = x · factor + bias, n = count / channels;
 * dz is dy, or as a gate lets it pass. dx may be dy. */
struct sac_kernel_norm_back {
    const void *x, *dy, *gate; /* gate: as in struct sac_kernel_columns */
    float slope;
    void *dx;
    int type;
    uint32_t outer, channels, inner;
    const float *factor, *bias, *whole;
    const float *sum, *along; /* NULL: the statistics did not come from x: dx = whole · dz */
};
cudaError_t sac_kernel_norm_back(const struct sac_kernel_norm_back *p, cudaStream_t stream);

/* dx = y · (dy − Σ dy·y) along the middle of outer × count × inner; y and dy are fp32. */
struct sac_kernel_softmax_back {
    const float *y, *dy;
    void *dx;
    int type;
    uint32_t outer, count, inner;
};
cudaError_t sac_kernel_softmax_back(const struct sac_kernel_softmax_back *p, cudaStream_t stream);

/* ---- Losses: fp32 ---------------------------------------------------------
 * Scores are outer × classes × inner; `labels` has outer × inner numbers. A label that
 * is no class makes the loss NaN. `log_sums` and `divisor` are kept for the way back. */
struct sac_kernel_loss {
    const float *x, *labels;
    uint32_t outer, classes, inner;
    int x_class_step, x_place_step; /* where score c of place (o, i) stands: */
    /* o · classes · inner + i · x_place_step + c · x_class_step */
    int norm; /* enum sac_loss_norm */
    bool ignores;
    int ignored;
    float smoothing;
    float *losses;   /* room: one a place */
    float *log_sums; /* one a place */
    float *divisor;  /* one */
    float *loss;     /* one */
    float *softmax;  /* plain, or NULL */
};
cudaError_t sac_kernel_softmax_loss(const struct sac_kernel_loss *p, cudaStream_t stream);
/* dy: one number on the device. */
cudaError_t sac_kernel_softmax_loss_back(const struct sac_kernel_loss *p, const float *dy,
                                         float *dx, cudaStream_t stream);

/* Over `count` pairs of a batch; `sigmoid` (NULL: not wanted) has x's order. */
struct sac_kernel_pair_loss {
    const float *x, *t;
    uint32_t count, batch;
    int norm;
    bool ignores;
    int ignored;
    float *work;    /* sac_kernel_pair_loss_bytes() */
    float *divisor; /* one; kept */
    float *loss;
    float *sigmoid;
};
size_t sac_kernel_pair_loss_bytes(void);
cudaError_t sac_kernel_sigmoid_loss(const struct sac_kernel_pair_loss *p, cudaStream_t stream);
cudaError_t sac_kernel_sigmoid_loss_back(const struct sac_kernel_pair_loss *p, const float *dy,
                                         float *dx, cudaStream_t stream);
/* Σ (x − t)² / 2 batch; norm, divisor and sigmoid do not count. */
cudaError_t sac_kernel_euclidean_loss(const struct sac_kernel_pair_loss *p, cudaStream_t stream);
/* Either of dx and dt may be NULL. */
cudaError_t sac_kernel_euclidean_loss_back(const struct sac_kernel_pair_loss *p, const float *dy,
                                           float *dx, float *dt, cudaStream_t stream);

/* p.loss: the share of hits among the k best; `classes_out`: one a class, or NULL. Uses
 * p.losses as room; labels that are no class are misses. */
cudaError_t sac_kernel_accuracy(const struct sac_kernel_loss *p, int top_k, float *classes_out,
                                cudaStream_t stream);

/* device.h has the contracts of these. */
cudaError_t sac_kernel_crops(const struct sac_crops *p, cudaStream_t stream);
cudaError_t sac_kernel_update(const struct sac_update *u, cudaStream_t stream);
cudaError_t sac_kernel_sum_of_squares(const float *values, size_t count, double *work,
                                      cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
