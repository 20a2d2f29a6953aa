/* exp(x − max) / Σ along one axis; results are fp32. */
#include "kernels/element.h"
#include "kernels/kernels.h"

#include <math.h>

enum { THREADS = 128 };
static const uint32_t blocks_max = 65535;

/* All threads of the block together; `shared` is free again afterwards. */
SAC_DEVICE float reduce(float *shared, float value, bool largest)
{
    shared[threadIdx.x] = value;
    SAC_SYNC();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            float other = shared[threadIdx.x + half], own = shared[threadIdx.x];
            shared[threadIdx.x] = !largest ? own + other : other > own ? other : own;
        }
        SAC_SYNC();
    }
    float out = shared[0];
    SAC_SYNC();
    return out;
}

/* A block a row; inner is 1. */
SAC_KERNEL rows(struct sac_kernel_softmax p)
{
    SAC_SHARED(float, shared, THREADS);

    for (uint32_t row = blockIdx.x; row < p.outer; row += gridDim.x) {
        int64_t at = (int64_t)row * p.count;
        float most = -INFINITY, sum = 0;
        for (uint32_t i = threadIdx.x; i < p.count; i += THREADS)
            most = fmaxf(most, sac_load(p.x, p.type, at + i));
        most = reduce(shared, most, true);
        for (uint32_t i = threadIdx.x; i < p.count; i += THREADS)
            sum += expf(sac_load(p.x, p.type, at + i) - most);
        sum = reduce(shared, sum, false);
        for (uint32_t i = threadIdx.x; i < p.count; i += THREADS)
            p.y[at + i] = expf(sac_load(p.x, p.type, at + i) - most) / sum;
    }
}

/* A thread a row. */
SAC_KERNEL columns(struct sac_kernel_softmax p)
{
    SAC_EACH(row, p.outer * p.inner)
    {
        int64_t at = (int64_t)(row / p.inner) * p.count * p.inner + row % p.inner;
        float most = -INFINITY, sum = 0;
        for (uint32_t i = 0; i < p.count; i++)
            most = fmaxf(most, sac_load(p.x, p.type, at + (int64_t)i * p.inner));
        for (uint32_t i = 0; i < p.count; i++)
            sum += expf(sac_load(p.x, p.type, at + (int64_t)i * p.inner) - most);
        for (uint32_t i = 0; i < p.count; i++) {
            int64_t to = at + (int64_t)i * p.inner;
            p.y[to] = expf(sac_load(p.x, p.type, to) - most) / sum;
        }
    }
}

cudaError_t sac_kernel_softmax(const struct sac_kernel_softmax *p, cudaStream_t stream)
{
    unsigned blocks = p->outer < blocks_max ? p->outer : blocks_max;

    if (p->outer == 0 || p->count == 0 || p->inner == 0)
        return cudaSuccess;
    if (p->inner == 1 && p->count >= 32)
        SAC_LAUNCH(rows, blocks, THREADS, 0, stream, *p);
    else
        SAC_LAUNCH(columns, sac_blocks(p->outer * p->inner), SAC_BLOCK, 0, stream, *p);
    return cudaGetLastError();
}
