#include "train/solver.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/team.h"
#include "train/rules.h"

/* Gradients are made ready for the rule in pieces that stay in the first cache. */
enum { PIECE = 1024 };

struct segment {
    char *name;
    struct sac_shape shape;
    size_t offset;
    size_t count;
    float lr_mult;
    float decay; /* weight_decay · decay_mult */
};

struct sac_solver {
    const struct sac_rule *rule;
    struct sac_rate rate;
    struct sac_rule_values values; /* but for the rate */
    float clip_gradients;          /* below 0: none */
    int iter_size, ranks;
    bool l1;
    struct segment *segments;
    int segment_count;
    float *history[2]; /* flat, as the parameters */
    size_t total;      /* of each flat array */
    int threads;
};

/* NVCaffe's additions that change results, and that are not here. */
static int refuse_unsupported(const Caffe__SolverParameter *message, struct sac_error *err)
{
    if (message->momentum_policy && strcmp(message->momentum_policy, "fixed") != 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "momentum_policy \"%s\" is not supported; only \"fixed\" is",
                        message->momentum_policy);
    if (message->eval_type && strcmp(message->eval_type, "classification") != 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "eval_type \"%s\" is not supported; only \"classification\" is",
                        message->eval_type);
    if (message->local_lr_auto)
        return sac_fail(err, SAC_EUNSUPPORTED, "local_lr_auto is not supported");
    return 0;
}

static int check_rule(const Caffe__SolverParameter *message, const struct sac_rule *rule,
                      struct sac_error *err)
{
    if (!rule)
        return sac_fail(err, SAC_EINVAL,
                        "solver type \"%s\" is unknown; expected SGD, Nesterov, AdaGrad, RMSProp, "
                        "AdaDelta or Adam",
                        message->type);
    if (!rule->momentum && message->momentum != 0)
        return sac_fail(err, SAC_EINVAL, "momentum is %g, and %s has none; leave it out",
                        (double)message->momentum, rule->name);
    if (!(message->rms_decay >= 0 && message->rms_decay < 1))
        return sac_fail(err, SAC_EINVAL, "rms_decay is %g; expected 0 or more and below 1",
                        (double)message->rms_decay);
    if (message->iter_size < 1)
        return sac_fail(err, SAC_EINVAL, "iter_size is %d; expected 1 or more", message->iter_size);
    return 0;
}

static int read_regularization(struct sac_solver *solver, const Caffe__SolverParameter *message,
                               struct sac_error *err)
{
    const char *type = message->regularization_type;

    solver->l1 = strcmp(type, "L1") == 0;
    if (!solver->l1 && strcmp(type, "L2") != 0)
        return sac_fail(err, SAC_EINVAL, "regularization_type \"%s\" is unknown; expected L1 or L2",
                        type);
    return 0;
}

static int read_message(struct sac_solver *solver, const Caffe__SolverParameter *message,
                        struct sac_error *err)
{
    int rc = refuse_unsupported(message, err);

    solver->rule = sac_rule_find(message->type);
    if (rc == 0)
        rc = check_rule(message, solver->rule, err);
    if (rc == 0)
        rc = read_regularization(solver, message, err);
    if (rc == 0)
        rc = sac_rate_init(&solver->rate, message, err);
    if (rc < 0)
        return rc;
    solver->values = (struct sac_rule_values){
        .momentum = message->momentum,
        .second =
            solver->rule->second == SAC_SECOND_RMS_DECAY ? message->rms_decay : message->momentum2,
        .delta = message->delta,
    };
    solver->clip_gradients = message->clip_gradients;
    solver->iter_size = message->iter_size;
    solver->ranks = 1;
    return 0;
}

static int add_segment(struct sac_solver *solver, const struct sac_solver_segment *from,
                       float weight_decay, size_t total, struct sac_error *err)
{
    struct segment *to = &solver->segments[solver->segment_count];
    const struct segment *before = solver->segment_count > 0 ? to - 1 : NULL;
    int64_t count = sac_shape_count(&from->shape);
    size_t first = before ? before->offset + before->count : 0;

    if (count < 0 || from->offset < first || from->offset > total ||
        (size_t)count > total - from->offset)
        return sac_fail(err, SAC_EINVAL,
                        "parameter %s: %lld numbers at %zu do not fit between %zu and %zu",
                        from->name, (long long)count, from->offset, first, total);
    *to = (struct segment){
        .name = strdup(from->name),
        .shape = from->shape,
        .offset = from->offset,
        .count = (size_t)count,
        .lr_mult = from->lr_mult,
        .decay = weight_decay * from->decay_mult,
    };
    if (!to->name)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    solver->segment_count++;
    return 0;
}

