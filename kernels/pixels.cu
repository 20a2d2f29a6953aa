/* 8-bit pictures to the net's input: mean, scale, channel order, precision. */
#include "kernels/element.h"
#include "kernels/kernels.h"

SAC_KERNEL pixels(struct sac_kernel_pixels p)
{
    SAC_EACH(pixel, p.batch * p.plane)
    {
        int64_t at = (int64_t)pixel * p.channels, to = (int64_t)pixel * p.width;
        int64_t mean_at = (int64_t)(pixel % p.plane) * p.channels;
        for (int c = 0; c < p.channels; c++) {
            int from = p.swap && p.channels >= 3 && c < 3 ? 2 - c : c;
            float mean = p.mean_image ? p.mean_image[mean_at + c] : p.mean[c < 4 ? c : 3];
            sac_store(p.y, p.type, to + c, ((float)p.x[at + from] - mean) * p.scale);
        }
        for (int c = p.channels; c < p.width; c++)
            sac_store(p.y, p.type, to + c, 0);
    }
}

cudaError_t sac_kernel_pixels(const struct sac_kernel_pixels *p, cudaStream_t stream)
{
    if (p->batch * p->plane > 0)
        SAC_LAUNCH(pixels, sac_blocks(p->batch * p->plane), SAC_BLOCK, 0, stream, *p);
    return cudaGetLastError();
}
