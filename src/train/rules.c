#include "train/rules.h"

#include <math.h>
#include <string.h>

static void sgd(const struct sac_rule_values *v, const float *restrict g, float *restrict w,
                float *restrict h, float *restrict k, size_t count)
{
    const float rate = v->rate, momentum = v->momentum;

    (void)k;
    for (size_t i = 0; i < count; i++) {
        h[i] = momentum * h[i] + rate * g[i];
        w[i] -= h[i];
    }
}

static void nesterov(const struct sac_rule_values *v, const float *restrict g, float *restrict w,
                     float *restrict h, float *restrict k, size_t count)
{
    const float rate = v->rate, momentum = v->momentum, ahead = 1 + v->momentum;

    (void)k;
    for (size_t i = 0; i < count; i++) {
        float old = h[i];
        h[i] = momentum * old + rate * g[i];
        w[i] -= ahead * h[i] - momentum * old;
    }
}

static void ada_grad(const struct sac_rule_values *v, const float *restrict g, float *restrict w,
                     float *restrict h, float *restrict k, size_t count)
{
    const float rate = v->rate, delta = v->delta;

    (void)k;
    for (size_t i = 0; i < count; i++) {
        h[i] += g[i] * g[i];
        w[i] -= rate * (g[i] / (sqrtf(h[i]) + delta));
    }
}

static void rms_prop(const struct sac_rule_values *v, const float *restrict g, float *restrict w,
                     float *restrict h, float *restrict k, size_t count)
{
    const float rate = v->rate, delta = v->delta, decay = v->second, rest = 1 - v->second;

    (void)k;
    for (size_t i = 0; i < count; i++) {
        h[i] = decay * h[i] + rest * (g[i] * g[i]);
        w[i] -= rate * (g[i] / (sqrtf(h[i]) + delta));
    }
}

static void ada_delta(const struct sac_rule_values *v, const float *restrict g, float *restrict w,
                      float *restrict h, float *restrict k, size_t count)
{
    const float rate = v->rate, delta = v->delta, decay = v->momentum, rest = 1 - v->momentum;

    for (size_t i = 0; i < count; i++) {
        h[i] = decay * h[i] + rest * (g[i] * g[i]);
        float u = g[i] * sqrtf((k[i] + delta) / (h[i] + delta));
        k[i] = decay * k[i] + rest * (u * u);
        w[i] -= rate * u;
    }
}

static void adam(const struct sac_rule_values *v, const float *restrict g, float *restrict w,
                 float *restrict h, float *restrict k, size_t count)
{
    const float rate = v->rate, delta = v->delta;
    const float beta1 = v->momentum, rest1 = 1 - v->momentum;
    const float beta2 = v->second, rest2 = 1 - v->second;

    for (size_t i = 0; i < count; i++) {
        h[i] = beta1 * h[i] + rest1 * g[i];
        k[i] = beta2 * k[i] + rest2 * (g[i] * g[i]);
        w[i] -= rate * (h[i] / (sqrtf(k[i]) + delta));
    }
}

const struct sac_rule *sac_rule_find(const char *name)
{
    static const struct sac_rule rules[] = {
        {"SGD", 1, true, SAC_SECOND_NONE, false, sgd, SAC_UPDATE_SGD},
        {"Nesterov", 1, true, SAC_SECOND_NONE, false, nesterov, SAC_UPDATE_NESTEROV},
        {"AdaGrad", 1, false, SAC_SECOND_NONE, false, ada_grad, SAC_UPDATE_ADA_GRAD},
        {"RMSProp", 1, false, SAC_SECOND_RMS_DECAY, false, rms_prop, SAC_UPDATE_RMS_PROP},
        {"AdaDelta", 2, true, SAC_SECOND_NONE, false, ada_delta, SAC_UPDATE_ADA_DELTA},
        {"Adam", 2, true, SAC_SECOND_MOMENTUM2, true, adam, SAC_UPDATE_ADAM},
    };

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (strcmp(rules[i].name, name) == 0)
            return &rules[i];
    }
    return NULL;
}
