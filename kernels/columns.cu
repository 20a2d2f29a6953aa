/* Sums of each channel over a batch, and what batch norm makes of them. Rows are cut
 * into parts by the shape alone; what parts give is put together in their order. A block
 * has some neighbouring channels of one part: a warp reads what stands side by side. */
#include "kernels/element.h"
#include "kernels/training.h"

#include <math.h>

enum { THREADS = 256, TILE = 32, LINES = THREADS / TILE, ROWS_LEAST = 512, BLOCKS = 2048 };

static uint32_t parts_of(uint64_t rows, uint32_t channels)
{
    uint32_t tiles = (channels + TILE - 1) / TILE;
    uint64_t parts = (rows + ROWS_LEAST - 1) / ROWS_LEAST, most = BLOCKS / (tiles ? tiles : 1);

    parts = parts < most ? parts : most;
    return parts > 0 ? (uint32_t)parts : 1;
}

size_t sac_kernel_columns_bytes(uint32_t outer, uint32_t channels, uint32_t inner)
{
    return (size_t)parts_of((uint64_t)outer * inner, channels) * channels * 2 * sizeof(float);
}

/* Where a thread works: V channels from c, rows from `row` by `step` until `end`. */
template <int V> struct place {
    static const uint32_t lanes = V == 1 ? 32 : 8, step = THREADS / lanes;
    uint32_t lane, line, c, part, first, row, end;
};

template <int V> SAC_DEVICE place<V> find_place(uint32_t rows, uint32_t parts)
{
    place<V> at;
    uint32_t many = (rows + parts - 1) / parts;

    at.lane = threadIdx.x % place<V>::lanes;
    at.line = threadIdx.x / place<V>::lanes;
    at.c = (blockIdx.x / parts * place<V>::lanes + at.lane) * V;
    at.part = blockIdx.x % parts;
    at.first = at.part * many < rows ? at.part * many : rows;
    at.end = rows - at.first < many ? rows : at.first + many;
    at.row = at.first + at.line;
    return at;
}

/* V numbers of each thread, added up over a block's lines; whole in line 0. */
template <int V> SAC_DEVICE void sum_lines(const place<V> &at, float *shared, float *value)
{
    for (int k = 0; k < V; k++)
        shared[threadIdx.x * V + k] = value[k];
    SAC_SYNC();
    for (uint32_t line = 1; at.line == 0 && line < place<V>::step; line++)
        for (int k = 0; k < V; k++)
            value[k] += shared[(line * place<V>::lanes + at.lane) * V + k];
    SAC_SYNC();
}

SAC_DEVICE int64_t index_of(uint32_t row, uint32_t c, uint32_t channels, uint32_t inner)
{
    return ((int64_t)(row / inner) * channels + c) * inner + row % inner;
}

/* Eight channels at once: where they stand side by side. */
static bool by_eights(uint32_t channels, uint32_t inner)
{
    return inner == 1 && channels % 8 == 0;
}

static unsigned blocks_of(uint32_t channels, uint32_t parts, int v)
{
    uint32_t width = v == 1 ? place<1>::lanes : place<8>::lanes * 8;

    return (channels + width - 1) / width * parts;
}

/* A gradient as the ReLU lets it pass whose result is the gate. */
SAC_DEVICE float passed(bool gated, float gate, float slope, float gradient)
{
    return gated && !(gate > 0) ? gradient * slope : gradient;
}

/* ---- Sums and products ------------------------------------------------------- */

SAC_DEVICE float product_at(const struct sac_kernel_columns &p, uint32_t c, float u, float v)
{
    if (p.scale)
        v = v * p.scale[c] + p.shift[c];
    return p.negative && v > 0 ? 0 : u * v;
}

template <int V> SAC_KERNEL part_sums(struct sac_kernel_columns p, uint32_t parts)
{
    SAC_SHARED(float, shared, THREADS *V);
    place<V> at = find_place<V>(p.outer * p.inner, parts);
    float sum[V] = {}, product[V] = {};

    for (; at.c < p.channels && at.row < at.end; at.row += place<V>::step) {
        int64_t from = index_of(at.row, at.c, p.channels, p.inner);
        sac_vector<V> u = sac_load_vector<V>(p.u, p.u_type, from), v = {}, gate = {};
        if (p.v)
            v = sac_load_vector<V>(p.v, p.v_type, from);
        if (p.gate)
            gate = sac_load_vector<V>(p.gate, p.u_type, from);
        for (int k = 0; k < V; k++) {
            float value = passed(p.gate, gate.v[k], p.slope, u.v[k]);
            sum[k] += value;
            if (p.v)
                product[k] += product_at(p, at.c + k, value, v.v[k]);
        }
    }
    sum_lines<V>(at, shared, sum);
    sum_lines<V>(at, shared, product);
    for (int k = 0; k < V && at.line == 0 && at.c < p.channels; k++) {
        p.work[(int64_t)at.part * p.channels + at.c + k] = sum[k];
        p.work[((int64_t)parts + at.part) * p.channels + at.c + k] = product[k];
    }
}

