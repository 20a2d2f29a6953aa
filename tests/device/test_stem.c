/* Rows of a convolution of few channels in bf16, where this machine has the arithmetic,
 * against the definition in double: y[o](x) = b[o] + Σ source(x · step + i) · w[o](row, i). */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/cpu.h"
#include "base/random.h"
#include "device/cpu/stem.h"

enum { KERNEL = 3, WIDTH_MAX = 30, VECTORS_MAX = 12, NUMBERS_MAX = 16, STEP_MAX = 9 };
enum { ROW = (WIDTH_MAX - 1) * STEP_MAX + NUMBERS_MAX, OUT = VECTORS_MAX * 16 };

static uint16_t source[KERNEL][ROW], filter[KERNEL * NUMBERS_MAX * OUT];
static float weights[OUT][KERNEL][NUMBERS_MAX], bias[OUT];

/* Exact in bf16. */
static float number(uint64_t seed, uint64_t at)
{
    double unit = sac_random_unit(sac_random_mix(seed * 1000003 + at));

    return sac_bf16_to_float(sac_bf16_from_float((float)(2 * unit - 1)));
}

static void fill(const struct sac_stem *s, int numbers)
{
    memset(filter, 0, sizeof filter);
    for (int o = 0; o < s->vectors * 16; o++) {
        bias[o] = number(1, (uint64_t)o);
        for (int y = 0; y < KERNEL; y++) {
            for (int i = 0; i < numbers; i++) {
                weights[o][y][i] = number(2, (uint64_t)((o * KERNEL + y) * NUMBERS_MAX + i));
                filter[sac_stem_filter_at(s, o, y, i)] = sac_bf16_from_float(weights[o][y][i]);
            }
        }
    }
    for (int i = 0; i < KERNEL * ROW; i++)
        source[i / ROW][i % ROW] = sac_bf16_from_float(number(3, (uint64_t)i));
}

static double wanted(const struct sac_stem *s, int numbers, int64_t x, int o)
{
    double sum = s->bias ? bias[o] : 0;

    for (int y = 0; y < KERNEL; y++)
        for (int i = 0; i < numbers; i++)
            sum += (double)sac_bf16_to_float(source[y][x * s->step + i]) * weights[o][y][i];
    return s->relu && sum < 0 ? sum * (double)s->slope : sum;
}

static void check(const struct sac_stem *s, int numbers, enum sac_type type)
{
    static float to[WIDTH_MAX * (OUT + 16)];
    const uint16_t *rows[KERNEL] = {source[0], source[1], source[2]};
    int64_t pitch = s->vectors * 16 + 16; /* a part of a value with more channels */
    double near = type == SAC_F32 ? 1e-4 : 1. / 256;

    memset(to, 0x7f, sizeof to);
    sac_cpu_stem_avx512.row(s, rows, to, type, pitch);
    for (int64_t x = 0; x < s->width; x++) {
        for (int64_t o = 0; o < pitch; o++) {
            int64_t at = x * pitch + o;
            float got = type == SAC_F32 ? to[at] : sac_bf16_to_float(((uint16_t *)to)[at]);
            if (o >= s->vectors * 16) {
                assert_true(got > 1e38f); /* others' are left alone */
                continue;
            }
            double y = wanted(s, numbers, x, (int)o);
            if (!(fabs((double)got - y) <= near * (1 + fabs(y))))
                fail_msg("%d vectors, width %d, pixel %d, output %d: %g, not %g", (int)s->vectors,
                         (int)s->width, (int)x, (int)o, (double)got, y);
        }
    }
}

static void rows_are_the_sums_of_the_definition(void **state)
{
    static const int widths[] = {1, 3, 6, 8, 23, WIDTH_MAX}, vectors[] = {1, 2, 3, 4, 5, 6, 7, 12};
    static const int numbers[] = {1, 4, 9, 15}, steps[] = {1, 2, 6, STEP_MAX};

    (void)state;
    if (!sac_cpu_features().avx512_bf16) {
        print_message("# skipped: no AVX-512 bf16\n");
        skip();
    }
    for (int i = 0; i < 8 * 6 * 4; i++) {
        int count = numbers[i % 4];
        struct sac_stem s = {.kernel = KERNEL,
                             .pairs = (count + 1) / 2,
                             .step = steps[i / 2 % 4],
                             .width = widths[i % 6],
                             .vectors = vectors[i / 24],
                             .filter = filter,
                             .bias = i % 5 ? bias : NULL,
                             .relu = i % 3 > 0,
                             .slope = i % 3 == 2 ? .25f : 0};
        fill(&s, count);
        check(&s, count, SAC_F32);
        check(&s, count, SAC_BF16);
    }
}

/* Every number of the filter has a place of its own. */
static void weights_do_not_meet(void **state)
{
    (void)state;
    for (int64_t vectors = 1; vectors <= VECTORS_MAX; vectors++) {
        struct sac_stem s = {.kernel = KERNEL, .pairs = 5, .vectors = vectors};
        int64_t count = KERNEL * 10 * vectors * 16;
        char *seen = calloc((size_t)count, 1);
        assert_non_null(seen);
        for (int64_t i = 0; i < count; i++) {
            int64_t at = sac_stem_filter_at(&s, i / 30, i / 10 % 3, i % 10);
            assert_true(at >= 0 && at < count && !seen[at]);
            seen[at] = 1;
        }
        free(seen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_the_sums_of_the_definition),
        cmocka_unit_test(weights_do_not_meet),
    };

    return cmocka_run_group_tests_name("device/stem", tests, NULL, NULL);
}
