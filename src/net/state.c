/* Which layers belong to a net: Caffe's include and exclude rules. */
#include "net/net_private.h"

#include <string.h>

static bool has_stage(const Caffe__NetState *state, const struct sac_net_options *options,
                      const char *stage)
{
    for (size_t i = 0; state && i < state->n_stage; i++) {
        if (strcmp(state->stage[i], stage) == 0)
            return true;
    }
    for (int i = 0; i < options->stage_count; i++) {
        if (strcmp(options->stages[i], stage) == 0)
            return true;
    }
    return false;
}

/* What the caller says comes before what the net says of itself. */
static int level_of(const Caffe__NetState *state, const struct sac_net_options *options)
{
    return options->level != 0 || !state ? options->level : state->level;
}

static bool meets_phase_and_level(const Caffe__NetStateRule *rule, const Caffe__NetState *state,
                                  const struct sac_net_options *options)
{
    Caffe__Phase phase =
        options->phase == SAC_PHASE_TRAIN ? CAFFE__PHASE__TRAIN : CAFFE__PHASE__TEST;
    int level = level_of(state, options);

    if (rule->has_phase && rule->phase != phase)
        return false;
    if (rule->has_min_level && level < rule->min_level)
        return false;
    return !rule->has_max_level || level <= rule->max_level;
}

/* All conditions of one rule have to hold. */
static bool meets_rule(const Caffe__NetStateRule *rule, const Caffe__NetState *state,
                       const struct sac_net_options *options)
{
    if (!meets_phase_and_level(rule, state, options))
        return false;
    for (size_t i = 0; i < rule->n_stage; i++) {
        if (!has_stage(state, options, rule->stage[i]))
            return false;
    }
    for (size_t i = 0; i < rule->n_not_stage; i++) {
        if (has_stage(state, options, rule->not_stage[i]))
            return false;
    }
    return true;
}

int sac_layer_included(const Caffe__LayerParameter *layer, const Caffe__NetState *state,
                       const struct sac_net_options *options, bool *ret, struct sac_error *err)
{
    bool any = false;

    if (layer->n_include > 0 && layer->n_exclude > 0)
        return sac_fail(err, SAC_EFORMAT,
                        "layer \"%.64s\": a layer has include rules or exclude rules, not both",
                        layer->name ? layer->name : "");
    for (size_t i = 0; i < layer->n_include; i++)
        any |= meets_rule(layer->include[i], state, options);
    for (size_t i = 0; i < layer->n_exclude; i++)
        any |= meets_rule(layer->exclude[i], state, options);
    *ret = layer->n_include > 0 ? any : !any;
    return 0;
}
