/* The solvers' rules, a block a chunk, and what is asked of gradients before. */
#include "kernels/element.h"
#include "kernels/training.h"

#include <math.h>

enum { THREADS = 256, PARTS = SAC_SUM_DOUBLES - 1, LEAST = 16384 /* numbers of a part */ };

struct element {
    float w, h, k;
};

SAC_DEVICE struct element step(const struct sac_update &u, float rate, float g, struct element e)
{
    float v;

    switch (u.rule) {
    case SAC_UPDATE_SGD:
        e.h = u.momentum * e.h + rate * g;
        e.w -= e.h;
        break;
    case SAC_UPDATE_NESTEROV:
        v = u.momentum * e.h + rate * g;
        e.w -= (1 + u.momentum) * v - u.momentum * e.h;
        e.h = v;
        break;
    case SAC_UPDATE_ADA_GRAD:
        e.h += g * g;
        e.w -= rate * (g / (sqrtf(e.h) + u.delta));
        break;
    case SAC_UPDATE_RMS_PROP:
        e.h = u.second * e.h + (1 - u.second) * (g * g);
        e.w -= rate * (g / (sqrtf(e.h) + u.delta));
        break;
    case SAC_UPDATE_ADA_DELTA:
        e.h = u.momentum * e.h + (1 - u.momentum) * (g * g);
        v = g * sqrtf((e.k + u.delta) / (e.h + u.delta));
        e.k = u.momentum * e.k + (1 - u.momentum) * (v * v);
        e.w -= rate * v;
        break;
    default:
        e.h = u.momentum * e.h + (1 - u.momentum) * g;
        e.k = u.second * e.k + (1 - u.second) * (g * g);
        e.w -= rate * (e.h / (sqrtf(e.k) + u.delta));
        break;
    }
    return e;
}

SAC_KERNEL update(struct sac_update u)
{
    for (size_t n = blockIdx.x; n < u.chunk_count; n += gridDim.x) {
        struct sac_update_chunk chunk = u.chunks[n];
        float rate = u.rate * chunk.lr_mult * u.correction;
        for (uint32_t i = threadIdx.x; i < chunk.count; i += THREADS) {
            uint64_t at = chunk.at + i;
            struct element e = {u.w[at], u.h[at], u.k ? u.k[at] : 0};
            float g = u.g[at] * u.clip * u.share;
            if (chunk.decay != 0)
                g += chunk.decay * (u.l1 ? (float)((e.w > 0) - (e.w < 0)) : e.w);
            e = step(u, rate, g, e);
            u.w[at] = e.w;
            u.h[at] = e.h;
            if (u.k)
                u.k[at] = e.k;
        }
    }
}

cudaError_t sac_kernel_update(const struct sac_update *u, cudaStream_t stream)
{
    unsigned blocks = u->chunk_count < 65535 ? (unsigned)u->chunk_count : 65535;

    if (blocks > 0)
        SAC_LAUNCH(update, blocks, THREADS, 0, stream, *u);
    return cudaGetLastError();
}

/* A block a part, the same numbers whatever the card; then one thread adds the parts up. */
SAC_KERNEL square_parts(const float *values, size_t count, unsigned parts, double *work)
{
    SAC_SHARED(double, shared, THREADS);
    double sum = 0;

    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (size_t)parts * THREADS)
        sum += (double)values[i] * (double)values[i];
    shared[threadIdx.x] = sum;
    SAC_SYNC();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] += shared[threadIdx.x + half];
        SAC_SYNC();
    }
    if (threadIdx.x == 0)
        work[1 + blockIdx.x] = shared[0];
}

SAC_KERNEL add_parts(unsigned parts, double *work)
{
    double sum = 0;

    for (unsigned i = 0; i < parts && threadIdx.x == 0; i++)
        sum += work[1 + i];
    if (threadIdx.x == 0)
        work[0] = sum;
}

cudaError_t sac_kernel_sum_of_squares(const float *values, size_t count, double *work,
                                      cudaStream_t stream)
{
    size_t wanted = (count + LEAST - 1) / LEAST;
    unsigned parts = wanted < 1 ? 1 : wanted < PARTS ? (unsigned)wanted : (unsigned)PARTS;

    SAC_LAUNCH(square_parts, parts, THREADS, 0, stream, values, count, parts, work);
    SAC_LAUNCH(add_parts, 1, 32, 0, stream, parts, work);
    return cudaGetLastError();
}
