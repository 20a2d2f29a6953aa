/* Backward of what maps elements, moves them, or reduces along an axis. */
#include "device/cpu/loops.h"

#include <math.h>
#include <string.h>

#define EACH_ELEMENT(op, i)                                                                        \
    for (int64_t i = 0, count_ = sac_shape_count(&(op)->src[0].shape); i < count_; i++)

void sac_loop_copy_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    memcpy(g->dx[0], g->dy[0], sac_tensor_bytes(&op->src[0].shape, SAC_F32));
}

void sac_loop_relu_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    float slope = op->param.relu.slope;
    const float *sign = slope < 0 ? g->x[0] : g->y[0];

    EACH_ELEMENT(op, i)
    g->dx[0][i] = sign[i] > 0 ? g->dy[0][i] : g->dy[0][i] * slope;
}

/* Which slope element i has. */
static int64_t slope_at(const struct sac_op *op, int64_t i)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int64_t inner = sac_shape_count_between(shape, 2, shape->rank);

    return sac_shape_count(&op->weight_shape[0]) == 1 ? 0 : i / inner % shape->dim[1];
}

void sac_loop_prelu_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    EACH_ELEMENT(op, i)
    g->dx[0][i] = g->x[0][i] > 0 ? g->dy[0][i] : g->dy[0][i] * op->weight[0][slope_at(op, i)];
}

void sac_loop_prelu_weights(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    int64_t slopes = sac_shape_count(&op->weight_shape[0]);

    for (int64_t c = 0; op->weight_grad[0] && c < slopes; c++) {
        double sum = 0;
        EACH_ELEMENT(op, i)
        sum += slope_at(op, i) == c && g->x[0][i] <= 0 ? (double)g->dy[0][i] * g->x[0][i] : 0;
        op->weight_grad[0][c] += (float)sum;
    }
}

void sac_loop_sigmoid_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    EACH_ELEMENT(op, i)
    g->dx[0][i] = (float)((double)g->dy[0][i] * g->y[0][i] * (1 - (double)g->y[0][i]));
}

void sac_loop_tanh_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    EACH_ELEMENT(op, i)
    g->dx[0][i] = (float)(g->dy[0][i] * (1 - (double)g->y[0][i] * g->y[0][i]));
}

void sac_loop_elu_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    EACH_ELEMENT(op, i)
    g->dx[0][i] = g->x[0][i] > 0
                      ? g->dy[0][i]
                      : (float)((double)g->dy[0][i] * op->param.elu.alpha * exp(g->x[0][i]));
}

void sac_loop_power_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    double power = op->param.power.power, scale = op->param.power.scale;

    EACH_ELEMENT(op, i)
    {
        double base = op->param.power.shift + scale * g->x[0][i];
        double slope = power == 0 ? 0 : power == 1 ? scale : power * scale * pow(base, power - 1);
        g->dx[0][i] = (float)(g->dy[0][i] * slope);
    }
}

/* Part `part` of `whole`, which starts at `offset` along the axis; NULL: zeros. */
static void move_part(float *whole, const struct sac_shape *whole_shape, float *part,
                      const struct sac_shape *part_shape, int axis, int64_t offset, bool out)
{
    int64_t outer = sac_shape_count_between(whole_shape, 0, axis);
    int64_t inner = sac_shape_count_between(whole_shape, axis + 1, whole_shape->rank);
    size_t row = (size_t)(part_shape->dim[axis] * inner);

    for (int64_t i = 0; i < outer; i++) {
        float *at = whole + (i * whole_shape->dim[axis] + offset) * inner;
        memcpy(out ? part + (size_t)i * row : at, out ? at : part + (size_t)i * row,
               row * sizeof(float));
    }
}

void sac_loop_concat_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    int axis = op->param.concat.axis;
    int64_t offset = 0;

    for (int i = 0; i < op->src_count; i++) {
        if (g->dx[i])
            move_part(g->dy[0], &op->dst[0].shape, g->dx[i], &op->src[i].shape, axis, offset, true);
        offset += op->src[i].shape.dim[axis];
    }
}

void sac_loop_slice_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    int axis = op->param.slice.axis;
    int64_t offset = 0;

    for (int i = 0; i < op->dst_count; i++) {
        move_part(g->dx[0], &op->src[0].shape, g->dy[i], &op->dst[i].shape, axis, offset, false);
        offset += op->dst[i].shape.dim[axis];
    }
}