SAC_DEVICE void keep(float value, bool add, float *to, float *more, uint32_t c)
{
    if (to)
        to[c] = add ? to[c] + value : value;
    if (more)
        more[c] += value;
}

SAC_KERNEL whole_sums(struct sac_kernel_columns p, uint32_t parts)
{
    SAC_SHARED(float, shared, THREADS);
    place<1> at = find_place<1>(LINES, 1); /* of a part: every LINES-th from `line` on */
    uint32_t c = at.c;
    float sum = 0, product = 0;

    for (uint32_t part = at.line; c < p.channels && part < parts; part += LINES) {
        sum += p.work[(int64_t)part * p.channels + c];
        product += p.work[((int64_t)parts + part) * p.channels + c];
    }
    sum_lines<1>(at, shared, &sum);
    sum_lines<1>(at, shared, &product);
    if (at.line == 0 && c < p.channels) {
        keep(sum, p.add, p.sum, p.sum_more, c);
        keep(product, p.add, p.product, p.product_more, c);
    }
}

static bool takes_eights(const struct sac_kernel_columns *p)
{
    return by_eights(p->channels, p->inner) && sac_takes_eights(p->u, p->u_type) &&
           sac_takes_eights(p->v, p->v_type) && sac_takes_eights(p->gate, p->u_type);
}

cudaError_t sac_kernel_columns(const struct sac_kernel_columns *p, cudaStream_t stream)
{
    uint32_t parts = parts_of((uint64_t)p->outer * p->inner, p->channels);

    if (p->channels == 0)
        return cudaSuccess;
    if (takes_eights(p))
        SAC_LAUNCH(part_sums<8>, blocks_of(p->channels, parts, 8), THREADS, 0, stream, *p, parts);
    else
        SAC_LAUNCH(part_sums<1>, blocks_of(p->channels, parts, 1), THREADS, 0, stream, *p, parts);
    cudaError_t code = cudaGetLastError();
    if (code != cudaSuccess) /* parts that are not there are not added up */
        return code;
    SAC_LAUNCH(whole_sums, blocks_of(p->channels, 1, 1), THREADS, 0, stream, *p, parts);
    return cudaGetLastError();
}

/* ---- Mean and variance --------------------------------------------------------- */

/* Of n numbers: their mean, and the sum of the squares of what differs from it. Two of
 * them make one (Chan, Golub and LeVeque, 1979). */
struct moments {
    float n, mean, squares;
};

SAC_DEVICE moments merge(const moments &a, const moments &b)
{
    float n = a.n + b.n, apart = b.mean - a.mean;

    if (b.n == 0)
        return a;
    return {n, a.mean + apart * (b.n / n), a.squares + b.squares + apart * apart * (a.n * b.n / n)};
}

/* About the part's first number, which is near enough for the squares not to cancel. */
template <int V> SAC_KERNEL part_moments(struct sac_kernel_statistics p, uint32_t parts)
{
    SAC_SHARED(float, shared, THREADS *V);
    place<V> at = find_place<V>(p.outer * p.inner, parts);
    float sum[V] = {}, squares[V] = {}, n = (float)(at.end - at.first);
    sac_vector<V> about = {};

    if (at.c < p.channels && at.first < at.end)
        about = sac_load_vector<V>(p.x, p.type, index_of(at.first, at.c, p.channels, p.inner));
    for (; at.c < p.channels && at.row < at.end; at.row += place<V>::step) {
        sac_vector<V> x =
            sac_load_vector<V>(p.x, p.type, index_of(at.row, at.c, p.channels, p.inner));
        for (int k = 0; k < V; k++) {
            float apart = x.v[k] - about.v[k];
            sum[k] += apart;
            squares[k] += apart * apart;
        }
    }
    sum_lines<V>(at, shared, sum);
    sum_lines<V>(at, shared, squares);
    for (int k = 0; k < V && at.line == 0 && at.c < p.channels; k++) {
        float mean = n > 0 ? sum[k] / n : 0, rest = squares[k] - sum[k] * mean;
        p.work[(int64_t)at.part * p.channels + at.c + k] = about.v[k] + mean;
        p.work[((int64_t)parts + at.part) * p.channels + at.c + k] = rest > 0 ? rest : 0;
    }
}

SAC_DEVICE void keep_running(const struct sac_kernel_statistics &p, uint32_t c, float mean,
                             float variance, float count)
{
    float unbias = count > 1 ? count / (count - 1) : 1;

    p.running_mean[c] = p.fraction * p.running_mean[c] + mean;
    p.running_variance[c] = p.fraction * p.running_variance[c] + unbias * variance;
    if (c == 0)
        *p.running_count = p.fraction * *p.running_count + 1;
}

SAC_DEVICE void keep_whole(const float *gamma, const float *beta, float *whole, uint32_t channels,
                           uint32_t c, float factor, float bias)
{
    float g = gamma ? gamma[c] : 1;

    if (!whole)
        return;
    whole[c] = g * factor;
    whole[channels + c] = g * bias + (beta ? beta[c] : 0);
}

