/* The tiles' ways of device/cpu/winograd.h, 16 channels at a time, compiled for each
 * instruction set with SAC_WINOGRAD_TABLE set. */
#include <assert.h>

#include "device/cpu/vector_rows.h"
#include "device/cpu/winograd.h"

enum { SIDE_MAX = 6, TILE_MAX = 4 };

/* One line of a tile times Bᵀ; elements are `step` apart. */
INLINE void transform_line(int tile, const floats *d, int step, floats *to)
{
    floats d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];

    if (tile == 2) {
        to[0] = d0 - d2;
        to[step] = d1 + d2;
        to[2 * step] = d2 - d1;
        to[3 * step] = d1 - d3;
        return;
    }
    floats d4 = d[4 * step], d5 = d[5 * step];
    floats even = d4 - 4 * d2, odd = d3 - 4 * d1, near = d4 - d2, far = 2 * (d3 - d1);
    to[0] = 4 * (d0 - d2) + near;
    to[step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = near + far;
    to[4 * step] = near - far;
    to[5 * step] = 4 * d1 - 5 * d3 + d5;
}

/* One line of points times Aᵀ; elements are `step` apart, results `to_step`. */
INLINE void restore_line(int tile, const floats *m, int step, floats *to, int to_step)
{
    floats m1 = m[step], m2 = m[2 * step], m3 = m[3 * step];

    if (tile == 2) {
        to[0] = m[0] + m1 + m2;
        to[to_step] = m1 - m2 - m3;
        return;
    }
    floats m4 = m[4 * step], sum = m1 + m2, more = m3 + m4, less = m3 - m4, minus = m1 - m2;
    to[0] = m[0] + sum + more;
    to[to_step] = minus + 2 * less;
    to[2 * to_step] = sum + 4 * more;
    to[3 * to_step] = minus + 8 * less + m[5 * step];
}

/* A tile's place: its first result, in the picture and among all rows of the value. */
struct place {
    int64_t y, x, picture;
};

INLINE struct place place_of(const struct sac_winograd *w, int64_t tile)
{
    int64_t of_picture = tile % (w->down * w->across);

    return (struct place){of_picture / w->across * w->tile, of_picture % w->across * w->tile,
                          tile / (w->down * w->across)};
}

/* Where the side × side elements of a tile's source begin; −1: outside. */
INLINE void find_source(const struct sac_op *op, const struct rows *src, struct place at, int side,
                        int64_t *offsets)
{
    const int64_t *dim = op->src[0].shape.dim;
    const struct sac_window *window = &op->param.conv.window;

    for (int i = 0; i < side; i++) {
        for (int j = 0; j < side; j++) {
            int64_t y = at.y - window->pad[0] + i, x = at.x - window->pad[1] + j;
            bool inside = y >= 0 && y < dim[2] && x >= 0 && x < dim[3];
            offsets[i * side + j] =
                inside ? ((at.picture * dim[2] + y) * dim[3] + x) * src->pitch : -1;
        }
    }
}

INLINE void transform_as(const struct sac_op *op, const struct sac_winograd *w, int64_t start,
                         int64_t first, int64_t end, int tile, enum sac_type type)
{
    struct rows src = rows_of(&op->src[0]);
    int side = tile + 2;
    int64_t offsets[SIDE_MAX * SIDE_MAX];
    floats d[SIDE_MAX * SIDE_MAX], half[SIDE_MAX * SIDE_MAX];

    for (int64_t t = first; t < end; t++) {
        find_source(op, &src, place_of(w, start + t), side, offsets);
        for (int64_t c = 0; c < w->in_channels; c += LANES) {
            for (int i = 0; i < side * side; i++)
                d[i] = offsets[i] < 0 ? (floats){0} : get(src.data, offsets[i] + c, type);
            for (int i = 0; i < side; i++)
                transform_line(tile, d + i, side, half + i);
            for (int i = 0; i < side; i++)
                transform_line(tile, half + i * side, 1, d + i * side);
            for (int i = 0; i < side * side; i++)
                put(w->in, (i * w->chunk + t) * w->in_channels + c, d[i], type);
        }
    }
}

static void transform(const struct sac_op *op, const struct sac_winograd *w, int64_t start,
                      int64_t first, int64_t end)
{
    bool f32 = op->src[0].form.type == SAC_F32;

    assert(f32 || w->tile == 2);
    if (w->tile == 4)
        transform_as(op, w, start, first, end, 4, SAC_F32);
    else if (f32)
        transform_as(op, w, start, first, end, 2, SAC_F32);
    else
        transform_as(op, w, start, first, end, 2, SAC_BF16);
}

INLINE floats rectified(floats x, float slope)
{
    words below = (words)(x < 0);

    return (floats)(((words)(x * slope) & below) | ((words)x & ~below));
}

/* The results of a tile that are in the picture, 16 channels. */
INLINE void store_tile(const struct sac_op *op, const struct rows *dst, struct place at,
                       const floats *y, int64_t c, int tile, enum sac_type type)
{
    const int64_t *dim = op->dst[0].shape.dim;
    floats bias = op->weight_count > 1 ? get(op->weight[1], c, SAC_F32) : (floats){0};

    for (int i = 0; i < tile && at.y + i < dim[2]; i++) {
        int64_t row = (at.picture * dim[2] + at.y + i) * dim[3] + at.x;
        for (int j = 0; j < tile && at.x + j < dim[3]; j++) {
            floats value = y[i * tile + j] + bias;
            if (op->epilogue.relu)
                value = op->epilogue.slope == 0 ? larger((floats){0}, value)
                                                : rectified(value, op->epilogue.slope);
            put(dst->data, (row + j) * dst->pitch + c, value, type);
        }
    }
}

INLINE void restore_as(const struct sac_op *op, const struct sac_winograd *w, int64_t start,
                       int64_t first, int64_t end, int tile, enum sac_type type)
{
    struct rows dst = rows_of(&op->dst[0]);
    int side = tile + 2;
    floats m[SIDE_MAX * SIDE_MAX], half[TILE_MAX * SIDE_MAX], y[TILE_MAX * TILE_MAX];

    for (int64_t t = first; t < end; t++) {
        struct place at = place_of(w, start + t);
        for (int64_t c = 0; c < w->out_channels; c += LANES) {
            for (int i = 0; i < side * side; i++)
                m[i] = get(w->out, (i * w->chunk + t) * w->out_channels + c, SAC_F32);
            for (int i = 0; i < side; i++)
                restore_line(tile, m + i, side, half + i, side);
            for (int i = 0; i < tile; i++)
                restore_line(tile, half + i * side, 1, y + i * tile, 1);
            store_tile(op, &dst, at, y, c, tile, type);
        }
    }
}

static void restore(const struct sac_op *op, const struct sac_winograd *w, int64_t start,
                    int64_t first, int64_t end)
{
    bool f32 = op->dst[0].form.type == SAC_F32;

    assert(f32 || w->tile == 2);
    if (w->tile == 4)
        restore_as(op, w, start, first, end, 4, SAC_F32);
    else if (f32)
        restore_as(op, w, start, first, end, 2, SAC_F32);
    else
        restore_as(op, w, start, first, end, 2, SAC_BF16);
}

const struct sac_cpu_winograd_code SAC_WINOGRAD_TABLE = {
    .transform = transform,
    .restore = restore,
};
