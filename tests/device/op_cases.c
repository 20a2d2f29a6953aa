#include "device/op_cases.h"

#include <stdlib.h>

#define SHAPE4(c, h, w)                                                                            \
    {                                                                                              \
        4,                                                                                         \
        {                                                                                          \
            0, c, h, w                                                                             \
        }                                                                                          \
    }
#define SHAPE2(c)                                                                                  \
    {                                                                                              \
        2,                                                                                         \
        {                                                                                          \
            0, c                                                                                   \
        }                                                                                          \
    }

static struct sac_window window(int64_t kernel, int64_t stride, int64_t pad, int64_t dilation)
{
    return (struct sac_window){
        .kernel = {kernel, kernel},
        .stride = {stride, stride},
        .pad = {pad, pad},
        .dilation = {dilation, dilation},
    };
}

/* Caffe's rules, from its documentation: a convolution rounds down. */
static int64_t conv_size(int64_t in, const struct sac_window *w, int way)
{
    int64_t reach = w->dilation[way] * (w->kernel[way] - 1) + 1;

    return (in + 2 * w->pad[way] - reach) / w->stride[way] + 1;
}

/* Pooling rounds up, and drops a last window that starts in the padding. */
static int64_t pool_size(int64_t in, const struct sac_window *w, int way)
{
    int64_t out = (in + 2 * w->pad[way] - w->kernel[way] + w->stride[way] - 1) / w->stride[way] + 1;

    if (w->pad[way] > 0 && (out - 1) * w->stride[way] >= in + w->pad[way])
        out--;
    return out;
}

static struct sac_op_case one_to_one(const char *name, enum sac_op_kind kind, struct sac_shape src,
                                     struct sac_shape dst)
{
    return (struct sac_op_case){
        .name = name,
        .kind = kind,
        .src_count = 1,
        .dst_count = 1,
        .src = {src},
        .dst = {dst},
    };
}

struct sac_op_case sac_op_case_conv(const char *name, int64_t channels, int64_t height,
                                    int64_t width, int64_t out, int64_t kernel, int64_t stride,
                                    int64_t pad, int64_t dilation, int64_t group)
{
    struct sac_window w = window(kernel, stride, pad, dilation);
    struct sac_op_case c = one_to_one(
        name, SAC_OP_CONV, (struct sac_shape)SHAPE4(channels, height, width),
        (struct sac_shape)SHAPE4(out, conv_size(height, &w, 0), conv_size(width, &w, 1)));

    c.param.conv.window = w;
    c.param.conv.group = group;
    c.weight_count = 2;
    c.weight[0] = (struct sac_shape){4, {out, channels / group, kernel, kernel}};
    c.weight[1] = (struct sac_shape){1, {out}};
    c.relu = true;
    return c;
}

static struct sac_op_case deconv(const char *name, int64_t channels, int64_t size, int64_t out,
                                 int64_t kernel, int64_t stride, int64_t pad, int64_t group)
{
    int64_t large = stride * (size - 1) + kernel - 2 * pad;
    struct sac_op_case c =
        one_to_one(name, SAC_OP_DECONV, (struct sac_shape)SHAPE4(channels, size, size),
                   (struct sac_shape)SHAPE4(out, large, large));

    c.param.conv.window = window(kernel, stride, pad, 1);
    c.param.conv.group = group;
    c.weight_count = 2;
    c.weight[0] = (struct sac_shape){4, {channels, out / group, kernel, kernel}};
    c.weight[1] = (struct sac_shape){1, {out}};
    return c;
}

struct sac_op_case sac_op_case_inner(const char *name, int64_t channels, int64_t height,
                                     int64_t width, int64_t out)
{
    struct sac_op_case c =
        one_to_one(name, SAC_OP_INNER, (struct sac_shape)SHAPE4(channels, height, width),
                   (struct sac_shape)SHAPE2(out));

    c.param.inner.axis = 1;
    c.weight_count = 2;
    c.weight[0] = (struct sac_shape){2, {out, channels * height * width}};
    c.weight[1] = (struct sac_shape){1, {out}};
    return c;
}

