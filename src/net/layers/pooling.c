/*
 * Pooling by maximum or average.
 *
 * out = ⌈(in + 2·pad − kernel) / stride⌉ + 1 (round_mode FLOOR: rounded down). Where
 * there is padding, a last window that would start at or behind in + pad is left
 * out. Average divides by the window clipped to in + pad: padding counts.
 */
#include "net/layer.h"

enum { WINDOW_MAX = 1 << 20 };

struct pooling {
    struct sac_window window;
    enum sac_pool_method method;
    bool global;
    bool floor;
};

static int check_fields(const Caffe__PoolingParameter *p, struct sac_error *err)
{
    bool kernel_by_axis = p->has_kernel_h || p->has_kernel_w;

    if (p->global_pooling && (p->has_kernel_size || kernel_by_axis))
        return sac_fail(err, SAC_EFORMAT, "global_pooling takes no kernel size");
    if (!p->global_pooling && p->has_kernel_size == (p->has_kernel_h && p->has_kernel_w))
        return sac_fail(err, SAC_EFORMAT,
                        "the kernel has to be given as kernel_size, or as kernel_h and kernel_w");
    if (p->has_kernel_size && kernel_by_axis)
        return sac_fail(err, SAC_EFORMAT, "kernel_size is given beside kernel_h or kernel_w");
    if ((p->has_pad_h || p->has_pad_w) && (p->has_pad || !p->has_pad_h || !p->has_pad_w))
        return sac_fail(err, SAC_EFORMAT, "padding has to be given as pad, or as pad_h and pad_w");
    if ((p->has_stride_h || p->has_stride_w) &&
        (p->has_stride || !p->has_stride_h || !p->has_stride_w))
        return sac_fail(err, SAC_EFORMAT,
                        "the stride has to be given as stride, or as stride_h and stride_w");
    return 0;
}

static void read_window(const Caffe__PoolingParameter *p, struct sac_window *w)
{
    w->kernel[0] = p->has_kernel_h ? p->kernel_h : p->kernel_size;
    w->kernel[1] = p->has_kernel_w ? p->kernel_w : p->kernel_size;
    w->pad[0] = p->has_pad_h ? p->pad_h : p->pad;
    w->pad[1] = p->has_pad_w ? p->pad_w : p->pad;
    w->stride[0] = p->has_stride_h ? p->stride_h : p->stride;
    w->stride[1] = p->has_stride_w ? p->stride_w : p->stride;
    w->dilation[0] = w->dilation[1] = 1;
}

static int check_window(const struct pooling *pool, struct sac_error *err)
{
    const struct sac_window *w = &pool->window;

    for (int i = 0; i < 2; i++) {
        if (pool->global && (w->pad[i] != 0 || w->stride[i] != 1))
            return sac_fail(err, SAC_EFORMAT, "global_pooling takes pad 0 and stride 1 only");
        if (!pool->global && (w->kernel[i] < 1 || w->kernel[i] > WINDOW_MAX))
            return sac_fail(err, SAC_EFORMAT, "the kernel has to be 1 to %d, and is %lld",
                            WINDOW_MAX, (long long)w->kernel[i]);
        if (w->stride[i] < 1 || w->stride[i] > WINDOW_MAX)
            return sac_fail(err, SAC_EFORMAT, "the stride has to be 1 to %d, and is %lld",
                            WINDOW_MAX, (long long)w->stride[i]);
        if (w->pad[i] > 0 && w->pad[i] >= w->kernel[i])
            return sac_fail(err, SAC_EFORMAT, "pad %lld has to be less than the kernel, %lld",
                            (long long)w->pad[i], (long long)w->kernel[i]);
    }
    return 0;
}

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    static const Caffe__PoolingParameter none = CAFFE__POOLING_PARAMETER__INIT;
    const Caffe__PoolingParameter *p =
        in->message->pooling_param ? in->message->pooling_param : &none;
    struct pooling *pool = sac_layer_state_new(layer, in, sizeof *pool, err);

    if (!pool)
        return SAC_ENOMEM;
    int rc = check_fields(p, err);
    if (rc != 0)
        return rc;
    if (p->pool == CAFFE__POOLING_PARAMETER__POOL_METHOD__STOCHASTIC)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "STOCHASTIC pooling is not supported; MAX and AVE are");
    if (layer->top_count > 1)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "a second top, the mask of the maxima, is not supported");
    pool->method =
        p->pool == CAFFE__POOLING_PARAMETER__POOL_METHOD__AVE ? SAC_POOL_AVE : SAC_POOL_MAX;
    pool->global = p->global_pooling;
    pool->floor = p->round_mode == CAFFE__POOLING_PARAMETER__ROUND_MODE__FLOOR;
    read_window(p, &pool->window);
    return check_window(pool, err);
}

static struct sac_window window_over(const struct pooling *pool, const struct sac_shape *in)
{
    struct sac_window window = pool->window;

    if (pool->global) {
        window.kernel[0] = in->dim[2];
        window.kernel[1] = in->dim[3];
    }
    return window;
}

/* Division rounded up, of a number that may be negative. */
static int64_t divide_up(int64_t a, int64_t b)
{
    return a > 0 ? (a + b - 1) / b : -(-a / b);
}

static int64_t out_size(const struct pooling *pool, const struct sac_window *w, int i, int64_t in)
{
    int64_t room = in + 2 * w->pad[i] - w->kernel[i];

    if (pool->floor && room < 0)
        return 0;
    int64_t out = (pool->floor ? room / w->stride[i] : divide_up(room, w->stride[i])) + 1;
    if (w->pad[i] > 0 && (out - 1) * w->stride[i] >= in + w->pad[i])
        out--;
    return out;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct pooling *pool = layer->state;
    const struct sac_shape *in = &shapes->in[0];
    struct sac_shape *out = &shapes->out[0];
    int rc = sac_layer_expect_rank(in, 4, err);

    if (rc != 0)
        return rc;
    struct sac_window window = window_over(pool, in);
    *out = *in;
    for (int i = 0; i < 2; i++) {
        int64_t size = out_size(pool, &window, i, in->dim[2 + i]);
        if (size < 1)
            return sac_fail(err, SAC_EFORMAT, "a kernel of %lld does not fit a bottom of %lld",
                            (long long)window.kernel[i], (long long)in->dim[2 + i]);
        /* Caffe would fill that place with the lowest number there is. */
        if ((size - 1) * window.stride[i] >= in->dim[2 + i] + window.pad[i])
            return sac_fail(err, SAC_EUNSUPPORTED,
                            "with stride %lld over kernel %lld the last window lies outside a "
                            "bottom of %lld",
                            (long long)window.stride[i], (long long)window.kernel[i],
                            (long long)in->dim[2 + i]);
        out->dim[2 + i] = size;
    }
    return 0;
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct pooling *pool = out->layer->state;
    struct sac_node *node = sac_emit_node(out, SAC_OP_POOL, err);

    if (!node)
        return SAC_ENOMEM;
    node->param.pool.window = window_over(pool, &out->in[0]);
    node->param.pool.method = pool->method;
    return 0;
}

const struct sac_layer_type sac_layer_pooling = {
    .name = "Pooling",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 2,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};
