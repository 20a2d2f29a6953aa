/*
 * The inner loops of resizing, once an instruction set. Private to src/image. Any
 * thread. All give the same bits; the plain one says what they are.
 */
#ifndef SAC_IMAGE_RESIZE_KERNELS_H
#define SAC_IMAGE_RESIZE_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SAC_RESIZE_SPARE = 32, /* sums behind a row's end that wide stores may touch */
    SAC_RESIZE_WEIGHTS = 8,
    SAC_RESIZE_GROUP = 5, /* columns of three channels whose sums fill a vector */
};

/* Of one column or row of the result: the first of the two source pixels, as an
 * index (columns: times channels), and the weights of both, 11-bit fixed point. */
struct sac_resize_tap {
    int32_t at;
    int16_t first, second;
};

/* SAC_RESIZE_GROUP columns beside each other, or what is left of them, whose pixels lie within 64
 * bytes of a row, from `at` on: which bytes those are, and where each goes. */
struct sac_resize_group {
    int32_t at;
    uint64_t bytes;      /* bit i: byte at + i is the row's own */
    uint8_t from[64];    /* of each 16-bit lane the lower byte: pixel, neighbour, a sum a pair */
    int16_t weights[32]; /* of each lane */
};

struct sac_resize_columns {
    int channels, width; /* of the result's window */
    int next;            /* from a pixel to its right neighbour: channels, or 0 if there is none */
    int row_bytes;       /* of a source row: what may be read of it */
    const struct sac_resize_tap *taps;
    const int16_t *weights; /* of each column, both weights, SAC_RESIZE_WEIGHTS / 2 times */
    /* (width + SAC_RESIZE_GROUP − 1) / SAC_RESIZE_GROUP, or NULL: a kernel that groups then
     * does without. */
    const struct sac_resize_group *groups;
};

struct sac_resize_kernels {
    const char *name;
    bool groups; /* it wants columns in groups */
    /* sums[x · channels + c] = (pixel · first + next pixel · second) >> 4 */
    void (*sum)(const struct sac_resize_columns *columns, const uint8_t *row, int16_t *sums);
    /* dst[i] = ((above · first >> 16) + (below · second >> 16) + 2) >> 2 */
    void (*blend)(const int16_t *above, const int16_t *below, struct sac_resize_tap tap, int count,
                  uint8_t *dst);
};

/* How many groups such columns have; 0: they cannot be grouped, for want of channels or a
 * neighbour. */
int sac_resize_group_count(const struct sac_resize_columns *columns);
/* Fills them from taps and weights. False: some would reach over more than 64 bytes. */
bool sac_resize_group_columns(const struct sac_resize_columns *columns,
                              struct sac_resize_group *groups);

/* Those that this machine can run, the best first, the plain one last; NULL behind it. */
const struct sac_resize_kernels *sac_resize_kernels_of(int index);

#endif
