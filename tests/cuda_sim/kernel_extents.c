/*
 * What each kernel of kernels/ reads and writes, by kernels.h's contracts, so
 * that its bounds and its order are checked as a library call's are. The linker
 * puts these in the kernels' places (--wrap); the kernels know nothing of it.
 */
#include "cuda_sim/extents.h"

WRAP(copy, const struct sac_kernel_copy *p, cudaStream_t stream)
{
    tensor("from", p->from, p->from_type, p->rank, p->dim, p->from_stride, 0);
    tensor("to", p->to, p->to_type, p->rank, p->dim, p->to_stride, 1);
    return launched(__real_sac_kernel_copy(p, stream));
}

WRAP(map, const struct sac_kernel_map *p, cudaStream_t stream)
{
    size_t factors = p->factors > 0 ? p->factors : 1;

    reads("x", p->x, p->count, p->type);
    reads("sum", p->sum, p->count, p->type);
    reads("factor", p->factor, factors, p->factor_type);
    reads("bias", p->bias, factors, SAC_F32);
    writes("y", p->y, p->count, p->type);
    return launched(__real_sac_kernel_map(p, stream));
}

WRAP(eltwise, const struct sac_kernel_eltwise *p, cudaStream_t stream)
{
    writes("y", p->y, p->count, p->type);
    for (int i = 0; i < p->sources; i++)
        reads("x", p->x[i], p->count, p->type);
    return launched(__real_sac_kernel_eltwise(p, stream));
}

static void window(const struct sac_kernel_window *w)
{
    rows("x", w->x, (size_t)w->batch * (size_t)w->x_height * (size_t)w->x_width, w->x_channels,
         w->x_pitch, w->x_type, 0);
    rows("y", w->y, (size_t)w->batch * (size_t)w->y_height * (size_t)w->y_width, w->y_channels,
         w->y_pitch, w->y_type, 1);
}

static void filter(const struct sac_kernel_window *w, const void *weights, int in, int out)
{
    reads("weights", weights,
          (size_t)w->kernel[0] * (size_t)w->kernel[1] * (size_t)in * (size_t)out, w->x_type);
}

WRAP(pool, const struct sac_kernel_window *w, enum sac_pool_method method, cudaStream_t stream)
{
    window(w);
    return launched(__real_sac_kernel_pool(w, method, stream));
}

WRAP(conv, const struct sac_kernel_window *w, const void *weights, int group, cudaStream_t stream)
{
    window(w);
    filter(w, weights, w->x_channels / group, w->y_channels);
    return launched(__real_sac_kernel_conv(w, weights, group, stream));
}

WRAP(depthwise, const struct sac_kernel_window *w, const void *weights, const float *bias,
     bool relu, float slope, cudaStream_t stream)
{
    window(w);
    filter(w, weights, 1, w->y_channels);
    reads("bias", bias, (size_t)w->y_channels, SAC_F32);
    return launched(__real_sac_kernel_depthwise(w, weights, bias, relu, slope, stream));
}

WRAP(deconv, const struct sac_kernel_window *w, const void *weights, int group, cudaStream_t stream)
{
    window(w);
    filter(w, weights, w->x_channels, w->y_channels / group);
    return launched(__real_sac_kernel_deconv(w, weights, group, stream));
}

static void lrn(const struct sac_kernel_lrn *p)
{
    size_t count = (size_t)p->batch * (size_t)p->height * (size_t)p->width;

    rows("x", p->x, count, p->channels, p->x_pitch, p->type, 0);
    rows("y", p->y, count, p->channels, p->y_pitch, p->type, 1);
}

WRAP(lrn_across, const struct sac_kernel_lrn *p, cudaStream_t stream)
{
    lrn(p);
    return launched(__real_sac_kernel_lrn_across(p, stream));
}

WRAP(lrn_within, const struct sac_kernel_lrn *p, cudaStream_t stream)
{
    lrn(p);
    return launched(__real_sac_kernel_lrn_within(p, stream));
}

WRAP(softmax, const struct sac_kernel_softmax *p, cudaStream_t stream)
{
    size_t count = (size_t)p->outer * p->count * p->inner;

    reads("x", p->x, count, p->type);
    writes("y", p->y, count, SAC_F32);
    return launched(__real_sac_kernel_softmax(p, stream));
}

WRAP(topk, const void *x, int type, uint32_t row_count, uint32_t count, int k,
     struct sac_topk_pair *y, cudaStream_t stream)
{
    reads("x", x, (size_t)row_count * count, type);
    sim_launch_touches("y", y, (size_t)row_count * (size_t)k * sizeof *y, 1);
    return launched(__real_sac_kernel_topk(x, type, row_count, count, k, y, stream));
}

WRAP(pixels, const struct sac_kernel_pixels *p, cudaStream_t stream)
{
    size_t picture = (size_t)p->plane * (size_t)p->channels;

    reads("x", p->x, p->batch * picture, SAC_U8);
    reads("mean image", p->mean_image, picture, SAC_F32);
    writes("y", p->y, (size_t)p->batch * p->plane * (size_t)p->width, p->type);
    return launched(__real_sac_kernel_pixels(p, stream));
}

WRAP(statistics, const struct sac_kernel_statistics *p, cudaStream_t stream)
{
    reads("x", p->x, (size_t)p->outer * p->channels * p->inner, p->type);
    sim_launch_touches("work", p->work, sac_kernel_columns_bytes(p->outer, p->channels, p->inner),
                       1);
    writes("factor", p->factor, p->channels, SAC_F32);
    writes("bias", p->bias, p->channels, SAC_F32);
    reads("gamma", p->gamma, p->channels, SAC_F32);
    reads("beta", p->beta, p->channels, SAC_F32);
    writes("whole", p->whole, 2 * (size_t)p->channels, SAC_F32);
    writes("running mean", p->running_mean, p->channels, SAC_F32);
    writes("running variance", p->running_variance, p->channels, SAC_F32);
    writes("running count", p->running_count, 1, SAC_F32);
    return launched(__real_sac_kernel_statistics(p, stream));
}

WRAP(inner, const struct sac_kernel_inner *p, cudaStream_t stream)
{
    reads("x", p->x, (size_t)p->rows * p->in, p->type);
    reads("weights", p->weights, (size_t)p->in * p->out, p->type);
    reads("bias", p->bias, p->out, SAC_F32);
    writes("y", p->y, (size_t)p->rows * p->out, p->y_type);
    return launched(__real_sac_kernel_inner(p, stream));
}
