/*
 * How an expert would fine-tune, as a function of how much data there is: what is
 * chosen, and why, in words. Pure; any thread.
 *
 * The rules are the usual ones of transfer learning (Yosinski et al., How transferable are
 * features in deep neural networks?, and Caffe's own fine-tuning example): the new last
 * layer learns at ten times the rate; the fewer pictures a class has, the more of the
 * early layers stay as they are; what little there is is seen often and never twice alike.
 */
#ifndef SAC_TRAIN_TUNING_H
#define SAC_TRAIN_TUNING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct sac_tuning_facts {
    int classes;
    int64_t train_items, validation_items;
    int64_t least; /* items of the smallest class */
    int learnable; /* layers with weights, the last included */
    int side;      /* the net's input, the smaller of its sides */
    bool scratch;  /* no weights to start from */
};

/* Zero or negative in what the caller gives means: not said, choose. */
struct sac_tuning {
    int batch;
    double epochs;
    double rate;       /* at its highest */
    double last_mult;  /* the new layer's rate over that */
    double early_mult; /* of the layers before it that are not frozen */
    int frozen;        /* layers that keep their weights; -1: not said */
    double decay;      /* -1: not said */
    double smoothing;  /* -1: not said */
    double area_min;   /* random resized crop; -1: not said */
    double color;      /* brightness, contrast and saturation; -1: not said */
    int flip;          /* 0, 1, -1: not said */
    int resize;        /* side to which pictures are scaled before they are cropped */
    int patience;      /* tests without a better one until it stops */

    /* What follows from the others. */
    int64_t iterations, warm_up, test_interval, test_batches;
    int test_batch;
};
#define SAC_TUNING_OPEN                                                                            \
    (struct sac_tuning)                                                                            \
    {                                                                                              \
        .frozen = -1, .decay = -1, .smoothing = -1, .area_min = -1, .color = -1, .flip = -1        \
    }

enum { SAC_TUNING_CHOICES_MAX = 16, SAC_TUNING_TEXT = 160 };
/* One line for people: "batch", "32", "why". */
struct sac_tuning_choice {
    const char *name;
    char value[48];
    char why[SAC_TUNING_TEXT];
    bool given; /* by the user */
};
struct sac_tuning_choices {
    struct sac_tuning_choice choice[SAC_TUNING_CHOICES_MAX];
    int count;
};

/* Completes `recipe`. SAC_EINVAL: a value that was given makes no sense with these
 * facts; the sentence names it. */
int sac_tuning_choose(struct sac_tuning *recipe, const struct sac_tuning_facts *facts,
                      struct sac_tuning_choices *ret_choices, struct sac_error *err);

#endif
