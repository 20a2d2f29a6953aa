#include "train/tuning.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct work {
    struct sac_tuning *r;
    const struct sac_tuning_facts *f;
    struct sac_tuning_choices *choices;
    double per_class;
};

/* Notes a choice; returns its value's place for the caller to print into. */
static char *note(struct work *w, const char *name, bool given, const char *why, ...)
    __attribute__((format(printf, 4, 5)));

static char *note(struct work *w, const char *name, bool given, const char *why, ...)
{
    struct sac_tuning_choice *choice = &w->choices->choice[w->choices->count++];
    va_list args;

    *choice = (struct sac_tuning_choice){.name = name, .given = given};
    if (given) {
        snprintf(choice->why, sizeof choice->why, "as given");
        return choice->value;
    }
    va_start(args, why);
    vsnprintf(choice->why, sizeof choice->why, why, args);
    va_end(args);
    return choice->value;
}

#define PUT(place, ...)                                                                            \
    snprintf(place, sizeof((struct sac_tuning_choice *)NULL)->value, __VA_ARGS__)

/* ---- One choice each -------------------------------------------------------- */

static void choose_batch(struct work *w)
{
    bool given = w->r->batch > 0;

    if (!given)
        w->r->batch = w->f->train_items < 256 ? 16 : 32;
    if (w->r->batch > w->f->train_items)
        w->r->batch = (int)w->f->train_items;
    PUT(note(w, "batch", given, "%s",
             w->r->batch < 32 ? "few pictures: small batches give more steps an epoch"
                              : "large enough for a steady gradient"),
        "%d", w->r->batch);
}

static void choose_epochs(struct work *w)
{
    bool given = w->r->epochs > 0;
    double n = w->per_class;

    if (!given)
        w->r->epochs = n < 20 ? 40 : n < 200 ? 25 : n < 1000 ? 15 : 8;
    if (!given && w->f->scratch)
        w->r->epochs *= 3;
    PUT(note(w, "epochs", given, "%.0f pictures a class%s", n,
             w->f->scratch ? ", and nothing learnt before" : ""),
        "%g", w->r->epochs);
}

static void choose_frozen(struct work *w)
{
    int before = w->f->learnable - 1;
    double n = w->per_class, part = n < 20 ? 0.5 : n < 200 ? 0.25 : 0;
    bool given = w->r->frozen >= 0;

    if (!given)
        w->r->frozen = w->f->scratch ? 0 : (int)(part * before);
    PUT(note(w, "frozen layers", given, "%s",
             w->f->scratch      ? "from scratch, every layer learns"
             : w->r->frozen > 0 ? "edges and textures serve other pictures as well; "
                                  "too few pictures to learn them anew"
                                : "enough pictures to adapt every layer"),
        "%d of %d", w->r->frozen, w->f->learnable);
}

static void choose_rates(struct work *w)
{
    bool rate = w->r->rate > 0, early = w->r->early_mult > 0, last = w->r->last_mult > 0;

    if (!rate)
        w->r->rate = (w->f->scratch ? 0.005 : 0.002) * w->r->batch / 32;
    PUT(note(w, "rate", rate, "%s; in step with the batch; cosine to 0 after a short warm-up",
             w->f->scratch ? "from scratch" : "lower than from scratch, to keep what is known"),
        "%g", w->r->rate);
    if (!early)
        w->r->early_mult = !w->f->scratch && w->per_class < 20 ? 0.5 : 1;
    PUT(note(w, "earlier layers", early, "%s",
             w->r->early_mult < 1 ? "slower, so that few pictures do not undo what they know"
                                  : "at the whole rate"),
        "%gx", w->r->early_mult);
    if (!last)
        w->r->last_mult = w->f->scratch ? 1 : 10;
    PUT(note(w, "last layer", last, "%s",
             w->f->scratch ? "as the others" : "it starts from nothing, the others do not"),
        "%gx", w->r->last_mult);
}

static void choose_regularisation(struct work *w)
{
    bool decay = w->r->decay >= 0, smoothing = w->r->smoothing >= 0;

    if (!decay)
        w->r->decay = 5e-4;
    PUT(note(w, "weight decay", decay, "usual for these nets"), "%g", w->r->decay);
    if (!smoothing)
        w->r->smoothing = 0.1;
    PUT(note(w, "label smoothing", smoothing, "less certain, better calibrated"), "%g",
        w->r->smoothing);
}

