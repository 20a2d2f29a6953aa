/* As kernel_extents.c, of the kernels that only training needs. Of those that launch
 * twice, the first launch is checked with all that both touch. */
#include "cuda_sim/extents.h"
#include "kernels/training.h"

WRAP(slope, const struct sac_kernel_slope *p, cudaStream_t stream)
{
    reads("v", p->v, p->count, p->type);
    reads("dy", p->dy, p->count, p->type);
    reads("factor", p->factor, p->factors > 0 ? p->factors : 1, p->factor_type);
    writes("dx", p->dx, p->count, p->type);
    return launched(__real_sac_kernel_slope(p, stream));
}

WRAP(eltwise_back, const struct sac_kernel_eltwise_back *p, cudaStream_t stream)
{
    writes("dx", p->dx, p->count, p->type);
    reads("dy", p->dy, p->count, p->type);
    for (int i = 0; i < p->sources; i++)
        reads("x", p->x[i], p->count, p->type);
    return launched(__real_sac_kernel_eltwise_back(p, stream));
}

WRAP(dropout, const struct sac_kernel_dropout *p, cudaStream_t stream)
{
    size_t count = (size_t)p->outer * p->channels * p->inner;

    reads("x", p->x, count, p->type);
    writes("y", p->y, count, p->type);
    return launched(__real_sac_kernel_dropout(p, stream));
}

static size_t x_count(const struct sac_kernel_window *w)
{
    return (size_t)w->batch * (size_t)w->x_height * (size_t)w->x_width * (size_t)w->x_channels;
}

static size_t y_count(const struct sac_kernel_window *w)
{
    return (size_t)w->batch * (size_t)w->y_height * (size_t)w->y_width * (size_t)w->y_channels;
}

WRAP(pool_back, const struct sac_kernel_window *w, enum sac_pool_method method, const void *dy,
     void *dx, cudaStream_t stream)
{
    if (method == SAC_POOL_MAX) {
        reads("x", w->x, x_count(w), w->x_type);
        reads("y", w->y, y_count(w), w->y_type);
    }
    reads("dy", dy, y_count(w), w->y_type);
    writes("dx", dx, x_count(w), w->x_type);
    return launched(__real_sac_kernel_pool_back(w, method, dy, dx, stream));
}

static size_t lrn(const struct sac_kernel_lrn *p, const void *dy, const void *dx)
{
    size_t count = (size_t)p->batch * (size_t)p->height * (size_t)p->width * (size_t)p->channels;

    reads("x", p->x, count, p->type);
    reads("dy", dy, count, p->type);
    writes("dx", dx, count, p->type);
    return count;
}

WRAP(lrn_across_back, const struct sac_kernel_lrn *p, const void *dy, void *dx, cudaStream_t stream)
{
    lrn(p, dy, dx);
    return launched(__real_sac_kernel_lrn_across_back(p, dy, dx, stream));
}

WRAP(lrn_within_back, const struct sac_kernel_lrn *p, const void *dy, void *dx, float *work,
     cudaStream_t stream)
{
    writes("work", work, 2 * lrn(p, dy, dx), SAC_F32);
    return launched(__real_sac_kernel_lrn_within_back(p, dy, dx, work, stream));
}

WRAP(filter_back, const struct sac_kernel_filter_back *p, cudaStream_t stream)
{
    const struct sac_kernel_window *w = &p->window;

    reads("x", w->x, x_count(w), w->x_type);
    reads("y", w->y, y_count(w), w->y_type);
    writes("dw", p->dw,
           (size_t)w->y_channels * (size_t)(w->x_channels / p->group) * (size_t)w->kernel[0] *
               (size_t)w->kernel[1],
           SAC_F32);
    return launched(__real_sac_kernel_filter_back(p, stream));
}

WRAP(columns, const struct sac_kernel_columns *p, cudaStream_t stream)
{
    size_t count = (size_t)p->outer * p->channels * p->inner;

    reads("u", p->u, count, p->u_type);
    reads("v", p->v, count, p->v_type);
    reads("gate", p->gate, count, p->u_type);
    reads("scale", p->scale, p->channels, SAC_F32);
    reads("shift", p->shift, p->channels, SAC_F32);
    sim_launch_touches("work", p->work, sac_kernel_columns_bytes(p->outer, p->channels, p->inner),
                       1);
    writes("sum", p->sum, p->channels, SAC_F32);
    writes("product", p->product, p->channels, SAC_F32);
    writes("sum more", p->sum_more, p->channels, SAC_F32);
    writes("product more", p->product_more, p->channels, SAC_F32);
    return launched(__real_sac_kernel_columns(p, stream));
}

WRAP(norm_factors, const struct sac_kernel_norm_factors *p, cudaStream_t stream)
{
    reads("mean", p->mean, p->channels, SAC_F32);
    reads("variance", p->variance, p->channels, SAC_F32);
    reads("s", p->s, 1, SAC_F32);
    writes("factor", p->factor, p->channels, SAC_F32);
    writes("bias", p->bias, p->channels, SAC_F32);
    reads("gamma", p->gamma, p->channels, SAC_F32);
    reads("beta", p->beta, p->channels, SAC_F32);
    writes("whole", p->whole, 2 * (size_t)p->channels, SAC_F32);
    return launched(__real_sac_kernel_norm_factors(p, stream));
}

