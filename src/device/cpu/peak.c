#include "device/cpu/peak.h"

#include "base/clock.h"
#include "device/cpu/kernel.h"
#include "device/cpu/vector.h"

/* About 2 ms a try; the first ones also wake the units up. */
enum { TRIES = 8, ROUNDS = 200000 };

static double best_of(double (*run)(int64_t rounds))
{
    double best = 0;

    for (int i = 0; i < TRIES; i++) {
        uint64_t began = sac_clock_thread_cpu_ns();
        double done = run(ROUNDS);
        uint64_t took = sac_clock_thread_cpu_ns() - began;
        double rate = took > 0 ? done * 1e9 / (double)took : 0;
        best = rate > best ? rate : best;
    }
    return best;
}

/* Tiles are not probed: nothing is known of a machine that has them. */
double sac_cpu_peak_flops(struct sac_device *device, enum sac_precision precision,
                          const char **ret_how)
{
    const struct sac_cpu_device *cpu = (const struct sac_cpu_device *)device;
    const struct sac_cpu_peak_code *code = cpu->vector->peak;
    const struct sac_cpu_features *can = &cpu->features;

    *ret_how = code->how;
    if (precision == SAC_PRECISION_INT8 && (can->avx512_vnni || can->amx_int8))
        return can->amx_int8 || !code->int8 ? 0 : best_of(code->int8);
    if (precision == SAC_PRECISION_BF16 && (can->avx512_bf16 || can->amx_bf16))
        return can->amx_bf16 || !code->bf16 ? 0 : best_of(code->bf16);
    return best_of(code->f32);
}
