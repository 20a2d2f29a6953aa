/* The plain loops of losses and accuracy, both ways, and of dropout. */
#include "device/cpu/loops.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/random.h"

/* Scores as outer × classes × inner; a label for each outer × inner. */
struct places {
    int64_t outer, classes, inner;
};

static struct places places_of(const struct sac_op *op)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int axis = op->param.loss.axis;

    return (struct places){
        .outer = sac_shape_count_between(shape, 0, axis),
        .classes = shape->dim[axis],
        .inner = sac_shape_count_between(shape, axis + 1, shape->rank),
    };
}

static bool counts(const struct sac_op *op, float label)
{
    return !op->param.loss.ignores || (int)label != op->param.loss.ignored;
}

int sac_loop_check_labels(const struct sac_op *op, float *const *x, struct sac_error *err)
{
    struct places p = places_of(op);

    for (int64_t i = 0; i < p.outer * p.inner; i++) {
        float label = x[1][i];
        if (counts(op, label) &&
            !(label >= 0 && label < (float)p.classes && label == floorf(label)))
            return sac_fail(err, SAC_EINVAL,
                            "%s: label %g at place %lld; labels are whole numbers of 0 to %lld",
                            op->name, (double)label, (long long)i, (long long)p.classes - 1);
    }
    return 0;
}

static double divisor(const struct sac_op *op, int64_t outer, int64_t inner, const float *labels)
{
    int64_t valid = 0;

    switch (op->param.loss.norm) {
    case SAC_LOSS_FULL:
        return (double)(outer * inner);
    case SAC_LOSS_BATCH_SIZE:
        return (double)outer;
    case SAC_LOSS_NONE:
        return 1;
    default:
        for (int64_t i = 0; i < outer * inner; i++)
            valid += counts(op, labels[i]);
        return valid > 1 ? (double)valid : 1;
    }
}

/* log of the softmax of one place's scores is x[c] − the returned. */
static double log_sum(const float *x, const struct places *p)
{
    double most = x[0], sum = 0;

    for (int64_t c = 1; c < p->classes; c++)
        most = x[c * p->inner] > most ? x[c * p->inner] : most;
    for (int64_t c = 0; c < p->classes; c++)
        sum += exp(x[c * p->inner] - most);
    return most + log(sum);
}

static double target(const struct sac_op *op, const struct places *p, int64_t c, int64_t label)
{
    double smoothing = op->param.loss.smoothing;

    return (c == label ? 1 - smoothing : 0) + smoothing / (double)p->classes;
}

static double place_loss(const struct sac_op *op, const struct places *p, const float *x,
                         int64_t label)
{
    const double least = log(FLT_MIN);
    double sum = log_sum(x, p), loss = 0;

    for (int64_t c = 0; c < p->classes; c++) {
        double weight = target(op, p, c, label), value = x[c * p->inner] - sum;
        if (weight != 0)
            loss -= weight * (value > least ? value : least);
    }
    return loss;
}

void sac_loop_softmax_loss(const struct sac_op *op, float *const *x, float *const *y,
                           double *scratch)
{
    struct places p = places_of(op);
    double loss = 0;

    (void)scratch;
    for (int64_t i = 0; i < p.outer * p.inner; i++) {
        int64_t at = i / p.inner * p.classes * p.inner + i % p.inner;
        if (counts(op, x[1][i]))
            loss += place_loss(op, &p, x[0] + at, (int64_t)x[1][i]);
        double sum = op->dst_count > 1 ? log_sum(x[0] + at, &p) : 0;
        for (int64_t c = 0; op->dst_count > 1 && c < p.classes; c++)
            y[1][at + c * p.inner] = (float)exp(x[0][at + c * p.inner] - sum);
    }
    y[0][0] = (float)(loss / divisor(op, p.outer, p.inner, x[1]));
}

/* (p − t) / n */
void sac_loop_softmax_loss_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    struct places p = places_of(op);
    double scale = g->dy[0][0] / divisor(op, p.outer, p.inner, g->x[1]);

    for (int64_t i = 0; i < p.outer * p.inner; i++) {
        int64_t at = i / p.inner * p.classes * p.inner + i % p.inner;
        bool wanted = counts(op, g->x[1][i]);
        double sum = log_sum(g->x[0] + at, &p);
        for (int64_t c = 0; c < p.classes; c++, at += p.inner) {
            double wrong = exp(g->x[0][at] - sum) - target(op, &p, c, (int64_t)g->x[1][i]);
            g->dx[0][at] = wanted ? (float)(scale * wrong) : 0;
        }
    }
}

