#include "net/fillers.h"

#include <math.h>
#include <string.h>

#include "base/random.h"

/* Where the numbers go, and what they are drawn from. */
struct fill {
    const struct sac_filler *filler;
    const struct sac_shape *shape;
    int64_t count;
    uint64_t key;
    float *to;
    struct sac_error *err;
};

struct sac_filler sac_filler_of(const Caffe__FillerParameter *message)
{
    static const Caffe__FillerParameter none = CAFFE__FILLER_PARAMETER__INIT;
    const Caffe__FillerParameter *p = message ? message : &none;

    return (struct sac_filler){
        .type = p->type ? p->type : "constant",
        .value = p->value,
        .min = p->min,
        .max = p->max,
        .mean = p->mean,
        .std = p->std,
        .sparse = p->sparse,
        .norm = p->variance_norm,
    };
}

struct sac_filler sac_filler_constant(float value)
{
    return (struct sac_filler){.type = "constant", .value = value};
}

bool sac_filler_is_constant(struct sac_filler filler)
{
    return strcmp(filler.type, "constant") == 0;
}

/* (0, 1], with 53 bits: the draw-th of element i. */
static double unit(const struct fill *f, int64_t i, uint64_t draw)
{
    uint64_t bits = sac_random_mix(f->key + 4 * (uint64_t)i + draw);

    return (double)((bits >> 11) + 1) * 0x1p-53;
}

/* Box and Muller's. */
static double normal(const struct fill *f, int64_t i)
{
    return sqrt(-2 * log(unit(f, i, 0))) * cos(2 * M_PI * unit(f, i, 1));
}

static void fill_uniform(const struct fill *f, double min, double max)
{
    for (int64_t i = 0; i < f->count; i++)
        f->to[i] = (float)(max - (max - min) * unit(f, i, 0));
}

static void fill_normal(const struct fill *f, double mean, double std)
{
    for (int64_t i = 0; i < f->count; i++)
        f->to[i] = (float)(mean + std * normal(f, i));
}

static int64_t dim(const struct fill *f, int axis)
{
    return f->shape->rank > axis ? f->shape->dim[axis] : 1;
}

static double fan(const struct fill *f)
{
    double in = (double)f->count / (double)dim(f, 0), out = (double)f->count / (double)dim(f, 1);

    switch (f->filler->norm) {
    case CAFFE__FILLER_PARAMETER__VARIANCE_NORM__FAN_OUT:
        return out;
    case CAFFE__FILLER_PARAMETER__VARIANCE_NORM__AVERAGE:
        return (in + out) / 2;
    default:
        return in;
    }
}

static int constant(const struct fill *f)
{
    for (int64_t i = 0; i < f->count; i++)
        f->to[i] = f->filler->value;
    return 0;
}

static int uniform(const struct fill *f)
{
    fill_uniform(f, f->filler->min, f->filler->max);
    return 0;
}

static int gaussian(const struct fill *f)
{
    double kept = (double)f->filler->sparse / (double)dim(f, 0);

    fill_normal(f, f->filler->mean, f->filler->std);
    for (int64_t i = 0; f->filler->sparse >= 0 && i < f->count; i++)
        if (unit(f, i, 2) > kept)
            f->to[i] = 0;
    return 0;
}

static int xavier(const struct fill *f)
{
    double limit = sqrt(3 / fan(f));

    fill_uniform(f, -limit, limit);
    return 0;
}

static int msra(const struct fill *f)
{
    fill_normal(f, 0, sqrt(2 / fan(f)));
    return 0;
}

static int positive_unitball(const struct fill *f)
{
    int64_t row = f->count / dim(f, 0);

    fill_uniform(f, 0, 1);
    for (int64_t first = 0; first < f->count; first += row) {
        double sum = 0;
        for (int64_t i = first; i < first + row; i++)
            sum += f->to[i];
        for (int64_t i = first; i < first + row; i++)
            f->to[i] = (float)(f->to[i] / sum);
    }
    return 0;
}

/* A tent of the filter's width, in both directions. */
static int bilinear(const struct fill *f)
{
    char text[SAC_SHAPE_TEXT];

    if (f->shape->rank != 4 || f->shape->dim[2] != f->shape->dim[3])
        return sac_fail(f->err, SAC_EFORMAT,
                        "a bilinear filler needs square filters of 4 axes, and this is %s",
                        sac_shape_text(f->shape, text, sizeof text));
    int64_t width = f->shape->dim[3], half = (width + 1) / 2;
    double centre = (double)(2 * half - 1 - half % 2) / (double)(2 * half);
    for (int64_t i = 0; i < f->count; i++) {
        double x = (double)(i % width) / (double)half,
               y = (double)(i / width % width) / (double)half;
        f->to[i] = (float)((1 - fabs(x - centre)) * (1 - fabs(y - centre)));
    }
    return 0;
}

static const struct {
    const char *type;
    int (*fill)(const struct fill *f);
} table[] = {
    {"constant", constant}, {"uniform", uniform}, {"gaussian", gaussian},
    {"xavier", xavier},     {"msra", msra},       {"positive_unitball", positive_unitball},
    {"bilinear", bilinear},
};

static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

int sac_filler_fill(const struct sac_filler *filler, const char *name,
                    const struct sac_shape *shape, uint64_t seed, float *to, struct sac_error *err)
{
    struct fill f = {
        .filler = filler,
        .shape = shape,
        .count = sac_shape_count(shape),
        .key = sac_random_key(seed, hash_of(name), 0),
        .to = to,
        .err = err,
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(table[i].type, filler->type) != 0)
            continue;
        int rc = table[i].fill(&f);
        if (rc != 0)
            sac_error_prefix(err, "parameter %s", name);
        return rc;
    }
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "parameter %s: there is no filler \"%.64s\"; expected constant, uniform, "
                    "gaussian, xavier, msra, positive_unitball or bilinear",
                    name, filler->type);
}