void sac_loop_split_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    EACH_ELEMENT(op, i)
    {
        double sum = 0;
        for (int k = 0; k < op->dst_count; k++)
            sum += g->dy[k][i];
        g->dx[0][i] = (float)sum;
    }
}

/* Caffe's choice among equals: the second of the first two, else the earliest. */
static int largest(const struct sac_op *op, float *const *x, int64_t i)
{
    int best = x[0][i] > x[1][i] ? 0 : 1;

    for (int k = 2; k < op->src_count; k++)
        best = x[k][i] > x[best][i] ? k : best;
    return best;
}

static double eltwise_slope(const struct sac_op *op, float *const *x, int source, int64_t i)
{
    const float *coeff = op->param.eltwise.coeff;
    double product = 1;

    switch (op->param.eltwise.method) {
    case SAC_ELTWISE_SUM:
        return coeff ? coeff[source] : 1;
    case SAC_ELTWISE_MAX:
        return largest(op, x, i) == source;
    default:
        for (int k = 0; k < op->src_count; k++)
            product *= k == source ? 1 : x[k][i];
        return product;
    }
}

void sac_loop_eltwise_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    for (int k = 0; k < op->src_count; k++) {
        EACH_ELEMENT(op, i)
        if (g->dx[k])
            g->dx[k][i] = (float)(g->dy[0][i] * eltwise_slope(op, g->x, k, i));
    }
}

/* ---- Batch norm ---- */

struct channel {
    int64_t batch, inner, step, first; /* element n, i: first + n · step + i */
    double count;
};

static struct channel channel_of(const struct sac_op *op, int64_t c)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int64_t inner = shape->rank > 2 ? sac_shape_count_between(shape, 2, shape->rank) : 1;

    return (struct channel){
        .batch = shape->dim[0],
        .inner = inner,
        .step = shape->dim[1] * inner,
        .first = c * inner,
        .count = (double)(shape->dim[0] * inner),
    };
}

#define EACH_OF(channel, at)                                                                       \
    for (int64_t n_ = 0; n_ < (channel).batch; n_++)                                               \
        for (int64_t at = (channel).first + n_ * (channel).step, end_ = at + (channel).inner;      \
             at < end_; at++)

struct norm {
    struct channel of;
    double mean, root, scale, shift;
};

static struct norm norm_of(const struct sac_op *op, const float *x, int64_t c)
{
    struct norm norm = {.of = channel_of(op, c), .scale = 1};
    double factor = op->weight[2][0], variance = 0;

    if (op->param.batchnorm.global_stats) {
        norm.mean = factor == 0 ? 0 : op->weight[0][c] / factor;
        variance = factor == 0 ? 0 : op->weight[1][c] / factor;
    } else {
        EACH_OF(norm.of, i)
        norm.mean += x[i] / norm.of.count;
        EACH_OF(norm.of, i)
        variance += (x[i] - norm.mean) * (x[i] - norm.mean) / norm.of.count;
    }
    norm.root = sqrt(variance + op->param.batchnorm.eps);
    if (op->weight_count > 3)
        norm.scale = op->weight[3][c];
    if (op->weight_count > 4)
        norm.shift = op->weight[4][c];
    return norm;
}

/* The gradient before the ReLU that the norm does, too. */
static double norm_dy(const struct sac_op *op, const struct sac_loop_gradient *g,
                      const struct norm *norm, int64_t i)
{
    double y = (g->x[0][i] - norm->mean) / norm->root * norm->scale + norm->shift;

    return op->epilogue.relu && !(y > 0) ? g->dy[0][i] * op->epilogue.slope : g->dy[0][i];
}

/* Σ dy, and Σ dy·ŷ with ŷ what is normalised. */
static void norm_sums(const struct sac_op *op, const struct sac_loop_gradient *g,
                      const struct norm *norm, double *ret_sum, double *ret_along)
{
    double sum = 0, along = 0;

    EACH_OF(norm->of, i)
    {
        sum += norm_dy(op, g, norm, i);
        along += norm_dy(op, g, norm, i) * (g->x[0][i] - norm->mean) / norm->root;
    }
    *ret_sum = sum;
    *ret_along = along;
}

/* With stored statistics a constant factor; else
 * dx = (dy − mean of dy − ŷ · mean of dy·ŷ) · s / √(σ² + eps). */
