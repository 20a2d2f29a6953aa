/* What maps each number by itself: activations, factors and biases, sums. */
#include "kernels/element.h"
#include "kernels/kernels.h"

#include <math.h>

SAC_DEVICE float apply(const struct sac_kernel_map &p, float x, uint32_t j)
{
    switch (p.map) {
    case SAC_MAP_LINEAR:
        if (p.factor)
            x *= sac_load(p.factor, p.factor_type, j);
        return p.bias ? x + p.bias[j] : x;
    case SAC_MAP_ADD:
        return x + sac_load(p.factor, p.factor_type, j);
    case SAC_MAP_PRELU:
        return x < 0 ? x * sac_load(p.factor, p.factor_type, j) : x;
    case SAC_MAP_SIGMOID:
        return 1 / (1 + expf(-x));
    case SAC_MAP_TANH:
        return tanhf(x);
    case SAC_MAP_ELU:
        return x > 0 ? x : p.a * expm1f(x);
    default: {
        float base = p.c + p.b * x;
        return p.a == 1 ? base : p.a == 2 ? base * base : powf(base, p.a);
    }
    }
}

template <int V> SAC_KERNEL map(struct sac_kernel_map p)
{
    SAC_EACH(unit, p.count / V)
    {
        uint32_t i = unit * V, j = i / p.inner % p.factors;
        sac_vector<V> x = sac_load_vector<V>(p.x, p.type, i), sum = {};
        if (p.sum)
            sum = sac_load_vector<V>(p.sum, p.type, i);
        for (int k = 0; k < V; k++) {
            float y = apply(p, x.v[k], j);
            if (p.sum)
                y += sum.v[k];
            x.v[k] = p.relu && y < 0 ? y * p.slope : y;
            if (p.inner == 1)
                j = j + 1 < p.factors ? j + 1 : 0;
            else if (k + 1 < V)
                j = (i + k + 1) / p.inner % p.factors;
        }
        sac_store_vector<V>(p.y, p.type, i, x);
    }
}

cudaError_t sac_kernel_map(const struct sac_kernel_map *p, cudaStream_t stream)
{
    struct sac_kernel_map q = *p;

    if (q.count == 0)
        return cudaSuccess;
    q.inner = q.inner > 0 ? q.inner : 1;
    q.factors = q.factors > 0 ? q.factors : 1;
    if (q.count % 8 == 0 && sac_takes_eights(q.x, q.type) && sac_takes_eights(q.y, q.type) &&
        sac_takes_eights(q.sum, q.type))
        SAC_LAUNCH(map<8>, sac_blocks(q.count / 8), SAC_BLOCK, 0, stream, q);
    else
        SAC_LAUNCH(map<1>, sac_blocks(q.count), SAC_BLOCK, 0, stream, q);
    return cudaGetLastError();
}