SAC_DEVICE void keep_statistics(const struct sac_kernel_statistics &p, uint32_t c,
                                const moments &all)
{
    float variance = all.squares / all.n, factor = 1 / sqrtf(variance + p.eps);

    p.factor[c] = factor;
    p.bias[c] = -all.mean * factor;
    keep_whole(p.gamma, p.beta, p.whole, p.channels, c, factor, p.bias[c]);
    if (p.running_mean)
        keep_running(p, c, all.mean, variance, all.n);
}

SAC_KERNEL whole_moments(struct sac_kernel_statistics p, uint32_t parts)
{
    SAC_SHARED(moments, shared, THREADS);
    uint32_t line = threadIdx.x / TILE, c = blockIdx.x * TILE + threadIdx.x % TILE;
    uint32_t rows = p.outer * p.inner, many = (rows + parts - 1) / parts;
    moments all = {};

    for (uint32_t part = line; c < p.channels && part < parts; part += LINES) {
        uint32_t first = part * many < rows ? part * many : rows;
        float n = (float)(rows - first < many ? rows - first : many);
        all = merge(all, {n, p.work[(int64_t)part * p.channels + c],
                          p.work[((int64_t)parts + part) * p.channels + c]});
    }
    shared[threadIdx.x] = all;
    SAC_SYNC();
    for (uint32_t other = 1; line == 0 && other < LINES; other++)
        all = merge(all, shared[other * TILE + threadIdx.x]);
    if (line == 0 && c < p.channels)
        keep_statistics(p, c, all);
}

cudaError_t sac_kernel_statistics(const struct sac_kernel_statistics *p, cudaStream_t stream)
{
    uint32_t parts = parts_of((uint64_t)p->outer * p->inner, p->channels);

    if (p->channels == 0 || p->outer == 0 || p->inner == 0)
        return cudaSuccess;
    if (by_eights(p->channels, p->inner) && sac_takes_eights(p->x, p->type))
        SAC_LAUNCH(part_moments<8>, blocks_of(p->channels, parts, 8), THREADS, 0, stream, *p,
                   parts);
    else
        SAC_LAUNCH(part_moments<1>, blocks_of(p->channels, parts, 1), THREADS, 0, stream, *p,
                   parts);
    cudaError_t code = cudaGetLastError();
    if (code != cudaSuccess)
        return code;
    SAC_LAUNCH(whole_moments, blocks_of(p->channels, 1, 1), THREADS, 0, stream, *p, parts);
    return cudaGetLastError();
}

/* ---- Batch norm ----------------------------------------------------------------- */

SAC_KERNEL norm_factors(struct sac_kernel_norm_factors p)
{
    float unscale = *p.s == 0 ? 0 : 1 / *p.s;

    SAC_EACH(c, p.channels)
    {
        float factor = 1 / sqrtf(p.variance[c] * unscale + p.eps);
        p.factor[c] = factor;
        p.bias[c] = -p.mean[c] * unscale * factor;
        keep_whole(p.gamma, p.beta, p.whole, p.channels, c, factor, p.bias[c]);
    }
}

cudaError_t sac_kernel_norm_factors(const struct sac_kernel_norm_factors *p, cudaStream_t stream)
{
    if (p->channels > 0)
        SAC_LAUNCH(norm_factors, sac_blocks(p->channels), SAC_BLOCK, 0, stream, *p);
    return cudaGetLastError();
}

template <int V> SAC_KERNEL norm_back(struct sac_kernel_norm_back p, uint32_t count)
{
    float one = 1 / ((float)p.outer * p.inner);

    SAC_EACH(unit, count / V)
    {
        uint32_t i = unit * V, c = i / p.inner % p.channels;
        sac_vector<V> dy = sac_load_vector<V>(p.dy, p.type, i), x = {}, gate = {};
        if (p.sum)
            x = sac_load_vector<V>(p.x, p.type, i);
        if (p.gate)
            gate = sac_load_vector<V>(p.gate, p.type, i);
        for (int k = 0; k < V; k++) {
            float d = passed(p.gate, gate.v[k], p.slope, dy.v[k]);
            if (p.sum)
                d -= p.sum[c] * one + (x.v[k] * p.factor[c] + p.bias[c]) * (p.along[c] * one);
            dy.v[k] = p.whole[c] * d;
            if (p.inner == 1)
                c = c + 1 < p.channels ? c + 1 : 0;
            else if (k + 1 < V)
                c = (i + k + 1) / p.inner % p.channels;
        }
        sac_store_vector<V>(p.dx, p.type, i, dy);
    }
}

cudaError_t sac_kernel_norm_back(const struct sac_kernel_norm_back *p, cudaStream_t stream)
{
    uint32_t count = p->outer * p->channels * p->inner;

    if (count == 0)
        return cudaSuccess;
    if (count % 8 == 0 && sac_takes_eights(p->x, p->type) && sac_takes_eights(p->dy, p->type) &&
        sac_takes_eights(p->dx, p->type) && sac_takes_eights(p->gate, p->type))
        SAC_LAUNCH(norm_back<8>, sac_blocks(count / 8), SAC_BLOCK, 0, stream, *p, count);
    else
        SAC_LAUNCH(norm_back<1>, sac_blocks(count), SAC_BLOCK, 0, stream, *p, count);
    return cudaGetLastError();
}
