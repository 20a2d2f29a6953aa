/* Mean and variance of each channel over a batch: a block a channel, two passes. */
#include "kernels/element.h"
#include "kernels/kernels.h"

#include <math.h>

enum { THREADS = 256 };

SAC_DEVICE float sum_of(float *shared, float value)
{
    shared[threadIdx.x] = value;
    SAC_SYNC();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] += shared[threadIdx.x + half];
        SAC_SYNC();
    }
    float out = shared[0];
    SAC_SYNC();
    return out;
}

/* Σ (x − shift)^power over one channel. */
SAC_DEVICE float moment(const struct sac_kernel_statistics &p, uint32_t c, float shift, bool square,
                        float *shared)
{
    float sum = 0;

    for (uint32_t i = threadIdx.x; i < p.outer * p.inner; i += THREADS) {
        int64_t at = ((int64_t)(i / p.inner) * p.channels + c) * p.inner + i % p.inner;
        float x = sac_load(p.x, p.type, at) - shift;
        sum += square ? x * x : x;
    }
    return sum_of(shared, sum);
}

SAC_DEVICE void keep_running(const struct sac_kernel_statistics &p, uint32_t c, float mean,
                             float variance, float count)
{
    float unbias = count > 1 ? count / (count - 1) : 1;

    p.running_mean[c] = p.fraction * p.running_mean[c] + mean;
    p.running_variance[c] = p.fraction * p.running_variance[c] + unbias * variance;
    if (c == 0)
        *p.running_count = p.fraction * *p.running_count + 1;
}

SAC_KERNEL statistics(struct sac_kernel_statistics p)
{
    SAC_SHARED(float, shared, THREADS);
    float count = (float)p.outer * p.inner;

    for (uint32_t c = blockIdx.x; c < p.channels; c += gridDim.x) {
        float mean = moment(p, c, 0, false, shared) / count;
        float variance = moment(p, c, mean, true, shared) / count;
        float factor = 1 / sqrtf(variance + p.eps);
        if (threadIdx.x == 0) {
            p.factor[c] = factor;
            p.bias[c] = -mean * factor;
            if (p.running_mean)
                keep_running(p, c, mean, variance, count);
        }
    }
}

cudaError_t sac_kernel_statistics(const struct sac_kernel_statistics *p, cudaStream_t stream)
{
    if (p->channels > 0 && p->outer > 0 && p->inner > 0)
        SAC_LAUNCH(statistics, p->channels, THREADS, 0, stream, *p);
    return cudaGetLastError();
}
