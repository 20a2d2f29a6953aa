/* Slice, along one axis: at the points given, or into equal parts. And Split, which
 * only gives a blob several names. */
#include "net/layer.h"

struct slice {
    int axis;
    int point_count;
    uint32_t points[];
};

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    static const Caffe__SliceParameter none = CAFFE__SLICE_PARAMETER__INIT;
    const Caffe__SliceParameter *p = in->message->slice_param ? in->message->slice_param : &none;

    if (p->has_axis && p->has_slice_dim)
        return sac_fail(err, SAC_EFORMAT, "axis and slice_dim are both given");
    if (p->has_slice_dim && p->slice_dim >= SAC_AXES_MAX)
        return sac_fail(err, SAC_EFORMAT, "slice_dim %u is over %d", p->slice_dim,
                        SAC_AXES_MAX - 1);
    if (p->n_slice_point > 0 && p->n_slice_point != (size_t)layer->top_count - 1)
        return sac_fail(err, SAC_EFORMAT, "%d tops need %d slice points, and there are %zu",
                        layer->top_count, layer->top_count - 1, p->n_slice_point);
    struct slice *slice = sac_layer_state_new(
        layer, in, sizeof *slice + p->n_slice_point * sizeof slice->points[0], err);
    if (!slice)
        return SAC_ENOMEM;
    slice->axis = p->has_slice_dim ? (int)p->slice_dim : p->axis;
    slice->point_count = (int)p->n_slice_point;
    for (int i = 0; i < slice->point_count; i++)
        slice->points[i] = p->slice_point[i];
    return 0;
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct slice *slice = layer->state;
    const struct sac_shape *in = &shapes->in[0];
    int count = layer->top_count;
    int axis;
    int rc = sac_layer_axis(slice->axis, in->rank, &axis, err);

    if (rc != 0)
        return rc;
    if (slice->point_count == 0 && in->dim[axis] % count != 0)
        return sac_fail(err, SAC_EFORMAT, "axis %d has %lld, which %d tops do not divide", axis,
                        (long long)in->dim[axis], count);
    for (int64_t i = 0, from = 0, to; i < count; i++, from = to) {
        to = (i + 1) * (in->dim[axis] / count);
        if (slice->point_count > 0)
            to = i < count - 1 ? slice->points[i] : in->dim[axis];
        if (to <= from || to > in->dim[axis])
            return sac_fail(err, SAC_EFORMAT,
                            "slice points have to rise from 1 to less than %lld, and %lld follows "
                            "%lld",
                            (long long)in->dim[axis], (long long)to, (long long)from);
        shapes->out[i] = *in;
        shapes->out[i].dim[axis] = to - from;
    }
    return 0;
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    const struct slice *slice = out->layer->state;
    struct sac_node *node = sac_emit_node(out, SAC_OP_SLICE, err);

    if (!node)
        return SAC_ENOMEM;
    return sac_layer_axis(slice->axis, out->in[0].rank, &node->param.slice.axis, err);
}

const struct sac_layer_type sac_layer_slice = {
    .name = "Slice",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = SAC_ANY_COUNT,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};

static int emit_split(struct sac_emit *out, struct sac_error *err)
{
    (void)err;
    for (int i = 0; i < out->layer->top_count; i++)
        out->dst[i] = out->src[0];
    return 0;
}

const struct sac_layer_type sac_layer_split = {
    .name = "Split",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = SAC_ANY_COUNT,
    .emit = emit_split,
};
