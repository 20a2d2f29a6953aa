#include "device/cpu/norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/team.h"
#include "device/cpu/parts.h"
#include "device/cpu/vector.h"

/* Sums over chunks of rows, that are then added up in their order: the same numbers for
 * any number of threads. */
enum { CHUNKS_MAX = 32, CHUNK_ROWS_MIN = 64, VECTOR = 16 };

struct state {
    struct sac_norm_numbers numbers;
    float *inverse;  /* 1 / √(variance + eps) */
    double *partial; /* CHUNKS_MAX × 2 × C */
    int64_t channels, rows;
    int chunks;
    bool summed; /* level and along are this pass's */
    float floats[];
};

static int64_t rows_of(const struct sac_shape *shape)
{
    return shape->rank == 4 ? shape->dim[0] * shape->dim[2] * shape->dim[3] : shape->dim[0];
}

static int state_new(void **ret, const struct sac_op *op, struct sac_error *err)
{
    const struct sac_shape *shape = &op->src[0].shape;
    size_t channels = (size_t)shape->dim[1], room = (channels + VECTOR - 1) & ~(size_t)(VECTOR - 1);
    struct state *state = calloc(1, sizeof *state + 6 * room * sizeof(float));

    if (state)
        state->partial = malloc(CHUNKS_MAX * 2 * channels * sizeof *state->partial);
    if (!state || !state->partial) {
        free(state);
        return sac_fail(err, SAC_ENOMEM, "%s: no memory for its statistics", op->name);
    }
    state->numbers = (struct sac_norm_numbers){
        .mean = state->floats,
        .scale = state->floats + room,
        .shift = state->floats + 2 * room,
        .level = state->floats + 3 * room,
        .along = state->floats + 4 * room,
    };
    state->inverse = state->floats + 5 * room;
    state->channels = shape->dim[1];
    state->rows = rows_of(shape);
    state->chunks = (int)((state->rows + CHUNK_ROWS_MIN - 1) / CHUNK_ROWS_MIN);
    state->chunks = state->chunks > CHUNKS_MAX ? CHUNKS_MAX : state->chunks;
    *ret = state;
    return 0;
}

static void state_free(void *memory)
{
    struct state *state = memory;

    free(state->partial);
    free(state);
}

/* ---- Threads --------------------------------------------------------------- */

struct job {
    const struct sac_op *op;
    const struct state *state;
    void (*rows)(const struct sac_op *op, const struct sac_norm_numbers *numbers, int64_t first,
                 int64_t end);
};

static int64_t chunk_at(const struct state *state, int64_t chunk)
{
    return state->rows * chunk / state->chunks;
}

static double *partial_of(const struct state *state, int64_t chunk)
{
    return state->partial + chunk * 2 * state->channels;
}

static void moments_part(void *context, int64_t first, int64_t end)
{
    const struct job *job = context;

    for (int64_t c = first; c < end; c++) {
        double *out = partial_of(job->state, c);
        job->op->vector->norm->moments(job->op, chunk_at(job->state, c),
                                       chunk_at(job->state, c + 1), out,
                                       out + job->state->channels);
    }
}

static void sums_part(void *context, int64_t first, int64_t end)
{
    const struct job *job = context;

    for (int64_t c = first; c < end; c++) {
        double *out = partial_of(job->state, c);
        job->op->vector->norm->sums(job->op, &job->state->numbers, chunk_at(job->state, c),
                                    chunk_at(job->state, c + 1), out, out + job->state->channels);
    }
}

static void rows_part(void *context, int64_t first, int64_t end)
{
    const struct job *job = context;

    job->rows(job->op, &job->state->numbers, first, end);
}

static int threads_of(const struct sac_op *op)
{
    return sac_cpu_threads_for(op, sac_shape_count(&op->src[0].shape));
}

/* ---- Forward --------------------------------------------------------------- */