static int add_history(struct sac_solver *solver, size_t total, struct sac_error *err)
{
    for (int i = 0; i < solver->rule->histories; i++) {
        solver->history[i] = calloc(total + 1, sizeof(float));
        if (!solver->history[i])
            return sac_fail(err, SAC_ENOMEM, "no memory for the history of %zu parameters", total);
    }
    return 0;
}

int sac_solver_check(const Caffe__SolverParameter *message, struct sac_error *err)
{
    struct sac_solver solver = {0};

    return read_message(&solver, message, err);
}

int sac_solver_new(struct sac_solver **ret, const Caffe__SolverParameter *message,
                   const struct sac_solver_segment *segments, int segment_count, size_t total,
                   struct sac_error *err)
{
    struct sac_solver *solver = calloc(1, sizeof *solver);
    int rc = solver ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (solver)
        solver->total = total;
    if (rc == 0)
        rc = read_message(solver, message, err);
    if (rc == 0) {
        solver->segments = calloc((size_t)segment_count + 1, sizeof *solver->segments);
        if (!solver->segments)
            rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    }
    for (int i = 0; rc == 0 && i < segment_count; i++)
        rc = add_segment(solver, &segments[i], message->weight_decay, total, err);
    if (rc == 0)
        rc = add_history(solver, total, err);
    if (rc == 0) {
        *ret = solver;
        solver = NULL;
    }
    sac_solver_free(solver);
    return rc;
}

void sac_solver_free(struct sac_solver *solver)
{
    if (!solver)
        return;
    for (int i = 0; i < solver->segment_count; i++)
        free(solver->segments[i].name);
    free(solver->segments);
    free(solver->history[0]);
    free(solver->history[1]);
    free(solver);
}

const struct sac_rate *sac_solver_rate(const struct sac_solver *solver)
{
    return &solver->rate;
}

int sac_solver_iter_size(const struct sac_solver *solver)
{
    return solver->iter_size;
}

void sac_solver_set_ranks(struct sac_solver *solver, int ranks)
{
    solver->ranks = ranks;
}

/* Of one pass of one rank. */
static float share_of(const struct sac_solver *solver)
{
    return 1 / ((float)solver->iter_size * (float)solver->ranks);
}

