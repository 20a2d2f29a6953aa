#include "dataset/likeness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

enum { SIDE = SAC_LIKENESS_SIDE, LOW = 8, BANDS = 8, BUCKETS = 256 };

/* What part `i` of 32 takes of a side: `count` pixels from `first` on, the outer two
 * by the share of them that lies in the part. */
struct part {
    int first, count;
    float head, tail; /* shares of the first and the last pixel; of one pixel the head */
};

static struct part part_of(int i, int side)
{
    double from = (double)i * side / SIDE, to = (double)(i + 1) * side / SIDE;
    struct part part = {.first = (int)from};
    int last = (int)ceil(to) - 1;

    last = last < side ? last : side - 1;
    part.count = last - part.first + 1;
    part.head = (float)((part.count > 1 ? part.first + 1 : to) - from);
    part.tail = (float)(to - last);
    return part;
}

static float share(const struct part *part, int i)
{
    if (i == 0)
        return part->head;
    return i == part->count - 1 ? part->tail : 1;
}

static void average(const struct sac_image *image, const struct part *across,
                    const struct part *down, float ret[3])
{
    float sums[3] = {0}, all = 0;

    for (int y = 0; y < down->count; y++) {
        const uint8_t *at =
            image->pixels + (size_t)(down->first + y) * image->stride + (size_t)across->first * 3;
        float row = share(down, y);
        for (int x = 0; x < across->count; x++, at += 3) {
            float weight = row * share(across, x);
            sums[0] += weight * at[0];
            sums[1] += weight * at[1];
            sums[2] += weight * at[2];
            all += weight;
        }
    }
    for (int c = 0; c < 3; c++)
        ret[c] = sums[c] / all;
}

void sac_look_at(struct sac_look *ret, const struct sac_image *image)
{
    for (int y = 0; y < SIDE; y++) {
        struct part down = part_of(y, image->height);
        for (int x = 0; x < SIDE; x++) {
            struct part across = part_of(x, image->width);
            average(image, &across, &down, ret->rgb + 3 * (y * SIDE + x));
        }
    }
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* DCT-II, rows then columns, of which the low corner is kept. */
static void transform(const float *grey, float out[LOW * LOW])
{
    float rows[SIDE * LOW], basis[LOW][SIDE];

    for (int u = 0; u < LOW; u++) {
        for (int x = 0; x < SIDE; x++)
            basis[u][x] = (float)cos(M_PI * u * (2 * x + 1) / (2 * SIDE));
    }
    for (int y = 0; y < SIDE; y++) {
        for (int u = 0; u < LOW; u++) {
            float sum = 0;
            for (int x = 0; x < SIDE; x++)
                sum += grey[y * SIDE + x] * basis[u][x];
            rows[y * LOW + u] = sum;
        }
    }
    for (int v = 0; v < LOW; v++) {
        for (int u = 0; u < LOW; u++) {
            float sum = 0;
            for (int y = 0; y < SIDE; y++)
                sum += rows[y * LOW + u] * basis[v][y];
            out[v * LOW + u] = sum;
        }
    }
}

uint64_t sac_look_hash(const struct sac_look *look)
{
    float grey[SIDE * SIDE], low[LOW * LOW], sorted[LOW * LOW];
    uint64_t hash = 0;

    for (int i = 0; i < SIDE * SIDE; i++)
        grey[i] =
            .299f * look->rgb[3 * i] + .587f * look->rgb[3 * i + 1] + .114f * look->rgb[3 * i + 2];
    transform(grey, low);
    low[0] = 0;
    memcpy(sorted, low, sizeof sorted);
    qsort(sorted, LOW * LOW, sizeof *sorted, by_size);
    float median = (sorted[LOW * LOW / 2 - 1] + sorted[LOW * LOW / 2]) / 2;
    for (int i = 0; i < LOW * LOW; i++)
        hash |= (uint64_t)(low[i] > median) << i;
    return hash;
}

double sac_look_difference(const struct sac_look *a, const struct sac_look *b)
{
    double sum = 0;

    for (int i = 0; i < SIDE * SIDE * 3; i++)
        sum += fabs((double)a->rgb[i] - (double)b->rgb[i]);
    return sum / (SIDE * SIDE * 3);
}

static unsigned band_of(uint64_t hash, int band)
{
    return (unsigned)(hash >> (8 * band)) & 255;
}

/* Met in an earlier band already? */
static bool met_before(uint64_t difference, int band)
{
    for (int earlier = 0; earlier < band; earlier++) {
        if (band_of(difference, earlier) == 0)
            return true;
    }
    return false;
}

static int pairs_of_bucket(const uint64_t *hashes, const int64_t *items, int64_t count, int band,
                           int (*pair)(void *user, int64_t a, int64_t b, struct sac_error *err),
                           void *user, struct sac_error *err)
{
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = i + 1; j < count; j++) {
            uint64_t difference = hashes[items[i]] ^ hashes[items[j]];
            if (__builtin_popcountll(difference) > SAC_LIKENESS_BITS ||
                met_before(difference, band))
                continue;
            int rc = pair(user, items[i], items[j], err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int pairs_of_band(const uint64_t *hashes, int64_t *items, int64_t count, int band,
                         int (*pair)(void *user, int64_t a, int64_t b, struct sac_error *err),
                         void *user, struct sac_error *err)
{
    int64_t ends[BUCKETS + 1] = {0};
    int rc = 0;

    for (int64_t i = 0; i < count; i++)
        ends[band_of(hashes[i], band) + 1]++;
    for (int b = 0; b < BUCKETS; b++)
        ends[b + 1] += ends[b];
    for (int64_t i = 0; i < count; i++) /* afterwards ends[b] is bucket b's end */
        items[ends[band_of(hashes[i], band)]++] = i;
    for (int b = 0; rc == 0 && b < BUCKETS; b++) {
        int64_t begin = b > 0 ? ends[b - 1] : 0;
        rc = pairs_of_bucket(hashes, items + begin, ends[b] - begin, band, pair, user, err);
    }
    return rc;
}

int sac_likeness_pairs(const uint64_t *hashes, int64_t count,
                       int (*pair)(void *user, int64_t a, int64_t b, struct sac_error *err),
                       void *user, struct sac_error *err)
{
    int64_t *items = calloc((size_t)count + 1, sizeof *items);
    int rc = items ? 0 : sac_fail(err, SAC_ENOMEM, "no memory for %lld pictures", (long long)count);

    for (int band = 0; rc == 0 && band < BANDS; band++)
        rc = pairs_of_band(hashes, items, count, band, pair, user, err);
    free(items);
    return rc;
}

void sac_likeness_of_bytes(const uint8_t *bytes, size_t size, uint64_t ret[2])
{
    uint64_t a = size, b = ~(uint64_t)size;

    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
        a = sac_random_mix(a ^ word);
        b = (b ^ word) * UINT64_C(0x100000001b3) + (b >> 29);
    }
    ret[0] = a;
    ret[1] = b;
}