struct sac_op_case sac_op_case_pool(const char *name, enum sac_pool_method method, int64_t channels,
                                    int64_t size, int64_t kernel, int64_t stride, int64_t pad)
{
    struct sac_window w = window(kernel, stride, pad, 1);
    int64_t out = pool_size(size, &w, 0);
    struct sac_op_case c =
        one_to_one(name, SAC_OP_POOL, (struct sac_shape)SHAPE4(channels, size, size),
                   (struct sac_shape)SHAPE4(channels, out, out));

    c.param.pool.window = w;
    c.param.pool.method = method;
    return c;
}

struct sac_op_case sac_op_case_lrn(const char *name, enum sac_lrn_region region, int64_t channels,
                                   int64_t size, int n, float alpha, float beta, float k)
{
    struct sac_shape shape = SHAPE4(channels, size, size);
    struct sac_op_case c = one_to_one(name, SAC_OP_LRN, shape, shape);

    c.param.lrn.region = region;
    c.param.lrn.size = n;
    c.param.lrn.alpha = alpha;
    c.param.lrn.beta = beta;
    c.param.lrn.k = k;
    return c;
}

static struct sac_op_case map(const char *name, enum sac_op_kind kind, struct sac_shape shape)
{
    return one_to_one(name, kind, shape, shape);
}

static struct sac_op_case eltwise(const char *name, enum sac_eltwise_method method, int sources,
                                  const float *coeff, struct sac_shape shape)
{
    struct sac_op_case c = map(name, SAC_OP_ELTWISE, shape);

    c.src_count = sources;
    for (int i = 0; i < sources; i++)
        c.src[i] = shape;
    c.param.eltwise.method = method;
    c.param.eltwise.coeff = coeff;
    return c;
}

/* Concatenation along `axis` of three parts; the slice is its reverse. */
static struct sac_op_case concat(const char *name, int axis, const int64_t parts[3],
                                 struct sac_shape whole, bool slice)
{
    struct sac_op_case c = {.name = name, .kind = slice ? SAC_OP_SLICE : SAC_OP_CONCAT};
    struct sac_shape *many = slice ? c.dst : c.src, *one = slice ? c.src : c.dst;

    c.src_count = slice ? 1 : 3;
    c.dst_count = slice ? 3 : 1;
    c.param.concat.axis = axis;
    *one = whole;
    one->dim[axis] = 0;
    for (int i = 0; i < 3; i++) {
        many[i] = whole;
        many[i].dim[axis] = parts[i];
        one->dim[axis] += parts[i];
    }
    return c;
}

static struct sac_op_case softmax(const char *name, int axis, struct sac_shape shape)
{
    struct sac_op_case c = map(name, SAC_OP_SOFTMAX, shape);

    c.param.softmax.axis = axis;
    return c;
}

static struct sac_op_case per_channel(const char *name, enum sac_op_kind kind, int weights,
                                      struct sac_shape shape)
{
    struct sac_op_case c = map(name, kind, shape);

    c.weight_count = weights;
    for (int i = 0; i < weights; i++)
        c.weight[i] = (struct sac_shape){1, {shape.dim[1]}};
    if (kind == SAC_OP_SCALE || kind == SAC_OP_BIAS) {
        c.param.scale.axis = 1;
        c.param.scale.num_axes = 1;
        c.param.scale.bias = weights > 1;
    }
    return c;
}

static struct sac_op_case by_source(const char *name, enum sac_op_kind kind, int axis,
                                    struct sac_shape shape, struct sac_shape factor)
{
    struct sac_op_case c = map(name, kind, shape);

