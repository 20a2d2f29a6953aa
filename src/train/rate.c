#include "train/rate.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum needs {
    NEEDS_GAMMA = 1,
    NEEDS_POWER = 2,
    NEEDS_STEP_SIZE = 4,
    NEEDS_STEP_VALUES = 8,
    NEEDS_ITERATIONS = 16,
};

/* In the order of enum sac_rate_policy. */
static const struct {
    const char *name;
    int needs;
} policies[] = {
    {"fixed", 0},
    {"step", NEEDS_GAMMA | NEEDS_STEP_SIZE},
    {"exp", NEEDS_GAMMA},
    {"inv", NEEDS_GAMMA | NEEDS_POWER},
    {"multistep", NEEDS_GAMMA | NEEDS_STEP_VALUES},
    {"poly", NEEDS_POWER | NEEDS_ITERATIONS},
    {"sigmoid", NEEDS_GAMMA | NEEDS_STEP_SIZE},
    {"cosine", NEEDS_ITERATIONS},
    {"onecycle", NEEDS_ITERATIONS},
};

static int find_policy(const char *name, struct sac_error *err)
{
    if (!name)
        return sac_fail(err, SAC_EINVAL, "lr_policy is not set; \"fixed\" is the simplest");
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        if (strcmp(policies[i].name, name) == 0)
            return (int)i;
    }
    return sac_fail(err, SAC_EINVAL,
                    "lr_policy \"%s\" is unknown; expected fixed, step, exp, inv, multistep, poly, "
                    "sigmoid, cosine or onecycle",
                    name);
}

static int check_needs(const Caffe__SolverParameter *message, int policy, struct sac_error *err)
{
    const char *name = policies[policy].name;
    int needs = policies[policy].needs;

    if ((needs & NEEDS_GAMMA) && !message->has_gamma)
        return sac_fail(err, SAC_EINVAL, "lr_policy \"%s\" needs gamma, which is not set", name);
    if ((needs & NEEDS_POWER) && !message->has_power)
        return sac_fail(err, SAC_EINVAL, "lr_policy \"%s\" needs power, which is not set", name);
    if ((needs & NEEDS_STEP_SIZE) && !message->has_stepsize)
        return sac_fail(err, SAC_EINVAL, "lr_policy \"%s\" needs stepsize, which is not set", name);
    if (policy == SAC_RATE_STEP && message->stepsize <= 0)
        return sac_fail(err, SAC_EINVAL, "stepsize is %d; lr_policy \"step\" needs at least 1",
                        message->stepsize);
    if ((needs & NEEDS_STEP_VALUES) && message->n_stepvalue == 0)
        return sac_fail(err, SAC_EINVAL,
                        "lr_policy \"%s\" needs stepvalue at least once, which is not set", name);
    if ((needs & NEEDS_ITERATIONS) && message->max_iter <= 0)
        return sac_fail(err, SAC_EINVAL, "lr_policy \"%s\" needs max_iter above 0; it is %d", name,
                        message->max_iter);
    return 0;
}

/* What would make the rate meaningless whatever the policy. */
static int check_ranges(const Caffe__SolverParameter *message, int policy, struct sac_error *err)
{
    if (!message->has_base_lr)
        return sac_fail(err, SAC_EINVAL, "base_lr is not set");
    if (!isfinite(message->base_lr) || message->base_lr < 0)
        return sac_fail(err, SAC_EINVAL, "base_lr is %g; expected a number from 0 up",
                        (double)message->base_lr);
    if (message->rampup_interval < 0)
        return sac_fail(err, SAC_EINVAL, "rampup_interval is %d; expected 0 or more",
                        message->rampup_interval);
    if (policy != SAC_RATE_ONECYCLE)
        return 0;
    if (message->rampup_interval > 0)
        return sac_fail(err, SAC_EINVAL,
                        "lr_policy \"onecycle\" has a warm-up of its own (cycle_peak); "
                        "rampup_interval cannot be set as well");
    if (!(message->cycle_peak > 0 && message->cycle_peak < 1))
        return sac_fail(err, SAC_EINVAL, "cycle_peak is %g; expected a fraction between 0 and 1",
                        (double)message->cycle_peak);
    if (!(message->cycle_start_div >= 1 && message->cycle_end_div >= 1))
        return sac_fail(err, SAC_EINVAL,
                        "cycle_start_div is %g and cycle_end_div %g; expected 1 or more",
                        (double)message->cycle_start_div, (double)message->cycle_end_div);
    return 0;
}

