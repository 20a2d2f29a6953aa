/* The way back through what maps numbers one by one, and dropout both ways. */
#include "kernels/element.h"
#include "kernels/training.h"

#include <math.h>

SAC_DEVICE float slope_at(const struct sac_kernel_slope &p, float v, uint32_t j)
{
    switch (p.slope) {
    case SAC_SLOPE_FACTOR:
        return sac_load(p.factor, p.factor_type, j);
    case SAC_SLOPE_RELU:
        return v > 0 ? 1 : p.a;
    case SAC_SLOPE_PRELU:
        return v > 0 ? 1 : sac_load(p.factor, p.factor_type, j);
    case SAC_SLOPE_SIGMOID:
        return v * (1 - v);
    case SAC_SLOPE_TANH:
        return 1 - v * v;
    case SAC_SLOPE_ELU:
        return v > 0 ? 1 : p.a * expf(v);
    default:
        if (p.a == 0 || p.a == 1)
            return p.a == 0 ? 0 : p.b;
        return p.a == 2 ? 2 * p.b * (p.c + p.b * v) : p.a * p.b * powf(p.c + p.b * v, p.a - 1);
    }
}

template <int V> SAC_KERNEL slope(struct sac_kernel_slope p)
{
    SAC_EACH(unit, p.count / V)
    {
        uint32_t i = unit * V;
        sac_vector<V> dy = sac_load_vector<V>(p.dy, p.type, i), v = {};
        if (p.v)
            v = sac_load_vector<V>(p.v, p.type, i);
        for (int k = 0; k < V; k++)
            dy.v[k] *= slope_at(p, v.v[k], (i + k) / p.inner % p.factors);
        sac_store_vector<V>(p.dx, p.type, i, dy);
    }
}

cudaError_t sac_kernel_slope(const struct sac_kernel_slope *p, cudaStream_t stream)
{
    struct sac_kernel_slope q = *p;

    if (q.count == 0)
        return cudaSuccess;
    q.inner = q.inner > 0 ? q.inner : 1;
    q.factors = q.factors > 0 ? q.factors : 1;
    if (q.count % 8 == 0 && sac_takes_eights(q.v, q.type) && sac_takes_eights(q.dy, q.type) &&
        sac_takes_eights(q.dx, q.type))
        SAC_LAUNCH(slope<8>, sac_blocks(q.count / 8), SAC_BLOCK, 0, stream, q);
    else
        SAC_LAUNCH(slope<1>, sac_blocks(q.count), SAC_BLOCK, 0, stream, q);
    return cudaGetLastError();
}

/* ---- Several sources ---- */

SAC_DEVICE int largest(const struct sac_kernel_eltwise_back &p, uint32_t i)
{
    float most = sac_load(p.x[0], p.type, i), other = sac_load(p.x[1], p.type, i);
    int best = most > other ? 0 : 1;

    most = best ? other : most;
    for (int k = 2; k < p.sources; k++) {
        float x = sac_load(p.x[k], p.type, i);
        best = x > most ? k : best;
        most = x > most ? x : most;
    }
    return best;
}

SAC_KERNEL eltwise_back(struct sac_kernel_eltwise_back p)
{
    SAC_EACH(i, p.count)
    {
        float d = sac_load(p.dy, p.type, i);
        if (p.method == SAC_ELTWISE_MAX)
            d = largest(p, i) == p.source ? d : 0;
        for (int k = 0; p.method == SAC_ELTWISE_PROD && k < p.sources; k++)
            d *= k == p.source ? 1 : sac_load(p.x[k], p.type, i);
        sac_store(p.dx, p.type, i, d);
    }
}

cudaError_t sac_kernel_eltwise_back(const struct sac_kernel_eltwise_back *p, cudaStream_t stream)
{
    if (p->count > 0)
        SAC_LAUNCH(eltwise_back, sac_blocks(p->count), SAC_BLOCK, 0, stream, *p);
    return cudaGetLastError();
}

/* ---- Dropout: base/random.h's numbers ---- */

SAC_DEVICE float unit_number(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)(x >> 40) * (1.0f / 16777216);
}

SAC_KERNEL dropout(struct sac_kernel_dropout p, uint32_t count)
{
    float scale = 1 / (1 - p.ratio);

    SAC_EACH(i, count)
    {
        uint32_t at = i;
        if (p.last) {
            uint32_t c = i % p.channels, row = i / p.channels;
            at = (row / p.inner * p.channels + c) * p.inner + row % p.inner;
        }
        float x = sac_load(p.x, p.type, i);
        sac_store(p.y, p.type, i, unit_number(p.key + at) < p.ratio ? 0 : x * scale);
    }
}

cudaError_t sac_kernel_dropout(const struct sac_kernel_dropout *p, cudaStream_t stream)
{
    uint32_t count = p->outer * p->channels * p->inner;

    if (count > 0)
        SAC_LAUNCH(dropout, sac_blocks(count), SAC_BLOCK, 0, stream, *p, count);
    return cudaGetLastError();
}