    c.src_count = 2;
    c.src[1] = factor;
    c.param.scale.axis = axis;
    c.param.scale.num_axes = factor.rank;
    return c;
}

struct sac_op_case sac_op_case_pixels(const char *name, int64_t channels, int64_t height,
                                      int64_t width, bool swap, const float *mean_image)
{
    struct sac_op_case c =
        one_to_one(name, SAC_OP_PIXELS, (struct sac_shape)SHAPE4(height, width, channels),
                   (struct sac_shape)SHAPE4(channels, height, width));

    c.param.pixels.scale = 0.0078125f;
    c.param.pixels.swap = swap;
    c.param.pixels.mean_image = mean_image;
    for (int i = 0; i < 4; i++)
        c.param.pixels.mean[i] = (float)(100 + 8 * i);
    return c;
}

static struct sac_op_case topk(const char *name, struct sac_shape shape, int k)
{
    struct sac_op_case c = one_to_one(name, SAC_OP_TOPK, shape, (struct sac_shape)SHAPE2(k));

    c.param.topk.k = k;
    return c;
}

static struct sac_op_case relu(const char *name, float slope, struct sac_shape shape)
{
    struct sac_op_case c = map(name, SAC_OP_RELU, shape);

    c.param.relu.slope = slope;
    return c;
}

static struct sac_op_case power(const char *name, float to, float scale, float shift)
{
    struct sac_op_case c = map(name, SAC_OP_POWER, (struct sac_shape)SHAPE4(7, 3, 3));

    c.param.power.power = to;
    c.param.power.scale = scale;
    c.param.power.shift = shift;
    return c;
}

static struct sac_op_case elu(const char *name, float alpha, struct sac_shape shape)
{
    struct sac_op_case c = map(name, SAC_OP_ELU, shape);

    c.param.elu.alpha = alpha;
    return c;
}

static struct sac_op_case with(struct sac_op_case c, bool sum, bool rectify, float slope)
{
    c.sum = sum;
    c.relu = rectify;
    c.slope = slope;
    return c;
}

static struct sac_op_case without_bias(struct sac_op_case c)
{
    c.weight_count = 1;
    return c;
}

static struct sac_op_case transposed(struct sac_op_case c)
{
    int64_t out = c.weight[0].dim[0];

    c.param.inner.transpose = true;
    c.weight[0].dim[0] = c.weight[0].dim[1];
    c.weight[0].dim[1] = out;
    return c;
}

static struct sac_op_case inner_axis2(const char *name)
{
    struct sac_op_case c = one_to_one(name, SAC_OP_INNER, (struct sac_shape)SHAPE4(3, 4, 5),
                                      (struct sac_shape){3, {0, 3, 6}});

    c.param.inner.axis = 2;
    c.weight_count = 2;
    c.weight[0] = (struct sac_shape){2, {6, 20}};
    c.weight[1] = (struct sac_shape){1, {6}};
    return c;
}

static struct sac_op_case batchnorm(const char *name, bool global_stats)
{
    struct sac_op_case c =
        per_channel(name, SAC_OP_BATCHNORM, 2, (struct sac_shape)SHAPE4(7, 5, 5));

    c.weight_count = 3;
    c.weight[2] = (struct sac_shape){1, {1}};
    c.param.batchnorm.eps = 1e-5f;
    c.param.batchnorm.global_stats = global_stats;
    return c;
}

static struct sac_op_case reshape(const char *name, struct sac_shape from, struct sac_shape to)
{
    return one_to_one(name, SAC_OP_RESHAPE, from, to);
}

enum { CASES_MAX = 128 };
static struct sac_op_case cases[CASES_MAX];
static int count;
static const float coeff[] = {0.5f, -1, 2};
static float mean_image[3 * 9 * 10];

static void add(struct sac_op_case c)
{
    if (count == CASES_MAX)
        abort();
    cases[count++] = c;
}