/* Of channel c: the chunks' moments, joined in their order. */
static void join(const struct state *state, int64_t c, double *ret_mean, double *ret_variance)
{
    double mean = 0, squares = 0, before = 0;

    for (int64_t k = 0; k < state->chunks; k++) {
        const double *partial = partial_of(state, k);
        double count = (double)(chunk_at(state, k + 1) - chunk_at(state, k));
        double total = before + count, apart = partial[c] - mean;
        mean += apart * count / total;
        squares += partial[state->channels + c] + apart * apart * before * count / total;
        before = total;
    }
    *ret_mean = mean;
    *ret_variance = squares / before;
}

/* s ← f·s + 1; mean ← f·mean + μ; var ← f·var + m/(m−1)·σ², as Caffe. */
static void update_running(const struct sac_op *op, const struct state *state, int64_t c,
                           double mean, double variance)
{
    double m = (double)state->rows, fraction = op->param.batchnorm.fraction;

    if (!op->training || !op->master[0])
        return;
    op->master[0][c] = (float)(fraction * op->master[0][c] + mean);
    op->master[1][c] = (float)(fraction * op->master[1][c] + (m > 1 ? m / (m - 1) : 1) * variance);
    if (c == state->channels - 1)
        op->master[2][0] = (float)(fraction * op->master[2][0] + 1);
}

static void set_numbers(const struct sac_op *op, struct state *state)
{
    double factor = op->weight[2][0], unscale = factor == 0 ? 0 : 1 / factor;
    const struct sac_norm_numbers *numbers = &state->numbers;

    for (int64_t c = 0; c < state->channels; c++) {
        double mean = op->weight[0][c] * unscale, variance = op->weight[1][c] * unscale;
        if (!op->param.batchnorm.global_stats) {
            join(state, c, &mean, &variance);
            update_running(op, state, c, mean, variance);
        }
        double inverse = 1 / sqrt(variance + (double)op->param.batchnorm.eps);
        numbers->mean[c] = (float)mean;
        state->inverse[c] = (float)inverse;
        numbers->scale[c] = (float)(inverse * (op->weight_count > 3 ? op->weight[3][c] : 1));
        numbers->shift[c] = op->weight_count > 4 ? op->weight[4][c] : 0;
    }
}

static bool by_channel(const struct sac_cpu_ask *ask, int first)
{
    const struct sac_shape *shape = sac_cpu_src_shape(ask);

    for (int i = first; i < ask->node->weight_count; i++)
        if (sac_shape_count(&ask->graph->constants[ask->node->weight[i]].shape) != shape->dim[1])
            return false;
    return (shape->rank == 2 || shape->rank == 4) && sac_shape_count(shape) > 0;
}

static bool can(const struct sac_cpu_ask *ask)
{
    return ask->node->epilogue.sum < 0 && ask->node->weight_count >= 3 && by_channel(ask, 3);
}

static int query(const struct sac_cpu_ask *ask, struct sac_op_caps *caps, struct sac_error *err)
{
    (void)err;
    caps->kernel = ask->device->vector->name;
    return 0;
}

static int prepare(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_store *store,
                   struct sac_error *err)
{
    int rc = state_new(&op->state, op, err);

    op->vector = ask->device->vector;
    return rc == 0 ? sac_cpu_weights_plain(op, ask, store, err) : rc;
}

static int forward(struct sac_op *op, struct sac_error *err)
{
    struct state *state = op->state;
    struct job job = {op, state, op->vector->norm->forward};

    (void)err;
    if (!op->param.batchnorm.global_stats)
        sac_team_run(threads_of(op), state->chunks, moments_part, &job);
    set_numbers(op, state);
    sac_team_run(threads_of(op), state->rows, rows_part, &job);
    state->summed = false;
    return 0;
}

const struct sac_cpu_kernel sac_cpu_norm = {
    .name = "vector",
    .can = can,
    .query = query,
    .prepare = prepare,
    .forward = forward,
    .free_state = state_free,
};

/* ---- Backward -------------------------------------------------------------- */

static bool can_go_back(const struct sac_cpu_ask *ask)
{
    const struct sac_node *node = ask->node;

    if (node->kind == SAC_OP_BATCHNORM)
        return can(ask);
    return node->src_count == 1 && by_channel(ask, 0) &&
           (node->kind == SAC_OP_PRELU || node->param.scale.axis == 1);
}

