/*
 * The inner loops of resizing, once an instruction set. Private to src/image. Any
 * thread. All give the same bits; the plain one says what they are.
 */
#ifndef SAC_IMAGE_RESIZE_KERNELS_H
#define SAC_IMAGE_RESIZE_KERNELS_H

#include <stdint.h>

enum {
    SAC_RESIZE_SPARE = 32, /* sums behind a row's end that wide stores may touch */
    SAC_RESIZE_WEIGHTS = 8,
};

/* Of one column or row of the result: the first of the two source pixels, as an
 * index (columns: times channels), and the weights of both, 11-bit fixed point. */
struct sac_resize_tap {
    int32_t at;
    int16_t first, second;
};

struct sac_resize_columns {
    int channels, width; /* of the result's window */
    int next;            /* from a pixel to its right neighbour: channels, or 0 if there is none */
    int row_bytes;       /* of a source row: what may be read of it */
    const struct sac_resize_tap *taps;
    const int16_t *weights; /* of each column, both weights, SAC_RESIZE_WEIGHTS / 2 times */
};

struct sac_resize_kernels {
    const char *name;
    /* sums[x · channels + c] = (pixel · first + next pixel · second) >> 4 */
    void (*sum)(const struct sac_resize_columns *columns, const uint8_t *row, int16_t *sums);
    /* dst[i] = ((above · first >> 16) + (below · second >> 16) + 2) >> 2 */
    void (*blend)(const int16_t *above, const int16_t *below, struct sac_resize_tap tap, int count,
                  uint8_t *dst);
};

/* Those that this machine can run, the best first, the plain one last; NULL behind it. */
const struct sac_resize_kernels *sac_resize_kernels_of(int index);

#endif