static void add_convolutions(void)
{
    add(sac_op_case_conv("first of SqueezeNet, 3 channels", 3, 31, 29, 64, 3, 2, 0, 1, 1));
    add(sac_op_case_conv("first of CaffeNet, 11×11/4", 3, 47, 47, 96, 11, 4, 0, 1, 1));
    add(sac_op_case_conv("first of GoogLeNet, 7×7/2 padded", 3, 33, 35, 64, 7, 2, 3, 1, 1));
    add(sac_op_case_conv("1×1, 64 to 16", 64, 13, 13, 16, 1, 1, 0, 1, 1));
    add(sac_op_case_conv("1×1 with stride 2", 48, 14, 14, 96, 1, 2, 0, 1, 1));
    add(sac_op_case_conv("1×1 to 1000 classes", 96, 5, 5, 1000, 1, 1, 0, 1, 1));
    add(sac_op_case_conv("3×3 padded", 48, 14, 14, 96, 3, 1, 1, 1, 1));
    add(sac_op_case_conv("3×3 padded, large enough for Winograd", 64, 28, 28, 64, 3, 1, 1, 1, 1));
    add(sac_op_case_conv("3×3, 16 to 64, as SqueezeNet expands", 16, 13, 13, 64, 3, 1, 1, 1, 1));
    add(sac_op_case_conv("3×3 unpadded, 64 to 80, tiles overhang", 64, 31, 33, 80, 3, 1, 0, 1, 1));
    add(sac_op_case_conv("3×3, odd channel counts 7 to 3", 7, 9, 11, 3, 3, 1, 1, 1, 1));
    add(sac_op_case_conv("5×5 in 2 groups", 96, 13, 13, 64, 5, 1, 2, 1, 2));
    add(sac_op_case_conv("3×3 in 3 groups of 5", 15, 8, 8, 9, 3, 2, 1, 1, 3));
    add(sac_op_case_conv("depthwise 3×3", 48, 14, 14, 48, 3, 1, 1, 1, 48));
    add(sac_op_case_conv("depthwise 3×3/2, 7 channels", 7, 15, 15, 7, 3, 2, 1, 1, 7));
    add(sac_op_case_conv("depthwise with a multiplier of 2", 8, 9, 9, 16, 3, 1, 1, 1, 8));
    add(sac_op_case_conv("3×3 dilated by 2", 16, 15, 15, 32, 3, 1, 2, 2, 1));
    add(sac_op_case_conv("3×3 dilated by 3 with stride 2", 5, 19, 19, 7, 3, 2, 3, 3, 1));
    add(sac_op_case_conv("a kernel as large as its image", 16, 6, 6, 24, 6, 1, 0, 1, 1));
    add(sac_op_case_conv("padding beyond the kernel's reach", 4, 5, 5, 6, 2, 1, 3, 1, 1));
    add(without_bias(sac_op_case_conv("3×3 without bias", 32, 9, 9, 48, 3, 1, 1, 1, 1)));
    add(with(sac_op_case_conv("sum and ReLU, 1×1", 64, 7, 7, 96, 1, 1, 0, 1, 1), true, true, 0));
    add(with(sac_op_case_conv("sum, 3×3", 32, 7, 7, 32, 3, 1, 1, 1, 1), true, false, 0));
    add(with(sac_op_case_conv("leaky ReLU, 3×3", 16, 7, 7, 32, 3, 1, 1, 1, 1), false, true, .1f));
    add(with(sac_op_case_conv("no ReLU, 3×3", 16, 7, 7, 32, 3, 1, 1, 1, 1), false, false, 0));
    add(deconv("deconvolution 4×4/2 padded", 16, 7, 8, 4, 2, 1, 1));
    add(deconv("deconvolution 3×3, odd channels", 7, 6, 3, 3, 1, 0, 1));
    add(deconv("deconvolution by channel, bilinear", 12, 5, 12, 4, 2, 1, 12));
    add(with(deconv("deconvolution in 2 groups and ReLU", 8, 5, 12, 3, 2, 1, 2), 0, true, 0));
}

