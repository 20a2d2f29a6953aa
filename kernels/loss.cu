/* Losses and accuracy, and the way back through them and through softmax. */
#include "kernels/element.h"
#include "kernels/training.h"

#include <float.h>
#include <math.h>

enum { THREADS = 128 };
static const uint32_t blocks_max = 65535;

/* A block for a row of so many; 32 or THREADS, powers of two. */
static unsigned row_threads(uint32_t count)
{
    return count <= 64 ? 32 : THREADS;
}

SAC_DEVICE float block_sum(float *shared, float value)
{
    shared[threadIdx.x] = value;
    SAC_SYNC();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] += shared[threadIdx.x + half];
        SAC_SYNC();
    }
    float out = shared[0];
    SAC_SYNC();
    return out;
}

SAC_DEVICE float block_most(float *shared, float value)
{
    shared[threadIdx.x] = value;
    SAC_SYNC();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] = fmaxf(shared[threadIdx.x], shared[threadIdx.x + half]);
        SAC_SYNC();
    }
    float out = shared[0];
    SAC_SYNC();
    return out;
}

/* ---- Softmax loss: a block a place ---- */

SAC_DEVICE int64_t place_at(const struct sac_kernel_loss &p, uint32_t place)
{
    return (int64_t)(place / p.inner) * p.classes * p.inner +
           (int64_t)(place % p.inner) * p.x_place_step;
}

SAC_DEVICE bool counts(bool ignores, int ignored, float label)
{
    return !ignores || (int)label != ignored;
}

SAC_DEVICE bool is_class(float label, uint32_t classes)
{
    return label >= 0 && label < (float)classes && label == floorf(label);
}

/* Behind the classes where it is none of them. */
SAC_DEVICE uint32_t class_of(float label, uint32_t classes)
{
    return is_class(label, classes) ? (uint32_t)label : classes;
}

SAC_DEVICE float target(const struct sac_kernel_loss &p, uint32_t c, uint32_t label)
{
    return (c == label ? 1 - p.smoothing : 0) + p.smoothing / p.classes;
}

SAC_KERNEL place_losses(struct sac_kernel_loss p, uint32_t places, float least)
{
    SAC_SHARED(float, shared, THREADS);

    for (uint32_t place = blockIdx.x; place < places; place += gridDim.x) {
        int64_t at = place_at(p, place);
        int64_t plain = (int64_t)(place / p.inner) * p.classes * p.inner + place % p.inner;
        float most = -INFINITY, sum = 0, loss = 0, label = p.labels[place];
        for (uint32_t c = threadIdx.x; c < p.classes; c += blockDim.x)
            most = fmaxf(most, p.x[at + (int64_t)c * p.x_class_step]);
        most = block_most(shared, most);
        for (uint32_t c = threadIdx.x; c < p.classes; c += blockDim.x)
            sum += expf(p.x[at + (int64_t)c * p.x_class_step] - most);
        float log_sum = most + logf(block_sum(shared, sum));
        for (uint32_t c = threadIdx.x; c < p.classes; c += blockDim.x) {
            float value = p.x[at + (int64_t)c * p.x_class_step] - log_sum;
            float weight = target(p, c, class_of(label, p.classes));
            if (weight != 0)
                loss -= weight * (value < least ? least : value);
            if (p.softmax)
                p.softmax[plain + (int64_t)c * p.inner] = expf(value);
        }
        loss = block_sum(shared, loss);
        if (threadIdx.x == 0) {
            bool wanted = counts(p.ignores, p.ignored, label);
            p.losses[place] = !wanted ? 0 : is_class(label, p.classes) ? loss : NAN;
            p.log_sums[place] = log_sum;
        }
    }
}

SAC_DEVICE float divisor_of(int norm, float full, float batch, float valid)
{
    return norm == SAC_LOSS_FULL         ? full
           : norm == SAC_LOSS_BATCH_SIZE ? batch
           : norm == SAC_LOSS_NONE       ? 1
           : valid > 1                   ? valid
                                         : 1;
}

SAC_KERNEL sum_places(struct sac_kernel_loss p, uint32_t places)
{
    SAC_SHARED(float, shared, THREADS);
    float loss = 0, valid = 0;

    for (uint32_t i = threadIdx.x; i < places; i += THREADS) {
        loss += p.losses[i];
        valid += counts(p.ignores, p.ignored, p.labels[i]) ? 1 : 0;
    }
    loss = block_sum(shared, loss);
    valid = block_sum(shared, valid);
    if (threadIdx.x == 0) {
        *p.divisor = divisor_of(p.norm, places, p.outer, valid);
        *p.loss = loss / *p.divisor;
    }
}

