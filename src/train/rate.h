/*
 * The learning rate as a function of the iteration.
 *
 * Caffe's policies (i: the iteration, from 0; b: base_lr; γ: gamma; p: power; s: stepsize):
 *     fixed b · step b·γ^⌊i/s⌋ · exp b·γ^i · inv b·(1+γi)^−p · poly m + (b−m)·(1−i/max_iter)^p
 *     multistep b·γ^(how many of stepvalue, in their order, are ≤ i) · sigmoid b/(1+e^(−γ(i−s)))
 * and ours:
 *     cosine    m + (b−m)·(1+cos πx)/2, x from 0 at the warm-up's end to 1 at max_iter
 *     onecycle  from b/cycle_start_div by half a cosine up to b at cycle_peak · max_iter, then
 *               down to b/(cycle_start_div · cycle_end_div) at max_iter
 * m is min_lr, 0 unless given. Warm-up, for all but onecycle: below rampup_interval the rate goes
 * in a straight line from rampup_lr to b (NVCaffe's fields). Any thread.
 */
#ifndef SAC_TRAIN_RATE_H
#define SAC_TRAIN_RATE_H

#include <stdint.h>

#include "base/error.h"
#include "formats/caffe.h"

enum sac_rate_policy {
    SAC_RATE_FIXED,
    SAC_RATE_STEP,
    SAC_RATE_EXP,
    SAC_RATE_INV,
    SAC_RATE_MULTISTEP,
    SAC_RATE_POLY,
    SAC_RATE_SIGMOID,
    SAC_RATE_COSINE,
    SAC_RATE_ONECYCLE,
};

struct sac_rate {
    enum sac_rate_policy policy;
    double base;
    double least; /* min_lr */
    double gamma;
    double power;
    int64_t step_size;
    const int32_t *step_values; /* borrowed from the solver's message */
    int step_value_count;
    int64_t iterations; /* max_iter */
    int64_t warm_iterations;
    double warm_start;
    double cycle_peak; /* a fraction of iterations */
    double cycle_start_div;
    double cycle_end_div;
};

/* A field that the policy needs and the solver lacks, or a policy that is
 * unknown, is SAC_EINVAL. `message` must outlive the rate. */
int sac_rate_init(struct sac_rate *ret, const Caffe__SolverParameter *message,
                  struct sac_error *err);

/* At max_iter and beyond, the policies that end there stay at their end. */
double sac_rate_at(const struct sac_rate *rate, int64_t iteration);

/* How many steps step and multistep have made: a solverstate's current_step. */
int sac_rate_step_at(const struct sac_rate *rate, int64_t iteration);

#endif