void sac_loop_euclidean_loss(const struct sac_op *op, float *const *x, float *const *y,
                             double *scratch)
{
    int64_t count = sac_shape_count(&op->src[0].shape);
    double sum = 0;

    (void)scratch;
    for (int64_t i = 0; i < count; i++)
        sum += ((double)x[0][i] - x[1][i]) * ((double)x[0][i] - x[1][i]);
    y[0][0] = (float)(sum / (double)(2 * op->src[0].shape.dim[0]));
}

void sac_loop_euclidean_loss_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    int64_t count = sac_shape_count(&op->src[0].shape);
    double scale = g->dy[0][0] / (double)op->src[0].shape.dim[0];

    for (int64_t i = 0; i < count; i++) {
        double d = scale * ((double)g->x[0][i] - g->x[1][i]);
        if (g->dx[0])
            g->dx[0][i] = (float)d;
        if (g->dx[1])
            g->dx[1][i] = (float)-d;
    }
}

/* −t·log σ(x) − (1 − t)·log(1 − σ(x)), written so that nothing overflows. */
void sac_loop_sigmoid_loss(const struct sac_op *op, float *const *x, float *const *y,
                           double *scratch)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int64_t count = sac_shape_count(shape);
    double sum = 0;

    (void)scratch;
    for (int64_t i = 0; i < count; i++) {
        double logit = x[0][i];
        if (counts(op, x[1][i]))
            sum += log1p(exp(-fabs(logit))) - logit * (x[1][i] - (logit >= 0));
        if (op->dst_count > 1)
            y[1][i] = (float)(1 / (1 + exp(-logit)));
    }
    y[0][0] = (float)(sum / divisor(op, shape->dim[0], count / shape->dim[0], x[1]));
}

void sac_loop_sigmoid_loss_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int64_t count = sac_shape_count(shape);
    double scale = g->dy[0][0] / divisor(op, shape->dim[0], count / shape->dim[0], g->x[1]);

    for (int64_t i = 0; i < count; i++) {
        double wrong = 1 / (1 + exp(-(double)g->x[0][i])) - g->x[1][i];
        g->dx[0][i] = counts(op, g->x[1][i]) ? (float)(scale * wrong) : 0;
    }
}

/* Scores that equal the label's count against it. */
static bool is_hit(const struct sac_op *op, const struct places *p, const float *x, int64_t label)
{
    int better = 0;

    for (int64_t c = 0; c < p->classes; c++)
        better += c != label && x[c * p->inner] >= x[label * p->inner];
    return better < op->param.loss.top_k;
}

static void class_accuracy(const struct sac_op *op, const struct places *p, float *const *x,
                           float *y)
{
    for (int64_t c = 0; c < p->classes; c++) {
        int64_t hits = 0, all = 0;
        for (int64_t i = 0; i < p->outer * p->inner; i++) {
            int64_t at = i / p->inner * p->classes * p->inner + i % p->inner;
            if (!counts(op, x[1][i]) || (int64_t)x[1][i] != c)
                continue;
            hits += is_hit(op, p, x[0] + at, c);
            all++;
        }
        y[c] = all ? (float)((double)hits / (double)all) : 0;
    }
}

void sac_loop_accuracy(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    struct places p = places_of(op);
    int64_t hits = 0, all = 0;

    (void)scratch;
    for (int64_t i = 0; i < p.outer * p.inner; i++) {
        int64_t at = i / p.inner * p.classes * p.inner + i % p.inner;
        if (!counts(op, x[1][i]))
            continue;
        hits += is_hit(op, &p, x[0] + at, (int64_t)x[1][i]);
        all++;
    }
    y[0][0] = all ? (float)((double)hits / (double)all) : 0;
    if (op->dst_count > 1)
        class_accuracy(op, &p, x, y[1]);
}

/* ---- Dropout ---- */

static void mask(const struct sac_op *op, const float *from, float *to)
{
    int64_t count = sac_shape_count(&op->src[0].shape);
    float ratio = op->param.dropout.ratio, scale = 1 / (1 - ratio);
    uint64_t key = sac_random_key(op->random ? op->random->seed : 0, op->param.dropout.stream,
                                  op->random ? op->random->iteration : 0);

    for (int64_t i = 0; i < count; i++)
        to[i] = sac_random_unit(sac_random_mix(key + (uint64_t)i)) < ratio ? 0 : from[i] * scale;
}

void sac_loop_dropout(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    if (op->param.dropout.mask)
        mask(op, x[0], y[0]);
    else
        sac_loop_copy(op, x, y, scratch);
}

/* The mask is drawn again. */
void sac_loop_dropout_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    if (op->param.dropout.mask)
        mask(op, g->dy[0], g->dx[0]);
    else
        memcpy(g->dx[0], g->dy[0], sac_tensor_bytes(&op->src[0].shape, SAC_F32));
}
