/* The six update rules, element by element; formulas in solver.h. Private to solver.c. */
#ifndef SAC_TRAIN_RULES_H
#define SAC_TRAIN_RULES_H

#include <stdbool.h>
#include <stddef.h>

#include "device/device.h"

struct sac_rule_values {
    float rate; /* lr_mult included; Adam's correction too */
    float momentum;
    float second; /* momentum2 or rms_decay */
    float delta;
};

/* g: gradients, done with but for the rule; w: parameters; h, k: history. */
typedef void sac_rule_fn(const struct sac_rule_values *v, const float *restrict g,
                         float *restrict w, float *restrict h, float *restrict k, size_t count);

/* What sac_rule_values.second is. */
enum sac_rule_second { SAC_SECOND_NONE, SAC_SECOND_RMS_DECAY, SAC_SECOND_MOMENTUM2 };

struct sac_rule {
    const char *name; /* as in solver.prototxt */
    int histories;    /* 1 or 2 */
    bool momentum;    /* whether a momentum other than 0 means something */
    enum sac_rule_second second;
    bool corrected; /* the rate is multiplied by Adam's correction */
    sac_rule_fn *apply;
    enum sac_update_rule on_device;
};

/* NULL when there is none of that name. */
const struct sac_rule *sac_rule_find(const char *name);

#endif
