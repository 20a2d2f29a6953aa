/* Sums of each channel over a batch, and what batch norm makes of them. Rows are cut
 * into parts by the shape alone; a part's sums are added up in the parts' order. */
#include "kernels/element.h"
#include "kernels/training.h"

#include <math.h>

enum { WIDTH = 32, HEIGHT = 8, ROWS_LEAST = 512, BLOCKS = 1024 };

static uint32_t parts_of(uint64_t rows, uint32_t channels)
{
    uint32_t tiles = (channels + WIDTH - 1) / WIDTH;
    uint64_t parts = (rows + ROWS_LEAST - 1) / ROWS_LEAST, most = BLOCKS / (tiles ? tiles : 1);

    parts = parts < most ? parts : most;
    return parts > 0 ? (uint32_t)parts : 1;
}

size_t sac_kernel_columns_bytes(uint32_t outer, uint32_t channels, uint32_t inner)
{
    return (size_t)parts_of((uint64_t)outer * inner, channels) * channels * 2 * sizeof(float);
}

SAC_DEVICE float product_at(const struct sac_kernel_columns &p, uint32_t c, int64_t at, float u)
{
    float v = sac_load(p.v, p.v_type, at);

    if (p.scale)
        v = v * p.scale[c] + p.shift[c];
    return p.negative && v > 0 ? 0 : u * v;
}

/* A block has WIDTH channels of one part; a warp reads neighbours. */
SAC_KERNEL part_sums(struct sac_kernel_columns p, uint32_t parts)
{
    SAC_SHARED(float, sums, WIDTH *HEIGHT);
    SAC_SHARED(float, products, WIDTH *HEIGHT);
    uint32_t part = blockIdx.x % parts, c = blockIdx.x / parts * WIDTH + threadIdx.x % WIDTH;
    uint32_t rows = p.outer * p.inner, many = (rows + parts - 1) / parts;
    uint32_t end = (part + 1) * many < rows ? (part + 1) * many : rows;
    float sum = 0, product = 0;

    for (uint32_t row = part * many + threadIdx.x / WIDTH; c < p.channels && row < end;
         row += HEIGHT) {
        int64_t at = ((int64_t)(row / p.inner) * p.channels + c) * p.inner + row % p.inner;
        float u = sac_load(p.u, p.u_type, at);
        sum += u;
        if (p.v)
            product += product_at(p, c, at, u);
    }
    sums[threadIdx.x] = sum;
    products[threadIdx.x] = product;
    SAC_SYNC();
    if (threadIdx.x < WIDTH && c < p.channels) {
        for (int y = 1; y < HEIGHT; y++) {
            sum += sums[y * WIDTH + threadIdx.x];
            product += products[y * WIDTH + threadIdx.x];
        }
        p.work[(int64_t)part * p.channels + c] = sum;
        p.work[((int64_t)parts + part) * p.channels + c] = product;
    }
}

SAC_KERNEL whole_sums(struct sac_kernel_columns p, uint32_t parts)
{
    SAC_EACH(c, p.channels)
    {
        float sum = 0, product = 0;
        for (uint32_t part = 0; part < parts; part++) {
            sum += p.work[(int64_t)part * p.channels + c];
            product += p.work[((int64_t)parts + part) * p.channels + c];
        }
        if (p.sum)
            p.sum[c] = p.add ? p.sum[c] + sum : sum;
        if (p.product)
            p.product[c] = p.add ? p.product[c] + product : product;
    }
}

cudaError_t sac_kernel_columns(const struct sac_kernel_columns *p, cudaStream_t stream)
{
    uint32_t parts = parts_of((uint64_t)p->outer * p->inner, p->channels);
    uint32_t tiles = (p->channels + WIDTH - 1) / WIDTH;

    if (p->channels == 0)
        return cudaSuccess;
    SAC_LAUNCH(part_sums, tiles * parts, WIDTH * HEIGHT, 0, stream, *p, parts);
    SAC_LAUNCH(whole_sums, sac_blocks(p->channels), SAC_BLOCK, 0, stream, *p, parts);
    return cudaGetLastError();
}

SAC_KERNEL norm_factors(struct sac_kernel_norm_factors p)
{
    float unscale = *p.s == 0 ? 0 : 1 / *p.s;

    SAC_EACH(c, p.channels)
    {
        float factor = 1 / sqrtf(p.variance[c] * unscale + p.eps);
        p.factor[c] = factor;
        p.bias[c] = -p.mean[c] * unscale * factor;
    }
}

cudaError_t sac_kernel_norm_factors(const struct sac_kernel_norm_factors *p, cudaStream_t stream)
{
    if (p->channels > 0)
        SAC_LAUNCH(norm_factors, sac_blocks(p->channels), SAC_BLOCK, 0, stream, *p);
    return cudaGetLastError();
}

SAC_KERNEL norm_back(struct sac_kernel_norm_back p, uint32_t count)
{
    float one = 1 / ((float)p.outer * p.inner);

    SAC_EACH(i, count)
    {
        uint32_t c = i / p.inner % p.channels;
        float unit = sac_load(p.x, p.type, i) * p.factor[c] + p.bias[c];
        float d = sac_load(p.dy, p.type, i) - p.sum[c] * one - unit * (p.along[c] * one);
        sac_store(p.dx, p.type, i, p.factor[c] * d);
    }
}

cudaError_t sac_kernel_norm_back(const struct sac_kernel_norm_back *p, cudaStream_t stream)
{
    uint32_t count = p->outer * p->channels * p->inner;

    if (count > 0)
        SAC_LAUNCH(norm_back, sac_blocks(count), SAC_BLOCK, 0, stream, *p, count);
    return cudaGetLastError();
}
