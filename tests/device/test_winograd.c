/* Winograd's tiles, in each instruction set that this machine has, against a convolution's
 * definition in double: y[o](p) = b[o] + Σ x[i](p + k − pad) · g[o][i](k), and a ReLU. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/cpu.h"
#include "base/random.h"
#include "device/cpu/winograd.h"

enum {
    PICTURES = 2,
    HEIGHT = 7,
    WIDTH = 10,
    IN = 32,
    OUT = 16,
    PITCH = 48, /* of the value that the result is a part of */
    POINTS_MAX = 36,
    CHUNK = 5
};

struct problem {
    int tile, pad[2]; /* down, across */
    enum sac_type type, result;
    bool has_bias, relu;
    float slope;
    int64_t height, width; /* of the result */
    float x[PICTURES * HEIGHT * WIDTH * IN], g[OUT * IN * 9], bias[OUT];
};

static float number(uint64_t seed, uint64_t at)
{
    return (float)(2 * sac_random_unit(sac_random_mix(seed * 1000003 + at)) - 1);
}

static void fill(struct problem *p)
{
    for (size_t i = 0; i < sizeof p->x / sizeof *p->x; i++)
        p->x[i] = sac_bf16_to_float(sac_bf16_from_float(number(1, i)));
    for (size_t i = 0; i < sizeof p->g / sizeof *p->g; i++)
        p->g[i] = number(2, i);
    for (int o = 0; o < OUT; o++)
        p->bias[o] = number(3, (uint64_t)o);
    p->height = HEIGHT + 2 * p->pad[0] - 2;
    p->width = WIDTH + 2 * p->pad[1] - 2;
}

static double sum_at(const struct problem *p, int64_t n, int64_t y, int64_t x, int64_t o)
{
    double sum = p->has_bias ? p->bias[o] : 0;

    for (int64_t k = 0; k < 9; k++) {
        int64_t iy = y - p->pad[0] + k / 3, ix = x - p->pad[1] + k % 3;
        if (iy < 0 || iy >= HEIGHT || ix < 0 || ix >= WIDTH)
            continue;
        for (int64_t i = 0; i < IN; i++)
            sum += (double)p->x[((n * HEIGHT + iy) * WIDTH + ix) * IN + i] *
                   p->g[(o * IN + i) * 9 + k];
    }
    return p->relu && sum < 0 ? sum * (double)p->slope : sum;
}

static float point(const struct sac_winograd *w, enum sac_type type, int64_t at)
{
    return type == SAC_F32 ? ((const float *)w->in)[at]
                           : sac_bf16_to_float(((const uint16_t *)w->in)[at]);
}

/* Each point's matrix product, over the tiles that were transformed. */
static void multiply(const struct problem *p, const struct sac_winograd *w, const float *filters,
                     int64_t count)
{
    int points = (p->tile + 2) * (p->tile + 2);

    for (int k = 0; k < points; k++)
        for (int64_t t = 0; t < count; t++)
            for (int64_t o = 0; o < OUT; o++) {
                double sum = 0;
                for (int64_t i = 0; i < IN; i++)
                    sum += (double)point(w, p->type, (k * CHUNK + t) * IN + i) *
                           filters[(k * IN + i) * OUT + o];
                w->out[(k * CHUNK + t) * OUT + o] = (float)sum;
            }
}

static struct sac_tensor tensor_of(void *data, int64_t channels, int64_t height, int64_t width,
                                   enum sac_type type)
{
    struct sac_shape shape = {.rank = 4, .dim = {PICTURES, channels, height, width}};
    struct sac_tensor tensor =
        sac_tensor_of(&shape, (struct sac_form){.type = type, .layout = SAC_CHANNELS_LAST});

    tensor.data = data;
    return tensor;
}

/* The result stands in the middle of a value with more channels. */
static struct sac_tensor part_of(char *result, const struct problem *p)
{
    struct sac_tensor part =
        tensor_of(result + OUT * sac_type_bytes(p->result), OUT, p->height, p->width, p->result);

    part.stride[3] = PITCH;
    part.stride[2] = PITCH * p->width;
    part.stride[0] = PITCH * p->width * p->height;
    return part;
}