static void add_windows(void)
{
    const enum sac_lrn_region across = SAC_LRN_ACROSS_CHANNELS, within = SAC_LRN_WITHIN_CHANNEL;

    add(sac_op_case_inner("inner product of 1000", 256, 1, 1, 1000));
    add(sac_op_case_inner("inner product of an image", 48, 6, 6, 96));
    add(sac_op_case_inner("inner product, odd counts", 7, 3, 5, 10));
    add(with(sac_op_case_inner("inner product and ReLU", 96, 2, 2, 48), false, true, 0));
    add(without_bias(sac_op_case_inner("inner product without bias", 33, 1, 1, 17)));
    add(transposed(sac_op_case_inner("inner product transposed", 6, 4, 3, 20)));
    add(inner_axis2("inner product from axis 2"));
    add(sac_op_case_pool("max 3×3/2", SAC_POOL_MAX, 64, 13, 3, 2, 0));
    add(sac_op_case_pool("max 3×3/2 overhanging", SAC_POOL_MAX, 48, 14, 3, 2, 0));
    add(sac_op_case_pool("max 3×3/1 padded", SAC_POOL_MAX, 96, 7, 3, 1, 1));
    add(sac_op_case_pool("max 2×2/2 padded, 7 channels", SAC_POOL_MAX, 7, 9, 2, 2, 1));
    add(sac_op_case_pool("average 3×3/2 overhanging", SAC_POOL_AVE, 48, 14, 3, 2, 0));
    add(sac_op_case_pool("average 3×3/2 padded, overhanging", SAC_POOL_AVE, 7, 14, 3, 2, 1));
    add(sac_op_case_pool("average 5×5/3 padded by 2", SAC_POOL_AVE, 96, 17, 5, 3, 2));
    add(sac_op_case_pool("average of all", SAC_POOL_AVE, 1000, 7, 7, 1, 0));
    add(sac_op_case_pool("average of all, 3 channels", SAC_POOL_AVE, 3, 13, 13, 1, 0));
    add(sac_op_case_lrn("LRN across 5", across, 96, 9, 5, 1e-4f, .75f, 1));
    add(sac_op_case_lrn("LRN across 5, large alpha", across, 48, 5, 5, 1, .75f, 2));
    add(sac_op_case_lrn("LRN across 3, beta 0.5, 7 channels", across, 7, 6, 3, .5f, .5f, 1));
    add(sac_op_case_lrn("LRN wider than its 3 channels", across, 3, 6, 5, .5f, .75f, 1));
    add(sac_op_case_lrn("LRN across 5, beta 1.3", across, 20, 4, 5, .5f, 1.3f, 1));
    add(sac_op_case_lrn("LRN within 3", within, 32, 8, 3, 5e-5f, .75f, 1));
    add(sac_op_case_lrn("LRN within 5, k is ignored", within, 7, 6, 5, 1, .75f, 7));
}

