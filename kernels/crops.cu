/* A training batch's 8-bit crops to the net's input: mirror, mean, scale. */
#include "kernels/element.h"
#include "kernels/training.h"

SAC_DEVICE float mean_of(const struct sac_crops &p, const struct sac_crop_place &place, int c, int y,
                         int x, int source_y, int source_x)
{
    if (!p.mean)
        return 0;
    if (p.mean_count > 0)
        return p.mean[p.mean_count > 1 ? c : 0];
    if (place.height == p.mean_height && place.width == p.mean_width)
        return p.mean[((int64_t)c * place.height + source_y) * place.width + source_x];
    return p.mean[(c * p.height + y) * p.width + x];
}

SAC_KERNEL crops(struct sac_crops p)
{
    uint32_t area = (uint32_t)p.height * p.width, item = area * p.channels;

    SAC_EACH(i, p.count * item)
    {
        uint32_t n = i / item, at = i % item;
        int c = (int)(at / area), y = (int)(at % area / p.width), x = (int)(at % p.width);
        struct sac_crop_place place = p.places[n];
        int column = place.mirror ? p.width - 1 - x : x;
        int source_y = place.y + y, source_x = place.x + column;
        float value = 0;
        if (source_y >= 0 && source_y < place.height && source_x >= 0 && source_x < place.width) {
            const uint8_t *from = p.from + (int64_t)n * item + p.layout.first;
            value = (float)from[c * p.layout.plane + y * p.layout.row + column * p.layout.pixel];
            value = (value - mean_of(p, place, c, y, x, source_y, source_x)) * p.scale;
        }
        p.to[i] = value;
    }
}

cudaError_t sac_kernel_crops(const struct sac_crops *p, cudaStream_t stream)
{
    uint32_t count = (uint32_t)p->count * p->channels * p->height * p->width;

    if (count > 0)
        SAC_LAUNCH(crops, sac_blocks(count), SAC_BLOCK, 0, stream, *p);
    return cudaGetLastError();
}