int sac_rate_init(struct sac_rate *ret, const Caffe__SolverParameter *message,
                  struct sac_error *err)
{
    int policy = find_policy(message->lr_policy, err);
    int rc = policy < 0 ? policy : check_needs(message, policy, err);

    if (rc == 0)
        rc = check_ranges(message, policy, err);
    if (rc < 0)
        return rc;
    *ret = (struct sac_rate){
        .policy = (enum sac_rate_policy)policy,
        .base = (double)message->base_lr,
        .least = (double)message->min_lr,
        .gamma = (double)message->gamma,
        .power = (double)message->power,
        .step_size = message->stepsize,
        .step_values = message->stepvalue,
        .step_value_count = (int)message->n_stepvalue,
        .iterations = message->max_iter,
        .warm_iterations = message->rampup_interval,
        .warm_start = (double)message->rampup_lr,
        .cycle_peak = (double)message->cycle_peak,
        .cycle_start_div = (double)message->cycle_start_div,
        .cycle_end_div = (double)message->cycle_end_div,
    };
    return 0;
}

int sac_rate_step_at(const struct sac_rate *rate, int64_t iteration)
{
    int step = 0;

    if (rate->policy == SAC_RATE_STEP) {
        int64_t steps = iteration / rate->step_size;
        return steps > INT_MAX ? INT_MAX : (int)steps;
    }
    if (rate->policy != SAC_RATE_MULTISTEP)
        return 0;
    while (step < rate->step_value_count && iteration >= rate->step_values[step])
        step++;
    return step;
}

/* Where `iteration` is between two others: 0 to 1. */
static double progress(int64_t iteration, double from, double to)
{
    double at = (double)iteration;

    if (at >= to)
        return 1;
    return at <= from ? 0 : (at - from) / (to - from);
}

/* Half a cosine from one rate (x = 0) to another (x = 1). */
static double half_cosine(double from, double to, double x)
{
    return to + (from - to) * 0.5 * (1 + cos(M_PI * x));
}

static double one_cycle(const struct sac_rate *rate, int64_t iteration)
{
    double end = (double)rate->iterations;
    double peak = rate->cycle_peak * end;
    double first = rate->base / rate->cycle_start_div;

    if ((double)iteration < peak)
        return half_cosine(first, rate->base, progress(iteration, 0, peak));
    return half_cosine(rate->base, first / rate->cycle_end_div, progress(iteration, peak, end));
}

double sac_rate_at(const struct sac_rate *rate, int64_t iteration)
{
    double i = (double)iteration, base = rate->base, end = (double)rate->iterations;

    if (iteration < rate->warm_iterations)
        return rate->warm_start + (base - rate->warm_start) * i / (double)rate->warm_iterations;
    switch (rate->policy) {
    case SAC_RATE_FIXED:
        return base;
    case SAC_RATE_STEP:
    case SAC_RATE_MULTISTEP:
        return base * pow(rate->gamma, sac_rate_step_at(rate, iteration));
    case SAC_RATE_EXP:
        return base * pow(rate->gamma, i);
    case SAC_RATE_INV:
        return base * pow(1 + rate->gamma * i, -rate->power);
    case SAC_RATE_POLY:
        return rate->least +
               (base - rate->least) * pow(1 - progress(iteration, 0, end), rate->power);
    case SAC_RATE_SIGMOID:
        return base / (1 + exp(-rate->gamma * (i - (double)rate->step_size)));
    case SAC_RATE_COSINE:
        return half_cosine(base, rate->least,
                           progress(iteration, (double)rate->warm_iterations, end));
    case SAC_RATE_ONECYCLE:
        return one_cycle(rate, iteration);
    }
    return base;
}