cudaError_t sac_kernel_softmax_loss(const struct sac_kernel_loss *p, cudaStream_t stream)
{
    uint32_t places = p->outer * p->inner;
    float least = logf(FLT_MIN);

    if (places == 0 || p->classes == 0)
        return cudaErrorInvalidValue;
    SAC_LAUNCH(place_losses, places < blocks_max ? places : blocks_max, row_threads(p->classes), 0,
               stream, *p, places, least);
    SAC_LAUNCH(sum_places, 1, THREADS, 0, stream, *p, places);
    return cudaGetLastError();
}

SAC_KERNEL softmax_loss_back(struct sac_kernel_loss p, const float *dy, float *dx, uint32_t count)
{
    float scale = *dy / *p.divisor;

    SAC_EACH(i, count)
    {
        uint32_t place = i / p.classes, c = i % p.classes;
        int64_t at = place_at(p, place) + (int64_t)c * p.x_class_step;
        float label = p.labels[place];
        float wrong = expf(p.x[at] - p.log_sums[place]) - target(p, c, class_of(label, p.classes));
        dx[at] = counts(p.ignores, p.ignored, label) ? scale * wrong : 0;
    }
}

cudaError_t sac_kernel_softmax_loss_back(const struct sac_kernel_loss *p, const float *dy,
                                         float *dx, cudaStream_t stream)
{
    uint32_t count = p->outer * p->inner * p->classes;

    if (count > 0)
        SAC_LAUNCH(softmax_loss_back, sac_blocks(count), SAC_BLOCK, 0, stream, *p, dy, dx, count);
    return cudaGetLastError();
}

/* ---- Losses of pairs: parts of a fixed number, then their sum ---- */

enum { PARTS = 64 };

size_t sac_kernel_pair_loss_bytes(void)
{
    return 2 * PARTS * sizeof(float);
}

SAC_DEVICE float sigmoid_of(float x)
{
    return 1 / (1 + expf(-x));
}

SAC_KERNEL pair_parts(struct sac_kernel_pair_loss p, bool sigmoid)
{
    SAC_SHARED(float, shared, THREADS);
    float loss = 0, valid = 0;

    for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < p.count; i += PARTS * THREADS) {
        float x = p.x[i], t = p.t[i];
        bool wanted = !sigmoid || counts(p.ignores, p.ignored, t);
        float one =
            sigmoid ? log1pf(expf(-fabsf(x))) - x * (t - (x >= 0 ? 1 : 0)) : (x - t) * (x - t);
        loss += wanted ? one : 0;
        valid += wanted ? 1 : 0;
        if (p.sigmoid)
            p.sigmoid[i] = sigmoid_of(x);
    }
    loss = block_sum(shared, loss);
    valid = block_sum(shared, valid);
    if (threadIdx.x == 0) {
        p.work[blockIdx.x] = loss;
        p.work[PARTS + blockIdx.x] = valid;
    }
}

SAC_KERNEL pair_whole(struct sac_kernel_pair_loss p, bool sigmoid)
{
    float loss = 0, valid = 0;

    if (threadIdx.x > 0)
        return;
    for (int i = 0; i < PARTS; i++) {
        loss += p.work[i];
        valid += p.work[PARTS + i];
    }
    *p.divisor = sigmoid ? divisor_of(p.norm, p.count, p.batch, valid) : 2.0f * p.batch;
    *p.loss = loss / *p.divisor;
}

static cudaError_t pair_loss(const struct sac_kernel_pair_loss *p, bool sigmoid,
                             cudaStream_t stream)
{
    SAC_LAUNCH(pair_parts, PARTS, THREADS, 0, stream, *p, sigmoid);
    SAC_LAUNCH(pair_whole, 1, 32, 0, stream, *p, sigmoid);
    return cudaGetLastError();
}

cudaError_t sac_kernel_sigmoid_loss(const struct sac_kernel_pair_loss *p, cudaStream_t stream)
{
    return pair_loss(p, true, stream);
}

cudaError_t sac_kernel_euclidean_loss(const struct sac_kernel_pair_loss *p, cudaStream_t stream)
{
    return pair_loss(p, false, stream);
}

SAC_KERNEL sigmoid_loss_back(struct sac_kernel_pair_loss p, const float *dy, float *dx)
{
    float scale = *dy / *p.divisor;

    SAC_EACH(i, p.count)
    dx[i] = counts(p.ignores, p.ignored, p.t[i]) ? scale * (sigmoid_of(p.x[i]) - p.t[i]) : 0;
}

cudaError_t sac_kernel_sigmoid_loss_back(const struct sac_kernel_pair_loss *p, const float *dy,
                                         float *dx, cudaStream_t stream)
{
    if (p->count > 0)
        SAC_LAUNCH(sigmoid_loss_back, sac_blocks(p->count), SAC_BLOCK, 0, stream, *p, dy, dx);
    return cudaGetLastError();
}