static void add_maps(void)
{
    const struct sac_shape four = SHAPE4(48, 7, 5), odd = SHAPE4(7, 3, 3), two = SHAPE2(1000);

    add(relu("ReLU", 0, four));
    add(relu("leaky ReLU", .25f, odd));
    add(relu("ReLU of rank 2", 0, two));
    add(per_channel("PReLU", SAC_OP_PRELU, 1, four));
    add(map("sigmoid", SAC_OP_SIGMOID, odd));
    add(map("tanh", SAC_OP_TANH, odd));
    add(elu("ELU", .5f, odd));
    add(power("power 1", 1, 2, -.5f));
    add(power("power 2", 2, 1, 1));
    add(power("power 0.5", .5f, 1, 3));
    add(map("dropout", SAC_OP_DROPOUT, four));
    add(eltwise("sum of two", SAC_ELTWISE_SUM, 2, NULL, four));
    add(with(eltwise("sum of two and ReLU", SAC_ELTWISE_SUM, 2, NULL, odd), false, true, 0));
    add(eltwise("weighted sum of three", SAC_ELTWISE_SUM, 3, coeff, odd));
    add(eltwise("product of two", SAC_ELTWISE_PROD, 2, NULL, four));
    add(eltwise("largest of three", SAC_ELTWISE_MAX, 3, NULL, odd));
    add(eltwise("sum of two, rank 2", SAC_ELTWISE_SUM, 2, NULL, two));
    add(per_channel("affine", SAC_OP_AFFINE, 2, four));
    add(with(per_channel("affine and ReLU", SAC_OP_AFFINE, 2, odd), false, true, 0));
    add(per_channel("affine of rank 2", SAC_OP_AFFINE, 2, two));
    add(per_channel("scale", SAC_OP_SCALE, 1, four));
    add(per_channel("scale and bias", SAC_OP_SCALE, 2, odd));
    add(per_channel("bias", SAC_OP_BIAS, 1, four));
    add(by_source("scale by a source", SAC_OP_SCALE, 0, odd, (struct sac_shape){2, {0, 7}}));
    add(by_source("bias by a source", SAC_OP_BIAS, 0, odd, odd));
    add(batchnorm("batch norm, stored statistics", true));
}

static void add_moves(void)
{
    const struct sac_shape four = SHAPE4(48, 7, 5), odd = SHAPE4(7, 3, 3), two = SHAPE2(1000);

    add(concat("concat of channels", 1, (int64_t[]){64, 7, 32}, four, false));
    add(concat("concat of rows", 2, (int64_t[]){1, 5, 2}, four, false));
    add(concat("concat of rank 2", 1, (int64_t[]){3, 10, 7}, two, false));
    add(concat("slice of channels", 1, (int64_t[]){16, 3, 29}, four, true));
    add(concat("slice of columns", 3, (int64_t[]){1, 2, 2}, four, true));
    add(reshape("reshape 4 to 2", odd, (struct sac_shape)SHAPE2(63)));
    add(reshape("reshape 2 to 4", (struct sac_shape)SHAPE2(60), (struct sac_shape)SHAPE4(3, 4, 5)));
    add(reshape("reshape 1×1", (struct sac_shape)SHAPE4(48, 1, 1), (struct sac_shape)SHAPE2(48)));
    add(softmax("softmax of 1000", 1, two));
    add(softmax("softmax of channels, 1×1", 1, (struct sac_shape)SHAPE4(1000, 1, 1)));
    add(softmax("softmax of channels at each position", 1, odd));
    add(softmax("softmax along rows", 3, odd));
    add(sac_op_case_pixels("pixels of 3 channels", 3, 13, 11, false, NULL));
    add(sac_op_case_pixels("pixels swapped", 3, 13, 11, true, NULL));
    add(sac_op_case_pixels("grey pixels", 1, 28, 28, false, NULL));
    add(sac_op_case_pixels("pixels less a mean image, swapped", 3, 9, 10, true, mean_image));
    add(topk("five of 1000", two, 5));
    add(topk("all of 7", (struct sac_shape)SHAPE4(7, 1, 1), 7));
    add(map("convert", SAC_OP_CONVERT, odd));
    add(map("convert 3 channels", SAC_OP_CONVERT, (struct sac_shape)SHAPE4(3, 13, 11)));
}

static void fill_table(void)
{
    if (count > 0)
        return;
    for (int i = 0; i < 3 * 9 * 10; i++)
        mean_image[i] = (float)(90 + i % 50);
    add_convolutions();
    add_windows();
    add_maps();
    add_moves();
}

int sac_op_case_count(void)
{
    fill_table();
    return count;
}

const struct sac_op_case *sac_op_case(int index)
{
    fill_table();
    return &cases[index];
}
