/* The k largest of each row, found one after another: a block a row. */
#include "kernels/element.h"
#include "kernels/kernels.h"

#include <math.h>

enum { THREADS = 256 };
static const uint32_t blocks_max = 65535;

struct found {
    float value;
    int index; /* −1: none */
};

/* Order of the answer: larger first, NaN last, ties to the lower index. */
SAC_DEVICE bool before(struct found a, struct found b)
{
    bool a_nan = a.value != a.value, b_nan = b.value != b.value;

    if (a.index < 0 || b.index < 0)
        return a.index >= 0;
    if (a_nan != b_nan)
        return b_nan;
    if (!a_nan && a.value != b.value)
        return a.value > b.value;
    return a.index < b.index;
}

/* The first of a row that comes behind `last` (index −1: of all). */
SAC_DEVICE struct found next_of(const void *x, int type, int64_t row, uint32_t count,
                                struct found last, struct found *shared)
{
    struct found best = {0, -1};

    for (uint32_t i = threadIdx.x; i < count; i += THREADS) {
        struct found own = {sac_load(x, type, row * count + i), (int)i};
        if ((last.index < 0 || before(last, own)) && before(own, best))
            best = own;
    }
    shared[threadIdx.x] = best;
    SAC_SYNC();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half && before(shared[threadIdx.x + half], shared[threadIdx.x]))
            shared[threadIdx.x] = shared[threadIdx.x + half];
        SAC_SYNC();
    }
    best = shared[0];
    SAC_SYNC();
    return best;
}

SAC_KERNEL topk(const void *x, int type, uint32_t rows, uint32_t count, int k,
                struct sac_topk_pair *y)
{
    SAC_SHARED(struct found, shared, THREADS);

    for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
        struct found last = {0, -1};
        bool more = true;
        for (int i = 0; i < k; i++) {
            if (more)
                last = next_of(x, type, row, count, last, shared);
            more = last.index >= 0;
            if (threadIdx.x == 0) {
                y[(int64_t)row * k + i].index = last.index;
                y[(int64_t)row * k + i].value = last.value;
            }
        }
    }
}

cudaError_t sac_kernel_topk(const void *x, int type, uint32_t rows, uint32_t count, int k,
                            struct sac_topk_pair *y, cudaStream_t stream)
{
    unsigned blocks = rows < blocks_max ? rows : blocks_max;

    if (rows > 0 && k > 0)
        SAC_LAUNCH(topk, blocks, THREADS, 0, stream, x, type, rows, count, k, y);
    return cudaGetLastError();
}