/* Eight sums side by side: exact enough in double, vectorised, in a fixed order. */
static double sum_of_squares(const float *values, size_t count)
{
    double sum[8] = {0};
    size_t i = 0;

    for (; i + 8 <= count; i += 8) {
        for (int lane = 0; lane < 8; lane++)
            sum[lane] += (double)values[i + lane] * (double)values[i + lane];
    }
    for (; i < count; i++)
        sum[0] += (double)values[i] * (double)values[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

static double norm_of(const struct sac_solver *solver, const float *grads)
{
    double sum = 0;

    for (int i = 0; i < solver->segment_count; i++) {
        const struct segment *segment = &solver->segments[i];
        if (segment->lr_mult != 0)
            sum += sum_of_squares(grads + segment->offset, segment->count);
    }
    return sqrt(sum);
}

bool sac_solver_clips(const struct sac_solver *solver)
{
    return solver->clip_gradients >= 0;
}

struct sac_solver_step sac_solver_begin_norm(const struct sac_solver *solver, double norm,
                                             int64_t iteration)
{
    struct sac_solver_step step = {
        .rate = sac_rate_at(&solver->rate, iteration), .clip = 1, .correction = 1};

    if (sac_solver_clips(solver)) {
        step.norm = norm / solver->ranks;
        if (step.norm > (double)solver->clip_gradients)
            step.clip = (float)((double)solver->clip_gradients / step.norm);
    }
    if (solver->rule->corrected) {
        double t = (double)iteration + 1;
        double beta1 = (double)solver->values.momentum, beta2 = (double)solver->values.second;
        step.correction = (float)(sqrt(1 - pow(beta2, t)) / (1 - pow(beta1, t)));
    }
    return step;
}

struct sac_solver_step sac_solver_begin(const struct sac_solver *solver, const float *grads,
                                        int64_t iteration)
{
    double norm = sac_solver_clips(solver) ? norm_of(solver, grads) : 0;

    return sac_solver_begin_norm(solver, norm, iteration);
}

struct sac_update sac_solver_device_update(const struct sac_solver *solver,
                                           const struct sac_solver_step *step)
{
    return (struct sac_update){
        .rule = solver->rule->on_device,
        .rate = (float)step->rate,
        .correction = step->correction,
        .momentum = solver->values.momentum,
        .second = solver->values.second,
        .delta = solver->values.delta,
        .clip = step->clip,
        .share = share_of(solver),
        .l1 = solver->l1,
    };
}

size_t sac_solver_device_chunks(const struct sac_solver *solver, struct sac_update_chunk *chunks)
{
    size_t count = 0;

    for (int i = 0; i < solver->segment_count; i++) {
        const struct segment *segment = &solver->segments[i];
        for (size_t at = 0; segment->lr_mult != 0 && at < segment->count; at += SAC_UPDATE_CHUNK) {
            size_t rest = segment->count - at;
            if (chunks)
                chunks[count] = (struct sac_update_chunk){
                    .at = segment->offset + at,
                    .count = (uint32_t)(rest < SAC_UPDATE_CHUNK ? rest : SAC_UPDATE_CHUNK),
                    .lr_mult = segment->lr_mult,
                    .decay = segment->decay,
                };
            count++;
        }
    }
    return count;
}

int sac_solver_histories(const struct sac_solver *solver)
{
    return solver->rule->histories;
}

float *sac_solver_history_flat(struct sac_solver *solver, int index)
{
    return solver->history[index];
}

static float sign_of(float value)
{
    return (float)((value > 0) - (value < 0));
}

/* Clipped, divided by iter_size and ranks, decayed: out[count], what the rule takes. */
static void ready_gradient(float *restrict out, const float *restrict g, const float *restrict w,
                           size_t count, float clip, float share, float decay, bool l1)
{
    for (size_t i = 0; i < count; i++)
        out[i] = g[i] * clip * share;
    if (decay == 0)
        return;
    if (l1) {
        for (size_t i = 0; i < count; i++)
            out[i] += decay * sign_of(w[i]);
    } else {
        for (size_t i = 0; i < count; i++)
            out[i] += decay * w[i];
    }
}

/* Elements [first, end) of the flat arrays, all in `segment`. */
static void apply_segment(struct sac_solver *solver, const struct sac_solver_step *step,
                          const struct segment *segment, float *params, const float *grads,
                          size_t first, size_t end)
{
    struct sac_rule_values values = solver->values;
    float share = share_of(solver);
    float *second = solver->history[1] ? solver->history[1] : solver->history[0];
    float ready[PIECE];

    values.rate = (float)step->rate * segment->lr_mult * step->correction;
    for (size_t at = first; at < end; at += PIECE) {
        size_t count = end - at < PIECE ? end - at : PIECE;
        ready_gradient(ready, grads + at, params + at, count, step->clip, share, segment->decay,
                       solver->l1);
        solver->rule->apply(&values, ready, params + at, solver->history[0] + at, second + at,
                            count);
    }
}

void sac_solver_apply(struct sac_solver *solver, const struct sac_solver_step *step, float *params,
                      const float *grads, size_t first, size_t end)
{
    for (int i = 0; i < solver->segment_count; i++) {
        const struct segment *segment = &solver->segments[i];
        size_t from = segment->offset, to = segment->offset + segment->count;
        if (from < first)
            from = first;
        if (to > end)
            to = end;
        if (from < to && segment->lr_mult != 0)
            apply_segment(solver, step, segment, params, grads, from, to);
    }
}

void sac_solver_set_threads(struct sac_solver *solver, int threads)
{
    solver->threads = threads;
}

/* What the threads share. */
struct update {
    struct sac_solver *solver;
    const struct sac_solver_step *step;
    float *params;
    const float *grads;
};

static int64_t piece_count(size_t count)
{
    return (int64_t)((count + PIECE - 1) / PIECE);
}

static void update_pieces(void *context, int64_t first, int64_t end)
{
    const struct update *u = context;

    sac_solver_apply(u->solver, u->step, u->params, u->grads, (size_t)first * PIECE,
                     (size_t)end * PIECE);
}

void sac_solver_update(struct sac_solver *solver, float *params, const float *grads,
                       int64_t iteration)
{
    struct sac_solver_step step = sac_solver_begin(solver, grads, iteration);
    struct update update = {solver, &step, params, grads};

    sac_team_run(solver->threads, piece_count(solver->total), update_pieces, &update);
}

/* By the exponent's bits: all ones for NaN and infinities. Vectorises. */
static bool piece_is_finite(const float *values, size_t count)
{
    uint32_t bad = 0;

    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

struct check {
    const float *values;
    size_t count;
    bool bad; /* written by any thread, and only to true */
};

static void check_pieces(void *context, int64_t first, int64_t end)
{
    struct check *check = context;
    size_t from = (size_t)first * PIECE, to = (size_t)end * PIECE;

    to = to < check->count ? to : check->count;
    if (!piece_is_finite(check->values + from, to - from))
        __atomic_store_n(&check->bad, true, __ATOMIC_RELAXED);
}

static bool all_finite(const struct sac_solver *solver, const float *values, size_t count)
{
    struct check check = {values, count, false};
    int64_t pieces = piece_count(count);

    sac_team_run(pieces < 16 ? 1 : solver->threads, pieces, check_pieces, &check);
    return !check.bad;
}

int sac_solver_check_finite(const struct sac_solver *solver, const float *values, const char *what,
                            struct sac_error *err)
{
    for (int i = 0; i < solver->segment_count; i++) {
        const struct segment *segment = &solver->segments[i];
        const float *at = values + segment->offset;
        if (segment->lr_mult == 0 || all_finite(solver, at, segment->count))
            continue;
        size_t index = 0;
        while (isfinite(at[index]))
            index++;
        return sac_fail(err, SAC_EINVAL, "the %s of %s is %s at index %zu of %zu", what,
                        segment->name, isnan(at[index]) ? "NaN" : "infinite", index,
                        segment->count);
    }
    return 0;
}

int sac_solver_history_count(const struct sac_solver *solver)
{
    return solver->segment_count * solver->rule->histories;
}

struct sac_blob_view sac_solver_history(const struct sac_solver *solver, int index)
{
    const struct segment *segment = &solver->segments[index % solver->segment_count];
    float *flat = solver->history[index / solver->segment_count];

    return (struct sac_blob_view){segment->shape, flat + segment->offset};
}

static int check_history(const struct sac_solver *solver, const struct sac_blob_view *history,
                         int count, struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];

    if (count != sac_solver_history_count(solver))
        return sac_fail(err, SAC_EFORMAT,
                        "%d history blobs, and %s over %d parameters has %d: another net or "
                        "another solver type?",
                        count, solver->rule->name, solver->segment_count,
                        sac_solver_history_count(solver));
    for (int i = 0; i < count; i++) {
        const struct segment *segment = &solver->segments[i % solver->segment_count];
        if (!sac_shape_matches(&history[i].shape, &segment->shape))
            return sac_fail(err, SAC_EFORMAT, "history blob %d is %s, and %s is %s", i,
                            sac_shape_text(&history[i].shape, a, sizeof a), segment->name,
                            sac_shape_text(&segment->shape, b, sizeof b));
    }
    return 0;
}

int sac_solver_history_load(struct sac_solver *solver, const struct sac_blob_view *history,
                            int count, struct sac_error *err)
{
    int rc = check_history(solver, history, count, err);

    for (int i = 0; rc == 0 && i < count; i++) {
        struct sac_blob_view to = sac_solver_history(solver, i);
        const struct segment *segment = &solver->segments[i % solver->segment_count];
        if (segment->count > 0)
            memcpy(to.data, history[i].data, segment->count * sizeof(float));
    }
    return rc;
}
