/*
 * Convolution and Deconvolution, two-dimensional.
 *
 * Filter extent e = dilation·(kernel − 1) + 1. Convolution: out = ⌊(in + 2·pad − e)
 * / stride⌋ + 1, filter [out, in/group, kh, kw]. Deconvolution is its transpose:
 * out = stride·(in − 1) + e − 2·pad, filter [in, out/group, kh, kw]. Bias: [out].
 */
#include "net/layer.h"

enum { WINDOW_MAX = 1 << 20 };

struct convolution {
    struct sac_window window;
    int64_t num_output, group;
    int axis;
    bool bias;
    bool transposed;
};

/* One of kernel, stride, pad and dilation, as Caffe lets it be written: once,
 * once an axis, or as _h and _w. */
struct pair {
    const char *name;
    size_t count;
    const uint32_t *list;
    bool has_h, has_w;
    uint32_t h, w;
    uint32_t fallback, least;
};

static int read_pair(const struct pair *pair, int64_t out[2], struct sac_error *err)
{
    bool by_axis = pair->has_h || pair->has_w;

    if (by_axis && pair->count > 0)
        return sac_fail(err, SAC_EFORMAT, "%s is given both once and as %s_h, %s_w", pair->name,
                        pair->name, pair->name);
    if (pair->count > 2)
        return sac_fail(err, SAC_EUNSUPPORTED, "%s has %zu values; only two axes are supported",
                        pair->name, pair->count);
    for (int i = 0; i < 2; i++) {
        if (by_axis)
            out[i] = i == 0 ? pair->h : pair->w;
        else
            out[i] = pair->count ? pair->list[pair->count == 1 ? 0 : i] : pair->fallback;
        if (out[i] < pair->least)
            return sac_fail(err, SAC_EFORMAT, "%s has to be at least %u, and is %lld", pair->name,
                            pair->least, (long long)out[i]);
        if (out[i] > WINDOW_MAX)
            return sac_fail(err, SAC_ELIMIT, "%s is %lld; the most is %d", pair->name,
                            (long long)out[i], WINDOW_MAX);
    }
    return 0;
}

static int read_window(const Caffe__ConvolutionParameter *p, struct sac_window *ret,
                       struct sac_error *err)
{
    const struct pair kernel = {.name = "kernel_size",
                                .count = p->n_kernel_size,
                                .list = p->kernel_size,
                                .has_h = p->has_kernel_h,
                                .has_w = p->has_kernel_w,
                                .h = p->kernel_h,
                                .w = p->kernel_w,
                                .least = 1};
    const struct pair stride = {.name = "stride",
                                .count = p->n_stride,
                                .list = p->stride,
                                .has_h = p->has_stride_h,
                                .has_w = p->has_stride_w,
                                .h = p->stride_h,
                                .w = p->stride_w,
                                .fallback = 1,
                                .least = 1};
    const struct pair pad = {.name = "pad",
                             .count = p->n_pad,
                             .list = p->pad,
                             .has_h = p->has_pad_h,
                             .has_w = p->has_pad_w,
                             .h = p->pad_h,
                             .w = p->pad_w};
    const struct pair dilation = {
        .name = "dilation", .count = p->n_dilation, .list = p->dilation, .fallback = 1, .least = 1};
    int rc = read_pair(&kernel, ret->kernel, err);

    if (rc == 0)
        rc = read_pair(&stride, ret->stride, err);
    if (rc == 0)
        rc = read_pair(&pad, ret->pad, err);
    if (rc == 0)
        rc = read_pair(&dilation, ret->dilation, err);
    return rc;
}

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, bool transposed,
                 struct sac_error *err)
{
    static const Caffe__ConvolutionParameter none = CAFFE__CONVOLUTION_PARAMETER__INIT;
    const Caffe__ConvolutionParameter *p =
        in->message->convolution_param ? in->message->convolution_param : &none;
    struct convolution *conv = sac_layer_state_new(layer, in, sizeof *conv, err);

    if (!conv)
        return SAC_ENOMEM;
    conv->num_output = p->num_output;
    conv->group = p->group;
    conv->axis = p->axis;
    conv->bias = p->bias_term;
    conv->transposed = transposed;
    if (conv->num_output < 1 || conv->num_output > SAC_BLOB_COUNT_MAX)
        return sac_fail(err, SAC_EFORMAT, "num_output has to be at least 1, and is %u",
                        p->num_output);
    if (conv->group < 1)
        return sac_fail(err, SAC_EFORMAT, "group has to be at least 1, and is 0");
    if (conv->num_output % conv->group != 0)
        return sac_fail(err, SAC_EFORMAT, "num_output %lld is not a multiple of group %lld",
                        (long long)conv->num_output, (long long)conv->group);
    int rc = read_window(p, &conv->window, err);
    if (rc == 0)
        rc = sac_layer_set_filler(layer, in, 0, p->weight_filler, err);
    return rc == 0 ? sac_layer_set_filler(layer, in, 1, p->bias_filler, err) : rc;
}

