/* Compiled for each instruction set with SAC_PEAK_TABLE set. Twelve chains: more than the
 * latency of a multiply-add times the units that there are. */
#include "device/cpu/peak.h"

#if defined __AVX512F__ || defined __AVX2__
#include <immintrin.h>
#endif

enum { CHAINS = 12 };

/* Unrolled by hand, so that the chains are in registers at every level of optimization. */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

/* Results that somebody could read are computed. */
static volatile float kept;

/* Runs STEP on sum0 … sum11, which begin as `first`, and what ADD does with each. That they
 * begin alike is hidden: equal chains would be computed once. */
#define RUN_CHAINS(type, first, STEP, ADD)                                                         \
    type sum0 = first, sum1 = first, sum2 = first, sum3 = first, sum4 = first, sum5 = first;       \
    type sum6 = first, sum7 = first, sum8 = first, sum9 = first, sum10 = first, sum11 = first;     \
    EACH(HIDE)                                                                                     \
    for (int64_t round = 0; round < rounds; round++) {                                             \
        EACH(STEP)                                                                                 \
    }                                                                                              \
    EACH(ADD)
#define HIDE(i) __asm__("" : "+x"(sum##i));

#if defined __AVX512F__

static double f32(int64_t rounds)
{
    __m512 x = _mm512_set1_ps(.999f), y = _mm512_set1_ps(.001f), all = y;

#define STEP(i) sum##i = _mm512_fmadd_ps(sum##i, x, y);
#define ADD(i) all = _mm512_add_ps(all, sum##i);
    RUN_CHAINS(__m512, y, STEP, ADD)
#undef STEP
#undef ADD
    kept = _mm512_cvtss_f32(all);
    return 2. * 16 * CHAINS * (double)rounds;
}

__attribute__((target("avx512bf16"))) static double bf16(int64_t rounds)
{
    const __m512 small = _mm512_set1_ps(.001f);
    __m512bh x = _mm512_cvtne2ps_pbh(small, small);
    __m512 all = small;

#define STEP(i) sum##i = _mm512_dpbf16_ps(sum##i, x, x);
#define ADD(i) all = _mm512_add_ps(all, sum##i);
    RUN_CHAINS(__m512, small, STEP, ADD)
#undef STEP
#undef ADD
    kept = _mm512_cvtss_f32(all);
    return 2. * 32 * CHAINS * (double)rounds;
}

__attribute__((target("avx512vnni"))) static double int8(int64_t rounds)
{
    __m512i x = _mm512_set1_epi8(1), all = x;

#define STEP(i) sum##i = _mm512_dpbusd_epi32(sum##i, x, x);
#define ADD(i) all = _mm512_add_epi32(all, sum##i);
    RUN_CHAINS(__m512i, x, STEP, ADD)
    kept = (float)_mm512_cvtsi512_si32(all);
    return 2. * 64 * CHAINS * (double)rounds;
}

const struct sac_cpu_peak_code SAC_PEAK_TABLE = {"AVX-512 multiply-adds", f32, bf16, int8};

#elif defined __AVX2__

static double f32(int64_t rounds)
{
    __m256 x = _mm256_set1_ps(.999f), y = _mm256_set1_ps(.001f), all = y;

#define STEP(i) sum##i = _mm256_fmadd_ps(sum##i, x, y);
#define ADD(i) all = _mm256_add_ps(all, sum##i);
    RUN_CHAINS(__m256, y, STEP, ADD)
    kept = _mm256_cvtss_f32(all);
    return 2. * 8 * CHAINS * (double)rounds;
}

const struct sac_cpu_peak_code SAC_PEAK_TABLE = {"AVX2 multiply-adds", f32, NULL, NULL};

#else

typedef float four __attribute__((vector_size(16)));

/* A multiplication and an addition. */
static double f32(int64_t rounds)
{
    four x = (four){0} + .999f, y = (four){0} + .001f, all = y;

#define STEP(i) sum##i = sum##i * x + y;
#define ADD(i) all += sum##i;
    RUN_CHAINS(four, y, STEP, ADD)
    kept = all[0];
    return 2. * 4 * CHAINS * (double)rounds;
}

const struct sac_cpu_peak_code SAC_PEAK_TABLE = {"SSE2 multiplications and additions", f32, NULL,
                                                 NULL};

#endif