SAC_KERNEL euclidean_loss_back(struct sac_kernel_pair_loss p, const float *dy, float *dx, float *dt)
{
    float scale = *dy / p.batch;

    SAC_EACH(i, p.count)
    {
        float d = scale * (p.x[i] - p.t[i]);
        if (dx)
            dx[i] = d;
        if (dt)
            dt[i] = -d;
    }
}

cudaError_t sac_kernel_euclidean_loss_back(const struct sac_kernel_pair_loss *p, const float *dy,
                                           float *dx, float *dt, cudaStream_t stream)
{
    if (p->count > 0)
        SAC_LAUNCH(euclidean_loss_back, sac_blocks(p->count), SAC_BLOCK, 0, stream, *p, dy, dx, dt);
    return cudaGetLastError();
}

/* ---- Accuracy ---- */

/* losses[place]: 1 a hit, 0 a miss, −1 does not count. Equals count against the label. */
SAC_KERNEL find_hits(struct sac_kernel_loss p, int top_k, uint32_t places)
{
    SAC_EACH(place, places)
    {
        int64_t at = place_at(p, place);
        float label = p.labels[place];
        int better = 0;
        bool good = is_class(label, p.classes);
        float own = good ? p.x[at + (int64_t)label * p.x_class_step] : 0;
        for (uint32_t c = 0; c < p.classes; c++)
            better +=
                c != class_of(label, p.classes) && !(p.x[at + (int64_t)c * p.x_class_step] < own);
        p.losses[place] = !counts(p.ignores, p.ignored, label) ? -1 : good && better < top_k;
    }
}

/* The share of hits among the places of one label (or, below 0, of all). */
SAC_DEVICE float share(const struct sac_kernel_loss &p, uint32_t places, int label, float *shared)
{
    float hits = 0, all = 0;

    for (uint32_t i = threadIdx.x; i < places; i += THREADS) {
        if (p.losses[i] < 0 || (label >= 0 && (int)p.labels[i] != label))
            continue;
        hits += p.losses[i];
        all += 1;
    }
    hits = block_sum(shared, hits);
    all = block_sum(shared, all);
    return all > 0 ? hits / all : 0;
}

/* Block 0: all places; block 1 + c: class c. */
SAC_KERNEL shares(struct sac_kernel_loss p, uint32_t places, float *classes_out)
{
    SAC_SHARED(float, shared, THREADS);
    float out = share(p, places, (int)blockIdx.x - 1, shared);

    if (threadIdx.x == 0)
        *(blockIdx.x == 0 ? p.loss : classes_out + blockIdx.x - 1) = out;
}

cudaError_t sac_kernel_accuracy(const struct sac_kernel_loss *p, int top_k, float *classes_out,
                                cudaStream_t stream)
{
    uint32_t places = p->outer * p->inner;

    if (places == 0 || p->classes == 0)
        return cudaErrorInvalidValue;
    SAC_LAUNCH(find_hits, sac_blocks(places), SAC_BLOCK, 0, stream, *p, top_k, places);
    SAC_LAUNCH(shares, classes_out ? 1 + p->classes : 1, THREADS, 0, stream, *p, places,
               classes_out);
    return cudaGetLastError();
}

/* ---- Softmax: a block a row, or of inner > 1 a column ---- */

SAC_KERNEL softmax_back(struct sac_kernel_softmax_back p)
{
    SAC_SHARED(float, shared, THREADS);

    for (uint32_t row = blockIdx.x; row < p.outer * p.inner; row += gridDim.x) {
        int64_t at = (int64_t)(row / p.inner) * p.count * p.inner + row % p.inner;
        float along = 0;
        for (uint32_t c = threadIdx.x; c < p.count; c += blockDim.x)
            along += p.dy[at + (int64_t)c * p.inner] * p.y[at + (int64_t)c * p.inner];
        along = block_sum(shared, along);
        for (uint32_t c = threadIdx.x; c < p.count; c += blockDim.x) {
            int64_t i = at + (int64_t)c * p.inner;
            sac_store(p.dx, p.type, i, p.y[i] * (p.dy[i] - along));
        }
    }
}

cudaError_t sac_kernel_softmax_back(const struct sac_kernel_softmax_back *p, cudaStream_t stream)
{
    uint32_t rows = p->outer * p->inner;

    if (rows > 0 && p->count > 0)
        SAC_LAUNCH(softmax_back, rows < blocks_max ? rows : blocks_max, row_threads(p->count), 0,
                   stream, *p);
    return cudaGetLastError();
}