void sac_loop_batchnorm_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    for (int64_t c = 0; c < op->src[0].shape.dim[1]; c++) {
        struct norm norm = norm_of(op, g->x[0], c);
        double sum = 0, along = 0, count = norm.of.count;
        if (!op->param.batchnorm.global_stats)
            norm_sums(op, g, &norm, &sum, &along);
        EACH_OF(norm.of, i)
        {
            double y = (g->x[0][i] - norm.mean) / norm.root;
            double dy = norm_dy(op, g, &norm, i);
            g->dx[0][i] = (float)((dy - sum / count - y * along / count) * norm.scale / norm.root);
        }
    }
}

void sac_loop_batchnorm_weights(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    for (int64_t c = 0; c < op->src[0].shape.dim[1]; c++) {
        struct norm norm = norm_of(op, g->x[0], c);
        double sum, along;
        norm_sums(op, g, &norm, &sum, &along);
        if (op->weight_grad[3])
            op->weight_grad[3][c] += (float)along;
        if (op->weight_grad[4])
            op->weight_grad[4][c] += (float)sum;
    }
}

/* ---- Scale and bias ---- */

/* A factor's element is repeated over what follows its axes. */
struct factor {
    int64_t count, inner;
};

static struct factor factor_of(const struct sac_op *op)
{
    const struct sac_shape *shape = &op->src[0].shape;
    struct factor f;

    f.count = sac_shape_count(op->src_count > 1 ? &op->src[1].shape : &op->weight_shape[0]);
    f.inner = sac_shape_count_between(shape, op->param.scale.axis, shape->rank) / f.count;
    return f;
}

/* out[k] += Σ dy·x over the elements that factor k meets; x NULL: ones. */
static void add_factor_gradient(const struct sac_op *op, const float *dy, const float *x,
                                float *out)
{
    struct factor f = factor_of(op);
    int64_t count = sac_shape_count(&op->src[0].shape);

    for (int64_t k = 0; k < f.count; k++) {
        double sum = 0;
        for (int64_t first = k * f.inner; first < count; first += f.count * f.inner)
            for (int64_t i = first; i < first + f.inner; i++)
                sum += x ? (double)dy[i] * x[i] : dy[i];
        out[k] += (float)sum;
    }
}

static void write_factor_gradient(const struct sac_op *op, const float *dy, const float *x,
                                  float *out)
{
    memset(out, 0, sac_tensor_bytes(&op->src[1].shape, SAC_F32));
    add_factor_gradient(op, dy, x, out);
}

void sac_loop_scale_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    struct factor f = factor_of(op);
    const float *factor = op->src_count > 1 ? g->x[1] : op->weight[0];

    EACH_ELEMENT(op, i)
    if (g->dx[0])
        g->dx[0][i] = g->dy[0][i] * factor[i / f.inner % f.count];
    if (op->src_count > 1 && g->dx[1])
        write_factor_gradient(op, g->dy[0], g->x[0], g->dx[1]);
}

void sac_loop_scale_weights(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    int bias = op->src_count > 1 ? 0 : 1;

    if (op->src_count == 1 && op->weight_grad[0])
        add_factor_gradient(op, g->dy[0], g->x[0], op->weight_grad[0]);
    if (op->param.scale.bias && op->weight_grad[bias])
        add_factor_gradient(op, g->dy[0], NULL, op->weight_grad[bias]);
}

void sac_loop_bias_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    if (g->dx[0])
        sac_loop_copy_data(op, g);
    if (op->src_count > 1 && g->dx[1])
        write_factor_gradient(op, g->dy[0], NULL, g->dx[1]);
}

void sac_loop_bias_weights(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    if (op->weight_grad[0])
        add_factor_gradient(op, g->dy[0], NULL, op->weight_grad[0]);
}

/* dx = y · (dy − Σ dy·y) */
void sac_loop_softmax_data(const struct sac_op *op, const struct sac_loop_gradient *g)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int axis = op->param.softmax.axis;
    int64_t outer = sac_shape_count_between(shape, 0, axis), count = shape->dim[axis];
    int64_t inner = sac_shape_count_between(shape, axis + 1, shape->rank);

    for (int64_t p = 0; p < outer * inner; p++) {
        int64_t first = p / inner * count * inner + p % inner;
        double along = 0;
        for (int64_t c = 0; c < count; c++)
            along += (double)g->dy[0][first + c * inner] * g->y[0][first + c * inner];
        for (int64_t c = 0; c < count; c++) {
            int64_t i = first + c * inner;
            g->dx[0][i] = (float)(g->y[0][i] * (g->dy[0][i] - along));
        }
    }
}