WRAP(norm_back, const struct sac_kernel_norm_back *p, cudaStream_t stream)
{
    size_t count = (size_t)p->outer * p->channels * p->inner;

    reads("x", p->sum ? p->x : NULL, count, p->type);
    reads("dy", p->dy, count, p->type);
    reads("gate", p->gate, count, p->type);
    reads("whole", p->whole, p->channels, SAC_F32);
    reads("factor", p->factor, p->channels, SAC_F32);
    reads("bias", p->bias, p->channels, SAC_F32);
    reads("sum", p->sum, p->channels, SAC_F32);
    reads("along", p->along, p->channels, SAC_F32);
    writes("dx", p->dx, count, p->type);
    return launched(__real_sac_kernel_norm_back(p, stream));
}

WRAP(softmax_back, const struct sac_kernel_softmax_back *p, cudaStream_t stream)
{
    size_t count = (size_t)p->outer * p->count * p->inner;

    reads("y", p->y, count, SAC_F32);
    reads("dy", p->dy, count, SAC_F32);
    writes("dx", p->dx, count, p->type);
    return launched(__real_sac_kernel_softmax_back(p, stream));
}

static void loss(const struct sac_kernel_loss *p)
{
    size_t places = (size_t)p->outer * p->inner;

    reads("x", p->x, places * p->classes, SAC_F32);
    reads("labels", p->labels, places, SAC_F32);
}

WRAP(softmax_loss, const struct sac_kernel_loss *p, cudaStream_t stream)
{
    size_t places = (size_t)p->outer * p->inner;

    loss(p);
    writes("losses", p->losses, places, SAC_F32);
    writes("log sums", p->log_sums, places, SAC_F32);
    writes("divisor", p->divisor, 1, SAC_F32);
    writes("loss", p->loss, 1, SAC_F32);
    writes("softmax", p->softmax, places * p->classes, SAC_F32);
    return launched(__real_sac_kernel_softmax_loss(p, stream));
}

WRAP(softmax_loss_back, const struct sac_kernel_loss *p, const float *dy, float *dx,
     cudaStream_t stream)
{
    size_t places = (size_t)p->outer * p->inner;

    loss(p);
    reads("log sums", p->log_sums, places, SAC_F32);
    reads("divisor", p->divisor, 1, SAC_F32);
    reads("dy", dy, 1, SAC_F32);
    writes("dx", dx, places * p->classes, SAC_F32);
    return launched(__real_sac_kernel_softmax_loss_back(p, dy, dx, stream));
}

WRAP(accuracy, const struct sac_kernel_loss *p, int top_k, float *classes_out, cudaStream_t stream)
{
    loss(p);
    writes("hits", p->losses, (size_t)p->outer * p->inner, SAC_F32);
    writes("accuracy", p->loss, 1, SAC_F32);
    writes("classes", classes_out, p->classes, SAC_F32);
    return launched(__real_sac_kernel_accuracy(p, top_k, classes_out, stream));
}

static void pair(const struct sac_kernel_pair_loss *p)
{
    reads("x", p->x, p->count, SAC_F32);
    reads("t", p->t, p->count, SAC_F32);
}

static void pair_forward(const struct sac_kernel_pair_loss *p)
{
    pair(p);
    sim_launch_touches("work", p->work, sac_kernel_pair_loss_bytes(), 1);
    writes("divisor", p->divisor, 1, SAC_F32);
    writes("loss", p->loss, 1, SAC_F32);
    writes("sigmoid", p->sigmoid, p->count, SAC_F32);
}

WRAP(sigmoid_loss, const struct sac_kernel_pair_loss *p, cudaStream_t stream)
{
    pair_forward(p);
    return launched(__real_sac_kernel_sigmoid_loss(p, stream));
}

WRAP(euclidean_loss, const struct sac_kernel_pair_loss *p, cudaStream_t stream)
{
    pair_forward(p);
    return launched(__real_sac_kernel_euclidean_loss(p, stream));
}

WRAP(sigmoid_loss_back, const struct sac_kernel_pair_loss *p, const float *dy, float *dx,
     cudaStream_t stream)
{
    pair(p);
    reads("divisor", p->divisor, 1, SAC_F32);
    reads("dy", dy, 1, SAC_F32);
    writes("dx", dx, p->count, SAC_F32);
    return launched(__real_sac_kernel_sigmoid_loss_back(p, dy, dx, stream));
}

WRAP(euclidean_loss_back, const struct sac_kernel_pair_loss *p, const float *dy, float *dx,
     float *dt, cudaStream_t stream)
{
    pair(p);
    reads("dy", dy, 1, SAC_F32);
    writes("dx", dx, p->count, SAC_F32);
    writes("dt", dt, p->count, SAC_F32);
    return launched(__real_sac_kernel_euclidean_loss_back(p, dy, dx, dt, stream));
}

/* Chunks may lie anywhere in the arrays: only theirs is known here. */
WRAP(update, const struct sac_update *u, cudaStream_t stream)
{
    sim_launch_touches("chunks", u->chunks, u->chunk_count * sizeof *u->chunks, 0);
    reads("g", u->g, 1, SAC_F32);
    writes("w", u->w, 1, SAC_F32);
    writes("h", u->h, 1, SAC_F32);
    writes("k", u->k, 1, SAC_F32);
    return launched(__real_sac_kernel_update(u, stream));
}

WRAP(sum_of_squares, const float *values, size_t count, double *work, cudaStream_t stream)
{
    reads("values", values, count, SAC_F32);
    sim_launch_touches("work", work, SAC_SUM_DOUBLES * sizeof *work, 1);
    return launched(__real_sac_kernel_sum_of_squares(values, count, work, stream));
}
