/* The plain loops of what maps elements, moves them, or reduces along an axis. */
#include "device/cpu/loops.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EACH_ELEMENT(op, i)                                                                        \
    for (int64_t i = 0, count_ = sac_shape_count(&(op)->src[0].shape); i < count_; i++)

void sac_loop_copy(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    (void)scratch;
    memcpy(y[0], x[0], sac_tensor_bytes(&op->src[0].shape, SAC_F32));
}

void sac_loop_split(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    (void)scratch;
    for (int i = 0; i < op->dst_count; i++)
        memcpy(y[i], x[0], sac_tensor_bytes(&op->src[0].shape, SAC_F32));
}

void sac_loop_relu(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    (void)scratch;
    EACH_ELEMENT(op, i)
    y[0][i] = x[0][i] < 0 ? x[0][i] * op->param.relu.slope : x[0][i];
}

void sac_loop_prelu(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int64_t inner = sac_shape_count_between(shape, 2, shape->rank);
    bool shared = sac_shape_count(&op->weight_shape[0]) == 1;

    (void)scratch;
    EACH_ELEMENT(op, i)
    {
        float slope = op->weight[0][shared ? 0 : i / inner % shape->dim[1]];
        y[0][i] = x[0][i] < 0 ? x[0][i] * slope : x[0][i];
    }
}

void sac_loop_sigmoid(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    (void)scratch;
    EACH_ELEMENT(op, i)
    y[0][i] = (float)(1 / (1 + exp(-(double)x[0][i])));
}

void sac_loop_tanh(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    (void)scratch;
    EACH_ELEMENT(op, i)
    y[0][i] = (float)tanh(x[0][i]);
}

void sac_loop_elu(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    (void)scratch;
    EACH_ELEMENT(op, i)
    y[0][i] = x[0][i] > 0 ? x[0][i] : (float)(op->param.elu.alpha * expm1(x[0][i]));
}

void sac_loop_power(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    double power = op->param.power.power, scale = op->param.power.scale;

    (void)scratch;
    EACH_ELEMENT(op, i)
    {
        double base = op->param.power.shift + scale * x[0][i];
        y[0][i] = (float)(power == 1 ? base : pow(base, power));
    }
}

/* Copies between `whole` and its `part` that starts at `offset` along the axis. */
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

void sac_loop_concat(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    int axis = op->param.concat.axis;
    int64_t offset = 0;

    (void)scratch;
    for (int i = 0; i < op->src_count; i++) {
        move_part(y[0], &op->dst[0].shape, x[i], &op->src[i].shape, axis, offset, false);
        offset += op->src[i].shape.dim[axis];
    }
}

void sac_loop_slice(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    int axis = op->param.slice.axis;
    int64_t offset = 0;

    (void)scratch;
    for (int i = 0; i < op->dst_count; i++) {
        move_part(x[0], &op->src[0].shape, y[i], &op->dst[i].shape, axis, offset, true);
        offset += op->dst[i].shape.dim[axis];
    }
}

static double eltwise_of(const struct sac_op *op, float *const *x, int64_t i)
{
    const float *coeff = op->param.eltwise.coeff;
    enum sac_eltwise_method method = op->param.eltwise.method;
    double value = x[0][i];

    if (method == SAC_ELTWISE_SUM && coeff)
        value *= coeff[0];
    for (int k = 1; k < op->src_count; k++) {
        double other = x[k][i];
        if (method == SAC_ELTWISE_SUM)
            value += coeff ? other * coeff[k] : other;
        else if (method == SAC_ELTWISE_PROD)
            value *= other;
        else
            value = other > value ? other : value;
    }
    return value;
}

void sac_loop_eltwise(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    (void)scratch;
    EACH_ELEMENT(op, i)
    y[0][i] = (float)eltwise_of(op, x, i);
}

/* Channels and what one channel of one picture has. */
static int64_t channels_of(const struct sac_shape *shape, int64_t *inner)
{
    *inner = shape->rank > 2 ? sac_shape_count_between(shape, 2, shape->rank) : 1;
    return shape->rank > 1 ? shape->dim[1] : 1;
}

static void statistics(const struct sac_op *op, const float *x, int64_t c, double *mean,
                       double *variance)
{
    int64_t inner, channels = channels_of(&op->src[0].shape, &inner);
    int64_t batch = op->src[0].shape.dim[0];
    double sum = 0, squares = 0;

    for (int64_t n = 0; n < batch; n++)
        for (int64_t i = 0; i < inner; i++)
            sum += x[(n * channels + c) * inner + i];
    *mean = sum / (double)(batch * inner);
    for (int64_t n = 0; n < batch; n++) {
        for (int64_t i = 0; i < inner; i++) {
            double d = x[(n * channels + c) * inner + i] - *mean;
            squares += d * d;
        }
    }
    *variance = squares / (double)(batch * inner);
}

/* s ← f·s + 1; mean ← f·mean + μ; var ← f·var + m/(m−1)·σ², as Caffe. */
static void update_running(const struct sac_op *op, int64_t c, double mean, double variance)
{
    int64_t inner, channels = channels_of(&op->src[0].shape, &inner);
    double m = (double)(op->src[0].shape.dim[0] * inner);
    double fraction = op->param.batchnorm.fraction;

    if (!op->training || !op->master[0])
        return;
    op->master[0][c] = (float)(fraction * op->master[0][c] + mean);
    op->master[1][c] = (float)(fraction * op->master[1][c] + (m > 1 ? m / (m - 1) : 1) * variance);
    if (c == channels - 1)
        op->master[2][0] = (float)(fraction * op->master[2][0] + 1);
}

