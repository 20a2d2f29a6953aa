/*
 * Winograd's minimal filtering of 3 × 3 windows at a stride of 1: an m × m tile of results
 * from (m + 2)² products a channel instead of 9 m². With d a tile's source, g the filter and
 * ⊙ element by element, summed over the channels: y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A. The
 * matrices are those of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
 * (2015), section 4: F(2×2, 3×3) and F(4×4, 3×3). The products at one of the (m + 2)² points
 * are a matrix product, tiles × channels · channels × results, which is the caller's.
 *
 * Tiles lie row after row, picture after picture, and are worked on a chunk at a time.
 */
#ifndef SAC_DEVICE_CPU_WINOGRAD_H
#define SAC_DEVICE_CPU_WINOGRAD_H

#include "device/cpu/kernel.h"

struct sac_winograd {
    int tile;                          /* results a side: 2, or of fp32 4 */
    int64_t down, across;              /* tiles of a picture */
    int64_t count, chunk;              /* tiles of all pictures; worked on at once */
    int64_t in_channels, out_channels; /* multiples of 16 */
    void *in;                          /* [points][chunk][in_channels] of the source's type */
    float *out;                        /* [points][chunk][out_channels] */
};

/* Both for tiles first … end − 1 of the chunk that begins with tile `start`; any thread,
 * parts of a chunk at the same time. */
struct sac_cpu_winograd_code {
    /* op->src[0], channels last, to w->in; what is outside counts as 0. */
    void (*transform)(const struct sac_op *op, const struct sac_winograd *w, int64_t start,
                      int64_t first, int64_t end);
    /* w->out to op->dst[0], which may be a part of a value with more channels: plus the
     * bias (op->weight[1]), and the epilogue's ReLU. */
    void (*restore)(const struct sac_op *op, const struct sac_winograd *w, int64_t start,
                    int64_t first, int64_t end);
};

extern const struct sac_cpu_winograd_code sac_cpu_winograd_avx512, sac_cpu_winograd_avx2,
    sac_cpu_winograd_base;

/* G g Gᵀ of one filter, to point after point `step` elements apart. `tile`: 2 or 4. */
void sac_winograd_filter(int tile, const float g[9], float *to, int64_t step);

#endif