static void run(const struct sac_cpu_winograd_code *code, const struct problem *p, char *result)
{
    static float filters[POINTS_MAX * IN * OUT], in[POINTS_MAX * CHUNK * IN],
        out[POINTS_MAX * CHUNK * OUT];
    static uint16_t half[PICTURES * HEIGHT * WIDTH * IN];
    void *x = p->type == SAC_F32 ? (void *)(uintptr_t)p->x : half;
    struct sac_tensor src = tensor_of(x, IN, HEIGHT, WIDTH, p->type);
    struct sac_tensor dst = part_of(result, p);
    struct sac_op op = {.src = &src, .dst = &dst, .weight_count = 2, .weight = {NULL, p->bias}};
    struct sac_winograd w = {p->tile, 0, 0, 0, CHUNK, IN, OUT, in, out};

    op.param.conv.window = (struct sac_window){{3, 3}, {1, 1}, {p->pad[0], p->pad[1]}, {1, 1}};
    op.weight_count = 1 + p->has_bias;
    op.epilogue.relu = p->relu;
    op.epilogue.slope = p->slope;
    for (size_t i = 0; i < sizeof half / sizeof *half; i++)
        half[i] = sac_bf16_from_float(p->x[i]);
    for (int64_t o = 0; o < OUT; o++)
        for (int64_t i = 0; i < IN; i++)
            sac_winograd_filter(p->tile, p->g + (o * IN + i) * 9, filters + i * OUT + o, IN * OUT);
    w.down = (p->height + p->tile - 1) / p->tile;
    w.across = (p->width + p->tile - 1) / p->tile;
    w.count = PICTURES * w.down * w.across;
    for (int64_t start = 0; start < w.count; start += CHUNK) {
        int64_t count = w.count - start < CHUNK ? w.count - start : CHUNK;
        code->transform(&op, &w, start, 0, count / 2); /* in two parts */
        code->transform(&op, &w, start, count / 2, count);
        multiply(p, &w, filters, count);
        code->restore(&op, &w, start, 0, count);
    }
}

static float result_at(const struct problem *p, const char *result, size_t at)
{
    return p->result == SAC_F32 ? ((const float *)(const void *)result)[at]
                                : sac_bf16_to_float(((const uint16_t *)(const void *)result)[at]);
}

static void check(const char *set, const struct sac_cpu_winograd_code *code,
                  const struct problem *p, double tolerance)
{
    size_t rows = (size_t)(PICTURES * p->height * p->width);
    size_t bytes = rows * PITCH * sac_type_bytes(p->result), plane = (size_t)(p->height * p->width);
    char *result = malloc(bytes);

    assert_non_null(result);
    memset(result, 0xff, bytes); /* no numbers */
    run(code, p, result);
    for (size_t at = 0; at < rows * PITCH; at++) {
        size_t row = at / PITCH, channel = at % PITCH;
        float found = result_at(p, result, at);
        if (channel < OUT || channel >= 2 * OUT) {
            assert_true(isnan(found)); /* the neighbours' */
            continue;
        }
        int64_t y = (int64_t)(row % plane) / p->width, x = (int64_t)(row % plane) % p->width;
        double wanted = sum_at(p, (int64_t)(row / plane), y, x, (int64_t)channel - OUT);
        if (!(fabs(found - wanted) <= tolerance))
            fail_msg("%s, %d×%d, pads %d and %d: %lld, %lld of channel %zu is %g, not %g", set,
                     p->tile, p->tile, p->pad[0], p->pad[1], (long long)y, (long long)x,
                     channel - OUT, found, wanted);
    }
    free(result);
}

/* Sums of 288 products of numbers up to 1 are some 10 large, at most 32: bf16's results are
 * to 2⁻⁴. Its points lose 2⁻⁹ each of numbers up to 4. */
static void check_all(const char *set, const struct sac_cpu_winograd_code *code)
{
    static const struct {
        int tile;
        enum sac_type type, result;
        double tolerance;
    } ways[] = {{2, SAC_F32, SAC_F32, 2e-5},
                {4, SAC_F32, SAC_F32, 2e-4},
                {2, SAC_BF16, SAC_F32, .1},
                {2, SAC_BF16, SAC_BF16, .2}};
    static const struct {
        int pad[2];
        bool has_bias, relu;
        float slope;
    } kinds[] = {{{0, 0}, true, false, 0},
                 {{1, 1}, true, true, 0},
                 {{2, 2}, false, true, .25f},
                 {{1, 3}, true, true, -2}};
    static struct problem p;

    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            p.tile = ways[i].tile;
            p.type = ways[i].type;
            p.result = ways[i].result;
            memcpy(p.pad, kinds[k].pad, sizeof p.pad);
            p.has_bias = kinds[k].has_bias;
            p.relu = kinds[k].relu;
            p.slope = kinds[k].slope;
            fill(&p);
            check(set, code, &p, ways[i].tolerance * (p.slope < -1 ? 2 : 1));
        }
}

static void tiles_are_the_convolution(void **state)
{
    struct sac_cpu_features features = sac_cpu_features();

    (void)state;
    check_all("SSE2", &sac_cpu_winograd_base);
    if (features.avx2)
        check_all("AVX2", &sac_cpu_winograd_avx2);
    if (features.avx512)
        check_all("AVX-512", &sac_cpu_winograd_avx512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiles_are_the_convolution)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