/* weights: mean, variance, the factor that both were summed with, and what a Scale has. */
void sac_loop_batchnorm(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    int64_t inner, channels = channels_of(&op->src[0].shape, &inner);
    double factor = op->weight_count > 2 ? op->weight[2][0] : 0;
    double unscale = factor == 0 ? 0 : 1 / factor;

    (void)scratch;
    for (int64_t c = 0; c < channels; c++) {
        double mean, variance;
        if (op->param.batchnorm.global_stats) {
            mean = op->weight[0][c] * unscale;
            variance = op->weight[1][c] * unscale;
        } else {
            statistics(op, x[0], c, &mean, &variance);
            update_running(op, c, mean, variance);
        }
        double root = sqrt(variance + op->param.batchnorm.eps);
        double scale = op->weight_count > 3 ? op->weight[3][c] : 1;
        double shift = op->weight_count > 4 ? op->weight[4][c] : 0;
        for (int64_t n = 0; n < op->src[0].shape.dim[0]; n++)
            for (int64_t i = (n * channels + c) * inner; i < (n * channels + c + 1) * inner; i++)
                y[0][i] = (float)((x[0][i] - mean) / root * scale + shift);
    }
}

/* The factor's axes start at `axis` of x; what follows them is repeated. */
static int64_t repeats(const struct sac_op *op, int64_t factor_count)
{
    const struct sac_shape *shape = &op->src[0].shape;

    return sac_shape_count_between(shape, op->param.scale.axis, shape->rank) / factor_count;
}

void sac_loop_scale(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    bool two = op->src_count > 1;
    const float *factor = two ? x[1] : op->weight[0];
    const float *bias = op->param.scale.bias ? op->weight[two ? 0 : 1] : NULL;
    int64_t count = sac_shape_count(two ? &op->src[1].shape : &op->weight_shape[0]);
    int64_t inner = repeats(op, count);

    (void)scratch;
    EACH_ELEMENT(op, i)
    {
        int64_t at = i / inner % count;
        y[0][i] = x[0][i] * factor[at] + (bias ? bias[at] : 0);
    }
}

void sac_loop_bias(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    bool two = op->src_count > 1;
    const float *bias = two ? x[1] : op->weight[0];
    int64_t count = sac_shape_count(two ? &op->src[1].shape : &op->weight_shape[0]);
    int64_t inner = repeats(op, count);

    (void)scratch;
    EACH_ELEMENT(op, i)
    y[0][i] = x[0][i] + bias[i / inner % count];
}

void sac_loop_affine(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    int64_t inner, channels = channels_of(&op->src[0].shape, &inner);

    (void)scratch;
    EACH_ELEMENT(op, i)
    {
        int64_t c = i / inner % channels;
        y[0][i] = x[0][i] * op->weight[0][c] + op->weight[1][c];
    }
}

static void softmax_row(const float *x, float *y, int64_t count, int64_t step)
{
    float most = x[0];
    double sum = 0;

    for (int64_t c = 1; c < count; c++)
        most = x[c * step] > most ? x[c * step] : most;
    for (int64_t c = 0; c < count; c++)
        sum += exp((double)x[c * step] - most);
    for (int64_t c = 0; c < count; c++)
        y[c * step] = (float)(exp((double)x[c * step] - most) / sum);
}

void sac_loop_softmax(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    const struct sac_shape *shape = &op->src[0].shape;
    int axis = op->param.softmax.axis;
    int64_t outer = sac_shape_count_between(shape, 0, axis);
    int64_t inner = sac_shape_count_between(shape, axis + 1, shape->rank);
    int64_t count = shape->dim[axis];

    (void)scratch;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++)
            softmax_row(x[0] + o * count * inner + i, y[0] + o * count * inner + i, count, inner);
}

/* x: N × H × W × C in the picture's order; y: N × C × H × W in the net's. */
void sac_loop_pixels(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    const int64_t *dim = op->dst[0].shape.dim;
    int64_t channels = dim[1], plane = dim[2] * dim[3];
    const float *image = op->param.pixels.mean_image;

    (void)scratch;
    for (int64_t n = 0; n < dim[0]; n++) {
        for (int64_t c = 0; c < channels; c++) {
            int64_t from = op->param.pixels.swap && channels >= 3 && c < 3 ? 2 - c : c;
            for (int64_t i = 0; i < plane; i++) {
                float mean = image ? image[c * plane + i] : op->param.pixels.mean[c < 4 ? c : 3];
                y[0][(n * channels + c) * plane + i] =
                    (x[0][(n * plane + i) * channels + from] - mean) * op->param.pixels.scale;
            }
        }
    }
}

/* NaN ranks below every number. */
static bool ranks_above(float a, float b)
{
    return isnan(b) ? !isnan(a) : a > b;
}

void sac_loop_topk(const struct sac_op *op, float *const *x, float *const *y, double *scratch)
{
    int64_t rows = op->src[0].shape.dim[0];
    int64_t count = sac_shape_count_between(&op->src[0].shape, 1, op->src[0].shape.rank);
    int64_t k = op->dst[0].shape.dim[1];
    struct sac_topk_pair *out = (struct sac_topk_pair *)y[0];

    (void)scratch;
    for (int64_t n = 0; n < rows; n++, out += k) {
        int64_t found = 0;
        for (int64_t c = 0; c < count; c++) {
            float value = x[0][n * count + c];
            int64_t at = found < k ? found++ : k;
            for (; at > 0 && ranks_above(value, out[at - 1].value); at--)
                if (at < k)
                    out[at] = out[at - 1];
            if (at < k)
                out[at] = (struct sac_topk_pair){(int32_t)c, value};
        }
        for (; found < k; found++)
            out[found] = (struct sac_topk_pair){-1, 0};
    }
}
