/* Local response normalization, both of Caffe's forms. */
#include "kernels/element.h"
#include "kernels/kernels.h"

#include <math.h>

/* base^−beta; beta is .75 in every published net. */
SAC_DEVICE float to_minus(float base, float beta)
{
    if (beta == .75f) {
        float root = 1 / sqrtf(base);
        return root * sqrtf(root);
    }
    return powf(base, -beta);
}

/* x · (k + alpha · Σ x²)^−beta over `size` channels around x's own. */
SAC_KERNEL across(struct sac_kernel_lrn p, uint32_t count)
{
    SAC_EACH(unit, count)
    {
        int c = unit % p.channels, half = p.size / 2;
        int64_t row = unit / p.channels;
        int first = c - half > 0 ? c - half : 0;
        int last = c + half < p.channels - 1 ? c + half : p.channels - 1;
        float sum = 0;
        for (int i = first; i <= last; i++) {
            float x = sac_load(p.x, p.type, row * p.x_pitch + i);
            sum += x * x;
        }
        float x = sac_load(p.x, p.type, row * p.x_pitch + c);
        sac_store(p.y, p.type, row * p.y_pitch + c, x * to_minus(p.k + p.alpha * sum, p.beta));
    }
}

SAC_DEVICE void load_squares(const struct sac_kernel_lrn &p, int64_t row, int c, float *out)
{
    sac_vector<8> x = {};

    if (c >= 0 && c < p.channels)
        x = sac_load_vector<8>(p.x, p.type, row * p.x_pitch + c);
    for (int k = 0; k < 8; k++)
        out[k] = x.v[k] * x.v[k];
}

/* Eight channels a thread: the eights before and behind hold their neighbours. */
template <int HALF> SAC_KERNEL across_eights(struct sac_kernel_lrn p, uint32_t count)
{
    uint32_t units = p.channels / 8;

    SAC_EACH(unit, count)
    {
        int c = unit % units * 8;
        int64_t row = unit / units;
        float squares[24];
        load_squares(p, row, c - 8, squares);
        load_squares(p, row, c, squares + 8);
        load_squares(p, row, c + 8, squares + 16);
        sac_vector<8> y = sac_load_vector<8>(p.x, p.type, row * p.x_pitch + c);
        for (int k = 0; k < 8; k++) {
            float sum = 0;
            for (int i = -HALF; i <= HALF; i++)
                sum += squares[8 + k + i];
            y.v[k] *= to_minus(p.k + p.alpha * sum, p.beta);
        }
        sac_store_vector<8>(p.y, p.type, row * p.y_pitch + c, y);
    }
}

static bool by_eights(const struct sac_kernel_lrn *p)
{
    return p->channels % 8 == 0 && p->x_pitch % 8 == 0 && p->y_pitch % 8 == 0 &&
           sac_takes_eights(p->x, p->type) && sac_takes_eights(p->y, p->type);
}

cudaError_t sac_kernel_lrn_across(const struct sac_kernel_lrn *p, cudaStream_t stream)
{
    uint32_t count = (uint32_t)p->batch * p->height * p->width * p->channels;
    uint32_t eights = count / 8;

    if (count == 0)
        return cudaSuccess;
    if (by_eights(p) && p->size / 2 == 2)
        SAC_LAUNCH(across_eights<2>, sac_blocks(eights), SAC_BLOCK, 0, stream, *p, eights);
    else if (by_eights(p) && p->size / 2 == 1)
        SAC_LAUNCH(across_eights<1>, sac_blocks(eights), SAC_BLOCK, 0, stream, *p, eights);
    else
        SAC_LAUNCH(across, sac_blocks(count), SAC_BLOCK, 0, stream, *p, count);
    return cudaGetLastError();
}

/* x · (1 + alpha · Σ x²)^−beta over size × size positions of x's own channel. */
SAC_KERNEL within(struct sac_kernel_lrn p, uint32_t count)
{
    SAC_EACH(unit, count)
    {
        int c = unit % p.channels, half = p.size / 2;
        int64_t row = unit / p.channels;
        int x = row % p.width, y = row / p.width % p.height;
        float sum = 0;
        for (int dy = -half; dy <= half; dy++) {
            for (int dx = -half; dx <= half; dx++) {
                if (y + dy < 0 || y + dy >= p.height || x + dx < 0 || x + dx >= p.width)
                    continue;
                float near = sac_load(p.x, p.type, (row + dy * p.width + dx) * p.x_pitch + c);
                sum += near * near;
            }
        }
        float own = sac_load(p.x, p.type, row * p.x_pitch + c);
        sac_store(p.y, p.type, row * p.y_pitch + c, own * to_minus(1 + p.alpha * sum, p.beta));
    }
}

cudaError_t sac_kernel_lrn_within(const struct sac_kernel_lrn *p, cudaStream_t stream)
{
    uint32_t count = (uint32_t)p->batch * p->height * p->width * p->channels;

    if (count > 0)
        SAC_LAUNCH(within, sac_blocks(count), SAC_BLOCK, 0, stream, *p, count);
    return cudaGetLastError();
}
