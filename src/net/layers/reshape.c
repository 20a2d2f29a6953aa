/*
 * Reshape and Flatten: the same numbers under another shape.
 *
 * Reshape replaces the axes [axis, axis + num_axes) (num_axes −1: to the end) by the
 * dimensions given; 0 copies the bottom's dimension at that place, one −1 takes what
 * is left. Flatten joins the axes [axis, end_axis], both included.
 */
#include "net/layer.h"

struct reshape {
    int axis, num_axes;
    int count;
    int64_t dim[SAC_AXES_MAX];
};

static int setup(struct sac_layer *layer, const struct sac_layer_setup *in, struct sac_error *err)
{
    static const Caffe__ReshapeParameter none = CAFFE__RESHAPE_PARAMETER__INIT;
    const Caffe__ReshapeParameter *p =
        in->message->reshape_param ? in->message->reshape_param : &none;
    struct reshape *reshape = sac_layer_state_new(layer, in, sizeof *reshape, err);
    int inferred = 0;

    if (!reshape)
        return SAC_ENOMEM;
    reshape->axis = p->axis;
    reshape->num_axes = p->num_axes;
    if (p->num_axes < -1)
        return sac_fail(err, SAC_EFORMAT, "num_axes has to be at least -1, and is %d", p->num_axes);
    size_t count = p->shape ? p->shape->n_dim : 0;
    if (count > SAC_AXES_MAX)
        return sac_fail(err, SAC_ELIMIT, "the shape has %zu axes; the most is %d", count,
                        SAC_AXES_MAX);
    reshape->count = (int)count;
    for (int i = 0; i < reshape->count; i++) {
        reshape->dim[i] = p->shape->dim[i];
        inferred += reshape->dim[i] == -1;
        if (reshape->dim[i] < -1 || reshape->dim[i] > SAC_BLOB_COUNT_MAX)
            return sac_fail(err, SAC_EFORMAT, "dimension %lld is neither a size, nor 0, nor -1",
                            (long long)reshape->dim[i]);
    }
    if (inferred > 1)
        return sac_fail(err, SAC_EFORMAT, "only one dimension may be -1, and %d are", inferred);
    return 0;
}

/* The replaced axes of the bottom: [start, end). */
static int replaced_axes(const struct reshape *reshape, const struct sac_shape *in, int *ret_start,
                         int *ret_end, struct sac_error *err)
{
    int rc = sac_layer_axis(reshape->axis, in->rank + 1, ret_start, err);

    if (rc != 0)
        return rc;
    if (reshape->num_axes > in->rank - *ret_start)
        return sac_fail(err, SAC_EFORMAT, "%d axes from axis %d are more than the bottom's %d",
                        reshape->num_axes, *ret_start, in->rank);
    *ret_end = reshape->num_axes < 0 ? in->rank : *ret_start + reshape->num_axes;
    if (in->rank - (*ret_end - *ret_start) + reshape->count > SAC_AXES_MAX)
        return sac_fail(err, SAC_ELIMIT, "the result has over %d axes", SAC_AXES_MAX);
    return 0;
}

/* Gives the axis that is -1 what the others leave, and checks the count. */
static int fit_count(const struct sac_shape *in, struct sac_shape *out, int inferred,
                     struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];
    int64_t have = sac_shape_count(in);

    if (inferred >= 0)
        out->dim[inferred] = 1;
    int64_t count = sac_shape_count(out);
    if (inferred >= 0 && count > 0 && have % count == 0) {
        out->dim[inferred] = have / count;
        count = have;
    }
    if (count == have)
        return 0;
    return sac_fail(err, SAC_EFORMAT, "%s cannot become %s%s: the counts differ",
                    sac_shape_text(in, a, sizeof a), sac_shape_text(out, b, sizeof b),
                    inferred >= 0 ? " times the dimension -1" : "");
}

static int shape(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                 struct sac_error *err)
{
    const struct reshape *reshape = layer->state;
    const struct sac_shape *in = &shapes->in[0];
    struct sac_shape *out = &shapes->out[0];
    int start = 0, end = 0, inferred = -1;
    int rc = replaced_axes(reshape, in, &start, &end, err);

    if (rc != 0)
        return rc;
    for (int i = 0; i < start; i++)
        out->dim[out->rank++] = in->dim[i];
    for (int i = 0; i < reshape->count; i++) {
        if (reshape->dim[i] == 0 && start + i >= in->rank)
            return sac_fail(err, SAC_EFORMAT,
                            "dimension %d copies axis %d, and the bottom has %d axes", i, start + i,
                            in->rank);
        if (reshape->dim[i] == -1)
            inferred = out->rank;
        out->dim[out->rank++] = reshape->dim[i] == 0 ? in->dim[start + i] : reshape->dim[i];
    }
    for (int i = end; i < in->rank; i++)
        out->dim[out->rank++] = in->dim[i];
    return fit_count(in, out, inferred, err);
}

static int emit(struct sac_emit *out, struct sac_error *err)
{
    return sac_emit_node(out, SAC_OP_RESHAPE, err) ? 0 : SAC_ENOMEM;
}

const struct sac_layer_type sac_layer_reshape = {
    .name = "Reshape",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup,
    .shape = shape,
    .emit = emit,
};

struct flatten {
    int axis, end_axis;
};

static int setup_flatten(struct sac_layer *layer, const struct sac_layer_setup *in,
                         struct sac_error *err)
{
    static const Caffe__FlattenParameter none = CAFFE__FLATTEN_PARAMETER__INIT;
    const Caffe__FlattenParameter *p =
        in->message->flatten_param ? in->message->flatten_param : &none;
    struct flatten *flatten = sac_layer_state_new(layer, in, sizeof *flatten, err);

    if (!flatten)
        return SAC_ENOMEM;
    flatten->axis = p->axis;
    flatten->end_axis = p->end_axis;
    return 0;
}

static int shape_flatten(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                         struct sac_error *err)
{
    const struct flatten *flatten = layer->state;
    const struct sac_shape *in = &shapes->in[0];
    struct sac_shape *out = &shapes->out[0];
    int first, last;
    int rc = sac_layer_axis(flatten->axis, in->rank, &first, err);

    if (rc == 0)
        rc = sac_layer_axis(flatten->end_axis, in->rank, &last, err);
    if (rc != 0)
        return rc;
    if (last < first)
        return sac_fail(err, SAC_EFORMAT, "end_axis %d is before axis %d", last, first);
    for (int i = 0; i < first; i++)
        out->dim[out->rank++] = in->dim[i];
    out->dim[out->rank++] = sac_shape_count_between(in, first, last + 1);
    for (int i = last + 1; i < in->rank; i++)
        out->dim[out->rank++] = in->dim[i];
    return 0;
}

const struct sac_layer_type sac_layer_flatten = {
    .name = "Flatten",
    .bottom_min = 1,
    .bottom_max = 1,
    .top_min = 1,
    .top_max = 1,
    .setup = setup_flatten,
    .shape = shape_flatten,
    .emit = emit,
};