static int setup_convolution(struct sac_layer *layer, const struct sac_layer_setup *in,
                             struct sac_error *err)
{
    return setup(layer, in, false, err);
}

static int setup_deconvolution(struct sac_layer *layer, const struct sac_layer_setup *in,
                               struct sac_error *err)
{
    return setup(layer, in, true, err);
}

static int64_t out_size(const struct convolution *conv, int i, int64_t in)
{
    const struct sac_window *w = &conv->window;
    int64_t extent = w->dilation[i] * (w->kernel[i] - 1) + 1;

    if (conv->transposed)
        return w->stride[i] * (in - 1) + extent - 2 * w->pad[i];
    int64_t room = in + 2 * w->pad[i] - extent;
    return room < 0 ? 0 : room / w->stride[i] + 1;
}

static int check_bottom(const struct convolution *conv, const struct sac_shape *in,
                        struct sac_error *err)
{
    int axis;
    int rc = sac_layer_axis(conv->axis, in->rank, &axis, err);

    if (rc == 0 && (in->rank != 4 || axis != 1))
        rc = sac_fail(err, SAC_EUNSUPPORTED,
                      "only two-dimensional filters over N × C × H × W are supported, and the "
                      "bottom has %d axes and the channels are axis %d",
                      in->rank, axis);
    if (rc == 0 && in->dim[1] % conv->group != 0)
        rc = sac_fail(err, SAC_EFORMAT, "the bottom's %lld channels are no multiple of group %lld",
                      (long long)in->dim[1], (long long)conv->group);
    return rc;
}

static int shape_one(const struct convolution *conv, const struct sac_shape *in,
                     struct sac_shape *out, struct sac_error *err)
{
    *out = (struct sac_shape){.rank = 4, .dim = {in->dim[0], conv->num_output}};
    for (int i = 0; i < 2; i++) {
        out->dim[2 + i] = out_size(conv, i, in->dim[2 + i]);
        if (out->dim[2 + i] < 1)
            return sac_fail(err, SAC_EFORMAT,
                            "kernel %lld × %lld (dilation %lld × %lld, pad %lld × %lld) does not "
                            "fit a bottom of %lld × %lld",
                            (long long)conv->window.kernel[0], (long long)conv->window.kernel[1],
                            (long long)conv->window.dilation[0],
                            (long long)conv->window.dilation[1], (long long)conv->window.pad[0],
                            (long long)conv->window.pad[1], (long long)in->dim[2],
                            (long long)in->dim[3]);
    }
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct convolution *conv = layer->state;
    int rc = 0;

    for (int i = 0; rc == 0 && i < layer->bottom_count; i++) {
        if (!sac_shape_equal(&shapes->in[0], &shapes->in[i]))
            return sac_fail(err, SAC_EFORMAT, "its bottoms differ in shape");
        rc = check_bottom(conv, &shapes->in[i], err);
        if (rc == 0)
            rc = shape_one(conv, &shapes->in[i], &shapes->out[i], err);
    }
    if (rc != 0)
        return rc;
    int64_t channels = shapes->in[0].dim[1];
    int64_t rows = conv->transposed ? channels : conv->num_output;
    int64_t columns = conv->transposed ? conv->num_output : channels;
    shapes->weights[0] = (struct sac_shape){
        .rank = 4,
        .dim = {rows, columns / conv->group, conv->window.kernel[0], conv->window.kernel[1]}};
    shapes->weights[1] = (struct sac_shape){.rank = 1, .dim = {conv->num_output}};
    shapes->weight_count = conv->bias ? 2 : 1;
    return 0;
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct convolution *conv = out->layer->state;
    enum sac_op_kind kind = conv->transposed ? SAC_OP_DECONV : SAC_OP_CONV;

    for (int i = 0; i < out->layer->bottom_count; i++) {
        struct sac_node *node = sac_emit_pair(out, kind, i, err);
        if (!node)
            return SAC_ENOMEM;
        node->param.conv.window = conv->window;
        node->param.conv.group = conv->group;
    }
    return 0;
}

const struct sac_layer_type sac_layer_convolution = {
    .name = "Convolution",
    .bottom_min = 1,
    .bottom_max = SAC_ANY_COUNT,
    .top_min = 1,
    .top_max = SAC_ANY_COUNT,
    .as_many_tops = true,
    .setup = setup_convolution,
    .shape = shape,
    .emit = emit,
};

const struct sac_layer_type sac_layer_deconvolution = {
    .name = "Deconvolution",
    .bottom_min = 1,
    .bottom_max = SAC_ANY_COUNT,
    .top_min = 1,
    .top_max = SAC_ANY_COUNT,
    .as_many_tops = true,
    .setup = setup_deconvolution,
    .shape = shape,
    .emit = emit,
};
