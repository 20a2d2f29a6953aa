/* A training batch's 8-bit crops to the net's input: mirror, colours, mean, scale, noise,
 * cutout. */
#include "device/changes.h"
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

/* All channels of a pixel of three, else any one. */
SAC_DEVICE void change_colors(unsigned changes, const struct sac_crop_change &change, float *x,
                              int channels)
{
    float &red = x[change.rgb ? 0 : 2], &green = x[1], &blue = x[change.rgb ? 2 : 0];

    for (int c = 0; c < channels; c++) {
        if (changes & SAC_CROP_BRIGHTNESS)
            x[c] = sac_clip_255(x[c] * change.brightness);
        if (changes & SAC_CROP_CONTRAST)
            x[c] = sac_from_grey(change.grey, x[c], change.contrast);
    }
    if (changes & SAC_CROP_SATURATION) {
        float grey = sac_luma(red, green, blue);
        for (int c = 0; c < channels; c++)
            x[c] = sac_from_grey(grey, x[c], change.saturation);
    }
    if (changes & SAC_CROP_HUE)
        sac_turn_hue(&red, &green, &blue, change.hue);
}

SAC_DEVICE void block_of(const struct sac_crop_change &change, uint32_t index, uint32_t numbers[4])
{
    const uint32_t counter[4] = {change.noise_counter[0] + index, change.noise_counter[1],
                                 change.noise_counter[2], change.noise_counter[3]};

    sac_philox(counter, change.noise_key, numbers);
}

/* Of two numbers side by side, which may be a block's last and the next one's first. */
SAC_DEVICE float noise_of(const struct sac_crop_change &change, uint32_t value)
{
    uint32_t at = change.noise_first + 2 * value, numbers[4];

    block_of(change, at / 4, numbers);
    uint32_t first = numbers[at % 4];
    if (at % 4 == 3)
        block_of(change, at / 4 + 1, numbers);
    return sac_normal_of(first, numbers[(at + 1) % 4]);
}

SAC_DEVICE bool is_cut(const struct sac_crop_change &change, int y, int x)
{
    return y >= change.cut_top && y < change.cut_bottom && x >= change.cut_left &&
           x < change.cut_right;
}

/* `count` channels from `c`, of one pixel; out[0] is channel c's. */
SAC_DEVICE void pixel(const struct sac_crops &p, uint32_t n, int c, int count, int y, int x,
                      float *out)
{
    const struct sac_crop_place &place = p.places[n];
    int column = place.mirror ? p.width - 1 - x : x;
    int source_y = place.y + y, source_x = place.x + column;

    for (int i = 0; i < count; i++)
        out[i] = 0;
    if (source_y < 0 || source_y >= place.height || source_x < 0 || source_x >= place.width)
        return;
    const uint8_t *from = p.from + (int64_t)n * p.channels * p.height * p.width + p.layout.first +
                          y * p.layout.row + column * p.layout.pixel;
    for (int i = 0; i < count; i++)
        out[i] = (float)from[(c + i) * p.layout.plane];
    change_colors(p.changes, place.change, out, count);
    for (int i = 0; i < count; i++)
        out[i] = (out[i] - mean_of(p, place, c + i, y, x, source_y, source_x)) * p.scale;
}

SAC_KERNEL crops(struct sac_crops p)
{
    uint32_t area = (uint32_t)p.height * p.width;
    int together = p.channels == 3 ? 3 : 1;

    SAC_EACH(i, p.count * area)
    {
        uint32_t n = i / area, at = i % area;
        int y = (int)(at / p.width), x = (int)(at % p.width);
        const struct sac_crop_change &change = p.places[n].change;
        for (int c = 0; c < p.channels; c += together) {
            float values[3];
            pixel(p, n, c, together, y, x, values);
            for (int k = 0; k < together; k++) {
                uint32_t value = (c + k) * area + at;
                if (p.changes & SAC_CROP_NOISE)
                    values[k] += p.noise_deviation * noise_of(change, value);
                if ((p.changes & SAC_CROP_CUTOUT) && is_cut(change, y, x))
                    values[k] = 0;
                p.to[n * area * p.channels + value] = values[k];
            }
        }
    }
}

cudaError_t sac_kernel_crops(const struct sac_crops *p, cudaStream_t stream)
{
    uint32_t pixels = (uint32_t)p->count * p->height * p->width;

    if (pixels > 0)
        SAC_LAUNCH(crops, sac_blocks(pixels), SAC_BLOCK, 0, stream, *p);
    return cudaGetLastError();
}
