#include "device/cpu/winograd.h"

/* G of F(2×2, 3×3) and of F(4×4, 3×3). */
static const double to_points[2][6][3] = {
    {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}},
    {{1. / 4, 0, 0},
     {-1. / 6, -1. / 6, -1. / 6},
     {-1. / 6, 1. / 6, -1. / 6},
     {1. / 24, 1. / 12, 1. / 6},
     {1. / 24, -1. / 12, 1. / 6},
     {0, 0, 1}},
};

void sac_winograd_filter(int tile, const float g[9], float *to, int64_t step)
{
    const double(*rows)[3] = to_points[tile == 4];
    int side = tile + 2;

    for (int i = 0; i < side; i++) {
        double half[3];
        for (int j = 0; j < 3; j++)
            half[j] = rows[i][0] * g[j] + rows[i][1] * g[3 + j] + rows[i][2] * g[6 + j];
        for (int j = 0; j < side; j++)
            to[(i * side + j) * step] =
                (float)(half[0] * rows[j][0] + half[1] * rows[j][1] + half[2] * rows[j][2]);
    }
}