static int query_back(const struct sac_cpu_ask *ask, struct sac_op_caps *caps,
                      struct sac_error *err)
{
    (void)err;
    caps->backward_src = ask->node->kind != SAC_OP_BIAS;
    caps->grad_in_place = true;
    return 0;
}

static int prepare_back(struct sac_op *op, const struct sac_cpu_ask *ask, struct sac_error *err)
{
    op->vector = ask->device->vector;
    for (int i = 0; i < op->weight_count; i++) {
        if (!op->master[i])
            return sac_fail(err, SAC_EINVAL, "%s: training needs the masters of its weights",
                            op->name);
        op->weight[i] = op->master[i];
    }
    return op->kind == SAC_OP_BATCHNORM ? 0 : state_new(&op->backward_state, op, err);
}

/* A bias's gradient reads no source: its gradient stands in for one. */
static struct sac_op with_some_source(const struct sac_op *op)
{
    struct sac_op out = *op;

    if (op->kind == SAC_OP_BIAS)
        out.src = out.dst_grad;
    return out;
}

static void add_up(const struct sac_op *op, struct state *state)
{
    struct sac_op one = with_some_source(op);
    struct job job = {&one, state, NULL};
    double *first = state->partial;

    sac_team_run(threads_of(op), state->chunks, sums_part, &job);
    for (int64_t k = 1; k < state->chunks; k++) {
        const double *next = partial_of(state, k);
        for (int64_t c = 0; c < 2 * state->channels; c++)
            first[c] += next[c];
    }
}

static void sum_batchnorm(const struct sac_op *op, struct state *state)
{
    bool stored = op->param.batchnorm.global_stats;

    add_up(op, state);
    for (int64_t c = 0; c < state->channels; c++) {
        double inverse = state->inverse[c], m = (double)state->rows;
        state->numbers.level[c] = stored ? 0 : (float)(state->partial[c] / m);
        state->numbers.along[c] =
            stored ? 0 : (float)(state->partial[state->channels + c] * inverse * inverse / m);
    }
    state->summed = true;
}

static void add_gradient(float *to, const double *from, const float *factor, int64_t count)
{
    for (int64_t c = 0; to && c < count; c++)
        to[c] += (float)(from[c] * (factor ? (double)factor[c] : 1));
}

static int weights(struct sac_op *op, struct sac_error *err)
{
    bool norm = op->kind == SAC_OP_BATCHNORM;
    struct state *state = norm ? op->state : op->backward_state;
    const double *sum = state->partial, *along = sum + state->channels;

    (void)err;
    if (norm) {
        sum_batchnorm(op, state);
        add_gradient(op->weight_grad[3], along, state->inverse, state->channels);
        add_gradient(op->weight_grad[4], sum, NULL, state->channels);
        return 0;
    }
    add_up(op, state);
    add_gradient(op->weight_grad[0], op->kind == SAC_OP_BIAS ? sum : along, NULL, state->channels);
    add_gradient(op->weight_grad[1], sum, NULL, state->channels);
    return 0;
}

static void set_factors(const struct sac_op *op, const struct state *state)
{
    for (int64_t c = 0; c < state->channels; c++)
        state->numbers.scale[c] = op->kind == SAC_OP_BIAS ? 1 : op->weight[0][c];
}

static int data(struct sac_op *op, struct sac_error *err)
{
    bool norm = op->kind == SAC_OP_BATCHNORM;
    struct state *state = norm ? op->state : op->backward_state;
    struct sac_op one = with_some_source(op);
    struct job job = {&one, state, op->vector->norm->data};

    (void)err;
    if (norm && !state->summed && !op->param.batchnorm.global_stats)
        sum_batchnorm(op, state);
    if (!norm)
        set_factors(op, state);
    sac_team_run(threads_of(op), state->rows, rows_part, &job);
    state->summed = false;
    return 0;
}

const struct sac_cpu_backward sac_cpu_backward_norm = {
    .name = "vector",
    .can = can_go_back,
    .query = query_back,
    .prepare = prepare_back,
    .data = data,
    .weights = weights,
    .free_state = state_free,
};