static void choose_augmentation(struct work *w)
{
    bool area = w->r->area_min >= 0, color = w->r->color >= 0, flip = w->r->flip >= 0;
    bool resize = w->r->resize > 0;

    if (!resize)
        w->r->resize = (int)lround(w->f->side * 256.0 / 227.0);
    PUT(note(w, "scaled to", resize, "room for crops of %d", w->f->side), "%d", w->r->resize);
    if (!area)
        w->r->area_min = 0.5;
    PUT(note(w, "random crop", area, "the same picture at other sizes and places"),
        "%g of the area", w->r->area_min);
    if (!flip)
        w->r->flip = 1;
    PUT(note(w, "flip", flip, "left and right are alike in photographs; --flip no where not"), "%s",
        w->r->flip ? "yes" : "no");
    if (!color)
        w->r->color = 0.2;
    PUT(note(w, "light", color, "other light and cameras: brightness, contrast, saturation"), "%g",
        w->r->color);
}

static void choose_patience(struct work *w)
{
    bool given = w->r->patience > 0;

    if (!given)
        w->r->patience = 10;
    PUT(note(w, "patience", given, "stops after so many epochs without a better validation"), "%d",
        w->r->patience);
}

/* ---- What follows ----------------------------------------------------------- */

/* The largest divisor of the items that makes a sane batch, so that a test goes through
 * all of them once; else all but a rest smaller than a batch come once more. */
static int test_batch(int64_t items, int most)
{
    for (int64_t b = most; b > most / 4; b--)
        if (items % b == 0)
            return (int)b;
    return (int)(items < most ? items : most);
}

static void derive(struct work *w)
{
    struct sac_tuning *r = w->r;
    double epoch = (double)w->f->train_items / r->batch;

    r->iterations = (int64_t)fmax(1, ceil(r->epochs * epoch));
    r->test_interval = (int64_t)fmin(fmax(1, round(epoch)), (double)r->iterations);
    /* The last iteration is tested as well. */
    r->iterations = (r->iterations + r->test_interval - 1) / r->test_interval * r->test_interval;
    r->warm_up = (int64_t)fmin((double)r->iterations / 10, epoch);
    r->test_batch = test_batch(w->f->validation_items, 32);
    r->test_batches = (w->f->validation_items + r->test_batch - 1) / r->test_batch;
}

static int check(const struct sac_tuning *r, const struct sac_tuning_facts *f,
                 struct sac_error *err)
{
    if (f->classes < 2)
        return sac_fail(err, SAC_EINVAL, "%d class; at least 2 were expected", f->classes);
    if (f->least < 1)
        return sac_fail(err, SAC_EINVAL, "a class has no picture to train with");
    if (f->train_items < 1 || f->validation_items < 1)
        return sac_fail(err, SAC_EINVAL,
                        "%lld pictures to train with and %lld to validate with; each needs some",
                        (long long)f->train_items, (long long)f->validation_items);
    if (r->batch > f->train_items)
        return sac_fail(err, SAC_EINVAL, "batch %d: there are only %lld pictures to train with",
                        r->batch, (long long)f->train_items);
    if (r->frozen >= f->learnable)
        return sac_fail(err, SAC_EINVAL, "%d frozen layers: the net has %d and the last one learns",
                        r->frozen, f->learnable);
    if (r->resize > 0 && r->resize < f->side)
        return sac_fail(err, SAC_EINVAL, "scaled to %d: the net takes %d", r->resize, f->side);
    if (r->area_min > 1 || r->smoothing >= 1 || r->color >= 1)
        return sac_fail(err, SAC_EINVAL,
                        "random crop %g, label smoothing %g, light %g: expected at most 1, and "
                        "less than 1",
                        r->area_min, r->smoothing, r->color);
    return 0;
}

int sac_tuning_choose(struct sac_tuning *recipe, const struct sac_tuning_facts *facts,
                      struct sac_tuning_choices *ret_choices, struct sac_error *err)
{
    struct work w = {.r = recipe, .f = facts, .choices = ret_choices};
    int rc = check(recipe, facts, err);

    if (rc)
        return rc;
    w.per_class = (double)facts->train_items / facts->classes;
    ret_choices->count = 0;
    choose_batch(&w);
    choose_epochs(&w);
    choose_frozen(&w);
    choose_rates(&w);
    choose_regularisation(&w);
    choose_augmentation(&w);
    choose_patience(&w);
    derive(&w);
    return 0;
}
