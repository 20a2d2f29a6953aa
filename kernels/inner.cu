/* Inner products whose sums do not depend on the batch. */
#include "kernels/element.h"
#include "kernels/kernels.h"

SAC_KERNEL inner(struct sac_kernel_inner p)
{
    SAC_EACH(unit, p.rows * p.out)
    {
        uint32_t o = unit % p.out, row = unit / p.out;
        float sum = p.bias ? p.bias[o] : 0;
        for (uint32_t i = 0; i < p.in; i++)
            sum += sac_load(p.x, p.type, (int64_t)row * p.in + i) *
                   sac_load(p.weights, p.type, (int64_t)i * p.out + o);
        sum = p.relu && sum < 0 ? sum * p.slope : sum;
        sac_store(p.y, p.y_type, (int64_t)row * p.out + o, sum);
    }
}

cudaError_t sac_kernel_inner(const struct sac_kernel_inner *p, cudaStream_t stream)
{
    if (p->rows * p->out > 0)
        SAC_LAUNCH(inner, sac_blocks(p->rows * p->out), SAC_BLOCK, 0, stream, *p);
    return cudaGetLastError();
}
